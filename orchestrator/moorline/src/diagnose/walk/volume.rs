//! Volumes: free, in use, kept, or to be deleted and by whom.

use std::sync::Arc;

use k8s_openapi::api::core::v1::PersistentVolume;
use kube::ResourceExt as _;
use moorline_model::{
    Actor, Explanation, keys,
    volume::{self, PvPhase},
};
use moorline_sidecars::explain;
use moorline_volume_controllers::{
    binder::{
        volume_sync::{self, VolumeSeen},
        why::Why,
    },
    pv_protection,
};

use super::{Walk, created, deleted};
use crate::diagnose::{
    facts::first_seen,
    target::{Kind, ObjectName},
};

/// What the binder and the provisioner look at.
const NEEDED: [&str; 3] = ["persistentvolumeclaims/*", "storageclasses", "volumeattachments"];

/// Where a volume stands.
pub(super) fn state(pv: &PersistentVolume) -> String {
    let size = volume::capacity_quantity(pv).map_or("no size", |quantity| quantity.0.as_str());
    let class = match volume::class_name(pv) {
        "" => "no class".to_owned(),
        name => format!("class {name:?}"),
    };
    let spec = pv.spec.as_ref();
    let policy = spec
        .and_then(|spec| spec.persistent_volume_reclaim_policy.as_deref())
        .unwrap_or("Retain");
    let phase = volume::phase(pv);
    let claim = volume::claim_ref(pv).map(|reference| {
        let namespace = reference.namespace.as_deref().unwrap_or_default();
        let name = reference.name.as_deref().unwrap_or_default();
        match phase {
            PvPhase::Bound => format!(" to claim {namespace}/{name}"),
            PvPhase::Released | PvPhase::Failed => format!(", was of claim {namespace}/{name}"),
            PvPhase::Pending | PvPhase::Available => format!(", kept for claim {namespace}/{name}"),
        }
    });
    let claim = claim.unwrap_or_default();
    format!("{}{claim}, {size}, {class}, policy {policy}", phase.as_str())
}

impl Walk<'_> {
    /// Looks at a volume and its attachments.
    pub(super) fn volume(&mut self, pv: &Arc<PersistentVolume>) {
        let Some(object) = self.enter(Kind::PersistentVolume, &pv.metadata) else {
            return;
        };
        let above = self.findings.len();
        let attachments = self.attachments_of(pv);
        if let Some(explanation) = pv_protection::why_held(pv) {
            self.add(&object, explanation, deleted(&pv.metadata));
        }
        if self.is_blind(&object, &pv.metadata, &NEEDED) {
            return;
        }
        let claim = self.claim_of(pv);
        let seen = VolumeSeen {
            pv: Arc::clone(pv),
            claim,
        };
        match volume_sync::why(&seen) {
            Some(Why::Deleting) => self.deleting(&object, pv, !attachments.is_empty()),
            Some(why) => {
                let explanation = why.explanation();
                let since = phase_since(pv).or_else(|| self.since(&pv.metadata, explanation.reason));
                self.add(&object, explanation, since);
            }
            None if volume::phase(pv) == PvPhase::Pending => {
                let explanation = Explanation::new(
                    "BindingDue",
                    "nobody has looked at it yet",
                    Actor::Binder,
                    "check that the volume controllers run",
                );
                self.add(&object, explanation, created(&pv.metadata));
            }
            None => {}
        }
        let by_attacher = keys::attacher_finalizer("");
        let explained = [
            keys::PV_PROTECTION,
            keys::PROVISIONER_FINALIZER,
            by_attacher.as_str(),
        ];
        self.foreign_finalizers(&object, &pv.metadata, &explained, above);
        for attachment in attachments {
            self.attachment(&attachment);
        }
    }

    /// The claim that a volume names by UID, if it is there.
    fn claim_of(
        &self,
        pv: &PersistentVolume,
    ) -> Option<Arc<k8s_openapi::api::core::v1::PersistentVolumeClaim>> {
        let reference = volume::claim_ref(pv)?;
        let claims = &self.facts.objects.claims;
        let claim = claims.get(reference.namespace.as_deref(), reference.name.as_deref()?)?;
        (claim.metadata.uid.as_deref() == volume::claim_uid(pv)).then_some(claim)
    }

    fn deleting(&mut self, object: &ObjectName, pv: &PersistentVolume, is_attached: bool) {
        let facts = self.facts;
        let class = facts.objects.classes.get(None, volume::class_name(pv));
        let refused = explain::deletion(pv, class.as_deref(), is_attached);
        let told = facts.event(pv.metadata.uid.as_deref(), "VolumeFailedDelete", |_| true);
        let (explanation, since) = match (refused, told) {
            (Some(refused), _) => (refused, phase_since(pv)),
            (None, Some(event)) => (
                explain::failed(
                    "VolumeFailedDelete",
                    event.message.clone().unwrap_or_default(),
                    Actor::Provisioner,
                ),
                first_seen(event),
            ),
            (None, None) => (Why::Deleting.explanation(), phase_since(pv)),
        };
        self.add(object, explanation, since);
    }

    /// The attachments of a volume, by node.
    pub(super) fn attachments_of(
        &self,
        pv: &PersistentVolume,
    ) -> Vec<Arc<k8s_openapi::api::storage::v1::VolumeAttachment>> {
        let mut found = self.facts.objects.attachments.list();
        found.retain(|attachment| attachment.spec.source.persistent_volume_name == pv.metadata.name);
        found.sort_by_key(|attachment| (attachment.spec.node_name.clone(), attachment.name_any()));
        found
    }
}

fn phase_since(pv: &PersistentVolume) -> Option<jiff::Timestamp> {
    let status = pv.status.as_ref()?;
    status.last_phase_transition_time.as_ref().map(|time| time.0)
}
