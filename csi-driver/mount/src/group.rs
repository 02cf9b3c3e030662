//! Giving a directory to a group, so that its members can write there, in it and in what is made in it later.

use std::path::Path;

use rustix::fs::{Gid, Mode, OFlags};

use crate::MountError;

/// The group's rights, and that what is made inside belongs to the same group.
const GROUP_BITS: u32 = 0o2070;

/// Makes `gid` the group of a directory, lets it read and write there, and hands the group down. Only the directory itself is
/// changed; its last element is not followed if it is a symlink. False: it was so already.
///
/// # Errors
/// When it is no directory, or the filesystem has no owners.
pub fn give_to_group(directory: impl AsRef<Path>, gid: u32) -> Result<bool, MountError> {
    let path = directory.as_ref();
    let failed = |errno| MountError::call("give to a group", path, errno);
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let opened = rustix::fs::open(path, flags, Mode::empty()).map_err(failed)?;
    let seen = rustix::fs::fstat(&opened).map_err(failed)?;
    let has_group = seen.st_gid == gid;
    let has_rights = seen.st_mode & GROUP_BITS == GROUP_BITS;
    if !has_group {
        rustix::fs::fchown(&opened, None, Some(Gid::from_raw(gid))).map_err(failed)?;
    }
    if !has_rights {
        let mode = Mode::from_raw_mode(seen.st_mode & 0o7777 | GROUP_BITS);
        rustix::fs::fchmod(&opened, mode).map_err(failed)?;
    }
    Ok(!(has_group && has_rights))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};

    use super::*;

    #[test]
    fn a_group_gets_the_directory_and_what_is_made_in_it() {
        if !rustix::process::geteuid().is_root() {
            eprintln!("skipped: a_group_gets_the_directory_and_what_is_made_in_it: needs root");
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let mode = std::fs::Permissions::from_mode(0o705);
        std::fs::set_permissions(dir.path(), mode).unwrap();
        assert!(give_to_group(dir.path(), 4321).unwrap());
        assert!(!give_to_group(dir.path(), 4321).unwrap(), "nothing left to do");
        let seen = std::fs::metadata(dir.path()).unwrap();
        assert_eq!((seen.gid(), seen.mode() & 0o7777), (4321, 0o2775));
        std::fs::write(dir.path().join("file"), "x").unwrap();
        assert_eq!(std::fs::metadata(dir.path().join("file")).unwrap().gid(), 4321);
        std::os::unix::fs::symlink(dir.path(), dir.path().join("link")).unwrap();
        give_to_group(dir.path().join("link"), 1).expect_err("a symlink leads nowhere");
    }
}
