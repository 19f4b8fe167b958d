//! Which image of a container a device runs, and why not the others.
//!
//! The rules are those that NVIDIA documents: machine code of the same major and no newer minor number; an `a` variant
//! on exactly its device; an `f` variant within its family; otherwise the newest PTX that is not newer than the device.

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
}

impl From<&Entry<'_>> for Candidate {
    fn from(entry: &Entry<'_>) -> Self {
        Self { kind: entry.kind(), arch: entry.arch(), version: entry.code_version(), flags: entry.flags() }
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
            Self::OnlyForLinking => f.write_str("relocatable PTX: only for linking"),
            Self::OtherPlatform { flags } => write!(f, "not 64-bit CUDA code (flags: {flags})"),
            Self::NotLoadable { kind } => write!(f, "{kind}: no image that a device loads"),
            Self::Outranked { by } => write!(f, "usable, but entry {by} fits better"),
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

/// Chooses among the entries of one container. Machine code goes before PTX, the newer architecture before the
/// older, the narrower variant before the wider, the earlier entry before the later.
pub fn select<C>(entries: impl IntoIterator<Item = C>, device: &Device, purpose: Purpose) -> Selection
where
    C: Into<Candidate>,
{
    let mut selection = Selection::default();
    let mut best: Option<(usize, (bool, Arch))> = None;
    for (index, entry) in entries.into_iter().enumerate() {
        let candidate: Candidate = entry.into();
        if let Err(reason) = fits(&candidate, device, purpose) {
            selection.rejected.push((index, reason));
            continue;
        }
        let rank = (candidate.kind == Kind::Elf, candidate.arch);
        let loser = match best {
            Some((by, best_rank)) if best_rank >= rank => Some((index, by)),
            Some((loser, _)) => {
                best = Some((index, rank));
                Some((loser, index))
            }
            None => {
                best = Some((index, rank));
                None
            }
        };
        if let Some((loser, by)) = loser {
            selection.rejected.push((loser, Rejection::Outranked { by }));
        }
    }
    selection.chosen = best.map(|(index, _)| index);
    for (_, reason) in &mut selection.rejected {
        // A candidate may have lost to one that lost itself later.
        if let (Rejection::Outranked { by }, Some(chosen)) = (reason, selection.chosen) {
            *by = chosen;
        }
    }
    selection.rejected.sort_unstable_by_key(|(index, _)| *index);
    selection
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
    let Candidate { kind, arch, version, flags } = *candidate;
    match kind {
        Kind::Ptx | Kind::Elf => {}
        Kind::Reloc if purpose == Purpose::Link => {}
        Kind::Reloc => return Err(Rejection::OnlyForLinking),
        _ => return Err(Rejection::NotLoadable { kind }),
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
    if kind.is_ptx() && version > device.max_ptx_version {
        return Err(Rejection::PtxTooNew { version, max: device.max_ptx_version });
    }
    Ok(())
}
