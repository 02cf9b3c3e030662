//! Tables of changes to a sound object, each with the faults that it must raise.

use serde_json::json;

use super::*;
use crate::defaults;

mod claims;
mod jobs;
mod pods;
mod policies;
mod storage;
mod volumes;
mod workloads;

/// Where to put which value; null takes a field away.
type Edit<'a> = (&'a str, Value);

/// The object with values set at JSON pointers.
fn edited(object: &Value, edits: &[Edit<'_>]) -> Value {
    let mut object = object.clone();
    for (pointer, value) in edits {
        let (outer, name) = pointer.rsplit_once('/').unwrap();
        let target = object
            .pointer_mut(outer)
            .unwrap_or_else(|| panic!("{outer} is not there"));
        let name = name.replace("~1", "/");
        match (target, value) {
            (Value::Object(fields), Value::Null) => drop(fields.remove(&name)),
            (Value::Object(fields), value) => drop(fields.insert(name, value.clone())),
            (Value::Array(items), value) if name == "-" => items.push(value.clone()),
            (Value::Array(items), value) => items[name.parse::<usize>().unwrap()] = value.clone(),
            (other, _) => panic!("{pointer}: {other} has no fields"),
        }
    }
    object
}

/// A change's name, how the object is edited, and the faults, each as `field: message`.
type Case<'a> = (&'a str, Vec<Edit<'a>>, Vec<&'a str>);

fn texts(causes: &[Cause]) -> Vec<String> {
    causes
        .iter()
        .map(|cause| format!("{}: {}", cause.field, cause.message))
        .collect()
}

fn defaulted(gvk: Gvk<'_>, mut object: Value) -> Value {
    defaults::apply(Registry::builtin(), gvk, &mut object);
    object
}

/// Creates the edited object and compares the faults; the sound one must have none.
fn creates(gvk: Gvk<'_>, sound: &Value, cases: Vec<Case<'_>>) {
    let faults = |object: &Value| create(Registry::builtin(), gvk, &defaulted(gvk, object.clone()));
    assert_eq!(
        texts(&faults(sound)),
        Vec::<String>::new(),
        "{} that should be sound",
        gvk.kind
    );
    for (name, edits, expected) in cases {
        assert_eq!(
            texts(&faults(&edited(sound, &edits))),
            expected,
            "{}: {name}",
            gvk.kind
        );
    }
}

/// Updates the sound object to the edited one and compares the faults; leaving it as it is must raise none.
fn updates(gvk: Gvk<'_>, sound: &Value, cases: Vec<Case<'_>>) {
    let old = defaulted(gvk, sound.clone());
    let faults = |new: &Value| update(Registry::builtin(), gvk, &old, &defaulted(gvk, new.clone()));
    assert_eq!(
        texts(&faults(sound)),
        Vec::<String>::new(),
        "{} that doesn't change",
        gvk.kind
    );
    for (name, edits, expected) in cases {
        assert_eq!(
            texts(&faults(&edited(sound, &edits))),
            expected,
            "{}: {name}",
            gvk.kind
        );
    }
}

#[test]
fn causes_and_summary_have_upstreams_form() {
    let gvk = Gvk::new("v1", "PersistentVolumeClaim");
    let causes = create(
        Registry::builtin(),
        gvk,
        &json!({"metadata": {"name": "c", "namespace": "n"}, "spec": {"accessModes": ["Odd"], "volumeMode": "Tape"}}),
    );
    let reasons: Vec<&str> = causes.iter().map(|cause| cause.reason).collect();
    assert_eq!(
        reasons,
        [
            "FieldValueNotSupported",
            "FieldValueRequired",
            "FieldValueNotSupported"
        ]
    );
    let expected = r#"PersistentVolumeClaim "c" is invalid: [spec.accessModes: Unsupported value: "Odd": supported values: "ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod", spec.resources[storage]: Required value, spec.volumeMode: Unsupported value: "Tape": supported values: "Block", "Filesystem"]"#;
    assert_eq!(summary("PersistentVolumeClaim", "c", &causes), expected);
    assert_eq!(
        summary("Pod", "p", &causes[1..2]),
        r#"Pod "p" is invalid: spec.resources[storage]: Required value"#
    );
}

#[test]
#[expect(clippy::too_many_lines, reason = "one flat table")]
fn metadata_is_checked_for_every_kind() {
    let sound = json!({"metadata": {"name": "c", "namespace": "default"}, "data": {"key": "value"}});
    let label = "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')";
    let key = format!(r#"metadata.labels: Invalid value: "-": name part {label}"#);
    let owner = json!([{"apiVersion": "v1", "kind": "Pod", "name": "", "uid": "u"}]);
    creates(
        Gvk::new("v1", "ConfigMap"),
        &sound,
        vec![
            (
                "without a name",
                vec![("/metadata/name", Value::Null)],
                vec!["metadata.name: Required value: name or generateName is required"],
            ),
            (
                "without a namespace",
                vec![("/metadata/namespace", Value::Null)],
                vec!["metadata.namespace: Required value"],
            ),
            (
                "label",
                vec![("/metadata/labels", json!({"-": "x"}))],
                vec![key.as_str()],
            ),
            (
                "owner",
                vec![("/metadata/ownerReferences", owner)],
                vec![r#"metadata.ownerReferences.name: Invalid value: "": must not be empty"#],
            ),
            (
                "finalizer of nobody",
                vec![("/metadata/finalizers", json!(["a", "kubernetes", "x.io/a"]))],
                vec![
                    r#"metadata.finalizers[0]: Invalid value: "a": name is neither a standard finalizer name nor is it fully qualified"#,
                ],
            ),
            (
                "finalizer",
                vec![("/metadata/finalizers", json!(["a/b/c"]))],
                vec![
                    r#"metadata.finalizers: Invalid value: "a/b/c": a valid label key must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]') with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')"#,
                ],
            ),
            (
                "annotations",
                vec![("/metadata/annotations", json!({"a": "x".repeat(300_000)}))],
                vec!["metadata.annotations: Too long: may not be more than 262144 bytes"],
            ),
        ],
    );
    let class = json!({"metadata": {"name": "fast", "namespace": "n"}, "provisioner": "d"});
    let causes = create(
        Registry::builtin(),
        Gvk::new("storage.k8s.io/v1", "StorageClass"),
        &defaulted(Gvk::new("storage.k8s.io/v1", "StorageClass"), class),
    );
    assert_eq!(
        texts(&causes),
        ["metadata.namespace: Forbidden: not allowed on this type"]
    );
    let role = json!({"metadata": {"name": "system:node:a"}});
    assert_eq!(
        create(
            Registry::builtin(),
            Gvk::new("rbac.authorization.k8s.io/v1", "ClusterRole"),
            &role
        ),
        vec![]
    );
    updates(
        Gvk::new("v1", "ConfigMap"),
        &json!({"metadata": {"name": "c", "namespace": "default", "uid": "u"}}),
        vec![(
            "uid",
            vec![("/metadata/uid", json!("v"))],
            vec![r#"metadata.uid: Invalid value: "v": field is immutable"#],
        )],
    );
}

#[test]
fn what_is_immutable_stays() {
    let sound = json!({"metadata": {"name": "c", "namespace": "default"}, "data": {"key": "AA=="}, "immutable": true});
    for kind in ["ConfigMap", "Secret"] {
        updates(
            Gvk::new("v1", kind),
            &sound,
            vec![
                (
                    "data",
                    vec![("/data/key", json!("AAA="))],
                    vec!["data: Forbidden: field is immutable when `immutable` is set"],
                ),
                (
                    "flag",
                    vec![("/immutable", json!(false))],
                    vec!["immutable: Forbidden: field is immutable when `immutable` is set"],
                ),
                (
                    "labels may change",
                    vec![("/metadata/labels", json!({"a": "b"}))],
                    vec![],
                ),
            ],
        );
    }
    let secret = json!({"metadata": {"name": "c", "namespace": "default"}, "type": "a"});
    updates(
        Gvk::new("v1", "Secret"),
        &secret,
        vec![(
            "type",
            vec![("/type", json!("b"))],
            vec![r#"type: Invalid value: "b": field is immutable"#],
        )],
    );
}

#[test]
#[expect(clippy::too_many_lines, reason = "one flat table")]
fn configuration_and_identities_are_checked() {
    let secret = json!({"metadata": {"name": "s", "namespace": "default"}, "type": "kubernetes.io/tls", "data": {"tls.crt": "AA==", "tls.key": "AA=="}});
    creates(
        Gvk::new("v1", "Secret"),
        &secret,
        vec![
            (
                "key missing",
                vec![("/data/tls.key", Value::Null)],
                vec!["data[tls.key]: Required value"],
            ),
            (
                "bad key",
                vec![("/data/..", json!("AA=="))],
                vec![r#"data[..]: Invalid value: "..": must not be '..'"#],
            ),
            (
                "account",
                vec![("/type", json!("kubernetes.io/service-account-token"))],
                vec!["metadata.annotations[kubernetes.io/service-account.name]: Required value"],
            ),
            (
                "login",
                vec![("/type", json!("kubernetes.io/basic-auth"))],
                vec!["data[username]: Required value", "data[password]: Required value"],
            ),
            (
                "registry",
                vec![("/type", json!("kubernetes.io/dockerconfigjson"))],
                vec!["data[.dockerconfigjson]: Required value"],
            ),
        ],
    );
    let config = json!({"metadata": {"name": "c", "namespace": "default"}, "data": {"a": "x"}, "binaryData": {"b": "AA=="}});
    creates(
        Gvk::new("v1", "ConfigMap"),
        &config,
        vec![
            (
                "key twice",
                vec![("/binaryData/a", json!("AA=="))],
                vec![r#"data[a]: Invalid value: "a": duplicate of key present in binaryData"#],
            ),
            (
                "too much",
                vec![("/data/a", json!("x".repeat(1_100_000)))],
                vec!["[]: Too long: may not be more than 1048576 bytes"],
            ),
        ],
    );
    let lease = json!({"metadata": {"name": "l", "namespace": "default"}, "spec": {"holderIdentity": "h", "leaseDurationSeconds": 15}});
    creates(
        Gvk::new("coordination.k8s.io/v1", "Lease"),
        &lease,
        vec![
            // Leader election gives a lease back with an empty holder.
            ("released", vec![("/spec/holderIdentity", json!(""))], vec![]),
            (
                "duration",
                vec![("/spec/leaseDurationSeconds", json!(0))],
                vec!["spec.leaseDurationSeconds: Invalid value: 0: must be greater than 0"],
            ),
            (
                "transitions",
                vec![("/spec/leaseTransitions", json!(-1))],
                vec!["spec.leaseTransitions: Invalid value: -1: must be greater than or equal to 0"],
            ),
        ],
    );
    let node = json!({"metadata": {"name": "n"}, "spec": {"taints": [{"key": "a", "effect": "NoSchedule"}]}, "status": {"capacity": {"cpu": "2"}}});
    let twice =
        json!([{"key": "a", "effect": "NoSchedule"}, {"key": "a", "effect": "NoSchedule", "value": "v"}]);
    creates(
        Gvk::new("v1", "Node"),
        &node,
        vec![
            (
                "effect",
                vec![("/spec/taints/0/effect", json!("Never"))],
                vec![
                    r#"metadata.taints[0].effect: Unsupported value: "Never": supported values: "NoSchedule", "PreferNoSchedule", "NoExecute""#,
                ],
            ),
            (
                "twice",
                vec![("/spec/taints", twice)],
                vec![
                    r#"metadata.taints[1]: Duplicate value: {"effect":"NoSchedule","key":"a","value":"v"}: taints must be unique by key and effect pair"#,
                ],
            ),
            (
                "negative",
                vec![("/status/capacity/cpu", json!("-1"))],
                vec![
                    r#"status.capacity.cpu: Invalid value: "-1": must be greater than or equal to 0"#,
                    r#"status.allocatable.cpu: Invalid value: "-1": must be greater than or equal to 0"#,
                ],
            ),
        ],
    );
}

#[test]
fn events_belong_to_their_objects_namespace() {
    let event = json!({"metadata": {"name": "e", "namespace": "n"}, "involvedObject": {"kind": "Pod", "namespace": "n", "name": "p"}, "reason": "R", "type": "Normal"});
    let about_node = json!({"kind": "Node", "name": "n"});
    creates(
        Gvk::new("v1", "Event"),
        &event,
        vec![
            (
                "other namespace",
                vec![("/involvedObject/namespace", json!("m"))],
                vec![r#"involvedObject.namespace: Invalid value: "m": does not match event.namespace"#],
            ),
            (
                "about a node",
                vec![("/involvedObject", about_node.clone())],
                vec![r#"involvedObject.namespace: Invalid value: "": does not match event.namespace"#],
            ),
            (
                "about a node, in its place",
                vec![
                    ("/involvedObject", about_node),
                    ("/metadata/namespace", json!("default")),
                ],
                vec![],
            ),
            (
                "new form",
                vec![("/eventTime", json!("2024-01-02T03:04:05.000000Z"))],
                vec![
                    "reportingComponent: Required value",
                    "reportingInstance: Required value",
                    "action: Required value",
                ],
            ),
        ],
    );
}

#[test]
#[expect(clippy::too_many_lines, reason = "one flat table")]
fn services_and_endpoints_are_checked_as_data() {
    let service = json!({"metadata": {"name": "s", "namespace": "default"}, "spec": {"clusterIP": "10.0.0.1", "ports": [{"port": 80}]}});
    creates(
        Gvk::new("v1", "Service"),
        &service,
        vec![
            (
                "no ports",
                vec![("/spec/ports", json!([]))],
                vec!["spec.ports: Required value"],
            ),
            (
                "headless",
                vec![("/spec/ports", json!([])), ("/spec/clusterIP", json!("None"))],
                vec![],
            ),
            (
                "port",
                vec![("/spec/ports/0/port", json!(70000))],
                vec![
                    "spec.ports[0].port: Invalid value: 70000: must be between 1 and 65535, inclusive",
                    "spec.ports[0].targetPort: Invalid value: 70000: must be between 1 and 65535, inclusive",
                ],
            ),
            (
                "names needed",
                vec![("/spec/ports/-", json!({"port": 81, "name": "a"}))],
                vec!["spec.ports[0].name: Required value"],
            ),
            (
                "type",
                vec![("/spec/type", json!("Magic"))],
                vec![
                    r#"spec.type: Unsupported value: "Magic": supported values: "ClusterIP", "ExternalName", "LoadBalancer", "NodePort""#,
                ],
            ),
            (
                "name",
                vec![("/metadata/name", json!("0s"))],
                vec![
                    r#"metadata.name: Invalid value: "0s": a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for validation is '[a-z]([-a-z0-9]*[a-z0-9])?')"#,
                ],
            ),
            (
                "address",
                vec![("/spec/clusterIP", json!("x"))],
                vec![
                    r#"spec.clusterIPs[0]: Invalid value: "x": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)"#,
                ],
            ),
        ],
    );
    creates(
        Gvk::new("v1", "Service"),
        &service,
        vec![
            (
                "of another type",
                vec![
                    ("/spec/ports/0/nodePort", json!(30_000)),
                    ("/spec/loadBalancerClass", json!("a/b")),
                    ("/spec/externalTrafficPolicy", json!("Local")),
                ],
                vec![
                    "spec.loadBalancerClass: Forbidden: may only be used when `type` is 'LoadBalancer'",
                    r#"spec.externalTrafficPolicy: Invalid value: "Local": may only be set for externally-accessible services"#,
                    "spec.ports[0].nodePort: Forbidden: may not be used when `type` is 'ClusterIP'",
                ],
            ),
            (
                "addresses that differ",
                vec![("/spec/clusterIPs", json!(["10.0.0.2"]))],
                vec![r#"spec.clusterIPs: Invalid value: ["10.0.0.2"]: first value must match `clusterIP`"#],
            ),
            (
                "headless at ports of nodes",
                vec![
                    ("/spec/type", json!("NodePort")),
                    ("/spec/clusterIP", json!("None")),
                ],
                vec![
                    r#"spec.clusterIPs[0]: Invalid value: "None": may not be set to 'None' for NodePort services"#,
                ],
            ),
            (
                "both families",
                vec![
                    ("/spec/ipFamilyPolicy", json!("RequireDualStack")),
                    ("/spec/ipFamilies", json!(["IPv6"])),
                ],
                vec![
                    r#"spec.ipFamilies[0]: Invalid value: "IPv6": not configured on this cluster"#,
                    r#"spec.ipFamilyPolicy: Invalid value: "RequireDualStack": this cluster is not configured for dual-stack services"#,
                ],
            ),
            (
                "affinity",
                vec![("/spec/sessionAffinityConfig", json!({"clientIP": {}}))],
                vec!["spec.sessionAffinityConfig: Forbidden: must not be set when session affinity is None"],
            ),
            (
                "a long affinity",
                vec![
                    ("/spec/sessionAffinity", json!("ClientIP")),
                    (
                        "/spec/sessionAffinityConfig",
                        json!({"clientIP": {"timeoutSeconds": 86_401}}),
                    ),
                ],
                vec![
                    "spec.sessionAffinityConfig.clientIP.timeoutSeconds: Invalid value: 86401: must be greater than 0 and less than 86400",
                ],
            ),
        ],
    );
    updates(
        Gvk::new("v1", "Service"),
        &service,
        vec![
            (
                "address",
                vec![("/spec/clusterIP", json!("10.0.0.2"))],
                vec![r#"spec.clusterIPs[0]: Invalid value: "10.0.0.2": may not change once set"#],
            ),
            (
                "ports may change",
                vec![("/spec/ports/0/port", json!(81))],
                vec![],
            ),
        ],
    );
    let endpoints = json!({"metadata": {"name": "s", "namespace": "default"}, "subsets": [{"addresses": [{"ip": "1.2.3.4"}], "ports": [{"port": 80}]}]});
    creates(
        Gvk::new("v1", "Endpoints"),
        &endpoints,
        vec![
            (
                "address",
                vec![("/subsets/0/addresses/0/ip", json!("x"))],
                vec![
                    r#"subsets[0].addresses[0].ip: Invalid value: "x": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)"#,
                ],
            ),
            (
                "nobody",
                vec![("/subsets/0/addresses", json!([]))],
                vec!["subsets[0]: Required value: must specify `addresses` or `notReadyAddresses`"],
            ),
        ],
    );
}

#[test]
fn roles_and_bindings_are_checked() {
    let role = json!({"metadata": {"name": "r", "namespace": "default"}, "rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}]});
    creates(
        Gvk::new("rbac.authorization.k8s.io/v1", "Role"),
        &role,
        vec![
            (
                "verbs",
                vec![("/rules/0/verbs", json!([]))],
                vec!["rules[0].verbs: Required value: verbs must contain at least one value"],
            ),
            (
                "groups",
                vec![("/rules/0/apiGroups", json!([]))],
                vec!["rules[0].apiGroups: Required value: resource rules must supply at least one api group"],
            ),
            (
                "paths",
                vec![("/rules/0", json!({"verbs": ["get"], "nonResourceURLs": ["/x"]}))],
                vec![
                    r#"rules[0].nonResourceURLs: Invalid value: ["/x"]: namespaced rules cannot apply to non-resource URLs"#,
                ],
            ),
        ],
    );
    let binding = json!({"metadata": {"name": "b"}, "roleRef": {"kind": "ClusterRole", "name": "r"}, "subjects": [{"kind": "User", "name": "u"}]});
    let gvk = Gvk::new("rbac.authorization.k8s.io/v1", "ClusterRoleBinding");
    creates(
        gvk,
        &binding,
        vec![
            (
                "kind",
                vec![("/roleRef/kind", json!("Role"))],
                vec![r#"roleRef.kind: Unsupported value: "Role": supported values: "ClusterRole""#],
            ),
            (
                "subject",
                vec![("/subjects/0/kind", json!("ServiceAccount"))],
                vec!["subjects[0].namespace: Required value"],
            ),
            (
                "who",
                vec![("/subjects/0/kind", json!("Robot"))],
                vec![
                    r#"subjects[0].kind: Unsupported value: "Robot": supported values: "ServiceAccount", "User", "Group""#,
                ],
            ),
        ],
    );
    updates(
        gvk,
        &binding,
        vec![
            (
                "role",
                vec![("/roleRef/name", json!("q"))],
                vec![
                    r#"roleRef: Invalid value: {"apiGroup":"rbac.authorization.k8s.io","kind":"ClusterRole","name":"q"}: cannot change roleRef"#,
                ],
            ),
            (
                "subjects may change",
                vec![("/subjects/0/name", json!("v"))],
                vec![],
            ),
        ],
    );
}
