//! Window memory that kernels reach at another address as well: that of memory which the program has registered.
//!
//! Program and worker share its pages: those of the window, which the program has put in the place of its own, or in a virtual machine the program's own, which its broker has pinned and the worker has
//! mapped in the window. Natively a device reaches registered memory at the program's address, so the worker maps the same pages there, if nothing of its own is in the way but what keeps the driver away ([`super::space`]), and
//! registers that mapping with the driver.
#![allow(unsafe_code)] // Calls the driver.

use std::collections::HashMap;
use std::ops::Range;
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::{Mutex, PoisonError};

use protocol::status::{CuResult, Status};
use transport::Reservation;

use super::CudaBackend;
use super::buffer::pointer;
use super::memory::{Allocation, Hints, Kind};
use super::space::Space;
use super::staging::REGISTER;
use crate::worker::guest_memory::{Ground, Run};
use crate::worker::window::{Adopted, PAGE};

/// Each piece is a mapping, of which a process has 65530 by default, and the window has its own of the same pages.
const MAX_PIECES: usize = 8 << 10;

/// A mapping at an address that the program has chosen.
struct Mapping {
    range: Range<u64>,
    runs: Vec<Run>,
    ground: Ground,
    /// The addresses are some that were taken away from the driver; otherwise they were free.
    claimed: bool,
}

impl Mapping {
    /// Maps pieces of files one after the other, if nothing is mapped at these addresses but what keeps the driver away.
    fn new(space: &Space, address: u64, len: u64, files: &[OwnedFd], runs: &[Run]) -> Option<Self> {
        let range = address..address.checked_add(len)?;
        if runs.len() > MAX_PIECES {
            return None;
        }
        let (reservation, claimed) = match Reservation::new(address, len) {
            Ok(free) => (free, false),
            // SAFETY: claimed: an inaccessible mapping, and nobody else's now.
            Err(_) if space.claim(range.clone()) => (unsafe { Reservation::of(address, len) }, true),
            Err(_) => return None,
        };
        let mapping = Self { range, runs: runs.to_vec(), ground: Ground::Reserved(reservation), claimed };
        match mapping.ground.map(address, files, runs) {
            Ok(()) => Some(mapping),
            Err(error) => {
                tracing::debug!(%error, "an alias");
                mapping.end(space);
                None
            }
        }
    }

    /// Ends it. The driver does not have it any more.
    fn end(self, space: &Space) {
        if !self.claimed {
            return;
        }
        // As it was: whatever becomes free, the driver may take.
        let all = self.ground.unmap(self.range.start, &self.runs);
        if let Ground::Reserved(reservation) = self.ground {
            reservation.leak();
        }
        if all {
            space.give_back(&self.range);
        }
    }
}

/// The mappings of a session, by the address in the window.
#[derive(Default)]
pub struct Aliases(Mutex<HashMap<u64, Mapping>>);

impl Aliases {
    /// Whether `len` bytes at an address are one of them.
    pub fn contain(&self, address: u64, len: u64) -> bool {
        let mappings = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        mappings.values().any(|Mapping { range, .. }| {
            range.contains(&address) && address.checked_add(len).is_some_and(|end| end <= range.end)
        })
    }
}

fn check(address: u64, len: u64) -> CuResult {
    let whole = address != 0 && len != 0 && (address | len).is_multiple_of(PAGE);
    if whole { Ok(()) } else { Err(Status::INVALID_VALUE) }
}

impl CudaBackend {
    /// Gives `len` bytes of the window to registered memory at `address` in the program. Returns their place in the window, and whether kernels reach them at `address`.
    ///
    /// # Errors
    /// INVALID_VALUE for what is not whole pages, NOT_SUPPORTED without a memfd that the program has, OUT_OF_MEMORY, those of the driver.
    pub fn registered_map(&self, address: u64, len: u64, flags: u32) -> CuResult<(u64, bool)> {
        check(address, len)?;
        let window = &self.session.window;
        let file = window.file_to_share().ok_or(Status::NOT_SUPPORTED)?;
        // It does not go with a context: the program's own bytes are there.
        let base = self.window_alloc_in(0, Kind::Registered, len, flags)?;
        let run = window.offset(base).map(|offset| Run { file: 0, offset, len });
        let aliased = match (file.as_fd().try_clone_to_owned(), run) {
            (Ok(file), Some(run)) => self.alias(base, address, len, &[file], &[run]),
            _ => false,
        };
        Ok((base, aliased))
    }

    /// The same for registered memory whose pages are a region of `len` bytes, pinned where they are.
    ///
    /// # Errors
    /// As [`CudaBackend::registered_map`], and INVALID_VALUE for a region that there is not.
    pub fn registered_lend(&self, address: u64, region: u64, len: u64, flags: u32) -> CuResult<(u64, bool)> {
        check(address, len)?;
        let device = self.current_device()?;
        let window = &self.session.window;
        let Adopted { base, files, runs } = window.adopt(region, len)?;
        if let Err(status) = self.window_register(base, len) {
            window.free(base);
            return Err(status);
        }
        let (kind, hints) = (Kind::Registered, Hints::default());
        self.memory.insert(Allocation { base, len, kind, flags, context: 0, device, number: 0, hints });
        Ok((base, self.alias(base, address, len, &files, &runs)))
    }

    /// Lets kernels reach what is in the window at `base` at another address, too; whether they do.
    fn alias(&self, base: u64, address: u64, len: u64, files: &[OwnedFd], runs: &[Run]) -> bool {
        let Some(mapping) = Mapping::new(&self.space, address, len, files, runs) else {
            tracing::info!(
                address = %format_args!("{address:#x}"),
                len,
                pieces = runs.len(),
                "registered memory has another address on the device: the worker has something there, or it is in too many pieces"
            );
            return false;
        };
        // SAFETY: mapped until the registration has ended, in `registered_unmap` or with the process.
        if let Err(status) = unsafe { self.raw().cuMemHostRegister_v2(pointer(address), len, REGISTER) } {
            tracing::info!(error = status.0, len, "registered memory has another address on the device");
            mapping.end(&self.space);
            return false;
        }
        self.aliases.0.lock().unwrap_or_else(PoisonError::into_inner).insert(base, mapping);
        true
    }

    /// Ends the device's reach of what [`CudaBackend::registered_map`] has given, after the work that may use it.
    ///
    /// # Errors
    /// INVALID_VALUE if nothing of the kind begins there; those of the driver.
    pub fn registered_release(&self, base: u64) -> CuResult {
        let is_it = |found: Allocation| found.base == base && found.kind == Kind::Registered;
        if !self.memory.find(base).is_some_and(is_it) {
            return Err(Status::INVALID_VALUE);
        }
        // SAFETY: takes nothing.
        unsafe { self.raw().cuCtxSynchronize() }?;
        self.end_alias(base);
        // SAFETY: registered when it was allocated in the window, which is mapped for the life of the process.
        unsafe { self.raw().cuMemHostUnregister(pointer(base)) }
    }

    /// Takes back what [`CudaBackend::registered_map`] or [`CudaBackend::registered_lend`] has given.
    ///
    /// # Errors
    /// As [`CudaBackend::window_free`].
    pub fn registered_unmap(&self, base: u64) -> CuResult {
        self.end_alias(base);
        match self.window_free(base, Kind::Registered) {
            // It has been released.
            Err(Status::HOST_MEMORY_NOT_REGISTERED) => Ok(()),
            result => result,
        }
    }

    fn end_alias(&self, base: u64) {
        let mapping = self.aliases.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&base);
        if let Some(mapping) = mapping {
            // SAFETY: registered in `alias`, and taken out of the table by this call alone. What its context took along is refused.
            let _ = unsafe { self.raw().cuMemHostUnregister(pointer(mapping.range.start)) };
            mapping.end(&self.space);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use transport::{Placement, Window, WindowFile};

    /// With nothing taken away.
    fn nowhere() -> Space {
        Space::of(Vec::new())
    }

    #[test]
    #[expect(clippy::single_range_in_vec_init, reason = "a list of one range is meant")]
    fn pages_are_mapped_where_nothing_is_and_nowhere_else() {
        let window = |len| Window::map(WindowFile::create(len).unwrap(), Placement::Anywhere, false).unwrap();
        let (probe, taken, shared) = (window(1 << 20), window(1 << 20), window(1 << 20));
        let files = [shared.file().unwrap().as_fd().try_clone_to_owned().unwrap()];
        // A free address: that of a mapping that has gone.
        let address = probe.address();
        drop(probe);
        let runs = [Run { file: 0, offset: 8192, len: 4096 }, Run { file: 0, offset: 4096, len: 4096 }];
        let one = [Run { file: 0, offset: 0, len: 4096 }];
        let mapping = Mapping::new(&nowhere(), address, 8192, &files, &runs).unwrap();
        for taken in [address + 4096, taken.address()] {
            assert!(Mapping::new(&nowhere(), taken, 4096, &files, &one).is_none());
        }
        assert!(Mapping::new(&nowhere(), address + (1 << 19), 4096, &[], &one).is_none(), "no such file");
        // SAFETY: just mapped, readable and writable.
        unsafe { ((address + 4096) as *mut u64).write_volatile(77) };
        let mut word = [0; 8];
        shared.copy_out(4096, &mut word).unwrap();
        assert_eq!(u64::from_ne_bytes(word), 77);
        mapping.end(&nowhere());

        // Where the driver is kept away, which stays so.
        let away = Reservation::new(address, 1 << 20).unwrap();
        assert!(Mapping::new(&nowhere(), address, 4096, &files, &one).is_none());
        let space = Space::of(vec![address..address + (1 << 20)]);
        for _ in 0..2 {
            let mapping = Mapping::new(&space, address, 8192, &files, &runs).unwrap();
            assert!(Mapping::new(&space, address + 4096, 4096, &files, &one).is_none());
            // SAFETY: just mapped.
            assert_eq!(unsafe { ((address + 4096) as *const u64).read_volatile() }, 77);
            mapping.end(&space);
            assert!(Reservation::new(address, 4096).is_err(), "not free");
        }
        drop(away);
    }
}
