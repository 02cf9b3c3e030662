//! Gathers what PVs, nodes and attachments look like, asks the decider, does what it says.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Node, PersistentVolume, PersistentVolumeClaim, Pod};
use k8s_openapi::api::storage::v1::{
    CSIDriver, VolumeAttachment, VolumeAttachmentSource, VolumeAttachmentSpec,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use kube::{Client, ResourceExt};
use moorline_model::{names, volume};
use moorline_runtime::{Cache, EventType, Index, Outcome, Queue, Recorder};
use parking_lot::Mutex;
use serde_json::json;
use tokio::time::Instant;

use super::attachment::{self, Attachment, Charge, Forced, Next, NodeSeen, Seen};
use super::{Config, demand, node_report};
use crate::told::{Tell, Told};
use crate::write_error::WriteError;

/// What keeps a pod from getting its volume attached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Trouble {
    AttacherSilent,
    AttachedElsewhere(Vec<String>),
}

pub(super) struct AttachDetach {
    pub(super) config: Config,
    pub(super) client: Client,
    pub(super) claims: Cache<PersistentVolumeClaim>,
    pub(super) pvs: Cache<PersistentVolume>,
    pub(super) nodes: Cache<Node>,
    pub(super) attachments: Cache<VolumeAttachment>,
    pub(super) drivers: Cache<CSIDriver>,
    pub(super) pods_by_claim: Index<String, Pod>,
    pub(super) pods_by_node: Index<String, Pod>,
    pub(super) pvs_by_driver: Index<String, PersistentVolume>,
    pub(super) attachments_by_pv: Index<String, VolumeAttachment>,
    pub(super) attachments_by_node: Index<String, VolumeAttachment>,
    pub(super) pv_queue: Queue<String>,
    pub(super) node_queue: Queue<String>,
    /// Since when an attachment, by name, is wanted by nobody.
    pub(super) unwanted_since: Mutex<HashMap<String, Instant>>,
    pub(super) told: Told<Trouble>,
    pub(super) recorder: Recorder,
}

/// A PV as far as attaching goes.
pub(super) struct Volume {
    pv_name: String,
    /// Driver name and volume handle; `None` if the PV is gone or no CSI volume.
    csi: Option<(String, String)>,
    is_for_one_node: bool,
    /// The nodes that want it attached.
    pub(super) wanting: BTreeMap<String, Vec<Arc<Pod>>>,
    attachments: Vec<Arc<VolumeAttachment>>,
}

impl Volume {
    /// The name of its attachment to the node; for a PV that is gone the one that is there.
    fn attachment_name(&self, node_name: &str) -> Option<String> {
        match &self.csi {
            Some((driver_name, volume_handle)) => Some(names::volume_attachment_name(
                volume_handle,
                driver_name,
                node_name,
            )),
            None => {
                let held = self
                    .attachments
                    .iter()
                    .find(|held| held.spec.node_name == node_name);
                held.map(|held| held.name_any())
            }
        }
    }

    /// The attachments that this controller made.
    fn own_attachments(&self) -> impl Iterator<Item = &Arc<VolumeAttachment>> {
        self.attachments
            .iter()
            .filter(|held| self.attachment_name(&held.spec.node_name).as_deref() == Some(&held.name_any()))
    }
}

/// How far an attachment has come.
pub(super) fn state_of(attachment: Option<&VolumeAttachment>) -> Attachment {
    let Some(attachment) = attachment else {
        return Attachment::None;
    };
    if attachment.metadata.deletion_timestamp.is_some() {
        return Attachment::Detaching;
    }
    match &attachment.status {
        Some(status) if status.attached => Attachment::Attached,
        Some(status) if status.attach_error.is_some() => Attachment::Failed,
        Some(_) | None => Attachment::Attaching,
    }
}

impl AttachDetach {
    /// What there is to know about a PV, whether or not it exists.
    pub(super) fn volume(&self, pv_name: &str) -> Volume {
        let mut found = Volume {
            pv_name: pv_name.to_string(),
            csi: None,
            is_for_one_node: false,
            wanting: BTreeMap::new(),
            attachments: self.attachments_by_pv.get(pv_name),
        };
        let Some(pv) = self.pvs.get(None, pv_name) else {
            return found;
        };
        let Some(csi) = pv.spec.as_ref().and_then(|spec| spec.csi.as_ref()) else {
            return found;
        };
        found.csi = Some((csi.driver.clone(), csi.volume_handle.clone()));
        found.is_for_one_node = !volume::access_modes(&pv).allows_many_nodes();
        let driver = self.drivers.get(None, &csi.driver);
        if !demand::needs_attach(driver.as_deref()) {
            return found;
        }
        if let Some(reference) = volume::claim_ref(&pv) {
            let namespace = reference.namespace.as_deref().unwrap_or_default();
            let name = reference.name.as_deref().unwrap_or_default();
            let claim = self.claims.get(Some(namespace), name);
            let pods = self.pods_by_claim.get(&format!("{namespace}/{name}"));
            found.wanting = demand::wanting_nodes(&pv, claim.as_deref(), &pods);
        }
        found
    }

    /// What a decision about the volume on the node rests on, with the attachment's name.
    fn see(&self, volume: &Volume, node_name: &str) -> Option<(String, Seen)> {
        let attachment_name = volume.attachment_name(node_name)?;
        let attachment = self.attachments.get(None, &attachment_name);
        let state = state_of(attachment.as_deref());
        let is_wanted = volume.wanting.contains_key(node_name);
        let is_idle = !is_wanted && state != Attachment::None;
        let mut blocking_nodes: Vec<String> = volume
            .own_attachments()
            .filter(|other| other.spec.node_name != node_name && volume.is_for_one_node)
            // Read again: an attachment made a moment ago isn't in the list yet.
            .map(|other| (other, self.attachments.get(None, &other.name_any())))
            .filter(|(_, current)| attachment::blocks_others(state_of(current.as_deref())))
            .map(|(other, _)| other.spec.node_name.clone())
            .collect();
        blocking_nodes.sort();
        let seen = Seen {
            is_wanted,
            unwanted_for: self.unwanted_for(&attachment_name, is_idle),
            attachment: state,
            blocking_nodes,
            node: self.see_node(volume, node_name, &attachment_name),
        };
        Some((attachment_name, seen))
    }

    fn see_node(&self, volume: &Volume, node_name: &str, attachment_name: &str) -> NodeSeen {
        let Some(node) = self.nodes.get(None, node_name) else {
            return NodeSeen {
                charge: Charge::Nobodys,
                is_reported: false,
                is_in_use: false,
                is_healthy: false,
                is_out_of_service: false,
            };
        };
        let is_managed = node_report::is_managed(&node);
        NodeSeen {
            charge: if is_managed {
                Charge::Ours
            } else {
                Charge::Kubelets
            },
            is_reported: lists(
                volume,
                node_report::reported_names(&node),
                attachment_name,
                node_name,
            ),
            is_in_use: lists(
                volume,
                node_report::in_use_names(&node),
                attachment_name,
                node_name,
            ),
            is_healthy: node_report::is_ready(&node),
            is_out_of_service: node_report::is_out_of_service(&node),
        }
    }

    fn unwanted_for(&self, attachment_name: &str, is_idle: bool) -> Duration {
        let mut unwanted_since = self.unwanted_since.lock();
        if !is_idle {
            unwanted_since.remove(attachment_name);
            return Duration::ZERO;
        }
        let now = Instant::now();
        let since = unwanted_since.entry(attachment_name.to_string()).or_insert(now);
        now.duration_since(*since)
    }

    /// Looks at one PV on all nodes that want it or have it.
    pub(super) async fn sync_pv(&self, pv_name: &str) -> Result<Outcome, kube::Error> {
        let mut outcome = Outcome::Settled;
        let volume = self.volume(pv_name);
        let having = volume.own_attachments().map(|held| held.spec.node_name.clone());
        // Nodes that already have it come first: what they let go of decides what others may get.
        let having: BTreeSet<String> = having.collect();
        let wanting = volume.wanting.keys().filter(|node| !having.contains(*node));
        for node_name in having.iter().chain(wanting) {
            // Own writes to earlier nodes count for later ones.
            let volume = self.volume(pv_name);
            let Some((attachment_name, seen)) = self.see(&volume, node_name) else {
                continue;
            };
            let next = attachment::decide(&seen, self.config.force_detach_after);
            tracing::trace!(pv.name = pv_name, node.name = node_name, ?seen, ?next, "Decided");
            let done = self.act(next, &volume, node_name, &attachment_name).await?;
            outcome = sooner(outcome, done);
        }
        Ok(outcome)
    }

    async fn act(
        &self,
        next: Next,
        volume: &Volume,
        node_name: &str,
        attachment_name: &str,
    ) -> Result<Outcome, kube::Error> {
        let written = match next {
            Next::Settled => {
                self.told.forget(attachment_name);
                Ok(Outcome::Settled)
            }
            Next::Create => self.create(volume, node_name, attachment_name).await,
            Next::AwaitAttacher => {
                let patience = self.config.attach_patience;
                Ok(self.tell(
                    volume,
                    node_name,
                    attachment_name,
                    Trouble::AttacherSilent,
                    patience,
                ))
            }
            Next::AwaitOtherNodes(nodes) => {
                let trouble = Trouble::AttachedElsewhere(nodes);
                Ok(self.tell(volume, node_name, attachment_name, trouble, Duration::ZERO))
            }
            Next::Report => {
                self.node_queue.add(node_name.to_string());
                Ok(Outcome::Settled)
            }
            Next::AwaitNode(rest) => Ok(Outcome::After(rest)),
            Next::Delete { forced } => self.delete(volume, node_name, attachment_name, forced).await,
        };
        match written {
            Ok(outcome) => Ok(outcome),
            Err(WriteError::Conflict) => Ok(Outcome::Retry),
            // What was to be deleted is.
            Err(WriteError::Gone) => Ok(Outcome::Settled),
            Err(WriteError::Other(error)) => Err(error),
        }
    }

    async fn create(
        &self,
        volume: &Volume,
        node_name: &str,
        attachment_name: &str,
    ) -> Result<Outcome, WriteError> {
        let Some((driver_name, _)) = &volume.csi else {
            return Ok(Outcome::Settled);
        };
        let attachment = VolumeAttachment {
            metadata: ObjectMeta {
                name: Some(attachment_name.to_string()),
                ..Default::default()
            },
            spec: VolumeAttachmentSpec {
                attacher: driver_name.clone(),
                node_name: node_name.to_string(),
                source: VolumeAttachmentSource {
                    persistent_volume_name: Some(volume.pv_name.clone()),
                    inline_volume_spec: None,
                },
            },
            status: None,
        };
        let api = Api::<VolumeAttachment>::all(self.client.clone());
        let made = api.create(&PostParams::default(), &attachment).await?;
        tracing::info!(
            pv.name = volume.pv_name,
            node.name = node_name,
            "Asked for an attachment"
        );
        self.attachments.observe(made);
        // Its patience with the attacher starts now.
        Ok(Outcome::After(self.config.attach_patience))
    }

    async fn delete(
        &self,
        volume: &Volume,
        node_name: &str,
        attachment_name: &str,
        forced: Option<Forced>,
    ) -> Result<Outcome, WriteError> {
        let Some(attachment) = self.attachments.get(None, attachment_name) else {
            return Ok(Outcome::Settled);
        };
        match forced {
            None if !self.is_safe_to_detach(volume, node_name, attachment_name).await? => {
                return Ok(Outcome::Retry);
            }
            None => tracing::info!(pv.name = volume.pv_name, node.name = node_name, "Detaching"),
            Some(reason) => {
                tracing::warn!(
                    pv.name = volume.pv_name,
                    node.name = node_name,
                    ?reason,
                    "Detaching without the node's consent"
                );
            }
        }
        let params = DeleteParams {
            preconditions: Some(Preconditions {
                uid: attachment.metadata.uid.clone(),
                resource_version: None,
            }),
            ..Default::default()
        };
        let api = Api::<VolumeAttachment>::all(self.client.clone());
        if let Some(deleting) = api.delete(attachment_name, &params).await?.left() {
            self.attachments.observe(deleting);
        }
        Ok(Outcome::Settled)
    }

    /// Asks the API server, not the cache, whether the node may still mount the volume. A node that is gone can't.
    async fn is_safe_to_detach(
        &self,
        volume: &Volume,
        node_name: &str,
        attachment_name: &str,
    ) -> Result<bool, WriteError> {
        let nodes = Api::<Node>::all(self.client.clone());
        let Some(node) = nodes.get_opt(node_name).await? else {
            return Ok(true);
        };
        let may_mount = lists(
            volume,
            node_report::reported_names(&node),
            attachment_name,
            node_name,
        ) || lists(
            volume,
            node_report::in_use_names(&node),
            attachment_name,
            node_name,
        );
        self.nodes.observe(node);
        Ok(!may_mount)
    }

    /// Brings the list of attached volumes in the node's status up to date.
    pub(super) async fn sync_node(&self, node_name: &str) -> Result<Outcome, kube::Error> {
        let Some(node) = self.nodes.get(None, node_name) else {
            return Ok(Outcome::Settled);
        };
        if !node_report::is_managed(&node) {
            return Ok(Outcome::Settled);
        }
        let held = self.attachments_by_node.get(node_name);
        let pv_names: BTreeSet<String> = held.iter().filter_map(|held| pv_name_of(held)).collect();
        let attached = pv_names
            .iter()
            .filter_map(|pv_name| self.report_of(&node, pv_name));
        let Some(list) = node_report::corrected(&node, attached.collect()) else {
            return Ok(Outcome::Settled);
        };
        let api = Api::<Node>::all(self.client.clone());
        let patch = Patch::Merge(json!({"status": {"volumesAttached": list}}));
        match api
            .patch_status(node_name, &PatchParams::default(), &patch)
            .await
            .map_err(WriteError::from)
        {
            Ok(node) => self.nodes.observe(node),
            Err(WriteError::Conflict) => return Ok(Outcome::Retry),
            Err(WriteError::Gone) => {}
            Err(WriteError::Other(error)) => return Err(error),
        }
        // Those that waited for it go on.
        for pv_name in pv_names {
            self.pv_queue.add(pv_name);
        }
        Ok(Outcome::Settled)
    }

    /// The name under which the node's status shall list the PV, if at all.
    fn report_of(&self, node: &Node, pv_name: &str) -> Option<String> {
        let node_name = node.name_any();
        let volume = self.volume(pv_name);
        let (attachment_name, seen) = self.see(&volume, &node_name)?;
        if !attachment::belongs_in_report(&seen, self.config.force_detach_after) {
            return None;
        }
        match &volume.csi {
            Some((driver_name, volume_handle)) => Some(names::unique_volume_name(driver_name, volume_handle)),
            None => {
                let listed = node_report::reported_names(node).chain(node_report::in_use_names(node));
                node_report::find_by_attachment(listed, &attachment_name, &node_name).map(str::to_string)
            }
        }
    }

    /// Tells the pods that wait for the volume on the node.
    fn tell(
        &self,
        volume: &Volume,
        node_name: &str,
        attachment_name: &str,
        trouble: Trouble,
        patience: Duration,
    ) -> Outcome {
        let message = match &trouble {
            Trouble::AttacherSilent => format!(
                "PersistentVolume {:?} is not attached yet; check that the attacher of its driver runs",
                volume.pv_name
            ),
            Trouble::AttachedElsewhere(nodes) => format!(
                "Multi-Attach: PersistentVolume {:?} can be attached to one node at a time and is still attached to {}",
                volume.pv_name,
                nodes.join(", ")
            ),
        };
        match self
            .told
            .check(attachment_name, trouble, patience, Instant::now())
        {
            Tell::Now => {
                self.tell_pods(
                    volume,
                    node_name,
                    EventType::Warning,
                    "FailedAttachVolume",
                    &message,
                );
                Outcome::Settled
            }
            Tell::In(rest) => Outcome::After(rest),
            Tell::No => Outcome::Settled,
        }
    }

    pub(super) fn tell_pods(
        &self,
        volume: &Volume,
        node_name: &str,
        event_type: EventType,
        reason: &str,
        message: &str,
    ) {
        for pod in volume.wanting.get(node_name).into_iter().flatten() {
            self.recorder
                .event_on(&**pod, event_type, reason, message.to_string());
        }
    }
}

/// The PV that an attachment is about.
pub(super) fn pv_name_of(attachment: &VolumeAttachment) -> Option<String> {
    attachment.spec.source.persistent_volume_name.clone()
}

/// Whether one of a node's lists has the volume.
fn lists<'a>(
    volume: &Volume,
    mut listed: impl Iterator<Item = &'a str>,
    attachment_name: &str,
    node_name: &str,
) -> bool {
    match &volume.csi {
        Some((driver_name, volume_handle)) => {
            let unique_name = names::unique_volume_name(driver_name, volume_handle);
            listed.any(|name| name == unique_name)
        }
        None => node_report::find_by_attachment(listed, attachment_name, node_name).is_some(),
    }
}

/// The outcome that comes earlier.
fn sooner(a: Outcome, b: Outcome) -> Outcome {
    match (a, b) {
        (Outcome::Retry, _) | (_, Outcome::Retry) => Outcome::Retry,
        (Outcome::After(a), Outcome::After(b)) => Outcome::After(a.min(b)),
        (Outcome::After(time), Outcome::Settled) | (Outcome::Settled, Outcome::After(time)) => {
            Outcome::After(time)
        }
        (Outcome::Settled, Outcome::Settled) => Outcome::Settled,
    }
}
