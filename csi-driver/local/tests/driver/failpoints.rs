//! Every failpoint, in every call that passes it: the process killed there, the step out of room, the step failing. Asked
//! again, the call ends as if nothing had been; nothing is left over, other volumes are untouched.
//!
//! The cases come from the driver's own table: a point without a call here fails the tests.

mod acts;
mod world;

use moorline_driver_local::failpoint::POINTS;
use tonic::Code;

use self::{
    acts::{Act, Shown},
    world::{State, World},
};
use crate::support::{BLOCK, DIR, EXT4, SUBVOLUME, Use, XFS, cannot_run};

/// The calls that pass a point, and how often each does.
fn passing(point: &str, usage: Use) -> Vec<(Act, usize)> {
    let is_frozen = usage.is_loop();
    let (group, name) = point.split_once("::").unwrap();
    match (group, name) {
        // What is durable in the journal needs no sync of its own, and no second copy.
        ("create", "after_sync" | "after_copy_of_record") if usage == DIR => vec![],
        ("create", "after_journal") if usage != DIR => vec![],
        ("create", _) => vec![(Act::Create, 1)],
        ("clone", _) => vec![(Act::Clone, 1), (Act::Restore, 1)],
        ("snapshot", "after_rename" | "after_sync") => vec![(Act::Snapshot, 1)],
        ("snapshot", _) => vec![(Act::Snapshot, 1), (Act::Group, 2)],
        // A directory is never frozen.
        ("cut", "after_freeze") if !is_frozen => vec![],
        ("cut", "after_freeze") => vec![(Act::Snapshot, 1), (Act::Clone, 1)],
        ("cut", _) => vec![(Act::Snapshot, 1)],
        ("group", "after_member_cut" | "after_member_rename") => vec![(Act::Group, 2)],
        ("group", _) => vec![(Act::Group, 1)],
        ("delete", _) => vec![(Act::Delete, 1)],
        ("delete_snapshot", _) => vec![(Act::DeleteSnapshot, 1), (Act::DeleteGroup, 2)],
        ("delete_group", _) => vec![(Act::DeleteGroup, 1)],
        ("expand", _) => vec![(Act::Expand, 1)],
        // Only files have parameters that can be changed.
        ("update", _) if is_frozen => vec![(Act::Expand, 1), (Act::Modify, 1)],
        ("update", _) => vec![(Act::Expand, 1)],
        ("modify", _) if is_frozen => vec![(Act::Modify, 1)],
        ("modify", _) => vec![],
        ("lease", _) => vec![(Act::Attach, 1)],
        ("stage" | "publish" | "unpublish" | "unstage", _) => on_the_node(group, name, usage),
        _ => panic!("no call of these tests passes the failpoint {point}"),
    }
}

/// As [`passing`], for calls to the node.
fn on_the_node(call: &str, name: &str, usage: Use) -> Vec<(Act, usize)> {
    let is_block = usage.fs_type.is_none();
    let is_image = usage.is_loop() && !is_block;
    let (act, is_passed) = match (call, name) {
        ("stage", "after_device") => (Act::Stage, usage.is_loop()),
        // Only ext4 tells from its superblock that it was not unmounted.
        ("stage", "after_check") => (Act::Stage, usage == EXT4),
        ("stage", "after_growth" | "after_mount") => (Act::Stage, is_image),
        ("stage", _) => (Act::Stage, true),
        ("publish", "after_device") => (Act::Publish, is_block),
        ("publish", "after_group") => (Act::Publish, !is_block),
        ("publish", _) => (Act::Publish, true),
        ("unpublish", _) => (Act::Unpublish, true),
        ("unstage", "after_detach") => (Act::Unstage, is_block),
        _ => (Act::Unstage, true),
    };
    if is_passed { vec![(act, 1)] } else { vec![] }
}

/// Has what was asked for come into being by then, so that an error is no longer final?
fn is_committed(point: &str) -> bool {
    [
        "create::after_rename",
        "create::after_sync",
        "snapshot::after_rename",
        "snapshot::after_sync",
        "group::after_rename",
        "group::after_sync",
        "lease::after_write",
        "lease::after_sync",
    ]
    .contains(&point)
}

/// Is the point passed only after the call was answered?
fn comes_after_the_answer(point: &str) -> bool {
    point == "delete::after_removal"
}

struct Case {
    name: String,
    point: &'static str,
    act: Act,
    turn: usize,
}

/// How a call ends without a fault.
struct Reference {
    shown: Shown,
    after: State,
}

impl Reference {
    async fn of(act: Act, world: &mut World) -> Self {
        let baseline = world.state().await;
        act.prepare(world).await;
        let answer = act.call(world).await.unwrap();
        let after = world.state().await;
        let shown = act.shown(world, answer).await;
        act.undo(world).await;
        assert_eq!(world.state().await, baseline, "{act:?} without a fault");
        Reference { shown, after }
    }
}

impl Case {
    /// The driver dies at the point.
    async fn killed(&self, world: &mut World, reference: &Reference) {
        let name = format!("{}=kill", self.name);
        let baseline = world.state().await;
        self.act.prepare(world).await;
        let before = world.state().await;
        world.arm(self.point, "kill", self.turn);
        let answer = self.act.call(world).await;
        self.was_cut_short(&name, &answer);
        world.has_died().await;
        let found = world.state().await;
        let is_after = same_but_room(&found, &reference.after);
        assert!(
            found == before || is_after,
            "{name}: neither as before nor as after\n{found:#?}\nbefore {before:#?}\nafter {:#?}",
            reference.after
        );
        world.others_are_untouched(&name).await;
        self.ends_well(world, reference, &baseline, &name).await;
    }

    /// The driver dies at the point, and nobody asks again: all is undone.
    async fn abandoned(&self, world: &mut World) {
        if !self.act.can_be_abandoned() {
            return;
        }
        let name = format!("{}=kill, abandoned", self.name);
        let baseline = world.state().await;
        self.act.prepare(world).await;
        world.arm(self.point, "kill", self.turn);
        let answer = self.act.call(world).await;
        self.was_cut_short(&name, &answer);
        world.has_died().await;
        self.act.undo(world).await;
        assert_eq!(world.state().await, baseline, "{name}: left over");
        world.others_are_untouched(&name).await;
    }

    /// The step at the point fails.
    async fn failed(&self, world: &mut World, reference: &Reference, action: &str, code: Code) {
        let name = format!("{}={action}", self.name);
        let baseline = world.state().await;
        self.act.prepare(world).await;
        let before = world.state().await;
        world.arm(self.point, action, self.turn);
        let answer = self.act.call(world).await;
        if comes_after_the_answer(self.point) {
            answer.unwrap_or_else(|error| panic!("{name}: {error}"));
            world.others_are_untouched(&name).await;
            world.disarm();
            return self.ends_well(world, reference, &baseline, &name).await;
        }
        let error = answer.expect_err(&format!("{name}: the point was not passed"));
        if is_committed(self.point) {
            assert_eq!(
                error.code(),
                Code::Aborted,
                "{name}: nobody knows whether it is there: {error}"
            );
        } else {
            assert_eq!(error.code(), code, "{name}: {error}");
            if self.act.is_making() {
                assert_eq!(world.state().await, before, "{name}: left after {error}");
            }
        }
        world.others_are_untouched(&name).await;
        world.disarm();
        self.ends_well(world, reference, &baseline, &name).await;
    }

    /// The step after the thing has come into being fails, and nobody asks again: what is there can be removed.
    async fn failed_and_abandoned(&self, world: &mut World) {
        if !is_committed(self.point)
            || !matches!(self.act, Act::Create | Act::Clone | Act::Restore | Act::Snapshot)
        {
            return;
        }
        let name = format!("{}=fail, abandoned", self.name);
        let baseline = world.state().await;
        self.act.prepare(world).await;
        world.arm(self.point, "fail", self.turn);
        let answer = self.act.call(world).await;
        assert!(answer.is_err(), "{name}: the point was not passed: {answer:?}");
        world.disarm();
        self.act.undo(world).await;
        assert_eq!(world.state().await, baseline, "{name}: left over");
        world.others_are_untouched(&name).await;
    }

    /// A call that dies at its point is not answered; one that was answered before may be either.
    fn was_cut_short<T: std::fmt::Debug>(&self, name: &str, answer: &Result<T, tonic::Status>) {
        assert!(
            answer.is_err() || comes_after_the_answer(self.point),
            "{name}: the point was not passed: {answer:?}"
        );
    }

    /// Asked again, it is as if nothing had been; and it can be undone.
    async fn ends_well(&self, world: &mut World, reference: &Reference, baseline: &State, name: &str) {
        let answer = match self.act.call(world).await {
            Ok(answer) => answer,
            Err(error) => panic!("{name}: asked again: {error}\n{}", world.log()),
        };
        let found = world.state().await;
        assert!(
            same_but_room(&found, &reference.after),
            "{name}: {found:#?}\nnot {:#?}",
            reference.after
        );
        let shown = self.act.shown(world, answer).await;
        assert_eq!(shown, reference.shown, "{name}");
        self.act.undo(world).await;
        assert_eq!(world.state().await, *baseline, "{name}: left over");
        world.others_are_untouched(name).await;
    }
}

/// What a snapshot takes may differ by some blocks from one to the next.
fn same_but_room(one: &State, two: &State) -> bool {
    let without = |state: &State| State {
        available_bytes: 0,
        ..state.clone()
    };
    without(one) == without(two)
}

/// All points that `act` passes, one after the other on the same driver.
async fn every_point(act: Act, usage: Use) {
    let mut world = World::new(usage, act == Act::Attach).await;
    let reference = Reference::of(act, &mut world).await;
    for point in POINTS {
        let passes = passing(point, usage)
            .into_iter()
            .find_map(|(passing, passes)| (passing == act).then_some(passes));
        for turn in 1..=passes.unwrap_or(0) {
            let case = Case {
                name: format!("{act:?}: {point}@{turn}"),
                point,
                act,
                turn,
            };
            let full = Code::ResourceExhausted;
            case.failed(&mut world, &reference, "full", full).await;
            case.failed(&mut world, &reference, "fail", Code::Internal).await;
            case.failed_and_abandoned(&mut world).await;
            case.killed(&mut world, &reference).await;
            case.abandoned(&mut world).await;
        }
    }
    world.restart().await;
    world.end().await;
}

#[test]
fn every_point_has_a_call_that_passes_it() {
    for point in POINTS {
        let passing = [EXT4, BLOCK, DIR].map(|usage| passing(point, usage)).concat();
        assert!(!passing.is_empty(), "no call of these tests passes {point}");
    }
}

macro_rules! for_each_act {
    ($($name:ident: $act:expr, [$($kind:ident: $usage:expr),*];)*) => { $(
        mod $name {
            use super::*;

            async fn check(kind: &str, usage: Use) {
                let test = format!("failpoints::{}::{kind}", stringify!($name));
                if !cannot_run(&test, usage.tools()) {
                    every_point($act, usage).await;
                }
            }

            $(
                #[tokio::test(flavor = "multi_thread")]
                async fn $kind() {
                    check(stringify!($kind), $usage).await;
                }
            )*
        }
    )* };
}

for_each_act! {
    create: Act::Create, [directories: DIR, ext4: EXT4, subvolumes: SUBVOLUME];
    delete: Act::Delete, [directories: DIR, ext4: EXT4, subvolumes: SUBVOLUME];
    expand: Act::Expand, [directories: DIR, ext4: EXT4, subvolumes: SUBVOLUME];
    snapshot: Act::Snapshot, [directories: DIR, ext4: EXT4, subvolumes: SUBVOLUME];
    delete_snapshot: Act::DeleteSnapshot, [directories: DIR, ext4: EXT4, subvolumes: SUBVOLUME];
    clone: Act::Clone, [directories: DIR, ext4: EXT4, subvolumes: SUBVOLUME];
    restore: Act::Restore, [directories: DIR, ext4: EXT4, subvolumes: SUBVOLUME];
    group: Act::Group, [directories: DIR, ext4: EXT4, subvolumes: SUBVOLUME];
    delete_group: Act::DeleteGroup, [directories: DIR, ext4: EXT4, subvolumes: SUBVOLUME];
    modify: Act::Modify, [ext4: EXT4];
    attach: Act::Attach, [directories: DIR];
    stage: Act::Stage, [directories: DIR, ext4: EXT4, xfs: XFS, block: BLOCK, subvolumes: SUBVOLUME];
    publish: Act::Publish, [directories: DIR, ext4: EXT4, block: BLOCK, subvolumes: SUBVOLUME];
    unpublish: Act::Unpublish, [directories: DIR, ext4: EXT4, block: BLOCK, subvolumes: SUBVOLUME];
    unstage: Act::Unstage, [directories: DIR, ext4: EXT4, block: BLOCK, subvolumes: SUBVOLUME];
}
