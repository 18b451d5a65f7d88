//! Reads a list by offsets, until it is complete.

use serde_json::Value;

use super::emitter::Emitter;
use super::listing::{Listing, Verdict, overlapping, step_back};
use crate::error::Error;
use crate::posthog::http::{GiveUp, Refusal};
use crate::posthog::lists::{ListPage, Pages, at_offset, offset};
use crate::records::Object;
use crate::streams::List;
use crate::sync::context::ReadContext;

/// How often a list is read before it counts as not to be read completely.
const ATTEMPTS: u32 = 4;

/// One way through a list.
pub(super) struct Pass {
    /// Query string of the first page.
    pub(super) query: String,
    /// Fields that the server does not send.
    pub(super) labels: Vec<(&'static str, Value)>,
    /// Whether a server that refuses it has nothing of the kind.
    pub(super) optional: bool,
}

/// Reads a pass until it is complete.
///
/// # Errors
/// When it cannot be read, or changes too fast.
pub(super) async fn read_pass(
    context: &ReadContext,
    list: &List,
    pass: &Pass,
    emitter: &mut Emitter,
) -> Result<(), Error> {
    let (mut before, mut problem) = (None, String::new());
    for _ in 0..ATTEMPTS {
        let Some(listing) = read_pages(context, list, pass, emitter).await? else { return Ok(()) };
        match listing.verdict(before.as_ref()) {
            Verdict::Complete => return Ok(()),
            Verdict::Missing(count) => {
                let listed = listing.keys.len();
                tracing::warn!("{listed} {} read but PostHog counts {count}; reading them again", list.stream);
                problem = format!("{listed} objects were received, but PostHog counts {count}");
            }
            Verdict::Unproven => {
                tracing::debug!("{} are read again, because PostHog does not count them", list.stream);
                "each attempt returned different objects".clone_into(&mut problem);
            }
        }
        before = Some(listing);
    }
    Err(Error::system(format!(
        "{} could not be read completely, in {ATTEMPTS} attempts: {problem}. They may be changing right now; the next sync reads them again",
        list.stream
    )))
}

/// Reads the pages of a pass; none if the server has nothing of the kind.
async fn read_pages(
    context: &ReadContext,
    list: &List,
    pass: &Pass,
    emitter: &mut Emitter,
) -> Result<Option<Listing>, Error> {
    let path = format!("api/projects/{}/{}/", context.project, list.path);
    let mut pages = Pages::new(&context.client, path, &context.observer);
    let mut listing = Listing::default();
    let (mut query, mut overlaps, mut steps) = (pass.query.clone(), false, 0);
    loop {
        let ListPage { objects, next, count, .. } = match pages.read(&query).await {
            Ok(page) => page,
            Err(GiveUp::Refused(Refusal { status: 400 | 404, .. })) if pass.optional => return Ok(None),
            Err(give_up) => return Err(give_up.into()),
        };
        listing.count = listing.count.max(count);
        let objects = objects
            .iter()
            .map(|text| Object::read(text).map_err(|problem| Error::system(problem.0)))
            .collect::<Result<Vec<_>, _>>()?;
        let here = offset(&query).unwrap_or(0);
        let is_known = |object: &Object<'_>| listing.keys.contains(&object.key(&list.own_key()));
        if overlaps && here > 0 && !objects.first().is_some_and(is_known) {
            query = at_offset(&query, step_back(here, steps));
            steps += 1;
            continue;
        }
        steps = 0;
        listing.pages += 1;
        let mut batch = context.batch();
        for object in &objects {
            let key = object.key(&list.own_key());
            emitter.emit_once(format!("{:?} {key}", pass.labels), object, &pass.labels, &mut batch);
            listing.keys.insert(key);
        }
        batch.send(true).await?;
        let Some(next) = next else { return Ok(Some(listing)) };
        let there = offset(&next).map(|there| overlapping(here, there));
        overlaps = there != offset(&next);
        query = there.map_or(next.clone(), |there| at_offset(&next, there));
    }
}
