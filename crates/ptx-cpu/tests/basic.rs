//! Whole kernels: memory, control flow, calls, suspension.

mod common;

use common::{Buffer, run};

#[test]
fn vector_add() {
    let n = 1000u64;
    let a = Buffer::new(&(0..n).map(|i| u64::from((i as f32).to_bits()) | u64::from((0.5f32).to_bits()) << 32).collect::<Vec<_>>());
    let c = Buffer::zeroed(n as usize);
    run(
        r"
.visible .entry k(.param .u64 a, .param .u64 c, .param .u32 n)
{
    .reg .pred %p<2>;
    .reg .b32 %r<6>;
    .reg .f32 %f<4>;
    .reg .b64 %rd<8>;
    ld.param.u64 %rd1, [a];
    ld.param.u64 %rd2, [c];
    ld.param.u32 %r1, [n];
    mov.u32 %r2, %ctaid.x;
    mov.u32 %r3, %ntid.x;
    mov.u32 %r4, %tid.x;
    mad.lo.s32 %r5, %r2, %r3, %r4;
    setp.ge.s32 %p1, %r5, %r1;
    @%p1 bra DONE;
    cvta.to.global.u64 %rd3, %rd1;
    cvta.to.global.u64 %rd4, %rd2;
    mul.wide.s32 %rd5, %r5, 8;
    add.s64 %rd6, %rd3, %rd5;
    ld.global.f32 %f1, [%rd6];
    ld.global.f32 %f2, [%rd6+4];
    add.f32 %f3, %f1, %f2;
    add.s64 %rd7, %rd4, %rd5;
    st.global.f32 [%rd7], %f3;
DONE:
    ret;
}",
        8,
        128,
        &[a.address, c.address, n],
    )
    .unwrap();
    for (i, w) in c.words().iter().enumerate() {
        assert_eq!(f32::from_bits(*w as u32), i as f32 + 0.5);
    }
}
