//! The `dir` backend: a directory per volume, bind-mounted at the target. Capacity is enforced by project quotas where the
//! pool's filesystem has them, elsewhere only accounted.

mod quota;
mod tree;

use std::{
    fs,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use moorline_driver_sdk::volume::VolumeStats;
use moorline_mount::{
    beneath::Target,
    copy, group,
    mount::{self, BindOptions},
    mountinfo::{self, MountEntry},
    usage,
};

use super::{Backend, BackendError, Enforcement, Files, NewData, SizeRule};
use crate::{
    copying::Copying,
    failpoint,
    fit::MountPlan,
    pool::PoolError,
    record::{Content, Provisioning},
};

pub(super) const DATA: &str = "data";
/// Everybody who gets to see the volume may write to it; who gets to see it is decided by mounting it.
pub(super) const DATA_MODE: u32 = 0o777;
/// What is made at a target path that is not there.
pub(super) const TARGET_DIRECTORY_MODE: u32 = 0o750;

pub(crate) struct Directories;

impl Directories {
    pub(super) fn data(files: Files<'_>) -> PathBuf {
        files.directory.join(DATA)
    }

    /// Is the directory that is seen at `path` the volume's?
    pub(super) fn is_at(files: Files<'_>, path: &Target) -> Result<bool, BackendError> {
        let data = Self::data(files);
        let wanted = fs::metadata(&data).map_err(BackendError::io("look at", &data))?;
        let device = (rustix::fs::major(wanted.dev()), rustix::fs::minor(wanted.dev()));
        Ok(path
            .look()?
            .is_some_and(|seen| seen.is_mount_point && seen.device == device && seen.inode == wanted.ino()))
    }

    /// All mounts of the data directory, or of something in it; the second says whether it is the whole.
    fn mounts(files: Files<'_>) -> Result<Vec<(MountEntry, bool)>, BackendError> {
        let entries = mountinfo::current()?;
        let data = Self::data(files);
        let Some((device, root)) = place_of(&data, &entries)? else {
            return Ok(Vec::new());
        };
        Ok(entries
            .iter()
            .filter(|entry| entry.device == device && entry.root.starts_with(&root))
            .map(|entry| (entry.clone(), entry.root == root))
            .collect())
    }
}

/// A filesystem, in the numbers of the mount table, and a path in it.
type Place = ((u32, u32), PathBuf);

/// Which filesystem holds `path`, in the numbers of the mount table, and where in that filesystem, as the roots of mounts
/// are told; `None` when there is no such path. The numbers of `stat` would not do: a subvolume of btrfs has its own.
/// Names would not do either: another pool on the same filesystem may have a volume of the same name.
fn place_of(path: &Path, entries: &[MountEntry]) -> Result<Option<Place>, BackendError> {
    use rustix::{
        fs::{AtFlags, CWD, StatxFlags, statx},
        io::Errno,
    };
    let seen = match statx(CWD, path, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::MNT_ID) {
        Ok(seen) => seen,
        Err(Errno::NOENT) => return Ok(None),
        Err(errno) => return Err(BackendError::io("look at", path)(errno.into())),
    };
    let Some(home) = entries
        .iter()
        .find(|entry| u64::from(entry.mount_id) == seen.stx_mnt_id)
    else {
        return Ok(None); // The pool's mount has just been taken away.
    };
    let real = fs::canonicalize(path).map_err(BackendError::io("resolve", path))?;
    let below = real.strip_prefix(&home.mount_point).map_err(|_| {
        let message = format!("it is not below {}", home.mount_point.display());
        BackendError::io("find in the mount table", &real)(std::io::Error::other(message))
    })?;
    Ok(Some((home.device, home.root.join(below))))
}

impl Backend for Directories {
    fn sizes(&self, _content: Content) -> SizeRule {
        SizeRule {
            min_bytes: 1,
            step_bytes: 1,
        }
    }

    fn enforcement(&self, pool: &Path, _content: Content) -> Result<Enforcement, BackendError> {
        quota::enforcement(pool)
    }

    fn make(&self, files: Files<'_>, new: NewData) -> Result<(), BackendError> {
        refuse_thick(new)?;
        let data = Self::data(files);
        match fs::create_dir(&data) {
            // The pool has given a spare directory.
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
            made => made.map_err(BackendError::io("make the directory", &data))?,
        }
        // mkdir alone would subtract the umask.
        let mode = fs::Permissions::from_mode(DATA_MODE);
        fs::set_permissions(&data, mode).map_err(BackendError::io("set the mode of", &data))?;
        quota::limit(&data, new.bytes)
    }

    fn make_from(
        &self,
        files: Files<'_>,
        source: Files<'_>,
        new: NewData,
        copying: &mut Copying,
    ) -> Result<(), BackendError> {
        refuse_thick(new)?;
        let data = Self::data(files);
        // The limit first: what is made in it then counts.
        fs::create_dir(&data).map_err(BackendError::io("make the directory", &data))?;
        quota::limit(&data, new.bytes)?;
        self.cut(files, source, copying)
    }

    fn cut(&self, snapshot: Files<'_>, source: Files<'_>, copying: &mut Copying) -> Result<(), BackendError> {
        let data = Self::data(snapshot);
        copy::tree(&Self::data(source), &data, &mut |progress| {
            copying.note(progress.bytes, progress.bytes_total)
        })?;
        tree::sync(&data)
    }

    /// A tree is copied file by file: never at one moment.
    fn can_share(&self, _content: Content, _pool_reflinks: bool) -> bool {
        false
    }

    fn image(&self, _files: Files<'_>) -> Option<PathBuf> {
        None
    }

    fn allocated_bytes(&self, files: Files<'_>) -> Result<u64, BackendError> {
        tree::allocated_bytes(&Self::data(files))
    }

    fn fault(&self, files: Files<'_>, bytes: u64) -> Result<Option<String>, BackendError> {
        let data = Self::data(files);
        match fs::symlink_metadata(&data) {
            Ok(seen) if seen.is_dir() => quota::fault(&data, bytes),
            Ok(_) => Ok(Some(format!("{} is no directory", data.display()))),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                Ok(Some(format!("the directory {} is missing", data.display())))
            }
            Err(error) => Err(BackendError::io("look at", data)(error)),
        }
    }

    /// The pool's filesystem is everybody's: it is not frozen for one volume.
    fn freeze_points(&self, _files: Files<'_>) -> Result<Vec<PathBuf>, BackendError> {
        Ok(Vec::new())
    }

    fn flush(&self, _files: Files<'_>) -> Result<(), BackendError> {
        Ok(())
    }

    fn grow(&self, files: Files<'_>, new: NewData) -> Result<(), BackendError> {
        quota::limit(&Self::data(files), new.bytes)
    }

    fn needs_node_expansion(&self) -> bool {
        false
    }

    fn users(&self, files: Files<'_>) -> Result<Vec<PathBuf>, BackendError> {
        Ok(Self::mounts(files)?
            .into_iter()
            .map(|(entry, _)| entry.mount_point)
            .collect())
    }

    /// The data is on the node already: there is nothing to prepare, only to check.
    fn stage(&self, files: Files<'_>, staging: &Target, _plan: &MountPlan) -> Result<(), BackendError> {
        let data = Self::data(files);
        fs::metadata(&data).map_err(BackendError::io("look at", &data))?;
        staging.ensure_directory(TARGET_DIRECTORY_MODE)?;
        Ok(failpoint::hit("stage::after_directory")?)
    }

    fn unstage(&self, _files: Files<'_>) -> Result<(), BackendError> {
        Ok(())
    }

    fn publish(
        &self,
        files: Files<'_>,
        _staging: &Target,
        target: &Target,
        plan: &MountPlan,
    ) -> Result<(), BackendError> {
        if Self::is_at(files, target)? {
            return same_writability(target, plan);
        }
        let data = Self::data(files);
        give_to_group(&data, plan)?;
        target.ensure_directory(TARGET_DIRECTORY_MODE)?;
        failpoint::hit("publish::after_entry")?;
        refuse_other_mount(target)?;
        let options = BindOptions {
            attributes: plan.attributes(),
            recursive: false,
        };
        target.attach(mount::clone_tree(data, options)?)?;
        Ok(failpoint::hit("publish::after_mount")?)
    }

    fn unpublish(&self, _files: Files<'_>) -> Result<(), BackendError> {
        Ok(())
    }

    fn published_at(&self, files: Files<'_>, staging: Option<&Path>) -> Result<Vec<PathBuf>, BackendError> {
        // A mount of something inside the volume (a subPath) is not a publishing of its own.
        let whole = Self::mounts(files)?.into_iter().filter(|(_, is_whole)| *is_whole);
        let paths = whole.map(|(entry, _)| entry.mount_point);
        Ok(paths.filter(|path| Some(path.as_path()) != staging).collect())
    }

    fn grow_on_node(&self, files: Files<'_>, path: &Target) -> Result<(), BackendError> {
        // Staging leaves a plain directory behind, so that only its presence can be checked.
        if path.look()?.is_none() {
            return Err(BackendError::NotThere(path.path().to_owned()));
        }
        let data = Self::data(files);
        fs::metadata(&data)
            .map(drop)
            .map_err(BackendError::io("look at", data))
    }

    fn stats(&self, files: Files<'_>, path: &Target) -> Result<VolumeStats, BackendError> {
        if !Self::is_at(files, path)? {
            return Err(BackendError::NotThere(path.path().to_owned()));
        }
        filesystem_stats(path)
    }
}

/// Makes what a directory lacks that was not used yet; says whether it was not there at all.
pub(crate) fn complete(files: Files<'_>, new: NewData) -> Result<bool, BackendError> {
    let data = Directories::data(files);
    if fs::symlink_metadata(&data).is_err() {
        Directories.make(files, new)?;
        return Ok(true);
    }
    let mode = fs::Permissions::from_mode(DATA_MODE);
    fs::set_permissions(&data, mode).map_err(BackendError::io("set the mode of", &data))?;
    quota::limit(&data, new.bytes)?;
    Ok(false)
}

/// Takes the limit of the directory in a thing's own directory away, if it has one.
pub(super) fn remove_data(directory: &Path) -> Result<(), PoolError> {
    Ok(quota::release(&directory.join(DATA))?)
}

/// A directory has no blocks of its own to set aside.
pub(super) fn refuse_thick(new: NewData) -> Result<(), BackendError> {
    match new.provisioning {
        Provisioning::Thin => Ok(()),
        Provisioning::Thick => Err(BackendError::NotOffered {
            what: "a directory can't be thick; use a pool with backend=loop, or provisioning=thin".to_owned(),
        }),
    }
}

/// The group that the caller asked for gets the volume's root. Who only reads changes nothing.
pub(super) fn give_to_group(root: &Path, plan: &MountPlan) -> Result<(), BackendError> {
    let Some(gid) = plan.group.filter(|_| !plan.is_read_only()) else {
        return Ok(());
    };
    group::give_to_group(root, gid)?;
    Ok(failpoint::hit("publish::after_group")?)
}

/// What is published already must be as writable as asked for.
pub(super) fn same_writability(target: &Target, plan: &MountPlan) -> Result<(), BackendError> {
    let is_read_only = usage::filesystem(target.pinned_path())?.is_read_only;
    if is_read_only == plan.is_read_only() {
        return Ok(());
    }
    let what = if is_read_only {
        "has the volume read-only already"
    } else {
        "has the volume writable already"
    };
    Err(BackendError::Conflict {
        path: target.path().to_owned(),
        what,
    })
}

pub(super) fn refuse_other_mount(target: &Target) -> Result<(), BackendError> {
    match target.look()? {
        Some(seen) if seen.is_mount_point => Err(BackendError::Conflict {
            path: target.path().to_owned(),
            what: "has something else mounted",
        }),
        _ => Ok(()),
    }
}

pub(super) fn filesystem_stats(path: &Target) -> Result<VolumeStats, BackendError> {
    use moorline_driver_sdk::volume::VolumeUsage;
    let usage = usage::filesystem(path.pinned_path())?;
    let amount = |amount: usage::Amount| VolumeUsage {
        total: amount.total,
        available: amount.available,
        used: amount.used,
    };
    Ok(VolumeStats {
        bytes: Some(amount(usage.bytes)),
        // A filesystem that makes them as it goes has no number to tell.
        inodes: (usage.inodes.total > 0).then(|| amount(usage.inodes)),
        condition: None,
    })
}
