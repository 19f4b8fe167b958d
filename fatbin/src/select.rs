//! Which image of a container a device runs, and why not the others.
//!
//! The rules are those that NVIDIA documents: machine code of the same major and no newer minor number; an `a` variant
//! on exactly its device; an `f` variant within its family; otherwise the newest PTX that is not newer than the device.
//! What is not documented is what driver 580 does on an H200 (`tests/gpu/select_check.py`): it takes the PTX of the
//! highest architecture without looking at its ISA version, and fails if it cannot compile it; among equals the first
//! one, but of PTX for exactly the device the last one; and it knows no concatenated groups.

use std::fmt;

use crate::entry::{Arch, CodeVersion, Entry, Variant};
use crate::raw::{Flags, Kind};

/// A device, as far as the choice of an image depends on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Device {
    /// Major compute capability.
    pub cc_major: u32,
    /// Minor compute capability.
    pub cc_minor: u32,
    /// False if machine code cannot run there (the CPU backend).
    pub sass: bool,
    /// Newest PTX ISA version that it compiles.
    pub max_ptx_version: CodeVersion,
    /// False if it knows no concatenated groups (drivers up to CUDA 13.0 at least).
    pub groups: bool,
}

impl Device {
    /// SM number: 90 for compute capability 9.0.
    #[must_use]
    pub const fn sm(&self) -> u32 {
        self.cc_major.saturating_mul(10).saturating_add(self.cc_minor)
    }
}

/// What the choice depends on; made from an [`Entry`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Candidate {
    /// Kind.
    pub kind: Kind,
    /// Architecture.
    pub arch: Arch,
    /// PTX ISA version or cubin ABI.
    pub version: CodeVersion,
    /// Flags.
    pub flags: Flags,
    /// True for an image in a concatenated group.
    pub grouped: bool,
}

impl From<&Entry<'_>> for Candidate {
    fn from(entry: &Entry<'_>) -> Self {
        Self {
            kind: entry.kind(),
            arch: entry.arch(),
            version: entry.code_version(),
            flags: entry.flags(),
            grouped: entry.group().is_some(),
        }
    }
}

/// What the image is wanted for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// To be loaded as it is.
    Load,
    /// To be linked with others: relocatable PTX counts too.
    Link,
}

/// Why an image was not chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Rejection {
    /// Machine code, but the device runs PTX only.
    MachineCodeUnusable {
        /// Architecture of the image.
        arch: Arch,
    },
    /// Machine code of another major number.
    OtherMajor {
        /// Architecture of the image.
        arch: Arch,
        /// SM number of the device.
        device: u32,
    },
    /// Made for a newer device.
    NewerThanDevice {
        /// Kind of the image.
        kind: Kind,
        /// Architecture of the image.
        arch: Arch,
        /// SM number of the device.
        device: u32,
    },
    /// An `a` variant of another device.
    OtherDevice {
        /// Kind of the image.
        kind: Kind,
        /// Architecture of the image.
        arch: Arch,
        /// SM number of the device.
        device: u32,
    },
    /// An `f` variant of another family.
    OtherFamily {
        /// Kind of the image.
        kind: Kind,
        /// Architecture of the image.
        arch: Arch,
        /// SM number of the device.
        device: u32,
    },
    /// PTX of a newer ISA version than the device compiles.
    PtxTooNew {
        /// ISA version of the image.
        version: CodeVersion,
        /// Newest one that the device compiles.
        max: CodeVersion,
    },
    /// In a concatenated group, which the driver does not know.
    InGroup,
    /// PTX meant for linking only.
    OnlyForLinking,
    /// 32-bit or OpenCL code.
    OtherPlatform {
        /// Flags of the image.
        flags: Flags,
    },
    /// A kind that no device loads.
    NotLoadable {
        /// Kind of the image.
        kind: Kind,
    },
    /// Usable, but another one is better.
    Outranked {
        /// Number of the chosen entry.
        by: usize,
    },
    /// Usable, but the driver takes another one, which it cannot compile.
    Shadowed {
        /// Number of that entry.
        by: usize,
    },
}

fn code(kind: Kind) -> &'static str {
    if kind.is_ptx() { "PTX" } else { "machine code" }
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::MachineCodeUnusable { arch } => {
                write!(f, "{arch} machine code, but the device is the CPU backend: only PTX runs")
            }
            Self::OtherMajor { arch, device } => write!(
                f,
                "{arch} machine code runs on devices sm_{}x only, the device is sm_{device}",
                arch.major()
            ),
            Self::NewerThanDevice { kind, arch, device } => {
                write!(f, "{} for {arch} is newer than the device sm_{device}", code(kind))
            }
            Self::OtherDevice { kind, arch, device } => write!(
                f,
                "arch-specific {arch} {} runs on sm_{} only, the device is sm_{device}",
                code(kind),
                arch.sm
            ),
            Self::OtherFamily { kind, arch, device } => {
                write!(
                    f,
                    "family-specific {arch} {}: the device sm_{device} is not in that family",
                    code(kind)
                )
            }
            Self::PtxTooNew { version, max } => {
                write!(f, "PTX ISA {version} is newer than {max}, the newest that the device compiles")
            }
            Self::InGroup => {
                f.write_str("in a concatenated group (--concat), which the driver does not know")
            }
            Self::OnlyForLinking => f.write_str("relocatable PTX: only for linking"),
            Self::OtherPlatform { flags } => write!(f, "not 64-bit CUDA code (flags: {flags})"),
            Self::NotLoadable { kind: Kind::TileIr } => {
                f.write_str("Tile IR: driver 580 loads machine code only; newer drivers were not tried")
            }
            Self::NotLoadable { kind } => write!(f, "{kind}: no image that a device loads"),
            Self::Outranked { by } => write!(f, "usable, but entry {by} fits better"),
            Self::Shadowed { by } => {
                write!(
                    f,
                    "usable, but the driver takes entry {by}, and fails because that one's PTX is too new"
                )
            }
        }
    }
}

/// The choice among the entries of one container.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Selection {
    /// Index of the chosen entry.
    pub chosen: Option<usize>,
    /// Every other entry with the reason, in order.
    pub rejected: Vec<(usize, Rejection)>,
}

impl fmt::Display for Selection {
    /// The reasons, one per line; for the message when nothing was chosen.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.rejected.is_empty() && self.chosen.is_none() {
            return f.write_str("the container holds no image");
        }
        for (n, (index, reason)) in self.rejected.iter().enumerate() {
            let newline = if n == 0 { "" } else { "\n" };
            write!(f, "{newline}entry {index}: {reason}")?;
        }
        Ok(())
    }
}

/// Chooses among the entries of one container. Machine code goes before PTX, the newer architecture before the older, the
/// `a` variant before `f` and that before none, the earlier entry before the later; but of PTX for exactly the device,
/// without variant, the later before the earlier. If the best is PTX that the device cannot compile, nothing is chosen.
pub fn select<C>(entries: impl IntoIterator<Item = C>, device: &Device, purpose: Purpose) -> Selection
where
    C: Into<Candidate>,
{
    let mut selection = Selection::default();
    let mut best: Option<(usize, Candidate)> = None;
    let mut losers = Vec::new();
    for (index, entry) in entries.into_iter().enumerate() {
        let candidate: Candidate = entry.into();
        if let Err(reason) = fits(&candidate, device, purpose) {
            selection.rejected.push((index, reason));
            continue;
        }
        match best {
            Some((_, leader)) if !beats(&candidate, &leader, device) => losers.push(index),
            _ => losers.extend(best.replace((index, candidate)).map(|(loser, _)| loser)),
        }
    }
    if let Some((by, Candidate { kind, version, .. })) = best {
        let max = device.max_ptx_version;
        let too_new = kind.is_ptx() && version > max;
        if too_new {
            selection.rejected.push((by, Rejection::PtxTooNew { version, max }));
        } else {
            selection.chosen = Some(by);
        }
        let reason = if too_new { Rejection::Shadowed { by } } else { Rejection::Outranked { by } };
        selection.rejected.extend(losers.into_iter().map(|index| (index, reason)));
    }
    selection.rejected.sort_unstable_by_key(|(index, _)| *index);
    selection
}

/// True if `candidate`, which comes later, is taken instead of `leader`.
fn beats(candidate: &Candidate, leader: &Candidate, device: &Device) -> bool {
    let rank = |c: &Candidate| (c.kind == Kind::Elf, c.arch);
    let exact = Arch { sm: device.sm(), variant: Variant::Generic };
    let last_of_equals = candidate.kind.is_ptx() && candidate.arch == exact;
    rank(candidate) > rank(leader) || (last_of_equals && rank(candidate) == rank(leader))
}

/// What to load for a version-2 wrapper.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LinkedSelection {
    /// The linked container has an image that fits.
    Linked(Selection),
    /// None fits: link the chosen image of each prelinked container.
    Link {
        /// Why nothing of the linked container fits.
        linked: Selection,
        /// The choice in each prelinked container, in order.
        ///
        /// One without a chosen image is not the end: programs built with `-rdc=true` carry NVIDIA's device runtime
        /// (libcudadevrt), which has PTX for the newest device only, and seldom use it. Link without it, and let
        /// an unresolved symbol be the error.
        prelinked: Vec<Selection>,
    },
}

/// Chooses for a version-2 wrapper: from the linked container, and if nothing there fits, from each prelinked container.
pub fn select_linked(linked: &[Entry<'_>], prelinked: &[Vec<Entry<'_>>], device: &Device) -> LinkedSelection {
    let whole = select(linked, device, Purpose::Load);
    if whole.chosen.is_some() {
        return LinkedSelection::Linked(whole);
    }
    let prelinked = prelinked.iter().map(|entries| select(entries, device, Purpose::Link)).collect();
    LinkedSelection::Link { linked: whole, prelinked }
}

fn fits(candidate: &Candidate, device: &Device, purpose: Purpose) -> Result<(), Rejection> {
    let Candidate { kind, arch, flags, grouped, .. } = *candidate;
    match kind {
        Kind::Ptx | Kind::Elf => {}
        Kind::Reloc if purpose == Purpose::Link => {}
        Kind::Reloc => return Err(Rejection::OnlyForLinking),
        _ => return Err(Rejection::NotLoadable { kind }),
    }
    if grouped && !device.groups {
        return Err(Rejection::InGroup);
    }
    if !flags.contains(Flags::BITS64) || flags.contains(Flags::OPENCL) {
        return Err(Rejection::OtherPlatform { flags });
    }
    if kind == Kind::Elf && !device.sass {
        return Err(Rejection::MachineCodeUnusable { arch });
    }
    let sm = device.sm();
    match arch.variant {
        Variant::Specific if arch.sm != sm => {
            return Err(Rejection::OtherDevice { kind, arch, device: sm });
        }
        Variant::Family if arch.major() != device.cc_major || arch.minor() > device.cc_minor => {
            return Err(Rejection::OtherFamily { kind, arch, device: sm });
        }
        Variant::Generic if arch.sm > sm => {
            return Err(Rejection::NewerThanDevice { kind, arch, device: sm });
        }
        Variant::Generic if kind == Kind::Elf && arch.major() != device.cc_major => {
            return Err(Rejection::OtherMajor { arch, device: sm });
        }
        _ => {}
    }
    Ok(())
}
