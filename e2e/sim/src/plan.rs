//! What users do and what goes wrong, when: made from the seed, as lists that can be shortened.

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

/// One step of a user. Objects are known by number; a step on something that isn't there does nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the fields say what the variants' sentences say")]
pub enum Op {
    /// Makes claim `c<n>`.
    CreateClaim { n: u32, class: Class, gib: u32 },
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
    Other,
}

/// Everything that one simulation does.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Decides all that the lists leave open.
    pub seed: u64,
    /// The users' steps, with their time in milliseconds.
    pub ops: Vec<(u64, Op)>,
    /// The faults, with theirs.
    pub faults: Vec<(u64, Fault)>,
}

/// When users begin.
pub(crate) const BEGIN_MILLIS: u64 = 5_000;
/// When the last of their steps and the last fault happen.
pub(crate) const CALM_MILLIS: u64 = 150_000;

const ATTACKED: [ProcId; 7] = [
    ProcId::Controllers,
    ProcId::Sidecars,
    ProcId::Scheduler,
    ProcId::Api,
    ProcId::Node0,
    ProcId::Node1,
    ProcId::Node2,
];
/// Controllers and sidecars twice: it is their errors that cost volumes.
const CLIENTS: [ProcId; 8] = [
    ProcId::Controllers,
    ProcId::Controllers,
    ProcId::Sidecars,
    ProcId::Sidecars,
    ProcId::Scheduler,
    ProcId::Node0,
    ProcId::Node1,
    ProcId::Node2,
];
/// Codes of gRPC after which nobody may take the call for ended.
const UNCERTAIN: [i32; 4] = [1, 4, 10, 14];

impl Plan {
    /// The plan of a seed.
    #[must_use]
    pub fn of(seed: u64) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        let mut ops = Vec::new();
        let claims = random.random_range(2..7);
        for n in 0..claims {
            life_of_claim(&mut random, n, &mut ops);
        }
        let steps = random.random_range(0..8);
        for _ in 0..steps {
            let at = random.random_range(BEGIN_MILLIS..CALM_MILLIS);
            ops.push((at, stray_op(&mut random, claims)));
        }
        ops.sort_by_key(|(at, _)| *at);
        let mut faults = Vec::new();
        // Some seeds are quiet, some are hell.
        let count = *[0, 5, 15, 40].choose(&mut random).unwrap_or(&5);
        for _ in 0..count {
            let at = random.random_range(0..CALM_MILLIS);
            faults.push((at, fault(&mut random)));
        }
        faults.sort_by_key(|(at, _)| *at);
        Self { seed, ops, faults }
    }
}

/// A claim from its making to its end, in an order that may be bad.
fn life_of_claim(random: &mut StdRng, n: u32, ops: &mut Vec<(u64, Op)>) {
    let class = *[
        Class::Now,
        Class::Now,
        Class::Keep,
        Class::Later,
        Class::Later,
        Class::Static,
    ]
    .choose(random)
    .unwrap_or(&Class::Now);
    let gib = random.random_range(1..5);
    let mut at = random.random_range(BEGIN_MILLIS..60_000);
    if class == Class::Static {
        let (retain, claim) = (random.random_bool(0.5), random.random_bool(0.5).then_some(n));
        let made_at = random.random_range(BEGIN_MILLIS..80_000);
        ops.push((made_at, Op::CreatePv { n, retain, claim }));
    }
    ops.push((at, Op::CreateClaim { n, class, gib }));
    let has_pod = class == Class::Later || random.random_bool(0.5);
    if has_pod {
        let pod_at = at.saturating_sub(2_000) + random.random_range(0..10_000);
        ops.push((pod_at, Op::CreatePod { n, claim: n }));
        if random.random_bool(0.7) {
            let gone_at = pod_at + random.random_range(0..60_000);
            let by_force = random.random_bool(0.3);
            ops.push((gone_at, Op::DeletePod { n, by_force }));
            if random.random_bool(0.4) {
                let again_at = gone_at.saturating_sub(10_000) + random.random_range(0..20_000);
                ops.push((again_at, Op::CreatePod { n: n + 100, claim: n }));
            }
        }
    }
    if random.random_bool(0.4) {
        let gib = gib + random.random_range(1..5);
        ops.push((at + random.random_range(0..50_000), Op::ResizeClaim { n, gib }));
    }
    if random.random_bool(0.7) {
        at += random.random_range(0..60_000);
        ops.push((at, Op::DeleteClaim { n }));
        if random.random_bool(0.2) {
            let around = at.saturating_sub(5_000) + random.random_range(0..6_000);
            ops.push((around, Op::DeletePvOf { n }));
        }
        if random.random_bool(0.3) {
            at += random.random_range(0..20_000);
            ops.push((at, Op::CreateClaim { n, class, gib }));
        }
    }
}

fn stray_op(random: &mut StdRng, claims: u32) -> Op {
    let n = random.random_range(0..claims);
    match random.random_range(0..7) {
        0 => Op::DeletePvOf { n },
        1 | 2 => Op::SetPolicyOf {
            n,
            retain: random.random_bool(0.5),
        },
        3 => Op::DeletePv { n },
        4 => Op::DeletePod { n, by_force: true },
        5 => Op::LoseNode {
            node: random.random_range(0..3),
            down_millis: random.random_range(5_000..60_000),
        },
        _ => Op::DeleteClaim { n },
    }
}

fn fault(random: &mut StdRng) -> Fault {
    let client = *CLIENTS.choose(random).unwrap_or(&ProcId::Sidecars);
    match random.random_range(0..13) {
        12 => Fault::PowerLoss {
            node: random.random_range(0..3),
            down_millis: random.random_range(1_000..30_000),
        },
        0..3 => Fault::Kill {
            process: if random.random_bool(0.2) {
                ProcId::Driver
            } else {
                *ATTACKED.choose(random).unwrap_or(&ProcId::Sidecars)
            },
            down_millis: random.random_range(0..10_000),
        },
        3..6 => Fault::Api {
            process: client,
            fault: api_fault(random),
        },
        6..9 => rpc_fault(random),
        9 => Fault::CutWatches { process: client },
        10 => Fault::HoldWatches {
            process: client,
            kind: *[
                None,
                Some("pods"),
                Some("persistentvolumeclaims"),
                Some("persistentvolumes"),
                Some("volumeattachments"),
            ]
            .choose(random)
            .unwrap_or(&None),
            millis: random.random_range(100..20_000),
        },
        _ => Fault::SlowNetwork {
            millis: random.random_range(500..10_000),
        },
    }
}

fn api_fault(random: &mut StdRng) -> ApiFault {
    match random.random_range(0..5) {
        0 => ApiFault::LoseRequest,
        1 | 2 => ApiFault::LoseAnswer,
        3 => ApiFault::Refuse {
            code: *[409, 409, 429, 500, 503, 504].choose(random).unwrap_or(&500),
        },
        _ => ApiFault::Slow {
            millis: random.random_range(100..20_000),
        },
    }
}

fn rpc_fault(random: &mut StdRng) -> Fault {
    let rpcs = [
        Rpc::CreateVolume,
        Rpc::CreateVolume,
        Rpc::DeleteVolume,
        Rpc::ControllerPublishVolume,
        Rpc::ControllerUnpublishVolume,
        Rpc::ControllerExpandVolume,
    ];
    let rpc = *rpcs.choose(random).unwrap_or(&Rpc::CreateVolume);
    let fault = match random.random_range(0..8) {
        0 | 1 => RpcFault::Before {
            code: random.random_range(1..17),
        },
        2 | 3 => RpcFault::After {
            code: *UNCERTAIN.choose(random).unwrap_or(&14),
        },
        4 => RpcFault::HangBefore,
        5 => RpcFault::HangAfter,
        6 => RpcFault::DieAfter,
        _ if random.random_bool(0.5) => RpcFault::Twice,
        _ => RpcFault::Slow {
            millis: random.random_range(100..30_000),
        },
    };
    Fault::Rpc { rpc, fault }
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
