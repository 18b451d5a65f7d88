//! Finds the objects, such as cohorts, that have been deleted while their rows are still there.

use std::collections::BTreeSet;

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::error::Error;
use crate::posthog::http::{GiveUp, Refusal};
use crate::posthog::lists::{PAGE, Pages};
use crate::sync::context::ReadContext;

#[derive(Deserialize)]
struct Owner {
    id: i64,
    #[serde(default)]
    deleted: bool,
}

/// The numbers that belong to no object of `list`, or to a deleted one.
///
/// What the list lacks is asked for one by one: pages of a list can shift, and rows must not be left
/// out because of that. A key that may not read the list reads all rows.
///
/// # Errors
/// When the server does not answer usefully.
pub(super) async fn deleted(context: &ReadContext, list: &str, numbers: &[i64]) -> Result<BTreeSet<i64>, Error> {
    let mut deleted = BTreeSet::new();
    match find(context, list, numbers, &mut deleted).await {
        Ok(()) => Ok(deleted),
        Err(GiveUp::Refused(refusal)) => {
            tracing::warn!(
                "{} may contain rows of deleted {list}, because the list of {list} cannot be read: {}",
                context.stream.name,
                Error::from(GiveUp::Refused(refusal))
            );
            Ok(BTreeSet::new())
        }
        Err(give_up) => Err(give_up.into()),
    }
}

async fn find(context: &ReadContext, list: &str, numbers: &[i64], deleted: &mut BTreeSet<i64>) -> Result<(), GiveUp> {
    if numbers.is_empty() {
        return Ok(());
    }
    let path = context.list_path(list);
    let mut listed = BTreeSet::new();
    let mut pages = Pages::new(&context.client, path.clone(), &context.observer);
    let take = |object: &RawValue| {
        let owner = serde_json::from_str::<Owner>(object.get()).ok();
        listed.extend(owner.filter(|owner| !owner.deleted).map(|owner| owner.id));
        Ok(())
    };
    pages.each(format!("limit={PAGE}&offset=0"), take).await?;
    for number in numbers.iter().filter(|number| !listed.contains(number)) {
        let path = format!("{path}{number}/");
        match context.client.get::<Owner>(&path, context.client.retry(), &context.observer).await {
            Ok(owner) if !owner.deleted => {}
            Ok(_) | Err(GiveUp::Refused(Refusal { status: 404, .. })) => {
                deleted.insert(*number);
            }
            Err(give_up) => return Err(give_up),
        }
    }
    Ok(())
}
