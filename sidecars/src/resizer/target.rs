//! To which size a claim's volume shall be expanded. Pure.
//!
//! The point of the table: an expansion to a larger size that may be running is never abandoned, but a user who has
//! lowered the request gets the lower size once the larger one has failed for good.

use moorline_model::Amount;

/// `status.allocatedResourceStatuses.storage`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// Nothing is under way, or the word is unknown.
    Idle,
    ControllerInProgress,
    ControllerInfeasible,
    NodePending,
    NodeInProgress,
    NodeInfeasible,
}

impl Stage {
    pub(crate) const CONTROLLER_IN_PROGRESS: &str = "ControllerResizeInProgress";
    pub(crate) const CONTROLLER_INFEASIBLE: &str = "ControllerResizeInfeasible";
    pub(crate) const NODE_PENDING: &str = "NodeResizePending";
    const NODE_IN_PROGRESS: &str = "NodeResizeInProgress";
    const NODE_INFEASIBLE: &str = "NodeResizeInfeasible";

    pub(crate) fn parse(word: Option<&str>) -> Self {
        match word.unwrap_or_default() {
            Self::CONTROLLER_IN_PROGRESS => Stage::ControllerInProgress,
            Self::CONTROLLER_INFEASIBLE => Stage::ControllerInfeasible,
            Self::NODE_PENDING => Stage::NodePending,
            Self::NODE_IN_PROGRESS => Stage::NodeInProgress,
            Self::NODE_INFEASIBLE => Stage::NodeInfeasible,
            _ => Stage::Idle,
        }
    }
}

/// What the choice rests on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sizes {
    /// Requested by the claim.
    pub(crate) requested: Amount,
    /// The PV's capacity.
    pub(crate) pv: Amount,
    /// `status.allocatedResources.storage`.
    pub(crate) allocated: Option<Amount>,
    pub(crate) stage: Stage,
    /// This process has seen the expansion fail for good.
    pub(crate) has_failed: bool,
    /// The condition FileSystemResizePending is True.
    pub(crate) waits_for_node: bool,
    /// The driver expands in the controller.
    pub(crate) expands_in_controller: bool,
}

/// The size to expand to; `None`: nothing for the controller to do.
pub(crate) fn choose(sizes: &Sizes) -> Option<Amount> {
    let Sizes {
        requested,
        pv,
        allocated,
        ..
    } = *sizes;
    let allocated_or_requested = allocated.unwrap_or(requested);
    if pv < requested {
        return match sizes.stage {
            Stage::NodeInfeasible => Some(allocated_or_requested),
            // The node finishes what the controller has done, unless that was less than what is allocated.
            Stage::NodePending | Stage::NodeInProgress => {
                (pv < allocated_or_requested).then_some(allocated_or_requested)
            }
            Stage::ControllerInProgress if sizes.has_failed => Some(requested),
            Stage::ControllerInProgress => Some(allocated_or_requested),
            Stage::Idle | Stage::ControllerInfeasible => Some(requested),
        };
    }
    match (sizes.stage, allocated) {
        (Stage::NodePending | Stage::NodeInProgress, _) => None,
        (Stage::NodeInfeasible, Some(allocated)) if sizes.expands_in_controller => Some(allocated),
        (Stage::NodeInfeasible, _) => Some(requested),
        (Stage::ControllerInProgress | Stage::ControllerInfeasible, _) => Some(allocated_or_requested),
        (Stage::Idle, Some(allocated)) => Some(allocated),
        (Stage::Idle, None) if sizes.waits_for_node => None,
        (Stage::Idle, None) => Some(requested),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gib(count: i64) -> Amount {
        Amount::from_bytes(count << 30)
    }

    #[test]
    #[expect(clippy::too_many_lines, reason = "one flat table")]
    fn every_row_of_the_table() {
        use Stage::{
            ControllerInProgress as CP, ControllerInfeasible as CI, Idle, NodeInProgress as NP,
            NodeInfeasible as NI, NodePending as NW,
        };
        // Requested 4 Gi, PV smaller (2) or large enough (8), allocated 6 or none.
        let (small, large, a, none) = (2, 8, Some(6), None);
        let cases = [
            ("pv small, node infeasible", small, a, NI, Some(6)),
            (
                "pv small, node infeasible, none allocated",
                small,
                none,
                NI,
                Some(4),
            ),
            ("pv small, node pending", small, a, NW, Some(6)),
            (
                "pv small, node pending, allocated reached",
                small,
                Some(2),
                NW,
                None,
            ),
            (
                "pv small, node in progress, none allocated",
                small,
                none,
                NP,
                Some(4),
            ),
            ("pv small, controller in progress", small, a, CP, Some(6)),
            (
                "pv small, controller in progress, none allocated",
                small,
                none,
                CP,
                Some(4),
            ),
            ("pv small, controller infeasible", small, a, CI, Some(4)),
            ("pv small, idle", small, a, Idle, Some(4)),
            ("pv large, node pending", large, a, NW, None),
            ("pv large, node in progress", large, a, NP, None),
            ("pv large, node infeasible", large, a, NI, Some(6)),
            (
                "pv large, node infeasible, none allocated",
                large,
                none,
                NI,
                Some(4),
            ),
            ("pv large, controller in progress", large, a, CP, Some(6)),
            (
                "pv large, controller infeasible, none allocated",
                large,
                none,
                CI,
                Some(4),
            ),
            ("pv large, idle", large, a, Idle, Some(6)),
            ("pv large, idle, none allocated", large, none, Idle, Some(4)),
        ];
        for (name, pv, allocated, stage, expected) in cases {
            let sizes = Sizes {
                requested: gib(4),
                pv: gib(pv),
                allocated: allocated.map(gib),
                stage,
                has_failed: false,
                waits_for_node: false,
                expands_in_controller: true,
            };
            assert_eq!(choose(&sizes), expected.map(gib), "{name}");
        }
    }

    #[test]
    fn marks_change_the_choice() {
        let base = Sizes {
            requested: gib(4),
            pv: gib(2),
            allocated: Some(gib(6)),
            stage: Stage::ControllerInProgress,
            has_failed: true,
            waits_for_node: false,
            expands_in_controller: true,
        };
        assert_eq!(
            choose(&base),
            Some(gib(4)),
            "the larger size failed for good, the user lowered the request"
        );
        let waiting = Sizes {
            pv: gib(8),
            allocated: None,
            stage: Stage::Idle,
            waits_for_node: true,
            ..base
        };
        assert_eq!(choose(&waiting), None, "the node's turn");
        let node_only = Sizes {
            pv: gib(8),
            stage: Stage::NodeInfeasible,
            expands_in_controller: false,
            ..base
        };
        assert_eq!(choose(&node_only), Some(gib(4)), "only the node expands");
    }
}
