//! Workers that wait for programs: who gets them, what takes their place, what ends them. With the CPU backend, and with a few lines of C in the driver's place.

mod common;

use std::time::{Duration, Instant};

use common::stand_in::StandIn;
use common::{Client, Daemon, TIMEOUT, eventually, kill, open_as};
use protocol::handshake::{Capabilities, Hello, RefusalCode};
use protocol::region::Region;
use protocol::{Status, ops};
use rustix::process::Signal;

/// The name of a process's main thread.
fn name(pid: i32) -> String {
    std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default().trim_end().to_owned()
}

/// Workers that wait.
fn waiting(daemon: &Daemon) -> Vec<i32> {
    daemon.workers().into_iter().filter(|pid| name(*pid) == "warm-worker").collect()
}

/// Waits until `count` workers are ready, and returns them.
fn ready(daemon: &Daemon, count: usize) -> Vec<i32> {
    let is_ready = |pid: &i32| daemon.log().contains(&format!("a worker is warm pid={pid} "));
    let mut found = Vec::new();
    eventually(TIMEOUT, "workers are warm", || {
        found = waiting(daemon).into_iter().filter(is_ready).collect();
        found.len() == count
    });
    found
}

fn hello_with(capabilities: Capabilities, tag: u32) -> Hello {
    let hello = common::hello();
    Hello {
        region_tag: Region::new(tag).unwrap().tag(),
        capabilities: hello.capabilities.union(capabilities),
        ..hello
    }
}

/// As programs without a list of devices say it.
fn hello() -> Hello {
    hello_with(Capabilities::ALL_DEVICES, 9)
}

fn worker_of(client: &Client) -> i32 {
    i32::try_from(client.welcome.worker_pid).unwrap()
}

fn is_alive(pid: i32) -> bool {
    common::processes().iter().any(|process| process.pid == pid)
}

#[test]
fn a_program_gets_a_worker_that_was_there_before() {
    let daemon = Daemon::start_warm(1, &[]);
    let mut seen = Vec::new();
    for _ in 0..3 {
        let there = ready(&daemon, 1);
        let mut client = Client::connect_as(&daemon.address, &hello());
        assert_eq!(worker_of(&client), there[0]);
        assert_eq!(name(there[0]), "worker");
        client.assert_works();
        // Never the same one again.
        assert!(!seen.contains(&there[0]));
        seen.push(there[0]);
        let next = ready(&daemon, 1);
        assert_ne!(next, there);
        drop(client);
        eventually(TIMEOUT, "its worker has ended", || !is_alive(there[0]));
    }
    assert!(!daemon.log().contains("WARN"), "{}", daemon.log());
}

#[test]
fn there_are_as_many_as_asked_for() {
    let daemon = Daemon::start_warm(3, &[]);
    let there = ready(&daemon, 3);
    let clients: Vec<_> = (0..3).map(|_| Client::connect_as(&daemon.address, &hello())).collect();
    assert!(clients.iter().all(|client| there.contains(&worker_of(client))));
    ready(&daemon, 3);
    assert_eq!(daemon.workers().len(), 6);
}

#[test]
fn they_are_not_sessions() {
    let daemon = Daemon::start_warm(3, &["--max-sessions", "1"]);
    ready(&daemon, 3);
    let first = Client::connect_as(&daemon.address, &hello());
    let Err(refused) = open_as(&daemon.address, &hello()) else { panic!("two sessions") };
    assert!(
        matches!(&refused, transport::Error::Refused(refused) if refused.code == RefusalCode::LIMIT),
        "{refused}"
    );
    drop(first);
    eventually(TIMEOUT, "another program is served", || open_as(&daemon.address, &hello()).is_ok());
}

#[test]
fn many_programs_at_once_all_get_one() {
    let daemon = Daemon::start_warm(2, &[]);
    ready(&daemon, 2);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| Client::connect_as(&daemon.address, &hello()).assert_works());
        }
    });
    eventually(TIMEOUT, "nothing but the reserve is left", || daemon.workers().len() == 2);
    assert_eq!(ready(&daemon, 2).len(), 2);
}

#[test]
fn a_worker_that_is_killed_is_replaced() {
    let daemon = Daemon::start_warm(1, &[]);
    let first = ready(&daemon, 1)[0];
    kill(first, Signal::KILL);
    eventually(TIMEOUT, "another waits", || {
        let now = waiting(&daemon);
        now.len() == 1 && now[0] != first
    });
    daemon.expect_log("a warm worker is lost");
    let second = ready(&daemon, 1)[0];
    let mut client = Client::connect_as(&daemon.address, &hello());
    assert_eq!(worker_of(&client), second);
    client.assert_works();
}

#[test]
fn a_worker_that_does_not_answer_is_not_handed_out() {
    let daemon = Daemon::start_warm(1, &[]);
    let stuck = ready(&daemon, 1)[0];
    kill(stuck, Signal::STOP);
    let mut client = Client::connect_as(&daemon.address, &hello());
    assert_ne!(worker_of(&client), stuck);
    client.assert_works();
    daemon.expect_log("it does not answer");
    eventually(TIMEOUT, "it is gone", || !is_alive(stuck));
}

#[test]
fn they_end_with_their_daemon() {
    let mut daemon = Daemon::start_warm(2, &[]);
    let there = ready(&daemon, 2);
    daemon.child.kill().unwrap();
    eventually(Duration::from_secs(2), "they are gone", || !there.iter().any(|pid| is_alive(*pid)));

    let mut daemon = Daemon::start_warm(2, &[]);
    let there = ready(&daemon, 2);
    kill(daemon.pid(), Signal::TERM);
    assert!(daemon.child.wait().unwrap().success());
    assert!(!there.iter().any(|pid| is_alive(*pid)));
}

#[test]
fn another_region_takes_another_worker() {
    let daemon = Daemon::start_warm(1, &[]);
    let there = ready(&daemon, 1);
    let mut client = Client::connect_as(&daemon.address, &hello_with(Capabilities::ALL_DEVICES, 10));
    assert_ne!(worker_of(&client), there[0]);
    client.assert_works();
    assert_eq!(waiting(&daemon), there, "it still waits");
}

#[test]
fn the_cpu_backend_chooses_devices_late() {
    let daemon = Daemon::start_warm(1, &["--devices", "2"]);
    for (list, expected) in [(c"1", Ok(1)), (c"1,0", Ok(2)), (c"0,5,1", Ok(1)), (c"", Err(Status::NO_DEVICE))]
    {
        let there = ready(&daemon, 1);
        let mut client = Client::connect_as(&daemon.address, &common::hello());
        assert_eq!(worker_of(&client), there[0]);
        client.call(ops::set_visible_devices, |w| w.cstr(Some(list))).unwrap();
        let start = client.call(ops::cuInit, |w| w.u32(0)).map(drop);
        assert_eq!(start.and_then(|()| client.word(ops::cuDeviceGetCount, |w| w.present(true))), expected);
    }
}

/// It says when it is started and in which order contexts are asked for; files make it slow, ill and so on.
const DRIVER: &str = r#"
#include <stdlib.h>
#include <stdio.h>
#include <unistd.h>
#define HAS(name) (access(DIR "/" name, F_OK) == 0)
typedef unsigned long long word;
static void *current;
static int context;
unsigned cuInit(unsigned flags) {
    FILE *log = fopen(DIR "/log", "a");
    const char *list = getenv("CUDA_VISIBLE_DEVICES");
    fprintf(log, "%d cuInit %s\n", (int)getpid(), list ? list : "-");
    fclose(log);
    if (HAS("hangs")) sleep(600);
    if (HAS("slow")) usleep(400000);
    return HAS("fails") ? 999 : 0;
}
unsigned cuDeviceGetCount(int *count) { *count = HAS("two") && !getenv("CUDA_VISIBLE_DEVICES") ? 2 : 1; return 0; }
unsigned cuDeviceGetAttribute(int *value, unsigned which, int device) {
    *value = which == 20 && HAS("exclusive") ? 3 : 0;
    return 0;
}
static int references, flags_set;
static void note(const char *what) {
    char path[4096];
    snprintf(path, sizeof path, DIR "/context.%d", (int)getpid());
    FILE *log = fopen(path, "a");
    fprintf(log, "%s\n", what);
    fclose(log);
}
unsigned cuDevicePrimaryCtxRetain(void **out, int device) {
    note(flags_set ? "retained with flags" : "retained");
    *out = &context;
    references++;
    return 0;
}
unsigned cuDevicePrimaryCtxRelease_v2(int device) { references--; return 0; }
unsigned cuDevicePrimaryCtxSetFlags_v2(int device, unsigned flags) {
    if (HAS("strict") && references) return 708;
    flags_set = 1;
    return 0;
}
unsigned cuCtxGetCurrent(void **out) { *out = current; return 0; }
unsigned cuCtxSetCurrent(void *to) { current = to; return 0; }
unsigned cuCtxSynchronize(void) { return HAS("sick") ? 719 : 0; }
unsigned cuMemGetInfo_v2(word *available, word *total) { *available = *total = 1 << 30; return HAS("lost") ? 46 : 0; }
"#;

fn driver() -> StandIn {
    StandIn::new(DRIVER)
}

/// Process and list of devices of each start.
fn starts(driver: &StandIn) -> Vec<(i32, String)> {
    let line = |line: &str| {
        let mut words = line.split(' ');
        let pid = words.next()?.parse().ok()?;
        Some((pid, words.nth(1)?.to_owned()))
    };
    driver.wrote("log").lines().filter_map(line).collect()
}

fn start(client: &mut Client) -> Result<(), Status> {
    client.call(ops::cuInit, |w| w.u32(0)).map(drop)
}

#[test]
fn the_driver_is_started_once_and_before_the_program() {
    let driver = driver();
    let daemon = driver.daemon(1);
    let there = ready(&daemon, 1)[0];
    assert_eq!(starts(&driver), [(there, "-".to_owned())]);
    driver.set("fails");
    let mut client = Client::connect_as(&daemon.address, &hello());
    assert_eq!(worker_of(&client), there);
    assert_eq!(start(&mut client), Ok(()), "it was started when it did not fail");
    assert_eq!(starts(&driver).iter().filter(|(pid, _)| *pid == there).count(), 1);
}

#[test]
fn a_program_waits_for_a_worker_that_is_about_to_be_ready() {
    let driver = driver();
    driver.set("slow");
    let daemon = driver.daemon(1);
    eventually(TIMEOUT, "the driver is being started", || starts(&driver).len() == 1);
    let mut client = Client::connect_as(&daemon.address, &hello());
    assert_eq!(worker_of(&client), starts(&driver)[0].0);
    start(&mut client).unwrap();
}

#[test]
fn a_driver_that_does_not_start_is_left_in_peace() {
    let driver = driver();
    driver.set("fails");
    let begin = Instant::now();
    let daemon = driver.daemon(2);
    eventually(TIMEOUT, "it is tried again", || starts(&driver).len() >= 4);
    std::thread::sleep(Duration::from_millis(500));
    // Pauses of 0.1, 0.2, 0.4 ... seconds lie between them.
    let tries = starts(&driver).len();
    let pauses = Duration::from_millis((1 << (tries - 1)) * 100 - 100);
    assert!(begin.elapsed() >= pauses, "{tries} starts in {:?}", begin.elapsed());
    // A program finds out for itself.
    let mut client = Client::connect_as(&daemon.address, &hello());
    assert_eq!(start(&mut client), Err(Status::UNKNOWN));
    drop(client);
    driver.unset("fails");
    let there = ready(&daemon, 2);
    let mut client = Client::connect_as(&daemon.address, &hello());
    assert!(there.contains(&worker_of(&client)));
    start(&mut client).unwrap();
}

#[test]
fn a_device_for_one_process_is_not_taken_in_advance() {
    let driver = driver();
    driver.set("exclusive");
    let daemon = driver.daemon(1);
    daemon.expect_log("no warm workers on this host: device 0 is not for several processes");
    eventually(TIMEOUT, "no worker is left", || daemon.workers().is_empty());
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(starts(&driver).len(), 1);
    let mut client = Client::connect_as(&daemon.address, &hello());
    start(&mut client).unwrap();
}

#[test]
fn a_worker_whose_device_has_failed_is_not_handed_out() {
    for mood in ["sick", "lost"] {
        let driver = driver();
        let daemon = driver.daemon(1);
        let there = ready(&daemon, 1)[0];
        driver.set(mood);
        let mut client = Client::connect_as(&daemon.address, &hello());
        assert_ne!(worker_of(&client), there);
        start(&mut client).unwrap();
        daemon.expect_log("the device is not as it was");
        eventually(TIMEOUT, "it is gone", || !is_alive(there));
    }
}

#[test]
fn a_worker_in_the_middle_of_its_start_ends_with_its_daemon() {
    let driver = driver();
    driver.set("hangs");
    let mut daemon = driver.daemon(1);
    eventually(TIMEOUT, "the driver hangs", || starts(&driver).len() == 1);
    let worker = starts(&driver)[0].0;
    daemon.child.kill().unwrap();
    eventually(Duration::from_secs(2), "it is gone", || !is_alive(worker));

    let mut daemon = driver.daemon(1);
    eventually(TIMEOUT, "the driver hangs", || starts(&driver).len() == 2);
    let worker = starts(&driver)[1].0;
    kill(daemon.pid(), Signal::TERM);
    assert!(daemon.child.wait().unwrap().success());
    assert!(!is_alive(worker));
}

#[test]
fn a_list_of_devices_takes_a_driver_that_was_not_started() {
    let driver = driver();
    driver.set("two");
    let daemon = driver.daemon(1);
    let there = ready(&daemon, 1)[0];
    for hello in [
        // A list that says something; no word about it; a list that may be shorter than the devices.
        hello_with(Capabilities::NONE, 9),
        hello_with(Capabilities::FIRST_DEVICES, 9),
    ] {
        let mut client = Client::connect_as(&daemon.address, &hello);
        assert_ne!(worker_of(&client), there);
        client.call(ops::set_visible_devices, |w| w.cstr(Some(c"0"))).unwrap();
        start(&mut client).unwrap();
        assert!(starts(&driver).contains(&(worker_of(&client), "0".to_owned())), "{:?}", starts(&driver));
        assert_eq!(client.word(ops::cuDeviceGetCount, |w| w.present(true)), Ok(1));
    }
    assert_eq!(waiting(&daemon), [there]);
    let mut client = Client::connect_as(&daemon.address, &hello());
    assert_eq!(worker_of(&client), there);
    // All of them, in order, are what there is; anything else comes too late, whatever the hello said.
    let mut set = |list| client.call(ops::set_visible_devices, |w| w.cstr(Some(list))).map(drop);
    assert_eq!(set(c"0,1"), Ok(()));
    assert_eq!(set(c"0,1,2"), Ok(()));
    for list in [c"0", c"1", c"1,0", c"", c"GPU-1"] {
        assert_eq!(set(list), Err(Status::NOT_PERMITTED), "{list:?}");
    }
}

#[test]
fn the_first_device_of_one_is_all_devices() {
    let driver = driver();
    let daemon = driver.daemon(1);
    let there = ready(&daemon, 1)[0];
    let mut client = Client::connect_as(&daemon.address, &hello_with(Capabilities::FIRST_DEVICES, 9));
    assert_eq!(worker_of(&client), there);
    client.call(ops::set_visible_devices, |w| w.cstr(Some(c"0,1"))).unwrap();
    start(&mut client).unwrap();
    assert_eq!(client.word(ops::cuDeviceGetCount, |w| w.present(true)), Ok(1));
}

#[test]
fn flags_are_set_before_the_context_is_used() {
    for (mood, expected) in [("strict", "retained\nretained with flags\n"), ("lenient", "retained\n")] {
        let driver = driver();
        driver.set(mood);
        let daemon = driver.daemon(1);
        let there = ready(&daemon, 1)[0];
        let mut client = Client::connect_as(&daemon.address, &hello());
        assert_eq!(worker_of(&client), there);
        start(&mut client).unwrap();
        let set = |client: &mut Client| {
            let result = client.call(ops::cuDevicePrimaryCtxSetFlags_v2, |w| {
                w.i32(0);
                w.u32(4);
            });
            result.map(drop)
        };
        set(&mut client).unwrap();
        let retain = |client: &mut Client| {
            let context = client.word(ops::cuDevicePrimaryCtxRetain, |w| {
                w.present(true);
                w.i32(0);
            });
            context.unwrap()
        };
        let context = retain(&mut client);
        // In use it is the program's, and the driver's answer is, too.
        let in_use = if mood == "strict" { Err(Status::PRIMARY_CONTEXT_ACTIVE) } else { Ok(()) };
        assert_eq!(set(&mut client), in_use);
        assert_eq!(retain(&mut client), context);
        assert_eq!(driver.wrote(&format!("context.{there}")), expected);
    }
}
