//! Messages between the broker module in a guest (`guest-kmod`) and the daemon. Layout and rules: `docs/guest-kmod.md`.
//!
//! The kernel module compiles this very file (`guest-kmod/core`), so it stands alone: `core` only, nothing that formats, no trait objects, no tables of function
//! pointers, and nothing that can panic. Everything is bounds-checked; what comes from the other side is copied out before it is looked at.
//!
//! A message is a 16-byte header and a body of little-endian u64 words. All numbers are chosen by the module: sessions and regions have ids that are never used again.

/// Version of these messages. There is one so far; the daemon refuses others.
pub const VERSION: u64 = 1;
/// Port of the daemon's host on which it takes broker connections, unless configured otherwise.
pub const PORT: u32 = 7102;
/// The module connects from a port up to this one. The guest's kernel lets only privileged callers bind such a port, so the daemon takes no others.
pub const MAX_SOURCE_PORT: u32 = 1023;
/// First word of every message.
pub const MAGIC: u32 = u32::from_le_bytes(*b"cuBk");
/// Bytes of a message's header.
pub const HEADER_LEN: usize = 16;
/// Extents that fit into one message.
pub const MAX_EXTENTS_PER_MESSAGE: usize = 1000;
/// Words of [`RegionAdd`] before its extents.
const REGION_ADD_WORDS: usize = 6;
/// Longest body, in bytes.
pub const MAX_BODY: usize = REGION_ADD_WORDS * 8 + MAX_EXTENTS_PER_MESSAGE * EXTENT_LEN;
/// Longest message, in bytes; below the 32 KiB that some user-space vsock back ends can take in one piece.
pub const MAX_MESSAGE: usize = HEADER_LEN + MAX_BODY;
/// Bytes of an encoded [`Extent`].
pub const EXTENT_LEN: usize = 16;
/// Guest pages are of this size; extents are multiples of it.
pub const PAGE_SIZE: u64 = 4096;

/// What a message says. An open enum: the receiver refuses what it does not know.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Kind(pub u16);

impl Kind {
    /// Module: first message of a connection ([`Hello`]).
    pub const HELLO: Kind = Kind(1);
    /// Module: a program has opened the device ([`SessionBegin`]).
    pub const SESSION_BEGIN: Kind = Kind(2);
    /// Module: memory of a session, or a part of its extents ([`RegionAdd`]).
    pub const REGION_ADD: Kind = Kind(3);
    /// Module: the session may no longer use a region ([`RegionName`]).
    pub const REGION_REMOVE: Kind = Kind(4);
    /// Module: the program has ended or closed the device; stands for the removal of all of its regions.
    pub const SESSION_END: Kind = Kind(5);
    /// Host: the hello was accepted ([`Welcome`]).
    pub const WELCOME: Kind = Kind(129);
    /// Host: the hello was not accepted; the connection ends.
    pub const REFUSED: Kind = Kind(130);
    /// Host: a session is known, or refused.
    pub const SESSION_BEGUN: Kind = Kind(131);
    /// Host: all extents of a region have come and are usable, or the region is refused and was never used.
    pub const REGION_ADDED: Kind = Kind(132);
    /// Host: nothing uses a removed region and nothing ever will.
    pub const REGION_RELEASED: Kind = Kind(133);
    /// Host: nothing uses any region of an ended session.
    pub const SESSION_RELEASED: Kind = Kind(134);
    /// Host: nothing uses any region that this guest named on an earlier connection.
    pub const FENCED: Kind = Kind(135);
}

/// Outcome of a request of the module. An open enum: every value but [`Code::OK`] is a refusal.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Code(pub u64);

impl Code {
    /// Done.
    pub const OK: Code = Code(0);
    /// The host takes no more of this (sessions, regions, extents, bytes).
    pub const LIMIT: Code = Code(1);
    /// Extents that are no memory of the guest, or that another session holds alone.
    pub const INVALID: Code = Code(2);
    /// The version of the hello is not spoken.
    pub const VERSION: Code = Code(3);
    /// Another broker of this guest is connected.
    pub const BUSY: Code = Code(4);
    /// The connection does not come from a privileged port, or this guest may not use the daemon.
    pub const DENIED: Code = Code(5);
}

/// What kind of memory a region is. An open enum.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RegionKind(pub u64);

impl RegionKind {
    /// Pages that the module has allocated for the session alone.
    pub const WINDOW: RegionKind = RegionKind(1);
    /// Pages of the program's own memory. They may also belong to other regions and other sessions (shared memory).
    pub const PINNED: RegionKind = RegionKind(2);
}

/// A run of guest-physical memory: whole pages.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(C)]
pub struct Extent {
    /// First guest-physical address.
    pub gpa: u64,
    /// Length in bytes.
    pub len: u64,
}

impl Extent {
    /// Address after the last byte, if the extent is one: whole pages, at least one, without wrapping.
    #[inline]
    pub const fn end(self) -> Option<u64> {
        if self.len == 0 || !self.gpa.is_multiple_of(PAGE_SIZE) || !self.len.is_multiple_of(PAGE_SIZE) {
            return None;
        }
        self.gpa.checked_add(self.len)
    }
}

/// Encoded extents.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Extents<'a> {
    bytes: &'a [u8],
}

impl<'a> Extents<'a> {
    /// How many.
    #[inline]
    pub fn len(&self) -> usize {
        self.bytes.len() / EXTENT_LEN
    }

    /// Whether there are none.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// The extents as they were sent: nothing about their values has been checked.
    pub fn iter(&self) -> impl Iterator<Item = Extent> + use<'a> {
        self.bytes.chunks_exact(EXTENT_LEN).map(|chunk| {
            let mut words = Words { bytes: chunk };
            Extent { gpa: words.next_or_zero(), len: words.next_or_zero() }
        })
    }
}

/// First message of the module.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Hello {
    /// [`VERSION`].
    pub version: u64,
    /// Random number of this load of the module, so that a daemon can tell a reconnection from a rebooted guest.
    pub instance: [u64; 2],
    /// Regions of earlier connections that the module still keeps; it waits for [`Kind::FENCED`] to free them.
    pub held: u64,
}

/// A session begins.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SessionBegin {
    /// Its id.
    pub session: u64,
    /// Secret that the program presents in its own hello to the daemon.
    pub cookie: [u64; 2],
    /// User of the program in the guest's initial user namespace.
    pub uid: u32,
    /// Process of the program in the guest's initial process namespace; for logs.
    pub pid: u32,
}

/// Memory of a session. A region with many extents comes in several messages, in order; other messages may stand between them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RegionAdd<'a> {
    /// The session.
    pub session: u64,
    /// The region's id.
    pub region: u64,
    /// The kind of memory.
    pub kind: RegionKind,
    /// Length of the whole region in bytes: the sum of its extents.
    pub len: u64,
    /// Extents of the whole region.
    pub extents_total: u32,
    /// Index of the first extent in this message: as many as were sent before.
    pub first: u32,
    /// Extents of this message, at least one.
    pub extents: Extents<'a>,
}

/// A region of a session.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RegionName {
    /// The session.
    pub session: u64,
    /// The region's id.
    pub region: u64,
}

/// What the host allows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Welcome {
    /// Version that will be spoken.
    pub version: u64,
    /// Sessions at a time.
    pub max_sessions: u64,
    /// Regions of one session at a time.
    pub max_regions: u64,
    /// Extents of one region.
    pub max_extents: u64,
    /// Bytes of one region.
    pub max_region_bytes: u64,
}

/// A message of the module.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum GuestMessage<'a> {
    /// [`Kind::HELLO`]
    Hello(Hello),
    /// [`Kind::SESSION_BEGIN`]
    SessionBegin(SessionBegin),
    /// [`Kind::REGION_ADD`]
    RegionAdd(RegionAdd<'a>),
    /// [`Kind::REGION_REMOVE`]
    RegionRemove(RegionName),
    /// [`Kind::SESSION_END`]
    SessionEnd(u64),
}

/// A message of the host.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum HostMessage {
    /// [`Kind::WELCOME`]
    Welcome(Welcome),
    /// [`Kind::REFUSED`]
    Refused(Code),
    /// [`Kind::SESSION_BEGUN`]
    SessionBegun {
        /// The session.
        session: u64,
        /// Outcome.
        code: Code,
    },
    /// [`Kind::REGION_ADDED`]
    RegionAdded {
        /// The region.
        name: RegionName,
        /// Outcome.
        code: Code,
    },
    /// [`Kind::REGION_RELEASED`]
    RegionReleased(RegionName),
    /// [`Kind::SESSION_RELEASED`]
    SessionReleased(u64),
    /// [`Kind::FENCED`]
    Fenced,
}

/// Why bytes are no message. The stream cannot be read any further.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MessageError {
    /// The header has another magic.
    Magic,
    /// The header's reserved word is not zero, or its length is no multiple of 8 or too long.
    Header,
    /// A kind that this side does not take.
    Kind(Kind),
    /// The body is shorter or longer than the message.
    Length(Kind),
    /// A value that cannot be: a narrow number that does not fit, no extents, or more than a message holds.
    Value(Kind),
}

/// A decoded header.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Header {
    /// What the message says.
    pub kind: Kind,
    /// Bytes of the body; a multiple of 8, at most [`MAX_BODY`].
    pub len: usize,
}

impl Header {
    /// Decodes the header of a message.
    ///
    /// # Errors
    /// [`MessageError::Magic`] and [`MessageError::Header`].
    pub fn decode(bytes: &[u8; HEADER_LEN]) -> Result<Header, MessageError> {
        let mut words = Words { bytes };
        let (first, second) = (words.next_or_zero(), words.next_or_zero());
        if first as u32 != MAGIC {
            return Err(MessageError::Magic);
        }
        let kind = Kind((first >> 32) as u16);
        let len = second as u32;
        if first >> 48 != 0 || second >> 32 != 0 || !len.is_multiple_of(8) || len as usize > MAX_BODY {
            return Err(MessageError::Header);
        }
        Ok(Header { kind, len: len as usize })
    }
}

/// Words of a body.
struct Words<'a> {
    bytes: &'a [u8],
}

impl Words<'_> {
    fn next(&mut self) -> Option<u64> {
        let (word, rest) = self.bytes.split_first_chunk::<8>()?;
        self.bytes = rest;
        Some(u64::from_le_bytes(*word))
    }

    fn next_or_zero(&mut self) -> u64 {
        self.next().unwrap_or(0)
    }

    /// Exactly `N` words, or a wrong length.
    fn all<const N: usize>(mut self, kind: Kind) -> Result<[u64; N], MessageError> {
        if self.bytes.len() != N * 8 {
            return Err(MessageError::Length(kind));
        }
        let mut words = [0; N];
        for word in &mut words {
            *word = self.next_or_zero();
        }
        Ok(words)
    }
}

const fn narrow(kind: Kind, value: u64) -> Result<u32, MessageError> {
    if value > u32::MAX as u64 { Err(MessageError::Value(kind)) } else { Ok(value as u32) }
}

impl<'a> GuestMessage<'a> {
    /// Decodes the body of a message that the module sent.
    ///
    /// # Errors
    /// [`MessageError::Kind`], [`MessageError::Length`] and [`MessageError::Value`].
    pub fn decode(kind: Kind, body: &'a [u8]) -> Result<GuestMessage<'a>, MessageError> {
        let words = Words { bytes: body };
        Ok(match kind {
            Kind::HELLO => {
                let [version, a, b, held] = words.all(kind)?;
                GuestMessage::Hello(Hello { version, instance: [a, b], held })
            }
            Kind::SESSION_BEGIN => {
                let [session, a, b, uid, pid] = words.all(kind)?;
                let (uid, pid) = (narrow(kind, uid)?, narrow(kind, pid)?);
                GuestMessage::SessionBegin(SessionBegin { session, cookie: [a, b], uid, pid })
            }
            Kind::REGION_ADD => {
                let Some((head, bytes)) = body.split_at_checked(REGION_ADD_WORDS * 8) else {
                    return Err(MessageError::Length(kind));
                };
                if !bytes.len().is_multiple_of(EXTENT_LEN) {
                    return Err(MessageError::Length(kind));
                }
                let [session, region, region_kind, len, total, first] = Words { bytes: head }.all(kind)?;
                let (extents_total, first) = (narrow(kind, total)?, narrow(kind, first)?);
                let extents = Extents { bytes };
                if extents.is_empty() || extents.len() > MAX_EXTENTS_PER_MESSAGE {
                    return Err(MessageError::Value(kind));
                }
                let kind = RegionKind(region_kind);
                GuestMessage::RegionAdd(RegionAdd {
                    session,
                    region,
                    kind,
                    len,
                    extents_total,
                    first,
                    extents,
                })
            }
            Kind::REGION_REMOVE => {
                let [session, region] = words.all(kind)?;
                GuestMessage::RegionRemove(RegionName { session, region })
            }
            Kind::SESSION_END => {
                let [session] = words.all(kind)?;
                GuestMessage::SessionEnd(session)
            }
            _ => return Err(MessageError::Kind(kind)),
        })
    }

    /// Encodes everything but [`GuestMessage::RegionAdd`] (see [`encode_region_add`]) into `out`; None if it does not fit or is that one.
    pub fn encode(&self, out: &mut [u8]) -> Option<usize> {
        match *self {
            GuestMessage::Hello(Hello { version, instance: [a, b], held }) => {
                put(out, Kind::HELLO, &[version, a, b, held])
            }
            GuestMessage::SessionBegin(SessionBegin { session, cookie: [a, b], uid, pid }) => {
                put(out, Kind::SESSION_BEGIN, &[session, a, b, uid as u64, pid as u64])
            }
            GuestMessage::RegionAdd(_) => None,
            GuestMessage::RegionRemove(RegionName { session, region }) => {
                put(out, Kind::REGION_REMOVE, &[session, region])
            }
            GuestMessage::SessionEnd(session) => put(out, Kind::SESSION_END, &[session]),
        }
    }
}

/// Encodes a [`RegionAdd`] (whose own `extents` are not looked at) with `extents`; None if it does not fit or there are too many.
pub fn encode_region_add(head: &RegionAdd<'_>, extents: &[Extent], out: &mut [u8]) -> Option<usize> {
    if extents.is_empty() || extents.len() > MAX_EXTENTS_PER_MESSAGE {
        return None;
    }
    let body = REGION_ADD_WORDS * 8 + extents.len() * EXTENT_LEN;
    let words =
        [head.session, head.region, head.kind.0, head.len, head.extents_total as u64, head.first as u64];
    let at = put_with_len(out, Kind::REGION_ADD, &words, body)?;
    let space = out.get_mut(at..HEADER_LEN + body)?;
    for (chunk, extent) in space.chunks_exact_mut(EXTENT_LEN).zip(extents) {
        put_words(chunk, &[extent.gpa, extent.len])?;
    }
    Some(HEADER_LEN + body)
}

impl HostMessage {
    /// Longest encoded message of the host.
    pub const MAX_LEN: usize = HEADER_LEN + 5 * 8;

    /// Decodes the body of a message that the host sent.
    ///
    /// # Errors
    /// [`MessageError::Kind`] and [`MessageError::Length`].
    pub fn decode(kind: Kind, body: &[u8]) -> Result<HostMessage, MessageError> {
        let words = Words { bytes: body };
        Ok(match kind {
            Kind::WELCOME => {
                let [version, max_sessions, max_regions, max_extents, max_region_bytes] = words.all(kind)?;
                HostMessage::Welcome(Welcome {
                    version,
                    max_sessions,
                    max_regions,
                    max_extents,
                    max_region_bytes,
                })
            }
            Kind::REFUSED => {
                let [code] = words.all(kind)?;
                HostMessage::Refused(Code(code))
            }
            Kind::SESSION_BEGUN => {
                let [session, code] = words.all(kind)?;
                HostMessage::SessionBegun { session, code: Code(code) }
            }
            Kind::REGION_ADDED => {
                let [session, region, code] = words.all(kind)?;
                HostMessage::RegionAdded { name: RegionName { session, region }, code: Code(code) }
            }
            Kind::REGION_RELEASED => {
                let [session, region] = words.all(kind)?;
                HostMessage::RegionReleased(RegionName { session, region })
            }
            Kind::SESSION_RELEASED => {
                let [session] = words.all(kind)?;
                HostMessage::SessionReleased(session)
            }
            Kind::FENCED => {
                let [] = words.all(kind)?;
                HostMessage::Fenced
            }
            _ => return Err(MessageError::Kind(kind)),
        })
    }

    /// Encodes into `out`; None if it does not fit. [`HostMessage::MAX_LEN`] bytes are always enough.
    pub fn encode(&self, out: &mut [u8]) -> Option<usize> {
        match *self {
            HostMessage::Welcome(w) => put(
                out,
                Kind::WELCOME,
                &[w.version, w.max_sessions, w.max_regions, w.max_extents, w.max_region_bytes],
            ),
            HostMessage::Refused(code) => put(out, Kind::REFUSED, &[code.0]),
            HostMessage::SessionBegun { session, code } => put(out, Kind::SESSION_BEGUN, &[session, code.0]),
            HostMessage::RegionAdded { name, code } => {
                put(out, Kind::REGION_ADDED, &[name.session, name.region, code.0])
            }
            HostMessage::RegionReleased(name) => {
                put(out, Kind::REGION_RELEASED, &[name.session, name.region])
            }
            HostMessage::SessionReleased(session) => put(out, Kind::SESSION_RELEASED, &[session]),
            HostMessage::Fenced => put(out, Kind::FENCED, &[]),
        }
    }
}

fn put(out: &mut [u8], kind: Kind, words: &[u64]) -> Option<usize> {
    put_with_len(out, kind, words, words.len() * 8)
}

/// A header for a body of `body` bytes, and its first `words`. Returns the place after them.
fn put_with_len(out: &mut [u8], kind: Kind, words: &[u64], body: usize) -> Option<usize> {
    let (header, rest) = out.split_at_mut_checked(HEADER_LEN)?;
    put_words(header, &[u64::from(MAGIC) | (u64::from(kind.0) << 32), body as u64])?;
    put_words(rest, words)?;
    Some(HEADER_LEN + words.len() * 8)
}

fn put_words(out: &mut [u8], words: &[u64]) -> Option<()> {
    let mut out = out;
    for word in words {
        let (space, rest) = out.split_first_chunk_mut::<8>()?;
        *space = word.to_le_bytes();
        out = rest;
    }
    Some(())
}
