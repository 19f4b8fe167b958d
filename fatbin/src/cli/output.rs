//! Writing results, and what is shown while they are made.

use std::io::{self, IsTerminal, Write};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use anyhow::Context;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;

/// Writes one JSON document.
pub fn json(value: &impl Serialize) -> anyhow::Result<()> {
    let mut out = io::BufWriter::new(io::stdout().lock());
    serde_json::to_writer_pretty(&mut out, value).map_err(io::Error::from)?;
    writeln!(out)?;
    out.flush().context("cannot write to standard output")
}

/// Buffered standard output.
pub fn stdout() -> io::BufWriter<io::StdoutLock<'static>> {
    io::BufWriter::new(io::stdout().lock())
}

/// True if the reader of our output went away.
pub fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let io_error = error.chain().find_map(|cause| cause.downcast_ref::<io::Error>());
    io_error.is_some_and(|e| e.kind() == io::ErrorKind::BrokenPipe)
}

/// Text from a file, without what a terminal would obey: control characters, and those that turn the direction of text.
pub fn printable(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control()
            || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
        {
            out.extend(c.escape_default());
        } else {
            out.push(c);
        }
    }
    out
}

/// A bar that appears when work takes longer than two seconds, on terminals only.
#[derive(Debug)]
pub struct Progress {
    total: AtomicU64,
    done: AtomicU64,
    start: Instant,
    bar: Mutex<Option<ProgressBar>>,
}

const PATIENCE: Duration = Duration::from_secs(2);

impl Default for Progress {
    fn default() -> Self {
        Self { total: 0.into(), done: 0.into(), start: Instant::now(), bar: Mutex::default() }
    }
}

impl Progress {
    /// There is more to be done: files, or containers of a file.
    pub fn add(&self, count: usize) {
        self.total.fetch_add(count as u64, Relaxed);
    }

    /// One more of the total is done.
    pub fn step(&self) {
        let done = self.done.fetch_add(1, Relaxed) + 1;
        let total = self.total.load(Relaxed);
        if total > 1
            && self.start.elapsed() > PATIENCE
            && io::stderr().is_terminal()
            && let Ok(mut bar) = self.bar.lock()
        {
            let bar = bar.get_or_insert_with(new_bar);
            bar.set_length(total);
            bar.set_position(done);
        }
    }

    /// Takes the bar away, so that results are not written over it.
    pub fn finish(&self) {
        if let Ok(mut bar) = self.bar.lock()
            && let Some(bar) = bar.take()
        {
            bar.finish_and_clear();
        }
    }
}

fn new_bar() -> ProgressBar {
    let style = ProgressStyle::with_template("{wide_bar} {pos}/{len} {eta}");
    let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
    bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}
