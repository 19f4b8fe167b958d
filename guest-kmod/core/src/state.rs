//! The broker's state: the connection, sessions and regions, and what is to be sent next.
//!
//! The rule that everything here serves: pages that the host may know are not freed before the host has said that nothing uses them.
//! "May know" begins when the first extent is put into a send buffer. The host's word is [`HostMessage::RegionReleased`] for one region,
//! [`HostMessage::SessionReleased`] for a session, and, after the connection was lost, [`HostMessage::Fenced`] on a later connection.

use crate::account::{Accounts, Charge, Limits};
use crate::errno::*;
use crate::list::{Link, List};
use crate::memory::{KVec, NONE, Slab};
use crate::region::{ExtentBuilder, IN_QUEUE, OF_SESSION, Region, RegionState};
use crate::session::{Session, SessionState, TO_SEND};
use crate::wire::{
    self, Code, Extents, GuestMessage, Hello, HostMessage, MAX_EXTENTS_PER_MESSAGE, RegionAdd, RegionKind,
    RegionName, SessionBegin, Welcome,
};

/// Bits of a region's id that are its index.
pub const REGION_SLOT_BITS: u32 = 20;
/// Bits of a session's id that are its index.
pub const SESSION_SLOT_BITS: u32 = 12;
/// Bits of a region's id that its place in the device file's address space has.
pub const REGION_OFFSET_BITS: u32 = 40;

/// The connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Connection {
    /// None.
    Down,
    /// Made; the hello is to be sent.
    Connected,
    /// The hello was sent.
    HelloSent,
    /// The host has accepted it.
    Up,
}

/// What a program asks about its session.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(C)]
pub struct Usage {
    /// Regions that are live or being made.
    pub regions: u64,
    /// Bytes of those.
    pub live_bytes: u64,
    /// Bytes of regions that the host has not released yet.
    pub waiting_bytes: u64,
    /// Bytes charged to the user.
    pub user_bytes: u64,
    /// Bytes charged to the process.
    pub process_bytes: u64,
}

/// What a program asks about a region. The numbers of `state` are those of the user interface.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(C)]
pub struct RegionInfo {
    /// Bytes.
    pub len: u64,
    /// 0 being made, 1 live, 2 waits for the host's release.
    pub state: u32,
    /// Extents that were named to the host.
    pub extents: u32,
}

/// Regions for which the host takes long, as found by [`State::overdue`].
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(C)]
pub struct Overdue {
    /// Found since the last call.
    pub regions: u64,
    /// Their bytes.
    pub bytes: u64,
    /// All that wait for the host, new or not.
    pub waiting: u64,
}

/// See the module's documentation.
pub struct State {
    link: Connection,
    host: Welcome,
    fenced: bool,
    instance: [u64; 2],
    accounts: Accounts,
    sessions: Slab<Session>,
    regions: Slab<Region>,
    sessions_to_send: List<TO_SEND>,
    regions_to_send: List<IN_QUEUE>,
    dead: List<IN_QUEUE>,
    serial: u64,
}

impl State {
    /// Nothing open, nothing connected.
    pub const fn new(limits: Limits, instance: [u64; 2]) -> State {
        State {
            link: Connection::Down,
            host: Welcome {
                version: 0,
                max_sessions: 0,
                max_regions: 0,
                max_extents: 0,
                max_region_bytes: 0,
            },
            fenced: false,
            instance,
            accounts: Accounts::new(limits),
            sessions: Slab::new(1 << SESSION_SLOT_BITS),
            regions: Slab::new(1 << REGION_SLOT_BITS),
            sessions_to_send: List::EMPTY,
            regions_to_send: List::EMPTY,
            dead: List::EMPTY,
            serial: 0,
        }
    }

    /// The accounts.
    pub fn accounts(&self) -> &Accounts {
        &self.accounts
    }

    /// The accounts, to give charges back.
    pub fn accounts_mut(&mut self) -> &mut Accounts {
        &mut self.accounts
    }

    /// Whether the host has accepted the connection.
    pub fn is_up(&self) -> bool {
        self.link == Connection::Up
    }

    /// Longest region in bytes that both sides allow.
    pub fn max_region_bytes(&self) -> u64 {
        (self.accounts.limits().region.saturating_mul(wire::PAGE_SIZE)).min(self.host.max_region_bytes)
    }

    fn next_serial(&mut self) -> u64 {
        self.serial += 1;
        self.serial
    }

    // Sessions.

    /// Begins a session for the user `uid` and the address space `process`.
    ///
    /// # Errors
    /// ENXIO without a connection, EDQUOT or EMFILE for too many sessions, ENOMEM.
    pub fn open(&mut self, uid: u32, pid: u32, process: u64, cookie: [u64; 2]) -> Result<u64, i32> {
        if !self.is_up() {
            return Err(ENXIO);
        }
        if u64::from(self.sessions.len()) >= self.host.max_sessions {
            return Err(EMFILE);
        }
        let owners = self.accounts.open(uid, process)?;
        let session = Session {
            id: 0,
            cookie,
            uid,
            pid,
            state: SessionState::New,
            closed: false,
            owners,
            regions: List::EMPTY,
            region_count: 0,
            to_send: Link::FREE,
        };
        let Ok(index) = self.sessions.insert(session) else {
            self.accounts.close(owners);
            return Err(ENOMEM);
        };
        let id = (self.next_serial() << SESSION_SLOT_BITS) | u64::from(index);
        if let Some(session) = self.sessions.get_mut(index) {
            session.id = id;
        }
        self.sessions_to_send.push(&mut self.sessions, index);
        Ok(id)
    }

    fn session_index(&self, id: u64) -> Option<u32> {
        let index = (id & ((1 << SESSION_SLOT_BITS) - 1)) as u32;
        (self.sessions.get(index)?.id == id).then_some(index)
    }

    /// The index of a session that its program still has.
    fn open_session(&self, id: u64) -> Result<u32, i32> {
        let index = self.session_index(id).ok_or(EBADF)?;
        match self.sessions.get(index) {
            Some(session) if !session.closed => Ok(index),
            _ => Err(EBADF),
        }
    }

    /// Whether the session can be used: `Ok(true)` if so, `Ok(false)` if the host has not answered yet.
    ///
    /// # Errors
    /// EACCES if the host refused it, ECONNRESET if its connection is gone, EBADF if it is closed.
    pub fn ready(&self, session: u64) -> Result<bool, i32> {
        let index = self.open_session(session)?;
        match self.sessions.get(index).map(|session| session.state) {
            Some(SessionState::Live) => Ok(true),
            Some(SessionState::New | SessionState::Beginning) => Ok(false),
            Some(SessionState::Refused(code)) => Err(refusal(code, EACCES)),
            Some(SessionState::Lost) => Err(ECONNRESET),
            _ => Err(EBADF),
        }
    }

    /// The secret that the program shows to the daemon.
    pub fn cookie(&self, session: u64) -> Option<[u64; 2]> {
        let index = self.open_session(session).ok()?;
        self.sessions.get(index).map(|session| session.cookie)
    }

    /// The device was closed or the program has ended. Regions that the host may know stay until it confirms. May be called again.
    pub fn close(&mut self, session: u64, now_ms: u64) {
        let Ok(index) = self.open_session(session) else { return };
        let Some(entry) = self.sessions.get_mut(index) else { return };
        entry.closed = true;
        match entry.state {
            SessionState::New => entry.state = SessionState::Done,
            SessionState::Beginning | SessionState::Live => {
                entry.state = SessionState::Ending;
                self.sessions_to_send.push(&mut self.sessions, index);
            }
            _ => {}
        }
        let known = matches!(self.sessions.get(index).map(|s| s.state), Some(SessionState::Ending));
        self.for_each_region_of(index, |state, region| {
            match state.regions.get(region).map(|r| (r.state, r.sent)) {
                // The thread that makes it will find the session closed.
                Some((RegionState::Building, _)) => {}
                Some((RegionState::Adding, 0) | (RegionState::Refused(_), _)) => state.kill(region),
                Some((RegionState::Adding | RegionState::Live, _)) if known => {
                    state.dequeue(region);
                    state.wait_for_host(region, RegionState::Removing, now_ms);
                }
                // The end of the session says it all.
                Some((RegionState::Removing, _)) => state.dequeue(region),
                _ => {}
            }
        });
        self.free_if_done(index);
    }

    fn for_each_region_of(&mut self, session: u32, mut act: impl FnMut(&mut State, u32)) {
        let mut region = self.sessions.get(session).map_or(NONE, |session| session.regions.first());
        while region != NONE {
            let next = List::<OF_SESSION>::after(&mut self.regions, region);
            act(self, region);
            region = next;
        }
    }

    /// Frees the entry of a session that neither its program nor the host nor a region needs.
    fn free_if_done(&mut self, index: u32) {
        let Some(session) = self.sessions.get(index) else { return };
        let settled =
            matches!(session.state, SessionState::Refused(_) | SessionState::Done | SessionState::Lost);
        if !session.closed || !settled || session.region_count != 0 {
            return;
        }
        let owners = session.owners;
        self.sessions_to_send.unlink(&mut self.sessions, index);
        self.sessions.remove(index);
        self.accounts.close(owners);
    }

    // Regions.

    /// Reserves a region of `len` bytes: checks the limits, charges the pages, gives an id.
    ///
    /// # Errors
    /// EINVAL or E2BIG for the length, EDQUOT, EMFILE, ENOMEM, EAGAIN before the host knows the session, and those of [`State::ready`].
    pub fn reserve(&mut self, session: u64, kind: RegionKind, len: u64) -> Result<(u64, Charge), i32> {
        if !self.ready(session)? {
            return Err(EAGAIN);
        }
        let owner = self.open_session(session)?;
        if len == 0 || !len.is_multiple_of(wire::PAGE_SIZE) {
            return Err(EINVAL);
        }
        if len > self.max_region_bytes() {
            return Err(E2BIG);
        }
        let entry = self.sessions.get(owner).ok_or(EBADF)?;
        let limit = u64::from(self.accounts.limits().session_regions).min(self.host.max_regions);
        if u64::from(entry.region_count) >= limit {
            return Err(EMFILE);
        }
        let charge = self.accounts.charge(entry.owners, len / wire::PAGE_SIZE)?;
        let region = Region {
            id: 0,
            session: owner,
            kind,
            len,
            state: RegionState::Building,
            extents: KVec::new(),
            extents_total: 0,
            sent: 0,
            remove_sent: false,
            pages: 0,
            since_ms: 0,
            reported: false,
            of_session: Link::FREE,
            in_queue: Link::FREE,
        };
        let Ok(index) = self.regions.insert(region) else {
            self.accounts.uncharge(charge);
            return Err(ENOMEM);
        };
        let id = (self.next_serial() << REGION_SLOT_BITS) | u64::from(index);
        if let Some(region) = self.regions.get_mut(index) {
            region.id = id;
        }
        if let Some(entry) = self.sessions.get_mut(owner) {
            entry.regions.push(&mut self.regions, index);
            entry.region_count += 1;
        }
        Ok((id, charge))
    }

    /// The index of a region that is not dead.
    fn region_index(&self, id: u64) -> Option<u32> {
        let index = (id & ((1 << REGION_SLOT_BITS) - 1)) as u32;
        let region = self.regions.get(index)?;
        (region.id == id && region.state != RegionState::Dead).then_some(index)
    }

    /// The index of a region of this session.
    fn region_of(&self, session: u64, region: u64) -> Result<u32, i32> {
        let owner = self.session_index(session).ok_or(EBADF)?;
        let index = self.region_index(region).ok_or(ENOENT)?;
        match self.regions.get(index) {
            Some(entry) if entry.session == owner => Ok(index),
            _ => Err(ENOENT),
        }
    }

    /// The pages of a reserved region are there: it will be named to the host. On success the state owns `pages`.
    ///
    /// # Errors
    /// Those of [`State::ready`], EREMOTEIO if the extents are not of the reserved length, E2BIG, ENOMEM. The caller then still owns `pages` and calls
    /// [`State::abandon`].
    pub fn publish(&mut self, region: u64, pages: usize, extents: ExtentBuilder) -> Result<(), i32> {
        let index = self.region_index(region).ok_or(EBADF)?;
        let owner =
            self.regions.get(index).and_then(|region| self.sessions.get(region.session)).ok_or(EBADF)?;
        if !self.ready(owner.id)? {
            return Err(EBADF);
        }
        let (extents, sum) = extents.finish()?;
        if extents.len() as u64 > self.host.max_extents {
            return Err(E2BIG);
        }
        let entry = self.regions.get_mut(index).ok_or(EBADF)?;
        if entry.state != RegionState::Building || entry.len != sum {
            return Err(EREMOTEIO);
        }
        entry.extents_total = extents.len() as u32;
        entry.extents = extents;
        entry.pages = pages;
        entry.state = RegionState::Adding;
        self.regions_to_send.push(&mut self.regions, index);
        Ok(())
    }

    /// Forgets a reserved region that was not published. Its charge is the caller's to give back.
    pub fn abandon(&mut self, region: u64) {
        let Some(index) = self.region_index(region) else { return };
        if self.regions.get(index).is_some_and(|region| region.state == RegionState::Building) {
            self.leave_session(index);
            self.regions.remove(index);
        }
    }

    /// Whether a published region is usable: `Ok(true)` if so, `Ok(false)` if the host has not answered.
    ///
    /// # Errors
    /// What the host refused it with, ECONNRESET, EBADF, ENOENT.
    pub fn added(&self, session: u64, region: u64) -> Result<bool, i32> {
        self.ready(session)?;
        let index = self.region_of(session, region)?;
        match self.regions.get(index).map(|region| region.state) {
            Some(RegionState::Building | RegionState::Adding) => Ok(false),
            Some(RegionState::Live) => Ok(true),
            Some(RegionState::Refused(code)) => Err(refusal(code, EREMOTEIO)),
            _ => Err(ENOENT),
        }
    }

    /// The program gives a region up. Asking again for one that waits for the host is no error.
    ///
    /// # Errors
    /// ENOENT, EBADF, ECONNRESET; EBUSY while it is being made.
    pub fn remove(&mut self, session: u64, region: u64, now_ms: u64) -> Result<(), i32> {
        self.ready(session)?;
        let index = self.region_of(session, region)?;
        let entry = self.regions.get(index).ok_or(ENOENT)?;
        match (entry.state, entry.sent) {
            (RegionState::Building, _) => return Err(EBUSY),
            (RegionState::Adding, 0) | (RegionState::Refused(_), _) => self.kill(index),
            (RegionState::Adding | RegionState::Live, _) => {
                self.dequeue(index);
                self.wait_for_host(index, RegionState::Removing, now_ms);
                self.regions_to_send.push(&mut self.regions, index);
            }
            (RegionState::Removing, _) => {}
            (RegionState::Orphan | RegionState::Dead, _) => return Err(ECONNRESET),
        }
        Ok(())
    }

    /// Whether the host has released a region: it is not known any more.
    ///
    /// # Errors
    /// ECONNRESET, EBADF.
    pub fn released(&self, session: u64, region: u64) -> Result<bool, i32> {
        self.ready(session)?;
        Ok(self.region_of(session, region).is_err())
    }

    /// The pages of the live window that lies at `page_offset` of the device file.
    pub fn window_at(&self, session: u64, page_offset: u64) -> Option<usize> {
        let owner = self.open_session(session).ok()?;
        let region = self.regions.get((page_offset & ((1 << REGION_SLOT_BITS) - 1)) as u32)?;
        let right = region.session == owner
            && region.state == RegionState::Live
            && region.kind == RegionKind::WINDOW
            && region.id & ((1 << REGION_OFFSET_BITS) - 1) == page_offset;
        right.then_some(region.pages)
    }

    /// Sums over a session's regions.
    ///
    /// # Errors
    /// EBADF.
    pub fn usage(&mut self, session: u64) -> Result<Usage, i32> {
        let index = self.open_session(session)?;
        let owners = self.sessions.get(index).ok_or(EBADF)?.owners;
        let (user, process) = self.accounts.pages(owners);
        let mut usage = Usage {
            user_bytes: user * wire::PAGE_SIZE,
            process_bytes: process * wire::PAGE_SIZE,
            ..Usage::default()
        };
        self.for_each_region_of(index, |state, region| {
            let Some(region) = state.regions.get(region) else { return };
            match region.state {
                RegionState::Removing | RegionState::Orphan => usage.waiting_bytes += region.len,
                _ => {
                    usage.regions += 1;
                    usage.live_bytes += region.len;
                }
            }
        });
        Ok(usage)
    }

    /// One region.
    ///
    /// # Errors
    /// ENOENT, EBADF.
    pub fn region_info(&self, session: u64, region: u64) -> Result<RegionInfo, i32> {
        self.open_session(session)?;
        let region = self.regions.get(self.region_of(session, region)?).ok_or(ENOENT)?;
        let state = match region.state {
            RegionState::Building | RegionState::Adding => 0,
            RegionState::Live => 1,
            _ => 2,
        };
        Ok(RegionInfo { len: region.len, state, extents: region.extents_total })
    }

    fn wait_for_host(&mut self, index: u32, state: RegionState, now_ms: u64) {
        if let Some(region) = self.regions.get_mut(index) {
            region.state = state;
            region.since_ms = now_ms;
            region.reported = false;
            region.extents = KVec::new();
        }
    }

    fn dequeue(&mut self, index: u32) {
        self.regions_to_send.unlink(&mut self.regions, index);
    }

    fn leave_session(&mut self, index: u32) {
        let Some(owner) = self.regions.get(index).map(|region| region.session) else { return };
        if let Some(session) = self.sessions.get_mut(owner)
            && self.regions.get(index).is_some_and(|region| region.of_session.is_linked())
        {
            session.regions.unlink(&mut self.regions, index);
            session.region_count -= 1;
        }
        self.free_if_done(owner);
    }

    /// Nothing on the other side has the region, or ever had: its pages can be taken.
    fn kill(&mut self, index: u32) {
        self.dequeue(index);
        if let Some(region) = self.regions.get_mut(index) {
            region.state = RegionState::Dead;
            region.extents = KVec::new();
        }
        self.dead.push(&mut self.regions, index);
        self.leave_session(index);
    }

    /// Pages that may be freed now; each comes once.
    pub fn take_dead(&mut self) -> Option<usize> {
        let index = self.dead.pop(&mut self.regions)?;
        self.regions.remove(index).map(|region| region.pages)
    }

    /// Regions whose release the host has owed for longer than `limit_ms` and that were not reported yet.
    pub fn overdue(&mut self, now_ms: u64, limit_ms: u64) -> Overdue {
        let mut found = Overdue::default();
        for index in 0..self.regions.bound() {
            let Some(region) = self.regions.get_mut(index) else { continue };
            if !matches!(region.state, RegionState::Removing | RegionState::Orphan) {
                continue;
            }
            found.waiting += 1;
            if !region.reported && now_ms.saturating_sub(region.since_ms) >= limit_ms {
                region.reported = true;
                found.regions += 1;
                found.bytes += region.len;
            }
        }
        found
    }

    // The connection.

    /// There is a connection: a hello will be sent.
    pub fn connected(&mut self) {
        self.link = Connection::Connected;
        self.fenced = false;
    }

    /// The connection is gone. All sessions are lost; what the host may know is kept.
    pub fn disconnected(&mut self, now_ms: u64) {
        self.link = Connection::Down;
        while self.sessions_to_send.pop(&mut self.sessions).is_some() {}
        while self.regions_to_send.pop(&mut self.regions).is_some() {}
        for index in 0..self.regions.bound() {
            match self.regions.get(index).map(|region| (region.state, region.sent)) {
                Some((RegionState::Adding, 0) | (RegionState::Refused(_), _)) => self.kill(index),
                Some((RegionState::Adding | RegionState::Live, _)) => {
                    self.wait_for_host(index, RegionState::Orphan, now_ms);
                }
                Some((RegionState::Removing, _)) => {
                    // It goes on waiting since when it did.
                    if let Some(region) = self.regions.get_mut(index) {
                        region.state = RegionState::Orphan;
                    }
                }
                _ => {}
            }
        }
        for index in 0..self.sessions.bound() {
            if let Some(session) = self.sessions.get_mut(index) {
                session.state = SessionState::Lost;
            }
            self.free_if_done(index);
        }
    }

    /// Whether [`State::next_message`] would give something.
    pub fn has_message(&self) -> bool {
        match self.link {
            Connection::Connected => true,
            Connection::Up => !self.sessions_to_send.is_empty() || !self.regions_to_send.is_empty(),
            Connection::Down | Connection::HelloSent => false,
        }
    }

    /// Puts the next message into `out` (of at least [`wire::MAX_MESSAGE`] bytes); None if there is none.
    pub fn next_message(&mut self, out: &mut [u8]) -> Option<usize> {
        match self.link {
            Connection::Connected => {
                let held = (0..self.regions.bound())
                    .filter(|&index| {
                        self.regions.get(index).is_some_and(|region| region.state == RegionState::Orphan)
                    })
                    .count() as u64;
                self.link = Connection::HelloSent;
                GuestMessage::Hello(Hello { version: wire::VERSION, instance: self.instance, held })
                    .encode(out)
            }
            Connection::Up => match self.next_of_sessions(out) {
                Some(len) => Some(len),
                None => self.next_of_regions(out),
            },
            Connection::Down | Connection::HelloSent => None,
        }
    }

    fn next_of_sessions(&mut self, out: &mut [u8]) -> Option<usize> {
        while let Some(index) = self.sessions_to_send.pop(&mut self.sessions) {
            let Some(session) = self.sessions.get_mut(index) else { continue };
            match session.state {
                SessionState::New => {
                    session.state = SessionState::Beginning;
                    let Session { id, cookie, uid, pid, .. } = *session;
                    return GuestMessage::SessionBegin(SessionBegin { session: id, cookie, uid, pid })
                        .encode(out);
                }
                SessionState::Ending => {
                    session.state = SessionState::Ended;
                    return GuestMessage::SessionEnd(session.id).encode(out);
                }
                _ => {}
            }
        }
        None
    }

    fn next_of_regions(&mut self, out: &mut [u8]) -> Option<usize> {
        while let Some(index) = self.regions_to_send.pop(&mut self.regions) {
            let Some(region) = self.regions.get_mut(index) else { continue };
            let Some(session) = self.sessions.get(region.session).map(|session| session.id) else { continue };
            match region.state {
                RegionState::Adding => {
                    let left = region.extents.as_slice().get(region.sent as usize..).unwrap_or(&[]);
                    let (now, later) = left.split_at_checked(MAX_EXTENTS_PER_MESSAGE).unwrap_or((left, &[]));
                    let head = RegionAdd {
                        session,
                        region: region.id,
                        kind: region.kind,
                        len: region.len,
                        extents_total: region.extents_total,
                        first: region.sent,
                        extents: Extents::default(),
                    };
                    let len = wire::encode_region_add(&head, now, out);
                    region.sent += now.len() as u32;
                    if later.is_empty() {
                        region.extents = KVec::new();
                    } else {
                        self.regions_to_send.push(&mut self.regions, index);
                    }
                    return len;
                }
                RegionState::Removing if !region.remove_sent => {
                    region.remove_sent = true;
                    return GuestMessage::RegionRemove(RegionName { session, region: region.id }).encode(out);
                }
                _ => {}
            }
        }
        None
    }

    /// Takes a message of the host.
    ///
    /// # Errors
    /// EPROTO if the host may not say this now, ECONNREFUSED if it refuses the guest. The connection is then to be closed.
    pub fn receive(&mut self, message: HostMessage) -> Result<(), i32> {
        match (message, self.link) {
            (HostMessage::Welcome(welcome), Connection::HelloSent) => {
                if welcome.version != wire::VERSION {
                    return Err(EPROTO);
                }
                self.host = welcome;
                self.link = Connection::Up;
                Ok(())
            }
            (HostMessage::Refused(_), Connection::HelloSent) => Err(ECONNREFUSED),
            (HostMessage::SessionBegun { session, code }, Connection::Up) => {
                self.session_begun(session, code)
            }
            (HostMessage::RegionAdded { name, code }, Connection::Up) => self.region_added(name, code),
            (HostMessage::RegionReleased(name), Connection::Up) => self.region_released(name),
            (HostMessage::SessionReleased(session), Connection::Up) => self.session_released(session),
            (HostMessage::Fenced, Connection::Up) if !self.fenced => {
                self.fenced = true;
                for index in 0..self.regions.bound() {
                    if self.regions.get(index).is_some_and(|region| region.state == RegionState::Orphan) {
                        self.kill(index);
                    }
                }
                Ok(())
            }
            _ => Err(EPROTO),
        }
    }

    fn session_begun(&mut self, id: u64, code: Code) -> Result<(), i32> {
        let index = self.session_index(id).ok_or(EPROTO)?;
        let session = self.sessions.get_mut(index).ok_or(EPROTO)?;
        match session.state {
            SessionState::Beginning => {
                session.state =
                    if code == Code::OK { SessionState::Live } else { SessionState::Refused(code) };
                Ok(())
            }
            // It was closed in the meantime.
            SessionState::Ending | SessionState::Ended => Ok(()),
            _ => Err(EPROTO),
        }
    }

    fn region_added(&mut self, name: RegionName, code: Code) -> Result<(), i32> {
        let index = self.region_of(name.session, name.region).map_err(|_| EPROTO)?;
        let region = self.regions.get_mut(index).ok_or(EPROTO)?;
        match region.state {
            RegionState::Adding if region.sent == region.extents_total => {
                region.state = if code == Code::OK { RegionState::Live } else { RegionState::Refused(code) };
                Ok(())
            }
            // It was given up in the meantime.
            RegionState::Removing => Ok(()),
            _ => Err(EPROTO),
        }
    }

    fn region_released(&mut self, name: RegionName) -> Result<(), i32> {
        let index = self.region_of(name.session, name.region).map_err(|_| EPROTO)?;
        match self.regions.get(index) {
            Some(region) if region.state == RegionState::Removing && region.remove_sent => {
                self.kill(index);
                Ok(())
            }
            // The host gives up what it was not asked for: believing it would free pages that it may still use.
            _ => Err(EPROTO),
        }
    }

    fn session_released(&mut self, id: u64) -> Result<(), i32> {
        let index = self.session_index(id).ok_or(EPROTO)?;
        let session = self.sessions.get_mut(index).ok_or(EPROTO)?;
        if session.state != SessionState::Ended {
            return Err(EPROTO);
        }
        session.state = SessionState::Done;
        self.for_each_region_of(index, |state, region| {
            if state.regions.get(region).is_some_and(|region| region.state == RegionState::Removing) {
                state.kill(region);
            }
        });
        self.free_if_done(index);
        Ok(())
    }

    /// Sessions and regions in the tables; for tests and for the module's parameters.
    pub fn counts(&self) -> (u32, u32) {
        (self.sessions.len(), self.regions.len())
    }
}

/// The error for a refusal of the host.
fn refusal(code: Code, other: i32) -> i32 {
    match code {
        Code::LIMIT => ENOSPC,
        Code::INVALID => EREMOTEIO,
        _ => other,
    }
}
