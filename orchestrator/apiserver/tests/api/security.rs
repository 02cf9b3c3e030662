//! Who gets in, and what they may do.

use http::Request;
use kube::client::Body;
use serde_json::{Value, json};

use crate::harness::{Server, pod, send};

/// A client over TLS that trusts the server but has no certificate.
fn stranger(server: &Server, token: Option<&str>) -> kube::Client {
    let mut config = serde_json::from_str::<Value>(&json!({"apiVersion": "v1", "kind": "Config", "current-context": "c",
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
        "users": [{"name": "u", "user": {}}],
        "clusters": [{"name": "c", "cluster": {"server": format!("https://{}", server.server.local_addr())}}]}).to_string()).unwrap();
    use base64::Engine;
    let ca = base64::prelude::BASE64_STANDARD.encode(server.server.pki().ca_pem());
    config["clusters"][0]["cluster"]["certificate-authority-data"] = json!(ca);
    if let Some(token) = token {
        config["users"][0]["user"]["token"] = json!(token);
    }
    let kubeconfig: kube::config::Kubeconfig = serde_json::from_value(config).unwrap();
    let config = futures::executor::block_on(kube::Config::from_custom_kubeconfig(
        kubeconfig,
        &Default::default(),
    ));
    kube::Client::try_from(config.unwrap()).unwrap()
}

async fn code(client: &kube::Client, path: &str) -> u16 {
    send(client, Request::get(path).body(Body::empty()).unwrap())
        .await
        .code
        .as_u16()
}

async fn token(server: &Server, body: &Value) -> String {
    let path = "/api/v1/namespaces/default/serviceaccounts/default";
    server.until(path, "an account", |reply| reply.code == 200).await;
    let reply = server.post(&format!("{path}/token"), body).await;
    assert_eq!(reply.code, 201, "{}", reply.text);
    reply.json["status"]["token"].as_str().unwrap().to_owned()
}

fn token_request(spec: Value) -> Value {
    json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec})
}

#[tokio::test]
async fn strangers_see_health_and_version() {
    let server = Server::start().await;
    let client = stranger(&server, None);
    let cases = [
        ("/healthz", 200),
        ("/livez", 200),
        ("/readyz", 200),
        ("/readyz/started", 200),
        ("/version", 200),
        ("/api", 401),
        ("/apis", 401),
        ("/metrics", 401),
        ("/openapi/v3", 401),
        ("/api/v1/pods", 401),
        ("/api/v1/nonsense", 401),
        ("/nonsense", 401),
    ];
    for (path, expected) in cases {
        assert_eq!(code(&client, path).await, expected, "{path}");
    }
    server.shut_down().await;
}

#[tokio::test]
async fn tokens_are_identities_with_roles() {
    let server = Server::start().await;
    let client = stranger(&server, Some(&token(&server, &token_request(json!({}))).await));
    assert_eq!(code(&client, "/api").await, 200);
    let path = "/api/v1/namespaces/default/pods";
    let refused = send(&client, Request::get(path).body(Body::empty()).unwrap()).await;
    assert_eq!(refused.code, 403);
    let words = "pods is forbidden: User \"system:serviceaccount:default:default\" cannot list resource \"pods\" in API group \"\" in the namespace \"default\"";
    assert_eq!(refused.json["message"], words);
    let rbac = "/apis/rbac.authorization.k8s.io/v1/namespaces/default";
    let role = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": {"name": "r"},
        "rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": ["list"]}]});
    let binding = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": {"name": "r"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "r"},
        "subjects": [{"kind": "ServiceAccount", "name": "default", "namespace": "default"}]});
    assert_eq!(server.post(&format!("{rbac}/roles"), &role).await.code, 201);
    assert_eq!(
        server.post(&format!("{rbac}/rolebindings"), &binding).await.code,
        201
    );
    assert_eq!(code(&client, path).await, 200);
    assert_eq!(code(&client, "/api/v1/namespaces/kube-system/pods").await, 403);
    server.delete(&format!("{rbac}/rolebindings/r")).await;
    assert_eq!(code(&client, path).await, 403);
    server.shut_down().await;
}

#[tokio::test]
async fn a_token_dies_with_its_pod() {
    let server = Server::start().await;
    let pods = "/api/v1/namespaces/default/pods";
    let pod = server.post(pods, &pod("p")).await.json;
    let reference = json!({"kind": "Pod", "apiVersion": "v1", "name": "p", "uid": pod["metadata"]["uid"]});
    let token = token(
        &server,
        &token_request(json!({"boundObjectRef": reference, "expirationSeconds": 3607})),
    )
    .await;
    let client = stranger(&server, Some(&token));
    assert_eq!(code(&client, "/api").await, 200);
    let review =
        json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": {"token": token}});
    let path = "/apis/authentication.k8s.io/v1/tokenreviews";
    let status = server.post(path, &review).await.json["status"].clone();
    assert_eq!(
        (&status["authenticated"], &status["user"]["username"]),
        (&json!(true), &json!("system:serviceaccount:default:default"))
    );
    assert_eq!(
        status["user"]["extra"]["authentication.kubernetes.io/pod-name"],
        json!(["p"])
    );
    server.delete(&format!("{pods}/p")).await;
    assert_eq!(code(&client, "/api").await, 401);
    assert_eq!(
        server.post(path, &review).await.json["status"]["authenticated"],
        false
    );
    server.shut_down().await;
}

#[tokio::test]
async fn bad_tokens_are_refused() {
    let server = Server::start().await;
    for token in ["nonsense", "a.b.c", ""] {
        let request = Request::get("/api")
            .header("authorization", format!("Bearer {token}"))
            .body(Body::empty())
            .unwrap();
        assert_eq!(
            send(&stranger(&server, None), request).await.code,
            401,
            "{token:?}"
        );
    }
    let other = token(&server, &token_request(json!({"audiences": ["vault"]}))).await;
    assert_eq!(code(&stranger(&server, Some(&other)), "/api").await, 401);
    let short = server
        .post(
            "/api/v1/namespaces/default/serviceaccounts/default/token",
            &token_request(json!({"expirationSeconds": 5})),
        )
        .await;
    assert_eq!(short.code, 422);
    server.shut_down().await;
}

#[tokio::test]
async fn users_without_roles_may_ask_about_themselves() {
    let server = Server::start().await;
    let anna = server.server.client("anna", &["devs"]);
    let ask = async |path: &str, body: Value| {
        let request = Request::post(path)
            .header("content-type", "application/json")
            .body(Body::from(body.to_string().into_bytes()));
        send(&anna, request.unwrap()).await
    };
    let review = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"});
    let found = ask("/apis/authentication.k8s.io/v1/selfsubjectreviews", review).await;
    assert_eq!(
        found.json["status"]["userInfo"],
        json!({"username": "anna", "groups": ["devs", "system:authenticated"]})
    );
    let may = json!({"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview",
        "spec": {"resourceAttributes": {"verb": "get", "resource": "pods", "namespace": "default"}}});
    let found = ask("/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", may).await;
    assert_eq!(
        (found.code.as_u16(), &found.json["status"]["allowed"]),
        (201, &json!(false)),
        "{}",
        found.text
    );
    let other = json!({"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "spec": {"user": "x"}});
    assert_eq!(
        ask("/apis/authorization.k8s.io/v1/subjectaccessreviews", other)
            .await
            .code,
        403
    );
    server.shut_down().await;
}

#[tokio::test]
async fn masters_may_act_as_others() {
    let server = Server::start().await;
    let request = |user: &str| {
        Request::get("/api/v1/pods")
            .header("impersonate-user", user)
            .body(Body::empty())
            .unwrap()
    };
    let refused = server.send(request("anna")).await;
    assert_eq!(refused.code, 403, "{}", refused.text);
    assert!(refused.text.contains("User \\\"anna\\\""));
    let own = send(&server.server.client("bob", &[]), request("anna")).await;
    assert!(own.text.contains("cannot impersonate resource"), "{}", own.text);
    let unknown = Request::get("/api/v1/pods")
        .header("impersonate-uid", "1")
        .body(Body::empty())
        .unwrap();
    assert_eq!(server.send(unknown).await.code, 400);
    server.shut_down().await;
}

#[tokio::test]
async fn nobody_makes_themselves_more_than_they_are() {
    let server = Server::start().await;
    let path = "/apis/rbac.authorization.k8s.io/v1";
    let role = |name: &str, rules: Value| json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": name}, "rules": rules});
    let binding = |name: &str, role: &str| {
        json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": {"name": name},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
            "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "anna"}]})
    };
    let writer = json!([{"apiGroups": ["rbac.authorization.k8s.io"], "resources": ["*"], "verbs": ["create", "update", "get", "patch"]}]);
    server
        .post(&format!("{path}/clusterroles"), &role("writer", writer))
        .await;
    server
        .post(
            &format!("{path}/clusterrolebindings"),
            &binding("anna-writes", "writer"),
        )
        .await;
    let anna = server.server.client("anna", &[]);
    let post = async |path: String, body: Value| {
        let request = Request::post(path).header("content-type", "application/json");
        send(
            &anna,
            request.body(Body::from(body.to_string().into_bytes())).unwrap(),
        )
        .await
    };
    let all = json!([{"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}]);
    let reply = post(format!("{path}/clusterroles"), role("all", all)).await;
    assert_eq!(reply.code, 403, "{}", reply.text);
    assert!(reply.text.contains("not currently held"), "{}", reply.text);
    assert_eq!(
        post(
            format!("{path}/clusterrolebindings"),
            binding("more", "cluster-admin")
        )
        .await
        .code,
        403
    );
    assert_eq!(
        post(format!("{path}/clusterrolebindings"), binding("same", "writer"))
            .await
            .code,
        201
    );
    server.shut_down().await;
}
