//! Random histories of both engines against a small reference model that keeps every event for ever.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use futures::StreamExt;
use moorline_store::{
    Compare, EmbeddedOptions, EmbeddedStore, Event, EventKind, KeyValue, MemoryStore, Op, Range, RangeResult,
    Revision, Store, StoreError, Txn, TxnOutcome, Watch, WatchMessage,
};
use proptest::prelude::*;

/// The keys that histories use: few, so that they meet, with prefixes of each other.
const KEYS: [&str; 6] = ["a", "a/1", "a/2", "b", "b/1", "c"];

/// One step of a history. Numbers are reduced to what exists when the step is done.
#[derive(Clone, Debug)]
enum Step {
    Txn {
        changes: Vec<(usize, Option<u8>)>,
        guesses: Vec<(usize, Guess)>,
    },
    Range {
        prefix: usize,
        limit: Option<usize>,
        back: Option<u64>,
        keys_only: bool,
    },
    Get {
        key: usize,
        back: Option<u64>,
    },
    Compact {
        back: u64,
    },
    Watch {
        prefix: usize,
        back: u64,
    },
    Reopen,
}

/// What a transaction believes about a key.
#[derive(Clone, Copy, Debug)]
enum Guess {
    Right,
    Absent,
    Older,
}

fn step() -> impl Strategy<Value = Step> {
    let key = 0..KEYS.len();
    let prefix = 0..KEYS.len() + 1;
    let change = (key.clone(), proptest::option::weighted(0.7, any::<u8>()));
    let guess = prop_oneof![6 => Just(Guess::Right), 1 => Just(Guess::Absent), 1 => Just(Guess::Older)];
    let guesses = proptest::collection::vec((key.clone(), guess), 0..3);
    let back = proptest::option::of(0_u64..12);
    prop_oneof![
        12 => (proptest::collection::vec(change, 0..4), guesses)
            .prop_map(|(changes, guesses)| Step::Txn { changes, guesses }),
        4 => (prefix.clone(), proptest::option::of(0_usize..5), back.clone(), any::<bool>())
            .prop_map(|(prefix, limit, back, keys_only)| Step::Range { prefix, limit, back, keys_only }),
        2 => (key, back).prop_map(|(key, back)| Step::Get { key, back }),
        1 => (0_u64..10).prop_map(|back| Step::Compact { back }),
        2 => (prefix, 0_u64..15).prop_map(|(prefix, back)| Step::Watch { prefix, back }),
        1 => Just(Step::Reopen),
    ]
}

/// The store as it should be: all that ever happened.
#[derive(Default)]
struct Model {
    events: Vec<Event>,
    revision: Revision,
    compacted: Revision,
}

impl Model {
    fn state_at(&self, at: Revision) -> BTreeMap<Bytes, KeyValue> {
        let mut state = BTreeMap::new();
        for event in self.events.iter().filter(|event| event.kv.mod_revision <= at) {
            match event.kind {
                EventKind::Put => state.insert(event.kv.key.clone(), event.kv.clone()),
                EventKind::Delete => state.remove(&event.kv.key),
            };
        }
        state
    }

    fn readable(&self, at: Option<Revision>) -> Result<Revision, StoreError> {
        let requested = at.unwrap_or(self.revision);
        match () {
            () if requested > self.revision => Err(StoreError::FutureRevision {
                requested,
                current: self.revision,
            }),
            () if requested < self.compacted => Err(StoreError::Compacted {
                compacted: self.compacted,
            }),
            () => Ok(requested),
        }
    }

    fn txn(&mut self, txn: &Txn) -> TxnOutcome {
        let state = self.state_at(self.revision);
        let current: Vec<_> = txn
            .compare
            .iter()
            .map(|compare| state.get(&compare.key).cloned())
            .collect();
        let revision_of = |kv: &Option<KeyValue>| kv.as_ref().map_or(Revision(0), |kv| kv.mod_revision);
        if txn
            .compare
            .iter()
            .zip(&current)
            .any(|(compare, kv)| compare.mod_revision != revision_of(kv))
        {
            return TxnOutcome::Conflict {
                revision: self.revision,
                current,
            };
        }
        let next = Revision(self.revision.0 + 1);
        let mut previous = Vec::new();
        for op in &txn.ops {
            let before = state.get(op.key()).cloned();
            if let Some(event) = event(op, before.clone(), next) {
                self.events.push(event);
                self.revision = next;
            }
            previous.push(before);
        }
        TxnOutcome::Committed {
            revision: self.revision,
            previous,
        }
    }

    fn range(&self, range: &Range) -> Result<RangeResult, StoreError> {
        let state = self.state_at(self.readable(range.at)?);
        let mut kvs: Vec<_> = state.into_values().filter(|kv| range.contains(&kv.key)).collect();
        let count = kvs.len() as u64;
        kvs.truncate(range.limit.unwrap_or(usize::MAX));
        if range.keys_only {
            kvs.iter_mut().for_each(|kv| kv.value = Bytes::new());
        }
        Ok(RangeResult {
            revision: self.revision,
            more: count > kvs.len() as u64,
            count,
            kvs,
        })
    }

    fn events_after(&self, prefix: &[u8], after: Revision) -> Vec<Event> {
        let wanted = |event: &&Event| event.kv.mod_revision > after && event.kv.key.starts_with(prefix);
        self.events.iter().filter(wanted).cloned().collect()
    }
}

fn event(op: &Op, before: Option<KeyValue>, revision: Revision) -> Option<Event> {
    let (kind, value, create_revision, version) = match (op, &before) {
        (Op::Delete { .. }, None) => return None,
        (Op::Delete { .. }, Some(_)) => (EventKind::Delete, Bytes::new(), Revision(0), 0),
        (Op::Put { value, .. }, None) => (EventKind::Put, value.clone(), revision, 1),
        (Op::Put { value, .. }, Some(kv)) => {
            (EventKind::Put, value.clone(), kv.create_revision, kv.version + 1)
        }
    };
    let key = op.key().clone();
    let kv = KeyValue {
        key,
        value,
        create_revision,
        mod_revision: revision,
        version,
        lease: None,
    };
    Some(Event {
        kind,
        kv,
        previous: before,
    })
}

/// A watch that runs beside the history, and where it stands.
struct Running {
    watch: Watch,
    prefix: Bytes,
    seen: Revision,
}

impl Running {
    /// Reads on until the watch has come to `upto`, and compares with the model.
    async fn catch_up(&mut self, model: &Model, upto: Revision) {
        let expected = model.events_after(&self.prefix, self.seen);
        let mut found = Vec::new();
        while self.seen < upto {
            match self
                .watch
                .next()
                .await
                .expect("a watch goes on")
                .expect("a watch goes on")
            {
                WatchMessage::Progress(revision) => self.seen = revision,
                WatchMessage::Events { revision, events } => {
                    self.seen = revision;
                    found.extend(events);
                }
            }
        }
        assert_eq!(found, expected);
    }
}

/// The store under test with its model and the watches on it.
struct Bench {
    store: Arc<dyn Store>,
    reopen: Option<PathBuf>,
    model: Model,
    running: Vec<Running>,
}

impl Bench {
    fn back(&self, back: Option<u64>) -> Option<Revision> {
        // One more than the current revision is in the future.
        back.map(|back| Revision((self.model.revision.0 + 1).saturating_sub(back)))
    }

    async fn step(&mut self, step: &Step) {
        match step {
            Step::Txn { changes, guesses } => {
                let txn = self.txn(changes, guesses);
                let expected = self.model.txn(&txn);
                assert_eq!(self.store.txn(txn).await, Ok(expected));
            }
            Step::Range {
                prefix,
                limit,
                back,
                keys_only,
            } => {
                let (limit, at) = (*limit, self.back(*back));
                let range = Range {
                    limit,
                    at,
                    keys_only: *keys_only,
                    ..Range::prefix(&prefix_of(*prefix))
                };
                assert_eq!(self.store.range(range.clone()).await, self.model.range(&range));
            }
            Step::Get { key, back } => {
                let at = self.back(*back);
                let key = Bytes::from(KEYS[*key]);
                let expected = self
                    .model
                    .readable(at)
                    .map(|at| (self.model.revision, self.model.state_at(at).remove(&key)));
                assert_eq!(self.store.get(key, at).await, expected);
            }
            Step::Compact { back } => {
                let revision = Revision(self.model.revision.0.saturating_sub(*back));
                self.store.compact(revision).await.unwrap();
                self.model.compacted = self.model.compacted.max(revision);
                assert_eq!(self.store.compacted_revision(), self.model.compacted);
            }
            Step::Watch { prefix, back } => self.watch(prefix_of(*prefix), *back).await,
            Step::Reopen => self.reopen().await,
        }
        assert_eq!(self.store.current_revision(), self.model.revision);
    }

    fn txn(&self, changes: &[(usize, Option<u8>)], guesses: &[(usize, Guess)]) -> Txn {
        let state = self.model.state_at(self.model.revision);
        let compare = |(key, guess): &(usize, Guess)| {
            let key = Bytes::from(KEYS[*key]);
            let right = state.get(&key).map_or(0, |kv| kv.mod_revision.0);
            let mod_revision = Revision(match guess {
                Guess::Right => right,
                Guess::Absent => 0,
                Guess::Older => right.saturating_sub(1),
            });
            Compare { key, mod_revision }
        };
        let changes: BTreeMap<_, _> = changes.iter().copied().collect();
        let op = |(key, value): (usize, Option<u8>)| {
            let key = Bytes::from(KEYS[key]);
            match value {
                Some(value) => Op::Put {
                    key,
                    value: vec![value; 3].into(),
                    lease: None,
                },
                None => Op::Delete { key },
            }
        };
        Txn {
            compare: guesses.iter().map(compare).collect(),
            ops: changes.into_iter().map(op).collect(),
        }
    }

    async fn watch(&mut self, prefix: Bytes, back: u64) {
        let after = Revision(self.model.revision.0.saturating_sub(back));
        let watch = self.store.watch(prefix.clone(), after).await;
        if after < self.model.compacted {
            let compacted = self.model.compacted;
            assert_eq!(watch.err(), Some(StoreError::Compacted { compacted }));
            return;
        }
        let mut running = Running {
            watch: watch.unwrap(),
            prefix,
            seen: after,
        };
        // The replay is read at once, because a later compaction may overtake it.
        running.catch_up(&self.model, self.model.revision).await;
        self.running.push(running);
    }

    async fn check_watches(&mut self) {
        for running in &mut self.running {
            running.catch_up(&self.model, self.model.revision).await;
        }
    }

    async fn reopen(&mut self) {
        let Some(path) = &self.reopen else { return };
        let path = path.clone();
        self.check_watches().await;
        self.store.close().await.unwrap();
        self.running.clear();
        self.store = Arc::new(EmbeddedStore::open(&path, EmbeddedOptions::default()).unwrap());
        assert_eq!(self.store.compacted_revision(), self.model.compacted);
    }
}

/// The prefixes that ranges and watches use: each key, and none.
fn prefix_of(number: usize) -> Bytes {
    KEYS.get(number).map_or(Bytes::new(), |key| Bytes::from(*key))
}

fn run(store: Arc<dyn Store>, reopen: Option<PathBuf>, steps: &[Step]) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let mut bench = Bench {
            store,
            reopen,
            model: Model::default(),
            running: Vec::new(),
        };
        for step in steps {
            bench.step(step).await;
        }
        bench.check_watches().await;
        bench.store.close().await.unwrap();
    });
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]
    #[test]
    fn memory_engine_follows_the_model(steps in proptest::collection::vec(step(), 1..80)) {
        run(Arc::new(MemoryStore::new()), None, &steps);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]
    #[test]
    fn embedded_engine_follows_the_model(steps in proptest::collection::vec(step(), 1..80)) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("store.redb");
        let store = EmbeddedStore::open(&path, EmbeddedOptions::default()).unwrap();
        run(Arc::new(store), Some(path), &steps);
    }
}
