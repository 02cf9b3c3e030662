//! What the kubelet waits for with a volume of a pod, for people who ask: its deciders are called with what can be read
//! of the cluster. What is mounted is known on the node alone, so a volume counts as not mounted yet.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{Node, PersistentVolume, PersistentVolumeClaim, Pod};
use k8s_openapi::api::storage::v1::{CSIDriver, CSINode, VolumeAttachment};
use moorline_model::{Actor, Explanation, pod};

use crate::volumes::actual::Mounted;
use crate::volumes::attach;
use crate::volumes::decide::{Attachment, MountSeen, Next, Seen, Why, decide};
use crate::volumes::resolve::{ClaimSeen, Problem, bound_pv};
use crate::volumes::spec::{MountId, VolumeKey};

/// One volume of a pod that has a node.
#[derive(Clone, Copy, Debug)]
pub struct PodVolume<'a> {
    /// The pod.
    pub pod: &'a Pod,
    /// The claim's name.
    pub claim_name: &'a str,
    /// The claim is made for the pod.
    pub is_ephemeral: bool,
    /// The claim.
    pub claim: Option<&'a PersistentVolumeClaim>,
    /// The volume that it names.
    pub pv: Option<&'a PersistentVolume>,
    /// The pod's node.
    pub node: Option<&'a Node>,
    /// The drivers there.
    pub csi_node: Option<&'a CSINode>,
    /// The volume's driver.
    pub csi_driver: Option<&'a CSIDriver>,
    /// The volume's attachment to the node.
    pub attachment: Option<&'a VolumeAttachment>,
}

/// Why the kubelet can't mount the volume. `None`: it can, or it has.
pub fn mounting(volume: &PodVolume<'_>) -> Option<Explanation> {
    let seen = ClaimSeen {
        name: volume.claim_name,
        must_be_owned: volume.is_ephemeral,
        claim: volume.claim,
        pv: volume.pv,
        node: volume.node,
    };
    let pv = match bound_pv(volume.pod, seen) {
        Ok(pv) => pv,
        Err(problem) => return Some(of_problem(&problem, volume.claim_name)),
    };
    // Other volumes wait for nobody.
    let csi = pv.spec.as_ref().and_then(|spec| spec.csi.as_ref())?;
    let key = VolumeKey::persistent(&csi.driver, &csi.volume_handle);
    let is_registered = volume
        .csi_node
        .is_some_and(|node| node.spec.drivers.iter().any(|driver| driver.name == csi.driver));
    let attachment = if attach::is_required(volume.csi_driver) {
        // Seen from outside, the Node is what counts.
        attach::look(&key, true, volume.node, volume.attachment)
    } else {
        Attachment::NotNeeded
    };
    let mount = MountSeen {
        id: MountId {
            pod_uid: volume.pod.metadata.uid.clone().unwrap_or_default(),
            spec_name: pv.metadata.name.clone().unwrap_or_default(),
        },
        state: Mounted::No,
        is_wanted: true,
        is_released: false,
        is_stale: false,
    };
    let seen = Seen {
        stages: is_registered.then_some(true),
        is_local: false,
        attachment,
        device: Mounted::No,
        mounts: vec![mount],
        is_single_pod: false,
        needs_expansion: false,
        is_settled: true,
    };
    let node_name = pod::node_name(volume.pod).unwrap_or_default();
    match decide(&seen, &BTreeSet::new()) {
        Next::Wait(why) => Some(of_why(&why, &csi.driver, node_name)),
        Next::Settled | Next::Do(_) => None,
    }
}

fn of_problem(problem: &Problem, claim_name: &str) -> Explanation {
    let (text, actor) = match problem {
        Problem::NotYet(text) => (text, Actor::Binder),
        Problem::Wrong(text) => (text, Actor::User),
    };
    let advice = format!("see how the claim is: moorline diagnose pvc {claim_name}");
    Explanation::new("FailedMount", text, actor, advice)
}

fn of_why(why: &Why, driver_name: &str, node_name: &str) -> Explanation {
    let explain =
        |message: String, actor, advice: &str| Explanation::new("FailedMount", message, actor, advice);
    match why {
        Why::Driver => explain(
            format!("driver {driver_name} is not registered on node {node_name}"),
            Actor::Admin,
            "check that the driver's node part and its node-driver-registrar run on the node",
        ),
        Why::Attachment(Attachment::NotReportedInUse) => explain(
            format!("the kubelet of {node_name} has to report the volume in status.volumesInUse first"),
            Actor::Kubelet,
            "check that the node is ready and its kubelet runs",
        ),
        Why::Attachment(Attachment::Failed(message)) => explain(
            format!("the volume can't be attached to {node_name}: {message}"),
            Actor::Attacher,
            "remove the cause that the driver names; attaching is tried again by itself",
        ),
        Why::Attachment(Attachment::Awaited) => explain(
            format!("the volume is not attached to {node_name} yet"),
            Actor::Attacher,
            "check that the attach/detach controller and the driver's csi-attacher run",
        ),
        Why::Attachment(Attachment::NotNeeded | Attachment::Attached) | Why::SinglePod(_) => explain(
            format!("the volume is held by another pod of {node_name}"),
            Actor::User,
            "delete the other pod that uses the claim",
        ),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn object<K: serde::de::DeserializeOwned>(value: Value) -> K {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn a_volume_for_one_pod_names_the_pod_as_the_obstacle() {
        let holder = MountId {
            pod_uid: "other".into(),
            spec_name: "pv".into(),
        };
        let found = of_why(&Why::SinglePod(holder), "d", "n1");
        assert_eq!(found.actor, Actor::User);
        assert!(found.message.contains("held by another pod of n1"), "{found:?}");
    }

    #[test]
    #[expect(clippy::too_many_lines, reason = "one flat table")]
    fn each_step_of_the_way_to_a_mount_is_named() {
        let pod: Pod = object(json!({"metadata": {"name": "p", "namespace": "ns", "uid": "u"},
            "spec": {"containers": [], "nodeName": "n1"}}));
        let claim: PersistentVolumeClaim =
            object(json!({"metadata": {"name": "c", "namespace": "ns", "uid": "cu"},
            "spec": {"volumeName": "pv"}, "status": {"phase": "Bound"}}));
        let pv: PersistentVolume = object(
            json!({"metadata": {"name": "pv"}, "spec": {"claimRef": {"uid": "cu"},
            "csi": {"driver": "d", "volumeHandle": "h"}}}),
        );
        let registered: CSINode =
            object(json!({"metadata": {}, "spec": {"drivers": [{"name": "d", "nodeID": "x"}]}}));
        let empty: CSINode = object(json!({"metadata": {}, "spec": {"drivers": []}}));
        let trivial: CSIDriver = object(json!({"metadata": {}, "spec": {"attachRequired": false}}));
        let node = |in_use: bool| -> Node {
            let in_use = if in_use {
                vec!["kubernetes.io/csi/d^h"]
            } else {
                vec![]
            };
            object(json!({"status": {"volumesInUse": in_use}}))
        };
        let (idle, using) = (node(false), node(true));
        let failed: VolumeAttachment =
            object(json!({"metadata": {}, "spec": {"attacher": "d", "nodeName": "n1",
            "source": {}}, "status": {"attached": false, "attachError": {"message": "no slot"}}}));
        let base = PodVolume {
            pod: &pod,
            claim_name: "c",
            is_ephemeral: false,
            claim: Some(&claim),
            pv: Some(&pv),
            node: Some(&using),
            csi_node: Some(&registered),
            csi_driver: Some(&trivial),
            attachment: None,
        };
        let cases = [
            ("can mount", base, None),
            (
                "no claim",
                PodVolume { claim: None, ..base },
                Some(("not found", Actor::User)),
            ),
            (
                "no pv",
                PodVolume { pv: None, ..base },
                Some(("is not there", Actor::Binder)),
            ),
            (
                "no driver",
                PodVolume {
                    csi_node: Some(&empty),
                    ..base
                },
                Some(("not registered", Actor::Admin)),
            ),
            (
                "not in use",
                PodVolume {
                    csi_driver: None,
                    node: Some(&idle),
                    ..base
                },
                Some(("volumesInUse", Actor::Kubelet)),
            ),
            (
                "not attached",
                PodVolume {
                    csi_driver: None,
                    ..base
                },
                Some(("not attached", Actor::Attacher)),
            ),
            (
                "attaching failed",
                PodVolume {
                    csi_driver: None,
                    attachment: Some(&failed),
                    ..base
                },
                Some(("no slot", Actor::Attacher)),
            ),
        ];
        for (name, volume, expected) in cases {
            let found = mounting(&volume);
            match (&found, expected) {
                (None, None) => {}
                (Some(found), Some((text, actor))) => {
                    assert!(
                        found.message.contains(text) && found.actor == actor,
                        "{name}: {found:?}"
                    );
                }
                _ => panic!("{name}: {found:?}"),
            }
        }
    }
}
