//! The decision: which node a pod goes to, and what has to be written for its volumes first.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Node;
use kube::ResourceExt as _;

use crate::{
    plugins::{
        node_affinity, node_name, node_ports, node_resources, node_unschedulable, node_volume_limits,
        taint_toleration, volume_binding,
        volume_binding::{Claims, VolumePlan},
        volume_restrictions, volume_zone,
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
            Ok(plan) => feasible.push(Feasible {
                node,
                plan,
                marks: Marks::of(pod, &candidate),
            }),
            Err(rejection) => rejections.push(rejection),
        }
    }
    match best(feasible) {
        Some(Feasible { node, plan, .. }) => Next::Place {
            node: Arc::clone(node),
            plan,
        },
        None => Next::Unschedulable {
            message: summary(nodes.len(), &rejections),
        },
    }
}

/// A node that takes the pod.
struct Feasible<'a> {
    node: &'a Arc<Node>,
    plan: VolumePlan,
    marks: Marks,
}

/// What speaks for a node, plugin by plugin.
#[derive(Debug, Clone, Copy)]
struct Marks {
    /// Soft taints against it.
    aversion: i64,
    /// Weights of preferred terms for it.
    preference: i64,
    /// Share of it that stays free, 0 to 100.
    free: i64,
}

impl Marks {
    fn of(pod: &PodFacts<'_>, candidate: &Candidate<'_>) -> Self {
        Self {
            aversion: taint_toleration::aversion(pod, candidate),
            preference: node_affinity::preference(pod, candidate),
            free: node_resources::score(pod, candidate),
        }
    }

    /// Upstream's weights: taints 3, affinity 2, resources 1, each from 0 to 100 in relation to the extreme node.
    fn score(self, most_aversion: i64, most_preference: i64) -> i64 {
        let share = |part: i64, most: i64| {
            if most > 0 {
                part.saturating_mul(100) / most
            } else {
                0
            }
        };
        3 * (100 - share(self.aversion, most_aversion))
            + 2 * share(self.preference, most_preference)
            + self.free
    }
}

/// The node with the best score; among equals the first by name, so that the answer does not depend on the order of
/// the cache.
fn best(feasible: Vec<Feasible<'_>>) -> Option<Feasible<'_>> {
    let most = |mark: fn(&Marks) -> i64| feasible.iter().map(|one| mark(&one.marks)).max().unwrap_or(0);
    let (aversion, preference) = (most(|marks| marks.aversion), most(|marks| marks.preference));
    feasible
        .into_iter()
        .min_by_key(|one| (-one.marks.score(aversion, preference), one.node.name_any()))
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
    let plan = volume_binding::filter(claims, candidate.node, snapshot)?;
    volume_zone::filter(claims, candidate.node, snapshot)?;
    Ok(plan)
}

#[cfg(test)]
mod tests;
