//! The node: who it is, and a volume's way to a workload and back.

use std::path::Path;

use moorline_proto::csi;
use tonic::Code;

use super::{
    Checked, Demand, Fault,
    context::{Context, demand_that, ok, refused},
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
        volume_id: "conformance-nobody-has-this-id".to_owned(),
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

async fn life(context: &Context) -> Checked {
    let Some(directory) = &context.options.node_dir else {
        return Err(Fault::Skipped("the options have no node_dir".to_owned()));
    };
    let (staging, target) = (directory.join("staging"), directory.join("target"));
    std::fs::create_dir_all(&staging).map_err(|error| format!("make {}: {error}", staging.display()))?;
    let answer = context.node().node_get_info(csi::NodeGetInfoRequest {}).await;
    let mut way = Way {
        context,
        volume: context.volume().await?,
        node_id: ok("NodeGetInfo", answer)?.node_id,
        publish_context: Default::default(),
        staging: staging.display().to_string(),
        target: target.display().to_string(),
    };
    let there = way.there(&target).await;
    let back = way.back().await;
    // The first fault is the cause.
    there.and(back)?;
    demand_that(!target.exists(), || {
        format!("{} is still there after NodeUnpublishVolume", way.target)
    })?;
    std::fs::remove_dir(&staging).map_err(|error| Fault::Failed(format!("remove {}: {error}", way.staging)))
}

impl Way<'_> {
    fn stages(&self) -> bool {
        self.context.has("node.StageUnstageVolume")
    }

    async fn there(&mut self, target: &Path) -> Checked {
        let context = self.context;
        if context.has("controller.PublishUnpublishVolume") {
            let request = csi::ControllerPublishVolumeRequest {
                volume_id: self.volume.volume_id.clone(),
                node_id: self.node_id.clone(),
                volume_capability: Some(context.capability()),
                readonly: false,
                secrets: context.secrets(),
                volume_context: self.volume.volume_context.clone(),
            };
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
                staging_target_path: if self.stages() {
                    self.staging.clone()
                } else {
                    String::new()
                },
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
        })?;
        self.measure().await
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
            let request = csi::ControllerUnpublishVolumeRequest {
                volume_id: self.volume.volume_id.clone(),
                node_id: self.node_id.clone(),
                secrets: context.secrets(),
            };
            let answer = context.controller().controller_unpublish_volume(request).await;
            ok("ControllerUnpublishVolume", answer)?;
        }
        Ok(())
    }
}
