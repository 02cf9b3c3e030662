//! Which PVs and nodes a change makes worth a look.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, PersistentVolume, PersistentVolumeClaim, Pod};
use k8s_openapi::api::storage::v1::{CSIDriver, VolumeAttachment};
use kube::ResourceExt;
use moorline_model::{claim, pod};
use moorline_runtime::{Cache, Change, EventType, Index};

use super::attachment::Attachment;
use super::observation::pv_name_of;
use super::shell::AttachDetach;
use super::{demand, node_report};

pub(super) fn pods_by_node(pods: &Cache<Pod>) -> Index<String, Pod> {
    Index::new(pods, |pod| {
        pod::node_name(pod).map(str::to_string).into_iter().collect()
    })
}

pub(super) fn pvs_by_driver(pvs: &Cache<PersistentVolume>) -> Index<String, PersistentVolume> {
    Index::new(pvs, |pv| {
        let csi = pv.spec.as_ref().and_then(|spec| spec.csi.as_ref());
        csi.map(|csi| csi.driver.clone()).into_iter().collect()
    })
}

pub(super) fn attachments_by_pv(cache: &Cache<VolumeAttachment>) -> Index<String, VolumeAttachment> {
    Index::new(cache, |attachment| pv_name_of(attachment).into_iter().collect())
}

pub(super) fn attachments_by_node(cache: &Cache<VolumeAttachment>) -> Index<String, VolumeAttachment> {
    Index::new(cache, |attachment| vec![attachment.spec.node_name.clone()])
}

/// Has everything that exists looked at, then everything that changes.
pub(super) fn start(controller: &Arc<AttachDetach>, pods: &Cache<Pod>) {
    follow(controller, pods, AttachDetach::pod_changed);
    follow(controller, &controller.claims, AttachDetach::claim_changed);
    follow(controller, &controller.pvs, AttachDetach::pv_changed);
    follow(controller, &controller.nodes, AttachDetach::node_changed);
    follow(
        controller,
        &controller.attachments,
        AttachDetach::attachment_changed,
    );
    follow(controller, &controller.drivers, AttachDetach::driver_changed);
}

/// The caches outlive the controller and must not keep it alive.
fn follow<K>(controller: &Arc<AttachDetach>, cache: &Cache<K>, changed: fn(&AttachDetach, &Change<K>))
where
    K: kube::Resource + Send + Sync + 'static,
{
    let controller = Arc::downgrade(controller);
    cache.on_change(move |change| {
        if let Some(controller) = controller.upgrade() {
            changed(&controller, change);
        }
    });
}

impl AttachDetach {
    fn pod_changed(&self, change: &Change<Pod>) {
        match change {
            Change::Added(pod) | Change::Removed(pod) => self.add_pvs_of(pod),
            Change::Updated { old, new } => {
                let place = |pod: &Pod| (pod::node_name(pod).map(str::to_string), pod::is_terminated(pod));
                if place(old) != place(new) {
                    self.add_pvs_of(new);
                }
            }
        }
    }

    fn add_pvs_of(&self, pod: &Pod) {
        if pod::node_name(pod).is_none() {
            return;
        }
        let namespace = pod.namespace().unwrap_or_default();
        for volume in pod::claim_volumes(pod) {
            let claim = self.claims.get(Some(&namespace), &volume.claim_name);
            if let Some(pv_name) = claim.as_deref().and_then(claim::volume_name) {
                self.pv_queue.add(pv_name.to_string());
            }
        }
    }

    fn claim_changed(&self, change: &Change<PersistentVolumeClaim>) {
        if let Some(pv_name) = claim::volume_name(change.object()) {
            self.pv_queue.add(pv_name.to_string());
        }
    }

    fn pv_changed(&self, change: &Change<PersistentVolume>) {
        self.pv_queue.add(change.object().name_any());
    }

    fn attachment_changed(&self, change: &Change<VolumeAttachment>) {
        let attachment = change.object();
        if let Some(pv_name) = pv_name_of(attachment) {
            self.pv_queue.add(pv_name);
        }
        self.node_queue.add(attachment.spec.node_name.clone());
        if let Change::Updated { old, new } = change {
            self.tell_progress(old, new);
        }
        if let Change::Removed(attachment) = change {
            let name = attachment.name_any();
            self.unwanted_since.lock().remove(&name);
            self.told.forget(&name);
        }
    }

    /// Tells the pods that wait when the attacher has answered.
    fn tell_progress(&self, old: &VolumeAttachment, new: &VolumeAttachment) {
        let error = |attachment: &VolumeAttachment| {
            let error = attachment.status.as_ref()?.attach_error.as_ref()?;
            error.message.clone()
        };
        let Some(pv_name) = pv_name_of(new) else {
            return;
        };
        let is_attached = |attachment| Attachment::of(Some(attachment)) == Attachment::Attached;
        let node_name = &new.spec.node_name;
        if is_attached(new) && !is_attached(old) {
            let message = format!("PersistentVolume {pv_name:?} is attached");
            let volume = self.volume(&pv_name);
            self.tell_pods(
                &volume,
                node_name,
                EventType::Normal,
                "SuccessfulAttachVolume",
                &message,
            );
        } else if let Some(error) = error(new).filter(|message| error(old).as_ref() != Some(message)) {
            let message = format!("attaching PersistentVolume {pv_name:?} failed: {error}");
            let volume = self.volume(&pv_name);
            self.tell_pods(
                &volume,
                node_name,
                EventType::Warning,
                "FailedAttachVolume",
                &message,
            );
        }
    }

    fn node_changed(&self, change: &Change<Node>) {
        let node = change.object();
        if let Change::Updated { old, new } = change
            && matters(old) == matters(new)
        {
            return;
        }
        let name = node.name_any();
        for attachment in self.attachments_by_node.get(&name) {
            if let Some(pv_name) = pv_name_of(&attachment) {
                self.pv_queue.add(pv_name);
            }
        }
        let is_known = |change: &Change<Node>| match change {
            Change::Updated { old, new } => node_report::is_managed(old) == node_report::is_managed(new),
            Change::Added(_) | Change::Removed(_) => false,
        };
        if !is_known(change) {
            // Its pods have waited for it.
            for pod in self.pods_by_node.get(&name) {
                self.add_pvs_of(&pod);
            }
        }
        self.node_queue.add(name);
    }

    fn driver_changed(&self, change: &Change<CSIDriver>) {
        if let Change::Updated { old, new } = change
            && demand::needs_attach(Some(old)) == demand::needs_attach(Some(new))
        {
            return;
        }
        for pv in self.pvs_by_driver.get(&change.object().name_any()) {
            self.pv_queue.add(pv.name_any());
        }
    }
}

/// What of a node decisions rest on; the rest of its status changes all the time.
fn matters(node: &Node) -> impl PartialEq {
    let reported: Vec<String> = node_report::reported_names(node).map(str::to_string).collect();
    let in_use: Vec<String> = node_report::in_use_names(node).map(str::to_string).collect();
    let flags = (
        node_report::is_managed(node),
        node_report::is_ready(node),
        node_report::is_out_of_service(node),
    );
    (reported, in_use, flags)
}
