//! Pods: have they a node, have they their volumes, do their containers run?

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ContainerStatus, Node, Pod, PodCondition};
use kube::ResourceExt as _;
use moorline_kubelet::explain::{PodVolume, mounting};
use moorline_model::{
    Actor, Explanation, names,
    pod::{self, ClaimVolume},
};
use moorline_scheduler::explain::scheduling;
use moorline_sidecars::explain::failed;
use moorline_volume_controllers::attach_detach::node_report;

use super::{Walk, created, deleted};
use crate::diagnose::{
    facts::first_seen,
    target::{Kind, ObjectName},
};

/// What the scheduler looks at.
const NEEDED_FOR_A_NODE: [&str; 9] = [
    "nodes",
    "pods/*",
    "persistentvolumeclaims",
    "persistentvolumes",
    "storageclasses",
    "csinodes",
    "csidrivers",
    "csistoragecapacities",
    "volumeattachments",
];
/// What the kubelet and the attach/detach controller look at.
const NEEDED_FOR_MOUNTS: [&str; 6] = [
    "nodes",
    "persistentvolumeclaims",
    "persistentvolumes",
    "csinodes",
    "csidrivers",
    "volumeattachments",
];

/// Where a pod stands.
pub(super) fn state(pod: &Pod) -> String {
    let status = pod.status.as_ref();
    let phase = status
        .and_then(|status| status.phase.as_deref())
        .unwrap_or("Pending");
    let Some(node_name) = pod::node_name(pod) else {
        return format!("{phase}, on no node");
    };
    let ready = containers(pod).filter(|container| container.ready).count();
    let all = pod.spec.as_ref().map_or(0, |spec| spec.containers.len());
    format!("{phase} on node {node_name}, {ready} of {all} containers ready")
}

/// The statuses of a pod's containers, without those that only prepare it.
fn containers(pod: &Pod) -> impl Iterator<Item = &ContainerStatus> {
    let status = pod.status.as_ref();
    let statuses = status.and_then(|status| status.container_statuses.as_ref());
    statuses.into_iter().flatten()
}

/// Whether every container has been started once: its volumes were mounted then.
fn has_started(pod: &Pod) -> bool {
    let wanted = pod.spec.as_ref().map_or(0, |spec| spec.containers.len());
    let started = containers(pod).filter(|container| {
        let state = container.state.as_ref();
        let runs = state.is_some_and(|state| state.running.is_some() || state.terminated.is_some());
        runs || container
            .last_state
            .as_ref()
            .is_some_and(|last| last.terminated.is_some())
    });
    started.count() >= wanted
}

fn condition<'a>(pod: &'a Pod, condition_type: &str) -> Option<&'a PodCondition> {
    let conditions = pod.status.as_ref()?.conditions.as_ref()?;
    conditions
        .iter()
        .find(|condition| condition.type_ == condition_type)
}

fn changed(condition: Option<&PodCondition>) -> Option<Timestamp> {
    condition?.last_transition_time.as_ref().map(|time| time.0)
}

impl Walk<'_> {
    /// Looks at a pod, its claims, and their volumes.
    pub(super) fn pod(&mut self, pod: &Arc<Pod>) {
        let Some(object) = self.enter(Kind::Pod, &pod.metadata) else {
            return;
        };
        let above = self.findings.len();
        match pod::node_name(pod) {
            _ if pod::is_finished(pod) => self.finished(&object, pod),
            None => self.unscheduled(&object, pod),
            Some(node_name) => {
                let node = self.facts.objects.nodes.get(None, node_name);
                if !self.is_blind(&object, &pod.metadata, &["nodes"]) {
                    self.node(&object, node_name, node.as_deref());
                }
                if pod.metadata.deletion_timestamp.is_some() {
                    self.stopping(&object, pod);
                } else {
                    self.placed(&object, pod, node_name, node.as_deref());
                }
            }
        }
        self.foreign_finalizers(&object, &pod.metadata, &[], above);
    }

    fn finished(&mut self, object: &ObjectName, pod: &Pod) {
        if pod.metadata.deletion_timestamp.is_some() {
            if pod.metadata.finalizers.iter().flatten().next().is_none() {
                self.stopping(object, pod);
            }
            return;
        }
        let status = pod.status.as_ref();
        if status.and_then(|status| status.phase.as_deref()) != Some("Failed") {
            return;
        }
        let told = status.and_then(|status| status.message.clone());
        let ended = containers(pod).filter_map(|container| {
            let ended = container.state.as_ref()?.terminated.as_ref()?;
            (ended.exit_code != 0).then(|| format!("{} ended with code {}", container.name, ended.exit_code))
        });
        let ended: Vec<String> = told.into_iter().chain(ended).collect();
        let explanation = Explanation::new(
            "PodFailed",
            format!("the pod has failed for good: {}", ended.join(", ")),
            Actor::User,
            format!("see {}; delete it and make it anew", logs(pod, None)),
        );
        self.add(object, explanation, changed(condition(pod, "Ready")));
    }

    /// No node yet: what the scheduler says, then what it waits for.
    fn unscheduled(&mut self, object: &ObjectName, pod: &Arc<Pod>) {
        let above = self.findings.len();
        for volume in pod::claim_volumes(pod) {
            self.claim_of_pod(pod, &volume);
        }
        if self.is_blind(object, &pod.metadata, &NEEDED_FOR_A_NODE) {
            return;
        }
        let Some(explanation) = scheduling(pod, &self.facts.objects, &self.facts.pods.list()) else {
            return;
        };
        let scheduled = condition(pod, "PodScheduled").filter(|found| found.status == "False");
        let since = changed(scheduled).or_else(|| created(&pod.metadata));
        self.add_above(above, object, explanation, since, Actor::Scheduler);
    }

    /// A claim that a pod uses.
    fn claim_of_pod(&mut self, pod: &Pod, volume: &ClaimVolume<'_>) {
        let namespace = pod.metadata.namespace.as_deref();
        if self.facts.is_unread("persistentvolumeclaims") {
            return;
        }
        if let Some(claim) = self.facts.objects.claims.get(namespace, &volume.claim_name) {
            self.claim(&claim);
            return;
        }
        let object = ObjectName::new(
            Kind::PersistentVolumeClaim,
            namespace.unwrap_or_default(),
            &volume.claim_name,
        );
        let explanation = if volume.is_ephemeral {
            Explanation::new(
                "ClaimMissing",
                format!("it has to be made from the template in pod {}", pod.name_any()),
                Actor::Ephemeral,
                "check that the volume controllers run, and see the events of the pod",
            )
        } else {
            Explanation::new(
                "ClaimMissing",
                format!("pod {} uses it, and it doesn't exist", pod.name_any()),
                Actor::User,
                "create the claim; the pod goes on by itself",
            )
        };
        self.add(&object, explanation, created(&pod.metadata));
    }

    fn node(&mut self, object: &ObjectName, node_name: &str, node: Option<&Node>) {
        let (reason, message, advice, since) = match node {
            Some(node) if node_report::is_ready(node) => return,
            Some(node) => (
                "NodeNotReady",
                format!("node {node_name} is not ready: what it last said of the pod may be old"),
                "see to the node and its kubelet; if it is dead for good, taint it node.kubernetes.io/out-of-service",
                ready_since(node),
            ),
            None => (
                "NodeMissing",
                format!("node {node_name} doesn't exist"),
                "start the kubelet of that node again, or delete the pod: kubectl delete pod --force",
                None,
            ),
        };
        self.add(
            object,
            Explanation::new(reason, message, Actor::Admin, advice),
            since,
        );
    }

    fn stopping(&mut self, object: &ObjectName, pod: &Pod) {
        let explanation = Explanation::new(
            "Terminating",
            "it is being deleted: its containers have to end, and its volumes to be unmounted",
            Actor::Kubelet,
            "see what the kubelet of its node logs about the pod",
        );
        self.add(object, explanation, deleted(&pod.metadata));
    }

    /// On a node: its volumes, then its containers.
    fn placed(&mut self, object: &ObjectName, pod: &Arc<Pod>, node_name: &str, node: Option<&Node>) {
        let above = self.findings.len();
        let has_started = has_started(pod);
        if !has_started && self.is_blind(object, &pod.metadata, &NEEDED_FOR_MOUNTS) {
            self.containers_held_up(object, pod);
            return;
        }
        for volume in pod::claim_volumes(pod) {
            if !has_started {
                self.mount(object, pod, &volume, node_name, node);
            }
            self.claim_of_pod(pod, &volume);
        }
        self.containers_held_up(object, pod);
        if self.findings.len() > above {
            return;
        }
        let since = changed(condition(pod, "PodScheduled")).or_else(|| created(&pod.metadata));
        if !has_started {
            let (explanation, told) = self.starting(pod);
            self.add(object, explanation, told.or(since));
            return;
        }
        let unready: Vec<&str> = containers(pod)
            .filter(|container| !container.ready)
            .map(|container| container.name.as_str())
            .collect();
        if !unready.is_empty() {
            let explanation = Explanation::new(
                "ContainersNotReady",
                format!("containers run and are not ready: {}", unready.join(", ")),
                Actor::Kubelet,
                format!(
                    "see their readiness probes, and {}",
                    logs(pod, unready.first().copied())
                ),
            );
            self.add(object, explanation, changed(condition(pod, "Ready")).or(since));
        }
    }

    /// What the kubelet waits for with one volume.
    fn mount(
        &mut self,
        object: &ObjectName,
        pod: &Arc<Pod>,
        volume: &ClaimVolume<'_>,
        node_name: &str,
        node: Option<&Node>,
    ) {
        let objects = &self.facts.objects;
        let namespace = pod.metadata.namespace.as_deref();
        let Some(claim) = objects.claims.get(namespace, &volume.claim_name) else {
            return;
        };
        let pv = moorline_model::claim::volume_name(&claim);
        let pv = pv.and_then(|name| objects.pvs.get(None, name));
        let csi = pv.as_ref().and_then(|pv| pv.spec.as_ref()?.csi.as_ref());
        let csi_node = objects.csi_nodes.get(None, node_name);
        let csi_driver = csi.and_then(|csi| objects.csi_drivers.get(None, &csi.driver));
        let attachment = csi.and_then(|csi| {
            let name = names::volume_attachment_name(&csi.volume_handle, &csi.driver, node_name);
            objects.attachments.get(None, &name)
        });
        let found = mounting(&PodVolume {
            pod,
            claim_name: &volume.claim_name,
            is_ephemeral: volume.is_ephemeral,
            claim: Some(&claim),
            pv: pv.as_deref(),
            node,
            csi_node: csi_node.as_deref(),
            csi_driver: csi_driver.as_deref(),
            attachment: attachment.as_deref(),
        });
        let Some(explanation) = found else {
            return;
        };
        let since = changed(condition(pod, "PodScheduled")).or_else(|| created(&pod.metadata));
        self.add(object, explanation, since);
        if let Some(pv) = &pv {
            self.missing_attachment(object, pv, node_name);
        }
    }

    /// Containers that say why they don't run.
    fn containers_held_up(&mut self, object: &ObjectName, pod: &Pod) {
        let status = pod.status.as_ref();
        let before = status.and_then(|status| status.init_container_statuses.as_ref());
        for container in before.into_iter().flatten().chain(containers(pod)) {
            let waiting = container.state.as_ref().and_then(|state| state.waiting.as_ref());
            let Some(waiting) = waiting else { continue };
            let word = waiting.reason.as_deref().unwrap_or_default();
            let Some((reason, advice)) = of_waiting(word, pod, &container.name) else {
                continue;
            };
            let told = waiting.message.as_deref().unwrap_or("no more is known");
            let message = format!("container {}: {word}: {told}", container.name);
            let since = changed(condition(pod, "Ready"));
            self.add(
                object,
                Explanation::new(reason, message, Actor::User, advice),
                since,
            );
        }
    }

    /// Containers that have not been started, for no reason that can be seen from here: what the kubelet said.
    fn starting(&self, pod: &Pod) -> (Explanation, Option<Timestamp>) {
        for reason in [
            "FailedMount",
            "FailedMapVolume",
            "FailedCreatePodSandBox",
            "FailedAttachVolume",
        ] {
            if let Some(event) = self.facts.event(pod.metadata.uid.as_deref(), reason, |_| true) {
                let told = event.message.clone().unwrap_or_default();
                let explanation = if told.contains("code = ") {
                    failed(reason, told, Actor::Kubelet)
                } else {
                    // The kubelet's own words, not a driver's.
                    let advice = "remove the cause that the kubelet names, such as a Secret or ConfigMap that is missing; it tries \
                                  again by itself";
                    Explanation::new(reason, told, Actor::User, advice)
                };
                return (explanation, first_seen(event));
            }
        }
        let explanation = Explanation::new(
            "ContainerCreating",
            "its volumes can be mounted, and its containers have to be started",
            Actor::Kubelet,
            "check that the node's kubelet runs and what it logs about the pod",
        );
        (explanation, None)
    }
}

/// The command that shows a pod's output.
fn logs(pod: &Pod, container: Option<&str>) -> String {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let container = container.map(|name| format!(" -c {name}")).unwrap_or_default();
    format!("kubectl logs {} -n {namespace}{container}", pod.name_any())
}

/// What a container's waiting word means, if it is more than a step on the way.
fn of_waiting(word: &str, pod: &Pod, container: &str) -> Option<(&'static str, String)> {
    match word {
        "" | "ContainerCreating" | "PodInitializing" => None,
        "ErrImagePull" | "ImagePullBackOff" | "ErrImageNeverPull" | "InvalidImageName"
        | "ImageInspectError" => Some((
            "ImageMissing",
            "correct the image's name, or put the image on the node: moorline image load FILE".to_owned(),
        )),
        "CrashLoopBackOff" => Some((
            "CrashLoopBackOff",
            format!("see why it ended: {} --previous", logs(pod, Some(container))),
        )),
        "CreateContainerConfigError" => Some((
            "CreateContainerConfigError",
            "create the ConfigMap or Secret that it names, or correct the pod".to_owned(),
        )),
        _ => Some((
            "ContainerFailed",
            format!(
                "see the pod's events: kubectl describe pod {} -n {}",
                pod.name_any(),
                pod.metadata.namespace.as_deref().unwrap_or_default()
            ),
        )),
    }
}

fn ready_since(node: &Node) -> Option<Timestamp> {
    let conditions = node.status.as_ref()?.conditions.as_ref()?;
    let ready = conditions.iter().find(|condition| condition.type_ == "Ready")?;
    ready.last_transition_time.as_ref().map(|time| time.0)
}
