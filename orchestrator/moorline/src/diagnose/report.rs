//! What a diagnosis says, as text, JSON and exit code.

use std::fmt::Write as _;

use jiff::{SignedDuration, Timestamp};
use moorline_model::{Actor, Explanation};
use serde::Serialize;

use super::target::ObjectName;

/// A part that takes longer than this for its move has probably stopped: somebody has to look after it.
const PATIENCE: SignedDuration = SignedDuration::from_secs(120);

/// How the object is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Verdict {
    /// Nothing is waited for.
    Healthy,
    /// A part of the cluster is at work.
    Waiting,
    /// Nothing was found, but not everything that matters could be read.
    Unknown,
    /// Nothing goes on before somebody acts, or a part has been silent for too long.
    ActionNeeded,
}

impl Verdict {
    /// The process's exit code.
    pub(super) fn exit_code(self) -> u8 {
        match self {
            Self::Healthy => 0,
            Self::ActionNeeded => 3,
            Self::Waiting => 5,
            Self::Unknown => 6,
        }
    }
}

/// One thing that is waited for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Finding {
    /// What it is about.
    pub object: ObjectName,
    /// The decider's word.
    pub reason: String,
    /// What is the matter.
    pub message: String,
    /// Since when.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
    /// Whose move it is, as a word.
    pub actor: &'static str,
    /// Whose move it is, for people.
    #[serde(skip)]
    pub who: String,
    /// What to do.
    pub advice: String,
    /// Nothing goes on before somebody acts.
    pub needs_action: bool,
    /// Its part has had its move for too long.
    pub is_late: bool,
}

impl Finding {
    /// A decider's explanation about an object.
    pub(super) fn new(
        object: ObjectName,
        explanation: Explanation,
        since: Option<Timestamp>,
        now: Timestamp,
    ) -> Self {
        let actor: Actor = explanation.actor;
        let is_late = !actor.is_person() && since.is_some_and(|since| now.duration_since(since) > PATIENCE);
        Self {
            object,
            reason: explanation.reason.to_owned(),
            message: explanation.message,
            since,
            actor: actor.as_str(),
            who: actor.to_string(),
            advice: explanation.advice,
            needs_action: actor.is_person() || is_late,
            is_late,
        }
    }
}

/// The whole answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Report {
    /// The object asked about.
    pub object: ObjectName,
    /// Where it stands, in one phrase.
    pub state: String,
    /// How it is.
    pub verdict: Verdict,
    /// What is waited for, the nearest cause last.
    pub findings: Vec<Finding>,
    /// What could not be read, and why.
    pub unread: Vec<String>,
    /// It is on its way out: being gone is what is waited for.
    pub is_being_deleted: bool,
}

impl Report {
    /// Judges by the findings.
    pub(super) fn new(
        object: ObjectName,
        state: String,
        findings: Vec<Finding>,
        unread: Vec<String>,
    ) -> Self {
        let verdict = if findings.iter().any(|finding| finding.needs_action) {
            Verdict::ActionNeeded
        } else if !findings.is_empty() {
            Verdict::Waiting
        } else if unread.is_empty() {
            Verdict::Healthy
        } else {
            Verdict::Unknown
        };
        Self {
            object,
            state,
            verdict,
            findings,
            unread,
            is_being_deleted: false,
        }
    }

    /// The verdict as a sentence that names who has to act.
    fn headline(&self) -> String {
        let object = &self.object;
        // The nearest cause is the last one.
        let cause = self.findings.iter().rev().find(|finding| finding.needs_action);
        match (self.verdict, cause.or(self.findings.last())) {
            (Verdict::ActionNeeded, Some(cause)) if cause.is_late => {
                format!("{object} waits for {}, for too long: look after it.", cause.who)
            }
            (Verdict::ActionNeeded, Some(cause)) => {
                format!("{object} gets no further before {} acts.", cause.who)
            }
            (Verdict::Waiting, Some(cause)) => format!("{object} waits for {}.", cause.who),
            (Verdict::Unknown, _) => {
                format!("{object}: no trouble was found, but not everything could be read.")
            }
            (Verdict::Healthy | Verdict::Waiting | Verdict::ActionNeeded, _) => {
                format!("{object} is healthy: it waits for nothing.")
            }
        }
    }

    /// For people.
    pub(super) fn text(&self, now: Timestamp) -> String {
        let mut text = format!("{}\n  state: {}\n", self.headline(), self.state);
        for finding in &self.findings {
            // Writing into a string can't fail.
            writeln!(text, "\n{}: {}", finding.object, finding.reason).ok();
            writeln!(text, "  what:  {}", finding.message).ok();
            if let Some(since) = finding.since {
                writeln!(text, "  since: {since} ({})", ago(now, since)).ok();
            }
            writeln!(text, "  who:   {}", finding.who).ok();
            writeln!(text, "  do:    {}", finding.advice).ok();
        }
        for unread in &self.unread {
            writeln!(text, "\nnot taken into account: {unread}").ok();
        }
        text
    }
}

fn ago(now: Timestamp, since: Timestamp) -> String {
    let seconds = now.duration_since(since).as_secs().max(0);
    match seconds {
        0..120 => format!("{seconds} s ago"),
        120..7_200 => format!("{} min ago", seconds / 60),
        7_200..172_800 => format!("{} h ago", seconds / 3_600),
        _ => format!("{} days ago", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diagnose::target::Kind;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_767_225_600 + seconds).unwrap()
    }

    fn finding(actor: Actor, since: i64) -> Finding {
        let explanation = Explanation::new("Reason", "what is the matter", actor, "do this");
        let object = ObjectName::new(Kind::PersistentVolumeClaim, "ns", "data");
        Finding::new(object, explanation, Some(at(since)), at(1_000))
    }

    fn report(findings: Vec<Finding>, unread: &[&str]) -> Report {
        let object = ObjectName::new(Kind::PersistentVolumeClaim, "ns", "data");
        let unread = unread.iter().map(|text| (*text).to_owned()).collect();
        Report::new(object, "Pending".into(), findings, unread)
    }

    #[test]
    fn the_verdict_follows_from_what_is_waited_for_and_how_long() {
        let admin =
            "PersistentVolumeClaim ns/data gets no further before an administrator of the cluster acts.";
        for (name, report, verdict, code, headline) in [
            (
                "nothing",
                report(vec![], &[]),
                Verdict::Healthy,
                0,
                "PersistentVolumeClaim ns/data is healthy: it waits for nothing.",
            ),
            (
                "nothing, half blind",
                report(vec![], &["nodes: forbidden"]),
                Verdict::Unknown,
                6,
                "PersistentVolumeClaim ns/data: no trouble was found, but not everything could be read.",
            ),
            (
                "a part at work",
                report(vec![finding(Actor::Scheduler, 900)], &["nodes: forbidden"]),
                Verdict::Waiting,
                5,
                "PersistentVolumeClaim ns/data waits for the scheduler.",
            ),
            (
                "a part too long at work",
                report(vec![finding(Actor::Scheduler, 800)], &[]),
                Verdict::ActionNeeded,
                3,
                "PersistentVolumeClaim ns/data waits for the scheduler, for too long: look after it.",
            ),
            (
                "a person",
                report(vec![finding(Actor::Admin, 1_000)], &[]),
                Verdict::ActionNeeded,
                3,
                admin,
            ),
            (
                "the nearest cause that needs somebody counts",
                report(
                    vec![
                        finding(Actor::Scheduler, 0),
                        finding(Actor::Admin, 1_000),
                        finding(Actor::Attacher, 1_000),
                    ],
                    &[],
                ),
                Verdict::ActionNeeded,
                3,
                admin,
            ),
        ] {
            assert_eq!(
                (report.verdict, report.verdict.exit_code()),
                (verdict, code),
                "{name}"
            );
            assert_eq!(report.headline(), headline, "{name}");
        }
    }

    #[test]
    fn text_says_what_since_when_who_and_what_to_do() {
        let report = report(vec![finding(Actor::User, 400)], &["nodes: forbidden"]);
        let expected = "\
PersistentVolumeClaim ns/data gets no further before the user who wrote it acts.
  state: Pending

PersistentVolumeClaim ns/data: Reason
  what:  what is the matter
  since: 2026-01-01T00:06:40Z (10 min ago)
  who:   the user who wrote it
  do:    do this

not taken into account: nodes: forbidden
";
        assert_eq!(report.text(at(1_000)), expected);
    }

    #[test]
    fn json_has_the_same_for_programs() {
        let report = report(vec![finding(Actor::Provisioner, 400)], &["nodes: forbidden"]);
        let object = serde_json::json!({"kind": "PersistentVolumeClaim", "namespace": "ns", "name": "data"});
        assert_eq!(
            serde_json::to_value(&report).unwrap(),
            serde_json::json!({
                "object": object,
                "state": "Pending",
                "verdict": "action-needed",
                "findings": [{
                    "object": object,
                    "reason": "Reason",
                    "message": "what is the matter",
                    "since": "2026-01-01T00:06:40Z",
                    "actor": "csi-provisioner",
                    "advice": "do this",
                    "needsAction": true,
                    "isLate": true,
                }],
                "unread": ["nodes: forbidden"],
                "isBeingDeleted": false,
            })
        );
    }

    #[test]
    fn ages_are_short() {
        for (age, expected) in [
            (-5, "0 s ago"),
            (119, "119 s ago"),
            (120, "2 min ago"),
            (7_200, "2 h ago"),
            (172_800, "2 days ago"),
        ] {
            assert_eq!(ago(at(age), at(0)), expected);
        }
    }
}
