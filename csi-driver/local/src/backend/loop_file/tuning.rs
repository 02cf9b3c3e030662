//! Makes a volume's loop devices and filesystem be as its settings say, whatever they are now.

use moorline_mount::{
    io_limits::{self, Limits, Support},
    loop_device, mount, mountinfo,
};

use super::devices;
use crate::{
    backend::{BackendError, Files},
    settings::Settings,
};

const DISCARD: &str = "discard";
const NO_DISCARD: &str = "nodiscard";

/// The word for `-o` by which a filesystem discards, or does not.
pub(super) fn discard_option(discard: bool) -> &'static str {
    if discard { DISCARD } else { NO_DISCARD }
}

/// Nothing attached is fine: then staging does it.
pub(super) fn tune(files: Files<'_>, settings: &Settings) -> Result<(), BackendError> {
    let devices = devices::devices(files)?;
    if devices.is_empty() {
        return Ok(());
    }
    let support = io_limits::support()?;
    for device in &devices {
        if loop_device::is_direct_io(device)? != settings.direct_io {
            loop_device::set_direct_io(device, settings.direct_io)?;
        }
        limit(&support, device.number()?, &settings.limits)?;
    }
    if let Some(discard) = settings.discard {
        // One mount of it is enough: the option is the filesystem's. The kernel doesn't say when it changes, so that a table
        // which is followed would be no help.
        let entries = mountinfo::read()?;
        if let Some(entry) = devices::filesystem_mounts_of(&devices, &entries)?.first() {
            let mut words = entry.super_options.split(',');
            let discards = words.any(|word| word == DISCARD || word.starts_with("discard="));
            if discards != discard {
                mount::reconfigure(&entry.mount_point, &[discard_option(discard)])?;
            }
        }
    }
    Ok(())
}

/// The device's number may have been another file's before, with limits of its own.
fn limit(support: &Support, number: (u32, u32), limits: &Limits) -> Result<(), BackendError> {
    match support {
        Support::No { why } if *limits != Limits::default() => Err(BackendError::NotOffered {
            what: format!("limits for reads and writes are not possible on this machine: {why}"),
        }),
        Support::No { .. } => Ok(()),
        Support::V1 { .. } | Support::V2 { .. } => {
            if io_limits::read(support, number)? != *limits {
                io_limits::apply(support, number, limits)?;
            }
            Ok(())
        }
    }
}

/// The numbers of the devices whose limits go when they are detached.
pub(super) fn numbers(files: Files<'_>) -> Result<Vec<(u32, u32)>, BackendError> {
    let devices = devices::devices(files)?;
    Ok(devices
        .iter()
        .map(moorline_mount::loop_device::LoopDevice::number)
        .collect::<Result<_, _>>()?)
}

/// A detached device's number keeps no limits for whoever gets it next.
pub(super) fn forget(numbers: &[(u32, u32)]) -> Result<(), BackendError> {
    let support = io_limits::support()?;
    numbers
        .iter()
        .try_for_each(|number| limit(&support, *number, &Limits::default()))
}
