//! The templates of pods inside other objects, and the selectors that must fit them.

use serde_json::Value;

use super::faults::Faults;
use super::{metadata, pods, selectors};
use crate::object::{at, list, map, text};
use crate::place::Place;
use crate::selector::LabelSelector;

const NO_FIT: &str = "`selector` does not match template `labels`";

/// The labels and annotations of a template.
pub(super) fn labels_and_annotations(place: &Place<'_>, template: &Value, faults: &mut Faults) {
    if let Some(labels) = map(template, &["metadata", "labels"]) {
        metadata::labels(&place.field("labels"), labels, faults);
    }
    if let Some(annotations) = map(template, &["metadata", "annotations"]) {
        metadata::annotations(&place.field("annotations"), annotations, faults);
    }
}

/// A template: all that is asked of a pod.
pub(super) fn template(place: &Place<'_>, template: &Value, faults: &mut Faults) {
    labels_and_annotations(place, template, faults);
    let mut inner = Faults::default();
    pods::pod(template, &mut inner);
    faults.extend_below(place, inner);
    if !list(template, &["spec", "ephemeralContainers"]).is_empty() {
        let spec = place.field("spec");
        let detail = "ephemeral containers not allowed in pod template";
        faults.forbidden(&spec.field("ephemeralContainers"), detail);
    }
}

/// Whether a selector can be read: all its parts are as they should be.
fn is_readable(selector: &Value) -> bool {
    let mut faults = Faults::default();
    selectors::labels(&Place::ROOT, selector, &mut faults);
    faults.is_empty()
}

/// A selector that is required and must not be empty; what is said if it is.
pub(super) fn own_selector(place: &Place<'_>, selector: Option<&Value>, empty: &str, faults: &mut Faults) {
    match selector {
        None => faults.required(place, ""),
        Some(selector) => {
            selectors::labels(place, selector, faults);
            if is_empty(selector) {
                faults.invalid(place, selector.clone(), empty);
            }
        }
    }
}

/// Whether a selector has no conditions.
pub(super) fn is_empty(selector: &Value) -> bool {
    map(selector, &["matchLabels"]).is_none_or(serde_json::Map::is_empty)
        && list(selector, &["matchExpressions"]).is_empty()
}

/// How a selector stands to a template.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Fit {
    /// It selects the template's pods.
    Fits,
    /// It doesn't.
    Misses,
    /// It can't be read.
    Unreadable,
}

/// Whether a selector selects the pods of a template. An absent one selects nothing.
pub(super) fn fit(selector: Option<&Value>, template: Option<&Value>) -> Fit {
    let Some(selector) = selector else {
        return Fit::Misses;
    };
    if !is_readable(selector) {
        return Fit::Unreadable;
    }
    let labels = template.and_then(|template| map(template, &["metadata", "labels"]));
    if LabelSelector::from_object(selector).matches(labels) {
        Fit::Fits
    } else {
        Fit::Misses
    }
}

/// The fault of a template whose pods are not selected. `place` is the template's.
pub(super) fn misses(place: &Place<'_>, template: Option<&Value>, faults: &mut Faults) {
    let labels = template.and_then(|template| at(template, &["metadata", "labels"]));
    let metadata = place.field("metadata");
    faults.invalid(
        &metadata.field("labels"),
        labels.cloned().unwrap_or_default(),
        NO_FIT,
    );
}

/// Pods that are to run for ever: they are always restarted and have no deadline. `owner` is the kind that says so.
pub(super) fn runs_for_ever(place: &Place<'_>, template: &Value, owner: &str, faults: &mut Faults) {
    let spec = place.field("spec");
    always_restarts(place, template, faults);
    if at(template, &["spec", "activeDeadlineSeconds"]).is_some() {
        faults.forbidden(
            &spec.field("activeDeadlineSeconds"),
            &format!("activeDeadlineSeconds in {owner} is not Supported"),
        );
    }
}

/// Pods that are always restarted.
pub(super) fn always_restarts(place: &Place<'_>, template: &Value, faults: &mut Faults) {
    let policy = text(template, &["spec", "restartPolicy"]);
    if policy != "Always" {
        let spec = place.field("spec");
        faults.not_supported(&spec.field("restartPolicy"), policy, &["Always"]);
    }
}
