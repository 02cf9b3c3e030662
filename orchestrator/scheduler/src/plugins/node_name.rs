//! NodeName: a pod that names its node goes nowhere else.

use kube::ResourceExt as _;

use crate::{
    snapshot::{Candidate, PodFacts},
    verdict::{Rejection, Verdict},
};

/// Refuses every node but the named one.
pub fn filter(pod: &PodFacts<'_>, candidate: &Candidate<'_>) -> Verdict {
    match crate::ledger::node_of(pod.pod) {
        Some(name) if name != candidate.node.name_any() => {
            Err(Rejection::because("node(s) didn't match the requested node name"))
        }
        Some(_) | None => Ok(()),
    }
}
