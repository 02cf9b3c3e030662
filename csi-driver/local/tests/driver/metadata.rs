//! Snapshot metadata as a backup program gets it: from a driver process over its socket, resumed where it was broken off,
//! and read more slowly than it is found.

use std::{fs::File, os::unix::fs::FileExt as _};

use moorline_proto::csi::{
    self, GetMetadataAllocatedRequest, GetMetadataDeltaRequest,
    snapshot_metadata_client::SnapshotMetadataClient,
};
use tonic::{Code, Status, transport::Channel};

use crate::{
    process::Process,
    support::{BLOCK, Driver, MIB, Scratch, Use, cannot_run, config, until},
};

const BLOCK_BYTES: i64 = 4096;
const WRITTEN: [u8; 4096] = [7; 4096];
const VOLUME: Use = Use {
    bytes: 256 * MIB,
    ..BLOCK
};
/// Every other block is written.
const STRIDE: i64 = 2 * BLOCK_BYTES;
/// The least that HTTP/2 allows: a tenth of what the slow reader is owed.
const WINDOW: u32 = 65_535;

/// Ranges in a message for the slow reader. Some kilobytes: `h2` clients break a connection off on which many tiny frames wait.
const SLOW_RANGES: i32 = 200;

/// `(offset, size)`
type Range = (i64, i64);

/// A driver process with two snapshots of a block volume: `empty` before, `full` after blocks were written.
struct Backup {
    scratch: Scratch,
    process: Process,
    driver: Driver,
    written: Vec<Range>,
}

impl Backup {
    async fn new() -> Self {
        let scratch = Scratch::new();
        let config = config(scratch.root(), VOLUME.backend);
        let process = Process::start(&scratch, &config, "");
        let mut driver = Driver::connect(&config).await;
        driver.create(VOLUME.create("v")).await.unwrap();
        driver.snapshot("empty", "v").await.unwrap();
        let (staging, target) = (scratch.directory("staging"), scratch.path("target"));
        driver.stage(VOLUME.stage("v", &staging)).await.unwrap();
        driver
            .publish(VOLUME.publish("v", &staging, &target))
            .await
            .unwrap();
        // As a workload writes: to the device that it was given.
        let device = File::options().write(true).open(&target).unwrap();
        let written: Vec<_> = (0..VOLUME.bytes / STRIDE)
            .map(|index| (index * STRIDE, BLOCK_BYTES))
            .collect();
        for (offset, _) in &written {
            device
                .write_all_at(&WRITTEN, u64::try_from(*offset).unwrap())
                .unwrap();
        }
        device.sync_all().unwrap();
        drop(device);
        driver.unpublish("v", &target).await.unwrap();
        driver.unstage("v", &staging).await.unwrap();
        driver.snapshot("full", "v").await.unwrap();
        Backup {
            scratch,
            process,
            driver,
            written,
        }
    }

    fn delta(&self, starting_offset: i64, max_results: i32) -> GetMetadataDeltaRequest {
        GetMetadataDeltaRequest {
            base_snapshot_id: "empty".into(),
            target_snapshot_id: "full".into(),
            starting_offset,
            max_results,
            ..Default::default()
        }
    }

    /// Ranges of so many messages, or of all there are.
    async fn changed(&mut self, request: GetMetadataDeltaRequest, messages_max: usize) -> Vec<Range> {
        let mut stream = self
            .driver
            .metadata
            .get_metadata_delta(request.clone())
            .await
            .unwrap()
            .into_inner();
        let mut found = Vec::new();
        for _ in 0..messages_max {
            let Some(message) = stream.message().await.unwrap() else {
                break;
            };
            assert_eq!(message.volume_capacity_bytes, VOLUME.bytes);
            let count = message.block_metadata.len();
            let max = usize::try_from(request.max_results).unwrap();
            assert!(max == 0 || count <= max, "{count} ranges in a message of {max}");
            found.extend(ranges(&message.block_metadata));
        }
        found
    }

    async fn allocated(&mut self, snapshot_id: &str, starting_offset: i64) -> Result<Vec<Range>, Status> {
        let request = GetMetadataAllocatedRequest {
            snapshot_id: snapshot_id.into(),
            starting_offset,
            ..Default::default()
        };
        let mut stream = self
            .driver
            .metadata
            .get_metadata_allocated(request)
            .await?
            .into_inner();
        let (mut found, mut messages) = (Vec::new(), 0);
        while let Some(message) = stream.message().await? {
            assert_eq!(message.volume_capacity_bytes, VOLUME.bytes);
            found.extend(ranges(&message.block_metadata));
            messages += 1;
        }
        assert!(messages > 0, "also nothing is told with the layout");
        Ok(found)
    }

    async fn end(mut self) {
        for snapshot_id in ["empty", "full"] {
            self.driver.delete_snapshot(snapshot_id).await.unwrap();
        }
        self.driver.delete("v").await.unwrap();
        self.process.stop().await;
        assert_eq!(self.scratch.in_use(), (vec![], vec![]));
    }
}

fn ranges(blocks: &[csi::BlockMetadata]) -> impl Iterator<Item = Range> + '_ {
    blocks.iter().map(|block| (block.byte_offset, block.size_bytes))
}

fn end_of(range: &Range) -> i64 {
    range.0 + range.1
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_written_is_told_and_can_be_resumed_anywhere() {
    if cannot_run(
        "what_was_written_is_told_and_can_be_resumed_anywhere",
        BLOCK.tools(),
    ) {
        return;
    }
    let mut it = Backup::new().await;
    let all = it.changed(it.delta(0, 0), usize::MAX).await;
    assert!(
        all == it.written,
        "{} ranges, {} written",
        all.len(),
        it.written.len()
    );
    // Broken off again and again: what comes after the last range that arrived is the rest.
    let (mut resumed, mut from) = (Vec::new(), 0);
    loop {
        let part = it.changed(it.delta(from, 1000), 3).await;
        let Some(last) = part.last() else { break };
        from = end_of(last);
        resumed.extend(part);
    }
    assert!(resumed == all, "{} of {} resumed", resumed.len(), all.len());
    // In the middle of a block: the block is told again, no change is lost.
    let inside = it.changed(it.delta(STRIDE + 1, 1), 1).await;
    assert_eq!(inside, [(STRIDE, BLOCK_BYTES)]);

    let held = it.allocated("full", 0).await.unwrap();
    assert!(held.is_sorted_by(|one, two| end_of(one) <= two.0), "in order");
    let is_held = |block: &Range| {
        let next = held.partition_point(|range| end_of(range) <= block.0);
        held.get(next)
            .is_some_and(|range| range.0 <= block.0 && end_of(block) <= end_of(range))
    };
    assert!(it.written.iter().all(is_held), "a written block is not told");
    assert_eq!(it.allocated("empty", 0).await.unwrap(), []);
    assert_eq!(it.allocated("full", VOLUME.bytes).await.unwrap(), []);
    let beyond = it.allocated("full", VOLUME.bytes + 1).await.unwrap_err();
    assert_eq!(beyond.code(), Code::OutOfRange, "{beyond}");
    it.end().await;
}

/// Nobody keeps what a slow reader has not taken: the driver waits, and only for that reader.
#[tokio::test(flavor = "multi_thread")]
async fn a_slow_reader_holds_back_itself_alone() {
    if cannot_run("a_slow_reader_holds_back_itself_alone", BLOCK.tools()) {
        return;
    }
    let mut it = Backup::new().await;
    let address = config(it.scratch.root(), VOLUME.backend)
        .serving
        .endpoint
        .to_string();
    let channel: Channel = tonic::transport::Endpoint::from_shared(address)
        .unwrap()
        .initial_stream_window_size(WINDOW)
        .initial_connection_window_size(WINDOW)
        .connect()
        .await
        .unwrap();
    let mut slow = SnapshotMetadataClient::new(channel);
    let mut stream = slow
        .get_metadata_delta(it.delta(0, SLOW_RANGES))
        .await
        .unwrap()
        .into_inner();
    let first = stream.message().await.unwrap().unwrap();
    let mut found: Vec<_> = ranges(&first.block_metadata).collect();

    // Others come and go, in the same sizes.
    for _ in 0..3 {
        assert!(it.changed(it.delta(0, SLOW_RANGES), usize::MAX).await == it.written);
    }
    // And the first is still not done: nothing of the snapshots can be taken away from it.
    for snapshot_id in ["empty", "full"] {
        let busy = it.driver.delete_snapshot(snapshot_id).await.unwrap_err();
        assert_eq!(busy.code(), Code::Aborted, "{busy}");
    }
    while let Some(message) = stream.message().await.unwrap() {
        found.extend(ranges(&message.block_metadata));
    }
    assert!(found == it.written, "{} of {}", found.len(), it.written.len());

    // One that goes in the middle frees the driver.
    let mut stream = slow
        .get_metadata_delta(it.delta(0, SLOW_RANGES))
        .await
        .unwrap()
        .into_inner();
    stream.message().await.unwrap().unwrap();
    drop((stream, slow));
    let controller = it.driver.controller.clone();
    let look = || {
        let mut controller = controller.clone();
        async move {
            let request = csi::DeleteSnapshotRequest {
                snapshot_id: "empty".into(),
                ..Default::default()
            };
            let deleted = controller.delete_snapshot(request).await;
            deleted.map(drop).map_err(|status| status.to_string())
        }
    };
    until("the snapshot is let go of", look).await;
    it.end().await;
}
