//! Serves events from memory until it is ended; prints one line of JSON when it is ready.

use std::io::Write as _;

use clap::Parser;
use posthog_benchmark::server::{Size, serve};

/// Sends events as fast as the machine can.
#[derive(Debug, Parser)]
struct Arguments {
    /// Number of events.
    #[arg(long)]
    events: u64,
    /// Events of a page, and of a day.
    #[arg(long)]
    page: u64,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let Arguments { events, page } = Arguments::parse();
    serve(Size { events, page }, |ready| {
        writeln!(std::io::stdout(), "{}", serde_json::to_string(ready)?)?;
        Ok(())
    })
    .await
}
