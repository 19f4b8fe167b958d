//! What happens when programs end, in whatever way.

mod common;

use std::process::{Command, Stdio};
use std::time::Duration;

use common::{Client, Daemon, TIMEOUT, eventually, kill};
use protocol::{Status, ops};
use rustix::process::Signal;

/// Set in a child: the daemon's socket.
const CHILD_SOCKET: &str = "HOST_VMM_TEST_SOCKET";

/// Not a test by itself: this binary, started again as a program, runs a kernel that never ends.
#[test]
fn child_program() {
    let Ok(address) = std::env::var(CHILD_SOCKET) else { return };
    let mut client = Client::connect(&address.parse().unwrap());
    client.set_up();
    let module = client.load(common::KERNELS).unwrap();
    let spin = client.function(module, c"spin").unwrap();
    let seq = client.launch(spin, 0, &[]);
    client.lane.wait_completed(seq).unwrap();
    println!("the kernel runs");
    let _ = client.synchronize();
}

/// A program in the middle of an endless kernel.
struct Spinner {
    child: std::process::Child,
    /// Kept open, or the child fails when it prints.
    _output: std::io::Lines<std::io::BufReader<std::process::ChildStdout>>,
}

impl Spinner {
    fn start(daemon: &Daemon) -> Self {
        use std::io::{BufRead as _, BufReader};
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "child_program", "--nocapture"])
            .env(CHILD_SOCKET, daemon.address.to_string())
            .stdout(Stdio::piped())
            // It complains when its session ends, which is what these tests are about.
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        assert!(
            lines.any(|line| line.unwrap().contains("the kernel runs")),
            "the child ended before its kernel ran"
        );
        Self { child, _output: lines }
    }

    fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).unwrap()
    }
}

impl Drop for Spinner {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_killed_program_leaves_no_worker_even_in_an_endless_kernel() {
    let daemon = Daemon::start(&[]);
    let mut other = Client::connect(&daemon.address);
    other.assert_works();
    let before = daemon.workers();
    assert_eq!(before.len(), 1);

    let mut spinner = Spinner::start(&daemon);
    assert_eq!(daemon.workers().len(), 2);
    kill(spinner.pid(), Signal::KILL);
    // The program is not reaped yet: a zombie's connection is closed all the same.
    eventually(Duration::from_secs(2), "the worker is gone", || daemon.workers() == before);
    spinner.child.wait().unwrap();

    // The other program was not disturbed.
    let memory = other.alloc(64).unwrap();
    other.copy_in(memory, &[5; 64]).unwrap();
    assert_eq!(other.copy_out(memory, 64).unwrap(), [5; 64]);
}

#[test]
fn a_killed_daemon_takes_its_workers_along() {
    let mut daemon = Daemon::start(&[]);
    let _spinner = Spinner::start(&daemon);
    let workers = daemon.workers();
    assert_eq!(workers.len(), 1);
    daemon.child.kill().unwrap();
    eventually(Duration::from_secs(2), "the worker is gone", || {
        !common::processes().iter().any(|process| process.pid == workers[0])
    });
}

#[test]
fn a_stopped_daemon_ends_workers_and_removes_its_socket() {
    let mut daemon = Daemon::start(&[]);
    let _spinner = Spinner::start(&daemon);
    let worker = daemon.workers()[0];
    kill(daemon.pid(), Signal::TERM);
    assert!(daemon.child.wait().unwrap().success());
    assert!(!common::processes().iter().any(|process| process.pid == worker));
    assert!(!daemon.path.exists());
}

#[test]
fn a_fault_in_one_program_does_not_touch_another() {
    let daemon = Daemon::start(&[]);
    let mut good = Client::connect(&daemon.address);
    let mut bad = Client::connect(&daemon.address);
    good.assert_works();
    bad.set_up();
    let module = bad.load(common::KERNELS).unwrap();
    let store = bad.function(module, c"store").unwrap();
    let memory = bad.alloc(64).unwrap();
    bad.store(store, memory + (1 << 30), 1);
    assert_eq!(bad.synchronize(), Err(Status::ILLEGAL_ADDRESS));
    // Sticky: everything in this context fails from now on.
    assert_eq!(bad.alloc(64), Err(Status::ILLEGAL_ADDRESS));
    assert_eq!(bad.copy_out(memory, 4).err(), Some(Status::ILLEGAL_ADDRESS));
    daemon.expect_log("kernel `store`: illegal address");
    good.assert_works();
    // A reset makes the context usable again.
    bad.call(ops::cuDevicePrimaryCtxReset_v2, |w| w.i32(0)).unwrap();
    bad.assert_works();
}

#[test]
fn lanes_come_and_go() {
    let daemon = Daemon::start(&[]);
    let mut client = Client::connect(&daemon.address);
    let context = client.set_up();
    let memory = client.alloc(1 << 20).unwrap();
    std::thread::scope(|scope| {
        for thread in 0..4u64 {
            let (address, welcome, window) = (&daemon.address, &client.welcome, &client.window);
            scope.spawn(move || {
                for round in 0..25 {
                    let (mut lane, _) = common::open_lane(address, welcome, window).unwrap();
                    let mut body = Vec::new();
                    protocol::Writer::new(&mut body).u64(context);
                    lane.post(ops::lane_set_context, &body).unwrap();
                    // Fill, on the per-thread default stream.
                    let mut w = protocol::Writer::new(&mut body);
                    w.u64(memory + thread * 4096);
                    w.u32(u32::try_from(thread).unwrap() + round);
                    w.u64(4096);
                    w.u64(2);
                    let reply = lane.call(ops::cuMemsetD8_v2, &body, &mut Vec::new()).unwrap();
                    assert!(reply.status.is_success(), "{:?}", reply.status);
                }
            });
        }
    });
    client.synchronize().unwrap();
    for thread in 0..4u64 {
        let expected = vec![u8::try_from(thread).unwrap() + 24; 4096];
        assert_eq!(client.copy_out(memory + thread * 4096, 4096).unwrap(), expected);
    }
    eventually(TIMEOUT, "one lane is left", || {
        let tasks = format!("/proc/{}/task", daemon.workers()[0]);
        let names = std::fs::read_dir(tasks).unwrap().flatten();
        names
            .filter(|task| {
                std::fs::read_to_string(task.path().join("comm")).is_ok_and(|name| name.starts_with("lane-"))
            })
            .count()
            == 1
    });
}
