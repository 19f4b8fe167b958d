//! Recovery from hardware faults of generated code.
//!
//! Generated code runs on a stack of its own behind a small trampoline ([`KernelContext::enter`], [`Entered::call`]), which notes a
//! recovery point. SIGSEGV, SIGBUS, SIGFPE and SIGILL that hit a thread with an armed recovery point are turned into a return of that
//! call with [`FAULTED`]; `rt_fault` and `rt_exit` return to the same point by a jump. All other signals go to the handlers that were
//! installed before. [`install`] is called once by the worker process, never by the library itself.
//!
//! What makes the jump sound: it skips frames, and a skipped frame must hold nothing that needs dropping and no lock. These are
//! * generated frames: they hold registers and local depots only;
//! * the leaf function given to [`guarded`] (memmove, fill loops): touches memory, owns nothing;
//! * helpers without state (arithmetic, clocks): own nothing;
//! * helpers with state (printf, malloc, assert) run inside a [`HelperScope`]: a signal there is a defect of ours and goes to the
//!   previous handler, which ends the process. They touch device memory through [`guarded`] only, leave the scope before they
//!   call [`raise`], and refuse to start on a nearly full stack, so that they cannot overflow it with a lock held.
//!
//! Callee-saved registers are restored from the trampoline's own stack frame, which lies on the caller's stack, not on the kernel's;
//! MXCSR and the x87 control word are restored because a helper may be interrupted with another rounding mode.
#![allow(unsafe_code)] // Signal handlers, stacks, and a trampoline in assembly.

#[cfg(not(all(target_arch = "x86_64", target_os = "linux")))]
compile_error!("fault recovery is written for x86-64 Linux");

mod signal;
mod stack;

use std::cell::UnsafeCell;
use std::ffi::c_void;
use std::marker::PhantomData;
use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering, compiler_fence};

use crate::abi::{Block, FaultKind, KernelFn, REGION_MARGIN, REGION_SHIFT, STACK_RESERVE, Thread};

pub use signal::install;
use stack::{AltStack, Stack};

/// Result of [`Entered::call`] for a call that ended in a fault; other results are [`Outcome`](crate::abi::Outcome)s.
pub const FAULTED: u32 = 2;

/// Stack that a helper with state wants to find free.
const HELPER_STACK: u64 = 64 << 10;

/// Why a protected call was ended.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// What happened.
    pub kind: FaultKind,
    /// Address of the access, 0 where there is none or the processor does not tell (non-canonical addresses).
    pub address: u64,
    /// Instruction that faulted; 0 if reported by `rt_fault`.
    pub pc: u64,
    /// An access outside the region: the generated code failed to check the address. A defect to report.
    pub outside_region: bool,
}

/// Where to go on when a protected call faults. The first four fields are known to the assembly below.
#[repr(C)]
struct Recovery {
    /// Stack pointer of the trampoline's frame; 0 when no call is in progress.
    saved_rsp: u64,
    /// Top of the stack to run on; 0 to stay on the caller's.
    stack_top: u64,
    mxcsr: u32,
    fpu_control: u16,
    in_helper: bool,
    /// `[guard_start, guard_end)` below the stack: an access there is an overflow.
    guard_start: u64,
    guard_end: u64,
    /// Where generated code may fault: the region and its margins. Empty: anywhere.
    expected_start: u64,
    expected_end: u64,
    fault: Fault,
}

impl Recovery {
    fn new() -> Self {
        let (mut mxcsr, mut fpu_control) = (0u32, 0u16);
        // SAFETY: stores two control words into locals.
        unsafe {
            std::arch::asm!(
                "stmxcsr [{}]", "fnstcw [{}]",
                in(reg) &raw mut mxcsr, in(reg) &raw mut fpu_control, options(nostack, preserves_flags)
            );
        }
        Recovery {
            saved_rsp: 0,
            stack_top: 0,
            mxcsr,
            fpu_control,
            in_helper: false,
            guard_start: 0,
            guard_end: 0,
            expected_start: 0,
            expected_end: 0,
            fault: Fault { kind: FaultKind::Trap, address: 0, pc: 0, outside_region: false },
        }
    }
}

thread_local! {
    /// Recovery record of this thread's innermost protected scope. Read by the signal handler: constant initialiser, no destructor.
    static CURRENT: AtomicPtr<Recovery> = const { AtomicPtr::new(ptr::null_mut()) };
}

fn current() -> *mut Recovery {
    CURRENT.with(|current| current.load(Ordering::Relaxed))
}

fn replace_current(new: *mut Recovery) -> *mut Recovery {
    let old = CURRENT.with(|current| current.swap(new, Ordering::Relaxed));
    // The only concurrent reader is a signal handler on this thread.
    compiler_fence(Ordering::SeqCst);
    old
}

std::arch::global_asm!(
    ".pushsection .text.ptx_cpu_protected_call,\"ax\",@progbits",
    ".globl ptx_cpu_protected_call",
    ".hidden ptx_cpu_protected_call",
    ".type ptx_cpu_protected_call,@function",
    ".p2align 4",
    // u32 ptx_cpu_protected_call(function rdi, argument0 rsi, argument1 rdx, recovery rcx)
    "ptx_cpu_protected_call:",
    "push rbp",
    "push rbx",
    "push r12",
    "push r13",
    "push r14",
    "push r15",
    "mov rbx, rcx",
    "mov [rcx], rsp",
    // Entered with rsp = 16n + 8, six pushes later the same: 8 more aligns the stack for the call.
    "lea r8, [rsp - 8]",
    "mov r9, [rcx + 8]",
    "test r9, r9",
    "cmovnz r8, r9",
    "mov rsp, r8",
    "mov rax, rdi",
    "mov rdi, rsi",
    "mov rsi, rdx",
    "call rax",
    "mov rcx, rbx",
    "2:",
    "mov rsp, [rcx]",
    "mov qword ptr [rcx], 0",
    "pop r15",
    "pop r14",
    "pop r13",
    "pop r12",
    "pop rbx",
    "pop rbp",
    "ret",
    // Reached by a jump or from the signal handler: recovery rcx, result eax.
    ".globl ptx_cpu_recover",
    ".hidden ptx_cpu_recover",
    "ptx_cpu_recover:",
    "cld",
    "ldmxcsr [rcx + 16]",
    "fnclex",
    "fldcw [rcx + 20]",
    "jmp 2b",
    ".size ptx_cpu_protected_call, . - ptx_cpu_protected_call",
    ".popsection",
);

unsafe extern "C" {
    fn ptx_cpu_protected_call(
        function: *const c_void,
        argument0: *mut c_void,
        argument1: *const c_void,
        recovery: *mut Recovery,
    ) -> u32;
    fn ptx_cpu_recover();
}

/// A stack and recovery record for running kernels; belongs to one thread at a time.
pub struct KernelContext {
    recovery: Box<UnsafeCell<Recovery>>,
    alternate: AltStack,
    _stack: Stack,
}

// SAFETY: the pointers inside are owned mappings without thread affinity; `Entered` borrows mutably and is itself not Send.
unsafe impl Send for KernelContext {}

impl KernelContext {
    /// Maps a stack of `stack_len` bytes ([`STACK_RESERVE`] more than is used before recursion is stopped) with a guard below, and a stack for signals. `region_tag` is that of the
    /// [`Region`](crate::region::Region): faults elsewhere are marked as [`Fault::outside_region`].
    pub fn new(stack_len: usize, region_tag: u64) -> std::io::Result<Self> {
        let stack = Stack::new(stack_len.max(2 * STACK_RESERVE as usize))?;
        let mut recovery = Recovery::new();
        recovery.stack_top = stack.top();
        (recovery.guard_start, recovery.guard_end) = stack.guard();
        if region_tag != 0 {
            recovery.expected_start = (region_tag << REGION_SHIFT) - REGION_MARGIN;
            recovery.expected_end = ((region_tag + 1) << REGION_SHIFT) + REGION_MARGIN;
        }
        Ok(KernelContext {
            recovery: Box::new(UnsafeCell::new(recovery)),
            alternate: AltStack::new()?,
            _stack: stack,
        })
    }

    /// Value for [`Thread::stack_limit`].
    pub fn stack_limit(&self) -> u64 {
        // SAFETY: no call is in progress that could change the record.
        unsafe { (*self.recovery.get()).guard_end + STACK_RESERVE }
    }

    /// Makes this thread one that runs kernels until the result is dropped.
    pub fn enter(&mut self) -> Entered<'_> {
        let previous_alternate = self.alternate.activate();
        let previous = replace_current(self.recovery.get());
        Entered { context: self, previous, previous_alternate, _not_send: PhantomData }
    }
}

/// A thread's permission to run kernels under protection. Not Send: the recovery record is thread-local.
pub struct Entered<'c> {
    context: &'c mut KernelContext,
    previous: *mut Recovery,
    previous_alternate: libc::stack_t,
    _not_send: PhantomData<*mut ()>,
}

impl Entered<'_> {
    /// Calls a kernel for one thread: an [`Outcome`](crate::abi::Outcome) as number, or [`FAULTED`].
    ///
    /// # Safety
    /// `entry` must be code that keeps to the contract of [`abi`](crate::abi), `thread` and `block` valid for it. Must be the
    /// innermost `Entered` of this thread.
    #[inline]
    pub unsafe fn call(&self, entry: KernelFn, thread: *mut Thread, block: *const Block) -> u32 {
        let recovery = self.context.recovery.get();
        // SAFETY: the trampoline's signature fits KernelFn; the recovery record is this thread's current one (caller's promise).
        unsafe { ptx_cpu_protected_call(entry as *const c_void, thread.cast(), block.cast(), recovery) }
    }

    /// Value for [`Thread::stack_limit`].
    pub fn stack_limit(&self) -> u64 {
        self.context.stack_limit()
    }

    /// The fault that the last call ended with, if it returned [`FAULTED`].
    pub fn fault(&self) -> Fault {
        // SAFETY: no call is in progress, and only this thread writes the record.
        unsafe { (*self.context.recovery.get()).fault }
    }
}

impl Drop for Entered<'_> {
    fn drop(&mut self) {
        replace_current(self.previous);
        self.context.alternate.restore(&self.previous_alternate);
    }
}

/// Runs `function(argument)`, which returns 0, such that a fault in it ends the call with an error.
///
/// # Safety
/// `function` must be sound to call with `argument` but for faults, and sound to abandon at any instruction: it owns nothing that
/// needs dropping, holds no lock and does not call back into this crate.
pub unsafe fn guarded(
    function: unsafe extern "C" fn(*mut c_void) -> u32,
    argument: *mut c_void,
) -> Result<(), Fault> {
    let recovery = UnsafeCell::new(Recovery::new());
    let previous = replace_current(recovery.get());
    // SAFETY: the function takes its argument in the first register and ignores the second. The record outlives the call.
    let result =
        unsafe { ptx_cpu_protected_call(function as *const c_void, argument, ptr::null(), recovery.get()) };
    replace_current(previous);
    if result == FAULTED { Err(recovery.into_inner().fault) } else { Ok(()) }
}

/// Ends the running kernel call with a fault.
///
/// # Safety
/// Only from code that a protected call has entered, with nothing that needs dropping in any frame up to there.
pub unsafe fn raise(kind: FaultKind, address: u64) -> ! {
    let recovery = current();
    // SAFETY: `leave` checks the pointer and that a call is in progress before anything else uses it.
    unsafe {
        if !recovery.is_null() {
            (*recovery).fault = Fault { kind, address, pc: 0, outside_region: false };
        }
        leave(recovery, FAULTED)
    }
}

/// Ends the running kernel call as if the thread had returned from its entry.
///
/// # Safety
/// As [`raise`].
pub unsafe fn finish_thread() -> ! {
    // SAFETY: the caller's promise.
    unsafe { leave(current(), crate::abi::Outcome::Done as u32) }
}

unsafe fn leave(recovery: *mut Recovery, result: u32) -> ! {
    // SAFETY: the record is valid while it is current; with a call in progress, its saved stack pointer is that of the trampoline.
    unsafe {
        if recovery.is_null() || (*recovery).saved_rsp == 0 {
            tracing::error!("a kernel helper was called outside of a kernel");
            std::process::abort();
        }
        (*recovery).in_helper = false;
        std::arch::asm!(
            "jmp {recover}", recover = sym ptx_cpu_recover,
            in("rcx") recovery, in("eax") result, options(noreturn)
        );
    }
}

/// Marks a helper with state: while it lives, signals are not turned into kernel faults.
pub(crate) struct HelperScope(*mut Recovery);

impl HelperScope {
    /// Begins the scope, or ends the kernel with a stack overflow when less stack is left than helpers need.
    ///
    /// # Safety
    /// As [`raise`].
    pub(crate) unsafe fn begin() -> HelperScope {
        let recovery = current();
        let here = (&raw const recovery) as u64;
        // SAFETY: a current record is valid; `raise` by the caller's promise.
        unsafe {
            if !recovery.is_null() {
                let (low, top) = ((*recovery).guard_end, (*recovery).stack_top);
                if (low..top).contains(&here) && here - low < HELPER_STACK {
                    raise(FaultKind::StackOverflow, here);
                }
                set_in_helper(recovery, true);
            }
        }
        HelperScope(recovery)
    }
}

impl Drop for HelperScope {
    fn drop(&mut self) {
        if !self.0.is_null() {
            // SAFETY: the record is valid while it is current, which it is again: scopes nest.
            unsafe { set_in_helper(self.0, false) };
        }
    }
}

/// Sets what the signal handler, which may interrupt this thread anywhere, takes the faulting code for. The compiler knows of no reader between two of these stores, and would drop the first, or
/// move it past what may fault, if they were plain.
///
/// # Safety
/// The record is valid.
unsafe fn set_in_helper(recovery: *mut Recovery, in_helper: bool) {
    compiler_fence(Ordering::SeqCst);
    // SAFETY: by the caller's promise; the record is this thread's alone.
    unsafe { (&raw mut (*recovery).in_helper).write_volatile(in_helper) };
    compiler_fence(Ordering::SeqCst);
}

#[cfg(test)]
mod tests;
