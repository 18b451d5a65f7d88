//! See `targets::hogql`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| targets::hogql(bytes));
