//! A small virtual machine monitor on KVM: enough for stock Linux kernels, whose devices it exposes as virtio-mmio found by ACPI.
//!
//! One thread per processor, one for the devices that are emulated here; vsock is carried by the host kernel (vhost) without us. Lock
//! order: a transport's lock, then its device's lock. All that comes from the guest (register accesses, rings, descriptors) is
//! hostile: it can at most end or confuse its own machine.

pub mod acpi;
pub mod boot;
pub mod bus;
pub mod channel;
pub mod command;
mod cpuid;
mod error;
pub mod guest;
pub mod initramfs;
pub mod layout;
pub mod legacy;
pub mod machine;
pub mod memory;
pub mod prepare;
pub mod qemu;
mod service;
pub mod stop;
pub mod vcpu;
pub mod virtio;
pub mod vm;

pub use error::{Error, Result};
