//! Arithmetic that generated code does not do itself. No state, nothing to drop: may be abandoned at any instruction.
//!
//! Directed rounding is done by the processor under a changed MXCSR, within one assembly block, so that no other floating-point
//! operation can see the change.

use core::arch::asm;
use std::sync::LazyLock;

/// MXCSR for PTX's modes 0 rn, 1 rz, 2 rm, 3 rp: all exceptions masked, no flushing.
fn control(mode: u32) -> u32 {
    const ROUND_DOWN: u32 = 1 << 13;
    const ROUND_UP: u32 = 2 << 13;
    let rounding = match mode {
        1 => ROUND_DOWN | ROUND_UP,
        2 => ROUND_DOWN,
        3 => ROUND_UP,
        _ => 0,
    };
    0x1f80 | rounding
}

macro_rules! unary {
    ($($name:ident: $type:ty = $function:path;)*) => {$(
        pub extern "C" fn $name(value: $type) -> $type {
            $function(value)
        }
    )*};
}

unary! {
    rt_sin_f32: f32 = f32::sin;
    rt_cos_f32: f32 = f32::cos;
    rt_tanh_f32: f32 = f32::tanh;
    rt_ex2_f32: f32 = f32::exp2;
    rt_lg2_f32: f32 = f32::log2;
    rt_ex2_f64: f64 = f64::exp2;
    rt_lg2_f64: f64 = f64::log2;
}

pub extern "C" fn rt_fma_f32(a: f32, b: f32, c: f32) -> f32 {
    a.mul_add(b, c)
}

pub extern "C" fn rt_fma_f64(a: f64, b: f64, c: f64) -> f64 {
    a.mul_add(b, c)
}

/// `first = instruction(first, second)` under the mode's MXCSR.
macro_rules! directed {
    ($instruction:literal, $mode:expr, $first:expr, $second:expr) => {{
        let (new, mut old) = (control($mode), 0u32);
        let mut result = $first;
        // SAFETY: MXCSR is changed for one instruction and put back; memory operands are locals.
        unsafe {
            asm!(
                "stmxcsr [{old}]", "ldmxcsr [{new}]",
                concat!($instruction, " {result}, {second}"),
                "ldmxcsr [{old}]",
                old = in(reg) &raw mut old, new = in(reg) &raw const new,
                result = inout(xmm_reg) result, second = in(xmm_reg) $second,
                options(nostack)
            );
        }
        result
    }};
}

macro_rules! binary_mode {
    ($($name:ident: $type:ty = $instruction:literal;)*) => {$(
        pub extern "C" fn $name(a: $type, b: $type, mode: u32) -> $type {
            directed!($instruction, mode, a, b)
        }
    )*};
}

binary_mode! {
    rt_add_f32_mode: f32 = "addss";
    rt_mul_f32_mode: f32 = "mulss";
    rt_div_f32_mode: f32 = "divss";
    rt_add_f64_mode: f64 = "addsd";
    rt_mul_f64_mode: f64 = "mulsd";
    rt_div_f64_mode: f64 = "divsd";
}

pub extern "C" fn rt_sqrt_f32_mode(value: f32, mode: u32) -> f32 {
    directed!("sqrtss", mode, value, value)
}

pub extern "C" fn rt_sqrt_f64_mode(value: f64, mode: u32) -> f64 {
    directed!("sqrtsd", mode, value, value)
}

pub extern "C" fn rt_cvt_f64_f32_mode(value: f64, mode: u32) -> f32 {
    directed!("cvtsd2ss", mode, 0f32, value)
}

static HAS_FMA: LazyLock<bool> = LazyLock::new(|| std::arch::is_x86_feature_detected!("fma"));

macro_rules! fma_mode {
    ($($name:ident: $type:ty = $instruction:literal;)*) => {$(
        pub extern "C" fn $name(a: $type, b: $type, c: $type, mode: u32) -> $type {
            let (new, mut old) = (control(mode), 0u32);
            if !*HAS_FMA {
                // The C library's fma obeys the rounding mode. It is an opaque call, so it stays between the two changes.
                // SAFETY: MXCSR is put back after the call.
                unsafe {
                    asm!("stmxcsr [{}]", "ldmxcsr [{}]", in(reg) &raw mut old, in(reg) &raw const new, options(nostack));
                    let result = a.mul_add(b, c);
                    asm!("ldmxcsr [{}]", in(reg) &raw const old, options(nostack));
                    return result;
                }
            }
            let mut result = a;
            // SAFETY: the instruction exists (checked above); MXCSR is changed for it alone; memory operands are locals.
            unsafe {
                asm!(
                    "stmxcsr [{old}]", "ldmxcsr [{new}]",
                    concat!($instruction, " {result}, {b}, {c}"),
                    "ldmxcsr [{old}]",
                    old = in(reg) &raw mut old, new = in(reg) &raw const new,
                    result = inout(xmm_reg) result, b = in(xmm_reg) b, c = in(xmm_reg) c,
                    options(nostack)
                );
            }
            result
        }
    )*};
}

fma_mode! {
    rt_fma_f32_mode: f32 = "vfmadd213ss";
    rt_fma_f64_mode: f64 = "vfmadd213sd";
}

/// The magnitude and sign of a 64-bit integer argument.
fn magnitude(value: u64, signed: u32) -> (u64, bool) {
    let negative = signed != 0 && (value as i64) < 0;
    (if negative { value.wrapping_neg() } else { value }, negative)
}

/// Rounds to `precision` significant bits: a multiple of a power of two that a float of that precision holds exactly, as u128 because
/// rounding up may carry into bit 64.
fn round_magnitude(magnitude: u64, negative: bool, precision: u32, mode: u32) -> u128 {
    let bits = 64 - magnitude.leading_zeros();
    if bits <= precision {
        return magnitude.into();
    }
    let shift = bits - precision;
    let (kept, rest, half) = (magnitude >> shift, magnitude & ((1 << shift) - 1), 1u64 << (shift - 1));
    let up = match mode {
        1 => false,
        2 => negative && rest != 0,
        3 => !negative && rest != 0,
        _ => rest > half || (rest == half && kept & 1 != 0),
    };
    u128::from(kept + u64::from(up)) << shift
}

pub extern "C" fn rt_cvt_int_f32_mode(value: u64, signed: u32, mode: u32) -> f32 {
    let (magnitude, negative) = magnitude(value, signed);
    let result = round_magnitude(magnitude, negative, 24, mode) as f32;
    if negative { -result } else { result }
}

pub extern "C" fn rt_cvt_int_f64_mode(value: u64, signed: u32, mode: u32) -> f64 {
    let (magnitude, negative) = magnitude(value, signed);
    let result = round_magnitude(magnitude, negative, 53, mode) as f64;
    if negative { -result } else { result }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Checks f32 results of the four modes against the exact value's position, given as a comparison with an f64 or better.
    fn check_modes(results: [f32; 4], exact: f64, exact_is_exact: bool) {
        let [nearest, zero, down, up] = results.map(f64::from);
        if !exact_is_exact || exact.is_nan() {
            return;
        }
        assert!(down <= exact && exact <= up, "{down} {exact} {up}");
        assert_eq!(zero, if exact < 0.0 { up } else { down });
        assert!(nearest == down || nearest == up);
        if down != up {
            assert_eq!(f32::from_bits((down as f32).to_bits()), down as f32);
            let (below, above) = (exact - down, up - exact);
            if up.is_finite() && down.is_finite() && below != above {
                assert_eq!(nearest, if below < above { down } else { up });
            }
        }
    }

    fn modes(function: impl Fn(u32) -> f32) -> [f32; 4] {
        [0, 1, 2, 3].map(function)
    }

    proptest! {
        #[test]
        fn directed_f32(a in -1e15f32..1e15, b in -1e15f32..1e15) {
            // Products of f32 are exact in f64.
            check_modes(modes(|mode| rt_mul_f32_mode(a, b, mode)), f64::from(a) * f64::from(b), true);
            prop_assert_eq!(rt_add_f32_mode(a, b, 0), a + b);
            prop_assert_eq!(rt_div_f32_mode(a, b, 0).to_bits(), (a / b).to_bits());
            prop_assert_eq!(rt_mul_f32_mode(a, b, 0), a * b);
            prop_assert_eq!(rt_sqrt_f32_mode(a.abs(), 0), a.abs().sqrt());
            prop_assert_eq!(rt_fma_f32_mode(a, b, 1.0, 0), a.mul_add(b, 1.0));
            prop_assert_eq!(rt_fma_f64_mode(a.into(), b.into(), 1.0, 0), f64::from(a).mul_add(b.into(), 1.0));
            prop_assert_eq!(rt_fma_f32(a, b, 1.0), a.mul_add(b, 1.0));
            for (low, high) in [
                (rt_div_f32_mode(a, b, 2), rt_div_f32_mode(a, b, 3)),
                (rt_add_f32_mode(a, b, 2), rt_add_f32_mode(a, b, 3)),
                (rt_sqrt_f32_mode(a.abs(), 2), rt_sqrt_f32_mode(a.abs(), 3)),
                (rt_fma_f32_mode(a, b, 3.3, 2), rt_fma_f32_mode(a, b, 3.3, 3)),
            ] {
                prop_assert!(low == high || low.next_up() == high, "{} {}", low, high);
            }
        }

        #[test]
        fn conversions(value in any::<f64>(), integer in any::<u64>(), shift in 0u32..64) {
            check_modes(modes(|mode| rt_cvt_f64_f32_mode(value, mode)), value, true);
            prop_assert_eq!(rt_cvt_f64_f32_mode(value, 0).to_bits() & !0x7f_ffff, (value as f32).to_bits() & !0x7f_ffff);
            let integer = integer >> shift;
            prop_assert_eq!(rt_cvt_int_f32_mode(integer, 0, 0), integer as f32);
            prop_assert_eq!(rt_cvt_int_f32_mode(integer, 1, 0), integer as i64 as f32);
            prop_assert_eq!(rt_cvt_int_f64_mode(integer, 0, 0), integer as f64);
            prop_assert_eq!(rt_cvt_int_f64_mode(integer, 1, 0), integer as i64 as f64);
            for signed in [0, 1] {
                let exact = if signed == 1 { i128::from(integer as i64) } else { i128::from(integer) };
                let [_, zero, down, up] = [0, 1, 2, 3].map(|mode| rt_cvt_int_f32_mode(integer, signed, mode));
                prop_assert!(down as i128 <= exact && exact <= up as i128);
                prop_assert_eq!(zero, if exact < 0 { up } else { down });
                prop_assert!(down == up || down.next_up() == up);
                let [_, zero, down, up] = [0, 1, 2, 3].map(|mode| rt_cvt_int_f64_mode(integer, signed, mode));
                prop_assert!(down as i128 <= exact && exact <= up as i128);
                prop_assert_eq!(zero, if exact < 0 { up } else { down });
                prop_assert!(down == up || down.next_up() == up);
            }
        }
    }

    #[test]
    fn known_values() {
        assert_eq!(rt_div_f32_mode(1.0, 3.0, 2), 0.333_333_3);
        assert_eq!(rt_div_f32_mode(1.0, 3.0, 3), 0.333_333_34);
        assert_eq!(rt_div_f64_mode(-1.0, 3.0, 1), -1.0 / 3.0);
        assert_eq!(rt_div_f64_mode(-1.0, 3.0, 2), (-1.0f64 / 3.0).next_down());
        assert_eq!(rt_add_f64_mode(1.0, 1e-300, 3), 1.0f64.next_up());
        assert_eq!(rt_mul_f64_mode(f64::MAX, 2.0, 1), f64::MAX);
        assert_eq!(rt_mul_f64_mode(f64::MAX, 2.0, 3), f64::INFINITY);
        assert_eq!(rt_sqrt_f64_mode(2.0, 3), 2.0f64.sqrt());
        assert_eq!(rt_fma_f64_mode(1.0, 1.0, 1e-300, 3), 1.0f64.next_up());
        assert_eq!(rt_cvt_int_f32_mode(u64::MAX, 0, 3), 18_446_744_073_709_551_616.0);
        assert_eq!(rt_cvt_int_f64_mode(i64::MIN as u64, 1, 2), -9_223_372_036_854_775_808.0);
        // The mode is gone afterwards.
        assert_eq!(std::hint::black_box(1.0f32) / std::hint::black_box(3.0), 0.333_333_34);
        assert_eq!(rt_ex2_f32(3.0), 8.0);
        assert_eq!(rt_lg2_f64(8.0), 3.0);
        assert_eq!(rt_sin_f32(0.0), 0.0);
        assert_eq!(rt_cos_f32(0.0), 1.0);
    }
}
