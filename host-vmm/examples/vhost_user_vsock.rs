//! A vhost-user vsock device for QEMU whose ports are unix sockets: a connection of the guest to port P becomes one to `PREFIX_P`.
//!
//! For trying `host_vmm::vhost_user` with a guest and anything that listens on unix sockets. It says what the device tells: the guest's memory,
//! and the port that each connection comes from.

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use anyhow::{Result, bail};
use host_vmm::vhost_user::{Host, VhostUserVsock};
use host_vmm::vmm::memory::GuestRam;

struct Ports {
    prefix: String,
}

impl Host for Ports {
    fn memory(&self, ram: GuestRam) {
        for region in &ram.regions {
            println!(
                "memory: {:#x} bytes at {:#x}, in the file at {:#x}",
                region.len_bytes, region.gpa, region.offset_bytes
            );
        }
    }

    fn connect(&self, source_port: u32, port: u32) -> Option<OwnedFd> {
        let end = UnixStream::connect(format!("{}_{port}", self.prefix));
        println!("port {source_port} -> {port}: {}", if end.is_ok() { "connected" } else { "refused" });
        end.ok().map(OwnedFd::from)
    }

    fn gone(&self) {
        println!("gone");
    }
}

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [socket, cid, prefix] = &arguments[..] else { bail!("usage: vhost_user_vsock SOCKET CID PREFIX") };
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    let host = Arc::new(Ports { prefix: prefix.clone() });
    let _back_end = VhostUserVsock::listen(socket.as_ref(), cid.parse()?, host)?;
    loop {
        std::thread::park();
    }
}
