//! A container's limits and device rules as values of cgroup files. Pure.

use crate::container::Resources;

/// Which kind of hierarchy a setting is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Version {
    V1,
    V2,
}

/// One value for one file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Setting {
    pub(crate) version: Version,
    pub(crate) controller: &'static str,
    pub(crate) file: &'static str,
    pub(crate) value: String,
}

fn v1(controller: &'static str, file: &'static str, value: impl ToString) -> Setting {
    Setting {
        version: Version::V1,
        controller,
        file,
        value: value.to_string(),
    }
}

fn v2(controller: &'static str, file: &'static str, value: impl ToString) -> Setting {
    Setting {
        version: Version::V2,
        controller,
        file,
        value: value.to_string(),
    }
}

const CPU_PERIOD_DEFAULT_US: u64 = 100_000;

/// Settings for both versions; only those of the machine's are written.
pub(crate) fn settings(resources: &Resources) -> Vec<Setting> {
    let mut all = Vec::new();
    if let Some(shares) = resources.cpu_shares {
        let shares = shares.clamp(2, 262_144);
        all.push(v1("cpu", "cpu.shares", shares));
        all.push(v2("cpu", "cpu.weight", cpu_weight(shares)));
    }
    if let Some(quota) = resources.cpu_quota_us.filter(|quota| *quota > 0) {
        let period = resources
            .cpu_period_us
            .filter(|period| *period > 0)
            .unwrap_or(CPU_PERIOD_DEFAULT_US);
        all.push(v1("cpu", "cpu.cfs_period_us", period));
        all.push(v1("cpu", "cpu.cfs_quota_us", quota));
        all.push(v2("cpu", "cpu.max", format!("{quota} {period}")));
    }
    if let Some(bytes) = resources.memory_limit_bytes.filter(|bytes| *bytes > 0) {
        all.push(v1("memory", "memory.limit_in_bytes", bytes));
        all.push(v2("memory", "memory.max", bytes));
    }
    if let Some(pids) = resources.pids_limit.filter(|pids| *pids > 0) {
        all.push(v1("pids", "pids.max", pids));
        all.push(v2("pids", "pids.max", pids));
    }
    all
}

/// Shares run from 2 to 262144, weights from 1 to 10000; the ends and the order are kept.
fn cpu_weight(shares: u64) -> u64 {
    1 + (shares.saturating_sub(2) * 9999) / 262_142
}

/// A device that may be used: kind `b` or `c`, numbers, letters out of `rwm`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DeviceRule {
    pub(crate) kind: char,
    pub(crate) major: u64,
    pub(crate) minor: u64,
    pub(crate) permissions: String,
}

/// Device filter of version 1: nothing but making nodes, the harmless devices, terminals, and `allowed`.
/// Version 2 would need a BPF program; there `MKNOD` is left out of the default capabilities instead.
pub(crate) fn device_settings(allowed: &[DeviceRule]) -> Vec<Setting> {
    const ALWAYS: [&str; 11] = [
        "c *:* m",
        "b *:* m",
        "c 1:3 rwm",   // null
        "c 1:5 rwm",   // zero
        "c 1:7 rwm",   // full
        "c 1:8 rwm",   // random
        "c 1:9 rwm",   // urandom
        "c 5:0 rwm",   // tty
        "c 5:1 rwm",   // console
        "c 5:2 rwm",   // ptmx
        "c 136:* rwm", // pts
    ];
    let mut all = vec![v1("devices", "devices.deny", "a")];
    all.extend(ALWAYS.map(|rule| v1("devices", "devices.allow", rule)));
    all.extend(allowed.iter().map(|rule| {
        let DeviceRule {
            kind,
            major,
            minor,
            permissions,
        } = rule;
        v1(
            "devices",
            "devices.allow",
            format!("{kind} {major}:{minor} {permissions}"),
        )
    }));
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_become_files_of_both_versions() {
        let none = Resources::default;
        type Case = (&'static str, Resources, Vec<(&'static str, &'static str)>);
        let cases: Vec<Case> = vec![
            ("nothing asked", none(), vec![]),
            (
                "shares",
                Resources {
                    cpu_shares: Some(1024),
                    ..none()
                },
                vec![("cpu.shares", "1024"), ("cpu.weight", "39")],
            ),
            (
                "shares below the least",
                Resources {
                    cpu_shares: Some(0),
                    ..none()
                },
                vec![("cpu.shares", "2"), ("cpu.weight", "1")],
            ),
            (
                "quota without period",
                Resources {
                    cpu_quota_us: Some(50_000),
                    ..none()
                },
                vec![
                    ("cpu.cfs_period_us", "100000"),
                    ("cpu.cfs_quota_us", "50000"),
                    ("cpu.max", "50000 100000"),
                ],
            ),
            (
                "no quota",
                Resources {
                    cpu_quota_us: Some(-1),
                    cpu_period_us: Some(9),
                    ..none()
                },
                vec![],
            ),
            (
                "memory and pids",
                Resources {
                    memory_limit_bytes: Some(1 << 20),
                    pids_limit: Some(64),
                    ..none()
                },
                vec![
                    ("memory.limit_in_bytes", "1048576"),
                    ("memory.max", "1048576"),
                    ("pids.max", "64"),
                    ("pids.max", "64"),
                ],
            ),
        ];
        for (name, resources, expected) in cases {
            let found = settings(&resources);
            let found: Vec<(&str, &str)> = found
                .iter()
                .map(|setting| (setting.file, setting.value.as_str()))
                .collect();
            assert_eq!(found, expected, "{name}");
        }
    }

    #[test]
    fn weights_keep_the_ends_and_the_order() {
        assert_eq!((cpu_weight(2), cpu_weight(262_144)), (1, 10_000));
        assert!(cpu_weight(512) < cpu_weight(1024));
    }

    #[test]
    fn devices_are_denied_first_and_then_allowed_one_by_one() {
        let rules = device_settings(&[DeviceRule {
            kind: 'b',
            major: 7,
            minor: 3,
            permissions: "rw".into(),
        }]);
        assert_eq!((rules[0].file, rules[0].value.as_str()), ("devices.deny", "a"));
        let last = rules.last().unwrap();
        assert_eq!((last.file, last.value.as_str()), ("devices.allow", "b 7:3 rw"));
        assert!(
            rules
                .iter()
                .all(|rule| rule.version == Version::V1 && rule.controller == "devices")
        );
    }
}
