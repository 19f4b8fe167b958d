//! Loading registered images: JIT options, logs, and the linker where there are several.
#![allow(unsafe_code)] // Calls the driver.

use core::ffi::c_void;
use std::sync::Arc;

use protocol::status::{CuResult, Status};

use super::CudaBackend;
use super::variables::Loaded;
use crate::session::Call;
use crate::worker::registry::Registry;

/// Forms of images on the wire.
pub const FORM_PTX: u32 = 1;
pub const FORM_CUBIN: u32 = 2;

/// Most images of one load.
const MAX_IMAGES: u32 = 4096;

/// Bytes of each log: what is longer is cut, as it would be in the buffers of most programs.
const LOG_LEN: usize = 8 << 10;

const INFO_LOG_BUFFER: u32 = 3;
const INFO_LOG_BUFFER_SIZE_BYTES: u32 = 4;
const ERROR_LOG_BUFFER: u32 = 5;
const ERROR_LOG_BUFFER_SIZE_BYTES: u32 = 6;

/// Options whose value is a number that the driver only reads: registers, threads per block, optimisation, target, fallback, debug and line information,
/// verbosity, cache mode, global addressing, code model, LTO and its switches, position-independent code, overrides.
const NUMERIC: [u32; 22] =
    [0, 1, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 20, 21, 22, 23, 24, 29, 30, 31, 32, 33];

/// `CUjitInputType`.
const INPUT_CUBIN: u32 = 0;
const INPUT_PTX: u32 = 1;

/// What a load names.
#[derive(Clone, Copy)]
pub struct Request<'a> {
    pub count: u32,
    /// 32 bytes per image.
    pub hashes: Option<&'a [u8]>,
    /// 4 bytes per image.
    pub forms: Option<&'a [u8]>,
    /// 16 bytes per option.
    pub options: Option<&'a [u8]>,
}

/// An image, and what it is.
pub struct Image {
    form: u32,
    bytes: Arc<[u8]>,
}

impl Image {
    /// The bytes as the driver takes them where it is not told a length: text ends with NUL.
    fn terminated(&self) -> Arc<[u8]> {
        if self.form == FORM_PTX {
            let mut text = Vec::with_capacity(self.bytes.len() + 1);
            text.extend_from_slice(&self.bytes);
            text.push(0);
            return text.into();
        }
        Arc::clone(&self.bytes)
    }

    /// Whether it has to be compiled or linked before its managed variables can be placed.
    fn has_variables_to_link(&self) -> bool {
        if self.form == FORM_PTX {
            // Too often is no harm: such text is compiled in two steps instead of one.
            return memchr::memmem::find(&self.bytes, b".managed").is_some();
        }
        fatbin::Managed::parse(&self.bytes)
            .is_ok_and(|managed| managed.is_relocatable() && !managed.variables().is_empty())
    }
}

impl Request<'_> {
    /// The images of the request.
    ///
    /// # Errors
    /// INVALID_VALUE for a request that makes no sense, INVALID_IMAGE for an image that was not sent or is none.
    fn images(&self, registry: &Registry) -> CuResult<Vec<Image>> {
        let (hashes, forms) = (self.hashes.unwrap_or_default(), self.forms.unwrap_or_default());
        let count = self.count as usize;
        if !(1..=MAX_IMAGES).contains(&self.count) || hashes.len() != count * 32 || forms.len() != count * 4 {
            return Err(Status::INVALID_VALUE);
        }
        let (hashes, forms) = (hashes.as_chunks::<32>().0, forms.as_chunks::<4>().0);
        let image = |(hash, form): (&[u8; 32], &[u8; 4])| {
            let bytes = registry.get(hash).ok_or(Status::INVALID_IMAGE)?;
            let form = u32::from_le_bytes(*form);
            // The driver finds the end of machine code by the headers in it.
            if form != FORM_PTX && !elf_is_complete(&bytes) {
                return Err(Status::INVALID_IMAGE);
            }
            Ok(Image { form, bytes })
        };
        hashes.iter().zip(forms).map(image).collect()
    }
}

/// Whether an ELF file lies entirely in these bytes: the program could otherwise have the driver read beyond them.
fn elf_is_complete(bytes: &[u8]) -> bool {
    fatbin::elf_len(bytes).is_ok_and(|len| len <= bytes.len())
}

/// Options and log buffers of one compilation.
struct Jit {
    keys: Vec<u32>,
    values: Vec<u64>,
    info: Vec<u8>,
    error: Vec<u8>,
}

impl Jit {
    fn new(options: Option<&[u8]>) -> Box<Self> {
        let mut jit = Box::new(Self {
            keys: vec![
                INFO_LOG_BUFFER,
                INFO_LOG_BUFFER_SIZE_BYTES,
                ERROR_LOG_BUFFER,
                ERROR_LOG_BUFFER_SIZE_BYTES,
            ],
            values: Vec::new(),
            info: vec![0; LOG_LEN],
            error: vec![0; LOG_LEN],
        });
        let (info, error) = (jit.info.as_mut_ptr(), jit.error.as_mut_ptr());
        let address = |buffer: *mut u8| buffer.expose_provenance() as u64;
        jit.values = vec![address(info), LOG_LEN as u64, address(error), LOG_LEN as u64];
        for option in options.unwrap_or_default().as_chunks::<16>().0 {
            let key = super::buffer::half(option, 0);
            if NUMERIC.contains(&key) && !jit.keys.contains(&key) {
                jit.keys.push(key);
                jit.values.push(super::buffer::word(option, 8));
            }
        }
        jit
    }

    fn count(&self) -> u32 {
        self.keys.len() as u32
    }

    /// Both logs, without what is not text.
    fn logs(&self) -> Logs {
        Logs { info: text(&self.info), error: text(&self.error) }
    }
}

fn text(buffer: &[u8]) -> Vec<u8> {
    let len = buffer.iter().position(|byte| *byte == 0).unwrap_or(buffer.len());
    buffer[..len].to_vec()
}

/// What the compiler said.
#[derive(Default)]
pub struct Logs {
    pub info: Vec<u8>,
    pub error: Vec<u8>,
}

impl CudaBackend {
    /// Loads images into the current context: the driver's module, and the logs whatever came of it.
    pub fn load_module(&self, call: &Call<'_>, request: Request<'_>) -> (CuResult<Loaded>, Logs) {
        self.load(call, request, false, |jit, image| {
            let mut module = 0;
            // SAFETY: the image is complete (text with its NUL, machine code by its headers), the options' arrays have the length given, and
            // their log buffers the lengths among the values.
            let result = unsafe {
                let (keys, values) = (jit.keys.as_mut_ptr(), jit.values.as_mut_ptr());
                self.raw().cuModuleLoadDataEx(&mut module, image, jit.count(), keys, values)
            };
            result.map(|()| module)
        })
    }

    /// As [`CudaBackend::load_module`], independent of contexts.
    pub fn load_library(&self, call: &Call<'_>, request: Request<'_>) -> (CuResult<Loaded>, Logs) {
        self.load(call, request, true, |jit, image| {
            let mut library = 0;
            let (no_keys, no_values) = (core::ptr::null_mut(), core::ptr::null_mut());
            // SAFETY: as in `load_module`; there are no library options.
            let result = unsafe {
                let (keys, values) = (jit.keys.as_mut_ptr(), jit.values.as_mut_ptr());
                let count = jit.count();
                self.raw().cuLibraryLoadData(&mut library, image, keys, values, count, no_keys, no_values, 0)
            };
            result.map(|()| library)
        })
    }

    fn load(
        &self,
        call: &Call<'_>,
        request: Request<'_>,
        library: bool,
        load: impl FnOnce(&mut Jit, *const c_void) -> CuResult<u64>,
    ) -> (CuResult<Loaded>, Logs) {
        let images = match request.images(&call.session.registry) {
            Ok(images) => images,
            Err(status) => return (Err(status), Logs::default()),
        };
        for image in &images {
            self.output.look_at(&image.bytes);
        }
        let mut jit = Jit::new(request.options);
        let loaded = || -> CuResult<Loaded> {
            let linked;
            let image = match images.as_slice() {
                [image] if !image.has_variables_to_link() => image,
                images => {
                    linked = self.link(&mut jit, images)?;
                    &linked
                }
            };
            let Some((changed, variables)) = self.place_variables(call, &image.bytes, library)? else {
                let raw = load(&mut jit, image.terminated().as_ptr().cast())?;
                return Ok(Loaded { raw, variables: None });
            };
            // The changes lie within the file, but nobody vouches for what its tables say is there.
            let raw = if elf_is_complete(&changed) {
                load(&mut jit, changed.as_ptr().cast())
            } else {
                Err(Status::INVALID_IMAGE)
            };
            match raw {
                Ok(raw) => Ok(Loaded { raw, variables: Some(variables) }),
                Err(status) => {
                    self.variables_free(&variables);
                    Err(status)
                }
            }
        };
        let result = loaded();
        (result, jit.logs())
    }

    /// Links images to one.
    ///
    /// # Errors
    /// Those of the driver's linker.
    fn link(&self, jit: &mut Jit, images: &[Image]) -> CuResult<Image> {
        let (mut state, mut cubin, mut len) = (0, 0, 0);
        // SAFETY: as in `load_module`.
        unsafe {
            let (keys, values) = (jit.keys.as_mut_ptr(), jit.values.as_mut_ptr());
            self.raw().cuLinkCreate_v2(jit.count(), keys, values, &mut state)?;
        }
        let mut linked = || -> CuResult<Vec<u8>> {
            for image in images {
                let bytes = image.terminated();
                let input = if image.form == FORM_PTX { INPUT_PTX } else { INPUT_CUBIN };
                let data = bytes.as_ptr().cast_mut().cast();
                let (none, no_values) = (core::ptr::null_mut(), core::ptr::null_mut());
                // SAFETY: the block has the length given, and the linker copies it; there are no options.
                unsafe {
                    self.raw().cuLinkAddData_v2(
                        state,
                        input,
                        data,
                        bytes.len() as u64,
                        core::ptr::null(),
                        0,
                        none,
                        no_values,
                    )
                }?;
            }
            // SAFETY: the outputs are variables of the right types.
            unsafe { self.raw().cuLinkComplete(state, &mut cubin, &mut len) }?;
            let start = core::ptr::with_exposed_provenance::<u8>(cubin as usize);
            let len = usize::try_from(len).map_err(|_| Status::UNKNOWN)?;
            // SAFETY: the linker's result, of the length that it gave, lives until the link is destroyed below.
            Ok(unsafe { core::slice::from_raw_parts(start, len) }.to_vec())
        };
        let result = linked();
        // SAFETY: made above, and destroyed once.
        let _ = unsafe { self.raw().cuLinkDestroy(state) };
        let mut bytes = result?;
        // The stand-in of the nested tests links text to text.
        let form = if bytes.starts_with(b"\x7fELF") { FORM_CUBIN } else { FORM_PTX };
        if form == FORM_PTX {
            while bytes.last() == Some(&0) {
                bytes.pop();
            }
        }
        Ok(Image { form, bytes: bytes.into() })
    }

    /// Links images to one, which goes into the registry: its hash, form and length.
    pub fn link_to_image(
        &self,
        registry: &Registry,
        request: Request<'_>,
    ) -> (CuResult<([u8; 32], u32, u64)>, Logs) {
        let images = match request.images(registry) {
            Ok(images) => images,
            Err(status) => return (Err(status), Logs::default()),
        };
        let mut jit = Jit::new(request.options);
        let linked = self.link(&mut jit, &images).and_then(|image| {
            let hash = registry.insert(image.bytes.to_vec()).map_err(|_| Status::OUT_OF_MEMORY)?;
            Ok((hash, image.form, image.bytes.len() as u64))
        });
        (linked, jit.logs())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_numbers_pass_as_options() {
        let option = |key: u32, value: u64| {
            let mut bytes = [0; 16];
            bytes[..4].copy_from_slice(&key.to_le_bytes());
            bytes[8..].copy_from_slice(&value.to_le_bytes());
            bytes
        };
        // A log buffer, symbol names and addresses, and a wall time would be addresses of the worker.
        let options =
            [option(7, 2), option(3, 0x1000), option(17, 0x1000), option(2, 8), option(12, 1)].concat();
        let jit = Jit::new(Some(&options));
        assert_eq!(jit.keys, [3, 4, 5, 6, 7, 12]);
        assert_eq!(jit.values[4..], [2, 1]);
        assert_ne!(jit.values[0], 0x1000);
    }

    #[test]
    fn requests_that_make_no_sense_are_refused() {
        let registry = Registry::new(1 << 20, 1 << 20);
        let hash = registry.insert(b"\x7fELF and no more".to_vec()).unwrap();
        let request = |count, hashes, forms| Request { count, hashes, forms, options: None };
        let status = |request: Request<'_>| request.images(&registry).err();
        assert_eq!(status(request(1, Some(&hash), Some(&[1, 0, 0, 0]))), None);
        assert_eq!(status(request(1, Some(&hash), Some(&[2, 0, 0, 0]))), Some(Status::INVALID_IMAGE));
        assert_eq!(status(request(1, Some(&[0; 32]), Some(&[1, 0, 0, 0]))), Some(Status::INVALID_IMAGE));
        assert_eq!(status(request(2, Some(&hash), Some(&[1, 0, 0, 0]))), Some(Status::INVALID_VALUE));
        assert_eq!(status(request(0, None, None)), Some(Status::INVALID_VALUE));
    }
}
