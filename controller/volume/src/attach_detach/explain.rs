//! Why a volume isn't attached where it is wanted, or is where it isn't: [`attachment::decide`](super::attachment::decide)'s
//! answer, for people who ask.

use std::time::Duration;

use moorline_model::{Actor, Explanation};

use super::attachment::{Attachment, Charge, Next, Seen, decide};

/// Why the volume isn't attached where it is wanted, or is where it isn't. `None`: all is as it shall be.
pub fn explain(seen: &Seen, force_after: Option<Duration>) -> Option<Explanation> {
    let ours = |reason, message: &str| {
        let advice = "check that the attach/detach controller runs";
        Some(Explanation::new(reason, message, Actor::AttachDetach, advice))
    };
    match decide(seen, force_after) {
        Next::Create => ours("AttachmentMissing", "a VolumeAttachment has to be made"),
        Next::Report => ours(
            "NodeStatusBehind",
            "the node's status.volumesAttached has to be brought up to date",
        ),
        Next::Delete { .. } => ours(
            "DetachDue",
            "nobody wants the volume here: the VolumeAttachment has to be deleted",
        ),
        Next::AwaitAttacher => Some(Explanation::new(
            "AttacherSilent",
            "a VolumeAttachment asks for the volume, and no attacher has answered it",
            Actor::Attacher,
            "check that the driver's csi-attacher runs and what it logs",
        )),
        Next::AwaitOtherNodes(nodes) => Some(Explanation::new(
            "FailedAttachVolume",
            format!(
                "the volume is for one node at a time, and it is attached to {}",
                nodes.join(", ")
            ),
            Actor::User,
            "delete the pods there that use it; if that node is dead, taint it node.kubernetes.io/out-of-service",
        )),
        Next::AwaitNode(rest) => Some(Explanation::new(
            "NodeUnhealthy",
            format!(
                "nobody wants the volume here, but the node is not ready and last said that it uses it; detached by force \
                 after at most {} s",
                rest.as_secs()
            ),
            Actor::Admin,
            "repair the node, or taint it node.kubernetes.io/out-of-service if it is dead",
        )),
        Next::Settled => settled(seen),
    }
}

/// What others have to do where the controller has nothing to do.
fn settled(seen: &Seen) -> Option<Explanation> {
    let node_is_gone = seen.node.charge == Charge::Nobodys;
    match (seen.is_wanted, seen.attachment) {
        (true, Attachment::Failed) => Some(Explanation::new(
            "FailedAttachVolume",
            "the driver failed to attach the volume; the attacher tries again",
            Actor::Attacher,
            "see the error of the VolumeAttachment and what the driver logs",
        )),
        (_, Attachment::Detaching) => Some(Explanation::new(
            "Detaching",
            "the driver has to detach the volume",
            Actor::Attacher,
            "check that the driver's csi-attacher runs and what it logs",
        )),
        (true, Attachment::None) if node_is_gone => Some(Explanation::new(
            "NodeMissing",
            "the node doesn't exist",
            Actor::User,
            "delete the pod, so that it is made anew elsewhere",
        )),
        (false, Attachment::Attaching | Attachment::Failed | Attachment::Attached) if seen.node.is_in_use => {
            Some(Explanation::new(
                "VolumeInUse",
                "no pod wants the volume here, and the node has not unmounted it yet",
                Actor::Kubelet,
                "see what the node's kubelet logs about the volume",
            ))
        }
        (true | false, _) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attach_detach::attachment::NodeSeen;

    const HEALTHY: NodeSeen = NodeSeen {
        charge: Charge::Ours,
        is_reported: false,
        is_in_use: false,
        is_healthy: true,
        is_out_of_service: false,
    };
    const REPORTED: NodeSeen = NodeSeen {
        is_reported: true,
        ..HEALTHY
    };

    fn seen(is_wanted: bool, attachment: Attachment, node: NodeSeen) -> Seen {
        Seen {
            is_wanted,
            unwanted_for: Duration::ZERO,
            attachment,
            blocking_nodes: Vec::new(),
            node,
        }
    }

    /// Name, facts, the reason and whose move it is.
    type Case<'a> = (&'a str, Seen, Option<(&'a str, Actor)>);

    #[test]
    #[expect(clippy::too_many_lines, reason = "one flat table")]
    fn each_state_names_who_has_to_act() {
        use Attachment::*;
        let using = NodeSeen {
            is_in_use: true,
            ..REPORTED
        };
        let silent = NodeSeen {
            is_healthy: false,
            ..using
        };
        let gone = NodeSeen {
            charge: Charge::Nobodys,
            is_healthy: false,
            ..HEALTHY
        };
        let kubelets = NodeSeen {
            charge: Charge::Kubelets,
            ..REPORTED
        };
        let blocked = Seen {
            blocking_nodes: vec!["n2".to_string(), "n3".to_string()],
            ..seen(true, None, HEALTHY)
        };
        let controller = |reason| Some((reason, Actor::AttachDetach));
        let attacher = |reason| Some((reason, Actor::Attacher));
        let cases: Vec<Case<'_>> = vec![
            ("attached", seen(true, Attached, REPORTED), Option::None),
            ("nothing here", seen(false, None, HEALTHY), Option::None),
            (
                "the kubelet attaches",
                seen(true, Attached, kubelets),
                Option::None,
            ),
            (
                "to be made",
                seen(true, None, HEALTHY),
                controller("AttachmentMissing"),
            ),
            (
                "held elsewhere",
                blocked,
                Some(("FailedAttachVolume", Actor::User)),
            ),
            (
                "asked",
                seen(true, Attaching, HEALTHY),
                attacher("AttacherSilent"),
            ),
            (
                "failed",
                seen(true, Failed, HEALTHY),
                attacher("FailedAttachVolume"),
            ),
            (
                "status behind",
                seen(true, Attached, HEALTHY),
                controller("NodeStatusBehind"),
            ),
            ("going", seen(true, Detaching, HEALTHY), attacher("Detaching")),
            (
                "going for good",
                seen(false, Detaching, HEALTHY),
                attacher("Detaching"),
            ),
            (
                "no node",
                seen(true, None, gone),
                Some(("NodeMissing", Actor::User)),
            ),
            (
                "to be taken back",
                seen(false, Attached, HEALTHY),
                controller("DetachDue"),
            ),
            (
                "mounted there",
                seen(false, Attached, using),
                Some(("VolumeInUse", Actor::Kubelet)),
            ),
            (
                "perhaps dead",
                seen(false, Attached, silent),
                Some(("NodeUnhealthy", Actor::Admin)),
            ),
        ];
        for (name, seen, expected) in cases {
            let found = explain(&seen, Some(Duration::from_secs(360)));
            let brief = found.as_ref().map(|found| (found.reason, found.actor));
            assert_eq!(brief, expected, "{name}");
            assert!(found.is_none_or(|found| !found.message.is_empty() && !found.advice.is_empty()));
        }
    }

    #[test]
    fn the_nodes_that_hold_the_volume_and_the_patience_are_named() {
        let blocked = Seen {
            blocking_nodes: vec!["n2".to_string(), "n3".to_string()],
            ..seen(true, Attachment::None, HEALTHY)
        };
        let found = explain(&blocked, None).unwrap();
        assert!(found.message.ends_with("attached to n2, n3"), "{found:?}");
        let silent = NodeSeen {
            is_in_use: true,
            is_healthy: false,
            ..REPORTED
        };
        let found = explain(
            &seen(false, Attachment::Attached, silent),
            Some(Duration::from_secs(360)),
        )
        .unwrap();
        assert!(found.message.ends_with("at most 360 s"), "{found:?}");
        // Nobody takes it away by force.
        let found = explain(&seen(false, Attachment::Attached, silent), None).unwrap();
        assert_eq!(found.actor, Actor::Kubelet, "{found:?}");
    }
}
