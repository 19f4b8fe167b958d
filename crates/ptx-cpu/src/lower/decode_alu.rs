//! Forms without side effects: arithmetic, comparisons, conversions.

use ptx::{ScalarType, ScalarType::*};

use super::decode::{Bind, Decoded, Srcs};
use super::mods::Mods;
use crate::ir::{BoolOp, CarryOp, Cmp, CvtRnd, FloatMode, FloatOp, IntOp, Op, Rnd, TestOp, VideoOp};

pub fn alu(op: Op, types: &[ScalarType]) -> Decoded {
    Some((op, Bind::Alu(Srcs::new(types))))
}

/// Types that the code generator computes with.
fn is_arith_float(ty: ScalarType) -> bool {
    matches!(ty, F16 | F16x2 | Bf16 | Bf16x2 | F32 | F32x2 | F64)
}

fn is_int(ty: ScalarType) -> bool {
    matches!(ty, U16 | S16 | U32 | S32 | U64 | S64)
}

fn is_bits(ty: ScalarType) -> bool {
    matches!(ty, B16 | B32 | B64)
}

/// The type of twice the width.
fn wider(ty: ScalarType) -> Option<ScalarType> {
    Some(match ty {
        U16 => U32,
        S16 => S32,
        U32 => U64,
        S32 => S64,
        _ => return None,
    })
}

pub fn arith(m: &mut Mods<'_>) -> Decoded {
    let opcode = &*m.form().opcode;
    let float = m.form().types.first().is_some_and(|t| t.is_float());
    if float {
        return float_arith(m);
    }
    let which = m.take_any(&["hi", "lo", "wide"]);
    let sat = m.take("sat");
    let relu = m.take("relu");
    let cc = m.take("cc");
    let ty = m.ty()?;
    let pair = matches!(ty, U16x2 | S16x2) && matches!(opcode, "add" | "min" | "max") && !cc;
    if !(is_int(ty) || pair)
        || (sat && ty != S32)
        || (relu && !matches!((opcode, ty), ("min" | "max", S32 | S16x2)))
    {
        return None;
    }
    let multiply = matches!(opcode, "mul" | "mad" | "madc");
    if multiply != which.is_some() {
        return None;
    }
    let (hi, wide) = (which == Some(0), which == Some(2));
    if cc || opcode.ends_with('c') {
        // Carry chains exist for 32 and 64 bits.
        if !matches!(ty, U32 | S32 | U64 | S64) || sat || wide {
            return None;
        }
        let cin = opcode.ends_with('c');
        let (op, n) = match opcode {
            "add" | "addc" => (CarryOp::Add, 2),
            "sub" | "subc" => (CarryOp::Sub, 2),
            "mad" | "madc" if hi => (CarryOp::MadHi, 3),
            "mad" | "madc" => (CarryOp::Mad, 3),
            _ => return None,
        };
        return Some((Op::Carry(op, ty), Bind::Carry { srcs: Srcs::new(&[ty; 3][..n]), cin, cout: cc }));
    }
    let (op, n) = match opcode {
        "add" if sat => (IntOp::AddSat, 2),
        "add" => (IntOp::Add, 2),
        "sub" if sat => (IntOp::SubSat, 2),
        "sub" => (IntOp::Sub, 2),
        "mul" if sat => return None,
        "mul" if wide => {
            wider(ty)?;
            (IntOp::MulWide, 2)
        }
        "mul" if hi => (IntOp::MulHi, 2),
        "mul" => (IntOp::Mul, 2),
        "mad" if wide && !sat => return alu(Op::Int(IntOp::MadWide, ty), &[ty, ty, wider(ty)?]),
        "mad" if hi && sat => (IntOp::MadHiSat, 3),
        "mad" if hi => (IntOp::MadHi, 3),
        "mad" if !sat => (IntOp::Mad, 3),
        "div" if !sat => (IntOp::Div, 2),
        "abs" if !sat && ty.is_signed() => (IntOp::Abs, 1),
        "neg" if !sat && ty.is_signed() => (IntOp::Neg, 1),
        "min" if relu => (IntOp::MinRelu, 2),
        "max" if relu => (IntOp::MaxRelu, 2),
        "min" if !sat => (IntOp::Min, 2),
        "max" if !sat => (IntOp::Max, 2),
        _ => return None,
    };
    alu(Op::Int(op, ty), &[ty; 3][..n])
}

fn float_arith(m: &mut Mods<'_>) -> Decoded {
    let opcode = &*m.form().opcode;
    let rnd = m.rnd();
    let approx = m.take_any(&["approx", "full"]).is_some();
    m.ignore(&["noftz"]);
    let mode = FloatMode {
        rnd: rnd.unwrap_or(Rnd::Near),
        ftz: m.take("ftz"),
        sat: m.take("sat"),
        relu: m.take("relu"),
    };
    let nan = m.take("NaN");
    let xorsign = m.take("xorsign") & m.take("abs");
    let ty = m.ty()?;
    let small = !matches!(ty, F32 | F32x2 | F64);
    if ty == F32x2 && !matches!(opcode, "add" | "sub" | "mul" | "fma") {
        return None;
    }
    let minmax = matches!(opcode, "min" | "max");
    if !is_arith_float(ty)
        || (small && mode.rnd != Rnd::Near)
        || (mode.relu && !(small && opcode == "fma"))
        || ((nan || xorsign) && !minmax)
        || (minmax && (rnd.is_some() || mode.sat))
        || (mode.ftz && ty == F64)
        || (approx && !(opcode == "div" && ty == F32))
    {
        return None;
    }
    let (op, n) = match opcode {
        "add" => (FloatOp::Add, 2),
        "sub" => (FloatOp::Sub, 2),
        "mul" => (FloatOp::Mul, 2),
        "fma" | "mad" => (FloatOp::Fma, 3),
        "div" if !small && (approx || rnd.is_some()) => (FloatOp::Div, 2),
        "abs" if rnd.is_none() => (FloatOp::Abs, 1),
        "neg" if rnd.is_none() => (FloatOp::Neg, 1),
        "min" => (FloatOp::Min { nan, xorsign }, 2),
        "max" => (FloatOp::Max { nan, xorsign }, 2),
        _ => return None,
    };
    alu(Op::Float(op, ty, mode), &[ty; 3][..n])
}

pub fn integer(m: &mut Mods<'_>) -> Decoded {
    let opcode = &*m.form().opcode;
    let int = |op, ty, types: &[ScalarType]| alu(Op::Int(op, ty), types);
    match opcode {
        "rem" => {
            let ty = m.ty().filter(|t| is_int(*t))?;
            int(IntOp::Rem, ty, &[ty, ty])
        }
        "sad" => {
            let ty = m.ty().filter(|t| is_int(*t))?;
            int(IntOp::Sad, ty, &[ty, ty, ty])
        }
        "mul24" | "mad24" => {
            let hi = m.take_any(&["hi", "lo"])? == 0;
            let sat = m.take("sat");
            let ty = m.ty().filter(|t| matches!(t, U32 | S32))?;
            match (opcode, hi, sat) {
                ("mul24", false, false) => int(IntOp::Mul24, ty, &[ty, ty]),
                ("mul24", true, false) => int(IntOp::Mul24Hi, ty, &[ty, ty]),
                ("mad24", false, false) => int(IntOp::Mad24, ty, &[ty, ty, ty]),
                ("mad24", true, false) => int(IntOp::Mad24Hi, ty, &[ty, ty, ty]),
                ("mad24", true, true) if ty == S32 => int(IntOp::Mad24HiSat, ty, &[ty, ty, ty]),
                _ => None,
            }
        }
        "popc" | "clz" | "brev" => {
            let ty = m.ty().filter(|t| matches!(t, B32 | B64))?;
            let op = match opcode {
                "popc" => IntOp::Popc,
                "clz" => IntOp::Clz,
                _ => IntOp::Brev,
            };
            int(op, ty, &[ty])
        }
        "bfind" => {
            let op = if m.take("shiftamt") { IntOp::BfindShift } else { IntOp::Bfind };
            let ty = m.ty().filter(|t| matches!(t, U32 | S32 | U64 | S64))?;
            int(op, ty, &[ty])
        }
        "bfe" => {
            let ty = m.ty().filter(|t| matches!(t, U32 | S32 | U64 | S64))?;
            int(IntOp::Bfe, ty, &[ty, U32, U32])
        }
        "bfi" => {
            let ty = m.ty().filter(|t| matches!(t, B32 | B64))?;
            int(IntOp::Bfi, ty, &[ty, ty, U32, U32])
        }
        "bmsk" => {
            let op = [IntOp::BmskClamp, IntOp::BmskWrap][m.take_any(&["clamp", "wrap"])?];
            m.ty().filter(|t| *t == B32)?;
            int(op, B32, &[B32, B32])
        }
        "szext" => {
            let op = [IntOp::SzextClamp, IntOp::SzextWrap][m.take_any(&["clamp", "wrap"])?];
            let ty = m.ty().filter(|t| matches!(t, U32 | S32))?;
            int(op, ty, &[ty, U32])
        }
        "dp4a" => {
            let (a, b) = (m.ty()?, m.ty()?);
            [a, b].iter().all(|t| matches!(t, U32 | S32)).then_some(())?;
            int(IntOp::Dp4a(a == S32, b == S32), S32, &[B32, B32, B32])
        }
        "dp2a" => {
            let hi = m.take_any(&["hi", "lo"])? == 0;
            let (a, b) = (m.ty()?, m.ty()?);
            [a, b].iter().all(|t| matches!(t, U32 | S32)).then_some(())?;
            int(IntOp::Dp2a(a == S32, b == S32, hi), S32, &[B32, B32, B32])
        }
        "and" | "or" | "xor" | "not" => {
            let ty = m.ty().filter(|t| is_bits(*t) || *t == Pred)?;
            let (op, n) = match opcode {
                "and" => (IntOp::And, 2),
                "or" => (IntOp::Or, 2),
                "xor" => (IntOp::Xor, 2),
                _ => (IntOp::Not, 1),
            };
            int(op, ty, &[ty; 2][..n])
        }
        "cnot" => {
            let ty = m.ty().filter(|t| is_bits(*t))?;
            int(IntOp::Cnot, ty, &[ty])
        }
        "shl" => {
            let ty = m.ty().filter(|t| is_bits(*t))?;
            int(IntOp::Shl, ty, &[ty, U32])
        }
        "shr" => {
            let ty = m.ty().filter(|t| is_bits(*t) || is_int(*t))?;
            int(IntOp::Shr, ty, &[ty, U32])
        }
        "shf" => {
            let left = m.take_any(&["l", "r"])? == 0;
            let wrap = m.take_any(&["clamp", "wrap"])? == 1;
            m.ty().filter(|t| *t == B32)?;
            let op = match (left, wrap) {
                (true, true) => IntOp::ShfLeftWrap,
                (true, false) => IntOp::ShfLeftClamp,
                (false, true) => IntOp::ShfRightWrap,
                (false, false) => IntOp::ShfRightClamp,
            };
            int(op, B32, &[B32, B32, U32])
        }
        "lop3" => {
            m.ty().filter(|t| *t == B32)?;
            int(IntOp::Lop3, B32, &[B32, B32, B32, B32])
        }
        "prmt" => {
            let mode = m.take_any(&["f4e", "b4e", "rc8", "ecl", "ecr", "rc16"]).map_or(0, |i| i as u8 + 1);
            m.ty().filter(|t| *t == B32)?;
            int(IntOp::Prmt(mode), B32, &[B32, B32, B32])
        }
        _ => None,
    }
}

pub fn float(m: &mut Mods<'_>) -> Decoded {
    let opcode = &*m.form().opcode;
    if opcode == "testp" {
        const NAMES: [&str; 6] = ["finite", "infinite", "number", "notanumber", "normal", "subnormal"];
        const OPS: [TestOp; 6] = [
            TestOp::Finite,
            TestOp::Infinite,
            TestOp::Number,
            TestOp::NotANumber,
            TestOp::Normal,
            TestOp::Subnormal,
        ];
        let op = OPS[m.take_any(&NAMES)?];
        let ty = m.ty().filter(|t| matches!(t, F32 | F64))?;
        return alu(Op::Testp(op, ty), &[ty]);
    }
    let approx = m.take("approx");
    let rnd = m.rnd();
    let mode = FloatMode { rnd: rnd.unwrap_or(Rnd::Near), ftz: m.take("ftz"), ..FloatMode::PLAIN };
    let ty = m.ty()?;
    let wide = matches!(ty, F32 | F64);
    let (op, n) = match opcode {
        "rcp" if wide && approx != rnd.is_some() => (FloatOp::Rcp, 1),
        "sqrt" if wide && approx != rnd.is_some() => (FloatOp::Sqrt, 1),
        "rsqrt" if wide && approx => (FloatOp::Rsqrt, 1),
        "sin" if ty == F32 && approx => (FloatOp::Sin, 1),
        "cos" if ty == F32 && approx => (FloatOp::Cos, 1),
        "lg2" if ty == F32 && approx => (FloatOp::Lg2, 1),
        "ex2" if is_arith_float(ty) && !matches!(ty, F64 | F32x2) && approx => (FloatOp::Ex2, 1),
        "tanh" if is_arith_float(ty) && !matches!(ty, F64 | F32x2) && approx => (FloatOp::Tanh, 1),
        "copysign" if wide && rnd.is_none() && !approx && !mode.ftz => (FloatOp::CopySign, 2),
        _ => return None,
    };
    alu(Op::Float(op, ty, mode), &[ty; 2][..n])
}

const CMP_NAMES: [&str; 18] = [
    "eq", "ne", "lt", "le", "gt", "ge", "lo", "ls", "hi", "hs", "equ", "neu", "ltu", "leu", "gtu", "geu",
    "num", "nan",
];
const CMPS: [Cmp; 18] = [
    Cmp::Eq,
    Cmp::Ne,
    Cmp::Lt,
    Cmp::Le,
    Cmp::Gt,
    Cmp::Ge,
    Cmp::Lt,
    Cmp::Le,
    Cmp::Gt,
    Cmp::Ge,
    Cmp::Equ,
    Cmp::Neu,
    Cmp::Ltu,
    Cmp::Leu,
    Cmp::Gtu,
    Cmp::Geu,
    Cmp::Num,
    Cmp::Nan,
];

pub fn compare(m: &mut Mods<'_>) -> Decoded {
    let opcode = &*m.form().opcode;
    match opcode {
        "setp" | "set" => {
            let cmp = CMPS[m.take_any(&CMP_NAMES)?];
            let combine =
                m.take_any(&["and", "or", "xor"]).map(|i| [BoolOp::And, BoolOp::Or, BoolOp::Xor][i]);
            let ftz = m.take("ftz");
            let dst = if opcode == "set" { Some(m.ty()?) } else { None };
            let ty = m.ty()?;
            if !(is_arith_float(ty) && ty != F32x2 || is_bits(ty) || is_int(ty)) || (ftz && ty == F64) {
                return None;
            }
            if !ty.is_float() && !matches!(cmp, Cmp::Eq | Cmp::Ne | Cmp::Lt | Cmp::Le | Cmp::Gt | Cmp::Ge) {
                return None;
            }
            let packed = matches!(ty, F16x2 | Bf16x2);
            let bind = Bind::Compare { ty, combine: combine.is_some() };
            match dst {
                None => Some((Op::Setp { cmp, ty, ftz, combine }, bind)),
                Some(dst) => {
                    let fits = match dst {
                        U32 | S32 | F32 => !packed || dst != F32,
                        U16 | S16 => matches!(ty, F16 | Bf16),
                        F16 | Bf16 => !packed,
                        F16x2 | Bf16x2 => packed,
                        _ => false,
                    };
                    (fits && !(packed && combine.is_some()))
                        .then_some((Op::Set { cmp, ty, dst, ftz, combine }, bind))
                }
            }
        }
        "selp" => {
            let ty = m.ty().filter(|t| !matches!(t, Pred | B128) && t.size() >= 2)?;
            alu(Op::Selp(ty), &[ty, ty, Pred])
        }
        _ => {
            let ftz = m.take("ftz");
            let ty = m.ty().filter(|t| matches!(t.size(), 2 | 4 | 8) && *t != Pred)?;
            let cond = m.ty().filter(|t| matches!(t, S32 | F32))?;
            alu(Op::Slct { ty, cond, ftz }, &[ty, ty, cond])
        }
    }
}

pub fn cvt(m: &mut Mods<'_>) -> Decoded {
    if m.take("pack") {
        m.take("sat").then_some(())?;
        let dst = match m.take_any(&["u2", "s2", "u4", "s4"]) {
            Some(_) => return None,
            None => m.ty().filter(|t| matches!(t, U16 | S16 | U8 | S8))?,
        };
        m.ty().filter(|t| *t == S32)?;
        let with_c = m.ty().is_some();
        let types = [S32, S32, B32];
        return alu(Op::CvtPack { dst, with_c }, &types[..if with_c { 3 } else { 2 }]);
    }
    let rnd = match m.take_any(&["rn", "rz", "rm", "rp", "rni", "rzi", "rmi", "rpi", "rna"]) {
        None => CvtRnd::None,
        Some(8) => CvtRnd::NearAway,
        Some(i) => {
            let mode = [Rnd::Near, Rnd::Zero, Rnd::Down, Rnd::Up][i % 4];
            if i < 4 { CvtRnd::Float(mode) } else { CvtRnd::Int(mode) }
        }
    };
    let (ftz, sat, relu) = (m.take("ftz"), m.take("sat"), m.take("relu"));
    m.ignore(&["satfinite"]);
    let satfinite = m.form().has("satfinite");
    let (dst, src) = (m.ty()?, m.ty()?);
    if matches!(dst, F16x2 | Bf16x2) && src == F32 {
        let CvtRnd::Float(rnd @ (Rnd::Near | Rnd::Zero)) = rnd else { return None };
        return if sat || ftz || satfinite { None } else { alu(Op::CvtPair { dst, rnd, relu }, &[F32, F32]) };
    }
    let plain = |t| matches!(t, U8 | S8 | U16 | S16 | U32 | S32 | U64 | S64 | F16 | Bf16 | F32 | F64);
    if satfinite {
        return None;
    }
    if dst == Tf32 {
        let ok = src == F32
            && !sat
            && !ftz
            && matches!(rnd, CvtRnd::NearAway | CvtRnd::Float(Rnd::Near | Rnd::Zero));
        return if ok { alu(Op::Cvt { dst, src, rnd, ftz, sat, relu }, &[src]) } else { None };
    }
    if !plain(dst) || !plain(src) || rnd == CvtRnd::NearAway {
        return None;
    }
    let ok = match (src.is_float(), dst.is_float()) {
        (false, false) => rnd == CvtRnd::None && !relu && !ftz,
        // 64-bit integers to bf16 would round twice.
        (false, true) => {
            matches!(rnd, CvtRnd::Float(_))
                && !relu
                && !(dst == Bf16
                    && (src.size() == 8 || !matches!(rnd, CvtRnd::Float(Rnd::Near)) && src.size() > 1))
        }
        (true, false) => matches!(rnd, CvtRnd::Int(_) | CvtRnd::Float(_)) && !relu,
        (true, true) => match rnd {
            CvtRnd::None => src.size() <= dst.size(),
            CvtRnd::Float(_) => true,
            CvtRnd::Int(_) => src == dst,
            CvtRnd::NearAway => false,
        },
    };
    // `.rn` of float to integer does not exist, but some old compilers wrote `.rz` for `.rzi`.
    let rnd = match rnd {
        CvtRnd::Float(r) if src.is_float() && !dst.is_float() => CvtRnd::Int(r),
        r => r,
    };
    if ok { alu(Op::Cvt { dst, src, rnd, ftz, sat, relu }, &[src]) } else { None }
}

pub fn video(m: &mut Mods<'_>) -> Decoded {
    let opcode = &*m.form().opcode;
    let (name, lane) = opcode.split_at(opcode.len() - 1);
    let op = match name {
        "vadd" => VideoOp::Add,
        "vsub" => VideoOp::Sub,
        "vabsdiff" => VideoOp::AbsDiff,
        "vmin" => VideoOp::Min,
        "vmax" => VideoOp::Max,
        _ => VideoOp::Avrg,
    };
    let (d, a, b) = (m.ty()?, m.ty()?, m.ty()?);
    [d, a, b].iter().all(|t| matches!(t, U32 | S32)).then_some(())?;
    let sat = m.take("sat");
    let accumulate = m.take("add");
    let op = Op::Video {
        op,
        lane: if lane == "2" { 2 } else { 1 },
        a_signed: a == S32,
        b_signed: b == S32,
        d_signed: d == S32,
        sat,
        accumulate,
    };
    // The lanes not selected by a mask come from c, as does the sum of an accumulating form; masks are not supported.
    alu(op, &[B32, B32, B32])
}
