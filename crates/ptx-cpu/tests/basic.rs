// Launches generated code directly in one place.
#![allow(unsafe_code)]
//! Whole kernels: memory, control flow, calls, suspension, faults.

mod common;

use common::{Buffer, HEADER, Launch, launch, load, machine, run};
use ptx_cpu::abi::FaultKind;
use ptx_cpu::engine::LaunchError;

fn fault_kind(result: Result<impl Sized, LaunchError>) -> FaultKind {
    match result {
        Err(LaunchError::Fault(fault)) => fault.kind,
        Err(e) => panic!("{e}"),
        Ok(_) => panic!("no fault"),
    }
}

#[test]
fn vector_add() {
    let n = 1000u64;
    let a = Buffer::new(
        &(0..n)
            .map(|i| u64::from((i as f32).to_bits()) | u64::from((0.5f32).to_bits()) << 32)
            .collect::<Vec<_>>(),
    );
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

/// A kernel body with the usual registers, `%out` (parameter 0), `%p1`.. and `%i` the index of the thread in its block.
fn kernel(body: &str) -> String {
    format!(
        ".visible .entry k(.param .u64 out, .param .u64 arg1, .param .u64 arg2)\n{{\n\
         .reg .pred %p<20>; .reg .b16 %h<20>; .reg .b32 %r<40>; .reg .b64 %rd<40>; .reg .f32 %f<20>; .reg .f64 %fd<20>;\n\
         .reg .b64 %out, %arg1, %arg2, %at; .reg .b32 %i;\n\
         ld.param.u64 %out, [out]; ld.param.u64 %arg1, [arg1]; ld.param.u64 %arg2, [arg2]; mov.u32 %i, %tid.x;\n\
         mad.wide.u32 %at, %i, 8, %out;\n{body}\nret;\n}}\n"
    )
}

fn run_body(
    before: &str,
    body: &str,
    block: u32,
    out: &Buffer,
    args: [u64; 2],
) -> Result<String, LaunchError> {
    run(&format!("{before}{}", kernel(body)), 1, block, &[out.address, args[0], args[1]])
        .map(|(_, text)| text)
}

#[test]
fn sub_word_memory() {
    let out = Buffer::zeroed(16);
    let input = Buffer::new(&[0x8182_8384_f5f6_f7f8, 0x0102_0304_0506_0708]);
    run_body(
        "",
        "ld.global.s8 %r1, [%arg1]; st.global.u32 [%out], %r1;\n\
         ld.global.u8 %r2, [%arg1]; st.global.u32 [%out+4], %r2;\n\
         ld.global.s16 %rd1, [%arg1+2]; st.global.u64 [%out+8], %rd1;\n\
         ld.global.s32 %rd2, [%arg1+4]; st.global.u64 [%out+16], %rd2;\n\
         ld.global.v4.u8 {%h1, %h2, %h3, %h4}, [%arg1]; st.global.v4.u8 [%out+24], {%h4, %h3, %h2, %h1};\n\
         ld.global.v2.u16 {%h1, %h2}, [%arg1+4]; st.global.v2.u16 [%out+28], {%h2, %h1};\n\
         ld.global.v2.u64 {%rd3, %rd4}, [%arg1]; st.global.v2.u64 [%out+32], {%rd4, %rd3};\n\
         ld.global.nc.v4.f32 {%f1, %f2, %f3, %f4}, [%arg1]; st.global.v4.f32 [%out+48], {%f4, %f3, %f2, %f1};\n\
         ld.volatile.global.v4.u32 {%r5, %r6, %r7, %r8}, [%arg1]; st.volatile.global.v4.u32 [%out+64], {%r5, %r6, %r7, %r8};\n\
         ld.relaxed.gpu.v2.u64 {%rd5, %rd6}, [%arg1]; st.relaxed.gpu.v2.u64 [%out+80], {%rd5, %rd6};\n\
         ld.acquire.sys.global.u8 %h5, [%arg1+1]; st.release.sys.global.u8 [%out+96], %h5;\n\
         st.global.u8 [%out+97], %r1; mov.b16 %h6, 0x1234; st.global.u8 [%out+98], %h6;\n\
         ld.volatile.global.v4.u8 {%h1, %h2, %h3, %h4}, [%arg1]; st.volatile.global.v4.u8 [%out+100], {%h4, %h3, %h2, %h1};",
        1,
        &out,
        [input.address, 0],
    )
    .unwrap();
    let w = out.words();
    assert_eq!(w[0], 0x0000_00f8_ffff_fff8);
    assert_eq!(w[1], 0xffff_ffff_ffff_f5f6);
    assert_eq!(w[2], 0xffff_ffff_8182_8384);
    assert_eq!(w[3], 0x8384_8182_f8f7_f6f5);
    assert_eq!(w[4..6], [0x0102_0304_0506_0708, 0x8182_8384_f5f6_f7f8]);
    assert_eq!(w[6..8], [0x0506_0708_0102_0304, 0xf5f6_f7f8_8182_8384]);
    assert_eq!(w[8..10], [0x8182_8384_f5f6_f7f8, 0x0102_0304_0506_0708]);
    assert_eq!(w[10..12], [0x8182_8384_f5f6_f7f8, 0x0102_0304_0506_0708]);
    assert_eq!(w[12], 0xf8f7_f6f5_0034_f8f7, "{:x}", w[12]);
}

#[test]
fn shared_local_and_constant_memory() {
    let out = Buffer::zeroed(64);
    let before = ".const .align 4 .u32 table[4] = {10, 20, 30, 40};\n\
                  .global .align 8 .u64 pointers[2] = {generic(data), generic(data)+8};\n\
                  .global .align 8 .b8 data[16] = {1, 0, 0, 0, 0, 0, 0, 0, 2};\n\
                  .global .f32 pi = 0f40490FDB;\n\
                  .shared .align 4 .b8 scratch[256];\n.extern .shared .align 16 .b8 dynamic[];\n";
    let body = ".local .align 16 .b8 depot[64]; .shared .align 8 .u64 own[32];\n\
         mov.u32 %r1, scratch; mad.lo.u32 %r2, %i, 4, %r1; st.shared.u32 [%r2], %i;\n\
         mov.u32 %r3, own; mad.lo.u32 %r4, %i, 8, %r3; cvt.u64.u32 %rd1, %i; st.shared.u64 [%r4], %rd1;\n\
         bar.sync 0;\n\
         xor.b32 %r5, %i, 31; mad.lo.u32 %r6, %r5, 4, %r1; ld.shared.u32 %r7, [%r6];\n\
         and.b32 %r8, %i, 3; mul.wide.u32 %rd2, %r8, 4; mov.u64 %rd3, table; add.u64 %rd4, %rd3, %rd2; ld.const.u32 %r9, [%rd4];\n\
         add.u32 %r10, %r7, %r9;\n\
         mov.u64 %rd5, depot; cvta.local.u64 %rd6, %rd5; st.u32 [%rd6+8], %r10; ld.local.u32 %r11, [depot+8];\n\
         st.local.v4.u32 [%rd5+16], {%r11, %r10, %r9, %r8}; ld.v4.u32 {%r12, %r13, %r14, %r15}, [%rd6+16];\n\
         cvt.u64.u32 %rd7, %r12; st.global.u64 [%at], %rd7;\n\
         ld.shared.u64 %rd8, [own+24]; ld.const.u32 %r16, [table+8]; ld.global.u64 %rd9, [pointers+8]; ld.u8 %r17, [%rd9];\n\
         cvta.shared.u64 %rd10, 4; ld.u32 %r18, [%rd10];\n\
         ld.global.f32 %f1, [pi]; cvt.rni.s32.f32 %r19, %f1;\n\
         mad.lo.u32 %r20, %r16, 1000, %r17; mad.lo.u32 %r20, %r18, 100, %r20; mad.lo.u32 %r20, %r19, 10000000, %r20;\n\
         cvt.u64.u32 %rd11, %r20; add.u64 %rd11, %rd11, %rd8; st.global.u64 [%at+256], %rd11;\n\
         mov.u32 %r21, dynamic; st.shared.u32 [%r21+12], 77; ld.shared.u32 %r22, [dynamic+12];";
    let program = load(&format!("{HEADER}{before}{}", kernel(body))).unwrap();
    let params: Vec<u8> = [out.address, 0, 0].iter().flat_map(|p| p.to_le_bytes()).collect();
    launch(&program, &Launch { kernel: "k", grid: 1, block: 32, shared: 64, cooperative: false, params })
        .unwrap();
    let kernel = program.kernel("k").unwrap();
    assert!(kernel.suspends);
    assert_eq!((kernel.static_shared_len, kernel.local_len), (512, 64));
    let (address, len) = program.global("table").unwrap();
    assert_eq!(len, 16);
    let mut bytes = [0; 16];
    machine().region.copy_out(address, &mut bytes).unwrap();
    assert_eq!(bytes[4], 20);
    let w = out.words();
    for i in 0..32u64 {
        assert_eq!(w[i as usize], (i ^ 31) + (i % 4 + 1) * 10);
        assert_eq!(w[32 + i as usize], 3 * 10_000_000 + 30 * 1000 + 100 + 2 + 3);
    }
}

/// Sum by halves with a barrier in the loop, and values that live across it.
#[test]
fn barrier_in_a_loop() {
    let out = Buffer::zeroed(256);
    let body = "mov.u32 %r1, buffer; mad.lo.u32 %r2, %i, 4, %r1; mul.lo.u32 %r3, %i, %i; st.shared.u32 [%r2], %r3;\n\
         mov.u32 %r4, 128; mov.f64 %fd1, 0d3FF8000000000000; mov.f32 %f1, 0f40000000; mov.u16 %h1, 77; setp.gt.u32 %p5, %i, 100;\n\
         LOOP: bar.sync 0; setp.ge.u32 %p1, %i, %r4; @%p1 bra SKIP;\n\
         add.u32 %r5, %i, %r4; mad.lo.u32 %r6, %r5, 4, %r1; ld.shared.u32 %r7, [%r6]; ld.shared.u32 %r8, [%r2];\n\
         add.u32 %r9, %r7, %r8; st.shared.u32 [%r2], %r9;\n\
         SKIP: shr.u32 %r4, %r4, 1; add.f64 %fd1, %fd1, 0d3FF0000000000000; add.f32 %f1, %f1, %f1; setp.ne.u32 %p2, %r4, 0; @%p2 bra LOOP;\n\
         bar.sync 0; ld.shared.u32 %r10, [buffer]; cvt.u64.u32 %rd1, %r10;\n\
         cvt.rzi.u64.f64 %rd2, %fd1; cvt.rzi.u64.f32 %rd3, %f1; cvt.u64.u16 %rd4, %h1; selp.u64 %rd5, 1, 0, %p5;\n\
         mad.lo.u64 %rd1, %rd2, 100000000, %rd1; mad.lo.u64 %rd1, %rd3, 1000000000, %rd1;\n\
         mad.lo.u64 %rd1, %rd4, 1000000000000, %rd1; mad.lo.u64 %rd1, %rd5, 1000000000000000, %rd1;\n\
         st.global.u64 [%at], %rd1;";
    run_body(".shared .align 4 .b8 buffer[1024];\n", body, 256, &out, [0, 0]).unwrap();
    let sum: u64 = (0..256u64).map(|i| i * i).sum();
    for (i, w) in out.words().iter().enumerate() {
        let above = u64::from(i > 100) * 1_000_000_000_000_000;
        assert_eq!(
            *w,
            sum + 9 * 100_000_000 + 512 * 1_000_000_000 + 77 * 1_000_000_000_000 + above,
            "thread {i}"
        );
    }
}

#[test]
fn warp_operations() {
    let out = Buffer::zeroed(32 * 16);
    let body = "mad.wide.u32 %at, %i, 128, %out; mul.lo.u32 %r1, %i, 10;\n\
         shfl.sync.down.b32 %r2|%p1, %r1, 4, 31, -1; selp.u32 %r3, 1, 0, %p1; st.global.v2.u32 [%at], {%r2, %r3};\n\
         shfl.sync.bfly.b32 %r4, %r1, 1, 31, -1; st.global.u32 [%at+8], %r4;\n\
         mov.f32 %f1, 0f3F800000; cvt.rn.f32.u32 %f2, %i; shfl.sync.idx.b32 %f3, %f2, 7, 31, -1; st.global.f32 [%at+12], %f3;\n\
         setp.lt.u32 %p2, %i, 5; vote.sync.ballot.b32 %r5, %p2, -1; st.global.u32 [%at+16], %r5;\n\
         vote.sync.any.pred %p3, !%p2, -1; vote.sync.all.pred %p4, %p2, -1; selp.u32 %r6, 1, 0, %p3; selp.u32 %r7, 1, 0, %p4;\n\
         st.global.v2.u32 [%at+24], {%r6, %r7};\n\
         shr.u32 %r8, %i, 3; match.any.sync.b32 %r9, %r8, -1; st.global.u32 [%at+32], %r9;\n\
         redux.sync.add.s32 %r10, %i, -1; st.global.u32 [%at+36], %r10;\n\
         activemask.b32 %r11; st.global.u32 [%at+40], %r11;\n\
         bar.red.popc.u32 %r12, 0, %p2; st.global.u32 [%at+44], %r12; bar.red.or.pred %p6, 0, %p2; selp.u32 %r13, 1, 0, %p6;\n\
         st.global.u32 [%at+48], %r13; mov.u32 %r14, %lanemask_lt; st.global.u32 [%at+52], %r14; bar.warp.sync -1;\n\
         mov.u32 %r15, %laneid; setp.gt.u32 %p7, %r15, 15; @%p7 shfl.sync.up.b32 %r1, %r15, 1, 0, 0xffff0000;\n\
         st.global.u32 [%at+56], %r1;";
    run_body("", body, 32, &out, [0, 0]).unwrap();
    for (i, c) in out.words32().chunks(32).enumerate() {
        let i = i as u32;
        let (down, inside) = if i + 4 < 32 { ((i + 4) * 10, 1) } else { (i * 10, 0) };
        assert_eq!(c[..3], [down, inside, (i ^ 1) * 10]);
        assert_eq!(c[3], 7f32.to_bits());
        assert_eq!(c[4], 0b11111);
        assert_eq!(c[6..8], [1, 0]);
        assert_eq!(c[8], 0xff << (i / 8 * 8));
        assert_eq!(c[9], 31 * 16);
        assert_eq!(c[10], u32::MAX);
        assert_eq!(c[11..13], [5, 1]);
        assert_eq!(c[13], (1u64 << i) as u32 - 1);
        assert_eq!(
            c[14],
            match i {
                0..16 => i * 10,
                // The source lane has branched around the shuffle: zero, as on a GPU.
                16 => 0,
                _ => i - 1,
            }
        );
    }
}

#[test]
fn atomics() {
    let out = Buffer::zeroed(64);
    let body = "mov.u32 %r1, 0; st.shared.v4.u32 [cell], {%r1, %r1, %r1, %r1}; st.shared.v4.u32 [cell+16], {%r1, %r1, %r1, %r1}; bar.sync 0;\n\
         atom.global.add.u32 %r1, [%out], 1; red.global.add.u64 [%out+8], 3; atom.global.add.f32 %f1, [%out+16], 0f3F000000;\n\
         atom.add.f64 %fd1, [%out+24], 0d3FE0000000000000; atom.global.max.s32 %r2, [%out+32], %i; atom.global.min.s32 %r3, [%out+36], -5;\n\
         atom.global.inc.u32 %r4, [%out+40], 6; atom.global.dec.u32 %r5, [%out+44], 9; shl.b32 %r6, 1, %i; red.global.or.b32 [%out+48], %r6;\n\
         mov.b32 %r7, {0x3c00, 0x4000}; atom.global.add.noftz.f16x2 %r8, [%out+52], %r7;\n\
         RETRY: atom.global.cas.b32 %r9, [%out+56], %i, 100; cvt.u16.u32 %h1, %i; add.u16 %h2, %h1, 1; atom.global.cas.b16 %h3, [%out+62], %h1, %h2;\n\
         cvta.shared.u64 %rd1, 0; atom.add.u32 %r10, [%rd1], 2; atom.shared.add.u32 %r11, [cell], 5; red.shared.max.u64 [cell+8], %out;\n\
         atom.shared.exch.b32 %r12, [cell+16], %i; atom.shared.add.f32 %f2, [cell+20], 0f3F800000; bar.sync 0;\n\
         setp.ne.u32 %p1, %i, 0; @%p1 bra END; ld.shared.u32 %r13, [cell]; st.global.u32 [%out+64], %r13; ld.shared.u64 %rd2, [cell+8];\n\
         st.global.u64 [%out+72], %rd2; ld.shared.f32 %f3, [cell+20]; st.global.f32 [%out+80], %f3;\n\
         atom.global.exch.b64 %rd3, [%out+88], %out; atom.global.cas.b64 %rd4, [%out+88], %out, 5; atom.global.xor.b64 %rd5, [%out+88], 3; END:";
    run_body(".shared .align 16 .b8 cell[64];\n", body, 32, &out, [0, 0]).unwrap();
    let w = out.words32();
    assert_eq!((w[0], w[2]), (32, 96));
    assert_eq!(f32::from_bits(w[4]), 16.0);
    assert_eq!(f64::from_bits(out.words()[3]), 16.0);
    assert_eq!((w[8], w[9] as i32), (31, -5));
    // 32 increments modulo 7; 32 decrements from 0 through 9.
    assert_eq!((w[10], w[11]), (32 % 7, 10 - 32 % 10));
    assert_eq!(w[12], u32::MAX);
    assert_eq!(w[13], 0x5000 | 0x5400 << 16);
    // Threads run in order here, so that every exchange of i for i + 1 succeeds.
    assert_eq!((w[14], w[15]), (100, 32 << 16));
    assert_eq!(w[16], 32 * 7);
    assert_eq!(out.words()[9], out.address);
    assert_eq!(f32::from_bits(w[20]), 32.0);
    assert_eq!(out.words()[11], 5 ^ 3);
}

/// A spin lock between the threads of a warp, and a wait for another block.
#[test]
fn spinning_makes_progress() {
    let out = Buffer::zeroed(8);
    let body = "LOCK: atom.global.cas.b32 %r1, [%out], 0, 1; setp.ne.u32 %p1, %r1, 0; @%p1 bra LOCK;\n\
         ld.volatile.global.u32 %r2, [%out+8]; add.u32 %r2, %r2, 1; st.volatile.global.u32 [%out+8], %r2; membar.gl;\n\
         atom.global.exch.b32 %r3, [%out], 0;\n\
         WAIT: ld.volatile.global.u32 %r4, [%out+8]; setp.lt.u32 %p2, %r4, 256; @%p2 bra WAIT;";
    run(&kernel(body), 4, 64, &[out.address, 0, 0]).unwrap();
    assert_eq!(out.words()[1], 256);
}

/// A loop around an atomic whose result no branch needs does not suspend.
#[test]
fn histogram_loops_do_not_suspend() {
    let body = "mov.u32 %r1, 0; LOOP: atom.global.add.u32 %r2, [%out], 1; add.u32 %r1, %r1, 1; setp.lt.u32 %p1, %r1, 10; @%p1 bra LOOP;";
    let program = load(&format!("{HEADER}{}", kernel(body))).unwrap();
    assert!(!program.kernel("k").unwrap().suspends);
}

const FUNCTIONS: &str = "\
.func (.param .b32 ret) twice(.param .b32 x) { .reg .b32 %r<3>; ld.param.u32 %r1, [x]; add.u32 %r2, %r1, %r1; st.param.b32 [ret], %r2; ret; }\n\
.func (.param .b32 ret) thrice(.param .b32 x) { .reg .b32 %r<3>; ld.param.u32 %r1, [x]; mul.lo.u32 %r2, %r1, 3; st.param.b32 [ret], %r2; ret; }\n\
.func (.param .b64 ret) factorial(.param .b64 n) {\n\
 .reg .b64 %rd<9>; .reg .pred %p<3>; .local .align 8 .b8 save[8];\n\
 ld.param.u64 %rd1, [n]; st.local.u64 [save], %rd1; setp.lt.u64 %p1, %rd1, 2; @%p1 bra BASE; sub.u64 %rd2, %rd1, 1;\n\
 { .param .b64 a; st.param.b64 [a], %rd2; .param .b64 r; call.uni (r), factorial, (a); ld.param.b64 %rd3, [r]; }\n\
 ld.local.u64 %rd4, [save]; mul.lo.u64 %rd5, %rd4, %rd3; st.param.b64 [ret], %rd5; ret;\n\
 BASE: mov.u64 %rd6, 1; st.param.b64 [ret], %rd6; ret; }\n\
.func (.param .align 8 .b8 ret[16]) swap(.param .align 8 .b8 x[16]) {\n\
 .reg .b64 %rd<3>; .reg .b32 %r<5>; ld.param.u64 %rd1, [x]; ld.param.v2.u32 {%r1, %r2}, [x+8]; st.param.u32 [ret+4], %r1;\n\
 st.param.b32 [ret], %r2; st.param.u64 [ret+8], %rd1; ret; }\n\
.func (.reg .b32 d) old(.reg .b32 a, .reg .b32 b) { sub.u32 d, a, b; ret; }\n\
.func (.param .b32 ret) sum_over_block(.param .b32 x) {\n\
 .reg .b32 %r<9>; ld.param.u32 %r1, [x]; shfl.sync.bfly.b32 %r2, %r1, 16, 31, -1; add.u32 %r1, %r1, %r2;\n\
 shfl.sync.bfly.b32 %r2, %r1, 8, 31, -1; add.u32 %r1, %r1, %r2; shfl.sync.bfly.b32 %r2, %r1, 4, 31, -1; add.u32 %r1, %r1, %r2;\n\
 shfl.sync.bfly.b32 %r2, %r1, 2, 31, -1; add.u32 %r1, %r1, %r2; shfl.sync.bfly.b32 %r2, %r1, 1, 31, -1; add.u32 %r1, %r1, %r2;\n\
 ld.param.u32 %r3, [x]; add.u32 %r1, %r1, %r3; st.param.b32 [ret], %r1; ret; }\n\
.func stop() { exit; }\n\
.global .align 8 .u64 table[3] = {twice, thrice, 0};\n";

#[test]
fn calls() {
    let out = Buffer::zeroed(8);
    let body = "{ .param .b32 a; st.param.b32 [a], 21; .param .b32 r; call.uni (r), twice, (a); ld.param.b32 %r1, [r]; }\n\
         st.global.u32 [%out], %r1;\n\
         { .param .b64 a; st.param.b64 [a], 10; .param .b64 r; call.uni (r), factorial, (a); ld.param.b64 %rd1, [r]; }\n\
         st.global.u64 [%out+8], %rd1;\n\
         { .param .align 8 .b8 a[16]; mov.u64 %rd2, 0x1111222233334444; st.param.b64 [a], %rd2; st.param.b64 [a+8], 0x5555666677778888;\n\
           .param .align 8 .b8 r[16]; call.uni (r), swap, (a); ld.param.b64 %rd3, [r]; ld.param.v2.b32 {%r2, %r3}, [r+8]; }\n\
         st.global.u64 [%out+16], %rd3; st.global.v2.u32 [%out+24], {%r2, %r3};\n\
         mov.u32 %r4, 50; call (%r5), old, (%r4, 8); st.global.u32 [%out+32], %r5;\n\
         mov.u32 %r6, 1; @%p1 bra NEVER; and.b32 %r7, %r6, 1; mul.wide.u32 %rd4, %r7, 8; mov.u64 %rd5, table; add.u64 %rd5, %rd5, %rd4;\n\
         ld.global.u64 %rd6, [%rd5]; { .param .b32 a; st.param.b32 [a], 5; .param .b32 r;\n\
         prototype: .callprototype (.param .b32 _) _ (.param .b32 _); call (r), %rd6, (a), prototype; ld.param.b32 %r8, [r]; }\n\
         st.global.u32 [%out+40], %r8; mov.u64 %rd7, twice; { .param .b32 a; st.param.b32 [a], %r8; .param .b32 r;\n\
         prototype2: .callprototype (.param .b32 _) _ (.param .b32 _); call (r), %rd7, (a), prototype2; ld.param.b32 %r9, [r]; }\n\
         st.global.u32 [%out+48], %r9; NEVER: call stop; st.global.u32 [%out+48], 1;";
    run_body(FUNCTIONS, body, 1, &out, [0, 0]).unwrap();
    let w = out.words();
    assert_eq!(w[..3], [42, 3_628_800, 0x7777_8888_5555_6666]);
    assert_eq!(w[3], 0x1111_2222_3333_4444);
    assert_eq!(w[4..7], [42, 15, 30]);
}

#[test]
fn suspending_callee_is_inlined() {
    let out = Buffer::zeroed(32);
    let body = "mov.u32 %r5, 0; mov.u32 %r4, 1000;\n\
         AGAIN: { .param .b32 a; st.param.b32 [a], %i; .param .b32 r; call.uni (r), sum_over_block, (a); ld.param.b32 %r1, [r]; }\n\
         add.u32 %r4, %r4, %r1; add.u32 %r5, %r5, 1; setp.lt.u32 %p1, %r5, 3; @%p1 bra AGAIN; cvt.u64.u32 %rd1, %r4; st.global.u64 [%at], %rd1;";
    run_body(FUNCTIONS, body, 32, &out, [0, 0]).unwrap();
    for (i, w) in out.words().iter().enumerate() {
        assert_eq!(*w, 1000 + 3 * (496 + i as u64));
    }
}

#[test]
fn branch_tables() {
    let out = Buffer::zeroed(8);
    let body = "targets: .branchtargets A, B, C; rem.u32 %r1, %i, 3; brx.idx %r1, targets;\n\
         A: mov.u64 %rd1, 10; bra.uni END; B: mov.u64 %rd1, 20; bra END; C: mov.u64 %rd1, 30; END: st.global.u64 [%at], %rd1;";
    run_body("", body, 8, &out, [0, 0]).unwrap();
    assert_eq!(out.words(), [10, 20, 30, 10, 20, 30, 10, 20]);
    let wild = "targets: .branchtargets A, B; mov.u32 %r1, 0x80000000; brx.idx %r1, targets; A: mov.u64 %rd1, 1; B: st.global.u64 [%at], 7;";
    assert_eq!(fault_kind(run_body("", wild, 1, &out, [0, 0])), FaultKind::Trap);
}

#[test]
fn special_registers() {
    let out = Buffer::zeroed(16);
    let body = "setp.ne.u32 %p1, %i, 33; @%p1 ret; mov.u32 %r1, %ntid.x; mov.u32 %r2, %nctaid.x; mov.u32 %r3, %ctaid.x; mov.u32 %r4, %laneid;\n\
         mov.u32 %r5, %warpid; mov.u32 %r6, %nwarpid; mov.u32 %r7, %nctaid.y; mov.u32 %r8, %envreg1;\n\
         st.global.v4.u32 [%out], {%r1, %r2, %r3, %r4}; st.global.v4.u32 [%out+16], {%r5, %r6, %r7, %r8};\n\
         mov.u64 %rd1, %clock64; mov.u64 %rd2, %globaltimer; st.global.v2.u64 [%out+32], {%rd1, %rd2};\n\
         mov.u32 %r9, %lanemask_ge; mov.u32 %r10, %cluster_nctarank; st.global.v2.u32 [%out+48], {%r9, %r10};\n\
         mov.u32 %r11, 3; isspacep.shared %p2, %out; isspacep.global %p3, %out; cvta.shared.u64 %rd3, 0; isspacep.shared %p4, %rd3;\n\
         isspacep.global %p5, %rd3; selp.u32 %r12, 1, 0, %p2; selp.u32 %r13, 1, 0, %p3; selp.u32 %r14, 1, 0, %p4; selp.u32 %r15, 1, 0, %p5;\n\
         st.global.v4.u32 [%out+64], {%r12, %r13, %r14, %r15};";
    run(
        &format!(".shared .u32 some[8];\n{}", kernel(&format!("{body} st.shared.u32 [some], 1;"))),
        1,
        70,
        &[out.address, 0, 0],
    )
    .unwrap();
    let w = out.words32();
    assert_eq!(w[..8], [70, 1, 0, 1, 1, 3, 1, 0]);
    assert!(out.words()[4] > 0 && out.words()[5] > 0);
    assert_eq!(w[12..14], [!1, 1]);
    assert_eq!(w[16..20], [0, 1, 1, 0]);
}

#[test]
fn printf_and_assert() {
    let out = Buffer::zeroed(1);
    let before = ".extern .func (.param .b32 r) vprintf(.param .b64 f, .param .b64 a);\n\
         .extern .func __assertfail(.param .b64 m, .param .b64 f, .param .b32 l, .param .b64 fn, .param .b64 c);\n\
         .global .align 1 .b8 text[9] = {120, 61, 37, 100, 10, 0};\n";
    let print = ".local .align 8 .b8 list[8]; st.local.u32 [list], 42; mov.u64 %rd1, list; cvta.local.u64 %rd2, %rd1;\n\
         mov.u64 %rd3, text; cvta.global.u64 %rd4, %rd3;\n\
         { .param .b64 a; st.param.b64 [a], %rd4; .param .b64 b; st.param.b64 [b], %rd2; .param .b32 r;\n\
         call.uni (r), vprintf, (a, b); ld.param.b32 %r1, [r]; } st.global.u32 [%out], %r1;";
    assert_eq!(run_body(before, print, 1, &out, [0, 0]).unwrap(), "x=42\n");
    assert_eq!(out.words()[0], 1);
    let fail = "mov.u64 %rd3, text; cvta.global.u64 %rd4, %rd3; { .param .b64 m; st.param.b64 [m], %rd4; .param .b64 f; st.param.b64 [f], %rd4;\n\
         .param .b32 l; st.param.b32 [l], 7; .param .b64 n; st.param.b64 [n], %rd4; .param .b64 c; st.param.b64 [c], 1;\n\
         call.uni __assertfail, (m, f, l, n, c); }";
    assert_eq!(fault_kind(run_body(before, fail, 1, &out, [0, 0])), FaultKind::Assert);
}

const NEAR_ID: &str = "ld.global.u64 %rd1, [taken]; add.u64 %rd1, %rd1, %arg1; prototype: .callprototype _ (.param .b64 _);\n\
    mov.u64 %rd2, 1; call %rd1, (%rd2), prototype;";

#[test]
fn hostile_addresses_fault() {
    let out = Buffer::zeroed(8);
    let host = &raw const out as u64;
    let cases: &[(&str, u64, FaultKind)] = &[
        ("ld.global.u32 %r1, [%arg1];", 0, FaultKind::IllegalAddress),
        ("ld.global.u32 %r1, [%arg1];", host & !7, FaultKind::IllegalAddress),
        ("st.global.u32 [%arg1], 1;", host & !7, FaultKind::IllegalAddress),
        ("st.u32 [%arg1+1024], 1;", host & !7, FaultKind::IllegalAddress),
        ("ld.global.u32 %r1, [%arg1];", out.address + 2, FaultKind::MisalignedAddress),
        ("ld.global.v4.f32 {%f1, %f2, %f3, %f4}, [%arg1];", out.address + 8, FaultKind::MisalignedAddress),
        ("ld.global.u64 %rd1, [%arg1+4];", out.address, FaultKind::MisalignedAddress),
        ("ld.global.u32 %r1, [%arg1+-4];", (out.address >> 42) << 42, FaultKind::IllegalAddress),
        ("ld.global.u32 %r1, [%arg1];", ((out.address >> 42) + 1) << 42, FaultKind::IllegalAddress),
        (
            "ld.global.u8 %r1, [%arg1+2147483647];",
            (((out.address >> 42) + 1) << 42) - 1,
            FaultKind::IllegalAddress,
        ),
        ("ld.global.u8 %r1, [%arg1+-2147483648];", (out.address >> 42) << 42, FaultKind::IllegalAddress),
        ("ld.global.u32 %r1, [%arg1];", u64::MAX - 3, FaultKind::IllegalAddress),
        ("atom.global.add.u32 %r1, [%arg1], 1;", host & !7, FaultKind::IllegalAddress),
        ("red.add.u64 [%arg1], 1;", host & !7, FaultKind::IllegalAddress),
        ("atom.global.cas.b64 %rd1, [%arg1], 1, 2;", out.address + 4, FaultKind::MisalignedAddress),
        ("ld.volatile.global.u64 %rd1, [%arg1];", host & !7, FaultKind::IllegalAddress),
        ("st.release.gpu.u32 [%arg1], 3;", host & !7, FaultKind::IllegalAddress),
        ("cvt.u32.u64 %r1, %arg1; st.shared.u32 [%r1], 1;", 64, FaultKind::IllegalAddress),
        ("cvt.u32.u64 %r1, %arg1; ld.shared.u32 %r2, [%r1];", 0xffff_fffc, FaultKind::IllegalAddress),
        ("cvt.u32.u64 %r1, %arg1; ld.shared.u32 %r2, [%r1+-64];", 0, FaultKind::IllegalAddress),
        ("cvt.u32.u64 %r1, %arg1; ld.shared.u32 %r2, [%r1];", 2, FaultKind::MisalignedAddress),
        ("cvt.u32.u64 %r1, %arg1; ld.shared.v2.u64 {%rd1, %rd2}, [%r1];", 56, FaultKind::MisalignedAddress),
        ("cvt.u32.u64 %r1, %arg1; atom.shared.add.u32 %r2, [%r1], 1;", 4096, FaultKind::IllegalAddress),
        ("ld.local.u32 %r2, [%arg1];", 32, FaultKind::IllegalAddress),
        ("st.local.u32 [%arg1], 1;", u64::MAX - 3, FaultKind::IllegalAddress),
        ("st.local.u32 [%arg1+30], 1;", 0, FaultKind::MisalignedAddress),
        ("ld.param.u32 %r2, [%arg1];", 24, FaultKind::IllegalAddress),
        ("ld.param.u32 %r2, [%arg1+20];", u64::MAX - 99, FaultKind::IllegalAddress),
        ("prototype: .callprototype _ (); call %arg1, (), prototype;", host, FaultKind::InvalidPc),
        ("prototype: .callprototype _ (); call %arg1, (), prototype;", 0, FaultKind::InvalidPc),
        ("prototype: .callprototype _ (); call %arg1, (), prototype;", 16, FaultKind::InvalidPc),
        // A function of another signature, and values near its id.
        (
            "ld.global.u64 %rd1, [taken]; prototype: .callprototype _ (); call %rd1, (), prototype;",
            0,
            FaultKind::InvalidPc,
        ),
        (NEAR_ID, 0, FaultKind::InvalidPc),
        (NEAR_ID, 1, FaultKind::InvalidPc),
        (NEAR_ID, 16, FaultKind::InvalidPc),
        (NEAR_ID, 1 << 40, FaultKind::InvalidPc),
        (NEAR_ID, (1 << 4) * (1 << 28), FaultKind::InvalidPc),
        ("prototype: .callprototype _ (); call %arg1, (), prototype;", 1 << 20, FaultKind::InvalidPc),
        ("trap;", 0, FaultKind::Trap),
    ];
    for (body, arg, kind) in cases {
        let declared = format!(
            ".shared .align 16 .b8 s[64]; .local .align 16 .b8 l[32]; {body} ld.shared.u32 %r9, [s]; ld.local.u32 %r9, [l];"
        );
        let before = ".func other(.param .b32 x) { ret; }\n.global .u64 taken = other;\n";
        assert_eq!(
            fault_kind(run_body(before, &declared, 1, &out, [*arg, 0])),
            *kind,
            "{body} with {arg:#x}"
        );
    }
}

#[test]
fn endless_recursion_is_stopped() {
    let out = Buffer::zeroed(1);
    for (name, locals) in
        [("with local memory", ".local .align 8 .b8 l[64]; st.local.u64 [l], 1;"), ("without", "")]
    {
        let before = format!(
            ".func (.param .b64 ret) deep(.param .b64 n) {{ .reg .b64 %rd<4>; {locals} ld.param.u64 %rd1, [n]; add.u64 %rd1, %rd1, 1;\n\
             {{ .param .b64 a; st.param.b64 [a], %rd1; .param .b64 r; call.uni (r), deep, (a); ld.param.b64 %rd2, [r]; }}\n\
             add.u64 %rd2, %rd2, %rd1; st.param.b64 [ret], %rd2; ret; }}\n"
        );
        let body = "{ .param .b64 a; st.param.b64 [a], 0; .param .b64 r; call.uni (r), deep, (a); ld.param.b64 %rd2, [r]; } st.global.u64 [%out], %rd2;";
        assert_eq!(fault_kind(run_body(&before, body, 1, &out, [0, 0])), FaultKind::StackOverflow, "{name}");
    }
}

#[test]
fn async_copies() {
    let out = Buffer::zeroed(8);
    let input = Buffer::new(&[0x1111_1111_2222_2222, 0x3333_3333_4444_4444, 5, 6]);
    let body = "mov.u32 %r1, s; cp.async.ca.shared.global [%r1], [%arg1], 8; cp.async.cg.shared.global [%r1+16], [%arg1], 16;\n\
         mov.u32 %r2, 5; cp.async.ca.shared.global [%r1+32], [%arg1], 8, %r2; mov.u32 %r2, 0; mov.u64 %rd9, 0;\n\
         cp.async.cg.shared.global [%r1+48], [%rd9], 16, %r2; cp.async.commit_group; cp.async.wait_group 0; cp.async.wait_all;\n\
         ld.shared.u64 %rd1, [s]; ld.shared.v2.u64 {%rd2, %rd3}, [s+16]; ld.shared.u64 %rd4, [s+32]; ld.shared.u64 %rd5, [s+48];\n\
         st.global.v2.u64 [%out], {%rd1, %rd2}; st.global.v2.u64 [%out+16], {%rd3, %rd4}; st.global.u64 [%out+32], %rd5;";
    run_body(".shared .align 16 .b8 s[64];\n", body, 1, &out, [input.address, 0]).unwrap();
    let a = 0x1111_1111_2222_2222;
    assert_eq!(out.words()[..5], [a, a, 0x3333_3333_4444_4444, 0x11_2222_2222, 0]);
}

#[test]
fn dynamic_local_memory() {
    let out = Buffer::zeroed(8);
    let before = ".func (.param .b64 ret) f(.param .b64 n) { .reg .b64 %rd<9>; .local .align 8 .b8 l[16]; ld.param.u64 %rd1, [n];\n\
         alloca.u64 %rd2, %rd1, 32; st.local.u64 [%rd2], 5; st.local.u64 [l], 6; ld.local.u64 %rd3, [%rd2]; ld.local.u64 %rd4, [l];\n\
         mad.lo.u64 %rd5, %rd3, 10, %rd4; st.param.b64 [ret], %rd5; ret; }\n";
    let body = ".local .align 16 .b8 d[32]; mov.u64 %rd1, d; st.local.u64 [d+24], 1; stacksave.u64 %rd9; mov.u32 %r1, 0;\n\
         LOOP: alloca.u64 %rd2, 1000; st.local.u64 [%rd2], 2; st.local.u64 [%rd2+992], 3; bar.sync 0;\n\
         { .param .b64 a; st.param.b64 [a], 100; .param .b64 r; call.uni (r), f, (a); ld.param.b64 %rd3, [r]; }\n\
         ld.local.u64 %rd4, [%rd2]; ld.local.u64 %rd5, [%rd2+992]; ld.local.u64 %rd6, [d+24]; stackrestore.u64 %rd9;\n\
         add.u32 %r1, %r1, 1; setp.lt.u32 %p1, %r1, 100; @%p1 bra LOOP;\n\
         st.global.v2.u64 [%out], {%rd3, %rd4}; st.global.v2.u64 [%out+16], {%rd5, %rd6};";
    run_body(before, body, 2, &out, [0, 0]).unwrap();
    assert_eq!(out.words()[..4], [56, 2, 3, 1]);
    let endless = "LOOP: alloca.u64 %rd2, 1000; setp.ne.u64 %p1, %rd2, -1; @%p1 bra LOOP;";
    assert_eq!(fault_kind(run_body("", endless, 1, &out, [0, 0])), FaultKind::StackOverflow);
    assert_eq!(
        fault_kind(run_body("", "alloca.u64 %rd2, %arg1;", 1, &out, [u64::MAX - 8, 0])),
        FaultKind::StackOverflow
    );
    let wild = "alloca.u64 %rd2, 16; stackrestore.u64 %arg1; { .param .b64 a; st.param.b64 [a], 100; .param .b64 r; call.uni (r), f, (a); }";
    assert_eq!(fault_kind(run_body(before, wild, 1, &out, [1 << 40, 0])), FaultKind::StackOverflow);
}

/// The grid barrier as cooperative groups write it: arrive on a word of the workspace, wait for its top bit to flip.
#[test]
fn cooperative_grid_barrier() {
    let out = Buffer::zeroed(64);
    let body = "mov.u32 %r1, %envreg2; mov.u32 %r2, %envreg1; mov.b64 %rd1, {%r1, %r2}; mov.u32 %r3, %ctaid.x; mov.u32 %r10, %nctaid.x;\n\
         mul.wide.u32 %rd2, %r3, 8; add.u64 %rd3, %out, %rd2; mov.u32 %r9, 0;\n\
         AGAIN: setp.ne.u32 %p1, %i, 0; @%p1 bra JOIN; add.u32 %r11, %r3, %r9; st.global.u32 [%rd3], %r11;\n\
         sub.u32 %r4, 0x80000001, %r10; setp.eq.u32 %p2, %r3, 0; selp.u32 %r5, %r4, 1, %p2; membar.gl;\n\
         atom.add.release.gpu.u32 %r6, [%rd1+4], %r5;\n\
         WAIT: ld.acquire.gpu.u32 %r7, [%rd1+4]; xor.b32 %r8, %r7, %r6; setp.ge.s32 %p3, %r8, 0; @%p3 bra WAIT;\n\
         JOIN: bar.sync 0; add.u32 %r9, %r9, 1; setp.lt.u32 %p4, %r9, 5; @%p4 bra AGAIN;\n\
         @%p1 ret; xor.b32 %r12, %r3, 1; mul.wide.u32 %rd4, %r12, 8; add.u64 %rd5, %out, %rd4; ld.global.u32 %r13, [%rd5]; st.global.u32 [%rd3+4], %r13;";
    let program = load(&format!("{HEADER}{}", kernel(body))).unwrap();
    let params: Vec<u8> = [out.address, 0, 0].iter().flat_map(|p| p.to_le_bytes()).collect();
    launch(&program, &Launch { kernel: "k", grid: 8, block: 64, shared: 0, cooperative: true, params })
        .unwrap();
    for (i, w) in out.words32().chunks(2).take(8).enumerate() {
        assert_eq!(w, [i as u32 + 4, (i as u32 ^ 1) + 4]);
    }
}

/// Kernels that never suspend run a row of threads per call: every thread sees its own indices and fresh registers, and `exit` in a
/// called function ends only its thread.
#[test]
fn rows_of_threads() {
    let out = Buffer::zeroed(3 * 70 * 2);
    let body = ".param .b64 unused; mov.u32 %r1, %tid.y; mov.u32 %r2, %ntid.x; mad.lo.u32 %r3, %r1, %r2, %i; mul.wide.u32 %rd1, %r3, 8; add.u64 %rd2, %out, %rd1;\n\
         mov.u32 %r4, %laneid; mov.u32 %r5, %warpid; mad.lo.u32 %r6, %r5, 32, %r4;\n\
         setp.eq.u32 %p1, %i, 5; @%p1 add.u32 %r7, %r7, 1000; add.u32 %r7, %r7, 1; st.global.v2.u32 [%rd2], {%r6, %r7};\n\
         setp.eq.u32 %p2, %i, 7; @%p2 call stop; setp.eq.u32 %p3, %i, 9; @%p3 exit; st.global.u32 [%rd2+4], 77;";
    let program = load(&format!("{HEADER}{FUNCTIONS}{}", kernel(body))).unwrap();
    let k = program.kernel("k").unwrap();
    assert!(!k.suspends);
    let params: Vec<u8> = [out.address, 0, 0].iter().flat_map(|p| p.to_le_bytes()).collect();
    let config = ptx_cpu::engine::LaunchConfig {
        grid: [1, 1, 1],
        block: [70, 3, 1],
        dynamic_shared_len: 0,
        params: &params,
        cooperative: false,
    };
    let cancel = ptx_cpu::engine::CancelToken::new();
    // SAFETY: compiled to the contract; `k` keeps the code alive.
    let stats =
        unsafe { machine().engine.launch(&k, &config, &cancel, &common::Collect::default()) }.unwrap();
    assert_eq!(stats.threads, 210);
    for (i, w) in out.words32().chunks(2).take(210).enumerate() {
        let last = match i % 70 {
            7 | 9 => 1,
            _ => 77,
        };
        assert_eq!(*w, [i as u32, last]);
    }
}

/// Accesses through one register share a check, which must not accept or refuse anything else than single checks would.
#[test]
fn grouped_shared_accesses() {
    let out = Buffer::zeroed(8);
    let body = "ld.shared.u32 %r9, [s]; cvt.u32.u64 %r1, %arg1; st.shared.u32 [%r1+8], 1; st.shared.u32 [%r1], 2; st.shared.u32 [%r1+-4], 3; ld.shared.u32 %r2, [%r1+8];\n\
         ld.shared.u32 %r3, [%r1]; ld.shared.v2.u32 {%r4, %r5}, [%r1+-4]; ld.shared.u8 %r6, [%r1+9]; add.u32 %r1, %r1, 4; ld.shared.u32 %r7, [%r1+4];\n\
         st.global.v4.u32 [%out], {%r2, %r3, %r4, %r5}; st.global.v2.u32 [%out+16], {%r6, %r7};";
    let run = |at: u64| run_body(".shared .align 16 .b8 s[64];\n", body, 1, &out, [at, 0]);
    for at in [4, 12, 52] {
        run(at).unwrap();
        assert_eq!(out.words32()[..6], [1, 2, 3, 2, 0, 1]);
    }
    for at in [0, 60, 56 + 8, u64::from(u32::MAX) - 3, 1 << 20] {
        assert_eq!(fault_kind(run(at)), FaultKind::IllegalAddress, "{at}");
    }
    for at in [5, 6, 8] {
        assert_eq!(fault_kind(run(at)), FaultKind::MisalignedAddress, "{at}");
    }
    // A barrier, a call that may not return, or a branch lies between: the first access must still be done.
    let apart = "ld.shared.u32 %r9, [s]; cvt.u32.u64 %r1, %arg1; mov.u32 %r2, 5; st.shared.u32 [%r1], %r2; ld.shared.u32 %r3, [%r1]; st.global.u32 [%out], %r3; bar.sync 0;\n\
         setp.eq.u32 %p1, %r3, 5; @%p1 bra END; ld.shared.u32 %r4, [%r1+4096]; END: @!%p1 ld.shared.u32 %r4, [%r1+4096]; call stop; ld.shared.u32 %r4, [%r1+4096];";
    let before = format!("{FUNCTIONS}.shared .align 16 .b8 s[64];\n");
    run_body(&before, apart, 1, &out, [16, 0]).unwrap();
    assert_eq!(out.words32()[0], 5);
}
