//! All pools of the driver, and which of them has a volume. All functions block.

use std::sync::Arc;

use crate::{
    config::PoolConfig,
    pool::{Pool, PoolError},
    record::Record,
};

/// The pools, in the order of the configuration; the first is the default.
#[derive(Debug)]
pub(crate) struct Pools {
    pools: Vec<Arc<Pool>>,
}

/// Who opens pools.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Opener {
    /// A node; the controller is elsewhere.
    Node,
    /// The controller; nodes may be elsewhere.
    Controller,
    /// The controller and the only node.
    Alone,
}

impl Pools {
    /// Opens all pools, making those that are not there.
    pub(crate) fn open(configs: &[PoolConfig], opener: Opener) -> Result<Self, PoolError> {
        let open = |config| {
            let pool = Pool::open(config, opener != Opener::Node)?;
            let pool = match opener {
                Opener::Alone => pool.of_one_process(),
                Opener::Node | Opener::Controller => pool,
            };
            Ok::<_, PoolError>(Arc::new(pool))
        };
        let pools = configs.iter().map(open).collect::<Result<_, _>>()?;
        Ok(Pools { pools })
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Arc<Pool>> {
        self.pools.iter()
    }

    /// The volume's pool and record, read from disk.
    pub(crate) fn load(&self, volume_id: &str) -> Result<(Arc<Pool>, Record), PoolError> {
        for pool in &self.pools {
            match pool.load(volume_id) {
                Err(error) if error.is_not_there() => {}
                loaded => return loaded.map(|record| (Arc::clone(pool), record)),
            }
        }
        Err(PoolError::NotThere {
            noun: "volume",
            id: volume_id.to_owned(),
        })
    }
}
