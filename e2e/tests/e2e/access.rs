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

/// kubectl without the admin's certificate.
fn stranger(cluster: &TestCluster, extra: &[&str], path: &str) -> (Option<i32>, String) {
    let server = address(cluster);
    let mut command = std::process::Command::new("kubectl");
    command
        .args([
            "--kubeconfig",
            "/dev/null",
            "--server",
            &server,
            "--insecure-skip-tls-verify=true",
        ])
        .args(extra);
    let output = command.args(["get", "--raw", path]).output().unwrap();
    let text = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    (output.status.code(), text)
}

#[test]
fn strangers_see_health_and_version_and_get_401_beyond() {
    require_kubectl!();
    let cluster = TestCluster::start(&["--no-kubelet", "--no-driver"]);
    for path in ["/readyz", "/livez", "/healthz", "/version"] {
        let (code, text) = stranger(&cluster, &["--token", ""], path);
        assert_eq!(code, Some(0), "{path}: {text}");
    }
    for path in [
        "/api/v1/secrets",
        "/apis",
        "/api/v1/namespaces/default/pods",
        "/metrics",
    ] {
        let (code, text) = stranger(&cluster, &[], path);
        assert_eq!(code, Some(1), "{path}: {text}");
        assert!(
            text.contains("Unauthorized") || text.contains("must be logged in"),
            "{path}: {text}"
        );
    }
    let (code, text) = stranger(&cluster, &["--token", "made.up.token"], "/api/v1/namespaces");
    assert_eq!(code, Some(1), "{text}");
}

#[test]
fn a_service_account_token_authenticates_and_is_allowed_only_what_its_roles_say() {
    require_kubectl!();
    let cluster = TestCluster::start(&["--no-kubelet", "--no-driver"]);
    let admin = cluster.kubectl();
    admin.run(&["create", "serviceaccount", "reader"]);
    let token = admin.run(&["create", "token", "reader"]);
    let (code, text) = stranger(
        &cluster,
        &["--token", &token],
        "/api/v1/namespaces/default/configmaps",
    );
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
        || match stranger(
            &cluster,
            &["--token", &token],
            "/api/v1/namespaces/default/configmaps",
        ) {
            (Some(0), text) => Ok(text),
            other => Err(other),
        },
    );
}
