//! `projects`: the projects that are read, one record each.
//!
//! From `GET /api/projects/:id/`; keys that can send data or read it are left out on purpose, except
//! `api_token`, which is public.

use super::account::AccountStream;

pub static PROJECTS: AccountStream = AccountStream {
    stream: "projects",
    scope: "project:read",
    fields: &[
        ("id", "integer", "Number of the project."),
        ("uuid", "string", "Identifies the project."),
        ("organization", "string", "The organization that the project belongs to."),
        ("name", "string", "Name of the project."),
        ("product_description", "string", "What the project is about."),
        ("created_at", "date-time", "When the project was created."),
        ("updated_at", "date-time", "When its settings were changed last."),
        ("timezone", "string", "Time zone of the project's reports."),
        ("api_token", "string", "The public token that events are sent with."),
        ("is_demo", "boolean", "Whether it holds demonstration data."),
        ("ingested_event", "boolean", "Whether an event has been received."),
        ("completed_snippet_onboarding", "boolean", "Whether the set-up was completed."),
        ("has_completed_onboarding_for", "object", "Products whose set-up was completed."),
        ("effective_membership_level", "integer", "Access level of the key's owner."),
        ("has_group_types", "boolean", "Whether group analytics is used."),
        ("group_types", "array", "The group types."),
        ("app_urls", "array", "Addresses where the toolbar may be used."),
        ("anonymize_ips", "boolean", "Whether IP addresses are discarded."),
        ("test_account_filters", "array", "Filters for internal users."),
        ("week_start_day", "integer", "First day of the week in reports."),
        ("primary_dashboard", "integer", "The dashboard of the home page."),
        ("session_recording_opt_in", "boolean", "Whether sessions are recorded."),
        ("person_on_events_querying_enabled", "boolean", "Whether persons are stored with events."),
        ("default_modifiers", "object", "Settings of queries."),
        ("event_retention_months", "integer", "How long events are kept."),
        ("events_retention_enforced", "boolean", "Whether older events are hidden."),
        ("access_control", "boolean", "Whether access is restricted."),
    ],
};
