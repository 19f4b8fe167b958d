//! A module's words, right and wrong, and who may use what for how long.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use proptest::prelude::*;
use protocol::broker::{
    Code, Extent, Extents, GuestMessage, HEADER_LEN, Header, Hello, HostMessage, MAX_MESSAGE, RegionAdd,
    RegionKind, RegionName, SessionBegin, VERSION, encode_region_add,
};

use super::*;
use crate::vmm::memory::RamRegion;

const MIB: u64 = 1 << 20;

/// 8 MiB at 0 and, from the same file, 8 MiB at 16 MiB of which the last 4 are a range of their own.
fn ram() -> GuestRam {
    let file = tempfile::tempfile().unwrap();
    file.set_len(16 * MIB).unwrap();
    let file = Arc::new(file);
    let range =
        |gpa, len_bytes, offset_bytes| RamRegion { gpa, len_bytes, file: Arc::clone(&file), offset_bytes };
    GuestRam {
        regions: vec![
            range(0, 8 * MIB, 0),
            range(16 * MIB, 4 * MIB, 8 * MIB),
            range(20 * MIB, 4 * MIB, 12 * MIB),
        ],
    }
}

const LIMITS: Limits =
    Limits { sessions: 3, regions: 4, extents: 2000, guest_extents: 3000, region_bytes: 4 * MIB };

struct Rig {
    broker: Broker,
    connection: Option<Connection>,
    wakes: Arc<AtomicU64>,
}

fn rig() -> Rig {
    let wakes = Arc::new(AtomicU64::new(0));
    let counter = Arc::clone(&wakes);
    let wake = Box::new(move || _ = counter.fetch_add(1, Ordering::Relaxed));
    let broker = Broker::new(ram(), LIMITS, wake);
    let connection = Some(broker.connect(1023).unwrap());
    Rig { broker, connection, wakes }
}

impl Rig {
    fn greeted() -> Rig {
        let mut rig = rig();
        rig.say(&hello()).unwrap();
        let said = rig.heard();
        assert!(matches!(said[..], [HostMessage::Welcome(_), HostMessage::Fenced]), "{said:?}");
        rig
    }

    fn say(&mut self, message: &GuestMessage<'_>) -> Result<(), Error> {
        let mut out = [0; MAX_MESSAGE];
        let len = message.encode(&mut out).unwrap();
        self.connection.as_mut().unwrap().receive(&out[..len])
    }

    fn heard(&mut self) -> Vec<HostMessage> {
        let bytes = self.broker.take_output();
        let mut rest = &bytes[..];
        let mut messages = Vec::new();
        while let Some((header, body)) = rest.split_first_chunk::<HEADER_LEN>() {
            let header = Header::decode(header).unwrap();
            messages.push(HostMessage::decode(header.kind, &body[..header.len]).unwrap());
            rest = &body[header.len..];
        }
        messages
    }

    fn begin(&mut self, session: u64) -> GuestSession {
        let cookie = [session, 99];
        self.say(&GuestMessage::SessionBegin(SessionBegin { session, cookie, uid: 1000, pid: 7 })).unwrap();
        assert_eq!(self.heard(), [HostMessage::SessionBegun { session, code: Code::OK }]);
        self.broker.claim(cookie).unwrap()
    }

    fn add_part(
        &mut self,
        (session, region): (u64, u64),
        kind: RegionKind,
        all: &[Extent],
        first: usize,
        count: usize,
    ) -> Result<(), Error> {
        let mut out = [0; MAX_MESSAGE];
        let head = RegionAdd {
            session,
            region,
            kind,
            len: all.iter().map(|extent| extent.len).sum(),
            extents_total: all.len() as u32,
            first: first as u32,
            extents: Extents::default(),
        };
        let len = encode_region_add(&head, &all[first..first + count], &mut out).unwrap();
        self.connection.as_mut().unwrap().receive(&out[..len])
    }

    fn add(&mut self, name: (u64, u64), kind: RegionKind, extents: &[Extent]) -> Code {
        self.add_part(name, kind, extents, 0, extents.len()).unwrap();
        match self.heard()[..] {
            [HostMessage::RegionAdded { name: RegionName { session, region }, code }]
                if (session, region) == name =>
            {
                code
            }
            ref other => panic!("{other:?}"),
        }
    }
}

fn hello() -> GuestMessage<'static> {
    GuestMessage::Hello(Hello { version: VERSION, instance: [1, 2], held: 0 })
}

fn remove(session: u64, region: u64) -> (GuestMessage<'static>, HostMessage) {
    let name = RegionName { session, region };
    (GuestMessage::RegionRemove(name), HostMessage::RegionReleased(name))
}

fn pages(first: u64, count: u64) -> Extent {
    Extent { gpa: first * 4096, len: count * 4096 }
}

#[test]
fn only_privileged_ports_and_one_connection() {
    let mut rig = rig();
    assert_eq!(rig.broker.connect(1024).err().unwrap().code, Code::DENIED);
    let refusal = rig.broker.connect(1022).err().unwrap();
    assert_eq!(refusal.code, Code::BUSY);
    let (header, body) =
        refusal.encode().split_first_chunk().map(|(h, b)| (Header::decode(h).unwrap(), b.to_vec())).unwrap();
    assert_eq!(HostMessage::decode(header.kind, &body), Ok(HostMessage::Refused(Code::BUSY)));
    rig.connection = None;
    assert!(rig.broker.connect(1).is_ok());
}

#[test]
fn what_may_not_be_said() {
    let order = |steps: &[GuestMessage<'_>]| {
        let mut rig = rig();
        let (last, first) = steps.split_last().unwrap();
        first.iter().for_each(|step| rig.say(step).unwrap());
        assert!(matches!(rig.say(last), Err(Error::Order(_))), "{last:?}");
    };
    let begin = GuestMessage::SessionBegin(SessionBegin { session: 1, cookie: [1, 1], uid: 0, pid: 1 });
    order(&[begin]);
    order(&[hello(), hello()]);
    order(&[hello(), begin, begin]);
    order(&[GuestMessage::Hello(Hello { version: 2, instance: [0; 2], held: 0 })]);

    let extents = [pages(1, 1), pages(3, 1)];
    let wrong = |act: &dyn Fn(&mut Rig) -> Result<(), Error>| {
        let mut rig = Rig::greeted();
        let _session = rig.begin(1);
        assert!(matches!(act(&mut rig), Err(Error::Order(_))));
    };
    wrong(&|rig| rig.add_part((2, 1), RegionKind::PINNED, &extents, 0, 2));
    wrong(&|rig| rig.add_part((1, 1), RegionKind::PINNED, &extents, 1, 1));
    wrong(&|rig| {
        rig.add_part((1, 1), RegionKind::PINNED, &extents, 0, 2)?;
        rig.add_part((1, 1), RegionKind::PINNED, &extents, 0, 2)
    });
    wrong(&|rig| {
        rig.add_part((1, 1), RegionKind::PINNED, &extents, 0, 1)?;
        rig.add_part((1, 1), RegionKind::WINDOW, &extents, 1, 1)
    });
    wrong(&|rig| {
        rig.say(&GuestMessage::SessionEnd(1))?;
        rig.add_part((1, 1), RegionKind::PINNED, &extents, 0, 2)
    });
}

#[test]
fn extents_must_be_the_guests_memory() {
    let mut rig = Rig::greeted();
    let _session = rig.begin(1);
    for (i, bad) in [
        pages(2048, 1),
        pages(2047, 2),
        pages(4095, 2),
        pages(6143, 2),
        Extent { gpa: 1, len: 4096 },
        Extent { gpa: 0, len: 0 },
        Extent { gpa: u64::MAX - 4095, len: 4096 },
    ]
    .into_iter()
    .enumerate()
    {
        assert_eq!(rig.add((1, i as u64), RegionKind::PINNED, &[pages(0, 1), bad]), Code::INVALID, "{bad:?}");
    }
    // Refused regions are forgotten, and one extent may go on into the next range.
    assert_eq!(
        rig.add((1, 90), RegionKind::PINNED, &[pages(2047, 1), pages(5119, 2), pages(6143, 1)]),
        Code::OK
    );
}

#[test]
fn windows_are_one_sessions_alone() {
    let mut rig = Rig::greeted();
    let (_one, _two) = (rig.begin(1), rig.begin(2));
    assert_eq!(rig.add((1, 1), RegionKind::WINDOW, &[pages(10, 4), pages(20, 4)]), Code::OK);
    assert_eq!(rig.add((2, 1), RegionKind::WINDOW, &[pages(23, 1)]), Code::INVALID);
    assert_eq!(rig.add((2, 2), RegionKind::PINNED, &[pages(0, 11)]), Code::INVALID);
    assert_eq!(rig.add((2, 3), RegionKind::PINNED, &[pages(14, 6)]), Code::OK);
    // A program may pin its own window, and programs that share memory may pin the same pages.
    assert_eq!(rig.add((1, 2), RegionKind::PINNED, &[pages(12, 10)]), Code::OK);
    assert_eq!(rig.add((2, 4), RegionKind::WINDOW, &[pages(30, 1), pages(30, 1)]), Code::INVALID);
    let (message, released) = remove(1, 1);
    rig.say(&message).unwrap();
    assert_eq!(rig.heard(), [released]);
    assert_eq!(rig.add((2, 5), RegionKind::WINDOW, &[pages(22, 1)]), Code::OK);
}

#[test]
fn limits_hold_and_are_given_back() {
    let mut rig = Rig::greeted();
    let _sessions: Vec<_> = (1..4).map(|session| rig.begin(session)).collect();
    rig.say(&GuestMessage::SessionBegin(SessionBegin { session: 4, cookie: [4, 4], uid: 0, pid: 0 }))
        .unwrap();
    assert_eq!(rig.heard(), [HostMessage::SessionBegun { session: 4, code: Code::LIMIT }]);
    let apart: Vec<Extent> = (0..800).map(|page| pages(page * 2, 1)).collect();
    for region in 0..3 {
        assert_eq!(rig.add((1, region), RegionKind::PINNED, &apart), Code::OK);
    }
    assert_eq!(rig.add((1, 3), RegionKind::PINNED, &apart), Code::LIMIT, "extents of the guest");
    assert_eq!(rig.add((1, 4), RegionKind::PINNED, &[pages(0, 1)]), Code::OK);
    assert_eq!(rig.add((1, 5), RegionKind::PINNED, &[pages(0, 1)]), Code::LIMIT, "regions");
    assert_eq!(rig.add((2, 1), RegionKind::PINNED, &[pages(0, 1025)]), Code::LIMIT, "bytes");
    let many: Vec<Extent> = (0..2001).map(|_| pages(0, 1)).collect();
    for part in [(0, 1000), (1000, 1000), (2000, 1)] {
        rig.add_part((2, 2), RegionKind::PINNED, &many, part.0, part.1).unwrap();
    }
    let name = RegionName { session: 2, region: 2 };
    assert_eq!(rig.heard(), [HostMessage::RegionAdded { name, code: Code::LIMIT }]);
    rig.say(&GuestMessage::SessionEnd(1)).unwrap();
    assert_eq!(rig.heard(), [HostMessage::SessionReleased(1)]);
    assert_eq!(rig.add((3, 1), RegionKind::PINNED, &apart), Code::OK);
}

#[test]
fn bytes_are_where_the_extents_say() {
    let mut rig = Rig::greeted();
    let session = rig.begin(1);
    let memory = rig.broker.ram().map().unwrap();
    assert_eq!(rig.add((1, 1), RegionKind::PINNED, &[pages(5119, 2), pages(3, 1), pages(4, 1)]), Code::OK);
    let region = session.region(1).unwrap();
    let pieces = region.pieces(&rig.broker.ram(), 4000, 9000).unwrap();
    let seen: Vec<_> =
        pieces.iter().map(|p| (p.offset_bytes, p.gpa, p.len_bytes, p.file_offset_bytes)).collect();
    // The two ranges follow each other in the guest and in the file; so do pages 3 and 4.
    assert_eq!(
        seen,
        [(4000, 5119 * 4096 + 4000, 4192, 5119 * 4096 + 4000 - 8 * MIB), (8192, 3 * 4096, 4808, 3 * 4096)]
    );
    let data: Vec<u8> = (0..9000u32).map(|i| i as u8).collect();
    region.write(&memory, 4000, &data).unwrap();
    let mut back = vec![0; 9000];
    region.read(&memory, 4000, &mut back).unwrap();
    assert_eq!(back, data);
    let mut page = [0; 8];
    memory.read_slice(&mut page, vm_memory::GuestAddress(3 * 4096)).unwrap();
    assert_eq!(page, data[4192..4200]);
    for (offset, len) in [(16384, 1), (0, 16385), (u64::MAX, 1), (1, u64::MAX)] {
        assert!(matches!(region.pieces(&rig.broker.ram(), offset, len), Err(Error::Range { .. })));
    }
    assert_eq!(region.pieces(&rig.broker.ram(), 16384, 0).unwrap().len(), 0);
}

use vm_memory::Bytes as _;

#[test]
fn released_when_the_last_use_ends() {
    let mut rig = Rig::greeted();
    let session = rig.begin(1);
    assert!(rig.broker.claim([1, 99]).is_none(), "claimed once");
    assert!(rig.broker.claim([0, 0]).is_none());
    assert_eq!(session.program(), Some((1000, 7)));
    rig.add((1, 1), RegionKind::PINNED, &[pages(1, 1)]);
    let (first, second) = (session.region(1).unwrap(), session.region(1).unwrap());
    let (message, released) = remove(1, 1);
    rig.say(&message).unwrap();
    assert_eq!(session.region(1).err(), Some(Error::Unknown(1)));
    drop(first);
    assert_eq!(rig.heard(), []);
    let wakes = rig.wakes.load(Ordering::Relaxed);
    drop(second);
    assert_eq!(rig.wakes.load(Ordering::Relaxed), wakes + 1);
    assert_eq!(rig.heard(), [released]);
    // Asked again, and for what never was: nothing uses it.
    rig.say(&message).unwrap();
    assert_eq!(rig.heard(), [released]);

    rig.add((1, 2), RegionKind::WINDOW, &[pages(1, 1)]);
    let used = session.region(2).unwrap();
    rig.say(&GuestMessage::SessionEnd(1)).unwrap();
    assert_eq!((rig.heard(), session.region(2).err()), (vec![], Some(Error::Ended)));
    drop(used);
    assert_eq!(rig.heard(), [HostMessage::SessionReleased(1)]);
    assert_eq!((session.program(), rig.broker.uses()), (None, 0));
}

#[test]
fn a_new_connection_is_fenced_when_old_uses_end() {
    let mut rig = Rig::greeted();
    let session = rig.begin(1);
    rig.add((1, 1), RegionKind::PINNED, &[pages(1, 1)]);
    let used = session.region(1).unwrap();
    let hold = rig.broker.hold_fence();
    rig.connection = None;
    assert_eq!(session.region(1).err(), Some(Error::Ended));
    rig.connection = Some(rig.broker.connect(700).unwrap());
    rig.say(&hello()).unwrap();
    assert!(matches!(rig.heard()[..], [HostMessage::Welcome(_)]));
    // The guest has booted anew: the same numbers are other sessions.
    let again = rig.begin(1);
    rig.add((1, 1), RegionKind::PINNED, &[pages(2, 1)]);
    let other = again.region(1).unwrap();
    drop(used);
    assert_eq!(rig.heard(), []);
    drop(hold);
    assert_eq!(rig.heard(), [HostMessage::Fenced]);
    assert_eq!(other.parts(0, 1).unwrap().next(), Some((0, 8192, 1)));
}

#[test]
fn messages_come_in_any_pieces() {
    let mut rig = rig();
    let mut out = [0; MAX_MESSAGE];
    let mut stream = Vec::new();
    let begin = GuestMessage::SessionBegin(SessionBegin { session: 1, cookie: [1, 1], uid: 0, pid: 1 });
    for message in [hello(), begin, GuestMessage::SessionEnd(1)] {
        let len = message.encode(&mut out).unwrap();
        stream.extend_from_slice(&out[..len]);
    }
    for byte in stream {
        rig.connection.as_mut().unwrap().receive(&[byte]).unwrap();
    }
    assert_eq!(rig.heard().len(), 4);
    assert!(matches!(rig.connection.as_mut().unwrap().receive(&[0; 16]), Err(Error::Message(_))));
}

#[derive(Clone, Debug)]
enum Step {
    Begin(u64),
    Add { session: u64, region: u64, window: bool, first: u64, count: u64 },
    Remove(u64, u64),
    End(u64),
    Use(u64, u64),
    Drop(prop::sample::Index),
    Reconnect,
}

fn step() -> impl Strategy<Value = Step> {
    let session = || 1u64..4;
    prop_oneof![
        2 => session().prop_map(Step::Begin),
        5 => (session(), 1u64..4, any::<bool>(), 0u64..12, 1u64..4)
            .prop_map(|(session, region, window, first, count)| Step::Add { session, region, window, first, count }),
        3 => (session(), 1u64..4).prop_map(|(session, region)| Step::Remove(session, region)),
        1 => session().prop_map(Step::End),
        4 => (session(), 1u64..4).prop_map(|(session, region)| Step::Use(session, region)),
        4 => any::<prop::sample::Index>().prop_map(Step::Drop),
        1 => Just(Step::Reconnect),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// The host never says that something is released while it is in use, and says it in the end.
    #[test]
    fn release_is_the_truth(steps in prop::collection::vec(step(), 1..80)) {
        let mut rig = Rig::greeted();
        let mut sessions: HashMap<u64, GuestSession> = HashMap::new();
        // Numbers are never used twice by a module.
        let (mut serial, mut names) = (0u64, HashMap::new());
        let mut uses: Vec<(u32, u64, u64, RegionUse)> = Vec::new();
        let mut owed: BTreeMap<String, HostMessage> = BTreeMap::new();
        let mut epoch = 0u32;
        let mut fenced = true;
        for step in steps {
            match step {
                Step::Begin(session) if !sessions.contains_key(&session) => {
                    serial += 1;
                    names.insert((session, 0), serial);
                    let cookie = [serial, 1];
                    rig.say(&GuestMessage::SessionBegin(SessionBegin { session: serial, cookie, uid: 0, pid: 0 })).unwrap();
                    // Ended sessions that are in use count.
                    if let Some(claimed) = rig.broker.claim(cookie) {
                        sessions.insert(session, claimed);
                    }
                }
                Step::Add { session, region, window, first, count } if sessions.contains_key(&session) => {
                    serial += 1;
                    names.insert((session, region), serial);
                    let kind = if window { RegionKind::WINDOW } else { RegionKind::PINNED };
                    rig.add_part((names[&(session, 0)], serial), kind, &[pages(first, count)], 0, 1).unwrap();
                }
                Step::Remove(session, region) if sessions.contains_key(&session) => {
                    let Some(&id) = names.get(&(session, region)) else { continue };
                    let (message, released) = remove(names[&(session, 0)], id);
                    rig.say(&message).unwrap();
                    owed.insert(format!("{released:?}"), released);
                }
                Step::End(session) if sessions.remove(&session).is_some() => {
                    let id = names[&(session, 0)];
                    rig.say(&GuestMessage::SessionEnd(id)).unwrap();
                    owed.retain(|_, message| !matches!(message, HostMessage::RegionReleased(name) if name.session == id));
                    let released = HostMessage::SessionReleased(id);
                    owed.insert(format!("{released:?}"), released);
                    names.retain(|(of, _), _| *of != session);
                }
                Step::Use(session, region) => {
                    if let (Some(open), Some(id)) = (sessions.get(&session), names.get(&(session, region)))
                        && let Ok(found) = open.region(*id)
                    {
                        uses.push((epoch, names[&(session, 0)], *id, found));
                    }
                }
                Step::Drop(index) if !uses.is_empty() => {
                    uses.remove(index.index(uses.len()));
                }
                Step::Reconnect => {
                    rig.connection = None;
                    sessions.clear();
                    names.clear();
                    owed.clear();
                    epoch += 1;
                    fenced = false;
                    rig.connection = Some(rig.broker.connect(1).unwrap());
                    rig.say(&hello()).unwrap();
                }
                _ => continue,
            }
            for message in rig.heard() {
                let in_use = |session: u64, region: Option<u64>| uses.iter().any(|(of, s, r, _)| *of == epoch && *s == session && region.is_none_or(|region| region == *r));
                match message {
                    HostMessage::RegionReleased(name) => prop_assert!(!in_use(name.session, Some(name.region))),
                    HostMessage::SessionReleased(session) => prop_assert!(!in_use(session, None)),
                    HostMessage::Fenced => {
                        prop_assert!(uses.iter().all(|(of, ..)| *of == epoch));
                        fenced = true;
                    }
                    _ => continue,
                }
                owed.remove(&format!("{message:?}"));
            }
            prop_assert_eq!(rig.broker.uses(), uses.len() as u64);
        }
        uses.clear();
        for message in rig.heard() {
            fenced |= message == HostMessage::Fenced;
            owed.remove(&format!("{message:?}"));
        }
        prop_assert!(fenced);
        prop_assert_eq!(owed.len(), 0);
    }

    #[test]
    fn any_bytes(data in prop::collection::vec(any::<u8>(), 0..400)) {
        crate::fuzz::broker(&data);
    }
}

#[test]
fn corpus_and_its_mutations() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus/broker");
    let mut files: Vec<_> = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(!files.is_empty());
    for file in files {
        let seed = std::fs::read(&file).unwrap();
        assert!(crate::fuzz::broker(&seed), "{} is refused", file.display());
        for at in 0..seed.len() {
            crate::fuzz::broker(&seed[..at]);
            for value in [0, 1, 0x10, 0x7f, 0xff, seed[at].wrapping_add(1), seed[at] ^ 0x80] {
                let mut changed = seed.clone();
                changed[at] = value;
                crate::fuzz::broker(&changed);
            }
        }
    }
}
