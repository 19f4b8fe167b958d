//! Calls of helpers, and the cold ends of failed checks.

use cranelift_codegen::ir::{
    Block, BlockArg, FuncRef, InstBuilder, TrapCode, Value, condcodes::IntCC, types,
};
use cranelift_module::Module;

use super::func::Gen;
use crate::abi::{FaultKind, REGION_SHIFT};

impl Gen<'_, '_> {
    pub fn call_helper(&mut self, name: &'static str, args: &[Value]) -> Option<Value> {
        let function = match self.helper_refs.get(name) {
            Some(f) => *f,
            None => {
                let f = self.module.declare_func_in_func(self.cx.helper_ids[name], self.b.func);
                self.helper_refs.insert(name, f);
                f
            }
        };
        let call = self.b.ins().call(function, args);
        self.b.inst_results(call).first().copied()
    }

    /// A helper with a result.
    pub fn helper(&mut self, name: &'static str, args: &[Value]) -> Value {
        match self.call_helper(name, args) {
            Some(v) => v,
            None => unreachable!("the table of helpers gives {name} a result"),
        }
    }

    pub fn function_ref(&mut self, number: u32) -> FuncRef {
        match self.function_refs.get(&number) {
            Some(f) => *f,
            None => {
                let f = self.module.declare_func_in_func(self.cx.ids[&number], self.b.func);
                self.function_refs.insert(number, f);
                f
            }
        }
    }

    /// Ends the block behind a call that does not return, and goes on in one that nothing reaches.
    pub fn after_noreturn(&mut self) {
        self.b.ins().trap(unreachable_code());
        let next = self.b.create_block();
        self.b.switch_to_block(next);
        self.b.seal_block(next);
    }

    /// Calls `rt_fault`; the block is not ended.
    pub fn fault(&mut self, kind: FaultKind) {
        let kind = self.iconst(types::I32, kind as u64);
        let zero = self.iconst(types::I64, 0);
        self.call_helper("rt_fault", &[self.thread, self.block, kind, zero]);
    }

    /// The block that reports a fault: parameters kind and address.
    pub fn fault_block(&mut self) -> Block {
        match self.fault_block {
            Some(b) => b,
            None => {
                let block = self.b.create_block();
                self.b.set_cold_block(block);
                self.b.append_block_param(block, types::I32);
                self.b.append_block_param(block, types::I64);
                self.fault_block = Some(block);
                block
            }
        }
    }

    /// Goes on only if `ok`; otherwise a fault at `address`.
    pub fn require(&mut self, ok: Value, kind: FaultKind, address: Value) {
        let fault = self.fault_block();
        let args = [self.iconst(types::I32, kind as u64), address].map(BlockArg::from);
        self.branch_to_cold(ok, fault, &args);
    }

    /// Goes on only if `ok`; otherwise a misaligned access of `1 << align` bytes or one outside of the region.
    pub fn require_region(&mut self, ok: Value, address: Value, align: u32) {
        let slot = align as usize;
        let block = match self.region_blocks[slot] {
            Some(b) => b,
            None => {
                let block = self.b.create_block();
                self.b.set_cold_block(block);
                self.b.append_block_param(block, types::I64);
                self.region_blocks[slot] = Some(block);
                block
            }
        };
        self.branch_to_cold(ok, block, &[BlockArg::from(address)]);
    }

    pub fn branch_to_cold(&mut self, ok: Value, cold: Block, args: &[BlockArg]) {
        let next = self.b.create_block();
        self.b.ins().brif(ok, next, &[], cold, args);
        self.b.switch_to_block(next);
        self.b.seal_block(next);
    }

    pub fn cold_blocks(&mut self) {
        for (align, block) in self.region_blocks.into_iter().enumerate() {
            let Some(block) = block else { continue };
            self.b.switch_to_block(block);
            let [address] = self.b.block_params(block)[..] else { return };
            let low = self.b.ins().band_imm_u(address, (1 << align) - 1);
            let tag = self.b.ins().ushr_imm_u(address, i64::from(REGION_SHIFT));
            let inside = self.icmp_imm(IntCC::Equal, tag, self.cx.unit.layout.region_tag);
            let odd = self.icmp_imm(IntCC::NotEqual, low, 0);
            let misaligned = self.b.ins().band(inside, odd);
            let a = self.iconst(types::I32, FaultKind::MisalignedAddress as u64);
            let b = self.iconst(types::I32, FaultKind::IllegalAddress as u64);
            let kind = self.select(misaligned, a, b);
            self.call_helper("rt_fault", &[self.thread, self.block, kind, address]);
            self.b.ins().trap(unreachable_code());
        }
        if let Some(block) = self.fault_block {
            self.b.switch_to_block(block);
            let [kind, address] = self.b.block_params(block)[..] else { return };
            self.call_helper("rt_fault", &[self.thread, self.block, kind, address]);
            self.b.ins().trap(unreachable_code());
        }
    }

    pub fn icmp_imm(&mut self, cc: IntCC, a: Value, imm: u64) -> Value {
        let ty = self.type_of(a);
        let imm = self.iconst(ty, imm);
        self.b.ins().icmp(cc, a, imm)
    }
}

/// What follows calls that do not return: a trap that is never executed.
pub fn unreachable_code() -> TrapCode {
    TrapCode::unwrap_user(1)
}
