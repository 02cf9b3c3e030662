//! Mutable parameters: refused before anything changes, applied at once, at staging, and by nodes that only follow the record.

use std::{fs, path::Path};

use moorline_driver_local::{BackendKind, Services};
use moorline_driver_sdk::Endpoint;
use moorline_mount::{
    io_limits::{self, Limits, Support},
    loop_device::{self, LoopDevice},
    mountinfo,
};
use moorline_proto::csi;
use tonic::{Code, Status};

use crate::support::{
    BLOCK, DIR, Driver, EXT4, SUBVOLUME, Scratch, Use, cannot_run, config, skipped, until_so,
};

fn parameters(pairs: &[(&str, &str)]) -> std::collections::HashMap<String, String> {
    pairs
        .iter()
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
        .collect()
}

async fn modify(driver: &mut Driver, volume_id: &str, pairs: &[(&str, &str)]) -> Result<(), Status> {
    let request = csi::ControllerModifyVolumeRequest {
        volume_id: volume_id.into(),
        mutable_parameters: parameters(pairs),
        ..Default::default()
    };
    driver
        .controller
        .controller_modify_volume(request)
        .await
        .map(drop)
}

fn device(scratch: &Scratch, volume_id: &str) -> LoopDevice {
    let image = scratch.path(&format!("pool/volumes/{volume_id}/image"));
    loop_device::find_by_backing_file(image)
        .unwrap()
        .expect("it is staged")
}

fn limits_of(device: &LoopDevice) -> Option<Limits> {
    match io_limits::support().unwrap() {
        Support::No { why } => {
            skipped("limits for reads and writes", &why);
            None
        }
        support => Some(io_limits::read(&support, device.number().unwrap()).unwrap()),
    }
}

fn record(scratch: &Scratch, volume_id: &str) -> String {
    fs::read_to_string(scratch.path(&format!("pool/volumes/{volume_id}/record"))).unwrap()
}

fn discards(mount_point: &Path) -> bool {
    let entries = mountinfo::read().unwrap();
    let entry = entries
        .iter()
        .find(|entry| entry.mount_point == mount_point)
        .unwrap();
    entry.super_options.split(',').any(|word| word == "discard")
}

#[tokio::test]
async fn what_is_not_possible_is_refused_before_anything_changes() {
    if cannot_run(
        "what_is_not_possible_is_refused_before_anything_changes",
        SUBVOLUME.tools(),
    ) {
        return;
    }
    for usage in [DIR, SUBVOLUME, BLOCK] {
        let scratch = Scratch::new();
        let mut driver = Driver::start(&scratch, usage.backend).await;
        driver.create(usage.create("v")).await.unwrap();
        let before = record(&scratch, "v");
        let mut cases = vec![("colour", "red"), ("directIO", "perhaps"), ("readIOPS", "-1")];
        if usage == BLOCK {
            cases.push(("discard", "false"));
        } else {
            cases.extend([("directIO", "true"), ("discard", "true"), ("writeIOPS", "5")]);
        }
        for pair in cases {
            let refused = modify(&mut driver, "v", &[pair]).await.unwrap_err();
            assert_eq!(refused.code(), Code::InvalidArgument, "{pair:?}: {refused}");
            let request = csi::CreateVolumeRequest {
                mutable_parameters: parameters(&[pair]),
                ..usage.create("w")
            };
            let refused = driver.create(request).await.unwrap_err();
            assert_eq!(refused.code(), Code::InvalidArgument, "{pair:?}: {refused}");
        }
        assert_eq!(record(&scratch, "v"), before);
        assert_eq!(
            fs::read_dir(scratch.path("pool/volumes")).unwrap().count(),
            1,
            "{usage:?}"
        );
        let gone = modify(&mut driver, "w", &[("directIO", "true")])
            .await
            .unwrap_err();
        assert_eq!(gone.code(), Code::NotFound, "{gone}");
        driver.delete("v").await.unwrap();
        driver.stop().await;
    }
}

#[tokio::test]
async fn changes_act_at_once_and_again_when_staged() {
    if cannot_run("changes_act_at_once_and_again_when_staged", EXT4.tools()) {
        return;
    }
    let scratch = Scratch::new();
    let mut driver = Driver::start(&scratch, BackendKind::Loop).await;
    let request = csi::CreateVolumeRequest {
        mutable_parameters: parameters(&[("directIO", "true"), ("discard", "true")]),
        ..EXT4.create("v")
    };
    driver.create(request).await.unwrap();
    let staging = scratch.directory("staging");
    driver.stage(EXT4.stage("v", &staging)).await.unwrap();
    assert!(loop_device::is_direct_io(&device(&scratch, "v")).unwrap());
    assert!(discards(&staging));

    // Back and forth with nothing mounted in between, which would make the driver read the mount table anew.
    for wanted in ["false", "true", "false", "true"] {
        modify(&mut driver, "v", &[("discard", wanted)]).await.unwrap();
        assert_eq!(discards(&staging).to_string(), wanted);
    }
    let mut change = vec![("directIO", "false"), ("discard", "false")];
    let limited = limits_of(&device(&scratch, "v")).is_some();
    if limited {
        change.extend([("readIOPS", "5000"), ("writeBytesPerSecond", "104857600")]);
    }
    for _ in 0..2 {
        modify(&mut driver, "v", &change).await.unwrap();
        assert!(!loop_device::is_direct_io(&device(&scratch, "v")).unwrap());
        assert!(!discards(&staging));
    }
    let expected = Limits {
        read_iops: Some(5000),
        write_bytes_per_second: Some(100 << 20),
        ..Limits::default()
    };
    if limited {
        assert_eq!(limits_of(&device(&scratch, "v")), Some(expected));
    }
    let number = device(&scratch, "v").number().unwrap();
    driver.unstage("v", &staging).await.unwrap();
    if let support @ (Support::V1 { .. } | Support::V2 { .. }) = io_limits::support().unwrap() {
        let left = io_limits::read(&support, number).unwrap();
        assert_ne!(left, expected, "the number is somebody else's next");
    }
    driver.stage(EXT4.stage("v", &staging)).await.unwrap();
    if limited {
        assert_eq!(limits_of(&device(&scratch, "v")), Some(expected));
        modify(
            &mut driver,
            "v",
            &[("readIOPS", "0"), ("writeBytesPerSecond", "0")],
        )
        .await
        .unwrap();
        assert_eq!(limits_of(&device(&scratch, "v")), Some(Limits::default()));
    }
    driver.unstage("v", &staging).await.unwrap();
    driver.delete("v").await.unwrap();
    driver.stop().await;
    assert_eq!(scratch.in_use(), (vec![], vec![]));
}

/// The record is what counts: as if the controller had died between the record and the device, or ran elsewhere.
#[tokio::test]
async fn a_node_follows_the_record() {
    if cannot_run("a_node_follows_the_record", BLOCK.tools()) {
        return;
    }
    let usage: Use = BLOCK;
    let scratch = Scratch::new();
    let mut controller_config = config(scratch.root(), usage.backend);
    controller_config.services = Services::Controller;
    let mut controller = Driver::with(controller_config).await;
    let mut node_config = config(scratch.root(), usage.backend);
    node_config.services = Services::Node;
    node_config.serving.endpoint = Endpoint::Unix(scratch.path("node.sock"));
    controller.create(usage.create("v")).await.unwrap();
    let mut node = Driver::with(node_config).await;
    let staging = scratch.directory("staging");
    node.stage(usage.stage("v", &staging)).await.unwrap();
    for wanted in [true, false] {
        modify(
            &mut controller,
            "v",
            &[("directIO", if wanted { "true" } else { "false" })],
        )
        .await
        .unwrap();
        // Undo what the controller did on this machine: now only the node can.
        loop_device::set_direct_io(&device(&scratch, "v"), !wanted).unwrap();
        // A controller that only wrote the record, as before a crash.
        let path = scratch.path("pool/volumes/v/record");
        let bytes = fs::read(&path).unwrap();
        moorline_mount::durable::write(&path, &bytes).unwrap();
        until_so("the node follows", || {
            loop_device::is_direct_io(&device(&scratch, "v")).unwrap() == wanted
        })
        .await;
    }
    node.unstage("v", &staging).await.unwrap();
    controller.delete("v").await.unwrap();
    node.stop().await;
    controller.stop().await;
    assert_eq!(scratch.in_use(), (vec![], vec![]));
}
