//! What must be true of snapshots, and of volumes that are filled from something.

use serde_json::Value;

use super::{Checker, gib, of_kind, text};
use crate::backend::Backend;

pub(super) const SNAPSHOTS: &str = "snapshot.storage.k8s.io/volumesnapshots/";
pub(super) const CONTENTS: &str = "snapshot.storage.k8s.io/volumesnapshotcontents/";
const CLONING_PROTECTION: &str = "provisioner.storage.kubernetes.io/cloning-protection";
const RESTORING_PROTECTION: &str = "provisioner.storage.kubernetes.io/volumesnapshot-as-source-protection";

/// The driver's id of the snapshot that a content stands for.
fn handle_of(content: &Value) -> &str {
    match text(content, "/spec/source/snapshotHandle") {
        "" => text(content, "/status/snapshotHandle"),
        handle => handle,
    }
}

fn is_ready(snapshot: &Value) -> bool {
    snapshot.pointer("/status/readyToUse") == Some(&Value::Bool(true))
}

fn is_going(object: &Value) -> bool {
    !text(object, "/metadata/deletionTimestamp").is_empty()
}

fn has_finalizer(object: &Value, name: &str) -> bool {
    let held = object.pointer("/metadata/finalizers");
    let mut held = held.and_then(Value::as_array).into_iter().flatten();
    held.any(|finalizer| finalizer == name)
}

/// After each step.
impl Checker {
    pub(super) fn snapshot_changed(
        &self,
        name: &str,
        old: Option<&Value>,
        new: Option<&Value>,
        broken: &mut Vec<String>,
    ) {
        match (old, new) {
            (old, Some(new)) if is_ready(new) && !old.is_some_and(is_ready) => {
                self.judge_ready(name, new, broken);
            }
            (Some(old), None) => self.snapshot_went(name, old, broken),
            _ => {}
        }
    }

    /// A snapshot that says it is ready has a content of its own, and the backend has it, ready.
    fn judge_ready(&self, name: &str, snapshot: &Value, broken: &mut Vec<String>) {
        let content_name = text(snapshot, "/status/boundVolumeSnapshotContentName");
        let content = self.objects.get(&format!("{CONTENTS}{content_name}"));
        let Some(content) = content.filter(|content| {
            text(content, "/spec/volumeSnapshotRef/uid") == text(snapshot, "/metadata/uid")
        }) else {
            broken.push(format!(
                "{name} is ready, and its content {content_name:?} is not its own"
            ));
            return;
        };
        let handle = handle_of(content);
        let backend = self.backend.lock();
        if !backend
            .snapshots
            .get(handle)
            .is_some_and(|snapshot| snapshot.is_ready())
        {
            broken.push(format!("{name} is ready, and the backend's {handle:?} is not"));
        }
    }

    /// A snapshot doesn't go before what it stands for.
    fn snapshot_went(&self, name: &str, old: &Value, broken: &mut Vec<String>) {
        let uid = text(old, "/metadata/uid");
        let left = of_kind(&self.objects, CONTENTS).find(|(_, content)| {
            text(content, "/spec/volumeSnapshotRef/uid") == uid
                && text(content, "/spec/deletionPolicy") == "Delete"
        });
        if let Some((content, _)) = left {
            broken.push(format!("{name} went before {content}"));
        }
    }

    pub(super) fn content_changed(&mut self, old: Option<&Value>, new: Option<&Value>) {
        let latest = new.or(old).unwrap_or(&Value::Null);
        let handle = handle_of(latest).to_owned();
        if handle.is_empty() {
            return;
        }
        if text(latest, "/spec/deletionPolicy") == "Retain" {
            self.kept.insert(handle);
        } else if new.is_some() {
            self.kept.remove(&handle);
        }
    }

    /// The backend has deleted a snapshot.
    pub(super) fn judge_cut(&self, handle: &str, broken: &mut Vec<String>) {
        if self.kept.contains(handle) {
            broken.push(format!(
                "snapshot {handle} was deleted although its content says Retain"
            ));
        }
        for (name, content) in
            of_kind(&self.objects, CONTENTS).filter(|(_, content)| handle_of(content) == handle)
        {
            if let Some((snapshot, _)) = self.snapshot_of(content).filter(|(_, found)| !is_going(found)) {
                broken.push(format!(
                    "snapshot {handle} was deleted while {snapshot} is bound to {name}"
                ));
            }
        }
    }

    fn snapshot_of(&self, content: &Value) -> Option<(&String, &Value)> {
        let uid = text(content, "/spec/volumeSnapshotRef/uid");
        of_kind(&self.objects, SNAPSHOTS).find(|(_, snapshot)| text(snapshot, "/metadata/uid") == uid)
    }

    /// The volume of a claim that becomes Bound is filled from what the claim names.
    pub(super) fn judge_origin(
        &self,
        name: &str,
        claim: &Value,
        pv: Option<&Value>,
        broken: &mut Vec<String>,
    ) {
        let handle = pv
            .map(|pv| text(pv, "/spec/csi/volumeHandle"))
            .unwrap_or_default();
        let backend = self.backend.lock();
        let Some(volume) = backend.volumes.get(handle) else {
            return;
        };
        let is_restored = volume
            .source
            .as_ref()
            .is_some_and(|source| source.starts_with("snap-"));
        let is_right = match text(claim, "/spec/dataSource/kind") {
            "VolumeSnapshot" => is_restored,
            "PersistentVolumeClaim" => volume.source.is_some() && !is_restored,
            _ => volume.source.is_none(),
        };
        if !is_right {
            broken.push(format!(
                "{name} is bound to {handle}, which is filled from {:?}",
                volume.source
            ));
        }
    }
}

/// In the end.
impl Checker {
    /// Whether a volume can be made for the claim, as far as its source goes.
    pub(super) fn can_be_filled(&self, claim: &Value) -> bool {
        let source = text(claim, "/spec/dataSource/name");
        let wanted = gib(text(claim, "/spec/resources/requests/storage"));
        match text(claim, "/spec/dataSource/kind") {
            "VolumeSnapshot" => {
                let snapshot = self.objects.get(&format!("{SNAPSHOTS}default/{source}"));
                snapshot.is_some_and(|snapshot| {
                    is_ready(snapshot)
                        && (!is_going(snapshot) || has_finalizer(snapshot, RESTORING_PROTECTION))
                        && wanted >= gib(text(snapshot, "/status/restoreSize"))
                })
            }
            "PersistentVolumeClaim" => {
                let source = self
                    .objects
                    .get(&format!("persistentvolumeclaims/default/{source}"));
                source.is_some_and(|source| {
                    let pv = text(source, "/spec/volumeName");
                    text(source, "/status/phase") == "Bound"
                        && (!is_going(source) || has_finalizer(source, CLONING_PROTECTION))
                        && self.objects.contains_key(&format!("persistentvolumes/{pv}"))
                        && wanted >= gib(text(source, "/spec/resources/requests/storage"))
                })
            }
            _ => true,
        }
    }

    /// Whether a claim that has no volume waits to be filled from this.
    pub(super) fn is_waited_for(&self, kind: &str, name: &str) -> bool {
        let mut claims = of_kind(&self.objects, "persistentvolumeclaims/");
        claims.any(|(_, claim)| {
            text(claim, "/spec/dataSource/kind") == kind
                && text(claim, "/spec/dataSource/name") == name
                && text(claim, "/spec/volumeName").is_empty()
        })
    }

    pub(super) fn judge_snapshots(&self, open: &mut Vec<String>) {
        for (name, snapshot) in of_kind(&self.objects, SNAPSHOTS) {
            let short = name.rsplit('/').next().unwrap_or_default();
            if is_going(snapshot) {
                if !self.is_waited_for("VolumeSnapshot", short) {
                    open.push(format!("{name} is deleted, not needed, and still there"));
                }
            } else if !is_ready(snapshot) && self.can_be_cut(snapshot) {
                open.push(format!("{name} is not ready"));
            }
        }
        let backend = self.backend.lock();
        for (name, content) in of_kind(&self.objects, CONTENTS) {
            let (uid, handle) = (text(content, "/spec/volumeSnapshotRef/uid"), handle_of(content));
            let snapshot = self.snapshot_of(content);
            if is_going(content) && snapshot.is_none() {
                open.push(format!("{name} is deleted, not needed, and still there"));
            }
            if !uid.is_empty() && snapshot.is_none() && text(content, "/spec/deletionPolicy") == "Delete" {
                open.push(format!("{name} is there without its snapshot"));
            }
            if !handle.is_empty() && !backend.snapshots.contains_key(handle) {
                open.push(format!(
                    "{name} stands for {handle}, which the backend does not have"
                ));
            }
        }
        self.judge_backend_snapshots(&backend, open);
    }

    /// Whether nothing stands in the way of a snapshot.
    fn can_be_cut(&self, snapshot: &Value) -> bool {
        let by_hand = text(snapshot, "/spec/source/volumeSnapshotContentName");
        let uid = text(snapshot, "/metadata/uid");
        let bound = match text(snapshot, "/status/boundVolumeSnapshotContentName") {
            "" if by_hand.is_empty() => format!("snapcontent-{uid}"),
            "" => by_hand.to_owned(),
            bound => bound.to_owned(),
        };
        let content = self.objects.get(&format!("{CONTENTS}{bound}"));
        if content.is_some_and(is_going) {
            return false;
        }
        if !by_hand.is_empty() {
            let holder = content.map(|content| text(content, "/spec/volumeSnapshotRef/uid"));
            return holder.is_some_and(|holder| holder.is_empty() || holder == uid);
        }
        if content.is_none() && !text(snapshot, "/status/boundVolumeSnapshotContentName").is_empty() {
            return false;
        }
        let claim = text(snapshot, "/spec/source/persistentVolumeClaimName");
        let claim = self
            .objects
            .get(&format!("persistentvolumeclaims/default/{claim}"));
        let Some(claim) = claim.filter(|claim| text(claim, "/status/phase") == "Bound") else {
            return false;
        };
        let pv = self
            .objects
            .get(&format!("persistentvolumes/{}", text(claim, "/spec/volumeName")));
        // A content of an earlier volume of the claim's name stays with that volume.
        let handle = pv.map(|pv| text(pv, "/spec/csi/volumeHandle"));
        let cut_of = content.map(|content| text(content, "/spec/source/volumeHandle"));
        !is_going(claim) && handle.is_some() && (cut_of.is_none() || cut_of == handle)
    }

    fn judge_backend_snapshots(&self, backend: &Backend, open: &mut Vec<String>) {
        for (handle, snapshot) in &backend.snapshots {
            let mut contents = of_kind(&self.objects, CONTENTS);
            let is_known = contents.any(|(_, content)| handle_of(content) == handle);
            if !is_known && !snapshot.is_static && !self.kept.contains(handle) {
                open.push(format!(
                    "snapshot {handle} ({}) has no content: an orphan",
                    snapshot.name
                ));
            }
        }
    }
}
