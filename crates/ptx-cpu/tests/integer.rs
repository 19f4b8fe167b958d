//! Integer instructions against plain Rust.

mod common;

use common::table::{Case, bits, case, check, mask};

fn sx(ty: &str, v: u64) -> i128 {
    let n = 64 - bits(ty);
    i128::from((v << n) as i64 >> n)
}

/// Value of a word in a type.
fn num(ty: &str, v: u64) -> i128 {
    if ty.starts_with('s') { sx(ty, v) } else { i128::from(mask(ty, v)) }
}

fn put(ty: &str, v: i128) -> u64 {
    mask(ty, v as u64)
}

const INTS: [&str; 6] = ["u16", "s16", "u32", "s32", "u64", "s64"];

fn two(op: &str, ty: &'static str, f: impl Fn(i128, i128) -> i128 + 'static) -> Case {
    case(&format!("{op}.{ty} %d, %a, %b;"), ty, &[ty, ty], move |v| put(ty, f(num(ty, v[0]), num(ty, v[1]))))
}

#[test]
fn arithmetic() {
    let mut cases = Vec::new();
    for ty in INTS {
        cases.push(two("add", ty, |a, b| a + b));
        cases.push(two("sub", ty, |a, b| a - b));
        cases.push(two("mul.lo", ty, |a, b| a.wrapping_mul(b)));
        cases.push(two("mul.hi", ty, move |a, b| a.wrapping_mul(b) >> bits(ty)));
        cases.push(two("min", ty, |a, b| a.min(b)));
        cases.push(two("max", ty, |a, b| a.max(b)));
        cases.push(two("div", ty, |a, b| if b == 0 { -1 } else { a / b }));
        cases.push(two("rem", ty, |a, b| if b == 0 { a } else { a % b }));
        cases.push(case(&format!("sad.{ty} %d, %a, %b, %c;"), ty, &[ty, ty, ty], move |v| {
            put(ty, num(ty, v[2]) + (num(ty, v[0]) - num(ty, v[1])).abs())
        }));
        for (which, shift) in [("lo", 0), ("hi", bits(ty))] {
            cases.push(case(&format!("mad.{which}.{ty} %d, %a, %b, %c;"), ty, &[ty, ty, ty], move |v| {
                put(ty, (num(ty, v[0]).wrapping_mul(num(ty, v[1])) >> shift).wrapping_add(num(ty, v[2])))
            }));
        }
        if ty.starts_with('s') {
            cases.push(case(&format!("abs.{ty} %d, %a;"), ty, &[ty], move |v| put(ty, num(ty, v[0]).abs())));
            cases.push(case(&format!("neg.{ty} %d, %a;"), ty, &[ty], move |v| put(ty, -num(ty, v[0]))));
        }
    }
    for (ty, wide) in [("u16", "u32"), ("s16", "s32"), ("u32", "u64"), ("s32", "s64")] {
        cases.push(case(&format!("mul.wide.{ty} %d, %a, %b;"), wide, &[ty, ty], move |v| {
            put(wide, num(ty, v[0]) * num(ty, v[1]))
        }));
        cases.push(case(&format!("mad.wide.{ty} %d, %a, %b, %c;"), wide, &[ty, ty, wide], move |v| {
            put(wide, num(ty, v[0]) * num(ty, v[1]) + num(wide, v[2]))
        }));
    }
    let clamp = |v: i128| v.clamp(i32::MIN.into(), i32::MAX.into());
    cases.push(two("add.sat", "s32", move |a, b| clamp(a + b)));
    cases.push(two("sub.sat", "s32", move |a, b| clamp(a - b)));
    cases.push(case("mad.hi.sat.s32 %d, %a, %b, %c;", "s32", &["s32", "s32", "s32"], move |v| {
        put("s32", clamp(((num("s32", v[0]) * num("s32", v[1])) >> 32) + num("s32", v[2])))
    }));
    cases.push(two("min.relu", "s32", |a, b| a.min(b).max(0)));
    cases.push(two("max.relu", "s32", |a, b| a.max(b).max(0)));
    let low24 = |ty: &'static str, v: u64| {
        if ty == "s32" { i128::from(((v as u32) << 8) as i32 >> 8) } else { i128::from(v & 0xff_ffff) }
    };
    for ty in ["u32", "s32"] {
        cases.push(case(&format!("mul24.lo.{ty} %d, %a, %b;"), ty, &[ty, ty], move |v| {
            put(ty, low24(ty, v[0]) * low24(ty, v[1]))
        }));
        cases.push(case(&format!("mul24.hi.{ty} %d, %a, %b;"), ty, &[ty, ty], move |v| {
            put(ty, (low24(ty, v[0]) * low24(ty, v[1])) >> 16)
        }));
        cases.push(case(&format!("mad24.lo.{ty} %d, %a, %b, %c;"), ty, &[ty, ty, ty], move |v| {
            put(ty, low24(ty, v[0]) * low24(ty, v[1]) + num(ty, v[2]))
        }));
    }
    // Constant divisors and immediate operands.
    for d in [1i64, 3, -1, 10, -7, 65536] {
        cases.push(case(&format!("div.s32 %d, %a, {d};"), "s32", &["s32"], move |v| {
            put("s32", num("s32", v[0]) / i128::from(d))
        }));
        cases.push(case(&format!("rem.s32 %d, %a, {d};"), "s32", &["s32"], move |v| {
            put("s32", num("s32", v[0]) % i128::from(d))
        }));
        let u = i128::from(d as u32);
        cases.push(case(&format!("div.u32 %d, %a, {d};"), "u32", &["u32"], move |v| {
            put("u32", num("u32", v[0]) / u)
        }));
    }
    check(&cases);
}

#[test]
fn carry_chains() {
    let wide = |v: &[u64]| i128::from(v[0]) | i128::from(v[1]) << 64;
    let two64 = ["u64", "u64", "u64", "u64"];
    let high = |v: i128| (v >> 64) as u64;
    let cases = vec![
        case("add.cc.u64 %x0, %a, %c; addc.u64 %d, %b, %e;", "u64", &two64, move |v| {
            high(wide(v).wrapping_add(wide(&v[2..])))
        }),
        case("sub.cc.u64 %x0, %a, %c; subc.u64 %d, %b, %e;", "u64", &two64, move |v| {
            high(wide(v).wrapping_sub(wide(&v[2..])))
        }),
        case(
            "add.cc.u32 %t0, %a, %a; addc.cc.u32 %t1, %b, %b; addc.u32 %d, %c, %c;",
            "u32",
            &["u32", "u32", "u32"],
            |v| {
                let n = v[0] as u128 | (v[1] as u128) << 32 | (v[2] as u128) << 64;
                ((n + n) >> 64) as u64 & 0xffff_ffff
            },
        ),
        case(
            "sub.cc.s32 %t0, %a, %b; subc.cc.s32 %t1, %b, %c; subc.s32 %d, %c, %a;",
            "s32",
            &["u32", "u32", "u32"],
            |v| {
                let x = v[0] as i128 | (v[1] as i128) << 32 | (v[2] as i128) << 64;
                let y = v[1] as i128 | (v[2] as i128) << 32 | (v[0] as i128) << 64;
                ((x - y) >> 64) as u64 & 0xffff_ffff
            },
        ),
        // 64 x 64 -> 128 from 32-bit pieces, the way a compiler does it: bits 64 to 95.
        case(
            "mov.b64 {%t0, %t1}, %a; mov.b64 {%t2, %t3}, %b;\
             mul.hi.u32 %t4, %t0, %t2; mad.lo.cc.u32 %t4, %t0, %t3, %t4; madc.hi.u32 %t5, %t0, %t3, 0;\
             mad.lo.cc.u32 %t4, %t1, %t2, %t4; madc.hi.cc.u32 %t5, %t1, %t2, %t5; addc.u32 %t6, 0, 0;\
             mad.lo.cc.u32 %t5, %t1, %t3, %t5; madc.hi.u32 %t6, %t1, %t3, %t6; mov.b64 %d, {%t5, %t6};",
            "u64",
            &["u64", "u64"],
            |v| ((v[0] as u128 * v[1] as u128) >> 64) as u64,
        ),
        case("mad.hi.cc.u64 %x0, %a, %b, %c; addc.u64 %d, 0, 0;", "u64", &["u64", "u64", "u64"], |v| {
            let high = (v[0] as u128 * v[1] as u128) >> 64;
            ((high + v[2] as u128) >> 64) as u64
        }),
    ];
    check(&cases);
}

#[test]
fn logic_and_shifts() {
    let mut cases = Vec::new();
    for ty in ["b16", "b32", "b64"] {
        cases.push(two("and", ty, |a, b| a & b));
        cases.push(two("or", ty, |a, b| a | b));
        cases.push(two("xor", ty, |a, b| a ^ b));
        cases.push(case(&format!("not.{ty} %d, %a;"), ty, &[ty], move |v| mask(ty, !v[0])));
        cases.push(case(&format!("cnot.{ty} %d, %a;"), ty, &[ty], |v| u64::from(v[0] == 0)));
        let w = u64::from(bits(ty));
        cases.push(case(&format!("shl.{ty} %d, %a, %b;"), ty, &[ty, "u32"], move |v| {
            if v[1] >= w { 0 } else { mask(ty, v[0] << v[1]) }
        }));
        cases.push(case(&format!("shr.{ty} %d, %a, %b;"), ty, &[ty, "u32"], move |v| {
            if v[1] >= w { 0 } else { v[0] >> v[1] }
        }));
        let s: &'static str = ["s16", "s32", "s64"][(w / 32) as usize];
        cases.push(case(&format!("shr.{s} %d, %a, %b;"), s, &[s, "u32"], move |v| {
            put(s, sx(s, v[0]) >> v[1].min(w - 1))
        }));
        for n in [0u64, 1, 7, 15, 16, 31, 32, 63, 64, 200] {
            cases.push(case(&format!("shl.{ty} %d, %a, {n};"), ty, &[ty], move |v| {
                if n >= w { 0 } else { mask(ty, v[0] << n) }
            }));
            cases.push(case(&format!("shr.{s} %d, %a, {n};"), s, &[s], move |v| {
                put(s, sx(s, v[0]) >> n.min(w - 1))
            }));
            cases.push(case(&format!("shr.{ty} %d, %a, {n};"), ty, &[ty], move |v| {
                if n >= w { 0 } else { v[0] >> n }
            }));
        }
    }
    for op in ["and", "or", "xor"] {
        cases.push(case(&format!("{op}.pred %d, %a, %b;"), "pred", &["pred", "pred"], move |v| match op {
            "and" => v[0] & v[1],
            "or" => v[0] | v[1],
            _ => v[0] ^ v[1],
        }));
    }
    cases.push(case("not.pred %d, %a;", "pred", &["pred"], |v| 1 - v[0]));
    let both = |v: &[u64]| v[0] | v[1] << 32;
    let abc = ["b32", "b32", "u32"];
    cases.push(case("shf.l.wrap.b32 %d, %a, %b, %c;", "b32", &abc, move |v| (both(v) << (v[2] & 31)) >> 32));
    cases.push(case("shf.l.clamp.b32 %d, %a, %b, %c;", "b32", &abc, move |v| {
        mask("b32", (both(v) << v[2].min(32)) >> 32)
    }));
    cases.push(case("shf.r.wrap.b32 %d, %a, %b, %c;", "b32", &abc, move |v| {
        mask("b32", both(v) >> (v[2] & 31))
    }));
    cases.push(case("shf.r.clamp.b32 %d, %a, %b, %c;", "b32", &abc, move |v| {
        mask("b32", both(v) >> v[2].min(32))
    }));
    for lut in 0..=255u64 {
        cases.push(case(
            &format!("lop3.b32 %d, %a, %b, %c, {lut};"),
            "b32",
            &["b32", "b32", "b32"],
            move |v| {
                (0..32).fold(0, |r, i| {
                    let index = (v[0] >> i & 1) << 2 | (v[1] >> i & 1) << 1 | (v[2] >> i & 1);
                    r | (lut >> index & 1) << i
                })
            },
        ));
    }
    check(&cases);
}

#[test]
fn bit_fields() {
    let mut cases = Vec::new();
    for ty in ["u32", "s32", "u64", "s64"] {
        let w = u64::from(bits(ty));
        let signed = ty.starts_with('s');
        // As the ISA document says it, bit by bit.
        let bfe = move |v: &[u64]| {
            let (pos, len) = (v[1] & 0xff, v[2] & 0xff);
            let sign = if !signed || len == 0 { 0 } else { v[0] >> (pos + len - 1).min(w - 1) & 1 };
            (0..w).fold(0, |r, i| r | if i < len && pos + i < w { v[0] >> (pos + i) & 1 } else { sign } << i)
        };
        cases.push(case(&format!("bfe.{ty} %d, %a, %b, %c;"), ty, &[ty, "u32", "u32"], bfe));
        cases.push(case(&format!("bfe.{ty} %d, %a, 8, 5;"), ty, &[ty], move |v| bfe(&[v[0], 8, 5])));
        cases.push(case(&format!("bfind.{ty} %d, %a;"), "u32", &[ty], move |v| {
            let x = if signed && v[0] >> (w - 1) & 1 == 1 { mask(ty, !v[0]) } else { v[0] };
            (0..w).rev().find(|i| x >> i & 1 == 1).unwrap_or(0xffff_ffff)
        }));
        cases.push(case(&format!("bfind.shiftamt.{ty} %d, %a;"), "u32", &[ty], move |v| {
            let x = if signed && v[0] >> (w - 1) & 1 == 1 { mask(ty, !v[0]) } else { v[0] };
            (0..w).rev().find(|i| x >> i & 1 == 1).map_or(0xffff_ffff, |i| w - 1 - i)
        }));
    }
    for ty in ["b32", "b64"] {
        let w = u64::from(bits(ty));
        cases.push(case(&format!("bfi.{ty} %d, %a, %b, %c, %e;"), ty, &[ty, ty, "u32", "u32"], move |v| {
            let (pos, len) = (v[2] & 0xff, v[3] & 0xff);
            (0..len)
                .filter(|i| pos + i < w)
                .fold(v[1], |r, i| r & !(1 << (pos + i)) | (v[0] >> i.min(63) & 1) << (pos + i))
        }));
        cases.push(case(&format!("popc.{ty} %d, %a;"), "u32", &[ty], |v| u64::from(v[0].count_ones())));
        cases.push(case(&format!("clz.{ty} %d, %a;"), "u32", &[ty], move |v| {
            u64::from(v[0].leading_zeros()) - (64 - w)
        }));
        cases.push(case(&format!("brev.{ty} %d, %a;"), ty, &[ty], move |v| v[0].reverse_bits() >> (64 - w)));
    }
    cases.push(case("bmsk.clamp.b32 %d, %a, %b;", "b32", &["u32", "u32"], |v| {
        (0..32).filter(|i| *i >= v[0] && *i < v[0] + v[1]).fold(0, |r, i| r | 1 << i)
    }));
    cases.push(case("bmsk.wrap.b32 %d, %a, %b;", "b32", &["u32", "u32"], |v| {
        let (a, b) = (v[0] & 31, v[1] & 31);
        (0..32).filter(|i| *i >= a && *i < a + b).fold(0, |r, i| r | 1 << i)
    }));
    check(&cases);
}

#[test]
fn bytes() {
    let mut cases = Vec::new();
    let byte = |v: &[u64], i: u64| (v[0] | v[1] << 32) >> (8 * i) & 0xff;
    cases.push(case("prmt.b32 %d, %a, %b, %c;", "b32", &["b32", "b32", "b32"], move |v| {
        (0..4).fold(0, |r, i| {
            let sel = v[2] >> (4 * i) & 15;
            let b = byte(v, sel & 7);
            let b = if sel & 8 != 0 { if b & 0x80 != 0 { 0xff } else { 0 } } else { b };
            r | b << (8 * i)
        })
    }));
    for sel in [0x3210u64, 0x7654, 0x5410, 0x7632, 0x0123, 0xba98] {
        cases.push(case(&format!("prmt.b32 %d, %a, %b, {sel};"), "b32", &["b32", "b32"], move |v| {
            (0..4).fold(0, |r, i| {
                let s = sel >> (4 * i) & 15;
                let b = byte(v, s & 7);
                r | (if s & 8 != 0 { (b >> 7) * 0xff } else { b }) << (8 * i)
            })
        }));
    }
    // The tables of the ISA document, most significant byte first.
    let tables: [(&str, [[u64; 4]; 4]); 6] = [
        ("f4e", [[3, 2, 1, 0], [4, 3, 2, 1], [5, 4, 3, 2], [6, 5, 4, 3]]),
        ("b4e", [[5, 6, 7, 0], [6, 7, 0, 1], [7, 0, 1, 2], [0, 1, 2, 3]]),
        ("rc8", [[0, 0, 0, 0], [1, 1, 1, 1], [2, 2, 2, 2], [3, 3, 3, 3]]),
        ("ecl", [[3, 2, 1, 0], [3, 2, 1, 1], [3, 2, 2, 2], [3, 3, 3, 3]]),
        ("ecr", [[0, 0, 0, 0], [1, 1, 1, 0], [2, 2, 1, 0], [3, 2, 1, 0]]),
        ("rc16", [[1, 0, 1, 0], [3, 2, 3, 2], [1, 0, 1, 0], [3, 2, 3, 2]]),
    ];
    for (mode, table) in tables {
        cases.push(case(
            &format!("prmt.b32.{mode} %d, %a, %b, %c;"),
            "b32",
            &["b32", "b32", "b32"],
            move |v| {
                let row = table[(v[2] & 3) as usize];
                row.iter().fold(0, |r, i| r << 8 | byte(v, *i))
            },
        ));
    }
    let part = |v: u64, at: u32, len: u32, signed: bool| {
        let x = (v >> at) & ((1 << len) - 1);
        if signed && x >> (len - 1) == 1 { x as i64 - (1 << len) } else { x as i64 }
    };
    for (at, bt) in [("u32", "u32"), ("u32", "s32"), ("s32", "u32"), ("s32", "s32")] {
        let (sa, sb) = (at == "s32", bt == "s32");
        cases.push(case(
            &format!("dp4a.{at}.{bt} %d, %a, %b, %c;"),
            "b32",
            &["b32", "b32", "b32"],
            move |v| {
                let sum: i64 = (0..4).map(|i| part(v[0], 8 * i, 8, sa) * part(v[1], 8 * i, 8, sb)).sum();
                mask("b32", (v[2] as i64 + sum) as u64)
            },
        ));
        for (half, first) in [("lo", 0), ("hi", 2)] {
            cases.push(case(
                &format!("dp2a.{half}.{at}.{bt} %d, %a, %b, %c;"),
                "b32",
                &["b32", "b32", "b32"],
                move |v| {
                    let sum: i64 =
                        (0..2).map(|i| part(v[0], 16 * i, 16, sa) * part(v[1], 8 * (i + first), 8, sb)).sum();
                    mask("b32", (v[2] as i64 + sum) as u64)
                },
            ));
        }
    }
    for ty in ["u16x2", "s16x2"] {
        let signed = ty == "s16x2";
        let lanes = move |v: &[u64], f: &dyn Fn(i64, i64) -> i64| {
            let lane =
                |i: u32| f(part(v[0], 16 * i, 16, signed), part(v[1], 16 * i, 16, signed)) as u64 & 0xffff;
            lane(0) | lane(1) << 16
        };
        cases.push(case(&format!("add.{ty} %d, %a, %b;"), "b32", &["b32", "b32"], move |v| {
            lanes(v, &|a, b| a + b)
        }));
        cases.push(case(&format!("min.{ty} %d, %a, %b;"), "b32", &["b32", "b32"], move |v| {
            lanes(v, &|a, b| a.min(b))
        }));
        cases.push(case(&format!("max.{ty} %d, %a, %b;"), "b32", &["b32", "b32"], move |v| {
            lanes(v, &|a, b| a.max(b))
        }));
        if signed {
            cases.push(case("max.relu.s16x2 %d, %a, %b;", "b32", &["b32", "b32"], move |v| {
                lanes(v, &|a, b| a.max(b).max(0))
            }));
        }
    }
    for (n, width) in [(4u32, 8u32), (2, 16)] {
        let lanes = move |v: &[u64], f: &dyn Fn(i64, i64) -> i64, signed: bool| -> Vec<i64> {
            (0..n)
                .map(|i| f(part(v[0], i * width, width, signed), part(v[1], i * width, width, signed)))
                .collect()
        };
        let join = move |l: Vec<i64>| {
            l.iter().rev().fold(0u64, |r, x| r << width | (*x as u64 & ((1 << width) - 1)))
        };
        let abc = ["b32", "b32", "b32"];
        cases.push(case(&format!("vabsdiff{n}.u32.u32.u32.add %d, %a, %b, %c;"), "b32", &abc, move |v| {
            mask("b32", v[2].wrapping_add(lanes(v, &|a, b| (a - b).abs(), false).iter().sum::<i64>() as u64))
        }));
        cases.push(case(&format!("vabsdiff{n}.u32.u32.u32 %d, %a, %b, %c;"), "b32", &abc, move |v| {
            join(lanes(v, &|a, b| (a - b).abs(), false))
        }));
        cases.push(case(&format!("vadd{n}.s32.s32.s32.sat %d, %a, %b, %c;"), "b32", &abc, move |v| {
            join(lanes(v, &|a, b| (a + b).clamp(-(1 << (width - 1)), (1 << (width - 1)) - 1), true))
        }));
        cases.push(case(&format!("vsub{n}.u32.u32.u32.sat %d, %a, %b, %c;"), "b32", &abc, move |v| {
            join(lanes(v, &|a, b| (a - b).max(0), false))
        }));
        cases.push(case(&format!("vmax{n}.s32.s32.s32 %d, %a, %b, %c;"), "b32", &abc, move |v| {
            join(lanes(v, &|a, b| a.max(b), true))
        }));
        cases.push(case(&format!("vmin{n}.u32.u32.u32 %d, %a, %b, %c;"), "b32", &abc, move |v| {
            join(lanes(v, &|a, b| a.min(b), false))
        }));
    }
    check(&cases);
}

#[test]
fn comparisons_and_selections() {
    let mut cases = Vec::new();
    for ty in ["u16", "s16", "u32", "s32", "u64", "s64"] {
        for cmp in ["eq", "ne", "lt", "le", "gt", "ge"] {
            let f = move |a: i128, b: i128| match cmp {
                "eq" => a == b,
                "ne" => a != b,
                "lt" => a < b,
                "le" => a <= b,
                "gt" => a > b,
                _ => a >= b,
            };
            cases.push(case(&format!("setp.{cmp}.{ty} %d, %a, %b;"), "pred", &[ty, ty], move |v| {
                u64::from(f(num(ty, v[0]), num(ty, v[1])))
            }));
            if ty == "s32" {
                for combine in ["and", "or", "xor"] {
                    let g = move |p: bool, c: bool| match combine {
                        "and" => p && c,
                        "or" => p || c,
                        _ => p != c,
                    };
                    cases.push(case(
                        &format!("setp.{cmp}.{combine}.s32 %p|%d, %a, %b, !%c;"),
                        "pred",
                        &[ty, ty, "pred"],
                        move |v| u64::from(g(!f(num(ty, v[0]), num(ty, v[1])), v[2] == 0)),
                    ));
                    cases.push(case(
                        &format!("setp.{cmp}.{combine}.s32 %d|%p, %a, %b, %c;"),
                        "pred",
                        &[ty, ty, "pred"],
                        move |v| u64::from(g(f(num(ty, v[0]), num(ty, v[1])), v[2] == 1)),
                    ));
                }
                cases.push(case(&format!("set.{cmp}.u32.s32 %d, %a, %b;"), "u32", &[ty, ty], move |v| {
                    if f(num(ty, v[0]), num(ty, v[1])) { 0xffff_ffff } else { 0 }
                }));
                cases.push(case(&format!("set.{cmp}.f32.s32 %d, %a, %b;"), "f32", &[ty, ty], move |v| {
                    if f(num(ty, v[0]), num(ty, v[1])) { 0x3f80_0000 } else { 0 }
                }));
            }
        }
        cases.push(case(&format!("selp.{ty} %d, %a, %b, %c;"), ty, &[ty, ty, "pred"], |v| {
            if v[2] == 1 { v[0] } else { v[1] }
        }));
        cases.push(case(&format!("slct.{ty}.s32 %d, %a, %b, %c;"), ty, &[ty, ty, "s32"], |v| {
            if v[2] as u32 as i32 >= 0 { v[0] } else { v[1] }
        }));
    }
    for (cmp, f) in [("lo", "lt"), ("ls", "le"), ("hi", "gt"), ("hs", "ge")] {
        cases.push(case(&format!("setp.{cmp}.u32 %d, %a, %b;"), "pred", &["u32", "u32"], move |v| {
            u64::from(match f {
                "lt" => v[0] < v[1],
                "le" => v[0] <= v[1],
                "gt" => v[0] > v[1],
                _ => v[0] >= v[1],
            })
        }));
    }
    check(&cases);
}

#[test]
fn moves() {
    let cases = vec![
        case("mov.b64 %d, {%a, %b};", "b64", &["b32", "b32"], |v| v[0] | v[1] << 32),
        case("mov.b64 %d, {%a, %b, %c, %e};", "b64", &["b16", "b16", "b16", "b16"], |v| {
            v[0] | v[1] << 16 | v[2] << 32 | v[3] << 48
        }),
        case("mov.b32 %d, {%a, %b};", "b32", &["b16", "b16"], |v| v[0] | v[1] << 16),
        case("mov.b64 {%t0, %d}, %a;", "b32", &["b64"], |v| v[0] >> 32),
        case("mov.b64 {%d, _}, %a;", "b32", &["b64"], |v| v[0] & 0xffff_ffff),
        case("mov.b32 {%h0, %d}, %a;", "b16", &["b32"], |v| v[0] >> 16),
        case("mov.b64 {%h0, %h1, %d, %h3}, %a;", "b16", &["b64"], |v| v[0] >> 32 & 0xffff),
        case("mov.b32 %d, %a;", "b32", &["f32"], |v| v[0]),
        case("mov.b32 %d, %a;", "f32", &["b32"], |v| v[0]),
        case("mov.b64 %d, {%a, %b};", "f64", &["b32", "b32"], |v| v[0] | v[1] << 32),
        case("mov.f32 %d, 0f3F800000;", "f32", &["b32"], |_| 0x3f80_0000),
        case("mov.f64 %d, 0d3FF8000000000000;", "f64", &["b32"], |_| 0x3ff8_0000_0000_0000),
        case("mov.b32 %d, 0f40490FDB;", "b32", &["b32"], |_| 0x4049_0fdb),
        case("mov.u32 %d, -1;", "u32", &["b32"], |_| 0xffff_ffff),
        case("mov.pred %d, %a;", "pred", &["pred"], |v| v[0]),
        // A guard that is false keeps the old value.
        case("mov.u32 %d, 7; @%a mov.u32 %d, %b; @!%a add.u32 %d, %d, 1;", "u32", &["pred", "u32"], |v| {
            if v[0] == 1 { v[1] } else { 8 }
        }),
        case(
            "setp.ne.u32 %p, %a, 0; @%p mul.lo.u32 %t1, %a, 3; @!%p mov.u32 %t1, 99; mov.u32 %d, %t1;",
            "u32",
            &["u32"],
            |v| {
                if v[0] == 0 { 99 } else { (v[0] * 3) & 0xffff_ffff }
            },
        ),
        // Floats in registers of bit type, as compilers for sm_100 write them.
        case(
            "mov.b32 %t0, %a; mov.b32 %t1, %b; add.rn.f32 %t2, %t0, %t1; mov.b32 %d, %t2;",
            "f32",
            &["f32", "f32"],
            |v| u64::from((f32::from_bits(v[0] as u32) + f32::from_bits(v[1] as u32)).to_bits()),
        ),
    ];
    check(&cases);
}
