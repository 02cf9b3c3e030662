//! What is filled in, kind by kind.

use serde_json::json;

use super::*;

fn defaulted(api_version: &str, kind: &str, mut object: Value) -> Value {
    let gvk = Gvk::new(api_version, kind);
    apply(Registry::builtin(), gvk, &mut object);
    let once = object.clone();
    apply(Registry::builtin(), gvk, &mut object);
    assert_eq!(
        object, once,
        "{kind}: applying the defaults again changes something"
    );
    object
}

#[test]
fn a_pod_gets_its_defaults() {
    let pod = json!({"spec": {
        "serviceAccountName": "robot",
        "containers": [{
            "name": "c", "image": "registry:5000/busybox",
            "ports": [{"containerPort": 80}],
            "env": [{"name": "E", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}],
            "resources": {"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "500m"}},
            "livenessProbe": {"httpGet": {"port": 80}},
            "readinessProbe": {"grpc": {"port": 1}, "periodSeconds": 3},
            "lifecycle": {"preStop": {"httpGet": {"port": 80, "path": "/stop"}}},
        }],
        "initContainers": [{"name": "i", "image": "busybox:1.36", "imagePullPolicy": "Never"}],
        "volumes": [
            {"name": "nothing"},
            {"name": "s", "secret": {"secretName": "s"}},
            {"name": "h", "hostPath": {"path": "/x"}},
            {"name": "p", "projected": {"sources": [
                {"serviceAccountToken": {"path": "token"}},
                {"downwardAPI": {"items": [{"path": "a", "fieldRef": {"fieldPath": "metadata.name"}}]}},
            ]}},
            {"name": "e", "ephemeral": {"volumeClaimTemplate": {"spec": {}}}},
        ],
    }});
    let expected = json!({"spec": {
        "restartPolicy": "Always", "dnsPolicy": "ClusterFirst", "schedulerName": "default-scheduler",
        "terminationGracePeriodSeconds": 30, "enableServiceLinks": true, "securityContext": {},
        "serviceAccountName": "robot", "serviceAccount": "robot",
        "containers": [{
            "name": "c", "image": "registry:5000/busybox", "imagePullPolicy": "Always",
            "terminationMessagePath": "/dev/termination-log", "terminationMessagePolicy": "File",
            "ports": [{"containerPort": 80, "protocol": "TCP"}],
            "env": [{"name": "E", "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.name"}}}],
            "resources": {"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "500m", "memory": "1Gi"}},
            "livenessProbe": {"httpGet": {"port": 80, "path": "/", "scheme": "HTTP"}, "timeoutSeconds": 1, "periodSeconds": 10, "successThreshold": 1, "failureThreshold": 3},
            "readinessProbe": {"grpc": {"port": 1, "service": ""}, "timeoutSeconds": 1, "periodSeconds": 3, "successThreshold": 1, "failureThreshold": 3},
            "lifecycle": {"preStop": {"httpGet": {"port": 80, "path": "/stop", "scheme": "HTTP"}}},
        }],
        "initContainers": [{"name": "i", "image": "busybox:1.36", "imagePullPolicy": "Never", "terminationMessagePath": "/dev/termination-log", "terminationMessagePolicy": "File"}],
        "volumes": [
            {"name": "nothing", "emptyDir": {}},
            {"name": "s", "secret": {"secretName": "s", "defaultMode": 420}},
            {"name": "h", "hostPath": {"path": "/x", "type": ""}},
            {"name": "p", "projected": {"defaultMode": 420, "sources": [
                {"serviceAccountToken": {"path": "token", "expirationSeconds": 3600}},
                {"downwardAPI": {"items": [{"path": "a", "fieldRef": {"fieldPath": "metadata.name", "apiVersion": "v1"}}]}},
            ]}},
            {"name": "e", "ephemeral": {"volumeClaimTemplate": {"spec": {"volumeMode": "Filesystem"}}}},
        ],
    }});
    assert_eq!(defaulted("v1", "Pod", pod), expected);
}

#[test]
fn what_a_pod_says_itself_stays() {
    let spec = json!({"restartPolicy": "Never", "terminationGracePeriodSeconds": 0, "enableServiceLinks": false, "hostNetwork": true,
        "containers": [{"name": "c", "image": "a@sha256:00", "ports": [{"containerPort": 80}, {"containerPort": 81, "hostPort": 82}]}]});
    let pod = defaulted("v1", "Pod", json!({"spec": spec}));
    assert_eq!(pod["spec"]["restartPolicy"], "Never");
    assert_eq!(pod["spec"]["terminationGracePeriodSeconds"], 0);
    assert_eq!(pod["spec"]["enableServiceLinks"], false);
    assert_eq!(pod["spec"]["containers"][0]["ports"][0]["hostPort"], 80);
    assert_eq!(pod["spec"]["containers"][0]["ports"][1]["hostPort"], 82);
}

#[test]
fn pull_policy_follows_the_tag() {
    let cases = [
        ("a", "Always"),
        ("a:latest", "Always"),
        ("a:1", "IfNotPresent"),
        ("host:5000/a", "Always"),
        ("host:5000/a:1", "IfNotPresent"),
        ("a@sha256:00", "IfNotPresent"),
        ("a:latest@sha256:00", "Always"),
        ("", "IfNotPresent"),
        ("not an image", "IfNotPresent"),
    ];
    for (image, policy) in cases {
        assert_eq!(containers::pull_policy(image), policy, "{image}");
    }
}

#[test]
fn storage_kinds_get_their_defaults() {
    let pv = defaulted(
        "v1",
        "PersistentVolume",
        json!({"spec": {"hostPath": {"path": "/x"}}}),
    );
    let expected = json!({"spec": {"hostPath": {"path": "/x", "type": ""}, "persistentVolumeReclaimPolicy": "Retain", "volumeMode": "Filesystem"}, "status": {"phase": "Pending"}});
    assert_eq!(pv, expected);
    let claim = defaulted(
        "v1",
        "PersistentVolumeClaim",
        json!({"spec": {"volumeMode": "Block"}}),
    );
    assert_eq!(
        claim,
        json!({"spec": {"volumeMode": "Block"}, "status": {"phase": "Pending"}})
    );
    let class = defaulted(
        "storage.k8s.io/v1",
        "StorageClass",
        json!({"provisioner": "d", "reclaimPolicy": "Retain"}),
    );
    assert_eq!(
        class,
        json!({"provisioner": "d", "reclaimPolicy": "Retain", "volumeBindingMode": "Immediate"})
    );
    let driver = defaulted(
        "storage.k8s.io/v1",
        "CSIDriver",
        json!({"spec": {"attachRequired": false}}),
    );
    let expected = json!({"spec": {
        "attachRequired": false, "podInfoOnMount": false, "storageCapacity": false, "fsGroupPolicy": "ReadWriteOnceWithFSType",
        "volumeLifecycleModes": ["Persistent"], "requiresRepublish": false, "seLinuxMount": false,
    }});
    assert_eq!(driver, expected);
}

#[test]
fn a_claims_data_source_has_two_names() {
    let snapshot = json!({"apiGroup": "snapshot.storage.k8s.io", "kind": "VolumeSnapshot", "name": "s"});
    let other = json!({"apiGroup": "example.com", "kind": "Backup", "name": "b"});
    let far = json!({"kind": "PersistentVolumeClaim", "name": "c", "namespace": "n"});
    let cases = [
        (
            "old to new",
            json!({"dataSource": snapshot}),
            json!({"dataSource": snapshot, "dataSourceRef": snapshot}),
        ),
        (
            "new to old",
            json!({"dataSourceRef": other}),
            json!({"dataSource": other, "dataSourceRef": other}),
        ),
        (
            "unknown old one is dropped",
            json!({"dataSource": other}),
            json!({}),
        ),
        (
            "other namespace has no old form",
            json!({"dataSourceRef": far}),
            json!({"dataSourceRef": far}),
        ),
        (
            "both stay",
            json!({"dataSource": snapshot, "dataSourceRef": other}),
            json!({"dataSource": snapshot, "dataSourceRef": other}),
        ),
    ];
    for (name, spec, mut expected) in cases {
        expected["volumeMode"] = json!("Filesystem");
        assert_eq!(
            defaulted("v1", "PersistentVolumeClaim", json!({"spec": spec}))["spec"],
            expected,
            "{name}"
        );
    }
}

#[test]
fn the_other_kinds_get_their_defaults() {
    let cases = [
        (
            "v1",
            "Secret",
            json!({"stringData": {"a": "x"}, "data": {"a": "AA==", "b": "AA=="}}),
            json!({"type": "Opaque", "data": {"a": "eA==", "b": "AA=="}}),
        ),
        (
            "v1",
            "Namespace",
            json!({"metadata": {"name": "n", "labels": {"kubernetes.io/metadata.name": "other"}}}),
            json!({"metadata": {"name": "n", "labels": {"kubernetes.io/metadata.name": "n"}}, "status": {"phase": "Active"}}),
        ),
        (
            "v1",
            "Node",
            json!({"status": {"capacity": {"cpu": "2"}}}),
            json!({"status": {"capacity": {"cpu": "2"}, "allocatable": {"cpu": "2"}}}),
        ),
        (
            "v1",
            "Service",
            json!({"spec": {"ports": [{"port": 80}, {"port": 53, "protocol": "UDP", "targetPort": "dns"}]}}),
            json!({"spec": {"type": "ClusterIP", "sessionAffinity": "None", "internalTrafficPolicy": "Cluster",
                "ports": [{"port": 80, "protocol": "TCP", "targetPort": 80}, {"port": 53, "protocol": "UDP", "targetPort": "dns"}]}}),
        ),
        (
            "v1",
            "Service",
            json!({"spec": {"type": "LoadBalancer", "sessionAffinity": "ClientIP"}}),
            json!({"spec": {"type": "LoadBalancer", "sessionAffinity": "ClientIP", "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 10800}},
                "externalTrafficPolicy": "Cluster", "internalTrafficPolicy": "Cluster", "allocateLoadBalancerNodePorts": true}}),
        ),
        (
            "v1",
            "Endpoints",
            json!({"subsets": [{"ports": [{"port": 1}]}]}),
            json!({"subsets": [{"ports": [{"port": 1, "protocol": "TCP"}]}]}),
        ),
        (
            "rbac.authorization.k8s.io/v1",
            "RoleBinding",
            json!({"roleRef": {"kind": "Role", "name": "r"}, "subjects": [{"kind": "User", "name": "u"}, {"kind": "ServiceAccount", "name": "a"}]}),
            json!({"roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "r"},
                "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "u"}, {"kind": "ServiceAccount", "name": "a"}]}),
        ),
        (
            "authentication.k8s.io/v1",
            "TokenRequest",
            json!({}),
            json!({"spec": {"expirationSeconds": 3600}}),
        ),
        (
            "coordination.k8s.io/v1",
            "Lease",
            json!({"spec": {}}),
            json!({"spec": {}}),
        ),
    ];
    for (api_version, kind, object, expected) in cases {
        assert_eq!(defaulted(api_version, kind, object), expected, "{kind}");
    }
}

/// A template of pods, and what becomes of it.
fn templates() -> (Value, Value) {
    let given = json!({"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [
        {"name": "c", "image": "i:1", "resources": {"limits": {"cpu": "1"}}},
    ]}});
    let made = json!({"metadata": {"labels": {"a": "b"}}, "spec": {
        "restartPolicy": "Always", "dnsPolicy": "ClusterFirst", "schedulerName": "default-scheduler",
        "terminationGracePeriodSeconds": 30, "securityContext": {},
        "containers": [{"name": "c", "image": "i:1", "resources": {"limits": {"cpu": "1"}}, "imagePullPolicy": "IfNotPresent",
            "terminationMessagePath": "/dev/termination-log", "terminationMessagePolicy": "File"}],
    }});
    (given, made)
}

#[test]
fn workloads_get_their_defaults() {
    let (given, made) = templates();
    let claims = json!([{"metadata": {"name": "d"}, "spec": {}}]);
    let cases = [
        (
            "Deployment",
            json!({}),
            json!({"replicas": 1, "revisionHistoryLimit": 10, "progressDeadlineSeconds": 600,
                "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": "25%"}}}),
        ),
        (
            "Deployment",
            json!({"strategy": {"type": "Recreate"}}),
            json!({"replicas": 1, "revisionHistoryLimit": 10, "progressDeadlineSeconds": 600, "strategy": {"type": "Recreate"}}),
        ),
        ("ReplicaSet", json!({}), json!({"replicas": 1})),
        (
            "StatefulSet",
            json!({"volumeClaimTemplates": claims}),
            json!({"replicas": 1, "revisionHistoryLimit": 10, "podManagementPolicy": "OrderedReady",
                "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"partition": 0, "maxUnavailable": 1}},
                "persistentVolumeClaimRetentionPolicy": {"whenDeleted": "Retain", "whenScaled": "Retain"},
                "volumeClaimTemplates": [{"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "d"},
                    "spec": {"volumeMode": "Filesystem"}, "status": {"phase": "Pending"}}]}),
        ),
        (
            "DaemonSet",
            json!({}),
            json!({"revisionHistoryLimit": 10,
                "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 0, "maxUnavailable": 1}}}),
        ),
    ];
    for (kind, mut spec, mut expected) in cases {
        spec["template"] = given.clone();
        expected["template"] = made.clone();
        let object = defaulted("apps/v1", kind, json!({"spec": spec}));
        assert_eq!(object, json!({"spec": expected}), "{kind}");
    }
    let controller = defaulted(
        "v1",
        "ReplicationController",
        json!({"spec": {"template": given}}),
    );
    let labels = json!({"a": "b"});
    assert_eq!(
        controller,
        json!({"metadata": {"labels": labels}, "spec": {"replicas": 1, "selector": labels, "template": made}})
    );
    let template = defaulted("v1", "PodTemplate", json!({"template": given}));
    assert_eq!(template, json!({"template": made}));
}

#[test]
fn jobs_get_their_defaults() {
    let (given, made) = templates();
    let common = json!({"template": made, "manualSelector": false, "suspend": false});
    let cases = [
        (
            "one pod",
            json!({}),
            json!({"completions": 1, "parallelism": 1, "backoffLimit": 6, "completionMode": "NonIndexed",
                "podReplacementPolicy": "TerminatingOrFailed"}),
        ),
        (
            "a queue of work",
            json!({"parallelism": 3}),
            json!({"parallelism": 3, "backoffLimit": 6, "completionMode": "NonIndexed",
                "podReplacementPolicy": "TerminatingOrFailed"}),
        ),
        (
            "by index, with rules",
            json!({"completions": 2, "completionMode": "Indexed", "backoffLimitPerIndex": 1,
                "podFailurePolicy": {"rules": [{"action": "Ignore", "onPodConditions": [{"type": "A"}]}]}}),
            json!({"completions": 2, "parallelism": 1, "completionMode": "Indexed", "backoffLimitPerIndex": 1,
                "backoffLimit": 2_147_483_647, "podReplacementPolicy": "Failed",
                "podFailurePolicy": {"rules": [{"action": "Ignore", "onPodConditions": [{"type": "A", "status": "True"}]}]}}),
        ),
    ];
    for (case, mut spec, mut expected) in cases {
        spec["template"] = given.clone();
        for (name, value) in common.as_object().unwrap() {
            expected[name] = value.clone();
        }
        let job = defaulted("batch/v1", "Job", json!({"spec": spec}));
        assert_eq!(
            job,
            json!({"metadata": {"labels": {"a": "b"}}, "spec": expected}),
            "{case}"
        );
    }
    let cron = defaulted(
        "batch/v1",
        "CronJob",
        json!({"spec": {"jobTemplate": {"spec": {"template": given}}}}),
    );
    let expected = json!({"spec": {"concurrencyPolicy": "Allow", "suspend": false, "successfulJobsHistoryLimit": 3,
        "failedJobsHistoryLimit": 1, "jobTemplate": {"spec": {"template": made}}}});
    assert_eq!(cron, expected);
}

#[test]
#[expect(clippy::too_many_lines, reason = "one flat table")]
fn policies_and_the_network_get_their_defaults() {
    let rule = json!({"resources": ["pods"]});
    let cases = [
        (
            "v1",
            "LimitRange",
            json!({"spec": {"limits": [{"type": "Container", "max": {"cpu": "2"}, "min": {"cpu": "1", "memory": "1Gi"}}, {"type": "Pod", "max": {"cpu": "2"}}]}}),
            json!({"spec": {"limits": [
                {"type": "Container", "max": {"cpu": "2"}, "min": {"cpu": "1", "memory": "1Gi"}, "default": {"cpu": "2"}, "defaultRequest": {"cpu": "2", "memory": "1Gi"}},
                {"type": "Pod", "max": {"cpu": "2"}}]}}),
        ),
        (
            "scheduling.k8s.io/v1",
            "PriorityClass",
            json!({"value": 1}),
            json!({"value": 1, "preemptionPolicy": "PreemptLowerPriority"}),
        ),
        (
            "networking.k8s.io/v1",
            "NetworkPolicy",
            json!({"spec": {"egress": [{"ports": [{"port": 80}], "to": []}]}}),
            json!({"spec": {"egress": [{"ports": [{"port": 80, "protocol": "TCP"}]}], "policyTypes": ["Ingress", "Egress"]}}),
        ),
        (
            "discovery.k8s.io/v1",
            "EndpointSlice",
            json!({"ports": [{"port": 80}]}),
            json!({"ports": [{"name": "", "port": 80, "protocol": "TCP"}]}),
        ),
        (
            "autoscaling/v2",
            "HorizontalPodAutoscaler",
            json!({"spec": {"maxReplicas": 3, "behavior": {}}}),
            json!({"spec": {"maxReplicas": 3, "minReplicas": 1,
            "metrics": [{"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 80}}}],
            "behavior": {
                "scaleUp": {"stabilizationWindowSeconds": 0, "selectPolicy": "Max", "policies": [
                    {"type": "Pods", "value": 4, "periodSeconds": 15}, {"type": "Percent", "value": 100, "periodSeconds": 15}]},
                "scaleDown": {"selectPolicy": "Max", "policies": [{"type": "Percent", "value": 100, "periodSeconds": 15}]},
            }}}),
        ),
        (
            "admissionregistration.k8s.io/v1",
            "MutatingWebhookConfiguration",
            json!({"webhooks": [{"rules": [rule], "clientConfig": {"service": {"name": "s"}}}]}),
            json!({"webhooks": [{"rules": [{"resources": ["pods"], "scope": "*"}], "clientConfig": {"service": {"name": "s", "port": 443}},
                "failurePolicy": "Fail", "matchPolicy": "Equivalent", "namespaceSelector": {}, "objectSelector": {},
                "timeoutSeconds": 10, "reinvocationPolicy": "Never"}]}),
        ),
        (
            "admissionregistration.k8s.io/v1",
            "ValidatingAdmissionPolicy",
            json!({"spec": {"matchConstraints": {"resourceRules": [rule]}}}),
            json!({"spec": {"failurePolicy": "Fail", "matchConstraints": {"resourceRules": [{"resources": ["pods"], "scope": "*"}],
                "matchPolicy": "Equivalent", "namespaceSelector": {}, "objectSelector": {}}}}),
        ),
        (
            "flowcontrol.apiserver.k8s.io/v1",
            "PriorityLevelConfiguration",
            json!({"spec": {"limited": {"limitResponse": {"queuing": {}}}}}),
            json!({"spec": {"limited": {"nominalConcurrencyShares": 30, "lendablePercent": 0,
                "limitResponse": {"queuing": {"queues": 64, "handSize": 8, "queueLengthLimit": 50}}}}}),
        ),
        (
            "resource.k8s.io/v1",
            "ResourceClaim",
            json!({"spec": {"devices": {"requests": [{"exactly": {}}, {"firstAvailable": [{"allocationMode": "All"}]}]}}}),
            json!({"spec": {"devices": {"requests": [{"exactly": {"allocationMode": "ExactCount", "count": 1}}, {"firstAvailable": [{"allocationMode": "All"}]}]}}}),
        ),
        (
            "apiregistration.k8s.io/v1",
            "APIService",
            json!({"spec": {"service": {"name": "s"}}}),
            json!({"spec": {"service": {"name": "s", "port": 443}}}),
        ),
    ];
    for (api_version, kind, given, expected) in cases {
        assert_eq!(defaulted(api_version, kind, given), expected, "{kind}");
    }
}
