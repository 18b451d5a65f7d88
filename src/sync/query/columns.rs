//! Finds out which columns of a table an instance has.
//!
//! `SELECT * FROM … LIMIT 0` names most of them, at next to no cost. It leaves out columns that HogQL
//! makes from others, such as `person_id` of events (`get_asterisk` in `hogql/database/models.py`), so
//! what it does not name is asked for in a second query, which reads nothing either. Only a column that
//! is refused there is missing.

use std::collections::BTreeSet;

use serde::de::IgnoredAny;

use super::reader::ProjectReader;
use crate::error::Error;
use crate::posthog::http::{GiveUp, Reason, Refusal};
use crate::posthog::query::describe;
use crate::posthog::{Predicate, Query};
use crate::streams::Column;

/// How often columns are asked for, if the server finds even no rows too large.
const ATTEMPTS: u32 = 3;

impl ProjectReader {
    /// Leaves out the columns that the instance does not have, as long as rows can be told apart without
    /// them. A table whose sort key needs a column that is missing is read in another order.
    ///
    /// # Errors
    /// When the instance does not answer, or lacks what identifies a row.
    pub async fn choose_columns(&mut self) -> Result<(), Error> {
        if self.columns_chosen {
            return Ok(());
        }
        let listed = self.listed_columns().await?;
        self.columns_chosen = true;
        loop {
            let name = |column: &Column| column.expression.map(unquoted);
            let unlisted: Vec<Column> = self
                .columns
                .iter()
                .filter(|column| name(column).is_none_or(|name| !listed.contains(name)))
                .copied()
                .collect();
            if unlisted.is_empty() {
                return Ok(());
            }
            let Some(refusal) = self.refusal_of(&unlisted).await? else { return Ok(()) };
            if self.persons_at_ingestion && refusal.reason == Reason::UnknownModifier {
                tracing::warn!(
                    "this PostHog does not know the modifier `personsOnEventsMode`, so `person_id` of events may be today's person instead of the one at ingestion"
                );
                self.persons_at_ingestion = false;
                continue;
            }
            let Reason::UnknownColumn(unknown) = &refusal.reason else { return Err(GiveUp::Refused(refusal).into()) };
            let unknown = unquoted(unknown).to_owned();
            if let Some((column, other)) = self.table.without
                && column == unknown
                && self.table.stream == other.stream
                && !std::ptr::eq(self.table, other)
            {
                tracing::info!("this PostHog has no `{unknown}`, so {} are read without it", self.table.stream);
                let optional = self.context.config.method.query.person_properties;
                (self.table, self.columns) = (other, other.selected(optional, &self.context.selection));
                continue;
            }
            let place = self.columns.iter().position(|column| {
                name(column) == Some(unknown.as_str())
                    && column.field != self.table.id_field
                    && column.field != self.table.sort_key_field
            });
            let Some(place) = place else { return Err(GiveUp::Refused(refusal).into()) };
            let column = self.columns.remove(place);
            tracing::info!("this PostHog has no `{unknown}`, so `{}` of {} is null", column.field, self.table.stream);
        }
    }

    /// The columns that the instance names itself; none when it does not.
    async fn listed_columns(&self) -> Result<BTreeSet<String>, Error> {
        let context = &self.context;
        let query = Query { text: format!("SELECT * FROM {} LIMIT 0", self.table.from), ..Query::default() };
        let retry = context.client.retry();
        match describe(&context.client, context.project, &query, &context.observer, retry).await {
            Ok(columns) => Ok(columns.into_iter().map(|(name, _)| name).collect()),
            Err(GiveUp::Refused(_) | GiveUp::TooLarge { .. } | GiveUp::Attempts { .. }) => Ok(BTreeSet::new()),
            Err(give_up) => Err(give_up.into()),
        }
    }

    /// Asks for columns of no rows. Returns the refusal, if they are refused.
    async fn refusal_of(&self, columns: &[Column]) -> Result<Option<Refusal>, Error> {
        let now = self.context.client.now();
        let mut nothing = Predicate::default();
        nothing.range(self.table.sort_key, now, now);
        let list: Vec<&str> = columns.iter().filter_map(|column| column.expression).collect();
        let query = nothing.select(&list.join(", "), self.table.from, "LIMIT 1");
        let query = Query { persons_at_ingestion: self.persons_at_ingestion, ..query };
        for _ in 0..ATTEMPTS {
            match self.context.ask::<IgnoredAny>(&query).await {
                Ok(_) => return Ok(None),
                // No rows cannot be too much: the server has no room for any query at the moment.
                Err(GiveUp::TooLarge { .. }) => {}
                Err(GiveUp::Refused(refusal)) if refusal.status == 400 => return Ok(Some(refusal)),
                Err(give_up) => return Err(give_up.into()),
            }
        }
        Ok(None)
    }
}

fn unquoted(name: &str) -> &str {
    name.trim_matches('`')
}
