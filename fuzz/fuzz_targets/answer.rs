//! See `targets::answer`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| targets::answer(bytes));
