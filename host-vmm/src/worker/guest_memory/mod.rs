//! A window that is memory of a virtual machine: it comes from the program in parts, through the machine's memory broker.
//!
//! ```text
//! lane's thread                      program                       daemon
//!   Window::alloc, no room
//!     Parts: place and length
//!     Source ── Grow{offset, len} ──> allocates, maps
//!            <── Grown{region} ───────
//!            ── Region{region} ─────────────────────────────────> looks it up, holds its use
//!            <── where it is in the machine's memory ───────────
//!     Ground: maps it at the same address
//! ```
//! A part whose ranges are all free again is given back the same way; those in which lanes have their blocks stay. The daemon holds the
//! [use](crate::broker::RegionUse) of each region until the worker has said that it is unmapped, or has ended: so the machine's pages are never used for anything
//! else while they are mapped here.
//!
//! Memory that the program lends for a copy ([`Scattered`]) is looked up in the same way and need not be mapped; the CUDA backend's worker maps the machine's files as a [whole](Whole)
//! for such copies, and says why it may.
//!
//! Locks: [`Parts`]' own, under which the program and the daemon are waited for; the window's ranges are taken after it. The answers come in on other threads: the
//! watcher's (control connection) and the main one (daemon).

mod ground;
mod lent;
mod parts;
mod source;
mod whole;

pub use ground::{Ground, Run};
pub use lent::{Direction, Scattered};
pub use parts::{Parts, Source};
pub use source::{Answers, Came, Control, Regions, Remote};
pub use whole::Whole;
