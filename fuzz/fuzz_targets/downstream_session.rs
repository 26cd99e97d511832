#![no_main]

#[path = "../../plugins/postgres/tests/fuzzing/entries.rs"]
#[allow(dead_code, reason = "each target calls one of them")]
mod entries;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| entries::downstream_session(bytes));
