//! Growable arrays on the kernel's allocator. Every growth may fail; nothing else does.
#![allow(unsafe_code)] // The kernel's allocator is reached by pointer; KVec is the only user of it.

use core::ptr::NonNull;

unsafe extern "C" {
    /// `len` bytes, aligned for any scalar, or NULL; may sleep.
    fn broker_alloc(len: usize) -> *mut u8;
    /// Frees what [`broker_alloc`] gave.
    fn broker_free(at: *mut u8);
}

/// Frees an allocation of a [`KVec`] that was forgotten.
///
/// # Safety
/// `at` is such an allocation, and it is not used again.
pub(crate) unsafe fn free_raw(at: *mut u8) {
    // SAFETY: the caller's promise: it came from broker_alloc.
    unsafe { broker_free(at) };
}

/// There was no memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NoMemory;

/// A vector whose growth can fail.
pub struct KVec<T> {
    at: NonNull<T>,
    len: usize,
    capacity: usize,
}

// SAFETY: a KVec owns its elements and nothing else, as a Vec does.
unsafe impl<T: Send> Send for KVec<T> {}

impl<T> KVec<T> {
    /// An empty vector; does not allocate.
    pub const fn new() -> KVec<T> {
        KVec { at: NonNull::dangling(), len: 0, capacity: 0 }
    }

    /// Appends `value`.
    ///
    /// # Errors
    /// The vector would have to grow and there is no memory; `value` is dropped.
    pub fn push(&mut self, value: T) -> Result<(), NoMemory> {
        if self.len == self.capacity {
            self.grow()?;
        }
        // SAFETY: len < capacity after growth, so the slot lies in the allocation, and it holds no value yet.
        unsafe { self.at.add(self.len).write(value) };
        self.len += 1;
        Ok(())
    }

    fn grow(&mut self) -> Result<(), NoMemory> {
        const { assert!(size_of::<T>() != 0 && align_of::<T>() <= 8) };
        let capacity = if self.capacity == 0 { 16 } else { self.capacity.checked_mul(2).ok_or(NoMemory)? };
        let bytes = capacity.checked_mul(size_of::<T>()).ok_or(NoMemory)?;
        // SAFETY: broker_alloc takes any length; the result is checked for NULL.
        let fresh = NonNull::new(unsafe { broker_alloc(bytes) }).ok_or(NoMemory)?.cast::<T>();
        // SAFETY: both allocations hold at least `len` elements, they are distinct, and the old ones are forgotten with the old allocation.
        unsafe { core::ptr::copy_nonoverlapping(self.at.as_ptr(), fresh.as_ptr(), self.len) };
        self.free();
        self.at = fresh;
        self.capacity = capacity;
        Ok(())
    }

    /// Gives the allocation back without dropping elements.
    fn free(&mut self) {
        if self.capacity != 0 {
            // SAFETY: a capacity other than 0 means that `at` came from broker_alloc and was not freed since.
            unsafe { broker_free(self.at.as_ptr().cast()) };
            self.capacity = 0;
        }
    }

    /// The elements.
    pub fn as_slice(&self) -> &[T] {
        // SAFETY: the first `len` elements are initialised; a dangling pointer is fine for a length of 0.
        unsafe { core::slice::from_raw_parts(self.at.as_ptr(), self.len) }
    }

    /// The elements.
    pub fn as_mut_slice(&mut self) -> &mut [T] {
        // SAFETY: as in as_slice, and `self` is borrowed mutably.
        unsafe { core::slice::from_raw_parts_mut(self.at.as_ptr(), self.len) }
    }

    /// How many elements there are.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

impl<T> Default for KVec<T> {
    fn default() -> Self {
        KVec::new()
    }
}

impl<T> Drop for KVec<T> {
    fn drop(&mut self) {
        if core::mem::needs_drop::<T>() {
            for i in 0..self.len {
                // SAFETY: i < len, so the element is initialised; it is dropped once, since nothing reads it afterwards.
                unsafe { self.at.add(i).drop_in_place() };
            }
        }
        self.len = 0;
        self.free();
    }
}

enum Slot<T> {
    /// Free; the next free slot.
    Free(u32),
    Full(T),
}

/// No slot.
pub const NONE: u32 = u32::MAX;

/// A table whose elements stay at their index.
pub struct Slab<T> {
    slots: KVec<Slot<T>>,
    free: u32,
    full: u32,
    limit: u32,
}

impl<T> Slab<T> {
    /// An empty table for at most `limit` elements.
    pub const fn new(limit: u32) -> Slab<T> {
        Slab { slots: KVec::new(), free: NONE, full: 0, limit }
    }

    /// Stores `value`; returns its index.
    ///
    /// # Errors
    /// The table is full, or there is no memory.
    pub fn insert(&mut self, value: T) -> Result<u32, NoMemory> {
        let index = self.free;
        if let Some(slot) = self.slots.as_mut_slice().get_mut(index as usize)
            && let Slot::Free(next) = *slot
        {
            self.free = next;
            *slot = Slot::Full(value);
            self.full += 1;
            return Ok(index);
        }
        let index = self.slots.len() as u32;
        if index >= self.limit {
            return Err(NoMemory);
        }
        self.slots.push(Slot::Full(value))?;
        self.full += 1;
        Ok(index)
    }

    /// The element at `index`.
    pub fn get(&self, index: u32) -> Option<&T> {
        match self.slots.as_slice().get(index as usize) {
            Some(Slot::Full(value)) => Some(value),
            _ => None,
        }
    }

    /// The element at `index`.
    pub fn get_mut(&mut self, index: u32) -> Option<&mut T> {
        match self.slots.as_mut_slice().get_mut(index as usize) {
            Some(Slot::Full(value)) => Some(value),
            _ => None,
        }
    }

    /// Takes the element at `index` out.
    pub fn remove(&mut self, index: u32) -> Option<T> {
        let slot = self.slots.as_mut_slice().get_mut(index as usize)?;
        if let Slot::Free(_) = slot {
            return None;
        }
        let old = core::mem::replace(slot, Slot::Free(self.free));
        self.free = index;
        self.full -= 1;
        match old {
            Slot::Full(value) => Some(value),
            Slot::Free(_) => None,
        }
    }

    /// Number of elements.
    pub fn len(&self) -> u32 {
        self.full
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.full == 0
    }

    /// One more than the highest index in use.
    pub fn bound(&self) -> u32 {
        self.slots.len() as u32
    }
}
