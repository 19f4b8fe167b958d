//! Log output: `tracing` to stderr, filtered by `--log` or `HOST_VMM_LOG`.

use tracing_subscriber::EnvFilter;

/// Environment variable with the filter; `--log` wins over it.
pub const LOG_ENV: &str = "HOST_VMM_LOG";

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
        .with_writer(std::io::stderr)
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
        .with_target(false);
    // A second call (several commands in one test process) keeps the first subscriber.
    let _ = format.try_init();
    Ok(())
}
