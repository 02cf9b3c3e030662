//! Blocks are really there, and really given back.

use std::{
    fs::{self, File},
    os::unix::fs::FileExt as _,
};

use moorline_mount::{allocate, extents, extents::ByteRange, filesystem::FsType, usage};

use super::support::{Scratch, cannot_run};

fn reserved_blocks_are_there_and_go_again(fs_type: FsType) {
    let scratch = Scratch::new();
    let dir = scratch.filesystem("fs", fs_type, &[]);
    let file = File::create_new(dir.join("file")).unwrap();
    file.write_all_at(b"data", 1 << 20).unwrap();
    allocate::reserve(&file, 32 << 20).unwrap();
    assert_eq!(file.metadata().unwrap().len(), 32 << 20);
    assert!(allocate::allocated_bytes(&file).unwrap() >= 32 << 20);
    allocate::reserve(&file, 8 << 20).expect("less than there is");
    assert_eq!(file.metadata().unwrap().len(), 32 << 20, "never shorter");
    let bytes = fs::read(dir.join("file")).unwrap();
    assert_eq!(&bytes[1 << 20..(1 << 20) + 4], b"data");

    let whole = ByteRange {
        offset: 0,
        length: 32 << 20,
    };
    allocate::punch(&file, whole).unwrap();
    assert!(allocate::allocated_bytes(&file).unwrap() < 1 << 20);
    assert_eq!(file.metadata().unwrap().len(), 32 << 20);
    assert!(fs::read(dir.join("file")).unwrap().iter().all(|byte| *byte == 0));
}

/// More than there is, asked for so that only the attempt itself can tell: other blocks are taken in between.
fn too_much_leaves_the_file_as_it_was(fs_type: FsType) {
    let scratch = Scratch::new();
    let dir = scratch.filesystem("fs", fs_type, &[]);
    let file = File::options()
        .read(true)
        .write(true)
        .create_new(true)
        .open(dir.join("file"))
        .unwrap();
    file.write_all_at(&[7; 8192], 0).unwrap();
    file.sync_all().unwrap();
    let look = || (file.metadata().unwrap().len(), extents::mapped(&file).unwrap());
    let before = (look(), allocate::allocated_bytes(&file).unwrap());
    let free = usage::filesystem(&dir).unwrap().bytes.available;
    // Exactly what is free can't be had, because of the metadata; far more is refused at once.
    for bytes in [free + 8192, 10 * free] {
        let error = allocate::reserve(&file, bytes).unwrap_err();
        assert!(error.is_no_space(), "{fs_type}: {error}");
        assert_eq!(before.0, look(), "{fs_type}");
        // ext4 keeps a block of its extent tree.
        assert!(
            allocate::allocated_bytes(&file).unwrap() <= before.1 + 4096,
            "{fs_type}"
        );
        assert_eq!(fs::read(dir.join("file")).unwrap(), [7; 8192]);
    }
}

#[test]
fn blocks_are_reserved_and_given_back() {
    if cannot_run("blocks_are_reserved_and_given_back", &["mkfs.ext4", "mkfs.xfs"]) {
        return;
    }
    for fs_type in [FsType::Ext4, FsType::Xfs] {
        reserved_blocks_are_there_and_go_again(fs_type);
        too_much_leaves_the_file_as_it_was(fs_type);
    }
}
