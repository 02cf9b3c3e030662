//! Workloads that write while their volume is copied or grown, and what copies hold of it.

use std::fs::{self, File};

use moorline_mount::filesystem::FsType;

use super::{
    Published, cannot, pool_on,
    records::{Held, RECORD_BYTES, Writer, held},
};
use crate::support::{
    BLOCK, DIR, Driver, EXT4, MIB, SUBVOLUME, Scratch, Use, XFS, from_snapshot, from_volume, until_so,
};

const POOL_BYTES: u64 = 2 << 30;
const LITTLE_BYTES: u64 = 8 << 20;
/// Records of the content that is compared as a whole: beyond one extent, and beyond what a page cache would hide.
const RECORDS: u64 = 512;

fn read(usage: Use, at: &Published) -> Vec<u8> {
    let mut bytes = fs::read(&at.file).unwrap();
    if usage.fs_type.is_none() {
        // The rest of the device was never written to.
        let end = bytes
            .iter()
            .rposition(|byte| *byte != 0)
            .map_or(0, |last| last + 1);
        assert!(bytes[end..].iter().all(|byte| *byte == 0));
        bytes.truncate(end.next_multiple_of(RECORD_BYTES));
    }
    bytes
}

/// Write, snapshot, write more, restore, compare.
async fn a_restore_is_what_was_cut(usage: Use, pool: FsType) {
    let scratch = Scratch::new();
    pool_on(&scratch, pool, POOL_BYTES);
    let mut driver = Driver::start(&scratch, usage.backend).await;
    let source = Published::create(&mut driver, &scratch, usage, "source").await;
    let writer = Writer::start(&source.file);
    until_so("the first records", || writer.written() >= RECORDS).await;
    let cut = writer.end();
    source.leave(&mut driver).await;
    driver.snapshot("snapshot", "source").await.unwrap();
    // More, over the same blocks and beyond.
    driver
        .stage(usage.stage("source", &source.staging))
        .await
        .unwrap();
    let publish = usage.publish("source", &source.staging, &source.target);
    driver.publish(publish).await.unwrap();
    fs::write(&source.file, vec![0xa5; 4 << 20]).unwrap();
    let request = from_snapshot(usage.create("restored"), "snapshot");
    let restored = Published::of(&mut driver, &scratch, usage, request).await;
    let expected = Held {
        prefix: cut,
        stray: 0,
        torn_bytes: 0,
    };
    assert_eq!(held(&read(usage, &restored)), expected);
    restored.remove(&mut driver).await;
    source.remove(&mut driver).await;
    driver.delete_snapshot("snapshot").await.unwrap();
    driver.stop().await;
}

/// Clones and snapshots of a volume that is written to are of one moment: what was durable before is in them, what is in
/// them has no gap, and the writer goes on.
async fn copies_of_a_busy_volume_have_no_gap(usage: Use, pool: FsType) {
    let scratch = Scratch::new();
    pool_on(&scratch, pool, POOL_BYTES);
    let mut driver = Driver::start(&scratch, usage.backend).await;
    let source = Published::create(&mut driver, &scratch, usage, "source").await;
    let writer = Writer::start(&source.file);
    for round in 0..3 {
        let from = writer.synced();
        until_so("some more records", || writer.synced() > from).await;
        let durable = writer.synced();
        let request = if round == 1 {
            driver.snapshot("snapshot", "source").await.unwrap();
            from_snapshot(usage.create("copy"), "snapshot")
        } else {
            from_volume(usage.create("copy"), "source")
        };
        driver.create(request.clone()).await.unwrap();
        // One more may be under way.
        let written = writer.written() + 1;
        let copy = Published::of(&mut driver, &scratch, usage, request).await;
        let found = held(&read(usage, &copy));
        assert!(
            found.prefix >= durable && found.prefix <= written,
            "{round}: {found:?}, of {durable} durable and {written} written"
        );
        // Only a filesystem is held still; a device is seen as after a power cut, between two syncs.
        let is_held = usage.fs_type.is_some();
        assert!(
            !is_held || (found.stray, found.torn_bytes) == (0, 0),
            "{round}: {found:?}"
        );
        copy.remove(&mut driver).await;
    }
    let last = writer.end();
    assert_eq!(held(&read(usage, &source)).prefix, last, "the source has all");
    driver.delete_snapshot("snapshot").await.unwrap();
    source.remove(&mut driver).await;
    driver.stop().await;
}

/// A small filesystem is large for a writer that syncs all the time.
fn leave_little_room(usage: Use, at: &Published) {
    if usage.fs_type != Some("xfs") {
        return;
    }
    let available = moorline_mount::usage::filesystem(&at.target)
        .unwrap()
        .bytes
        .available;
    let file = File::create(at.target.join("filler")).unwrap();
    moorline_mount::allocate::reserve(&file, available - LITTLE_BYTES).unwrap();
}

/// A writer that has filled its volume goes on as soon as the volume has grown.
async fn a_volume_grows_under_its_writer(usage: Use, pool: FsType) {
    let scratch = Scratch::new();
    pool_on(&scratch, pool, POOL_BYTES);
    let mut driver = Driver::start(&scratch, usage.backend).await;
    let source = Published::create(&mut driver, &scratch, usage, "source").await;
    leave_little_room(usage, &source);
    let writer = Writer::start(&source.file);
    // Once in the middle of the writing, and once when there is no room left.
    until_so("some records", || writer.synced() > 0).await;
    let bytes = usage.bytes + 8 * MIB;
    driver.expand("source", bytes).await.unwrap();
    driver.node_expand("source", &source.target, bytes).await.unwrap();
    until_so("the end of the room", || writer.refused() > 0).await;
    let filled = writer.written();
    let bytes = bytes + 8 * MIB;
    driver.expand("source", bytes).await.unwrap();
    driver.node_expand("source", &source.target, bytes).await.unwrap();
    until_so("records beyond the old end", || writer.written() > filled + 64).await;
    let last = writer.end();
    assert_eq!(held(&read(usage, &source)).prefix, last);
    source.remove(&mut driver).await;
    driver.stop().await;
}

macro_rules! on_pools {
    ($($behaviour:ident { $($name:ident: $usage:expr, $pool:expr;)* })*) => { $(
        mod $behaviour {
            use super::*;
            $(
                #[tokio::test(flavor = "multi_thread")]
                async fn $name() {
                    let test = concat!(stringify!($behaviour), "::", stringify!($name));
                    if !cannot(test, $usage, $pool) {
                        super::$behaviour($usage, $pool).await;
                    }
                }
            )*
        }
    )* };
}

on_pools! {
    a_restore_is_what_was_cut {
        directory_on_ext4: DIR, FsType::Ext4;
        directory_on_xfs: DIR, FsType::Xfs;
        ext4_on_ext4: EXT4, FsType::Ext4;
        ext4_on_xfs: EXT4, FsType::Xfs;
        ext4_on_btrfs: EXT4, FsType::Btrfs;
        xfs_on_xfs: XFS, FsType::Xfs;
        block_on_ext4: BLOCK, FsType::Ext4;
        block_on_xfs: BLOCK, FsType::Xfs;
        subvolume: SUBVOLUME, FsType::Btrfs;
    }
    copies_of_a_busy_volume_have_no_gap {
        ext4_on_ext4: EXT4, FsType::Ext4;
        ext4_on_xfs: EXT4, FsType::Xfs;
        xfs_on_xfs: XFS, FsType::Xfs;
        xfs_on_btrfs: XFS, FsType::Btrfs;
        block_on_xfs: BLOCK, FsType::Xfs;
        subvolume: SUBVOLUME, FsType::Btrfs;
    }
    a_volume_grows_under_its_writer {
        xfs_on_ext4: XFS, FsType::Ext4;
        block_on_xfs: BLOCK, FsType::Xfs;
        subvolume: SUBVOLUME, FsType::Btrfs;
    }
}
