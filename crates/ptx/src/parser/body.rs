//! Function bodies: scopes, declarations, labels, instructions.
//!
//! Scopes are resolved here. A name of an inner scope that is taken already (in this function or in the module) gets a
//! suffix `$N`, so that the body has one flat namespace. Registers get an id when they are first used: `%r<100000>`
//! costs nothing.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::{MAX_REGISTER_RANGE, MAX_SCOPE_DEPTH, Parser, Result, shorten};
use crate::ast::*;
use crate::error::ParseErrorKind;
use crate::lexer::{Position, Token};

/// What a name stands for.
#[derive(Clone)]
pub(super) enum Entry {
    Reg(RegId),
    /// Elements of a vector register.
    Vector(Vec<RegId>),
    /// A register that is declared and not used so far.
    Unused {
        ty: ScalarType,
        vector: u8,
    },
    /// A variable, parameter or table, by its unique name.
    Symbol(Name),
    Label(LabelId),
}

#[derive(Clone, Copy)]
struct Range {
    count: u64,
    ty: ScalarType,
    vector: u8,
    line: u32,
}

/// Where a name was used that is declared further down, or in the module.
#[derive(Clone, Copy)]
enum Place {
    Statement(usize),
    Table(usize, usize),
}

struct Pending<'a> {
    place: Place,
    name: &'a str,
    at: Position,
}

#[derive(Default)]
struct Scope<'a> {
    names: HashMap<&'a str, (Entry, u32)>,
    /// `%r<N>` by prefix.
    ranges: HashMap<&'a str, Range>,
    pending: Vec<Pending<'a>>,
}

enum Found {
    Name(Entry),
    /// A member of `%r<N>` that has not been used yet.
    InRange(Range),
}

impl Scope<'_> {
    /// The range that declares a name. `%r01` is not of `%r<N>`, but it is of `%r0<N>`.
    fn range_of(&self, name: &str) -> Option<Range> {
        if self.ranges.is_empty() {
            return None;
        }
        let first_digit = name.trim_end_matches(|c: char| c.is_ascii_digit()).len();
        // More digits than a number below the limit can have belong to the prefix.
        (first_digit.max(name.len().saturating_sub(9))..name.len()).find_map(|end| {
            let (prefix, number) = name.split_at(end);
            let range = self.ranges.get(prefix)?;
            let canonical = number == "0" || !number.starts_with('0');
            (canonical && number.parse::<u64>().ok()? < range.count).then_some(*range)
        })
    }
}

/// A function body under construction.
#[derive(Default)]
pub(super) struct Builder<'a> {
    body: Body,
    scopes: Vec<Scope<'a>>,
    /// Names in the flat namespace.
    flat: HashSet<Name>,
    /// Last suffix given to a name.
    suffixes: HashMap<Name, u32>,
    /// Targets of the branch tables; all are known at the end.
    table_targets: Vec<Vec<Option<LabelId>>>,
    /// Operands of the instruction that is being read.
    pub(super) operands: Vec<Operand>,
}

impl<'a> Builder<'a> {
    /// Innermost declaration of a name: the number of its scope and what was declared there.
    fn find(&self, name: &str) -> Option<(usize, Found)> {
        self.scopes.iter().enumerate().rev().find_map(|(i, scope)| {
            if let Some((entry, _)) = scope.names.get(name) {
                return Some((i, Found::Name(entry.clone())));
            }
            scope.range_of(name).map(|range| (i, Found::InRange(range)))
        })
    }

    fn new_register(&mut self, name: Name, ty: ScalarType) -> RegId {
        // The source is shorter than 4 GiB, so ids fit.
        let id = RegId(self.body.registers.len() as u32);
        self.body.registers.push(Register { name, ty });
        id
    }

    /// Remembers that the statement to come uses a name that is not known yet.
    pub(super) fn defer(&mut self, name: &'a str, at: Position) {
        let place = Place::Statement(self.body.statements.len());
        self.defer_at(place, name, at);
    }

    fn replace(&mut self, index: usize, replacements: &HashMap<&str, (Operand, Position)>) -> Result<()> {
        match self.body.statements.get_mut(index) {
            Some(Statement::Instruction(instruction)) if !replacements.is_empty() => {
                replace(&mut instruction.operands, replacements)
                    .map_err(|(name, at)| at.error(undeclared("variable", name)))
            }
            _ => Ok(()),
        }
    }

    fn defer_at(&mut self, place: Place, name: &'a str, at: Position) {
        if let Some(scope) = self.scopes.last_mut() {
            scope.pending.push(Pending { place, name, at });
        }
    }
}

impl<'a> Parser<'a> {
    /// `{ ... }` of a function; the current token is the brace.
    pub(super) fn body(&mut self, function: &mut Function) -> Result<()> {
        let mut f = Builder { scopes: vec![Scope::default()], ..Builder::default() };
        self.declare_params(&mut f, function)?;
        self.bump()?;
        loop {
            match self.token {
                Token::Punct(b'{') => {
                    let limit = MAX_SCOPE_DEPTH;
                    if f.scopes.len() >= limit {
                        return Err(self.at.error(ParseErrorKind::Limit {
                            what: "nesting of scopes",
                            value: f.scopes.len() as u64 + 1,
                            limit: limit as u64,
                        }));
                    }
                    f.scopes.push(Scope::default());
                    self.bump()?;
                }
                Token::Punct(b'}') => {
                    self.close_scope(&mut f)?;
                    self.bump()?;
                    if f.scopes.is_empty() {
                        break;
                    }
                }
                Token::Punct(b';') => self.bump()?,
                Token::Directive(word) => self.body_directive(&mut f, word)?,
                Token::Punct(b'@') | Token::Ident(_) => self.statement(&mut f)?,
                Token::Op([b'@', b'@']) => {
                    self.lexer.skip_line();
                    self.bump()?;
                }
                _ => return Err(self.unexpected("an instruction, a label, a directive or '}'")),
            }
        }
        for (table, targets) in f.body.branch_tables.iter_mut().zip(f.table_targets) {
            // Every target was patched: an unknown one is an error when the outermost scope closes.
            table.targets = targets.into_iter().flatten().collect();
        }
        function.body = Some(f.body);
        Ok(())
    }

    fn declare_params(&mut self, f: &mut Builder<'a>, function: &mut Function) -> Result<()> {
        let Function { returns, params, line, .. } = function;
        for param in returns.iter_mut().chain(params) {
            if &*param.name == "_" {
                continue;
            }
            // The name as it stands in the source: the map keeps it alive.
            let Some((&key, _)) = self.names.get_key_value(&*param.name) else { continue };
            let entry = if param.space == Space::Reg {
                let id = f.new_register(param.name.clone(), param.ty);
                param.reg = Some(id);
                Entry::Reg(id)
            } else {
                Entry::Symbol(param.name.clone())
            };
            f.flat.insert(param.name.clone());
            self.declare(f, key, entry, Position { line: *line, column: 1 })?;
        }
        Ok(())
    }

    fn declare(&mut self, f: &mut Builder<'a>, name: &'a str, entry: Entry, at: Position) -> Result<()> {
        let Some(scope) = f.scopes.last_mut() else { return Ok(()) };
        if let Some((_, first_line)) = scope.names.insert(name, (entry, at.line)) {
            let name = shorten(name).into();
            return Err(at.error(ParseErrorKind::Redeclared { name, first_line }));
        }
        Ok(())
    }

    /// A name for the flat namespace.
    fn unique(&mut self, f: &mut Builder<'a>, name: &str) -> Name {
        let name = match self.names.get(name) {
            Some(name) => name.clone(),
            None => Name::from(name),
        };
        if !self.globals.contains(&name) && f.flat.insert(name.clone()) {
            return name;
        }
        let suffix = f.suffixes.entry(name.clone()).or_insert(0);
        loop {
            *suffix += 1;
            let candidate = Name::from(format!("{name}${suffix}"));
            if !self.globals.contains(&candidate) && f.flat.insert(candidate.clone()) {
                return candidate;
            }
        }
    }

    fn close_scope(&mut self, f: &mut Builder<'a>) -> Result<()> {
        let Some(scope) = f.scopes.pop() else { return Ok(()) };
        // What to put in for names in one statement; the uses in a statement stand together in the list.
        let mut statement = 0;
        let mut replacements: HashMap<&str, (Operand, Position)> = HashMap::new();
        for pending in scope.pending {
            let undeclared = |what| Err(pending.at.error(undeclared(what, pending.name)));
            let replacement = match scope.names.get(pending.name) {
                Some((Entry::Label(id), _)) => Operand::Label(*id),
                Some((Entry::Symbol(name), _)) => Operand::Symbol { name: name.clone(), offset: 0 },
                Some(_) => return undeclared("(so far) register"),
                None => {
                    if let Some(outer) = f.scopes.last_mut() {
                        outer.pending.push(pending);
                        continue;
                    }
                    let Place::Statement(_) = pending.place else { return undeclared("label") };
                    let name = self.intern(pending.name);
                    if f.flat.contains(&name) {
                        // It would be taken for the variable of an inner scope.
                        return undeclared("symbol");
                    }
                    self.note_symbol(&name, pending.at);
                    continue;
                }
            };
            match (pending.place, replacement) {
                (Place::Statement(index), replacement) => {
                    if index != statement {
                        f.replace(statement, &replacements)?;
                        statement = index;
                        replacements.clear();
                    }
                    replacements.insert(pending.name, (replacement, pending.at));
                }
                (Place::Table(table, slot), Operand::Label(id)) => f.table_targets[table][slot] = Some(id),
                _ => return undeclared("label"),
            }
        }
        f.replace(statement, &replacements)
    }

    fn body_directive(&mut self, f: &mut Builder<'a>, word: &str) -> Result<()> {
        match word {
            "loc" | "file" => {
                self.lexer.skip_line();
                return self.bump();
            }
            "pragma" => {
                self.bump()?;
                self.pragma()?;
                return Ok(());
            }
            "section" => return self.section(),
            "reg" => {
                self.bump()?;
                return self.registers(f);
            }
            _ => {}
        }
        let linkage = match word {
            "extern" => Linkage::Extern,
            "visible" => Linkage::Visible,
            "weak" => Linkage::Weak,
            "common" => Linkage::Common,
            _ => Linkage::Internal,
        };
        if linkage != Linkage::Internal {
            self.bump()?;
        }
        let space = match self.token {
            Token::Directive(word) => Space::from_name(word),
            _ => None,
        };
        let Some(space) = space.filter(|s| !matches!(s, Space::Reg | Space::Sreg)) else {
            return Err(self.unexpected("a directive of a function body"));
        };
        self.bump()?;
        for mut variable in self.variables(space, linkage)? {
            let Some((&key, _)) = self.names.get_key_value(&*variable.name) else { continue };
            variable.name = self.unique(f, key);
            let at = Position { line: variable.line, column: 1 };
            self.declare(f, key, Entry::Symbol(variable.name.clone()), at)?;
            f.body.variables.push(variable);
        }
        Ok(())
    }

    /// `.reg .b32 %r<10>, a, b;` behind `.reg`.
    fn registers(&mut self, f: &mut Builder<'a>) -> Result<()> {
        let spec = self.type_spec()?;
        loop {
            let at = self.at;
            let name = self.ident("name of a register")?;
            if self.eat(b'<')? {
                let limit_at = self.at;
                // Not a constant expression: `>` would be taken for an operator.
                let Token::Number(text) = self.token else { return Err(self.unexpected("a number")) };
                let count = match text.parse::<u64>() {
                    Ok(count) if count <= MAX_REGISTER_RANGE => count,
                    parsed => {
                        return Err(limit_at.error(ParseErrorKind::Limit {
                            what: "number of registers in a range",
                            value: parsed.unwrap_or(u64::MAX),
                            limit: MAX_REGISTER_RANGE,
                        }));
                    }
                };
                self.bump()?;
                self.expect(b'>')?;
                let range = Range { count, ty: spec.ty, vector: spec.vector, line: at.line };
                if let Some(scope) = f.scopes.last_mut()
                    && let Some(first) = scope.ranges.insert(name, range)
                {
                    return Err(at.error(ParseErrorKind::Redeclared {
                        name: format!("{}<>", shorten(name)),
                        first_line: first.line,
                    }));
                }
            } else {
                self.declare(f, name, Entry::Unused { ty: spec.ty, vector: spec.vector }, at)?;
            }
            if !self.eat(b',')? {
                break;
            }
        }
        self.expect(b';')
    }

    /// What a name used in an instruction stands for; `None` if it is not known (yet).
    pub(super) fn resolve(&mut self, f: &mut Builder<'a>, name: &'a str) -> Option<Entry> {
        let (scope, found) = f.find(name)?;
        let (ty, vector, line) = match found {
            // An inner scope may define the label further down: decided when scopes close.
            Found::Name(Entry::Label(_)) if scope + 1 < f.scopes.len() => return None,
            Found::Name(Entry::Unused { ty, vector }) => (ty, vector, None),
            Found::Name(entry) => return Some(entry),
            Found::InRange(range) => (range.ty, range.vector, Some(range.line)),
        };
        let entry = self.use_register(f, name, ty, vector);
        let slot = f.scopes[scope].names.entry(name).or_insert((entry.clone(), line.unwrap_or(0)));
        slot.0 = entry.clone();
        Some(entry)
    }

    fn use_register(&mut self, f: &mut Builder<'a>, name: &'a str, ty: ScalarType, vector: u8) -> Entry {
        self.intern(name);
        if vector == 1 {
            let name = self.unique(f, name);
            return Entry::Reg(f.new_register(name, ty));
        }
        let elements = ["x", "y", "z", "w", "4", "5", "6", "7"];
        Entry::Vector(
            elements[..usize::from(vector).min(8)]
                .iter()
                .map(|element| {
                    let name = self.unique(f, &format!("{name}${element}"));
                    f.new_register(name, ty)
                })
                .collect(),
        )
    }

    /// A register by its name, which has just been taken.
    pub(super) fn register(&mut self, f: &mut Builder<'a>, name: &'a str, at: Position) -> Result<RegId> {
        match self.resolve(f, name) {
            Some(Entry::Reg(id)) => Ok(id),
            _ => Err(at.error(undeclared("register", name))),
        }
    }

    /// A label, a table or an instruction.
    fn statement(&mut self, f: &mut Builder<'a>) -> Result<()> {
        let line = self.at.line;
        let mut guard = None;
        if self.eat(b'@')? {
            let negated = self.eat(b'!')?;
            let at = self.at;
            let name = self.ident("a predicate register")?;
            guard = Some(Guard { reg: self.register(f, name, at)?, negated });
        }
        let at = self.at;
        let Token::Ident(root) = self.token else { return Err(self.unexpected("an opcode")) };
        let text = self.lexer.raw_modifiers(root.len());
        if guard.is_none() && text.len() == root.len() && self.lexer.at_label_colon()? {
            return self.label(f, root, at);
        }
        self.bump()?;
        let form = self.form(text)?;
        f.operands.clear();
        let is_call = root == "call";
        if !self.is_punct(b';') {
            loop {
                let operand = self.operand(f, is_call)?;
                f.operands.push(operand);
                if !self.eat(b',')? {
                    break;
                }
            }
        }
        if !self.is_punct(b';') {
            return Err(self.unexpected("',' or ';'"));
        }
        self.bump()?;
        let operands = f.operands.drain(..).collect();
        f.body.statements.push(Statement::Instruction(Instruction { guard, form, operands, line }));
        Ok(())
    }

    /// The form of an opcode text; the current token is the one behind it.
    fn form(&mut self, text: &'a str) -> Result<Arc<Form>> {
        if let Token::Directive(_) = self.token {
            // White space before a modifier: legal, and rare.
            let mut whole = text.to_owned();
            while let Token::Directive(word) = self.token {
                whole.push('.');
                whole.push_str(self.lexer.raw_modifiers(word.len()));
                self.bump()?;
            }
            return Ok(Arc::new(Form::new(&whole)));
        }
        if let Some(form) = self.forms.get(text) {
            return Ok(form.clone());
        }
        let form = Arc::new(Form::new(text));
        self.forms.insert(text, form.clone());
        Ok(form)
    }

    /// `name:` and what it labels; the current token is the name.
    fn label(&mut self, f: &mut Builder<'a>, name: &'a str, at: Position) -> Result<()> {
        self.bump()?;
        self.expect(b':')?;
        self.intern(name);
        let kind = match self.token {
            Token::Directive(kind @ ("branchtargets" | "calltargets" | "callprototype")) => kind,
            _ => {
                let id = LabelId(f.body.labels.len() as u32);
                let unique = self.unique(f, name);
                f.body.labels.push(unique);
                f.body.statements.push(Statement::Label(id));
                return self.declare(f, name, Entry::Label(id), at);
            }
        };
        let unique = self.unique(f, name);
        self.declare(f, name, Entry::Symbol(unique.clone()), at)?;
        self.bump()?;
        match kind {
            "branchtargets" => {
                let table = f.table_targets.len();
                f.body.branch_tables.push(BranchTable { name: unique, targets: Vec::new() });
                f.table_targets.push(Vec::new());
                loop {
                    let at = self.at;
                    let label = self.ident("a label")?;
                    let slot = f.table_targets[table].len();
                    f.table_targets[table].push(None);
                    f.defer_at(Place::Table(table, slot), label, at);
                    if !self.eat(b',')? {
                        break;
                    }
                }
            }
            "calltargets" => {
                let mut targets = Vec::new();
                loop {
                    let at = self.at;
                    let target = self.name("a function")?;
                    self.note_symbol(&target, at);
                    targets.push(target);
                    if !self.eat(b',')? {
                        break;
                    }
                }
                f.body.call_tables.push(CallTable { name: unique, targets });
            }
            _ => {
                let returns = if self.is_punct(b'(') { self.params()? } else { Vec::new() };
                self.ident("'_'")?;
                let params = if self.is_punct(b'(') { self.params()? } else { Vec::new() };
                let mut directives = Vec::new();
                self.directives(&mut directives)?;
                f.body.prototypes.push(Prototype { name: unique, returns, params, directives });
            }
        }
        self.expect(b';')
    }
}

fn undeclared(what: &'static str, name: &str) -> ParseErrorKind {
    ParseErrorKind::Undeclared { what, name: shorten(name).into() }
}

/// Puts replacements in the place of symbols. Gives the first for which that makes no sense: a label in an address or
/// with an offset.
fn replace<'n>(
    operands: &mut [Operand],
    replacements: &HashMap<&'n str, (Operand, Position)>,
) -> std::result::Result<(), (&'n str, Position)> {
    operands.iter_mut().try_for_each(|operand| match operand {
        Operand::Symbol { name: found, offset } => {
            match replacements.get_key_value(&**found) {
                Some((_, (Operand::Symbol { name, .. }, _))) => *found = name.clone(),
                Some((name, (_, at))) if *offset != 0 => return Err((*name, *at)),
                Some((_, (label, _))) => *operand = label.clone(),
                None => {}
            }
            Ok(())
        }
        Operand::Address(Address { base: AddressBase::Symbol(found), .. }) => {
            match replacements.get_key_value(&**found) {
                Some((_, (Operand::Symbol { name, .. }, _))) => *found = name.clone(),
                Some((name, (_, at))) => return Err((*name, *at)),
                None => {}
            }
            Ok(())
        }
        Operand::AddressList(list) | Operand::Vector(list) | Operand::List(list) => {
            replace(list, replacements)
        }
        _ => Ok(()),
    })
}
