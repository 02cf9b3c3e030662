//! Taking the content of volumes that may be in use: how their writes are kept from tearing it, and doing so.

mod decide;

use std::{sync::Arc, time::Duration};

use moorline_driver_sdk::{DriverError, ErrorKind};
use moorline_mount::freeze::Frozen;

pub(crate) use self::decide::{How, Seen, decide};
use crate::{
    backend::{self, Files},
    copying::Copying,
    failpoint,
    pool::{Marker, Pool},
    record::Record,
};

/// How long writes may be held up while blocks are copied that can't be shared. Longer, and workloads fail.
const FROZEN_MAX: Duration = Duration::from_secs(30);

/// A volume whose content is about to be taken, and how.
#[derive(Debug)]
pub(crate) struct Subject {
    pub(crate) pool: Arc<Pool>,
    pub(crate) record: Arc<Record>,
    directory: std::path::PathBuf,
    how: How,
    can_share: bool,
}

/// Volumes that are held still. Dropping it lets them go: first the filesystems, then the word that they are frozen.
#[derive(Debug, Default)]
pub(crate) struct Held {
    frozen: Vec<Frozen>,
    markers: Vec<Marker>,
}

impl Subject {
    /// Looks at a volume and decides. `goes_to`: the pool that the content goes to; `is_one_moment`: several volumes shall
    /// be seen at the same moment. Blocks.
    ///
    /// # Errors
    /// `FailedPrecondition` when its content can't be taken now.
    pub(crate) fn look(
        pool: &Arc<Pool>,
        record: &Arc<Record>,
        goes_to: &Pool,
        is_one_moment: bool,
    ) -> Result<Self, DriverError> {
        let directory = pool.directory(&record.volume_id);
        let files = Files {
            directory: &directory,
            content: record.content,
        };
        let backend = backend::of_content(record.content);
        let failed =
            |error: backend::BackendError| error.into_driver_error("look who uses the source volume");
        let is_in_use = !backend.users(files).map_err(failed)?.is_empty();
        let seen = Seen {
            is_in_use,
            can_freeze: is_in_use && !backend.freeze_points(files).map_err(failed)?.is_empty(),
            can_share: pool.id() == goes_to.id() && backend.can_share(record.content, pool.can_reflink()),
            is_tree: !record.content.is_file(),
            is_one_moment,
        };
        let how = decide(seen).map_err(|why| {
            DriverError::precondition(format!("volume {} is in use, and {why}", record.volume_id))
        })?;
        Ok(Subject {
            pool: Arc::clone(pool),
            record: Arc::clone(record),
            directory,
            how,
            can_share: seen.can_share,
        })
    }

    pub(crate) fn files(&self) -> Files<'_> {
        Files {
            directory: &self.directory,
            content: self.record.content,
        }
    }

    /// Takes the content with `take`, while writes are held as was decided. Blocks.
    ///
    /// # Errors
    /// Those of `take`; `Aborted` when somebody began to use the volume, or another operation holds it: ask again.
    pub(crate) fn take(
        &self,
        copying: &mut Copying,
        take: impl FnOnce(Files<'_>, &mut Copying) -> Result<(), backend::BackendError>,
    ) -> Result<(), DriverError> {
        let held = self.hold(copying)?;
        self.take_held(copying, take)?;
        held.release()
    }

    /// Holds it alone. Blocks.
    pub(crate) fn hold(&self, copying: &mut Copying) -> Result<Held, DriverError> {
        Held::hold(std::slice::from_ref(self), copying)
    }

    /// As [`Subject::take`], while the caller holds it.
    pub(crate) fn take_held(
        &self,
        copying: &mut Copying,
        take: impl FnOnce(Files<'_>, &mut Copying) -> Result<(), backend::BackendError>,
    ) -> Result<(), DriverError> {
        copying.begin_another();
        let taken = take(self.files(), copying);
        taken.map_err(|error| self.explain(error, copying))?;
        // What was copied file by file or block by block while nobody used the volume is whole only if nobody began to.
        if self.how == How::Still && !self.can_share {
            let users = backend::of_content(self.record.content).users(self.files());
            let users = users.map_err(|error| error.into_driver_error("look who uses the source volume"))?;
            if !users.is_empty() {
                return Err(DriverError::new(
                    ErrorKind::Aborted,
                    format!("somebody began to use volume {} meanwhile", self.record.volume_id),
                ));
            }
        }
        Ok(())
    }

    fn explain(&self, error: backend::BackendError, copying: &Copying) -> DriverError {
        if copying.is_overdue() {
            return DriverError::precondition(format!(
                "copying volume {} would hold up its writes for more than {} s; take it while it is not in use, or use a \
                 pool on a filesystem with reflinks, such as xfs",
                self.record.volume_id,
                FROZEN_MAX.as_secs()
            ))
            .caused_by(error);
        }
        if copying.is_stopped() {
            return DriverError::internal("the driver is stopping; ask again", error);
        }
        error.into_driver_error("take the content of the source volume")
    }
}

impl Held {
    /// Holds all of them still, so that all are seen at one moment. Blocks.
    pub(crate) fn hold(subjects: &[Subject], copying: &mut Copying) -> Result<Self, DriverError> {
        let mut held = Held::default();
        let mut is_copy = false;
        for subject in subjects {
            match subject.how {
                How::Still => {}
                How::Live => {
                    tracing::warn!(
                        volume.id = &*subject.record.volume_id,
                        "The volume is in use and copied file by file: files that change meanwhile may be from different moments"
                    );
                }
                How::Shared => subject.flush()?,
                How::Frozen { is_copy: copies } => {
                    is_copy |= copies;
                    held.freeze(subject)?;
                }
            }
        }
        if is_copy {
            copying.not_longer_than(FROZEN_MAX);
        }
        if !held.frozen.is_empty() {
            failpoint::hit("cut::after_freeze")?;
        }
        Ok(held)
    }

    fn freeze(&mut self, subject: &Subject) -> Result<(), DriverError> {
        let volume_id = &subject.record.volume_id;
        self.markers.push(subject.pool.mark_frozen(volume_id)?);
        let backend = backend::of_content(subject.record.content);
        let points = backend
            .freeze_points(subject.files())
            .map_err(|error| error.into_driver_error("look where the volume is mounted"))?;
        for point in points {
            let frozen = Frozen::freeze(&point).map_err(|error| {
                let kind = if error.is_busy() {
                    ErrorKind::Aborted
                } else {
                    ErrorKind::Internal
                };
                DriverError::new(kind, format!("hold volume {volume_id} still")).caused_by(error)
            })?;
            self.frozen.push(frozen);
        }
        Ok(())
    }

    /// Lets all go.
    ///
    /// # Errors
    /// When one was let go by somebody else before: what was taken may be torn.
    pub(crate) fn release(self) -> Result<(), DriverError> {
        let mut torn = None;
        for frozen in self.frozen {
            let path = frozen.path().to_owned();
            match frozen.thaw() {
                Ok(true) => {}
                Ok(false) => {
                    torn = Some(DriverError::new(
                        ErrorKind::Aborted,
                        format!("somebody else thawed {} meanwhile", path.display()),
                    ))
                }
                Err(error) => torn = Some(DriverError::internal(format!("thaw {}", path.display()), error)),
            }
        }
        drop(self.markers);
        torn.map_or(Ok(()), Err)
    }
}

impl Subject {
    fn flush(&self) -> Result<(), DriverError> {
        backend::of_content(self.record.content)
            .flush(self.files())
            .map_err(|error| error.into_driver_error("write out the source volume"))
    }
}
