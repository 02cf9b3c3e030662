//! The flags of the health monitor.

use moorline_runtime::goflag::{Flag, Kind};

use super::ALWAYS_FRESH;

/// csi-external-health-monitor-controller.
pub(super) const HEALTH_MONITOR: &[Flag] = &[
    Flag::new(
        "timeout",
        Kind::Duration,
        "15s",
        "Deadline of each call to the driver, and of a whole list of its volumes",
    ),
    Flag::new(
        "list-volumes-interval",
        Kind::Duration,
        "5m0s",
        "Between two lists of the driver's volumes, where it lists them",
    ),
    Flag::new(
        "monitor-interval",
        Kind::Duration,
        "1m0s",
        "Between two rounds over all volumes, where the driver is asked for each",
    ),
    Flag::new("worker-threads", Kind::Uint, "10", "Volumes asked for at once"),
    Flag::new(
        "enable-node-watcher",
        Kind::Bool,
        "false",
        "Tell claims whose pods are on nodes that fail, too",
    ),
    Flag::new(
        "volume-list-add-interval",
        Kind::Duration,
        "5m0s",
        "Pause between two looks at all volumes",
    )
    .ignored(ALWAYS_FRESH),
    Flag::new(
        "node-list-add-interval",
        Kind::Duration,
        "5m0s",
        "Pause between two looks at all nodes",
    )
    .ignored(ALWAYS_FRESH),
    Flag::new(
        "resync",
        Kind::Duration,
        "10m0s",
        "Pause between two looks at everything",
    )
    .ignored(ALWAYS_FRESH),
];
