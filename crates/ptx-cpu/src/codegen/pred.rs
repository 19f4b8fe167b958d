//! Comparisons and selections.

use cranelift_codegen::ir::{
    InstBuilder, Value,
    condcodes::{FloatCC, IntCC},
    types,
};
use ptx::ScalarType;

use super::func::Gen;
use super::value::{int_type, value_type};
use crate::ir::{BoolOp, Cmp, Reg, SINK, TestOp, Val};

fn float_cc(cmp: Cmp) -> FloatCC {
    match cmp {
        Cmp::Eq => FloatCC::Equal,
        Cmp::Ne => FloatCC::OrderedNotEqual,
        Cmp::Lt => FloatCC::LessThan,
        Cmp::Le => FloatCC::LessThanOrEqual,
        Cmp::Gt => FloatCC::GreaterThan,
        Cmp::Ge => FloatCC::GreaterThanOrEqual,
        Cmp::Equ => FloatCC::UnorderedOrEqual,
        Cmp::Neu => FloatCC::NotEqual,
        Cmp::Ltu => FloatCC::UnorderedOrLessThan,
        Cmp::Leu => FloatCC::UnorderedOrLessThanOrEqual,
        Cmp::Gtu => FloatCC::UnorderedOrGreaterThan,
        Cmp::Geu => FloatCC::UnorderedOrGreaterThanOrEqual,
        Cmp::Num => FloatCC::Ordered,
        Cmp::Nan => FloatCC::Unordered,
    }
}

fn int_cc(cmp: Cmp, signed: bool) -> IntCC {
    match (cmp, signed) {
        (Cmp::Eq, _) => IntCC::Equal,
        (Cmp::Lt, true) => IntCC::SignedLessThan,
        (Cmp::Le, true) => IntCC::SignedLessThanOrEqual,
        (Cmp::Gt, true) => IntCC::SignedGreaterThan,
        (Cmp::Ge, true) => IntCC::SignedGreaterThanOrEqual,
        (Cmp::Lt, false) => IntCC::UnsignedLessThan,
        (Cmp::Le, false) => IntCC::UnsignedLessThanOrEqual,
        (Cmp::Gt, false) => IntCC::UnsignedGreaterThan,
        (Cmp::Ge, false) => IntCC::UnsignedGreaterThanOrEqual,
        // Others than `ne` are refused by the decoder.
        _ => IntCC::NotEqual,
    }
}

impl Gen<'_, '_> {
    /// Lanes of the comparison: one, or two for packed types.
    fn compare(&mut self, cmp: Cmp, ty: ScalarType, ftz: bool, s: &[Val]) -> Vec<Value> {
        let t = value_type(ty);
        let (a, b) = (self.read(s[0], t), self.read(s[1], t));
        match ty {
            ScalarType::F16x2 | ScalarType::Bf16x2 => (0..2)
                .map(|lane| {
                    let scalar = super::half::lane_type(ty);
                    let (x, y) = (self.lane(a, lane), self.lane(b, lane));
                    let (x, y) = (self.half_input(scalar, x, ftz), self.half_input(scalar, y, ftz));
                    self.b.ins().fcmp(float_cc(cmp), x, y)
                })
                .collect(),
            ScalarType::F16 | ScalarType::Bf16 => {
                let (x, y) = (self.half_input(ty, a, ftz), self.half_input(ty, b, ftz));
                vec![self.b.ins().fcmp(float_cc(cmp), x, y)]
            }
            ScalarType::F32 | ScalarType::F64 => {
                let (a, b) = if ftz { (self.flush(a), self.flush(b)) } else { (a, b) };
                vec![self.b.ins().fcmp(float_cc(cmp), a, b)]
            }
            _ => vec![self.b.ins().icmp(int_cc(cmp, ty.is_signed()), a, b)],
        }
    }

    fn combine(&mut self, op: Option<BoolOp>, p: Value, s: &[Val]) -> Value {
        let Some(op) = op else { return p };
        let c = self.read(s[2], types::I8);
        match op {
            BoolOp::And => self.b.ins().band(p, c),
            BoolOp::Or => self.b.ins().bor(p, c),
            BoolOp::Xor => self.b.ins().bxor(p, c),
        }
    }

    pub fn setp(&mut self, cmp: Cmp, ty: ScalarType, ftz: bool, op: Option<BoolOp>, dsts: &[Reg], s: &[Val]) {
        let lanes = self.compare(cmp, ty, ftz, s);
        let p = self.combine(op, lanes[0], s);
        let q = match lanes.get(1) {
            // Packed: the second predicate is the upper lane.
            Some(upper) => self.combine(op, *upper, s),
            None if dsts[1] == SINK => p,
            None => {
                let not = self.b.ins().bxor_imm_u(lanes[0], 1);
                self.combine(op, not, s)
            }
        };
        self.def(dsts[0], p, false);
        self.def(dsts[1], q, false);
    }

    #[allow(clippy::too_many_arguments)]
    pub fn set(
        &mut self,
        cmp: Cmp,
        ty: ScalarType,
        dst: ScalarType,
        ftz: bool,
        op: Option<BoolOp>,
        d: Reg,
        s: &[Val],
    ) {
        let lanes = self.compare(cmp, ty, ftz, s);
        let (bits, yes): (u32, u64) = match dst {
            ScalarType::F32 => (32, u64::from(1f32.to_bits())),
            ScalarType::F16 | ScalarType::F16x2 => (16, 0x3c00),
            ScalarType::Bf16 | ScalarType::Bf16x2 => (16, 0x3f80),
            _ if lanes.len() == 2 => (16, 0xffff),
            other => (other.bits(), u64::MAX),
        };
        let t = int_type(bits / 8);
        let (yes, no) = (self.iconst(t, yes), self.iconst(t, 0));
        let mut values: Vec<Value> = lanes
            .into_iter()
            .map(|p| {
                let p = self.combine(op, p, s);
                self.select(p, yes, no)
            })
            .collect();
        let v = if values.len() == 2 { self.join(values[0], values[1]) } else { values.remove(0) };
        self.def(d, v, false);
    }

    pub fn slct(&mut self, ty: ScalarType, cond: ScalarType, ftz: bool, d: Reg, s: &[Val]) {
        let t = value_type(ty);
        let (a, b) = (self.read(s[0], t), self.read(s[1], t));
        let c = self.read(s[2], value_type(cond));
        let p = if cond == ScalarType::F32 {
            let c = if ftz { self.flush(c) } else { c };
            let zero = self.constant(types::F32, 0);
            self.b.ins().fcmp(FloatCC::GreaterThanOrEqual, c, zero)
        } else {
            self.icmp_imm(IntCC::SignedGreaterThanOrEqual, c, 0)
        };
        let v = self.select(p, a, b);
        self.def(d, v, false);
    }

    pub fn testp(&mut self, op: TestOp, ty: ScalarType, d: Reg, s: Val) {
        let t = int_type(ty.size() as u32);
        let bits = self.read(s, t);
        let (exponent, mantissa) = if ty == ScalarType::F64 {
            (0x7ffu64 << 52, (1u64 << 52) - 1)
        } else {
            (0xff << 23, (1 << 23) - 1)
        };
        let mask = self.iconst(t, exponent | mantissa);
        let magnitude = self.b.ins().band(bits, mask);
        let infinity = self.iconst(t, exponent);
        let smallest_normal = self.iconst(t, mantissa + 1);
        let p = match op {
            TestOp::Finite => self.below(magnitude, infinity),
            TestOp::Infinite => self.b.ins().icmp(IntCC::Equal, magnitude, infinity),
            TestOp::Number => self.b.ins().icmp(IntCC::UnsignedLessThanOrEqual, magnitude, infinity),
            TestOp::NotANumber => self.b.ins().icmp(IntCC::UnsignedGreaterThan, magnitude, infinity),
            TestOp::Normal => {
                let finite = self.below(magnitude, infinity);
                let large = self.b.ins().icmp(IntCC::UnsignedGreaterThanOrEqual, magnitude, smallest_normal);
                self.b.ins().band(finite, large)
            }
            TestOp::Subnormal => {
                let small = self.below(magnitude, smallest_normal);
                let nonzero = self.icmp_imm(IntCC::NotEqual, magnitude, 0);
                self.b.ins().band(small, nonzero)
            }
        };
        self.def(d, p, false);
    }
}
