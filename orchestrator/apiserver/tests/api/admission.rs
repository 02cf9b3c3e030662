//! The built-in admission plugins, seen from outside.

use http::{Method, StatusCode};
use serde_json::{Value, json};

use crate::harness::{Reply, Server, claim, config_map, pod};
use crate::roles;

const PODS: &str = "/api/v1/namespaces/default/pods";
const NAMESPACES: &str = "/api/v1/namespaces";

fn warning(reply: &Reply) -> &str {
    reply
        .headers
        .get("warning")
        .map_or("", |value| value.to_str().unwrap())
}

fn namespace(name: &str, labels: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}})
}

/// A namespace in which pods can be made.
async fn make_namespace(server: &Server, name: &str, labels: Value) -> String {
    let made = server.post(NAMESPACES, &namespace(name, labels)).await;
    assert_eq!(made.code, StatusCode::CREATED, "{}", made.text);
    let path = format!("{NAMESPACES}/{name}");
    server
        .until(
            &format!("{path}/serviceaccounts/default"),
            "an account",
            |reply| reply.code == 200,
        )
        .await;
    format!("{path}/pods")
}

#[tokio::test]
async fn limits_complete_and_refuse() {
    let server = Server::start().await;
    let range = json!({"apiVersion": "v1", "kind": "LimitRange", "metadata": {"name": "l"}, "spec": {"limits": [
        {"type": "Container", "default": {"cpu": "500m"}, "defaultRequest": {"cpu": "100m"}, "max": {"cpu": "1"}},
        {"type": "PersistentVolumeClaim", "max": {"storage": "2Gi"}}]}});
    let made = server
        .post("/api/v1/namespaces/default/limitranges", &range)
        .await;
    assert_eq!(made.code, StatusCode::CREATED, "{}", made.text);
    assert_eq!(warning(&made), "");
    let made = server.post(PODS, &pod("silent")).await;
    assert_eq!(made.code, StatusCode::CREATED, "{}", made.text);
    let resources = &made.json["spec"]["containers"][0]["resources"];
    assert_eq!(
        *resources,
        json!({"limits": {"cpu": "500m"}, "requests": {"cpu": "100m"}})
    );
    assert_eq!(made.json["status"]["qosClass"], "Burstable");
    let note = &made.json["metadata"]["annotations"]["kubernetes.io/limit-ranger"];
    assert_eq!(
        *note,
        "LimitRanger plugin set: cpu request for container main; cpu limit for container main"
    );
    let mut greedy = pod("greedy");
    greedy["spec"]["containers"][0]["resources"] = json!({"limits": {"cpu": "2"}});
    let refused = server.post(PODS, &greedy).await;
    let words = "pods \"greedy\" is forbidden: maximum cpu usage per Container is 1, but limit is 2";
    assert_eq!(
        (refused.code.as_u16(), &refused.json["message"]),
        (403, &json!(words))
    );
    let mut large = claim("large");
    large["spec"]["resources"]["requests"]["storage"] = json!("3Gi");
    let refused = server
        .post("/api/v1/namespaces/default/persistentvolumeclaims", &large)
        .await;
    assert_eq!(refused.code, StatusCode::FORBIDDEN, "{}", refused.text);
    server.shut_down().await;
}

#[tokio::test]
async fn quotas_are_charged_and_counted() {
    let server = Server::start().await;
    let quotas = "/api/v1/namespaces/default/resourcequotas";
    let quota = json!({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "q"},
        "spec": {"hard": {"pods": "2", "requests.cpu": "1", "count/configmaps": "3", "services.nodeports": "1"}}});
    assert_eq!(server.post(quotas, &quota).await.code, StatusCode::CREATED);
    let with_cpu = |name: &str, cpu: &str| {
        let mut pod = pod(name);
        pod["spec"]["containers"][0]["resources"] = json!({"requests": {"cpu": cpu}});
        pod
    };
    let silent = server.post(PODS, &pod("silent")).await;
    let words = "pods \"silent\" is forbidden: failed quota: q: must specify requests.cpu for: main";
    assert_eq!(silent.json["message"], words, "{}", silent.text);
    assert_eq!(
        server.post(PODS, &with_cpu("a", "600m")).await.code,
        StatusCode::CREATED
    );
    // What was charged is seen at once.
    let used = server.get(&format!("{quotas}/q")).await.json["status"]["used"].clone();
    assert_eq!(
        (&used["pods"], &used["requests.cpu"]),
        (&json!("1"), &json!("600m"))
    );
    let refused = server.post(PODS, &with_cpu("b", "600m")).await;
    let words = "pods \"b\" is forbidden: exceeded quota: q, requested: requests.cpu=600m, used: requests.cpu=600m, limited: requests.cpu=1";
    assert_eq!(
        (refused.code.as_u16(), &refused.json["message"]),
        (403, &json!(words))
    );
    assert_eq!(
        server.post(PODS, &with_cpu("b", "400m")).await.code,
        StatusCode::CREATED
    );
    assert_eq!(server.delete(&format!("{PODS}/a")).await.code, StatusCode::OK);
    server
        .until(&format!("{quotas}/q"), "the pod's share to be free", |reply| {
            reply.json["status"]["used"]["requests.cpu"] == "400m"
        })
        .await;
    assert_eq!(
        server.post(PODS, &with_cpu("c", "600m")).await.code,
        StatusCode::CREATED
    );
    let status = server.get(&format!("{quotas}/q")).await.json["status"].clone();
    assert_eq!(status["hard"], quota["spec"]["hard"]);
    assert_eq!(status["used"]["pods"], "2");
    server.shut_down().await;
}

#[tokio::test]
async fn no_two_writes_use_the_same_rest_of_a_quota() {
    let server = Server::start().await;
    let quotas = "/api/v1/namespaces/default/resourcequotas";
    let maps = "/api/v1/namespaces/default/configmaps";
    // The authority of the cluster is one of them.
    server
        .until(&format!("{maps}/kube-root-ca.crt"), "the authority", |reply| {
            reply.code == 200
        })
        .await;
    let quota = json!({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "q"}, "spec": {"hard": {"configmaps": "6"}}});
    assert_eq!(server.post(quotas, &quota).await.code, StatusCode::CREATED);
    let writes = (0..20).map(|index| {
        let server = &server;
        async move {
            server
                .post(maps, &config_map(&format!("m{index}")))
                .await
                .code
                .as_u16()
        }
    });
    let codes = futures::future::join_all(writes).await;
    let count = |code: u16| codes.iter().filter(|found| **found == code).count();
    assert_eq!((count(201), count(403)), (5, 15), "{codes:?}");
    let used = server.get(&format!("{quotas}/q")).await.json["status"]["used"]["configmaps"].clone();
    assert_eq!(used, "6");
    server.shut_down().await;
}

#[tokio::test]
async fn pods_are_held_to_the_standards_of_their_namespace() {
    let server = Server::start().await;
    let strict = json!({"pod-security.kubernetes.io/enforce": "baseline", "pod-security.kubernetes.io/warn": "restricted"});
    let pods = make_namespace(&server, "strict", strict).await;
    let mut privileged = pod("p");
    privileged["spec"]["containers"][0]["securityContext"] = json!({"privileged": true});
    let refused = server.post(&pods, &privileged).await;
    let words = "pods \"p\" is forbidden: violates PodSecurity \"baseline:latest\": privileged (container \"main\" must not set securityContext.privileged=true)";
    assert_eq!(
        (refused.code.as_u16(), &refused.json["message"]),
        (403, &json!(words)),
        "{}",
        refused.text
    );
    let warned = server.post(&pods, &pod("p")).await;
    assert_eq!(warned.code, StatusCode::CREATED, "{}", warned.text);
    assert!(
        warning(&warned).contains(
            "would violate PodSecurity \\\"restricted:latest\\\": allowPrivilegeEscalation != false"
        ),
        "{}",
        warning(&warned)
    );
    let deployment = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"}, "spec": {
        "selector": {"matchLabels": {"a": "b"}}, "template": {"metadata": {"labels": {"a": "b"}}, "spec": privileged["spec"]}}});
    let made = server
        .post("/apis/apps/v1/namespaces/strict/deployments", &deployment)
        .await;
    assert_eq!(made.code, StatusCode::CREATED, "{}", made.text);
    assert!(warning(&made).contains("would violate"), "{}", warning(&made));
    let odd = server
        .post(
            NAMESPACES,
            &namespace("odd", json!({"pod-security.kubernetes.io/enforce": "strict"})),
        )
        .await;
    assert_eq!(odd.code, StatusCode::UNPROCESSABLE_ENTITY, "{}", odd.text);
    // Who enforces more is told of the pods that are there.
    assert_eq!(server.post(PODS, &privileged).await.code, StatusCode::CREATED);
    let label = json!({"metadata": {"labels": {"pod-security.kubernetes.io/enforce": "baseline"}}});
    let labelled = server.merge(&format!("{NAMESPACES}/default"), &label).await;
    let warnings: Vec<&str> = labelled
        .headers
        .get_all("warning")
        .iter()
        .map(|value| value.to_str().unwrap())
        .collect();
    assert!(
        warnings
            .iter()
            .any(|text| text.contains("existing pods in namespace")),
        "{warnings:?}"
    );
    assert!(
        warnings.iter().any(|text| text.contains("p: privileged")),
        "{warnings:?}"
    );
    server.shut_down().await;
}

#[tokio::test]
async fn runtime_classes_add_overhead() {
    let server = Server::start().await;
    let class = json!({"apiVersion": "node.k8s.io/v1", "kind": "RuntimeClass", "metadata": {"name": "vm"}, "handler": "vm",
        "overhead": {"podFixed": {"cpu": "250m"}}, "scheduling": {"nodeSelector": {"vm": "yes"}}});
    let made = server.post("/apis/node.k8s.io/v1/runtimeclasses", &class).await;
    assert_eq!((made.code.as_u16(), warning(&made)), (201, ""), "{}", made.text);
    let mut pod = pod("p");
    pod["spec"]["runtimeClassName"] = json!("vm");
    let made = server.post(PODS, &pod).await;
    assert_eq!(
        made.json["spec"]["overhead"],
        json!({"cpu": "250m"}),
        "{}",
        made.text
    );
    assert_eq!(made.json["spec"]["nodeSelector"], json!({"vm": "yes"}));
    pod["metadata"]["name"] = json!("q");
    pod["spec"]["runtimeClassName"] = json!("none");
    let refused = server.post(PODS, &pod).await;
    assert_eq!(
        refused.json["message"],
        "pods \"q\" is forbidden: pod rejected: RuntimeClass \"none\" not found"
    );
    server.shut_down().await;
}

#[tokio::test]
async fn nodes_are_tainted_until_they_are_ready() {
    let server = Server::start().await;
    let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n"}});
    let made = server.post("/api/v1/nodes", &node).await;
    let taint = json!([{"key": "node.kubernetes.io/not-ready", "effect": "NoSchedule"}]);
    assert_eq!(made.json["spec"]["taints"], taint, "{}", made.text);
    let ready = |status: &str| json!({"status": {"conditions": [{"type": "Ready", "status": status}]}});
    server.merge("/api/v1/nodes/n/status", &ready("True")).await;
    let path = "/api/v1/nodes/n";
    server
        .until(path, "the taint to go", |reply| {
            reply.json["spec"].get("taints").is_none()
        })
        .await;
    server.merge("/api/v1/nodes/n/status", &ready("Unknown")).await;
    server
        .until(path, "another taint", |reply| {
            reply.json["spec"]["taints"][0]["key"] == "node.kubernetes.io/unreachable"
        })
        .await;
    server.shut_down().await;
}

#[tokio::test]
async fn nodes_write_what_is_theirs() {
    let server = Server::start().await;
    let ask = |method, path: &str, body| {
        let (server, path) = (&server, path.to_owned());
        async move { roles::ask(server, ("system:node:n", &["system:nodes"]), method, &path, body).await }
    };
    let node = |name: &str| json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}});
    let other = ask(Method::POST, "/api/v1/nodes", node("m")).await;
    let words = "nodes \"m\" is forbidden: node \"n\" is not allowed to modify node \"m\"";
    assert_eq!(
        (other.code.as_u16(), &other.json["message"]),
        (403, &json!(words))
    );
    assert_eq!(
        ask(Method::POST, "/api/v1/nodes", node("n")).await.code,
        StatusCode::CREATED
    );
    let role = json!({"metadata": {"labels": {"node-role.kubernetes.io/control-plane": ""}}});
    let refused = ask(Method::PATCH, "/api/v1/nodes/n", role).await;
    assert!(
        refused
            .text
            .contains("is not allowed to modify labels: node-role.kubernetes.io/control-plane"),
        "{}",
        refused.text
    );
    let mut elsewhere = pod("p");
    elsewhere["spec"]["nodeName"] = json!("m");
    assert_eq!(server.post(PODS, &elsewhere).await.code, StatusCode::CREATED);
    let status = json!({"status": {"message": "x"}});
    let refused = ask(Method::PATCH, &format!("{PODS}/p/status"), status).await;
    assert!(
        refused
            .text
            .contains("can only update pod status for pods with spec.nodeName set to itself"),
        "{}",
        refused.text
    );
    let refused = ask(Method::DELETE, &format!("{PODS}/p"), json!({})).await;
    assert_eq!(refused.code, StatusCode::FORBIDDEN, "{}", refused.text);
    let mut mirror = pod("mirror-n");
    mirror["metadata"]["annotations"] = json!({"kubernetes.io/config.mirror": "x"});
    mirror["spec"]["nodeName"] = json!("n");
    let made = ask(Method::POST, PODS, mirror).await;
    assert_eq!(made.code, StatusCode::CREATED, "{}", made.text);
    assert_eq!(made.json["spec"].get("serviceAccountName"), None);
    let token = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}});
    let refused = ask(
        Method::POST,
        "/api/v1/namespaces/default/serviceaccounts/default/token",
        token,
    )
    .await;
    assert_eq!(refused.code, StatusCode::FORBIDDEN, "{}", refused.text);
    server.shut_down().await;
}
