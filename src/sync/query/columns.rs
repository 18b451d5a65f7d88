//! Finds out which columns of a table an instance has.

use serde_json::Value;

use crate::error::Error;
use crate::posthog::Predicate;
use crate::posthog::http::{Client, Failure, NextAttempt, Observer};
use crate::posthog::query::small;
use crate::streams::{Column, Table};

/// The columns that `project` can be asked for: those that it does not know are left out, as long as
/// rows can be told apart without them.
///
/// # Errors
/// When the instance does not answer, or lacks what identifies a row.
pub async fn available(
    client: &Client,
    project: u64,
    table: &Table,
    mut columns: Vec<Column>,
    observer: &dyn Observer,
) -> Result<Vec<Column>, Error> {
    let mut retry = client.retry();
    loop {
        let now = client.now();
        let mut nothing = Predicate::default();
        nothing.range(table.sort_key, now, now);
        let list: Vec<&str> = columns.iter().filter_map(|column| column.expression).collect();
        let query = nothing.select(&list.join(", "), table.from, "LIMIT 1");
        let (detail, error) = match small::<Vec<Value>>(client, project, &query, observer).await {
            Ok(_) => return Ok(columns),
            Err(Failure::Refused { status: 400, detail, error }) => (detail, error),
            Err(failure) => match retry.after(failure, client.limiter()).await? {
                NextAttempt::Same => continue,
                NextAttempt::Smaller => return Ok(columns),
            },
        };
        let unknown = detail.split("Unable to resolve field: ").nth(1).unwrap_or_default();
        let unknown =
            unknown.trim_matches(|character: char| character == '`' || character == '.' || character.is_whitespace());
        let place = columns.iter().position(|column| {
            column.expression.is_some_and(|expression| expression.trim_matches('`') == unknown)
                && column.field != table.id_field
                && column.field != table.sort_key_field
        });
        let Some(place) = place else { return Err(error) };
        tracing::info!(
            "project {project}: this PostHog has no `{unknown}`, so that field of {} stays empty",
            table.stream
        );
        columns.remove(place);
    }
}
