//! A driver that stores nothing: every create answers at once. For measuring what is around a driver.
//!
//! Volumes are names; nothing can be published, and nothing survives or is checked. Never use it for data.

use std::sync::Arc;

use async_trait::async_trait;
use thiserror::Error;
use tokio_util::sync::CancellationToken;

use crate::{
    Driver, DriverError, DriverInfo, Endpoint, EndpointError, ErrorKind, GRACE_PERIOD_DEFAULT, ServeError,
    driver::DriverBuilder,
    request::{
        CreateVolume, DeleteVolume, NodePublishVolume, NodeUnpublishVolume, StringMap, ValidateCapabilities,
        VolumeId,
    },
    traits::{NodePublishing, Volumes},
    volume::{Confirmation, NodeDescription, Volume},
};

const SIZE_DEFAULT_BYTES: u64 = 1 << 30;

#[derive(Debug)]
struct NullDriver;

/// Why the null driver ended.
#[derive(Debug, Error)]
pub enum NullError {
    /// It could not listen.
    #[error(transparent)]
    Endpoint(#[from] EndpointError),
    /// It could not serve.
    #[error(transparent)]
    Serve(#[from] ServeError),
}

/// Serves the null driver under this name until `stop`. Its node id is `null`.
///
/// # Errors
/// When the endpoint can't be listened on, or the transport fails.
pub async fn run(endpoint: Endpoint, driver_name: String, stop: CancellationToken) -> Result<(), NullError> {
    let listener = endpoint.listen().await?;
    let driver = add_to(Driver::builder(DriverInfo::new(
        driver_name,
        env!("CARGO_PKG_VERSION"),
    )));
    driver.build().serve(listener, GRACE_PERIOD_DEFAULT, stop).await?;
    Ok(())
}

/// Makes a builder one of the null driver.
#[must_use]
pub fn add_to(driver: DriverBuilder) -> DriverBuilder {
    driver
        .single_node_modes()
        .volumes(Arc::new(NullDriver), |groups| groups.done())
        .node(Arc::new(NullDriver), |groups| groups.done())
}

#[async_trait]
impl Volumes for NullDriver {
    async fn create_volume(&self, request: CreateVolume) -> Result<Volume, DriverError> {
        let size = request.capacity.choose(SIZE_DEFAULT_BYTES, 1, 1)?;
        Ok(Volume::new(VolumeId::parse(request.name)?, size))
    }

    async fn delete_volume(&self, _request: DeleteVolume) -> Result<(), DriverError> {
        Ok(())
    }

    async fn validate_capabilities(
        &self,
        request: ValidateCapabilities,
    ) -> Result<Confirmation, DriverError> {
        Ok(Confirmation::Confirmed {
            capabilities: request.capabilities,
            volume_context: request.volume_context,
            parameters: request.parameters,
            mutable_parameters: StringMap::new(),
        })
    }
}

#[async_trait]
impl NodePublishing for NullDriver {
    async fn describe_node(&self) -> Result<NodeDescription, DriverError> {
        Ok(NodeDescription {
            node_id: "null".to_owned(),
            max_volumes: None,
            topology: None,
        })
    }

    async fn publish_volume(&self, _request: NodePublishVolume) -> Result<(), DriverError> {
        Err(DriverError::new(
            ErrorKind::Unimplemented,
            "the null driver has no data to show",
        ))
    }

    async fn unpublish_volume(&self, _request: NodeUnpublishVolume) -> Result<(), DriverError> {
        Ok(())
    }
}
