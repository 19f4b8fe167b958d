//! Suspension points: spill, return, resume, reload.

use std::mem::offset_of;

use cranelift_codegen::ir::{InstBuilder, types};

use super::func::Gen;
use super::value::class_type;
use crate::abi::{Outcome, Park, Thread, op as park};
use crate::ir::{Inst, SINK, Val};

impl Gen<'_, '_> {
    /// Leaves the function with the operation in [`Park`], and goes on at its resume block.
    pub fn park(&mut self, op: u32, inst: &Inst, place: (u32, u32)) -> Result<(), String> {
        if !self.is_kernel {
            return Err(format!("`{}` suspends, but could not be inlined", self.func.name));
        }
        let flags = self.state_flags();
        let field = |offset: usize| (offset_of!(Thread, park) + offset) as i32;
        let op_value = self.iconst(types::I32, u64::from(op));
        self.b.ins().store(flags, op_value, self.thread, field(offset_of!(Park, op)));
        // Operands that the operation looks at: mask, a, b, c.
        let used = match op {
            park::YIELD | park::ACTIVE_MASK => 0,
            park::WARP_SYNC | park::ELECT => 1,
            park::SHFL_UP..=park::SHFL_IDX => 4,
            park::BARRIER_SYNC..=park::BARRIER_RED_OR => 3,
            _ => 2,
        };
        let fields = [offset_of!(Park, mask), offset_of!(Park, a), offset_of!(Park, b), offset_of!(Park, c)];
        for (i, at) in fields.into_iter().enumerate().take(used) {
            let ty = if i == 0 { types::I32 } else { types::I64 };
            let value = self.read(inst.srcs.get(i).copied().unwrap_or(Val::Imm(0)), ty);
            self.b.ins().store(flags, value, self.thread, field(at));
        }

        let live = self.parks.get(&place).cloned().unwrap_or_default();
        let mut slots = Vec::with_capacity(live.len());
        // Widest first, so that no padding is needed behind the object memory.
        let mut at = self.func.object_len;
        for size in [8, 4, 2, 1] {
            for reg in &live {
                if self.func.regs[*reg as usize].size() == size {
                    slots.push((*reg, at as i32));
                    at += size;
                }
            }
        }
        self.frame_len = self.frame_len.max(at);
        if !slots.is_empty() {
            let frame = self.frame_pointer();
            let frame_flags = self.frame_flags();
            for (reg, at) in &slots {
                let value = self.use_reg(*reg);
                self.b.ins().store(frame_flags, value, frame, *at);
            }
        }
        let Some(block) = self.resume_blocks.get(self.next_resume).copied() else {
            return Err(format!("too many suspension points in `{}`", self.func.name));
        };
        self.next_resume += 1;
        let resume = self.iconst(types::I32, self.next_resume as u64);
        self.b.ins().store(flags, resume, self.thread, offset_of!(Thread, resume) as i32);
        self.return_outcome(Outcome::Parked);

        self.b.switch_to_block(block);
        self.checked.clear();
        if !slots.is_empty() {
            let frame = self.frame_pointer();
            let frame_flags = self.frame_flags();
            for (reg, at) in &slots {
                let ty = class_type(self.func.regs[*reg as usize]);
                let value = self.b.ins().load(ty, frame_flags, frame, *at);
                self.def(*reg, value, false);
            }
        }
        let result = |i: usize| inst.dsts.get(i).copied().unwrap_or(SINK);
        if result(0) != SINK {
            let value = self.b.ins().load(types::I64, flags, self.thread, field(offset_of!(Park, result)));
            self.def(result(0), value, false);
        }
        if result(1) != SINK {
            let value = self.b.ins().load(types::I64, flags, self.thread, field(offset_of!(Park, predicate)));
            let value = self.b.ins().ireduce(types::I8, value);
            let value = self.b.ins().band_imm_u(value, 1);
            self.def(result(1), value, false);
        }
        Ok(())
    }
}
