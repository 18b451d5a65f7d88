//! Which PostHog the sandbox stands for: PostHog Cloud of a certain time, or a self-hosted instance.
//!
//! Every difference is a public field of [`Server`], so a test can take a whole instance and change
//! one thing about it:
//!
//! ```
//! use posthog_sandbox::posthog::{RecordsCompleted, Sandbox, Server, SessionsVersion};
//!
//! let mut server = Server::cloud_2026();
//! server.schema.sessions = SessionsVersion::V3;
//! server.exports.records_completed = RecordsCompleted::Missing;
//! let builder = Sandbox::builder().server(server);
//! # drop(builder);
//! ```

use chrono::{DateTime, Duration, Utc};

use super::exports::{ExportServer, InstantFormat, Offset, RecordsCompleted, SessionFields};
use super::hogql::{PersonsOnEvents, Refusals, Schema, SessionsVersion};

/// Everything in which instances of PostHog differ.
///
/// Limits are separate ([`Limits`](super::Limits)), as is how long runs take and which of them hang
/// ([`Exports`](super::Exports)): those vary within one instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    /// Tables and columns that queries can read, and which person an event belongs to.
    pub schema: Schema,
    /// Wording of refused queries.
    pub refusals: Refusals,
    /// How file download exports answer, and what is in their files.
    pub exports: ExportServer,
    /// Rules of list endpoints.
    pub lists: ListServer,
    /// Whether a merge changes `person_id` of the events so far at once, instead of in queries only.
    pub merges_rewrite_events: bool,
    /// Seconds by which the server's clock is ahead (or, if negative, behind): in `Date`, in `now()` and
    /// where exports check that their interval has passed.
    pub clock_ahead: i64,
}

/// Rules of list endpoints.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ListServer {
    /// `experiments` sorts by an allow-list and answers 400 to any other `order`.
    pub experiment_orders_checked: bool,
    /// `feature_flags` and `experiments` leave out what is archived, and list nothing else with
    /// `archived=true`. Otherwise the parameter is ignored.
    pub archived_hidden: bool,
    /// How `session_recordings` pages.
    pub recordings: RecordingPages,
}

/// How the list of recordings pages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RecordingPages {
    /// Behind a cursor, unless there is an `offset`.
    Cursor,
    /// By offset.
    Offset,
    /// By offset, and always with the latest recordings first.
    LatestFirst,
}

impl Default for Server {
    /// What tests get that ask for nothing else.
    fn default() -> Self {
        Self::cloud_2026()
    }
}

impl Server {
    /// PostHog Cloud in autumn 2026.
    pub fn cloud_2026() -> Self {
        Self {
            schema: Schema {
                sessions: SessionsVersion::V2,
                person_last_seen_at: true,
                event_person_mode: true,
                persons_on_events: PersonsOnEvents::OverriddenIdOwnProperties,
            },
            refusals: Refusals::Explained { hint: true },
            exports: ExportServer::cloud_2026(),
            lists: ListServer {
                experiment_orders_checked: true,
                archived_hidden: true,
                recordings: RecordingPages::Cursor,
            },
            merges_rewrite_events: false,
            clock_ahead: 0,
        }
    }

    /// A server before 2026: short refusals, no `last_seen_at`, no row counts, and runs without rows that
    /// never end.
    pub fn before_2026() -> Self {
        let cloud = Self::cloud_2026();
        Self {
            schema: Schema { person_last_seen_at: false, ..cloud.schema },
            refusals: Refusals::Bare,
            exports: ExportServer::before_2026(),
            lists: ListServer {
                experiment_orders_checked: false,
                archived_hidden: false,
                recordings: RecordingPages::Offset,
            },
            ..cloud
        }
    }

    /// A self-hosted instance of 2026 without a bucket for files: runs start, and stay `Running` for ever.
    pub fn hobby_without_bucket() -> Self {
        let cloud = Self::cloud_2026();
        Self { exports: ExportServer { bucket: false, ..cloud.exports }, ..cloud }
    }

    /// A self-hosted instance of 2026 without Temporal: requests are validated, but no run starts.
    pub fn hobby_without_temporal() -> Self {
        let cloud = Self::cloud_2026();
        Self { exports: ExportServer { temporal: false, ..cloud.exports }, ..cloud }
    }

    /// No PostHog that exists: few columns of sessions, short refusals, times as text everywhere, and no rule
    /// that a client could break. Good for tests of something else.
    pub fn forgiving() -> Self {
        Self {
            schema: Schema {
                sessions: SessionsVersion::Minimal,
                person_last_seen_at: true,
                event_person_mode: true,
                persons_on_events: PersonsOnEvents::OverriddenIdOwnProperties,
            },
            refusals: Refusals::Bare,
            exports: ExportServer::forgiving(),
            lists: ListServer {
                experiment_orders_checked: false,
                archived_hidden: false,
                recordings: RecordingPages::Offset,
            },
            merges_rewrite_events: true,
            clock_ahead: 0,
        }
    }

    /// The server's time.
    pub(crate) fn now(&self) -> DateTime<Utc> {
        Utc::now() + Duration::seconds(self.clock_ahead)
    }

    /// The instance of that name on the command line.
    pub fn named(name: &str) -> Option<Self> {
        Some(match name {
            "cloud-2026" => Self::cloud_2026(),
            "before-2026" => Self::before_2026(),
            "hobby-without-bucket" => Self::hobby_without_bucket(),
            "hobby-without-temporal" => Self::hobby_without_temporal(),
            "forgiving" => Self::forgiving(),
            _ => return None,
        })
    }

    /// Names that [`Server::named`] understands.
    pub const NAMES: [&str; 5] =
        ["cloud-2026", "before-2026", "hobby-without-bucket", "hobby-without-temporal", "forgiving"];
}

impl Server {
    /// Sets a switch by the name of its field, as in `sessions=v3`, for the command line.
    pub fn set(&mut self, assignment: &str) -> anyhow::Result<()> {
        let (name, value) = assignment.split_once('=').unwrap_or((assignment, "true"));
        let unknown = || anyhow::anyhow!("`{value}` is no value of the switch `{name}`");
        let boolean = || value.parse::<bool>().map_err(|_| unknown());
        let days = || if value == "none" { Ok(None) } else { value.parse().map(Some).map_err(|_| unknown()) };
        match name {
            "sessions" => self.schema.sessions = SessionsVersion::named(value).ok_or_else(unknown)?,
            "person_last_seen_at" => self.schema.person_last_seen_at = boolean()?,
            "event_person_mode" => self.schema.event_person_mode = boolean()?,
            "persons_on_events" => {
                self.schema.persons_on_events = PersonsOnEvents::named(value).ok_or_else(unknown)?;
            }
            "refusals" => {
                self.refusals = match value {
                    "bare" => Refusals::Bare,
                    "explained" => Refusals::Explained { hint: false },
                    "hinted" => Refusals::Explained { hint: true },
                    _ => return Err(unknown()),
                };
            }
            "person_times" => {
                self.exports.person_times = match value {
                    "seconds" => InstantFormat::Seconds,
                    "milliseconds" => InstantFormat::Milliseconds,
                    text => InstantFormat::Iso(Offset::named(text).ok_or_else(unknown)?),
                };
            }
            "event_times" => self.exports.event_times = Offset::named(value).ok_or_else(unknown)?,
            "sessions_in_project_zone" => self.exports.sessions_in_project_zone = boolean()?,
            "session_fields" => {
                self.exports.session_fields = match value {
                    "few" => SessionFields::Few,
                    "all" => SessionFields::All,
                    _ => return Err(unknown()),
                };
            }
            "sessions_lookback_days" => self.exports.sessions_lookback_days = days()?,
            "lookback_days" => self.exports.lookback_days = days()?,
            "unbounded_days" => self.exports.unbounded_days = days()?,
            "records_completed" => {
                self.exports.records_completed = match value {
                    "missing" => RecordsCompleted::Missing,
                    "reported" => RecordsCompleted::Reported,
                    "null" => RecordsCompleted::Null,
                    _ => return Err(unknown()),
                };
            }
            "empty_runs_complete" => self.exports.empty_runs_complete = boolean()?,
            "concurrent_runs" => self.exports.concurrent_runs = days()?.and_then(|runs| usize::try_from(runs).ok()),
            "future_refused" => self.exports.future_refused = boolean()?,
            "member_per_line" => self.exports.member_per_line = boolean()?,
            "current_answers" => self.exports.current_answers = boolean()?,
            "bucket" => self.exports.bucket = boolean()?,
            "temporal" => self.exports.temporal = boolean()?,
            "experiment_orders_checked" => self.lists.experiment_orders_checked = boolean()?,
            "archived_hidden" => self.lists.archived_hidden = boolean()?,
            "merges_rewrite_events" => self.merges_rewrite_events = boolean()?,
            "clock_ahead" => self.clock_ahead = value.parse().map_err(|_| unknown())?,
            _ => anyhow::bail!("there is no switch `{name}`"),
        }
        Ok(())
    }
}

/// For how long a project keeps its events in sight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// `event_retention_months` of the project.
    pub months: u32,
    /// `events_retention_enforced` of the project: queries don't see older events. Exports, sessions and
    /// persons are left alone.
    pub enforced: bool,
}

impl Default for Retention {
    /// A paid plan, and nothing is hidden yet.
    fn default() -> Self {
        Self { months: 84, enforced: false }
    }
}
