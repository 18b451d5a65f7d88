//! `check`: proves with real requests that the configuration works.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use tokio::time::timeout;

use super::method::ChosenMethod;
use super::projects::project_ids;
use super::read::Account;
use super::read::plan::first_read;
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
use crate::streams::{self, EVENTS, LISTS, List, ORGANIZATIONS, PERSONS, SESSIONS};
use crate::time::days;

/// A user is waiting for the result, so give up earlier than `read` does.
const ATTEMPTS: usize = 4;
/// Whatever PostHog does, the result is printed after this; platforms give a minute.
const LONGEST: Duration = Duration::from_secs(55);
/// Streams that are as large as the project; the first read of the others is short.
const LARGE_STREAMS: [&str; 3] = [EVENTS.stream, PERSONS.stream, SESSIONS.stream];
/// With more projects, the queries that count would take longer than anybody waits.
const MOST_COUNTED: usize = 5;

/// What has been found out so far.
#[derive(Default)]
struct Findings {
    /// What is being asked for.
    question: &'static str,
    /// Projects, by their place.
    projects: BTreeMap<usize, Result<ProjectFindings, Error>>,
    /// Projects of which nothing is known yet, by their place.
    pending: BTreeMap<usize, u64>,
    /// What is not about one project.
    others: Vec<String>,
}

/// What was found out about a project that can be read.
struct ProjectFindings {
    id: u64,
    method: ChosenMethod,
    sentences: Vec<String>,
    /// Why its name is not known, if it is not.
    unnamed: Option<Error>,
    is_queried: bool,
}

/// Prints whether the configuration works: what is wrong and how to fix it, or what was found. Returns whether it does.
pub(super) async fn check(config: &Path, output: &Output) -> Result<bool, Error> {
    let found = verdict(config).await;
    if let Some(details) = found.as_ref().err().and_then(Error::details) {
        tracing::info!("{details}");
    }
    output.message(&Message::ConnectionStatus { connection_status: ConnectionStatus::new(&found) }).await?;
    Ok(found.is_ok())
}

/// What was found, one sentence each.
async fn verdict(config: &Path) -> Result<Vec<String>, Error> {
    let config = configuration::from_file(config).await?;
    if let Some(proxy) = unused_proxy(&config.base_url) {
        tracing::warn!("{proxy} is not used, because `base_url` is on this machine");
    }
    let client = Client::new(&config)?;
    let mut findings = Findings::default();
    match timeout(LONGEST, examine(&config, &client, &mut findings)).await {
        Ok(examined) => examined?,
        Err(_) => findings.end_early(client.limiter().last_failure())?,
    }
    findings.sentences()
}

/// Asks for everything, the most important first.
async fn examine(config: &Config, client: &Client, findings: &mut Findings) -> Result<(), Error> {
    let retry = || Retry::with_attempts(ATTEMPTS);
    findings.question = "what the API key may do";
    let key = ApiKey::fetch(client, retry(), &Silent).await?;
    findings.question = "which projects the API key can see";
    let ids = project_ids(client, config, key.as_ref(), retry, &Silent).await?;
    findings.question = "for the events of the last day";
    findings.pending = ids.iter().copied().enumerate().collect();
    let examined = ids.iter().copied().enumerate();
    let mut examined: FuturesUnordered<_> = examined
        .map(|(place, id)| examine_project(config, client, key.as_ref(), id).map(move |found| (place, found)))
        .collect();
    while let Some((place, project)) = examined.next().await {
        findings.pending.remove(&place);
        findings.projects.insert(place, project);
    }
    drop(examined);
    findings.fail_if_a_project_does()?;
    if let Some(key) = &key {
        let missing: Vec<String> = streams::all_lists()
            .map(|list| (list.stream, list.scope))
            .chain([(ORGANIZATIONS.stream, ORGANIZATIONS.scope)])
            .filter(|(_, scope)| !key.may(scope))
            .map(|(stream, scope)| format!("{stream} (`{scope}`)"))
            .collect();
        if !missing.is_empty() {
            findings.others.push(format!("the API key lacks the scopes of these streams: {}", missing.join(", ")));
        }
    }
    findings.question = "for what the configuration names";
    let queried: Vec<u64> =
        findings.readable().filter(|project| project.is_queried).map(|project| project.id).collect();
    let notices = nothing_found(client, config, key.as_ref(), &ids, &queried).await;
    findings.others.extend(notices);
    findings.question = "how much there is to read";
    if queried.len() == ids.len() && ids.len() <= MOST_COUNTED {
        let methods = findings.readable().map(|project| (project.id, Ok(project.method.clone()))).collect();
        log_first_read(config, client, Account { key, methods }).await;
    } else {
        tracing::info!("run `source-posthog plan` to see how long the first read takes, and what it may cost");
    }
    Ok(())
}

/// Says how long the first read takes, and what it may cost.
async fn log_first_read(config: &Config, client: &Client, account: Account) {
    match first_read(config, client, account, &LARGE_STREAMS).await {
        Ok(sentences) => sentences.iter().for_each(|sentence| tracing::info!("{sentence}")),
        Err(error) => tracing::info!("how long the first read takes could not be found out: {error}"),
    }
}

/// What a project has, and how it is read.
async fn examine_project(
    config: &Config,
    client: &Client,
    key: Option<&ApiKey>,
    id: u64,
) -> Result<ProjectFindings, Error> {
    let retry = || Retry::with_attempts(ATTEMPTS);
    let in_project = |error: Error| error.in_project(id);
    let mut sentences = Vec::new();
    let method = method::choose(client, config, key, id, retry(), &Silent).await.map_err(in_project)?;
    if let Some(list) = other_streams(config, key).filter(|_| !method.is_export()) {
        try_list(client, id, list).await.map_err(in_project)?;
        sentences.push(format!(
            "project {id}: events and the other streams that come from queries cannot be read, because the API key lacks the scope `{QUERY_SCOPE}`"
        ));
        return Ok(ProjectFindings { id, method, sentences, unnamed: None, is_queried: false });
    }
    let rows = match events_of_a_day(client, id).await {
        Ok(rows) => format!("{rows} events of the last 24 hours"),
        // Exports need no query; without one, they are not compared with PostHog's count.
        Err(error) if method.is_export() && error.failure_type() == FailureType::Config => {
            format!("an unknown number of events ({error})")
        }
        Err(error) => return Err(in_project(error)),
    };
    let is_queried = key.is_none_or(|key| key.may(QUERY_SCOPE));
    if config.event_filter.is_some() {
        let count = event_filter::count_of_a_day(client, config, id, retry()).await.map_err(in_project)?;
        sentences
            .extend(count.map(|count| {
                format!("project {id}: {count} of the events of the last 24 hours fulfil `event_filter`")
            }));
        if method.is_export() {
            sentences.push(event_filter::BY_QUERY.to_owned());
        }
    }
    let custom = custom_queries::describe(client, config, id, |_| true, retry).await;
    if let Some((_, error)) = custom.failed.into_iter().next() {
        return Err(error);
    }
    let (name, unnamed) = match account::project(client, id, retry(), &Silent).await {
        Ok(project) => {
            let hidden = retention::notice(&project, config.start, client.now());
            sentences.extend(hidden.map(|notice| format!("{project}: {notice}")));
            (project.to_string(), None)
        }
        Err(error) => (format!("project {id}"), Some(Error::from(error))),
    };
    sentences.push(format!("{name} will be read by {method} and has {rows}"));
    if method.is_export() && !method::is_posthog_cloud(client.base()) {
        sentences.push(
            "outside of PostHog Cloud, file exports are tried with a short first run; where they do not work, queries are used"
                .to_owned(),
        );
    }
    Ok(ProjectFindings { id, method, sentences, unnamed, is_queried })
}

impl Findings {
    /// The projects that can be read.
    fn readable(&self) -> impl Iterator<Item = &ProjectFindings> {
        self.projects.values().filter_map(|project| project.as_ref().ok())
    }

    /// The failure of the first project that has one.
    fn fail_if_a_project_does(&self) -> Result<(), Error> {
        self.projects.values().find_map(|project| project.as_ref().err()).map_or(Ok(()), |error| Err(error.clone()))
    }

    /// Time is up. What has been found out counts, if that is anything.
    fn end_early(&mut self, last_failure: Option<String>) -> Result<(), Error> {
        self.fail_if_a_project_does()?;
        let failure = last_failure.map(|failure| format!("; the last failure was: {failure}")).unwrap_or_default();
        let pending: Vec<String> = self.pending.values().map(ToString::to_string).collect();
        let of = if pending.is_empty() { String::new() } else { format!(" of the projects {}", pending.join(", ")) };
        let (seconds, question) = (LONGEST.as_secs(), format!("{}{of}{failure}", self.question));
        if self.projects.is_empty() {
            return Err(Error::transient(format!(
                "PostHog has not answered within {seconds} s when it was asked {question}. Try again later, and see whether `base_url` is right"
            )));
        }
        self.others.push(format!("PostHog has not answered within {seconds} s when it was asked {question}"));
        Ok(())
    }

    /// Everything that was found out.
    fn sentences(self) -> Result<Vec<String>, Error> {
        let (mut found, mut unnamed) = (Vec::new(), None);
        for project in self.projects.into_values() {
            let project = project?;
            found.extend(project.sentences);
            unnamed = project.unnamed.or(unnamed);
        }
        found.extend(unnamed.map(|error| format!("the stream `projects` cannot be read: {error}")));
        found.extend(self.others);
        Ok(found)
    }
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
