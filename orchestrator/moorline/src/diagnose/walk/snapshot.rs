//! Snapshots: bound to a content, cut, ready, or on the way out.

use std::sync::Arc;

use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use moorline_model::{
    Actor, Explanation, claim,
    group_snapshot::VolumeGroupSnapshot,
    keys,
    snapshot::{SnapshotError, VolumeSnapshot, VolumeSnapshotClass, VolumeSnapshotContent, sources_of},
};
use moorline_sidecars::explain;
use moorline_volume_controllers::snapshot::{Next, Seen, Why, decide_snapshot, is_waiting};

use super::{Walk, created, deleted};
use crate::diagnose::target::{Kind, ObjectName};

/// What the snapshot controller and the snapshotter look at.
const NEEDED: [&str; 4] = [
    "volumesnapshotcontents",
    "volumesnapshotclasses",
    "persistentvolumeclaims",
    "persistentvolumes",
];

/// Where a snapshot stands.
pub(super) fn state(snapshot: &VolumeSnapshot) -> String {
    let source = &snapshot.spec.source;
    let of = match (
        &source.persistent_volume_claim_name,
        &source.volume_snapshot_content_name,
    ) {
        (Some(claim), _) => format!("of claim {claim}"),
        (None, Some(content)) => format!("of VolumeSnapshotContent {content}"),
        (None, None) => "without a source".to_owned(),
    };
    let how = if snapshot.is_ready() { "ready" } else { "not ready" };
    match snapshot.bound_content() {
        Some(content) => format!("{of}, {how}, bound to {content}"),
        None => format!("{of}, {how}, bound to no content"),
    }
}

impl Walk<'_> {
    /// Looks at a snapshot, its content and its source.
    pub(super) fn snapshot(&mut self, snapshot: &Arc<VolumeSnapshot>) {
        let Some(object) = self.enter(Kind::VolumeSnapshot, &snapshot.metadata) else {
            return;
        };
        if self.is_blind(&object, &snapshot.metadata, &NEEDED) {
            return;
        }
        let above = self.findings.len();
        let facts = self.facts;
        let content = snapshot.content_name();
        let content = content.and_then(|name| facts.contents.get(None, &name));
        let source = self.source_of(snapshot);
        let is_deleting = snapshot.metadata.deletion_timestamp.is_some();
        match self.decide(snapshot, content.as_deref(), source.as_deref()) {
            Next::Fail(why) => {
                let is_of_claim = matches!(why, Why::ClaimNotBound(_) | Why::VolumeMisbound(_));
                if let Some(source) = source.filter(|_| is_of_claim) {
                    self.claim(&source);
                }
                self.failed(above, &object, snapshot, &why);
            }
            Next::Do(_) if content.is_none() || is_deleting => {
                let explanation = Explanation::new(
                    "SnapshotDue",
                    "the snapshot controller has to act on it",
                    Actor::SnapshotController,
                    "check that the snapshot controller runs",
                );
                let since = deleted(&snapshot.metadata).or_else(|| created(&snapshot.metadata));
                self.add(&object, explanation, since);
            }
            Next::Wait => self.add(&object, group_going(snapshot), deleted(&snapshot.metadata)),
            Next::Settled if content.is_none() && snapshot.group().is_some() && !is_deleting => {
                self.add(&object, group_uncut(snapshot), created(&snapshot.metadata));
            }
            Next::Settled | Next::Do(_) => {
                if let Some(content) = content.filter(|_| is_deleting || !snapshot.is_ready()) {
                    self.content(&content);
                }
            }
        }
        let explained = [
            keys::SNAPSHOT_AS_SOURCE_PROTECTION,
            keys::SNAPSHOT_BOUND_PROTECTION,
            keys::SNAPSHOT_IN_GROUP_PROTECTION,
        ];
        self.foreign_finalizers(&object, &snapshot.metadata, &explained, above);
    }

    /// The claim that a snapshot is taken of.
    fn source_of(&self, snapshot: &VolumeSnapshot) -> Option<Arc<PersistentVolumeClaim>> {
        let name = snapshot.spec.source.persistent_volume_claim_name.as_deref()?;
        let claims = &self.facts.objects.claims;
        claims.get(snapshot.metadata.namespace.as_deref(), name)
    }

    /// What the snapshot controller says.
    fn decide(
        &self,
        snapshot: &VolumeSnapshot,
        content: Option<&VolumeSnapshotContent>,
        source: Option<&PersistentVolumeClaim>,
    ) -> Next {
        let facts = self.facts;
        let class_name = snapshot.spec.volume_snapshot_class_name.as_deref();
        let class = class_name.and_then(|name| facts.snapshot_classes.get(None, name));
        let mut classes = facts.snapshot_classes.list();
        classes.retain(|class| class_name.is_none() && class.is_default());
        let pv = source.and_then(claim::volume_name);
        let pv = pv.and_then(|name| facts.objects.pvs.get(None, name));
        let default_classes: Vec<&VolumeSnapshotClass> = classes.iter().map(Arc::as_ref).collect();
        let group = self.group_of(snapshot);
        decide_snapshot(&Seen {
            snapshot,
            content,
            class: class.as_deref(),
            default_classes,
            claim: source,
            pv: pv.as_deref(),
            is_restoring: self.is_restoring(snapshot),
            keeps_volume_mode: true,
            // Only where the controller runs with --enable-distributed-snapshotting, which can't be seen from here.
            nodes: None,
            group_name: snapshot.group_name().map(str::to_owned),
            group: group.as_deref(),
        })
    }

    /// The group snapshot that a snapshot belongs to.
    fn group_of(&self, snapshot: &VolumeSnapshot) -> Option<Arc<VolumeGroupSnapshot>> {
        let name = snapshot.group_name()?;
        let namespace = snapshot.metadata.namespace.as_deref();
        let group = self.facts.groups.get(namespace, name)?;
        let uid = snapshot.group().map(|owner| owner.uid.as_str());
        (uid.is_none() || uid == group.metadata.uid.as_deref()).then_some(group)
    }

    /// Whether an unbound claim waits to be filled from it.
    fn is_restoring(&self, snapshot: &VolumeSnapshot) -> bool {
        let meta = &snapshot.metadata;
        let own = (
            meta.namespace.clone().unwrap_or_default(),
            meta.name.clone().unwrap_or_default(),
        );
        let claims = self.facts.objects.claims.list();
        claims
            .iter()
            .any(|claim| is_waiting(claim) && sources_of(claim).contains(&own))
    }

    /// `above` findings are older than those about what it waits for.
    fn failed(&mut self, above: usize, object: &ObjectName, snapshot: &VolumeSnapshot, why: &Why) {
        let explanation = why.explanation();
        let error = snapshot.status.as_ref().and_then(|status| status.error.as_ref());
        let since = error
            .and_then(time_of)
            .or_else(|| self.since(&snapshot.metadata, explanation.reason));
        self.add_above(above, object, explanation, since, Actor::SnapshotController);
    }

    /// The sidecar has to cut or to delete.
    fn content(&mut self, content: &Arc<VolumeSnapshotContent>) {
        let Some(object) = self.enter(Kind::VolumeSnapshotContent, &content.metadata) else {
            return;
        };
        let class = content.spec.volume_snapshot_class_name.as_deref();
        let class = class.and_then(|name| self.facts.snapshot_classes.get(None, name));
        let refused = explain::snapshotting(content, class.as_deref());
        let begun = deleted(&content.metadata).or_else(|| created(&content.metadata));
        let error = content.status.as_ref().and_then(|status| status.error.as_ref());
        let (explanation, since) = match (refused, error) {
            (Some(refused), _) => (refused, begun),
            (None, Some(error)) => (
                explain::failed(
                    "SnapshotFailed",
                    error.message.clone().unwrap_or_default(),
                    Actor::Snapshotter,
                ),
                time_of(error).or(begun),
            ),
            (None, None) => (under_way(content), begun),
        };
        self.add(&object, explanation, since);
    }
}

fn group_going(snapshot: &VolumeSnapshot) -> Explanation {
    let group = snapshot.group_name().unwrap_or_default();
    Explanation::new(
        "GroupSnapshotDeleting",
        format!("it goes after its group snapshot {group:?}, whose data the driver has to delete"),
        Actor::Snapshotter,
        "check that the driver's csi-snapshotter runs and what it logs",
    )
}

fn group_uncut(snapshot: &VolumeSnapshot) -> Explanation {
    let group = snapshot.group_name().unwrap_or_default();
    Explanation::new(
        "GroupSnapshotDue",
        format!("the snapshot controller has to make its content, for group snapshot {group:?}"),
        Actor::SnapshotController,
        "check that the snapshot controller runs",
    )
}

fn under_way(content: &VolumeSnapshotContent) -> Explanation {
    let (reason, message) = if content.metadata.deletion_timestamp.is_some() {
        ("SnapshotDeleting", "the driver has to delete the snapshot")
    } else if content.handle().is_some() {
        (
            "SnapshotNotReady",
            "the snapshot is cut, and the driver is still making it ready to use",
        )
    } else {
        ("SnapshotCutting", "the driver has to cut the snapshot")
    };
    Explanation::new(
        reason,
        message,
        Actor::Snapshotter,
        "check that the driver's csi-snapshotter runs and what it logs",
    )
}

fn time_of(error: &SnapshotError) -> Option<jiff::Timestamp> {
    error.time.as_ref().map(|time| time.0)
}
