#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| zentra_tests::fuzz::sealed(data));
