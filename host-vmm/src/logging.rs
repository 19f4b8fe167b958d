//! Log output: `tracing` to stderr, filtered by `--log` or `HOST_VMM_LOG`.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::sync::OnceLock;

use tracing_subscriber::EnvFilter;

/// Environment variable with the filter; `--log` wins over it.
pub const LOG_ENV: &str = "HOST_VMM_LOG";

/// Where the log goes once standard error has another use.
static OWN: OnceLock<File> = OnceLock::new();

/// Keeps the log on what is standard error now, whatever becomes of that descriptor; messages of panics go with it.
///
/// # Errors
/// No descriptors are left.
pub fn keep_stderr() -> io::Result<()> {
    let own = rustix::io::fcntl_dupfd_cloexec(io::stderr().as_fd(), 3)?;
    if OWN.set(File::from(own)).is_ok() {
        std::panic::set_hook(Box::new(|panic| tracing::error!("{panic}")));
    }
    Ok(())
}

/// The log's place.
#[derive(Default)]
struct Log;

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match OWN.get() {
            Some(mut own) => own.write(bytes),
            None => io::stderr().write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Starts logging. `filter` is a `tracing` filter such as `info` or `host_vmm=debug`; the default is `warn`.
///
/// # Errors
/// The filter cannot be parsed.
pub fn init(filter: Option<&str>) -> anyhow::Result<()> {
    let filter = match filter {
        Some(text) if !text.is_empty() => EnvFilter::try_new(text).map_err(|error| {
            anyhow::anyhow!("log filter '{text}': {error}; try 'info' or 'host_vmm=debug'")
        })?,
        _ => EnvFilter::new("warn"),
    };
    let format = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(Log::default)
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
        .with_target(false);
    // A second call (several commands in one test process) keeps the first subscriber.
    let _ = format.try_init();
    Ok(())
}
