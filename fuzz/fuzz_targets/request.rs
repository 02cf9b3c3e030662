//! Arbitrary bytes as a request.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    moorline_driver_sdk::fuzzing::request(input);
});
