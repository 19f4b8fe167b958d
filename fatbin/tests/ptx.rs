//! The PTX header scanner.

use fatbin::ErrorKind;
use fatbin::ptx::{Header, scan};

const HEAD: &str = ".version 8.0\n.target sm_80\n.address_size 64\n";

fn module(body: &str) -> String {
    format!("{HEAD}{body}")
}

/// Name, offset, size and alignment of the only kernel's parameters.
fn layout(params: &str) -> Vec<(String, u32, u32, u32)> {
    let text = module(&format!(".visible .entry k({params})\n{{ ret; }}"));
    let header = scan(text.as_bytes()).expect("PTX");
    assert_eq!(header.entries.len(), 1, "{params}");
    let params = header.entries[0].params.as_ref().expect("layout");
    params.iter().map(|p| (p.name.to_owned(), p.offset, p.size, p.align)).collect()
}

fn one(params: &str) -> Vec<(u32, u32, u32)> {
    layout(params).into_iter().map(|(_, offset, size, align)| (offset, size, align)).collect()
}

#[test]
fn natural_layout() {
    assert_eq!(
        one(".param .u8 a, .param .u64 b, .param .u16 c, .param .f32 d"),
        [(0, 1, 1), (8, 8, 8), (16, 2, 2), (20, 4, 4)]
    );
    assert_eq!(
        one(".param .u8 a, .param .align 16 .b8 s[24], .param .b32 n"),
        [(0, 1, 1), (16, 24, 16), (40, 4, 4)]
    );
    assert_eq!(one(".param .b8 a[3], .param .b8 b[3]"), [(0, 3, 1), (3, 3, 1)]);
    assert_eq!(one(".param .f16x2 a, .param .b128 b, .param .bf16 c"), [(0, 4, 4), (16, 16, 16), (32, 2, 2)]);
    assert_eq!(one(".param .u32 a[2][3]"), [(0, 24, 4)]);
    assert_eq!(one(".param .u32 a[0x10], .param .u32 b[010]"), [(0, 64, 4), (64, 32, 4)]);
    assert_eq!(one(""), []);
}

#[test]
fn alignment_after_ptr_is_that_of_the_pointee() {
    assert_eq!(one(".param .u32 n, .param .u64 .ptr .global .align 256 p"), [(0, 4, 4), (8, 8, 8)]);
    assert_eq!(one(".param .u64 .ptr .align 1 p, .param .u64 .ptr q"), [(0, 8, 8), (8, 8, 8)]);
    assert_eq!(one(".param .align 32 .u64 .ptr .shared .align 4 p"), [(0, 8, 32)]);
}

#[test]
fn comments_and_white_space_may_stand_anywhere() {
    let text = "// .version 1.0\n/* .entry no() {} */.version/*x*/8.5 .target\tsm_90a , /**/ debug\n\
        .address_size\n64 .visible/* { */.entry // }\nname/*(*/(/*,*/.param .u32//)\n a/*,*/)\n\
        .maxntid 64, 2 .minnctapersm 1 { // }\n /* } */ { \"}\" } }\n.entry second{}";
    let header = scan(text.as_bytes()).expect("PTX");
    assert_eq!(header.version, (8, 5));
    assert_eq!((header.target.sm, header.target.suffix, header.target.debug), (90, "a", true));
    assert_eq!(header.entries.len(), 2);
    assert_eq!(header.entries[0].name, "name");
    assert_eq!(header.entries[0].max_threads, Some([64, 2, 1]));
    assert_eq!(header.entries[0].param_size(), 4);
    assert_eq!(header.entries[1].name, "second");
    assert_eq!(header.entries[1].params.as_deref(), Ok([].as_slice()));
}

#[test]
fn what_is_not_a_kernel_is_skipped() {
    let text = module(
        ".file 1 \"a { .entry b.cu\"\n\
         .extern .func (.param .b32 r) f(.param .b64 a, .param .b64 b);\n\
         .func (.param .b32 r) g(.param .align 8 .b8 s[16]) { { } .entry_not; ret; }\n\
         .global .align 4 .b8 table[8] = {1, 2, 3, 4};\n\
         .global .u64 v[2] = {g, 0};\n\
         .extern .entry declared(.param .u32 a);\n\
         .weak .entry $real_1(.param .u32 a) .reqntid 32 { ret; }\n\
         .section .debug_str { info: .b8 123 }\n",
    );
    let header = scan(text.as_bytes()).expect("PTX");
    let names: Vec<_> = header.entries.iter().map(|e| e.name).collect();
    assert_eq!(names, ["$real_1"]);
    assert_eq!(header.entries[0].required_threads, Some([32, 1, 1]));
}

#[test]
fn a_parameter_without_known_size_spoils_its_own_kernel_only() {
    let text = module(".entry a(.param .texref t, .param .u32 n) { }\n.entry b(.param .u32 n) { }");
    let header = scan(text.as_bytes()).expect("PTX");
    assert_eq!(header.entries.iter().map(|e| e.name).collect::<Vec<_>>(), ["a", "b"]);
    assert!(header.entries[0].params.is_err());
    assert_eq!(header.entries[1].params.as_ref().map(Vec::len), Ok(1));
    for bad in [
        ".param .u32 a[]",
        ".param a",
        ".param .u32",
        ".param .align 3 .b8 a[4]",
        ".param .align 0 .b8 a[4]",
        ".param .u32 a .param .u32 b",
        ".param .b8 a[99999999999]",
        ".param .b8 a[0xffffffffffffffff][0xffffffffffffffff]",
    ] {
        let text = module(&format!(".entry a({bad}) {{ }} .entry b() {{ }}"));
        let header = scan(text.as_bytes()).unwrap_or_else(|e| panic!("{bad}: {e}"));
        assert!(header.entries[0].params.is_err(), "{bad}");
        assert_eq!(header.entries[1].name, "b", "{bad}");
    }
}

#[test]
fn what_is_cut_off_is_an_error() {
    let text = module(".entry k(.param .u32 a) { mov.u32 %r1, 1; /* c */ ret; }\n");
    let end = text.trim_end().len();
    assert_eq!(scan(text.as_bytes()).expect("PTX").entries.len(), 1);
    for len in HEAD.len() + ".entry ".len()..end {
        let result: fatbin::Result<Header<'_>> = scan(&text.as_bytes()[..len]);
        assert!(result.is_err(), "{:?}", &text[..len]);
    }
    assert!(matches!(scan(b"").expect_err("empty").kind, ErrorKind::Missing));
    assert!(scan(b".version 8.0\n").is_err());
    assert!(scan(b".version eight .target sm_80").is_err());
    assert!(scan(b".version 8.0 .target gpu").is_err());
}

#[test]
fn text_ends_at_nul() {
    let text = module(".entry k() {}\0.entry l() {}");
    assert_eq!(scan(text.as_bytes()).expect("PTX").entries.len(), 1);
}

#[test]
fn any_bytes_are_tolerated_in_comments_and_strings() {
    let mut text = module("// ").into_bytes();
    text.extend(0x80..=0xff);
    text.extend(b"\n.file 1 \"");
    text.extend(0x80..=0xff);
    text.extend(b"\\\"{\"\n.entry k() {}");
    assert_eq!(scan(&text).expect("PTX").entries.len(), 1);
}

#[test]
fn large_texts_take_linear_time() {
    // 25 MB, with a body and with nesting that a quadratic scanner would never finish.
    let mut text = module(".entry k() {\n");
    text.push_str(&"{ add.s32 %r1, %r1, 1; } // {\n".repeat(400_000));
    text.push_str(&"{".repeat(1_000_000));
    text.push_str(&"}".repeat(1_000_000));
    text.push_str("}\n");
    text.push_str(&"/* x */ .extern .func f(.param .b64 p);\n".repeat(250_000));
    assert!(text.len() > 20_000_000);
    let header = scan(text.as_bytes()).expect("PTX");
    assert_eq!(header.entries.len(), 1);
}
