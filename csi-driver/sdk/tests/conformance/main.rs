//! The conformance checks: a good driver passes them all, and for each there is a flaw that it finds.

#![cfg(test)]

mod flawed;
mod model;

use std::{collections::BTreeMap, path::Path, time::Duration};

use flawed::{Flaw, Flawed};
use moorline_driver_sdk::{
    Driver, DriverInfo, Endpoint, GRACE_PERIOD_DEFAULT,
    conformance::{Options, Outcome, Report, check},
    null,
};
use tokio_stream::wrappers::UnixListenerStream;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::{
    Code,
    transport::{self, Server},
};

const LONG: Duration = Duration::from_secs(60);

fn options(directory: &Path) -> Options {
    Options {
        node_dir: Some(directory.to_owned()),
        mutable_parameters: BTreeMap::from([("speed".to_owned(), "high".to_owned())]),
        ..Options::default()
    }
}

/// What the checks say about a driver, seen through a flaw if there is one.
async fn report_on(driver: Driver, flaw: Option<(&'static str, Flaw)>) -> Report {
    let directory = tempfile::tempdir().unwrap();
    let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
    let good = Endpoint::Unix(directory.path().join("good.sock"));
    let listener = good.listen().await.unwrap();
    tasks.spawn(driver.serve(listener, GRACE_PERIOD_DEFAULT, stop.clone()));
    let mut seen = good.clone();
    if let Some((method, flaw)) = flaw {
        let path = directory.path().join("flawed.sock");
        let listener = tokio::net::UnixListener::bind(&path).unwrap();
        let channel = transport::Endpoint::new(good.to_string()).unwrap().connect_lazy();
        let flawed = Flawed::new(channel, method, flaw);
        let service = tower::service_fn(move |request| flawed.clone().answer(request));
        let (incoming, stopped) = (UnixListenerStream::new(listener), stop.clone().cancelled_owned());
        let serving = Server::builder().serve_with_incoming_shutdown(service, incoming, stopped);
        tasks.spawn(async move { serving.await.unwrap() });
        seen = Endpoint::Unix(path);
    }
    let options = options(directory.path());
    let report = tokio::time::timeout(LONG, Box::pin(check(&seen, &options))).await;
    stop.cancel();
    tasks.close();
    tasks.wait().await;
    report.expect("in time").expect("it can be checked")
}

#[tokio::test]
async fn a_good_driver_passes_all_checks() {
    let report = report_on(model::driver(), None).await;
    let not_passed: Vec<_> = report
        .checks
        .iter()
        .filter(|check| check.outcome != Outcome::Passed)
        .collect();
    assert!(not_passed.is_empty(), "{not_passed:#?}");
    assert!(report.checks.len() >= 59, "{}", report.checks.len());
}

#[tokio::test]
async fn what_is_not_advertised_is_skipped_with_the_reason() {
    let driver = null::add_to(Driver::builder(DriverInfo::new("null.example.com", "1"))).build();
    let report = report_on(driver, None).await;
    let skipped = report
        .checks
        .iter()
        .find(|check| check.name == "a volume grows, also twice");
    assert_eq!(
        skipped.unwrap().outcome,
        Outcome::Skipped("controller.ExpandVolume is not advertised".to_owned())
    );
    // The null driver forgets everything, and the checks that can see it say so.
    let failed: Vec<_> = report.failed().collect();
    assert_eq!(
        failed,
        [
            "a name taken by another size is refused",
            "capabilities of an unknown volume are not found",
            "a volume is staged and published, each twice, and back",
        ],
        "{report}"
    );
}

#[tokio::test]
async fn nobody_there_is_an_error() {
    let directory = tempfile::tempdir().unwrap();
    let endpoint = Endpoint::Unix(directory.path().join("none.sock"));
    let error = check(&endpoint, &Options::default()).await.unwrap_err();
    assert!(error.to_string().starts_with("connect to unix://"), "{error}");
}

/// A method, what is wrong with it, and the checks that find it.
type Row = (&'static str, Flaw, &'static [&'static str]);

const INVALID: Flaw = Flaw::Accepts(Code::InvalidArgument);
const NOT_FOUND: Flaw = Flaw::Accepts(Code::NotFound);
const AGAIN: Flaw = Flaw::RefusesAgain(Code::AlreadyExists);

const FLAWS: &[Row] = &[
    (
        "GetPluginInfo",
        Flaw::AnswersNothing,
        &["the driver has a name and a version"],
    ),
    (
        "Probe",
        Flaw::Fails(Code::FailedPrecondition),
        &["the driver becomes ready"],
    ),
    (
        "CreateVolume",
        INVALID,
        &[
            "a create without a name is refused",
            "a create without capabilities is refused",
            "a create with limit below size is refused",
        ],
    ),
    (
        "CreateVolume",
        Flaw::AnswersNothing,
        &[
            "a new volume has the size asked for",
            "names of 128 bytes are taken",
        ],
    ),
    (
        "CreateVolume",
        AGAIN,
        &["a create that is repeated gives the same volume"],
    ),
    (
        "CreateVolume",
        Flaw::Accepts(Code::AlreadyExists),
        &["a name taken by another size is refused"],
    ),
    (
        "CreateVolume",
        NOT_FOUND,
        &[
            "an unknown volume is not cloned",
            "a volume is not made from an unknown snapshot",
        ],
    ),
    ("DeleteVolume", INVALID, &["a delete without an id is refused"]),
    (
        "DeleteVolume",
        Flaw::RefusesAgain(Code::NotFound),
        &["a delete can be repeated"],
    ),
    (
        "DeleteVolume",
        Flaw::Ignores,
        &["volumes are listed as long as they exist"],
    ),
    (
        "DeleteVolume",
        Flaw::Fails(Code::Internal),
        &["what was made can be removed"],
    ),
    (
        "ValidateVolumeCapabilities",
        Flaw::AnswersNothing,
        &["capabilities of a volume are confirmed"],
    ),
    (
        "ValidateVolumeCapabilities",
        INVALID,
        &["capabilities of a volume are confirmed"],
    ),
    (
        "ValidateVolumeCapabilities",
        NOT_FOUND,
        &["capabilities of an unknown volume are not found"],
    ),
    (
        "ListVolumes",
        Flaw::AnswersNothing,
        &[
            "volumes are listed as long as they exist",
            "pages of the list have every volume once",
        ],
    ),
    (
        "ListVolumes",
        Flaw::Accepts(Code::Aborted),
        &["a made-up page token is refused"],
    ),
    (
        "ControllerGetVolume",
        Flaw::AnswersNothing,
        &["a volume is found by its id"],
    ),
    (
        "ControllerGetVolume",
        NOT_FOUND,
        &["an unknown volume is not found"],
    ),
    (
        "GetCapacity",
        Flaw::Fails(Code::Internal),
        &["capacity makes sense"],
    ),
    (
        "ControllerExpandVolume",
        Flaw::Ignores,
        &["a volume grows, also twice"],
    ),
    (
        "ControllerExpandVolume",
        Flaw::RefusesAgain(Code::OutOfRange),
        &["a volume grows, also twice"],
    ),
    (
        "ControllerExpandVolume",
        NOT_FOUND,
        &["an unknown volume does not grow"],
    ),
    (
        "ControllerExpandVolume",
        INVALID,
        &["growing without a size is refused"],
    ),
    (
        "ControllerModifyVolume",
        INVALID,
        &["parameters change, also twice"],
    ),
    (
        "ControllerModifyVolume",
        AGAIN,
        &["parameters change, also twice"],
    ),
    (
        "ControllerModifyVolume",
        NOT_FOUND,
        &["parameters of an unknown volume do not change"],
    ),
    (
        "CreateVolume",
        Flaw::Fails(Code::InvalidArgument),
        &["a volume is cloned"],
    ),
    (
        "ControllerPublishVolume",
        NOT_FOUND,
        &[
            "attaching an unknown volume is refused",
            "attaching to an unknown node is refused",
        ],
    ),
    (
        "ControllerPublishVolume",
        INVALID,
        &["attaching without a node is refused"],
    ),
    (
        "ControllerPublishVolume",
        AGAIN,
        &["attach and detach can be repeated"],
    ),
    (
        "ControllerUnpublishVolume",
        Flaw::RefusesAgain(Code::NotFound),
        &["attach and detach can be repeated"],
    ),
    (
        "ControllerPublishVolume",
        Flaw::Accepts(Code::AlreadyExists),
        &["a volume attached to read is not attached to write as well"],
    ),
    (
        "ControllerPublishVolume",
        Flaw::Ignores,
        &["the list knows to which node a volume is attached"],
    ),
    (
        "ControllerUnpublishVolume",
        Flaw::Ignores,
        &["the list knows to which node a volume is attached"],
    ),
    (
        "ControllerGetVolume",
        Flaw::AnswersNothing,
        &["the list knows to which node a volume is attached"],
    ),
    (
        "GetMetadataAllocated",
        Flaw::AnswersNothing,
        &["allocated blocks are told in order, and again from any of them"],
    ),
    (
        "GetMetadataAllocated",
        Flaw::Stuck,
        &["allocated blocks are told in order, and again from any of them"],
    ),
    (
        "GetMetadataAllocated",
        Flaw::Accepts(Code::OutOfRange),
        &["blocks behind the end of the snapshot are out of range"],
    ),
    (
        "GetMetadataAllocated",
        NOT_FOUND,
        &["blocks of an unknown snapshot are not found"],
    ),
    (
        "GetMetadataAllocated",
        INVALID,
        &["incomplete and negative requests for blocks are refused"],
    ),
    (
        "GetMetadataDelta",
        Flaw::AnswersNothing,
        &["changed blocks are told in order, and again from any of them"],
    ),
    (
        "GetMetadataDelta",
        Flaw::Stuck,
        &["changed blocks are told in order, and again from any of them"],
    ),
    (
        "GetMetadataDelta",
        NOT_FOUND,
        &["blocks of an unknown snapshot are not found"],
    ),
    (
        "GetMetadataDelta",
        INVALID,
        &["incomplete and negative requests for blocks are refused"],
    ),
    (
        "NodeExpandVolume",
        Flaw::Fails(Code::Internal),
        &["a published volume grows on its node, also twice"],
    ),
    (
        "NodeExpandVolume",
        Flaw::RefusesAgain(Code::FailedPrecondition),
        &["a published volume grows on its node, also twice"],
    ),
    (
        "NodeExpandVolume",
        NOT_FOUND,
        &["an unknown volume does not grow on a node"],
    ),
    (
        "NodeExpandVolume",
        INVALID,
        &["growing on a node without an id or a path is refused"],
    ),
    (
        "CreateSnapshot",
        INVALID,
        &["a snapshot without a name or a source is refused"],
    ),
    (
        "CreateSnapshot",
        AGAIN,
        &["a snapshot that is repeated is the same"],
    ),
    (
        "CreateSnapshot",
        Flaw::Accepts(Code::AlreadyExists),
        &["a snapshot name taken by another volume is refused"],
    ),
    (
        "CreateSnapshot",
        Flaw::AnswersNothing,
        &["a volume is made from a snapshot"],
    ),
    (
        "DeleteSnapshot",
        Flaw::RefusesAgain(Code::NotFound),
        &["deleting a snapshot can be repeated"],
    ),
    (
        "DeleteSnapshot",
        INVALID,
        &["deleting a snapshot can be repeated"],
    ),
    (
        "ListSnapshots",
        Flaw::AnswersNothing,
        &["snapshots are listed by id and by volume"],
    ),
    (
        "ListSnapshots",
        Flaw::Accepts(Code::Aborted),
        &["a made-up token for snapshots is refused"],
    ),
    (
        "GetSnapshot",
        Flaw::AnswersNothing,
        &["a snapshot is found by its id"],
    ),
    ("GetSnapshot", NOT_FOUND, &["a snapshot is found by its id"]),
    (
        "CreateVolumeGroupSnapshot",
        INVALID,
        &["a group without volumes is refused"],
    ),
    (
        "CreateVolumeGroupSnapshot",
        AGAIN,
        &["a group is cut once, found and removed"],
    ),
    (
        "DeleteVolumeGroupSnapshot",
        Flaw::Ignores,
        &["a group is cut once, found and removed"],
    ),
    (
        "GetVolumeGroupSnapshot",
        NOT_FOUND,
        &["an unknown group is not found"],
    ),
    ("NodeGetInfo", Flaw::AnswersNothing, &["the node has an id"]),
    (
        "NodePublishVolume",
        INVALID,
        &["incomplete node requests are refused"],
    ),
    (
        "NodeUnpublishVolume",
        INVALID,
        &["incomplete node requests are refused"],
    ),
    ("NodeStageVolume", INVALID, &["staging without a path is refused"]),
    (
        "NodeUnstageVolume",
        INVALID,
        &["staging without a path is refused"],
    ),
    (
        "NodeGetVolumeStats",
        NOT_FOUND,
        &["usage of an unknown volume is not found"],
    ),
    (
        "NodePublishVolume",
        Flaw::Ignores,
        &["a volume is staged and published, each twice, and back"],
    ),
    (
        "NodeStageVolume",
        AGAIN,
        &["a volume is staged and published, each twice, and back"],
    ),
    (
        "NodeUnpublishVolume",
        Flaw::Ignores,
        &["a volume is staged and published, each twice, and back"],
    ),
    (
        "NodeUnstageVolume",
        Flaw::RefusesAgain(Code::NotFound),
        &["a volume is staged and published, each twice, and back"],
    ),
];

#[tokio::test]
async fn each_flaw_is_found() {
    for (method, flaw, expected) in FLAWS {
        let report = report_on(model::driver(), Some((*method, *flaw))).await;
        let failed: Vec<_> = report.failed().collect();
        for name in *expected {
            assert!(
                failed.contains(name),
                "{method} {flaw:?} passes {name:?}: {report}"
            );
        }
    }
}

#[tokio::test]
async fn there_is_a_flaw_for_each_check() {
    // A table about capabilities alone, with a test of its own beside it; no call could break it.
    let elsewhere = ["capabilities come with what they rest on"];
    let report = report_on(model::driver(), None).await;
    let broken: Vec<_> = FLAWS
        .iter()
        .flat_map(|(_, _, names)| names.iter().copied())
        .collect();
    let never: Vec<_> = report
        .passed()
        .filter(|name| !broken.contains(name) && !elsewhere.contains(name))
        .collect();
    assert!(never.is_empty(), "checks that no flaw has failed: {never:?}");
}
