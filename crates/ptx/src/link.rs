//! Linker: several translation units become one module.
//!
//! What `nvlink` does to objects of `-rdc=true`, done to their PTX: references are bound to definitions, weak and common
//! duplicates are merged, symbols local to a unit stay apart. All problems are found before any is reported.

use std::collections::{HashMap, HashSet};
use std::fmt;

use thiserror::Error;

use crate::ast::*;

/// An input of [`link`].
#[derive(Debug, Clone)]
pub struct Unit {
    /// For messages: a file name or the like.
    pub name: String,
    /// The parsed unit.
    pub module: Module,
}

/// Why units cannot be linked: every problem found.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub struct LinkError {
    /// At least one.
    pub problems: Vec<LinkProblem>,
}

impl fmt::Display for LinkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, problem) in self.problems.iter().enumerate() {
            write!(f, "{}{problem}", if i > 0 { "\n" } else { "" })?;
        }
        Ok(())
    }
}

/// One reason why units cannot be linked. The wording follows nvlink.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum LinkProblem {
    /// There is nothing to link.
    #[error("No units to link")]
    Empty,
    /// Two strong definitions.
    #[error("Multiple definition of '{symbol}' in '{unit}', first defined in '{first}'")]
    MultipleDefinition {
        /// Its name.
        symbol: Name,
        /// The later unit.
        unit: String,
        /// The earlier unit.
        first: String,
    },
    /// A use without a definition.
    #[error("Undefined reference to '{symbol}' in '{unit}'")]
    Undefined {
        /// Its name.
        symbol: Name,
        /// A unit that uses it.
        unit: String,
    },
    /// Two declarations that do not agree.
    #[error("{what} doesn't match for '{symbol}' in '{unit}', first specified in '{first}'")]
    Mismatch {
        /// `Size`, `State space`, `Prototype`, `Kind`.
        what: &'static str,
        /// Its name.
        symbol: Name,
        /// The later unit.
        unit: String,
        /// The earlier unit.
        first: String,
    },
    /// 32-bit and 64-bit units.
    #[error("Address size {found} of '{unit}' doesn't match {expected} of '{first}'")]
    AddressSize {
        /// Of the later unit.
        found: u32,
        /// Of the earlier unit.
        expected: u32,
        /// The later unit.
        unit: String,
        /// The earlier unit.
        first: String,
    },
}

/// Whether a function without a definition is provided by the system: `vprintf`, `malloc`, `free`, `__assertfail`
/// and the device runtime (`cudaGetParameterBufferV2`, `__cudaCDP2...`).
pub fn is_runtime_function(name: &str) -> bool {
    matches!(
        name,
        "vprintf" | "malloc" | "free" | "__assertfail" | "__nv_aligned_device_malloc" | "memcpy" | "memset"
    ) || name.starts_with("__cudaCDP2")
        || name.starts_with("__cuda_syscall_")
        || name.strip_prefix("cuda").is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_uppercase()))
}

/// How strong a definition is: the strongest wins, the first of equals. Two of [`Strength::Strong`] are an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Strength {
    Declaration,
    Weak,
    Common,
    Strong,
}

/// A name of one unit, over all items that carry it.
struct Symbol {
    linkage: Linkage,
    strength: Strength,
    /// The item to keep: the definition, or else the first declaration.
    item: usize,
    /// The strongest alignment asked for (of declarations as well).
    align: u32,
}

/// A name with external linkage, over all units.
struct Global {
    /// The unit and item that are kept.
    unit: usize,
    item: usize,
    strength: Strength,
    align: u32,
    /// Whether any unit says more than "declared weakly".
    weak_only: bool,
}

/// Links units. Each name occurs once in the result. Unit-local symbols keep their names unless those are taken; then
/// they get a suffix `$uN`. Declarations without a definition remain if they are runtime functions
/// ([`is_runtime_function`]), `.extern .shared` variables (dynamic shared memory), weak, or never used.
///
/// # Errors
/// Every duplicate, mismatch and undefined reference.
pub fn link(units: Vec<Unit>) -> Result<Module, LinkError> {
    let mut linker = Linker { units, problems: Vec::new() };
    linker.run().ok_or(LinkError { problems: linker.problems })
}

struct Linker {
    units: Vec<Unit>,
    problems: Vec<LinkProblem>,
}

impl Linker {
    fn run(&mut self) -> Option<Module> {
        if self.units.is_empty() {
            self.problems.push(LinkProblem::Empty);
            return None;
        }
        self.check_address_sizes();
        let symbols: Vec<_> = (0..self.units.len()).map(|unit| self.unit_symbols(unit)).collect();
        let globals = self.merge(&symbols);
        let kept = self.kept_items(&symbols, &globals);
        self.rename_locals(&symbols, &globals);
        self.check_references(&kept, &globals);
        if self.problems.is_empty() { self.assemble(&kept, &globals) } else { None }
    }

    fn check_address_sizes(&mut self) {
        let first = &self.units[0];
        for unit in &self.units[1..] {
            if unit.module.address_size != first.module.address_size {
                self.problems.push(LinkProblem::AddressSize {
                    found: unit.module.address_size,
                    expected: first.module.address_size,
                    unit: unit.name.clone(),
                    first: first.name.clone(),
                });
            }
        }
    }

    fn mismatch(&mut self, what: &'static str, symbol: &Name, unit: usize, first: usize) {
        self.problems.push(LinkProblem::Mismatch {
            what,
            symbol: symbol.clone(),
            unit: self.units[unit].name.clone(),
            first: self.units[first].name.clone(),
        });
    }

    fn multiple(&mut self, symbol: &Name, unit: usize, first: usize) {
        self.problems.push(LinkProblem::MultipleDefinition {
            symbol: symbol.clone(),
            unit: self.units[unit].name.clone(),
            first: self.units[first].name.clone(),
        });
    }

    /// The names of one unit.
    fn unit_symbols(&mut self, unit: usize) -> HashMap<Name, Symbol> {
        let mut symbols: HashMap<Name, Symbol> = HashMap::new();
        let mut duplicates = Vec::new();
        for (index, item) in self.units[unit].module.items.iter().enumerate() {
            let name = item.name();
            let (linkage, strength) = classify(item);
            let align = item_align(item);
            let Some(symbol) = symbols.get_mut(name) else {
                symbols.insert(name.clone(), Symbol { linkage, strength, item: index, align });
                continue;
            };
            if strength > Strength::Declaration && symbol.strength > Strength::Declaration {
                duplicates.push(name.clone());
                continue;
            }
            symbol.align = symbol.align.max(align);
            // A declaration may say the linkage of a definition or alias that says none.
            let linkage = match linkage {
                Linkage::Internal | Linkage::Extern => symbol.linkage,
                found => found,
            };
            if strength > symbol.strength {
                (symbol.strength, symbol.item) = (strength, index);
            }
            symbol.linkage = linkage;
        }
        for name in duplicates {
            self.multiple(&name, unit, unit);
        }
        for symbol in symbols.values_mut() {
            if symbol.strength == Strength::Declaration {
                // Without a definition here, it can only be somewhere else, whatever its linkage.
                if symbol.linkage == Linkage::Internal {
                    symbol.linkage = Linkage::Extern;
                }
            } else if symbol.linkage == Linkage::Extern {
                symbol.linkage = Linkage::Visible;
            } else if symbol.linkage == Linkage::Weak {
                symbol.strength = Strength::Weak;
            }
        }
        symbols
    }

    /// Names with external linkage, over all units.
    fn merge(&mut self, symbols: &[HashMap<Name, Symbol>]) -> HashMap<Name, Global> {
        let mut globals: HashMap<Name, Global> = HashMap::new();
        for (unit, unit_symbols) in symbols.iter().enumerate() {
            // In source order, so that messages and choices do not depend on hashing.
            let mut external: Vec<_> =
                unit_symbols.iter().filter(|(_, s)| s.linkage != Linkage::Internal).collect();
            external.sort_by_key(|(_, s)| s.item);
            for (name, symbol) in external {
                let weak_only = symbol.linkage == Linkage::Weak;
                let Some(global) = globals.get_mut(name) else {
                    let Symbol { item, strength, align, .. } = *symbol;
                    globals.insert(name.clone(), Global { unit, item, strength, align, weak_only });
                    continue;
                };
                let first = global.unit;
                let kept = &self.units[global.unit].module.items[global.item];
                let found = &self.units[unit].module.items[symbol.item];
                let problem = compare(kept, found);
                let both_strong = global.strength == Strength::Strong && symbol.strength == Strength::Strong;
                let bigger = symbol.strength == Strength::Common && item_size(found) > item_size(kept);
                if symbol.strength > global.strength || symbol.strength == global.strength && bigger {
                    (global.unit, global.item, global.strength) = (unit, symbol.item, symbol.strength);
                }
                global.align = global.align.max(symbol.align);
                global.weak_only &= weak_only;
                if both_strong {
                    self.multiple(name, unit, first);
                } else if let Some(what) = problem {
                    self.mismatch(what, name, unit, first);
                }
            }
        }
        globals
    }

    /// Per unit and item: whether it is part of the result, not a declaration of something that is defined nor a
    /// duplicate that lost.
    fn kept_items(
        &self,
        symbols: &[HashMap<Name, Symbol>],
        globals: &HashMap<Name, Global>,
    ) -> Vec<Vec<bool>> {
        let kept = |unit: usize, index: usize, item: &Item| {
            let name = item.name();
            match symbols[unit].get(name) {
                Some(symbol) if symbol.linkage == Linkage::Internal => symbol.item == index,
                _ => globals.get(name).is_some_and(|g| (g.unit, g.item) == (unit, index)),
            }
        };
        let units = self.units.iter().enumerate();
        units
            .map(|(unit, u)| {
                u.module.items.iter().enumerate().map(|(index, item)| kept(unit, index, item)).collect()
            })
            .collect()
    }

    /// Gives unit-local symbols another name where theirs is taken.
    fn rename_locals(&mut self, symbols: &[HashMap<Name, Symbol>], globals: &HashMap<Name, Global>) {
        let mut taken: HashSet<Name> = globals.keys().cloned().collect();
        let mut every_name: Option<HashSet<Name>> = None;
        for (unit, unit_symbols) in symbols.iter().enumerate() {
            let mut locals: Vec<_> =
                unit_symbols.iter().filter(|(_, s)| s.linkage == Linkage::Internal).collect();
            locals.sort_by_key(|(_, s)| s.item);
            let mut renames: HashMap<Name, Name> = HashMap::new();
            for (name, _) in locals {
                if taken.insert(name.clone()) {
                    continue;
                }
                let every_name = every_name.get_or_insert_with(|| all_names(&self.units));
                let mut number = unit;
                let new_name = loop {
                    let candidate = Name::from(format!("{name}$u{number}"));
                    if every_name.insert(candidate.clone()) {
                        break candidate;
                    }
                    number += self.units.len();
                };
                renames.insert(name.clone(), new_name);
            }
            if renames.is_empty() {
                continue;
            }
            for item in &mut self.units[unit].module.items {
                if let Some(new_name) = renames.get(item.name()) {
                    *match item {
                        Item::Variable(variable) => &mut variable.name,
                        Item::Function(function) => &mut function.name,
                        Item::Alias { name, .. } => name,
                    } = new_name.clone();
                }
                visit_references(item, &mut |name| {
                    if let Some(new_name) = renames.get(name) {
                        *name = new_name.clone();
                    }
                });
            }
        }
    }

    /// Reports uses of what no unit defines.
    fn check_references(&mut self, kept: &[Vec<bool>], globals: &HashMap<Name, Global>) {
        for (unit, kept) in kept.iter().enumerate() {
            let mut undefined: Vec<Name> = Vec::new();
            let mut seen: HashSet<Name> = HashSet::new();
            let items = &mut self.units[unit].module.items;
            for (item, _) in items.iter_mut().zip(kept).filter(|(_, kept)| **kept) {
                visit_references(item, &mut |name| {
                    let Some(global) = globals.get(name) else { return };
                    if global.strength == Strength::Declaration && !seen.contains(name) {
                        seen.insert(name.clone());
                        undefined.push(name.clone());
                    }
                });
            }
            for symbol in undefined {
                let global = &globals[&symbol];
                let provided = match &self.units[global.unit].module.items[global.item] {
                    Item::Function(_) => is_runtime_function(&symbol),
                    // Dynamic shared memory is defined by the launch.
                    Item::Variable(variable) => variable.space == Space::Shared,
                    Item::Alias { .. } => false,
                };
                if !provided && !global.weak_only {
                    let unit = self.units[unit].name.clone();
                    self.problems.push(LinkProblem::Undefined { symbol, unit });
                }
            }
        }
    }

    /// Puts together what is kept: variables first.
    fn assemble(&mut self, kept: &[Vec<bool>], globals: &HashMap<Name, Global>) -> Option<Module> {
        let mut result: Option<Module> = None;
        let (mut variables, mut functions) = (Vec::new(), Vec::new());
        for (Unit { mut module, .. }, kept) in std::mem::take(&mut self.units).into_iter().zip(kept) {
            let items = std::mem::take(&mut module.items);
            for (mut item, _) in items.into_iter().zip(kept).filter(|(_, kept)| **kept) {
                if let Some(global) = globals.get(item.name())
                    && let Item::Variable(variable) = &mut item
                    && variable.align() < global.align
                {
                    variable.explicit_align = Some(global.align);
                }
                match item {
                    Item::Variable(_) => variables.push(item),
                    _ => functions.push(item),
                }
            }
            match &mut result {
                None => result = Some(module),
                Some(result) => {
                    result.version = result.version.max(module.version);
                    if module.target.sm > result.target.sm {
                        result.target = module.target;
                    }
                }
            }
        }
        variables.append(&mut functions);
        let mut result = result?;
        result.items = variables;
        Some(result)
    }
}

fn item_align(item: &Item) -> u32 {
    if let Item::Variable(variable) = item { variable.align() } else { 1 }
}

fn item_size(item: &Item) -> Option<u64> {
    if let Item::Variable(variable) = item { variable.size() } else { None }
}

fn classify(item: &Item) -> (Linkage, Strength) {
    match item {
        Item::Variable(variable) => (
            variable.linkage,
            match variable.linkage {
                Linkage::Extern => Strength::Declaration,
                Linkage::Weak => Strength::Weak,
                Linkage::Common => Strength::Common,
                Linkage::Internal | Linkage::Visible => Strength::Strong,
            },
        ),
        Item::Function(function) => {
            let linkage = match function.linkage {
                // Programs look kernels up by name: they cannot be renamed, hence are never local.
                Linkage::Internal if function.is_entry => Linkage::Visible,
                linkage => linkage,
            };
            let strength = match linkage {
                _ if function.body.is_none() => Strength::Declaration,
                Linkage::Weak => Strength::Weak,
                _ => Strength::Strong,
            };
            (linkage, strength)
        }
        Item::Alias { .. } => (Linkage::Internal, Strength::Strong),
    }
}

/// What two items of one name disagree in.
fn compare(a: &Item, b: &Item) -> Option<&'static str> {
    match (a, b) {
        (Item::Variable(a), Item::Variable(b)) => {
            if a.space != b.space {
                return Some("State space");
            }
            // Each unit may see dynamic shared memory as something else; tentative definitions take the biggest.
            let free =
                a.space == Space::Shared && a.linkage == Linkage::Extern && b.linkage == Linkage::Extern
                    || a.linkage == Linkage::Common && b.linkage == Linkage::Common;
            match (a.size(), b.size()) {
                (Some(a), Some(b)) if a != b && !free => Some("Size"),
                _ => None,
            }
        }
        (Item::Function(a), Item::Function(b)) => {
            let sizes = |params: &[Param]| params.iter().map(Param::size).collect::<Vec<_>>();
            let same = a.is_entry == b.is_entry
                && sizes(&a.params) == sizes(&b.params)
                && sizes(&a.returns) == sizes(&b.returns);
            (!same).then_some("Prototype")
        }
        // An alias is declared as the function that it is.
        (Item::Alias { .. }, Item::Variable(_)) | (Item::Variable(_), Item::Alias { .. }) => Some("Kind"),
        (Item::Alias { .. }, _) | (_, Item::Alias { .. }) => None,
        _ => Some("Kind"),
    }
}

/// Every name that occurs in the units.
fn all_names(units: &[Unit]) -> HashSet<Name> {
    let mut names = HashSet::new();
    for item in units.iter().flat_map(|u| &u.module.items) {
        names.insert(item.name().clone());
        if let Item::Function(function) = item {
            names.extend(function.returns.iter().chain(&function.params).map(|p| p.name.clone()));
            if let Some(body) = &function.body {
                names.extend(local_names(body).cloned());
                names.extend(body.registers.iter().map(|r| r.name.clone()));
                names.extend(body.labels.iter().cloned());
            }
        }
    }
    names
}

/// Names that a body declares and operands refer to by name.
fn local_names(body: &Body) -> impl Iterator<Item = &Name> {
    let variables = body.variables.iter().map(|v| &v.name);
    let tables = body.branch_tables.iter().map(|t| &t.name).chain(body.call_tables.iter().map(|t| &t.name));
    variables.chain(tables).chain(body.prototypes.iter().map(|p| &p.name))
}

/// Calls `visit` with every reference to a module-level name in an item.
fn visit_references(item: &mut Item, visit: &mut dyn FnMut(&mut Name)) {
    match item {
        Item::Variable(variable) => {
            if let Some(init) = &mut variable.init {
                visit_init(init, visit);
            }
        }
        Item::Alias { target, .. } => visit(target),
        Item::Function(function) => {
            let Some(body) = &mut function.body else { return };
            let mut locals: HashSet<Name> = local_names(body).cloned().collect();
            locals.extend(function.returns.iter().chain(&function.params).map(|p| p.name.clone()));
            let mut visit = |name: &mut Name| {
                if !locals.contains(name) {
                    visit(name);
                }
            };
            for variable in &mut body.variables {
                if let Some(init) = &mut variable.init {
                    visit_init(init, &mut visit);
                }
            }
            for table in &mut body.call_tables {
                table.targets.iter_mut().for_each(&mut visit);
            }
            for statement in &mut body.statements {
                if let Statement::Instruction(instruction) = statement {
                    visit_operands(&mut instruction.operands, &mut visit);
                }
            }
        }
    }
}

fn visit_operands(operands: &mut [Operand], visit: &mut dyn FnMut(&mut Name)) {
    for operand in operands {
        match operand {
            Operand::Symbol { name, .. }
            | Operand::Address(Address { base: AddressBase::Symbol(name), .. }) => visit(name),
            Operand::AddressList(list) | Operand::Vector(list) | Operand::List(list) => {
                visit_operands(list, visit);
            }
            _ => {}
        }
    }
}

fn visit_init(init: &mut Init, visit: &mut dyn FnMut(&mut Name)) {
    match init {
        Init::Address(address) => visit(&mut address.symbol),
        Init::List(list) => list.iter_mut().for_each(|init| visit_init(init, visit)),
        _ => {}
    }
}
