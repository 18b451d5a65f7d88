//! PostHog's paths for file download exports.

use std::sync::Arc;

use chrono::{DateTime, SecondsFormat, Utc};
use serde_json::{Value, json};
use uuid::Uuid;

use super::behaviour::RecordsCompleted;
use super::files::File;
use super::run::{End, Run, start};
use super::{Exports, request};
use crate::posthog::error::ApiError;
use crate::posthog::paging::page;
use crate::posthog::server::{Answer, Call};
use crate::posthog::{Key, Shared, account, lock};

/// Answers a request to `…/file_download_batch_exports/` and what is below it.
pub(crate) async fn answer(
    shared: &Arc<Shared>,
    key: &Key,
    call: &Call,
    project: &str,
    rest: &[&str],
    admit: impl Fn() -> Result<(), ApiError>,
) -> Result<Answer, ApiError> {
    refuse_if_missing(&lock(&shared.exports).config)?;
    let method = call.parts.method.as_str();
    let scope = match (method, rest) {
        ("POST", [] | [_, "cancel"]) => "batch_export:write",
        ("GET", [] | [_] | [_, "download"] | [_, "download", _]) => "batch_export:read",
        (_, [] | [_] | [_, "cancel" | "download"] | [_, "download", _]) => {
            return Err(ApiError::method_not_allowed(method));
        }
        _ => return Err(ApiError::not_found()),
    };
    let project = account::project(shared, key, project, scope)?;
    admit()?;
    match (method, rest) {
        ("POST", []) => {
            let server = shared.server();
            let asked = request::validate(&call.body, server.exports, server.now().timestamp_micros())?;
            let id = start(shared, project, asked).await?;
            Ok(Answer { status: 202, ..Answer::json(&json!({"id": id.to_string()})) })
        }
        (_, []) => {
            let state = lock(&shared.exports);
            let own = state.runs.iter().rev().filter(|run| run.project == project);
            Ok(Answer::json(&page(call, own.map(row).collect(), None)))
        }
        (_, [run]) => with_run(shared, project, run, |run| Ok(Answer::json(&view(run)))),
        (_, [run, "cancel"]) => with_run(shared, project, run, cancel),
        (_, [run, _]) => download(shared, project, run, None),
        (_, [run, _, file, ..]) => download(shared, project, run, Some(file)),
    }
}

fn refuse_if_missing(config: &Exports) -> Result<(), ApiError> {
    match config {
        Exports { enabled: true, .. } => Ok(()),
        Exports { missing_status: 403, .. } => {
            Err(ApiError::denied("File download batch exports are not enabled for this organization."))
        }
        _ => Err(ApiError::not_found()),
    }
}

/// Does something with a run of the project.
fn with_run<T>(
    shared: &Shared,
    project: u64,
    id: &str,
    then: impl FnOnce(&mut Run) -> Result<T, ApiError>,
) -> Result<T, ApiError> {
    let id: Uuid = id.parse().map_err(|_| ApiError::not_found())?;
    let mut state = lock(&shared.exports);
    then(state.run(id).filter(|run| run.project == project).ok_or_else(ApiError::not_found)?)
}

fn view(run: &Run) -> Value {
    match (run.status(), &run.end) {
        (status @ "Completed", _) => {
            let files: Vec<String> = run.shown_files().iter().map(|file| file.id.to_string()).collect();
            match run.server.records_completed {
                RecordsCompleted::Missing => json!({"status": status, "files": files}),
                RecordsCompleted::Null => json!({"status": status, "files": files, "records_completed": null}),
                RecordsCompleted::Reported => {
                    json!({"status": status, "files": files, "records_completed": run.rows()})
                }
            }
        }
        (status @ ("Starting" | "Running" | "Cancelled"), _) => json!({"status": status}),
        (status, Some(End::Other { error, .. })) => json!({"status": status, "error": error}),
        (status, _) => json!({"status": status, "error": null}),
    }
}

/// An element of the list of runs.
fn row(run: &Run) -> Value {
    if run.server.current_answers {
        return json!({"id": run.id.to_string(), "status": run.stored_status()});
    }
    let time = |instant: DateTime<Utc>| instant.to_rfc3339_opts(SecondsFormat::AutoSi, true);
    let bound = |micros| DateTime::from_timestamp_micros(micros).map(time);
    let error = if let Some(End::Other { error, .. }) = &run.end { Some(error) } else { None };
    json!({
        "id": run.id.to_string(), "status": run.status(), "model": run.asked.model.name(),
        "created_at": time(run.started_at), "data_interval_start": bound(run.asked.start),
        "data_interval_end": bound(run.asked.end), "latest_error": error,
    })
}

fn cancel(run: &mut Run) -> Result<Answer, ApiError> {
    let again = !run.server.current_answers && matches!(run.end, Some(End::Cancelled));
    if !run.is_active() && !again {
        let status = run.stored_status();
        return Err(ApiError::invalid(format!("Cannot cancel a run that is in '{status}' status")));
    }
    run.end = Some(End::Cancelled);
    let answer = if run.server.current_answers { json!({"status": "Cancelled"}) } else { json!({"cancelled": true}) };
    Ok(Answer::json(&answer))
}

/// Sends the client to the file host.
fn download(shared: &Shared, project: u64, run: &str, part: Option<&str>) -> Result<Answer, ApiError> {
    let file = with_run(shared, project, run, |run| {
        let file = if run.server.current_answers {
            refuse_unless_completed(run.stored_status())?;
            choose_or_first(run.shown_files(), part)?
        } else if run.status() == "Completed" {
            choose(run.shown_files(), part)?
        } else {
            let detail = format!("The export is not completed. Current status: {}", run.status());
            return Err(ApiError::invalid(detail));
        };
        if file.is_expired() {
            return Err(ApiError::invalid("This file download has expired"));
        }
        Ok(file.clone())
    })?;
    let location = lock(&shared.exports).sign(&file);
    let empty = Answer { status: 302, ..Answer::raw("text/html; charset=utf-8", "") };
    Ok(empty.header("location", &location).header("cache-control", "no-store"))
}

/// A run that is done, but whose files aren't noted yet, passes.
fn refuse_unless_completed(status: &str) -> Result<(), ApiError> {
    Err(ApiError::invalid(match status {
        "Completed" => return Ok(()),
        "Starting" | "Running" => "Batch export run is still in progress",
        "Cancelled" => "Batch export run was cancelled",
        _ => "Batch export run has failed",
    }))
}

/// A file by its id or its number; the first one if neither is given.
fn choose_or_first<'a>(files: &'a [File], part: Option<&str>) -> Result<&'a File, ApiError> {
    if let Some(id) = part.and_then(|part| part.parse::<Uuid>().ok()) {
        return files.iter().find(|file| file.id == id).ok_or_else(ApiError::not_found);
    }
    let index: usize = match part {
        None => 0,
        Some(part) => part.parse().map_err(|_| ApiError::invalid(format!("Invalid file id or index: '{part}'")))?,
    };
    let missing = || ApiError { detail: format!("No files with index {index}"), ..ApiError::not_found() };
    files.get(index).ok_or_else(missing)
}

/// A file by its id or its number; there is no need to name the only one.
fn choose<'a>(files: &'a [File], part: Option<&str>) -> Result<&'a File, ApiError> {
    let file = match (part, files) {
        (None, [file]) => Some(file),
        (None, _) => {
            return Err(ApiError::invalid("The export has more than one file; a file must be specified"));
        }
        (Some(part), _) => match part.parse::<usize>() {
            Ok(index) => files.get(index),
            Err(_) => files.iter().find(|file| file.id.to_string() == part),
        },
    };
    file.ok_or_else(ApiError::not_found)
}
