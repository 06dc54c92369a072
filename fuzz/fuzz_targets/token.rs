//! libFuzzer on [`cairn_fuzz::token`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| cairn_fuzz::token(data));
