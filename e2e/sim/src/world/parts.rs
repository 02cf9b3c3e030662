//! The processes: what each of them runs, over the simulated network.

use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use moorline_apiserver::ApiServer;
use moorline_runtime::lease::{Ended, Timings};
use moorline_runtime::{Informers, LeaderElection};
use moorline_sidecars::all::AllConfig;
use moorline_sidecars::{DriverConnection, SidecarMetrics};
use moorline_store::MemoryStore;
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use crate::api_wire::ApiWire;
use crate::backend::Backend;
use crate::driver::Driver;
use crate::kubelet::{self, Machine};
use crate::net::{Net, ProcId};
use crate::node::Node;
use crate::plan::Election;
use crate::users::NODES;

/// What the error begins with of a process that has to end: it is started again.
pub(super) const EXITS: &str = "exits: ";

pub(super) async fn api_server(
    store: Arc<MemoryStore>,
    pki: PathBuf,
    slot: Arc<Mutex<Option<kube::Client>>>,
) -> anyhow::Result<()> {
    let config = moorline_apiserver::Config::new(pki);
    let server = ApiServer::start(config, store, CancellationToken::new()).await?;
    *slot.lock() = Some(server.client("system:moorline", &["system:masters"]));
    server.stopped().await;
    Ok(())
}

fn informers(net: &Net, process: ProcId) -> Informers {
    Informers::new(ApiWire::client(net, process), CancellationToken::new())
}

pub(super) async fn controllers(net: Net, id: ProcId, election: Election) -> anyhow::Result<()> {
    let informers = informers(&net, id);
    let mut config = moorline_volume_controllers::Config::default();
    // Their kinds are not in the simulated world yet.
    config.snapshot.serves_groups = false;
    elected(&net, id, election, |stop| async {
        moorline_volume_controllers::run(config, informers, stop).await?;
        Ok(())
    })
    .await
}

/// Does `work` while the lease is held, as the programs do it.
async fn elected<F, Fut>(net: &Net, id: ProcId, election: Election, work: F) -> anyhow::Result<()>
where
    F: FnOnce(CancellationToken) -> Fut,
    Fut: Future<Output = anyhow::Result<()>>,
{
    let stop = CancellationToken::new();
    let name = match election {
        Election::None => return work(stop).await,
        Election::SameName => format!("{id:?}"),
        Election::NewName => format!("{id:?}-{}", net.address(id).life),
    };
    let client = ApiWire::client(net, id);
    let lock = format!("sim-{:?}", id.first()).to_lowercase();
    let timings = Timings::default();
    let election = LeaderElection::new(client, "kube-system", &lock, &name, timings);
    let mut outcome = Ok(());
    let (done, name) = (&mut outcome, &name);
    let ended = election
        .run(&stop, move |leadership| async move {
            net.trace(|| format!("LEADS {name}"));
            let token = leadership.ended().clone();
            tokio::select! {
                end = work(token.clone()) => *done = end,
                // Nothing may be written any more: dropped where it stands.
                () = token.cancelled() => {}
            }
        })
        .await;
    anyhow::ensure!(ended != Ended::Lost, "{EXITS}the lease is lost");
    outcome
}

pub(super) async fn scheduler(net: Net) -> anyhow::Result<()> {
    let informers = informers(&net, ProcId::Scheduler);
    let config = moorline_scheduler::Config::default();
    moorline_scheduler::run(config, informers, CancellationToken::new()).await?;
    Ok(())
}

pub(super) async fn node(
    net: Net,
    id: ProcId,
    name: &'static str,
    backend: Arc<Mutex<Backend>>,
) -> anyhow::Result<()> {
    Node::run(name, ApiWire::client(&net, id), backend).await
}

pub(super) async fn real_node(net: Net, id: ProcId, machine: Machine, driver: Driver) -> anyhow::Result<()> {
    // One that can't start ends, and is started again.
    let ended = kubelet::run(net, id, machine, driver).await;
    ended.map_err(|error| anyhow::anyhow!("{EXITS}{error:#}"))
}

/// The machines of this simulation, with folders of its own.
pub(super) fn machines(folder: &Path) -> Vec<Machine> {
    let root = |name: &str| folder.join(format!("machine-{}-{name}", std::process::id()));
    NODES
        .iter()
        .map(|name| Machine {
            name,
            root: root(name),
            containers: Arc::default(),
        })
        .collect()
}

pub(super) async fn sidecars(net: Net, id: ProcId, election: Election) -> anyhow::Result<()> {
    let informers = informers(&net, id);
    let from = net.address(id);
    let dialled = net.clone();
    let connection = DriverConnection::dialling("/sim/csi.sock", SidecarMetrics::default(), move || {
        let stream = dialled.dial(from, ProcId::Driver);
        async move { stream }
    });
    let config = AllConfig::new("/sim/csi.sock");
    elected(&net, id, election, |stop| async move {
        let done = moorline_sidecars::all::run_on(&connection, config, informers, stop).await;
        // Refused its very first discovery, a sidecar has nothing to do.
        done.map_err(|error| anyhow::anyhow!("{EXITS}{error}"))
    })
    .await
}
