//! What the server has to tell: pages, counts and files, rendered once and kept.
//!
//! The sandbox renders the pages of one or two days; those of all other days are copies with other
//! dates and other uuids. Files are the same one over and over, since nothing compares one with
//! another; by the time of arrival, all exported events are of the first day, which is as much as the
//! connector asks for in the first run.

use std::collections::{BTreeMap, HashMap};
use std::io::Write as _;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, ensure};
use axum::body::Bytes;
use axum::http::{Method, header};
use chrono::{DateTime, Duration, Utc};
use flate2::Compression;
use flate2::read::MultiGzDecoder;
use flate2::write::GzEncoder;
use memchr::memmem;
use posthog_sandbox::posthog::{Exports, Sandbox};
use serde::Deserialize;
use serde_json::{Value, json};
use uuid::Uuid;

use super::condition::{Span, Times};
use super::figures::{Cells, Figures};
use super::question::{Key, Question};
use crate::events::{DAY, date, of_day, samples, uuid_prefix};
use crate::http::{Client, PROJECT};

const HOUR: i64 = DAY / 24;
/// Days that are rendered; the others are made from them.
const TEMPLATES: u64 = 2;
/// Days between the last event and today. The end of a sync, a day long, has no part of a day with events.
const AGE: i64 = 1;
/// Pages of up to so many days are kept. More would not fit into memory.
const MOST_KEPT: i64 = 40;

/// How many events there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    pub events: u64,
    /// Events of one day, which are one page.
    pub page: u64,
    /// Days on which there are only figures of events, by a formula; none for events that can be read.
    pub counted_days: Option<i64>,
}

impl Size {
    /// Events that can be read, a page a day.
    pub fn pages(events: u64, page: u64) -> Self {
        Self { events, page, counted_days: None }
    }
}

/// An answer and what it is made of.
#[derive(Debug, Clone)]
pub(super) struct Answer {
    pub(super) body: Bytes,
    /// Length before compression.
    pub(super) unpacked: u64,
    pub(super) gzip: bool,
    /// Whether it is one of the answers that events come with.
    pub(super) events: bool,
}

/// All events.
#[derive(Debug)]
pub(super) struct Content {
    /// The sandbox that rendered everything; it answers whatever else is asked.
    sandbox: Sandbox,
    client: Client,
    size: Size,
    /// Number of the first day since 1970.
    first: i64,
    days: i64,
    templates: i64,
    /// The last event of each template.
    last: Vec<Key>,
    /// Sum of the last eight hex digits of the uuids of each template.
    checksums: Vec<u64>,
    /// Exported rows by hour of arrival.
    hours: BTreeMap<i64, u64>,
    file: Bytes,
    file_length: u64,
    pages: Mutex<HashMap<PageId, Answer>>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct PageId {
    columns: String,
    day: i64,
    gzip: bool,
}

impl Content {
    /// Makes events that end some days ago.
    ///
    /// # Errors
    /// When the sandbox does not do what it should.
    pub(super) async fn new(size: Size) -> anyhow::Result<Self> {
        let days = size.events / size.page.max(1);
        let templates = days.min(TEMPLATES);
        ensure!(
            days > 0 && days * size.page == size.events && days.is_multiple_of(templates),
            "{} events do not fill an even number of pages of {}",
            size.events,
            size.page
        );
        let (days, templates) = (i64::try_from(days)?, i64::try_from(templates)?);
        let first = Utc::now().timestamp_micros().div_euclid(DAY) - AGE - days;
        let sandbox = Sandbox::builder().exports(Exports::default()).start().await?;
        let samples = samples().await?;
        let (mut last, mut checksums, mut hours) = (Vec::new(), Vec::new(), BTreeMap::new());
        for day in first..first + templates {
            let events = of_day(&samples, day, size.page);
            let end = events.last().context("a day has no events")?;
            last.push(Key {
                timestamp: end.timestamp,
                uuid: end.uuid.to_string(),
                event: end.event.clone(),
                distinct_id: end.distinct_id.clone(),
            });
            checksums.push(events.iter().map(|event| digits(event.uuid)).fold(0, u64::wrapping_add));
            if day == first {
                for event in &events {
                    *hours.entry(event.created_at.div_euclid(HOUR)).or_default() += u64::try_from(days)?;
                }
            }
            sandbox.insert(PROJECT, events);
        }
        let client = Client::default();
        let file = export(&client, &sandbox.url(), first).await?;
        let file_length = std::io::copy(&mut MultiGzDecoder::new(&*file), &mut std::io::sink())?;
        let pages = Mutex::default();
        Ok(Self { sandbox, client, size, first, days, templates, last, checksums, hours, file, file_length, pages })
    }

    pub(super) fn first_day(&self) -> i64 {
        self.first
    }

    /// The first instant without events.
    pub(super) fn end(&self) -> i64 {
        (self.first + self.days) * DAY
    }

    /// How many events the days of a span have.
    pub(super) fn rows(&self, happened: Span) -> u64 {
        let end = self.first + self.days;
        let from = happened.from.div_euclid(DAY).clamp(self.first, end);
        let to = happened.to.saturating_add(DAY - 1).div_euclid(DAY).clamp(self.first, end);
        u64::try_from(to - from).unwrap_or_default() * self.size.page
    }

    /// The figures that are asked for.
    ///
    /// # Errors
    /// When a part of a day is asked for.
    pub(super) fn cells(&self, figures: &Figures) -> anyhow::Result<Cells> {
        let arrived = self.day_from(figures.arrived.from)?..self.day_from(figures.arrived.to)?;
        figures.cells(arrived, |instant| self.day_from(instant), |day| Ok((self.size.page, self.checksum(day)?)))
    }

    /// Answers a query.
    ///
    /// # Errors
    /// When it is not about whole days with events, or asks for another page than the next one.
    pub(super) async fn answer(self: &Arc<Self>, sql: &str, question: Question, gzip: bool) -> anyhow::Result<Answer> {
        let answer = match question {
            Question::Columns => {
                return pack(self.client.query(&self.sandbox.url(), sql).await?, gzip, false);
            }
            Question::Page { columns, from, to, after: None, limit } => {
                ensure!(limit == self.size.page, "pages have {} rows, not {limit}", self.size.page);
                let day = self.one_day(from, to)?;
                return self.page(PageId { columns, day, gzip }).await;
            }
            Question::Page { columns, from, to, after: Some((position, id)), .. } => {
                let day = self.one_day(from.div_euclid(DAY) * DAY, to)?;
                let last = self.last_key(day)?;
                ensure!(position == last.timestamp && id == last.uuid, "{id} is not the last event of {}", date(day));
                return empty_page(&columns, gzip);
            }
            Question::ArrivedPage { columns, times, after, limit } => {
                ensure!(limit == self.size.page, "pages have {} rows, not {limit}", self.size.page);
                let Some(day) = self.next_day(times, after.as_ref())? else { return empty_page(&columns, gzip) };
                return self.page(PageId { columns, day, gzip }).await;
            }
            Question::Figures(figures) => figures.answer(&self.cells(&figures)?),
            Question::Days { from, to } => {
                let rows: Vec<Value> = self.whole_days(from, to)?.map(|day| json!([day, self.size.page])).collect();
                json!({"columns": ["day", "count()"], "error": null, "results": rows})
            }
            Question::Count { from, to } => {
                let days = u64::try_from(self.whole_days(from, to)?.count())?;
                json!({"columns": ["count"], "error": null, "results": [[days * self.size.page]]})
            }
            Question::Arrived { from, to } => {
                let rows: u64 = self.arrived(from, to).map(|(_, rows)| rows).sum();
                json!({"columns": ["count()"], "error": null, "results": [[rows]]})
            }
            Question::Hours { from, to } => {
                let rows: Vec<Value> = self.arrived(from, to).map(|(hour, rows)| json!([hour, rows])).collect();
                json!({"columns": ["hour", "count()"], "error": null, "results": rows})
            }
        };
        pack(answer.to_string().into(), gzip, false)
    }

    /// Exported rows by the hours of arrival that have begun and ended within.
    fn arrived(&self, from: i64, to: i64) -> impl Iterator<Item = (&i64, &u64)> {
        self.hours.range(from.div_euclid(HOUR)..to.div_euclid(HOUR))
    }

    /// The day that a window is about.
    fn one_day(&self, from: i64, to: i64) -> anyhow::Result<i64> {
        let mut days = self.whole_days(from, to)?;
        let day = days.next().context("a window has no events")?;
        ensure!(days.next().is_none(), "a window has more events than fit on a page");
        Ok(day)
    }

    /// The days with events in a window.
    fn whole_days(&self, from: i64, to: i64) -> anyhow::Result<std::ops::Range<i64>> {
        ensure!(from % DAY == 0 && to % DAY == 0, "only whole days are known");
        let day = |instant: i64| instant.div_euclid(DAY).clamp(self.first, self.first + self.days);
        Ok(day(from)..day(to))
    }

    /// The first day with events that all happen and arrive at an instant or after it; the day after the
    /// last one if there is none.
    fn day_from(&self, instant: i64) -> anyhow::Result<i64> {
        let (day, end) = (instant.div_euclid(DAY), self.first + self.days);
        let begun = instant.rem_euclid(DAY) > 0;
        ensure!(!begun || !(self.first..end).contains(&day), "only whole days are known, not a part of {}", date(day));
        Ok((day + i64::from(begun)).clamp(self.first, end))
    }

    /// The first day after a key, if it has events at these times.
    fn next_day(&self, times: Times, after: Option<&Key>) -> anyhow::Result<Option<i64>> {
        let Times { mut happened, arrived } = times;
        if let Some(key) = after {
            let day = key.timestamp.div_euclid(DAY);
            ensure!(*key == self.last_key(day)?, "{} is not the last event of {}", key.uuid, date(day));
            happened = happened.and(Span { from: (day + 1) * DAY, ..Span::ALL });
        }
        let from = self.day_from(happened.from)?.max(self.day_from(arrived.from)?);
        let to = self.day_from(happened.to)?.min(self.day_from(arrived.to)?);
        Ok((from < to).then_some(from))
    }

    /// The template of a day.
    fn template(&self, day: i64) -> i64 {
        (day - self.first) % self.templates
    }

    fn last_key(&self, day: i64) -> anyhow::Result<Key> {
        let template = self.template(day);
        let last = self.last.get(usize::try_from(template)?).context("a day has no template")?.clone();
        let rest = last.uuid.get(8..).unwrap_or_default();
        let uuid = format!("{}{rest}", uuid_prefix(day));
        Ok(Key { timestamp: last.timestamp + (day - self.first - template) * DAY, uuid, ..last })
    }

    /// The checksum of the uuids of a day. Those of its template differ only in their beginning.
    fn checksum(&self, day: i64) -> anyhow::Result<u64> {
        self.checksums.get(usize::try_from(self.template(day))?).copied().context("a day has no template")
    }

    fn pages(&self) -> std::sync::MutexGuard<'_, HashMap<PageId, Answer>> {
        self.pages.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A page, rendered when it is asked for the first time.
    async fn page(self: &Arc<Self>, id: PageId) -> anyhow::Result<Answer> {
        if let Some(page) = self.pages().get(&id) {
            return Ok(page.clone());
        }
        let day = self.first + self.template(id.day);
        let at = |day: i64| format!("toDateTime64('{} 00:00:00.000000', 6, 'UTC')", date(day));
        let sql = format!(
            "SELECT {} FROM events WHERE timestamp >= {} AND timestamp < {} ORDER BY timestamp ASC, toString(uuid) ASC LIMIT {}",
            id.columns,
            at(day),
            at(day + 1),
            self.size.page
        );
        let template = if id.day == day && !id.gzip {
            self.client.query(&self.sandbox.url(), &sql).await?
        } else {
            Box::pin(self.page(PageId { day, gzip: false, ..id.clone() })).await?.body
        };
        let wanted = id.clone();
        let page = tokio::task::spawn_blocking(move || {
            let body = if wanted.day == day { template } else { moved(&template, day, wanted.day) };
            pack(body, wanted.gzip, true)
        })
        .await??;
        if id.day == day || self.days <= MOST_KEPT {
            self.pages().insert(id, page.clone());
        }
        Ok(page)
    }

    /// The names of the files with what was stored in an interval.
    ///
    /// # Errors
    /// When it has only a part of the events.
    pub(super) fn files(&self, from: DateTime<Utc>, to: DateTime<Utc>) -> anyhow::Result<Vec<String>> {
        let (from, to) = (from.timestamp_micros(), to.timestamp_micros());
        let (first, end) = (self.first * DAY, (self.first + 1) * DAY);
        if to <= first || from >= end {
            return Ok(Vec::new());
        }
        ensure!(from <= first && to >= end, "only all events can be exported, not a part of them");
        Ok((0..self.days).map(|number| number.to_string()).collect())
    }

    /// Rows of these files. Each has the events of one day.
    pub(super) fn rows_of(&self, files: &[String]) -> u64 {
        self.size.page * files.len() as u64
    }

    pub(super) fn file(&self) -> Answer {
        Answer { body: self.file.clone(), unpacked: self.file_length, gzip: true, events: true }
    }
}

/// The last eight hex digits of a uuid.
fn digits(uuid: Uuid) -> u64 {
    let [.., first, second, third, fourth] = uuid.into_bytes();
    u32::from_be_bytes([first, second, third, fourth]).into()
}

/// A page after the last event.
fn empty_page(columns: &str, gzip: bool) -> anyhow::Result<Answer> {
    let answer = json!({"columns": [], "error": null, "hogql": columns, "results": [], "types": []});
    pack(answer.to_string().into(), gzip, true)
}

/// Exports a day from the sandbox, as one file.
async fn export(client: &Client, root: &str, day: i64) -> anyhow::Result<Bytes> {
    #[derive(Deserialize)]
    struct Run {
        #[serde(default)]
        id: String,
        #[serde(default)]
        files: Vec<String>,
    }
    let root = format!("{root}/api/projects/{PROJECT}/file_download_batch_exports");
    let body = json!({
        "model": "events", "file": {"format": "JSONLines", "compression": "gzip"},
        "data_interval_start": format!("{}T00:00:00Z", date(day)),
        "data_interval_end": format!("{}T00:00:00Z", date(day + 1)),
    });
    let Run { id, .. } = client.json(Method::POST, &format!("{root}/"), Some(&body)).await?;
    let deadline = Utc::now() + Duration::minutes(2);
    let file = loop {
        let run: Run = client.json(Method::GET, &format!("{root}/{id}/"), None).await?;
        if let [file] = run.files.as_slice() {
            break file.clone();
        }
        ensure!(Utc::now() < deadline, "the sandbox does not export: {:?}", run.files);
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    };
    let answer = client.send(Method::GET, &format!("{root}/{id}/download/{file}/"), None).await?;
    let location = answer.headers.get(header::LOCATION).context("a download does not redirect")?;
    client.download(location.to_str()?).await
}

/// A page of one day with the dates and uuids of another.
fn moved(page: &[u8], from: i64, to: i64) -> Bytes {
    let mut page = page.to_vec();
    let pairs = [
        (format!("\"{}T", date(from)), format!("\"{}T", date(to))),
        (format!("\"{}-", uuid_prefix(from)), format!("\"{}-", uuid_prefix(to))),
    ];
    for (old, new) in pairs {
        let places: Vec<usize> = memmem::find_iter(&page, &old).collect();
        for place in places {
            if let Some(part) = page.get_mut(place..place + new.len()) {
                part.copy_from_slice(new.as_bytes());
            }
        }
    }
    page.into()
}

pub(super) fn pack(body: Bytes, gzip: bool, events: bool) -> anyhow::Result<Answer> {
    let unpacked = body.len() as u64;
    if !gzip {
        return Ok(Answer { body, unpacked, gzip, events });
    }
    // The level of Django's middleware, which compresses PostHog's answers.
    let mut encoder = GzEncoder::new(Vec::with_capacity(body.len() / 4), Compression::new(6));
    encoder.write_all(&body)?;
    Ok(Answer { body: encoder.finish()?.into(), unpacked, gzip, events })
}
