//! How a virtual machine with a memory broker is described on the command line, and by `boot`.

use std::fmt;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::Context as _;
use protocol::broker::PORT;
use transport::{Address, vsock};

use super::access::Owner;
use crate::broker::qemu::{self, Layout};
use crate::cli::size;
use crate::vmm::memory::GuestRam;

/// A virtual machine whose memory the daemon may map: `vhost-user=/run/vm/vhost.sock,cid=3`, `cid=3,memory=/dev/shm/vm3,size=4G`,
/// `sockets=/run/vm/vm.vsock,memory=/dev/shm/vm`.
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
    /// By the daemon's own vsock device at this socket.
    VhostUser { socket: PathBuf, cid: u32 },
}

/// Where its memory is.
#[derive(Clone, Debug)]
enum Memory {
    /// In the file of a QEMU memory backend, which is made with this size if need be.
    File { path: PathBuf, size: Option<u64>, layout: Layout },
    /// In files of this process.
    Ram(GuestRam),
    /// The machine says so when it starts.
    FromDevice,
}

/// A vsock device that the daemon is to have.
#[derive(Clone, Copy, Debug)]
pub struct Device<'a> {
    /// Where the machine connects to it.
    pub socket: &'a Path,
    pub cid: u32,
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
            Place::Sockets(_) | Place::VhostUser { .. } => Owner::Endpoint(group),
        }
    }

    /// Its context id, if it calls by the host kernel's vsock.
    pub fn cid(&self) -> Option<u32> {
        match self.place {
            Place::Machine { cid, .. } => Some(cid),
            _ => None,
        }
    }

    /// The vsock device that it needs.
    pub fn device(&self) -> Option<Device<'_>> {
        match &self.place {
            Place::VhostUser { socket, cid } => Some(Device { socket, cid: *cid }),
            _ => None,
        }
    }

    /// Where its programs call, if that is a socket for this machine alone.
    pub fn program_address(&self) -> Option<Address> {
        match &self.place {
            Place::Machine { .. } | Place::VhostUser { .. } => None,
            Place::Sockets(prefix) => Some(Address::UnixStream(with_port(prefix, vsock::DEFAULT_PORT))),
        }
    }

    /// Where its broker calls, if that is not its own device.
    pub fn broker_address(&self) -> Option<Address> {
        match &self.place {
            Place::Machine { broker_port, .. } => Some(Address::Vsock { cid: None, port: *broker_port }),
            Place::Sockets(prefix) => Some(Address::UnixStream(with_port(prefix, PORT))),
            Place::VhostUser { .. } => None,
        }
    }

    /// Opens its memory; none if the machine's own device will tell where it is.
    ///
    /// # Errors
    /// The file cannot be used.
    pub fn ram(&self) -> anyhow::Result<Option<GuestRam>> {
        let (path, size, layout) = match &self.memory {
            Memory::Ram(ram) => return Ok(Some(ram.clone())),
            Memory::FromDevice => return Ok(None),
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
        Ok(Some(qemu::ram(layout, file, size.unwrap_or(len))))
    }
}

fn with_port(prefix: &Path, port: u32) -> PathBuf {
    let mut path = prefix.as_os_str().to_owned();
    path.push(format!("_{port}"));
    path.into()
}

impl FromStr for GuestSpec {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (mut cid, mut sockets, mut device) = (None, None, None);
        let (mut memory, mut bytes, mut layout) = (None, None, None);
        for field in text.split(',') {
            let (name, value) =
                field.split_once('=').ok_or_else(|| format!("'{field}' is not of the form NAME=VALUE"))?;
            let known = match name {
                "cid" => {
                    let id = value.parse().ok().filter(|id| *id >= vsock::FIRST_GUEST_CID && *id != u32::MAX);
                    cid.replace(
                        id.ok_or_else(|| format!("'{value}' is no context id of a guest (3 or more)"))?,
                    )
                    .is_some()
                }
                "sockets" => sockets.replace(socket(value, &format!("_{}", vsock::DEFAULT_PORT))?).is_some(),
                "vhost-user" => device.replace(socket(value, "")?).is_some(),
                "memory" => memory.replace(PathBuf::from(value)).is_some(),
                "size" => bytes.replace(size::parse(value)?).is_some(),
                "layout" => layout.replace(value.parse()?).is_some(),
                _ => {
                    return Err(format!(
                        "'{name}' is not known; fields are vhost-user, cid, sockets, memory, size, layout"
                    ));
                }
            };
            if known {
                return Err(format!("'{name}' is given twice"));
            }
        }
        let place = match (device, sockets, cid) {
            (Some(socket), None, Some(cid)) => Place::VhostUser { socket, cid },
            (Some(_), None, None) => return Err("'cid=CID' is missing: the machine's own, 3 or more".into()),
            (None, Some(prefix), None) => Place::Sockets(prefix),
            (None, None, Some(cid)) => Place::Machine { cid, broker_port: PORT },
            (None, None, None) => {
                return Err(
                    "which machine is it? 'vhost-user=SOCKET,cid=CID', 'cid=CID' or 'sockets=PREFIX'".into(),
                );
            }
            _ => return Err("of 'vhost-user', 'sockets' and 'cid' only 'vhost-user' goes with 'cid'".into()),
        };
        let memory = match (&place, memory) {
            (Place::VhostUser { .. }, None) if bytes.is_none() && layout.is_none() => Memory::FromDevice,
            (Place::VhostUser { .. }, _) => {
                return Err("a machine at a vhost-user socket tells itself where its memory is".into());
            }
            (_, Some(path)) => Memory::File { path, size: bytes, layout: layout.unwrap_or_default() },
            (_, None) => return Err("'memory=FILE' is missing: the file of QEMU's memory backend".into()),
        };
        Ok(Self { place, memory })
    }
}

/// A path that can be a socket's, with this ending too.
fn socket(path: &str, ending: &str) -> Result<PathBuf, String> {
    format!("unix-stream:{path}{ending}").parse::<Address>().map_err(|error| error.to_string())?;
    Ok(path.into())
}

impl fmt::Display for GuestSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Place::Machine { cid, .. } => write!(f, "guest cid {cid}"),
            Place::Sockets(prefix) => write!(f, "guest at {}", prefix.display()),
            Place::VhostUser { socket, .. } => write!(f, "guest at {}", socket.display()),
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
        assert_eq!(spec.broker_address(), Some(Address::Vsock { cid: None, port: PORT }));
        assert!(spec.ram().is_err() && spec.device().is_none());
    }

    #[test]
    fn a_machine_behind_sockets() {
        let spec: GuestSpec = "memory=/dev/shm/vm,sockets=/run/vm.vsock".parse().unwrap();
        assert_eq!(spec.owner(5), Owner::Endpoint(5));
        assert_eq!(spec.program_address().unwrap().to_string(), "unix-stream:/run/vm.vsock_17237");
        assert_eq!(spec.broker_address().unwrap().to_string(), format!("unix-stream:/run/vm.vsock_{PORT}"));
    }

    #[test]
    fn a_machine_at_our_own_device() {
        let spec: GuestSpec = "vhost-user=/run/vm.sock,cid=3".parse().unwrap();
        assert_eq!(spec.owner(5), Owner::Endpoint(5));
        assert!(spec.program_address().is_none() && spec.broker_address().is_none());
        let device = spec.device().unwrap();
        assert_eq!((device.socket, device.cid), (Path::new("/run/vm.sock"), 3));
        assert!(spec.ram().unwrap().is_none());
    }

    #[test]
    fn the_file_is_made_or_must_fit() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("ram");
        let spec =
            |more: &str| format!("cid=3,memory={}{more}", path.display()).parse::<GuestSpec>().unwrap();
        assert!(spec("").ram().is_err());
        assert_eq!(spec(",size=4G").ram().unwrap().unwrap().regions.len(), 2);
        assert_eq!(spec("").ram().unwrap().unwrap().len_bytes(), 4 << 30);
        assert!(spec(",size=2G").ram().is_err());
        assert_eq!(spec(",layout=pc").ram().unwrap().unwrap().regions[0].len_bytes, 3 << 30);
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
            "cid=3,memory=/x,memory=/y",
            "vhost-user=/x",
            "vhost-user=/x,cid=2",
            "vhost-user=x,cid=3",
            "vhost-user=/x,cid=3,memory=/y",
            "vhost-user=/x,cid=3,layout=pc",
            "vhost-user=/x,sockets=/y,cid=3",
        ] {
            assert!(bad.parse::<GuestSpec>().is_err(), "{bad}");
        }
    }
}
