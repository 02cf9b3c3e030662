//! What the driver's processes leave behind: volumes, snapshots, and what the machines hold of them.
//!
//! The backend keeps the promises of CSI (idempotent by name and id, nothing goes while it is in use) and takes down
//! every call that no correct caller would make.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use moorline_proto::csi::volume_content_source::{SnapshotSource, Type, VolumeSource};
use moorline_proto::csi::*;
use tonic::Status;

use crate::plan::{Rpc, RpcFault};

/// How often the backend is asked for a snapshot until it is ready; the next one takes the next number.
const LOOKS: [u32; 3] = [0, 2, 1];
/// When all snapshots were cut, in seconds since 1970: what is told of one stays the same.
const CUT_AT: i64 = 1_767_268_800;

/// One volume of the backend.
#[derive(Clone, Debug, Default)]
pub(crate) struct BackendVolume {
    pub(crate) name: String,
    pub(crate) bytes: i64,
    /// What the file system in it has of them.
    pub(crate) usable: i64,
    pub(crate) published: BTreeSet<String>,
    pub(crate) is_static: bool,
    /// The snapshot or volume that it was filled from.
    pub(crate) source: Option<String>,
}

/// One snapshot of the backend.
#[derive(Clone, Debug, Default)]
pub(crate) struct BackendSnapshot {
    pub(crate) name: String,
    volume: String,
    bytes: i64,
    /// How often it will still be said that it isn't ready.
    looks_left: u32,
    pub(crate) is_static: bool,
}

impl BackendSnapshot {
    pub(crate) fn is_ready(&self) -> bool {
        self.looks_left == 0
    }
}

/// What the driver's processes leave behind.
#[derive(Debug, Default)]
pub(crate) struct Backend {
    pub(crate) volumes: BTreeMap<String, BackendVolume>,
    pub(crate) snapshots: BTreeMap<String, BackendSnapshot>,
    /// Whether nodes have to grow file systems.
    pub(crate) grows_on_nodes: bool,
    made: u32,
    faults: Vec<(Rpc, RpcFault)>,
    /// Names of what a call is working on, each with what a new volume is being filled from.
    busy: BTreeMap<String, Option<String>>,
    /// What the machines hold: node and volume.
    pub(crate) staged: BTreeSet<(String, String)>,
    /// And what is mounted for pods there: node, then pod and volume.
    pub(crate) mounts: BTreeSet<(String, (String, String))>,
    /// Volumes that went since this was last asked.
    pub(crate) deleted: Vec<String>,
    /// Snapshots that did.
    pub(crate) deleted_snapshots: Vec<String>,
    /// What no correct caller would have asked for.
    pub(crate) broken: Vec<String>,
}

/// What nodes and admins do, and what goes wrong.
impl Backend {
    /// A volume that an admin has made by hand.
    pub(crate) fn make_static(&mut self, n: u32, bytes: i64) -> String {
        let id = format!("static-{n}");
        let volume = BackendVolume {
            name: id.clone(),
            bytes,
            usable: bytes,
            is_static: true,
            ..BackendVolume::default()
        };
        self.volumes.entry(id.clone()).or_insert(volume);
        id
    }

    /// A snapshot that an admin has made by hand.
    pub(crate) fn make_static_snapshot(&mut self, n: u32, bytes: i64) -> String {
        let id = format!("snap-static-{n}");
        let snapshot = BackendSnapshot {
            name: id.clone(),
            bytes,
            is_static: true,
            ..BackendSnapshot::default()
        };
        self.snapshots.entry(id.clone()).or_insert(snapshot);
        id
    }

    /// A node stages a volume.
    pub(crate) fn node_stage(&mut self, node: &str, handle: &str) {
        let is_attached = self
            .volumes
            .get(handle)
            .is_some_and(|volume| volume.published.contains(node));
        if !is_attached {
            self.broken
                .push(format!("{node} stages {handle}, which is not published there"));
        }
        if let Some((other, _)) = self
            .staged
            .iter()
            .find(|(other, held)| held == handle && other != node)
        {
            self.broken
                .push(format!("{node} stages {handle} while {other} has it staged"));
        }
        self.staged.insert((node.to_owned(), handle.to_owned()));
    }

    /// A node mounts a volume for a pod.
    pub(crate) fn node_publish(&mut self, node: &str, mount: &(String, String)) {
        self.mounts.insert((node.to_owned(), mount.clone()));
    }

    /// A node takes a volume from a pod.
    pub(crate) fn node_unpublish(&mut self, node: &str, mount: &(String, String)) {
        self.mounts.remove(&(node.to_owned(), mount.clone()));
    }

    /// A node is done with a volume.
    pub(crate) fn node_unstage(&mut self, node: &str, handle: &str) {
        if self
            .mounts
            .iter()
            .any(|(on, (_, held))| on == node && held == handle)
        {
            self.broken
                .push(format!("{node} unstages {handle}, which is mounted"));
        }
        self.staged.remove(&(node.to_owned(), handle.to_owned()));
    }

    /// A machine lost its power.
    pub(crate) fn node_dies(&mut self, node: &str) {
        self.mounts.retain(|(on, _)| on != node);
        self.staged.retain(|(on, _)| on != node);
    }

    pub(crate) fn add_fault(&mut self, rpc: Rpc, fault: RpcFault) {
        self.faults.push((rpc, fault));
    }

    pub(crate) fn calm(&mut self) {
        self.faults.clear();
    }

    pub(crate) fn take_fault(&mut self, rpc: Rpc) -> Option<RpcFault> {
        let found = self.faults.iter().position(|(target, _)| *target == rpc)?;
        Some(self.faults.remove(found).1)
    }

    /// Whether there is something of this name.
    pub(crate) fn has_made(&self, name: &str) -> bool {
        let mut volumes = self.volumes.values();
        let mut snapshots = self.snapshots.values();
        volumes.any(|volume| volume.name == name) || snapshots.any(|snapshot| snapshot.name == name)
    }

    /// A call begins to work on what has this name or id; the name is returned. `None` while another one does.
    pub(crate) fn begin(&mut self, subject: &str, source: Option<String>) -> Option<String> {
        let volume = self.volumes.get(subject).map(|volume| &volume.name);
        let known = volume.or_else(|| self.snapshots.get(subject).map(|snapshot| &snapshot.name));
        let name = known.map_or_else(|| subject.to_owned(), String::clone);
        if self.busy.contains_key(&name) {
            return None;
        }
        self.busy.insert(name.clone(), source);
        Some(name)
    }

    pub(crate) fn end(&mut self, name: &str) {
        self.busy.remove(name);
    }

    fn is_read(&self, id: &str) -> bool {
        self.busy.values().any(|source| source.as_deref() == Some(id))
    }
}

/// What the driver is asked for.
impl Backend {
    pub(crate) fn create(
        &mut self,
        name: &str,
        asked: i64,
        source: Option<&VolumeContentSource>,
    ) -> Result<CreateVolumeResponse, Status> {
        let from = source.and_then(source_id);
        let known = self.volumes.iter().find(|(_, volume)| volume.name == name);
        let id = match known.map(|(id, volume)| (id.clone(), volume.source.clone())) {
            Some((id, known_from)) if known_from == from => id,
            Some((id, known_from)) => {
                self.broken.push(format!(
                    "CreateVolume {name} from {from:?}, which is {id} from {known_from:?} already"
                ));
                return Err(Status::already_exists("the volume has another source"));
            }
            None => self.make(name, asked, from)?,
        };
        Ok(CreateVolumeResponse {
            volume: Some(Volume {
                capacity_bytes: self.volumes[&id].bytes,
                volume_id: id,
                volume_context: HashMap::new(),
                content_source: source.cloned(),
                accessible_topology: Vec::new(),
            }),
        })
    }

    fn make(&mut self, name: &str, asked: i64, source: Option<String>) -> Result<String, Status> {
        let least = match source.as_deref() {
            None => 0,
            Some(id) => match (self.snapshots.get(id), self.volumes.get(id)) {
                (Some(snapshot), _) if !snapshot.is_ready() => {
                    self.broken
                        .push(format!("CreateVolume {name} from {id}, which is not ready"));
                    return Err(Status::failed_precondition("the snapshot is not ready"));
                }
                (Some(snapshot), _) => snapshot.bytes,
                (None, Some(volume)) => volume.bytes,
                (None, None) => return Err(Status::not_found("no such source")),
            },
        };
        self.made += 1;
        let id = format!("vol-{}", self.made);
        let volume = BackendVolume {
            name: name.to_owned(),
            bytes: asked.max(least),
            usable: asked.max(least),
            source,
            ..BackendVolume::default()
        };
        self.volumes.insert(id.clone(), volume);
        Ok(id)
    }

    pub(crate) fn delete(&mut self, id: &str) -> Result<DeleteVolumeResponse, Status> {
        if let Some((node, _)) = self.staged.iter().find(|(_, held)| held == id) {
            self.broken
                .push(format!("DeleteVolume {id} while {node} has it staged"));
        }
        if self.is_read(id) {
            self.broken
                .push(format!("DeleteVolume {id} while it is being cloned"));
            return Err(Status::failed_precondition("the volume is being cloned"));
        }
        if let Some(volume) = self.volumes.get(id) {
            if !volume.published.is_empty() {
                let line = format!(
                    "DeleteVolume {id} while it is published on {:?}",
                    volume.published
                );
                self.broken.push(line);
                return Err(Status::failed_precondition("the volume is in use"));
            }
            self.volumes.remove(id);
            self.deleted.push(id.to_owned());
        }
        Ok(DeleteVolumeResponse {})
    }

    pub(crate) fn publish(
        &mut self,
        id: &str,
        node: &str,
    ) -> Result<ControllerPublishVolumeResponse, Status> {
        let volume = self.volumes.get_mut(id);
        let volume = volume.ok_or_else(|| Status::not_found("no such volume"))?;
        if let Some(other) = volume.published.iter().find(|other| *other != node) {
            let line = format!("ControllerPublishVolume of {id} on {node} while it is on {other}");
            self.broken.push(line);
            return Err(Status::failed_precondition("the volume is published elsewhere"));
        }
        volume.published.insert(node.to_owned());
        Ok(ControllerPublishVolumeResponse::default())
    }

    pub(crate) fn unpublish(&mut self, id: &str, node: &str) -> ControllerUnpublishVolumeResponse {
        if self.staged.contains(&(node.to_owned(), id.to_owned())) {
            self.broken.push(format!(
                "ControllerUnpublishVolume of {id} from {node}, where it is staged"
            ));
        }
        if let Some(volume) = self.volumes.get_mut(id) {
            volume.published.remove(node);
        }
        ControllerUnpublishVolumeResponse {}
    }

    pub(crate) fn expand(&mut self, id: &str, bytes: i64) -> Result<ControllerExpandVolumeResponse, Status> {
        let node_expansion_required = self.grows_on_nodes;
        let volume = self.volumes.get_mut(id);
        let volume = volume.ok_or_else(|| Status::not_found("no such volume"))?;
        volume.bytes = volume.bytes.max(bytes);
        if !node_expansion_required {
            volume.usable = volume.bytes;
        }
        Ok(ControllerExpandVolumeResponse {
            capacity_bytes: volume.bytes,
            node_expansion_required,
        })
    }

    pub(crate) fn grow(
        &mut self,
        node: &str,
        id: &str,
        bytes: i64,
    ) -> Result<NodeExpandVolumeResponse, Status> {
        if !self.staged.contains(&(node.to_owned(), id.to_owned())) {
            self.broken.push(format!(
                "NodeExpandVolume of {id} on {node}, where it is not staged"
            ));
        }
        let volume = self.volumes.get_mut(id);
        let volume = volume.ok_or_else(|| Status::not_found("no such volume"))?;
        if bytes > volume.bytes {
            return Err(Status::out_of_range("the volume is smaller"));
        }
        volume.usable = volume.bytes;
        Ok(NodeExpandVolumeResponse {
            capacity_bytes: volume.usable,
        })
    }

    pub(crate) fn cut(&mut self, name: &str, volume: &str) -> Result<CreateSnapshotResponse, Status> {
        let known = self.snapshots.iter_mut().find(|(_, known)| known.name == name);
        let id = match known {
            Some((id, known)) if known.volume == volume => {
                known.looks_left = known.looks_left.saturating_sub(1);
                id.clone()
            }
            Some((id, _)) => {
                self.broken.push(format!(
                    "CreateSnapshot {name} of {volume}, which is {id} already"
                ));
                return Err(Status::already_exists("the snapshot is of another volume"));
            }
            None => {
                let source = self.volumes.get(volume);
                let source = source.ok_or_else(|| Status::not_found("no such volume"))?;
                let snapshot = BackendSnapshot {
                    name: name.to_owned(),
                    volume: volume.to_owned(),
                    bytes: source.bytes,
                    looks_left: LOOKS[self.snapshots.len() % LOOKS.len()],
                    is_static: false,
                };
                self.made += 1;
                let id = format!("snap-{}", self.made);
                self.snapshots.insert(id.clone(), snapshot);
                id
            }
        };
        Ok(CreateSnapshotResponse {
            snapshot: self.tell(&id),
        })
    }

    pub(crate) fn delete_snapshot(&mut self, id: &str) -> Result<DeleteSnapshotResponse, Status> {
        if self.is_read(id) {
            self.broken.push(format!(
                "DeleteSnapshot {id} while a volume is being filled from it"
            ));
            return Err(Status::failed_precondition("a volume is being filled from it"));
        }
        if self.snapshots.remove(id).is_some() {
            self.deleted_snapshots.push(id.to_owned());
        }
        Ok(DeleteSnapshotResponse {})
    }

    pub(crate) fn list_snapshots(&mut self, id: &str) -> ListSnapshotsResponse {
        if let Some(snapshot) = self.snapshots.get_mut(id) {
            snapshot.looks_left = snapshot.looks_left.saturating_sub(1);
        }
        let found = self.tell(id).into_iter();
        let entries = found.map(|snapshot| list_snapshots_response::Entry {
            snapshot: Some(snapshot),
        });
        ListSnapshotsResponse {
            entries: entries.collect(),
            next_token: String::new(),
        }
    }

    fn tell(&self, id: &str) -> Option<Snapshot> {
        let snapshot = self.snapshots.get(id)?;
        Some(Snapshot {
            size_bytes: snapshot.bytes,
            snapshot_id: id.to_owned(),
            source_volume_id: snapshot.volume.clone(),
            creation_time: Some(prost_types::Timestamp {
                seconds: CUT_AT,
                nanos: 0,
            }),
            ready_to_use: snapshot.is_ready(),
            group_snapshot_id: String::new(),
        })
    }
}

/// The id of what a new volume is filled from.
pub(crate) fn source_id(source: &VolumeContentSource) -> Option<String> {
    Some(match source.r#type.as_ref()? {
        Type::Snapshot(SnapshotSource { snapshot_id }) => snapshot_id.clone(),
        Type::Volume(VolumeSource { volume_id }) => volume_id.clone(),
    })
}
