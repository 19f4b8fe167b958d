//! Streams: a scheduler of operations with CUDA's ordering rules.
//!
//! One [`Scheduler`] per worker. Each stream is a queue of entries numbered from 1; an entry becomes runnable when it is the head of its
//! queue and everything it depends on has completed. A dependency is a pair (stream, number), so events need no state of their own
//! beyond the pair they captured.
//!
//! * The legacy default stream of a context waits for all work issued earlier to the context's blocking streams, and blocking streams
//!   wait for the legacy stream's earlier work. Non-blocking streams take part in neither.
//! * Entries run on a pool of executor threads that grows with the number of streams that are runnable at the same time. A thread that
//!   waits for a stream runs that stream's entries itself instead of sleeping.
//! * After a fault a context is *poisoned*: entries that are still queued complete without running.
//!
//! Locks: the one mutex of the scheduler is held for queue bookkeeping only, never while an entry runs. No other lock is taken under it.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, Thread};
use std::time::Duration;

use slotmap::{SlotMap, new_key_type};

new_key_type! {
    /// Identity of a stream in its scheduler.
    pub struct StreamKey;
    /// Identity of a context in its scheduler.
    pub struct ContextKey;
}

/// A point in a stream: all entries up to and including `seq`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticket {
    pub stream: StreamKey,
    pub seq: u64,
}

/// Work of one entry. Runs without the scheduler's lock; `skip` is set when the context is poisoned and only bookkeeping may be done.
pub type Work = Box<dyn FnOnce(bool) + Send>;

/// The executor threads never exceed this number: streams beyond it wait for a free thread.
const MAX_EXECUTORS: usize = 128;

/// A stream holds at most this many entries; who adds more waits, as with a GPU's queues.
const MAX_QUEUED: usize = 4096;

/// Executors that have had nothing to do for this long end.
const EXECUTOR_IDLE: Duration = Duration::from_secs(10);

struct Entry {
    deps: Vec<Ticket>,
    work: Option<Work>,
}

enum Waiter {
    Stream(StreamKey),
    Thread(Thread),
}

struct StreamState {
    context: ContextKey,
    blocking: bool,
    queue: VecDeque<Entry>,
    submitted: u64,
    completed: u64,
    running: bool,
    closed: bool,
    waiters: Vec<(u64, Waiter)>,
}

struct ContextState {
    legacy: StreamKey,
    streams: Vec<StreamKey>,
    poison: Arc<AtomicU32>,
}

#[derive(Default)]
struct State {
    streams: SlotMap<StreamKey, StreamState>,
    contexts: SlotMap<ContextKey, ContextState>,
    ready: VecDeque<StreamKey>,
    executors: usize,
    idle: usize,
}

/// Runs the operations of all streams of a worker.
pub struct Scheduler {
    state: Mutex<State>,
    work: Condvar,
}

impl Scheduler {
    /// A scheduler without streams; executor threads are started when they are needed.
    pub fn new() -> Arc<Self> {
        Arc::new(Self { state: Mutex::default(), work: Condvar::new() })
    }

    // The state is consistent between statements that can panic, so a poisoned mutex carries no broken invariant.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a context with its legacy default stream. A nonzero value in `poison` makes all its queued entries complete without running.
    pub fn add_context(&self, poison: Arc<AtomicU32>) -> (ContextKey, StreamKey) {
        let mut state = self.lock();
        let context =
            state.contexts.insert(ContextState { legacy: StreamKey::default(), streams: Vec::new(), poison });
        // The legacy stream is not listed among the blocking streams: it is their counterpart.
        let legacy = state.streams.insert(StreamState::new(context, false));
        state.contexts[context].legacy = legacy;
        (context, legacy)
    }

    /// Adds a stream; `None` if the context is gone.
    pub fn add_stream(&self, context: ContextKey, blocking: bool) -> Option<StreamKey> {
        let mut state = self.lock();
        if !state.contexts.contains_key(context) {
            return None;
        }
        let key = state.streams.insert(StreamState::new(context, blocking));
        state.contexts[context].streams.push(key);
        Some(key)
    }

    /// The stream is forgotten when its queued work is done.
    pub fn close_stream(&self, stream: StreamKey) {
        let mut state = self.lock();
        if let Some(s) = state.streams.get_mut(stream) {
            s.closed = true;
            state.remove_if_drained(stream);
        }
    }

    /// Forgets a context and its streams when their queued work is done.
    pub fn close_context(&self, context: ContextKey) {
        let mut state = self.lock();
        let Some(c) = state.contexts.remove(context) else { return };
        for key in c.streams.into_iter().chain([c.legacy]) {
            if let Some(s) = state.streams.get_mut(key) {
                s.closed = true;
                state.remove_if_drained(key);
            }
        }
    }

    /// Waits until the stream has room for another entry. Other threads may take it meanwhile: the bound is soft.
    pub fn wait_for_room(self: &Arc<Self>, stream: StreamKey) {
        loop {
            let ticket = match self.lock().streams.get(stream) {
                // When full, until half of it is done: not a wake-up per entry.
                Some(s) if s.queue.len() >= MAX_QUEUED => {
                    Ticket { stream, seq: s.submitted - (MAX_QUEUED / 2) as u64 }
                }
                _ => return,
            };
            self.wait(ticket);
        }
    }

    /// Appends work to a stream, for an executor to run. `deps` are waited for in addition to what the stream rules demand. `None` if
    /// the stream is gone.
    pub fn submit(
        self: &Arc<Self>,
        stream: StreamKey,
        deps: Vec<Ticket>,
        work: Option<Work>,
    ) -> Option<Ticket> {
        let (mut state, ticket, runnable) = self.enqueue(stream, deps, work)?;
        if runnable {
            state.ready.push_back(stream);
            self.wake_executor(state);
        }
        Some(ticket)
    }

    /// As [`submit`](Self::submit), but runs the work on the calling thread if nothing is before it: for short work.
    pub fn submit_short(
        self: &Arc<Self>,
        stream: StreamKey,
        deps: Vec<Ticket>,
        work: Option<Work>,
    ) -> Option<Ticket> {
        let (state, ticket, runnable) = self.enqueue(stream, deps, work)?;
        if runnable {
            self.run_head(state, stream, Some(ticket));
        }
        Some(ticket)
    }

    fn enqueue(
        &self,
        stream: StreamKey,
        mut deps: Vec<Ticket>,
        work: Option<Work>,
    ) -> Option<(MutexGuard<'_, State>, Ticket, bool)> {
        let mut state = self.lock();
        state.implicit_deps(stream, &mut deps)?;
        let s = state.streams.get_mut(stream)?;
        s.submitted += 1;
        let seq = s.submitted;
        s.queue.push_back(Entry { deps, work });
        let head = s.queue.len() == 1 && !s.running;
        let runnable = head && state.is_runnable(stream);
        Some((state, Ticket { stream, seq }, runnable))
    }

    /// Appends work and waits for it, running it on the calling thread when nothing is before it. `false` if the stream is gone.
    pub fn run(self: &Arc<Self>, stream: StreamKey, work: Work) -> bool {
        match self.submit_short(stream, Vec::new(), Some(work)) {
            Some(ticket) => {
                self.wait(ticket);
                true
            }
            None => false,
        }
    }

    /// Points that have all work of the stream so far behind them, as far as it has not completed; for a legacy stream also the work
    /// of the streams that it would wait for.
    pub fn covering(&self, stream: StreamKey) -> Vec<Ticket> {
        let state = self.lock();
        let Some(s) = state.streams.get(stream) else { return Vec::new() };
        let mut tickets = Vec::new();
        if s.pending() {
            tickets.push(Ticket { stream, seq: s.submitted });
        }
        if let Some(context) = state.contexts.get(s.context).filter(|context| context.legacy == stream) {
            tickets.extend(context.streams.iter().filter_map(|&key| {
                let other = state.streams.get(key)?;
                (other.blocking && other.pending()).then_some(Ticket { stream: key, seq: other.submitted })
            }));
        }
        tickets
    }

    /// Points that have all work of the context so far behind them.
    pub fn tails(&self, context: ContextKey) -> Vec<Ticket> {
        let state = self.lock();
        let Some(c) = state.contexts.get(context) else { return Vec::new() };
        let keys = c.streams.iter().copied().chain([c.legacy]);
        keys.filter_map(|stream| {
            let s = state.streams.get(stream)?;
            (s.completed < s.submitted).then_some(Ticket { stream, seq: s.submitted })
        })
        .collect()
    }

    /// Has everything up to the ticket completed?
    pub fn is_done(&self, ticket: Ticket) -> bool {
        self.lock().is_done(ticket)
    }

    /// Waits until the ticket's work has completed, and runs entries of that stream meanwhile.
    pub fn wait(self: &Arc<Self>, ticket: Ticket) {
        loop {
            let mut state = self.lock();
            if state.is_done(ticket) {
                return;
            }
            // Work before the ticket may be blocked by another stream, which this thread can advance just as well.
            if let Some(needed) = state.find_runnable(ticket) {
                self.run_head(state, needed.stream, Some(needed));
                continue;
            }
            let Some(s) = state.streams.get_mut(ticket.stream) else { return };
            s.waiters.push((ticket.seq, Waiter::Thread(thread::current())));
            drop(state);
            thread::park();
        }
    }

    /// Waits for all work of the context.
    pub fn wait_context(self: &Arc<Self>, context: ContextKey) {
        for ticket in self.tails(context) {
            self.wait(ticket);
        }
    }

    fn wake_executor(self: &Arc<Self>, mut state: MutexGuard<'_, State>) {
        if state.idle > 0 {
            drop(state);
            self.work.notify_one();
        } else if state.executors < MAX_EXECUTORS {
            state.executors += 1;
            drop(state);
            let this = Arc::clone(self);
            let started = thread::Builder::new().name("stream".into()).spawn(move || this.executor());
            if let Err(error) = started {
                tracing::error!(%error, "cannot start a stream thread");
                self.lock().executors -= 1;
            }
        }
    }

    fn executor(self: Arc<Self>) {
        let mut state = self.lock();
        loop {
            if let Some(stream) = state.ready.pop_front() {
                if state.is_runnable(stream) {
                    self.run_head(state, stream, None);
                    state = self.lock();
                }
                continue;
            }
            state.idle += 1;
            let (guard, timeout) =
                self.work.wait_timeout(state, EXECUTOR_IDLE).unwrap_or_else(PoisonError::into_inner);
            state = guard;
            state.idle -= 1;
            if timeout.timed_out() && state.ready.is_empty() {
                state.executors -= 1;
                return;
            }
        }
    }

    /// Runs the head entry of a runnable stream, and further ones as long as they are runnable at once; not beyond `until`, so that a
    /// thread that helps is not kept by later work.
    fn run_head<'a>(
        self: &'a Arc<Self>,
        mut state: MutexGuard<'a, State>,
        stream: StreamKey,
        until: Option<Ticket>,
    ) {
        loop {
            let s = &mut state.streams[stream];
            s.running = true;
            let work = s.queue.front_mut().and_then(|entry| entry.work.take());
            let context = s.context;
            // A context that is being destroyed has been waited for; what is left in its streams is skipped.
            let skip = state.contexts.get(context).is_none_or(|c| c.poison.load(Ordering::Acquire) != 0);
            if let Some(work) = work {
                drop(state);
                let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| work(skip)));
                if result.is_err() {
                    tracing::error!("a stream operation panicked");
                }
                state = self.lock();
            }
            let s = &mut state.streams[stream];
            s.running = false;
            s.queue.pop_front();
            s.completed += 1;
            let completed = s.completed;
            let mut woken = Vec::new();
            s.waiters.retain_mut(|(seq, waiter)| {
                if *seq > completed {
                    return true;
                }
                woken.push(match waiter {
                    Waiter::Stream(key) => Waiter::Stream(*key),
                    Waiter::Thread(thread) => Waiter::Thread(thread.clone()),
                });
                false
            });
            let own = state.is_runnable(stream);
            let mut released = 0;
            for waiter in woken {
                match waiter {
                    Waiter::Stream(key) => {
                        if state.is_runnable(key) {
                            state.ready.push_back(key);
                            released += 1;
                        }
                    }
                    Waiter::Thread(thread) => thread.unpark(),
                }
            }
            state.remove_if_drained(stream);
            for _ in 0..released {
                self.wake_executor(state);
                state = self.lock();
            }
            // Another thread may have taken the stream over while the lock was released.
            if !own || !state.is_runnable(stream) {
                return;
            }
            if until.is_some_and(|ticket| state.is_done(ticket)) {
                state.ready.push_back(stream);
                self.wake_executor(state);
                return;
            }
        }
    }
}

impl StreamState {
    fn new(context: ContextKey, blocking: bool) -> Self {
        Self {
            context,
            blocking,
            queue: VecDeque::new(),
            submitted: 0,
            completed: 0,
            running: false,
            closed: false,
            waiters: Vec::new(),
        }
    }

    fn pending(&self) -> bool {
        self.completed < self.submitted
    }
}

impl State {
    /// Adds the dependencies that follow from the rules of the legacy default stream.
    fn implicit_deps(&self, stream: StreamKey, deps: &mut Vec<Ticket>) -> Option<()> {
        let s = self.streams.get(stream)?;
        let Some(context) = self.contexts.get(s.context) else { return Some(()) };
        if stream == context.legacy {
            for &key in &context.streams {
                if let Some(other) = self.streams.get(key)
                    && other.blocking
                    && other.pending()
                {
                    deps.push(Ticket { stream: key, seq: other.submitted });
                }
            }
        } else if s.blocking
            && let Some(legacy) = self.streams.get(context.legacy)
            && legacy.pending()
        {
            deps.push(Ticket { stream: context.legacy, seq: legacy.submitted });
        }
        deps.retain(|dep| !self.is_done(*dep));
        Some(())
    }

    fn is_done(&self, ticket: Ticket) -> bool {
        self.streams.get(ticket.stream).is_none_or(|s| s.completed >= ticket.seq)
    }

    /// Can the stream's head run now? If not, and something else must complete first, the stream is entered among its waiters.
    fn is_runnable(&mut self, stream: StreamKey) -> bool {
        let Some(s) = self.streams.get_mut(stream) else { return false };
        if s.running {
            return false;
        }
        let Some(head) = s.queue.front_mut() else { return false };
        let deps = std::mem::take(&mut head.deps);
        let open: Vec<Ticket> = deps.into_iter().filter(|dep| !self.is_done(*dep)).collect();
        let runnable = open.is_empty();
        if let Some(first) = open.first()
            && let Some(blocker) = self.streams.get_mut(first.stream)
        {
            let already = blocker.waiters.iter().any(|(seq, waiter)| {
                *seq == first.seq && matches!(waiter, Waiter::Stream(key) if *key == stream)
            });
            if !already {
                blocker.waiters.push((first.seq, Waiter::Stream(stream)));
            }
        }
        if let Some(head) = self.streams[stream].queue.front_mut() {
            head.deps = open;
        }
        runnable
    }

    /// A stream that can run now, and the point up to which its progress is needed for the ticket.
    fn find_runnable(&mut self, ticket: Ticket) -> Option<Ticket> {
        let mut needed = ticket;
        // Each step follows one dependency; the bound only guards against a cycle, which submission order excludes.
        for _ in 0..64 {
            if self.is_runnable(needed.stream) {
                return Some(needed);
            }
            let s = self.streams.get(needed.stream)?;
            if s.running {
                return None;
            }
            needed = *s.queue.front()?.deps.first()?;
        }
        None
    }

    fn remove_if_drained(&mut self, stream: StreamKey) {
        let Some(s) = self.streams.get(stream) else { return };
        if s.closed && !s.running && s.queue.is_empty() {
            let context = s.context;
            self.streams.remove(stream);
            if let Some(c) = self.contexts.get_mut(context) {
                c.streams.retain(|key| *key != stream);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    fn fixture() -> (Arc<Scheduler>, ContextKey, StreamKey, Arc<AtomicU32>) {
        let scheduler = Scheduler::new();
        let poison = Arc::new(AtomicU32::new(0));
        let (context, legacy) = scheduler.add_context(Arc::clone(&poison));
        (scheduler, context, legacy, poison)
    }

    /// Work that reports `name` when it ends, after `gate` has been opened.
    fn gated(log: &Arc<Mutex<Vec<&'static str>>>, name: &'static str) -> (Work, mpsc::Sender<()>) {
        let (open, gate) = mpsc::channel::<()>();
        let log = Arc::clone(log);
        let work: Work = Box::new(move |_| {
            let _ = gate.recv();
            log.lock().unwrap().push(name);
        });
        (work, open)
    }

    fn plain(log: &Arc<Mutex<Vec<&'static str>>>, name: &'static str) -> Option<Work> {
        let log = Arc::clone(log);
        Some(Box::new(move |_| log.lock().unwrap().push(name)))
    }

    #[test]
    fn a_stream_runs_in_order() {
        let (scheduler, context, ..) = fixture();
        let stream = scheduler.add_stream(context, true).unwrap();
        let log = Arc::default();
        let (work, open) = gated(&log, "first");
        scheduler.submit(stream, vec![], Some(work)).unwrap();
        let last = scheduler.submit(stream, vec![], plain(&log, "second")).unwrap();
        assert!(!scheduler.is_done(last));
        open.send(()).unwrap();
        scheduler.wait(last);
        assert_eq!(*log.lock().unwrap(), ["first", "second"]);
    }

    #[test]
    fn legacy_waits_for_blocking_streams_and_holds_them_back() {
        let (scheduler, context, legacy, _) = fixture();
        let a = scheduler.add_stream(context, true).unwrap();
        let b = scheduler.add_stream(context, true).unwrap();
        let log = Arc::default();
        let (work, open) = gated(&log, "a");
        scheduler.submit(a, vec![], Some(work)).unwrap();
        let on_legacy = scheduler.submit(legacy, vec![], plain(&log, "legacy")).unwrap();
        let on_b = scheduler.submit(b, vec![], plain(&log, "b")).unwrap();
        assert!(!scheduler.is_done(on_legacy));
        assert!(!scheduler.is_done(on_b));
        open.send(()).unwrap();
        scheduler.wait(on_b);
        assert_eq!(*log.lock().unwrap(), ["a", "legacy", "b"]);
    }

    #[test]
    fn non_blocking_streams_ignore_the_legacy_stream() {
        let (scheduler, context, legacy, _) = fixture();
        let free = scheduler.add_stream(context, false).unwrap();
        let log = Arc::default();
        let (work, open) = gated(&log, "legacy");
        let held = scheduler.submit(legacy, vec![], Some(work)).unwrap();
        let ticket = scheduler.submit(free, vec![], plain(&log, "free")).unwrap();
        scheduler.wait(ticket);
        assert!(!scheduler.is_done(held));
        open.send(()).unwrap();
        scheduler.wait(held);
        assert_eq!(*log.lock().unwrap(), ["free", "legacy"]);
    }

    #[test]
    fn streams_run_side_by_side() {
        let (scheduler, context, ..) = fixture();
        let a = scheduler.add_stream(context, true).unwrap();
        let b = scheduler.add_stream(context, true).unwrap();
        let (to_b, from_a) = mpsc::channel();
        let (to_a, from_b) = mpsc::channel();
        // Each needs the other to be running.
        scheduler
            .submit(a, vec![], Some(Box::new(move |_| (to_b.send(()), from_b.recv()).1.unwrap())))
            .unwrap();
        let last = scheduler
            .submit(b, vec![], Some(Box::new(move |_| (to_a.send(()), from_a.recv()).1.unwrap())))
            .unwrap();
        scheduler.wait(last);
        scheduler.wait_context(context);
    }

    #[test]
    fn explicit_dependencies_cross_streams() {
        let (scheduler, context, ..) = fixture();
        let a = scheduler.add_stream(context, false).unwrap();
        let b = scheduler.add_stream(context, false).unwrap();
        let log = Arc::default();
        let (work, open) = gated(&log, "a");
        let on_a = scheduler.submit(a, vec![], Some(work)).unwrap();
        scheduler.submit(b, vec![on_a], None).unwrap();
        let on_b = scheduler.submit(b, vec![], plain(&log, "b")).unwrap();
        open.send(()).unwrap();
        scheduler.wait(on_b);
        assert_eq!(*log.lock().unwrap(), ["a", "b"]);
    }

    #[test]
    fn a_closed_stream_finishes_its_work_and_disappears() {
        let (scheduler, context, ..) = fixture();
        let stream = scheduler.add_stream(context, true).unwrap();
        let log = Arc::default();
        let (work, open) = gated(&log, "late");
        let ticket = scheduler.submit(stream, vec![], Some(work)).unwrap();
        scheduler.close_stream(stream);
        assert!(!scheduler.is_done(ticket));
        open.send(()).unwrap();
        scheduler.wait(ticket);
        assert_eq!(*log.lock().unwrap(), ["late"]);
        assert!(scheduler.submit(stream, vec![], None).is_none());
        assert!(scheduler.lock().contexts[context].streams.is_empty());
    }

    #[test]
    fn a_full_stream_holds_back_who_adds_to_it() {
        let (scheduler, context, ..) = fixture();
        let stream = scheduler.add_stream(context, true).unwrap();
        let log = Arc::default();
        let (work, open) = gated(&log, "first");
        scheduler.submit(stream, vec![], Some(work)).unwrap();
        let first = Ticket { stream, seq: 1 };
        for _ in 1..MAX_QUEUED {
            scheduler.wait_for_room(stream);
            scheduler.submit(stream, vec![], None).unwrap();
        }
        thread::scope(|scope| {
            let waiting = scope.spawn(|| scheduler.wait_for_room(stream));
            thread::yield_now();
            assert!(!waiting.is_finished() && !scheduler.is_done(first));
            open.send(()).unwrap();
        });
        assert!(scheduler.is_done(first));
    }

    #[test]
    fn poison_skips_queued_work() {
        let (scheduler, context, legacy, poison) = fixture();
        poison.store(700, Ordering::Release);
        let (tell, told) = mpsc::channel();
        scheduler.run(legacy, Box::new(move |skip| tell.send(skip).unwrap()));
        assert!(told.recv().unwrap());
        scheduler.close_context(context);
        assert!(scheduler.submit(legacy, vec![], None).is_none());
    }

    #[test]
    fn many_streams_and_threads_complete_everything_once() {
        let (scheduler, context, legacy, _) = fixture();
        let count = Arc::new(AtomicU32::new(0));
        thread::scope(|scope| {
            for _ in 0..4 {
                let (scheduler, count) = (&scheduler, &count);
                scope.spawn(move || {
                    let own = scheduler.add_stream(context, true).unwrap();
                    for i in 0..200 {
                        let count = Arc::clone(count);
                        let target = if i % 7 == 0 { legacy } else { own };
                        let ticket = scheduler
                            .submit(
                                target,
                                vec![],
                                Some(Box::new(move |_| {
                                    count.fetch_add(1, Ordering::Relaxed);
                                })),
                            )
                            .unwrap();
                        if i % 50 == 0 {
                            scheduler.wait(ticket);
                        }
                    }
                });
            }
        });
        scheduler.wait_context(context);
        assert_eq!(count.load(Ordering::Relaxed), 800);
    }
}
