//! Checked copies between the host and device memory.

use std::sync::atomic::{AtomicU32, Ordering};

use super::{Region, RegionError};
use crate::fault;

/// A device range that stays mapped while this lives.
pub struct Pin<'r> {
    region: &'r Region,
    /// Base of the pinned allocation; None in the window, which is not pinned (its loss is caught).
    allocation: Option<u64>,
    address: u64,
    len: u64,
}

impl Region {
    /// Checks that `[address, address + len)` lies in one allocation or in the window and keeps it mapped. The memory may be
    /// written by kernels and, in the window, by the program at the same time: use it through raw pointers only.
    pub fn pin(&self, address: u64, len: u64) -> Result<Pin<'_>, RegionError> {
        let invalid = RegionError::InvalidRange { address, len };
        let mut state = self.lock();
        if let Some((&base, allocation)) = state.live.range_mut(..=address).next_back()
            && address - base <= allocation.len
            && len <= allocation.len - (address - base)
        {
            allocation.pins += 1;
            return Ok(Pin { region: self, allocation: Some(base), address, len });
        }
        if state.window_contains(address, len) {
            return Ok(Pin { region: self, allocation: None, address, len });
        }
        Err(invalid)
    }

    /// Host to device.
    pub fn copy_in(&self, dst: u64, src: &[u8]) -> Result<(), RegionError> {
        if src.is_empty() {
            return Ok(());
        }
        let pin = self.pin(dst, src.len() as u64)?;
        // SAFETY: the destination is pinned device memory of that length, which no Rust reference points into.
        unsafe { guarded_copy(pin.as_ptr(), src.as_ptr(), src.len()) }
    }

    /// Device to host.
    pub fn copy_out(&self, src: u64, dst: &mut [u8]) -> Result<(), RegionError> {
        if dst.is_empty() {
            return Ok(());
        }
        let pin = self.pin(src, dst.len() as u64)?;
        // SAFETY: the source is pinned device memory of that length; `dst` is exclusively ours.
        unsafe { guarded_copy(dst.as_mut_ptr(), pin.as_ptr(), dst.len()) }
    }

    /// Device to device; the ranges may overlap.
    pub fn copy_within(&self, dst: u64, src: u64, len: u64) -> Result<(), RegionError> {
        if len == 0 {
            return Ok(());
        }
        let src = self.pin(src, len)?;
        let dst = self.pin(dst, len)?;
        // SAFETY: both ranges are pinned device memory of that length.
        unsafe { guarded_copy(dst.as_ptr(), src.as_ptr(), len as usize) }
    }

    /// As [`Region::copy_within`], for ranges that do not overlap and are of whole words: who looks meanwhile sees each word of 4 bytes as it was or as it will be.
    ///
    /// # Errors
    /// As there; [`RegionError::InvalidArgument`] for addresses and lengths that are not multiples of 4.
    pub fn copy_words(&self, dst: u64, src: u64, len: u64) -> Result<(), RegionError> {
        if len == 0 {
            return Ok(());
        }
        if !(dst | src | len).is_multiple_of(4) {
            return Err(RegionError::InvalidArgument("not of whole words"));
        }
        let src = self.pin(src, len)?;
        let dst = self.pin(dst, len)?;
        let mut request =
            WordsRequest { dst: dst.as_ptr().cast(), src: src.as_ptr().cast(), count: len as usize / 4 };
        // SAFETY: `copy_aligned` touches exactly the two pinned, aligned ranges, and holds nothing that needs dropping.
        unsafe { lost(fault::guarded(copy_aligned, (&raw mut request).cast())) }
    }

    /// Sets `count` bytes.
    pub fn fill8(&self, dst: u64, value: u8, count: u64) -> Result<(), RegionError> {
        self.fill(dst, value, count)
    }

    /// Sets `count` 16-bit words; `dst` must be 2-byte aligned.
    pub fn fill16(&self, dst: u64, value: u16, count: u64) -> Result<(), RegionError> {
        self.fill(dst, value, count)
    }

    /// Sets `count` 32-bit words; `dst` must be 4-byte aligned.
    pub fn fill32(&self, dst: u64, value: u32, count: u64) -> Result<(), RegionError> {
        self.fill(dst, value, count)
    }

    fn fill<T: Copy>(&self, dst: u64, value: T, count: u64) -> Result<(), RegionError> {
        if count == 0 {
            return Ok(());
        }
        let size = size_of::<T>() as u64;
        if !dst.is_multiple_of(size) {
            return Err(RegionError::InvalidArgument("fill destination is not aligned to its element"));
        }
        let len = count.checked_mul(size).ok_or(RegionError::InvalidRange { address: dst, len: u64::MAX })?;
        let pin = self.pin(dst, len)?;
        let mut request = FillRequest { dst: pin.as_ptr().cast::<T>(), value, count: count as usize };
        // SAFETY: `fill_elements` writes exactly the pinned, aligned range, and holds nothing that needs dropping.
        unsafe { lost(fault::guarded(fill_elements::<T>, (&raw mut request).cast())) }
    }
}

impl Pin<'_> {
    /// First byte.
    pub fn as_ptr(&self) -> *mut u8 {
        self.address as *mut u8
    }

    /// Length in bytes.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether the range has no bytes.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

impl Drop for Pin<'_> {
    fn drop(&mut self) {
        let Some(base) = self.allocation else { return };
        let mut state = self.region.lock();
        if let Some(allocation) = state.live.get_mut(&base) {
            // An address is not handed out again while its old allocation is dying, so this is the pinned one.
            allocation.pins -= 1;
        } else if let Some(allocation) = state.dying.get_mut(&base) {
            allocation.pins -= 1;
            if allocation.pins == 0 {
                let Some(allocation) = state.dying.remove(&base) else { return };
                self.region.release(state, base, allocation);
            }
        }
    }
}

struct FillRequest<T> {
    dst: *mut T,
    value: T,
    count: usize,
}

unsafe extern "C" fn fill_elements<T: Copy>(request: *mut core::ffi::c_void) -> u32 {
    // SAFETY: called with the `FillRequest` of the caller above, whose range is pinned and aligned.
    unsafe {
        let request = &*request.cast::<FillRequest<T>>();
        for index in 0..request.count {
            request.dst.add(index).write(request.value);
        }
    }
    0
}

struct WordsRequest {
    dst: *const AtomicU32,
    src: *const AtomicU32,
    count: usize,
}

unsafe extern "C" fn copy_aligned(request: *mut core::ffi::c_void) -> u32 {
    // SAFETY: called with the `WordsRequest` of `copy_words`, whose ranges are pinned and aligned, and accessed by others as memory of the device only.
    unsafe {
        let request = &*request.cast::<WordsRequest>();
        for index in 0..request.count {
            let word = (*request.src.add(index)).load(Ordering::Relaxed);
            (*request.dst.add(index)).store(word, Ordering::Relaxed);
        }
    }
    0
}

struct CopyRequest {
    dst: *mut u8,
    src: *const u8,
    len: usize,
}

unsafe extern "C" fn copy_bytes(request: *mut core::ffi::c_void) -> u32 {
    // SAFETY: called with the `CopyRequest` of `guarded_copy`, whose caller vouches for the ranges.
    unsafe {
        let request = &*request.cast::<CopyRequest>();
        std::ptr::copy(request.src, request.dst, request.len);
    }
    0
}

/// A memmove that survives the disappearance of either side, where the fault handlers are [installed](fault::install).
///
/// # Errors
/// [`RegionError::Lost`]; some of the bytes may have been copied.
///
/// # Safety
/// The ranges must be valid memory, or device memory; no other Rust reference may cover the destination.
pub unsafe fn guarded_copy(dst: *mut u8, src: *const u8, len: usize) -> Result<(), RegionError> {
    let mut request = CopyRequest { dst, src, len };
    // SAFETY: `copy_bytes` touches exactly the caller's ranges; a memmove holds nothing that needs dropping.
    unsafe { lost(fault::guarded(copy_bytes, (&raw mut request).cast())) }
}

fn lost(result: Result<(), fault::Fault>) -> Result<(), RegionError> {
    result.map_err(|fault| RegionError::Lost { address: fault.address })
}
