//! The Rust half of the broker module: who may hold how much memory, which extents were named to the host, and when pages may be freed.
//!
//! Everything here runs under one mutex of the C half (`broker_lock`) and does no I/O. The C half pins and allocates pages, owns the device node and the
//! socket, and calls the functions of [`ffi`]; pages themselves are opaque to this crate: a pointer that is handed in when a region is published and handed
//! back, exactly once, when nothing on either side can reach the pages through the broker any more.
//!
//! Rules for this crate, checked by `cargo xtask kmod` on the object file: no formatting, no trait objects, no tables of function pointers, no code that can
//! panic. A kernel with indirect-branch tracking would die of the first three, and there is nobody to catch the fourth.
#![cfg_attr(not(test), no_std)]

#[cfg(test)]
extern crate std;

pub mod account;
pub mod ffi;
pub mod list;
pub mod memory;
pub mod region;
pub mod session;
pub mod state;

// A link to the very file that the daemon compiles.
pub mod wire;

#[cfg(test)]
mod tests;

/// Error numbers of the kernel, as the C half returns them.
pub mod errno {
    /// Bad file descriptor: the session has been closed.
    pub const EBADF: i32 = -9;
    /// Out of memory.
    pub const ENOMEM: i32 = -12;
    /// Permission denied: the host refused the session.
    pub const EACCES: i32 = -13;
    /// The region is still being made.
    pub const EBUSY: i32 = -16;
    /// No such region.
    pub const ENOENT: i32 = -2;
    /// Nobody at the other end.
    pub const ENXIO: i32 = -6;
    /// Too many extents.
    pub const E2BIG: i32 = -7;
    /// The host has not answered yet.
    pub const EAGAIN: i32 = -11;
    /// Bad argument.
    pub const EINVAL: i32 = -22;
    /// Too many sessions or regions.
    pub const EMFILE: i32 = -24;
    /// The host takes no more.
    pub const ENOSPC: i32 = -28;
    /// The host said something that it may not say.
    pub const EPROTO: i32 = -71;
    /// The host could not use the memory.
    pub const EREMOTEIO: i32 = -121;
    /// A limit of the user, the process or the guest.
    pub const EDQUOT: i32 = -122;
    /// The connection to the host was lost; the session cannot go on.
    pub const ECONNRESET: i32 = -104;
    /// The host does not want this guest.
    pub const ECONNREFUSED: i32 = -111;
}
