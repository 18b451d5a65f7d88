//! What belongs to one object of a list: the results of an experiment, the runs of a batch export.
//!
//! Shapes and rules are those of `products/experiments/backend/presentation/views.py` and
//! `products/batch_exports/backend/api/batch_export.py`. The objects are kept in lists of their own,
//! `experiment_results` and `batch_export_runs`.

use chrono::{Duration, Utc};
use chrono_tz::Tz;
use serde_json::{Value, json};
use uuid::Uuid;

use super::Shared;
use super::error::ApiError;
use super::hogql::{iso, parse_time};
use super::lists::{cursor_page, stored};
use super::server::{Answer, Call};
use super::store::{DAY, IngestionWarning, Tables};

/// Runs of one page.
const RUNS: usize = 100;

/// `GET` of what is at the path behind an object.
pub(crate) fn answer(
    shared: &Shared,
    call: &Call,
    project: u64,
    parents: &str,
    parent: &str,
    path: &[&str],
) -> Result<Answer, ApiError> {
    let is_parent = |object: &Value| object["id"].to_string().trim_matches('"') == parent;
    if !stored(shared, project, parents).iter().any(is_parent) {
        return Err(ApiError::not_found());
    }
    let belongs = |object: &Value, field: &str| object[field].to_string().trim_matches('"') == parent;
    match (parents, path) {
        ("experiments", ["metrics_recalculation", "latest"]) => {
            let mut results = stored(shared, project, "experiment_results");
            results.retain(|result| belongs(result, "experiment_id") && result["status"] == "completed");
            let latest = results.into_iter().max_by_key(|result| result["created_at"].to_string());
            latest.map(|latest| Answer::json(&latest)).ok_or_else(ApiError::not_found)
        }
        ("batch_exports", ["runs"]) => {
            let bound = |name: &'static str, default| match call.parameter(name).filter(|text| !text.is_empty()) {
                None => Ok(default),
                Some(text) => parse_time(&text, Tz::UTC)
                    .ok_or_else(|| ApiError::invalid(format!("Invalid date: {text}")).attribute(name)),
            };
            let now = Utc::now();
            let after = bound("after", (now - Duration::days(7)).timestamp_micros())?;
            let before = bound("before", now.timestamp_micros())?;
            let created = |run: &Value| run["created_at"].as_str().and_then(|text| parse_time(text, Tz::UTC));
            let mut runs = stored(shared, project, "batch_export_runs");
            runs.retain(|run| belongs(run, "batch_export"));
            runs.retain(|run| created(run).is_some_and(|at| at >= after && at <= before));
            runs.sort_by_key(created);
            if call.parameter("ordering").as_deref() != Some("created_at") {
                runs.reverse();
            }
            let size = shared.list_page_cap.map_or(RUNS, |cap| RUNS.min(cap.max(1)));
            Ok(Answer::json(&json!(cursor_page(call, runs, size)?)))
        }
        _ => Err(ApiError::not_found()),
    }
}

/// Makes batch exports with runs, results of experiments, and ingestion warnings.
pub(crate) fn generate(project: u64, today: i64, tables: &mut Tables) {
    let exports: Vec<Value> = (0..3).map(|index| batch_export(project, today, index)).collect();
    let runs = exports.iter().zip([250, 5, 0]).flat_map(|(export, count)| {
        (0..count).map(|index| run(&export["id"], today - (index + 1) * DAY / 12, index)).collect::<Vec<_>>()
    });
    let results = tables.lists.get("experiments").into_iter().flatten().enumerate().filter(|(index, _)| index % 3 != 0);
    let results = results.map(|(index, experiment)| result(&experiment["id"], today, index % 3 == 1)).collect();
    tables.lists.insert("batch_export_runs".to_owned(), runs.collect());
    tables.lists.insert("batch_exports".to_owned(), exports);
    tables.lists.insert("experiment_results".to_owned(), results);
    tables.ingestion_warnings = (0..120)
        .map(|index| IngestionWarning {
            source: "plugin-server".to_owned(),
            kind: if index % 4 == 0 { "message_size_too_large" } else { "cannot_merge_already_identified" }.to_owned(),
            details: json!({"distinctId": format!("listed-{index}"), "eventUuid": null}).to_string(),
            timestamp: today - index * DAY / 3,
        })
        .collect();
}

fn uuid(text: &str) -> String {
    Uuid::new_v5(&Uuid::NAMESPACE_OID, text.as_bytes()).to_string()
}

fn batch_export(project: u64, today: i64, index: i64) -> Value {
    json!({
        "id": uuid(&format!("{project} batch export {index}")), "team_id": project, "name": format!("Export {index}"),
        "model": "events", "destination": {"type": "S3", "config": {"bucket_name": "events"}}, "interval": "hour",
        "paused": false, "created_at": iso(today - 90 * DAY, Tz::UTC), "last_updated_at": iso(today, Tz::UTC),
        "latest_runs": [],
    })
}

fn run(export: &Value, at: i64, index: i64) -> Value {
    let failed = index % 50 == 7;
    json!({
        "id": uuid(&format!("{export} run {index}")), "batch_export": export, "backfill": null,
        "status": if failed { "FailedRetryable" } else { "Completed" }, "records_completed": index * 10,
        "records_total_count": index * 10, "bytes_exported": index * 4096,
        "latest_error": failed.then_some("NoSuchBucket: The specified bucket does not exist"),
        "data_interval_start": iso(at - DAY / 24, Tz::UTC), "data_interval_end": iso(at, Tz::UTC), "cursor": null,
        "created_at": iso(at, Tz::UTC), "finished_at": iso(at + 60_000_000, Tz::UTC),
        "last_updated_at": iso(at + 60_000_000, Tz::UTC),
    })
}

/// The result of a run, or what is shown of daily results before the first run.
fn result(experiment: &Value, today: i64, is_run: bool) -> Value {
    let completed = iso(today - DAY, Tz::UTC);
    let (id, source) = if is_run {
        (uuid(&format!("{experiment} run")), "recalculation")
    } else {
        ("timeseries-fallback".to_owned(), "timeseries_fallback")
    };
    let baseline = json!({"key": "control", "number_of_samples": 120, "sum": 33, "sum_squares": 33});
    let result =
        json!({"baseline": baseline, "variant_results": [{"key": "test", "chance_to_win": 0.9, "significant": false}]});
    json!({
        "id": id, "experiment_id": experiment, "status": "completed", "total_metrics": 1, "completed_metrics": 1,
        "failed_metrics": 0, "metric_errors": {}, "metric_retries": {}, "trigger": is_run.then_some("manual"),
        "created_at": completed, "started_at": completed, "completed_at": completed, "query_to": completed,
        "result_source": source, "results": [{
            "metric_uuid": uuid(&format!("{experiment} metric")), "status": "completed", "result": result,
            "error_message": null, "legacy": false,
        }],
    })
}
