//! `POST /api/projects/:id/query/`.

use reqwest::Method;
use serde::de::DeserializeOwned;
use serde::de::value::SeqDeserializer;

use super::at_most::AtMost;
use super::hogql::Query;
use super::row_reader::{Malformed, Row, RowConsumer, RowReader, row_size};
use super::turn::Turn;
use crate::posthog::http::{Class, Client, Failure, GiveUp, Observer, Request, Response, Retry};

/// Small answers, such as counts, have at most so many rows; `PostHog` never sends more.
pub const MOST_ROWS: u32 = 50_000;
/// Their rows have at most so many bytes together.
const MOST_BYTES: usize = 8 * 1024 * 1024;

/// An answer whose rows are being read.
pub struct Rows {
    response: Response,
    reader: RowReader,
    turn: Turn,
}

impl Rows {
    /// Sends a query.
    ///
    /// # Errors
    /// A [`Failure`], which determines how to go on.
    pub async fn open(client: &Client, project: u64, query: &Query, observer: &dyn Observer) -> Result<Self, Failure> {
        let path = format!("api/projects/{project}/query/");
        let body = query.body();
        tracing::debug!("project {project}: {}", query.text);
        let request = Request { method: Method::POST, path: &path, body: Some(&body) };
        let response = client.send(Class::Query(project), &request, observer).await?;
        Ok(Self { response, reader: RowReader::default(), turn: Turn::default() })
    }

    /// Bytes that the query has read on the server, when the server counts them.
    pub fn bytes_read(&self) -> Option<u64> {
        self.response.number(crate::posthog::http::BYTES_READ)
    }

    /// Hands the rows of the next piece to `take`. Returns the number of all rows at the end of the
    /// answer, none before.
    ///
    /// # Errors
    /// When the answer is cut or not usable; rows handed over before are good.
    pub async fn read(&mut self, take: &mut (dyn RowConsumer + Send)) -> Result<Option<u64>, Failure> {
        self.read_beside(0, take).await
    }

    /// The same for a caller that holds so many bytes of rows already.
    async fn read_beside(&mut self, held: usize, take: &mut (dyn RowConsumer + Send)) -> Result<Option<u64>, Failure> {
        // Only now: what has been made of a long row has been sent meanwhile.
        self.turn.take_for(held + self.reader.held()).await;
        match self.response.chunk().await? {
            Some(chunk) => {
                self.reader.feed(chunk.as_ref(), take).map_err(unusable)?;
                Ok(None)
            }
            None => std::mem::take(&mut self.reader).finish(take).map(Some).map_err(unusable),
        }
    }
}

fn unusable(Malformed(reason): Malformed) -> Failure {
    Failure::transient(format!("PostHog's answer is not usable: {reason}"))
}

/// Finds out the columns of a query and their ClickHouse types, by the response itself.
///
/// # Errors
/// When the query is refused, or there is no usable response.
pub async fn describe(
    client: &Client,
    project: u64,
    query: &Query,
    observer: &dyn Observer,
    retry: Retry,
) -> Result<Vec<(String, String)>, GiveUp> {
    #[derive(serde::Deserialize)]
    struct Described {
        types: AtMost<10_000, (String, String)>,
    }
    let path = format!("api/projects/{project}/query/");
    let body = query.body();
    let request = Request { method: Method::POST, path: &path, body: Some(&body) };
    let described: Described =
        retry.run(client.limiter(), || client.json(Class::Query(project), &request, observer)).await?;
    Ok(described.types.0)
}

/// Reads all rows of a small answer.
///
/// # Errors
/// A [`Failure`], which determines how to go on.
pub async fn small<T: DeserializeOwned + Send>(
    client: &Client,
    project: u64,
    query: &Query,
    observer: &dyn Observer,
) -> Result<Small<T>, Failure> {
    let mut response = Rows::open(client, project, query, observer).await?;
    let bytes_read = response.bytes_read();
    let (mut rows, mut bytes) = (Vec::new(), 0);
    loop {
        let held = bytes;
        let mut take = |row: &Row<'_>| -> Result<(), Malformed> {
            bytes += row_size(row);
            if rows.len() == MOST_ROWS as usize || bytes > MOST_BYTES {
                return Err(Malformed(format!(
                    "it has more than {MOST_ROWS} rows, or too large ones, where few are due"
                )));
            }
            let columns = SeqDeserializer::<_, serde_json::Error>::new(row.iter().copied());
            rows.push(
                T::deserialize(columns).map_err(|error| Malformed(format!("a row has unexpected columns: {error}")))?,
            );
            Ok(())
        };
        if response.read_beside(held, &mut take).await?.is_some() {
            return Ok(Small { rows, bytes_read });
        }
    }
}

/// Rows of a small answer, and what the query cost.
pub struct Small<T> {
    pub rows: Vec<T>,
    /// Bytes read on the server, when it counts them.
    pub bytes_read: Option<u64>,
}

/// Like [`small`], trying again.
///
/// # Errors
/// When the failure is final or has happened too often; [`GiveUp::TooLarge`] when the query is too large.
pub async fn small_with_retry<T: DeserializeOwned + Send>(
    client: &Client,
    project: u64,
    query: &Query,
    observer: &dyn Observer,
    retry: Retry,
) -> Result<Small<T>, GiveUp> {
    retry.run(client.limiter(), || small(client, project, query, observer)).await
}
