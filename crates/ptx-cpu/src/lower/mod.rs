//! Syntax tree to [`ir`](crate::ir), one function at a time.
//!
//! The same pass serves as the check at load time: it never stops at the first instruction that is not supported, but collects them.

mod decode;
mod mods;
mod operands;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::Arc;

use ptx::ast::{Body, Function, Instruction, Operand, Statement};
use ptx::{Form, Name, ScalarType};

use crate::abi::op as park;
use crate::ir::{
    Block, Builtin, CallSite, Class, Func, Guard, Inst, Obj, Op, Reg, SINK, Space, Storage, Target, Term, Val,
};
use crate::program::index::{Index, Sym};
use decode::{Bind, Slot, Template};

/// Something in a function that cannot be compiled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Line of the PTX source, from 1.
    pub line: u32,
    /// Whole sentence without the place, e.g. "unsupported PTX instruction `tex.2d.v4.f32.f32`".
    pub what: String,
}

/// What the functions of one kernel share while they are lowered: the layout of `.shared` and the signatures of indirect calls.
#[derive(Default)]
pub struct Unit {
    shared: HashMap<(u32, Name), u32>,
    /// Bytes of static shared memory so far.
    pub shared_len: u64,
    /// Alignment of dynamic shared memory; 0 if there is none.
    pub dyn_align: u32,
    /// Sizes of (returns, params); an indirect call and its callee must have the same.
    pub signatures: Vec<Signature>,
}

pub type Signature = (Vec<u64>, Vec<u64>);

impl Unit {
    pub fn signature(&mut self, signature: Signature) -> u32 {
        match self.signatures.iter().position(|s| *s == signature) {
            Some(i) => i as u32,
            None => {
                self.signatures.push(signature);
                (self.signatures.len() - 1) as u32
            }
        }
    }

    fn shared(&mut self, scope: u32, name: &Name, size: u64, align: u32) -> u64 {
        if let Some(offset) = self.shared.get(&(scope, name.clone())) {
            return u64::from(*offset);
        }
        let offset = self.shared_len.next_multiple_of(u64::from(align.max(1)));
        // Sizes beyond 32 bits are refused when the unit is complete; here they only must not wrap.
        self.shared_len = offset.saturating_add(size).min(1 << 40);
        self.shared.insert((scope, name.clone()), offset as u32);
        offset
    }
}

/// Sizes of returns and parameters.
pub fn signature_of(returns: &[ptx::Param], params: &[ptx::Param]) -> Signature {
    (returns.iter().map(ptx::Param::size).collect(), params.iter().map(ptx::Param::size).collect())
}

/// Decoded forms by the address of the shared `Form` (kept alive by the module).
#[derive(Default)]
pub struct FormCache(HashMap<usize, Option<Template>>);

impl FormCache {
    fn get(&mut self, form: &Arc<Form>) -> Option<Template> {
        *self.0.entry(Arc::as_ptr(form) as usize).or_insert_with(|| decode::decode(form))
    }
}

/// Limit of one parameter object and of all of a function: far beyond PTX's 4 KiB (32 KiB for kernels).
const MAX_OBJECT: u64 = 64 << 10;

/// Lowers function `number` of the index, which must have a body.
///
/// # Errors
/// Everything that is not supported, in order.
pub fn lower(
    index: &Index,
    unit: &mut Unit,
    forms: &mut FormCache,
    number: u32,
) -> Result<Func, Vec<Problem>> {
    let ast = index.function(number);
    let Some(body) = &ast.body else {
        return Err(vec![Problem { line: ast.line, what: format!("function `{}` has no body", ast.name) }]);
    };
    let mut lowerer = Lowerer {
        index,
        unit,
        number,
        ast,
        body,
        func: Func {
            name: ast.name.clone(),
            regs: Vec::with_capacity(body.registers.len()),
            blocks: vec![Block { insts: Vec::new(), term: Term::Ret }],
            objs: Vec::new(),
            params: Vec::new(),
            returns: Vec::new(),
            calls: Vec::new(),
            sp: None,
            local_len: 0,
            object_len: 0,
        },
        locals: HashMap::new(),
        labels: vec![None; body.labels.len()],
        current: 0,
        carry: None,
        line: ast.line,
        problems: Vec::new(),
    };
    lowerer.declare();
    for statement in &body.statements {
        match statement {
            Statement::Label(label) => lowerer.place(*label),
            Statement::Instruction(inst) => {
                lowerer.line = inst.line;
                if let Err(what) = lowerer.instruction(inst, forms) {
                    lowerer.problems.push(Problem { line: inst.line, what });
                }
            }
        }
    }
    lowerer.finish_returns();
    lowerer.finish_stack_pointer();
    if lowerer.problems.is_empty() { Ok(lowerer.func) } else { Err(lowerer.problems) }
}

type Res<T> = Result<T, String>;

/// A name inside a function.
#[derive(Clone, Copy)]
enum Local {
    KernelParam(u32),
    Obj(u32),
    Depot(u32),
    Shared {
        size: u64,
        align: u32,
    },
    /// Has an address of its own, see the index.
    Static,
}

struct Lowerer<'a> {
    index: &'a Index,
    unit: &'a mut Unit,
    number: u32,
    ast: &'a Function,
    body: &'a Body,
    func: Func,
    locals: HashMap<&'a str, Local>,
    labels: Vec<Option<u32>>,
    /// Block being filled.
    current: usize,
    /// Carry flag of the `.cc` instructions.
    carry: Option<Reg>,
    line: u32,
    problems: Vec<Problem>,
}

impl<'a> Lowerer<'a> {
    fn problem(&mut self, what: String) {
        self.problems.push(Problem { line: self.line, what });
    }

    fn declare(&mut self) {
        for register in &self.body.registers {
            let class = Class::of(register.ty).unwrap_or_else(|| {
                self.problems.push(Problem {
                    line: self.ast.line,
                    what: format!("unsupported register type .{} of {}", register.ty, register.name),
                });
                Class::I64
            });
            self.func.regs.push(class);
        }
        let ast = self.ast;
        if ast.is_entry {
            let slots = ptx::layout::params(&ast.params).unwrap_or_default().slots;
            for (param, slot) in ast.params.iter().zip(slots) {
                self.locals.insert(&param.name, Local::KernelParam(slot.offset));
            }
        }
        let formals: &[ptx::Param] = if ast.is_entry { &[] } else { &ast.params };
        let returns: &[ptx::Param] = if ast.is_entry { &[] } else { &ast.returns };
        for (is_return, param) in returns.iter().map(|p| (true, p)).chain(formals.iter().map(|p| (false, p)))
        {
            let obj = self.object(param.size(), param.align());
            if is_return {
                self.func.returns.push(obj)
            } else {
                self.func.params.push(obj)
            }
            match param.reg {
                // Parameters in registers are copied from the object on entry, and to it at returns.
                Some(reg) if !is_return => {
                    let mut inst = Inst::new(Op::LdObj { obj, ty: param.ty }, vec![reg.0], vec![]);
                    inst.line = self.line;
                    self.func.blocks[0].insts.push(inst);
                }
                Some(_) => {}
                None => {
                    self.locals.insert(&param.name, Local::Obj(obj));
                }
            }
        }
        for variable in &self.body.variables {
            let size = variable.size();
            let align = variable.align();
            let local = match variable.space {
                ptx::Space::Param => Local::Obj(self.object(size.unwrap_or(u64::MAX), align)),
                ptx::Space::Local => {
                    let offset = u64::from(self.func.local_len).next_multiple_of(u64::from(align.max(1)));
                    let end = offset.saturating_add(size.unwrap_or(u64::MAX));
                    if end > u64::from(u32::MAX / 4) {
                        self.problem(format!("local variable `{}` is too large", variable.name));
                        continue;
                    }
                    self.func.local_len = end as u32;
                    Local::Depot(offset as u32)
                }
                ptx::Space::Shared => match size {
                    Some(size) => Local::Shared { size, align },
                    None => {
                        self.unit.dyn_align = self.unit.dyn_align.max(align);
                        continue;
                    }
                },
                _ => Local::Static,
            };
            self.locals.insert(&variable.name, local);
        }
        // Depots of nested calls follow each other: keep them aligned.
        self.func.local_len = self.func.local_len.next_multiple_of(16);
    }

    fn object(&mut self, size: u64, align: u32) -> u32 {
        if size > MAX_OBJECT {
            self.problem(format!("a parameter of {size} bytes is too large"));
        }
        let size = size.min(MAX_OBJECT) as u32;
        self.func.objs.push(Obj {
            size,
            align: align.clamp(1, 128),
            address_taken: false,
            storage: Storage::Pieces(Vec::new()),
        });
        (self.func.objs.len() - 1) as u32
    }

    fn new_block(&mut self) -> u32 {
        self.func.blocks.push(Block { insts: Vec::new(), term: Term::Trap });
        (self.func.blocks.len() - 1) as u32
    }

    fn label(&mut self, label: ptx::ast::LabelId) -> u32 {
        match self.labels[label.0 as usize] {
            Some(block) => block,
            None => {
                let block = self.new_block();
                self.labels[label.0 as usize] = Some(block);
                block
            }
        }
    }

    fn place(&mut self, label: ptx::ast::LabelId) {
        let block = self.label(label);
        self.func.blocks[self.current].term = Term::Jump(block);
        self.start(block);
    }

    /// Goes on in `block`; until something else is said it ends like the end of the body does.
    fn start(&mut self, block: u32) {
        self.current = block as usize;
        self.func.blocks[self.current].term = Term::Ret;
    }

    /// Ends the block with `term`, taken only under the guard, and goes on after it.
    fn terminate(&mut self, guard: Option<Guard>, term: Term) {
        let next = self.new_block();
        let term = match (guard, term) {
            (None, term) => term,
            (Some(cond), Term::Jump(then)) => Term::Branch { cond, then, or: next },
            (Some(cond), term) => {
                let then = self.new_block();
                self.func.blocks[then as usize].term = term;
                Term::Branch { cond, then, or: next }
            }
        };
        self.func.blocks[self.current].term = term;
        self.start(next);
    }

    /// Copies return parameters in registers to their objects before every return.
    fn finish_returns(&mut self) {
        let copies: Vec<Inst> = self
            .ast
            .returns
            .iter()
            .zip(&self.func.returns)
            .filter_map(|(p, obj)| {
                Some(Inst::new(Op::StObj { obj: *obj, ty: p.ty }, vec![], vec![Val::Reg(p.reg?.0)]))
            })
            .collect();
        if !copies.is_empty() {
            for block in self.func.blocks.iter_mut().filter(|b| matches!(b.term, Term::Ret)) {
                block.insts.extend(copies.iter().cloned());
            }
        }
    }

    /// Starts the stack pointer behind the depot, and gives it to all calls.
    fn finish_stack_pointer(&mut self) {
        let Some(sp) = self.func.sp else { return };
        self.func.blocks[0]
            .insts
            .insert(0, Inst::new(Op::Mov(ScalarType::U64), vec![sp], vec![Val::LocalEnd]));
        self.func.calls.iter_mut().for_each(|c| c.sp = Some(sp));
        for inst in self.func.blocks.iter_mut().flat_map(|b| &mut b.insts) {
            if let Op::Call(_) = inst.op {
                inst.srcs.push(Val::Reg(sp));
            }
        }
    }

    fn stack_pointer(&mut self) -> Reg {
        match self.func.sp {
            Some(sp) => sp,
            None => {
                let sp = self.func.new_reg(Class::I64);
                self.func.sp = Some(sp);
                sp
            }
        }
    }

    fn push(&mut self, mut inst: Inst, guard: Option<Guard>) {
        inst.guard = guard;
        inst.line = self.line;
        self.func.blocks[self.current].insts.push(inst);
    }

    fn carry(&mut self) -> Reg {
        match self.carry {
            Some(reg) => reg,
            None => {
                let reg = self.func.new_reg(Class::Pred);
                self.carry = Some(reg);
                reg
            }
        }
    }

    fn instruction(&mut self, inst: &'a Instruction, forms: &mut FormCache) -> Res<()> {
        let unsupported = || format!("unsupported PTX instruction `{}`", inst.form.text);
        let template = forms.get(&inst.form).ok_or_else(unsupported)?;
        let guard = match inst.guard {
            None => None,
            Some(g) if self.class(g.reg.0) == Class::Pred => Some(Guard { reg: g.reg.0, negated: g.negated }),
            Some(_) => return Err(format!("guard of `{}` is no predicate", inst.form.text)),
        };
        self.bind(inst, template, guard).map_err(|why| {
            if why.is_empty() {
                format!("unsupported operands of PTX instruction `{}`", inst.form.text)
            } else {
                why
            }
        })
    }

    /// Binds operands; an empty error text means "these operands are not supported".
    fn bind(&mut self, inst: &'a Instruction, template: Template, guard: Option<Guard>) -> Res<()> {
        let ops = &inst.operands[..];
        let op = template.op;
        match template.bind {
            Bind::Alu(srcs) => {
                let types = srcs.types();
                if let Op::Fence = op {
                    self.push(Inst::new(op, vec![], vec![]), guard);
                    return Ok(());
                }
                let [d, rest @ ..] = ops else { return Err(String::new()) };
                let d = self.dst(d)?;
                let values = self.vals(rest, types)?;
                self.push(Inst::new(op, vec![d], values), guard);
            }
            Bind::Carry { srcs, cin, cout } => {
                let [d, rest @ ..] = ops else { return Err(String::new()) };
                let d = self.dst(d)?;
                let mut values = self.vals(rest, srcs.types())?;
                let carry = self.carry();
                values.push(if cin { Val::Reg(carry) } else { Val::Imm(0) });
                let out = if cout { carry } else { SINK };
                self.push(Inst::new(op, vec![d, out], values), guard);
            }
            Bind::Compare { ty, combine } => {
                let [d, rest @ ..] = ops else { return Err(String::new()) };
                let (p, q) = self.pair(d)?;
                let types = [ty, ty, ScalarType::Pred];
                let values = self.vals(rest, &types[..if combine { 3 } else { 2 }])?;
                self.push(Inst::new(op, vec![p, q], values), guard);
            }
            Bind::Mov(ty) => self.mov(ops, ty, guard)?,
            Bind::Load { vector } => {
                let [d, address, ..] = ops else { return Err(String::new()) };
                self.load(op, vector, d, address, template.space_open, guard)?;
            }
            Bind::Store { vector } => {
                let [address, value, ..] = ops else { return Err(String::new()) };
                self.store(op, vector, address, value, template.space_open, guard)?;
            }
            Bind::Atom { ty, red, .. } => {
                let (d, rest) = match ops {
                    [d, rest @ ..] if !red => (self.dst(d)?, rest),
                    rest => (SINK, rest),
                };
                let [address, rest @ ..] = rest else { return Err(String::new()) };
                let Op::Atom { space, op, ty: _ } = op else { return Err(String::new()) };
                let (space, base, offset) = self.address(address, space, template.space_open)?;
                let n = if op == crate::ir::AtomOp::Cas { 2 } else { 1 };
                // A cache policy may follow.
                let rest = &rest[..n.min(rest.len())];
                let mut srcs = vec![base];
                srcs.extend(self.vals(rest, &[ty; 2][..n])?);
                if !matches!(space, Space::Region | Space::Shared) {
                    return Err(String::new());
                }
                let mut inst = Inst::new(Op::Atom { space, op, ty }, vec![d], srcs);
                inst.offset = offset;
                self.push(inst, guard);
            }
            Bind::CpAsync => self.cp_async(ops, guard)?,
            Bind::Park { ty, order } => self.park(op, ops, ty, order, guard)?,
            Bind::Barrier { op } => self.barrier(op, ops, guard)?,
            Bind::Bra => {
                let [Operand::Label(label)] = ops else { return Err(String::new()) };
                let target = self.label(*label);
                self.terminate(guard, Term::Jump(target));
            }
            Bind::BrxIdx => {
                let [index, Operand::Symbol { name, .. }] = ops else { return Err(String::new()) };
                let body = self.body;
                let table = body.branch_table(name).ok_or_else(|| format!("no branch table `{name}`"))?;
                let index = self.val(index, ScalarType::U32)?;
                let targets = table.targets.iter().map(|l| self.label(*l)).collect();
                self.terminate(guard, Term::Switch { index, targets });
            }
            Bind::Call => self.call(inst, guard)?,
            Bind::Ret => self.terminate(guard, Term::Ret),
            Bind::Exit => self.terminate(guard, Term::Exit),
            Bind::Trap => {
                self.push(Inst::new(op, vec![], vec![]), guard);
                if guard.is_none() {
                    self.terminate(None, Term::Trap);
                }
            }
            Bind::Nop => {}
            Bind::Alloca => {
                let (d, size, align) = match ops {
                    [d, size] => (d, size, 16),
                    [d, size, Operand::Int(align)] => (d, size, *align),
                    _ => return Err(String::new()),
                };
                let align = u32::try_from(align)
                    .ok()
                    .filter(|a| a.is_power_of_two() && *a <= 128)
                    .ok_or_else(String::new)?;
                let (d, size) = (self.dst(d)?, self.val(size, ScalarType::U64)?);
                let sp = self.stack_pointer();
                self.push(Inst::new(Op::Alloca { align }, vec![d, sp], vec![size, Val::Reg(sp)]), guard);
            }
            Bind::StackSave => {
                let [d] = ops else { return Err(String::new()) };
                let (d, sp) = (self.dst(d)?, self.stack_pointer());
                self.push(Inst::new(op, vec![d], vec![Val::Reg(sp)]), guard);
            }
            Bind::StackRestore => {
                let [s] = ops else { return Err(String::new()) };
                let (s, sp) = (self.val(s, ScalarType::U64)?, self.stack_pointer());
                self.push(Inst::new(op, vec![sp], vec![s]), guard);
            }
            Bind::Zero => {
                let [d, ..] = ops else { return Err(String::new()) };
                let d = self.dst(d)?;
                self.push(Inst::new(op, vec![d], vec![Val::Imm(0)]), guard);
            }
        }
        Ok(())
    }

    fn park(
        &mut self,
        op: Op,
        ops: &[Operand],
        ty: ScalarType,
        order: &[Slot],
        guard: Option<Guard>,
    ) -> Res<()> {
        let Op::Park(number) = op else { return Err(String::new()) };
        let has_result = !matches!(number, park::WARP_SYNC | park::YIELD);
        let (mut result, mut predicate) = (SINK, SINK);
        let mut rest = ops;
        if has_result {
            let [d, tail @ ..] = ops else { return Err(String::new()) };
            rest = tail;
            (result, predicate) = self.pair(d)?;
            if matches!(number, park::VOTE_ALL | park::VOTE_ANY | park::VOTE_UNI) {
                (result, predicate) = (SINK, result);
            }
        }
        // Without a mask operand (the forms before `.sync`) all live lanes take part.
        let mut srcs = vec![Val::Imm(0xffff_ffff), Val::Imm(0), Val::Imm(0), Val::Imm(0)];
        if rest.len() != order.len() {
            return Err(String::new());
        }
        for (operand, slot) in rest.iter().zip(order) {
            let (at, ty) = match slot {
                Slot::Mask => (0, ScalarType::B32),
                Slot::A => (1, ty),
                Slot::APred => (1, ScalarType::Pred),
                Slot::B => (2, ScalarType::B32),
                Slot::C => (3, ScalarType::B32),
                Slot::Skip => continue,
            };
            srcs[at] = match self.val(operand, ty)? {
                // What is parked is 64 bits wide and zero-extended.
                Val::Imm(bits) if ty.size() == 4 => Val::Imm(bits & 0xffff_ffff),
                value => value,
            };
        }
        self.push(Inst::new(op, vec![result, predicate], srcs), guard);
        Ok(())
    }

    fn barrier(&mut self, op: u32, ops: &[Operand], guard: Option<Guard>) -> Res<()> {
        let red = matches!(op, park::BARRIER_RED_POPC | park::BARRIER_RED_AND | park::BARRIER_RED_OR);
        let (mut result, mut predicate) = (SINK, SINK);
        let mut rest = ops;
        let mut input = Val::Imm(0);
        if red {
            let [d, middle @ .., p] = ops else { return Err(String::new()) };
            rest = middle;
            let d = self.dst(d)?;
            if op == park::BARRIER_RED_POPC {
                result = d
            } else {
                predicate = d
            }
            input = self.val(p, ScalarType::Pred)?;
        }
        let (number, count) = match rest {
            [] => (Val::Imm(0), Val::Imm(0)),
            [a] => (self.val(a, ScalarType::U32)?, Val::Imm(0)),
            [a, b] => (self.val(a, ScalarType::U32)?, self.val(b, ScalarType::U32)?),
            _ => return Err(String::new()),
        };
        let narrow = |v| if let Val::Imm(bits) = v { Val::Imm(bits & 0xffff_ffff) } else { v };
        let (number, count) = (narrow(number), narrow(count));
        self.push(
            Inst::new(Op::Park(op), vec![result, predicate], vec![number, count, input, Val::Imm(0)]),
            guard,
        );
        Ok(())
    }

    fn call(&mut self, inst: &'a Instruction, guard: Option<Guard>) -> Res<()> {
        let call = inst.call().ok_or_else(String::new)?;
        let (target, returns, params): (_, &[ptx::Param], &[ptx::Param]);
        let mut srcs = Vec::new();
        match call.target {
            Operand::Symbol { name, offset: 0 } => {
                let callee = self
                    .index
                    .resolve_function(name)
                    .ok_or_else(|| format!("call of unknown function `{name}`"))?;
                let ast = self.index.function(callee);
                (returns, params) = (&ast.returns, &ast.params);
                target = if ast.is_entry {
                    return Err(format!("call of kernel `{name}`"));
                } else if ast.body.is_some() {
                    Target::Direct(callee)
                } else {
                    match &**name {
                        "vprintf" => Target::Builtin(Builtin::Vprintf),
                        "malloc" => Target::Builtin(Builtin::Malloc),
                        "free" => Target::Builtin(Builtin::Free),
                        "__assertfail" => Target::Builtin(Builtin::AssertFail),
                        _ => return Err(format!("call of undefined function `{name}`")),
                    }
                };
            }
            Operand::Reg(reg) => {
                let name = call.signature.ok_or("indirect call without a prototype")?;
                if let Some(prototype) = self.body.prototype(name) {
                    (returns, params) = (&prototype.returns, &prototype.params);
                } else {
                    let first = self.body.call_table(name).and_then(|t| t.targets.first());
                    let callee = first
                        .and_then(|f| self.index.resolve_function(f))
                        .ok_or("indirect call without targets")?;
                    let ast = self.index.function(callee);
                    (returns, params) = (&ast.returns, &ast.params);
                }
                target = Target::Indirect(self.unit.signature(signature_of(returns, params)));
                srcs.push(Val::Reg(reg.0));
            }
            _ => return Err(String::new()),
        }
        if returns.len() != call.returns.len() || params.len() != call.args.len() {
            return Err("call does not match the parameters of the function".into());
        }
        let mut args = Vec::with_capacity(params.len());
        for (operand, param) in call.args.iter().zip(params) {
            args.push(match self.object_operand(operand) {
                Some(obj) => self.fitting(obj, param)?,
                None => {
                    let value = self.val(operand, param.ty)?;
                    let obj = self.object(param.size(), param.align());
                    self.push(Inst::new(Op::StObj { obj, ty: param.ty }, vec![], vec![value]), guard);
                    obj
                }
            });
        }
        let mut rets = Vec::with_capacity(returns.len());
        let mut after = Vec::new();
        for (operand, param) in call.returns.iter().zip(returns) {
            rets.push(match self.object_operand(operand) {
                Some(obj) => self.fitting(obj, param)?,
                None => {
                    let obj = self.object(param.size(), param.align());
                    let d = self.dst(operand)?;
                    after.push(Inst::new(Op::LdObj { obj, ty: param.ty }, vec![d], vec![]));
                    obj
                }
            });
        }
        let number = self.func.calls.len() as u32;
        self.func.calls.push(CallSite { target, args, rets, sp: None });
        self.push(Inst::new(Op::Call(number), vec![], srcs), guard);
        for inst in after {
            self.push(inst, guard);
        }
        Ok(())
    }

    fn object_operand(&self, operand: &Operand) -> Option<u32> {
        match operand {
            Operand::Symbol { name, offset: 0 } => match self.locals.get(&**name) {
                Some(Local::Obj(obj)) => Some(*obj),
                _ => None,
            },
            _ => None,
        }
    }

    fn fitting(&self, obj: u32, param: &ptx::Param) -> Res<u32> {
        if u64::from(self.func.objs[obj as usize].size) < param.size() {
            return Err("an argument is smaller than the parameter of the function".into());
        }
        Ok(obj)
    }

    fn cp_async(&mut self, ops: &[Operand], guard: Option<Guard>) -> Res<()> {
        let [dst, src, Operand::Int(len), rest @ ..] = ops else { return Err(String::new()) };
        let len = u8::try_from(*len).ok().filter(|l| matches!(l, 4 | 8 | 16)).ok_or_else(String::new)?;
        let (to, dst, dst_offset) = self.address(dst, Space::Shared, false)?;
        let (from, src, src_offset) = self.address(src, Space::Region, false)?;
        let src_offset = i32::try_from(src_offset).map_err(|_| String::new())?;
        if to != Space::Shared || from != Space::Region {
            return Err(String::new());
        }
        let mut ignore = false;
        let mut srcs = vec![dst, src];
        match rest {
            [] => {}
            // A predicate says "copy nothing", a number how many bytes to copy; a 64-bit operand is a cache policy.
            [Operand::Reg(r), ..] if self.class(r.0) == Class::I64 => {}
            [p @ (Operand::Reg(_) | Operand::NotReg(_)), ..] if self.is_pred(p) => {
                ignore = true;
                srcs.push(self.val(p, ScalarType::Pred)?);
            }
            [n, ..] => srcs.push(self.val(n, ScalarType::U32)?),
        }
        let mut inst = Inst::new(Op::CpAsync { len, src_offset, ignore }, vec![], srcs);
        inst.offset = dst_offset;
        self.push(inst, guard);
        Ok(())
    }

    fn load(
        &mut self,
        op: Op,
        vector: u8,
        d: &Operand,
        address: &Operand,
        open: bool,
        guard: Option<Guard>,
    ) -> Res<()> {
        let Op::Ld { space, ty, order } = op else { return Err(String::new()) };
        let dsts = self.dst_list(d, vector)?;
        if let Some((obj, offset)) = self.object_access(address, space, open, ty, vector)? {
            for (i, d) in dsts.into_iter().enumerate() {
                let mut inst = Inst::new(Op::LdObj { obj, ty }, vec![d], vec![]);
                inst.offset = i64::from(offset) + i as i64 * ty.size() as i64;
                self.push(inst, guard);
            }
            return Ok(());
        }
        let (space, base, offset) = self.address(address, space, open)?;
        let mut inst = Inst::new(Op::Ld { space, ty, order }, dsts, vec![base]);
        inst.offset = offset;
        self.push(inst, guard);
        Ok(())
    }

    fn store(
        &mut self,
        op: Op,
        vector: u8,
        address: &Operand,
        value: &Operand,
        open: bool,
        guard: Option<Guard>,
    ) -> Res<()> {
        let Op::St { space, ty, order } = op else { return Err(String::new()) };
        let values = self.val_list(value, ty, vector)?;
        if let Some((obj, offset)) = self.object_access(address, space, open, ty, vector)? {
            for (i, v) in values.into_iter().enumerate() {
                let mut inst = Inst::new(Op::StObj { obj, ty }, vec![], vec![v]);
                inst.offset = i64::from(offset) + i as i64 * ty.size() as i64;
                self.push(inst, guard);
            }
            return Ok(());
        }
        let (space, base, offset) = self.address(address, space, open)?;
        if space == Space::Param {
            return Err("store to a kernel parameter".into());
        }
        let mut srcs = vec![base];
        srcs.extend(values);
        let mut inst = Inst::new(Op::St { space, ty, order }, vec![], srcs);
        inst.offset = offset;
        self.push(inst, guard);
        Ok(())
    }

    /// The object and offset of an access to a parameter object by name.
    fn object_access(
        &mut self,
        address: &Operand,
        space: Space,
        open: bool,
        ty: ScalarType,
        vector: u8,
    ) -> Res<Option<(u32, u32)>> {
        let Operand::Address(ptx::ast::Address { base: ptx::ast::AddressBase::Symbol(name), offset }) =
            address
        else {
            return Ok(None);
        };
        let Some(Local::Obj(obj)) = self.locals.get(&**name) else { return Ok(None) };
        if space != Space::Param && !open {
            return Err(format!("`{name}` is a parameter"));
        }
        let end = offset.checked_add(ty.size() as i64 * i64::from(vector));
        let size = i64::from(self.func.objs[*obj as usize].size);
        if *offset < 0 || end.is_none_or(|e| e > size) {
            return Err(format!("access outside of parameter `{name}`"));
        }
        Ok(Some((*obj, *offset as u32)))
    }

    fn sym(&self, name: &str) -> Option<&'a Sym> {
        self.index.variable(self.number, name)
    }
}

/// The operation of a form, for tests of the decoder.
#[cfg(test)]
pub(crate) fn decode_op(text: &str) -> Option<Op> {
    decode::decode(&Form::new(text)).map(|t| t.op)
}
