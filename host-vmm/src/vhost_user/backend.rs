//! The device as vhost-user-backend sees it, for one front end.
//!
//! Threads: the crate has one for the front end's requests and one for events (kicks, the host's ends). `rings` is used by the second
//! only, except when the front end is gone and both have ended. Lock order: `rings`, then the receive ring, then the transmit ring; the
//! first thread takes a ring's lock alone, and `memory_told` alone.

use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};

use vhost::vhost_user::message::{VhostUserProtocolFeatures, VhostUserVirtioFeatures};
use vhost_user_backend::{VhostUserBackend, VringEpollHandler, VringRwLock, VringT as _};
use virtio_queue::QueueT as _;
use vm_memory::{GuestAddressSpace as _, GuestMemoryAtomic};
use vmm_sys_util::epoll::EventSet;
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use super::Host;
use super::rings::Rings;
use super::switch::{Event, Limits, Switch, Watch};
use super::table;
use crate::vmm::memory::Memory;

/// Receive, transmit, event. The last is for news about the device itself, of which there are none; QEMU does not even pass it on.
const QUEUES: usize = 3;
const QUEUE_SIZE: usize = 1024;

const F_INDIRECT: u64 = 1 << 28;
const F_EVENT_INDEX: u64 = 1 << 29;
const F_VERSION_1: u64 = 1 << 32;

/// Tokens of events below this are the crate's own (the rings, and one more).
const WAKE: u16 = QUEUES as u16 + 1;
const FIRST_LINK: u16 = WAKE + 1;

/// Turns of the rings before other events are looked at.
const TURNS: usize = 8;

type AtomicMemory = GuestMemoryAtomic<Memory>;
type Vring = VringRwLock<AtomicMemory>;
type Handler = VringEpollHandler<Arc<Backend>>;

/// See the module.
pub struct Backend {
    cid: u32,
    host: Arc<dyn Host>,
    memory: AtomicMemory,
    memory_told: Mutex<table::Told>,
    rings: Mutex<Rings>,
    /// Makes the event thread look again, or end.
    wake: EventFd,
    stop: AtomicBool,
}

/// Watches the host's ends in the event thread's own epoll instance, so that no other thread stands between a byte and the guest.
#[derive(Clone, Default)]
struct EventThread(Arc<OnceLock<Weak<Handler>>>);

impl EventThread {
    fn handler(&self) -> io::Result<Arc<Handler>> {
        // Not there before the first kick, and no more after the last.
        self.0.get().and_then(Weak::upgrade).ok_or_else(|| io::Error::other("the event thread has ended"))
    }
}

impl Watch for EventThread {
    fn watch(&self, socket: BorrowedFd<'_>, token: u16, room: bool) -> io::Result<()> {
        let mut events = EventSet::IN | EventSet::EDGE_TRIGGERED;
        events.set(EventSet::OUT, room);
        self.handler()?.register_listener(socket.as_raw_fd(), events, token.into())
    }

    fn unwatch(&self, socket: BorrowedFd<'_>, token: u16) {
        if let Ok(handler) = self.handler() {
            // Fails if it was not watched.
            let _ = handler.unregister_listener(socket.as_raw_fd(), EventSet::empty(), token.into());
        }
    }
}

/// A back end that is not attached to its event thread yet.
pub struct Unattached {
    pub backend: Arc<Backend>,
    thread: EventThread,
}

impl Unattached {
    /// # Errors
    /// No eventfd.
    pub fn new(cid: u32, host: Arc<dyn Host>, memory: AtomicMemory) -> io::Result<Self> {
        let thread = EventThread::default();
        let switch =
            Switch::new(cid, Limits::default(), Arc::clone(&host), Box::new(thread.clone()), FIRST_LINK);
        let backend = Arc::new(Backend {
            cid,
            host,
            memory,
            memory_told: Mutex::default(),
            rings: Mutex::new(Rings::new(switch)),
            wake: EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC)?,
            stop: AtomicBool::new(false),
        });
        Ok(Self { backend, thread })
    }

    /// Takes the event thread, before the front end can say anything.
    ///
    /// # Errors
    /// The thread cannot be woken.
    pub fn attach(&self, handler: &Arc<Handler>) -> io::Result<()> {
        handler.register_listener(self.backend.wake.as_raw_fd(), EventSet::IN, WAKE.into())?;
        // There is one thread, so this is set once.
        let _ = self.thread.0.set(Arc::downgrade(handler));
        Ok(())
    }
}

impl Backend {
    /// Ends the event thread.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Release);
        // Fails only if the counter is full, and then it is readable.
        let _ = self.wake.write(1);
    }

    /// Closes all connections.
    pub fn reset(&self) {
        self.rings().switch.reset();
    }

    fn rings(&self) -> std::sync::MutexGuard<'_, Rings> {
        self.rings.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Moves packets until there are none, or it is others' turn.
    fn turns(&self, rings: &mut Rings, vrings: &[Vring]) -> io::Result<()> {
        // In the order of their numbers.
        let [receive, transmit, ..] = vrings else { return Ok(()) };
        for _ in 0..TURNS {
            let (mut receive, mut transmit) = (receive.get_mut(), transmit.get_mut());
            let runs = |vring: &vhost_user_backend::VringState<AtomicMemory>| {
                vring.is_enabled() && vring.get_queue().ready()
            };
            if !runs(&receive) || !runs(&transmit) {
                return Ok(());
            }
            let memory = self.memory.memory();
            let turn = rings.turn(receive.get_queue_mut(), transmit.get_queue_mut(), &memory);
            if turn.notify_transmit {
                transmit.signal_used_queue()?;
            }
            if turn.notify_receive {
                receive.signal_used_queue()?;
            }
            if !turn.more {
                return Ok(());
            }
        }
        self.wake.write(1)
    }
}

impl VhostUserBackend for Backend {
    type Bitmap = ();
    type Vring = Vring;

    fn num_queues(&self) -> usize {
        QUEUES
    }

    fn max_queue_size(&self) -> usize {
        QUEUE_SIZE
    }

    fn features(&self) -> u64 {
        F_INDIRECT | F_EVENT_INDEX | F_VERSION_1 | VhostUserVirtioFeatures::PROTOCOL_FEATURES.bits()
    }

    fn protocol_features(&self) -> VhostUserProtocolFeatures {
        VhostUserProtocolFeatures::MQ
            | VhostUserProtocolFeatures::CONFIG
            | VhostUserProtocolFeatures::REPLY_ACK
    }

    fn reset_device(&self) {
        self.reset();
    }

    fn set_event_idx(&self, _: bool) {
        // The queues know it themselves.
    }

    fn get_config(&self, offset: u32, size: u32) -> Vec<u8> {
        let config = u64::from(self.cid).to_le_bytes();
        let (start, len) = (offset as usize, size as usize);
        start.checked_add(len).and_then(|end| config.get(start..end)).unwrap_or_default().to_vec()
    }

    fn update_memory(&self, memory: AtomicMemory) -> io::Result<()> {
        let ram = table::guest_ram(&memory.memory())?;
        let mut told = self.memory_told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.is_new(&ram)? {
            self.host.memory(ram);
        }
        Ok(())
    }

    fn handle_event(&self, token: u16, events: EventSet, vrings: &[Vring], _thread: usize) -> io::Result<()> {
        if self.stop.load(Ordering::Acquire) {
            // An error is what ends the thread.
            return Err(io::Error::other("stopped"));
        }
        let mut rings = self.rings();
        if token == WAKE {
            // Nothing to read means that it was read already.
            let _ = self.wake.read();
        } else if token >= FIRST_LINK {
            let hung_up = events.intersects(EventSet::HANG_UP | EventSet::ERROR);
            rings.switch.event(token, Event { hung_up });
        }
        if let Err(error) = self.turns(&mut rings, vrings) {
            tracing::warn!("vsock of CID {}: {error}", self.cid);
        }
        Ok(())
    }
}
