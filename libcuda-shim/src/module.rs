#![allow(unsafe_code)]
//! Loading device code: JIT options, libraries that are sent only when something of them is used, and the way of an image to the host.
//!
//! Unsafe because code and JIT options come as bare pointers.

use core::ffi::c_void;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use fatbin::{CodeVersion, Device};
use protocol::handshake::Capabilities;
use protocol::status::{CuResult, Status};

use crate::custom;
use crate::generated::wire;
use crate::image::{self, Image, Refused};
use crate::process::process;
use crate::thread;

/// JIT options: where the program wants the logs is the guest's affair, options whose value is a number go to the host.
#[derive(Default)]
pub struct Options {
    /// 16 bytes each, as the load operations take them.
    numbers: Vec<u8>,
    info: LogBuffer,
    error: LogBuffer,
}

/// A buffer of the program for a log, and where it wants the length written.
#[derive(Default)]
struct LogBuffer {
    text: Option<*mut u8>,
    len: usize,
    /// Index of the size option among the values: the driver writes the used length there.
    written: Option<*mut *mut c_void>,
}

/// An output.
const JIT_WALL_TIME: u32 = 2;
const JIT_INFO_LOG_BUFFER: u32 = 3;
const JIT_INFO_LOG_BUFFER_SIZE_BYTES: u32 = 4;
const JIT_ERROR_LOG_BUFFER: u32 = 5;
const JIT_ERROR_LOG_BUFFER_SIZE_BYTES: u32 = 6;
/// `CU_JIT_NUM_OPTIONS`, with room for those of newer headers.
const NUM_OPTIONS: u32 = 64;
/// More options than exist; a larger count is a mistake of the caller.
const MAX_OPTIONS: u32 = 256;

impl Options {
    /// # Safety
    /// `keys` and `values` are arrays of `count` elements (or `count` is 0), and log buffers in them have the sizes given in them.
    pub unsafe fn read(count: u32, keys: *const u32, values: *mut *mut c_void) -> Result<Options, Status> {
        let mut options = Options::default();
        if count == 0 {
            return Ok(options);
        }
        if count > MAX_OPTIONS || keys.is_null() || values.is_null() {
            return Err(Status::INVALID_VALUE);
        }
        for index in 0..count as usize {
            // SAFETY: within the arrays by the caller's promise.
            let (key, place) = unsafe { (keys.add(index).read(), values.add(index)) };
            // SAFETY: as above.
            let value = unsafe { place.read() };
            match key {
                JIT_INFO_LOG_BUFFER => options.info.text = Some(value.cast()),
                JIT_ERROR_LOG_BUFFER => options.error.text = Some(value.cast()),
                JIT_INFO_LOG_BUFFER_SIZE_BYTES => options.info.sized(value, place),
                JIT_ERROR_LOG_BUFFER_SIZE_BYTES => options.error.sized(value, place),
                JIT_WALL_TIME => {}
                NUM_OPTIONS.. => return Err(Status::INVALID_VALUE),
                _ => {
                    options.numbers.extend_from_slice(&u64::from(key).to_le_bytes());
                    // Smaller numbers than a pointer are its low bits; the host knows which options have one.
                    options.numbers.extend_from_slice(&(value.addr() as u64 & 0xffff_ffff).to_le_bytes());
                }
            }
        }
        Ok(options)
    }

    /// The options for the host.
    pub fn numbers(&self) -> Option<&[u8]> {
        Some(&self.numbers)
    }

    /// Gives the program the logs of a load. Both lengths are written, 0 included: programs that pass the same array again see them.
    pub fn logs(&mut self, info: &[u8], error: &[u8]) {
        if !error.is_empty() {
            crate::log!(Warn, "load: {}", String::from_utf8_lossy(error));
        }
        self.info.write(info);
        self.error.write(error);
    }
}

impl LogBuffer {
    fn sized(&mut self, value: *mut c_void, place: *mut *mut c_void) {
        // The option's value is the number itself, in the pointer's low 32 bits.
        self.len = value.addr() & 0xffff_ffff;
        self.written = Some(place);
    }

    fn write(&mut self, text: &[u8]) {
        let buffer = self.text.filter(|buffer| !buffer.is_null() && self.len > 0);
        let mut used = 0;
        if let Some(buffer) = buffer {
            let text = &text[..text.len().min(self.len - 1)];
            // SAFETY: the buffer has `len` bytes by the promise of `Options::read`, and text and NUL fit.
            unsafe {
                buffer.copy_from_nonoverlapping(text.as_ptr(), text.len());
                buffer.add(text.len()).write(0);
            }
            used = text.len();
        }
        if let Some(place) = self.written {
            // SAFETY: an element of the values array.
            unsafe { place.write(core::ptr::without_provenance_mut(used)) };
        }
    }
}

/// What images are chosen for: the current device as the host describes it.
pub fn target(device: i32) -> Result<Device, Status> {
    const COMPUTE_CAPABILITY_MAJOR: u32 = 75;
    const COMPUTE_CAPABILITY_MINOR: u32 = 76;
    let session = process().session.get().ok_or(Status::NOT_INITIALIZED)?;
    Ok(Device {
        cc_major: custom::device::attribute(device, COMPUTE_CAPABILITY_MAJOR)? as u32,
        cc_minor: custom::device::attribute(device, COMPUTE_CAPABILITY_MINOR)? as u32,
        sass: session.capabilities().contains(Capabilities::MACHINE_CODE),
        // Which PTX versions compile is the host's to say: it names the one it cannot take.
        max_ptx_version: CodeVersion { major: u16::MAX, minor: u16::MAX },
        groups: true,
    })
}

/// Brings an image into the host's registry, if it is not there yet.
pub fn send(image: &Image) -> CuResult {
    let len = image.bytes.len() as u64;
    let mut present = 0;
    wire::image_query(Some(&image.hash), len, Some(&mut present))?;
    if present != 0 {
        crate::log!(Debug, "image of {len} bytes is in the host's registry");
        return Ok(());
    }
    let slot_len = thread::with(|thread| Ok(thread.lane()?.slot_len()))?;
    let mut offset = 0;
    for part in image.bytes.chunks(slot_len) {
        let slot = thread::with(|thread| {
            let lane = thread.lane()?;
            let slot = lane.next_slot()?;
            // SAFETY: a slice is readable for its length.
            unsafe { lane.copy_into_slot(&slot, 0, part.as_ptr(), part.len()) }?;
            Ok(slot)
        })?;
        wire::image_chunk(Some(&image.hash), offset, slot.offset(), part.len() as u64)?;
        thread::with(|thread| thread.lane().map(|lane| lane.slot_in_use(slot)))?;
        offset += part.len() as u64;
    }
    wire::image_commit(Some(&image.hash), len)
}

/// Sends what is missing of several images and gives the hashes and forms as the load operations take them.
pub fn send_all(images: &[Image]) -> Result<(Vec<u8>, Vec<u8>), Status> {
    let mut hashes = Vec::with_capacity(images.len() * 32);
    let mut forms = Vec::with_capacity(images.len() * 4);
    for image in images {
        send(image)?;
        hashes.extend_from_slice(&image.hash);
        forms.extend_from_slice(&(image.form as u32).to_le_bytes());
    }
    Ok((hashes, forms))
}

/// A `CUlibrary`. Its code goes to the host when something of it is asked for.
pub struct Library {
    state: Mutex<State>,
}

enum State {
    /// Chosen and unpacked, not sent.
    Pending(Vec<Image>),
    /// The host's handle.
    Loaded(u64),
    Failed(Status),
}

impl Library {
    /// The host's handle of the library, loading it now if that has not happened.
    pub fn host(&self) -> Result<u64, Status> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let images = match &*state {
            State::Loaded(handle) => return Ok(*handle),
            State::Failed(status) => return Err(*status),
            State::Pending(images) => images,
        };
        let loaded = custom::library::load_on_host(images);
        *state = match loaded {
            Ok(handle) => State::Loaded(handle),
            Err(status) => State::Failed(status),
        };
        loaded
    }

    /// The host's handle if the library was ever sent.
    pub fn host_if_loaded(&self) -> Option<u64> {
        match *self.state.lock().unwrap_or_else(PoisonError::into_inner) {
            State::Loaded(handle) => Some(handle),
            _ => None,
        }
    }
}

/// All libraries of the process. Handles are minted here, since the host may never hear of a library.
#[derive(Default)]
pub struct Libraries {
    libraries: RwLock<HashMap<u64, Arc<Library>>>,
    next: AtomicU64,
}

/// Marks handles of libraries, so that none equals a handle of the host (which never sets this bit) or a small number.
const LIBRARY_HANDLE: u64 = 1 << 62;

impl Libraries {
    /// A library of these images, or one that cannot be loaded for that reason.
    pub fn insert(&self, images: Result<Vec<Image>, Status>) -> u64 {
        let handle = LIBRARY_HANDLE | (self.next.fetch_add(1, Ordering::Relaxed) << 4);
        let state = images.map_or_else(State::Failed, State::Pending);
        let library = Library { state: Mutex::new(state) };
        self.libraries.write().unwrap_or_else(PoisonError::into_inner).insert(handle, Arc::new(library));
        handle
    }

    pub fn get(&self, handle: u64) -> Result<Arc<Library>, Status> {
        let libraries = self.libraries.read().unwrap_or_else(PoisonError::into_inner);
        libraries.get(&handle).cloned().ok_or(Status::INVALID_HANDLE)
    }

    pub fn remove(&self, handle: u64) -> Result<Arc<Library>, Status> {
        let mut libraries = self.libraries.write().unwrap_or_else(PoisonError::into_inner);
        libraries.remove(&handle).ok_or(Status::INVALID_HANDLE)
    }
}

/// Reports why no image could be taken.
pub fn refuse(refused: Refused, options: &mut Options) -> Status {
    options.logs(b"", refused.reasons.as_bytes());
    refused.status
}

/// The images of `code` for the current device.
///
/// # Safety
/// As [`image::images_at`].
pub unsafe fn images_at(code: *const c_void, options: &mut Options) -> Result<Vec<Image>, Status> {
    if code.is_null() {
        return Err(Status::INVALID_VALUE);
    }
    let device = target(custom::device::current().unwrap_or(0))?;
    // SAFETY: by the caller's promise.
    unsafe { image::images_at(code, &device) }.map_err(|refused| refuse(refused, options))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_library_that_cannot_be_loaded_says_so_when_it_is_used() {
        let libraries = Libraries::default();
        let handle = libraries.insert(Err(Status::INVALID_IMAGE));
        let library = libraries.get(handle).unwrap();
        assert_eq!(library.host(), Err(Status::INVALID_IMAGE));
        assert_eq!(library.host_if_loaded(), None);
        assert!(libraries.remove(handle).is_ok());
        assert_eq!(libraries.get(handle).err(), Some(Status::INVALID_HANDLE));
    }
}
