//! The command-line entry of `source-posthog`.

fn main() {}
