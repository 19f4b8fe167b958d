//! The contract between generated code and the execution engine.
//!
//! Generated code is entered once per thread with [`KernelFn`] and either runs to the end of the thread or *parks*: it stores its live
//! registers in the thread's frame, its resume point in [`Thread::resume`], the operation it waits for in [`Thread::park`], and returns
//! [`Outcome::Parked`]. The engine resolves the operation together with the other threads of the block or warp, writes
//! [`Park::result`] and [`Park::predicate`], and enters the function again, which continues at the resume point.
//! This is the "threads as continuations" design: every synchronising instruction is a suspension point, so divergent barriers,
//! partial-mask shuffles and early-exited threads need no special case. A later gang shape (several adjacent threads in lockstep)
//! shares these structures: it spills to and resumes from the same frames.
//!
//! Address spaces as generated code sees them:
//! * generic and `.global`/`.const`: addresses inside the [region](crate::region), checked by `address >> REGION_SHIFT == region tag`
//!   before every access; unmapped pages inside the region fault and are reported as an illegal address;
//! * `.shared`: byte offsets in `[0, Block::shared_len)`; generic = `Block::shared_base + offset`;
//! * `.local`: byte offsets in `[0, local_len of the kernel)`; generic = `Thread::local_base + offset`;
//! * `.param` of a kernel: byte offsets in the parameter buffer; generic = `Block::params + offset`.
//!
//! A block runs on one worker at a time, and a thread runs undisturbed by the other threads of its block until it parks. Atomics on
//! `.shared` are therefore compiled to plain reads and writes; `.global` and generic ones are atomic on the host.
//!
//! Registers narrower than 32 bits are kept at their exact width; in [`Park`] fields values are zero-extended to 64 bits.
//!
//! The shared arena, the local depots and the parameter buffer lie inside the region, so that one check covers generic accesses.

/// log2 of the size of the region (4 TiB). The region's base is `tag << REGION_SHIFT`.
pub const REGION_SHIFT: u32 = 42;

/// Inaccessible address space (in bytes) that must surround the region on both sides, and that must stay unallocated at both ends inside it.
///
/// Generated code checks the *base register* of an access against the region and then adds the instruction's constant offset
/// (at most `REGION_MARGIN / 2` in magnitude), so that one check serves several accesses. The outer margin catches what leaves the
/// region (a fault there is an illegal address), the inner one keeps a valid address's base register inside it.
pub const REGION_MARGIN: u64 = 1 << 32;

/// Entry point of a compiled kernel: runs one thread until it ends or parks.
///
/// A kernel that never suspends may run further threads: it goes on with those of the same row, up to `ntid[0]`, and leaves the last one's
/// index in `Thread::tid[0]` (also when it ends early, by `rt_exit` or a fault). The caller goes on behind that thread.
///
/// Returns an [`Outcome`] as `u32`. Must be called under the engine's fault protection.
pub type KernelFn = unsafe extern "C" fn(thread: *mut Thread, block: *const Block) -> u32;

/// How a call of a [`KernelFn`] ended.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The thread executed `ret` or `exit` in the kernel.
    Done = 0,
    /// The thread waits for [`Thread::park`].
    Parked = 1,
}

/// State of one thread of a block.
#[repr(C)]
pub struct Thread {
    /// Resume point: 0 is the kernel's entry.
    pub resume: u32,
    /// `%laneid`
    pub lane: u32,
    /// `%warpid`
    pub warp: u32,
    /// Index in the block: `x + y * ntid.x + z * ntid.x * ntid.y`.
    pub linear: u32,
    /// `%tid`
    pub tid: [u32; 3],
    pub reserved: u32,
    /// Generic address of the thread's local depot, 16-byte aligned.
    pub local_base: u64,
    /// Live registers across suspension points, `frame_len` bytes of the kernel, 16-byte aligned. Host memory outside the region.
    pub frame: *mut u8,
    pub park: Park,
    /// Lowest host stack address at which a called function may still start (recursion is stopped there with
    /// [`FaultKind::StackOverflow`]). Below it the engine keeps at least [`STACK_RESERVE`] bytes. 0: no limit.
    pub stack_limit: u64,
}

/// Host stack that one kernel or device function and the helpers it calls may need below [`Thread::stack_limit`].
/// Compilation refuses functions with larger frames than half of it. A kernel is entered with at least this much stack.
pub const STACK_RESERVE: u64 = 512 << 10;

/// The operation a parked thread waits for, and its result.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Park {
    /// One of [`op`].
    pub op: u32,
    /// Member mask of warp operations; barrier number of barriers.
    pub mask: u32,
    /// Operation-specific: see [`op`].
    pub a: u64,
    pub b: u64,
    pub c: u64,
    /// Value result; for predicates see below.
    pub result: u64,
    /// Predicate result (0 or 1), e.g. of `shfl.sync d|p`.
    pub predicate: u64,
}

/// Values of [`Park::op`].
pub mod op {
    /// `bar.sync` / `barrier.sync`: `mask` = barrier number (0..16), `a` = thread count or 0 for all threads.
    pub const BARRIER_SYNC: u32 = 1;
    /// `barrier.arrive`: as `BARRIER_SYNC`, but the thread continues at once.
    pub const BARRIER_ARRIVE: u32 = 2;
    /// `bar.red.popc.u32`: `b` = predicate; `result` = number of threads with a true predicate.
    pub const BARRIER_RED_POPC: u32 = 3;
    /// `bar.red.and.pred`: `b` = predicate; `predicate` = all.
    pub const BARRIER_RED_AND: u32 = 4;
    /// `bar.red.or.pred`: `b` = predicate; `predicate` = any.
    pub const BARRIER_RED_OR: u32 = 5;
    /// `bar.warp.sync`
    pub const WARP_SYNC: u32 = 6;
    /// `shfl.sync.{up,down,bfly,idx}.b32`: `a` = value, `b` = lane/offset operand, `c` = clamp-and-segment operand.
    /// `result` = value of the source lane (own value when out of range), `predicate` = in range.
    pub const SHFL_UP: u32 = 8;
    pub const SHFL_DOWN: u32 = 9;
    pub const SHFL_BFLY: u32 = 10;
    pub const SHFL_IDX: u32 = 11;
    /// `vote.sync.{all,any,uni}.pred` and `.ballot.b32`: `a` = predicate; result in `predicate`, for ballot in `result`.
    pub const VOTE_ALL: u32 = 16;
    pub const VOTE_ANY: u32 = 17;
    pub const VOTE_UNI: u32 = 18;
    pub const VOTE_BALLOT: u32 = 19;
    /// `match.any.sync.{b32,b64}`: `a` = value, `result` = mask of equal lanes.
    pub const MATCH_ANY: u32 = 20;
    /// `match.all.sync`: `result` = member mask if all are equal, else 0; `predicate` = all equal.
    pub const MATCH_ALL: u32 = 21;
    /// `activemask.b32`: `result` = lanes of the warp parked at the same resume point; no mask operand.
    pub const ACTIVE_MASK: u32 = 22;
    /// `elect.sync`: `result` = elected lane, `predicate` = this lane is it.
    pub const ELECT: u32 = 23;
    /// `redux.sync.*`: `a` = value (32 bit, zero-extended), `result`.
    pub const REDUX_ADD: u32 = 32;
    pub const REDUX_MIN_U: u32 = 33;
    pub const REDUX_MAX_U: u32 = 34;
    pub const REDUX_MIN_S: u32 = 35;
    pub const REDUX_MAX_S: u32 = 36;
    pub const REDUX_AND: u32 = 37;
    pub const REDUX_OR: u32 = 38;
    pub const REDUX_XOR: u32 = 39;
    /// Back edge of a loop that may spin on memory, or `nanosleep`: let others run. No result.
    pub const YIELD: u32 = 48;
}

/// State of one block (CTA), shared by its threads; read-only to generated code.
#[repr(C)]
pub struct Block {
    /// `%ctaid`
    pub ctaid: [u32; 3],
    /// `%nctaid`
    pub nctaid: [u32; 3],
    /// `%ntid`
    pub ntid: [u32; 3],
    /// Bytes of shared memory: static (kernel's `static_shared_len`) + dynamic. The dynamic part starts at the static length.
    pub shared_len: u32,
    /// `%dynamic_smem_size`
    pub dynamic_shared_len: u32,
    /// `%gridid` (low half)
    pub grid_id: u32,
    /// Generic address of the block's shared memory, 128-byte aligned.
    pub shared_base: u64,
    /// Generic address of the kernel's parameter buffer, 64-byte aligned.
    pub params: u64,
    /// Generic address of the workspace of a cooperative grid, 0 for others: `%envreg1` is its high half, `%envreg2` the low one. Two words,
    /// a size and the barrier's state, zero at launch; the grid barrier in the program's own code spins on the second.
    pub grid_workspace: u64,
    /// Opaque pointer for the [helpers](crate::helpers).
    pub engine: *const core::ffi::c_void,
}

/// Why a kernel was stopped. The numeric values are passed to the `rt_fault` helper.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultKind {
    /// Access outside any allocation (CUDA_ERROR_ILLEGAL_ADDRESS).
    IllegalAddress = 1,
    /// Address not a multiple of the access size (CUDA_ERROR_MISALIGNED_ADDRESS).
    MisalignedAddress = 2,
    /// `trap`, unreachable code (CUDA_ERROR_LAUNCH_FAILED; CUDA_ERROR_ILLEGAL_INSTRUCTION for `brkpt`-like).
    Trap = 3,
    /// `__assertfail` (CUDA_ERROR_ASSERT).
    Assert = 4,
    /// Indirect call of an address that is no function (CUDA_ERROR_INVALID_PC).
    InvalidPc = 5,
    /// Local or stack memory exhausted, e.g. by recursion (CUDA_ERROR_LAUNCH_FAILED as on a GPU's stack overflow).
    StackOverflow = 6,
    /// A synchronisation that can never complete: all threads parked at operations that no one can satisfy (reported, not hung).
    Deadlock = 7,
}

/// Names and signatures of the functions that generated code may call. All are `extern "C"`; the engine supplies their addresses with
/// `crate::helpers::table()` and code generation imports them by name. Those marked `-> !` do not return: they unwind to the engine's
/// recovery point with a jump, so generated frames hold nothing that needs dropping.
///
/// | name | signature |
/// |---|---|
/// | `rt_fault` | `(thread: *mut Thread, block: *const Block, kind: u32, address: u64) -> !` |
/// | `rt_exit` | `(thread: *mut Thread) -> !` (`exit` inside a called function: ends the thread) |
/// | `rt_vprintf` | `(thread, block, format: u64, args: u64) -> i32` (generic addresses; args as PTX's vprintf lays them out) |
/// | `rt_malloc` | `(thread, block, len: u64) -> u64` |
/// | `rt_free` | `(thread, block, address: u64)` |
/// | `rt_assertfail` | `(thread, block, message: u64, file: u64, line: u32, function: u64, char_size: u64) -> !` |
/// | `rt_clock64` | `() -> u64` |
/// | `rt_globaltimer` | `() -> u64` (ns) |
/// | `rt_sin_f32`, `rt_cos_f32`, `rt_tanh_f32`, `rt_ex2_f32`, `rt_lg2_f32` | `(f32) -> f32` |
/// | `rt_ex2_f64`, `rt_lg2_f64` | `(f64) -> f64` |
/// | `rt_fma_f32`, `rt_fma_f64` | fused, for machines without FMA |
/// | `rt_fma_f32_mode`, `rt_add_f32_mode`, `rt_mul_f32_mode`, `rt_div_f32_mode`, `rt_sqrt_f32_mode`, and `_f64` | `(a, b, c as needed, mode: u32)`: directed rounding, mode 0 rn, 1 rz, 2 rm, 3 rp |
/// | `rt_cvt_f64_f32_mode` | `(f64, mode) -> f32` |
/// | `rt_cvt_int_f32_mode`, `rt_cvt_int_f64_mode` | `(value: u64, signed: u32, mode: u32) -> f32 / f64` |
/// | `rt_f16_to_f32`, `rt_bf16_to_f32` | `(u32) -> f32` |
/// | `rt_f32_to_f16`, `rt_f32_to_bf16`, `rt_f64_to_f16` | `(value, mode: u32) -> u32` |
/// | `rt_fma_f16`, `rt_fma_bf16` | `(u32, u32, u32) -> u32` |
pub mod helper_names {}
