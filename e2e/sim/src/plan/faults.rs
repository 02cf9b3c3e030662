//! What goes wrong: one fault, drawn.

use rand::RngExt;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;

use super::{ApiFault, Election, Fault, Rpc, RpcFault};
use crate::net::ProcId;

const ATTACKED: [ProcId; 9] = [
    ProcId::Controllers,
    ProcId::Controllers2,
    ProcId::Sidecars,
    ProcId::Sidecars2,
    ProcId::Scheduler,
    ProcId::Api,
    ProcId::Node0,
    ProcId::Node1,
    ProcId::Node2,
];
/// Controllers and sidecars twice: it is their errors that cost volumes.
const CLIENTS: [ProcId; 8] = [
    ProcId::Controllers,
    ProcId::Controllers2,
    ProcId::Sidecars,
    ProcId::Sidecars2,
    ProcId::Scheduler,
    ProcId::Node0,
    ProcId::Node1,
    ProcId::Node2,
];
/// Kinds whose watches are held up alone.
const KINDS: [Option<&str>; 7] = [
    None,
    Some("pods"),
    Some("persistentvolumeclaims"),
    Some("persistentvolumes"),
    Some("volumeattachments"),
    Some("volumesnapshots"),
    Some("volumesnapshotcontents"),
];
/// Calls, the ones that make things more often.
const RPCS: [Rpc; 17] = [
    Rpc::CreateVolume,
    Rpc::CreateVolume,
    Rpc::DeleteVolume,
    Rpc::ControllerPublishVolume,
    Rpc::ControllerUnpublishVolume,
    Rpc::ControllerExpandVolume,
    Rpc::CreateSnapshot,
    Rpc::CreateSnapshot,
    Rpc::DeleteSnapshot,
    Rpc::ListSnapshots,
    Rpc::Probe,
    Rpc::ControllerGetCapabilities,
    Rpc::NodeStageVolume,
    Rpc::NodeUnstageVolume,
    Rpc::NodePublishVolume,
    Rpc::NodeUnpublishVolume,
    Rpc::NodeExpandVolume,
];
/// Codes of gRPC after which nobody may take the call for ended.
const UNCERTAIN: [i32; 4] = [1, 4, 10, 14];

pub(super) fn fault(random: &mut StdRng, election: Election) -> Fault {
    let there = |process: ProcId| {
        if election == Election::None {
            process.first()
        } else {
            process
        }
    };
    let client = there(*CLIENTS.choose(random).unwrap_or(&ProcId::Sidecars));
    match random.random_range(0..16) {
        14..16 if random.random_bool(0.2) => Fault::Compact,
        13..16 => Fault::CutOff {
            process: client,
            millis: random.random_range(1_000..40_000),
        },
        12 => Fault::PowerLoss {
            node: random.random_range(0..3),
            down_millis: random.random_range(1_000..30_000),
        },
        0..3 => Fault::Kill {
            process: if random.random_bool(0.2) {
                ProcId::Driver
            } else {
                there(*ATTACKED.choose(random).unwrap_or(&ProcId::Sidecars))
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
            kind: *KINDS.choose(random).unwrap_or(&None),
            millis: random.random_range(100..20_000),
        },
        _ => Fault::SlowNetwork {
            millis: random.random_range(500..10_000),
        },
    }
}

fn api_fault(random: &mut StdRng) -> ApiFault {
    match random.random_range(0..6) {
        5 => ApiFault::Twice,
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
    let rpc = *RPCS.choose(random).unwrap_or(&Rpc::CreateVolume);
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
