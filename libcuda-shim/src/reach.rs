#![allow(unsafe_code)]
//! Registered memory that the device reaches.
//!
//! `cuMemHostRegister` promises that kernels may use memory which the program has already. The worker cannot see it by itself; so it is made reachable for those who use that: by the flag
//! DEVICEMAP, `cuMemHostGetDevicePointer`, the attribute of the pointer, or a launch that is given an address of it.
//!
//! * In a virtual machine with a memory broker the pages are pinned where they are, and the worker maps them: any memory that the program may write to.
//! * Otherwise pages of the window, which both see, take the place of the program's: they get the same bytes, at the same address, while nobody writes there ([`crate::freeze`]). When the registration
//!   ends, private pages take their place again. Only private, anonymous memory whose pages are the range's alone: a child of a fork copies them ([`crate::fork`]), but what else may lie in a
//!   page, the heap's own words say, changes before it can.
//!
//! Other registered memory is known, and copies of it are right.
//!
//! Unsafe because pages of the program are replaced, or shown to the host.

use core::ffi::c_void;
use std::fs::read_to_string;
use std::ops::Range;

use guest_device::{Device, Pinned};
use protocol::status::{CuResult, Status};
use rustix::fs::{FallocateFlags, fallocate};
use rustix::mm::{MapFlags, MremapFlags, ProtFlags, mmap, mmap_anonymous, mremap_fixed, munmap};
use transport::Window;

use crate::areas::{Area, Areas, Covered};
use crate::freeze::Frozen;
use crate::generated::wire;
use crate::process::process;

const PAGE: usize = 4096;

/// Bytes that are copied at a time: so many are there twice.
const PIECE: usize = 64 << 20;

/// What of its stack a thread may write to while it replaces pages: more than the frames of the functions here, and of those that they call.
const STACK_BELOW: usize = 256 << 10;
const STACK_ABOVE: usize = 64 << 10;

/// Where the device reaches a registered range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reached {
    /// Its place in the window, if it is in one piece there.
    pub window: Option<u64>,
    /// Whether that is so at the program's own address, too. One of the two is.
    pub aliased: bool,
    /// From where to where it needs pages of areas; none where pages are pinned.
    pub replaced: Option<(usize, usize)>,
}

/// Lets the device reach a range that is registered. What is pinned for that is to be kept as long as it does.
///
/// # Errors
/// NOT_SUPPORTED for a range that cannot be; those of the host.
pub fn reach(
    range: Range<usize>,
    flags: u32,
    areas: &mut Areas,
) -> Result<(Reached, Option<Pinned>), Status> {
    let session = process().session.get().ok_or(Status::NOT_INITIALIZED)?;
    let reached = match (session.window(), session.broker()) {
        (Some(window), _) => by_replacing(window, &range, flags, areas).map(|reached| (reached, None)),
        (None, Some(broker)) => {
            by_pinning(broker, &range, flags).map(|(reached, pinned)| (reached, Some(pinned)))
        }
        (None, None) => Err("this session shares no memory with the host".into()),
    };
    reached.map_err(|why| {
        crate::log!(Warn, "kernels do not reach registered memory at {:#x}: {why}", range.start);
        Status::NOT_SUPPORTED
    })
}

fn by_pinning(broker: &Device, range: &Range<usize>, flags: u32) -> Result<(Reached, Pinned), String> {
    let at = core::ptr::with_exposed_provenance_mut(range.start);
    // SAFETY: the program has given the range for the device to use. The host writes what kernels write.
    let pinned = unsafe { broker.pin(at, range.len()) }.map_err(|error| error.to_string())?;
    let (region, len, offset) = (pinned.region(), pinned.region_bytes(), pinned.offset_bytes());
    let page = (range.start as u64).wrapping_sub(offset);
    let (mut place, mut aliased) = (0, 0);
    wire::registered_lend(page, region, len, flags, Some(&mut place), Some(&mut aliased))
        .map_err(|status| format!("the host cannot map it ({status:?})"))?;
    Ok((Reached { window: Some(place + offset), aliased: aliased != 0, replaced: None }, pinned))
}

/// The pages that a range is in.
fn pages_of(range: &Range<usize>) -> Option<Range<usize>> {
    Some(range.start / PAGE * PAGE..range.end.checked_next_multiple_of(PAGE)?)
}

/// The bytes before a block of glibc's `malloc`: how far the block's mapping began before them, if it has one of its own, and the length of the rest with this bit set (`malloc/malloc.c`: `prev_size`,
/// `size`, `IS_MMAPPED`).
const HEADER: usize = 16;
const IS_MMAPPED: usize = 2;
const FLAGS: usize = 7;

/// Pages with a range in them that nothing else is in: whole ones, or those of a block for which `malloc` has made a mapping.
fn own_pages(maps: &str, range: &Range<usize>) -> Option<Range<usize>> {
    let pages = pages_of(range)?;
    if pages == *range {
        return Some(pages);
    }
    let header = range.start.checked_sub(HEADER).filter(|header| header.is_multiple_of(HEADER))?;
    let mapped = cover(maps, &(header..range.end), |mapping| mapping.is_private_memory())?;
    // SAFETY: mapped and readable, as was just seen; the words before a block are written by nobody but the allocator, when the block comes and goes.
    let [before, rest] = unsafe { core::ptr::with_exposed_provenance::<[usize; 2]>(header).read_volatile() };
    let block = header.checked_sub(before)?..header.checked_add(rest & !FLAGS)?;
    let whole = block.start.is_multiple_of(PAGE) && block.end.is_multiple_of(PAGE);
    let inside = mapped.start <= block.start && block.end <= mapped.end && range.end <= block.end;
    (rest & IS_MMAPPED != 0 && whole && inside).then_some(block)
}

fn by_replacing(
    window: &Window,
    range: &Range<usize>,
    flags: u32,
    areas: &mut Areas,
) -> Result<Reached, String> {
    let maps = read_to_string("/proc/self/maps").map_err(|error| format!("/proc/self/maps: {error}"))?;
    let there = pages_of(range).filter(|pages| areas.gaps(pages).is_empty());
    let pages = there
        .or_else(|| own_pages(&maps, range))
        .ok_or("it is not of whole pages, nor a block that malloc has mapped by itself")?;
    let mut added = Vec::new();
    let mut outcome = Ok(());
    for gap in areas.gaps(&pages) {
        match check(&maps, &gap).and_then(|()| add(window, gap, flags)) {
            Ok(area) => {
                added.push(area.pages.start);
                areas.insert(area);
            }
            Err(why) => {
                outcome = Err(why);
                break;
            }
        }
    }
    let Covered { place, aliased } = areas.covered(&pages);
    if outcome.is_ok() && place.is_none() && !aliased {
        outcome =
            Err("it shares pages with other registrations, and has another address on the device".into());
    }
    if let Err(why) = outcome {
        areas.unused(&added).into_iter().for_each(|area| {
            let _ = give_back(&area);
        });
        return Err(why);
    }
    areas.enter(&pages);
    let window = place.map(|place| place + (range.start - pages.start) as u64);
    Ok(Reached { window, aliased, replaced: Some((pages.start, pages.end)) })
}

/// Whether pages can be replaced.
///
/// # Errors
/// Why not, to be read by people.
fn check(maps: &str, pages: &Range<usize>) -> Result<(), String> {
    if cover(maps, pages, |mapping| mapping.is_private_memory()).is_none() {
        return Err("it is not private, anonymous, writable memory".into());
    }
    // This thread writes there all the while.
    let here = (&raw const pages).addr();
    if overlap(pages, &(here.saturating_sub(STACK_BELOW)..here.saturating_add(STACK_ABOVE))) {
        return Err("it is on the stack of the thread that uses it".into());
    }
    Ok(())
}

/// Replaces pages.
fn add(window: &Window, pages: Range<usize>, flags: u32) -> Result<Area, String> {
    let (mut place, mut aliased) = (0, 0);
    wire::registered_map(pages.start as u64, pages.len() as u64, flags, Some(&mut place), Some(&mut aliased))
        .map_err(|status| format!("the host has no memory for it ({status:?})"))?;
    crate::fork::watch();
    // SAFETY: private memory of the program, a part of which it has given for the registration; the place is theirs from now on.
    unsafe { replace(window, place, &pages) }?;
    Ok(Area::new(pages, place, aliased != 0))
}

/// Parts of pages that are replaced one after the other.
fn pieces(pages: &Range<usize>) -> impl Iterator<Item = Range<usize>> {
    let end = pages.end;
    pages.clone().step_by(PIECE).map(move |start| start..end.min(start + PIECE))
}

/// Puts pages of the window in the place of others, with what is in them; or leaves all as it was, and gives the place back.
///
/// # Safety
/// The pages are mapped, readable and writable; `place` has as many bytes in the window, which nothing uses.
unsafe fn replace(window: &Window, place: u64, pages: &Range<usize>) -> Result<(), String> {
    for piece in pieces(pages) {
        let at = place + (piece.start - pages.start) as u64;
        // SAFETY: by the caller's promise, for a part of them.
        if let Err(why) = unsafe { replace_piece(window, at, &piece) } {
            // SAFETY: what has been replaced so far.
            if unsafe { take_back(window, &(pages.start..piece.start), place) }.is_ok() {
                let _ = wire::registered_unmap(place);
            }
            return Err(why);
        }
    }
    Ok(())
}

/// # Safety
/// As [`replace`].
unsafe fn replace_piece(window: &Window, place: u64, piece: &Range<usize>) -> Result<(), String> {
    let offset = place.wrapping_sub(window.address());
    let to = window.pointer(offset, piece.len() as u64).map_err(|error| error.to_string())?;
    let file = window.file().ok_or("the window is memory of the machine")?;
    let at = core::ptr::with_exposed_provenance_mut::<c_void>(piece.start);
    let flags = MapFlags::SHARED | MapFlags::FIXED;
    let frozen = Frozen::new(piece.start, piece.len())?;
    // SAFETY: by the caller's promise; they do not overlap, since the pages are none of the window.
    unsafe { to.as_ptr().copy_from_nonoverlapping(at.cast::<u8>(), piece.len()) };
    // SAFETY: replaces pages of the program by others with the same contents, while nobody writes there.
    let mapped = unsafe { mmap(at, piece.len(), ProtFlags::READ | ProtFlags::WRITE, flags, file, offset) };
    drop(frozen);
    mapped.map(drop).map_err(|errno| format!("mmap: {errno}"))
}

/// Puts private pages in the place of the window's, whose memory goes back at once: nobody but the program uses it any more.
///
/// # Safety
/// The pages are those at `place` in the window, readable and writable.
unsafe fn take_back(window: &Window, pages: &Range<usize>, place: u64) -> Result<(), String> {
    for piece in pieces(pages) {
        // SAFETY: by the caller's promise, for a part of them.
        unsafe { make_private(&piece, || Frozen::new(piece.start, piece.len())) }?;
        let offset = place.wrapping_sub(window.address()) + (piece.start - pages.start) as u64;
        let hole = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        // What stays allocated goes with the rest.
        let _ = window.file().map(|file| fallocate(file, hole, offset, piece.len() as u64));
    }
    Ok(())
}

/// Ends the reach of a range whose registration has ended: it becomes private memory again, but for pages that other registrations need. Where that cannot be, it stays the program's and shared.
///
/// # Errors
/// Those of the host.
pub fn part(range: &Range<usize>, reached: Reached, pinned: Option<Pinned>, areas: &mut Areas) -> CuResult {
    if let Some((start, end)) = reached.replaced {
        return areas.leave(&(start..end)).iter().map(give_back).fold(Ok(()), CuResult::and);
    }
    let (Some(pinned), Some(window)) = (pinned, reached.window) else { return Ok(()) };
    let result = wire::registered_unmap(window - pinned.offset_bytes());
    // The pages stay pinned until the host has confirmed that it does not use them, whether this waits for it or not.
    if let Err(error) = pinned.release() {
        crate::log!(Info, "memory at {:#x} stays pinned for now: {error}", range.start);
    }
    result
}

/// Takes an area's pages back.
fn give_back(area: &Area) -> CuResult {
    // Now at the latest work that was queued before has reached the pages. After a fault the device does nothing more.
    let _ = wire::registered_release(area.place);
    // SAFETY: the program holds the pages, or has unmapped them, which `restore` looks at.
    if let Err(why) = unsafe { restore(&area.pages, area.place) } {
        crate::log!(Info, "memory at {:#x} stays shared with the host: {why}", area.pages.start);
        return Ok(());
    }
    wire::registered_unmap(area.place)
}

/// Puts private pages in the place of the window's.
///
/// # Safety
/// What is mapped in the range is the program's.
unsafe fn restore(range: &Range<usize>, place: u64) -> Result<(), String> {
    let maps = read_to_string("/proc/self/maps").map_err(|error| error.to_string())?;
    let window = process().session.get().and_then(|session| session.window()).ok_or("no session")?;
    match state(window, &maps, range, place)? {
        // SAFETY: mapped, readable and writable, as was seen.
        State::Ours => unsafe { take_back(window, range, place) },
        State::Gone => Ok(()),
        State::Touched => Err("the program has mapped something else over a part of it".into()),
    }
}

/// What has become of pages that were replaced.
enum State {
    Ours,
    /// The program has unmapped them, and other memory may be there.
    Gone,
    /// That goes for a part of them.
    Touched,
}

fn state(window: &Window, maps: &str, pages: &Range<usize>, place: u64) -> Result<State, &'static str> {
    let offset = place.wrapping_sub(window.address()) as usize;
    let file = identity(maps, window.address() as usize).ok_or("no window")?;
    let ours = |mapping: &Mapping<'_>| {
        mapping.file == file
            && mapping.offset.wrapping_sub(mapping.range.start) == offset.wrapping_sub(pages.start)
    };
    if cover(maps, pages, ours).is_some() {
        return Ok(State::Ours);
    }
    let touched = parse(maps).any(|mapping| ours(&mapping) && overlap(&mapping.range, pages));
    Ok(if touched { State::Touched } else { State::Gone })
}

/// Of areas, the pages that are still the window's.
pub fn still_replaced(areas: &[Area]) -> Vec<Range<usize>> {
    let Some(window) = process().session.get().and_then(|session| session.window()) else {
        return Vec::new();
    };
    let maps = read_to_string("/proc/self/maps").unwrap_or_default();
    let ours = |area: &&Area| matches!(state(window, &maps, &area.pages, area.place), Ok(State::Ours));
    areas.iter().filter(ours).map(|area| area.pages.clone()).collect()
}

/// Puts private pages with the same contents in the place of others, while nobody writes there.
///
/// # Safety
/// The range is mapped, readable and writable, and what is mapped there may go.
pub unsafe fn make_private<F>(
    range: &Range<usize>,
    freeze: impl FnOnce() -> Result<F, String>,
) -> Result<(), String> {
    let prot = ProtFlags::READ | ProtFlags::WRITE;
    // SAFETY: a new mapping.
    let fresh = unsafe { mmap_anonymous(core::ptr::null_mut(), range.len(), prot, MapFlags::PRIVATE) };
    let fresh = fresh.map_err(|errno| format!("mmap: {errno}"))?;
    let moved = freeze().and_then(|frozen| {
        let at = core::ptr::with_exposed_provenance_mut::<c_void>(range.start);
        // SAFETY: mapped, by the caller's promise, and not the new mapping.
        unsafe { fresh.cast::<u8>().copy_from_nonoverlapping(at.cast(), range.len()) };
        let flags = MremapFlags::MAYMOVE;
        // SAFETY: moves the new mapping over pages with the same contents, while nobody writes there.
        let moved = unsafe { mremap_fixed(fresh, range.len(), range.len(), flags, at) };
        drop(frozen);
        moved.map(drop).map_err(|errno| format!("mremap: {errno}"))
    });
    if moved.is_err() {
        // SAFETY: the new mapping, which was not moved.
        let _ = unsafe { munmap(fresh, range.len()) };
    }
    moved
}

/// A line of `/proc/self/maps`.
#[derive(Clone, Debug)]
struct Mapping<'a> {
    range: Range<usize>,
    access: &'a str,
    offset: usize,
    /// Device and inode.
    file: (&'a str, &'a str),
    name: &'a str,
}

impl Mapping<'_> {
    fn is_private_memory(&self) -> bool {
        let anonymous = self.name.is_empty() || self.name == "[heap]" || self.name.starts_with("[anon:");
        self.access.starts_with("rw") && self.access.ends_with('p') && self.file.1 == "0" && anonymous
    }
}

fn parse(maps: &str) -> impl Iterator<Item = Mapping<'_>> {
    maps.lines().filter_map(|line| {
        let mut words = line.splitn(6, ' ');
        let (start, end) = words.next()?.split_once('-')?;
        let hex = |text| usize::from_str_radix(text, 16).ok();
        Some(Mapping {
            range: hex(start)?..hex(end)?,
            access: words.next()?,
            offset: hex(words.next()?)?,
            file: (words.next()?, words.next()?),
            name: words.next().unwrap_or_default().trim(),
        })
    })
}

fn overlap(one: &Range<usize>, other: &Range<usize>) -> bool {
    one.start < other.end && other.start < one.end
}

/// If mappings that are as wanted cover all of a range: how far they go without a gap, both ways.
fn cover(maps: &str, range: &Range<usize>, wanted: impl Fn(&Mapping<'_>) -> bool) -> Option<Range<usize>> {
    let mut whole: Range<usize> = 0..0;
    for mapping in parse(maps) {
        if !wanted(&mapping) {
            continue;
        }
        let follows = mapping.range.start == whole.end;
        if !follows && whole.end >= range.end {
            break;
        }
        whole = if follows { whole.start..mapping.range.end } else { mapping.range };
    }
    (whole.start <= range.start && range.end <= whole.end).then_some(whole)
}

/// Device and inode of the file that is mapped at an address.
fn identity(maps: &str, address: usize) -> Option<(&str, &str)> {
    parse(maps).find(|mapping| mapping.range.contains(&address)).map(|mapping| mapping.file)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAPS: &str = "\
00400000-00500000 r-xp 00000000 fd:00 1234 /usr/bin/program
01000000-01100000 rw-p 00000000 00:00 0                          [heap]
01100000-01200000 rw-p 00000000 00:00 0
01200000-01201000 ---p 00000000 00:00 0
01300000-01400000 rw-s 00002000 00:01 77 /memfd:cuda-window (deleted)
01400000-01500000 rw-p 00000000 fd:00 99 /data/with a space
7ffc0000-7ffd0000 rw-p 00000000 00:00 0                          [stack]
";

    #[test]
    fn only_private_anonymous_memory_is_taken() {
        let private = |range: Range<usize>| cover(MAPS, &range, |mapping| mapping.is_private_memory());
        let both = Some(0x100_0000..0x120_0000);
        assert_eq!(private(0x100_0000..0x120_0000), both, "two mappings in a row");
        assert_eq!(private(0x110_1000..0x110_2000), both, "more is there");
        assert_eq!(private(0x110_0000..0x120_1000), None, "a guard page");
        assert_eq!(private(0x110_0000..0x130_1000), None, "a gap");
        for start in [0, 0x40_0000, 0x130_0000, 0x140_0000, 0x7ffc_0000, 0x9000_0000] {
            assert_eq!(private(start..start + 0x1000), None, "{start:#x}");
        }
    }

    #[test]
    fn lines_have_their_parts() {
        let names: Vec<&str> = parse(MAPS).map(|mapping| mapping.name).collect();
        assert_eq!(names[5..], ["/data/with a space", "[stack]"]);
        assert_eq!(identity(MAPS, 0x130_0800), Some(("00:01", "77")));
        assert_eq!(identity(MAPS, 0x150_0000), None);
        assert_eq!(parse("nonsense\n12-zz rw-p 0 00:00 0\n").count(), 0);
    }

    #[test]
    fn pieces_are_all_of_it_once() {
        assert_eq!(pieces(&(PAGE..3 * PAGE)).collect::<Vec<_>>(), vec![PAGE..3 * PAGE]);
        let all: Vec<_> = pieces(&(PAGE..2 * PIECE + 2 * PAGE)).collect();
        let (first, second) = (PAGE + PIECE, PAGE + 2 * PIECE);
        assert_eq!(all, [PAGE..first, first..second, second..second + PAGE]);
        assert_eq!(pieces(&(PAGE..PAGE)).count(), 0);
    }

    /// The allocator's own words: those of this very process.
    #[test]
    #[cfg(target_env = "gnu")]
    fn blocks_with_a_mapping_of_their_own_are_whole_pages() {
        // More than any threshold below which blocks come from the heap.
        const LEN: usize = 40 << 20;
        let large: Vec<u8> = Vec::with_capacity(LEN);
        let small: Vec<u8> = Vec::with_capacity(100);
        let maps = read_to_string("/proc/self/maps").unwrap();
        let start = large.as_ptr().addr();
        let block = own_pages(&maps, &(start..start + LEN)).expect("mapped by itself");
        assert!((block.start | block.end).is_multiple_of(PAGE));
        assert!(block.start < start && start - block.start < PAGE && start + LEN <= block.end, "{block:x?}");
        assert_eq!(own_pages(&maps, &(start..start + 5)), Some(block.clone()), "the beginning of it");
        let end = start + LEN + PAGE;
        assert_eq!(own_pages(&maps, &(start..end)), None, "more than it");
        for offset in [1, 16, 32] {
            assert_eq!(own_pages(&maps, &(start + offset..start + LEN)), None, "not its start");
        }
        let start = small.as_ptr().addr();
        assert_eq!(own_pages(&maps, &(start..start + 100)), None, "of the heap");
        let page = block.start + PAGE;
        assert_eq!(own_pages(&maps, &(page..page + PAGE)), Some(page..page + PAGE), "whole pages");
    }
}
