//! A response of one row with an array of figures: no LIMIT can cut it, and what it lacks is noticed.

use std::fmt;

use serde::Deserialize;
use serde::de::{self, Deserializer, Visitor};

use super::context::ReadContext;
use super::ledger::BYTES_A_ROW;
use crate::error::Error;
use crate::posthog::http::GiveUp;
use crate::posthog::{AtMost, Query};

/// More figures than this are in no response: decades of days, each in dozens of slices.
const MOST_FIGURES: usize = 100_000;
/// How often figures are asked for in a row before it is final that they are not whole.
const ATTEMPTS: u32 = 3;

/// A number of a figure. PostHog's are JSON numbers; other servers write large ones as strings.
#[derive(Debug, Clone, Copy)]
pub(super) struct Number(pub(super) i128);

impl Number {
    /// Modulo 2^64, as the server adds up.
    pub(super) fn unsigned(&self) -> u64 {
        u64::try_from(self.0.rem_euclid(1 << 64)).unwrap_or_default()
    }

    /// A day; one that no calendar has if it is out of bounds.
    pub(super) fn day(self) -> i64 {
        i64::try_from(self.0).unwrap_or(i64::MAX)
    }
}

impl<'de> Deserialize<'de> for Number {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct AnyNumber;
        impl Visitor<'_> for AnyNumber {
            type Value = Number;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a whole number")
            }

            fn visit_u64<E: de::Error>(self, number: u64) -> Result<Number, E> {
                Ok(Number(number.into()))
            }

            fn visit_i64<E: de::Error>(self, number: i64) -> Result<Number, E> {
                Ok(Number(number.into()))
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Number, E> {
                text.parse().map(Number).map_err(|_| E::custom(format!("`{text}` is not a whole number")))
            }
        }
        deserializer.deserialize_any(AnyNumber)
    }
}

/// The numbers of one figure.
type Numbers = AtMost<8, Number>;

/// Figures of cells, as many as the response says it has.
pub(super) struct FigureRow {
    pub(super) rows: Vec<Numbers>,
    /// Bytes that the server has read for it.
    pub(super) bytes: u64,
}

/// Asks for figures of `what`; none when that is too much for one query. The response has the number of
/// figures and of the rows in them (at `count_at` of each), which have to agree: figures that are left out
/// would hide rows.
///
/// # Errors
/// When the server does not answer, or its figures are not whole.
pub(super) async fn ask(
    context: &ReadContext,
    what: &str,
    query: &Query,
    count_at: usize,
) -> Result<Option<FigureRow>, GiveUp> {
    let mut problem = String::new();
    for _ in 0..ATTEMPTS {
        let response = match context.ask::<(Number, Number, AtMost<MOST_FIGURES, Numbers>)>(query).await {
            Ok(response) => response,
            Err(GiveUp::TooLarge { .. }) => return Ok(None),
            Err(give_up) => return Err(give_up),
        };
        let Some((cells, stored, AtMost(rows))) = response.rows.into_iter().next() else {
            "a response without a row".clone_into(&mut problem);
            continue;
        };
        let counted = rows
            .iter()
            .filter_map(|row| row.get(count_at))
            .fold(0_u64, |sum, count| sum.wrapping_add(count.unsigned()));
        if i128::try_from(rows.len()).is_ok_and(|length| length == cells.0) && counted == stored.unsigned() {
            let bytes = response.bytes_read.unwrap_or_else(|| counted.saturating_mul(BYTES_A_ROW));
            return Ok(Some(FigureRow { rows, bytes }));
        }
        problem = format!("{} cells with {counted} rows instead of {} with {}", rows.len(), cells.0, stored.0);
    }
    Err(GiveUp::Fatal(Error::transient(format!(
        "PostHog's figures of {what} are not whole ({problem}), {ATTEMPTS} times in a row. Nothing was skipped; try again later"
    ))))
}
