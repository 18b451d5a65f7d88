//! Reads a list by offsets, until it is complete.

use serde_json::value::RawValue;

use super::listing::{Listing, Verdict, overlapping, step_back};
use crate::error::Error;
use crate::posthog::http::{GiveUp, Refusal};
use crate::posthog::lists::{ListPage, Pages, at_offset, offset};
use crate::posthog::turn::Turn;
use crate::records::Object;
use crate::sync::context::ReadContext;

/// How often a list is read before it counts as not to be read completely.
const ATTEMPTS: u32 = 4;

/// An object of a list.
pub(super) struct Listed {
    /// Values of its key, joined.
    pub(super) key: String,
    pub(super) text: Box<RawValue>,
}

/// A list that is read by offsets.
pub(super) struct OffsetList {
    /// What is listed, for messages.
    pub(super) name: &'static str,
    pub(super) path: String,
    /// Fields that identify an object.
    pub(super) key: Vec<&'static str>,
    /// Query string of the first page.
    pub(super) first: String,
    /// Whether a server that refuses the list has nothing of the kind.
    pub(super) is_optional: bool,
}

/// A way through a list, page by page and as often as it takes.
pub(super) struct Offsets<'c> {
    context: &'c ReadContext,
    list: OffsetList,
    pages: Pages<'c>,
    /// The page that is read next; none at the end of a listing.
    next: Option<Next>,
    listing: Listing,
    /// The listing before this one.
    before: Option<Listing>,
    attempts: u32,
    /// For what the caller has of a large page.
    turn: Turn,
}

struct Next {
    query: String,
    /// Whether it has to begin with an object that has been seen.
    overlaps: bool,
}

impl<'c> Offsets<'c> {
    /// The way through a list from its first page on.
    pub(super) fn new(context: &'c ReadContext, list: OffsetList) -> Self {
        let pages = Pages::new(&context.client, list.path.clone(), &context.observer);
        let next = Some(Next { query: list.first.clone(), overlaps: false });
        Self {
            context,
            list,
            pages,
            next,
            listing: Listing::default(),
            before: None,
            attempts: 1,
            turn: Turn::default(),
        }
    }

    /// The objects of the next page, of which some may have come before; none when the list is complete.
    ///
    /// # Errors
    /// When it cannot be read, or changes too fast.
    pub(super) async fn next(&mut self) -> Result<Option<Vec<Listed>>, Error> {
        // What the caller had has been written.
        self.turn = Turn::default();
        if self.next.is_none() && !self.is_read_again()? {
            return Ok(None);
        }
        let mut steps = 0;
        while let Some(Next { query, overlaps }) = self.next.take() {
            let ListPage { objects, next, count, turn, .. } = match self.pages.read(&query).await {
                Ok(page) => page,
                Err(GiveUp::Refused(Refusal { status: 400 | 404, .. })) if self.list.is_optional => return Ok(None),
                Err(give_up) => return Err(give_up.into()),
            };
            self.listing.count = self.listing.count.max(count);
            let objects: Vec<Listed> =
                objects.into_iter().map(|text| Listed::read(text, &self.list.key)).collect::<Result<_, _>>()?;
            let here = offset(&query).unwrap_or(0);
            let is_known = |object: &Listed| self.listing.keys.contains(&object.key);
            if overlaps && here > 0 && !objects.first().is_some_and(is_known) {
                let query = at_offset(&query, step_back(here, steps));
                self.next = Some(Next { query, overlaps });
                steps += 1;
                continue;
            }
            self.turn = turn;
            self.listing.pages += 1;
            self.listing.keys.extend(objects.iter().map(|object| object.key.clone()));
            self.next = next.map(|next| {
                let there = offset(&next).map(|there| overlapping(here, there));
                let overlaps = there != offset(&next);
                Next { query: there.map_or(next.clone(), |there| at_offset(&next, there)), overlaps }
            });
            return Ok(Some(objects));
        }
        Ok(None)
    }

    /// At the end of a listing, begins another one unless the list is complete.
    fn is_read_again(&mut self) -> Result<bool, Error> {
        let name = self.list.name;
        let problem = match self.listing.verdict(self.before.as_ref()) {
            Verdict::Complete => {
                self.listing.report(self.before.is_some(), &self.context.report);
                return Ok(false);
            }
            Verdict::Missing(count) => {
                let listed = self.listing.keys.len();
                tracing::warn!("{listed} {name} read but PostHog counts {count}; reading them again");
                format!("{listed} objects were received, but PostHog counts {count}")
            }
            Verdict::Unproven => {
                tracing::debug!("{name} are read again, because PostHog does not count them");
                "each attempt returned different objects".to_owned()
            }
        };
        if self.attempts == ATTEMPTS {
            return Err(Error::system(format!(
                "{name} could not be read completely, in {ATTEMPTS} attempts: {problem}. They may be changing right now; the next sync reads them again"
            )));
        }
        self.attempts += 1;
        self.before = Some(std::mem::take(&mut self.listing));
        self.pages = Pages::new(&self.context.client, self.list.path.clone(), &self.context.observer);
        self.next = Some(Next { query: self.list.first.clone(), overlaps: false });
        Ok(true)
    }
}

impl Listed {
    fn read(text: Box<RawValue>, key: &[&str]) -> Result<Self, Error> {
        let key = Object::read(&text).map_err(|problem| Error::system(problem.0))?.key(key);
        Ok(Self { key, text })
    }
}
