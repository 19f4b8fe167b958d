//! Every opcode form that is known to occur is parsed with operands of its kind.

mod common;

use common::*;
use ptx::*;

const FORMS: &str = include_str!("data/forms.txt");

/// Operands as a compiler writes them for this form.
fn operands(form: &Form) -> String {
    let vector = |prefix: &str, n: u8| {
        let list: Vec<_> = (0..n).map(|i| format!("%{prefix}{i}")).collect();
        format!("{{{}}}", list.join(", "))
    };
    let value = if form.vector > 1 { vector("r", form.vector) } else { "%r1".to_owned() };
    let coordinates = || {
        let dims = if form.has("3d") || form.has("cube") || form.has("a2d") {
            4
        } else if form.has("2d") {
            2
        } else {
            1
        };
        vector("f", dims)
    };
    match &*form.opcode {
        "ret" | "exit" | "trap" | "brkpt" | "membar" | "fence" | "griddepcontrol" => String::new(),
        "bra" => "L".into(),
        "call" if form.has("uni") => "(ret0), f, (param0)".into(),
        "call" => "(ret0), %rd1, (param0), proto".into(),
        "ld" => format!("{value}, [%rd1+-8]"),
        "st" => format!("[%rd1+8], {value}"),
        "atom" if form.has("cas") => "%r1, [%rd1], %r2, %r3".into(),
        "atom" => "%r1, [s+4], %r2".into(),
        "red" => "[%rd1], 1".into(),
        "tex" if form.has("level") => format!("{value}, [%rd1, {}], %f1", coordinates()),
        "tex" => format!("{value}, [%rd1, {}]", coordinates()),
        "suld" => format!("{value}, [%rd1, {}]", coordinates()),
        "sust" => format!("[%rd1, {}], {value}", coordinates()),
        "wmma" if form.has("load") => format!("{}, [%rd1+32], %r1", vector("r", 8)),
        "wmma" if form.has("store") => format!("[%rd1], {}, %r1", vector("f", 8)),
        "wmma" | "mma" => [vector("f", 8), vector("r", 8), vector("r", 8), vector("f", 8)].join(", "),
        "cp" if form.has("commit_group") => String::new(),
        "cp" if form.has("wait_group") => "0".into(),
        "cp" if form.has("bulk") => "[%r1], [%rd1], %r2, [%r3]".into(),
        "cp" => "[%r1], [%rd1], 16, 16".into(),
        "mbarrier" if form.has("try_wait") => "%p1, [%r1], %rd2".into(),
        "mbarrier" if form.has("arrive") => "%rd1, [%r1]".into(),
        "mbarrier" => "[%r1], 256".into(),
        "shfl" => "%r1|%p1, %r2, 31, 31, -1".into(),
        "setp" => "%p1, %r1, 0".into(),
        "bar" | "barrier" if form.has("red") => "%p1, 0, 64, !%p2".into(),
        "bar" | "barrier" if form.has("cluster") => String::new(),
        "bar" | "barrier" => "0, 64".into(),
        "mov" if form.last_type() == Some(ScalarType::Pred) => "%p1, %p2".into(),
        "mov" if form.last_type() == Some(ScalarType::B64) => "{%r1, %r2}, %rd1".into(),
        "mov" => "%r1, %ctaid.x".into(),
        "nanosleep" => "1000".into(),
        "activemask" => "%r1".into(),
        "selp" => "%r1, %r2, 7, %p1".into(),
        _ => "%r1, %r2, 0f3F800000, 4, %r5".into(),
    }
}

#[test]
fn every_known_form() {
    let mut count = 0;
    for text in FORMS.lines() {
        count += 1;
        let form = Form::new(text);
        let instruction = format!("@!%p0 {text} {};", operands(&form));
        let module = parse_items(&format!(
            ".func (.param .b32 r) f(.param .b32 a);
             .entry k() {{
                .reg .b32 %r<9>; .reg .b64 %rd<9>; .reg .f32 %f<9>; .reg .pred %p<9>; .shared .b8 s[16];
                .param .b32 ret0; .param .b32 param0; proto: .callprototype (.param .b32 _) _ (.param .b32 _);
                L: {instruction}
             }}"
        ));
        let body = function(&module, "k").body.as_ref().unwrap();
        let found = instructions(body)[0];
        let mut expected = text.split('.');
        assert_eq!(Some(found.opcode()), expected.next());
        let modifiers: Vec<_> = found.form.modifiers.iter().map(|m| &**m).collect();
        assert_eq!(modifiers, expected.collect::<Vec<_>>(), "{text}");
        assert_eq!(found.guard.map(|g| g.negated), Some(true));
        // Offsets and registers are written here as they are printed: the operands have to come back, too.
        let printed = InstructionText { body, instruction: found }.to_string();
        assert_eq!(printed.replace(' ', ""), instruction.replace(' ', ""));
    }
    assert!(count > 600, "the list of forms has shrunk to {count}");
}
