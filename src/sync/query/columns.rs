//! Finds out which columns of a table an instance has.

use serde_json::Value;

use crate::error::Error;
use crate::posthog::Predicate;
use crate::posthog::http::{GiveUp, Reason, Refusal};
use crate::streams::{Column, Table};
use crate::sync::context::ReadContext;

/// The columns that the project can be asked for: those that it does not know are left out, as long as
/// rows can be told apart without them.
///
/// # Errors
/// When the instance does not answer, or lacks what identifies a row.
pub async fn available(context: &ReadContext, table: &Table, mut columns: Vec<Column>) -> Result<Vec<Column>, Error> {
    loop {
        let now = context.client.now();
        let mut nothing = Predicate::default();
        nothing.range(table.sort_key, now, now);
        let list: Vec<&str> = columns.iter().filter_map(|column| column.expression).collect();
        let query = nothing.select(&list.join(", "), table.from, "LIMIT 1");
        let refusal = match context.ask::<Vec<Value>>(&query).await {
            Ok(_) | Err(GiveUp::TooLarge { .. }) => return Ok(columns),
            Err(GiveUp::Refused(refusal)) => refusal,
            Err(give_up) => return Err(give_up.into()),
        };
        let place = match &refusal {
            Refusal { reason: Reason::UnknownColumn(unknown), .. } => columns.iter().position(|column| {
                column.expression.is_some_and(|expression| expression.trim_matches('`') == unknown)
                    && column.field != table.id_field
                    && column.field != table.sort_key_field
            }),
            _ => None,
        };
        let Some(place) = place else { return Err(GiveUp::Refused(refusal).into()) };
        let column = columns.remove(place);
        tracing::info!("this PostHog has no `{}`, so that field of {} stays empty", column.field, table.stream);
    }
}
