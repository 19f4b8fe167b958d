//! The two ends of a lane.
//!
//! A lane belongs to one program thread ([`GuestLane`]) and one worker thread ([`HostLane`]). Requests go through the request ring in order, replies through the
//! reply ring; bulk data goes through the staging area, whose use the operations define. Completion numbers and latched errors may come from any thread of
//! the worker ([`HostSignals`]).

mod guest;
mod host;
mod memory;

pub use guest::{GuestLane, Reply};
pub use host::{HostLane, HostSignals};
pub use memory::Progress;
