//! What the handle table cannot hold: objects that are numbers in the program, memory without addresses, and parts of devices.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use protocol::status::{CuResult, Status};

use super::CudaBackend;
use super::exchange::Exchange;
use crate::generated::cuda_raw::Kind;

fn lock<T>(state: &Mutex<T>) -> MutexGuard<'_, T> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Texture and surface objects: the driver's own numbers, which it would not check.
#[derive(Default)]
pub struct Numbers(Mutex<HashSet<u64>>);

impl Numbers {
    pub fn enter(&self, number: u64) {
        lock(&self.0).insert(number);
    }

    /// # Errors
    /// INVALID_VALUE for a number that stands for nothing.
    pub fn check(&self, number: u64) -> CuResult {
        if lock(&self.0).contains(&number) { Ok(()) } else { Err(Status::INVALID_VALUE) }
    }

    /// Takes a number out before the driver ends its object; false if another call has done so.
    pub fn leave(&self, number: u64) -> bool {
        lock(&self.0).remove(&number)
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        lock(&self.0).len()
    }
}

/// Memory without an address of its own.
#[derive(Clone, Copy, Debug)]
struct Block {
    /// Bytes that count against the session's limit.
    len: u64,
    handles: u32,
    mappings: u32,
}

#[derive(Default)]
struct Blocks {
    numbers: u64,
    blocks: HashMap<u64, Block>,
    /// Number of the block behind each of the driver's handles.
    by_handle: HashMap<u64, u64>,
    /// Length and block of each mapping, by address.
    mapped: BTreeMap<u64, (u64, u64)>,
}

impl Blocks {
    /// Forgets a block that has neither handle nor mapping; returns the bytes that are free then.
    fn settle(&mut self, number: u64) -> u64 {
        match self.blocks.get(&number) {
            Some(block) if block.handles == 0 && block.mappings == 0 => {
                self.blocks.remove(&number).map_or(0, |block| block.len)
            }
            _ => 0,
        }
    }
}

/// Memory of `cuMemCreate`: it lives as long as it has a handle or a mapping.
#[derive(Default)]
pub struct Allocations(Mutex<Blocks>);

impl Allocations {
    /// Enters what a handle stands for, or one more reference to it. `len` is 0 for what counts elsewhere.
    pub fn enter(&self, handle: u64, len: u64) {
        let mut state = lock(&self.0);
        if let Some(number) = state.by_handle.get(&handle).copied() {
            if let Some(block) = state.blocks.get_mut(&number) {
                block.handles += 1;
            }
            return;
        }
        state.numbers += 1;
        let number = state.numbers;
        state.blocks.insert(number, Block { len, handles: 1, mappings: 0 });
        state.by_handle.insert(handle, number);
    }

    /// Enters a handle for what is mapped at an address.
    pub fn enter_mapped(&self, handle: u64, address: u64) {
        let mut state = lock(&self.0);
        let found =
            state.mapped.range(..=address).next_back().map(|(base, (len, number))| (*base, *len, *number));
        if !state.by_handle.contains_key(&handle)
            && let Some((base, len, number)) = found
            && address - base < len
        {
            state.by_handle.insert(handle, number);
        }
        drop(state);
        self.enter(handle, 0);
    }

    /// The block behind a handle that is about to be released, for [`Allocations::released`], and whether this is the handle's last release: then it stands
    /// for nothing from here on, because the driver may give it to other memory.
    pub fn releasing(&self, handle: u64) -> (u64, bool) {
        let mut state = lock(&self.0);
        let number = state.by_handle.get(&handle).copied().unwrap_or(0);
        let last = state.blocks.get(&number).is_none_or(|block| block.handles <= 1);
        if last {
            state.by_handle.remove(&handle);
        }
        (number, last)
    }

    /// The release has failed.
    pub fn not_released(&self, handle: u64, number: u64) {
        let mut state = lock(&self.0);
        if state.blocks.contains_key(&number) {
            state.by_handle.insert(handle, number);
        }
    }

    /// A handle has been released; returns the bytes that are free then.
    pub fn released(&self, number: u64) -> u64 {
        let mut state = lock(&self.0);
        if let Some(block) = state.blocks.get_mut(&number) {
            block.handles = block.handles.saturating_sub(1);
        }
        state.settle(number)
    }

    pub fn mapped(&self, address: u64, len: u64, handle: u64) {
        let mut state = lock(&self.0);
        let Some(number) = state.by_handle.get(&handle).copied() else { return };
        if let Some(block) = state.blocks.get_mut(&number) {
            block.mappings += 1;
        }
        state.mapped.insert(address, (len, number));
    }

    /// The mappings of a range have ended; returns the bytes that are free then.
    pub fn unmapped(&self, address: u64, len: u64) -> u64 {
        let mut state = lock(&self.0);
        let ended: Vec<(u64, u64)> = state
            .mapped
            .range(address..address.saturating_add(len))
            .map(|(base, (_, number))| (*base, *number))
            .collect();
        let mut free = 0;
        for (base, number) in ended {
            state.mapped.remove(&base);
            if let Some(block) = state.blocks.get_mut(&number) {
                block.mappings = block.mappings.saturating_sub(1);
            }
            free += state.settle(number);
        }
        free
    }
}

/// Arrays, by their handles of the driver: context and bytes.
#[derive(Default)]
pub struct Arrays(Mutex<HashMap<(Kind, u64), (u64, u64)>>);

impl Arrays {
    pub fn enter(&self, array: (Kind, u64), context: u64, len: u64) {
        lock(&self.0).insert(array, (context, len));
    }

    /// Takes an array out: its context and bytes.
    pub fn leave(&self, array: (Kind, u64)) -> Option<(u64, u64)> {
        lock(&self.0).remove(&array)
    }

    /// Takes the arrays of a context out; returns their bytes.
    pub fn remove_context(&self, context: u64) -> u64 {
        let mut len = 0;
        lock(&self.0).retain(|_, (of, bytes)| {
            if *of == context {
                len += *bytes;
            }
            *of != context
        });
        len
    }
}

/// Bytes of a CUdevResource.
pub const RESOURCE_LEN: usize = 144;
/// Its private part.
const PRIVATE: std::ops::Range<usize> = 4..96;
/// Where the id of the private part is in what the program has.
const ID: usize = 8;
/// Pointer to the next resource.
const NEXT: std::ops::Range<usize> = 136..144;

/// More than any program splits its devices into.
const MAX_RESOURCES: usize = 4096;

/// Parts of devices as the driver describes them. Their private part is for it alone: a program that forged one would have the driver follow it.
#[derive(Default)]
pub struct Resources(Mutex<Vec<[u8; RESOURCE_LEN]>>);

impl Resources {
    /// Enters a resource of the driver and makes it what the program is to see.
    ///
    /// # Errors
    /// OUT_OF_MEMORY when there are too many.
    pub fn outward(&self, bytes: &mut [u8]) -> CuResult {
        let whole: [u8; RESOURCE_LEN] = (&*bytes).try_into().map_err(|_| Status::UNKNOWN)?;
        let mut known = lock(&self.0);
        let index = match known.iter().position(|other| *other == whole) {
            Some(index) => index,
            None if known.len() < MAX_RESOURCES => {
                known.push(whole);
                known.len() - 1
            }
            None => return Err(Status::OUT_OF_MEMORY),
        };
        bytes[PRIVATE].fill(0);
        bytes[NEXT].fill(0);
        bytes[ID..ID + 8].copy_from_slice(&(index as u64 + 1).to_le_bytes());
        Ok(())
    }

    /// Replaces what the program has by the driver's resource.
    ///
    /// # Errors
    /// INVALID_VALUE for what was never given to the program.
    pub fn inward(&self, bytes: &mut [u8]) -> CuResult {
        let id = super::buffer::word(bytes, ID);
        let known = lock(&self.0);
        let index = usize::try_from(id).ok().and_then(|id| id.checked_sub(1));
        let whole = index.and_then(|index| known.get(index)).ok_or(Status::INVALID_VALUE)?;
        if bytes.len() != RESOURCE_LEN {
            return Err(Status::INVALID_VALUE);
        }
        bytes.copy_from_slice(whole);
        Ok(())
    }
}

/// All of them.
#[derive(Default)]
pub struct Objects {
    pub textures: Numbers,
    pub surfaces: Numbers,
    pub allocations: Allocations,
    pub arrays: Arrays,
    pub resources: Resources,
    pub exchange: Exchange,
}

impl CudaBackend {
    /// Whether the program can know `len` bytes that the driver has put at an address; if not, they have to be given back.
    pub fn known_to_program(&self, address: u64, len: u64) -> bool {
        if self.space.has_home() {
            self.space.learn(address, len);
        }
        if address == 0 || self.space.contains(address) {
            return true;
        }
        tracing::error!(address = %format_args!("{address:#x}"), len, "the driver's memory lies where the program does not expect it");
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_lives_as_long_as_its_last_handle_or_mapping() {
        let allocations = Allocations::default();
        allocations.enter(0x10, 100);
        allocations.mapped(0x1000, 50, 0x10);
        allocations.mapped(0x1032, 50, 0x10);
        let (number, last) = allocations.releasing(0x10);
        assert!(last);
        assert_eq!(allocations.released(number), 0, "it is mapped");
        // The driver gives the handle to other memory.
        allocations.enter(0x10, 7);
        assert_eq!(allocations.unmapped(0x1000, 50), 0);
        // A handle for what is still mapped.
        allocations.enter_mapped(0x20, 0x1040);
        assert_eq!(allocations.unmapped(0x1032, 50), 0, "it has a handle");
        let (number, last) = allocations.releasing(0x20);
        assert!(last);
        assert_eq!(allocations.released(number), 100);
        allocations.enter(0x10, 0);
        let (number, last) = allocations.releasing(0x10);
        assert!(!last);
        assert_eq!(allocations.released(number), 0);
        let (number, last) = allocations.releasing(0x10);
        assert!(last);
        allocations.not_released(0x10, number);
        assert_eq!(allocations.releasing(0x10), (number, true));
        assert_eq!(allocations.released(number), 7);
        assert_eq!(allocations.unmapped(0, u64::MAX), 0);
    }

    #[test]
    fn the_private_part_of_a_resource_stays_here() {
        let resources = Resources::default();
        let mut whole = [0u8; RESOURCE_LEN];
        for (index, byte) in whole.iter_mut().enumerate() {
            *byte = index as u8 | 1;
        }
        let mut seen = whole;
        resources.outward(&mut seen).unwrap();
        assert_eq!((&seen[..4], &seen[96..136]), (&whole[..4], &whole[96..136]));
        assert!(seen[16..96].iter().chain(&seen[136..]).all(|byte| *byte == 0));
        let mut again = whole;
        resources.outward(&mut again).unwrap();
        assert_eq!(again, seen, "the same one has the same id");
        resources.inward(&mut seen).unwrap();
        assert_eq!(seen, whole);
        for id in [0, 2, u64::MAX] {
            seen[ID..ID + 8].copy_from_slice(&id.to_le_bytes());
            assert_eq!(resources.inward(&mut seen), Err(Status::INVALID_VALUE));
        }
    }

    #[test]
    fn arrays_go_with_their_context() {
        let arrays = Arrays::default();
        arrays.enter((Kind::CUarray, 1), 10, 100);
        arrays.enter((Kind::CUmipmappedArray, 1), 10, 20);
        arrays.enter((Kind::CUarray, 2), 11, 3);
        assert_eq!(arrays.leave((Kind::CUarray, 1)), Some((10, 100)));
        assert_eq!(arrays.leave((Kind::CUarray, 1)), None);
        assert_eq!(arrays.remove_context(10), 20);
        assert_eq!(arrays.remove_context(10), 0);
        assert_eq!(arrays.leave((Kind::CUarray, 2)), Some((11, 3)));
    }

    #[test]
    fn numbers_end_once() {
        let numbers = Numbers::default();
        numbers.enter(5);
        assert_eq!(numbers.check(5), Ok(()));
        assert!(numbers.leave(5));
        assert!(!numbers.leave(5));
        assert_eq!(numbers.check(5), Err(Status::INVALID_VALUE));
    }
}
