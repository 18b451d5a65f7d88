//! Whole lives: a random world of events, several syncs of the built program, and between and within
//! them everything that goes wrong. After every complete sync everything that it owed has come, and
//! nothing else; in a life without trouble nothing comes twice.
//!
//! A life that fails names its seed and is made shorter while it still fails; what is left is printed.
//! `LIFE_SEED=7 cargo test --test integration lives` runs one, `make soak` runs many.

#![expect(clippy::print_stderr, reason = "progress of long runs, for the terminal")]

mod life;
mod script;
mod shrink;

use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use script::Script;

/// Lives of an ordinary test.
const LIVES: u64 = 300;
/// Lives at a time; each waits for its program most of the time.
const PARALLEL: usize = 10;
/// Scripts that are tried to find a shorter one.
const MOST_ATTEMPTS: usize = 400;

fn variable(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|text| text.parse().ok())
}

/// Runs a script in a task of its own, so that a panic in it is a failure like others.
async fn live(script: Script) -> Result<(), String> {
    match tokio::spawn(async move { life::live(&script).await }).await {
        Ok(outcome) => outcome,
        Err(error) => Err(match error.try_into_panic() {
            Ok(panic) => match panic.downcast::<String>() {
                Ok(text) => format!("panicked: {text}"),
                Err(_) => "panicked".to_owned(),
            },
            Err(error) => error.to_string(),
        }),
    }
}

/// Drops parts of a script as long as it fails.
async fn shrink(mut script: Script, mut problem: String) -> (Script, String) {
    let mut attempts = 0;
    'again: loop {
        for shorter in shrink::shorter(&script) {
            attempts += 1;
            if attempts > MOST_ATTEMPTS {
                return (script, problem);
            }
            if let Err(found) = live(shorter.clone()).await {
                (script, problem) = (shorter, found);
                continue 'again;
            }
        }
        return (script, problem);
    }
}

async fn fail(seed: u64, problem: String) -> ! {
    eprintln!("LIFE_SEED={seed}: {problem}\nlooking for a shorter script");
    let (script, problem) = shrink(Script::new(seed), problem).await;
    panic!("LIFE_SEED={seed}: {problem}\n{script:#?}");
}

/// Runs lives with seeds from `first` on, until `is_over` is true of the next one.
async fn live_all(first: u64, mut is_over: impl FnMut(u64) -> bool) {
    let began = Instant::now();
    let (mut running, mut next) = (JoinSet::new(), first);
    loop {
        while running.len() < PARALLEL && !is_over(next) {
            let seed = next;
            running.spawn(async move { (seed, live(Script::new(seed)).await) });
            next += 1;
        }
        match running.join_next().await {
            None => break,
            Some(outcome) => {
                if let (seed, Err(problem)) = outcome.unwrap() {
                    running.shutdown().await;
                    fail(seed, problem).await;
                }
            }
        }
    }
    eprintln!("{} lives from {first} on in {:.1} s", next - first, began.elapsed().as_secs_f64());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn complete_syncs_have_emitted_everything_in_300_lives() {
    match variable("LIFE_SEED") {
        Some(seed) => live_all(seed, |next| next > seed).await,
        None => live_all(0, |next| next >= LIVES).await,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "for SOAK_MINUTES"]
async fn soak() {
    let end = Instant::now() + Duration::from_mins(variable("SOAK_MINUTES").unwrap_or(60));
    // Another one goes on where this one cannot have been.
    let first = u64::try_from(chrono::Utc::now().timestamp_millis()).unwrap();
    live_all(variable("LIFE_SEED").unwrap_or(first), |_| Instant::now() >= end).await;
}
