//! The syntax tree of a PTX module.
//!
//! Shaped for a lowering pass: registers and labels are dense ids per function, names of function-local variables
//! are unique within the function (scopes are resolved by the parser), register vectors are split into scalars,
//! constant expressions are folded, and the opcode with its modifiers is one shared [`Form`].

use std::sync::Arc;

pub use crate::types::{Dim, ScalarType, Space, Special, Sreg};

/// A name from the source (interned per module: cheap to clone).
pub type Name = Arc<str>;

/// One translation unit, or the result of linking several.
#[derive(Debug, Clone, PartialEq)]
pub struct Module {
    /// PTX ISA version, `(major, minor)`.
    pub version: (u16, u16),
    /// The `.target` line.
    pub target: Target,
    /// 32 or 64.
    pub address_size: u32,
    /// Declarations and definitions in source order. A name may occur several times (declaration, then definition).
    pub items: Vec<Item>,
}

/// The `.target` line: `sm_90a, debug` is `sm: 90, suffix: Some('a'), options: ["debug"]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Architecture number: 75 for `sm_75`.
    pub sm: u32,
    /// Architecture-specific suffix (`a`, `f`).
    pub suffix: Option<char>,
    /// Further words: `texmode_independent`, `debug`, ...
    pub options: Vec<Name>,
}

/// A declaration or definition at module level.
// Functions are few and items are never moved in bulk: boxing would only add an indirection for every user.
#[allow(clippy::large_enum_variant)]
#[derive(Debug, Clone, PartialEq)]
pub enum Item {
    /// A variable in a memory space.
    Variable(Variable),
    /// A kernel or a device function.
    Function(Function),
    /// `.alias name, target;`
    Alias {
        /// The new name.
        name: Name,
        /// The function that it stands for.
        target: Name,
    },
}

impl Item {
    /// The name that it declares.
    pub fn name(&self) -> &Name {
        match self {
            Item::Variable(variable) => &variable.name,
            Item::Function(function) => &function.name,
            Item::Alias { name, .. } => name,
        }
    }
}

/// Linkage of a module-level symbol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Linkage {
    /// No directive: local to the translation unit.
    Internal,
    /// `.extern`
    Extern,
    /// `.visible`
    Visible,
    /// `.weak`
    Weak,
    /// `.common`
    Common,
}

/// A variable of any memory space (`.global`, `.const`, `.shared`, `.local`, `.param` in a body).
#[derive(Debug, Clone, PartialEq)]
pub struct Variable {
    /// Linkage. Inside functions it means nothing, but for `.extern .shared x[]`: dynamic shared memory.
    pub linkage: Linkage,
    /// State space.
    pub space: Space,
    /// Explicit `.align`, in bytes (a power of two). Use [`Variable::align`] for the effective one.
    pub explicit_align: Option<u32>,
    /// Element type.
    pub ty: ScalarType,
    /// Vector width: 1, 2, 4 (or 8).
    pub vector: u8,
    /// Name; unique in its function for local variables.
    pub name: Name,
    /// Array dimensions, outermost first. `None` is `[]` (only the first, only without an initializer:
    /// with one, the parser fills in the length).
    pub dims: Vec<Option<u64>>,
    /// Initial value; missing tail elements are zero.
    pub init: Option<Init>,
    /// Words inside `.attribute(...)`, e.g. `managed`.
    pub attributes: Vec<Name>,
    /// Source line, from 1.
    pub line: u32,
}

impl Variable {
    /// Size in bytes; `None` for an unsized array (`extern .shared x[]`).
    pub fn size(&self) -> Option<u64> {
        let element = self.ty.size() * u64::from(self.vector);
        self.dims.iter().try_fold(element, |size, dim| size.checked_mul((*dim)?))
    }

    /// Effective alignment in bytes.
    pub fn align(&self) -> u32 {
        self.explicit_align.unwrap_or_else(|| natural_align(self.ty, self.vector))
    }

    /// Whether it is declared with `.attribute(.managed)`.
    pub fn is_managed(&self) -> bool {
        self.attributes.iter().any(|a| &**a == "managed")
    }
}

/// Alignment of a scalar or vector type without `.align`.
pub(crate) fn natural_align(ty: ScalarType, vector: u8) -> u32 {
    ((ty.size() as u32) * u32::from(vector).next_power_of_two()).max(1)
}

/// An initializer, or a part of one.
#[derive(Debug, Clone, PartialEq)]
pub enum Init {
    /// An integer, as 64 bits in two's complement: truncate to the element's width.
    Int(i64),
    /// `0fXXXXXXXX`: bits of a single-precision number.
    F32(u32),
    /// `0dXXXXXXXXXXXXXXXX` or a decimal number: bits of a double-precision number.
    F64(u64),
    /// Address of a symbol.
    Address(Box<InitAddress>),
    /// `{ ... }`
    List(Vec<Init>),
    /// `field = value` in the initializer of a texture, sampler or surface reference.
    Field(Box<(Name, Init)>),
    /// A plain word as the value of a [`Init::Field`] (`nearest`, `clamp_to_edge`).
    Word(Name),
}

/// `symbol`, `symbol+offset`, `generic(symbol)+offset`, `mask(symbol+offset)` in an initializer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InitAddress {
    /// Variable or function.
    pub symbol: Name,
    /// Bytes added.
    pub offset: i64,
    /// Whether it is wrapped in `generic()`: a generic address instead of one in the symbol's space.
    pub generic: bool,
    /// `0xFF00(symbol)`: the selected byte of the address, shifted down. `None`: the whole address.
    pub mask: Option<u64>,
}

/// A kernel (`.entry`) or device function (`.func`).
#[derive(Debug, Clone, PartialEq)]
pub struct Function {
    /// `.entry` rather than `.func`.
    pub is_entry: bool,
    /// Linkage.
    pub linkage: Linkage,
    /// Name.
    pub name: Name,
    /// Return parameters.
    pub returns: Vec<Param>,
    /// Input parameters.
    pub params: Vec<Param>,
    /// Performance and other directives between the parameters and the body.
    pub directives: Vec<Directive>,
    /// `None` for a declaration.
    pub body: Option<Body>,
    /// Source line, from 1.
    pub line: u32,
}

impl Function {
    /// Whether the function is declared not to return.
    pub fn is_noreturn(&self) -> bool {
        self.directives.contains(&Directive::NoReturn)
    }
}

/// A formal parameter or return parameter.
#[derive(Debug, Clone, PartialEq)]
pub struct Param {
    /// For `.reg` parameters of a function with a body: the register.
    pub reg: Option<RegId>,
    /// [`Space::Param`] or [`Space::Reg`].
    pub space: Space,
    /// Element type.
    pub ty: ScalarType,
    /// Vector width, 1 if scalar.
    pub vector: u8,
    /// Explicit `.align`, in bytes. Use [`Param::align`] for the effective one.
    pub explicit_align: Option<u32>,
    /// Name; `_` in prototypes.
    pub name: Name,
    /// Array length in elements: `None` scalar, `Some(None)` unsized (`x[]`, the tail of a variadic function).
    pub array: Option<Option<u64>>,
    /// `.ptr` attribute of a kernel parameter.
    pub ptr: Option<PtrAttr>,
}

impl Param {
    /// Size in bytes; an unsized array counts as 0.
    pub fn size(&self) -> u64 {
        let element = self.ty.size() * u64::from(self.vector);
        match self.array {
            None => element,
            Some(n) => element.saturating_mul(n.unwrap_or(0)),
        }
    }

    /// Effective alignment in bytes.
    pub fn align(&self) -> u32 {
        self.explicit_align.unwrap_or_else(|| natural_align(self.ty, self.vector))
    }
}

/// `.ptr .space .align N` of a kernel parameter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PtrAttr {
    /// Space that the pointer points to; `None` is generic.
    pub space: Option<Space>,
    /// Alignment of what it points to, in bytes.
    pub align: Option<u32>,
}

/// A directive in a function header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Directive {
    /// `.maxntid x, y, z` (missing ones are 1)
    MaxNTid([u32; 3]),
    /// `.reqntid x, y, z` (missing ones are 1)
    ReqNTid([u32; 3]),
    /// `.minnctapersm n`
    MinNCtaPerSm(u32),
    /// `.maxnctapersm n`
    MaxNCtaPerSm(u32),
    /// `.maxnreg n`
    MaxNReg(u32),
    /// `.noreturn`
    NoReturn,
    /// `.reqnctapercluster x, y, z` (missing ones are 1)
    ReqNCtaPerCluster([u32; 3]),
    /// `.explicitcluster`
    ExplicitCluster,
    /// `.maxclusterrank n`
    MaxClusterRank(u32),
    /// `.pragma "text";`
    Pragma(Name),
    /// Any other, with its numeric arguments.
    Other {
        /// Without the dot.
        name: Name,
        /// Numbers that followed it.
        args: Vec<u32>,
    },
}

/// A register of a function: index into [`Body::registers`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RegId(pub u32);

/// A label of a function: index into [`Body::labels`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LabelId(pub u32);

/// The contents of a function, flattened: one namespace, no scopes.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Body {
    /// Registers that are used, by [`RegId`]: parameters first, then in order of first use. Unused ones are dropped.
    pub registers: Vec<Register>,
    /// Label names by [`LabelId`].
    pub labels: Vec<Name>,
    /// Variables declared inside the function, in any space.
    pub variables: Vec<Variable>,
    /// `name: .branchtargets ...;` tables, referred to by name as a [`Operand::Symbol`] of `brx.idx`.
    pub branch_tables: Vec<BranchTable>,
    /// `name: .calltargets ...;` tables, referred to by name in a `call`.
    pub call_tables: Vec<CallTable>,
    /// `name: .callprototype ...;`, referred to by name in a `call`.
    pub prototypes: Vec<Prototype>,
    /// Labels and instructions in order.
    pub statements: Vec<Statement>,
}

impl Body {
    /// The register with this id.
    ///
    /// # Panics
    /// If the id is of another function.
    pub fn register(&self, id: RegId) -> &Register {
        &self.registers[id.0 as usize]
    }

    /// Name of a label; empty if the id is of another function.
    pub fn label(&self, id: LabelId) -> &str {
        self.labels.get(id.0 as usize).map_or("", |name| name)
    }

    /// The variable of this name declared in the function.
    pub fn variable(&self, name: &str) -> Option<&Variable> {
        self.variables.iter().find(|v| &*v.name == name)
    }

    /// The `.branchtargets` table of this name.
    pub fn branch_table(&self, name: &str) -> Option<&BranchTable> {
        self.branch_tables.iter().find(|t| &*t.name == name)
    }

    /// The `.calltargets` table of this name.
    pub fn call_table(&self, name: &str) -> Option<&CallTable> {
        self.call_tables.iter().find(|t| &*t.name == name)
    }

    /// The `.callprototype` of this name.
    pub fn prototype(&self, name: &str) -> Option<&Prototype> {
        self.prototypes.iter().find(|p| &*p.name == name)
    }
}

/// A virtual register.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Register {
    /// Name, unique in the function. The elements of a vector register `v` are `v$x`, `v$y`, ...
    pub name: Name,
    /// Declared type ([`ScalarType::Pred`] for predicates). From sm_100 on, nvcc declares `.b32` for floats:
    /// lowering must type by instruction.
    pub ty: ScalarType,
}

/// `.branchtargets`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BranchTable {
    /// Name of the table.
    pub name: Name,
    /// Targets by index.
    pub targets: Vec<LabelId>,
}

/// `.calltargets`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CallTable {
    /// Name of the table.
    pub name: Name,
    /// Functions that may be called.
    pub targets: Vec<Name>,
}

/// `.callprototype`
#[derive(Debug, Clone, PartialEq)]
pub struct Prototype {
    /// Name of the prototype.
    pub name: Name,
    /// Return parameters.
    pub returns: Vec<Param>,
    /// Input parameters.
    pub params: Vec<Param>,
    /// `.noreturn` and others.
    pub directives: Vec<Directive>,
}

/// An element of a function body.
#[derive(Debug, Clone, PartialEq)]
pub enum Statement {
    /// Position of a label.
    Label(LabelId),
    /// An instruction.
    Instruction(Instruction),
}

/// One instruction.
#[derive(Debug, Clone, PartialEq)]
pub struct Instruction {
    /// `@p` or `@!p`.
    pub guard: Option<Guard>,
    /// Opcode and modifiers, shared by all instructions of the module that have the same text.
    pub form: Arc<Form>,
    /// Operands in source order.
    pub operands: Vec<Operand>,
    /// Source line, from 1.
    pub line: u32,
}

impl Instruction {
    /// Root mnemonic, `ld` of `ld.global.u32`.
    pub fn opcode(&self) -> &str {
        &self.form.opcode
    }

    /// Whether a modifier is present (without its dot).
    pub fn has(&self, modifier: &str) -> bool {
        self.form.has(modifier)
    }

    /// The parts of a `call`; `None` for other opcodes and for malformed operand lists.
    pub fn call(&self) -> Option<Call<'_>> {
        if &*self.form.opcode != "call" {
            return None;
        }
        let mut rest = &self.operands[..];
        let mut returns: &[Operand] = &[];
        if let [Operand::List(list), tail @ ..] = rest {
            (returns, rest) = (list, tail);
        } else if let [Operand::Sink, tail @ ..] = rest {
            rest = tail;
        }
        let (target, mut rest) = rest.split_first()?;
        if !matches!(target, Operand::Symbol { .. } | Operand::Reg(_)) {
            return None;
        }
        let mut args: &[Operand] = &[];
        if let [Operand::List(list), tail @ ..] = rest {
            (args, rest) = (list, tail);
        } else if let [Operand::Sink, tail @ ..] = rest {
            rest = tail;
        }
        let signature = match rest {
            [] => None,
            [Operand::Symbol { name, offset: 0 }] => Some(name),
            _ => return None,
        };
        Some(Call { returns, target, args, signature })
    }
}

/// A view of a `call` instruction.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Call<'a> {
    /// Where results go: `.param` variables ([`Operand::Symbol`]), registers, or [`Operand::Sink`].
    pub returns: &'a [Operand],
    /// [`Operand::Symbol`] for a direct call, [`Operand::Reg`] for an indirect one.
    pub target: &'a Operand,
    /// `.param` variables, registers or immediates.
    pub args: &'a [Operand],
    /// Name of the `.callprototype` or `.calltargets` of an indirect call.
    pub signature: Option<&'a Name>,
}

/// Guard predicate of an instruction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Guard {
    /// The predicate register.
    pub reg: RegId,
    /// `@!p`
    pub negated: bool,
}

/// An opcode with its modifiers, and what can be read from them alone.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Form {
    /// Whole text, `ld.relaxed.gpu.global.v2.u32`.
    pub text: Name,
    /// Root mnemonic, `ld`.
    pub opcode: Name,
    /// `relaxed`, `gpu`, `global`, `v2`, `u32`: in order, without dots; `shared::cta` is one.
    pub modifiers: Vec<Name>,
    /// The modifiers that are types, in order: `[F32, S32]` for `cvt.rn.f32.s32`.
    pub types: Vec<ScalarType>,
    /// 2, 4, 8 if there is a `v2`, `v4`, `v8` modifier, else 1.
    pub vector: u8,
    /// The first modifier that is a state space (`shared::cta` counts as shared, `param::entry` as param).
    pub space: Option<Space>,
}

impl Form {
    /// Splits an opcode text (`ld.global.u32`) into its parts.
    pub fn new(text: &str) -> Self {
        let mut parts = text.split('.');
        let opcode = parts.next().unwrap_or_default().into();
        let modifiers: Vec<Name> = parts.map(Name::from).collect();
        let vector = modifiers.iter().find_map(|m| match &**m {
            "v2" => Some(2),
            "v4" => Some(4),
            "v8" => Some(8),
            _ => None,
        });
        let space = modifiers.iter().find_map(|m| match m.split("::").next().and_then(Space::from_name) {
            Some(s @ (Space::Global | Space::Shared | Space::Local | Space::Const | Space::Param)) => Some(s),
            _ => None,
        });
        Self {
            text: text.into(),
            opcode,
            types: modifiers.iter().filter_map(|m| ScalarType::from_name(m)).collect(),
            modifiers,
            vector: vector.unwrap_or(1),
            space,
        }
    }

    /// Whether a modifier is present (without its dot).
    pub fn has(&self, modifier: &str) -> bool {
        self.modifiers.iter().any(|m| &**m == modifier)
    }

    /// The last type among the modifiers: the instruction type of most instructions.
    pub fn last_type(&self) -> Option<ScalarType> {
        self.types.last().copied()
    }
}

/// An operand.
#[derive(Debug, Clone, PartialEq)]
pub enum Operand {
    /// A register.
    Reg(RegId),
    /// `!p`: a negated predicate.
    NotReg(RegId),
    /// `a|b` (`setp` with two results, `shfl ... d|p`); `None` is the sink `_`.
    Pair(Option<RegId>, Option<RegId>),
    /// `a.b0`, `a.h1`, `a.b3210`: a selected part of a register (video instructions).
    Part {
        /// The register.
        reg: RegId,
        /// Selector without the dot.
        selector: Name,
    },
    /// `_`: result not wanted.
    Sink,
    /// A special register.
    Special(Special),
    /// An integer (constant expressions folded, `WARP_SZ` is 32), as 64 bits in two's complement: truncate to the
    /// instruction's width.
    Int(i64),
    /// `0fXXXXXXXX`: bits of a single-precision number.
    F32(u32),
    /// `0dXXXXXXXXXXXXXXXX` or a decimal number: bits of a double-precision number; convert to the instruction type.
    F64(u64),
    /// A variable, parameter, function, branch table or prototype, by name; or its address, with an offset in bytes.
    Symbol {
        /// Looked up in the function first, then in the module.
        name: Name,
        /// Bytes added to the address.
        offset: i64,
    },
    /// A label of this function.
    Label(LabelId),
    /// `[base+offset]`
    Address(Address),
    /// `[a, {b, c}]`, `[tex, sampler, {x, y}]`: several operands in brackets (textures, surfaces, tensor maps).
    AddressList(Vec<Operand>),
    /// `{a, b, c, d}`; the use of a vector register comes as this, too.
    Vector(Vec<Operand>),
    /// `(a, b)` of a call.
    List(Vec<Operand>),
}

/// `[base+offset]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    /// What the offset is added to.
    pub base: AddressBase,
    /// Bytes.
    pub offset: i64,
}

/// Base of an address operand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AddressBase {
    /// A register that holds an address.
    Reg(RegId),
    /// A variable or parameter, looked up in the function first, then in the module.
    Symbol(Name),
    /// Nothing: the offset is an absolute address.
    Absolute,
}
