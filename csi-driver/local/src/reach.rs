//! From where volumes can be reached: from this node alone, or from all nodes that share a pool.

use moorline_driver_sdk::{DriverError, request::Topology};

use crate::{pool::Pool, pool_topology_key};

/// How many nodes have the pools.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Nodes {
    One,
    Several,
}

#[derive(Clone, Debug)]
pub(crate) enum Reach {
    /// The pools are this node's own.
    Node(Topology),
    /// Several nodes have the same pool directories: a node is where its pools are.
    Pools { driver_name: String },
}

impl Reach {
    /// How many nodes have the pools?
    pub(crate) fn nodes(&self) -> Nodes {
        match self {
            Reach::Node(_) => Nodes::One,
            Reach::Pools { .. } => Nodes::Several,
        }
    }

    /// Do several nodes share the pools, so that leases say who may use a volume?
    pub(crate) fn is_shared(&self) -> bool {
        self.nodes() == Nodes::Several
    }

    /// From where the volumes of this pool can be reached. May read the pool's id.
    pub(crate) fn of_pool(&self, pool: &Pool) -> Result<Topology, DriverError> {
        self.of_all(std::iter::once(pool))
    }

    /// Where somebody is who has all these pools.
    pub(crate) fn of_all<'a>(&self, pools: impl Iterator<Item = &'a Pool>) -> Result<Topology, DriverError> {
        let driver_name = match self {
            Reach::Node(here) => return Ok(here.clone()),
            Reach::Pools { driver_name } => driver_name,
        };
        let segment = |pool: &Pool| {
            let id = pool.known_id().ok_or_else(|| {
                let what = "has no id yet; start its controller first";
                DriverError::precondition(format!("pool {} {what}", pool.name()))
            })?;
            Ok((pool_topology_key(driver_name, pool.name()), id.to_string()))
        };
        pools.map(segment).collect::<Result<_, _>>().map(Topology)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{BackendKind, PoolConfig};

    #[test]
    fn a_shared_pool_is_where_its_id_is() {
        let dir = tempfile::tempdir().unwrap();
        let config = PoolConfig::new("p", dir.path().join("pool"), BackendKind::Dir);
        let shared = Reach::Pools {
            driver_name: "d".into(),
        };
        let node = Pool::open(&config, false).unwrap();
        let early = shared.of_pool(&node).unwrap_err();
        assert!(early.to_string().contains("start its controller"), "{early}");
        let controller = Pool::open(&config, true).unwrap();
        let place = shared.of_pool(&controller).unwrap();
        assert_eq!(place, Topology::one("pool.d/p", controller.id().to_string()));
        assert_eq!(
            shared.of_pool(&node).unwrap(),
            place,
            "the node sees it without a restart"
        );
        let own = Reach::Node(Topology::one("node", "n1"));
        assert_eq!(own.of_pool(&node).unwrap(), Topology::one("node", "n1"));
    }
}
