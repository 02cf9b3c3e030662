//! The controller service.

use std::sync::Arc;

use moorline_proto::csi::{
    self, controller_server::Controller, validate_volume_capabilities_response::Confirmed,
};
use tonic::{Request, Response, Status};

use super::{
    capabilities::{self, content_sources},
    check_capabilities, check_capability, read, served,
};
use crate::{
    DriverError,
    driver::Groups,
    in_flight::Claim,
    operations::Operations,
    request::{
        CapacityQuery, ContentSource, CreateSnapshot, CreateVolume, DeleteSnapshot, DeleteVolume,
        ExpandVolume, GetSnapshot, ListPage, ModifyVolume, PublishToNode, SnapshotQuery, UnpublishFromNode,
        ValidateCapabilities, VolumeId,
    },
    traits::Volumes,
    volume::{Confirmation, ListedVolume, bytes},
};

type Answer<T> = Result<Response<T>, Status>;

#[derive(Debug)]
pub(crate) struct ControllerService {
    volumes: NoDebug<dyn Volumes>,
    groups: Arc<Groups>,
    operations: Operations,
}

/// Drivers need not be printable.
pub(super) struct NoDebug<T: ?Sized>(pub(super) Arc<T>);

impl<T: ?Sized> std::fmt::Debug for NoDebug<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("..")
    }
}

impl ControllerService {
    pub(crate) fn new(volumes: Arc<dyn Volumes>, groups: Arc<Groups>, operations: Operations) -> Self {
        ControllerService {
            volumes: NoDebug(volumes),
            groups,
            operations,
        }
    }

    fn check_create(&self, mut request: CreateVolume) -> Result<CreateVolume, DriverError> {
        check_capabilities(&self.groups, &request.capabilities)?;
        if let Some(source) = &request.content_source {
            let sources = content_sources(&self.groups);
            let (can_do, kind) = match source {
                ContentSource::Snapshot(_) => (sources.snapshots, "a snapshot"),
                ContentSource::Volume(_) => (sources.clones, "another volume"),
            };
            if !can_do {
                return Err(DriverError::invalid(format!(
                    "this driver can't make a volume from {kind}"
                )));
            }
        }
        if !request.mutable_parameters.is_empty() && self.groups.modification.is_none() {
            return Err(DriverError::invalid(
                "mutable_parameters need MODIFY_VOLUME, which this driver has not",
            ));
        }
        if !self.groups.has_topology {
            request.topology = None;
        }
        Ok(request)
    }
}

/// What a create has for itself: its name, and its source together with others that only read it.
fn claims_of_create(request: &CreateVolume) -> Vec<Claim> {
    let name = Claim::Name(request.name.clone());
    let source = request.content_source.as_ref().map(|source| match source {
        ContentSource::Snapshot(snapshot_id) => Claim::SnapshotSource(snapshot_id.to_string()),
        ContentSource::Volume(volume_id) => Claim::VolumeSource(volume_id.to_string()),
    });
    std::iter::once(name).chain(source).collect()
}

fn confirmation(answer: Confirmation) -> csi::ValidateVolumeCapabilitiesResponse {
    match answer {
        Confirmation::Refused(message) => csi::ValidateVolumeCapabilitiesResponse {
            confirmed: None,
            message,
        },
        Confirmation::Confirmed {
            capabilities,
            volume_context,
            parameters,
            mutable_parameters,
        } => csi::ValidateVolumeCapabilitiesResponse {
            confirmed: Some(Confirmed {
                volume_context: volume_context.into_iter().collect(),
                volume_capabilities: capabilities.into_iter().map(Into::into).collect(),
                parameters: parameters.into_iter().collect(),
                mutable_parameters: mutable_parameters.into_iter().collect(),
            }),
            message: String::new(),
        },
    }
}

fn list_entry(listed: ListedVolume) -> Result<csi::list_volumes_response::Entry, DriverError> {
    Ok(csi::list_volumes_response::Entry {
        volume: Some(listed.volume.try_into()?),
        status: Some(csi::list_volumes_response::VolumeStatus {
            published_node_ids: listed.published_node_ids,
            volume_condition: listed.condition.map(Into::into),
        }),
    })
}

#[tonic::async_trait]
impl Controller for ControllerService {
    async fn create_volume(
        &self,
        request: Request<csi::CreateVolumeRequest>,
    ) -> Answer<csi::CreateVolumeResponse> {
        let request = read::<_, CreateVolume>(request).and_then(|request| self.check_create(request))?;
        let volumes = Arc::clone(&self.volumes.0);
        let claims = claims_of_create(&request);
        let work = async move {
            let volume = volumes.create_volume(request).await?.try_into()?;
            Ok(csi::CreateVolumeResponse { volume: Some(volume) })
        };
        self.operations.change("CreateVolume", claims, work).await
    }

    async fn delete_volume(
        &self,
        request: Request<csi::DeleteVolumeRequest>,
    ) -> Answer<csi::DeleteVolumeResponse> {
        let request = read::<_, DeleteVolume>(request)?;
        let volumes = Arc::clone(&self.volumes.0);
        let claims = vec![Claim::Volume(request.volume_id.to_string())];
        let work = async move {
            volumes.delete_volume(request).await?;
            Ok(csi::DeleteVolumeResponse {})
        };
        self.operations.change("DeleteVolume", claims, work).await
    }

    async fn validate_volume_capabilities(
        &self,
        request: Request<csi::ValidateVolumeCapabilitiesRequest>,
    ) -> Answer<csi::ValidateVolumeCapabilitiesResponse> {
        let request = read::<_, ValidateCapabilities>(request)?;
        let volume_id = request.volume_id.clone();
        let work = async {
            let refused = check_capabilities(&self.groups, &request.capabilities).err();
            // The volume is looked for first: an unknown one is NOT_FOUND whatever was asked about it.
            let answer = self.volumes.0.validate_capabilities(request).await?;
            let refused = refused.map(|error| Confirmation::Refused(error.full_message()));
            Ok(confirmation(refused.unwrap_or(answer)))
        };
        self.operations
            .look("ValidateVolumeCapabilities", volume_id.as_str(), work)
            .await
    }

    async fn list_volumes(
        &self,
        request: Request<csi::ListVolumesRequest>,
    ) -> Answer<csi::ListVolumesResponse> {
        let listing = served(self.groups.listing.as_ref(), "ListVolumes")?;
        let page = read::<_, ListPage>(request)?;
        let work = async {
            let page = listing.list_volumes(page).await?;
            Ok(csi::ListVolumesResponse {
                entries: page
                    .entries
                    .into_iter()
                    .map(list_entry)
                    .collect::<Result<_, _>>()?,
                next_token: page.next_token.unwrap_or_default(),
            })
        };
        self.operations.look("ListVolumes", "", work).await
    }

    async fn controller_get_volume(
        &self,
        request: Request<csi::ControllerGetVolumeRequest>,
    ) -> Answer<csi::ControllerGetVolumeResponse> {
        let lookup = served(self.groups.lookup.as_ref(), "ControllerGetVolume")?;
        let volume_id = VolumeId::parse(request.into_inner().volume_id)?;
        let work = async {
            let listed = lookup.get_volume(volume_id.clone()).await?;
            Ok(csi::ControllerGetVolumeResponse {
                volume: Some(listed.volume.try_into()?),
                status: Some(csi::controller_get_volume_response::VolumeStatus {
                    published_node_ids: listed.published_node_ids,
                    volume_condition: listed.condition.map(Into::into),
                }),
            })
        };
        self.operations
            .look("ControllerGetVolume", volume_id.as_str(), work)
            .await
    }

    async fn get_capacity(
        &self,
        request: Request<csi::GetCapacityRequest>,
    ) -> Answer<csi::GetCapacityResponse> {
        let capacity = served(self.groups.capacity.as_ref(), "GetCapacity")?;
        let query = read::<_, CapacityQuery>(request)?;
        let work = async {
            let answer = capacity.available_capacity(query).await?;
            Ok(csi::GetCapacityResponse {
                available_capacity: bytes(answer.available_bytes)?,
                maximum_volume_size: answer.maximum_volume_bytes.map(bytes).transpose()?,
                minimum_volume_size: answer.minimum_volume_bytes.map(bytes).transpose()?,
            })
        };
        self.operations.look("GetCapacity", "", work).await
    }

    async fn controller_get_capabilities(
        &self,
        _request: Request<csi::ControllerGetCapabilitiesRequest>,
    ) -> Answer<csi::ControllerGetCapabilitiesResponse> {
        Ok(Response::new(csi::ControllerGetCapabilitiesResponse {
            capabilities: capabilities::controller(&self.groups),
        }))
    }

    async fn controller_expand_volume(
        &self,
        request: Request<csi::ControllerExpandVolumeRequest>,
    ) -> Answer<csi::ControllerExpandVolumeResponse> {
        let expansion = served(self.groups.expansion.as_ref(), "ControllerExpandVolume")?;
        let request = read::<_, ExpandVolume>(request)?;
        check_capabilities(&self.groups, request.capability.as_slice())?;
        let claims = vec![Claim::Volume(request.volume_id.to_string())];
        let work = async move {
            let expanded = expansion.expand_volume(request).await?;
            Ok(csi::ControllerExpandVolumeResponse {
                capacity_bytes: bytes(expanded.capacity_bytes)?,
                node_expansion_required: expanded.is_node_expansion_required,
            })
        };
        self.operations
            .change("ControllerExpandVolume", claims, work)
            .await
    }

    async fn controller_modify_volume(
        &self,
        request: Request<csi::ControllerModifyVolumeRequest>,
    ) -> Answer<csi::ControllerModifyVolumeResponse> {
        let modification = served(self.groups.modification.as_ref(), "ControllerModifyVolume")?;
        let request = read::<_, ModifyVolume>(request)?;
        let claims = vec![Claim::Volume(request.volume_id.to_string())];
        let work = async move {
            modification.modify_volume(request).await?;
            Ok(csi::ControllerModifyVolumeResponse {})
        };
        self.operations
            .change("ControllerModifyVolume", claims, work)
            .await
    }

    async fn controller_publish_volume(
        &self,
        request: Request<csi::ControllerPublishVolumeRequest>,
    ) -> Answer<csi::ControllerPublishVolumeResponse> {
        let attachment = served(self.groups.attachment.as_ref(), "ControllerPublishVolume")?;
        let request = read::<_, PublishToNode>(request)?;
        check_capability(&self.groups, &request.capability)?;
        if request.is_read_only && !attachment.can_publish_read_only() {
            return Err(
                DriverError::invalid("readonly needs PUBLISH_READONLY, which this driver has not").into(),
            );
        }
        let claims = vec![Claim::Attachment(request.volume_id.to_string())];
        let work = async move {
            let context = attachment.publish_to_node(request).await?;
            Ok(csi::ControllerPublishVolumeResponse {
                publish_context: context.into_iter().collect(),
            })
        };
        self.operations
            .change("ControllerPublishVolume", claims, work)
            .await
    }

    async fn controller_unpublish_volume(
        &self,
        request: Request<csi::ControllerUnpublishVolumeRequest>,
    ) -> Answer<csi::ControllerUnpublishVolumeResponse> {
        let attachment = served(self.groups.attachment.as_ref(), "ControllerUnpublishVolume")?;
        let request = read::<_, UnpublishFromNode>(request)?;
        let claims = vec![Claim::Attachment(request.volume_id.to_string())];
        let work = async move {
            attachment.unpublish_from_node(request).await?;
            Ok(csi::ControllerUnpublishVolumeResponse {})
        };
        self.operations
            .change("ControllerUnpublishVolume", claims, work)
            .await
    }

    async fn create_snapshot(
        &self,
        request: Request<csi::CreateSnapshotRequest>,
    ) -> Answer<csi::CreateSnapshotResponse> {
        let snapshots = served(self.groups.snapshots.as_ref(), "CreateSnapshot")?;
        let request = read::<_, CreateSnapshot>(request)?;
        let claims = vec![
            Claim::SnapshotName(request.name.clone()),
            Claim::VolumeSource(request.source_volume_id.to_string()),
        ];
        let work = async move {
            let snapshot = snapshots.create_snapshot(request).await?.try_into()?;
            Ok(csi::CreateSnapshotResponse {
                snapshot: Some(snapshot),
            })
        };
        self.operations.change("CreateSnapshot", claims, work).await
    }

    async fn delete_snapshot(
        &self,
        request: Request<csi::DeleteSnapshotRequest>,
    ) -> Answer<csi::DeleteSnapshotResponse> {
        let snapshots = served(self.groups.snapshots.as_ref(), "DeleteSnapshot")?;
        let request = read::<_, DeleteSnapshot>(request)?;
        let claims = vec![Claim::Snapshot(request.snapshot_id.to_string())];
        let work = async move {
            snapshots.delete_snapshot(request).await?;
            Ok(csi::DeleteSnapshotResponse {})
        };
        self.operations.change("DeleteSnapshot", claims, work).await
    }

    async fn list_snapshots(
        &self,
        request: Request<csi::ListSnapshotsRequest>,
    ) -> Answer<csi::ListSnapshotsResponse> {
        let listing = served(self.groups.snapshot_listing.as_ref(), "ListSnapshots")?;
        let query = read::<_, SnapshotQuery>(request)?;
        let work = async {
            let page = listing.list_snapshots(query).await?;
            let entries = page.entries.into_iter().map(|snapshot| {
                Ok::<_, DriverError>(csi::list_snapshots_response::Entry {
                    snapshot: Some(snapshot.try_into()?),
                })
            });
            Ok(csi::ListSnapshotsResponse {
                entries: entries.collect::<Result<_, _>>()?,
                next_token: page.next_token.unwrap_or_default(),
            })
        };
        self.operations.look("ListSnapshots", "", work).await
    }

    async fn get_snapshot(
        &self,
        request: Request<csi::GetSnapshotRequest>,
    ) -> Answer<csi::GetSnapshotResponse> {
        let lookup = served(self.groups.snapshot_lookup.as_ref(), "GetSnapshot")?;
        let request = read::<_, GetSnapshot>(request)?;
        let snapshot_id = request.snapshot_id.clone();
        let work = async {
            let snapshot = lookup.get_snapshot(request).await?.try_into()?;
            Ok(csi::GetSnapshotResponse {
                snapshot: Some(snapshot),
            })
        };
        self.operations
            .look("GetSnapshot", snapshot_id.as_str(), work)
            .await
    }
}
