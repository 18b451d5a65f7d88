//! `survey_responses`: one row for each response, from the events that answers are sent with.
//!
//! SDKs send `survey sent` after each answer if a survey keeps unfinished responses, each time with all answers
//! so far and the same `$survey_submission_id`. As in PostHog's own results (`products/surveys/backend/util.py`),
//! the event with the latest time counts; without such an id, every event is a response.

use super::column::{Column, Kind, Properties};
use super::keyset::{KeysetStream, KeysetTable};

/// Types that a project has given to properties change what queries make of them; texts stay texts. The
/// aliases are no names of columns, because `ClickHouse` would take one for the other.
const RESPONSES: &str = "(SELECT coalesce(toString(properties.`$survey_id`), '') AS survey_id, \
    if(coalesce(toString(properties.`$survey_submission_id`), '') = '', toString(uuid), \
    toString(properties.`$survey_submission_id`)) AS response_id, \
    argMax(toString(uuid), tuple(timestamp, toString(uuid))) AS event_id, \
    argMax(distinct_id, tuple(timestamp, toString(uuid))) AS respondent, \
    argMax(person_id, tuple(timestamp, toString(uuid))) AS respondent_person, \
    argMax(coalesce(toString(properties.`$survey_completed`), 'true'), tuple(timestamp, toString(uuid))) AS completed, \
    min(timestamp) AS begun_at, max(timestamp) AS answered_at, max(created_at) AS received_at, \
    argMax(properties, tuple(timestamp, toString(uuid))) AS sent \
    FROM events WHERE event = 'survey sent' AND coalesce(toString(properties.`$survey_id`), '') != '' \
    GROUP BY survey_id, response_id) AS responses";

/// The responses to all surveys.
pub static SURVEY_RESPONSES: KeysetStream = KeysetStream {
    stream: "survey_responses",
    parts: &[KeysetTable { from: RESPONSES, label: None, optional: false }],
    columns: &[
        Column::new(
            "id",
            Kind::String,
            "Identifies the response: the submission id or, without one, the id of the event.",
        )
        .selected_as("response_id"),
        Column::new("survey_id", Kind::String, "The survey."),
        Column::new(
            "answers",
            Kind::Members("$survey_response"),
            "Answers by question id; answers from old SDKs by question number, starting at 0.",
        )
        .selected_as("sent")
        .holding(Properties::OfEvent),
        Column::new("is_completed", Kind::Boolean, "Whether the survey was completed.")
            .selected_as("completed")
            .made_from("$survey_completed"),
        Column::new("distinct_id", Kind::String, "Distinct id of the respondent.").selected_as("respondent"),
        Column::new("person_id", Kind::String, "The person that the distinct id belongs to, according to queries.")
            .selected_as("respondent_person"),
        Column::new("started_at", Kind::Timestamp, "When the first answer was sent.").selected_as("begun_at"),
        Column::new("timestamp", Kind::Timestamp, "When the latest answer was sent.").selected_as("answered_at"),
        Column::new("created_at", Kind::Timestamp, "When the latest event of the response was ingested.")
            .selected_as("received_at"),
        Column::new("event_uuid", Kind::String, "The event that contains the answers.").selected_as("event_id"),
        Column::new("properties", Kind::Json, "All properties of that event, such as the survey's name and iteration.")
            .selected_as("sent")
            .holding(Properties::OfEvent),
    ],
    key: &["survey_id", "id"],
    windows: None,
    owners: None,
    cursor: Some("created_at"),
    key_must_be_unique: false,
};
