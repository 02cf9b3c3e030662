//! The real kubelet on a machine that is not there: containers and mounts are entries in tables that survive its
//! process and die with the machine; its directories are real, below a folder of the simulation's own.

mod containers;
mod driver;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::sync::Arc;

use hyper_util::rt::TokioIo;
use moorline_kubelet::simulated::{self, GivenDriver};
use moorline_kubelet::{Config, ServingIdentity, Timings};
use moorline_runtime::Informers;
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;
use tonic::transport::Endpoint;

pub(crate) use containers::Containers;

use crate::api_wire::ApiWire;
use crate::driver::{Driver, NAME};
use crate::net::{Net, ProcId};

/// Bytes under way between a kubelet and the driver beside it.
const ROOM: usize = 1 << 16;

/// What a kubelet is started with.
#[derive(Clone)]
pub(crate) struct Machine {
    pub(crate) name: &'static str,
    pub(crate) root: PathBuf,
    pub(crate) containers: Arc<Mutex<Containers>>,
}

/// Runs until its process dies.
pub(crate) async fn run(net: Net, id: ProcId, machine: Machine, driver: Driver) -> anyhow::Result<()> {
    let stop = CancellationToken::new();
    let informers = Informers::new(ApiWire::client(&net, id), stop.clone());
    let runtime = Arc::new(containers::Runtime::new(machine.containers.clone()));
    let given = GivenDriver {
        name: NAME.to_owned(),
        node_id: machine.name.to_owned(),
        channel: channel(driver, machine.name),
    };
    simulated::stay_on_this_thread();
    simulated::run(config(&machine), informers, runtime.clone(), runtime, given, stop).await?;
    Ok(())
}

/// A connection to the driver's node service, which runs beside the kubelet.
fn channel(driver: Driver, node: &'static str) -> tonic::transport::Channel {
    let connect = tower::service_fn(move |_| {
        let (ours, theirs) = tokio::io::duplex(ROOM);
        let service = driver::serve(driver.clone(), node, theirs);
        tokio::spawn(service);
        async move { Ok::<_, std::io::Error>(TokioIo::new(ours)) }
    });
    Endpoint::from_static("http://localhost").connect_with_connector_lazy(connect)
}

fn config(machine: &Machine) -> Config {
    Config {
        node_name: machine.name.to_owned(),
        root_dir: machine.root.join("kubelet"),
        log_dir: machine.root.join("logs"),
        listen: (Ipv4Addr::LOCALHOST, 10250).into(),
        serving: ServingIdentity {
            certificate_pem: String::new(),
            key_pem: String::new(),
            client_ca_pem: String::new(),
        },
        node_ip: IpAddr::V4(Ipv4Addr::LOCALHOST),
        labels: BTreeMap::new(),
        max_pods: 500,
        version: "v1.36.0".to_owned(),
        timings: Timings::default(),
    }
}
