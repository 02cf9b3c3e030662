//! Keeps the cluster's topology segments at hand: collected again only after a node's labels or the driver's keys have
//! changed, not for each claim.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use k8s_openapi::api::core::v1::Node;
use k8s_openapi::api::storage::v1::CSINode;
use moorline_runtime::{Cache, Change};
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::topology::{ClusterSegments, Segment, SelectedNode};

/// Where the driver is.
#[derive(Clone, Debug)]
pub(crate) enum NodeTopology {
    /// On the nodes of the cluster.
    Cluster(ClusterTopology),
    /// One provisioner per node: on that one, as the driver itself says. No node is watched.
    Fixed {
        node: SelectedNode,
        segments: Arc<ClusterSegments>,
        /// Never changes.
        changes: watch::Sender<u64>,
    },
}

impl NodeTopology {
    /// Of a provisioner that has only that node.
    pub(crate) fn fixed(node_name: &str, segment: &Segment) -> Self {
        let keys: BTreeSet<String> = segment.keys().cloned().collect();
        Self::Fixed {
            segments: Arc::new(ClusterSegments::collect([keys.clone()], [segment])),
            node: SelectedNode {
                name: node_name.to_string(),
                keys: Some(keys),
                labels: Some(segment.clone()),
            },
            changes: watch::Sender::new(0),
        }
    }

    /// Waits until all that is watched is known.
    pub(crate) async fn synced(&self) {
        match self {
            Self::Cluster(cluster) => cluster.synced().await,
            Self::Fixed { .. } => {}
        }
    }

    /// Changes whenever nodes, their labels or the driver's keys do.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        match self {
            Self::Cluster(cluster) => cluster.changes.subscribe(),
            Self::Fixed { changes, .. } => changes.subscribe(),
        }
    }

    /// All segments.
    pub(crate) fn segments(&self) -> Arc<ClusterSegments> {
        match self {
            Self::Cluster(cluster) => cluster.segments(),
            Self::Fixed { segments, .. } => segments.clone(),
        }
    }

    /// What is known of the node that a claim's volume shall be on.
    pub(crate) fn selected(&self, node_name: &str) -> SelectedNode {
        match self {
            Self::Cluster(cluster) => cluster.selected(node_name),
            Self::Fixed { node, .. } if node.name == node_name => node.clone(),
            Self::Fixed { .. } => SelectedNode {
                name: node_name.to_string(),
                keys: None,
                labels: None,
            },
        }
    }
}

/// Nodes as far as the topology of one driver is concerned.
#[derive(Clone, Debug)]
pub(crate) struct ClusterTopology {
    driver_name: String,
    nodes: Cache<Node>,
    csi_nodes: Cache<CSINode>,
    is_stale: Arc<AtomicBool>,
    /// Counts changes.
    changes: watch::Sender<u64>,
    collected: Arc<Mutex<Arc<ClusterSegments>>>,
}

impl ClusterTopology {
    /// Follows both caches until `stop`.
    pub(crate) fn new(
        driver_name: &str,
        nodes: Cache<Node>,
        csi_nodes: Cache<CSINode>,
        stop: &CancellationToken,
    ) -> Self {
        let is_stale = Arc::new(AtomicBool::new(true));
        let changes = watch::Sender::new(0);
        let (stale, count) = (is_stale.clone(), changes.clone());
        nodes.on_change_until(stop.clone(), move |change| {
            // A node's heartbeat is an update, too.
            let is_same = match change {
                Change::Updated { old, new } => old.metadata.labels == new.metadata.labels,
                Change::Added(_) | Change::Removed(_) => false,
            };
            if !is_same {
                stale.store(true, Ordering::Release);
                count.send_modify(|count| *count += 1);
            }
        });
        let (stale, count, driver) = (is_stale.clone(), changes.clone(), driver_name.to_string());
        csi_nodes.on_change_until(stop.clone(), move |change| {
            let is_same = match change {
                Change::Updated { old, new } => keys_of(old, &driver) == keys_of(new, &driver),
                Change::Added(_) | Change::Removed(_) => false,
            };
            if !is_same {
                stale.store(true, Ordering::Release);
                count.send_modify(|count| *count += 1);
            }
        });
        Self {
            driver_name: driver_name.to_string(),
            nodes,
            csi_nodes,
            is_stale,
            changes,
            collected: Arc::default(),
        }
    }

    async fn synced(&self) {
        self.nodes.synced().await;
        self.csi_nodes.synced().await;
    }

    fn segments(&self) -> Arc<ClusterSegments> {
        let mut collected = self.collected.lock();
        if self.is_stale.swap(false, Ordering::AcqRel) {
            let no_labels = BTreeMap::new();
            let nodes = self.nodes.list();
            let csi_nodes = self.csi_nodes.list();
            let key_sets = csi_nodes
                .iter()
                .filter_map(|csi_node| keys_of(csi_node, &self.driver_name));
            let labels = nodes
                .iter()
                .map(|node| node.metadata.labels.as_ref().unwrap_or(&no_labels));
            *collected = Arc::new(ClusterSegments::collect(key_sets, labels));
        }
        collected.clone()
    }

    fn selected(&self, node_name: &str) -> SelectedNode {
        let csi_node = self.csi_nodes.get(None, node_name);
        SelectedNode {
            name: node_name.to_string(),
            keys: csi_node.map(|csi_node| keys_of(&csi_node, &self.driver_name).unwrap_or_default()),
            labels: self
                .nodes
                .get(None, node_name)
                .map(|node| node.metadata.labels.clone().unwrap_or_default()),
        }
    }
}

/// The topology keys of the driver on that node; `None` if the driver isn't registered there.
fn keys_of(csi_node: &CSINode, driver_name: &str) -> Option<BTreeSet<String>> {
    let driver = csi_node
        .spec
        .drivers
        .iter()
        .find(|driver| driver.name == driver_name)?;
    Some(driver.topology_keys.iter().flatten().cloned().collect())
}
