//! Attachment: to a node and back, to write or only to read, and what the list says of it.

use std::collections::HashMap;

use moorline_proto::csi;
use tonic::Code;

use super::{
    Checked, Demand, Fault,
    context::{Context, UNKNOWN_ID, all_pages, demand_that, ok, refused, unknown_volume},
    demand,
};

pub(super) const DEMANDS: &[Demand] = &[
    demand!(
        "attaching an unknown volume is refused",
        ["controller.PublishUnpublishVolume"],
        attach_unknown
    ),
    demand!(
        "attaching to an unknown node is refused",
        [
            "controller.PublishUnpublishVolume",
            "controller.CreateDeleteVolume"
        ],
        attach_to_unknown
    ),
    demand!(
        "attaching without a node is refused",
        ["controller.PublishUnpublishVolume"],
        attach_nowhere
    ),
    demand!(
        "attach and detach can be repeated",
        [
            "controller.PublishUnpublishVolume",
            "controller.CreateDeleteVolume",
            "NodeService"
        ],
        attach
    ),
    demand!(
        "a volume attached to read is not attached to write as well",
        [
            "controller.PublishReadonly",
            "controller.CreateDeleteVolume",
            "NodeService"
        ],
        attach_to_read
    ),
    demand!(
        "the list knows to which node a volume is attached",
        [
            "controller.ListVolumesPublishedNodes",
            "controller.PublishUnpublishVolume",
            "controller.CreateDeleteVolume",
            "NodeService"
        ],
        nodes_listed
    ),
];

async fn attach_unknown(context: &Context) -> Checked {
    let request = context.attach_request(&unknown_volume(), "conformance-node");
    let answer = context.controller().controller_publish_volume(request).await;
    refused(
        "ControllerPublishVolume of an unknown volume",
        Code::NotFound,
        answer,
    )
}

async fn attach_to_unknown(context: &Context) -> Checked {
    let volume = context.volume().await?;
    let request = context.attach_request(&volume, UNKNOWN_ID);
    let answer = context.controller().controller_publish_volume(request).await;
    refused(
        "ControllerPublishVolume to an unknown node",
        Code::NotFound,
        answer,
    )
}

async fn attach_nowhere(context: &Context) -> Checked {
    let request = context.attach_request(&unknown_volume(), "");
    let answer = context.controller().controller_publish_volume(request).await;
    refused(
        "ControllerPublishVolume without node_id",
        Code::InvalidArgument,
        answer,
    )
}

/// Attaches twice, and gives what the node is to be told.
async fn attached_twice(
    context: &Context,
    request: &csi::ControllerPublishVolumeRequest,
) -> Result<HashMap<String, String>, Fault> {
    let mut contexts = Vec::new();
    for _ in 0..2 {
        let answer = context
            .controller()
            .controller_publish_volume(request.clone())
            .await;
        contexts.push(ok("ControllerPublishVolume", answer)?.publish_context);
    }
    demand_that(contexts[0] == contexts[1], || {
        "publish_context changes when asked again".to_owned()
    })?;
    Ok(contexts.swap_remove(0))
}

async fn attach(context: &Context) -> Checked {
    let volume = context.volume().await?;
    let node_id = context.node_id().await?;
    attached_twice(context, &context.attach_request(&volume, &node_id)).await?;
    for _ in 0..2 {
        context.detach(&volume, &node_id).await?;
    }
    Ok(())
}

async fn attach_to_read(context: &Context) -> Checked {
    let volume = context.volume().await?;
    let node_id = context.node_id().await?;
    let to_write = context.attach_request(&volume, &node_id);
    let to_read = csi::ControllerPublishVolumeRequest {
        readonly: true,
        ..to_write.clone()
    };
    attached_twice(context, &to_read).await?;
    let answer = context.controller().controller_publish_volume(to_write).await;
    let differs = refused(
        "ControllerPublishVolume to write of a volume attached to read",
        Code::AlreadyExists,
        answer,
    );
    // The first fault is the cause.
    differs.and(context.detach(&volume, &node_id).await)
}

/// The nodes of a volume, as the list and the lookup, where there is one, have them.
async fn nodes_of(context: &Context, volume_id: &str) -> Result<Vec<Vec<String>>, Fault> {
    let entries = all_pages(0, |starting_token| async move {
        let request = csi::ListVolumesRequest {
            max_entries: 0,
            starting_token,
        };
        let page = ok("ListVolumes", context.controller().list_volumes(request).await)?;
        Ok((page.entries, page.next_token))
    });
    let is_it = |entry: &csi::list_volumes_response::Entry| {
        entry
            .volume
            .as_ref()
            .is_some_and(|volume| volume.volume_id == volume_id)
    };
    let entry = entries.await?.into_iter().find(is_it);
    let entry = entry.ok_or_else(|| format!("{volume_id} is not listed"))?;
    let mut told = vec![entry.status.unwrap_or_default().published_node_ids];
    if context.has("controller.GetVolume") {
        let request = csi::ControllerGetVolumeRequest {
            volume_id: volume_id.to_owned(),
        };
        let answer = context.controller().controller_get_volume(request).await;
        let status = ok("ControllerGetVolume", answer)?.status.unwrap_or_default();
        told.push(status.published_node_ids);
    }
    Ok(told)
}

async fn nodes_listed(context: &Context) -> Checked {
    let volume = context.volume().await?;
    let node_id = context.node_id().await?;
    let request = context.attach_request(&volume, &node_id);
    let answer = context.controller().controller_publish_volume(request).await;
    ok("ControllerPublishVolume", answer)?;
    let during = nodes_of(context, &volume.volume_id).await;
    context.detach(&volume, &node_id).await?;
    let after = nodes_of(context, &volume.volume_id).await?;
    for told in during? {
        demand_that(told == [node_id.clone()], || {
            format!("published_node_ids is {told:?} while the volume is attached to {node_id}")
        })?;
    }
    for told in after {
        demand_that(told.is_empty(), || {
            format!("published_node_ids is {told:?} after the volume was detached")
        })?;
    }
    Ok(())
}
