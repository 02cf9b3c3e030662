//! The snapshot metadata service: two streams of block ranges.

use std::{pin::Pin, sync::Arc};

use futures::{Stream, StreamExt as _};
use moorline_proto::csi::{self, snapshot_metadata_server::SnapshotMetadata as Service};
use tonic::{Request, Response, Status};

use super::{controller::NoDebug, read};
use crate::{
    blocks::BlockMessage,
    in_flight::Claim,
    operations::Operations,
    request::{AllocatedBlocks, ChangedBlocks},
    traits::SnapshotMetadata,
};

type Messages<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[derive(Debug)]
pub(crate) struct SnapshotMetadataService {
    metadata: NoDebug<dyn SnapshotMetadata>,
    operations: Operations,
}

impl SnapshotMetadataService {
    pub(crate) fn new(metadata: Arc<dyn SnapshotMetadata>, operations: Operations) -> Self {
        SnapshotMetadataService {
            metadata: NoDebug(metadata),
            operations,
        }
    }
}

impl From<BlockMessage> for csi::GetMetadataAllocatedResponse {
    fn from(message: BlockMessage) -> Self {
        csi::GetMetadataAllocatedResponse {
            block_metadata_type: message.kind.into(),
            volume_capacity_bytes: message.volume_capacity_bytes,
            block_metadata: message.ranges,
        }
    }
}

impl From<BlockMessage> for csi::GetMetadataDeltaResponse {
    fn from(message: BlockMessage) -> Self {
        csi::GetMetadataDeltaResponse {
            block_metadata_type: message.kind.into(),
            volume_capacity_bytes: message.volume_capacity_bytes,
            block_metadata: message.ranges,
        }
    }
}

fn answer<T: From<BlockMessage> + 'static>(
    messages: impl Stream<Item = Result<BlockMessage, Status>> + Send + 'static,
) -> Response<Messages<T>> {
    Response::new(Box::pin(messages.map(|message| message.map(T::from))))
}

#[tonic::async_trait]
impl Service for SnapshotMetadataService {
    type GetMetadataAllocatedStream = Messages<csi::GetMetadataAllocatedResponse>;
    type GetMetadataDeltaStream = Messages<csi::GetMetadataDeltaResponse>;

    async fn get_metadata_allocated(
        &self,
        request: Request<csi::GetMetadataAllocatedRequest>,
    ) -> Result<Response<Self::GetMetadataAllocatedStream>, Status> {
        let request = read::<_, AllocatedBlocks>(request)?;
        let metadata = Arc::clone(&self.metadata.0);
        let claims = vec![Claim::SnapshotSource(request.snapshot_id.to_string())];
        let max_results = request.window.max_results;
        let messages =
            self.operations
                .stream("GetMetadataAllocated", claims, max_results, |sink| async move {
                    metadata.allocated_blocks(request, sink).await
                })?;
        Ok(answer(messages))
    }

    async fn get_metadata_delta(
        &self,
        request: Request<csi::GetMetadataDeltaRequest>,
    ) -> Result<Response<Self::GetMetadataDeltaStream>, Status> {
        let request = read::<_, ChangedBlocks>(request)?;
        let metadata = Arc::clone(&self.metadata.0);
        let claims = [&request.base_snapshot_id, &request.target_snapshot_id]
            .map(|snapshot_id| Claim::SnapshotSource(snapshot_id.to_string()))
            .into();
        let max_results = request.window.max_results;
        let messages =
            self.operations
                .stream("GetMetadataDelta", claims, max_results, |sink| async move {
                    metadata.changed_blocks(request, sink).await
                })?;
        Ok(answer(messages))
    }
}
