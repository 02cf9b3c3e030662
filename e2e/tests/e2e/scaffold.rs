//! `moorline driver new` and `moorline driver check`, as a vendor and an administrator call them.

use std::{fs, path::Path, process::Command};

use moorline_e2e::{cluster::TestCluster, process, require, require_kubectl};

/// The folder of the workspace.
fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("e2e is a folder of the workspace")
}

/// Where the new project is built: beside everything else, so that a second run finds it built.
fn target_dir() -> std::path::PathBuf {
    std::env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| workspace().join("target"), Into::into)
        .join("scaffold")
}

#[test]
fn a_new_driver_builds_and_passes_its_own_conformance_test() {
    let cargo = std::env::var_os("CARGO");
    require!(cargo.is_some(), "cargo is needed to build the new project");
    let directory = tempfile::tempdir().unwrap();
    let project = directory.path().join("acme-disk");
    let (path, sdk) = (project.to_str().unwrap(), workspace().to_str().unwrap());
    let (code, stdout, stderr) = process::run(&["driver", "new", "acme-disk", "--path", path, "--sdk", sdk]);
    assert_eq!(code, Some(0), "{stderr}");
    assert!(stdout.contains("cargo test"), "{stdout}");
    // The versions that are here already: nothing has to be fetched.
    fs::copy(workspace().join("Cargo.lock"), project.join("Cargo.lock")).unwrap();
    let output = Command::new(cargo.unwrap())
        .args(["test", "--offline", "--", "--show-output"])
        .current_dir(&project)
        .env("CARGO_TARGET_DIR", target_dir())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success(),
        "{text}\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(text.contains("does_what_it_advertises ... ok"), "{text}");
    assert!(text.contains(" passed, 0 failed, "), "{text}");
}

/// What the server would make of the manifests. A DaemonSet is no resource here: what it would run is judged as a pod.
#[test]
fn manifests_of_a_new_driver_are_valid() {
    require_kubectl!();
    let directory = tempfile::tempdir().unwrap();
    let project = directory.path().join("acme-disk");
    let (code, _, stderr) =
        process::run(&["driver", "new", "acme-disk", "--path", project.to_str().unwrap()]);
    assert_eq!(code, Some(0), "{stderr}");
    let cluster = TestCluster::start(&["--no-kubelet", "--no-driver"]);
    let kubectl = cluster.kubectl();
    let mut judged = Vec::new();
    for entry in fs::read_dir(project.join("deploy")).unwrap() {
        let text = fs::read_to_string(entry.unwrap().path()).unwrap();
        let documents: Vec<serde_json::Value> = serde_saphyr::from_multiple(&text).unwrap();
        for document in documents {
            let (kind, document) = match document["kind"].as_str().unwrap() {
                "DaemonSet" => ("Pod of the DaemonSet", pod_of(&document)),
                kind => (kind, document.clone()),
            };
            let args = ["apply", "--dry-run=server", "--validate=strict", "-f", "-"];
            let answer = kubectl.with_input(&args, &document.to_string());
            assert_eq!(answer.code, Some(0), "{kind}: {}", answer.stderr);
            assert!(answer.stdout.contains("(server dry run)"), "{}", answer.stdout);
            judged.push(kind.to_owned());
        }
    }
    judged.sort();
    assert_eq!(
        judged,
        [
            "CSIDriver",
            "ClusterRole",
            "ClusterRoleBinding",
            "Pod of the DaemonSet",
            "ServiceAccount",
            "StorageClass",
        ]
    );
    // The server judges: what it does not know is refused, and nothing was made.
    let wrong = r#"{"apiVersion": "storage.k8s.io/v1", "kind": "CSIDriver", "metadata": {"name": "a.b"}, "spec": {"x": 1}}"#;
    let args = ["apply", "--dry-run=server", "--validate=strict", "-f", "-"];
    assert_ne!(kubectl.with_input(&args, wrong).code, Some(0));
    assert_eq!(kubectl.run(&["get", "csidrivers", "-o", "name"]), "");
}

/// The pod that a DaemonSet makes, but for its service account: a dry run has made none.
fn pod_of(daemon_set: &serde_json::Value) -> serde_json::Value {
    let template = &daemon_set["spec"]["template"];
    let labels = &daemon_set["spec"]["selector"]["matchLabels"];
    assert_eq!(
        labels, &template["metadata"]["labels"],
        "the selector finds the pods"
    );
    let mut spec = template["spec"].clone();
    spec.as_object_mut().unwrap().remove("serviceAccountName");
    serde_json::json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "acme-disk-x", "namespace": "kube-system", "labels": labels},
        "spec": spec,
    })
}

#[test]
fn a_new_driver_never_replaces_what_is_there() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("mine");
    fs::create_dir(&path).unwrap();
    fs::write(path.join("work"), "of years").unwrap();
    let (code, _, stderr) = process::run(&["driver", "new", "mine", "--path", path.to_str().unwrap()]);
    assert_eq!(code, Some(1));
    assert!(stderr.contains("exists already"), "{stderr}");
    assert_eq!(fs::read_to_string(path.join("work")).unwrap(), "of years");
    let (code, _, stderr) = process::run(&["driver", "new", "No Name"]);
    assert_eq!(code, Some(1));
    assert!(stderr.contains("can't name a project"), "{stderr}");
}

#[test]
fn orphans_in_a_pool_are_reported_and_removed_only_on_demand() {
    let directory = tempfile::tempdir().unwrap();
    let pool = directory.path().join("pool");
    let pool_flag = format!("--pool-dir={}", pool.display());
    let (code, stdout, stderr) = process::run(&["driver", "check", &pool_flag]);
    assert_eq!(code, Some(0), "{stderr}");
    assert!(stdout.contains("0 findings"), "{stdout}");
    // Repairing makes the pool, as a start of the driver does.
    let (code, _, stderr) = process::run(&["driver", "check", "--repair", &pool_flag]);
    assert_eq!(code, Some(0), "{stderr}");
    let orphan = pool.join("volumes/pvc-1");
    fs::create_dir(&orphan).unwrap();
    let (code, stdout, _) = process::run(&["driver", "check", &pool_flag]);
    assert_eq!(code, Some(3), "{stdout}");
    assert!(stdout.contains("--repair removes it"), "{stdout}");
    assert!(orphan.is_dir());
    let (code, stdout, _) = process::run(&["driver", "check", "--repair", "-o", "json", &pool_flag]);
    assert_eq!(code, Some(0), "{stdout}");
    let document: serde_json::Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!(document["pools"][0]["findings"], serde_json::json!([]));
    assert!(!orphan.exists());
}
