//! Mounts, modules, the end.

use std::ffi::CString;
use std::fs::{self, File};
use std::path::Path;
use std::process::Child;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use rustix::mount::{MountFlags, mount, mount_bind};
use rustix::process::{Pid, WaitOptions, wait};
use rustix::system::{RebootCommand, finit_module, reboot};

use super::super::initramfs::{EXTRA, EXTRA_IN_ROOT, SYSROOT};
use super::{exit_code, in_root};

/// How long a disk may take to appear.
const DISK_LIMIT: Duration = Duration::from_secs(10);

fn mount_at(kind: &str, target: &Path) -> rustix::io::Result<()> {
    mount(kind, target, kind, MountFlags::empty(), None)
}

/// `/proc`, `/sys` and `/dev` of this process.
pub fn mount_basics() -> Result<()> {
    for (kind, target) in [("proc", "/proc"), ("sysfs", "/sys"), ("devtmpfs", "/dev")] {
        mount_at(kind, Path::new(target)).with_context(|| format!("cannot mount {target}"))?;
    }
    Ok(())
}

/// Loads a module with its parameters on the kernel's command line; one that is there already is no error.
pub fn load_module(path: &str, command_line: &str) -> Result<()> {
    let file = File::open(path)?;
    let parameters = CString::new(module_parameters(path, command_line))?;
    match finit_module(&file, &parameters, 0) {
        Ok(()) | Err(rustix::io::Errno::EXIST) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// `name=value` of each `MODULE.name=value` on the kernel's command line, which the kernel heeds for built-in modules only.
fn module_parameters(path: &str, command_line: &str) -> String {
    let name = |text: &str| text.replace('-', "_");
    let file = Path::new(path).file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let module = name(file.split('.').next().unwrap_or_default());
    let own = command_line.split_whitespace().filter_map(|word| {
        let (of, parameter) = word.split_once('.')?;
        (name(of) == module).then_some(parameter)
    });
    own.collect::<Vec<_>>().join(" ")
}

/// Makes the program's root complete: the disk, if it is on one, and what every program expects. `warn` is told what could not be done.
pub fn mount_root(disk: Option<&str>, read_only: bool, warn: impl Fn(&str)) -> Result<()> {
    if let Some(disk) = disk {
        mount_disk(disk, read_only)?;
    }
    for (kind, target) in
        [("proc", "/proc"), ("sysfs", "/sys"), ("devtmpfs", "/dev"), ("tmpfs", "/run"), ("tmpfs", "/tmp")]
    {
        let target = in_root(target);
        // A read-only root may lack some of them; the program then has to do without.
        let _ = fs::create_dir_all(&target);
        if let Err(error) = mount_at(kind, &target) {
            let target = target.strip_prefix(SYSROOT).unwrap_or(&target).display();
            warn(&format!("cannot mount {kind} at /{target} in the root: {error}"));
        }
    }
    // POSIX shared memory and pseudo-terminals.
    for (kind, target) in [("tmpfs", "/dev/shm"), ("devpts", "/dev/pts")] {
        let target = in_root(target);
        let _ = fs::create_dir_all(&target);
        let _ = mount_at(kind, &target);
    }
    let extra = in_root(EXTRA_IN_ROOT);
    if fs::create_dir_all(&extra).is_ok() {
        mount_bind(EXTRA, &extra).context("cannot mount the files that come with the guest")?;
    }
    Ok(())
}

fn mount_disk(disk: &str, read_only: bool) -> Result<()> {
    let deadline = Instant::now() + DISK_LIMIT;
    while !Path::new(disk).exists() {
        if Instant::now() >= deadline {
            bail!("{disk} does not appear; does the kernel have virtio_blk?");
        }
        thread::sleep(Duration::from_millis(5));
    }
    let flags = if read_only { MountFlags::RDONLY } else { MountFlags::empty() };
    let known = fs::read_to_string("/proc/filesystems").context("/proc/filesystems")?;
    let mut tried = Vec::new();
    // Those with `nodev` in front have no disks.
    for kind in known.lines().filter_map(|line| line.strip_prefix('\t')) {
        if mount(disk, SYSROOT, kind, flags, None).is_ok() {
            return Ok(());
        }
        tried.push(kind);
    }
    bail!("cannot mount {disk}; file systems tried: {}", tried.join(", "))
}

/// Waits for the program, and for everything else that ends meanwhile: orphans are this process's.
pub fn wait_for(child: &mut Child) -> u8 {
    let program = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    loop {
        match wait(WaitOptions::empty()) {
            Ok(Some((ended, status))) if Some(ended) == program => {
                use std::os::unix::process::ExitStatusExt as _;
                return exit_code(std::process::ExitStatus::from_raw(status.as_raw()));
            }
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(_) => return crate::runner::EXIT_NOT_STARTED,
        }
    }
}

/// Ends the machine.
pub fn power_off() -> ! {
    rustix::fs::sync();
    let _ = reboot(RebootCommand::PowerOff);
    // Where power-off is not possible: a panic (the end of process 1), which is a restart by the command line.
    std::process::exit(1)
}

#[cfg(test)]
mod tests {
    use super::module_parameters;

    #[test]
    fn modules_get_their_parameters() {
        let line = "console=ttyS0 cuda_broker.port=77 cuda-broker.cid=2 other.port=1 cuda_broker";
        assert_eq!(module_parameters("/host-vmm/modules/cuda-broker.ko", line), "port=77 cid=2");
        assert_eq!(module_parameters("/host-vmm/modules/other.ko.xz", line), "port=1");
        assert_eq!(module_parameters("/x/none.ko", line), "");
    }
}
