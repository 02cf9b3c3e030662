//! Which volumes this driver holds still, so that the next start lets go of what a killed one held.
//!
//! A marker need not be durable: a frozen filesystem does not outlive the machine's running, and neither needs its
//! marker to. It is also what keeps two cuts of one volume apart.

use std::{
    fs::{self, File},
    io,
    path::PathBuf,
    time::{Duration, SystemTime},
};

use moorline_driver_sdk::{DriverError, ErrorKind};
use moorline_mount::freeze;

use super::{FROZEN, Pool, PoolError};
use crate::{
    backend::{self, Files},
    ids::is_id,
};

/// The word that a volume is held still. Dropping it takes the word back: thaw first.
#[derive(Debug)]
pub(crate) struct Marker(PathBuf);

impl Drop for Marker {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_file(&self.0) {
            tracing::warn!(path = %self.0.display(), %error, "The word that a volume is frozen stays behind");
        }
    }
}

impl Pool {
    /// Says that a volume is about to be held still.
    ///
    /// # Errors
    /// `Aborted` while another operation holds it.
    pub(crate) fn mark_frozen(&self, volume_id: &str) -> Result<Marker, DriverError> {
        let path = self.root.join(FROZEN).join(volume_id);
        match File::create_new(&path) {
            Ok(_) => Ok(Marker(path)),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Err(DriverError::new(
                ErrorKind::Aborted,
                format!("another operation holds volume {volume_id} still"),
            )),
            Err(error) => Err(PoolError::io("make the file", &path)(error).into()),
        }
    }

    /// Lets go of what a killed driver has held.
    pub(crate) fn thaw_leftovers(&self) -> Result<(), PoolError> {
        let directory = self.root.join(FROZEN);
        for entry in fs::read_dir(&directory).map_err(PoolError::io("list", &directory))? {
            let entry = entry.map_err(PoolError::io("list", &directory))?;
            let volume_id = entry.file_name().to_string_lossy().into_owned();
            if is_id(&volume_id) {
                self.thaw_leftover(&volume_id);
            }
            fs::remove_file(entry.path()).map_err(PoolError::io("remove", entry.path()))?;
        }
        Ok(())
    }

    /// The volumes that are said to be held still for longer than `age`. A cut takes less.
    pub(crate) fn long_frozen(&self, age: Duration) -> Vec<(String, SystemTime)> {
        let entries = fs::read_dir(self.root.join(FROZEN));
        let said = entries.into_iter().flatten().flatten().filter_map(|entry| {
            let since = entry.metadata().and_then(|seen| seen.modified()).ok()?;
            let is_long = since.elapsed().is_ok_and(|elapsed| elapsed > age);
            let volume_id = entry.file_name().into_string().ok()?;
            (is_long && is_id(&volume_id)).then_some((volume_id, since))
        });
        said.collect()
    }

    /// As [`Pool::thaw_leftovers`], for a node whose controller does not come back. The words stay for the controller: what
    /// they are about may be on another machine. False while there is a controller.
    pub(crate) fn thaw_abandoned(&self, volume_id: &str) -> bool {
        // Held meanwhile: a controller that starts now finds the pool locked, and starts again.
        let Ok(_lock) = super::lock(&self.root) else {
            return false;
        };
        self.thaw_leftover(volume_id);
        true
    }

    fn thaw_leftover(&self, volume_id: &str) {
        let Ok(record) = self.load(volume_id) else {
            return; // The volume is not there: then nothing of it is mounted either.
        };
        let files = Files {
            directory: &self.directory(volume_id),
            content: record.content,
        };
        let points = match backend::of_content(record.content).freeze_points(files) {
            Ok(points) => points,
            Err(error) => {
                tracing::error!(volume.id = volume_id, %error, "Can't find out whether the volume was left frozen");
                return;
            }
        };
        for point in points {
            match freeze::thaw_leftover(&point) {
                Ok(true) => {
                    tracing::warn!(volume.id = volume_id, path = %point.display(), "Thawed a volume that a killed driver had left frozen");
                }
                Ok(false) => {}
                Err(error) => {
                    tracing::error!(volume.id = volume_id, path = %point.display(), %error, "Can't thaw the volume");
                }
            }
        }
    }
}
