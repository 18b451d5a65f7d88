//! `destination-patterns`: delivers records to a webhook.
//!
//! A STATE is acknowledged only when every record before it has arrived or has been dead-lettered on
//! disk. A record that cannot be delivered ends the run with an error; nothing is dropped.

mod acknowledgements;
mod answer;
mod batch;
mod cli;
mod config;
mod credentials;
mod dead_letter;
mod input;
mod line;
mod origin;
mod payload;
mod regular_file;
mod source;
mod spec;
mod state_file;
mod storage;
mod webhook;
mod webhook_url;
mod write;

use std::path::Path;
use std::sync::Arc;

use crate::completions;
use crate::error::Error;
use crate::protocol::message::ConnectionStatus;
use crate::protocol::{Message, Output};
use config::WebhookConfig;
use webhook::Webhook;

pub use cli::{DestinationArguments, DestinationCommand};
pub use config::WEBHOOK_URL_VARIABLE;
pub use spec::specification;

/// Runs one command. Returns whether the exit code says that it succeeded.
///
/// # Errors
/// When the command failed, which has not been reported yet.
pub async fn run(command: &DestinationCommand, output: &Output) -> Result<bool, Error> {
    match command {
        DestinationCommand::Spec => output.message(&Message::Spec { spec: specification() }).await?,
        DestinationCommand::Check { config, send_test_record, exit_code } => {
            return Ok(check(config, *send_test_record, output).await? || !exit_code);
        }
        DestinationCommand::Completions { shell } => {
            output.line(completions::script::<DestinationArguments>(*shell)).await?;
        }
        DestinationCommand::Write(arguments) => write::write(arguments, output).await?,
    }
    Ok(true)
}

async fn check(config: &Path, send_test_record: bool, output: &Output) -> Result<bool, Error> {
    let examine = async {
        let webhook = Webhook::new(Arc::new(WebhookConfig::from_file(config)?), output)?;
        if send_test_record { webhook.send_test_record().await } else { webhook.probe().await }
    };
    let found = examine.await.map(|found| vec![found]);
    output.message(&Message::ConnectionStatus { connection_status: ConnectionStatus::new(&found) }).await?;
    Ok(found.is_ok())
}
