//! What a key may do and which projects it can see.

use std::collections::HashSet;

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::posthog::AtMost;
use crate::posthog::http::{Client, GiveUp, Observer, Refusal, Retry};
use crate::time::Timestamp;

/// Entries asked for per page of the project list.
const PAGE: usize = 100;

/// The scope of queries.
pub const QUERY_SCOPE: &str = "query:read";

/// `GET /api/personal_api_keys/@current/`.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct ApiKey {
    /// Scopes such as `query:read`; absent for keys from before scopes, which may do everything.
    #[serde(default)]
    pub scopes: Option<AtMost<1_000, String>>,
    /// Projects that the key is limited to; empty for all.
    #[serde(default)]
    pub scoped_teams: Option<AtMost<100_000, u64>>,
}

impl ApiKey {
    /// Asks the instance about its own key. Old instances do not answer; then nothing is known.
    ///
    /// # Errors
    /// When the key is not accepted or the instance does not answer.
    pub async fn fetch(client: &Client, retry: Retry, observer: &dyn Observer) -> Result<Option<Self>, GiveUp> {
        match client.get("api/personal_api_keys/@current/", retry, observer).await {
            Ok(key) => Ok(Some(key)),
            // Missing, or not meant for keys.
            Err(GiveUp::Refused(Refusal { status: 403..=405, .. })) => Ok(None),
            Err(give_up) => Err(give_up),
        }
    }

    /// Returns true unless the key is known to lack the scope. Writing includes reading.
    pub fn may(&self, scope: &str) -> bool {
        let Some(scopes) = self.scopes.as_ref().filter(|scopes| !scopes.is_empty()) else { return true };
        let write = scope.replace(":read", ":write");
        scopes.iter().any(|known| known == "*" || known == scope || *known == write)
    }
}

/// A project, with the fields that this connector uses.
#[derive(Debug, Clone)]
pub struct Project {
    /// Number of the project.
    pub id: u64,
    /// Name, for messages.
    pub name: String,
    /// When it was made.
    pub created_at: Option<Timestamp>,
    /// The whole object as the API returns it.
    pub json: Box<RawValue>,
}

impl std::fmt::Display for Project {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "project {} ({})", self.id, self.name)
    }
}

#[derive(Deserialize)]
struct ProjectPage {
    #[serde(default)]
    next: Option<String>,
    results: AtMost<10_000, Box<RawValue>>,
}

/// An entry of the list of projects.
#[derive(Deserialize)]
struct Listed {
    id: u64,
}

/// Pages through `GET /api/projects/`. Only the numbers of `next` are trusted, not its host.
///
/// # Errors
/// When they cannot be listed.
pub async fn list_projects(
    client: &Client,
    retry: &impl Fn() -> Retry,
    observer: &dyn Observer,
) -> Result<Vec<u64>, GiveUp> {
    let (mut ids, mut seen) = (Vec::new(), HashSet::new());
    let mut offset = 0;
    loop {
        let path = format!("api/projects/?limit={PAGE}&offset={offset}");
        let page: ProjectPage = client.get(&path, retry(), observer).await?;
        offset += page.results.len();
        let ids_of_page = page.results.iter().filter_map(|entry| serde_json::from_str::<Listed>(entry.get()).ok());
        let fresh: Vec<u64> = ids_of_page.map(|project| project.id).filter(|id| seen.insert(*id)).collect();
        if page.next.is_none() {
            ids.extend(fresh);
            return Ok(ids);
        }
        if fresh.is_empty() {
            return Err(GiveUp::Unusable(
                "PostHog's list of projects repeats itself; set `project_ids` instead".to_owned(),
            ));
        }
        ids.extend(fresh);
    }
}

/// `GET /api/projects/:id/`: the whole object.
///
/// # Errors
/// When the project does not exist or the key may not see it.
pub async fn project(client: &Client, id: u64, retry: Retry, observer: &dyn Observer) -> Result<Project, GiveUp> {
    #[derive(Deserialize)]
    struct Named {
        name: Option<String>,
        #[serde(default)]
        created_at: Option<Box<RawValue>>,
    }
    let json: Box<RawValue> = client.get(&format!("api/projects/{id}/"), retry, observer).await?;
    let named: Named = serde_json::from_str(json.get())
        .map_err(|error| GiveUp::Unusable(format!("the description of project {id} is not usable: {error}")))?;
    let created_at = named.created_at.and_then(|instant| Timestamp::parse_json(instant.get()));
    Ok(Project { id, name: named.name.unwrap_or_default(), created_at, json })
}
