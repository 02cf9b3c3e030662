//! Arbitrary bytes as a durable record.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    moorline_driver_local::fuzzing::record(input);
});
