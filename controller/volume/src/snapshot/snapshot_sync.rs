//! What to do next about one VolumeSnapshot. Pure.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, ObjectReference, PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use moorline_model::claim::ClaimPhase;
use moorline_model::snapshot::{
    API_VERSION, SnapshotSecret, SnapshotTokens, VolumeSnapshot, VolumeSnapshotClass, VolumeSnapshotContent,
    VolumeSnapshotContentSource, VolumeSnapshotContentSpec, VolumeSnapshotStatus, class_secret, content_name,
};
use moorline_model::{claim, keys, mutant, node_affinity, volume};

use super::status::{News, project};
use super::why::Why;
use crate::finalizer;

/// Everything the decision rests on.
#[derive(Clone, Debug)]
pub struct Seen<'a> {
    /// The snapshot.
    pub snapshot: &'a VolumeSnapshot,
    /// The content of the name that follows from the snapshot ([`VolumeSnapshot::content_name`]).
    pub content: Option<&'a VolumeSnapshotContent>,
    /// The class that the snapshot names.
    pub class: Option<&'a VolumeSnapshotClass>,
    /// All classes marked as default, of whatever driver.
    pub default_classes: Vec<&'a VolumeSnapshotClass>,
    /// The claim that the snapshot is taken of.
    pub claim: Option<&'a PersistentVolumeClaim>,
    /// The PV that the claim names.
    pub pv: Option<&'a PersistentVolume>,
    /// Whether an unbound claim waits to be filled from the snapshot.
    pub is_restoring: bool,
    /// Whether contents remember the volume mode.
    pub keeps_volume_mode: bool,
    /// All nodes, where contents are labelled with the one that their volume is on.
    pub nodes: Option<&'a [Arc<Node>]>,
}

/// The answer.
#[derive(Clone, Debug, PartialEq)]
pub enum Next {
    /// Nothing until something changes.
    Settled,
    /// A write.
    Do(Step),
    /// Told, and tried again.
    Fail(Why),
}

/// One write.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// `spec.volumeSnapshotClassName`: the driver's default class.
    AssignClass(String),
    /// On the snapshot.
    AddFinalizers(Vec<&'static str>),
    /// Finalizer on the claim: it stays until the snapshot is cut.
    HoldClaim,
    /// The content that the sidecar acts on.
    CreateContent(Box<VolumeSnapshotContent>),
    /// The UID of the snapshot into the content that is reserved for it, and its class if it has one.
    BindContent,
    /// The snapshot's status as a whole.
    WriteStatus(Box<VolumeSnapshotStatus>, Vec<News>),
    /// Annotation on the content: the sidecar may delete.
    MarkContentDeleted,
    /// The content goes when the sidecar is done.
    DeleteContent,
    /// From the snapshot: nothing is left of it.
    RemoveFinalizers(Vec<&'static str>),
}

/// The finalizers that are ours, on snapshots.
const FINALIZERS: [&str; 2] = [
    keys::SNAPSHOT_AS_SOURCE_PROTECTION,
    keys::SNAPSHOT_BOUND_PROTECTION,
];

/// Decides.
pub fn decide(seen: &Seen<'_>) -> Next {
    if seen.snapshot.metadata.deletion_timestamp.is_some() {
        return delete(seen);
    }
    let next = if is_bound_and_ready(seen.snapshot) {
        check(seen)
    } else {
        advance(seen)
    };
    next.unwrap_or_else(Next::Fail)
}

fn is_bound_and_ready(snapshot: &VolumeSnapshot) -> bool {
    snapshot.is_ready() && snapshot.bound_content().is_some()
}

/// A ready snapshot changes no more; it only may have lost what it stands for.
fn check(seen: &Seen<'_>) -> Result<Next, Why> {
    let name = seen.snapshot.bound_content().unwrap_or_default();
    let content = seen
        .content
        .ok_or_else(|| Why::ContentMissing(name.to_string()))?;
    if !content.points_to(seen.snapshot) {
        return Err(Why::Misbound(name.to_string()));
    }
    let missing = missing_finalizers(seen);
    Ok(if missing.is_empty() {
        Next::Settled
    } else {
        Next::Do(Step::AddFinalizers(missing))
    })
}

fn advance(seen: &Seen<'_>) -> Result<Next, Why> {
    let snapshot = seen.snapshot;
    let source = &snapshot.spec.source;
    let is_static = match (
        &source.persistent_volume_claim_name,
        &source.volume_snapshot_content_name,
    ) {
        (None, Some(_)) => true,
        (Some(_), None) => false,
        _ => return Err(Why::Source),
    };
    let missing = missing_finalizers(seen);
    if !missing.is_empty() {
        return Ok(Next::Do(Step::AddFinalizers(missing)));
    }
    let is_bound = seen.content.is_some_and(|content| content.points_to(snapshot));
    if let Some(name) = &snapshot.spec.volume_snapshot_class_name
        && seen.class.is_none()
        && !is_bound
    {
        return Err(Why::NoClass(name.clone()));
    }
    let name = snapshot.content_name().ok_or(Why::Source)?;
    match (seen.content, is_static) {
        (None, true) => Err(Why::ContentMissing(name)),
        // Another snapshot under the name of the first one would have other data.
        (None, false) if snapshot.bound_content().is_some() => Err(Why::ContentMissing(name)),
        (None, false) => begin(seen),
        (Some(content), true) if content.spec.source.snapshot_handle.is_none() => {
            Err(Why::ContentIsDynamic(name))
        }
        (Some(content), false) if content.spec.source.snapshot_handle.is_some() => {
            Err(Why::ContentIsStatic(name))
        }
        (Some(content), true) if !content.may_bind_to(snapshot) => Err(misbound(content)),
        (Some(content), false) if !content.points_to(snapshot) => Err(misbound(content)),
        (Some(content), true) if !content.points_to(snapshot) => Ok(Next::Do(Step::BindContent)),
        (Some(content), _) => {
            let (status, news) = project(snapshot, content);
            if snapshot.status.as_ref() == Some(&status) {
                return Ok(Next::Settled);
            }
            Ok(Next::Do(Step::WriteStatus(Box::new(status), news)))
        }
    }
}

fn misbound(content: &VolumeSnapshotContent) -> Why {
    let reference = &content.spec.volume_snapshot_ref;
    Why::ContentMisbound {
        content: content.metadata.name.clone().unwrap_or_default(),
        namespace: reference.namespace.clone().unwrap_or_default(),
        name: reference.name.clone().unwrap_or_default(),
    }
}

/// The finalizers that the snapshot should have and hasn't.
fn missing_finalizers(seen: &Seen<'_>) -> Vec<&'static str> {
    let meta = &seen.snapshot.metadata;
    let content = seen.content.filter(|content| content.points_to(seen.snapshot));
    let goes_with_content = match content {
        Some(content) => content.is_deleting_backend(),
        // A content is about to be made: one write for both.
        None => {
            seen.snapshot.spec.source.persistent_volume_claim_name.is_some()
                && seen.class.is_some_and(|class| class.deletion_policy == "Delete")
        }
    };
    let wanted = FINALIZERS
        .into_iter()
        .filter(|name| *name != keys::SNAPSHOT_BOUND_PROTECTION || goes_with_content);
    wanted.filter(|name| !finalizer::is_present(meta, name)).collect()
}

/// A dynamic snapshot that has no content yet.
fn begin(seen: &Seen<'_>) -> Result<Next, Why> {
    let snapshot = seen.snapshot;
    let claim_name = snapshot
        .spec
        .source
        .persistent_volume_claim_name
        .clone()
        .unwrap_or_default();
    let claim = seen.claim.ok_or_else(|| Why::NoClaim(claim_name.clone()))?;
    if claim.metadata.deletion_timestamp.is_some() {
        return Err(Why::ClaimDeleting(claim_name));
    }
    if claim::phase(claim) != Some(ClaimPhase::Bound) {
        return Err(Why::ClaimNotBound(claim_name));
    }
    let pv = seen.pv.filter(|pv| volume::is_linked_to(pv, claim));
    let pv = pv.ok_or(Why::VolumeMisbound(claim_name))?;
    let csi = pv.spec.as_ref().and_then(|spec| spec.csi.as_ref());
    let csi = csi.ok_or_else(|| Why::NotCsi(pv.metadata.name.clone().unwrap_or_default()))?;
    let Some(class) = seen.class else {
        return Ok(Next::Do(Step::AssignClass(default_class(seen, &csi.driver)?)));
    };
    if class.driver != csi.driver {
        return Err(Why::ForeignClass {
            class: class.metadata.name.clone().unwrap_or_default(),
            class_driver: class.driver.clone(),
            volume_driver: csi.driver.clone(),
        });
    }
    let mut content = content_for(snapshot, class, &csi.volume_handle)?;
    if seen.keeps_volume_mode {
        content.spec.source_volume_mode = pv.spec.as_ref().and_then(|spec| spec.volume_mode.clone());
    }
    if let Some(node_name) = managing_node(pv, seen.nodes)? {
        let label = (keys::SNAPSHOT_MANAGED_BY.to_string(), node_name);
        content.metadata.labels = Some([label].into());
    }
    if !finalizer::is_present(&claim.metadata, keys::PVC_AS_SOURCE_PROTECTION) {
        return Ok(Next::Do(Step::HoldClaim));
    }
    Ok(Next::Do(Step::CreateContent(Box::new(content))))
}

/// The node whose snapshotter manages what is made of the PV: the first that the PV may be used on. None where nobody asks,
/// or where the PV may be used everywhere.
fn managing_node(pv: &PersistentVolume, nodes: Option<&[Arc<Node>]>) -> Result<Option<String>, Why> {
    let affinity = pv.spec.as_ref().and_then(|spec| spec.node_affinity.as_ref());
    let (Some(nodes), Some(_)) = (nodes, affinity.and_then(|affinity| affinity.required.as_ref())) else {
        return Ok(None);
    };
    let fitting = nodes
        .iter()
        .filter(|node| node_affinity::pv_fits_node(pv, (&***node).into()).unwrap_or(false))
        .filter_map(|node| node.metadata.name.clone());
    // The same one for every snapshot of the volume, whatever the order of the cache.
    fitting
        .min()
        .map(Some)
        .ok_or_else(|| Why::NoNode(pv.metadata.name.clone().unwrap_or_default()))
}

fn default_class(seen: &Seen<'_>, driver: &str) -> Result<String, Why> {
    let mut names: Vec<String> = seen
        .default_classes
        .iter()
        .filter(|class| class.driver == driver)
        .filter_map(|class| class.metadata.name.clone())
        .collect();
    names.sort();
    match names.len() {
        0 => Err(Why::NoDefaultClass(driver.to_string())),
        1 => Ok(names.remove(0)),
        _ => Err(Why::SeveralDefaultClasses {
            driver: driver.to_string(),
            classes: names,
        }),
    }
}

fn content_for(
    snapshot: &VolumeSnapshot,
    class: &VolumeSnapshotClass,
    volume_handle: &str,
) -> Result<VolumeSnapshotContent, Why> {
    let meta = &snapshot.metadata;
    let name = content_name(meta.uid.as_deref().unwrap_or_default());
    let tokens = SnapshotTokens {
        content_name: &name,
        namespace: meta.namespace.as_deref().unwrap_or_default(),
        name: meta.name.as_deref().unwrap_or_default(),
    };
    let secret = class_secret(class, SnapshotSecret::Snapshotter, &tokens)?;
    let annotations = secret.map(|secret| {
        let pairs = [
            (keys::SNAPSHOT_DELETION_SECRET_NAME, secret.name),
            (keys::SNAPSHOT_DELETION_SECRET_NAMESPACE, secret.namespace),
        ];
        pairs
            .into_iter()
            .map(|(key, value)| (key.to_string(), value.unwrap_or_default()))
            .collect()
    });
    Ok(VolumeSnapshotContent {
        metadata: ObjectMeta {
            name: Some(name),
            annotations,
            // From the start: there is no moment in which it could vanish without the sidecar.
            finalizers: Some(vec![keys::SNAPSHOT_CONTENT_BOUND_PROTECTION.to_string()]),
            ..Default::default()
        },
        spec: VolumeSnapshotContentSpec {
            volume_snapshot_ref: ObjectReference {
                api_version: Some(API_VERSION.to_string()),
                kind: Some("VolumeSnapshot".to_string()),
                namespace: meta.namespace.clone(),
                name: meta.name.clone(),
                uid: meta.uid.clone(),
                resource_version: meta.resource_version.clone(),
                ..Default::default()
            },
            deletion_policy: class.deletion_policy.clone(),
            driver: class.driver.clone(),
            volume_snapshot_class_name: class.metadata.name.clone(),
            source: VolumeSnapshotContentSource {
                volume_handle: Some(volume_handle.to_string()),
                snapshot_handle: None,
            },
            source_volume_mode: None,
        },
        ..Default::default()
    })
}

fn delete(seen: &Seen<'_>) -> Next {
    let meta = &seen.snapshot.metadata;
    let content = seen.content.filter(|content| content.points_to(seen.snapshot));
    if content.is_some() && seen.is_restoring {
        return Next::Fail(Why::Restoring);
    }
    match content {
        Some(content) if !content.is_being_deleted() => Next::Do(Step::MarkContentDeleted),
        Some(content) if content.is_deleting_backend() && content.metadata.deletion_timestamp.is_none() => {
            Next::Do(Step::DeleteContent)
        }
        // Until the sidecar is done; its going wakes us.
        Some(content) if content.is_deleting_backend() && !mutant::is_on("release-snapshot-early") => {
            Next::Settled
        }
        Some(_) | None => {
            let ours: Vec<_> = FINALIZERS
                .into_iter()
                .filter(|name| finalizer::is_present(meta, name))
                .collect();
            if ours.is_empty() {
                return Next::Settled;
            }
            Next::Do(Step::RemoveFinalizers(ours))
        }
    }
}
