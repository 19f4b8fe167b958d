//! Ranges of the program's own memory that it has registered with `cuMemHostRegister`.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock};

use guest_device::Pinned;
use protocol::status::{CuResult, Status};

use crate::areas::{Area, Areas};
use crate::reach::{self, Reached};

/// What is known of a range.
#[derive(Clone, Copy, Debug)]
struct Entry {
    /// Bytes.
    len: usize,
    flags: u32,
    /// Where the device reaches it; `None` while nobody has asked, or if it cannot.
    reached: Option<Reached>,
    /// The device cannot be made to reach it.
    refused: bool,
}

/// The ranges, by their starts.
#[derive(Default)]
pub struct Registered {
    ranges: RwLock<BTreeMap<usize, Entry>>,
    /// Programs without any pay a load per launch.
    count: AtomicUsize,
    /// Ranges that the device reaches: programs without any pay a load per copy.
    reached: AtomicUsize,
    /// A launch was given an address of one.
    used: AtomicBool,
    /// Held while a range is made reachable or ceases to be; before `ranges`.
    kept: Mutex<Kept>,
}

/// What is kept for ranges that the device reaches.
#[derive(Default)]
struct Kept {
    /// Pages that are pinned, by the ranges' starts.
    pinned: HashMap<usize, Pinned>,
    /// Pages that are replaced.
    areas: Areas,
}

impl Registered {
    /// HOST_MEMORY_ALREADY_REGISTERED when the range touches another, INVALID_VALUE when it wraps around.
    pub fn insert(&self, start: usize, len: usize, flags: u32) -> CuResult {
        let end = start.checked_add(len).ok_or(Status::INVALID_VALUE)?;
        let mut ranges = self.ranges.write().unwrap_or_else(PoisonError::into_inner);
        if ranges.range(..end).next_back().is_some_and(|(other, entry)| other + entry.len > start) {
            return Err(Status::HOST_MEMORY_ALREADY_REGISTERED);
        }
        ranges.insert(start, Entry { len, flags, reached: None, refused: false });
        self.count.fetch_add(1, Ordering::Release);
        Ok(())
    }

    /// INVALID_VALUE for an address inside a range, HOST_MEMORY_NOT_REGISTERED for one outside of all.
    pub fn remove(&self, start: usize) -> CuResult {
        let mut kept = self.kept();
        let removed = self.ranges.write().unwrap_or_else(PoisonError::into_inner).remove(&start);
        let Some(entry) = removed else {
            let inside = self.find(start).is_some();
            return Err(if inside { Status::INVALID_VALUE } else { Status::HOST_MEMORY_NOT_REGISTERED });
        };
        self.count.fetch_sub(1, Ordering::Release);
        let Some(reached) = entry.reached else { return Ok(()) };
        self.reached.fetch_sub(1, Ordering::Release);
        let Kept { pinned, areas } = &mut *kept;
        reach::part(&(start..start + entry.len), reached, pinned.remove(&start), areas)
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Pages of the program that those of the window have replaced.
    pub fn replaced(&self) -> Vec<Area> {
        if self.reached.load(Ordering::Acquire) == 0 { Vec::new() } else { self.kept().areas.all() }
    }

    /// Whether kernels have been given registered memory of this program, so that they are likely to be given more of it, or to find its address in what they read.
    pub fn used(&self) -> bool {
        self.used.load(Ordering::Relaxed)
    }

    /// Lets the kernel that gets these parameters reach the registered memory that they point to, and all that is registered beside it, since addresses may be in memory, too. Where the device has
    /// it at another address than the program, that takes the place of the program's.
    #[inline]
    pub fn show(&self, params: &mut [u8]) {
        if self.count.load(Ordering::Acquire) != 0 && self.translate(params) {
            self.reach_all();
            self.translate(params);
        }
    }

    /// Returns whether there is an address of a range that the device does not reach, and has not been asked to.
    fn translate(&self, params: &mut [u8]) -> bool {
        let ranges = self.ranges.read().unwrap_or_else(PoisonError::into_inner);
        let mut open = false;
        for word in params.as_chunks_mut::<8>().0 {
            let address = u64::from_ne_bytes(*word) as usize;
            let Some((start, entry)) = ranges.range(..=address).next_back() else { continue };
            // The end is an address of the range, too: loops compare with it.
            if address - start > entry.len {
                continue;
            }
            match entry.reached {
                Some(Reached { aliased: false, window: Some(window), .. }) => {
                    *word = (window + (address - start) as u64).to_ne_bytes();
                }
                Some(_) => {}
                None => open |= !entry.refused,
            }
        }
        open
    }

    #[cold]
    fn reach_all(&self) {
        self.used.store(true, Ordering::Relaxed);
        let ranges = self.ranges.read().unwrap_or_else(PoisonError::into_inner);
        let starts: Vec<usize> = ranges.keys().copied().collect();
        drop(ranges);
        for start in starts {
            // What cannot be reached is said in the log; the kernel may not want it.
            let _ = self.device_address(start);
        }
    }

    /// The range that an address lies in.
    fn find(&self, address: usize) -> Option<(usize, Entry)> {
        let ranges = self.ranges.read().unwrap_or_else(PoisonError::into_inner);
        let (start, entry) = ranges.range(..=address).next_back()?;
        (address - start < entry.len).then_some((*start, *entry))
    }

    /// The range that an address lies in.
    pub fn range(&self, address: usize) -> Option<Range<usize>> {
        self.find(address).map(|(start, entry)| start..start + entry.len)
    }

    /// Flags of the range that an address lies in.
    pub fn flags(&self, address: usize) -> Option<u32> {
        self.find(address).map(|(_, entry)| entry.flags)
    }

    /// Where the device reaches a registered address, from now on if it does not yet.
    ///
    /// # Errors
    /// INVALID_VALUE for an address that is not registered; those of [`reach::reach`].
    pub fn device_address(&self, address: usize) -> Result<u64, Status> {
        let mut kept = self.kept();
        let (start, entry) = self.find(address).ok_or(Status::INVALID_VALUE)?;
        let reached = match entry.reached {
            Some(reached) => reached,
            None if entry.refused => return Err(Status::NOT_SUPPORTED),
            None => {
                let reached = reach::reach(start..start + entry.len, entry.flags, &mut kept.areas);
                let mut ranges = self.ranges.write().unwrap_or_else(PoisonError::into_inner);
                if let Some(entry) = ranges.get_mut(&start) {
                    entry.reached = reached.as_ref().ok().map(|(reached, _)| *reached);
                    entry.refused = reached.is_err();
                }
                let (reached, pinned) = reached?;
                kept.pinned.extend(pinned.map(|pinned| (start, pinned)));
                self.reached.fetch_add(1, Ordering::Release);
                reached
            }
        };
        match reached.window {
            Some(window) if !reached.aliased => Ok(window + (address - start) as u64),
            _ => Ok(address as u64),
        }
    }

    /// Where in the window a registered address is, if the device reaches it and all of its range is there in one piece.
    #[inline]
    pub fn place(&self, address: usize) -> Option<u64> {
        if self.reached.load(Ordering::Acquire) == 0 {
            return None;
        }
        let (start, entry) = self.find(address)?;
        Some(entry.reached?.window? + (address - start) as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_do_not_overlap() {
        let registered = Registered::default();
        registered.insert(1000, 100, 1).unwrap();
        for (start, len) in [(1000, 1), (950, 51), (1099, 10), (900, 1000)] {
            assert_eq!(registered.insert(start, len, 0), Err(Status::HOST_MEMORY_ALREADY_REGISTERED));
        }
        registered.insert(1100, 10, 2).unwrap();
        registered.insert(900, 100, 3).unwrap();
        assert_eq!(registered.flags(999), Some(3));
        assert_eq!(registered.flags(1000), Some(1));
        assert_eq!(registered.flags(1110), None);
        assert_eq!(registered.insert(usize::MAX, 2, 0), Err(Status::INVALID_VALUE));
        assert_eq!(registered.remove(1001), Err(Status::INVALID_VALUE));
        assert_eq!(registered.remove(1110), Err(Status::HOST_MEMORY_NOT_REGISTERED));
        assert_eq!(registered.range(1099), Some(1000..1100));
        registered.remove(1000).unwrap();
        assert_eq!(registered.flags(1000), None);
    }

    fn with(reached: Option<Reached>, refused: bool) -> Registered {
        let registered = Registered::default();
        registered.insert(0x10_0010, 0x100, 0).unwrap();
        let mut ranges = registered.ranges.write().unwrap();
        let entry = ranges.get_mut(&0x10_0010).unwrap();
        (entry.reached, entry.refused) = (reached, refused);
        drop(ranges);
        registered
    }

    /// What becomes of parameters, and whether something in them is still to be reached.
    fn translated(registered: &Registered, params: &[u64]) -> (Vec<u64>, bool) {
        let mut bytes: Vec<u8> = params.iter().flat_map(|word| word.to_ne_bytes()).collect();
        // A shorter parameter at the end.
        bytes.extend([1, 2, 3, 4]);
        let open = registered.translate(&mut bytes);
        assert_eq!(bytes[params.len() * 8..], [1, 2, 3, 4]);
        (bytes.as_chunks::<8>().0.iter().map(|word| u64::from_ne_bytes(*word)).collect(), open)
    }

    #[test]
    fn kernels_get_addresses_that_the_device_has() {
        let params = [0, 0x10_000f, 0x10_0010, 0x10_0050, 0x10_0110, 0x10_0111, u64::MAX];
        let (unchanged, elsewhere) =
            (params.to_vec(), vec![0, 0x10_000f, 0x7010, 0x7050, 0x7110, 0x10_0111, u64::MAX]);
        let reached =
            |aliased| Some(Reached { window: Some(0x7010), aliased, replaced: Some((0x10_0000, 0x10_1000)) });
        let in_pieces = Some(Reached { window: None, aliased: true, replaced: Some((0x10_0000, 0x10_1000)) });
        for (reached, refused, expected) in [
            (None, false, (&unchanged, true)),
            (None, true, (&unchanged, false)),
            (reached(true), false, (&unchanged, false)),
            (in_pieces, false, (&unchanged, false)),
            (reached(false), false, (&elsewhere, false)),
        ] {
            let (found, open) = translated(&with(reached, refused), &params);
            assert_eq!((&found, open), expected);
        }
        assert_eq!(translated(&Registered::default(), &params), (unchanged.clone(), false));
        assert!(!translated(&with(None, false), &[0x10_0111]).1);
    }
}
