//! Handles of memory that one program gives to another as a file descriptor.
//!
//! The driver's descriptor stays on the host, where it is of use. The program gets a sealed file in memory with a ticket by which any session's
//! worker finds it: programs pass it on as they would pass the driver's, and whoever has it may import.

use std::os::fd::{BorrowedFd, IntoRawFd, RawFd};

use protocol::status::Status;
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};
use rustix::io::{pread, pwrite};

/// First bytes of such a file.
const MAGIC: [u8; 16] = *b"cuda host memory";

/// Bytes of a ticket: the name of a worker, and a secret.
const TICKET: usize = 32;

/// A descriptor that stands for the memory; it is the program's to close.
pub fn create(shared: &[u8; 64]) -> Result<RawFd, Status> {
    let failed = |error| {
        crate::log!(Error, "no descriptor for shared memory: {error}");
        Status::OPERATING_SYSTEM
    };
    let file = memfd_create("cuda-shared-memory", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)
        .map_err(failed)?;
    let mut bytes = MAGIC.to_vec();
    bytes.extend_from_slice(&shared[..TICKET]);
    if pwrite(&file, &bytes, 0).map_err(failed)? != bytes.len() {
        return Err(Status::OPERATING_SYSTEM);
    }
    let seals = SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL;
    fcntl_add_seals(&file, seals).map_err(failed)?;
    Ok(file.into_raw_fd())
}

/// What `create` was given; INVALID_VALUE for any other descriptor.
pub fn read(file: BorrowedFd<'_>) -> Result<[u8; 64], Status> {
    let mut bytes = [0; MAGIC.len() + TICKET];
    match pread(file, &mut bytes, 0) {
        Ok(len) if len == bytes.len() && bytes.starts_with(&MAGIC) => {
            let mut shared = [0; 64];
            shared[..TICKET].copy_from_slice(&bytes[MAGIC.len()..]);
            Ok(shared)
        }
        _ => Err(Status::INVALID_VALUE),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::{AsFd, FromRawFd, OwnedFd};

    #[test]
    #[allow(unsafe_code)] // Takes over a descriptor.
    fn a_descriptor_brings_the_ticket() {
        let mut shared = [0; 64];
        shared[..TICKET].copy_from_slice(&[7; TICKET]);
        // SAFETY: just made, and owned by nobody else.
        let file = unsafe { OwnedFd::from_raw_fd(create(&shared).unwrap()) };
        let copy = file.try_clone().unwrap();
        drop(file);
        assert_eq!(read(copy.as_fd()), Ok(shared));
        assert!(pwrite(&copy, b"other", 0).is_err(), "it is sealed");
        let other = std::fs::File::open("/dev/null").unwrap();
        assert_eq!(read(other.as_fd()), Err(Status::INVALID_VALUE));
    }
}
