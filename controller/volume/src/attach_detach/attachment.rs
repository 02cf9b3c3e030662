//! What to do next about one volume on one node.
//!
//! ```text
//!            wanted, free elsewhere          attacher               node status
//!   (none) -------------------------> Attaching ------> Attached ------------------> reported
//!     ^                                   |  ^             |                            |
//!     |                                   v  |             | unwanted, not in use       |
//!     |                                 Failed             v                            v
//!     +------- attacher ------- Detaching <------ deleted, once not reported <----- withdrawn
//! ```
//!
//! Two promises keep data safe. The node's status loses the volume before detaching starts, and the node says that it
//! uses a volume before it mounts it; so after withdrawing, one fresh look at the node shows whether it may still
//! mount. And a volume for one node only isn't attached to a second one while it may be attached to a first.

use std::time::Duration;

use k8s_openapi::api::core::v1::Node;
use k8s_openapi::api::storage::v1::VolumeAttachment;
use moorline_model::mutant;

use super::node_report;

/// How far the attachment of the volume to the node has come, by its VolumeAttachment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attachment {
    /// There is none.
    None,
    /// Asked for, not answered.
    Attaching,
    /// Asked for, the last try failed; it may be attached or not. The attacher tries again.
    Failed,
    /// Attached.
    Attached,
    /// Being taken back.
    Detaching,
}

impl Attachment {
    /// How far an attachment has come.
    pub fn of(attachment: Option<&VolumeAttachment>) -> Self {
        let Some(attachment) = attachment else {
            return Self::None;
        };
        if attachment.metadata.deletion_timestamp.is_some() {
            return Self::Detaching;
        }
        match &attachment.status {
            Some(status) if status.attached => Self::Attached,
            Some(status) if status.attach_error.is_some() => Self::Failed,
            Some(_) | None => Self::Attaching,
        }
    }
}

/// Whose business the node's attachments are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Charge {
    /// This controller's.
    Ours,
    /// The kubelet's, which attaches by itself.
    Kubelets,
    /// The Node object is gone: nothing new is attached, what is attached stays as long as pods want it.
    Nobodys,
}

/// What the node says about the volume and about itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NodeSeen {
    /// Who attaches volumes to it.
    pub charge: Charge,
    /// `status.volumesAttached` has it.
    pub is_reported: bool,
    /// `status.volumesInUse` has it.
    pub is_in_use: bool,
    /// The node exists and is Ready.
    pub is_healthy: bool,
    /// An admin has declared the node dead.
    pub is_out_of_service: bool,
}

impl NodeSeen {
    /// What a node says about the volume that `is_volume` recognises in its lists; `None`: the node is gone.
    pub fn of(node: Option<&Node>, is_volume: impl Fn(&str) -> bool) -> Self {
        let Some(node) = node else {
            return Self {
                charge: Charge::Nobodys,
                is_reported: false,
                is_in_use: false,
                is_healthy: false,
                is_out_of_service: false,
            };
        };
        Self {
            charge: if node_report::is_managed(node) {
                Charge::Ours
            } else {
                Charge::Kubelets
            },
            is_reported: node_report::reported_names(node).any(&is_volume),
            is_in_use: node_report::in_use_names(node).any(&is_volume),
            is_healthy: node_report::is_ready(node),
            is_out_of_service: node_report::is_out_of_service(node),
        }
    }
}

/// Everything a decision about a volume on a node rests on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// A pod on the node wants the volume, and its driver needs attaching.
    pub is_wanted: bool,
    /// How long nobody has wanted it.
    pub unwanted_for: Duration,
    /// How far it is attached.
    pub attachment: Attachment,
    /// Other nodes that keep the volume from being attached here.
    pub blocking_nodes: Vec<String>,
    /// The node.
    pub node: NodeSeen,
}

/// Why a volume isn't asked about at its node before it is detached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forced {
    /// The node has been unhealthy for too long.
    Timeout,
    /// The node was declared dead.
    OutOfService,
}

/// What to do next about a volume on a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    /// Nothing until something changes.
    Settled,
    /// Ask for the attachment.
    Create,
    /// The attacher hasn't answered yet.
    AwaitAttacher,
    /// These nodes have to let go of the volume first.
    AwaitOtherNodes(Vec<String>),
    /// The node's status has to be brought up to date first.
    Report,
    /// The node still uses the volume and may be dead: looked at again after this time.
    AwaitNode(Duration),
    /// Take the attachment back. Without `forced`, only after a fresh look at the node.
    Delete {
        /// Why the node isn't asked.
        forced: Option<Forced>,
    },
}

/// What to do next about one volume on one node. Pure. `force_after`: how long a dead node's word counts; `None` for
/// ever.
pub fn decide(seen: &Seen, force_after: Option<Duration>) -> Next {
    if seen.node.charge == Charge::Kubelets {
        return Next::Settled;
    }
    if seen.node.is_reported != belongs_in_report(seen, force_after) {
        return Next::Report;
    }
    match (seen.is_wanted, seen.attachment) {
        (true, Attachment::None) if seen.node.charge == Charge::Nobodys => Next::Settled,
        (true, Attachment::None) if seen.blocking_nodes.is_empty() || mutant::is_on("attach-anywhere") => {
            Next::Create
        }
        (true, Attachment::None) => Next::AwaitOtherNodes(seen.blocking_nodes.clone()),
        (true, Attachment::Attaching) => Next::AwaitAttacher,
        (true, Attachment::Failed | Attachment::Attached) => Next::Settled,
        // It is attached anew once the old attachment is gone.
        (true | false, Attachment::Detaching) => Next::Settled,
        (false, Attachment::None) => Next::Settled,
        (false, Attachment::Attaching | Attachment::Failed | Attachment::Attached) => {
            detach(seen, force_after)
        }
    }
}

fn detach(seen: &Seen, force_after: Option<Duration>) -> Next {
    match (seen.node.is_in_use, forced(seen, force_after)) {
        (false, None) => Next::Delete { forced: None },
        (true | false, Some(reason)) => Next::Delete { forced: Some(reason) },
        (true, None) => match force_after {
            Some(limit) if !seen.node.is_healthy => Next::AwaitNode(limit.saturating_sub(seen.unwanted_for)),
            Some(_) | None => Next::Settled,
        },
    }
}

/// Whether the node's status shall list the volume: it is attached, and nobody is about to change that.
pub fn belongs_in_report(seen: &Seen, force_after: Option<Duration>) -> bool {
    if seen.node.charge != Charge::Ours {
        // There is no status that could say so.
        return false;
    }
    match (seen.attachment, seen.is_wanted) {
        (Attachment::Attached, true) => true,
        (Attachment::Attached, false) => seen.node.is_in_use && forced(seen, force_after).is_none(),
        (Attachment::None | Attachment::Attaching | Attachment::Failed | Attachment::Detaching, _) => false,
    }
}

fn forced(seen: &Seen, force_after: Option<Duration>) -> Option<Forced> {
    let is_timed_out = !seen.node.is_healthy && force_after.is_some_and(|limit| seen.unwanted_for >= limit);
    match (seen.node.is_out_of_service, is_timed_out && seen.node.is_in_use) {
        (true, _) => Some(Forced::OutOfService),
        (false, true) => Some(Forced::Timeout),
        (false, false) => None,
    }
}

/// Which of the volume's attachments keep it from being attached to another node.
///
/// Failed ones don't: the pod there may never start, and the driver refuses a second attachment if the first is real.
pub fn blocks_others(attachment: Attachment) -> bool {
    match attachment {
        Attachment::Attaching | Attachment::Attached | Attachment::Detaching => true,
        Attachment::None | Attachment::Failed => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Option<Duration> = Some(Duration::from_secs(360));
    const HEALTHY: NodeSeen = NodeSeen {
        charge: Charge::Ours,
        is_reported: false,
        is_in_use: false,
        is_healthy: true,
        is_out_of_service: false,
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

    #[test]
    fn nodes_as_they_are_read() {
        let gone = NodeSeen::of(None, |_| true);
        assert_eq!(
            (gone.charge, gone.is_in_use, gone.is_healthy),
            (Charge::Nobodys, false, false)
        );
        let node = |annotations: serde_json::Value| -> NodeSeen {
            let node = serde_json::json!({
                "metadata": {"name": "n1", "annotations": annotations},
                "status": {"volumesInUse": ["a"], "volumesAttached": [{"name": "b", "devicePath": ""}],
                    "conditions": [{"type": "Ready", "status": "True"}]},
            });
            NodeSeen::of(Some(&serde_json::from_value(node).unwrap()), |name| name == "a")
        };
        let kubelets = node(serde_json::json!({}));
        let expected = NodeSeen {
            charge: Charge::Kubelets,
            is_reported: false,
            is_in_use: true,
            is_healthy: true,
            is_out_of_service: false,
        };
        assert_eq!(kubelets, expected);
        let managed =
            node(serde_json::json!({"volumes.kubernetes.io/controller-managed-attach-detach": "true"}));
        assert_eq!(managed.charge, Charge::Ours);
    }

    fn check(name: &str, seen: &Seen, expected: Next) {
        assert_eq!(decide(seen, LIMIT), expected, "{name}");
    }

    #[test]
    fn wanted() {
        use Attachment::*;
        let reported = NodeSeen {
            is_reported: true,
            ..HEALTHY
        };
        check("none yet", &seen(true, None, HEALTHY), Next::Create);
        let mut blocked = seen(true, None, HEALTHY);
        blocked.blocking_nodes = vec!["n2".to_string()];
        check(
            "none, elsewhere",
            &blocked,
            Next::AwaitOtherNodes(vec!["n2".to_string()]),
        );
        check("asked", &seen(true, Attaching, HEALTHY), Next::AwaitAttacher);
        check("failed", &seen(true, Failed, HEALTHY), Next::Settled);
        check("attached", &seen(true, Attached, HEALTHY), Next::Report);
        check(
            "attached, reported",
            &seen(true, Attached, reported),
            Next::Settled,
        );
        check("detaching", &seen(true, Detaching, HEALTHY), Next::Settled);
        for attachment in [None, Attaching, Failed, Detaching] {
            check(
                "reported without being attached",
                &seen(true, attachment, reported),
                Next::Report,
            );
        }
    }

    #[test]
    fn unwanted() {
        use Attachment::*;
        let reported = NodeSeen {
            is_reported: true,
            ..HEALTHY
        };
        let in_use = NodeSeen {
            is_in_use: true,
            ..HEALTHY
        };
        let in_use_reported = NodeSeen {
            is_reported: true,
            ..in_use
        };
        let delete = Next::Delete { forced: Option::None };
        check("none", &seen(false, None, HEALTHY), Next::Settled);
        check("none, reported", &seen(false, None, reported), Next::Report);
        check("withdraw first", &seen(false, Attached, reported), Next::Report);
        check("withdrawn", &seen(false, Attached, HEALTHY), delete.clone());
        check("asked", &seen(false, Attaching, HEALTHY), delete.clone());
        check("failed", &seen(false, Failed, HEALTHY), delete);
        check(
            "in use stays reported",
            &seen(false, Attached, in_use),
            Next::Report,
        );
        check("in use", &seen(false, Attached, in_use_reported), Next::Settled);
        check(
            "in use though failed",
            &seen(false, Failed, in_use),
            Next::Settled,
        );
        check("detaching", &seen(false, Detaching, HEALTHY), Next::Settled);
        check(
            "detaching, reported",
            &seen(false, Detaching, reported),
            Next::Report,
        );
    }

    #[test]
    fn nodes_of_others() {
        use Attachment::*;
        let all = [None, Attaching, Failed, Attached, Detaching];
        let kubelets = NodeSeen {
            charge: Charge::Kubelets,
            is_reported: true,
            ..HEALTHY
        };
        for attachment in all {
            for is_wanted in [true, false] {
                check(
                    "the kubelet attaches",
                    &seen(is_wanted, attachment, kubelets),
                    Next::Settled,
                );
            }
        }
        let gone = NodeSeen {
            charge: Charge::Nobodys,
            is_healthy: false,
            ..HEALTHY
        };
        for attachment in [None, Failed, Attached, Detaching] {
            check("gone, wanted", &seen(true, attachment, gone), Next::Settled);
        }
        check(
            "gone, unwanted",
            &seen(false, Attached, gone),
            Next::Delete { forced: Option::None },
        );
    }

    #[test]
    fn dead_nodes() {
        use Attachment::Attached;
        let dead = NodeSeen {
            is_in_use: true,
            is_reported: true,
            is_healthy: false,
            ..HEALTHY
        };
        let late = Duration::from_secs(361);
        let timeout = Next::Delete {
            forced: Some(Forced::Timeout),
        };
        let declared = Next::Delete {
            forced: Some(Forced::OutOfService),
        };
        let after = |unwanted_for, node| Seen {
            unwanted_for,
            ..seen(false, Attached, node)
        };
        let withdrawn = |node: NodeSeen| NodeSeen {
            is_reported: false,
            ..node
        };
        check(
            "dead a while",
            &after(Duration::from_secs(100), dead),
            Next::AwaitNode(Duration::from_secs(260)),
        );
        check("dead too long, withdraw first", &after(late, dead), Next::Report);
        check("dead too long", &after(late, withdrawn(dead)), timeout);
        assert_eq!(decide(&after(late, dead), None), Next::Settled, "never forced");
        let alive = NodeSeen {
            is_healthy: true,
            ..dead
        };
        check("alive as long as it likes", &after(late, alive), Next::Settled);
        let free = NodeSeen {
            is_in_use: false,
            ..withdrawn(dead)
        };
        check(
            "dead, but not in use",
            &after(late, free),
            Next::Delete { forced: None },
        );
        let gone = NodeSeen {
            is_out_of_service: true,
            ..dead
        };
        check(
            "declared dead, withdraw first",
            &after(Duration::ZERO, gone),
            Next::Report,
        );
        check("declared dead", &after(Duration::ZERO, withdrawn(gone)), declared);
    }
}
