//! Roles and bindings: those that every cluster has, those that are made of others, and who may give what.

use std::sync::Arc;

use http::{Method, Request};
use kube::client::Body;
use moorline_store::{MemoryStore, Store};
use serde_json::{Value, json};

use crate::harness::{Reply, Server, config_map, pod, send};

const RBAC: &str = "/apis/rbac.authorization.k8s.io/v1";
const GROUP: &str = "rbac.authorization.k8s.io";

/// A request as somebody.
pub(crate) async fn ask(
    server: &Server,
    (user, groups): (&str, &[&str]),
    method: Method,
    path: &str,
    body: Value,
) -> Reply {
    let client = server.server.client(user, groups);
    let kind = if method == Method::PATCH {
        "application/merge-patch+json"
    } else {
        "application/json"
    };
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header("content-type", kind);
    let body = if body.is_null() {
        Body::empty()
    } else {
        Body::from(body.to_string().into_bytes())
    };
    send(&client, request.body(body).unwrap()).await
}

async fn code(server: &Server, who: (&str, &[&str]), method: Method, path: &str) -> u16 {
    let body = if method == Method::POST {
        json!({})
    } else {
        Value::Null
    };
    ask(server, who, method, path, body).await.code.as_u16()
}

fn cluster_role(name: &str, rules: &Value) -> Value {
    json!({"apiVersion": format!("{GROUP}/v1"), "kind": "ClusterRole", "metadata": {"name": name}, "rules": rules})
}

fn binding(name: &str, role: &str, user: &str) -> Value {
    json!({"apiVersion": format!("{GROUP}/v1"), "kind": "ClusterRoleBinding", "metadata": {"name": name},
        "roleRef": {"apiGroup": GROUP, "kind": "ClusterRole", "name": role},
        "subjects": [{"apiGroup": GROUP, "kind": "User", "name": user}]})
}

#[tokio::test]
#[expect(clippy::too_many_lines, reason = "one flat table")]
async fn stock_components_have_their_roles() {
    let server = Server::start().await;
    let roles = server.get(&format!("{RBAC}/clusterroles")).await.json;
    let names: Vec<&str> = roles["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|role| role["metadata"]["name"].as_str().unwrap())
        .collect();
    for name in [
        "admin",
        "edit",
        "view",
        "system:kube-scheduler",
        "system:node",
        "system:auth-delegator",
        "system:controller:attachdetach-controller",
    ] {
        assert!(names.contains(&name), "{name} is missing in {names:?}");
    }
    let scheduler = ("system:kube-scheduler", &[][..]);
    let manager = ("system:kube-controller-manager", &[][..]);
    let pods = "/api/v1/pods";
    let leases = "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases";
    let secrets = "/api/v1/namespaces/kube-system/secrets";
    let cases = [
        (
            "scheduler lists pods",
            scheduler,
            Method::GET,
            pods.to_owned(),
            200,
        ),
        (
            "scheduler reads its lease",
            scheduler,
            Method::GET,
            format!("{leases}/kube-scheduler"),
            404,
        ),
        (
            "scheduler reads another lease",
            scheduler,
            Method::GET,
            format!("{leases}/other"),
            403,
        ),
        (
            "scheduler reads secrets",
            scheduler,
            Method::GET,
            secrets.to_owned(),
            403,
        ),
        (
            "scheduler reads volumes",
            scheduler,
            Method::GET,
            "/api/v1/persistentvolumes".to_owned(),
            200,
        ),
        (
            "manager lists secrets",
            manager,
            Method::GET,
            secrets.to_owned(),
            200,
        ),
        (
            "manager deletes pods",
            manager,
            Method::DELETE,
            "/api/v1/namespaces/default/pods/p".to_owned(),
            403,
        ),
        (
            "anybody discovers",
            ("anna", &[][..]),
            Method::GET,
            "/apis".to_owned(),
            200,
        ),
        (
            "anybody lists pods",
            ("anna", &[][..]),
            Method::GET,
            pods.to_owned(),
            403,
        ),
        (
            "monitoring",
            ("m", &["system:monitoring"][..]),
            Method::GET,
            "/metrics".to_owned(),
            200,
        ),
        (
            "no monitoring",
            ("m", &[][..]),
            Method::GET,
            "/metrics".to_owned(),
            403,
        ),
    ];
    for (case, who, method, path, expected) in cases {
        assert_eq!(code(&server, who, method, &path).await, expected, "{case}");
    }
    server.shut_down().await;
}

#[tokio::test]
async fn view_edit_and_admin_grow_with_their_parts() {
    let server = Server::start().await;
    let anna = json!({"apiVersion": format!("{GROUP}/v1"), "kind": "RoleBinding", "metadata": {"name": "anna"},
        "roleRef": {"apiGroup": GROUP, "kind": "ClusterRole", "name": "edit"},
        "subjects": [{"apiGroup": GROUP, "kind": "User", "name": "anna"}]});
    let made = server
        .post(&format!("{RBAC}/namespaces/default/rolebindings"), &anna)
        .await;
    assert_eq!(made.code, 201, "{}", made.text);
    let who = ("anna", &[][..]);
    let maps = "/api/v1/namespaces/default/configmaps";
    let reply = ask(&server, who, Method::POST, maps, config_map("a")).await;
    assert_eq!(reply.code, 201, "{}", reply.text);
    assert_eq!(
        code(
            &server,
            who,
            Method::GET,
            "/api/v1/namespaces/kube-system/configmaps"
        )
        .await,
        403
    );
    let snapshots = json!([{"apiGroups": ["snapshot.storage.k8s.io"], "resources": ["volumesnapshots"], "verbs": ["get", "create"]}]);
    let mut part = cluster_role("snapshots", &snapshots);
    part["metadata"]["labels"] = json!({format!("{GROUP}/aggregate-to-edit"): "true"});
    assert_eq!(
        server.post(&format!("{RBAC}/clusterroles"), &part).await.code,
        201
    );
    let has = |reply: &Reply| {
        let rules = reply.json["rules"].as_array().unwrap();
        rules.contains(&snapshots[0])
    };
    for name in ["edit", "admin"] {
        server
            .until(&format!("{RBAC}/clusterroles/{name}"), "the part's rule", has)
            .await;
    }
    assert!(!has(&server.get(&format!("{RBAC}/clusterroles/view")).await));
    assert_eq!(
        server
            .delete(&format!("{RBAC}/clusterroles/snapshots"))
            .await
            .code,
        200
    );
    for name in ["edit", "admin"] {
        server
            .until(
                &format!("{RBAC}/clusterroles/{name}"),
                "the rule to go",
                |reply| !has(reply),
            )
            .await;
    }
    server.shut_down().await;
}

#[tokio::test]
async fn a_start_mends_what_it_may() {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let server = Server::start_on(Arc::clone(&store), |_| {}).await;
    let roles = format!("{RBAC}/clusterroles");
    let bindings = format!("{RBAC}/clusterrolebindings");
    let own = json!({"apiGroups": ["x"], "resources": ["y"], "verbs": ["get"]});
    let edits = [
        (format!("{roles}/system:basic-user"), json!({"rules": [own]})),
        (
            format!("{roles}/system:heapster"),
            json!({"rules": [own], "metadata": {"annotations": {"rbac.authorization.kubernetes.io/autoupdate": "false"}}}),
        ),
        (format!("{bindings}/system:discovery"), json!({"subjects": []})),
    ];
    for (path, edit) in edits {
        let reply = server.merge(&path, &edit).await;
        assert_eq!(reply.code, 200, "{}", reply.text);
    }
    assert_eq!(
        server
            .delete(&format!("{roles}/system:auth-delegator"))
            .await
            .code,
        200
    );
    assert_eq!(code(&server, ("anna", &[]), Method::GET, "/apis").await, 403);
    server.shut_down().await;
    let server = Server::start_on(store, |_| {}).await;
    let rules = |reply: &Reply| reply.json["rules"].as_array().unwrap().len();
    let basic = server.get(&format!("{roles}/system:basic-user")).await;
    assert_eq!(rules(&basic), 3, "{}", basic.text);
    assert!(basic.json["rules"].as_array().unwrap().contains(&own));
    assert_eq!(rules(&server.get(&format!("{roles}/system:heapster")).await), 1);
    assert_eq!(
        server.get(&format!("{roles}/system:auth-delegator")).await.code,
        200
    );
    assert_eq!(code(&server, ("anna", &[]), Method::GET, "/apis").await, 200);
    server.shut_down().await;
}

#[tokio::test]
#[expect(clippy::too_many_lines, reason = "one story")]
async fn rights_are_given_only_by_those_who_have_them() {
    let server = Server::start().await;
    let all_roles = json!([{"apiGroups": [GROUP], "resources": ["*"], "verbs": ["create", "get", "list", "update", "patch", "delete"]}]);
    server
        .post(
            &format!("{RBAC}/clusterroles"),
            &cluster_role("writer", &all_roles),
        )
        .await;
    server
        .post(
            &format!("{RBAC}/clusterrolebindings"),
            &binding("writes", "writer", "anna"),
        )
        .await;
    let who = ("anna", &["devs"][..]);
    let secrets = json!([{"apiGroups": [""], "resources": ["secrets"], "verbs": ["list", "get"]}]);
    let refused = ask(
        &server,
        who,
        Method::POST,
        &format!("{RBAC}/clusterroles"),
        cluster_role("s", &secrets),
    )
    .await;
    assert_eq!(refused.code, 403, "{}", refused.text);
    let words = "clusterroles.rbac.authorization.k8s.io \"s\" is forbidden: user \"anna\" (groups=[\"devs\" \"system:authenticated\"]) is attempting to grant RBAC permissions not currently held:\n{APIGroups:[\"\"], Resources:[\"secrets\"], Verbs:[\"list\" \"get\"]}";
    assert_eq!(refused.json["message"], words);
    let gathering = json!({"apiVersion": format!("{GROUP}/v1"), "kind": "ClusterRole", "metadata": {"name": "g"},
        "aggregationRule": {"clusterRoleSelectors": [{}]}});
    let refused = ask(
        &server,
        who,
        Method::POST,
        &format!("{RBAC}/clusterroles"),
        gathering,
    )
    .await;
    assert!(
        refused
            .text
            .contains("must have cluster-admin privileges to use an aggregationRule"),
        "{}",
        refused.text
    );
    let missing = ask(
        &server,
        who,
        Method::POST,
        &format!("{RBAC}/clusterrolebindings"),
        binding("b", "nothing", "anna"),
    )
    .await;
    assert_eq!(missing.code, 404, "{}", missing.text);
    // An update is held to the same.
    let path = format!("{RBAC}/clusterroles/writer");
    let refused = ask(&server, who, Method::PATCH, &path, json!({"rules": secrets})).await;
    assert_eq!(refused.code, 403, "{}", refused.text);
    let labelled = ask(
        &server,
        who,
        Method::PATCH,
        &path,
        json!({"metadata": {"labels": {"a": "b"}}}),
    )
    .await;
    assert_eq!(labelled.code, 200, "{}", labelled.text);
    // Who may bind a role, or escalate, need not have it.
    let more = json!([{"apiGroups": [GROUP], "resources": ["clusterroles"], "verbs": ["bind"], "resourceNames": ["view"]},
        {"apiGroups": [GROUP], "resources": ["clusterroles"], "verbs": ["escalate"], "resourceNames": ["s"]}]);
    server
        .post(&format!("{RBAC}/clusterroles"), &cluster_role("more", &more))
        .await;
    server
        .post(
            &format!("{RBAC}/clusterrolebindings"),
            &binding("more", "more", "anna"),
        )
        .await;
    let made = ask(
        &server,
        who,
        Method::POST,
        &format!("{RBAC}/clusterroles"),
        cluster_role("s", &secrets),
    )
    .await;
    assert_eq!(made.code, 201, "{}", made.text);
    let made = ask(
        &server,
        who,
        Method::POST,
        &format!("{RBAC}/clusterrolebindings"),
        binding("v", "view", "bob"),
    )
    .await;
    assert_eq!(made.code, 201, "{}", made.text);
    assert_eq!(
        code(&server, ("bob", &[]), Method::GET, "/api/v1/pods").await,
        200
    );
    let other = ask(
        &server,
        who,
        Method::POST,
        &format!("{RBAC}/clusterrolebindings"),
        binding("e", "edit", "bob"),
    )
    .await;
    assert_eq!(other.code, 403, "{}", other.text);
    // A binding's role stays.
    let mut moved = server.get(&format!("{RBAC}/clusterrolebindings/v")).await.json;
    moved["roleRef"]["name"] = json!("edit");
    let refused = server.put(&format!("{RBAC}/clusterrolebindings/v"), &moved).await;
    assert_eq!(refused.code, 422, "{}", refused.text);
    assert!(refused.text.contains("cannot change roleRef"), "{}", refused.text);
    server.shut_down().await;
}

#[tokio::test]
async fn nodes_see_what_their_pods_need() {
    let server = Server::start().await;
    let secrets = "/api/v1/namespaces/default/secrets";
    for name in ["used", "other"] {
        let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}});
        assert_eq!(server.post(secrets, &secret).await.code, 201);
    }
    let mut pod = pod("p");
    pod["spec"]["volumes"] = json!([{"name": "s", "secret": {"secretName": "used"}}]);
    pod["spec"]["nodeName"] = json!("n");
    let made = server.post("/api/v1/namespaces/default/pods", &pod).await;
    assert_eq!(made.code, 201, "{}", made.text);
    let nodes = &["system:nodes"][..];
    let cases = [
        (
            "its pod's secret",
            "system:node:n",
            format!("{secrets}/used"),
            200,
        ),
        ("another secret", "system:node:n", format!("{secrets}/other"), 403),
        ("all secrets", "system:node:n", secrets.to_owned(), 403),
        (
            "another node's secret",
            "system:node:m",
            format!("{secrets}/used"),
            403,
        ),
        ("pods", "system:node:m", "/api/v1/pods".to_owned(), 200),
        (
            "its lease",
            "system:node:n",
            "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/n".to_owned(),
            404,
        ),
        (
            "another's lease",
            "system:node:n",
            "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/m".to_owned(),
            403,
        ),
    ];
    for (case, user, path, expected) in cases {
        assert_eq!(
            code(&server, (user, nodes), Method::GET, &path).await,
            expected,
            "{case}"
        );
    }
    assert_eq!(
        code(
            &server,
            ("system:node:n", &[]),
            Method::GET,
            &format!("{secrets}/used")
        )
        .await,
        403
    );
    server.shut_down().await;
}
