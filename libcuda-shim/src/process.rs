#![allow(unsafe_code)]
//! The state of this process as a CUDA program, and what happens to it in `fork()`.
//!
//! All mutable state of the library hangs off one [`Process`], reached through a page that the kernel zeroes in a forked child
//! (`MADV_WIPEONFORK`). So a child sees "no state", closes what it inherited, and starts afresh with locks of its own: no `atfork`
//! handlers (but for registered memory, see [`crate::fork`]), no process-id system call on hot paths.
//!
//! Unsafe because: the page is raw memory, and states are leaked so that exit handlers may still use them.
//!
//! Ownership: a `Process` is leaked when made and never freed; everything inside is shared by all threads and locks for itself.
//! Lock order: `contexts` before `functions` before the lane pool; no lock is held while waiting for the host, except the per-library
//! load lock.

use std::collections::HashMap;
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicPtr, Ordering};
use std::sync::{Mutex, OnceLock, RwLock};

use protocol::status::CuResult;

use crate::allocations::Allocations;
use crate::callback::Callbacks;
use crate::capture::Captures;
use crate::context::Contexts;
use crate::custom::launch::Accepted;
use crate::custom::link::Links;
use crate::custom::memory::PoolMemory;
use crate::function::{Functions, Limits};
use crate::graph::{Execs, Given};
use crate::graph_buffers::Buffers;
use crate::legacy::{Attached, Launches, Registrations};
use crate::local_storage::LocalStorage;
use crate::module::Libraries;
use crate::owners::Owners;
use crate::profile::Profile;
use crate::registered::Registered;
use crate::session::Session;

/// Replies of `cached` operations, by operation and request bytes.
pub type ReplyCache = HashMap<Box<[u8]>, Box<[u8]>>;

/// Everything the library knows about the running program.
#[derive(Default)]
pub struct Process {
    /// Set when `cuInit` reaches the host.
    pub session: OnceLock<Session>,
    /// What came of `cuInit` there: a program without visible devices has a session, but may not use it.
    pub initialised: OnceLock<CuResult>,
    /// Serialises `cuInit`, so that two threads do not open two sessions.
    pub init: Mutex<()>,
    pub contexts: Contexts,
    pub owners: Owners,
    pub local_storage: LocalStorage,
    pub functions: Functions,
    pub libraries: Libraries,
    pub links: Links,
    pub callbacks: Callbacks,
    pub captures: Captures,
    /// Parameters of graph nodes that the program has been given pointers to.
    pub given: Given,
    pub execs: Execs,
    /// Of copies of pageable memory in graphs.
    pub graph_buffers: Buffers,
    pub registered: Registered,
    pub launches: Launches,
    pub attached: Attached,
    pub registrations: Registrations,
    /// A kernel has faulted in some context: see [`crate::sticky`].
    pub faulted: AtomicBool,
    /// Code is loaded that can print.
    pub prints: AtomicBool,
    pub pool_memory: PoolMemory,
    pub allocations: Allocations,
    pub accepted: Accepted,
    pub cache: RwLock<ReplyCache>,
    /// What `CUDA_SHIM_PROFILE` asks for.
    pub profile: OnceLock<Profile>,
    /// Limits on launches, by device.
    pub launch_limits: RwLock<Vec<(i32, Limits)>>,
}

/// The page that a forked child sees zeroed.
struct ForkPage {
    process: AtomicPtr<Process>,
}

static PAGE: AtomicPtr<ForkPage> = AtomicPtr::new(ptr::null_mut());
/// The latest state, also visible in a forked child: what the child has to let go of.
static LATEST: AtomicPtr<Process> = AtomicPtr::new(ptr::null_mut());

/// The state of this process; made on first use, and anew after a fork.
#[inline]
pub fn process() -> &'static Process {
    let page = PAGE.load(Ordering::Acquire);
    if !page.is_null() {
        // SAFETY: a page once published is never unmapped; its only field is atomic, and zeroed memory is a valid null pointer.
        let process = unsafe { (*page).process.load(Ordering::Acquire) };
        if !process.is_null() {
            // SAFETY: processes are leaked boxes, valid for ever.
            return unsafe { &*process };
        }
    }
    create()
}

/// Whether `state` is the one of this process (and not of the parent before a fork).
#[inline]
pub fn is_current(state: *const Process) -> bool {
    ptr::eq(state, process())
}

#[cold]
fn create() -> &'static Process {
    let page = fork_page();
    let fresh = Box::into_raw(Box::<Process>::default());
    // SAFETY: as in `process`.
    let slot = unsafe { &(*page).process };
    match slot.compare_exchange(ptr::null_mut(), fresh, Ordering::AcqRel, Ordering::Acquire) {
        Ok(_) => {
            let inherited = LATEST.swap(fresh, Ordering::AcqRel);
            if !inherited.is_null() {
                // SAFETY: leaked box of the parent, copied into this child; nothing else here uses it any more.
                abandon(unsafe { &*inherited });
            }
            // SAFETY: leaked above.
            unsafe { &*fresh }
        }
        Err(winner) => {
            // SAFETY: `fresh` was made here and lost the race unseen.
            drop(unsafe { Box::from_raw(fresh) });
            // SAFETY: leaked by the winner.
            unsafe { &*winner }
        }
    }
}

/// In a forked child: closes the parent's connections. Its memory cannot be freed (locks may be held by threads that do not exist here).
fn abandon(parent: &Process) {
    if let Some(session) = parent.session.get() {
        crate::log!(Debug, "forked child: letting go of the parent's session");
        session.abandon();
    }
}

fn fork_page() -> *mut ForkPage {
    let page = PAGE.load(Ordering::Acquire);
    if !page.is_null() {
        return page;
    }
    let len = rustix::param::page_size();
    // SAFETY: a fresh anonymous mapping at an address of the kernel's choice touches no existing memory.
    let mapped = unsafe {
        rustix::mm::mmap_anonymous(
            ptr::null_mut(),
            len,
            rustix::mm::ProtFlags::READ | rustix::mm::ProtFlags::WRITE,
            rustix::mm::MapFlags::PRIVATE,
        )
    };
    let Ok(mapped) = mapped else {
        // Without a page there is no state to work with; a leaked heap page loses only the fork detection.
        let fallback = Box::into_raw(Box::new(ForkPage { process: AtomicPtr::new(ptr::null_mut()) }));
        return publish(fallback);
    };
    // SAFETY: the range is the mapping just made. Kernels before 4.14 refuse; then children share the parent's fate as on NVIDIA's driver.
    let _ = unsafe { rustix::mm::madvise(mapped, len, rustix::mm::Advice::LinuxWipeOnFork) };
    publish(mapped.cast())
}

fn publish(page: *mut ForkPage) -> *mut ForkPage {
    match PAGE.compare_exchange(ptr::null_mut(), page, Ordering::AcqRel, Ordering::Acquire) {
        Ok(_) => page,
        // The loser's page is leaked: one page, once.
        Err(winner) => winner,
    }
}
