//! Which way the tables of a project are read, and why.

use std::fmt;

use url::Url;

use crate::config::{Config, MethodChoice};
use crate::error::Error;
use crate::posthog::account::ApiKey;
use crate::posthog::exports::{Availability, Exports, SCOPE};
use crate::posthog::http::{Client, Observer, Retry};

/// The method of one project.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum ChosenMethod {
    /// File download exports.
    Export {
        /// Whether `auto` has chosen them.
        automatic: bool,
    },
    /// Queries, and why `auto` has chosen them, if it has.
    Query(Option<String>),
}

impl ChosenMethod {
    /// Whether `auto` has chosen exports.
    pub(super) fn is_automatic(&self) -> bool {
        matches!(self, Self::Export { automatic: true })
    }

    /// Whether files are exported.
    pub(super) fn is_export(&self) -> bool {
        matches!(self, Self::Export { .. })
    }
}

impl fmt::Display for ChosenMethod {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Export { automatic } => {
                let chosen = if *automatic { "chosen by `auto`; " } else { "" };
                write!(formatter, "file exports ({chosen}PostHog may bill exported rows)")
            }
            Self::Query(None) => formatter.write_str("queries"),
            Self::Query(Some(reason)) => write!(formatter, "queries (chosen by `auto`: {reason})"),
        }
    }
}

/// Whether exports are known to work: on PostHog Cloud they do. The endpoint exists on every instance of
/// 2026, but elsewhere runs may never end, for want of a bucket, or never start, for want of Temporal.
pub(super) fn is_posthog_cloud(base: &Url) -> bool {
    matches!(base.host_str(), Some("us.posthog.com" | "eu.posthog.com"))
}

/// Finds out how a project can be read. `key` is what is known about it.
///
/// # Errors
/// When exports are configured but impossible, or there is no usable response.
pub(super) async fn choose(
    client: &Client,
    config: &Config,
    key: Option<&ApiKey>,
    project: u64,
    retry: Retry,
    observer: &dyn Observer,
) -> Result<ChosenMethod, Error> {
    let choice = config.method.choice;
    if choice == MethodChoice::Query {
        return Ok(ChosenMethod::Query(None));
    }
    let availability = if key.is_some_and(|key| !key.may(SCOPE)) {
        Availability::MissingScope
    } else {
        Exports::new(client, project, observer).availability(retry).await?
    };
    let reason = match availability {
        Availability::Available => return Ok(ChosenMethod::Export { automatic: choice == MethodChoice::Auto }),
        Availability::Missing => "this PostHog has no file download exports".to_owned(),
        Availability::MissingScope => format!("the API key lacks the scope `{SCOPE}`"),
        Availability::Forbidden(words) => format!("PostHog does not allow file download exports here: {words}"),
    };
    if choice == MethodChoice::Auto {
        return Ok(ChosenMethod::Query(Some(reason)));
    }
    Err(Error::config(format!(
        "`method` is `export`, but {}; set `method` to `auto` or `query`",
        reason.trim_end_matches('.')
    )))
}
