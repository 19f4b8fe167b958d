//! All connections of a guest: packets of the guest go in, packets for the guest come out, bytes move between them and the host's ends.
//!
//! Owned by the device, which calls it with its lock held, from one thread at a time. It knows nothing of rings.
//!
//! What one guest can make it hold is in [`Limits`]: connections, each with a descriptor and at most a window of bytes, and replies: one for
//! each connection and [`MAX_REPLIES`].

use std::collections::{HashMap, VecDeque};
use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

use super::Host;
use super::connection::{Connection, Control, Farewell};
use super::header::{HOST_CID, Header, STREAM, op, shutdown};
use super::link::{Incoming, Link, Ports};

/// Bytes that a connection holds for a slow host; the most that a packet of the guest can carry.
pub const WINDOW: u32 = 256 << 10;
/// What a connection gets when there are many.
const SMALL_WINDOW: u32 = 16 << 10;
/// Replies that wait for room in the guest before no more of its packets are taken.
const MAX_REPLIES: usize = 256;
/// The most that goes to the guest in one packet.
pub const MAX_PACKET: usize = 64 << 10;

/// What one guest may have. The default makes at most 128 MiB of windows; a buffer that is filled piece by piece may take twice its window.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Connections at a time; fewer than tokens.
    pub links: usize,
    /// Bytes of large windows together; connections beyond them get small ones.
    pub windows_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { links: 4096, windows_bytes: 64 << 20 }
    }
}

/// Events of the host's ends, by connection.
pub trait Watch: Send {
    /// Asks for an event whenever more bytes can be read from `socket` (and, with `room`, written to it) than before, and once now if they can.
    ///
    /// # Errors
    /// A system call.
    fn watch(&self, socket: BorrowedFd<'_>, token: u16, room: bool) -> io::Result<()>;

    /// No more events of `socket`.
    fn unwatch(&self, socket: BorrowedFd<'_>, token: u16);
}

/// What happened at a host's end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Event {
    /// It has closed, or both directions were shut down.
    pub hung_up: bool,
}

/// See the module.
pub struct Switch {
    cid: u64,
    limits: Limits,
    host: Arc<dyn Host>,
    watch: Box<dyn Watch>,
    /// First token that is a connection's.
    first_token: u16,
    next_token: u16,
    links: HashMap<u16, Link>,
    tokens: HashMap<Ports, u16>,
    /// Connections that may have something for the guest, in turn.
    queue: VecDeque<u16>,
    /// Packets about connections that do not exist (any more).
    replies: VecDeque<Header>,
    /// Bytes of the large windows that were given.
    windows_bytes: u64,
    /// Packets with a wrong CID, dropped.
    strangers: u64,
}

impl Switch {
    /// No connections. Tokens are `first_token` and above; one is not used again for a long time, so that an event which is late finds nobody.
    pub fn new(
        cid: u32,
        limits: Limits,
        host: Arc<dyn Host>,
        watch: Box<dyn Watch>,
        first_token: u16,
    ) -> Self {
        debug_assert!(limits.links < usize::from(u16::MAX - first_token));
        Self {
            cid: cid.into(),
            limits,
            host,
            watch,
            first_token,
            next_token: first_token,
            links: HashMap::new(),
            tokens: HashMap::new(),
            queue: VecDeque::new(),
            replies: VecDeque::new(),
            windows_bytes: 0,
            strangers: 0,
        }
    }

    /// Whether packets of the guest are taken now. If not, the guest has to take what waits for it first.
    pub fn accepts(&self) -> bool {
        self.replies.len() < MAX_REPLIES
    }

    /// Whether there may be a packet for the guest.
    pub fn has_output(&self) -> bool {
        !self.replies.is_empty() || !self.queue.is_empty()
    }

    /// Closes all host's ends and forgets everything: the guest has been reset.
    pub fn reset(&mut self) {
        for (token, link) in self.links.drain() {
            self.watch.unwatch(link.socket(), token);
        }
        self.tokens.clear();
        self.queue.clear();
        self.replies.clear();
        self.windows_bytes = 0;
    }

    /// A packet of the guest. `data` is what follows the header, None if the guest's buffers are shorter than the header says.
    pub fn packet(&mut self, header: &Header, data: Option<&[u8]>) {
        if header.src_cid.get() != self.cid || header.dst_cid.get() != HOST_CID {
            self.strangers += 1;
            if self.strangers.is_power_of_two() {
                tracing::warn!(
                    "vsock of CID {}: {} packets from {} to {} dropped",
                    self.cid,
                    self.strangers,
                    header.src_cid,
                    header.dst_cid
                );
            }
            return;
        }
        let ports = Ports { guest: header.src_port.get(), host: header.dst_port.get() };
        let op = header.op.get();
        if header.kind.get() != STREAM {
            if op != op::RST {
                self.reply(ports, header.kind.get(), op::RST);
            }
            return;
        }
        match (op, self.tokens.get(&ports).copied()) {
            (op::REQUEST, None) => self.open(ports, header),
            (op::RST, None) => {}
            (_, None) => self.reply(ports, STREAM, op::RST),
            (op::RST, Some(token)) => {
                self.remove(token);
            }
            (op, Some(token)) => {
                if self.packet_of(token, op, header, data) {
                    self.settle(token);
                } else {
                    self.remove(token);
                    self.reply(ports, STREAM, op::RST);
                }
            }
        }
    }

    /// A packet of a connection that exists; false if it is to be reset.
    fn packet_of(&mut self, token: u16, op: u16, header: &Header, data: Option<&[u8]>) -> bool {
        let Some(link) = self.links.get_mut(&token) else { return false };
        link.state.credit_told(header.buf_alloc.get(), header.fwd_cnt.get());
        match op {
            op::RW => {
                let outcome = data.map(|data| link.data(data));
                if let Some(Err(violation)) = outcome {
                    tracing::debug!("vsock of CID {}: {:?}: {violation}", self.cid, link.ports);
                }
                matches!(outcome, Some(Ok(())))
            }
            op::SHUTDOWN => {
                link.state.guest_shutdown(header.flags.get());
                true
            }
            op::CREDIT_UPDATE => true,
            op::CREDIT_REQUEST => {
                link.state.credit_asked();
                true
            }
            // A second request for the same ports, or what only the host answers.
            _ => false,
        }
    }

    /// Something happened at the host's end of a connection. A token that is nobody's is ignored.
    pub fn event(&mut self, token: u16, event: Event) {
        let Some(link) = self.links.get_mut(&token) else { return };
        link.readable = true;
        if event.hung_up {
            link.hung_up();
        }
        self.settle(token);
    }

    /// The next packet for the guest, with at most `data.len()` bytes, which must not be 0. They are in `data` then.
    pub fn next(&mut self, data: &mut [u8]) -> Option<Header> {
        if let Some(reply) = self.replies.pop_front() {
            return Some(reply);
        }
        while let Some(token) = self.queue.pop_front() {
            let Some(link) = self.links.get_mut(&token) else { continue };
            link.queued = false;
            let header = next_of(self.cid, link, data);
            self.settle(token);
            if header.is_some() {
                return header;
            }
            if let Some(reply) = self.replies.pop_front() {
                return Some(reply);
            }
        }
        None
    }

    /// The guest asks for a connection.
    fn open(&mut self, ports: Ports, header: &Header) {
        let Some(link) = self.connect(ports, header) else {
            self.reply(ports, STREAM, op::RST);
            return;
        };
        let token = self.token();
        if let Err(error) = self.watch.watch(link.socket(), token, false) {
            tracing::warn!("vsock of CID {}: cannot watch a connection: {error}", self.cid);
            self.reply(ports, STREAM, op::RST);
            return;
        }
        if link.state.window() == WINDOW {
            self.windows_bytes += u64::from(WINDOW);
        }
        self.links.insert(token, link);
        self.tokens.insert(ports, token);
        self.settle(token);
    }

    fn connect(&self, ports: Ports, header: &Header) -> Option<Link> {
        if self.links.len() >= self.limits.links {
            tracing::debug!("vsock of CID {}: {} connections, no more", self.cid, self.limits.links);
            return None;
        }
        let socket = self.host.connect(ports.guest, ports.host)?;
        let large = self.windows_bytes + u64::from(WINDOW) <= self.limits.windows_bytes;
        let window = if large { WINDOW } else { SMALL_WINDOW };
        let state = Connection::accepted(window, header.buf_alloc.get(), header.fwd_cnt.get());
        Some(Link::new(ports, state, socket))
    }

    /// A token that no connection has. There are more of them than connections.
    fn token(&mut self) -> u16 {
        loop {
            let token = self.next_token;
            self.next_token = token.checked_add(1).unwrap_or(self.first_token);
            if !self.links.contains_key(&token) {
                return token;
            }
        }
    }

    /// After anything that changed a connection: passes bytes on, and ends it or queues it.
    fn settle(&mut self, token: u16) {
        let Some(link) = self.links.get_mut(&token) else { return };
        link.settle();
        if let Some(farewell) = link.state.farewell() {
            let ports = link.ports;
            let (window, forwarded) = link.state.stamp();
            self.remove(token);
            match farewell {
                Farewell::Reset => self.reply(ports, STREAM, op::RST),
                Farewell::Shutdown => self.replies.push_back(Header {
                    flags: shutdown::BOTH.into(),
                    buf_alloc: window.into(),
                    fwd_cnt: forwarded.into(),
                    ..packet(self.cid, ports, op::SHUTDOWN)
                }),
            }
            return;
        }
        if link.is_full() != link.watches_room {
            link.watches_room = link.is_full();
            self.watch.unwatch(link.socket(), token);
            if let Err(error) = self.watch.watch(link.socket(), token, link.watches_room) {
                tracing::warn!("vsock of CID {}: cannot watch a connection: {error}", self.cid);
                let ports = link.ports;
                self.remove(token);
                self.reply(ports, STREAM, op::RST);
                return;
            }
        }
        let may_send = link.readable && link.state.output_is_open();
        if may_send && link.state.credit() == 0 {
            link.state.want_credit();
        }
        let has_output = link.state.has_control() || (may_send && link.state.credit() > 0);
        if has_output && !std::mem::replace(&mut link.queued, true) {
            self.queue.push_back(token);
        }
    }

    /// Forgets a connection and closes the host's end.
    fn remove(&mut self, token: u16) {
        let Some(link) = self.links.remove(&token) else { return };
        self.watch.unwatch(link.socket(), token);
        self.tokens.remove(&link.ports);
        if link.state.window() == WINDOW {
            self.windows_bytes -= u64::from(WINDOW);
        }
        if link.queued {
            // So that the queue is never longer than the table.
            self.queue.retain(|queued| *queued != token);
        }
    }

    /// For tests and fuzzing: what must hold between any two calls. Gives the number of connections.
    pub fn check(&self) -> usize {
        assert!(self.links.len() <= self.limits.links);
        assert_eq!(self.links.len(), self.tokens.len());
        let mut large = 0;
        for (token, link) in &self.links {
            assert!(*token >= self.first_token);
            assert_eq!(self.tokens.get(&link.ports), Some(token));
            link.check();
            large += u64::from(link.state.window()) * u64::from(link.state.window() == WINDOW);
        }
        assert_eq!(large, self.windows_bytes);
        assert!(large <= self.limits.windows_bytes);
        let queued = self.links.values().filter(|link| link.queued).count();
        assert_eq!(queued, self.queue.len());
        assert!(self.queue.iter().all(|token| self.links.get(token).is_some_and(|link| link.queued)));
        assert!(self.replies.len() <= MAX_REPLIES + self.limits.links);
        self.links.len()
    }

    /// A packet about a connection that is not in the table.
    fn reply(&mut self, ports: Ports, kind: u16, op: u16) {
        self.replies.push_back(Header { kind: kind.into(), ..packet(self.cid, ports, op) });
    }
}

/// What every packet to the guest has.
fn packet(cid: u64, ports: Ports, op: u16) -> Header {
    Header {
        src_cid: HOST_CID.into(),
        dst_cid: cid.into(),
        src_port: ports.host.into(),
        dst_port: ports.guest.into(),
        kind: STREAM.into(),
        op: op.into(),
        ..Header::default()
    }
}

/// The next packet of one connection: what is to be said, else bytes of the host's end.
fn next_of(cid: u64, link: &mut Link, data: &mut [u8]) -> Option<Header> {
    let (op, flags, len) = match link.state.control() {
        Some(Control::Response) => (op::RESPONSE, 0, 0),
        Some(Control::Shutdown(flags)) => (op::SHUTDOWN, flags, 0),
        Some(Control::CreditUpdate) => (op::CREDIT_UPDATE, 0, 0),
        Some(Control::CreditRequest) => (op::CREDIT_REQUEST, 0, 0),
        None => {
            let room = data.len().min(link.state.credit() as usize);
            if !link.readable || !link.state.output_is_open() || room == 0 {
                return None;
            }
            match link.receive(&mut data[..room]) {
                Incoming::Bytes(len) => {
                    // At most the credit, which is a u32.
                    let len = len as u32;
                    link.state.sent(len);
                    (op::RW, 0, len)
                }
                Incoming::Nothing => {
                    link.readable = false;
                    return None;
                }
                Incoming::End => {
                    link.readable = false;
                    link.state.host_ended();
                    return None;
                }
            }
        }
    };
    let (window, forwarded) = link.state.stamp();
    Some(Header {
        len: len.into(),
        flags: flags.into(),
        buf_alloc: window.into(),
        fwd_cnt: forwarded.into(),
        ..packet(cid, link.ports, op)
    })
}
