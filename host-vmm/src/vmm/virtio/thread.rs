//! The thread on which the devices that are emulated here do their work.

use std::os::fd::AsRawFd;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use event_manager::{EventManager, EventOps, EventSet, Events, MutEventSubscriber, SubscriberOps as _};
use vmm_sys_util::eventfd::EventFd;

use super::VirtioDevice;
use crate::vmm::error::{Error, Result};
use crate::vmm::stop::Stop;

/// A device whose queues are worked off here.
pub trait QueueDevice: VirtioDevice {
    /// Works off queue `index`, at most until `stop`. Does nothing unless the device is active.
    fn process(&mut self, index: usize, stop: &Stop);
}

/// Registered as the data of the machine's end.
const STOPPED: u32 = u32::MAX;

struct Doorbells {
    device: Arc<Mutex<dyn QueueDevice>>,
    kicks: Vec<EventFd>,
    stop: Stop,
}

impl MutEventSubscriber for Doorbells {
    fn process(&mut self, events: Events, _: &mut EventOps<'_>) {
        let index = events.data() as usize;
        let Some(kick) = self.kicks.get(index) else { return };
        // Nothing to read means that the kick was for a device that has been reset since.
        if kick.read().is_ok() && !self.stop.is_requested() {
            self.device.lock().unwrap_or_else(PoisonError::into_inner).process(index, &self.stop);
        }
    }

    fn init(&mut self, ops: &mut EventOps<'_>) {
        for (index, kick) in (0..).zip(&self.kicks) {
            if let Err(error) = ops.add(Events::with_data(kick, index, EventSet::IN)) {
                tracing::error!("cannot watch a device's doorbell: {error}");
            }
        }
    }
}

/// Makes the loop return when the machine ends.
struct Watch(Stop);

impl MutEventSubscriber for Watch {
    fn process(&mut self, _: Events, ops: &mut EventOps<'_>) {
        let _ = ops.remove(Events::with_data_raw(self.0.as_raw_fd(), STOPPED, EventSet::IN));
    }

    fn init(&mut self, ops: &mut EventOps<'_>) {
        if let Err(error) = ops.add(Events::with_data_raw(self.0.as_raw_fd(), STOPPED, EventSet::IN)) {
            tracing::error!("cannot watch for the machine's end: {error}");
        }
    }
}

type Subscriber = Box<dyn MutEventSubscriber + Send>;

/// Devices and their doorbells; a thread once started.
pub struct DeviceThread {
    manager: EventManager<Subscriber>,
    stop: Stop,
}

impl DeviceThread {
    /// No devices yet.
    ///
    /// # Errors
    /// No epoll instance.
    pub fn new(stop: Stop) -> Result<Self> {
        let mut manager = EventManager::new()
            .map_err(|error| Error::Device { device: "device thread", reason: error.to_string() })?;
        manager.add_subscriber(Box::new(Watch(stop.clone())) as Subscriber);
        Ok(Self { manager, stop })
    }

    /// Adds a device with the doorbells of its queues.
    pub fn add(&mut self, device: Arc<Mutex<dyn QueueDevice>>, kicks: Vec<EventFd>) {
        self.manager.add_subscriber(Box::new(Doorbells { device, kicks, stop: self.stop.clone() }));
    }

    /// Runs until the machine's end.
    ///
    /// # Errors
    /// No thread.
    pub fn start(mut self) -> Result<JoinHandle<()>> {
        std::thread::Builder::new()
            .name("devices".into())
            .spawn(move || {
                while !self.stop.is_requested() {
                    if let Err(error) = self.manager.run() {
                        tracing::error!("device thread: {error}");
                        self.stop.request(crate::vmm::stop::StopReason::Failed(error.to_string()));
                    }
                }
            })
            .map_err(Error::os("cannot start the device thread"))
    }
}
