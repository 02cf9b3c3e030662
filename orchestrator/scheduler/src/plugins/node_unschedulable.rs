//! NodeUnschedulable: a cordoned node takes only pods that tolerate it.

use k8s_openapi::api::core::v1::Taint;

use crate::{
    plugins::taint_toleration::is_tolerated,
    snapshot::{Candidate, PodFacts},
    verdict::{Rejection, Verdict},
};

/// Refuses cordoned nodes.
pub fn filter(pod: &PodFacts<'_>, candidate: &Candidate<'_>) -> Verdict {
    let cordoned = candidate
        .node
        .spec
        .as_ref()
        .and_then(|spec| spec.unschedulable)
        .unwrap_or(false);
    let taint = Taint {
        key: "node.kubernetes.io/unschedulable".into(),
        effect: "NoSchedule".into(),
        ..Taint::default()
    };
    if cordoned && !is_tolerated(&taint, pod.tolerations()) {
        return Err(Rejection::because("node(s) were unschedulable"));
    }
    Ok(())
}
