//! Follows the records of the volumes that are staged on this machine: whoever changed one, a controller elsewhere or one that
//! died before it acted, the volume's device comes to be as its record says.

use std::{
    collections::{BTreeMap, BTreeSet},
    os::unix::fs::MetadataExt as _,
    path::PathBuf,
    sync::Arc,
    time::{Duration, SystemTime},
};

use moorline_driver_sdk::DriverError;
use moorline_mount::loop_device;
use parking_lot::Mutex;
use tokio::time::{MissedTickBehavior, interval};

use crate::{
    backend::{self, BackendError, Files},
    blocking::Blocking,
    ids::is_id,
    pool::Pool,
    pools::Pools,
    settings::Settings,
};

/// How long a change may take to arrive. Looking costs a listing of the loop devices and a stat for each of ours.
const INTERVAL: Duration = Duration::from_secs(2);

/// A filesystem is frozen for 30 s at most while it is copied; a controller that restarts is faster than that, too.
const FROZEN_AGE: Duration = Duration::from_secs(45);

/// Which record a volume has been tuned by: its file's inode and time.
type Version = (u64, i64, i64);

/// What has been followed so far.
#[derive(Debug)]
pub(crate) struct Follower {
    pools: Arc<Pools>,
    /// By the volume's directory.
    done: Mutex<BTreeMap<PathBuf, Done>>,
    /// Volumes that have been let go of: the volume's directory, and since when it had been held.
    thawed: Mutex<BTreeSet<(PathBuf, SystemTime)>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Done {
    Tuned(Version),
    /// It is tried again each time, but told once.
    Failed(Version),
}

impl Follower {
    pub(crate) fn new(pools: Arc<Pools>) -> Self {
        Follower {
            pools,
            done: Mutex::default(),
            thawed: Mutex::default(),
        }
    }

    /// Looks again and again; never ends.
    pub(crate) async fn run(self: Arc<Self>, blocking: Blocking) {
        let mut ticks = interval(INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let follower = Arc::clone(&self);
            match blocking
                .run("follow the volumes' records", move || follower.look())
                .await
            {
                Ok(Ok(())) => {}
                Ok(Err(error)) | Err(error) => {
                    tracing::warn!(error = error.full_message(), "Records can't be followed");
                }
            }
        }
    }

    /// The volume's device is new, or was tuned by a record that may have changed meanwhile: look again.
    pub(crate) fn forget(&self, directory: &std::path::Path) {
        self.done.lock().remove(directory);
    }

    /// Tunes the volumes whose records have changed since the last time. Blocks.
    fn look(&self) -> Result<(), DriverError> {
        let entries = loop_device::list()
            .map_err(|error| BackendError::from(error).into_driver_error("list the loop devices"))?;
        let mut present = Vec::new();
        for pool in self.pools.iter() {
            self.thaw(pool);
            // The kernel names files by their real paths.
            let Ok(volumes) = pool.volumes.path().canonicalize() else {
                continue;
            };
            for entry in &entries {
                let directory = entry
                    .backing_file
                    .parent()
                    .filter(|directory| directory.parent() == Some(&volumes));
                let volume_id = directory.and_then(|directory| directory.file_name()?.to_str());
                if let Some(volume_id) = volume_id.filter(|volume_id| is_id(volume_id)) {
                    present.push(pool.directory(volume_id));
                    self.follow(pool, volume_id);
                }
            }
        }
        self.done
            .lock()
            .retain(|directory, _| present.contains(directory));
        Ok(())
    }

    /// Nobody can write to what a killed controller has left frozen, until it comes back; if it does not, nodes help.
    fn thaw(&self, pool: &Pool) {
        for (volume_id, since) in pool.long_frozen(FROZEN_AGE) {
            let freeze = (pool.directory(&volume_id), since);
            if !self.thawed.lock().contains(&freeze) && pool.thaw_abandoned(&volume_id) {
                self.thawed.lock().insert(freeze);
            }
        }
    }

    fn follow(&self, pool: &Pool, volume_id: &str) {
        let directory = pool.directory(volume_id);
        let Ok(seen) = std::fs::metadata(pool.volumes.record_path(volume_id)) else {
            // Being deleted; or damaged, which whoever calls for it is told.
            return;
        };
        let version = (seen.ino(), seen.mtime(), seen.mtime_nsec());
        let before = self.done.lock().get(&directory).cloned();
        if before == Some(Done::Tuned(version)) {
            return;
        }
        let done = match tune(pool, volume_id) {
            Ok(()) => Done::Tuned(version),
            Err(error) => {
                if before != Some(Done::Failed(version)) {
                    let error = error.full_message();
                    tracing::warn!(
                        volume.id = volume_id,
                        error,
                        "A volume's device is not as its parameters want it"
                    );
                }
                Done::Failed(version)
            }
        };
        self.done.lock().insert(directory, done);
    }
}

fn tune(pool: &Pool, volume_id: &str) -> Result<(), DriverError> {
    let record = pool.load(volume_id)?;
    let settings = Settings::parse(&record.mutable_parameters)?;
    let directory = pool.directory(volume_id);
    let files = Files {
        directory: &directory,
        content: record.content,
    };
    backend::of_content(record.content)
        .tune(files, &settings)
        .map_err(|error| error.into_driver_error("change the volume's device"))
}
