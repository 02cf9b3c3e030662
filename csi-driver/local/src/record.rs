//! The durable record of a volume. Pure: bytes to record and back.
//!
//! One line with the format's version and the SHA-256 of the rest, then JSON. A record that was cut off, changed or
//! written by a later version is refused, never guessed at.

use std::fmt;

use moorline_driver_sdk::request::StringMap;
use moorline_mount::filesystem::FsType;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use thiserror::Error;

const MAGIC: &str = "moorline-volume";
const VERSION: u32 = 1;

/// What is known about a volume.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Record {
    pub(crate) volume_id: String,
    /// The name it was created by.
    pub(crate) name: String,
    pub(crate) capacity_bytes: u64,
    pub(crate) content: Content,
    /// The parameters it was created with, without those that only describe the claim.
    pub(crate) parameters: StringMap,
    /// When, in RFC 3339.
    pub(crate) created_at: String,
}

/// What a volume holds, and so which backend serves it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Content {
    /// A directory (`dir` backend).
    Directory,
    /// A file as a raw block device (`loop` backend).
    Block,
    /// A file with ext4 on it (`loop` backend).
    Ext4,
    /// A file with xfs on it (`loop` backend).
    Xfs,
}

impl Content {
    pub(crate) fn filesystem(self) -> Option<FsType> {
        match self {
            Content::Directory | Content::Block => None,
            Content::Ext4 => Some(FsType::Ext4),
            Content::Xfs => Some(FsType::Xfs),
        }
    }
}

impl From<FsType> for Content {
    fn from(fs_type: FsType) -> Self {
        match fs_type {
            FsType::Ext4 => Content::Ext4,
            FsType::Xfs => Content::Xfs,
        }
    }
}

impl fmt::Display for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Content::Directory => "a directory",
            Content::Block => "a block device",
            Content::Ext4 => "an ext4 filesystem",
            Content::Xfs => "an xfs filesystem",
        })
    }
}

/// Why a record can't be read.
#[derive(Debug, Error)]
pub(crate) enum RecordError {
    #[error("is not a volume record")]
    NotARecord,
    #[error("has version {0}; this driver reads version {VERSION}")]
    Version(String),
    #[error("is damaged: its checksum is wrong")]
    Checksum,
    #[error("has unexpected content")]
    Content(#[source] serde_json::Error),
}

impl Record {
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let body = serde_json::to_string_pretty(self).expect("strings and numbers always serialise");
        format!("{MAGIC} {VERSION} {}\n{body}\n", checksum(&body)).into_bytes()
    }

    pub(crate) fn from_bytes(bytes: &[u8]) -> Result<Self, RecordError> {
        let text = std::str::from_utf8(bytes).map_err(|_| RecordError::NotARecord)?;
        let (head, body) = text.split_once('\n').ok_or(RecordError::NotARecord)?;
        let mut words = head.split(' ');
        if words.next() != Some(MAGIC) {
            return Err(RecordError::NotARecord);
        }
        let version = words.next().ok_or(RecordError::NotARecord)?;
        if version != VERSION.to_string() {
            return Err(RecordError::Version(version.to_owned()));
        }
        let body = body.strip_suffix('\n').ok_or(RecordError::Checksum)?;
        if words.next() != Some(checksum(body).as_str()) {
            return Err(RecordError::Checksum);
        }
        serde_json::from_str(body).map_err(RecordError::Content)
    }
}

fn checksum(body: &str) -> String {
    Sha256::digest(body.as_bytes())
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    pub(crate) fn record() -> Record {
        Record {
            volume_id: "pvc-1".into(),
            name: "pvc-1".into(),
            capacity_bytes: 1 << 30,
            content: Content::Ext4,
            parameters: StringMap::new(),
            created_at: "2026-01-01T00:00:00Z".into(),
        }
    }

    #[test]
    fn the_format_on_disk_does_not_change_unnoticed() {
        let bytes = record().to_bytes();
        let text = String::from_utf8(bytes).unwrap();
        assert!(text.starts_with("moorline-volume 1 "), "{text}");
        let body = text.split_once('\n').unwrap().1;
        assert_eq!(
            body,
            "{\n  \"volume_id\": \"pvc-1\",\n  \"name\": \"pvc-1\",\n  \"capacity_bytes\": 1073741824,\n  \
             \"content\": \"ext4\",\n  \"parameters\": {},\n  \"created_at\": \"2026-01-01T00:00:00Z\"\n}\n"
        );
    }

    #[test]
    fn damage_is_refused() {
        let good = String::from_utf8(record().to_bytes()).unwrap();
        let cases: [(&str, String, &str); 6] = [
            ("empty", String::new(), "not a volume record"),
            ("another file", "hello\nworld\n".into(), "not a volume record"),
            ("a later version", good.replacen(" 1 ", " 2 ", 1), "has version 2"),
            (
                "a changed number",
                good.replace("1073741824", "1073741825"),
                "checksum",
            ),
            ("cut off", good[..good.len() - 1].into(), "checksum"),
            ("longer", good.clone() + "\n", "checksum"),
        ];
        for (name, text, expected) in cases {
            let error = Record::from_bytes(text.as_bytes()).expect_err(name).to_string();
            assert!(error.contains(expected), "{name}: {error}");
        }
    }

    proptest! {
        #[test]
        fn every_record_survives_the_disk(
            name in "\\PC{1,60}", capacity_bytes in any::<u64>(), key in "\\PC{0,20}", value in "\\PC{0,20}",
        ) {
            let written = Record { name, capacity_bytes, parameters: StringMap::from([(key, value)]), ..record() };
            prop_assert_eq!(Record::from_bytes(&written.to_bytes()).expect("readable"), written);
        }

        #[test]
        fn a_flipped_byte_is_always_seen(position in 0usize..300, bit in 0u8..8) {
            let mut bytes = record().to_bytes();
            let position = position % bytes.len();
            bytes[position] ^= 1 << bit;
            prop_assert!(Record::from_bytes(&bytes).is_err());
        }

        #[test]
        fn no_bytes_make_the_parser_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            Record::from_bytes(&bytes).ok(); // only that it returns
        }
    }
}
