//! The streams of the user's own queries, whose columns only the server knows.

use crate::config::{Config, CustomQuery, query_text};
use crate::error::Error;
use crate::posthog::Query;
use crate::posthog::http::{Client, GiveUp, Refusal, Retry, Silent};
use crate::posthog::query::describe as describe_columns;
use crate::streams::{self, KeysetStream, custom};

/// Checks that no custom query has the name of another stream.
///
/// # Errors
/// A config error that names the setting.
pub(super) fn check_names(config: &Config) -> Result<(), Error> {
    let names = streams::names();
    match config.custom_queries.iter().enumerate().find(|(_, query)| names.contains(&query.name.as_str())) {
        None => Ok(()),
        Some((index, query)) => Err(Error::config(format!(
            "`custom_queries[{index}].name` is `{}`, which is the name of another stream",
            query.name
        ))),
    }
}

/// The streams of custom queries, and the queries that are wrong.
#[derive(Default)]
pub(super) struct CustomStreams {
    pub(super) streams: Vec<&'static KeysetStream>,
    /// Names of streams, and why they cannot be read.
    pub(super) failed: Vec<(String, Error)>,
}

/// Asks a project for the columns of the custom queries whose names are `wanted`. One that is wrong does not
/// stop the others.
pub(super) async fn describe(
    client: &Client,
    config: &Config,
    project: u64,
    wanted: impl Fn(&str) -> bool,
    retry: impl Fn() -> Retry,
) -> CustomStreams {
    let mut custom = CustomStreams::default();
    for query in config.custom_queries.iter().filter(|query| wanted(&query.name)) {
        match describe_one(client, query, project, retry()).await {
            Ok(stream) => custom.streams.push(stream),
            Err(error) => custom.failed.push((query.name.clone(), error.in_project(project))),
        }
    }
    custom
}

async fn describe_one(
    client: &Client,
    query: &CustomQuery,
    project: u64,
    retry: Retry,
) -> Result<&'static KeysetStream, Error> {
    let problem = |text: String| Error::config(format!("the custom query `{}` {text}", query.name));
    let text = query_text::check_text(&query.query).map_err(problem)?;
    let query = CustomQuery { query: text.to_owned(), ..query.clone() };
    // A line feed ends a comment that the query may end with.
    let question = Query { text: format!("{text}\nLIMIT 1"), ..Query::default() };
    let described =
        describe_columns(client, project, &question, &Silent, retry).await.map_err(|give_up| match give_up {
            GiveUp::Refused(Refusal { status: 400, detail, .. }) => problem(format!("is refused by PostHog: {detail}")),
            GiveUp::TooLarge { .. } => problem(
                "takes too long for PostHog, even for one row; make it read less, such as fewer days".to_owned(),
            ),
            give_up => give_up.into(),
        })?;
    custom::stream(&query, &described)
}
