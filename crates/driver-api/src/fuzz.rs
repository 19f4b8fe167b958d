//! Fuzz bodies: any text gives a table or diagnostics, and what is a table can be written out.

use crate::check::Table;
use crate::emit::outputs;
use crate::sources::Sources;

/// A spec file, and below a line `%%` the lists of names: exports, unhandled names and opcodes, separated in the same way.
pub fn fuzz_spec(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let mut parts = text.split("\n%%\n").map(str::to_owned);
    let mut next = || parts.next().unwrap_or_default();
    let sources = Sources {
        specs: vec![("fuzz".to_owned(), next())],
        exports: next(),
        extra: String::new(),
        unhandled: next(),
        opcodes: next(),
    };
    if let Ok(table) = Table::new(&sources) {
        for output in outputs(&table) {
            assert!(output.text.ends_with('\n'), "{}", output.path);
        }
    }
}
