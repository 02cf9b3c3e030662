//! Pods of this node: one worker at a time per pod looks at what is there, decides one step, and does it.

pub(crate) mod actions;
pub(crate) mod backoff;
pub(crate) mod container_config;
pub(crate) mod decide;
pub(crate) mod env;
pub(crate) mod expansion;
pub(crate) mod fields;
pub(crate) mod found;
pub(crate) mod manager;
#[cfg(test)]
pub(crate) mod manager_tests;
pub(crate) mod memory;
pub(crate) mod probes;
pub(crate) mod start;
pub(crate) mod status;
pub(crate) mod status_writer;
pub(crate) mod stop;
pub(crate) mod tell;

use k8s_openapi::api::core::v1::{Container, ObjectReference, Pod};

/// What an event about a pod refers to.
pub(crate) fn reference(pod: &Pod) -> ObjectReference {
    ObjectReference {
        api_version: Some("v1".into()),
        kind: Some("Pod".into()),
        namespace: pod.metadata.namespace.clone(),
        name: pod.metadata.name.clone(),
        uid: pod.metadata.uid.clone(),
        ..Default::default()
    }
}

/// What an event about one container of a pod refers to.
pub(crate) fn container_reference(pod: &Pod, container: &str) -> ObjectReference {
    let is_init = init_containers(pod).iter().any(|held| held.name == container);
    let list = if is_init { "initContainers" } else { "containers" };
    ObjectReference {
        field_path: Some(format!("spec.{list}{{{container}}}")),
        ..reference(pod)
    }
}

pub(crate) fn uid(pod: &Pod) -> &str {
    pod.metadata.uid.as_deref().unwrap_or_default()
}

pub(crate) fn namespace(pod: &Pod) -> &str {
    pod.metadata.namespace.as_deref().unwrap_or_default()
}

pub(crate) fn name(pod: &Pod) -> &str {
    pod.metadata.name.as_deref().unwrap_or_default()
}

/// How messages name a pod.
pub(crate) fn display(pod: &Pod) -> String {
    format!("{}_{}({})", name(pod), namespace(pod), uid(pod))
}

pub(crate) fn init_containers(pod: &Pod) -> &[Container] {
    pod.spec
        .as_ref()
        .and_then(|spec| spec.init_containers.as_deref())
        .unwrap_or_default()
}

pub(crate) fn main_containers(pod: &Pod) -> &[Container] {
    pod.spec
        .as_ref()
        .map(|spec| spec.containers.as_slice())
        .unwrap_or_default()
}

/// An init container that stays beside the main ones.
pub(crate) fn is_sidecar(container: &Container) -> bool {
    container.restart_policy.as_deref() == Some("Always")
}

/// Finds a container of either sort.
pub(crate) fn find_container<'a>(pod: &'a Pod, name: &str) -> Option<&'a Container> {
    init_containers(pod)
        .iter()
        .chain(main_containers(pod))
        .find(|container| container.name == name)
}
