//! What to do next about one VolumeGroupSnapshot. Pure.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, ObjectReference, PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use moorline_model::group_snapshot::{
    API_VERSION, NOUN, VolumeGroupSnapshot, VolumeGroupSnapshotClass, VolumeGroupSnapshotContent,
    VolumeGroupSnapshotContentSource, VolumeGroupSnapshotContentSpec, VolumeGroupSnapshotStatus,
    content_name,
};
use moorline_model::keys;
use moorline_model::label_selector::Selector;
use moorline_model::snapshot::{SnapshotSecret, SnapshotTokens, VolumeSnapshot};

use super::super::binding::{Binding, Pair, Seen as SeenContent, judge};
use super::super::source::{cut_of, managing_node, of_deletion_secret, only_default};
use super::super::status::{News, project_group};
use super::members::{self, Member, MemberStep};
use super::why::Why;
use crate::finalizer;

/// A claim of the group's namespace, with the PV that it names.
#[derive(Clone, Copy, Debug)]
pub struct Source<'a> {
    /// The claim.
    pub claim: &'a PersistentVolumeClaim,
    /// The PV, if it is there.
    pub pv: Option<&'a PersistentVolume>,
}

/// Everything the decision rests on.
#[derive(Clone, Debug)]
pub struct Seen<'a> {
    /// The group snapshot.
    pub group: &'a VolumeGroupSnapshot,
    /// The content of the name that follows from it ([`VolumeGroupSnapshot::content_name`]).
    pub content: Option<&'a VolumeGroupSnapshotContent>,
    /// The class that it names.
    pub class: Option<&'a VolumeGroupSnapshotClass>,
    /// All classes marked as default, of whatever driver.
    pub default_classes: Vec<&'a VolumeGroupSnapshotClass>,
    /// Claims of its namespace, among them all that its selector selects. Needed as long as there is no content.
    pub sources: Vec<Source<'a>>,
    /// The members that the content speaks of.
    pub members: Vec<Member<'a>>,
    /// All snapshots that belong to it.
    pub snapshots: Vec<&'a VolumeSnapshot>,
    /// One of these that an unbound claim waits to be filled from.
    pub restoring: Option<String>,
    /// All nodes, where contents are labelled with the one that their volumes are on.
    pub nodes: Option<&'a [Arc<Node>]>,
}

/// The answer.
#[derive(Clone, Debug, PartialEq)]
pub enum Next {
    /// Nothing until something changes.
    Settled,
    /// A write, or several that don't depend on each other.
    Do(Step),
    /// Told, and tried again.
    Fail(Why),
}

/// What to write.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// `spec.volumeGroupSnapshotClassName`: the driver's default class.
    AssignClass(String),
    /// On the group snapshot.
    AddFinalizer,
    /// Finalizers on the claims of these names: they stay until the snapshots are cut.
    HoldClaims(Vec<String>),
    /// The content that the sidecar acts on.
    CreateContent(Box<VolumeGroupSnapshotContent>),
    /// The UID of the group snapshot into the content that is reserved for it, and its class if it has one.
    BindContent,
    /// Objects of members, at most one write for each.
    Members(Vec<MemberStep>),
    /// The group snapshot's status as a whole.
    WriteStatus(Box<VolumeGroupSnapshotStatus>, Vec<News>),
    /// Annotation on the content: the sidecar may delete.
    MarkContentDeleted,
    /// The content goes when the sidecar is done.
    DeleteContent,
    /// The snapshots of these names, which go after the group.
    DeleteMembers(Vec<String>),
    /// From the group snapshot: nothing is left of it.
    RemoveFinalizer,
}

const FINALIZER: &str = keys::GROUP_SNAPSHOT_BOUND_PROTECTION;

/// Decides.
pub fn decide(seen: &Seen<'_>) -> Next {
    let group = seen.group;
    if group.metadata.deletion_timestamp.is_some() {
        return delete(seen);
    }
    let next = if group.is_ready() && group.bound_content().is_some() {
        check(seen)
    } else {
        advance(seen)
    };
    next.unwrap_or_else(Next::Fail)
}

/// A ready group changes no more; it only may have lost what it stands for.
fn check(seen: &Seen<'_>) -> Result<Next, Why> {
    let name = seen.group.bound_content().unwrap_or_default();
    let content = seen
        .content
        .ok_or_else(|| Why::ContentMissing(name.to_string()))?;
    if !content.points_to(seen.group) {
        return Err(Why::Misbound(name.to_string()));
    }
    Ok(match finalizer::is_present(&seen.group.metadata, FINALIZER) {
        true => Next::Settled,
        false => Next::Do(Step::AddFinalizer),
    })
}

fn advance(seen: &Seen<'_>) -> Result<Next, Why> {
    let group = seen.group;
    let source = &group.spec.source;
    let selector = match (&source.selector, &source.volume_group_snapshot_content_name) {
        (Some(selector), None) => Some(Selector::parse(selector)?),
        (None, Some(_)) => None,
        _ => return Err(Why::Source),
    };
    let name = group.content_name().ok_or(Why::Source)?;
    let binding = judge(Pair {
        wants_static: selector.is_none(),
        was_bound: group.bound_content().is_some(),
        content: seen.content.map(|content| SeenContent {
            is_static: content.spec.source.group_snapshot_handles.is_some(),
            points_back: content.points_to(group),
            may_bind: content.may_bind_to(group),
        }),
    });
    let will_bind = matches!(binding, Binding::Begin | Binding::Reserved | Binding::Bound);
    if will_bind && !finalizer::is_present(&group.metadata, FINALIZER) {
        return Ok(Next::Do(Step::AddFinalizer));
    }
    if let Some(class) = &group.spec.volume_group_snapshot_class_name
        && seen.class.is_none()
        && binding != Binding::Bound
    {
        return Err(Why::NoClass(class.clone()));
    }
    match (binding, seen.content) {
        (Binding::Begin, _) => begin(seen, &selector.unwrap_or_default()),
        (Binding::Missing, _) => Err(Why::ContentMissing(name)),
        (Binding::IsDynamic, _) => Err(Why::ContentIsDynamic(name)),
        (Binding::IsStatic, _) => Err(Why::ContentIsStatic(name)),
        (Binding::Misbound, content) => Err(misbound(name, content)),
        (Binding::Reserved, _) => Ok(Next::Do(Step::BindContent)),
        (Binding::Bound, Some(content)) => follow(seen, content),
        (Binding::Bound, None) => Ok(Next::Settled),
    }
}

fn misbound(name: String, content: Option<&VolumeGroupSnapshotContent>) -> Why {
    let reference = content.map(|content| &content.spec.volume_group_snapshot_ref);
    let part = |part: Option<&Option<String>>| part.cloned().flatten().unwrap_or_default();
    Why::ContentMisbound {
        content: name,
        namespace: part(reference.map(|reference| &reference.namespace)),
        name: part(reference.map(|reference| &reference.name)),
    }
}

/// The members get their objects before the group is ready; then it says what its content says.
fn follow(seen: &Seen<'_>, content: &VolumeGroupSnapshotContent) -> Result<Next, Why> {
    if content.handle().is_some() {
        let steps = seen
            .members
            .iter()
            .filter_map(|member| members::next(seen.group, content, member).transpose())
            .collect::<Result<Vec<_>, _>>()?;
        if !steps.is_empty() {
            return Ok(Next::Do(Step::Members(steps)));
        }
    }
    let (status, news) = project_group(seen.group, content);
    if seen.group.status.as_ref() == Some(&status) {
        return Ok(Next::Settled);
    }
    Ok(Next::Do(Step::WriteStatus(Box::new(status), news)))
}

/// What a snapshot shall be cut of.
struct Chosen<'a> {
    claim: &'a PersistentVolumeClaim,
    pv: &'a PersistentVolume,
    driver: &'a str,
    volume_handle: &'a str,
}

/// A dynamic group that has no content yet.
fn begin(seen: &Seen<'_>, selector: &Selector) -> Result<Next, Why> {
    let chosen = chosen(seen, selector)?;
    let driver = chosen.first().ok_or(Why::NoClaims)?.driver;
    let Some(class) = seen.class else {
        return Ok(Next::Do(Step::AssignClass(default_class(seen, driver)?)));
    };
    if let Some(foreign) = chosen.iter().find(|chosen| chosen.driver != class.driver) {
        return Err(Why::ForeignClass {
            class: class.metadata.name.clone().unwrap_or_default(),
            class_driver: class.driver.clone(),
            claim: foreign.claim.metadata.name.clone().unwrap_or_default(),
            volume_driver: foreign.driver.to_string(),
        });
    }
    let content = content_for(seen, class, &chosen)?;
    let free: Vec<_> = chosen
        .iter()
        .map(|chosen| &chosen.claim.metadata)
        .filter(|meta| !finalizer::is_present(meta, keys::PVC_AS_SOURCE_PROTECTION))
        .filter_map(|meta| meta.name.clone())
        .collect();
    if !free.is_empty() {
        return Ok(Next::Do(Step::HoldClaims(free)));
    }
    Ok(Next::Do(Step::CreateContent(Box::new(content))))
}

/// The claims that are selected, in the order of their names, if all of them can be cut.
fn chosen<'a>(seen: &Seen<'a>, selector: &Selector) -> Result<Vec<Chosen<'a>>, Why> {
    let mut selected: Vec<_> = seen
        .sources
        .iter()
        .filter(|source| selector.matches(source.claim.metadata.labels.as_ref()))
        .collect();
    selected.sort_by(|a, b| a.claim.metadata.name.cmp(&b.claim.metadata.name));
    selected
        .into_iter()
        .map(|source| {
            let (pv, csi) = cut_of(source.claim, source.pv)?;
            Ok(Chosen {
                claim: source.claim,
                pv,
                driver: &csi.driver,
                volume_handle: &csi.volume_handle,
            })
        })
        .collect()
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
    seen: &Seen<'_>,
    class: &VolumeGroupSnapshotClass,
    chosen: &[Chosen<'_>],
) -> Result<VolumeGroupSnapshotContent, Why> {
    let meta = &seen.group.metadata;
    let name = content_name(meta.uid.as_deref().unwrap_or_default());
    let tokens = SnapshotTokens::of_snapshot(NOUN, &name, meta);
    let secret = class.secret(SnapshotSecret::GroupSnapshotter, &tokens)?;
    let secret_keys = [
        keys::GROUP_SNAPSHOT_DELETION_SECRET_NAME,
        keys::GROUP_SNAPSHOT_DELETION_SECRET_NAMESPACE,
    ];
    let annotations = secret.map(|secret| of_deletion_secret(secret_keys, secret));
    let pvs: Vec<_> = chosen.iter().map(|chosen| chosen.pv).collect();
    let node_name = managing_node(&pvs, seen.nodes)?;
    let label = |node_name: String| [(keys::SNAPSHOT_MANAGED_BY.to_string(), node_name)].into();
    Ok(VolumeGroupSnapshotContent {
        metadata: ObjectMeta {
            name: Some(name),
            annotations,
            labels: node_name.map(label),
            // From the start: there is no moment in which it could vanish without the sidecar.
            finalizers: Some(vec![keys::GROUP_SNAPSHOT_CONTENT_BOUND_PROTECTION.to_string()]),
            ..Default::default()
        },
        spec: VolumeGroupSnapshotContentSpec {
            volume_group_snapshot_ref: ObjectReference {
                api_version: Some(API_VERSION.to_string()),
                kind: Some("VolumeGroupSnapshot".to_string()),
                namespace: meta.namespace.clone(),
                name: meta.name.clone(),
                uid: meta.uid.clone(),
                resource_version: meta.resource_version.clone(),
                ..Default::default()
            },
            deletion_policy: class.deletion_policy.clone(),
            driver: class.driver.clone(),
            volume_group_snapshot_class_name: class.metadata.name.clone(),
            source: VolumeGroupSnapshotContentSource {
                volume_handles: Some(
                    chosen
                        .iter()
                        .map(|chosen| chosen.volume_handle.to_string())
                        .collect(),
                ),
                group_snapshot_handles: None,
            },
        },
        ..Default::default()
    })
}

fn delete(seen: &Seen<'_>) -> Next {
    let group = seen.group;
    let content = seen.content.filter(|content| content.points_to(group));
    if let Some(name) = &seen.restoring {
        return Next::Fail(Why::Restoring(name.clone()));
    }
    let goes = content.filter(|content| content.is_deleting_backend());
    if content.is_some_and(|content| !content.is_being_deleted()) {
        return Next::Do(Step::MarkContentDeleted);
    }
    if goes.is_some_and(|content| content.metadata.deletion_timestamp.is_none()) {
        return Next::Do(Step::DeleteContent);
    }
    let living: Vec<_> = seen
        .snapshots
        .iter()
        .filter(|snapshot| snapshot.metadata.deletion_timestamp.is_none())
        .filter_map(|snapshot| snapshot.metadata.name.clone())
        .collect();
    if !living.is_empty() {
        return Next::Do(Step::DeleteMembers(living));
    }
    // A content that goes is waited for until the sidecar is done; its going wakes us.
    match goes.is_none() && finalizer::is_present(&group.metadata, FINALIZER) {
        true => Next::Do(Step::RemoveFinalizer),
        false => Next::Settled,
    }
}
