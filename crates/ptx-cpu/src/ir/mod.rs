//! The compiler's intermediate representation: typed virtual registers, decoded operations, a control-flow graph.
//!
//! One [`Inst`] stands for one PTX instruction (sometimes a few), with everything that its text says decoded into [`Op`]; what an
//! operation defines and uses is explicit in `dsts` and `srcs`, so that analyses need no knowledge of operations. Registers are not
//! in SSA form: the code generator's front end makes SSA from variables. Nothing here is particular to running one thread at a time.

pub mod inline;
pub mod live;
pub mod objects;
pub mod spin;

use ptx::ScalarType;
use ptx::Special;

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

/// A memory space as the code generator distinguishes them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Space {
    /// Generic, `.global` and `.const`: an address in the region.
    Region,
    Shared,
    Local,
    /// Kernel parameters.
    Param,
    /// Parameter objects of a function, through a register.
    Object,
}

/// Rounding mode of a floating-point operation, with the numbers of the helpers' `mode` argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rnd {
    Near = 0,
    Zero = 1,
    Down = 2,
    Up = 3,
}

/// Integer operations without side effects; the result has the operation's type unless noted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IntOp {
    Add,
    AddSat,
    Sub,
    SubSat,
    Mul,
    MulHi,
    /// Result has twice the width.
    MulWide,
    Mul24,
    Mul24Hi,
    Mad,
    MadHi,
    MadHiSat,
    /// Addend and result have twice the width.
    MadWide,
    Mad24,
    Mad24Hi,
    Mad24HiSat,
    Sad,
    Div,
    Rem,
    Abs,
    Neg,
    Min,
    Max,
    /// `min.relu` / `max.relu`: also clamped at 0.
    MinRelu,
    MaxRelu,
    And,
    Or,
    Xor,
    Not,
    Cnot,
    Shl,
    Shr,
    /// Result u32.
    Popc,
    Clz,
    Brev,
    /// Result u32.
    Bfind,
    BfindShift,
    Bfe,
    Bfi,
    BmskClamp,
    BmskWrap,
    SzextClamp,
    SzextWrap,
    Lop3,
    /// Mode 0 to 6: default, f4e, b4e, rc8, ecl, ecr, rc16.
    Prmt(u8),
    ShfLeftWrap,
    ShfLeftClamp,
    ShfRightWrap,
    ShfRightClamp,
    /// Signedness of a and b; the accumulator is signed if either is.
    Dp4a(bool, bool),
    /// Signedness of a and b, high half of b's bytes.
    Dp2a(bool, bool, bool),
}

/// Floating-point operations without side effects; type f16, f16x2, bf16, bf16x2, f32 or f64.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FloatOp {
    Add,
    Sub,
    Mul,
    Fma,
    Div,
    Rcp,
    Sqrt,
    Rsqrt,
    Sin,
    Cos,
    Lg2,
    Ex2,
    Tanh,
    Abs,
    Neg,
    Min { nan: bool, xorsign: bool },
    Max { nan: bool, xorsign: bool },
    CopySign,
}

/// How a floating-point operation rounds and clamps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FloatMode {
    pub rnd: Rnd,
    /// Subnormal inputs and results become zero.
    pub ftz: bool,
    /// Clamped to [0, 1], NaN to 0.
    pub sat: bool,
    /// Negative results and NaN handling of `.relu`: clamped at 0, NaN stays NaN.
    pub relu: bool,
}

impl FloatMode {
    pub const PLAIN: Self = Self { rnd: Rnd::Near, ftz: false, sat: false, relu: false };
}

/// Add and subtract with carry. Sources a, b, carry in; destinations result, carry out. A carry is a predicate register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CarryOp {
    Add,
    Sub,
    /// Sources a, b, c, carry in.
    Mad,
    MadHi,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cmp {
    Eq,
    Ne,
    Lt,
    Le,
    Gt,
    Ge,
    /// Unordered: true if an operand is NaN.
    Equ,
    Neu,
    Ltu,
    Leu,
    Gtu,
    Geu,
    Num,
    Nan,
}

/// How the result of a comparison is combined with a predicate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BoolOp {
    And,
    Or,
    Xor,
}

/// Rounding of a conversion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CvtRnd {
    /// No rounding modifier.
    None,
    /// `.rn`, `.rz`, `.rm`, `.rp`
    Float(Rnd),
    /// `.rni`, `.rzi`, `.rmi`, `.rpi`: to an integral value.
    Int(Rnd),
    /// `.rna`: nearest, ties away from zero.
    NearAway,
}

/// Memory ordering, reduced to what matters on the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// May be merged with neighbouring accesses.
    Weak,
    /// Volatile, relaxed, acquire, release: performed where written, once.
    Strong,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AtomOp {
    Add,
    And,
    Or,
    Xor,
    Exch,
    Cas,
    Min,
    Max,
    Inc,
    Dec,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TestOp {
    Finite,
    Infinite,
    Number,
    NotANumber,
    Normal,
    Subnormal,
}

/// Lane-wise video operations `vadd2`, `vabsdiff4`, ... (result lanes are kept in 16 or 8 bits).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VideoOp {
    Add,
    Sub,
    AbsDiff,
    Min,
    Max,
    Avrg,
}

/// What an instruction does. Types say how operands are read, independent of the registers' classes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Op {
    /// Copies bits (`mov`), truncating or extending by the type.
    Mov(ScalarType),
    /// `mov.b32 d, {a, b}`: `n` parts of `part` bytes.
    Pack {
        part: u8,
    },
    Unpack {
        part: u8,
    },
    Int(IntOp, ScalarType),
    Carry(CarryOp, ScalarType),
    Float(FloatOp, ScalarType, FloatMode),
    /// Sources a, b and, if combined, the predicate c. Destinations p, q (q: negated comparison). For packed types p and q are
    /// the lanes' results.
    Setp {
        cmp: Cmp,
        ty: ScalarType,
        ftz: bool,
        combine: Option<BoolOp>,
    },
    /// As `Setp`, with a value result: all ones / 1.0 for true.
    Set {
        cmp: Cmp,
        ty: ScalarType,
        dst: ScalarType,
        ftz: bool,
        combine: Option<BoolOp>,
    },
    /// Predicate logic on `.pred`.
    Selp(ScalarType),
    /// `slct`: c >= 0 selects a.
    Slct {
        ty: ScalarType,
        cond: ScalarType,
        ftz: bool,
    },
    Testp(TestOp, ScalarType),
    Cvt {
        dst: ScalarType,
        src: ScalarType,
        rnd: CvtRnd,
        ftz: bool,
        sat: bool,
        relu: bool,
    },
    /// `cvt.rn.f16x2.f32 d, a, b`: a in the upper half.
    CvtPair {
        dst: ScalarType,
        rnd: Rnd,
        relu: bool,
    },
    /// `cvt.pack.sat.{u16,s16,u8,s8,u4...}.s32{.b32} d, a, b, c`
    CvtPack {
        dst: ScalarType,
        with_c: bool,
    },
    /// Sources: address base; the offset is [`Inst::offset`]. Destinations: 1, 2, 4 or 8 elements.
    Ld {
        space: Space,
        ty: ScalarType,
        order: Order,
    },
    /// Sources: address base, then the elements.
    St {
        space: Space,
        ty: ScalarType,
        order: Order,
    },
    /// Sources: address base, b, (c for cas). Destination: old value, or none for `red`.
    Atom {
        space: Space,
        op: AtomOp,
        ty: ScalarType,
    },
    /// Copy of `len` bytes (4, 8, 16): sources: shared destination, global source, optional number of bytes to copy.
    /// [`Inst::offset`] belongs to the destination, the second offset is in the operation.
    CpAsync {
        len: u8,
        src_offset: i32,
        ignore: bool,
    },
    /// Reads a constant offset ([`Inst::offset`]) of a parameter object.
    LdObj {
        obj: u32,
        ty: ScalarType,
    },
    /// Writes a constant offset of a parameter object.
    StObj {
        obj: u32,
        ty: ScalarType,
    },
    /// Generic address from an address in a space.
    CvtaTo(Space),
    /// Address in a space from a generic address.
    CvtaFrom(Space),
    IsSpace {
        space: ptx::Space,
    },
    /// `alloca`: sources size in bytes and stack pointer; destinations address in `.local` and new stack pointer.
    Alloca {
        align: u32,
    },
    /// `stackrestore`: the source becomes the stack pointer if it can be one.
    SetSp,
    /// Full fence.
    Fence,
    /// Lane-wise video operation: element bytes, signedness of a and b, saturation type, accumulate (sources a, b, c).
    Video {
        op: VideoOp,
        lane: u8,
        a_signed: bool,
        b_signed: bool,
        d_signed: bool,
        sat: bool,
        accumulate: bool,
    },
    /// A suspension point: sources mask, a, b, c; destinations result, predicate. The number is one of [`crate::abi::op`].
    Park(u32),
    /// Index into [`Func::calls`]. Sources: promoted argument pieces (and first the function id of an indirect call); destinations:
    /// promoted result pieces.
    Call(u32),
    /// Stops the kernel with an [`crate::abi::FaultKind`].
    Fault(u32),
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
