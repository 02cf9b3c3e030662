//! Arbitrary bytes as the first bytes of a device.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    moorline_mount::fuzzing::superblock(input);
});
