//! The manifests in `deploy`: what kustomize makes of them is what an API server takes; and roles compared with requests.

use std::path::{Path, PathBuf};

use moorline_e2e::{cluster::TestCluster, kubectl::Kubectl, require_kubectl};
use serde_json::{Value, json};

/// The folder of the manifests.
pub(crate) fn deploy() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("e2e is a folder of the workspace")
        .join("deploy")
}

/// A request as roles see it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Request {
    pub(crate) verb: String,
    pub(crate) group: String,
    /// With the subresource, if any.
    pub(crate) resource: String,
}

impl Request {
    /// Of a method, a path such as `/apis/storage.k8s.io/v1/csinodes/n1`, and the query without its mark.
    pub(crate) fn parse(method: &str, path: &str, query: &str) -> Self {
        let mut parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
        let group = match parts.first() {
            Some(&"apis") => {
                parts.remove(0);
                parts.remove(0)
            }
            _ => {
                parts.remove(0);
                ""
            }
        };
        parts.remove(0); // The version.
        if parts.first() == Some(&"namespaces") && parts.len() > 2 {
            parts.drain(..2);
        }
        let has_name = parts.len() > 1;
        let is_watch = query
            .split('&')
            .any(|pair| matches!(pair, "watch=true" | "watch=1" | "watch"));
        let verb = match (method, has_name) {
            ("GET", true) => "get",
            ("GET", false) if is_watch => "watch",
            ("GET", false) => "list",
            ("POST", _) => "create",
            ("PUT", _) => "update",
            ("PATCH", _) => "patch",
            ("DELETE", true) => "delete",
            _ => "deletecollection",
        };
        let resource = match parts[..] {
            [plural, _, subresource, ..] => format!("{plural}/{subresource}"),
            [plural, ..] => plural.to_owned(),
            [] => String::new(),
        };
        Self {
            verb: verb.to_owned(),
            group: group.to_owned(),
            resource,
        }
    }
}

fn texts<'a>(rule: &'a Value, key: &str) -> Vec<&'a str> {
    rule[key]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect()
}

/// All that a rule grants.
pub(crate) fn grants(rule: &Value) -> Vec<Request> {
    let mut all = Vec::new();
    for group in texts(rule, "apiGroups") {
        for resource in texts(rule, "resources") {
            for verb in texts(rule, "verbs") {
                all.push(Request {
                    verb: verb.to_owned(),
                    group: group.to_owned(),
                    resource: resource.to_owned(),
                });
            }
        }
    }
    all
}

/// Whether the rules allow a request. None of ours has a star.
pub(crate) fn is_allowed(rules: &[Value], request: &Request) -> bool {
    rules.iter().any(|rule| grants(rule).contains(request))
}

/// The rules of ClusterRole and Role of that name.
pub(crate) fn rules_of(kubectl: &Kubectl, namespace: &str, name: &str) -> Vec<Value> {
    let read = |kind: &str| {
        let text = kubectl.run(&["-n", namespace, "get", kind, name, "-o", "json"]);
        let object: Value = serde_json::from_str(&text).unwrap();
        object["rules"].as_array().cloned().unwrap_or_default()
    };
    [read("clusterrole"), read("role")].concat()
}

#[test]
fn requests_as_roles_see_them() {
    let cases = [
        (
            "GET /api/v1/persistentvolumes?watch=true&a=b",
            "watch  persistentvolumes",
        ),
        ("GET /api/v1/persistentvolumes?limit=5", "list  persistentvolumes"),
        ("GET /api/v1/namespaces/ns/secrets/s?", "get  secrets"),
        ("POST /api/v1/namespaces/ns/events?", "create  events"),
        (
            "PATCH /apis/storage.k8s.io/v1/volumeattachments/a/status?",
            "patch storage.k8s.io volumeattachments/status",
        ),
        (
            "PUT /apis/coordination.k8s.io/v1/namespaces/ns/leases/l?",
            "update coordination.k8s.io leases",
        ),
        (
            "DELETE /api/v1/persistentvolumes/pv?",
            "delete  persistentvolumes",
        ),
        ("GET /api/v1/namespaces/ns?", "get  namespaces"),
    ];
    for (line, expected) in cases {
        let (method, rest) = line.split_once(' ').unwrap();
        let (path, query) = rest.split_once('?').unwrap();
        let Request {
            verb,
            group,
            resource,
        } = Request::parse(method, path, query);
        assert_eq!(format!("{verb} {group} {resource}"), expected, "{line}");
    }
    let rule = json!({"apiGroups": [""], "resources": ["pods", "pods/status"], "verbs": ["get"]});
    let may =
        |line: (&str, &str)| is_allowed(std::slice::from_ref(&rule), &Request::parse(line.0, line.1, ""));
    assert!(
        may(("GET", "/api/v1/namespaces/a/pods/b")) && may(("GET", "/api/v1/namespaces/a/pods/b/status"))
    );
    assert!(!may(("GET", "/api/v1/namespaces/a/pods")) && !may(("GET", "/apis/x/v1/namespaces/a/pods/b")));
}

/// What kustomize makes of a folder, as objects.
fn build(kubectl: &Kubectl, folder: &str) -> Vec<Value> {
    let text = kubectl.run(&["kustomize", deploy().join(folder).to_str().unwrap()]);
    text.split("\n---\n")
        .map(|document| {
            serde_saphyr::from_str(document).unwrap_or_else(|error| panic!("{folder}: {error}\n{document}"))
        })
        .collect()
}

#[test]
fn manifests_are_taken_by_an_api_server() {
    require_kubectl!();
    let mut cluster = TestCluster::start(&["--no-kubelet", "--no-driver"]);
    let kubectl = cluster.kubectl();
    for folder in ["sidecars", "controllers", "snapshot-controller"] {
        let objects = build(&kubectl, folder);
        let (workloads, others): (Vec<Value>, Vec<Value>) = objects
            .into_iter()
            .partition(|object| matches!(object["kind"].as_str(), Some("Deployment" | "DaemonSet")));
        assert!(!workloads.is_empty() && !others.is_empty(), "{folder}");
        let list = json!({"apiVersion": "v1", "kind": "List", "items": others});
        let applied = kubectl.with_input(&["apply", "--server-side", "-f", "-"], &list.to_string());
        assert_eq!(applied.code, Some(0), "{folder}: {}", applied.stderr);
        for workload in workloads {
            // The server here has no Deployments; what they would make are pods, and those it judges.
            let selector = &workload["spec"]["selector"]["matchLabels"];
            let template = &workload["spec"]["template"];
            assert_eq!(selector, &template["metadata"]["labels"], "{workload}");
            let pod = json!({"apiVersion": "v1", "kind": "Pod", "spec": template["spec"], "metadata": {
                "name": workload["metadata"]["name"], "namespace": workload["metadata"]["namespace"], "labels": selector}});
            let dry = [
                "apply",
                "--server-side",
                "--dry-run=server",
                "--validate=strict",
                "-f",
                "-",
            ];
            let judged = kubectl.with_input(&dry, &pod.to_string());
            assert_eq!(judged.code, Some(0), "{folder}: {}", judged.stderr);
        }
    }
    cluster.stop();
}
