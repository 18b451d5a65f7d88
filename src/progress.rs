//! A live line for people, on stderr.
//!
//! It is shown only when stderr is a terminal and stdout is not, because messages and a live line on
//! the same screen would tear each other apart.

use std::fmt::Write;
use std::io::IsTerminal;
use std::time::Duration;

use indicatif::{HumanBytes, ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};

use crate::plain::plain;

const OPEN_END: &str = "{spinner} {human_pos} records {prefix}, {rate}, {elapsed}{msg}";
const WITH_TOTAL: &str = "{spinner} {human_pos} of about {human_len} records {prefix}, {rate}, {elapsed}{msg}";

/// How many records have been handled, how fast, and what is being waited for.
pub struct Progress {
    bar: ProgressBar,
    bytes: u64,
}

impl Progress {
    pub fn hidden() -> Self {
        Self { bar: ProgressBar::hidden(), bytes: 0 }
    }

    /// Starts to show progress, as in `1,234 records delivered, 567/s`; not when `quiet`.
    pub fn start(done: &'static str, quiet: bool) -> Self {
        if quiet || !std::io::stderr().is_terminal() || std::io::stdout().is_terminal() {
            return Self::hidden();
        }
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr_with_hz(5)).with_prefix(done);
        let progress = Self { bar, bytes: 0 };
        progress.style(OPEN_END);
        // Only now: it draws at once, in the style that there is.
        progress.bar.enable_steady_tick(Duration::from_millis(200));
        progress
    }

    /// The templates are constants; were one wrong, the style before it would stay.
    fn style(&self, template: &str) {
        if let Ok(style) = ProgressStyle::with_template(template) {
            let rate = |state: &ProgressState, out: &mut dyn Write| {
                let written = write!(out, "{:.0}/s", state.per_sec());
                debug_assert!(written.is_ok());
            };
            self.bar.set_style(style.with_key("rate", rate));
        }
    }

    /// More records are done.
    pub fn add(&mut self, records: u64, bytes: usize) {
        self.bytes += bytes as u64;
        self.bar.inc(records);
        self.bar.set_message(format!(", {}", HumanBytes(self.bytes)));
    }

    /// So many records are expected in all.
    pub fn expect(&self, records: u64) {
        self.bar.set_length(records);
        self.style(WITH_TOTAL);
    }

    /// Nothing moves until something happens elsewhere.
    pub fn waiting(&self, reason: &str) {
        self.bar.set_message(format!(", {}, {}", HumanBytes(self.bytes), plain(reason)));
    }

    /// Writes something else to the terminal.
    pub fn beside(&self, write: impl FnOnce()) {
        self.bar.suspend(write);
    }

    /// Removes the line.
    pub fn finish(&self) {
        self.bar.finish_and_clear();
    }
}
