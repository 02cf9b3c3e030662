//! Who may use a volume: the lease, its durable record, and what attaching and detaching make of it. Pure.
//!
//! ```text
//!              publish(node)                      publish(node), same way
//!   (none) -------------------> held, generation n -----------------------> held, generation n
//!     ^                           |    ^
//!     |         unpublish(node)   |    | publish(another node), if all access modes allow it: generation n+
//!     +------- generation n+ -----+    +---------------------------------------------------------
//! ```
//! Each change takes a new generation, which no earlier lease of the volume ever had, not even one whose record was
//! lost: it is never below the clock. A node stages only with the generation that is on record for it.

use moorline_driver_sdk::{DriverError, request::AccessMode};
use serde::{Deserialize, Serialize};

use crate::record::{
    RecordError,
    envelope::{self, Kind},
};

/// The key in the publish context that carries the generation to the node.
pub(crate) const CONTEXT_KEY: &str = "moorline.dev/lease";

pub(crate) const KIND: Kind = Kind {
    noun: "lease",
    magic: "moorline-lease",
    version: 1,
};

/// The lease of one volume.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Lease {
    pub(crate) volume_id: String,
    /// Of the last change; never goes back.
    pub(crate) generation: u64,
    /// Who has it; several only with access modes for several nodes.
    pub(crate) holders: Vec<Holder>,
}

/// One node that may use the volume.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Holder {
    pub(crate) node_id: String,
    /// The lease's when it was granted.
    pub(crate) generation: u64,
    pub(crate) is_read_only: bool,
    #[serde(with = "mode")]
    pub(crate) access_mode: AccessMode,
}

impl Lease {
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        KIND.seal(self)
    }

    /// The lease with this id.
    pub(crate) fn read_of(volume_id: &str, bytes: &[u8]) -> Result<Self, RecordError> {
        let (_, body) = KIND.open(bytes)?;
        let lease: Lease = envelope::read(body)?;
        if lease.volume_id == volume_id {
            return Ok(lease);
        }
        Err(RecordError::OtherOwner {
            found: lease.volume_id,
            expected: volume_id.to_owned(),
        })
    }

    fn holder(&self, node_id: &str) -> Option<&Holder> {
        self.holders.iter().find(|holder| holder.node_id == node_id)
    }

    /// A state that no change leads to; what is wrong with it.
    fn flaw(&self) -> Option<&'static str> {
        let nodes = |index: usize| &self.holders[index].node_id;
        let count = self.holders.len();
        if (0..count).any(|one| (0..one).any(|other| nodes(one) == nodes(other))) {
            return Some("one node holds it twice");
        }
        let is_single = |holder: &Holder| !holder.access_mode.is_multi_node();
        if count > 1 && self.holders.iter().any(is_single) {
            return Some("several nodes hold it, one of them for itself");
        }
        if self
            .holders
            .iter()
            .any(|holder| holder.generation > self.generation)
        {
            return Some("a holder is ahead of its generation");
        }
        None
    }
}

/// What a node wants of a volume.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wish<'a> {
    pub(crate) node_id: &'a str,
    pub(crate) is_read_only: bool,
    pub(crate) access_mode: AccessMode,
}

/// How many volumes the node has, and may have.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NodeLoad {
    pub(crate) held: u64,
    pub(crate) max: Option<u64>,
}

/// What comes next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// It is so already; with this generation.
    Keep(u64),
    /// Write this lease. The generation is the new holder's, if there is one.
    Write(Lease),
    Refuse(Refusal),
}

/// Why not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// This node has it, but not in this way.
    OtherWay,
    /// Another node has it.
    Elsewhere(String),
    /// The node has as many volumes as it may have.
    NodeFull { max: u64 },
    /// A bug, or somebody wrote to the record.
    Impossible(&'static str),
}

/// May the node have the volume? `now` is a generation that is not below the clock.
pub(crate) fn publish(
    volume_id: &str,
    lease: Option<&Lease>,
    wish: Wish<'_>,
    load: NodeLoad,
    now: u64,
) -> Next {
    if let Some(flaw) = lease.and_then(Lease::flaw) {
        return Next::Refuse(Refusal::Impossible(flaw));
    }
    let holders = lease.map_or(&[][..], |lease| &lease.holders);
    match lease.and_then(|lease| lease.holder(wish.node_id)) {
        // The answer to an earlier call was lost.
        Some(holder)
            if holder.is_read_only == wish.is_read_only && holder.access_mode == wish.access_mode =>
        {
            return Next::Keep(holder.generation);
        }
        Some(_) => return Next::Refuse(Refusal::OtherWay),
        None => {}
    }
    if let Some(other) = holders.iter().find(|other| !go_together(wish, other)) {
        return Next::Refuse(Refusal::Elsewhere(other.node_id.clone()));
    }
    if let Some(max) = load.max.filter(|max| load.held >= *max) {
        return Next::Refuse(Refusal::NodeFull { max });
    }
    let generation = next_generation(lease, now);
    let holder = Holder {
        node_id: wish.node_id.to_owned(),
        generation,
        is_read_only: wish.is_read_only,
        access_mode: wish.access_mode,
    };
    Next::Write(Lease {
        volume_id: volume_id.to_owned(),
        generation,
        holders: holders.iter().cloned().chain([holder]).collect(),
    })
}

/// Nothing to take away is fine: `None`. Without a node all of them.
pub(crate) fn unpublish(lease: Option<&Lease>, node_id: Option<&str>, now: u64) -> Option<Lease> {
    let lease = lease?;
    let is_meant = |holder: &Holder| node_id.is_none_or(|node_id| holder.node_id == node_id);
    if !lease.holders.iter().any(is_meant) {
        return None;
    }
    Some(Lease {
        volume_id: lease.volume_id.clone(),
        generation: next_generation(Some(lease), now),
        holders: lease
            .holders
            .iter()
            .filter(|holder| !is_meant(holder))
            .cloned()
            .collect(),
    })
}

fn next_generation(lease: Option<&Lease>, now: u64) -> u64 {
    lease.map_or(now, |lease| now.max(lease.generation.saturating_add(1)))
}

/// Can the two have the volume at once, on two nodes?
fn go_together(wish: Wish<'_>, other: &Holder) -> bool {
    if wish.access_mode != other.access_mode {
        return false;
    }
    match wish.access_mode {
        AccessMode::MultiNodeReaderOnly | AccessMode::MultiNodeMultiWriter => true,
        AccessMode::MultiNodeSingleWriter => wish.is_read_only || other.is_read_only,
        AccessMode::SingleNodeWriter
        | AccessMode::SingleNodeReaderOnly
        | AccessMode::SingleNodeSingleWriter
        | AccessMode::SingleNodeMultiWriter => false,
    }
}

/// What a node may do with the volume, by the lease on record and the generation it was told.
///
/// # Errors
/// Failed precondition: the lease is another node's by now, or another one of this node's.
pub(crate) fn check_held(
    lease: Option<&Lease>,
    node_id: &str,
    told: Option<&str>,
) -> Result<Holder, DriverError> {
    let refuse = |what: String| Err(DriverError::precondition(what));
    let Some(told) = told else {
        return refuse(format!(
            "publish_context has no {CONTEXT_KEY}: publish the volume to the node first"
        ));
    };
    let Some(lease) = lease else {
        return refuse("no node has a lease of the volume: publish it to the node first".to_owned());
    };
    let Some(holder) = lease.holder(node_id) else {
        return refuse(match lease.holders.first() {
            Some(other) => format!("the volume is leased to node {}, not to {node_id}", other.node_id),
            None => format!("the lease of node {node_id} has ended: publish the volume to it again"),
        });
    };
    if told.parse() != Ok(holder.generation) {
        return refuse(format!(
            "lease {told} of the volume has been replaced by {}: publish it to the node again",
            holder.generation
        ));
    }
    Ok(holder.clone())
}

/// Access modes by the names that CSI gives them.
mod mode {
    use moorline_driver_sdk::request::AccessMode;
    use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};

    const NAMES: [(AccessMode, &str); 7] = [
        (AccessMode::SingleNodeWriter, "SINGLE_NODE_WRITER"),
        (AccessMode::SingleNodeReaderOnly, "SINGLE_NODE_READER_ONLY"),
        (AccessMode::MultiNodeReaderOnly, "MULTI_NODE_READER_ONLY"),
        (AccessMode::MultiNodeSingleWriter, "MULTI_NODE_SINGLE_WRITER"),
        (AccessMode::MultiNodeMultiWriter, "MULTI_NODE_MULTI_WRITER"),
        (AccessMode::SingleNodeSingleWriter, "SINGLE_NODE_SINGLE_WRITER"),
        (AccessMode::SingleNodeMultiWriter, "SINGLE_NODE_MULTI_WRITER"),
    ];

    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
    pub(super) fn serialize<S: Serializer>(mode: &AccessMode, serializer: S) -> Result<S::Ok, S::Error> {
        let name = NAMES
            .iter()
            .find(|(known, _)| known == mode)
            .map(|(_, name)| *name);
        serializer.serialize_str(name.expect("all access modes have a name"))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<AccessMode, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        let known = NAMES.iter().find(|(_, name)| *name == text);
        known
            .map(|(mode, _)| *mode)
            .ok_or_else(|| D::Error::custom(format!("{text} is no access mode")))
    }
}

#[cfg(test)]
mod tests;
