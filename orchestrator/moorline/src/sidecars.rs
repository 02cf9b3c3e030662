//! `moorline sidecars`: all sidecars of one driver in one process, for any Kubernetes: provisioner, attacher, resizer
//! by what the driver can do, and the registrar where a kubelet is.

use std::{path::PathBuf, process::ExitCode};

use anyhow::Context as _;
use kube::{
    Client, Config,
    config::{KubeConfigOptions, Kubeconfig},
};
use moorline_runtime::Informers;
use moorline_sidecars::{all, registrar};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{driver::CALL_TIMEOUT, signals::Signals};

/// Flags of `moorline sidecars`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The driver's socket: a path or a unix:// URL.
    #[arg(long, value_name = "ADDRESS", default_value = "/run/csi/socket")]
    csi_address: String,
    /// Kubeconfig of the cluster. Default: $KUBECONFIG, ~/.kube/config, or the pod's service account.
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// The kubelet's plugins_registry directory; given, the driver is registered there.
    #[arg(long, value_name = "DIR")]
    plugin_registration_dir: Option<PathBuf>,
    /// The driver's socket as the kubelet sees it. Default: --csi-address.
    #[arg(long, value_name = "PATH")]
    kubelet_registration_path: Option<String>,
    /// Namespace of the ConfigMaps that hold what is being asked of the driver, so that a restart finds volumes it was
    /// killed over. Must stay the same over restarts. Default: the pod's namespace, or that of the kubeconfig's context.
    #[arg(long, value_name = "NAMESPACE", env = "POD_NAMESPACE")]
    ledger_namespace: Option<String>,
}

/// Runs the sidecars until a signal ends them.
pub(crate) async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let client = connect(args.kubeconfig.as_ref()).await?;
    let stop = CancellationToken::new();
    let informers = Informers::new(client, stop.clone());
    let mut signals = Signals::new()?;
    let registering = TaskTracker::new();
    if let Some(dir) = &args.plugin_registration_dir {
        let address = args.csi_address.trim_start_matches("unix://").to_owned();
        let config = registrar::RegistrarConfig {
            csi_address: args.csi_address.clone(),
            plugin_registration_dir: dir.clone(),
            kubelet_registration_path: args.kubelet_registration_path.clone().unwrap_or(address),
            timeout: CALL_TIMEOUT,
        };
        let (stop, stop_all) = (stop.clone(), stop.clone());
        registering.spawn(async move {
            if let Err(error) = registrar::run(config, stop).await {
                tracing::error!(%error, "The driver can't be registered");
                stop_all.cancel();
            }
        });
    }
    registering.close();
    let mut config = all::AllConfig::new(args.csi_address.clone());
    config.provisioner.ledger_namespace = args.ledger_namespace.clone();
    let mut serving = Box::pin(all::run(config, informers.clone(), stop.clone()));
    let ended = tokio::select! {
        ended = &mut serving => ended,
        (signal, _) = signals.next() => {
            tracing::info!(signal, "Draining; a second signal ends at once");
            stop.cancel();
            tokio::select! {
                ended = serving => ended,
                (_, number) = signals.next() => return Ok(ExitCode::from(128 + number)),
            }
        }
    };
    stop.cancel();
    registering.wait().await;
    informers.shutdown().await;
    ended.with_context(|| format!("serve the driver at {}", args.csi_address))?;
    Ok(ExitCode::SUCCESS)
}

async fn connect(kubeconfig: Option<&PathBuf>) -> anyhow::Result<Client> {
    let config = match kubeconfig {
        Some(path) => {
            let kubeconfig =
                Kubeconfig::read_from(path).with_context(|| format!("read kubeconfig {}", path.display()))?;
            Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
                .await
                .context("use the kubeconfig")?
        }
        None => Config::infer()
            .await
            .context("find a cluster: give --kubeconfig, or set KUBECONFIG")?,
    };
    Client::try_from(config).context("connect to the cluster")
}
