//! Starts a PostHog stand-in to try things by hand.

use std::io::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use chrono::{TimeDelta, Utc};
use clap::Parser;
use posthog_sandbox::posthog::{Exports, HangingRuns, Key, Limits, Project, Replay, Retention, Sandbox, Server};

/// A stand-in for PostHog on 127.0.0.1; prints one line of JSON when it is ready.
#[derive(Debug, Parser)]
#[expect(clippy::struct_excessive_bools, reason = "each is a switch of the command line")]
struct Arguments {
    /// Port to listen on; 0 takes a free one.
    #[arg(long, default_value_t = 8010)]
    port: u16,
    /// Number of generated events.
    #[arg(long, default_value_t = 1000)]
    events: usize,
    /// Takes in the stored events of real SDKs as well.
    #[arg(long)]
    dataset: bool,
    /// Fills the list endpoints, groups and cohorts.
    #[arg(long)]
    lists: bool,
    /// Makes different events.
    #[arg(long, default_value_t = 7)]
    seed: u64,
    /// Number of the project.
    #[arg(long, default_value_t = 1001)]
    project: u64,
    /// Time zone of the project.
    #[arg(long, default_value = "UTC")]
    timezone: String,
    /// Enforces the limits of PostHog Cloud.
    #[arg(long)]
    limits: bool,
    /// Offers file download exports.
    #[arg(long)]
    exports: bool,
    /// The instance of PostHog to stand for.
    #[arg(long, value_parser = Server::NAMES)]
    server: Option<String>,
    /// Changes one thing about the instance, as in `sessions=v3` or `records_completed=missing`.
    #[arg(long = "set", value_name = "SWITCH=VALUE")]
    switches: Vec<String>,
    /// Hides events that are older than so many months.
    #[arg(long)]
    retention_months: Option<u32>,
    /// Export runs over more hours than that stay `Running` until they are cancelled.
    #[arg(long)]
    hanging_over_hours: Option<u32>,
    /// Export runs take so many seconds.
    #[arg(long, default_value_t = 0)]
    run_seconds: u64,
    /// Serves the responses recorded in this folder by `make try-posthog` where they match.
    #[arg(long, value_name = "DIR")]
    replay: Option<PathBuf>,
}

impl Arguments {
    fn instance(&self) -> anyhow::Result<Server> {
        let mut server = self.server.as_deref().and_then(Server::named).unwrap_or_default();
        for switch in &self.switches {
            server.set(switch)?;
        }
        Ok(server)
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let server = arguments.instance()?;
    let project = Project { id: arguments.project, timezone: arguments.timezone, ..Project::default() };
    let token = project.token.clone();
    let builder = Sandbox::builder().project(project).key(Key::default()).port(arguments.port);
    let builder = if arguments.limits { builder.limits(Limits::posthog()) } else { builder };
    let hangs = |hours| HangingRuns { over_hours: Some(hours), ..HangingRuns::default() };
    let hanging = arguments.hanging_over_hours.map(hangs).into_iter().collect();
    let running = Duration::from_secs(arguments.run_seconds);
    let exports = Exports { running, hanging, ..Exports::default() };
    let replay = arguments.replay.as_deref().map(Replay::load).transpose()?;
    let builder = if arguments.exports { builder.exports(exports) } else { builder };
    let retention = arguments.retention_months.map(|months| Retention { months, enforced: true });
    let builder = builder.server(server).retention(retention.unwrap_or_default()).replay(replay);
    let posthog = builder.start().await?;
    // Events are up to five seconds on the way, and none has arrived in the future.
    let newest = Utc::now() - TimeDelta::seconds(5);
    let mut events = posthog.generate(arguments.project, arguments.events, arguments.seed, newest);
    if arguments.lists {
        posthog.generate_lists(arguments.project, arguments.seed);
    }
    if arguments.dataset {
        events += posthog.load_dataset(arguments.project, newest)?;
    }
    let ready = serde_json::json!({
        "url": posthog.url(), "files_url": posthog.files_url(), "project": arguments.project, "api_key": Key::default().value, "token": token, "events": events,
    });
    writeln!(std::io::stdout(), "{ready}")?;
    tokio::signal::ctrl_c().await?;
    Ok(())
}
