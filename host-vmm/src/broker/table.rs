//! The tables of one guest: its sessions, their regions, and who uses them.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use protocol::broker::{
    Code, Extent, GuestMessage, Hello, HostMessage, MAX_SOURCE_PORT, RegionAdd, RegionKind, RegionName,
    SessionBegin, VERSION, Welcome,
};

use super::error::{Error, Refusal};
use super::region::{Region, in_ram};
use crate::vmm::memory::GuestRam;

/// Answers that a module may leave unread.
const MAX_OUTPUT: usize = 4 << 20;

/// What a guest may hold.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Sessions at a time.
    pub sessions: u64,
    /// Regions of a session at a time.
    pub regions: u64,
    /// Extents of a region.
    pub extents: u64,
    /// Extents of all regions of the guest: what bounds the daemon's memory.
    pub guest_extents: u64,
    /// Bytes of a region.
    pub region_bytes: u64,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            sessions: 1024,
            regions: 65536,
            extents: 1 << 20,
            guest_extents: 4 << 20,
            region_bytes: 1 << 40,
        }
    }
}

/// A region whose extents have not all come.
struct Partial {
    kind: RegionKind,
    len_bytes: u64,
    total: u32,
    received: u32,
    extents: Vec<Extent>,
    /// Refused already: the rest is counted and forgotten.
    refused: Option<Code>,
}

enum Entry {
    Partial(Partial),
    Live {
        region: Arc<Region>,
        uses: u64,
    },
    /// Given up by the module and still in use.
    Removed {
        region: Arc<Region>,
        uses: u64,
    },
}

struct Session {
    cookie: [u64; 2],
    uid: u32,
    pid: u32,
    claimed: bool,
    ended: bool,
    regions: HashMap<u64, Entry>,
}

/// See the module's documentation.
pub(super) struct Table {
    ram: GuestRam,
    limits: Limits,
    /// Counts connections; the current one, if `connected`.
    epoch: u64,
    connected: bool,
    greeted: bool,
    /// The module has not been told yet that nothing of earlier connections is in use.
    fence_due: bool,
    fence_holds: u64,
    /// By connection and id: a guest that boots anew counts from the start again.
    sessions: HashMap<(u64, u64), Session>,
    cookies: HashMap<[u64; 2], (u64, u64)>,
    /// Extents of windows: start, end, owner. A window is one session's alone.
    windows: BTreeMap<u64, (u64, (u64, u64))>,
    extents: u64,
    /// Uses by connection.
    uses: BTreeMap<u64, u64>,
    output: Vec<u8>,
}

impl Table {
    pub(super) fn new(ram: GuestRam, limits: Limits) -> Table {
        Table {
            ram,
            limits,
            epoch: 0,
            connected: false,
            greeted: false,
            fence_due: false,
            fence_holds: 0,
            sessions: HashMap::new(),
            cookies: HashMap::new(),
            windows: BTreeMap::new(),
            extents: 0,
            uses: BTreeMap::new(),
            output: Vec::new(),
        }
    }

    pub(super) fn ram(&self) -> &GuestRam {
        &self.ram
    }

    pub(super) fn uses(&self) -> u64 {
        self.uses.values().sum()
    }

    pub(super) fn has_output(&self) -> bool {
        !self.output.is_empty()
    }

    pub(super) fn take_output(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.output)
    }

    fn say(&mut self, message: HostMessage) {
        let mut out = [0; HostMessage::MAX_LEN];
        let len = message.encode(&mut out).unwrap_or(0);
        self.output.extend_from_slice(&out[..len]);
    }

    // Connections.

    pub(super) fn connect(&mut self, source_port: u32) -> Result<u64, Refusal> {
        if source_port > MAX_SOURCE_PORT {
            return Err(Refusal { code: Code::DENIED, source_port });
        }
        if self.connected {
            return Err(Refusal { code: Code::BUSY, source_port });
        }
        self.epoch += 1;
        (self.connected, self.greeted, self.fence_due) = (true, false, false);
        self.output.clear();
        Ok(self.epoch)
    }

    /// The module is gone: its sessions have ended. What is in use stays known until it is not.
    pub(super) fn disconnect(&mut self, epoch: u64) {
        if !self.connected || epoch != self.epoch {
            return;
        }
        (self.connected, self.greeted, self.fence_due) = (false, false, false);
        self.output.clear();
        let ids: Vec<u64> =
            self.sessions.keys().filter(|(of, _)| *of == epoch).map(|(_, session)| *session).collect();
        for session in ids {
            self.end_session(epoch, session);
        }
    }

    pub(super) fn hold_fence(&mut self) {
        self.fence_holds += 1;
    }

    pub(super) fn release_fence(&mut self) {
        self.fence_holds = self.fence_holds.saturating_sub(1);
        self.fence_if_due();
    }

    fn fence_if_due(&mut self) {
        let old = self.uses.first_key_value().is_some_and(|(epoch, _)| *epoch < self.epoch);
        if self.fence_due && !old && self.fence_holds == 0 {
            self.fence_due = false;
            self.say(HostMessage::Fenced);
        }
    }

    // Messages.

    pub(super) fn message(&mut self, epoch: u64, message: &GuestMessage<'_>) -> Result<(), Error> {
        if !self.connected || epoch != self.epoch {
            return Err(Error::Stale);
        }
        if self.output.len() > MAX_OUTPUT {
            return Err(Error::Output(MAX_OUTPUT));
        }
        match message {
            GuestMessage::Hello(hello) if !self.greeted => self.hello(hello),
            _ if !self.greeted => Err(Error::Order("the first message is no hello")),
            GuestMessage::Hello(_) => Err(Error::Order("a second hello")),
            GuestMessage::SessionBegin(begin) => self.session_begin(begin),
            GuestMessage::RegionAdd(add) => self.region_add(add),
            GuestMessage::RegionRemove(name) => {
                self.region_remove(name);
                Ok(())
            }
            GuestMessage::SessionEnd(session) => {
                self.end_session(epoch, *session);
                Ok(())
            }
        }
    }

    fn hello(&mut self, hello: &Hello) -> Result<(), Error> {
        if hello.version != VERSION {
            self.say(HostMessage::Refused(Code::VERSION));
            return Err(Error::Order("a hello of another version"));
        }
        self.greeted = true;
        self.fence_due = true;
        let Limits { sessions, regions, extents, region_bytes, .. } = self.limits;
        self.say(HostMessage::Welcome(Welcome {
            version: VERSION,
            max_sessions: sessions,
            max_regions: regions,
            max_extents: extents,
            max_region_bytes: region_bytes,
        }));
        self.fence_if_due();
        Ok(())
    }

    fn session_begin(&mut self, begin: &SessionBegin) -> Result<(), Error> {
        let &SessionBegin { session, cookie, uid, pid } = begin;
        let key = (self.epoch, session);
        if self.sessions.contains_key(&key) {
            return Err(Error::Order("a session began twice"));
        }
        let code = if self.sessions.len() as u64 >= self.limits.sessions {
            Code::LIMIT
        } else if cookie == [0; 2] || self.cookies.contains_key(&cookie) {
            Code::INVALID
        } else {
            let regions = HashMap::new();
            self.sessions.insert(key, Session { cookie, uid, pid, claimed: false, ended: false, regions });
            self.cookies.insert(cookie, key);
            Code::OK
        };
        self.say(HostMessage::SessionBegun { session, code });
        Ok(())
    }

    fn region_add(&mut self, add: &RegionAdd<'_>) -> Result<(), Error> {
        let key = (self.epoch, add.session);
        let limits = self.limits;
        let room = limits.guest_extents.saturating_sub(self.extents);
        let session = self.sessions.get_mut(&key).filter(|session| !session.ended);
        let session = session.ok_or(Error::Order("a region of an unknown session"))?;
        if add.first == 0 {
            let known = session.regions.contains_key(&add.region);
            if known || add.extents_total == 0 {
                return Err(Error::Order("a region that is known or has no extents"));
            }
            let refused = if ![RegionKind::WINDOW, RegionKind::PINNED].contains(&add.kind) {
                Some(Code::INVALID)
            } else if session.regions.len() as u64 >= limits.regions
                || u64::from(add.extents_total) > limits.extents
                || add.len > limits.region_bytes
            {
                Some(Code::LIMIT)
            } else {
                None
            };
            let partial = Partial {
                kind: add.kind,
                len_bytes: add.len,
                total: add.extents_total,
                received: 0,
                extents: Vec::new(),
                refused,
            };
            session.regions.insert(add.region, Entry::Partial(partial));
        }
        let Some(Entry::Partial(partial)) = session.regions.get_mut(&add.region) else {
            return Err(Error::Order("extents of a region that did not begin"));
        };
        let received = u64::from(add.first) + add.extents.len() as u64;
        if (add.first, add.kind, add.len, add.extents_total)
            != (partial.received, partial.kind, partial.len_bytes, partial.total)
            || received > u64::from(partial.total)
        {
            return Err(Error::Order("extents that do not follow those before"));
        }
        partial.received = received as u32;
        if partial.refused.is_none() && add.extents.len() as u64 > room {
            partial.refused = Some(Code::LIMIT);
        }
        if partial.refused.is_none() {
            self.extents += add.extents.len() as u64;
            partial.extents.extend(add.extents.iter());
        } else {
            self.extents -= partial.extents.len() as u64;
            partial.extents = Vec::new();
        }
        if partial.received == partial.total {
            self.region_complete(key, add.region);
        }
        Ok(())
    }

    /// All extents have come: the region is made, or refused and forgotten.
    fn region_complete(&mut self, key: (u64, u64), id: u64) {
        let Some(session) = self.sessions.get_mut(&key) else { return };
        let Some(Entry::Partial(partial)) = session.regions.remove(&id) else { return };
        let name = RegionName { session: key.1, region: id };
        let count = partial.extents.len() as u64;
        let made = match partial.refused {
            Some(code) => Err(code),
            None if !self.may_have(key, partial.kind, &partial.extents) => Err(Code::INVALID),
            None => {
                Region::new((key.0, key.1, id), partial.kind, partial.len_bytes, &partial.extents, &self.ram)
                    .ok_or(Code::INVALID)
            }
        };
        let code = match made {
            Ok(region) => {
                if region.kind == RegionKind::WINDOW {
                    self.windows
                        .extend(region.extents().map(|extent| (extent.gpa, (extent.gpa + extent.len, key))));
                }
                let entry = Entry::Live { region: Arc::new(region), uses: 0 };
                if let Some(session) = self.sessions.get_mut(&key) {
                    session.regions.insert(id, entry);
                }
                Code::OK
            }
            Err(code) => {
                self.extents -= count;
                code
            }
        };
        self.say(HostMessage::RegionAdded { name, code });
    }

    /// Whether a session may have these extents: they are the guest's memory, a window is nobody else's, and nothing else of another session lies in a window.
    fn may_have(&self, key: (u64, u64), kind: RegionKind, extents: &[Extent]) -> bool {
        let free = extents.iter().all(|extent| {
            in_ram(&self.ram, *extent)
                && self.overlapping(*extent).is_none_or(|owner| kind == RegionKind::PINNED && owner == key)
        });
        if !free || kind == RegionKind::PINNED {
            return free;
        }
        let mut sorted: Vec<Extent> = extents.to_vec();
        sorted.sort_unstable_by_key(|extent| extent.gpa);
        sorted.windows(2).all(|pair| pair[0].gpa + pair[0].len <= pair[1].gpa)
    }

    /// The owner of a window that the extent overlaps; another session's if there are several.
    fn overlapping(&self, extent: Extent) -> Option<(u64, u64)> {
        let end = extent.end()?;
        let mut found: Option<(u64, u64)> = None;
        for (_, &(window_end, owner)) in self.windows.range(..end).rev() {
            if window_end <= extent.gpa {
                break;
            }
            if found.is_some_and(|before| before != owner) {
                // Two owners: one of them is not the one who asks. No session has the id of connection 0.
                return Some((0, 0));
            }
            found = Some(owner);
        }
        found
    }

    fn region_remove(&mut self, name: &RegionName) {
        let key = (self.epoch, name.session);
        let session = self.sessions.get_mut(&key).filter(|session| !session.ended);
        let entry = session.and_then(|session| session.regions.remove(&name.region));
        match entry {
            Some(Entry::Live { region, uses } | Entry::Removed { region, uses }) if uses != 0 => {
                if let Some(session) = self.sessions.get_mut(&key) {
                    session.regions.insert(name.region, Entry::Removed { region, uses });
                }
                return;
            }
            Some(entry) => self.forget(entry),
            // Refused, or never known: nothing uses it.
            None => {}
        }
        self.say(HostMessage::RegionReleased(*name));
    }

    /// Gives back what a region took of the tables.
    fn forget(&mut self, entry: Entry) {
        match entry {
            Entry::Partial(partial) => self.extents -= partial.extents.len() as u64,
            Entry::Live { region, .. } | Entry::Removed { region, .. } => {
                self.extents -= region.extent_count() as u64;
                if region.kind == RegionKind::WINDOW {
                    for extent in region.extents() {
                        self.windows.remove(&extent.gpa);
                    }
                }
            }
        }
    }

    fn end_session(&mut self, epoch: u64, id: u64) {
        let key = (epoch, id);
        if let Some(session) = self.sessions.get_mut(&key)
            && !session.ended
        {
            session.ended = true;
            let cookie = session.cookie;
            let mut idle = Vec::new();
            let mut used = HashMap::new();
            for (region, entry) in session.regions.drain() {
                match entry {
                    Entry::Live { region: data, uses } | Entry::Removed { region: data, uses }
                        if uses != 0 =>
                    {
                        used.insert(region, Entry::Removed { region: data, uses });
                    }
                    entry => idle.push(entry),
                }
            }
            session.regions = used;
            self.cookies.remove(&cookie);
            for entry in idle {
                self.forget(entry);
            }
        }
        self.settle(key);
    }

    /// Forgets an ended session that nothing uses, and says so.
    fn settle(&mut self, key: (u64, u64)) {
        match self.sessions.get(&key) {
            Some(session) if !session.ended || !session.regions.is_empty() => return,
            _ => {}
        }
        self.sessions.remove(&key);
        if self.connected && key.0 == self.epoch {
            self.say(HostMessage::SessionReleased(key.1));
        }
    }

    // Sessions and uses.

    pub(super) fn claim(&mut self, cookie: [u64; 2]) -> Option<(u64, u64)> {
        let key = *self.cookies.get(&cookie)?;
        let session = self.sessions.get_mut(&key)?;
        if session.claimed || session.ended {
            return None;
        }
        session.claimed = true;
        Some(key)
    }

    pub(super) fn program(&self, epoch: u64, session: u64) -> Option<(u32, u32)> {
        let session = self.sessions.get(&(epoch, session)).filter(|session| !session.ended)?;
        Some((session.uid, session.pid))
    }

    pub(super) fn begin_use(&mut self, epoch: u64, session: u64, id: u64) -> Result<Arc<Region>, Error> {
        let session = self.sessions.get_mut(&(epoch, session)).filter(|session| !session.ended);
        match session.ok_or(Error::Ended)?.regions.get_mut(&id) {
            Some(Entry::Live { region, uses }) => {
                *uses += 1;
                *self.uses.entry(epoch).or_default() += 1;
                Ok(Arc::clone(region))
            }
            _ => Err(Error::Unknown(id)),
        }
    }

    pub(super) fn end_use(&mut self, region: &Region) {
        let key = (region.epoch, region.session);
        if let Some(count) = self.uses.get_mut(&region.epoch) {
            *count -= 1;
            if *count == 0 {
                self.uses.remove(&region.epoch);
            }
        }
        if let Some(session) = self.sessions.get_mut(&key) {
            let ended = session.ended;
            let last = match session.regions.get_mut(&region.id) {
                Some(Entry::Live { uses, .. }) => {
                    *uses -= 1;
                    false
                }
                Some(Entry::Removed { uses, .. }) => {
                    *uses -= 1;
                    *uses == 0
                }
                _ => false,
            };
            if last && let Some(entry) = session.regions.remove(&region.id) {
                self.forget(entry);
                if ended {
                    self.settle(key);
                } else {
                    let name = RegionName { session: region.session, region: region.id };
                    self.say(HostMessage::RegionReleased(name));
                }
            }
        }
        self.fence_if_due();
    }
}
