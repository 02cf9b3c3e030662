//! The node: who it is, and a volume's way to a workload and back.

use std::{future::Future, path::Path};

use moorline_proto::csi;
use tonic::Code;

use super::{
    Checked, Demand, Fault,
    context::{Context, UNKNOWN_ID, demand_that, ok, refused},
    demand,
};

pub(super) const DEMANDS: &[Demand] = &[
    demand!("the node has an id", ["NodeService"], info),
    demand!(
        "incomplete node requests are refused",
        ["NodeService"],
        incomplete
    ),
    demand!(
        "staging without a path is refused",
        ["node.StageUnstageVolume"],
        stage_nowhere
    ),
    demand!(
        "usage of an unknown volume is not found",
        ["node.GetVolumeStats"],
        stats_unknown
    ),
    demand!(
        "a volume is staged and published, each twice, and back",
        ["NodeService", "controller.CreateDeleteVolume"],
        life
    ),
    demand!(
        "a published volume grows on its node, also twice",
        [
            "node.ExpandVolume",
            "controller.ExpandVolume",
            "controller.CreateDeleteVolume"
        ],
        grow
    ),
    demand!(
        "an unknown volume does not grow on a node",
        ["node.ExpandVolume"],
        grow_unknown
    ),
    demand!(
        "growing on a node without an id or a path is refused",
        ["node.ExpandVolume"],
        grow_incomplete
    ),
];

async fn info(context: &Context) -> Checked {
    let answer = ok(
        "NodeGetInfo",
        context.node().node_get_info(csi::NodeGetInfoRequest {}).await,
    )?;
    let length = answer.node_id.len();
    demand_that((1..=256).contains(&length), || {
        format!("node_id has {length} bytes")
    })?;
    demand_that(answer.max_volumes_per_node >= 0, || {
        "max_volumes_per_node is negative".to_owned()
    })
}

async fn incomplete(context: &Context) -> Checked {
    let mut node = context.node();
    let answer = node
        .node_publish_volume(csi::NodePublishVolumeRequest::default())
        .await;
    refused(
        "NodePublishVolume without volume_id",
        Code::InvalidArgument,
        answer,
    )?;
    let request = csi::NodePublishVolumeRequest {
        volume_id: "v".to_owned(),
        volume_capability: Some(context.capability()),
        ..Default::default()
    };
    let answer = node.node_publish_volume(request).await;
    refused(
        "NodePublishVolume without target_path",
        Code::InvalidArgument,
        answer,
    )?;
    let answer = node
        .node_unpublish_volume(csi::NodeUnpublishVolumeRequest::default())
        .await;
    refused(
        "NodeUnpublishVolume without volume_id",
        Code::InvalidArgument,
        answer,
    )
}

async fn stage_nowhere(context: &Context) -> Checked {
    let request = csi::NodeStageVolumeRequest {
        volume_id: "v".to_owned(),
        volume_capability: Some(context.capability()),
        ..Default::default()
    };
    let answer = context.node().node_stage_volume(request).await;
    refused(
        "NodeStageVolume without staging_target_path",
        Code::InvalidArgument,
        answer,
    )?;
    let answer = context
        .node()
        .node_unstage_volume(csi::NodeUnstageVolumeRequest::default())
        .await;
    refused(
        "NodeUnstageVolume without volume_id",
        Code::InvalidArgument,
        answer,
    )
}

async fn stats_unknown(context: &Context) -> Checked {
    let request = csi::NodeGetVolumeStatsRequest {
        volume_id: UNKNOWN_ID.to_owned(),
        volume_path: "/conformance/nobody/is/here".to_owned(),
        ..Default::default()
    };
    let answer = context.node().node_get_volume_stats(request).await;
    refused("NodeGetVolumeStats of an unknown volume", Code::NotFound, answer)
}

/// One volume on its way.
struct Way<'a> {
    context: &'a Context,
    volume: csi::Volume,
    node_id: String,
    publish_context: std::collections::HashMap<String, String>,
    staging: String,
    target: String,
}

/// Takes a new volume to its target, looks at it there with `there`, and takes it back.
async fn on_the_way<'a, F>(context: &'a Context, there: impl FnOnce(Way<'a>) -> F) -> Checked
where
    F: Future<Output = (Way<'a>, Checked)>,
{
    let Some(directory) = &context.options.node_dir else {
        return Err(Fault::Skipped("the options have no node_dir".to_owned()));
    };
    let (staging, target) = (directory.join("staging"), directory.join("target"));
    std::fs::create_dir_all(&staging).map_err(|error| format!("make {}: {error}", staging.display()))?;
    let mut way = Way {
        context,
        volume: context.volume().await?,
        node_id: context.node_id().await?,
        publish_context: Default::default(),
        staging: staging.display().to_string(),
        target: target.display().to_string(),
    };
    let (way, seen) = match way.there(&target).await {
        Ok(()) => there(way).await,
        Err(fault) => (way, Err(fault)),
    };
    let back = way.back().await;
    // The first fault is the cause.
    seen.and(back)?;
    demand_that(!target.exists(), || {
        format!("{} is still there after NodeUnpublishVolume", way.target)
    })?;
    std::fs::remove_dir(&staging).map_err(|error| Fault::Failed(format!("remove {}: {error}", way.staging)))
}

async fn life(context: &Context) -> Checked {
    on_the_way(context, |way| async move {
        let measured = way.measure().await;
        (way, measured)
    })
    .await
}

async fn grow(context: &Context) -> Checked {
    if context.has("VolumeExpansion.Offline") {
        return Err(Fault::Skipped(
            "volumes grow only while nobody uses them".to_owned(),
        ));
    }
    on_the_way(context, |way| async move {
        let grown = way.grow().await;
        (way, grown)
    })
    .await
}

fn expand_request(context: &Context, volume_id: &str, path: &str) -> csi::NodeExpandVolumeRequest {
    csi::NodeExpandVolumeRequest {
        volume_id: volume_id.to_owned(),
        volume_path: path.to_owned(),
        capacity_range: Some(csi::CapacityRange {
            required_bytes: context.bytes() * 2,
            limit_bytes: 0,
        }),
        volume_capability: Some(context.capability()),
        secrets: context.secrets(),
        ..Default::default()
    }
}

async fn grow_unknown(context: &Context) -> Checked {
    let request = expand_request(context, UNKNOWN_ID, "/conformance/nobody/is/here");
    let answer = context.node().node_expand_volume(request).await;
    refused("NodeExpandVolume of an unknown volume", Code::NotFound, answer)
}

async fn grow_incomplete(context: &Context) -> Checked {
    for (volume_id, path) in [("", "/conformance"), ("v", "")] {
        let request = expand_request(context, volume_id, path);
        let answer = context.node().node_expand_volume(request).await;
        let what = format!("NodeExpandVolume with volume_id {volume_id:?} and volume_path {path:?}");
        refused(&what, Code::InvalidArgument, answer)?;
    }
    Ok(())
}

impl Way<'_> {
    fn stages(&self) -> bool {
        self.context.has("node.StageUnstageVolume")
    }

    async fn there(&mut self, target: &Path) -> Checked {
        let context = self.context;
        if context.has("controller.PublishUnpublishVolume") {
            let request = context.attach_request(&self.volume, &self.node_id);
            let answer = context.controller().controller_publish_volume(request).await;
            self.publish_context = ok("ControllerPublishVolume", answer)?.publish_context;
        }
        if self.stages() {
            for _ in 0..2 {
                let request = csi::NodeStageVolumeRequest {
                    volume_id: self.volume.volume_id.clone(),
                    publish_context: self.publish_context.clone(),
                    staging_target_path: self.staging.clone(),
                    volume_capability: Some(context.capability()),
                    secrets: context.secrets(),
                    volume_context: self.volume.volume_context.clone(),
                };
                ok("NodeStageVolume", context.node().node_stage_volume(request).await)?;
            }
        }
        for _ in 0..2 {
            let request = csi::NodePublishVolumeRequest {
                volume_id: self.volume.volume_id.clone(),
                publish_context: self.publish_context.clone(),
                staging_target_path: self.staging_if_any(),
                target_path: self.target.clone(),
                volume_capability: Some(context.capability()),
                readonly: false,
                secrets: context.secrets(),
                volume_context: self.volume.volume_context.clone(),
            };
            ok(
                "NodePublishVolume",
                context.node().node_publish_volume(request).await,
            )?;
        }
        demand_that(target.exists(), || {
            format!("nothing is at {} after NodePublishVolume", self.target)
        })
    }

    async fn grow(&self) -> Checked {
        let context = self.context;
        let wanted = context.bytes() * 2;
        let request = context.expand_request(&self.volume.volume_id);
        let answer = context.controller().controller_expand_volume(request).await;
        ok("ControllerExpandVolume", answer)?;
        for _ in 0..2 {
            let request = csi::NodeExpandVolumeRequest {
                staging_target_path: self.staging_if_any(),
                ..expand_request(context, &self.volume.volume_id, &self.target)
            };
            let answer = context.node().node_expand_volume(request).await;
            let size = ok("NodeExpandVolume", answer)?.capacity_bytes;
            demand_that(size == 0 || size >= wanted, || {
                format!("the volume has {size} bytes on the node, {wanted} were required")
            })?;
        }
        Ok(())
    }

    fn staging_if_any(&self) -> String {
        if self.stages() {
            self.staging.clone()
        } else {
            String::new()
        }
    }

    async fn measure(&self) -> Checked {
        if !self.context.has("node.GetVolumeStats") {
            return Ok(());
        }
        let request = csi::NodeGetVolumeStatsRequest {
            volume_id: self.volume.volume_id.clone(),
            volume_path: self.target.clone(),
            ..Default::default()
        };
        let answer = ok(
            "NodeGetVolumeStats",
            self.context.node().node_get_volume_stats(request).await,
        )?;
        let makes_sense =
            |usage: &csi::VolumeUsage| usage.total >= 0 && usage.used >= 0 && usage.available >= 0;
        demand_that(answer.usage.iter().all(makes_sense), || {
            format!("{:?}", answer.usage)
        })?;
        let is_told = answer.volume_condition.is_some() || !self.context.has("node.VolumeCondition");
        demand_that(is_told, || "volume_condition is missing".to_owned())
    }

    async fn back(&self) -> Checked {
        let context = self.context;
        for _ in 0..2 {
            let request = csi::NodeUnpublishVolumeRequest {
                volume_id: self.volume.volume_id.clone(),
                target_path: self.target.clone(),
            };
            ok(
                "NodeUnpublishVolume",
                context.node().node_unpublish_volume(request).await,
            )?;
        }
        if self.stages() {
            for _ in 0..2 {
                let request = csi::NodeUnstageVolumeRequest {
                    volume_id: self.volume.volume_id.clone(),
                    staging_target_path: self.staging.clone(),
                };
                ok(
                    "NodeUnstageVolume",
                    context.node().node_unstage_volume(request).await,
                )?;
            }
        }
        if context.has("controller.PublishUnpublishVolume") {
            context.detach(&self.volume, &self.node_id).await?;
        }
        Ok(())
    }
}
