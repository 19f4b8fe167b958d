//! 16-bit floating point: computed in f32 and rounded once, which is exact for everything but fma (f32 has more than twice the
//! digits plus two). Values are kept as their bits in 16-bit integers, pairs in 32-bit integers.

use cranelift_codegen::ir::{InstBuilder, Value, condcodes::IntCC, types};
use ptx::ScalarType;

use super::func::Gen;
use crate::ir::{FloatMode, FloatOp, Rnd};

/// The type of a packed type's lanes.
pub fn lane_type(ty: ScalarType) -> ScalarType {
    match ty {
        ScalarType::F16x2 => ScalarType::F16,
        ScalarType::Bf16x2 => ScalarType::Bf16,
        other => other,
    }
}

impl Gen<'_, '_> {
    /// Lane of a 32-bit pair.
    pub fn lane(&mut self, v: Value, lane: u32) -> Value {
        let v = if lane == 0 { v } else { self.b.ins().ushr_imm_u(v, 16) };
        self.b.ins().ireduce(types::I16, v)
    }

    pub fn join(&mut self, low: Value, high: Value) -> Value {
        let low = self.b.ins().uextend(types::I32, low);
        let high = self.b.ins().uextend(types::I32, high);
        let high = self.b.ins().ishl_imm_u(high, 16);
        self.b.ins().bor(low, high)
    }

    pub fn half_to_f32(&mut self, ty: ScalarType, v: Value) -> Value {
        let w = self.b.ins().uextend(types::I32, v);
        if ty == ScalarType::Bf16 {
            let bits = self.b.ins().ishl_imm_u(w, 16);
            return self.bitcast(types::F32, bits);
        }
        // Exponent and mantissa move to their place in f32; a multiplication by 2^112 corrects the bias, also of subnormals.
        let sign = self.b.ins().band_imm_u(w, 0x8000);
        let sign = self.b.ins().ishl_imm_u(sign, 16);
        let magnitude = self.b.ins().band_imm_u(w, 0x7fff);
        let magnitude = self.b.ins().ishl_imm_u(magnitude, 13);
        let small = self.bitcast(types::F32, magnitude);
        let scale = self.constant(types::F32, 0x7780_0000);
        let scaled = self.b.ins().fmul(small, scale);
        let scaled = self.bitcast(types::I32, scaled);
        let special = self.icmp_imm(IntCC::UnsignedGreaterThanOrEqual, magnitude, 0x7c00 << 13);
        let infinite = self.b.ins().bor_imm_u(magnitude, 0x7f80_0000);
        let bits = self.select(special, infinite, scaled);
        let bits = self.b.ins().bor(bits, sign);
        self.bitcast(types::F32, bits)
    }

    pub fn f32_to_half(&mut self, ty: ScalarType, v: Value, rnd: Rnd) -> Value {
        let bits = self.bitcast(types::I32, v);
        let magnitude = self.b.ins().band_imm_u(bits, 0x7fff_ffff);
        let nan = self.icmp_imm(IntCC::UnsignedGreaterThan, magnitude, 0x7f80_0000);
        let canonical = self.iconst(types::I32, 0x7fff);
        let result = match (ty, rnd) {
            (ScalarType::Bf16, Rnd::Near | Rnd::Zero) => {
                let rounded = if rnd == Rnd::Near {
                    let odd = self.b.ins().ushr_imm_u(bits, 16);
                    let odd = self.b.ins().band_imm_u(odd, 1);
                    let sum = self.b.ins().iadd(bits, odd);
                    self.add_imm(sum, 0x7fff)
                } else {
                    bits
                };
                let high = self.b.ins().ushr_imm_u(rounded, 16);
                self.select(nan, canonical, high)
            }
            (ScalarType::F16, Rnd::Near) => {
                let odd = self.b.ins().ushr_imm_u(magnitude, 13);
                let odd = self.b.ins().band_imm_u(odd, 1);
                // Rebias the exponent (15 - 127) and round to nearest even at bit 13.
                let normal = self.add_imm(magnitude, (15 - 127) * (1 << 23) + 0xfff);
                let normal = self.b.ins().iadd(normal, odd);
                let normal = self.b.ins().ushr_imm_u(normal, 13);
                // Below 2^-14: adding 0.5 aligns the value so that the addition itself rounds to multiples of 2^-24.
                let half = self.constant(types::F32, 0x3f00_0000);
                let positive = self.bitcast(types::F32, magnitude);
                let aligned = self.b.ins().fadd(positive, half);
                let aligned = self.bitcast(types::I32, aligned);
                let subnormal = self.add_imm(aligned, -0x3f00_0000);
                let is_subnormal = self.icmp_imm(IntCC::UnsignedLessThan, magnitude, 0x3880_0000);
                let finite = self.select(is_subnormal, subnormal, normal);
                let infinity = self.iconst(types::I32, 0x7c00);
                let large = self.icmp_imm(IntCC::UnsignedGreaterThanOrEqual, magnitude, 0x4780_0000);
                let value = self.select(large, infinity, finite);
                let sign = self.b.ins().ushr_imm_u(bits, 16);
                let sign = self.b.ins().band_imm_u(sign, 0x8000);
                let value = self.b.ins().bor(value, sign);
                self.select(nan, canonical, value)
            }
            _ => {
                let mode = self.iconst(types::I32, rnd as u64);
                let name = if ty == ScalarType::Bf16 { "rt_f32_to_bf16" } else { "rt_f32_to_f16" };
                let v = self.helper(name, &[v, mode]);
                self.select(nan, canonical, v)
            }
        };
        self.b.ins().ireduce(types::I16, result)
    }

    /// Subnormals to zero of the same sign.
    pub fn flush_half(&mut self, ty: ScalarType, v: Value) -> Value {
        let exponent = if ty == ScalarType::Bf16 { 0x7f80 } else { 0x7c00 };
        let exponent = self.b.ins().band_imm_u(v, exponent);
        let zero = self.icmp_imm(IntCC::Equal, exponent, 0);
        let sign = self.b.ins().band_imm_u(v, 0x8000);
        self.select(zero, sign, v)
    }

    /// A 16-bit operand as f32.
    pub fn half_input(&mut self, ty: ScalarType, v: Value, ftz: bool) -> Value {
        let v = if ftz { self.flush_half(ty, v) } else { v };
        self.half_to_f32(ty, v)
    }

    /// An operation on 16-bit values.
    pub fn half_op(&mut self, op: FloatOp, ty: ScalarType, mode: FloatMode, values: &[Value]) -> Value {
        let flushed: Vec<Value> =
            values.iter().map(|v| if mode.ftz { self.flush_half(ty, *v) } else { *v }).collect();
        let result = match op {
            FloatOp::Neg => self.b.ins().bxor_imm_u(flushed[0], 0x8000),
            FloatOp::Abs => self.b.ins().band_imm_u(flushed[0], 0x7fff),
            FloatOp::Fma => {
                let args: Vec<Value> = flushed.iter().map(|v| self.b.ins().uextend(types::I32, *v)).collect();
                let name = if ty == ScalarType::Bf16 { "rt_fma_bf16" } else { "rt_fma_f16" };
                let v = self.helper(name, &args);
                let v = self.b.ins().ireduce(types::I16, v);
                self.canonical_half(ty, v)
            }
            _ => {
                let args: Vec<Value> = flushed.iter().map(|v| self.half_to_f32(ty, *v)).collect();
                let v = self.float_values(op, ScalarType::F32, FloatMode::PLAIN, &args);
                self.f32_to_half(ty, v, Rnd::Near)
            }
        };
        let result = if mode.ftz { self.flush_half(ty, result) } else { result };
        if !mode.sat && !mode.relu {
            return result;
        }
        let wide = self.half_to_f32(ty, result);
        let wide = if mode.sat { self.saturate(wide) } else { self.relu(wide) };
        self.f32_to_half(ty, wide, Rnd::Near)
    }

    fn canonical_half(&mut self, ty: ScalarType, v: Value) -> Value {
        let infinity = if ty == ScalarType::Bf16 { 0x7f80 } else { 0x7c00 };
        let magnitude = self.b.ins().band_imm_u(v, 0x7fff);
        let nan = self.icmp_imm(IntCC::UnsignedGreaterThan, magnitude, infinity);
        let canonical = self.iconst(types::I16, 0x7fff);
        self.select(nan, canonical, v)
    }
}
