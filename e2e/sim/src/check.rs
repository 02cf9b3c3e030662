//! What must be true after every step, and what must have become true when things have settled.
//!
//! Both are judged from outside: by the store's own history and the driver's backend, never by what a part believes.

mod snapshots;
mod watches;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use futures::{FutureExt, StreamExt};
use moorline_store::{EventKind, MemoryStore, Revision, Store, Watch, WatchMessage};
use parking_lot::Mutex;
use serde_json::Value;

use crate::backend::Backend;
use crate::driver::NAME;
use crate::net::Net;
use crate::users::MARKER;

const ROOT: &str = "/registry/";
const SECRETS: &str = "/registry/secrets/";

/// What is judged; of all else only the secrets.
const KINDS: [&str; 6] = [
    "persistentvolumes/",
    "persistentvolumeclaims/",
    "pods/",
    "volumeattachments/",
    snapshots::SNAPSHOTS,
    snapshots::CONTENTS,
];

/// All objects as JSON, by the key's part behind the root.
type Objects = BTreeMap<String, Value>;

/// Follows the store and the backend.
pub(crate) struct Checker {
    history: Watch,
    objects: Objects,
    backend: Arc<Mutex<Backend>>,
    net: Net,
    watches: watches::Watches,
    /// Volumes whose PV said Retain when it went, or still does: no business of the controllers.
    retained: BTreeSet<String>,
    /// Volumes whose PV was being deleted already when its policy became Delete.
    adrift: BTreeSet<String>,
    /// Snapshots whose content said Retain.
    kept: BTreeSet<String>,
    secrets_seen: bool,
}

fn text<'a>(value: &'a Value, path: &str) -> &'a str {
    value.pointer(path).and_then(Value::as_str).unwrap_or_default()
}

impl Checker {
    pub(crate) fn new(store: &Arc<MemoryStore>, backend: &Arc<Mutex<Backend>>, net: &Net) -> Self {
        let history = store.watch(bytes::Bytes::from_static(ROOT.as_bytes()), Revision::NONE);
        let history = history.now_or_never().expect("the store answers at once");
        Self {
            history: history.expect("nothing was compacted yet"),
            objects: Objects::new(),
            backend: backend.clone(),
            net: net.clone(),
            watches: watches::Watches::default(),
            retained: BTreeSet::new(),
            adrift: BTreeSet::new(),
            kept: BTreeSet::new(),
            secrets_seen: false,
        }
    }

    /// Whether the secret was planted at all.
    pub(crate) fn saw_secret(&self) -> bool {
        self.secrets_seen
    }

    /// Looks at all that happened since the last call. Answers what must not be.
    pub(crate) fn step(&mut self) -> Vec<String> {
        let mut broken = std::mem::take(&mut self.backend.lock().broken);
        while let Some(Some(message)) = self.history.next().now_or_never() {
            let WatchMessage::Events { events, .. } = message.expect("the checker keeps up") else {
                continue;
            };
            for event in events {
                let key = String::from_utf8_lossy(&event.kv.key).into_owned();
                let holds_secret = MARKER
                    .iter()
                    .any(|marker| contains(&event.kv.value, marker.as_bytes()));
                let is_secret = key.starts_with(SECRETS);
                self.secrets_seen |= holds_secret && is_secret;
                if holds_secret && !is_secret {
                    broken.push(format!("a secret is in {key}"));
                }
                let name = key.trim_start_matches(ROOT).to_owned();
                self.watches.changed(&name, event.kv.mod_revision.0);
                if !KINDS.iter().any(|kind| name.starts_with(kind)) {
                    continue;
                }
                let new = match event.kind {
                    EventKind::Put => serde_json::from_slice::<Value>(&event.kv.value).ok(),
                    EventKind::Delete => None,
                };
                self.change(&name, new, &mut broken);
            }
        }
        for news in self.net.take_watch_news() {
            self.watches.judge(news, &mut broken);
        }
        let mut backend = self.backend.lock();
        let deleted = std::mem::take(&mut backend.deleted);
        let cut = std::mem::take(&mut backend.deleted_snapshots);
        drop(backend);
        for handle in deleted {
            self.judge_deletion(&handle, &mut broken);
        }
        for handle in cut {
            self.judge_cut(&handle, &mut broken);
        }
        broken
    }

    fn change(&mut self, name: &str, new: Option<Value>, broken: &mut Vec<String>) {
        let old = match new.clone() {
            Some(new) => self.objects.insert(name.to_owned(), new),
            None => self.objects.remove(name),
        };
        if name.starts_with("persistentvolumes/") {
            self.pv_changed(name, old.as_ref(), new.as_ref(), broken);
        } else if name.starts_with("persistentvolumeclaims/") {
            self.claim_changed(name, old.as_ref(), new.as_ref(), broken);
        } else if name.starts_with(snapshots::SNAPSHOTS) {
            self.snapshot_changed(name, old.as_ref(), new.as_ref(), broken);
        } else if name.starts_with(snapshots::CONTENTS) {
            self.content_changed(old.as_ref(), new.as_ref());
        }
    }

    fn pv_changed(&mut self, name: &str, old: Option<&Value>, new: Option<&Value>, broken: &mut Vec<String>) {
        let latest = new.or(old).unwrap_or(&Value::Null);
        let handle = text(latest, "/spec/csi/volumeHandle").to_owned();
        if text(latest, "/spec/persistentVolumeReclaimPolicy") == "Retain" {
            self.retained.insert(handle);
        } else if new.is_some() {
            self.retained.remove(&handle);
        }
        // Nobody can add a finalizer to what is being deleted: with the PV goes all that is known of the volume.
        let said =
            |pv: Option<&Value>| pv.map(|pv| text(pv, "/spec/persistentVolumeReclaimPolicy").to_owned());
        if !text(latest, "/metadata/deletionTimestamp").is_empty()
            && said(old).as_deref() == Some("Retain")
            && said(new).as_deref() == Some("Delete")
        {
            self.adrift
                .insert(text(latest, "/spec/csi/volumeHandle").to_owned());
        }
        if let (Some(old), None) = (old, new)
            && let Some((claim, _)) = self.bound_claim(text(old, "/spec/claimRef/uid"), name)
        {
            broken.push(format!("{name} went while {claim} is bound to it"));
        }
        let (Some(old), Some(new)) = (old, new) else {
            return;
        };
        let (before, after) = (text(old, "/spec/claimRef/uid"), text(new, "/spec/claimRef/uid"));
        if before != after
            && !before.is_empty()
            && let Some((claim, _)) = self.bound_claim(before, name)
        {
            broken.push(format!("{name} was taken from {claim}, which is bound to it"));
        }
    }

    /// The claim of this UID, if it lives and says that it is bound to this PV.
    fn bound_claim(&self, uid: &str, pv: &str) -> Option<(&String, &Value)> {
        let pv = pv.trim_start_matches("persistentvolumes/");
        of_kind(&self.objects, "persistentvolumeclaims/").find(|(_, claim)| {
            text(claim, "/metadata/uid") == uid
                && text(claim, "/spec/volumeName") == pv
                && text(claim, "/status/phase") == "Bound"
        })
    }

    fn claim_changed(&self, name: &str, old: Option<&Value>, new: Option<&Value>, broken: &mut Vec<String>) {
        let Some(new) = new else {
            return self.claim_went(name, old, broken);
        };
        self.judge_size(name, old, new, broken);
        let was_bound = old.is_some_and(|old| text(old, "/status/phase") == "Bound");
        if text(new, "/status/phase") != "Bound" || was_bound {
            return;
        }
        let pv_name = text(new, "/spec/volumeName");
        let pv = self.objects.get(&format!("persistentvolumes/{pv_name}"));
        let holder = pv.map(|pv| text(pv, "/spec/claimRef/uid")).unwrap_or_default();
        if holder != text(new, "/metadata/uid") {
            broken.push(format!(
                "{name} became Bound to PV {pv_name:?}, whose claim has the UID {holder:?}"
            ));
        }
        self.judge_origin(name, new, pv, broken);
    }

    /// No claim says that it has more room than its volume has.
    fn judge_size(&self, name: &str, old: Option<&Value>, new: &Value, broken: &mut Vec<String>) {
        let size = text(new, "/status/capacity/storage");
        if old.is_some_and(|old| text(old, "/status/capacity/storage") == size) {
            return;
        }
        let pv = self
            .objects
            .get(&format!("persistentvolumes/{}", text(new, "/spec/volumeName")));
        let handle = pv
            .map(|pv| text(pv, "/spec/csi/volumeHandle"))
            .unwrap_or_default();
        let backend = self.backend.lock();
        let bytes = backend.volumes.get(handle).map(|volume| volume.usable);
        if let Some(bytes) = bytes.and_then(|bytes| u64::try_from(bytes).ok())
            && gib(size) > bytes >> 30
        {
            broken.push(format!(
                "{name} says it has {size}, and its volume {handle} has {bytes} bytes"
            ));
        }
    }

    /// A claim that a pod uses doesn't go.
    fn claim_went(&self, name: &str, old: Option<&Value>, broken: &mut Vec<String>) {
        let claim = name.rsplit('/').next().unwrap_or_default();
        let user = self
            .pods_of(claim)
            .find(|(_, pod)| !text(pod, "/spec/nodeName").is_empty());
        let was_bound = old.is_some_and(|old| text(old, "/status/phase") == "Bound");
        if let (Some((pod, _)), true) = (user, was_bound) {
            broken.push(format!("{name} went while {pod} uses it"));
        }
    }

    fn pods_of<'a>(&'a self, claim: &'a str) -> impl Iterator<Item = (&'a String, &'a Value)> {
        of_kind(&self.objects, "pods/")
            .filter(move |(_, pod)| text(pod, "/spec/volumes/0/persistentVolumeClaim/claimName") == claim)
    }

    fn judge_deletion(&self, handle: &str, broken: &mut Vec<String>) {
        if self.retained.contains(handle) {
            broken.push(format!("volume {handle} was deleted although its PV says Retain"));
        }
        for (name, pv) in self.pvs_of(handle) {
            if let Some((claim, _)) = self.bound_claim(text(pv, "/spec/claimRef/uid"), name) {
                broken.push(format!(
                    "volume {handle} was deleted while {claim} is bound to {name}"
                ));
            }
        }
    }

    fn pvs_of<'a>(&'a self, handle: &'a str) -> impl Iterator<Item = (&'a String, &'a Value)> {
        of_kind(&self.objects, "persistentvolumes/")
            .filter(move |(_, pv)| text(pv, "/spec/csi/volumeHandle") == handle)
    }

    /// What has not settled yet, each in one line. Empty: everything has.
    pub(crate) fn unsettled(&self) -> Vec<String> {
        let mut open = Vec::new();
        for (name, claim) in of_kind(&self.objects, "persistentvolumeclaims/") {
            self.judge_claim(name, claim, &mut open);
        }
        for (name, pv) in of_kind(&self.objects, "persistentvolumes/") {
            self.judge_pv(name, pv, &mut open);
        }
        for (name, pod) in of_kind(&self.objects, "pods/") {
            self.judge_pod(name, pod, &mut open);
        }
        self.judge_attachments(&mut open);
        self.judge_nodes(&mut open);
        self.judge_backend(&mut open);
        self.judge_snapshots(&mut open);
        open
    }

    fn judge_claim(&self, name: &str, claim: &Value, open: &mut Vec<String>) {
        let short = name.rsplit('/').next().unwrap_or_default();
        let is_used = self.pods_of(short).next().is_some();
        if !text(claim, "/metadata/deletionTimestamp").is_empty() {
            if !is_used && !self.is_waited_for("PersistentVolumeClaim", short) {
                open.push(format!("{name} is deleted, unused, and still there"));
            }
            return;
        }
        let class = text(claim, "/spec/storageClassName");
        let pv_name = text(claim, "/spec/volumeName");
        let pv = self.objects.get(&format!("persistentvolumes/{pv_name}"));
        match text(claim, "/status/phase") {
            "Bound" => {
                let holder = pv.map(|pv| text(pv, "/spec/claimRef/uid"));
                if holder != Some(text(claim, "/metadata/uid")) {
                    open.push(format!(
                        "{name} says it is bound to {pv_name}, which belongs to {holder:?}"
                    ));
                }
                let (wanted, got) = (
                    text(claim, "/spec/resources/requests/storage"),
                    text(claim, "/status/capacity/storage"),
                );
                if class != "static" && gib(wanted) > gib(got) && !self.waits_for_node(claim, pv) {
                    open.push(format!("{name} wants {wanted} and has {got}"));
                }
            }
            "Lost" if pv.is_none() => {}
            phase if class == "now" || class == "keep" || (class == "later" && is_used) => {
                if !self.can_be_filled(claim) {
                    return;
                }
                open.push(format!("{name} of class {class} is {phase:?}, not Bound"));
            }
            phase => {
                if !pv_name.is_empty() {
                    open.push(format!("{name} is {phase:?} with the volume name {pv_name}"));
                }
                if class == "static" && self.has_free_static_pv(short) {
                    open.push(format!("{name} is {phase:?} while a PV is free"));
                }
            }
        }
    }

    /// Whether a claim only waits until it is used somewhere: the node that has its volume makes its file system larger.
    fn waits_for_node(&self, claim: &Value, pv: Option<&Value>) -> bool {
        let conditions = claim.pointer("/status/conditions").and_then(Value::as_array);
        let mut conditions = conditions.into_iter().flatten();
        let is_told = conditions.any(|held| text(held, "/type") == "FileSystemResizePending");
        let handle = pv
            .map(|pv| text(pv, "/spec/csi/volumeHandle"))
            .unwrap_or_default();
        let backend = self.backend.lock();
        let is_mounted = backend.mounts.iter().any(|(_, (_, held))| held == handle);
        is_told && !is_mounted && backend.grows_on_nodes
    }

    fn has_free_static_pv(&self, claim: &str) -> bool {
        of_kind(&self.objects, "persistentvolumes/").any(|(_, pv)| {
            let reserved = text(pv, "/spec/claimRef/name");
            text(pv, "/spec/storageClassName") == "static"
                && text(pv, "/status/phase") == "Available"
                && text(pv, "/metadata/deletionTimestamp").is_empty()
                && (reserved.is_empty() || reserved == claim)
        })
    }

    fn judge_pv(&self, name: &str, pv: &Value, open: &mut Vec<String>) {
        let holder = text(pv, "/spec/claimRef/uid");
        let claim = of_kind(&self.objects, "persistentvolumeclaims/")
            .find(|(_, claim)| text(claim, "/metadata/uid") == holder);
        let (phase, policy) = (
            text(pv, "/status/phase"),
            text(pv, "/spec/persistentVolumeReclaimPolicy"),
        );
        let is_dynamic = pv
            .pointer("/metadata/annotations/pv.kubernetes.io~1provisioned-by")
            .is_some();
        if !holder.is_empty() && claim.is_none() {
            match policy {
                "Retain" if phase == "Released" => {}
                // A PV without provisioner is released or failed, and an admin's business.
                "Delete" if !is_dynamic && matches!(phase, "Released" | "Failed") => {}
                _ => open.push(format!("{name} ({policy}) is {phase} although its claim is gone")),
            }
        }
        if let Some((claim_name, claim)) = claim {
            let bound_to = text(claim, "/spec/volumeName");
            if bound_to != name.trim_start_matches("persistentvolumes/") {
                open.push(format!(
                    "{name} belongs to {claim_name}, which is bound to {bound_to:?}"
                ));
            } else if phase != "Bound" && text(claim, "/status/phase") == "Bound" {
                open.push(format!("{name} is {phase:?} although bound to {claim_name}"));
            }
        }
        if !text(pv, "/metadata/deletionTimestamp").is_empty() && claim.is_none() {
            open.push(format!("{name} is deleted, unused, and still there"));
        }
        let handle = text(pv, "/spec/csi/volumeHandle");
        if !self.backend.lock().volumes.contains_key(handle) {
            open.push(format!(
                "{name} stands for {handle}, which the backend does not have"
            ));
        }
    }

    fn judge_pod(&self, name: &str, pod: &Value, open: &mut Vec<String>) {
        let claim = text(pod, "/spec/volumes/0/persistentVolumeClaim/claimName");
        let claim = self
            .objects
            .get(&format!("persistentvolumeclaims/default/{claim}"));
        let is_bound = claim.is_some_and(|claim| {
            text(claim, "/status/phase") == "Bound" && text(claim, "/metadata/deletionTimestamp").is_empty()
        });
        if is_bound && text(pod, "/spec/nodeName").is_empty() {
            open.push(format!("{name} has no node although its claim is bound"));
        }
    }

    /// Attachments are there for exactly those volumes that pods with a node use; one pod's node wins.
    fn judge_attachments(&self, open: &mut Vec<String>) {
        let mut wanted: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for (_, pod) in of_kind(&self.objects, "pods/") {
            let claim = text(pod, "/spec/volumes/0/persistentVolumeClaim/claimName");
            let claim = self
                .objects
                .get(&format!("persistentvolumeclaims/default/{claim}"));
            let (node, Some(claim)) = (text(pod, "/spec/nodeName"), claim) else {
                continue;
            };
            if !text(pod, "/metadata/deletionTimestamp").is_empty() {
                continue;
            }
            if !node.is_empty() && text(claim, "/status/phase") == "Bound" {
                let pv = text(claim, "/spec/volumeName").to_owned();
                wanted.entry(pv).or_default().insert(node.to_owned());
            }
        }
        let mut attached: BTreeSet<&str> = BTreeSet::new();
        for (name, attachment) in of_kind(&self.objects, "volumeattachments/") {
            let pv = text(attachment, "/spec/source/persistentVolumeName");
            let node = text(attachment, "/spec/nodeName");
            if !wanted.get(pv).is_some_and(|nodes| nodes.contains(node)) {
                open.push(format!(
                    "{name} attaches {pv} to {node}, and no pod there wants it"
                ));
            } else if attachment.pointer("/status/attached") == Some(&Value::Bool(true)) {
                attached.insert(pv);
            }
        }
        for (pv, nodes) in &wanted {
            if !attached.contains(pv.as_str()) && !self.is_leaving(pv) {
                open.push(format!("{pv} is attached to none of {nodes:?}"));
            }
        }
    }

    /// A PV that is being deleted, and only waits for its claim: attaching it is refused, as upstream does.
    fn is_leaving(&self, pv: &str) -> bool {
        let pv = self.objects.get(&format!("persistentvolumes/{pv}"));
        pv.is_some_and(|pv| !text(pv, "/metadata/deletionTimestamp").is_empty())
    }

    /// Pods have their volumes, and nobody else has.
    fn judge_nodes(&self, open: &mut Vec<String>) {
        let backend = self.backend.lock();
        let mut wanted = BTreeSet::new();
        for (name, pod) in of_kind(&self.objects, "pods/") {
            let (node, uid) = (text(pod, "/spec/nodeName"), text(pod, "/metadata/uid"));
            if !text(pod, "/metadata/deletionTimestamp").is_empty() {
                open.push(format!("{name} is deleted and still there"));
            }
            let claim = text(pod, "/spec/volumes/0/persistentVolumeClaim/claimName");
            let claim = self
                .objects
                .get(&format!("persistentvolumeclaims/default/{claim}"));
            let is_bound = claim.is_some_and(|claim| text(claim, "/status/phase") == "Bound");
            let is_leaving = claim.is_some_and(|claim| self.is_leaving(text(claim, "/spec/volumeName")));
            if is_bound && !node.is_empty() && (!is_leaving || has_any(&backend, node, uid)) {
                wanted.insert((node, uid));
            }
        }
        let mounted = backend.mounts.iter();
        let mounted: BTreeSet<_> = mounted
            .map(|(node, (uid, _))| (node.as_str(), uid.as_str()))
            .collect();
        for (node, uid) in mounted.difference(&wanted) {
            open.push(format!(
                "{node} has a volume mounted for the pod {uid}, which is gone"
            ));
        }
        // Of several pods that want one volume on different nodes, those of one node can have it.
        let is_shared = |node: &str, uid: &str| self.wants_what_another_node_has(node, uid);
        for (node, uid) in wanted
            .difference(&mounted)
            .filter(|(node, uid)| !is_shared(node, uid))
        {
            open.push(format!("{node} has nothing mounted for the pod {uid}"));
        }
        for (node, handle) in &backend.staged {
            let is_mounted = backend
                .mounts
                .iter()
                .any(|(on, (_, held))| on == node && held == handle);
            if !is_mounted {
                open.push(format!("{node} has {handle} staged for nobody"));
            }
        }
    }

    fn wants_what_another_node_has(&self, node: &str, uid: &str) -> bool {
        const CLAIM: &str = "/spec/volumes/0/persistentVolumeClaim/claimName";
        let mut pods = of_kind(&self.objects, "pods/");
        let Some((_, own)) = pods.find(|(_, pod)| text(pod, "/metadata/uid") == uid) else {
            return false;
        };
        self.pods_of(text(own, CLAIM)).any(|(_, other)| {
            let on = text(other, "/spec/nodeName");
            !on.is_empty() && on != node
        })
    }

    fn judge_backend(&self, open: &mut Vec<String>) {
        let backend = self.backend.lock();
        for (handle, volume) in &backend.volumes {
            let pv = self.pvs_of(handle).next();
            let is_left = self.retained.contains(handle) || self.adrift.contains(handle);
            if pv.is_none() && !volume.is_static && !is_left {
                open.push(format!(
                    "volume {handle} ({}) of {NAME} has no PV: an orphan",
                    volume.name
                ));
            }
            for node in &volume.published {
                let pv_name = pv.map_or("", |(name, _)| name.trim_start_matches("persistentvolumes/"));
                let mut attachments = of_kind(&self.objects, "volumeattachments/");
                let is_known = attachments.any(|(_, attachment)| {
                    text(attachment, "/spec/source/persistentVolumeName") == pv_name
                        && text(attachment, "/spec/nodeName") == node
                });
                if !is_known {
                    open.push(format!(
                        "volume {handle} is published on {node} without VolumeAttachment"
                    ));
                }
            }
        }
    }
}

fn has_any(backend: &Backend, node: &str, uid: &str) -> bool {
    let mut mounts = backend.mounts.iter();
    mounts.any(|(on, (owner, _))| on == node && owner == uid)
}

fn of_kind<'a>(objects: &'a Objects, prefix: &'a str) -> impl Iterator<Item = (&'a String, &'a Value)> {
    objects
        .range(prefix.to_owned()..)
        .take_while(move |(name, _)| name.starts_with(prefix))
}

/// Whole gibibytes of a quantity as the plan writes them; anything finer counts as its whole part.
fn gib(quantity: &str) -> u64 {
    quantity
        .strip_suffix("Gi")
        .and_then(|number| number.parse().ok())
        .unwrap_or(0)
}

fn contains(bytes: &[u8], wanted: &[u8]) -> bool {
    let first = wanted[0];
    let mut rest = bytes;
    while let Some(at) = rest.iter().position(|byte| *byte == first) {
        if rest[at..].starts_with(wanted) {
            return true;
        }
        rest = &rest[at + 1..];
    }
    false
}
