//! A writer that appends numbered records, and what a copy of its file holds: which records are whole, from the first on.

use std::{
    fs::File,
    io::ErrorKind,
    os::unix::fs::FileExt as _,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use sha2::{Digest as _, Sha256};

pub(super) const RECORD_BYTES: usize = 4096;
const SUM_BYTES: usize = 32;
/// Records between two syncs.
const BATCH: u64 = 64;
/// How soon a writer without room looks again.
const RETRY_INTERVAL: Duration = Duration::from_millis(5);

/// The record with this number: the number, bytes that follow from it, the checksum of both.
pub(super) fn record(number: u64) -> Vec<u8> {
    let mut bytes = number.to_le_bytes().to_vec();
    let mut state = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    while bytes.len() < RECORD_BYTES - SUM_BYTES {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend(state.to_le_bytes());
    }
    let sum = Sha256::digest(&bytes);
    bytes.extend(sum);
    bytes
}

fn is_whole(number: u64, bytes: &[u8]) -> bool {
    bytes == record(number)
}

/// What a file or device holds of a writer's records.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Held {
    /// Whole from the first on.
    pub(super) prefix: u64,
    /// Whole ones after the first that is not.
    pub(super) stray: u64,
    /// Bytes of a last record that is not all there.
    pub(super) torn_bytes: usize,
}

pub(super) fn held(bytes: &[u8]) -> Held {
    let mut held = Held {
        prefix: 0,
        stray: 0,
        torn_bytes: bytes.len() % RECORD_BYTES,
    };
    for (number, bytes) in (0..).zip(bytes.chunks_exact(RECORD_BYTES)) {
        match is_whole(number, bytes) {
            true if held.prefix == number => held.prefix += 1,
            true => held.stray += 1,
            false => {}
        }
    }
    held
}

#[derive(Debug, Default)]
struct Counts {
    stop: AtomicBool,
    written: AtomicU64,
    synced: AtomicU64,
    refused: AtomicU64,
}

/// A thread that writes one record after the other until it is told to end. Without room it waits for some.
pub(super) struct Writer {
    counts: Arc<Counts>,
    thread: Option<JoinHandle<std::io::Result<()>>>,
}

impl Writer {
    /// `path`: a file to make, or a device.
    pub(super) fn start(path: &Path) -> Self {
        let file = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(path)
            .unwrap();
        let counts = Arc::new(Counts::default());
        let of_thread = Arc::clone(&counts);
        Writer {
            counts,
            thread: Some(thread::spawn(move || write(&file, &of_thread))),
        }
    }

    pub(super) fn written(&self) -> u64 {
        self.counts.written.load(Ordering::SeqCst)
    }

    /// Records that are durable.
    pub(super) fn synced(&self) -> u64 {
        self.counts.synced.load(Ordering::SeqCst)
    }

    /// How often there was no room.
    pub(super) fn refused(&self) -> u64 {
        self.counts.refused.load(Ordering::SeqCst)
    }

    /// How many records it has written and synced.
    pub(super) fn end(mut self) -> u64 {
        self.counts.stop.store(true, Ordering::SeqCst);
        let ended = self.thread.take().expect("it ends once").join();
        ended.unwrap().unwrap();
        self.synced()
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.counts.stop.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            thread.join().ok(); // The test has failed already.
        }
    }
}

fn write(file: &File, counts: &Counts) -> std::io::Result<()> {
    let length = u64::try_from(RECORD_BYTES).unwrap();
    let mut number = 0;
    while !counts.stop.load(Ordering::SeqCst) {
        match file.write_all_at(&record(number), number * length) {
            Ok(()) => {
                number += 1;
                counts.written.store(number, Ordering::SeqCst);
            }
            Err(error) if is_full(&error) => {
                counts.refused.fetch_add(1, Ordering::SeqCst);
                thread::park_timeout(RETRY_INTERVAL);
                continue;
            }
            Err(error) => return Err(error),
        }
        if number % BATCH == 0 {
            file.sync_data()?;
            counts.synced.store(number, Ordering::SeqCst);
        }
    }
    file.sync_all()?;
    counts.synced.store(number, Ordering::SeqCst);
    Ok(())
}

fn is_full(error: &std::io::Error) -> bool {
    // The end of a device is a write of nothing.
    matches!(
        error.kind(),
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::WriteZero
    )
}

#[test]
fn whole_records_are_counted_and_others_seen() {
    let bytes = |numbers: &[u64]| -> Vec<u8> { numbers.iter().flat_map(|number| record(*number)).collect() };
    let expect = |prefix, stray, torn_bytes| Held {
        prefix,
        stray,
        torn_bytes,
    };
    let zero = vec![0; RECORD_BYTES];
    let cases = [
        ("nothing", vec![], expect(0, 0, 0)),
        ("all whole", bytes(&[0, 1, 2]), expect(3, 0, 0)),
        (
            "room after them",
            [bytes(&[0, 1]), zero.clone()].concat(),
            expect(2, 0, 0),
        ),
        (
            "one is missing",
            [bytes(&[0]), zero, bytes(&[2])].concat(),
            expect(1, 1, 0),
        ),
        ("in a wrong place", bytes(&[1, 1]), expect(0, 1, 0)),
        (
            "cut off",
            bytes(&[0, 1])[..RECORD_BYTES + 7].to_vec(),
            expect(1, 0, 7),
        ),
    ];
    for (name, bytes, expected) in cases {
        assert_eq!(held(&bytes), expected, "{name}");
    }
    let mut flipped = bytes(&[0, 1]);
    flipped[100] ^= 1;
    assert_eq!(held(&flipped), expect(0, 1, 0), "a flipped bit");
}
