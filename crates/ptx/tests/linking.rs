//! The linker.

mod common;

use common::*;
use ptx::*;

fn unit(name: &str, items: &str) -> Unit {
    Unit { name: name.into(), module: parse_items(items) }
}

fn linked(units: &[(&str, &str)]) -> Module {
    let units = units.iter().map(|(name, items)| unit(name, items)).collect();
    link(units).unwrap_or_else(|error| panic!("{error}"))
}

fn problems(units: &[(&str, &str)]) -> Vec<String> {
    let units = units.iter().map(|(name, items)| unit(name, items)).collect();
    match link(units) {
        Ok(module) => panic!("linked:\n{module}"),
        Err(error) => error.problems.iter().map(LinkProblem::to_string).collect(),
    }
}

fn names(module: &Module) -> Vec<&str> {
    module.items.iter().map(|item| &**item.name()).collect()
}

#[test]
fn one_unit() {
    let module = linked(&[(
        "a",
        ".func f(); .extern .func (.param .b32 r) vprintf(.param .b64 a, .param .b64 b);
         .global .u32 x; .global .u64 table[1] = {f};
         .entry k() { call f; call vprintf, (); ret; } .func f() { ret; }",
    )]);
    assert_eq!(names(&module), ["x", "table", "vprintf", "k", "f"]);
    assert!(function(&module, "f").body.is_some());
    assert_eq!(problems(&[]), ["No units to link"]);
}

#[test]
fn real_units() {
    let read = |name: &str| {
        let (_, text) = REAL.iter().find(|(n, _)| *n == name).unwrap();
        Unit { name: name.into(), module: parse(text).unwrap() }
    };
    for order in [["unit_a", "unit_b"], ["unit_b", "unit_a"]] {
        let module = link(order.map(read).to_vec()).unwrap();
        let mut found = names(&module);
        found.sort_unstable();
        let mut unique = found.clone();
        unique.dedup();
        assert_eq!(found, unique, "each name once");
        for name in ["kernel_a", "kernel_b", "_Z6from_bfi", "_Z5twiceIiET_S0_"] {
            assert!(function(&module, name).body.is_some(), "{name}");
        }
        assert!(variable(&module, "b_table").init.is_some());
        assert!(variable(&module, "shared_const").init.is_some());
        assert_eq!(variable(&module, "_ZZ9only_oncevE4once").linkage, Linkage::Weak);
        assert_eq!(found.iter().filter(|n| n.ends_with("hidden")).count(), 2);
        // What was linked can be linked again, and printed and parsed.
        let again = Unit { name: "again".into(), module: parse(module.to_string().as_bytes()).unwrap() };
        assert_eq!(link(vec![again]).unwrap().to_string(), module.to_string());
    }
    assert_eq!(
        link(vec![read("unit_a")]).unwrap_err().to_string(),
        "Undefined reference to '_Z6from_bfi' in 'unit_a'\nUndefined reference to 'b_table' in 'unit_a'"
    );
}

#[test]
fn local_symbols_stay_apart() {
    let a =
        ".global .u32 x = 1; .global .u64 p[1] = {generic(x)}; .func f() { .reg .b64 a; mov.u64 a, x; ret; }
             .visible .entry ka() { .reg .b64 a; mov.u64 a, p; ld.u32 a, [x+4]; call f; ret; }";
    let b =
        ".global .u32 x = 2; .global .u64 p[1] = {generic(x)}; .func f() { .reg .b64 a; mov.u64 a, x; ret; }
             .visible .entry kb() { .reg .b64 a; mov.u64 a, p; ld.u32 a, [x+4]; call f; ret; }";
    let module = linked(&[("a", a), ("b", b)]);
    assert_eq!(names(&module), ["x", "p", "x$u1", "p$u1", "f", "ka", "f$u1", "kb"]);
    let body = |name| texts(function(&module, name).body.as_ref().unwrap());
    assert_eq!(body("ka"), ["mov.u64 a, p;", "ld.u32 a, [x+4];", "call f;", "ret;"]);
    assert_eq!(body("kb"), ["mov.u64 a, p$u1;", "ld.u32 a, [x$u1+4];", "call f$u1;", "ret;"]);
    assert_eq!(body("f$u1"), ["mov.u64 a, x$u1;", "ret;"]);
    assert_eq!(variable(&module, "x$u1").init, Some(Init::Int(2)));
    let Some(Init::List(list)) = &variable(&module, "p$u1").init else { panic!("no list") };
    assert!(matches!(&list[0], Init::Address(a) if &*a.symbol == "x$u1"));
}

#[test]
fn local_symbol_gives_way_to_a_global_one_and_names_are_never_taken_twice() {
    let a =
        ".global .u32 x = 1; .visible .entry ka() { .reg .b64 a, x$u0; mov.u64 a, x; mov.u64 x$u0, a; ret; }";
    let b = ".visible .global .u32 x = 2; .visible .entry kb() { .reg .b64 a; mov.u64 a, x; ret; }";
    let module = linked(&[("a", a), ("b", b)]);
    let body = |name| texts(function(&module, name).body.as_ref().unwrap());
    assert_eq!(body("ka")[0], "mov.u64 a, x$u2;");
    assert_eq!(body("kb")[0], "mov.u64 a, x;");
    assert_eq!(variable(&module, "x").init, Some(Init::Int(2)));
}

/// A parameter or variable of a function hides a module-level name: it must not be renamed with it.
#[test]
fn function_local_names_are_not_references() {
    let a = ".global .u32 x; .visible .func f(.param .b32 x) { .reg .b32 a; ld.param.b32 a, [x]; ret; }";
    let b = ".global .u32 x; .visible .func g(.param .b32 x) { .reg .b32 a; ld.param.b32 a, [x]; ret; }";
    let module = linked(&[("a", a), ("b", b)]);
    assert_eq!(texts(function(&module, "g").body.as_ref().unwrap())[0], "ld.param.b32 a, [x];");
    assert_eq!(names(&module), ["x", "x$u1", "f", "g"]);
}

#[test]
fn strong_beats_common_beats_weak() {
    let weak = ".weak .global .u32 x = 1; .weak .func f() { trap; }";
    let common = ".common .global .u32 x;";
    let strong = ".visible .global .u32 x = 3; .visible .func f() { ret; }";
    let value = |units: &[(&str, &str)]| {
        let module = linked(units);
        assert_eq!(names(&module).iter().filter(|n| **n == "x").count(), 1);
        variable(&module, "x").init.clone()
    };
    assert_eq!(value(&[("a", weak), ("b", common), ("c", strong)]), Some(Init::Int(3)));
    assert_eq!(value(&[("a", strong), ("b", common), ("c", weak)]), Some(Init::Int(3)));
    assert_eq!(value(&[("a", weak), ("b", common)]), None);
    assert_eq!(value(&[("a", weak), ("b", ".weak .global .u32 x = 9;")]), Some(Init::Int(1)));
    let module = linked(&[("a", weak), ("b", strong)]);
    assert_eq!(texts(function(&module, "f").body.as_ref().unwrap()), ["ret;"]);
    // The biggest of tentative definitions, with the greatest alignment.
    let module = linked(&[("a", ".common .global .b8 c[4];"), ("b", ".common .global .align 16 .b8 c[8];")]);
    assert_eq!((variable(&module, "c").size(), variable(&module, "c").align()), (Some(8), 16));
}

/// As nvcc does for a template function: declared weakly and defined in each unit.
#[test]
fn weak_declarations() {
    let text = ".weak .func f(); .weak .func f() { ret; } .visible .entry NAME() { call f; ret; }";
    let module = linked(&[("a", &text.replace("NAME", "ka")), ("b", &text.replace("NAME", "kb"))]);
    assert_eq!(names(&module), ["f", "ka", "kb"]);
    // Without any definition, a weak reference is no error.
    assert_eq!(names(&linked(&[("a", ".weak .func f(); .entry k() { call f; ret; }")])), ["f", "k"]);
}

#[test]
fn dynamic_shared_memory_is_one() {
    let module = linked(&[
        ("a", ".extern .shared .align 4 .b8 s[]; .entry ka() { .reg .b32 a; mov.u32 a, s; }"),
        ("b", ".extern .shared .align 16 .b8 s[]; .entry kb() { .reg .b32 a; mov.u32 a, s; }"),
        ("c", ".extern .shared .f64 s[4]; .entry kc() { .reg .b32 a; mov.u32 a, s; }"),
    ]);
    assert_eq!(names(&module), ["s", "ka", "kb", "kc"]);
    assert_eq!(variable(&module, "s").align(), 16);
}

#[test]
fn all_problems_at_once() {
    let a = ".visible .global .u32 x; .visible .func f() { ret; } .visible .entry k() { ret; } .visible .const .u32 c;
             .visible .func g(.param .b32 a) { ret; } .visible .global .u32 v;";
    let b = ".visible .global .u32 x; .visible .func f() { ret; } .visible .entry k() { ret; }
             .extern .global .u32 c; .extern .func g(.param .b64 a); .extern .global .u64 v; .extern .func x2(); .func x2();
             .extern .global .u32 nowhere; .extern .global .u32 unused; .extern .func v2();
             .visible .entry kb() { .reg .b64 a; mov.u64 a, nowhere; mov.u64 a, nowhere; call v2; call x2; ret; }";
    assert_eq!(
        problems(&[("a.o", a), ("b.o", b)]),
        [
            "Multiple definition of 'x' in 'b.o', first defined in 'a.o'",
            "Multiple definition of 'f' in 'b.o', first defined in 'a.o'",
            "Multiple definition of 'k' in 'b.o', first defined in 'a.o'",
            "State space doesn't match for 'c' in 'b.o', first specified in 'a.o'",
            "Prototype doesn't match for 'g' in 'b.o', first specified in 'a.o'",
            "Size doesn't match for 'v' in 'b.o', first specified in 'a.o'",
            "Undefined reference to 'nowhere' in 'b.o'",
            "Undefined reference to 'v2' in 'b.o'",
            "Undefined reference to 'x2' in 'b.o'",
        ]
    );
    assert_eq!(
        problems(&[("a", ".global .u32 x; .global .u32 x;")]),
        ["Multiple definition of 'x' in 'a', first defined in 'a'"]
    );
    assert_eq!(
        problems(&[("a", ".visible .global .u32 x;"), ("b", ".extern .func x();")]),
        ["Kind doesn't match for 'x' in 'b', first specified in 'a'"]
    );
}

#[test]
fn initializers_and_tables_are_references() {
    let text = ".extern .func f(); .extern .global .u32 g; .extern .func h();
                .global .u64 p[2] = {f, generic(g)};
                .entry k() { t: .calltargets h; ret; }";
    let expected = ["f", "g", "h"].map(|n| format!("Undefined reference to '{n}' in 'a'"));
    assert_eq!(problems(&[("a", text)]), expected);
}

#[test]
fn aliases() {
    let a = ".visible .func f(); .visible .func g(); .visible .func f() { ret; } .alias g, f;";
    let b = ".extern .func g(); .visible .entry k() { call g; ret; }";
    assert_eq!(names(&linked(&[("a", a), ("b", b)])), ["f", "g", "k"]);
    assert_eq!(
        problems(&[("a", a), ("b", ".visible .func g() { ret; }")]),
        ["Multiple definition of 'g' in 'b', first defined in 'a'"]
    );
}

#[test]
fn runtime_functions_may_stay_undefined() {
    let text = ".extern .func (.param .b64 r) cudaGetParameterBufferV2(.param .b64 a);
                .extern .func (.param .b64 r) malloc(.param .b64 a);
                .entry k() { call cudaGetParameterBufferV2; call malloc; ret; }";
    assert_eq!(names(&linked(&[("a", text)])), ["cudaGetParameterBufferV2", "malloc", "k"]);
    assert!(!is_runtime("cudakernel") && !is_runtime("printf") && is_runtime("__cudaCDP2LaunchDeviceV2"));
}

fn is_runtime(name: &str) -> bool {
    link::is_runtime_function(name)
}

#[test]
fn headers_are_merged() {
    let module = |text: &str| Unit { name: "u".into(), module: parse(text.as_bytes()).unwrap() };
    let linked = link(vec![
        module(".version 8.0 .target sm_75 .address_size 64"),
        module(".version 7.5 .target sm_90a .address_size 64"),
    ])
    .unwrap();
    assert_eq!((linked.version, linked.target.sm, linked.target.suffix), ((8, 0), 90, Some('a')));
    let error = link(vec![
        module(".version 8.0 .target sm_75 .address_size 64"),
        module(".version 8.0 .target sm_75 .address_size 32"),
    ])
    .unwrap_err();
    assert_eq!(error.to_string(), "Address size 32 of 'u' doesn't match 64 of 'u'");
}
