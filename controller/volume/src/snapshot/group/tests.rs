//! The table of decisions about groups.

use moorline_model::group_snapshot::{content_name_of_member, member_name};
use moorline_model::keys;
use moorline_model::secret_template::TemplateError;
use moorline_model::snapshot::SnapshotSecret;
use serde_json::{Value, json};

use super::super::testing::{source, source_pv};
use super::*;
use crate::snapshot::{ContentNext, group_hold as hold};
use crate::snapshot::{News, Why as SnapshotWhy, decide_group_content};
use crate::testing::{merge, object};

const CONTENT: &str = "groupsnapcontent-gu";
const NS_GROUP: &str = "ns/g";

fn merged(mut base: Value, patch: &Value) -> Value {
    merge(&mut base, patch);
    base
}

/// The group `ns/g` with UID `gu` of the claims labelled `app: db`, with its finalizer, of class `groups`.
fn group_json(patch: &Value) -> Value {
    let base = json!({
        "metadata": {"namespace": "ns", "name": "g", "uid": "gu", "resourceVersion": "5",
            "finalizers": [keys::GROUP_SNAPSHOT_BOUND_PROTECTION]},
        "spec": {"source": {"selector": {"matchLabels": {"app": "db"}}}, "volumeGroupSnapshotClassName": "groups"},
    });
    merged(base, patch)
}

/// The content that is made for it: of the volumes `h1` and `h2`.
fn content_json(patch: &Value) -> Value {
    let base = json!({
        "metadata": {"name": CONTENT, "uid": "ku", "resourceVersion": "6",
            "finalizers": [keys::GROUP_SNAPSHOT_CONTENT_BOUND_PROTECTION]},
        "spec": {
            "volumeGroupSnapshotRef": {"namespace": "ns", "name": "g", "uid": "gu"},
            "deletionPolicy": "Delete", "driver": "d", "volumeGroupSnapshotClassName": "groups",
            "source": {"volumeHandles": ["h1", "h2"]},
        },
    });
    merged(base, patch)
}

fn static_content(patch: &Value) -> Value {
    let source = json!({"volumeHandles": null, "groupSnapshotHandles":
        {"volumeGroupSnapshotHandle": "g1", "volumeSnapshotHandles": ["s1"]}});
    merged(content_json(&json!({"spec": {"source": source}})), patch)
}

fn class_json(patch: &Value) -> Value {
    let base = json!({"metadata": {"name": "groups"}, "driver": "d", "deletionPolicy": "Delete"});
    merged(base, patch)
}

/// The claim `c<number>` with that label, held, and its PV.
fn claim_json(number: u32, patch: &Value) -> Value {
    let base = source(
        json!({"metadata": {"name": format!("c{number}"), "uid": format!("u{number}"),
        "labels": {"app": "db"}}, "spec": {"volumeName": format!("pv{number}")}}),
    );
    merged(base, patch)
}

fn pv_json(number: u32, patch: &Value) -> Value {
    let base = source_pv(
        json!({"metadata": {"name": format!("pv{number}"), "uid": format!("pu{number}")},
        "spec": {"claimRef": {"name": format!("c{number}"), "uid": format!("u{number}")},
            "csi": {"volumeHandle": format!("h{number}")}}}),
    );
    merged(base, patch)
}

fn info(number: u32, is_ready: bool) -> Value {
    json!({"volumeHandle": format!("h{number}"), "snapshotHandle": format!("s{number}"), "creationTime": 5,
        "restoreSize": 1024, "readyToUse": is_ready})
}

/// A status of a group that was cut.
fn cut(is_ready: bool) -> Value {
    json!({"status": {"volumeGroupSnapshotHandle": "g1", "creationTime": "2026-01-01T00:00:00Z",
        "readyToUse": is_ready, "volumeSnapshotInfoList": [info(1, is_ready), info(2, is_ready)]}})
}

/// The objects of the member for the volume `h<number>`.
fn member_json(number: u32) -> Value {
    let name = member_name("gu", &format!("h{number}"));
    json!({
        "metadata": {"namespace": "ns", "name": name,
            "ownerReferences": [{"apiVersion": "groupsnapshot.storage.k8s.io/v1", "kind": "VolumeGroupSnapshot",
                "name": "g", "uid": "gu"}],
            "finalizers": [keys::SNAPSHOT_IN_GROUP_PROTECTION, keys::SNAPSHOT_AS_SOURCE_PROTECTION,
                keys::SNAPSHOT_BOUND_PROTECTION]},
        "spec": {"source": {"persistentVolumeClaimName": format!("c{number}")}},
    })
}

fn member_uid(number: u32) -> String {
    format!("mu{number}")
}

fn member_content_json(number: u32) -> Value {
    let name = member_name("gu", &format!("h{number}"));
    json!({
        "metadata": {"name": content_name_of_member(&name),
            "annotations": {keys::GROUP_SNAPSHOT_HANDLE: "g1"},
            "finalizers": [keys::SNAPSHOT_CONTENT_BOUND_PROTECTION]},
        "spec": {
            "volumeSnapshotRef": {"apiVersion": "snapshot.storage.k8s.io/v1", "kind": "VolumeSnapshot",
                "namespace": "ns", "name": name, "uid": member_uid(number)},
            "deletionPolicy": "Delete", "driver": "d", "source": {"volumeHandle": format!("h{number}")},
            "sourceVolumeMode": "Filesystem",
        },
    })
}

fn member_status_json(number: u32, is_ready: bool) -> Value {
    json!({"snapshotHandle": format!("s{number}"), "creationTime": 5, "restoreSize": 1024,
        "readyToUse": is_ready, "volumeGroupSnapshotHandle": "g1"})
}

/// Everything that a decision rests on: by default a dynamic group of two claims that has all but its content.
struct World {
    group: VolumeGroupSnapshot,
    content: Option<VolumeGroupSnapshotContent>,
    class: Option<VolumeGroupSnapshotClass>,
    default_classes: Vec<VolumeGroupSnapshotClass>,
    sources: Vec<(PersistentVolumeClaim, Option<PersistentVolume>)>,
    members: Vec<(Option<VolumeSnapshot>, Option<VolumeSnapshotContent>)>,
    restoring: Option<String>,
}

impl World {
    fn new(patch: Value) -> Self {
        let source = |number| {
            let claim = object(claim_json(number, &json!({})), &json!({}));
            (claim, Some(object(pv_json(number, &json!({})), &json!({}))))
        };
        Self {
            group: object(group_json(&patch), &json!({})),
            content: None,
            class: Some(object(class_json(&json!({})), &json!({}))),
            default_classes: Vec::new(),
            // In no order.
            sources: vec![source(2), source(1)],
            members: vec![(None, None), (None, None)],
            restoring: None,
        }
    }

    fn going() -> Self {
        Self::new(json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}}))
    }

    fn content(mut self, patch: &Value) -> Self {
        self.content = Some(object(content_json(patch), &json!({})));
        self
    }

    fn static_content(mut self, patch: &Value) -> Self {
        self.content = Some(object(static_content(patch), &json!({})));
        self
    }

    fn class(mut self, patch: Option<Value>) -> Self {
        self.class = patch.map(|patch| object(class_json(&patch), &json!({})));
        self
    }

    fn defaults(mut self, names: &[&str]) -> Self {
        self.class = None;
        let class = |name: &&str| object(class_json(&json!({"metadata": {"name": name}})), &json!({}));
        self.default_classes = names.iter().map(class).collect();
        self.default_classes
            .push(object(class_json(&json!({"driver": "other"})), &json!({})));
        self
    }

    /// The second claim, and its PV, changed.
    fn second(mut self, claim: &Value, pv: Option<&Value>) -> Self {
        let pv = pv.map(|patch| object(pv_json(2, patch), &json!({})));
        self.sources[0] = (object(claim_json(2, claim), &json!({})), pv);
        self
    }

    fn members(mut self, members: [(Option<Value>, Option<Value>); 2]) -> Self {
        let [first, second] = members;
        self.members = [(1, first), (2, second)]
            .into_iter()
            .map(|(number, (snapshot, content))| {
                let uid = json!({"metadata": {"uid": member_uid(number)}});
                let snapshot = snapshot.map(|patch| object(merged(member_json(number), &uid), &patch));
                let content = content.map(|patch| object(member_content_json(number), &patch));
                (snapshot, content)
            })
            .collect();
        self
    }

    fn unprotected(mut self) -> Self {
        self.group.metadata.finalizers = None;
        self
    }

    fn restoring(mut self) -> Self {
        self.restoring = Some("x".to_string());
        self
    }

    fn decide(&self) -> Next {
        let pvs: Vec<PersistentVolume> = [1, 2]
            .map(|number| object(pv_json(number, &json!({})), &json!({})))
            .into();
        let infos = self.content.as_ref().map(VolumeGroupSnapshotContent::members);
        let members = infos.unwrap_or_default().iter().zip(&self.members).zip(&pvs);
        decide(&Seen {
            group: &self.group,
            content: self.content.as_ref(),
            class: self.class.as_ref(),
            default_classes: self.default_classes.iter().collect(),
            sources: self
                .sources
                .iter()
                .map(|(claim, pv)| Source {
                    claim,
                    pv: pv.as_ref(),
                })
                .collect(),
            members: members
                .map(|((info, (snapshot, content)), pv)| Member {
                    info,
                    snapshot: snapshot.as_ref(),
                    content: content.as_ref(),
                    pv: Some(pv),
                })
                .collect(),
            snapshots: self
                .members
                .iter()
                .filter_map(|(snapshot, _)| snapshot.as_ref())
                .collect(),
            restoring: self.restoring.clone(),
            nodes: None,
        })
    }
}

fn made(patch: Value) -> Next {
    let base = content_json(
        &json!({"metadata": {"uid": null, "resourceVersion": null}, "spec": {
        "volumeGroupSnapshotRef": {"apiVersion": "groupsnapshot.storage.k8s.io/v1", "kind": "VolumeGroupSnapshot",
            "resourceVersion": "5"}}}),
    );
    Next::Do(Step::CreateContent(Box::new(object(base, &patch))))
}

#[test]
#[expect(clippy::too_many_lines, reason = "one table")]
fn a_dynamic_group_gets_its_content() {
    let unclassed = json!({"spec": {"volumeGroupSnapshotClassName": null}});
    let name_key = SnapshotSecret::GroupSnapshotter.keys().0;
    let namespace_key = SnapshotSecret::GroupSnapshotter.keys().1;
    let expression = |operator: &str, values: Value| {
        json!({"spec": {"source": {"selector": {"matchLabels": null, "matchExpressions":
            [{"key": "app", "operator": operator, "values": values}]}}}})
    };
    let not_selected = json!({"metadata": {"labels": {"app": "web"}}, "status": {"phase": "Pending"}});
    let cases = [
        (
            "all there, in the order of names",
            World::new(json!({})),
            made(json!({})),
        ),
        (
            "finalizer first",
            World::new(json!({"metadata": {"finalizers": null}})),
            Next::Do(Step::AddFinalizer),
        ),
        (
            "then the claims",
            World::new(json!({})).second(&json!({"metadata": {"finalizers": null}}), Some(&json!({}))),
            Next::Do(Step::HoldClaims(vec!["c2".into()])),
        ),
        (
            "expressions select, too",
            World::new(expression("In", json!(["db", "x"]))),
            made(json!({})),
        ),
        (
            "what is not selected doesn't matter",
            World::new(json!({})).second(&not_selected, None),
            made(json!({"spec": {"source": {"volumeHandles": ["h1"]}}})),
        ),
        (
            "nothing is selected",
            World::new(json!({"spec": {"source": {"selector": {"matchLabels": {"app": "x"}}}}})),
            Next::Fail(Why::NoClaims),
        ),
        (
            "policy of the class",
            World::new(json!({})).class(Some(json!({"deletionPolicy": "Retain"}))),
            made(json!({"spec": {"deletionPolicy": "Retain"}})),
        ),
        (
            "secret of the class, for deletion",
            World::new(json!({})).class(Some(json!({"parameters": {
                name_key: "${volumegroupsnapshot.name}", namespace_key: "vault"}}))),
            made(json!({"metadata": {"annotations": {
                keys::GROUP_SNAPSHOT_DELETION_SECRET_NAME: "g",
                keys::GROUP_SNAPSHOT_DELETION_SECRET_NAMESPACE: "vault"}}})),
        ),
        (
            "half a secret",
            World::new(json!({})).class(Some(json!({"parameters": {name_key: "x"}}))),
            Next::Fail(Why::Secret(TemplateError::Incomplete {
                name_key: name_key.into(),
                namespace_key: namespace_key.into(),
            })),
        ),
        (
            "default class",
            World::new(unclassed.clone()).defaults(&["x"]),
            Next::Do(Step::AssignClass("x".into())),
        ),
        (
            "no default class",
            World::new(unclassed.clone()).defaults(&[]),
            Next::Fail(Why::NoDefaultClass("d".into())),
        ),
        (
            "several default classes",
            World::new(unclassed).defaults(&["y", "x"]),
            Next::Fail(Why::SeveralDefaultClasses {
                driver: "d".into(),
                classes: vec!["x".into(), "y".into()],
            }),
        ),
        (
            "class missing",
            World::new(json!({})).class(None),
            Next::Fail(Why::NoClass("groups".into())),
        ),
        (
            "class of another driver",
            World::new(json!({})).class(Some(json!({"driver": "other"}))),
            Next::Fail(Why::ForeignClass {
                class: "groups".into(),
                class_driver: "other".into(),
                claim: "c1".into(),
                volume_driver: "d".into(),
            }),
        ),
        (
            "one volume of another driver",
            World::new(json!({})).second(&json!({}), Some(&json!({"spec": {"csi": {"driver": "other"}}}))),
            Next::Fail(Why::ForeignClass {
                class: "groups".into(),
                class_driver: "d".into(),
                claim: "c2".into(),
                volume_driver: "other".into(),
            }),
        ),
        (
            "one claim is not bound: no group without it",
            World::new(json!({})).second(&json!({"status": {"phase": "Pending"}}), None),
            Next::Fail(Why::Claim(SnapshotWhy::ClaimNotBound("c2".into()))),
        ),
        (
            "one claim goes",
            World::new(json!({})).second(
                &json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}}),
                Some(&json!({})),
            ),
            Next::Fail(Why::Claim(SnapshotWhy::ClaimDeleting("c2".into()))),
        ),
        (
            "one volume is not there",
            World::new(json!({})).second(&json!({}), None),
            Next::Fail(Why::Claim(SnapshotWhy::VolumeMisbound("c2".into()))),
        ),
        (
            "one volume is not a CSI volume",
            World::new(json!({})).second(&json!({}), Some(&json!({"spec": {"csi": null}}))),
            Next::Fail(Why::Claim(SnapshotWhy::NotCsi("pv2".into()))),
        ),
        (
            "neither source",
            World::new(json!({"spec": {"source": {"selector": null}}})),
            Next::Fail(Why::Source),
        ),
        (
            "both sources",
            World::new(json!({"spec": {"source": {"volumeGroupSnapshotContentName": "k"}}})),
            Next::Fail(Why::Source),
        ),
        (
            "bound before, and the content is gone",
            World::new(json!({"status": {"boundVolumeGroupSnapshotContentName": CONTENT}})),
            Next::Fail(Why::ContentMissing(CONTENT.into())),
        ),
        (
            "the content is pre-provisioned",
            World::new(json!({})).static_content(&json!({})),
            Next::Fail(Why::ContentIsStatic(CONTENT.into())),
        ),
        (
            "the content is another's",
            World::new(json!({})).content(&json!({"spec": {"volumeGroupSnapshotRef": {"uid": "x"}}})),
            Next::Fail(Why::ContentMisbound {
                content: CONTENT.into(),
                namespace: "ns".into(),
                name: "g".into(),
            }),
        ),
    ];
    for (name, world, expected) in cases {
        assert_eq!(world.decide(), expected, "{name}");
    }
    let malformed = World::new(expression("Nearly", json!([]))).decide();
    assert!(matches!(malformed, Next::Fail(Why::Selector(_))), "{malformed:?}");
}

fn status(patch: &Value, news: &[News]) -> Next {
    let base = json!({"boundVolumeGroupSnapshotContentName": CONTENT, "readyToUse": false});
    let status = serde_json::from_value(merged(base, patch)).unwrap();
    Next::Do(Step::WriteStatus(Box::new(status), news.to_vec()))
}

fn steps(steps: impl IntoIterator<Item = MemberStep>) -> Next {
    Next::Do(Step::Members(steps.into_iter().collect()))
}

fn write_status(number: u32, is_ready: bool) -> MemberStep {
    let name = member_name("gu", &format!("h{number}"));
    MemberStep::WriteStatus {
        content: content_name_of_member(&name).unwrap(),
        status: Box::new(serde_json::from_value(member_status_json(number, is_ready)).unwrap()),
    }
}

#[test]
#[expect(clippy::too_many_lines, reason = "one table")]
fn members_get_their_objects_before_the_group_is_ready() {
    let snapshot = |number| MemberStep::CreateSnapshot(Box::new(object(member_json(number), &json!({}))));
    let content =
        |number, patch| MemberStep::CreateContent(Box::new(object(member_content_json(number), &patch)));
    let said = |number, is_ready| json!({"status": member_status_json(number, is_ready)});
    let whole = |is_ready| [1, 2].map(|number| (Some(json!({})), Some(said(number, is_ready))));
    let created = json!({"creationTime": "2026-01-01T00:00:00Z"});
    let own_name = |number: u32| content_name_of_member(&member_name("gu", &format!("h{number}"))).unwrap();
    let secret = json!({"metadata": {"annotations": {
        keys::GROUP_SNAPSHOT_DELETION_SECRET_NAME: "n", keys::GROUP_SNAPSHOT_DELETION_SECRET_NAMESPACE: "v"}}});
    let own_secret = json!({"metadata": {"annotations": {
        keys::SNAPSHOT_DELETION_SECRET_NAME: "n", keys::SNAPSHOT_DELETION_SECRET_NAMESPACE: "v"}}});
    let label = json!({"metadata": {"labels": {keys::SNAPSHOT_MANAGED_BY: "n1"}}});
    let failed = json!({"status": {"error": {"message": "x"}, "readyToUse": false}});
    let cases = [
        (
            "begun",
            World::new(json!({})).content(&json!({})),
            status(&json!({}), &[]),
        ),
        (
            "the driver's trouble",
            World::new(json!({})).content(&failed),
            status(&json!({"error": {"message": "x"}}), &[]),
        ),
        (
            "snapshots, all at once",
            World::new(json!({})).content(&cut(true)),
            steps([snapshot(1), snapshot(2)]),
        ),
        (
            "each as far as it is",
            World::new(json!({}))
                .content(&cut(true))
                .members([(Some(json!({})), None), (None, None)]),
            steps([content(1, json!({})), snapshot(2)]),
        ),
        (
            "the group's secret is the members'",
            World::new(json!({}))
                .content(&merged(cut(true), &secret))
                .members([(Some(json!({})), None), (Some(json!({})), Some(said(2, true)))]),
            steps([content(1, own_secret)]),
        ),
        (
            "and its node",
            World::new(json!({}))
                .content(&merged(cut(true), &label))
                .members([(Some(json!({})), None), (Some(json!({})), Some(said(2, true)))]),
            steps([content(1, label)]),
        ),
        (
            "another controller made a content without UID",
            World::new(json!({})).content(&cut(true)).members([
                (
                    Some(json!({})),
                    Some(json!({"spec": {"volumeSnapshotRef": {"uid": null}}})),
                ),
                (Some(json!({})), Some(said(2, true))),
            ]),
            steps([MemberStep::Bind {
                content: own_name(1),
                uid: member_uid(1),
            }]),
        ),
        (
            "a content is another's",
            World::new(json!({})).content(&cut(true)).members([
                (
                    Some(json!({})),
                    Some(json!({"spec": {"volumeSnapshotRef": {"uid": "x"}}})),
                ),
                (None, None),
            ]),
            Next::Fail(Why::MemberMisbound(own_name(1))),
        ),
        (
            "what the driver said of each",
            World::new(json!({}))
                .content(&cut(false))
                .members([1, 2].map(|_| (Some(json!({})), Some(json!({}))))),
            steps([write_status(1, false), write_status(2, false)]),
        ),
        (
            "cut",
            World::new(json!({})).content(&cut(false)).members(whole(false)),
            status(&created, &[News::Created]),
        ),
        (
            "a member has become ready",
            World::new(json!({})).content(&cut(true)).members(whole(false)),
            steps([write_status(1, true), write_status(2, true)]),
        ),
        (
            "a member that was found ready stays so",
            World::new(
                json!({"status": {"boundVolumeGroupSnapshotContentName": CONTENT, "readyToUse": false,
                "creationTime": "2026-01-01T00:00:00Z"}}),
            )
            .content(&cut(false))
            .members(whole(true)),
            Next::Settled,
        ),
        (
            "ready",
            World::new(json!({})).content(&cut(true)).members(whole(true)),
            status(
                &merged(created, &json!({"readyToUse": true})),
                &[News::Created, News::Ready],
            ),
        ),
        (
            "the class may have gone since",
            World::new(json!({}))
                .class(None)
                .content(&cut(true))
                .members(whole(true)),
            status(
                &json!({"readyToUse": true, "creationTime": "2026-01-01T00:00:00Z"}),
                &[News::Created, News::Ready],
            ),
        ),
    ];
    for (name, world, expected) in cases {
        assert_eq!(world.decide(), expected, "{name}");
    }
}

#[test]
fn a_ready_group_is_checked() {
    let ready = || {
        World::new(json!({"status": {"boundVolumeGroupSnapshotContentName": CONTENT, "readyToUse": true}}))
    };
    let foreign = json!({"spec": {"volumeGroupSnapshotRef": {"uid": "x"}}});
    let cases = [
        ("as it should be", ready().content(&cut(true)), Next::Settled),
        (
            "without finalizer",
            ready().content(&cut(true)).unprotected(),
            Next::Do(Step::AddFinalizer),
        ),
        (
            "content gone",
            ready(),
            Next::Fail(Why::ContentMissing(CONTENT.into())),
        ),
        (
            "content another's",
            ready().content(&foreign),
            Next::Fail(Why::Misbound(CONTENT.into())),
        ),
    ];
    for (name, world, expected) in cases {
        assert_eq!(world.decide(), expected, "{name}");
    }
}

#[test]
fn a_static_group_binds_to_the_content_that_it_names() {
    let wish = |patch: &Value| {
        let base = json!({"spec": {"source": {"selector": null, "volumeGroupSnapshotContentName": CONTENT},
            "volumeGroupSnapshotClassName": null}});
        World::new(merged(base, patch)).class(None)
    };
    let reserved = json!({"spec": {"volumeGroupSnapshotRef": {"uid": null}}});
    let cases = [
        (
            "content missing: no finalizer for nothing",
            wish(&json!({})).unprotected(),
            Next::Fail(Why::ContentMissing(CONTENT.into())),
        ),
        (
            "reserved: finalizer first",
            wish(&json!({})).static_content(&reserved).unprotected(),
            Next::Do(Step::AddFinalizer),
        ),
        (
            "reserved",
            wish(&json!({})).static_content(&reserved),
            Next::Do(Step::BindContent),
        ),
        (
            "the content is a dynamic one",
            wish(&json!({})).content(&json!({})),
            Next::Fail(Why::ContentIsDynamic(CONTENT.into())),
        ),
        (
            "for another of the name",
            wish(&json!({})).static_content(&json!({"spec": {"volumeGroupSnapshotRef": {"uid": "x"}}})),
            Next::Fail(Why::ContentMisbound {
                content: CONTENT.into(),
                namespace: "ns".into(),
                name: "g".into(),
            }),
        ),
        (
            "found",
            wish(&json!({})).static_content(&json!({"status": {"volumeGroupSnapshotHandle": "g1",
                "readyToUse": true, "creationTime": "2026-01-01T00:00:00Z"}})),
            status(
                &json!({"readyToUse": true, "creationTime": "2026-01-01T00:00:00Z"}),
                &[News::Created, News::Ready],
            ),
        ),
        (
            "the class that is named is missing",
            wish(&json!({"spec": {"volumeGroupSnapshotClassName": "x"}})).static_content(&reserved),
            Next::Fail(Why::NoClass("x".into())),
        ),
    ];
    for (name, world, expected) in cases {
        assert_eq!(world.decide(), expected, "{name}");
    }
}

#[test]
fn a_group_is_deleted_in_order() {
    let marked = json!({"metadata": {"annotations": {keys::GROUP_SNAPSHOT_BEING_DELETED: "yes"}}});
    let gone = json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}});
    let going = merged(marked.clone(), &gone);
    let keep = json!({"spec": {"deletionPolicy": "Retain"}});
    let living = || [(Some(json!({})), None), (Some(gone.clone()), None)];
    let dead = || [1, 2].map(|_| (Some(gone.clone()), None));
    let first = member_name("gu", "h1");
    let free =
        World::new(json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z", "finalizers": null}}));
    let cases = [
        (
            "a member is being restored",
            World::going().content(&json!({})).restoring(),
            Next::Fail(Why::Restoring("x".into())),
        ),
        (
            "mark",
            World::going().content(&json!({})).members(living()),
            Next::Do(Step::MarkContentDeleted),
        ),
        (
            "content",
            World::going().content(&marked).members(living()),
            Next::Do(Step::DeleteContent),
        ),
        (
            "members",
            World::going().content(&going).members(living()),
            Next::Do(Step::DeleteMembers(vec![first.clone()])),
        ),
        (
            "the driver is waited for",
            World::going().content(&going).members(dead()),
            Next::Settled,
        ),
        (
            "nothing left",
            World::going().members(dead()),
            Next::Do(Step::RemoveFinalizer),
        ),
        (
            "policy Retain: the mark",
            World::going().content(&keep),
            Next::Do(Step::MarkContentDeleted),
        ),
        (
            "policy Retain: members all the same",
            World::going()
                .content(&merged(marked.clone(), &keep))
                .members(living()),
            Next::Do(Step::DeleteMembers(vec![first])),
        ),
        (
            "policy Retain: the content stays",
            World::going().content(&merged(marked, &keep)).members(dead()),
            Next::Do(Step::RemoveFinalizer),
        ),
        (
            "another's content",
            World::going().content(&json!({"spec": {"volumeGroupSnapshotRef": {"uid": "x"}}})),
            Next::Do(Step::RemoveFinalizer),
        ),
        ("nothing is ours", free, Next::Settled),
    ];
    for (name, world, expected) in cases {
        assert_eq!(world.decide(), expected, "{name}");
    }
}

#[test]
fn contents_are_protected_and_marked() {
    let unprotected = json!({"metadata": {"finalizers": null}});
    let group = object(group_json(&json!({})), &json!({}));
    let going = object(
        group_json(&json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}})),
        &json!({}),
    );
    let cases = [
        ("settled", json!({}), Some(&group), ContentNext::Settled),
        (
            "unprotected",
            unprotected,
            Some(&group),
            ContentNext::AddFinalizer,
        ),
        (
            "its group goes",
            json!({}),
            Some(&going),
            ContentNext::MarkBeingDeleted,
        ),
        ("its group is not there", json!({}), None, ContentNext::Settled),
        (
            "no volumes",
            json!({"spec": {"source": {"volumeHandles": []}}}),
            None,
            ContentNext::Refuse,
        ),
    ];
    for (name, patch, group, expected) in cases {
        let content = object(content_json(&patch), &json!({}));
        assert_eq!(decide_group_content(&content, group), expected, "{name}");
    }
}

#[test]
fn claims_are_held_while_groups_are_cut() {
    let claim: PersistentVolumeClaim = object(claim_json(1, &json!({})), &json!({}));
    let other: PersistentVolumeClaim = object(
        claim_json(1, &json!({"metadata": {"labels": {"app": "web"}}})),
        &json!({}),
    );
    let pv: PersistentVolume = object(pv_json(1, &json!({})), &json!({}));
    let left_out = json!({"spec": {"source": {"volumeHandles": ["h2"]}}});
    let going = json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}});
    let marked = json!({"metadata": {"annotations": {keys::GROUP_SNAPSHOT_BEING_CREATED: "yes"}}});
    let refused = json!({"status": {"error": {"message": "x"}}});
    let cases = [
        ("about to begin", &claim, json!({}), None, Hold::Held),
        ("not selected", &other, json!({}), None, Hold::Free),
        (
            "given up before it began",
            &claim,
            going.clone(),
            None,
            Hold::Free,
        ),
        ("begun", &claim, json!({}), Some(json!({})), Hold::Held),
        (
            "begun, and the label is gone since",
            &other,
            json!({}),
            Some(json!({})),
            Hold::Held,
        ),
        (
            "begun, and the label came since",
            &claim,
            json!({}),
            Some(left_out),
            Hold::Free,
        ),
        (
            "the answer is missing",
            &claim,
            going.clone(),
            Some(marked),
            Hold::Held,
        ),
        ("given up", &claim, going, Some(json!({})), Hold::Free),
        ("refused", &claim, json!({}), Some(refused), Hold::Free),
        ("cut", &claim, json!({}), Some(cut(false)), Hold::Held),
        ("ready", &claim, json!({}), Some(cut(true)), Hold::Free),
        (
            "lost its content",
            &claim,
            json!({"status": {"boundVolumeGroupSnapshotContentName": "k"}}),
            None,
            Hold::Free,
        ),
    ];
    for (name, claim, group, content, expected) in cases {
        let group = object(group_json(&group), &json!({}));
        let content = content.map(|patch| object(content_json(&patch), &json!({})));
        assert_eq!(
            hold(&group, content.as_ref(), claim, Some(&pv)),
            expected,
            "{name}"
        );
    }
}

#[test]
fn each_trouble_has_upstreams_reason() {
    let name = || "x".to_string();
    let cases = [
        (Why::Source, "GroupSnapshotValidationError"),
        (Why::NoClass(name()), "GetGroupSnapshotClassFailed"),
        (Why::NoDefaultClass(name()), "SetDefaultGroupSnapshotClassFailed"),
        (Why::ContentMissing(name()), "GroupSnapshotContentMissing"),
        (Why::Misbound(name()), "GroupSnapshotMisbound"),
        (Why::ContentIsStatic(name()), "GroupSnapshotContentMismatch"),
        (Why::ContentIsDynamic(name()), "GroupSnapshotContentMismatch"),
        (Why::NoClaims, "GroupSnapshotContentCreationFailed"),
        (Why::MemberMisbound(name()), "GroupSnapshotBindFailed"),
        (Why::Restoring(name()), "SnapshotDeletePending"),
        (
            Why::ContentMisbound {
                content: name(),
                namespace: name(),
                name: name(),
            },
            "GroupSnapshotContentMisbound",
        ),
    ];
    for (why, reason) in cases {
        assert_eq!(why.reason(), reason, "{why}");
        assert_eq!(why.is_in_status(), !matches!(why, Why::Restoring(_)));
    }
}

mod stories;
