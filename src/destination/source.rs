//! How the source has ended, as far as its messages tell.
//!
//! In a pipe nothing else does: a source that could not be started, or was killed, looks like one that
//! had nothing to say.

use std::collections::{BTreeMap, BTreeSet};

use super::line::{SourceError, SourceStatus};
use crate::error::Error;
use crate::protocol::StreamDescriptor;

/// What the source has said about itself.
#[derive(Debug, Default)]
pub(super) struct SourceReport {
    /// Its failures, and the stream that each is about, if it is about one.
    failures: Vec<(Option<StreamDescriptor>, Error)>,
    /// The last status of every stream; empty for a source that sends none.
    statuses: BTreeMap<StreamDescriptor, Status>,
    /// Streams that have been complete before, if the source reads them again and again.
    read_before: BTreeSet<StreamDescriptor>,
    /// Whether a record or a state has come.
    has_content: bool,
    /// Whether any message has come.
    has_messages: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Status {
    Begun,
    Complete,
    Incomplete,
}

impl SourceReport {
    /// A record or a state has come.
    pub(super) fn content(&mut self) {
        (self.has_content, self.has_messages) = (true, true);
    }

    /// Another message has come.
    pub(super) fn message(&mut self) {
        self.has_messages = true;
    }

    /// The status of a stream has come.
    pub(super) fn status(&mut self, status: SourceStatus) {
        let known = match status.status.as_str() {
            "STARTED" | "RUNNING" => Status::Begun,
            "COMPLETE" => Status::Complete,
            "INCOMPLETE" => Status::Incomplete,
            _ => return,
        };
        // A source that goes on begins a stream again: what failed before it has another try now.
        if status.status == "STARTED" {
            self.failures.retain(|(stream, _)| stream.as_ref() != Some(&status.stream));
        }
        if known == Status::Complete {
            self.read_before.insert(status.stream.clone());
        }
        self.statuses.insert(status.stream, known);
    }

    /// The source has reported a failure.
    pub(super) fn failed(&mut self, error: &SourceError) {
        let text = format!("the source has failed: {}", error.message);
        let failure = match error.failure_type.as_str() {
            "config_error" => Error::config(text),
            "transient_error" => Error::transient(text),
            _ => Error::system(text),
        };
        self.failures.push((error.stream.clone(), failure));
    }

    /// Its last line was cut off.
    pub(super) fn cut_off(&mut self) {
        let error = "the source was cut off in the middle of a line; the next sync reads what is missing";
        self.failures.push((None, Error::system(error)));
    }

    /// Whether the source has done all that the catalog asks for, once its output has ended.
    ///
    /// # Errors
    /// When it has not, or has not begun.
    pub(super) fn end(self, catalog: &[StreamDescriptor]) -> Result<(), Error> {
        if let Some((_, error)) = self.failures.into_iter().next() {
            return Err(error);
        }
        if !self.has_messages {
            return Err(Error::system(
                "the input contains no messages: the source did not start, or failed at once. See its standard error",
            ));
        }
        if self.statuses.is_empty() {
            // Sources need not report statuses, but then there is at least a state.
            return if self.has_content { Ok(()) } else { Err(stopped("before the first record or state")) };
        }
        let with = |wanted: Status, except: &BTreeSet<StreamDescriptor>| -> Vec<&str> {
            let found = self.statuses.iter().filter(|(stream, status)| **status == wanted && !except.contains(*stream));
            found.map(|(stream, _)| stream.name.as_str()).collect()
        };
        // What has been read before can be ended on purpose while it is read again.
        let (begun, incomplete) = (with(Status::Begun, &BTreeSet::new()), with(Status::Incomplete, &self.read_before));
        if !begun.is_empty() {
            return Err(stopped(&format!("in the middle of {}", begun.join(", "))));
        }
        if !incomplete.is_empty() {
            return Err(Error::system(format!(
                "the source could not read all of {} and gave no reason; see its log",
                incomplete.join(", ")
            )));
        }
        // Platforms put a prefix in front of the names in the catalog, but not always of those in statuses.
        let is_in_catalog = |stream: &StreamDescriptor| catalog.iter().any(|known| known.name == stream.name);
        let is_told = |name: &str| self.statuses.keys().any(|stream| stream.name == name);
        let missing: Vec<&str> = if self.statuses.keys().all(is_in_catalog) {
            catalog.iter().map(|stream| stream.name.as_str()).filter(|name| !is_told(name)).collect()
        } else {
            Vec::new()
        };
        match (missing.is_empty(), self.has_content) {
            (true, true) => Ok(()),
            (true, false) => Err(stopped("without a record or a state")),
            (false, _) => Err(stopped(&format!("before {}", missing.join(", ")))),
        }
    }
}

fn stopped(place: &str) -> Error {
    Error::system(format!(
        "the source stopped {place} without an error message: it was killed or ran out of memory. Everything received has been delivered; the next sync continues"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stream(name: &str) -> StreamDescriptor {
        StreamDescriptor { name: name.to_owned(), namespace: None }
    }

    fn end(statuses: &[(&str, &str)], has_content: bool) -> Result<(), String> {
        let mut report = SourceReport::default();
        report.message();
        if has_content {
            report.content();
        }
        for (name, status) in statuses {
            report.status(SourceStatus { stream: stream(name), status: (*status).to_owned() });
        }
        report.end(&[stream("a"), stream("b")]).map_err(|error| error.to_string())
    }

    #[test]
    fn every_stream_of_the_catalog_has_to_be_complete() {
        let complete = [("a", "STARTED"), ("a", "RUNNING"), ("a", "COMPLETE"), ("b", "STARTED"), ("b", "COMPLETE")];
        assert_eq!(end(&complete, true), Ok(()));
        assert!(end(&complete, false).unwrap_err().contains("without a record or a state"));
        for (length, expected) in
            [(1, "in the middle of a"), (2, "in the middle of a"), (3, "before b"), (4, "in the middle of b")]
        {
            let error = end(&complete[..length], true).unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
        assert_eq!(end(&[("prefix_a", "COMPLETE")], true), Ok(()), "names of another catalog");
        let error = end(&[("a", "COMPLETE"), ("b", "INCOMPLETE")], true).unwrap_err();
        assert!(error.contains("could not read all of b"), "{error}");
    }

    #[test]
    fn a_source_that_goes_on_may_fail_and_recover_and_be_ended() {
        let round = [("a", "STARTED"), ("b", "STARTED"), ("a", "COMPLETE"), ("b", "COMPLETE")];
        let after = |last: &[(&str, &str)]| end(&[&round[..], last].concat(), true);
        assert_eq!(after(&round), Ok(()));
        assert!(after(&round[..3]).unwrap_err().contains("in the middle of b"), "killed");
        assert_eq!(after(&[("b", "STARTED"), ("b", "INCOMPLETE")]), Ok(()), "ended on purpose");
        let failure = |stream| SourceError { message: "m".to_owned(), failure_type: String::new(), stream };
        let ended = |steps: &[(&str, Option<SourceError>)]| {
            let mut report = SourceReport::default();
            report.content();
            for (text, error) in steps {
                report.status(SourceStatus { stream: stream("a"), status: (*text).to_owned() });
                if let Some(error) = error {
                    report.failed(error);
                }
            }
            report.end(&[stream("a")])
        };
        let (of_stream, of_all) = (|| Some(failure(Some(stream("a")))), || Some(failure(None)));
        let recovered = [("STARTED", of_stream()), ("INCOMPLETE", None), ("STARTED", None), ("COMPLETE", None)];
        assert!(ended(&recovered).is_ok(), "read since");
        let failed = [("STARTED", None), ("COMPLETE", None), ("STARTED", of_stream()), ("INCOMPLETE", None)];
        assert!(ended(&failed).unwrap_err().message().contains("has failed"));
        assert!(ended(&[("STARTED", of_all()), ("STARTED", None), ("COMPLETE", None)]).is_err(), "of no stream");
    }

    #[test]
    fn a_source_without_statuses_has_to_have_said_something() {
        assert_eq!(end(&[], true), Ok(()));
        assert!(end(&[], false).unwrap_err().contains("before the first record or state"));
        assert!(SourceReport::default().end(&[]).unwrap_err().message().contains("no message"));
    }
}
