//! Layers good and hostile. Those with whiteouts or foreign owners need root.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};

use super::*;

struct Tar(tar::Builder<Vec<u8>>);

impl Tar {
    fn new() -> Self {
        Self(tar::Builder::new(Vec::new()))
    }

    fn header(kind: tar::EntryType, mode: u32, size: u64) -> tar::Header {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_size(size);
        header.set_uid(rustix::process::geteuid().as_raw().into());
        header.set_gid(rustix::process::getegid().as_raw().into());
        header.set_mtime(1_000_000_000);
        header
    }

    /// Writes the name as it is: `tar` itself refuses hostile ones.
    fn named(mut header: tar::Header, name: &str) -> tar::Header {
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.set_cksum();
        header
    }

    fn file(mut self, name: &str, content: &str, mode: u32) -> Self {
        let header = Self::named(
            Self::header(tar::EntryType::Regular, mode, content.len() as u64),
            name,
        );
        self.0.append(&header, content.as_bytes()).unwrap();
        self
    }

    fn dir(mut self, name: &str, mode: u32) -> Self {
        self.0
            .append(
                &Self::named(Self::header(tar::EntryType::Directory, mode, 0), name),
                io::empty(),
            )
            .unwrap();
        self
    }

    fn link(mut self, kind: tar::EntryType, name: &str, target: &str) -> Self {
        let mut header = Self::header(kind, 0o777, 0);
        header.as_old_mut().linkname[..target.len()].copy_from_slice(target.as_bytes());
        self.0.append(&Self::named(header, name), io::empty()).unwrap();
        self
    }

    fn bytes(self) -> Vec<u8> {
        self.0.into_inner().unwrap()
    }
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

#[test]
fn files_keep_mode_and_time() {
    let bytes = Tar::new()
        .dir("./usr/bin", 0o711)
        .file("./usr/bin/su", "#!", 0o4755)
        .link(tar::EntryType::Symlink, "bin", "/usr/bin")
        .link(tar::EntryType::Link, "usr/hard", "usr/bin/su")
        .file("/lead", "x", 0o600)
        .bytes();
    let into = tempfile::tempdir().unwrap();
    let unpacked = unpack(bytes.as_slice(), into.path()).unwrap();
    assert_eq!(
        unpacked.diff_id,
        format!("sha256:{}", hex::encode(Sha256::digest(&bytes)))
    );
    assert_eq!(unpacked.size_bytes, 3);
    let su = fs::metadata(into.path().join("usr/bin/su")).unwrap();
    assert_eq!(
        (su.permissions().mode() & 0o7777, su.mtime(), su.nlink()),
        (0o4755, 1_000_000_000, 2)
    );
    let dir = fs::metadata(into.path().join("usr/bin")).unwrap();
    assert_eq!(
        (dir.permissions().mode() & 0o7777, dir.mtime()),
        (0o711, 1_000_000_000)
    );
    assert_eq!(
        fs::read_link(into.path().join("bin")).unwrap(),
        Path::new("/usr/bin")
    );
    assert_eq!(fs::read_to_string(into.path().join("lead")).unwrap(), "x");
}

#[test]
fn later_entry_of_a_name_wins() {
    let bytes = Tar::new()
        .file("a", "old", 0o644)
        .file("a", "new", 0o600)
        .link(tar::EntryType::Symlink, "b", "a")
        .file("b", "own", 0o644)
        .bytes();
    let into = tempfile::tempdir().unwrap();
    unpack(bytes.as_slice(), into.path()).unwrap();
    assert_eq!(fs::read_to_string(into.path().join("a")).unwrap(), "new");
    assert_eq!(fs::read_to_string(into.path().join("b")).unwrap(), "own");
}

#[test]
#[expect(clippy::too_many_lines, reason = "one flat table")]
fn hostile_layers_are_refused_and_touch_nothing() {
    let outside = tempfile::tempdir().unwrap();
    let out = outside.path().to_str().unwrap();
    let symlink_to = |target: &str| Tar::new().link(tar::EntryType::Symlink, "esc", target);
    let cases = [
        (
            "name goes up",
            Tar::new().file("../evil", "x", 0o644),
            "leads out",
        ),
        (
            "name goes up in the middle",
            Tar::new().file("a/../../evil", "x", 0o644),
            "leads out",
        ),
        (
            "file through an absolute link",
            symlink_to(out).file("esc/evil", "x", 0o644),
            "symbolic link",
        ),
        (
            "directory through a link",
            symlink_to(out).dir("esc/evil", 0o755),
            "symbolic link",
        ),
        (
            "file through a relative link",
            symlink_to("../../..").file("esc/evil", "x", 0o644),
            "symbolic link",
        ),
        (
            "hard link through a link",
            symlink_to(out).link(tar::EntryType::Link, "stolen", "esc/secret"),
            "symbolic link",
        ),
        (
            "hard link that goes up",
            Tar::new().link(tar::EntryType::Link, "stolen", "../secret"),
            "leads out",
        ),
        (
            "hard link to nothing",
            Tar::new().link(tar::EntryType::Link, "stolen", "none"),
            "No such file",
        ),
        (
            "file over a directory",
            Tar::new().dir("a", 0o755).file("a", "x", 0o644),
            "replaces a directory",
        ),
        (
            "whiteout of nothing",
            Tar::new().file(".wh.", "", 0o644),
            "hides no proper name",
        ),
        (
            "whiteout of the parent",
            Tar::new().file(".wh...", "", 0o644),
            "hides no proper name",
        ),
    ];
    fs::write(outside.path().join("secret"), "s").unwrap();
    for (name, layer, expected) in cases {
        let parent = tempfile::tempdir().unwrap();
        let into = parent.path().join("layer");
        fs::create_dir(&into).unwrap();
        let error = unpack(layer.bytes().as_slice(), &into)
            .expect_err(name)
            .to_string();
        assert!(error.contains(expected), "{name}: {error}");
        assert_eq!(
            fs::read_dir(outside.path()).unwrap().count(),
            1,
            "{name} wrote outside"
        );
        assert_eq!(
            fs::read_dir(parent.path()).unwrap().count(),
            1,
            "{name} wrote beside"
        );
        assert_eq!(
            fs::metadata(outside.path().join("secret")).unwrap().nlink(),
            1,
            "{name} linked outside"
        );
    }
}

#[test]
fn cut_off_layer_is_an_error() {
    let mut bytes = Tar::new().file("a", &"x".repeat(4000), 0o644).bytes();
    bytes.truncate(2048);
    let into = tempfile::tempdir().unwrap();
    assert!(unpack(bytes.as_slice(), into.path()).is_err());
}

#[test]
fn whiteouts_become_what_overlayfs_knows() {
    if !is_root() {
        return crate::testing::skipped("whiteouts_become_what_overlayfs_knows", "needs root");
    }
    let bytes = Tar::new()
        .file("etc/.wh.gone", "", 0o644)
        .dir("var", 0o755)
        .file("var/.wh..wh..opq", "", 0o644)
        .bytes();
    let into = tempfile::tempdir().unwrap();
    unpack(bytes.as_slice(), into.path()).unwrap();
    let gone = fs::symlink_metadata(into.path().join("etc/gone")).unwrap();
    assert!(gone.file_type().is_char_device() && gone.rdev() == 0);
    let mut value = [0; 8];
    let length = rustix::fs::getxattr(into.path().join("var"), OPAQUE_XATTR, &mut value).unwrap();
    assert_eq!(&value[..length], b"y");
    assert_eq!(fs::read_dir(into.path().join("var")).unwrap().count(), 0);
}

#[test]
fn links_in_the_way_of_the_root_are_not_followed() {
    let real = tempfile::tempdir().unwrap();
    let parent = tempfile::tempdir().unwrap();
    symlink(real.path(), parent.path().join("link")).unwrap();
    let bytes = Tar::new().file("a", "x", 0o644).bytes();
    unpack(bytes.as_slice(), &parent.path().join("link")).unwrap();
    assert!(
        real.path().join("a").exists(),
        "the caller's own path may be a link"
    );
}
