//! The part of HogQL that the connector writes: one table, filters, groups, order and limit.
//!
//! Everything else is refused with a 400 that names it, so that a query the stand-in would get
//! wrong never looks as if it worked.

mod evaluate;
mod expression;
mod lower;
mod placeholder;
mod select;
mod value;

pub(crate) use evaluate::{Answer, run};
pub(crate) use expression::{Column, Table};
pub(crate) use select::{Select, Zones, compile};
pub(crate) use value::{Value, iso, parse_time};

#[cfg(test)]
mod tests;
