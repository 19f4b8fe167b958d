//! The structures of `guest-kmod/include/uapi/cuda_broker.h`. A test compiles that header and compares.

use rustix::ioctl::{Opcode, opcode};

/// Version of the interface.
pub const VERSION: u32 = 1;
/// Set in [`Release::flags`]: return when the host has confirmed.
pub const WAIT: u64 = 1;
/// Magic of the operations.
pub const MAGIC: u8 = 0xcb;

/// `CUDA_BROKER_INFO`
pub const INFO: Opcode = opcode::read::<Info>(MAGIC, 0);
/// `CUDA_BROKER_ALLOC_WINDOW`
pub const ALLOC_WINDOW: Opcode = opcode::read_write::<Window>(MAGIC, 1);
/// `CUDA_BROKER_PIN`
pub const PIN: Opcode = opcode::read_write::<Pin>(MAGIC, 2);
/// `CUDA_BROKER_RELEASE`
pub const RELEASE: Opcode = opcode::write::<Release>(MAGIC, 3);
/// `CUDA_BROKER_STATUS`
pub const STATUS: Opcode = opcode::read_write::<Status>(MAGIC, 4);

/// `struct cuda_broker_info`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Info {
    /// [`VERSION`]
    pub version: u32,
    /// 0
    pub reserved: u32,
    /// Secret of the session, for the program's hello to the daemon.
    pub cookie: [u64; 2],
    /// Longest region.
    pub max_region_bytes: u64,
    /// What this process may hold.
    pub process_limit_bytes: u64,
    /// What this user may hold.
    pub user_limit_bytes: u64,
}

/// `struct cuda_broker_window`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Window {
    /// In: bytes, a multiple of the page size.
    pub len: u64,
    /// In: 0.
    pub flags: u64,
    /// Out: id.
    pub region: u64,
    /// Out: for mmap of the device.
    pub mmap_offset: u64,
}

/// `struct cuda_broker_pin`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Pin {
    /// In: address of memory that may be written.
    pub address: u64,
    /// In: bytes.
    pub len: u64,
    /// In: 0.
    pub flags: u64,
    /// Out: id.
    pub region: u64,
    /// Out: where `address` lies in the region.
    pub offset: u64,
    /// Out: bytes of the region, whole pages.
    pub region_len: u64,
}

/// `struct cuda_broker_release`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Release {
    /// In: id.
    pub region: u64,
    /// In: 0 or [`WAIT`].
    pub flags: u64,
}

/// `struct cuda_broker_status`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Status {
    /// In: id, or 0 for the session alone.
    pub region: u64,
    /// Out: bytes of the region.
    pub region_len: u64,
    /// Out: 0 being added, 1 live, 2 given up and not confirmed.
    pub state: u32,
    /// Out: pieces that the host was told of.
    pub extents: u32,
    /// Out: regions of the session.
    pub regions: u64,
    /// Out: bytes of those.
    pub live_bytes: u64,
    /// Out: bytes that were given up and are not confirmed.
    pub waiting_bytes: u64,
    /// Out: bytes charged to the user.
    pub user_bytes: u64,
    /// Out: bytes charged to the process.
    pub process_bytes: u64,
}
