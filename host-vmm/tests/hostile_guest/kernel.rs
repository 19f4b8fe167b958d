//! What the machine's kernel says in the name of the broker module.

use std::io::{Read as _, Write as _};
use std::time::Duration;

use protocol::broker::{
    Code, Extent, GuestMessage, HostMessage, Kind, MAGIC, RegionKind, RegionName, SessionBegin,
};

use super::Scene;
use super::common::machine::{PAGE, RAM};
use super::common::{TIMEOUT, eventually};

/// A message, however wrong.
fn raw(kind: u16, len: u32, words: &[u64]) -> Vec<u8> {
    let head = [u64::from(MAGIC) | u64::from(kind) << 32, len.into()];
    head.iter().chain(words).flat_map(|word| word.to_le_bytes()).collect()
}

fn message(kind: Kind, words: &[u64]) -> Vec<u8> {
    raw(kind.0, words.len() as u32 * 8, words)
}

#[test]
fn extents_that_are_not_free_memory_of_the_machine_are_refused() {
    let mut scene = Scene::start();
    let session = scene.next_session();
    scene.machine.begin(session);
    let theirs = scene.neighbour.extents[0][0];
    let own = scene.machine.take(2 * PAGE, 2 * PAGE)[0];
    let extent = |gpa, len| Extent { gpa, len };
    let cases: &[(&str, &[Extent])] = &[
        ("behind the end", &[extent(RAM, PAGE)]),
        ("across the end", &[own, extent(RAM - PAGE, 2 * PAGE)]),
        ("all there is, and more", &[extent(0, 1 << 46)]),
        ("wraps", &[extent(u64::MAX - PAGE + 1, PAGE)]),
        ("wraps to the start", &[extent(u64::MAX - PAGE + 1, 2 * PAGE)]),
        ("unaligned", &[extent(own.gpa + 8, PAGE)]),
        ("part of a page", &[extent(own.gpa, 100)]),
        ("nothing", &[extent(own.gpa, 0)]),
        ("a length that wraps", &[own, extent(own.gpa, u64::MAX - PAGE + 1)]),
        ("the neighbour's", &[theirs]),
        ("a page of the neighbour's", &[own, extent(theirs.gpa + theirs.len - PAGE, PAGE)]),
        ("around the neighbour's", &[extent(theirs.gpa - PAGE, theirs.len + 2 * PAGE)]),
    ];
    for (what, extents) in cases {
        for kind in [RegionKind::WINDOW, RegionKind::PINNED, RegionKind(7)] {
            let region = scene.machine.name_region(session, kind, extents);
            let name = RegionName { session, region };
            match scene.machine.hear() {
                HostMessage::RegionAdded { name: answered, code } if answered == name => {
                    assert_ne!(code, Code::OK, "{what}, {kind:?}");
                }
                other => panic!("{what}: {other:?}"),
            }
            // It is as if it had never been.
            scene.machine.say(&GuestMessage::RegionRemove(name));
            assert_eq!(scene.machine.hear(), HostMessage::RegionReleased(name));
        }
    }
    let region = scene.machine.name_region(session, RegionKind::WINDOW, &[own, own]);
    let name = RegionName { session, region };
    assert_eq!(scene.machine.hear(), HostMessage::RegionAdded { name, code: Code::INVALID }, "itself");
    // The sum of the extents and the region's length differ.
    let words = [session, 5000, 1, own.len + PAGE, 1, 0, own.gpa, own.len];
    scene.machine.module.write_all(&message(Kind::REGION_ADD, &words)).unwrap();
    let name = RegionName { session, region: 5000 };
    assert_eq!(scene.machine.hear(), HostMessage::RegionAdded { name, code: Code::INVALID });
    scene.check_alone();
}

#[test]
fn parts_that_never_come_and_counts_without_bound_cost_nothing() {
    let mut scene = Scene::start();
    let session = scene.next_session();
    scene.machine.begin(session);
    let own = scene.machine.take(PAGE, PAGE)[0];
    let before = resident(&scene);
    for region in 6000..16_000 {
        let total = if region % 2 == 0 { u32::MAX } else { 1 << 20 };
        let words = [session, region, 1, 1 << 40, total.into(), 0, own.gpa, own.len];
        scene.machine.module.write_all(&message(Kind::REGION_ADD, &words)).unwrap();
    }
    // Given up before they were whole, and with the session.
    let name = RegionName { session, region: 6000 };
    scene.machine.say(&GuestMessage::RegionRemove(name));
    assert_eq!(scene.machine.hear(), HostMessage::RegionReleased(name));
    scene.check();
    let grown = resident(&scene).saturating_sub(before);
    assert!(grown < 64 << 10, "{grown} KiB for announcements");
    scene.machine.say(&GuestMessage::SessionEnd(session));
    assert_eq!(scene.machine.hear(), HostMessage::SessionReleased(session));
    scene.check_alone();
}

/// KiB of the daemon.
fn resident(scene: &Scene) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", scene.machine.daemon.pid())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[test]
fn sessions_without_end_are_bounded() {
    let mut scene = Scene::start();
    let mut refused = 0;
    for session in 100..1300 {
        let cookie = [session, 3];
        scene.machine.say(&GuestMessage::SessionBegin(SessionBegin { session, cookie, uid: 0, pid: 0 }));
        match scene.machine.hear() {
            HostMessage::SessionBegun { code: Code::OK, .. } => {}
            HostMessage::SessionBegun { code: Code::LIMIT, .. } => refused += 1,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(refused, 1200 + 1 - 1024);
    // A cookie is one session's.
    scene.machine.say(&GuestMessage::SessionEnd(100));
    assert_eq!(scene.machine.hear(), HostMessage::SessionReleased(100));
    for cookie in [[0, 0], [1, 77], [101, 3]] {
        scene.machine.say(&GuestMessage::SessionBegin(SessionBegin {
            session: 2000,
            cookie,
            uid: 0,
            pid: 0,
        }));
        let code = Code::INVALID;
        assert_eq!(scene.machine.hear(), HostMessage::SessionBegun { session: 2000, code }, "{cookie:?}");
    }
    scene.check_alone();
}

#[test]
fn what_no_module_says_ends_its_connection_only() {
    let mut scene = Scene::start();
    let cookie = |n: u64| [n, n];
    let begin =
        |session: u64| message(Kind::SESSION_BEGIN, &[session, cookie(session)[0], cookie(session)[1], 0, 0]);
    let own = scene.machine.take(2 * PAGE, PAGE);
    let (a, b) = (own[0], own[1]);
    let add = |region: u64, total: u64, first: u64, extent: Extent| {
        message(Kind::REGION_ADD, &[50, region, 1, 2 * PAGE, total, first, extent.gpa, extent.len])
    };
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("noise", (0..4000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect()),
        ("a long body", raw(3, 1 << 20, &[])),
        ("the longest body", raw(3, u32::MAX - 7, &[])),
        ("an odd body", raw(3, 12, &[])),
        ("no kind", message(Kind(0), &[])),
        ("another kind", message(Kind(77), &[1])),
        ("the host's words", message(Kind::REGION_RELEASED, &[1, 1])),
        ("a fence", message(Kind::FENCED, &[])),
        ("a second hello", message(Kind::HELLO, &[1, 1, 2, 0])),
        ("a short body", message(Kind::SESSION_BEGIN, &[50, 1])),
        ("a session twice", [begin(50), begin(50)].concat()),
        ("no session", add(1, 2, 0, a)),
        ("no extents", [begin(50), add(1, 0, 0, a)].concat()),
        ("an empty part", [begin(50), message(Kind::REGION_ADD, &[50, 1, 1, PAGE, 1, 0])].concat()),
        ("a part too many", [begin(50), add(1, 1, 0, a), add(1, 1, 1, b)].concat()),
        ("a gap", [begin(50), add(1, 3, 0, a), add(1, 3, 2, b)].concat()),
        ("a part again", [begin(50), add(1, 3, 0, a), add(1, 3, 0, a)].concat()),
        ("another total", [begin(50), add(1, 3, 0, a), add(1, 2, 1, b)].concat()),
        ("more than u32", [begin(50), add(1, 1 << 32, 0, a)].concat()),
        ("a region twice", [begin(50), add(1, 2, 0, a), add(1, 2, 1, b), add(1, 2, 0, a)].concat()),
    ];
    for (what, bytes) in cases {
        // The daemon may have ended it before everything is written.
        let _ = scene.machine.module.write_all(&bytes);
        let mut rest = Vec::new();
        let ended = scene.machine.module.read_to_end(&mut rest);
        let reset = |error: &std::io::Error| error.kind() == std::io::ErrorKind::ConnectionReset;
        assert!(ended.as_ref().map_or_else(reset, |_| true), "{what}: {ended:?}");
        // The neighbour's session has ended with the connection, not its worker; its memory is not declared free before that has.
        scene.check();
        scene.machine.reconnect();
        scene.machine.hear_nothing();
    }
    let mut machine = scene.machine;
    scene.neighbour.end();
    assert_eq!(machine.hear(), HostMessage::Fenced);
    eventually(TIMEOUT, "no worker is left", || machine.daemon.workers().is_empty());
    assert!(!machine.daemon.log().contains("panicked"));
}

#[test]
fn answers_that_are_never_read_are_bounded() {
    let mut scene = Scene::start();
    let before = resident(&scene);
    scene.machine.module.set_write_timeout(Some(Duration::from_secs(10))).unwrap();
    let batch: Vec<u8> = (0..1000).flat_map(|region| message(Kind::REGION_REMOVE, &[99, region])).collect();
    let mut written = 0;
    while scene.machine.module.write_all(&batch).is_ok() {
        written += batch.len();
        assert!(written < 256 << 20, "no end");
    }
    scene.machine.daemon.expect_log("answers wait for the module");
    let grown = resident(&scene).saturating_sub(before);
    assert!(grown < 64 << 10, "{grown} KiB for {written} bytes of questions");
    scene.check();
    scene.machine.reconnect();
    scene.check_alone();
}
