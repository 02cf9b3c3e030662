//! Containers: image pull policy, probes, ports, environment, resources.

use serde_json::{Map, Value};

use super::{child, elements, existing};
use crate::object::{set_default, set_if_empty};

pub(super) fn container(container: &mut Map<String, Value>) {
    let image = container
        .get("image")
        .and_then(Value::as_str)
        .unwrap_or_default()
        .to_owned();
    set_if_empty(container, "imagePullPolicy", pull_policy(&image));
    set_if_empty(container, "terminationMessagePath", "/dev/termination-log");
    set_if_empty(container, "terminationMessagePolicy", "File");
    for port in elements(container, "ports") {
        set_if_empty(port, "protocol", "TCP");
    }
    for variable in elements(container, "env") {
        if let Some(reference) =
            existing(variable, "valueFrom").and_then(|source| existing(source, "fieldRef"))
        {
            set_if_empty(reference, "apiVersion", "v1");
        }
    }
    for name in ["livenessProbe", "readinessProbe", "startupProbe"] {
        if let Some(probe) = existing(container, name) {
            self::probe(probe);
        }
    }
    if let Some(lifecycle) = existing(container, "lifecycle") {
        for name in ["postStart", "preStop"] {
            if let Some(handler) = existing(lifecycle, name) {
                http_get(handler);
            }
        }
    }
}

/// Images without a tag or with the tag `latest` are looked for each time.
pub(super) fn pull_policy(image: &str) -> &'static str {
    let is_reference = |c: char| c.is_ascii_alphanumeric() || "._-/:@".contains(c);
    if image.is_empty() || !image.chars().all(is_reference) {
        return "IfNotPresent";
    }
    let (name, is_digest) = image
        .split_once('@')
        .map_or((image, false), |(name, _)| (name, true));
    // A colon before the last slash belongs to a port of the registry.
    let tag = name
        .rsplit('/')
        .next()
        .and_then(|last| last.split_once(':'))
        .map(|(_, tag)| tag);
    match (tag, is_digest) {
        (Some("latest"), _) | (None, false) => "Always",
        _ => "IfNotPresent",
    }
}

fn probe(probe: &mut Map<String, Value>) {
    set_if_empty(probe, "timeoutSeconds", 1);
    set_if_empty(probe, "periodSeconds", 10);
    set_if_empty(probe, "successThreshold", 1);
    set_if_empty(probe, "failureThreshold", 3);
    http_get(probe);
    if let Some(grpc) = existing(probe, "grpc") {
        set_default(grpc, "service", "");
    }
}

fn http_get(handler: &mut Map<String, Value>) {
    if let Some(http) = existing(handler, "httpGet") {
        set_if_empty(http, "path", "/");
        set_if_empty(http, "scheme", "HTTP");
    }
}

/// What is limited but not requested is requested as limited.
pub(super) fn requests(container: &mut Map<String, Value>) {
    let Some(resources) = existing(container, "resources") else {
        return;
    };
    let limits = resources
        .get("limits")
        .and_then(Value::as_object)
        .filter(|limits| !limits.is_empty())
        .cloned();
    let Some(limits) = limits else { return };
    let Some(requests) = child(resources, "requests") else {
        return;
    };
    for (name, amount) in limits {
        set_default(requests, &name, amount);
    }
}

/// On the host's network a port of a container is a port of the host.
pub(super) fn host_ports(container: &mut Map<String, Value>) {
    for port in elements(container, "ports") {
        if let Some(number) = port.get("containerPort").cloned() {
            set_if_empty(port, "hostPort", number);
        }
    }
}
