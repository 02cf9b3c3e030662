//! ControllerPublishVolume and ControllerUnpublishVolume: leases, where several nodes share the pools.

use std::sync::Arc;

use moorline_driver_sdk::{
    DriverError, async_trait,
    request::{PublishToNode, StringMap, UnpublishFromNode},
    traits::Attachment,
};

use super::LocalController;
use crate::{
    fit,
    lease::{CONTEXT_KEY, Wish},
    leases::Leases,
    nodes,
    pool::Pool,
    record::Record,
};

/// Blocks.
fn publish(pool: &Pool, leases: &Leases, request: &PublishToNode) -> Result<u64, DriverError> {
    let node = nodes::find(pool, &request.node_id)?.ok_or_else(|| {
        DriverError::not_found(format!(
            "pool {} knows no node {}; is its driver running?",
            pool.name(),
            request.node_id
        ))
    })?;
    let wish = Wish {
        node_id: &request.node_id,
        is_read_only: request.is_read_only || request.capability.access_mode.is_read_only(),
        access_mode: request.capability.access_mode,
    };
    leases.publish(pool, request.volume_id.as_str(), wish, &node)
}

impl LocalController {
    fn leases(&self) -> Result<Arc<Leases>, DriverError> {
        // Without leases nothing here is advertised.
        let leases = self.leases.as_ref().map(Arc::clone);
        leases.ok_or_else(|| DriverError::precondition("this driver was started without --attachable"))
    }
}

#[async_trait]
impl Attachment for LocalController {
    async fn publish_to_node(&self, request: PublishToNode) -> Result<StringMap, DriverError> {
        let leases = self.leases()?;
        let (member, record) = self.find::<Record>(request.volume_id.as_str())?;
        fit::fit(self.reach.nodes(), record.content, &request.capability).map_err(DriverError::invalid)?;
        let pool = Arc::clone(&member.pool);
        let work = move || publish(&pool, &leases, &request);
        let generation = self
            .blocking
            .run("publish the volume to the node", work)
            .await??;
        Ok(StringMap::from([(
            CONTEXT_KEY.to_owned(),
            generation.to_string(),
        )]))
    }

    async fn unpublish_from_node(&self, request: UnpublishFromNode) -> Result<(), DriverError> {
        let leases = self.leases()?;
        let Some(member) = self.member_with::<Record>(request.volume_id.as_str()) else {
            return Ok(());
        };
        let pool = Arc::clone(&member.pool);
        let work = move || leases.unpublish(&pool, request.volume_id.as_str(), request.node_id.as_deref());
        self.blocking
            .run("unpublish the volume from the node", work)
            .await?
    }

    fn can_publish_read_only(&self) -> bool {
        true
    }
}
