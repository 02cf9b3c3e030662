//! What a caller asks of a range read and what it answers.

use bytes::Bytes;

use crate::{KeyValue, Revision, StoreError};

/// A read of keys in byte order.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Range {
    /// The first key.
    pub start: Bytes,
    /// The first key after the range; empty means that the range has no upper end.
    pub end: Bytes,
    /// The most keys to answer; `None` means all.
    pub limit: Option<usize>,
    /// The revision to read at; `None` means the current one.
    pub at: Option<Revision>,
    /// Leave the values empty.
    pub keys_only: bool,
}

impl Range {
    /// All keys that begin with `prefix`.
    pub fn prefix(prefix: &[u8]) -> Range {
        Range {
            start: Bytes::copy_from_slice(prefix),
            end: end_of_prefix(prefix),
            ..Range::default()
        }
    }

    /// Whether `key` lies in the range.
    pub fn contains(&self, key: &[u8]) -> bool {
        key >= self.start.as_ref() && (self.end.is_empty() || key < self.end.as_ref())
    }
}

/// The first key that is greater than every key with this prefix; empty if there is none.
fn end_of_prefix(prefix: &[u8]) -> Bytes {
    let Some(last) = prefix.iter().rposition(|byte| *byte != u8::MAX) else {
        return Bytes::new();
    };
    let mut end = prefix[..=last].to_vec();
    end[last] += 1;
    Bytes::from(end)
}

/// The revision to read at, given what was asked for and what is there.
pub(crate) fn check_readable(
    at: Option<Revision>,
    compacted: Revision,
    current: Revision,
) -> Result<Revision, StoreError> {
    let requested = at.unwrap_or(current);
    if requested > current {
        Err(StoreError::FutureRevision { requested, current })
    } else if requested < compacted {
        Err(StoreError::Compacted { compacted })
    } else {
        Ok(requested)
    }
}

/// The answer to a [`Range`].
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct RangeResult {
    /// The store's current revision at the time of the read, also when an older one was read.
    pub revision: Revision,
    /// The keys, at most as many as the limit allows.
    pub kvs: Vec<KeyValue>,
    /// Whether the range holds more keys than were answered.
    pub more: bool,
    /// How many keys the range holds, answered or not.
    pub count: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn end_of_prefix_is_the_first_key_behind_it() {
        let cases: &[(&str, &[u8], &[u8])] = &[
            ("plain", b"/registry/pods/", b"/registry/pods0"),
            ("last byte is the greatest", b"a\xff", b"b"),
            ("only greatest bytes", b"\xff\xff", b""),
            ("empty", b"", b""),
        ];
        for (name, prefix, end) in cases {
            assert_eq!(Range::prefix(prefix).end.as_ref(), *end, "{name}");
        }
    }

    #[test]
    fn prefix_contains_its_keys_and_no_others() {
        let range = Range::prefix(b"a/");
        assert!(range.contains(b"a/"));
        assert!(range.contains(b"a/\xff\xff"));
        assert!(!range.contains(b"a"));
        assert!(!range.contains(b"a0"));
        assert!(Range::prefix(b"").contains(b"\xff\xff\xff"));
    }
}
