//! A live line for people, on stderr, when that is a terminal.

use std::io::IsTerminal;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// How many records have been handled, and how fast.
pub struct Progress {
    bar: ProgressBar,
}

impl Progress {
    /// Starts to show progress, as in `1,234 records delivered, 567/s`; not when `quiet`, and not
    /// when stderr goes to a file.
    pub fn start(done: &'static str, quiet: bool) -> Self {
        let target = if quiet || !std::io::stderr().is_terminal() {
            ProgressDrawTarget::hidden()
        } else {
            ProgressDrawTarget::stderr_with_hz(5)
        };
        let bar = ProgressBar::with_draw_target(None, target).with_message(done);
        // The template is a constant; were it wrong, the default style would do.
        if let Ok(style) = ProgressStyle::with_template("{spinner} {human_pos} records {msg}, {per_sec}, {elapsed}") {
            bar.set_style(style);
        }
        bar.enable_steady_tick(Duration::from_millis(200));
        Self { bar }
    }

    /// More records are done.
    pub fn add(&self, records: u64) {
        self.bar.inc(records);
    }

    /// Removes the line.
    pub fn finish(&self) {
        self.bar.finish_and_clear();
    }
}
