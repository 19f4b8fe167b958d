//! Opcodes and modifiers to operations: what an instruction's form says, without its operands.
//!
//! `decode` returns `None` for every form that is not fully understood; such an instruction makes the module unloadable.

use ptx::{Form, ScalarType, ScalarType::*};

use super::decode_alu::{alu, arith, compare, cvt, float, integer, video};
use super::mods::Mods;
use crate::abi::{FaultKind, op as park};
use crate::ir::{AtomOp, Op, Order, Space};

/// How operands are bound to the operation.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Bind {
    /// Destination, then exactly these sources.
    Alu(Srcs),
    /// As `Alu`, with the carry register as last source and/or second destination.
    Carry {
        srcs: Srcs,
        cin: bool,
        cout: bool,
    },
    /// `p|q, a, b, {!}c`
    Compare {
        ty: ScalarType,
        combine: bool,
    },
    /// `mov`, with symbols, vectors and special registers.
    Mov(ScalarType),
    /// Destination(s), address. The space may depend on the symbol.
    Load {
        vector: u8,
    },
    /// Address, source(s).
    Store {
        vector: u8,
    },
    /// Destination (unless `red`), address, `n` values.
    Atom {
        ty: ScalarType,
        red: bool,
        vector: u8,
    },
    CpAsync,
    /// `d|p` and operands of a suspension point, by their place: `a`, `b`, `c`, mask.
    Park {
        ty: ScalarType,
        order: &'static [Slot],
    },
    /// `bar` and `barrier`.
    Barrier {
        op: u32,
    },
    Bra,
    BrxIdx,
    Call,
    Ret,
    Exit,
    Trap,
    Alloca,
    StackSave,
    StackRestore,
    /// No effect; operands are not looked at.
    Nop,
    /// No effect but for a zero in the destination.
    Zero,
}

/// Place of a suspension point's operand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Slot {
    A,
    APred,
    B,
    C,
    Mask,
    /// Read and dropped.
    Skip,
}

/// Types of the sources.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Srcs {
    types: [ScalarType; 4],
    len: u8,
}

impl Srcs {
    pub fn new(types: &[ScalarType]) -> Self {
        let mut all = [B32; 4];
        all[..types.len()].copy_from_slice(types);
        Self { types: all, len: types.len() as u8 }
    }

    pub fn types(&self) -> &[ScalarType] {
        &self.types[..usize::from(self.len)]
    }
}

/// A decoded form.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Template {
    pub op: Op,
    pub bind: Bind,
    /// No `.global`, `.shared`, ... modifier: a symbol operand decides, else it is generic.
    pub space_open: bool,
}

pub type Decoded = Option<(Op, Bind)>;

const FENCE_WORDS: &[&str] =
    &["cta", "gl", "sys", "gpu", "cluster", "sc", "acq_rel", "acquire", "release", "proxy", "alias", "async"];

/// Decodes a form; `None` if any part of it is not supported.
pub fn decode(form: &Form) -> Option<Template> {
    let mut m = Mods::new(form);
    let mut space_open = false;
    let (op, bind) = match &*form.opcode {
        "ld" | "ldu" | "st" | "atom" | "red" => {
            space_open = form.space.is_none();
            memory(&mut m)?
        }
        "add" | "sub" | "mul" | "mad" | "fma" | "div" | "addc" | "subc" | "madc" | "abs" | "neg" | "min"
        | "max" => arith(&mut m)?,
        "rem" | "sad" | "mul24" | "mad24" | "popc" | "clz" | "brev" | "bfind" | "bfe" | "bfi" | "bmsk"
        | "szext" | "dp4a" | "dp2a" | "and" | "or" | "xor" | "not" | "cnot" | "shl" | "shr" | "shf"
        | "lop3" | "prmt" => integer(&mut m)?,
        "rcp" | "sqrt" | "rsqrt" | "sin" | "cos" | "lg2" | "ex2" | "tanh" | "copysign" | "testp" => {
            float(&mut m)?
        }
        "setp" | "set" | "selp" | "slct" => compare(&mut m)?,
        "mov" => {
            let ty = m.ty()?;
            m.ignore(&["v2", "v4"]);
            (Op::Mov(ty), Bind::Mov(ty))
        }
        "cvt" => cvt(&mut m)?,
        "cvta" => cvta(&mut m)?,
        "isspacep" => {
            let space = form.space?;
            let which = m.take_any(&[
                "global",
                "shared",
                "shared::cta",
                "shared::cluster",
                "local",
                "const",
                "param",
                "param::entry",
            ])?;
            let _ = which;
            (Op::IsSpace { space }, Bind::Alu(Srcs::new(&[B64])))
        }
        "bar" | "barrier" => barrier(&mut m)?,
        "shfl" | "vote" | "match" | "activemask" | "redux" | "elect" => warp(&mut m)?,
        "nanosleep" => {
            m.ty()?;
            (Op::Park(park::YIELD), Bind::Park { ty: U32, order: &[Slot::Skip] })
        }
        "membar" | "fence" => {
            m.ignore(FENCE_WORDS);
            m.ignore_prefix("proxy");
            m.ignore_prefix("tensormap");
            (Op::Fence, Bind::Alu(Srcs::new(&[])))
        }
        "bra" => {
            m.ignore(&["uni"]);
            (Op::Fence, Bind::Bra)
        }
        "brx" => {
            m.take("idx").then_some(())?;
            m.ignore(&["uni"]);
            (Op::Fence, Bind::BrxIdx)
        }
        "call" => {
            m.ignore(&["uni"]);
            (Op::Fence, Bind::Call)
        }
        "ret" => {
            m.ignore(&["uni"]);
            (Op::Fence, Bind::Ret)
        }
        "exit" => (Op::Fence, Bind::Exit),
        "trap" | "brkpt" => (Op::Fault(FaultKind::Trap as u32), Bind::Trap),
        "prefetch" | "prefetchu" | "discard" | "applypriority" | "pmevent" | "griddepcontrol"
        | "setmaxnreg" => {
            m.ignore(&[
                "global",
                "local",
                "const",
                "param",
                "tensormap",
                "L1",
                "L2",
                "mask",
                "wait",
                "launch_dependents",
            ]);
            m.ignore(&["inc", "dec", "sync", "aligned", "L2::128B", "u32"]);
            m.ignore_prefix("L2::evict");
            (Op::Fence, Bind::Nop)
        }
        "createpolicy" => {
            // Cache policies have no effect: any value will do.
            m.ignore(&["fractional", "range", "cvt", "global", "b64", "L2"]);
            m.ignore_prefix("L2::");
            (Op::Mov(B64), Bind::Zero)
        }
        "cp" => cp(&mut m)?,
        "alloca" | "stacksave" | "stackrestore" => {
            m.ty().filter(|t| *t == U64)?;
            match &*form.opcode {
                "alloca" => (Op::Alloca { align: 16 }, Bind::Alloca),
                "stacksave" => (Op::Mov(U64), Bind::StackSave),
                _ => (Op::SetSp, Bind::StackRestore),
            }
        }
        "vadd2" | "vsub2" | "vabsdiff2" | "vmin2" | "vmax2" | "vavrg2" | "vadd4" | "vsub4" | "vabsdiff4"
        | "vmin4" | "vmax4" | "vavrg4" => video(&mut m)?,
        _ => return None,
    };
    m.done().then_some(Template { op, bind, space_open })
}

fn space_of(space: ptx::Space) -> Option<Space> {
    Some(match space {
        ptx::Space::Global | ptx::Space::Const => Space::Region,
        ptx::Space::Shared => Space::Shared,
        ptx::Space::Local => Space::Local,
        ptx::Space::Param => Space::Param,
        _ => return None,
    })
}

const SPACES: &[&str] = &[
    "global",
    "const",
    "const[0]",
    "shared",
    "shared::cta",
    "shared::cluster",
    "local",
    "param",
    "param::entry",
    "param::func",
];

fn cvta(m: &mut Mods<'_>) -> Decoded {
    let to = m.take("to");
    let space = space_of(m.form().space?)?;
    m.take_any(SPACES)?;
    let ty = m.ty().filter(|t| matches!(t, U64 | U32))?;
    alu(if to { Op::CvtaFrom(space) } else { Op::CvtaTo(space) }, &[ty])
}

fn memory(m: &mut Mods<'_>) -> Decoded {
    let opcode = &*m.form().opcode;
    let space = match m.form().space {
        Some(s) => space_of(s)?,
        None => Space::Region,
    };
    let read_only = m.form().space == Some(ptx::Space::Const) && opcode != "ld";
    if read_only {
        return None;
    }
    m.take_any(SPACES);
    m.ignore(&["cta", "gpu", "sys", "cluster", "gl", "noftz"]);
    // Performance hints.
    m.ignore(&["nc", "ca", "cg", "cs", "lu", "wb", "wt", "unified", "weak"]);
    m.ignore_prefix("L1::");
    m.ignore_prefix("L2::");
    let strong = ["volatile", "cv", "relaxed", "acquire", "release", "acq_rel", "mmio", "sc"]
        .iter()
        .any(|w| m.take(w));
    let order = if strong { Order::Strong } else { Order::Weak };
    let vector = m.form().vector;
    m.ignore(&["v2", "v4", "v8"]);
    match opcode {
        "ld" | "ldu" => {
            let ty = m.ty().filter(|t| data_type(*t))?;
            (ty.size() * u64::from(vector) <= 32).then_some(())?;
            Some((Op::Ld { space, ty, order }, Bind::Load { vector }))
        }
        "st" => {
            let ty = m.ty().filter(|t| data_type(*t))?;
            (ty.size() * u64::from(vector) <= 32).then_some(())?;
            Some((Op::St { space, ty, order }, Bind::Store { vector }))
        }
        _ => {
            const NAMES: [&str; 10] = ["add", "and", "or", "xor", "exch", "cas", "min", "max", "inc", "dec"];
            const OPS: [AtomOp; 10] = [
                AtomOp::Add,
                AtomOp::And,
                AtomOp::Or,
                AtomOp::Xor,
                AtomOp::Exch,
                AtomOp::Cas,
                AtomOp::Min,
                AtomOp::Max,
                AtomOp::Inc,
                AtomOp::Dec,
            ];
            let op = OPS[m.take_any(&NAMES)?];
            let ty = m.ty()?;
            let ok = match op {
                AtomOp::Add => matches!(ty, U32 | S32 | U64 | S64 | F32 | F64 | F16 | F16x2 | Bf16 | Bf16x2),
                AtomOp::And | AtomOp::Or | AtomOp::Xor => matches!(ty, B32 | B64),
                AtomOp::Exch => matches!(ty, B32 | B64),
                AtomOp::Cas => matches!(ty, B16 | B32 | B64),
                AtomOp::Min | AtomOp::Max => matches!(ty, U32 | S32 | U64 | S64),
                AtomOp::Inc | AtomOp::Dec => ty == U32,
            };
            let red = opcode == "red";
            let allowed = ok && vector == 1 && matches!(space, Space::Region | Space::Shared);
            (allowed && !(red && matches!(op, AtomOp::Cas | AtomOp::Exch)))
                .then_some((Op::Atom { space, op, ty }, Bind::Atom { ty, red, vector }))
        }
    }
}

fn data_type(ty: ScalarType) -> bool {
    matches!(
        ty,
        B8 | B16
            | B32
            | B64
            | U8
            | U16
            | U32
            | U64
            | S8
            | S16
            | S32
            | S64
            | F16
            | F16x2
            | Bf16
            | Bf16x2
            | F32
            | F64
    )
}

fn cp(m: &mut Mods<'_>) -> Decoded {
    m.take("async").then_some(())?;
    if m.take_any(&["commit_group", "wait_group", "wait_all"]).is_some() {
        // Copies are done where they are issued.
        return Some((Op::Fence, Bind::Nop));
    }
    m.take_any(&["ca", "cg"])?;
    m.take_any(&["shared", "shared::cta"])?;
    m.take("global").then_some(())?;
    m.ignore(&["L2::64B", "L2::128B", "L2::256B", "L2::cache_hint"]);
    Some((Op::CpAsync { len: 0, src_offset: 0, ignore: false }, Bind::CpAsync))
}

fn barrier(m: &mut Mods<'_>) -> Decoded {
    if m.take("warp") {
        m.take("sync").then_some(())?;
        return Some((Op::Park(park::WARP_SYNC), Bind::Park { ty: U32, order: &[Slot::Mask] }));
    }
    m.ignore(&["cta", "aligned"]);
    let op = match m.take_any(&["sync", "arrive", "red"])? {
        0 => park::BARRIER_SYNC,
        1 => park::BARRIER_ARRIVE,
        _ => {
            let op = [park::BARRIER_RED_POPC, park::BARRIER_RED_AND, park::BARRIER_RED_OR]
                [m.take_any(&["popc", "and", "or"])?];
            m.ty().filter(|t| *t == if op == park::BARRIER_RED_POPC { U32 } else { Pred })?;
            op
        }
    };
    Some((Op::Park(op), Bind::Barrier { op }))
}

fn warp(m: &mut Mods<'_>) -> Decoded {
    let opcode = &*m.form().opcode;
    let sync = m.take("sync");
    let bound = |op, ty, order| Some((Op::Park(op), Bind::Park { ty, order }));
    match opcode {
        "shfl" => {
            let op = [park::SHFL_UP, park::SHFL_DOWN, park::SHFL_BFLY, park::SHFL_IDX]
                [m.take_any(&["up", "down", "bfly", "idx"])?];
            m.ty().filter(|t| matches!(t, B32 | U32 | S32 | F32))?;
            let order: &[Slot] =
                if sync { &[Slot::A, Slot::B, Slot::C, Slot::Mask] } else { &[Slot::A, Slot::B, Slot::C] };
            bound(op, B32, order)
        }
        "vote" => {
            let op = [park::VOTE_ALL, park::VOTE_ANY, park::VOTE_UNI, park::VOTE_BALLOT]
                [m.take_any(&["all", "any", "uni", "ballot"])?];
            m.ty().filter(|t| *t == if op == park::VOTE_BALLOT { B32 } else { Pred })?;
            let order: &[Slot] = if sync { &[Slot::APred, Slot::Mask] } else { &[Slot::APred] };
            bound(op, B32, order)
        }
        "match" if sync => {
            let op = [park::MATCH_ANY, park::MATCH_ALL][m.take_any(&["any", "all"])?];
            let ty = m.ty().filter(|t| matches!(t, B32 | B64))?;
            bound(op, ty, &[Slot::A, Slot::Mask])
        }
        "activemask" if !sync => {
            m.ty().filter(|t| *t == B32)?;
            bound(park::ACTIVE_MASK, B32, &[])
        }
        "elect" if sync => bound(park::ELECT, B32, &[Slot::Mask]),
        "redux" if sync => {
            let which = m.take_any(&["add", "min", "max", "and", "or", "xor"])?;
            let ty = m.ty()?;
            let op = match (which, ty) {
                (0, U32 | S32) => park::REDUX_ADD,
                (1, U32) => park::REDUX_MIN_U,
                (1, S32) => park::REDUX_MIN_S,
                (2, U32) => park::REDUX_MAX_U,
                (2, S32) => park::REDUX_MAX_S,
                (3, B32) => park::REDUX_AND,
                (4, B32) => park::REDUX_OR,
                (5, B32) => park::REDUX_XOR,
                _ => return None,
            };
            bound(op, B32, &[Slot::A, Slot::Mask])
        }
        _ => None,
    }
}
