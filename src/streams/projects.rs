//! `projects`: the projects that are read, one record each.
//!
//! From `GET /api/projects/:id/`. Of the keys in there (`ProjectBackwardCompatSerializer` in `posthog/api/project.py`),
//! those that can read data are left out on purpose, and `api_token`, which can send it, is only read if the user
//! asks for it.

use super::account::AccountStream;
use super::column::{Column, Kind};

pub static PROJECTS: AccountStream = AccountStream {
    stream: "projects",
    scope: "project:read",
    fields: &[
        Column::new("id", Kind::Integer, "Number of the project."),
        Column::new("uuid", Kind::String, "Identifies the project."),
        Column::new("organization", Kind::String, "The organization that the project belongs to."),
        Column::new("name", Kind::String, "Name of the project."),
        Column::new("product_description", Kind::String, "What the project is about."),
        Column::new("created_at", Kind::Timestamp, "When the project was created."),
        Column::new("updated_at", Kind::Timestamp, "When its settings were changed last."),
        Column::new("timezone", Kind::String, "Time zone of the project's reports."),
        Column::new(
            "api_token",
            Kind::String,
            "The token that events are sent with. Only filled if `include_credentials` is set.",
        )
        .credential(),
        Column::new("is_demo", Kind::Boolean, "Whether it holds demonstration data."),
        Column::new("ingested_event", Kind::Boolean, "Whether an event has been received."),
        Column::new("completed_snippet_onboarding", Kind::Boolean, "Whether the set-up was completed."),
        Column::new("has_completed_onboarding_for", Kind::Json, "Products whose set-up was completed."),
        Column::new("effective_membership_level", Kind::Integer, "Access level of the key's owner."),
        Column::new("has_group_types", Kind::Boolean, "Whether group analytics is used."),
        Column::new("group_types", Kind::List, "The group types."),
        Column::new("app_urls", Kind::List, "Addresses where the toolbar may be used."),
        Column::new("anonymize_ips", Kind::Boolean, "Whether IP addresses are discarded."),
        Column::new("test_account_filters", Kind::List, "Filters for internal users."),
        Column::new("week_start_day", Kind::Integer, "First day of the week in reports."),
        Column::new("primary_dashboard", Kind::Integer, "The dashboard of the home page."),
        Column::new("session_recording_opt_in", Kind::Boolean, "Whether sessions are recorded."),
        Column::new("person_on_events_querying_enabled", Kind::Boolean, "Whether persons are stored with events."),
        Column::new("default_modifiers", Kind::Json, "Settings of queries."),
        Column::new("event_retention_months", Kind::Integer, "How long events are kept."),
        Column::new("events_retention_enforced", Kind::Boolean, "Whether older events are hidden."),
        Column::new("access_control", Kind::Boolean, "Whether access is restricted."),
    ],
};
