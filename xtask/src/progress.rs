//! Progress display: a bar on a terminal, plain lines anywhere else.

use std::io::IsTerminal;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

/// Progress over a known number of steps.
pub struct Progress {
    bar: Option<ProgressBar>,
    label: String,
    total: u64,
}

impl Progress {
    /// Starts a display of `total` steps named `label`.
    pub fn new(label: &str, total: usize) -> Self {
        let total = total as u64;
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::new(total);
            let style = "{spinner} {prefix} [{bar:24}] {pos}/{len} {elapsed} {wide_msg}";
            // The template is a constant; if indicatif should refuse it, its default still shows progress.
            if let Ok(style) = ProgressStyle::with_template(style) {
                bar.set_style(style.progress_chars("=> "));
            }
            bar.set_prefix(label.to_string());
            bar.enable_steady_tick(Duration::from_millis(120));
            bar
        });
        Self { bar, label: label.to_string(), total }
    }

    /// Says what is being done; `position` steps are complete.
    pub fn step(&self, position: usize, message: &str) {
        match &self.bar {
            Some(bar) => {
                bar.set_position(position as u64);
                bar.set_message(message.to_string());
            }
            None => eprintln!("{}: [{position}/{}] {message}", self.label, self.total),
        }
    }

    /// Prints a line that stays.
    pub fn line(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.println(text),
            None => eprintln!("{text}"),
        }
    }

    /// Ends the display and leaves one closing line.
    pub fn finish(self, message: &str) {
        if let Some(bar) = self.bar {
            bar.finish_and_clear();
        }
        eprintln!("{}: {message}", self.label);
    }
}
