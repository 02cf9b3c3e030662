//! The flags of the two programs of external-snapshotter.

use moorline_runtime::goflag::{Flag, Kind};

use super::{ALWAYS_FRESH, RETRY_MAX, RETRY_START};

const RESYNC: Flag = Flag::new(
    "resync-period",
    Kind::Duration,
    "15m0s",
    "Pause between two looks at everything",
)
.ignored(ALWAYS_FRESH);

/// csi-snapshotter.
pub(super) const SNAPSHOTTER: &[Flag] = &[
    RETRY_START,
    RETRY_MAX,
    RESYNC,
    Flag::new(
        "timeout",
        Kind::Duration,
        "1m0s",
        "Deadline of each call to the driver",
    ),
    Flag::new(
        "worker-threads",
        Kind::Uint,
        "10",
        "Contents worked on at once, and as many of group snapshots",
    ),
    Flag::new(
        "snapshot-name-prefix",
        Kind::Text,
        "snapshot",
        "Names of snapshots in the backend begin with it",
    ),
    Flag::new(
        "snapshot-name-uuid-length",
        Kind::Int,
        "-1",
        "Characters of the snapshot's UID in names; -1 for all",
    ),
    Flag::new(
        "groupsnapshot-name-prefix",
        Kind::Text,
        "groupsnapshot",
        "Names of group snapshots in the backend begin with it",
    ),
    Flag::new(
        "groupsnapshot-name-uuid-length",
        Kind::Int,
        "-1",
        "Characters of the group snapshot's UID in names; -1 for all",
    ),
    Flag::new(
        "extra-create-metadata",
        Kind::Bool,
        "false",
        "Tell the driver the names of snapshot and content",
    ),
    Flag::new(
        "node-deployment",
        Kind::Bool,
        "false",
        "One snapshotter on each node, for the contents that its node manages; NODE_NAME says which that is",
    ),
];

/// snapshot-controller.
pub(super) const SNAPSHOT_CONTROLLER: &[Flag] = &[
    RETRY_START,
    RETRY_MAX,
    RESYNC,
    Flag::new(
        "worker-threads",
        Kind::Uint,
        "10",
        "Snapshots worked on at once, and as many contents, group snapshots and their contents",
    ),
    Flag::new(
        "retry-crd-interval-max",
        Kind::Duration,
        "30s",
        "How long to wait for the snapshot kinds before giving up; a second at least",
    ),
    Flag::new(
        "enable-distributed-snapshotting",
        Kind::Bool,
        "false",
        "Say on each content which node's snapshotter manages it",
    ),
    Flag::new(
        "prevent-volume-mode-conversion",
        Kind::Bool,
        "true",
        "Contents remember their source's volume mode, so that a restore into another one is refused",
    ),
];
