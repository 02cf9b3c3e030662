//! Snapshots: cut, listed, found, restored, removed.

use moorline_proto::csi::{
    self,
    volume_content_source::{SnapshotSource, Type},
};
use tonic::Code;

use super::{
    Checked, Demand, Fault,
    context::{Context, UNKNOWN_ID, all_pages, demand_that, ok, refused, unknown_token_refused},
    demand,
};

pub(super) const DEMANDS: &[Demand] = &[
    demand!(
        "a snapshot without a name or a source is refused",
        ["controller.CreateDeleteSnapshot"],
        incomplete
    ),
    demand!(
        "a snapshot that is repeated is the same",
        ["controller.CreateDeleteSnapshot"],
        repeated
    ),
    demand!(
        "a snapshot name taken by another volume is refused",
        ["controller.CreateDeleteSnapshot"],
        name_taken
    ),
    demand!(
        "deleting a snapshot can be repeated",
        ["controller.CreateDeleteSnapshot"],
        delete_twice
    ),
    demand!(
        "a volume is made from a snapshot",
        ["controller.CreateDeleteSnapshot"],
        restore
    ),
    demand!(
        "a volume is not made from an unknown snapshot",
        ["controller.CreateDeleteSnapshot"],
        restore_unknown
    ),
    demand!(
        "snapshots are listed by id and by volume",
        ["controller.ListSnapshots", "controller.CreateDeleteSnapshot"],
        list
    ),
    demand!(
        "a made-up token for snapshots is refused",
        ["controller.ListSnapshots"],
        bad_token
    ),
    demand!(
        "a snapshot is found by its id",
        ["controller.GetSnapshot", "controller.CreateDeleteSnapshot"],
        get
    ),
];

async fn incomplete(context: &Context) -> Checked {
    let cases = [("", "v"), ("s", "")];
    for (name, source) in cases {
        let request = csi::CreateSnapshotRequest {
            name: name.to_owned(),
            source_volume_id: source.to_owned(),
            ..Default::default()
        };
        let what = format!("CreateSnapshot with name {name:?} and source_volume_id {source:?}");
        refused(
            &what,
            Code::InvalidArgument,
            context.controller().create_snapshot(request).await,
        )?;
    }
    Ok(())
}

async fn repeated(context: &Context) -> Checked {
    let volume = context.volume().await?;
    let name = context.name();
    let first = context.snapshot_named(&name, &volume.volume_id).await?;
    let second = context.snapshot_named(&name, &volume.volume_id).await?;
    let same = |snapshot: &csi::Snapshot| (snapshot.snapshot_id.clone(), snapshot.creation_time);
    demand_that(same(&first) == same(&second), || {
        "id or time changes when asked again".to_owned()
    })?;
    demand_that(first.creation_time.is_some(), || {
        "creation_time is missing".to_owned()
    })?;
    demand_that(first.source_volume_id == volume.volume_id, || {
        "source_volume_id is another".to_owned()
    })
}

async fn name_taken(context: &Context) -> Checked {
    let name = context.name();
    let (first, second) = (context.volume().await?, context.volume().await?);
    context.snapshot_named(&name, &first.volume_id).await?;
    let request = csi::CreateSnapshotRequest {
        name,
        source_volume_id: second.volume_id,
        secrets: context.secrets(),
        ..Default::default()
    };
    let answer = context.controller().create_snapshot(request).await;
    refused(
        "CreateSnapshot of another volume with a taken name",
        Code::AlreadyExists,
        answer,
    )
}

async fn delete_twice(context: &Context) -> Checked {
    let volume = context.volume().await?;
    let snapshot = context.snapshot_named(&context.name(), &volume.volume_id).await?;
    context.delete_snapshot(&snapshot.snapshot_id).await?;
    context.delete_snapshot(&snapshot.snapshot_id).await?;
    context.delete_snapshot(UNKNOWN_ID).await?;
    let answer = context
        .controller()
        .delete_snapshot(csi::DeleteSnapshotRequest::default())
        .await;
    refused(
        "DeleteSnapshot without snapshot_id",
        Code::InvalidArgument,
        answer,
    )
}

fn source(snapshot_id: &str) -> Type {
    Type::Snapshot(SnapshotSource {
        snapshot_id: snapshot_id.to_owned(),
    })
}

async fn restore(context: &Context) -> Checked {
    let volume = context.volume().await?;
    let snapshot = context.snapshot_named(&context.name(), &volume.volume_id).await?;
    if !snapshot.ready_to_use {
        return Err(Fault::Skipped(
            "the snapshot is not ready to use at once".to_owned(),
        ));
    }
    context.volume_from(source(&snapshot.snapshot_id)).await.map(drop)
}

async fn restore_unknown(context: &Context) -> Checked {
    context
        .no_volume_from("an unknown snapshot", source(UNKNOWN_ID))
        .await
}

async fn listed(context: &Context, source_volume_id: &str, snapshot_id: &str) -> Result<Vec<String>, Fault> {
    let entries = all_pages(1, |starting_token| async move {
        let request = csi::ListSnapshotsRequest {
            max_entries: 1,
            starting_token,
            source_volume_id: source_volume_id.to_owned(),
            snapshot_id: snapshot_id.to_owned(),
            secrets: context.secrets(),
        };
        let page = ok(
            "ListSnapshots",
            context.controller().list_snapshots(request).await,
        )?;
        Ok((page.entries, page.next_token))
    });
    let snapshots = entries.await?.into_iter().filter_map(|entry| entry.snapshot);
    Ok(snapshots.map(|snapshot| snapshot.snapshot_id).collect())
}

async fn list(context: &Context) -> Checked {
    let (volume, other) = (context.volume().await?, context.volume().await?);
    let mut of_volume = Vec::new();
    for _ in 0..2 {
        of_volume.push(
            context
                .snapshot_named(&context.name(), &volume.volume_id)
                .await?
                .snapshot_id,
        );
    }
    let of_other = context
        .snapshot_named(&context.name(), &other.volume_id)
        .await?
        .snapshot_id;
    let mut found = listed(context, &volume.volume_id, "").await?;
    found.sort();
    of_volume.sort();
    demand_that(found == of_volume, || {
        format!("by volume {found:?} are found, not {of_volume:?}")
    })?;
    let found = listed(context, "", &of_other).await?;
    demand_that(found == [of_other], || format!("by id {found:?} are found"))?;
    let found = listed(context, "", UNKNOWN_ID).await?;
    demand_that(found.is_empty(), || {
        format!("by an unknown id {found:?} are found")
    })?;
    let found = listed(context, UNKNOWN_ID, "").await?;
    demand_that(found.is_empty(), || {
        format!("by an unknown volume {found:?} are found")
    })
}

async fn bad_token(context: &Context) -> Checked {
    unknown_token_refused("ListSnapshots", |starting_token| async move {
        let request = csi::ListSnapshotsRequest {
            starting_token,
            ..Default::default()
        };
        context.controller().list_snapshots(request).await
    })
    .await
}

async fn get(context: &Context) -> Checked {
    let volume = context.volume().await?;
    let snapshot = context.snapshot_named(&context.name(), &volume.volume_id).await?;
    let request = |snapshot_id: &str| csi::GetSnapshotRequest {
        snapshot_id: snapshot_id.to_owned(),
        secrets: context.secrets(),
    };
    let answer = context
        .controller()
        .get_snapshot(request(&snapshot.snapshot_id))
        .await;
    let found = ok("GetSnapshot", answer)?.snapshot.unwrap_or_default();
    demand_that(found.snapshot_id == snapshot.snapshot_id, || {
        "another snapshot is found".to_owned()
    })?;
    let answer = context.controller().get_snapshot(request(UNKNOWN_ID)).await;
    refused("GetSnapshot of an unknown snapshot", Code::NotFound, answer)
}
