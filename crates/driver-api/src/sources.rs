//! The files that the table is made from.

use std::fs;
use std::path::Path;

use crate::diagnostic::{Diagnostic, Error};
use crate::ir::Twin;

/// File names below `crates/driver-api`.
pub const EXPORTS_LOCK: &str = "exports.lock";
/// Names that programs ask for and that no driver in `exports.lock` has yet.
pub const EXPORTS_EXTRA: &str = "exports.extra";
/// Versions of the names that have no row.
pub const UNHANDLED: &str = "unhandled.tsv";
/// Opcodes ever given out.
pub const OPCODES_LOCK: &str = "opcodes.lock";

/// Contents of the source files.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    /// (stem, text) of each spec file, sorted by stem.
    pub specs: Vec<(String, String)>,
    /// Exported names of the driver that we stand in for, one per line.
    pub exports: String,
    /// More exported names, one per line.
    pub extra: String,
    /// `symbol <tab> since or - <tab> _ptds@version, _ptsz@version or -`, and `<tab> reason` where there will be no row.
    pub unhandled: String,
    /// `0x0310 name`, one per line.
    pub opcodes: String,
}

impl Sources {
    /// Reads the files below `dir` (`crates/driver-api`).
    ///
    /// # Errors
    /// A file or the directory `spec` cannot be read. A missing `opcodes.lock` counts as empty.
    pub fn read(dir: &Path) -> Result<Self, Error> {
        let spec_dir = dir.join("spec");
        let entries =
            fs::read_dir(&spec_dir).map_err(|source| Error::Read { path: spec_dir.clone(), source })?;
        let mut specs = Vec::new();
        for entry in entries {
            let path = entry.map_err(|source| Error::Read { path: spec_dir.clone(), source })?.path();
            if path.extension().is_some_and(|extension| extension == "rs")
                && let Some(stem) = path.file_stem().and_then(|stem| stem.to_str())
            {
                specs.push((stem.to_owned(), read(&path)?));
            }
        }
        specs.sort();
        let opcodes = dir.join(OPCODES_LOCK);
        Ok(Self {
            specs,
            exports: read(&dir.join(EXPORTS_LOCK))?,
            extra: read(&dir.join(EXPORTS_EXTRA))?,
            unhandled: read(&dir.join(UNHANDLED))?,
            opcodes: if opcodes.exists() { read(&opcodes)? } else { String::new() },
        })
    }
}

fn read(path: &Path) -> Result<String, Error> {
    fs::read_to_string(path).map_err(|source| Error::Read { path: path.to_owned(), source })
}

/// A name without a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unhandled {
    /// The exported name.
    pub name: String,
    /// CUDA version of this ABI name; `None` if no public header lists it (then cuGetProcAddress does not know it).
    pub since: Option<u32>,
    /// Per-thread twin.
    pub twin: Option<Twin>,
    /// Why there will be no row: `group: explanation`, or the group alone.
    pub reason: Option<String>,
    /// Line in `unhandled.tsv`.
    pub line: usize,
}

/// Lines that are neither empty nor a comment, with their numbers.
fn lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines()
        .enumerate()
        .map(|(index, line)| (index + 1, line.trim_end()))
        .filter(|(_, line)| !line.is_empty() && !line.starts_with('#'))
}

/// Parses a list of names.
pub fn parse_names(text: &str) -> Vec<(usize, String)> {
    lines(text).map(|(line, name)| (line, name.trim().to_owned())).collect()
}

/// Parses `unhandled.tsv`.
pub fn parse_unhandled(text: &str) -> (Vec<Unhandled>, Vec<Diagnostic>) {
    let mut names = Vec::new();
    let mut diagnostics = Vec::new();
    for (line, text) in lines(text) {
        match unhandled(line, text) {
            Some(name) => names.push(name),
            None => diagnostics.push(Diagnostic::new(
                UNHANDLED,
                line,
                format!(
                    "expected `symbol <tab> since or - <tab> _ptds@N, _ptsz@N or -`, perhaps `<tab> reason`, found `{text}`"
                ),
            )),
        }
    }
    (names, diagnostics)
}

fn unhandled(line: usize, text: &str) -> Option<Unhandled> {
    let mut fields = text.split('\t');
    let (name, since, twin) = (fields.next()?, fields.next()?, fields.next()?);
    let reason = fields.next();
    if fields.next().is_some() || name.is_empty() || reason.is_some_and(|reason| reason.trim().is_empty()) {
        return None;
    }
    let since = if since == "-" { None } else { Some(since.parse().ok()?) };
    let twin = if twin == "-" {
        None
    } else {
        let (suffix, version) = twin.split_once('@')?;
        let suffix = match suffix {
            "_ptds" => "_ptds",
            "_ptsz" => "_ptsz",
            _ => return None,
        };
        Some(Twin { suffix, since: version.parse().ok()? })
    };
    Some(Unhandled { name: name.to_owned(), since, twin, reason: reason.map(str::to_owned), line })
}

/// Parses `opcodes.lock`: (line, opcode, name).
pub fn parse_opcodes(text: &str) -> (Vec<(usize, u16, String)>, Vec<Diagnostic>) {
    let mut opcodes = Vec::new();
    let mut diagnostics = Vec::new();
    for (line, text) in lines(text) {
        let entry = text.split_once(' ').and_then(|(opcode, name)| {
            let opcode = u16::from_str_radix(opcode.strip_prefix("0x")?, 16).ok()?;
            Some((line, opcode, name.trim().to_owned()))
        });
        match entry {
            Some(entry) => opcodes.push(entry),
            None => diagnostics.push(Diagnostic::new(
                OPCODES_LOCK,
                line,
                format!("expected `0x0000 name`, found `{text}`"),
            )),
        }
    }
    (opcodes, diagnostics)
}
