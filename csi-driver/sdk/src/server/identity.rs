//! The identity service: who the driver is, what it serves, whether it is ready.

use std::sync::Arc;

use moorline_proto::csi::{
    GetPluginCapabilitiesRequest, GetPluginCapabilitiesResponse, GetPluginInfoRequest, GetPluginInfoResponse,
    PluginCapability, ProbeRequest, ProbeResponse,
    identity_server::Identity,
    plugin_capability::{Service, Type, VolumeExpansion, service, volume_expansion},
};
use tonic::{Request, Response, Status};

use crate::{
    driver::{DriverInfo, Groups},
    operations::Operations,
    traits::ExpansionTime,
};

#[derive(Debug)]
pub(crate) struct IdentityService {
    info: DriverInfo,
    groups: Arc<Groups>,
    operations: Operations,
}

impl IdentityService {
    pub(crate) fn new(info: DriverInfo, groups: Arc<Groups>, operations: Operations) -> Self {
        IdentityService {
            info,
            groups,
            operations,
        }
    }
}

fn capabilities(groups: &Groups) -> Vec<PluginCapability> {
    let services = [
        (groups.volumes.is_some(), service::Type::ControllerService),
        (groups.has_topology, service::Type::VolumeAccessibilityConstraints),
        (
            groups.group_snapshots.is_some(),
            service::Type::GroupControllerService,
        ),
        (
            groups.snapshot_metadata.is_some(),
            service::Type::SnapshotMetadataService,
        ),
    ];
    let services = services
        .into_iter()
        .filter(|(is_served, _)| *is_served)
        .map(|(_, service)| {
            Type::Service(Service {
                r#type: service.into(),
            })
        });
    let time = match groups.expansion.as_ref().map(|expansion| expansion.time()) {
        Some(ExpansionTime::Online) => Some(volume_expansion::Type::Online),
        Some(ExpansionTime::Offline) => Some(volume_expansion::Type::Offline),
        // A driver that only grows filesystems on nodes does so while they are mounted.
        None if groups.node_expansion.is_some() => Some(volume_expansion::Type::Online),
        None => None,
    };
    let expansion = time.map(|time| Type::VolumeExpansion(VolumeExpansion { r#type: time.into() }));
    services
        .chain(expansion)
        .map(|kind| PluginCapability { r#type: Some(kind) })
        .collect()
}

#[tonic::async_trait]
impl Identity for IdentityService {
    async fn get_plugin_info(
        &self,
        _request: Request<GetPluginInfoRequest>,
    ) -> Result<Response<GetPluginInfoResponse>, Status> {
        Ok(Response::new(GetPluginInfoResponse {
            name: self.info.name.clone(),
            vendor_version: self.info.vendor_version.clone(),
            manifest: self.info.manifest.iter().cloned().collect(),
        }))
    }

    async fn get_plugin_capabilities(
        &self,
        _request: Request<GetPluginCapabilitiesRequest>,
    ) -> Result<Response<GetPluginCapabilitiesResponse>, Status> {
        Ok(Response::new(GetPluginCapabilitiesResponse {
            capabilities: capabilities(&self.groups),
        }))
    }

    async fn probe(&self, _request: Request<ProbeRequest>) -> Result<Response<ProbeResponse>, Status> {
        let ready = match &self.groups.readiness {
            _ if self.operations.is_stopping() => false,
            Some(readiness) => readiness.is_ready().await?,
            None => true,
        };
        Ok(Response::new(ProbeResponse { ready: Some(ready) }))
    }
}
