//! Snapshots, restores and clones of all kinds of volumes, with and without reflinks, in use and not. Each test leaves no
//! mount and no loop device.

use std::{
    fs::{self, File},
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
};

use moorline_driver_local::{BackendKind, PoolConfig};
use moorline_mount::{filesystem, filesystem::FsType, mount};
use moorline_proto::csi;
use tonic::Code;

use crate::support::{
    BLOCK, BLOCK_IN_BTRFS, BTRFS, DIR, Driver, EXT4, MIB, SUBVOLUME, Scratch, Use, XFS, cannot_run, config,
    from_snapshot, from_volume, range, with_parameter,
};

/// Where a volume is used in a test.
struct Place {
    staging: PathBuf,
    target: PathBuf,
}

fn place(scratch: &Scratch, id: &str) -> Place {
    Place {
        staging: scratch.directory(&format!("staging-{id}")),
        target: scratch.path(&format!("target-{id}")),
    }
}

async fn use_it(driver: &mut Driver, usage: Use, scratch: &Scratch, id: &str) -> Place {
    let place = place(scratch, id);
    driver.stage(usage.stage(id, &place.staging)).await.unwrap();
    driver
        .publish(usage.publish(id, &place.staging, &place.target))
        .await
        .unwrap();
    place
}

async fn leave_it(driver: &mut Driver, id: &str, place: &Place) {
    driver.unpublish(id, &place.target).await.unwrap();
    driver.unstage(id, &place.staging).await.unwrap();
}

fn file_of(usage: Use, target: &Path) -> PathBuf {
    if usage.fs_type.is_some() {
        target.join("file")
    } else {
        target.to_owned()
    }
}

/// Not synced: a snapshot must have it all the same.
fn write(usage: Use, target: &Path, text: &str) {
    let mut options = File::options();
    options.write(true).create(usage.fs_type.is_some());
    let file = options.open(file_of(usage, target)).unwrap();
    file.write_all_at(text.as_bytes(), 0).unwrap();
}

fn read(usage: Use, target: &Path) -> String {
    let mut data = [0; 3];
    let file = File::open(file_of(usage, target)).unwrap();
    file.read_exact_at(&mut data, 0).unwrap();
    String::from_utf8(data.to_vec()).unwrap()
}

fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).unwrap();
    let mut names: Vec<_> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

/// A pool directory on xfs, which shares blocks.
fn reflink_pool(scratch: &Scratch) {
    let (image, pool) = (scratch.path("pool.img"), scratch.directory("pool"));
    File::create(&image).unwrap().set_len(2 << 30).unwrap();
    filesystem::make(&image, FsType::Xfs).unwrap();
    let options = moorline_mount::loop_device::AttachOptions {
        autoclear: true,
        ..Default::default()
    };
    let device = moorline_mount::loop_device::attach(&image, options).unwrap();
    mount::mount(device.path(), &pool, "xfs", &[]).unwrap();
}

fn cannot(test: &str, usage: Use) -> bool {
    cannot_run(test, usage.tools()) || cannot_run(test, XFS.tools())
}

/// What the pool is on.
#[derive(Clone, Copy, PartialEq, Eq)]
enum On {
    /// Whatever holds temporary files.
    Temporary,
    /// An xfs of its own, which shares blocks of files.
    Xfs,
    /// A btrfs of its own, as tests of that backend have anyhow.
    Btrfs,
}

/// Write, snapshot, write more, restore, clone, remove the source: everybody has what was there at their moment.
async fn everybody_has_their_moment(usage: Use, on: On) {
    let scratch = Scratch::new();
    if on == On::Xfs {
        reflink_pool(&scratch);
    }
    let mut driver = Driver::start(&scratch, usage.backend).await;
    driver.create(usage.create("pvc-1")).await.unwrap();
    let at = use_it(&mut driver, usage, &scratch, "pvc-1").await;
    write(usage, &at.target, "one");
    // A device or directory without reflinks can't be held still: there, nobody may use it.
    let is_held = usage.fs_type.is_some_and(|name| !name.is_empty()) || on != On::Temporary;
    if !is_held {
        leave_it(&mut driver, "pvc-1", &at).await;
    }
    let cut = driver.snapshot("snapshot-1", "pvc-1").await.unwrap();
    assert_eq!((cut.size_bytes, cut.ready_to_use), (usage.bytes, true));
    assert_eq!(
        driver.snapshot("snapshot-1", "pvc-1").await.unwrap(),
        cut,
        "twice is once"
    );
    let at = use_it(&mut driver, usage, &scratch, "pvc-1").await;
    write(usage, &at.target, "two");
    if !is_held {
        leave_it(&mut driver, "pvc-1", &at).await;
    }
    driver
        .create(from_volume(usage.create("clone"), "pvc-1"))
        .await
        .unwrap();
    let restore = from_snapshot(usage.create("restored"), "snapshot-1");
    let restored = driver.create(restore.clone()).await.unwrap();
    assert_eq!(restored.content_source, restore.volume_content_source);
    assert_eq!(driver.create(restore).await.unwrap(), restored, "twice is once");

    // All three beside each other, on one node.
    let at = use_it(&mut driver, usage, &scratch, "pvc-1").await;
    let of_clone = use_it(&mut driver, usage, &scratch, "clone").await;
    let of_restored = use_it(&mut driver, usage, &scratch, "restored").await;
    write(usage, &at.target, "now");
    let contents = [&at, &of_clone, &of_restored].map(|place| read(usage, &place.target));
    assert_eq!(contents, ["now", "two", "one"]);
    for (id, place) in [("pvc-1", &at), ("clone", &of_clone), ("restored", &of_restored)] {
        leave_it(&mut driver, id, place).await;
        driver.delete(id).await.unwrap();
    }

    // The snapshot outlives its volume, and a restart.
    driver.stop().await;
    let mut driver = Driver::start(&scratch, usage.backend).await;
    assert_eq!(driver.snapshots_of("pvc-1").await, ["snapshot-1"]);
    driver
        .create(from_snapshot(usage.create("again"), "snapshot-1"))
        .await
        .unwrap();
    let of_again = use_it(&mut driver, usage, &scratch, "again").await;
    assert_eq!(read(usage, &of_again.target), "one");
    leave_it(&mut driver, "again", &of_again).await;
    driver.delete("again").await.unwrap();
    for _ in 0..2 {
        driver.delete_snapshot("snapshot-1").await.unwrap();
    }
    assert_eq!(driver.snapshots_of("").await, [""; 0]);
    driver.stop().await;
    assert_eq!(names(&scratch.path("pool/volumes")), [""; 0]);
    assert_eq!(names(&scratch.path("pool/snapshots")), [""; 0]);
    assert_eq!(names(&scratch.path("pool/frozen")), [""; 0]);
}

macro_rules! for_each_use {
    ($($name:ident: $usage:expr, $on:expr;)*) => { $(
        #[tokio::test(flavor = "multi_thread")]
        async fn $name() {
            if !cannot(stringify!($name), $usage) {
                everybody_has_their_moment($usage, $on).await;
            }
        }
    )* };
}

for_each_use! {
    directories_have_their_moment: DIR, On::Temporary;
    ext4_has_its_moment: EXT4, On::Temporary;
    xfs_has_its_moment: XFS, On::Temporary;
    btrfs_has_its_moment: BTRFS, On::Temporary;
    block_devices_have_their_moment: BLOCK, On::Temporary;
    ext4_on_reflinks_has_its_moment: EXT4, On::Xfs;
    xfs_on_reflinks_has_its_moment: XFS, On::Xfs;
    btrfs_on_reflinks_has_its_moment: BTRFS, On::Xfs;
    block_devices_on_reflinks_have_their_moment: BLOCK, On::Xfs;
    subvolumes_have_their_moment: SUBVOLUME, On::Btrfs;
    block_devices_on_btrfs_have_their_moment: BLOCK_IN_BTRFS, On::Btrfs;
}

#[tokio::test]
async fn a_restore_into_another_pool_is_a_copy() {
    if cannot("a_restore_into_another_pool_is_a_copy", EXT4) {
        return;
    }
    let scratch = Scratch::new();
    let mut config = config(scratch.root(), BackendKind::Loop);
    let other = scratch.directory("other");
    mount::mount("tmpfs", &other, "tmpfs", &["size=64m".to_owned()]).unwrap();
    config
        .pools
        .push(PoolConfig::new("other", &other, BackendKind::Loop));
    let mut driver = Driver::with(config).await;
    driver.create(EXT4.create("pvc-1")).await.unwrap();
    let at = use_it(&mut driver, EXT4, &scratch, "pvc-1").await;
    write(EXT4, &at.target, "one");
    driver.snapshot("snapshot-1", "pvc-1").await.unwrap();
    write(EXT4, &at.target, "two");
    let elsewhere = |request| with_parameter(request, "pool", "other");
    for (id, request) in [
        ("restored", from_snapshot(EXT4.create("restored"), "snapshot-1")),
        ("clone", from_volume(EXT4.create("clone"), "pvc-1")),
    ] {
        driver.create(elsewhere(request)).await.unwrap();
        let of_it = use_it(&mut driver, EXT4, &scratch, id).await;
        let expected = if id == "clone" { "two" } else { "one" };
        assert_eq!(read(EXT4, &of_it.target), expected);
        leave_it(&mut driver, id, &of_it).await;
    }
    leave_it(&mut driver, "pvc-1", &at).await;
    assert_eq!(names(&other.join("volumes")), ["clone", "restored"]);
    driver.stop().await;
    mount::unmount(&other).unwrap();
}

#[tokio::test]
async fn a_device_in_use_is_not_copied_block_by_block() {
    if cannot("a_device_in_use_is_not_copied_block_by_block", BLOCK) {
        return;
    }
    let scratch = Scratch::new();
    let pool = scratch.directory("pool");
    // No reflinks here, whatever holds temporary files.
    mount::mount("tmpfs", &pool, "tmpfs", &["size=64m".to_owned()]).unwrap();
    let mut driver = Driver::start(&scratch, BackendKind::Loop).await;
    driver.create(BLOCK.create("pvc-1")).await.unwrap();
    let at = use_it(&mut driver, BLOCK, &scratch, "pvc-1").await;
    let refused = driver.snapshot("snapshot-1", "pvc-1").await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition, "{refused}");
    assert!(
        refused.message().contains("reflinks"),
        "it says what to do: {refused}"
    );
    let clone = from_volume(BLOCK.create("clone"), "pvc-1");
    assert_eq!(
        driver.create(clone).await.unwrap_err().code(),
        Code::FailedPrecondition
    );
    leave_it(&mut driver, "pvc-1", &at).await;
    driver.snapshot("snapshot-1", "pvc-1").await.unwrap();
    driver.stop().await;
    assert_eq!(names(&scratch.path("pool/volumes")), ["pvc-1"]);
    mount::unmount(&pool).unwrap();
}

#[tokio::test]
async fn a_pool_that_fills_up_refuses_snapshots_and_clones_and_keeps_nothing_of_them() {
    if cannot("a_pool_that_fills_up_refuses_snapshots_and_clones", BLOCK) {
        return;
    }
    let scratch = Scratch::new();
    let pool = scratch.directory("pool");
    mount::mount("tmpfs", &pool, "tmpfs", &["size=64m".to_owned()]).unwrap();
    let mut config = config(scratch.root(), BackendKind::Loop);
    // More than there is: only the disk itself refuses.
    config.pools[0].capacity_limit_bytes = Some(1 << 30);
    config.pools[0].overcommit = "4".parse().unwrap();
    let mut driver = Driver::with(config).await;
    let usage = Use {
        bytes: 48 * MIB,
        ..BLOCK
    };
    driver.create(usage.create("pvc-1")).await.unwrap();
    let image = File::options()
        .write(true)
        .open(pool.join("volumes/pvc-1/image"))
        .unwrap();
    image.write_all_at(&vec![7; 40 << 20], 0).unwrap();
    let full = driver.snapshot("snapshot-1", "pvc-1").await.unwrap_err();
    assert_eq!(full.code(), Code::ResourceExhausted, "{full}");
    let full = driver
        .create(from_volume(usage.create("clone"), "pvc-1"))
        .await
        .unwrap_err();
    assert_eq!(full.code(), Code::ResourceExhausted, "{full}");
    let thick = with_parameter(usage.create("thick"), "provisioning", "thick");
    assert_eq!(
        driver.create(thick).await.unwrap_err().code(),
        Code::ResourceExhausted
    );
    assert_eq!(names(&pool.join("volumes")), ["pvc-1"]);
    assert_eq!(names(&pool.join("snapshots")), [""; 0]);
    // With room again, the same calls succeed.
    image.set_len(0).unwrap();
    image.set_len(48 << 20).unwrap();
    driver.snapshot("snapshot-1", "pvc-1").await.unwrap();
    driver
        .create(from_volume(usage.create("clone"), "pvc-1"))
        .await
        .unwrap();
    driver.stop().await;
    drop(image);
    mount::unmount(&pool).unwrap();
}

#[tokio::test]
async fn what_can_not_be_is_refused_with_the_right_code() {
    let scratch = Scratch::new();
    let mut driver = Driver::start(&scratch, BackendKind::Dir).await;
    driver.create(DIR.create("pvc-1")).await.unwrap();
    driver.create(DIR.create("pvc-2")).await.unwrap();
    driver.snapshot("snapshot-1", "pvc-1").await.unwrap();
    let taken = driver.snapshot("snapshot-1", "pvc-2").await.unwrap_err();
    assert_eq!(taken.code(), Code::AlreadyExists, "{taken}");
    let missing = driver.snapshot("snapshot-2", "pvc-9").await.unwrap_err();
    assert_eq!(missing.code(), Code::NotFound, "{missing}");
    let smaller = csi::CreateVolumeRequest {
        capacity_range: Some(range(DIR.bytes - 1)),
        ..DIR.create("smaller")
    };
    let block = Use { fs_type: None, ..DIR };
    let cases = [
        (
            "no such snapshot",
            from_snapshot(DIR.create("a"), "snapshot-9"),
            Code::NotFound,
        ),
        (
            "no such volume",
            from_volume(DIR.create("a"), "pvc-9"),
            Code::NotFound,
        ),
        ("smaller", from_snapshot(smaller, "snapshot-1"), Code::OutOfRange),
        (
            "another kind",
            from_snapshot(block.create("a"), "snapshot-1"),
            Code::InvalidArgument,
        ),
        (
            "the name is taken",
            from_snapshot(DIR.create("pvc-1"), "snapshot-1"),
            Code::AlreadyExists,
        ),
    ];
    for (name, request, expected) in cases {
        let refused = driver.create(request).await.unwrap_err();
        assert_eq!(refused.code(), expected, "{name}: {refused}");
    }
    assert_eq!(names(&scratch.path("pool/volumes")), ["pvc-1", "pvc-2"]);
    assert_eq!(driver.snapshots_of("pvc-1").await, ["snapshot-1"]);
    assert_eq!(driver.snapshots_of("pvc-2").await, [""; 0]);
    driver.stop().await;
}

#[tokio::test]
async fn a_larger_restore_has_a_larger_filesystem() {
    if cannot("a_larger_restore_has_a_larger_filesystem", EXT4) {
        return;
    }
    let scratch = Scratch::new();
    let mut driver = Driver::start(&scratch, BackendKind::Loop).await;
    driver.create(EXT4.create("pvc-1")).await.unwrap();
    driver.snapshot("snapshot-1", "pvc-1").await.unwrap();
    let larger = Use {
        bytes: 3 * EXT4.bytes,
        ..EXT4
    };
    let restored = driver
        .create(from_snapshot(larger.create("larger"), "snapshot-1"))
        .await
        .unwrap();
    assert_eq!(restored.capacity_bytes, larger.bytes);
    let at = use_it(&mut driver, EXT4, &scratch, "larger").await;
    let bytes = driver.stats("larger", &at.target).await.unwrap()[0].total;
    assert!(bytes > 2 * EXT4.bytes, "{bytes}");
    leave_it(&mut driver, "larger", &at).await;
    driver.stop().await;
}

#[tokio::test]
async fn a_start_lets_go_of_what_a_killed_driver_has_frozen() {
    let test = "a_start_lets_go_of_what_a_killed_driver_has_frozen";
    if cannot(test, EXT4) || cannot_run(test, &["fsfreeze"]) {
        return;
    }
    let scratch = Scratch::new();
    let mut driver = Driver::start(&scratch, BackendKind::Loop).await;
    driver.create(EXT4.create("pvc-1")).await.unwrap();
    let at = use_it(&mut driver, EXT4, &scratch, "pvc-1").await;
    driver.stop().await;
    // What a driver leaves that is killed between freezing and thawing: nobody has the filesystem open any more.
    let frozen = std::process::Command::new("fsfreeze")
        .arg("--freeze")
        .arg(&at.staging)
        .status();
    assert!(frozen.unwrap().success());
    File::create(scratch.path("pool/frozen/pvc-1")).unwrap();
    let mut driver = Driver::start(&scratch, BackendKind::Loop).await;
    write(EXT4, &at.target, "one");
    assert_eq!(names(&scratch.path("pool/frozen")), [""; 0]);
    driver.snapshot("snapshot-1", "pvc-1").await.unwrap();
    leave_it(&mut driver, "pvc-1", &at).await;
    driver.stop().await;
}

async fn ranges(
    mut stream: tonic::Streaming<csi::GetMetadataDeltaResponse>,
) -> Result<(i64, Vec<(i64, i64)>), tonic::Status> {
    let (mut capacity, mut ranges) = (0, Vec::new());
    while let Some(message) = stream.message().await? {
        capacity = message.volume_capacity_bytes;
        let found = message.block_metadata.iter();
        ranges.extend(found.map(|range| (range.byte_offset, range.size_bytes)));
    }
    Ok((capacity, ranges))
}

async fn changed_blocks(has_reflinks: bool) {
    let scratch = Scratch::new();
    if has_reflinks {
        reflink_pool(&scratch);
    }
    let mut driver = Driver::start(&scratch, BackendKind::Loop).await;
    driver.create(BLOCK.create("pvc-1")).await.unwrap();
    let image = scratch.path("pool/volumes/pvc-1/image");
    let write = |at: i64, value: u8| {
        let file = File::options().write(true).open(&image).unwrap();
        file.write_all_at(&[value; 4096], u64::try_from(at).unwrap())
            .unwrap();
    };
    write(0, 1);
    write(4 * MIB, 1);
    driver.snapshot("base", "pvc-1").await.unwrap();
    write(4 * MIB, 2);
    write(8 * MIB, 2);
    driver.snapshot("target", "pvc-1").await.unwrap();
    let request = csi::GetMetadataDeltaRequest {
        base_snapshot_id: "base".into(),
        target_snapshot_id: "target".into(),
        ..Default::default()
    };
    let answer = driver.metadata.get_metadata_delta(request.clone()).await.unwrap();
    let all = ranges(answer.into_inner()).await.unwrap();
    assert_eq!(all, (BLOCK.bytes, vec![(4 * MIB, 4096), (8 * MIB, 4096)]));
    let rest = csi::GetMetadataDeltaRequest {
        starting_offset: 4 * MIB + 4096,
        max_results: 1,
        ..request.clone()
    };
    let answer = driver.metadata.get_metadata_delta(rest).await.unwrap();
    assert_eq!(ranges(answer.into_inner()).await.unwrap().1, [(8 * MIB, 4096)]);
    let backwards = csi::GetMetadataDeltaRequest {
        base_snapshot_id: "target".into(),
        target_snapshot_id: "base".into(),
        ..Default::default()
    };
    let answer = driver.metadata.get_metadata_delta(backwards).await.unwrap();
    assert_eq!(
        ranges(answer.into_inner()).await.unwrap_err().code(),
        Code::InvalidArgument
    );
    let request = csi::GetMetadataAllocatedRequest {
        snapshot_id: "target".into(),
        ..Default::default()
    };
    let mut stream = driver
        .metadata
        .get_metadata_allocated(request)
        .await
        .unwrap()
        .into_inner();
    let message = stream.message().await.unwrap().unwrap();
    assert_eq!(message.volume_capacity_bytes, BLOCK.bytes);
    for at in [0, 4 * MIB, 8 * MIB] {
        let is_in = |range: &csi::BlockMetadata| {
            (range.byte_offset..range.byte_offset + range.size_bytes).contains(&at)
        };
        assert!(message.block_metadata.iter().any(is_in), "{at} in {message:?}");
    }
    driver.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn changed_blocks_of_copies_are_told() {
    if !cannot("changed_blocks_of_copies_are_told", BLOCK) {
        changed_blocks(false).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn changed_blocks_of_reflinks_are_told() {
    if !cannot("changed_blocks_of_reflinks_are_told", BLOCK) {
        changed_blocks(true).await;
    }
}
