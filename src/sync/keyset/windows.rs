//! Windows of a table that is read by the numbers of what its rows belong to, such as cohorts.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

/// All rows whose number is between two numbers, both included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct NumberRange {
    /// The first number.
    pub from: i64,
    /// The last number.
    pub to: i64,
}

impl NumberRange {
    /// The condition that a number lies in the window.
    pub(super) fn condition(self, expression: &str) -> String {
        let Self { from, to } = self;
        if from == to {
            format!("{expression} = {from}")
        } else {
            format!("{expression} >= {from} AND {expression} <= {to}")
        }
    }
}

/// The number of different keys of one number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Keys {
    pub(super) number: i64,
    pub(super) keys: u64,
}

/// A window and the number of different keys in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Planned {
    pub(super) window: NumberRange,
    pub(super) keys: u64,
}

/// Cuts a table into windows: neighbouring numbers together until they fill a page. `counted` is in
/// ascending order; numbers that are `left_out` are in no window. `resumed` is the window that an
/// interrupted sync was in, and comes first as it was.
pub(super) fn plan(
    counted: &[Keys],
    left_out: &BTreeSet<i64>,
    page: u64,
    resumed: Option<NumberRange>,
) -> Vec<Planned> {
    let mut planned: Vec<Planned> = Vec::new();
    if let Some(window) = resumed {
        let inside = counted.iter().filter(|keys| (window.from..=window.to).contains(&keys.number));
        planned.push(Planned { window, keys: inside.map(|keys| keys.keys).sum() });
    }
    let mut may_join = false;
    for Keys { number, keys } in counted.iter().filter(|keys| resumed.is_none_or(|window| keys.number > window.to)) {
        if left_out.contains(number) {
            may_join = false;
            continue;
        }
        match planned.last_mut().filter(|last| may_join && last.keys.saturating_add(*keys) <= page) {
            Some(last) => {
                last.window.to = *number;
                last.keys += keys;
            }
            None => planned.push(Planned { window: NumberRange { from: *number, to: *number }, keys: *keys }),
        }
        may_join = true;
    }
    planned
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_share_a_window_until_it_is_full() {
        let counted: Vec<Keys> = [(1, 3), (2, 4), (5, 90), (6, 2), (7, 1), (9, 3), (12, 1)]
            .map(|(number, keys)| Keys { number, keys })
            .into();
        let windows = |left_out: &[i64], resumed| {
            let planned = plan(&counted, &left_out.iter().copied().collect(), 10, resumed);
            planned.iter().map(|planned| (planned.window.from, planned.window.to, planned.keys)).collect::<Vec<_>>()
        };
        assert_eq!(windows(&[], None), [(1, 2, 7), (5, 5, 90), (6, 12, 7)]);
        assert_eq!(windows(&[7, 1], None), [(2, 2, 4), (5, 5, 90), (6, 6, 2), (9, 12, 4)]);
        assert_eq!(windows(&[], Some(NumberRange { from: 2, to: 5 })), [(2, 5, 94), (6, 12, 7)]);
        assert_eq!(windows(&[], Some(NumberRange { from: 20, to: 20 })), [(20, 20, 0)]);
    }
}
