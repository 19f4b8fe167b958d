//! The host's side of the test, as the guest sees it: lines of text over a vsock connection to `host-vmm`'s example `broker_endpoint`.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::os::fd::FromRawFd;

use anyhow::{Context, Result, bail};

use guest_device::Device;

/// Port of the endpoint's commands.
const PORT: u32 = 7103;

/// A connection on which commands are given.
pub struct Agent {
    stream: BufReader<File>,
}

impl Agent {
    /// Connects.
    pub fn connect() -> Result<Agent> {
        // SAFETY: sockaddr_vm is plain data.
        let mut address: libc::sockaddr_vm = unsafe { std::mem::zeroed() };
        address.svm_family = libc::AF_VSOCK as u16;
        address.svm_cid = libc::VMADDR_CID_HOST;
        address.svm_port = PORT;
        // SAFETY: the address is valid for its length; the descriptor is owned by the File.
        let file = unsafe {
            let fd = libc::socket(libc::AF_VSOCK, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0);
            if fd < 0 {
                bail!("socket: {}", std::io::Error::last_os_error());
            }
            let file = File::from_raw_fd(fd);
            let len = size_of::<libc::sockaddr_vm>() as libc::socklen_t;
            if libc::connect(fd, (&raw const address).cast(), len) != 0 {
                bail!("connect: {}", std::io::Error::last_os_error());
            }
            file
        };
        Ok(Agent { stream: BufReader::new(file) })
    }

    /// Connects and names the session of `device`.
    pub fn of(device: &Device) -> Result<Agent> {
        let mut agent = Agent::connect()?;
        let [a, b] = device.cookie();
        agent.ask(&format!("claim {a} {b}"))?;
        Ok(agent)
    }

    /// Gives a command; returns what follows `ok` in the answer.
    pub fn ask(&mut self, command: &str) -> Result<String> {
        self.stream.get_mut().write_all(format!("{command}\n").as_bytes()).context("to the endpoint")?;
        let mut line = String::new();
        self.stream.read_line(&mut line).context("from the endpoint")?;
        match line.trim_end().strip_prefix("ok") {
            Some(rest) => Ok(rest.trim().to_string()),
            None => bail!("{command}: {}", line.trim_end()),
        }
    }
}
