//! `moorline up`: a cluster in the foreground until a signal ends it.

use std::{process::ExitCode, time::Duration};

use anyhow::{Context as _, bail};
use tokio::time::Instant;

use crate::{
    args,
    cluster::{Cluster, ClusterConfig},
    privilege,
    signals::Signals,
    state_dir::StateDir,
};

/// How long the cluster may take to get ready.
const READY_TIMEOUT: Duration = Duration::from_secs(120);

/// Runs the cluster. Exit code 0 after an orderly drain; 128 + signal number when a second signal cut it short.
pub async fn run(args: args::Up) -> anyhow::Result<ExitCode> {
    let started = Instant::now();
    if !(args.no_kubelet && args.no_driver) {
        privilege::require_root(
            "moorline up",
            "Without root, add --no-kubelet --no-driver to run the API server, the controllers and the scheduler.",
        )?;
    }
    if args.no_kubelet && !args.no_driver {
        bail!("--no-kubelet leaves the reference driver without a kubelet to register with: add --no-driver");
    }
    let grace = Duration::from_secs(args.shutdown_grace_period);
    let config = config(&args)?;
    let mut signals = Signals::new()?;
    let cluster = tokio::select! {
        cluster = Cluster::start(config) => cluster?,
        (signal, number) = signals.next() => {
            tracing::warn!(signal, "Stopped before the cluster was up");
            return Ok(ExitCode::from(128 + number));
        }
    };
    let outcome = tokio::select! {
        outcome = serve(&cluster, started) => outcome,
        (signal, _) = signals.next() => {
            tracing::info!(signal, "Draining; a second signal ends at once");
            Ok(())
        }
    };
    tokio::select! {
        stopped = cluster.shutdown(grace) => stopped.and(outcome).map(|()| ExitCode::SUCCESS),
        (signal, number) = signals.next() => {
            tracing::warn!(signal, "Ended at once; the next start goes on from what is on disk");
            Ok(ExitCode::from(128 + number))
        }
    }
}

fn config(args: &args::Up) -> anyhow::Result<ClusterConfig> {
    let node_name = match &args.node_name {
        Some(name) => name.clone(),
        None => host_name()?,
    };
    check_node_name(&node_name)?;
    Ok(ClusterConfig {
        state: StateDir::resolve(&args.state)?,
        listen: args.listen,
        node_name,
        driver: (!args.no_driver).then_some(args.driver_backend),
        kubelet: !args.no_kubelet,
        controllers: !args.no_controllers,
        host_image: args.host_image,
        snapshots: !args.no_snapshots,
        compaction_interval: Duration::from_secs(args.compaction_interval),
    })
}

/// The host's name as a Kubernetes name.
fn host_name() -> anyhow::Result<String> {
    let name = nix::unistd::gethostname().context("ask for the host's name")?;
    Ok(name.to_string_lossy().to_lowercase())
}

fn check_node_name(name: &str) -> anyhow::Result<()> {
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '.';
    let edge = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    if name.len() > 253
        || !name.chars().all(allowed)
        || !edge(name.chars().next())
        || !edge(name.chars().last())
    {
        bail!(
            "node name {name:?} is no DNS subdomain (lower case letters, digits, '-' and '.', at most 253): choose one with \
             --node-name"
        );
    }
    Ok(())
}

/// Waits until the cluster is ready, says so, and then until a part of it ends by itself, which is a failure.
async fn serve(cluster: &Cluster, started: Instant) -> anyhow::Result<()> {
    cluster.ready(READY_TIMEOUT).await?;
    announce(cluster, started.elapsed());
    cluster.failed().await
}

#[expect(clippy::print_stdout, reason = "the command line's answer to its user")]
fn announce(cluster: &Cluster, took: Duration) {
    let kubeconfig = cluster.kubeconfig_path();
    let kubeconfig = kubeconfig.display();
    println!("ready in {:.3} s", took.as_secs_f64());
    println!("  API server  https://{}", cluster.local_addr());
    println!("  kubeconfig  {kubeconfig}");
    println!("  try         kubectl --kubeconfig {kubeconfig} get nodes,storageclasses");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn node_names_are_dns_subdomains() {
        for good in ["n1", "host.example", "a-b"] {
            check_node_name(good).unwrap();
        }
        for bad in ["", "-a", "a-", "A", "a_b", "a/b", &"a".repeat(254)] {
            assert!(check_node_name(bad).is_err(), "{bad}");
        }
    }
}
