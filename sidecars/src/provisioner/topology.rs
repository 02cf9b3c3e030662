//! Where a new volume shall be reachable: the topology requirement of one `CreateVolume`. Pure.
//!
//! | binding   | strict | allowedTopologies | immediate topology | requisite            | preferred first          |
//! |-----------|--------|-------------------|--------------------|----------------------|--------------------------|
//! | delayed   | yes    | any (checked)     | -                  | the selected segment | same                     |
//! | delayed   | no     | no                | -                  | all cluster segments | the selected segment     |
//! | delayed   | no     | yes               | -                  | allowed terms        | first that fits the node |
//! | immediate | -      | yes               | -                  | allowed terms        | by hash of the name      |
//! | immediate | -      | no                | yes                | all cluster segments | by hash of the name      |
//! | immediate | -      | no                | no                 | none                 | none                     |

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::TopologySelectorTerm;
use moorline_model::topology::{Segments, expand, segments_of_node};
use moorline_proto::csi::{Topology, TopologyRequirement};

/// Values of the driver's topology keys that together name a part of the cluster.
pub(crate) type Segment = Segments;

/// All segments of the cluster, by the set of keys they use. Drivers mostly use the same keys on all nodes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ClusterSegments {
    by_keys: BTreeMap<BTreeSet<String>, BTreeSet<Segment>>,
}

impl ClusterSegments {
    /// Collects the segments: for each set of keys that the driver uses on some node, the values of every node that
    /// has labels for all of them.
    pub(crate) fn collect<'a>(
        key_sets: impl IntoIterator<Item = BTreeSet<String>>,
        node_labels: impl IntoIterator<Item = &'a BTreeMap<String, String>> + Clone,
    ) -> Self {
        let mut by_keys: BTreeMap<BTreeSet<String>, BTreeSet<Segment>> = BTreeMap::new();
        for keys in key_sets {
            if keys.is_empty() || by_keys.contains_key(&keys) {
                continue;
            }
            let labels = node_labels.clone().into_iter();
            let segments = labels
                .filter_map(|labels| segments_of_node(&keys, labels))
                .collect();
            by_keys.insert(keys, segments);
        }
        Self { by_keys }
    }

    /// Every segment.
    pub(crate) fn all(&self) -> Vec<Segment> {
        self.by_keys.values().flatten().cloned().collect()
    }

    fn with_keys(&self, keys: &BTreeSet<String>) -> Vec<Segment> {
        self.by_keys
            .get(keys)
            .map(|segments| segments.iter().cloned().collect())
            .unwrap_or_default()
    }

    /// The segments of the first key set that has any.
    fn any(&self) -> Vec<Segment> {
        let first = self.by_keys.values().find(|segments| !segments.is_empty());
        first
            .map(|segments| segments.iter().cloned().collect())
            .unwrap_or_default()
    }
}

/// What is known of the node that the scheduler selected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SelectedNode {
    pub(crate) name: String,
    /// The driver's topology keys there; `None` if there is no CSINode.
    pub(crate) keys: Option<BTreeSet<String>>,
    /// The labels; `None` if there is no Node.
    pub(crate) labels: Option<BTreeMap<String, String>>,
}

/// Everything the requirement rests on.
#[derive(Clone, Debug)]
pub(crate) struct Inputs<'a> {
    pub(crate) claim_name: &'a str,
    /// `None` with immediate binding.
    pub(crate) selected: Option<SelectedNode>,
    pub(crate) allowed: &'a [TopologySelectorTerm],
    pub(crate) cluster: &'a ClusterSegments,
    pub(crate) strict: bool,
    pub(crate) immediate_topology: bool,
}

/// Why there is no requirement.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TopologyError {
    /// The selected node is gone: another one must be selected.
    #[error("selected node {0:?} doesn't exist any more")]
    NodeGone(String),
    /// The driver isn't registered there (yet), or registered without topology.
    #[error("no topology key found for the driver on node {0:?}")]
    NoKeys(String),
    /// A label that the driver's registration should have set is missing.
    #[error("node {0:?} lacks labels for the driver's topology keys")]
    NoLabels(String),
    /// The scheduler and the class disagree.
    #[error("node {0:?} is in none of the class's allowed topologies")]
    NotAllowed(String),
    /// Immediate binding, and the driver runs nowhere.
    #[error("no node has the driver's topology")]
    NoSegments,
}

/// The requirement to send, if any.
pub(crate) fn requirement(inputs: &Inputs<'_>) -> Result<Option<TopologyRequirement>, TopologyError> {
    let allowed = expand(inputs.allowed);
    let Some(node) = &inputs.selected else {
        let requisite = if !allowed.is_empty() {
            allowed
        } else if inputs.immediate_topology {
            inputs.cluster.any()
        } else {
            return Ok(None);
        };
        if requisite.is_empty() {
            return Err(TopologyError::NoSegments);
        }
        let requisite = sorted(requisite);
        let start = spread(inputs.claim_name, requisite.len());
        return Ok(Some(to_proto(&requisite, start)));
    };
    let (keys, selected) = selected_segment(node)?;
    if inputs.strict {
        if !allowed.is_empty() && !allowed.iter().any(|term| is_subset(term, &selected)) {
            return Err(TopologyError::NotAllowed(node.name.clone()));
        }
        return Ok(Some(to_proto(&[selected], 0)));
    }
    let requisite = if allowed.is_empty() {
        inputs.cluster.with_keys(&keys)
    } else {
        allowed
    };
    let requisite = sorted(requisite);
    let start = requisite.iter().position(|term| is_subset(term, &selected));
    let start = start.ok_or_else(|| TopologyError::NotAllowed(node.name.clone()))?;
    Ok(Some(to_proto(&requisite, start)))
}

fn selected_segment(node: &SelectedNode) -> Result<(BTreeSet<String>, Segment), TopologyError> {
    let (Some(keys), Some(labels)) = (&node.keys, &node.labels) else {
        return Err(TopologyError::NodeGone(node.name.clone()));
    };
    if keys.is_empty() {
        return Err(TopologyError::NoKeys(node.name.clone()));
    }
    let segment = segments_of_node(keys, labels).ok_or_else(|| TopologyError::NoLabels(node.name.clone()))?;
    Ok((keys.clone(), segment))
}

fn sorted(mut segments: Vec<Segment>) -> Vec<Segment> {
    segments.sort_by(|a, b| a.len().cmp(&b.len()).then_with(|| a.cmp(b)));
    segments.dedup();
    segments
}

fn is_subset(term: &Segment, of: &Segment) -> bool {
    term.iter().all(|(key, value)| of.get(key) == Some(value))
}

fn to_proto(requisite: &[Segment], start: usize) -> TopologyRequirement {
    let topology = |segment: &Segment| Topology {
        segments: segment.clone().into_iter().collect(),
    };
    TopologyRequirement {
        requisite: requisite.iter().map(topology).collect(),
        preferred: requisite[start..]
            .iter()
            .chain(&requisite[..start])
            .map(topology)
            .collect(),
    }
}

/// Spreads claims over `count` segments. Claims of a StatefulSet are named `<volume>-<set>-<ordinal>`: those of one
/// replica land in the same segment, those of neighbouring replicas in neighbouring ones.
fn spread(claim_name: &str, count: usize) -> usize {
    let (hashed, ordinal) = match claim_name.rsplit_once('-') {
        Some((prefix, number)) => match number.parse::<u32>() {
            Ok(ordinal) => (prefix.rsplit_once('-').map_or(prefix, |(_, set)| set), ordinal),
            Err(_) => (claim_name, 0),
        },
        None => (claim_name, 0),
    };
    let index = fnv1_32(hashed.as_bytes()).wrapping_add(ordinal);
    usize::try_from(index).unwrap_or(0) % count
}

/// FNV-1, 32 bits (multiply first; FNV-1a would be another function).
fn fnv1_32(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0x811c_9dc5, |hash: u32, byte| {
        hash.wrapping_mul(0x0100_0193) ^ u32::from(*byte)
    })
}

#[cfg(test)]
mod tests;
