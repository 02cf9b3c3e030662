//! The table of decisions about group contents.

use moorline_model::secret_template::TemplateError;
use serde_json::{Value, json};

use super::*;
use crate::testing::{DRIVER, driver, merged, object};

fn base() -> Value {
    json!({
        "metadata": {"name": "k1", "uid": "ku",
            "finalizers": ["groupsnapshot.storage.kubernetes.io/volumegroupsnapshotcontent-bound-protection"]},
        "spec": {
            "volumeGroupSnapshotRef": {"namespace": "ns", "name": "g", "uid": "gu"},
            "deletionPolicy": "Delete", "driver": DRIVER, "volumeGroupSnapshotClassName": "groups",
            "source": {"volumeHandles": ["vol-1", "vol-2"]},
        },
    })
}

fn existing(more: Value) -> Value {
    let handles = json!({"volumeGroupSnapshotHandle": "g1", "volumeSnapshotHandles": ["s1", "s2"]});
    let source = json!({"volumeHandles": null, "groupSnapshotHandles": handles});
    merged(
        json!({"spec": {"source": source, "volumeGroupSnapshotClassName": null}}),
        more,
    )
}

fn class(patch: Value) -> VolumeGroupSnapshotClass {
    let base = json!({"metadata": {"name": "groups"}, "driver": DRIVER, "deletionPolicy": "Delete",
        "parameters": {"tier": "cold"}});
    object(merged(base, patch))
}

fn decided(patch: Value) -> Next {
    decided_with(
        patch,
        Some(class(json!({}))),
        &SnapshotterConfig::new("/csi.sock"),
    )
}

fn decided_with(patch: Value, class: Option<VolumeGroupSnapshotClass>, config: &SnapshotterConfig) -> Next {
    let content = object(merged(base(), patch));
    decide(&Seen {
        content: &content,
        class: class.as_ref(),
        driver: &driver(&[]),
        config,
    })
}

fn secret(namespace: &str, name: &str) -> Option<SecretReference> {
    Some(SecretReference {
        name: Some(name.into()),
        namespace: Some(namespace.into()),
    })
}

fn creation(more: &[(&str, &str)], secret: Option<SecretReference>) -> Next {
    let parameters = [("tier", "cold")].iter().chain(more);
    let request = CreateVolumeGroupSnapshotRequest {
        name: "groupsnapshot-gu".into(),
        source_volume_ids: vec!["vol-1".into(), "vol-2".into()],
        secrets: HashMap::new(),
        parameters: parameters
            .map(|(key, value)| ((*key).to_string(), (*value).to_string()))
            .collect(),
    };
    Next::Create(Call::boxed(request, secret))
}

fn look_at(secret: Option<SecretReference>) -> Next {
    let request = GetVolumeGroupSnapshotRequest {
        group_snapshot_id: "g1".into(),
        snapshot_ids: vec!["s1".into(), "s2".into()],
        secrets: HashMap::new(),
    };
    Next::Look(Call::boxed(request, secret))
}

fn deletion(secret: Option<SecretReference>) -> Next {
    let request = DeleteVolumeGroupSnapshotRequest {
        group_snapshot_id: "g1".into(),
        snapshot_ids: vec!["s1".into(), "s2".into()],
        secrets: HashMap::new(),
    };
    Next::Delete(Call::boxed(request, secret))
}

fn marked(more: Value) -> Value {
    merged(
        json!({"metadata": {"annotations": {keys::GROUP_SNAPSHOT_BEING_CREATED: "yes"}}}),
        more,
    )
}

/// Being deleted by the group snapshot's deletion.
fn going(more: Value) -> Value {
    let base = json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z",
        "annotations": {keys::GROUP_SNAPSHOT_BEING_DELETED: "yes"}}});
    merged(base, more)
}

fn cut(is_ready: bool) -> Value {
    json!({"status": {"volumeGroupSnapshotHandle": "g1", "readyToUse": is_ready,
        "volumeSnapshotInfoList": [{"volumeHandle": "vol-1", "snapshotHandle": "s1"},
            {"volumeHandle": "vol-2", "snapshotHandle": "s2"}]}})
}

#[test]
fn creation_of_groups() {
    let failed = json!({"status": {"error": {"message": "x"}, "readyToUse": false}});
    let cases = [
        ("new: marked first", json!({}), Next::MarkBeingCreated),
        ("marked", marked(json!({})), creation(&[], None)),
        (
            "marked, failed before",
            marked(failed.clone()),
            creation(&[], None),
        ),
        ("refused for good before", failed, Next::MarkBeingCreated),
        ("there, not ready: asked again", cut(false), creation(&[], None)),
        ("ready", cut(true), Next::Settled),
        (
            "ready, killed before the mark was taken",
            marked(cut(true)),
            Next::Unmark,
        ),
        (
            "another driver's",
            json!({"spec": {"driver": "other"}}),
            Next::Settled,
        ),
        (
            "no volumes",
            json!({"spec": {"source": {"volumeHandles": []}}}),
            Next::Settled,
        ),
        (
            "no class named",
            json!({"spec": {"volumeGroupSnapshotClassName": null}}),
            Next::Refuse(Refusal::NoClassNamed),
        ),
    ];
    for (name, patch, expected) in cases {
        assert_eq!(decided(patch), expected, "{name}");
    }
}

#[test]
fn classes_decide_what_is_asked() {
    let (name_key, namespace_key) = SnapshotSecret::GroupSnapshotter.keys();
    let parameters = |more: Value| class(json!({"parameters": more}));
    let config = SnapshotterConfig::new("/csi.sock");
    let decided_by = |class| decided_with(marked(json!({})), class, &config);
    assert_eq!(decided_by(None), Next::Refuse(Refusal::NoClass("groups".into())));
    assert_eq!(
        decided_by(Some(class(json!({"driver": "other"})))),
        Next::Settled,
        "the class of another driver"
    );
    let strange = "csi.storage.k8s.io/strange";
    assert_eq!(
        decided_by(Some(parameters(json!({strange: "x"})))),
        Next::Refuse(Refusal::Parameter(strange.into()))
    );
    assert_eq!(
        decided_by(Some(parameters(json!({name_key: "x"})))),
        Next::Refuse(Refusal::Secret(TemplateError::Incomplete {
            name_key: name_key.into(),
            namespace_key: namespace_key.into(),
        }))
    );
    let keyed = parameters(json!({
        name_key: "${volumegroupsnapshotcontent.name}", namespace_key: "${volumegroupsnapshot.namespace}"}));
    assert_eq!(decided_by(Some(keyed)), creation(&[], secret("ns", "k1")));
    let config = SnapshotterConfig {
        extra_create_metadata: true,
        ..config
    };
    let told = [
        (METADATA_GROUP_NAME, "g"),
        (METADATA_GROUP_NAMESPACE, "ns"),
        (METADATA_CONTENT_NAME, "k1"),
    ];
    assert_eq!(
        decided_with(marked(json!({})), Some(class(json!({}))), &config),
        creation(&told, None)
    );
}

#[test]
fn nodes_take_their_own_groups() {
    let config = SnapshotterConfig {
        node_name: Some("n1".into()),
        ..SnapshotterConfig::new("/csi.sock")
    };
    let of = |node: &str| json!({"metadata": {"labels": {keys::SNAPSHOT_MANAGED_BY: node}}});
    let class = || Some(class(json!({})));
    assert_eq!(decided_with(of("n1"), class(), &config), Next::MarkBeingCreated);
    assert_eq!(decided_with(of("n2"), class(), &config), Next::Settled);
    assert_eq!(decided_with(json!({}), class(), &config), Next::Settled);
}

#[test]
fn existing_groups_are_looked_at() {
    let (name_key, namespace_key) = SnapshotSecret::GroupGet.keys();
    let keyed = class(json!({"parameters": {name_key: "n", namespace_key: "v"}}));
    let config = SnapshotterConfig::new("/csi.sock");
    let named = existing(json!({"spec": {"volumeGroupSnapshotClassName": "groups"}}));
    assert_eq!(decided_with(existing(json!({})), None, &config), look_at(None));
    assert_eq!(
        decided_with(named.clone(), Some(keyed), &config),
        look_at(secret("v", "n"))
    );
    assert_eq!(
        decided_with(named, None, &config),
        Next::Refuse(Refusal::NoClass("groups".into()))
    );
    let ready = existing(json!({"status": {"volumeGroupSnapshotHandle": "g1", "readyToUse": true}}));
    assert_eq!(decided_with(ready, None, &config), Next::Settled);
}

#[test]
fn deletion_of_groups() {
    let keep = json!({"spec": {"deletionPolicy": "Retain"}});
    let unbound = json!({"spec": {"volumeGroupSnapshotRef": {"uid": ""}}});
    let by_hand = json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}});
    let handled = json!({"status": {"volumeGroupSnapshotHandle": "g1"}});
    let with_secret = json!({"metadata": {"annotations": {
        keys::GROUP_SNAPSHOT_DELETION_SECRET_NAME: "n", keys::GROUP_SNAPSHOT_DELETION_SECRET_NAMESPACE: "v"}}});
    let no_members = json!({"spec": {"source": {"groupSnapshotHandles": {"volumeSnapshotHandles": []}}}});
    let cases = [
        ("with its group snapshot", going(cut(true)), deletion(None)),
        (
            "with a secret",
            going(merged(cut(true), with_secret)),
            deletion(secret("v", "n")),
        ),
        (
            "one that existed before",
            existing(going(handled.clone())),
            deletion(None),
        ),
        (
            "that names no snapshots",
            existing(going(merged(handled, no_members))),
            Next::Refuse(Refusal::NoMembers),
        ),
        ("policy Retain", going(merged(cut(true), keep)), Next::Release),
        ("never made", going(json!({})), Next::Release),
        (
            "by hand, its group snapshot lives",
            merged(by_hand.clone(), cut(true)),
            Next::Settled,
        ),
        (
            "by hand, one that existed before and was never bound",
            merged(existing(by_hand), unbound),
            Next::Release,
        ),
        (
            "the driver's answer is missing",
            going(marked(json!({}))),
            creation(&[], None),
        ),
        ("the answer has come", going(marked(cut(false))), Next::Unmark),
        (
            "done",
            going(merged(cut(true), json!({"metadata": {"finalizers": []}}))),
            Next::Settled,
        ),
    ];
    for (name, patch, expected) in cases {
        assert_eq!(decided(patch), expected, "{name}");
    }
}
