//! How fast the embedded store writes on this disk: durable transactions with one and with many writers, next to
//! what a bare `fdatasync` costs here.
//!
//! `cargo run --release -p moorline-store --example store_bench -- [DIRECTORY] [SECONDS]`

use std::fs::OpenOptions;
use std::io::{Seek, Write};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use moorline_store::{EmbeddedOptions, EmbeddedStore, Revision, Store, Txn, TxnOutcome};
use tokio::task::JoinSet;
use tokio::time::Instant;

/// About the size of a claim.
const VALUE_BYTES: usize = 1_500;
/// Each writer goes round over so many objects.
const OBJECTS: u64 = 200;

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
#[expect(clippy::print_stdout, reason = "the program's answer")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let directory = arguments
        .next()
        .unwrap_or_else(|| std::env::temp_dir().display().to_string());
    let run_for = Duration::from_secs(arguments.next().map_or(Ok(3), |seconds| seconds.parse())?);
    let directory = tempfile::tempdir_in(directory)?;

    let sync = fdatasync_time(directory.path(), run_for.min(Duration::from_secs(1)))?;
    println!(
        "fdatasync of one page: p50 {:>7.1} us",
        micros(percentile(&sync, 50))
    );
    for writers in [1, 8, 32, 64] {
        let path = directory.path().join(format!("{writers}.redb"));
        let store = Arc::new(EmbeddedStore::open(&path, EmbeddedOptions::default())?);
        let cpu_before = cpu_seconds()?;
        let started = Instant::now();
        let taken = write(&store, writers, run_for).await;
        let seconds = started.elapsed().as_secs_f64();
        let count = u32::try_from(taken.len())?;
        println!(
            "{writers:>3} writers: {:>8.0} txn/s, p50 {:>7.1} us, p99 {:>7.1} us, {:>5.1} us CPU a txn, file {:>6.1} MiB",
            f64::from(count) / seconds,
            micros(percentile(&taken, 50)),
            micros(percentile(&taken, 99)),
            (cpu_seconds()? - cpu_before) / f64::from(count) * 1e6,
            f64::from(u32::try_from(std::fs::metadata(&path)?.len() / 1_024)?) / 1_024.0,
        );
        store.close().await?;
    }
    println!("peak memory: {}", peak_memory()?);
    Ok(())
}

/// Overwrites one page and syncs it, again and again.
fn fdatasync_time(directory: &Path, run_for: Duration) -> std::io::Result<Vec<Duration>> {
    let path = directory.join("raw");
    let mut file = OpenOptions::new().create_new(true).write(true).open(path)?;
    let mut taken = Vec::new();
    let end = Instant::now() + run_for;
    while Instant::now() < end {
        let started = Instant::now();
        file.rewind()?;
        file.write_all(&[1; 4_096])?;
        file.sync_data()?;
        taken.push(started.elapsed());
    }
    taken.sort_unstable();
    Ok(taken)
}

/// Compare-and-swap updates as an API server makes them, with a compaction each second.
async fn write(store: &Arc<EmbeddedStore>, writers: u64, run_for: Duration) -> Vec<Duration> {
    let end = Instant::now() + run_for;
    let mut tasks = JoinSet::new();
    for writer in 0..writers {
        tasks.spawn(update_objects(Arc::clone(store), writer, end));
    }
    let mut compaction = tokio::time::interval(Duration::from_secs(1));
    let mut taken = Vec::new();
    loop {
        tokio::select! {
            done = tasks.join_next() => match done {
                Some(done) => taken.extend(done.expect("a writer does not panic")),
                None => break,
            },
            _ = compaction.tick() => {
                let keep_from = Revision(store.current_revision().0.saturating_sub(2_000));
                store.compact(keep_from).await.expect("the disk works");
            }
        }
    }
    taken.sort_unstable();
    taken
}

async fn update_objects(store: Arc<EmbeddedStore>, writer: u64, end: Instant) -> Vec<Duration> {
    let mut taken = Vec::new();
    let mut known = vec![Revision::NONE; usize::try_from(OBJECTS).expect("a small number")];
    for number in 0_u64.. {
        if Instant::now() >= end {
            break;
        }
        let object = usize::try_from(number % OBJECTS).expect("a small number");
        let key = Bytes::from(format!(
            "/registry/persistentvolumeclaims/bench-{writer}/claim-{object}"
        ));
        let value = Bytes::from(vec![b'x'; VALUE_BYTES]);
        let started = Instant::now();
        let outcome = store.txn(Txn::put_if(key, known[object], value, None)).await;
        taken.push(started.elapsed());
        match outcome.expect("the disk works") {
            TxnOutcome::Committed { revision, .. } => known[object] = revision,
            TxnOutcome::Conflict { .. } => unreachable!("each key has one writer"),
        }
    }
    taken
}

fn percentile(sorted: &[Duration], percent: usize) -> Duration {
    sorted
        .get(sorted.len() * percent / 100)
        .copied()
        .unwrap_or_default()
}

fn micros(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e6
}

/// User and system time of this process so far. Linux counts them in hundredths of a second.
fn cpu_seconds() -> Result<f64, Box<dyn std::error::Error>> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    let after_name = stat.rsplit_once(')').ok_or("no name in /proc/self/stat")?.1;
    let ticks: Result<Vec<f64>, _> = after_name
        .split_whitespace()
        .skip(11)
        .take(2)
        .map(str::parse)
        .collect();
    Ok(ticks?.iter().sum::<f64>() / 100.0)
}

fn peak_memory() -> Result<String, Box<dyn std::error::Error>> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))
        .ok_or("no VmHWM")?;
    Ok(line.trim().to_owned())
}
