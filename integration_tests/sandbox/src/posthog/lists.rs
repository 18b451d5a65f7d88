//! List endpoints of a project, with PostHog's paging.

use serde_json::{Value, json};

use super::Shared;
use super::server::{Answer, Call};

/// The scope that a list endpoint asks for, if there is such an endpoint.
pub(crate) fn scope(name: &str) -> Option<&'static str> {
    Some(match name {
        "annotations" => "annotation",
        "cohorts" => "cohort",
        "feature_flags" => "feature_flag",
        "insights" => "insight",
        "persons" => "person",
        "actions" => "action",
        "dashboards" => "dashboard",
        "experiments" => "experiment",
        "surveys" => "survey",
        "session_recordings" => "session_recording",
        "session_recording_playlists" => "session_recording_playlist",
        "groups" | "groups_types" => "group",
        "event_definitions" => "event_definition",
        "property_definitions" => "property_definition",
        "early_access_feature" => "early_access_feature",
        "notebooks" => "notebook",
        "hog_functions" => "hog_function",
        _ => return None,
    })
}

pub(crate) fn answer(shared: &Shared, call: &Call, project: u64, name: &str) -> Answer {
    let objects =
        shared.read_tables().get(&project).and_then(|tables| tables.lists.get(name).cloned()).unwrap_or_default();
    let answer = match name {
        "groups_types" => Value::Array(objects),
        "session_recordings" => {
            let (limit, offset) = window(call);
            let has_next = offset + limit < objects.len();
            let results: Vec<Value> = objects.into_iter().skip(offset).take(limit).collect();
            json!({"results": results, "has_next": has_next, "version": 4})
        }
        "groups" => {
            let mut page = page(call, objects);
            if let Some(page) = page.as_object_mut() {
                page.remove("count");
            }
            page
        }
        _ => page(call, objects),
    };
    Answer::json(&answer)
}

fn window(call: &Call) -> (usize, usize) {
    let number = |name| call.parameter(name).and_then(|text| text.parse::<usize>().ok());
    (number("limit").filter(|limit| *limit > 0).unwrap_or(100), number("offset").unwrap_or(0))
}

/// One page with absolute links to its neighbours.
pub(crate) fn page(call: &Call, objects: Vec<Value>) -> Value {
    let (limit, offset) = window(call);
    let count = objects.len();
    let other: String = call
        .parts
        .uri
        .query()
        .unwrap_or_default()
        .split('&')
        .filter(|pair| !pair.is_empty() && !pair.starts_with("limit=") && !pair.starts_with("offset="))
        .flat_map(|pair| ["&", pair])
        .collect();
    let link = |offset: usize| {
        let path = call.parts.uri.path();
        format!("http://{}{path}?limit={limit}&offset={offset}{other}", call.header("host"))
    };
    let next = (offset + limit < count).then(|| link(offset + limit));
    let previous = (offset > 0).then(|| link(offset.saturating_sub(limit)));
    let results: Vec<Value> = objects.into_iter().skip(offset).take(limit).collect();
    json!({"count": count, "next": next, "previous": previous, "results": results})
}
