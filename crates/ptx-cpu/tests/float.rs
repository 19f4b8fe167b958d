//! Floating-point instructions and conversions against Rust's arithmetic and the `half` crate.

mod common;

use common::table::{Case, Match, bits, case, check, mask, near};
use half::{bf16, f16};

fn f(v: u64) -> f32 {
    f32::from_bits(v as u32)
}

fn d(v: u64) -> f64 {
    f64::from_bits(v)
}

fn fb(v: f32) -> u64 {
    u64::from(v.to_bits())
}

fn flush(v: f32) -> f32 {
    if v.is_subnormal() { 0f32.copysign(v) } else { v }
}

fn sat(v: f32) -> f32 {
    if v.is_nan() { 0.0 } else { v.clamp(0.0, 1.0) + 0.0 }
}

/// IEEE 754-2019 minimumNumber: NaN gives the other, -0 is below +0.
fn min32(a: f32, b: f32) -> f32 {
    if a.is_nan() {
        b
    } else if b.is_nan() {
        a
    } else if a == b {
        if a.is_sign_negative() { a } else { b }
    } else if a < b {
        a
    } else {
        b
    }
}

fn max32(a: f32, b: f32) -> f32 {
    -min32(-a, -b)
}

fn bin32(text: &str, op: impl Fn(f32, f32) -> f32 + 'static) -> Case {
    case(&format!("{text} %d, %a, %b;"), "f32", &["f32", "f32"], move |v| fb(op(f(v[0]), f(v[1]))))
}

fn bin64(text: &str, op: impl Fn(f64, f64) -> f64 + 'static) -> Case {
    case(&format!("{text} %d, %a, %b;"), "f64", &["f64", "f64"], move |v| op(d(v[0]), d(v[1])).to_bits())
}

#[test]
fn single() {
    let un = |text: &str, op: fn(f32) -> f32| {
        case(&format!("{text} %d, %a;"), "f32", &["f32"], move |v| fb(op(f(v[0]))))
    };
    let mut cases = vec![
        bin32("add.f32", |a, b| a + b),
        bin32("add.rn.f32", |a, b| a + b),
        bin32("sub.f32", |a, b| a - b),
        bin32("mul.f32", |a, b| a * b),
        bin32("div.rn.f32", |a, b| a / b),
        bin32("add.ftz.f32", |a, b| flush(flush(a) + flush(b))),
        bin32("mul.rn.ftz.f32", |a, b| flush(flush(a) * flush(b))),
        bin32("add.sat.f32", |a, b| sat(a + b)),
        bin32("mul.ftz.sat.f32", |a, b| sat(flush(flush(a) * flush(b)))),
        bin32("min.f32", min32),
        bin32("max.f32", max32),
        bin32("min.ftz.f32", |a, b| min32(flush(a), flush(b))),
        bin32("min.NaN.f32", |a, b| if a.is_nan() || b.is_nan() { f32::NAN } else { min32(a, b) }),
        bin32("max.NaN.f32", |a, b| if a.is_nan() || b.is_nan() { f32::NAN } else { max32(a, b) }),
        bin32("max.xorsign.abs.f32", |a, b| {
            let m = max32(a.abs(), b.abs());
            if m.is_nan() {
                m
            } else {
                m.copysign(if a.is_sign_negative() != b.is_sign_negative() { -1.0 } else { 1.0 })
            }
        }),
        case("copysign.f32 %d, %a, %b;", "f32", &["f32", "f32"], |v| fb(f(v[1]).copysign(f(v[0])))),
        un("neg.f32", |a| -a),
        un("abs.f32", f32::abs),
        un("abs.ftz.f32", |a| flush(a).abs()),
        un("sqrt.rn.f32", f32::sqrt),
        un("rcp.rn.f32", |a| 1.0 / a),
        un("cvt.sat.f32.f32", sat),
        un("cvt.ftz.sat.f32.f32", |a| sat(flush(a))),
        un("cvt.rni.f32.f32", f32::round_ties_even),
        un("cvt.rzi.f32.f32", f32::trunc),
        un("cvt.rmi.f32.f32", f32::floor),
        un("cvt.rpi.f32.f32", f32::ceil),
        case("fma.rn.f32 %d, %a, %b, %c;", "f32", &["f32"; 3], |v| fb(f(v[0]).mul_add(f(v[1]), f(v[2])))),
        case("mad.rn.f32 %d, %a, %b, %c;", "f32", &["f32"; 3], |v| fb(f(v[0]).mul_add(f(v[1]), f(v[2])))),
        case("fma.rn.ftz.f32 %d, %a, %b, %c;", "f32", &["f32"; 3], |v| {
            fb(flush(flush(f(v[0])).mul_add(flush(f(v[1])), flush(f(v[2])))))
        }),
        case("fma.rn.sat.f32 %d, %a, %b, %c;", "f32", &["f32"; 3], |v| {
            fb(sat(f(v[0]).mul_add(f(v[1]), f(v[2]))))
        }),
        case("selp.f32 %d, %a, %b, %c;", "f32", &["f32", "f32", "pred"], |v| v[1 - v[2] as usize]),
        case(
            "slct.f32.f32 %d, %a, %b, %c;",
            "f32",
            &["f32"; 3],
            |v| if f(v[2]) >= 0.0 { v[0] } else { v[1] },
        ),
        case("add.f32 %d, %a, 0f3F000000;", "f32", &["f32"], |v| fb(f(v[0]) + 0.5)),
        case("mul.f32 %d, %a, 2.5;", "f32", &["f32"], |v| fb(f(v[0]) * 2.5)),
        // NaNs have no payload to compare: they are replaced by 0.
        case(
            "fma.rn.f32x2 %x0, %a, %b, %c; mov.b64 {%t0, %t1}, %x0; setp.nan.f32 %p, %t0, %t0; @%p mov.u32 %t0, 0;\
              setp.nan.f32 %p, %t1, %t1; @%p mov.u32 %t1, 0; mov.b64 %d, {%t0, %t1};",
            "b64",
            &["b64"; 3],
            |v| {
                let lane = |s: u32| fb(f(v[0] >> s).mul_add(f(v[1] >> s), f(v[2] >> s)));
                let quiet = |x: u64| if f(x).is_nan() { 0 } else { x };
                quiet(lane(0)) | quiet(lane(32)) << 32
            },
        ),
        near("div.approx.f32 %d, %a, 3.0;", &["f32"], 1e-6, |a| a / 3.0),
        near("div.full.f32 %d, %a, 3.0;", &["f32"], 1e-6, |a| a / 3.0),
        near("rcp.approx.ftz.f32 %d, %a;", &["f32"], 1e-6, |a| flush(1.0 / flush(a))),
        near("rsqrt.approx.f32 %d, %a;", &["f32"], 1e-6, |a| 1.0 / a.sqrt()),
        near("sqrt.approx.f32 %d, %a;", &["f32"], 1e-6, f32::sqrt),
        near("ex2.approx.f32 %d, %a;", &["f32"], 1e-5, |a| f64::from(a).exp2() as f32),
        near("lg2.approx.f32 %d, %a;", &["f32"], 1e-5, |a| f64::from(a).log2() as f32),
        near("tanh.approx.f32 %d, %a;", &["f32"], 1e-3, f32::tanh),
        // The bound of the approximations holds for arguments of moderate size only.
        near("and.b32 %t0, %a, 0xbfffffff; mov.b32 %t1, %t0; sin.approx.f32 %d, %t1;", &["f32"], 1e-5, |a| {
            f32::from_bits(a.to_bits() & 0xbfff_ffff).sin()
        }),
        near("and.b32 %t0, %a, 0xbfffffff; mov.b32 %t1, %t0; cos.approx.f32 %d, %t1;", &["f32"], 1e-5, |a| {
            f32::from_bits(a.to_bits() & 0xbfff_ffff).cos()
        }),
    ];
    for (name, test) in [
        ("finite", (|a| a.is_finite()) as fn(f32) -> bool),
        ("infinite", |a| a.is_infinite()),
        ("number", |a| !a.is_nan()),
        ("notanumber", |a| a.is_nan()),
        ("normal", |a| a.is_normal()),
        ("subnormal", |a| a.is_subnormal()),
    ] {
        cases.push(case(&format!("testp.{name}.f32 %d, %a;"), "pred", &["f32"], move |v| {
            u64::from(test(f(v[0])))
        }));
    }
    check(&cases);
}

#[test]
fn double() {
    let un = |text: &str, op: fn(f64) -> f64| {
        case(&format!("{text} %d, %a;"), "f64", &["f64"], move |v| op(d(v[0])).to_bits())
    };
    let cases = vec![
        bin64("add.f64", |a, b| a + b),
        bin64("sub.f64", |a, b| a - b),
        bin64("mul.rn.f64", |a, b| a * b),
        bin64("div.rn.f64", |a, b| a / b),
        bin64("min.f64", |a, b| match (a.is_nan(), b.is_nan()) {
            (true, _) => b,
            (_, true) => a,
            _ if a == b => {
                if a.is_sign_negative() {
                    a
                } else {
                    b
                }
            }
            _ => a.min(b),
        }),
        bin64("max.f64", |a, b| match (a.is_nan(), b.is_nan()) {
            (true, _) => b,
            (_, true) => a,
            _ if a == b => {
                if a.is_sign_negative() {
                    b
                } else {
                    a
                }
            }
            _ => a.max(b),
        }),
        case("copysign.f64 %d, %a, %b;", "f64", &["f64", "f64"], |v| d(v[1]).copysign(d(v[0])).to_bits()),
        case("fma.rn.f64 %d, %a, %b, %c;", "f64", &["f64"; 3], |v| {
            d(v[0]).mul_add(d(v[1]), d(v[2])).to_bits()
        }),
        un("neg.f64", |a| -a),
        un("abs.f64", f64::abs),
        un("sqrt.rn.f64", f64::sqrt),
        un("rcp.rn.f64", |a| 1.0 / a),
        un("cvt.rni.f64.f64", f64::round_ties_even),
        un("cvt.rzi.f64.f64", f64::trunc),
        un("cvt.rmi.f64.f64", f64::floor),
        un("cvt.rpi.f64.f64", f64::ceil),
        un("cvt.sat.f64.f64", |a| if a > 0.0 { a.min(1.0) } else { 0.0 }),
        case("testp.subnormal.f64 %d, %a;", "pred", &["f64"], |v| u64::from(d(v[0]).is_subnormal())),
        case("testp.normal.f64 %d, %a;", "pred", &["f64"], |v| u64::from(d(v[0]).is_normal())),
        case("rsqrt.approx.ftz.f64 %d, %a;", "f64", &["f64"], |v| {
            // Reads and gives the upper halves only.
            let upper = |x: f64| f64::from_bits(x.to_bits() >> 32 << 32);
            let a = if d(v[0]).is_subnormal() { 0f64.copysign(d(v[0])) } else { upper(d(v[0])) };
            upper(1.0 / a.sqrt()).to_bits()
        }),
    ];
    check(&cases);
}

fn unordered(a: f64, b: f64) -> bool {
    a.is_nan() || b.is_nan()
}

#[test]
fn comparisons() {
    let mut cases = Vec::new();
    type Test = fn(f64, f64) -> bool;
    let tests: [(&str, Test); 14] = [
        ("eq", |a, b| a == b),
        ("ne", |a, b| !unordered(a, b) && a != b),
        ("lt", |a, b| a < b),
        ("le", |a, b| a <= b),
        ("gt", |a, b| a > b),
        ("ge", |a, b| a >= b),
        ("equ", |a, b| unordered(a, b) || a == b),
        ("neu", |a, b| a != b),
        ("ltu", |a, b| unordered(a, b) || a < b),
        ("leu", |a, b| unordered(a, b) || a <= b),
        ("gtu", |a, b| unordered(a, b) || a > b),
        ("geu", |a, b| unordered(a, b) || a >= b),
        ("num", |a, b| !unordered(a, b)),
        ("nan", unordered),
    ];
    for (name, test) in tests {
        cases.push(case(&format!("setp.{name}.f32 %d, %a, %b;"), "pred", &["f32", "f32"], move |v| {
            u64::from(test(f(v[0]).into(), f(v[1]).into()))
        }));
        cases.push(case(&format!("setp.{name}.ftz.f32 %d, %a, %b;"), "pred", &["f32", "f32"], move |v| {
            u64::from(test(flush(f(v[0])).into(), flush(f(v[1])).into()))
        }));
        cases.push(case(&format!("setp.{name}.f64 %d, %a, %b;"), "pred", &["f64", "f64"], move |v| {
            u64::from(test(d(v[0]), d(v[1])))
        }));
        cases.push(case(&format!("setp.{name}.f16 %d, %a, %b;"), "pred", &["f16", "f16"], move |v| {
            u64::from(test(f16::from_bits(v[0] as u16).into(), f16::from_bits(v[1] as u16).into()))
        }));
        cases.push(case(&format!("setp.{name}.bf16 %d, %a, %b;"), "pred", &["bf16", "bf16"], move |v| {
            u64::from(test(bf16::from_bits(v[0] as u16).into(), bf16::from_bits(v[1] as u16).into()))
        }));
        let lane = move |v: &[u64], i: u32| {
            let h = |w: u64| f64::from(f16::from_bits((w >> (16 * i)) as u16));
            test(h(v[0]), h(v[1]))
        };
        cases.push(case(&format!("setp.{name}.f16x2 %d|%p, %a, %b;"), "pred", &["f16x2"; 2], move |v| {
            u64::from(lane(v, 0))
        }));
        cases.push(case(&format!("setp.{name}.f16x2 %p|%d, %a, %b;"), "pred", &["f16x2"; 2], move |v| {
            u64::from(lane(v, 1))
        }));
        cases.push(case(&format!("set.{name}.f16x2.f16x2 %d, %a, %b;"), "b32", &["f16x2"; 2], move |v| {
            (0..2).map(|i| if lane(v, i) { 0x3c00u64 << (16 * i) } else { 0 }).sum()
        }));
        cases.push(case(&format!("set.{name}.u32.f16x2 %d, %a, %b;"), "b32", &["f16x2"; 2], move |v| {
            (0..2).map(|i| if lane(v, i) { 0xffffu64 << (16 * i) } else { 0 }).sum()
        }));
        cases.push(case(&format!("set.{name}.f16.f16 %d, %a, %b;"), "b16", &["f16"; 2], move |v| {
            if lane(v, 0) { 0x3c00 } else { 0 }
        }));
        cases.push(case(&format!("set.{name}.f32.f32 %d, %a, %b;"), "f32", &["f32"; 2], move |v| {
            if test(f(v[0]).into(), f(v[1]).into()) { 0x3f80_0000 } else { 0 }
        }));
        cases.push(case(&format!("set.{name}.u32.f32 %d, %a, %b;"), "u32", &["f32"; 2], move |v| {
            if test(f(v[0]).into(), f(v[1]).into()) { 0xffff_ffff } else { 0 }
        }));
    }
    check(&cases);
}

/// Rounds an exact real, given as a double and the sign of what is missing, to f32.
fn round32(v: f64, missing: f64, mode: &str) -> f32 {
    let n = v as f32;
    let n64 = f64::from(n);
    // Where the real is, relative to the nearest float.
    let side = if n64 < v || (n64 == v && missing > 0.0) {
        1
    } else if n64 > v || (n64 == v && missing < 0.0) {
        -1
    } else {
        0
    };
    let up = |x: f32| x.next_up();
    let down = |x: f32| x.next_down();
    if v.is_nan() || v.is_infinite() {
        return n;
    }
    match (mode, side) {
        ("rm", -1) => down(n),
        ("rp", 1) => up(n),
        ("rz", -1) if n > 0.0 => down(n),
        ("rz", 1) if n < 0.0 => up(n),
        _ => n,
    }
}

#[test]
fn directed_rounding() {
    let mut cases = Vec::new();
    for mode in ["rz", "rm", "rp"] {
        cases.push(case(&format!("mul.{mode}.f32 %d, %a, %b;"), "f32", &["f32"; 2], move |v| {
            // Exact in f64 (subnormals of f32 are far from f64's).
            fb(round32(f64::from(f(v[0])) * f64::from(f(v[1])), 0.0, mode))
        }));
        for (op, sign) in [("add", 1.0), ("sub", -1.0)] {
            cases.push(case(&format!("{op}.{mode}.f32 %d, %a, %b;"), "f32", &["f32"; 2], move |v| {
                let (a, b) = (f64::from(f(v[0])), f64::from(f(v[1])) * sign);
                let s = a + b;
                let t = s - a;
                let missing = (a - (s - t)) + (b - t);
                if s == 0.0 && a != 0.0 {
                    // An exact zero of two non-zero numbers is -0 when rounding down.
                    return fb(if mode == "rm" { -0.0 } else { 0.0 });
                }
                if s == 0.0 {
                    let both = a.is_sign_negative() && b.is_sign_negative();
                    let either = a.is_sign_negative() || b.is_sign_negative();
                    return fb(if both || (either && mode == "rm") { -0.0 } else { 0.0 });
                }
                fb(round32(s, missing, mode))
            }));
        }
        cases.push(case(&format!("cvt.{mode}.f32.f64 %d, %a;"), "f32", &["f64"], move |v| {
            fb(round32(d(v[0]), 0.0, mode))
        }));
        for ty in ["s32", "u32", "s64", "u64"] {
            cases.push(case(&format!("cvt.{mode}.f32.{ty} %d, %a;"), "f32", &[ty], move |v| {
                let n = int(ty, v[0]);
                let x = n as f64;
                fb(round32(x, (n - x as i128) as f64, mode))
            }));
        }
    }
    check(&cases);
}

fn int(ty: &str, v: u64) -> i128 {
    let n = 64 - bits(ty);
    if ty.starts_with('s') { i128::from((v << n) as i64 >> n) } else { i128::from(mask(ty, v)) }
}

const ALL_INTS: [&str; 8] = ["u8", "s8", "u16", "s16", "u32", "s32", "u64", "s64"];

/// Extends a result of an 8-bit type to the 16-bit register that it is in.
fn in_register(ty: &str, v: i128) -> u64 {
    if bits(ty) == 8 { v as u64 & 0xffff } else { mask(ty, v as u64) }
}

#[test]
fn integer_conversions() {
    let mut cases = Vec::new();
    for src in ALL_INTS {
        for dst in ALL_INTS {
            cases.push(case(&format!("cvt.{dst}.{src} %d, %a;"), dst, &[src], move |v| {
                in_register(dst, int(dst, int(src, v[0]) as u64))
            }));
            cases.push(case(&format!("cvt.sat.{dst}.{src} %d, %a;"), dst, &[src], move |v| {
                let (low, high) = range(dst);
                in_register(dst, int(src, v[0]).clamp(low, high))
            }));
        }
        if bits(src) >= 16 {
            cases.push(case(&format!("cvt.rn.f32.{src} %d, %a;"), "f32", &[src], move |v| {
                fb(int(src, v[0]) as f32)
            }));
            cases.push(case(&format!("cvt.rn.f64.{src} %d, %a;"), "f64", &[src], move |v| {
                (int(src, v[0]) as f64).to_bits()
            }));
            cases.push(case(&format!("cvt.rn.f16.{src} %d, %a;"), "f16", &[src], move |v| {
                // Every integer of f16's range is exact in f64.
                u64::from(f16::from_f64(int(src, v[0]) as f64).to_bits())
            }));
        }
        if (16..=32).contains(&bits(src)) {
            cases.push(case(&format!("cvt.rn.bf16.{src} %d, %a;"), "bf16", &[src], move |v| {
                u64::from(bf16::from_f32(odd32(int(src, v[0]) as f64)).to_bits())
            }));
        }
    }
    cases.push(case("cvt.pack.sat.u8.s32.b32 %d, %a, %b, %c;", "b32", &["s32", "s32", "b32"], |v| {
        let clamp = |w| int("s32", w).clamp(0, 255) as u64;
        mask("b32", v[2] << 16 | clamp(v[0]) << 8 | clamp(v[1]))
    }));
    cases.push(case("cvt.pack.sat.s16.s32 %d, %a, %b;", "b32", &["s32", "s32"], |v| {
        let clamp = |w| int("s32", w).clamp(-32768, 32767) as u64 & 0xffff;
        clamp(v[0]) << 16 | clamp(v[1])
    }));
    // From a register wider than the type.
    cases.push(case("cvt.u32.u8 %d, %a;", "u32", &["b32"], |v| v[0] & 0xff));
    cases.push(case("cvt.s64.s16 %d, %a;", "s64", &["b32"], |v| v[0] as i16 as i64 as u64));
    check(&cases);
}

fn range(ty: &str) -> (i128, i128) {
    let n = bits(ty);
    if ty.starts_with('s') { (-(1 << (n - 1)), (1 << (n - 1)) - 1) } else { (0, (1 << n) - 1) }
}

#[test]
fn float_to_integer() {
    let mut cases = Vec::new();
    let round = |mode: &str, v: f64| match mode {
        "rni" => v.round_ties_even(),
        "rzi" => v.trunc(),
        "rmi" => v.floor(),
        _ => v.ceil(),
    };
    for mode in ["rni", "rzi", "rmi", "rpi"] {
        for dst in ALL_INTS {
            for src in ["f16", "bf16", "f32", "f64"] {
                cases.push(case(&format!("cvt.{mode}.{dst}.{src} %d, %a;"), dst, &[src], move |v| {
                    let x = match src {
                        "f16" => f16::from_bits(v[0] as u16).to_f64(),
                        "bf16" => bf16::from_bits(v[0] as u16).to_f64(),
                        "f32" => f64::from(f(v[0])),
                        _ => d(v[0]),
                    };
                    let (low, high) = range(dst);
                    if x.is_nan() {
                        let top = if src == "f64" || bits(dst) == 64 { 1u64 << (bits(dst) - 1) } else { 0 };
                        return in_register(dst, int(dst, top));
                    }
                    // `as` saturates.
                    in_register(dst, (round(mode, x) as i128).clamp(low, high))
                }));
            }
        }
    }
    check(&cases);
}

#[test]
fn float_to_float() {
    let h = |v: u64| f16::from_bits(v as u16);
    let b = |v: u64| bf16::from_bits(v as u16);
    let hb = |v: f16| u64::from(v.to_bits());
    let bb = |v: bf16| u64::from(v.to_bits());
    let tf32 = |v: f32, add: u32| {
        if v.is_finite() { (v.to_bits().wrapping_add(add)) & 0xffff_e000 } else { v.to_bits() }
    };
    let cases =
        vec![
            case("cvt.f64.f32 %d, %a;", "f64", &["f32"], |v| f64::from(f(v[0])).to_bits()),
            case("cvt.rn.f32.f64 %d, %a;", "f32", &["f64"], |v| fb(d(v[0]) as f32)),
            case("cvt.f32.f16 %d, %a;", "f32", &["f16"], move |v| fb(h(v[0]).to_f32())),
            case("cvt.f64.f16 %d, %a;", "f64", &["f16"], move |v| h(v[0]).to_f64().to_bits()),
            case("cvt.f32.bf16 %d, %a;", "f32", &["bf16"], move |v| fb(b(v[0]).to_f32())),
            case("cvt.rn.f16.f32 %d, %a;", "f16", &["f32"], move |v| hb(f16::from_f32(f(v[0])))),
            case("cvt.rn.bf16.f32 %d, %a;", "bf16", &["f32"], move |v| bb(bf16::from_f32(f(v[0])))),
            case("cvt.rz.bf16.f32 %d, %a;", "bf16", &["f32"], |v| {
                if f(v[0]).is_nan() { 0x7fff } else { v[0] >> 16 }
            }),
            case("cvt.rn.f16.f64 %d, %a;", "f16", &["f64"], move |v| hb(f16::from_f32(odd32(d(v[0]))))),
            case("cvt.rn.bf16.f64 %d, %a;", "bf16", &["f64"], move |v| bb(bf16::from_f32(odd32(d(v[0]))))),
            case("cvt.rni.f16.f16 %d, %a;", "f16", &["f16"], move |v| {
                hb(f16::from_f32(h(v[0]).to_f32().round_ties_even()))
            }),
            case("cvt.rmi.f16.f16 %d, %a;", "f16", &["f16"], move |v| {
                hb(f16::from_f32(h(v[0]).to_f32().floor()))
            }),
            case("cvt.rn.relu.f16.f32 %d, %a;", "f16", &["f32"], move |v| {
                hb(f16::from_f32(if f(v[0]) <= 0.0 { 0.0 } else { f(v[0]) }))
            }),
            case("cvt.rn.sat.f16.f32 %d, %a;", "f16", &["f32"], move |v| hb(f16::from_f32(sat(f(v[0]))))),
            case("cvt.rn.f16x2.f32 %d, %a, %b;", "f16x2", &["f32", "f32"], move |v| {
                hb(f16::from_f32(f(v[0]))) << 16 | hb(f16::from_f32(f(v[1])))
            }),
            case("cvt.rn.bf16x2.f32 %d, %a, %b;", "bf16x2", &["f32", "f32"], move |v| {
                bb(bf16::from_f32(f(v[0]))) << 16 | bb(bf16::from_f32(f(v[1])))
            }),
            case("cvt.rna.tf32.f32 %t0, %a; mov.b32 %d, %t0;", "f32", &["f32"], move |v| {
                u64::from(tf32(f(v[0]), 0x1000))
            }),
            case("cvt.rz.tf32.f32 %t0, %a; mov.b32 %d, %t0;", "f32", &["f32"], move |v| {
                u64::from(tf32(f(v[0]), 0))
            }),
            case("cvt.ftz.f64.f32 %d, %a;", "f64", &["f32"], |v| f64::from(flush(f(v[0]))).to_bits()),
            case("cvt.rn.ftz.f32.f64 %d, %a;", "f32", &["f64"], |v| fb(flush(d(v[0]) as f32))),
        ];
    check(&cases);
}

/// f32 that rounds to 16 bits as the double does: truncated, the last digit set if anything was lost (`half` itself drops digits).
fn odd32(v: f64) -> f32 {
    let n = v as f32;
    if !v.is_finite() || f64::from(n) == v {
        return n;
    }
    let toward_zero = if f64::from(n).abs() > v.abs() { f32::from_bits(n.to_bits() - 1) } else { n };
    f32::from_bits(toward_zero.to_bits() | 1)
}

/// Sum of doubles, rounded to odd: rounding it again to fewer digits is right.
fn odd_sum(a: f64, b: f64) -> f64 {
    let s = a + b;
    let t = s - a;
    let missing = (a - (s - t)) + (b - t);
    if !s.is_finite() || missing == 0.0 || s.to_bits() & 1 == 1 {
        return s;
    }
    let away_from_zero = (missing > 0.0) == (s > 0.0);
    f64::from_bits(if away_from_zero { s.to_bits() | 1 } else { s.to_bits() - 1 })
}

#[test]
fn half_arithmetic() {
    let mut cases = Vec::new();
    // Results rounded once from a wider type in which they are exact (or, for division and fma, exact enough).
    type Op = fn(f64, f64, f64) -> f64;
    let ops: [(&str, usize, Op); 9] = [
        ("add{}", 2, |a, b, _| a + b),
        ("sub{}", 2, |a, b, _| a - b),
        ("mul{}", 2, |a, b, _| a * b),
        ("fma.rn{}", 3, |a, b, c| odd_sum(a * b, c)),
        ("fma.rn.relu{}", 3, |a, b, c| {
            let v = odd_sum(a * b, c);
            if v <= 0.0 { 0.0 } else { v }
        }),
        ("min{}", 2, |a, b, _| f64::from(min32(a as f32, b as f32))),
        ("max{}", 2, |a, b, _| f64::from(max32(a as f32, b as f32))),
        ("neg{}", 1, |a, _, _| -a),
        ("abs{}", 1, |a, _, _| a.abs()),
    ];
    for (name, n, op) in ops {
        for ty in ["f16", "bf16"] {
            let from = move |v: u64| {
                if ty == "f16" {
                    f16::from_bits(v as u16).to_f64()
                } else {
                    bf16::from_bits(v as u16).to_f64()
                }
            };
            let to = move |v: f64| {
                let v = odd32(v);
                u64::from(if ty == "f16" { f16::from_f32(v).to_bits() } else { bf16::from_f32(v).to_bits() })
            };
            let operands = ["%a", "%a, %b", "%a, %b, %c"][n - 1];
            let get = move |v: &[u64], i: usize, lane: u32| {
                v.get(i).map_or(0.0, |w| from(w >> (16 * lane) & 0xffff))
            };
            let text = format!("{} %d, {operands};", name.replace("{}", &format!(".{ty}")));
            cases.push(case(&text, ty, &[ty; 3][..n], move |v| {
                to(op(get(v, 0, 0), get(v, 1, 0), get(v, 2, 0)))
            }));
            let pair: &'static str = if ty == "f16" { "f16x2" } else { "bf16x2" };
            let text = format!("{} %d, {operands};", name.replace("{}", &format!(".{pair}")));
            cases.push(case(&text, pair, &[pair; 3][..n], move |v| {
                let lane = |i| to(op(get(v, 0, i), get(v, 1, i), get(v, 2, i)));
                lane(0) | lane(1) << 16
            }));
        }
    }
    let mut ex2 = case("ex2.approx.f16 %h0, %a; cvt.f32.f16 %d, %h0;", "f32", &["f16"], |v| {
        fb(f16::from_f64(f16::from_bits(v[0] as u16).to_f64().exp2()).to_f32())
    });
    ex2.compare = Match::Near32(2e-3);
    cases.push(ex2);
    cases.push(case("add.sat.f16 %d, %a, %b;", "f16", &["f16", "f16"], |v| {
        let sum = f16::from_bits(v[0] as u16).to_f32() + f16::from_bits(v[1] as u16).to_f32();
        u64::from(f16::from_f32(sat(sum)).to_bits())
    }));
    check(&cases);
}
