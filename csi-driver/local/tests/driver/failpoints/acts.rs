//! What is done when a failpoint is passed: a call, what must be there before it, what shows that it has succeeded, and
//! its undoing.

use moorline_proto::csi;
use tonic::Status;

use super::world::{SUBJECT, World};
use crate::support::{MIB, from_snapshot, from_volume};

/// What the call makes, grows or removes.
const MADE: &str = "made";
/// What it is made of.
const CUT: &str = "cut-before";
const IDLE: [&str; 2] = ["idle-1", "idle-2"];
const GROUP: &str = "group";
const GROWTH_BYTES: i64 = 16 * MIB;

/// A call that passes failpoints.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Act {
    Create,
    Delete,
    Expand,
    Snapshot,
    DeleteSnapshot,
    Clone,
    Restore,
    Group,
    DeleteGroup,
    Modify,
    Attach,
    Stage,
    Publish,
    Unpublish,
    Unstage,
}

/// What must be the same with and without a crash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Shown {
    /// The answer, without the time of the making.
    pub(super) answer: String,
    /// The contents of what was made.
    pub(super) contents: Vec<Option<String>>,
}

impl Act {
    /// Does an error that is not uncertain promise that nothing is left?
    pub(super) fn is_making(self) -> bool {
        matches!(
            self,
            Act::Create | Act::Snapshot | Act::Clone | Act::Restore | Act::Group
        )
    }

    /// Can what it has begun be undone without asking again? A caller that knows no id has to ask again.
    pub(super) fn can_be_abandoned(self) -> bool {
        matches!(
            self,
            Act::Expand
                | Act::Modify
                | Act::Attach
                | Act::Stage
                | Act::Publish
                | Act::Unpublish
                | Act::Unstage
        )
    }

    /// Makes what the call needs.
    pub(super) async fn prepare(self, world: &mut World) {
        let usage = world.usage;
        match self {
            Act::Create | Act::Snapshot | Act::Clone => {}
            Act::Delete | Act::Expand => {
                world.driver.create(usage.create(MADE)).await.unwrap();
                world.write_into(MADE, "kept while it grows").await;
            }
            Act::Attach => drop(world.driver.create(usage.create(MADE)).await.unwrap()),
            Act::Stage => {
                world.driver.create(usage.create(MADE)).await.unwrap();
                // Not cleanly unmounted, and smaller than its file: there is something to check and to grow.
                world.write_and_break_off(MADE, "kept when staged").await;
                let bytes = usage.bytes + GROWTH_BYTES;
                world.driver.expand(MADE, bytes).await.unwrap();
            }
            Act::Modify | Act::Publish | Act::Unpublish | Act::Unstage => {
                world.driver.create(usage.create(MADE)).await.unwrap();
                world.write_into(MADE, "kept while it moves").await;
                world.stage(MADE).await.unwrap();
                if self == Act::Unpublish {
                    world.publish(MADE).await.unwrap();
                }
            }
            Act::DeleteSnapshot => drop(world.driver.snapshot(MADE, SUBJECT).await.unwrap()),
            Act::Restore => drop(world.driver.snapshot(CUT, SUBJECT).await.unwrap()),
            Act::Group | Act::DeleteGroup => {
                for id in IDLE {
                    world.driver.create(usage.create(id)).await.unwrap();
                    world.write_into(id, id).await;
                }
                if self == Act::DeleteGroup {
                    create_group(world).await.unwrap();
                }
            }
        }
    }

    /// Does it; the answer in words.
    pub(super) async fn call(self, world: &mut World) -> Result<String, Status> {
        let usage = world.usage;
        match self {
            Act::Create => create(world, usage.create(MADE)).await,
            Act::Clone => create(world, from_volume(usage.create(MADE), SUBJECT)).await,
            Act::Restore => create(world, from_snapshot(usage.create(MADE), CUT)).await,
            Act::Delete => world.driver.delete(MADE).await.map(|()| String::new()),
            Act::Expand => {
                let grown = world.driver.expand(MADE, usage.bytes + GROWTH_BYTES).await;
                grown.map(|grown| format!("{grown:?}"))
            }
            Act::Snapshot => {
                let cut = world.driver.snapshot(MADE, SUBJECT).await?;
                Ok(in_words(vec![cut]))
            }
            Act::DeleteSnapshot => world.driver.delete_snapshot(MADE).await.map(|()| String::new()),
            Act::Group => create_group(world).await.map(in_words),
            Act::Modify => modify(world).await.map(|()| String::new()),
            // The generation is the driver's affair.
            Act::Attach => world
                .attach(MADE)
                .await
                .map(|context| format!("{:?}", context.keys())),
            Act::Stage => world.stage(MADE).await.map(|()| String::new()),
            Act::Publish => world.publish(MADE).await.map(|()| String::new()),
            Act::Unpublish => world.unpublish(MADE).await.map(|()| String::new()),
            Act::Unstage => world.unstage(MADE).await.map(|()| String::new()),
            Act::DeleteGroup => delete_group(world).await.map(|()| String::new()),
        }
    }

    /// What can be seen of its success.
    pub(super) async fn shown(self, world: &mut World, answer: String) -> Shown {
        let contents = match self {
            Act::Create | Act::Clone | Act::Restore | Act::Expand => vec![world.content_of(MADE).await],
            Act::Snapshot => vec![world.content_of_snapshot(MADE).await],
            Act::Group => {
                let mut contents = Vec::new();
                for id in IDLE {
                    let snapshots = world.driver.snapshots_of(id).await;
                    contents.push(world.content_of_snapshot(&snapshots[0]).await);
                }
                contents
            }
            Act::Stage => {
                world.publish(MADE).await.unwrap();
                let seen = vec![world.content_at(MADE), Some(world.size_at(MADE))];
                world.unpublish(MADE).await.unwrap();
                seen
            }
            Act::Publish => vec![world.content_at(MADE), Some(world.owner_at(MADE))],
            Act::Unpublish => {
                world.publish(MADE).await.unwrap();
                let seen = vec![world.content_at(MADE)];
                world.unpublish(MADE).await.unwrap();
                seen
            }
            Act::Unstage => vec![world.content_of(MADE).await],
            Act::Modify => vec![Some(world.direct_io_of(MADE))],
            Act::Attach | Act::Delete | Act::DeleteSnapshot | Act::DeleteGroup => vec![],
        };
        Shown { answer, contents }
    }

    /// Removes what it has made and what it needed.
    pub(super) async fn undo(self, world: &mut World) {
        match self {
            Act::Create | Act::Clone | Act::Restore | Act::Expand => {
                world.driver.delete(MADE).await.unwrap();
                if self == Act::Restore {
                    world.driver.delete_snapshot(CUT).await.unwrap();
                }
            }
            Act::Snapshot => world.driver.delete_snapshot(MADE).await.unwrap(),
            Act::Attach => {
                world.detach(MADE).await.unwrap();
                world.driver.delete(MADE).await.unwrap();
            }
            Act::Modify | Act::Stage | Act::Publish | Act::Unpublish | Act::Unstage => {
                world.unpublish(MADE).await.unwrap();
                world.unstage(MADE).await.unwrap();
                world.driver.delete(MADE).await.unwrap();
            }
            Act::Group | Act::DeleteGroup => {
                if self == Act::Group {
                    delete_group(world).await.unwrap();
                }
                for id in IDLE {
                    world.driver.delete(id).await.unwrap();
                }
            }
            Act::Delete | Act::DeleteSnapshot => {}
        }
    }
}

async fn modify(world: &mut World) -> Result<(), Status> {
    let request = csi::ControllerModifyVolumeRequest {
        volume_id: MADE.into(),
        mutable_parameters: [("directIO".to_owned(), "true".to_owned())].into(),
        ..Default::default()
    };
    let modified = world.driver.controller.controller_modify_volume(request).await;
    modified.map(drop)
}

async fn create(world: &mut World, request: csi::CreateVolumeRequest) -> Result<String, Status> {
    Ok(format!("{:?}", world.driver.create(request).await?))
}

fn in_words(mut snapshots: Vec<csi::Snapshot>) -> String {
    snapshots.sort_by(|one, two| one.snapshot_id.cmp(&two.snapshot_id));
    for snapshot in &mut snapshots {
        assert!(snapshot.creation_time.take().is_some(), "{snapshot:?}");
    }
    format!("{snapshots:?}")
}

async fn create_group(world: &mut World) -> Result<Vec<csi::Snapshot>, Status> {
    let request = csi::CreateVolumeGroupSnapshotRequest {
        name: GROUP.into(),
        source_volume_ids: IDLE.map(str::to_owned).to_vec(),
        ..Default::default()
    };
    let answer = world.driver.groups.create_volume_group_snapshot(request).await?;
    let group = answer.into_inner().group_snapshot.unwrap();
    assert_eq!(group.group_snapshot_id, GROUP);
    Ok(group.snapshots)
}

async fn delete_group(world: &mut World) -> Result<(), Status> {
    let request = csi::DeleteVolumeGroupSnapshotRequest {
        group_snapshot_id: GROUP.into(),
        ..Default::default()
    };
    let deleted = world.driver.groups.delete_volume_group_snapshot(request).await;
    deleted.map(drop)
}
