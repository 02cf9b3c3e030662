//! Kinds that are served in another form than they are stored in: events of two groups, autoscalers of two versions.

mod autoscalers;
mod events;

use moorline_schema::ResourceFacts;
use serde_json::Value;

/// The forms a kind has, where it has more than one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Forms {
    /// Events: stored as those of core.
    Events,
    /// HorizontalPodAutoscalers: stored in `autoscaling/v2`.
    Autoscalers,
}

impl Forms {
    /// Of a built-in resource; nothing for most.
    pub(crate) fn of(facts: &ResourceFacts) -> Option<Forms> {
        if facts.custom {
            return None;
        }
        match (facts.group, facts.kind) {
            ("" | "events.k8s.io", "Event") => Some(Forms::Events),
            ("autoscaling", "HorizontalPodAutoscaler") => Some(Forms::Autoscalers),
            _ => None,
        }
    }

    /// Group and version of all its forms.
    pub(crate) fn all(self) -> [(&'static str, &'static str); 2] {
        match self {
            Forms::Events => [("", "v1"), ("events.k8s.io", "v1")],
            Forms::Autoscalers => [("autoscaling", "v1"), ("autoscaling", "v2")],
        }
    }

    /// Whether the kind has a form of this version.
    pub(crate) fn has(self, api_version: &str) -> bool {
        match self {
            Forms::Events => matches!(api_version, "v1" | "events.k8s.io/v1"),
            Forms::Autoscalers => matches!(api_version, "autoscaling/v1" | "autoscaling/v2"),
        }
    }

    /// The object in another of its forms.
    pub(crate) fn convert(self, object: Value, api_version: &str) -> Value {
        if object.get("apiVersion").and_then(Value::as_str) == Some(api_version) {
            return object;
        }
        match (self, api_version) {
            (Forms::Events, "v1") => events::to_core(object),
            (Forms::Events, _) => events::to_events_group(object),
            (Forms::Autoscalers, "autoscaling/v1") => autoscalers::to_v1(object),
            (Forms::Autoscalers, _) => autoscalers::to_v2(object),
        }
    }
}

/// The form in which an object of a resource is stored.
pub(crate) fn to_stored(stored: &ResourceFacts, object: Value) -> Value {
    match Forms::of(stored) {
        Some(forms) => forms.convert(object, &stored.api_version()),
        None => object,
    }
}

/// The form in which a resource serves an object.
pub(crate) fn to_served(served: &ResourceFacts, object: Value) -> Value {
    match Forms::of(served) {
        Some(forms) => forms.convert(object, &served.api_version()),
        None => object,
    }
}
