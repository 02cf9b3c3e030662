//! Persistent volumes.

use serde_json::{Value, json};

use super::{creates, updates};
use crate::registry::Gvk;

fn gvk() -> Gvk<'static> {
    Gvk::new("v1", "PersistentVolume")
}

fn sound() -> Value {
    json!({"metadata": {"name": "v"}, "spec": {
        "capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"], "storageClassName": "fast",
        "csi": {"driver": "d.example.com", "volumeHandle": "h"},
        "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [
            {"key": "failure-domain.beta.kubernetes.io/zone", "operator": "In", "values": ["a"]},
        ]}]}},
    }})
}

#[test]
#[expect(clippy::too_many_lines, reason = "one flat table")]
fn a_new_volume_is_checked() {
    creates(
        gvk(),
        &sound(),
        vec![
            (
                "no modes",
                vec![("/spec/accessModes", json!([]))],
                vec!["spec.accessModes: Required value"],
            ),
            (
                "single pod and more",
                vec![("/spec/accessModes", json!(["ReadWriteOncePod", "ReadOnlyMany"]))],
                vec!["spec.accessModes: Forbidden: may not use ReadWriteOncePod with other access modes"],
            ),
            (
                "single pod alone",
                vec![("/spec/accessModes", json!(["ReadWriteOncePod"]))],
                vec![],
            ),
            (
                "no capacity",
                vec![("/spec/capacity", Value::Null)],
                vec![
                    "spec.capacity: Required value",
                    r#"spec.capacity: Unsupported value: null: supported values: "storage""#,
                ],
            ),
            (
                "other capacity",
                vec![("/spec/capacity", json!({"cpu": "1"}))],
                vec![r#"spec.capacity: Unsupported value: {"cpu":"1"}: supported values: "storage""#],
            ),
            (
                "empty",
                vec![("/spec/capacity/storage", json!("0"))],
                vec![r#"spec.capacity[storage]: Invalid value: "0": must be greater than zero"#],
            ),
            (
                "policy",
                vec![("/spec/persistentVolumeReclaimPolicy", json!("Keep"))],
                vec![
                    r#"spec.persistentVolumeReclaimPolicy: Unsupported value: "Keep": supported values: "Delete", "Recycle", "Retain""#,
                ],
            ),
            (
                "no source",
                vec![("/spec/csi", Value::Null)],
                vec!["spec: Required value: must specify a volume type"],
            ),
            (
                "two sources",
                vec![("/spec/hostPath", json!({"path": "/x"}))],
                vec!["spec.csi: Forbidden: may not specify more than 1 volume type"],
            ),
            (
                "no driver",
                vec![("/spec/csi/driver", json!(""))],
                vec!["spec.csi.driver: Required value"],
            ),
            (
                "driver in capitals",
                vec![("/spec/csi/driver", json!("Driver.Example.com"))],
                vec![],
            ),
            (
                "long driver",
                vec![("/spec/csi/driver", json!("d".repeat(64)))],
                vec!["spec.csi.driver: Too long: may not be more than 63 bytes"],
            ),
            (
                "no handle",
                vec![("/spec/csi/volumeHandle", json!(""))],
                vec!["spec.csi.volumeHandle: Required value"],
            ),
            (
                "secret",
                vec![("/spec/csi/nodePublishSecretRef", json!({"name": "s"}))],
                vec!["spec.csi.nodePublishSecretRef.namespace: Required value"],
            ),
            (
                "affinity",
                vec![("/spec/nodeAffinity", json!({}))],
                vec!["spec.nodeAffinity.required: Required value: must specify required node constraints"],
            ),
            (
                "no terms",
                vec![("/spec/nodeAffinity/required/nodeSelectorTerms", json!([]))],
                vec![
                    "spec.nodeAffinity.required.nodeSelectorTerms: Required value: must have at least one node selector term",
                ],
            ),
            (
                "operator",
                vec![(
                    "/spec/nodeAffinity/required/nodeSelectorTerms/0/matchExpressions/0/operator",
                    json!("Like"),
                )],
                vec![
                    r#"spec.nodeAffinity.required.nodeSelectorTerms[0].matchExpressions[0].operator: Invalid value: "Like": not a valid selector operator"#,
                ],
            ),
            (
                "mode",
                vec![("/spec/volumeMode", json!("Tape"))],
                vec![
                    r#"spec.volumeMode: Unsupported value: "Tape": supported values: "Block", "Filesystem""#,
                ],
            ),
            (
                "empty attributes class",
                vec![("/spec/volumeAttributesClassName", json!(""))],
                vec!["spec.volumeAttributesClassName: Required value: an empty string is disallowed"],
            ),
        ],
    );
}

#[test]
fn paths_of_a_new_volume_are_checked() {
    let with = |source: Value| {
        let mut volume = sound();
        volume["spec"].as_object_mut().unwrap().remove("csi");
        volume["spec"]
            .as_object_mut()
            .unwrap()
            .extend(source.as_object().unwrap().clone());
        volume
    };
    creates(
        gvk(),
        &with(json!({"local": {"path": "/x"}})),
        vec![
            (
                "local anywhere",
                vec![("/spec/nodeAffinity", Value::Null)],
                vec!["spec.nodeAffinity: Required value: Local volume requires node affinity"],
            ),
            (
                "no path",
                vec![("/spec/local/path", json!(""))],
                vec!["spec.local.path: Required value"],
            ),
        ],
    );
    creates(
        gvk(),
        &with(json!({"hostPath": {"path": "/x"}})),
        vec![
            (
                "upwards",
                vec![("/spec/hostPath/path", json!("/x/../y"))],
                vec![r#"spec.hostPath.path: Invalid value: "/x/../y": must not contain '..'"#],
            ),
            (
                "type",
                vec![("/spec/hostPath/type", json!("Cloud"))],
                vec![
                    r#"spec.hostPath.type: Unsupported value: "Cloud": supported values: "", "BlockDevice", "CharDevice", "Directory", "DirectoryOrCreate", "File", "FileOrCreate", "Socket""#,
                ],
            ),
            (
                "recycled root",
                vec![
                    ("/spec/hostPath/path", json!("/")),
                    ("/spec/persistentVolumeReclaimPolicy", json!("Recycle")),
                ],
                vec![
                    "spec.persistentVolumeReclaimPolicy: Forbidden: may not be 'recycle' for a hostPath mount of '/'",
                ],
            ),
            (
                "attributes",
                vec![("/spec/volumeAttributesClassName", json!("gold"))],
                vec!["spec.csi: Required value: has to be specified when using volumeAttributesClassName"],
            ),
        ],
    );
}

#[test]
#[expect(clippy::too_many_lines, reason = "one flat table")]
fn only_some_of_a_volume_may_change() {
    const SOURCE: &str =
        "spec.persistentvolumesource: Forbidden: spec.persistentvolumesource is immutable after creation";
    let key = "/spec/nodeAffinity/required/nodeSelectorTerms/0/matchExpressions/0/key";
    let secret = json!({"name": "s", "namespace": "n"});
    updates(
        gvk(),
        &sound(),
        vec![
            ("grows", vec![("/spec/capacity/storage", json!("2Gi"))], vec![]),
            (
                "modes",
                vec![("/spec/accessModes", json!(["ReadWriteMany"]))],
                vec![],
            ),
            (
                "policy",
                vec![("/spec/persistentVolumeReclaimPolicy", json!("Delete"))],
                vec![],
            ),
            ("class", vec![("/spec/storageClassName", json!("slow"))], vec![]),
            (
                "bound",
                vec![(
                    "/spec/claimRef",
                    json!({"namespace": "n", "name": "c", "uid": "u"}),
                )],
                vec![],
            ),
            (
                "mount options",
                vec![("/spec/mountOptions", json!(["ro"]))],
                vec![],
            ),
            (
                "handle",
                vec![("/spec/csi/volumeHandle", json!("other"))],
                vec![SOURCE],
            ),
            (
                "other source",
                vec![
                    ("/spec/csi", Value::Null),
                    ("/spec/hostPath", json!({"path": "/x"})),
                ],
                vec![SOURCE],
            ),
            (
                "expansion secret is added",
                vec![("/spec/csi/controllerExpandSecretRef", secret.clone())],
                vec![],
            ),
            (
                "other secret is added",
                vec![("/spec/csi/nodeStageSecretRef", secret.clone())],
                vec![SOURCE],
            ),
            (
                "mode",
                vec![("/spec/volumeMode", json!("Block"))],
                vec![r#"volumeMode: Invalid value: "Block": field is immutable"#],
            ),
            (
                "affinity renamed",
                vec![(key, json!("topology.kubernetes.io/zone"))],
                vec![],
            ),
            (
                "affinity gone",
                vec![("/spec/nodeAffinity", Value::Null)],
                vec![
                    "nodeAffinity: Invalid value: null: field is immutable, except for updating from beta label to GA",
                ],
            ),
        ],
    );
    let mut with_secret = sound();
    with_secret["spec"]["csi"]["controllerExpandSecretRef"] = secret;
    with_secret["spec"]["volumeAttributesClassName"] = json!("gold");
    updates(
        gvk(),
        &with_secret,
        vec![
            (
                "expansion secret changes",
                vec![("/spec/csi/controllerExpandSecretRef/name", json!("t"))],
                vec![SOURCE],
            ),
            (
                "expansion secret goes",
                vec![("/spec/csi/controllerExpandSecretRef", Value::Null)],
                vec![SOURCE],
            ),
            (
                "attributes class changes",
                vec![("/spec/volumeAttributesClassName", json!("silver"))],
                vec![],
            ),
            (
                "attributes class goes",
                vec![("/spec/volumeAttributesClassName", Value::Null)],
                vec![
                    "spec.volumeAttributesClassName: Forbidden: update from non-nil value to nil is forbidden",
                ],
            ),
        ],
    );
    let mut anywhere = sound();
    anywhere["spec"].as_object_mut().unwrap().remove("nodeAffinity");
    updates(
        gvk(),
        &anywhere,
        vec![(
            "affinity is set",
            vec![("/spec/nodeAffinity", sound()["spec"]["nodeAffinity"].clone())],
            vec![],
        )],
    );
    let mut renamed = sound();
    *renamed.pointer_mut(key).unwrap() = json!("topology.kubernetes.io/zone");
    let back = r#"nodeAffinity: Invalid value: {"required":{"nodeSelectorTerms":[{"matchExpressions":[{"key":"failure-domain.beta.kubernetes.io/zone","operator":"In","values":["a"]}]}]}}: field is immutable, except for updating from beta label to GA"#;
    updates(
        gvk(),
        &renamed,
        vec![(
            "affinity renamed back",
            vec![(key, json!("failure-domain.beta.kubernetes.io/zone"))],
            vec![back],
        )],
    );
}
