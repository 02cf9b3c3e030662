//! What is asked of a driver, over and over, by a number of clients at once, and how long each call took.

use std::{
    collections::HashMap,
    fmt, fs,
    future::Future,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::Context as _;
use moorline_proto::csi::{
    NodePublishVolumeRequest, NodeStageVolumeRequest, NodeUnpublishVolumeRequest, NodeUnstageVolumeRequest,
};
use serde::Serialize;
use tokio::task::JoinSet;

use super::client::{Abilities, Client, Endpoint, capability};
use crate::bench::{quantile, rounded};

/// Small, so that none of it is about the space.
pub(super) const VOLUME_BYTES: u64 = 1 << 20;
/// Calls that began in this time are not counted.
const WARM_UP: Duration = Duration::from_millis(300);

/// A cycle of calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(super) enum Load {
    /// Probe.
    Probe,
    /// CreateVolume and DeleteVolume of one new volume.
    CreateDelete,
    /// NodeStageVolume, NodePublishVolume and back, of a volume for each client.
    StagePublish,
    /// NodeStageVolume and NodeUnstageVolume alone.
    Stage,
    /// NodePublishVolume and NodeUnpublishVolume alone, of a staged volume.
    Publish,
}

impl Load {
    /// All of them.
    pub(super) const ALL: [Self; 5] = [
        Self::Probe,
        Self::CreateDelete,
        Self::StagePublish,
        Self::Stage,
        Self::Publish,
    ];
}

impl fmt::Display for Load {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Probe => "Probe",
            Self::CreateDelete => "Create+Delete",
            Self::StagePublish => "Stage+Publish+Unpublish+Unstage",
            Self::Stage => "Stage+Unstage",
            Self::Publish => "Publish+Unpublish",
        })
    }
}

/// How a load went.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Rate {
    /// Calls answered in a second, all clients together.
    pub(super) calls_per_second: f64,
    /// Half of all calls took at most this, in milliseconds.
    pub(super) p50_ms: f64,
    /// 99 of 100 calls took at most this, in milliseconds.
    pub(super) p99_ms: f64,
    /// How many calls that rests on.
    pub(super) calls: usize,
}

/// Who is loaded, and where its volumes may be staged and published.
#[derive(Clone, Debug)]
pub(super) struct Target {
    /// Where it listens.
    pub(super) endpoint: Endpoint,
    /// What it can do.
    pub(super) abilities: Abilities,
    /// A directory of its own.
    pub(super) paths: PathBuf,
}

/// When calls began and how long they took, in milliseconds.
#[derive(Debug, Default)]
struct Samples(Vec<(Instant, f64)>);

impl Samples {
    async fn time<T>(&mut self, call: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
        let began = Instant::now();
        let answer = call.await?;
        self.0.push((began, began.elapsed().as_secs_f64() * 1e3));
        Ok(answer)
    }
}

/// One of the clients, with a volume of its own where the load needs one.
struct Worker {
    client: Client,
    number: usize,
    made: usize,
    volume: Option<Held>,
}

/// A volume that a client stages and publishes again and again.
struct Held {
    volume_id: String,
    stage: NodeStageVolumeRequest,
    publish: NodePublishVolumeRequest,
}

/// Loads a driver for this long with so many clients.
///
/// # Errors
/// When a call fails.
pub(super) async fn run(target: &Target, load: Load, clients: usize, time: Duration) -> anyhow::Result<Rate> {
    let mut workers = Vec::new();
    for number in 0..clients {
        workers.push(Worker::prepare(target, load, number).await?);
    }
    let start = Instant::now() + WARM_UP;
    let end = start + time;
    let mut tasks = JoinSet::new();
    for mut worker in workers {
        tasks.spawn(async move {
            let mut samples = Samples::default();
            while Instant::now() < end {
                worker
                    .cycle(load, &mut samples)
                    .await
                    .with_context(|| format!("client {}", worker.number))?;
            }
            anyhow::Ok((worker, samples))
        });
    }
    let mut times = Vec::new();
    let mut finished = Vec::new();
    while let Some(ended) = tasks.join_next().await {
        let (worker, samples) = ended.context("a client panicked")??;
        finished.push(worker);
        times.extend(samples.0);
    }
    for worker in finished {
        worker.undo(target, load).await?;
    }
    Ok(rate(times, start, end))
}

fn rate(samples: Vec<(Instant, f64)>, start: Instant, end: Instant) -> Rate {
    let within = samples
        .into_iter()
        .filter(|(began, took)| *began >= start && *began + Duration::from_secs_f64(took / 1e3) <= end);
    let mut times: Vec<f64> = within.map(|(_, took)| took).collect();
    Rate {
        calls_per_second: (times.len() as f64 / (end - start).as_secs_f64()).round(),
        p50_ms: rounded(quantile(&mut times, 0.5)),
        p99_ms: rounded(quantile(&mut times, 0.99)),
        calls: times.len(),
    }
}

impl Worker {
    async fn prepare(target: &Target, load: Load, number: usize) -> anyhow::Result<Self> {
        let mut client = Client::connect(&target.endpoint).await?;
        let volume = match load {
            Load::Probe | Load::CreateDelete => None,
            Load::StagePublish | Load::Stage | Load::Publish => {
                Some(hold(&mut client, target, number).await?)
            }
        };
        if let (Load::Publish, Some(volume), true) = (load, &volume, target.abilities.stage) {
            client.stage(volume.stage.clone()).await?;
        }
        Ok(Self {
            client,
            number,
            made: 0,
            volume,
        })
    }

    async fn cycle(&mut self, load: Load, samples: &mut Samples) -> anyhow::Result<()> {
        let client = &mut self.client;
        let Some(held) = &self.volume else {
            if load == Load::Probe {
                return samples.time(client.probe()).await;
            }
            self.made += 1;
            let name = format!("bench-{}-{}", self.number, self.made);
            let volume = samples.time(client.create(name, VOLUME_BYTES)).await?;
            return samples.time(client.delete(volume.volume_id)).await;
        };
        if matches!(load, Load::StagePublish | Load::Stage) {
            samples.time(client.stage(held.stage.clone())).await?;
        }
        if matches!(load, Load::StagePublish | Load::Publish) {
            samples.time(client.publish(held.publish.clone())).await?;
            let unpublish = NodeUnpublishVolumeRequest {
                volume_id: held.volume_id.clone(),
                target_path: held.publish.target_path.clone(),
            };
            samples.time(client.unpublish(unpublish)).await?;
        }
        if matches!(load, Load::StagePublish | Load::Stage) {
            samples.time(client.unstage(held.unstage())).await?;
        }
        Ok(())
    }

    async fn undo(mut self, target: &Target, load: Load) -> anyhow::Result<()> {
        let Some(held) = self.volume else {
            return Ok(());
        };
        if load == Load::Publish && target.abilities.stage {
            self.client.unstage(held.unstage()).await?;
        }
        if target.abilities.attach {
            self.client.detach(held.volume_id.clone()).await?;
        }
        self.client.delete(held.volume_id).await
    }
}

impl Held {
    fn unstage(&self) -> NodeUnstageVolumeRequest {
        NodeUnstageVolumeRequest {
            volume_id: self.volume_id.clone(),
            staging_target_path: self.stage.staging_target_path.clone(),
        }
    }
}

/// Makes a volume and the requests for it.
async fn hold(client: &mut Client, target: &Target, number: usize) -> anyhow::Result<Held> {
    let volume = client
        .create(format!("bench-held-{number}"), VOLUME_BYTES)
        .await?;
    let publish_context = if target.abilities.attach {
        client.attach(&volume).await?
    } else {
        HashMap::new()
    };
    let staging_target_path = path(&target.paths, &format!("staging-{number}"))?;
    let parent = path(&target.paths, &format!("published-{number}"))?;
    Ok(Held {
        stage: NodeStageVolumeRequest {
            volume_id: volume.volume_id.clone(),
            publish_context: publish_context.clone(),
            staging_target_path: staging_target_path.clone(),
            volume_capability: Some(capability()),
            volume_context: volume.volume_context.clone(),
            ..NodeStageVolumeRequest::default()
        },
        publish: NodePublishVolumeRequest {
            volume_id: volume.volume_id.clone(),
            publish_context,
            staging_target_path: if target.abilities.stage {
                staging_target_path
            } else {
                String::new()
            },
            target_path: format!("{parent}/mount"),
            volume_capability: Some(capability()),
            volume_context: volume.volume_context,
            ..NodePublishVolumeRequest::default()
        },
        volume_id: volume.volume_id,
    })
}

/// A directory that the caller makes, as the specification has it.
fn path(parent: &Path, name: &str) -> anyhow::Result<String> {
    let path = parent.join(name);
    fs::create_dir_all(&path).with_context(|| format!("make {}", path.display()))?;
    let text = path.to_str().context("temporary paths are UTF-8")?;
    Ok(text.to_owned())
}

/// Makes volumes until there are `count` of the name's kind besides those in `ids`, by several clients at once.
///
/// # Errors
/// When a call fails.
pub(super) async fn populate(target: &Target, ids: &mut Vec<String>, count: usize) -> anyhow::Result<()> {
    const CLIENTS: usize = 16;
    let mut tasks = JoinSet::new();
    for number in 0..CLIENTS {
        let (endpoint, first) = (target.endpoint.clone(), ids.len());
        tasks.spawn(async move {
            let mut client = Client::connect(&endpoint).await?;
            let mut made = Vec::new();
            for at in (first + number..count).step_by(CLIENTS) {
                let volume = client.create(format!("bench-there-{at}"), VOLUME_BYTES).await?;
                made.push(volume.volume_id);
            }
            anyhow::Ok(made)
        });
    }
    while let Some(made) = tasks.join_next().await {
        ids.extend(made.context("a client panicked")??);
    }
    Ok(())
}

/// Removes volumes, by several clients at once.
///
/// # Errors
/// When a call fails.
pub(super) async fn remove(target: &Target, ids: Vec<String>) -> anyhow::Result<()> {
    const CLIENTS: usize = 16;
    let mut tasks = JoinSet::new();
    for share in ids.chunks(ids.len().div_ceil(CLIENTS).max(1)) {
        let (endpoint, share) = (target.endpoint.clone(), share.to_vec());
        tasks.spawn(async move {
            let mut client = Client::connect(&endpoint).await?;
            for id in share {
                client.delete(id).await?;
            }
            anyhow::Ok(())
        });
    }
    while let Some(ended) = tasks.join_next().await {
        ended.context("a client panicked")??;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_calls_within_the_measured_time_count() {
        let start = Instant::now() + Duration::from_secs(1);
        let end = start + Duration::from_secs(2);
        let at = |ms: u64| start + Duration::from_millis(ms);
        let samples = vec![
            (start - Duration::from_millis(1), 5.0),
            (at(0), 10.0),
            (at(1000), 20.0),
            (at(1999), 5.0),
        ];
        let expected = Rate {
            calls_per_second: 1.0,
            p50_ms: 20.0,
            p99_ms: 20.0,
            calls: 2,
        };
        assert_eq!(rate(samples, start, end), expected);
    }
}
