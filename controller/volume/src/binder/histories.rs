//! Generated histories of a cluster around the deciders: users, a provisioner, stale caches, and a binder that dies
//! between any two writes. After every step the invariants hold; in the end everything comes to rest, bound both ways
//! or not at all.

mod world;

use proptest::prelude::*;
use serde_json::json;

use world::{CLAIMS, PVS, World};

/// One thing that happens.
#[derive(Clone, Debug)]
enum Happening {
    /// A user makes a claim; with a class (dynamic) or without (static).
    CreateClaim {
        claim: usize,
        class: &'static str,
        gib: u32,
    },
    /// A user deletes a claim.
    DeleteClaim {
        claim: usize,
    },
    /// A user names a PV in a claim that is unbound.
    NamePv {
        claim: usize,
        pv: usize,
    },
    /// An admin makes a PV, free or reserved for a claim by name.
    CreatePv {
        pv: usize,
        gib: u32,
        reserved_for: Option<usize>,
        is_block: bool,
    },
    /// An admin frees a released PV, or deletes any.
    FreePv {
        pv: usize,
    },
    DeletePv {
        pv: usize,
    },
    /// The scheduler picks a node for a claim that waits for one.
    SelectNode {
        claim: usize,
    },
    /// The scheduler picks a free PV for a claim and links it, perhaps before the binder has seen the claim.
    ReservePv {
        claim: usize,
        pv: usize,
    },
    /// The provisioner looks at all claims.
    Provision,
    /// The binder's caches catch up with one object.
    DeliverClaim {
        claim: usize,
    },
    DeliverPv {
        pv: usize,
    },
    /// The binder looks at an object and dies after so many writes.
    SyncClaim {
        claim: usize,
        writes: usize,
    },
    SyncPv {
        pv: usize,
        writes: usize,
    },
}

fn any_happening() -> impl Strategy<Value = Happening> {
    use Happening::*;
    let claim = 0..CLAIMS;
    let pv = 0..PVS;
    let class = prop_oneof![3 => Just(""), 2 => Just("fast"), 1 => Just("late")];
    prop_oneof![
        3 => (claim.clone(), class, 1..4u32).prop_map(|(claim, class, gib)| CreateClaim { claim, class, gib }),
        1 => claim.clone().prop_map(|claim| DeleteClaim { claim }),
        1 => (claim.clone(), pv.clone()).prop_map(|(claim, pv)| NamePv { claim, pv }),
        3 => (pv.clone(), 1..4u32, prop::option::weighted(0.3, claim.clone()), prop::bool::weighted(0.1))
            .prop_map(|(pv, gib, reserved_for, is_block)| CreatePv { pv, gib, reserved_for, is_block }),
        1 => pv.clone().prop_map(|pv| FreePv { pv }),
        1 => pv.clone().prop_map(|pv| DeletePv { pv }),
        1 => claim.clone().prop_map(|claim| SelectNode { claim }),
        3 => (claim.clone(), pv.clone()).prop_map(|(claim, pv)| ReservePv { claim, pv }),
        2 => Just(Provision),
        4 => claim.clone().prop_map(|claim| DeliverClaim { claim }),
        4 => pv.clone().prop_map(|pv| DeliverPv { pv }),
        8 => (claim, 0..6usize).prop_map(|(claim, writes)| SyncClaim { claim, writes }),
        8 => (pv, 0..3usize).prop_map(|(pv, writes)| SyncPv { pv, writes }),
    ]
}

fn happen(world: &mut World, happening: &Happening) {
    match happening {
        Happening::CreateClaim { claim, class, gib } => world.create_claim(*claim, class, *gib),
        Happening::DeleteClaim { claim } => world.delete_claim(*claim),
        Happening::NamePv { claim, pv } => world.name_pv(*claim, *pv),
        Happening::CreatePv {
            pv,
            gib,
            reserved_for,
            is_block,
        } => {
            world.create_pv(*pv, *gib, *reserved_for, *is_block);
        }
        Happening::FreePv { pv } => world.free_pv(*pv),
        Happening::DeletePv { pv } => world.delete_pv(*pv),
        Happening::SelectNode { claim } => world.select_node(*claim),
        Happening::ReservePv { claim, pv } => world.reserve_pv(*claim, *pv),
        Happening::Provision => world.provision(),
        Happening::DeliverClaim { claim } => world.deliver_claim(&World::claim_name(*claim)),
        Happening::DeliverPv { pv } => world.deliver_pv(&World::pv_name(*pv)),
        Happening::SyncClaim { claim, writes } => {
            world.sync_claim(&World::claim_name(*claim), *writes);
        }
        Happening::SyncPv { pv, writes } => {
            world.sync_pv(&World::pv_name(*pv), *writes);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn any_history_comes_to_rest_with_every_promise_kept(history in prop::collection::vec(any_happening(), 1..120)) {
        let mut world = World::default();
        for happening in &history {
            happen(&mut world, happening);
        }
        world.come_to_rest();
        world.check_rest();
    }
}

#[test]
fn every_crash_point_of_a_bind_ends_bound() {
    for crash_after in 0..=4 {
        let mut world = World::default();
        world.create_pv(0, 2, None, false);
        world.create_claim(0, "", 1);
        world.deliver_all();
        world.sync_pv("pv0", 1);
        world.sync_claim("c0", crash_after);
        world.restart();
        world.come_to_rest();
        world.check_rest();
        let claim = world.claim("c0").unwrap();
        assert_eq!(
            claim["spec"]["volumeName"],
            json!("pv0"),
            "crash after {crash_after}"
        );
        assert_eq!(
            claim["status"]["phase"],
            json!("Bound"),
            "crash after {crash_after}"
        );
    }
}

#[test]
fn a_bind_takes_four_writes_and_a_provisioned_one_three() {
    let mut world = World::default();
    world.create_pv(0, 2, None, false);
    world.create_claim(0, "", 1);
    world.create_claim(1, "fast", 1);
    world.deliver_all();
    assert_eq!(world.sync_pv("pv0", usize::MAX), 1, "phase Available");
    assert_eq!(
        world.sync_claim("c0", usize::MAX),
        4,
        "PV, its status, claim, its status"
    );
    assert_eq!(world.sync_claim("c1", usize::MAX), 1, "provisioner named");
    world.provision();
    world.deliver_all();
    assert_eq!(world.sync_claim("c1", usize::MAX), 3, "PV came linked");
    world.come_to_rest();
    world.check_rest();
}

#[test]
fn the_successor_of_a_deleted_claim_does_not_inherit_its_volume() {
    let mut world = World::default();
    world.create_pv(0, 2, None, false);
    world.create_claim(0, "", 1);
    world.come_to_rest();
    world.delete_claim(0);
    world.create_claim(0, "", 1);
    world.come_to_rest();
    world.check_rest();
    assert_eq!(world.pv("pv0").unwrap()["status"]["phase"], json!("Released"));
    assert_eq!(world.claim("c0").unwrap()["status"]["phase"], json!("Pending"));
}

#[test]
fn a_lost_claim_recovers_when_its_pv_returns() {
    let mut world = World::default();
    world.create_pv(0, 2, None, false);
    world.create_claim(0, "", 1);
    world.come_to_rest();
    world.delete_pv(0);
    world.come_to_rest();
    assert_eq!(world.claim("c0").unwrap()["status"]["phase"], json!("Lost"));
    world.create_pv(0, 2, None, false);
    world.come_to_rest();
    world.check_rest();
    assert_eq!(world.claim("c0").unwrap()["status"]["phase"], json!("Bound"));
}

#[test]
fn a_volume_linked_to_a_claim_that_was_not_seen_yet_is_not_released() {
    let mut world = World::default();
    world.create_pv(0, 2, None, false);
    world.come_to_rest();
    world.create_claim(0, "", 1);
    world.reserve_pv(0, 0);
    world.deliver_pv("pv0");
    assert_eq!(world.sync_pv("pv0", usize::MAX), 0);
    world.come_to_rest();
    world.check_rest();
    assert_eq!(world.claim("c0").unwrap()["status"]["phase"], json!("Bound"));
}
