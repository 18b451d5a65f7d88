//! Whether there is something about persons to export: their figures, compared with those of earlier syncs.

use super::reader::ExportReader;
use crate::error::Error;
use crate::posthog::http::{GiveUp, Reason, Refusal};
use crate::posthog::{Predicate, Query};
use crate::records::Fingerprint;
use crate::streams::{PERSON_DISTINCT_IDS, RAW_PERSONS};
use crate::sync::context::ReadContext;
use crate::sync::figure_row::Number;
use crate::sync::ledger::{CHEAP_BYTES, hogql};
use crate::sync::report::Proof;
use crate::sync::state::person_figures::{PersonFigures, SeenFigures};
use crate::sync::state::table::ProjectState;
use crate::time::Timestamp;

/// Number of rows, checksum of a column, and sum of the versions.
type Figure = (Number, Number, Number);

/// Makes versions count for as much as ids do: odd, so that no sum is lost.
const VERSIONS: u64 = 0x9e37_79b9_7f4a_7c15;

impl ExportReader {
    /// Compares persons and distinct ids with the figures that earlier syncs have seen, and keeps those of now. Returns
    /// whether nothing has changed since all streams of this reader were read.
    ///
    /// # Errors
    /// When the server does not answer usefully.
    pub async fn compare_persons(&self) -> Result<bool, Error> {
        let (context, project) = (&self.reader.context, self.reader.context.project);
        if !self.may_query || !context.incremental || !self.reader.table.exports_repeat_rows() {
            return Ok(false);
        }
        let mut known = Vec::new();
        for reader in self.streams() {
            let state = reader.checkpoint.project(project).await;
            if is_under_way(&state) {
                return Ok(false);
            }
            known.push((state.watermark, state.person_figures));
        }
        let now = context.client.now();
        if known.iter().any(|(_, seen)| seen.is_some_and(|seen| seen.is_too_expensive(now))) {
            return Ok(false);
        }
        let asked = ask(context).await?;
        let mut is_unchanged = true;
        for (reader, (read_until, seen)) in self.streams().zip(known) {
            let seen = SeenFigures::after(seen, asked);
            is_unchanged &= read_until.is_some_and(|until| seen.are_read(until, now));
            reader.checkpoint.note(project, |state| state.person_figures = Some(seen)).await;
        }
        if is_unchanged {
            tracing::info!("persons and distinct ids are as they were when they were read, so nothing is exported");
            for reader in self.streams() {
                reader.context.report.proven_by(Proof::Unchanged);
            }
        }
        Ok(is_unchanged)
    }
}

/// Whether a part of what was begun is missing.
fn is_under_way(state: &ProjectState) -> bool {
    let is_open = |until: Timestamp| state.watermark.is_none_or(|watermark| watermark < until);
    !state.export.windows.is_empty()
        || state.export.until.is_some_and(is_open)
        || state.scan.is_some()
        || state.distinct_ids.is_some()
        || state.resume_from.is_some()
}

/// Asks for the figures.
async fn ask(context: &ReadContext) -> Result<SeenFigures, Error> {
    let (persons, distinct_ids) = (of_persons(), of_distinct_ids());
    let asked = tokio::try_join!(context.ask::<Figure>(&persons), context.ask::<Figure>(&distinct_ids));
    // What came until then may be part of them.
    let since = context.client.now();
    let nothing = SeenFigures { figures: None, since, bytes: CHEAP_BYTES + 1 };
    match asked {
        Ok((persons, distinct_ids)) => {
            let bytes = persons.bytes_read.unwrap_or_default() + distinct_ids.bytes_read.unwrap_or_default();
            let figures = persons.rows.first().zip(distinct_ids.rows.first()).map(|(persons, distinct_ids)| {
                PersonFigures { persons: fingerprint(persons), distinct_ids: fingerprint(distinct_ids) }
            });
            Ok(SeenFigures { figures, since, bytes })
        }
        Err(
            GiveUp::TooLarge { .. }
            | GiveUp::Refused(Refusal { reason: Reason::UnknownTable(_) | Reason::UnknownColumn(_), .. }),
        ) => Ok(nothing),
        Err(give_up) => Err(give_up.into()),
    }
}

fn fingerprint((count, ids, versions): &Figure) -> Fingerprint {
    Fingerprint::new(count.unsigned(), ids.unsigned().wrapping_add(versions.unsigned().wrapping_mul(VERSIONS)))
}

fn of_persons() -> Query {
    let newest = format!("(SELECT id, max(version) AS latest FROM {RAW_PERSONS} GROUP BY id) AS newest");
    Predicate::default().select(&columns("id"), &newest, "LIMIT 1")
}

fn of_distinct_ids() -> Query {
    let table = PERSON_DISTINCT_IDS.from;
    let newest = format!(
        "(SELECT distinct_id, argMax(person_id, version) AS owner, max(version) AS latest FROM {table} GROUP BY distinct_id) AS newest"
    );
    Predicate::default().select(&columns("owner"), &newest, "LIMIT 1")
}

/// Number and checksum of a column of uuids (see [`Fingerprint`]), and the sum of the versions.
fn columns(id: &str) -> String {
    format!("count(), sum({}), sum(latest)", hogql::checksum(id))
}
