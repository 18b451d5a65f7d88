//! How many rows the export runs of a sync may export, all projects and streams together.

use std::sync::{Arc, Mutex};

use indicatif::HumanCount;

use crate::error::Error;
use crate::lock::lock;

/// The limit, and what has been used of it. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct RowLimit {
    /// None: any number of rows.
    most: Option<u64>,
    used: Arc<Mutex<u64>>,
}

/// Rows of one run. They are free again when its run ends without having exported them.
#[derive(Debug)]
pub(super) struct Claim {
    used: Arc<Mutex<u64>>,
    rows: Mutex<u64>,
}

/// A run would pass the limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct LimitReached {
    most: u64,
    used: u64,
    /// Rows of the run, if they have been counted.
    rows: Option<u64>,
}

impl RowLimit {
    /// The runs of a sync may export so many rows.
    pub fn new(most: Option<u64>) -> Self {
        Self { most, used: Arc::default() }
    }

    /// Whether there is a limit.
    pub(super) fn is_set(&self) -> bool {
        self.most.is_some()
    }

    /// Whether a sync may have a run with so many rows at all.
    pub(super) fn fits_ever(&self, rows: Option<u64>) -> bool {
        rows.zip(self.most).is_none_or(|(rows, most)| rows <= most)
    }

    /// Reserves the rows of a run that is about to be started.
    ///
    /// Where they are unknown, only a run that is `alone` may be started: the rows of the one before are known then.
    ///
    /// # Errors
    /// When they are more than are left.
    pub(super) fn claim(&self, rows: Option<u64>, alone: bool) -> Result<Claim, LimitReached> {
        let mut used = lock(&self.used);
        if let Some(most) = self.most {
            let fits = rows.map_or(alone && *used < most, |rows| used.saturating_add(rows) <= most);
            if !fits {
                return Err(LimitReached { most, used: *used, rows });
            }
        }
        *used += rows.unwrap_or_default();
        drop(used);
        Ok(Claim { used: Arc::clone(&self.used), rows: Mutex::new(rows.unwrap_or_default()) })
    }
}

impl Claim {
    /// The run has exported so many rows. They stay used, whatever becomes of its files.
    pub(super) fn exported(&self, exported: u64) {
        let mut rows = lock(&self.rows);
        let mut used = lock(&self.used);
        *used = used.saturating_sub(*rows) + exported;
        *rows = 0;
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        let mut used = lock(&self.used);
        *used = used.saturating_sub(*lock(&self.rows));
    }
}

impl LimitReached {
    /// The sentence for the user, `what` being the rows of the run that was not started.
    pub(super) fn into_error(self, what: &str) -> Error {
        let (most, used) = (HumanCount(self.most), HumanCount(self.used));
        if let Some(rows) = self.rows.filter(|rows| *rows > self.most) {
            return Error::config(format!(
                "`max_exported_rows` is {most}, and the shortest export run that is next ({what}) has about {} rows, so no sync with this limit gets any further; raise `max_exported_rows` to {rows} at least, or set `method` to `query`",
                HumanCount(rows)
            ));
        }
        let next = match self.rows {
            Some(rows) => format!("the next export run ({what}) would add about {}", HumanCount(rows)),
            None => format!("the next export run ({what}) would add more"),
        };
        Error::config(format!(
            "`max_exported_rows` is {most}: the export runs of this sync have {used} rows, and {next}, so the sync ends here. What has been read is kept, and the next sync goes on from there with the same limit; raise `max_exported_rows`, or set `method` to `query`"
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_runs_that_export_nothing_are_free_again() {
        let limit = RowLimit::new(Some(100));
        let first = limit.claim(Some(60), true).unwrap();
        assert_eq!(limit.claim(Some(41), true).unwrap_err().used, 60);
        let second = limit.claim(Some(40), false).unwrap();
        drop(first);
        second.exported(50);
        drop(second);
        assert_eq!(limit.claim(Some(51), true).unwrap_err(), LimitReached { most: 100, used: 50, rows: Some(51) });
        assert!(limit.claim(Some(50), true).is_ok());
    }

    #[test]
    fn runs_that_fit_in_no_sync_are_told_from_those_of_a_later_one() {
        let limit = RowLimit::new(Some(100));
        assert_eq!([Some(100), Some(101), None].map(|rows| limit.fits_ever(rows)), [true, false, true]);
        let claim = limit.claim(Some(60), true).unwrap();
        let message = |rows| limit.claim(Some(rows), true).unwrap_err().into_error("events").message().to_owned();
        assert!(message(41).contains("the next sync goes on from there"), "{}", message(41));
        assert!(message(1_001).contains("raise `max_exported_rows` to 1001 at least"), "{}", message(1_001));
        drop(claim);
    }

    #[test]
    fn runs_of_unknown_size_are_started_one_by_one() {
        let limit = RowLimit::new(Some(10));
        assert!(limit.claim(None, false).is_err());
        limit.claim(None, true).unwrap().exported(9);
        limit.claim(None, true).unwrap().exported(30);
        assert_eq!(limit.claim(None, true).unwrap_err().used, 39);
        let any = RowLimit::new(None);
        any.claim(Some(u64::MAX / 2), false).unwrap().exported(5);
        assert!(any.claim(None, false).is_ok());
    }
}
