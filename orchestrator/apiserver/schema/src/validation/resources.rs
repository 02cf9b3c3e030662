//! Amounts: of storage, and of what containers ask for.

use serde_json::Value;

use super::faults::Faults;
use crate::names;
use crate::object::{map, text};
use crate::place::Place;
use crate::quantity::Quantity;

fn parsed(amount: &Value) -> Option<Quantity> {
    Quantity::parse(amount.as_str()?).ok()
}

/// An amount above zero.
pub(super) fn positive(place: &Place<'_>, amount: &Value, faults: &mut Faults) {
    if parsed(amount).is_none_or(|amount| amount.signum() <= 0) {
        faults.invalid(place, amount.clone(), "must be greater than zero");
    }
}

/// An amount of zero or more.
pub(super) fn non_negative(place: &Place<'_>, amount: &Value, faults: &mut Faults) {
    if parsed(amount).is_none_or(|amount| amount.signum() < 0) {
        faults.invalid(place, amount.clone(), "must be greater than or equal to 0");
    }
}

/// What a container requests and how it is limited.
pub(super) fn requirements(place: &Place<'_>, resources: &Value, faults: &mut Faults) {
    for name in ["limits", "requests"] {
        let place = place.field(name);
        for (resource, amount) in map(resources, &[name]).into_iter().flatten() {
            resource_name(&place.key(resource), resource, faults);
            non_negative(&place.key(resource), amount, faults);
            let is_counted = !may_be_split(resource);
            if is_counted && parsed(amount).is_some_and(|amount| !amount.is_whole()) {
                faults.invalid(&place.key(resource), amount.clone(), "must be an integer");
            }
        }
    }
    let requests = place.field("requests");
    for (resource, limit) in map(resources, &["limits"]).into_iter().flatten() {
        let request = text(resources, &["requests", resource]);
        let (Some(most), Ok(asked)) = (parsed(limit), Quantity::parse(request)) else {
            continue;
        };
        if may_be_split(resource) || resource.starts_with("hugepages-") || !resource.contains('/') {
            if asked > most {
                faults.invalid(
                    &requests,
                    request,
                    &format!("must be less than or equal to {resource} limit of {most}"),
                );
            }
        } else if asked != most {
            faults.invalid(
                &requests,
                request,
                &format!("must be equal to {resource} limit of {most}"),
            );
        }
    }
}

/// Resources of which a container may have a fraction of a unit.
fn may_be_split(resource: &str) -> bool {
    matches!(resource, "cpu" | "memory" | "ephemeral-storage" | "storage")
}

fn resource_name(place: &Place<'_>, name: &str, faults: &mut Faults) {
    faults.invalid_each(place, name, &names::qualified_name(name));
    if !name.contains('/') && !may_be_split(name) && !name.starts_with("hugepages-") {
        faults.invalid(place, name, "must be a standard resource type or fully qualified");
        faults.invalid(place, name, "must be a standard resource for containers");
    }
}
