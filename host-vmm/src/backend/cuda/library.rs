#![allow(unsafe_code)] // Loads a library and takes addresses of its functions.
//! The real libcuda.

use core::ffi::{CStr, c_void};
use std::path::Path;

use libloading::os::unix::{Library, RTLD_LOCAL, RTLD_NOW};

use protocol::status::CuResult;

use crate::generated::cuda_raw::Raw;

/// What the shim exports, and the driver does not.
const MARKER: &CStr = c"host_vmm_shim_marker";

/// What is opened unless `--libcuda` says otherwise.
const DEFAULT: &str = "libcuda.so.1";

/// What the shim exports instead when it is built to stand in for the driver in tests (its feature `nested-driver`).
const NESTED_MARKER: &CStr = c"host_vmm_shim_nested";

/// The driver's library.
pub struct Driver {
    pub raw: Raw,
    /// It is the shim, built for tests.
    pub nested: bool,
}

impl Driver {
    /// Initialises the driver and counts the devices.
    ///
    /// # Errors
    /// Those of the driver.
    pub fn count_devices(&self) -> CuResult<i32> {
        let mut count = 0;
        // SAFETY: the output is a variable of the right type.
        unsafe {
            self.raw.cuInit(0)?;
            self.raw.cuDeviceGetCount(&mut count)?;
        }
        Ok(count)
    }
}

/// Why the driver cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    #[error("cannot load {name}: {source}")]
    Open { name: String, source: libloading::Error },
    /// The shim would send every call back here.
    #[error(
        "{name} is this project's own shim, not NVIDIA's driver library; take it off LD_LIBRARY_PATH or give --libcuda PATH"
    )]
    Shim { name: String },
    #[error("{name} has no cuInit: it is no CUDA driver library")]
    NotADriver { name: String },
}

/// Opens the driver's library and looks its functions up. It stays loaded for the life of the process.
///
/// # Errors
/// There is none, or it is the shim.
pub fn load(path: Option<&Path>) -> Result<Driver, LoadError> {
    let name = path.map_or_else(|| DEFAULT.to_owned(), |path| path.display().to_string());
    let file = path.unwrap_or(Path::new(DEFAULT));
    // SAFETY: the operator vouches for the library whose initialisers run here, as for any shared library.
    let library = unsafe { Library::open(Some(file), RTLD_NOW | RTLD_LOCAL) };
    let library = library.map_err(|source| LoadError::Open { name: name.clone(), source })?;
    let find = |symbol: &CStr| -> *mut c_void {
        // SAFETY: the symbol is only looked up here, as an address.
        let found = unsafe { library.get::<*mut c_void>(symbol.to_bytes_with_nul()) };
        found.map_or(core::ptr::null_mut(), |symbol| symbol.as_raw_ptr())
    };
    if !find(MARKER).is_null() {
        return Err(LoadError::Shim { name });
    }
    if find(c"cuInit").is_null() {
        return Err(LoadError::NotADriver { name });
    }
    // SAFETY: the names are those of the CUDA driver API, which the library implements, and it is never unloaded.
    let raw = unsafe { Raw::load(find) };
    let nested = !find(NESTED_MARKER).is_null();
    std::mem::forget(library);
    Ok(Driver { raw, nested })
}

#[cfg(test)]
mod tests {
    use protocol::status::Status;

    use super::*;

    /// A shared library made of a few lines of C.
    fn library(dir: &Path, source: &str) -> std::path::PathBuf {
        let (code, path) = (dir.join("code.c"), dir.join("libcuda.so.1"));
        std::fs::write(&code, source).unwrap();
        let built = std::process::Command::new("cc")
            .args(["-shared", "-fPIC", "-o"])
            .arg(&path)
            .arg(&code)
            .status()
            .expect("a C compiler is needed");
        assert!(built.success());
        path
    }

    #[test]
    fn the_shim_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path =
            library(dir.path(), "int host_vmm_shim_marker = 1; unsigned cuInit(unsigned f) { return f; }");
        let error = load(Some(&path)).err().expect("the shim was taken for a driver");
        assert!(matches!(error, LoadError::Shim { .. }), "{error}");
    }

    #[test]
    fn a_library_without_the_driver_api_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = library(dir.path(), "int nothing;");
        assert!(matches!(load(Some(&path)), Err(LoadError::NotADriver { .. })));
        assert!(matches!(load(Some(&dir.path().join("absent.so"))), Err(LoadError::Open { .. })));
    }

    #[test]
    fn results_pass_and_missing_functions_are_not_supported() {
        let dir = tempfile::tempdir().unwrap();
        let path = library(dir.path(), "unsigned cuInit(unsigned f) { return f; }");
        let Driver { raw, nested } = load(Some(&path)).unwrap();
        assert!(!nested);
        // SAFETY: the library's cuInit returns its argument.
        unsafe {
            assert_eq!(raw.cuInit(0), Ok(()));
            assert_eq!(raw.cuInit(719), Err(Status(719)));
            assert_eq!(raw.cuCtxSynchronize(), Err(Status::NOT_SUPPORTED));
        }
    }
}
