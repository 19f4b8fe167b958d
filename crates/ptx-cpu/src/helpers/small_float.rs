//! f16 and bf16: conversions with every rounding mode, and fused multiply-add. All results are correctly rounded.

use half::{bf16, f16};

/// A 16-bit format: explicit mantissa bits, exponents of the smallest and largest normal number.
struct Format {
    mantissa: u32,
    min_exponent: i32,
    max_exponent: i32,
}

const F16: Format = Format { mantissa: 10, min_exponent: -14, max_exponent: 15 };
const BF16: Format = Format { mantissa: 7, min_exponent: -126, max_exponent: 127 };
/// What PTX instructions give for a NaN.
const CANONICAL_NAN: u32 = 0x7fff;

impl Format {
    /// Rounds by mode 0 rn, 1 rz, 2 rm, 3 rp.
    fn round(&self, value: f64, mode: u32) -> u32 {
        if value.is_nan() {
            return CANONICAL_NAN;
        }
        let negative = value.is_sign_negative();
        let sign = u32::from(negative) << 15;
        let infinity = ((self.max_exponent - self.min_exponent + 2) as u32) << self.mantissa;
        if value.is_infinite() {
            return sign | infinity;
        }
        let bits = value.to_bits();
        let biased = (bits >> 52 & 0x7ff) as i32;
        let fraction = bits & ((1 << 52) - 1);
        // value = significand * 2^(exponent - 52)
        let (significand, exponent) =
            if biased == 0 { (fraction, -1022) } else { (fraction | 1 << 52, biased - 1023) };
        let mut target = exponent.max(self.min_exponent);
        // Beyond 63 nothing changes: the significand has 53 bits.
        let shift = ((52 - self.mantissa as i32) + (target - exponent)).min(63) as u32;
        let (mut kept, rest) = (significand >> shift, significand & ((1 << shift) - 1));
        let half = 1u64 << (shift - 1);
        let up = match mode {
            1 => false,
            2 => negative && rest != 0,
            3 => !negative && rest != 0,
            _ => rest > half || (rest == half && kept & 1 != 0),
        };
        kept += u64::from(up);
        if kept >> (self.mantissa + 1) != 0 {
            kept >>= 1;
            target += 1;
        }
        if target > self.max_exponent {
            let to_infinity = match mode {
                1 => false,
                2 => negative,
                3 => !negative,
                _ => true,
            };
            return sign | if to_infinity { infinity } else { infinity - 1 };
        }
        // The implicit bit of a normal number adds one to the exponent field; a subnormal number has none and the field 0.
        let field = (target - self.min_exponent) as u32;
        sign | ((field << self.mantissa) + kept as u32)
    }
}

/// `a + b` rounded to odd: rounding the result once more, to less than 51 bits, gives what rounding the exact sum gives.
fn add_to_odd(a: f64, b: f64) -> f64 {
    let sum = a + b;
    if !sum.is_finite() {
        return sum;
    }
    let b_part = sum - a;
    let error = (a - (sum - b_part)) + (b - b_part);
    if error == 0.0 || sum.to_bits() & 1 != 0 {
        return sum;
    }
    let away = (error > 0.0) == (sum > 0.0);
    f64::from_bits(if away { sum.to_bits() + 1 } else { sum.to_bits() - 1 })
}

pub extern "C" fn rt_f16_to_f32(bits: u32) -> f32 {
    f16::from_bits(bits as u16).to_f32()
}

pub extern "C" fn rt_bf16_to_f32(bits: u32) -> f32 {
    bf16::from_bits(bits as u16).to_f32()
}

pub extern "C" fn rt_f32_to_f16(value: f32, mode: u32) -> u32 {
    F16.round(value.into(), mode)
}

pub extern "C" fn rt_f32_to_bf16(value: f32, mode: u32) -> u32 {
    BF16.round(value.into(), mode)
}

pub extern "C" fn rt_f64_to_f16(value: f64, mode: u32) -> u32 {
    F16.round(value, mode)
}

pub extern "C" fn rt_fma_f16(a: u32, b: u32, c: u32) -> u32 {
    let [a, b, c] = [a, b, c].map(|bits| f16::from_bits(bits as u16).to_f64());
    F16.round(add_to_odd(a * b, c), 0)
}

pub extern "C" fn rt_fma_bf16(a: u32, b: u32, c: u32) -> u32 {
    let [a, b, c] = [a, b, c].map(|bits| bf16::from_bits(bits as u16).to_f64());
    BF16.round(add_to_odd(a * b, c), 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn every_f16_and_bf16_survives_the_way_there_and_back() {
        for bits in 0..=0xffffu32 {
            for mode in 0..4 {
                if !f16::from_bits(bits as u16).is_nan() {
                    assert_eq!(rt_f32_to_f16(rt_f16_to_f32(bits), mode), bits);
                    assert_eq!(rt_f64_to_f16(rt_f16_to_f32(bits).into(), mode), bits);
                }
                if !bf16::from_bits(bits as u16).is_nan() {
                    assert_eq!(rt_f32_to_bf16(rt_bf16_to_f32(bits), mode), bits);
                }
            }
        }
        assert_eq!(rt_f32_to_f16(f32::NAN, 0), 0x7fff);
        assert_eq!(rt_f32_to_f16(1e9, 1), 0x7bff);
        assert_eq!(rt_f32_to_f16(1e9, 0), 0x7c00);
        assert_eq!(rt_f32_to_f16(-1e9, 3), 0xfbff);
        assert_eq!(rt_f32_to_f16(1e-30, 3), 1);
        assert_eq!(rt_f32_to_f16(-1e-30, 0), 0x8000);
        assert_eq!(rt_f64_to_f16(5e-324, 3), 1);
    }

    #[test]
    fn a_tie_that_a_tiny_addend_breaks() {
        // (1 + 2^-4)^2 = 1 + 2^-3 + 2^-8 lies half-way between two bf16; 2^-120 more must round up, less down. In two roundings,
        // with f64 in between, both would go to even.
        let bits = |value: f64| u32::from(bf16::from_f64(value).to_bits());
        let factor = bits(1.0 + 1.0 / 16.0);
        let (below, above) = (1.125, 1.125 + 1.0 / 128.0);
        let tiny = 2f64.powi(-120);
        assert_eq!(rt_fma_bf16(factor, factor, bits(0.0)), bits(below));
        assert_eq!(rt_fma_bf16(factor, factor, bits(tiny)), bits(above));
        assert_eq!(rt_fma_bf16(factor, factor, bits(-tiny)), bits(below));
    }

    proptest! {
        #[test]
        fn nearest_agrees_with_the_reference(bits in any::<u32>(), wide in any::<u64>()) {
            let value = f32::from_bits(bits);
            if !value.is_nan() {
                prop_assert_eq!(rt_f32_to_f16(value, 0), u32::from(f16::from_f32(value).to_bits()));
                prop_assert_eq!(rt_f32_to_bf16(value, 0), u32::from(bf16::from_f32(value).to_bits()));
                let range = |mode| f64::from(rt_f16_to_f32(rt_f32_to_f16(value, mode)));
                let value = f64::from(value);
                prop_assert!(range(2) <= value && value <= range(3));
                prop_assert_eq!(range(1), if value < 0.0 { range(3) } else { range(2) });
            }
            // Exponents near those of f16, so that most cases are not zero or infinite. The reference does not look at the low half of a
            // double: it stays zero.
            let wide = wide & !0xffff_ffff;
            let value = f64::from_bits(wide & 0x800f_ffff_ffff_ffff | (996 + (wide >> 52 & 63)) << 52);
            prop_assert_eq!(rt_f64_to_f16(value, 0), u32::from(f16::from_f64(value).to_bits()));
        }

        #[test]
        fn fma_f16_is_exact(a in any::<u16>(), b in any::<u16>(), c in any::<u16>()) {
            let [x, y, z] = [a, b, c].map(f16::from_bits);
            prop_assume!(x.is_finite() && y.is_finite() && z.is_finite());
            // In units of 2^-48 everything is an integer.
            let unit = |value: f64, exponent: i32| (value * 2f64.powi(exponent)) as i128;
            let exact = unit(x.to_f64(), 24) * unit(y.to_f64(), 24) + (unit(z.to_f64(), 24) << 24);
            let result = f16::from_bits(rt_fma_f16(a.into(), b.into(), c.into()) as u16);
            if result.is_finite() {
                let got = unit(result.to_f64(), 24) << 24;
                let error = (got - exact).abs();
                for neighbour in [result.to_bits().wrapping_add(1), result.to_bits().wrapping_sub(1)] {
                    let neighbour = f16::from_bits(neighbour);
                    if neighbour.is_finite() {
                        prop_assert!(((unit(neighbour.to_f64(), 24) << 24) - exact).abs() >= error);
                    }
                }
            } else {
                prop_assert!(exact.abs() >= (65520i128) << 48);
            }
        }
    }
}
