//! Loads, stores, atomics and address spaces.

use std::mem::offset_of;

use cranelift_codegen::ir::{
    AtomicRmwOp, BlockArg, InstBuilder, MemFlagsData, Type, Value, condcodes::IntCC, types,
};
use ptx::ScalarType;

use super::func::Gen;
use super::value::{int_type, value_type};
use crate::abi::{Block, FaultKind, REGION_MARGIN, REGION_SHIFT, Thread};
use crate::ir::{AtomOp, FloatMode, FloatOp, Inst, Order, Reg, SINK, Space, Val};

/// A host address: a value and a constant offset, with the flags of accesses through it.
#[derive(Clone, Copy)]
struct Place {
    base: Value,
    offset: i32,
    flags: MemFlagsData,
}

impl Gen<'_, '_> {
    /// Checks an access of `size` bytes (a power of two) and returns its place.
    fn place(&mut self, space: Space, base: Val, offset: i64, size: u32) -> Place {
        let heap = self.heap_flags();
        match space {
            Space::Region => self.region_place(base, offset, size),
            Space::Shared if self.groups.current().is_some() => self.group_place(base, offset, size),
            Space::Shared => {
                let at = self.window_offset(base, offset, size, Space::Shared);
                let start = self.block_address(offset_of!(Block, shared_base));
                let base = self.b.ins().iadd(start, at);
                Place { base, offset: 0, flags: heap.with_trap_code(None) }
            }
            Space::Local => {
                let at = self.window_offset(base, offset, size, Space::Local);
                let flags = self.const_flags();
                let start =
                    self.b.ins().load(types::I64, flags, self.thread, offset_of!(Thread, local_base) as i32);
                let base = self.b.ins().iadd(start, at);
                Place { base, offset: 0, flags: heap.with_trap_code(None) }
            }
            Space::Param => {
                let at = self.window_offset(base, offset, size, Space::Param);
                let start = self.block_address(offset_of!(Block, params));
                let base = self.b.ins().iadd(start, at);
                // Nobody writes parameters while the kernel runs, but a load must stay behind the check of a dynamic offset.
                let flags = if self.is_const(at) { self.const_flags() } else { heap.with_trap_code(None) };
                Place { base, offset: 0, flags }
            }
            Space::Object => {
                let at = self.window_offset(base, offset, size, Space::Object);
                match self.object_base() {
                    Some(start) => {
                        let base = self.b.ins().iadd(start, at);
                        Place { base, offset: 0, flags: MemFlagsData::trusted() }
                    }
                    // Without object memory the bound is 0 and the check has failed.
                    None => Place { base: at, offset: 0, flags: MemFlagsData::new() },
                }
            }
        }
    }

    /// An access that shares its check with others of the block.
    fn group_place(&mut self, base: Val, offset: i64, size: u32) -> Place {
        let flags = self.heap_flags().with_trap_code(None);
        let Some(group) = self.groups.current() else { unreachable!("the caller has seen a group") };
        let (least, greatest, known) = (group.least, group.greatest, group.address);
        let address = match known {
            Some(address) => address,
            None => {
                let align = size.trailing_zeros();
                let first = self.read(base, types::I32);
                let first = self.add_imm(first, least);
                let units = self.shared_units(align);
                // The last access must be inside, too: at most `units - more` units lie before the first.
                let more = (greatest - least) as u64 >> align;
                let limit = if more == 0 {
                    units
                } else {
                    let more = self.iconst(types::I32, more);
                    let enough = self.min_max(units, more, false, false);
                    self.b.ins().isub(enough, more)
                };
                let at = self.checked_offset(first, limit, size);
                let start = self.block_address(offset_of!(Block, shared_base));
                let address = self.b.ins().iadd(start, at);
                self.groups.set_address(address);
                address
            }
        };
        Place { base: address, offset: (offset - least) as i32, flags }
    }

    /// Length of shared memory in units of `1 << align` bytes.
    fn shared_units(&mut self, align: u32) -> Value {
        let flags = self.const_flags();
        let len = self.b.ins().load(types::I32, flags, self.block, offset_of!(Block, shared_len) as i32);
        if align == 0 { len } else { self.b.ins().ushr_imm_u(len, i64::from(align)) }
    }

    /// A constant offset, which needed no check.
    fn is_const(&self, offset: Value) -> bool {
        let inst = self.b.func.dfg.value_def(offset).inst();
        inst.is_some_and(|i| self.b.func.dfg.insts[i].opcode() == cranelift_codegen::ir::Opcode::Iconst)
    }

    /// An address in the region. The base register is checked, and its alignment with it: low bits must be zero and high bits the
    /// region's tag, which one rotation turns into one comparison.
    fn region_place(&mut self, base: Val, offset: i64, size: u32) -> Place {
        let heap = self.heap_flags();
        let align = size.trailing_zeros();
        let tag = self.cx.unit.layout.region_tag;
        let check = |address: u64| address.rotate_right(align) >> (REGION_SHIFT - align) == tag;
        if let Val::Imm(address) = base {
            let address = address.wrapping_add_signed(offset);
            if check(address) {
                let base = self.iconst(types::I64, address);
                return Place { base, offset: 0, flags: heap };
            }
        }
        let mut value = self.read(base, types::I64);
        let mut rest = offset;
        let small = offset.unsigned_abs() <= REGION_MARGIN / 4 && offset % i64::from(size) == 0;
        if !small {
            value = self.add_imm(value, offset);
            rest = 0;
        }
        let known = self.checked.iter().any(|(v, a)| *v == value && *a >= align);
        if !known {
            let rotated = if align == 0 { value } else { self.b.ins().rotr_imm_u(value, i64::from(align)) };
            let high = self.b.ins().ushr_imm_u(rotated, i64::from(REGION_SHIFT - align));
            let ok = self.icmp_imm(IntCC::Equal, high, tag);
            self.require_region(ok, value, align);
            self.checked.push((value, align));
        }
        // Within a quarter of the margin the offset fits 32 bits.
        Place { base: value, offset: rest as i32, flags: heap }
    }

    /// Offset (64 bits) in one of the small windows, checked against its length.
    fn window_offset(&mut self, base: Val, offset: i64, size: u32, space: Space) -> Value {
        let layout = self.cx.unit.layout;
        let align = size.trailing_zeros();
        let fixed = match (base, space) {
            (Val::Imm(at), _) => Some((at as u32).wrapping_add(offset as u32)),
            (Val::Local(at), Space::Local) if self.local_sp.is_none() => Some(at.wrapping_add(offset as u32)),
            _ => None,
        };
        let limit = match space {
            Space::Shared => layout.static_shared_len,
            Space::Local => layout.local_len,
            Space::Param => layout.param_len,
            Space::Object => self.func.object_len,
            Space::Region => 0,
        };
        let fits = |at: &u32| at.is_multiple_of(size) && u64::from(*at) + u64::from(size) <= u64::from(limit);
        if let Some(at) = fixed.filter(fits) {
            return self.iconst(types::I64, u64::from(at));
        }
        // A function's own depot was checked on entry.
        if let (Val::Local(at), Space::Local) = (base, space) {
            let at = i64::from(at) + offset;
            let inside = at >= 0 && at + i64::from(size) <= i64::from(self.func.local_len);
            if let (true, Some(sp)) = (inside && at % i64::from(size) == 0 && size <= 16, self.local_sp) {
                return self.add_imm(sp, at);
            }
        }
        let value = self.read(base, types::I32);
        let value = self.add_imm(value, offset);
        let units = match space {
            Space::Shared => self.shared_units(align),
            _ => self.iconst(types::I32, u64::from(limit >> align)),
        };
        self.checked_offset(value, units, size)
    }

    /// An offset (32 bits) that must be a multiple of `size` below `units * size`, extended to 64 bits.
    fn checked_offset(&mut self, value: Value, units: Value, size: u32) -> Value {
        let align = size.trailing_zeros();
        let rotated = if align == 0 { value } else { self.b.ins().rotr_imm_u(value, i64::from(align)) };
        let ok = self.below(rotated, units);
        let wide = self.b.ins().uextend(types::I64, value);
        // The reason is only looked for when the check has failed.
        let (bad, next) = (self.b.create_block(), self.b.create_block());
        self.b.set_cold_block(bad);
        self.b.ins().brif(ok, next, &[], bad, &[]);
        self.b.switch_to_block(bad);
        self.b.seal_block(bad);
        let low = self.b.ins().band_imm_u(value, i64::from(size - 1));
        let aligned = self.icmp_imm(IntCC::Equal, low, 0);
        let misaligned = self.iconst(types::I32, FaultKind::MisalignedAddress as u64);
        let illegal = self.iconst(types::I32, FaultKind::IllegalAddress as u64);
        let kind = self.select(aligned, illegal, misaligned);
        self.call_helper("rt_fault", &[self.thread, self.block, kind, wide]);
        self.b.ins().trap(super::fault::unreachable_code());
        self.b.switch_to_block(next);
        self.b.seal_block(next);
        wide
    }

    pub fn load(&mut self, space: Space, ty: ScalarType, order: Order, inst: &Inst) {
        let element = ty.size() as u32;
        let total = element * inst.dsts.len() as u32;
        let place = self.place(space, inst.srcs[0], inst.offset, total);
        let elem_ty = value_type(ty);
        if order == Order::Strong {
            let loaded = self.strong_load(place, total);
            for (i, d) in inst.dsts.iter().enumerate() {
                let at = i as u32 * element;
                let chunk = loaded[(at / 8) as usize];
                let shift = i64::from(at % 8) * 8;
                let v = if shift == 0 { chunk } else { self.b.ins().ushr_imm_u(chunk, shift) };
                let v = self.coerce(v, elem_ty, false);
                self.def(*d, v, ty.is_signed());
            }
            return;
        }
        // All elements are read before the first register is written: a destination may be the base.
        let values: Vec<Value> = (0..inst.dsts.len())
            .map(|i| {
                self.b.ins().load(elem_ty, place.flags, place.base, place.offset + i as i32 * element as i32)
            })
            .collect();
        for (d, v) in inst.dsts.iter().zip(values) {
            self.def(*d, v, ty.is_signed());
        }
    }

    /// Reads memory exactly here and once, in chunks of up to 8 bytes.
    fn strong_load(&mut self, place: Place, total: u32) -> Vec<Value> {
        let address = self.add_imm(place.base, i64::from(place.offset));
        if total == 16 {
            // One access for both halves: 16-byte vectors are read as one by programs that publish a value with its flag. The atomic
            // read orders it: earlier and later accesses are not merged with it.
            let first = self.b.ins().atomic_load(types::I64, place.flags, address);
            let _ = first;
            let both = self.b.ins().load(types::I64X2, place.flags, address, 0);
            return (0..2).map(|lane| self.b.ins().extractlane(both, lane)).collect();
        }
        let ty = int_type(total.min(8));
        (0..total.div_ceil(8))
            .map(|i| {
                let at = self.add_imm(address, i64::from(i) * 8);
                self.b.ins().atomic_load(ty, place.flags, at)
            })
            .collect()
    }

    pub fn store(&mut self, space: Space, ty: ScalarType, order: Order, inst: &Inst) {
        let element = ty.size() as u32;
        let values = &inst.srcs[1..];
        let total = element * values.len() as u32;
        let values: Vec<Value> = values.iter().map(|v| self.read(*v, value_type(ty))).collect();
        let place = self.place(space, inst.srcs[0], inst.offset, total);
        if order == Order::Strong {
            self.strong_store(place, element, &values);
            return;
        }
        for (i, v) in values.into_iter().enumerate() {
            self.b.ins().store(place.flags, v, place.base, place.offset + i as i32 * element as i32);
        }
    }

    /// Writes in as few accesses as possible, after everything before.
    fn strong_store(&mut self, place: Place, element: u32, values: &[Value]) {
        let total = element * values.len() as u32;
        let address = self.add_imm(place.base, i64::from(place.offset));
        let mut chunks: Vec<Value> = Vec::new();
        let chunk_ty = int_type(total.min(8));
        let per_chunk = (chunk_ty.bytes() / element) as usize;
        for group in values.chunks(per_chunk.max(1)) {
            let mut chunk = None;
            for (i, v) in group.iter().enumerate() {
                let v = self.coerce(*v, int_type(element), false);
                let v = self.coerce(v, chunk_ty, false);
                let v =
                    if i == 0 { v } else { self.b.ins().ishl_imm_u(v, i64::from(element) * 8 * i as i64) };
                chunk = Some(match chunk {
                    None => v,
                    Some(c) => self.b.ins().bor(c, v),
                });
            }
            chunks.extend(chunk);
        }
        if total == 16 && !self.cx.strong_stores {
            let low = self.b.ins().scalar_to_vector(types::I64X2, chunks[0]);
            let both = self.b.ins().insertlane(low, chunks[1], 1);
            self.b.ins().store(place.flags, both, address, 0);
            return;
        }
        for (i, chunk) in chunks.into_iter().enumerate() {
            if self.cx.strong_stores {
                let at = self.add_imm(address, i as i64 * 8);
                self.b.ins().atomic_store(place.flags, chunk, at);
            } else {
                self.b.ins().store(place.flags, chunk, address, i as i32 * 8);
            }
        }
    }

    pub fn atom(&mut self, space: Space, op: AtomOp, ty: ScalarType, inst: &Inst) {
        let size = ty.size() as u32;
        let int = int_type(size);
        let d = inst.dsts.first().copied().unwrap_or(SINK);
        let b = self.read(inst.srcs[1], int);
        let c = inst.srcs.get(2).map(|v| self.read(*v, int));
        let place = self.place(space, inst.srcs[0], inst.offset, size);
        let old = if space == Space::Shared {
            // A block's threads never run at the same time.
            let old = self.b.ins().load(int, place.flags, place.base, place.offset);
            let new = self.atom_value(op, ty, old, b, c);
            self.b.ins().store(place.flags, new, place.base, place.offset);
            old
        } else {
            let address = self.add_imm(place.base, i64::from(place.offset));
            let simple = match op {
                AtomOp::Add if !ty.is_float() => Some(AtomicRmwOp::Add),
                AtomOp::And => Some(AtomicRmwOp::And),
                AtomOp::Or => Some(AtomicRmwOp::Or),
                AtomOp::Xor => Some(AtomicRmwOp::Xor),
                AtomOp::Exch => Some(AtomicRmwOp::Xchg),
                AtomOp::Min if ty.is_signed() => Some(AtomicRmwOp::Smin),
                AtomOp::Min => Some(AtomicRmwOp::Umin),
                AtomOp::Max if ty.is_signed() => Some(AtomicRmwOp::Smax),
                AtomOp::Max => Some(AtomicRmwOp::Umax),
                _ => None,
            };
            match (simple, op, c) {
                (Some(rmw), ..) => self.b.ins().atomic_rmw(int, place.flags, rmw, address, b),
                (None, AtomOp::Cas, Some(c)) => self.b.ins().atomic_cas(place.flags, address, b, c),
                _ => self.cas_loop(place.flags, address, int, |g, old| g.atom_value(op, ty, old, b, c)),
            }
        };
        self.def(d, old, ty.is_signed());
    }

    fn cas_loop(
        &mut self,
        flags: MemFlagsData,
        address: Value,
        ty: Type,
        new: impl Fn(&mut Self, Value) -> Value,
    ) -> Value {
        let first = self.b.ins().load(ty, flags, address, 0);
        let (again, done) = (self.b.create_block(), self.b.create_block());
        let old = self.b.append_block_param(again, ty);
        self.b.ins().jump(again, &[BlockArg::from(first)]);
        self.b.switch_to_block(again);
        let value = new(self, old);
        let seen = self.b.ins().atomic_cas(flags, address, old, value);
        let same = self.b.ins().icmp(IntCC::Equal, seen, old);
        self.b.ins().brif(same, done, &[], again, &[BlockArg::from(seen)]);
        self.b.seal_block(again);
        self.b.switch_to_block(done);
        self.b.seal_block(done);
        old
    }

    /// The new value of an atomic operation, as integer bits.
    fn atom_value(&mut self, op: AtomOp, ty: ScalarType, old: Value, b: Value, c: Option<Value>) -> Value {
        match op {
            AtomOp::Add if ty.is_float() => {
                let float = value_type(ty);
                let (x, y) = (self.coerce(old, float, false), self.coerce(b, float, false));
                let sum = self.float_values(FloatOp::Add, ty, FloatMode::PLAIN, &[x, y]);
                self.coerce(sum, int_type(ty.size() as u32), false)
            }
            AtomOp::Add => self.b.ins().iadd(old, b),
            AtomOp::And => self.b.ins().band(old, b),
            AtomOp::Or => self.b.ins().bor(old, b),
            AtomOp::Xor => self.b.ins().bxor(old, b),
            AtomOp::Exch => b,
            AtomOp::Cas => {
                let same = self.b.ins().icmp(IntCC::Equal, old, b);
                self.select(same, c.unwrap_or(b), old)
            }
            AtomOp::Min | AtomOp::Max => {
                let cc = match (op, ty.is_signed()) {
                    (AtomOp::Min, true) => IntCC::SignedLessThan,
                    (AtomOp::Min, false) => IntCC::UnsignedLessThan,
                    (_, true) => IntCC::SignedGreaterThan,
                    (_, false) => IntCC::UnsignedGreaterThan,
                };
                let first = self.b.ins().icmp(cc, old, b);
                self.select(first, old, b)
            }
            AtomOp::Inc => {
                // old >= b ? 0 : old + 1
                let wrap = self.b.ins().icmp(IntCC::UnsignedGreaterThanOrEqual, old, b);
                let next = self.add_imm(old, 1);
                let zero = self.constant(types::I32, 0);
                self.select(wrap, zero, next)
            }
            AtomOp::Dec => {
                // old == 0 || old > b ? b : old - 1
                let zero = self.icmp_imm(IntCC::Equal, old, 0);
                let above = self.b.ins().icmp(IntCC::UnsignedGreaterThan, old, b);
                let wrap = self.b.ins().bor(zero, above);
                let next = self.add_imm(old, -1);
                self.select(wrap, b, next)
            }
        }
    }

    /// `cp.async`: done at once. What is not copied becomes zero.
    pub fn cp_async(&mut self, len: u8, src_offset: i32, ignore: bool, inst: &Inst) {
        let size = u32::from(len);
        let dst = self.place(Space::Shared, inst.srcs[0], inst.offset, size);
        let step = size.min(8);
        let ty = int_type(step);
        let count = inst.srcs.get(2).copied();
        let all = match count {
            None => None,
            Some(v) if ignore => {
                let p = self.read(v, types::I8);
                Some(self.icmp_imm(IntCC::Equal, p, 0))
            }
            Some(v) => {
                let n = self.read(v, types::I32);
                Some(self.icmp_imm(IntCC::NotEqual, n, 0))
            }
        };
        // Without bytes to copy the source is not accessed.
        let (copy, next) = (self.b.create_block(), self.b.create_block());
        let params: Vec<Value> = (0..size / step).map(|_| self.b.append_block_param(next, ty)).collect();
        let zero = self.iconst(ty, 0);
        let zeros: Vec<BlockArg> = params.iter().map(|_| BlockArg::from(zero)).collect();
        match all {
            None => {
                self.b.ins().jump(copy, &[]);
            }
            Some(all) => {
                self.b.ins().brif(all, copy, &[], next, &zeros);
            }
        }
        self.b.switch_to_block(copy);
        self.b.seal_block(copy);
        let checked = self.checked.len();
        let src = self.place(Space::Region, inst.srcs[1], i64::from(src_offset), size);
        self.checked.truncate(checked);
        let mut values = Vec::new();
        for i in 0..size / step {
            let mut v = self.b.ins().load(ty, src.flags, src.base, src.offset + (i * step) as i32);
            if let (Some(n), false) = (count, ignore) {
                // Bytes from n on are zero.
                let n = self.read(n, types::I32);
                let cap = self.iconst(types::I32, u64::from(size));
                let over = self.b.ins().icmp(IntCC::UnsignedGreaterThan, n, cap);
                let n = self.select(over, cap, n);
                let left = self.add_imm(n, -i64::from(i * step));
                let none = self.icmp_imm(IntCC::SignedLessThanOrEqual, left, 0);
                let full = self.icmp_imm(IntCC::SignedGreaterThanOrEqual, left, u64::from(step));
                let bits = self.b.ins().ishl_imm_u(left, 3);
                let one = self.iconst(ty, 1);
                let top = self.b.ins().ishl(one, bits);
                let mask = self.add_imm(top, -1);
                let part = self.b.ins().band(v, mask);
                let zero = self.iconst(ty, 0);
                let v1 = self.select(full, v, part);
                v = self.select(none, zero, v1);
            }
            values.push(BlockArg::from(v));
        }
        self.b.ins().jump(next, &values);
        self.b.switch_to_block(next);
        self.b.seal_block(next);
        for (i, v) in params.into_iter().enumerate() {
            self.b.ins().store(dst.flags, v, dst.base, dst.offset + (i as u32 * step) as i32);
        }
    }

    // Address spaces.

    /// Generic address of the start of a space; `None` if addresses in it are generic.
    fn window_base(&mut self, space: Space) -> Option<Value> {
        match space {
            Space::Region => None,
            Space::Shared => Some(self.block_address(offset_of!(Block, shared_base))),
            Space::Local => {
                let flags = self.const_flags();
                Some(self.b.ins().load(types::I64, flags, self.thread, offset_of!(Thread, local_base) as i32))
            }
            Space::Param | Space::Object => Some(self.block_address(offset_of!(Block, params))),
        }
    }

    pub fn cvta(&mut self, space: Space, to_generic: bool, d: Reg, s: Val) {
        let v = self.read(s, types::I64);
        let v = match self.window_base(space) {
            None => v,
            Some(base) if to_generic => self.b.ins().iadd(v, base),
            Some(base) => self.b.ins().isub(v, base),
        };
        self.def(d, v, false);
    }

    pub fn is_space(&mut self, space: ptx::Space, d: Reg, s: Val) {
        let v = self.read(s, types::I64);
        let shared = self.in_shared(v);
        let local = self.in_local(v);
        let param = self.in_param(v);
        let (base, len) = self.cx.unit.layout.const_range;
        let constant = self.in_range(v, base, len);
        let p = match space {
            ptx::Space::Shared => shared,
            ptx::Space::Local => local,
            ptx::Space::Param => param,
            ptx::Space::Const => constant,
            _ => {
                let tag = self.b.ins().ushr_imm_u(v, i64::from(REGION_SHIFT));
                let inside = self.icmp_imm(IntCC::Equal, tag, self.cx.unit.layout.region_tag);
                let a = self.b.ins().bor(shared, local);
                let b = self.b.ins().bor(param, constant);
                let other = self.b.ins().bor(a, b);
                let other = self.b.ins().bxor_imm_u(other, 1);
                self.b.ins().band(inside, other)
            }
        };
        self.def(d, p, false);
    }

    fn in_range(&mut self, v: Value, base: u64, len: u64) -> Value {
        let at = self.add_imm(v, (base as i64).wrapping_neg());
        self.icmp_imm(IntCC::UnsignedLessThan, at, len)
    }

    fn in_shared(&mut self, v: Value) -> Value {
        let base = self.block_address(offset_of!(Block, shared_base));
        let flags = self.const_flags();
        let len = self.b.ins().load(types::I32, flags, self.block, offset_of!(Block, shared_len) as i32);
        let len = self.b.ins().uextend(types::I64, len);
        let at = self.b.ins().isub(v, base);
        self.below(at, len)
    }

    fn in_local(&mut self, v: Value) -> Value {
        let flags = self.const_flags();
        let base = self.b.ins().load(types::I64, flags, self.thread, offset_of!(Thread, local_base) as i32);
        let at = self.b.ins().isub(v, base);
        self.icmp_imm(IntCC::UnsignedLessThan, at, u64::from(self.cx.unit.layout.local_len))
    }

    fn in_param(&mut self, v: Value) -> Value {
        let base = self.block_address(offset_of!(Block, params));
        let at = self.b.ins().isub(v, base);
        self.icmp_imm(IntCC::UnsignedLessThan, at, u64::from(self.cx.unit.layout.param_len))
    }
}
