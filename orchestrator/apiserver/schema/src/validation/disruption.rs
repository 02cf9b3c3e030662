//! Budgets of disruptions.

use serde_json::Value;

use super::faults::Faults;
use super::numbers::{at_most_all, count_or_share};
use super::selectors;
use crate::object::{at, text};
use crate::place::Place;

const SPEC: Place<'static> = Place::top("spec");

pub(super) fn budget(budget: &Value, faults: &mut Faults) {
    let field = |name: &str| at(budget, &["spec", name]);
    if field("minAvailable").is_some() && field("maxUnavailable").is_some() {
        let spec = at(budget, &["spec"]).cloned().unwrap_or_default();
        faults.invalid(&SPEC, spec, "minAvailable and maxUnavailable cannot be both set");
    }
    for name in ["minAvailable", "maxUnavailable"] {
        count_or_share(&SPEC.field(name), field(name), faults);
        at_most_all(&SPEC.field(name), field(name), faults);
    }
    if let Some(selector) = field("selector") {
        selectors::labels(&SPEC.field("selector"), selector, faults);
    }
    faults.one_of_if_set(
        &SPEC.field("unhealthyPodEvictionPolicy"),
        text(budget, &["spec", "unhealthyPodEvictionPolicy"]),
        &["AlwaysAllow", "IfHealthyBudget"],
    );
}

pub(super) fn status(budget: &Value, faults: &mut Faults) {
    let status = Place::top("status");
    for name in [
        "disruptionsAllowed",
        "currentHealthy",
        "desiredHealthy",
        "expectedPods",
    ] {
        faults.non_negative(&status.field(name), at(budget, &["status", name]));
    }
}
