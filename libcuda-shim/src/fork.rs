#![allow(unsafe_code)]
//! What a fork does to registered memory whose pages are the window's ([`crate::reach`]): they are shared, but a child is to have its own, with what was there when it began.
//!
//! The child copies them before `fork` returns to it, while its parent waits in its own `fork`, as natively the kernel copies page-locked pages for a child. The functions that do this are entered
//! (`pthread_atfork`) when pages are replaced for the first time; in programs that have none now they do nothing. (`vfork` and `posix_spawn` call none, nor need they: such a child runs in
//! the parent's memory, or another program at once.)
//!
//! Unsafe because pages are replaced, and because of the word that parent and child share.

use std::cell::RefCell;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr::NonNull;
use std::sync::Once;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous, munmap};

use crate::freeze::SignalsHeld;
use crate::process::process;
use crate::reach::{make_private, still_replaced};

/// After this the parent goes on: the child has been killed, or could not be made. Several times what copying takes.
const PATIENCE_PER_GIB: Duration = Duration::from_secs(2);
const PATIENCE: Duration = Duration::from_secs(1);
const NAP: Duration = Duration::from_micros(50);

const PAGE: usize = 4096;

/// A fork that this thread makes.
struct Fork {
    replaced: Vec<Range<usize>>,
    /// Not 0 when the child has its own pages; shared with it.
    done: NonNull<AtomicU32>,
}

thread_local! {
    static UNDER_WAY: RefCell<Option<Fork>> = const { RefCell::new(None) };
}

/// Takes care of forks from now on.
pub fn watch() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // SAFETY: the functions stay: the library is never unloaded.
        let failed = unsafe { libc::pthread_atfork(Some(before), Some(in_parent), Some(in_child)) };
        if failed != 0 {
            crate::log!(
                Warn,
                "pthread_atfork: error {failed}: children of a fork will share registered memory"
            );
        }
    });
}

extern "C" fn before() {
    let _ = catch_unwind(|| {
        let replaced = process().registered.replaced();
        if replaced.is_empty() {
            return;
        }
        let replaced = still_replaced(&replaced);
        let prot = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a new mapping.
        let page = unsafe { mmap_anonymous(core::ptr::null_mut(), PAGE, prot, MapFlags::SHARED) };
        if let Some(done) = page.ok().and_then(|page| NonNull::new(page.cast())) {
            let _ = UNDER_WAY.try_with(|fork| *fork.borrow_mut() = Some(Fork { replaced, done }));
        }
    });
}

fn take() -> Option<Fork> {
    UNDER_WAY.try_with(|fork| fork.borrow_mut().take()).ok().flatten()
}

extern "C" fn in_parent() {
    let _ = catch_unwind(AssertUnwindSafe(|| {
        let Some(fork) = take() else { return };
        // SAFETY: a zeroed page, mapped until the end of this function, used as an atomic only.
        let done = unsafe { fork.done.as_ref() };
        let bytes: usize = fork.replaced.iter().map(Range::len).sum();
        let patience = PATIENCE + PATIENCE_PER_GIB.mul_f64(bytes as f64 / (1u64 << 30) as f64);
        let begin = Instant::now();
        while done.load(Ordering::Acquire) == 0 && begin.elapsed() < patience {
            std::thread::sleep(NAP);
        }
        // SAFETY: not used any more; the child has a mapping of its own.
        let _ = unsafe { munmap(fork.done.as_ptr().cast(), PAGE) };
    }));
}

/// Only what may be done in the child of a program with threads: system calls and copying.
extern "C" fn in_child() {
    let _ = catch_unwind(AssertUnwindSafe(|| {
        let Some(fork) = take() else { return };
        let signals = SignalsHeld::new();
        for pages in &fork.replaced {
            // SAFETY: they were the window's, readable and writable, when the fork began. Where they cannot be replaced they stay shared.
            let _ = unsafe { make_private(pages, || Ok(())) };
        }
        drop(signals);
        // SAFETY: as in the parent.
        unsafe { fork.done.as_ref() }.store(1, Ordering::Release);
        // SAFETY: not used any more.
        let _ = unsafe { munmap(fork.done.as_ptr().cast(), PAGE) };
        // Nothing is given back to an allocator here.
        core::mem::forget(fork);
    }));
}
