//! The state of a table stream: how far each project has been read.
//!
//! ```json
//! {"version": 2, "projects": {
//!   "1001": {"ledger": {"choice": …, "slices": […]}, "export": {…}},
//!   "1002": {"method": "query", "covered": {"from": "…", "to": "…"}, "last_seen_at": "2026-11-23T14:00:00.000000Z",
//!     "scan": {"kind": "tail", "from": "…", "to": "…", "until": "…", "closed": [{"from": "…", "to": "…"}],
//!              "open": [{"from": "…", "to": "…", "after": {"position": "…", "id": "…"}, "rows": 50000}]}}}}
//! ```
//!
//! Events have a ledger. Other streams, and events that cannot be compared, have a watermark under the
//! cursor field's name: everything that the server received before it has been read. `scan` and
//! `export` are there while something is under way. Unknown keys are ignored; states of Airbyte's own
//! connector (`{"1001": {"timestamp": "…"}}`, `{"timestamp": "…"}`) are understood.

use std::collections::BTreeMap;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::error::{instant, unusable};
use super::export::ExportState;
use super::interval::Interval;
use super::person_figures::SeenFigures;
use super::read_ahead::ReadAhead;
use super::scan::{ChangesRead, Scan};
use super::stream::ProjectEntry;
use crate::error::Error;
use crate::records::Fingerprint;
use crate::sync::ledger::{Ledger, Names};
use crate::time::Timestamp;

#[derive(Debug, Clone, Default, PartialEq)]
pub struct ProjectState {
    /// What has been emitted, in figures.
    pub ledger: Option<Ledger>,
    /// Rows that the ledger does not have yet.
    pub read_ahead: Option<ReadAhead>,
    /// Everything that was received before this has been read.
    pub watermark: Option<Timestamp>,
    /// Positions that have been read up to the watermark, to notice other dates in the configuration.
    pub covered: Option<Interval>,
    /// The choice of event names, to notice another one.
    pub names: Option<Names>,
    /// Where another connector stopped.
    pub resume_from: Option<Timestamp>,
    /// The scan under way.
    pub scan: Option<Scan>,
    /// Up to when changes have been looked for by query, if the table shows them.
    pub changes: Option<ChangesRead>,
    /// The method that moved the watermark last.
    pub method: Option<LastMethod>,
    /// Where reading by exports stands.
    pub export: ExportState,
    /// When exports have been found not to work on this instance.
    pub exports_failed_at: Option<Timestamp>,
    /// How far distinct ids have been read by query, while that is under way.
    pub distinct_ids: Option<DistinctIdsRead>,
    /// The deleted persons that have been emitted.
    pub deleted: DeletedPersons,
    /// Figures by which an export that would bring nothing is known.
    pub person_figures: Option<SeenFigures>,
}

/// The deleted persons that have been emitted, in figures.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct DeletedPersons {
    /// By the number of the bucket that the id falls into.
    pub buckets: BTreeMap<u8, Fingerprint>,
    /// When they were compared last, by the server's clock.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub compared_at: Option<Timestamp>,
    /// Bytes that this made the server read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
}

/// How far distinct ids have been read by query.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DistinctIdsRead {
    /// The server's clock at the begin: what has changed since is left to the next sync.
    pub begun: Timestamp,
    /// The last one that has been emitted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
    /// How many have been emitted.
    #[serde(default)]
    pub rows: u64,
}

/// The method by which a project was read last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LastMethod {
    /// Queries: rows that arrived shortly before the watermark may be missing.
    Query,
    /// File exports: everything that was stored before the watermark has been read.
    Export,
}

impl ProjectEntry for ProjectState {
    const UNDERSTANDS_OTHER_CONNECTORS: bool = true;

    fn read(value: &Value, place: &str, cursor_field: &str) -> Result<Self, Error> {
        let read = |field: &str| value.get(field).filter(|value| !value.is_null());
        let time = |field: &str| read(field).map(|value| instant(&format!("{place}.{field}"), value)).transpose();
        if !value.is_object() {
            return Err(unusable(format_args!("`{place}` is not an object")));
        }
        let mut export: ExportState = part(value, place, "export")?.unwrap_or_default();
        // Version 1 looked for very late events less often.
        if let Some(until) = value.pointer("/late_check/until").filter(|until| !until.is_null()) {
            let until = instant(&format!("{place}.late_check.until"), until)?;
            export.compared_until = Some(export.compared_until.map_or(until, |compared| compared.min(until)));
        }
        let mut state = Self {
            ledger: read("ledger")
                .map(|ledger| {
                    Ledger::parse(ledger).map_err(|error| unusable(format_args!("`{place}.ledger`: {error}")))
                })
                .transpose()?,
            read_ahead: part(value, place, "read_ahead")?,
            watermark: time(cursor_field)?,
            covered: part(value, place, "covered")?,
            names: names(value, place)?,
            resume_from: time("resume_from")?,
            scan: if is_obsolete(value) { None } else { part(value, place, "scan")? },
            changes: part(value, place, "changes")?,
            method: part(value, place, "method")?,
            export,
            exports_failed_at: time("exports_failed_at")?,
            distinct_ids: part(value, place, "distinct_ids")?,
            deleted: part(value, place, "deleted")?.unwrap_or_default(),
            person_figures: part(value, place, "person_figures")?,
        };
        // What was read up to a time that is missing would be read again.
        let is_begun = state.watermark.is_some()
            || state.ledger.is_some()
            || state.scan.is_some()
            || state.resume_from.is_some()
            || state.export != ExportState::default();
        if state.covered.is_some() && !is_begun {
            if !is_obsolete(value) {
                return Err(unusable(format_args!("`{place}` has `covered`, but no `{cursor_field}`")));
            }
            // It belonged to the scan that is not continued.
            state.covered = None;
        }
        Ok(state)
    }

    fn to_value(&self, cursor_field: &str) -> Value {
        let mut state = json!({});
        let mut set = |field: &str, value: Option<Value>| {
            if let Some(value) = value {
                state[field] = value;
            }
        };
        set("ledger", self.ledger.as_ref().map(Ledger::to_value));
        set("read_ahead", self.read_ahead.as_ref().map(|ahead| json!(ahead)));
        set("method", self.method.map(|method| json!(method)));
        set("covered", self.covered.map(|covered| json!(covered)));
        set("names", self.names.as_ref().map(|names| json!(names)));
        set(cursor_field, self.watermark.map(|watermark| json!(watermark)));
        set("resume_from", self.resume_from.map(|from| json!(from)));
        set("scan", self.scan.as_ref().map(|scan| json!(scan)));
        set("changes", self.changes.map(|changes| json!(changes)));
        set("exports_failed_at", self.exports_failed_at.map(|at| json!(at)));
        set("distinct_ids", self.distinct_ids.as_ref().map(|read| json!(read)));
        set("deleted", (self.deleted != DeletedPersons::default()).then(|| json!(self.deleted)));
        set("person_figures", self.person_figures.map(|figures| json!(figures)));
        set("export", (self.export != ExportState::default()).then(|| json!(self.export)));
        state
    }

    fn resume_from(&mut self, from: Timestamp) {
        if self.watermark.is_none() && self.ledger.is_none() {
            self.resume_from.get_or_insert(from);
        }
    }
}

/// Whether the scan is one of version 1 that asks for times of ingestion. Events have a ledger now.
fn is_obsolete(project: &Value) -> bool {
    project["scan"]["arrived_from"].is_string() || matches!(project["scan"]["kind"].as_str(), Some("late" | "repair"))
}

/// The choice of names, also as version 1 wrote it: two lists, of which an empty first one means all.
fn names(project: &Value, place: &str) -> Result<Option<Names>, Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Saved {
        Set(Names),
        Lists {
            #[serde(default)]
            include: Vec<String>,
            #[serde(default)]
            exclude: Vec<String>,
        },
    }
    Ok(part(project, place, "names")?.map(|saved| match saved {
        Saved::Set(names) => names,
        Saved::Lists { include, exclude } => Names::new(&include, &exclude),
    }))
}

/// Reads one part of a project's state, if it is there.
fn part<T: DeserializeOwned>(project: &Value, place: &str, field: &str) -> Result<Option<T>, Error> {
    let Some(value) = project.get(field).filter(|value| !value.is_null()) else { return Ok(None) };
    T::deserialize(value).map(Some).map_err(|error| unusable(format_args!("`{place}.{field}`: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::posthog::RowKey;
    use crate::sync::state::day_counts::DayCounts;
    use crate::sync::state::export::{ExportWindow, ExportedDays};
    use crate::sync::state::interval::Intervals;
    use crate::sync::state::person_figures::PersonFigures;
    use crate::sync::state::scan::{Changed, ScanKind};
    use crate::sync::state::stream::StreamState;

    type TableState = StreamState<ProjectState>;

    fn parse(state: &Value) -> Result<TableState, Error> {
        TableState::parse(Some(state), "created_at")
    }

    fn at(text: &str) -> Timestamp {
        Timestamp::parse(text).unwrap()
    }

    #[test]
    fn a_state_survives_being_written_and_read() {
        let interval = Interval { from: at("2026-01-01"), to: at("2026-02-01") };
        let mut scan = Scan {
            kind: ScanKind::Tail,
            interval,
            until: at("2026-01-02"),
            changed: Some(Changed { left_out: true, ..Changed::within(interval) }),
            bytes: Some(7),
            closed: Intervals::default(),
            open: Vec::new(),
        };
        let first = Interval { to: at("2026-01-05"), ..interval };
        let second = Interval { from: at("2026-01-05"), ..interval };
        scan.set_open(
            second,
            Some((RowKey { sort_key: at("2026-01-06T00:00:00.000001Z"), id: "u".into(), identity: Vec::new() }, 7)),
        );
        scan.close(first);
        let mut rows = DayCounts::default();
        rows.add(20_000, 7);
        let mut ledger = Ledger::new(crate::sync::ledger::Choice::all(), None);
        ledger.open_slices(at("2026-01-02"), [], None);
        let figure = Fingerprint::new(2, u64::MAX);
        let project = ProjectState {
            ledger: Some(ledger),
            read_ahead: Some(ReadAhead {
                from: at("2026-01-01"),
                until: at("2026-01-02"),
                rows: [1, (1 << 53) - 1].into(),
            }),
            watermark: Some(at("2026-01-01T00:00:00.123456Z")),
            covered: Some(interval),
            names: Some(Names::new(&["a".into()], &[])),
            resume_from: None,
            scan: Some(scan),
            changes: Some(ChangesRead { recent: at("2026-01-02"), all: at("2026-01-01"), bytes: None }),
            method: Some(LastMethod::Export),
            export: ExportState {
                until: Some(at("2026-01-03")),
                windows: vec![ExportWindow { days: rows.clone(), ..ExportWindow::new(interval, "run".into()) }],
                days: Some(ExportedDays { from: at("2026-01-01"), rows }),
                bytes: Some(5),
                ..ExportState::default()
            },
            exports_failed_at: Some(at("2026-01-02")),
            distinct_ids: Some(DistinctIdsRead { begun: at("2026-01-02"), after: Some("é".into()), rows: 5 }),
            deleted: DeletedPersons {
                buckets: [(63, figure)].into(),
                compared_at: Some(at("2026-01-02")),
                bytes: Some(7),
            },
            person_figures: Some(SeenFigures {
                figures: Some(PersonFigures { persons: figure, distinct_ids: figure }),
                since: at("2026-01-02"),
                bytes: 7,
            }),
        };
        let mut state = TableState::empty("created_at");
        state.projects.insert(7, project);
        let value = state.to_value();
        assert_eq!(value["projects"]["7"]["created_at"], "2026-01-01T00:00:00.123456Z");
        assert_eq!(parse(&value).unwrap(), state);
    }

    #[test]
    fn states_of_the_official_connector_are_accepted() {
        let timestamp = Some(at("2026-01-01"));
        let old =
            parse(&json!({"1001": {"timestamp": "2026-01-01T00:00:00+00:00"}, "1002": {"timestamp": null}})).unwrap();
        assert_eq!((old.project(1001).resume_from, old.project(1002).resume_from), (timestamp, None));
        let everywhere = parse(&json!({"timestamp": "2026-01-01T00:00:00Z"})).unwrap().resumed_by([5].into_iter());
        assert_eq!((everywhere.project(5).resume_from, everywhere.project(6).resume_from), (timestamp, None));
        for none in
            [json!({}), json!({"__ab_no_cursor_state_message": true}), json!({"version": 1, "projects": null, "x": 1})]
        {
            assert_eq!(parse(&none).unwrap(), TableState::empty("created_at"));
        }
        assert_eq!(TableState::parse(None, "created_at").unwrap(), TableState::empty("created_at"));
    }

    #[test]
    fn errors_of_invalid_states_name_the_field() {
        for (state, expected) in [
            (json!(5), "not an object"),
            (json!({"version": 3}), "newer version"),
            (json!({"version": "x"}), "`version`"),
            (json!({"version": 1, "projects": []}), "`projects`"),
            (json!({"version": 1, "projects": {"a": {}}}), "`projects.a`"),
            (json!({"version": 1, "projects": {"7": {"created_at": 5}}}), "`projects.7.created_at`"),
            (json!({"version": 1, "projects": {"7": {"scan": {"kind": "tail"}}}}), "`projects.7.scan`"),
            (json!({"version": 1, "projects": {"7": {"method": "magic"}}}), "`projects.7.method`"),
            (json!({"version": 2, "projects": {"7": {"ledger": {"choice": 5}}}}), "`projects.7.ledger`: `choice`"),
            (
                json!({"version": 1, "projects": {"7": {"last_seen_at": "2026-01-01"}}}),
                "nothing that this stream knows",
            ),
            (
                json!({"version": 1, "projects": {"7": {"covered": {"from": "2026-01-01", "to": "2026-02-01"}}}}),
                "no `created_at`",
            ),
            (json!({"version": 2, "project": {"7": {"created_at": "2026-01-01"}}}), "no `projects`"),
            (json!({"1001": {"created_at": "2026-01-01"}}), "`1001` has no `timestamp`"),
            (json!({"1001": {"timestamp": "soon"}}), "`1001.timestamp`"),
            (json!({"cursor": {"a": 1}}), "`cursor`"),
        ] {
            let error = parse(&state).unwrap_err();
            assert!(error.message().contains(expected), "{state}: {error}");
        }
    }

    #[test]
    fn states_of_events_of_version_1_are_read() {
        let scan = json!({"kind": "late", "from": "2026-01-01", "to": "2026-02-01", "arrived_from": "2026-01-01",
            "until": "2026-01-02", "far": true, "closed": [], "open": []});
        let export = json!({"compared_until": "2026-01-01T10:00:00Z", "received": {"1": 2}, "windows": [
            {"from": "2026-01-01", "to": "2026-01-02", "run": "r", "received": {"1": 2}}]});
        let project = json!({"created_at": "2026-01-01T12:00:00Z", "names": {"include": ["a"], "exclude": ["b"]},
            "late_check": {"until": "2026-01-01"}, "scan": scan, "export": export, "method": "export"});
        let state = parse(&json!({"version": 1, "projects": {"7": project}})).unwrap().project(7);
        assert_eq!((state.watermark, state.scan, state.ledger), (Some(at("2026-01-01T12:00:00Z")), None, None));
        assert_eq!(state.names, Some(Names::new(&["a".into()], &["b".into()])));
        assert_eq!(state.export.compared_until, Some(at("2026-01-01")), "the last check for very late events");
    }
}
