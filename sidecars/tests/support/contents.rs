//! One content of snapshots or groups, named `k`, as its snapshotter treats it.

use std::time::Duration;

use moorline_runtime::Backoff;
use moorline_sidecars::snapshotter::SnapshotterConfig;
use serde_json::{Value, json};

use super::World;

/// A kind of contents, with the annotations that mark its stages.
#[derive(Clone, Copy)]
pub struct Contents {
    pub resource: &'static str,
    pub being_created: &'static str,
    pub being_deleted: &'static str,
}

impl Contents {
    pub fn get(self, world: &World) -> Option<Value> {
        world.api.get(self.resource, "", "k")
    }

    /// Deletes it as the snapshot controller does when its snapshot is deleted.
    pub fn delete(self, world: &World) {
        world.api.edit(self.resource, "", "k", |content| {
            content["metadata"]["annotations"][self.being_deleted] = json!("yes");
        });
        world.api.delete(self.resource, "", "k");
    }

    /// The content, once it is ready and no creation is under way.
    pub async fn ready(self, world: &World) -> Value {
        let is_done = |content: &Value| {
            content["status"]["readyToUse"] == true
                && content["metadata"]["annotations"][self.being_created].is_null()
        };
        let seen = || self.get(world).filter(is_done);
        world.until("not ready and unmarked", seen).await
    }
}

/// Fast, and patient with the driver.
pub fn config(world: &World) -> SnapshotterConfig {
    let mut config = SnapshotterConfig::new(world.csi_address());
    config.timeout = Duration::from_secs(2);
    config.retry_interval = Backoff {
        min: Duration::from_millis(10),
        max: Duration::from_millis(100),
    };
    config
}
