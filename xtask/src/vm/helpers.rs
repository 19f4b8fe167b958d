//! Processes of this machine beside a guest: daemon, back end of its vsock.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::{debian, workspace};

const BACK_END: &str = "vhost-device-vsock";
const BACK_END_VERSION: &str = "0.3.0";
/// Time for a start.
const START: Duration = Duration::from_secs(20);
/// Time for an end that was asked for.
const END: Duration = Duration::from_secs(5);

/// Processes that end with the test.
#[derive(Default)]
pub struct Helpers(Vec<Child>);

impl Helpers {
    /// Starts one, with all its output in `log`, and waits until `socket` is there.
    ///
    /// # Errors
    /// It cannot be started, or ends, or does not make the socket.
    pub fn start(&mut self, command: &mut Command, log: &Path, socket: &Path) -> Result<()> {
        let program = command.get_program().display().to_string();
        let output = File::create(log).with_context(|| log.display().to_string())?;
        command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output);
        let mut child = command.spawn().with_context(|| format!("cannot start {program}"))?;
        let deadline = Instant::now() + START;
        let ready = loop {
            if socket.exists() {
                break Ok(());
            }
            let ended = child.try_wait()?;
            if ended.is_some() || Instant::now() > deadline {
                let how = ended.map_or_else(|| "runs".to_owned(), |status| format!("ended, {status}"));
                let said = fs::read_to_string(log).unwrap_or_default();
                let said = crate::process::tail(&said, 20, "  ");
                break Err(format!("{program} ({how}) does not listen at {}\n{said}", socket.display()));
            }
            std::thread::sleep(Duration::from_millis(10));
        };
        self.0.push(child);
        ready.or_else(|error| bail!(error))
    }
}

impl Drop for Helpers {
    fn drop(&mut self) {
        for child in &mut self.0 {
            terminate(child);
        }
    }
}

/// Politely, since a daemon has workers to end; it may have ended by itself.
fn terminate(child: &mut Child) {
    use rustix::process::{Pid, Signal, kill_process};
    if let (Ok(None), Some(pid)) = (child.try_wait(), i32::try_from(child.id()).ok().and_then(Pid::from_raw))
    {
        let _ = kill_process(pid, Signal::TERM);
        let deadline = Instant::now() + END;
        while Instant::now() < deadline && matches!(child.try_wait(), Ok(None)) {
            std::thread::sleep(Duration::from_millis(10));
        }
    }
    let _ = child.kill();
    let _ = child.wait();
}

/// vhost-device-vsock for a guest with CID 3: a connection to port P of the host arrives at `directory`/vsock_P. Listens at `directory`/vhost.
///
/// # Errors
/// It cannot be built or started.
pub fn start_back_end(helpers: &mut Helpers, directory: &Path) -> Result<()> {
    let vm = format!("guest-cid=3,uds-path={0}/vsock,socket={0}/vhost", directory.display());
    let mut command = Command::new(back_end()?);
    helpers.start(command.args(["--vm", &vm]), &directory.join("back-end.log"), &directory.join("vhost"))
}

/// The vsock back end, built into the cache.
fn back_end() -> Result<PathBuf> {
    let root = debian::cache()?.join("tools").join(BACK_END);
    let path = root.join("bin").join(BACK_END);
    let _lock = debian::lock(BACK_END)?;
    if !path.is_file() {
        eprintln!("vm: building {BACK_END} {BACK_END_VERSION} (once, some minutes)");
        let mut cargo = workspace::cargo();
        cargo
            .args(["install", "--quiet", "--locked", BACK_END, "--version", BACK_END_VERSION, "--root"])
            .arg(&root);
        debian::run(&mut cargo, "cargo install of the vsock back end")?;
    }
    Ok(path)
}
