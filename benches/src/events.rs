//! The events that everything is measured with.
//!
//! Real ones from PostHog's web SDK, as the sandbox stores them. SDKs send two to three kilobytes of
//! properties by now; each event keeps the first ones, up to about 1.2 KB.

use anyhow::ensure;
use chrono::{NaiveDate, Utc};
use posthog_sandbox::posthog::{Event, Sandbox};
use serde_json::value::RawValue;
use std::collections::BTreeMap;
use uuid::Uuid;

use crate::http::PROJECT;

/// Microseconds of one day.
pub const DAY: i64 = 86_400_000_000;
/// Length of the properties of an event, in bytes.
const PROPERTIES: usize = 1_200;

/// Events of real web SDKs with their own columns; times and ids are for the caller to set.
///
/// # Errors
/// When the sandbox cannot be started or has none.
pub async fn samples() -> anyhow::Result<Vec<Event>> {
    let sandbox = Sandbox::builder().start().await?;
    sandbox.load_dataset(PROJECT, Utc::now())?;
    let mut events = sandbox.events(PROJECT);
    events.retain(|event| event.properties.contains(r#""$lib":"web""#));
    ensure!(!events.is_empty(), "the sandbox has no events of the web SDK");
    for event in &mut events {
        event.properties = shortened(&event.properties)?;
        event.visible_at = None;
    }
    Ok(events)
}

/// The first properties of an object, as many as fit.
fn shortened(properties: &str) -> anyhow::Result<String> {
    let all: BTreeMap<String, Box<RawValue>> = serde_json::from_str(properties)?;
    let mut text = String::from("{");
    for (name, value) in all {
        let pair = format!("{}:{}", serde_json::to_string(&name)?, value.get());
        if text.len() + pair.len() > PROPERTIES {
            continue;
        }
        if text.len() > 1 {
            text.push(',');
        }
        text.push_str(&pair);
    }
    text.push('}');
    Ok(text)
}

/// `count` events of one UTC day, one after the other, each received a second after it happened.
///
/// The first eight digits of a uuid tell the day, so that it can be exchanged; see [`uuid_prefix`].
pub fn of_day(samples: &[Event], day: i64, count: u64) -> Vec<Event> {
    let count = i64::try_from(count).unwrap_or(i64::MAX);
    // The last event is received before midnight.
    let step = (DAY - 10_000_000) / count.max(1);
    samples
        .iter()
        .cycle()
        .zip(0..count)
        .map(|(sample, number)| {
            let timestamp = day * DAY + number * step;
            let random = Uuid::new_v5(&Uuid::NAMESPACE_OID, &[day.to_be_bytes(), number.to_be_bytes()].concat());
            let text = random.to_string();
            let uuid = text.get(8..).and_then(|rest| Uuid::parse_str(&format!("{}{rest}", uuid_prefix(day))).ok());
            Event { uuid: uuid.unwrap_or(random), timestamp, created_at: timestamp + 1_000_000, ..sample.clone() }
        })
        .collect()
}

/// The beginning of the uuids of a day.
pub fn uuid_prefix(day: i64) -> String {
    format!("{:08x}", 0x5eed_0000_i64 + day)
}

/// The date of a day number since 1970.
pub fn date(day: i64) -> String {
    calendar_day(day).map_or_else(String::new, |date| date.to_string())
}

/// The day of the calendar with a number since 1970.
pub fn calendar_day(day: i64) -> Option<NaiveDate> {
    i32::try_from(day).ok().and_then(NaiveDate::from_epoch_days)
}
