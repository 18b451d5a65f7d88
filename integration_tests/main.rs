//! Tests of the built programs.

fn main() {}
