//! NodeAffinity: node selector and required terms decide, preferred terms order.

use moorline_model::node_affinity::{NodeFacts, matches, term_matches};

use crate::{
    snapshot::{Candidate, PodFacts},
    verdict::{Rejection, Verdict},
};

/// Refuses nodes that the pod's `nodeSelector` or required node affinity does not select.
pub fn filter(pod: &PodFacts<'_>, candidate: &Candidate<'_>) -> Verdict {
    let facts = NodeFacts::from(candidate.node);
    let spec = pod.pod.spec.as_ref();
    let simple = spec
        .and_then(|spec| spec.node_selector.as_ref())
        .into_iter()
        .flatten();
    let mut selected = simple
        .into_iter()
        .all(|(key, value)| facts.labels.get(key) == Some(value));
    if let Some(required) = spec
        .and_then(|spec| spec.affinity.as_ref()?.node_affinity.as_ref())
        .and_then(|affinity| {
            affinity
                .required_during_scheduling_ignored_during_execution
                .as_ref()
        })
    {
        // A malformed term selects nothing, as upstream has it.
        selected &= matches(required, facts).unwrap_or(false);
    }
    if selected {
        Ok(())
    } else {
        Err(Rejection::because(
            "node(s) didn't match Pod's node affinity/selector",
        ))
    }
}

/// The sum of the weights of the preferred terms that select the node.
pub fn score(pod: &PodFacts<'_>, candidate: &Candidate<'_>) -> i64 {
    let facts = NodeFacts::from(candidate.node);
    let affinity = pod
        .pod
        .spec
        .as_ref()
        .and_then(|spec| spec.affinity.as_ref()?.node_affinity.as_ref());
    let preferred = affinity.and_then(|a| a.preferred_during_scheduling_ignored_during_execution.as_ref());
    let matching = preferred
        .into_iter()
        .flatten()
        .filter(|term| term_matches(&term.preference, facts).unwrap_or(false));
    matching.map(|term| i64::from(term.weight)).sum()
}
