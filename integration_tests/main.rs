//! Tests of the built programs, one file per subject.

mod specification;
mod support;
