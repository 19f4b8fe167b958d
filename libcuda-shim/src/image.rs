#![allow(unsafe_code)]
//! Device code in the memory of the program: finds the containers behind a pointer, chooses the image for the device, unpacks it.
//!
//! Unsafe because the driver API passes code as a bare pointer, without a length: sizes come from the headers in the memory itself, as
//! NVIDIA's driver takes them. The memory is the program's own, so a lying header harms only the program.

use core::ffi::{CStr, c_void};
use core::slice;

use fatbin::{Container, Device, Entry, ImageKind, LinkedSelection, Purpose, Wrapper, WrapperVersion};
use protocol::status::Status;

/// Largest unpacked image: far above any real one, and a bound on what a lying header can ask for.
pub const MAX_IMAGE_LEN: usize = 1 << 30;
/// Most containers that a version-2 wrapper may list.
const MAX_PRELINKED: usize = 1 << 16;

/// What an image is, as the wire says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Form {
    Ptx = 1,
    Cubin = 2,
}

/// One image chosen for the device.
#[derive(Clone, Debug)]
pub struct Image {
    pub form: Form,
    pub bytes: Vec<u8>,
    /// BLAKE3 of `bytes`: its name in the host's registry.
    pub hash: [u8; 32],
}

impl Image {
    pub fn new(form: Form, bytes: Vec<u8>) -> Image {
        let hash = *blake3::hash(&bytes).as_bytes();
        Image { form, bytes, hash }
    }
}

/// Why no image could be taken: the code for the program and the reasons for the log.
#[derive(Debug)]
pub struct Refused {
    pub status: Status,
    pub reasons: String,
}

impl Refused {
    fn damaged(what: &str, error: &fatbin::Error) -> Refused {
        Refused { status: Status::INVALID_IMAGE, reasons: format!("{what}: {error}") }
    }
}

/// The images to load for `code`: one, or several to be linked.
///
/// # Safety
/// `code` points at a wrapper, a container, an ELF file or NUL-terminated PTX text, complete as their headers say.
pub unsafe fn images_at(code: *const c_void, device: &Device) -> Result<Vec<Image>, Refused> {
    // SAFETY: the shortest of the four (PTX text) may be shorter than 4 bytes, so bytes are read one at a time up to a NUL.
    let start = unsafe { first_bytes(code.cast()) };
    match ImageKind::of(&start) {
        ImageKind::Wrapper => {
            // SAFETY: a wrapper is 24 bytes, by the caller's promise.
            let bytes = unsafe { &*code.cast::<[u8; Wrapper::LEN]>() };
            let wrapper = Wrapper::parse(bytes).map_err(|e| Refused::damaged("wrapper", &e))?;
            // SAFETY: a registered wrapper's pointers lead to containers of the same program.
            unsafe { wrapped(&wrapper, device) }
        }
        ImageKind::Container => {
            // SAFETY: by the caller's promise.
            let container = unsafe { container_at(code) }?;
            let entries = entries_of(&container)?;
            choose(&entries, device).map(|image| vec![image])
        }
        ImageKind::Elf => {
            // SAFETY: by the caller's promise the file is complete, so every offset that its headers name is readable.
            let bytes = unsafe { elf_at(code) }?;
            if !device.sass {
                return Err(Refused {
                    status: Status::NO_BINARY_FOR_GPU,
                    reasons: "the image is machine code (a cubin), the device runs PTX only".into(),
                });
            }
            Ok(vec![Image::new(Form::Cubin, bytes.to_vec())])
        }
        ImageKind::Ptx => {
            // SAFETY: PTX text passed without a length ends with NUL.
            let text = unsafe { CStr::from_ptr(code.cast()) };
            ptx(text.to_bytes()).map(|image| vec![image])
        }
        other => Err(Refused {
            status: Status::INVALID_IMAGE,
            reasons: format!(
                "neither a fat binary, an ELF file nor PTX text ({other:?}, starts with {start:02x?})"
            ),
        }),
    }
}

/// Whether `code` is taken for PTX text because it is nothing else that is known.
///
/// # Safety
/// As [`images_at`].
pub unsafe fn is_text(code: *const c_void) -> bool {
    // SAFETY: by the caller's promise, as in `images_at`.
    let start = unsafe { first_bytes(code.cast()) };
    !matches!(ImageKind::of(&start), ImageKind::Wrapper | ImageKind::Container | ImageKind::Elf)
}

/// As [`images_at`] for bytes with a known length (files, linker inputs).
pub fn images_in(bytes: &[u8], device: &Device) -> Result<Vec<Image>, Refused> {
    match ImageKind::of(bytes) {
        ImageKind::Container => {
            let container = Container::parse(bytes).map_err(|e| Refused::damaged("container", &e))?;
            choose(&entries_of(&container)?, device).map(|image| vec![image])
        }
        ImageKind::Elf if device.sass => Ok(vec![Image::new(Form::Cubin, bytes.to_vec())]),
        ImageKind::Elf => Err(Refused {
            status: Status::NO_BINARY_FOR_GPU,
            reasons: "the image is machine code (a cubin), the device runs PTX only".into(),
        }),
        ImageKind::Ptx => ptx(bytes).map(|image| vec![image]),
        other => Err(Refused {
            status: Status::INVALID_IMAGE,
            reasons: format!("neither a fat binary, an ELF file nor PTX text ({other:?})"),
        }),
    }
}

/// PTX text; a NUL, or several, may end it before the end of `bytes`. Text without a version is no PTX to NVIDIA's driver either.
pub fn ptx(bytes: &[u8]) -> Result<Image, Refused> {
    const VERSION: &[u8] = b".version";
    let text = bytes.split(|byte| *byte == 0).next().unwrap_or_default();
    if !text.windows(VERSION.len()).any(|part| part == VERSION) {
        return Err(Refused {
            status: Status::INVALID_IMAGE,
            reasons: "neither a fat binary, an ELF file nor PTX text: there is no .version in it".into(),
        });
    }
    Ok(Image::new(Form::Ptx, text.to_vec()))
}

/// Up to 8 bytes from `code`, ended early by a NUL.
///
/// # Safety
/// Readable up to and including the first NUL, or 8 bytes.
unsafe fn first_bytes(code: *const u8) -> Vec<u8> {
    let mut start = Vec::with_capacity(8);
    for i in 0..8 {
        // SAFETY: the previous byte was no NUL, so by the caller's promise this one is readable.
        let byte = unsafe { code.add(i).read() };
        start.push(byte);
        if byte == 0 {
            break;
        }
    }
    start
}

/// # Safety
/// The wrapper's addresses are those of this process.
unsafe fn wrapped(wrapper: &Wrapper, device: &Device) -> Result<Vec<Image>, Refused> {
    // SAFETY: by the caller's promise.
    let container = unsafe { container_at(wrapper.container as *const c_void) }?;
    let entries = entries_of(&container)?;
    let WrapperVersion::Linked { list } = wrapper.version else {
        return choose(&entries, device).map(|image| vec![image]);
    };
    // SAFETY: by the caller's promise; the list was filled by the program's constructors.
    let prelinked = unsafe { containers_in(list as *const *const c_void) }?;
    let prelinked: Vec<Vec<Entry<'_>>> = prelinked.iter().map(entries_of).collect::<Result<_, _>>()?;
    match fatbin::select_linked(&entries, &prelinked, device) {
        LinkedSelection::Linked(selection) => {
            let chosen = selection.chosen.and_then(|index| entries.get(index));
            chosen.ok_or_else(|| no_binary(&selection.to_string())).and_then(unpack).map(|image| vec![image])
        }
        LinkedSelection::Link { linked, prelinked: selections } => {
            // A unit without a fitting image (a library of other architectures) is left out: what of it is needed shows as an
            // unresolved symbol, by name, in the linker.
            let units = prelinked
                .iter()
                .zip(&selections)
                .filter_map(|(entries, selection)| entries.get(selection.chosen?))
                .map(unpack)
                .collect::<Result<Vec<_>, _>>()?;
            if units.is_empty() {
                let mut reasons = linked.to_string();
                for (index, selection) in selections.iter().enumerate() {
                    reasons.push_str(&format!("\nunit {index}: {selection}"));
                }
                return Err(no_binary(&reasons));
            }
            Ok(units)
        }
    }
}

fn no_binary(reasons: &str) -> Refused {
    Refused { status: Status::NO_BINARY_FOR_GPU, reasons: reasons.to_owned() }
}

fn entries_of<'a>(container: &Container<'a>) -> Result<Vec<Entry<'a>>, Refused> {
    container.read_entries().map_err(|e| Refused::damaged("container", &e))
}

fn choose(entries: &[Entry<'_>], device: &Device) -> Result<Image, Refused> {
    let selection = fatbin::select(entries, device, Purpose::Load);
    match selection.chosen.and_then(|index| entries.get(index)) {
        Some(entry) => {
            crate::log!(Debug, "image chosen: entry {}, {} {}", entry.offset(), entry.kind(), entry.arch());
            unpack(entry)
        }
        None => Err(no_binary(&selection.to_string())),
    }
}

fn unpack(entry: &Entry<'_>) -> Result<Image, Refused> {
    let data = entry.data(MAX_IMAGE_LEN).map_err(|e| Refused::damaged("entry", &e))?;
    let form = if entry.kind().is_ptx() { Form::Ptx } else { Form::Cubin };
    Ok(Image::new(form, data.into_owned()))
}

/// # Safety
/// `address` is that of a complete container in this process.
unsafe fn container_at<'a>(address: *const c_void) -> Result<Container<'a>, Refused> {
    if address.is_null() {
        return Err(Refused {
            status: Status::INVALID_IMAGE,
            reasons: "the wrapper points at no container".into(),
        });
    }
    // SAFETY: a container starts with a header of 16 bytes.
    let header = unsafe { &*address.cast::<[u8; fatbin::raw::CONTAINER_HEADER_LEN]>() };
    let len = Container::total_len(header).map_err(|e| Refused::damaged("container", &e))?;
    if !is_mapped(address.addr(), len) {
        return Err(Refused {
            status: Status::INVALID_IMAGE,
            reasons: format!(
                "container: declares {len:#x} bytes, but the program's memory at {address:p} ends before that"
            ),
        });
    }
    // SAFETY: the program's container has the length that its header says, and registered code stays in place while it is loaded.
    let bytes = unsafe { slice::from_raw_parts(address.cast::<u8>(), len) };
    Container::parse(bytes).map_err(|e| Refused::damaged("container", &e))
}

/// Whether all pages of a range are mapped: a header that declares more than there is must not end the program.
fn is_mapped(start: usize, len: usize) -> bool {
    /// Pages asked for at a time: the kernel stops at the first gap, so that a huge range that is not there costs one call.
    const PAGES: usize = 1024;
    let page = rustix::param::page_size();
    let Some(end) = start.checked_add(len) else { return false };
    let mut residency = [0u8; PAGES];
    let mut at = start & !(page - 1);
    while at < end {
        let part = (end - at).min(PAGES * page);
        // SAFETY: the kernel reads no memory of the range, and writes one byte per page of it, at most `PAGES`.
        let found =
            unsafe { libc::mincore(core::ptr::without_provenance_mut(at), part, residency.as_mut_ptr()) };
        if found != 0 {
            return false;
        }
        at += part;
    }
    true
}

/// # Safety
/// `list` is NULL or an array of container addresses ended by NULL.
unsafe fn containers_in<'a>(list: *const *const c_void) -> Result<Vec<Container<'a>>, Refused> {
    let mut containers = Vec::new();
    if list.is_null() {
        return Ok(containers);
    }
    for index in 0..MAX_PRELINKED {
        // SAFETY: no NULL has been met before `index`.
        let address = unsafe { list.add(index).read() };
        if address.is_null() {
            break;
        }
        // SAFETY: by the caller's promise.
        containers.push(unsafe { container_at(address) }?);
    }
    Ok(containers)
}

/// # Safety
/// `address` is that of a complete ELF file in this process.
unsafe fn elf_at<'a>(address: *const c_void) -> Result<&'a [u8], Refused> {
    let start = address.cast::<u8>();
    let len = fatbin::elf_len_with(|offset, buffer| {
        // SAFETY: offsets come from the file's own headers, and the file is complete.
        let source = unsafe { start.add(usize::try_from(offset).ok()?) };
        // SAFETY: as above, for `buffer.len()` bytes of it.
        unsafe { source.copy_to_nonoverlapping(buffer.as_mut_ptr(), buffer.len()) };
        Some(())
    })
    .map_err(|e| Refused::damaged("ELF image", &e))?;
    let len = usize::try_from(len).ok().filter(|len| *len <= MAX_IMAGE_LEN).ok_or_else(|| Refused {
        status: Status::INVALID_IMAGE,
        reasons: format!("ELF image of {len} bytes, the limit is {MAX_IMAGE_LEN}"),
    })?;
    // SAFETY: the file is complete for the length that its headers give.
    Ok(unsafe { slice::from_raw_parts(start, len) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_no_magic_is_text() {
        let code = |bytes: &[u8]| {
            let bytes: Vec<u8> = bytes.iter().chain(&[0; 8]).copied().collect();
            // SAFETY: ended by NULs.
            unsafe { is_text(bytes.as_ptr().cast()) }
        };
        assert!(code(b"nonsense") && code(b".version 7.0") && code(b""));
        assert!(!code(b"\x7fELF") && !code(&0xba55_ed50u32.to_le_bytes()));
    }
}
