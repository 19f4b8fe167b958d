//! The fuzz body over its corpus and mutations of it, and over the real spec.

use std::fs;
use std::path::Path;

use driver_api::fuzz::fuzz_spec;
use driver_api::{Sources, Table};
use proptest::prelude::*;

fn corpus() -> Vec<Vec<u8>> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus/spec");
    let mut paths: Vec<_> = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths.iter().map(|path| fs::read(path).unwrap()).collect()
}

/// A seed that is refused would exercise only the refusal.
#[test]
fn the_corpus_is_accepted() {
    for data in corpus() {
        let text = String::from_utf8(data.clone()).unwrap();
        let mut parts = text.split("\n%%\n").map(str::to_owned);
        let mut next = || parts.next().unwrap_or_default();
        let sources = Sources {
            specs: vec![("fuzz".to_owned(), next())],
            exports: next(),
            extra: String::new(),
            unhandled: next(),
            opcodes: next(),
        };
        if let Err(error) = Table::new(&sources) {
            panic!("{error}");
        }
        fuzz_spec(&data);
    }
}

#[test]
fn the_real_table_is_correct() {
    let sources = Sources::read(Path::new(env!("CARGO_MANIFEST_DIR"))).unwrap();
    if let Err(error) = Table::new(&sources) {
        panic!("{error}");
    }
}

/// Pieces that the grammar is made of.
const PIECES: &[&str] = &[
    "#[",
    "]",
    "(",
    ")",
    "op",
    "0x0001",
    "since = 1",
    "ptds = 7000",
    "sync",
    "posted",
    "out",
    "data_in(n * 4)",
    "data_out",
    "*mut ",
    "*const ",
    "CUstream",
    "[u8; 8]",
    "c_void",
    "fn f",
    ":",
    ",",
    ";",
    "\n",
    "\n%%\n",
    "/// x\n",
    "n: usize",
    "like(f)",
    "via(f)",
    "internal",
    "cached",
    "stream",
    "u64",
    "\u{e9}",
    "99999999999",
];

proptest! {
    #[test]
    fn mutations_of_the_corpus(
        seed in any::<prop::sample::Index>(),
        edits in prop::collection::vec((any::<prop::sample::Index>(), 0usize..8, prop::sample::select(PIECES)), 1..6),
    ) {
        let corpus = corpus();
        let mut data = corpus[seed.index(corpus.len())].clone();
        for (place, removed, piece) in edits {
            let start = place.index(data.len() + 1);
            let end = (start + removed).min(data.len());
            data.splice(start..end, piece.bytes());
        }
        fuzz_spec(&data);
    }

    #[test]
    fn any_pieces(pieces in prop::collection::vec(prop::sample::select(PIECES), 0..60)) {
        fuzz_spec(pieces.concat().as_bytes());
    }

    #[test]
    fn any_bytes(data: Vec<u8>) {
        fuzz_spec(&data);
    }
}
