//! From one object to those that it depends on: what each of the deciders says on the way.
//!
//! ```text
//!   pod -> claims -> volumes -> attachments
//!            |  ^
//!            v  +-- source claim
//!          snapshots -> source claims
//! ```
//!
//! Pure: it looks at [`Facts`] alone. An object is looked at once; what comes later is nearer to the cause.

mod attachment;
mod claim;
mod pod;
mod snapshot;
#[cfg(test)]
mod tests;
mod volume;

use std::collections::BTreeSet;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use moorline_model::{Actor, Explanation};

use super::{
    facts::Facts,
    report::{Finding, Report},
    target::{Kind, ObjectName},
};

/// What is known of the object that was asked about; `None`: it doesn't exist.
pub(super) fn diagnose(target: &ObjectName, facts: &Facts) -> Option<Report> {
    let mut walk = Walk {
        facts,
        looked_at: BTreeSet::new(),
        findings: Vec::new(),
        blind: Vec::new(),
    };
    let namespace = target.namespace.as_deref();
    let (state, meta) = match target.kind {
        Kind::Pod => {
            let pod = facts.pods.get(namespace, &target.name)?;
            walk.pod(&pod);
            (pod::state(&pod), pod.metadata.clone())
        }
        Kind::PersistentVolumeClaim => {
            let claim = facts.objects.claims.get(namespace, &target.name)?;
            walk.claim(&claim);
            (claim::state(&claim), claim.metadata.clone())
        }
        Kind::PersistentVolume => {
            let pv = facts.objects.pvs.get(None, &target.name)?;
            walk.volume(&pv);
            (volume::state(&pv), pv.metadata.clone())
        }
        Kind::VolumeAttachment => {
            let attachment = facts.objects.attachments.get(None, &target.name)?;
            walk.attachment(&attachment);
            (attachment::state(&attachment), attachment.metadata.clone())
        }
        Kind::VolumeSnapshot => {
            let snapshot = facts.snapshots.get(namespace, &target.name)?;
            walk.snapshot(&snapshot);
            (snapshot::state(&snapshot), snapshot.metadata.clone())
        }
        Kind::VolumeSnapshotContent => return None,
    };
    let deleted = meta.deletion_timestamp.as_ref();
    let state = match deleted {
        Some(since) => format!("{state}; being deleted since {}", since.0),
        None => state,
    };
    let is_being_deleted = deleted.is_some();
    let mut unread = walk.blind;
    unread.extend(facts.unread_lines());
    Some(Report {
        is_being_deleted,
        ..Report::new(target.clone(), state, walk.findings, unread)
    })
}

/// One walk.
struct Walk<'a> {
    facts: &'a Facts,
    looked_at: BTreeSet<ObjectName>,
    findings: Vec<Finding>,
    /// Questions that can't be answered for want of rights.
    blind: Vec<String>,
}

impl Walk<'_> {
    /// The object, if it wasn't looked at before.
    fn enter(&mut self, kind: Kind, meta: &ObjectMeta) -> Option<ObjectName> {
        let object = name_of(kind, meta);
        self.looked_at.insert(object.clone()).then_some(object)
    }

    fn add(&mut self, object: &ObjectName, explanation: Explanation, since: Option<Timestamp>) {
        let finding = Finding::new(object.clone(), explanation, since, self.facts.now);
        // Two ways may lead to the same sentence, such as a claim's and its volume's.
        let is_known = |known: &Finding| {
            known.object == finding.object
                && known.reason == finding.reason
                && known.message == finding.message
        };
        if !self.findings.iter().any(is_known) {
            self.findings.push(finding);
        }
    }

    /// The same above what was found since `above` things had been: what an object waits for comes below it, and is what
    /// somebody has to see to; then the part goes on by itself.
    fn add_above(
        &mut self,
        above: usize,
        object: &ObjectName,
        mut explanation: Explanation,
        since: Option<Timestamp>,
        part: Actor,
    ) {
        let below = self.findings.split_off(above);
        if !below.is_empty() {
            explanation.actor = part;
            explanation.advice = format!("see to what it waits for, below; {part} goes on by itself");
        }
        self.add(object, explanation, since);
        self.findings.extend(below);
    }

    /// Whether one of these kinds could not be read, so that what isn't known must not be taken for what isn't there. Then
    /// this is said, with what the parts themselves said last.
    fn is_blind(&mut self, object: &ObjectName, meta: &ObjectMeta, kinds: &[&str]) -> bool {
        let missing: Vec<&str> = kinds
            .iter()
            .filter(|kind| self.facts.is_unread(kind))
            .map(|kind| kind.trim_end_matches("/*"))
            .collect();
        if missing.is_empty() {
            return false;
        }
        let told = self.facts.last_told(meta.uid.as_deref());
        let told = told.map(|event| {
            let reason = event.reason.as_deref().unwrap_or_default();
            let message = event.message.as_deref().unwrap_or_default();
            format!("; the last that was said of it: {reason}: {message}")
        });
        let note = format!(
            "{object} can't be judged without all {}{}",
            missing.join(", "),
            told.unwrap_or_default()
        );
        if !self.blind.contains(&note) {
            self.blind.push(note);
        }
        true
    }

    /// Since when an object has been told a reason, or else since it is there.
    fn since(&self, meta: &ObjectMeta, reason: &str) -> Option<Timestamp> {
        self.facts
            .told_since(meta.uid.as_deref(), reason)
            .or_else(|| created(meta))
    }

    /// Finalizers that keep a deleted object, besides those that its own controllers explain. `above` is the number of
    /// findings before it was looked at.
    fn foreign_finalizers(
        &mut self,
        object: &ObjectName,
        meta: &ObjectMeta,
        explained: &[&str],
        above: usize,
    ) {
        let Some(since) = deleted(meta) else {
            return;
        };
        // Where nothing else is said of it, every finalizer counts.
        let explained = if self.findings.len() > above {
            explained
        } else {
            &[]
        };
        let held: Vec<&str> = meta
            .finalizers
            .iter()
            .flatten()
            .map(String::as_str)
            .filter(|name| !explained.iter().any(|prefix| name.starts_with(prefix)))
            .collect();
        if held.is_empty() {
            return;
        }
        let explanation = Explanation::new(
            "Finalizers",
            format!("it is being deleted, and finalizers keep it: {}", held.join(", ")),
            Actor::Finalizer,
            "find the program that set them and see what it logs; removed by hand, what they guard is left behind",
        );
        self.add(object, explanation, Some(since));
    }
}

fn name_of(kind: Kind, meta: &ObjectMeta) -> ObjectName {
    ObjectName::new(
        kind,
        meta.namespace.as_deref().unwrap_or_default(),
        meta.name.as_deref().unwrap_or_default(),
    )
}

fn created(meta: &ObjectMeta) -> Option<Timestamp> {
    meta.creation_timestamp.as_ref().map(|time| time.0)
}

fn deleted(meta: &ObjectMeta) -> Option<Timestamp> {
    meta.deletion_timestamp.as_ref().map(|time| time.0)
}
