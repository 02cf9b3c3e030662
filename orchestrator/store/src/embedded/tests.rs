//! Tests of the embedded engine beyond the suite that both engines pass: files, failures of the disk, compaction.

use std::fs;
use std::sync::atomic::AtomicBool;

use redb::backends::FileBackend;
use redb::{ReadableDatabase, ReadableTableMetadata, StorageBackend};

use super::*;
use crate::{ErrorClass, Op};

mod disk;
mod files;
mod power;
mod sweeping;

const DEADLINE: Duration = Duration::from_secs(20);

fn put(key: &str, value: &[u8]) -> Txn {
    let (key, value) = (
        Bytes::copy_from_slice(key.as_bytes()),
        Bytes::copy_from_slice(value),
    );
    Txn {
        compare: vec![],
        ops: vec![Op::Put {
            key,
            value,
            lease: None,
        }],
    }
}

fn open(path: &Path) -> EmbeddedStore {
    EmbeddedStore::open(path, EmbeddedOptions::default()).unwrap()
}

/// Asks again until the answer is `true`.
async fn until(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let deadline = tokio::time::Instant::now() + DEADLINE;
    while !is_so().await {
        assert!(tokio::time::Instant::now() < deadline, "waited in vain: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
