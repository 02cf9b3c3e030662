//! Group snapshots: cut, found, removed.

use moorline_proto::csi;
use tonic::Code;

use super::{
    Checked, Demand,
    context::{Context, UNKNOWN_ID, demand_that, ok, refused},
    demand,
};

pub(super) const DEMANDS: &[Demand] = &[
    demand!(
        "a group without volumes is refused",
        ["GroupControllerService"],
        incomplete
    ),
    demand!(
        "a group is cut once, found and removed",
        ["GroupControllerService", "controller.CreateDeleteVolume"],
        life
    ),
    demand!(
        "an unknown group is not found",
        ["GroupControllerService"],
        get_unknown
    ),
];

async fn incomplete(context: &Context) -> Checked {
    let request = csi::CreateVolumeGroupSnapshotRequest {
        name: context.name(),
        ..Default::default()
    };
    let answer = context
        .group_controller()
        .create_volume_group_snapshot(request)
        .await;
    refused(
        "CreateVolumeGroupSnapshot without source_volume_ids",
        Code::InvalidArgument,
        answer,
    )
}

async fn life(context: &Context) -> Checked {
    let request = csi::CreateVolumeGroupSnapshotRequest {
        name: context.name(),
        source_volume_ids: vec![
            context.volume().await?.volume_id,
            context.volume().await?.volume_id,
        ],
        secrets: context.secrets(),
        ..Default::default()
    };
    let mut groups = Vec::new();
    for _ in 0..2 {
        let answer = context
            .group_controller()
            .create_volume_group_snapshot(request.clone())
            .await;
        let group = ok("CreateVolumeGroupSnapshot", answer)?
            .group_snapshot
            .unwrap_or_default();
        context.made_group(&group);
        groups.push(group);
    }
    let (group, again) = (&groups[0], &groups[1]);
    demand_that(group.group_snapshot_id == again.group_snapshot_id, || {
        "the same name became two groups".to_owned()
    })?;
    let mut sources: Vec<_> = group
        .snapshots
        .iter()
        .map(|member| member.source_volume_id.clone())
        .collect();
    sources.sort();
    let mut wanted = request.source_volume_ids.clone();
    wanted.sort();
    demand_that(sources == wanted, || {
        format!("the group has snapshots of {sources:?}, not of {wanted:?}")
    })?;
    let knows_group = |member: &csi::Snapshot| member.group_snapshot_id == group.group_snapshot_id;
    demand_that(group.snapshots.iter().all(knows_group), || {
        "a member does not name its group".to_owned()
    })?;
    let answer = context
        .group_controller()
        .get_volume_group_snapshot(get_request(&group.group_snapshot_id))
        .await;
    let found = ok("GetVolumeGroupSnapshot", answer)?
        .group_snapshot
        .unwrap_or_default();
    demand_that(found.snapshots.len() == group.snapshots.len(), || {
        "the group has other members".to_owned()
    })?;
    context.delete_group(&group.group_snapshot_id).await?;
    context.delete_group(&group.group_snapshot_id).await?;
    let answer = context
        .group_controller()
        .get_volume_group_snapshot(get_request(&group.group_snapshot_id))
        .await;
    refused("GetVolumeGroupSnapshot after its end", Code::NotFound, answer)
}

fn get_request(group_snapshot_id: &str) -> csi::GetVolumeGroupSnapshotRequest {
    csi::GetVolumeGroupSnapshotRequest {
        group_snapshot_id: group_snapshot_id.to_owned(),
        ..Default::default()
    }
}

async fn get_unknown(context: &Context) -> Checked {
    let request = get_request(UNKNOWN_ID);
    let answer = context
        .group_controller()
        .get_volume_group_snapshot(request)
        .await;
    refused(
        "GetVolumeGroupSnapshot of an unknown group",
        Code::NotFound,
        answer,
    )
}
