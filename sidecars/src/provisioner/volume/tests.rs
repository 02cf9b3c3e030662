//! The table of what is done about PVs.

use serde_json::{Value, json};

use super::*;
use crate::testing::{class, driver, pv};

fn next(patch: Value, is_attached: bool) -> Next {
    let pv = pv(patch);
    let class = class(json!({"parameters": {
        "csi.storage.k8s.io/provisioner-secret-name": "${pvc.name}",
        "csi.storage.k8s.io/provisioner-secret-namespace": "sns",
    }}));
    let driver = driver(&[ControllerCapability::CreateDeleteVolume]);
    decide(&Seen {
        pv: Some(&pv),
        class: Some(&class),
        is_attached,
        node: None,
        driver: &driver,
    })
}

fn deletion(secret: Option<(&str, &str)>) -> Next {
    let secret = secret.map(|(namespace, name)| SecretReference {
        name: Some(name.to_string()),
        namespace: Some(namespace.to_string()),
    });
    Next::Delete(Deletion {
        volume_id: "vol-1".into(),
        secret,
    })
}

#[test]
#[expect(clippy::too_many_lines, reason = "one flat table")]
fn volumes_and_what_is_done_about_them() {
    let released = || json!({"phase": "Released"});
    let retain = || json!({"persistentVolumeReclaimPolicy": "Retain"});
    let deleting = || json!("2026-01-01T00:00:00Z");
    let secret = |name: Value, namespace: Value| {
        json!({"status": {"phase": "Released"}, "metadata": {"annotations": {
            keys::DELETION_SECRET_NAME: name, keys::DELETION_SECRET_NAMESPACE: namespace}}})
    };
    let cases = [
        ("in use", json!({}), Next::Settled),
        (
            "in use, without finalizer",
            json!({"metadata": {"finalizers": null}}),
            Next::AddFinalizer,
        ),
        (
            "in use, deleted by a user",
            json!({"metadata": {"deletionTimestamp": deleting()}}),
            Next::Settled,
        ),
        (
            "not bound yet",
            json!({"status": {"phase": "Available"}}),
            Next::Settled,
        ),
        ("retained", json!({"spec": retain()}), Next::RemoveFinalizer),
        (
            "retained, released",
            json!({"spec": retain(), "status": released()}),
            Next::RemoveFinalizer,
        ),
        (
            "retained, free of us",
            json!({"spec": retain(), "metadata": {"finalizers": []}}),
            Next::Settled,
        ),
        (
            "unknown policy",
            json!({"spec": {"persistentVolumeReclaimPolicy": "Burn"}, "status": released()}),
            Next::Settled,
        ),
        ("released", json!({"status": released()}), deletion(None)),
        (
            "released, finalizer missing",
            json!({"status": released(), "metadata": {"finalizers": []}}),
            deletion(None),
        ),
        (
            "released, our part done",
            json!({"status": released(), "metadata": {"finalizers": [], "deletionTimestamp": deleting()}}),
            Next::Settled,
        ),
        (
            "released, deletion interrupted",
            json!({"status": released(), "metadata": {"deletionTimestamp": deleting()}}),
            deletion(None),
        ),
        (
            "failed elsewhere",
            json!({"status": {"phase": "Failed"}}),
            Next::Settled,
        ),
        (
            "another driver's",
            json!({"status": released(), "spec": {"csi": {"driver": "x"}}}),
            Next::Settled,
        ),
        (
            "another provisioner's",
            json!({"status": released(), "metadata": {"annotations": {keys::PROVISIONED_BY: "x"}}}),
            Next::Settled,
        ),
        (
            "static",
            json!({"status": released(), "metadata": {"annotations": {keys::PROVISIONED_BY: null}}}),
            deletion(None),
        ),
        (
            "secret by annotation",
            secret(json!("s"), json!("ns")),
            deletion(Some(("ns", "s"))),
        ),
        (
            "half a secret",
            secret(json!("s"), json!("")),
            Next::Refuse(Refusal::HalfSecret),
        ),
        (
            "secret by class",
            secret(Value::Null, Value::Null),
            deletion(Some(("sns", "data"))),
        ),
    ];
    for (name, patch, expected) in cases {
        assert_eq!(next(patch, false), expected, "{name}");
    }
    let attached = Next::Refuse(Refusal::Attached("pvc-u1".into()));
    assert_eq!(next(json!({"status": {"phase": "Released"}}), true), attached);
}

#[test]
fn gone_and_incapable() {
    let facts = driver(&[]);
    let gone = Seen {
        pv: None,
        class: None,
        is_attached: false,
        node: None,
        driver: &facts,
    };
    assert_eq!(decide(&gone), Next::Settled);
    let released = pv(json!({"status": {"phase": "Released"}}));
    assert_eq!(
        decide(&Seen {
            pv: Some(&released),
            ..gone
        }),
        Next::Refuse(Refusal::Incapable)
    );
}

#[test]
fn each_node_has_its_own_volumes() {
    let released = |zone: Option<&str>| {
        let term = json!([{"matchExpressions": [{"key": "zone", "operator": "In", "values": [zone]}]}]);
        let affinity = zone.map_or(json!(null), |_| json!({"required": {"nodeSelectorTerms": term}}));
        pv(json!({"spec": {"nodeAffinity": affinity}, "status": {"phase": "Released"}}))
    };
    let here = Segments::from([("zone".to_string(), "a".to_string())]);
    let facts = driver(&[ControllerCapability::CreateDeleteVolume]);
    let cases = [
        ("one for all", released(Some("b")), None, true),
        ("here", released(Some("a")), Some(&here), true),
        ("elsewhere", released(Some("b")), Some(&here), false),
        ("anywhere", released(None), Some(&here), true),
    ];
    for (name, held, node, is_deleted) in cases {
        let next = decide(&Seen {
            pv: Some(&held),
            class: None,
            is_attached: false,
            node,
            driver: &facts,
        });
        assert_eq!(matches!(next, Next::Delete(_)), is_deleted, "{name}: {next:?}");
        assert_eq!(next == Next::Settled, !is_deleted, "{name}");
    }
}
