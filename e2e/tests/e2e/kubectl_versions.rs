//! Each verb of kubectl that users have, with the oldest kubectl we promise to serve, the newest, and the machine's own.

use std::{
    io::{BufRead as _, BufReader},
    path::Path,
    process::Stdio,
    time::Duration,
};

use moorline_e2e::{
    cluster::TestCluster,
    kubectl::Kubectl,
    kubectl_build::{Built, build},
    machine, require, require_kubectl, require_node, wait,
};

use crate::manifests::{and_stay, claim, class, pod, together};

const LIMIT: Duration = Duration::from_secs(60);

/// The program built from `e2e/kubectl/<name>`, or ends the test as skipped.
macro_rules! built {
    ($name:literal, $starts:literal) => {{
        let out_dir = Path::new(env!("CARGO_TARGET_TMPDIR"));
        match build($name, out_dir).expect("kubectl builds") {
            Built::Program(program, version) => {
                assert!(version.starts_with($starts), "{version}");
                program
            }
            Built::Impossible(reason) => {
                require!(false, reason);
                return;
            }
        }
    }};
}

#[test]
fn kubectl_1_28_knows_every_verb() {
    let program = built!("v1.28", "v1.28.");
    control_plane_verbs(&program, "v1.28.");
    require_node!();
    node_verbs(&program);
}

#[test]
fn kubectl_1_37_knows_every_verb() {
    let program = built!("v1.37", "v1.37.");
    control_plane_verbs(&program, "v1.37.");
    require_node!();
    node_verbs(&program);
}

#[test]
fn the_kubectl_of_this_machine_knows_every_verb() {
    require_kubectl!();
    let program = Path::new("kubectl");
    control_plane_verbs(program, "v1.");
    require_node!();
    node_verbs(program);
}

/// Everything that needs no running pod.
fn control_plane_verbs(program: &Path, version: &str) {
    let cluster = TestCluster::start(&["--no-kubelet", "--no-driver"]);
    let kubectl = cluster.kubectl().of(program);
    assert_eq!(kubectl.run(&["get", "--raw", "/readyz"]), "ok");
    let versions = kubectl.run(&["version"]);
    assert!(
        versions.contains(&format!("Client Version: {version}"))
            && versions.contains("Server Version: v1.36"),
        "{versions}"
    );
    assert!(kubectl.run(&["cluster-info"]).contains("is running at"));
    assert!(kubectl.run(&["api-resources"]).contains("volumeattachments"));
    create_and_apply(&kubectl);
    get_and_describe(&kubectl);
    change(&kubectl);
    watch(&kubectl);
    delete(&kubectl);
    if machine::is_root() {
        cluster.finish();
    }
}

fn create_and_apply(kubectl: &Kubectl) {
    kubectl.run(&["create", "configmap", "made", "--from-literal=a=b"]);
    let manifest = together(&[
        class("fast", "WaitForFirstConsumer", "Delete"),
        claim("data", "fast", "ReadWriteOnce", "1Mi"),
    ]);
    let created = kubectl.apply_ok(&manifest);
    assert!(
        created.contains("storageclass.storage.k8s.io/fast created")
            && created.contains("persistentvolumeclaim/data created"),
        "{created}"
    );
    let again = kubectl.apply_ok(&manifest);
    assert_eq!(again.matches("unchanged").count(), 2, "{again}");
    let labelled = manifest.replace("{name: data}", "{name: data, labels: {tier: front}}");
    assert!(
        kubectl
            .apply_ok(&labelled)
            .contains("persistentvolumeclaim/data configured")
    );
    let unknown = kubectl.apply(&manifest.replace("accessModes", "accesModes"));
    assert!(
        unknown.code == Some(1) && unknown.stderr.contains("unknown field"),
        "{}",
        unknown.stderr
    );
    let twice = kubectl.call(&["create", "configmap", "made"]);
    assert!(twice.stderr.contains("already exists"), "{}", twice.stderr);
}

fn get_and_describe(kubectl: &Kubectl) {
    let columns = |args: &[&str]| {
        let table = kubectl.run(args);
        let head = table.lines().next().unwrap_or_default().to_owned();
        head.split("  ")
            .map(str::trim)
            .filter(|c| !c.is_empty())
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    let claim_columns = [
        "NAME",
        "STATUS",
        "VOLUME",
        "CAPACITY",
        "ACCESS MODES",
        "STORAGECLASS",
        "VOLUMEATTRIBUTESCLASS",
        "AGE",
    ];
    assert_eq!(columns(&["get", "pvc"]), claim_columns);
    let wide = columns(&["get", "pvc", "-o", "wide"]);
    assert_eq!(wide, [claim_columns.as_slice(), &["VOLUMEMODE"]].concat());
    assert!(
        kubectl
            .run(&["get", "pvc", "data", "-o", "yaml"])
            .contains("kind: PersistentVolumeClaim")
    );
    let json = kubectl.run(&["get", "pvc", "data", "-o", "json"]);
    let json: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!(json["spec"]["storageClassName"], "fast");
    assert_eq!(
        kubectl.run(&["get", "pvc", "data", "-o", "name"]),
        "persistentvolumeclaim/data"
    );
    assert_eq!(
        kubectl.field("pvc", "data", "{.spec.resources.requests.storage}"),
        "1Mi"
    );
    let described = kubectl.run(&["describe", "pvc", "data"]);
    assert!(described.contains("StorageClass:  fast"), "{described}");
    let described = kubectl.run(&["describe", "storageclass", "fast"]);
    assert!(
        described.contains("VolumeBindingMode:     WaitForFirstConsumer"),
        "{described}"
    );
    kubectl.wait_event("data", "WaitForFirstConsumer", LIMIT);
    let events = kubectl.run(&["events"]);
    assert!(events.contains("WaitForFirstConsumer"), "{events}");
}

fn change(kubectl: &Kubectl) {
    kubectl.run(&["label", "configmap", "made", "tier=front"]);
    kubectl.run(&["annotate", "configmap", "made", "note=hello"]);
    for (kind, patch) in [
        (
            "json",
            r#"[{"op": "replace", "path": "/data/a", "value": "json"}]"#,
        ),
        ("merge", r#"{"data": {"b": "merge"}}"#),
        ("strategic", r#"{"data": {"c": "strategic"}}"#),
    ] {
        kubectl.run(&["patch", "configmap", "made", "--type", kind, "-p", patch]);
    }
    let fields = "{.metadata.labels.tier} {.metadata.annotations.note} {.data.a} {.data.b} {.data.c}";
    assert_eq!(
        kubectl.field("configmap", "made", fields),
        "front hello json merge strategic"
    );
    kubectl.run(&[
        "wait",
        "configmap/made",
        "--for=jsonpath={.data.b}=merge",
        "--timeout=10s",
    ]);
}

fn watch(kubectl: &Kubectl) {
    let mut watching = kubectl
        .command(&["get", "configmaps", "-w", "-o", "name"])
        .stdout(Stdio::piped())
        .spawn()
        .expect("start kubectl");
    let mut lines = BufReader::new(watching.stdout.take().expect("piped")).lines();
    let mut seen = |wanted: &str| {
        let found = lines.by_ref().map_while(Result::ok).any(|line| line == wanted);
        assert!(found, "the watch ended without {wanted}");
    };
    seen("configmap/made");
    kubectl.run(&["create", "configmap", "later"]);
    seen("configmap/later");
    watching.kill().expect("end the watch");
    watching.wait().expect("end the watch");
}

fn delete(kubectl: &Kubectl) {
    kubectl.run(&["delete", "configmap", "later", "--wait=false"]);
    kubectl.run(&["wait", "configmap/later", "--for=delete", "--timeout=10s"]);
    kubectl.run(&[
        "delete",
        "pvc/data",
        "storageclass/fast",
        "configmap/made",
        "--wait=true",
        "--timeout=30s",
    ]);
    let gone = kubectl.call(&["get", "pvc", "data"]);
    assert!(
        gone.stderr.contains(r#"persistentvolumeclaims "data" not found"#),
        "{}",
        gone.stderr
    );
}

/// Everything that needs a running pod.
fn node_verbs(program: &Path) {
    let cluster = TestCluster::start(&["--host-image"]);
    let kubectl = cluster.kubectl().of(program);
    let fails =
        pod("fails", "data", "echo before; exit 3").replace("restartPolicy: Never", "restartPolicy: Always");
    let talks = "for n in 1 2 3; do echo line $n; done; sleep 1; echo last";
    kubectl.apply_ok(&together(&[
        class("fast", "WaitForFirstConsumer", "Delete"),
        claim("data", "fast", "ReadWriteOnce", "1Mi"),
        pod("app", "data", &and_stay("echo started")),
        pod("talks", "data", talks),
        fails,
    ]));
    kubectl.run(&["wait", "pod/app", "--for=condition=Ready", "--timeout=60s"]);
    wait::until("the log", LIMIT, || {
        match kubectl.run(&["logs", "app"]).as_str() {
            "started" => Ok(()),
            other => Err(other.to_owned()),
        }
    });
    kubectl.run(&[
        "wait",
        "pod/talks",
        "--for=jsonpath={.status.startTime}",
        "--timeout=60s",
    ]);
    kubectl.wait_field("pvc", "data", "{.status.phase}", "Bound", LIMIT);
    // From wherever it is to its end.
    wait::until("the container to have begun", LIMIT, || {
        let answer = kubectl.call(&["logs", "talks"]);
        if answer.code == Some(0) {
            Ok(())
        } else {
            Err(answer.stderr)
        }
    });
    let followed = kubectl.run(&["logs", "-f", "talks"]);
    assert_eq!(followed, "line 1\nline 2\nline 3\nlast");
    wait::until("the log of the container before", LIMIT, || {
        let answer = kubectl.call(&["logs", "--previous", "fails"]);
        if answer.stdout.trim_end() == "before" {
            Ok(())
        } else {
            Err(answer.stderr)
        }
    });
    let wide = kubectl.run(&["get", "pods,pvc,pv", "-o", "wide"]);
    assert!(
        wide.contains("pod/app") && wide.contains("n1") && wide.contains("Bound"),
        "{wide}"
    );
    let described = kubectl.run(&["describe", "pod", "app"]);
    assert!(
        described.contains("ClaimName:  data") && described.contains("Started"),
        "{described}"
    );
    let pv = kubectl.field("pvc", "data", "{.spec.volumeName}");
    let described = kubectl.run(&["describe", "pv", &pv]);
    assert!(described.contains("local.csi.moorline.dev"), "{described}");
    assert!(
        kubectl
            .run(&["describe", "node", "n1"])
            .contains("Non-terminated Pods")
    );
    kubectl.run(&["delete", "pod", "--all", "--wait=true", "--timeout=60s"]);
    kubectl.run(&["delete", "pvc", "data", "--timeout=60s"]);
    wait::until("the volume to go", LIMIT, || {
        let left = kubectl.run(&["get", "pv", "-o", "name"]);
        if left.is_empty() { Ok(()) } else { Err(left) }
    });
    cluster.finish();
}
