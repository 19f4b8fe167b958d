//! The first frames of every connection: `Hello`, answered by a welcome or a refusal.
//!
//! ```text
//! program                          daemon / worker
//!    | Hello { control, region }        |
//!    |--------------------------------->|  starts a worker
//!    | ControlWelcome { token, limits } + window memfd
//!    |<---------------------------------|
//!    | Hello { lane, token }            |  (a second connection)
//!    |--------------------------------->|
//!    | LaneWelcome { placement }        |
//!    |<---------------------------------|
//! ```

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::fmt;
use core::ops::RangeInclusive;

use crate::frame::{FrameHeader, Kind};
use crate::lane::{LanePlacement, ring_is_valid};
use crate::region::{Region, WINDOW_MAX_LEN};
use crate::text::Text;
use crate::wire::{Reader, WireError, Writer};

/// Newest protocol version that this crate speaks.
pub const CURRENT: u32 = 2;
/// Oldest protocol version that is still accepted. Version 1 is version 2 without [`Capabilities::GUEST_MEMORY`] and [`Hello::cookie`].
pub const PREVIOUS: u32 = 1;
/// The most body bytes of a handshake frame.
pub const MAX_BODY: u32 = 4096;

/// What a side can do. Unknown bits are ignored, and dropped by [`Hello::negotiate`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
pub struct Capabilities(pub u64);

impl Capabilities {
    /// No bit.
    pub const NONE: Capabilities = Capabilities(0);
    /// The window is a memfd that comes with the control welcome.
    pub const WINDOW_FD: Capabilities = Capabilities(1);
    /// Lanes are rings in the window.
    pub const RINGS: Capabilities = Capabilities(1 << 1);
    /// Replies flag waiting device output ([`crate::Flags::DEVICE_OUTPUT`]) and the `device_output` operation exists. Since version 1.
    pub const DEVICE_OUTPUT: Capabilities = Capabilities(1 << 2);
    /// The backend loads PTX.
    pub const PTX: Capabilities = Capabilities(1 << 3);
    /// The backend loads machine code (cubin).
    pub const MACHINE_CODE: Capabilities = Capabilities(1 << 4);
    /// Lanes are streams of frames ([`crate::stream`]), for sides that share no memory. Since version 1. A welcome has this or [`Capabilities::RINGS`], never both.
    pub const STREAM_LANES: Capabilities = Capabilities(1 << 5);
    /// The window is memory of the guest, which its broker module vouches for and which the program maps piece by piece when the worker asks for it
    /// ([`crate::window`]). Since version 2. A welcome has this or [`Capabilities::WINDOW_FD`], never both.
    pub const GUEST_MEMORY: Capabilities = Capabilities(1 << 6);
    /// In a hello: the program takes the devices that the host's driver shows (`CUDA_VISIBLE_DEVICES` is not set), so that a worker will do whose driver has been started before.
    pub const ALL_DEVICES: Capabilities = Capabilities(1 << 7);
    /// In a hello: the program's list of devices is `0`, `0,1` ... ([`crate::devices::in_order`]), so that such a worker will do where there is one device.
    pub const FIRST_DEVICES: Capabilities = Capabilities(1 << 8);
    /// The operation `stage_out_watched` exists: copies that the program itself sees arrive, in whole words of 4 bytes; and replies flag code that prints
    /// ([`crate::Flags::MAY_PRINT`]). Since version 2.
    pub const WATCHED_COPIES: Capabilities = Capabilities(1 << 9);
    /// The operation `event_create` exists: events whose handles the program gives ([`crate::named`]); and `cuEventDestroy_v2` may be posted. Since version 2.
    pub const NAMED_EVENTS: Capabilities = Capabilities(1 << 10);
    /// Every bit that this version defines.
    pub const ALL: Capabilities = Capabilities(0x7ff);
    /// What a session with a window in a memfd needs.
    pub const SHARED_MEMORY: Capabilities = Capabilities(Self::WINDOW_FD.0 | Self::RINGS.0);
    /// What a session with a window in the guest's memory needs.
    pub const SHARED_GUEST_MEMORY: Capabilities = Capabilities(Self::GUEST_MEMORY.0 | Self::RINGS.0);

    /// Whether every bit of `other` is set.
    pub const fn contains(self, other: Capabilities) -> bool {
        self.0 & other.0 == other.0
    }

    /// The bits of either.
    pub const fn union(self, other: Capabilities) -> Capabilities {
        Capabilities(self.0 | other.0)
    }

    /// The bits of both.
    pub const fn intersection(self, other: Capabilities) -> Capabilities {
        Capabilities(self.0 & other.0)
    }

    /// The bits without those of `other`.
    pub const fn without(self, other: Capabilities) -> Capabilities {
        Capabilities(self.0 & !other.0)
    }

    /// The bits that exist in a protocol version.
    pub const fn of_version(version: u32) -> Capabilities {
        match version {
            ..=1 => {
                Self::ALL.without(Self::GUEST_MEMORY.union(Self::WATCHED_COPIES).union(Self::NAMED_EVENTS))
            }
            _ => Self::ALL,
        }
    }

    /// Decides how the lanes of a session work, where both sides can do what is set: by a window in a memfd if that is possible, else by one in the guest's
    /// memory, else as streams. None if none is.
    pub const fn choose_lanes(self) -> Option<Capabilities> {
        const WAYS: Capabilities = Capabilities::SHARED_MEMORY
            .union(Capabilities::SHARED_GUEST_MEMORY)
            .union(Capabilities::STREAM_LANES);
        let way = if self.contains(Self::SHARED_MEMORY) {
            Self::SHARED_MEMORY
        } else if self.contains(Self::SHARED_GUEST_MEMORY) {
            Self::SHARED_GUEST_MEMORY
        } else if self.contains(Self::STREAM_LANES) {
            Self::STREAM_LANES
        } else {
            return None;
        };
        Some(self.without(WAYS).union(way))
    }
}

/// What a connection is for. An open enum.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct ConnectionKind(pub u32);

impl ConnectionKind {
    /// The one connection that makes and ends a session.
    pub const CONTROL: ConnectionKind = ConnectionKind(1);
    /// A connection of one program thread.
    pub const LANE: ConnectionKind = ConnectionKind(2);
}

/// 128 random bits that name a session. Who knows the token may open lanes in it: never log it.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Token(pub [u8; 16]);

impl Token {
    /// The token of a hello that opens a session.
    pub const NONE: Token = Token([0; 16]);
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if *self == Token::NONE { "no token" } else { "token" })
    }
}

/// First frame of a connection, from the program.
///
/// The two version words come first in every version. A later version may only append words, which older readers skip.
#[derive(Clone, PartialEq, Eq)]
pub struct Hello {
    /// Newest version that the program speaks.
    pub newest: u32,
    /// Oldest version that the program speaks.
    pub oldest: u32,
    /// Control or lane.
    pub kind: ConnectionKind,
    /// What the program can use.
    pub capabilities: Capabilities,
    /// The session (lane), or [`Token::NONE`] (control).
    pub token: Token,
    /// Tag of the region that the program has reserved (control); a lane repeats it.
    pub region_tag: u32,
    /// The program's process id as it sees itself. For people: the kernel's credentials are what counts.
    pub pid: u32,
    /// The program's name, for people.
    pub name: Text,
    /// The program's session with its guest's memory broker ([`crate::broker`]), if it has one; else zeros. As good as that session's memory: never log it. Since
    /// version 2.
    pub cookie: [u64; 2],
}

impl fmt::Debug for Hello {
    /// Without the secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hello")
            .field("newest", &self.newest)
            .field("oldest", &self.oldest)
            .field("kind", &self.kind)
            .field("capabilities", &self.capabilities)
            .field("token", &self.token)
            .field("region_tag", &self.region_tag)
            .field("pid", &self.pid)
            .field("name", &self.name)
            .field("cookie", &if self.cookie == [0; 2] { "no cookie" } else { "cookie" })
            .finish()
    }
}

impl Hello {
    /// A control hello of this version, which says nothing about the program's list of devices.
    pub fn control(region: Region, pid: u32, name: Text) -> Hello {
        Hello {
            newest: CURRENT,
            oldest: PREVIOUS,
            kind: ConnectionKind::CONTROL,
            capabilities: Capabilities::ALL
                .without(Capabilities::ALL_DEVICES.union(Capabilities::FIRST_DEVICES)),
            token: Token::NONE,
            region_tag: region.tag(),
            pid,
            name,
            cookie: [0; 2],
        }
    }

    /// A lane hello of this version.
    pub fn lane(token: Token, region: Region, pid: u32) -> Hello {
        Hello { kind: ConnectionKind::LANE, token, ..Hello::control(region, pid, Text::EMPTY) }
    }

    /// The newest version that both sides speak and the capabilities that both have in it.
    ///
    /// # Errors
    /// [`RefusalCode::VERSION`] if there is no common version.
    pub fn negotiate(
        &self,
        versions: RangeInclusive<u32>,
        ours: Capabilities,
    ) -> Result<(u32, Capabilities), RefusalCode> {
        let version = self.newest.min(*versions.end());
        if version < self.oldest || version < *versions.start() {
            return Err(RefusalCode::VERSION);
        }
        let both = self.capabilities.intersection(ours);
        Ok((version, both.intersection(Capabilities::of_version(version))))
    }

    /// Writes the body to `buf` (emptied first) and returns the frame's header.
    pub fn encode(&self, buf: &mut Vec<u8>) -> FrameHeader {
        let mut w = Writer::new(buf);
        w.u32(self.newest);
        w.u32(self.oldest);
        w.u32(self.kind.0);
        w.u64(self.capabilities.0);
        w.fixed(&self.token.0);
        w.u32(self.region_tag);
        w.u32(self.pid);
        w.bytes(Some(self.name.as_bytes()));
        if self.newest >= 2 {
            self.cookie.iter().for_each(|word| w.u64(*word));
        }
        header(Kind::HELLO, &w)
    }

    /// Decodes a hello whose version range overlaps ours.
    ///
    /// # Errors
    /// Another kind of frame, no common version, or a malformed body. [`RefusalCode::from`] gives the answer to send.
    pub fn decode(frame: &FrameHeader, body: &[u8]) -> Result<Hello, HandshakeError> {
        let mut r = reader(Kind::HELLO, frame, body)?;
        let (newest, oldest) = (r.u32()?, r.u32()?);
        if oldest > newest || !speaks_any(oldest..=newest) {
            return Err(HandshakeError::Version { newest, oldest });
        }
        let hello = Hello {
            newest,
            oldest,
            kind: ConnectionKind(r.u32()?),
            capabilities: Capabilities(r.u64()?),
            token: token(&mut r)?,
            region_tag: r.u32()?,
            pid: r.u32()?,
            name: text(&mut r)?,
            cookie: if newest >= 2 { [r.u64()?, r.u64()?] } else { [0; 2] },
        };
        if newest <= CURRENT {
            r.finish()?;
        }
        Ok(hello)
    }
}

/// What a session may use. Told to the program so that it can report and plan; the worker enforces it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// The most body bytes of a request or reply frame; must fit in the lane's rings.
    pub max_body_len: u32,
    /// Bytes of a lane's request ring (power of two).
    pub request_ring_len: u32,
    /// Bytes of a lane's reply ring (power of two).
    pub reply_ring_len: u32,
    /// Bytes of a lane's staging area (multiple of 4096).
    pub staging_len: u32,
    /// Bytes of the window (multiple of 4096).
    pub window_len: u64,
    /// Bytes of device memory that the session may allocate.
    pub device_memory_len: u64,
    /// Bytes of pinned and managed memory that the session may allocate in the window.
    pub pinned_memory_len: u64,
    /// Bytes of one image (fatbin, cubin, PTX).
    pub max_image_len: u64,
    /// Bytes of all images of a session.
    pub images_len: u64,
    /// Lanes (threads) at a time.
    pub max_lanes: u32,
    /// Loaded modules and libraries at a time.
    pub max_modules: u32,
    /// Handles of all kinds (streams, events, graphs, ...) at a time.
    pub max_handles: u32,
}

impl Default for Limits {
    fn default() -> Limits {
        const MIB: u64 = 1 << 20;
        const GIB: u64 = 1 << 30;
        Limits {
            max_body_len: 48 << 10,
            request_ring_len: 256 << 10,
            reply_ring_len: 64 << 10,
            staging_len: 4 << 20,
            window_len: 64 * GIB,
            device_memory_len: 16 * GIB,
            pinned_memory_len: 16 * GIB,
            max_image_len: 512 * MIB,
            images_len: 4 * GIB,
            max_lanes: 1024,
            max_modules: 4096,
            max_handles: 1 << 20,
        }
    }
}

impl Limits {
    /// Whether the sizes are such that a lane can be laid out and the largest frame fits in its rings.
    pub const fn is_valid(&self) -> bool {
        let frame = self.max_body_len as u64 + crate::HEADER_LEN as u64;
        ring_is_valid(self.request_ring_len)
            && ring_is_valid(self.reply_ring_len)
            && self.max_body_len.is_multiple_of(8)
            && frame <= self.request_ring_len as u64
            && frame <= self.reply_ring_len as u64
            && self.staging_len.is_multiple_of(4096)
            && self.window_len.is_multiple_of(4096)
            && self.window_len <= WINDOW_MAX_LEN
    }

    fn encode(&self, w: &mut Writer<'_>) {
        w.u32(self.max_body_len);
        w.u32(self.request_ring_len);
        w.u32(self.reply_ring_len);
        w.u32(self.staging_len);
        w.u64(self.window_len);
        w.u64(self.device_memory_len);
        w.u64(self.pinned_memory_len);
        w.u64(self.max_image_len);
        w.u64(self.images_len);
        w.u32(self.max_lanes);
        w.u32(self.max_modules);
        w.u32(self.max_handles);
    }

    fn decode(r: &mut Reader<'_>) -> Result<Limits, HandshakeError> {
        let limits = Limits {
            max_body_len: r.u32()?,
            request_ring_len: r.u32()?,
            reply_ring_len: r.u32()?,
            staging_len: r.u32()?,
            window_len: r.u64()?,
            device_memory_len: r.u64()?,
            pinned_memory_len: r.u64()?,
            max_image_len: r.u64()?,
            images_len: r.u64()?,
            max_lanes: r.u32()?,
            max_modules: r.u32()?,
            max_handles: r.u32()?,
        };
        if limits.is_valid() { Ok(limits) } else { Err(HandshakeError::Limits(Box::new(limits))) }
    }
}

/// The answer to a control hello; the window's memfd comes with it as the only descriptor, if the session has shared memory.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ControlWelcome {
    /// The version that both sides speak from here on.
    pub version: u32,
    /// The capabilities that both sides have.
    pub capabilities: Capabilities,
    /// Names the session in the hellos of its lanes.
    pub token: Token,
    /// The region's tag, as the program proposed it.
    pub region_tag: u32,
    /// The worker's process id, for people.
    pub worker_pid: u32,
    /// The session's limits.
    pub limits: Limits,
}

impl ControlWelcome {
    /// Writes the body to `buf` (emptied first) and returns the frame's header.
    pub fn encode(&self, buf: &mut Vec<u8>) -> FrameHeader {
        let mut w = Writer::new(buf);
        w.u32(self.version);
        w.u64(self.capabilities.0);
        w.fixed(&self.token.0);
        w.u32(self.region_tag);
        w.u32(self.worker_pid);
        self.limits.encode(&mut w);
        header(Kind::WELCOME, &w)
    }

    /// Decodes the answer to a control hello.
    ///
    /// # Errors
    /// [`HandshakeError::Refused`] if it is a refusal; another kind of frame; a malformed body.
    pub fn decode(frame: &FrameHeader, body: &[u8]) -> Result<ControlWelcome, HandshakeError> {
        let mut r = answer(frame, body)?;
        let welcome = ControlWelcome {
            version: version(&mut r)?,
            capabilities: Capabilities(r.u64()?),
            token: token(&mut r)?,
            region_tag: r.u32()?,
            worker_pid: r.u32()?,
            limits: Limits::decode(&mut r)?,
        };
        r.finish()?;
        Ok(welcome)
    }
}

/// The answer to a lane hello.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LaneWelcome {
    /// The session's version.
    pub version: u32,
    /// Number of the lane in its session; names it in [`crate::stream::After`].
    pub lane: u32,
    /// Where the lane's block lies in the window. To be checked with [`LanePlacement::is_valid`] against the window's length. In a session without shared
    /// memory only the length of the staging area counts.
    pub placement: LanePlacement,
}

impl LaneWelcome {
    /// Writes the body to `buf` (emptied first) and returns the frame's header.
    pub fn encode(&self, buf: &mut Vec<u8>) -> FrameHeader {
        let mut w = Writer::new(buf);
        w.u32(self.version);
        w.u32(self.lane);
        self.placement.encode(&mut w);
        header(Kind::WELCOME, &w)
    }

    /// Decodes the answer to a lane hello.
    ///
    /// # Errors
    /// [`HandshakeError::Refused`] if it is a refusal; another kind of frame; a malformed body.
    pub fn decode(frame: &FrameHeader, body: &[u8]) -> Result<LaneWelcome, HandshakeError> {
        let mut r = answer(frame, body)?;
        let welcome = LaneWelcome {
            version: version(&mut r)?,
            lane: r.u32()?,
            placement: LanePlacement::decode(&mut r)?,
        };
        r.finish()?;
        Ok(welcome)
    }
}

/// Why a hello was not accepted. An open enum.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct RefusalCode(pub u32);

impl RefusalCode {
    /// What arrived is no frame of this protocol, or its body is malformed.
    pub const BAD_MAGIC: RefusalCode = RefusalCode(1);
    /// No common protocol version.
    pub const VERSION: RefusalCode = RefusalCode(2);
    /// Unknown kind of frame or connection.
    pub const KIND: RefusalCode = RefusalCode(3);
    /// No session has this token.
    pub const TOKEN: RefusalCode = RefusalCode(4);
    /// The worker cannot have the proposed region: propose another one.
    pub const REGION_BUSY: RefusalCode = RefusalCode(5);
    /// A limit (sessions, lanes) is reached.
    pub const LIMIT: RefusalCode = RefusalCode(6);
    /// No worker at the moment; a later attempt may succeed.
    pub const BUSY: RefusalCode = RefusalCode(7);
    /// A fault of the host, which its log explains.
    pub const INTERNAL: RefusalCode = RefusalCode(8);
    /// The peer may not use this daemon (another user).
    pub const PERMISSION: RefusalCode = RefusalCode(9);

    /// The name, for codes that this version knows.
    pub const fn name(self) -> Option<&'static str> {
        Some(match self {
            RefusalCode::BAD_MAGIC => "BAD_MAGIC",
            RefusalCode::VERSION => "VERSION",
            RefusalCode::KIND => "KIND",
            RefusalCode::TOKEN => "TOKEN",
            RefusalCode::REGION_BUSY => "REGION_BUSY",
            RefusalCode::LIMIT => "LIMIT",
            RefusalCode::BUSY => "BUSY",
            RefusalCode::INTERNAL => "INTERNAL",
            RefusalCode::PERMISSION => "PERMISSION",
            _ => return None,
        })
    }
}

impl From<&HandshakeError> for RefusalCode {
    fn from(error: &HandshakeError) -> RefusalCode {
        match error {
            HandshakeError::Version { .. } => RefusalCode::VERSION,
            HandshakeError::Kind { .. } => RefusalCode::KIND,
            _ => RefusalCode::BAD_MAGIC,
        }
    }
}

impl fmt::Debug for RefusalCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "refusal {}", self.0),
        }
    }
}

/// The negative answer to a hello; the connection is closed after it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Refused {
    /// The reason.
    pub code: RefusalCode,
    /// The reason for people, at most [`Text::MAX`] bytes.
    pub text: Text,
}

impl Refused {
    /// A refusal with its text.
    pub fn new(code: RefusalCode, text: fmt::Arguments<'_>) -> Refused {
        let mut refused = Refused { code, text: Text::EMPTY };
        // Text drops what does not fit and never fails; a Display implementation that fails leaves what it wrote.
        let _ = fmt::Write::write_fmt(&mut refused.text, text);
        refused
    }

    /// Writes the body to `buf` (emptied first) and returns the frame's header.
    pub fn encode(&self, buf: &mut Vec<u8>) -> FrameHeader {
        let mut w = Writer::new(buf);
        w.u32(self.code.0);
        w.bytes(Some(self.text.as_bytes()));
        header(Kind::REFUSED, &w)
    }

    /// Decodes a refusal.
    ///
    /// # Errors
    /// Another kind of frame, or a malformed body.
    pub fn decode(frame: &FrameHeader, body: &[u8]) -> Result<Refused, HandshakeError> {
        let mut r = reader(Kind::REFUSED, frame, body)?;
        let refused = Refused { code: RefusalCode(r.u32()?), text: text(&mut r)? };
        r.finish()?;
        Ok(refused)
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.code, self.text)
    }
}

fn speaks_any(versions: RangeInclusive<u32>) -> bool {
    (PREVIOUS..=CURRENT).any(|version| versions.contains(&version))
}

fn header(kind: Kind, w: &Writer<'_>) -> FrameHeader {
    // Handshake bodies are at most a few hundred bytes: every variable part is a Text.
    FrameHeader::new(kind, 0, 0, w.len() as u32)
}

fn reader<'a>(kind: Kind, frame: &FrameHeader, body: &'a [u8]) -> Result<Reader<'a>, HandshakeError> {
    if frame.kind != kind {
        return Err(HandshakeError::Kind { got: frame.kind, expected: kind });
    }
    Ok(Reader::new(body))
}

fn answer<'a>(frame: &FrameHeader, body: &'a [u8]) -> Result<Reader<'a>, HandshakeError> {
    if frame.kind == Kind::REFUSED {
        return Err(HandshakeError::Refused(Box::new(Refused::decode(frame, body)?)));
    }
    reader(Kind::WELCOME, frame, body)
}

fn version(r: &mut Reader<'_>) -> Result<u32, HandshakeError> {
    match r.u32()? {
        version @ PREVIOUS..=CURRENT => Ok(version),
        version => Err(HandshakeError::Version { newest: version, oldest: version }),
    }
}

fn token(r: &mut Reader<'_>) -> Result<Token, WireError> {
    let mut token = Token::NONE;
    token.0.copy_from_slice(r.fixed(16)?);
    Ok(token)
}

fn text(r: &mut Reader<'_>) -> Result<Text, WireError> {
    Ok(Text::from_bytes(r.bytes(Text::MAX)?.unwrap_or_default()))
}

/// Why a handshake frame was not accepted.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum HandshakeError {
    /// Not the kind of frame that belongs here.
    Kind { got: Kind, expected: Kind },
    /// The versions of the peer are not ours.
    Version { newest: u32, oldest: u32 },
    /// The body is malformed.
    Body(WireError),
    /// Limits that contradict each other.
    Limits(Box<Limits>),
    /// The other side declined.
    Refused(Box<Refused>),
}

impl From<WireError> for HandshakeError {
    fn from(error: WireError) -> HandshakeError {
        HandshakeError::Body(error)
    }
}

impl fmt::Display for HandshakeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            HandshakeError::Kind { got, expected } => {
                write!(f, "handshake: got a frame of {got:?}, not {expected:?}")
            }
            HandshakeError::Version { newest, oldest } => {
                write!(
                    f,
                    "handshake: peer speaks versions {oldest} to {newest}, we speak {PREVIOUS} to {CURRENT}"
                )
            }
            HandshakeError::Body(error) => write!(f, "handshake: {error}"),
            HandshakeError::Limits(limits) => write!(f, "handshake: contradictory limits {limits:?}"),
            HandshakeError::Refused(refused) => write!(f, "refused: {refused}"),
        }
    }
}

impl core::error::Error for HandshakeError {}

#[cfg(test)]
mod tests;
