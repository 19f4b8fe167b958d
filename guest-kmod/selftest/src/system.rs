//! What an init does: mounts, modules, children, and the end of the machine.
#![allow(unsafe_code)] // fork, module loading and reboot have no other interface.

use std::ffi::{CStr, CString};
use std::fs::File;
use std::os::fd::AsRawFd;
use std::path::Path;

use anyhow::{Context, Result, bail};

fn check(what: &str, result: i64) -> Result<()> {
    if result < 0 {
        bail!("{what}: {}", std::io::Error::last_os_error());
    }
    Ok(())
}

/// Mounts what the tests look at.
pub fn mount_all() -> Result<()> {
    for (kind, target) in [(c"proc", c"/proc"), (c"sysfs", c"/sys"), (c"devtmpfs", c"/dev")] {
        // SAFETY: all strings are terminated and live for the call.
        let result =
            unsafe { libc::mount(kind.as_ptr(), target.as_ptr(), kind.as_ptr(), 0, std::ptr::null()) };
        // devtmpfs may be there already.
        if kind != c"devtmpfs" {
            check("mount", result.into())?;
        }
    }
    Ok(())
}

/// Loads the modules that /mods/order names, each with its parameters.
pub fn load_modules() -> Result<()> {
    let order = std::fs::read_to_string("/mods/order").context("/mods/order")?;
    for line in order.lines() {
        let (name, parameters) = line.split_once(' ').unwrap_or((line, ""));
        load(Path::new(&format!("/mods/{name}")), parameters)?;
    }
    Ok(())
}

/// Loads one module.
pub fn load(path: &Path, parameters: &str) -> Result<()> {
    let file = File::open(path).with_context(|| path.display().to_string())?;
    let parameters = CString::new(parameters)?;
    // SAFETY: the string is terminated and lives for the call.
    let result = unsafe { libc::syscall(libc::SYS_finit_module, file.as_raw_fd(), parameters.as_ptr(), 0) };
    check(&format!("loading {}", path.display()), result)
}

/// Unloads a module; the error number if that is refused.
pub fn unload(name: &CStr) -> Result<(), i32> {
    // SAFETY: the string is terminated and lives for the call.
    let result = unsafe { libc::syscall(libc::SYS_delete_module, name.as_ptr(), libc::O_NONBLOCK) };
    if result == 0 { Ok(()) } else { Err(std::io::Error::last_os_error().raw_os_error().unwrap_or(0)) }
}

/// Ends the machine.
pub fn power_off() -> ! {
    // SAFETY: no memory is involved.
    unsafe {
        libc::sync();
        libc::reboot(libc::RB_AUTOBOOT);
    }
    loop {
        std::thread::sleep(std::time::Duration::from_secs(1));
    }
}

/// A child process.
#[derive(Debug)]
pub struct Child(libc::pid_t);

/// How a child ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum End {
    /// It returned this.
    Exit(i32),
    /// This signal killed it.
    Signal(i32),
}

impl Child {
    /// Runs `body` in a forked child, as user `uid`. The caller has one thread.
    pub fn start(uid: u32, body: impl FnOnce() -> Result<()>) -> Result<Child> {
        // SAFETY: there is one thread, so the child may do what it likes.
        let pid = unsafe { libc::fork() };
        check("fork", pid.into())?;
        if pid != 0 {
            return Ok(Child(pid));
        }
        // SAFETY: no memory is involved.
        let dropped = unsafe { uid == 0 || (libc::setgid(uid) == 0 && libc::setuid(uid) == 0) };
        let code = match if dropped { body() } else { Err(anyhow::anyhow!("setuid")) } {
            Ok(()) => 0,
            Err(error) => {
                println!("child: {error:#}");
                1
            }
        };
        // SAFETY: ends the child without running what the parent registered.
        unsafe { libc::_exit(code) }
    }

    /// Kills it.
    pub fn kill(&self) {
        // SAFETY: no memory is involved; the child is not reaped yet, so the number is its own.
        unsafe { libc::kill(self.0, libc::SIGKILL) };
    }

    /// Waits for its end.
    pub fn wait(self) -> Result<End> {
        let mut status = 0;
        // SAFETY: `status` is writable.
        check("waitpid", unsafe { libc::waitpid(self.0, &raw mut status, 0) }.into())?;
        Ok(if libc::WIFEXITED(status) {
            End::Exit(libc::WEXITSTATUS(status))
        } else {
            End::Signal(libc::WTERMSIG(status))
        })
    }
}

/// Memory of this process, from mmap.
pub struct Mapping {
    /// The first byte.
    pub at: *mut u8,
    /// Length in bytes.
    pub len: usize,
}

impl Mapping {
    /// Private memory; with huge pages if possible.
    pub fn new(len: usize, huge: bool) -> Result<Mapping> {
        // One huge page more, so that it can be aligned.
        let extra = if huge { 2 << 20 } else { 0 };
        // SAFETY: anywhere, anonymous.
        let at = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                len + extra,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        if at == libc::MAP_FAILED {
            bail!("mmap: {}", std::io::Error::last_os_error());
        }
        let mut at = at.cast::<u8>();
        if huge {
            at = at.wrapping_add(at.align_offset(2 << 20));
            // SAFETY: the range was just mapped.
            check("madvise", unsafe { libc::madvise(at.cast(), len, libc::MADV_HUGEPAGE) }.into())?;
        }
        Ok(Mapping { at, len })
    }

    /// Private memory with as much behind it that nobody can access and nothing else is mapped at, until the process ends.
    pub fn guarded(len: usize) -> Result<Mapping> {
        let whole = std::mem::ManuallyDrop::new(Mapping::new(2 * len, false)?);
        let behind = whole.at.wrapping_add(len);
        // SAFETY: the range was just mapped and holds nothing.
        check("mprotect", unsafe { libc::mprotect(behind.cast(), len, libc::PROT_NONE) }.into())?;
        Ok(Mapping { at: whole.at, len })
    }

    /// How many huge pages it is made of.
    pub fn huge_pages(&self) -> Result<u64> {
        let maps = std::fs::read_to_string("/proc/self/smaps").context("smaps")?;
        let (mut inside, mut kib) = (false, 0);
        for line in maps.lines() {
            if let Some((start, end)) = line.split_once(' ').and_then(|(range, _)| range.split_once('-'))
                && let (Ok(start), Ok(end)) =
                    (usize::from_str_radix(start, 16), usize::from_str_radix(end, 16))
            {
                inside = start < self.at.addr() + self.len && end > self.at.addr();
            } else if inside && let Some(rest) = line.strip_prefix("AnonHugePages:") {
                kib += rest.trim().trim_end_matches(" kB").parse::<u64>()?;
            }
        }
        Ok(kib / 2048)
    }

    /// The words.
    pub fn words(&mut self) -> &mut [u64] {
        // SAFETY: mapped for as long as this lives, and aligned.
        unsafe { std::slice::from_raw_parts_mut(self.at.cast(), self.len / 8) }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the mapping is this value's own.
        unsafe { libc::munmap(self.at.cast(), self.len) };
    }
}
