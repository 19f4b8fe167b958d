//! One function: control flow, registers and operands.

use std::collections::HashMap;
use std::mem::offset_of;

use cranelift_codegen::ir::{
    AliasRegion, AliasRegionData, Block, BlockArg, FuncRef, InstBuilder, JumpTableData, StackSlot,
    StackSlotData, StackSlotKind, Value, types,
};
use cranelift_frontend::{FunctionBuilder, Variable};
use cranelift_jit::JITModule;
use cranelift_module::{FuncId, Module};

use super::UnitIr;
use super::fault::unreachable_code;
use super::group::Groups;
use super::value::{class_type, int_type, value_type};
use crate::abi::{FaultKind, Outcome, Thread};
use crate::ir::{Func, Guard, Inst, Op, Reg, SINK, Term, Val, live};

/// What all functions of a unit share.
pub struct UnitCx<'a> {
    pub unit: &'a UnitIr<'a>,
    pub ids: &'a HashMap<u32, FuncId>,
    pub helper_ids: &'a HashMap<&'static str, FuncId>,
    /// Native fused multiply-add.
    pub fma: bool,
    /// Plain stores are not release stores on this machine.
    pub strong_stores: bool,
    /// Address and length of the table of indirect calls.
    pub table: usize,
    pub table_len: u32,
}

/// Limit of a kernel's frame per thread.
const MAX_FRAME: u32 = 1 << 20;

/// Memory of the objects that are not in registers.
#[derive(Clone, Copy)]
pub enum ObjectMemory {
    None,
    /// Suspending kernels: in the thread's frame.
    Frame,
    Stack(StackSlot),
}

pub struct Gen<'a, 'b> {
    pub cx: &'a UnitCx<'a>,
    pub func: &'a Func,
    pub b: FunctionBuilder<'b>,
    pub module: &'a mut JITModule,
    pub is_kernel: bool,
    pub vars: Vec<Variable>,
    blocks: Vec<Block>,
    /// Terminators that have yet to be emitted, per block.
    pending: Vec<u32>,
    pub thread: Value,
    pub block: Value,
    /// Argument area of a device function.
    pub args: Option<Value>,
    /// Offset of the function's depot in local memory; `None` in a kernel, where it is 0.
    pub local_sp: Option<Value>,
    pub objects: ObjectMemory,
    /// Area for the arguments of calls.
    pub out_args: Option<StackSlot>,
    pub helper_refs: HashMap<&'static str, FuncRef>,
    pub function_refs: HashMap<u32, FuncRef>,
    /// Faults with a kind, and failed region checks by the log2 of the access size.
    pub fault_block: Option<Block>,
    pub region_blocks: [Option<Block>; 6],
    /// Bases that were checked against the region in this block, with the log2 of the checked alignment.
    pub checked: Vec<(Value, u32)>,
    pub groups: Groups,
    pub parks: HashMap<(u32, u32), Vec<Reg>>,
    pub resume_blocks: Vec<Block>,
    pub next_resume: usize,
    pub frame_len: u32,
    /// Threads of a row run in a loop inside of a kernel that does not suspend.
    pub row: Option<Row>,
    row_start: Option<Block>,
    pub heap: AliasRegion,
    pub state: AliasRegion,
    pub frame: AliasRegion,
}

/// The loop over the threads of a row.
#[derive(Clone, Copy)]
pub struct Row {
    /// `%tid.x`
    pub x: Variable,
    /// Index in the block.
    pub linear: Variable,
    /// Where a thread goes when it ends.
    done: Block,
}

/// Emits a function; returns the length of a kernel's frame.
pub fn translate(
    cx: &UnitCx<'_>,
    func: &Func,
    is_kernel: bool,
    b: FunctionBuilder<'_>,
    module: &mut JITModule,
) -> Result<u32, String> {
    let parks = if is_kernel && func.parks() {
        live::across_parks(func)?
    } else {
        live::check(func)?;
        HashMap::new()
    };
    let placeholder = Value::from_u32(0);
    let mut region = |id, name: &'static str| {
        b.func.dfg.alias_regions.insert(AliasRegionData { user_id: id, description: name.into() })
    };
    let (heap, state, frame) = (region(0, "region"), region(1, "state"), region(2, "frame"));
    let mut g = Gen {
        cx,
        func,
        b,
        module,
        is_kernel,
        vars: Vec::new(),
        blocks: Vec::new(),
        pending: Vec::new(),
        thread: placeholder,
        block: placeholder,
        args: None,
        local_sp: None,
        objects: ObjectMemory::None,
        out_args: None,
        helper_refs: HashMap::new(),
        function_refs: HashMap::new(),
        fault_block: None,
        region_blocks: [None; 6],
        checked: Vec::new(),
        groups: Groups::default(),
        parks,
        resume_blocks: Vec::new(),
        next_resume: 0,
        frame_len: 0,
        row: None,
        row_start: None,
        heap,
        state,
        frame,
    };
    g.run()?;
    let frame_len = g.frame_len.next_multiple_of(16);
    let config = g.module.target_config();
    g.b.finalize(config);
    if frame_len > MAX_FRAME {
        return Err(format!("`{}` keeps {frame_len} bytes per thread across a suspension", func.name));
    }
    Ok(frame_len)
}

impl<'a> Gen<'a, '_> {
    fn run(&mut self) -> Result<(), String> {
        let func = self.func;
        for class in &func.regs {
            let var = self.b.declare_var(class_type(*class));
            self.vars.push(var);
        }
        let reachable = self.reachable();
        self.blocks = func.blocks.iter().map(|_| self.b.create_block()).collect();
        self.pending = vec![0; func.blocks.len()];
        for (i, block) in func.blocks.iter().enumerate().filter(|(i, _)| reachable[*i]) {
            let _ = i;
            for s in distinct(&block.term) {
                self.pending[s as usize] += 1;
            }
        }
        self.pending[0] += 1;

        let entry = self.b.create_block();
        self.b.append_block_params_for_function_params(entry);
        self.b.switch_to_block(entry);
        self.b.seal_block(entry);
        let params = self.b.block_params(entry).to_vec();
        (self.thread, self.block) = (params[0], params[1]);
        if let [_, _, args, local_sp] = params[..] {
            (self.args, self.local_sp) = (Some(args), Some(local_sp));
        }
        self.prologue(&reachable)?;

        for (i, block) in func.blocks.iter().enumerate() {
            if !reachable[i] {
                continue;
            }
            self.b.switch_to_block(self.blocks[i]);
            self.checked.clear();
            self.groups = Groups::of(block);
            for (n, inst) in block.insts.iter().enumerate() {
                self.groups.at = n;
                self.guarded(inst, (i as u32, n as u32))?;
            }
            self.terminator(&block.term)?;
            for s in distinct(&block.term) {
                self.arrived(s);
            }
        }
        // Blocks that nothing reaches still have to be well-formed.
        for i in (0..func.blocks.len()).filter(|i| !reachable[*i]) {
            self.b.switch_to_block(self.blocks[i]);
            self.b.ins().trap(unreachable_code());
        }
        self.end_row();
        self.cold_blocks();
        self.b.seal_all_blocks();
        Ok(())
    }

    fn reachable(&self) -> Vec<bool> {
        let mut seen = vec![false; self.func.blocks.len()];
        let mut work = vec![0u32];
        while let Some(b) = work.pop() {
            if !std::mem::replace(&mut seen[b as usize], true) {
                work.extend(self.func.blocks[b as usize].term.successors());
            }
        }
        seen
    }

    /// One of the predecessors of an IR block is complete.
    fn arrived(&mut self, block: u32) {
        let pending = &mut self.pending[block as usize];
        *pending -= 1;
        if *pending == 0 {
            self.b.seal_block(self.blocks[block as usize]);
        }
    }

    fn prologue(&mut self, reachable: &[bool]) -> Result<(), String> {
        let func = self.func;
        let parks = self.is_kernel && func.parks();
        if func.object_len > 0 {
            self.objects = if parks {
                self.frame_len = func.object_len;
                ObjectMemory::Frame
            } else {
                ObjectMemory::Stack(self.stack_slot(func.object_len))
            };
        }
        self.reserve_out_args()?;
        if !self.is_kernel {
            self.check_stack();
        }
        if parks {
            let count = func
                .blocks
                .iter()
                .zip(reachable)
                .filter(|(_, r)| **r)
                .flat_map(|(b, _)| &b.insts)
                .filter(|i| matches!(i.op, Op::Park(_)))
                .count();
            self.resume_blocks = (0..count).map(|_| self.b.create_block()).collect();
            let start = self.b.create_block();
            let default = self.b.create_block();
            self.b.set_cold_block(default);
            let flags = self.state_flags();
            let resume = self.b.ins().load(types::I32, flags, self.thread, offset_of!(Thread, resume) as i32);
            let mut targets = vec![self.b.func.dfg.block_call(start, &[])];
            for block in &self.resume_blocks {
                targets.push(self.b.func.dfg.block_call(*block, &[]));
            }
            let default_call = self.b.func.dfg.block_call(default, &[]);
            let table = self.b.create_jump_table(JumpTableData::new(default_call, &targets));
            self.b.ins().br_table(resume, table);
            for block in self.resume_blocks.clone() {
                self.b.seal_block(block);
            }
            self.b.switch_to_block(default);
            self.b.seal_block(default);
            self.fault(FaultKind::Trap);
            self.b.ins().trap(unreachable_code());
            self.b.switch_to_block(start);
            self.b.seal_block(start);
        }
        if self.is_kernel && !parks {
            self.begin_row();
        }
        self.clear_objects();
        if !self.is_kernel {
            self.copy_params_in()?;
        }
        self.b.ins().jump(self.blocks[0], &[]);
        self.arrived(0);
        Ok(())
    }

    /// Begins the loop over the threads of the row that the current one is in.
    fn begin_row(&mut self) {
        let flags = self.state_flags();
        let (x, linear) = (self.b.declare_var(types::I32), self.b.declare_var(types::I32));
        let first = self.b.ins().load(types::I32, flags, self.thread, offset_of!(Thread, tid) as i32);
        let index = self.b.ins().load(types::I32, flags, self.thread, offset_of!(Thread, linear) as i32);
        self.b.def_var(x, first);
        self.b.def_var(linear, index);
        let (again, done) = (self.b.create_block(), self.b.create_block());
        self.row = Some(Row { x, linear, done });
        self.b.ins().jump(again, &[]);
        self.b.switch_to_block(again);
        self.row_start = Some(again);
        let current = self.b.use_var(x);
        self.b.ins().store(flags, current, self.thread, offset_of!(Thread, tid) as i32);
        // Nothing is carried from one thread to the next.
        let zeros = [types::I8, types::I16, types::I32, types::I64, types::F32, types::F64]
            .map(|t| (t, self.constant(t, 0)));
        for (var, class) in self.vars.iter().zip(&self.func.regs) {
            if let Some((_, zero)) = zeros.iter().find(|(t, _)| *t == class_type(*class)) {
                self.b.def_var(*var, *zero);
            }
        }
    }

    /// The end of a thread in a row: the next one, or the return.
    fn end_row(&mut self) {
        let (Some(Row { x, linear, done }), Some(again)) = (self.row, self.row_start) else { return };
        self.b.switch_to_block(done);
        let flags = self.const_flags();
        let width =
            self.b.ins().load(types::I32, flags, self.block, offset_of!(crate::abi::Block, ntid) as i32);
        let (next, index) = (self.b.use_var(x), self.b.use_var(linear));
        let (next, index) = (self.add_imm(next, 1), self.add_imm(index, 1));
        self.b.def_var(x, next);
        self.b.def_var(linear, index);
        let more = self.below(next, width);
        let end = self.b.create_block();
        self.b.ins().brif(more, again, &[], end, &[]);
        self.b.seal_block(again);
        self.b.switch_to_block(end);
        self.b.seal_block(end);
        let value = self.iconst(types::I32, Outcome::Done as u64);
        self.b.ins().return_(&[value]);
    }

    pub fn stack_slot(&mut self, len: u32) -> StackSlot {
        self.b.create_sized_stack_slot(StackSlotData::new(StackSlotKind::ExplicitSlot, len, 4))
    }

    fn terminator(&mut self, term: &Term) -> Result<(), String> {
        match term {
            Term::Jump(to) => {
                self.b.ins().jump(self.blocks[*to as usize], &[]);
            }
            Term::Branch { cond, then, or } => {
                let c = self.use_reg(cond.reg);
                let (then, or) = if cond.negated { (or, then) } else { (then, or) };
                self.b.ins().brif(c, self.blocks[*then as usize], &[], self.blocks[*or as usize], &[]);
            }
            Term::Switch { index, targets } => {
                let index = self.read(*index, types::I32);
                let default = self.fault_block();
                let args = [self.iconst(types::I32, FaultKind::Trap as u64), self.iconst(types::I64, 0)]
                    .map(BlockArg::from);
                let default = self.b.func.dfg.block_call(default, &args);
                let calls: Vec<_> = targets
                    .iter()
                    .map(|t| self.b.func.dfg.block_call(self.blocks[*t as usize], &[]))
                    .collect();
                let table = self.b.create_jump_table(JumpTableData::new(default, &calls));
                self.b.ins().br_table(index, table);
            }
            Term::Ret if !self.is_kernel => {
                self.copy_returns_out()?;
                self.b.ins().return_(&[]);
            }
            Term::Ret => self.return_outcome(Outcome::Done),
            Term::Exit if self.is_kernel => self.return_outcome(Outcome::Done),
            Term::Exit => {
                self.call_helper("rt_exit", &[self.thread]);
                self.b.ins().trap(unreachable_code());
            }
            Term::Trap => {
                self.fault(FaultKind::Trap);
                self.b.ins().trap(unreachable_code());
            }
        }
        Ok(())
    }

    pub fn return_outcome(&mut self, outcome: Outcome) {
        if let (Some(row), Outcome::Done) = (self.row, outcome) {
            self.b.ins().jump(row.done, &[]);
            return;
        }
        let value = self.iconst(types::I32, outcome as u64);
        self.b.ins().return_(&[value]);
    }

    /// Emits an instruction under its guard.
    fn guarded(&mut self, inst: &Inst, place: (u32, u32)) -> Result<(), String> {
        let Some(Guard { reg, negated }) = inst.guard else { return self.inst(inst, place) };
        let cond = self.use_reg(reg);
        let (then, next) = (self.b.create_block(), self.b.create_block());
        if negated {
            self.b.ins().brif(cond, next, &[], then, &[]);
        } else {
            self.b.ins().brif(cond, then, &[], next, &[]);
        }
        self.b.switch_to_block(then);
        self.b.seal_block(then);
        let checked = self.checked.len();
        self.inst(inst, place)?;
        self.checked.truncate(checked);
        self.b.ins().jump(next, &[]);
        self.b.switch_to_block(next);
        self.b.seal_block(next);
        Ok(())
    }

    fn inst(&mut self, inst: &Inst, place: (u32, u32)) -> Result<(), String> {
        let d = inst.dsts.first().copied().unwrap_or(SINK);
        let s = &inst.srcs[..];
        match inst.op {
            Op::Mov(ty) => {
                let v = self.read(s[0], value_type(ty));
                self.def(d, v, ty.is_signed());
            }
            Op::Pack { part } => self.pack(d, s, part),
            Op::Unpack { part } => self.unpack(&inst.dsts, s[0], part),
            Op::Int(op, ty) => {
                let v = self.int_op(op, ty, s);
                self.def(d, v, ty.is_signed());
            }
            Op::Carry(op, ty) => self.carry_op(op, ty, &inst.dsts, s),
            Op::Float(op, ty, mode) => {
                let v = self.float_op(op, ty, mode, s);
                self.def(d, v, false);
            }
            Op::Setp { cmp, ty, ftz, combine } => self.setp(cmp, ty, ftz, combine, &inst.dsts, s),
            Op::Set { cmp, ty, dst, ftz, combine } => self.set(cmp, ty, dst, ftz, combine, d, s),
            Op::Selp(ty) => {
                let (a, b) = (self.read(s[0], value_type(ty)), self.read(s[1], value_type(ty)));
                let c = self.read(s[2], types::I8);
                let v = self.b.ins().select(c, a, b);
                self.def(d, v, ty.is_signed());
            }
            Op::Slct { ty, cond, ftz } => self.slct(ty, cond, ftz, d, s),
            Op::Testp(op, ty) => self.testp(op, ty, d, s[0]),
            Op::Cvt { dst, src, rnd, ftz, sat, relu } => {
                let v = self.cvt(dst, src, rnd, ftz, sat, relu, s[0]);
                self.def(d, v, dst.is_signed());
            }
            Op::CvtPair { dst, rnd, relu } => {
                let v = self.cvt_pair(dst, rnd, relu, s[0], s[1]);
                self.def(d, v, false);
            }
            Op::CvtPack { dst, with_c } => {
                let v = self.cvt_pack(dst, with_c, s);
                self.def(d, v, false);
            }
            Op::Ld { space, ty, order } => self.load(space, ty, order, inst),
            Op::St { space, ty, order } => self.store(space, ty, order, inst),
            Op::Atom { space, op, ty } => self.atom(space, op, ty, inst),
            Op::CpAsync { len, src_offset, ignore } => self.cp_async(len, src_offset, ignore, inst),
            Op::LdObj { obj, ty } => {
                let v = self.load_object(obj, inst.offset as u32, value_type(ty));
                self.def(d, v, ty.is_signed());
            }
            Op::StObj { obj, ty } => {
                let v = self.read(s[0], value_type(ty));
                self.store_object(obj, inst.offset as u32, v);
            }
            Op::CvtaTo(space) => self.cvta(space, true, d, s[0]),
            Op::CvtaFrom(space) => self.cvta(space, false, d, s[0]),
            Op::IsSpace { space } => self.is_space(space, d, s[0]),
            Op::Alloca { align } => self.alloca(align, inst),
            Op::SetSp => self.set_sp(inst),
            Op::Fence => {
                self.b.ins().fence();
            }
            Op::Video { op, lane, a_signed, b_signed, d_signed, sat, accumulate } => {
                let v = self.video(op, lane, [a_signed, b_signed, d_signed], sat, accumulate, s);
                self.def(d, v, false);
            }
            Op::Park(op) => self.park(op, inst, place)?,
            Op::Call(site) => self.call(site, s)?,
            Op::Fault(kind) => {
                let kind = self.iconst(types::I32, u64::from(kind));
                let zero = self.iconst(types::I64, 0);
                self.call_helper("rt_fault", &[self.thread, self.block, kind, zero]);
                self.after_noreturn();
            }
        }
        Ok(())
    }

    fn pack(&mut self, d: Reg, s: &[Val], part: u8) {
        let ty = int_type(u32::from(part) * s.len() as u32);
        let mut whole = None;
        for (i, v) in s.iter().enumerate() {
            let v = self.read(*v, int_type(u32::from(part)));
            let v = self.b.ins().uextend(ty, v);
            let v = if i == 0 { v } else { self.b.ins().ishl_imm_u(v, i64::from(part) * 8 * i as i64) };
            whole = Some(match whole {
                None => v,
                Some(w) => self.b.ins().bor(w, v),
            });
        }
        if let Some(v) = whole {
            self.def(d, v, false);
        }
    }

    fn unpack(&mut self, dsts: &[Reg], s: Val, part: u8) {
        let ty = int_type(u32::from(part) * dsts.len() as u32);
        let whole = self.read(s, ty);
        for (i, d) in dsts.iter().enumerate() {
            let v =
                if i == 0 { whole } else { self.b.ins().ushr_imm_u(whole, i64::from(part) * 8 * i as i64) };
            let v = self.b.ins().ireduce(int_type(u32::from(part)), v);
            self.def(*d, v, false);
        }
    }
}

fn distinct(term: &Term) -> Vec<u32> {
    let mut list: Vec<u32> = term.successors().collect();
    list.sort_unstable();
    list.dedup();
    list
}
