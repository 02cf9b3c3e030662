//! What stock kubectl does with owners: apply from the server's side, the way there from the client's side, diff,
//! explain, strict validation.

use crate::kubectl::Kubectl;

const CLAIM: &str = "
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: data, labels: {tier: gold}}
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
    ports: [{containerPort: 80}, {containerPort: 443}]
    volumeMounts: [{name: data, mountPath: /data}]
  volumes:
  - name: data
    persistentVolumeClaim: {claimName: data}
";
const MAP: &str = "
apiVersion: v1
kind: ConfigMap
metadata: {name: a}
data: {x: one}
";
const REVISIONS: &str = "get pvc,pod -o jsonpath={.items[*].metadata.resourceVersion}";

#[tokio::test]
async fn apply_from_the_servers_side() {
    let Some(kubectl) = Kubectl::start("apply_from_the_servers_side").await else {
        return;
    };
    let applied = kubectl.ok("apply --server-side -f -", CLAIM).await;
    assert_eq!(applied.matches(" serverside-applied").count(), 2, "{applied}");
    let before = kubectl.ok(REVISIONS, "").await;
    kubectl.ok("apply --server-side -f -", CLAIM).await;
    assert_eq!(
        kubectl.ok(REVISIONS, "").await,
        before,
        "the second apply wrote something"
    );
    let other = CLAIM.replace("gold", "iron");
    let (succeeded, text) = kubectl
        .run("apply --server-side --field-manager=other -f -", &other)
        .await;
    assert!(
        !succeeded && text.contains("conflict with \"kubectl\": .metadata.labels.tier"),
        "{text}"
    );
    kubectl
        .ok(
            "apply --server-side --field-manager=other --force-conflicts -f -",
            &other,
        )
        .await;
    let shown = kubectl.ok("get pvc data -o yaml --show-managed-fields", "").await;
    assert!(
        shown.contains("manager: other") && shown.contains("f:tier: {}"),
        "{shown}"
    );
    let hidden = kubectl.ok("get pvc data -o yaml", "").await;
    assert!(
        !hidden.contains("managedFields") && hidden.contains("tier: iron"),
        "{hidden}"
    );
    // What the one manager no longer applies stays as long as the other does.
    kubectl
        .ok(
            "apply --server-side -f -",
            &CLAIM.replace(", labels: {tier: gold}", ""),
        )
        .await;
    let labels = "get pvc data -o jsonpath={.metadata.labels}";
    assert_eq!(kubectl.ok(labels, "").await, r#"{"tier":"iron"}"#);
    let less = CLAIM.replace(", labels: {tier: gold}", "");
    kubectl
        .ok("apply --server-side --field-manager=other -f -", &less)
        .await;
    assert_eq!(kubectl.ok(labels, "").await, "");
    kubectl.server.shut_down().await;
}

#[tokio::test]
async fn from_the_clients_side_to_the_servers() {
    let Some(kubectl) = Kubectl::start("from_the_clients_side_to_the_servers").await else {
        return;
    };
    kubectl.ok("apply -f -", MAP).await;
    let managers = "get cm a -o jsonpath={.metadata.managedFields[*].manager} --show-managed-fields";
    assert_eq!(kubectl.ok(managers, "").await, "kubectl-client-side-apply");
    let last = kubectl.ok("apply view-last-applied cm/a", "").await;
    assert!(last.contains("x: one"), "{last}");
    // Another value than the one applied before: still kubectl's own field.
    let moved = kubectl
        .ok("apply --server-side -f -", &MAP.replace("one", "two"))
        .await;
    assert!(moved.contains("serverside-applied"), "{moved}");
    assert_eq!(
        kubectl.ok("get cm a -o jsonpath={.data}", "").await,
        r#"{"x":"two"}"#
    );
    let after = kubectl.ok(managers, "").await;
    assert!(
        after.starts_with("kubectl") && !after.contains("client-side"),
        "{after}"
    );
    let last = kubectl.ok("apply view-last-applied cm/a", "").await;
    assert!(last.contains("x: two"), "{last}");
    // And back: the client finds its annotation.
    let back = kubectl.ok("apply -f -", &MAP.replace("one", "three")).await;
    assert!(back.contains("configured"), "{back}");
    kubectl.server.shut_down().await;
}

#[tokio::test]
async fn looking_before_writing() {
    let Some(kubectl) = Kubectl::start("looking_before_writing").await else {
        return;
    };
    for side in ["", "--server-side "] {
        kubectl.ok(&format!("apply {side}-f -"), MAP).await;
        let (is_same, text) = kubectl.run(&format!("diff {side}-f -"), MAP).await;
        assert!(is_same, "kubectl diff {side}: {text}");
    }
    let revision = "get cm a -o jsonpath={.metadata.resourceVersion}";
    let before = kubectl.ok(revision, "").await;
    for arguments in ["diff -f -", "diff --server-side --force-conflicts -f -"] {
        let (is_same, text) = kubectl.run(arguments, &MAP.replace("one", "two")).await;
        assert!(
            !is_same && text.contains("-  x: one") && text.contains("+  x: two"),
            "kubectl {arguments}: {text}"
        );
    }
    kubectl
        .ok(
            "apply --server-side --dry-run=server --force-conflicts -f -",
            &MAP.replace("one", "two"),
        )
        .await;
    assert_eq!(kubectl.ok(revision, "").await, before);
    let odd = MAP
        .replace("\ndata:", "\nnonsense: 1\ndata:")
        .replace("name: a", "name: b");
    for arguments in ["create --validate=strict -f -", "apply --server-side -f -"] {
        let (succeeded, text) = kubectl.run(arguments, &odd).await;
        assert!(
            !succeeded && text.contains("nonsense"),
            "kubectl {arguments}: {text}"
        );
    }
    let explained = kubectl.ok("explain pod.spec.containers.ports", "").await;
    for part in [
        "KIND:       Pod",
        "containerPort",
        "<integer> -required-",
        "protocol",
    ] {
        assert!(explained.contains(part), "{part}: {explained}");
    }
    kubectl.server.shut_down().await;
}
