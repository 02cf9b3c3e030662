//! HorizontalPodAutoscalers.

use serde_json::{Map, Value, json};

use super::{child, existing};
use crate::object::{set_default, set_if_empty};

pub(super) fn autoscaler(object: &mut Map<String, Value>) {
    let Some(spec) = child(object, "spec") else { return };
    set_default(spec, "minReplicas", 1);
    let by_cpu = json!([{
        "type": "Resource",
        "resource": { "name": "cpu", "target": { "type": "Utilization", "averageUtilization": 80 } },
    }]);
    set_if_empty(spec, "metrics", by_cpu);
    let Some(behavior) = existing(spec, "behavior") else {
        return;
    };
    let by_share = json!({ "type": "Percent", "value": 100, "periodSeconds": 15 });
    let by_count = json!({ "type": "Pods", "value": 4, "periodSeconds": 15 });
    if let Some(up) = child(behavior, "scaleUp") {
        set_default(up, "stabilizationWindowSeconds", 0);
        set_default(up, "selectPolicy", "Max");
        set_default(up, "policies", json!([by_count, by_share]));
    }
    if let Some(down) = child(behavior, "scaleDown") {
        set_default(down, "selectPolicy", "Max");
        set_default(down, "policies", json!([by_share]));
    }
}
