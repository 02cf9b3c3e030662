//! A frozen filesystem lets nobody write, and is not left so.

use std::{fs, process::Command, sync::mpsc, time::Duration};

use moorline_mount::{
    MountError,
    filesystem::FsType,
    freeze::{self, Frozen},
    mount,
};

use super::support::{Scratch, cannot_run};

/// Long enough for a write that nobody holds up.
const HELD_UP: Duration = Duration::from_millis(300);
const DEADLINE: Duration = Duration::from_secs(20);

fn a_writer_waits_until_the_thaw(fs_type: FsType) {
    let scratch = Scratch::new();
    let dir = scratch.filesystem("fs", fs_type, &[]);
    fs::write(dir.join("before"), "x").unwrap();
    let frozen = Frozen::freeze(&dir).unwrap();
    let (written, wait) = mpsc::channel();
    let path = dir.join("file");
    let writer = std::thread::spawn(move || {
        fs::write(path, "data").unwrap();
        written.send(()).unwrap();
    });
    let early = wait.recv_timeout(HELD_UP);
    let second = Frozen::freeze(&dir).map(drop);
    drop(frozen);
    assert_eq!(
        early,
        Err(mpsc::RecvTimeoutError::Timeout),
        "written while frozen"
    );
    assert!(second.unwrap_err().is_busy());
    wait.recv_timeout(DEADLINE).expect("written after the thaw");
    writer.join().unwrap();
    assert_eq!(fs::read_to_string(dir.join("file")).unwrap(), "data");
}

#[test]
fn writers_wait_until_the_thaw() {
    if cannot_run("writers_wait_until_the_thaw", &["mkfs.ext4", "mkfs.xfs"]) {
        return;
    }
    a_writer_waits_until_the_thaw(FsType::Ext4);
    a_writer_waits_until_the_thaw(FsType::Xfs);
}

#[test]
fn what_was_left_frozen_is_thawed() {
    if cannot_run("what_was_left_frozen_is_thawed", &["mkfs.ext4", "fsfreeze"]) {
        return;
    }
    let scratch = Scratch::new();
    let dir = scratch.filesystem("fs", FsType::Ext4, &[]);
    assert!(!freeze::thaw_leftover(&dir).unwrap(), "nothing was frozen");
    // As after a kill: frozen, and nobody holds the guard. A forgotten guard would keep the mount busy.
    let frozen = Command::new("fsfreeze").arg("--freeze").arg(&dir).status();
    assert!(frozen.unwrap().success());
    assert!(freeze::thaw_leftover(&dir).unwrap());
    fs::write(dir.join("file"), "data").unwrap();

    let frozen = Frozen::freeze(&dir).unwrap();
    assert!(freeze::thaw_leftover(&dir).unwrap());
    assert!(
        !frozen.thaw().unwrap(),
        "somebody else was faster, and that is said"
    );
    assert!(Frozen::freeze(&dir).unwrap().thaw().unwrap());
}

#[test]
fn only_a_mount_point_is_frozen() {
    if cannot_run("only_a_mount_point_is_frozen", &[]) {
        return;
    }
    let scratch = Scratch::new();
    let dir = scratch.directory("fs");
    // The directory is there, its filesystem is not mounted: freezing would stop the machine's own.
    assert!(matches!(Frozen::freeze(&dir), Err(MountError::BadPath { .. })));
    assert!(
        Frozen::freeze(scratch.path("nowhere"))
            .unwrap_err()
            .is_not_found()
    );
    mount::mount("tmpfs", &dir, "tmpfs", &[]).unwrap();
    assert!(Frozen::freeze(&dir).unwrap_err().is_unsupported());
}
