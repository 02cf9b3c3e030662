//! The identity service: who the driver is, what it serves, whether it is ready.

use std::sync::Arc;

use moorline_proto::csi::{
    GetPluginCapabilitiesRequest, GetPluginCapabilitiesResponse, GetPluginInfoRequest, GetPluginInfoResponse,
    ProbeRequest, ProbeResponse, identity_server::Identity,
};
use tonic::{Request, Response, Status};

use super::capabilities;
use crate::{
    driver::{DriverInfo, Groups},
    operations::Operations,
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
            capabilities: capabilities::plugin(&self.groups),
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
