//! The handshake over a [`Connection`], for both sides.

use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use protocol::handshake::{
    Capabilities, ControlWelcome, Hello, LaneWelcome, Limits, MAX_BODY, RefusalCode, Refused,
};

use crate::address::Address;
use crate::error::Error;
use crate::lane::GuestLane;
use crate::stream::Flusher;
use crate::unix::Connection;
use crate::window::{Window, WindowFile};

/// Program: opens a session. The connection is to be kept: its end is the session's end. There is a window if the welcome's capabilities say that lanes are
/// rings in it; where descriptors cannot pass, the hello does not offer that. A hello with a cookie offers the guest's memory instead.
///
/// # Errors
/// [`Error::Refused`] (with `REGION_BUSY` the next region may do); whatever else goes wrong. The timeout covers each step.
pub fn connect_control(
    address: &Address,
    hello: &Hello,
    timeout: Duration,
) -> Result<(Connection, ControlWelcome, Option<WindowFile>), Error> {
    let connection = Connection::connect(address, timeout)?;
    let mut buf = Vec::new();
    let mut hello = hello.clone();
    let (file, guest) = (address.passes_descriptors(), hello.cookie != [0; 2]);
    for (offered, bits) in [
        (file, Capabilities::WINDOW_FD),
        (guest, Capabilities::GUEST_MEMORY),
        (file || guest, Capabilities::RINGS),
    ] {
        if !offered {
            hello.capabilities = hello.capabilities.without(bits);
        }
    }
    connection.send(&hello.encode(&mut buf), &buf, &[], timeout)?;
    let mut received = connection.receive(MAX_BODY, timeout)?;
    let welcome = ControlWelcome::decode(&received.header, &received.body)?;
    if welcome.region_tag != hello.region_tag {
        return Err(Error::Unexpected {
            field: "region tag",
            got: welcome.region_tag.into(),
            expected: hello.region_tag.into(),
        });
    }
    // Exactly one kind of lane, and one that we have offered.
    let lanes = welcome.capabilities.intersection(hello.capabilities);
    if lanes.choose_lanes() != Some(welcome.capabilities) {
        return Err(Error::Lanes);
    }
    let file = if welcome.capabilities.contains(Capabilities::SHARED_MEMORY) {
        let [fd] = received.take_fds()?;
        Some(WindowFile::verify(fd, welcome.limits.window_len)?)
    } else {
        let [] = received.take_fds()?;
        None
    };
    Ok((connection, welcome, file))
}

/// How the lanes of a session work, on the program's side.
#[derive(Clone, Debug)]
pub enum Lanes {
    /// Rings in this window.
    Rings(Arc<Window>),
    /// Streams, whose posted requests this sends. Without it they leave at once.
    Streams(Option<Arc<Flusher>>),
}

/// Program: opens a lane of a session for the calling thread.
///
/// # Errors
/// [`Error::Refused`], [`Error::Placement`]; whatever else goes wrong. The timeout covers each step.
pub fn connect_lane(
    address: &Address,
    hello: &Hello,
    lanes: &Lanes,
    limits: &Limits,
    timeout: Duration,
) -> Result<GuestLane, Error> {
    let connection = Connection::connect(address, timeout)?;
    let mut buf = Vec::new();
    connection.send(&hello.encode(&mut buf), &buf, &[], timeout)?;
    let mut received = connection.receive(MAX_BODY, timeout)?;
    let welcome = LaneWelcome::decode(&received.header, &received.body)?;
    let [] = received.take_fds()?;
    match lanes {
        Lanes::Rings(window) => {
            GuestLane::new(connection, window.clone(), welcome.placement, limits.max_body_len)
        }
        Lanes::Streams(flusher) => GuestLane::stream(connection, &welcome, limits, flusher.as_ref()),
    }
}

/// Daemon: receives the hello of a new connection. What is no acceptable hello is answered with a refusal here.
///
/// # Errors
/// Whatever makes it unacceptable; the connection is to be closed.
pub fn receive_hello(connection: &Connection, timeout: Duration) -> Result<Hello, Error> {
    let result = connection.receive(MAX_BODY, timeout).and_then(|mut received| {
        let [] = received.take_fds()?;
        Ok(Hello::decode(&received.header, &received.body)?)
    });
    if let Err(error) = &result {
        let code = match error {
            Error::Handshake(error) => RefusalCode::from(error),
            Error::Frame(_) | Error::Descriptors { .. } => RefusalCode::BAD_MAGIC,
            _ => return result,
        };
        refuse(connection, &Refused::new(code, format_args!("{error}")));
    }
    result
}

/// Daemon, worker: answers a hello with a refusal. A peer that does not take it is none that needs it, so that errors are not reported.
pub fn refuse(connection: &Connection, refused: &Refused) {
    let mut buf = Vec::new();
    let header = refused.encode(&mut buf);
    // The socket buffer of a fresh connection has room for the answer: no reason to wait for the peer.
    let _ = connection.send(&header, &buf, &[], Duration::ZERO);
}

/// Worker: accepts a session and hands out its window, if it has shared memory.
///
/// # Errors
/// Those of [`Connection::send`].
pub fn welcome_control(
    connection: &Connection,
    welcome: &ControlWelcome,
    window: Option<&WindowFile>,
    timeout: Duration,
) -> Result<(), Error> {
    let mut buf = Vec::new();
    let header = welcome.encode(&mut buf);
    match window {
        Some(window) => connection.send(&header, &buf, &[window.as_fd()], timeout),
        None => connection.send(&header, &buf, &[], timeout),
    }
}
