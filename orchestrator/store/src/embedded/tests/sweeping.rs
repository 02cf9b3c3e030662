//! Compaction really removes what nobody can read any more.

use super::*;

fn rows(store: &EmbeddedStore) -> (u64, u64) {
    let slot = store.shared.database.read();
    let read = slot.as_ref().unwrap().begin_read().unwrap();
    let log = read.open_table(tables::LOG).unwrap().len().unwrap();
    (log, read.open_table(tables::CUR).unwrap().len().unwrap())
}

#[tokio::test]
async fn compacted_versions_and_deleted_keys_leave_the_file() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store.redb");
    let store = open(&path);
    // More than one round of sweeping, in transactions whose revisions must not be split.
    for round in 0..100_u8 {
        let op = |key: u8| {
            let key = Bytes::from(format!("{key:02}"));
            match (round, key.as_ref()) {
                (99, [b'0', _]) => Op::Delete { key },
                _ => Op::Put {
                    key,
                    value: Bytes::from(vec![round]),
                    lease: None,
                },
            }
        };
        store
            .txn(Txn {
                compare: vec![],
                ops: (0..50).map(op).collect(),
            })
            .await
            .unwrap();
    }
    assert_eq!(rows(&store), (5_000, 50));
    store.compact(Revision(60)).await.unwrap();
    until("old versions are gone", async || rows(&store) == (2_050, 50)).await;
    let old = store
        .range(Range {
            at: Some(Revision(60)),
            ..Range::default()
        })
        .await
        .unwrap();
    assert!(
        old.kvs
            .iter()
            .all(|kv| kv.mod_revision == Revision(60) && kv.version == 60)
    );
    store.compact(Revision(100)).await.unwrap();
    until("deleted keys are gone", async || rows(&store) == (40, 40)).await;
    assert_eq!(store.range(Range::default()).await.unwrap().count, 40);
}

#[tokio::test]
async fn sweeping_that_was_interrupted_goes_on_after_reopening() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store.redb");
    let store = open(&path);
    for number in 0..100_u8 {
        store.txn(put("a", &[number])).await.unwrap();
    }
    store.close().await.unwrap();
    // As a crash right after the compaction was acknowledged leaves it.
    let database = open::reopen(&path, 1 << 20).unwrap();
    let write = database.begin_write().unwrap();
    write
        .open_table(tables::META)
        .unwrap()
        .insert(tables::META_COMPACTED, 90)
        .unwrap();
    write.commit().unwrap();
    drop(database);
    let store = open(&path);
    assert_eq!(store.compacted_revision(), Revision(90));
    until("old versions are gone", async || rows(&store).0 == 11).await;
}
