//! The smallest valid object of every resource that is stored.

use moorline_schema::ResourceFacts;
use serde_json::{Map, Value, json};

fn template() -> Value {
    json!({"metadata": {"labels": {"app": "sample"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}})
}

fn job() -> Value {
    json!({"template": {"spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}]}}})
}

fn claim() -> Value {
    json!({"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}})
}

fn rule() -> Value {
    json!({"apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"], "operations": ["CREATE"]})
}

fn webhook() -> Value {
    json!([{"name": "a.b.example.com", "clientConfig": {"url": "https://localhost/x"}, "sideEffects": "None", "admissionReviewVersions": ["v1"], "rules": [rule()]}])
}

/// What a sample has besides its type and name; nothing for resources without one.
#[expect(clippy::too_many_lines, reason = "one flat table")]
fn content(group: &str, plural: &str) -> Option<Value> {
    let workload =
        || json!({"spec": {"selector": {"matchLabels": {"app": "sample"}}, "template": template()}});
    let subjects = || json!([{"kind": "User", "name": "anna"}]);
    let devices = || json!({"devices": {"requests": [{"name": "r", "exactly": {"deviceClassName": "c"}}]}});
    Some(match (group, plural) {
        ("", "configmaps") => json!({"data": {"a": "1"}}),
        ("", "secrets") => json!({"data": {"a": "AAEC"}}),
        ("", "endpoints") => {
            json!({"subsets": [{"addresses": [{"ip": "10.1.2.3"}], "ports": [{"port": 80}]}]})
        }
        ("", "events") => {
            json!({"involvedObject": {"kind": "Pod", "namespace": "default", "name": "p"}, "reason": "Tested"})
        }
        ("", "limitranges") => {
            json!({"spec": {"limits": [{"type": "Container", "max": {"cpu": "2"}, "min": {"cpu": "1"}}]}})
        }
        ("", "namespaces" | "nodes" | "serviceaccounts") => json!({}),
        ("", "persistentvolumeclaims") => json!({"spec": claim()}),
        ("", "persistentvolumes") => {
            json!({"spec": {"capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"], "csi": {"driver": "d", "volumeHandle": "h"}}})
        }
        ("", "pods") => json!({"spec": {"containers": [{"name": "c", "image": "i"}]}}),
        ("", "podtemplates") => json!({"template": template()}),
        ("", "replicationcontrollers") => {
            json!({"spec": {"selector": {"app": "sample"}, "template": template()}})
        }
        ("", "resourcequotas") => json!({"spec": {"hard": {"pods": "3", "requests.storage": "1Gi"}}}),
        ("", "services") => json!({"spec": {"ports": [{"port": 80}]}}),
        ("apps", "controllerrevisions") => json!({"data": {"a": 1}, "revision": 1}),
        ("apps", _) => workload(),
        ("batch", "jobs") => json!({"spec": job()}),
        ("batch", "cronjobs") => json!({"spec": {"schedule": "@daily", "jobTemplate": {"spec": job()}}}),
        ("events.k8s.io", "events") => {
            json!({"eventTime": "2026-01-02T03:04:05.000006Z", "reportingController": "c", "reportingInstance": "i", "action": "A",
                "reason": "R", "type": "Normal", "regarding": {"kind": "Pod", "namespace": "default", "name": "p"}})
        }
        ("autoscaling", _) => {
            json!({"spec": {"maxReplicas": 3, "scaleTargetRef": {"kind": "Deployment", "name": "w", "apiVersion": "apps/v1"}}})
        }
        ("certificates.k8s.io", _) => {
            let pem = "LS0tLS1CRUdJTiBDRVJUSUZJQ0FURSBSRVFVRVNULS0tLS0K";
            json!({"spec": {"request": pem, "signerName": "example.com/signer", "usages": ["client auth"]}})
        }
        ("networking.k8s.io", "ingresses") => {
            json!({"spec": {"defaultBackend": {"service": {"name": "s", "port": {"number": 80}}}}})
        }
        ("networking.k8s.io", "ingressclasses") => json!({"spec": {"controller": "example.com/c"}}),
        ("networking.k8s.io", "networkpolicies") => json!({"spec": {"podSelector": {}}}),
        ("networking.k8s.io", "ipaddresses") => {
            json!({"spec": {"parentRef": {"resource": "services", "name": "s", "namespace": "default"}}})
        }
        ("networking.k8s.io", "servicecidrs") => json!({"spec": {"cidrs": ["10.200.0.0/16"]}}),
        ("policy", _) => json!({"spec": {"minAvailable": 1, "selector": {"matchLabels": {"app": "sample"}}}}),
        ("rbac.authorization.k8s.io", "roles" | "clusterroles") => {
            json!({"rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}]})
        }
        ("rbac.authorization.k8s.io", _) => {
            json!({"roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"}, "subjects": subjects()})
        }
        ("storage.k8s.io", "storageclasses") => json!({"provisioner": "d"}),
        ("storage.k8s.io", "csidrivers") => json!({"spec": {}}),
        ("storage.k8s.io", "csinodes") => json!({"spec": {"drivers": [{"name": "d", "nodeID": "n"}]}}),
        ("storage.k8s.io", "csistoragecapacities") => json!({"storageClassName": "s", "capacity": "1Gi"}),
        ("storage.k8s.io", "volumeattachments") => {
            json!({"spec": {"attacher": "d", "nodeName": "n", "source": {"persistentVolumeName": "pv"}}})
        }
        ("storage.k8s.io", "volumeattributesclasses") => json!({"driverName": "d", "parameters": {"a": "b"}}),
        (
            "admissionregistration.k8s.io",
            "mutatingwebhookconfigurations" | "validatingwebhookconfigurations",
        ) => {
            json!({"webhooks": webhook()})
        }
        ("admissionregistration.k8s.io", "validatingadmissionpolicies") => {
            json!({"spec": {"matchConstraints": {"resourceRules": [rule()]}, "validations": [{"expression": "true"}]}})
        }
        ("admissionregistration.k8s.io", "mutatingadmissionpolicies") => {
            json!({"spec": {"matchConstraints": {"resourceRules": [rule()]}, "reinvocationPolicy": "Never",
                "mutations": [{"patchType": "ApplyConfiguration", "applyConfiguration": {"expression": "Object{}"}}]}})
        }
        ("admissionregistration.k8s.io", "validatingadmissionpolicybindings") => {
            json!({"spec": {"policyName": "p", "validationActions": ["Deny"]}})
        }
        ("admissionregistration.k8s.io", "mutatingadmissionpolicybindings") => {
            json!({"spec": {"policyName": "p"}})
        }
        ("apiextensions.k8s.io", _) => {
            let schema = json!({"openAPIV3Schema": {"type": "object"}});
            json!({"spec": {"group": "example.com", "scope": "Cluster", "names": {"plural": "samples", "kind": "Sample"},
                "versions": [{"name": "v1", "served": true, "storage": true, "schema": schema}]}})
        }
        ("scheduling.k8s.io", _) => json!({"value": 7}),
        ("coordination.k8s.io", _) => json!({"spec": {"holderIdentity": "me", "leaseDurationSeconds": 15}}),
        ("node.k8s.io", _) => json!({"handler": "h"}),
        ("discovery.k8s.io", _) => {
            json!({"addressType": "IPv4", "endpoints": [{"addresses": ["10.1.2.3"]}], "ports": [{"port": 80}]})
        }
        ("flowcontrol.apiserver.k8s.io", "flowschemas") => {
            json!({"spec": {"priorityLevelConfiguration": {"name": "p"}}})
        }
        ("flowcontrol.apiserver.k8s.io", _) => {
            json!({"spec": {"type": "Limited", "limited": {"limitResponse": {"type": "Reject"}}}})
        }
        ("apiregistration.k8s.io", _) => {
            json!({"spec": {"group": "example.com", "version": "v1", "groupPriorityMinimum": 100, "versionPriority": 10,
                "service": {"name": "s", "namespace": "default"}}})
        }
        ("resource.k8s.io", "deviceclasses") => json!({"spec": {}}),
        ("resource.k8s.io", "resourceclaims") => json!({"spec": devices()}),
        ("resource.k8s.io", "resourceclaimtemplates") => json!({"spec": {"spec": devices()}}),
        ("resource.k8s.io", "resourceslices") => {
            json!({"spec": {"driver": "d", "nodeName": "n", "pool": {"name": "p", "generation": 1, "resourceSliceCount": 1}}})
        }
        _ => return None,
    })
}

/// A sample, and another one that is told from it by its name. Some names are not free.
pub(crate) fn samples(facts: &ResourceFacts) -> [Value; 2] {
    let names = match (facts.group, facts.plural) {
        ("networking.k8s.io", "ipaddresses") => ["10.200.0.1", "10.200.0.2"],
        ("apiextensions.k8s.io", _) => ["samples.example.com", "others.example.com"],
        ("apiregistration.k8s.io", _) => ["v1.example.com", "v1.example.com"],
        ("events.k8s.io", _) => ["new-event", "other-event"],
        _ => ["sample", "other"],
    };
    names.map(|name| {
        let mut object =
            json!({"apiVersion": facts.api_version(), "kind": facts.kind, "metadata": {"name": name}});
        let content = content(facts.group, facts.plural);
        let content = content.unwrap_or_else(|| panic!("{}.{} has no sample", facts.plural, facts.group));
        let fields: Map<String, Value> = content.as_object().cloned().unwrap();
        object.as_object_mut().unwrap().extend(fields);
        if name == "others.example.com" {
            object["spec"]["names"] = json!({"plural": "others", "kind": "Other"});
        }
        object
    })
}
