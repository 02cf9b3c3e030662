//! The reference driver: alone with `moorline driver`, or as the cluster's own with its sidecars.

mod check;
mod scaffold;

use std::{future::Future, path::PathBuf, pin::Pin, process::ExitCode, time::Duration};

use anyhow::Context as _;
use clap::{CommandFactory as _, Subcommand as _};
use moorline_driver_local as local;
use moorline_driver_sdk::{Endpoint, cli, null};
use moorline_proto::csi::{ListVolumesRequest, controller_client::ControllerClient};
use moorline_runtime::Informers;
use moorline_sidecars::{
    SidecarError, all,
    registrar::{self, RegistrarConfig},
};
use tokio_util::sync::CancellationToken;

use crate::{args::DriverBackend, cluster::ClusterConfig, state_dir::StateDir};

/// The reference driver's name.
pub(crate) const NAME: &str = local::DRIVER_NAME;

/// Upstream's default for calls to the driver.
pub(crate) const CALL_TIMEOUT: Duration = Duration::from_secs(10);

type Part = Pin<Box<dyn Future<Output = Result<(), anyhow::Error>> + Send>>;

/// `moorline driver`: the driver's own flags, or one of the commands.
#[derive(Debug)]
pub struct Args(Asked);

#[derive(Debug)]
enum Asked {
    /// Run the driver.
    Serve(Box<local::Args>),
    /// Do something else.
    Command(DriverCommand),
}

impl Args {
    /// The driver's flags, if the driver is to run.
    #[cfg(test)]
    pub(crate) fn serve(&self) -> Option<&local::Args> {
        match &self.0 {
            Asked::Serve(serve) => Some(serve),
            Asked::Command(_) => None,
        }
    }
}

impl clap::Args for Args {
    fn augment_args(command: clap::Command) -> clap::Command {
        DriverCommand::augment_subcommands(local::Args::augment_args(command))
            .subcommand_required(false)
            .arg_required_else_help(false)
            .args_conflicts_with_subcommands(true)
            .subcommand_negates_reqs(true)
    }

    fn augment_args_for_update(command: clap::Command) -> clap::Command {
        DriverCommand::augment_subcommands_for_update(local::Args::augment_args_for_update(command))
    }
}

// By hand: whether an optional `flatten` is there depends on the names of the groups around it.
impl clap::FromArgMatches for Args {
    fn from_arg_matches(matches: &clap::ArgMatches) -> Result<Self, clap::Error> {
        match matches.subcommand() {
            Some(_) => DriverCommand::from_arg_matches(matches).map(|command| Args(Asked::Command(command))),
            None => local::Args::from_arg_matches(matches).map(|serve| Args(Asked::Serve(Box::new(serve)))),
        }
    }

    fn update_from_arg_matches(&mut self, matches: &clap::ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

/// What `moorline driver` can do besides running the driver.
#[derive(Debug, clap::Subcommand)]
enum DriverCommand {
    /// Begin a CSI driver of your own: a project that builds, tests itself and can be deployed.
    New(scaffold::New),
    /// Look through the driver's pools for what is damaged, half-made or nobody's, and put it right on demand.
    Check(check::Check),
}

/// `moorline driver`: one of its commands, or the driver in the foreground until a signal ends it.
pub(crate) async fn run(args: Args) -> anyhow::Result<ExitCode> {
    match args.0 {
        Asked::Command(DriverCommand::New(new)) => scaffold::run(new),
        Asked::Command(DriverCommand::Check(check)) => check::run(check).await,
        Asked::Serve(serve) => serve_until_stopped(*serve).await,
    }
}

async fn serve_until_stopped(args: local::Args) -> anyhow::Result<ExitCode> {
    let config = match local::Config::try_from(args) {
        Ok(config) => config,
        Err(faults) => return refuse(&faults),
    };
    Ok(cli::until_signalled(|stop| local::run(config, stop)).await)
}

/// Says what is wrong with the flags, as for flags that can't be read at all.
fn refuse(faults: &local::ConfigError) -> anyhow::Result<ExitCode> {
    let mut command = crate::args::Args::command();
    command.build();
    let driver = command
        .find_subcommand_mut("driver")
        .context("the command line has no `driver`")?;
    let answer = driver.error(clap::error::ErrorKind::ValueValidation, faults);
    answer.print().context("say what is wrong with the flags")?;
    Ok(ExitCode::from(u8::try_from(answer.exit_code())?))
}

/// The socket of the cluster's own driver.
pub(crate) fn socket(state: &StateDir) -> PathBuf {
    state.plugin(NAME).join("csi.sock")
}

/// Starts the cluster's own driver and its registrar.
pub(crate) fn start(
    config: &ClusterConfig,
    backend: DriverBackend,
    start: impl Fn(&'static str, Part),
    stop: &CancellationToken,
) -> anyhow::Result<()> {
    let state = &config.state;
    for dir in [state.plugin(NAME), state.kubelet().join("plugins_registry")] {
        std::fs::create_dir_all(&dir).with_context(|| format!("make directory {}", dir.display()))?;
    }
    let socket = socket(state);
    let endpoint = Endpoint::Unix(socket.clone());
    let driver_stop = stop.clone();
    let driver: Part = match backend {
        DriverBackend::Null => {
            Box::pin(async move { Ok(null::run(endpoint, NAME.to_owned(), driver_stop).await?) })
        }
        DriverBackend::Dir | DriverBackend::Loop | DriverBackend::Btrfs => {
            let kind = match backend {
                DriverBackend::Btrfs => local::BackendKind::Btrfs,
                DriverBackend::Loop => local::BackendKind::Loop,
                DriverBackend::Dir | DriverBackend::Null => local::BackendKind::Dir,
            };
            let mut driver = local::Config::new(endpoint, config.node_name.clone(), state.pool(), kind);
            driver.target_root = state.kubelet();
            Box::pin(async move { Ok(Box::pin(local::run(driver, driver_stop)).await?) })
        }
    };
    start("the driver", driver);
    let address = socket.display().to_string();
    let registrar = RegistrarConfig {
        csi_address: address.clone(),
        plugin_registration_dir: state.kubelet().join("plugins_registry"),
        kubelet_registration_path: address,
        timeout: CALL_TIMEOUT,
    };
    let stop = stop.clone();
    start(
        "the registrar",
        Box::pin(async move { Ok(registrar::run(registrar, stop).await?) }),
    );
    Ok(())
}

/// The sidecars of the cluster's own driver, in this process.
pub(crate) async fn sidecars(
    config: ClusterConfig,
    informers: Informers,
    stop: CancellationToken,
) -> Result<(), SidecarError> {
    let mut all = all::AllConfig::new(socket(&config.state).display().to_string());
    // A volume is reached from its own node alone: nothing but the selected node's segment helps the driver.
    all.provisioner.strict_topology = true;
    all.provisioner.ledger_namespace = Some(String::from("kube-system"));
    all::run(all, informers, stop).await
}

/// Asks the cluster's own driver for its volumes.
pub(crate) async fn list_volumes(state: &StateDir) -> anyhow::Result<Vec<String>> {
    let address = format!("unix://{}", socket(state).display());
    let endpoint =
        tonic::transport::Endpoint::from_shared(address.clone()).context("name the driver's socket")?;
    let channel = endpoint
        .connect()
        .await
        .with_context(|| format!("connect to the driver at {address}"))?;
    let answer = ControllerClient::new(channel)
        .list_volumes(ListVolumesRequest::default())
        .await
        .context("ListVolumes")?
        .into_inner();
    Ok(answer
        .entries
        .into_iter()
        .filter_map(|entry| entry.volume)
        .map(|volume| volume.volume_id)
        .collect())
}
