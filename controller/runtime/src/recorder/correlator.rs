//! Which occurrences become a new Event, which raise the count of an old one, and which are too many. No I/O.

use std::collections::HashMap;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::ObjectReference;
use tokio::time::Instant;

use super::EventType;

/// Events about one object that may come in a burst, and the time in which one more is earned (upstream's figures).
const BURST_PER_OBJECT: f64 = 25.0;
const REFILL_INTERVAL: Duration = Duration::from_secs(300);
/// What is remembered at most; beyond it the longest unused half is forgotten.
const MEMORY: usize = 4096;
/// Longest name of an object; the event's suffix has to fit in.
const NAME_LENGTH_MAX: usize = 253;

/// Something happened, as the caller said it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Occurrence {
    pub(super) object: ObjectReference,
    pub(super) event_type: EventType,
    pub(super) reason: String,
    pub(super) message: String,
    pub(super) at: Timestamp,
}

/// What makes two occurrences the same event.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Key {
    object: String,
    event_type: EventType,
    reason: String,
    message: String,
}

/// An event that was written, or is about to be.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Known {
    pub(super) name: String,
    pub(super) namespace: String,
    pub(super) count: i32,
    pub(super) first: Timestamp,
    used: Instant,
}

/// One write to do: a new event, or the higher count of a known one.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Write {
    pub(super) known: Known,
    pub(super) occurrence: Occurrence,
    pub(super) is_repeat: bool,
}

#[derive(Debug)]
struct Budget {
    tokens: f64,
    used: Instant,
}

/// Remembers recent events.
#[derive(Debug, Default)]
pub(super) struct Correlator {
    known: HashMap<Key, Known>,
    budgets: HashMap<String, Budget>,
    pending: HashMap<Key, Write>,
    order: Vec<Key>,
}

impl Correlator {
    /// Takes an occurrence; `suffix` names its event if that is new.
    pub(super) fn take(&mut self, occurrence: Occurrence, suffix: &str, now: Instant) {
        let object = object_key(&occurrence.object);
        if !self.spend(&object, now) {
            return;
        }
        let key = Key {
            object,
            event_type: occurrence.event_type,
            reason: occurrence.reason.clone(),
            message: occurrence.message.clone(),
        };
        let mut is_repeat = true;
        let known = self.known.entry(key.clone()).or_insert_with(|| {
            is_repeat = false;
            first_of(&occurrence, suffix, now)
        });
        known.count = known.count.saturating_add(1);
        known.used = now;
        let known = known.clone();
        match self.pending.get_mut(&key) {
            // Several within one batch become one write.
            Some(write) => {
                write.known = known;
                write.occurrence = occurrence;
            }
            None => {
                self.order.push(key.clone());
                self.pending.insert(
                    key,
                    Write {
                        known,
                        occurrence,
                        is_repeat,
                    },
                );
            }
        }
        self.forget_old();
    }

    /// The writes for everything taken since the last call, oldest first.
    pub(super) fn writes(&mut self) -> Vec<Write> {
        let order = std::mem::take(&mut self.order);
        order.iter().filter_map(|key| self.pending.remove(key)).collect()
    }

    fn spend(&mut self, object: &str, now: Instant) -> bool {
        let budget = self.budgets.entry(object.to_string()).or_insert(Budget {
            tokens: BURST_PER_OBJECT,
            used: now,
        });
        let earned = now.duration_since(budget.used).as_secs_f64() / REFILL_INTERVAL.as_secs_f64();
        budget.tokens = (budget.tokens + earned).min(BURST_PER_OBJECT);
        budget.used = now;
        let may_spend = budget.tokens >= 1.0;
        if may_spend {
            budget.tokens -= 1.0;
        }
        may_spend
    }

    fn forget_old(&mut self) {
        if self.known.len() > MEMORY {
            let median = median(self.known.values().map(|known| known.used).collect());
            self.known.retain(|_, known| known.used > median);
        }
        if self.budgets.len() > MEMORY {
            let median = median(self.budgets.values().map(|budget| budget.used).collect());
            self.budgets.retain(|_, budget| budget.used > median);
        }
    }
}

fn median(mut times: Vec<Instant>) -> Instant {
    let middle = times.len() / 2;
    *times.select_nth_unstable(middle).1
}

fn first_of(occurrence: &Occurrence, suffix: &str, now: Instant) -> Known {
    let mut name = occurrence.object.name.clone().unwrap_or_default();
    name.truncate(NAME_LENGTH_MAX - suffix.len() - 1);
    Known {
        name: format!("{name}.{suffix}"),
        namespace: occurrence
            .object
            .namespace
            .clone()
            .unwrap_or_else(|| "default".to_string()),
        count: 0,
        first: occurrence.at,
        used: now,
    }
}

fn object_key(object: &ObjectReference) -> String {
    let part = |value: &Option<String>| value.clone().unwrap_or_default();
    [
        &object.kind,
        &object.namespace,
        &object.name,
        &object.uid,
        &object.field_path,
    ]
    .map(part)
    .join("/")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn occurrence(object: &str, message: &str) -> Occurrence {
        Occurrence {
            object: ObjectReference {
                kind: Some("PersistentVolumeClaim".into()),
                namespace: Some("ns".into()),
                name: Some(object.into()),
                ..Default::default()
            },
            event_type: EventType::Normal,
            reason: "Provisioning".into(),
            message: message.into(),
            at: Timestamp::UNIX_EPOCH,
        }
    }

    fn summary(correlator: &mut Correlator) -> Vec<(String, i32, bool)> {
        correlator
            .writes()
            .into_iter()
            .map(|w| (w.known.name, w.known.count, w.is_repeat))
            .collect()
    }

    #[tokio::test(start_paused = true)]
    async fn repeats_raise_the_count_of_one_event() {
        let mut correlator = Correlator::default();
        let now = Instant::now();
        correlator.take(occurrence("a", "x"), "1", now);
        correlator.take(occurrence("b", "x"), "2", now);
        correlator.take(occurrence("a", "x"), "3", now);
        assert_eq!(
            summary(&mut correlator),
            [("a.1".into(), 2, false), ("b.2".into(), 1, false)]
        );
        correlator.take(occurrence("a", "x"), "4", now);
        correlator.take(occurrence("a", "y"), "5", now);
        assert_eq!(
            summary(&mut correlator),
            [("a.1".into(), 3, true), ("a.5".into(), 1, false)]
        );
        assert_eq!(summary(&mut correlator), []);
    }

    #[tokio::test(start_paused = true)]
    async fn one_object_cannot_flood() {
        let mut correlator = Correlator::default();
        let now = Instant::now();
        for number in 0..100 {
            correlator.take(occurrence("a", &number.to_string()), &number.to_string(), now);
        }
        assert_eq!(summary(&mut correlator).len(), 25);
        correlator.take(occurrence("b", "x"), "b", now);
        correlator.take(occurrence("a", "later"), "c", now + REFILL_INTERVAL);
        assert_eq!(summary(&mut correlator).len(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn memory_is_bounded() {
        let mut correlator = Correlator::default();
        let start = Instant::now();
        for number in 0..10_000_u32 {
            let now = start + Duration::from_millis(u64::from(number));
            correlator.take(occurrence(&number.to_string(), "x"), "1", now);
            correlator.writes();
        }
        assert!(correlator.known.len() <= MEMORY && correlator.budgets.len() <= MEMORY);
    }

    #[tokio::test(start_paused = true)]
    async fn names_fit_and_cluster_scoped_objects_go_to_default() {
        let mut long = occurrence(&"n".repeat(253), "x");
        long.object.namespace = None;
        let known = first_of(&long, "18abc", Instant::now());
        assert_eq!((known.name.len(), known.namespace.as_str()), (253, "default"));
    }
}
