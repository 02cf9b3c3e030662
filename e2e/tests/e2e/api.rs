//! Stock kubectl's everyday commands against the API server alone.

use moorline_e2e::{cluster::TestCluster, require_kubectl};

#[test]
fn everyday_commands_of_kubectl_answer_as_users_know_them() {
    require_kubectl!();
    let cluster = TestCluster::start(&["--no-kubelet", "--no-driver"]);
    let kubectl = cluster.kubectl();
    assert_eq!(kubectl.run(&["get", "--raw", "/readyz"]), "ok");
    assert!(
        kubectl.run(&["version"]).contains("Server Version: v1.36"),
        "{}",
        kubectl.run(&["version"])
    );
    assert!(kubectl.run(&["cluster-info"]).contains("is running at"));
    let resources = kubectl.run(&["api-resources"]);
    for row in [
        "persistentvolumeclaims",
        "storageclasses",
        "volumeattachments",
        "csinodes",
        "leases",
        "rolebindings",
    ] {
        assert!(resources.contains(row), "{row}: {resources}");
    }
    let namespaces = kubectl.run(&["get", "namespaces"]);
    assert!(namespaces.starts_with("NAME"), "{namespaces}");
    for name in ["default", "kube-system", "kube-public", "kube-node-lease"] {
        assert!(namespaces.contains(name), "{namespaces}");
    }
    kubectl.run(&["create", "configmap", "settings", "--from-literal=colour=blue"]);
    kubectl.run(&["label", "configmap", "settings", "tier=front"]);
    kubectl.run(&["annotate", "configmap", "settings", "note=hello"]);
    assert_eq!(
        kubectl.run(&["get", "configmap", "-l", "tier=front", "-o", "name"]),
        "configmap/settings"
    );
    kubectl.run(&[
        "patch",
        "configmap",
        "settings",
        "--type=json",
        "-p",
        r#"[{"op":"replace","path":"/data/colour","value":"red"}]"#,
    ]);
    kubectl.run(&[
        "patch",
        "configmap",
        "settings",
        "--type=merge",
        "-p",
        r#"{"data":{"size":"l"}}"#,
    ]);
    assert_eq!(
        kubectl.field("configmap", "settings", "{.data.colour} {.data.size}"),
        "red l"
    );
    let described = kubectl.run(&["describe", "configmap", "settings"]);
    assert!(
        described.contains("tier=front") && described.contains("note: hello"),
        "{described}"
    );
    kubectl.run(&["delete", "configmap", "settings"]);
    let missing = kubectl.call(&["get", "configmap", "settings"]);
    assert_eq!(missing.code, Some(1));
    assert!(
        missing
            .stderr
            .contains(r#"Error from server (NotFound): configmaps "settings" not found"#),
        "{}",
        missing.stderr
    );
}

#[test]
fn a_namespace_is_deleted_with_all_that_is_in_it() {
    require_kubectl!();
    let cluster = TestCluster::start(&["--no-kubelet", "--no-driver"]);
    let kubectl = cluster.kubectl();
    kubectl.run(&["create", "namespace", "team"]);
    kubectl.run(&["create", "configmap", "a", "-n", "team"]);
    kubectl.run(&[
        "create",
        "secret",
        "generic",
        "b",
        "-n",
        "team",
        "--from-literal=k=v",
    ]);
    kubectl.run(&["delete", "namespace", "team", "--timeout=30s"]);
    kubectl.run(&["create", "namespace", "team"]);
    let left = kubectl.run(&["get", "configmaps,secrets", "-n", "team", "-o", "name"]);
    assert!(
        !left.contains("configmap/a") && !left.contains("secret/b"),
        "{left}"
    );
    let refused = kubectl.call(&["create", "configmap", "a", "-n", "nowhere"]);
    assert!(
        refused.stderr.contains(r#"namespaces "nowhere" not found"#),
        "{}",
        refused.stderr
    );
}
