//! Why a sidecar gets no further with an object, for people who ask: its decider is called with what can be read of the
//! cluster, and its refusal is the answer.
//!
//! What the driver can do is only known on its socket, so it is taken to be able to do everything; what it refuses in
//! fact is in the events and statuses that the sidecars write.

use std::collections::BTreeSet;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::api::storage::v1::{CSINode, StorageClass, VolumeAttachment, VolumeAttributesClass};
use moorline_model::snapshot::{VolumeSnapshot, VolumeSnapshotClass, VolumeSnapshotContent};
use moorline_model::{Actor, Explanation, claim};
use tonic::{Code, Status};

use crate::discovery::{ControllerCapability, DriverFacts, PluginService};
use crate::provisioner::explain as provisioner;
use crate::rpc_class::{self, CreateFailure};
use crate::{attacher, resizer, snapshotter};

/// A claim that its provisioner was asked to serve, with what its decision rests on.
#[derive(Clone, Copy, Debug, Default)]
pub struct Provisioning<'a> {
    /// The claim.
    pub claim: Option<&'a PersistentVolumeClaim>,
    /// Its class.
    pub class: Option<&'a StorageClass>,
    /// The VolumeAttributesClass that it names.
    pub attributes_class: Option<&'a VolumeAttributesClass>,
    /// The claim that it is cloned from.
    pub source_claim: Option<&'a PersistentVolumeClaim>,
    /// The volume of that claim.
    pub source_pv: Option<&'a PersistentVolume>,
    /// The snapshot that it is restored from.
    pub snapshot: Option<&'a VolumeSnapshot>,
    /// The content of that snapshot.
    pub content: Option<&'a VolumeSnapshotContent>,
}

/// Why the provisioner doesn't ask the driver for the volume. `None`: it asks.
pub fn provisioning(seen: &Provisioning<'_>) -> Option<Explanation> {
    let claim = seen.claim?;
    let driver = able(claim::storage_provisioner(claim)?);
    provisioner::claim_refusal(seen, &driver)
}

/// Why the provisioner doesn't delete the volume of a released PV. `None`: it does, or it is not its business.
pub fn deletion(
    pv: &PersistentVolume,
    class: Option<&StorageClass>,
    is_attached: bool,
) -> Option<Explanation> {
    let driver = able(&csi_driver(pv)?);
    provisioner::volume_refusal(pv, class, is_attached, &driver)
}

/// Why the attacher doesn't ask the driver for an attachment. `None`: it asks, or there is nothing to do.
pub fn attaching(
    attachment: &VolumeAttachment,
    pv: Option<&PersistentVolume>,
    csi_node: Option<&CSINode>,
) -> Option<Explanation> {
    attacher::refusal(attachment, pv, csi_node, &able(&attachment.spec.attacher))
}

/// Why the claim's volume hasn't its size yet. `None`: the resizer has nothing to do.
pub fn resizing(
    claim: &PersistentVolumeClaim,
    pv: Option<&PersistentVolume>,
    now: Timestamp,
) -> Option<Explanation> {
    let driver_name = pv.and_then(csi_driver).unwrap_or_default();
    resizer::refusal(claim, pv, &able(&driver_name), now)
}

/// Why the snapshotter doesn't ask the driver for a snapshot. `None`: it asks, or there is nothing to do.
pub fn snapshotting(
    content: &VolumeSnapshotContent,
    class: Option<&VolumeSnapshotClass>,
) -> Option<Explanation> {
    snapshotter::refusal(content, class, &able(&content.spec.driver))
}

/// What a provisioner's event says about a failed `CreateVolume`, by the class of its status code.
pub fn create_failed(told: &str) -> Explanation {
    let failure = told_code(told).map(|code| {
        // The text after the code isn't needed to classify it.
        rpc_class::create_volume(&Status::new(code, ""))
    });
    let (actor, advice) = match failure {
        Some(CreateFailure::Exhausted) => (
            Actor::Admin,
            "free or add space in the driver's pool, or make the claim anew with a smaller request",
        ),
        Some(CreateFailure::Infeasible) => (
            Actor::User,
            "make the claim anew with what the driver can do, or correct the class's parameters",
        ),
        Some(CreateFailure::Uncertain) => (
            Actor::Provisioner,
            "the driver gave no final answer and is asked again; see what it logs",
        ),
        Some(CreateFailure::Final) | None => (
            Actor::Admin,
            "remove the cause that the driver names; it is asked again by itself",
        ),
    };
    Explanation::new("ProvisioningFailed", told, actor, advice)
}

/// What a part says that its driver answered to any other call: a lost answer is that part's business, which asks again;
/// everything else needs somebody who looks after the driver.
pub fn failed(reason: &'static str, told: String, part: Actor) -> Explanation {
    let code = told_code(&told);
    let is_uncertain = code.is_some_and(|code| {
        let status = Status::new(code, "");
        rpc_class::create_volume(&status) == CreateFailure::Uncertain
    });
    if is_uncertain {
        let advice = "the driver gave no final answer and is asked again; see what it logs";
        Explanation::new(reason, told, part, advice)
    } else {
        let advice = "remove the cause that the driver names; it is asked again by itself";
        Explanation::new(reason, told, Actor::Admin, advice)
    }
}

/// The status code in a message.
fn told_code(told: &str) -> Option<Code> {
    let (_, rest) = told.split_once("code = ")?;
    code_named(rest.split_whitespace().next()?)
}

fn code_named(name: &str) -> Option<Code> {
    (0..=16)
        .map(Code::from_i32)
        .find(|code| rpc_class::code_name(*code) == name)
}

fn csi_driver(pv: &PersistentVolume) -> Option<String> {
    let csi = pv.spec.as_ref().and_then(|spec| spec.csi.as_ref());
    csi.map(|csi| csi.driver.clone())
}

/// A driver that can do everything, but has no topology: what of it counts is decided with the node's labels, which the
/// scheduler has compared.
fn able(driver_name: &str) -> DriverFacts {
    DriverFacts {
        driver_name: driver_name.to_string(),
        services: BTreeSet::from([PluginService::ControllerService as i32]),
        controller: (1..=15)
            .filter(|number| ControllerCapability::try_from(*number).is_ok())
            .collect(),
        node_expands: true,
        takes_groups: true,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::testing::{self, object};

    /// Name, patch of the claim, class, what the message says and whose move it is.
    type Case<'a> = (&'a str, Value, Option<&'a StorageClass>, Option<(&'a str, Actor)>);

    #[test]
    #[expect(clippy::too_many_lines, reason = "one flat table")]
    fn refusals_of_the_provisioner() {
        let good = testing::class(json!({}));
        let foreign = testing::class(json!({"provisioner": "other.example"}));
        let wrong = testing::class(json!({"parameters": {"csi.storage.k8s.io/colour": "red"}}));
        let clone = json!({"spec": {"dataSource": {"kind": "PersistentVolumeClaim", "name": "origin"}}});
        let from = |kind: &str, group: &str| json!({"spec": {"dataSourceRef": {"apiGroup": group, "kind": kind, "name": "x"}}});
        let cases: Vec<Case<'_>> = vec![
            ("asks", json!({}), Some(&good), None),
            (
                "no class",
                json!({}),
                None,
                Some(("\"fast\" not found", Actor::Admin)),
            ),
            (
                "foreign class",
                json!({}),
                Some(&foreign),
                Some(("for provisioner", Actor::Admin)),
            ),
            (
                "selector",
                json!({"spec": {"selector": {"matchLabels": {"a": "b"}}}}),
                Some(&good),
                Some(("selectors are not supported", Actor::User)),
            ),
            (
                "missing source",
                clone,
                Some(&good),
                Some(("\"origin\" can't be cloned", Actor::User)),
            ),
            (
                "missing snapshot",
                from("VolumeSnapshot", "snapshot.storage.k8s.io"),
                Some(&good),
                Some(("snapshot \"x\" can't be restored", Actor::User)),
            ),
            (
                "a populator's source",
                from("Recipe", "example.com"),
                Some(&good),
                Some(("a populator has to fill it", Actor::Admin)),
            ),
            (
                "missing attributes class",
                json!({"spec": {"volumeAttributesClassName": "gold"}}),
                Some(&good),
                Some(("\"gold\" not found", Actor::Admin)),
            ),
            (
                "a class that can't be read",
                json!({}),
                Some(&wrong),
                Some(("csi.storage.k8s.io/colour", Actor::Admin)),
            ),
        ];
        for (name, patch, class, expected) in cases {
            let claim = testing::claim(patch);
            let seen = Provisioning {
                claim: Some(&claim),
                class,
                ..Default::default()
            };
            let found = provisioning(&seen);
            match (&found, expected) {
                (None, None) => {}
                (Some(found), Some((text, actor))) => {
                    assert!(
                        found.message.contains(text) && found.actor == actor,
                        "{name}: {found:?}"
                    );
                    assert!(!found.advice.is_empty(), "{name}");
                }
                _ => panic!("{name}: {found:?}"),
            }
        }
    }

    #[test]
    fn a_told_failure_is_classified_by_its_code() {
        let cases = [
            (
                "failed: rpc error: code = ResourceExhausted desc = pool is full",
                Actor::Admin,
            ),
            ("failed: rpc error: code = InvalidArgument desc = no", Actor::User),
            (
                "failed: rpc error: code = Unavailable desc = gone",
                Actor::Provisioner,
            ),
            ("failed: rpc error: code = Internal desc = x", Actor::Admin),
            ("something else", Actor::Admin),
        ];
        for (told, actor) in cases {
            let found = create_failed(told);
            assert_eq!((found.actor, found.message.as_str()), (actor, told));
        }
    }

    #[test]
    fn a_lost_answer_is_asked_for_again_and_a_refusal_needs_somebody() {
        let cases = [
            ("rpc error: code = DeadlineExceeded desc = x", Actor::Attacher),
            ("rpc error: code = Unavailable desc = x", Actor::Attacher),
            ("rpc error: code = FailedPrecondition desc = x", Actor::Admin),
            ("code = Nonsense", Actor::Admin),
            ("no code at all", Actor::Admin),
        ];
        for (told, actor) in cases {
            let found = failed("FailedAttachVolume", told.to_string(), Actor::Attacher);
            assert_eq!((found.actor, found.message.as_str()), (actor, told));
            assert_eq!(found.reason, "FailedAttachVolume");
        }
    }

    #[test]
    fn an_attributes_class_of_another_driver_is_the_users_choice() {
        let class = testing::class(json!({}));
        let gold: VolumeAttributesClass =
            object(json!({"metadata": {"name": "gold"}, "driverName": "other.example"}));
        let claim = testing::claim(json!({"spec": {"volumeAttributesClassName": "gold"}}));
        let found = provisioning(&Provisioning {
            claim: Some(&claim),
            class: Some(&class),
            attributes_class: Some(&gold),
            ..Default::default()
        })
        .unwrap();
        assert_eq!(found.actor, Actor::User, "{found:?}");
        assert_eq!(found.reason, "ProvisioningFailed");
    }

    #[test]
    fn refusals_of_the_attacher() {
        let node: CSINode = object(json!({"metadata": {"name": "n1"}, "spec": {"drivers": [
            {"name": testing::DRIVER, "nodeID": "x"}, {"name": "other.example", "nodeID": "y"}]}}));
        let of = |source: Value| -> VolumeAttachment {
            object(
                json!({"metadata": {"name": "a"}, "spec": {"attacher": testing::DRIVER, "nodeName": "n1",
                "source": source}}),
            )
        };
        let named = of(json!({"persistentVolumeName": "pvc-u1"}));
        let foreign = testing::pv(json!({"spec": {"csi": {"driver": "other.example"}}}));
        let deleting = testing::pv(json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}}));
        let strange = testing::pv(json!({"spec": {"accessModes": ["ReadWriteSometimes"]}}));
        for (name, attachment, pv, text, actor) in [
            (
                "no volume",
                &of(json!({})),
                None,
                "names no persistent volume",
                Actor::Admin,
            ),
            (
                "deleting",
                &named,
                Some(&deleting),
                "marked for deletion",
                Actor::User,
            ),
            (
                "foreign",
                &named,
                Some(&foreign),
                "not a volume of this driver",
                Actor::Admin,
            ),
            (
                "strange modes",
                &named,
                Some(&strange),
                "access mode",
                Actor::Admin,
            ),
        ] {
            let found = attaching(attachment, pv, Some(&node)).unwrap_or_else(|| panic!("{name}"));
            assert!(found.message.contains(text), "{name}: {found:?}");
            assert_eq!(found.actor, actor, "{name}: {found:?}");
        }
    }

    #[test]
    fn refusals_of_the_resizer_and_its_turn() {
        let now = Timestamp::UNIX_EPOCH;
        let grows = |patch: Value| {
            let more = json!({"spec": {"volumeName": "pvc-u1", "resources": {"requests": {"storage": "2Gi"}}},
                "status": {"phase": "Bound", "capacity": {"storage": "1Gi"}}});
            testing::claim(testing::merged(more, patch))
        };
        let pv = testing::pv(json!({}));
        let due = resizing(&grows(json!({})), Some(&pv), now).unwrap();
        assert_eq!((due.reason, due.actor), ("Resizing", Actor::Resizer));
        assert!(due.message.ends_with("grow the volume to 2Gi"), "{due:?}");
        let under_way = json!({"status": {"allocatedResources": {"storage": "2Gi"},
            "allocatedResourceStatuses": {"storage": "ControllerResizeInProgress"},
            "conditions": [{"type": "Resizing", "status": "True"}]}});
        assert_eq!(
            resizing(&grows(under_way), Some(&pv), now).unwrap().reason,
            "Resizing"
        );
        let unreadable = testing::pv(json!({"spec": {"capacity": {"storage": "much"}}}));
        let found = resizing(&grows(json!({})), Some(&unreadable), now).unwrap();
        assert_eq!((found.reason, found.actor), ("VolumeResizeFailed", Actor::Admin));
        let same = grows(json!({"status": {"capacity": {"storage": "2Gi"}}}));
        assert_eq!(resizing(&same, Some(&pv), now), None);
    }

    #[test]
    fn refusals_of_deletion_and_of_the_snapshotter() {
        let half = testing::pv(
            json!({"status": {"phase": "Released"}, "metadata": {"annotations": {
            "volume.kubernetes.io/provisioner-deletion-secret-name": "s"}}}),
        );
        let found = deletion(&half, None, false).unwrap();
        assert_eq!((found.reason, found.actor), ("VolumeFailedDelete", Actor::Admin));
        let content = |class: Value| -> VolumeSnapshotContent {
            object(json!({"metadata": {"name": "c"}, "spec": {"driver": "d",
                "deletionPolicy": "Delete", "volumeSnapshotClassName": class, "source": {"volumeHandle": "h"},
                "volumeSnapshotRef": {"namespace": "ns", "name": "s", "uid": "u"}}}))
        };
        let class = |parameters: Value| -> VolumeSnapshotClass {
            object(
                json!({"metadata": {"name": "quick"}, "driver": "d", "deletionPolicy": "Delete",
                "parameters": parameters}),
            )
        };
        let plain = class(json!({}));
        let odd = class(json!({"csi.storage.k8s.io/colour": "red"}));
        assert_eq!(snapshotting(&content(json!("quick")), Some(&plain)), None);
        let nameless = snapshotting(&content(Value::Null), None).unwrap();
        assert!(nameless.advice.contains("name a class"), "{nameless:?}");
        let odd = snapshotting(&content(json!("quick")), Some(&odd)).unwrap();
        assert!(odd.advice.contains("parameters"), "{odd:?}");
    }

    #[test]
    fn refusals_of_the_others() {
        let attachment: VolumeAttachment = object(json!({"metadata": {"name": "a"},
            "spec": {"attacher": "d", "nodeName": "n1", "source": {"persistentVolumeName": "pv1"}}}));
        let pv: PersistentVolume = object(json!({"metadata": {"name": "pv1"},
            "spec": {"accessModes": ["ReadWriteOnce"], "persistentVolumeReclaimPolicy": "Delete",
                "csi": {"driver": "d", "volumeHandle": "h"}}, "status": {"phase": "Released"}}));
        let node: CSINode =
            object(json!({"metadata": {"name": "n1"}, "spec": {"drivers": [{"name": "d", "nodeID": "x"}]}}));
        let missing = attaching(&attachment, None, Some(&node)).unwrap();
        assert!(missing.message.contains("\"pv1\" not found"), "{missing:?}");
        let unregistered = attaching(&attachment, Some(&pv), None).unwrap();
        assert!(
            unregistered.message.contains("does not contain driver"),
            "{unregistered:?}"
        );
        assert_eq!(attaching(&attachment, Some(&pv), Some(&node)), None);
        let attached = deletion(&pv, None, true).unwrap();
        assert!(attached.message.contains("still attached"), "{attached:?}");
        assert_eq!(deletion(&pv, None, false), None);
        let content: VolumeSnapshotContent =
            object(json!({"metadata": {"name": "c"}, "spec": {"driver": "d",
            "deletionPolicy": "Delete", "volumeSnapshotClassName": "quick", "source": {"volumeHandle": "h"},
            "volumeSnapshotRef": {"namespace": "ns", "name": "s", "uid": "u"}}}));
        let classless = snapshotting(&content, None).unwrap();
        assert!(classless.message.contains("\"quick\" not found"), "{classless:?}");
        let claim = testing::claim(json!({"spec": {"volumeName": "pv1"}, "status": {"phase": "Bound"}}));
        assert!(
            resizing(&claim, None, Timestamp::UNIX_EPOCH)
                .unwrap()
                .message
                .contains("not found")
        );
        assert_eq!(
            resizing(&claim, Some(&pv), Timestamp::UNIX_EPOCH),
            None,
            "bound to somebody else"
        );
    }
}
