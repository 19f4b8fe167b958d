//! Streams and events as the driver API has them, on top of the [scheduler](super::sched).

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Instant;

use protocol::status::{CuResult, Status};

use super::CpuBackend;
use super::context::Live;
use super::sched::{StreamKey, Ticket, Work};
use crate::session::Call;
use crate::worker::handles::NotNamed;

/// `CU_STREAM_LEGACY`
const LEGACY: u64 = 1;
/// `CU_STREAM_PER_THREAD`
const PER_THREAD: u64 = 2;
/// `CU_STREAM_NON_BLOCKING`
const NON_BLOCKING: u32 = 1;
/// Priorities: 0 is the least, more negative is more urgent. Accepted and remembered; the CPU has one queue.
pub const GREATEST_PRIORITY: i32 = -5;

/// `CU_EVENT_DISABLE_TIMING`
const DISABLE_TIMING: u32 = 2;
/// `CU_EVENT_BLOCKING_SYNC | CU_EVENT_DISABLE_TIMING | CU_EVENT_INTERPROCESS`
const EVENT_FLAGS: u32 = 7;
/// `CU_EVENT_INTERPROCESS`
const INTERPROCESS: u32 = 4;

/// A stream that the program created.
pub struct Stream {
    pub key: StreamKey,
    pub live: Arc<Live>,
    pub flags: u32,
    pub priority: i32,
}

/// An event.
pub struct Event {
    pub live: Arc<Live>,
    flags: u32,
    record: Mutex<Option<Record>>,
}

/// The latest `cuEventRecord`.
#[derive(Clone)]
struct Record {
    ticket: Ticket,
    reached: Arc<OnceLock<Instant>>,
}

/// Where work goes: a stream and the context that it belongs to.
#[derive(Clone)]
pub struct Target {
    pub key: StreamKey,
    pub live: Arc<Live>,
    /// Handle and properties of a created stream.
    pub stream: Option<Arc<Stream>>,
}

fn new_event(live: Arc<Live>, flags: u32) -> CuResult<Arc<Event>> {
    if flags & !EVENT_FLAGS != 0 || (flags & INTERPROCESS != 0 && flags & DISABLE_TIMING == 0) {
        return Err(Status::INVALID_VALUE);
    }
    Ok(Arc::new(Event { live, flags, record: Mutex::default() }))
}

impl CpuBackend {
    /// The stream of a handle, for a call of this lane.
    ///
    /// # Errors
    /// No current context, its sticky error, or `INVALID_HANDLE`.
    pub fn target(&self, call: &Call<'_>, handle: u64) -> CuResult<Target> {
        let live = self.live(call)?;
        match handle {
            0 | LEGACY => Ok(Target { key: live.legacy, live, stream: None }),
            PER_THREAD => {
                Ok(Target { key: live.per_thread(&self.scheduler, call.lane.id)?, live, stream: None })
            }
            _ => {
                let stream = self.handles.get::<Stream>(handle).map_err(|_| Status::INVALID_HANDLE)?;
                stream.live.check()?;
                Ok(Target { key: stream.key, live: Arc::clone(&stream.live), stream: Some(stream) })
            }
        }
    }

    /// Queues work that takes long or may block.
    ///
    /// # Errors
    /// The stream is gone.
    pub fn submit(&self, target: &Target, deps: Vec<Ticket>, work: Work) -> CuResult<Ticket> {
        self.scheduler.wait_for_room(target.key);
        self.scheduler.submit(target.key, deps, Some(work)).ok_or(Status::CONTEXT_IS_DESTROYED)
    }

    /// Queues short work; it runs at once if nothing is before it.
    ///
    /// # Errors
    /// The stream is gone.
    pub fn submit_short(&self, target: &Target, deps: Vec<Ticket>, work: Option<Work>) -> CuResult<Ticket> {
        self.scheduler.wait_for_room(target.key);
        self.scheduler.submit_short(target.key, deps, work).ok_or(Status::CONTEXT_IS_DESTROYED)
    }

    pub(super) fn stream_create(
        &self,
        call: &Call<'_>,
        out: Option<&mut u64>,
        flags: u32,
        priority: i32,
    ) -> CuResult {
        let live = self.live(call)?;
        let out = out.ok_or(Status::INVALID_VALUE)?;
        if flags & !NON_BLOCKING != 0 {
            return Err(Status::INVALID_VALUE);
        }
        let blocking = flags & NON_BLOCKING == 0;
        let key = self.scheduler.add_stream(live.key, blocking).ok_or(Status::CONTEXT_IS_DESTROYED)?;
        let priority = priority.clamp(GREATEST_PRIORITY, 0);
        let stream = Arc::new(Stream { key, live, flags, priority });
        match self.handles.insert(stream) {
            Some(handle) => {
                *out = handle;
                Ok(())
            }
            None => {
                self.scheduler.close_stream(key);
                Err(Status::OUT_OF_MEMORY)
            }
        }
    }

    pub(super) fn stream_destroy(&self, call: &Call<'_>, handle: u64) -> CuResult {
        self.live(call)?;
        // The default streams cannot be destroyed; their handles are not in the table.
        let stream = self.handles.remove::<Stream>(handle).map_err(|_| Status::INVALID_HANDLE)?;
        self.scheduler.close_stream(stream.key);
        Ok(())
    }

    /// Waits for a stream's work, and tells of device output and of a fault of that work.
    pub(super) fn stream_synchronize(&self, call: &mut Call<'_>, handle: u64) -> CuResult {
        let target = self.target(call, handle)?;
        for ticket in self.scheduler.covering(target.key) {
            self.scheduler.wait(ticket);
        }
        self.after_wait(call, &target.live)
    }

    pub(super) fn stream_query(&self, call: &mut Call<'_>, handle: u64) -> CuResult {
        let target = self.target(call, handle)?;
        if !self.scheduler.covering(target.key).is_empty() {
            return Err(Status::NOT_READY);
        }
        self.after_wait(call, &target.live)
    }

    /// Waits for all work of a context.
    pub(super) fn context_synchronize(&self, call: &mut Call<'_>, live: &Arc<Live>) -> CuResult {
        self.scheduler.wait_context(live.key);
        self.after_wait(call, live)
    }

    /// What a call that has waited reports.
    pub(super) fn after_wait(&self, call: &mut Call<'_>, live: &Live) -> CuResult {
        call.device_output |= self.output.pending();
        live.check()
    }

    pub(super) fn stream_wait_event(&self, call: &Call<'_>, stream: u64, event: u64, flags: u32) -> CuResult {
        let target = self.target(call, stream)?;
        let event = self.event(event)?;
        // CU_EVENT_WAIT_EXTERNAL concerns capture only.
        if flags & !1 != 0 {
            return Err(Status::INVALID_VALUE);
        }
        match event.latest() {
            Some(record) => self.submit_short(&target, vec![record.ticket], None).map(drop),
            None => Ok(()),
        }
    }

    pub(super) fn event(&self, handle: u64) -> CuResult<Arc<Event>> {
        self.handles.get::<Event>(handle).map_err(|_| Status::INVALID_HANDLE)
    }

    pub(super) fn event_create(&self, call: &Call<'_>, out: Option<&mut u64>, flags: u32) -> CuResult {
        let live = self.live(call)?;
        let out = out.ok_or(Status::INVALID_VALUE)?;
        *out = self.handles.insert(new_event(live, flags)?).ok_or(Status::OUT_OF_MEMORY)?;
        Ok(())
    }

    pub(super) fn event_create_named(&self, call: &Call<'_>, handle: u64, flags: u32) -> CuResult {
        let event = new_event(self.live(call)?, flags)?;
        self.handles.insert_named(handle, event).map_err(|error| match error {
            NotNamed::Handle => Status::INVALID_VALUE,
            NotNamed::Limit => Status::OUT_OF_MEMORY,
        })
    }

    pub(super) fn event_record(&self, call: &Call<'_>, event: u64, stream: u64) -> CuResult {
        let target = self.target(call, stream)?;
        let event = self.event(event)?;
        if event.live.id != target.live.id {
            return Err(Status::INVALID_HANDLE);
        }
        let reached = Arc::new(OnceLock::new());
        let mark = Arc::clone(&reached);
        let work: Work = Box::new(move |_| {
            let _ = mark.set(Instant::now());
        });
        self.scheduler.wait_for_room(target.key);
        // The event is locked while its record is made, so that two threads cannot record in one order and store in the other.
        let mut record = event.record.lock().unwrap_or_else(PoisonError::into_inner);
        let ticket = self.scheduler.submit_short(target.key, Vec::new(), Some(work));
        let ticket = ticket.ok_or(Status::CONTEXT_IS_DESTROYED)?;
        *record = Some(Record { ticket, reached });
        Ok(())
    }

    pub(super) fn event_query(&self, call: &mut Call<'_>, event: u64) -> CuResult {
        let event = self.event(event)?;
        event.live.check()?;
        match event.latest() {
            Some(record) if !self.scheduler.is_done(record.ticket) => Err(Status::NOT_READY),
            _ => self.after_wait(call, &event.live),
        }
    }

    pub(super) fn event_synchronize(&self, call: &mut Call<'_>, event: u64) -> CuResult {
        let event = self.event(event)?;
        event.live.check()?;
        if let Some(record) = event.latest() {
            self.scheduler.wait(record.ticket);
        }
        self.after_wait(call, &event.live)
    }

    pub(super) fn event_elapsed(&self, out: Option<&mut f32>, start: u64, end: u64) -> CuResult {
        let out = out.ok_or(Status::INVALID_VALUE)?;
        let (start, end) = (self.event(start)?, self.event(end)?);
        start.live.check()?;
        // Both have times, of one context.
        if (start.flags | end.flags) & DISABLE_TIMING != 0 || start.live.id != end.live.id {
            return Err(Status::INVALID_HANDLE);
        }
        let (Some(first), Some(last)) = (start.latest(), end.latest()) else {
            return Err(Status::INVALID_HANDLE);
        };
        let (Some(from), Some(to)) = (first.reached.get(), last.reached.get()) else {
            return Err(Status::NOT_READY);
        };
        let seconds = match to.checked_duration_since(*from) {
            Some(later) => later.as_secs_f64(),
            None => -from.duration_since(*to).as_secs_f64(),
        };
        *out = (seconds * 1e3) as f32;
        Ok(())
    }

    /// Everything of a context that is about to go: handles, streams, memory. Its work has ended or been given up.
    pub(super) fn destroy_contents(&self, live: &Arc<Live>) {
        // What is still queued is skipped; what runs is told to end and waited for, because it uses the memory.
        live.cancel.cancel();
        live.poison
            .compare_exchange(0, Status::CONTEXT_IS_DESTROYED.0, Ordering::AcqRel, Ordering::Relaxed)
            .unwrap_or_else(|sticky| sticky);
        self.scheduler.wait_context(live.key);
        self.handles.retain(|object| object.owner() != Some(live.id));
        self.scheduler.close_context(live.key);
        self.memory.free_all(live.id);
    }
}

impl Event {
    fn latest(&self) -> Option<Record> {
        self.record.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
