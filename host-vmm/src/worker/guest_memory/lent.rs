//! Memory that the program lends for a copy: pages of its own, wherever they are in the machine's memory.
//!
//! Where the machine's files are [mapped as a whole](Whole), they are copied there. Otherwise they are read and written through the files. Mapping them and touching each page
//! costs most of the time of a copy (on two processors of a virtual machine 64 MiB took 18 ms to map, read and unmap, 9 ms to read by two threads; 37 ms to map, write
//! and unmap, 12 ms to write), and each scattered page would be a mapping of its own. But only one thread at a time writes to a file; so longer pieces are mapped for writing, with
//! their pages filled in at once (11 ms, and threads do not wait for each other).
//!
//! Later, on the same kind of machine and in use, 64 MiB took up to four threads 2 to 6 ms where they were mapped already, 18 ms to map, write and unmap, 13 to 14 ms to read and 15 to
//! 19 ms to write through the file.
#![allow(unsafe_code)] // The other side of a copy is named by its address.

use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::sync::Arc;

use protocol::status::{CuResult, Status};
use ptx_cpu::region::guarded_copy;
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

use super::{Run, Whole};

/// Bytes in one piece that are worth a mapping.
const WORTH_MAPPING: u64 = 128 << 10;

/// Which way a copy goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From what is lent.
    Read,
    /// Into it.
    Write,
}

/// Bytes that lie in several places of several files, one after the other.
pub struct Scattered {
    files: Arc<[OwnedFd]>,
    runs: Vec<Run>,
    /// Where each run ends, counted from the start of the first.
    ends: Vec<u64>,
    /// The files, mapped.
    whole: Option<Arc<Whole>>,
}

impl Scattered {
    pub fn new(files: Arc<[OwnedFd]>, runs: Vec<Run>) -> Self {
        let ends = runs.iter().scan(0u64, |end, run| {
            *end = end.saturating_add(run.len);
            Some(*end)
        });
        let ends = ends.collect();
        Self { files, runs, ends, whole: None }
    }

    /// The files that the bytes lie in.
    pub fn files(&self) -> &Arc<[OwnedFd]> {
        &self.files
    }

    /// Copies go by way of this mapping of the same files from now on, as far as it reaches.
    pub fn use_whole(&mut self, whole: Arc<Whole>) {
        self.whole = Some(whole);
    }

    /// Bytes of all runs.
    pub fn total(&self) -> u64 {
        self.ends.last().copied().unwrap_or(0)
    }

    /// Whether `len` bytes lie there from an offset on.
    ///
    /// # Errors
    /// INVALID_VALUE if not.
    pub fn check(&self, offset: u64, len: u64) -> CuResult {
        let fits = len <= self.total() && offset <= self.total() - len;
        if fits { Ok(()) } else { Err(Status::INVALID_VALUE) }
    }

    /// Copies `len` bytes between an offset of this and `memory`.
    ///
    /// # Errors
    /// The bytes lie beyond the end of this or of a file, or `memory` is gone (the kernel looks).
    ///
    /// # Safety
    /// `memory` is that of `len` bytes which no Rust reference points into: written by [`Direction::Read`], read by [`Direction::Write`].
    pub unsafe fn copy(
        &self,
        direction: Direction,
        mut offset: u64,
        mut memory: *mut u8,
        mut len: u64,
    ) -> io::Result<()> {
        self.check(offset, len).map_err(|_| io::Error::from(io::ErrorKind::UnexpectedEof))?;
        let mut index = self.ends.partition_point(|end| *end <= offset);
        while len > 0 {
            let (Some(run), Some(end)) = (self.runs.get(index), self.ends.get(index)) else {
                return Err(io::ErrorKind::UnexpectedEof.into());
            };
            let file = self.files.get(run.file).ok_or(io::ErrorKind::NotFound)?;
            let part = len.min(end - offset);
            let at = run.offset.checked_add(run.len - (end - offset)).ok_or(io::ErrorKind::InvalidInput)?;
            if let Some(place) = self.whole.as_ref().and_then(|whole| whole.place(run.file, at, part)) {
                let (dst, src) = match direction {
                    Direction::Read => (memory, place.as_ptr()),
                    Direction::Write => (place.as_ptr(), memory),
                };
                // SAFETY: the part lies within `memory`, by the caller's word and since `part <= len`; the mapping has as many bytes there, for good, unless the file has
                // become shorter, which the guard is for. No reference points into either.
                unsafe { guarded_copy(dst, src, part as usize) }.map_err(io::Error::other)?;
            } else {
                let mapped = direction == Direction::Write && part >= WORTH_MAPPING;
                // SAFETY: as above.
                let mapped = mapped && unsafe { write_mapped(file, at, memory, part) }.is_ok();
                if !mapped {
                    // SAFETY: as above.
                    unsafe { transfer(direction, file, at, memory, part) }?;
                }
            }
            // SAFETY: as above; at most the end of `memory`.
            memory = unsafe { memory.add(part as usize) };
            (offset, len, index) = (offset + part, len - part, index + 1);
        }
        Ok(())
    }
}

/// Copies `len` bytes between a place in a file and `memory`.
///
/// # Safety
/// As for [`Scattered::copy`].
unsafe fn transfer(
    direction: Direction,
    file: &OwnedFd,
    mut at: u64,
    mut memory: *mut u8,
    mut len: u64,
) -> io::Result<()> {
    while len > 0 {
        let place = libc::off_t::try_from(at).map_err(|_| io::ErrorKind::InvalidInput)?;
        let (fd, count) = (file.as_raw_fd(), len as usize);
        // SAFETY: `memory` has `len` bytes, by the caller's word. The kernel checks that it is there.
        let moved = unsafe {
            match direction {
                Direction::Read => libc::pread(fd, memory.cast(), count, place),
                Direction::Write => libc::pwrite(fd, memory.cast(), count, place),
            }
        };
        match moved {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            1.. => {
                // SAFETY: at most `len` bytes have been moved.
                memory = unsafe { memory.add(moved as usize) };
                (at, len) = (at + moved as u64, len - moved as u64);
            }
            _ => {
                let error = io::Error::last_os_error();
                match error.raw_os_error() {
                    Some(libc::EINTR) => {}
                    // Files of huge pages can be read and mapped, but not written.
                    Some(libc::EINVAL) if direction == Direction::Write => {
                        // SAFETY: the caller's promise.
                        return unsafe { write_mapped(file, at, memory, len) };
                    }
                    _ => return Err(error),
                }
            }
        }
    }
    Ok(())
}

/// As `transfer`, into a file that cannot be written, or by several threads at a time.
///
/// # Safety
/// As for [`Scattered::copy`].
unsafe fn write_mapped(file: &OwnedFd, at: u64, memory: *mut u8, len: u64) -> io::Result<()> {
    let stat = rustix::fs::fstat(file)?;
    let page = u64::try_from(stat.st_blksize).unwrap_or(4096).max(4096);
    let end = at.checked_add(len).filter(|end| *end <= i64::MAX as u64).ok_or(io::ErrorKind::InvalidInput)?;
    // A mapping reaches beyond a file's end, an access does not.
    if u64::try_from(stat.st_size).is_ok_and(|size| end > size) {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let start = at / page * page;
    let mapped = (end.next_multiple_of(page) - start) as usize;
    let (prot, flags) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED | MapFlags::POPULATE);
    // SAFETY: a new mapping, at an address of the kernel's choice.
    let place = unsafe { mmap(std::ptr::null_mut(), mapped, prot, flags, file, start) }?;
    // SAFETY: `memory` has `len` bytes by the caller's word, or is gone, which the guard is for; the mapping has as many from `at` on, unless the file has become
    // shorter. No reference points into either.
    let copied = unsafe { guarded_copy(place.cast::<u8>().add((at - start) as usize), memory, len as usize) };
    // SAFETY: mapped above, and not used any more.
    unsafe { munmap(place, mapped) }?;
    copied.map_err(io::Error::other)
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::unix::fs::FileExt as _;

    use proptest::prelude::*;
    use rustix::fs::{MemfdFlags, ftruncate, memfd_create};

    use super::*;

    const PAGE: u64 = 4096;

    fn file(pages: u64, flags: MemfdFlags) -> io::Result<OwnedFd> {
        let file = memfd_create("machine", flags | MemfdFlags::CLOEXEC)?;
        ftruncate(&file, pages * PAGE)?;
        Ok(file)
    }

    /// Two files whose bytes tell where they are.
    fn files(pages: u64) -> Arc<[OwnedFd]> {
        let filled = |salt: u64| {
            let fd = file(pages, MemfdFlags::empty()).unwrap();
            let bytes: Vec<u8> = (0..pages * PAGE).map(|at| (at / 7 + at / PAGE * 31 + salt) as u8).collect();
            let file = File::from(fd);
            file.write_all_at(&bytes, 0).unwrap();
            OwnedFd::from(file)
        };
        [filled(0), filled(99)].into()
    }

    fn contents(file: &OwnedFd, pages: u64) -> Vec<u8> {
        let mut bytes = vec![0; (pages * PAGE) as usize];
        File::from(file.try_clone().unwrap()).read_exact_at(&mut bytes, 0).unwrap();
        bytes
    }

    fn read(scattered: &Scattered, offset: u64, len: u64) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; len as usize];
        // SAFETY: a block of that length, which is not looked at meanwhile.
        unsafe { scattered.copy(Direction::Read, offset, bytes.as_mut_ptr(), len) }?;
        Ok(bytes)
    }

    fn write(scattered: &Scattered, offset: u64, mut bytes: Vec<u8>) -> io::Result<()> {
        let len = bytes.len() as u64;
        // SAFETY: a block of that length.
        unsafe { scattered.copy(Direction::Write, offset, bytes.as_mut_ptr(), len) }
    }

    /// As the CUDA backend does.
    fn map(scattered: &mut Scattered) {
        scattered.use_whole(Arc::new(Whole::map(scattered.files(), |_| None)));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// Against a flat copy of the same bytes.
        #[test]
        fn it_is_one_block(
            runs in prop::collection::vec((0..2usize, 0..12u64, 1..4u64), 1..8),
            pieces in prop::collection::vec((any::<prop::sample::Index>(), 0..20_000u64, any::<bool>()), 1..6),
            mapped: bool,
        ) {
            let files = files(16);
            // Each page once, as pages of a program are; then a page is written in one place only.
            let mut seen = std::collections::HashSet::new();
            let runs: Vec<Run> = runs
                .into_iter()
                .filter(|(file, page, count)| (*page..page + count).all(|page| seen.insert((*file, page))))
                .map(|(file, page, count)| Run { file, offset: page * PAGE, len: count * PAGE })
                .collect();
            let mut scattered = Scattered::new(Arc::clone(&files), runs.clone());
            if mapped {
                map(&mut scattered);
            }
            let flat = || -> Vec<u8> {
                runs.iter().flat_map(|run| {
                    let bytes = contents(&files[run.file], 16);
                    bytes[run.offset as usize..(run.offset + run.len) as usize].to_vec()
                }).collect()
            };
            prop_assert_eq!(scattered.total(), flat().len() as u64);
            for (start, len, out) in pieces {
                let mut expected = flat();
                let start = start.index(expected.len() + 1);
                let beyond = start as u64 + len > expected.len() as u64;
                if out {
                    let found = read(&scattered, start as u64, len);
                    prop_assert_eq!(found.is_err(), beyond);
                    if let Ok(found) = found {
                        prop_assert_eq!(&found, &expected[start..start + len as usize]);
                    }
                } else {
                    let bytes: Vec<u8> = (0..len).map(|at| (at * 13) as u8).collect();
                    let written = write(&scattered, start as u64, bytes.clone());
                    prop_assert_eq!(written.is_err(), beyond);
                    if written.is_ok() {
                        expected[start..start + len as usize].copy_from_slice(&bytes);
                    }
                    prop_assert_eq!(flat(), expected);
                }
            }
        }
    }

    #[test]
    fn places_that_are_not_there_are_errors() {
        let files = files(4);
        let beyond = Run { file: 0, offset: 3 * PAGE, len: 2 * PAGE };
        let scattered = Scattered::new(Arc::clone(&files), vec![beyond]);
        assert_eq!(read(&scattered, 0, 2 * PAGE).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        let nowhere = Run { file: 2, offset: 0, len: PAGE };
        let far = Run { file: 0, offset: 1 << 63, len: PAGE };
        for run in [nowhere, far] {
            let scattered = Scattered::new(Arc::clone(&files), vec![run]);
            assert!(read(&scattered, 0, PAGE).is_err());
            assert!(write(&scattered, 0, vec![0; 16]).is_err());
        }
        let scattered = Scattered::new(Arc::clone(&files), vec![Run { file: 0, offset: 0, len: PAGE }]);
        for (offset, len) in [(0, PAGE + 1), (PAGE, 1), (u64::MAX, 1), (1, u64::MAX)] {
            assert_eq!(scattered.check(offset, len), Err(Status::INVALID_VALUE));
        }
        // Memory that is not there: the kernel says so.
        // SAFETY: nothing is mapped there for anybody, which is the point.
        let result = unsafe {
            scattered.copy(Direction::Read, 0, std::ptr::without_provenance_mut(PAGE as usize), 16)
        };
        assert_eq!(result.unwrap_err().raw_os_error(), Some(libc::EFAULT));
        // Also where a piece is long enough to be mapped: the guard ends that, and the kernel is asked.
        ptx_cpu::fault::install().expect("fault handlers");
        let files: Arc<[OwnedFd]> = [file(64, MemfdFlags::empty()).unwrap()].into();
        let scattered = Scattered::new(files, vec![Run { file: 0, offset: 0, len: 64 * PAGE }]);
        // SAFETY: as above.
        let result = unsafe {
            scattered.copy(Direction::Write, 0, std::ptr::without_provenance_mut(PAGE as usize), 64 * PAGE)
        };
        assert_eq!(result.unwrap_err().raw_os_error(), Some(libc::EFAULT));
    }

    #[test]
    fn a_file_that_changes_its_length_after_it_was_mapped() {
        ptx_cpu::fault::install().expect("fault handlers");
        let files = files(8);
        let resize = |pages: u64| ftruncate(&files[0], pages * PAGE).unwrap();
        resize(4);
        let run = |offset: u64, len: u64| {
            let run = Run { file: 0, offset: offset * PAGE, len: len * PAGE };
            Scattered::new(Arc::clone(&files), vec![run])
        };
        let mut longer = run(3, 3);
        map(&mut longer);
        let whole = longer.whole.clone().unwrap();
        assert!(whole.place(0, 0, 4 * PAGE).is_some());
        for (file, offset, len) in
            [(0, 3 * PAGE, 2 * PAGE), (0, u64::MAX, 2), (0, 4 * PAGE + 1, 0), (2, 0, 1)]
        {
            assert!(whole.place(file, offset, len).is_none());
        }
        // It has grown: what is beyond the mapping is copied all the same.
        resize(6);
        let bytes: Vec<u8> = (0..3 * PAGE).map(|at| (at % 251) as u8).collect();
        write(&longer, 0, bytes.clone()).unwrap();
        assert_eq!(read(&longer, 0, 3 * PAGE).unwrap(), bytes);
        assert_eq!(&contents(&files[0], 6)[3 * PAGE as usize..], bytes);
        // It has shrunk: an error, and what is left can be used.
        resize(2);
        let mut shorter = run(1, 3);
        shorter.use_whole(whole);
        assert!(read(&shorter, 0, 3 * PAGE).is_err());
        assert!(write(&shorter, 0, bytes.clone()).is_err());
        write(&shorter, 0, bytes[..PAGE as usize].to_vec()).unwrap();
        assert_eq!(read(&shorter, 0, PAGE).unwrap(), &bytes[..PAGE as usize]);
    }

    #[test]
    fn files_are_mapped_where_there_is_room_for_them() {
        let files = files(4);
        let flags = rustix::mm::MapFlags::PRIVATE | rustix::mm::MapFlags::NORESERVE;
        // SAFETY: a new mapping, of which nothing is used but by those that replace a part of it.
        let room =
            unsafe { rustix::mm::mmap_anonymous(std::ptr::null_mut(), 4 << 30, ProtFlags::empty(), flags) };
        let next = std::cell::Cell::new((room.unwrap().expose_provenance() as u64).next_multiple_of(1 << 30));
        let whole = Whole::map(&files, |len| {
            assert_eq!(len, 1 << 30);
            Some(next.replace(next.get() + len))
        });
        let at = |file| whole.place(file, 0, 4 * PAGE).unwrap().as_ptr().expose_provenance() as u64;
        assert_eq!([at(0), at(1)], [next.get() - (2 << 30), next.get() - (1 << 30)]);
        // What is no file of memory is not mapped.
        let (pipe, _other) = rustix::pipe::pipe().unwrap();
        assert!(Whole::map(&[pipe], |_| None).place(0, 0, 0).is_none());
    }

    #[test]
    fn files_of_huge_pages_are_written_too() {
        const HUGE: u64 = 2 << 20;
        let made = file(2 * HUGE / PAGE, MemfdFlags::HUGETLB | MemfdFlags::HUGE_2MB);
        let Ok(huge) = made else { return println!("skipped: no files of huge pages") };
        let run = Run { file: 0, offset: HUGE - PAGE, len: 2 * PAGE };
        let scattered = Scattered::new([huge].into(), vec![run]);
        let bytes: Vec<u8> = (0..6000u64).map(|at| at as u8).collect();
        match write(&scattered, 1000, bytes.clone()) {
            Ok(()) => assert_eq!(read(&scattered, 1000, 6000).unwrap(), bytes),
            Err(error) => {
                // The system has set no such pages aside.
                assert_eq!(error.raw_os_error(), Some(libc::ENOMEM), "{error}");
                println!("skipped: {error}");
            }
        }
    }
}
