//! Asks the decider about each volume on each node, and does what it says.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use k8s_openapi::api::core::v1::{Node, PersistentVolume, PersistentVolumeClaim, Pod};
use k8s_openapi::api::storage::v1::{
    CSIDriver, VolumeAttachment, VolumeAttachmentSource, VolumeAttachmentSpec,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use kube::{Client, ResourceExt};
use moorline_model::names;
use moorline_runtime::{Cache, EventType, Index, Outcome, Queue, Recorder};
use parking_lot::Mutex;
use serde_json::json;
use tokio::time::Instant;

use super::attachment::{self, Forced, Next};
use super::observation::{Volume, lists, pv_name_of};
use super::{Config, node_report};
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

impl AttachDetach {
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
