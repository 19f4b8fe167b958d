//! Names of a module: functions, variables and where they live.

use std::collections::HashMap;

use ptx::ast::{Function, Init, InitAddress, Item, Linkage, Module, Variable};
use ptx::{Name, Space};

use super::{GlobalMemory, LoadError, MemoryKind};

/// Where a variable is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// In the region.
    Address(u64),
    /// Static shared memory: laid out per kernel.
    Shared,
    /// `extern .shared x[]`
    DynShared,
    /// Declared, but defined nowhere: an error where it is used.
    Undefined,
}

#[derive(Clone, Debug)]
pub struct Sym {
    pub place: Place,
    pub size: u64,
    pub align: u32,
}

/// The value that a function's address has in device code: an id that only indirect calls understand.
pub fn function_id(number: u32) -> u64 {
    FUNCTION_BASE + u64::from(number) * FUNCTION_STRIDE
}

/// The function with this id, if there can be one among `count`.
pub fn function_of_id(id: u64, count: u32) -> Option<u32> {
    let distance = id.checked_sub(FUNCTION_BASE)?;
    let number = u32::try_from(distance / FUNCTION_STRIDE).ok()?;
    (distance % FUNCTION_STRIDE == 0 && number < count).then_some(number)
}

/// Id of the first function: below every region, and no number that programs use for something else.
pub const FUNCTION_BASE: u64 = (1 << 41) + (0xf << 32);

/// Distance between function ids, so that they look like aligned addresses.
pub const FUNCTION_STRIDE: u64 = 16;

/// Memory that the variables of a module occupy, freed with the program.
#[derive(Debug, Default)]
pub struct Allocations(pub Vec<u64>);

pub struct Index {
    module: Module,
    /// Items of the functions, definitions before declarations of the same name.
    functions: Vec<usize>,
    by_name: HashMap<Name, u32>,
    module_vars: HashMap<Name, Sym>,
    function_vars: HashMap<u32, HashMap<Name, Sym>>,
    /// Address range of `.const`.
    pub const_range: (u64, u64),
    /// `.global` and `.const` variables in order of the source: name, address, length.
    pub globals: Vec<(Name, u64, u64)>,
}

/// Bytes of one variable or of all together.
const MAX_BYTES: u64 = 1 << 40;

impl Index {
    /// Indexes the module and lays out its variables in memory, initialised.
    pub fn new(
        module: Module,
        memory: &dyn GlobalMemory,
        allocations: &mut Allocations,
    ) -> Result<Self, LoadError> {
        let mut functions = Vec::new();
        let mut by_name: HashMap<Name, u32> = HashMap::new();
        for (i, item) in module.items.iter().enumerate() {
            if let Item::Function(f) = item {
                match by_name.get(&f.name) {
                    Some(number) => {
                        if f.body.is_some() {
                            functions[*number as usize] = i;
                        }
                    }
                    None => {
                        by_name.insert(f.name.clone(), functions.len() as u32);
                        functions.push(i);
                    }
                }
            }
        }
        for item in &module.items {
            let Item::Alias { name, target } = item else { continue };
            if let Some(number) = by_name.get(target).copied() {
                by_name.insert(name.clone(), number);
            }
        }
        let mut index = Self {
            module,
            functions,
            by_name,
            module_vars: HashMap::new(),
            function_vars: HashMap::new(),
            const_range: (0, 0),
            globals: Vec::new(),
        };
        index.lay_out(memory, allocations)?;
        index.initialise(memory)?;
        Ok(index)
    }

    pub fn function(&self, number: u32) -> &Function {
        match &self.module.items[self.functions[number as usize]] {
            Item::Function(f) => f,
            _ => unreachable!("the index holds functions only"),
        }
    }

    pub fn function_count(&self) -> u32 {
        self.functions.len() as u32
    }

    pub fn resolve_function(&self, name: &str) -> Option<u32> {
        self.by_name.get(name).copied()
    }

    /// A variable with static storage, as seen from a function.
    pub fn variable(&self, function: u32, name: &str) -> Option<&Sym> {
        self.function_vars
            .get(&function)
            .and_then(|vars| vars.get(name))
            .or_else(|| self.module_vars.get(name))
    }

    /// Functions whose address is stored in initialised variables.
    pub fn functions_in_initialisers(&self) -> Vec<u32> {
        fn walk(init: &Init, index: &Index, out: &mut Vec<u32>) {
            match init {
                Init::Address(a) => out.extend(index.resolve_function(&a.symbol)),
                Init::List(list) => list.iter().for_each(|i| walk(i, index, out)),
                _ => {}
            }
        }
        let mut out = Vec::new();
        for (_, variable) in self.static_variables() {
            if let Some(init) = &variable.init {
                walk(init, self, &mut out);
            }
        }
        out
    }

    /// All variables of `.global`, `.const` and module-level `.shared`, with the function that they are declared in.
    fn static_variables(&self) -> impl Iterator<Item = (Option<u32>, &Variable)> {
        let module = self.module.items.iter().filter_map(|item| match item {
            Item::Variable(v) => Some((None, v)),
            _ => None,
        });
        let local = (0..self.function_count()).flat_map(|n| {
            let body = self.function(n).body.as_ref();
            let variables = body.map_or(&[][..], |b| &b.variables);
            variables
                .iter()
                .filter(|v| matches!(v.space, Space::Global | Space::Const))
                .map(move |v| (Some(n), v))
        });
        module.chain(local)
    }

    fn lay_out(&mut self, memory: &dyn GlobalMemory, allocations: &mut Allocations) -> Result<(), LoadError> {
        struct Pending {
            scope: Option<u32>,
            name: Name,
            size: u64,
            align: u32,
            offset: u64,
        }
        let mut banks: [(Vec<Pending>, u64, u32); 2] = Default::default();
        let mut managed = Vec::new();
        let mut placed: Vec<(Option<u32>, Name, Sym)> = Vec::new();
        for (scope, v) in self.static_variables() {
            let (size, align) = (v.size(), v.align());
            let sym = |place, size| Sym { place, size, align };
            if v.space == Space::Shared {
                let place = match (size, v.linkage) {
                    (None, _) => Place::DynShared,
                    (Some(_), Linkage::Extern) => Place::Undefined,
                    (Some(_), _) => Place::Shared,
                };
                placed.push((scope, v.name.clone(), sym(place, size.unwrap_or(0))));
                continue;
            }
            if !matches!(v.space, Space::Global | Space::Const | Space::Tex) {
                continue;
            }
            if v.linkage == Linkage::Extern {
                placed.push((scope, v.name.clone(), sym(Place::Undefined, 0)));
                continue;
            }
            let size = size.ok_or_else(|| LoadError::Variable {
                name: v.name.clone(),
                why: "its size is not known".into(),
            })?;
            let bank = usize::from(v.space == Space::Const);
            let align = align.clamp(1, 1 << 16);
            if v.is_managed() && bank == 0 {
                managed.push(Pending { scope, name: v.name.clone(), size, align, offset: 0 });
                continue;
            }
            let (list, len, bank_align) = &mut banks[bank];
            // Variables start on their own 16 bytes: a copy to one never shares a word with the next.
            let offset = len.next_multiple_of(u64::from(align.max(16)));
            *len = offset
                .checked_add(size)
                .filter(|l| *l <= MAX_BYTES)
                .ok_or_else(|| LoadError::Variable { name: v.name.clone(), why: "it is too large".into() })?;
            *bank_align = (*bank_align).max(align);
            list.push(Pending { scope, name: v.name.clone(), size, align, offset });
        }
        let mut place = |kind, len: u64, align: u32| -> Result<u64, LoadError> {
            let address =
                memory.allocate(kind, len.max(1), u64::from(align.max(256))).map_err(LoadError::Memory)?;
            allocations.0.push(address);
            Ok(address)
        };
        for (bank, (list, len, align)) in banks.into_iter().enumerate() {
            if list.is_empty() {
                continue;
            }
            let base = place(if bank == 0 { MemoryKind::Global } else { MemoryKind::Constant }, len, align)?;
            if bank == 1 {
                self.const_range = (base, len);
            }
            for p in list {
                let address = base + p.offset;
                self.globals.push((p.name.clone(), address, p.size));
                placed.push((
                    p.scope,
                    p.name,
                    Sym { place: Place::Address(address), size: p.size, align: p.align },
                ));
            }
        }
        for p in managed {
            let address = place(MemoryKind::Managed, p.size, p.align)?;
            self.globals.push((p.name.clone(), address, p.size));
            placed.push((
                p.scope,
                p.name,
                Sym { place: Place::Address(address), size: p.size, align: p.align },
            ));
        }
        for (scope, name, sym) in placed {
            let table = match scope {
                None => &mut self.module_vars,
                Some(f) => self.function_vars.entry(f).or_default(),
            };
            match table.get(&name) {
                // A declaration after the definition.
                Some(old) if old.place != Place::Undefined => {}
                _ => {
                    table.insert(name, sym);
                }
            }
        }
        Ok(())
    }

    fn initialise(&self, memory: &dyn GlobalMemory) -> Result<(), LoadError> {
        for (scope, v) in self.static_variables() {
            if v.init.is_none() {
                continue;
            }
            let sym = match scope {
                None => self.module_vars.get(&v.name),
                Some(f) => self.function_vars.get(&f).and_then(|vars| vars.get(&v.name)),
            };
            let Some(Sym { place: Place::Address(address), size, .. }) = sym else { continue };
            let error = |why: String| LoadError::Variable { name: v.name.clone(), why };
            let mut image = ptx::layout::image(v, MAX_INITIALISED.min(*size)).map_err(error)?;
            for relocation in &image.relocations {
                let value = self.address_of(&relocation.target).map_err(error)?;
                let value = (value & relocation.mask) >> relocation.shift;
                let at = relocation.offset as usize;
                let len = relocation.size as usize;
                image.bytes[at..at + len].copy_from_slice(&value.to_le_bytes()[..len]);
            }
            if !image.bytes.is_empty() {
                memory.write(*address, &image.bytes).map_err(LoadError::Memory)?;
            }
        }
        Ok(())
    }

    /// The value of an address in an initializer: generic addresses of variables, ids of functions.
    fn address_of(&self, target: &InitAddress) -> Result<u64, String> {
        let base = match self.module_vars.get(&target.symbol).map(|s| s.place) {
            Some(Place::Address(address)) => address,
            Some(_) => return Err(format!("its initializer needs the address of `{}`", target.symbol)),
            None => match self.resolve_function(&target.symbol) {
                Some(function) => function_id(function),
                None => return Err(format!("unknown symbol `{}` in its initializer", target.symbol)),
            },
        };
        Ok(base.wrapping_add_signed(target.offset))
    }
}

/// Bytes of one variable up to its last initialised element.
const MAX_INITIALISED: u64 = 1 << 30;
