//! The watcher: ends the process when the program, the connection to it, or the daemon is gone.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::thread;

use anyhow::Context as _;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::net::{RecvFlags, recv};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use transport::Connection;

use super::Worker;
use super::guest_memory::{Answers, Came};

/// Starts watching, then `welcome`s the program on its control connection. What comes there afterwards goes to `answers`; without, nothing may come.
///
/// # Errors
/// Those of `welcome`; the thread cannot be started.
pub fn start(
    worker: Arc<Worker>,
    connection: Arc<Connection>,
    answers: Option<Answers>,
    pid: u32,
    welcome: impl FnOnce(&Connection) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    // A forked child of the program may keep the connection open, so the process is watched as well. It can have ended already;
    // then its connection tells. 0: it lives in a pid namespace that cannot be seen from here.
    let process = i32::try_from(pid).ok().and_then(Pid::from_raw);
    let process = process.and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok());
    welcome(&connection)?;
    thread::Builder::new()
        .name("watch".into())
        .spawn(move || watch(&worker, &connection, answers, process.as_ref()))
        .context("cannot start the watching thread")?;
    Ok(())
}

fn watch(
    worker: &Worker,
    connection: &Connection,
    mut answers: Option<Answers>,
    process: Option<&OwnedFd>,
) -> ! {
    loop {
        // The daemon's channel is read elsewhere; here only its hang-up counts.
        let mut fds = vec![
            PollFd::new(connection, PollFlags::IN | PollFlags::RDHUP),
            PollFd::from_borrowed_fd(worker.channel.as_fd(), PollFlags::empty()),
        ];
        fds.extend(process.map(|process| PollFd::new(process, PollFlags::IN)));
        match poll(&mut fds, None) {
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => continue,
            Err(error) => {
                tracing::error!(%error, "cannot watch the program");
                worker.end();
            }
        }
        let came = !fds[0].revents().is_empty();
        if let Some(answers) = answers.as_mut().filter(|_| came) {
            match answers.receive() {
                Came::Nothing => {}
                Came::HangUp => worker.end(),
                Came::Violation(what) => worker.malformed(&format!("control connection: {what}")),
            }
        } else if came {
            let mut byte = [0];
            match recv(connection.as_fd(), &mut byte, RecvFlags::DONTWAIT | RecvFlags::PEEK) {
                Ok((_, 1..)) => worker.malformed("control connection: bytes after the handshake"),
                Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => continue,
                _ => worker.end(),
            }
        }
        if fds[1..].iter().any(|fd| !fd.revents().is_empty()) {
            worker.end();
        }
    }
}
