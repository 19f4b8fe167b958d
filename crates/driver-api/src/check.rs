//! Rules that the table keeps, and the checked table.

use std::collections::{BTreeMap, BTreeSet};

use crate::diagnostic::{Diagnostic, Error};
use crate::ir::{Class, Length, Mark, Param, Row, Twin};
use crate::parse::parse_spec;
use crate::sources::{
    EXPORTS_EXTRA, EXPORTS_LOCK, OPCODES_LOCK, Sources, UNHANDLED, Unhandled, parse_names, parse_opcodes,
    parse_unhandled,
};
use crate::types::{Kind, Type};

/// Names that the emitted code uses around the parameters.
const RESERVED: &[&str] = &["body", "call", "default_stream", "driver", "r", "reply", "t", "w"];

/// A table that keeps all rules.
#[derive(Debug, Clone)]
pub struct Table {
    /// Sorted by spec file, in the file's order.
    pub rows: Vec<Row>,
    /// Names without a row, sorted.
    pub unhandled: Vec<Unhandled>,
    /// Every exported name, sorted.
    pub exports: Vec<String>,
    /// Those of them that no driver in `exports.lock` has yet, sorted.
    pub extra: Vec<String>,
    /// Opcodes ever given out, with the new ones; sorted.
    pub opcodes: Vec<(u16, String)>,
}

/// One ABI name of a base name, for cuGetProcAddress.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version {
    /// CUDA version that introduced it.
    pub since: u32,
    /// The exported name.
    pub symbol: String,
    /// The exported name of the per-thread twin.
    pub per_thread: Option<String>,
}

impl Table {
    /// Parses and checks `sources`.
    ///
    /// # Errors
    /// [`Error::Invalid`] with everything that is wrong, sorted by place.
    pub fn new(sources: &Sources) -> Result<Self, Error> {
        let mut check = Check::default();
        let mut rows = Vec::new();
        for (module, text) in &sources.specs {
            let (parsed, diagnostics) = parse_spec(module, text);
            rows.extend(parsed);
            check.diagnostics.extend(diagnostics);
        }
        let (mut unhandled, diagnostics) = parse_unhandled(&sources.unhandled);
        check.diagnostics.extend(diagnostics);
        let (opcodes, diagnostics) = parse_opcodes(&sources.opcodes);
        check.diagnostics.extend(diagnostics);
        // With half of the rows missing, the rules below would only drown the cause.
        if check.diagnostics.is_empty() {
            check.rows(&rows);
            check.opcodes(&rows, &opcodes);
            check.exports(&rows, &unhandled, &sources.exports, &sources.extra);
            check.versions(&rows, &unhandled);
        }
        if !check.diagnostics.is_empty() {
            check.diagnostics.sort();
            check.diagnostics.dedup();
            return Err(Error::Invalid(check.diagnostics));
        }

        unhandled.sort_by(|a, b| a.name.cmp(&b.name));
        let mut exports: Vec<String> = parse_names(&sources.exports)
            .into_iter()
            .chain(parse_names(&sources.extra))
            .map(|(_, name)| name)
            .collect();
        exports.sort();
        exports.dedup();
        let mut extra: Vec<String> = parse_names(&sources.extra).into_iter().map(|(_, name)| name).collect();
        extra.sort();
        let mut all_opcodes: BTreeMap<u16, String> =
            opcodes.into_iter().map(|(_, opcode, name)| (opcode, name)).collect();
        all_opcodes.extend(rows.iter().filter_map(|row| Some((row.op?, row.name.clone()))));
        Ok(Self { rows, unhandled, exports, extra, opcodes: all_opcodes.into_iter().collect() })
    }

    /// True for an exported name (or a twin) without a row.
    pub fn is_unhandled(&self, symbol: &str) -> bool {
        self.unhandled.iter().any(|name| {
            name.name == symbol
                || twin_name(&name.name, name.twin.as_ref()).is_some_and(|twin| twin == symbol)
        })
    }

    /// Versions of each base name that cuGetProcAddress knows, ascending.
    pub fn versions(&self) -> BTreeMap<String, Vec<Version>> {
        versions(&self.rows, &self.unhandled)
    }
}

fn versions(rows: &[Row], unhandled: &[Unhandled]) -> BTreeMap<String, Vec<Version>> {
    let named = rows.iter().map(|row| (&row.name, row.since, &row.twin));
    let stubs = unhandled.iter().map(|name| (&name.name, name.since, &name.twin));
    let mut versions: BTreeMap<String, Vec<Version>> = BTreeMap::new();
    for (name, since, twin) in named.chain(stubs) {
        let Some(since) = since else { continue };
        versions.entry(split_version(name).0.to_owned()).or_default().push(Version {
            since,
            symbol: name.clone(),
            per_thread: twin.as_ref().map(|twin| format!("{name}{}", twin.suffix)),
        });
    }
    for list in versions.values_mut() {
        list.sort_by_key(|version| version.since);
    }
    versions
}

/// `cuMemAlloc_v2` is (`cuMemAlloc`, 2), `cuInit` is (`cuInit`, 1).
pub fn split_version(name: &str) -> (&str, usize) {
    match name.rsplit_once("_v") {
        Some((base, version)) => match version.parse() {
            Ok(version) => (base, version),
            Err(_) => (name, 1),
        },
        None => (name, 1),
    }
}

#[derive(Default)]
struct Check {
    diagnostics: Vec<Diagnostic>,
}

impl Check {
    fn say(&mut self, row: &Row, message: impl AsRef<str>) {
        self.diagnostics.push(Diagnostic::new(
            row.file(),
            row.line,
            format!("{}: {}", row.name, message.as_ref()),
        ));
    }

    fn say_param(&mut self, row: &Row, param: &Param, message: impl AsRef<str>) {
        self.diagnostics.push(Diagnostic::new(
            row.file(),
            param.line,
            format!("{}: parameter `{}`: {}", row.name, param.name, message.as_ref()),
        ));
    }

    fn rows(&mut self, rows: &[Row]) {
        let mut by_name: BTreeMap<&str, &Row> = BTreeMap::new();
        let mut by_opcode: BTreeMap<u16, &Row> = BTreeMap::new();
        for row in rows {
            if let Some(first) = by_name.insert(&row.name, row) {
                self.say(row, format!("declared a second time; first in {}:{}", first.file(), first.line));
            }
            if let Some(opcode) = row.op
                && let Some(first) = by_opcode.insert(opcode, row)
            {
                let place = format!("{} in {}:{}", first.name, first.file(), first.line);
                self.say(row, format!("opcode {opcode:#06x} belongs to {place}"));
            }
        }
        for row in rows {
            self.row(row);
            if let Class::Via(names) = &row.class {
                for name in names {
                    if !by_name.get(name.as_str()).is_some_and(|row| row.class.has_wire()) {
                        self.say(row, format!("via({name}): no such wire operation"));
                    }
                }
            }
            if let Class::Like(name) = &row.class {
                let types = |row: &Row| row.params.iter().map(|param| param.ty.clone()).collect::<Vec<_>>();
                match by_name.get(name.as_str()) {
                    Some(other) if other.internal || matches!(other.class, Class::Like(_)) => {
                        self.say(
                            row,
                            format!("like({name}): that is no exported call with a class of its own"),
                        );
                    }
                    Some(other)
                        if types(row) != types(other) || row.twin.is_some() || other.twin.is_some() =>
                    {
                        self.say(row, format!("like({name}): other parameters, or a per-thread twin"));
                    }
                    Some(_) => {}
                    None => self.say(row, format!("like({name}): no such row")),
                }
            }
            for param in &row.params {
                self.param(row, param);
            }
        }
    }

    fn row(&mut self, row: &Row) {
        if row.doc.iter().all(String::is_empty) {
            self.say(row, "no doc comment");
        }
        match (row.class.has_wire(), row.op) {
            (true, None) => self.say(row, "a wire operation needs an opcode: #[op(0x.., ..)]"),
            (true, Some(0)) => self.say(row, "opcode 0 is reserved"),
            (false, Some(_)) => {
                self.say(
                    row,
                    format!("class `{}` has no wire operation of its own and no opcode", row.class.name()),
                );
            }
            _ => {}
        }
        match (row.internal, row.since) {
            (true, Some(_)) => self.say(row, "an internal operation has no `since`"),
            (false, None) => self.say(row, "no `since` in #[op(..)]"),
            _ => {}
        }
        if row.internal
            && (!row.class.has_wire() || row.custom || row.twin.is_some() || row.unchecked.is_some())
        {
            self.say(
                row,
                "an internal operation is cached, posted or sync, and has no custom, ptds, ptsz or unchecked",
            );
        }
        if row.beside && !(row.internal && row.class == Class::Sync) {
            self.say(row, "only an internal operation that is waited for has something beside it");
        }
        if row.custom && !row.class.has_wire() {
            self.say(row, format!("`custom` is implied by class `{}`: leave it out", row.class.name()));
        }
        if row.unchecked.as_ref().is_some_and(|reason| reason.trim().is_empty()) {
            self.say(row, "`unchecked` needs a reason");
        }
        let has_out = row.params.iter().any(|param| matches!(param.mark, Mark::Out | Mark::DataOut(_)));
        match row.class {
            Class::Posted if has_out => self.say(row, "a posted call is not waited for and has no outputs"),
            Class::Cached if !has_out => self.say(row, "a cached call without outputs"),
            _ => {}
        }
    }

    fn param(&mut self, row: &Row, param: &Param) {
        if RESERVED.contains(&param.name.as_str()) {
            self.say_param(row, param, "the name is used by emitted code");
        }
        if row.params.iter().filter(|other| other.name == param.name).count() > 1 {
            self.say_param(row, param, "the name is used twice");
        }
        if param.stream && param.ty != Type::Named("CUstream".to_owned()) {
            self.say_param(row, param, "#[stream] is for a CUstream");
        }
        if param.dies && (param.mark != Mark::Plain || param.ty.kind() != Some(Kind::Handle)) {
            self.say_param(row, param, "#[dies] is for a handle");
        }
        if let Some(parent) = &param.parent {
            let born = param.ty.pointee().and_then(Type::kind) == Some(Kind::Handle)
                && matches!(param.mark, Mark::Out | Mark::DataOut(_));
            if !born {
                self.say_param(row, param, "#[parent] is for handles that the call makes");
            }
            let handle = |other: &Param| other.mark == Mark::Plain && other.ty.kind() == Some(Kind::Handle);
            if !row.params.iter().any(|other| other.name == *parent && handle(other)) {
                self.say_param(row, param, format!("#[parent({parent})]: no handle of that name"));
            }
        }
        match &param.mark {
            Mark::Plain => {
                if row.class.has_wire() && param.wire().is_none() {
                    self.say_param(
                        row,
                        param,
                        "cannot travel: it needs a direction, or the row `local` or `via`",
                    );
                }
            }
            Mark::Out => {
                if !matches!(param.ty, Type::Pointer(true, _)) {
                    self.say_param(row, param, "#[out] is for a *mut pointer");
                } else if row.class.has_wire() && param.wire().is_none() {
                    self.say_param(row, param, "the type behind the pointer cannot travel");
                }
            }
            Mark::Input => {
                if !matches!(param.ty, Type::Pointer(..)) || (row.class.has_wire() && param.wire().is_none())
                {
                    self.say_param(row, param, "#[input] is for a pointer to a structure of fixed size");
                }
            }
            Mark::Cstr => {
                if param.ty != Type::Pointer(false, Box::new(Type::Named("c_char".to_owned()))) {
                    self.say_param(row, param, "#[cstr] is for a *const c_char");
                }
            }
            Mark::Address => {
                if !matches!(param.ty, Type::Pointer(..)) {
                    self.say_param(row, param, "#[address] is for a pointer");
                }
            }
            Mark::DataIn(length) => self.data(row, param, "data_in", length.as_ref()),
            Mark::DataOut(length) => self.data(row, param, "data_out", length.as_ref()),
        }
    }

    fn data(&mut self, row: &Row, param: &Param, mark: &str, length: Option<&Length>) {
        let mutable = mark == "data_out";
        match &param.ty {
            Type::Pointer(is_mutable, _) if *is_mutable || !mutable => {}
            _ => self.say_param(row, param, format!("#[{mark}] is for a pointer")),
        }
        match length {
            None if !row.internal => {
                self.say_param(row, param, format!("#[{mark}] needs the parameter that holds the length"));
            }
            None => {}
            Some(length) => match row.params.iter().find(|other| other.name == length.param) {
                None => {
                    self.say_param(
                        row,
                        param,
                        format!("#[{mark}({})]: no parameter of that name", length.param),
                    );
                }
                Some(other) => {
                    let counts =
                        matches!(other.ty.kind(), Some(Kind::Word | Kind::Size | Kind::Uint | Kind::Int));
                    if !counts || other.mark != Mark::Plain {
                        let message = format!("#[{mark}({})]: that parameter is no count", length.param);
                        self.say_param(row, param, message);
                    } else if length.unit == 0 {
                        self.say_param(row, param, format!("#[{mark}]: elements of 0 bytes"));
                    }
                }
            },
        }
    }

    fn opcodes(&mut self, rows: &[Row], lock: &[(usize, u16, String)]) {
        let mut by_opcode: BTreeMap<u16, &str> = BTreeMap::new();
        let mut by_name: BTreeMap<&str, u16> = BTreeMap::new();
        for (line, opcode, name) in lock {
            if by_opcode.insert(*opcode, name).is_some() || by_name.insert(name, *opcode).is_some() {
                self.diagnostics.push(Diagnostic::new(
                    OPCODES_LOCK,
                    *line,
                    format!("{opcode:#06x} {name}: opcode or name is listed twice"),
                ));
            }
        }
        for row in rows {
            let Some(opcode) = row.op else { continue };
            match by_name.get(row.name.as_str()) {
                Some(locked) if *locked != opcode => {
                    self.say(
                        row,
                        format!("opcode changed from {locked:#06x} to {opcode:#06x}; opcodes are for ever"),
                    );
                }
                Some(_) => {}
                None => {
                    if let Some(name) = by_opcode.get(&opcode) {
                        self.say(
                            row,
                            format!(
                                "opcode {opcode:#06x} was given to {name}; a new call needs a new opcode"
                            ),
                        );
                    }
                }
            }
        }
    }

    fn exports(&mut self, rows: &[Row], unhandled: &[Unhandled], lock: &str, extra: &str) {
        let lock = parse_names(lock);
        let extra = parse_names(extra);
        let known: BTreeSet<&str> = lock.iter().chain(&extra).map(|(_, name)| name.as_str()).collect();
        for (line, name) in &extra {
            if lock.iter().any(|(_, locked)| locked == name) {
                self.diagnostics.push(Diagnostic::new(
                    EXPORTS_EXTRA,
                    *line,
                    format!("{name} is in {EXPORTS_LOCK}"),
                ));
            }
        }
        let mut covered: BTreeSet<String> = BTreeSet::new();
        for row in rows.iter().filter(|row| !row.internal) {
            covered.insert(row.name.clone());
            if !known.contains(row.name.as_str()) {
                self.say(row, format!("not in {EXPORTS_LOCK} or {EXPORTS_EXTRA}"));
            }
            if let Some(twin) = twin_name(&row.name, row.twin.as_ref()) {
                if !known.contains(twin.as_str()) {
                    self.say(row, format!("its twin {twin} is not in {EXPORTS_LOCK} or {EXPORTS_EXTRA}"));
                }
                covered.insert(twin);
            }
        }
        for name in unhandled {
            let twin = twin_name(&name.name, name.twin.as_ref());
            for symbol in [Some(name.name.clone()), twin].into_iter().flatten() {
                let message = if !known.contains(symbol.as_str()) {
                    format!("{symbol} is not in {EXPORTS_LOCK} or {EXPORTS_EXTRA}")
                } else if !covered.insert(symbol.clone()) {
                    format!("{symbol} has a row or is listed twice: remove it here")
                } else {
                    continue;
                };
                self.diagnostics.push(Diagnostic::new(UNHANDLED, name.line, message));
            }
        }
        for (file, list) in [(EXPORTS_LOCK, &lock), (EXPORTS_EXTRA, &extra)] {
            for (line, name) in list {
                if !covered.contains(name) {
                    let message = format!("{name} has neither a row in spec/ nor a line in {UNHANDLED}");
                    self.diagnostics.push(Diagnostic::new(file, *line, message));
                }
            }
        }
    }

    /// The n-th version of a base name is the symbol `_vN`: the rule of cuGetProcAddress counts on it.
    fn versions(&mut self, rows: &[Row], unhandled: &[Unhandled]) {
        for (base, list) in versions(rows, unhandled) {
            for (index, version) in list.iter().enumerate() {
                let number = split_version(&version.symbol).1;
                if number != index + 1 {
                    let message = format!(
                        "{}: `since = {}` makes it version {} of {base}, but its name says {number}",
                        version.symbol,
                        version.since,
                        index + 1
                    );
                    let place = match rows.iter().find(|row| row.name == version.symbol) {
                        Some(row) => (row.file(), row.line),
                        None => {
                            let line = unhandled
                                .iter()
                                .find(|name| name.name == version.symbol)
                                .map(|name| name.line);
                            (UNHANDLED.to_owned(), line.unwrap_or(0))
                        }
                    };
                    self.diagnostics.push(Diagnostic::new(place.0, place.1, message));
                }
            }
        }
    }
}

fn twin_name(name: &str, twin: Option<&Twin>) -> Option<String> {
    twin.map(|twin| format!("{name}{}", twin.suffix))
}
