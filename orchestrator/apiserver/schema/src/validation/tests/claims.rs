//! Persistent volume claims.

use serde_json::{Value, json};

use super::{creates, texts, updates};
use crate::registry::{Gvk, Registry};
use crate::validation::status_update;

const IMMUTABLE: &str = "spec: Forbidden: spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims";
const STORAGE: &str = "/spec/resources/requests/storage";

fn gvk() -> Gvk<'static> {
    Gvk::new("v1", "PersistentVolumeClaim")
}

fn sound() -> Value {
    json!({"metadata": {"name": "c", "namespace": "default"}, "spec": {
        "accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "2Gi"}}, "storageClassName": "fast",
    }})
}

fn bound() -> Value {
    let mut claim = sound();
    claim["spec"]["volumeName"] = json!("v");
    claim["status"] = json!({"phase": "Bound", "capacity": {"storage": "1Gi"}});
    claim
}

#[test]
#[expect(clippy::too_many_lines, reason = "one flat table")]
fn a_new_claim_is_checked() {
    let snapshot = json!({"apiGroup": "snapshot.storage.k8s.io", "kind": "VolumeSnapshot", "name": "s"});
    creates(
        gvk(),
        &sound(),
        vec![
            (
                "no modes",
                vec![("/spec/accessModes", Value::Null)],
                vec!["spec.accessModes: Required value: at least 1 access mode is required"],
            ),
            (
                "single pod and more",
                vec![("/spec/accessModes/-", json!("ReadWriteOncePod"))],
                vec!["spec.accessModes: Forbidden: may not use ReadWriteOncePod with other access modes"],
            ),
            (
                "no size",
                vec![("/spec/resources", Value::Null)],
                vec!["spec.resources[storage]: Required value"],
            ),
            (
                "empty",
                vec![(STORAGE, json!("0"))],
                vec![r#"spec.resources[storage]: Invalid value: "0": must be greater than zero"#],
            ),
            ("no class", vec![("/spec/storageClassName", json!(""))], vec![]),
            (
                "mode",
                vec![("/spec/volumeMode", json!("Tape"))],
                vec![
                    r#"spec.volumeMode: Unsupported value: "Tape": supported values: "Block", "Filesystem""#,
                ],
            ),
            (
                "selector",
                vec![(
                    "/spec/selector",
                    json!({"matchExpressions": [{"key": "a", "operator": "In"}]}),
                )],
                vec![
                    "spec.selector.matchExpressions[0].values: Required value: must be specified when `operator` is 'In' or 'NotIn'",
                ],
            ),
            (
                "from a snapshot",
                vec![("/spec/dataSource", snapshot.clone())],
                vec![],
            ),
            (
                "from nothing",
                vec![("/spec/dataSourceRef", json!({"kind": "PersistentVolumeClaim"}))],
                vec![
                    "spec.dataSource.name: Required value",
                    "spec.dataSourceRef.name: Required value",
                ],
            ),
            (
                "from a pod",
                vec![("/spec/dataSourceRef", json!({"kind": "Pod", "name": "p"}))],
                vec![
                    r#"spec.dataSource: Invalid value: "Pod": must be 'PersistentVolumeClaim' when referencing the default apiGroup"#,
                    r#"spec.dataSourceRef: Invalid value: "Pod": must be 'PersistentVolumeClaim' when referencing the default apiGroup"#,
                ],
            ),
            (
                "from two things",
                vec![
                    ("/spec/dataSource", snapshot.clone()),
                    (
                        "/spec/dataSourceRef",
                        json!({"kind": "PersistentVolumeClaim", "name": "d"}),
                    ),
                ],
                vec![r#"spec: Invalid value: {}: must match dataSourceRef"#],
            ),
            (
                "from elsewhere, twice named",
                vec![
                    ("/spec/dataSource", snapshot),
                    (
                        "/spec/dataSourceRef",
                        json!({"kind": "PersistentVolumeClaim", "name": "d", "namespace": "n"}),
                    ),
                ],
                vec![
                    r#"spec: Invalid value: {}: may not be specified when dataSourceRef.namespace is specified"#,
                ],
            ),
        ],
    );
}

#[test]
#[expect(clippy::too_many_lines, reason = "one flat table")]
fn an_unbound_claim_hardly_changes() {
    updates(
        gvk(),
        &sound(),
        vec![
            ("volume is named", vec![("/spec/volumeName", json!("v"))], vec![]),
            ("grows too early", vec![(STORAGE, json!("3Gi"))], vec![IMMUTABLE]),
            (
                "class",
                vec![("/spec/storageClassName", json!("slow"))],
                vec![IMMUTABLE],
            ),
            (
                "modes",
                vec![("/spec/accessModes", json!(["ReadWriteMany"]))],
                vec![IMMUTABLE],
            ),
            (
                "mode",
                vec![("/spec/volumeMode", json!("Block"))],
                vec![
                    IMMUTABLE,
                    r#"volumeMode: Invalid value: "Block": field is immutable"#,
                ],
            ),
            ("labels", vec![("/metadata/labels", json!({"a": "b"}))], vec![]),
        ],
    );
    let mut classless = sound();
    classless["spec"]
        .as_object_mut()
        .unwrap()
        .remove("storageClassName");
    updates(
        gvk(),
        &classless,
        vec![(
            "class is assigned later",
            vec![("/spec/storageClassName", json!("fast"))],
            vec![],
        )],
    );
    let annotation = "volume.beta.kubernetes.io/storage-class";
    classless["metadata"]["annotations"] = json!({annotation: "fast"});
    updates(
        gvk(),
        &classless,
        vec![
            (
                "class moves to the field",
                vec![("/spec/storageClassName", json!("fast"))],
                vec![],
            ),
            (
                "class moves and goes",
                vec![
                    ("/spec/storageClassName", json!("fast")),
                    ("/metadata/annotations", json!({})),
                ],
                vec![],
            ),
            (
                "other class",
                vec![("/spec/storageClassName", json!("slow"))],
                vec![IMMUTABLE],
            ),
            (
                "annotation",
                vec![(
                    "/metadata/annotations/volume.beta.kubernetes.io~1storage-class",
                    json!("slow"),
                )],
                vec![
                    r#"metadata.annotations.volume.beta.kubernetes.io/storage-class: Invalid value: "slow": field is immutable"#,
                ],
            ),
        ],
    );
}

#[test]
fn a_bound_claim_may_grow_and_shrink_back() {
    const LESS: &str =
        "spec.resources.requests.storage: Forbidden: field can not be less than status.capacity";
    updates(
        gvk(),
        &bound(),
        vec![
            ("grows", vec![(STORAGE, json!("3Gi"))], vec![]),
            (
                "shrinks, still above what there is",
                vec![(STORAGE, json!("1500Mi"))],
                vec![],
            ),
            (
                "shrinks to what there is",
                vec![(STORAGE, json!("1Gi"))],
                vec![LESS],
            ),
            ("shrinks below", vec![(STORAGE, json!("1Mi"))], vec![LESS]),
            (
                "other volume",
                vec![("/spec/volumeName", json!("w"))],
                vec![IMMUTABLE],
            ),
            (
                "attributes class",
                vec![("/spec/volumeAttributesClassName", json!("gold"))],
                vec![],
            ),
        ],
    );
    let mut with_class = bound();
    with_class["spec"]["volumeAttributesClassName"] = json!("gold");
    with_class["status"]["currentVolumeAttributesClassName"] = json!("gold");
    updates(
        gvk(),
        &with_class,
        vec![
            (
                "other attributes",
                vec![("/spec/volumeAttributesClassName", json!("silver"))],
                vec![],
            ),
            (
                "attributes go",
                vec![("/spec/volumeAttributesClassName", Value::Null)],
                vec![
                    "spec.volumeAttributesClassName: Forbidden: update to nil is forbidden when status.currentVolumeAttributesClassName is not nil",
                ],
            ),
            (
                "attributes are emptied",
                vec![("/spec/volumeAttributesClassName", json!(""))],
                vec![
                    "spec.volumeAttributesClassName: Forbidden: update to empty string is forbidden when status.currentVolumeAttributesClassName is not nil",
                ],
            ),
        ],
    );
}

#[test]
fn a_claims_status_is_checked() {
    let cases = [
        (
            "sound",
            json!({"capacity": {"storage": "1Gi"}, "allocatedResources": {"storage": "2Gi"}, "allocatedResourceStatuses": {"storage": "NodeResizePending"}}),
            vec![],
        ),
        (
            "own resource",
            json!({"allocatedResources": {"example.com/x": "1"}}),
            vec![],
        ),
        (
            "unknown resource",
            json!({"allocatedResources": {"speed": "1"}}),
            vec![r#"status.allocatedResources: Unsupported value: "speed": supported values: "storage""#],
        ),
        (
            "unknown status",
            json!({"allocatedResourceStatuses": {"storage": "Soon"}}),
            vec![
                r#"status.allocatedResourceStatuses[storage]: Unsupported value: "Soon": supported values: "ControllerResizeInProgress", "ControllerResizeInfeasible", "NodeResizePending", "NodeResizeInProgress", "NodeResizeInfeasible""#,
            ],
        ),
        (
            "negative",
            json!({"capacity": {"storage": "-1"}}),
            vec![r#"status.capacity[storage]: Invalid value: "-1": must be greater than or equal to 0"#],
        ),
    ];
    for (name, status, expected) in cases {
        let mut new = bound();
        new["status"] = status;
        assert_eq!(
            texts(&status_update(Registry::builtin(), gvk(), &bound(), &new)),
            expected,
            "{name}"
        );
    }
}
