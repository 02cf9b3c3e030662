//! Stock kubectl over TLS.

use std::process::Stdio;

use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use crate::harness::{PATIENCE, Server, skipped};

const KUBECTL: &str = "kubectl";

/// kubectl with the administrator's kubeconfig and a home of its own.
pub(crate) struct Kubectl {
    pub(crate) server: Server,
}

impl Kubectl {
    pub(crate) async fn start(test: &str) -> Option<Self> {
        if Command::new(KUBECTL)
            .arg("version")
            .arg("--client")
            .output()
            .await
            .is_err()
        {
            skipped(test, "kubectl is not installed");
            return None;
        }
        let server = Server::start().await;
        std::fs::write(server.dir.path().join("config"), server.server.admin_kubeconfig()).unwrap();
        Some(Kubectl { server })
    }

    pub(crate) async fn run(&self, arguments: &str, input: &str) -> (bool, String) {
        let dir = self.server.dir.path();
        let mut child = Command::new(KUBECTL)
            .args(arguments.split_whitespace())
            .env("KUBECONFIG", dir.join("config"))
            .env("HOME", dir)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        child
            .stdin
            .take()
            .unwrap()
            .write_all(input.as_bytes())
            .await
            .unwrap();
        let output = tokio::time::timeout(PATIENCE, child.wait_with_output())
            .await
            .expect(arguments)
            .unwrap();
        let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        (output.status.success(), text)
    }

    /// Runs a command that has to succeed, and gives what it printed.
    pub(crate) async fn ok(&self, arguments: &str, input: &str) -> String {
        let (succeeded, text) = self.run(arguments, input).await;
        assert!(succeeded, "kubectl {arguments}: {text}");
        text
    }
}

const MANIFESTS: &str = "
apiVersion: storage.k8s.io/v1
kind: StorageClass
metadata: {name: fast}
provisioner: local.csi.moorline.dev
volumeBindingMode: WaitForFirstConsumer
allowVolumeExpansion: true
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: data}
spec:
  accessModes: [ReadWriteOnce]
  storageClassName: fast
  resources: {requests: {storage: 1Gi}}
---
apiVersion: v1
kind: Pod
metadata: {name: writer, labels: {app: writer}}
spec:
  containers:
  - name: main
    image: moorline.local/host
    command: [sh, -c, sleep 1]
    volumeMounts: [{name: data, mountPath: /data}]
  volumes:
  - name: data
    persistentVolumeClaim: {claimName: data}
";

const UNKNOWN_FIELD: &str =
    r#"{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "nonsense": 1}"#;
const NO_ACCESS_MODES: &str = r#"{"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "a"},
    "spec": {"accessModes": [], "resources": {"requests": {"storage": "1Gi"}}}}"#;

#[tokio::test]
#[expect(clippy::too_many_lines, reason = "one flat table")]
async fn the_usual_commands() {
    let Some(kubectl) = Kubectl::start("the_usual_commands").await else {
        return;
    };
    let applied = kubectl.ok("apply -f -", MANIFESTS).await;
    assert_eq!(applied.matches(" created").count(), 3, "{applied}");
    let revisions = "get sc,pvc,pod -o jsonpath={.items[*].metadata.resourceVersion}";
    let before = kubectl.ok(revisions, "").await;
    // kubectl says "configured" for the pod: it sends the order of its volumes, as it does everywhere.
    let again = kubectl.ok("apply -f -", MANIFESTS).await;
    assert_eq!(again.matches(" unchanged").count(), 2, "{again}");
    assert_eq!(kubectl.ok(revisions, "").await, before);
    let changed = MANIFESTS.replace("{app: writer}", "{app: other}");
    assert_eq!(
        kubectl
            .ok("apply -f -", &changed)
            .await
            .matches(" configured")
            .count(),
        1
    );
    let cases = [
        (
            "get pvc",
            &["NAME", "STATUS", "STORAGECLASS", "Pending", "fast"][..],
        ),
        ("get pods -o wide", &["NAME", "READY", "NODE", "writer", "0/1"]),
        ("get sc", &["PROVISIONER", "WaitForFirstConsumer"]),
        (
            "get pod,pvc -o name",
            &["pod/writer", "persistentvolumeclaim/data"],
        ),
        (
            "get pvc data -o yaml",
            &["kubernetes.io/pvc-protection", "volumeMode: Filesystem"],
        ),
        (
            "get pod writer -o jsonpath={.spec.serviceAccountName}",
            &["default"],
        ),
        ("get all -A", &["pod/writer", "service/kubernetes"]),
        (
            "describe pod writer",
            &["Name:", "writer", "PersistentVolumeClaim", "ClaimName:  data"],
        ),
        (
            "describe pvc data",
            &["StorageClass:  fast", "Used By:       writer"],
        ),
        ("label pvc data tier=gold", &["labeled"]),
        ("annotate pvc data note=x", &["annotated"]),
        ("get pvc -l tier=gold -o name", &["persistentvolumeclaim/data"]),
        (
            "api-resources",
            &["persistentvolumeclaims", "pvc", "csinodes", "leases"],
        ),
        ("version", &["Server Version: v1.36.0+moorline"]),
        ("get --raw /readyz", &["ok"]),
        ("cluster-info", &["is running at"]),
        ("auth whoami", &["kubernetes-admin", "system:masters"]),
        ("auth can-i create pods", &["yes"]),
        ("create configmap made --from-literal=a=b", &["created"]),
        ("create secret generic hidden --from-literal=a=b", &["created"]),
        ("create serviceaccount robot", &["created"]),
        ("create namespace other", &["created"]),
        ("create token robot", &["eyJ"]),
        ("explain pvc.spec.accessModes", &["accessModes"]),
        ("events", &["No events found"]),
        ("delete configmap made --wait", &["deleted"]),
        ("delete namespace other --wait", &["deleted"]),
        ("delete pod writer --wait", &["deleted"]),
    ];
    for (arguments, expected) in cases {
        let text = kubectl.ok(arguments, "").await;
        for part in expected {
            assert!(
                text.contains(part),
                "kubectl {arguments}: {part:?} is missing in {text}"
            );
        }
    }
    kubectl.server.shut_down().await;
}

#[tokio::test]
async fn patches_waits_and_deletions() {
    let Some(kubectl) = Kubectl::start("patches_waits_and_deletions").await else {
        return;
    };
    kubectl.ok("apply -f -", MANIFESTS).await;
    for (kind, patch) in [
        ("merge", "{\"metadata\":{\"labels\":{\"a\":\"1\"}}}"),
        ("strategic", "{\"metadata\":{\"labels\":{\"b\":\"1\"}}}"),
        (
            "json",
            "[{\"op\":\"add\",\"path\":\"/metadata/labels/c\",\"value\":\"1\"}]",
        ),
    ] {
        kubectl
            .ok(&format!("patch pvc data --type={kind} -p {patch}"), "")
            .await;
    }
    assert_eq!(
        kubectl.ok("get pvc -l a=1,b=1,c=1 -o name", "").await.trim(),
        "persistentvolumeclaim/data"
    );
    let status = "patch pvc data --subresource=status --type=merge -p {\"status\":{\"phase\":\"Bound\"}}";
    let (waited, patched) = tokio::join!(
        kubectl.ok("wait --for=jsonpath={.status.phase}=Bound pvc/data", ""),
        kubectl.ok(status, "")
    );
    assert!(waited.contains("condition met") && patched.contains("patched"));
    let release = "patch pvc data --type=merge -p {\"metadata\":{\"finalizers\":null}}";
    let delete = async {
        let deleted = kubectl.ok("delete pvc data --wait", "").await;
        assert!(deleted.contains("deleted"), "{deleted}");
    };
    let finish = async {
        let is_deleting =
            |reply: &crate::harness::Reply| reply.json["metadata"]["deletionTimestamp"].is_string();
        kubectl
            .server
            .until(
                "/api/v1/namespaces/default/persistentvolumeclaims/data",
                "deletion",
                is_deleting,
            )
            .await;
        kubectl.ok(release, "").await;
    };
    tokio::join!(delete, finish);
    kubectl.server.shut_down().await;
}

#[tokio::test]
#[expect(clippy::too_many_lines, reason = "one flat table")]
async fn custom_resources_like_any_other() {
    let Some(kubectl) = Kubectl::start("custom_resources_like_any_other").await else {
        return;
    };
    let definition = crate::custom_resources::definition().to_string();
    let good = crate::custom_resources::widget("a", serde_json::json!({"size": 3, "parts": [{"name": "x"}]}));
    let bad = crate::custom_resources::widget("b", serde_json::json!({"size": 0}));
    let unknown = crate::custom_resources::widget("c", serde_json::json!({"size": 1, "nonsense": 1}));
    let cases = [
        (true, "apply -f -", definition.clone(), &["created"][..]),
        (
            true,
            "wait --for=condition=Established crd/widgets.example.com",
            String::new(),
            &["condition met"],
        ),
        (
            true,
            "get crd",
            String::new(),
            &["CREATED AT", "widgets.example.com"],
        ),
        (
            true,
            "api-resources",
            String::new(),
            &["widgets", "wd", "example.com/v1"],
        ),
        (
            true,
            "apply -f -",
            good.to_string(),
            &["widget.example.com/a created"],
        ),
        (true, "apply -f -", good.to_string(), &["unchanged"]),
        (
            true,
            "get wd",
            String::new(),
            &["NAME", "SIZE", "AGE", "a      3"],
        ),
        (true, "get wd -o wide", String::new(), &["PHASE"]),
        (true, "get all", String::new(), &["widget.example.com/a"]),
        (
            true,
            "get widget a -o yaml",
            String::new(),
            &["color: red", "generation: 1"],
        ),
        (true, "explain widget", String::new(), &["A thing.", "spec"]),
        (
            true,
            "explain wd.spec.parts",
            String::new(),
            &["name", "-required-"],
        ),
        (true, "scale --replicas=4 widget/a", String::new(), &["scaled"]),
        (
            true,
            "get wd a -o jsonpath={.spec.replicas}",
            String::new(),
            &["4"],
        ),
        (true, "label wd a tier=gold", String::new(), &["labeled"]),
        (
            true,
            "get wd --field-selector=spec.color=red -o name",
            String::new(),
            &["widget.example.com/a"],
        ),
        (
            true,
            "patch wd a --type=merge -p {\"spec\":{\"color\":\"green\"}}",
            String::new(),
            &["patched"],
        ),
        (
            false,
            "apply -f -",
            bad.to_string(),
            &["should be greater than or equal to 1"],
        ),
        (
            false,
            "apply -f -",
            unknown.to_string(),
            &["strict decoding error: unknown field \"spec.nonsense\""],
        ),
        (true, "apply -f -", definition, &["customresourcedefinition"]),
        (true, "delete wd a", String::new(), &["deleted"]),
        (
            true,
            "delete crd widgets.example.com",
            String::new(),
            &["deleted"],
        ),
        (
            false,
            "get wd",
            String::new(),
            &["the server could not find the requested resource"],
        ),
    ];
    for (is_fine, arguments, input, expected) in cases {
        let (succeeded, text) = kubectl.run(arguments, &input).await;
        assert_eq!(succeeded, is_fine, "kubectl {arguments}: {text}");
        for part in expected {
            assert!(
                text.contains(part),
                "kubectl {arguments}: {part:?} is missing in {text}"
            );
        }
    }
    kubectl.server.shut_down().await;
}

#[tokio::test]
async fn mistakes_are_explained() {
    let Some(kubectl) = Kubectl::start("mistakes_are_explained").await else {
        return;
    };
    let cases = [
        (
            "get pod nobody",
            "",
            "Error from server (NotFound): pods \"nobody\" not found",
        ),
        (
            "get nonsense",
            "",
            "the server doesn't have a resource type \"nonsense\"",
        ),
        ("apply -f -", UNKNOWN_FIELD, "unknown field \"nonsense\""),
        ("apply -f -", NO_ACCESS_MODES, "spec.accessModes: Required value"),
        (
            "delete namespace default",
            "",
            "this namespace may not be deleted",
        ),
        (
            "--as=anna get pods",
            "",
            "User \"anna\" cannot list resource \"pods\"",
        ),
    ];
    for (arguments, input, expected) in cases {
        let (succeeded, text) = kubectl.run(arguments, input).await;
        assert!(
            !succeeded && text.contains(expected),
            "kubectl {arguments}: {text}"
        );
    }
    kubectl.server.shut_down().await;
}
