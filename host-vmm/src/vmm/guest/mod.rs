//! The init of a guest that `host-vmm boot` has started: this very program, as process 1.
//!
//! Mounts what a program needs, loads modules, runs the program in its root, passes its output on and ends the machine with its exit
//! code. There is no shell and nothing else in the initramfs.

mod console;
mod system;

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::{Read, Write};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::sync::{Arc, Mutex, PoisonError, TryLockError};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result};

use super::channel::{self, Decoder, Kind, MAX_BYTES};
use super::initramfs::{ORDER, Order, SYSROOT};
use crate::runner::{EXIT_NOT_EXECUTABLE, EXIT_NOT_FOUND, EXIT_NOT_STARTED};

/// Name of the kernel parameter that says where output goes.
pub const CHANNEL_PARAMETER: &str = "hostvmm.channel";
/// How long descendants may keep the program's output open after its end without writing.
const OUTPUT_GRACE: Duration = Duration::from_secs(2);
/// What is passed on of each output after the program's end: a pipe holds no more than this, so all of the program's own is in it.
const OUTPUT_LEFT_BYTES: usize = 1 << 20;
/// How long the host may take to confirm the exit code.
const CONFIRMATION: Duration = Duration::from_secs(5);
/// Precedes the exit code on a plain console.
pub const TRAILER: &str = "host-vmm: the program ended with exit code ";

/// Where output goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChannelKind {
    /// Messages over a vsock connection to this port of the host.
    Vsock(u32),
    /// Messages over the second serial port.
    Serial,
    /// As text to the console, with [`TRAILER`] and the exit code as the last line.
    Console,
}

impl ChannelKind {
    /// The kernel parameter for it.
    pub fn parameter(self) -> String {
        match self {
            Self::Vsock(port) => format!("{CHANNEL_PARAMETER}=vsock:{port}"),
            Self::Serial => format!("{CHANNEL_PARAMETER}=serial"),
            Self::Console => format!("{CHANNEL_PARAMETER}=console"),
        }
    }

    /// Reads it from a kernel command line; the console if it is not there.
    pub fn from_command_line(text: &str) -> Self {
        let mut values = text
            .split_whitespace()
            .filter_map(|word| word.strip_prefix(CHANNEL_PARAMETER)?.strip_prefix('='));
        match values.next() {
            Some("serial") => Self::Serial,
            Some(value) => {
                let port = value.strip_prefix("vsock:").and_then(|port| port.parse().ok());
                port.map_or(Self::Console, Self::Vsock)
            }
            None => Self::Console,
        }
    }
}

/// Whether this process is the init of such a guest.
pub fn is_init() -> bool {
    std::process::id() == 1 && Path::new(ORDER).exists()
}

/// Does everything and does not come back.
pub fn main() -> ! {
    let result = prepare().and_then(|(order, mut output)| {
        let code = run(&order, &mut output);
        output.finish(code)
    });
    if let Err(error) = result {
        console::write(&format!("host-vmm: error: init: {error:#}\n"));
    }
    system::power_off()
}

fn prepare() -> Result<(Order, Output)> {
    system::mount_basics()?;
    console::prepare();
    let order: Order = serde_json::from_slice(&fs::read(ORDER).context(ORDER)?).context(ORDER)?;
    let command_line = fs::read_to_string("/proc/cmdline").context("/proc/cmdline")?;
    for path in &order.modules {
        if let Err(error) = system::load_module(path, &command_line) {
            console::write(&format!("host-vmm: warning: {path}: {error:#}\n"));
        }
    }
    let output = Output::open(ChannelKind::from_command_line(&command_line))?;
    Ok((order, output))
}

/// Runs the program; its exit code.
fn run(order: &Order, output: &mut Output) -> u8 {
    match start(order, output) {
        Ok(child) => output.follow(child, system::wait_for),
        Err((code, text)) => {
            output.message(&format!("host-vmm: error: {text}\n"));
            code
        }
    }
}

fn start(order: &Order, output: &Output) -> Result<Child, (u8, String)> {
    let failed = |error: anyhow::Error| (EXIT_NOT_STARTED, format!("init: {error:#}"));
    let warn = |text: &str| output.message(&format!("host-vmm: warning: {text}\n"));
    system::mount_root(order.disk.as_deref(), order.read_only, warn).map_err(failed)?;
    // Everything that this process still needs is open: from here on it lives in the program's root, too.
    std::os::unix::fs::chroot(SYSROOT).map_err(|error| failed(error.into()))?;
    let (program, arguments) = order.program.split_first().ok_or((EXIT_NOT_STARTED, "no program".into()))?;
    let environment = order.environment.iter().map(|(name, value)| (text(name), text(value)));
    let mut command = Command::new(text(program));
    command.args(arguments.iter().map(|argument| text(argument))).env_clear().envs(environment);
    command.current_dir(text(&order.directory));
    output.connect(&mut command);
    command.spawn().map_err(|error| {
        let code = match error.kind() {
            std::io::ErrorKind::NotFound => EXIT_NOT_FOUND,
            std::io::ErrorKind::PermissionDenied => EXIT_NOT_EXECUTABLE,
            _ => EXIT_NOT_STARTED,
        };
        (code, format!("cannot run {} in the guest: {error}", text(program).display()))
    })
}

fn text(bytes: &[u8]) -> OsString {
    OsString::from_vec(bytes.to_vec())
}

type SharedWriter = Arc<Mutex<Box<dyn Write + Send>>>;

/// The way to the host.
enum Output {
    Messages { writer: SharedWriter, reader: Option<Box<dyn Read + Send>> },
    Console,
}

impl Output {
    fn open(kind: ChannelKind) -> Result<Self> {
        Ok(match kind {
            ChannelKind::Vsock(port) => {
                let stream = vsock::VsockStream::connect_with_cid_port(vsock::VMADDR_CID_HOST, port)
                    .context("cannot connect to the host over vsock")?;
                let reader = stream.try_clone().context("cannot share the connection")?;
                Self::messages(Box::new(stream), Some(Box::new(reader)))
            }
            ChannelKind::Serial => Self::messages(Box::new(console::open_serial()?), None),
            ChannelKind::Console => Self::Console,
        })
    }

    fn messages(writer: Box<dyn Write + Send>, reader: Option<Box<dyn Read + Send>>) -> Self {
        Self::Messages { writer: Arc::new(Mutex::new(writer)), reader }
    }

    fn connect(&self, command: &mut Command) {
        match self {
            Self::Messages { reader, .. } => {
                let stdin = if reader.is_some() { Stdio::piped() } else { Stdio::null() };
                command.stdin(stdin).stdout(Stdio::piped()).stderr(Stdio::piped());
            }
            Self::Console => {
                command.stdin(Stdio::null());
                command.stdout(console::stdio()).stderr(console::stdio());
            }
        }
    }

    fn message(&self, text: &str) {
        match self {
            Self::Messages { writer, .. } => send(writer, Kind::Message, text.as_bytes()),
            Self::Console => console::write(text),
        }
    }

    /// Passes input and output on until the program has ended.
    fn follow(&mut self, mut child: Child, wait: impl FnOnce(&mut Child) -> u8) -> u8 {
        let (alive, all_ended) = mpsc::channel();
        let over = Arc::new(AtomicBool::new(false));
        if let Self::Messages { writer, reader } = self {
            let pump = |stream: Option<Box<dyn Read + Send>>, kind| {
                if let Some(stream) = stream {
                    let (writer, alive, over) = (Arc::clone(writer), alive.clone(), Arc::clone(&over));
                    thread::spawn(move || pump_output(stream, &writer, kind, &alive, &over));
                }
            };
            pump(child.stdout.take().map(|stream| Box::new(stream) as _), Kind::Stdout);
            pump(child.stderr.take().map(|stream| Box::new(stream) as _), Kind::Stderr);
            if let (Some(reader), Some(stdin)) = (reader.take(), child.stdin.take()) {
                thread::spawn(move || pump_input(reader, stdin));
            }
        }
        drop(alive);
        let code = wait(&mut child);
        over.store(true, Ordering::SeqCst);
        // Until both streams are at their end, or silent: what a daemon keeps open is not waited for. A slow channel is.
        loop {
            match all_ended.recv_timeout(OUTPUT_GRACE) {
                Ok(Progress) => {}
                Err(mpsc::RecvTimeoutError::Timeout) if self.is_sending() => {}
                Err(_) => break,
            }
        }
        code
    }

    /// Whether a message is on its way; the serial port takes seconds for a long one.
    fn is_sending(&self) -> bool {
        match self {
            Self::Messages { writer, .. } => matches!(writer.try_lock(), Err(TryLockError::WouldBlock)),
            Self::Console => false,
        }
    }

    fn finish(self, code: u8) -> Result<()> {
        match self {
            Self::Messages { writer, .. } => {
                send(&writer, Kind::Exit, &[code]);
                CONFIRMED.wait(CONFIRMATION);
            }
            Self::Console => console::write(&format!("\n{TRAILER}{code}\n")),
        }
        Ok(())
    }
}

fn send(writer: &SharedWriter, kind: Kind, bytes: &[u8]) {
    // Without the host nobody could be told.
    let _ = channel::send(&mut *writer.lock().unwrap_or_else(PoisonError::into_inner), kind, bytes);
}

/// Something was passed on.
struct Progress;

fn pump_output(
    mut stream: impl Read,
    writer: &SharedWriter,
    kind: Kind,
    alive: &mpsc::Sender<Progress>,
    over: &AtomicBool,
) {
    let mut buffer = vec![0; MAX_BYTES];
    let mut left = OUTPUT_LEFT_BYTES;
    while let Ok(length @ 1..) = stream.read(&mut buffer) {
        send(writer, kind, &buffer[..length]);
        if over.load(Ordering::SeqCst) {
            left = left.saturating_sub(length);
            if left == 0 || alive.send(Progress).is_err() {
                return;
            }
        }
    }
}

fn pump_input(mut reader: Box<dyn Read + Send>, stdin: impl Write) {
    let mut stdin = Some(stdin);
    let mut decoder = Decoder::default();
    let mut buffer = vec![0; MAX_BYTES];
    while let Ok(length @ 1..) = reader.read(&mut buffer) {
        let result = decoder.push(&buffer[..length], |kind, bytes| match kind {
            // A program that does not read its input is no error.
            Kind::Stdin if bytes.is_empty() => stdin = None,
            Kind::Stdin => {
                stdin = stdin.take().and_then(|mut stdin| stdin.write_all(bytes).ok().map(|()| stdin))
            }
            Kind::Done => CONFIRMED.set(),
            _ => {}
        });
        if result.is_err() {
            break;
        }
    }
    CONFIRMED.set();
}

/// Set when the host has the exit code, or is gone.
static CONFIRMED: Flag = Flag { set: Mutex::new(false), changed: std::sync::Condvar::new() };

struct Flag {
    set: Mutex<bool>,
    changed: std::sync::Condvar,
}

impl Flag {
    fn set(&self) {
        *self.set.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.changed.notify_all();
    }

    fn wait(&self, limit: Duration) {
        let set = self.set.lock().unwrap_or_else(PoisonError::into_inner);
        let _ = self.changed.wait_timeout_while(set, limit, |set| !*set);
    }
}

/// As shells have it: the code, or 128 + the signal.
fn exit_code(status: std::process::ExitStatus) -> u8 {
    let code = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0));
    u8::try_from(code).unwrap_or(u8::MAX)
}

/// A path in the program's root.
fn in_root(path: &str) -> std::path::PathBuf {
    Path::new(SYSROOT).join(OsStr::from_bytes(path.as_bytes().strip_prefix(b"/").unwrap_or(path.as_bytes())))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A channel as slow as a serial port.
    #[derive(Clone, Default)]
    struct Slow(Arc<Mutex<Vec<u8>>>);

    impl Write for Slow {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            thread::sleep(Duration::from_millis(20));
            let now = bytes.len().min(512);
            self.0.lock().expect("lock").extend_from_slice(&bytes[..now]);
            Ok(now)
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_slow_channel_gets_all_output_of_a_program_that_has_ended() {
        let slow = Slow::default();
        let mut output = Output::messages(Box::new(slow.clone()), None);
        let mut command = Command::new("/bin/sh");
        // More than one message, and longer under way than silence is waited for; and something that stays.
        command.args(["-c", "head -c 64000 /dev/zero; sleep 9 & exit 7"]);
        output.connect(&mut command);
        let child = command.spawn().expect("a shell");
        let wait = |child: &mut Child| exit_code(child.wait().expect("the shell's end"));
        assert_eq!(output.follow(child, wait), 7);
        let mut seen = 0;
        let bytes = slow.0.lock().expect("lock").clone();
        let result = Decoder::default().push(&bytes, |kind, body| {
            assert_eq!(kind, Kind::Stdout);
            seen += body.len();
        });
        assert_eq!((result, seen), (Ok(()), 64000));
    }

    #[test]
    fn the_parameter_is_found_again() {
        for kind in [ChannelKind::Vsock(1234), ChannelKind::Serial, ChannelKind::Console] {
            let line = format!("console=ttyS0 {} quiet", kind.parameter());
            assert_eq!(ChannelKind::from_command_line(&line), kind);
        }
        assert_eq!(ChannelKind::from_command_line("quiet"), ChannelKind::Console);
        assert_eq!(ChannelKind::from_command_line("hostvmm.channel=vsock:x"), ChannelKind::Console);
    }
}
