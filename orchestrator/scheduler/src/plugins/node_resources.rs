//! NodeResourcesFit: what a pod requests must be free on its node; emptier nodes are better.

use crate::{
    requests::Resources,
    snapshot::{Candidate, PodFacts},
    verdict::{Rejection, Verdict},
};

fn allocatable(candidate: &Candidate<'_>) -> Resources {
    Resources::read(
        candidate
            .node
            .status
            .as_ref()
            .and_then(|status| status.allocatable.as_ref()),
    )
}

/// Refuses nodes where any requested resource is short, or which have as many pods as they may.
pub fn filter(pod: &PodFacts<'_>, candidate: &Candidate<'_>) -> Verdict {
    let free = allocatable(candidate);
    let pods = candidate
        .in_use
        .map_or(0, |in_use| i64::try_from(in_use.pods.len()).unwrap_or(i64::MAX));
    let mut reasons = Vec::new();
    if pods + 1 > free.get("pods") {
        reasons.push("Too many pods".to_owned());
    }
    for (name, wanted) in pod.requests.0.iter().filter(|(_, wanted)| **wanted > 0) {
        let taken = candidate.in_use.map_or(0, |in_use| in_use.requests.get(name));
        if taken.saturating_add(*wanted) > free.get(name) {
            reasons.push(format!("Insufficient {name}"));
        }
    }
    if reasons.is_empty() {
        Ok(())
    } else {
        Err(Rejection { reasons })
    }
}

/// The share of cpu and memory that stays free with the pod there, 0 to 100.
pub fn score(pod: &PodFacts<'_>, candidate: &Candidate<'_>) -> i64 {
    let all = allocatable(candidate);
    let share = |name: &str| {
        let total = all.get(name);
        let taken = candidate.in_use.map_or(0, |in_use| in_use.requests.get(name)) + pod.requests.get(name);
        if total <= 0 || taken >= total {
            0
        } else {
            (total - taken).saturating_mul(100) / total
        }
    };
    (share("cpu") + share("memory")) / 2
}
