//! Reading two streams from the same runs: persons, and which distinct ids are theirs.
//!
//! Each stream has its own state, and either may be ahead: one may have been chosen later, or the last sync
//! may have ended between their two states. A pass begins where the first of them has to, and a stream takes
//! the lines of the windows that its own state does not cover.

use crate::sync::context::LOOKBACK;
use crate::sync::state::export::ExportWindow;
use crate::sync::state::interval::Interval;
use crate::time::Timestamp;

/// Whether a stream whose state has this watermark takes the lines of a window.
pub(super) fn needs(watermark: Option<Timestamp>, window: Interval) -> bool {
    watermark.is_none_or(|watermark| watermark.minus(LOOKBACK) < window.to)
}

/// Where a stream has to begin, and the runs that its state knows.
#[derive(Debug, Clone)]
pub(super) struct Begin {
    pub(super) from: Timestamp,
    pub(super) windows: Vec<ExportWindow>,
}

/// The runs that both streams can go on with, with the files that neither needs any more. None when they do
/// not follow each other; then both start from scratch.
pub(super) fn join(first: Begin, second: Begin) -> Option<Vec<ExportWindow>> {
    let (behind, ahead) = if first.from <= second.from { (first, second) } else { (second, first) };
    let mut windows = behind.windows;
    for window in &mut windows {
        let same = ahead.windows.iter().find(|other| other.run == window.run);
        // What lies before its beginning, the one that is ahead has read.
        if window.interval.to > ahead.from && same.is_none_or(|same| same.files != window.files) {
            (window.files, window.rows, window.done) = (Vec::new(), 0, false);
        }
    }
    for window in ahead.windows {
        if windows.iter().any(|known| known.run == window.run) {
            continue;
        }
        let follows = windows.last().map_or(behind.from, |last| last.interval.to) == window.interval.from;
        if !follows {
            return None;
        }
        windows.push(ExportWindow::new(window.interval, window.run));
    }
    Some(windows)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(hour: i64) -> Timestamp {
        Timestamp::from_micros(hour * 3_600_000_000)
    }

    fn window(from: i64, to: i64, run: &str, files: &[&str]) -> ExportWindow {
        let files = files.iter().map(|file| (*file).to_owned()).collect::<Vec<_>>();
        let rows = files.len() as u64;
        ExportWindow { files, rows, ..ExportWindow::new(Interval { from: at(from), to: at(to) }, run.to_owned()) }
    }

    fn begin(windows: &[ExportWindow]) -> Begin {
        Begin { from: windows[0].interval.from, windows: windows.to_vec() }
    }

    #[test]
    fn a_stream_takes_what_its_state_does_not_cover_with_the_lookback() {
        let window = Interval { from: at(10), to: at(20) };
        assert!(needs(None, window) && needs(Some(at(15)), window) && needs(Some(at(20)), window));
        assert!(!needs(Some(at(21)), window));
    }

    #[test]
    fn states_of_one_moment_go_on_with_their_runs_and_files() {
        let windows = [window(0, 5, "a", &["1"]), window(5, 9, "b", &[])];
        assert_eq!(join(begin(&windows), begin(&windows)), Some(windows.to_vec()));
        assert_eq!(
            join(Begin { from: at(3), windows: Vec::new() }, Begin { from: at(4), windows: Vec::new() }),
            Some(vec![])
        );
    }

    #[test]
    fn files_that_one_of_them_has_not_read_are_read_again() {
        let (ahead, behind) = ([window(0, 5, "a", &["1", "2"])], [window(0, 5, "a", &["1"])]);
        for (first, second) in [(&ahead, &behind), (&behind, &ahead)] {
            assert_eq!(join(begin(first), begin(second)), Some(vec![window(0, 5, "a", &[])]));
        }
        let longer = [window(0, 5, "a", &["1"]), window(5, 9, "b", &["3"])];
        assert_eq!(join(begin(&behind), begin(&longer)), Some(vec![window(0, 5, "a", &["1"]), window(5, 9, "b", &[])]));
    }

    #[test]
    fn the_one_ahead_has_closed_a_window() {
        let behind = [window(0, 5, "a", &["1"]), window(5, 9, "b", &[])];
        let ahead = [window(5, 9, "b", &[]), window(9, 12, "c", &[])];
        let joined = [window(0, 5, "a", &["1"]), window(5, 9, "b", &[]), window(9, 12, "c", &[])];
        assert_eq!(join(begin(&ahead), begin(&behind)), Some(joined.to_vec()));
        let none = Begin { from: at(8), windows: Vec::new() };
        assert_eq!(join(none, begin(&behind)), Some(behind.to_vec()));
    }

    /// A stream that was chosen later has no runs, and has read nothing of those of the other.
    #[test]
    fn files_that_only_one_of_them_has_read_are_read_again() {
        let mut known = [window(0, 5, "a", &["1"]), window(5, 9, "b", &["2"])];
        known[1].done = true;
        for from in [0, 3] {
            let new = || Begin { from: at(from), windows: Vec::new() };
            let unread = [window(0, 5, "a", &[]), window(5, 9, "b", &[])];
            assert_eq!(join(new(), begin(&known)), Some(unread.to_vec()));
            assert_eq!(join(begin(&known), new()), Some(unread.to_vec()));
        }
        let has_read_the_first = Begin { from: at(5), windows: Vec::new() };
        let joined = [known[0].clone(), window(5, 9, "b", &[])];
        assert_eq!(join(has_read_the_first, begin(&known)), Some(joined.to_vec()));
    }

    #[test]
    fn runs_that_do_not_follow_are_not_used() {
        let ahead = [window(5, 9, "b", &[])];
        assert_eq!(join(Begin { from: at(0), windows: Vec::new() }, begin(&ahead)), None);
        assert_eq!(join(begin(&[window(0, 4, "a", &[])]), begin(&ahead)), None);
        assert_eq!(join(begin(&[window(5, 9, "x", &[])]), begin(&ahead)), None);
    }
}
