//! Arbitrary bytes as a mount table.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    moorline_mount::fuzzing::mountinfo(input);
});
