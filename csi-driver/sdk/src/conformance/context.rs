//! What all checks share: connections, capabilities, requests as they should be, and the list of what was made.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fmt,
    future::Future,
    sync::atomic::{AtomicUsize, Ordering},
};

use moorline_proto::csi::{
    self, controller_client::ControllerClient, group_controller_client::GroupControllerClient,
    identity_client::IdentityClient, node_client::NodeClient,
    snapshot_metadata_client::SnapshotMetadataClient, volume_capability as wire,
    volume_content_source::Type as SourceType,
};
use parking_lot::Mutex;
use thiserror::Error;
use tonic::{Code, Response, Status, transport::Channel};

use super::{Checked, Fault, Options};
use crate::Endpoint;

/// Nobody has this id, and it is a well-formed one.
pub(super) const UNKNOWN_ID: &str = "conformance-nobody-has-this-id";
/// No list has such a token.
const UNKNOWN_TOKEN: &str = "conformance made this up";

/// Why a driver could not be checked at all.
#[derive(Debug, Error)]
pub enum ConformanceError {
    /// Nobody answers.
    #[error("connect to {endpoint}")]
    Connect {
        /// Where.
        endpoint: String,
        /// Why not.
        #[source]
        source: tonic::transport::Error,
    },
    /// It does not say what it can do.
    #[error("ask the driver with {method}")]
    Ask {
        /// By which call.
        method: &'static str,
        /// Its answer.
        #[source]
        source: Box<Status>,
    },
}

#[derive(Debug, Default)]
struct Made {
    volumes: BTreeSet<String>,
    snapshots: BTreeSet<String>,
    groups: BTreeMap<String, Vec<String>>,
}

#[derive(Debug)]
pub(super) struct Context {
    pub(super) options: Options,
    channel: Channel,
    node_channel: Channel,
    /// Capabilities as `service.Name`, and services as `Name`.
    capabilities: BTreeSet<String>,
    made: Mutex<Made>,
    names: AtomicUsize,
}

async fn connect(endpoint: &Endpoint, options: &Options) -> Result<Channel, ConformanceError> {
    let connecting = async {
        let address = match endpoint {
            Endpoint::Unix(_) => endpoint.to_string(),
            Endpoint::Tcp(address) => format!("http://{address}"),
        };
        let endpoint = tonic::transport::Endpoint::new(address)?;
        endpoint.timeout(options.call_timeout).connect().await
    };
    connecting.await.map_err(|source| ConformanceError::Connect {
        endpoint: endpoint.to_string(),
        source,
    })
}

fn asked<T>(method: &'static str, answer: Result<Response<T>, Status>) -> Result<T, ConformanceError> {
    answer
        .map(Response::into_inner)
        .map_err(|source| ConformanceError::Ask {
            method,
            source: Box::new(source),
        })
}

impl Context {
    pub(super) async fn open(endpoint: &Endpoint, options: &Options) -> Result<Self, ConformanceError> {
        let channel = connect(endpoint, options).await?;
        let node_channel = match &options.node_endpoint {
            Some(endpoint) => connect(endpoint, options).await?,
            None => channel.clone(),
        };
        let mut context = Context {
            options: options.clone(),
            channel,
            node_channel,
            capabilities: BTreeSet::new(),
            made: Mutex::default(),
            names: AtomicUsize::new(0),
        };
        context.ask_for_capabilities().await?;
        Ok(context)
    }

    async fn ask_for_capabilities(&mut self) -> Result<(), ConformanceError> {
        let answer = self
            .identity()
            .get_plugin_capabilities(csi::GetPluginCapabilitiesRequest {})
            .await;
        for capability in asked("GetPluginCapabilities", answer)?.capabilities {
            use csi::plugin_capability::Type;
            self.capabilities.extend(capability.r#type.map(|kind| match kind {
                Type::Service(service) => format!("{:?}", service.r#type()),
                Type::VolumeExpansion(time) => format!("VolumeExpansion.{:?}", time.r#type()),
            }));
        }
        if self.has("ControllerService") {
            let request = csi::ControllerGetCapabilitiesRequest {};
            let answer = self.controller().controller_get_capabilities(request).await;
            for capability in asked("ControllerGetCapabilities", answer)?.capabilities {
                use csi::controller_service_capability::Type;
                let rpc = capability.r#type.map(|Type::Rpc(rpc)| rpc.r#type());
                self.capabilities
                    .extend(rpc.map(|rpc| format!("controller.{rpc:?}")));
            }
        }
        let answer = self
            .node()
            .node_get_capabilities(csi::NodeGetCapabilitiesRequest {})
            .await;
        // A controller that runs alone serves no nodes.
        if answer
            .as_ref()
            .is_err_and(|status| status.code() == Code::Unimplemented)
        {
            return Ok(());
        }
        self.capabilities.insert("NodeService".to_owned());
        for capability in asked("NodeGetCapabilities", answer)?.capabilities {
            use csi::node_service_capability::Type;
            let rpc = capability.r#type.map(|Type::Rpc(rpc)| rpc.r#type());
            self.capabilities.extend(rpc.map(|rpc| format!("node.{rpc:?}")));
        }
        Ok(())
    }

    pub(super) fn has(&self, capability: &str) -> bool {
        self.capabilities.contains(capability)
    }

    pub(super) fn capabilities(&self) -> &BTreeSet<String> {
        &self.capabilities
    }

    pub(super) fn identity(&self) -> IdentityClient<Channel> {
        IdentityClient::new(self.channel.clone())
    }

    pub(super) fn controller(&self) -> ControllerClient<Channel> {
        ControllerClient::new(self.channel.clone())
    }

    pub(super) fn group_controller(&self) -> GroupControllerClient<Channel> {
        GroupControllerClient::new(self.channel.clone())
    }

    pub(super) fn snapshot_metadata(&self) -> SnapshotMetadataClient<Channel> {
        SnapshotMetadataClient::new(self.channel.clone())
    }

    pub(super) fn node(&self) -> NodeClient<Channel> {
        NodeClient::new(self.node_channel.clone())
    }

    pub(super) fn name(&self) -> String {
        let number = self.names.fetch_add(1, Ordering::Relaxed);
        format!("{}-{number}", self.options.name_prefix)
    }

    pub(super) fn secrets(&self) -> HashMap<String, String> {
        self.options.secrets.clone().into_iter().collect()
    }

    pub(super) fn bytes(&self) -> i64 {
        i64::try_from(self.options.capacity_bytes).unwrap_or(i64::MAX / 4)
    }

    pub(super) fn capability(&self) -> csi::VolumeCapability {
        let access_type = if self.options.is_block {
            wire::AccessType::Block(wire::BlockVolume {})
        } else {
            wire::AccessType::Mount(wire::MountVolume {
                fs_type: self.options.fs_type.clone(),
                ..Default::default()
            })
        };
        csi::VolumeCapability {
            access_type: Some(access_type),
            access_mode: Some(wire::AccessMode {
                mode: wire::access_mode::Mode::SingleNodeWriter.into(),
            }),
        }
    }

    pub(super) fn create_request(&self) -> csi::CreateVolumeRequest {
        csi::CreateVolumeRequest {
            name: self.name(),
            capacity_range: Some(csi::CapacityRange {
                required_bytes: self.bytes(),
                limit_bytes: 0,
            }),
            volume_capabilities: vec![self.capability()],
            parameters: self.options.parameters.clone().into_iter().collect(),
            secrets: self.secrets(),
            ..Default::default()
        }
    }

    /// Makes a volume that is removed at the end.
    pub(super) async fn create(&self, request: csi::CreateVolumeRequest) -> Result<csi::Volume, Fault> {
        let answer = ok("CreateVolume", self.controller().create_volume(request).await)?;
        let volume = answer.volume.ok_or("CreateVolume answers no volume".to_owned())?;
        if volume.volume_id.is_empty() {
            return Err(Fault::Failed("CreateVolume answers no volume_id".to_owned()));
        }
        self.made.lock().volumes.insert(volume.volume_id.clone());
        Ok(volume)
    }

    pub(super) async fn volume(&self) -> Result<csi::Volume, Fault> {
        self.create(self.create_request()).await
    }

    /// To twice the size of new ones.
    pub(super) fn expand_request(&self, volume_id: &str) -> csi::ControllerExpandVolumeRequest {
        csi::ControllerExpandVolumeRequest {
            volume_id: volume_id.to_owned(),
            capacity_range: Some(csi::CapacityRange {
                required_bytes: self.bytes() * 2,
                limit_bytes: 0,
            }),
            secrets: self.secrets(),
            volume_capability: Some(self.capability()),
        }
    }

    pub(super) fn attach_request(
        &self,
        volume: &csi::Volume,
        node_id: &str,
    ) -> csi::ControllerPublishVolumeRequest {
        csi::ControllerPublishVolumeRequest {
            volume_id: volume.volume_id.clone(),
            node_id: node_id.to_owned(),
            volume_capability: Some(self.capability()),
            readonly: false,
            secrets: self.secrets(),
            volume_context: volume.volume_context.clone(),
        }
    }

    /// The way back from [`Context::attach_request`]; nothing attached is fine.
    pub(super) async fn detach(&self, volume: &csi::Volume, node_id: &str) -> Checked {
        let request = csi::ControllerUnpublishVolumeRequest {
            volume_id: volume.volume_id.clone(),
            node_id: node_id.to_owned(),
            secrets: self.secrets(),
        };
        let answer = self.controller().controller_unpublish_volume(request).await;
        ok("ControllerUnpublishVolume", answer).map(drop)
    }

    fn create_request_from(&self, source: SourceType) -> csi::CreateVolumeRequest {
        csi::CreateVolumeRequest {
            volume_content_source: Some(csi::VolumeContentSource { r#type: Some(source) }),
            ..self.create_request()
        }
    }

    /// A volume with content from elsewhere; it has to name its source.
    pub(super) async fn volume_from(&self, source: SourceType) -> Result<csi::Volume, Fault> {
        let request = self.create_request_from(source);
        let source = request.volume_content_source.clone();
        let volume = self.create(request).await?;
        demand_that(volume.content_source == source, || {
            "the new volume does not name its source".to_owned()
        })?;
        Ok(volume)
    }

    /// What is not there can't become a volume.
    pub(super) async fn no_volume_from(&self, what: &str, source: SourceType) -> Checked {
        let request = self.create_request_from(source);
        let answer = self.controller().create_volume(request).await;
        refused(&format!("CreateVolume from {what}"), Code::NotFound, answer)
    }

    pub(super) async fn node_id(&self) -> Result<String, Fault> {
        let answer = self.node().node_get_info(csi::NodeGetInfoRequest {}).await;
        Ok(ok("NodeGetInfo", answer)?.node_id)
    }

    pub(super) async fn delete(&self, volume_id: &str) -> Checked {
        let request = csi::DeleteVolumeRequest {
            volume_id: volume_id.to_owned(),
            secrets: self.secrets(),
        };
        ok("DeleteVolume", self.controller().delete_volume(request).await)?;
        self.made.lock().volumes.remove(volume_id);
        Ok(())
    }

    pub(super) async fn snapshot_named(&self, name: &str, source: &str) -> Result<csi::Snapshot, Fault> {
        let request = csi::CreateSnapshotRequest {
            name: name.to_owned(),
            source_volume_id: source.to_owned(),
            secrets: self.secrets(),
            ..Default::default()
        };
        let answer = ok("CreateSnapshot", self.controller().create_snapshot(request).await)?;
        let snapshot = answer
            .snapshot
            .ok_or("CreateSnapshot answers no snapshot".to_owned())?;
        self.made.lock().snapshots.insert(snapshot.snapshot_id.clone());
        Ok(snapshot)
    }

    pub(super) async fn delete_snapshot(&self, snapshot_id: &str) -> Checked {
        let request = csi::DeleteSnapshotRequest {
            snapshot_id: snapshot_id.to_owned(),
            secrets: self.secrets(),
        };
        ok("DeleteSnapshot", self.controller().delete_snapshot(request).await)?;
        self.made.lock().snapshots.remove(snapshot_id);
        Ok(())
    }

    pub(super) fn made_group(&self, group: &csi::VolumeGroupSnapshot) {
        let members = group
            .snapshots
            .iter()
            .map(|snapshot| snapshot.snapshot_id.clone());
        let mut made = self.made.lock();
        made.groups
            .insert(group.group_snapshot_id.clone(), members.collect());
    }

    pub(super) async fn delete_group(&self, group_snapshot_id: &str) -> Checked {
        let members = self.made.lock().groups.get(group_snapshot_id).cloned();
        let request = csi::DeleteVolumeGroupSnapshotRequest {
            group_snapshot_id: group_snapshot_id.to_owned(),
            snapshot_ids: members.unwrap_or_default(),
            secrets: self.secrets(),
        };
        let answer = self
            .group_controller()
            .delete_volume_group_snapshot(request)
            .await;
        ok("DeleteVolumeGroupSnapshot", answer)?;
        self.made.lock().groups.remove(group_snapshot_id);
        Ok(())
    }

    /// Removes what checks have left, the dependent first.
    pub(super) async fn clean_up(&self) -> Checked {
        let mut faults = Vec::new();
        let (groups, snapshots, volumes) = {
            let made = self.made.lock();
            let groups: Vec<_> = made.groups.keys().cloned().collect();
            (groups, made.snapshots.clone(), made.volumes.clone())
        };
        for id in groups {
            faults.extend(self.delete_group(&id).await.err());
        }
        for id in snapshots {
            faults.extend(self.delete_snapshot(&id).await.err());
        }
        for id in volumes {
            faults.extend(self.delete(&id).await.err());
        }
        match faults.into_iter().next() {
            Some(fault) => Err(fault),
            None => Ok(()),
        }
    }
}

pub(super) fn unknown_volume() -> csi::Volume {
    csi::Volume {
        volume_id: UNKNOWN_ID.to_owned(),
        ..Default::default()
    }
}

/// All entries of a list that is asked for in pages of so many (0: as many as the driver likes). `page` asks with a token.
pub(super) async fn all_pages<T, F>(
    max_entries: i32,
    mut page: impl FnMut(String) -> F,
) -> Result<Vec<T>, Fault>
where
    F: Future<Output = Result<(Vec<T>, String), Fault>>,
{
    let (mut all, mut token) = (Vec::new(), String::new());
    loop {
        let (entries, next) = page(token).await?;
        let count = entries.len();
        let is_within = max_entries == 0 || usize::try_from(max_entries).is_ok_and(|max| count <= max);
        demand_that(is_within, || {
            format!("a page of at most {max_entries} has {count} entries")
        })?;
        all.extend(entries);
        token = next;
        if token.is_empty() {
            return Ok(all);
        }
        demand_that(count > 0, || "an empty page is followed by another".to_owned())?;
    }
}

/// A token that no page had is refused; `page` asks with it.
pub(super) async fn unknown_token_refused<T: fmt::Debug, F>(
    what: &str,
    page: impl FnOnce(String) -> F,
) -> Checked
where
    F: Future<Output = Result<Response<T>, Status>>,
{
    refused(what, Code::Aborted, page(UNKNOWN_TOKEN.to_owned()).await)
}

/// The answer to a call that has to succeed.
pub(super) fn ok<T>(what: &str, answer: Result<Response<T>, Status>) -> Result<T, Fault> {
    answer.map(Response::into_inner).map_err(|status| {
        Fault::Failed(format!(
            "{what} is answered with {:?}: {}",
            status.code(),
            status.message()
        ))
    })
}

/// A call that has to be refused.
pub(super) fn refused<T: fmt::Debug>(
    what: &str,
    expected: Code,
    answer: Result<Response<T>, Status>,
) -> Checked {
    match answer {
        Err(status) if status.code() == expected => Ok(()),
        Err(status) => Err(Fault::Failed(format!(
            "{what} is answered with {:?} ({}), not {expected:?}",
            status.code(),
            status.message()
        ))),
        Ok(_) => Err(Fault::Failed(format!(
            "{what} succeeds; {expected:?} is demanded"
        ))),
    }
}

pub(super) fn demand_that(is_so: bool, otherwise: impl FnOnce() -> String) -> Checked {
    if is_so {
        Ok(())
    } else {
        Err(Fault::Failed(otherwise()))
    }
}
