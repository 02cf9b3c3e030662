//! Plays a history on a real driver, and finds out what the model says to its answers.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use moorline_driver_local::{BackendKind, Config};
use moorline_proto::csi;
use sha2::{Digest as _, Sha256};
use tokio::{task::JoinSet, time::Instant};
use tonic::{Code, Status};

use super::model::{Answer, Call, From, Made, Model, Name, Rules, explain};
use crate::{
    process::Process,
    support::{Driver, LONG, POLL_INTERVAL, Scratch, Use, config, from_snapshot, from_volume},
};

const CAPACITY_BYTES: u64 = 1 << 30;
const CONTENT_BYTES: usize = 64 << 10;

/// What becomes of a call.
#[derive(Clone, Copy, Debug)]
pub(super) enum Fate {
    Answered,
    /// Made twice at once.
    Doubled,
    /// Dropped after this time, and made again.
    GivenUp {
        milliseconds: u64,
    },
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Planned {
    pub(super) call: Call,
    pub(super) fate: Fate,
}

/// What befalls the driver.
#[derive(Clone, Copy, Debug)]
pub(super) enum Upset {
    None,
    /// Stopped as it should be, after the calls.
    Restart,
    /// Killed this long after the calls began; another one is started.
    Kill {
        milliseconds: u64,
    },
}

/// Calls that are made at the same time.
#[derive(Clone, Debug)]
pub(super) struct Batch {
    pub(super) calls: Vec<Planned>,
    pub(super) upset: Upset,
}

struct Player {
    usage: Use,
    config: Config,
    driver: Driver,
    process: Option<Process>,
    models: BTreeSet<Model>,
    written: u64,
    scratch: Scratch,
}

/// Plays the history on a new driver; why not, if it can't be explained.
pub(super) async fn play(usage: Use, history: &[Batch]) -> Result<(), String> {
    let mut player = Player::new(usage).await;
    for (number, batch) in history.iter().enumerate() {
        player
            .batch(batch)
            .await
            .map_err(|why| format!("batch {number}: {why}"))?;
        player.write();
    }
    player.end().await
}

fn volume_id(volume: Name) -> String {
    format!("volume-{volume}")
}

fn snapshot_id(snapshot: Name) -> String {
    format!("snapshot-{snapshot}")
}

/// What a workload has written as its `number`th content.
fn content(number: u64) -> Vec<u8> {
    let block = Sha256::digest(number.to_le_bytes());
    block.iter().copied().cycle().take(CONTENT_BYTES).collect()
}

/// Not the end of it: to be asked again.
fn is_open(error: &Status) -> bool {
    // What has a source comes from a broken connection, not from the driver.
    error.code() == Code::Aborted || std::error::Error::source(error).is_some()
}

/// Where one client's calls go.
#[derive(Clone)]
struct Client {
    usage: Use,
    config: Config,
    root: PathBuf,
}

impl Client {
    fn staging(&self, volume: Name) -> PathBuf {
        self.root.join(format!("staging-{volume}"))
    }

    fn target(&self, volume: Name) -> PathBuf {
        self.root.join(format!("target-{volume}"))
    }

    fn request(&self, volume: Name, units: u8, from: From) -> csi::CreateVolumeRequest {
        let usage = Use {
            bytes: self.usage.bytes * i64::from(units),
            ..self.usage
        };
        let request = usage.create(&volume_id(volume));
        match from {
            From::Nothing => request,
            From::Volume(source) => from_volume(request, &volume_id(source)),
            From::Snapshot(source) => from_snapshot(request, &snapshot_id(source)),
        }
    }

    fn units(&self, bytes: i64) -> Option<u8> {
        assert_eq!(bytes % self.usage.bytes, 0, "{bytes}");
        Some(u8::try_from(bytes / self.usage.bytes).unwrap())
    }

    async fn once(&self, driver: &mut Driver, call: Call) -> Result<Option<u8>, Status> {
        let none = |()| None;
        match call {
            Call::Create { volume, units, from } => {
                let made = driver.create(self.request(volume, units, from)).await?;
                Ok(self.units(made.capacity_bytes))
            }
            Call::Delete { volume } => driver.delete(&volume_id(volume)).await.map(none),
            Call::Expand { volume, units } => {
                let bytes = self.usage.bytes * i64::from(units);
                let (bytes, _) = driver.expand(&volume_id(volume), bytes).await?;
                Ok(self.units(bytes))
            }
            Call::Snapshot { snapshot, volume } => {
                let cut = driver
                    .snapshot(&snapshot_id(snapshot), &volume_id(volume))
                    .await?;
                Ok(self.units(cut.size_bytes))
            }
            Call::DeleteSnapshot { snapshot } => {
                driver.delete_snapshot(&snapshot_id(snapshot)).await.map(none)
            }
            Call::Stage { volume } => {
                let request = self.usage.stage(&volume_id(volume), &self.staging(volume));
                driver.stage(request).await.map(none)
            }
            Call::Publish { volume } => {
                let (staging, target) = (self.staging(volume), self.target(volume));
                let request = self.usage.publish(&volume_id(volume), &staging, &target);
                driver.publish(request).await.map(none)
            }
            Call::Unpublish { volume } => {
                let target = self.target(volume);
                driver.unpublish(&volume_id(volume), &target).await.map(none)
            }
            Call::Unstage { volume } => {
                let staging = self.staging(volume);
                driver.unstage(&volume_id(volume), &staging).await.map(none)
            }
        }
    }

    /// Asks until the answer says how it ended. Also: may an earlier try have taken place, unknown to the caller?
    async fn until_answered(&self, call: Call) -> Result<(Answer, bool), String> {
        let deadline = Instant::now() + LONG;
        let mut is_haunted = false;
        loop {
            let mut driver = Driver::connect(&self.config).await;
            let error = match self.once(&mut driver, call).await {
                Ok(units) => return Ok((Ok(units), is_haunted)),
                Err(error) if is_open(&error) => error,
                Err(error) if error.code() == Code::Internal => {
                    return Err(format!("{call:?}: {error}"));
                }
                Err(error) => return Ok((Err(error.code()), is_haunted)),
            };
            if Instant::now() > deadline {
                return Err(format!("{call:?} gets no final answer: {error}"));
            }
            // Aborted is the word for another call under way, and then nothing was done.
            is_haunted |= error.code() != Code::Aborted;
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    }

    async fn planned(self, planned: Planned) -> Result<Vec<Made>, String> {
        let call = planned.call;
        let ghost = Made { call, answer: None };
        let mut made = Vec::new();
        match planned.fate {
            Fate::Answered => {}
            Fate::Doubled => {
                let twin = self.until_answered(call);
                let (one, two) = tokio::join!(self.until_answered(call), twin);
                for (answer, is_haunted) in [one?, two?] {
                    made.push(Made {
                        call,
                        answer: Some(answer),
                    });
                    made.extend(is_haunted.then_some(ghost));
                }
                return Ok(made);
            }
            Fate::GivenUp { milliseconds } => {
                let mut driver = Driver::connect(&self.config).await;
                let time = Duration::from_millis(milliseconds);
                if tokio::time::timeout(time, self.once(&mut driver, call))
                    .await
                    .is_err()
                {
                    made.push(ghost);
                }
            }
        }
        let (answer, is_haunted) = self.until_answered(call).await?;
        if made.is_empty() {
            // What came in time was an answer nobody looked at.
            made.extend((is_haunted || matches!(planned.fate, Fate::GivenUp { .. })).then_some(ghost));
        }
        made.push(Made {
            call,
            answer: Some(answer),
        });
        Ok(made)
    }
}

impl Player {
    async fn new(usage: Use) -> Self {
        let scratch = Scratch::new();
        if usage.backend == BackendKind::Btrfs {
            scratch.btrfs_pool();
        }
        let mut config = config(scratch.root(), usage.backend);
        config.pools[0].capacity_limit_bytes = Some(CAPACITY_BYTES);
        let process = Process::start(&scratch, &config, "");
        let driver = Driver::connect(&config).await;
        let rules = Rules {
            has_staging: usage.is_loop(),
        };
        Player {
            usage,
            config,
            driver,
            process: Some(process),
            models: BTreeSet::from([Model::new(rules)]),
            written: 0,
            scratch,
        }
    }

    fn client(&self) -> Client {
        Client {
            usage: self.usage,
            config: self.config.clone(),
            root: self.scratch.root().to_owned(),
        }
    }

    async fn batch(&mut self, batch: &Batch) -> Result<(), String> {
        let mut calls = JoinSet::new();
        for planned in &batch.calls {
            calls.spawn(self.client().planned(*planned));
        }
        if let Upset::Kill { milliseconds } = batch.upset {
            tokio::time::sleep(Duration::from_millis(milliseconds)).await;
            self.process.take().unwrap().kill().await;
            self.process = Some(Process::start(&self.scratch, &self.config, ""));
        }
        let mut made = Vec::new();
        for one in calls.join_all().await {
            made.extend(one?);
        }
        if matches!(batch.upset, Upset::Restart) {
            self.process.take().unwrap().stop().await;
            self.process = Some(Process::start(&self.scratch, &self.config, ""));
        }
        if !matches!(batch.upset, Upset::None) {
            self.driver = Driver::connect(&self.config).await;
        }
        let after = explain(&self.models, &made);
        if after.is_empty() {
            return Err(format!("no order explains {made:#?} from {:#?}", self.models));
        }
        self.models = self.those_seen(after).await?;
        Ok(())
    }

    /// The states that are as the driver's lists and the mounts say.
    async fn those_seen(&mut self, models: BTreeSet<Model>) -> Result<BTreeSet<Model>, String> {
        let volumes: BTreeSet<_> = self.driver.volume_ids().await.into_iter().collect();
        let snapshots: BTreeSet<_> = self.driver.snapshots_of("").await.into_iter().collect();
        let client = self.client();
        let is_mounted = |path: &Path| moorline_mount::mount::is_mount_point(path).unwrap_or(false);
        let is_so = |model: &Model| {
            let names = |names: BTreeSet<String>, seen: &BTreeSet<String>| names == *seen;
            names(model.volumes.keys().copied().map(volume_id).collect(), &volumes)
                && names(
                    model.snapshots.keys().copied().map(snapshot_id).collect(),
                    &snapshots,
                )
                && model
                    .volumes
                    .iter()
                    .all(|(name, volume)| volume.is_published == is_mounted(&client.target(*name)))
        };
        let (those, others): (BTreeSet<_>, BTreeSet<_>) = models.into_iter().partition(is_so);
        if those.is_empty() {
            return Err(format!("{volumes:?} and {snapshots:?} are none of {others:#?}"));
        }
        Ok(those)
    }

    /// Workloads write something new into all volumes that they see.
    fn write(&mut self) {
        let client = self.client();
        let mut models: Vec<_> = std::mem::take(&mut self.models).into_iter().collect();
        let names: BTreeSet<Name> = models
            .iter()
            .flat_map(|model| model.volumes.keys().copied())
            .collect();
        for name in names {
            // All states that are left agree about who is published.
            let mut volumes = models.iter_mut().filter_map(|model| model.volumes.get_mut(&name));
            if !volumes.all(|volume| volume.is_published) {
                continue;
            }
            self.written += 1;
            fs::write(client.target(name).join("file"), content(self.written)).unwrap();
            for model in &mut models {
                if let Some(volume) = model.volumes.get_mut(&name) {
                    volume.content = self.written;
                }
            }
        }
        self.models = models.into_iter().collect();
    }

    /// Unmounts all, and compares all contents.
    async fn end(mut self) -> Result<(), String> {
        let client = self.client();
        for volume in 0..super::NAMES {
            for call in [Call::Unpublish { volume }, Call::Unstage { volume }] {
                let (answer, _) = client.until_answered(call).await?;
                assert_eq!(answer, Ok(None), "{call:?}");
            }
        }
        let in_use = self.scratch.in_use();
        if in_use != (vec![], vec![]) {
            return Err(format!("left after all was unmounted: {in_use:?}"));
        }
        let mut found = Vec::new();
        for id in self.driver.volume_ids().await {
            let data = self.data_of(&id).await;
            found.push((id, data));
        }
        for id in self.driver.snapshots_of("").await {
            let request = from_snapshot(
                Use {
                    bytes: self.usage.bytes * i64::from(super::UNITS_MAX),
                    ..self.usage
                }
                .create("looked-into"),
                &id,
            );
            self.driver
                .create(request)
                .await
                .map_err(|error| error.to_string())?;
            let data = self.data_of("looked-into").await;
            self.driver
                .delete("looked-into")
                .await
                .map_err(|error| error.to_string())?;
            found.push((id, data));
        }
        if !self.models.iter().any(|model| expected(model) == found) {
            let contents: Vec<_> = self.models.iter().map(expected).collect();
            return Err(format!("contents are {found:?}, not one of {contents:?}"));
        }
        self.remove_all().await
    }

    /// The checksum of a volume's file.
    async fn data_of(&mut self, id: &str) -> Option<Vec<u8>> {
        let (staging, target) = (self.scratch.path("staging-end"), self.scratch.path("target-end"));
        self.driver.stage(self.usage.stage(id, &staging)).await.unwrap();
        let request = self.usage.publish(id, &staging, &target);
        self.driver.publish(request).await.unwrap();
        let data = fs::read(target.join("file")).ok();
        self.driver.unpublish(id, &target).await.unwrap();
        self.driver.unstage(id, &staging).await.unwrap();
        data.map(checksum)
    }

    async fn remove_all(mut self) -> Result<(), String> {
        for id in self.driver.volume_ids().await {
            self.driver.delete(&id).await.map_err(|error| error.to_string())?;
        }
        for id in self.driver.snapshots_of("").await {
            self.driver
                .delete_snapshot(&id)
                .await
                .map_err(|error| error.to_string())?;
        }
        let request = csi::GetCapacityRequest::default();
        let answer = self.driver.controller.get_capacity(request).await.unwrap();
        let available = answer.into_inner().available_capacity;
        if available != i64::try_from(CAPACITY_BYTES).unwrap() {
            return Err(format!("{available} bytes are available after all was removed"));
        }
        self.process.take().unwrap().stop().await;
        for shelf in ["volumes", "snapshots", "groups", "frozen"] {
            let left: Vec<_> = fs::read_dir(self.scratch.path("pool").join(shelf))
                .unwrap()
                .collect();
            if !left.is_empty() {
                return Err(format!("left in {shelf}: {left:?}"));
            }
        }
        Ok(())
    }
}

fn checksum(data: impl AsRef<[u8]>) -> Vec<u8> {
    Sha256::digest(data).to_vec()
}

/// Ids and checksums that a state means.
fn expected(model: &Model) -> Vec<(String, Option<Vec<u8>>)> {
    let data = |number: u64| (number > 0).then(|| checksum(content(number)));
    let volumes = model.volumes.iter();
    let snapshots = model.snapshots.iter();
    volumes
        .map(|(name, volume)| (volume_id(*name), data(volume.content)))
        .chain(snapshots.map(|(name, snapshot)| (snapshot_id(*name), data(snapshot.content))))
        .collect()
}
