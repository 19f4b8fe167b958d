//! `host-vmm boot`: one program in a fresh machine, its output and its exit code.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::AsFd as _;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use vsock::{VMADDR_CID_ANY, VsockListener, VsockStream};

use super::channel::{self, Decoder, Kind, MAX_BYTES};
use super::guest::ChannelKind;
use super::initramfs::Root;
use super::memory::GuestRam;
use super::prepare::{VirtioBus, prepare};
use super::service::Ports;
use super::stop::{Stop, StopReason};
use super::vm::{Disk, Vm, VmConfig};
use crate::cli::{BootArgs, Channel, GuestArgs};
use crate::config::Config;
use crate::daemon::Daemon;
use crate::runner::print_report;
use crate::runner::signals::Signals;

const VHOST_VSOCK: &str = "/dev/vhost-vsock";
/// A port that the kernel chooses.
const ANY_PORT: u32 = u32::MAX;
/// What is kept of the console, to be shown when something goes wrong.
const CONSOLE_TAIL_BYTES: usize = 16 << 10;
const CONSOLE_TAIL_LINES: usize = 30;
/// How long the last output may take after the machine's end.
const DRAIN: Duration = Duration::from_secs(2);

/// Runs the program and returns its exit code. CUDA programs are served as `config` says, where there is a vsock.
///
/// # Errors
/// The machine cannot be started, or ended without an exit code.
pub fn boot(args: &BootArgs, config: Config) -> Result<u8> {
    let signals = Signals::install(true).context("cannot install signal handlers")?;
    let listener = listen(args.channel)?;
    let kind = match &listener {
        Some(listener) => ChannelKind::Vsock(listener.local_addr().context("vsock")?.port()),
        None => ChannelKind::Serial,
    };
    let ports = listener.is_some().then(Ports::random).transpose()?;
    let guest = prepare(&with_service(&args.guest, ports), VirtioBus::Mmio, kind)?;
    let outcome = Arc::new(Outcome::default());
    let console = Console::new(args.console.as_deref())?;
    let disk = match &guest.root {
        Root::Image { path, read_only } => Some(Disk { path, read_only: *read_only }),
        Root::Directory(_) => None,
    };
    let ram = GuestRam::new(guest.memory_bytes)?;
    let vm = Vm::new(VmConfig {
        kernel: &args.guest.kernel,
        initramfs: &guest.initramfs,
        command_line: &guest.command_line,
        cpus: args.guest.cpus,
        ram: ram.clone(),
        disk,
        vsock: listener.is_some().then_some(args.guest.cid),
        console: Box::new(console.clone()),
        second_serial: Box::new(FromSerial { decoder: Decoder::default(), outcome: Arc::clone(&outcome) }),
    })?;
    drop(guest.initramfs);
    let stop = vm.stop();
    let config = Config { timing: args.report.stats, ..config };
    let daemon = ports.zip(vm.cid()).map(|(ports, cid)| ports.serve(cid, ram, &config)).transpose()?;
    let connection = listener.zip(vm.cid()).map(|(listener, cid)| {
        let (outcome, stop) = (Arc::clone(&outcome), stop.clone());
        thread::spawn(move || serve(&listener, cid, &outcome, &stop))
    });
    watch_signals(signals, stop)?;
    let reason = vm.run()?;
    if let Some(connection) = connection {
        // The guest is gone: its connection is at its end, or was never there.
        let _ = connection.join();
    }
    let report = daemon.map(Daemon::stop);
    let code = conclude(&reason, outcome.exit(), &console)?;
    // Nothing is said about a program that has nothing to do with CUDA.
    if let Some(report) = report.filter(|report| report.sessions > 0) {
        print_report(args.report, config.backend.name(), &report);
    }
    Ok(code)
}

/// The guest, with what its programs and its memory broker need to find the daemon.
fn with_service(args: &GuestArgs, ports: Option<Ports>) -> GuestArgs {
    let mut args = args.clone();
    let Some(ports) = ports else { return args };
    // What the user says comes later, and counts.
    args.env.insert(0, ports.environment().into());
    let user = args.append.take().unwrap_or_default();
    args.append = Some(format!("{} {user}", ports.kernel_parameter()).trim_end().to_owned());
    args
}

fn conclude(reason: &StopReason, exit: Option<u8>, console: &Console) -> Result<u8> {
    let why = match (exit, reason) {
        (Some(code), _) => return Ok(code),
        (None, StopReason::Requested) => "it was stopped by a signal".to_owned(),
        (None, StopReason::Failed(reason)) => reason.clone(),
        (None, StopReason::PowerOff | StopReason::Halted) => "it powered off".to_owned(),
        (None, StopReason::Reset | StopReason::Shutdown) => "it restarted (a kernel panic?)".to_owned(),
    };
    bail!("the machine ended before the program: {why}{}", console.tail())
}

fn listen(channel: Channel) -> Result<Option<VsockListener>> {
    match channel {
        Channel::Serial => Ok(None),
        Channel::Auto if !Path::new(VHOST_VSOCK).exists() => {
            tracing::info!(
                "no {VHOST_VSOCK}: output comes over the serial port, and the program gets no input"
            );
            Ok(None)
        }
        Channel::Auto | Channel::Vsock => VsockListener::bind_with_cid_port(VMADDR_CID_ANY, ANY_PORT)
            .map(Some)
            .context("cannot listen on vsock (is the vhost_vsock module loaded?)"),
    }
}

/// Ends the machine on the first signal that asks for the end of this process.
fn watch_signals(signals: Signals, stop: Stop) -> Result<()> {
    thread::Builder::new()
        .name("signals".into())
        .spawn(move || {
            loop {
                let mut fds = [
                    PollFd::from_borrowed_fd(signals.as_fd(), PollFlags::IN),
                    PollFd::from_borrowed_fd(stop.as_fd(), PollFlags::IN),
                ];
                let _ = poll(&mut fds, None);
                if stop.is_requested() {
                    return;
                }
                if !signals.take().is_empty() {
                    stop.request(StopReason::Requested);
                }
            }
        })
        .map(drop)
        .context("cannot start a thread")
}

/// What has become of the program.
#[derive(Default)]
struct Outcome {
    exit: Mutex<Option<u8>>,
}

impl Outcome {
    fn exit(&self) -> Option<u8> {
        *lock(&self.exit)
    }

    /// A message of the guest. Whether it was the last one.
    fn take(&self, kind: Kind, bytes: &[u8]) -> bool {
        // The user's terminal or pipe may be gone; the program goes on as it would here.
        match (kind, bytes) {
            (Kind::Stdout, _) => drop(io::stdout().write_all(bytes).and_then(|()| io::stdout().flush())),
            (Kind::Stderr | Kind::Message, _) => drop(io::stderr().write_all(bytes)),
            (Kind::Exit, [code]) => {
                lock(&self.exit).get_or_insert(*code);
                return true;
            }
            _ => {}
        }
        false
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Messages over the second serial port.
struct FromSerial {
    decoder: Decoder,
    outcome: Arc<Outcome>,
}

impl Write for FromSerial {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let Self { decoder, outcome } = self;
        // A kernel that prints there, or a program: nothing more is understood from then on.
        let each = |kind, bytes: &[u8]| {
            outcome.take(kind, bytes);
        };
        if decoder.push(bytes, each).is_err() {
            tracing::debug!("the second serial port carries no messages");
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Waits for the init's connection and takes its messages until the machine's end.
fn serve(listener: &VsockListener, cid: u32, outcome: &Outcome, stop: &Stop) {
    let Some(mut stream) = accept(listener, cid, stop) else { return };
    if let Ok(writer) = stream.try_clone() {
        // Blocks in a read of the terminal, and ends with this process.
        thread::spawn(move || send_input(writer));
    }
    let mut decoder = Decoder::default();
    let mut buffer = vec![0; MAX_BYTES];
    while wait_readable(&stream, stop) {
        let Ok(length @ 1..) = stream.read(&mut buffer) else { return };
        let mut last = false;
        if decoder.push(&buffer[..length], |kind, bytes| last |= outcome.take(kind, bytes)).is_err() {
            tracing::warn!("the guest's init sent something that is no message");
            return;
        }
        if last {
            let _ = channel::send(&mut stream, Kind::Done, &[]);
        }
    }
}

/// Takes the first connection of this guest: its init connects before there is any program.
fn accept(listener: &VsockListener, cid: u32, stop: &Stop) -> Option<VsockStream> {
    loop {
        let mut fds = [
            PollFd::from_borrowed_fd(listener.as_fd(), PollFlags::IN),
            PollFd::from_borrowed_fd(stop.as_fd(), PollFlags::IN),
        ];
        let _ = poll(&mut fds, None);
        if !fds[0].revents().is_empty() {
            let (stream, peer) = listener.accept().ok()?;
            if peer.cid() == cid {
                return Some(stream);
            }
        } else if stop.is_requested() {
            return None;
        }
    }
}

/// Waits for more; after the machine's end only as long as the last of it may take.
fn wait_readable(stream: &VsockStream, stop: &Stop) -> bool {
    loop {
        let mut fds = [
            PollFd::from_borrowed_fd(stream.as_fd(), PollFlags::IN),
            PollFd::from_borrowed_fd(stop.as_fd(), PollFlags::IN),
        ];
        let drain = Timespec { tv_sec: DRAIN.as_secs() as i64, tv_nsec: 0 };
        if stop.is_requested() {
            return matches!(poll(&mut fds[..1], Some(&drain)), Ok(1..));
        }
        let _ = poll(&mut fds, None);
        if !fds[0].revents().is_empty() {
            return true;
        }
    }
}

fn send_input(mut writer: VsockStream) {
    let mut buffer = vec![0; MAX_BYTES];
    loop {
        let length = io::stdin().read(&mut buffer).unwrap_or(0);
        if channel::send(&mut writer, Kind::Stdin, &buffer[..length]).is_err() || length == 0 {
            return;
        }
    }
}

/// The kernel's console: its last part, and all of it in a file if the user wants it.
#[derive(Clone)]
struct Console(Arc<Mutex<ConsoleState>>);

struct ConsoleState {
    tail: VecDeque<u8>,
    copy: Option<Box<dyn Write + Send>>,
}

impl Console {
    fn new(path: Option<&Path>) -> Result<Self> {
        let copy: Option<Box<dyn Write + Send>> = match path {
            None => None,
            Some(path) if path == Path::new("-") => Some(Box::new(io::stderr())),
            Some(path) => Some(Box::new(File::create(path).with_context(|| path.display().to_string())?)),
        };
        Ok(Self(Arc::new(Mutex::new(ConsoleState { tail: VecDeque::new(), copy }))))
    }

    /// The last lines, for an error message.
    fn tail(&self) -> String {
        let mut state = lock(&self.0);
        if state.copy.is_some() || state.tail.is_empty() {
            return String::new();
        }
        // The text is the guest's: no control characters on the user's terminal.
        let text = String::from_utf8_lossy(state.tail.make_contiguous());
        let clean: String = text.chars().filter(|c| *c == '\n' || !c.is_control()).collect();
        let lines: Vec<&str> = clean.lines().collect();
        let last = &lines[lines.len().saturating_sub(CONSOLE_TAIL_LINES)..];
        format!("\nthe end of its console:\n  {}", last.join("\n  "))
    }
}

impl Write for Console {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut state = lock(&self.0);
        state.tail.extend(bytes);
        let surplus = state.tail.len().saturating_sub(CONSOLE_TAIL_BYTES);
        state.tail.drain(..surplus);
        if let Some(copy) = &mut state.copy {
            let _ = copy.write_all(bytes);
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_console_keeps_its_end_without_control_characters() {
        let mut console = Console::new(None).expect("no file");
        console.write_all(&vec![b'x'; CONSOLE_TAIL_BYTES]).expect("memory");
        console.write_all(b"\x1B[31mred\r\nKernel panic\r\n").expect("memory");
        let tail = console.tail();
        assert!(tail.ends_with("[31mred\n  Kernel panic"), "{tail:?}");
        assert!(tail.len() < CONSOLE_TAIL_BYTES + 200);
    }

    #[test]
    fn without_an_exit_code_the_end_is_an_error() {
        let console = Console::new(None).expect("no file");
        assert_eq!(conclude(&StopReason::PowerOff, Some(3), &console).ok(), Some(3));
        assert_eq!(conclude(&StopReason::Shutdown, Some(0), &console).ok(), Some(0));
        for reason in [StopReason::PowerOff, StopReason::Shutdown, StopReason::Failed("x".into())] {
            assert!(conclude(&reason, None, &console).is_err());
        }
    }

    #[test]
    fn the_exit_code_is_the_first_one_with_one_byte() {
        let outcome = Outcome::default();
        assert!(!outcome.take(Kind::Exit, &[]));
        assert!(!outcome.take(Kind::Exit, &[1, 2]));
        assert!(outcome.take(Kind::Exit, &[7]));
        assert!(outcome.take(Kind::Exit, &[8]));
        assert_eq!(outcome.exit(), Some(7));
    }
}
