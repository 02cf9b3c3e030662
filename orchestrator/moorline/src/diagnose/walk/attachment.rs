//! Attachments: is the volume where it is wanted, and gone where it isn't?

use std::{sync::Arc, time::Duration};

use k8s_openapi::api::{
    core::v1::PersistentVolume,
    storage::v1::{VolumeAttachment, VolumeError},
};
use kube::ResourceExt as _;
use moorline_model::{Explanation, names, volume};
use moorline_sidecars::explain;
use moorline_volume_controllers::attach_detach::{
    attachment::{Attachment, NodeSeen, Seen, blocks_others},
    demand,
    explain::explain as why_not,
    node_report,
};

use super::{Walk, created, deleted};
use crate::diagnose::target::{Kind, ObjectName};

/// How long a dead node's word counts, as the controllers have it by default.
const FORCE_AFTER: Duration = Duration::from_secs(360);

/// What the attach/detach controller and the attacher look at.
const NEEDED: [&str; 6] = [
    "nodes",
    "persistentvolumes",
    "persistentvolumeclaims/*",
    "pods/*",
    "csidrivers",
    "csinodes",
];

/// Where an attachment stands.
pub(super) fn state(attachment: &VolumeAttachment) -> String {
    let of = match &attachment.spec.source.persistent_volume_name {
        Some(pv) => format!("PersistentVolume {pv}"),
        None => "a volume that its pod describes".to_owned(),
    };
    let node = &attachment.spec.node_name;
    let how = match Attachment::of(Some(attachment)) {
        Attachment::Attached => "attached to",
        Attachment::Failed => "could not be attached to",
        Attachment::None | Attachment::Attaching => "to be attached to",
        Attachment::Detaching => "to be detached from",
    };
    format!("{of}, {how} node {node}")
}

impl Walk<'_> {
    /// Looks at an attachment.
    pub(super) fn attachment(&mut self, attachment: &Arc<VolumeAttachment>) {
        let Some(object) = self.enter(Kind::VolumeAttachment, &attachment.metadata) else {
            return;
        };
        if self.is_blind(&object, &attachment.metadata, &NEEDED) {
            return;
        }
        let pv_name = attachment.spec.source.persistent_volume_name.as_deref();
        let pv = pv_name.and_then(|name| self.facts.objects.pvs.get(None, name));
        let name = attachment.name_any();
        let seen = self.attachment_seen(&name, Some(attachment), pv.as_deref(), &attachment.spec.node_name);
        let Some(own) = why_not(&seen, Some(FORCE_AFTER)) else {
            return;
        };
        let status = attachment.status.as_ref();
        let (explanation, since) = match seen.attachment {
            Attachment::Detaching => with_error(
                own,
                status.and_then(|status| status.detach_error.as_ref()),
                deleted(&attachment.metadata),
            ),
            Attachment::Failed if seen.is_wanted => with_error(
                own,
                status.and_then(|status| status.attach_error.as_ref()),
                created(&attachment.metadata),
            ),
            Attachment::Attaching if seen.is_wanted => {
                let csi_node = self.facts.objects.csi_nodes.get(None, &attachment.spec.node_name);
                let refused = explain::attaching(attachment, pv.as_deref(), csi_node.as_deref());
                (refused.unwrap_or(own), created(&attachment.metadata))
            }
            // Since when nobody wants it is not written anywhere.
            Attachment::None | Attachment::Attaching | Attachment::Failed | Attachment::Attached => {
                (own, None)
            }
        };
        self.add(&object, explanation, since);
    }

    /// Why a volume that a pod on the node wants has no attachment there.
    pub(super) fn missing_attachment(&mut self, pod: &ObjectName, pv: &PersistentVolume, node_name: &str) {
        let Some(csi) = pv.spec.as_ref().and_then(|spec| spec.csi.as_ref()) else {
            return;
        };
        let name = names::volume_attachment_name(&csi.volume_handle, &csi.driver, node_name);
        if let Some(attachment) = self.facts.objects.attachments.get(None, &name) {
            self.attachment(&attachment);
            return;
        }
        let seen = self.attachment_seen(&name, None, Some(pv), node_name);
        if seen.is_wanted
            && let Some(explanation) = why_not(&seen, Some(FORCE_AFTER))
        {
            self.add(pod, explanation, None);
        }
    }

    /// What the attach/detach controller would look at.
    fn attachment_seen(
        &self,
        name: &str,
        attachment: Option<&VolumeAttachment>,
        pv: Option<&PersistentVolume>,
        node_name: &str,
    ) -> Seen {
        let objects = &self.facts.objects;
        let node = objects.nodes.get(None, node_name);
        Seen {
            is_wanted: pv.is_some_and(|pv| self.is_wanted(pv, node_name)),
            unwanted_for: Duration::ZERO,
            attachment: Attachment::of(attachment),
            blocking_nodes: pv
                .map(|pv| self.blocking_nodes(pv, node_name))
                .unwrap_or_default(),
            node: NodeSeen::of(node.as_deref(), |listed| {
                node_report::find_by_attachment([listed], name, node_name).is_some()
            }),
        }
    }

    fn is_wanted(&self, pv: &PersistentVolume, node_name: &str) -> bool {
        let objects = &self.facts.objects;
        let csi = pv.spec.as_ref().and_then(|spec| spec.csi.as_ref());
        let driver = csi.and_then(|csi| objects.csi_drivers.get(None, &csi.driver));
        let reference = volume::claim_ref(pv);
        let namespace = reference.and_then(|reference| reference.namespace.as_deref());
        let name = reference.and_then(|reference| reference.name.as_deref());
        let claim = name.and_then(|name| objects.claims.get(namespace, name));
        let mut pods = self.facts.pods.list();
        pods.retain(|pod| pod.metadata.namespace.as_deref() == namespace);
        demand::needs_attach(driver.as_deref())
            && demand::wanting_nodes(pv, claim.as_deref(), &pods).contains_key(node_name)
    }

    /// The other nodes that hold a volume for one node at a time.
    fn blocking_nodes(&self, pv: &PersistentVolume, node_name: &str) -> Vec<String> {
        if volume::access_modes(pv).allows_many_nodes() {
            return Vec::new();
        }
        let others = self
            .attachments_of(pv)
            .into_iter()
            .filter(|other| other.spec.node_name != node_name && blocks_others(Attachment::of(Some(other))));
        others.map(|other| other.spec.node_name.clone()).collect()
    }
}

/// The explanation with what the driver said, and since when.
fn with_error(
    own: Explanation,
    error: Option<&VolumeError>,
    otherwise: Option<jiff::Timestamp>,
) -> (Explanation, Option<jiff::Timestamp>) {
    let Some(error) = error else {
        return (own, otherwise);
    };
    let told = error.message.clone().unwrap_or_default();
    let since = error.time.as_ref().map(|time| time.0);
    let explanation = explain::failed(own.reason, format!("{}: {told}", own.message), own.actor);
    (explanation, since.or(otherwise))
}
