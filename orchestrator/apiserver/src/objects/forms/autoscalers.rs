//! HorizontalPodAutoscalers have two forms: `autoscaling/v2`, which is stored, and `autoscaling/v1`, which knows the
//! use of CPU alone and keeps the rest in annotations.

use serde_json::{Map, Value, json};

use crate::objects::tree;

const METRICS: &str = "autoscaling.alpha.kubernetes.io/metrics";
const BEHAVIOR: &str = "autoscaling.alpha.kubernetes.io/behavior";
const CURRENT_METRICS: &str = "autoscaling.alpha.kubernetes.io/current-metrics";
const CONDITIONS: &str = "autoscaling.alpha.kubernetes.io/conditions";
const CPU_PERCENT: &str = "targetCPUUtilizationPercentage";
const CURRENT_CPU_PERCENT: &str = "currentCPUUtilizationPercentage";
const SPEC_SHARED: [&str; 3] = ["scaleTargetRef", "minReplicas", "maxReplicas"];
const STATUS_SHARED: [&str; 4] = [
    "observedGeneration",
    "lastScaleTime",
    "currentReplicas",
    "desiredReplicas",
];

/// Where a metric has its names and values: in v2 below the parts of a metric, in v1 beside each other.
struct Names {
    /// Name of the part of a metric in both forms, such as `resource`.
    part: &'static str,
    /// v1's name, and the path in v2.
    shared: &'static [(&'static str, &'static [&'static str])],
    /// v1's name, and the field of v2's target or current value.
    values: &'static [(&'static str, &'static str)],
    current: &'static [(&'static str, &'static str)],
}

const NAMES: [Names; 5] = [
    Names {
        part: "resource",
        shared: &[("name", &["name"])],
        values: &[
            ("targetAverageUtilization", "averageUtilization"),
            ("targetAverageValue", "averageValue"),
        ],
        current: &[
            ("currentAverageUtilization", "averageUtilization"),
            ("currentAverageValue", "averageValue"),
        ],
    },
    Names {
        part: "containerResource",
        shared: &[("name", &["name"]), ("container", &["container"])],
        values: &[
            ("targetAverageUtilization", "averageUtilization"),
            ("targetAverageValue", "averageValue"),
        ],
        current: &[
            ("currentAverageUtilization", "averageUtilization"),
            ("currentAverageValue", "averageValue"),
        ],
    },
    Names {
        part: "pods",
        shared: &[
            ("metricName", &["metric", "name"]),
            ("selector", &["metric", "selector"]),
        ],
        values: &[("targetAverageValue", "averageValue")],
        current: &[("currentAverageValue", "averageValue")],
    },
    Names {
        part: "object",
        shared: &[
            ("target", &["describedObject"]),
            ("metricName", &["metric", "name"]),
            ("selector", &["metric", "selector"]),
        ],
        values: &[("targetValue", "value"), ("averageValue", "averageValue")],
        current: &[("currentValue", "value"), ("averageValue", "averageValue")],
    },
    Names {
        part: "external",
        shared: &[
            ("metricName", &["metric", "name"]),
            ("metricSelector", &["metric", "selector"]),
        ],
        values: &[("targetValue", "value"), ("targetAverageValue", "averageValue")],
        current: &[("currentValue", "value"), ("currentAverageValue", "averageValue")],
    },
];

/// From the stored form.
pub(super) fn to_v1(object: Value) -> Value {
    let mut out = frame(&object, "autoscaling/v1");
    let spec = &object["spec"];
    let is_cpu = |metric: &&Value| cpu_percent(metric, "target").is_some();
    let metrics = tree::list(spec, &["metrics"]);
    let mut new = shared(spec, &SPEC_SHARED);
    let percent = metrics.iter().find_map(|metric| cpu_percent(metric, "target"));
    tree::set(&mut new, CPU_PERCENT, percent.cloned());
    out["spec"] = new.into();
    let others: Vec<Value> = metrics
        .iter()
        .filter(|metric| !is_cpu(metric))
        .map(|metric| metric_to_v1(metric, "target"))
        .collect();
    let mut notes = Map::new();
    note(&mut notes, METRICS, (!others.is_empty()).then_some(others.into()));
    note(&mut notes, BEHAVIOR, tree::at(spec, &["behavior"]).cloned());
    if let Some(status) = tree::at(&object, &["status"]) {
        let mut new = shared(status, &STATUS_SHARED);
        let current = tree::list(status, &["currentMetrics"]);
        let percent = current.iter().find_map(|metric| cpu_percent(metric, "current"));
        tree::set(&mut new, CURRENT_CPU_PERCENT, percent.cloned());
        out["status"] = new.into();
        let current: Vec<Value> = current
            .iter()
            .map(|metric| metric_to_v1(metric, "current"))
            .collect();
        note(
            &mut notes,
            CURRENT_METRICS,
            (!current.is_empty()).then(|| current.into()),
        );
        let conditions = tree::list(status, &["conditions"]).to_vec();
        note(
            &mut notes,
            CONDITIONS,
            (!conditions.is_empty()).then(|| conditions.into()),
        );
    }
    if !notes.is_empty() {
        tree::map_mut(&mut out, &["metadata", "annotations"]).extend(notes);
    }
    out
}

/// To the stored form. Annotations that can't be read are passed over, as upstream does.
pub(super) fn to_v2(object: Value) -> Value {
    let mut out = frame(&object, "autoscaling/v2");
    let spec = &object["spec"];
    let noted = |key: &str| -> Option<Value> {
        let text = tree::text(&object, &["metadata", "annotations", key]);
        serde_json::from_str(text).ok()
    };
    let metrics_noted = |key: &str, side: &str| -> Vec<Value> {
        let list = noted(key).unwrap_or_default();
        let list = list.as_array().cloned().unwrap_or_default();
        list.iter().map(|metric| metric_to_v2(metric, side)).collect()
    };
    let mut new = shared(spec, &SPEC_SHARED);
    let mut metrics = Vec::new();
    if let Some(percent) = tree::at(spec, &[CPU_PERCENT]) {
        let target = json!({ "type": "Utilization", "averageUtilization": percent });
        metrics.push(json!({ "type": "Resource", "resource": { "name": "cpu", "target": target } }));
    }
    metrics.extend(metrics_noted(METRICS, "target"));
    if !metrics.is_empty() {
        new.insert("metrics".to_owned(), metrics.into());
    }
    tree::set(&mut new, "behavior", noted(BEHAVIOR));
    out["spec"] = new.into();
    if let Some(status) = tree::at(&object, &["status"]) {
        let mut new = shared(status, &STATUS_SHARED);
        let mut current = metrics_noted(CURRENT_METRICS, "current");
        if let Some(percent) = tree::at(status, &[CURRENT_CPU_PERCENT]).filter(|_| current.is_empty()) {
            let value = json!({ "averageUtilization": percent });
            current.push(json!({ "type": "Resource", "resource": { "name": "cpu", "current": value } }));
        }
        let current = (!current.is_empty()).then_some(Value::Array(current));
        tree::set(&mut new, "currentMetrics", current);
        tree::set(&mut new, "conditions", noted(CONDITIONS));
        out["status"] = new.into();
    }
    drop_notes(&mut out);
    out
}

/// Everything but spec and status.
fn frame(object: &Value, api_version: &str) -> Value {
    let mut out = object.clone();
    let map = tree::map_mut(&mut out, &[]);
    map.remove("spec");
    map.remove("status");
    map.insert("apiVersion".to_owned(), api_version.into());
    out
}

fn shared(from: &Value, names: &[&str]) -> Map<String, Value> {
    let found = names
        .iter()
        .filter_map(|name| Some(((*name).to_owned(), tree::at(from, &[name])?.clone())));
    found.collect()
}

fn note(notes: &mut Map<String, Value>, key: &str, value: Option<Value>) {
    if let Some(value) = value {
        notes.insert(key.to_owned(), value.to_string().into());
    }
}

fn drop_notes(object: &mut Value) {
    let metadata = tree::map_mut(object, &["metadata"]);
    let Some(annotations) = metadata.get_mut("annotations").and_then(Value::as_object_mut) else {
        return;
    };
    for key in [METRICS, BEHAVIOR, CURRENT_METRICS, CONDITIONS] {
        annotations.remove(key);
    }
    if annotations.is_empty() {
        metadata.remove("annotations");
    }
}

/// The share of CPU that a metric of v2 is about, if it is about that.
fn cpu_percent<'m>(metric: &'m Value, side: &str) -> Option<&'m Value> {
    let is_cpu =
        tree::text(metric, &["type"]) == "Resource" && tree::text(metric, &["resource", "name"]) == "cpu";
    tree::at(metric, &["resource", side, "averageUtilization"]).filter(|_| is_cpu)
}

fn metric_to_v1(metric: &Value, side: &str) -> Value {
    let mut out = json!({ "type": metric["type"] });
    for names in &NAMES {
        let Some(part) = tree::at(metric, &[names.part]) else {
            continue;
        };
        let mut new = Map::new();
        for (v1, path) in names.shared {
            tree::set(&mut new, v1, tree::at(part, path).cloned());
        }
        for (v1, v2) in names.of(side) {
            tree::set(&mut new, v1, tree::at(part, &[side, v2]).cloned());
        }
        out[names.part] = new.into();
    }
    out
}

fn metric_to_v2(metric: &Value, side: &str) -> Value {
    let mut out = json!({ "type": metric["type"] });
    for names in &NAMES {
        let Some(part) = tree::at(metric, &[names.part]) else {
            continue;
        };
        let mut new = Value::Object(Map::new());
        for (v1, path) in names.shared {
            if let (Some(value), Some((last, outer))) = (tree::at(part, &[v1]), path.split_last()) {
                tree::map_mut(&mut new, outer).insert((*last).to_owned(), value.clone());
            }
        }
        let mut values = Map::new();
        for (v1, v2) in names.of(side) {
            tree::set(&mut values, v2, tree::at(part, &[v1]).cloned());
        }
        if side == "target" {
            let kind = match () {
                () if values.contains_key("averageUtilization") => "Utilization",
                () if values.contains_key("averageValue") => "AverageValue",
                () => "Value",
            };
            values.insert("type".to_owned(), kind.into());
        }
        new[side] = values.into();
        out[names.part] = new;
    }
    out
}

impl Names {
    fn of(&self, side: &str) -> &'static [(&'static str, &'static str)] {
        if side == "target" {
            self.values
        } else {
            self.current
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn v2(metrics: Value, more: &[(&str, Value)]) -> Value {
        let mut object = json!({
            "apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "metadata": {"name": "a"},
            "spec": {"maxReplicas": 3, "minReplicas": 1, "scaleTargetRef": {"kind": "Deployment", "name": "w"}},
        });
        if metrics != json!([]) {
            object["spec"]["metrics"] = metrics;
        }
        for (name, value) in more {
            object[*name] = value.clone();
        }
        object
    }

    fn cpu(percent: i64) -> Value {
        json!({"type": "Resource", "resource": {"name": "cpu",
            "target": {"type": "Utilization", "averageUtilization": percent}}})
    }

    #[test]
    fn there_and_back() {
        let pods = json!({"type": "Pods", "pods": {"metric": {"name": "hits", "selector": {"matchLabels": {"a": "b"}}},
            "target": {"type": "AverageValue", "averageValue": "10"}}});
        let object = json!({"type": "Object", "object": {"describedObject": {"kind": "Service", "name": "s"},
            "metric": {"name": "hits"}, "target": {"type": "Value", "value": "5"}}});
        let memory = json!({"type": "Resource", "resource": {"name": "memory",
            "target": {"type": "AverageValue", "averageValue": "1Gi"}}});
        let external = json!({"type": "External", "external": {"metric": {"name": "queue"},
            "target": {"type": "AverageValue", "averageValue": "30"}}});
        let contained = json!({"type": "ContainerResource", "containerResource": {"name": "cpu", "container": "c",
            "target": {"type": "Utilization", "averageUtilization": 7}}});
        let status = json!({"currentReplicas": 2, "desiredReplicas": 3, "observedGeneration": 1,
            "currentMetrics": [{"type": "Resource", "resource": {"name": "cpu",
                "current": {"averageUtilization": 12, "averageValue": "12m"}}}],
            "conditions": [{"type": "AbleToScale", "status": "True", "reason": "r", "message": "m"}]});
        let behavior = json!({"scaleDown": {"stabilizationWindowSeconds": 5}});
        let mut behaving = v2(json!([cpu(50)]), &[]);
        behaving["spec"]["behavior"] = behavior;
        let cases = [
            ("nothing but cpu", v2(json!([cpu(80)]), &[])),
            ("no metric", v2(json!([]), &[])),
            (
                "cpu and others",
                v2(json!([cpu(80), pods, object, memory, external, contained]), &[]),
            ),
            ("behavior", behaving),
            ("status", v2(json!([cpu(80)]), &[("status", status)])),
        ];
        for (case, stored) in cases {
            assert_eq!(to_v2(to_v1(stored.clone())), stored, "{case}");
        }
    }

    #[test]
    fn v1_knows_the_use_of_cpu() {
        let v1 = to_v1(v2(json!([cpu(80)]), &[]));
        assert_eq!(v1["spec"]["targetCPUUtilizationPercentage"], 80);
        assert_eq!(
            (&v1["apiVersion"], v1["metadata"].get("annotations")),
            (&json!("autoscaling/v1"), None)
        );
        let odd = json!({"apiVersion": "autoscaling/v1", "metadata": {"name": "a", "annotations": {METRICS: "{"}},
            "spec": {"maxReplicas": 2}});
        let v2 = to_v2(odd);
        assert_eq!(v2["metadata"], json!({"name": "a"}));
        assert_eq!(v2["spec"], json!({"maxReplicas": 2}));
    }
}
