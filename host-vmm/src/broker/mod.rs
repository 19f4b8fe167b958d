//! Memory of guests, as their broker modules (`guest-kmod`) vouch for it. Layout and rules of the messages: `docs/guest-kmod.md`.
//!
//! One [`Broker`] per guest, one [`Connection`] at a time to its module. A program's own hello carries the cookie of its session; [`Broker::claim`] turns it
//! into a [`GuestSession`], by which the daemon asks for regions. Whoever lets something read or write a region holds a [`RegionUse`] for as long:
//! when a region has been given up and its last use is dropped, the module is told that it may free the pages.
//!
//! This is a library without threads or sockets: bytes go in by [`Connection::receive`] and come out by [`Broker::take_output`]; `wake` is called when
//! there is output. Everything is behind one mutex per guest, which is never held while `wake` runs.

mod error;
pub mod qemu;
mod region;
mod table;

#[cfg(test)]
mod tests;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use protocol::broker::{GuestMessage, HEADER_LEN, Header, MAX_MESSAGE};

pub use self::error::{Error, Refusal};
pub use self::region::{Piece, Region};
pub use self::table::Limits;
use self::table::Table;
use crate::vmm::memory::GuestRam;

/// Calls whoever sends [`Broker::take_output`]; from any thread.
pub type Wake = Box<dyn Fn() + Send + Sync>;

/// The broker's end of one guest. Clones are the same broker.
#[derive(Clone)]
pub struct Broker {
    shared: Arc<Shared>,
}

struct Shared {
    table: Mutex<Table>,
    wake: Wake,
}

impl Shared {
    fn table(&self) -> MutexGuard<'_, Table> {
        // Every method leaves the table whole before anything in it can panic.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wake_if_output(&self, table: MutexGuard<'_, Table>) {
        let output = table.has_output();
        drop(table);
        if output {
            (self.wake)();
        }
    }
}

impl Broker {
    /// A broker for the guest whose memory is `ram`.
    pub fn new(ram: GuestRam, limits: Limits, wake: Wake) -> Broker {
        Broker { shared: Arc::new(Shared { table: Mutex::new(Table::new(ram, limits)), wake }) }
    }

    /// Takes a connection of the module. `source_port` is the port that it comes from, which the host's kernel vouches for.
    ///
    /// # Errors
    /// A port that every program of the guest can have, or another connection is open. The refusal has been encoded into the error: send it, then close.
    pub fn connect(&self, source_port: u32) -> Result<Connection, Refusal> {
        let epoch = self.shared.table().connect(source_port)?;
        Ok(Connection { broker: self.clone(), epoch, partial: Vec::new() })
    }

    /// The session whose cookie a program has shown. Each session is claimed by one program only: a second claim fails.
    pub fn claim(&self, cookie: [u64; 2]) -> Option<GuestSession> {
        let (epoch, session) = self.shared.table().claim(cookie)?;
        Some(GuestSession { broker: self.clone(), epoch, session })
    }

    /// Bytes for the module.
    pub fn take_output(&self) -> Vec<u8> {
        self.shared.table().take_output()
    }

    /// Keeps the module from being told that nothing of earlier connections is in use; for a daemon that does not know yet whether processes of
    /// its predecessor are gone.
    pub fn hold_fence(&self) -> FenceHold {
        self.shared.table().hold_fence();
        FenceHold { shared: Arc::clone(&self.shared) }
    }

    /// Uses that were not dropped yet, of all connections.
    pub fn uses(&self) -> u64 {
        self.shared.table().uses()
    }

    /// The guest's memory.
    pub fn ram(&self) -> GuestRam {
        self.shared.table().ram().clone()
    }
}

/// See [`Broker::hold_fence`].
pub struct FenceHold {
    shared: Arc<Shared>,
}

impl Drop for FenceHold {
    fn drop(&mut self) {
        let mut table = self.shared.table();
        table.release_fence();
        self.shared.wake_if_output(table);
    }
}

/// The module's connection. Dropping it ends all of its sessions.
pub struct Connection {
    broker: Broker,
    epoch: u64,
    /// The beginning of a message whose rest has not come.
    partial: Vec<u8>,
}

impl Connection {
    /// Takes bytes of the module, in whatever pieces they come.
    ///
    /// # Errors
    /// What no module that works says. The connection is then to be dropped.
    pub fn receive(&mut self, mut bytes: &[u8]) -> Result<(), Error> {
        let shared = Arc::clone(&self.broker.shared);
        let mut table = shared.table();
        while !bytes.is_empty() {
            let wanted = match self.partial.first_chunk::<HEADER_LEN>() {
                None => HEADER_LEN,
                Some(header) => HEADER_LEN + Header::decode(header).map_err(Error::Message)?.len,
            };
            let (now, later) = bytes.split_at(bytes.len().min(wanted - self.partial.len()));
            self.partial.extend_from_slice(now);
            bytes = later;
            let Some((header, body)) = self.partial.split_first_chunk::<HEADER_LEN>() else { continue };
            let header = Header::decode(header).map_err(Error::Message)?;
            if body.len() == header.len {
                let message = GuestMessage::decode(header.kind, body).map_err(Error::Message)?;
                table.message(self.epoch, &message)?;
                self.partial.clear();
            }
        }
        debug_assert!(self.partial.len() < MAX_MESSAGE);
        shared.wake_if_output(table);
        Ok(())
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.broker.shared.table().disconnect(self.epoch);
    }
}

/// A program's session, as the module has begun it.
pub struct GuestSession {
    broker: Broker,
    epoch: u64,
    session: u64,
}

impl GuestSession {
    /// A region of this session, to be used until the result is dropped.
    ///
    /// # Errors
    /// The session has no such region, or it has been given up, or the session has ended.
    pub fn region(&self, region: u64) -> Result<RegionUse, Error> {
        let found = self.broker.shared.table().begin_use(self.epoch, self.session, region)?;
        Ok(RegionUse { shared: Arc::clone(&self.broker.shared), region: found })
    }

    /// User and process of the program, as the guest's kernel names them; None once the session has ended.
    pub fn program(&self) -> Option<(u32, u32)> {
        self.broker.shared.table().program(self.epoch, self.session)
    }
}

/// A region that may be read and written as long as this is held.
pub struct RegionUse {
    shared: Arc<Shared>,
    region: Arc<Region>,
}

impl std::ops::Deref for RegionUse {
    type Target = Region;

    fn deref(&self) -> &Region {
        &self.region
    }
}

impl Drop for RegionUse {
    fn drop(&mut self) {
        let mut table = self.shared.table();
        table.end_use(&self.region);
        self.shared.wake_if_output(table);
    }
}
