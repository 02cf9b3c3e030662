//! What users are told about a pod through events, each thing once.

use jiff::{SignedDuration, Timestamp};
use moorline_runtime::EventType;

use super::decide::Fate;
use super::found::Found;
use super::manager::PodManager;
use super::memory::Memory;
use super::status::backing_off;
use super::{reference, uid};
use crate::volumes::manager::PodVolumes;

impl PodManager {
    /// Each end that is followed by a back-off is told once.
    pub(super) fn tell_about_backoff(&self, found: &Found, memory: &Memory, now: Timestamp) {
        for (container, finished_at) in backing_off(&self.facts(found, memory, false), now) {
            let held = self.remember(uid(&found.pod), |memory| {
                memory.told_about_backoff.insert(container.clone(), finished_at)
            });
            if held != Some(finished_at) {
                let message = format!(
                    "Back-off restarting failed container {container} in pod {}",
                    super::display(&found.pod)
                );
                let target = super::container_reference(&found.pod, &container);
                self.recorder
                    .event(&target, EventType::Warning, "BackOff", message);
            }
        }
    }

    /// A pod that waits long for its volumes is told which, and why if that is known.
    pub(super) fn tell_about_volumes(
        &self,
        found: &Found,
        fate: Fate,
        volumes: Option<&PodVolumes>,
        now: Timestamp,
    ) {
        if fate != Fate::Live {
            return self.tell_about_unmount(found);
        }
        let Some(PodVolumes::Pending {
            unmounted,
            unresolved,
            problem,
            since,
        }) = volumes
        else {
            return;
        };
        let patience =
            SignedDuration::try_from(self.config.timings.volume_wait_timeout).unwrap_or(SignedDuration::MAX);
        let is_due = self.remember(uid(&found.pod), |memory| {
            let begin = memory.told_about_volumes_at.unwrap_or(*since);
            // A volume that can't be right is told at once, and then as rarely as the others.
            let is_wrong =
                memory.told_about_volumes_at.is_none() && !unresolved.is_empty() && problem.is_some();
            let is_due = is_wrong || now.duration_since(begin) >= patience;
            if is_due {
                memory.told_about_volumes_at = Some(now);
            }
            is_due
        });
        if is_due {
            let why = problem
                .as_deref()
                .unwrap_or("timed out waiting for the condition");
            let message = format!(
                "Unable to attach or mount volumes: unmounted volumes=[{}], unattached volumes=[], failed to process volumes=[{}]: {why}",
                unmounted.join(" "),
                unresolved.join(" ")
            );
            self.recorder
                .event(&reference(&found.pod), EventType::Warning, "FailedMount", message);
        }
        self.queue.add_after(
            uid(&found.pod).to_owned(),
            self.config.timings.volume_wait_timeout,
        );
    }

    /// A pod whose volumes don't go is told why, once per reason.
    pub(super) fn tell_about_unmount(&self, found: &Found) {
        let problem = self.volumes.release_problem(uid(&found.pod));
        let is_new = self.remember(uid(&found.pod), |memory| {
            let is_new = problem.is_some() && memory.told_about_unmount != problem;
            memory.told_about_unmount.clone_from(&problem);
            is_new
        });
        if let Some(problem) = problem.filter(|_| is_new) {
            self.recorder.event(
                &reference(&found.pod),
                EventType::Warning,
                "FailedUnMount",
                problem,
            );
        }
    }
}
