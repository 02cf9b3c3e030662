//! Webhooks, seen from outside: servers of their own, over TLS.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use http::{Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::custom_resources::{WIDGETS, define, definition, widget};
use crate::harness::{PATIENCE, Reply, Server, config_map, pod};

const MUTATING: &str = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations";
const VALIDATING: &str = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations";
pub(crate) const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const PODS: &str = "/api/v1/namespaces/default/pods";

/// A server that has written everything it writes by itself.
pub(crate) async fn started() -> Server {
    let server = Server::start().await;
    for namespace in ["default", "kube-system", "kube-public", "kube-node-lease"] {
        for own in ["serviceaccounts/default", "configmaps/kube-root-ca.crt"] {
            let path = format!("/api/v1/namespaces/{namespace}/{own}");
            server
                .until(&path, "what the server writes", |reply| reply.code == 200)
                .await;
        }
    }
    server
}

type Answers = Arc<dyn Fn(&str, &Value) -> Value + Send + Sync>;

/// A webhook of a test.
struct Webhook {
    port: u16,
    /// PEM of its certificate, in base64.
    bundle: String,
    /// Path and request of each review.
    seen: Arc<Mutex<Vec<(String, Value)>>>,
    connections: Arc<AtomicUsize>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl Webhook {
    /// Answers with what `answer` makes of the path and the request of a review: the response without its uid.
    async fn start(answer: impl Fn(&str, &Value) -> Value + Send + Sync + 'static) -> Self {
        let key = rcgen::KeyPair::generate().unwrap();
        let names = ["127.0.0.1", "hook.default.svc"].map(str::to_owned);
        let params = rcgen::CertificateParams::new(names.to_vec()).unwrap();
        let certificate = params.self_signed(&key).unwrap();
        let private = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let config =
            rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
                .with_safe_default_protocol_versions()
                .unwrap()
                .with_no_client_auth()
                .with_single_cert(vec![certificate.der().clone()], private)
                .unwrap();
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let webhook = Webhook {
            port: listener.local_addr().unwrap().port(),
            bundle: BASE64_STANDARD.encode(certificate.pem()),
            seen: Arc::default(),
            connections: Arc::default(),
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
        };
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let answers: Answers = Arc::new(answer);
        let accept = accept(listener, acceptor, answers, webhook.parts());
        webhook
            .tasks
            .spawn(webhook.stop.clone().run_until_cancelled_owned(accept));
        webhook
    }

    fn parts(&self) -> Parts {
        Parts {
            seen: Arc::clone(&self.seen),
            connections: Arc::clone(&self.connections),
            tasks: self.tasks.clone(),
            stop: self.stop.clone(),
        }
    }

    fn client(&self, path: &str) -> Value {
        json!({"url": format!("https://127.0.0.1:{}{path}", self.port), "caBundle": self.bundle})
    }

    /// The requests that came to a path.
    fn seen_at(&self, path: &str) -> Vec<Value> {
        let seen = self.seen.lock();
        let own = seen.iter().filter(|(found, _)| found == path);
        own.map(|(_, request)| request.clone()).collect()
    }

    async fn end(self) {
        self.stop.cancel();
        self.tasks.close();
        tokio::time::timeout(PATIENCE, self.tasks.wait()).await.unwrap();
    }
}

#[derive(Clone)]
struct Parts {
    seen: Arc<Mutex<Vec<(String, Value)>>>,
    connections: Arc<AtomicUsize>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

async fn accept(listener: TcpListener, acceptor: TlsAcceptor, answers: Answers, parts: Parts) {
    loop {
        let (tcp, _) = listener.accept().await.unwrap();
        let (acceptor, answers, own) = (acceptor.clone(), Arc::clone(&answers), parts.clone());
        let connection = async move {
            // A client that does not trust the certificate goes away here.
            let Ok(tls) = acceptor.accept(tcp).await else {
                return;
            };
            own.connections.fetch_add(1, Ordering::Relaxed);
            let service = service_fn(|request: http::Request<hyper::body::Incoming>| {
                let (answers, seen) = (Arc::clone(&answers), Arc::clone(&own.seen));
                async move {
                    let path = request.uri().path().to_owned();
                    let body = request.into_body().collect().await?.to_bytes();
                    let review: Value = serde_json::from_slice(&body).unwrap();
                    let mut response = answers(&path, &review["request"]);
                    response["uid"] = review["request"]["uid"].clone();
                    seen.lock().push((path, review["request"].clone()));
                    let code = response["http"].as_u64().unwrap_or(200);
                    let body = json!({"kind": review["kind"], "apiVersion": review["apiVersion"], "response": response});
                    let answer = Response::builder().status(u16::try_from(code).unwrap());
                    Ok::<_, hyper::Error>(answer.body(Full::new(Bytes::from(body.to_string()))).unwrap())
                }
            });
            // The other side may close it at any time.
            hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(tls), service)
                .await
                .ok();
        };
        parts
            .tasks
            .spawn(parts.stop.clone().run_until_cancelled_owned(connection));
    }
}

fn allowed() -> Value {
    json!({"allowed": true})
}

fn patched(patch: &Value) -> Value {
    json!({"allowed": true, "patchType": "JSONPatch", "patch": BASE64_STANDARD.encode(patch.to_string())})
}

pub(crate) fn rule(plural: &str, operations: &[&str]) -> Value {
    json!({"apiGroups": ["*"], "apiVersions": ["v1"], "resources": [plural], "operations": operations})
}

/// One webhook of a configuration.
fn hook(name: &str, client: &Value, rule: &Value) -> Value {
    json!({"name": name, "clientConfig": client, "rules": [rule], "sideEffects": "None", "admissionReviewVersions": ["v1"],
        "timeoutSeconds": 30})
}

async fn configure(server: &Server, path: &str, name: &str, webhooks: Vec<Value>) {
    let kind = if path == MUTATING {
        "MutatingWebhookConfiguration"
    } else {
        "ValidatingWebhookConfiguration"
    };
    let configuration = json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": kind, "metadata": {"name": name}, "webhooks": webhooks});
    let made = server.post(path, &configuration).await;
    assert_eq!(
        (made.code, made.headers.get("warning")),
        (StatusCode::CREATED, None),
        "{}",
        made.text
    );
}

pub(crate) fn message(reply: &Reply) -> &str {
    reply.json["message"].as_str().unwrap_or_default()
}

#[tokio::test]
async fn webhooks_change_objects_and_warn() {
    let server = started().await;
    let webhook = Webhook::start(|_, _| {
        let mut answer = patched(&json!([{"op": "add", "path": "/data/added", "value": "yes"}]));
        answer["warnings"] = json!(["mind the gap"]);
        answer
    })
    .await;
    configure(
        &server,
        MUTATING,
        "m",
        vec![hook(
            "add.example.com",
            &webhook.client("/add"),
            &rule("configmaps", &["CREATE"]),
        )],
    )
    .await;
    let made = server.post(MAPS, &config_map("a")).await;
    assert_eq!(made.code, StatusCode::CREATED, "{}", made.text);
    assert_eq!(made.json["data"], json!({"a": "1", "added": "yes"}));
    assert_eq!(made.headers["warning"], "299 - \"mind the gap\"");
    let seen = webhook.seen_at("/add");
    assert_eq!(seen.len(), 1);
    let request = &seen[0];
    assert_eq!(
        (
            &request["operation"],
            &request["name"],
            &request["namespace"],
            &request["resource"]["resource"],
            &request["dryRun"]
        ),
        (
            &json!("CREATE"),
            &json!("a"),
            &json!("default"),
            &json!("configmaps"),
            &json!(false)
        )
    );
    assert_eq!(request["userInfo"]["username"], "admin");
    assert_eq!(
        (&request["object"]["data"], &request["oldObject"]),
        (&json!({"a": "1"}), &Value::Null)
    );
    // Updates are none of its business.
    let merged = server
        .merge(&format!("{MAPS}/a"), &json!({"data": {"a": "2"}}))
        .await;
    assert_eq!(merged.code, StatusCode::OK, "{}", merged.text);
    for index in 0..5 {
        assert_eq!(
            server
                .post(MAPS, &config_map(&format!("more-{index}")))
                .await
                .code,
            StatusCode::CREATED
        );
    }
    assert_eq!(webhook.seen_at("/add").len(), 6);
    assert_eq!(
        webhook.connections.load(Ordering::Relaxed),
        1,
        "connections are used again"
    );
    server.shut_down().await;
    webhook.end().await;
}

#[tokio::test]
async fn webhooks_refuse_in_their_words() {
    let server = started().await;
    let webhook = Webhook::start(|path, request| match (path, request["operation"].as_str()) {
        ("/no", Some("DELETE")) if request["oldObject"]["metadata"]["name"] == "kept" => {
            json!({"allowed": false})
        }
        ("/no", Some("CREATE")) if request["object"]["data"]["a"] == "bad" => {
            json!({"allowed": false, "status": {"code": 409, "reason": "Conflict", "message": "a is bad"}})
        }
        _ => allowed(),
    })
    .await;
    configure(
        &server,
        VALIDATING,
        "v",
        vec![hook(
            "no.example.com",
            &webhook.client("/no"),
            &rule("configmaps", &["*"]),
        )],
    )
    .await;
    let mut bad = config_map("bad");
    bad["data"]["a"] = json!("bad");
    let refused = server.post(MAPS, &bad).await;
    assert_eq!(
        (refused.code, message(&refused)),
        (
            StatusCode::CONFLICT,
            "admission webhook \"no.example.com\" denied the request: a is bad"
        )
    );
    assert_eq!(refused.json["reason"], "Conflict");
    assert_eq!(
        server.get(&format!("{MAPS}/bad")).await.code,
        StatusCode::NOT_FOUND
    );
    assert_eq!(
        server.post(MAPS, &config_map("kept")).await.code,
        StatusCode::CREATED
    );
    let refused = server.delete(&format!("{MAPS}/kept")).await;
    assert_eq!(
        (refused.code, message(&refused)),
        (
            StatusCode::BAD_REQUEST,
            "admission webhook \"no.example.com\" denied the request without explanation"
        )
    );
    // The configuration itself can always be mended.
    assert_eq!(
        server.delete(&format!("{VALIDATING}/v")).await.code,
        StatusCode::OK
    );
    assert_eq!(server.delete(&format!("{MAPS}/kept")).await.code, StatusCode::OK);
    server.shut_down().await;
    webhook.end().await;
}

#[tokio::test]
async fn what_can_not_be_asked_fails_or_is_passed_over() {
    let server = started().await;
    let webhook = Webhook::start(|path, _| match path {
        "/odd" => patched(&json!([{"op": "test", "path": "/none", "value": 1}])),
        _ => json!({"http": 500}),
    })
    .await;
    let nowhere = json!({"url": "https://127.0.0.1:1/x", "caBundle": webhook.bundle});
    let untrusted = json!({"url": format!("https://127.0.0.1:{}/x", webhook.port), "caBundle": BASE64_STANDARD.encode(server.server.pki().ca_pem())});
    let service = json!({"service": {"namespace": "default", "name": "none"}, "caBundle": webhook.bundle});
    let clients = [
        (
            "nowhere",
            nowhere.clone(),
            "failed calling webhook \"w.example.com\": failed to call webhook: Post \"https://127.0.0.1:1/x?timeout=30s\": dial tcp 127.0.0.1:1:",
        ),
        (
            "untrusted",
            untrusted,
            "failed calling webhook \"w.example.com\": failed to call webhook: Post",
        ),
        (
            "failing",
            webhook.client("/fails"),
            "failed calling webhook \"w.example.com\": failed to call webhook: an error on the server",
        ),
        (
            "service",
            service,
            "failed calling webhook \"w.example.com\": failed to call webhook: service \"none\" not found",
        ),
        (
            "odd",
            webhook.client("/odd"),
            "received invalid webhook response: validating webhook may not return response.patch",
        ),
    ];
    for (name, client, expected) in clients {
        configure(
            &server,
            VALIDATING,
            name,
            vec![hook("w.example.com", &client, &rule("configmaps", &["CREATE"]))],
        )
        .await;
        let refused = server.post(MAPS, &config_map(name)).await;
        assert_eq!(
            refused.code,
            StatusCode::INTERNAL_SERVER_ERROR,
            "{name}: {}",
            refused.text
        );
        assert!(message(&refused).contains(expected), "{name}: {}", refused.text);
        assert_eq!(
            server.delete(&format!("{VALIDATING}/{name}")).await.code,
            StatusCode::OK
        );
    }
    let mut ignored = hook("w.example.com", &nowhere, &rule("configmaps", &["CREATE"]));
    ignored["failurePolicy"] = json!("Ignore");
    configure(&server, VALIDATING, "ignored", vec![ignored]).await;
    assert_eq!(
        server.post(MAPS, &config_map("a")).await.code,
        StatusCode::CREATED
    );
    server.shut_down().await;
    webhook.end().await;
}

#[tokio::test]
async fn a_webhook_has_its_time() {
    let server = started().await;
    // It takes connections and says nothing.
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let url = format!("https://127.0.0.1:{}/slow", listener.local_addr().unwrap().port());
    let mut slow = hook(
        "slow.example.com",
        &json!({"url": url, "caBundle": BASE64_STANDARD.encode(server.server.pki().ca_pem())}),
        &rule("configmaps", &["CREATE"]),
    );
    slow["timeoutSeconds"] = json!(1);
    configure(&server, VALIDATING, "slow", vec![slow]).await;
    let refused = server.post(MAPS, &config_map("a")).await;
    assert!(
        message(&refused).contains("/slow?timeout=1s\": context deadline exceeded"),
        "{}",
        refused.text
    );
    drop(listener);
    server.shut_down().await;
}

#[tokio::test]
async fn selectors_conditions_and_dry_runs() {
    let server = started().await;
    let webhook = Webhook::start(|_, _| allowed()).await;
    let with = |path: &str, more: Value| {
        let mut one = hook(
            &format!("{}.example.com", path.trim_matches('/')),
            &webhook.client(path),
            &rule("configmaps", &["CREATE"]),
        );
        for (name, value) in more.as_object().unwrap() {
            one[name] = value.clone();
        }
        one
    };
    let webhooks = vec![
        with(
            "/labelled",
            json!({"objectSelector": {"matchLabels": {"a": "b"}}}),
        ),
        with(
            "/elsewhere",
            json!({"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "kube-system"}}}),
        ),
        with(
            "/here",
            json!({"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "default"}}}),
        ),
        with(
            "/holds",
            json!({"matchConditions": [{"name": "c", "expression": "object.data.a == '1' && request.operation == 'CREATE'"}]}),
        ),
        with(
            "/holds-not",
            json!({"matchConditions": [{"name": "c", "expression": "request.userInfo.username != 'admin'"}]}),
        ),
        with(
            "/asks",
            json!({"matchConditions": [{"name": "c", "expression": "authorizer.group('').resource('pods').check('get').allowed()"}]}),
        ),
    ];
    configure(&server, VALIDATING, "v", webhooks).await;
    let made = server.post(&format!("{MAPS}?dryRun=All"), &config_map("a")).await;
    assert_eq!(made.code, StatusCode::CREATED, "{}", made.text);
    let mut seen: Vec<String> = webhook.seen.lock().iter().map(|(path, _)| path.clone()).collect();
    seen.sort();
    assert_eq!(seen, ["/asks", "/here", "/holds"]);
    assert_eq!(webhook.seen_at("/here")[0]["dryRun"], true);
    assert_eq!(server.get(&format!("{MAPS}/a")).await.code, StatusCode::NOT_FOUND);
    let odd = with(
        "/odd",
        json!({"matchConditions": [{"name": "c", "expression": "object.("}]}),
    );
    let configuration = json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingWebhookConfiguration", "metadata": {"name": "odd"}, "webhooks": [odd]});
    let refused = server.post(VALIDATING, &configuration).await;
    assert_eq!(refused.code, StatusCode::UNPROCESSABLE_ENTITY, "{}", refused.text);
    assert_eq!(
        refused.json["details"]["causes"][0]["field"],
        "webhooks[0].matchConditions[0].expression"
    );
    server.shut_down().await;
    webhook.end().await;
}

#[tokio::test]
async fn webhooks_are_asked_again_if_others_changed_the_object() {
    let server = started().await;
    let webhook = Webhook::start(|path, request| match path {
        "/count" => {
            let containers = request["object"]["spec"]["containers"]
                .as_array()
                .unwrap()
                .len()
                .to_string();
            patched(&json!([{"op": "add", "path": "/metadata/labels", "value": {"containers": containers}}]))
        }
        _ => patched(
            &json!([{"op": "add", "path": "/spec/containers/-", "value": {"name": "side", "image": "i"}}]),
        ),
    })
    .await;
    let mut count = hook(
        "count.example.com",
        &webhook.client("/count"),
        &rule("pods", &["CREATE"]),
    );
    count["reinvocationPolicy"] = json!("IfNeeded");
    let add = hook(
        "side.example.com",
        &webhook.client("/side"),
        &rule("pods", &["CREATE"]),
    );
    configure(&server, MUTATING, "m", vec![count, add]).await;
    let made = server.post(PODS, &pod("p")).await;
    assert_eq!(made.code, StatusCode::CREATED, "{}", made.text);
    assert_eq!(made.json["metadata"]["labels"]["containers"], "2");
    // The container that came from the webhook is completed like the others.
    let side = &made.json["spec"]["containers"][1];
    assert_eq!(
        side["volumeMounts"], made.json["spec"]["containers"][0]["volumeMounts"],
        "{}",
        made.text
    );
    assert_eq!(side["terminationMessagePath"], "/dev/termination-log");
    assert_eq!(
        (webhook.seen_at("/count").len(), webhook.seen_at("/side").len()),
        (2, 1)
    );
    server.shut_down().await;
    webhook.end().await;
}

#[tokio::test]
async fn parts_of_objects_are_shown_as_what_they_are() {
    let server = started().await;
    let webhook = Webhook::start(|_, _| allowed()).await;
    define(&server, &definition()).await;
    let all = json!({"apiGroups": ["*"], "apiVersions": ["*"], "resources": ["widgets", "widgets/scale", "widgets/status", "pods/binding"], "operations": ["*"]});
    configure(
        &server,
        VALIDATING,
        "v",
        vec![hook("all.example.com", &webhook.client("/all"), &all)],
    )
    .await;
    assert_eq!(
        server.post(WIDGETS, &widget("w", json!({"size": 1}))).await.code,
        StatusCode::CREATED
    );
    let scaled = server
        .merge(&format!("{WIDGETS}/w/scale"), &json!({"spec": {"replicas": 3}}))
        .await;
    assert_eq!(scaled.code, StatusCode::OK, "{}", scaled.text);
    server
        .merge(&format!("{WIDGETS}/w/status"), &json!({"status": {"phase": "x"}}))
        .await;
    server.post(PODS, &pod("p")).await;
    let binding = json!({"apiVersion": "v1", "kind": "Binding", "metadata": {"name": "p"}, "target": {"kind": "Node", "name": "n"}});
    assert_eq!(
        server.post(&format!("{PODS}/p/binding"), &binding).await.code,
        StatusCode::CREATED
    );
    assert_eq!(server.delete(&format!("{WIDGETS}/w")).await.code, StatusCode::OK);
    let seen: Vec<String> = webhook
        .seen_at("/all")
        .iter()
        .map(|request| {
            let text = |path: &str| {
                request
                    .pointer(path)
                    .and_then(Value::as_str)
                    .unwrap_or("-")
                    .to_owned()
            };
            format!(
                "{} {} {} {}",
                text("/operation"),
                text("/resource/resource"),
                text("/subResource"),
                text("/kind/kind")
            )
        })
        .collect();
    assert_eq!(
        seen,
        [
            "CREATE widgets - Widget",
            "UPDATE widgets scale Scale",
            "UPDATE widgets status Widget",
            "CREATE pods binding Binding",
            "DELETE widgets - Widget",
        ]
    );
    server.shut_down().await;
    webhook.end().await;
}

#[tokio::test]
async fn services_lead_to_ready_pods() {
    let server = started().await;
    let webhook = Webhook::start(|_, _| allowed()).await;
    let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "hook"},
        "spec": {"selector": {"app": "hook"}, "ports": [{"port": 443, "targetPort": webhook.port}]}});
    assert_eq!(
        server
            .post("/api/v1/namespaces/default/services", &service)
            .await
            .code,
        StatusCode::CREATED
    );
    let mut hooked = pod("hook");
    hooked["metadata"]["labels"] = json!({"app": "hook"});
    assert_eq!(server.post(PODS, &hooked).await.code, StatusCode::CREATED);
    let status = json!({"status": {"podIP": "127.0.0.1", "podIPs": [{"ip": "127.0.0.1"}], "conditions": [{"type": "Ready", "status": "True"}]}});
    let ready = server.merge(&format!("{PODS}/hook/status"), &status).await;
    assert_eq!(ready.code, StatusCode::OK, "{}", ready.text);
    let client = json!({"service": {"namespace": "default", "name": "hook", "path": "/in"}, "caBundle": webhook.bundle});
    configure(
        &server,
        VALIDATING,
        "v",
        vec![hook("in.example.com", &client, &rule("configmaps", &["CREATE"]))],
    )
    .await;
    let made = server.post(MAPS, &config_map("a")).await;
    assert_eq!(made.code, StatusCode::CREATED, "{}", made.text);
    assert_eq!(webhook.seen_at("/in").len(), 1);
    server.shut_down().await;
    webhook.end().await;
}

#[tokio::test]
async fn a_broken_webhook_does_not_keep_the_server_from_starting() {
    let store: Arc<dyn moorline_store::Store> = Arc::new(moorline_store::MemoryStore::new());
    let server = Server::start_on(Arc::clone(&store), |_| {}).await;
    let nowhere = json!({"url": "https://127.0.0.1:1/x"});
    let all = json!({"apiGroups": ["*"], "apiVersions": ["*"], "resources": ["*/*"], "operations": ["*"]});
    let role = "/apis/rbac.authorization.k8s.io/v1/clusterroles/system:heapster";
    configure(
        &server,
        VALIDATING,
        "v",
        vec![hook("x.example.com", &nowhere, &all)],
    )
    .await;
    let refused = server.delete(role).await;
    assert_eq!(
        refused.code,
        StatusCode::INTERNAL_SERVER_ERROR,
        "{}",
        refused.text
    );
    assert_eq!(
        server.delete(&format!("{VALIDATING}/v")).await.code,
        StatusCode::OK
    );
    assert_eq!(server.delete(role).await.code, StatusCode::OK);
    configure(
        &server,
        VALIDATING,
        "v",
        vec![hook("x.example.com", &nowhere, &all)],
    )
    .await;
    server.shut_down().await;
    let server = Server::start_on(store, |_| {}).await;
    assert_eq!(server.get(role).await.code, StatusCode::OK);
    server.shut_down().await;
}
