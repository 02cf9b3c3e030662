//! How long it takes to cut a snapshot of a large sparse volume on a pool whose filesystem shares blocks.

use std::{fs, io::Write as _, path::Path, time::Instant};

use anyhow::Context as _;
use moorline_proto::csi::{
    NodePublishVolumeRequest, NodeStageVolumeRequest, NodeUnpublishVolumeRequest, NodeUnstageVolumeRequest,
    Volume,
};

use super::{
    client::capability,
    report::{Better, Figure},
    subject::Subject,
};
use crate::{
    bench::{quantile, rounded},
    scratch::{PoolFilesystem, ScratchPool},
};

const VOLUME_BYTES: u64 = 10 << 30;
const POOL_BYTES: u64 = 64 << 30;
/// Written into the volume before, in files of their own, so that there are extents to share.
const FILES: usize = 64;
const FILE_BYTES: usize = 4 << 20;
const SNAPSHOTS: usize = 10;

/// Measures; nothing when the driver cuts no snapshots.
pub(super) async fn run(dir: &Path) -> anyhow::Result<Vec<Figure>> {
    let pool = ScratchPool::make_in(dir, PoolFilesystem::Xfs, POOL_BYTES, &[])?;
    let (mut subject, _) = Subject::started_on(pool, "loop").await?;
    let mut figures = Vec::new();
    if subject.target.abilities.snapshots {
        let volume = subject.client.create("large".to_owned(), VOLUME_BYTES).await?;
        mount(&mut subject, &volume).await?;
        fill(&subject.target.paths.join("target"))?;
        let mounted = cut(&mut subject, &volume.volume_id).await?;
        unmount(&mut subject, &volume).await?;
        let unmounted = cut(&mut subject, &volume.volume_id).await?;
        for (name, took) in [("mounted", mounted), ("unmounted", unmounted)] {
            let name = format!("snapshot of a 10 GiB volume ({name}) p50, ms");
            figures.push(Figure::new(&name, Better::Lower, &[Some(took)]));
        }
        subject.client.delete(volume.volume_id).await?;
    } else {
        eprintln!("skipped: snapshot: this driver has no CREATE_DELETE_SNAPSHOT");
    }
    subject.end().await?;
    Ok(figures)
}

async fn mount(subject: &mut Subject, volume: &Volume) -> anyhow::Result<()> {
    let paths = &subject.target.paths;
    let staging = paths.join("staging");
    fs::create_dir_all(&staging).with_context(|| format!("make {}", staging.display()))?;
    let stage = NodeStageVolumeRequest {
        volume_id: volume.volume_id.clone(),
        staging_target_path: staging.display().to_string(),
        volume_capability: Some(capability()),
        volume_context: volume.volume_context.clone(),
        ..NodeStageVolumeRequest::default()
    };
    let publish = NodePublishVolumeRequest {
        volume_id: volume.volume_id.clone(),
        staging_target_path: stage.staging_target_path.clone(),
        target_path: paths.join("target").display().to_string(),
        volume_capability: Some(capability()),
        volume_context: volume.volume_context.clone(),
        ..NodePublishVolumeRequest::default()
    };
    subject.client.stage(stage).await?;
    subject.client.publish(publish).await
}

async fn unmount(subject: &mut Subject, volume: &Volume) -> anyhow::Result<()> {
    let paths = &subject.target.paths;
    let unpublish = NodeUnpublishVolumeRequest {
        volume_id: volume.volume_id.clone(),
        target_path: paths.join("target").display().to_string(),
    };
    let unstage = NodeUnstageVolumeRequest {
        volume_id: volume.volume_id.clone(),
        staging_target_path: paths.join("staging").display().to_string(),
    };
    subject.client.unpublish(unpublish).await?;
    subject.client.unstage(unstage).await
}

fn fill(directory: &Path) -> anyhow::Result<()> {
    let bytes: Vec<u8> = (0..FILE_BYTES).map(|at| (at % 251) as u8).collect();
    for number in 0..FILES {
        let path = directory.join(format!("file-{number}"));
        let mut file = fs::File::create(&path).with_context(|| format!("make {}", path.display()))?;
        file.write_all(&bytes)
            .and_then(|()| file.sync_all())
            .with_context(|| format!("write {}", path.display()))?;
    }
    Ok(())
}

/// Milliseconds for a snapshot, in the middle of several.
async fn cut(subject: &mut Subject, volume_id: &str) -> anyhow::Result<f64> {
    let mut times = Vec::new();
    for number in 0..SNAPSHOTS {
        let began = Instant::now();
        let id = subject
            .client
            .snapshot(format!("cut-{number}"), volume_id.to_owned())
            .await?;
        times.push(began.elapsed().as_secs_f64() * 1e3);
        subject.client.delete_snapshot(id).await?;
    }
    Ok(rounded(quantile(&mut times, 0.5)))
}
