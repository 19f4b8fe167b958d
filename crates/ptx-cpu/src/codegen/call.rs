//! Calls of device functions and of the runtime's functions, and parameter objects.
//!
//! Arguments and results of a device function travel in an area on the caller's host stack: parameters, then returns, each on a
//! multiple of 16 bytes. Caller and callee only use constant offsets below the sizes that both agree on.

use std::mem::offset_of;

use cranelift_codegen::ir::{InstBuilder, MemFlagsData, Type, Value, condcodes::IntCC, types};
use cranelift_module::Module;

use super::func::{Gen, ObjectMemory};
use super::value::{class_type, int_type};
use super::{TableEntry, device_signature};
use crate::abi::{FaultKind, Thread};
use crate::ir::{Builtin, Inst, Op, Piece, Storage, Target, Val};
use crate::program::index::{FUNCTION_BASE, FUNCTION_STRIDE};

/// Longest argument area: far more than fits the frames that are accepted in the end.
const MAX_AREA: u64 = 1 << 20;

/// Offsets of parameters and returns in the argument area, and its length.
struct Area {
    params: Vec<u32>,
    returns: Vec<u32>,
    len: u32,
}

impl Area {
    /// # Errors
    /// Too many bytes of parameters.
    fn new(returns: impl Iterator<Item = u32>, params: impl Iterator<Item = u32>) -> Result<Self, String> {
        let mut len = 0u64;
        let mut place = |size: u32| {
            let at = len;
            len += u64::from(size).next_multiple_of(16);
            if len > MAX_AREA {
                Err("the arguments of a call are too large".to_owned())
            } else {
                Ok(at as u32)
            }
        };
        let params = params.map(&mut place).collect::<Result<_, _>>()?;
        let returns = returns.map(&mut place).collect::<Result<_, _>>()?;
        Ok(Self { params, returns, len: len as u32 })
    }
}

impl Gen<'_, '_> {
    /// The argument area of a call; `None` where there is none.
    fn area_of(&self, target: Target) -> Result<Option<Area>, String> {
        let area = match target {
            Target::Direct(f) => {
                let Some(callee) = self.cx.unit.functions.get(&f) else { return Ok(None) };
                let size = |o: &u32| callee.objs[*o as usize].size;
                Area::new(callee.returns.iter().map(size), callee.params.iter().map(size))
            }
            Target::Indirect(s) => {
                let (returns, params) = &self.cx.unit.signatures[s as usize];
                // Checked against the limit of an object where the call was lowered.
                let size = |s: &u64| *s as u32;
                Area::new(returns.iter().map(size), params.iter().map(size))
            }
            Target::Builtin(_) => return Ok(None),
        };
        area.map(Some)
    }

    /// One area serves all calls of the function: they are never nested.
    pub fn reserve_out_args(&mut self) -> Result<(), String> {
        let mut len = 0;
        for inst in self.func.insts() {
            if let Op::Call(site) = inst.op
                && let Some(area) = self.area_of(self.func.calls[site as usize].target)?
            {
                len = len.max(area.len);
            }
        }
        if len > 0 {
            self.out_args = Some(self.stack_slot(len));
        }
        Ok(())
    }

    pub fn call(&mut self, site: u32, s: &[Val]) -> Result<(), String> {
        let site = &self.func.calls[site as usize];
        let Some(area) = self.area_of(site.target)? else {
            if let Target::Builtin(builtin) = site.target {
                self.builtin(builtin, &site.args, &site.rets);
                return Ok(());
            }
            return Err(format!(
                "call of a function that is not part of kernel `{}`",
                self.cx.unit.kernel.name
            ));
        };
        let base = match self.out_args {
            Some(slot) => self.b.ins().stack_addr(types::I64, slot, 0),
            None => self.iconst(types::I64, 0),
        };
        // Nothing of the host's stack may show through where the program writes nothing.
        self.zero(base, area.len);
        for (i, (obj, at)) in site.args.iter().zip(&area.params).enumerate() {
            let limit = self.formal_size(site.target, false, i);
            self.copy_object_out(*obj, base, *at, limit);
        }
        let local_sp = self.read(site.sp.map_or(Val::LocalEnd, Val::Reg), types::I64);
        let args = [self.thread, self.block, base, local_sp];
        match site.target {
            Target::Direct(f) => {
                let callee = self.function_ref(f);
                self.b.ins().call(callee, &args);
            }
            Target::Indirect(signature) => {
                let id = self.read(s[0], types::I64);
                let code = self.indirect_target(id, signature);
                let sig = device_signature(self.module.isa());
                let sig = self.b.import_signature(sig);
                self.b.ins().call_indirect(sig, code, &args);
            }
            Target::Builtin(_) => {}
        }
        for (i, (obj, at)) in site.rets.iter().zip(&area.returns).enumerate() {
            let limit = self.formal_size(site.target, true, i);
            self.copy_object_in(*obj, base, *at, limit);
        }
        Ok(())
    }

    /// Bytes of a formal parameter: an argument may be larger.
    fn formal_size(&self, target: Target, is_return: bool, i: usize) -> u32 {
        match target {
            Target::Direct(f) => {
                let callee = &self.cx.unit.functions[&f];
                let objs = if is_return { &callee.returns } else { &callee.params };
                callee.objs[objs[i] as usize].size
            }
            Target::Indirect(s) => {
                let (returns, params) = &self.cx.unit.signatures[s as usize];
                (if is_return { returns } else { params })[i] as u32
            }
            Target::Builtin(_) => 0,
        }
    }

    /// The code of a function id, checked to be a function of this signature.
    fn indirect_target(&mut self, id: Value, signature: u32) -> Value {
        let shift = i64::from(FUNCTION_STRIDE.trailing_zeros());
        // Rotating makes an id that is no multiple of the stride out of bounds.
        let distance = self.add_imm(id, -(FUNCTION_BASE as i64));
        let number = self.b.ins().rotr_imm_u(distance, shift);
        let in_table = self.icmp_imm(IntCC::UnsignedLessThan, number, u64::from(self.cx.table_len));
        self.require(in_table, FaultKind::InvalidPc, id);
        let offset = self.b.ins().imul_imm_u(number, size_of::<TableEntry>() as i64);
        let table = self.iconst(types::I64, self.cx.table as u64);
        let entry = self.b.ins().iadd(table, offset);
        let flags = MemFlagsData::trusted().with_readonly();
        let have = self.b.ins().load(types::I32, flags, entry, offset_of!(TableEntry, signature) as i32);
        let right = self.icmp_imm(IntCC::Equal, have, u64::from(signature));
        self.require(right, FaultKind::InvalidPc, id);
        self.b.ins().load(types::I64, flags, entry, offset_of!(TableEntry, code) as i32)
    }

    fn builtin(&mut self, builtin: Builtin, args: &[u32], rets: &[u32]) {
        let arg = |g: &mut Self, i: usize, ty: Type| match args.get(i) {
            Some(obj) => g.load_object(*obj, 0, ty),
            None => g.constant(ty, 0),
        };
        let (thread, block) = (self.thread, self.block);
        let result = match builtin {
            Builtin::Vprintf => {
                let (format, list) = (arg(self, 0, types::I64), arg(self, 1, types::I64));
                self.call_helper("rt_vprintf", &[thread, block, format, list])
            }
            Builtin::Malloc => {
                let len = arg(self, 0, types::I64);
                self.call_helper("rt_malloc", &[thread, block, len])
            }
            Builtin::Free => {
                let address = arg(self, 0, types::I64);
                self.call_helper("rt_free", &[thread, block, address])
            }
            Builtin::AssertFail => {
                let list = [
                    thread,
                    block,
                    arg(self, 0, types::I64),
                    arg(self, 1, types::I64),
                    arg(self, 2, types::I32),
                    arg(self, 3, types::I64),
                    arg(self, 4, types::I64),
                ];
                self.call_helper("rt_assertfail", &list);
                self.after_noreturn();
                return;
            }
        };
        if let (Some(obj), Some(value)) = (rets.first(), result) {
            self.store_object(*obj, 0, value);
        }
    }

    // Local stack.

    /// `alloca`: the stack pointer moves up, in multiples of 16.
    pub fn alloca(&mut self, align: u32, inst: &Inst) {
        let size = self.read(inst.srcs[0], types::I64);
        let sp = self.read(inst.srcs[1], types::I64);
        let len = u64::from(self.cx.unit.layout.local_len);
        let zero = self.iconst(types::I64, 0);
        let sane = self.icmp_imm(IntCC::UnsignedLessThanOrEqual, size, len);
        self.require(sane, FaultKind::StackOverflow, zero);
        let start = self.round_up(sp, align.max(16));
        let end = self.b.ins().iadd(start, size);
        let end = self.round_up(end, 16);
        let fits = self.icmp_imm(IntCC::UnsignedLessThanOrEqual, end, len);
        self.require(fits, FaultKind::StackOverflow, zero);
        self.def(inst.dsts[0], start, false);
        self.def(inst.dsts[1], end, false);
    }

    /// `stackrestore`: any multiple of 16 inside of the local memory will do; functions check what they get.
    pub fn set_sp(&mut self, inst: &Inst) {
        let sp = self.read(inst.srcs[0], types::I64);
        let len = u64::from(self.cx.unit.layout.local_len);
        let turned = self.b.ins().rotr_imm_u(sp, 4);
        let ok = self.icmp_imm(IntCC::UnsignedLessThanOrEqual, turned, len / 16);
        self.require(ok, FaultKind::StackOverflow, sp);
        self.def(inst.dsts[0], sp, false);
    }

    fn round_up(&mut self, v: Value, align: u32) -> Value {
        let v = self.add_imm(v, i64::from(align) - 1);
        let mask = self.iconst(types::I64, !(u64::from(align) - 1));
        self.b.ins().band(v, mask)
    }

    // Device functions.

    /// Stops recursion before the host stack or the local memory ends.
    pub fn check_stack(&mut self) {
        let flags = self.const_flags();
        let limit = self.b.ins().load(types::I64, flags, self.thread, offset_of!(Thread, stack_limit) as i32);
        let sp = self.b.ins().get_stack_pointer(types::I64);
        let ok = self.b.ins().icmp(IntCC::UnsignedGreaterThanOrEqual, sp, limit);
        let zero = self.iconst(types::I64, 0);
        self.require(ok, FaultKind::StackOverflow, zero);
        if let (Some(sp), true) = (self.local_sp, self.cx.unit.layout.recursive) {
            // Every function leaves room for itself, so the calls it makes start inside of the local memory.
            let left = u64::from(self.cx.unit.layout.local_len).checked_sub(u64::from(self.func.local_len));
            let ok = match left {
                Some(left) => self.icmp_imm(IntCC::UnsignedLessThanOrEqual, sp, left),
                None => self.iconst(types::I8, 0),
            };
            self.require(ok, FaultKind::StackOverflow, zero);
        }
    }

    fn own_area(&self) -> Result<Area, String> {
        let size = |o: &u32| self.func.objs[*o as usize].size;
        Area::new(self.func.returns.iter().map(size), self.func.params.iter().map(size))
    }

    pub fn copy_params_in(&mut self) -> Result<(), String> {
        let Some(args) = self.args else { return Ok(()) };
        let area = self.own_area()?;
        for (obj, at) in self.func.params.iter().zip(&area.params) {
            self.copy_object_in(*obj, args, *at, self.func.objs[*obj as usize].size);
        }
        Ok(())
    }

    pub fn copy_returns_out(&mut self) -> Result<(), String> {
        let Some(args) = self.args else { return Ok(()) };
        let area = self.own_area()?;
        for (obj, at) in self.func.returns.iter().zip(&area.returns) {
            self.copy_object_out(*obj, args, *at, self.func.objs[*obj as usize].size);
        }
        Ok(())
    }

    // Objects.

    /// Object memory starts as zero: it is host memory.
    pub fn clear_objects(&mut self) {
        let len = self.func.object_len;
        if let Some(base) = self.object_base() {
            self.zero(base, len);
        }
    }

    pub fn object_base(&mut self) -> Option<Value> {
        match self.objects {
            ObjectMemory::None => None,
            ObjectMemory::Stack(slot) => Some(self.b.ins().stack_addr(types::I64, slot, 0)),
            ObjectMemory::Frame => Some(self.frame_pointer()),
        }
    }

    pub fn frame_pointer(&mut self) -> Value {
        let flags = self.const_flags();
        self.b.ins().load(types::I64, flags, self.thread, offset_of!(Thread, frame) as i32)
    }

    fn zero(&mut self, base: Value, len: u32) {
        if len > 512 {
            let value = self.iconst(types::I8, 0);
            let size = self.iconst(types::I64, u64::from(len));
            let config = self.module.target_config();
            self.b.call_memset(config, base, value, size);
            return;
        }
        let zero = self.iconst(types::I64, 0);
        let flags = MemFlagsData::trusted();
        // Lengths are multiples of 16.
        for at in (0..len).step_by(8) {
            self.b.ins().store(flags, zero, base, at as i32);
        }
    }

    /// Bytes of an object at a constant offset, as this type.
    pub fn load_object(&mut self, obj: u32, offset: u32, ty: Type) -> Value {
        let object = &self.func.objs[obj as usize];
        match &object.storage {
            Storage::Pieces(pieces) => match pieces.iter().find(|p| p.offset == offset) {
                Some(piece) => {
                    let v = self.use_reg(piece.reg);
                    self.coerce(v, ty, false)
                }
                None => self.constant(ty, 0),
            },
            Storage::Memory(at) => {
                let at = *at;
                if u64::from(offset) + u64::from(ty.bytes()) > u64::from(object.size) {
                    return self.constant(ty, 0);
                }
                match self.object_base() {
                    Some(base) => self.b.ins().load(ty, MemFlagsData::trusted(), base, (at + offset) as i32),
                    None => self.constant(ty, 0),
                }
            }
        }
    }

    pub fn store_object(&mut self, obj: u32, offset: u32, value: Value) {
        let object = &self.func.objs[obj as usize];
        match &object.storage {
            Storage::Pieces(pieces) => {
                if let Some(piece) = pieces.iter().find(|p| p.offset == offset) {
                    self.def(piece.reg, value, false);
                }
            }
            Storage::Memory(at) => {
                let at = *at;
                if u64::from(offset) + u64::from(self.type_of(value).bytes()) > u64::from(object.size) {
                    return;
                }
                if let Some(base) = self.object_base() {
                    self.b.ins().store(MemFlagsData::trusted(), value, base, (at + offset) as i32);
                }
            }
        }
    }

    /// Copies an object, up to `limit` bytes, to an argument area.
    fn copy_object_out(&mut self, obj: u32, base: Value, at: u32, limit: u32) {
        let flags = MemFlagsData::trusted();
        match &self.func.objs[obj as usize].storage {
            Storage::Pieces(pieces) => {
                for Piece { offset, size, reg } in pieces.clone() {
                    if offset + size <= limit {
                        let v = self.use_reg(reg);
                        self.b.ins().store(flags, v, base, (at + offset) as i32);
                    }
                }
            }
            Storage::Memory(from) => {
                let from = *from;
                if let Some(own) = self.object_base() {
                    self.copy_bytes(own, from, base, at, limit);
                }
            }
        }
    }

    fn copy_object_in(&mut self, obj: u32, base: Value, at: u32, limit: u32) {
        let flags = MemFlagsData::trusted();
        match &self.func.objs[obj as usize].storage {
            Storage::Pieces(pieces) => {
                for Piece { offset, size, reg } in pieces.clone() {
                    if offset + size <= limit {
                        let ty = class_type(self.func.regs[reg as usize]);
                        let v = self.b.ins().load(ty, flags, base, (at + offset) as i32);
                        self.def(reg, v, false);
                    }
                }
            }
            Storage::Memory(to) => {
                let to = *to;
                if let Some(own) = self.object_base() {
                    self.copy_bytes(base, at, own, to, limit);
                }
            }
        }
    }

    fn copy_bytes(&mut self, from: Value, from_at: u32, to: Value, to_at: u32, len: u32) {
        if len > 512 {
            let from = self.add_imm(from, i64::from(from_at));
            let to = self.add_imm(to, i64::from(to_at));
            let size = self.iconst(types::I64, u64::from(len));
            let config = self.module.target_config();
            self.b.call_memcpy(config, to, from, size);
            return;
        }
        let flags = MemFlagsData::trusted();
        let mut at = 0;
        while at < len {
            let step = [8, 4, 2, 1].into_iter().find(|s| at + s <= len && at % s == 0).unwrap_or(1);
            let v = self.b.ins().load(int_type(step), flags, from, (from_at + at) as i32);
            self.b.ins().store(flags, v, to, (to_at + at) as i32);
            at += step;
        }
    }

    pub fn add_imm(&mut self, v: Value, imm: i64) -> Value {
        if imm == 0 {
            return v;
        }
        let ty = self.type_of(v);
        let imm = self.iconst(ty, imm as u64);
        self.b.ins().iadd(v, imm)
    }
}
