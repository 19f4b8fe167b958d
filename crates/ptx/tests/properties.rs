//! Properties: printing and parsing are inverse, nothing panics, real PTX is understood.

mod common;

use common::*;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use ptx::fuzz::fuzz_ptx;
use ptx::*;

#[test]
fn real_ptx() {
    for (name, text) in REAL {
        let module = parse(text).unwrap_or_else(|error| panic!("{name}: {error}"));
        let printed = module.to_string();
        assert_eq!(parse(printed.as_bytes()).unwrap().to_string(), printed, "{name}");
        fuzz_ptx(text);
    }
}

#[test]
fn what_real_ptx_says() {
    let (_, text) = REAL.iter().find(|(name, _)| *name == "basic").unwrap();
    let module = parse(text).unwrap();
    let vector_add = function(&module, "vector_add");
    assert!(vector_add.is_entry && vector_add.linkage == Linkage::Visible);
    let layout = layout::params(&vector_add.params).unwrap();
    assert_eq!(layout.slots.iter().map(|s| s.offset).collect::<Vec<_>>(), [0, 8, 16, 24]);
    assert_eq!(layout.size, 28);
    let by_value = layout::params(&function(&module, "by_value").params).unwrap();
    let slots: Vec<_> = by_value.slots.iter().map(|s| (s.offset, s.size)).collect();
    assert_eq!(slots, [(0, 24), (32, 16), (48, 1), (56, 8)]);
    assert_eq!(
        function(&module, "reduce").directives,
        [Directive::MaxNTid([256, 1, 1]), Directive::MinNCtaPerSm(2)]
    );
    assert_eq!(layout::image(variable(&module, "counter"), 64).unwrap().bytes, [7, 0, 0, 0]);
    let pods = layout::image(variable(&module, "pods"), 64).unwrap();
    assert_eq!(&pods.bytes[16..20], b"abcd");
    let words = layout::image(variable(&module, "words"), 64).unwrap();
    assert_eq!(words.relocations.iter().map(|r| r.offset).collect::<Vec<_>>(), [0, 8, 16]);
    assert!(words.relocations.iter().all(|r| r.target.generic));
    assert!(variable(&module, "managed_value").is_managed());
    // Two inline assembly blocks with the same labels.
    let labels = &function(&module, "inline_asm").body.as_ref().unwrap().labels;
    assert_eq!(labels.iter().filter(|l| l.starts_with("DONE")).count(), 2);
    // An indirect call with its prototype, and calls of the runtime.
    let body = function(&module, "calls").body.as_ref().unwrap();
    let calls: Vec<_> = instructions(body).into_iter().filter_map(Instruction::call).collect();
    let indirect: Vec<_> = calls.iter().filter(|c| matches!(c.target, Operand::Reg(_))).collect();
    assert_eq!(indirect.len(), 1);
    assert!(body.prototype(indirect[0].signature.unwrap()).is_some());
    assert!(calls.iter().any(|c| matches!(c.target, Operand::Symbol { name, .. } if &**name == "vprintf")));
}

#[test]
fn truncated_anywhere() {
    let (_, text) = REAL.iter().find(|(name, _)| *name == "tiny").unwrap();
    for end in 0..text.len() {
        // A cut inside a function leaves it without its end: always an error.
        let result = parse(&text[..end]);
        let inside = text[..end].contains(&b'{') && text[end..].contains(&b'}');
        assert!(!inside || result.is_err(), "cut at {end}");
    }
    let (_, text) = REAL.iter().find(|(name, _)| *name == "unit_a").unwrap();
    for end in 0..text.len() {
        drop(parse(&text[..end]));
    }
}

/// Every file of the corpus, whole and with each line left out in turn.
#[test]
fn corpus() {
    let mut files = 0;
    for entry in std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/corpus/ptx")).unwrap() {
        let text = std::fs::read(entry.unwrap().path()).unwrap();
        files += 1;
        fuzz_ptx(&text);
        let lines: Vec<&[u8]> = text.split_inclusive(|b| *b == b'\n').collect();
        for skip in 0..lines.len() {
            let kept: Vec<&[u8]> =
                lines.iter().enumerate().filter(|(i, _)| *i != skip).map(|(_, l)| *l).collect();
            fuzz_ptx(&kept.concat());
        }
    }
    assert!(files >= 3, "the corpus is missing");
}

fn name() -> impl Strategy<Value = String> {
    select(vec!["a", "b", "x", "p", "$L", "%v", "_1", "s", "L0"]).prop_map(str::to_owned)
}

fn ty() -> impl Strategy<Value = ScalarType> {
    select(ScalarType::ALL.iter().copied().filter(|t| !t.is_opaque()).collect::<Vec<_>>())
}

fn number() -> impl Strategy<Value = String> {
    prop_oneof![
        any::<i64>().prop_map(|n| n.to_string()),
        any::<u64>().prop_map(|n| format!("{n:#x}")),
        any::<u32>().prop_map(|n| format!("0f{n:08X}")),
        any::<u64>().prop_map(|n| format!("0d{n:016x}")),
        (-1000i32..1000, 1u32..1000).prop_map(|(a, b)| format!("({a} * {b} - 7)")),
        Just("WARP_SZ".to_owned()),
    ]
}

/// A piece of a function body: mostly legal, since names are few and declarations frequent.
fn statement() -> impl Strategy<Value = String> {
    let operand = || {
        prop_oneof![
            3 => name(),
            2 => (0..4u32).prop_map(|n| format!("%r{n}")),
            1 => number(),
            1 => (name(), -64i32..64).prop_map(|(n, o)| format!("[{n}+{o}]")),
            1 => (0..4u32, -64i32..64).prop_map(|(n, o)| format!("[%r{n}+{o}]")),
            1 => vec((0..4u32).prop_map(|n| format!("%r{n}")), 1..5).prop_map(|v| format!("{{{}}}", v.join(","))),
            1 => select(vec!["_", "%tid.x", "%laneid", "%r0|%r1", "_|%r2", "!%r1", "%r1.b2", "[%r0, {%r1, %r2}]"])
                .prop_map(str::to_owned),
        ]
    };
    let opcode = select(vec![
        "mov.u32",
        "ld.shared::cta.v2.f32",
        "bra",
        "frob.2d.x",
        "call.uni",
        "ret",
        "setp.lt.s32",
    ]);
    let leaf = prop_oneof![
        6 => (opcode, vec(operand(), 0..4), any::<bool>()).prop_map(|(opcode, operands, guard)| {
            format!("{}{opcode} {};", if guard { "@!%r0 " } else { "" }, operands.join(", "))
        }),
        2 => name().prop_map(|n| format!("{n}:")),
        2 => (ty(), name()).prop_map(|(ty, n)| format!(".reg .{ty} {n};")),
        1 => (1..9u32).prop_map(|n| format!(".reg .b64 %r<{n}>;")),
        1 => (ty(), name(), 1..9u32).prop_map(|(ty, n, k)| format!(".shared .{ty} {n}[{k}];")),
        1 => name().prop_map(|n| format!("{n}: .branchtargets L0, L0;")),
        1 => name().prop_map(|n| format!("{n}: .callprototype (.param .b32 _) _ (.param .u64 _);")),
    ];
    leaf.prop_recursive(3, 24, 6, |inner| {
        vec(inner, 0..6).prop_map(|list| format!("{{ {} }}", list.join(" ")))
    })
}

fn item() -> impl Strategy<Value = String> {
    let linkage = select(vec!["", ".visible ", ".weak ", ".extern ", ".common "]);
    let init = prop_oneof![
        vec(number(), 1..5).prop_map(|v| format!("= {{{}}}", v.join(", "))),
        name().prop_map(|n| format!("= {{generic({n})+4, {n}-2, 0xff00({n})}}")),
        Just(String::new()),
    ];
    prop_oneof![
        (linkage.clone(), select(vec!["global", "const", "shared"]), ty(), name(), init)
            .prop_map(|(l, s, ty, n, i)| format!("{l}.{s} .align 16 .{ty} {n}[8] {i};")),
        (linkage, any::<bool>(), name(), vec((ty(), name()), 0..3), vec(statement(), 0..12)).prop_map(
            |(l, entry, n, params, body)| {
                let params: Vec<_> = params.iter().map(|(ty, n)| format!(".param .{ty} {n}")).collect();
                let kind = if entry { "entry" } else { "func" };
                format!(
                    "{l}.{kind} {n}({}) .maxnreg 32 {{ .reg .b32 %r<4>, %v; {{ {} }} L0: }}",
                    params.join(", "),
                    body.join(" ")
                )
            }
        ),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn generated_modules(items in vec(item(), 0..6)) {
        // Most names mean something everywhere, so that a good part of the modules is legal.
        let declared = ".global .u32 a, b, x, p; .extern .shared .b8 s[]; .func $L(); .const .u8 _1;\n";
        fuzz_ptx(with_header(&(declared.to_owned() + &items.join("\n"))).as_bytes());
    }

    #[test]
    fn constants_fold(a in any::<i32>(), b in any::<i32>(), c in 1..i32::MAX, shift in 0..63u32) {
        let (wa, wb, wc) = (i64::from(a), i64::from(b), i64::from(c));
        for (text, expected) in [
            (format!("{a} + {b} * {c}"), wa + wb.wrapping_mul(wc)),
            (format!("({a} - {b}) / {c}"), (wa - wb) / wc),
            (format!("{a} & {b} | {c} ^ ~{a}"), wa & wb | (wc ^ !wa)),
            (format!("{a} << {shift} >> {shift}"), wa << shift >> shift),
            (format!("{a} < {b} ? {a} : {b}"), wa.min(wb)),
            (format!("{a} != {b} && !({a} == {b})"), (a != b).into()),
        ] {
            let module = parse_items(&format!(".global .u64 x = {text};"));
            prop_assert_eq!(&variable(&module, "x").init, &Some(Init::Int(expected)), "{}", text);
        }
    }

    #[test]
    fn mutated_ptx_never_panics(
        file in select(REAL),
        edits in vec((any::<Index>(), any::<u8>(), 0..3u8), 1..6),
        swap in any::<(Index, Index)>(),
    ) {
        let mut text = file.1.to_vec();
        for (at, byte, kind) in edits {
            let at = at.index(text.len());
            match kind {
                0 => text[at] = if byte < 250 { b' ' + byte % 95 } else { byte },
                1 => drop(text.remove(at)),
                _ => text.insert(at, b"{}[]();,.:<>@!%\"0x$_"[usize::from(byte) % 20]),
            }
        }
        // Two lines change places: often still legal, or nearly.
        let mut lines: Vec<&[u8]> = text.split(|b| *b == b'\n').collect();
        let (a, b) = (swap.0.index(lines.len()), swap.1.index(lines.len()));
        lines.swap(a, b);
        fuzz_ptx(&lines.join(&b'\n'));
    }

    #[test]
    fn random_bytes_never_panic(bytes in vec(any::<u8>(), 0..200)) {
        fuzz_ptx(&bytes);
        let mut text = with_header(".entry k() {").into_bytes();
        text.extend(bytes);
        fuzz_ptx(&text);
    }
}
