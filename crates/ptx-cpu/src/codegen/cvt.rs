//! Conversions.

use cranelift_codegen::ir::{
    InstBuilder, Value,
    condcodes::{FloatCC, IntCC},
    types,
};
use ptx::ScalarType;

use super::func::Gen;
use super::half::lane_type;
use super::value::{int_type, value_type};
use crate::ir::{CvtRnd, Rnd, Val};

impl Gen<'_, '_> {
    /// The result in [`value_type`] of `dst`.
    #[allow(clippy::too_many_arguments)]
    pub fn cvt(
        &mut self,
        dst: ScalarType,
        src: ScalarType,
        rnd: CvtRnd,
        ftz: bool,
        sat: bool,
        relu: bool,
        s: Val,
    ) -> Value {
        let v = self.read(s, value_type(src));
        match (src.is_float(), dst.is_float()) {
            (false, false) => self.int_to_int(dst, src, sat, v),
            (false, true) => self.int_to_float(dst, src, rnd, sat, v),
            (true, false) => self.float_to_int(dst, src, rnd, ftz, v),
            (true, true) => self.float_to_float(dst, src, rnd, ftz, sat, relu, v),
        }
    }

    fn int_to_int(&mut self, dst: ScalarType, src: ScalarType, sat: bool, v: Value) -> Value {
        let to = value_type(dst);
        if !sat {
            return self.coerce(v, to, src.is_signed());
        }
        // Clamp in 64 bits: only u64 does not fit there as a signed number, and it has no lower bound to respect.
        let v = self.coerce(v, types::I64, src.is_signed());
        let bits = dst.bits();
        let (low, high) = if dst.is_signed() {
            (i64::MIN >> (64 - bits), i64::MAX >> (64 - bits))
        } else {
            (0, (u64::MAX >> (64 - bits)) as i64)
        };
        let v = if src.is_signed() {
            let low = self.iconst(types::I64, low as u64);
            let v = self.min_max(v, low, true, false);
            if high == -1 {
                v
            } else {
                let high = self.iconst(types::I64, high as u64);
                self.min_max(v, high, true, true)
            }
        } else {
            let high = self.iconst(types::I64, high as u64);
            self.min_max(v, high, false, true)
        };
        self.coerce(v, to, false)
    }

    fn int_to_float(&mut self, dst: ScalarType, src: ScalarType, rnd: CvtRnd, sat: bool, v: Value) -> Value {
        let signed = src.is_signed();
        let rnd = if let CvtRnd::Float(r) = rnd { r } else { Rnd::Near };
        let t = if dst == ScalarType::F64 { types::F64 } else { types::F32 };
        let small = src.size() < 4;
        let v = if small { self.coerce(v, types::I32, signed) } else { v };
        let f = if dst == ScalarType::Bf16 && src.size() == 4 {
            // f32 cannot hold every 32-bit number, and rounding twice is wrong: round to odd first.
            self.int_to_f32_odd(v, signed)
        } else if rnd == Rnd::Near || small {
            if signed { self.b.ins().fcvt_from_sint(t, v) } else { self.b.ins().fcvt_from_uint(t, v) }
        } else {
            let wide = self.coerce(v, types::I64, signed);
            let signed = self.iconst(types::I32, u64::from(signed));
            let mode = self.iconst(types::I32, rnd as u64);
            let name = if t == types::F32 { "rt_cvt_int_f32_mode" } else { "rt_cvt_int_f64_mode" };
            self.helper(name, &[wide, signed, mode])
        };
        let f = if sat { self.saturate(f) } else { f };
        match dst {
            ScalarType::F16 | ScalarType::Bf16 => self.f32_to_half(dst, f, rnd),
            _ => f,
        }
    }

    /// Truncated to f32, with the last digit set if anything was lost.
    fn int_to_f32_odd(&mut self, v: Value, signed: bool) -> Value {
        let exact = if signed {
            self.b.ins().fcvt_from_sint(types::F64, v)
        } else {
            self.b.ins().fcvt_from_uint(types::F64, v)
        };
        let bits = self.bitcast(types::I64, exact);
        // 29 digits do not fit f32: replace them by one that says whether any is set.
        let lost = self.b.ins().band_imm_u(bits, (1 << 29) - 1);
        let any = self.icmp_imm(IntCC::NotEqual, lost, 0);
        let any = self.b.ins().uextend(types::I64, any);
        let any = self.b.ins().ishl_imm_u(any, 29);
        let mask = self.iconst(types::I64, !((1 << 29) - 1));
        let kept = self.b.ins().band(bits, mask);
        let odd = self.b.ins().bor(kept, any);
        let odd = self.bitcast(types::F64, odd);
        self.b.ins().fdemote(types::F32, odd)
    }

    fn round(&mut self, v: Value, rnd: Rnd) -> Value {
        match rnd {
            Rnd::Near => self.b.ins().nearest(v),
            Rnd::Zero => self.b.ins().trunc(v),
            Rnd::Down => self.b.ins().floor(v),
            Rnd::Up => self.b.ins().ceil(v),
        }
    }

    fn float_to_int(&mut self, dst: ScalarType, src: ScalarType, rnd: CvtRnd, ftz: bool, v: Value) -> Value {
        let v = match src {
            ScalarType::F16 | ScalarType::Bf16 => self.half_input(src, v, ftz),
            _ if ftz => self.flush(v),
            _ => v,
        };
        let rnd = if let CvtRnd::Int(r) = rnd { r } else { Rnd::Zero };
        // The conversion itself truncates.
        let v = if rnd == Rnd::Zero { v } else { self.round(v, rnd) };
        let t = if dst.size() == 8 { types::I64 } else { types::I32 };
        let signed = dst.is_signed();
        let mut r = if signed || dst.size() < 4 {
            self.b.ins().fcvt_to_sint_sat(t, v)
        } else {
            self.b.ins().fcvt_to_uint_sat(t, v)
        };
        if dst.size() < 4 {
            let bits = dst.bits();
            let (low, high) =
                if signed { (-(1i64 << (bits - 1)), (1 << (bits - 1)) - 1) } else { (0, (1 << bits) - 1) };
            let low = self.iconst(types::I32, low as u64);
            let high = self.iconst(types::I32, high as u64);
            r = self.min_max(r, low, true, false);
            r = self.min_max(r, high, true, true);
        }
        // NaN is 0 for small types, but the top bit alone where f64 or 64-bit integers take part.
        if src == ScalarType::F64 || dst.size() == 8 {
            let nan = self.b.ins().fcmp(FloatCC::Unordered, v, v);
            let top = self.iconst(t, 1 << (dst.bits() - 1));
            r = self.select(nan, top, r);
        }
        self.coerce(r, int_type(dst.size() as u32), false)
    }

    #[allow(clippy::too_many_arguments)]
    fn float_to_float(
        &mut self,
        dst: ScalarType,
        src: ScalarType,
        rnd: CvtRnd,
        ftz: bool,
        sat: bool,
        relu: bool,
        v: Value,
    ) -> Value {
        if dst == ScalarType::Tf32 {
            return self.round_tf32(rnd, relu, v);
        }
        let half = |t| matches!(t, ScalarType::F16 | ScalarType::Bf16);
        let mode = if let CvtRnd::Float(r) = rnd { r } else { Rnd::Near };
        let mut v = match (src, dst) {
            (ScalarType::F64, ScalarType::F64) => v,
            (ScalarType::F64, ScalarType::F16) if rnd != CvtRnd::None => {
                let mode = self.iconst(types::I32, mode as u64);
                let r = self.helper("rt_f64_to_f16", &[v, mode]);
                let r = self.b.ins().ireduce(types::I16, r);
                // Clamping is exact in f32, whatever the width of the source.
                self.half_to_f32(dst, r)
            }
            (ScalarType::F64, _) => {
                if dst == ScalarType::F32 && mode != Rnd::Near {
                    let mode = self.iconst(types::I32, mode as u64);
                    self.helper("rt_cvt_f64_f32_mode", &[v, mode])
                } else if dst == ScalarType::Bf16 {
                    self.f64_to_f32_odd(v)
                } else {
                    self.b.ins().fdemote(types::F32, v)
                }
            }
            (src, _) if half(src) => self.half_input(src, v, ftz),
            _ if ftz => self.flush(v),
            _ => v,
        };
        if let CvtRnd::Int(r) = rnd {
            v = self.round(v, r);
        }
        if dst == ScalarType::F64 && self.type_of(v) == types::F32 {
            v = self.b.ins().fpromote(types::F64, v);
        }
        if ftz && dst == ScalarType::F32 && src == ScalarType::F64 {
            v = self.flush(v);
        }
        if sat {
            v = self.saturate(v);
        }
        if relu {
            v = self.relu(v);
        }
        if half(dst) { self.f32_to_half(dst, v, mode) } else { v }
    }

    /// As [`Self::int_to_f32_odd`], for bf16 from f64 (whose exponent range is f32's).
    fn f64_to_f32_odd(&mut self, v: Value) -> Value {
        let mode = self.iconst(types::I32, Rnd::Zero as u64);
        let cut = self.helper("rt_cvt_f64_f32_mode", &[v, mode]);
        let back = self.b.ins().fpromote(types::F64, cut);
        let lost = self.b.ins().fcmp(FloatCC::OrderedNotEqual, back, v);
        let lost = self.b.ins().uextend(types::I32, lost);
        let bits = self.bitcast(types::I32, cut);
        let odd = self.b.ins().bor(bits, lost);
        self.bitcast(types::F32, odd)
    }

    /// The low 13 digits of f32 rounded away.
    fn round_tf32(&mut self, rnd: CvtRnd, relu: bool, v: Value) -> Value {
        let v = if relu { self.relu(v) } else { v };
        let bits = self.bitcast(types::I32, v);
        let rounded = match rnd {
            CvtRnd::Float(Rnd::Near) => {
                let odd = self.b.ins().ushr_imm_u(bits, 13);
                let odd = self.b.ins().band_imm_u(odd, 1);
                let sum = self.b.ins().iadd(bits, odd);
                self.add_imm(sum, 0xfff)
            }
            CvtRnd::NearAway => self.add_imm(bits, 0x1000),
            _ => bits,
        };
        let rounded = self.b.ins().band_imm_u(rounded, 0xffff_e000);
        let magnitude = self.b.ins().band_imm_u(bits, 0x7fff_ffff);
        let special = self.icmp_imm(IntCC::UnsignedGreaterThanOrEqual, magnitude, 0x7f80_0000);
        let nan = self.icmp_imm(IntCC::UnsignedGreaterThan, magnitude, 0x7f80_0000);
        let canonical = self.iconst(types::I32, 0x7fff_ffff);
        let exceptional = self.select(nan, canonical, bits);
        self.select(special, exceptional, rounded)
    }

    /// `cvt.rn.f16x2.f32 d, a, b`: a in the upper half.
    pub fn cvt_pair(&mut self, dst: ScalarType, rnd: Rnd, relu: bool, a: Val, b: Val) -> Value {
        let mut halves = [a, b].map(|v| self.read(v, types::F32));
        for v in &mut halves {
            let x = if relu { self.relu(*v) } else { *v };
            *v = self.f32_to_half(lane_type(dst), x, rnd);
        }
        self.join(halves[1], halves[0])
    }

    /// `cvt.pack.sat.T.s32{.b32} d, a, b{, c}`: b in the lowest element, a above it, c shifted up.
    pub fn cvt_pack(&mut self, dst: ScalarType, with_c: bool, s: &[Val]) -> Value {
        let bits = dst.bits();
        let mut element = |v: Val| {
            let v = self.read(v, types::I32);
            let v = self.int_to_int(dst, ScalarType::S32, true, v);
            self.coerce(v, types::I32, false)
        };
        let (a, b) = (element(s[0]), element(s[1]));
        let a = self.b.ins().ishl_imm_u(a, i64::from(bits));
        let low = self.b.ins().bor(a, b);
        if !with_c || bits == 16 {
            return low;
        }
        let c = self.read(s[2], types::I32);
        let c = self.b.ins().ishl_imm_u(c, i64::from(bits) * 2);
        self.b.ins().bor(c, low)
    }
}
