//! Windows and reservations.
#![allow(unsafe_code)] // Writes through a window's raw pointer.

mod common;

use std::fs;
use std::sync::atomic::Ordering;

use common::windows;
use protocol::Region;
use protocol::region::{REGION_LEN, WINDOW_MAX_LEN};
use transport::{Error, Placement, Reservation, Window, WindowFile};

/// The protection of the mapping at `address`, None if nothing is mapped there.
fn protection(address: u64) -> Option<String> {
    let maps = fs::read_to_string("/proc/self/maps").unwrap();
    maps.lines().find_map(|line| {
        let (range, rest) = line.split_once(' ')?;
        let (start, end) = range.split_once('-')?;
        let (start, end) = (u64::from_str_radix(start, 16).ok()?, u64::from_str_radix(end, 16).ok()?);
        (start..end).contains(&address).then(|| rest[..4].to_string())
    })
}

#[test]
fn both_sides_see_the_same_bytes() {
    let (host, guest) = windows(1 << 20);
    host.copy_in(70_000, b"over there").unwrap();
    let mut bytes = [0; 10];
    guest.copy_out(70_000, &mut bytes).unwrap();
    assert_eq!(&bytes, b"over there");
    let word = guest.word(4096).unwrap();
    word.store(77, Ordering::Relaxed);
    assert_eq!(host.word(4096).unwrap().load(Ordering::Relaxed), 77);
    // SAFETY: in bounds, and no other thread uses the window.
    unsafe { host.pointer(8, 1).unwrap().as_ptr().write_volatile(5) };
    assert_eq!(guest.word(8).unwrap().load(Ordering::Relaxed), 5);
}

#[test]
fn accesses_are_bounded() {
    let (window, _) = windows(8192);
    let mut one = [0];
    for (offset, len) in [(8192, 1), (8191, 2), (0, 8193), (u64::MAX, 1), (u64::MAX, u64::MAX), (1, u64::MAX)]
    {
        assert!(matches!(window.pointer(offset, len), Err(Error::Bounds { .. })), "{offset} {len}");
    }
    assert!(window.pointer(8192, 0).is_ok() && window.pointer(0, 8192).is_ok());
    assert!(window.copy_in(8192, &one).is_err() && window.copy_out(8192, &mut one).is_err());
    for offset in [4, 8188, 8192, !7] {
        assert!(window.word(offset).is_err(), "{offset}");
    }
    assert!(window.punch_hole(4096, 8192).is_err());
    assert!(window.punch_hole(1, 4096).is_err());
    assert!(window.punch_hole(0, 100).is_err());
}

#[test]
fn a_window_is_sparse_and_gives_memory_back() {
    let (host, guest) = windows(64 << 30);
    let blocks = || rustix::fs::fstat(host.file().unwrap()).unwrap().st_blocks;
    assert_eq!(blocks(), 0);
    host.copy_in(40 << 30, &vec![1; 1 << 20]).unwrap();
    assert!(blocks() >= (1 << 20) / 512);
    host.punch_hole(40 << 30, 1 << 20).unwrap();
    assert_eq!(blocks(), 0);
    let mut byte = [9];
    guest.copy_out((40 << 30) + 5, &mut byte).unwrap();
    assert_eq!(byte, [0]);
    host.punch_hole(0, 0).unwrap();
}

#[test]
fn sizes_that_make_no_window() {
    for len in [0, 1, 4095, 4097, u64::MAX, !4095] {
        assert!(WindowFile::create(len).is_err(), "{len}");
    }
    assert_eq!(WindowFile::create(WINDOW_MAX_LEN).unwrap().len(), WINDOW_MAX_LEN);
}

#[test]
fn every_candidate_region_is_free_in_an_ordinary_program() {
    for region in Region::candidates() {
        let reservation = Reservation::new(region.start(), REGION_LEN).unwrap();
        assert_eq!(protection(region.start()).unwrap(), "---p");
        let again = Reservation::new(region.start(), REGION_LEN);
        assert!(matches!(again, Err(Error::RangeTaken { .. })));
        drop(reservation);
        assert_eq!(protection(region.start()), None);
    }
}

#[test]
fn a_window_in_a_reservation_becomes_reserved_again() {
    // A tag that is no candidate: tests run in parallel in one process under `cargo test`.
    let region = Region::new(12).unwrap();
    let reservation = Reservation::new(region.start(), REGION_LEN).unwrap();
    let at = region.window_start();
    let file = || WindowFile::create(1 << 20).unwrap();
    let window = Window::map(file(), Placement::Over(&reservation, at), true).unwrap();
    assert_eq!((window.address(), window.len()), (at, 1 << 20));
    assert_eq!(protection(at).unwrap(), "rw-s");
    assert_eq!(protection(at + (1 << 20)).unwrap(), "---p");
    window.copy_in(0, &[1]).unwrap();
    drop(window);
    assert_eq!(protection(at).unwrap(), "---p");

    for address in [region.start() - 4096, region.end(), region.end() - 4096, 0, !4095] {
        let outside = Window::map(file(), Placement::Over(&reservation, address), false);
        assert!(matches!(outside, Err(Error::Bounds { .. })), "{address:#x}");
    }
    let taken = Window::map(file(), Placement::At(at), false);
    assert!(matches!(taken, Err(Error::RangeTaken { .. })));
    drop(reservation);
    let window = Window::map(file(), Placement::At(at), false).unwrap();
    drop(window);
    assert_eq!(protection(at), None);
}

#[test]
fn a_window_in_pieces_has_what_is_mapped() {
    const LEN: u64 = 1 << 20;
    const PART: u64 = 64 << 10;
    // Memory that somebody else maps: here another window's.
    let memory = Window::map(WindowFile::create(LEN).unwrap(), Placement::Anywhere, false).unwrap();
    let window = Window::in_pieces(memory.address(), LEN).unwrap();
    assert_eq!((window.len(), window.address()), (LEN, memory.address()));
    assert!(window.file().is_none());
    assert!(window.pointer(0, 1).is_err());
    // SAFETY: mapped above until the test's end.
    unsafe {
        window.add_piece(PART, PART).unwrap();
        window.add_piece(2 * PART, PART).unwrap();
        for (offset, len) in [(0, 2 * PART), (2 * PART, 4096), (3 * PART - 4096, 8192), (PART + 4096, 4096)] {
            assert!(matches!(window.add_piece(offset, len), Err(Error::RangeTaken { .. })), "{offset}");
        }
        assert!(matches!(window.add_piece(LEN, 4096), Err(Error::Bounds { .. })));
        assert!(window.add_piece(0, 0).is_err());
        assert!(memory.add_piece(0, 4096).is_err());
    }
    window.copy_in(2 * PART - 4, b"acrosstwo").unwrap();
    let mut seen = [0; 9];
    memory.copy_out(2 * PART - 4, &mut seen).unwrap();
    assert_eq!(&seen, b"acrosstwo");
    for (offset, len) in [(PART - 1, 2), (3 * PART - 1, 2), (PART, 2 * PART + 1), (u64::MAX, 1)] {
        assert!(matches!(window.pointer(offset, len), Err(Error::Bounds { .. })), "{offset}");
    }
    // Freed memory stays as it is.
    window.punch_hole(PART, PART).unwrap();
    // SAFETY: nothing has a pointer into it.
    unsafe {
        assert_eq!(window.remove_piece(2 * PART), Some(PART));
        assert_eq!(window.remove_piece(2 * PART), None);
    }
    assert!(window.pointer(2 * PART - 1, 2).is_err());
    assert!(window.pointer(PART, PART).is_ok());
    assert!(Window::in_pieces(u64::MAX, 2).is_err());
    assert!(Window::in_pieces(0, 2).is_err());
}
