use super::*;
use crate::fault;
use std::os::fd::{AsFd, FromRawFd, OwnedFd};

fn region(limit: u64) -> Region {
    fault::install().unwrap();
    reserve_in_test(RegionConfig { memory_limit: limit })
}

fn memfd(len: u64, seal: bool) -> OwnedFd {
    // SAFETY: plain system calls; the descriptor is new and ours.
    unsafe {
        let fd = libc::memfd_create(c"window".as_ptr(), libc::MFD_ALLOW_SEALING);
        assert!(fd >= 0);
        assert_eq!(libc::ftruncate(fd, len as libc::off_t), 0);
        if seal {
            assert_eq!(libc::fcntl(fd, libc::F_ADD_SEALS, libc::F_SEAL_SHRINK), 0);
        }
        OwnedFd::from_raw_fd(fd)
    }
}

#[test]
fn a_tag_can_be_reserved_once_and_again_after_drop() {
    let first = region(1 << 20);
    let tag = first.tag();
    assert!(matches!(Region::reserve(tag, RegionConfig::default()), Err(RegionError::Taken(_))));
    assert!(matches!(Region::reserve(0, RegionConfig::default()), Err(RegionError::BadTag(0))));
    assert!(matches!(Region::reserve(32, RegionConfig::default()), Err(RegionError::BadTag(32))));
    assert!(first.contains(first.base()) && first.contains(first.base() + REGION_LEN - 1));
    assert!(!first.contains(first.base() + REGION_LEN) && !first.contains(0));
}

#[test]
fn allocations_are_zero_aligned_and_limited() {
    let region = region(64 << 20);
    let small = region.alloc(100, 256).unwrap();
    let large = region.alloc(5 << 20, 256).unwrap();
    assert_eq!((small % 256, large % HUGE_LEN), (0, 0));
    let mut bytes = vec![1; 100];
    region.copy_out(small, &mut bytes).unwrap();
    assert!(bytes.iter().all(|&byte| byte == 0));
    assert_eq!(region.memory_info(), ((64 << 20) - 4096 - (5 << 20), 64 << 20));
    assert!(matches!(region.alloc(64 << 20, 256), Err(RegionError::OutOfMemory { .. })));
    assert!(matches!(region.alloc(u64::MAX, 256), Err(RegionError::OutOfMemory { .. })));
    assert!(matches!(region.alloc(0, 256), Err(RegionError::InvalidArgument(_))));
    assert!(matches!(region.alloc(1, 3), Err(RegionError::InvalidArgument(_))));
    assert_eq!(region.range_of(large + 7), Some((large, 5 << 20)));
    assert_eq!(region.range_of(small + 99), Some((small, 100)));
    assert_eq!(region.range_of(small + 100), None);
    region.free(large).unwrap();
    assert!(matches!(region.free(large), Err(RegionError::NotAllocated(_))));
    assert!(matches!(region.free(small + 1), Err(RegionError::NotAllocated(_))));
    region.free(small).unwrap();
    assert_eq!(region.memory_info().0, 64 << 20);
    // The whole limit can be had again, though freed memory was kept for reuse.
    let all = region.alloc(64 << 20, 256).unwrap();
    region.fill8(all + (64 << 20) - 1, 1, 1).unwrap();
}

#[test]
fn cached_memory_is_reused_and_given_up_under_pressure() {
    let region = region(8 << 20);
    let first = region.alloc(1 << 20, 256).unwrap();
    region.free(first).unwrap();
    assert_eq!(region.alloc(1 << 20, 256).unwrap(), first);
    region.free(first).unwrap();
    let second = region.alloc(8 << 20, 256).unwrap();
    assert!(region.lock().cache.is_empty());
    region.free(second).unwrap();
}

#[test]
fn copies_check_their_ranges() {
    let region = region(64 << 20);
    let a = region.alloc(10_000, 256).unwrap();
    let b = region.alloc(10_000, 256).unwrap();
    let data: Vec<u8> = (0..10_000u32).map(|i| (i * 7) as u8).collect();
    region.copy_in(a, &data).unwrap();
    region.copy_within(b + 100, a, 9_900).unwrap();
    let mut back = vec![0; 9_900];
    region.copy_out(b + 100, &mut back).unwrap();
    assert_eq!(back, &data[..9_900]);
    // Overlapping, both directions.
    region.copy_within(a + 1, a, 5000).unwrap();
    region.copy_within(a, a + 1, 5000).unwrap();
    let mut back = vec![0; 5000];
    region.copy_out(a, &mut back).unwrap();
    assert_eq!(back, &data[..5000]);
    for (address, len) in
        [(a + 1, 10_000u64), (a - 1, 2), (0, 1), (u64::MAX, 2), (a, u64::MAX), (region.base(), 1)]
    {
        assert!(
            matches!(region.fill8(address, 1, len), Err(RegionError::InvalidRange { .. })),
            "{address:#x}+{len}"
        );
        assert!(region.pin(address, len).is_err());
    }
    assert!(region.copy_in(a + 9_999, &[1, 2]).is_err());
    assert!(region.copy_in(1, &[]).is_ok());
    assert!(matches!(region.fill32(a, 1, u64::MAX / 2), Err(RegionError::InvalidRange { .. })));
    assert!(matches!(region.fill16(a + 1, 1, 1), Err(RegionError::InvalidArgument(_))));
    region.fill16(a, 0x1234, 3).unwrap();
    region.fill32(a + 8, 0xdead_beef, 2).unwrap();
    let mut back = [0; 16];
    region.copy_out(a, &mut back).unwrap();
    assert_eq!(back[..6], [0x34, 0x12, 0x34, 0x12, 0x34, 0x12]);
    assert_eq!(back[8..], [0xef, 0xbe, 0xad, 0xde, 0xef, 0xbe, 0xad, 0xde]);
}

#[test]
fn a_pinned_allocation_survives_its_free() {
    let region = region(64 << 20);
    let base = region.alloc(40 << 20, 256).unwrap();
    let pin = region.pin(base + 10, 100).unwrap();
    let second = region.pin(base, 40 << 20).unwrap();
    region.free(base).unwrap();
    assert!(region.pin(base, 1).is_err());
    assert_eq!(region.range_of(base), None);
    // SAFETY: pinned memory.
    unsafe { pin.as_ptr().write_volatile(3) };
    drop(pin);
    assert_eq!(region.memory_info().0, 24 << 20);
    drop(second);
    assert_eq!(region.memory_info().0, 64 << 20);
    assert!(region.lock().dying.is_empty());
}

#[test]
fn freeing_while_copying_is_an_error_at_worst() {
    let region = region(1 << 30);
    std::thread::scope(|scope| {
        let (sender, receiver) = std::sync::mpsc::channel::<u64>();
        let region = &region;
        scope.spawn(move || {
            let mut bytes = vec![0u8; 1 << 20];
            for base in receiver {
                match region.copy_out(base, &mut bytes) {
                    Ok(()) | Err(RegionError::InvalidRange { .. }) => {}
                    Err(error) => panic!("{error}"),
                }
            }
        });
        for round in 0..300u64 {
            let base = region.alloc((1 << 20) + (round % 3) * (40 << 20), 256).unwrap();
            sender.send(base).unwrap();
            region.free(base).unwrap();
        }
    });
    assert_eq!(region.memory_info().0, 1 << 30);
}

#[test]
fn the_window_is_shared_and_checked() {
    let region = region(1 << 20);
    let fd = memfd(64 << 10, true);
    assert!(matches!(
        region.map_shared(memfd(1 << 16, false).as_fd(), 0, 0, 1 << 16),
        Err(RegionError::NotSealed)
    ));
    assert!(region.map_shared(fd.as_fd(), 0, 0, 128 << 10).is_err());
    assert!(region.map_shared(fd.as_fd(), 0, WINDOW_LEN - 4096, 8192).is_err());
    assert!(region.map_shared(fd.as_fd(), 0, 1, 4096).is_err());
    let first = region.map_shared(fd.as_fd(), 0, 1 << 20, 32 << 10).unwrap();
    assert_eq!(first, region.base() + WINDOW_OFFSET + (1 << 20));
    assert!(region.map_shared(fd.as_fd(), 0, (1 << 20) + 4096, 4096).is_err());
    let second = region.map_shared(fd.as_fd(), 32 << 10, (1 << 20) + (32 << 10), 32 << 10).unwrap();
    region.fill8(first + (32 << 10) - 2, 9, 4).unwrap();
    let twin = region.map_shared(fd.as_fd(), 0, 2 << 20, 64 << 10).unwrap();
    let mut bytes = [0; 6];
    region.copy_out(twin + (32 << 10) - 3, &mut bytes).unwrap();
    assert_eq!(bytes, [0, 9, 9, 9, 9, 0]);
    assert!(region.copy_out(twin + (64 << 10) - 3, &mut bytes).is_err());
    region.unmap_shared(second).unwrap();
    assert!(region.copy_out(first + (32 << 10) - 3, &mut bytes).is_err());
    assert!(region.unmap_shared(second).is_err());
    // A piece may come back at the same place.
    assert_eq!(region.map_shared(fd.as_fd(), 0, (1 << 20) + (32 << 10), 4096).unwrap(), second);
}

#[test]
fn window_memory_that_vanishes_during_a_copy_is_an_error() {
    let region = region(1 << 20);
    let fd = memfd(1 << 16, true);
    let base = region.map_shared(fd.as_fd(), 0, 0, 1 << 16).unwrap();
    // Behind the bookkeeping's back, as a failing backing store would do it.
    assert!(unmap_private(base + 4096, 4096));
    let mut bytes = vec![0; 16384];
    match region.copy_out(base, &mut bytes) {
        Err(RegionError::Lost { address }) => assert!((base + 4096..base + 8192).contains(&address)),
        other => panic!("{other:?}"),
    }
    assert!(region.fill32(base, 1, 4096).is_err());
}

/// The kernel's limit of mappings is per process: one test at a time uses most of it.
static MANY_MAPPINGS: Mutex<()> = Mutex::new(());

#[test]
fn very_many_allocations_share_mappings() {
    let _turn = MANY_MAPPINGS.lock().unwrap_or_else(PoisonError::into_inner);
    let region = region(1 << 30);
    let bases: Vec<u64> = (0..60_000).map(|_| region.alloc(1000, 256).unwrap()).collect();
    let (first, last) = (bases[0], bases[59_999]);
    region.fill8(last, 7, 1000).unwrap();
    assert!(region.fill8(last, 7, 1001).is_err());
    assert_eq!(region.range_of(last + 999), Some((last, 1000)));
    assert_eq!(region.range_of(first + 1000), None);
    let mut sorted = bases.clone();
    sorted.sort_unstable();
    assert!(sorted.windows(2).all(|pair| pair[0] + 1000 <= pair[1]));
    assert!(bases.iter().all(|base| base % 256 == 0));
    let large = region.alloc(8 << 20, 256).unwrap();
    region.free(large).unwrap();
    // Free in another order, half of them with a copy in progress.
    for base in bases.iter().rev().step_by(2) {
        let pin = region.pin(*base, 10).unwrap();
        region.free(*base).unwrap();
        drop(pin);
    }
    for base in bases.iter().rev().skip(1).step_by(2) {
        region.free(*base).unwrap();
    }
    assert_eq!(region.memory_info().0, 1 << 30);
    assert_eq!(region.lock().shared_count, 0);
}

#[test]
fn too_many_large_allocations_are_out_of_memory() {
    let _turn = MANY_MAPPINGS.lock().unwrap_or_else(PoisonError::into_inner);
    let region = region(1 << 40);
    let mut bases = Vec::new();
    let error = loop {
        match region.alloc(SHARED_MAX + 1, 256) {
            Ok(base) => bases.push(base),
            Err(error) => break error,
        }
    };
    assert!(matches!(error, RegionError::OutOfMemory { .. }));
    assert!(bases.len() >= 20_000, "{}", bases.len());
    for base in bases {
        region.free(base).unwrap();
    }
    assert_eq!(region.memory_info().0, 1 << 40);
}
