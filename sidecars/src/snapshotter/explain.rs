//! The snapshotter's refusals with whose move it is; for [`crate::explain`].

use moorline_model::snapshot::{VolumeSnapshotClass, VolumeSnapshotContent};
use moorline_model::{Actor, Explanation};

use super::SnapshotterConfig;
use super::content::{Next, Seen, decide};
use super::kind::Refusal;
use crate::discovery::DriverFacts;

pub(crate) fn refusal(
    content: &VolumeSnapshotContent,
    class: Option<&VolumeSnapshotClass>,
    driver: &DriverFacts,
) -> Option<Explanation> {
    let config = SnapshotterConfig::new("");
    let seen = Seen {
        content,
        class,
        driver,
        config: &config,
    };
    let Next::Refuse(refusal) = decide(&seen) else {
        return None;
    };
    let (actor, advice) = match &refusal {
        Refusal::NoClassNamed => (Actor::Admin, "name a class in the content"),
        Refusal::NoClass(_) => (Actor::Admin, "create the class"),
        Refusal::Parameter(_) | Refusal::Secret(_) => (Actor::Admin, "correct the class's parameters"),
        Refusal::NoMembers => (Actor::Admin, "name the group's snapshots in the content"),
    };
    Some(Explanation::new(
        "SnapshotContentRefused",
        refusal.to_string(),
        actor,
        advice,
    ))
}
