//! True length of an ELF file from its own headers, for images whose size nothing else says.

use crate::bytes::{Fields, array};
use crate::error::{Error, ErrorKind, Result};
use crate::raw;

const EHDR_LEN: usize = 64;
const PHDR_LEN: u64 = 56;
const SHDR_LEN: u64 = 64;
const SHT_NOBITS: u32 = 8;
/// More sections than a cubin can number; bounds the work on hostile headers.
const MAX_TABLE: u64 = 1 << 20;

/// Length of the 64-bit little-endian ELF file at the start of `image`.
///
/// # Errors
/// If it is no such file or its headers lie outside of `image`.
pub fn elf_len(image: &[u8]) -> Result<usize> {
    let len = elf_len_with(|offset, buffer| {
        let start = usize::try_from(offset).ok()?;
        buffer.copy_from_slice(image.get(start..start.checked_add(buffer.len())?)?);
        Some(())
    })?;
    match usize::try_from(len) {
        Ok(len) if len <= image.len() => Ok(len),
        _ => {
            let kind = ErrorKind::Truncated { need: len, have: image.len() as u64 };
            Err(Error::new("ELF file", 0, kind))
        }
    }
}

/// As [`elf_len`], for memory that only the caller can read: `read(offset, buffer)` fills `buffer` with the bytes at
/// `offset` from the start of the file, or says `None`. It is asked for 64 bytes at most at a time.
///
/// # Errors
/// If it is no 64-bit little-endian ELF file, its tables are absurd, or `read` fails.
pub fn elf_len_with(mut read: impl FnMut(u64, &mut [u8]) -> Option<()>) -> Result<u64> {
    let mut bytes = [0; EHDR_LEN];
    read(0, &mut bytes).ok_or_else(|| unreadable("ELF header", 0, EHDR_LEN as u64))?;
    if bytes.first_chunk() != Some(&raw::ELF_MAGIC) {
        let found = array(&bytes, 0).map_or(0, u32::from_le_bytes);
        return Err(Error::new("ELF magic", 0, ErrorKind::BadMagic { found }));
    }
    // EI_CLASS and EI_DATA: 64-bit, little-endian.
    if bytes[4..6] != [2, 1] {
        let found = u64::from(u16::from_be_bytes([bytes[4], bytes[5]]));
        let kind = ErrorKind::Unsupported { what: "ELF class or byte order", found };
        return Err(Error::new("ELF identification", 4, kind));
    }
    let mut f = Fields::new(&bytes[32..]);
    let (phoff, shoff, _flags) = (f.u64(), f.u64(), f.u32());
    let (ehsize, phentsize, phnum, shentsize, shnum) = (f.u16(), f.u16(), f.u16(), f.u16(), f.u16());

    let mut end = u64::from(ehsize).max(EHDR_LEN as u64);
    let mut grow = |start: u64, len: u64, field: &'static str, at: u64| match start.checked_add(len) {
        Some(sum) => {
            end = end.max(sum);
            Ok(())
        }
        None => Err(Error::new(field, at, ErrorKind::BadValue { found: len, rule: "is beyond all memory" })),
    };

    if phnum != 0 {
        check_entry_size(phentsize, PHDR_LEN, "ELF program header size", 54)?;
        grow(phoff, u64::from(phnum) * PHDR_LEN, "ELF program header offset", 32)?;
        for i in 0..u64::from(phnum) {
            let at = phoff.saturating_add(i * PHDR_LEN);
            let mut bytes = [0; PHDR_LEN as usize];
            read(at, &mut bytes).ok_or_else(|| unreadable("ELF program header", at, PHDR_LEN))?;
            let mut f = Fields::new(&bytes[8..]);
            let (offset, _vaddr, _paddr, filesz) = (f.u64(), f.u64(), f.u64(), f.u64());
            if filesz != 0 {
                grow(offset, filesz, "ELF segment", at)?;
            }
        }
    }
    if shoff != 0 {
        check_entry_size(shentsize, SHDR_LEN, "ELF section header size", 58)?;
        let mut count = u64::from(shnum);
        let mut i = 0;
        // Section 0 exists in every table; with a zero count in the header it holds the true one.
        while i < count.max(1) {
            let at = shoff.saturating_add(i * SHDR_LEN);
            let mut bytes = [0; SHDR_LEN as usize];
            read(at, &mut bytes).ok_or_else(|| unreadable("ELF section header", at, SHDR_LEN))?;
            let mut f = Fields::new(&bytes[4..]);
            let (kind, _flags, _addr, offset, size) = (f.u32(), f.u64(), f.u64(), f.u64(), f.u64());
            if i == 0 {
                if count == 0 {
                    count = size;
                }
                if count > MAX_TABLE {
                    let kind = ErrorKind::TooLarge { size: count, limit: MAX_TABLE };
                    return Err(Error::new("ELF section count", 60, kind));
                }
                grow(shoff, count * SHDR_LEN, "ELF section header offset", 40)?;
            } else if kind != SHT_NOBITS && size != 0 {
                grow(offset, size, "ELF section", at)?;
            }
            i += 1;
        }
    }
    Ok(end)
}

fn check_entry_size(found: u16, expected: u64, field: &'static str, at: u64) -> Result<()> {
    if u64::from(found) == expected {
        return Ok(());
    }
    let kind = ErrorKind::BadValue { found: found.into(), rule: "is not the size of this header" };
    Err(Error::new(field, at, kind))
}

fn unreadable(field: &'static str, offset: u64, need: u64) -> Error {
    Error::new(field, offset, ErrorKind::Truncated { need, have: 0 })
}
