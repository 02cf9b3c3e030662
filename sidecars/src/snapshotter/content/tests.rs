//! The table of decisions about contents.

use k8s_openapi::api::core::v1::SecretReference;
use moorline_model::secret_template::TemplateError;
use serde_json::{Value, json};

use super::*;
use crate::testing::{DRIVER, driver, merged, object};

fn base() -> Value {
    json!({
        "metadata": {"name": "k1", "uid": "ku", "creationTimestamp": "2027-01-15T08:00:00Z",
            "finalizers": ["snapshot.storage.kubernetes.io/volumesnapshotcontent-bound-protection"]},
        "spec": {
            "volumeSnapshotRef": {"namespace": "ns", "name": "s", "uid": "su"},
            "deletionPolicy": "Delete", "driver": DRIVER, "volumeSnapshotClassName": "snap",
            "source": {"volumeHandle": "vol-1"},
        },
    })
}

fn class(patch: Value) -> VolumeSnapshotClass {
    let base = json!({"metadata": {"name": "snap"}, "driver": DRIVER, "deletionPolicy": "Delete",
        "parameters": {"tier": "cold"}});
    object(merged(base, patch))
}

/// The content with `patch` applied, with the class and a driver that can all.
fn decided(patch: Value) -> Next {
    decided_with(patch, Some(class(json!({}))), true)
}

fn decided_with(patch: Value, class: Option<VolumeSnapshotClass>, can_list: bool) -> Next {
    let content: VolumeSnapshotContent = object(merged(base(), patch));
    let mut capabilities = vec![ControllerCapability::CreateDeleteSnapshot];
    if can_list {
        capabilities.push(ControllerCapability::ListSnapshots);
    }
    let (driver, config) = (driver(&capabilities), SnapshotterConfig::new("/csi.sock"));
    decide(&Seen {
        content: &content,
        class: class.as_ref(),
        driver: &driver,
        config: &config,
    })
}

fn creation() -> Next {
    Next::Create(Box::new(Call {
        request: CreateSnapshotRequest {
            source_volume_id: "vol-1".into(),
            name: "snapshot-su".into(),
            secrets: HashMap::new(),
            parameters: HashMap::from([("tier".to_string(), "cold".to_string())]),
        },
        secret: None,
    }))
}

fn look_at(handle: &str) -> Next {
    Next::Look(Box::new(Call {
        request: ListSnapshotsRequest {
            snapshot_id: handle.into(),
            ..Default::default()
        },
        secret: None,
    }))
}

fn deletion(secret: Option<(&str, &str)>) -> Next {
    Next::Delete(Box::new(Call {
        request: DeleteSnapshotRequest {
            snapshot_id: "snap-1".into(),
            secrets: HashMap::new(),
        },
        secret: secret.map(|(namespace, name)| SecretReference {
            name: Some(name.into()),
            namespace: Some(namespace.into()),
        }),
    }))
}

fn marked(more: Value) -> Value {
    merged(
        json!({"metadata": {"annotations": {keys::SNAPSHOT_BEING_CREATED: "yes"}}}),
        more,
    )
}

/// Being deleted by the snapshot's deletion.
fn going(more: Value) -> Value {
    let base = json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z",
        "annotations": {keys::SNAPSHOT_BEING_DELETED: "yes"}}});
    merged(base, more)
}

#[test]
fn creation_of_dynamic_snapshots() {
    let made = |ready: bool| json!({"status": {"snapshotHandle": "snap-1", "readyToUse": ready}});
    let cases = [
        ("new: marked first", json!({}), Next::MarkBeingCreated),
        ("marked", marked(json!({})), creation()),
        (
            "marked, failed before",
            marked(json!({"status": {"error": {"message": "x"}, "readyToUse": false}})),
            creation(),
        ),
        (
            "refused for good before: from the start",
            json!({"status": {"error": {"message": "x"}, "readyToUse": false}}),
            Next::MarkBeingCreated,
        ),
        (
            "there, not ready: asked again, no mark needed",
            made(false),
            creation(),
        ),
        ("ready", made(true), Next::Settled),
        (
            "ready, killed before the mark was taken",
            marked(made(true)),
            Next::Unmark,
        ),
        (
            "another driver's",
            json!({"spec": {"driver": "other"}}),
            Next::Settled,
        ),
        (
            "neither source",
            json!({"spec": {"source": {"volumeHandle": null}}}),
            Next::Settled,
        ),
        (
            "both sources",
            json!({"spec": {"source": {"snapshotHandle": "x"}}}),
            Next::Settled,
        ),
        (
            "no class named",
            json!({"spec": {"volumeSnapshotClassName": null}}),
            Next::Refuse(Refusal::NoClassNamed),
        ),
        (
            "member of a group, its group not answered yet",
            json!({"metadata": {"annotations": {keys::GROUP_SNAPSHOT_HANDLE: "g"}}}),
            Next::Settled,
        ),
        (
            "member of a group",
            json!({"metadata": {"annotations": {keys::GROUP_SNAPSHOT_HANDLE: "g"}},
                "status": {"snapshotHandle": "snap-1"}}),
            look_at("snap-1"),
        ),
    ];
    for (name, patch, expected) in cases {
        assert_eq!(decided(patch), expected, "{name}");
    }
    let member = json!({"metadata": {"annotations": {keys::GROUP_SNAPSHOT_HANDLE: "g"}},
        "status": {"snapshotHandle": "snap-1"}});
    let next = decided_with(member, Some(class(json!({}))), false);
    assert_eq!(next, Next::Settled, "the group's answer says how its members are");
}

#[test]
fn classes_decide_what_is_asked() {
    let secret_keys = SnapshotSecret::Snapshotter.keys();
    let cases = [
        (
            "class missing",
            None,
            Next::Refuse(Refusal::NoClass("snap".into())),
        ),
        (
            "class of another driver",
            Some(class(json!({"driver": "other"}))),
            Next::Settled,
        ),
        (
            "unknown reserved parameter",
            Some(class(json!({"parameters": {"csi.storage.k8s.io/odd": "1"}}))),
            Next::Refuse(Refusal::Parameter("csi.storage.k8s.io/odd".into())),
        ),
        (
            "half a secret",
            Some(class(json!({"parameters": {secret_keys.0: "s"}}))),
            Next::Refuse(Refusal::Secret(TemplateError::Incomplete {
                name_key: secret_keys.0.into(),
                namespace_key: secret_keys.1.into(),
            })),
        ),
    ];
    for (name, class, expected) in cases {
        assert_eq!(decided_with(json!({}), class, true), expected, "{name}");
    }
    let with_secret = class(
        json!({"parameters": {secret_keys.0: "${volumesnapshot.name}", secret_keys.1: "${volumesnapshot.namespace}"}}),
    );
    let Next::Create(call) = decided_with(marked(json!({})), Some(with_secret), true) else {
        panic!("not a creation");
    };
    let secret = call.secret.unwrap();
    assert_eq!(
        (secret.namespace.as_deref(), secret.name.as_deref()),
        (Some("ns"), Some("s"))
    );
    assert_eq!(
        call.request.parameters,
        HashMap::from([("tier".to_string(), "cold".to_string())])
    );
}

#[test]
fn names_are_told_where_wanted() {
    let content: VolumeSnapshotContent = object(merged(base(), marked(json!({}))));
    let mut config = SnapshotterConfig::new("/csi.sock");
    config.extra_create_metadata = true;
    let (driver, class) = (
        driver(&[ControllerCapability::CreateDeleteSnapshot]),
        class(json!({"parameters": null})),
    );
    let next = decide(&Seen {
        content: &content,
        class: Some(&class),
        driver: &driver,
        config: &config,
    });
    let Next::Create(call) = next else {
        panic!("{next:?}");
    };
    let expected = [
        (METADATA_SNAPSHOT_NAME, "s"),
        (METADATA_SNAPSHOT_NAMESPACE, "ns"),
        (METADATA_CONTENT_NAME, "k1"),
    ];
    let expected: HashMap<String, String> = expected
        .into_iter()
        .map(|(key, value)| (key.to_string(), value.to_string()))
        .collect();
    assert_eq!(call.request.parameters, expected);
}

#[test]
fn each_node_has_its_own_contents() {
    let cases = [
        ("one for all takes what has no node", None, None, true),
        ("and what has one", None, Some("n1"), true),
        ("a node's own", Some("n1"), Some("n1"), true),
        ("another node's", Some("n1"), Some("n2"), false),
        ("nobody's", Some("n1"), None, false),
    ];
    let (driver, class) = (
        driver(&[ControllerCapability::CreateDeleteSnapshot]),
        class(json!({})),
    );
    for (name, node, label, is_taken) in cases {
        let labels = json!({"metadata": {"labels": {keys::SNAPSHOT_MANAGED_BY: label}}});
        let labels = label.map_or(json!({}), |_| labels);
        let content: VolumeSnapshotContent = object(merged(base(), labels));
        let config = SnapshotterConfig {
            node_name: node.map(String::from),
            ..SnapshotterConfig::new("/csi.sock")
        };
        let next = decide(&Seen {
            content: &content,
            class: Some(&class),
            driver: &driver,
            config: &config,
        });
        let expected = if is_taken {
            Next::MarkBeingCreated
        } else {
            Next::Settled
        };
        assert_eq!(next, expected, "{name}");
    }
}

#[test]
fn static_snapshots() {
    let source = json!({"spec": {"source": {"volumeHandle": null, "snapshotHandle": "snap-9"},
        "volumeSnapshotClassName": null}});
    let with = |more: Value| merged(source.clone(), more);
    assert_eq!(
        decided_with(with(json!({})), None, true),
        look_at("snap-9"),
        "no class needed"
    );
    let assumed = Next::AssumeReady {
        handle: "snap-9".into(),
    };
    assert_eq!(decided_with(with(json!({})), None, false), assumed);
    let ready = with(json!({"status": {"snapshotHandle": "snap-9", "readyToUse": true}}));
    assert_eq!(decided_with(ready, None, true), Next::Settled);
    let list_keys = SnapshotSecret::List.keys();
    let listing = class(json!({"parameters": {list_keys.0: "s", list_keys.1: "n"}}));
    let Next::Look(call) = decided_with(with(json!({})), Some(listing), true) else {
        panic!("not a look");
    };
    assert_eq!(call.secret.and_then(|secret| secret.name).as_deref(), Some("s"));
}

#[test]
#[expect(clippy::too_many_lines, reason = "one flat table")]
fn deletion_of_contents() {
    let made = json!({"status": {"snapshotHandle": "snap-1", "readyToUse": true}});
    let by_hand = |more: Value| {
        merged(
            json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}}),
            more,
        )
    };
    let secret = json!({"metadata": {"annotations": {
        keys::SNAPSHOT_DELETION_SECRET_NAME: "s", keys::SNAPSHOT_DELETION_SECRET_NAMESPACE: "n"}}});
    let static_unbound = json!({"spec": {"volumeSnapshotRef": {"uid": null},
        "source": {"volumeHandle": null, "snapshotHandle": "snap-1"}}});
    let cases = [
        ("with its snapshot", going(made.clone()), deletion(None)),
        (
            "with a secret",
            going(merged(made.clone(), secret)),
            deletion(Some(("n", "s"))),
        ),
        (
            "kept in the backend",
            going(merged(
                made.clone(),
                json!({"spec": {"deletionPolicy": "Retain"}}),
            )),
            Next::Release,
        ),
        ("nothing was made", going(json!({})), Next::Release),
        (
            "by hand, its snapshot lives",
            by_hand(made.clone()),
            Next::Settled,
        ),
        (
            "an answer is still missing: asked for, not given up",
            going(marked(json!({}))),
            creation(),
        ),
        (
            "the answer is there, the mark not yet taken",
            going(marked(made.clone())),
            Next::Unmark,
        ),
        (
            "member of a group: the group deletes it",
            going(merged(
                made.clone(),
                json!({"status": {"volumeGroupSnapshotHandle": "g"}}),
            )),
            Next::Release,
        ),
        (
            "static, never bound",
            merged(static_unbound.clone(), by_hand(json!({}))),
            Next::Release,
        ),
        (
            "static, never bound, looked at",
            merged(static_unbound, by_hand(made.clone())),
            deletion(None),
        ),
        (
            "released before",
            going(json!({"metadata": {"finalizers": ["other"]}})),
            Next::Settled,
        ),
        (
            "half a secret is none",
            going(merged(
                made,
                json!({"metadata": {"annotations": {keys::SNAPSHOT_DELETION_SECRET_NAME: "s"}}}),
            )),
            deletion(None),
        ),
    ];
    for (name, patch, expected) in cases {
        assert_eq!(decided(patch), expected, "{name}");
    }
}
