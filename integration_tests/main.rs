//! Tests of the built programs, one file per subject.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]
#![allow(clippy::format_collect, clippy::too_many_lines, reason = "short and plain matters more than fast here")]

mod audit;
mod bad_input;
mod budgets;
mod changes;
mod check;
mod columns;
mod corpus;
mod costs_page;
mod destination;
mod documents;
mod environment;
mod export;
mod export_faults;
mod faults;
mod filtered;
mod follow;
mod help;
mod hostile;
mod huge;
mod identities;
mod idle;
mod inputs;
mod instances;
mod keyset;
mod kill;
mod layout;
mod ledger;
mod list_changes;
mod lists;
mod lives;
mod loaders;
mod migrating;
mod nested_lists;
mod network;
mod odd_events;
mod people;
mod plan;
mod privacy_page;
mod private;
mod proof;
mod properties;
mod read;
mod resume;
mod row_limit;
mod scale;
mod secrets;
mod selected;
mod sessions;
mod settings_tables;
mod shell;
mod shipped_files;
mod side_by_side;
mod specification;
mod state_file;
mod streams_page;
mod support;
mod survey_responses;
#[path = "../fuzz/targets.rs"]
mod targets;
mod verify_page;
