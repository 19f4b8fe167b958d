#![allow(unsafe_code)]
//! The window of a session in a virtual machine: memory of the machine, which its broker (guest-kmod) vouches for to the host.
//!
//! A thread of its own maps it when the worker asks and unmaps it when the worker has done with it ([`protocol::window`]); other threads of the program wait
//! meanwhile for the answers to their calls. Unsafe because memory is mapped at given addresses.

use std::collections::HashMap;
use std::os::fd::AsFd;
use std::ptr::NonNull;
use std::sync::Arc;
use std::time::Duration;

use guest_device::Device;
use protocol::frame::Kind;
use protocol::status::{CuResult, Status};
use protocol::window::{Grow, Grown, MAX_BODY, Shrink};
use rustix::event::{PollFd, PollFlags, poll};
use transport::{Connection, Window};

use crate::background;

/// How long the rest of a message may take, or an answer to leave.
const TIMEOUT: Duration = Duration::from_secs(10);

/// A session with the machine's broker, if there is one with a host.
pub fn device() -> Option<Device> {
    match Device::open() {
        Ok(device) => Some(device),
        Err(error) => {
            crate::log!(Debug, "no shared memory with the host: {error}");
            None
        }
    }
}

/// Starts the thread that serves the worker's requests on the control connection.
///
/// # Safety
/// The addresses of `window` are reserved for the life of the process, and nobody else maps anything there.
pub unsafe fn serve(control: Arc<Connection>, device: Device, window: Arc<Window>) -> CuResult {
    background::spawn("cuda-window", move || {
        let mut server = Server { control, device, window, parts: HashMap::new(), body: Vec::new() };
        while server.next().is_some() {}
    })
}

struct Server {
    control: Arc<Connection>,
    device: Device,
    window: Arc<Window>,
    /// By offset in the window.
    parts: HashMap<u64, guest_device::Window>,
    body: Vec<u8>,
}

impl Server {
    /// Takes the next request. None at the session's end, or at what no worker says that works.
    fn next(&mut self) -> Option<()> {
        // The program may live for longer than any deadline.
        while poll(&mut [PollFd::new(&*self.control, PollFlags::IN)], None).is_err() {}
        let received = match self.control.receive(MAX_BODY, TIMEOUT) {
            Ok(received) => received,
            Err(transport::Error::HungUp) => return None,
            Err(error) => {
                crate::log!(Error, "the host's words about shared memory end: {error}");
                return None;
            }
        };
        match received.header.kind {
            Kind::WINDOW_GROW => {
                let grow = Grow::decode(&received.body).ok()?;
                let (status, region) = match self.grow(grow) {
                    Ok(region) => (Status::SUCCESS, region),
                    Err(status) => (status, 0),
                };
                let header = Grown { offset: grow.offset, region }.encode(status, &mut self.body);
                self.control.send(&header, &self.body, &[], TIMEOUT).ok()
            }
            Kind::WINDOW_SHRINK => {
                let offset = Shrink::decode(&received.body).ok()?.offset;
                if let Some(part) = self.parts.remove(&offset) {
                    // SAFETY: the worker has allocated nothing there any more, and no lane lies there.
                    unsafe { self.window.remove_piece(offset) };
                    // SAFETY: the range is the session's, reserved for the life of the process.
                    unsafe { part.into_reservation() };
                }
                Some(())
            }
            kind => {
                crate::log!(Error, "{kind:?} on the control connection");
                None
            }
        }
    }

    fn grow(&mut self, grow: Grow) -> Result<u64, Status> {
        let Grow { offset, len } = grow;
        if offset.checked_add(len).is_none_or(|end| end > self.window.len())
            || self.parts.iter().any(|(at, part)| *at < offset + len && offset < at + part.len_bytes() as u64)
        {
            crate::log!(Error, "the host asks for memory at {offset:#x}, where there is some or none may be");
            return Err(Status::INVALID_VALUE);
        }
        let at =
            NonNull::new(core::ptr::with_exposed_provenance_mut((self.window.address() + offset) as usize));
        // SAFETY: the range lies in the window (checked above), whose addresses are reserved for this; no part of it is mapped.
        let part = unsafe { self.device.window_at(at, len as usize) }.map_err(|error| {
            crate::log!(Info, "no {len:#x} bytes of shared memory: {error}");
            Status::OUT_OF_MEMORY
        })?;
        // SAFETY: mapped just now, and until `remove_piece` above, or for the life of the process.
        unsafe { self.window.add_piece(offset, len) }.map_err(|_| Status::INVALID_VALUE)?;
        let region = part.region();
        self.parts.insert(offset, part);
        Ok(region)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // The session is over, but threads may still look at their lanes: the memory stays until the process ends.
        self.parts.drain().for_each(|(_, part)| core::mem::forget(part));
    }
}

/// Descriptor of the broker's device, for a forked child to close.
pub fn descriptor(device: &Device) -> std::os::fd::RawFd {
    use std::os::fd::AsRawFd as _;
    device.as_fd().as_raw_fd()
}
