//! The shape in which deciders say why an object gets no further: for events, and for people who ask.
//!
//! A decider's `Why` renders to this with an exhaustive `match`, so that a new reason can't be forgotten, and so that
//! what `moorline diagnose` says is what the decider found.

use std::fmt;

/// Whose move it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Actor {
    /// Whoever wrote the claim, pod or snapshot.
    User,
    /// Whoever runs the cluster: classes, volumes, nodes, drivers.
    Admin,
    /// The controller that binds claims and volumes (upstream: persistentvolume-controller).
    Binder,
    /// The attach/detach controller.
    AttachDetach,
    /// The controller that binds snapshots and contents.
    SnapshotController,
    /// Finalizers of claims and volumes.
    Protection,
    /// The controller that makes claims from pods' templates.
    Ephemeral,
    /// The scheduler.
    Scheduler,
    /// csi-provisioner, and the driver behind it.
    Provisioner,
    /// csi-attacher, and the driver behind it.
    Attacher,
    /// csi-resizer, and the driver behind it.
    Resizer,
    /// csi-snapshotter, and the driver behind it.
    Snapshotter,
    /// The kubelet of the pod's node.
    Kubelet,
    /// The process that put a finalizer on the object.
    Finalizer,
}

impl Actor {
    /// The name in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Admin => "admin",
            Self::Binder => "persistentvolume-controller",
            Self::AttachDetach => "attachdetach-controller",
            Self::SnapshotController => "snapshot-controller",
            Self::Protection => "protection-controller",
            Self::Ephemeral => "ephemeral-volume-controller",
            Self::Scheduler => "scheduler",
            Self::Provisioner => "csi-provisioner",
            Self::Attacher => "csi-attacher",
            Self::Resizer => "csi-resizer",
            Self::Snapshotter => "csi-snapshotter",
            Self::Kubelet => "kubelet",
            Self::Finalizer => "finalizer",
        }
    }

    /// True if nothing goes on before a person does something.
    pub fn is_person(self) -> bool {
        matches!(self, Self::User | Self::Admin)
    }
}

impl fmt::Display for Actor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::User => "the user who wrote it",
            Self::Admin => "an administrator of the cluster",
            Self::Binder => "the volume binder (persistentvolume-controller)",
            Self::AttachDetach => "the attach/detach controller",
            Self::SnapshotController => "the snapshot controller",
            Self::Protection => "the protection controllers (pvc-protection, pv-protection)",
            Self::Ephemeral => "the ephemeral volume controller",
            Self::Scheduler => "the scheduler",
            Self::Provisioner => "csi-provisioner and its driver",
            Self::Attacher => "csi-attacher and its driver",
            Self::Resizer => "csi-resizer and its driver",
            Self::Snapshotter => "csi-snapshotter and its driver",
            Self::Kubelet => "the kubelet of the node",
            Self::Finalizer => "the program that set the finalizer",
        })
    }
}

/// Why an object gets no further now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation {
    /// One word, that of the event where there is one.
    pub reason: &'static str,
    /// What is the matter.
    pub message: String,
    /// Whose move it is.
    pub actor: Actor,
    /// What that one can do.
    pub advice: String,
}

impl Explanation {
    /// Puts one together.
    pub fn new(
        reason: &'static str,
        message: impl Into<String>,
        actor: Actor,
        advice: impl Into<String>,
    ) -> Self {
        Self {
            reason,
            message: message.into(),
            actor,
            advice: advice.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_actor_has_a_word_and_a_name_and_only_two_are_people() {
        let all = [
            Actor::User,
            Actor::Admin,
            Actor::Binder,
            Actor::AttachDetach,
            Actor::SnapshotController,
            Actor::Protection,
            Actor::Ephemeral,
            Actor::Scheduler,
            Actor::Provisioner,
            Actor::Attacher,
            Actor::Resizer,
            Actor::Snapshotter,
            Actor::Kubelet,
            Actor::Finalizer,
        ];
        let words: std::collections::BTreeSet<&str> = all.iter().map(|actor| actor.as_str()).collect();
        let names: std::collections::BTreeSet<String> = all.iter().map(Actor::to_string).collect();
        assert_eq!((words.len(), names.len()), (all.len(), all.len()));
        let people: Vec<Actor> = all.into_iter().filter(|actor| actor.is_person()).collect();
        assert_eq!(people, [Actor::User, Actor::Admin]);
    }
}
