//! Integer operations.

use cranelift_codegen::ir::{InstBuilder, Type, Value, condcodes::IntCC, types};
use ptx::ScalarType;

use super::func::Gen;
use super::value::int_type;
use crate::ir::{CarryOp, IntOp, Reg, SINK, Val};

impl Gen<'_, '_> {
    pub fn int_op(&mut self, op: IntOp, ty: ScalarType, s: &[Val]) -> Value {
        if let ScalarType::U16x2 | ScalarType::S16x2 = ty {
            return self.pair_op(op, ty == ScalarType::S16x2, s);
        }
        let t = if ty == ScalarType::Pred { types::I8 } else { int_type(ty.size() as u32) };
        let signed = ty.is_signed();
        let width = u64::from(t.bits());
        match op {
            IntOp::Bfe => return self.bfe(t, signed, s),
            IntOp::Bfi => return self.bfi(t, s),
            IntOp::Lop3 => return self.lop3(s),
            IntOp::Prmt(mode) => return self.prmt(mode, s),
            IntOp::Dp4a(..) | IntOp::Dp2a(..) => return self.dot(op, s),
            IntOp::Shl | IntOp::Shr => return self.shift(op, t, signed, s),
            IntOp::ShfLeftWrap | IntOp::ShfLeftClamp | IntOp::ShfRightWrap | IntOp::ShfRightClamp => {
                return self.funnel(op, s);
            }
            _ => {}
        }
        let a = self.read(s[0], t);
        let b = match s.get(1) {
            Some(v) => self.read(*v, t),
            None => a,
        };
        match op {
            IntOp::Add => self.b.ins().iadd(a, b),
            IntOp::Sub => self.b.ins().isub(a, b),
            IntOp::AddSat | IntOp::SubSat => {
                let (a, b) = (self.b.ins().sextend(types::I64, a), self.b.ins().sextend(types::I64, b));
                let r = if op == IntOp::AddSat { self.b.ins().iadd(a, b) } else { self.b.ins().isub(a, b) };
                self.clamp_s32(r)
            }
            IntOp::Mul => self.b.ins().imul(a, b),
            IntOp::MulHi => self.mul_hi(a, b, signed),
            IntOp::MulWide => self.mul_wide(a, b, signed),
            IntOp::Mad => {
                let p = self.b.ins().imul(a, b);
                let c = self.read(s[2], t);
                self.b.ins().iadd(p, c)
            }
            IntOp::MadHi => {
                let p = self.mul_hi(a, b, signed);
                let c = self.read(s[2], t);
                self.b.ins().iadd(p, c)
            }
            IntOp::MadHiSat => {
                let p = self.mul_hi(a, b, signed);
                let c = self.read(s[2], t);
                self.add_sat(p, c)
            }
            IntOp::MadWide => {
                let p = self.mul_wide(a, b, signed);
                let wide = self.type_of(p);
                let c = self.read(s[2], wide);
                self.b.ins().iadd(p, c)
            }
            IntOp::Mul24 | IntOp::Mul24Hi | IntOp::Mad24 | IntOp::Mad24Hi | IntOp::Mad24HiSat => {
                let p = self.mul24(a, b, signed, !matches!(op, IntOp::Mul24 | IntOp::Mad24));
                if matches!(op, IntOp::Mul24 | IntOp::Mul24Hi) {
                    return p;
                }
                let c = self.read(s[2], t);
                if op == IntOp::Mad24HiSat { self.add_sat(p, c) } else { self.b.ins().iadd(p, c) }
            }
            IntOp::Sad => {
                let c = self.read(s[2], t);
                let d = self.abs_diff(a, b, signed);
                self.b.ins().iadd(c, d)
            }
            IntOp::Div | IntOp::Rem => self.div_rem(op, t, signed, a, b, s[1]),
            IntOp::Abs => {
                let n = self.b.ins().ineg(a);
                let neg = self.icmp_imm(IntCC::SignedLessThan, a, 0);
                self.select(neg, n, a)
            }
            IntOp::Neg => self.b.ins().ineg(a),
            IntOp::Min | IntOp::Max => self.min_max(a, b, signed, op == IntOp::Min),
            IntOp::MinRelu | IntOp::MaxRelu => {
                let r = self.min_max(a, b, signed, op == IntOp::MinRelu);
                let zero = self.iconst(t, 0);
                self.min_max(r, zero, true, false)
            }
            IntOp::And => self.b.ins().band(a, b),
            IntOp::Or => self.b.ins().bor(a, b),
            IntOp::Xor => self.b.ins().bxor(a, b),
            IntOp::Not if ty == ScalarType::Pred => self.b.ins().bxor_imm_u(a, 1),
            IntOp::Not => self.b.ins().bnot(a),
            IntOp::Cnot => {
                let zero = self.icmp_imm(IntCC::Equal, a, 0);
                self.b.ins().uextend(t, zero)
            }
            IntOp::Popc => {
                let n = self.b.ins().popcnt(a);
                self.coerce(n, types::I32, false)
            }
            IntOp::Clz => {
                let n = self.b.ins().clz(a);
                self.coerce(n, types::I32, false)
            }
            IntOp::Brev => self.b.ins().bitrev(a),
            IntOp::Bfind | IntOp::BfindShift => {
                let x = if signed {
                    let sign = self.b.ins().sshr_imm_u(a, width as i64 - 1);
                    self.b.ins().bxor(a, sign)
                } else {
                    a
                };
                let n = self.b.ins().clz(x);
                let n = self.coerce(n, types::I32, false);
                let at = if op == IntOp::BfindShift {
                    n
                } else {
                    let top = self.iconst(types::I32, width - 1);
                    self.b.ins().isub(top, n)
                };
                let none = self.icmp_imm(IntCC::Equal, x, 0);
                let all = self.iconst(types::I32, u64::MAX);
                self.select(none, all, at)
            }
            IntOp::BmskClamp | IntOp::BmskWrap => self.bmsk(op == IntOp::BmskClamp, a, b),
            IntOp::SzextClamp | IntOp::SzextWrap => self.szext(op == IntOp::SzextClamp, signed, a, b),
            IntOp::Bfe
            | IntOp::Bfi
            | IntOp::Lop3
            | IntOp::Prmt(_)
            | IntOp::Dp4a(..)
            | IntOp::Dp2a(..)
            | IntOp::Shl
            | IntOp::Shr
            | IntOp::ShfLeftWrap
            | IntOp::ShfLeftClamp
            | IntOp::ShfRightWrap
            | IntOp::ShfRightClamp => a,
        }
    }

    /// Additions, minima and maxima of two 16-bit lanes.
    fn pair_op(&mut self, op: IntOp, signed: bool, s: &[Val]) -> Value {
        let (a, b) = (self.read(s[0], types::I32), self.read(s[1], types::I32));
        let lanes = [0, 1].map(|i| {
            let (x, y) = (self.lane(a, i), self.lane(b, i));
            let v = match op {
                IntOp::Add => self.b.ins().iadd(x, y),
                _ => self.min_max(x, y, signed, matches!(op, IntOp::Min | IntOp::MinRelu)),
            };
            if matches!(op, IntOp::MinRelu | IntOp::MaxRelu) {
                let zero = self.iconst(types::I16, 0);
                self.min_max(v, zero, true, false)
            } else {
                v
            }
        });
        self.join(lanes[0], lanes[1])
    }

    fn extend(&mut self, ty: Type, v: Value, signed: bool) -> Value {
        if signed { self.b.ins().sextend(ty, v) } else { self.b.ins().uextend(ty, v) }
    }

    fn mul_wide(&mut self, a: Value, b: Value, signed: bool) -> Value {
        let wide = int_type(self.type_of(a).bytes() * 2);
        let (a, b) = (self.extend(wide, a, signed), self.extend(wide, b, signed));
        self.b.ins().imul(a, b)
    }

    fn mul_hi(&mut self, a: Value, b: Value, signed: bool) -> Value {
        let t = self.type_of(a);
        if t == types::I64 {
            return if signed { self.b.ins().smulhi(a, b) } else { self.b.ins().umulhi(a, b) };
        }
        let wide = self.mul_wide(a, b, signed);
        let high = self.b.ins().ushr_imm_u(wide, i64::from(t.bits()));
        self.b.ins().ireduce(t, high)
    }

    /// Product of the low 24 bits: low 32 bits, or bits 16 to 47.
    fn mul24(&mut self, a: Value, b: Value, signed: bool, high: bool) -> Value {
        let mut narrow = |v: Value| {
            let up = self.b.ins().ishl_imm_u(v, 8);
            let v = if signed { self.b.ins().sshr_imm_u(up, 8) } else { self.b.ins().ushr_imm_u(up, 8) };
            self.extend(types::I64, v, signed)
        };
        let (a, b) = (narrow(a), narrow(b));
        let p = self.b.ins().imul(a, b);
        let p = if high { self.b.ins().ushr_imm_u(p, 16) } else { p };
        self.b.ins().ireduce(types::I32, p)
    }

    fn clamp_s32(&mut self, v: Value) -> Value {
        let low = self.iconst(types::I64, i64::from(i32::MIN) as u64);
        let high = self.iconst(types::I64, i64::from(i32::MAX) as u64);
        let v = self.min_max(v, low, true, false);
        let v = self.min_max(v, high, true, true);
        self.b.ins().ireduce(types::I32, v)
    }

    fn add_sat(&mut self, a: Value, b: Value) -> Value {
        let (a, b) = (self.b.ins().sextend(types::I64, a), self.b.ins().sextend(types::I64, b));
        let sum = self.b.ins().iadd(a, b);
        self.clamp_s32(sum)
    }

    pub fn min_max(&mut self, a: Value, b: Value, signed: bool, min: bool) -> Value {
        let cc = match (min, signed) {
            (true, true) => IntCC::SignedLessThan,
            (true, false) => IntCC::UnsignedLessThan,
            (false, true) => IntCC::SignedGreaterThan,
            (false, false) => IntCC::UnsignedGreaterThan,
        };
        let first = self.b.ins().icmp(cc, a, b);
        self.select(first, a, b)
    }

    fn abs_diff(&mut self, a: Value, b: Value, signed: bool) -> Value {
        let less =
            self.b.ins().icmp(if signed { IntCC::SignedLessThan } else { IntCC::UnsignedLessThan }, a, b);
        let (ab, ba) = (self.b.ins().isub(a, b), self.b.ins().isub(b, a));
        self.select(less, ba, ab)
    }

    /// Division never traps: x / 0 is all ones, x % 0 is x, MIN / -1 is MIN.
    fn div_rem(&mut self, op: IntOp, t: Type, signed: bool, a: Value, b: Value, divisor: Val) -> Value {
        let all_ones = if t.bytes() == 8 { u64::MAX } else { (1u64 << t.bits()) - 1 };
        let harmless = matches!(divisor, Val::Imm(d) if d & all_ones != 0 && d & all_ones != all_ones);
        let zero = self.icmp_imm(IntCC::Equal, b, 0);
        let one = self.iconst(t, 1);
        let safe = if harmless {
            b
        } else if signed {
            let min = self.icmp_imm(IntCC::Equal, a, 1u64 << (t.bits() - 1));
            let minus_one = self.icmp_imm(IntCC::Equal, b, u64::MAX);
            let overflow = self.b.ins().band(min, minus_one);
            let bad = self.b.ins().bor(zero, overflow);
            self.select(bad, one, b)
        } else {
            self.select(zero, one, b)
        };
        let r = match (op, signed) {
            (IntOp::Div, true) => self.b.ins().sdiv(a, safe),
            (IntOp::Div, false) => self.b.ins().udiv(a, safe),
            (_, true) => self.b.ins().srem(a, safe),
            (_, false) => self.b.ins().urem(a, safe),
        };
        if harmless {
            return r;
        }
        let at_zero = if op == IntOp::Div { self.iconst(t, u64::MAX) } else { a };
        self.select(zero, at_zero, r)
    }

    /// Shift amounts are 32 bits wide and clamp at the width.
    fn shift(&mut self, op: IntOp, t: Type, signed: bool, s: &[Val]) -> Value {
        let width = t.bits();
        let a = self.read(s[0], t);
        if let Val::Imm(n) = s[1] {
            let n = (n as u32).min(width);
            return match (op, signed) {
                (IntOp::Shr, true) => self.b.ins().sshr_imm_u(a, i64::from(n.min(width - 1))),
                _ if n == width => self.iconst(t, 0),
                (IntOp::Shl, _) => self.b.ins().ishl_imm_u(a, i64::from(n)),
                _ => self.b.ins().ushr_imm_u(a, i64::from(n)),
            };
        }
        let n = self.read(s[1], types::I32);
        if op == IntOp::Shr && signed {
            let last = self.iconst(types::I32, u64::from(width - 1));
            let n = self.min_max(n, last, false, true);
            return self.b.ins().sshr(a, n);
        }
        let r = if op == IntOp::Shl { self.b.ins().ishl(a, n) } else { self.b.ins().ushr(a, n) };
        let inside = self.icmp_imm(IntCC::UnsignedLessThan, n, u64::from(width));
        let zero = self.iconst(t, 0);
        self.select(inside, r, zero)
    }

    /// `shf`: the 64-bit value b:a shifted, its high (left) or low (right) half.
    fn funnel(&mut self, op: IntOp, s: &[Val]) -> Value {
        let a = self.read(s[0], types::I32);
        let b = self.read(s[1], types::I32);
        let n = self.read(s[2], types::I32);
        let n = if matches!(op, IntOp::ShfLeftWrap | IntOp::ShfRightWrap) {
            self.b.ins().band_imm_u(n, 31)
        } else {
            let max = self.iconst(types::I32, 32);
            self.min_max(n, max, false, true)
        };
        let both = self.concat(b, a);
        let r = if matches!(op, IntOp::ShfLeftWrap | IntOp::ShfLeftClamp) {
            let r = self.b.ins().ishl(both, n);
            self.b.ins().ushr_imm_u(r, 32)
        } else {
            self.b.ins().ushr(both, n)
        };
        self.b.ins().ireduce(types::I32, r)
    }

    fn concat(&mut self, high: Value, low: Value) -> Value {
        let high = self.b.ins().uextend(types::I64, high);
        let low = self.b.ins().uextend(types::I64, low);
        let high = self.b.ins().ishl_imm_u(high, 32);
        self.b.ins().bor(high, low)
    }

    /// Position and length operands: their low 8 bits, at most `max`.
    fn byte_operand(&mut self, v: Val, max: u64) -> Value {
        let v = self.read(v, types::I32);
        let v = self.b.ins().band_imm_u(v, 0xff);
        let max = self.iconst(types::I32, max);
        self.min_max(v, max, false, true)
    }

    fn bfe(&mut self, t: Type, signed: bool, s: &[Val]) -> Value {
        let width = u64::from(t.bits());
        let a = self.read(s[0], t);
        let a = if t == types::I64 { a } else { self.extend(types::I64, a, signed) };
        let len = self.byte_operand(s[2], width);
        let zero = self.iconst(types::I64, 0);
        let pos = self.byte_operand(s[1], 255);
        let last = self.iconst(types::I32, 63);
        let near = self.min_max(pos, last, false, true);
        let v = if signed {
            self.b.ins().sshr(a, near)
        } else {
            let v = self.b.ins().ushr(a, near);
            let beyond = self.icmp_imm(IntCC::UnsignedGreaterThan, pos, 63);
            self.select(beyond, zero, v)
        };
        // Keep `len` bits: up and down again, by 64 - len (0 to 64).
        let full = self.iconst(types::I32, 64);
        let up = self.b.ins().isub(full, len);
        let shifted = self.b.ins().ishl(v, up);
        let down = if signed { self.b.ins().sshr(shifted, up) } else { self.b.ins().ushr(shifted, up) };
        let none = self.icmp_imm(IntCC::Equal, len, 0);
        let v = self.select(none, zero, down);
        self.coerce(v, t, false)
    }

    fn bfi(&mut self, t: Type, s: &[Val]) -> Value {
        let width = u64::from(t.bits());
        let a = self.read(s[0], t);
        let b = self.read(s[1], t);
        let (a, b) = (self.coerce(a, types::I64, false), self.coerce(b, types::I64, false));
        let pos = self.byte_operand(s[2], 255);
        let len = self.byte_operand(s[3], width);
        let one = self.iconst(types::I64, 1);
        let all = self.iconst(types::I64, u64::MAX);
        let zero = self.iconst(types::I64, 0);
        let top = self.b.ins().ishl(one, len);
        let mask = self.add_imm(top, -1);
        let full = self.icmp_imm(IntCC::Equal, len, 64);
        let mask = self.select(full, all, mask);
        let placed = self.b.ins().ishl(mask, pos);
        let beyond = self.icmp_imm(IntCC::UnsignedGreaterThan, pos, 63);
        let mask = self.select(beyond, zero, placed);
        let field = self.b.ins().ishl(a, pos);
        let field = self.b.ins().band(field, mask);
        let rest = self.b.ins().band_not(b, mask);
        let v = self.b.ins().bor(rest, field);
        self.coerce(v, t, false)
    }

    fn bmsk(&mut self, clamp: bool, a: Value, b: Value) -> Value {
        let all = self.iconst(types::I32, u64::MAX);
        let zero = self.iconst(types::I32, 0);
        let a1 = self.b.ins().band_imm_u(a, 31);
        let b1 = self.b.ins().band_imm_u(b, 31);
        let sum = self.b.ins().iadd(a1, b1);
        let mut mask0 = self.b.ins().ishl(all, a1);
        let mask1 = self.b.ins().ishl(all, sum);
        let mut over = self.icmp_imm(IntCC::UnsignedGreaterThanOrEqual, sum, 32);
        if clamp {
            let a_over = self.icmp_imm(IntCC::UnsignedGreaterThanOrEqual, a, 32);
            let b_over = self.icmp_imm(IntCC::UnsignedGreaterThanOrEqual, b, 32);
            mask0 = self.select(a_over, zero, mask0);
            let either = self.b.ins().bor(a_over, b_over);
            over = self.b.ins().bor(over, either);
        }
        let mask1 = self.select(over, zero, mask1);
        self.b.ins().band_not(mask0, mask1)
    }

    fn szext(&mut self, clamp: bool, signed: bool, a: Value, b: Value) -> Value {
        let all = self.iconst(types::I32, u64::MAX);
        let zero = self.iconst(types::I32, 0);
        let b1 = self.b.ins().band_imm_u(b, 31);
        let mut mask = self.b.ins().ishl(all, b1);
        if clamp {
            let over = self.icmp_imm(IntCC::UnsignedGreaterThanOrEqual, b, 32);
            mask = self.select(over, zero, mask);
        }
        let low = self.b.ins().band_not(a, mask);
        if !signed {
            return low;
        }
        let at = self.add_imm(b1, -1);
        let bit = self.b.ins().ushr(a, at);
        let bit = self.b.ins().band_imm_u(bit, 1);
        let fill = self.select(bit, mask, zero);
        self.b.ins().bor(low, fill)
    }

    /// `lop3`: f(a,b,c) = f0(b,c) ^ (a & (f0(b,c) ^ f1(b,c))), where f0 and f1 are the halves of the table.
    fn lop3(&mut self, s: &[Val]) -> Value {
        let a = self.read(s[0], types::I32);
        let b = self.read(s[1], types::I32);
        let c = self.read(s[2], types::I32);
        let table = match s[3] {
            Val::Imm(table) => table as u8,
            // The table is an immediate in PTX; anything else has no meaning.
            _ => 0,
        };
        let f0 = table & 15;
        let g = f0 ^ (table >> 4);
        let low = self.table2(f0, b, c);
        let high = self.table2(g, b, c);
        let high = self.b.ins().band(a, high);
        self.b.ins().bxor(low, high)
    }

    /// Boolean function of two words by its table: bit `2 * b + c`.
    fn table2(&mut self, table: u8, b: Value, c: Value) -> Value {
        let inverted = table & 1 != 0;
        // With f(0,0) = 0 there are eight functions left.
        let v = match if inverted { table ^ 15 } else { table } {
            0b0000 => self.iconst(types::I32, 0),
            0b0010 => self.b.ins().band_not(c, b),
            0b0100 => self.b.ins().band_not(b, c),
            0b0110 => self.b.ins().bxor(b, c),
            0b1000 => self.b.ins().band(b, c),
            0b1010 => c,
            0b1100 => b,
            _ => self.b.ins().bor(b, c),
        };
        if inverted { self.b.ins().bnot(v) } else { v }
    }

    fn prmt(&mut self, mode: u8, s: &[Val]) -> Value {
        let a = self.read(s[0], types::I32);
        let b = self.read(s[1], types::I32);
        let c = self.read(s[2], types::I32);
        let both = self.concat(b, a);
        let ctl = self.b.ins().band_imm_u(c, 3);
        let mut result = None;
        for i in 0..4u64 {
            let (index, sign) = match mode {
                0 => {
                    let nibble = self.b.ins().ushr_imm_u(c, 4 * i as i64);
                    let index = self.b.ins().band_imm_u(nibble, 7);
                    (index, Some(self.b.ins().band_imm_u(nibble, 8)))
                }
                // f4e: forward; b4e: backward; rc8: replicate a byte; ecl, ecr: clamp; rc16: replicate a half.
                1 => (self.add_imm(ctl, i as i64), None),
                2 => {
                    let down = self.add_imm(ctl, -(i as i64));
                    (self.b.ins().band_imm_u(down, 7), None)
                }
                3 => (ctl, None),
                4 | 5 => {
                    let own = self.iconst(types::I32, i);
                    (self.min_max(ctl, own, false, mode == 5), None)
                }
                _ => {
                    let half = self.b.ins().band_imm_u(ctl, 1);
                    let base = self.b.ins().ishl_imm_u(half, 1);
                    (self.add_imm(base, (i & 1) as i64), None)
                }
            };
            let shift = self.b.ins().ishl_imm_u(index, 3);
            let v = self.b.ins().ushr(both, shift);
            let v = self.b.ins().ireduce(types::I32, v);
            let byte = self.b.ins().band_imm_u(v, 0xff);
            let byte = match sign {
                None => byte,
                Some(sign) => {
                    let up = self.b.ins().ishl_imm_u(v, 24);
                    let replicated = self.b.ins().sshr_imm_u(up, 31);
                    let replicated = self.b.ins().band_imm_u(replicated, 0xff);
                    self.select(sign, replicated, byte)
                }
            };
            let byte = self.b.ins().ishl_imm_u(byte, 8 * i as i64);
            result = Some(match result {
                None => byte,
                Some(r) => self.b.ins().bor(r, byte),
            });
        }
        result.unwrap_or(a)
    }

    fn dot(&mut self, op: IntOp, s: &[Val]) -> Value {
        let a = self.read(s[0], types::I32);
        let b = self.read(s[1], types::I32);
        let mut sum = self.read(s[2], types::I32);
        let (a_signed, b_signed, a_bits, n, b_first) = match op {
            IntOp::Dp4a(a, b) => (a, b, 8, 4, 0),
            IntOp::Dp2a(a, b, high) => (a, b, 16, 2, if high { 2 } else { 0 }),
            _ => return sum,
        };
        for i in 0..n {
            let x = self.field(a, i * a_bits, a_bits, a_signed);
            let y = self.field(b, (b_first + i) * 8, 8, b_signed);
            let p = self.b.ins().imul(x, y);
            sum = self.b.ins().iadd(sum, p);
        }
        sum
    }

    /// Bits `at .. at + len` of a word, extended.
    pub fn field(&mut self, v: Value, at: i64, len: i64, signed: bool) -> Value {
        let up = self.b.ins().ishl_imm_u(v, 32 - at - len);
        if signed { self.b.ins().sshr_imm_u(up, 32 - len) } else { self.b.ins().ushr_imm_u(up, 32 - len) }
    }

    pub fn carry_op(&mut self, op: CarryOp, ty: ScalarType, dsts: &[Reg], s: &[Val]) {
        let t = int_type(ty.size() as u32);
        let (n, signed) = (s.len() - 1, ty.is_signed());
        let a = self.read(s[0], t);
        let b = self.read(s[1], t);
        let no_carry = s[n] == Val::Imm(0);
        let carry = self.read(s[n], types::I8);
        let carry = self.coerce(carry, t, false);
        let (a, b) = match op {
            CarryOp::Add | CarryOp::Sub => (a, b),
            CarryOp::Mad => (self.b.ins().imul(a, b), self.read(s[2], t)),
            CarryOp::MadHi => (self.mul_hi(a, b, signed), self.read(s[2], t)),
        };
        let sub = op == CarryOp::Sub;
        let first = if sub { self.b.ins().isub(a, b) } else { self.b.ins().iadd(a, b) };
        let mut out = if sub { self.below(a, b) } else { self.below(first, a) };
        let mut result = first;
        if !no_carry {
            result = if sub { self.b.ins().isub(first, carry) } else { self.b.ins().iadd(first, carry) };
            let second = if sub { self.below(first, carry) } else { self.below(result, first) };
            out = self.b.ins().bor(out, second);
        }
        self.def(dsts[0], result, signed);
        if dsts[1] != SINK {
            self.def(dsts[1], out, false);
        }
    }
}
