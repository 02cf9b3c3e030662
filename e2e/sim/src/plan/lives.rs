//! What users do: the lives of claims, snapshots and what is filled from them, in orders that may be bad.

use rand::RngExt;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;

use super::{BEGIN_MILLIS, CALM_MILLIS, Class, Op, Origin};

/// Numbers of claims that are filled from snapshot or claim `n` begin with these.
const RESTORED: u32 = 200;
const CLONED: u32 = 300;
/// Numbers of second pods of claims.
const SECOND: u32 = 100;

type Ops = Vec<(u64, Op)>;

/// All steps of a plan, in no order.
pub(super) fn ops(random: &mut StdRng) -> Ops {
    let mut ops = Vec::new();
    let claims = random.random_range(2..7);
    for n in 0..claims {
        life_of_claim(random, n, &mut ops);
    }
    let steps = random.random_range(0..8);
    for _ in 0..steps {
        let at = random.random_range(BEGIN_MILLIS..CALM_MILLIS);
        ops.push((at, stray_op(random, claims)));
    }
    // Half of the seeds have no snapshots, most have no clones.
    let snapshots = *[0, 0, 0, 1, 2, 3].choose(random).unwrap_or(&0);
    for n in 0..snapshots {
        let claim = random.random_range(0..claims);
        life_of_snapshot(random, n, claim, &mut ops);
    }
    if random.random_bool(0.25) {
        let (claim, at) = (
            random.random_range(0..claims),
            random.random_range(10_000..80_000),
        );
        life_of_copy(random, CLONED + claim, (at, Origin::Claim(claim)), &mut ops);
        if random.random_bool(0.5) {
            let gone_at = at + random.random_range(0..8_000);
            ops.push((gone_at, Op::DeleteClaim { n: claim }));
        }
    }
    ops
}

fn life_of_claim(random: &mut StdRng, n: u32, ops: &mut Ops) {
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
    let (gib, origin) = (random.random_range(1..5), Origin::Blank);
    let mut at = random.random_range(BEGIN_MILLIS..60_000);
    if class == Class::Static {
        let (retain, claim) = (random.random_bool(0.5), random.random_bool(0.5).then_some(n));
        let made_at = random.random_range(BEGIN_MILLIS..80_000);
        ops.push((made_at, Op::CreatePv { n, retain, claim }));
    }
    let creation = Op::CreateClaim {
        n,
        class,
        gib,
        origin,
    };
    ops.push((at, creation));
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
                let (n, claim) = (n + SECOND, n);
                ops.push((again_at, Op::CreatePod { n, claim }));
            }
        }
    }
    if random.random_bool(0.4) {
        let gib = gib + random.random_range(1..5);
        ops.push((at + random.random_range(0..50_000), Op::ResizeClaim { n, gib }));
    }
    if random.random_bool(0.7) {
        let soon = random.random_bool(0.2);
        at += random.random_range(0..if soon { 3_000 } else { 60_000 });
        ops.push((at, Op::DeleteClaim { n }));
        if random.random_bool(0.2) {
            let around = at.saturating_sub(5_000) + random.random_range(0..6_000);
            ops.push((around, Op::DeletePvOf { n }));
        }
        if random.random_bool(0.3) {
            at += random.random_range(0..20_000);
            ops.push((at, creation));
        }
    }
}

/// A snapshot, cut of a claim or adopted, and what is restored from it.
fn life_of_snapshot(random: &mut StdRng, n: u32, claim: u32, ops: &mut Ops) {
    let at = random.random_range(10_000..90_000);
    let keep = random.random_bool(0.25);
    let creation = if random.random_bool(0.2) {
        ops.push((at, Op::CreateContent { n, keep }));
        if random.random_bool(0.3) {
            let gone_at = at + random.random_range(0..20_000);
            ops.push((gone_at, Op::DeleteContent { n }));
        }
        let adoption = Op::AdoptContent { n };
        let adopted_at = at.saturating_sub(4_000) + random.random_range(0..10_000);
        ops.push((adopted_at, adoption));
        adoption
    } else {
        let creation = Op::CreateSnapshot { n, claim, keep };
        ops.push((at, creation));
        if random.random_bool(0.3) {
            // While it is being cut.
            let gone_at = at + random.random_range(0..4_000);
            ops.push((gone_at, Op::DeleteClaim { n: claim }));
        }
        creation
    };
    if random.random_bool(0.6) {
        let restored_at = at.saturating_sub(3_000) + random.random_range(0..20_000);
        life_of_copy(random, RESTORED + n, (restored_at, Origin::Snapshot(n)), ops);
    }
    if random.random_bool(0.7) {
        let soon = random.random_bool(0.4);
        let gone_at = at + random.random_range(0..if soon { 3_000 } else { 40_000 });
        ops.push((gone_at, Op::DeleteSnapshot { n }));
        if random.random_bool(0.3) {
            let around = gone_at.saturating_sub(5_000) + random.random_range(0..6_000);
            ops.push((around, Op::DeleteContentOf { n }));
        }
        if random.random_bool(0.3) {
            let again_at = gone_at + random.random_range(0..15_000);
            ops.push((again_at, creation));
        }
    }
}

/// A claim whose volume is filled from something, its pod, and its end.
fn life_of_copy(random: &mut StdRng, n: u32, (at, origin): (u64, Origin), ops: &mut Ops) {
    let class = *[Class::Now, Class::Now, Class::Later, Class::Keep]
        .choose(random)
        .unwrap_or(&Class::Now);
    let creation = Op::CreateClaim {
        n,
        class,
        gib: random.random_range(2..10),
        origin,
    };
    ops.push((at, creation));
    if class == Class::Later || random.random_bool(0.3) {
        let pod_at = at + random.random_range(0..5_000);
        ops.push((pod_at, Op::CreatePod { n, claim: n }));
        if random.random_bool(0.5) {
            let gone_at = pod_at + random.random_range(0..30_000);
            ops.push((gone_at, Op::DeletePod { n, by_force: false }));
        }
    }
    if random.random_bool(0.5) {
        let gone_at = at + random.random_range(0..30_000);
        ops.push((gone_at, Op::DeleteClaim { n }));
        if random.random_bool(0.3) {
            ops.push((gone_at + random.random_range(0..10_000), creation));
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
