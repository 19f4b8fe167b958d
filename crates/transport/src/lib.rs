//! Lanes between a program and its worker: rings in shared memory with a socket as doorbell, or frames on the socket itself; windows, handshake frames with
//! descriptors.
//!
//! * [`Address`], [`Listener`], [`Connection`]: unix and vsock sockets that carry handshake frames and file descriptors, every wait with a deadline.
//! * [`WindowFile`], [`Window`], [`Reservation`]: the memory that both sides see at the same address.
//! * [`GuestLane`], [`HostLane`]: the two ends of a lane. One thread owns an end; there is no lock in a ring's.
//! * [`movers`], [`streaming`]: threads that move a long block between such memory and other memory; copies past the cache.
//! * [`ring`] and [`park`]: the ring and the sleep/wake protocol under the lanes; [`stream`]: the lanes without shared memory.
//!
//! Everything read from shared memory or a socket comes from a peer that may be hostile: it is copied once, then checked.

pub mod park;
pub mod ring;
mod sync;

#[cfg(not(loom))]
mod address;
#[cfg(not(loom))]
mod doorbell;
#[cfg(not(loom))]
mod error;
#[cfg(not(loom))]
#[doc(hidden)]
pub mod fuzz;
#[cfg(not(loom))]
pub mod handshake;
#[cfg(not(loom))]
mod lane;
#[cfg(not(loom))]
pub mod movers;
#[cfg(not(loom))]
pub mod stream;
#[cfg(not(loom))]
pub mod streaming;
#[cfg(not(loom))]
mod traffic;
#[cfg(not(loom))]
mod unix;
#[cfg(not(loom))]
pub mod vsock;
#[cfg(not(loom))]
mod window;

#[cfg(not(loom))]
pub use {
    address::{Address, AddressError},
    error::Error,
    lane::{Armed, GuestLane, HostLane, HostSignals, Progress, Reply, Sent},
    stream::{Flusher, StreamLanes},
    traffic::Traffic,
    unix::{Connection, Credentials, Listener, MAX_DESCRIPTORS, Peer, Received},
    window::{Placement, Reservation, Window, WindowFile},
};
