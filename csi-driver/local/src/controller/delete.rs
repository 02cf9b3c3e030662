//! How a volume goes: not while it is used, and never half.

use std::sync::Arc;

use moorline_driver_sdk::DriverError;

use super::{LocalController, files_in};
use crate::{backend, catalog::Deleted, pool::Pool, record::Record};

impl LocalController {
    pub(super) async fn delete(&self, volume_id: &str) -> Result<(), DriverError> {
        if let Some(member) = self.members.iter().find(|member| member.leaving.has(volume_id)) {
            // Deleted before: this call waits for the rest, and tries again what has failed.
            let left = member.has_left(volume_id, &self.blocking).await;
            if !member.catalog.has::<Record>(volume_id) {
                return left;
            }
            // There is a new one of that name.
        }
        let Some(member) = self.member_with::<Record>(volume_id) else {
            return self.delete_unlisted(volume_id).await;
        };
        if let Some(leases) = &self.leases {
            leases.refuse_held(volume_id)?;
        }
        let Some(record) = member.catalog.begin_delete::<Record>(volume_id)? else {
            return Ok(());
        };
        let (pool, taken) = (Arc::clone(&member.pool), Arc::clone(&record));
        let leases = self.leases.clone();
        let work = move || {
            let deleted = take_away(&pool, &taken);
            if let (Some(leases), (Deleted::Leaving, _)) = (leases, &deleted) {
                leases.forget(&pool, &taken.volume_id);
            }
            deleted
        };
        let deleted = self.blocking.run("delete the volume", work).await;
        let (end, result) = match deleted {
            Ok((end, result)) => (end, result),
            Err(error) => (Deleted::Left, Err(error)),
        };
        if end == Deleted::Leaving {
            // First: who finds the name free, or no room, then also finds what is still there.
            member.remove_later(Arc::clone(&record), &self.blocking);
        }
        member.catalog.finish_delete(&record, end);
        result?;
        tracing::info!(
            volume.id = &*record.volume_id,
            pool = member.pool.name(),
            "Volume deleted"
        );
        Ok(())
    }

    /// A create whose end nobody knows may have left a volume that is in no catalog until the next start.
    async fn delete_unlisted(&self, volume_id: &str) -> Result<(), DriverError> {
        let pools: Vec<_> = self
            .members
            .iter()
            .map(|member| Arc::clone(&member.pool))
            .collect();
        let volume_id = volume_id.to_owned();
        let work = move || {
            for pool in pools {
                match pool.load(&volume_id) {
                    // The journal may still have what is not in its place.
                    Err(error) if error.is_not_there() => pool.take_away(&volume_id)?,
                    Err(error) => return Err(error.into()),
                    Ok(record) => {
                        take_away(&pool, &record).1?;
                        pool.remove_gone(&volume_id)?;
                    }
                }
            }
            Ok(())
        };
        self.blocking.run("delete what is in no catalog", work).await?
    }
}

/// From now on it is not there any more, durably; its data still is.
fn take_away(pool: &Pool, record: &Record) -> (Deleted, Result<(), DriverError>) {
    let directory = pool.directory(&record.volume_id);
    match backend::of_content(record.content).users(files_in(&directory, record)) {
        Ok(users) => {
            if let Some(user) = users.first() {
                let message = format!("volume {} is in use at {}", record.volume_id, user.display());
                return (Deleted::Kept, Err(DriverError::precondition(message)));
            }
        }
        Err(error) => {
            return (
                Deleted::Kept,
                Err(error.into_driver_error("find out who uses the volume")),
            );
        }
    }
    match pool.take_away(&record.volume_id) {
        Ok(()) => (Deleted::Leaving, Ok(())),
        Err(error) if directory.exists() => (Deleted::Kept, Err(error.into())),
        Err(error) => (Deleted::Left, Err(error.into())),
    }
}
