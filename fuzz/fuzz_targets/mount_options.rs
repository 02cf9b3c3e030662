//! Arbitrary bytes as mount options.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    moorline_mount::fuzzing::mount_options(input);
});
