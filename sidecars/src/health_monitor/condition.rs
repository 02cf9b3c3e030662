//! What users are told of a volume's condition. Pure.

use std::time::Duration;

use jiff::Timestamp;
use moorline_proto::csi::VolumeCondition;

/// Trouble that goes on is told again after this time: events are kept for an hour.
const REPEAT_AFTER: Duration = Duration::from_secs(30 * 60);
/// The reason of events about trouble.
pub(crate) const ABNORMAL: &str = "VolumeConditionAbnormal";
/// Upstream's text.
const RECOVERED: &str = "The Volume returns to the healthy state";

/// What was told last of one volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Known {
    /// It was well.
    Normal,
    /// It wasn't, as this message says; an earlier process may have told another one.
    Abnormal {
        message: Option<String>,
        told_at: Timestamp,
    },
}

/// What to tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Tell {
    pub(crate) is_warning: bool,
    pub(crate) reason: &'static str,
    pub(crate) message: String,
}

/// What to tell now, and what is known then, given the driver's word on the volume. No word counts as well.
pub(crate) fn decide(known: &Known, said: Option<&VolumeCondition>, now: Timestamp) -> (Option<Tell>, Known) {
    let Some(trouble) = said.filter(|said| said.abnormal) else {
        let tell = matches!(known, Known::Abnormal { .. }).then(|| Tell {
            is_warning: false,
            reason: "VolumeConditionNormal",
            message: RECOVERED.to_string(),
        });
        return (tell, Known::Normal);
    };
    let is_told = match known {
        Known::Normal => false,
        Known::Abnormal { message, told_at } => {
            let age = Duration::try_from(now.duration_since(*told_at)).unwrap_or_default();
            message.as_ref() == Some(&trouble.message) && age < REPEAT_AFTER
        }
    };
    if is_told {
        return (None, known.clone());
    }
    let tell = Tell {
        is_warning: true,
        reason: ABNORMAL,
        message: trouble.message.clone(),
    };
    let told = Known::Abnormal {
        message: Some(trouble.message.clone()),
        told_at: now,
    };
    (Some(tell), told)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::at;

    #[test]
    #[expect(clippy::too_many_lines, reason = "one table")]
    fn trouble_is_told_once_and_its_end_too() {
        let said = |abnormal, message: &str| VolumeCondition {
            abnormal,
            message: message.to_string(),
        };
        let abnormal = |message: &str, told_at| Known::Abnormal {
            message: Some(message.to_string()),
            told_at: at(told_at),
        };
        let earlier = Known::Abnormal {
            message: None,
            told_at: at(0),
        };
        let warning = |message: &str| {
            Some(Tell {
                is_warning: true,
                reason: "VolumeConditionAbnormal",
                message: message.to_string(),
            })
        };
        let recovery = Some(Tell {
            is_warning: false,
            reason: "VolumeConditionNormal",
            message: RECOVERED.to_string(),
        });
        let cases = [
            ("well", Known::Normal, Some(said(false, "x")), None, Known::Normal),
            ("no word", Known::Normal, None, None, Known::Normal),
            (
                "trouble",
                Known::Normal,
                Some(said(true, "x")),
                warning("x"),
                abnormal("x", 100),
            ),
            (
                "the same trouble",
                abnormal("x", 0),
                Some(said(true, "x")),
                None,
                abnormal("x", 0),
            ),
            (
                "the same trouble for long",
                abnormal("x", -1800),
                Some(said(true, "x")),
                warning("x"),
                abnormal("x", 100),
            ),
            (
                "other trouble",
                abnormal("x", 0),
                Some(said(true, "y")),
                warning("y"),
                abnormal("y", 100),
            ),
            (
                "told by an earlier process",
                earlier.clone(),
                Some(said(true, "x")),
                warning("x"),
                abnormal("x", 100),
            ),
            (
                "told by an earlier process, and over",
                earlier,
                Some(said(false, "x")),
                recovery.clone(),
                Known::Normal,
            ),
            (
                "over",
                abnormal("x", 0),
                Some(said(false, "")),
                recovery.clone(),
                Known::Normal,
            ),
            (
                "no word any more",
                abnormal("x", 0),
                None,
                recovery,
                Known::Normal,
            ),
        ];
        for (name, known, said, expected, then) in cases {
            let decided = decide(&known, said.as_ref(), at(100));
            assert_eq!(decided, (expected, then), "{name}");
        }
    }
}
