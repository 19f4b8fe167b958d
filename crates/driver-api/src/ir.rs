//! The table in memory: rows as parsed, before and after the checks.

use crate::types::{Type, Wire};

/// How a call is answered (see ARCHITECTURE.md).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Class {
    /// In the guest, with no traffic.
    Local,
    /// By hand-written code that uses the named wire operations.
    Via(Vec<String>),
    /// As another exported call with the same parameters: an older ABI name.
    Like(String),
    /// Asked once, remembered for the life of the process.
    Cached,
    /// Written to the lane and not waited for.
    Posted,
    /// Waits for the answer.
    Sync,
}

impl Class {
    /// The mark's name.
    pub fn name(&self) -> &'static str {
        match self {
            Class::Local => "local",
            Class::Via(_) => "via",
            Class::Like(_) => "like",
            Class::Cached => "cached",
            Class::Posted => "posted",
            Class::Sync => "sync",
        }
    }

    /// True if the row is a wire operation of its own.
    pub fn has_wire(&self) -> bool {
        matches!(self, Class::Cached | Class::Posted | Class::Sync)
    }
}

/// The twin of a call for programs with a default stream per thread.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Twin {
    /// `_ptds` or `_ptsz`.
    pub suffix: &'static str,
    /// CUDA version that introduced it.
    pub since: u32,
}

/// One driver call (one ABI name) or internal operation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// The exported name, or the internal operation's.
    pub name: String,
    /// Doc comment, one string per line.
    pub doc: Vec<String>,
    /// Stem of the spec file.
    pub module: String,
    /// Line of the name in the spec file.
    pub line: usize,
    /// How it is answered.
    pub class: Class,
    /// Opcode, for wire operations.
    pub op: Option<u16>,
    /// CUDA version that introduced this ABI name; `None` for internal operations.
    pub since: Option<u32>,
    /// Per-thread twin.
    pub twin: Option<Twin>,
    /// The exported function is hand-written.
    pub custom: bool,
    /// No exported function.
    pub internal: bool,
    /// The cuda backend's method is hand-written; so is that of every internal operation.
    pub host_custom: bool,
    /// The client function does something else while the host is at it.
    pub beside: bool,
    /// Why cudarc cannot check the prototype.
    pub unchecked: Option<String>,
    /// In the order of the prototype.
    pub params: Vec<Param>,
}

impl Row {
    /// Name of the spec file below `crates/driver-api`.
    pub fn file(&self) -> String {
        format!("spec/{}.rs", self.module)
    }

    /// True if a per-thread twin exists but no parameter tells the stream: then the row has a trailing
    /// `default_stream` argument (1 legacy, 2 per-thread).
    pub fn default_stream(&self) -> bool {
        self.twin.is_some() && !self.params.iter().any(|param| param.stream)
    }

    /// True if the exported function is written by hand (for [`Class::Like`] the question is the other row's).
    pub fn by_hand(&self) -> bool {
        self.custom || matches!(self.class, Class::Local | Class::Via(_))
    }
}

/// One parameter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Param {
    /// As in the driver's prototype.
    pub name: String,
    /// As in the driver's prototype.
    pub ty: Type,
    /// Direction and length.
    pub mark: Mark,
    /// NULL means the default stream.
    pub stream: bool,
    /// The call ends the life of this handle.
    pub dies: bool,
    /// The parameter with the handle that this new one belongs to: its end ends this one.
    pub parent: Option<String>,
    /// Line in the spec file.
    pub line: usize,
}

/// Direction and length of a parameter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mark {
    /// By value, or a pointer that only hand-written code looks at.
    Plain,
    /// Pointer that the call writes one value through.
    Out,
    /// Pointer to one structure that the call reads.
    Input,
    /// NUL-terminated string that the call reads.
    Cstr,
    /// Block of bytes that the call reads.
    DataIn(Option<Length>),
    /// Block of bytes that the call writes.
    DataOut(Option<Length>),
    /// Address that travels as a number.
    Address,
}

/// `parameter * unit` bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Length {
    /// The parameter that holds the count.
    pub param: String,
    /// Bytes of one element.
    pub unit: usize,
}

impl Param {
    /// The wire form of the value, or of what the pointer points to for [`Mark::Out`] and [`Mark::Input`].
    pub fn wire(&self) -> Option<Wire> {
        match self.mark {
            Mark::Plain => self.ty.kind()?.wire(),
            Mark::Out | Mark::Input => self.ty.pointee()?.pointee_wire(),
            Mark::Address => Some(Wire::Scalar("u64")),
            Mark::Cstr | Mark::DataIn(_) | Mark::DataOut(_) => None,
        }
    }
}

impl Type {
    /// Wire form of a pointed-to value; a pointer to memory travels as its address.
    fn pointee_wire(&self) -> Option<Wire> {
        match self {
            Type::Pointer(_, inner) if inner.base_name() == Some("c_void") => Some(Wire::Scalar("u64")),
            _ => self.kind()?.wire(),
        }
    }
}
