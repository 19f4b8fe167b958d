//! A daemon with one session in this process: real sockets, one window mapped twice.
#![allow(dead_code)] // Each test binary uses a part.

use std::sync::Arc;
use std::time::Duration;

use protocol::LanePlacement;
use protocol::handshake::LaneWelcome;
use transport::{Connection, GuestLane, HostLane, Placement, Window, WindowFile};

pub const TIMEOUT: Duration = Duration::from_secs(10);
pub const MAX_BODY: u32 = 4000;

pub const PLACEMENT: LanePlacement =
    LanePlacement { offset: 4096, request_ring_len: 8192, reply_ring_len: 4096, staging_len: 8192 };

/// Two mappings of one window, as program and worker have them.
pub fn windows(len: u64) -> (Arc<Window>, Arc<Window>) {
    let file = WindowFile::create(len).unwrap();
    let fd = rustix::io::dup(&file).unwrap();
    let host = Window::map(file, Placement::Anywhere, false).unwrap();
    let guest = Window::map(WindowFile::verify(fd, len).unwrap(), Placement::Anywhere, true).unwrap();
    assert_ne!(host.address(), guest.address());
    (Arc::new(host), Arc::new(guest))
}

/// The two ends of a lane, and the window as a hostile program sees it.
pub fn lane_with(placement: LanePlacement, max_body: u32) -> (GuestLane, HostLane, Arc<Window>) {
    let (host_window, guest_window) = windows(placement.offset + placement.block_len());
    let (host_end, guest_end) = Connection::pair().unwrap();
    let welcome = LaneWelcome { version: 1, lane: 0, placement };
    let host = HostLane::welcome(host_end, host_window, &welcome, max_body, TIMEOUT).unwrap();
    let received = guest_end.receive(4096, TIMEOUT).unwrap();
    assert_eq!(LaneWelcome::decode(&received.header, &received.body).unwrap(), welcome);
    let guest = GuestLane::new(guest_end, guest_window.clone(), placement, max_body).unwrap();
    (guest, host, guest_window)
}

pub fn lane() -> (GuestLane, HostLane, Arc<Window>) {
    lane_with(PLACEMENT, MAX_BODY)
}
