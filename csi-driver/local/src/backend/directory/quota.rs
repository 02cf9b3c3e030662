//! A directory's limit by a project quota, where the pool's filesystem has them.

use std::{fs::File, os::unix::fs::MetadataExt as _, path::Path};

use moorline_mount::{
    MountError,
    project_quota::{self, Support},
};

use crate::backend::{BackendError, Enforcement};

/// Ids from here on are ours, so that those that an administrator has given by hand are left alone.
const PROJECT_MIN: u32 = 1 << 31;
/// How many neighbours of an id are tried when it is taken.
const TRIES_MAX: u32 = 64;
/// Limits are kept in KiB.
const STEP_BYTES: u64 = 1024;

pub(super) fn enforcement(pool: &Path) -> Result<Enforcement, BackendError> {
    let why = match project_quota::support(pool)? {
        Support::Supported => return Ok(Enforcement::Enforced),
        Support::NotMounted { hint } => {
            format!("the pool's filesystem has no project quotas: {hint}; or use backend=loop or backend=btrfs")
        }
        Support::NotPermitted => "project quotas need CAP_SYS_ADMIN, which the driver has not".to_owned(),
        Support::NotSupported => {
            "the pool's filesystem has no project quotas; use one with ext4 or xfs and prjquota, or backend=loop or \
             backend=btrfs"
                .to_owned()
        }
    };
    Ok(Enforcement::Accounted { why })
}

/// Limits a directory, if the filesystem can; an empty one gets a project first. Repeating it is fine.
pub(super) fn limit(data: &Path, bytes: u64) -> Result<(), BackendError> {
    if project_quota::support(data)? != Support::Supported {
        return Ok(());
    }
    let opened = File::open(data).map_err(BackendError::io("open", data))?;
    let project = match project_quota::project_of(&opened)? {
        0 => take_project(data, &opened)?,
        project => project,
    };
    let bytes = bytes.checked_next_multiple_of(STEP_BYTES).unwrap_or(bytes);
    Ok(project_quota::set_limit(&opened, project, Some(bytes))?)
}

/// Gives the directory a project that nobody else has.
fn take_project(data: &Path, opened: &File) -> Result<u32, BackendError> {
    let inode = opened
        .metadata()
        .map_err(BackendError::io("look at", data))?
        .ino();
    // The inode is the directory's alone; only on large xfs are two alike in their lower bits.
    let wanted = u32::try_from(inode % u64::from(PROJECT_MIN)).unwrap_or(0);
    for offset in 0..TRIES_MAX {
        let project = PROJECT_MIN | (wanted.wrapping_add(offset) % PROJECT_MIN);
        project_quota::assign(opened, project)?;
        if project_quota::usage(opened, project)?.inodes <= 1 {
            return Ok(project);
        }
    }
    project_quota::assign(opened, 0)?;
    Err(BackendError::Conflict {
        path: data.to_owned(),
        what: "finds no project id that is free",
    })
}

/// What is wrong with the limit of a directory that should have `bytes`.
pub(super) fn fault(data: &Path, bytes: u64) -> Result<Option<String>, BackendError> {
    let opened = File::open(data).map_err(BackendError::io("open", data))?;
    // One that was made before the filesystem had quotas has none.
    let project = own_project(&opened)?;
    let Some(project) = project.filter(|_| matches!(project_quota::support(data), Ok(Support::Supported)))
    else {
        return Ok(None);
    };
    Ok(match project_quota::usage(&opened, project)?.limit {
        Some(limit) if limit >= bytes => None,
        Some(limit) => Some(format!(
            "{} is limited to {limit} bytes, not {bytes}",
            data.display()
        )),
        None => Some(format!("{} has lost its limit of {bytes} bytes", data.display())),
    })
}

/// Takes the limit of a directory away that is about to be removed.
pub(super) fn release(data: &Path) -> Result<(), MountError> {
    let Ok(opened) = File::open(data) else {
        return Ok(()); // Nothing there, or no directory.
    };
    let Some(project) = own_project(&opened)? else {
        return Ok(());
    };
    match project_quota::support(data)? {
        Support::Supported => project_quota::set_limit(&opened, project, None),
        Support::NotMounted { .. } | Support::NotSupported | Support::NotPermitted => Ok(()),
    }
}

/// The project that this driver has given to a directory.
fn own_project(opened: &File) -> Result<Option<u32>, MountError> {
    match project_quota::project_of(opened) {
        Ok(project) => Ok((project >= PROJECT_MIN).then_some(project)),
        Err(error) if error.is_unsupported() => Ok(None),
        Err(error) => Err(error),
    }
}
