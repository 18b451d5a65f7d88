//! What reading a list would take, as far as its first page tells.

use crate::error::Error;
use crate::posthog::http::{GiveUp, Refusal};
use crate::posthog::lists::Pages;
use crate::sync::context::ReadContext;
use crate::sync::read_plan::PlannedRead;

/// Pages of a list that has no count and more than one page: it is read until two listings agree.
const LEAST_PAGES: u64 = 4;

/// Looks at the first page of the list at `path`. A server may refuse one that is optional.
pub(super) async fn planned(
    context: &ReadContext,
    path: &str,
    query: &str,
    is_optional: bool,
) -> Result<PlannedRead, Error> {
    let mut pages = Pages::new(&context.client, path.to_owned(), &context.observer);
    match pages.read(query).await {
        Ok(page) => Ok(of_page(page.objects.len() as u64, page.next.is_some(), page.count)),
        Err(GiveUp::Refused(Refusal { status: 400 | 404, .. })) if is_optional => Ok(of_page(0, false, None)),
        Err(give_up) => Err(give_up.into()),
    }
}

/// Each page begins with the last object of the one before.
fn of_page(objects: u64, has_next: bool, count: Option<u64>) -> PlannedRead {
    let (rows, queries) = match count {
        _ if !has_next => (Some(objects), 1),
        Some(count) => (Some(count), 1 + count.saturating_sub(objects).div_ceil(objects.saturating_sub(1).max(1))),
        None => (None, LEAST_PAGES),
    };
    PlannedRead { rows, queries, ..PlannedRead::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_follow_from_the_count() {
        let of = |objects, has_next, count| {
            let PlannedRead { rows, queries, .. } = of_page(objects, has_next, count);
            (rows, queries)
        };
        assert_eq!(of(7, false, Some(7)), (Some(7), 1));
        assert_eq!(of(100, true, Some(101)), (Some(101), 2));
        assert_eq!(of(100, true, Some(298)), (Some(298), 3));
        assert_eq!(of(100, true, Some(299)), (Some(299), 4));
        assert_eq!(of(100, true, None), (None, LEAST_PAGES));
    }
}
