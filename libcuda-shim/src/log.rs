//! `CUDA_SHIM_LOG`: what the library says, and where.
//!
//! Nothing is printed unless the variable is set: `CUDA_SHIM_LOG=trace` (or `debug`, `info`, `warn`, `error`) writes to standard error,
//! `CUDA_SHIM_LOG=trace:/path/file` appends to a file. One line is one `write`, so lines of several threads and processes stay whole.

use std::fmt;
use std::io::Write as _;
use std::sync::OnceLock;

/// Severity, in the order of how much is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    Error = 1,
    Warn = 2,
    Info = 3,
    Debug = 4,
    Trace = 5,
}

struct Sink {
    level: u8,
    file: Option<std::fs::File>,
}

static SINK: OnceLock<Sink> = OnceLock::new();

fn sink() -> &'static Sink {
    SINK.get_or_init(|| {
        let value = std::env::var("CUDA_SHIM_LOG").unwrap_or_default();
        let (level, path) = match value.split_once(':') {
            Some((level, path)) => (level, Some(path)),
            None => (value.as_str(), None),
        };
        let level = match level.trim().to_ascii_lowercase().as_str() {
            "error" => Level::Error as u8,
            "warn" | "warning" => Level::Warn as u8,
            "info" => Level::Info as u8,
            "debug" => Level::Debug as u8,
            "trace" | "1" => Level::Trace as u8,
            _ => 0,
        };
        // A file that cannot be opened falls back to standard error: asked-for output must not vanish.
        let file =
            path.and_then(|path| std::fs::OpenOptions::new().create(true).append(true).open(path).ok());
        Sink { level, file }
    })
}

/// Whether a message of this level would be printed.
#[inline]
pub fn enabled(level: Level) -> bool {
    sink().level >= level as u8
}

/// Prints one line; use through [`log!`](crate::log!).
pub fn write(level: Level, message: fmt::Arguments<'_>) {
    let name = match level {
        Level::Error => "error",
        Level::Warn => "warn",
        Level::Info => "info",
        Level::Debug => "debug",
        Level::Trace => "trace",
    };
    let thread = rustix::thread::gettid().as_raw_nonzero();
    let line = format!("[cuda-shim {}:{thread} {name}] {message}\n", std::process::id());
    let sink = sink();
    // A program that closed its standard error still runs: failures to print are ignored.
    let _ = match &sink.file {
        Some(file) => (&mut &*file).write_all(line.as_bytes()),
        None => std::io::stderr().write_all(line.as_bytes()),
    };
}

/// Logs a formatted line at a level, evaluating the arguments only when it is enabled.
#[macro_export]
macro_rules! log {
    ($level:ident, $($message:tt)+) => {
        if $crate::log::enabled($crate::log::Level::$level) {
            $crate::log::write($crate::log::Level::$level, format_args!($($message)+));
        }
    };
}
