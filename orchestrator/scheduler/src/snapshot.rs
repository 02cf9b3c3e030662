//! Everything a scheduling decision rests on, gathered before it.

use std::{collections::HashMap, sync::Arc};

use k8s_openapi::api::{
    core::v1::{Node, PersistentVolume, PersistentVolumeClaim, Pod, Toleration},
    storage::v1::{CSIDriver, CSINode, CSIStorageCapacity, StorageClass, VolumeAttachment},
};
use kube::ResourceExt as _;
use moorline_model::{pod::claim_volumes, volume_match::Candidates};
use moorline_runtime::{Cache, Informers};

use crate::{
    ledger::{Ledger, NodeUse},
    requests::{Resources, of_pod},
};

/// What is known of the cluster besides pods on nodes.
#[derive(Debug, Clone)]
pub struct Objects {
    /// Nodes.
    pub nodes: Cache<Node>,
    /// Claims.
    pub claims: Cache<PersistentVolumeClaim>,
    /// Volumes.
    pub pvs: Cache<PersistentVolume>,
    /// Classes.
    pub classes: Cache<StorageClass>,
    /// Drivers by node.
    pub csi_nodes: Cache<CSINode>,
    /// Drivers.
    pub csi_drivers: Cache<CSIDriver>,
    /// Free space by class and topology.
    pub capacities: Cache<CSIStorageCapacity>,
    /// Attachments.
    pub attachments: Cache<VolumeAttachment>,
}

impl Objects {
    /// Shares the watches of `informers`.
    pub fn watch(informers: &Informers) -> Self {
        Self {
            nodes: informers.cache(),
            claims: informers.cache(),
            pvs: informers.cache(),
            classes: informers.cache(),
            csi_nodes: informers.cache(),
            csi_drivers: informers.cache(),
            capacities: informers.cache(),
            attachments: informers.cache(),
        }
    }

    /// Objects that nothing feeds: for tests, and for a single look.
    pub fn detached() -> Self {
        Self {
            nodes: Cache::detached(),
            claims: Cache::detached(),
            pvs: Cache::detached(),
            classes: Cache::detached(),
            csi_nodes: Cache::detached(),
            csi_drivers: Cache::detached(),
            capacities: Cache::detached(),
            attachments: Cache::detached(),
        }
    }

    /// Waits until all of them have been listed. May be dropped at any time.
    pub async fn synced(&self) {
        self.nodes.synced().await;
        self.claims.synced().await;
        self.pvs.synced().await;
        self.classes.synced().await;
        self.csi_nodes.synced().await;
        self.csi_drivers.synced().await;
        self.capacities.synced().await;
        self.attachments.synced().await;
    }
}

/// Volumes promised to a claim whose binding has not been written yet: PV name to claim uid.
pub type PromisedPvs = HashMap<String, String>;

/// The cluster at the moment of a decision.
#[derive(Debug, Clone, Copy)]
pub struct Snapshot<'a> {
    /// Objects.
    pub objects: &'a Objects,
    /// What is taken on each node.
    pub ledger: &'a Ledger,
    /// Volumes, ordered for being found by claims.
    pub free_pvs: &'a Candidates,
    /// Volumes that pods on their way to a node will bind.
    pub promised: &'a PromisedPvs,
}

/// One claim of the pod to be scheduled.
#[derive(Debug, Clone)]
pub struct ClaimFacts {
    /// Namespace of claim and pod.
    pub namespace: String,
    /// The claim's name.
    pub name: String,
    /// The claim is made for the pod and must be owned by it.
    pub is_ephemeral: bool,
    /// The claim, if it exists.
    pub object: Option<Arc<PersistentVolumeClaim>>,
}

/// The pod to be scheduled, with what is asked of it more than once.
#[derive(Debug, Clone)]
pub struct PodFacts<'a> {
    /// The pod.
    pub pod: &'a Arc<Pod>,
    /// Its uid.
    pub uid: String,
    /// What it needs.
    pub requests: Resources,
    /// Its claims.
    pub claims: Vec<ClaimFacts>,
}

impl<'a> PodFacts<'a> {
    /// Gathers the facts of a pod.
    pub fn gather(pod: &'a Arc<Pod>, objects: &Objects) -> Self {
        let namespace = pod.namespace().unwrap_or_default();
        let claims = claim_volumes(pod).into_iter().map(|volume| ClaimFacts {
            namespace: namespace.clone(),
            object: objects.claims.get(Some(&namespace), &volume.claim_name),
            name: volume.claim_name,
            is_ephemeral: volume.is_ephemeral,
        });
        Self {
            pod,
            uid: pod.uid().unwrap_or_default(),
            requests: of_pod(pod),
            claims: claims.collect(),
        }
    }

    /// The pod's tolerations.
    pub fn tolerations(&self) -> &[Toleration] {
        self.pod
            .spec
            .as_ref()
            .and_then(|spec| spec.tolerations.as_deref())
            .unwrap_or_default()
    }
}

/// One node the pod might go to.
#[derive(Debug, Clone, Copy)]
pub struct Candidate<'a> {
    /// The node.
    pub node: &'a Node,
    /// What is taken on it, if anything.
    pub in_use: Option<&'a NodeUse>,
}
