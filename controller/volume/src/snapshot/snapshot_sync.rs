//! What to do next about one VolumeSnapshot. Pure.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, ObjectReference, PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use moorline_model::group_snapshot::VolumeGroupSnapshot;
use moorline_model::snapshot::{
    API_VERSION, NOUN, SnapshotSecret, SnapshotTokens, VolumeSnapshot, VolumeSnapshotClass,
    VolumeSnapshotContent, VolumeSnapshotContentSource, VolumeSnapshotContentSpec, VolumeSnapshotStatus,
    class_secret, content_name,
};
use moorline_model::{keys, mutant};

use super::binding::{Binding, Pair, Seen as SeenContent, judge};
use super::source::{cut_of, managing_node, of_deletion_secret, only_default};
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
    /// The group snapshot whose handle the content has.
    pub group_name: Option<String>,
    /// The group snapshot that the snapshot belongs to, if it is there.
    pub group: Option<&'a VolumeGroupSnapshot>,
}

/// The answer.
#[derive(Clone, Debug, PartialEq)]
pub enum Next {
    /// Nothing until something changes.
    Settled,
    /// A write.
    Do(Step),
    /// Another look after a while: somebody else's move, and nothing to tell.
    Wait,
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
    /// The snapshot belongs to the group snapshot, and goes with it.
    AddOwner(Box<OwnerReference>),
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
const FINALIZERS: [&str; 3] = [
    keys::SNAPSHOT_AS_SOURCE_PROTECTION,
    keys::SNAPSHOT_BOUND_PROTECTION,
    keys::SNAPSHOT_IN_GROUP_PROTECTION,
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
    if !missing.is_empty() {
        return Ok(Next::Do(Step::AddFinalizers(missing)));
    }
    Ok(join_group(seen, content))
}

/// A snapshot that existed before its objects learns what group it belongs to when it is ready.
fn join_group(seen: &Seen<'_>, content: &VolumeSnapshotContent) -> Next {
    let snapshot = seen.snapshot;
    if snapshot.group().is_some() {
        return Next::Settled;
    }
    let said = snapshot.group_name();
    if said.is_none() && seen.group_name.is_some() {
        let (status, news) = project(snapshot, content, seen.group_name.as_deref());
        return Next::Do(Step::WriteStatus(Box::new(status), news));
    }
    match seen.group {
        Some(group) if said.is_some() && group.metadata.deletion_timestamp.is_none() => {
            Next::Do(Step::AddOwner(Box::new(owner(group))))
        }
        Some(_) | None => Next::Settled,
    }
}

/// What says on a snapshot that it belongs to a group.
pub(super) fn owner(group: &VolumeGroupSnapshot) -> OwnerReference {
    OwnerReference {
        api_version: moorline_model::group_snapshot::API_VERSION.to_string(),
        kind: "VolumeGroupSnapshot".to_string(),
        name: group.metadata.name.clone().unwrap_or_default(),
        uid: group.metadata.uid.clone().unwrap_or_default(),
        ..Default::default()
    }
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
    let binding = judge(Pair {
        wants_static: is_static,
        was_bound: snapshot.bound_content().is_some(),
        content: seen.content.map(|content| SeenContent {
            is_static: content.spec.source.snapshot_handle.is_some(),
            points_back: content.points_to(snapshot),
            may_bind: content.may_bind_to(snapshot),
        }),
    });
    match (binding, seen.content) {
        // The group makes the content of its members.
        (Binding::Begin, _) if snapshot.group().is_some() => Ok(Next::Settled),
        (Binding::Begin, _) => begin(seen),
        (Binding::Missing, _) => Err(Why::ContentMissing(name)),
        (Binding::IsDynamic, _) => Err(Why::ContentIsDynamic(name)),
        (Binding::IsStatic, _) => Err(Why::ContentIsStatic(name)),
        // A member's content may have been made without the UID by another controller, killed before it bound the two.
        (Binding::Misbound, Some(content)) if snapshot.group().is_some() && content.may_bind_to(snapshot) => {
            Ok(Next::Settled)
        }
        (Binding::Misbound, Some(content)) => Err(misbound(content)),
        (Binding::Reserved, _) => Ok(Next::Do(Step::BindContent)),
        // Of a member, the group says first what the driver said.
        (Binding::Bound, Some(content)) if snapshot.group().is_some() && content.handle().is_none() => {
            Ok(Next::Settled)
        }
        (Binding::Bound, Some(content)) => {
            let (status, news) = project(snapshot, content, seen.group_name.as_deref());
            if snapshot.status.as_ref() == Some(&status) {
                return Ok(Next::Settled);
            }
            Ok(Next::Do(Step::WriteStatus(Box::new(status), news)))
        }
        (Binding::Misbound | Binding::Bound, None) => Ok(Next::Settled),
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
    let wanted = [
        (keys::SNAPSHOT_AS_SOURCE_PROTECTION, true),
        (keys::SNAPSHOT_BOUND_PROTECTION, goes_with_content),
    ];
    let wanted = wanted.into_iter().filter(|(_, is_wanted)| *is_wanted);
    let wanted = wanted.map(|(name, _)| name);
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
    let claim = seen.claim.ok_or(Why::NoClaim(claim_name))?;
    let (pv, csi) = cut_of(claim, seen.pv)?;
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
    if let Some(node_name) = managing_node(&[pv], seen.nodes)? {
        let label = (keys::SNAPSHOT_MANAGED_BY.to_string(), node_name);
        content.metadata.labels = Some([label].into());
    }
    if !finalizer::is_present(&claim.metadata, keys::PVC_AS_SOURCE_PROTECTION) {
        return Ok(Next::Do(Step::HoldClaim));
    }
    Ok(Next::Do(Step::CreateContent(Box::new(content))))
}

fn default_class(seen: &Seen<'_>, driver: &str) -> Result<String, Why> {
    let classes = seen.default_classes.iter();
    let classes = classes.map(|class| (class.driver.as_str(), &class.metadata));
    only_default(classes, driver).map_err(|classes| {
        let driver = driver.to_string();
        match classes.is_empty() {
            true => Why::NoDefaultClass(driver),
            false => Why::SeveralDefaultClasses { driver, classes },
        }
    })
}

fn content_for(
    snapshot: &VolumeSnapshot,
    class: &VolumeSnapshotClass,
    volume_handle: &str,
) -> Result<VolumeSnapshotContent, Why> {
    let meta = &snapshot.metadata;
    let name = content_name(meta.uid.as_deref().unwrap_or_default());
    let tokens = SnapshotTokens::of_snapshot(NOUN, &name, meta);
    let secret = class_secret(class, SnapshotSecret::Snapshotter, &tokens)?;
    let secret_keys = [
        keys::SNAPSHOT_DELETION_SECRET_NAME,
        keys::SNAPSHOT_DELETION_SECRET_NAMESPACE,
    ];
    let annotations = secret.map(|secret| of_deletion_secret(secret_keys, secret));
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
    if content.is_some() && (seen.is_restoring || seen.snapshot.is_held_as_source()) {
        return Next::Fail(Why::Restoring);
    }
    match seen.group {
        // Going, it takes its members along once its own content is dealt with.
        Some(group) if group.metadata.deletion_timestamp.is_some() => return Next::Wait,
        Some(group) => {
            let name = group.metadata.name.clone().unwrap_or_default();
            return Next::Fail(Why::InGroup(name));
        }
        None => {}
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
