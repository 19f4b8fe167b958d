//! Floating-point arithmetic.

use cranelift_codegen::ir::{
    InstBuilder, Type, Value,
    condcodes::{FloatCC, IntCC},
    types,
};
use ptx::ScalarType;

use super::func::Gen;
use super::half::lane_type;
use super::value::{int_type, value_type};
use crate::ir::{FloatMode, FloatOp, Rnd, Val};

impl Gen<'_, '_> {
    pub fn float_op(&mut self, op: FloatOp, ty: ScalarType, mode: FloatMode, s: &[Val]) -> Value {
        let values: Vec<Value> = s.iter().map(|v| self.read(*v, value_type(ty))).collect();
        self.float_values(op, ty, mode, &values)
    }

    /// An operation on values of [`value_type`].
    pub fn float_values(&mut self, op: FloatOp, ty: ScalarType, mode: FloatMode, values: &[Value]) -> Value {
        match ty {
            ScalarType::F32 | ScalarType::F64 => self.wide_op(op, mode, values),
            ScalarType::F32x2 => {
                let lanes = [0, 32].map(|shift| {
                    let parts: Vec<Value> = values
                        .iter()
                        .map(|v| {
                            let v = if shift == 0 { *v } else { self.b.ins().ushr_imm_u(*v, shift) };
                            self.coerce(v, types::F32, false)
                        })
                        .collect();
                    let v = self.wide_op(op, mode, &parts);
                    self.coerce(v, types::I64, false)
                });
                let high = self.b.ins().ishl_imm_u(lanes[1], 32);
                self.b.ins().bor(lanes[0], high)
            }
            ScalarType::F16x2 | ScalarType::Bf16x2 => {
                let mut lanes = [values[0]; 2];
                for (i, lane) in lanes.iter_mut().enumerate() {
                    let parts: Vec<Value> = values.iter().map(|v| self.lane(*v, i as u32)).collect();
                    *lane = self.half_op(op, lane_type(ty), mode, &parts);
                }
                self.join(lanes[0], lanes[1])
            }
            _ => self.half_op(op, ty, mode, values),
        }
    }

    fn wide_op(&mut self, op: FloatOp, mode: FloatMode, values: &[Value]) -> Value {
        let values: Vec<Value> = values.iter().map(|v| if mode.ftz { self.flush(*v) } else { *v }).collect();
        let t = self.type_of(values[0]);
        // `rcp.approx.ftz.f64` and `rsqrt.approx.ftz.f64` read and give only the upper 32 bits (1.11.20), and the Newton steps that compilers
        // put after them rely on it: with few bits in the start value its square is exact. No other double-precision form has `.ftz`.
        let gross = t == types::F64 && mode.ftz && matches!(op, FloatOp::Rcp | FloatOp::Rsqrt);
        let values: Vec<Value> =
            values.iter().map(|v| if gross { self.upper_half(*v) } else { *v }).collect();
        let v = if mode.rnd == Rnd::Near {
            self.nearest(op, t, &values)
        } else {
            self.directed(op, t, mode.rnd, &values)
        };
        let v = if gross { self.upper_half(v) } else { v };
        let v = if mode.ftz { self.flush(v) } else { v };
        let v = if mode.sat { self.saturate(v) } else { v };
        if mode.relu { self.relu(v) } else { v }
    }

    /// A double with its lower 32 bits cleared.
    fn upper_half(&mut self, v: Value) -> Value {
        let bits = self.bitcast(types::I64, v);
        let mask = self.iconst(types::I64, 0xffff_ffff_0000_0000);
        let upper = self.b.ins().band(bits, mask);
        self.bitcast(types::F64, upper)
    }

    fn nearest(&mut self, op: FloatOp, t: Type, v: &[Value]) -> Value {
        match op {
            FloatOp::Add => self.b.ins().fadd(v[0], v[1]),
            FloatOp::Sub => self.b.ins().fsub(v[0], v[1]),
            FloatOp::Mul => self.b.ins().fmul(v[0], v[1]),
            FloatOp::Fma if self.cx.fma => self.b.ins().fma(v[0], v[1], v[2]),
            FloatOp::Fma => {
                let name = if t == types::F32 { "rt_fma_f32" } else { "rt_fma_f64" };
                self.helper(name, &[v[0], v[1], v[2]])
            }
            FloatOp::Div => self.b.ins().fdiv(v[0], v[1]),
            FloatOp::Rcp => {
                let one = self.one(t);
                self.b.ins().fdiv(one, v[0])
            }
            FloatOp::Sqrt => self.b.ins().sqrt(v[0]),
            FloatOp::Rsqrt => {
                let root = self.b.ins().sqrt(v[0]);
                let one = self.one(t);
                self.b.ins().fdiv(one, root)
            }
            FloatOp::Sin => self.helper("rt_sin_f32", &[v[0]]),
            FloatOp::Cos => self.helper("rt_cos_f32", &[v[0]]),
            FloatOp::Lg2 => self.helper("rt_lg2_f32", &[v[0]]),
            FloatOp::Ex2 => self.helper("rt_ex2_f32", &[v[0]]),
            FloatOp::Tanh => self.helper("rt_tanh_f32", &[v[0]]),
            FloatOp::Abs => self.b.ins().fabs(v[0]),
            FloatOp::Neg => self.b.ins().fneg(v[0]),
            FloatOp::Min { nan, xorsign } => self.float_min_max(v[0], v[1], true, nan, xorsign),
            FloatOp::Max { nan, xorsign } => self.float_min_max(v[0], v[1], false, nan, xorsign),
            // PTX: the sign of the first with the magnitude of the second.
            FloatOp::CopySign => self.b.ins().fcopysign(v[1], v[0]),
        }
    }

    fn directed(&mut self, op: FloatOp, t: Type, rnd: Rnd, v: &[Value]) -> Value {
        let mode = self.iconst(types::I32, rnd as u64);
        let f32 = t == types::F32;
        let pick = |a: &'static str, b: &'static str| if f32 { a } else { b };
        match op {
            FloatOp::Add => self.helper(pick("rt_add_f32_mode", "rt_add_f64_mode"), &[v[0], v[1], mode]),
            FloatOp::Sub => {
                let minus = self.b.ins().fneg(v[1]);
                self.helper(pick("rt_add_f32_mode", "rt_add_f64_mode"), &[v[0], minus, mode])
            }
            FloatOp::Mul => self.helper(pick("rt_mul_f32_mode", "rt_mul_f64_mode"), &[v[0], v[1], mode]),
            FloatOp::Fma => {
                self.helper(pick("rt_fma_f32_mode", "rt_fma_f64_mode"), &[v[0], v[1], v[2], mode])
            }
            FloatOp::Div => self.helper(pick("rt_div_f32_mode", "rt_div_f64_mode"), &[v[0], v[1], mode]),
            FloatOp::Rcp => {
                let one = self.one(t);
                self.helper(pick("rt_div_f32_mode", "rt_div_f64_mode"), &[one, v[0], mode])
            }
            FloatOp::Sqrt => self.helper(pick("rt_sqrt_f32_mode", "rt_sqrt_f64_mode"), &[v[0], mode]),
            // The decoder gives no rounding mode to the others.
            _ => self.nearest(op, t, v),
        }
    }

    fn one(&mut self, t: Type) -> Value {
        self.constant(t, if t == types::F32 { u64::from(1f32.to_bits()) } else { 1f64.to_bits() })
    }

    /// Subnormals to zero of the same sign.
    pub fn flush(&mut self, v: Value) -> Value {
        let t = self.type_of(v);
        let int = int_type(t.bytes());
        let (exponent, sign) = if t == types::F32 { (0xff << 23, 1 << 31) } else { (0x7ff << 52, 1 << 63) };
        let bits = self.bitcast(int, v);
        let exponent = self.iconst(int, exponent);
        let sign = self.iconst(int, sign);
        let exponent = self.b.ins().band(bits, exponent);
        let zero = self.icmp_imm(IntCC::Equal, exponent, 0);
        let signed_zero = self.b.ins().band(bits, sign);
        let signed_zero = self.bitcast(t, signed_zero);
        self.select(zero, signed_zero, v)
    }

    /// Clamped to [0, 1]; NaN becomes 0.
    pub fn saturate(&mut self, v: Value) -> Value {
        let t = self.type_of(v);
        let (zero, one) = (self.constant(t, 0), self.one(t));
        let positive = self.b.ins().fcmp(FloatCC::GreaterThan, v, zero);
        let v = self.select(positive, v, zero);
        let below = self.b.ins().fcmp(FloatCC::LessThan, v, one);
        self.select(below, v, one)
    }

    /// Negative values become 0; NaN stays NaN.
    pub fn relu(&mut self, v: Value) -> Value {
        let t = self.type_of(v);
        let zero = self.constant(t, 0);
        let keep = self.b.ins().fcmp(FloatCC::UnorderedOrGreaterThan, v, zero);
        self.select(keep, v, zero)
    }

    pub fn canonical_nan(&mut self, t: Type) -> Value {
        self.constant(t, if t == types::F32 { 0x7fff_ffff } else { 0x7fff_ffff_ffff_ffff })
    }

    /// A NaN operand gives the other operand, or with `nan` a NaN. With `xorsign` magnitudes are compared, and the result's sign is
    /// the product of the signs.
    fn float_min_max(&mut self, a: Value, b: Value, min: bool, nan: bool, xorsign: bool) -> Value {
        let t = self.type_of(a);
        let (x, y) = if xorsign { (self.b.ins().fabs(a), self.b.ins().fabs(b)) } else { (a, b) };
        let r = if min { self.b.ins().fmin(x, y) } else { self.b.ins().fmax(x, y) };
        let x_nan = self.b.ins().fcmp(FloatCC::Unordered, x, x);
        let y_nan = self.b.ins().fcmp(FloatCC::Unordered, y, y);
        let canonical = self.canonical_nan(t);
        let r = if nan {
            let any = self.b.ins().bor(x_nan, y_nan);
            self.select(any, canonical, r)
        } else {
            let r = self.select(y_nan, x, r);
            let r = self.select(x_nan, y, r);
            let both = self.b.ins().band(x_nan, y_nan);
            self.select(both, canonical, r)
        };
        if !xorsign {
            return r;
        }
        let int = int_type(t.bytes());
        let (a, b, r) = (self.bitcast(int, a), self.bitcast(int, b), self.bitcast(int, r));
        let sign = self.b.ins().bxor(a, b);
        let mask = self.iconst(int, 1 << (t.bits() - 1));
        let sign = self.b.ins().band(sign, mask);
        let r = self.b.ins().bor(r, sign);
        self.bitcast(t, r)
    }
}
