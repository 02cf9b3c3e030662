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

/// The sum of the weights of the preferred terms that select the node; the decision sets it in relation to other nodes.
pub fn preference(pod: &PodFacts<'_>, candidate: &Candidate<'_>) -> i64 {
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use k8s_openapi::api::core::v1::{Node, Pod};
    use serde_json::{Value, json};

    use super::*;
    use crate::snapshot::Objects;

    /// Whether a pod with this spec may go to a node with labels disk=ssd and zone=a, and how much it likes to.
    fn answer(spec: Value) -> (bool, i64) {
        let pod: Arc<Pod> =
            Arc::new(serde_json::from_value(json!({"metadata": {"name": "p"}, "spec": spec})).unwrap());
        let node = json!({"metadata": {"name": "n1", "labels": {"disk": "ssd", "zone": "a"}}});
        let node: Node = serde_json::from_value(node).unwrap();
        let facts = PodFacts::gather(&pod, &Objects::detached());
        let candidate = Candidate {
            node: &node,
            in_use: None,
        };
        (filter(&facts, &candidate).is_ok(), preference(&facts, &candidate))
    }

    fn wants(key: &str, values: &[&str]) -> Value {
        json!({"matchExpressions": [{"key": key, "operator": "In", "values": values}]})
    }

    fn required(terms: Value) -> Value {
        json!({"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}})
    }

    #[test]
    fn selector_and_required_terms_decide_and_preferred_ones_add_up() {
        let preferred = json!({"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [
            {"weight": 3, "preference": wants("disk", &["ssd"])},
            {"weight": 5, "preference": wants("zone", &["b"])},
            {"weight": 7, "preference": wants("zone", &["a", "b"])},
        ]}});
        let name = json!({"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n1"]}]});
        let malformed = json!({"matchExpressions": [{"key": "disk", "operator": "Like", "values": ["s"]}]});
        for (name, spec, expected) in [
            ("nothing asked", json!({}), (true, 0)),
            (
                "selector",
                json!({"nodeSelector": {"disk": "ssd", "zone": "a"}}),
                (true, 0),
            ),
            (
                "half a selector",
                json!({"nodeSelector": {"disk": "ssd", "zone": "b"}}),
                (false, 0),
            ),
            (
                "a term",
                json!({"affinity": required(json!([wants("disk", &["ssd"])]))}),
                (true, 0),
            ),
            (
                "the second term",
                json!({"affinity": required(json!([wants("disk", &["hdd"]), wants("zone", &["a"])]))}),
                (true, 0),
            ),
            (
                "no term selects it",
                json!({"affinity": required(json!([wants("disk", &["hdd"])]))}),
                (false, 0),
            ),
            (
                "selector and terms both count",
                json!({"nodeSelector": {"zone": "b"}, "affinity": required(json!([wants("disk", &["ssd"])]))}),
                (false, 0),
            ),
            ("by name", json!({"affinity": required(json!([name]))}), (true, 0)),
            (
                "malformed",
                json!({"affinity": required(json!([malformed]))}),
                (false, 0),
            ),
            ("preferred", json!({"affinity": preferred}), (true, 10)),
        ] {
            assert_eq!(answer(spec), expected, "{name}");
        }
    }
}
