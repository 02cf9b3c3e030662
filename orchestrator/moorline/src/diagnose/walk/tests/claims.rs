//! Claims.

use super::*;

fn asked() -> Value {
    json!({"metadata": {"annotations": {"volume.kubernetes.io/storage-provisioner": "d"}}})
}

fn asked_just_now() -> Value {
    let mut patch = asked();
    merge(&mut patch, &json!({"metadata": {"creationTimestamp": JUST}}));
    patch
}

fn data(patch: Value) -> Value {
    claim("data", patch)
}

#[test]
#[expect(clippy::too_many_lines, reason = "one flat table")]
fn without_a_volume() {
    let classless = json!({"spec": {"storageClassName": null}});
    let default =
        json!({"metadata": {"annotations": {"storageclass.kubernetes.io/is-default-class": "true"}}});
    let free = pv(
        "pv1",
        json!({"spec": {"claimRef": null}, "status": {"phase": "Available"}}),
    );
    let full = "failed to provision volume: rpc error: code = ResourceExhausted desc = the pool is full";
    let mut lost = bound_to("pv1");
    merge(&mut lost, &json!({"status": null}));
    check(
        Kind::PersistentVolumeClaim,
        "data",
        vec![
            (
                "the class is missing",
                vec![data(json!({}))],
                &["ActionNeeded", "data ProvisioningFailed admin"],
            ),
            (
                "no pod uses it",
                vec![data(json!({})), late()],
                &["ActionNeeded", "data WaitForFirstConsumer user"],
            ),
            (
                "its pod has no node",
                vec![data(json!({})), late(), pod("web", json!({}))],
                &[
                    "ActionNeeded",
                    "data WaitForPodScheduled scheduler",
                    "web FailedScheduling user",
                ],
            ),
            (
                "no class at all",
                vec![data(classless.clone())],
                &["ActionNeeded", "data FailedBinding user"],
            ),
            (
                "gets the default class",
                vec![data(classless), class(default)],
                &["ActionNeeded", "data BindingDue persistentvolume-controller"],
            ),
            (
                "a volume fits",
                vec![
                    data(json!({"metadata": {"creationTimestamp": JUST}})),
                    class(json!({})),
                    free,
                ],
                &["Waiting", "data BindingDue persistentvolume-controller"],
            ),
            (
                "asked just now",
                vec![data(asked_just_now()), class(json!({}))],
                &["Waiting", "data ExternalProvisioning csi-provisioner"],
            ),
            (
                "asked, and silence since",
                vec![data(asked()), class(json!({}))],
                &["ActionNeeded", "data ExternalProvisioning csi-provisioner"],
            ),
            (
                "the driver refuses",
                vec![
                    data(asked()),
                    class(json!({})),
                    event("data", "ProvisioningFailed", full, "d_x_1"),
                ],
                &["ActionNeeded", "data ProvisioningFailed admin"],
            ),
            (
                "the binder's old word is not the driver's",
                vec![
                    data(asked_just_now()),
                    class(json!({})),
                    event(
                        "data",
                        "ProvisioningFailed",
                        "StorageClass",
                        "persistentvolume-controller",
                    ),
                ],
                &["Waiting", "data ExternalProvisioning csi-provisioner"],
            ),
            (
                "lost",
                vec![data(lost)],
                &["ActionNeeded", "data ClaimLost admin"],
            ),
        ],
    );
}

#[test]
fn from_a_source() {
    let mut restore = asked();
    merge(
        &mut restore,
        &json!({"spec": {"dataSource": {"apiGroup": "snapshot.storage.k8s.io", "kind": "VolumeSnapshot", "name": "s1"}}}),
    );
    let mut clone = asked();
    merge(
        &mut clone,
        &json!({"spec": {"dataSource": {"kind": "PersistentVolumeClaim", "name": "origin"}}}),
    );
    let mut origin = claim("origin", json!({}));
    merge(&mut origin, &json!({"spec": {"storageClassName": "gone"}}));
    check(
        Kind::PersistentVolumeClaim,
        "data",
        vec![
            (
                "the snapshot is missing",
                vec![data(restore.clone()), class(json!({}))],
                &["ActionNeeded", "data ProvisioningFailed user"],
            ),
            (
                "the snapshot has no class",
                vec![data(restore), class(json!({})), snapshots::snapshot(json!({}))],
                &[
                    "ActionNeeded",
                    "data ProvisioningFailed csi-provisioner",
                    "s1 GetSnapshotClassFailed admin",
                ],
            ),
            (
                "the claim it is cloned from has no volume",
                vec![data(clone), class(json!({})), origin],
                &[
                    "ActionNeeded",
                    "data ProvisioningFailed csi-provisioner",
                    "origin ProvisioningFailed admin",
                ],
            ),
        ],
    );
}

#[test]
fn with_a_volume() {
    let bound = |patch: Value| {
        let mut whole = bound_to("pv1");
        merge(&mut whole, &patch);
        data(whole)
    };
    let more = json!({"spec": {"resources": {"requests": {"storage": "2Gi"}}}});
    let grown = json!({"status": {"conditions": [
        {"type": "FileSystemResizePending", "status": "True", "lastTransitionTime": JUST}]}});
    let infeasible = {
        let mut patch = more.clone();
        merge(
            &mut patch,
            &json!({"status": {"allocatedResourceStatuses": {"storage": "ControllerResizeInfeasible"},
                "allocatedResources": {"storage": "2Gi"}}}),
        );
        patch
    };
    let full = event(
        "data",
        "VolumeResizeFailed",
        "rpc error: code = OutOfRange desc = full",
        "d",
    );
    let pv1 = || pv("pv1", json!({}));
    check(
        Kind::PersistentVolumeClaim,
        "data",
        vec![
            ("at rest", vec![bound(json!({})), pv1()], &["Healthy"]),
            (
                "the volume is gone",
                vec![bound(json!({}))],
                &["ActionNeeded", "data ClaimLost admin"],
            ),
            (
                "wants more",
                vec![bound(more.clone()), pv1()],
                &["Waiting", "data Resizing csi-resizer"],
            ),
            (
                "wants more, the driver says no",
                vec![bound(more), pv1(), full.clone()],
                &["ActionNeeded", "data VolumeResizeFailed admin"],
            ),
            (
                "wants more, and never will",
                vec![bound(infeasible), pv1(), full],
                &["ActionNeeded", "data VolumeResizeFailed user"],
            ),
            (
                "grown, and not mounted",
                vec![bound(grown.clone()), pv1()],
                &["ActionNeeded", "data FileSystemResizePending user"],
            ),
            (
                "grown, and mounted",
                vec![
                    bound(grown),
                    pv1(),
                    driver(),
                    node("n1", json!({})),
                    pod("web", running()),
                ],
                &["Waiting", "data FileSystemResizePending kubelet"],
            ),
        ],
    );
}

#[test]
fn on_the_way_out() {
    let going = |finalizers: &[&str]| {
        let mut whole = bound_to("pv1");
        merge(&mut whole, &deleting(finalizers));
        data(whole)
    };
    let pv1 = || pv("pv1", json!({}));
    check(
        Kind::PersistentVolumeClaim,
        "data",
        vec![
            (
                "a pod uses it",
                vec![
                    going(&["kubernetes.io/pvc-protection"]),
                    pv1(),
                    driver(),
                    pod("web", running()),
                ],
                &["ActionNeeded", "data ClaimInUse user"],
            ),
            (
                "nobody uses it",
                vec![going(&["kubernetes.io/pvc-protection"]), pv1()],
                &["Waiting", "data DeletionAllowed protection-controller"],
            ),
            (
                "somebody else's finalizer",
                vec![going(&["example.com/backup"]), pv1()],
                &["Waiting", "data Finalizers finalizer"],
            ),
            (
                "a snapshot and a clone of it",
                vec![
                    going(&[
                        "snapshot.storage.kubernetes.io/pvc-as-source-protection",
                        "provisioner.storage.kubernetes.io/cloning-protection",
                    ]),
                    pv1(),
                ],
                &[
                    "Waiting",
                    "data SnapshotSource snapshot-controller",
                    "data CloneSource csi-provisioner",
                ],
            ),
        ],
    );
    let report = of(
        Kind::PersistentVolumeClaim,
        "data",
        &[going(&["example.com/backup"]), pv1()],
    );
    assert!(report.is_being_deleted);
    assert!(
        report.state.ends_with("being deleted since 2026-01-01T00:09:50Z"),
        "{}",
        report.state
    );
}
