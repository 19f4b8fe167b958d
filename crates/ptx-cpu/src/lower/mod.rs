//! Syntax tree to [`ir`](crate::ir), one function at a time.
//!
//! The same pass serves as the check at load time: it never stops at the first instruction that is not supported, but collects them.

mod decode;
mod decode_alu;
mod memory;
mod mods;
mod operands;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::Arc;

use ptx::ast::{Body, Function, Instruction, Operand, Statement};
use ptx::{Form, Name, ScalarType};

use crate::abi::op as park;
use crate::ir::{Block, Class, Func, Guard, Inst, Obj, Op, Reg, SINK, Space, Storage, Term, Val};
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
    signature_numbers: HashMap<Signature, u32>,
}

pub type Signature = (Vec<u64>, Vec<u64>);

impl Unit {
    pub fn signature(&mut self, signature: Signature) -> u32 {
        *self.signature_numbers.entry(signature).or_insert_with_key(|signature| {
            self.signatures.push(signature.clone());
            (self.signatures.len() - 1) as u32
        })
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

/// Limit of one parameter object: far beyond PTX's 4 KiB (32 KiB for kernels).
const MAX_OBJECT: u64 = 64 << 10;
/// Limit of all parameter objects of a function, with some bytes for each: a function with very many calls has very many.
const MAX_OBJECT_BYTES: u64 = 64 << 20;

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
        object_bytes: 0,
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
    /// Bytes of parameter objects so far.
    object_bytes: u64,
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
        self.object_bytes = self.object_bytes.saturating_add(size).saturating_add(128);
        if size > MAX_OBJECT || self.object_bytes > MAX_OBJECT_BYTES {
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

    fn sym(&self, name: &str) -> Option<&'a Sym> {
        self.index.variable(self.number, name)
    }
}

/// The operation of a form, for tests of the decoder.
#[cfg(test)]
pub(crate) fn decode_op(text: &str) -> Option<Op> {
    decode::decode(&Form::new(text)).map(|t| t.op)
}
