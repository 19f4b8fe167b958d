//! Programs and brokers of machines whose vsock device is the daemon's own ([`crate::vhost_user`]).

use std::os::fd::OwnedFd;
use std::sync::{Arc, Weak};

use protocol::broker::PORT;
use transport::{Connection, Peer, vsock};

use super::access::Owner;
use super::guest_spec::Device;
use super::{Caller, Inner, Purpose};
use crate::vhost_user::{Error, Host, VhostUserVsock};
use crate::vmm::memory::GuestRam;

/// One machine's device, as the daemon sees it.
struct Machine {
    daemon: Weak<Inner>,
    owner: Owner,
    cid: u32,
}

/// Waits for the machine.
///
/// # Errors
/// The socket cannot be had.
pub fn start(daemon: &Arc<Inner>, owner: Owner, device: &Device<'_>) -> Result<VhostUserVsock, Error> {
    let machine = Machine { daemon: Arc::downgrade(daemon), owner, cid: device.cid };
    VhostUserVsock::listen(device.socket, device.cid, Arc::new(machine))
}

impl Host for Machine {
    fn memory(&self, ram: GuestRam) {
        let Some(daemon) = self.daemon.upgrade() else { return };
        // The device is set up anew by each of firmware, boot loader and kernel.
        if daemon.guests.get(self.owner).is_none_or(|guest| !guest.has(&ram)) {
            tracing::info!(cid = self.cid, bytes = ram.len_bytes(), "a machine has told where its memory is");
            daemon.guests.insert(self.owner, ram);
        }
    }

    fn connect(&self, source_port: u32, port: u32) -> Option<OwnedFd> {
        let purpose = match port {
            vsock::DEFAULT_PORT => Purpose::Programs,
            PORT => Purpose::Brokers,
            _ => return None,
        };
        let daemon = self.daemon.upgrade()?;
        let (ours, theirs) = Connection::pair()
            .map_err(|error| tracing::warn!(%error, "a machine's connection cannot be taken"))
            .ok()?;
        let peer = Peer::Machine { cid: self.cid, port: source_port };
        daemon.admit(ours, Caller { peer, owner: self.owner, passes_descriptors: false }, purpose);
        Some(theirs.into_fd())
    }

    fn gone(&self) {
        let Some(daemon) = self.daemon.upgrade() else { return };
        tracing::info!(cid = self.cid, "a machine has ended");
        daemon.guests.remove(self.owner);
    }
}
