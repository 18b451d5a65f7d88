//! The command-line entry of `destination-patterns`.

fn main() {}
