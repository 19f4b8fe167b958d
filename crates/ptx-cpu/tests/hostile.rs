//! Programs that want to harm the compiler: each must be refused with a reason, or work, and soon.

mod common;

use common::{Buffer, HEADER, Launch, load, machine};
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
