//! Real files against a comparison byte by byte, on whatever filesystem holds temporary files.

use std::os::unix::fs::FileExt as _;

use moorline_mount::copy;
use proptest::prelude::*;

use super::*;

/// The blocks in which two contents differ, joined to ranges; the shorter one goes on with zeroes.
fn expected(base: &[u8], target: &[u8]) -> Vec<(u64, u64)> {
    let block = usize::try_from(BLOCK_BYTES).unwrap();
    let mut ranges: Vec<(u64, u64)> = Vec::new();
    for start in (0..target.len()).step_by(block) {
        let end = (start + block).min(target.len());
        let old: Vec<u8> = (start..end)
            .map(|at| base.get(at).copied().unwrap_or(0))
            .collect();
        if old != target[start..end] {
            let (start, end) = (u64::try_from(start).unwrap(), u64::try_from(end).unwrap());
            match ranges.last_mut() {
                Some(last) if last.1 == start => last.1 = end,
                _ => ranges.push((start, end)),
            }
        }
    }
    ranges
}

fn found(base: &Path, target: &Path, start: u64, end: u64) -> Vec<(u64, u64)> {
    let mut ranges = Vec::new();
    let give = |range: BlockRange| {
        ranges.push((range.byte_offset, range.byte_offset + range.size_bytes));
        Ok(())
    };
    changed([base, target], start, end, || true, give).unwrap();
    ranges
}

/// A write of `length` bytes of `value`; what is zero may be a hole as well.
type Write = (u64, usize, u8);

fn write(file: &File, writes: &[Write], size: u64) {
    for (offset, length, value) in writes {
        let length = (*length).min(usize::try_from(size.saturating_sub(*offset)).unwrap());
        file.write_all_at(&vec![*value; length], *offset).unwrap();
    }
}

fn writes() -> impl Strategy<Value = Vec<Write>> {
    proptest::collection::vec((0u64..300_000, 1usize..30_000, 0u8..4), 0..8)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn what_is_found_is_what_differs(
        before in writes(), after in writes(), base_blocks in 1u64..80, more_blocks in 0u64..8, window in 0u64..90,
    ) {
        let dir = tempfile::tempdir().unwrap();
        let (base_path, target_path) = (dir.path().join("base"), dir.path().join("target"));
        let mut options = File::options();
        options.read(true).write(true).create_new(true);
        let (base, target) = (options.open(&base_path).unwrap(), options.open(&target_path).unwrap());
        let (base_size, size) = (base_blocks * BLOCK_BYTES, (base_blocks + more_blocks) * BLOCK_BYTES);
        base.set_len(base_size).unwrap();
        write(&base, &before, base_size);
        if !copy::reflink(&base, &target).unwrap() {
            copy::sparse(&base, &target, &mut |_| std::ops::ControlFlow::Continue(())).unwrap();
        }
        target.set_len(size).unwrap();
        write(&target, &after, size);
        let contents = (std::fs::read(&base_path).unwrap(), std::fs::read(&target_path).unwrap());
        let all = expected(&contents.0, &contents.1);
        prop_assert_eq!(&found(&base_path, &target_path, 0, size), &all);
        // From an offset on: the same, without what ends before.
        let start = window * BLOCK_BYTES;
        let rest: Vec<_> = all.iter().filter(|(_, end)| *end > start).map(|(from, end)| ((*from).max(start), *end)).collect();
        prop_assert_eq!(&found(&base_path, &target_path, start, size), &rest);
        // All data is within what is allocated.
        let mut data = Vec::new();
        allocated(&target_path, 0, size, |range| { data.push(range); Ok(()) }).unwrap();
        for (at, byte) in (0..).zip(&contents.1) {
            let is_in = |range: &BlockRange| (range.byte_offset..range.byte_offset + range.size_bytes).contains(&at);
            prop_assert!(*byte == 0 || data.iter().any(is_in), "byte {}", at);
        }
    }
}

#[test]
fn a_caller_who_goes_ends_the_search() {
    let dir = tempfile::tempdir().unwrap();
    let (base, target) = (dir.path().join("base"), dir.path().join("target"));
    std::fs::write(&base, vec![1; 8192]).unwrap();
    std::fs::write(&target, vec![2; 8192]).unwrap();
    let gone = changed([&base, &target], 0, 8192, || true, |_| Err(CallerGone)).unwrap_err();
    assert!(matches!(gone, BlocksError::CallerGone(_)), "{gone}");
    let gone = changed([&base, &target], 0, 8192, || false, |_| Ok(())).unwrap_err();
    assert!(matches!(gone, BlocksError::CallerGone(_)), "{gone}");
}
