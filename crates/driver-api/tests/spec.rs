//! Mistakes in the sources of the table, each with the message that it gives, and the shape of what is written.

use driver_api::{Sources, Table, outputs};

/// Sources with one spec file `memory.rs` and exports that fit its usual rows.
fn sources(spec: &str) -> Sources {
    Sources {
        specs: vec![("memory".to_owned(), spec.to_owned())],
        exports: "cuMemAlloc_v2\ncuMemFree_v2\n".to_owned(),
        extra: String::new(),
        unhandled: "cuMemAlloc\t2000\t-\ncuMemFree\t2000\t-\n".to_owned(),
        opcodes: String::new(),
    }
}

/// As [`sources`], with the older names exported, so that only what a test breaks is wrong.
fn good(spec: &str) -> Sources {
    let mut sources = sources(spec);
    sources.exports.push_str("cuMemAlloc\ncuMemFree\n");
    sources
}

const ALLOC: &str = "/// Allocates.\n#[op(0x0310, since = 3020)]\n#[sync]\nfn cuMemAlloc_v2(#[out] dptr: *mut CUdeviceptr, bytesize: usize);\n";
const FREE: &str = "/// Frees.\n#[op(0x0312, since = 3020)]\n#[sync]\nfn cuMemFree_v2(dptr: CUdeviceptr);\n";

fn both() -> String {
    format!("{ALLOC}{FREE}")
}

#[track_caller]
fn complains(sources: &Sources, expected: &str) {
    match Table::new(sources) {
        Ok(_) => panic!("no complaint; expected:\n{expected}"),
        Err(error) => assert_eq!(error.to_string(), expected),
    }
}

/// The spec with one replacement in it.
#[track_caller]
fn with(from: &str, to: &str) -> Sources {
    let spec = both();
    assert!(spec.contains(from), "{from}");
    good(&spec.replacen(from, to, 1))
}

#[test]
fn a_correct_table_is_accepted() {
    let table = Table::new(&good(&both())).expect("no complaints");
    assert_eq!(table.rows.len(), 2);
    assert_eq!(table.opcodes, [(0x0310, "cuMemAlloc_v2".to_owned()), (0x0312, "cuMemFree_v2".to_owned())]);
    let versions = &table.versions()["cuMemAlloc"];
    assert_eq!(
        versions.iter().map(|v| (v.since, v.symbol.as_str())).collect::<Vec<_>>(),
        [(2000, "cuMemAlloc"), (3020, "cuMemAlloc_v2")]
    );
}

#[test]
fn syntax_errors_name_the_line() {
    complains(&with("dptr: CUdeviceptr);", "dptr CUdeviceptr);"), "spec/memory.rs:8: expected `:`");
}

#[test]
fn opcodes_are_unique() {
    complains(
        &with("0x0312", "0x0310"),
        "spec/memory.rs:8: cuMemFree_v2: opcode 0x0310 belongs to cuMemAlloc_v2 in spec/memory.rs:4",
    );
}

#[test]
fn opcodes_never_change() {
    let mut changed = good(&both());
    changed.opcodes = "0x0310 cuMemAlloc_v2\n0x0313 cuMemFree_v2\n".to_owned();
    complains(
        &changed,
        "spec/memory.rs:8: cuMemFree_v2: opcode changed from 0x0313 to 0x0312; opcodes are for ever",
    );
}

#[test]
fn opcodes_are_never_given_out_again() {
    let mut reused = good(&both());
    reused.opcodes = "0x0312 cuMemRetired\n".to_owned();
    complains(
        &reused,
        "spec/memory.rs:8: cuMemFree_v2: opcode 0x0312 was given to cuMemRetired; a new call needs a new opcode",
    );
}

#[test]
fn a_retired_opcode_stays_in_the_lock() {
    let mut retired = good(&both());
    retired.opcodes = "0x0001 cuMemRetired\n".to_owned();
    let table = Table::new(&retired).expect("no complaints");
    assert_eq!(table.opcodes[0], (1, "cuMemRetired".to_owned()));
}

#[test]
fn lock_files_are_checked_too() {
    let mut broken = good(&both());
    broken.opcodes = "0x0310 cuMemAlloc_v2\n0310 cuMemFree_v2\n".to_owned();
    broken.unhandled.push_str("cuMemOther 2000 -\n");
    complains(
        &broken,
        "opcodes.lock:2: expected `0x0000 name`, found `0310 cuMemFree_v2`\n\
         unhandled.tsv:3: expected `symbol <tab> since or - <tab> _ptds@N, _ptsz@N or -`, perhaps `<tab> reason`, found `cuMemOther 2000 -`",
    );
    let mut twice = good(&both());
    twice.opcodes = "0x0310 cuMemAlloc_v2\n0x0310 cuMemOld\n".to_owned();
    complains(&twice, "opcodes.lock:2: 0x0310 cuMemOld: opcode or name is listed twice");
}

#[test]
fn unknown_marks_are_errors() {
    complains(&with("#[sync]", "#[blocking]\n#[sync]"), "spec/memory.rs:3: unknown mark `blocking` on a row");
    complains(&with("#[out]", "#[inout]"), "spec/memory.rs:4: unknown mark `inout` on a parameter");
    complains(&with("since = 3020", "after = 3020"), "spec/memory.rs:2: unknown key `after` in #[op(..)]");
}

#[test]
fn only_what_is_waited_for_has_something_beside_it() {
    complains(
        &with("#[sync]", "#[sync]\n#[beside]"),
        "spec/memory.rs:5: cuMemAlloc_v2: only an internal operation that is waited for has something beside it",
    );
}

#[test]
fn a_row_has_one_class() {
    complains(
        &with("#[sync]\n", ""),
        "spec/memory.rs:3: cuMemAlloc_v2: no class: mark it local, via(..), like(..), cached, posted or sync",
    );
    complains(&with("#[sync]", "#[sync]\n#[posted]"), "spec/memory.rs:4: two classes: `sync` and `posted`");
}

#[test]
fn a_row_needs_an_opcode_if_it_travels() {
    complains(
        &with("0x0310, ", ""),
        "spec/memory.rs:4: cuMemAlloc_v2: a wire operation needs an opcode: #[op(0x.., ..)]",
    );
    complains(
        &with("#[sync]", "#[local]"),
        "spec/memory.rs:4: cuMemAlloc_v2: class `local` has no wire operation of its own and no opcode",
    );
    complains(&with("0x0310", "0"), "spec/memory.rs:4: cuMemAlloc_v2: opcode 0 is reserved");
    complains(
        &with("#[op(0x0310, since = 3020)]\n", ""),
        "spec/memory.rs:3: cuMemAlloc_v2: no #[op(..)] mark",
    );
}

#[test]
fn exported_rows_have_a_version_and_a_comment() {
    complains(&with(", since = 3020", ""), "spec/memory.rs:4: cuMemAlloc_v2: no `since` in #[op(..)]");
    complains(&with("/// Allocates.\n", ""), "spec/memory.rs:3: cuMemAlloc_v2: no doc comment");
}

#[test]
fn lengths_name_a_parameter() {
    let spec = "#[data_in(size)] data: *const c_void, bytesize: usize";
    complains(
        &with("#[out] dptr: *mut CUdeviceptr, bytesize: usize", spec),
        "spec/memory.rs:4: cuMemAlloc_v2: parameter `data`: #[data_in(size)]: no parameter of that name",
    );
    complains(
        &with("#[out] dptr: *mut CUdeviceptr, bytesize: usize", &spec.replace("size)]", "data)]")),
        "spec/memory.rs:4: cuMemAlloc_v2: parameter `data`: #[data_in(data)]: that parameter is no count",
    );
    complains(
        &with("#[out] dptr: *mut CUdeviceptr, bytesize: usize", &spec.replace("(size)", "")),
        "spec/memory.rs:4: cuMemAlloc_v2: parameter `data`: #[data_in] needs the parameter that holds the length",
    );
}

#[test]
fn what_cannot_travel_needs_a_direction_or_code() {
    complains(
        &with("#[out] dptr", "dptr"),
        "spec/memory.rs:4: cuMemAlloc_v2: parameter `dptr`: cannot travel: it needs a direction, or the row `local` or `via`",
    );
    complains(
        &with("*mut CUdeviceptr", "*const CUdeviceptr"),
        "spec/memory.rs:4: cuMemAlloc_v2: parameter `dptr`: #[out] is for a *mut pointer",
    );
    complains(
        &with("bytesize: usize", "bytesize: size_t"),
        "spec/memory.rs:4: unknown type `size_t`: add it to src/types.rs",
    );
}

#[test]
fn posted_calls_have_no_outputs() {
    complains(
        &with("#[sync]", "#[posted]"),
        "spec/memory.rs:4: cuMemAlloc_v2: a posted call is not waited for and has no outputs",
    );
}

#[test]
fn via_and_like_name_existing_rows() {
    complains(
        &with("#[op(0x0312, since = 3020)]\n#[sync]", "#[op(since = 3020)]\n#[via(free)]"),
        "spec/memory.rs:8: cuMemFree_v2: via(free): no such wire operation",
    );
    complains(
        &with("#[op(0x0312, since = 3020)]\n#[sync]", "#[op(since = 3020)]\n#[like(cuMemAlloc_v2)]"),
        "spec/memory.rs:8: cuMemFree_v2: like(cuMemAlloc_v2): other parameters, or a per-thread twin",
    );
}

#[test]
fn rows_are_exported_names() {
    complains(
        &with("cuMemFree_v2", "cuMemFree_v3"),
        "exports.lock:2: cuMemFree_v2 has neither a row in spec/ nor a line in unhandled.tsv\n\
         spec/memory.rs:8: cuMemFree_v3: `since = 3020` makes it version 2 of cuMemFree, but its name says 3\n\
         spec/memory.rs:8: cuMemFree_v3: not in exports.lock or exports.extra",
    );
}

#[test]
fn twins_are_exported_names() {
    complains(
        &with("0x0312, since = 3020", "0x0312, since = 3020, ptds = 7000"),
        "spec/memory.rs:8: cuMemFree_v2: its twin cuMemFree_v2_ptds is not in exports.lock or exports.extra",
    );
}

#[test]
fn every_export_is_a_row_or_listed() {
    let mut more = good(&both());
    more.exports.push_str("cuMemcpy_ptds\n");
    complains(&more, "exports.lock:5: cuMemcpy_ptds has neither a row in spec/ nor a line in unhandled.tsv");
    let mut twice = good(&both());
    twice.unhandled.push_str("cuMemFree_v2\t3020\t-\n");
    let error = Table::new(&twice).expect_err("listed twice").to_string();
    assert!(
        error.contains("unhandled.tsv:3: cuMemFree_v2 has a row or is listed twice: remove it here"),
        "{error}"
    );
    let unknown = sources(&both());
    complains(
        &unknown,
        "unhandled.tsv:1: cuMemAlloc is not in exports.lock or exports.extra\n\
         unhandled.tsv:2: cuMemFree is not in exports.lock or exports.extra",
    );
}

#[test]
fn versions_follow_names() {
    complains(
        &with("since = 3020", "since = 1000"),
        "spec/memory.rs:4: cuMemAlloc_v2: `since = 1000` makes it version 1 of cuMemAlloc, but its name says 2\n\
         unhandled.tsv:1: cuMemAlloc: `since = 2000` makes it version 2 of cuMemAlloc, but its name says 1",
    );
}

#[test]
fn output_is_deterministic_and_in_the_same_order() {
    let table = Table::new(&good(&both())).expect("no complaints");
    let again = Table::new(&good(&both())).expect("no complaints");
    assert_eq!(outputs(&table), outputs(&again));
}

/// The whole way of one row: the text of each generated place.
#[test]
fn one_row_in_every_file() {
    let table = Table::new(&good(&both())).expect("no complaints");
    let file = |name: &str| {
        let output = outputs(&table).into_iter().find(|output| output.path.ends_with(name));
        output.unwrap_or_else(|| panic!("no {name}")).text
    };
    let contains = |name: &str, text: &str| {
        let file = file(name);
        assert!(file.contains(text), "{name} lacks\n{text}\nin\n{file}");
    };
    contains("ops.rs", "pub const cuMemAlloc_v2: u16 = 0x0310;");
    contains(
        "exports.rs",
        "pub unsafe extern \"C\" fn cuMemAlloc_v2(dptr: *mut CUdeviceptr, bytesize: usize) -> CUresult {",
    );
    contains("exports.rs", "wire::cuMemAlloc_v2(dptr_value.as_mut(), bytesize as u64)?;");
    contains("wire.rs", "pub fn cuMemAlloc_v2(dptr: Option<&mut u64>, bytesize: u64) -> CuResult {");
    contains(
        "driver.rs",
        "fn cuMemAlloc_v2(&self, call: &mut Call<'_>, dptr: Option<&mut u64>, bytesize: u64) -> CuResult",
    );
    contains("dispatch.rs", "driver.cuMemAlloc_v2(call, dptr.as_mut(), bytesize)");
    contains("proc_table.rs", "Version { since: 3020, symbol: \"cuMemAlloc_v2\", per_thread: None }");
    contains(
        "abi_check.rs",
        "let _: unsafe fn(*mut sys::CUdeviceptr, usize) -> sys::CUresult = sys::cuMemAlloc_v2;",
    );
    contains("unhandled.rs", "pub extern \"C\" fn cuMemAlloc() -> CUresult");
    contains("api-coverage.md", "| `cuMemAlloc_v2` | 3.2 | sync | Allocates. |");
    contains("opcodes.lock", "0x0310 cuMemAlloc_v2\n");
}
