//! Pods that no node takes as things stand, and which change lets them be looked at again. Pure: the time comes in.
//!
//! A change that is about a pod's own claim brings the pod back at once. One that may help anybody brings back
//! whoever it may help, each pod with growing pauses, so that a thousand pods without room are not decided anew with
//! each of a thousand changes.

use std::{
    collections::{BTreeSet, HashMap},
    time::Duration,
};

use moorline_runtime::Backoff;
use tokio::time::Instant;

/// Namespace and name, of a pod or of a claim.
pub(crate) type Key = (String, String);

/// Pauses between looks at one pod that changes of no special concern to it cause.
const PAUSE: Backoff = Backoff {
    min: Duration::from_millis(50),
    max: Duration::from_secs(5),
};

/// Whom a change may help.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Help {
    /// Pods with volumes: a class, a driver, free storage or a volume changed.
    WithVolumes,
    /// Any pod: a node changed, or room became free on one.
    Everybody,
}

#[derive(Debug)]
struct Parked {
    claims: Vec<Key>,
    /// Changes for everybody before this are answered at this time.
    not_before: Instant,
}

/// The pods that wait for a change.
#[derive(Debug, Default)]
pub(crate) struct Waiting {
    parked: HashMap<Key, Parked>,
    /// Users of each claim among the parked pods.
    by_claim: HashMap<Key, BTreeSet<Key>>,
    /// How often each pod was parked in a row; kept while a pod is looked at again.
    attempts: HashMap<Key, u32>,
}

impl Waiting {
    /// No node takes the pod, which uses these claims.
    pub(crate) fn park(&mut self, pod: Key, claims: Vec<Key>, now: Instant) {
        self.unpark(&pod);
        let attempts = self.attempts.entry(pod.clone()).or_default();
        *attempts = attempts.saturating_add(1);
        for claim in &claims {
            self.by_claim
                .entry(claim.clone())
                .or_default()
                .insert(pod.clone());
        }
        let not_before = now + PAUSE.bound(*attempts);
        self.parked.insert(pod, Parked { claims, not_before });
    }

    /// The pod has found a node, or is no more.
    pub(crate) fn forget(&mut self, pod: &Key) {
        self.unpark(pod);
        self.attempts.remove(pod);
    }

    fn unpark(&mut self, pod: &Key) {
        let Some(parked) = self.parked.remove(pod) else {
            return;
        };
        for claim in parked.claims {
            if let Some(users) = self.by_claim.get_mut(&claim) {
                users.remove(pod);
                if users.is_empty() {
                    self.by_claim.remove(&claim);
                }
            }
        }
    }

    /// The parked pods that use a claim.
    pub(crate) fn users_of(&self, claim: &Key) -> Vec<Key> {
        self.by_claim.get(claim).into_iter().flatten().cloned().collect()
    }

    /// The parked pods that may be helped, and how long each has to pause before it is looked at.
    pub(crate) fn helped(&self, help: Help, now: Instant) -> Vec<(Key, Duration)> {
        let concerned = |parked: &&Parked| help == Help::Everybody || !parked.claims.is_empty();
        let pods = self.parked.iter().filter(|(_, parked)| concerned(parked));
        pods.map(|(pod, parked)| (pod.clone(), parked.not_before.saturating_duration_since(now)))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str) -> Key {
        ("ns".into(), name.into())
    }

    fn names(helped: Vec<(Key, Duration)>) -> Vec<String> {
        let mut names: Vec<_> = helped.into_iter().map(|(pod, _)| pod.1).collect();
        names.sort();
        names
    }

    #[tokio::test(start_paused = true)]
    async fn changes_reach_whom_they_may_help() {
        let now = Instant::now();
        let mut waiting = Waiting::default();
        waiting.park(key("plain"), vec![], now);
        waiting.park(key("a"), vec![key("data"), key("logs")], now);
        waiting.park(key("b"), vec![key("data")], now);
        assert_eq!(names(waiting.helped(Help::Everybody, now)), ["a", "b", "plain"]);
        assert_eq!(names(waiting.helped(Help::WithVolumes, now)), ["a", "b"]);
        assert_eq!(waiting.users_of(&key("data")), [key("a"), key("b")]);
        assert_eq!(waiting.users_of(&key("logs")), [key("a")]);
        waiting.forget(&key("a"));
        assert_eq!(waiting.users_of(&key("data")), [key("b")]);
        waiting.park(key("b"), vec![], now);
        assert!(
            waiting.by_claim.is_empty(),
            "what the pod used before is forgotten"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn pauses_grow_with_each_try_until_the_pod_is_forgotten() {
        let now = Instant::now();
        let mut waiting = Waiting::default();
        let pause = |waiting: &Waiting| waiting.helped(Help::Everybody, now)[0].1.as_millis();
        let mut pauses = Vec::new();
        for _ in 0..9 {
            waiting.park(key("a"), vec![], now);
            pauses.push(pause(&waiting));
        }
        assert_eq!(pauses, [50, 100, 200, 400, 800, 1_600, 3_200, 5_000, 5_000]);
        let later = now + Duration::from_secs(60);
        assert_eq!(waiting.helped(Help::Everybody, later)[0].1, Duration::ZERO);
        waiting.forget(&key("a"));
        waiting.park(key("a"), vec![], now);
        assert_eq!(pause(&waiting), 50);
    }
}
