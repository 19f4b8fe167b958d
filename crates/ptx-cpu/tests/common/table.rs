//! Differential tests of single instructions: each case is an instruction, the types of its operands, and what it should do, written
//! down independently of the code generator. All cases of a table are kernels of one module.

use super::{Buffer, HEADER, Launch, launch, load};

/// How a result is compared.
#[derive(Clone, Copy, PartialEq)]
pub enum Match {
    Exact,
    /// Relative error of f32 results (absolute below 1).
    Near32(f32),
}

pub type Reference = Box<dyn Fn(&[u64]) -> u64>;

pub struct Case {
    /// `add.s32 %d, %a, %b;` with operands %a, %b, %c, %e.
    pub text: String,
    pub dst: &'static str,
    pub srcs: Vec<&'static str>,
    pub reference: Reference,
    pub compare: Match,
}

pub fn case(
    text: &str,
    dst: &'static str,
    srcs: &[&'static str],
    reference: impl Fn(&[u64]) -> u64 + 'static,
) -> Case {
    Case {
        text: text.into(),
        dst,
        srcs: srcs.to_vec(),
        reference: Box::new(reference),
        compare: Match::Exact,
    }
}

pub fn near(text: &str, srcs: &[&'static str], error: f32, reference: impl Fn(f32) -> f32 + 'static) -> Case {
    Case {
        text: text.into(),
        dst: "f32",
        srcs: srcs.to_vec(),
        reference: Box::new(move |v| u64::from(reference(f32::from_bits(v[0] as u32)).to_bits())),
        compare: Match::Near32(error),
    }
}

pub fn bits(ty: &str) -> u32 {
    match ty {
        "pred" => 1,
        "f16x2" | "bf16x2" => 32,
        "bf16" => 16,
        t => t[1..].parse().unwrap(),
    }
}

pub fn mask(ty: &str, v: u64) -> u64 {
    if bits(ty) == 64 { v } else { v & ((1 << bits(ty)) - 1) }
}

/// Register type that holds a value of this type.
fn reg(ty: &str) -> String {
    match ty {
        "f32" | "f64" | "pred" => ty.to_string(),
        // There are no 8-bit registers in compiled code.
        "s8" | "u8" | "b8" => "b16".into(),
        t => format!("b{}", bits(t)),
    }
}

pub fn edges(ty: &str) -> Vec<u64> {
    let f = |list: &[f64]| -> Vec<f64> { list.to_vec() };
    let floats = f(&[
        0.0,
        -0.0,
        1.0,
        -1.0,
        0.5,
        -0.5,
        1.5,
        2.5,
        -2.5,
        3.0,
        0.1,
        -0.3,
        3.25,
        100.25,
        -1000.75,
        65504.0,
        65520.0,
        1e10,
        -3e9,
        2147483648.0,
        4294967296.0,
        9.2e18,
        1.9e19,
        -1e30,
        f64::INFINITY,
        f64::NEG_INFINITY,
        f64::NAN,
        1e-8,
        -1e-5,
    ]);
    let mut list: Vec<u64> = match ty {
        "f32" => {
            let special = [
                1u32,
                0x8000_0001,
                0x007f_ffff,
                0x0080_0000,
                0x7f7f_ffff,
                0xff7f_ffff,
                0x3f80_0001,
                0x3f7f_ffff,
                0x33800000,
            ];
            let own = special.into_iter().map(u64::from);
            floats.iter().map(|v| u64::from((*v as f32).to_bits())).chain(own).collect()
        }
        "f64" => {
            let special = [
                1u64,
                0x8000_0000_0000_0001,
                0x000f_ffff_ffff_ffff,
                0x0010_0000_0000_0000,
                0x7fef_ffff_ffff_ffff,
                0x3ff0_0000_0000_0001,
            ];
            floats.iter().map(|v| v.to_bits()).chain(special).collect()
        }
        "f16" | "f16x2" => {
            let one: Vec<u64> = [
                0u64, 0x8000, 1, 0x8001, 0x3ff, 0x400, 0x3c00, 0xbc00, 0x3c01, 0x3bff, 0x3800, 0x4200,
                0x4248, 0x7bff, 0xfbff, 0x7c00, 0xfc00, 0x7e00, 0x1400, 0xc900, 0x2e66,
            ]
            .to_vec();
            if ty == "f16" {
                one
            } else {
                one.iter().enumerate().map(|(i, v)| v | one[(i * 7 + 3) % one.len()] << 16).collect()
            }
        }
        "bf16" | "bf16x2" => {
            let one: Vec<u64> = [
                0u64, 0x8000, 1, 0x7f, 0x80, 0x3f80, 0xbf80, 0x3f81, 0x3f7f, 0x4049, 0x7f7f, 0xff7f, 0x7f80,
                0xff80, 0x7fc0, 0x4300,
            ]
            .to_vec();
            if ty == "bf16" {
                one
            } else {
                one.iter().enumerate().map(|(i, v)| v | one[(i * 5 + 3) % one.len()] << 16).collect()
            }
        }
        "pred" => vec![0, 1],
        _ => {
            let mut list: Vec<u64> = vec![
                0,
                1,
                2,
                3,
                5,
                7,
                15,
                24,
                31,
                32,
                33,
                40,
                63,
                64,
                65,
                0x7f,
                0x80,
                0xff,
                0x100,
                0x7fff,
                0x8000,
                0xffff,
                0x7fff_ffff,
                0x8000_0000,
                0x8000_0001,
                0xffff_fffe,
                0xffff_ffff,
                0x1234_5678,
                0xdead_beef,
                0x00ff_00ff,
            ];
            if bits(ty) == 64 {
                list.extend([
                    0x1_0000_0000,
                    0x7fff_ffff_ffff_ffff,
                    0x8000_0000_0000_0000,
                    0x8000_0000_0000_0001,
                    u64::MAX,
                    u64::MAX - 1,
                    0x0123_4567_89ab_cdef,
                    0xfedc_ba98_7654_3210,
                ]);
            } else {
                list.extend(list.clone().iter().map(|v| v.wrapping_neg()));
            }
            list
        }
    };
    list.iter_mut().for_each(|v| *v = mask(ty, *v));
    list.sort_unstable();
    list.dedup();
    list
}

/// A small generator of pseudo-random words.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }
}

fn tuples(srcs: &[&'static str]) -> Vec<Vec<u64>> {
    let lists: Vec<Vec<u64>> = srcs.iter().map(|t| edges(t)).collect();
    let total: usize = lists.iter().map(Vec::len).product();
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let mut out: Vec<Vec<u64>> = Vec::new();
    if total <= 4000 {
        for i in 0..total {
            let mut rest = i;
            out.push(
                lists
                    .iter()
                    .map(|l| {
                        let v = l[rest % l.len()];
                        rest /= l.len();
                        v
                    })
                    .collect(),
            );
        }
    } else {
        for _ in 0..3000 {
            out.push(lists.iter().map(|l| l[random.next() as usize % l.len()]).collect());
        }
    }
    for _ in 0..300 {
        out.push(srcs.iter().map(|t| mask(t, random.next())).collect());
    }
    out
}

fn kernel(number: usize, case: &Case) -> String {
    let names = ["a", "b", "c", "e"];
    let mut text = format!(
        ".visible .entry k{number}(.param .u64 in, .param .u64 out, .param .u64 n)\n{{\n.reg .b64 %in, %out, %n, %i, %at, %w, %q;\n.reg .b32 %r<4>;\n.reg .pred %done, %p, %p2;\n.reg .b16 %h<9>; .reg .b32 %t<9>; .reg .b64 %x<9>;\n"
    );
    for (name, ty) in names.iter().zip(&case.srcs) {
        text += &format!(".reg .{} %{name};\n", reg(ty));
    }
    text += &format!(".reg .{} %d;\n", reg(case.dst));
    text += "ld.param.u64 %in, [in]; ld.param.u64 %out, [out]; ld.param.u64 %n, [n];\n\
             mov.u32 %r0, %ctaid.x; mov.u32 %r1, %ntid.x; mov.u32 %r2, %tid.x; mad.lo.u32 %r3, %r0, %r1, %r2; cvt.u64.u32 %i, %r3;\n\
             setp.ge.u64 %done, %i, %n; @%done ret;\n";
    text += &format!("mad.lo.u64 %at, %i, {}, %in;\n", case.srcs.len() * 8);
    for (i, (name, ty)) in names.iter().zip(&case.srcs).enumerate() {
        let offset = i * 8;
        text += &match *ty {
            "pred" => format!("ld.global.u64 %w, [%at+{offset}]; setp.ne.u64 %{name}, %w, 0;\n"),
            "f32" | "f64" => format!("ld.global.{ty} %{name}, [%at+{offset}];\n"),
            // Whatever is above the low 8 bits must not matter.
            "s8" | "u8" | "b8" => {
                format!("ld.global.b16 %{name}, [%at+{offset}]; or.b16 %{name}, %{name}, 0x5500;\n")
            }
            t => format!("ld.global.b{} %{name}, [%at+{offset}];\n", bits(t)),
        };
    }
    text += &case.text;
    text += "\nmad.lo.u64 %at, %i, 8, %out; mov.u64 %w, 0;\n";
    text += &match case.dst {
        "pred" => "selp.u64 %w, 1, 0, %d; st.global.u64 [%at], %w;\n".to_string(),
        "f32" | "f64" => format!("st.global.u64 [%at], %w; st.global.{} [%at], %d;\n", case.dst),
        t => format!("st.global.u64 [%at], %w; st.global.b{} [%at], %d;\n", bits(&reg(t))),
    };
    text + "ret;\n}\n"
}

fn is_nan(ty: &str, v: u64) -> bool {
    match ty {
        "f32" => f32::from_bits(v as u32).is_nan(),
        "f64" => f64::from_bits(v).is_nan(),
        "f16" => v & 0x7fff > 0x7c00,
        "bf16" => v & 0x7fff > 0x7f80,
        _ => false,
    }
}

fn same(case: &Case, got: u64, want: u64) -> bool {
    match (case.compare, case.dst) {
        (Match::Near32(error), _) => {
            let (g, w) = (f32::from_bits(got as u32), f32::from_bits(want as u32));
            (g.is_nan() && w.is_nan()) || g == w || (g - w).abs() <= error * w.abs().max(1.0)
        }
        (_, "f16x2") => (0..2).all(|i| lane_same("f16", got >> (16 * i) & 0xffff, want >> (16 * i) & 0xffff)),
        (_, "bf16x2") => {
            (0..2).all(|i| lane_same("bf16", got >> (16 * i) & 0xffff, want >> (16 * i) & 0xffff))
        }
        (_, ty) => lane_same(ty, got, want),
    }
}

fn lane_same(ty: &str, got: u64, want: u64) -> bool {
    got == want || (is_nan(ty, got) && is_nan(ty, want))
}

/// Runs all cases; panics with the first differences of every case that fails.
pub fn check(cases: &[Case]) {
    let text: String =
        HEADER.to_string() + &cases.iter().enumerate().map(|(i, c)| kernel(i, c)).collect::<String>();
    let program = load(&text).unwrap_or_else(|e| panic!("{e}"));
    let mut failures = Vec::new();
    for (i, case) in cases.iter().enumerate() {
        let tuples = tuples(&case.srcs);
        let words: Vec<u64> = tuples.iter().flatten().copied().collect();
        let input = Buffer::new(&words);
        let output = Buffer::new(&vec![0xcccc_cccc_cccc_cccc; tuples.len()]);
        let n = tuples.len() as u64;
        let params = [input.address, output.address, n].iter().flat_map(|p| p.to_le_bytes()).collect();
        let kernel = format!("k{i}");
        let grid = tuples.len().div_ceil(256) as u32;
        launch(
            &program,
            &Launch { kernel: &kernel, grid, block: 256, shared: 0, cooperative: false, params },
        )
        .unwrap();
        let wrong: Vec<String> = tuples
            .iter()
            .zip(output.words())
            .filter_map(|(t, got)| {
                let want = (case.reference)(t);
                (!same(case, got, want)).then(|| format!("{t:x?} -> {got:#x}, expected {want:#x}"))
            })
            .collect();
        if !wrong.is_empty() {
            failures.push(format!(
                "{}  ({} of {}): {}",
                case.text,
                wrong.len(),
                tuples.len(),
                wrong[..wrong.len().min(3)].join("; ")
            ));
        }
    }
    assert!(
        failures.is_empty(),
        "{} of {} cases fail:\n{}",
        failures.len(),
        cases.len(),
        failures.join("\n")
    );
}
