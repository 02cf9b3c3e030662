//! Answers as people and programs read them, to the letter.

use super::*;

#[test]
fn a_pod_whose_claim_names_a_missing_class() {
    let objects = [
        pod("web", json!({"metadata": {"creationTimestamp": JUST}})),
        node("n1", json!({})),
        claim("data", json!({"metadata": {"creationTimestamp": JUST}})),
    ];
    let report = of(Kind::Pod, "web", &objects);
    let expected = "\
Pod ns/web gets no further before an administrator of the cluster acts.
  state: Pending, on no node

Pod ns/web: FailedScheduling
  what:  0/1 nodes are available: pod has unbound immediate PersistentVolumeClaims.
  since: 2026-01-01T00:09:50Z (10 s ago)
  who:   the scheduler
  do:    see to what it waits for, below; the scheduler goes on by itself

PersistentVolumeClaim ns/data: ProvisioningFailed
  what:  StorageClass \"fast\" doesn't exist; create it
  since: 2026-01-01T00:09:50Z (10 s ago)
  who:   an administrator of the cluster
  do:    create StorageClass \"fast\", or make the claim anew with a class that exists: kubectl get storageclass
";
    assert_eq!(report.text(NOW.parse().unwrap()), expected);
}

#[test]
fn a_claim_that_waits_for_its_first_pod() {
    let report = of(
        Kind::PersistentVolumeClaim,
        "data",
        &[claim("data", json!({})), late()],
    );
    let expected = "\
PersistentVolumeClaim ns/data gets no further before the user who wrote it acts.
  state: Pending, no volume, asks for 1Gi, class \"fast\"

PersistentVolumeClaim ns/data: WaitForFirstConsumer
  what:  the volume is chosen when the first pod that uses this claim is scheduled
  since: 2026-01-01T00:00:00Z (10 min ago)
  who:   the user who wrote it
  do:    create a pod that uses the claim
";
    assert_eq!(report.text(NOW.parse().unwrap()), expected);
    let object = json!({"kind": "PersistentVolumeClaim", "namespace": "ns", "name": "data"});
    assert_eq!(
        serde_json::to_value(&report).unwrap(),
        json!({
            "object": object,
            "state": "Pending, no volume, asks for 1Gi, class \"fast\"",
            "verdict": "action-needed",
            "findings": [{
                "object": object,
                "reason": "WaitForFirstConsumer",
                "message": "the volume is chosen when the first pod that uses this claim is scheduled",
                "since": "2026-01-01T00:00:00Z",
                "actor": "user",
                "advice": "create a pod that uses the claim",
                "needsAction": true,
                "isLate": false,
            }],
            "unread": [],
            "isBeingDeleted": false,
        })
    );
}

#[test]
fn a_claim_at_rest() {
    let report = of(
        Kind::PersistentVolumeClaim,
        "data",
        &[claim("data", bound_to("pv1")), pv("pv1", json!({}))],
    );
    let expected = "\
PersistentVolumeClaim ns/data is healthy: it waits for nothing.
  state: Bound to pv1, 1Gi, class \"fast\"
";
    assert_eq!(report.text(NOW.parse().unwrap()), expected);
}
