//! The nodes that share a pool: each writes a record about itself, by which the controller knows it.
//!
//! ```text
//! <pool>/nodes/<node_id>        its record; removing the file makes the node unknown
//! ```
//! All functions block.

use std::{fs, io, path::PathBuf};

use moorline_mount::durable;
use serde::{Deserialize, Serialize};

use crate::{
    pool::{Pool, PoolError},
    record::{
        RecordError,
        envelope::{self, Kind},
    },
};

pub(crate) const KIND: Kind = Kind {
    noun: "node",
    magic: "moorline-node",
    version: 1,
};
const DIRECTORY: &str = "nodes";

/// What a node says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct NodeRecord {
    pub(crate) node_id: String,
    /// How many volumes it takes; `None`: no limit.
    pub(crate) max_volumes: Option<u64>,
}

impl NodeRecord {
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        KIND.seal(self)
    }

    pub(crate) fn read_of(node_id: &str, bytes: &[u8]) -> Result<Self, RecordError> {
        let (_, body) = KIND.open(bytes)?;
        let node: NodeRecord = envelope::read(body)?;
        if node.node_id == node_id {
            return Ok(node);
        }
        Err(RecordError::OtherOwner {
            found: node.node_id,
            expected: node_id.to_owned(),
        })
    }
}

fn path(pool: &Pool, node_id: &str) -> PathBuf {
    pool.root().join(DIRECTORY).join(node_id)
}

/// Makes this node known to the pool, durably.
pub(crate) fn register(pool: &Pool, node: &NodeRecord) -> Result<(), PoolError> {
    let path = path(pool, &node.node_id);
    let bytes = node.to_bytes();
    crate::pool::make_directory(&pool.root().join(DIRECTORY))?;
    if fs::read(&path).is_ok_and(|found| found == bytes) {
        return Ok(());
    }
    durable::write(&path, &bytes)?;
    Ok(durable::sync_directory(pool.root())?)
}

/// The node with this id, if the pool knows it.
pub(crate) fn find(pool: &Pool, node_id: &str) -> Result<Option<NodeRecord>, PoolError> {
    if !is_node_id(node_id) {
        return Ok(None);
    }
    let path = path(pool, node_id);
    let bytes = match fs::read(&path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(PoolError::io("read", path)(error)),
    };
    let node = NodeRecord::read_of(node_id, &bytes).map_err(|source| PoolError::Record {
        noun: KIND.noun,
        id: node_id.to_owned(),
        source: source.into(),
    })?;
    Ok(Some(node))
}

/// Could this be the id of one of our nodes? Nothing else is looked up on disk.
fn is_node_id(id: &str) -> bool {
    let is_inner = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    id.len() <= 63 && id.starts_with(|c: char| c.is_ascii_alphanumeric()) && id.chars().all(is_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{BackendKind, PoolConfig};

    #[test]
    fn a_node_is_known_by_what_it_wrote_last() {
        let dir = tempfile::tempdir().unwrap();
        let config = PoolConfig::new("p", dir.path().join("pool"), BackendKind::Dir);
        let pool = Pool::open(&config, true).unwrap();
        assert_eq!(find(&pool, "n1").unwrap(), None);
        let node = |max_volumes| NodeRecord {
            node_id: "n1".into(),
            max_volumes,
        };
        for max_volumes in [None, Some(3), Some(3)] {
            register(&pool, &node(max_volumes)).unwrap();
            assert_eq!(find(&pool, "n1").unwrap(), Some(node(max_volumes)));
        }
        for id in ["n2", "", ".", "..", "../pool.id", ".hidden", "a/b"] {
            assert_eq!(find(&pool, id).unwrap(), None, "{id}");
        }
        fs::write(path(&pool, "n1"), "damaged").unwrap();
        find(&pool, "n1").expect_err("not guessed at");
        register(&pool, &node(None)).expect("its next start writes it anew");
        assert_eq!(find(&pool, "n1").unwrap(), Some(node(None)));
    }
}
