//! libFuzzer on [`cairn_fuzz::authority`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| cairn_fuzz::authority(data));
