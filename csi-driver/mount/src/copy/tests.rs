//! What needs no filesystem of its own.

use std::{fs, io::Write as _, os::unix::fs::FileExt as _};

use super::*;

fn file_with(writes: &[(u64, usize)]) -> File {
    let file = tempfile::tempfile().unwrap();
    for (offset, length) in writes {
        file.write_all_at(&vec![7; *length], *offset).unwrap();
    }
    file
}

fn go_on(_: CopyProgress) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

#[test]
fn a_copy_tells_how_far_it_is_and_can_be_stopped() {
    let (from, to) = (file_with(&[(0, 20 << 20)]), tempfile::tempfile().unwrap());
    let mut seen = Vec::new();
    sparse(&from, &to, &mut |progress| {
        seen.push(progress.bytes);
        assert_eq!(progress.bytes_total, Some(20 << 20));
        ControlFlow::Continue(())
    })
    .unwrap();
    assert_eq!(seen, [8 << 20, 16 << 20, 20 << 20, 20 << 20]);

    let mut calls = 0;
    let error = sparse(&from, &to, &mut |_| {
        calls += 1;
        ControlFlow::Break(())
    })
    .unwrap_err();
    assert!(error.is_cancelled(), "{error}");
    assert_eq!(calls, 1);
}

#[test]
fn an_older_longer_file_is_replaced_whole() {
    let (from, to) = (file_with(&[(1 << 20, 5)]), file_with(&[(0, 3 << 20)]));
    let copied = sparse(&from, &to, &mut go_on).unwrap();
    assert_eq!(copied.size_bytes, (1 << 20) + 5);
    let mut bytes = vec![1; 2 << 20];
    let length = to.read_at(&mut bytes, 0).unwrap();
    assert_eq!(length, (1 << 20) + 5);
    assert!(bytes[..1 << 20].iter().all(|byte| *byte == 0));
    assert_eq!(bytes[1 << 20..length], [7; 5]);
}

#[test]
fn the_buffer_does_what_the_kernel_does() {
    let (from, to) = (file_with(&[(0, (3 << 20) + 17)]), tempfile::tempfile().unwrap());
    let mut copier = Copier::new(&from, &to);
    copier.buffer = vec![0; BUFFER_BYTES];
    copier
        .copy(ByteRange {
            offset: 5,
            length: (3 << 20) + 12,
        })
        .unwrap();
    assert_eq!(to.metadata().unwrap().len(), (3 << 20) + 17);
    let error = copier
        .copy(ByteRange {
            offset: 3 << 20,
            length: 100,
        })
        .unwrap_err();
    assert_eq!(
        error.raw_os_error(),
        Some(Errno::IO.raw_os_error()),
        "the source ends before"
    );
}

#[test]
fn what_is_no_regular_file_is_refused() {
    let (device, to) = (File::open("/dev/zero").unwrap(), tempfile::tempfile().unwrap());
    assert!(matches!(
        sparse(&device, &to, &mut go_on),
        Err(MountError::BadPath { .. })
    ));
}

#[test]
fn a_tree_goes_only_into_an_empty_directory() {
    let scratch = tempfile::tempdir().unwrap();
    let (from, to) = (scratch.path().join("from"), scratch.path().join("to"));
    fs::create_dir(&from).unwrap();
    fs::create_dir(&to).unwrap();
    File::create(to.join("file")).unwrap().write_all(b"x").unwrap();
    assert!(matches!(
        tree(&from, &to, &mut go_on),
        Err(MountError::BadPath { .. })
    ));
    assert_eq!(fs::read(to.join("file")).unwrap(), b"x");
    std::os::unix::fs::symlink(&to, scratch.path().join("link")).unwrap();
    assert!(
        tree(
            &scratch.path().join("link"),
            &scratch.path().join("new"),
            &mut go_on
        )
        .is_err()
    );
}
