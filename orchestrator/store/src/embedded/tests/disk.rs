//! A disk that fills up, fails to sync, and recovers.

use std::io::Error;

use futures::StreamExt;

use super::*;
use crate::{Event, TxnOutcome};

/// What is wrong with the disk.
#[derive(Debug, Default)]
struct Faults {
    full: AtomicBool,
    /// Syncing reports failure though the data has arrived: the commit's fate is uncertain.
    sync_fails: AtomicBool,
}

/// A file on a disk with faults.
#[derive(Debug)]
struct FaultyFile {
    file: FileBackend,
    faults: Arc<Faults>,
}

impl FaultyFile {
    fn check_space(&self) -> Result<(), Error> {
        if self.faults.full.load(Ordering::SeqCst) {
            Err(Error::from_raw_os_error(28))
        } else {
            Ok(())
        }
    }
}

impl StorageBackend for FaultyFile {
    fn len(&self) -> Result<u64, Error> {
        self.file.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), Error> {
        self.file.read(offset, out)
    }

    fn set_len(&self, len: u64) -> Result<(), Error> {
        self.check_space()?;
        self.file.set_len(len)
    }

    fn sync_data(&self) -> Result<(), Error> {
        self.file.sync_data()?;
        if self.faults.sync_fails.load(Ordering::SeqCst) {
            return Err(Error::from_raw_os_error(5));
        }
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<(), Error> {
        self.check_space()?;
        self.file.write(offset, data)
    }

    fn close(&self) -> Result<(), Error> {
        self.file.close()
    }
}

/// The events of the next message, none if it tells of progress only.
async fn next_events(watch: &mut Watch) -> Vec<Event> {
    let message = tokio::time::timeout(DEADLINE, watch.next())
        .await
        .expect("the watch goes on");
    match message.unwrap().unwrap() {
        WatchMessage::Events { events, .. } => events,
        WatchMessage::Progress(_) => Vec::new(),
    }
}

fn open_on(path: &Path, faults: &Arc<Faults>) -> EmbeddedStore {
    let (path, faults) = (path.to_owned(), Arc::clone(faults));
    let opener = move || {
        let options = fs::OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)?;
        let file = FaultyFile {
            file: FileBackend::new(options)?,
            faults: Arc::clone(&faults),
        };
        Database::builder()
            .set_cache_size(1 << 20)
            .create_with_backend(file)
    };
    let database = opener().unwrap();
    open::initialise(&database).unwrap();
    EmbeddedStore::start(database, Box::new(opener), WatchLimits::default()).unwrap()
}

#[tokio::test]
async fn a_full_disk_fails_writes_and_nothing_acknowledged_is_lost() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store.redb");
    let faults = Arc::new(Faults::default());
    let store = open_on(&path, &faults);
    let mut watch = store.watch(Bytes::new(), Revision::NONE).await.unwrap();
    store.txn(put("before", &[1; 5_000])).await.unwrap();
    faults.full.store(true, Ordering::SeqCst);
    for attempt in 0..3 {
        let error = store.txn(put("during", &[2; 5_000])).await.unwrap_err();
        assert_eq!(error.class(), ErrorClass::Uncertain, "attempt {attempt}: {error}");
        assert!(matches!(error, StoreError::Io { .. }), "{error}");
    }
    faults.full.store(false, Ordering::SeqCst);
    until("writes work again", async || {
        store.txn(put("after", &[3; 5_000])).await.is_ok()
    })
    .await;
    let (_, before) = store.get(Bytes::from("before"), None).await.unwrap();
    assert_eq!(before.unwrap().value, vec![1; 5_000]);
    // The watcher saw exactly what the store holds, in order and once.
    let held = store.current_revision();
    let mut seen = Vec::new();
    while seen.last() != Some(&held.0) {
        seen.extend(
            next_events(&mut watch)
                .await
                .iter()
                .map(|event| event.kv.mod_revision.0),
        );
    }
    assert_eq!(seen, (1..=held.0).collect::<Vec<_>>());
    store.close().await.unwrap();
    drop(store);
    assert_eq!(open(&path).current_revision(), held);
}

#[tokio::test]
async fn a_commit_that_arrived_though_its_sync_failed_is_published_to_watchers() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store.redb");
    let faults = Arc::new(Faults::default());
    let store = open_on(&path, &faults);
    let mut watch = store.watch(Bytes::new(), Revision::NONE).await.unwrap();
    store.txn(put("a", b"1")).await.unwrap();
    faults.sync_fails.store(true, Ordering::SeqCst);
    store.txn(put("a", b"2")).await.unwrap_err();
    faults.sync_fails.store(false, Ordering::SeqCst);
    let outcome = async || match store.txn(put("a", b"3")).await {
        Ok(TxnOutcome::Committed { revision, previous }) => Some((revision, previous)),
        Ok(TxnOutcome::Conflict { .. }) | Err(_) => None,
    };
    let mut last = None;
    until("writes work again", async || {
        last = outcome().await;
        last.is_some()
    })
    .await;
    let (revision, mut previous) = last.unwrap();
    let mut seen = Vec::new();
    while seen.len() as u64 != revision.0 {
        seen.extend(next_events(&mut watch).await);
    }
    // Whichever way the failed commit went, the watcher and the next writer saw the same.
    assert_eq!(seen.last().unwrap().previous, previous.remove(0));
    let revisions: Vec<_> = seen.iter().map(|event| event.kv.mod_revision.0).collect();
    assert_eq!(revisions, (1..=revision.0).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_store_on_a_full_disk_closes() {
    let directory = tempfile::tempdir().unwrap();
    let faults = Arc::new(Faults::default());
    let store = open_on(&directory.path().join("store.redb"), &faults);
    store.txn(put("a", b"1")).await.unwrap();
    faults.full.store(true, Ordering::SeqCst);
    store.txn(put("a", b"2")).await.unwrap_err();
    tokio::time::timeout(DEADLINE, store.close())
        .await
        .expect("close comes to an end")
        .ok();
    assert_eq!(store.txn(put("a", b"2")).await, Err(StoreError::Closed));
}
