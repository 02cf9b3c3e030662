//! Pods.

use super::*;

/// A bound claim, its volume that needs no attaching, and a node with its driver.
fn at_hand(more: Objects) -> Objects {
    let mut objects = vec![
        claim("data", bound_to("pv1")),
        pv("pv1", json!({})),
        driver(),
        csi_node("n1"),
        node(
            "n1",
            json!({"status": {"volumesInUse": ["kubernetes.io/csi/d^h"]}}),
        ),
    ];
    objects.extend(more);
    objects
}

fn web(patch: Value) -> Value {
    let mut whole = json!({"metadata": {"creationTimestamp": JUST}});
    merge(&mut whole, &patch);
    pod("web", whole)
}

fn check_pods(cases: Vec<Case<'_>>) {
    check(Kind::Pod, "web", cases);
}

#[test]
fn without_a_node() {
    let ephemeral = json!({"spec": {"volumes": [
        {"name": "data", "ephemeral": {"volumeClaimTemplate": {"spec": {"accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": "1Gi"}}}}}}]}});
    let asked = json!({"metadata": {"creationTimestamp": JUST,
        "annotations": {"volume.kubernetes.io/storage-provisioner": "d"}}});
    let gated = json!({"spec": {"schedulingGates": [{"name": "quota"}]}});
    let big = json!({"spec": {"containers": [{"name": "app", "resources": {"requests": {"cpu": "64"}}}]}});
    check_pods(vec![
        (
            "its claim is missing",
            vec![web(json!({})), node("n1", json!({}))],
            &[
                "ActionNeeded",
                "web FailedScheduling scheduler",
                "data ClaimMissing user",
            ],
        ),
        (
            "its claim has to be made from its template",
            vec![web(ephemeral), node("n1", json!({}))],
            &[
                "Waiting",
                "web FailedScheduling scheduler",
                "web-data ClaimMissing ephemeral-volume-controller",
            ],
        ),
        (
            "its claim has no class",
            vec![web(json!({})), node("n1", json!({})), claim("data", json!({}))],
            &[
                "ActionNeeded",
                "web FailedScheduling scheduler",
                "data ProvisioningFailed admin",
            ],
        ),
        (
            "its claim is being made",
            vec![
                web(json!({})),
                node("n1", json!({})),
                claim("data", asked),
                class(json!({})),
            ],
            &[
                "Waiting",
                "web FailedScheduling scheduler",
                "data ExternalProvisioning csi-provisioner",
            ],
        ),
        (
            "it is too big, and its claim waits for it",
            vec![web(big), node("n1", json!({})), claim("data", json!({})), late()],
            &["ActionNeeded", "web FailedScheduling user"],
        ),
        (
            "gated",
            at_hand(vec![web(gated)]),
            &["ActionNeeded", "web SchedulingGated user"],
        ),
        (
            "the scheduler's turn",
            at_hand(vec![web(json!({}))]),
            &["Waiting", "web SchedulingDue scheduler"],
        ),
    ]);
}

#[test]
#[expect(clippy::too_many_lines, reason = "one flat table")]
fn on_a_node() {
    let not_ready = {
        let mut patch = running();
        patch["status"]["containerStatuses"][0]["ready"] = json!(false);
        patch["status"]["conditions"] =
            json!([{"type": "Ready", "status": "False", "lastTransitionTime": JUST}]);
        patch
    };
    let dead = node(
        "n1",
        json!({"status": {"conditions": [{"type": "Ready", "status": "Unknown"}]}}),
    );
    let creating = || web(waiting_for("ContainerCreating"));
    let refused = "MountVolume.SetUp failed: rpc error: code = Internal desc = no such device";
    check_pods(vec![
        ("running", at_hand(vec![web(running())]), &["Healthy"]),
        (
            "its claim is not bound",
            vec![creating(), node("n1", json!({})), claim("data", json!({}))],
            &[
                "ActionNeeded",
                "web FailedMount persistentvolume-controller",
                "data ProvisioningFailed admin",
            ],
        ),
        (
            "its claim is missing",
            vec![creating(), node("n1", json!({}))],
            &["ActionNeeded", "data ClaimMissing user"],
        ),
        (
            "no driver on the node",
            vec![
                creating(),
                node("n1", json!({})),
                claim("data", bound_to("pv1")),
                pv("pv1", json!({})),
                driver(),
            ],
            &["ActionNeeded", "web FailedMount admin"],
        ),
        (
            "the kubelet's turn",
            at_hand(vec![creating()]),
            &["Waiting", "web ContainerCreating kubelet"],
        ),
        (
            "the driver can't mount",
            at_hand(vec![creating(), event("web", "FailedMount", refused, "kubelet")]),
            &["ActionNeeded", "web FailedMount admin"],
        ),
        (
            "a Secret is missing",
            at_hand(vec![
                creating(),
                event("web", "FailedMount", "secret \"s\" not found", "kubelet"),
            ]),
            &["ActionNeeded", "web FailedMount user"],
        ),
        (
            "no image",
            at_hand(vec![web(waiting_for("ImagePullBackOff"))]),
            &["ActionNeeded", "web ImageMissing user"],
        ),
        (
            "a program that ends",
            at_hand(vec![web(waiting_for("CrashLoopBackOff"))]),
            &["ActionNeeded", "web CrashLoopBackOff user"],
        ),
        (
            "no Secret",
            at_hand(vec![web(waiting_for("CreateContainerConfigError"))]),
            &["ActionNeeded", "web CreateContainerConfigError user"],
        ),
        (
            "a word that nobody knows",
            at_hand(vec![web(waiting_for("Sulking"))]),
            &["ActionNeeded", "web ContainerFailed user"],
        ),
        (
            "runs, and isn't ready",
            at_hand(vec![web(not_ready)]),
            &["Waiting", "web ContainersNotReady kubelet"],
        ),
        (
            "the node is silent",
            vec![
                claim("data", bound_to("pv1")),
                pv("pv1", json!({})),
                driver(),
                web(running()),
                dead,
            ],
            &["ActionNeeded", "web NodeNotReady admin"],
        ),
        (
            "the node is gone",
            vec![
                claim("data", bound_to("pv1")),
                pv("pv1", json!({})),
                driver(),
                web(running()),
            ],
            &["ActionNeeded", "web NodeMissing admin"],
        ),
    ]);
}

#[test]
fn at_the_end() {
    let ended = |phase: &str, code: i32| {
        let mut patch = running();
        patch["status"]["phase"] = json!(phase);
        patch["status"]["containerStatuses"][0]["state"] = json!({"terminated": {"exitCode": code}});
        patch
    };
    let mut going = running();
    merge(&mut going, &deleting(&[]));
    check_pods(vec![
        ("done", at_hand(vec![web(ended("Succeeded", 0))]), &["Healthy"]),
        (
            "failed",
            at_hand(vec![web(ended("Failed", 3))]),
            &["ActionNeeded", "web PodFailed user"],
        ),
        (
            "going",
            at_hand(vec![web(going)]),
            &["Waiting", "web Terminating kubelet"],
        ),
        (
            "done and going",
            at_hand(vec![web({
                let mut patch = ended("Succeeded", 0);
                merge(&mut patch, &deleting(&[]));
                patch
            })]),
            &["Waiting", "web Terminating kubelet"],
        ),
        (
            "done, and a finalizer",
            at_hand(vec![web({
                let mut patch = ended("Succeeded", 0);
                merge(&mut patch, &deleting(&["example.com/job"]));
                patch
            })]),
            &["Waiting", "web Finalizers finalizer"],
        ),
    ]);
    let report = of(Kind::Pod, "web", &at_hand(vec![web(ended("Failed", 3))]));
    assert!(
        report.findings[0].message.ends_with("app ended with code 3"),
        "{report:#?}"
    );
    assert!(
        report.findings[0]
            .advice
            .starts_with("see kubectl logs web -n ns;"),
        "{report:#?}"
    );
}
