//! The grammar, area by area.

mod common;

use common::*;
use ptx::*;

#[test]
fn header() {
    let module = parse(b"// c\n/* c */ .version 9.5\n.target sm_90a, debug\n.address_size 64\n").unwrap();
    assert_eq!(module.version, (9, 5));
    assert_eq!(module.target, Target { sm: 90, suffix: Some('a'), options: vec!["debug".into()] });
    assert_eq!(module.address_size, 64);
    assert!(module.items.is_empty());
    // 32 bits unless said otherwise.
    assert_eq!(parse(b".version 1.4 .target sm_10").unwrap().address_size, 64);
}

#[test]
fn text_ends_at_nul() {
    let module = parse(b".version 9.5 .target sm_75 .address_size 64\n\0garbage").unwrap();
    assert_eq!(module.target.sm, 75);
}

#[test]
fn bytes_that_are_not_utf8_in_comments() {
    assert!(parse(b".version 8.0 .target sm_75 // \xff\xfe\n.file 1 \"\xe9.cu\"\n").is_ok());
}

#[test]
fn header_errors() {
    let message = |text: &str| parse(text.as_bytes()).unwrap_err().to_string();
    assert_eq!(message(""), "line 1, column 1: unexpected end of text, expected .version");
    assert_eq!(message("hello"), "line 1, column 1: found 'hello', expected .version");
    assert_eq!(message(".version x"), "line 1, column 10: found 'x', expected a version such as 8.7");
    assert_eq!(message(".version 8.0\n"), "line 2, column 1: unexpected end of text, expected .target sm_NN");
    assert!(message(".version 8.0 .target sm_9zz").contains("found 'sm_9zz'"));
    assert!(message(".version 8.0 .target sm_75 .address_size 16").contains("neither 32 nor 64"));
    assert!(message(".version 8.0 .target sm_75 /* no end").contains("expected */"));
    assert!(message(".version 8.0 .target sm_75 .pragma \"no end").contains("closing '\"'"));
}

#[test]
fn variables() {
    let module = parse_items(
        ".visible .global .align 16 .b8 bytes[10];
         .extern .shared .align 8 .b8 dynamic[];
         .weak .const .f32 a = 0f3F800000, b[2] = {0f00000000, 1.5};
         .common .global .u64 env;
         .global .v4 .f32 vec;
         .global .attribute(.managed) .align 8 .f64 m = 2.5;
         .global .attribute(.unified(12, 0x34)) .u32 u;
         .const[3] .u32 banked;
         .global .s32 grid[][2] = {{1, 2}, {3}, {5, 6}};
         .global .texref t; .global .samplerref s = { addr_mode_0 = clamp_to_edge, force_unnormalized_coords = 1 };
         .tex .u32 old_texture;",
    );
    let bytes = variable(&module, "bytes");
    assert_eq!(
        (bytes.linkage, bytes.space, bytes.align(), bytes.size()),
        (Linkage::Visible, Space::Global, 16, Some(10))
    );
    assert_eq!(variable(&module, "dynamic").size(), None);
    assert_eq!(variable(&module, "dynamic").align(), 8);
    assert_eq!(variable(&module, "a").init, Some(Init::F32(0x3f80_0000)));
    assert_eq!(variable(&module, "b").size(), Some(8));
    assert_eq!(variable(&module, "b").linkage, Linkage::Weak);
    assert_eq!(variable(&module, "env").linkage, Linkage::Common);
    assert_eq!(variable(&module, "vec").size(), Some(16));
    assert_eq!(variable(&module, "vec").align(), 16);
    assert!(variable(&module, "m").is_managed());
    assert!(!variable(&module, "u").is_managed());
    assert_eq!(variable(&module, "grid").dims, [Some(3), Some(2)]);
    let Some(Init::List(fields)) = &variable(&module, "s").init else { panic!("no fields") };
    assert_eq!(fields[0], Init::Field(Box::new(("addr_mode_0".into(), Init::Word("clamp_to_edge".into())))));
    assert_eq!(variable(&module, "old_texture").space, Space::Tex);
}

#[test]
fn variable_errors() {
    for (text, message) in [
        (".global .align 3 .b8 x;", "line 2, column 16: alignment 3 is not a power of two"),
        (".global .align 2097152 .b8 x;", "alignment 2097152 exceeds the limit of 1048576"),
        (
            ".global .b8 x[0xFFFFFFFFFFFF];",
            "variable size 281474976710655 exceeds the limit of 1099511627776",
        ),
        (".global .b64 x[0x7FFFFFFFFFFFFFFF][100];", "variable size"),
        (".global .b64 x[][0x7FFFFFFFFFFFFFFF][100];", "variable size"),
        (".global .b8 x[-1];", "expected an array size, an integer that is not negative"),
        (".global .b8 x[2] = {1, 2, 3};", "too many values"),
        (".global .b8 x[2][2] = {1, {2, 3}};", "braces in an initializer do not follow"),
        (".global .b8 x[2] = 1;", "needs an initializer in braces"),
        (".global .b8 x = {{{1}}};", "braces in an initializer"),
        (".global .b8 x = {a = 1};", "field in the initializer of 'x'"),
        (".global .u64 x = nowhere;", "line 2, column 18: undeclared symbol 'nowhere'"),
        (".global .pred p;", "not .pred"),
        (".global .b8 .b8 x;", "found '.b8'"),
        (".global x;", "found 'x', expected a type"),
        (".extern .visible .global .b8 x;", "only one of"),
        (".reg .b32 r;", "expected a module-level directive"),
        (".global .b8 x = 0x;", "bad number '0x': not an integer"),
        (".global .b8 x = 0f12;", "bad number '0f12': a single-precision number has 8 hexadecimal digits"),
        (".global .b8 x = 99999999999999999999;", "more than 64 bits"),
        (".global .b8 x = 1 / 0;", "division by zero"),
        (".global .b8 x = {1, 2", "unexpected end of text"),
        (".global .u8 x = 0(x);", "address mask is zero"),
    ] {
        let found = parse_error(text);
        assert!(found.contains(message), "{text}: {found}");
    }
}

#[test]
fn initializer_forms() {
    let module = parse_items(
        ".func f(); .global .u32 y[4];
         .global .u64 x[] = {y, y+4, y-8, generic(y), generic(y)+12, f, 0xFF(y), 0xFF00(generic(y)+1),
                             -1, ~0, (4*8), 1<<4|3, 7 % 4, 5 > 3 ? 10 : 20, (.s64)9U, WARP_SZ, 0b101, 017, 10U,};",
    );
    let x = variable(&module, "x");
    assert_eq!(x.dims, [Some(19)]);
    let Some(Init::List(list)) = &x.init else { panic!("no list") };
    let address = |symbol: &str, offset, generic, mask| {
        Init::Address(Box::new(InitAddress { symbol: symbol.into(), offset, generic, mask }))
    };
    let expected = [
        address("y", 0, false, None),
        address("y", 4, false, None),
        address("y", -8, false, None),
        address("y", 0, true, None),
        address("y", 12, true, None),
        address("f", 0, false, None),
        address("y", 0, false, Some(0xff)),
        address("y", 1, true, Some(0xff00)),
    ];
    assert_eq!(list[..8], expected);
    let numbers: Vec<Init> = [-1, -1, 32, 19, 3, 10, 9, 32, 5, 15, 10].into_iter().map(Init::Int).collect();
    assert_eq!(list[8..], numbers[..]);
}

#[test]
fn images() {
    let module = parse_items(
        ".global .u32 y; .const .u16 s[3] = {1, 0x1234};
         .global .u64 p[2] = {7, generic(y)+4};
         .global .b8 split[2] = {0xff(y), 0xff00(y)};
         .global .f32 f[4] = {1.5, 0f3F800000, 2};
         .global .f64 d = 0d4000000000000000;
         .global .v2 .u8 v[2] = {{1}, {2, 3}};
         .global .u8 big[2][1099511627776] = {{1}, {2}};"
            .replace("[2][1099511627776]", "[2][549755813888]")
            .as_str(),
    );
    let image = |name: &str| layout::image(variable(&module, name), 1 << 20);
    assert_eq!(image("y").unwrap(), layout::Image::default());
    assert_eq!(image("s").unwrap().bytes, [1, 0, 0x34, 0x12]);
    let p = image("p").unwrap();
    assert_eq!(p.bytes, [7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(p.relocations.len(), 1);
    assert_eq!((p.relocations[0].offset, p.relocations[0].size, p.relocations[0].target.offset), (8, 8, 4));
    let split = image("split").unwrap();
    assert_eq!(
        (split.relocations[1].mask, split.relocations[1].shift, split.relocations[1].size),
        (0xff00, 8, 1)
    );
    assert_eq!(image("f").unwrap().bytes, [1.5f32, 1.0, 2.0].map(f32::to_le_bytes).concat());
    assert_eq!(image("d").unwrap().bytes, 2f64.to_le_bytes());
    assert_eq!(image("v").unwrap().bytes, [1, 0, 2, 3]);
    assert!(image("big").unwrap_err().contains("exceeds 1048576 bytes"));
}

#[test]
fn functions_and_directives() {
    let module = parse_items(
        ".extern .func (.param .b32 func_retval0) vprintf\n(\n.param .b64 vprintf_param_0,\n.param .b64 _\n)\n;
         .extern .func __assertfail(.param .b64 a, .param .b32 b) .noreturn;
         .weak .func (.reg .u32 out) regs(.reg .u32 x, .reg .f64 y) { add.u32 out, x, x; ret; }
         .visible .entry k(
            .param .u64 .ptr .global .align 4 k_param_0,
            .param .align 8 .b8 k_param_1[24],
            .param .u8 k_param_2,
            .param .v4 .f32 k_param_3,
            .param .u64 .ptr k_param_4
         )
         .maxntid 256, 2
         .reqntid 32
         .minnctapersm 2
         .maxnreg 64
         .reqnctapercluster 2, 1, 1
         .explicitcluster
         .maxclusterrank 8
         .pragma \"nounroll\";
         .future_thing 3, 4
         { ret; }
         .entry bare { ret; }
         .alias k2, regs;",
    );
    let vprintf = function(&module, "vprintf");
    assert_eq!((vprintf.linkage, vprintf.body.is_none(), vprintf.params.len()), (Linkage::Extern, true, 2));
    assert!(function(&module, "__assertfail").is_noreturn());
    let regs = function(&module, "regs");
    assert_eq!(regs.linkage, Linkage::Weak);
    assert_eq!((regs.returns[0].reg, regs.params[1].reg), (Some(RegId(0)), Some(RegId(2))));
    let body = regs.body.as_ref().unwrap();
    assert_eq!(body.register(RegId(2)), &Register { name: "y".into(), ty: ScalarType::F64 });
    assert_eq!(texts(body), ["add.u32 out, x, x;", "ret;"]);

    let k = function(&module, "k");
    assert!(k.is_entry);
    assert_eq!(k.params[0].ptr, Some(PtrAttr { space: Some(Space::Global), align: Some(4) }));
    assert_eq!(k.params[0].align(), 8);
    assert_eq!(k.params[4].ptr, Some(PtrAttr { space: None, align: None }));
    assert_eq!(
        k.directives,
        [
            Directive::MaxNTid([256, 2, 1]),
            Directive::ReqNTid([32, 1, 1]),
            Directive::MinNCtaPerSm(2),
            Directive::MaxNReg(64),
            Directive::ReqNCtaPerCluster([2, 1, 1]),
            Directive::ExplicitCluster,
            Directive::MaxClusterRank(8),
            Directive::Pragma("nounroll".into()),
            Directive::Other { name: "future_thing".into(), args: vec![3, 4] },
        ]
    );
    let layout = layout::params(&k.params).unwrap();
    let slots: Vec<_> = layout.slots.iter().map(|s| (s.offset, s.size, s.align)).collect();
    assert_eq!(slots, [(0, 8, 8), (8, 24, 8), (32, 1, 1), (48, 16, 16), (64, 8, 8)]);
    assert_eq!(layout.size, 72);
    assert!(function(&module, "bare").params.is_empty());
    assert_eq!(module.items.last(), Some(&Item::Alias { name: "k2".into(), target: "regs".into() }));
}

#[test]
fn parameter_layout_limits() {
    let module =
        parse_items(".entry k(.param .b8 a[4294967295], .param .b32 b) { ret; } .entry e() { ret; }");
    assert_eq!(layout::params(&function(&module, "k").params), None);
    assert_eq!(layout::params(&function(&module, "e").params), Some(layout::ParamLayout::default()));
    assert!(parse_error(".entry k(.param .b8 a[4294967296]) { ret; }").contains("parameter size"));
    assert!(
        parse_error(".func f(.reg .v2 .b32 a) { ret; }").contains("register parameter 'a' is not a scalar")
    );
    assert!(parse_error(".entry k(.param .b8 a[2][2]) { ret; }").contains("more than one array dimension"));
    assert!(parse_error(".entry k(.param .b8 a, .param .b8 a) { ret; }").contains("'a' is declared twice"));
}

#[test]
fn registers() {
    let body = parse_body(
        ".reg .b32 %r<3>, a; .reg .pred p; .reg .f32 %r1<2>; .reg .b64 unused<16777216>; .reg .v4 .f32 v;
         add.s32 %r2, %r0, a; @!p mov.u32 a, 1; mov.f32 %r10, 0f00000000; mov.f32 v.y, v.w; st.global.v4.f32 [a], v;
         vadd.u32.u32.u32 a, a.b0, a.h1;",
    );
    let names: Vec<_> = body.registers.iter().map(|r| (&*r.name, r.ty)).collect();
    use ScalarType::*;
    assert_eq!(
        names,
        [
            ("%r2", B32),
            ("%r0", B32),
            ("a", B32),
            ("p", Pred),
            ("%r10", F32),
            ("v$x", F32),
            ("v$y", F32),
            ("v$z", F32),
            ("v$w", F32),
        ]
    );
    assert_eq!(
        texts(&body),
        [
            "add.s32 %r2, %r0, a;",
            "@!p mov.u32 a, 1;",
            "mov.f32 %r10, 0f00000000;",
            "mov.f32 v$y, v$w;",
            "st.global.v4.f32 [a], {v$x, v$y, v$z, v$w};",
            "vadd.u32.u32.u32 a, a.b0, a.h1;",
        ]
    );
}

#[test]
fn register_errors() {
    for (text, message) in [
        (
            ".reg .b32 %r<4000000000>;",
            "line 3, column 16: number of registers in a range 4000000000 exceeds the limit of 16777216",
        ),
        (".reg .b32 %r<99999999999999999999999>;", "exceeds the limit of 16777216"),
        (".reg .b32 %r<4>; mov.u32 %r4, 0;", "line 3, column 28: undeclared register '%r4'"),
        (".reg .b32 %r<4>; mov.u32 %r03, 0;", "undeclared register '%r03'"),
        (".reg .b32 a; .reg .b64 a;", "'a' is declared twice in one scope (first in line 3)"),
        (".reg .b32 %r<2>, %r<4>;", "'%r<>' is declared twice"),
        ("@%p1 ret;", "undeclared register '%p1'"),
        ("{ .reg .b32 a; } mov.u32 a, 0;", "undeclared symbol 'a'"),
        (".reg .v2 .b32 v; mov.u32 v.z, 0;", "'v' has no element '.z'"),
        (".reg .b32 a; mov.u32 a, %tid.q;", "undeclared register '%tid.q'"),
        (".reg .b32 a; mov.u32 a, %laneid.x;", "undeclared register '%laneid.x'"),
        (".reg .b32 a; mov.u32 a, %envreg32;", "undeclared register '%envreg32'"),
        ("mov.u32 a, 1; .reg .b32 a;", "undeclared (so far) register 'a'"),
    ] {
        let found = parse_error(&format!(".entry k()\n{{ {text} }}"));
        assert!(found.contains(message), "{text}: {found}");
    }
}

#[test]
fn scopes_become_one_namespace() {
    let module = parse_items(
        ".global .u32 g;
         .extern .func (.param .b32 r) f(.param .b32 a);
         .entry k() {
            .reg .b32 %r<4>; .shared .u32 s;
            { .reg .b32 t; .param .b32 param0; .param .b32 ret0;
              st.param.b32 [param0+0], %r1; call.uni (ret0), f, (param0); ld.param.b32 t, [ret0+0]; }
            { .reg .b32 t; .param .b32 param0; .param .b32 ret0;
              st.param.b32 [param0+0], t; { .reg .f32 t; mov.f32 t, 0f00000000; } call.uni (ret0), f, (param0); }
            { .reg .b32 g; mov.b32 g, s; }
            mov.u32 %r2, g;
            { .reg .f32 %r<2>; mov.f32 %r1, 0f00000000; }
            mov.u32 %r1, %r2;
         }",
    );
    let body = function(&module, "k").body.as_ref().unwrap();
    assert_eq!(
        texts(body),
        [
            "st.param.b32 [param0], %r1;",
            "call.uni (ret0), f, (param0);",
            "ld.param.b32 t, [ret0];",
            "st.param.b32 [param0$1], t$1;",
            "mov.f32 t$2, 0f00000000;",
            "call.uni (ret0$1), f, (param0$1);",
            // `g` is taken by the module.
            "mov.b32 g$1, s;",
            "mov.u32 %r2, g;",
            "mov.f32 %r1$1, 0f00000000;",
            "mov.u32 %r1, %r2;",
        ]
    );
    let names: Vec<_> = body.variables.iter().map(|v| &*v.name).collect();
    assert_eq!(names, ["s", "param0", "ret0", "param0$1", "ret0$1"]);
    assert_eq!(body.variable("param0$1").unwrap().space, Space::Param);
}

#[test]
fn dynamic_shared_memory_declared_in_a_body() {
    let body = parse_body(".extern .shared .align 8 .b8 s[]; .reg .b32 a; mov.u32 a, s;");
    let s = body.variable("s").unwrap();
    assert_eq!((s.linkage, s.space, s.size(), s.align()), (Linkage::Extern, Space::Shared, None, 8));
    assert!(
        parse_error(".entry k() { .visible ret; }")
            .contains("found 'ret', expected a directive of a function")
    );
}

#[test]
fn labels() {
    let body = parse_body(
        ".reg .pred p;
         L: @p bra M; bra.uni L;
         { @p bra L; @!p bra DONE; DONE: }
         { @p bra DONE; L: bra L; DONE: }
         M: ret; END:",
    );
    let names: Vec<_> = body.labels.iter().map(|n| &**n).collect();
    assert_eq!(names, ["L", "DONE", "L$1", "DONE$1", "M", "END"]);
    assert_eq!(
        texts(&body),
        ["@p bra M;", "bra.uni L;", "@p bra L;", "@!p bra DONE;", "@p bra DONE$1;", "bra L$1;", "ret;"]
    );
    assert_eq!(body.statements[0], Statement::Label(LabelId(0)));
    assert_eq!(body.statements.last(), Some(&Statement::Label(LabelId(5))));
    assert_eq!(instructions(&body)[0].operands, [Operand::Label(LabelId(4))]);
    assert!(parse_error(".entry k() { bra NOWHERE; }").contains("undeclared symbol 'NOWHERE'"));
    assert!(parse_error(".entry k() { L: L: ret; }").contains("'L' is declared twice"));
}

#[test]
fn many_forward_labels_in_one_statement() {
    let names: Vec<String> = (0..20_000).map(|n| format!("L{n}")).collect();
    let body = parse_body(&format!("frob {}; {}:", names.join(", "), names.join(": ")));
    let operands = &instructions(&body)[0].operands;
    assert_eq!(operands.len(), names.len());
    assert!(operands.iter().enumerate().all(|(i, o)| *o == Operand::Label(LabelId(i as u32))));
}

/// A name of an inner scope must not capture the same name used outside.
#[test]
fn inner_label_shadows_outer_one_wherever_it_stands() {
    let body = parse_body("L: { bra L; L: } bra L;");
    assert_eq!(texts(&body), ["bra L$1;", "bra L;"]);
    let error = parse_error(".entry k() { { .shared .u32 x; } .reg .b64 a; mov.u64 a, x; } .global .u32 x;");
    assert!(error.contains("undeclared symbol 'x'"), "{error}");
}

#[test]
fn tables_and_prototypes() {
    let module = parse_items(
        ".func a(); .func b();
         .entry k() {
            .reg .b32 %r<2>; .reg .b64 %rd<2>; .param .b32 ret0; .param .b32 p0;
            ts: .branchtargets L0, L1, L0;
            brx.idx %r1, ts;
            L0: L1:
            proto: .callprototype (.param .b32 _) _ (.param .b32 _, .param .align 8 .b8 _[16]) .noreturn;
            targets: .calltargets a, b;
            call (ret0), %rd1, (p0), proto;
            call %rd1, (), targets;
            call a;
            call a, ();
            call (_), %rd1, (%r1, 5), proto;
            call.uni a, (p0);
         }",
    );
    let body = function(&module, "k").body.as_ref().unwrap();
    assert_eq!(body.branch_table("ts").unwrap().targets, [LabelId(0), LabelId(1), LabelId(0)]);
    assert_eq!(body.call_table("targets").unwrap().targets, ["a".into(), Name::from("b")]);
    let prototype = body.prototype("proto").unwrap();
    assert_eq!((prototype.returns.len(), prototype.params.len()), (1, 2));
    assert_eq!(prototype.params[1].size(), 16);
    assert_eq!(prototype.directives, [Directive::NoReturn]);
    let found = instructions(body);
    assert_eq!(found[0].opcode(), "brx");
    let call = found[1].call().unwrap();
    assert_eq!(call.target, &Operand::Reg(RegId(1)));
    assert_eq!((call.returns.len(), call.args.len()), (1, 1));
    assert_eq!(call.signature.map(|n| &**n), Some("proto"));
    let call = found[2].call().unwrap();
    assert_eq!((call.returns.len(), call.args.len()), (0, 0));
    assert_eq!(call.signature.map(|n| &**n), Some("targets"));
    let call = found[3].call().unwrap();
    assert_eq!((call.returns, call.args, call.signature), (&[][..], &[][..], None));
    assert_eq!(found[5].call().unwrap().returns, [Operand::Sink]);
    assert_eq!(found[5].call().unwrap().args, [Operand::Reg(RegId(0)), Operand::Int(5)]);
    assert_eq!(found[0].call(), None);
    assert!(parse_error(".entry k() { t: .branchtargets X; ret; }").contains("undeclared label 'X'"));
    assert!(parse_error(".entry k() { .reg .b32 X; t: .branchtargets X; }").contains("undeclared"));
    assert!(parse_error(".entry k() { t: .calltargets X; ret; }").contains("undeclared symbol 'X'"));
}

#[test]
fn operands() {
    let body = parse_body(
        ".reg .b32 %r<9>; .reg .b64 %rd<9>; .reg .pred %p<9>; .reg .f32 %f<9>; .shared .b8 s[8];
         setp.lt.and.s32 %p1|%p2, %r1, -5, !%p3;
         setp.eq.s32 _|%p2, %r1, 0x10;
         shfl.sync.down.b32 %r1|%p1, %r2, 1, 31, -1;
         ld.global.v4.u32 {%r1, _, %r2, %r3}, [%rd1+-16];
         ld.shared.u8 %r1, [s+4]; ld.u32 %r1, [64]; ld.u32 %r1, [%rd1];
         st.v2.f32 [%rd1 + 8], {%f1, 0f3F800000};
         mov.u32 %r1, %tid.x; mov.u64 %rd1, %clock64; mov.u32 %r1, WARP_SZ; mov.u32 %r1, %envreg2;
         mov.u64 %rd1, s+4; mov.f32 %f1, 1.25; mov.f64 %rd1, 0d3FF0000000000000; mov.b32 %r1, !0;
         tex.2d.v4.f32.f32 {%f1, %f2, %f3, %f4}, [%rd1, {%f1, %f2}];
         tex.3d.v4.s32.f32 {%r1, %r2, %r3, %r4}, [%rd1, %rd2, {%f1, %f2, %f3, %f3}];
         sust.b.2d.b32.trap [%rd1, {%r1, %r2}], {%r3};
         cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes [%r1], [%rd1, {%r2, %r3}], [s+8];
         mov.v4.u32 {%r1, %r2, %r3, %r4}, %tid;
         mov.u32 %r1, 0xFFFFFFFFFFFFFFFF; mov.u64 %rd1, -9223372036854775808; mov.f32 %f1, -0f3F800000;
         mov .u32 %r1, 3; ld .shared::cta .u8 %r2, [s];",
    );
    assert_eq!(
        texts(&body),
        [
            "setp.lt.and.s32 %p1|%p2, %r1, -5, !%p3;",
            "setp.eq.s32 _|%p2, %r1, 16;",
            "shfl.sync.down.b32 %r1|%p1, %r2, 1, 31, -1;",
            "ld.global.v4.u32 {%r1, _, %r2, %r3}, [%rd1+-16];",
            "ld.shared.u8 %r1, [s+4];",
            "ld.u32 %r1, [64];",
            "ld.u32 %r1, [%rd1];",
            "st.v2.f32 [%rd1+8], {%f1, 0f3F800000};",
            "mov.u32 %r1, %tid.x;",
            "mov.u64 %rd1, %clock64;",
            "mov.u32 %r1, 32;",
            "mov.u32 %r1, %envreg2;",
            "mov.u64 %rd1, s+4;",
            "mov.f32 %f1, 0d3FF4000000000000;",
            "mov.f64 %rd1, 0d3FF0000000000000;",
            "mov.b32 %r1, 1;",
            "tex.2d.v4.f32.f32 {%f1, %f2, %f3, %f4}, [%rd1, {%f1, %f2}];",
            "tex.3d.v4.s32.f32 {%r1, %r2, %r3, %r4}, [%rd1, %rd2, {%f1, %f2, %f3, %f3}];",
            "sust.b.2d.b32.trap [%rd1, {%r1, %r2}], {%r3};",
            "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes [%r1], [%rd1, {%r2, %r3}], [s+8];",
            "mov.v4.u32 {%r1, %r2, %r3, %r4}, %tid;",
            "mov.u32 %r1, -1;",
            "mov.u64 %rd1, -9223372036854775808;",
            "mov.f32 %f1, 0fBF800000;",
            "mov.u32 %r1, 3;",
            "ld.shared::cta.u8 %r2, [s];",
        ]
    );
    let special = &instructions(&body)[8].operands[1];
    assert_eq!(special, &Operand::Special(Special::Tid(Dim::X)));
}

#[test]
fn operand_errors() {
    for (text, message) in [
        ("mov.u32 a, ;", "line 3, column 27: found ';', expected an operand"),
        ("mov.u32 a, 1", "found '}', expected ',' or ';'"),
        ("mov.u32 a 1;", "found '1', expected ',' or ';'"),
        ("mov.u32 a, {1, 2;", "found ';', expected '}'"),
        ("ld.u32 a, [a;", "found ';', expected ']'"),
        ("mov.u32 a, [];", "expected an operand"),
        ("mov.u32 a, a|5;", "found '5', expected a register or '_'"),
        ("mov.u32 a, ~1.5;", "operator '~' on a floating-point number"),
        ("ld.u32 a, [a+1.5];", "offset is not an integer"),
        ("L: ld.u32 a, [L];", "line 3, column 30: not an address"),
        ("ld.u32 a, [L+4]; L:", "undeclared variable 'L'"),
        ("ld.u32 a, [a|a];", "not an address"),
        ("@a;", "expected an opcode"),
        ("5;", "expected an instruction, a label, a directive or '}'"),
        (".frobnicate;", "found '.frobnicate', expected a directive of a function body"),
        ("mov.u32 a, \u{e9};", "character"),
    ] {
        let found = parse_error(&format!(".entry k()\n{{ .reg .b32 a; {text} }}"));
        assert!(found.contains(message), "{text}: {found}");
    }
}

#[test]
fn forms() {
    let form = Form::new("ld.relaxed.gpu.global.v2.u32");
    assert_eq!(&*form.opcode, "ld");
    let modifiers: Vec<_> = form.modifiers.iter().map(|m| &**m).collect();
    assert_eq!(modifiers, ["relaxed", "gpu", "global", "v2", "u32"]);
    assert_eq!((form.vector, form.space, form.last_type()), (2, Some(Space::Global), Some(ScalarType::U32)));
    assert_eq!(Form::new("cvt.rn.f32.s64").types, [ScalarType::F32, ScalarType::S64]);
    assert_eq!(Form::new("ld.param::entry.b8").space, Some(Space::Param));
    assert_eq!(Form::new("st.shared::cta.b8").space, Some(Space::Shared));
    assert_eq!(Form::new("ret").space, None);
    // Instructions with the same text share one form.
    let body = parse_body(".reg .b32 a; mov.u32 a, 1; mov.u32 a, 2;");
    let found = instructions(&body);
    assert!(std::sync::Arc::ptr_eq(&found[0].form, &found[1].form));
}

#[test]
fn special_registers_come_back_from_their_names() {
    let mut all: Vec<Special> = Sreg::ALL.iter().map(|s| Special::Plain(*s)).collect();
    for dim in Dim::ALL {
        all.extend([Special::Tid(*dim), Special::Nclusterid(*dim), Special::ClusterNctaid(*dim)]);
    }
    all.extend((0..32).map(Special::Envreg));
    all.extend((0..8).flat_map(|n| [Special::Pm(n), Special::Pm64(n)]));
    for special in all {
        let body = parse_body(&format!(".reg .b32 a; mov.u32 a, {special};"));
        assert_eq!(instructions(&body)[0].operands[1], Operand::Special(special));
    }
    for no in ["pm8", "pm00", "envreg01", "envreg", "tid.x", "laneidx", "pm0_65"] {
        assert_eq!(Special::from_name(no), None, "{no}");
    }
}

#[test]
fn what_is_skipped() {
    let module = parse_items(
        ".file 1 \"a.cu\", 1234, 5678
         .pragma \"x\", \"y\";
         .section .debug_info { .b8 1, 2 .b64 $L__func_begin0 \"}\" // }
            .b32 x+4 }
         # 1 \"preprocessed.ptx\"
         @@DWARF .byte 0x12
         .entry k() {
            .loc 1 5 9, function_name $L__info_string0, inlined_at 1 34 0
            .pragma \"nounroll\";
            ret;
            .loc 1 6 0
         }
         .loc 1 7 0",
    );
    assert_eq!(module.items.len(), 1);
    assert_eq!(texts(function(&module, "k").body.as_ref().unwrap()), ["ret;"]);
    assert!(parse_error(".section .debug_info { { }").contains("unexpected end of text, expected '}'"));
}

#[test]
fn lines_are_kept() {
    let module = parse_items(
        "\n.global .u32 g;\n.entry k()\n{\n\n.reg .b32 a;\n/* \n */ @!p ret;\n}".replace("@!p ", "").as_str(),
    );
    assert_eq!(variable(&module, "g").line, 3);
    assert_eq!(function(&module, "k").line, 4);
    assert_eq!(instructions(function(&module, "k").body.as_ref().unwrap())[0].line, 9);
}

#[test]
fn numba_style_module() {
    let module = parse_items(
        ".common .global .align 8 .u64 _ZN08NumbaEnv8__main__3addB2v1B92c8tJTIcFIjB5E;
         .visible .entry _ZN6cudapy8__main__3addE(
            .param .u64 _ZN6cudapy8__main__3addE_param_0
         )
         { .reg .b64 %rd<2>; ld.param.u64 %rd1, [_ZN6cudapy8__main__3addE_param_0]; ret; }
         .weak .func (.param .b32 func_retval0) cudaMalloc(.param .b64 cudaMalloc_param_0)
         { .reg .b32 %r<2>; mov.u32 %r1, 30; st.param.b32 [func_retval0+0], %r1; ret; }",
    );
    assert_eq!(module.items.len(), 3);
}

#[test]
fn bounded_nesting() {
    let deep = |open: &str, close: &str, n: usize| format!("{}{}", open.repeat(n), close.repeat(n));
    let scopes = parse_error(&format!(".entry k() {}", deep("{", "}", 100_000)));
    assert!(scopes.contains("nesting of scopes 33 exceeds the limit of 32"), "{scopes}");
    for text in [
        format!(".global .b8 x = {};", deep("(", ")", 100_000)),
        format!(".global .b8 x = {}1;", "-".repeat(100_000)),
        format!(".global .b8 x = {}1;", "(.s64)".repeat(100_000)),
        format!(".global .b8 x = {}1;", "1?".repeat(100_000)),
        format!(".global .b8 x = {}1;", "1?1:".repeat(100_000)),
        format!(".global .b8 x = {};", deep("{", "}", 100_000)),
    ] {
        let message = parse_error(&text);
        assert!(message.contains("exceeds the limit of 64"), "{message}");
    }
}

#[test]
fn ranges_cost_nothing() {
    // Without dense ids for used registers alone this would be 16 G registers.
    let body = format!(
        ".entry k() {{ {} ret; }}",
        "{ .reg .b32 %r<16777216>; mov.u32 %r16777215, 0; }".repeat(1000)
    );
    let module = parse_items(&body);
    assert_eq!(function(&module, "k").body.as_ref().unwrap().registers.len(), 1000);
}
