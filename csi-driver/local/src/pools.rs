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

impl Pools {
    /// Opens all pools, making those that are not there.
    /// With `of_one_process`, nobody but this process uses them.
    pub(crate) fn open(
        configs: &[PoolConfig],
        for_controller: bool,
        of_one_process: bool,
    ) -> Result<Self, PoolError> {
        let open = |config| {
            let pool = Pool::open(config, for_controller)?;
            Ok::<_, PoolError>(Arc::new(if of_one_process {
                pool.of_one_process()
            } else {
                pool
            }))
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
