//! Pages of the list endpoints (`GET /api/projects/:id/<list>/`).
//!
//! There is no one envelope: most lists answer with `{"count", "next", "results"}`, some without a
//! count, session recordings with `has_next`, group types with a bare array, and old versions of
//! `actions` with all objects and no `next` at all. The envelope alone determines where a list ends;
//! the number of objects never does, since a server may have a lower limit than was asked for.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::posthog::AtMost;
use crate::posthog::http::{Class, Client, GiveUp, Observer};
use crate::posthog::turn::Turn;

/// Objects asked for per page.
pub const PAGE: usize = 100;

/// The objects of a page. Old versions of PostHog answer with all there are, whatever they are asked for.
type Objects = AtMost<100_000, Box<RawValue>>;

#[derive(Debug)]
pub struct ListPage {
    /// The objects as JSON texts.
    pub objects: Vec<Box<RawValue>>,
    /// Query string of the page that follows; none at the end.
    pub next: Option<String>,
    /// Number of objects in the whole list, if the server reports it.
    pub count: Option<u64>,
    /// What the parameter `after` takes to go on behind the last object, if the server can.
    pub cursor: Option<String>,
    /// For as long as something of a large page is held.
    pub turn: Turn,
}

/// Reads the pages of one list, one after the other.
pub struct Pages<'a> {
    client: &'a Client,
    observer: &'a dyn Observer,
    path: String,
    class: Class,
    seen: HashSet<String>,
    /// Most objects asked for per page: fewer after a page that was too large.
    limit: usize,
}

#[derive(Deserialize)]
struct Envelope {
    results: Objects,
    #[serde(default)]
    next: Option<String>,
    #[serde(default)]
    has_next: bool,
    #[serde(default)]
    next_cursor: Option<String>,
    #[serde(default)]
    count: Option<u64>,
}

impl<'a> Pages<'a> {
    /// The list at `path`, such as `api/projects/1/annotations/`.
    pub fn new(client: &'a Client, path: String, observer: &'a dyn Observer) -> Self {
        let class = if path.ends_with("/session_recordings/") { Class::Recordings } else { Class::General };
        Self { client, observer, path, class, seen: HashSet::new(), limit: PAGE }
    }

    /// Reads the page with this query string.
    ///
    /// # Errors
    /// When the server does not answer usefully, or its list leads in circles.
    pub async fn read(&mut self, query: &str) -> Result<ListPage, GiveUp> {
        self.seen.insert(query.to_owned());
        let (json, turn) = self.text(query).await?;
        let unusable = |error| GiveUp::Unusable(format!("PostHog's response to {} is not a list: {error}", self.path));
        if json.trim_ascii_start().starts_with(b"[") {
            let Objects { 0: objects } = serde_json::from_slice(&json).map_err(unusable)?;
            return Ok(ListPage { objects, next: None, count: None, cursor: None, turn });
        }
        let envelope: Envelope = serde_json::from_slice(&json).map_err(unusable)?;
        drop(json);
        let next = match envelope.next {
            Some(link) => Some(self.follow(&link)?),
            None if envelope.has_next => Some(advance(query, envelope.results.len()).ok_or_else(|| {
                GiveUp::Unusable(format!(
                    "PostHog announces another page of {}, but the current one is empty",
                    self.path
                ))
            })?),
            None => None,
        };
        let leads_back = |next: &str| match (offset(query), offset(next)) {
            (Some(here), Some(there)) => there <= here,
            _ => self.seen.contains(next),
        };
        if let Some(next) = next.as_ref().filter(|next| leads_back(next)) {
            return Err(GiveUp::Unusable(format!(
                "PostHog's list {} repeats itself: its page refers to `{next}` once more; try again later",
                self.path
            )));
        }
        let Envelope { results, count, next_cursor: cursor, .. } = envelope;
        Ok(ListPage { objects: results.0, next, count, cursor, turn })
    }

    /// The response to a query string, with as few objects as it takes for a page to be neither too large nor too
    /// slow.
    async fn text(&mut self, query: &str) -> Result<(Vec<u8>, Turn), GiveUp> {
        loop {
            let path = format!("{}?{}", self.path, at_most(query, self.limit));
            let retry = self.client.retry();
            match self.client.get_text(self.class, &path, retry, self.observer).await {
                Err(GiveUp::TooLarge { message }) if self.limit > 1 && query.contains("limit=") => {
                    self.limit /= 2;
                    tracing::info!("a page of {} has at most {} objects from now on: {message}", self.path, self.limit);
                }
                answer => return answer,
            }
        }
    }

    /// Reads all pages from the one with this query string on, and hands over their objects. Returns the highest
    /// number of objects that a page reports, if any does.
    ///
    /// # Errors
    /// Those of [`Pages::read`] and of `take`.
    pub async fn each(
        &mut self,
        first: String,
        mut take: impl FnMut(&RawValue) -> Result<(), GiveUp>,
    ) -> Result<Option<u64>, GiveUp> {
        let (mut next, mut count) = (Some(first), None);
        while let Some(query) = next {
            let page = self.read(&query).await?;
            page.objects.iter().try_for_each(|object| take(object))?;
            count = count.max(page.count);
            next = page.next;
        }
        Ok(count)
    }

    /// The query string of a link to the next page. Only that is used, on the configured host: an instance
    /// often does not know by which name, port or scheme it is reached, and the key must not go elsewhere.
    fn follow(&self, link: &str) -> Result<String, GiveUp> {
        let base = self.client.base();
        let (place, query) = link.split('#').next().unwrap_or(link).split_once('?').unwrap_or((link, ""));
        if query.is_empty() {
            return Err(GiveUp::Unusable(format!(
                "PostHog's list {} links to its next page without any parameters; try again later",
                self.path
            )));
        }
        let origin = base.join(place).ok().map(|url| url.origin());
        if origin.as_ref().is_none_or(|origin| *origin != base.origin()) && !FOREIGN_LINKS.swap(true, Ordering::Relaxed)
        {
            let host = origin.map_or_else(|| "an unreadable host".to_owned(), |origin| origin.ascii_serialization());
            tracing::info!(
                "PostHog's lists link to {host} for their next pages; these are requested from `base_url` instead"
            );
        }
        Ok(query.to_owned())
    }
}

/// Whether it has been said that links name another host.
static FOREIGN_LINKS: AtomicBool = AtomicBool::new(false);

/// The query string with its offset moved on.
fn advance(query: &str, by: usize) -> Option<String> {
    (by > 0).then(|| at_offset(query, offset(query).unwrap_or(0).saturating_add(by)))
}

/// The offset of a query string, if it has one.
pub fn offset(query: &str) -> Option<usize> {
    query.split('&').find_map(|pair| pair.strip_prefix("offset="))?.parse().ok()
}

/// The query string with a limit no higher than this.
fn at_most(query: &str, limit: usize) -> String {
    let lowered = query.split('&').map(|pair| {
        let asked = pair.strip_prefix("limit=").and_then(|asked| asked.parse::<usize>().ok());
        if asked.is_some_and(|asked| asked > limit) { format!("limit={limit}") } else { pair.to_owned() }
    });
    lowered.collect::<Vec<_>>().join("&")
}

/// The query string with another offset.
pub fn at_offset(query: &str, offset: usize) -> String {
    let others = query.split('&').filter(|pair| !pair.is_empty() && !pair.starts_with("offset="));
    others.map(str::to_owned).chain([format!("offset={offset}")]).collect::<Vec<_>>().join("&")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offset_advances_by_the_objects_received() {
        assert_eq!(advance("limit=100&offset=0&a=b", 50).as_deref(), Some("limit=100&a=b&offset=50"));
        assert_eq!(advance("limit=100", 50).as_deref(), Some("limit=100&offset=50"));
        assert_eq!(advance("offset=50", 0), None);
    }

    #[test]
    fn limits_are_only_lowered() {
        assert_eq!(at_most("limit=100&offset=50&rate_limit=100", 25), "limit=25&offset=50&rate_limit=100");
        assert_eq!(at_most("limit=10&offset=50", 25), "limit=10&offset=50");
    }
}
