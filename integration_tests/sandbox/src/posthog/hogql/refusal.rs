//! The wording of refused queries, which PostHog made longer in April 2026.

use serde_json::{Map, Value as Json, json};
use sqlparser::ast::{Query, SetExpr, TableFactor};

use super::placeholder;
use super::select::parse;
use crate::posthog::error::{ApiError, Refused};

/// How a refused query is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusals {
    /// `Unable to resolve field: x`, and no more.
    Bare,
    /// With suggestions, the tables that the query names, codes of HogQL's own and `extra.hogql_metadata`:
    ///
    /// ```text
    /// Unable to resolve field: x. Did you mean: a, b?
    /// Tables referenced: t
    /// Hint: a
    /// ```
    ///
    /// All but the suggestions come from a second look at the query, without its `values`. A query with
    /// placeholders fails there at once, so it gets the first line only.
    Explained {
        /// Whether there is a third line when there is something to suggest.
        hint: bool,
    },
}

/// As similar as PostHog's suggestions have to be.
const CUTOFF: f64 = 0.6;
/// How many there are at most.
const SUGGESTIONS: usize = 3;

impl Refusals {
    /// The error as this instance words it.
    pub(crate) fn word(self, mut error: ApiError, sql: &str) -> ApiError {
        let Self::Explained { hint } = self else { return error };
        let syntax = error.code == "syntax_error";
        let suggestions = error.refused.take().map(|refused| refused.suggestions);
        let Some(suggestions) = suggestions.or_else(|| syntax.then(Vec::new)) else { return error };
        error.code = String::from(if syntax { "hogql_syntax_error" } else { "hogql_query_error" });
        if !suggestions.is_empty() {
            let stop = if error.detail.ends_with('.') { "" } else { "." };
            error.detail = format!("{}{stop} Did you mean: {}?", error.detail, suggestions.join(", "));
        }
        let mut notice = json!({"message": error.detail, "start": 0, "end": sql.len()});
        let fix = suggestions.first().cloned().filter(|_| hint);
        let second = placeholder::fill(sql, &Map::new()).map(|sql| parse(&sql).map(|query| tables(&query)));
        let (tables, notice) = match second {
            // The second look can't know what the placeholders stand for.
            Err(_) => (Vec::new(), json!({"message": "Unexpected HogVMException"})),
            Ok(Err(_)) => (Vec::new(), notice),
            Ok(Ok(tables)) => {
                if let (Some(fix), Some(notice)) = (&fix, notice.as_object_mut()) {
                    notice.insert("fix".to_owned(), Json::from(fix.as_str()));
                }
                (tables, notice)
            }
        };
        if !tables.is_empty() {
            error.detail = format!("{}\nTables referenced: {}", error.detail, tables.join(", "));
            if let Some(fix) = fix {
                error.detail = format!("{}\nHint: {fix}", error.detail);
            }
        }
        let extra = json!({"hogql_metadata": {
            "query": sql, "isValid": false, "errors": [notice], "warnings": [], "notices": [], "table_names": tables,
        }});
        error.refused = Some(Box::new(Refused { suggestions, extra: Some(extra) }));
        error
    }
}

/// The tables that a query names, in the order of the alphabet.
fn tables(query: &Query) -> Vec<String> {
    let mut names = Vec::new();
    let mut queries = vec![query];
    while let Some(query) = queries.pop() {
        let SetExpr::Select(select) = query.body.as_ref() else { continue };
        for from in &select.from {
            for relation in std::iter::once(&from.relation).chain(from.joins.iter().map(|join| &join.relation)) {
                if let TableFactor::Table { name, .. } = relation {
                    names.push(name.to_string().replace('`', ""));
                }
            }
            if let TableFactor::Derived { subquery, .. } = &from.relation {
                queries.push(subquery);
            }
        }
    }
    names.sort();
    names.dedup();
    names
}

/// Those of `known` that are most like `name`, the most similar first, as Python's `difflib` finds them.
pub(super) fn similar(name: &str, known: &[&str]) -> Vec<String> {
    let mut found: Vec<(f64, &str)> = known.iter().map(|other| (ratio(other, name), *other)).collect();
    found.retain(|(ratio, _)| *ratio >= CUTOFF);
    found.sort_by(|left, right| right.0.total_cmp(&left.0).then_with(|| right.1.cmp(left.1)));
    found.into_iter().take(SUGGESTIONS).map(|(_, other)| other.to_owned()).collect()
}

/// Twice the letters in common, as part of all letters.
fn ratio(left: &str, right: &str) -> f64 {
    let (left, right): (Vec<char>, Vec<char>) = (left.chars().collect(), right.chars().collect());
    let (common, all) = (common(&left, &right), left.len() + right.len());
    if all == 0 {
        return 1.0;
    }
    #[expect(clippy::cast_precision_loss, reason = "names are short")]
    let ratio = 2.0 * common as f64 / all as f64;
    ratio
}

/// Letters in the longest block that both have, and in such blocks on either side of it.
fn common(left: &[char], right: &[char]) -> usize {
    let (mut at, mut length) = ((0, 0), 0);
    for start in 0..left.len() {
        for other in 0..right.len() {
            let pairs = left.iter().skip(start).zip(right.iter().skip(other));
            let same = pairs.take_while(|(left, right)| left == right).count();
            if same > length {
                (at, length) = ((start, other), same);
            }
        }
    }
    if length == 0 {
        return 0;
    }
    let before = common(left.get(..at.0).unwrap_or_default(), right.get(..at.1).unwrap_or_default());
    let (left, right) = (left.get(at.0 + length..), right.get(at.1 + length..));
    let after = common(left.unwrap_or_default(), right.unwrap_or_default());
    before + length + after
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suggestions_are_those_of_difflib() {
        // difflib.SequenceMatcher(None, "person_id", "session_id").ratio()
        assert!((ratio("person_id", "session_id") - 0.7368).abs() < 0.0001);
        let known = ["session_id", "distinct_id", "$urls", "id", "$is_bounce"];
        assert_eq!(similar("person_id", &known), ["session_id"]);
        assert_eq!(similar("nothing_like_it", &known), Vec::<String>::new());
        assert!(common(&[], &['a']) == 0 && (ratio("", "") - 1.0).abs() < f64::EPSILON);
    }
}
