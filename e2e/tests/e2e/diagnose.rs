//! `moorline diagnose` beside a running cluster: it names who has to act, and sees when that is done.

use std::{
    io::{BufRead as _, BufReader},
    process::{Child, ChildStdout, Command, Stdio},
    time::Duration,
};

use moorline_e2e::{cluster::TestCluster, process, require_kubectl, require_node, wait};
use serde_json::Value;

use crate::manifests::{and_stay, claim, class, pod, together};

const LIMIT: Duration = Duration::from_secs(90);

/// Exit codes.
const HEALTHY: i32 = 0;
const ACTION_NEEDED: i32 = 3;
const MISSING: i32 = 4;
const UNKNOWN: i32 = 6;

/// One question, with the cluster's kubeconfig.
fn ask(cluster: &TestCluster, words: &[&str]) -> (Option<i32>, String, String) {
    let kubeconfig = cluster.kubeconfig();
    let set_up = ["diagnose", "--kubeconfig", kubeconfig.to_str().unwrap()];
    process::run(&[&set_up, words].concat())
}

/// The answer for programs, once its exit code is this.
fn json_with(cluster: &TestCluster, words: &[&str], code: i32) -> Value {
    wait::until(&format!("{words:?} to end with {code}"), LIMIT, || {
        let (found, stdout, stderr) = ask(cluster, &[words, &["-o", "json"]].concat());
        match serde_json::from_str(&stdout) {
            Ok(report) if found == Some(code) => Ok(report),
            _ => Err(format!("{found:?} {stdout}{stderr}")),
        }
    })
}

/// The last finding, which is nearest to the cause.
fn cause(report: &Value) -> &Value {
    let findings = report["findings"].as_array().expect("findings");
    findings.last().unwrap_or_else(|| panic!("no finding: {report}"))
}

/// A `--watch` in mid-run, killed with this value.
struct Watch {
    child: Child,
    lines: std::io::Lines<BufReader<ChildStdout>>,
}

impl Watch {
    fn start(cluster: &TestCluster, words: &[&str]) -> Self {
        let mut child = Command::new(process::binary())
            .arg("diagnose")
            .args(words)
            .args(["--watch", "-o", "json", "--timeout", "90s", "--kubeconfig"])
            .arg(cluster.kubeconfig())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("start moorline");
        let stdout = child.stdout.take().expect("a pipe");
        let lines = BufReader::new(stdout).lines();
        Self { child, lines }
    }

    /// The next thing that it tells; it ends by itself, so this does.
    fn next(&mut self) -> Option<Value> {
        let line = self.lines.next()?.expect("read its answer");
        Some(serde_json::from_str(&line).expect("one document a line"))
    }

    /// All that it has still to tell, and how it ended.
    fn wait(mut self) -> (Vec<Value>, Option<i32>) {
        let rest: Vec<Value> = std::iter::from_fn(|| self.next()).collect();
        let status = self.child.wait().expect("its end");
        (rest, status.code())
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        // It may have ended long ago.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

#[test]
#[expect(clippy::too_many_lines, reason = "one story")]
fn each_wait_names_who_has_to_act_and_a_watch_sees_it_done() {
    require_node!();
    require_kubectl!();
    let cluster = TestCluster::start(&["--host-image"]);
    let kubectl = cluster.kubectl();
    kubectl.apply_ok(&together(&[
        class("first", "WaitForFirstConsumer", "Delete"),
        class("now", "Immediate", "Delete"),
        claim("early", "first", "ReadWriteOnce", "1Mi"),
        claim("huge", "now", "ReadWriteOnce", "7Ei"),
        claim("data", "later", "ReadWriteOnce", "1Mi"),
        pod("web", "data", &and_stay("true")),
    ]));

    // A class that nobody has made: an administrator's move, seen from the claim and from its pod.
    let report = json_with(&cluster, &["pvc", "data"], ACTION_NEEDED);
    assert_eq!(report["verdict"], "action-needed", "{report}");
    assert_eq!(
        (&cause(&report)["reason"], &cause(&report)["actor"]),
        (&"ProvisioningFailed".into(), &"admin".into()),
        "{report}"
    );
    let (code, text, stderr) = ask(&cluster, &["pod", "web"]);
    assert_eq!(code, Some(ACTION_NEEDED), "{text}{stderr}");
    for sentence in [
        "Pod default/web gets no further before an administrator of the cluster acts.",
        "PersistentVolumeClaim default/data: ProvisioningFailed",
        "StorageClass \"later\" doesn't exist; create it",
        "do:    create StorageClass \"later\", or make the claim anew with a class that exists",
    ] {
        assert!(text.contains(sentence), "{sentence}: {text}");
    }

    // A claim that waits for its first pod: whoever wrote it.
    let report = json_with(&cluster, &["pvc/early", "-n", "default"], ACTION_NEEDED);
    assert_eq!(cause(&report)["reason"], "WaitForFirstConsumer", "{report}");
    assert_eq!(cause(&report)["actor"], "user", "{report}");
    let (_, text, _) = ask(&cluster, &["pvc/early"]);
    assert!(
        text.contains("gets no further before the user who wrote it acts."),
        "{text}"
    );
    assert!(text.contains("do:    create a pod that uses the claim"), "{text}");

    // A driver that refuses: its own words.
    kubectl.wait_event("huge", "ProvisioningFailed", LIMIT);
    let report = json_with(&cluster, &["pvc", "huge"], ACTION_NEEDED);
    let told = cause(&report)["message"].as_str().unwrap_or_default();
    assert!(told.contains("code = "), "{report}");
    assert_eq!(cause(&report)["actor"], "admin", "{report}");

    // The watch tells the wait at once, and its end after the class is made.
    let mut watch = Watch::start(&cluster, &["pod/web"]);
    let first = watch.next().expect("the state before");
    assert_eq!(first["verdict"], "action-needed", "{first}");
    kubectl.apply_ok(&class("later", "Immediate", "Delete"));
    let (told, code) = watch.wait();
    let last = told.last().expect("the state after");
    assert_eq!(
        (code, &last["verdict"]),
        (Some(HEALTHY), &"healthy".into()),
        "{last}"
    );
    let (code, text, _) = ask(&cluster, &["pod", "web"]);
    assert_eq!(code, Some(HEALTHY), "{text}");
    let healthy = "Pod default/web is healthy: it waits for nothing.\n  state: Running on node ";
    assert!(text.starts_with(healthy), "{text}");

    // Its claim and its volume are as well.
    let report = json_with(&cluster, &["persistentvolumeclaim", "data"], HEALTHY);
    assert!(
        report["state"].as_str().unwrap().starts_with("Bound to "),
        "{report}"
    );
    let pv = kubectl.field("pvc", "data", "{.spec.volumeName}");
    json_with(&cluster, &["pv", &pv], HEALTHY);

    // A claim that is deleted under its pod: the user of the pod.
    kubectl.run(&["delete", "pvc", "data", "--wait=false"]);
    let report = json_with(&cluster, &["pvc", "data"], ACTION_NEEDED);
    assert_eq!(cause(&report)["reason"], "ClaimInUse", "{report}");
    assert_eq!(
        cause(&report)["advice"],
        "delete the pods, finished ones too: kubectl delete pod web -n default",
        "{report}"
    );
    let mut watch = Watch::start(&cluster, &["pvc", "data"]);
    assert_eq!(watch.next().expect("the state before")["isBeingDeleted"], true);
    kubectl.run(&["delete", "pod", "web", "--timeout=60s"]);
    let (told, code) = watch.wait();
    assert_eq!(code, Some(HEALTHY), "{told:?}");
    assert_eq!(told.last().expect("its end")["state"], "gone");

    kubectl.run(&["delete", "pvc", "--all", "--timeout=60s"]);
    cluster.finish();
}

/// A kubeconfig of an account that may see claims, pods and events of the namespace `shop`, and nothing else.
fn of_one_namespace(cluster: &TestCluster) -> std::path::PathBuf {
    let kubectl = cluster.kubectl();
    kubectl.run(&["create", "namespace", "shop"]);
    kubectl.run(&["create", "serviceaccount", "clerk", "-n", "shop"]);
    let kinds = "--resource=pods,persistentvolumeclaims,events";
    kubectl.run(&["create", "role", "look", "--verb=get,list", kinds, "-n", "shop"]);
    let subject = "--serviceaccount=shop:clerk";
    kubectl.run(&[
        "create",
        "rolebinding",
        "look",
        "--role=look",
        subject,
        "-n",
        "shop",
    ]);
    let token = kubectl.run(&["create", "token", "clerk", "-n", "shop"]);
    let text = kubectl.run(&["config", "view", "--raw", "-o", "json"]);
    let mut config: Value = serde_json::from_str(&text).unwrap();
    config["users"][0]["user"] = serde_json::json!({"token": token.trim()});
    let path = cluster.root().join("clerk.kubeconfig");
    std::fs::write(&path, config.to_string()).unwrap();
    path
}

#[test]
fn what_may_not_be_read_is_not_taken_for_what_is_not_there() {
    require_kubectl!();
    let cluster = TestCluster::start(&["--no-kubelet", "--no-driver"]);
    let clerk = of_one_namespace(&cluster);
    let clerk = clerk.to_str().unwrap();
    cluster
        .kubectl()
        .apply_ok(&class("first", "WaitForFirstConsumer", "Delete"));
    let data = claim("data", "first", "ReadWriteOnce", "1Mi")
        .replace("{name: data}", "{name: data, namespace: shop}");
    cluster.kubectl().apply_ok(&data);
    let words = ["diagnose", "pvc", "data", "-n", "shop", "--kubeconfig", clerk];
    let (code, text, stderr) = process::run(&words);
    assert_eq!(code, Some(UNKNOWN), "{text}{stderr}");
    for sentence in [
        "no trouble was found, but not everything could be read.",
        "PersistentVolumeClaim shop/data can't be judged without all persistentvolumes, storageclasses",
        "not taken into account: you may not list ",
    ] {
        assert!(text.contains(sentence), "{sentence}: {text}");
    }
    assert!(!text.contains("doesn't exist"), "{text}");
    let (code, _, stderr) = process::run(&["diagnose", "pv", "pv1", "--kubeconfig", clerk]);
    assert_eq!(code, Some(1), "{stderr}");
    assert!(
        stderr.contains("cannot get resource \"persistentvolumes\""),
        "{stderr}"
    );
}

#[test]
fn a_snapshot_is_explained_from_the_class_to_the_data() {
    require_node!();
    require_kubectl!();
    let cluster = TestCluster::start(&["--host-image"]);
    let kubectl = cluster.kubectl();
    let snapshot = |name: &str, more: &str| {
        format!(
            "
apiVersion: snapshot.storage.k8s.io/v1
kind: VolumeSnapshot
metadata: {{name: {name}}}
spec:
  source: {{persistentVolumeClaimName: data}}
  {more}
"
        )
    };
    kubectl.apply_ok(&snapshot("early", ""));
    let report = json_with(&cluster, &["volumesnapshot", "early"], ACTION_NEEDED);
    assert_eq!(cause(&report)["reason"], "SnapshotPVCSourceMissing", "{report}");
    assert_eq!(cause(&report)["actor"], "user", "{report}");
    kubectl.apply_ok(&together(&[
        class("now", "Immediate", "Delete"),
        claim("data", "now", "ReadWriteOnce", "1Mi"),
        snapshot("classless", "volumeSnapshotClassName: none"),
    ]));
    let report = json_with(&cluster, &["vs/classless"], ACTION_NEEDED);
    assert_eq!(cause(&report)["reason"], "GetSnapshotClassFailed", "{report}");
    let report = json_with(&cluster, &["vs/early"], HEALTHY);
    assert!(
        report["state"]
            .as_str()
            .unwrap()
            .starts_with("of claim data, ready"),
        "{report}"
    );
    kubectl.run(&["delete", "volumesnapshot", "--all", "--timeout=60s"]);
    kubectl.run(&["delete", "pvc", "--all", "--timeout=60s"]);
    cluster.finish();
}

#[test]
fn what_cannot_be_explained_is_an_error_with_a_code_of_its_own() {
    let cluster = TestCluster::start(&["--no-kubelet", "--no-driver"]);
    for (words, code, says) in [
        (
            vec!["pvc", "nowhere"],
            MISSING,
            "PersistentVolumeClaim default/nowhere doesn't exist",
        ),
        (
            vec!["pod/nowhere", "-n", "there"],
            MISSING,
            "Pod there/nowhere doesn't exist",
        ),
        (
            vec!["pv", "nowhere", "--watch"],
            MISSING,
            "PersistentVolume nowhere doesn't exist",
        ),
        (vec!["deployment", "web"], 2, "\"deployment\" can't be explained"),
        (vec!["pvc"], 2, "give KIND NAME or KIND/NAME"),
        (vec![], 2, "KIND NAME"),
        (vec!["pvc", "a", "--output", "yaml"], 2, "yaml"),
        (vec!["pvc", "a", "--timeout", "soon"], 2, "no duration"),
    ] {
        let (found, stdout, stderr) = ask(&cluster, &words);
        assert_eq!(found, Some(code), "{words:?}: {stdout}{stderr}");
        assert!(stderr.contains(says), "{words:?}: {stderr}");
        assert_eq!(stdout, "", "{words:?}");
    }
    let (code, _, stderr) = process::run(&["diagnose", "pvc", "a", "--kubeconfig", "/nonexistent"]);
    assert_eq!(code, Some(1), "{stderr}");
    assert!(stderr.contains("/nonexistent"), "{stderr}");
    // Nobody listens there any more.
    let kubeconfig = std::fs::read_to_string(cluster.kubeconfig()).unwrap();
    let copy = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(copy.path(), kubeconfig).unwrap();
    drop(cluster);
    let (code, _, stderr) = process::run(&[
        "diagnose",
        "pvc",
        "a",
        "--kubeconfig",
        copy.path().to_str().unwrap(),
    ]);
    assert_eq!(code, Some(1), "{stderr}");
    assert!(stderr.contains("read persistentvolumeclaims a"), "{stderr}");
}
