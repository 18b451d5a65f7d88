//! See `targets::catalog`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| targets::catalog(bytes));
