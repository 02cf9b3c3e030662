//! Deployments and their kin.

use serde_json::json;

use super::super::*;
use super::{creates, texts, updates};

fn apps(kind: &'static str) -> Gvk<'static> {
    Gvk::new("apps/v1", kind)
}

fn sound() -> Value {
    json!({"metadata": {"name": "w", "namespace": "default"}, "spec": {
        "selector": {"matchLabels": {"app": "w"}},
        "template": {"metadata": {"labels": {"app": "w"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}},
    }})
}

const LABELS: &str = "/spec/template/metadata/labels";
const NO_FIT: &str = r#"spec.template.metadata.labels: Invalid value: {"app":"x"}: `selector` does not match template `labels`"#;

#[test]
#[expect(clippy::too_many_lines, reason = "one flat table")]
fn deployments() {
    let place = "/spec/strategy";
    creates(
        apps("Deployment"),
        &sound(),
        vec![
            (
                "labels that are not selected",
                vec![(LABELS, json!({"app": "x"}))],
                vec![NO_FIT],
            ),
            (
                "no selector",
                vec![("/spec/selector", Value::Null)],
                vec![
                    "spec.selector: Required value",
                    r#"spec.template.metadata.labels: Invalid value: {"app":"w"}: `selector` does not match template `labels`"#,
                ],
            ),
            (
                "empty selector",
                vec![("/spec/selector", json!({}))],
                vec!["spec.selector: Invalid value: {}: empty selector is invalid for deployment"],
            ),
            (
                "unreadable selector",
                vec![(
                    "/spec/selector",
                    json!({"matchExpressions": [{"key": "a", "operator": "In"}]}),
                )],
                vec![
                    "spec.selector.matchExpressions[0].values: Required value: must be specified when `operator` is 'In' or 'NotIn'",
                    r#"spec.selector: Invalid value: {"matchExpressions":[{"key":"a","operator":"In"}]}: invalid label selector"#,
                ],
            ),
            (
                "negative numbers",
                vec![
                    ("/spec/replicas", json!(-1)),
                    ("/spec/minReadySeconds", json!(-1)),
                    ("/spec/revisionHistoryLimit", json!(-1)),
                ],
                vec![
                    "spec.replicas: Invalid value: -1: must be greater than or equal to 0",
                    "spec.minReadySeconds: Invalid value: -1: must be greater than or equal to 0",
                    "spec.revisionHistoryLimit: Invalid value: -1: must be greater than or equal to 0",
                ],
            ),
            (
                "deadline before readiness",
                vec![("/spec/minReadySeconds", json!(600))],
                vec![
                    "spec.progressDeadlineSeconds: Invalid value: 600: must be greater than minReadySeconds",
                ],
            ),
            (
                "no pods at all during an update",
                vec![(
                    place,
                    json!({"rollingUpdate": {"maxSurge": "0%", "maxUnavailable": 0}}),
                )],
                vec![
                    "spec.strategy.rollingUpdate.maxUnavailable: Invalid value: 0: may not be 0 when `maxSurge` is 0",
                ],
            ),
            (
                "shares",
                vec![(
                    place,
                    json!({"rollingUpdate": {"maxSurge": "x", "maxUnavailable": "101%"}}),
                )],
                vec![
                    r#"spec.strategy.rollingUpdate.maxSurge: Invalid value: "x": a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%', or '93%', regex used for validation is '[0-9]+%')"#,
                    r#"spec.strategy.rollingUpdate.maxUnavailable: Invalid value: "101%": must not be greater than 100%"#,
                ],
            ),
            (
                "rolling parameters of another strategy",
                vec![(place, json!({"type": "Recreate", "rollingUpdate": {}}))],
                vec![
                    "spec.strategy.rollingUpdate: Forbidden: may not be specified when strategy `type` is 'Recreate'",
                ],
            ),
            ("recreation", vec![(place, json!({"type": "Recreate"}))], vec![]),
            (
                "unknown strategy",
                vec![(place, json!({"type": "Magic"}))],
                vec![
                    r#"spec.strategy: Unsupported value: {"type":"Magic"}: supported values: "Recreate", "RollingUpdate""#,
                ],
            ),
            (
                "pods that end",
                vec![
                    ("/spec/template/spec/restartPolicy", json!("Never")),
                    ("/spec/template/spec/activeDeadlineSeconds", json!(5)),
                ],
                vec![
                    r#"spec.template.spec.restartPolicy: Unsupported value: "Never": supported values: "Always""#,
                    "spec.template.spec.activeDeadlineSeconds: Forbidden: activeDeadlineSeconds in ReplicaSet is not Supported",
                ],
            ),
            (
                "no containers",
                vec![("/spec/template/spec/containers", json!([]))],
                vec!["spec.template.spec.containers: Required value"],
            ),
            (
                "annotations",
                vec![("/spec/template/metadata/annotations", json!({"a b": "c"}))],
                vec![
                    r#"spec.template.annotations: Invalid value: "a b": name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')"#,
                ],
            ),
        ],
    );
    let other = json!({"matchLabels": {"app": "x"}});
    for kind in ["Deployment", "ReplicaSet", "DaemonSet"] {
        updates(
            apps(kind),
            &sound(),
            vec![
                (
                    "selector",
                    vec![("/spec/selector", other.clone()), (LABELS, json!({"app": "x"}))],
                    vec![r#"spec.selector: Invalid value: {"matchLabels":{"app":"x"}}: field is immutable"#],
                ),
                (
                    "image",
                    vec![("/spec/template/spec/containers/0/image", json!("j"))],
                    vec![],
                ),
            ],
        );
    }
}

#[test]
#[expect(clippy::too_many_lines, reason = "one flat table")]
fn stateful_sets() {
    let claims = json!([{"metadata": {"name": "data"}, "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}}]);
    let mut set = sound();
    set["spec"]["volumeClaimTemplates"] = claims;
    set["spec"]["template"]["spec"]["containers"][0]["volumeMounts"] =
        json!([{"name": "data", "mountPath": "/data"}]);
    creates(
        apps("StatefulSet"),
        &set,
        vec![
            (
                "labels that are not selected",
                vec![(LABELS, json!({"app": "x"}))],
                vec![NO_FIT],
            ),
            (
                "empty selector",
                vec![("/spec/selector", json!({}))],
                vec!["spec.selector: Invalid value: {}: empty selector is invalid for statefulset"],
            ),
            (
                "policies",
                vec![
                    ("/spec/podManagementPolicy", json!("Random")),
                    (
                        "/spec/persistentVolumeClaimRetentionPolicy",
                        json!({"whenScaled": "Hide"}),
                    ),
                ],
                vec![
                    r#"spec.podManagementPolicy: Invalid value: "Random": must be 'OrderedReady' or 'Parallel'"#,
                    r#"spec.persistentVolumeClaimRetentionPolicy.whenScaled: Unsupported value: "Hide": supported values: "Retain", "Delete""#,
                ],
            ),
            (
                "rolling parameters of another strategy",
                vec![(
                    "/spec/updateStrategy",
                    json!({"type": "OnDelete", "rollingUpdate": {"partition": 1}}),
                )],
                vec![
                    r#"spec.updateStrategy.rollingUpdate: Invalid value: {"partition":1}: only allowed for updateStrategy 'RollingUpdate'"#,
                ],
            ),
            (
                "rolling parameters",
                vec![(
                    "/spec/updateStrategy",
                    json!({"rollingUpdate": {"partition": -1, "maxUnavailable": 0}}),
                )],
                vec![
                    "spec.updateStrategy.rollingUpdate.partition: Invalid value: -1: must be greater than or equal to 0",
                    "spec.updateStrategy.rollingUpdate.maxUnavailable: Invalid value: 0: cannot be 0",
                ],
            ),
            (
                "ordinals",
                vec![("/spec/ordinals", json!({"start": -1}))],
                vec!["spec.ordinals.start: Invalid value: -1: must be greater than or equal to 0"],
            ),
            (
                "pods that end",
                vec![
                    ("/spec/template/spec/restartPolicy", json!("Never")),
                    ("/spec/template/spec/activeDeadlineSeconds", json!(5)),
                ],
                vec![
                    r#"spec.template.spec.restartPolicy: Unsupported value: "Never": supported values: "Always""#,
                    "spec.template.spec.activeDeadlineSeconds: Invalid value: 5: must not be specified",
                ],
            ),
        ],
    );
    let forbidden = "spec: Forbidden: updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', \
        'updateStrategy', 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden";
    updates(
        apps("StatefulSet"),
        &set,
        vec![
            (
                "what may change",
                vec![
                    ("/spec/replicas", json!(3)),
                    ("/spec/ordinals", json!({"start": 1})),
                    ("/spec/template/spec/containers/0/image", json!("j")),
                    ("/spec/updateStrategy", json!({"type": "OnDelete"})),
                    ("/spec/revisionHistoryLimit", json!(1)),
                    ("/spec/minReadySeconds", json!(1)),
                ],
                vec![],
            ),
            (
                "the claims",
                vec![("/spec/volumeClaimTemplates/0/spec/storageClassName", json!("x"))],
                vec![forbidden],
            ),
            (
                "the service",
                vec![("/spec/serviceName", json!("x"))],
                vec![forbidden],
            ),
        ],
    );
}

#[test]
fn daemon_sets() {
    let rolling = |parameters: Value| json!({"rollingUpdate": parameters});
    creates(
        apps("DaemonSet"),
        &sound(),
        vec![
            (
                "labels that are not selected",
                vec![(LABELS, json!({"app": "x"}))],
                vec![NO_FIT],
            ),
            (
                "empty selector",
                vec![("/spec/selector", json!({}))],
                vec!["spec.selector: Invalid value: {}: empty selector is invalid for daemonset"],
            ),
            (
                "neither",
                vec![("/spec/updateStrategy", rolling(json!({"maxUnavailable": 0})))],
                vec![
                    "spec.updateStrategy.rollingUpdate.maxUnavailable: Required value: cannot be 0 when maxSurge is 0",
                ],
            ),
            (
                "both",
                vec![("/spec/updateStrategy", rolling(json!({"maxSurge": 1})))],
                vec![
                    "spec.updateStrategy.rollingUpdate.maxSurge: Invalid value: 1: may not be set when maxUnavailable is non-zero",
                ],
            ),
            (
                "unknown strategy",
                vec![("/spec/updateStrategy", json!({"type": "Magic"}))],
                vec![
                    r#"spec.updateStrategy: Unsupported value: {"type":"Magic"}: supported values: "RollingUpdate", "OnDelete""#,
                ],
            ),
            (
                "pods that end",
                vec![("/spec/template/spec/activeDeadlineSeconds", json!(5))],
                vec![
                    "spec.template.spec.activeDeadlineSeconds: Forbidden: activeDeadlineSeconds in DaemonSet is not Supported",
                ],
            ),
        ],
    );
}

#[test]
fn revisions_and_the_oldest_kinds() {
    let revision =
        json!({"metadata": {"name": "r", "namespace": "default"}, "data": {"a": 1}, "revision": 1});
    creates(
        apps("ControllerRevision"),
        &revision,
        vec![
            (
                "no data",
                vec![("/data", Value::Null)],
                vec!["data: Required value: data is mandatory"],
            ),
            (
                "number",
                vec![("/revision", json!(-1))],
                vec!["revision: Invalid value: -1: must be greater than or equal to 0"],
            ),
        ],
    );
    updates(
        apps("ControllerRevision"),
        &revision,
        vec![
            (
                "data",
                vec![("/data", json!({"a": 2}))],
                vec![r#"data: Invalid value: {"a":2}: field is immutable"#],
            ),
            ("number", vec![("/revision", json!(2))], vec![]),
        ],
    );
    let mut controller = sound();
    controller["spec"]["selector"] = json!({"app": "w"});
    let core = |kind: &'static str| Gvk::new("v1", kind);
    creates(
        core("ReplicationController"),
        &controller,
        vec![
            (
                "selector from the template",
                vec![("/spec/selector", Value::Null)],
                vec![],
            ),
            (
                "no selector",
                vec![("/spec/selector", json!({})), (LABELS, json!({}))],
                vec!["spec.selector: Required value"],
            ),
            (
                "labels that are not selected",
                vec![(LABELS, json!({"app": "x"}))],
                vec![NO_FIT],
            ),
            (
                "no template",
                vec![("/spec/template", Value::Null)],
                vec!["spec.template: Required value"],
            ),
        ],
    );
    let template =
        json!({"metadata": {"name": "t", "namespace": "default"}, "template": sound()["spec"]["template"]});
    creates(
        core("PodTemplate"),
        &template,
        vec![(
            "no containers",
            vec![("/template/spec/containers", json!([]))],
            vec!["template.spec.containers: Required value"],
        )],
    );
}

#[test]
fn statuses_are_counted() {
    let faults = |gvk: Gvk<'_>, before: Value, after: Value| {
        let object = |status: Value| json!({"metadata": {"name": "w"}, "status": status});
        texts(&status_update(
            Registry::builtin(),
            gvk,
            &object(before),
            &object(after),
        ))
    };
    let cases = [
        (
            "sound",
            "Deployment",
            json!({}),
            json!({"replicas": 2, "readyReplicas": 2, "availableReplicas": 1}),
            vec![],
        ),
        (
            "negative",
            "DaemonSet",
            json!({}),
            json!({"numberReady": -1}),
            vec!["status.numberReady: Invalid value: -1: must be greater than or equal to 0"],
        ),
        (
            "more than there are",
            "ReplicaSet",
            json!({}),
            json!({"replicas": 1, "readyReplicas": 2, "availableReplicas": 2}),
            vec![
                "status.readyReplicas: Invalid value: 2: cannot be greater than status.replicas",
                "status.availableReplicas: Invalid value: 2: cannot be greater than status.replicas",
            ],
        ),
        (
            "available before ready",
            "Deployment",
            json!({}),
            json!({"replicas": 1, "availableReplicas": 1}),
            vec!["status.availableReplicas: Invalid value: 1: cannot be greater than readyReplicas"],
        ),
        (
            "counting back",
            "Deployment",
            json!({"collisionCount": 2}),
            json!({"collisionCount": 1}),
            vec!["status.collisionCount: Invalid value: 1: cannot be decremented"],
        ),
    ];
    for (case, kind, before, after, expected) in cases {
        assert_eq!(faults(apps(kind), before, after), expected, "{case}");
    }
}
