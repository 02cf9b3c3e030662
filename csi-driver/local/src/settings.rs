//! The parameters of a volume that may change while it is used: what they mean, and which volumes can have them. Pure.
//!
//! | parameter | values | on |
//! | --- | --- | --- |
//! | `directIO` | `true`, `false` | files with a loop device: bypass the pool's page cache |
//! | `discard` | `true`, `false` | filesystems on such a file: give back what is deleted |
//! | `readBytesPerSecond`, `writeBytesPerSecond`, `readIOPS`, `writeIOPS` | a number, 0: no limit | files with a loop device |

use moorline_driver_sdk::{DriverError, request::StringMap};
use moorline_mount::io_limits::{Limits, Support};

use crate::record::Content;

const DIRECT_IO: &str = "directIO";
const DISCARD: &str = "discard";
const READ_BYTES: &str = "readBytesPerSecond";
const WRITE_BYTES: &str = "writeBytesPerSecond";
const READ_IOPS: &str = "readIOPS";
const WRITE_IOPS: &str = "writeIOPS";
const KEYS: [&str; 6] = [DIRECT_IO, DISCARD, READ_BYTES, WRITE_BYTES, READ_IOPS, WRITE_IOPS];

/// What the mutable parameters of a volume say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Settings {
    /// Bypass the page cache of the pool's filesystem.
    pub(crate) direct_io: bool,
    /// `None`: as the filesystem is used to.
    pub(crate) discard: Option<bool>,
    pub(crate) limits: Limits,
}

/// What this machine can do for a volume.
#[derive(Clone, Debug)]
pub(crate) struct Abilities {
    pub(crate) limits: Support,
    /// Can the pool's filesystem be read and written without its page cache?
    pub(crate) has_direct_io: bool,
}

impl Settings {
    /// # Errors
    /// Invalid argument for unknown parameters and values, with what is possible.
    pub(crate) fn parse(parameters: &StringMap) -> Result<Self, DriverError> {
        let mut settings = Settings::default();
        for (key, value) in parameters {
            let limits = &mut settings.limits;
            match key.as_str() {
                DIRECT_IO => settings.direct_io = switch(key, value)?,
                DISCARD => settings.discard = Some(switch(key, value)?),
                READ_BYTES => limits.read_bytes_per_second = limit(key, value)?,
                WRITE_BYTES => limits.write_bytes_per_second = limit(key, value)?,
                READ_IOPS => limits.read_iops = limit(key, value)?,
                WRITE_IOPS => limits.write_iops = limit(key, value)?,
                _ => {
                    let known = KEYS.join(", ");
                    return Err(DriverError::invalid(format!(
                        "mutable parameter {key} is unknown; there are {known}"
                    )));
                }
            }
        }
        Ok(settings)
    }

    /// Can a volume with this content have them here?
    ///
    /// # Errors
    /// Invalid argument, with the way out.
    pub(crate) fn check(&self, content: Content, abilities: &Abilities) -> Result<(), DriverError> {
        if *self == Settings::default() {
            return Ok(());
        }
        if !content.is_file() {
            return Err(DriverError::invalid(format!(
                "{content} has no device that {} could act on; use a pool with backend=loop",
                KEYS.join(", ")
            )));
        }
        if self.discard.is_some() && content.filesystem().is_none() {
            return Err(DriverError::invalid(format!(
                "{DISCARD} is for filesystems: what is discarded on a block device is always given back"
            )));
        }
        if self.direct_io && !abilities.has_direct_io {
            return Err(DriverError::invalid(format!(
                "{DIRECT_IO} is not possible: the pool's filesystem can't be used without its page cache"
            )));
        }
        match &abilities.limits {
            Support::No { why } if self.limits != Limits::default() => Err(DriverError::invalid(format!(
                "limits for reads and writes are not possible on this machine: {why}"
            ))),
            Support::No { .. } | Support::V1 { .. } | Support::V2 { .. } => Ok(()),
        }
    }
}

/// The parameters after a change: what is not named stays.
pub(crate) fn changed(now: &StringMap, change: StringMap) -> StringMap {
    let mut after = now.clone();
    after.extend(change);
    after
}

fn switch(key: &str, value: &str) -> Result<bool, DriverError> {
    value
        .parse()
        .map_err(|_| DriverError::invalid(format!("mutable parameter {key} is {value:?}, not true or false")))
}

fn limit(key: &str, value: &str) -> Result<Option<u64>, DriverError> {
    let number = value.parse::<u64>().map_err(|_| {
        DriverError::invalid(format!(
            "mutable parameter {key} is {value:?}, not a number (0: no limit)"
        ))
    })?;
    Ok((number > 0).then_some(number))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(pairs: &[(&str, &str)]) -> StringMap {
        let pairs = pairs.iter();
        pairs
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect()
    }

    fn abilities(has_direct_io: bool, why_no_limits: Option<&str>) -> Abilities {
        let limits = why_no_limits.map_or_else(
            || Support::V2 {
                root: "/cgroup".into(),
            },
            |why| Support::No { why: why.to_owned() },
        );
        Abilities {
            limits,
            has_direct_io,
        }
    }

    #[test]
    fn parameters_are_read_or_refused_with_what_is_possible() {
        let limits = Limits {
            read_bytes_per_second: Some(1),
            write_bytes_per_second: Some(2),
            read_iops: Some(3),
            write_iops: None,
        };
        let all = Settings {
            direct_io: true,
            discard: Some(false),
            limits,
        };
        type Case = (
            &'static str,
            &'static [(&'static str, &'static str)],
            Result<Settings, &'static str>,
        );
        let cases: [Case; 8] = [
            ("none", &[], Ok(Settings::default())),
            (
                "all",
                &[
                    ("directIO", "true"),
                    ("discard", "false"),
                    ("readBytesPerSecond", "1"),
                    ("writeBytesPerSecond", "2"),
                    ("readIOPS", "3"),
                    ("writeIOPS", "0"),
                ],
                Ok(all),
            ),
            ("no switch", &[("directIO", "yes")], Err("true or false")),
            ("no number", &[("readIOPS", "many")], Err("not a number")),
            ("a negative number", &[("writeIOPS", "-1")], Err("not a number")),
            (
                "too large a number",
                &[("readBytesPerSecond", "18446744073709551616")],
                Err("not a number"),
            ),
            (
                "unknown",
                &[("colour", "red")],
                Err("colour is unknown; there are directIO"),
            ),
            (
                "in another case",
                &[("directio", "true")],
                Err("directio is unknown"),
            ),
        ];
        for (name, parameters, expected) in cases {
            match (Settings::parse(&map(parameters)), expected) {
                (Ok(settings), Ok(expected)) => assert_eq!(settings, expected, "{name}"),
                (Err(error), Err(expected)) => {
                    assert!(error.to_string().contains(expected), "{name}: {error}")
                }
                (got, _) => panic!("{name}: {got:?}"),
            }
        }
    }

    #[test]
    #[expect(clippy::too_many_lines, reason = "one flat table")]
    fn settings_need_something_to_act_on() {
        let direct = Settings {
            direct_io: true,
            ..Settings::default()
        };
        let discard = Settings {
            discard: Some(false),
            ..Settings::default()
        };
        let limited = Settings {
            limits: Limits {
                read_iops: Some(1),
                ..Limits::default()
            },
            ..Settings::default()
        };
        let (all, nothing) = (abilities(true, None), abilities(false, Some("no cgroup")));
        type Case<'a> = (
            &'static str,
            Settings,
            Content,
            &'a Abilities,
            Option<&'static str>,
        );
        let cases: [Case<'_>; 11] = [
            (
                "nothing, on a directory",
                Settings::default(),
                Content::Directory,
                &nothing,
                None,
            ),
            (
                "direct, on a directory",
                direct,
                Content::Directory,
                &all,
                Some("use a pool with backend=loop"),
            ),
            (
                "limits, on a subvolume",
                limited,
                Content::Subvolume,
                &all,
                Some("use a pool with backend=loop"),
            ),
            ("direct, on a filesystem", direct, Content::Ext4, &all, None),
            (
                "direct, where the pool can't",
                direct,
                Content::Ext4,
                &nothing,
                Some("page cache"),
            ),
            ("discard, on a filesystem", discard, Content::Xfs, &nothing, None),
            (
                "discard, on a device",
                discard,
                Content::Block,
                &all,
                Some("for filesystems"),
            ),
            ("limits, on a device", limited, Content::Block, &all, None),
            ("limits, on btrfs", limited, Content::Btrfs, &all, None),
            (
                "limits, where the machine can't",
                limited,
                Content::Block,
                &nothing,
                Some("no cgroup"),
            ),
            (
                "discard, on a subvolume",
                discard,
                Content::Subvolume,
                &all,
                Some("use a pool with backend=loop"),
            ),
        ];
        for (name, settings, content, abilities, expected) in cases {
            match (settings.check(content, abilities), expected) {
                (Ok(()), None) => {}
                (Err(error), Some(expected)) => {
                    assert!(error.to_string().contains(expected), "{name}: {error}")
                }
                (got, _) => panic!("{name}: {got:?}"),
            }
        }
    }

    #[test]
    fn a_change_leaves_the_rest_as_it_is() {
        let now = map(&[("directIO", "true"), ("readIOPS", "5")]);
        let after = changed(&now, map(&[("readIOPS", "0"), ("discard", "true")]));
        assert_eq!(
            after,
            map(&[("directIO", "true"), ("discard", "true"), ("readIOPS", "0")])
        );
    }
}
