//! The gRPC services over a driver's parts: checks, claims, capability lists, conversions. No storage in here.

mod capabilities;
mod controller;
mod group_controller;
mod identity;
mod node;
mod snapshot_metadata;

pub(crate) use controller::ControllerService;
pub(crate) use group_controller::GroupControllerService;
pub(crate) use identity::IdentityService;
pub(crate) use node::NodeService;
pub(crate) use snapshot_metadata::SnapshotMetadataService;

use crate::{
    DriverError,
    driver::Groups,
    request::{AccessType, VolumeCapability},
};

/// Refuses what the driver has not said it can do, before it is asked.
fn check_capability(groups: &Groups, capability: &VolumeCapability) -> Result<(), DriverError> {
    if capability.access_mode.is_single_node_detail() && !groups.has_single_node_modes {
        return Err(DriverError::invalid(format!(
            "access mode {:?} needs SINGLE_NODE_MULTI_WRITER, which this driver has not",
            capability.access_mode
        )));
    }
    if let AccessType::Mount(mount) = &capability.access_type
        && mount.volume_mount_group.is_some()
        && !groups.node.as_ref().is_none_or(|node| node.applies_mount_group())
    {
        return Err(DriverError::invalid(
            "volume_mount_group needs VOLUME_MOUNT_GROUP, which this driver has not",
        ));
    }
    Ok(())
}

fn check_capabilities(groups: &Groups, capabilities: &[VolumeCapability]) -> Result<(), DriverError> {
    capabilities
        .iter()
        .try_for_each(|capability| check_capability(groups, capability))
}

/// The one way by which requests come in: written to the log (messages print without their secrets), then checked.
fn read<R: std::fmt::Debug, T: TryFrom<R, Error = DriverError>>(
    request: tonic::Request<R>,
) -> Result<T, DriverError> {
    let request = request.into_inner();
    let message = std::any::type_name::<R>().rsplit("::").next();
    tracing::trace!(message.name = message, ?request, "Call received");
    T::try_from(request)
}

/// The group's trait object, or UNIMPLEMENTED.
fn served<T: ?Sized>(
    group: Option<&std::sync::Arc<T>>,
    method: &str,
) -> Result<std::sync::Arc<T>, DriverError> {
    group.cloned().ok_or_else(|| {
        DriverError::new(
            crate::ErrorKind::Unimplemented,
            format!("this driver does not serve {method}"),
        )
    })
}
