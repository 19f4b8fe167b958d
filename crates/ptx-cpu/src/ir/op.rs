//! Operations: what an instruction does, decoded.

use ptx::ScalarType;

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
