//! Which ranges of two files may differ, by where they lie on the disk. Pure.

use moorline_mount::{MountError, extents::ByteRange};

/// Where a part of a file lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// Not on the disk: it reads as zeroes.
    Nowhere,
    /// From this byte of the disk on.
    Disk(u64),
    /// Somewhere.
    Unknown,
}

/// A part of a file. What lies between them is nowhere.
#[derive(Clone, Copy, Debug)]
pub(super) struct Segment {
    pub(super) start: u64,
    pub(super) end: u64,
    pub(super) place: Place,
}

/// One file, walked through from the beginning.
struct Cursor<I> {
    segments: I,
    now: Option<Segment>,
}

impl<I: Iterator<Item = Result<Segment, MountError>>> Cursor<I> {
    /// Where the byte at `at` lies, and up to where that goes on.
    fn look(&mut self, at: u64) -> Result<(Place, u64), MountError> {
        while self.now.is_none_or(|segment| segment.end <= at) {
            match self.segments.next() {
                Some(segment) => self.now = Some(segment?),
                None => return Ok((Place::Nowhere, u64::MAX)),
            }
        }
        Ok(match self.now {
            Some(segment) if at < segment.start => (Place::Nowhere, segment.start),
            Some(segment) => {
                let place = match segment.place {
                    Place::Disk(physical) => Place::Disk(physical + (at - segment.start)),
                    other => other,
                };
                (place, segment.end)
            }
            None => (Place::Nowhere, u64::MAX),
        })
    }
}

/// The ranges that may differ, in order; neighbours are joined.
pub(super) struct Candidates<B, T> {
    base: Cursor<B>,
    target: Cursor<T>,
    at: u64,
    end: u64,
}

impl<B, T> Candidates<B, T>
where
    B: Iterator<Item = Result<Segment, MountError>>,
    T: Iterator<Item = Result<Segment, MountError>>,
{
    /// From `start` up to `end`. The segments are in order and don't overlap.
    pub(super) fn new(base: B, target: T, start: u64, end: u64) -> Self {
        let cursor = |segments| Cursor { segments, now: None };
        Candidates {
            base: cursor(base),
            target: Cursor {
                segments: target,
                now: None,
            },
            at: start,
            end,
        }
    }

    fn step(&mut self) -> Result<Option<ByteRange>, MountError> {
        let mut found: Option<ByteRange> = None;
        while self.at < self.end {
            let (base, base_end) = self.base.look(self.at)?;
            let (target, target_end) = self.target.look(self.at)?;
            let end = base_end.min(target_end).min(self.end);
            let is_same = base == target && base != Place::Unknown;
            match &mut found {
                Some(_) if is_same => break,
                Some(range) => range.length = end - range.offset,
                None if is_same => {}
                None => {
                    found = Some(ByteRange {
                        offset: self.at,
                        length: end - self.at,
                    });
                }
            }
            self.at = end;
        }
        Ok(found)
    }
}

impl<B, T> Iterator for Candidates<B, T>
where
    B: Iterator<Item = Result<Segment, MountError>>,
    T: Iterator<Item = Result<Segment, MountError>>,
{
    type Item = Result<ByteRange, MountError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.step().transpose()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn candidates(base: &[(u64, u64, Place)], target: &[(u64, u64, Place)], end: u64) -> Vec<(u64, u64)> {
        let segments = |parts: &[(u64, u64, Place)]| {
            let parts = parts.iter().map(|(start, end, place)| {
                Ok(Segment {
                    start: *start,
                    end: *end,
                    place: *place,
                })
            });
            parts.collect::<Vec<_>>().into_iter()
        };
        Candidates::new(segments(base), segments(target), 0, end)
            .map(|range| range.map(|range| (range.offset, range.end())).unwrap())
            .collect()
    }

    #[test]
    fn only_what_lies_elsewhere_may_differ() {
        use Place::{Disk, Nowhere, Unknown};
        type Parts = &'static [(u64, u64, Place)];
        type Case = (&'static str, Parts, Parts, &'static [(u64, u64)]);
        let cases: [Case; 11] = [
            ("both empty", &[], &[], &[]),
            ("shared", &[(0, 9, Disk(100))], &[(0, 9, Disk(100))], &[]),
            ("elsewhere", &[(0, 9, Disk(100))], &[(0, 9, Disk(200))], &[(0, 9)]),
            ("shifted", &[(0, 9, Disk(100))], &[(0, 9, Disk(101))], &[(0, 9)]),
            ("new data", &[], &[(2, 4, Disk(100))], &[(2, 4)]),
            ("data punched out", &[(2, 4, Disk(100))], &[], &[(2, 4)]),
            (
                "reserved is as good as a hole",
                &[(2, 4, Nowhere)],
                &[(3, 9, Nowhere)],
                &[],
            ),
            (
                "cut differently",
                &[(0, 9, Disk(100))],
                &[(0, 3, Disk(100)), (3, 9, Disk(103))],
                &[],
            ),
            (
                "rewritten in the middle",
                &[(0, 9, Disk(100))],
                &[(0, 3, Disk(100)), (3, 5, Disk(300)), (5, 9, Disk(105))],
                &[(3, 5)],
            ),
            ("nobody knows", &[(0, 4, Unknown)], &[(0, 4, Unknown)], &[(0, 4)]),
            (
                "neighbours are joined",
                &[(0, 2, Disk(1))],
                &[(2, 4, Disk(9))],
                &[(0, 4)],
            ),
        ];
        for (name, base, target, expected) in cases {
            assert_eq!(candidates(base, target, 9), expected, "{name}");
        }
    }

    /// A file as one disk block, hole or unknown place per block.
    fn extents_of(file: &[Option<u8>], unknown: u8) -> Vec<(u64, u64, Place)> {
        let mut extents = Vec::new();
        for (block, place) in (0..).zip(file) {
            let place = match place {
                None => continue,
                Some(place) if *place < unknown => Place::Unknown,
                Some(place) => Place::Disk(u64::from(*place)),
            };
            extents.push((block, block + 1, place));
        }
        extents
    }

    proptest! {
        #[test]
        fn no_changed_block_is_missed(
            base in proptest::collection::vec(proptest::option::of(0u8..20), 0..40),
            target in proptest::collection::vec(proptest::option::of(0u8..20), 0..40),
            unknown in 0u8..8,
        ) {
            let end = u64::try_from(base.len().max(target.len())).unwrap();
            let found = candidates(&extents_of(&base, unknown), &extents_of(&target, unknown), end);
            for (block, index) in (0..end).zip(0..) {
                let differs = base.get(index).copied().flatten() != target.get(index).copied().flatten();
                let is_found = found.iter().any(|(start, end)| (*start..*end).contains(&block));
                prop_assert!(!differs || is_found, "block {} of {:?}", block, found);
            }
            prop_assert!(found.windows(2).all(|pair| pair[0].1 < pair[1].0), "in order, joined: {:?}", found);
        }
    }
}
