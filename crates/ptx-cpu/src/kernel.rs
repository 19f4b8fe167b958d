//! The description of a compiled kernel: what the code generator hands to the [engine](crate::engine).

use std::sync::Arc;

use crate::abi::KernelFn;

/// A compiled kernel. Plain data: whoever holds it must keep the machine code behind `entry` mapped for as long as it is launched.
#[derive(Clone, Debug)]
pub struct Kernel {
    /// Name as in the PTX `.entry`, for messages.
    pub name: Arc<str>,
    /// Entry point, called once per thread.
    pub entry: KernelFn,
    /// Bytes of a thread's frame (live registers across suspension points). 0 when the kernel never suspends.
    pub frame_len: u32,
    /// Bytes of `.local` memory per thread.
    pub local_len: u32,
    /// Bytes of static `.shared` memory per block.
    pub static_shared_len: u32,
    /// Whether `entry` may return [`Outcome::Parked`](crate::abi::Outcome::Parked). Kernels that cannot are run in a tight loop.
    pub suspends: bool,
}
