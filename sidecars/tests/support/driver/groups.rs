//! The driver's group snapshots.

use std::collections::BTreeMap;

use moorline_proto::csi::group_controller_server::GroupController;
use moorline_proto::csi::group_controller_service_capability::{Rpc, Type, rpc};
use moorline_proto::csi::*;
use tonic::{Request, Response, Status};

use super::Driver;

/// A group snapshot.
#[derive(Clone, Debug, Default)]
pub struct CutGroup {
    pub id: String,
    pub volume_ids: Vec<String>,
    /// How often it was asked for.
    pub asked: u32,
}

impl Driver {
    /// From now on it takes group snapshots.
    pub fn serve_groups(&self) {
        self.state.lock().serves_groups = true;
    }

    /// Group snapshots that exist, by name.
    pub fn groups(&self) -> BTreeMap<String, CutGroup> {
        self.state.lock().groups.clone()
    }

    /// A group snapshot that exists from the start; its id is its name, its members those of these volumes.
    pub fn cut_group(&self, name: &str, volume_ids: &[&str]) {
        let cut = CutGroup {
            id: name.to_string(),
            volume_ids: volume_ids.iter().map(|id| (*id).to_string()).collect(),
            asked: 0,
        };
        self.state.lock().groups.insert(name.to_string(), cut);
    }

    /// Group snapshots don't have these volumes.
    pub fn leave_out(&self, volume_ids: &[&str]) {
        self.state.lock().left_out = volume_ids.iter().map(|id| (*id).to_string()).collect();
    }

    /// Secrets and parameters of the last call for a group snapshot that had some.
    pub fn told(&self) -> BTreeMap<String, String> {
        self.state.lock().told.clone()
    }
}

fn group_of(cut: &CutGroup, left_out: &[String], ready_to_use: bool) -> VolumeGroupSnapshot {
    let members = cut.volume_ids.iter().filter(|id| !left_out.contains(id));
    VolumeGroupSnapshot {
        group_snapshot_id: cut.id.clone(),
        snapshots: members
            .map(|volume_id| Snapshot {
                snapshot_id: format!("{}-{volume_id}", cut.id),
                source_volume_id: volume_id.clone(),
                size_bytes: 1 << 30,
                ready_to_use,
                group_snapshot_id: cut.id.clone(),
                ..Default::default()
            })
            .collect(),
        ready_to_use,
        ..Default::default()
    }
}

#[tonic::async_trait]
impl GroupController for Driver {
    async fn group_controller_get_capabilities(
        &self,
        _: Request<GroupControllerGetCapabilitiesRequest>,
    ) -> Result<Response<GroupControllerGetCapabilitiesResponse>, Status> {
        let all = rpc::Type::CreateDeleteGetVolumeGroupSnapshot as i32;
        let capability = GroupControllerServiceCapability {
            r#type: Some(Type::Rpc(Rpc { r#type: all })),
        };
        Ok(Response::new(GroupControllerGetCapabilitiesResponse {
            capabilities: vec![capability],
        }))
    }

    async fn create_volume_group_snapshot(
        &self,
        request: Request<CreateVolumeGroupSnapshotRequest>,
    ) -> Result<Response<CreateVolumeGroupSnapshotResponse>, Status> {
        let request = request.into_inner();
        let name = request.name.clone();
        self.follow("CreateVolumeGroupSnapshot", &name, |state| {
            state
                .told
                .extend(request.parameters.into_iter().chain(request.secrets));
            let (id, ready_after) = (format!("group-{}", state.groups.len() + 1), state.ready_after);
            let cut = state.groups.entry(name.clone()).or_insert_with(|| CutGroup {
                id,
                volume_ids: request.source_volume_ids.clone(),
                asked: 0,
            });
            cut.asked += 1;
            let group = group_of(cut, &state.left_out, cut.asked > ready_after);
            Ok(CreateVolumeGroupSnapshotResponse {
                group_snapshot: Some(group),
            })
        })
        .await
    }

    async fn delete_volume_group_snapshot(
        &self,
        request: Request<DeleteVolumeGroupSnapshotRequest>,
    ) -> Result<Response<DeleteVolumeGroupSnapshotResponse>, Status> {
        let request = request.into_inner();
        let id = request.group_snapshot_id.clone();
        let detail = format!("{id} {}", request.snapshot_ids.join(","));
        self.follow("DeleteVolumeGroupSnapshot", &detail, |state| {
            state.told.extend(request.secrets);
            state.groups.retain(|_, cut| cut.id != id);
            Ok(DeleteVolumeGroupSnapshotResponse {})
        })
        .await
    }

    async fn get_volume_group_snapshot(
        &self,
        request: Request<GetVolumeGroupSnapshotRequest>,
    ) -> Result<Response<GetVolumeGroupSnapshotResponse>, Status> {
        let request = request.into_inner();
        let id = request.group_snapshot_id.clone();
        let detail = format!("{id} {}", request.snapshot_ids.join(","));
        self.follow("GetVolumeGroupSnapshot", &detail, |state| {
            state.told.extend(request.secrets);
            let found = state.groups.values().find(|cut| cut.id == id);
            let cut = found.ok_or_else(|| Status::not_found("no such group snapshot"))?;
            Ok(GetVolumeGroupSnapshotResponse {
                group_snapshot: Some(group_of(cut, &[], true)),
            })
        })
        .await
    }
}
