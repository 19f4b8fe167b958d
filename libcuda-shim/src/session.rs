#![allow(unsafe_code)]
//! The connection of this process to its host: one session, and a lane for each thread that calls.
//!
//! Unsafe because a forked child closes descriptors and mappings that its parent's objects own, without running their destructors.

use core::ffi::CStr;
use std::ops::Range;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::ptr::NonNull;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use crate::order::{Order, Place};
use crate::sticky;
use guest_device::Device;
use protocol::Flags;
use protocol::handshake::{Capabilities, Hello, Limits, RefusalCode, Token};
use protocol::lane::{SLOTS, slot_len};
use protocol::ops;
use protocol::region::Region;
use protocol::status::{CuResult, Status};
use protocol::text::Text;
use protocol::wire::Writer;
use transport::handshake::Lanes;
use transport::{
    Address, Armed, Connection, Flusher, GuestLane, Placement, Reservation, Window, WindowFile, handshake,
    vsock,
};

use crate::background;
use crate::guest_window;
use crate::pinned::Pinned;
use crate::process::process;
use crate::profile;
use crate::watched::Record;

/// How long the daemon may take for one step of a handshake.
const TIMEOUT: Duration = Duration::from_secs(20);

/// Where the daemon of this machine listens unless `CUDA_SHIM_CONNECT` says otherwise.
const DEFAULT_PATH: &str = "/run/host-vmm.sock";

/// Where a host may be, the best first.
fn addresses() -> Result<Vec<Address>, OpenError> {
    if let Ok(text) = std::env::var("CUDA_SHIM_CONNECT") {
        let address = text
            .parse()
            .map_err(|error| OpenError::new(Status::NO_DEVICE, format!("CUDA_SHIM_CONNECT: {error}")))?;
        return Ok(vec![address]);
    }
    let mut addresses = Vec::new();
    if vsock::may_be_guest() {
        addresses.push(Address::Vsock { cid: None, port: vsock::DEFAULT_PORT });
    }
    addresses.push(Address::Unix(DEFAULT_PATH.into()));
    Ok(addresses)
}

/// Why no session could be opened.
#[derive(Debug)]
pub struct OpenError {
    message: String,
    status: Status,
}

impl OpenError {
    fn new(status: Status, message: impl ToString) -> OpenError {
        OpenError { message: message.to_string(), status }
    }

    /// What `cuInit` returns.
    pub fn status(&self) -> Status {
        self.status
    }
}

impl std::fmt::Display for OpenError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

/// The session of this process.
pub struct Session {
    address: Address,
    region: Region,
    token: Token,
    capabilities: Capabilities,
    limits: Limits,
    lanes: Lanes,
    /// Page-locked memory, where it cannot be shared with the host.
    pinned: Option<Pinned>,
    /// Kept open: its end is the end of the session.
    control: Arc<Connection>,
    /// The device of the machine's memory broker, where the window is the machine's memory.
    broker: Option<Device>,
    /// Lanes of threads that have ended, for threads to come.
    idle: Mutex<Vec<Lane>>,
    pub order: Order,
    /// Descriptors of all lanes, for a forked child to close.
    descriptors: Mutex<Vec<RawFd>>,
    /// Device memory outside of the region, reserved here so that nothing else of the program gets these addresses.
    outside: RwLock<Vec<Range<u64>>>,
}

impl Session {
    /// Connects to the first host that answers. `devices` is the program's list of them.
    pub fn open(devices: Option<&CStr>) -> Result<Session, OpenError> {
        let mut failed: Option<OpenError> = None;
        for address in addresses()? {
            match Self::open_at(&address, devices) {
                Ok(session) => return Ok(session),
                Err(error) => {
                    crate::log!(Info, "{error}");
                    failed = Some(match failed {
                        Some(first) => OpenError::new(error.status, format!("{first}; {error}")),
                        None => error,
                    });
                }
            }
        }
        Err(failed.unwrap_or_else(|| OpenError::new(Status::NO_DEVICE, "no host")))
    }

    fn open_at(address: &Address, devices: Option<&CStr>) -> Result<Session, OpenError> {
        let mut refused = None;
        // Memory of a virtual machine can be shared with the machine's host alone.
        let mut use_broker = matches!(address, Address::Vsock { .. });
        let mut candidates = Region::candidates();
        let mut next = candidates.next();
        while let Some(region) = next {
            let Ok(reservation) = Reservation::new(region.start(), region.end() - region.start()) else {
                next = candidates.next();
                continue;
            };
            // A session with the broker serves one attempt: the host takes its cookie once.
            let broker = if use_broker { guest_window::device() } else { None };
            let mut hello = Hello::control(region, std::process::id(), Text::new(&program_name()));
            hello.cookie = broker.as_ref().map_or([0; 2], Device::cookie);
            let list = protocol::devices::capabilities(devices.map(CStr::to_bytes));
            hello.capabilities = hello.capabilities.union(list);
            match profile::waiting(|| handshake::connect_control(address, &hello, TIMEOUT)) {
                Ok((control, welcome, file)) => {
                    let control = Arc::new(control);
                    let broker =
                        broker.filter(|_| welcome.capabilities.contains(Capabilities::SHARED_GUEST_MEMORY));
                    let (lanes, pinned) = match (file, &broker) {
                        (Some(file), _) => (rings(file, &reservation, region)?, None),
                        (None, Some(device)) => {
                            (guest_rings(&control, device.clone(), region, &welcome.limits)?, None)
                        }
                        (None, None) => (streams()?, Some(pinned_memory(region, &welcome.limits))),
                    };
                    // For the life of the process: exit handlers still use device pointers.
                    reservation.leak();
                    crate::log!(
                        Info,
                        "session with {address}: worker {}, region {:#x}, protocol {}, {}",
                        welcome.worker_pid,
                        region.start(),
                        welcome.version,
                        match (&broker, &pinned) {
                            (Some(_), _) => "shared memory of the guest",
                            (None, None) => "shared memory",
                            (None, Some(_)) => "no shared memory",
                        }
                    );
                    return Ok(Session {
                        address: address.clone(),
                        region,
                        token: welcome.token,
                        capabilities: welcome.capabilities,
                        limits: welcome.limits,
                        lanes,
                        pinned,
                        control,
                        broker,
                        idle: Mutex::default(),
                        order: Order::default(),
                        descriptors: Mutex::default(),
                        outside: RwLock::default(),
                    });
                }
                Err(transport::Error::Refused(refusal)) if refusal.code == RefusalCode::REGION_BUSY => {
                    refused = Some(format!("region {:#x} is taken on the host", region.start()));
                    next = candidates.next();
                }
                // The broker serves another host: without it, then.
                Err(transport::Error::Refused(refusal))
                    if refusal.code == RefusalCode::TOKEN && broker.is_some() =>
                {
                    crate::log!(Warn, "shared memory with {address}: {refusal}");
                    use_broker = false;
                }
                Err(error) => {
                    return Err(OpenError::new(
                        Status::NO_DEVICE,
                        format!("no host at {address}: {}; is host-vmm serve running there?", causes(&error)),
                    ));
                }
            }
        }
        let message = refused.unwrap_or_else(|| "no 4 TiB of address space are free for the region".into());
        Err(OpenError::new(Status::OPERATING_SYSTEM, message))
    }

    /// Whether an address is one of a window, which program and worker share.
    pub fn in_window(&self, address: u64) -> bool {
        self.pinned.is_none() && self.region.window_range().contains(&address)
    }

    /// Whether an address is one of device memory or of a window that the host shares.
    #[inline]
    pub fn contains(&self, address: u64) -> bool {
        let inside = match &self.pinned {
            None => self.region.contains(address),
            Some(_) => self.region.is_device(address),
        };
        inside || self.is_outside(address)
    }

    /// Page-locked memory of the program's own, in a session without shared memory.
    #[inline]
    pub fn pinned(&self) -> Option<&Pinned> {
        self.pinned.as_ref()
    }

    /// The window, where it is a file that both sides have mapped.
    pub fn window(&self) -> Option<&Window> {
        match &self.lanes {
            Lanes::Rings(window) => {
                Some(window).filter(|window| window.file().is_some()).map(|window| &**window)
            }
            Lanes::Streams(_) => None,
        }
    }

    /// The machine's memory broker, where it gives the session its window.
    #[inline]
    pub fn broker(&self) -> Option<&Device> {
        self.broker.as_ref()
    }

    fn is_outside(&self, address: u64) -> bool {
        let outside = self.outside.read().unwrap_or_else(PoisonError::into_inner);
        outside.iter().any(|range| range.contains(&address))
    }

    /// Reserves ranges of device memory outside of the region; those that are known already, or in part, may come again.
    ///
    /// # Errors
    /// OPERATING_SYSTEM if the program has something else there.
    pub fn reserve(&self, ranges: impl Iterator<Item = Range<u64>>) -> CuResult {
        let mut outside = self.outside.write().unwrap_or_else(PoisonError::into_inner);
        for range in ranges {
            let mut start = range.start;
            while start < range.end {
                if let Some(known) = outside.iter().find(|known| known.contains(&start)) {
                    start = known.end;
                    continue;
                }
                let later = outside.iter().map(|known| known.start).filter(|known| *known > start);
                let end = later.min().unwrap_or(range.end).min(range.end);
                let reservation = Reservation::new(start, end - start).map_err(|error| {
                    crate::log!(
                        Error,
                        "the device has memory at {start:#x} to {end:#x}, where this program has something else: {error}"
                    );
                    Status::OPERATING_SYSTEM
                })?;
                reservation.leak();
                outside.push(start..end);
                start = end;
            }
        }
        Ok(())
    }

    pub fn capabilities(&self) -> Capabilities {
        self.capabilities
    }

    /// A lane for the calling thread: one that a former thread has left, or a new one.
    pub fn lane(&self) -> Result<Lane, Status> {
        let left = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        if let Some(mut lane) = left {
            // What the former thread did not ask for any more.
            let _ = lane.take_latched();
            return Ok(lane);
        }
        let hello = Hello::lane(self.token, self.region, std::process::id());
        let open = || handshake::connect_lane(&self.address, &hello, &self.lanes, &self.limits, TIMEOUT);
        let guest = profile::waiting(open).map_err(|error| {
            crate::log!(Error, "no lane for this thread: {}", causes(&error));
            Status::UNKNOWN
        })?;
        let descriptor = guest.as_fd().as_raw_fd();
        self.descriptors.lock().unwrap_or_else(PoisonError::into_inner).push(descriptor);
        let place = self.order.enter(guest.progress());
        Ok(Lane::new(guest, place))
    }

    /// Takes the lane of a thread that ends.
    pub fn give_back(&self, mut lane: Lane) {
        // An error shows again when the lane is used.
        let _ = lane.guest.flush();
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(lane);
    }

    /// In a forked child: closes what was inherited, so that the host sees the parent's end when it comes, and frees the addresses.
    pub fn abandon(&self) {
        // A lock that another thread of the parent held at the fork stays locked for ever here: then the descriptors stay open, which the
        // host's watch on the parent's process covers.
        let lanes = self.descriptors.try_lock().map(|list| list.clone()).unwrap_or_default();
        let own = [self.control.as_fd().as_raw_fd()]
            .into_iter()
            .chain(self.broker.as_ref().map(guest_window::descriptor));
        for descriptor in lanes.into_iter().chain(own) {
            // SAFETY: descriptors of the parent's session, copied into this child by fork; their owners are never used or dropped here.
            unsafe { libc::close(descriptor) };
        }
        let len = (self.region.end() - self.region.start()) as usize;
        // SAFETY: the region was reserved by the parent's session, of which nothing is used in this child; the window in it was not inherited.
        unsafe { libc::munmap(core::ptr::without_provenance_mut(self.region.start() as usize), len) };
        let outside = self.outside.try_read().map(|ranges| ranges.clone()).unwrap_or_default();
        for Range { start, end } in outside {
            // SAFETY: as above: reserved by the parent's session, and nothing is mapped there.
            unsafe {
                libc::munmap(core::ptr::without_provenance_mut(start as usize), (end - start) as usize)
            };
        }
    }
}

/// The lanes of a session that shares memory.
fn rings(file: WindowFile, reservation: &Reservation, region: Region) -> Result<Lanes, OpenError> {
    let window = Window::map(file, Placement::Over(reservation, region.window_start()), true)
        .map_err(|error| OpenError::new(Status::OPERATING_SYSTEM, error))?;
    Ok(Lanes::Rings(Arc::new(window)))
}

/// The lanes of a session that shares memory of the virtual machine, with the thread that maps it.
fn guest_rings(
    control: &Arc<Connection>,
    device: Device,
    region: Region,
    limits: &Limits,
) -> Result<Lanes, OpenError> {
    let window = Window::in_pieces(region.window_start(), limits.window_len)
        .map_err(|error| OpenError::new(Status::OPERATING_SYSTEM, error))?;
    let window = Arc::new(window);
    // SAFETY: the caller has reserved the region, keeps it for the life of the process, and maps nothing in its window.
    unsafe { guest_window::serve(Arc::clone(control), device, Arc::clone(&window)) }
        .map_err(|status| OpenError::new(status, "no thread for shared memory"))?;
    Ok(Lanes::Rings(window))
}

/// The lanes of a session that shares none, with the thread that sends what was posted.
fn streams() -> Result<Lanes, OpenError> {
    let flusher: Arc<Flusher> = Arc::default();
    let own = Arc::clone(&flusher);
    background::spawn("cuda-flush", move || own.run())
        .map_err(|status| OpenError::new(status, "no thread for posted requests"))?;
    Ok(Lanes::Streams(Some(flusher)))
}

/// Page-locked memory lies above what the worker may use of the window.
fn pinned_memory(region: Region, limits: &Limits) -> Pinned {
    const ALIGN: u64 = 2 << 20;
    let start = region.window_start() + limits.window_len.next_multiple_of(ALIGN);
    // SAFETY: the upper half of the region, which the session has reserved for the life of the process and maps nothing in; `start` is at most its end.
    unsafe { Pinned::new(start.min(region.end())..region.end(), limits.pinned_memory_len) }
}

fn program_name() -> String {
    let path = std::env::current_exe().ok();
    path.and_then(|path| Some(path.file_name()?.to_string_lossy().into_owned())).unwrap_or_default()
}

/// A part of the staging area, taken for one piece of a copy: a slot, or a few in a row. The host says for the first that it is done with all.
#[derive(Debug)]
pub struct Slot {
    index: usize,
    count: usize,
    offset: u64,
    /// The request that uses it.
    seq: u64,
}

/// When a slot is free: as soon as the host is done with a request for the slot that this one was used with.
#[derive(Clone, Copy, Default)]
struct Use {
    first: usize,
    seq: u64,
}

impl Slot {
    /// Offset in the staging area.
    pub fn offset(&self) -> u64 {
        self.offset
    }
}

/// A lane with what its thread keeps about it.
pub struct Lane {
    guest: GuestLane,
    request: Vec<u8>,
    reply: Vec<u8>,
    /// The current context that the host knows of.
    context: u64,
    /// The capture mode that the host knows of.
    capture_mode: u32,
    /// The last use of each slot.
    slots: [Use; SLOTS as usize],
    next: usize,
    place: Place,
    pub watched: Record,
}

/// An error with what caused it.
fn causes(error: &transport::Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    text
}

fn failed(error: &transport::Error) -> Status {
    if let transport::Error::BodyLen { len, max } = error {
        crate::log!(Error, "request of {len} bytes, the host takes {max}");
        return Status::INVALID_VALUE;
    }
    match error {
        transport::Error::HungUp => {
            crate::log!(
                Error,
                "the host has ended the session (its own log says why): all further calls fail"
            );
        }
        // Said before, at the first failure.
        transport::Error::Dead => crate::log!(Debug, "lane: {error}"),
        _ => crate::log!(Error, "lane: {}", causes(error)),
    }
    Status::UNKNOWN
}

impl Lane {
    fn new(guest: GuestLane, place: Place) -> Lane {
        Lane {
            guest,
            place,
            request: Vec::new(),
            reply: Vec::new(),
            context: 0,
            capture_mode: 0,
            slots: [Use::default(); SLOTS as usize],
            next: 0,
            watched: Record::default(),
        }
    }

    /// Waits until the host has taken up what other threads have posted.
    #[inline]
    pub fn follow(&mut self, order: &Order) -> CuResult {
        profile::waiting(|| order.follow(&mut self.place, &mut self.guest))
    }

    /// From now on waits for nothing that other threads have posted.
    pub fn stay_alone(&mut self) {
        self.place.stay_alone();
    }

    /// Tells other threads of the request that was posted last, as its call returns.
    #[inline]
    pub fn posted(&mut self, order: &Order) {
        order.posted(&mut self.place, self.guest.last_seq());
    }

    /// Tells the host which context is current, if that has changed.
    #[inline]
    pub fn set_context(&mut self, context: u64) -> CuResult {
        if context != self.context {
            self.post(ops::lane_set_context, |w| w.u64(context))?;
            self.context = context;
        }
        Ok(())
    }

    /// Tells the host of the thread's capture mode, if that has changed.
    #[inline]
    pub fn set_capture_mode(&mut self, mode: u32) -> CuResult {
        if mode != self.capture_mode {
            self.post(ops::lane_capture_mode, |w| w.u32(mode))?;
            self.capture_mode = mode;
        }
        Ok(())
    }

    /// Sends a request and waits for its reply, whose body is then in [`Lane::reply`].
    pub fn call(&mut self, op: u16, encode: impl FnOnce(&mut Writer<'_>)) -> Result<(Status, Flags), Status> {
        self.call_beside(op, encode, || ())
    }

    /// As [`Lane::call`]; `beside` runs between the request and the wait for its reply. It is not run if the request cannot be sent.
    #[inline]
    pub fn call_beside(
        &mut self,
        op: u16,
        encode: impl FnOnce(&mut Writer<'_>),
        beside: impl FnOnce(),
    ) -> Result<(Status, Flags), Status> {
        let timer = profile::Encoding::begin();
        encode(&mut Writer::new(&mut self.request));
        let timer = timer.done();
        let sent = self.guest.send(op, &self.request).map_err(|error| failed(&error))?;
        let timer = timer.beside(beside);
        let reply = self.guest.receive(sent, &mut self.reply).map_err(|error| failed(&error))?;
        timer.done(op);
        sticky::note(reply.status);
        if reply.flags.contains(Flags::MAY_PRINT) {
            process().prints.store(true, Ordering::Relaxed);
        }
        Ok((reply.status, reply.flags))
    }

    /// Body of the last reply.
    pub fn reply(&self) -> &[u8] {
        &self.reply
    }

    /// Sends a request without a reply; returns its number.
    #[inline]
    pub fn post(&mut self, op: u16, encode: impl FnOnce(&mut Writer<'_>)) -> Result<u64, Status> {
        let timer = profile::Encoding::begin();
        encode(&mut Writer::new(&mut self.request));
        let timer = timer.done();
        let seq = self.guest.post(op, &self.request).map_err(|error| failed(&error))?;
        timer.done(op);
        Ok(seq)
    }

    /// The first error of posted requests since the last look.
    #[inline]
    pub fn take_latched(&mut self) -> Option<Status> {
        self.guest.take_latched().inspect(|status| sticky::note(*status))
    }

    /// Waits until all that was posted has been taken up, and drops its errors: those of the pieces of a copy whose call reports the first one.
    pub fn settle(&mut self) -> CuResult {
        let last = self.guest.last_seq();
        profile::waiting(|| self.guest.wait_completed(last)).map_err(|error| failed(&error))?;
        let _ = self.guest.take_latched();
        Ok(())
    }

    pub fn slot_len(&self) -> usize {
        slot_len(self.guest.staging_len()) as usize
    }

    /// The next slot in turn, when its last user is done with it.
    pub fn next_slot(&mut self) -> Result<Slot, Status> {
        self.next_slots(1)
    }

    /// As [`Lane::next_slot`], `count` of them in a row, beginning at a multiple of that; it divides the number of all.
    pub fn next_slots(&mut self, count: usize) -> Result<Slot, Status> {
        let index = self.next.next_multiple_of(count) % SLOTS as usize;
        self.next = (index + count) % SLOTS as usize;
        for slot in index..index + count {
            let Use { first, seq } = self.slots[slot];
            profile::waiting(|| self.guest.wait_slot(first as u64, seq)).map_err(|error| failed(&error))?;
        }
        Ok(Slot { index, count, offset: (index * self.slot_len()) as u64, seq: 0 })
    }

    /// The next slot, which stays the next: its use is over before another one is asked for.
    pub fn same_slot(&mut self) -> Result<Slot, Status> {
        let slot = self.next_slot()?;
        self.next = slot.index;
        Ok(slot)
    }

    /// Prepares the first `len` bytes of a slot for being watched.
    pub fn arm_slot(&mut self, slot: &Slot, len: u64) -> Result<Armed, Status> {
        self.guest.arm(slot.offset, len).map_err(|error| failed(&error))
    }

    /// Watches a slot; whether all bytes for which it was prepared have been written.
    pub fn watch(&mut self, armed: &Armed) -> Result<bool, Status> {
        profile::waiting(|| self.guest.watch(armed)).map_err(|error| failed(&error))
    }

    /// Marks the slot as used by the request that was sent last.
    pub fn slot_in_use(&mut self, slot: Slot) -> Slot {
        let seq = self.guest.last_seq();
        self.slots[slot.index..slot.index + slot.count].fill(Use { first: slot.index, seq });
        Slot { seq, ..slot }
    }

    /// Waits until the host is done with the slot.
    pub fn wait_slot(&mut self, slot: &Slot) -> CuResult {
        profile::waiting(|| self.guest.wait_slot(slot.index as u64, slot.seq)).map_err(|error| failed(&error))
    }

    /// Copies program memory into a slot, at an offset in it.
    ///
    /// # Safety
    /// `from` is readable for `len` bytes.
    pub unsafe fn copy_into_slot(
        &mut self,
        slot: &Slot,
        offset: u64,
        from: *const u8,
        len: usize,
    ) -> CuResult {
        // SAFETY: by the caller's promise; program memory is not staging area, which the program does not know.
        unsafe { self.guest.copy_in(slot.offset + offset, from, len) }.map_err(|error| failed(&error))
    }

    /// Where the first `len` bytes of slots are, for threads that fill or empty it.
    ///
    /// # Errors
    /// UNKNOWN without shared memory, where the host does not see what is written there.
    pub fn place_of(&self, slot: &Slot, len: u64) -> Result<NonNull<u8>, Status> {
        if !self.guest.shares_staging() {
            return Err(Status::UNKNOWN);
        }
        self.guest.staging(slot.offset, len).map_err(|error| failed(&error))
    }

    /// Says that the next request fills the first `len` bytes of a slot.
    pub fn fetch_slot(&mut self, slot: &Slot, len: u64) -> CuResult {
        self.guest.fetch(slot.offset, len).map_err(|error| failed(&error))
    }

    /// Copies from a slot, at an offset in it, to program memory. `long`: it is part of a copy that no cache holds.
    ///
    /// # Safety
    /// `to` is writable for `len` bytes.
    pub unsafe fn copy_from_slot(
        &self,
        slot: &Slot,
        offset: u64,
        to: *mut u8,
        len: usize,
        long: bool,
    ) -> CuResult {
        let offset = slot.offset + offset;
        // SAFETY: as in `copy_into_slot`.
        let copied = unsafe {
            if long {
                self.guest.copy_out_streaming(offset, to, len)
            } else {
                self.guest.copy_out(offset, to, len)
            }
        };
        copied.map_err(|error| failed(&error))
    }
}
