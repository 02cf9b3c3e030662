//! What `fuzz/` and the tests feed with arbitrary bytes: a request of any type, as it may come over the wire. Panics when
//! something does not hold that must hold whatever the bytes are.

mod accepted;
mod field;
#[cfg(test)]
mod tests;

use moorline_proto::csi;
use prost::Message;
use tonic::Status;

use self::accepted::Accepted;
use crate::{DriverError, ErrorKind, request};

/// Callers accept only so much text in a status, which travels as a header.
const STATUS_BYTES_MAX: usize = 1024;

/// Decodes one message and checks it. True if it is accepted.
type Try = fn(&[u8]) -> bool;

macro_rules! requests {
    ($($wire:ident => $request:ident,)*) => {
        /// Every request that has fields to check, in an order that never changes: the corpus counts on it.
        const REQUESTS: &[(&str, Try)] = &[$((stringify!($wire), try_one::<csi::$wire, request::$request>),)*];
    };
}

requests! {
    CreateVolumeRequest => CreateVolume,
    DeleteVolumeRequest => DeleteVolume,
    ValidateVolumeCapabilitiesRequest => ValidateCapabilities,
    GetCapacityRequest => CapacityQuery,
    ListVolumesRequest => ListPage,
    ControllerExpandVolumeRequest => ExpandVolume,
    ControllerPublishVolumeRequest => PublishToNode,
    ControllerUnpublishVolumeRequest => UnpublishFromNode,
    ControllerModifyVolumeRequest => ModifyVolume,
    CreateSnapshotRequest => CreateSnapshot,
    DeleteSnapshotRequest => DeleteSnapshot,
    ListSnapshotsRequest => SnapshotQuery,
    GetSnapshotRequest => GetSnapshot,
    CreateVolumeGroupSnapshotRequest => CreateGroupSnapshot,
    DeleteVolumeGroupSnapshotRequest => DeleteGroupSnapshot,
    GetVolumeGroupSnapshotRequest => GetGroupSnapshot,
    GetMetadataAllocatedRequest => AllocatedBlocks,
    GetMetadataDeltaRequest => ChangedBlocks,
    NodeStageVolumeRequest => NodeStageVolume,
    NodeUnstageVolumeRequest => NodeUnstageVolume,
    NodePublishVolumeRequest => NodePublishVolume,
    NodeUnpublishVolumeRequest => NodeUnpublishVolume,
    NodeGetVolumeStatsRequest => VolumeStatsQuery,
    NodeExpandVolumeRequest => NodeExpandVolume,
}

/// The first byte chooses the type, the rest is the message. A refusal is one for an invalid argument, and short enough
/// to reach the caller; what is accepted keeps the specification's limits.
pub fn request(input: &[u8]) -> bool {
    let Some((kind, message)) = input.split_first() else {
        return false;
    };
    REQUESTS[usize::from(*kind) % REQUESTS.len()].1(message)
}

fn try_one<W, T>(message: &[u8]) -> bool
where
    W: Message + Default,
    T: TryFrom<W, Error = DriverError> + Accepted,
{
    let Ok(wire) = W::decode(message) else {
        return false; // gRPC refuses it before it gets here
    };
    match T::try_from(wire) {
        Ok(request) => {
            request.check();
            true
        }
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{error}");
            let length = Status::from(error).message().len();
            assert!((1..=STATUS_BYTES_MAX).contains(&length), "{length} bytes");
            false
        }
    }
}
