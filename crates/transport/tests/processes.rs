//! Program and worker as two processes, connected through a socket file.

mod common;

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;
use std::{env, fs, thread};

use common::{PLACEMENT, TIMEOUT};
use protocol::handshake::{CURRENT, Capabilities, ControlWelcome, Hello, LaneWelcome, Limits, Token};
use protocol::text::Text;
use protocol::{Flags, Kind, Region, Status};
use transport::handshake::{Lanes, connect_control, connect_lane, receive_hello, welcome_control};
use transport::{Address, Connection, Error, GuestLane, HostLane, Listener, Placement, Window, WindowFile};

const SOCKET: &str = "TRANSPORT_TEST_SOCKET";
const CRASH: u16 = 9;

/// The worker process: this test binary, started by the tests below. Without the variable it is a test that has nothing to do.
#[test]
fn worker_process() {
    let Some(path) = env::var_os(SOCKET) else { return };
    let listener = Listener::bind(&PathBuf::from(path)).unwrap();
    let control = listener.accept().unwrap();
    let hello = receive_hello(&control, TIMEOUT).unwrap();
    let region = Region::new(hello.region_tag).unwrap();
    let limits = Limits { window_len: 1 << 24, ..Limits::default() };
    let file = WindowFile::create(limits.window_len).unwrap();
    let window = Arc::new(Window::map(file, Placement::At(region.window_start()), false).unwrap());
    let (version, capabilities) = hello.negotiate(CURRENT..=CURRENT, Capabilities::ALL).unwrap();
    let capabilities = capabilities.choose_lanes().unwrap();
    let token = Token([1; 16]);
    let worker_pid = std::process::id();
    let welcome =
        ControlWelcome { version, capabilities, token, region_tag: hello.region_tag, worker_pid, limits };
    welcome_control(&control, &welcome, window.file(), TIMEOUT).unwrap();

    let connection = listener.accept().unwrap();
    assert_eq!(receive_hello(&connection, TIMEOUT).unwrap().token, token);
    let welcome = LaneWelcome { version, lane: 0, placement: PLACEMENT };
    let mut lane =
        HostLane::welcome(connection, window.clone(), &welcome, limits.max_body_len, TIMEOUT).unwrap();
    let mut body = Vec::new();
    while let Some(header) = lane.next(&mut body).unwrap() {
        if header.op == CRASH {
            rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL).unwrap();
        }
        if header.kind == Kind::SYNC {
            // A pointer means the same on both sides: add up the bytes that it names.
            let address = u64::from_le_bytes(*body.first_chunk().unwrap());
            let mut bytes = [0; 64];
            window.copy_out(region.window_offset(address).unwrap(), &mut bytes).unwrap();
            let sum: u64 = bytes.iter().map(|&byte| u64::from(byte)).sum();
            lane.reply(&header, Status::SUCCESS, Flags::NONE, &sum.to_le_bytes()).unwrap();
        }
        lane.complete(header.seq);
    }
}

struct Program {
    worker: Child,
    _control: Connection,
    lane: GuestLane,
    window: Arc<Window>,
    path: PathBuf,
}

fn start(name: &str, tag: u32) -> Program {
    let path = env::temp_dir().join(format!("transport-{}-{name}.sock", std::process::id()));
    let worker = Command::new(env::current_exe().unwrap())
        .args(["--exact", "worker_process", "--nocapture"])
        .env(SOCKET, &path)
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let address = Address::Unix(path.clone());
    let region = Region::new(tag).unwrap();
    let hello = Hello::control(region, std::process::id(), Text::new(name));
    let (control, welcome, file) = (0..1000)
        .find_map(|_| match connect_control(&address, &hello, TIMEOUT) {
            Ok(session) => Some(session),
            // The worker has not bound the socket yet, or does not listen yet.
            Err(Error::Io { .. }) => {
                thread::sleep(Duration::from_millis(10));
                None
            }
            Err(error) => panic!("{error}"),
        })
        .expect("a worker within 10 s");
    assert_eq!(welcome.worker_pid, worker.id());
    assert_eq!(control.credentials().unwrap().pid, worker.id());
    let window = Arc::new(Window::map(file.unwrap(), Placement::At(region.window_start()), true).unwrap());
    let hello = Hello::lane(welcome.token, region, std::process::id());
    let lane =
        connect_lane(&address, &hello, &Lanes::Rings(window.clone()), &welcome.limits, TIMEOUT).unwrap();
    Program { worker, _control: control, lane, window, path }
}

#[test]
fn pointers_mean_the_same_in_both_processes() {
    let Program { mut worker, _control, mut lane, window, .. } = start("pointers", 14);
    let offset = PLACEMENT.offset + PLACEMENT.block_len();
    let mut reply = Vec::new();
    for round in 0..2000u64 {
        let at = offset + round % 100 * 64;
        window.copy_in(at, &[round as u8; 64]).unwrap();
        let seq = lane.post(1, &[0; 40]).unwrap();
        lane.call(2, &(window.address() + at).to_le_bytes(), &mut reply).unwrap();
        assert_eq!(reply, (64 * (round % 256)).to_le_bytes());
        assert!(lane.completed() >= seq);
        if round % 500 == 0 {
            // Long enough for both to park.
            thread::sleep(Duration::from_millis(20));
        }
    }
    drop(lane);
    assert!(worker.wait().unwrap().success());
}

#[test]
fn a_killed_worker_is_noticed() {
    let Program { mut worker, _control, mut lane, window, path } = start("killed", 15);
    lane.post(1, &[]).unwrap();
    lane.wait_completed(1).unwrap();
    let error = lane.call(CRASH, &[], &mut Vec::new()).unwrap_err();
    assert!(matches!(error, Error::HungUp), "{error:?}");
    assert!(lane.is_closed());
    assert!(!worker.wait().unwrap().success());
    // The window stays readable: its size is sealed and our mapping keeps it.
    window.copy_out(0, &mut [0; 64]).unwrap();
    fs::remove_file(path).unwrap();
}
