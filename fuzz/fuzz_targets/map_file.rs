#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| thalweg::laws::map_file(data));
