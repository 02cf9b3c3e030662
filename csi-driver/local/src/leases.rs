//! The leases of all pools: on disk, where nodes read them, and in memory, where the one controller decides.
//!
//! ```text
//! <pool>/leases/<volume_id>     the volume's lease; stays when nobody holds it, for its generation
//! ```
//! A lease is granted once it is on disk. Only who has the pool's controller lock writes here. All functions block.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use jiff::Timestamp;
use moorline_driver_sdk::{DriverError, ErrorKind};
use moorline_mount::durable::{self, SharedSync};
use parking_lot::Mutex;

use crate::{
    failpoint,
    ids::is_id,
    lease::{self, Lease, Next, NodeLoad, Refusal, Wish},
    nodes::NodeRecord,
    pool::{Pool, PoolError},
};

const DIRECTORY: &str = "leases";

/// All leases, for the controller.
#[derive(Debug)]
pub(crate) struct Leases {
    shelves: BTreeMap<String, Shelf>,
    book: Mutex<BTreeMap<Arc<str>, Entry>>,
}

#[derive(Debug)]
struct Shelf {
    path: PathBuf,
    sync: SharedSync,
}

#[derive(Clone, Debug)]
enum Entry {
    Known(Arc<Lease>),
    /// Who holds it can't be told: nobody else gets it.
    Damaged(Arc<str>),
}

/// The lease of a volume as it is on disk now, for nodes.
pub(crate) fn read(pool: &Pool, volume_id: &str) -> Result<Option<Lease>, PoolError> {
    read_in(&pool.root().join(DIRECTORY), volume_id)
}

fn read_in(directory: &Path, volume_id: &str) -> Result<Option<Lease>, PoolError> {
    if !is_id(volume_id) {
        return Ok(None);
    }
    let path = directory.join(volume_id);
    let bytes = match fs::read(&path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(PoolError::io("read", path)(error)),
    };
    let lease = Lease::read_of(volume_id, &bytes).map_err(|source| PoolError::Record {
        noun: "lease",
        id: volume_id.to_owned(),
        source: source.into(),
    })?;
    Ok(Some(lease))
}

/// Refuses a pool with volumes that nodes hold, on behalf of a driver that heeds no leases.
pub(crate) fn refuse_leased(pool: &Pool) -> Result<(), PoolError> {
    let directory = pool.root().join(DIRECTORY);
    let entries = match fs::read_dir(&directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(PoolError::io("list", directory)(error)),
    };
    for entry in entries {
        let entry = entry.map_err(PoolError::io("list", &directory))?;
        let volume_id = entry.file_name().to_string_lossy().into_owned();
        let lease = read_in(&directory, &volume_id)?;
        if let Some(holder) = lease.as_ref().and_then(|lease| lease.holders.first()) {
            return Err(PoolError::Leased {
                pool: pool.name().to_owned(),
                node_id: holder.node_id.clone(),
                volume_id,
            });
        }
    }
    Ok(())
}

impl Shelf {
    fn open(pool: &Pool) -> Result<Self, PoolError> {
        let path = pool.root().join(DIRECTORY);
        crate::pool::make_directory(&path)?;
        durable::sync_directory(pool.root())?;
        let sync = SharedSync::open(&path)?;
        Ok(Shelf { path, sync })
    }

    /// Reads all leases; those of volumes that are gone are removed.
    fn scan(
        &self,
        has_volume: &dyn Fn(&str) -> bool,
        book: &mut BTreeMap<Arc<str>, Entry>,
    ) -> Result<(), PoolError> {
        for entry in fs::read_dir(&self.path).map_err(PoolError::io("list", &self.path))? {
            let entry = entry.map_err(PoolError::io("list", &self.path))?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if !is_id(&name) || !has_volume(&name) {
                // Of a volume that is gone, or a half-written one.
                tracing::debug!(path = %entry.path().display(), "Removing a lease of nothing");
                fs::remove_file(entry.path()).map_err(PoolError::io("remove", entry.path()))?;
                continue;
            }
            let found = match read_in(&self.path, &name) {
                Ok(Some(lease)) => Entry::Known(Arc::new(lease)),
                Ok(None) => continue,
                Err(error) => {
                    let reason = DriverError::from(error).full_message();
                    tracing::error!(
                        volume.id = name,
                        reason,
                        "A lease can't be read; no other node gets the volume"
                    );
                    Entry::Damaged(reason.into())
                }
            };
            book.insert(name.into(), found);
        }
        Ok(())
    }

    fn write(&self, lease: &Lease) -> Result<(), DriverError> {
        let written = durable::replace(self.path.join(&lease.volume_id), &lease.to_bytes());
        written.map_err(PoolError::from)?;
        // From here on nodes see it, and it may survive a crash.
        failpoint::hit("lease::after_write").map_err(|error| uncertain("write the lease", error))?;
        let synced = self.sync.sync().map_err(PoolError::from);
        synced.map_err(|error| uncertain("make the lease durable", error))?;
        failpoint::hit("lease::after_sync").map_err(|error| uncertain("answer", error))
    }
}

fn uncertain(what: &str, source: PoolError) -> DriverError {
    DriverError::new(ErrorKind::Uncertain, what).caused_by(source)
}

/// Not below the clock: a lease whose record is lost is never taken for a later one.
fn now() -> u64 {
    u64::try_from(Timestamp::now().as_millisecond()).unwrap_or(1)
}

impl Leases {
    /// Reads the leases of these pools; `has_volume` says which volumes a pool has.
    pub(crate) fn open<'a>(
        pools: impl Iterator<Item = &'a Pool>,
        has_volume: impl Fn(&Pool, &str) -> bool,
    ) -> Result<Self, PoolError> {
        let (mut shelves, mut book) = (BTreeMap::new(), BTreeMap::new());
        for pool in pools {
            let shelf = Shelf::open(pool)?;
            shelf.scan(&|volume_id| has_volume(pool, volume_id), &mut book)?;
            shelves.insert(pool.name().to_owned(), shelf);
        }
        Ok(Leases {
            shelves,
            book: Mutex::new(book),
        })
    }

    /// Grants a lease, durably; its generation.
    pub(crate) fn publish(
        &self,
        pool: &Pool,
        volume_id: &str,
        wish: Wish<'_>,
        node: &NodeRecord,
    ) -> Result<u64, DriverError> {
        let shelf = self.shelf(pool)?;
        let (before, lease) = {
            let mut book = self.book.lock();
            let before = known(&book, volume_id)?;
            let load = NodeLoad {
                held: held_by(&book, wish.node_id),
                max: node.max_volumes,
            };
            match lease::publish(volume_id, before.as_deref(), wish, load, now()) {
                Next::Keep(generation) => return Ok(generation),
                Next::Refuse(refusal) => return Err(refused(volume_id, wish.node_id, refusal)),
                Next::Write(lease) => {
                    let lease = Arc::new(lease);
                    // At once, so that the node's place is taken.
                    book.insert(volume_id.into(), Entry::Known(Arc::clone(&lease)));
                    (before, lease)
                }
            }
        };
        let generation = lease.generation;
        self.write(shelf, volume_id, before, &lease)?;
        tracing::info!(
            volume.id = volume_id,
            node.id = wish.node_id,
            generation,
            "Lease granted"
        );
        Ok(generation)
    }

    /// Ends the lease of one node, or of all, durably. None there is fine.
    pub(crate) fn unpublish(
        &self,
        pool: &Pool,
        volume_id: &str,
        node_id: Option<&str>,
    ) -> Result<(), DriverError> {
        let shelf = self.shelf(pool)?;
        let (before, lease) = {
            let mut book = self.book.lock();
            let before = known(&book, volume_id)?;
            let Some(lease) = lease::unpublish(before.as_deref(), node_id, now()) else {
                return Ok(());
            };
            let lease = Arc::new(lease);
            book.insert(volume_id.into(), Entry::Known(Arc::clone(&lease)));
            (before, lease)
        };
        self.write(shelf, volume_id, before, &lease)?;
        tracing::info!(
            volume.id = volume_id,
            node.id = node_id,
            generation = lease.generation,
            "Lease ended"
        );
        Ok(())
    }

    fn shelf(&self, pool: &Pool) -> Result<&Shelf, DriverError> {
        // All pools were opened with us.
        let shelf = self.shelves.get(pool.name());
        shelf.ok_or_else(|| DriverError::precondition(format!("pool {} keeps no leases", pool.name())))
    }

    /// What was not written is as if it had not been: nobody was told its generation.
    fn write(
        &self,
        shelf: &Shelf,
        volume_id: &str,
        before: Option<Arc<Lease>>,
        lease: &Lease,
    ) -> Result<(), DriverError> {
        let written = shelf.write(lease);
        if written.is_err() {
            let mut book = self.book.lock();
            match before {
                Some(before) => book.insert(volume_id.into(), Entry::Known(before)),
                None => book.remove(volume_id),
            };
        }
        written
    }

    /// The nodes that hold the volume now.
    pub(crate) fn nodes(&self, volume_id: &str) -> Vec<String> {
        match self.book.lock().get(volume_id) {
            Some(Entry::Known(lease)) => lease
                .holders
                .iter()
                .map(|holder| holder.node_id.clone())
                .collect(),
            Some(Entry::Damaged(_)) | None => Vec::new(),
        }
    }

    /// Refuses while a node holds the volume.
    pub(crate) fn refuse_held(&self, volume_id: &str) -> Result<(), DriverError> {
        let lease = known(&self.book.lock(), volume_id)?;
        match lease.as_ref().and_then(|lease| lease.holders.first()) {
            None => Ok(()),
            Some(holder) => Err(DriverError::precondition(format!(
                "volume {volume_id} is published to node {}",
                holder.node_id
            ))),
        }
    }

    /// Removes what is left of the lease of a volume that is gone.
    pub(crate) fn forget(&self, pool: &Pool, volume_id: &str) {
        self.book.lock().remove(volume_id);
        let Ok(shelf) = self.shelf(pool) else {
            return;
        };
        match fs::remove_file(shelf.path.join(volume_id)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                // Nobody holds it, and the next start removes it.
                tracing::warn!(volume.id = volume_id, %error, "The lease of a deleted volume can't be removed");
            }
            _ => {}
        }
    }
}

fn known(book: &BTreeMap<Arc<str>, Entry>, volume_id: &str) -> Result<Option<Arc<Lease>>, DriverError> {
    match book.get(volume_id) {
        None => Ok(None),
        Some(Entry::Known(lease)) => Ok(Some(Arc::clone(lease))),
        Some(Entry::Damaged(reason)) => Err(DriverError::precondition(format!(
            "the lease of volume {volume_id} can't be read ({reason}): make sure that no node uses the volume, remove \
             the file leases/{volume_id} in its pool, and start the controller again"
        ))),
    }
}

fn held_by(book: &BTreeMap<Arc<str>, Entry>, node_id: &str) -> u64 {
    let holds = |entry: &&Entry| match entry {
        Entry::Known(lease) => lease.holders.iter().any(|holder| holder.node_id == node_id),
        Entry::Damaged(_) => false,
    };
    u64::try_from(book.values().filter(holds).count()).unwrap_or(u64::MAX)
}

fn refused(volume_id: &str, node_id: &str, refusal: Refusal) -> DriverError {
    match refusal {
        Refusal::OtherWay => DriverError::already_exists(format!(
            "volume {volume_id} is published to node {node_id} in another way: unpublish it first"
        )),
        Refusal::Elsewhere(other) => {
            DriverError::precondition(format!("volume {volume_id} is published to node {other}"))
        }
        Refusal::NodeFull { max } => {
            DriverError::exhausted(format!("node {node_id} has the {max} volumes that it may have"))
        }
        Refusal::Impossible(what) => {
            tracing::error!(
                volume.id = volume_id,
                what,
                "A lease is in a state that is not possible; this is a bug"
            );
            DriverError::new(
                ErrorKind::Internal,
                format!("the lease of volume {volume_id}: {what}"),
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use moorline_driver_sdk::request::AccessMode;

    use super::*;
    use crate::config::{BackendKind, PoolConfig};

    fn pool(dir: &Path) -> Pool {
        let config = PoolConfig::new("p", dir.join("pool"), BackendKind::Dir);
        Pool::open(&config, true).unwrap()
    }

    fn open(pool: &Pool) -> Leases {
        Leases::open([pool].into_iter(), |_, volume_id| volume_id.starts_with('v')).unwrap()
    }

    fn wish(node_id: &str) -> Wish<'_> {
        Wish {
            node_id,
            is_read_only: false,
            access_mode: AccessMode::SingleNodeWriter,
        }
    }

    fn node(node_id: &str, max_volumes: Option<u64>) -> NodeRecord {
        NodeRecord {
            node_id: node_id.into(),
            max_volumes,
        }
    }

    fn kind<T: std::fmt::Debug>(result: Result<T, DriverError>) -> ErrorKind {
        result.expect_err("refused").kind()
    }

    #[test]
    fn a_lease_is_on_disk_and_survives_the_controller() {
        let dir = tempfile::tempdir().unwrap();
        let pool = pool(dir.path());
        let leases = open(&pool);
        let (n1, n2) = (node("n1", Some(1)), node("n2", None));
        let first = leases.publish(&pool, "v1", wish("n1"), &n1).unwrap();
        assert_eq!(read(&pool, "v1").unwrap().unwrap().generation, first);
        assert_eq!(
            leases.publish(&pool, "v1", wish("n1"), &n1).unwrap(),
            first,
            "the same again"
        );
        let leases = open(&pool);
        assert_eq!(leases.nodes("v1"), ["n1"]);
        assert_eq!(
            kind(leases.publish(&pool, "v1", wish("n2"), &n2)),
            ErrorKind::FailedPrecondition
        );
        assert_eq!(
            kind(leases.publish(&pool, "v2", wish("n1"), &n1)),
            ErrorKind::ResourceExhausted
        );
        assert_eq!(kind(leases.refuse_held("v1")), ErrorKind::FailedPrecondition);
        for _ in 0..2 {
            leases.unpublish(&pool, "v1", Some("n1")).unwrap();
        }
        leases.refuse_held("v1").unwrap();
        refuse_leased(&pool).expect("nobody holds one");
        assert!(
            matches!(read(&pool, "v1"), Ok(Some(_))),
            "it stays for its generation"
        );
        let second = leases.publish(&pool, "v1", wish("n2"), &n2).unwrap();
        assert!(second > first);
        leases
            .publish(&pool, "v2", wish("n1"), &n1)
            .expect("there is room again");
        leases.unpublish(&pool, "v1", None).unwrap();
        leases.forget(&pool, "v1");
        let held = refuse_leased(&pool).unwrap_err().to_string();
        assert!(
            held.contains("v2") && held.contains("n1") && held.contains("--attachable"),
            "{held}"
        );
        assert_eq!(read(&pool, "v1").unwrap(), None);
    }

    #[test]
    fn leases_of_nothing_go_and_damaged_ones_are_given_to_nobody() {
        let dir = tempfile::tempdir().unwrap();
        let pool = pool(dir.path());
        drop(open(&pool));
        let directory = pool.root().join(DIRECTORY);
        for name in ["gone", ".v1-tmp", "v1"] {
            fs::write(directory.join(name), "not a lease").unwrap();
        }
        let leases = open(&pool);
        let names: Vec<_> = fs::read_dir(&directory)
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        assert_eq!(names, ["v1"]);
        let n1 = node("n1", None);
        assert_eq!(
            kind(leases.publish(&pool, "v1", wish("n1"), &n1)),
            ErrorKind::FailedPrecondition
        );
        assert_eq!(
            kind(leases.unpublish(&pool, "v1", Some("n1"))),
            ErrorKind::FailedPrecondition
        );
        assert_eq!(
            fs::read(directory.join("v1")).unwrap(),
            b"not a lease",
            "it is left as it is"
        );
        read(&pool, "v1").expect_err("a node refuses it, too");
    }
}
