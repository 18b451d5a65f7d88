//! `check`: proves with real requests that the configuration works.

use std::path::Path;

use super::projects::project_ids;
use super::{configuration, custom_queries, event_filter, method, retention, unmatched};
use crate::config::Config;
use crate::error::{Error, FailureType};
use crate::net::unused_proxy;
use crate::posthog::Predicate;
use crate::posthog::account::{self, ApiKey, QUERY_SCOPE};
use crate::posthog::http::{Client, GiveUp, Retry, Silent};
use crate::posthog::lists::Pages;
use crate::posthog::query::small_with_retry;
use crate::protocol::message::ConnectionStatus;
use crate::protocol::{Message, Output};
use crate::streams::{self, EVENTS, LISTS, List, ORGANIZATIONS};
use crate::time::days;

/// A user is waiting for the result, so give up earlier than `read` does.
const ATTEMPTS: usize = 4;

/// Prints whether the configuration works: what is wrong and how to fix it, or what was found. Returns whether it does.
pub(super) async fn check(config: &Path, output: &Output) -> Result<bool, Error> {
    let found = examine(config).await;
    if let Some(details) = found.as_ref().err().and_then(Error::details) {
        tracing::info!("{details}");
    }
    output.message(&Message::ConnectionStatus { connection_status: ConnectionStatus::new(&found) }).await?;
    Ok(found.is_ok())
}

/// What was found, one sentence each.
async fn examine(config: &Path) -> Result<Vec<String>, Error> {
    let config = configuration::from_file(config).await?;
    if let Some(proxy) = unused_proxy(&config.base_url) {
        tracing::warn!("{proxy} is not used, because `base_url` is on this machine");
    }
    let client = Client::new(&config)?;
    let retry = || Retry::with_attempts(ATTEMPTS);
    let key = ApiKey::fetch(&client, retry(), &Silent).await?;
    let ids = project_ids(&client, &config, key.as_ref(), retry, &Silent).await?;
    let mut found = Vec::new();
    let mut unnamed = None;
    let mut queried = Vec::new();
    for id in ids.iter().copied() {
        let in_project = |error: Error| error.in_project(id);
        let method = method::choose(&client, &config, key.as_ref(), id, retry(), &Silent).await.map_err(in_project)?;
        if let Some(list) = other_streams(&config, key.as_ref()).filter(|_| !method.is_export()) {
            try_list(&client, id, list).await.map_err(in_project)?;
            found.push(format!(
                "project {id}: events and the other streams that come from queries cannot be read, because the API key lacks the scope `{QUERY_SCOPE}`"
            ));
            continue;
        }
        let rows = match events_of_a_day(&client, id).await {
            Ok(rows) => format!("{rows} events of the last 24 hours"),
            // Exports need no query; without one, they are not compared with PostHog's count.
            Err(error) if method.is_export() && error.failure_type() == FailureType::Config => {
                format!("an unknown number of events ({error})")
            }
            Err(error) => return Err(in_project(error)),
        };
        if key.as_ref().is_none_or(|key| key.may(QUERY_SCOPE)) {
            queried.push(id);
        }
        if config.event_filter.is_some() {
            let count = event_filter::count_of_a_day(&client, &config, id, retry()).await.map_err(in_project)?;
            found.extend(count.map(|count| {
                format!("project {id}: {count} of the events of the last 24 hours fulfil `event_filter`")
            }));
            if method.is_export() {
                found.push(event_filter::BY_QUERY.to_owned());
            }
        }
        let custom = custom_queries::describe(&client, &config, id, |_| true, retry).await;
        if let Some((_, error)) = custom.failed.into_iter().next() {
            return Err(error);
        }
        let name = match account::project(&client, id, retry(), &Silent).await {
            Ok(project) => {
                let hidden = retention::notice(&project, config.start, client.now());
                found.extend(hidden.map(|notice| format!("{project}: {notice}")));
                project.to_string()
            }
            Err(error) => {
                unnamed = Some(Error::from(error));
                format!("project {id}")
            }
        };
        found.push(format!("{name} will be read by {method} and has {rows}"));
        if method.is_export() && !method::is_posthog_cloud(client.base()) {
            found.push(
                "outside of PostHog Cloud, file exports are tried with a short first run; where they do not work, queries are used"
                    .to_owned(),
            );
        }
    }
    if let Some(error) = unnamed {
        found.push(format!("the stream `projects` cannot be read: {error}"));
    }
    if let Some(key) = &key {
        let missing: Vec<String> = streams::all_lists()
            .map(|list| (list.stream, list.scope))
            .chain([(ORGANIZATIONS.stream, ORGANIZATIONS.scope)])
            .filter(|(_, scope)| !key.may(scope))
            .map(|(stream, scope)| format!("{stream} (`{scope}`)"))
            .collect();
        if !missing.is_empty() {
            found.push(format!("the API key lacks the scopes of these streams: {}", missing.join(", ")));
        }
    }
    found.extend(nothing_found(&client, &config, key.as_ref(), &ids, &queried).await);
    Ok(found)
}

/// What the configuration asks for and PostHog does not have.
async fn nothing_found(
    client: &Client,
    config: &Config,
    key: Option<&ApiKey>,
    projects: &[u64],
    queried: &[u64],
) -> Vec<String> {
    let mut notices = Vec::from_iter(unmatched::future_start(config, client.now()));
    if notices.is_empty() && queried.len() == projects.len() {
        notices.extend(unmatched::events(client, config, queried, &Silent).await);
    }
    notices.extend(unmatched::properties(client, config, key, projects, &Silent).await);
    notices
}

/// A key that lacks the scope for queries is of use if it may read other streams: one of those.
fn other_streams(config: &Config, key: Option<&ApiKey>) -> Option<&'static List> {
    let key = key.filter(|key| !key.may(QUERY_SCOPE) && config.custom_queries.is_empty())?;
    LISTS.iter().find(|list| key.may(list.scope))
}

/// A cheap request that proves that the key may read the project.
async fn try_list(client: &Client, project: u64, list: &List) -> Result<(), Error> {
    let path = format!("api/projects/{project}/{}/", list.path);
    Pages::new(client, path, &Silent).read("limit=1&offset=0").await?;
    Ok(())
}

/// A cheap query that needs the same scope and the same access as reading.
async fn events_of_a_day(client: &Client, project: u64) -> Result<u64, Error> {
    let now = client.now();
    let mut predicate = Predicate::default();
    predicate.range(EVENTS.sort_key, now.minus(days(1)), now);
    let query = predicate.select("count()", EVENTS.from, "LIMIT 1");
    let retry = Retry::with_attempts(ATTEMPTS);
    let response = match small_with_retry::<(u64,)>(client, project, &query, &Silent, retry).await {
        Ok(response) => response.rows.first().map(|row| row.0),
        Err(GiveUp::TooLarge { .. }) => None,
        Err(give_up) => return Err(give_up.into()),
    };
    response.ok_or_else(|| Error::transient("PostHog could not count the events of one day; try again later"))
}
