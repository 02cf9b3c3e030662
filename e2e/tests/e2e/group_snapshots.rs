//! Group snapshots as users see them through kubectl: several claims at one moment, restored together.

use std::time::Duration;

use moorline_e2e::{cluster::TestCluster, kubectl::Kubectl, require_kubectl, require_node, wait};

use crate::{
    manifests::{claim, class, together},
    snapshots::{restored, run_pod, wait_none},
};

const LIMIT: Duration = Duration::from_secs(90);
/// Writes a number to /a, then to /b, then the next one, for as long as it may: at each moment /b has that of /a or the one
/// before it.
const COUNT: &str = "trap 'exit 0' TERM; i=0; while :; do i=$((i+1)); for d in a b; do \
                     echo $i > /$d/new; mv /$d/new /$d/count; done; echo $i; sleep 0.02; done";

/// A claim with the label that groups select.
pub(crate) fn labelled(claim: &str, name: &str) -> String {
    claim.replace(
        &format!("metadata: {{name: {name}}}"),
        &format!("metadata: {{name: {name}, labels: {{app: db}}}}"),
    )
}

/// A group snapshot of the claims with the label.
pub(crate) fn group(name: &str, class: &str) -> String {
    format!(
        "
apiVersion: groupsnapshot.storage.k8s.io/v1
kind: VolumeGroupSnapshot
metadata: {{name: {name}}}
spec:
  volumeGroupSnapshotClassName: {class}
  source: {{selector: {{matchLabels: {{app: db}}}}}}
"
    )
}

/// A pod with two claims, at /a and /b.
fn pod(name: &str, [a, b]: [&str; 2], script: &str) -> String {
    format!(
        "
apiVersion: v1
kind: Pod
metadata: {{name: {name}}}
spec:
  terminationGracePeriodSeconds: 1
  restartPolicy: Never
  containers:
    - name: app
      image: moorline.local/host
      command: [/bin/sh, -c, {script:?}]
      volumeMounts: [{{name: a, mountPath: /a}}, {{name: b, mountPath: /b}}]
  volumes:
    - {{name: a, persistentVolumeClaim: {{claimName: {a}}}}}
    - {{name: b, persistentVolumeClaim: {{claimName: {b}}}}}
"
    )
}

fn wait_ready(kubectl: &Kubectl, name: &str) {
    kubectl.wait_field("volumegroupsnapshot", name, "{.status.readyToUse}", "true", LIMIT);
}

/// The ready members of a group: their claims with their names.
fn members(kubectl: &Kubectl, group: &str) -> Vec<(String, String)> {
    let template = "jsonpath={range .items[*]}{.status.volumeGroupSnapshotName} {.status.readyToUse} \
                    {.spec.source.persistentVolumeClaimName} {.metadata.name}{\"\\n\"}{end}";
    let mut members = Vec::new();
    wait::until("both members to be ready", LIMIT, || {
        let text = kubectl.run(&["get", "volumesnapshots", "-o", template]);
        let ready = format!("{group} true ");
        let found = text.lines().filter_map(|line| line.strip_prefix(&ready));
        members = found
            .filter_map(|line| line.split_once(' '))
            .map(|(claim, name)| (claim.to_owned(), name.to_owned()))
            .collect();
        members.sort();
        if members.len() == 2 { Ok(()) } else { Err(text) }
    });
    members
}

fn wait_nothing(kubectl: &Kubectl) {
    for kind in [
        "volumegroupsnapshots",
        "volumegroupsnapshotcontents",
        "volumesnapshots",
        "volumesnapshotcontents",
    ] {
        wait_none(kubectl, kind);
    }
}

#[test]
fn two_claims_that_are_written_are_cut_at_one_moment_and_restored() {
    require_node!();
    require_kubectl!();
    let cluster = TestCluster::start(&["--driver-backend", "loop", "--host-image"]);
    let kubectl = cluster.kubectl();
    kubectl.apply_ok(&together(&[
        class("now", "Immediate", "Delete"),
        labelled(&claim("a", "now", "ReadWriteOnce", "8Mi"), "a"),
        labelled(&claim("b", "now", "ReadWriteOnce", "8Mi"), "b"),
        claim("other", "now", "ReadWriteOnce", "8Mi"),
        pod("writer", ["a", "b"], COUNT),
    ]));
    wait::until("the writer to write", LIMIT, || {
        let log = kubectl.call(&["logs", "writer"]).stdout;
        if log.lines().count() > 3 { Ok(()) } else { Err(log) }
    });
    let unnamed = group("both", "x").replace("  volumeGroupSnapshotClassName: x\n", "");
    kubectl.apply_ok(&unnamed);
    wait_ready(&kubectl, "both");
    let class_name = kubectl.field("vgs", "both", "{.spec.volumeGroupSnapshotClassName}");
    assert_eq!(class_name, "moorline-local", "the driver's default class");
    kubectl.wait_event("both", "GroupSnapshotReady", LIMIT);
    let members = members(&kubectl, "both");
    let claims: Vec<_> = members.iter().map(|(claim, _)| claim.as_str()).collect();
    assert_eq!(claims, ["a", "b"], "those with the label");
    kubectl.run(&["delete", "pod", "writer", "--timeout=60s"]);

    let script = "echo $(cat /a/count) $(cat /b/count)";
    kubectl.apply_ok(&together(&[
        restored("ra", &members[0].1),
        restored("rb", &members[1].1),
        pod("reader", ["ra", "rb"], script),
    ]));
    kubectl.wait_field("pod", "reader", "{.status.phase}", "Succeeded", LIMIT);
    let log = kubectl.run(&["logs", "reader"]);
    let numbers: Vec<u64> = log
        .split_whitespace()
        .filter_map(|word| word.parse().ok())
        .collect();
    let [a, b] = numbers[..] else {
        panic!("{log}");
    };
    assert!(a > 0 && (b == a || b + 1 == a), "not of one moment: {a} {b}");

    // Nobody takes a member out of its group.
    let first = &members[0].1;
    kubectl.run(&["delete", "volumesnapshot", first, "--wait=false"]);
    let why = kubectl.wait_event(first, "SnapshotDeletePending", LIMIT);
    assert!(why.contains("belongs to group snapshot"), "{why}");
    kubectl.run(&["delete", "volumegroupsnapshot", "both", "--timeout=90s"]);
    wait_nothing(&kubectl);
    kubectl.run(&["delete", "pod", "reader", "--timeout=60s"]);
    kubectl.run(&["delete", "pvc", "a", "b", "other", "ra", "rb", "--timeout=60s"]);
    wait_none(&kubectl, "pv");
    cluster.finish();
}

/// Objects for a group snapshot that exists in the backend.
fn found(group_handle: &str, snapshot_handles: &[String; 2]) -> String {
    let [first, second] = snapshot_handles;
    let mut documents = vec![
        format!(
            "
apiVersion: groupsnapshot.storage.k8s.io/v1
kind: VolumeGroupSnapshotContent
metadata: {{name: found}}
spec:
  driver: local.csi.moorline.dev
  deletionPolicy: Delete
  source:
    groupSnapshotHandles:
      volumeGroupSnapshotHandle: {group_handle:?}
      volumeSnapshotHandles: [{first:?}, {second:?}]
  volumeGroupSnapshotRef: {{namespace: default, name: again}}
"
        ),
        "
apiVersion: groupsnapshot.storage.k8s.io/v1
kind: VolumeGroupSnapshot
metadata: {name: again}
spec:
  source: {volumeGroupSnapshotContentName: found}
"
        .to_owned(),
    ];
    for (name, handle) in [("again-1", first), ("again-2", second)] {
        documents.push(format!(
            "
apiVersion: snapshot.storage.k8s.io/v1
kind: VolumeSnapshotContent
metadata: {{name: {name}}}
spec:
  driver: local.csi.moorline.dev
  deletionPolicy: Delete
  source: {{snapshotHandle: {handle:?}}}
  volumeSnapshotRef: {{namespace: default, name: {name}}}
---
apiVersion: snapshot.storage.k8s.io/v1
kind: VolumeSnapshot
metadata: {{name: {name}}}
spec:
  source: {{volumeSnapshotContentName: {name}}}
"
        ));
    }
    together(&documents)
}

#[test]
fn a_retained_group_outlives_its_objects_and_comes_back() {
    require_node!();
    require_kubectl!();
    let mut cluster = TestCluster::start(&["--host-image"]);
    let kubectl = cluster.kubectl();
    kubectl.apply_ok(&together(&[
        class("now", "Immediate", "Delete"),
        labelled(&claim("a", "now", "ReadWriteOnce", "8Mi"), "a"),
        labelled(&claim("b", "now", "ReadWriteOnce", "8Mi"), "b"),
        "
apiVersion: groupsnapshot.storage.k8s.io/v1
kind: VolumeGroupSnapshotClass
metadata: {name: keep}
driver: local.csi.moorline.dev
deletionPolicy: Retain
"
        .to_owned(),
    ]));
    let both = group("bad", "keep").replace("source: {", "source: {volumeGroupSnapshotContentName: x, ");
    let refused = kubectl.apply(&both);
    assert!(refused.stderr.contains("exactly one of"), "{}", refused.stderr);
    for name in ["a", "b"] {
        run_pod(
            &kubectl,
            "writer",
            name,
            &format!("echo of-{name} > /data/file && sync"),
        );
    }
    kubectl.apply_ok(&group("first", "keep"));
    // Killed in mid-work, it goes on at the next start.
    cluster.kill_9();
    cluster.up();
    let kubectl = cluster.kubectl();
    wait_ready(&kubectl, "first");
    let members = members(&kubectl, "first");
    let bound = "{.status.boundVolumeGroupSnapshotContentName}";
    let content = kubectl.field("volumegroupsnapshot", "first", bound);
    let handle_of = |kind: &str, name: &str, field: &str| kubectl.field(kind, name, field);
    let group_handle = handle_of("vgsc", &content, "{.status.volumeGroupSnapshotHandle}");
    let own = [0, 1].map(|index| {
        let bound = "{.status.boundVolumeSnapshotContentName}";
        handle_of("volumesnapshot", &members[index].1, bound)
    });
    let handles = [0, 1].map(|index| handle_of("vsc", &own[index], "{.status.snapshotHandle}"));
    kubectl.run(&["delete", "volumegroupsnapshot", "first", "--timeout=90s"]);
    wait_none(&kubectl, "volumesnapshots");
    let kept = kubectl.run(&["get", "vsc", "-o", "name"]);
    assert_eq!(kept.lines().count(), 2, "{kept}");
    kubectl.run(&["delete", "vgsc", &content, "--timeout=60s"]);
    kubectl.run(&["delete", "vsc", &own[0], &own[1], "--timeout=60s"]);
    kubectl.run(&["delete", "pvc", "a", "b", "--timeout=60s"]);
    wait_none(&kubectl, "pv");

    kubectl.apply_ok(&found(&group_handle, &handles));
    wait_ready(&kubectl, "again");
    for name in ["again-1", "again-2"] {
        let owner = "{.metadata.ownerReferences[0].name}";
        kubectl.wait_field("volumesnapshot", name, owner, "again", LIMIT);
    }
    kubectl.apply_ok(&restored("back", "again-2"));
    assert_eq!(run_pod(&kubectl, "reader", "back", "cat /data/file"), "of-b");
    kubectl.run(&["delete", "volumegroupsnapshot", "again", "--timeout=90s"]);
    wait_nothing(&kubectl);
    kubectl.run(&["delete", "pvc", "back", "--timeout=60s"]);
    wait_none(&kubectl, "pv");
    cluster.finish();
}
