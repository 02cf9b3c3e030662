//! The files a pod's containers find in `/etc`: hosts, hostname, resolv.conf. Pure but for writing them.

use std::fs;
use std::io;
use std::path::Path;

use crate::sandbox::{DnsConfig, SandboxConfig};

/// Longest host name the kernel takes.
const HOSTNAME_LIMIT: usize = 63;

/// What the machine itself has.
#[derive(Debug, Clone, Default)]
pub(crate) struct Machine {
    pub(crate) hosts: String,
    pub(crate) resolv_conf: String,
    pub(crate) hostname: String,
}

impl Machine {
    /// A missing file counts as empty.
    pub(crate) fn read() -> Self {
        let text = |path: &str| fs::read_to_string(path).unwrap_or_default();
        Self {
            hosts: text("/etc/hosts"),
            resolv_conf: text("/etc/resolv.conf"),
            hostname: text("/proc/sys/kernel/hostname").trim().to_owned(),
        }
    }
}

/// Writes the three files into the sandbox's directory.
pub(crate) fn write(dir: &Path, config: &SandboxConfig, machine: &Machine) -> io::Result<()> {
    let hostname = hostname(config, machine);
    fs::write(dir.join("hosts"), hosts(config, machine, &hostname))?;
    fs::write(dir.join("hostname"), format!("{hostname}\n"))?;
    fs::write(
        dir.join("resolv.conf"),
        config
            .dns
            .as_ref()
            .map_or(machine.resolv_conf.clone(), resolv_conf),
    )
}

fn hostname(config: &SandboxConfig, machine: &Machine) -> String {
    if config.host_network {
        return machine.hostname.clone();
    }
    let wanted = if config.hostname.is_empty() {
        &config.pod_name
    } else {
        &config.hostname
    };
    let cut: String = wanted
        .chars()
        .filter(|c| !c.is_control())
        .take(HOSTNAME_LIMIT)
        .collect();
    cut.trim_end_matches(['-', '.']).to_owned()
}

fn hosts(config: &SandboxConfig, machine: &Machine, hostname: &str) -> String {
    let mut text = machine.hosts.clone();
    if !text.is_empty() && !text.ends_with('\n') {
        text.push('\n');
    }
    if !config.host_network {
        text.push_str(&format!("127.0.0.1\t{hostname}\n"));
    }
    for alias in &config.host_aliases {
        text.push_str(&format!("{}\t{}\n", alias.ip, alias.hostnames.join("\t")));
    }
    text
}

fn resolv_conf(dns: &DnsConfig) -> String {
    let mut text = String::new();
    if !dns.searches.is_empty() {
        text.push_str(&format!("search {}\n", dns.searches.join(" ")));
    }
    for server in &dns.servers {
        text.push_str(&format!("nameserver {server}\n"));
    }
    if !dns.options.is_empty() {
        text.push_str(&format!("options {}\n", dns.options.join(" ")));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sandbox::HostAlias;

    fn machine() -> Machine {
        Machine {
            hosts: "127.0.0.1 localhost".into(),
            resolv_conf: "nameserver 9.9.9.9\n".into(),
            hostname: "node".into(),
        }
    }

    #[test]
    fn files_say_what_the_pod_asks_for() {
        let dir = tempfile::tempdir().unwrap();
        let read = |name: &str| fs::read_to_string(dir.path().join(name)).unwrap();
        let config = SandboxConfig {
            pod_name: "web-0".into(),
            host_aliases: vec![HostAlias {
                ip: "10.0.0.1".into(),
                hostnames: vec!["a".into(), "b".into()],
            }],
            dns: Some(DnsConfig {
                servers: vec!["1.1.1.1".into()],
                searches: vec!["x.y".into()],
                options: vec!["ndots:5".into()],
            }),
            ..SandboxConfig::default()
        };
        write(dir.path(), &config, &machine()).unwrap();
        assert_eq!(read("hostname"), "web-0\n");
        assert_eq!(
            read("hosts"),
            "127.0.0.1 localhost\n127.0.0.1\tweb-0\n10.0.0.1\ta\tb\n"
        );
        assert_eq!(
            read("resolv.conf"),
            "search x.y\nnameserver 1.1.1.1\noptions ndots:5\n"
        );
    }

    #[test]
    fn pod_on_the_machines_network_has_its_name() {
        let dir = tempfile::tempdir().unwrap();
        let config = SandboxConfig {
            pod_name: "p".into(),
            host_network: true,
            ..SandboxConfig::default()
        };
        write(dir.path(), &config, &machine()).unwrap();
        assert_eq!(fs::read_to_string(dir.path().join("hostname")).unwrap(), "node\n");
        assert_eq!(
            fs::read_to_string(dir.path().join("resolv.conf")).unwrap(),
            "nameserver 9.9.9.9\n"
        );
    }

    #[test]
    fn host_names_fit_the_kernel() {
        let long = format!("{}-{}", "a".repeat(62), "b".repeat(20));
        let cases = [("given", "given"), ("", "pod"), (long.as_str(), &"a".repeat(62))];
        for (asked, expected) in cases {
            let config = SandboxConfig {
                hostname: asked.into(),
                pod_name: "pod".into(),
                ..Default::default()
            };
            assert_eq!(hostname(&config, &machine()), expected, "{asked}");
        }
    }
}
