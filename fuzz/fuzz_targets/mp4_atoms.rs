#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| thalweg::laws::mp4_atoms(data));
