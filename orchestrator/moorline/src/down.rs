//! `moorline down`: ends what outlives the cluster's process by design (containers), and what they hold (mounts, loop
//! devices). Level-triggered: it reads the runtime's records, the mount table and the loop devices, and may be repeated.

use std::{path::Path, process::ExitCode, time::Duration};

use anyhow::{Context as _, bail};
use moorline_container_runtime::{ContainerRuntime as _, ContainerState};
use moorline_mount::{loop_device, mount};

use crate::{args, cluster::open_runtime, privilege, state_dir::StateDir};

/// How long a container may take to end after its stop signal.
const CONTAINER_GRACE: Duration = Duration::from_secs(5);

/// What was ended.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Cleaned {
    /// Pods' sandboxes.
    pub pods: usize,
    /// Mounts.
    pub mounts: usize,
    /// Loop devices.
    pub loop_devices: usize,
}

/// Ends everything below the state directory that is not on disk.
#[expect(clippy::print_stdout, reason = "the command line's answer to its user")]
pub async fn run(args: args::Down) -> anyhow::Result<ExitCode> {
    privilege::require_root(
        "moorline down",
        "A cluster run with --no-kubelet leaves nothing running.",
    )?;
    let state = StateDir::resolve(&args.state)?;
    if !state.root().is_dir() {
        bail!("{} is no directory: there is no cluster", state.root().display());
    }
    let lock = state.lock_existing()?;
    let cleaned = clean(&state).await?;
    println!(
        "stopped {} pods, {} mounts, {} loop devices",
        cleaned.pods, cleaned.mounts, cleaned.loop_devices
    );
    if args.purge {
        check_is_state_dir(state.root())?;
        std::fs::remove_dir_all(state.root())
            .with_context(|| format!("remove {}", state.root().display()))?;
        println!("removed {}", state.root().display());
    }
    drop(lock);
    Ok(ExitCode::SUCCESS)
}

/// A wrong `--state-dir` must not cost anybody a directory of something else.
fn check_is_state_dir(root: &Path) -> anyhow::Result<()> {
    if root.join("store").is_dir() && root.join("pki").is_dir() {
        return Ok(());
    }
    bail!(
        "{} does not look like a state directory (no store/ and pki/ in it): not removed",
        root.display()
    )
}

/// Ends containers, mounts and loop devices of a state directory whose cluster is not running.
///
/// # Errors
/// When something can't be ended; everything else has been.
pub async fn clean(state: &StateDir) -> anyhow::Result<Cleaned> {
    let pods = if state.containers().is_dir() {
        stop_pods(state).await?
    } else {
        0
    };
    let state = state.clone();
    let (mounts, loop_devices) = tokio::task::spawn_blocking(move || {
        anyhow::Ok((unmount_below(state.root())?, detach_below(state.root())?))
    })
    .await
    .context("unmount")??;
    Ok(Cleaned {
        pods,
        mounts,
        loop_devices,
    })
}

async fn stop_pods(state: &StateDir) -> anyhow::Result<usize> {
    let runtime = open_runtime(state, false).await?;
    let containers = runtime.list_containers().await.context("list containers")?;
    let running = containers
        .iter()
        .filter(|container| container.state == ContainerState::Running);
    let stops = running.map(|container| runtime.stop_container(&container.id, CONTAINER_GRACE));
    for stopped in futures::future::join_all(stops).await {
        stopped.context("stop a container")?;
    }
    let sandboxes = runtime.list_pod_sandboxes().await.context("list pods")?;
    for sandbox in &sandboxes {
        runtime
            .remove_pod_sandbox(&sandbox.id)
            .await
            .with_context(|| format!("remove pod {}", sandbox.pod_name))?;
    }
    Ok(sandboxes.len())
}

/// Unmounts all below `root`, the latest mount first.
fn unmount_below(root: &Path) -> anyhow::Result<usize> {
    let unmounted =
        mount::unmount_tree(root).with_context(|| format!("unmount what is below {}", root.display()))?;
    Ok(unmounted.len())
}

fn detach_below(root: &Path) -> anyhow::Result<usize> {
    let devices = loop_device::list().context("list loop devices")?;
    let below: Vec<_> = devices
        .into_iter()
        .filter(|device| device.backing_file.starts_with(root))
        .collect();
    for device in &below {
        loop_device::detach(&device.device).with_context(|| format!("detach {}", device.device.display()))?;
    }
    Ok(below.len())
}
