//! Kill -9 of a writing process at random moments: every acknowledged write is there afterwards.
//!
//! The test starts itself again as the writer; that process prints each write once the store has acknowledged it.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use moorline_store::{EmbeddedOptions, EmbeddedStore, Op, Range, Revision, Store, Txn, TxnOutcome};
use rand::RngExt;

const TEST: &str = "kill::acknowledged_writes_survive_kill";
const STORE: &str = "MOORLINE_STORE_KILL_TEST";
const ROUNDS: u64 = 12;
const WRITERS: u64 = 8;
/// Each writer goes round over so many keys, so that keys are made, changed and deleted.
const KEYS: u64 = 50;

/// What the writer says of one acknowledged write.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Written {
    revision: Revision,
    value: Option<String>,
}

#[test]
fn acknowledged_writes_survive_kill() {
    if let Some(path) = std::env::var_os(STORE) {
        write_until_killed(Path::new(&path));
    }
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store.redb");
    let mut expected = BTreeMap::new();
    let mut newest = Revision(0);
    for round in 0..ROUNDS {
        let acknowledged = run_and_kill(&path);
        assert!(
            !acknowledged.is_empty(),
            "round {round}: nothing was written before the kill"
        );
        for (key, written) in acknowledged {
            assert!(
                written.revision > newest,
                "round {round}: revision {} was given before",
                written.revision
            );
            keep_newer(&mut expected, key, written);
        }
        newest = check(&path, round, &mut expected);
    }
}

/// Lines of one writer process come in any order; of one key the newest counts.
fn keep_newer(expected: &mut BTreeMap<String, Written>, key: String, written: Written) {
    let newer = expected
        .get(&key)
        .is_none_or(|known| known.revision < written.revision);
    if newer {
        expected.insert(key, written);
    }
}

fn run_and_kill(path: &Path) -> Vec<(String, Written)> {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", TEST, "--nocapture", "--test-threads=1"])
        .env(STORE, path)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    // From "just started" to "has committed a good while".
    let kill_after = rand::rng().random_range(1..1_200_usize);
    let mut acknowledged = Vec::new();
    for line in lines {
        // The kill may cut the last line in two.
        let Ok(line) = line else { break };
        if let Some(written) = parse(&line) {
            acknowledged.push(written);
        }
        if acknowledged.len() == kill_after {
            child.kill().unwrap();
        }
    }
    reap(child);
    acknowledged
}

fn reap(mut child: Child) {
    let status = child.wait().unwrap();
    assert_eq!(status.code(), None, "the writer ended by itself");
}

/// `ack <key> <revision> <value or -> .`; the dot shows that the line is whole.
fn parse(line: &str) -> Option<(String, Written)> {
    let fields: Vec<_> = line.split(' ').collect();
    let ["ack", key, revision, value, "."] = fields[..] else {
        return None;
    };
    let value = (value != "-").then(|| value.to_owned());
    Some((
        key.to_owned(),
        Written {
            revision: Revision(revision.parse().ok()?),
            value,
        },
    ))
}

/// Compares the store with what was acknowledged. A write whose acknowledgement was lost may be there too: of its
/// writer there is at most one, with a newer revision. Takes those over. Answers the newest revision.
#[tokio::main(flavor = "current_thread")]
async fn check(path: &Path, round: u64, expected: &mut BTreeMap<String, Written>) -> Revision {
    let store = EmbeddedStore::open(path, EmbeddedOptions::default()).unwrap();
    let newest = store.current_revision();
    let found: BTreeMap<String, Written> = store
        .range(Range::default())
        .await
        .unwrap()
        .kvs
        .into_iter()
        .map(|kv| {
            let value = Some(String::from_utf8(kv.value.to_vec()).unwrap());
            let key = String::from_utf8(kv.key.to_vec()).unwrap();
            (
                key,
                Written {
                    revision: kv.mod_revision,
                    value,
                },
            )
        })
        .collect();
    let last = expected.values().map(|written| written.revision).max().unwrap();
    assert!(
        newest >= last,
        "round {round}: {last} was acknowledged, the store ends at {newest}"
    );
    let mut unacknowledged = newest.0 - last.0;
    assert!(
        unacknowledged <= WRITERS,
        "round {round}: {unacknowledged} writes nobody asked for"
    );
    for (key, written) in expected.iter_mut() {
        match found.get(key) {
            Some(there) if there == written => {}
            Some(there) if there.revision > written.revision => *written = there.clone(),
            None if written.value.is_none() => {}
            None if unacknowledged > 0 => {
                // A deletion that was not acknowledged.
                unacknowledged -= 1;
                *written = Written {
                    revision: newest,
                    value: None,
                };
            }
            other => panic!("round {round}: {key}: acknowledged {written:?}, found {other:?}"),
        }
    }
    let invented: Vec<_> = found
        .iter()
        .filter(|(key, there)| !expected.contains_key(*key) && there.revision <= last)
        .collect();
    // Acknowledged by the store, but killed before the line was whole.
    assert!(invented.len() as u64 <= WRITERS, "round {round}: {invented:?}");
    expected.extend(found);
    store.close().await.unwrap();
    newest
}

#[tokio::main]
async fn write_until_killed(path: &Path) -> ! {
    let store = Arc::new(EmbeddedStore::open(path, EmbeddedOptions::default()).unwrap());
    let writers = (0..WRITERS).map(|writer| write(Arc::clone(&store), writer));
    let compact = async {
        loop {
            tokio::time::sleep(Duration::from_millis(20)).await;
            store
                .compact(Revision(store.current_revision().0.saturating_sub(100)))
                .await
                .unwrap();
        }
    };
    tokio::select! {
        _ = futures::future::join_all(writers) => unreachable!("writers do not end"),
        () = compact => unreachable!("compaction does not end"),
    }
}

async fn write(store: Arc<EmbeddedStore>, writer: u64) {
    for number in 0_u64.. {
        let key = format!("{writer}/{}", number % KEYS);
        let value = (number % 7 != 6).then(|| format!("{number}-{}", "x".repeat(200)));
        let op = match value.clone() {
            Some(value) => Op::Put {
                key: key.clone().into(),
                value: value.into(),
                lease: None,
            },
            None => Op::Delete {
                key: Bytes::from(key.clone()),
            },
        };
        let outcome = store
            .txn(Txn {
                compare: vec![],
                ops: vec![op],
            })
            .await
            .unwrap();
        let TxnOutcome::Committed { revision, previous } = outcome else {
            panic!("{outcome:?}")
        };
        if value.is_none() && previous[0].is_none() {
            continue; // Nothing was there to delete: no revision of its own.
        }
        let line = format!("ack {key} {revision} {} .\n", value.as_deref().unwrap_or("-"));
        std::io::stdout().lock().write_all(line.as_bytes()).unwrap();
    }
}
