//! Who is measured: our driver in a process of its own on a pool of its own, or a peer that runs already.

use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::Context as _;

use super::{
    Peer,
    client::{Client, Endpoint},
    load::{self, Target},
};
use crate::{bench::mib, process, scratch::ScratchPool};

/// How long a driver may take to start and to end.
const LIMIT: Duration = Duration::from_secs(30);
/// How often a driver that is starting is tried; far less than it takes.
const TRY_EVERY: Duration = Duration::from_micros(200);

/// A driver under measurement.
pub(super) struct Subject {
    pub(super) name: &'static str,
    pub(super) target: Target,
    pub(super) client: Client,
    /// The ids of the volumes that were made for the benchmark and still exist.
    pub(super) volumes: Vec<String>,
    pid: Option<u32>,
    part: Option<process::Part>,
    scratch: ScratchPool,
}

impl Subject {
    /// Our driver, ready.
    pub(super) async fn ours(dir: &Path, backend: &str) -> anyhow::Result<Self> {
        Ok(Self::started(dir, backend).await?.0)
    }

    /// Our driver, and the time from its exec until it had answered Probe.
    pub(super) async fn started(dir: &Path, backend: &str) -> anyhow::Result<(Self, Duration)> {
        let scratch = ScratchPool::plain(dir)?;
        Self::started_on(scratch, backend).await
    }

    /// Our driver on this pool.
    pub(super) async fn started_on(scratch: ScratchPool, backend: &str) -> anyhow::Result<(Self, Duration)> {
        let socket = scratch.root().join("csi.sock");
        let (program, first) = program();
        let args = [
            "--node-id=n1".to_owned(),
            format!("--endpoint=unix://{}", socket.display()),
            format!("--pool-dir={}", scratch.path().join("volumes-of-bench").display()),
            format!("--backend={backend}"),
        ];
        let log = scratch.root().join("driver.log");
        let began = Instant::now();
        let args: Vec<String> = first.into_iter().chain(args).collect();
        let part = process::Part::start_program(&program, &args, &[], &log);
        let endpoint = Endpoint::Unix(socket);
        let client = first_probe(&endpoint, began).await.with_context(|| {
            let log = std::fs::read_to_string(&log).unwrap_or_default();
            format!("start the driver; its log: {log}")
        })?;
        let took = began.elapsed();
        let pid = Some(part.pid());
        let subject = Self::new("moorline", endpoint, client, pid, Some(part), scratch).await?;
        Ok((subject, took))
    }

    /// A driver that runs already.
    pub(super) async fn peer(peer: &Peer) -> anyhow::Result<Self> {
        let client = Client::connect(&peer.endpoint).await?;
        let scratch = ScratchPool::plain(&std::env::temp_dir())?;
        Self::new("peer", peer.endpoint.clone(), client, peer.pid, None, scratch).await
    }

    async fn new(
        name: &'static str,
        endpoint: Endpoint,
        mut client: Client,
        pid: Option<u32>,
        part: Option<process::Part>,
        scratch: ScratchPool,
    ) -> anyhow::Result<Self> {
        let target = Target {
            endpoint,
            abilities: client.abilities().await?,
            paths: scratch.root().join("paths"),
        };
        Ok(Self {
            name,
            target,
            client,
            volumes: Vec::new(),
            pid,
            part,
            scratch,
        })
    }

    /// Resident memory now.
    pub(super) fn rss_mib(&self) -> anyhow::Result<Option<f64>> {
        let usage = self.pid.map(process::usage).transpose()?;
        Ok(usage.map(|usage| mib(usage.rss_bytes)))
    }

    /// Makes volumes until there are `count`.
    pub(super) async fn populate(&mut self, count: usize) -> anyhow::Result<()> {
        load::populate(&self.target, &mut self.volumes, count)
            .await
            .with_context(|| format!("make {count} volumes in {}", self.name))
    }

    /// Removes what a peer would be left with, ends our own driver, and cleans up.
    pub(super) async fn end(self) -> anyhow::Result<()> {
        match self.part {
            // Its pool goes as a whole.
            Some(part) => part.terminate(LIMIT)?,
            None => load::remove(&self.target, self.volumes).await?,
        }
        self.scratch.remove()
    }
}

/// The driver as a program of its own, if `MOORLINE_DRIVER_BIN` names it, or `moorline driver`.
fn program() -> (PathBuf, Option<String>) {
    match std::env::var_os("MOORLINE_DRIVER_BIN") {
        Some(program) => (program.into(), None),
        None => (process::binary(), Some("driver".to_owned())),
    }
}

/// Connects and probes until it is answered.
async fn first_probe(endpoint: &Endpoint, began: Instant) -> anyhow::Result<Client> {
    loop {
        let tried = async {
            let mut client = Client::connect(endpoint).await?;
            client.probe().await?;
            anyhow::Ok(client)
        };
        match tried.await {
            Ok(client) => return Ok(client),
            Err(error) if began.elapsed() > LIMIT => return Err(error),
            Err(_) => tokio::time::sleep(TRY_EVERY).await,
        }
    }
}
