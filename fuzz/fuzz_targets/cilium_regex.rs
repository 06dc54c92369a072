//! libFuzzer on [`cairn_fuzz::cilium_regex`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| cairn_fuzz::cilium_regex(data));
