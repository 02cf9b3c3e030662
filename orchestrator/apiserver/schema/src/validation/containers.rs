//! Containers: names, images, ports, environment, mounts.

use serde_json::Value;

use super::faults::Faults;
use super::pods::VolumeNames;
use super::{probes, resources, security, services, sources};
use crate::names;
use crate::object::{at, list, text};
use crate::place::Place;

pub(super) const PULL_POLICIES: [&str; 3] = ["Always", "IfNotPresent", "Never"];
const SPEC: Place<'static> = Place::top("spec");
const ENV_FIELDS: [&str; 9] = [
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
];

/// All fields of a pod that can be named somewhere.
const POD_FIELDS: [&str; 16] = [
    "metadata.annotations",
    "metadata.labels",
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.hostNetwork",
    "spec.nodeName",
    "spec.restartPolicy",
    "spec.schedulerName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.nominatedNodeName",
    "status.phase",
    "status.podIP",
    "status.podIPs",
];

/// Which of a pod's lists a container is in.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Role {
    Main,
    Init,
    Ephemeral,
}

pub(super) fn all(spec: &Value, volumes: &VolumeNames<'_>, faults: &mut Faults) {
    if list(spec, &["containers"]).is_empty() {
        faults.required(&SPEC.field("containers"), "");
    }
    let lists = [
        ("containers", Role::Main),
        ("initContainers", Role::Init),
        ("ephemeralContainers", Role::Ephemeral),
    ];
    let mut known: Vec<&str> = Vec::new();
    for (list_name, role) in lists {
        let place = SPEC.field(list_name);
        for (index, container) in list(spec, &[list_name]).iter().enumerate() {
            let here = place.index(index);
            let name = text(container, &["name"]);
            if name.is_empty() {
                faults.required(&here.field("name"), "");
            } else {
                faults.invalid_each(&here.field("name"), name, &names::dns1123_label(name));
                if known.contains(&name) {
                    faults.duplicate(&here.field("name"), name);
                }
                known.push(name);
            }
            self::container(&here, container, role, volumes, faults);
        }
    }
}

fn container(
    place: &Place<'_>,
    container: &Value,
    role: Role,
    volumes: &VolumeNames<'_>,
    faults: &mut Faults,
) {
    let image = text(container, &["image"]);
    if image.is_empty() {
        faults.required(&place.field("image"), "");
    } else if image.trim() != image {
        faults.invalid(
            &place.field("image"),
            image,
            "must not have leading or trailing whitespace",
        );
    }
    faults.one_of(
        &place.field("imagePullPolicy"),
        text(container, &["imagePullPolicy"]),
        &PULL_POLICIES,
    );
    let policies = ["File", "FallbackToLogsOnError"];
    let policy = text(container, &["terminationMessagePolicy"]);
    faults.one_of(&place.field("terminationMessagePolicy"), policy, &policies);
    ports(place, list(container, &["ports"]), faults);
    environment(place, container, faults);
    mounts(place, container, volumes, faults);
    devices(place, container, volumes, faults);
    if let Some(requirements) = at(container, &["resources"]) {
        resources::requirements(&place.field("resources"), requirements, faults);
    }
    security::container(place, container, faults);
    let is_sidecar = role == Role::Init && text(container, &["restartPolicy"]) == "Always";
    for name in ["lifecycle", "livenessProbe", "readinessProbe", "startupProbe"] {
        if at(container, &[name]).is_none() {
            continue;
        }
        match role {
            Role::Init if !is_sidecar => {
                let detail = "may not be set for init containers without restartPolicy=Always";
                faults.forbidden(&place.field(name), detail);
            }
            Role::Ephemeral => faults.forbidden(&place.field(name), "not allowed for ephemeral containers"),
            Role::Main | Role::Init => {}
        }
    }
    if role == Role::Main || is_sidecar {
        probes::all(place, container, faults);
    }
    let restart = text(container, &["restartPolicy"]);
    if !restart.is_empty() && !matches!(restart, "Always" | "Never" | "OnFailure") {
        faults.not_supported(
            &place.field("restartPolicy"),
            restart,
            &["Always", "Never", "OnFailure"],
        );
    }
}

fn ports(place: &Place<'_>, ports: &[Value], faults: &mut Faults) {
    let place = place.field("ports");
    for (index, port) in ports.iter().enumerate() {
        let here = place.index(index);
        let name = text(port, &["name"]);
        if !name.is_empty() {
            faults.invalid_each(&here.field("name"), name, &names::port_name(name));
            if ports[..index].iter().any(|other| text(other, &["name"]) == name) {
                faults.duplicate(&here.field("name"), name);
            }
        }
        match at(port, &["containerPort"]).and_then(Value::as_i64) {
            None | Some(0) => faults.required(&here.field("containerPort"), ""),
            _ => services::port_number(&here.field("containerPort"), at(port, &["containerPort"]), faults),
        }
        if at(port, &["hostPort"])
            .and_then(Value::as_i64)
            .is_some_and(|port| port != 0)
        {
            services::port_number(&here.field("hostPort"), at(port, &["hostPort"]), faults);
        }
        faults.one_of(
            &here.field("protocol"),
            text(port, &["protocol"]),
            &services::PROTOCOLS,
        );
    }
}

fn environment(place: &Place<'_>, container: &Value, faults: &mut Faults) {
    let env = place.field("env");
    for (index, variable) in list(container, &["env"]).iter().enumerate() {
        let here = env.index(index);
        match text(variable, &["name"]) {
            "" => faults.required(&here.field("name"), ""),
            name => faults.invalid_each(&here.field("name"), name, &names::environment_variable(name)),
        }
        if let Some(source) = at(variable, &["valueFrom"]) {
            value_source(&here.field("valueFrom"), variable, source, faults);
        }
    }
    let env = place.field("envFrom");
    for (index, source) in list(container, &["envFrom"]).iter().enumerate() {
        let here = env.index(index);
        let given: Vec<&str> = ["configMapRef", "secretRef"]
            .into_iter()
            .filter(|name| at(source, &[name]).is_some())
            .collect();
        match given.as_slice() {
            [] => faults.invalid(&env, "", "must specify one of: `configMapRef` or `secretRef`"),
            [name] => {
                if text(source, &[name, "name"]).is_empty() {
                    faults.required(&here.field(name).field("name"), "");
                }
            }
            _ => faults.invalid(&env, "", "may not have more than one field specified at a time"),
        }
    }
}

fn value_source(place: &Place<'_>, variable: &Value, source: &Value, faults: &mut Faults) {
    let names = [
        "fieldRef",
        "resourceFieldRef",
        "configMapKeyRef",
        "secretKeyRef",
        "fileKeyRef",
    ];
    let given: Vec<&str> = names
        .into_iter()
        .filter(|name| at(source, &[name]).is_some())
        .collect();
    if given.is_empty() {
        let detail = "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`";
        return faults.invalid(place, "", detail);
    }
    if !text(variable, &["value"]).is_empty() {
        faults.invalid(place, "", "may not be specified when `value` is not empty");
    }
    if given.len() > 1 {
        faults.invalid(place, "", "may not have more than one field specified at a time");
    }
    for name in given {
        let here = place.field(name);
        let one = at(source, &[name]).unwrap_or(&Value::Null);
        match name {
            "fieldRef" => field_reference(&here, one, &ENV_FIELDS, faults),
            "resourceFieldRef" if text(one, &["resource"]).is_empty() => {
                faults.required(&here.field("resource"), "");
            }
            "configMapKeyRef" | "secretKeyRef" => {
                let owner = text(one, &["name"]);
                faults.invalid_each(&here.field("name"), owner, &names::dns1123_subdomain(owner));
                match text(one, &["key"]) {
                    "" => faults.required(&here.field("key"), ""),
                    key => faults.invalid_each(&here.field("key"), key, &names::config_key(key)),
                }
            }
            _ => {}
        }
    }
}

/// A field of the pod by its path; entries of labels and annotations may be named too.
pub(super) fn field_reference(place: &Place<'_>, reference: &Value, allowed: &[&str], faults: &mut Faults) {
    if text(reference, &["apiVersion"]).is_empty() {
        faults.required(&place.field("apiVersion"), "");
    }
    let path = text(reference, &["fieldPath"]);
    if path.is_empty() {
        return faults.required(&place.field("fieldPath"), "");
    }
    match path.strip_suffix("']").and_then(|path| path.split_once("['")) {
        Some(("metadata.annotations", key)) => {
            let key = key.to_lowercase();
            faults.invalid_each(&place.field("fieldPath"), path, &names::qualified_name(&key));
        }
        Some(("metadata.labels", key)) => {
            faults.invalid_each(&place.field("fieldPath"), path, &names::qualified_name(key));
        }
        _ if allowed.contains(&path) => {}
        _ if !POD_FIELDS.contains(&path) => {
            let detail = format!("error converting fieldPath: field label not supported: {path}");
            faults.invalid(&place.field("fieldPath"), path, &detail);
        }
        _ => faults.not_supported(&place.field("fieldPath"), path, allowed),
    }
}

fn mounts(place: &Place<'_>, container: &Value, volumes: &VolumeNames<'_>, faults: &mut Faults) {
    let place = place.field("volumeMounts");
    let mounts = list(container, &["volumeMounts"]);
    let devices = list(container, &["volumeDevices"]);
    let is_privileged =
        at(container, &["securityContext", "privileged"]).and_then(Value::as_bool) == Some(true);
    for (index, mount) in mounts.iter().enumerate() {
        let here = place.index(index);
        let (name, path) = (text(mount, &["name"]), text(mount, &["mountPath"]));
        if name.is_empty() {
            faults.required(&here.field("name"), "");
        } else if !volumes.iter().any(|(known, _)| *known == name) {
            faults.not_found(&here.field("name"), name);
        }
        if path.is_empty() {
            faults.required(&here.field("mountPath"), "");
        } else if mounts[..index]
            .iter()
            .any(|other| text(other, &["mountPath"]) == path)
        {
            faults.invalid(&here.field("mountPath"), path, "must be unique");
        }
        if devices.iter().any(|device| text(device, &["name"]) == name) {
            let detail = "must not already exist in volumeDevices";
            faults.invalid(&here.field("name"), name, detail);
        }
        if devices.iter().any(|device| text(device, &["devicePath"]) == path) {
            let detail = "must not already exist as a path in volumeDevices";
            faults.invalid(&here.field("mountPath"), path, detail);
        }
        let (sub_path, expression) = (text(mount, &["subPath"]), text(mount, &["subPathExpr"]));
        sources::descending(&place.field("subPath"), sub_path, faults);
        sources::descending(&place.field("subPathExpr"), expression, faults);
        if !sub_path.is_empty() && !expression.is_empty() {
            faults.invalid(
                &here.field("subPathExpr"),
                expression,
                "subPathExpr and subPath are mutually exclusive",
            );
        }
        propagation(&place, mount, is_privileged, faults);
    }
}

fn propagation(place: &Place<'_>, mount: &Value, is_privileged: bool, faults: &mut Faults) {
    let propagation = text(mount, &["mountPropagation"]);
    let known = ["Bidirectional", "HostToContainer", "None"];
    faults.one_of_if_set(&place.field("mountPropagation"), propagation, &known);
    if propagation == "Bidirectional" && !is_privileged {
        let detail = "Bidirectional mount propagation is available only to privileged containers";
        faults.forbidden(&place.field("mountPropagation"), detail);
    }
    let recursive = text(mount, &["recursiveReadOnly"]);
    let known = ["Disabled", "Enabled", "IfPossible"];
    faults.one_of_if_set(&place.field("recursiveReadOnly"), recursive, &known);
    let is_read_only = at(mount, &["readOnly"]).and_then(Value::as_bool) == Some(true);
    if matches!(recursive, "Enabled" | "IfPossible") && !is_read_only {
        faults.forbidden(
            &place.field("recursiveReadOnly"),
            "may only be specified when readOnly is true",
        );
    }
}

fn devices(place: &Place<'_>, container: &Value, volumes: &VolumeNames<'_>, faults: &mut Faults) {
    let place = place.field("volumeDevices");
    let devices = list(container, &["volumeDevices"]);
    let mounts = list(container, &["volumeMounts"]);
    for (index, device) in devices.iter().enumerate() {
        let here = place.index(index);
        let (name, path) = (text(device, &["name"]), text(device, &["devicePath"]));
        let is_same = |field: &str, value: &str| {
            devices[..index]
                .iter()
                .any(|other| text(other, &[field]) == value)
        };
        match volumes.iter().find(|(known, _)| *known == name) {
            _ if name.is_empty() => faults.required(&here.field("name"), ""),
            None => faults.not_found(&here.field("name"), name),
            Some((_, false)) => {
                let detail =
                    "can only use volume source type of PersistentVolumeClaim or Ephemeral for block mode";
                faults.invalid(&here.field("name"), name, detail);
            }
            Some((_, true)) if is_same("name", name) => {
                faults.invalid(&here.field("name"), name, "must be unique")
            }
            Some((_, true)) => {}
        }
        if mounts.iter().any(|mount| text(mount, &["name"]) == name) {
            faults.invalid(
                &here.field("name"),
                name,
                "must not already exist in volumeMounts",
            );
        }
        if mounts.iter().any(|mount| text(mount, &["mountPath"]) == path) {
            let detail = "must not already exist as a path in volumeMounts";
            faults.invalid(&here.field("devicePath"), path, detail);
        }
        if path.is_empty() {
            faults.required(&here.field("devicePath"), "");
        } else {
            if is_same("devicePath", path) {
                faults.invalid(&here.field("devicePath"), path, "must be unique");
            }
            sources::no_backsteps(&here.field("devicePath"), path, faults);
        }
    }
}
