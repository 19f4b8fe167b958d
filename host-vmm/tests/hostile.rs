//! Programs that do not keep to the protocol: their session ends, the daemon and other sessions do not notice.

mod common;

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use common::{Client, Daemon, TIMEOUT, eventually, hello, open, open_lane};
use protocol::handshake::{Hello, RefusalCode, Refused, Token};
use protocol::{FrameHeader, HEADER_LEN, Kind, Status, ops};
use transport::{Connection, Error};

/// Sends raw bytes as the first of a connection; returns what comes back until the daemon closes.
fn raw(daemon: &Daemon, bytes: &[u8], close: bool) -> Vec<u8> {
    let mut stream = UnixStream::connect(&daemon.path).unwrap();
    // The daemon may have answered and closed before everything is written.
    let _ = stream.write_all(bytes);
    if close {
        stream.shutdown(std::net::Shutdown::Write).unwrap();
    }
    stream.set_read_timeout(Some(TIMEOUT)).unwrap();
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    answer
}

/// The refusal in an answer.
fn refusal(answer: &[u8]) -> RefusalCode {
    let header: [u8; HEADER_LEN] = answer[..HEADER_LEN].try_into().unwrap();
    let header = FrameHeader::decode(&header, 4096).unwrap();
    Refused::decode(&header, &answer[HEADER_LEN..]).unwrap().code
}

fn frame(header: &FrameHeader, body: &[u8]) -> Vec<u8> {
    [&header.encode()[..], body].concat()
}

#[test]
fn bad_first_frames_are_refused_and_the_daemon_goes_on() {
    let daemon = Daemon::start(&["--handshake-timeout", "300"]);
    let mut other = Client::connect(&daemon.address);
    other.set_up();

    let random: Vec<u8> = (0..4000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    assert_eq!(refusal(&raw(&daemon, &random, false)), RefusalCode::BAD_MAGIC);

    let oversized = FrameHeader::new(Kind::HELLO, 0, 0, 1 << 20);
    assert_eq!(refusal(&raw(&daemon, &oversized.encode(), false)), RefusalCode::BAD_MAGIC);

    let mut body = Vec::new();
    let header = Hello { newest: 99, oldest: 98, ..hello() }.encode(&mut body);
    assert_eq!(refusal(&raw(&daemon, &frame(&header, &body), false)), RefusalCode::VERSION);

    let header = FrameHeader::new(Kind::SYNC, 1, 1, 0);
    assert_eq!(refusal(&raw(&daemon, &header.encode(), false)), RefusalCode::KIND);

    let header = Hello { kind: protocol::handshake::ConnectionKind(7), ..hello() }.encode(&mut body);
    assert_eq!(refusal(&raw(&daemon, &frame(&header, &body), false)), RefusalCode::KIND);

    let header = Hello { region_tag: 77, ..hello() }.encode(&mut body);
    assert_eq!(refusal(&raw(&daemon, &frame(&header, &body), false)), RefusalCode::REGION_BUSY);

    // Half a frame, then the end; half a frame, then silence; nothing at all.
    let header = hello().encode(&mut body);
    let whole = frame(&header, &body);
    assert_eq!(raw(&daemon, &whole[..30], true), b"");
    let begin = Instant::now();
    assert_eq!(raw(&daemon, &whole[..30], false), b"");
    assert_eq!(raw(&daemon, b"", false), b"");
    assert!(begin.elapsed() >= Duration::from_millis(500), "silent connections were not waited for");

    daemon.expect_log("malformed handshake");
    daemon.assert_serves();
    other.alloc(100).unwrap();
}

#[test]
fn a_crowd_of_silent_connections_does_not_lock_others_out_for_long() {
    let daemon = Daemon::start(&["--handshake-timeout", "500"]);
    let crowd: Vec<_> = (0..200).map(|_| UnixStream::connect(&daemon.path).unwrap()).collect();
    eventually(TIMEOUT, "a program gets through", || open(&daemon.address).is_ok());
    drop(crowd);
    daemon.assert_serves();
}

#[test]
fn lanes_need_the_token_of_a_session() {
    let daemon = Daemon::start(&[]);
    let (_control, mut welcome, window) = open(&daemon.address).unwrap();
    let right = welcome.token;
    for wrong in [Token::NONE, Token([7; 16])] {
        welcome.token = wrong;
        match open_lane(&daemon.address, &welcome, &window) {
            Err(Error::Refused(refused)) => assert_eq!(refused.code, RefusalCode::TOKEN),
            other => panic!("{:?}", other.map(drop)),
        }
    }
    welcome.token = right;
    assert!(open_lane(&daemon.address, &welcome, &window).is_ok());
}

#[test]
fn a_malformed_request_ends_its_session_only() {
    let daemon = Daemon::start(&[]);
    let mut other = Client::connect(&daemon.address);
    other.set_up();
    let bodies: [(u16, &[u8]); 4] = [
        // Too short, too long, a presence word that is neither 0 nor 1, a block longer than the body.
        (ops::cuMemAlloc_v2, &[0; 8]),
        (ops::cuCtxSynchronize, &[0; 8]),
        (ops::cuMemAlloc_v2, &[9; 16]),
        (ops::set_visible_devices, &[0x70, 0, 0, 0, 0, 0, 0, 0]),
    ];
    for (op, body) in bodies {
        let mut client = Client::connect(&daemon.address);
        client.lane.post(op, body).unwrap();
        client.assert_closed();
    }
    daemon.expect_log("malformed request: lane 1, cuMemAlloc_v2");
    daemon.expect_log("malformed request: lane 1, set_visible_devices");
    other.alloc(100).unwrap();
    daemon.assert_serves();
}

#[test]
fn bytes_on_the_control_connection_end_the_session() {
    let daemon = Daemon::start(&[]);
    let mut client = Client::connect(&daemon.address);
    rustix::io::write(&client.control, b"hello?").unwrap();
    client.assert_closed();
    daemon.expect_log("bytes after the handshake");
    daemon.assert_serves();
}

#[test]
fn hostile_arguments_are_errors() {
    let daemon = Daemon::start(&[]);
    let mut client = Client::connect(&daemon.address);
    let context = client.set_up();
    let memory = client.alloc(4096).unwrap();
    let region = memory >> 42 << 42;

    assert_eq!(client.alloc(u64::MAX), Err(Status::OUT_OF_MEMORY));
    assert_eq!(client.alloc(0), Err(Status::INVALID_VALUE));
    for address in [0, 8, region, region + (1 << 40), memory + 4000, u64::MAX - 50] {
        assert_eq!(client.copy_out(address, 200).err(), Some(Status::INVALID_VALUE), "{address:#x}");
        assert_eq!(client.copy_in(address, &[0; 200]).err(), Some(Status::INVALID_VALUE), "{address:#x}");
    }
    // Beyond the staging area.
    let outside = client.call(ops::stage_in_last, |w| {
        [memory, 16, u64::from(u32::MAX), 16, 1, 0].into_iter().for_each(|word| w.u64(word));
        w.u32(0);
    });
    assert_eq!(outside.err(), Some(Status::INVALID_VALUE));
    // Sizes whose product wraps.
    let wraps = client.call(ops::stage_in_last, |w| {
        [memory, 1 << 33, 0, 1 << 33, 1 << 33, 0].into_iter().for_each(|word| w.u64(word));
        w.u32(0);
    });
    assert_eq!(wraps.err(), Some(Status::INVALID_VALUE));
    // A handle of another kind, and one that never was.
    for handle in [context, 0xdead_beef_0000_0001] {
        let query = client.call(ops::cuStreamQuery, |w| w.u64(handle));
        assert_eq!(query.err(), Some(Status::INVALID_HANDLE));
    }
    // Launches: no such function, a grid that is too large, too few parameters.
    let module = client.load(common::KERNELS).unwrap();
    let store = client.function(module, c"store").unwrap();
    for (function, params) in [(context, vec![0; 12]), (store, vec![0; 11])] {
        let seq = client.launch(function, 0, &params);
        client.lane.wait_completed(seq).unwrap();
        assert!(client.lane.take_latched().is_some(), "{function:#x} {}", params.len());
    }
    client.synchronize().unwrap();
    assert_eq!(client.function(module, c"nothing"), Err(Status::NOT_FOUND));
    client.copy_out(memory, 4096).unwrap();
}

#[test]
fn limits_on_sessions_and_lanes_hold() {
    let daemon = Daemon::start(&["--max-sessions", "2", "--max-lanes", "2"]);
    let refused = |result: Result<(), Error>| match result {
        Err(Error::Refused(refused)) => refused.code,
        other => panic!("{other:?}"),
    };
    let client = Client::connect(&daemon.address);
    let second = open_lane(&daemon.address, &client.welcome, &client.window).unwrap();
    let third = open_lane(&daemon.address, &client.welcome, &client.window);
    assert_eq!(refused(third.map(drop)), RefusalCode::LIMIT);
    drop(second);
    eventually(TIMEOUT, "a lane is free again", || {
        open_lane(&daemon.address, &client.welcome, &client.window).is_ok()
    });

    let other = open(&daemon.address).unwrap();
    assert_eq!(refused(open(&daemon.address).map(drop)), RefusalCode::LIMIT);
    drop(other);
    eventually(TIMEOUT, "a session is free again", || open(&daemon.address).is_ok());
}

#[test]
fn bad_code_is_refused_with_a_reason() {
    let daemon = Daemon::start(&[]);
    let mut client = Client::connect(&daemon.address);
    client.set_up();
    let (status, log) = client.load(&common::KERNELS.replace("st.global.u32", "frobnicate.u32")).unwrap_err();
    assert_eq!(status, Status::INVALID_PTX);
    assert!(log.contains("frobnicate"), "{log}");
    let (status, log) = client.load(".version 8.0\n.target sm_75\n.address_size 64\n???").unwrap_err();
    assert_eq!(status, Status::INVALID_PTX);
    assert!(log.contains("line 4"), "{log}");
    let (status, _) = client.load(&common::KERNELS.replace(".version 8.0", ".version 77.0")).unwrap_err();
    assert_eq!(status, Status::UNSUPPORTED_PTX_VERSION);
    client.load(common::KERNELS).unwrap();
}

#[test]
fn a_connection_that_is_dropped_at_once_leaves_nothing() {
    let daemon = Daemon::start(&[]);
    daemon.assert_serves();
    eventually(TIMEOUT, "the first session is gone", || daemon.workers().is_empty());
    let before = daemon.descriptors();
    for _ in 0..20 {
        drop(Connection::connect(&daemon.address, TIMEOUT).unwrap());
        drop(open(&daemon.address));
    }
    eventually(TIMEOUT, "workers end", || daemon.workers().is_empty());
    eventually(TIMEOUT, "descriptors are closed", || daemon.descriptors() <= before);
    daemon.assert_serves();
}

#[test]
fn workers_share_no_descriptors_and_are_confined() {
    let daemon = Daemon::start(&[]);
    let mut clients: Vec<Client> = (0..3).map(|_| Client::connect(&daemon.address)).collect();
    for client in &mut clients {
        client.set_up();
    }
    let workers = daemon.workers();
    assert_eq!(workers.len(), 3);
    let mut seen = std::collections::HashSet::new();
    for pid in workers {
        for entry in std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap() {
            let entry = entry.unwrap();
            let number: u32 = entry.file_name().to_str().unwrap().parse().unwrap();
            let target = std::fs::read_link(entry.path()).unwrap();
            let shared =
                target.starts_with("/dev/null") || target.to_string_lossy().starts_with("anon_inode:");
            // Standard error is the daemon's log.
            if number > 2 && !shared {
                let file = std::fs::metadata(entry.path()).unwrap();
                use std::os::unix::fs::MetadataExt as _;
                assert!(
                    seen.insert((file.dev(), file.ino())),
                    "worker {pid} descriptor {number}: {target:?}"
                );
            }
        }
        let limits = std::fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
        let limit = |name: &str| {
            let line = limits.lines().find(|line| line.starts_with(name)).unwrap();
            line[name.len()..].split_whitespace().next().unwrap().to_owned()
        };
        assert_eq!(limit("Max core file size"), "0");
        assert_ne!(limit("Max data size"), "unlimited");
        assert_eq!(std::fs::read_to_string(format!("/proc/{pid}/oom_score_adj")).unwrap().trim(), "500");
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        assert!(status.lines().any(|line| line == "NoNewPrivs:\t1"));
    }
}

#[test]
fn the_heap_of_kernels_is_no_way_around_the_memory_limit() {
    let daemon = Daemon::start(&[]);
    let mut client = Client::connect(&daemon.address);
    client.set_up();
    let mut set = |value: u64| {
        client.call(ops::cuCtxSetLimit, |w| {
            w.u32(2);
            w.u64(value);
        })
    };
    assert_eq!(set(1 << 30), Err(Status::OUT_OF_MEMORY));
    assert!(set(32 << 20).is_ok());
    client.assert_works();
}
