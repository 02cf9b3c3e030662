//! Power loss at any moment: of what was not synced, any sectors may have reached the disk, in any order. What was
//! acknowledged has to be there, and what is there has to be a whole prefix of what was written.

use std::collections::BTreeMap;
use std::io::Error;

use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::*;
use crate::TxnOutcome;

const ROUNDS: u64 = 40;
const WRITERS: u64 = 6;
/// The unit that a disk writes whole.
const SECTOR: usize = 512;

/// What a machine has written to a file, and what of it is certain.
#[derive(Debug, Default)]
struct Disk {
    seen: Vec<u8>,
    synced: Vec<u8>,
    /// Since the last sync: writes by offset, in order. Changes of length are taken as done.
    unsynced: Vec<(usize, Vec<u8>)>,
    /// The power is gone: nothing happens any more.
    dead: bool,
}

impl Disk {
    /// What is found after power loss: what was synced, and of the rest whatever sectors made it.
    fn after_power_loss(&self, random: &mut StdRng) -> Vec<u8> {
        let mut image = self.synced.clone();
        image.resize(self.seen.len(), 0);
        let share = random.random_range(0.0..1.0);
        for (offset, data) in &self.unsynced {
            for (number, sector) in data.chunks(SECTOR).enumerate() {
                let at = offset + number * SECTOR;
                if random.random_bool(share) && at + sector.len() <= image.len() {
                    image[at..at + sector.len()].copy_from_slice(sector);
                }
            }
        }
        image
    }

    fn check_power(&self) -> Result<(), Error> {
        if self.dead {
            Err(Error::other("no power"))
        } else {
            Ok(())
        }
    }
}

/// A file on a disk that may lose power.
#[derive(Clone, Debug)]
struct File(Arc<Mutex<Disk>>);

fn place(offset: u64) -> usize {
    usize::try_from(offset).unwrap()
}

impl StorageBackend for File {
    fn len(&self) -> Result<u64, Error> {
        Ok(self.0.lock().seen.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), Error> {
        let disk = self.0.lock();
        out.copy_from_slice(&disk.seen[place(offset)..place(offset) + out.len()]);
        Ok(())
    }

    fn set_len(&self, len: u64) -> Result<(), Error> {
        let mut disk = self.0.lock();
        disk.check_power()?;
        disk.seen.resize(place(len), 0);
        Ok(())
    }

    fn sync_data(&self) -> Result<(), Error> {
        let mut disk = self.0.lock();
        disk.check_power()?;
        disk.synced = disk.seen.clone();
        disk.unsynced.clear();
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<(), Error> {
        let mut disk = self.0.lock();
        disk.check_power()?;
        disk.seen[place(offset)..place(offset) + data.len()].copy_from_slice(data);
        disk.unsynced.push((place(offset), data.to_vec()));
        Ok(())
    }
}

fn open_disk(disk: &Arc<Mutex<Disk>>) -> EmbeddedStore {
    let file = File(Arc::clone(disk));
    let opener = move || {
        Database::builder()
            .set_cache_size(1 << 20)
            .create_with_backend(file.clone())
    };
    EmbeddedStore::start(opener().unwrap(), Box::new(opener), WatchLimits::default()).unwrap()
}

/// Writers count up, each on its own key, until the power goes. Answers each one's last acknowledged count.
async fn count_up_until_dead(store: &EmbeddedStore, from: &BTreeMap<String, u64>) -> BTreeMap<String, u64> {
    let writers = (0..WRITERS).map(|writer| async move {
        let key = format!("writer-{writer}");
        let mut acknowledged = from.get(&key).copied().unwrap_or(0);
        loop {
            let value = (acknowledged + 1).to_string();
            let filler = format!("{value} {}", "x".repeat(1_000));
            match store.txn(put(&key, filler.as_bytes())).await {
                Ok(TxnOutcome::Committed { .. }) => acknowledged += 1,
                Ok(conflict) => panic!("{conflict:?}"),
                Err(_) => return (key, acknowledged),
            }
        }
    });
    futures::future::join_all(writers).await.into_iter().collect()
}

async fn counts(store: &EmbeddedStore) -> BTreeMap<String, u64> {
    let found = store.range(Range::default()).await.unwrap();
    let count = |kv: KeyValue| {
        let text = String::from_utf8(kv.value.to_vec()).unwrap();
        let count = text.split(' ').next().unwrap().parse().unwrap();
        assert_eq!(kv.version, count, "each write of a key is one version of it");
        (String::from_utf8(kv.key.to_vec()).unwrap(), count)
    };
    found.kvs.into_iter().map(count).collect()
}

/// Cuts the power once the store has come to a revision, at a random moment after that.
async fn cut_power(store: &EmbeddedStore, disk: &Arc<Mutex<Disk>>, at: Revision, spins: u32) {
    while store.current_revision() < at {
        tokio::task::yield_now().await;
    }
    for _ in 0..spins {
        std::hint::spin_loop();
    }
    disk.lock().dead = true;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn acknowledged_writes_survive_power_loss() {
    let seed = rand::random();
    eprintln!("seed {seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let disk = Arc::new(Mutex::new(Disk::default()));
    let file = File(Arc::clone(&disk));
    open::initialise(&Database::builder().create_with_backend(file).unwrap()).unwrap();
    let mut image = disk.lock().synced.clone();
    let mut known = BTreeMap::new();
    let mut revision = Revision::NONE;
    for round in 0..ROUNDS {
        let disk = Arc::new(Mutex::new(Disk {
            seen: image.clone(),
            synced: image,
            ..Disk::default()
        }));
        let store = open_disk(&disk);
        assert!(
            store.current_revision() >= revision,
            "round {round}: revisions went back"
        );
        let found = counts(&store).await;
        for (key, acknowledged) in &known {
            let there = found.get(key).copied().unwrap_or(0);
            // Of one writer at most one write is under way.
            let expected = *acknowledged..=*acknowledged + 1;
            assert!(
                expected.contains(&there),
                "round {round}: {key}: {acknowledged} acknowledged, {there} found"
            );
        }
        let total: u64 = found.values().sum();
        assert_eq!(
            store.current_revision().0,
            total,
            "round {round}: each revision is one write"
        );
        revision = Revision(total);
        let cut_at = Revision(total + random.random_range(0..40));
        let spins = random.random_range(0..200_000);
        let cut = cut_power(&store, &disk, cut_at, spins);
        (known, ()) = futures::join!(count_up_until_dead(&store, &found), cut);
        drop(store);
        image = disk.lock().after_power_loss(&mut random);
    }
    assert!(revision.0 > ROUNDS, "writes happened: {revision}");
}
