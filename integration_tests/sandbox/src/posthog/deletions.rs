//! Deletion of persons (`posthog/api/person.py`, `bulk_delete`).

use std::collections::BTreeSet;

use serde_json::{Value, json};
use uuid::Uuid;

use super::Shared;
use super::error::ApiError;
use super::server::{Answer, Call};

/// Deletes persons and, if that is asked for, their events. PostHog deletes events days later; this does it at once.
pub(crate) fn bulk_delete(shared: &Shared, call: &Call, project: u64) -> Result<Answer, ApiError> {
    let body: Value = serde_json::from_slice(&call.body).map_err(|_| ApiError::invalid("JSON parse error"))?;
    let list = |field: &str| -> BTreeSet<String> {
        let texts = body[field].as_array().into_iter().flatten().filter_map(Value::as_str);
        texts.map(str::to_owned).collect()
    };
    let (ids, distinct_ids) = (list("ids"), list("distinct_ids"));
    let with_events = body["delete_events"] == true;
    let now = shared.server().now().timestamp_millis() * 1000;
    let mut tables = shared.write_tables();
    let tables = tables.entry(project).or_default();
    let is_meant = |id: &Uuid, own: &BTreeSet<String>| ids.contains(&id.to_string()) || !own.is_disjoint(&distinct_ids);
    let persons: Vec<(Uuid, BTreeSet<String>)> = tables
        .persons()
        .map(|person| (person.id, person.distinct_ids.iter().cloned().collect()))
        .filter(|(id, own)| is_meant(id, own))
        .collect();
    for (id, own) in &persons {
        tables.delete_person(*id, now);
        if with_events {
            tables.delete_of(own);
        }
    }
    let answer = json!({
        "persons_found": persons.len(), "persons_deleted": persons.len(), "deletion_errors": [],
        "events_queued_for_deletion": with_events, "recordings_queued_for_deletion": false,
    });
    Ok(Answer { status: 202, ..Answer::json(&answer) })
}
