//! Volumes that are deleted, durably, but whose data is still on the disk: who deletes a volume does not wait for that.
//!
//! Their room counts as taken until the data has gone. Whoever needs room waits for that, and tries again what has failed;
//! the next start does so too.

use std::{collections::BTreeMap, sync::Arc};

use futures::{
    FutureExt as _,
    future::{BoxFuture, Shared},
};
use moorline_driver_sdk::{DriverError, ErrorKind};
use parking_lot::Mutex;
use tokio_util::task::TaskTracker;

use super::Member;
use crate::{blocking::Blocking, record::Record};

/// A removal under way, or the end of one; many may wait for it.
type Removal = Shared<BoxFuture<'static, Result<(), String>>>;

type Volumes = BTreeMap<Arc<str>, (Arc<Record>, Removal)>;

/// The volumes of one pool whose data is being removed, or could not be removed yet.
#[derive(Default)]
pub(crate) struct Leaving {
    volumes: Mutex<Volumes>,
    tasks: TaskTracker,
}

impl Leaving {
    /// Is this volume's data still going?
    pub(super) fn has(&self, volume_id: &str) -> bool {
        self.volumes.lock().contains_key(volume_id)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.volumes.lock().is_empty()
    }

    fn get(&self, volume_id: &str) -> Option<(Arc<Record>, Removal)> {
        self.volumes.lock().get(volume_id).cloned()
    }
}

impl Member {
    /// Begins to remove the data of a volume that has been taken away, with its room still taken.
    pub(super) fn remove_later(self: &Arc<Self>, record: Arc<Record>, blocking: &Blocking) {
        // The lock first: the removal takes the entry out again, however quick it is.
        let mut volumes = self.leaving.volumes.lock();
        let removal = self.start_removal(Arc::clone(&record), blocking.clone());
        volumes.insert(Arc::clone(&record.volume_id), (record, removal));
    }

    fn start_removal(self: &Arc<Self>, record: Arc<Record>, blocking: Blocking) -> Removal {
        let member = Arc::clone(self);
        let task = self.leaving.tasks.spawn(async move {
            let (pool, volume_id) = (Arc::clone(&member.pool), Arc::clone(&record.volume_id));
            let work = move || pool.remove_gone(&volume_id);
            let removed = blocking.run("remove the data of a deleted volume", work).await;
            match removed.and_then(|removed| removed.map_err(DriverError::from)) {
                Ok(()) => {
                    let mut volumes = member.leaving.volumes.lock();
                    volumes.remove(&record.volume_id);
                    member.catalog.finish_leaving(record.as_ref());
                    Ok(())
                }
                Err(error) => {
                    let error = error.full_message();
                    tracing::error!(
                        volume.id = &*record.volume_id,
                        pool = member.pool.name(),
                        error,
                        "The data of a deleted volume can't be removed; it is tried again when room is needed"
                    );
                    Err(error)
                }
            }
        });
        async move { task.await.unwrap_or_else(|error| Err(error.to_string())) }
            .boxed()
            .shared()
    }

    /// Returns once the data of this deleted volume has gone. What has failed is tried once more.
    pub(super) async fn has_left(
        self: &Arc<Self>,
        volume_id: &str,
        blocking: &Blocking,
    ) -> Result<(), DriverError> {
        let Some((record, removal)) = self.leaving.get(volume_id) else {
            return Ok(());
        };
        if removal.clone().await.is_ok() {
            return Ok(());
        }
        let again = {
            let mut volumes = self.leaving.volumes.lock();
            match volumes.get_mut(volume_id) {
                None => return Ok(()),
                // Somebody else tries again already.
                Some((_, other)) if !other.ptr_eq(&removal) => other.clone(),
                Some((_, failed)) => {
                    *failed = self.start_removal(record, blocking.clone());
                    failed.clone()
                }
            }
        };
        again.await.map_err(|error| {
            let message = format!("remove the data of volume {volume_id}: {error}");
            DriverError::new(ErrorKind::Internal, message)
        })
    }

    /// Returns once the data of all volumes that are deleted by now has gone, but for what can't be removed.
    pub(crate) async fn all_have_left(self: &Arc<Self>, blocking: &Blocking) {
        let leaving: Vec<_> = self.leaving.volumes.lock().keys().cloned().collect();
        for volume_id in leaving {
            if let Err(error) = self.has_left(&volume_id, blocking).await {
                // Its room stays taken; the removal has logged why.
                tracing::debug!(%error, "Room is not given back");
            }
        }
    }
}
