//! What users do and what goes wrong, when: made from the seed, as lists that can be shortened.

mod faults;
mod lives;

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};

use crate::net::ProcId;

/// Of which class a claim is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Provisioned at once, deleted with its claim.
    Now,
    /// Provisioned at once, kept when its claim goes.
    Keep,
    /// Provisioned for its first pod.
    Later,
    /// Bound to what an admin has made.
    Static,
}

impl Class {
    /// The StorageClass's name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Class::Now => "now",
            Class::Keep => "keep",
            Class::Later => "later",
            Class::Static => "static",
        }
    }
}

/// What a claim's volume is filled from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Nothing.
    Blank,
    /// The snapshot `s<n>`.
    Snapshot(u32),
    /// The volume of claim `c<n>`.
    Claim(u32),
}

/// One step of a user. Objects are known by number; a step on something that isn't there does nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the fields say what the variants' sentences say")]
pub enum Op {
    /// Makes claim `c<n>`.
    CreateClaim {
        n: u32,
        class: Class,
        gib: u32,
        origin: Origin,
    },
    /// Deletes claim `c<n>`.
    DeleteClaim { n: u32 },
    /// Asks for more room in claim `c<n>`.
    ResizeClaim { n: u32, gib: u32 },
    /// Makes pod `p<n>` with a claim.
    CreatePod { n: u32, claim: u32 },
    /// Deletes pod `p<n>`; by force: without asking its node.
    DeletePod { n: u32, by_force: bool },
    /// A machine dies; an admin declares it out of service and gives its pods up, until it comes back.
    LoseNode { node: usize, down_millis: u64 },
    /// Makes the PV `static<n>` for a volume that exists, for one claim or any.
    CreatePv {
        n: u32,
        retain: bool,
        claim: Option<u32>,
    },
    /// Deletes the PV `static<n>`.
    DeletePv { n: u32 },
    /// Deletes the PV that claim `c<n>` is bound to.
    DeletePvOf { n: u32 },
    /// Changes the reclaim policy of the PV that claim `c<n>` is bound to.
    SetPolicyOf { n: u32, retain: bool },
    /// Makes snapshot `s<n>` of a claim; kept: what the backend has outlives it.
    CreateSnapshot { n: u32, claim: u32, keep: bool },
    /// Deletes snapshot `s<n>`.
    DeleteSnapshot { n: u32 },
    /// Makes `content<n>` for a snapshot that the backend has, reserved for snapshot `s<n>`.
    CreateContent { n: u32, keep: bool },
    /// Deletes `content<n>`.
    DeleteContent { n: u32 },
    /// Makes snapshot `s<n>` of `content<n>`.
    AdoptContent { n: u32 },
    /// Deletes the content that snapshot `s<n>` is bound to.
    DeleteContentOf { n: u32 },
}

/// What happens to one API request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the fields say what the variants' sentences say")]
pub enum ApiFault {
    /// It doesn't reach the server.
    LoseRequest,
    /// It is carried out, and the client never hears of it.
    LoseAnswer,
    /// It is refused with this code and not carried out.
    Refuse { code: u16 },
    /// It takes this long.
    Slow { millis: u64 },
    /// It is carried out twice, and the second answer arrives.
    Twice,
}

/// What happens to one call of the driver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the fields say what the variants' sentences say")]
pub enum RpcFault {
    /// It fails with this code, nothing is done.
    Before { code: i32 },
    /// It is done, but the answer is this code, which leaves that open.
    After { code: i32 },
    /// Nothing is done and no answer comes.
    HangBefore,
    /// It is done and no answer comes.
    HangAfter,
    /// It takes this long.
    Slow { millis: u64 },
    /// It is done twice.
    Twice,
    /// The driver dies after doing it.
    DieAfter,
}

/// Something that goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the fields say what the variants' sentences say")]
pub enum Fault {
    /// A process dies and comes back.
    Kill { process: ProcId, down_millis: u64 },
    /// A machine loses its power and comes back, and nobody does anything about it.
    PowerLoss { node: usize, down_millis: u64 },
    /// The next requests of a process.
    Api { process: ProcId, fault: ApiFault },
    /// The next call of this kind.
    Rpc { rpc: Rpc, fault: RpcFault },
    /// All watches of a process break.
    CutWatches { process: ProcId },
    /// Watches of a process hear nothing for a while: all, or those of one kind.
    HoldWatches {
        process: ProcId,
        kind: Option<&'static str>,
        millis: u64,
    },
    /// Everything takes longer for a while.
    SlowNetwork { millis: u64 },
    /// Nothing passes between a process and the API server for a while; what was under way then arrives late.
    CutOff { process: ProcId, millis: u64 },
    /// The store forgets all that was before.
    Compact,
}

/// The calls that faults are aimed at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[expect(missing_docs, reason = "CSI's own names")]
pub enum Rpc {
    CreateVolume,
    DeleteVolume,
    ControllerPublishVolume,
    ControllerUnpublishVolume,
    ControllerExpandVolume,
    CreateSnapshot,
    DeleteSnapshot,
    ListSnapshots,
    Probe,
    ControllerGetCapabilities,
    NodeStageVolume,
    NodeUnstageVolume,
    NodePublishVolume,
    NodeUnpublishVolume,
    NodeExpandVolume,
}

/// Whether controllers and sidecars have a second candidate, and who a candidate is that comes back after its death.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Election {
    /// There is only one of each.
    None,
    /// The same as before, as a pod is whose container starts again: it may go on at once.
    SameName,
    /// Somebody new, as a pod is that replaces another one.
    NewName,
}

/// Everything that one simulation does.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Decides all that the lists leave open.
    pub seed: u64,
    /// Whether there are elections.
    pub election: Election,
    /// Whether the nodes run the real kubelet, or a model of it.
    pub has_kubelets: bool,
    /// The users' steps, with their time in milliseconds.
    pub ops: Vec<(u64, Op)>,
    /// The faults, with theirs.
    pub faults: Vec<(u64, Fault)>,
}

/// When users begin.
pub(crate) const BEGIN_MILLIS: u64 = 5_000;
/// When the last of their steps and the last fault happen.
pub(crate) const CALM_MILLIS: u64 = 150_000;

impl Plan {
    /// The plan of a seed.
    #[must_use]
    pub fn of(seed: u64) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        let mut ops = lives::ops(&mut random);
        for (at, _) in &mut ops {
            *at = (*at).min(CALM_MILLIS - 1);
        }
        ops.sort_by_key(|(at, _)| *at);
        let election = *[
            Election::None,
            Election::None,
            Election::SameName,
            Election::NewName,
        ]
        .choose(&mut random)
        .unwrap_or(&Election::None);
        let has_kubelets = random.random_bool(0.5);
        let mut faults = Vec::new();
        // Some seeds are quiet, some are hell.
        let count = *[0, 5, 15, 40].choose(&mut random).unwrap_or(&5);
        for _ in 0..count {
            let at = random.random_range(0..CALM_MILLIS);
            faults.push((at, faults::fault(&mut random, election)));
        }
        faults.sort_by_key(|(at, _)| *at);
        Self {
            seed,
            election,
            has_kubelets,
            ops,
            faults,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_follows_from_its_seed() {
        assert_eq!(format!("{:?}", Plan::of(3)), format!("{:?}", Plan::of(3)));
        assert_ne!(format!("{:?}", Plan::of(3)), format!("{:?}", Plan::of(4)));
    }
}
