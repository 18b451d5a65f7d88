//! `read --follow`: one sync after the other in one process, until a signal ends it.
//!
//! Each round is a sync as `read` does it, and begins with the states that have been written so far; so wherever it
//! ends, another process can go on as after any sync. Not every round is full: lists, and what is read in full, have a
//! slower pace of their own.

use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use super::setup::{Setup, saved_states};
use super::{Outcome, Round, read_round, with_summary};
use crate::config::Config;
use crate::error::{Error, FailureType};
use crate::protocol::Output;
use crate::protocol::state::SavedStates;
use crate::source::cli::ReadArguments;
use crate::source::configuration;

/// From one reading of lists, and of what is read in full, to the next.
const FULL_ROUNDS: Duration = Duration::from_hours(1);

struct Follower<'f> {
    arguments: &'f ReadArguments,
    config: Config,
    output: &'f Output,
    saved: SavedStates,
    /// What the rounds share, once it is known.
    setup: Option<Setup>,
}

/// Reads the chosen streams again and again, at this interval. Returns false when something has failed that only the
/// user can correct.
pub(in crate::source) async fn follow(
    arguments: &ReadArguments,
    interval: Duration,
    output: &Output,
) -> Result<bool, Error> {
    let config = configuration::from_file(&arguments.sync.config).await?;
    let saved = saved_states(&arguments.sync)?;
    output.end_well_by_signal();
    let mut follower = Follower { arguments, config, output, saved, setup: None };
    let mut full_round = Instant::now();
    loop {
        let begin = Instant::now();
        let is_full = begin >= full_round;
        let round = follower.round(is_full).await;
        output.at_interruption(std::future::ready(()));
        for (stream, state) in output.end_round().await? {
            follower.saved.set(stream, state)?;
        }
        if is_full && round.is_ok() {
            full_round = begin + FULL_ROUNDS;
        }
        let next = match round {
            Ok(Outcome::Misconfigured) => return Ok(false),
            Err(error) if error.is_output_closed() || error.failure_type() == FailureType::Config => return Err(error),
            Ok(Outcome::Complete) => begin + interval,
            Ok(Outcome::Failed) => Instant::now() + interval,
            Err(error) => {
                tracing::error!("{error}");
                if let Some(details) = error.details() {
                    tracing::info!("{details}");
                }
                Instant::now() + interval
            }
        };
        sleep_until(if follower.has_something_to_follow() { next } else { next.max(full_round) }).await;
    }
}

impl Follower<'_> {
    /// Does one sync.
    async fn round(&mut self, is_full: bool) -> Result<Outcome, Error> {
        let Self { arguments, config, output, saved, setup } = self;
        with_summary(arguments.metrics_file.as_deref(), output, async |summary| {
            let known = match setup.take().filter(|setup| !setup.is_incomplete()) {
                Some(known) => known,
                None => Setup::with_catalog_of(config.clone(), &arguments.sync).await?,
            };
            let round = Round { is_full, ..Round::new(saved, arguments.quiet) };
            let result = read_round(&known, round, output, summary).await;
            *setup = Some(known);
            result
        })
        .await
    }

    /// Whether a stream has something to read in rounds that are not full.
    fn has_something_to_follow(&self) -> bool {
        self.setup.as_ref().is_none_or(|setup| !setup.streams(false).is_empty())
    }
}
