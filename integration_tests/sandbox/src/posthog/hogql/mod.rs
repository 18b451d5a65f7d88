//! The part of HogQL that the connector and its users write: one table or one query in its place,
//! filters, groups, order and limit.
//!
//! Everything else is refused with a 400 that names it, so that a query the stand-in would get
//! wrong never looks as if it worked.

mod aggregate;
mod bytes;
mod call;
mod column;
mod evaluate;
mod expression;
mod function;
mod lower;
mod operate;
mod placeholder;
mod refusal;
mod row;
mod schema;
mod select;
mod session_column;
mod table;
mod value;

pub(crate) use column::Column;
pub(crate) use evaluate::{Answer, run};
pub use refusal::Refusals;
pub use schema::{PersonsOnEvents, Schema, SessionsVersion};
pub(crate) use select::{Select, Setting, compile};
pub(crate) use table::{Source, Table};
pub(crate) use value::{Value, iso, parse_time};

#[cfg(test)]
mod tests;
