//! TaintToleration: a taint keeps pods away that don't tolerate it.

use k8s_openapi::api::core::v1::{Taint, Toleration};

use crate::{
    snapshot::{Candidate, PodFacts},
    verdict::{Rejection, Verdict},
};

/// True if one of the tolerations is for this taint.
pub fn is_tolerated(taint: &Taint, tolerations: &[Toleration]) -> bool {
    tolerations.iter().any(|toleration| tolerates(toleration, taint))
}

fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    let effect = toleration.effect.as_deref().unwrap_or_default();
    let key = toleration.key.as_deref().unwrap_or_default();
    if !(effect.is_empty() || effect == taint.effect) || !(key.is_empty() || key == taint.key) {
        return false;
    }
    match toleration.operator.as_deref().unwrap_or_default() {
        "Exists" => true,
        // An empty key with Equal would match every taint; the API refuses it.
        "" | "Equal" => {
            !key.is_empty()
                && toleration.value.as_deref().unwrap_or_default()
                    == taint.value.as_deref().unwrap_or_default()
        }
        _ => false,
    }
}

fn taints<'a>(candidate: &'a Candidate<'_>) -> impl Iterator<Item = &'a Taint> {
    candidate
        .node
        .spec
        .iter()
        .flat_map(|spec| spec.taints.iter().flatten())
}

/// Refuses nodes with an untolerated taint of effect NoSchedule or NoExecute.
pub fn filter(pod: &PodFacts<'_>, candidate: &Candidate<'_>) -> Verdict {
    let hard = |taint: &&Taint| matches!(taint.effect.as_str(), "NoSchedule" | "NoExecute");
    match taints(candidate)
        .filter(hard)
        .find(|taint| !is_tolerated(taint, pod.tolerations()))
    {
        Some(taint) => {
            let value = taint.value.as_deref().unwrap_or_default();
            Err(Rejection::because(format!(
                "node(s) had untolerated taint {{{}: {value}}}",
                taint.key
            )))
        }
        None => Ok(()),
    }
}

/// How many taints of effect PreferNoSchedule are not tolerated; the decision prefers nodes with fewer.
pub fn aversion(pod: &PodFacts<'_>, candidate: &Candidate<'_>) -> i64 {
    let soft = taints(candidate).filter(|taint| taint.effect == "PreferNoSchedule");
    let untolerated = soft
        .filter(|taint| !is_tolerated(taint, pod.tolerations()))
        .count();
    i64::try_from(untolerated).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn tolerations_match_by_key_value_effect_and_operator() {
        let taint: Taint =
            serde_json::from_value(json!({"key": "k", "value": "v", "effect": "NoSchedule"})).unwrap();
        for (name, toleration, expected) in [
            (
                "equal value",
                json!({"key": "k", "operator": "Equal", "value": "v"}),
                true,
            ),
            ("equal is the default", json!({"key": "k", "value": "v"}), true),
            ("another value", json!({"key": "k", "value": "w"}), false),
            ("exists", json!({"key": "k", "operator": "Exists"}), true),
            ("another key", json!({"key": "l", "operator": "Exists"}), false),
            ("everything", json!({"operator": "Exists"}), true),
            (
                "another effect",
                json!({"key": "k", "operator": "Exists", "effect": "NoExecute"}),
                false,
            ),
            (
                "unknown operator",
                json!({"key": "k", "operator": "Like", "value": "v"}),
                false,
            ),
        ] {
            let toleration: Toleration = serde_json::from_value(toleration).unwrap();
            assert_eq!(is_tolerated(&taint, &[toleration]), expected, "{name}");
        }
    }
}
