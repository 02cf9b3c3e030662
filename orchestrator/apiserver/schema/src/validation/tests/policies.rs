//! Quotas, limits, budgets, slices of endpoints, admission, and the kinds whose schema says most.

use serde_json::json;

use super::super::*;
use super::{creates, texts, updates};

fn named(name: &str, mut object: Value) -> Value {
    object["metadata"] = json!({"name": name, "namespace": "default"});
    object
}

fn cluster(name: &str, mut object: Value) -> Value {
    object["metadata"] = json!({"name": name});
    object
}

#[test]
#[expect(clippy::too_many_lines, reason = "one flat table")]
fn quotas_and_limits() {
    let gvk = Gvk::new("v1", "ResourceQuota");
    let quota = named(
        "q",
        json!({"spec": {"hard": {"pods": "3", "requests.cpu": "1500m", "count/jobs.batch": "2"}, "scopes": ["BestEffort"]}}),
    );
    creates(
        gvk,
        &quota,
        vec![
            (
                "negative, and a part of a pod",
                vec![("/spec/hard", json!({"cpu": "-1", "pods": "500m"}))],
                vec![
                    r#"spec.hard[cpu]: Invalid value: "-1": must be greater than or equal to 0"#,
                    r#"spec.hard[pods]: Invalid value: "500m": must be an integer"#,
                ],
            ),
            (
                "unknown",
                vec![("/spec/hard", json!({"magic": "1"}))],
                vec![r#"spec.hard[magic]: Invalid value: "magic": must be a standard resource for quotas"#],
            ),
            (
                "scopes",
                vec![("/spec/scopes", json!(["BestEffort", "NotBestEffort", "x"]))],
                vec![
                    r#"spec.scopes: Invalid value: ["BestEffort","NotBestEffort","x"]: unsupported scope"#,
                    r#"spec.scopes: Invalid value: ["BestEffort","NotBestEffort","x"]: conflicting scopes"#,
                ],
            ),
            (
                "scope selector",
                vec![(
                    "/spec/scopeSelector",
                    json!({"matchExpressions": [{"scopeName": "PriorityClass", "operator": "In"}]}),
                )],
                vec![
                    "spec.scopeSelector.matchExpressions[0].values: Required value: must be at least one value when `operator` is 'In' or 'NotIn' for scope selector",
                ],
            ),
        ],
    );
    updates(
        gvk,
        &quota,
        vec![
            ("amounts", vec![("/spec/hard/pods", json!("4"))], vec![]),
            (
                "scopes",
                vec![("/spec/scopes", json!([]))],
                vec!["spec.scopes: Invalid value: []: field is immutable"],
            ),
        ],
    );
    let range = named(
        "l",
        json!({"spec": {"limits": [{"type": "Container", "max": {"cpu": "2"}, "min": {"cpu": "1"}}]}}),
    );
    creates(
        Gvk::new("v1", "LimitRange"),
        &range,
        vec![
            (
                "upside down",
                vec![("/spec/limits/0/min/cpu", json!("3"))],
                vec![
                    r#"spec.limits[0].min[cpu]: Invalid value: "3": min value 3 is greater than max value 2"#,
                    r#"spec.limits[0].min[cpu]: Invalid value: "3": min value 3 is greater than default request value 2"#,
                ],
            ),
            (
                "twice",
                vec![("/spec/limits/-", json!({"type": "Container"}))],
                vec![r#"spec.limits[1].type: Duplicate value: "Container""#],
            ),
            (
                "of pods",
                vec![("/spec/limits", json!([{"type": "Pod", "default": {"cpu": "1"}}]))],
                vec!["spec.limits[0].default: Forbidden: may not be specified when `type` is 'Pod'"],
            ),
            (
                "of claims",
                vec![("/spec/limits", json!([{"type": "PersistentVolumeClaim"}]))],
                vec![
                    "spec.limits[0]: Required value: either minimum or maximum storage value is required, but neither was provided",
                ],
            ),
            (
                "ratio",
                vec![("/spec/limits/0/maxLimitRequestRatio", json!({"cpu": "500m"}))],
                vec![
                    r#"spec.limits[0].maxLimitRequestRatio[cpu]: Invalid value: "500m": ratio 500m is less than 1"#,
                ],
            ),
        ],
    );
}

#[test]
#[expect(clippy::too_many_lines, reason = "one flat table")]
fn budgets_and_slices() {
    creates(
        Gvk::new("policy/v1", "PodDisruptionBudget"),
        &named(
            "b",
            json!({"spec": {"minAvailable": 1, "selector": {"matchLabels": {"a": "b"}}}}),
        ),
        vec![
            (
                "both",
                vec![("/spec/maxUnavailable", json!(1))],
                vec![
                    r#"spec: Invalid value: {"maxUnavailable":1,"minAvailable":1,"selector":{"matchLabels":{"a":"b"}}}: minAvailable and maxUnavailable cannot be both set"#,
                ],
            ),
            (
                "too much",
                vec![("/spec/minAvailable", json!("101%"))],
                vec![r#"spec.minAvailable: Invalid value: "101%": must not be greater than 100%"#],
            ),
            (
                "policy",
                vec![("/spec/unhealthyPodEvictionPolicy", json!("x"))],
                vec![
                    r#"spec.unhealthyPodEvictionPolicy: Unsupported value: "x": supported values: "AlwaysAllow", "IfHealthyBudget""#,
                ],
            ),
        ],
    );
    let slice = named(
        "s",
        json!({"addressType": "IPv4", "endpoints": [{"addresses": ["10.1.2.3"]}], "ports": [{"port": 80}]}),
    );
    let gvk = Gvk::new("discovery.k8s.io/v1", "EndpointSlice");
    creates(
        gvk,
        &slice,
        vec![
            (
                "no kind",
                vec![("/addressType", Value::Null)],
                vec!["addressType: Required value"],
            ),
            (
                "no addresses",
                vec![("/endpoints/0/addresses", json!([]))],
                vec!["endpoints[0].addresses: Required value: must contain at least 1 address"],
            ),
            (
                "other addresses",
                vec![("/endpoints/0/addresses", json!(["::1", "127.0.0.1"]))],
                vec![
                    r#"endpoints[0].addresses[0]: Invalid value: "::1": must be a valid IPv4 address"#,
                    r#"endpoints[0].addresses[1]: Invalid value: "127.0.0.1": may not be in the unspecified, loopback or multicast range"#,
                ],
            ),
            (
                "ports alike",
                vec![("/ports/-", json!({"port": 81}))],
                vec![r#"ports[1].name: Duplicate value: """#],
            ),
        ],
    );
    updates(
        gvk,
        &slice,
        vec![(
            "kind",
            vec![
                ("/addressType", json!("FQDN")),
                ("/endpoints/0/addresses", json!(["a.example.com"])),
            ],
            vec![r#"addressType: Invalid value: "FQDN": field is immutable"#],
        )],
    );
}

#[test]
#[expect(clippy::too_many_lines, reason = "one flat table")]
fn admission() {
    let rule =
        json!({"apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"], "operations": ["CREATE"]});
    let hook = json!({"name": "a.b.example.com", "clientConfig": {"url": "https://localhost/x"}, "sideEffects": "None",
        "admissionReviewVersions": ["v1"], "rules": [rule]});
    creates(
        Gvk::new("admissionregistration.k8s.io/v1", "MutatingWebhookConfiguration"),
        &cluster("m", json!({"webhooks": [hook]})),
        vec![
            (
                "name",
                vec![("/webhooks/0/name", json!("short"))],
                vec![
                    r#"webhooks[0].name: Invalid value: "short": should be a domain with at least three segments separated by dots"#,
                ],
            ),
            (
                "nobody to call",
                vec![("/webhooks/0/clientConfig", json!({}))],
                vec!["webhooks[0].clientConfig: Required value: exactly one of url or service is required"],
            ),
            (
                "in the clear",
                vec![("/webhooks/0/clientConfig/url", json!("http://localhost"))],
                vec![
                    r#"webhooks[0].clientConfig.url: Invalid value: "http://localhost": 'https' is the only allowed URL scheme"#,
                ],
            ),
            (
                "side effects, versions, time",
                vec![
                    ("/webhooks/0/sideEffects", json!("Some")),
                    ("/webhooks/0/admissionReviewVersions", json!(["v2"])),
                    ("/webhooks/0/timeoutSeconds", json!(31)),
                ],
                vec![
                    r#"webhooks[0].admissionReviewVersions: Invalid value: ["v2"]: must include at least one of v1, v1beta1"#,
                    r#"webhooks[0].sideEffects: Unsupported value: "Some": supported values: "None", "NoneOnDryRun""#,
                    "webhooks[0].timeoutSeconds: Invalid value: 31: the timeout value must be between 1 and 30 seconds",
                ],
            ),
            (
                "operations",
                vec![("/webhooks/0/rules/0/operations", json!(["READ"]))],
                vec![
                    r#"webhooks[0].rules[0].operations[0]: Unsupported value: "READ": supported values: "*", "CONNECT", "CREATE", "DELETE", "UPDATE""#,
                ],
            ),
        ],
    );
    creates(
        Gvk::new("admissionregistration.k8s.io/v1", "ValidatingAdmissionPolicy"),
        &cluster(
            "p",
            json!({"spec": {"matchConstraints": {"resourceRules": [rule]}, "validations": [{"expression": "true"}]}}),
        ),
        vec![
            (
                "nothing to say",
                vec![("/spec/validations", json!([]))],
                vec!["spec.validations: Required value: validations or auditAnnotations must be non-empty"],
            ),
            (
                "for nobody",
                vec![("/spec/matchConstraints", Value::Null)],
                vec!["spec.matchConstraints: Required value"],
            ),
        ],
    );
    creates(
        Gvk::new(
            "admissionregistration.k8s.io/v1",
            "ValidatingAdmissionPolicyBinding",
        ),
        &cluster(
            "b",
            json!({"spec": {"policyName": "p", "validationActions": ["Deny"]}}),
        ),
        vec![(
            "twice told",
            vec![("/spec/validationActions", json!(["Deny", "Warn"]))],
            vec![
                r#"spec.validationActions: Invalid value: ["Deny","Warn"]: must not contain both Deny and Warn (repeating the same validation failure information in the API response and headers serves no purpose)"#,
            ],
        )],
    );
}

#[test]
#[expect(clippy::too_many_lines, reason = "one flat table")]
fn what_the_schema_requires_and_a_little_more() {
    let faults = |api_version: &'static str, kind: &'static str, object: Value| {
        let object = super::defaulted(Gvk::new(api_version, kind), object);
        texts(&create(Registry::builtin(), Gvk::new(api_version, kind), &object))
    };
    let path = json!({"path": "x", "pathType": "Prefix", "backend": {"service": {"name": "s", "port": {"number": 80}}}});
    let cases = [
        (
            "autoscaling/v2",
            "HorizontalPodAutoscaler",
            named(
                "h",
                json!({"spec": {"minReplicas": 2, "maxReplicas": 1, "scaleTargetRef": {"kind": "Deployment"}}}),
            ),
            vec![
                "spec.scaleTargetRef.name: Required value",
                "spec.maxReplicas: Invalid value: 1: must be greater than or equal to `minReplicas`",
            ],
        ),
        (
            "networking.k8s.io/v1",
            "Ingress",
            named(
                "i",
                json!({"spec": {"rules": [{"host": "1.2.3.4", "http": {"paths": [path]}}]}}),
            ),
            vec![
                r#"spec.rules[0].host: Invalid value: "1.2.3.4": must be a DNS name, not an IP address"#,
                r#"spec.rules[0].http.paths[0].path: Invalid value: "x": must be an absolute path"#,
            ],
        ),
        (
            "networking.k8s.io/v1",
            "NetworkPolicy",
            named(
                "n",
                json!({"spec": {"podSelector": {}, "ingress": [{"from": [{"ipBlock": {"cidr": "10.0.0.0/40"}}, {}]}]}}),
            ),
            vec![
                r#"spec.ingress[0].from[0].ipBlock.cidr: Invalid value: "10.0.0.0/40": must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)"#,
                "spec.ingress[0].from[1]: Required value: must specify a peer",
            ],
        ),
        (
            "scheduling.k8s.io/v1",
            "PriorityClass",
            cluster("mine", json!({"value": 1_000_000_001, "preemptionPolicy": "x"})),
            vec![
                r#"preemptionPolicy: Unsupported value: "x": supported values: "Never", "PreemptLowerPriority""#,
                "value: Forbidden: maximum allowed value of a user defined priority is 1000000000",
            ],
        ),
        (
            "node.k8s.io/v1",
            "RuntimeClass",
            cluster("r", json!({})),
            vec!["handler: Required value"],
        ),
        (
            "certificates.k8s.io/v1",
            "CertificateSigningRequest",
            cluster(
                "c",
                json!({"spec": {"request": "AAAA", "signerName": "me", "expirationSeconds": 1}}),
            ),
            vec![
                r#"spec.request: Invalid value: "AAAA": PEM block type must be CERTIFICATE REQUEST"#,
                "spec.usages: Required value",
                r#"spec.signerName: Invalid value: "me": must be a fully qualified domain and path of the form 'example.com/signer-name'"#,
                "spec.expirationSeconds: Invalid value: 1: may not specify a duration less than 600 seconds (10 minutes)",
            ],
        ),
        (
            "flowcontrol.apiserver.k8s.io/v1",
            "FlowSchema",
            cluster("f", json!({"spec": {}})),
            vec!["spec.priorityLevelConfiguration.name: Required value"],
        ),
    ];
    for (api_version, kind, object, expected) in cases {
        assert_eq!(faults(api_version, kind, object), expected, "{kind}");
    }
    updates(
        Gvk::new("scheduling.k8s.io/v1", "PriorityClass"),
        &cluster("mine", json!({"value": 1})),
        vec![(
            "value",
            vec![("/value", json!(2))],
            vec!["value: Forbidden: may not be changed in an update."],
        )],
    );
    updates(
        Gvk::new("node.k8s.io/v1", "RuntimeClass"),
        &cluster("r", json!({"handler": "a"})),
        vec![(
            "handler",
            vec![("/handler", json!("b"))],
            vec![r#"handler: Invalid value: "b": field is immutable"#],
        )],
    );
}

#[test]
fn a_decision_on_a_certificate_is_not_taken_back() {
    let request = |conditions: Value, certificate: Value| json!({"metadata": {"name": "c"}, "status": {"conditions": conditions, "certificate": certificate}});
    let gvk = Gvk::new("certificates.k8s.io/v1", "CertificateSigningRequest");
    let approved = json!([{"type": "Approved"}]);
    let cases = [
        (
            "approved",
            request(json!([]), json!(null)),
            request(approved.clone(), json!(null)),
            vec![],
        ),
        (
            "taken back",
            request(approved.clone(), json!(null)),
            request(json!([]), json!(null)),
            vec![r#"status.conditions: Forbidden: updates may not remove a condition of type "Approved""#],
        ),
        (
            "both",
            request(json!([]), json!(null)),
            request(json!([{"type": "Approved"}, {"type": "Denied"}]), json!(null)),
            vec![
                r#"status.conditions: Invalid value: "Denied": Approved and Denied conditions are mutually exclusive"#,
            ],
        ),
        (
            "another certificate",
            request(approved.clone(), json!("AA==")),
            request(approved, json!("AB==")),
            vec![r#"status.certificate: Invalid value: "AB==": field is immutable"#],
        ),
    ];
    for (case, old, new, expected) in cases {
        assert_eq!(
            texts(&status_update(Registry::builtin(), gvk, &old, &new)),
            expected,
            "{case}"
        );
    }
}
