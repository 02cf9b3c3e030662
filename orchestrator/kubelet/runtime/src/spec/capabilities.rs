//! Which capabilities a container gets. Pure.

use std::collections::BTreeSet;

use oci_spec::runtime::Capability;

use crate::container::SecurityContext;

/// All capabilities in the order of their numbers in the kernel.
const ALL: [Capability; 41] = [
    Capability::Chown,
    Capability::DacOverride,
    Capability::DacReadSearch,
    Capability::Fowner,
    Capability::Fsetid,
    Capability::Kill,
    Capability::Setgid,
    Capability::Setuid,
    Capability::Setpcap,
    Capability::LinuxImmutable,
    Capability::NetBindService,
    Capability::NetBroadcast,
    Capability::NetAdmin,
    Capability::NetRaw,
    Capability::IpcLock,
    Capability::IpcOwner,
    Capability::SysModule,
    Capability::SysRawio,
    Capability::SysChroot,
    Capability::SysPtrace,
    Capability::SysPacct,
    Capability::SysAdmin,
    Capability::SysBoot,
    Capability::SysNice,
    Capability::SysResource,
    Capability::SysTime,
    Capability::SysTtyConfig,
    Capability::Mknod,
    Capability::Lease,
    Capability::AuditWrite,
    Capability::AuditControl,
    Capability::Setfcap,
    Capability::MacOverride,
    Capability::MacAdmin,
    Capability::Syslog,
    Capability::WakeAlarm,
    Capability::BlockSuspend,
    Capability::AuditRead,
    Capability::Perfmon,
    Capability::Bpf,
    Capability::CheckpointRestore,
];

/// What a container has when its pod says nothing: what container runtimes agree on.
const DEFAULT: [Capability; 14] = [
    Capability::AuditWrite,
    Capability::Chown,
    Capability::DacOverride,
    Capability::Fowner,
    Capability::Fsetid,
    Capability::Kill,
    Capability::Mknod,
    Capability::NetBindService,
    Capability::NetRaw,
    Capability::Setfcap,
    Capability::Setgid,
    Capability::Setpcap,
    Capability::Setuid,
    Capability::SysChroot,
];

/// What this process may hand on at most.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Available {
    mask: u64,
}

impl Available {
    /// Reads `/proc/self/status`; `None` when it doesn't hold the lines.
    pub(crate) fn parse(status: &str) -> Option<Self> {
        let set = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name))?;
            u64::from_str_radix(line.trim(), 16).ok()
        };
        Some(Self {
            mask: set("CapPrm:")? & set("CapBnd:")?,
        })
    }

    /// It can hand this one on.
    pub(crate) fn has(&self, capability: Capability) -> bool {
        ALL.iter()
            .position(|known| *known == capability)
            .is_some_and(|bit| self.mask & (1 << bit) != 0)
    }
}

/// The capabilities of a container, or the first name that doesn't exist. `filters_devices` says that a cgroup keeps
/// made device nodes from being opened; without it making nodes is not among the defaults.
pub(crate) fn of_container(
    security: &SecurityContext,
    available: &Available,
    filters_devices: bool,
) -> Result<BTreeSet<String>, String> {
    let mut set: Vec<Capability> = if security.privileged {
        ALL.to_vec()
    } else {
        DEFAULT
            .into_iter()
            .filter(|one| filters_devices || *one != Capability::Mknod)
            .collect()
    };
    // ALL comes first in either list, so that single names refine it.
    if is_all(&security.capabilities_add) {
        set = ALL.to_vec();
    }
    if is_all(&security.capabilities_drop) {
        set.clear();
    }
    for name in single(&security.capabilities_add) {
        set.push(parse(name)?);
    }
    for name in single(&security.capabilities_drop) {
        let dropped = parse(name)?;
        set.retain(|one| *one != dropped);
    }
    Ok(set
        .into_iter()
        .filter(|one| available.has(*one))
        .map(|one| one.to_string())
        .collect())
}

fn is_all(names: &[String]) -> bool {
    names.iter().any(|name| name.eq_ignore_ascii_case("all"))
}

fn single(names: &[String]) -> impl Iterator<Item = &String> {
    names.iter().filter(|name| !name.eq_ignore_ascii_case("all"))
}

/// Reads a name with or without `CAP_`, in any case.
pub(crate) fn parse(name: &str) -> Result<Capability, String> {
    let upper = name.to_ascii_uppercase();
    let bare = upper.strip_prefix("CAP_").unwrap_or(&upper);
    bare.parse()
        .map_err(|_| format!("capability {name:?} does not exist"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVERYTHING: Available = Available { mask: u64::MAX };

    fn names(list: &[&str]) -> Vec<String> {
        list.iter().map(|name| (*name).to_owned()).collect()
    }

    fn security(add: &[&str], drop: &[&str]) -> SecurityContext {
        SecurityContext {
            capabilities_add: names(add),
            capabilities_drop: names(drop),
            ..SecurityContext::default()
        }
    }

    #[test]
    fn pods_add_and_drop() {
        type Names = &'static [&'static str];
        let cases: [(&str, SecurityContext, usize, Names, Names); 7] = [
            (
                "defaults",
                security(&[], &[]),
                14,
                &["CHOWN", "MKNOD"],
                &["SYS_ADMIN"],
            ),
            (
                "add",
                security(&["CAP_SYS_ADMIN", "net_admin"], &[]),
                16,
                &["SYS_ADMIN", "NET_ADMIN"],
                &[],
            ),
            ("drop", security(&[], &["CHOWN"]), 13, &[], &["CHOWN"]),
            (
                "drop all, add one",
                security(&["KILL"], &["ALL"]),
                1,
                &["KILL"],
                &[],
            ),
            ("add all", security(&["ALL"], &[]), 41, &["SYS_ADMIN"], &[]),
            (
                "add all, drop one",
                security(&["all"], &["SYS_ADMIN"]),
                40,
                &["BPF"],
                &["SYS_ADMIN"],
            ),
            (
                "privileged",
                SecurityContext {
                    privileged: true,
                    ..SecurityContext::default()
                },
                41,
                &["SYS_ADMIN"],
                &[],
            ),
        ];
        for (name, security, count, has, lacks) in cases {
            let set = of_container(&security, &EVERYTHING, true).unwrap();
            assert_eq!(set.len(), count, "{name}");
            assert!(has.iter().all(|one| set.contains(*one)), "{name}: {set:?}");
            assert!(!lacks.iter().any(|one| set.contains(*one)), "{name}: {set:?}");
        }
    }

    #[test]
    fn nodes_are_not_made_where_devices_are_not_filtered() {
        let set = of_container(&security(&[], &[]), &EVERYTHING, false).unwrap();
        assert!(!set.contains("MKNOD"));
        let asked = of_container(&security(&["MKNOD"], &[]), &EVERYTHING, false).unwrap();
        assert!(asked.contains("MKNOD"));
    }

    #[test]
    fn what_the_process_lacks_is_left_out() {
        let status = "Name:\tx\nCapPrm:\t000001fffeffffff\nCapBnd:\t000001fffeffffff\n";
        let available = Available::parse(status).unwrap();
        assert!(!available.has(Capability::SysResource));
        assert!(available.has(Capability::SysAdmin));
        let all = of_container(&security(&["ALL"], &[]), &available, true).unwrap();
        assert_eq!(all.len(), 40);
        assert!(Available::parse("Name: x").is_none());
    }

    #[test]
    fn unknown_names_are_refused() {
        let error = of_container(&security(&["FLY"], &[]), &EVERYTHING, true).unwrap_err();
        assert_eq!(error, "capability \"FLY\" does not exist");
    }
}
