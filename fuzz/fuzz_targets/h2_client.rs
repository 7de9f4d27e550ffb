#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| thalweg::laws::h2_client(data));
