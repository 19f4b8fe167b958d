//! How a virtual machine with a memory broker is described on the command line, and by `boot`.

use std::fmt;
use std::fs::File;
use std::path::PathBuf;
use std::str::FromStr;

use anyhow::Context as _;
use protocol::broker::PORT;
use transport::{Address, vsock};

use super::access::Owner;
use crate::broker::qemu::{self, Layout};
use crate::cli::size;
use crate::vmm::memory::GuestRam;

/// A virtual machine whose memory the daemon may map: `cid=3,memory=/dev/shm/vm3,size=4G`, `sockets=/run/vm/vm.vsock,memory=/dev/shm/vm`.
#[derive(Clone, Debug)]
pub struct GuestSpec {
    place: Place,
    memory: Memory,
}

/// How the machine reaches the daemon.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Place {
    /// By the host kernel's vsock.
    Machine { cid: u32, broker_port: u32 },
    /// By unix sockets `PREFIX_PORT` of a user-space vsock device.
    Sockets(PathBuf),
}

/// Where its memory is.
#[derive(Clone, Debug)]
enum Memory {
    /// In the file of a QEMU memory backend, which is made with this size if need be.
    File { path: PathBuf, size: Option<u64>, layout: Layout },
    /// In files of this process.
    Ram(GuestRam),
}

impl GuestSpec {
    /// A machine that this process runs.
    pub fn own(cid: u32, broker_port: u32, ram: GuestRam) -> Self {
        Self { place: Place::Machine { cid, broker_port }, memory: Memory::Ram(ram) }
    }

    /// Whose its sessions are; `group` numbers the endpoints of this machine.
    pub fn owner(&self, group: usize) -> Owner {
        match self.place {
            Place::Machine { cid, .. } => Owner::Machine(cid),
            Place::Sockets(_) => Owner::Endpoint(group),
        }
    }

    /// Where its programs call, if that is for this machine alone.
    pub fn program_address(&self) -> Option<Address> {
        match &self.place {
            Place::Machine { .. } => None,
            Place::Sockets(prefix) => Some(Address::UnixStream(with_port(prefix, vsock::DEFAULT_PORT))),
        }
    }

    /// Where its broker calls.
    pub fn broker_address(&self) -> Address {
        match &self.place {
            Place::Machine { broker_port, .. } => Address::Vsock { cid: None, port: *broker_port },
            Place::Sockets(prefix) => Address::UnixStream(with_port(prefix, PORT)),
        }
    }

    /// Opens its memory.
    ///
    /// # Errors
    /// The file cannot be used.
    pub fn ram(&self) -> anyhow::Result<GuestRam> {
        let (path, size, layout) = match &self.memory {
            Memory::Ram(ram) => return Ok(ram.clone()),
            Memory::File { path, size, layout } => (path, *size, *layout),
        };
        let at = || path.display().to_string();
        let file = File::options()
            .read(true)
            .write(true)
            .create(size.is_some())
            .truncate(false)
            .open(path)
            .with_context(at)?;
        let len = file.metadata().with_context(at)?.len();
        match size {
            Some(size) if len == 0 => file.set_len(size).with_context(at)?,
            Some(size) => anyhow::ensure!(
                len == size,
                "{} has {len} bytes, not the {size} of size=; is it another machine's?",
                at()
            ),
            None => anyhow::ensure!(
                len != 0,
                "{} is empty; start QEMU first, or give size=SIZE to have the file made",
                at()
            ),
        }
        Ok(qemu::ram(layout, file, size.unwrap_or(len)))
    }
}

fn with_port(prefix: &std::path::Path, port: u32) -> PathBuf {
    let mut path = prefix.as_os_str().to_owned();
    path.push(format!("_{port}"));
    path.into()
}

impl FromStr for GuestSpec {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (mut place, mut memory, mut bytes, mut layout) = (None, None, None, Layout::default());
        let mut set_place = |new| match place.replace(new) {
            None => Ok(()),
            Some(_) => Err("'cid' and 'sockets' name the machine: give one of them, once".to_owned()),
        };
        for field in text.split(',') {
            let (name, value) =
                field.split_once('=').ok_or_else(|| format!("'{field}' is not of the form NAME=VALUE"))?;
            match name {
                "cid" => {
                    let cid =
                        value.parse().ok().filter(|cid| *cid >= vsock::FIRST_GUEST_CID && *cid != u32::MAX);
                    let cid =
                        cid.ok_or_else(|| format!("'{value}' is no context id of a guest (3 or more)"))?;
                    set_place(Place::Machine { cid, broker_port: PORT })?;
                }
                "sockets" => {
                    // What is connected to must be an address.
                    format!("unix-stream:{value}_{}", vsock::DEFAULT_PORT)
                        .parse::<Address>()
                        .map_err(|error| error.to_string())?;
                    set_place(Place::Sockets(value.into()))?;
                }
                "memory" => memory = Some(PathBuf::from(value)),
                "size" => bytes = Some(size::parse(value)?),
                "layout" => layout = value.parse()?,
                _ => {
                    return Err(format!(
                        "'{name}' is not known; fields are cid, sockets, memory, size, layout"
                    ));
                }
            }
        }
        let place = place.ok_or("'cid=CID' or 'sockets=PREFIX' is missing: which machine is it?")?;
        let path = memory.ok_or("'memory=FILE' is missing: the file of QEMU's memory backend")?;
        Ok(Self { place, memory: Memory::File { path, size: bytes, layout } })
    }
}

impl fmt::Display for GuestSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Place::Machine { cid, .. } => write!(f, "guest cid {cid}"),
            Place::Sockets(prefix) => write!(f, "guest at {}", prefix.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_vsock_machine() {
        let spec: GuestSpec = "cid=7,memory=/dev/shm/vm".parse().unwrap();
        assert_eq!(spec.owner(5), Owner::Machine(7));
        assert_eq!(spec.program_address(), None);
        assert_eq!(spec.broker_address(), Address::Vsock { cid: None, port: PORT });
        assert!(spec.ram().is_err());
    }

    #[test]
    fn a_machine_behind_sockets() {
        let spec: GuestSpec = "memory=/dev/shm/vm,sockets=/run/vm.vsock".parse().unwrap();
        assert_eq!(spec.owner(5), Owner::Endpoint(5));
        assert_eq!(spec.program_address().unwrap().to_string(), "unix-stream:/run/vm.vsock_17237");
        assert_eq!(spec.broker_address().to_string(), format!("unix-stream:/run/vm.vsock_{PORT}"));
    }

    #[test]
    fn the_file_is_made_or_must_fit() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("ram");
        let spec =
            |more: &str| format!("cid=3,memory={}{more}", path.display()).parse::<GuestSpec>().unwrap();
        assert!(spec("").ram().is_err());
        assert_eq!(spec(",size=4G").ram().unwrap().regions.len(), 2);
        assert_eq!(spec("").ram().unwrap().len_bytes(), 4 << 30);
        assert!(spec(",size=2G").ram().is_err());
        assert_eq!(spec(",layout=pc").ram().unwrap().regions[0].len_bytes, 3 << 30);
    }

    #[test]
    fn errors() {
        for bad in [
            "",
            "cid=3",
            "memory=/x",
            "cid=2,memory=/x",
            "cid=x,memory=/x",
            "cid=3,cid=4,memory=/x",
            "cid=3,sockets=/x,memory=/x",
            "sockets=relative,memory=/x",
            "cid=3,memory=/x,size=big",
            "cid=3,memory=/x,layout=other",
            "cid=3,memory=/x,speed=1",
        ] {
            assert!(bad.parse::<GuestSpec>().is_err(), "{bad}");
        }
    }
}
