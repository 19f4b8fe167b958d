//! The state machine against a model of the host: random programs, a host that answers late or never, connections that break at any point.
#![allow(unsafe_code)] // Stands in for the kernel's allocator.

use std::alloc::Layout;
use std::cell::Cell;
use std::collections::BTreeMap;
use std::vec::Vec;

use proptest::prelude::*;

use crate::account::{Charge, Limits};
use crate::errno::*;
use crate::memory::{KVec, Slab};
use crate::region::{ExtentBuilder, enclosing_pages};
use crate::state::State;
use crate::wire::*;

std::thread_local! {
    /// Allocations of this thread that were not freed.
    static LIVE: Cell<i64> = const { Cell::new(0) };
    /// Allocations that still succeed.
    static LEFT: Cell<u64> = const { Cell::new(u64::MAX) };
}

#[unsafe(no_mangle)]
extern "C" fn broker_alloc(len: usize) -> *mut u8 {
    let left = LEFT.get();
    if left == 0 {
        return std::ptr::null_mut();
    }
    LEFT.set(left - 1);
    LIVE.set(LIVE.get() + 1);
    let layout = Layout::from_size_align(len + 16, 16).unwrap();
    // SAFETY: the layout is not empty; its size is kept in front of what is returned.
    unsafe {
        let at = std::alloc::alloc(layout);
        at.cast::<usize>().write(len + 16);
        at.add(16)
    }
}

#[unsafe(no_mangle)]
extern "C" fn broker_free(at: *mut u8) {
    LIVE.set(LIVE.get() - 1);
    // SAFETY: `at` came from broker_alloc, which put the size 16 bytes before it.
    unsafe {
        let at = at.sub(16);
        let len = at.cast::<usize>().read();
        std::alloc::dealloc(at, Layout::from_size_align(len, 16).unwrap());
    }
}

const LIMITS: Limits =
    Limits { total: 64, user: 48, process: 32, region: 16, user_sessions: 4, session_regions: 8 };
const WELCOME: Welcome =
    Welcome { version: VERSION, max_sessions: 6, max_regions: 6, max_extents: 12, max_region_bytes: 1 << 40 };

fn send(state: &mut State) -> Option<Vec<u8>> {
    let announced = state.has_message();
    let mut out = std::vec![0; MAX_MESSAGE];
    let len = state.next_message(&mut out)?;
    assert!(announced, "the sender would have slept");
    out.truncate(len);
    Some(out)
}

fn parse(bytes: &[u8]) -> GuestMessage<'_> {
    let (header, body) = bytes.split_first_chunk().unwrap();
    let header = Header::decode(header).unwrap();
    assert_eq!(header.len, body.len());
    GuestMessage::decode(header.kind, body).unwrap()
}

fn up(state: &mut State) {
    state.connected();
    assert!(matches!(parse(&send(state).unwrap()), GuestMessage::Hello(_)));
    state.receive(HostMessage::Welcome(WELCOME)).unwrap();
}

fn ready(state: &mut State, uid: u32, process: u64) -> u64 {
    let session = state.open(uid, 1, process, [7, 8]).unwrap();
    let GuestMessage::SessionBegin(begin) = parse(&send(state).unwrap()) else { panic!() };
    assert_eq!((begin.session, begin.cookie, begin.uid), (session, [7, 8], uid));
    state.receive(HostMessage::SessionBegun { session, code: Code::OK }).unwrap();
    assert_eq!(state.ready(session), Ok(true));
    session
}

fn extents(pages: u64, apart: bool) -> ExtentBuilder {
    let mut builder = ExtentBuilder::new();
    for page in 0..pages {
        builder.push(Extent { gpa: page * PAGE_SIZE * if apart { 2 } else { 1 }, len: PAGE_SIZE }).unwrap();
    }
    builder
}

fn region(state: &mut State, session: u64, pages: u64, mark: usize) -> (u64, Charge) {
    let (region, charge) = state.reserve(session, RegionKind::PINNED, pages * PAGE_SIZE).unwrap();
    state.publish(region, mark, extents(pages, true)).unwrap();
    (region, charge)
}

#[test]
fn neighbours_become_one_extent() {
    let build = |pages: &[u64]| {
        let mut builder = ExtentBuilder::new();
        pages.iter().for_each(|page| builder.push(Extent { gpa: page * 4096, len: 4096 }).unwrap());
        builder.finish().map(|(extents, sum)| (extents.as_slice().to_vec(), sum / 4096))
    };
    let extent = |page: u64, pages: u64| Extent { gpa: page * 4096, len: pages * 4096 };
    assert_eq!(build(&[512, 513, 514]), Ok((std::vec![extent(512, 3)], 3)));
    // Backwards and twice are legal and stay apart: a program may map one page at two places.
    assert_eq!(build(&[5, 4, 4, 5]), Ok((std::vec![extent(5, 1), extent(4, 1), extent(4, 2)], 4)));
    assert_eq!(build(&[]), Err(EINVAL));
    assert_eq!(ExtentBuilder::new().push(Extent { gpa: 1, len: 4096 }), Err(EINVAL));
    assert_eq!(ExtentBuilder::new().push(Extent { gpa: u64::MAX - 4095, len: 4096 }), Err(EINVAL));
}

#[test]
fn ranges_give_the_pages_around_them() {
    assert_eq!(enclosing_pages(0x1003, 1, 9), Ok((0x1000, 1, 3)));
    assert_eq!(enclosing_pages(0x1fff, 2, 9), Ok((0x1000, 2, 0xfff)));
    assert_eq!(enclosing_pages(0x1000, 0x9000, 9), Ok((0x1000, 9, 0)));
    assert_eq!(enclosing_pages(0x1001, 0x9000, 9), Err(E2BIG));
    assert_eq!(enclosing_pages(0, u64::MAX, u64::MAX), Ok((0, 1 << 52, 0)));
    assert_eq!(enclosing_pages(5, 0, 9), Err(EINVAL));
    assert_eq!(enclosing_pages(u64::MAX, 2, 9), Err(EINVAL));
}

#[test]
fn a_region_lives_and_goes() {
    let mut state = State::new(LIMITS, [1, 2]);
    assert_eq!(state.open(1, 1, 1, [0, 0]), Err(ENXIO));
    up(&mut state);
    let session = ready(&mut state, 1000, 1);
    let (id, charge) = region(&mut state, session, 4, 77);
    assert_eq!(state.added(session, id), Ok(false));
    let bytes = send(&mut state).unwrap();
    let GuestMessage::RegionAdd(add) = parse(&bytes) else { panic!() };
    assert_eq!((add.session, add.region, add.len, add.extents_total, add.first), (session, id, 16384, 4, 0));
    let name = RegionName { session, region: id };
    state.receive(HostMessage::RegionAdded { name, code: Code::OK }).unwrap();
    assert_eq!(state.added(session, id), Ok(true));
    assert_eq!(state.region_info(session, id).unwrap().state, 1);
    // The host may not give up what it was not asked for.
    assert_eq!(state.receive(HostMessage::RegionReleased(name)), Err(EPROTO));
    state.remove(session, id, 5).unwrap();
    assert_eq!(state.receive(HostMessage::RegionReleased(name)), Err(EPROTO));
    assert_eq!(parse(&send(&mut state).unwrap()), GuestMessage::RegionRemove(name));
    assert_eq!((state.take_dead(), state.released(session, id)), (None, Ok(false)));
    assert_eq!(state.overdue(14, 10).regions, 0);
    assert_eq!((state.overdue(15, 10).regions, state.overdue(16, 10).regions), (1, 0));
    state.receive(HostMessage::RegionReleased(name)).unwrap();
    assert_eq!(
        (state.released(session, id), state.take_dead(), state.take_dead()),
        (Ok(true), Some(77), None)
    );
    assert_eq!(state.accounts().total(), 4);
    state.accounts_mut().uncharge(charge);
    state.close(session, 0);
    assert_eq!(parse(&send(&mut state).unwrap()), GuestMessage::SessionEnd(session));
    state.receive(HostMessage::SessionReleased(session)).unwrap();
    assert_eq!((state.counts(), state.accounts().in_use(), state.accounts().total()), ((0, 0), 0, 0));
}

#[test]
fn killed_in_the_middle_of_a_copy() {
    let mut state = State::new(LIMITS, [1, 2]);
    up(&mut state);
    let session = ready(&mut state, 1000, 1);
    let (id, charge) = region(&mut state, session, 4, 77);
    send(&mut state).unwrap();
    let name = RegionName { session, region: id };
    state.receive(HostMessage::RegionAdded { name, code: Code::OK }).unwrap();
    state.close(session, 0);
    assert_eq!(state.ready(session), Err(EBADF));
    assert_eq!(parse(&send(&mut state).unwrap()), GuestMessage::SessionEnd(session));
    assert_eq!(state.take_dead(), None);
    // The host is killed, comes back, and says that nothing of before is in use.
    state.disconnected(0);
    assert_eq!((state.take_dead(), state.overdue(100, 50).waiting), (None, 1));
    state.connected();
    assert_eq!(
        parse(&send(&mut state).unwrap()),
        GuestMessage::Hello(Hello { version: VERSION, instance: [1, 2], held: 1 })
    );
    assert_eq!(state.receive(HostMessage::Fenced), Err(EPROTO));
    state.receive(HostMessage::Welcome(WELCOME)).unwrap();
    assert_eq!(state.take_dead(), None);
    state.receive(HostMessage::Fenced).unwrap();
    assert_eq!((state.take_dead(), state.take_dead()), (Some(77), None));
    assert_eq!(state.receive(HostMessage::Fenced), Err(EPROTO));
    state.accounts_mut().uncharge(charge);
    assert_eq!((state.counts(), state.accounts().in_use()), ((0, 0), 0));
}

#[test]
fn limits_hold() {
    let mut state = State::new(LIMITS, [1, 2]);
    up(&mut state);
    let first = ready(&mut state, 1, 10);
    let add = |state: &mut State, session, pages: u64| {
        state.reserve(session, RegionKind::WINDOW, pages * PAGE_SIZE).map(|(_, charge)| charge)
    };
    assert_eq!(add(&mut state, first, 0), Err(EINVAL));
    assert_eq!(add(&mut state, first, 17), Err(E2BIG));
    assert!(add(&mut state, first, 16).is_ok() && add(&mut state, first, 16).is_ok());
    assert_eq!(add(&mut state, first, 1), Err(EDQUOT), "of the process");
    let same_process = ready(&mut state, 1, 10);
    assert_eq!(add(&mut state, same_process, 1), Err(EDQUOT), "of the process, another session");
    let second = ready(&mut state, 1, 11);
    assert!(add(&mut state, second, 16).is_ok());
    assert_eq!(add(&mut state, second, 1), Err(EDQUOT), "of the user");
    let other = ready(&mut state, 2, 12);
    assert!(add(&mut state, other, 16).is_ok());
    assert_eq!(add(&mut state, other, 1), Err(EDQUOT), "of all");
    ready(&mut state, 1, 13);
    assert_eq!(state.open(1, 1, 14, [0, 0]), Err(EDQUOT));
    ready(&mut state, 3, 14);
    assert_eq!(state.open(3, 1, 14, [0, 0]), Err(EMFILE), "of the host");
}

#[test]
fn windows_are_found_by_their_own_session_alone() {
    let mut state = State::new(LIMITS, [1, 2]);
    up(&mut state);
    let (mine, other) = (ready(&mut state, 1, 10), ready(&mut state, 1, 11));
    let (id, _) = state.reserve(mine, RegionKind::WINDOW, 2 * PAGE_SIZE).unwrap();
    state.publish(id, 5, extents(2, false)).unwrap();
    let offset = id & ((1 << 40) - 1);
    assert_eq!(state.window_at(mine, offset), None, "the host has not answered");
    send(&mut state).unwrap();
    let name = RegionName { session: mine, region: id };
    state.receive(HostMessage::RegionAdded { name, code: Code::OK }).unwrap();
    assert_eq!(state.window_at(mine, offset), Some(5));
    assert_eq!(state.window_at(mine, offset ^ (1 << 39)), None);
    assert_eq!((state.window_at(other, offset), state.remove(other, id, 0)), (None, Err(ENOENT)));
    assert_eq!(state.region_info(other, id), Err(ENOENT));
    state.remove(mine, id, 0).unwrap();
    assert_eq!(state.window_at(mine, offset), None);
}

#[test]
fn large_regions_come_in_parts() {
    let limits = Limits { total: 1 << 20, user: 1 << 20, process: 1 << 20, region: 1 << 20, ..LIMITS };
    let mut state = State::new(limits, [1, 2]);
    state.connected();
    send(&mut state).unwrap();
    state.receive(HostMessage::Welcome(Welcome { max_extents: 2500, ..WELCOME })).unwrap();
    let session = ready(&mut state, 1, 1);
    let (too_many, _) = state.reserve(session, RegionKind::PINNED, 2501 * PAGE_SIZE).unwrap();
    assert_eq!(state.publish(too_many, 1, extents(2501, true)), Err(E2BIG));
    state.abandon(too_many);
    let (id, _) = region(&mut state, session, 2500, 1);
    let mut seen = Vec::new();
    let name = RegionName { session, region: id };
    while let Some(bytes) = send(&mut state) {
        let GuestMessage::RegionAdd(add) = parse(&bytes) else { panic!() };
        assert_eq!(add.first as usize, seen.len());
        seen.extend(add.extents.iter());
        if seen.len() < 2500 {
            assert_eq!(state.receive(HostMessage::RegionAdded { name, code: Code::OK }), Err(EPROTO));
        }
    }
    assert_eq!(seen.len(), 2500);
    assert!(seen.iter().enumerate().all(|(i, extent)| extent.gpa == i as u64 * 8192 && extent.len == 4096));
}

#[test]
fn without_memory_everything_is_as_before() {
    let mut failed = 0;
    for left in 0..40 {
        let before = LIVE.get();
        {
            let mut state = State::new(LIMITS, [1, 2]);
            up(&mut state);
            LEFT.set(left);
            let result = (|| {
                let session = state.open(1, 1, 1, [0, 0])?;
                send(&mut state).unwrap();
                state.receive(HostMessage::SessionBegun { session, code: Code::OK }).unwrap();
                let (id, charge) = state.reserve(session, RegionKind::PINNED, 12 * PAGE_SIZE)?;
                let mut builder = ExtentBuilder::new();
                let built = (0..12).try_for_each(|i| builder.push(Extent { gpa: i << 13, len: PAGE_SIZE }));
                if let Err(error) = built.and_then(|()| state.publish(id, 1, builder)) {
                    state.abandon(id);
                    state.accounts_mut().uncharge(charge);
                    return Err(error);
                }
                Ok(())
            })();
            LEFT.set(u64::MAX);
            match result {
                Ok(()) => assert!(left > 3),
                Err(error) => {
                    assert_eq!(error, ENOMEM);
                    assert_eq!((state.counts().1, state.accounts().total()), (0, 0));
                    failed += 1;
                }
            }
        }
        assert_eq!(LIVE.get(), before);
    }
    assert!(failed > 3);
}

#[test]
fn slabs_use_their_slots_again() {
    let mut slab = Slab::new(3);
    let ids: Vec<u32> = (0..3).map(|i| slab.insert(i).unwrap()).collect();
    assert!(slab.insert(9).is_err());
    assert_eq!((slab.remove(ids[1]), slab.remove(ids[1]), slab.get(ids[1])), (Some(1), None, None));
    assert_eq!(slab.insert(5), Ok(ids[1]));
    assert_eq!((slab.len(), slab.bound(), slab.get(7)), (3, 3, None));
    let mut many = KVec::new();
    (0..1000u64).for_each(|i| many.push(i).unwrap());
    assert!(many.as_slice().iter().copied().eq(0..1000));
}

#[derive(Clone, Debug)]
enum Step {
    Open {
        uid: u32,
        process: u64,
    },
    Close(prop::sample::Index),
    Add {
        session: prop::sample::Index,
        pages: u64,
        window: bool,
    },
    Remove(prop::sample::Index),
    Send,
    /// The host answers its oldest question, maybe with a refusal.
    Answer {
        refuse: bool,
    },
    /// The host stops to use something that it was asked to give up.
    Release(prop::sample::Index),
    Break,
    Connect,
    Fence,
}

fn step() -> impl Strategy<Value = Step> {
    let index = any::<prop::sample::Index>;
    prop_oneof![
        2 => (0u32..3, 0u64..5).prop_map(|(uid, process)| Step::Open { uid, process }),
        1 => index().prop_map(Step::Close),
        6 => (index(), 1u64..6, any::<bool>()).prop_map(|(session, pages, window)| Step::Add { session, pages, window }),
        3 => index().prop_map(Step::Remove),
        9 => Just(Step::Send),
        8 => (0u8..8).prop_map(|n| Step::Answer { refuse: n == 0 }),
        3 => index().prop_map(Step::Release),
        1 => Just(Step::Break),
        2 => Just(Step::Connect),
        1 => Just(Step::Fence),
    ]
}

/// The host, and what the C half would remember.
#[derive(Default)]
struct World {
    /// Pages that the host may use, by mark, and the number of the connection on which they were named.
    known: BTreeMap<usize, u32>,
    epoch: u32,
    /// Mark and charge of every region whose pages were not freed.
    pages: BTreeMap<usize, (u64, u64, Charge)>,
    sessions: Vec<u64>,
    questions: Vec<HostMessage>,
    removals: Vec<HostMessage>,
    connected: bool,
    fenced: bool,
    next_mark: usize,
}

impl World {
    fn mark_of(&self, region: u64) -> usize {
        self.pages.iter().find(|(_, (_, id, _))| *id == region).map(|(mark, _)| *mark).unwrap()
    }

    fn read(&mut self, message: GuestMessage<'_>) {
        match message {
            GuestMessage::Hello(_) => self.questions.push(HostMessage::Welcome(WELCOME)),
            GuestMessage::SessionBegin(begin) => {
                self.questions.push(HostMessage::SessionBegun { session: begin.session, code: Code::OK });
            }
            GuestMessage::RegionAdd(add) => {
                let mark = self.mark_of(add.region);
                self.known.insert(mark, self.epoch);
                let name = RegionName { session: add.session, region: add.region };
                self.questions.push(HostMessage::RegionAdded { name, code: Code::OK });
            }
            GuestMessage::RegionRemove(name) => self.removals.push(HostMessage::RegionReleased(name)),
            GuestMessage::SessionEnd(session) => self.removals.push(HostMessage::SessionReleased(session)),
        }
    }

    /// What the host says is true from when it says it.
    fn apply(&mut self, message: HostMessage) {
        match message {
            HostMessage::RegionReleased(name) | HostMessage::RegionAdded { name, code: Code::LIMIT } => {
                let mark = self.mark_of(name.region);
                self.known.remove(&mark);
            }
            HostMessage::SessionReleased(session) => {
                let gone: Vec<usize> = self
                    .pages
                    .iter()
                    .filter(|(_, (owner, ..))| *owner == session)
                    .map(|(mark, _)| *mark)
                    .collect();
                gone.iter().for_each(|mark| _ = self.known.remove(mark));
                // Single removals that were not answered are answered by this.
                self.removals.retain(|message| !matches!(message, HostMessage::RegionReleased(name) if name.session == session));
                self.questions.retain(|message| !matches!(message, HostMessage::RegionAdded { name, .. } if name.session == session));
            }
            _ => {}
        }
    }

    fn reap(&mut self, state: &mut State) {
        while let Some(mark) = state.take_dead() {
            assert!(!self.known.contains_key(&mark), "pages freed that the host may use");
            let (_, _, charge) = self.pages.remove(&mark).expect("pages freed twice");
            state.accounts_mut().uncharge(charge);
        }
    }

    fn step(&mut self, state: &mut State, step: &Step, now: u64) {
        match step {
            Step::Open { uid, process } => {
                if let Ok(session) = state.open(*uid, 1, *process, [1, 2]) {
                    self.sessions.push(session);
                }
            }
            Step::Close(index) if !self.sessions.is_empty() => {
                let session = self.sessions.remove(index.index(self.sessions.len()));
                state.close(session, now);
                state.close(session, now);
            }
            Step::Add { session, pages, window } if !self.sessions.is_empty() => {
                let session = self.sessions[session.index(self.sessions.len())];
                let kind = if *window { RegionKind::WINDOW } else { RegionKind::PINNED };
                if let Ok((region, charge)) = state.reserve(session, kind, pages * PAGE_SIZE) {
                    self.next_mark += 1;
                    self.pages.insert(self.next_mark, (session, region, charge));
                    state.publish(region, self.next_mark, extents(*pages, *window)).unwrap();
                }
            }
            Step::Remove(index) if !self.pages.is_empty() => {
                let (session, region, _) = *self.pages.values().nth(index.index(self.pages.len())).unwrap();
                let _ = state.remove(session, region, now);
            }
            Step::Send if self.connected => {
                if let Some(bytes) = send(state) {
                    self.read(parse(&bytes));
                }
            }
            Step::Answer { refuse } if !self.questions.is_empty() => {
                let mut message = self.questions.remove(0);
                if *refuse {
                    match &mut message {
                        HostMessage::SessionBegun { code, .. } | HostMessage::RegionAdded { code, .. } => {
                            *code = Code::LIMIT
                        }
                        _ => {}
                    }
                }
                self.apply(message);
                state.receive(message).unwrap();
            }
            // Answers come before what follows from them.
            Step::Release(index) if !self.removals.is_empty() && self.questions.is_empty() => {
                let message = self.removals.remove(index.index(self.removals.len()));
                self.apply(message);
                state.receive(message).unwrap();
            }
            Step::Break if self.connected => {
                self.connected = false;
                self.questions.clear();
                self.removals.clear();
                state.disconnected(now);
            }
            Step::Connect if !self.connected => {
                self.connected = true;
                self.fenced = false;
                self.epoch += 1;
                state.connected();
            }
            Step::Fence if state.is_up() && !self.fenced => {
                self.fenced = true;
                let epoch = self.epoch;
                self.known.retain(|_, named| *named == epoch);
                state.receive(HostMessage::Fenced).unwrap();
            }
            _ => {}
        }
        self.reap(state);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn no_page_is_freed_early_or_twice_or_never(steps in prop::collection::vec(step(), 1..200)) {
        let before = LIVE.get();
        {
            let mut state = State::new(LIMITS, [1, 2]);
            let mut world = World { connected: true, ..World::default() };
            state.connected();
            for (now, step) in steps.iter().enumerate() {
                world.step(&mut state, step, now as u64);
                let charged: u64 = world.pages.values().map(|(_, _, charge)| charge.pages()).sum();
                prop_assert_eq!(state.accounts().total(), charged);
                prop_assert!(charged <= LIMITS.total);
            }
            // In the end every program goes, the connection breaks and comes back, and everything is fenced.
            for session in std::mem::take(&mut world.sessions) {
                state.close(session, 0);
            }
            if world.connected {
                world.step(&mut state, &Step::Break, 0);
            }
            world.step(&mut state, &Step::Connect, 0);
            world.step(&mut state, &Step::Send, 0);
            world.step(&mut state, &Step::Answer { refuse: false }, 0);
            world.known.clear();
            state.receive(HostMessage::Fenced).unwrap();
            world.reap(&mut state);
            prop_assert_eq!(state.counts(), (0, 0));
            prop_assert_eq!((state.accounts().in_use(), world.pages.len()), (0, 0));
        }
        prop_assert_eq!(LIVE.get(), before);
    }

    #[test]
    fn a_host_that_says_anything_frees_nothing_that_it_may_use(
        steps in prop::collection::vec(step(), 1..60),
        lies in prop::collection::vec((0usize..60, 0u64..12, 0u64..40, 0u8..6), 0..10),
    ) {
        let mut state = State::new(LIMITS, [1, 2]);
        let mut world = World { connected: true, ..World::default() };
        state.connected();
        for (now, step) in steps.iter().enumerate() {
            for (_, session, region, kind) in lies.iter().filter(|(at, ..)| *at == now) {
                let session = world.sessions.get(*session as usize).copied().unwrap_or(*session);
                let region = world.pages.values().nth(*region as usize).map_or(*region, |(_, id, _)| *id);
                let name = RegionName { session, region };
                // Only those that are no legal answers now: the model stays right.
                let message = match kind {
                    0 => HostMessage::Welcome(WELCOME),
                    1 => HostMessage::SessionReleased(session),
                    2 => HostMessage::RegionReleased(name),
                    3 => HostMessage::Refused(Code::BUSY),
                    _ => continue,
                };
                if world.questions.contains(&message) || world.removals.contains(&message) || !state.is_up() {
                    continue;
                }
                prop_assert_eq!(state.receive(message), Err(EPROTO));
            }
            world.step(&mut state, step, now as u64);
        }
    }
}
