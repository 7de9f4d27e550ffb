#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| thalweg::laws::proxied_exchange(data));
