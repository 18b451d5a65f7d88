//! How many rows to ask for.

use std::sync::Mutex;

use crate::lock::lock;

/// Below this, smaller windows are a better answer to slow queries than smaller pages.
const SMALL: u32 = 100;
/// Good pages in a row after which a larger one is tried again.
const PATIENCE: u32 = 50;

/// The page size that the windows of a project share: it is halved when the server finds a page too
/// large, and slowly grows again.
#[derive(Debug)]
pub struct PageSize {
    most: u32,
    state: Mutex<State>,
}

/// What to ask for instead of a page that was too large.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Smaller {
    /// Fewer rows, by [`PageSize::rows`].
    Page,
    /// A shorter window.
    Window,
}

#[derive(Debug)]
struct State {
    rows: u32,
    successes: u32,
}

impl PageSize {
    /// Starts with `most` rows.
    pub fn new(most: u32) -> Self {
        Self { most, state: Mutex::new(State { rows: most, successes: 0 }) }
    }

    /// Rows to ask for now.
    pub fn rows(&self) -> u32 {
        self.state().rows
    }

    /// A page of `rows` rows was too large. Returns false when it was small already.
    pub fn too_large(&self, rows: u32, may_be_tiny: bool) -> bool {
        let floor = if may_be_tiny { 1 } else { SMALL };
        if rows <= floor {
            return false;
        }
        let mut state = self.state();
        // Another window may have asked for less meanwhile.
        state.rows = state.rows.min((rows / 2).max(1));
        state.successes = 0;
        true
    }

    /// What to ask for after a page of `rows` rows was too large; none when not even one row can be read.
    ///
    /// First small pages, then shorter windows, then tiny pages: when the window is tiny as well, the rows
    /// themselves must be huge. `may_be_tiny` is false at first and kept for the page.
    pub(crate) fn after_too_large(
        &self,
        rows: u32,
        may_be_tiny: &mut bool,
        can_be_shortened: impl FnOnce() -> bool,
    ) -> Option<Smaller> {
        if self.too_large(rows, *may_be_tiny) {
            return Some(Smaller::Page);
        }
        if *may_be_tiny {
            return None;
        }
        if can_be_shortened() {
            return Some(Smaller::Window);
        }
        *may_be_tiny = true;
        Some(Smaller::Page)
    }

    /// A full page came well.
    pub fn succeeded(&self) {
        let mut state = self.state();
        state.successes += 1;
        if state.successes >= PATIENCE && state.rows < self.most {
            state.rows = state.rows.saturating_mul(2).min(self.most);
            state.successes = 0;
        }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        lock(&self.state)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_pages_are_followed_by_shorter_windows_and_then_by_tiny_pages() {
        let size = PageSize::new(200);
        let mut may_be_tiny = false;
        assert_eq!(size.after_too_large(200, &mut may_be_tiny, || true), Some(Smaller::Page));
        assert_eq!(size.after_too_large(100, &mut may_be_tiny, || true), Some(Smaller::Window));
        assert_eq!(size.after_too_large(100, &mut may_be_tiny, || false), Some(Smaller::Page));
        assert_eq!(size.after_too_large(100, &mut may_be_tiny, || true), Some(Smaller::Page));
        assert_eq!(size.rows(), 50);
        assert_eq!(size.after_too_large(1, &mut may_be_tiny, || true), None);
    }

    #[test]
    fn page_size_is_halved_on_failure_and_grows_again() {
        let size = PageSize::new(3_000);
        assert!(size.too_large(3_000, false));
        assert!(size.too_large(3_000, false), "another window asked for the same before");
        assert_eq!(size.rows(), 1_500);
        assert!([1_500, 750, 375, 187].iter().all(|rows| size.too_large(*rows, false)));
        assert!(!size.too_large(93, false));
        assert!(size.too_large(93, true));
        assert_eq!(size.rows(), 46);
        (0..500).for_each(|_| size.succeeded());
        assert_eq!(size.rows(), 3_000);
        assert!(!PageSize::new(1).too_large(1, true));
    }
}
