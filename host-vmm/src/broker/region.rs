//! One region: offsets in it and where their bytes are.

use std::fs::File;
use std::sync::Arc;

use protocol::broker::{Extent, RegionKind};
use vm_memory::{Bytes as _, GuestAddress};

use super::error::Error;
use crate::vmm::memory::{GuestRam, Memory};

/// A run of bytes of a region that lie together in a file of the guest's memory.
#[derive(Clone, Debug)]
pub struct Piece {
    /// Offset in the region.
    pub offset_bytes: u64,
    /// Length.
    pub len_bytes: u64,
    /// Guest-physical address.
    pub gpa: u64,
    /// The file.
    pub file: Arc<File>,
    /// Offset in the file.
    pub file_offset_bytes: u64,
}

/// Memory of a session. Its extents lie in the guest's memory: that was checked when it was made.
#[derive(Debug)]
pub struct Region {
    pub(super) epoch: u64,
    pub(super) session: u64,
    pub(super) id: u64,
    pub(super) kind: RegionKind,
    len_bytes: u64,
    /// Extents with their offsets in the region, ascending.
    extents: Vec<(u64, Extent)>,
}

impl Region {
    /// A region of `extents`, or None if one of them is not whole pages of `ram` or they do not add up to `len_bytes`.
    pub(super) fn new(
        (epoch, session, id): (u64, u64, u64),
        kind: RegionKind,
        len_bytes: u64,
        extents: &[Extent],
        ram: &GuestRam,
    ) -> Option<Region> {
        let mut at = 0u64;
        let mut placed = Vec::with_capacity(extents.len());
        for &extent in extents {
            if !in_ram(ram, extent) {
                return None;
            }
            placed.push((at, extent));
            at = at.checked_add(extent.len)?;
        }
        (at == len_bytes && at != 0).then_some(Region {
            epoch,
            session,
            id,
            kind,
            len_bytes,
            extents: placed,
        })
    }

    /// Length in bytes.
    pub fn len_bytes(&self) -> u64 {
        self.len_bytes
    }

    /// The kind of memory.
    pub fn kind(&self) -> RegionKind {
        self.kind
    }

    /// How many extents it has.
    pub fn extent_count(&self) -> usize {
        self.extents.len()
    }

    pub(super) fn extents(&self) -> impl Iterator<Item = Extent> + '_ {
        self.extents.iter().map(|&(_, extent)| extent)
    }

    /// The parts of extents that `len_bytes` at `offset_bytes` lie in: offset in the region, guest-physical address, length.
    ///
    /// # Errors
    /// [`Error::Range`].
    pub fn parts(
        &self,
        offset_bytes: u64,
        len_bytes: u64,
    ) -> Result<impl Iterator<Item = (u64, u64, u64)> + '_, Error> {
        let end = offset_bytes.checked_add(len_bytes).filter(|end| *end <= self.len_bytes);
        let Some(end) = end else {
            return Err(Error::Range { offset_bytes, len_bytes, region_bytes: self.len_bytes });
        };
        let first = self.extents.partition_point(|(at, extent)| at + extent.len <= offset_bytes);
        Ok(self.extents[first..].iter().take_while(move |(at, _)| *at < end).filter_map(
            move |(at, extent)| {
                let from = offset_bytes.max(*at);
                let len = (at + extent.len).min(end) - from;
                (len != 0).then_some((from, extent.gpa + (from - at), len))
            },
        ))
    }

    /// Where `len_bytes` at `offset_bytes` lie in the files of the guest's memory; what lies together there comes as one piece.
    ///
    /// # Errors
    /// [`Error::Range`]; [`Error::Access`] if `ram` is not the memory that the region was made with.
    pub fn pieces(&self, ram: &GuestRam, offset_bytes: u64, len_bytes: u64) -> Result<Vec<Piece>, Error> {
        let mut pieces: Vec<Piece> = Vec::new();
        for (mut offset, mut gpa, mut len) in self.parts(offset_bytes, len_bytes)? {
            // An extent may go on from one range of the guest's memory into the next.
            while len != 0 {
                let range = ram
                    .regions
                    .iter()
                    .find(|range| gpa.checked_sub(range.gpa).is_some_and(|inside| inside < range.len_bytes));
                let Some(range) = range else { return Err(Error::Access(gpa)) };
                let inside = gpa - range.gpa;
                let part = len.min(range.len_bytes - inside);
                let at = range.offset_bytes + inside;
                match pieces.last_mut() {
                    Some(last)
                        if Arc::ptr_eq(&last.file, &range.file)
                            && last.file_offset_bytes + last.len_bytes == at
                            && last.gpa + last.len_bytes == gpa =>
                    {
                        last.len_bytes += part;
                    }
                    _ => pieces.push(Piece {
                        offset_bytes: offset,
                        len_bytes: part,
                        gpa,
                        file: Arc::clone(&range.file),
                        file_offset_bytes: at,
                    }),
                }
                (offset, gpa, len) = (offset + part, gpa + part, len - part);
            }
        }
        Ok(pieces)
    }

    /// Reads from the region into `into`.
    ///
    /// # Errors
    /// [`Error::Range`] and [`Error::Access`].
    pub fn read(&self, memory: &Memory, offset_bytes: u64, into: &mut [u8]) -> Result<(), Error> {
        let mut rest = into;
        for (_, gpa, len) in self.parts(offset_bytes, rest.len() as u64)? {
            let (now, later) = rest.split_at_mut(len as usize);
            memory.read_slice(now, GuestAddress(gpa)).map_err(|_| Error::Access(gpa))?;
            rest = later;
        }
        Ok(())
    }

    /// Writes `from` into the region.
    ///
    /// # Errors
    /// [`Error::Range`] and [`Error::Access`].
    pub fn write(&self, memory: &Memory, offset_bytes: u64, from: &[u8]) -> Result<(), Error> {
        let mut rest = from;
        for (_, gpa, len) in self.parts(offset_bytes, rest.len() as u64)? {
            let (now, later) = rest.split_at(len as usize);
            memory.write_slice(now, GuestAddress(gpa)).map_err(|_| Error::Access(gpa))?;
            rest = later;
        }
        Ok(())
    }
}

/// Whether an extent is whole pages of the guest's memory, maybe of several ranges that follow each other.
pub(super) fn in_ram(ram: &GuestRam, extent: Extent) -> bool {
    let Some(end) = extent.end() else { return false };
    let mut at = extent.gpa;
    // Ranges ascend and do not overlap.
    for range in &ram.regions {
        if at < range.gpa {
            return false;
        }
        if at - range.gpa < range.len_bytes {
            at = range.gpa + range.len_bytes;
            if at >= end {
                return true;
            }
        }
    }
    false
}
