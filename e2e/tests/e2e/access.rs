//! Who gets in: certificates and tokens do, strangers get no further than health and version.

use moorline_e2e::{cluster::TestCluster, require_kubectl};

fn address(cluster: &TestCluster) -> String {
    cluster.kubectl().run(&[
        "config",
        "view",
        "--minify",
        "-o",
        "jsonpath={.clusters[0].cluster.server}",
    ])
}

/// kubectl without the admin's certificate, with a token.
fn with_token(cluster: &TestCluster, token: &str, path: &str) -> (Option<i32>, String) {
    let server = address(cluster);
    let mut command = std::process::Command::new("kubectl");
    command.args([
        "--kubeconfig",
        "/dev/null",
        "--server",
        &server,
        "--insecure-skip-tls-verify=true",
    ]);
    let output = command
        .args(["--token", token, "get", "--raw", path])
        .output()
        .unwrap();
    let text = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    (output.status.code(), text)
}

/// The HTTP status that a request without any credentials gets.
async fn status_for_a_stranger(cluster: &TestCluster, path: &str) -> u16 {
    let kubeconfig = kube::config::Kubeconfig::read_from(cluster.kubeconfig()).unwrap();
    let server = kubeconfig.clusters[0].cluster.clone().unwrap().server.unwrap();
    let mut config = kube::Config::new(server.parse().unwrap());
    config.accept_invalid_certs = true;
    let client = kube::Client::try_from(config).unwrap();
    let request = http::Request::get(path)
        .body(kube::client::Body::empty())
        .unwrap();
    client.send(request).await.unwrap().status().as_u16()
}

#[tokio::test]
async fn strangers_see_health_and_version_and_get_401_beyond() {
    let cluster = TestCluster::start(&["--no-kubelet", "--no-driver"]);
    for path in ["/readyz", "/livez", "/healthz", "/version"] {
        assert_eq!(status_for_a_stranger(&cluster, path).await, 200, "{path}");
    }
    for path in [
        "/api/v1/secrets",
        "/apis",
        "/api/v1/namespaces/default/pods",
        "/metrics",
        "/openapi/v3",
    ] {
        assert_eq!(status_for_a_stranger(&cluster, path).await, 401, "{path}");
    }
}

#[test]
fn a_token_that_is_not_ours_is_refused() {
    require_kubectl!();
    let cluster = TestCluster::start(&["--no-kubelet", "--no-driver"]);
    let (code, text) = with_token(&cluster, "made.up.token", "/api/v1/namespaces");
    assert_eq!(code, Some(1), "{text}");
    assert!(
        text.contains("Unauthorized") || text.contains("must be logged in"),
        "{text}"
    );
}

#[test]
fn a_service_account_token_authenticates_and_is_allowed_only_what_its_roles_say() {
    require_kubectl!();
    let cluster = TestCluster::start(&["--no-kubelet", "--no-driver"]);
    let admin = cluster.kubectl();
    admin.run(&["create", "serviceaccount", "reader"]);
    let token = admin.run(&["create", "token", "reader"]);
    let (code, text) = with_token(&cluster, &token, "/api/v1/namespaces/default/configmaps");
    assert_eq!(code, Some(1), "{text}");
    assert!(
        text.contains("forbidden") && text.contains("system:serviceaccount:default:reader"),
        "{text}"
    );
    admin.run(&[
        "create",
        "role",
        "reader",
        "--verb=get,list",
        "--resource=configmaps",
    ]);
    admin.run(&[
        "create",
        "rolebinding",
        "reader",
        "--role=reader",
        "--serviceaccount=default:reader",
    ]);
    moorline_e2e::wait::until(
        "the role to count",
        std::time::Duration::from_secs(5),
        || match with_token(&cluster, &token, "/api/v1/namespaces/default/configmaps") {
            (Some(0), text) => Ok(text),
            other => Err(other),
        },
    );
}
