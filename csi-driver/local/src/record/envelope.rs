//! The outside of every durable record: one line with what it is, its version and the SHA-256 of the rest, then JSON.
//! A record that was cut off, changed or written by a later version is refused, never guessed at. Pure.

use serde::{Serialize, de::DeserializeOwned};
use sha2::{Digest as _, Sha256};
use thiserror::Error;

/// Why a record can't be read.
#[derive(Debug, Error)]
pub(crate) enum RecordError {
    #[error("is not a {0} record")]
    NotARecord(&'static str),
    #[error("has version {found}; this driver reads up to version {known}")]
    Version { found: String, known: u32 },
    #[error("is damaged: its checksum is wrong")]
    Checksum,
    #[error("has unexpected content")]
    Content(#[source] serde_json::Error),
    #[error("is that of {found}, not of {expected}")]
    OtherOwner { found: String, expected: String },
}

/// A kind of record: the word that its file begins with, and the latest version.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Kind {
    pub(crate) noun: &'static str,
    pub(crate) magic: &'static str,
    pub(crate) version: u32,
}

impl Kind {
    /// The bytes of a record of the latest version.
    pub(crate) fn seal(self, body: &impl Serialize) -> Vec<u8> {
        let body = serde_json::to_string_pretty(body).expect("strings and numbers always serialise");
        self.wrap(self.version, &body)
    }

    /// The bytes of a record of any version, whatever its body is.
    pub(crate) fn wrap(self, version: u32, body: &str) -> Vec<u8> {
        format!("{} {version} {}\n{body}\n", self.magic, hex(body.as_bytes())).into_bytes()
    }

    /// The version and the checked body of a record.
    pub(crate) fn open(self, bytes: &[u8]) -> Result<(u32, &str), RecordError> {
        let foreign = RecordError::NotARecord(self.noun);
        let Some((head, body)) = std::str::from_utf8(bytes)
            .ok()
            .and_then(|text| text.split_once('\n'))
        else {
            return Err(foreign);
        };
        let mut words = head.split(' ');
        let (Some(magic), Some(version)) = (words.next(), words.next()) else {
            return Err(foreign);
        };
        if magic != self.magic {
            return Err(foreign);
        }
        let known = 1..=self.version;
        let Some(number) = version.parse().ok().filter(|number| known.contains(number)) else {
            return Err(RecordError::Version {
                found: version.to_owned(),
                known: self.version,
            });
        };
        let body = body.strip_suffix('\n').ok_or(RecordError::Checksum)?;
        if words.next() != Some(hex(body.as_bytes()).as_str()) || words.next().is_some() {
            return Err(RecordError::Checksum);
        }
        Ok((number, body))
    }
}

/// The content of a checked body.
pub(crate) fn read<T: DeserializeOwned>(body: &str) -> Result<T, RecordError> {
    serde_json::from_str(body).map_err(RecordError::Content)
}

/// A record that was found with another thing than its own is none.
pub(crate) fn check_owner(found: &str, expected: &str) -> Result<(), RecordError> {
    if found == expected {
        return Ok(());
    }
    Err(RecordError::OtherOwner {
        found: found.to_owned(),
        expected: expected.to_owned(),
    })
}

fn hex(body: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let nibbles = Sha256::digest(body)
        .into_iter()
        .flat_map(|byte| [byte >> 4, byte & 15]);
    nibbles
        .map(|nibble| char::from(DIGITS[usize::from(nibble)]))
        .collect()
}
