//! The decision: which node a pod goes to, and what has to be written for its volumes first.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Node;
use kube::ResourceExt as _;

use crate::{
    plugins::{
        node_affinity, node_name, node_ports, node_resources, node_unschedulable, node_volume_limits,
        taint_toleration, volume_binding,
        volume_binding::{Claims, VolumePlan},
        volume_restrictions,
    },
    snapshot::{Candidate, PodFacts, Snapshot},
    verdict::{Rejection, summary, summary_before_nodes},
};

/// What to do about a pod.
#[derive(Debug, Clone)]
pub enum Next {
    /// Take it to this node, once its volumes are bound as planned.
    Place {
        /// The node.
        node: Arc<Node>,
        /// What to write for its volumes.
        plan: VolumePlan,
    },
    /// No node takes it now; the message says why, node by node.
    Unschedulable {
        /// For the condition and the event.
        message: String,
    },
}

/// Decides about one pod. Pure: same answer for the same input.
pub fn decide(pod: &PodFacts<'_>, snapshot: &Snapshot<'_>) -> Next {
    let nodes = snapshot.objects.nodes.list();
    let claims = match volume_binding::pre_filter(pod, snapshot.objects) {
        Ok(claims) => claims,
        Err(reason) => {
            return Next::Unschedulable {
                message: summary_before_nodes(nodes.len(), &reason),
            };
        }
    };
    let mut rejections = Vec::new();
    let mut feasible = Vec::new();
    for node in &nodes {
        let candidate = Candidate {
            node,
            in_use: snapshot.ledger.node(&node.name_any()),
        };
        match filter(pod, &claims, &candidate, snapshot) {
            Ok(plan) => feasible.push((score(pod, &candidate), node, plan)),
            Err(rejection) => rejections.push(rejection),
        }
    }
    // Best score; among equals the first by name, so that the answer does not depend on the order of the cache.
    feasible.sort_by(|(a, a_node, _), (b, b_node, _)| {
        b.cmp(a).then_with(|| a_node.name_any().cmp(&b_node.name_any()))
    });
    match feasible.into_iter().next() {
        Some((_, node, plan)) => Next::Place {
            node: Arc::clone(node),
            plan,
        },
        None => Next::Unschedulable {
            message: summary(nodes.len(), &rejections),
        },
    }
}

/// Asks each plugin in upstream's order; the first that refuses gives the reason.
fn filter(
    pod: &PodFacts<'_>,
    claims: &Claims,
    candidate: &Candidate<'_>,
    snapshot: &Snapshot<'_>,
) -> Result<VolumePlan, Rejection> {
    node_unschedulable::filter(pod, candidate)?;
    node_name::filter(pod, candidate)?;
    taint_toleration::filter(pod, candidate)?;
    node_affinity::filter(pod, candidate)?;
    node_ports::filter(pod, candidate)?;
    node_resources::filter(pod, candidate)?;
    volume_restrictions::filter(pod, snapshot)?;
    node_volume_limits::filter(pod, candidate, snapshot)?;
    volume_binding::filter(claims, candidate.node, snapshot)
}

/// Upstream's weights: taints 3, affinity 2, resources 1.
fn score(pod: &PodFacts<'_>, candidate: &Candidate<'_>) -> i64 {
    3 * taint_toleration::score(pod, candidate)
        + 2 * node_affinity::score(pod, candidate)
        + node_resources::score(pod, candidate)
}

#[cfg(test)]
mod tests;
