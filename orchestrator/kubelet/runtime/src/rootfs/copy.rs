//! Layers merged by copying them over each other: what overlayfs does, for machines where it can't.
//!
//! Slow and large, but the same result. Source and target are directories of ours; symlinks in them are copied, never
//! followed.

use std::collections::HashMap;
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, lchown, symlink};
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, CWD, FileType, Mode, Timespec, Timestamps, XattrFlags, lgetxattr, llistxattr, lsetxattr,
    mknodat, utimensat,
};

use crate::image::layer::{OPAQUE, OPAQUE_XATTR, WHITEOUT};

/// Attributes of a file that are copied fit this; file capabilities have 24 bytes.
const XATTR_LIMIT_BYTES: usize = 64 << 10;

/// Files of one layer with more than one name: device and inode to the first copy.
type Linked = HashMap<(u64, u64), PathBuf>;

/// Puts `layers`, lowest first, over each other into the existing directory `target`.
pub(crate) fn merge(layers: &[PathBuf], target: &Path) -> io::Result<()> {
    layers
        .iter()
        .try_for_each(|layer| merge_dir(layer, target, &mut Linked::new()))
}

fn merge_dir(layer: &Path, target: &Path, linked: &mut Linked) -> io::Result<()> {
    let named =
        |path: &Path, error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
    if is_opaque(layer) {
        for entry in fs::read_dir(target)? {
            remove(&entry?.path())?;
        }
    }
    for entry in fs::read_dir(layer)? {
        let entry = entry?;
        let (source, name) = (entry.path(), entry.file_name());
        let bytes = name.as_encoded_bytes();
        if bytes == OPAQUE {
            continue;
        }
        let metadata = entry.metadata()?;
        let plain_whiteout = bytes.starts_with(WHITEOUT);
        if plain_whiteout || (metadata.file_type().is_char_device() && metadata.rdev() == 0) {
            let hidden = name.to_string_lossy();
            let hidden = if plain_whiteout {
                hidden.trim_start_matches(".wh.").into()
            } else {
                hidden
            };
            remove(&target.join(hidden.as_ref()))?;
            continue;
        }
        let place = target.join(&name);
        put(&source, &metadata, &place, linked).map_err(|error| named(&place, error))?;
    }
    Ok(())
}

fn is_opaque(layer: &Path) -> bool {
    let mut value = [0; 1];
    let marked = matches!(lgetxattr(layer, OPAQUE_XATTR, &mut value), Ok(1)) && value == *b"y";
    marked
        || layer
            .join(String::from_utf8_lossy(OPAQUE).as_ref())
            .symlink_metadata()
            .is_ok()
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

fn put(source: &Path, metadata: &Metadata, place: &Path, linked: &mut Linked) -> io::Result<()> {
    let kind = metadata.file_type();
    let there = fs::symlink_metadata(place).ok();
    if kind.is_dir() {
        if !there.is_some_and(|there| there.is_dir()) {
            remove(place)?;
            fs::create_dir(place)?;
        }
        merge_dir(source, place, linked)?;
        return set_attributes(source, metadata, place);
    }
    remove(place)?;
    let inode = (metadata.dev(), metadata.ino());
    if let Some(first) = linked.get(&inode) {
        return fs::hard_link(first, place);
    }
    let make_node = |kind: FileType| -> io::Result<()> {
        let mode = Mode::from_raw_mode(metadata.mode() & 0o7777);
        Ok(mknodat(CWD, place, kind, mode, metadata.rdev())?)
    };
    if kind.is_file() {
        fs::copy(source, place)?;
    } else if kind.is_symlink() {
        symlink(fs::read_link(source)?, place)?;
    } else if kind.is_char_device() {
        make_node(FileType::CharacterDevice)?;
    } else if kind.is_block_device() {
        make_node(FileType::BlockDevice)?;
    } else if kind.is_fifo() {
        make_node(FileType::Fifo)?;
    } else {
        return Ok(()); // a socket is of no use without its process
    }
    if metadata.nlink() > 1 {
        linked.insert(inode, place.to_owned());
    }
    set_attributes(source, metadata, place)
}

/// Owner first: changing it takes set-user-id bits and file capabilities away.
fn set_attributes(source: &Path, metadata: &Metadata, place: &Path) -> io::Result<()> {
    lchown(place, Some(metadata.uid()), Some(metadata.gid()))?;
    if !metadata.is_symlink() {
        fs::set_permissions(place, fs::Permissions::from_mode(metadata.mode() & 0o7777))?;
        copy_xattrs(source, place)?;
    }
    let modified = Timespec {
        tv_sec: metadata.mtime(),
        tv_nsec: metadata.mtime_nsec(),
    };
    let times = Timestamps {
        last_access: modified,
        last_modification: modified,
    };
    Ok(utimensat(CWD, place, &times, AtFlags::SYMLINK_NOFOLLOW)?)
}

fn copy_xattrs(source: &Path, place: &Path) -> io::Result<()> {
    let mut names = vec![0; XATTR_LIMIT_BYTES];
    let length = match llistxattr(source, &mut names) {
        Ok(length) => length,
        Err(rustix::io::Errno::NOTSUP) => return Ok(()),
        Err(errno) => return Err(errno.into()),
    };
    let mut value = vec![0; XATTR_LIMIT_BYTES];
    for name in names[..length]
        .split(|byte| *byte == 0)
        .filter(|name| !name.is_empty())
    {
        let name = String::from_utf8_lossy(name);
        if name.starts_with("trusted.overlay.") {
            continue;
        }
        let length = lgetxattr(source, name.as_ref(), &mut value)?;
        lsetxattr(place, name.as_ref(), &value[..length], XattrFlags::empty())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(dir: &Path, name: &str, content: &str) {
        let path = dir.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    #[test]
    fn upper_layers_replace_and_hide() {
        let dir = tempfile::tempdir().unwrap();
        let (low, high, target) = (
            dir.path().join("low"),
            dir.path().join("high"),
            dir.path().join("target"),
        );
        for (name, content) in [
            ("kept", "low"),
            ("both", "low"),
            ("gone", "low"),
            ("opaque/old", "low"),
            ("d/x", "low"),
        ] {
            file(&low, name, content);
        }
        symlink("/etc", low.join("was-link")).unwrap();
        file(&low, "was-dir/inner", "low");
        for (name, content) in [
            ("both", "high"),
            (".wh.gone", ""),
            ("opaque/.wh..wh..opq", ""),
            ("opaque/new", "high"),
            ("d/y", "high"),
            ("was-link/inner", "high"),
            ("was-dir", "file now"),
        ] {
            file(&high, name, content);
        }
        fs::hard_link(high.join("both"), high.join("twin")).unwrap();
        fs::set_permissions(high.join("both"), fs::Permissions::from_mode(0o4711)).unwrap();
        fs::create_dir(&target).unwrap();
        merge(&[low, high], &target).unwrap();
        let read = |name: &str| fs::read_to_string(target.join(name)).ok();
        let expected = [
            ("kept", Some("low")),
            ("both", Some("high")),
            ("gone", None),
            (".wh.gone", None),
            ("opaque/old", None),
            ("opaque/new", Some("high")),
            ("opaque/.wh..wh..opq", None),
            ("d/x", Some("low")),
            ("d/y", Some("high")),
            ("was-link/inner", Some("high")),
            ("was-dir", Some("file now")),
            ("twin", Some("high")),
        ];
        for (name, content) in expected {
            assert_eq!(read(name).as_deref(), content, "{name}");
        }
        assert!(
            !Path::new("/etc/inner").exists(),
            "links of lower layers are not followed"
        );
        let (both, twin) = (
            fs::metadata(target.join("both")).unwrap(),
            fs::metadata(target.join("twin")).unwrap(),
        );
        assert_eq!((both.ino(), both.mode() & 0o7777), (twin.ino(), 0o4711));
    }

    #[test]
    fn whiteouts_of_overlayfs_hide_too() {
        if !rustix::process::geteuid().is_root() {
            return crate::testing::skipped("whiteouts_of_overlayfs_hide_too", "needs root");
        }
        let dir = tempfile::tempdir().unwrap();
        let (low, high, target) = (
            dir.path().join("low"),
            dir.path().join("high"),
            dir.path().join("target"),
        );
        file(&low, "gone", "low");
        file(&low, "opaque/old", "low");
        fs::create_dir_all(high.join("opaque")).unwrap();
        fs::create_dir(&target).unwrap();
        mknodat(
            CWD,
            high.join("gone"),
            FileType::CharacterDevice,
            Mode::empty(),
            0,
        )
        .unwrap();
        lsetxattr(high.join("opaque"), OPAQUE_XATTR, b"y", XattrFlags::empty()).unwrap();
        merge(&[low, high], &target).unwrap();
        assert!(!target.join("gone").exists() && !target.join("opaque/old").exists());
        assert!(target.join("opaque").is_dir());
    }
}
