//! The streams of the user's own queries, whose columns only the server knows.

use crate::config::Config;
use crate::error::Error;
use crate::posthog::Query;
use crate::posthog::http::{Client, GiveUp, Observer, Refusal, Retry};
use crate::posthog::query::describe;
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

/// Asks a project for the columns of all custom queries.
///
/// # Errors
/// When a query is wrong, with the server's message, or there is no usable response.
pub(super) async fn describe_all(
    client: &Client,
    config: &Config,
    project: u64,
    retry: impl Fn() -> Retry,
    observer: &dyn Observer,
) -> Result<Vec<&'static KeysetStream>, Error> {
    let mut streams = Vec::with_capacity(config.custom_queries.len());
    for query in &config.custom_queries {
        // A line feed ends a comment that the query may end with.
        let text = format!("{}\nLIMIT 1", query.query);
        let question = Query { text, ..Query::default() };
        let described = match describe(client, project, &question, observer, retry()).await {
            Ok(described) => described,
            Err(GiveUp::Refused(Refusal { status: 400, detail, .. })) => {
                return Err(Error::config(format!(
                    "the custom query `{}` is refused by PostHog: {detail}",
                    query.name
                )));
            }
            Err(GiveUp::TooLarge { .. }) => {
                return Err(Error::config(format!(
                    "the custom query `{}` takes too long for PostHog, even for one row; make it read less, such as fewer days",
                    query.name
                )));
            }
            Err(give_up) => return Err(give_up.into()),
        };
        streams.push(custom::stream(query, &described)?);
    }
    Ok(streams)
}
