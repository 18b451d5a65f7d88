//! The messages for the user when `PostHog` refuses a request or the connector gives up.

use crate::error::Error;
use crate::posthog::http::{GiveUp, LONGEST_THROTTLING, Reason, Refusal};

impl From<GiveUp> for Error {
    fn from(give_up: GiveUp) -> Self {
        match give_up {
            GiveUp::Fatal(error) => error,
            GiveUp::Refused(refusal) => refused(&refusal),
            GiveUp::TooLarge { message } => {
                Self::transient(format!("PostHog cannot answer in time; try again later ({message})"))
            }
            GiveUp::Attempts { attempts, last } => Self::transient(format!(
                "gave up after {attempts} attempts; last error from PostHog: {last}"
            )),
            GiveUp::Limits { message } => Self::transient(format!(
                "PostHog has refused every request for {} hours because of its limits; sync less often, or lower `concurrency` and `rate_limit_share`",
                LONGEST_THROTTLING.as_secs() / 3_600
            ))
            .with_details(message),
            GiveUp::Unusable(problem) => Self::system(problem),
        }
    }
}

/// The meaning of a refusal, and what to do about it.
fn refused(refusal: &Refusal) -> Error {
    let Refusal { reason, summary, path, .. } = refusal;
    let error = match reason {
        Reason::InvalidKey => Error::config(format!(
            "PostHog does not accept the API key: it is wrong, revoked or from another region; check `api_key`, and that `base_url` is the region (us or eu) or the instance of that key ({summary})"
        )),
        Reason::Billing => Error::config(format!("PostHog refuses because of billing or a quota: {summary}")),
        Reason::MissingScope(scope) => Error::config(format!(
            "the API key lacks the scope `{scope}`; add it in PostHog under Settings > Personal API keys"
        )),
        Reason::NoProjectAccess => {
            Error::config("the API key has no access to the project; check `project_ids`, or give the key access to it")
        }
        Reason::LimitedToProjects => {
            Error::config("the API key is limited to some projects and cannot list them; set `project_ids`")
        }
        Reason::Forbidden => Error::config(format!("PostHog forbids it: {summary}")),
        Reason::NotFound => match list_of(path) {
            Some(list) => Error::config(format!(
                "PostHog has no list `{list}` of the project: this version of PostHog lacks it, or there is no such project; leave the stream out, or check `project_ids` and `base_url`"
            )),
            None => Error::config(
                "PostHog does not know the project; check `project_ids` and that `base_url` is the right region",
            ),
        },
        Reason::NotPostHog => {
            Error::config(format!("the response does not come from PostHog's API; check `base_url` ({summary})"))
        }
        Reason::Proxy => Error::config(crate::net::proxy_refusal()),
        Reason::UnknownColumn(column) => Error::config(format!(
            "PostHog does not know `{column}` ({summary}); correct it if it is in a custom query, otherwise leave the stream out"
        )),
        Reason::UnknownTable(_)
        | Reason::UnknownModifier
        | Reason::InvalidQuery
        | Reason::IntervalTooLong
        | Reason::IntervalInFuture
        | Reason::TooManyRuns
        | Reason::InvalidRequest
        | Reason::Other => Error::system(format!("PostHog rejects the request: {summary}")),
    };
    error.with_details(format!("{path}: {summary}"))
}

/// The list of a project that a path leads to.
fn list_of(path: &str) -> Option<&str> {
    let mut segments = path.split(['/', '?']).filter(|segment| !segment.is_empty());
    segments.find(|segment| matches!(*segment, "projects" | "environments"))?;
    segments.nth(1).filter(|name| !matches!(*name, "query" | "file_download_batch_exports"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_that_is_not_there_is_no_unknown_project() {
        let message = |path: &str| {
            let (detail, summary, path) = (String::new(), "404".to_owned(), path.to_owned());
            let refusal = Refusal { status: 404, reason: Reason::NotFound, detail, summary, path };
            Error::from(GiveUp::Refused(refusal)).message().to_owned()
        };
        assert!(message("/api/projects/7/surveys/?limit=100").contains("no list `surveys`"));
        for path in ["/api/projects/7/query/", "/api/projects/7/", "/api/environments/7/file_download_batch_exports/"] {
            assert!(message(path).contains("does not know the project"), "{path}");
        }
    }

    #[test]
    fn sentence_names_the_missing_scope() {
        let refusal = Refusal {
            status: 403,
            reason: Reason::MissingScope("query:read".to_owned()),
            detail: String::new(),
            summary: "403".to_owned(),
            path: "/".to_owned(),
        };
        assert!(Error::from(GiveUp::Refused(refusal)).message().contains("scope `query:read`"));
    }
}
