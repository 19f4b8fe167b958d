//! The daemon of a machine that this process runs: it serves the programs of that machine and no others.

use anyhow::{Context as _, Result};
use rustix::rand::{GetRandomFlags, getrandom};
use transport::Address;

use super::memory::GuestRam;
use crate::config::Config;
use crate::daemon::Daemon;
use crate::daemon::access::Access;
use crate::daemon::guest_spec::GuestSpec;
use crate::daemon::pool::Settings;

/// Below are the ports that administrators give out.
const FIRST_PORT: u32 = 1 << 30;

/// vsock ports of one machine, which many machines of this host must not share.
#[derive(Clone, Copy, Debug)]
pub struct Ports {
    programs: u32,
    broker: u32,
}

impl Ports {
    /// Two that are very likely free.
    ///
    /// # Errors
    /// There are no random numbers.
    pub fn random() -> Result<Self> {
        let mut bytes = [0; 4];
        getrandom(&mut bytes, GetRandomFlags::empty()).context("no random numbers")?;
        let programs = FIRST_PORT + u32::from_le_bytes(bytes) % FIRST_PORT * 2;
        Ok(Self { programs, broker: programs + 1 })
    }

    /// What tells programs where their host is.
    pub fn environment(self) -> String {
        format!("CUDA_SHIM_CONNECT=vsock:{}", self.programs)
    }

    /// What tells the machine's memory broker.
    pub fn kernel_parameter(self) -> String {
        format!("cuda_broker.port={}", self.broker)
    }

    /// Starts the daemon.
    ///
    /// # Errors
    /// The ports are taken, or threads cannot be started.
    pub fn serve(self, cid: u32, ram: GuestRam, config: &Config) -> Result<Daemon> {
        let access = Access::new(Vec::new(), [cid], &config.limits)?;
        let address = Address::Vsock { cid: None, port: self.programs };
        let guest = GuestSpec::own(cid, self.broker, ram);
        // A warm worker has a window already, which is no memory of a machine.
        let warm = Settings { workers: 0, refill: false };
        Daemon::start_with_guests(&[address], &[guest], config, access, warm)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_apart_and_not_the_usual_ones() {
        let (a, b) = (Ports::random().unwrap(), Ports::random().unwrap());
        assert_ne!(a.programs, b.programs);
        for ports in [a, b] {
            assert!(ports.programs >= FIRST_PORT && ports.broker == ports.programs + 1);
            assert_ne!(ports.broker, u32::MAX);
            let address: Address = ports.environment().split_once('=').unwrap().1.parse().unwrap();
            assert_eq!(address, Address::Vsock { cid: None, port: ports.programs });
        }
    }
}
