//! The durable record of a volume. Pure: bytes to record and back.
//!
//! Version 2 adds the pool, the provisioning, the source and the mutable parameters; version 1 is still read. Leases
//! don't live here: they change without the volume changing.

mod content;
pub(crate) mod envelope;
mod parameters;
pub(crate) mod snapshot;
pub(crate) mod text;

use std::sync::Arc;

use jiff::Timestamp;
use moorline_driver_sdk::request::StringMap;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

pub(crate) use self::{
    content::{Content, Provisioning},
    envelope::RecordError,
    parameters::Parameters,
    snapshot::{GroupRecord, Membership, SnapshotRecord},
};

pub(crate) const KIND: envelope::Kind = envelope::Kind {
    noun: "volume",
    magic: "moorline-volume",
    version: 2,
};

/// What is known about a volume. The catalog holds one for each, so that fields are small.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Record {
    pub(crate) volume_id: Arc<str>,
    /// The name it was created by; mostly the same text as the id, and then the same memory.
    pub(crate) name: Arc<str>,
    /// The pool it was made in; nil for volumes of version 1.
    #[serde(with = "text::uuid")]
    pub(crate) pool: Uuid,
    pub(crate) capacity_bytes: u64,
    pub(crate) content: Content,
    pub(crate) provisioning: Provisioning,
    /// The parameters it was created with, without those that only describe the claim.
    pub(crate) parameters: Parameters,
    /// The parameters that may change, as they are now.
    pub(crate) mutable_parameters: Parameters,
    pub(crate) source: Option<Box<Source>>,
    #[serde(with = "text::timestamp")]
    pub(crate) created_at: Timestamp,
}

/// What a volume's first content was taken from. It may be gone by now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum Source {
    /// The snapshot with this id.
    Snapshot(String),
    /// The volume with this id.
    Volume(String),
}

/// As driver versions before pools wrote it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Version1 {
    volume_id: Arc<str>,
    name: Arc<str>,
    capacity_bytes: u64,
    content: Content,
    parameters: StringMap,
    #[serde(with = "text::timestamp")]
    created_at: Timestamp,
}

impl From<Version1> for Record {
    fn from(old: Version1) -> Self {
        Record {
            volume_id: old.volume_id,
            name: old.name,
            pool: Uuid::nil(),
            capacity_bytes: old.capacity_bytes,
            content: old.content,
            provisioning: Provisioning::Thin,
            parameters: old.parameters.into(),
            mutable_parameters: Parameters::default(),
            source: None,
            created_at: old.created_at,
        }
    }
}

impl Record {
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        KIND.seal(self)
    }

    pub(crate) fn from_bytes(bytes: &[u8]) -> Result<Self, RecordError> {
        let (version, body) = KIND.open(bytes)?;
        let mut record = match version {
            1 => envelope::read::<Version1>(body)?.into(),
            _ => envelope::read::<Record>(body)?,
        };
        if record.name == record.volume_id {
            record.name = Arc::clone(&record.volume_id);
        }
        Ok(record)
    }

    /// As [`Record::from_bytes`], for the volume that the record was found with.
    pub(crate) fn read_of(volume_id: &str, bytes: &[u8]) -> Result<Self, RecordError> {
        let record = Self::from_bytes(bytes)?;
        envelope::check_owner(&record.volume_id, volume_id)?;
        Ok(record)
    }
}

#[cfg(test)]
pub(crate) mod tests;
