//! Classes, drivers, attachments and capacities.

use serde_json::{Value, json};

use super::{creates, updates};
use crate::registry::Gvk;

fn gvk(kind: &'static str) -> Gvk<'static> {
    Gvk::new("storage.k8s.io/v1", kind)
}

#[test]
#[expect(clippy::too_many_lines, reason = "one flat table")]
fn storage_classes() {
    let sound = json!({"metadata": {"name": "fast"}, "provisioner": "d.example.com", "parameters": {"a": "b"},
        "allowedTopologies": [{"matchLabelExpressions": [{"key": "zone", "values": ["a", "b"]}]}]});
    let many: serde_json::Map<String, Value> = (0..513).map(|at| (at.to_string(), json!(""))).collect();
    let term = sound["allowedTopologies"][0].clone();
    creates(
        gvk("StorageClass"),
        &sound,
        vec![
            (
                "no provisioner",
                vec![("/provisioner", Value::Null)],
                vec!["provisioner: Required value"],
            ),
            (
                "policy",
                vec![("/reclaimPolicy", json!("Recycle"))],
                vec![r#"reclaimPolicy: Unsupported value: "Recycle": supported values: "Delete", "Retain""#],
            ),
            (
                "binding",
                vec![("/volumeBindingMode", json!("Later"))],
                vec![
                    r#"volumeBindingMode: Unsupported value: "Later": supported values: "Immediate", "WaitForFirstConsumer""#,
                ],
            ),
            (
                "too many parameters",
                vec![("/parameters", Value::Object(many))],
                vec!["parameters: Too long: may not be more than 512 bytes"],
            ),
            (
                "too long parameters",
                vec![("/parameters/a", json!("x".repeat(300_000)))],
                vec!["parameters: Too long: may not be more than 262144 bytes"],
            ),
            (
                "nameless parameter",
                vec![("/parameters/", json!("x"))],
                vec![r#"parameters: Invalid value: "": field can not be empty."#],
            ),
            (
                "value twice",
                vec![(
                    "/allowedTopologies/0/matchLabelExpressions/0/values/1",
                    json!("a"),
                )],
                vec![r#"allowedTopologies[0].matchLabelExpressions[0].values[1]: Duplicate value: "a""#],
            ),
            (
                "no values",
                vec![("/allowedTopologies/0/matchLabelExpressions/0/values", json!([]))],
                vec!["allowedTopologies[0].matchLabelExpressions[0].values: Required value"],
            ),
            (
                "term twice",
                vec![("/allowedTopologies/-", term)],
                vec![r#"allowedTopologies[1].matchLabelExpressions: Duplicate value: """#],
            ),
        ],
    );
    updates(
        gvk("StorageClass"),
        &sound,
        vec![
            (
                "provisioner",
                vec![("/provisioner", json!("e"))],
                vec![r#"provisioner: Invalid value: "e": field is immutable"#],
            ),
            (
                "parameters",
                vec![("/parameters/a", json!("c"))],
                vec![r#"parameters: Invalid value: {"a":"c"}: field is immutable"#],
            ),
            (
                "policy",
                vec![("/reclaimPolicy", json!("Retain"))],
                vec![r#"reclaimPolicy: Invalid value: "Retain": field is immutable"#],
            ),
            (
                "binding",
                vec![("/volumeBindingMode", json!("WaitForFirstConsumer"))],
                vec![r#"volumeBindingMode: Invalid value: "WaitForFirstConsumer": field is immutable"#],
            ),
            ("expansion", vec![("/allowVolumeExpansion", json!(true))], vec![]),
            ("mount options", vec![("/mountOptions", json!(["ro"]))], vec![]),
            ("topologies", vec![("/allowedTopologies", json!([]))], vec![]),
        ],
    );
}

#[test]
#[expect(clippy::too_many_lines, reason = "one flat table")]
fn drivers() {
    let sound = json!({"metadata": {"name": "d.example.com"}, "spec": {"tokenRequests": [{"audience": "a", "expirationSeconds": 600}]}});
    creates(
        gvk("CSIDriver"),
        &sound,
        vec![
            (
                "name",
                vec![("/metadata/name", json!("d_"))],
                vec![
                    r#"metadata.name: Invalid value: "d_": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"#,
                ],
            ),
            (
                "policy",
                vec![("/spec/fsGroupPolicy", json!("Maybe"))],
                vec![
                    r#"spec.fsGroupPolicy: Unsupported value: "Maybe": supported values: "File", "None", "ReadWriteOnceWithFSType""#,
                ],
            ),
            (
                "mode",
                vec![("/spec/volumeLifecycleModes", json!(["Eternal"]))],
                vec![
                    r#"spec.volumeLifecycleModes: Unsupported value: "Eternal": supported values: "Persistent", "Ephemeral""#,
                ],
            ),
            (
                "audience twice",
                vec![("/spec/tokenRequests/-", json!({"audience": "a"}))],
                vec![r#"spec.tokenRequests[1].audience: Duplicate value: "a""#],
            ),
            (
                "short",
                vec![("/spec/tokenRequests/0/expirationSeconds", json!(599))],
                vec![
                    "spec.tokenRequests[0].expirationSeconds: Invalid value: 599: may not specify a duration less than 10 minutes",
                ],
            ),
            (
                "long",
                vec![(
                    "/spec/tokenRequests/0/expirationSeconds",
                    json!(4_294_967_297_i64),
                )],
                vec![
                    "spec.tokenRequests[0].expirationSeconds: Invalid value: 4294967297: may not specify a duration larger than 2^32 seconds",
                ],
            ),
            (
                "tokens without requests",
                vec![
                    ("/spec/tokenRequests", Value::Null),
                    ("/spec/serviceAccountTokenInSecrets", json!(true)),
                ],
                vec![
                    "spec.serviceAccountTokenInSecrets: Invalid value: true: serviceAccountTokenInSecrets is set but no tokenRequests are specified",
                ],
            ),
            (
                "period",
                vec![("/spec/nodeAllocatableUpdatePeriodSeconds", json!(9))],
                vec![
                    "spec.nodeAllocatableUpdatePeriodSeconds: Invalid value: 9: must be greater than or equal to 10 seconds",
                ],
            ),
        ],
    );
    updates(
        gvk("CSIDriver"),
        &sound,
        vec![
            (
                "attach",
                vec![("/spec/attachRequired", json!(false))],
                vec!["spec.attachedRequired: Invalid value: false: field is immutable"],
            ),
            (
                "modes",
                vec![("/spec/volumeLifecycleModes", json!(["Ephemeral"]))],
                vec![r#"spec.volumeLifecycleModes: Invalid value: ["Ephemeral"]: field is immutable"#],
            ),
            ("capacity", vec![("/spec/storageCapacity", json!(true))], vec![]),
            ("pod info", vec![("/spec/podInfoOnMount", json!(true))], vec![]),
        ],
    );
}

#[test]
fn drivers_of_nodes() {
    let sound = json!({"metadata": {"name": "n"}, "spec": {"drivers": [{"name": "d", "nodeID": "id", "topologyKeys": ["zone"], "allocatable": {"count": 5}}]}});
    let driver = sound["spec"]["drivers"][0].clone();
    creates(
        gvk("CSINode"),
        &sound,
        vec![
            (
                "twice",
                vec![("/spec/drivers/-", driver)],
                vec![r#"spec.drivers[1].name: Duplicate value: "d""#],
            ),
            (
                "no id",
                vec![("/spec/drivers/0/nodeID", json!(""))],
                vec!["spec.drivers[0].nodeID: Required value"],
            ),
            (
                "key twice",
                vec![("/spec/drivers/0/topologyKeys/-", json!("zone"))],
                vec![r#"spec.drivers[0]: Duplicate value: "zone""#],
            ),
            (
                "negative",
                vec![("/spec/drivers/0/allocatable/count", json!(-1))],
                vec![
                    "spec.drivers[0].allocatable.count: Invalid value: -1: must be greater than or equal to 0",
                ],
            ),
        ],
    );
    updates(
        gvk("CSINode"),
        &sound,
        vec![
            (
                "count",
                vec![("/spec/drivers/0/allocatable/count", json!(6))],
                vec![],
            ),
            (
                "added",
                vec![("/spec/drivers/-", json!({"name": "e", "nodeID": "x"}))],
                vec![],
            ),
            ("removed", vec![("/spec/drivers", json!([]))], vec![]),
            (
                "id",
                vec![("/spec/drivers/0/nodeID", json!("other"))],
                vec![
                    r#"spec.drivers: Invalid value: {"allocatable":{"count":5},"name":"d","nodeID":"other","topologyKeys":["zone"]}: field is immutable"#,
                ],
            ),
        ],
    );
}

#[test]
fn attachments() {
    let sound = json!({"metadata": {"name": "a"}, "spec": {"attacher": "d", "nodeName": "n", "source": {"persistentVolumeName": "v"}}});
    creates(
        gvk("VolumeAttachment"),
        &sound,
        vec![
            (
                "no attacher",
                vec![("/spec/attacher", json!(""))],
                vec!["spec.attacher: Required value"],
            ),
            (
                "no node",
                vec![("/spec/nodeName", json!(""))],
                vec![
                    r#"spec.nodeName: Invalid value: "": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"#,
                ],
            ),
            (
                "no source",
                vec![("/spec/source", json!({}))],
                vec![
                    "spec.source: Required value: must specify exactly one of inlineVolumeSpec and persistentVolumeName",
                ],
            ),
            (
                "two sources",
                vec![("/spec/source/inlineVolumeSpec", json!({}))],
                vec![
                    r#"spec.source: Forbidden: must specify exactly one of inlineVolumeSpec and persistentVolumeName"#,
                ],
            ),
            (
                "long error",
                vec![("/status", json!({"attachError": {"message": "x".repeat(1025)}}))],
                vec!["status.attachError.message: Too long: may not be more than 262144 bytes"],
            ),
        ],
    );
    updates(
        gvk("VolumeAttachment"),
        &sound,
        vec![
            (
                "node",
                vec![("/spec/nodeName", json!("m"))],
                vec![
                    r#"spec: Invalid value: {"attacher":"d","nodeName":"m","source":{"persistentVolumeName":"v"}}: field is immutable"#,
                ],
            ),
            (
                "finalizers",
                vec![("/metadata/finalizers", json!(["external-attacher/d"]))],
                vec![],
            ),
        ],
    );
}

#[test]
fn capacities_and_attributes() {
    let sound = json!({"metadata": {"name": "c", "namespace": "default"}, "storageClassName": "fast", "capacity": "1Gi", "nodeTopology": {"matchLabels": {"a": "b"}}});
    creates(
        gvk("CSIStorageCapacity"),
        &sound,
        vec![
            (
                "negative",
                vec![("/capacity", json!("-1"))],
                vec![r#"capacity: Invalid value: "-1": must be greater than or equal to 0"#],
            ),
            ("zero", vec![("/capacity", json!("0"))], vec![]),
        ],
    );
    updates(
        gvk("CSIStorageCapacity"),
        &sound,
        vec![
            ("capacity", vec![("/capacity", json!("2Gi"))], vec![]),
            (
                "class",
                vec![("/storageClassName", json!("slow"))],
                vec![r#"storageClassName: Invalid value: "slow": field is immutable"#],
            ),
            (
                "topology",
                vec![("/nodeTopology", Value::Null)],
                vec!["nodeTopology: Invalid value: null: field is immutable"],
            ),
        ],
    );
    let sound = json!({"metadata": {"name": "gold"}, "driverName": "d", "parameters": {"iops": "5"}});
    creates(
        gvk("VolumeAttributesClass"),
        &sound,
        vec![
            (
                "no driver",
                vec![("/driverName", json!(""))],
                vec!["driverName: Required value"],
            ),
            (
                "no parameters",
                vec![("/parameters", json!({}))],
                vec!["parameters: Required value: must contain at least one key/value pair"],
            ),
        ],
    );
    updates(
        gvk("VolumeAttributesClass"),
        &sound,
        vec![
            (
                "driver",
                vec![("/driverName", json!("e"))],
                vec!["driverName: Forbidden: updates to driverName are forbidden."],
            ),
            (
                "parameters",
                vec![("/parameters/iops", json!("6"))],
                vec!["parameters: Forbidden: updates to parameters are forbidden."],
            ),
        ],
    );
}
