//! The single checks, those of the baseline first, in the order of upstream's names for them.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::Violation;
use crate::objects::tree;

const CAPABILITIES: [&str; 13] = [
    "AUDIT_WRITE",
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "MKNOD",
    "NET_BIND_SERVICE",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
];
/// Volumes that a restricted pod may use.
const VOLUMES: [&str; 9] = [
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "image",
    "persistentVolumeClaim",
    "projected",
    "secret",
];
/// Safe settings of the kernel, with the minor version since which they count as such.
const SYSCTLS: [(&str, u32); 14] = [
    ("kernel.shm_rmid_forced", 0),
    ("net.ipv4.ip_local_port_range", 0),
    ("net.ipv4.tcp_syncookies", 0),
    ("net.ipv4.ping_group_range", 0),
    ("net.ipv4.ip_unprivileged_port_start", 0),
    ("net.ipv4.ip_local_reserved_ports", 27),
    ("net.ipv4.tcp_keepalive_time", 29),
    ("net.ipv4.tcp_fin_timeout", 29),
    ("net.ipv4.tcp_keepalive_intvl", 29),
    ("net.ipv4.tcp_keepalive_probes", 29),
    ("net.ipv4.tcp_rmem", 32),
    ("net.ipv4.tcp_wmem", 32),
    ("net.ipv4.tcp_slow_start_after_idle", 37),
    ("net.ipv4.tcp_notsent_lowat", 37),
];
const APP_ARMOR: &str = "container.apparmor.security.beta.kubernetes.io/";
const SECCOMP_POD: &str = "seccomp.security.alpha.kubernetes.io/pod";
const SECCOMP: &str = "container.seccomp.security.alpha.kubernetes.io/";

/// A pod under examination.
struct Pod<'p> {
    pod: &'p Value,
    spec: &'p Value,
    containers: Vec<&'p Value>,
    /// The minor version of the standard.
    version: u32,
}

type Found = Option<(String, String)>;

/// Runs all checks of a level.
pub(super) fn run(is_restricted: bool, version: u32, pod: &Value) -> Vec<Violation> {
    let spec = &pod["spec"];
    let lists = ["initContainers", "containers", "ephemeralContainers"];
    let pod = Pod {
        pod,
        spec,
        containers: lists.iter().flat_map(|list| tree::list(spec, &[list])).collect(),
        version,
    };
    let mut found = vec![pod.app_armor()];
    // A stricter check takes the place of the one of the baseline.
    if !(is_restricted && version >= 22) {
        found.push(pod.capabilities());
    }
    found.push(pod.host_namespaces());
    if !is_restricted {
        found.push(pod.host_paths());
    }
    found.push(pod.host_ports());
    if version >= 34 {
        found.push(pod.hosts_of_probes());
    }
    found.push(pod.privileged());
    if !(is_restricted && version >= 35) {
        found.push(pod.proc_mount(version >= 35));
    }
    found.push(pod.selinux());
    if !(is_restricted && version >= 19) {
        found.push(pod.seccomp());
    }
    found.push(pod.sysctls());
    found.push(pod.host_process());
    if is_restricted {
        pod.restricted(&mut found);
    }
    let violations = found.into_iter().flatten();
    violations
        .map(|(reason, detail)| Violation { reason, detail })
        .collect()
}

fn told(reason: &str, detail: String) -> Found {
    Some((reason.to_owned(), detail))
}

/// `container "a"`, `containers "a", "b"`.
fn named(singular: &str, names: &[String]) -> String {
    format!("{} {}", plural(singular, names.len()), quoted(names))
}

fn plural(singular: &str, count: usize) -> String {
    if count == 1 {
        singular.to_owned()
    } else {
        format!("{singular}s")
    }
}

fn quoted(names: &[String]) -> String {
    let quoted: Vec<String> = names.iter().map(|name| format!("{name:?}")).collect();
    quoted.join(", ")
}

fn listed(set: BTreeSet<String>) -> Vec<String> {
    set.into_iter().collect()
}

fn name(object: &Value) -> String {
    tree::text(object, &["name"]).to_owned()
}

fn security<'o>(object: &'o Value, path: &[&str]) -> Option<&'o Value> {
    tree::at(object, &[&["securityContext"], path].concat())
}

fn is_true(value: Option<&Value>) -> bool {
    value.and_then(Value::as_bool) == Some(true)
}

impl Pod<'_> {
    /// The names of the containers for which something holds.
    fn names(&self, is_bad: impl Fn(&Value) -> bool) -> Vec<String> {
        let bad = self.containers.iter().filter(|container| is_bad(container));
        bad.map(|container| name(container)).collect()
    }

    fn is_windows(&self) -> bool {
        self.version >= 25 && tree::text(self.spec, &["os", "name"]) == "windows"
    }

    /// In a user namespace of its own, root is nobody.
    fn has_own_users(&self) -> bool {
        self.version >= 35 && tree::at(self.spec, &["hostUsers"]) == Some(&json!(false))
    }

    fn annotations(&self) -> impl Iterator<Item = (&String, &str)> {
        let all = tree::at(self.pod, &["metadata", "annotations"]).and_then(Value::as_object);
        all.into_iter()
            .flatten()
            .map(|(key, value)| (key, value.as_str().unwrap_or_default()))
    }

    /// Pod and containers that set a value that is not allowed, and those values.
    fn setters(&self, path: &[&str], is_allowed: impl Fn(&str) -> bool) -> (Vec<String>, BTreeSet<String>) {
        let mut values = BTreeSet::new();
        let bad = |object: &Value| {
            let value = security(object, path).and_then(Value::as_str)?;
            (!is_allowed(value)).then(|| value.to_owned())
        };
        let mut setters = Vec::new();
        if let Some(value) = bad(self.spec) {
            setters.push("pod".to_owned());
            values.insert(value);
        }
        values.extend(self.containers.iter().filter_map(|container| bad(container)));
        let names = self.names(|container| bad(container).is_some());
        if !names.is_empty() {
            setters.push(named("container", &names));
        }
        (setters, values)
    }

    fn app_armor(&self) -> Found {
        let path = ["appArmorProfile", "type"];
        let (mut setters, values) =
            self.setters(&path, |kind| matches!(kind, "RuntimeDefault" | "Localhost"));
        let is_allowed =
            |profile: &str| matches!(profile, "" | "runtime/default") || profile.starts_with("localhost/");
        let noted = self
            .annotations()
            .filter(|(key, profile)| key.starts_with(APP_ARMOR) && !is_allowed(profile));
        let mut noted: Vec<String> = noted.map(|(key, profile)| format!("{key}={profile:?}")).collect();
        noted.sort();
        let mut all = listed(values);
        if !noted.is_empty() {
            setters.push(plural("annotation", noted.len()));
            all.extend(noted);
        }
        if setters.is_empty() {
            return None;
        }
        let detail = format!(
            "{} must not set AppArmor profile type to {}",
            setters.join(" and "),
            quoted(&all)
        );
        told(&plural("forbidden AppArmor profile", all.len()), detail)
    }

    fn capabilities(&self) -> Found {
        self.added(&CAPABILITIES)
            .and_then(|detail| told("non-default capabilities", detail))
    }

    /// Which containers add capabilities that are not among these.
    fn added(&self, allowed: &[&str]) -> Option<String> {
        let added = |container: &Value| -> Vec<String> {
            let list = security(container, &["capabilities", "add"]).and_then(Value::as_array);
            let list = list.into_iter().flatten().filter_map(Value::as_str);
            list.filter(|one| !allowed.contains(one))
                .map(str::to_owned)
                .collect()
        };
        let names = self.names(|container| !added(container).is_empty());
        let all: BTreeSet<String> = self
            .containers
            .iter()
            .flat_map(|container| added(container))
            .collect();
        (!names.is_empty()).then(|| {
            let names = named("container", &names);
            format!(
                "{names} must not include {} in securityContext.capabilities.add",
                quoted(&listed(all))
            )
        })
    }

    fn host_namespaces(&self) -> Found {
        let shared: Vec<String> = ["hostNetwork", "hostPID", "hostIPC"]
            .iter()
            .filter(|field| is_true(tree::at(self.spec, &[field])))
            .map(|field| format!("{field}=true"))
            .collect();
        (!shared.is_empty()).then(|| ("host namespaces".to_owned(), shared.join(", ")))
    }

    fn host_paths(&self) -> Found {
        let volumes = tree::list(self.spec, &["volumes"]).iter();
        let volumes = volumes.filter(|volume| tree::at(volume, &["hostPath"]).is_some());
        let names: Vec<String> = volumes.map(name).collect();
        (!names.is_empty()).then(|| ("hostPath volumes".to_owned(), named("volume", &names)))
    }

    fn host_ports(&self) -> Found {
        let ports = |container: &Value| -> Vec<String> {
            let ports = tree::list(container, &["ports"]).iter();
            let ports = ports.filter_map(|port| tree::at(port, &["hostPort"])?.as_i64());
            ports
                .filter(|port| *port != 0)
                .map(|port| port.to_string())
                .collect()
        };
        let names = self.names(|container| !ports(container).is_empty());
        let all: BTreeSet<String> = self
            .containers
            .iter()
            .flat_map(|container| ports(container))
            .collect();
        if names.is_empty() {
            return None;
        }
        let uses = if names.len() == 1 { "uses" } else { "use" };
        let what = plural("hostPort", all.len());
        told(
            "hostPort",
            format!(
                "{} {uses} {what} {}",
                named("container", &names),
                listed(all).join(", ")
            ),
        )
    }

    fn hosts_of_probes(&self) -> Found {
        const PLACES: [&[&str]; 5] = [
            &["livenessProbe"],
            &["readinessProbe"],
            &["startupProbe"],
            &["lifecycle", "postStart"],
            &["lifecycle", "preStop"],
        ];
        let hosts = |container: &Value| -> Vec<String> {
            let places = PLACES.iter().filter_map(|place| tree::at(container, place));
            let hosts = places.flat_map(|probe| {
                ["httpGet", "tcpSocket"].map(|kind| tree::text(probe, &[kind, "host"]).to_owned())
            });
            hosts.filter(|host| !host.is_empty()).collect()
        };
        let names: BTreeSet<String> = self
            .names(|container| !hosts(container).is_empty())
            .into_iter()
            .collect();
        let all: BTreeSet<String> = self
            .containers
            .iter()
            .flat_map(|container| hosts(container))
            .collect();
        if names.is_empty() {
            return None;
        }
        let names = listed(names);
        let uses = if names.len() == 1 { "uses" } else { "use" };
        let what = plural("probe or lifecycle host", all.len());
        let detail = format!(
            "{} {uses} {what} {}",
            named("container", &names),
            quoted(&listed(all))
        );
        told("probe or lifecycle host", detail)
    }

    fn privileged(&self) -> Found {
        let names = self.names(|container| is_true(security(container, &["privileged"])));
        let detail = || {
            format!(
                "{} must not set securityContext.privileged=true",
                named("container", &names)
            )
        };
        (!names.is_empty()).then(|| ("privileged".to_owned(), detail()))
    }

    fn proc_mount(&self, is_relaxed: bool) -> Found {
        if is_relaxed && self.has_own_users() {
            return None;
        }
        let mount = |container: &Value| {
            let found = security(container, &["procMount"]).and_then(Value::as_str);
            found.filter(|kind| *kind != "Default").map(str::to_owned)
        };
        let names = self.names(|container| mount(container).is_some());
        let all: BTreeSet<String> = self
            .containers
            .iter()
            .filter_map(|container| mount(container))
            .collect();
        if names.is_empty() {
            return None;
        }
        let names = named("container", &names);
        let detail = format!(
            "{names} must not set securityContext.procMount to {}",
            quoted(&listed(all))
        );
        told("procMount", detail)
    }

    fn selinux(&self) -> Found {
        let of = |object: &Value, field: &str| {
            security(object, &["seLinuxOptions", field])
                .and_then(Value::as_str)
                .unwrap_or_default()
                .to_owned()
        };
        let is_allowed = |kind: &str| {
            matches!(kind, "" | "container_t" | "container_init_t" | "container_kvm_t")
                || (kind == "container_engine_t" && self.version >= 31)
        };
        let is_bad = |object: &Value| {
            !is_allowed(&of(object, "type"))
                || !of(object, "user").is_empty()
                || !of(object, "role").is_empty()
        };
        let mut setters = Vec::new();
        if is_bad(self.spec) {
            setters.push("pod".to_owned());
        }
        let names = self.names(is_bad);
        if !names.is_empty() {
            setters.push(named("container", &names));
        }
        if setters.is_empty() {
            return None;
        }
        let objects = || self.containers.iter().copied().chain([self.spec]);
        let kinds: BTreeSet<String> = objects()
            .map(|one| of(one, "type"))
            .filter(|kind| !is_allowed(kind))
            .collect();
        let mut data = Vec::new();
        if !kinds.is_empty() {
            data.push(named("type", &listed(kinds)));
        }
        for field in ["user", "role"] {
            if objects().any(|one| !of(one, field).is_empty()) {
                data.push(format!("{field} may not be set"));
            }
        }
        let detail = format!(
            "{} set forbidden securityContext.seLinuxOptions: {}",
            setters.join(" and "),
            data.join("; ")
        );
        told("seLinuxOptions", detail)
    }

    fn seccomp(&self) -> Found {
        if self.version >= 19 {
            return self.seccomp_fields();
        }
        let is_allowed = |profile: &str| {
            matches!(profile, "runtime/default" | "docker/default") || profile.starts_with("localhost/")
        };
        let counts = |key: &str| {
            let container = key.strip_prefix(SECCOMP);
            key == SECCOMP_POD
                || container.is_some_and(|own| {
                    self.containers
                        .iter()
                        .any(|one| tree::text(one, &["name"]) == own)
                })
        };
        let bad = self
            .annotations()
            .filter(|(key, profile)| counts(key) && !is_allowed(profile));
        let bad: BTreeSet<String> = bad.map(|(key, profile)| format!("{key}={profile:?}")).collect();
        let detail = || {
            format!(
                "forbidden {} {}",
                plural("annotation", bad.len()),
                listed(bad.clone()).join(", ")
            )
        };
        (!bad.is_empty()).then(|| ("seccompProfile".to_owned(), detail()))
    }

    fn seccomp_fields(&self) -> Found {
        let path = ["seccompProfile", "type"];
        let (setters, values) = self.setters(&path, |kind| matches!(kind, "RuntimeDefault" | "Localhost"));
        if setters.is_empty() {
            return None;
        }
        let who = setters.join(" and ");
        let detail = format!(
            "{who} must not set securityContext.seccompProfile.type to {}",
            quoted(&listed(values))
        );
        told("seccompProfile", detail)
    }

    fn sysctls(&self) -> Found {
        let set = security(self.spec, &["sysctls"]).and_then(Value::as_array);
        let is_safe = |name: &str| {
            SYSCTLS
                .iter()
                .any(|(safe, since)| *safe == name && self.version >= *since)
        };
        let bad = set.into_iter().flatten().map(name).filter(|name| !is_safe(name));
        let bad: Vec<String> = bad.collect();
        (!bad.is_empty()).then(|| ("forbidden sysctls".to_owned(), bad.join(", ")))
    }

    fn host_process(&self) -> Found {
        let is_set = |object: &Value| is_true(security(object, &["windowsOptions", "hostProcess"]));
        let mut setters = Vec::new();
        if is_set(self.spec) {
            setters.push("pod".to_owned());
        }
        let names = self.names(is_set);
        if !names.is_empty() {
            setters.push(named("container", &names));
        }
        let detail = || {
            format!(
                "{} must not set securityContext.windowsOptions.hostProcess=true",
                setters.join(" and ")
            )
        };
        (!setters.is_empty()).then(|| ("hostProcess".to_owned(), detail()))
    }

    /// What only the restricted level asks for.
    fn restricted(&self, found: &mut Vec<Found>) {
        let version = self.version;
        if version >= 8 && !self.is_windows() {
            found.push(self.escalation());
        }
        if version >= 22 && !self.is_windows() {
            found.push(self.dropped_capabilities());
        }
        if version >= 35 {
            found.push(self.proc_mount(false));
        }
        found.push(self.volumes());
        if !self.has_own_users() {
            found.push(self.not_root());
            if version >= 23 {
                found.push(self.user_zero());
            }
        }
        if version >= 19 && !self.is_windows() {
            found.push(self.seccomp_is_set());
        }
    }

    fn escalation(&self) -> Found {
        let may =
            |container: &Value| security(container, &["allowPrivilegeEscalation"]) != Some(&json!(false));
        let names = self.names(may);
        let detail = || {
            let names = named("container", &names);
            format!("{names} must set securityContext.allowPrivilegeEscalation=false")
        };
        (!names.is_empty()).then(|| ("allowPrivilegeEscalation != false".to_owned(), detail()))
    }

    fn dropped_capabilities(&self) -> Found {
        let drops_all = |container: &Value| {
            let dropped = security(container, &["capabilities", "drop"]).and_then(Value::as_array);
            dropped.is_some_and(|dropped| dropped.contains(&json!("ALL")))
        };
        let names = self.names(|container| !drops_all(container));
        let mut details = Vec::new();
        if !names.is_empty() {
            let names = named("container", &names);
            details.push(format!(
                "{names} must set securityContext.capabilities.drop=[\"ALL\"]"
            ));
        }
        details.extend(self.added(&["NET_BIND_SERVICE"]));
        (!details.is_empty()).then(|| ("unrestricted capabilities".to_owned(), details.join("; ")))
    }

    fn volumes(&self) -> Found {
        let kind = |volume: &Value| {
            let fields = volume.as_object().into_iter().flatten();
            let mut kinds = fields.filter(|(field, value)| *field != "name" && !value.is_null());
            kinds
                .next()
                .map_or("unknown".to_owned(), |(field, _)| field.clone())
        };
        let volumes = tree::list(self.spec, &["volumes"]).iter();
        let bad: Vec<&Value> = volumes
            .filter(|volume| !VOLUMES.contains(&kind(volume).as_str()))
            .collect();
        if bad.is_empty() {
            return None;
        }
        let names: Vec<String> = bad.iter().map(|volume| name(volume)).collect();
        let kinds: BTreeSet<String> = bad.iter().map(|volume| kind(volume)).collect();
        let uses = if names.len() == 1 { "uses" } else { "use" };
        let what = plural("restricted volume type", kinds.len());
        let detail = format!(
            "{} {uses} {what} {}",
            named("volume", &names),
            quoted(&listed(kinds))
        );
        told("restricted volume types", detail)
    }

    fn not_root(&self) -> Found {
        let set = |object: &Value| security(object, &["runAsNonRoot"]).and_then(Value::as_bool);
        let of_pod = set(self.spec);
        let mut setters = Vec::new();
        if of_pod == Some(false) {
            setters.push("pod".to_owned());
        }
        let explicit = self.names(|container| set(container) == Some(false));
        if !explicit.is_empty() {
            setters.push(named("container", &explicit));
        }
        let reason = "runAsNonRoot != true";
        if !setters.is_empty() {
            return told(
                reason,
                format!(
                    "{} must not set securityContext.runAsNonRoot=false",
                    setters.join(" and ")
                ),
            );
        }
        let implicit = self.names(|container| set(container).is_none() && of_pod != Some(true));
        let detail = || {
            format!(
                "pod or {} must set securityContext.runAsNonRoot=true",
                named("container", &implicit)
            )
        };
        (!implicit.is_empty()).then(|| (reason.to_owned(), detail()))
    }

    fn user_zero(&self) -> Found {
        let is_root = |object: &Value| security(object, &["runAsUser"]) == Some(&json!(0));
        let mut setters = Vec::new();
        if is_root(self.spec) {
            setters.push("pod".to_owned());
        }
        let names = self.names(is_root);
        if !names.is_empty() {
            setters.push(named("container", &names));
        }
        let detail = || format!("{} must not set runAsUser=0", setters.join(" and "));
        (!setters.is_empty()).then(|| ("runAsUser=0".to_owned(), detail()))
    }

    fn seccomp_is_set(&self) -> Found {
        if let Some(found) = self.seccomp_fields() {
            return Some(found);
        }
        let is_set = |object: &Value| security(object, &["seccompProfile"]).is_some();
        let names = self.names(|container| !is_set(container) && !is_set(self.spec));
        let detail = || {
            let names = named("container", &names);
            format!(
                "pod or {names} must set securityContext.seccompProfile.type to \"RuntimeDefault\" or \"Localhost\""
            )
        };
        (!names.is_empty()).then(|| ("seccompProfile".to_owned(), detail()))
    }
}
