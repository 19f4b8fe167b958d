//! A session: one opening of the device by one program.

use crate::account::Owners;
use crate::list::{Link, Linked, List};
use crate::region::OF_SESSION;
use crate::wire::Code;

/// Number of the list of sessions with something to send.
pub const TO_SEND: usize = 2;

/// What the host knows of a session.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SessionState {
    /// Nothing yet; its beginning is to be sent.
    New,
    /// Its beginning was sent and is not answered.
    Beginning,
    /// Accepted.
    Live,
    /// Not accepted; the host has nothing of it.
    Refused(Code),
    /// Closed; its end is to be sent.
    Ending,
    /// Its end was sent and is not confirmed.
    Ended,
    /// The host confirmed its end.
    Done,
    /// The connection that it belonged to is gone.
    Lost,
}

/// See the module's documentation.
pub struct Session {
    /// Its id: the serial number above [`crate::state::SESSION_SLOT_BITS`] bits of its index in the table.
    pub id: u64,
    /// Secret that the program shows to the daemon.
    pub cookie: [u64; 2],
    /// User in the initial namespace.
    pub uid: u32,
    /// Process in the initial namespace.
    pub pid: u32,
    /// See [`SessionState`].
    pub state: SessionState,
    /// The device was closed, or the program has ended: nobody refers to the session by id any more.
    pub closed: bool,
    /// What its pages are charged to.
    pub owners: Owners,
    /// Its regions, dead ones excluded.
    pub regions: List<OF_SESSION>,
    /// How many those are.
    pub region_count: u32,
    /// In the queue of what is to be sent.
    pub to_send: Link,
}

impl Linked<TO_SEND> for Session {
    fn link(&mut self) -> &mut Link {
        &mut self.to_send
    }
}
