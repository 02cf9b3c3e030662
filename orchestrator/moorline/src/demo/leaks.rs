//! The proof that nothing is left: asked of the driver, the kernel's mount table, its loop devices and its processes.

use std::fs;

use anyhow::{Context as _, bail};
use moorline_mount::{loop_device, mountinfo};
use tokio::time::Instant;

use super::timeline::Timeline;
use crate::{driver, state_dir::StateDir};

/// With the cluster still up: the driver knows no volume, and no mount or loop device of one remains.
pub(super) async fn while_running(state: &StateDir, timeline: &mut Timeline) -> anyhow::Result<()> {
    timeline.chapter("What is left");
    let volumes = driver::list_volumes(state).await?;
    let mounts = mounts_below(state)?;
    let loops = loop_devices_below(state)?;
    if volumes.is_empty() && mounts.is_empty() && loops.is_empty() {
        timeline.step(
            "nothing",
            "0 volumes in the driver, 0 mounts, 0 loop devices",
            Instant::now(),
        );
        return Ok(());
    }
    bail!("left behind: volumes {volumes:?}, mounts {mounts:?}, loop devices {loops:?}")
}

/// After the cluster has stopped and was cleaned up: what the machine still holds of it.
pub(super) fn after_shutdown(state: &StateDir) -> anyhow::Result<Vec<String>> {
    let mounts = mounts_below(state)?
        .into_iter()
        .map(|mount| format!("mount {mount}"));
    let loops = loop_devices_below(state)?
        .into_iter()
        .map(|device| format!("loop device {device}"));
    let processes = processes_below(state)?
        .into_iter()
        .map(|pid| format!("process {pid}"));
    Ok(mounts.chain(loops).chain(processes).collect())
}

fn mounts_below(state: &StateDir) -> anyhow::Result<Vec<String>> {
    let table = mountinfo::read().context("read the mount table")?;
    let below = table
        .into_iter()
        .filter(|entry| entry.mount_point.starts_with(state.root()));
    Ok(below
        .map(|entry| entry.mount_point.display().to_string())
        .collect())
}

fn loop_devices_below(state: &StateDir) -> anyhow::Result<Vec<String>> {
    let devices = loop_device::list().context("list loop devices")?;
    let below = devices
        .into_iter()
        .filter(|device| device.backing_file.starts_with(state.root()));
    Ok(below.map(|device| device.device.display().to_string()).collect())
}

/// Processes other than this one that were started with a path below the state directory on their command line.
fn processes_below(state: &StateDir) -> anyhow::Result<Vec<u32>> {
    let root = state.root().to_string_lossy().into_owned();
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").context("list processes")? {
        let name = entry.context("list processes")?.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        // A process that ends meanwhile has no command line any more; that is what is asked for.
        let Ok(command_line) = fs::read(format!("/proc/{pid}/cmdline")) else {
            continue;
        };
        if pid != std::process::id() && String::from_utf8_lossy(&command_line).contains(&root) {
            found.push(pid);
        }
    }
    Ok(found)
}
