//! The CPU backend: device memory is host memory at fixed addresses, kernels are compiled from their PTX.
//!
//! Every call may come from any lane's thread. Locks, in the order in which they may be taken: a primary context's `retained`,
//! a context's contents, an event's record, the scheduler, the memory table, region and window; handle table and others are leaves.

mod alloc;

mod calls;
pub mod context;
pub mod copy;
pub mod device;
pub mod image;
mod launch;
pub mod memory;
pub mod module;
pub mod occupancy;
pub mod output;
pub mod pool;
pub mod sched;
pub mod stream;

use std::sync::{Arc, RwLock};

use protocol::status::{CuResult, Status};
use ptx_cpu::engine::{Engine, EngineConfig};
use ptx_cpu::region::Region;

use crate::backend::callback::Callbacks;
use crate::backend::{Backend, NotReady};
use crate::session::{Call, Lane, Session};
use crate::worker::handles::{Handles, Kind};
use context::{Context, Live};
use device::Device;
use memory::{Memory, Owner};
use module::{Function, Library, LibraryKernel, Module};
use output::Output;
use pool::Pool;
use sched::Scheduler;
use stream::{Event, Stream};

/// Anything that a handle can stand for.
pub enum Object {
    Context(Arc<Context>),
    Stream(Arc<Stream>),
    Event(Arc<Event>),
    Pool(Arc<Pool>),
    Module(Arc<Module>),
    Function(Arc<Function>),
    Library(Arc<Library>),
    LibraryKernel(Arc<LibraryKernel>),
}

macro_rules! kinds {
    ($($kind:ident),*) => {
        $(impl Kind<Object> for $kind {
            fn from_any(any: &Object) -> Option<&Arc<Self>> {
                if let Object::$kind(object) = any { Some(object) } else { None }
            }

            fn into_any(this: Arc<Self>) -> Object {
                Object::$kind(this)
            }
        })*
    };
}
kinds!(Context, Stream, Event, Pool, Module, Function, Library, LibraryKernel);

/// A device and what exists once per device.
pub struct DeviceSlot {
    pub device: Device,
    pub primary: Arc<Context>,
    pub default_pool: u64,
    pub current_pool: std::sync::atomic::AtomicU64,
}

/// The backend of one worker.
pub struct CpuBackend {
    pub session: Arc<Session>,
    pub handles: Handles<Object>,
    pub scheduler: Arc<Scheduler>,
    pub memory: Arc<Memory>,
    pub engine: Arc<Engine>,
    pub output: Arc<Output>,
    pub callbacks: Arc<Callbacks>,
    /// All devices of the configuration.
    slots: Vec<DeviceSlot>,
    /// Which of them the program sees, in its order.
    visible: RwLock<Vec<usize>>,
}

impl CpuBackend {
    /// A backend for a session whose region is reserved and has the window mapped.
    ///
    /// # Errors
    /// The engine's threads cannot be started, or the handle limit is too small for the devices.
    pub fn new(session: Arc<Session>, region: Arc<Region>) -> anyhow::Result<Self> {
        let handles = Handles::new(session.config.limits.handles as usize);
        let slots = Device::all(&session.config)
            .into_iter()
            .map(|device| {
                let primary = handles
                    .insert_with(|handle| Arc::new(Context::new(handle, device.index, true)))
                    .ok_or_else(|| anyhow::anyhow!("the handle limit is below the number of devices"))?;
                let default_pool = handles
                    .insert(Arc::new(Pool::new(device.index, true)))
                    .ok_or_else(|| anyhow::anyhow!("the handle limit is below the number of devices"))?;
                Ok(DeviceSlot { device, primary, default_pool, current_pool: default_pool.into() })
            })
            .collect::<anyhow::Result<Vec<_>>>()?;
        let visible = RwLock::new((0..slots.len()).collect());
        let memory = Arc::new(Memory::new(region, Arc::clone(&session.window)));
        let engine = Engine::new(Arc::clone(memory.region()), EngineConfig::default())?;
        Ok(Self {
            session,
            handles,
            scheduler: Scheduler::new(),
            memory,
            engine: Arc::new(engine),
            output: Arc::default(),
            callbacks: Arc::default(),
            slots,
            visible,
        })
    }

    /// The contents of the lane's current context.
    ///
    /// # Errors
    /// `INVALID_CONTEXT` if there is none, `CONTEXT_IS_DESTROYED` if it is not active any more, its sticky error.
    pub fn live(&self, call: &Call<'_>) -> CuResult<Arc<Live>> {
        let live = self.live_of(call.lane.context)?;
        live.check()?;
        Ok(live)
    }

    /// The contents of a context, whatever state it is in.
    ///
    /// # Errors
    /// `INVALID_CONTEXT`, `CONTEXT_IS_DESTROYED`.
    pub fn live_of(&self, handle: u64) -> CuResult<Arc<Live>> {
        if handle == 0 {
            return Err(Status::INVALID_CONTEXT);
        }
        let context = self.handles.get::<Context>(handle).map_err(|_| Status::INVALID_CONTEXT)?;
        context.live().ok_or(Status::CONTEXT_IS_DESTROYED)
    }

    /// The device of an ordinal as the program counts.
    ///
    /// # Errors
    /// `INVALID_DEVICE`.
    pub fn slot(&self, ordinal: i32) -> CuResult<&DeviceSlot> {
        let visible = self.visible.read().unwrap_or_else(std::sync::PoisonError::into_inner);
        let index = usize::try_from(ordinal).ok().and_then(|ordinal| visible.get(ordinal).copied());
        index.and_then(|index| self.slots.get(index)).ok_or(Status::INVALID_DEVICE)
    }

    /// Number of devices that the program sees.
    pub fn device_count(&self) -> usize {
        self.visible.read().unwrap_or_else(std::sync::PoisonError::into_inner).len()
    }

    /// The program's ordinal of a device.
    pub fn ordinal(&self, device: u32) -> i32 {
        let visible = self.visible.read().unwrap_or_else(std::sync::PoisonError::into_inner);
        let at = visible.iter().position(|index| *index == device as usize);
        at.and_then(|at| i32::try_from(at).ok()).unwrap_or(-1)
    }

    /// The device that contents belong to.
    pub fn device_of(&self, live: &Live) -> &Device {
        &self.slots[live.device as usize].device
    }

    /// Chooses and orders the devices as `CUDA_VISIBLE_DEVICES` does: ordinals or `GPU-` and a UUID's first digits; what follows an
    /// entry that is no device is ignored.
    ///
    /// # Errors
    /// INVALID_DEVICE if a device is named twice, as NVIDIA's driver says at `cuInit`; none is visible then.
    pub fn set_visible(&self, list: &str) -> CuResult {
        let mut result = Ok(());
        let mut chosen = Vec::new();
        for entry in list.split(',').map(str::trim) {
            let index = match entry.strip_prefix("GPU-") {
                Some(digits) => self.slots.iter().position(|slot| {
                    let uuid: String = slot.device.uuid.iter().map(|byte| format!("{byte:02x}")).collect();
                    let digits = digits.replace('-', "").to_ascii_lowercase();
                    !digits.is_empty() && uuid.starts_with(&digits)
                }),
                None => entry.parse::<usize>().ok().filter(|index| *index < self.slots.len()),
            };
            match index {
                Some(index) if !chosen.contains(&index) => chosen.push(index),
                Some(_) => {
                    result = Err(Status::INVALID_DEVICE);
                    chosen.clear();
                    break;
                }
                None => break,
            }
        }
        *self.visible.write().unwrap_or_else(std::sync::PoisonError::into_inner) = chosen;
        result
    }
}

impl Live {
    /// Whose allocations in this context are.
    pub fn owner(&self) -> Owner {
        Owner { id: self.id, context: self.context, device: self.device }
    }
}

impl Backend for CpuBackend {
    /// Engine and region are there already; contexts cost nothing.
    fn warm_up(&self) -> Result<u32, NotReady> {
        Ok(u32::try_from(self.slots.len()).unwrap_or(u32::MAX))
    }

    fn may_print(&self) -> bool {
        self.output.is_expected()
    }

    fn output_pending(&self) -> bool {
        self.output.pending()
    }

    fn lane_closed(&self, lane: &Lane) {
        let mut contexts = Vec::new();
        self.handles.for_each(|object| {
            if let Object::Context(context) = object {
                contexts.extend(context.live());
            }
        });
        for live in contexts {
            live.forget_lane(&self.scheduler, lane.id);
        }
    }
}
