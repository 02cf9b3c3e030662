//! Follows the records of the volumes that are staged on this machine: whoever changed one, a controller elsewhere or one that
//! died before it acted, the volume's device comes to be as its record says.
//!
//! ```text
//!   start, or a volume is staged or unstaged
//!        |
//!        v                   nothing is staged, or all is as the controller in this process wants it
//!   look at all devices ---------------------------------------------------------> rest
//!        |                                                                          |
//!        | records of somebody else, or a failure                                   | woken
//!        v                                                                          v
//!   every 2 s: look at the times of the records followed ---- woken ----> look at all devices
//! ```
//! While it rests, no thread wakes up.

use std::{
    collections::{BTreeMap, BTreeSet},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, SystemTime},
};

use moorline_driver_sdk::DriverError;
use moorline_mount::loop_device;
use parking_lot::Mutex;
use tokio::{sync::Notify, time::sleep};

use crate::{
    backend::{self, BackendError, Files},
    blocking::Blocking,
    ids::is_id,
    pool::Pool,
    pools::Pools,
    settings::Settings,
};

/// How long a change may take to arrive. Looking costs a stat for each volume that is followed; after something was staged,
/// also a listing of the loop devices.
const INTERVAL: Duration = Duration::from_secs(2);

/// A filesystem is frozen for 30 s at most while it is copied; a controller that restarts is faster than that, too.
const FROZEN_AGE: Duration = Duration::from_secs(45);

/// Which record a volume has been tuned by: its file's inode and time.
type Version = (u64, i64, i64);

/// What has been followed so far.
#[derive(Debug)]
pub(crate) struct Follower {
    pools: Arc<Pools>,
    /// The controller of these pools is in this process: nobody else writes records.
    has_controller: bool,
    /// The volumes with devices on this machine, by directory.
    done: Mutex<BTreeMap<PathBuf, Done>>,
    /// Volumes that have been let go of: the volume's directory, and since when it had been held.
    thawed: Mutex<BTreeSet<(PathBuf, SystemTime)>>,
    /// Devices have come or gone since the last look at all of them.
    is_stale: AtomicBool,
    woken: Notify,
    #[cfg(test)]
    looks: std::sync::atomic::AtomicUsize,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Done {
    /// Not yet: it is new, or its record can't be read.
    Not,
    Tuned(Version),
    /// It is tried again each time, but told once.
    Failed(Version),
}

/// Is there nothing to look at before a volume is staged? Pure.
fn may_rest<'a>(has_controller: bool, mut followed: impl Iterator<Item = &'a Done>) -> bool {
    followed.all(|done| match done {
        // The controller here acts by itself on what it writes.
        Done::Tuned(_) => has_controller,
        Done::Not | Done::Failed(_) => false,
    })
}

fn version(record: &Path) -> Option<Version> {
    let seen = std::fs::metadata(record).ok()?;
    Some((seen.ino(), seen.mtime(), seen.mtime_nsec()))
}

/// What is known of a volume that was tuned by one record when there is this one now: a controller elsewhere may have
/// written another one meanwhile. Pure.
fn tuned(by: Version, now: Option<Version>) -> Done {
    if now == Some(by) {
        Done::Tuned(by)
    } else {
        Done::Not
    }
}

impl Follower {
    pub(crate) fn new(pools: Arc<Pools>, has_controller: bool) -> Self {
        Follower {
            pools,
            has_controller,
            done: Mutex::default(),
            thawed: Mutex::default(),
            is_stale: AtomicBool::new(true),
            woken: Notify::new(),
            #[cfg(test)]
            looks: Default::default(),
        }
    }

    /// Looks whenever there may be something to do; never ends.
    pub(crate) async fn run(self: Arc<Self>, blocking: Blocking) {
        loop {
            let follower = Arc::clone(&self);
            let looked = blocking
                .run("follow the volumes' records", move || follower.look())
                .await;
            match looked {
                Ok(Ok(())) if may_rest(self.has_controller, self.done.lock().values()) => {
                    // Several that were staged before the last look have left a word behind, too.
                    while !self.is_stale.load(Ordering::SeqCst) {
                        self.woken.notified().await;
                    }
                }
                Ok(Ok(())) => {}
                Ok(Err(error)) | Err(error) => {
                    tracing::warn!(error = error.full_message(), "Records can't be followed");
                }
            }
            // Also after being woken: many volumes that are staged one after the other are one look.
            sleep(INTERVAL).await;
        }
    }

    /// The volume's device has come or gone, or was tuned by a record that may have changed meanwhile.
    pub(crate) fn look_again(&self, directory: &Path) {
        self.done.lock().remove(directory);
        self.is_stale.store(true, Ordering::SeqCst);
        self.woken.notify_one();
    }

    /// Tunes the volumes whose records have changed since the last time. Blocks.
    fn look(&self) -> Result<(), DriverError> {
        #[cfg(test)]
        self.looks.fetch_add(1, Ordering::SeqCst);
        // Before the listing: what comes during it is looked at the next time.
        if self.is_stale.swap(false, Ordering::SeqCst)
            && let Err(error) = self.list()
        {
            self.is_stale.store(true, Ordering::SeqCst);
            return Err(error);
        }
        let followed: Vec<_> = self.done.lock().keys().cloned().collect();
        for pool in self.pools.iter() {
            if !followed.is_empty() {
                self.thaw(pool);
            }
            for directory in &followed {
                let volume_id = directory.file_name().and_then(|name| name.to_str());
                if let Some(volume_id) = volume_id.filter(|volume_id| pool.directory(volume_id) == *directory)
                {
                    self.follow(pool, volume_id);
                }
            }
        }
        Ok(())
    }

    /// Finds the volumes that have devices on this machine.
    fn list(&self) -> Result<(), DriverError> {
        let entries = loop_device::list()
            .map_err(|error| BackendError::from(error).into_driver_error("list the loop devices"))?;
        let mut present = BTreeSet::new();
        for pool in self.pools.iter() {
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
                present.extend(
                    volume_id
                        .filter(|volume_id| is_id(volume_id))
                        .map(|volume_id| pool.directory(volume_id)),
                );
            }
        }
        let mut done = self.done.lock();
        done.retain(|directory, _| present.contains(directory));
        for directory in present {
            done.entry(directory).or_insert(Done::Not);
        }
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
        let record = pool.volumes.record_path(volume_id);
        let _alone = pool.tuning.lock();
        let Some(version) = version(&record) else {
            // Being deleted; or damaged, which whoever calls for it is told. Who is deleted has no device any more.
            self.is_stale.store(true, Ordering::SeqCst);
            return;
        };
        let before = self.done.lock().get(&directory).cloned();
        if before == Some(Done::Tuned(version)) {
            return;
        }
        let done = match tune(pool, volume_id) {
            Ok(()) => tuned(version, self::version(&record)),
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
        // Forgotten meanwhile: it has been staged or unstaged, and is looked at anew.
        if let Some(entry) = self.done.lock().get_mut(&directory) {
            *entry = done;
        }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        config::{BackendKind, PoolConfig},
        pools::Opener,
    };

    #[test]
    fn what_was_tuned_by_an_older_record_is_not_done() {
        let (older, newer) = ((1, 2, 3), (4, 2, 3));
        let cases = [
            ("the same record", Some(older), Done::Tuned(older)),
            ("a newer one", Some(newer), Done::Not),
            ("none any more", None, Done::Not),
        ];
        for (name, now, expected) in cases {
            assert_eq!(tuned(older, now), expected, "{name}");
        }
    }

    #[test]
    fn it_rests_when_nobody_can_change_anything() {
        let (tuned, failed) = (Done::Tuned((1, 2, 3)), Done::Failed((1, 2, 3)));
        let cases: [(&str, bool, Vec<&Done>, bool); 6] = [
            ("nothing is staged", false, vec![], true),
            ("nothing is staged, with the controller", true, vec![], true),
            ("a controller elsewhere", false, vec![&tuned], false),
            ("the controller is here", true, vec![&tuned], true),
            ("one has failed", true, vec![&tuned, &failed], false),
            ("one was not looked at", true, vec![&Done::Not], false),
        ];
        for (name, has_controller, followed, expected) in cases {
            assert_eq!(may_rest(has_controller, followed.into_iter()), expected, "{name}");
        }
    }

    /// An hour without a volume is one look, and one more for each time that something was staged.
    #[tokio::test(start_paused = true)]
    async fn an_idle_node_does_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let config = PoolConfig::new("default", dir.path().join("pool"), BackendKind::Loop);
        let pools = Arc::new(Pools::open(&[config], Opener::Controller).unwrap());
        let follower = Arc::new(Follower::new(pools, false));
        let hour = Duration::from_secs(3600);
        let running = tokio::time::timeout(3 * hour, Arc::clone(&follower).run(Blocking::new()));
        let watching = async {
            sleep(hour).await;
            assert_eq!(follower.looks.load(Ordering::SeqCst), 1);
            for _ in 0..10 {
                follower.look_again(Path::new("/pool/volumes/v"));
            }
            sleep(hour).await;
            assert_eq!(follower.looks.load(Ordering::SeqCst), 2);
        };
        let (ended, ()) = tokio::join!(running, watching);
        ended.expect_err("it never ends");
    }
}
