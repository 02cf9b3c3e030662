//! The tables of decisions.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, PersistentVolume, PersistentVolumeClaim};
use moorline_model::group_snapshot::VolumeGroupSnapshot;
use moorline_model::keys;
use moorline_model::secret_template::TemplateError;
use moorline_model::snapshot::{SnapshotSecret, VolumeSnapshot, VolumeSnapshotClass, VolumeSnapshotContent};
use serde_json::{Value, json};

use super::claim_hold::hold;
use super::testing::{class, class_json, content, content_json, snapshot, snapshot_json, source, source_pv};
use super::*;
use crate::testing::{merge, object};

/// Everything that a decision rests on: by default a dynamic snapshot that has all but its content.
struct World {
    snapshot: VolumeSnapshot,
    content: Option<VolumeSnapshotContent>,
    class: Option<VolumeSnapshotClass>,
    default_classes: Vec<VolumeSnapshotClass>,
    claim: Option<PersistentVolumeClaim>,
    pv: Option<PersistentVolume>,
    is_restoring: bool,
    nodes: Option<Vec<Arc<Node>>>,
    group_name: Option<String>,
    group: Option<VolumeGroupSnapshot>,
}

impl World {
    fn new(patch: Value) -> Self {
        Self {
            snapshot: snapshot(patch),
            content: None,
            class: Some(class(json!({}))),
            default_classes: Vec::new(),
            claim: Some(object(source(json!({})), &json!({}))),
            pv: Some(object(source_pv(json!({})), &json!({}))),
            is_restoring: false,
            nodes: None,
            group_name: None,
            group: None,
        }
    }

    /// A member of the group `g`.
    fn member(patch: Value) -> Self {
        let mut base = json!({
            "metadata": {"name": "snapshot-ab", "ownerReferences": owner("gu"), "finalizers": [
                keys::SNAPSHOT_IN_GROUP_PROTECTION,
                keys::SNAPSHOT_AS_SOURCE_PROTECTION,
                keys::SNAPSHOT_BOUND_PROTECTION,
            ]},
            "spec": {"volumeSnapshotClassName": null},
        });
        merge(&mut base, &patch);
        Self::new(base).class(None)
    }

    fn group(mut self, group: Option<Value>) -> Self {
        self.group = group.map(|patch| object(group_json(), &patch));
        self
    }

    fn of_group(mut self, name: &str) -> Self {
        self.group_name = Some(name.to_string());
        self
    }

    fn content(mut self, patch: Value) -> Self {
        self.content = Some(content(patch));
        self
    }

    fn class(mut self, class: Option<VolumeSnapshotClass>) -> Self {
        self.class = class;
        self
    }

    fn defaults(mut self, classes: &[(&str, &str)]) -> Self {
        self.class = None;
        self.default_classes = classes
            .iter()
            .map(|(name, driver)| class(json!({"metadata": {"name": name}, "driver": driver})))
            .collect();
        self
    }

    fn claim(mut self, patch: Option<Value>) -> Self {
        self.claim = patch.map(|patch| object(source(patch), &json!({})));
        self
    }

    fn pv(mut self, patch: Option<Value>) -> Self {
        self.pv = patch.map(|patch| object(source_pv(patch), &json!({})));
        self
    }

    fn restoring(mut self) -> Self {
        self.is_restoring = true;
        self
    }

    fn decide(&self) -> Next {
        decide_snapshot(&Seen {
            snapshot: &self.snapshot,
            content: self.content.as_ref(),
            class: self.class.as_ref(),
            default_classes: self.default_classes.iter().collect(),
            claim: self.claim.as_ref(),
            pv: self.pv.as_ref(),
            is_restoring: self.is_restoring,
            keeps_volume_mode: true,
            nodes: self.nodes.as_deref(),
            group_name: self.group_name.clone(),
            group: self.group.as_ref(),
        })
    }
}

fn owner(uid: &str) -> Value {
    json!([{"apiVersion": "groupsnapshot.storage.k8s.io/v1", "kind": "VolumeGroupSnapshot", "name": "g", "uid": uid}])
}

fn group_json() -> Value {
    json!({"metadata": {"namespace": "ns", "name": "g", "uid": "gu"}, "spec": {"source": {"selector": {}}}})
}

fn made(more: Value) -> Next {
    let mut expected = content_json(&json!({
        "metadata": {"uid": null, "resourceVersion": null},
        "spec": {
            "volumeSnapshotRef": {"apiVersion": "snapshot.storage.k8s.io/v1", "kind": "VolumeSnapshot", "resourceVersion": "5"},
            "sourceVolumeMode": "Filesystem",
        },
    }));
    merge(&mut expected, &more);
    Next::Do(Step::CreateContent(Box::new(object(expected, &json!({})))))
}

const NAMELESS: &str = "snapcontent-su";

#[test]
fn contents_say_which_node_manages_them() {
    let term = json!([{"matchExpressions": [{"key": "zone", "operator": "In", "values": ["a"]}]}]);
    let placed = json!({"spec": {"nodeAffinity": {"required": {"nodeSelectorTerms": term}}}});
    let labelled = |name: &str| made(json!({"metadata": {"labels": {keys::SNAPSHOT_MANAGED_BY: name}}}));
    let nodes = |zones: &[(&str, &str)]| {
        let node = |(name, zone): &(&str, &str)| {
            let known = json!({"metadata": {"name": name, "labels": {"zone": zone}}});
            Arc::new(object::<Node>(known, &json!({})))
        };
        Some(zones.iter().map(node).collect::<Vec<_>>())
    };
    let cases = [
        ("nobody asks", &placed, None, made(json!({}))),
        (
            "the volume is everywhere",
            &json!({}),
            nodes(&[("n1", "a")]),
            made(json!({})),
        ),
        (
            "one node",
            &placed,
            nodes(&[("n1", "b"), ("n2", "a")]),
            labelled("n2"),
        ),
        (
            "several: always the same",
            &placed,
            nodes(&[("n3", "a"), ("n2", "a")]),
            labelled("n2"),
        ),
        (
            "none",
            &placed,
            nodes(&[("n1", "b")]),
            Next::Fail(Why::NoNode("pv1".into())),
        ),
    ];
    for (name, pv, nodes, expected) in cases {
        let mut world = World::new(json!({}));
        world.pv = Some(object(source_pv(pv.clone()), &json!({})));
        world.nodes = nodes;
        assert_eq!(world.decide(), expected, "{name}");
    }
}

#[test]
#[expect(clippy::too_many_lines, reason = "one table")]
fn a_dynamic_snapshot_gets_its_content() {
    let no_class = json!({"spec": {"volumeSnapshotClassName": null}});
    let fresh = json!({"metadata": {"finalizers": null}});
    let name_key = SnapshotSecret::Snapshotter.keys().0;
    let cases = [
        ("all there", World::new(json!({})), made(json!({}))),
        (
            "finalizers first, both in one",
            World::new(fresh.clone()),
            Next::Do(Step::AddFinalizers(vec![
                keys::SNAPSHOT_AS_SOURCE_PROTECTION,
                keys::SNAPSHOT_BOUND_PROTECTION,
            ])),
        ),
        (
            "policy Retain: the snapshot waits for nothing",
            World::new(fresh).class(Some(class(json!({"deletionPolicy": "Retain"})))),
            Next::Do(Step::AddFinalizers(vec![keys::SNAPSHOT_AS_SOURCE_PROTECTION])),
        ),
        (
            "then the claim",
            World::new(json!({})).claim(Some(json!({"metadata": {"finalizers": null}}))),
            Next::Do(Step::HoldClaim),
        ),
        (
            "policy of the class",
            World::new(json!({})).class(Some(class(json!({"deletionPolicy": "Retain"})))),
            made(json!({"spec": {"deletionPolicy": "Retain"}})),
        ),
        (
            "secret of the class, for deletion",
            World::new(json!({})).class(Some(class(json!({"parameters": {
                "csi.storage.k8s.io/snapshotter-secret-name": "${volumesnapshot.name}",
                "csi.storage.k8s.io/snapshotter-secret-namespace": "vault"}})))),
            made(json!({"metadata": {"annotations": {
                keys::SNAPSHOT_DELETION_SECRET_NAME: "s", keys::SNAPSHOT_DELETION_SECRET_NAMESPACE: "vault"}}})),
        ),
        (
            "half a secret",
            World::new(json!({})).class(Some(class(json!({"parameters": {name_key: "x"}})))),
            Next::Fail(Why::Secret(TemplateError::Incomplete {
                name_key: name_key.into(),
                namespace_key: SnapshotSecret::Snapshotter.keys().1.into(),
            })),
        ),
        (
            "class missing",
            World::new(json!({})).class(None),
            Next::Fail(Why::NoClass("snap".into())),
        ),
        (
            "class of another driver",
            World::new(json!({})).class(Some(class(json!({"driver": "e"})))),
            Next::Fail(Why::ForeignClass {
                class: "snap".into(),
                class_driver: "e".into(),
                volume_driver: "d".into(),
            }),
        ),
        (
            "one default class of the driver",
            World::new(no_class.clone()).defaults(&[("other", "e"), ("mine", "d")]),
            Next::Do(Step::AssignClass("mine".into())),
        ),
        (
            "no default class",
            World::new(no_class.clone()).defaults(&[("other", "e")]),
            Next::Fail(Why::NoDefaultClass("d".into())),
        ),
        (
            "several default classes",
            World::new(no_class).defaults(&[("b", "d"), ("a", "d")]),
            Next::Fail(Why::SeveralDefaultClasses {
                driver: "d".into(),
                classes: vec!["a".into(), "b".into()],
            }),
        ),
        (
            "claim missing",
            World::new(json!({})).claim(None),
            Next::Fail(Why::NoClaim("c".into())),
        ),
        (
            "claim going",
            World::new(json!({})).claim(Some(
                json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}}),
            )),
            Next::Fail(Why::ClaimDeleting("c".into())),
        ),
        (
            "claim pending",
            World::new(json!({})).claim(Some(json!({"status": {"phase": "Pending"}}))),
            Next::Fail(Why::ClaimNotBound("c".into())),
        ),
        (
            "claim lost",
            World::new(json!({})).claim(Some(json!({"status": {"phase": "Lost"}}))),
            Next::Fail(Why::ClaimNotBound("c".into())),
        ),
        (
            "volume missing",
            World::new(json!({})).pv(None),
            Next::Fail(Why::VolumeMisbound("c".into())),
        ),
        (
            "volume of another claim",
            World::new(json!({})).pv(Some(json!({"spec": {"claimRef": {"uid": "x"}}}))),
            Next::Fail(Why::VolumeMisbound("c".into())),
        ),
        (
            "no CSI volume",
            World::new(json!({})).pv(Some(json!({"spec": {"csi": null}}))),
            Next::Fail(Why::NotCsi("pv1".into())),
        ),
        (
            "neither source",
            World::new(json!({"spec": {"source": {"persistentVolumeClaimName": null}}})),
            Next::Fail(Why::Source),
        ),
        (
            "both sources",
            World::new(json!({"spec": {"source": {"volumeSnapshotContentName": "k"}}})),
            Next::Fail(Why::Source),
        ),
        (
            "bound before, content vanished: no second snapshot under the name of the first",
            World::new(json!({"status": {"boundVolumeSnapshotContentName": NAMELESS, "readyToUse": false}})),
            Next::Fail(Why::ContentMissing(NAMELESS.into())),
        ),
    ];
    for (name, world, expected) in cases {
        assert_eq!(world.decide(), expected, "{name}");
    }
}

fn status(patch: Value, news: &[News]) -> Next {
    let mut base = json!({"boundVolumeSnapshotContentName": NAMELESS, "readyToUse": false});
    merge(&mut base, &patch);
    Next::Do(Step::WriteStatus(
        Box::new(serde_json::from_value(base).unwrap()),
        news.to_vec(),
    ))
}

#[test]
#[expect(clippy::too_many_lines, reason = "one table")]
fn a_snapshot_says_what_its_content_says() {
    let cut = json!({"status": {"snapshotHandle": "h1", "creationTime": 1_500_000_000_999_000_000_i64,
        "restoreSize": 1_073_741_824, "readyToUse": false}});
    let ready = json!({"status": {"readyToUse": true}});
    let said = json!({"creationTime": "2017-07-14T02:40:00Z", "restoreSize": "1Gi"});
    let mut whole = cut.clone();
    merge(&mut whole, &ready);
    let mut finished = json!({"boundVolumeSnapshotContentName": NAMELESS, "readyToUse": true});
    merge(&mut finished, &said);
    let unready = json!({"boundVolumeSnapshotContentName": NAMELESS, "readyToUse": false});
    let ours = || World::new(json!({}));
    let mut ready_said = said.clone();
    merge(&mut ready_said, &json!({"readyToUse": true}));
    let cases = [
        ("bound", ours().content(json!({})), status(json!({}), &[])),
        (
            "bound and said so",
            World::new(json!({"status": unready})).content(json!({})),
            Next::Settled,
        ),
        ("cut", ours().content(cut.clone()), status(said.clone(), &[News::Created])),
        (
            "cut and ready at once",
            ours().content(whole.clone()),
            status(ready_said.clone(), &[News::Created, News::Ready]),
        ),
        (
            "ready",
            World::new(json!({"status": {"creationTime": "2017-07-14T02:40:00Z"}})).content(whole.clone()),
            status(ready_said.clone(), &[News::Ready]),
        ),
        (
            "an error",
            ours().content(json!({"status": {"error": {"message": "no room"}}})),
            status(json!({"error": {"message": "no room"}}), &[]),
        ),
        (
            "an old error goes with readiness",
            World::new(json!({"status": {"error": {"message": "x"}}})).content({
                let mut both = whole.clone();
                merge(&mut both, &json!({"status": {"error": {"message": "old"}}}));
                both
            }),
            status(ready_said, &[News::Created, News::Ready]),
        ),
        (
            "done",
            World::new(json!({"status": finished})).content(whole.clone()),
            Next::Settled,
        ),
        (
            "done, content vanished",
            World::new(json!({"status": finished})),
            Next::Fail(Why::ContentMissing(NAMELESS.into())),
        ),
        (
            "done, content points elsewhere",
            World::new(json!({"status": finished})).content(json!({"spec": {"volumeSnapshotRef": {"uid": "x"}}})),
            Next::Fail(Why::Misbound(NAMELESS.into())),
        ),
        (
            "done, finalizer lost",
            World::new(json!({"status": finished, "metadata": {"finalizers": [keys::SNAPSHOT_AS_SOURCE_PROTECTION]}}))
                .content(whole.clone()),
            Next::Do(Step::AddFinalizers(vec![keys::SNAPSHOT_BOUND_PROTECTION])),
        ),
        (
            "ready without a binding, which can't be: bound anew",
            World::new(json!({"status": {"readyToUse": true}})).content(json!({})),
            status(json!({}), &[]),
        ),
        (
            "our name, another snapshot's content",
            ours().content(json!({"spec": {"volumeSnapshotRef": {"uid": "x"}}})),
            Next::Fail(Why::ContentMisbound {
                content: NAMELESS.into(),
                namespace: "ns".into(),
                name: "s".into(),
            }),
        ),
        (
            "our name, made by hand",
            ours().content(json!({"spec": {"source": {"volumeHandle": null, "snapshotHandle": "h1"}}})),
            Next::Fail(Why::ContentIsStatic(NAMELESS.into())),
        ),
        (
            "class gone after the content was made: not needed any more",
            ours().class(None).content(cut),
            status(said, &[News::Created]),
        ),
    ];
    for (name, world, expected) in cases {
        assert_eq!(world.decide(), expected, "{name}");
    }
}

#[test]
fn a_static_snapshot_binds_to_the_content_that_it_names() {
    let wanted = |more: Value| {
        let mut patch = json!({"spec": {"volumeSnapshotClassName": null,
            "source": {"persistentVolumeClaimName": null, "volumeSnapshotContentName": "k"}}});
        merge(&mut patch, &more);
        World::new(patch).class(None)
    };
    // Not merged: a null has to reach the content.
    let reserved = |reference: Value| {
        json!({"metadata": {"name": "k"}, "spec": {
            "source": {"volumeHandle": null, "snapshotHandle": "h1"}, "volumeSnapshotRef": reference}})
    };
    let misbound = |namespace: &str, name: &str| {
        Next::Fail(Why::ContentMisbound {
            content: "k".into(),
            namespace: namespace.into(),
            name: name.into(),
        })
    };
    let cases = [
        (
            "missing",
            wanted(json!({})),
            Next::Fail(Why::ContentMissing("k".into())),
        ),
        (
            "reserved for it",
            wanted(json!({})).content(reserved(json!({"uid": null}))),
            Next::Do(Step::BindContent),
        ),
        (
            "bound to it",
            wanted(json!({})).content(reserved(json!({}))),
            status(json!({"boundVolumeSnapshotContentName": "k"}), &[]),
        ),
        (
            "bound to an earlier one of its name",
            wanted(json!({})).content(reserved(json!({"uid": "x"}))),
            misbound("ns", "s"),
        ),
        (
            "reserved for another",
            wanted(json!({})).content(reserved(json!({"uid": null, "name": "t"}))),
            misbound("ns", "t"),
        ),
        (
            "reserved elsewhere",
            wanted(json!({})).content(reserved(json!({"uid": null, "namespace": "n2"}))),
            misbound("n2", "s"),
        ),
        (
            "made by a controller",
            wanted(json!({})).content(json!({"metadata": {"name": "k"}})),
            Next::Fail(Why::ContentIsDynamic("k".into())),
        ),
        (
            "its class is missing",
            wanted(json!({"spec": {"volumeSnapshotClassName": "gone"}})),
            Next::Fail(Why::NoClass("gone".into())),
        ),
    ];
    for (name, world, expected) in cases {
        assert_eq!(world.decide(), expected, "{name}");
    }
}

#[test]
#[expect(clippy::too_many_lines, reason = "one flat table")]
fn a_snapshot_is_deleted_in_order() {
    let going = || World::new(json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}}));
    let marked = json!({"metadata": {"annotations": {keys::SNAPSHOT_BEING_DELETED: "yes"}}});
    let with = |more: Value| {
        let mut patch = marked.clone();
        merge(&mut patch, &more);
        patch
    };
    let both = Next::Do(Step::RemoveFinalizers(vec![
        keys::SNAPSHOT_AS_SOURCE_PROTECTION,
        keys::SNAPSHOT_BOUND_PROTECTION,
    ]));
    let retained = json!({"spec": {"deletionPolicy": "Retain"}});
    let cases = [
        (
            "the content is marked first",
            going().content(json!({})),
            Next::Do(Step::MarkContentDeleted),
        ),
        (
            "also one that stays",
            going().content(retained.clone()),
            Next::Do(Step::MarkContentDeleted),
        ),
        (
            "then deleted",
            going().content(marked.clone()),
            Next::Do(Step::DeleteContent),
        ),
        (
            "then waited for",
            going().content(with(
                json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}}),
            )),
            Next::Settled,
        ),
        ("then it goes", going(), both.clone()),
        (
            "a content that stays is not waited for",
            going().content(with(retained)),
            both.clone(),
        ),
        (
            "a content of another snapshot is not touched",
            going().content(json!({"spec": {"volumeSnapshotRef": {"uid": "x"}}})),
            both.clone(),
        ),
        (
            "a claim is being filled from it",
            going().content(json!({})).restoring(),
            Next::Fail(Why::Restoring),
        ),
        (
            "a volume may be being filled from it, for a claim that is gone",
            World::new(json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z",
                "finalizers": [keys::SNAPSHOT_SOURCE_PROTECTION_BY_PROVISIONER]}}))
            .content(json!({})),
            Next::Fail(Why::Restoring),
        ),
        (
            "a claim waits for it, but there is nothing to fill it from",
            going().restoring(),
            both.clone(),
        ),
        (
            "its class is gone, its claim is gone",
            going().class(None).claim(None).pv(None),
            both,
        ),
        (
            "others hold it",
            World::new(
                json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z", "finalizers": ["a/b"]}}),
            ),
            Next::Settled,
        ),
        (
            "without a valid source",
            World::new(json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z",
                "finalizers": [keys::SNAPSHOT_AS_SOURCE_PROTECTION]},
                "spec": {"source": {"persistentVolumeClaimName": null}}})),
            Next::Do(Step::RemoveFinalizers(vec![keys::SNAPSHOT_AS_SOURCE_PROTECTION])),
        ),
    ];
    for (name, world, expected) in cases {
        assert_eq!(world.decide(), expected, "{name}");
    }
}

#[test]
#[expect(clippy::too_many_lines, reason = "one table")]
fn members_of_groups_are_made_and_deleted_with_their_group() {
    let going = json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}});
    let ours = json!({"metadata": {"name": "snapcontent-ab"}, "spec": {"volumeSnapshotRef": {"name": "snapshot-ab"},
        "volumeSnapshotClassName": null}});
    let ours_with = |more: Value| {
        let mut content = ours.clone();
        merge(&mut content, &more);
        content
    };
    let ready =
        json!({"status": {"snapshotHandle": "h1", "readyToUse": true, "volumeGroupSnapshotHandle": "g1"}});
    let bound = json!({"status": {"boundVolumeSnapshotContentName": "snapcontent-su", "readyToUse": true}});
    let said = json!({"status": {"boundVolumeSnapshotContentName": "snapcontent-su", "readyToUse": true,
        "volumeGroupSnapshotName": "g"}});
    let cases = [
        (
            "no content yet: no class is looked for, and none is made",
            World::member(json!({})),
            Next::Settled,
        ),
        (
            "another controller made its content without the UID",
            World::member(json!({}))
                .content(ours_with(json!({"spec": {"volumeSnapshotRef": {"uid": null}}}))),
            Next::Settled,
        ),
        (
            "the driver's word is missing",
            World::member(json!({})).content(ours.clone()),
            Next::Settled,
        ),
        (
            "cut",
            World::member(json!({})).content(ours_with(ready.clone())),
            status(
                json!({"boundVolumeSnapshotContentName": "snapcontent-ab", "readyToUse": true, "volumeGroupSnapshotName": "g"}),
                &[News::Ready],
            ),
        ),
        (
            "one that existed before: of which group",
            World::new(bound.clone()).content(ready.clone()).of_group("g"),
            status(
                json!({"boundVolumeSnapshotContentName": "snapcontent-su", "readyToUse": true, "volumeGroupSnapshotName": "g"}),
                &[],
            ),
        ),
        (
            "whose group is not known yet",
            World::new(bound).content(ready.clone()),
            Next::Settled,
        ),
        (
            "then it belongs to the group",
            World::new(said.clone())
                .content(ready.clone())
                .group(Some(json!({}))),
            Next::Do(Step::AddOwner(Box::new(
                serde_json::from_value(owner("gu")[0].clone()).unwrap(),
            ))),
        ),
        (
            "unless that goes",
            World::new(said.clone())
                .content(ready.clone())
                .group(Some(going.clone())),
            Next::Settled,
        ),
        ("or isn't there", World::new(said).content(ready), Next::Settled),
        (
            "deleted alone",
            World::member(going.clone())
                .content(ours.clone())
                .group(Some(json!({}))),
            Next::Fail(Why::InGroup("g".into())),
        ),
        (
            "deleted with its group, which waits for the driver",
            World::member(going.clone())
                .content(ours.clone())
                .group(Some(going.clone())),
            Next::Wait,
        ),
        (
            "the group is gone",
            World::member(going.clone()).content(ours.clone()),
            Next::Do(Step::MarkContentDeleted),
        ),
        (
            "nothing left",
            World::member(going),
            Next::Do(Step::RemoveFinalizers(vec![
                keys::SNAPSHOT_AS_SOURCE_PROTECTION,
                keys::SNAPSHOT_BOUND_PROTECTION,
                keys::SNAPSHOT_IN_GROUP_PROTECTION,
            ])),
        ),
    ];
    for (name, world, expected) in cases {
        assert_eq!(world.decide(), expected, "{name}");
    }
}

#[test]
fn contents_are_protected_and_marked() {
    let going = snapshot(json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}}));
    let held = snapshot(json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z",
        "finalizers": [keys::SNAPSHOT_SOURCE_PROTECTION_BY_PROVISIONER]}}));
    let living = snapshot(json!({}));
    let unprotected = json!({"metadata": {"finalizers": null}});
    let deleted = json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}});
    let cases = [
        ("in order", json!({}), Some(&living), ContentNext::Settled),
        (
            "unprotected",
            unprotected.clone(),
            Some(&living),
            ContentNext::AddFinalizer,
        ),
        (
            "deleted by hand: nothing can be added, and the data stays",
            {
                let mut patch = unprotected.clone();
                merge(&mut patch, &deleted);
                patch
            },
            Some(&living),
            ContentNext::Settled,
        ),
        (
            "its snapshot goes",
            json!({}),
            Some(&going),
            ContentNext::MarkBeingDeleted,
        ),
        (
            "its snapshot goes, and a volume may be being filled from it",
            json!({}),
            Some(&held),
            ContentNext::Settled,
        ),
        (
            "its snapshot goes, marked",
            json!({"metadata": {"annotations": {keys::SNAPSHOT_BEING_DELETED: "yes"}}}),
            Some(&going),
            ContentNext::Settled,
        ),
        ("its snapshot is not there", json!({}), None, ContentNext::Settled),
        (
            "its snapshot is not there, deleted",
            deleted,
            None,
            ContentNext::Settled,
        ),
        (
            "another snapshot of the name goes",
            json!({"spec": {"volumeSnapshotRef": {"uid": "x"}}}),
            Some(&going),
            ContentNext::Settled,
        ),
    ];
    for (name, patch, snapshot, expected) in cases {
        assert_eq!(
            decide_content(&content(patch), snapshot, false),
            expected,
            "{name}"
        );
    }
    // A claim waits for it: the mark comes when it has been filled.
    let next = decide_content(&content(json!({})), Some(&going), true);
    assert_eq!(next, ContentNext::Settled);
}

#[test]
fn contents_that_are_nobodys_yet_or_make_no_sense() {
    let cases = [
        (
            "reserved",
            json!({"metadata": {"finalizers": null}, "spec": {"volumeSnapshotRef": {"uid": null}}}),
            ContentNext::Settled,
        ),
        (
            "both sources",
            json!({"spec": {"source": {"snapshotHandle": "x"}}}),
            ContentNext::Refuse,
        ),
        (
            "neither source",
            json!({"spec": {"source": {"volumeHandle": null}}}),
            ContentNext::Refuse,
        ),
    ];
    for (name, patch, expected) in cases {
        assert_eq!(decide_content(&content(patch), None, false), expected, "{name}");
    }
}

#[test]
fn claims_are_held_while_snapshots_are_cut() {
    let claim = |patch: Value| -> PersistentVolumeClaim { object(source(patch), &json!({})) };
    let living = claim(json!({}));
    let dying = claim(json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}}));
    let going = json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}});
    let marked = json!({"metadata": {"annotations": {keys::SNAPSHOT_BEING_CREATED: "yes"}}});
    let refused = json!({"status": {"error": {"message": "x"}}});
    let ready = json!({"status": {"readyToUse": true}});
    let cases = [
        ("about to begin", json!({}), None, &living, Hold::Held),
        ("can't begin any more", json!({}), None, &dying, Hold::Free),
        (
            "given up before it began",
            going.clone(),
            None,
            &living,
            Hold::Free,
        ),
        ("begun", json!({}), Some(json!({})), &dying, Hold::Held),
        ("being cut", json!({}), Some(marked.clone()), &dying, Hold::Held),
        (
            "given up, but the answer is missing",
            going.clone(),
            Some(marked.clone()),
            &dying,
            Hold::Held,
        ),
        (
            "given up, nothing under way",
            going,
            Some(json!({})),
            &dying,
            Hold::Free,
        ),
        (
            "cut, not ready",
            json!({}),
            Some(json!({"status": {"snapshotHandle": "h"}})),
            &living,
            Hold::Held,
        ),
        (
            "cut, not ready, an error on the way",
            json!({}),
            Some(json!({"status": {"snapshotHandle": "h", "error": {"message": "x"}}})),
            &living,
            Hold::Held,
        ),
        ("refused for good", json!({}), Some(refused), &living, Hold::Free),
        ("ready", ready.clone(), Some(ready.clone()), &living, Hold::Free),
        ("ready, not said yet", json!({}), Some(ready), &living, Hold::Free),
        (
            "lost its content",
            json!({"status": {"boundVolumeSnapshotContentName": "k"}}),
            None,
            &living,
            Hold::Free,
        ),
    ];
    for (name, patch, held, claim, expected) in cases {
        let held = held.map(content);
        assert_eq!(hold(&snapshot(patch), held.as_ref(), claim), expected, "{name}");
    }
    assert!(may_release(&living, []));
    let (done, begun) = (
        snapshot(json!({"status": {"readyToUse": true}})),
        snapshot(json!({})),
    );
    let bound = content(json!({}));
    assert!(!may_release(&living, [(&done, Some(&bound)), (&begun, None)]));
}

mod stories;
