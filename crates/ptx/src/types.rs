//! Scalar types, state spaces and special registers: the closed vocabularies of PTX.

use std::fmt;

/// Declares a fieldless enum with the spelling of each variant, in both directions.
macro_rules! spelled {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $text:literal,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum $name { $($(#[$vdoc])* #[doc = concat!("`", $text, "`")] $variant,)* }

        impl $name {
            /// Every variant, in declaration order.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The variant with this spelling (without a leading dot or percent sign).
            pub fn from_name(name: &str) -> Option<Self> {
                match name { $($text => Some(Self::$variant),)* _ => None }
            }

            /// The spelling, without a leading dot or percent sign.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.name())
            }
        }
    };
}

spelled! {
    /// A fundamental (or packed) type, as in `.u32`.
    ScalarType {
        B8 = "b8", B16 = "b16", B32 = "b32", B64 = "b64", B128 = "b128",
        U8 = "u8", U16 = "u16", U32 = "u32", U64 = "u64",
        S8 = "s8", S16 = "s16", S32 = "s32", S64 = "s64",
        F16 = "f16", F16x2 = "f16x2", Bf16 = "bf16", Bf16x2 = "bf16x2", Tf32 = "tf32",
        F32 = "f32", F32x2 = "f32x2", F64 = "f64",
        U16x2 = "u16x2", S16x2 = "s16x2",
        E4m3 = "e4m3", E5m2 = "e5m2", E4m3x2 = "e4m3x2", E5m2x2 = "e5m2x2",
        Pred = "pred",
        Texref = "texref", Samplerref = "samplerref", Surfref = "surfref",
    }
}

impl ScalarType {
    /// Size in memory in bytes. A predicate has none (0); opaque references are 8-byte handles.
    pub const fn size(self) -> u64 {
        use ScalarType::*;
        match self {
            Pred => 0,
            B8 | U8 | S8 | E4m3 | E5m2 => 1,
            B16 | U16 | S16 | F16 | Bf16 | E4m3x2 | E5m2x2 => 2,
            B32 | U32 | S32 | F32 | F16x2 | Bf16x2 | Tf32 | U16x2 | S16x2 => 4,
            B64 | U64 | S64 | F64 | F32x2 | Texref | Samplerref | Surfref => 8,
            B128 => 16,
        }
    }

    /// Width of the value in bits; 1 for a predicate.
    pub const fn bits(self) -> u32 {
        match self {
            ScalarType::Pred => 1,
            other => other.size() as u32 * 8,
        }
    }

    /// `.s8` to `.s64` and packed signed integers.
    pub const fn is_signed(self) -> bool {
        use ScalarType::*;
        matches!(self, S8 | S16 | S32 | S64 | S16x2)
    }

    /// Any floating-point type, packed ones included.
    pub const fn is_float(self) -> bool {
        use ScalarType::*;
        matches!(self, F16 | F16x2 | Bf16 | Bf16x2 | Tf32 | F32 | F32x2 | F64 | E4m3 | E5m2 | E4m3x2 | E5m2x2)
    }

    /// A texture, sampler or surface reference.
    pub const fn is_opaque(self) -> bool {
        matches!(self, ScalarType::Texref | ScalarType::Samplerref | ScalarType::Surfref)
    }
}

spelled! {
    /// A state space of a declaration.
    Space {
        Reg = "reg", Sreg = "sreg", Const = "const", Global = "global",
        Local = "local", Param = "param", Shared = "shared", Tex = "tex",
    }
}

spelled! {
    /// Component of a vector special register.
    Dim {
        X = "x", Y = "y", Z = "z", W = "w",
        /// The whole vector, as in `mov.v4.u32 {..}, %tid`.
        All = "all",
    }
}

spelled! {
    /// A special register without components. Its PTX name is `%` and the spelling.
    Sreg {
        Laneid = "laneid", Warpid = "warpid", Nwarpid = "nwarpid",
        Smid = "smid", Nsmid = "nsmid", Gridid = "gridid",
        LanemaskEq = "lanemask_eq", LanemaskLe = "lanemask_le", LanemaskLt = "lanemask_lt",
        LanemaskGe = "lanemask_ge", LanemaskGt = "lanemask_gt",
        Clock = "clock", ClockHi = "clock_hi", Clock64 = "clock64",
        Globaltimer = "globaltimer", GlobaltimerLo = "globaltimer_lo", GlobaltimerHi = "globaltimer_hi",
        TotalSmemSize = "total_smem_size", AggrSmemSize = "aggr_smem_size",
        DynamicSmemSize = "dynamic_smem_size",
        ReservedSmemOffsetBegin = "reserved_smem_offset_begin",
        ReservedSmemOffsetEnd = "reserved_smem_offset_end",
        ReservedSmemOffsetCap = "reserved_smem_offset_cap",
        ReservedSmemOffset0 = "reserved_smem_offset_0", ReservedSmemOffset1 = "reserved_smem_offset_1",
        CurrentGraphExec = "current_graph_exec",
        ClusterCtarank = "cluster_ctarank", ClusterNctarank = "cluster_nctarank",
        IsExplicitCluster = "is_explicit_cluster",
    }
}

/// A special register operand.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Special {
    /// `%tid`: thread index in the block.
    Tid(Dim),
    /// `%ntid`: block size.
    Ntid(Dim),
    /// `%ctaid`: block index in the grid.
    Ctaid(Dim),
    /// `%nctaid`: grid size in blocks.
    Nctaid(Dim),
    /// `%clusterid`: cluster index in the grid.
    Clusterid(Dim),
    /// `%nclusterid`: grid size in clusters.
    Nclusterid(Dim),
    /// `%cluster_ctaid`: block index in the cluster.
    ClusterCtaid(Dim),
    /// `%cluster_nctaid`: cluster size in blocks.
    ClusterNctaid(Dim),
    /// `%envreg0` to `%envreg31`.
    Envreg(u8),
    /// `%pm0` to `%pm7`.
    Pm(u8),
    /// `%pm0_64` to `%pm7_64`.
    Pm64(u8),
    /// All others.
    Plain(Sreg),
}

impl Special {
    /// Looks up a special register by its name without `%`; a vector one comes back as [`Dim::All`].
    pub fn from_name(name: &str) -> Option<Self> {
        let numbered = |prefix: &str, suffix: &str, limit: u8| {
            let digits = name.strip_prefix(prefix)?.strip_suffix(suffix)?;
            if digits.len() > 1 && digits.starts_with('0') || !digits.bytes().all(|b| b.is_ascii_digit()) {
                return None;
            }
            digits.parse::<u8>().ok().filter(|n| *n < limit)
        };
        Some(match name {
            "tid" => Self::Tid(Dim::All),
            "ntid" => Self::Ntid(Dim::All),
            "ctaid" => Self::Ctaid(Dim::All),
            "nctaid" => Self::Nctaid(Dim::All),
            "clusterid" => Self::Clusterid(Dim::All),
            "nclusterid" => Self::Nclusterid(Dim::All),
            "cluster_ctaid" => Self::ClusterCtaid(Dim::All),
            "cluster_nctaid" => Self::ClusterNctaid(Dim::All),
            _ => {
                if let Some(plain) = Sreg::from_name(name) {
                    Self::Plain(plain)
                } else if let Some(n) = numbered("envreg", "", 32) {
                    Self::Envreg(n)
                } else if let Some(n) = numbered("pm", "_64", 8) {
                    Self::Pm64(n)
                } else {
                    Self::Pm(numbered("pm", "", 8)?)
                }
            }
        })
    }

    /// The same register narrowed to one component; `None` if it has no components.
    pub fn component(self, dim: Dim) -> Option<Self> {
        Some(match self {
            Self::Tid(_) => Self::Tid(dim),
            Self::Ntid(_) => Self::Ntid(dim),
            Self::Ctaid(_) => Self::Ctaid(dim),
            Self::Nctaid(_) => Self::Nctaid(dim),
            Self::Clusterid(_) => Self::Clusterid(dim),
            Self::Nclusterid(_) => Self::Nclusterid(dim),
            Self::ClusterCtaid(_) => Self::ClusterCtaid(dim),
            Self::ClusterNctaid(_) => Self::ClusterNctaid(dim),
            _ => return None,
        })
    }
}

impl fmt::Display for Special {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, dim) = match *self {
            Self::Tid(d) => ("tid", d),
            Self::Ntid(d) => ("ntid", d),
            Self::Ctaid(d) => ("ctaid", d),
            Self::Nctaid(d) => ("nctaid", d),
            Self::Clusterid(d) => ("clusterid", d),
            Self::Nclusterid(d) => ("nclusterid", d),
            Self::ClusterCtaid(d) => ("cluster_ctaid", d),
            Self::ClusterNctaid(d) => ("cluster_nctaid", d),
            Self::Envreg(n) => return write!(f, "%envreg{n}"),
            Self::Pm(n) => return write!(f, "%pm{n}"),
            Self::Pm64(n) => return write!(f, "%pm{n}_64"),
            Self::Plain(plain) => return write!(f, "%{plain}"),
        };
        match dim {
            Dim::All => write!(f, "%{name}"),
            dim => write!(f, "%{name}.{dim}"),
        }
    }
}
