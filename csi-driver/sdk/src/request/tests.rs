//! One table per request: what is refused, with which words, before a driver sees it.

use std::{collections::HashMap, fmt};

use moorline_proto::csi::{self, volume_capability as wire};

use super::*;
use crate::{DriverError, ErrorKind};

/// A name, what is changed in a request that is fine, and the words of the refusal; `None`: it stays fine.
type Case<W> = (&'static str, fn(&mut W), Option<&'static str>);

fn check<W: Clone, T: TryFrom<W, Error = DriverError> + fmt::Debug>(base: &W, cases: &[Case<W>]) {
    T::try_from(base.clone()).expect("the request as it should be");
    for (name, change, expected) in cases {
        let mut request = base.clone();
        change(&mut request);
        match (T::try_from(request), expected) {
            (Ok(_), None) => {}
            (Err(error), Some(expected)) => {
                assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{name}: {error}");
                assert!(error.to_string().contains(expected), "{name}: {error}");
            }
            (got, expected) => panic!("{name}: {got:?}, expected {expected:?}"),
        }
    }
}

/// The rows of a required string of at most 128 bytes.
macro_rules! required_text {
    ($field:ident) => {
        [
            (
                concat!("no ", stringify!($field)),
                |r| r.$field.clear(),
                Some(concat!(stringify!($field), " is missing")),
            ),
            (
                concat!("longest ", stringify!($field)),
                |r| r.$field = "x".repeat(128),
                None,
            ),
            (
                concat!("too long a ", stringify!($field)),
                |r| r.$field = "x".repeat(129),
                Some(concat!(stringify!($field), " has 129 bytes; at most 128")),
            ),
            (
                concat!("bytes count in ", stringify!($field)),
                |r| r.$field = "ß".repeat(65),
                Some(concat!(stringify!($field), " has 130 bytes")),
            ),
            (
                concat!("nul in ", stringify!($field)),
                |r| r.$field = "a\0b".into(),
                Some(concat!(stringify!($field), " has control characters")),
            ),
            (
                concat!("C1 in ", stringify!($field)),
                |r| r.$field = "a\u{85}b".into(),
                Some(concat!(stringify!($field), " has control characters")),
            ),
        ]
    };
}

/// The rows of a map of at most 4 KiB.
macro_rules! map {
    ($field:ident) => {
        [
            (
                concat!("fullest ", stringify!($field)),
                |r| r.$field = HashMap::from([("k".to_owned(), "v".repeat(4095))]),
                None,
            ),
            (
                concat!("too much in ", stringify!($field)),
                |r| r.$field = HashMap::from([("k".to_owned(), "v".repeat(4096))]),
                Some(concat!(stringify!($field), " has 4097 bytes; at most 4096")),
            ),
            (
                concat!("nul in a key of ", stringify!($field)),
                |r| r.$field = HashMap::from([("k\0".to_owned(), "v".to_owned())]),
                Some(concat!(stringify!($field), " has control characters")),
            ),
        ]
    };
}

/// The rows of an absolute path.
macro_rules! path {
    ($field:ident) => {
        [
            (
                concat!("doubled and trailing slashes in ", stringify!($field)),
                |r| r.$field = "/a//b/./".into(),
                None,
            ),
            (
                concat!("relative ", stringify!($field)),
                |r| r.$field = "a/b".into(),
                Some("is not absolute"),
            ),
            (
                concat!("upwards in ", stringify!($field)),
                |r| r.$field = "/a/../b".into(),
                Some("has a .. in it"),
            ),
            (
                concat!("root as ", stringify!($field)),
                |r| r.$field = "//".into(),
                Some("is the root directory"),
            ),
            (
                concat!("nul in ", stringify!($field)),
                |r| r.$field = "/a\0".into(),
                Some(concat!(stringify!($field), " has control characters")),
            ),
            (
                concat!("longest ", stringify!($field)),
                |r| r.$field = format!("/{}", "x".repeat(4094)),
                None,
            ),
            (
                concat!("too long a ", stringify!($field)),
                |r| r.$field = format!("/{}", "x".repeat(4095)),
                Some(concat!(stringify!($field), " has 4096 bytes; at most 4095")),
            ),
        ]
    };
}

/// The rows of a required single capability.
macro_rules! capability {
    ($field:ident) => {
        [
            (
                "no access type",
                |r| r.$field.as_mut().unwrap().access_type = None,
                Some("neither block nor mount"),
            ),
            (
                "no access mode",
                |r| r.$field.as_mut().unwrap().access_mode = None,
                Some("access_mode is missing"),
            ),
            (
                "unknown access mode",
                |r| r.$field.as_mut().unwrap().access_mode = Some(wire::AccessMode { mode: 0 }),
                Some("access_mode 0 is unknown"),
            ),
            (
                "access mode of the future",
                |r| r.$field.as_mut().unwrap().access_mode = Some(wire::AccessMode { mode: 99 }),
                Some("access_mode 99 is unknown"),
            ),
            (
                "too many mount flags",
                |r| r.$field = Some(with_flags(&["f".repeat(4000), "f".repeat(97)])),
                Some("mount_flags have 4097 bytes; at most 4096"),
            ),
            (
                "nul in a mount flag",
                |r| r.$field = Some(with_flags(&["noatime\0".to_owned()])),
                Some("mount_flags have control characters"),
            ),
            (
                "read-only and not",
                |r| r.$field = Some(with_flags(&["ro,noatime".to_owned(), "rw".to_owned()])),
                Some("both ro and rw"),
            ),
            (
                "too long a filesystem type",
                |r| {
                    r.$field = Some(mount(wire::MountVolume {
                        fs_type: "x".repeat(129),
                        ..Default::default()
                    }))
                },
                Some("fs_type has 129 bytes"),
            ),
            (
                "too long a group",
                |r| {
                    r.$field = Some(mount(wire::MountVolume {
                        volume_mount_group: "x".repeat(129),
                        ..Default::default()
                    }))
                },
                Some("volume_mount_group has 129 bytes"),
            ),
        ]
    };
}

/// The rows of a range of sizes.
macro_rules! capacity {
    () => {
        [
            (
                "empty range",
                |r| r.capacity_range = range(0, 0),
                Some("neither required_bytes nor limit_bytes"),
            ),
            (
                "negative size",
                |r| r.capacity_range = range(-1, 0),
                Some("required_bytes is negative"),
            ),
            (
                "negative limit",
                |r| r.capacity_range = range(1, -1),
                Some("limit_bytes is negative"),
            ),
            (
                "limit below the size",
                |r| r.capacity_range = range(2, 1),
                Some("less than required_bytes"),
            ),
            ("exactly one size", |r| r.capacity_range = range(2, 2), None),
            ("only a limit", |r| r.capacity_range = range(0, 2), None),
            ("largest size", |r| r.capacity_range = range(i64::MAX, 0), None),
        ]
    };
}

// Below the macros, which they use.
mod controller;
mod node;
mod snapshots;

fn mount(mount: wire::MountVolume) -> csi::VolumeCapability {
    csi::VolumeCapability {
        access_type: Some(wire::AccessType::Mount(mount)),
        access_mode: Some(wire::AccessMode {
            mode: wire::access_mode::Mode::SingleNodeWriter.into(),
        }),
    }
}

fn with_flags(flags: &[String]) -> csi::VolumeCapability {
    mount(wire::MountVolume {
        mount_flags: flags.to_vec(),
        ..Default::default()
    })
}

fn plain_mount() -> csi::VolumeCapability {
    mount(wire::MountVolume::default())
}

fn range(required_bytes: i64, limit_bytes: i64) -> Option<csi::CapacityRange> {
    Some(csi::CapacityRange {
        required_bytes,
        limit_bytes,
    })
}

fn place(segments: &[(&str, &str)]) -> csi::Topology {
    csi::Topology {
        segments: segments
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect(),
    }
}

#[test]
fn secrets_are_never_printed() {
    let request = csi::DeleteVolumeRequest {
        volume_id: "v".into(),
        secrets: HashMap::from([("password".into(), "hunter2".into())]),
    };
    assert!(!format!("{request:?}").contains("hunter2"));
    let request = DeleteVolume::try_from(request).unwrap();
    assert!(!format!("{request:?}").contains("hunter2"));
    assert_eq!(request.secrets.get("password"), Some("hunter2"));
}

#[test]
fn the_seven_access_modes_of_the_specification_are_known() {
    for number in 1..=7 {
        let mut wished = plain_mount();
        wished.access_mode = Some(wire::AccessMode { mode: number });
        let capability = VolumeCapability::parse(wished.clone()).expect("a mode of the specification");
        assert_eq!(csi::VolumeCapability::from(capability), wished, "and back again");
    }
}
