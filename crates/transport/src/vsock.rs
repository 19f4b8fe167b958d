//! AF_VSOCK sockets: between a virtual machine and its host.
#![allow(unsafe_code)] // Socket addresses of this family go through libc.

use std::fs::File;
use std::io;
use std::mem;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// Context id of the host, as its guests see it.
pub const CID_HOST: u32 = libc::VMADDR_CID_HOST;
/// Every context id that is ours (to listen at).
pub const CID_ANY: u32 = libc::VMADDR_CID_ANY;
/// First context id that a virtual machine can have.
pub const FIRST_GUEST_CID: u32 = 3;

/// Where the host listens unless it is told otherwise.
pub const DEFAULT_PORT: u32 = 17237;

fn address(cid: u32, port: u32) -> libc::sockaddr_vm {
    // SAFETY: all zeros is a valid value of this structure of numbers.
    let mut address: libc::sockaddr_vm = unsafe { mem::zeroed() };
    address.svm_family = libc::AF_VSOCK as libc::sa_family_t;
    address.svm_cid = cid;
    address.svm_port = port;
    address
}

const LEN: libc::socklen_t = size_of::<libc::sockaddr_vm>() as libc::socklen_t;

fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// A new stream socket, close-on-exec.
pub(crate) fn socket(nonblocking: bool) -> io::Result<OwnedFd> {
    let flags = libc::SOCK_STREAM | libc::SOCK_CLOEXEC | if nonblocking { libc::SOCK_NONBLOCK } else { 0 };
    // SAFETY: takes numbers only.
    let fd = check(unsafe { libc::socket(libc::AF_VSOCK, flags, 0) })?;
    // SAFETY: the descriptor was just made and has no other owner.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

pub(crate) fn bind(socket: BorrowedFd<'_>, cid: u32, port: u32) -> io::Result<()> {
    let address = address(cid, port);
    // SAFETY: the address is a complete sockaddr_vm of the given length.
    check(unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), LEN) }).map(drop)
}

pub(crate) fn connect(socket: BorrowedFd<'_>, cid: u32, port: u32) -> io::Result<()> {
    let address = address(cid, port);
    // SAFETY: the address is a complete sockaddr_vm of the given length.
    check(unsafe { libc::connect(socket.as_raw_fd(), (&raw const address).cast(), LEN) }).map(drop)
}

/// Context id and port of the other side, as the kernel vouches for them; None if the socket is of another family.
pub(crate) fn peer(socket: BorrowedFd<'_>) -> io::Result<Option<(u32, u32)>> {
    let mut address = address(0, 0);
    let mut len = LEN;
    // SAFETY: the kernel writes at most `len` bytes to the structure, truncating longer addresses, and stores the length in `len`.
    check(unsafe { libc::getpeername(socket.as_raw_fd(), (&raw mut address).cast(), &raw mut len) })?;
    let ours = len >= LEN && libc::c_int::from(address.svm_family) == libc::AF_VSOCK;
    Ok(ours.then_some((address.svm_cid, address.svm_port)))
}

/// Our own context id, if /dev/vsock says it.
///
/// # Errors
/// There is no /dev/vsock, or it may not be opened.
pub fn local_cid() -> io::Result<u32> {
    /// `_IO(7, 0xb9)`, from linux/vm_sockets.h.
    const IOCTL_VM_SOCKETS_GET_LOCAL_CID: libc::Ioctl = 0x7b9;
    let device = File::open("/dev/vsock")?;
    let mut cid: libc::c_uint = 0;
    // SAFETY: this request stores an unsigned int at the pointer.
    check(unsafe { libc::ioctl(device.as_raw_fd(), IOCTL_VM_SOCKETS_GET_LOCAL_CID, &raw mut cid) })?;
    Ok(cid)
}

/// Whether this may be a virtual machine whose host can be asked for over vsock. It is not, for certain, where the kernel lacks vsock or says that we are a host.
pub fn may_be_guest() -> bool {
    match local_cid() {
        Ok(cid) => cid >= FIRST_GUEST_CID && cid != CID_ANY,
        // Not everybody may open it; sockets need no permission.
        Err(error) => error.kind() == io::ErrorKind::PermissionDenied,
    }
}
