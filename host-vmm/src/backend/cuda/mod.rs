//! The CUDA backend: the driver calls go to the real libcuda.
//!
//! # How a row gets its host side
//!
//! Every wire row of `crates/driver-api/spec` has a method here, written by `cargo xtask codegen` into `generated/cuda_forward.rs`. What
//! it does follows from the row alone:
//!
//! * a parameter of a handle type is an id: it becomes the driver's handle (`CudaBackend::inward`; a bad one is INVALID_HANDLE, for a context
//!   INVALID_CONTEXT). 0 stays NULL, streams 1 and 2 stay what they are, where a CUfunction is expected a CUkernel will do;
//! * `#[out]` of a handle type, and `#[data_out(n * 8)]` of one, are births: the driver's handle gets an id (`CudaBackend::born`). The same
//!   driver object always gets the same id. It belongs to the handle named by `#[parent(x)]` on the parameter, else, for kinds that live in a
//!   context ([`lives_in_context`]), to the lane's current context; when that goes, it goes;
//! * `#[dies]` on a handle parameter: the call ends it; after success the id and all that belongs to it are gone;
//! * `#[data_in(n * 8)]` of a handle type: an array of ids, each translated;
//! * a `CUdeviceptr` by value must lie in the session's memory or be 0 (`CudaBackend::address`): a program must not be able to name other memory of the
//!   worker;
//! * structures travel as bytes, copied to aligned memory. `Kind::Struct(len)` types have handles in them: write `inward_NAME` and
//!   `outward_NAME` in `translate.rs` (only the directions that rows use);
//! * NULL stays NULL, so that the driver finds the error; results pass as they are.
//!
//! Where that is not enough, mark the row `#[host_custom]` and write the method by hand: the generated one calls `custom::FILE::NAME(cuda, call, ..)`,
//! FILE being the spec file's stem and `..` the parameters of the trait's method. Internal operations are always written by hand. What such a
//! function needs:
//!
//! | | |
//! |---|---|
//! | `cuda.raw().cuXxx(..)` | the driver's function; NOT_SUPPORTED if it has none. Any name with a row of its own is there, whatever its class, with its `_ptds` twin where it has no stream parameter. Handles and addresses are u64, enums u32, structures `*mut c_void`, by value `Bytes<N>` |
//! | `cuda.inward(Kind::CUstream, id)?` | id to driver handle |
//! | `cuda.room()?`, then `cuda.born(call, Kind::CUevent, raw, parent)?` | driver handle to id (`room` before the call, so that nothing is made that cannot be entered) |
//! | `let (raw, dying) = cuda.dying(kind, id)?; .. cuda.settle(&result, [dying])` | around a call that ends an object |
//! | `cuda.handles` | the table itself |
//! | `cuda.address(a)?`, `cuda.range(a, len)?` | is this the session's memory? |
//! | `Buffer::new(bytes)` | aligned copy of a block |
//! | `cuda.flushed(call)` | after a call that synchronises: has the device printed something? |
//!
//! The lane's thread is the driver's thread of that program thread: `lane_set_context` makes the context current on it, so calls need not.
//!
//! Every call may come from any lane's thread. Locks (handle table, memory table, output, callbacks) are leaves and are never held while the driver is
//! called.

pub mod alias;
pub mod buffer;
pub mod callback;
pub mod custom;
pub mod exchange;
pub mod graph_memory;
pub mod handles;
pub mod images;
pub mod launch;
pub mod lent;
pub mod library;
pub mod memory;
pub mod objects;
pub mod output;
pub mod primary;
pub mod private;
pub mod space;
pub mod staging;
pub mod start;
pub mod translate;
pub mod variables;
pub mod window;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use protocol::status::{CuResult, Status};

use crate::backend::{Backend, NotReady};
use crate::generated::cuda_raw::{Kind, Raw};
use crate::session::{Call, Lane, Session};
use crate::worker::guest_memory::Whole;
use alias::Aliases;
use buffer::Buffer;
use graph_memory::GraphMemory;
use handles::Handles;
use launch::Launched;
use memory::Memory;
use objects::Objects;
use output::Output;
use primary::Primaries;
use space::Space;
use staging::Events;
use start::Start;
use variables::Owners;

/// Kinds whose objects belong to the context that was current when they were made.
fn lives_in_context(kind: Kind) -> bool {
    matches!(
        kind,
        Kind::CUstream
            | Kind::CUevent
            | Kind::CUmodule
            | Kind::CUarray
            | Kind::CUmipmappedArray
            | Kind::CUtexref
    )
}

/// The backend of one worker.
pub struct CudaBackend {
    pub session: Arc<Session>,
    pub handles: Handles,
    pub memory: Memory,
    pub graph_memory: GraphMemory,
    pub space: Space,
    pub output: Output,
    pub objects: Objects,
    variables: Owners,
    raw: Raw,
    primaries: Primaries,
    events: Events,
    start: Start,
    launched: Launched,
    /// The machine's files, once the program has lent memory; None if they may not be mapped.
    whole: OnceLock<Option<Arc<Whole>>>,
    aliases: Aliases,
    /// Changes when a context goes, and with it what was registered.
    epoch: AtomicU64,
}

impl CudaBackend {
    /// A backend that calls the functions of `raw`. The driver is not initialised yet; the program's cuInit does that, or [`Backend::warm_up`].
    ///
    /// # Errors
    /// No descriptors are left.
    pub fn new(session: Arc<Session>, raw: Raw, space: Space) -> std::io::Result<Self> {
        let limits = &session.config.limits;
        Ok(Self {
            handles: Handles::new(limits.handles as usize),
            objects: Objects::default(),
            variables: Owners::default(),
            memory: Memory::new(limits.memory_bytes),
            graph_memory: GraphMemory::default(),
            space,
            output: Output::capture()?,
            raw,
            primaries: Primaries::default(),
            events: Events::default(),
            start: Start::default(),
            launched: Launched::default(),
            whole: OnceLock::new(),
            aliases: Aliases::default(),
            epoch: AtomicU64::new(1),
            session,
        })
    }

    /// The driver's functions.
    #[inline]
    pub fn raw(&self) -> &Raw {
        &self.raw
    }

    /// The driver's handle of an id. 0 is NULL.
    ///
    /// # Errors
    /// INVALID_CONTEXT for a context, else INVALID_HANDLE.
    pub fn inward(&self, kind: Kind, id: u64) -> CuResult<u64> {
        // Legacy and per-thread default stream.
        if id == 0 || (kind == Kind::CUstream && id <= buffer::PER_THREAD) {
            return Ok(id);
        }
        let found = match kind {
            Kind::CUfunction => self.handles.raw(&[Kind::CUfunction, Kind::CUkernel], id),
            _ => self.handles.raw(&[kind], id),
        };
        found.map_err(|_| invalid(kind))
    }

    /// Replaces each id of an array.
    ///
    /// # Errors
    /// As [`CudaBackend::inward`].
    pub fn inward_all(&self, kind: Kind, ids: &mut Buffer) -> CuResult {
        ids.each_of(8, |id| {
            let raw = self.inward(kind, buffer::word(id, 0))?;
            buffer::set_word(id, 0, raw);
            Ok(())
        })
    }

    /// Whether another handle can be made.
    ///
    /// # Errors
    /// OUT_OF_MEMORY at the session's limit.
    pub fn room(&self) -> CuResult {
        self.handles.room().map_err(|_| Status::OUT_OF_MEMORY)
    }

    /// The id of an object that a call has given; NULL is 0. It belongs to `parent`, or to what its kind says.
    ///
    /// # Errors
    /// OUT_OF_MEMORY at the session's limit.
    pub fn born(&self, call: &Call<'_>, kind: Kind, raw: u64, parent: Option<u64>) -> CuResult<u64> {
        if raw == 0 || (kind == Kind::CUstream && raw <= buffer::PER_THREAD) {
            return Ok(raw);
        }
        let parent = parent.unwrap_or(if lives_in_context(kind) { call.lane.context } else { 0 });
        self.handles.enter(kind, raw, parent).map_err(|_| Status::OUT_OF_MEMORY)
    }

    /// Replaces each of the driver's handles in an array by its id.
    ///
    /// # Errors
    /// As [`CudaBackend::born`].
    pub fn born_all(
        &self,
        call: &Call<'_>,
        kind: Kind,
        handles: &mut Buffer,
        parent: Option<u64>,
    ) -> CuResult {
        handles.each_of(8, |handle| {
            let id = self.born(call, kind, buffer::word(handle, 0), parent)?;
            buffer::set_word(handle, 0, id);
            Ok(())
        })
    }

    /// The driver's handle of an id that the next call ends, and the id for [`CudaBackend::settle`].
    ///
    /// # Errors
    /// As [`CudaBackend::inward`].
    pub fn dying(&self, kind: Kind, id: u64) -> CuResult<(u64, u64)> {
        // What is no object stays what it is: the driver says what is wrong with it.
        if id == 0 || (kind == Kind::CUstream && id <= buffer::PER_THREAD) {
            return Ok((id, 0));
        }
        self.handles.dying(kind, id).map(|raw| (raw, id)).map_err(|_| invalid(kind))
    }

    /// The call that was to end these objects has returned.
    pub fn settle<const N: usize>(&self, result: &CuResult, dying: [u64; N]) {
        for id in dying {
            self.handles.settle(id, result.is_ok());
        }
    }

    /// An address of the program, if it is 0 or in the session's memory.
    ///
    /// # Errors
    /// INVALID_VALUE.
    pub fn address(&self, address: u64) -> CuResult<u64> {
        if address == 0 { Ok(0) } else { self.range(address, 1) }
    }

    /// The address of `len` bytes that all lie in the session's memory: device memory, window, or registered memory at the program's address.
    ///
    /// # Errors
    /// INVALID_VALUE.
    #[allow(unsafe_code)]
    pub fn range(&self, address: u64, len: u64) -> CuResult<u64> {
        if let Some(offset) = self.session.window.offset(address) {
            let fits = len <= self.session.window.len() - offset;
            return if fits { Ok(address) } else { Err(Status::INVALID_VALUE) };
        }
        if self.memory.find(address).is_some() || self.graph_memory.contains(address, len) {
            // Beyond its end is device memory, or nothing that the device can reach.
            return Ok(address);
        }
        if self.aliases.contain(address, len) {
            return Ok(address);
        }
        // A variable of a module, mapped or imported memory, or the worker's own.
        let mut kind = 0u32;
        // SAFETY: the output is a variable of the attribute's type.
        let known = unsafe { self.raw.cuPointerGetAttribute((&raw mut kind).cast(), MEMORY_TYPE, address) };
        match known {
            Ok(()) if kind == MEMORYTYPE_DEVICE => Ok(address),
            _ => Err(Status::INVALID_VALUE),
        }
    }

    /// To be called before a context's contents go.
    pub fn context_goes(&self, context: u64) {
        self.handles.remove_children(context);
        self.events.context_gone(context);
        self.epoch.fetch_add(1, Ordering::AcqRel);
    }

    /// To be called after a context's contents have gone.
    pub fn context_gone(&self, context: u64) {
        self.memory.unreserve(self.objects.arrays.remove_context(context));
        self.variables.context_gone(context);
        for allocation in self.memory.remove_context(context) {
            if allocation.kind.is_in_window() {
                self.session.window.free(allocation.base);
            }
        }
    }

    fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Acquire)
    }

    /// To be called after what synchronises: tells the program if the device has printed something.
    pub fn flushed(&self, call: &mut Call<'_>) {
        call.device_output |= self.output_pending();
    }
}

/// `CU_POINTER_ATTRIBUTE_MEMORY_TYPE`, and its value for device memory (managed memory of the driver's own included).
const MEMORY_TYPE: u32 = 2;
const MEMORYTYPE_DEVICE: u32 = 2;

/// What the driver says of a handle that is none.
fn invalid(kind: Kind) -> Status {
    if kind == Kind::CUcontext { Status::INVALID_CONTEXT } else { Status::INVALID_HANDLE }
}

impl Backend for CudaBackend {
    fn warm_up(&self) -> Result<u32, NotReady> {
        self.prepare()
    }

    fn still_warm(&self) -> Result<(), NotReady> {
        self.look_alive()
            .map_err(|status| NotReady::Failed(format!("the device is not as it was: error {}", status.0)))
    }

    fn lane_closed(&self, lane: &Lane) {
        if lane.staging_epoch != 0 {
            self.unregister_staging(lane.staging.0);
        }
    }

    fn finished(&self, token: u64) -> bool {
        self.arrived(token)
    }

    fn may_print(&self) -> bool {
        self.output.may_print()
    }

    fn output_pending(&self) -> bool {
        self.output.pending()
    }
}
