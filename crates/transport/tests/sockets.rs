//! Connections and listeners.

mod common;

use std::fs;
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use common::TIMEOUT;
use protocol::frame::{FrameHeader, Kind};
use protocol::handshake::{
    Capabilities, ControlWelcome, Hello, LaneWelcome, Limits, MAX_BODY, RefusalCode, Refused, Token,
};
use protocol::text::Text;
use protocol::{Region, Status};
use transport::handshake::{Lanes, connect_control, connect_lane, receive_hello, refuse, welcome_control};
use transport::{Address, Connection, Error, HostLane, Listener, Peer, Placement, Window, WindowFile};

const SOON: Duration = Duration::from_millis(50);

/// A path in a directory of this test's own.
fn path(name: &str) -> PathBuf {
    let dir = std::env::temp_dir().join(format!("transport-{}-{name}", std::process::id()));
    let _ = fs::remove_dir_all(&dir);
    fs::create_dir(&dir).unwrap();
    dir.join("socket")
}

fn remove(path: PathBuf) {
    fs::remove_dir_all(path.parent().unwrap()).unwrap();
}

fn pair() -> (Connection, UnixStream) {
    let (a, b) = UnixStream::pair().unwrap();
    (Connection::from_fd(a.into()), b)
}

fn hello() -> Hello {
    Hello::control(Region::new(9).unwrap(), 5, Text::new("test"))
}

#[test]
fn the_socket_file_is_private_and_removed() {
    let path = path("private");
    let listener = Listener::bind(&path).unwrap();
    assert_eq!(fs::symlink_metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let client = Connection::connect(&Address::Unix(path.clone()), TIMEOUT).unwrap();
    let server = listener.accept().unwrap();
    let us = (std::process::id(), rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw());
    for end in [&client, &server] {
        let peer = end.credentials().unwrap();
        assert_eq!((peer.pid, peer.uid, peer.gid), us);
        let flags = rustix::io::fcntl_getfd(end).unwrap();
        assert!(flags.contains(rustix::io::FdFlags::CLOEXEC));
        assert!(!rustix::fs::fcntl_getfl(end).unwrap().contains(rustix::fs::OFlags::NONBLOCK));
    }
    drop(listener);
    assert!(!path.exists());
    remove(path);
}

#[test]
fn stale_sockets_are_replaced_and_live_ones_are_not() {
    let path = path("stale");
    drop(UnixListener::bind(&path).unwrap());
    assert!(path.exists(), "std leaves the file");
    let first = Listener::bind(&path).unwrap();
    assert!(matches!(Listener::bind(&path), Err(Error::InUse(_))));
    assert!(path.exists());

    // A file that has taken our place is not ours to remove.
    fs::remove_file(&path).unwrap();
    let second = Listener::bind(&path).unwrap();
    drop(first);
    assert!(path.exists());
    drop(second);
    assert!(!path.exists());

    fs::write(&path, "data").unwrap();
    assert!(matches!(Listener::bind(&path), Err(Error::InUse(_))));
    assert_eq!(fs::read(&path).unwrap(), b"data");
    remove(path);
}

#[test]
fn connect_errors_name_the_address() {
    let path = path("none");
    let error = Connection::connect(&Address::Unix(path.clone()), TIMEOUT).unwrap_err();
    assert!(error.to_string().contains(&format!("connect to unix:{}", path.display())), "{error}");
    // Whether the family exists here or not: nobody serves at this port.
    let address = Address::Vsock { cid: None, port: 5 };
    let error = Connection::connect(&address, Duration::from_millis(500)).unwrap_err();
    let text = error.to_string();
    assert!(text.contains("connect to vsock:5") || matches!(error, Error::Timeout("connect")), "{text}");
    remove(path);
}

#[test]
fn connect_to_a_full_backlog_times_out() {
    let path = path("backlog");
    let listener = Listener::bind(&path).unwrap();
    let address = Address::Unix(path.clone());
    let mut connections = Vec::new();
    let error = loop {
        match Connection::connect(&address, SOON) {
            Ok(connection) => connections.push(connection),
            Err(error) => break error,
        }
        assert!(connections.len() < 10_000);
    };
    assert!(matches!(error, Error::Timeout("connect")), "{error:?}");
    drop(listener);
    remove(path);
}

#[test]
fn frames_and_descriptors_arrive() {
    let (a, b) = Connection::pair().unwrap();
    let body = [3; 104];
    let header = FrameHeader { status: Status(7), ..FrameHeader::new(Kind::FIRST_PRIVATE, 1, 2, 104) };
    let (file, other) = (WindowFile::create(4096).unwrap(), WindowFile::create(8192).unwrap());
    a.send(&header, &body, &[file.as_fd(), other.as_fd()], TIMEOUT).unwrap();
    a.send(&FrameHeader::new(Kind::HELLO, 0, 0, 0), &[], &[], TIMEOUT).unwrap();
    let mut received = b.receive(1000, TIMEOUT).unwrap();
    assert_eq!((received.header, &received.body[..]), (header, &body[..]));
    for fd in &received.fds {
        assert!(rustix::io::fcntl_getfd(fd).unwrap().contains(rustix::io::FdFlags::CLOEXEC));
    }
    let [first, second] = received.take_fds().unwrap();
    WindowFile::verify(first, 4096).unwrap();
    WindowFile::verify(second, 8192).unwrap();
    // The second frame is untouched by the first, and has no descriptors.
    let received = b.receive(1000, TIMEOUT).unwrap();
    assert_eq!((received.header.kind, received.fds.len()), (Kind::HELLO, 0));
    drop(a);
    assert!(matches!(b.receive(1000, TIMEOUT), Err(Error::HungUp)));
    assert!(matches!(b.send(&header, &body, &[], TIMEOUT), Err(Error::HungUp)));
}

#[test]
fn a_large_frame_crosses_a_small_buffer() {
    let (a, b) = Connection::pair().unwrap();
    let body: Vec<u8> = (0..4 << 20).map(|i: u32| (i / 5) as u8).collect();
    let header = FrameHeader::new(Kind::FIRST_PRIVATE, 0, 0, body.len() as u32);
    let sent = body.clone();
    let sender = thread::spawn(move || a.send(&header, &sent, &[], TIMEOUT));
    let received = b.receive(4 << 20, TIMEOUT).unwrap();
    assert!(received.body == body);
    sender.join().unwrap().unwrap();
}

/// The path behind each of this process's descriptors.
fn open_windows(name: &str) -> usize {
    let dir = fs::read_dir("/proc/self/fd").unwrap();
    dir.filter(|entry| {
        let target = entry.as_ref().ok().and_then(|entry| fs::read_link(entry.path()).ok());
        target.is_some_and(|target| target.to_string_lossy().contains(name))
    })
    .count()
}

#[test]
fn surplus_descriptors_are_closed() {
    use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
    let (a, b) = pair();
    let fd = rustix::fs::memfd_create("surplus-test", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
    let send = |count: usize| {
        let fds = vec![fd.as_fd(); count];
        let mut space = vec![std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(16))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        assert!(ancillary.push(SendAncillaryMessage::ScmRights(&fds)));
        let header = FrameHeader::new(Kind::HELLO, 0, 0, 0).encode();
        let iov = [std::io::IoSlice::new(&header)];
        sendmsg(&b, &iov, &mut ancillary, SendFlags::empty()).unwrap();
    };
    send(4);
    let mut received = a.receive(8, TIMEOUT).unwrap();
    assert_eq!((received.fds.len(), open_windows("surplus-test")), (4, 5));
    assert!(matches!(received.take_fds::<1>(), Err(Error::Descriptors { got: 4, expected: 1 })));
    assert_eq!(open_windows("surplus-test"), 1);
    for count in [5, 6, 16] {
        send(count);
        assert!(matches!(a.receive(8, TIMEOUT), Err(Error::Descriptors { .. })), "{count}");
        assert_eq!(open_windows("surplus-test"), 1, "{count}");
    }
    let too_many = [fd.as_fd(); 5];
    let error = a.send(&FrameHeader::new(Kind::HELLO, 0, 0, 0), &[], &too_many, TIMEOUT);
    assert!(matches!(error, Err(Error::Descriptors { got: 5, .. })));
}

#[test]
fn silent_and_slow_peers_time_out() {
    let (a, mut b) = pair();
    let start = Instant::now();
    assert!(matches!(a.receive(64, SOON), Err(Error::Timeout("receive a frame"))));
    assert!(start.elapsed() >= SOON);
    // A byte now and then must not extend the wait.
    let feeder = thread::spawn(move || {
        for byte in FrameHeader::new(Kind::HELLO, 0, 0, 64).encode() {
            if b.write_all(&[byte]).is_err() {
                break;
            }
            thread::sleep(Duration::from_millis(20));
        }
    });
    assert!(matches!(a.receive(64, SOON * 2), Err(Error::Timeout(_))));
    drop(a);
    feeder.join().unwrap();
    // A peer that reads nothing.
    let (a, _b) = pair();
    let body = vec![0; 4 << 20];
    let header = FrameHeader::new(Kind::HELLO, 0, 0, body.len() as u32);
    assert!(matches!(a.send(&header, &body, &[], SOON), Err(Error::Timeout("send a frame"))));
}

#[test]
fn garbage_is_named_and_answered() {
    let cases: [(&[u8], RefusalCode, &str); 4] = [
        (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", RefusalCode::BAD_MAGIC, "not a frame"),
        (&FrameHeader::new(Kind::HELLO, 0, 0, 1 << 20).encode(), RefusalCode::BAD_MAGIC, "not a frame"),
        (&FrameHeader::new(Kind::HELLO, 0, 0, 0).encode(), RefusalCode::BAD_MAGIC, "body offset 0"),
        (&FrameHeader::new(Kind::SYNC, 0, 0, 0).encode(), RefusalCode::KIND, "sync"),
    ];
    for (bytes, code, text) in cases {
        let (a, mut b) = pair();
        b.write_all(bytes).unwrap();
        let error = receive_hello(&a, TIMEOUT).unwrap_err();
        assert!(error.is_violation(), "{error:?}");
        drop(a);
        let mut answer = Vec::new();
        // The daemon closed with our bytes unread: the reset may come after the answer.
        let _ = b.read_to_end(&mut answer);
        let (head, body) = answer.split_first_chunk().unwrap();
        let refused = Refused::decode(&FrameHeader::decode(head, MAX_BODY).unwrap(), body).unwrap();
        assert_eq!(refused.code, code, "{refused}");
        assert!(refused.text.to_string().contains(text), "{refused}");
    }
    let (a, mut b) = pair();
    let mut garbage = [0xaa; 24];
    garbage[20..].copy_from_slice(&[1, 2, 3, 4]);
    b.write_all(&garbage).unwrap();
    let error = a.receive(64, TIMEOUT).unwrap_err();
    let source = std::error::Error::source(&error).unwrap().to_string();
    assert_eq!(source, "frame magic is 0x04030201, not 0x72467563");
}

/// A daemon in small: control, lane, refusals, as in the handshake's diagram.
#[test]
fn the_whole_handshake() {
    let path = path("handshake");
    let listener = Listener::bind(&path).unwrap();
    let address = Address::Unix(path.clone());
    let limits = Limits { window_len: 1 << 30, ..Limits::default() };
    let token = Token([9; 16]);
    let region = Region::new(10).unwrap();

    let daemon = thread::spawn(move || {
        let window = Arc::new(
            Window::map(WindowFile::create(limits.window_len).unwrap(), Placement::Anywhere, false).unwrap(),
        );
        let control = listener.accept().unwrap();
        let first = receive_hello(&control, TIMEOUT).unwrap();
        assert_eq!(first.region_tag, 9);
        refuse(
            &control,
            &Refused::new(RefusalCode::REGION_BUSY, format_args!("region {} is taken", first.region_tag)),
        );
        drop(control);

        let control = listener.accept().unwrap();
        let hello = receive_hello(&control, TIMEOUT).unwrap();
        let (version, capabilities) = hello.negotiate(1..=2, Capabilities::ALL).unwrap();
        let capabilities = capabilities.choose_lanes().unwrap();
        let welcome = ControlWelcome {
            version,
            capabilities,
            token,
            region_tag: hello.region_tag,
            worker_pid: std::process::id(),
            limits,
        };
        welcome_control(&control, &welcome, window.file(), TIMEOUT).unwrap();

        let connection = listener.accept().unwrap();
        let hello = receive_hello(&connection, TIMEOUT).unwrap();
        assert_eq!(hello.token, token);
        let welcome = protocol::handshake::LaneWelcome { version, lane: 1, placement: common::PLACEMENT };
        let mut lane = HostLane::welcome(connection, window, &welcome, limits.max_body_len, TIMEOUT).unwrap();
        let mut body = Vec::new();
        let header = lane.next(&mut body).unwrap().unwrap();
        lane.reply(&header, Status::SUCCESS, Default::default(), &body).unwrap();
        assert!(lane.next(&mut body).unwrap().is_none());
        drop(control);
    });

    match connect_control(&address, &hello(), TIMEOUT) {
        Err(Error::Refused(refused)) => {
            assert_eq!(refused.code, RefusalCode::REGION_BUSY);
            assert_eq!(refused.text.to_string(), "region 9 is taken");
        }
        other => panic!("{other:?}"),
    }
    let mut second = hello();
    second.region_tag = region.tag();
    let (control, welcome, file) = connect_control(&address, &second, TIMEOUT).unwrap();
    assert_eq!(
        (welcome.token, welcome.limits, welcome.version),
        (token, limits, protocol::handshake::CURRENT)
    );
    let window = Arc::new(Window::map(file.unwrap(), Placement::At(region.window_start()), true).unwrap());
    assert_eq!(window.address(), region.window_start());
    let lane_hello = Hello::lane(welcome.token, region, 5);
    let mut lane =
        connect_lane(&address, &lane_hello, &Lanes::Rings(window.clone()), &welcome.limits, TIMEOUT).unwrap();
    let mut reply = Vec::new();
    assert_eq!(lane.call(1, b"12345678", &mut reply).unwrap().status, Status::SUCCESS);
    assert_eq!(reply, b"12345678");
    drop(lane);
    daemon.join().unwrap();
    assert!(matches!(control.receive(64, TIMEOUT), Err(Error::HungUp)));
    remove(path);
}

/// Over a socket that carries bytes only: no descriptor, and lanes are streams. What the other side claims beyond that is refused.
#[test]
fn the_handshake_of_a_session_without_shared_memory() {
    const KINDS: [Capabilities; 4] = [
        Capabilities::STREAM_LANES,
        Capabilities::SHARED_MEMORY,
        Capabilities::STREAM_LANES.union(Capabilities::RINGS),
        Capabilities::PTX,
    ];
    for kind in KINDS {
        let path = path("stream");
        let address = Address::UnixStream(path.clone());
        let listener = Listener::listen(&address).unwrap();
        let token = Token([9; 16]);
        let daemon = thread::spawn(move || {
            let limits = Limits { window_len: 1 << 30, ..Limits::default() };
            let control = listener.accept().unwrap();
            assert!(matches!(control.peer().unwrap(), Peer::Process(peer) if peer.pid == std::process::id()));
            let hello = receive_hello(&control, TIMEOUT).unwrap();
            let (version, capabilities) = hello.negotiate(1..=2, Capabilities::ALL).unwrap();
            assert_eq!(capabilities.choose_lanes(), Some(capabilities));
            assert!(!capabilities.contains(Capabilities::RINGS));
            let capabilities = capabilities.without(Capabilities::STREAM_LANES).union(kind);
            let region_tag = hello.region_tag;
            let welcome = ControlWelcome { version, capabilities, token, region_tag, worker_pid: 1, limits };
            welcome_control(&control, &welcome, None, TIMEOUT).unwrap();
            if kind != Capabilities::STREAM_LANES {
                return;
            }
            let connection = listener.accept().unwrap();
            receive_hello(&connection, TIMEOUT).unwrap();
            let window = WindowFile::create(limits.window_len).unwrap();
            let window = Arc::new(Window::map(window, Placement::Anywhere, false).unwrap());
            let welcome = LaneWelcome { version, lane: 1, placement: common::PLACEMENT };
            let mut lane =
                HostLane::welcome_stream(connection, window, &Arc::default(), &welcome, 4096, TIMEOUT)
                    .unwrap();
            let mut body = Vec::new();
            let header = lane.next(&mut body).unwrap().unwrap();
            lane.reply(&header, Status::SUCCESS, Default::default(), &body).unwrap();
            assert!(lane.next(&mut body).unwrap().is_none());
        });
        match connect_control(&address, &hello(), TIMEOUT) {
            Ok((_control, welcome, window)) => {
                assert_eq!(kind, Capabilities::STREAM_LANES);
                assert!(window.is_none());
                let region = Region::new(welcome.region_tag).unwrap();
                let lanes = Lanes::Streams(None);
                let hello = Hello::lane(welcome.token, region, 5);
                let mut lane = connect_lane(&address, &hello, &lanes, &welcome.limits, TIMEOUT).unwrap();
                let mut reply = Vec::new();
                lane.call(1, b"12345678", &mut reply).unwrap();
                assert_eq!(reply, b"12345678");
            }
            Err(error) => {
                assert_ne!(kind, Capabilities::STREAM_LANES, "{error}");
                assert!(error.is_violation(), "{kind:?}: {error:?}");
            }
        }
        daemon.join().unwrap();
        remove(path);
    }
}

#[test]
fn a_window_of_another_size_or_without_seals_is_refused() {
    let unsealed = rustix::fs::memfd_create("w", rustix::fs::MemfdFlags::ALLOW_SEALING).unwrap();
    rustix::fs::ftruncate(&unsealed, 8192).unwrap();
    let file: OwnedFd = fs::File::open("/proc/self/exe").unwrap().into();
    let (socket, _) = pair();
    let good = WindowFile::create(8192).unwrap();
    let dup = |fd: &WindowFile| rustix::io::dup(fd).unwrap();
    for (name, fd, len) in [
        ("not sealed", unsealed, 8192),
        ("file", file, 8192),
        ("socket", socket.into_fd(), 8192),
        ("shorter", dup(&good), 12288),
        ("longer", dup(&good), 4096),
    ] {
        assert!(matches!(WindowFile::verify(fd, len), Err(Error::Window(_))), "{name}");
    }
    let accepted = WindowFile::verify(dup(&good), 8192).unwrap();
    assert_ne!(accepted.as_fd().as_raw_fd(), good.as_fd().as_raw_fd());
    // What the seals are for.
    assert!(rustix::fs::ftruncate(&accepted, 4096).is_err());
    assert!(rustix::fs::ftruncate(&accepted, 16384).is_err());
}
