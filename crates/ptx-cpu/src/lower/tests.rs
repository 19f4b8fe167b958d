//! Which forms the decoder accepts.

use super::decode_op;

/// Forms that real programs contain (629 programs of four suites for sm_75, 137 for sm_90): all but these groups are supported.
#[test]
fn forms_of_real_programs() {
    let unsupported: Vec<&str> = include_str!("../../tests/data/forms.txt")
        .lines()
        .filter(|form| decode_op(form).is_none())
        .filter(|form| {
            ![
                "tex.",
                "sust.",
                "suld.",
                "wmma.",
                "mbarrier.",
                "barrier.cluster.",
                "cp.async.bulk.",
                "cp.async.mbarrier.",
            ]
            .iter()
            .any(|group| form.starts_with(group))
        })
        .collect();
    assert!(unsupported.is_empty(), "{unsupported:#?}");
}

#[test]
fn half_understood_forms_are_refused() {
    for form in [
        "add.rn.s32",
        "add.sat.u32",
        "add.rn.frobnicate.f32",
        "mul.s32",
        "mul.wide.s64",
        "ld.global.v4.f64x",
        "ld.global.v8.f64",
        "ld.global.pred",
        "st.const.u32",
        "atom.global.add.b32",
        "atom.global.v2.add.f32",
        "atom.local.add.u32",
        "cvt.f16.f32",
        "cvt.rn.s32.f32.extra",
        "cvt.rn.satfinite.e4m3x2.f32",
        "cvt.s32.f32",
        "setp.ltu.s32",
        "min.rn.f32",
        "min.f32x2",
        "sub.s16x2",
        "tex.2d.v4.f32.f32",
        "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32",
        "redux.sync.min.f32",
        "mov.b128x",
        "bar.red.xor.pred",
    ] {
        assert_eq!(decode_op(form), None, "{form}");
    }
}
