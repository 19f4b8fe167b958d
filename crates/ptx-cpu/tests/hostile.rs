//! Programs that want to harm the compiler: each must be refused with a reason, or work, and soon.

mod common;

use common::{Buffer, HEADER, Launch, load, machine};
use ptx_cpu::abi::FaultKind;
use ptx_cpu::engine::LaunchError;
use ptx_cpu::program::{LoadError, Options, Program, RegionMemory};

/// Loads the text and compiles kernel `k`; the error's text.
fn refused(body: &str) -> String {
    let module = match ptx::parse(format!("{HEADER}{body}").as_bytes()) {
        Ok(module) => module,
        Err(error) => return error.to_string(),
    };
    let memory = std::sync::Arc::new(RegionMemory(machine().region.clone()));
    let result: Result<(), LoadError> =
        Program::load(module, memory, Options::default()).and_then(|program| program.kernel("k").map(drop));
    let text = result.expect_err("the program is accepted").to_string();
    assert!(!text.contains("internal error"), "{text}");
    text
}

const BIG: usize = 65536;

#[test]
fn argument_areas_do_not_wrap() {
    // 65537 parameters of 64 KiB are 4 GiB and 64 KiB: the length of the area would wrap to 64 KiB.
    let count = BIG + 1;
    let formals = vec![format!(".param .b8 _[{BIG}]"); count].join(",");
    let actuals = vec!["p"; count].join(",");
    let text = refused(&format!(
        ".func f(.param .b8 q[{BIG}]) {{ ret; }}\n.visible .entry k() {{ .reg .b64 %f; .param .b8 p[{BIG}];\n\
         st.param.b8 [p], 1; st.param.b16 [p], 1; mov.u64 %f, f;\n\
         proto: .callprototype _ ({formals});\n call %f, ({actuals}), proto;\n ret; }}\n"
    ));
    assert!(text.contains("parameters of a call"), "{text}");
}

#[test]
fn objects_of_inlined_functions_do_not_wrap() {
    let mut callee = String::from(".func g() {\n");
    for i in 0..1000 {
        callee += &format!(".param .b8 p{i}[{BIG}]; st.param.b8 [p{i}], 1; st.param.b16 [p{i}], 1;\n");
    }
    callee += "bar.sync 0; ret; }\n";
    let calls = "call g;\n".repeat(66);
    let text = refused(&format!("{callee}.visible .entry k() {{ {calls} ret; }}\n"));
    assert!(text.contains("parameter"), "{text}");
}

#[test]
fn inlining_does_not_explode() {
    let mut text = String::from(".func f0() { bar.sync 0; ret; }\n");
    for i in 1..24 {
        text += &format!(".func f{i}() {{ call f{0}; call f{0}; ret; }}\n", i - 1);
    }
    let text = refused(&format!("{text}.visible .entry k() {{ call f23; ret; }}\n"));
    assert!(text.contains("too large"), "{text}");
}

#[test]
fn inlined_local_memory_does_not_wrap() {
    let mut text = String::from(
        ".func g() { .local .b8 l[1073741808]; .reg .b32 %r; ld.local.b32 %r, [l]; bar.sync 0; ret; }\n",
    );
    text += ".visible .entry k() { call g; call g; call g; call g; ret; }\n";
    let text = refused(&text);
    assert!(text.contains("too large"), "{text}");
}

#[test]
fn many_live_registers_in_many_blocks_are_refused() {
    let (regs, blocks) = (4000, 10_000);
    let mut body: String = (0..regs).map(|i| format!("ld.param.b32 %r{i}, [p+{}];\n", i * 4 % 64)).collect();
    for i in 0..blocks {
        body += &format!("L{i}: setp.eq.u32 %q, %r{}, {i}; @%q bra L{};\n", i % regs, i * 7919 % blocks);
    }
    body += &(0..regs).map(|i| format!("st.global.b32 [%a], %r{i};\n")).collect::<String>();
    let text = refused(&format!(
        ".visible .entry k(.param .b32 p[16]) {{ .reg .pred %q; .reg .b64 %a; .reg .b32 %r<{regs}>; mov.u64 %a, 0; {body} ret; }}\n"
    ));
    assert!(text.contains("too large"), "{text}");
}

#[test]
fn many_live_registers_at_many_barriers_are_refused() {
    let regs = 4000;
    let mut body: String = (0..regs).map(|i| format!("ld.param.b32 %r{i}, [p+{}];\n", i * 4 % 64)).collect();
    body += &"bar.sync 0;\n".repeat(10_000);
    body += &(0..regs).map(|i| format!("st.global.b32 [%a], %r{i};\n")).collect::<String>();
    let text = refused(&format!(
        ".visible .entry k(.param .b32 p[16]) {{ .reg .b64 %a; .reg .b32 %r<{regs}>; mov.u64 %a, 0; {body} ret; }}\n"
    ));
    assert!(text.contains("too large"), "{text}");
}

#[test]
fn very_many_different_problems_are_told_soon() {
    let body: String = (0..100_000).map(|i| format!("foo{i}.u32 %r1, %r1;\n")).collect();
    refused(&format!(".visible .entry k() {{ .reg .b32 %r<2>; {body} ret; }}\n"));
}

#[test]
fn very_many_loops_that_may_spin_compile() {
    let loops = 3000;
    let mut body = String::new();
    for i in 0..loops {
        body += &format!(
            "L{i}: ld.volatile.global.u32 %r{}, [%a]; setp.eq.u32 %q, %r{}, 0;\n",
            i % 50,
            (i * 7) % 50
        );
    }
    for i in 0..loops {
        body += &format!("@%q bra L{i};\n");
    }
    let text = format!(
        "{HEADER}.visible .entry k(.param .u64 p) {{ .reg .pred %q; .reg .b64 %a; .reg .b32 %r<50>; ld.param.u64 %a, [p]; {body} ret; }}\n"
    );
    load(&text).unwrap().kernel("k").unwrap();
}

#[test]
fn a_restored_stack_pointer_stays_inside_of_local_memory() {
    // The callee's local memory would begin at the end of the thread's.
    let text = format!(
        "{HEADER}.func g(.param .b64 out) {{ .local .align 16 .b8 l[4096]; .reg .b64 %a; .reg .b32 %r;\n\
         ld.local.b32 %r, [l+4092]; ld.param.b64 %a, [out]; st.global.b32 [%a], %r; ret; }}\n\
         .visible .entry k(.param .u64 p) {{ .reg .b64 %a; .reg .b64 %s; ld.param.u64 %a, [p];\n\
         mov.u64 %s, 4096; stackrestore.u64 %s; call g, (%a); ret; }}\n"
    );
    let out = Buffer::zeroed(1);
    let program = load(&text).unwrap();
    let params = out.address.to_le_bytes().to_vec();
    let launch = Launch { kernel: "k", grid: 1, block: 1, shared: 0, cooperative: false, params };
    // With 16 KiB more for functions that move the stack pointer this is inside.
    common::launch(&program, &launch).unwrap();
    let program = load(&text.replace("mov.u64 %s, 4096", "mov.u64 %s, 20480")).unwrap();
    assert!(common::launch(&program, &launch).is_err());
}

/// Every form of access through a register, at addresses that are not the program's: all fault, and nothing is read or written there.
#[test]
fn no_access_leaves_the_region() {
    let canary = vec![0x5a5a_5a5a_5a5a_5a5au64; 512];
    let host = (canary.as_ptr() as u64).next_multiple_of(256) + 1024;
    let out = Buffer::zeroed(64);
    let tag = out.address >> 42;
    let (first, end) = (tag << 42, (tag + 1) << 42);
    let generic = [
        "ld.global.v4.b32 {%r1,%r2,%r3,%r4}, [%a+OFF];",
        "ld.v2.b64 {%d1,%d2}, [%a+OFF];",
        "ld.relaxed.sys.v2.b64 {%d1,%d2}, [%a+OFF];",
        "ld.const.b16 %h1, [%a+OFF];",
        "ldu.global.b32 %r1, [%a+OFF];",
        "ld.global.nc.b64 %d1, [%a+OFF];",
        "st.v4.b32 [%a+OFF], {%r1,%r2,%r3,%r4};",
        "st.global.b8 [%a+OFF], %h1;",
        "st.release.sys.b64 [%a+OFF], %d1;",
        "st.volatile.v2.b64 [%a+OFF], {%d1,%d2};",
        "atom.add.f32 %f1, [%a+OFF], 0f3F800000;",
        "atom.global.exch.b64 %d1, [%a+OFF], %d2;",
        "atom.global.cas.b32 %r1, [%a+OFF], %r2, %r3;",
        "atom.inc.u32 %r1, [%a+OFF], 7;",
        "red.global.or.b32 [%a+OFF], 255;",
        "cp.async.ca.shared.global [s], [%a+OFF], 16;",
        "cp.async.cg.shared.global [s], [%a+OFF], 16, 3;",
        "ld.global.v4.b32 {%r1,%r2,%r3,%r4}, [%a]; st.global.v4.b32 [%a+OFF], {%r1,%r2,%r3,%r4};",
        "@%p bra L; st.global.b64 [%a+OFF], %d1; L: st.global.b64 [%a+OFF], %d2;",
    ];
    let addresses: Vec<(u64, i64)> =
        [host, 0, 4096, first, end, end - 16, u64::MAX - 15, 1 << 63, (tag + 32) << 42, !0 << 47]
            .into_iter()
            .flat_map(|address| [0, 16, -16, 2_147_483_632, -2_147_483_648].map(|offset| (address, offset)))
            // What starts inside of the region and stays there meets unmapped memory; a base inside with an offset out meets the margin.
            .collect();
    let windows = [
        "ld.shared.v4.b32 {%r1,%r2,%r3,%r4}, [%w+OFF];",
        "st.shared.v2.b64 [%w+OFF], {%d1,%d2};",
        "st.shared.b32 [%w], %r1; st.shared.b32 [%w+OFF], %r1;",
        "st.shared.b64 [%w+OFF], %d1; st.shared.b64 [%w], %d1; st.shared.b64 [%w+8], %d1;",
        "atom.shared.cas.b64 %d1, [%w+OFF], %d1, %d2;",
        "red.shared.add.u32 [%w+OFF], 1;",
        "cp.async.ca.shared.global [%w+OFF], [%g], 16;",
        "ld.local.v4.b32 {%r1,%r2,%r3,%r4}, [%w+OFF];",
        "st.local.v2.b64 [%w+OFF], {%d1,%d2};",
        "ld.param.v2.b64 {%d1,%d2}, [%w+OFF];",
    ];
    let offsets: Vec<(u64, i64)> = [64u64, 48, 0xffff_ffc0, 0x8000_0000, 0xffff_ffff_ffff_ffc0, 1 << 20]
        .into_iter()
        .flat_map(|at| [64, 4096, -64, 2_147_483_632, -2_147_483_648].map(|offset| (at, offset)))
        // Some of these wrap to the beginning of the window, which is inside.
        .filter(|(at, offset)| at.wrapping_add_signed(*offset) as u32 > 63)
        .collect();
    let run = |body: &str, address: u64| {
        let text = format!(
            "{HEADER}.func reads(.param .b64 n) {{ .reg .b64 %x<4>; .reg .b32 %v; ld.param.b64 %x1, [n]; mov.b64 %x2, n;\n\
             add.u64 %x2, %x2, %x1; ld.param.b32 %v, [%x2+64]; st.param.b32 [%x2+64], %v; ret; }}\n\
             .visible .entry k(.param .u64 address, .param .u64 good) {{\n\
             .reg .pred %p; .reg .b16 %h<2>; .reg .b32 %r<5>, %w; .reg .b64 %d<3>, %a, %g; .reg .f32 %f<2>;\n\
             .shared .align 16 .b8 s[64]; .local .align 16 .b8 l[64];\n\
             ld.param.u64 %a, [address]; ld.param.u64 %g, [good]; cvt.u32.u64 %w, %a; setp.ne.u64 %p, %a, %a;\n\
             st.shared.b32 [s], 0; st.local.b32 [l], 0;\n{body}\nret; }}\n"
        );
        let program = load(&text).unwrap_or_else(|e| panic!("{e}\n{body}"));
        let params = [address, out.address].iter().flat_map(|word| word.to_le_bytes()).collect();
        let config = Launch { kernel: "k", grid: 1, block: 1, shared: 0, cooperative: false, params };
        match common::launch(&program, &config) {
            Err(LaunchError::Fault(fault)) => {
                assert!(
                    matches!(fault.kind, FaultKind::IllegalAddress | FaultKind::MisalignedAddress),
                    "{body} at {address:#x}: {fault}"
                );
            }
            other => panic!("{body} at {address:#x}: {other:?}"),
        }
    };
    for (form, cases) in
        generic.iter().map(|form| (form, &addresses)).chain(windows.iter().map(|form| (form, &offsets)))
    {
        for (address, offset) in cases {
            run(&form.replace("OFF", &offset.to_string()), *address);
        }
    }
    for at in [64, 0x8000_0000, 0xffff_ff00, 1 << 20] {
        run("call reads, (%a);", at);
    }
    assert!(canary.iter().all(|word| *word == 0x5a5a_5a5a_5a5a_5a5a));
}
