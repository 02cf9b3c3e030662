//! What caches say about a PV, its attachments and the nodes they are on.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::storage::v1::VolumeAttachment;
use kube::ResourceExt;
use moorline_model::{names, volume};
use tokio::time::Instant;

use super::attachment::{self, Attachment, NodeSeen, Seen};
use super::shell::AttachDetach;
use super::{demand, node_report};

/// A PV as far as attaching goes.
pub(super) struct Volume {
    pub(super) pv_name: String,
    /// Driver name and volume handle; `None` if the PV is gone or no CSI volume.
    pub(super) csi: Option<(String, String)>,
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
    pub(super) fn own_attachments(&self) -> impl Iterator<Item = &Arc<VolumeAttachment>> {
        self.attachments
            .iter()
            .filter(|held| self.attachment_name(&held.spec.node_name).as_deref() == Some(&held.name_any()))
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
    pub(super) fn see(&self, volume: &Volume, node_name: &str) -> Option<(String, Seen)> {
        let attachment_name = volume.attachment_name(node_name)?;
        let attachment = self.attachments.get(None, &attachment_name);
        let state = Attachment::of(attachment.as_deref());
        let is_wanted = volume.wanting.contains_key(node_name);
        let is_idle = !is_wanted && state != Attachment::None;
        let mut blocking_nodes: Vec<String> = volume
            .own_attachments()
            .filter(|other| other.spec.node_name != node_name && volume.is_for_one_node)
            // Read again: an attachment made a moment ago isn't in the list yet.
            .map(|other| (other, self.attachments.get(None, &other.name_any())))
            .filter(|(_, current)| attachment::blocks_others(Attachment::of(current.as_deref())))
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
        let node = self.nodes.get(None, node_name);
        NodeSeen::of(node.as_deref(), |name| {
            lists(volume, std::iter::once(name), attachment_name, node_name)
        })
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
}

/// The PV that an attachment is about.
pub(super) fn pv_name_of(attachment: &VolumeAttachment) -> Option<String> {
    attachment.spec.source.persistent_volume_name.clone()
}

/// Whether one of a node's lists has the volume.
pub(super) fn lists<'a>(
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
