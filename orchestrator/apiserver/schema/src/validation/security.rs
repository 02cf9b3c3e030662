//! Security contexts of pods and containers.

use serde_json::Value;

use super::faults::Faults;
use crate::object::{at, list, text};
use crate::place::Place;

const ID_MAX: i64 = i32::MAX as i64;
const SPEC: Place<'static> = Place::top("spec");

fn id(place: &Place<'_>, id: Option<&Value>, faults: &mut Faults) {
    if let Some(id) = id.and_then(Value::as_i64).filter(|id| !(0..=ID_MAX).contains(id)) {
        faults.invalid(place, id, &format!("must be between 0 and {ID_MAX}, inclusive"));
    }
}

pub(super) fn pod(spec: &Value, faults: &mut Faults) {
    let place = SPEC.field("securityContext");
    for name in ["runAsUser", "runAsGroup", "fsGroup"] {
        id(&place.field(name), at(spec, &["securityContext", name]), faults);
    }
    let groups = place.field("supplementalGroups");
    for (index, group) in list(spec, &["securityContext", "supplementalGroups"])
        .iter()
        .enumerate()
    {
        id(&groups.index(index), Some(group), faults);
    }
    let policy = text(spec, &["securityContext", "fsGroupChangePolicy"]);
    faults.one_of_if_set(
        &place.field("fsGroupChangePolicy"),
        policy,
        &["Always", "OnRootMismatch"],
    );
    let is_set = |name: &str| at(spec, &[name]).and_then(Value::as_bool) == Some(true);
    if is_set("shareProcessNamespace") && is_set("hostPID") {
        let detail = "ShareProcessNamespace and HostPID cannot both be enabled";
        faults.invalid(&place.field("shareProcessNamespace"), true, detail);
    }
}

pub(super) fn container(place: &Place<'_>, container: &Value, faults: &mut Faults) {
    let Some(context) = at(container, &["securityContext"]) else {
        return;
    };
    let place = place.field("securityContext");
    for name in ["runAsUser", "runAsGroup"] {
        id(&place.field(name), at(context, &[name]), faults);
    }
    let flag = |name: &str| at(context, &[name]).and_then(Value::as_bool);
    if flag("allowPrivilegeEscalation") == Some(false) {
        if flag("privileged") == Some(true) {
            let detail = "cannot set `allowPrivilegeEscalation` to false and `privileged` to true";
            faults.invalid(&place, context.clone(), detail);
        }
        let added = list(context, &["capabilities", "add"]);
        if added
            .iter()
            .any(|capability| capability.as_str() == Some("CAP_SYS_ADMIN"))
        {
            let detail =
                "cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN";
            faults.invalid(&place, context.clone(), detail);
        }
    }
}
