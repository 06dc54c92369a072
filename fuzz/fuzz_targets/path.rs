//! libFuzzer on [`cairn_fuzz::path`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| cairn_fuzz::path(data));
