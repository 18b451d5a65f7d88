//! Which projects are read.

use crate::config::Config;
use crate::error::Error;
use crate::posthog::account::{ApiKey, list_projects};
use crate::posthog::http::{Client, Observer, Retry};

/// The numbers of the projects to read: those configured, or all that the key can see. `key` is what
/// is known about it.
///
/// # Errors
/// When they cannot be listed, or there are none.
pub(super) async fn project_ids(
    client: &Client,
    config: &Config,
    key: Option<&ApiKey>,
    retry: impl Fn() -> Retry,
    observer: &dyn Observer,
) -> Result<Vec<u64>, Error> {
    if let Some(ids) = &config.project_ids {
        return Ok(ids.clone());
    }
    if let Some(key) = key {
        let scoped = key.scoped_teams.clone().unwrap_or_default().0;
        if !scoped.is_empty() {
            return Ok(scoped);
        }
        if !key.may("project:read") {
            return Err(Error::config(
                "the API key lacks the scope `project:read`, so its projects cannot be listed; add the scope, or set `project_ids`",
            ));
        }
    }
    let ids = list_projects(client, &retry, observer).await?;
    if ids.is_empty() {
        return Err(Error::config("the API key can see no project; give it access to one, or use another key"));
    }
    Ok(ids)
}
