//! Pods.

use serde_json::{Value, json};

use super::{creates, texts, updates};
use crate::registry::{Gvk, Registry};
use crate::validation::status_update;

fn gvk() -> Gvk<'static> {
    Gvk::new("v1", "Pod")
}

fn sound() -> Value {
    json!({"metadata": {"name": "p", "namespace": "default"}, "spec": {
        "containers": [{
            "name": "c", "image": "i", "ports": [{"containerPort": 80, "name": "http"}],
            "env": [{"name": "E", "value": "x"}],
            "volumeMounts": [{"name": "data", "mountPath": "/data"}],
            "resources": {"requests": {"cpu": "100m"}, "limits": {"cpu": "1"}},
        }],
        "initContainers": [{"name": "i", "image": "i"}],
        "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": "c"}}, {"name": "tmp", "emptyDir": {}}],
        "tolerations": [{"key": "a", "operator": "Exists", "effect": "NoExecute"}],
    }})
}

#[test]
#[expect(clippy::too_many_lines, reason = "one flat table")]
fn a_new_pod_is_checked() {
    creates(
        gvk(),
        &sound(),
        vec![
            (
                "no containers",
                vec![("/spec/containers", json!([]))],
                vec!["spec.containers: Required value"],
            ),
            (
                "restart policy",
                vec![("/spec/restartPolicy", json!("Sometimes"))],
                vec![
                    r#"spec.restartPolicy: Unsupported value: "Sometimes": supported values: "Always", "OnFailure", "Never""#,
                ],
            ),
            (
                "dns policy",
                vec![("/spec/dnsPolicy", json!("Guess"))],
                vec![
                    r#"spec.dnsPolicy: Unsupported value: "Guess": supported values: "ClusterFirstWithHostNet", "ClusterFirst", "Default", "None""#,
                ],
            ),
            (
                "deadline",
                vec![("/spec/activeDeadlineSeconds", json!(0))],
                vec![
                    "spec.activeDeadlineSeconds: Invalid value: 0: must be between 1 and 2147483647, inclusive",
                ],
            ),
            (
                "containers to look at it",
                vec![("/spec/ephemeralContainers", json!([{"name": "e", "image": "i"}]))],
                vec!["spec.ephemeralContainers: Forbidden: cannot be set on create"],
            ),
            (
                "gated and placed",
                vec![
                    ("/spec/schedulingGates", json!([{"name": "g"}])),
                    ("/spec/nodeName", json!("n")),
                ],
                vec!["spec.nodeName: Forbidden: cannot be set until all schedulingGates have been cleared"],
            ),
            (
                "grace",
                vec![("/spec/terminationGracePeriodSeconds", json!(-1))],
                vec![],
            ),
            (
                "user",
                vec![("/spec/securityContext", json!({"runAsUser": -1}))],
                vec![
                    "spec.securityContext.runAsUser: Invalid value: -1: must be between 0 and 2147483647, inclusive",
                ],
            ),
            (
                "toleration",
                vec![
                    ("/spec/tolerations/0/key", json!("")),
                    ("/spec/tolerations/0/operator", json!("Equal")),
                ],
                vec![
                    r#"spec.tolerations[0].operator: Invalid value: "Equal": operator must be Exists when `key` is empty, which means "match all values and all keys""#,
                ],
            ),
            (
                "toleration for a time",
                vec![
                    ("/spec/tolerations/0/tolerationSeconds", json!(5)),
                    ("/spec/tolerations/0/effect", json!("NoSchedule")),
                ],
                vec![
                    r#"spec.tolerations[0].effect: Invalid value: "NoSchedule": effect must be 'NoExecute' when `tolerationSeconds` is set"#,
                ],
            ),
            (
                "spreading",
                vec![(
                    "/spec/topologySpreadConstraints",
                    json!([{"maxSkew": 0, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule"}]),
                )],
                vec![
                    "spec.topologySpreadConstraints[0].maxSkew: Invalid value: 0: must be greater than zero",
                ],
            ),
            (
                "affinity",
                vec![(
                    "/spec/affinity",
                    json!({"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [{}]}}),
                )],
                vec![
                    "spec.affinity.podAffinity.requiredDuringSchedulingIgnoredDuringExecution[0].topologyKey: Required value: can not be empty",
                    r#"spec.affinity.podAffinity.requiredDuringSchedulingIgnoredDuringExecution[0].topologyKey: Invalid value: "": name part must be non-empty"#,
                    r#"spec.affinity.podAffinity.requiredDuringSchedulingIgnoredDuringExecution[0].topologyKey: Invalid value: "": name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')"#,
                ],
            ),
        ],
    );
}

#[test]
#[expect(clippy::too_many_lines, reason = "one flat table")]
fn containers_of_a_new_pod_are_checked() {
    let container = "/spec/containers/0";
    let at = |field: &str| -> &'static str { format!("{container}{field}").leak() };
    creates(
        gvk(),
        &sound(),
        vec![
            (
                "no name",
                vec![(at("/name"), json!(""))],
                vec!["spec.containers[0].name: Required value"],
            ),
            (
                "name twice",
                vec![("/spec/initContainers/0/name", json!("c"))],
                vec![r#"spec.initContainers[0].name: Duplicate value: "c""#],
            ),
            (
                "no image",
                vec![(at("/image"), json!(""))],
                vec!["spec.containers[0].image: Required value"],
            ),
            (
                "image with blanks",
                vec![(at("/image"), json!(" i"))],
                vec![
                    r#"spec.containers[0].image: Invalid value: " i": must not have leading or trailing whitespace"#,
                ],
            ),
            (
                "pull policy",
                vec![(at("/imagePullPolicy"), json!("Often"))],
                vec![
                    r#"spec.containers[0].imagePullPolicy: Unsupported value: "Often": supported values: "Always", "IfNotPresent", "Never""#,
                ],
            ),
            (
                "port",
                vec![(at("/ports/0/containerPort"), json!(0))],
                vec!["spec.containers[0].ports[0].containerPort: Required value"],
            ),
            (
                "port name twice",
                vec![(at("/ports/-"), json!({"containerPort": 81, "name": "http"}))],
                vec![r#"spec.containers[0].ports[1].name: Duplicate value: "http""#],
            ),
            (
                "protocol",
                vec![(at("/ports/0/protocol"), json!("ICMP"))],
                vec![
                    r#"spec.containers[0].ports[0].protocol: Unsupported value: "ICMP": supported values: "SCTP", "TCP", "UDP""#,
                ],
            ),
            (
                "variable",
                vec![(at("/env/0/name"), json!("A=B"))],
                vec![
                    r#"spec.containers[0].env[0].name: Invalid value: "A=B": a valid environment variable name must consist only of printable ASCII characters other than '='"#,
                ],
            ),
            (
                "value and source",
                vec![(
                    at("/env/0/valueFrom"),
                    json!({"fieldRef": {"fieldPath": "metadata.name"}}),
                )],
                vec![
                    r#"spec.containers[0].env[0].valueFrom: Invalid value: "": may not be specified when `value` is not empty"#,
                ],
            ),
            (
                "no such field",
                vec![(
                    at("/env/0"),
                    json!({"name": "E", "valueFrom": {"fieldRef": {"fieldPath": "spec.x"}}}),
                )],
                vec![
                    r#"spec.containers[0].env[0].valueFrom.fieldRef.fieldPath: Invalid value: "spec.x": error converting fieldPath: field label not supported: spec.x"#,
                ],
            ),
            (
                "a label",
                vec![(
                    at("/env/0"),
                    json!({"name": "E", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['a']"}}}),
                )],
                vec![],
            ),
            (
                "source without key",
                vec![(
                    at("/env/0"),
                    json!({"name": "E", "valueFrom": {"secretKeyRef": {"name": "s"}}}),
                )],
                vec!["spec.containers[0].env[0].valueFrom.secretKeyRef.key: Required value"],
            ),
            (
                "unknown volume",
                vec![(at("/volumeMounts/0/name"), json!("nope"))],
                vec![r#"spec.containers[0].volumeMounts[0].name: Not found: "nope""#],
            ),
            (
                "no path",
                vec![(at("/volumeMounts/0/mountPath"), json!(""))],
                vec!["spec.containers[0].volumeMounts[0].mountPath: Required value"],
            ),
            (
                "path twice",
                vec![(
                    at("/volumeMounts/-"),
                    json!({"name": "tmp", "mountPath": "/data"}),
                )],
                vec![
                    r#"spec.containers[0].volumeMounts[1].mountPath: Invalid value: "/data": must be unique"#,
                ],
            ),
            (
                "sub path",
                vec![(at("/volumeMounts/0/subPath"), json!("/x/../y"))],
                vec![
                    r#"spec.containers[0].volumeMounts.subPath: Invalid value: "/x/../y": must be a relative path"#,
                    r#"spec.containers[0].volumeMounts.subPath: Invalid value: "/x/../y": must not contain '..'"#,
                ],
            ),
            (
                "propagation",
                vec![(at("/volumeMounts/0/mountPropagation"), json!("Bidirectional"))],
                vec![
                    "spec.containers[0].volumeMounts.mountPropagation: Forbidden: Bidirectional mount propagation is available only to privileged containers",
                ],
            ),
            (
                "block device",
                vec![
                    (at("/volumeMounts"), json!([])),
                    (
                        at("/volumeDevices"),
                        json!([{"name": "data", "devicePath": "/dev/x"}]),
                    ),
                ],
                vec![],
            ),
            (
                "block device of a directory",
                vec![(
                    at("/volumeDevices"),
                    json!([{"name": "tmp", "devicePath": "/dev/x"}]),
                )],
                vec![
                    r#"spec.containers[0].volumeDevices[0].name: Invalid value: "tmp": can only use volume source type of PersistentVolumeClaim or Ephemeral for block mode"#,
                ],
            ),
            (
                "both mounted and device",
                vec![(
                    at("/volumeDevices"),
                    json!([{"name": "data", "devicePath": "/dev/x"}]),
                )],
                vec![
                    r#"spec.containers[0].volumeMounts[0].name: Invalid value: "data": must not already exist in volumeDevices"#,
                    r#"spec.containers[0].volumeDevices[0].name: Invalid value: "data": must not already exist in volumeMounts"#,
                ],
            ),
            (
                "requests above limits",
                vec![(at("/resources/requests/cpu"), json!("2"))],
                vec![
                    r#"spec.containers[0].resources.requests: Invalid value: "2": must be less than or equal to cpu limit of 1"#,
                ],
            ),
            (
                "negative",
                vec![(at("/resources/requests/cpu"), json!("-1"))],
                vec![
                    r#"spec.containers[0].resources.requests[cpu]: Invalid value: "-1": must be greater than or equal to 0"#,
                ],
            ),
            (
                "odd resource",
                vec![(at("/resources/limits"), json!({"luck": "1"}))],
                vec![
                    r#"spec.containers[0].resources.limits[luck]: Invalid value: "luck": must be a standard resource type or fully qualified"#,
                    r#"spec.containers[0].resources.limits[luck]: Invalid value: "luck": must be a standard resource for containers"#,
                    r#"spec.containers[0].resources.requests[luck]: Invalid value: "luck": must be a standard resource type or fully qualified"#,
                    r#"spec.containers[0].resources.requests[luck]: Invalid value: "luck": must be a standard resource for containers"#,
                ],
            ),
            (
                "probe without handler",
                vec![(at("/livenessProbe"), json!({}))],
                vec!["spec.containers[0].livenessProbe: Required value: must specify a handler type"],
            ),
            (
                "two handlers",
                vec![(
                    at("/livenessProbe"),
                    json!({"exec": {"command": ["x"]}, "tcpSocket": {"port": 1}}),
                )],
                vec![
                    "spec.containers[0].livenessProbe.tcpSocket: Forbidden: may not specify more than 1 handler type",
                ],
            ),
            (
                "liveness takes one success",
                vec![(
                    at("/livenessProbe"),
                    json!({"exec": {"command": ["x"]}, "successThreshold": 2}),
                )],
                vec!["spec.containers[0].livenessProbe.successThreshold: Invalid value: 2: must be 1"],
            ),
            (
                "probe of an init container",
                vec![(
                    "/spec/initContainers/0/livenessProbe",
                    json!({"exec": {"command": ["x"]}}),
                )],
                vec![
                    "spec.initContainers[0].livenessProbe: Forbidden: may not be set for init containers without restartPolicy=Always",
                ],
            ),
            (
                "sidecar",
                vec![
                    ("/spec/initContainers/0/restartPolicy", json!("Always")),
                    (
                        "/spec/initContainers/0/livenessProbe",
                        json!({"exec": {"command": ["x"]}}),
                    ),
                ],
                vec![],
            ),
            (
                "privileged without rights",
                vec![(
                    at("/securityContext"),
                    json!({"privileged": true, "allowPrivilegeEscalation": false}),
                )],
                vec![
                    r#"spec.containers[0].securityContext: Invalid value: {"allowPrivilegeEscalation":false,"privileged":true}: cannot set `allowPrivilegeEscalation` to false and `privileged` to true"#,
                ],
            ),
        ],
    );
}

#[test]
#[expect(clippy::too_many_lines, reason = "one flat table")]
fn volumes_of_a_new_pod_are_checked() {
    let volume = "/spec/volumes/1";
    let source = |name: &str, source: Value| vec![(volume, json!({"name": "tmp", name: source}))];
    let claim = json!({"volumeClaimTemplate": {"spec": {"accessModes": ["ReadWriteOnce"]}}});
    creates(
        gvk(),
        &sound(),
        vec![
            (
                "name twice",
                vec![("/spec/volumes/1/name", json!("data"))],
                vec![r#"spec.volumes[1].name: Duplicate value: "data""#],
            ),
            (
                "nothing said is an empty directory",
                vec![(volume, json!({"name": "tmp"}))],
                vec![],
            ),
            (
                "two sources",
                vec![("/spec/volumes/1/hostPath", json!({"path": "/x"}))],
                vec!["spec.volumes[1].hostPath: Forbidden: may not specify more than 1 volume type"],
            ),
            (
                "claim",
                source("persistentVolumeClaim", json!({})),
                vec!["spec.volumes[1].persistentVolumeClaim.claimName: Required value"],
            ),
            (
                "secret",
                source("secret", json!({})),
                vec!["spec.volumes[1].secret.secretName: Required value"],
            ),
            (
                "config map",
                source(
                    "configMap",
                    json!({"name": "c", "items": [{"key": "k", "path": "../x"}]}),
                ),
                vec![
                    r#"spec.volumes[1].configMap.items[0].path: Invalid value: "../x": must not contain '..'"#,
                ],
            ),
            (
                "mode",
                source("secret", json!({"secretName": "s", "defaultMode": 512})),
                vec![
                    "spec.volumes[1].secret.defaultMode: Invalid value: 512: must be a number between 0 and 0777 (octal), both inclusive",
                ],
            ),
            (
                "host path",
                source("hostPath", json!({"path": ""})),
                vec!["spec.volumes[1].hostPath.path: Required value"],
            ),
            (
                "limit",
                source("emptyDir", json!({"sizeLimit": "-1"})),
                vec![
                    "spec.volumes[1].emptyDir.sizeLimit: Forbidden: SizeLimit field must be a valid resource quantity",
                ],
            ),
            (
                "driver",
                source("csi", json!({})),
                vec!["spec.volumes[1].csi.driver: Required value"],
            ),
            (
                "own claim",
                source("ephemeral", claim),
                vec!["spec.volumes[1].ephemeral.volumeClaimTemplate.spec.resources[storage]: Required value"],
            ),
            (
                "downward",
                source("downwardAPI", json!({"items": [{"path": "a"}]})),
                vec![
                    "spec.volumes[1].downwardAPI: Required value: one of fieldRef and resourceFieldRef is required",
                ],
            ),
            (
                "token",
                source(
                    "projected",
                    json!({"sources": [{"serviceAccountToken": {"path": "t", "expirationSeconds": 5}}]}),
                ),
                vec![
                    "spec.volumes[1].projected.sources[0].serviceAccountToken.expirationSeconds: Invalid value: 5: may not specify a duration less than 10 minutes",
                ],
            ),
        ],
    );
}

#[test]
#[expect(clippy::too_many_lines, reason = "one flat table")]
fn a_pod_hardly_changes() {
    const FORBIDDEN: &str = "spec: Forbidden: pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)";
    let with = |field: &str, value: Value| {
        let mut pod = sound();
        pod["spec"][field] = value;
        pod
    };
    updates(
        gvk(),
        &sound(),
        vec![
            ("image", vec![("/spec/containers/0/image", json!("j"))], vec![]),
            (
                "no image",
                vec![
                    ("/spec/containers/0/image", json!("")),
                    ("/spec/containers/0/imagePullPolicy", json!("Always")),
                ],
                vec!["spec.containers[0].image: Required value"],
            ),
            (
                "arguments",
                vec![("/spec/containers/0/args", json!(["x"]))],
                vec![FORBIDDEN],
            ),
            (
                "another container",
                vec![("/spec/containers/-", json!({"name": "d", "image": "i"}))],
                vec!["spec.containers: Forbidden: pod updates may not add or remove containers"],
            ),
            (
                "deadline is set",
                vec![("/spec/activeDeadlineSeconds", json!(5))],
                vec![],
            ),
            (
                "toleration is added",
                vec![("/spec/tolerations/-", json!({"operator": "Exists"}))],
                vec![],
            ),
            (
                "toleration gets a time",
                vec![("/spec/tolerations/0/tolerationSeconds", json!(5))],
                vec![],
            ),
            (
                "toleration goes",
                vec![("/spec/tolerations", json!([]))],
                vec![
                    "spec.tolerations: Forbidden: existing toleration can not be modified except its tolerationSeconds",
                ],
            ),
            (
                "node is chosen without a binding",
                vec![("/spec/nodeName", json!("n"))],
                vec![FORBIDDEN],
            ),
            (
                "grace",
                vec![("/spec/terminationGracePeriodSeconds", json!(1))],
                vec![FORBIDDEN],
            ),
            (
                "gate",
                vec![("/spec/schedulingGates", json!([{"name": "g"}]))],
                vec![
                    "spec.schedulingGates[0].name: Forbidden: only deletion is allowed, but found new scheduling gate 'g'",
                ],
            ),
            (
                "selector",
                vec![("/spec/nodeSelector", json!({"a": "b"}))],
                vec![FORBIDDEN],
            ),
        ],
    );
    updates(
        gvk(),
        &with("nodeName", json!("n")),
        vec![(
            "node changes",
            vec![("/spec/nodeName", json!("m"))],
            vec![FORBIDDEN],
        )],
    );
    updates(
        gvk(),
        &with("activeDeadlineSeconds", json!(5)),
        vec![
            ("shorter", vec![("/spec/activeDeadlineSeconds", json!(4))], vec![]),
            (
                "longer",
                vec![("/spec/activeDeadlineSeconds", json!(6))],
                vec![
                    "spec.activeDeadlineSeconds: Invalid value: 6: must be less than or equal to previous value",
                ],
            ),
            (
                "gone",
                vec![("/spec/activeDeadlineSeconds", Value::Null)],
                vec![
                    "spec.activeDeadlineSeconds: Invalid value: null: must not update from a positive integer to nil value",
                ],
            ),
        ],
    );
    updates(
        gvk(),
        &with("schedulingGates", json!([{"name": "g"}])),
        vec![
            ("gate opens", vec![("/spec/schedulingGates", json!([]))], vec![]),
            (
                "selector while gated",
                vec![("/spec/nodeSelector", json!({"a": "b"}))],
                vec![],
            ),
        ],
    );
}

#[test]
fn a_container_that_ended_does_not_run_again() {
    let pod = |policy: &str, state: Value| json!({"metadata": {"name": "p"}, "spec": {"restartPolicy": policy}, "status": {"containerStatuses": [{"name": "c", "state": state}]}});
    let ended = |code: i64| json!({"terminated": {"exitCode": code}});
    let again = || json!({"running": {}});
    let cases = [
        ("Always", 0, vec![]),
        ("OnFailure", 1, vec![]),
        (
            "OnFailure",
            0,
            vec![
                "status.containerStatuses[0].state: Forbidden: may not be transitioned to non-terminated state",
            ],
        ),
        (
            "Never",
            1,
            vec![
                "status.containerStatuses[0].state: Forbidden: may not be transitioned to non-terminated state",
            ],
        ),
    ];
    for (policy, code, expected) in cases {
        let causes = status_update(
            Registry::builtin(),
            gvk(),
            &pod(policy, ended(code)),
            &pod(policy, again()),
        );
        assert_eq!(texts(&causes), expected, "{policy} {code}");
    }
}
