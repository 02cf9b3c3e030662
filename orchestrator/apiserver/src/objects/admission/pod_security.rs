//! The Pod Security Standards: which level a namespace asks for, and what of a pod goes beyond it. Pure.

mod checks;

use serde_json::{Map, Value};

use crate::http::Cause;
use crate::objects::tree;

const PREFIX: &str = "pod-security.kubernetes.io/";
/// The newest version that any check knows; later ones are the same.
const NEWEST: u32 = 37;

/// How much a pod may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Level {
    Privileged,
    Baseline,
    Restricted,
}

/// A level as some version of Kubernetes has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Standard {
    pub(super) level: Level,
    /// The minor version; absent: the latest.
    version: Option<u32>,
}

/// What a namespace asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Policy {
    /// Pods beyond it are refused.
    pub(super) enforce: Standard,
    /// Who writes a pod beyond it is warned.
    pub(super) warn: Standard,
    /// A pod beyond it is noted.
    pub(super) audit: Standard,
}

/// What goes beyond a standard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Violation {
    reason: String,
    detail: String,
}

impl std::fmt::Display for Standard {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let level = match self.level {
            Level::Privileged => "privileged",
            Level::Baseline => "baseline",
            Level::Restricted => "restricted",
        };
        match self.version {
            None => write!(f, "{level}:latest"),
            Some(minor) => write!(f, "{level}:v1.{minor}"),
        }
    }
}

impl Standard {
    /// Whether both are of the same version of Kubernetes.
    pub(super) fn is_of_version_of(self, other: Standard) -> bool {
        self.version == other.version
    }
}

const ANYTHING: Standard = Standard {
    level: Level::Privileged,
    version: None,
};

impl Policy {
    /// The policy of a namespace with these labels, and what is wrong with them. What can't be read is enforced as the
    /// strictest level, and neither warned of nor noted.
    pub(super) fn of(labels: Option<&Map<String, Value>>) -> (Policy, Vec<Cause>) {
        let mut causes = Vec::new();
        let is_labelled = labels.is_some_and(|labels| labels.keys().any(|key| key.starts_with(PREFIX)));
        if !is_labelled {
            let (enforce, warn, audit) = (ANYTHING, ANYTHING, ANYTHING);
            return (Policy { enforce, warn, audit }, causes);
        }
        let find = |name: &str| {
            labels
                .and_then(|labels| labels.get(&format!("{PREFIX}{name}")))?
                .as_str()
        };
        let mut read = |mode: &str, otherwise: Level| {
            let mut standard = ANYTHING;
            if let Some(text) = find(mode) {
                standard.level = level(text).unwrap_or_else(|why| {
                    causes.push(cause(mode, text, why));
                    otherwise
                });
            }
            let key = format!("{mode}-version");
            if let Some(text) = find(&key) {
                standard.version = version(text).unwrap_or_else(|why| {
                    causes.push(cause(&key, text, why));
                    None
                });
            }
            standard
        };
        let enforce = read("enforce", Level::Restricted);
        let audit = read("audit", Level::Privileged);
        let mut warn = read("warn", Level::Privileged);
        let is_enforced = find("enforce").is_some_and(|text| level(text).is_ok());
        // Who says nothing of warnings is warned of what is enforced.
        if find("warn").is_none() && is_enforced && enforce.level > warn.level {
            warn.level = enforce.level;
            if find("warn-version").is_none() {
                warn.version = enforce.version;
            }
        }
        (Policy { enforce, warn, audit }, causes)
    }

    /// Whether it asks for nothing.
    pub(super) fn allows_everything(&self) -> bool {
        [self.enforce, self.warn, self.audit]
            .iter()
            .all(|standard| standard.level == Level::Privileged)
    }
}

fn level(text: &str) -> Result<Level, &'static str> {
    match text {
        "privileged" => Ok(Level::Privileged),
        "baseline" => Ok(Level::Baseline),
        "restricted" => Ok(Level::Restricted),
        _ => Err("must be one of privileged, baseline, restricted"),
    }
}

fn version(text: &str) -> Result<Option<u32>, &'static str> {
    if text == "latest" {
        return Ok(None);
    }
    let digits = text.strip_prefix("v1.").unwrap_or_default();
    let is_number =
        digits.bytes().all(|byte| byte.is_ascii_digit()) && (digits == "0" || !digits.starts_with('0'));
    let minor = digits.parse().ok().filter(|_| is_number);
    minor.map(Some).ok_or("must be \"latest\" or \"v1.x\"")
}

fn cause(label: &str, value: &str, why: &str) -> Cause {
    Cause {
        reason: "FieldValueInvalid",
        message: format!("Invalid value: {value:?}: {why}"),
        field: format!("metadata.labels[{PREFIX}{label}]"),
    }
}

/// What of a pod goes beyond a standard; `pod` has metadata and spec, as pods and their templates do.
pub(super) fn violations(standard: Standard, pod: &Value) -> Vec<Violation> {
    match standard.level {
        Level::Privileged => Vec::new(),
        level => checks::run(
            level == Level::Restricted,
            standard.version.unwrap_or(NEWEST).min(NEWEST),
            pod,
        ),
    }
}

/// All violations with what they are about.
pub(super) fn describe(violations: &[Violation]) -> String {
    let texts = violations
        .iter()
        .map(|violation| match violation.detail.as_str() {
            "" => violation.reason.clone(),
            detail => format!("{} ({detail})", violation.reason),
        });
    texts.collect::<Vec<String>>().join(", ")
}

/// Whether a changed pod is looked at again: containers or their images are others, or annotations that count.
pub(super) fn is_significant(old: &Value, new: &Value) -> bool {
    const SECCOMP_POD: &str = "seccomp.security.alpha.kubernetes.io/pod";
    const OF_CONTAINERS: [&str; 2] = [
        "container.seccomp.security.alpha.kubernetes.io/",
        "container.apparmor.security.beta.kubernetes.io/",
    ];
    let images = |pod: &Value, list: &str| -> Vec<String> {
        let containers = tree::list(pod, &["spec", list]).iter();
        containers
            .map(|container| tree::text(container, &["image"]).to_owned())
            .collect()
    };
    let counts = |key: &str| key == SECCOMP_POD || OF_CONTAINERS.iter().any(|prefix| key.starts_with(prefix));
    let annotations = |pod: &Value| -> Vec<(String, Value)> {
        let all = tree::at(pod, &["metadata", "annotations"]).and_then(Value::as_object);
        let all = all.into_iter().flatten().filter(|(key, _)| counts(key));
        all.map(|(key, value)| (key.clone(), value.clone())).collect()
    };
    let lists = ["containers", "initContainers", "ephemeralContainers"];
    lists.iter().any(|list| images(old, list) != images(new, list)) || annotations(old) != annotations(new)
}

/// The pod template of a workload, with the metadata that it gives its pods.
pub(super) fn template<'o>(group: &str, plural: &str, object: &'o Value) -> Option<&'o Value> {
    match (group, plural) {
        ("", "podtemplates") => tree::at(object, &["template"]),
        ("", "replicationcontrollers")
        | ("apps", "daemonsets" | "deployments" | "replicasets" | "statefulsets")
        | ("batch", "jobs") => tree::at(object, &["spec", "template"]),
        ("batch", "cronjobs") => tree::at(object, &["spec", "jobTemplate", "spec", "template"]),
        _ => None,
    }
}

/// What is told when a namespace enforces more than before: which of its pods go beyond that.
pub(super) fn existing(namespace: &str, enforce: Standard, pods: &[Value]) -> Vec<String> {
    let mut found: Vec<(String, String, usize)> = Vec::new();
    for pod in pods {
        let reasons: Vec<String> = violations(enforce, pod)
            .into_iter()
            .map(|one| one.reason)
            .collect();
        if reasons.is_empty() {
            continue;
        }
        let (reason, name) = (reasons.join(", "), tree::text(pod, &["metadata", "name"]));
        match found.iter_mut().find(|(known, ..)| *known == reason) {
            Some((_, first, count)) => {
                *count += 1;
                if name < first.as_str() {
                    name.clone_into(first);
                }
            }
            None => found.push((reason, name.to_owned(), 1)),
        }
    }
    if found.is_empty() {
        return Vec::new();
    }
    let mut warnings: Vec<String> = found
        .into_iter()
        .map(|(reason, first, count)| match count {
            1 => format!("{first}: {reason}"),
            2 => format!("{first} (and 1 other pod): {reason}"),
            _ => format!("{first} (and {} other pods): {reason}", count - 1),
        })
        .collect();
    warnings.sort();
    let head = format!(
        "existing pods in namespace {namespace:?} violate the new PodSecurity enforce level {:?}",
        enforce.to_string()
    );
    warnings.insert(0, head);
    warnings
}

#[cfg(test)]
mod tests;
