//! Sends batches to the webhook until they have arrived or are permanently rejected.

use std::collections::VecDeque;
use std::io::Write;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use chrono::Utc;
use flate2::Compression;
use flate2::write::GzEncoder;
use hmac::{Hmac, KeyInit, Mac};
use reqwest::header::{CONTENT_ENCODING, CONTENT_TYPE};
use reqwest::{Method, StatusCode, redirect};
use sha2::Sha256;
use tokio::time::Instant;

use super::answer::{RetryAction, failed_in_body, is_web_page, retry_action, says_failed};
use super::batch::{Entry, Ordinal, RequestBatch, body};
use super::config::WebhookConfig;
use super::dead_letter::DeadLetters;
use super::origin::{Epoch, Origin};
use crate::error::Error;
use crate::lock::lock;
use crate::net::{client_build_error, client_builder, connection_advice, describe, unused_proxy};
use crate::protocol::Output;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const LONGEST_WAIT: Duration = Duration::from_mins(1);
/// A webhook that asks for more patience is asked again earlier.
const LONGEST_REQUESTED_WAIT: Duration = Duration::from_mins(5);
/// Of an answer, no more than about this is looked at.
const LONGEST_ANSWER: usize = 64 * 1024;
/// And messages quote from no more than so many characters.
const EXCERPT: usize = 2_048;
/// Whose certificate it is, in messages.
const SERVER: &str = "the server at `webhook_url`";

/// The webhook. Shared by all deliveries.
pub(super) struct Webhook {
    http: reqwest::Client,
    config: Arc<WebhookConfig>,
    dead_letters: Option<DeadLetters>,
    output: Output,
    /// No request is sent before this: the webhook has asked clients to wait.
    paused_until: Mutex<Option<Instant>>,
    /// Most records that the webhook has shown to take in one request.
    most_records: AtomicUsize,
    /// Whether the webhook has accepted anything in this run.
    accepted: AtomicBool,
    /// Records that it had refused before.
    refused: AtomicUsize,
    /// Whether it has answered with a web page.
    has_shown_page: AtomicBool,
}

/// What became of a batch that did not end the sync.
#[derive(Debug)]
pub(super) struct Delivered {
    /// Place of its first record.
    pub(super) first: Ordinal,
    pub(super) stream: usize,
    /// Records that arrived.
    pub(super) records: u64,
    /// Size of the batch.
    pub(super) bytes: usize,
    /// Records that were dead-lettered.
    pub(super) dead_lettered: Vec<Ordinal>,
}

impl Webhook {
    /// Prepares the client.
    ///
    /// # Errors
    /// When no certificates are installed, or the dead-letter file cannot be written.
    pub(super) fn new(config: Arc<WebhookConfig>, output: &Output) -> Result<Self, Error> {
        let http = client_builder()?
            .default_headers(config.headers.clone())
            .user_agent(concat!("destination-patterns/", env!("CARGO_PKG_VERSION")))
            .redirect(redirect::Policy::none())
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(config.request_timeout)
            .build()
            .map_err(client_build_error)?;
        let dead_letters = config.dead_letter_file.as_deref().map(DeadLetters::open).transpose()?;
        let most_records = AtomicUsize::new(config.max_records);
        Ok(Self {
            http,
            config,
            dead_letters,
            output: output.clone(),
            paused_until: Mutex::new(None),
            most_records,
            accepted: AtomicBool::new(false),
            refused: AtomicUsize::new(0),
            has_shown_page: AtomicBool::new(false),
        })
    }

    /// Asks whether the webhook is there, without sending a record.
    ///
    /// # Errors
    /// When it is not, or denies access.
    pub(super) async fn probe(&self) -> Result<String, Error> {
        if let Some(proxy) = unused_proxy(self.config.webhook.expose()) {
            tracing::warn!("{proxy} is not used, because `webhook_url` is on this machine");
        }
        let request = self.http.request(Method::HEAD, self.config.webhook.expose().clone());
        let response = request.send().await.map_err(|error| {
            if let Some(known) = connection_advice(&error, SERVER) {
                return known.with_details(describe(error));
            }
            Error::config(format!("no answer from {}: {}; check `webhook_url`", self.config.webhook, describe(error)))
        })?;
        match retry_action(&self.config, response.status(), response.headers(), "") {
            // Many webhooks support POST only and reject everything else.
            RetryAction::Fatal(error) if !matches!(response.status().as_u16(), 207 | 405 | 411 | 415) => Err(error),
            _ => Ok(format!("{} answers ({}); no record was sent", self.config.webhook, response.status().as_u16())),
        }
    }

    /// Sends one made-up record.
    ///
    /// # Errors
    /// When it does not arrive.
    pub(super) async fn send_test_record(&self) -> Result<String, Error> {
        let element = br#"{"event":"connection test","uuid":"00000000-0000-0000-0000-000000000000","properties":{}}"#;
        let entry = Entry { ordinal: 0, element: element.to_vec() };
        match self.post("check", &[entry], Origin { epoch: Epoch::new(), place: 0 }).await {
            RetryAction::Accepted => Ok(format!("{} has accepted a test record", self.config.webhook)),
            RetryAction::Fatal(error) => Err(error),
            RetryAction::Retry { reason, .. }
            | RetryAction::TooLarge { reason, .. }
            | RetryAction::Rejected { reason, .. } => {
                Err(Error::config(format!("{} does not accept a test record: {reason}", self.config.webhook)))
            }
        }
    }

    /// Delivers a batch of the named stream.
    ///
    /// # Errors
    /// When it cannot be delivered in the configured time, or is rejected and there is no
    /// dead-letter file.
    pub(super) async fn deliver(&self, name: &str, batch: RequestBatch) -> Result<Delivered, Error> {
        let (first, stream) = (batch.first(), batch.stream);
        let begin = Instant::now();
        let mut delivered = Delivered { first, stream, records: 0, bytes: batch.bytes, dead_lettered: Vec::new() };
        let mut parts: VecDeque<(Origin, Vec<Entry>)> = VecDeque::new();
        let mut refused: Vec<(Vec<Entry>, u16, String)> = Vec::new();
        self.queue(&mut parts, batch.origin, batch.entries);
        while let Some((origin, part)) = parts.pop_front() {
            match self.deliver_part(name, &part, origin, begin).await? {
                RetryAction::TooLarge { reason, .. } | RetryAction::Rejected { reason, status: 400 | 422 }
                    if part.len() > 1 =>
                {
                    tracing::debug!("{} records of {name} are sent in two halves: {reason}", part.len());
                    let mut first_half = part;
                    let second_half = first_half.split_off(first_half.len() / 2);
                    parts.push_front((origin.plus(first_half.len()), second_half));
                    parts.push_front((origin, first_half));
                }
                RetryAction::TooLarge { status, reason } | RetryAction::Rejected { status, reason } => {
                    self.dead_letters(name, &reason)?;
                    delivered.dead_lettered.extend(part.iter().map(|entry| entry.ordinal));
                    refused.push((part, status, reason));
                    self.refuse_to_continue(&refused)?;
                }
                _ => {
                    self.accepted.store(true, Ordering::Relaxed);
                    delivered.records += part.len() as u64;
                }
            }
        }
        if !self.accepted.load(Ordering::Relaxed) {
            self.refused.fetch_add(delivered.dead_lettered.len(), Ordering::Relaxed);
        }
        for (part, status, reason) in &refused {
            tracing::warn!(
                "{} records of {name} were rejected and written to `dead_letter_file`: {reason}",
                part.len()
            );
            self.dead_letters(name, reason)?.write(name, part, *status, reason).await?;
        }
        Ok(delivered)
    }

    /// Cuts a batch into what the webhook has shown to take.
    fn queue(&self, parts: &mut VecDeque<(Origin, Vec<Entry>)>, mut origin: Origin, mut entries: Vec<Entry>) {
        let most = self.most_records.load(Ordering::Relaxed).max(1);
        while entries.len() > most {
            let rest = entries.split_off(most);
            parts.push_back((origin, std::mem::replace(&mut entries, rest)));
            origin = origin.plus(most);
        }
        parts.push_back((origin, entries));
    }

    /// Sends one request until there is a final result: accepted, too large or rejected.
    async fn deliver_part(
        &self,
        name: &str,
        part: &[Entry],
        origin: Origin,
        begin: Instant,
    ) -> Result<RetryAction, Error> {
        let mut waits = self.waits();
        let mut attempts = 0;
        loop {
            self.pause().await;
            attempts += 1;
            match self.post(name, part, origin).await {
                RetryAction::Fatal(error) => return Err(error),
                RetryAction::TooLarge { status, reason } => {
                    if part.len() > 1 {
                        self.most_records.fetch_min(part.len().div_ceil(2), Ordering::Relaxed);
                    }
                    return Ok(RetryAction::TooLarge { status, reason });
                }
                RetryAction::Retry { wait, reason } => {
                    let own = waits.next().unwrap_or(LONGEST_WAIT);
                    let wait = wait.map_or(own, |asked| asked.min(LONGEST_REQUESTED_WAIT));
                    if begin.elapsed() + wait > self.config.max_elapsed {
                        return Err(Error::transient(format!(
                            "the webhook at {} did not accept a batch in {attempts} attempts and {} s; last error: {reason}. \
                             The next sync sends unacknowledged records again",
                            self.config.webhook,
                            begin.elapsed().as_secs()
                        )));
                    }
                    tracing::info!(
                        "attempt {attempts} to deliver a batch of {name} failed, retrying in {:.1} s: {reason}",
                        wait.as_secs_f64()
                    );
                    self.pause_for(wait);
                    self.output.progress().waiting(&format!("waiting {} s for the webhook", wait.as_secs()));
                }
                retry_action => return Ok(retry_action),
            }
        }
    }

    /// The file for rejected records.
    ///
    /// # Errors
    /// When there is none.
    fn dead_letters(&self, name: &str, reason: &str) -> Result<&DeadLetters, Error> {
        self.dead_letters.as_ref().ok_or_else(|| {
            Error::system(format!(
                "the webhook at {} rejects a record of {name} permanently: {reason}. To continue without such records, set `dead_letter_file`",
                self.config.webhook
            ))
        })
    }

    /// Ends the run when the webhook has refused more records than it may before it accepts one: with a wrong
    /// secret or URL, everything would end in the dead-letter file.
    fn refuse_to_continue(&self, refused: &[(Vec<Entry>, u16, String)]) -> Result<(), Error> {
        let Some((_, _, reason)) = refused.last() else { return Ok(()) };
        let count = refused.iter().map(|(part, ..)| part.len()).sum::<usize>() + self.refused.load(Ordering::Relaxed);
        if self.accepted.load(Ordering::Relaxed) || count <= self.config.dead_letter_limit {
            return Ok(());
        }
        Err(Error::config(format!(
            "the webhook at {} has accepted no record in this run and rejected {count}: {reason}. The records are probably not the cause; check `webhook_url`, `signing_secret`, `record_shape` and `compression`. To continue without these records, raise `dead_letter_limit`",
            self.config.webhook
        )))
    }

    /// At the end of a run that has dead-lettered everything.
    ///
    /// # Errors
    /// When that was more than one record, which may well be refused for what it holds.
    pub(super) fn accepted_something(&self) -> Result<(), Error> {
        let refused = self.refused.load(Ordering::Relaxed);
        if self.accepted.load(Ordering::Relaxed) || refused < 2 {
            return Ok(());
        }
        Err(Error::config(format!(
            "the webhook at {} has accepted no record in this run; all {refused} are in `dead_letter_file`, and the next sync continues after them. If the records are not the cause, check `webhook_url`, `signing_secret`, `record_shape` and `compression`",
            self.config.webhook
        )))
    }

    async fn pause(&self) {
        loop {
            let until = *lock(&self.paused_until);
            match until {
                Some(until) if until > Instant::now() => tokio::time::sleep_until(until).await,
                _ => return,
            }
        }
    }

    fn pause_for(&self, wait: Duration) {
        let until = Instant::now() + wait;
        let mut paused = lock(&self.paused_until);
        if paused.is_none_or(|known| known < until) {
            *paused = Some(until);
        }
    }

    /// Doubling waits with full jitter: anything between nothing and twice the last one.
    fn waits(&self) -> ExponentialBackoff {
        ExponentialBuilder::default()
            .with_min_delay(self.config.first_wait / 2)
            .with_max_delay(LONGEST_WAIT)
            .without_max_times()
            .with_jitter()
            .build()
    }

    /// Sends one request.
    async fn post(&self, name: &str, part: &[Entry], origin: Origin) -> RetryAction {
        let body = body(part);
        let id = origin.key(name, &body);
        let mut request = self
            .http
            .post(self.config.webhook.expose().clone())
            .header(CONTENT_TYPE, "application/json")
            .header("Idempotency-Key", &id)
            .header("webhook-id", &id);
        if let Some(key) = &self.config.signing_key {
            let timestamp = Utc::now().timestamp();
            request = request
                .header("webhook-timestamp", timestamp)
                .header("webhook-signature", signature(&key.0, &id, timestamp, &body));
        }
        let body = if self.config.gzip {
            request = request.header(CONTENT_ENCODING, "gzip");
            match compressed(&body) {
                Ok(body) => body,
                Err(error) => {
                    return RetryAction::Fatal(Error::system(format!("a batch could not be compressed: {error}")));
                }
            }
        } else {
            body
        };
        let mut response = match request.body(body).send().await {
            Ok(response) => response,
            Err(error) => {
                return match connection_advice(&error, SERVER) {
                    Some(known) => RetryAction::Fatal(known.with_details(describe(error))),
                    None => RetryAction::Retry { wait: None, reason: describe(error) },
                };
            }
        };
        let status = response.status();
        let mut answer = Vec::new();
        // Read to its end, so that the connection can be used again, unless it never ends.
        while let Ok(Some(chunk)) = response.chunk().await {
            if answer.len() <= LONGEST_ANSWER {
                answer.extend_from_slice(&chunk);
            } else {
                break;
            }
        }
        let is_success = status.is_success() && status != StatusCode::MULTI_STATUS;
        if is_success && !says_failed(&answer) {
            if is_web_page(&answer) && !self.has_shown_page.swap(true, Ordering::Relaxed) {
                tracing::warn!(
                    "the webhook responds with a web page, so perhaps nothing takes the records in; check that `webhook_url` is the URL of the webhook, and that the records arrive"
                );
            }
            return RetryAction::Accepted;
        }
        // It may quote the request; cut in half, a secret would not be recognised any more.
        let quoted: String =
            self.config.webhook.redact(&String::from_utf8_lossy(&answer)).chars().take(EXCERPT).collect();
        let excerpt: String = quoted.split_whitespace().collect::<Vec<_>>().join(" ").chars().take(200).collect();
        if is_success {
            return RetryAction::Fatal(failed_in_body(status, &excerpt));
        }
        retry_action(&self.config, status, response.headers(), &excerpt)
    }
}

/// `v1,` and the base64 of the HMAC-SHA256 over id, time and body, as Standard Webhooks has it.
fn signature(key: &[u8], id: &str, timestamp: i64, body: &[u8]) -> String {
    // HMAC takes keys of any length.
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(key) else { return String::new() };
    mac.update(format!("{id}.{timestamp}.").as_bytes());
    mac.update(body);
    format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()))
}

fn compressed(body: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::with_capacity(body.len() / 4), Compression::fast());
    encoder.write_all(body)?;
    encoder.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of the Standard Webhooks specification's reference libraries.
    #[test]
    fn signatures_are_those_of_standard_webhooks() {
        let key = STANDARD.decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
        let signed = signature(&key, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, br#"{"test": 2432232314}"#);
        assert_eq!(signed, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }
}
