//! Runs the compiler's fuzz body over its corpus and mutations of it: what is wrong must be refused in words.

mod common;

use common::table::Random;
use ptx_cpu::program::fuzz::fuzz_compile;

fn corpus() -> Vec<String> {
    let mut files: Vec<_> = std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/corpus/compile"))
        .unwrap()
        .map(|f| f.unwrap().path())
        .collect();
    files.sort();
    assert!(files.len() >= 4);
    files.iter().map(|f| std::fs::read_to_string(f).unwrap()).collect()
}

const WORDS: [&str; 48] = [
    ".u8",
    ".s8",
    ".u16",
    ".s16",
    ".u32",
    ".s32",
    ".u64",
    ".s64",
    ".b8",
    ".b16",
    ".b32",
    ".b64",
    ".f16",
    ".f16x2",
    ".bf16",
    ".f32",
    ".f64",
    ".pred",
    ".v2",
    ".v4",
    ".global",
    ".shared",
    ".local",
    ".param",
    ".const",
    ".volatile",
    ".sat",
    ".ftz",
    ".rn",
    ".rz",
    ".wide",
    ".hi",
    ".lo",
    "0",
    "-1",
    "64",
    "0x7fffffffffffffff",
    "%tid.x",
    "%laneid",
    "%clock64",
    "_",
    "0f7F800000",
    "@%p1 ",
    "ret;",
    "bar.sync 0;",
    "trap;",
    "{",
    "}",
];

/// Changes a few lines: another type or word, another line's operands, a line gone or twice.
fn mutate(text: &str, random: &mut Random) -> String {
    let mut lines: Vec<String> = text.lines().map(String::from).collect();
    for _ in 0..1 + random.next() % 2 {
        let at = random.next() as usize % lines.len();
        let other = random.next() as usize % lines.len();
        match random.next() % 6 {
            0 => drop(lines.remove(at)),
            1 => {
                let line = lines[other].clone();
                lines.insert(at, line);
            }
            2 => lines.swap(at, other),
            3 => {
                // The operands of another line.
                if let (Some((opcode, _)), Some((_, operands))) =
                    (lines[at].split_once(' '), lines[other].split_once(' '))
                {
                    lines[at] = format!("{opcode} {operands}");
                }
            }
            _ => {
                let word = WORDS[random.next() as usize % WORDS.len()];
                let is_part = |c: char| c == '.' || c == ' ' || c == ',';
                let parts: Vec<usize> = lines[at].match_indices(is_part).map(|(i, _)| i).collect();
                if let Some(begin) = parts.get(random.next() as usize % parts.len().max(1)) {
                    let begin = if word.starts_with('.') { *begin } else { begin + 1 };
                    let end =
                        lines[at][begin..].char_indices().skip(1).find(|(_, c)| is_part(*c) || *c == ';');
                    let end = end.map_or(lines[at].len(), |(i, _)| begin + i);
                    lines[at].replace_range(begin..end, word);
                }
            }
        }
        if lines.is_empty() {
            break;
        }
    }
    lines.join("\n")
}

#[test]
fn compiler_survives_mutations() {
    let mut random = Random(0x1234_5678_9abc_def1);
    let (mut changed, mut compiled) = (0, 0);
    for text in corpus() {
        assert!(fuzz_compile(text.as_bytes()) > 0);
        for _ in 0..120 {
            let mutant = mutate(&text, &mut random);
            changed += 1;
            compiled += usize::from(fuzz_compile(mutant.as_bytes()) > 0);
        }
    }
    // Mutants that are all refused test only the refusing.
    assert!(compiled * 4 > changed, "{compiled} of {changed}");
}
