//! The SDK's conformance checks against this driver, as a vendor runs them against theirs.

use std::collections::BTreeMap;

use moorline_driver_local::Config;
use moorline_driver_sdk::conformance::{self, Options, Outcome, Report};
use moorline_mount::filesystem::{self, FsType};

use crate::support::{BLOCK, DIR, Driver, EXT4, SUBVOLUME, Scratch, Use, XFS, cannot_run, config, skipped};

async fn report_on(usage: Use, change: impl FnOnce(&mut Config)) -> Report {
    let scratch = Scratch::new();
    if usage == SUBVOLUME {
        scratch.btrfs_pool();
    }
    let mut config = config(scratch.root(), usage.backend);
    change(&mut config);
    let driver = Driver::with(config.clone()).await;
    let mutable_parameters = match usage.is_loop() {
        true => BTreeMap::from([("directIO".to_owned(), "false".to_owned())]),
        false => BTreeMap::new(),
    };
    let options = Options {
        node_dir: Some(scratch.root().to_owned()),
        mutable_parameters,
        is_block: usage.fs_type.is_none(),
        fs_type: usage.fs_type.unwrap_or_default().to_owned(),
        capacity_bytes: u64::try_from(usage.bytes).unwrap(),
        ..Options::default()
    };
    let report = conformance::check(&config.serving.endpoint, &options)
        .await
        .unwrap();
    driver.stop().await;
    assert_eq!(scratch.in_use(), (vec![], vec![]));
    report
}

/// Nothing fails, and what is skipped is what the driver can't do in this set-up.
fn assert_passed(what: &str, report: &Report, skipped_because: &[&str]) {
    assert!(report.has_passed(), "{what}: {report}");
    for check in &report.checks {
        if let Outcome::Skipped(why) = &check.outcome {
            assert!(
                skipped_because.iter().any(|expected| why.contains(expected)),
                "{what}: {} is skipped: {why}",
                check.name
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_driver_is_what_it_advertises() {
    if cannot_run("the_driver_is_what_it_advertises", EXT4.tools()) {
        return;
    }
    const ALONE: &str = "controller.PublishUnpublishVolume is not advertised";
    const UNREAD: &str = "controller.PublishReadonly is not advertised";
    const UNLISTED: &str = "controller.ListVolumesPublishedNodes is not advertised";
    const DIRECTORY: &str = "no blocks to tell of";
    const UNCHANGED: &str = "no mutable_parameters";
    let ext4 = filesystem::can_grow_mounted(FsType::Ext4).then_some(EXT4);
    if ext4.is_none() {
        skipped("the_driver_is_what_it_advertises, ext4", "needs CAP_SYS_RESOURCE");
    }
    for usage in [DIR, BLOCK].into_iter().chain(ext4) {
        let what = format!("{usage:?}");
        let of_directories: &[&str] = match usage.is_loop() {
            true => &[],
            false => &[DIRECTORY, UNCHANGED],
        };
        let alone = report_on(usage, |_| {}).await;
        let expected = [of_directories, &[ALONE, UNREAD, UNLISTED]].concat();
        assert_passed(&what, &alone, &expected);
        let attachable = report_on(usage, |config| config.is_attachable = true).await;
        assert_passed(&format!("{what}, attachable"), &attachable, of_directories);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn filesystems_that_grow_mounted_are_what_they_are_advertised_as() {
    let test = "filesystems_that_grow_mounted_are_what_they_are_advertised_as";
    if cannot_run(test, XFS.tools()) {
        return;
    }
    let report = report_on(XFS, |config| config.is_attachable = true).await;
    assert_passed("xfs", &report, &[]);
}

#[tokio::test(flavor = "multi_thread")]
async fn subvolumes_are_what_they_are_advertised_as() {
    if cannot_run("subvolumes_are_what_they_are_advertised_as", SUBVOLUME.tools()) {
        return;
    }
    let report = report_on(SUBVOLUME, |config| config.is_attachable = true).await;
    assert_passed(
        "subvolumes",
        &report,
        &["no blocks to tell of", "no mutable_parameters"],
    );
}
