//! Limits for reads and writes of one block device, by the block I/O controller of cgroup v1 or v2.
//!
//! v2 limits whole subtrees but not the root, so the limit is set on every top-level group; v1 (`blkio`) limits group by
//! group, and here only the root group, which does the work of filesystems that are written back: what programs in other
//! groups read and write directly is not limited there.

use std::{
    fmt::Write as _,
    fs, io,
    path::{Path, PathBuf},
};

use crate::{MountError, mountinfo};

/// What one device may do per second; `None` is as much as it can.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Bytes read.
    pub read_bytes_per_second: Option<u64>,
    /// Bytes written.
    pub write_bytes_per_second: Option<u64>,
    /// Reads.
    pub read_iops: Option<u64>,
    /// Writes.
    pub write_iops: Option<u64>,
}

/// Where limits can be set on this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Support {
    /// cgroup v1: the root of `blkio`.
    V1 {
        /// Where it is mounted.
        root: PathBuf,
    },
    /// cgroup v2 with the `io` controller for the groups below the root.
    V2 {
        /// Where it is mounted.
        root: PathBuf,
    },
    /// Nowhere.
    No {
        /// Why not, and what to do about it.
        why: String,
    },
}

const V1_FILES: [(&str, Field); 4] = [
    ("blkio.throttle.read_bps_device", |limits| {
        &mut limits.read_bytes_per_second
    }),
    ("blkio.throttle.write_bps_device", |limits| {
        &mut limits.write_bytes_per_second
    }),
    ("blkio.throttle.read_iops_device", |limits| &mut limits.read_iops),
    ("blkio.throttle.write_iops_device", |limits| {
        &mut limits.write_iops
    }),
];
const V2_KEYS: [(&str, Field); 4] = [
    ("rbps", |limits| &mut limits.read_bytes_per_second),
    ("wbps", |limits| &mut limits.write_bytes_per_second),
    ("riops", |limits| &mut limits.read_iops),
    ("wiops", |limits| &mut limits.write_iops),
];

type Field = fn(&mut Limits) -> &mut Option<u64>;

/// Where limits can be set on this machine, by its mount table.
///
/// # Errors
/// When the mount table can't be read.
pub fn support() -> Result<Support, MountError> {
    let entries = mountinfo::read()?;
    let is_v1 = |entry: &&mountinfo::MountEntry| {
        entry.fs_type == "cgroup" && entry.super_options.split(',').any(|word| word == "blkio")
    };
    if let Some(entry) = entries.iter().find(is_v1) {
        let root = entry.mount_point.clone();
        if root.join(V1_FILES[0].0).exists() {
            return Ok(Support::V1 { root });
        }
        let why = "this kernel's blkio controller can't throttle".to_owned();
        return Ok(Support::No { why });
    }
    let Some(entry) = entries.iter().find(|entry| entry.fs_type == "cgroup2") else {
        let why = "no cgroup filesystem is mounted".to_owned();
        return Ok(Support::No { why });
    };
    let root = entry.mount_point.clone();
    let enabled = fs::read_to_string(root.join("cgroup.subtree_control")).unwrap_or_default();
    if enabled.split_whitespace().any(|controller| controller == "io") {
        return Ok(Support::V2 { root });
    }
    let file = root.join("cgroup.subtree_control");
    let why = format!("the io controller is off; write +io to {}", file.display());
    Ok(Support::No { why })
}

/// Sets the limits of a device (major and minor number of the whole device) in place of those before.
///
/// # Errors
/// [`MountError::BadOption`] for a limit of 0; `ENODEV` when there is no such device; `is_permission` when the control
/// files may not be written; as `is_unsupported` where [`support`] says no.
pub fn apply(support: &Support, device: (u32, u32), limits: &Limits) -> Result<(), MountError> {
    let mut limits = *limits;
    if V2_KEYS.iter().any(|(_, field)| *field(&mut limits) == Some(0)) {
        return Err(MountError::BadOption {
            option: "0".to_owned(),
            why: "is no I/O limit; leave it out for none",
        });
    }
    match support {
        Support::V1 { root } => V1_FILES.iter().try_for_each(|(file, field)| {
            let line = v1_line(device, *field(&mut limits));
            write(&root.join(file), &line)
        }),
        Support::V2 { root } => {
            let line = v2_line(device, &mut limits);
            groups(root)?
                .iter()
                .try_for_each(|group| match write(&group.join("io.max"), &line) {
                    // A group that has ended meanwhile.
                    Err(error) if error.is_not_found() => Ok(()),
                    result => result,
                })
        }
        Support::No { .. } => Err(unsupported()),
    }
}

/// Takes all limits of a device away. None there is fine.
///
/// # Errors
/// As [`apply`].
pub fn clear(support: &Support, device: (u32, u32)) -> Result<(), MountError> {
    apply(support, device, &Limits::default())
}

/// The limits of a device; with v2 those of the first group that has any.
///
/// # Errors
/// When the control files can't be read.
pub fn read(support: &Support, device: (u32, u32)) -> Result<Limits, MountError> {
    let text = |file: &Path| match fs::read_to_string(file) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
        result => result.map_err(|source| MountError::call("read", file, source)),
    };
    let mut limits = Limits::default();
    match support {
        Support::V1 { root } => {
            for (file, field) in V1_FILES {
                *field(&mut limits) = v1_value(&text(&root.join(file))?, device);
            }
        }
        Support::V2 { root } => {
            for group in groups(root)? {
                limits = v2_limits(&text(&group.join("io.max"))?, device);
                if limits != Limits::default() {
                    break;
                }
            }
        }
        Support::No { .. } => return Err(unsupported()),
    }
    Ok(limits)
}

fn unsupported() -> MountError {
    MountError::call(
        "limit the I/O of a device by",
        "/sys/fs/cgroup",
        rustix::io::Errno::OPNOTSUPP,
    )
}

fn write(file: &Path, line: &str) -> Result<(), MountError> {
    fs::write(file, line).map_err(|source| MountError::call("write", file, source))
}

fn groups(root: &Path) -> Result<Vec<PathBuf>, MountError> {
    let failed = |source| MountError::call("list the groups in", root, source);
    let mut found = Vec::new();
    for entry in fs::read_dir(root).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        if entry.file_type().is_ok_and(|file_type| file_type.is_dir()) {
            found.push(entry.path());
        }
    }
    Ok(found)
}

/// In v1, 0 takes a limit away.
fn v1_line((major, minor): (u32, u32), limit: Option<u64>) -> String {
    format!("{major}:{minor} {}", limit.unwrap_or(0))
}

fn v1_value(text: &str, device: (u32, u32)) -> Option<u64> {
    let mut words = line_of(text, device)?;
    words.next()?.parse().ok()
}

fn v2_line((major, minor): (u32, u32), limits: &mut Limits) -> String {
    let mut line = format!("{major}:{minor}");
    for (key, field) in V2_KEYS {
        let value = field(limits).map_or_else(|| "max".to_owned(), |limit| limit.to_string());
        write!(line, " {key}={value}").expect("a string takes everything");
    }
    line
}

fn v2_limits(text: &str, device: (u32, u32)) -> Limits {
    let mut limits = Limits::default();
    for word in line_of(text, device).into_iter().flatten() {
        for (key, field) in V2_KEYS {
            if let Some(value) = word.strip_prefix(key).and_then(|rest| rest.strip_prefix('=')) {
                *field(&mut limits) = value.parse().ok();
            }
        }
    }
    limits
}

/// The words behind the device's number.
fn line_of(text: &str, (major, minor): (u32, u32)) -> Option<impl Iterator<Item = &str>> {
    let wanted = format!("{major}:{minor}");
    text.lines().find_map(|line| {
        let mut words = line.split_whitespace();
        (words.next() == Some(&wanted)).then_some(words)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(values: [Option<u64>; 4]) -> Limits {
        Limits {
            read_bytes_per_second: values[0],
            write_bytes_per_second: values[1],
            read_iops: values[2],
            write_iops: values[3],
        }
    }

    #[test]
    fn lines_are_written_as_the_kernel_wants_them() {
        let mut some = limits([Some(1 << 20), None, None, Some(100)]);
        assert_eq!(
            v2_line((7, 3), &mut some),
            "7:3 rbps=1048576 wbps=max riops=max wiops=100"
        );
        assert_eq!(
            v2_line((7, 3), &mut Limits::default()),
            "7:3 rbps=max wbps=max riops=max wiops=max"
        );
        assert_eq!(v1_line((7, 3), Some(5)), "7:3 5");
        assert_eq!(v1_line((7, 3), None), "7:3 0");
    }

    #[test]
    fn the_devices_own_line_is_read() {
        let text = "8:16 rbps=2097152 wbps=max riops=max wiops=120\n7:30 rbps=1 wbps=1 riops=1 wiops=1\n";
        assert_eq!(
            v2_limits(text, (8, 16)),
            limits([Some(2_097_152), None, None, Some(120)])
        );
        assert_eq!(v2_limits(text, (7, 3)), Limits::default(), "7:30 is another one");
        assert_eq!(v1_value("7:30 9\n7:3 1048576\n", (7, 3)), Some(1_048_576));
        assert_eq!(v1_value("", (7, 3)), None);
    }

    #[test]
    fn a_limit_of_nothing_is_refused_before_anything_is_written() {
        let nowhere = Support::V1 {
            root: "/does/not/exist".into(),
        };
        let error = apply(&nowhere, (7, 3), &limits([None, Some(0), None, None])).unwrap_err();
        assert!(matches!(error, MountError::BadOption { .. }), "{error}");
    }

    #[test]
    fn all_top_level_groups_of_v2_are_limited() {
        let root = tempfile::tempdir().unwrap();
        for name in ["kubepods.slice", "system.slice"] {
            fs::create_dir(root.path().join(name)).unwrap();
        }
        let support = Support::V2 {
            root: root.path().to_owned(),
        };
        let wanted = limits([Some(1), Some(2), Some(3), Some(4)]);
        apply(&support, (7, 3), &wanted).unwrap();
        assert_eq!(read(&support, (7, 3)).unwrap(), wanted);
        let line = fs::read_to_string(root.path().join("system.slice/io.max")).unwrap();
        assert_eq!(line, "7:3 rbps=1 wbps=2 riops=3 wiops=4");
        clear(&support, (7, 3)).unwrap();
        assert_eq!(read(&support, (7, 3)).unwrap(), Limits::default());
    }
}
