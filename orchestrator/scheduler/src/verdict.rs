//! Reasons against a node, and how they are told to the user.

use std::collections::BTreeMap;

/// Why a pod can't go to one node, in the words that users of Kubernetes know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejection {
    /// Each a clause such as `Insufficient cpu` or `node(s) were unschedulable`.
    pub reasons: Vec<String>,
}

impl Rejection {
    /// One reason.
    pub fn because(reason: impl Into<String>) -> Self {
        Self {
            reasons: vec![reason.into()],
        }
    }
}

/// A plugin's answer about one node.
pub type Verdict = Result<(), Rejection>;

/// Sums up why none of `nodes` fits: each reason with the number of nodes it holds for.
pub fn summary(nodes: usize, rejections: &[Rejection]) -> String {
    if nodes == 0 {
        return "no nodes available to schedule pods".into();
    }
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for reason in rejections.iter().flat_map(|rejection| &rejection.reasons) {
        *counts.entry(reason).or_default() += 1;
    }
    let mut clauses: Vec<String> = counts
        .into_iter()
        .map(|(reason, count)| format!("{count} {reason}"))
        .collect();
    clauses.sort();
    format!("0/{nodes} nodes are available: {}.", clauses.join(", "))
}

/// Says why no node was even looked at.
pub fn summary_before_nodes(nodes: usize, reason: &str) -> String {
    format!("0/{nodes} nodes are available: {reason}.")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_are_counted_over_nodes_and_sorted() {
        let cpu = Rejection::because("Insufficient cpu");
        let both = Rejection {
            reasons: vec!["Insufficient cpu".into(), "Too many pods".into()],
        };
        let cordoned = Rejection::because("node(s) were unschedulable");
        for (nodes, rejections, expected) in [
            (0, vec![], "no nodes available to schedule pods"),
            (
                1,
                vec![cpu.clone()],
                "0/1 nodes are available: 1 Insufficient cpu.",
            ),
            (
                3,
                vec![cordoned, cpu, both],
                "0/3 nodes are available: 1 Too many pods, 1 node(s) were unschedulable, 2 Insufficient cpu.",
            ),
        ] {
            assert_eq!(summary(nodes, &rejections), expected);
        }
    }
}
