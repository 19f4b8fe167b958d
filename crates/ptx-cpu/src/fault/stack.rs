//! Stacks for kernels and for signal handlers.

use std::io;
use std::ptr;

/// Inaccessible space below a kernel's stack: bigger than any one frame of generated code, so that it cannot be stepped over.
const GUARD_LEN: usize = 1 << 20;
/// Room for the handler and the processor's register state (AVX-512 and AMX included).
const ALTERNATE_LEN: usize = 64 << 10;

/// A mapped stack with a guard below.
pub(super) struct Stack {
    base: *mut libc::c_void,
    len: usize,
}

impl Stack {
    pub(super) fn new(stack_len: usize) -> io::Result<Stack> {
        let stack_len = stack_len.clamp(128 << 10, 1 << 30).next_multiple_of(4096);
        let len = stack_len + GUARD_LEN;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE | libc::MAP_STACK;
        // SAFETY: a new mapping at an address of the kernel's choice.
        let base = unsafe { libc::mmap(ptr::null_mut(), len, libc::PROT_NONE, flags, -1, 0) };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let stack = Stack { base, len };
        // SAFETY: the part above the guard of the mapping just made.
        let result = unsafe {
            libc::mprotect(base.byte_add(GUARD_LEN), stack_len, libc::PROT_READ | libc::PROT_WRITE)
        };
        if result != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(stack)
    }

    /// Address just above the stack, 16-byte aligned.
    pub(super) fn top(&self) -> u64 {
        self.base as u64 + self.len as u64
    }

    pub(super) fn guard(&self) -> (u64, u64) {
        (self.base as u64, self.base as u64 + GUARD_LEN as u64)
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        // SAFETY: our own mapping; nothing runs on it, its context is being dropped.
        unsafe { libc::munmap(self.base, self.len) };
    }
}

/// Memory for `sigaltstack`.
pub(super) struct AltStack {
    memory: Stack,
}

impl AltStack {
    pub(super) fn new() -> io::Result<AltStack> {
        Ok(AltStack { memory: Stack::new(ALTERNATE_LEN)? })
    }

    /// Installs it for this thread and returns what was there before.
    pub(super) fn activate(&self) -> libc::stack_t {
        let (_, base) = self.memory.guard();
        let new = libc::stack_t {
            ss_sp: base as *mut libc::c_void,
            ss_flags: 0,
            ss_size: (self.memory.top() - base) as usize,
        };
        let mut old = libc::stack_t { ss_sp: ptr::null_mut(), ss_flags: libc::SS_DISABLE, ss_size: 0 };
        // SAFETY: the memory lives as long as the context, which restores the old stack before it goes.
        let result = unsafe { libc::sigaltstack(&new, &mut old) };
        debug_assert_eq!(result, 0);
        old
    }

    pub(super) fn restore(&self, old: &libc::stack_t) {
        // SAFETY: a description that the kernel gave us, whose owner still runs on this thread.
        let result = unsafe { libc::sigaltstack(old, ptr::null_mut()) };
        debug_assert_eq!(result, 0);
    }
}
