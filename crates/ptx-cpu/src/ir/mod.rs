//! The compiler's intermediate representation: typed virtual registers, decoded operations, a control-flow graph.
//!
//! One [`Inst`] stands for one PTX instruction (sometimes a few), with everything that its text says decoded into [`Op`]; what an
//! operation defines and uses is explicit in `dsts` and `srcs`, so that analyses need no knowledge of operations. Registers are not
//! in SSA form: the code generator's front end makes SSA from variables. Nothing here is particular to running one thread at a time.

pub mod inline;
pub mod live;
pub mod objects;
mod op;
pub mod spin;

use ptx::ScalarType;
use ptx::Special;

pub use op::*;

/// A virtual register: index into [`Func::regs`].
pub type Reg = u32;

/// Storage class of a register: the width is exact, nothing is kept extended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// 0 or 1
    Pred,
    I8,
    I16,
    I32,
    I64,
    F32,
    F64,
}

impl Class {
    /// Bytes in a frame slot.
    pub fn size(self) -> u32 {
        match self {
            Class::Pred | Class::I8 => 1,
            Class::I16 => 2,
            Class::I32 | Class::F32 => 4,
            Class::I64 | Class::F64 => 8,
        }
    }

    /// The class that holds a declared type; `None` for types that have no register form here.
    pub fn of(ty: ScalarType) -> Option<Self> {
        Some(match ty {
            ScalarType::Pred => Class::Pred,
            ScalarType::F32 => Class::F32,
            ScalarType::F64 => Class::F64,
            _ => return Self::int(ty.size()),
        })
    }

    /// The integer class of this many bytes.
    pub fn int(size: u64) -> Option<Self> {
        Some(match size {
            1 => Class::I8,
            2 => Class::I16,
            4 => Class::I32,
            8 => Class::I64,
            _ => return None,
        })
    }
}

/// A source operand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Val {
    Reg(Reg),
    /// Negated predicate.
    NotReg(Reg),
    /// Bits of the operand in the type that the instruction reads; higher bits are ignored.
    Imm(u64),
    /// Offset in the function's local depot, as an address of `.local`.
    Local(u32),
    /// Start of dynamic shared memory plus an offset (known once the kernel's static part is laid out).
    DynShared(i64),
    /// End of the function's depot, where `alloca` and callees begin.
    LocalEnd,
    /// Address of a parameter object plus an offset, as an address of `.param` (see [`Obj`]).
    Obj(u32, i64),
    Special(Special),
}

/// Guard predicate of an instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Guard {
    pub reg: Reg,
    pub negated: bool,
}

/// "No destination": `_`.
pub const SINK: Reg = Reg::MAX;

#[derive(Clone, Debug)]
pub struct Inst {
    pub op: Op,
    pub guard: Option<Guard>,
    pub dsts: Vec<Reg>,
    pub srcs: Vec<Val>,
    /// Constant offset of memory operations.
    pub offset: i64,
    pub line: u32,
}

/// How a block ends.
#[derive(Clone, Debug)]
pub enum Term {
    Jump(u32),
    Branch {
        cond: Guard,
        then: u32,
        or: u32,
    },
    /// `brx.idx`: out of range is undefined in PTX, here it is a fault.
    Switch {
        index: Val,
        targets: Vec<u32>,
    },
    /// Return from the function; in a kernel the end of the thread.
    Ret,
    /// End of the thread.
    Exit,
    /// Never reached: `trap`, after a call that does not return.
    Trap,
}

impl Term {
    pub fn successors(&self) -> impl Iterator<Item = u32> + '_ {
        let (one, many): ([Option<u32>; 2], &[u32]) = match self {
            Term::Jump(t) => ([Some(*t), None], &[]),
            Term::Branch { then, or, .. } => ([Some(*then), Some(*or)], &[]),
            Term::Switch { targets, .. } => ([None, None], targets),
            Term::Ret | Term::Exit | Term::Trap => ([None, None], &[]),
        };
        one.into_iter().flatten().chain(many.iter().copied())
    }

    pub fn map_successors(&mut self, mut f: impl FnMut(u32) -> u32) {
        match self {
            Term::Jump(t) => *t = f(*t),
            Term::Branch { then, or, .. } => (*then, *or) = (f(*then), f(*or)),
            Term::Switch { targets, .. } => targets.iter_mut().for_each(|t| *t = f(*t)),
            Term::Ret | Term::Exit | Term::Trap => {}
        }
    }

    pub fn uses(&self) -> Option<Reg> {
        match self {
            Term::Branch { cond, .. } => Some(cond.reg),
            Term::Switch { index: Val::Reg(r), .. } => Some(*r),
            _ => None,
        }
    }
}

#[derive(Clone, Debug)]
pub struct Block {
    pub insts: Vec<Inst>,
    pub term: Term,
}

/// A `.param` variable of a function: formal parameter, return parameter, or the memory around a call. It is split into registers
/// where all accesses agree (see [`objects`]), else it is memory that only constant offsets and checked addresses reach.
#[derive(Clone, Debug)]
pub struct Obj {
    pub size: u32,
    pub align: u32,
    /// Its address is in a register somewhere.
    pub address_taken: bool,
    /// After [`objects::promote`].
    pub storage: Storage,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Storage {
    /// Offset, register and size of the pieces, in order of offsets.
    Pieces(Vec<Piece>),
    /// Offset in the function's object memory.
    Memory(u32),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    pub offset: u32,
    pub size: u32,
    pub reg: Reg,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// Index of a function of the program.
    Direct(u32),
    /// Through the function id in the first source; the signature's number is checked.
    Indirect(u32),
    Builtin(Builtin),
}

/// Functions that the runtime supplies to kernels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Builtin {
    Vprintf,
    Malloc,
    Free,
    AssertFail,
}

#[derive(Clone, Debug)]
pub struct CallSite {
    pub target: Target,
    /// Objects.
    pub args: Vec<u32>,
    pub rets: Vec<u32>,
    /// Stack pointer of a function that uses `alloca`.
    pub sp: Option<Reg>,
}

/// A function.
#[derive(Clone, Debug)]
pub struct Func {
    pub name: ptx::Name,
    pub regs: Vec<Class>,
    /// Block 0 is the entry.
    pub blocks: Vec<Block>,
    pub objs: Vec<Obj>,
    /// Objects of the formal parameters (empty for kernels).
    pub params: Vec<u32>,
    pub returns: Vec<u32>,
    pub calls: Vec<CallSite>,
    /// Local stack pointer, if the function uses `alloca`: an offset in local memory.
    pub sp: Option<Reg>,
    /// Bytes of `.local` variables.
    pub local_len: u32,
    /// Bytes of the object memory; set by [`objects::promote`].
    pub object_len: u32,
}

impl Func {
    pub fn insts(&self) -> impl Iterator<Item = &Inst> {
        self.blocks.iter().flat_map(|b| &b.insts)
    }

    pub fn new_reg(&mut self, class: Class) -> Reg {
        self.regs.push(class);
        (self.regs.len() - 1) as Reg
    }

    /// Contains a suspension point of its own (calls not considered).
    pub fn parks(&self) -> bool {
        self.insts().any(|i| matches!(i.op, Op::Park(_)))
    }

    /// Directly called functions of the program.
    pub fn callees(&self) -> impl Iterator<Item = u32> + '_ {
        self.calls.iter().filter_map(|c| match c.target {
            Target::Direct(f) => Some(f),
            _ => None,
        })
    }
}

impl Inst {
    pub fn new(op: Op, dsts: Vec<Reg>, srcs: Vec<Val>) -> Self {
        Self { op, guard: None, dsts, srcs, offset: 0, line: 0 }
    }

    /// Registers that it reads, the guard included.
    pub fn uses(&self) -> impl Iterator<Item = Reg> + '_ {
        let regs = self.srcs.iter().filter_map(|v| match v {
            Val::Reg(r) | Val::NotReg(r) => Some(*r),
            _ => None,
        });
        regs.chain(self.guard.map(|g| g.reg))
    }

    /// Registers that it writes.
    pub fn defs(&self) -> impl Iterator<Item = Reg> + '_ {
        self.dsts.iter().copied().filter(|r| *r != SINK)
    }
}
