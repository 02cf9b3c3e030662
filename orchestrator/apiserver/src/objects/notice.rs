//! Says what this server does not do with the objects of a kind that upstream's server itself would act on. Pure.

use moorline_schema::ResourceFacts;

/// What a writer of such an object is told.
pub(crate) fn of(facts: &ResourceFacts) -> Option<String> {
    if facts.custom {
        return None;
    }
    let missing = match (facts.group, facts.plural) {
        ("apiregistration.k8s.io", _) => "passes no requests on to other servers",
        ("flowcontrol.apiserver.k8s.io", _) => "queues no requests by them",
        ("networking.k8s.io", "servicecidrs") => "takes no addresses from further ranges",
        _ => return None,
    };
    Some(format!("{} are stored; this server {missing}", facts.plural))
}

#[cfg(test)]
mod tests {
    use moorline_schema::Registry;

    use super::*;

    #[test]
    fn only_what_the_server_itself_should_do_is_told() {
        let cases = [
            ("", "resourcequotas", None),
            ("admissionregistration.k8s.io", "mutatingadmissionpolicies", None),
            // Others may act on these.
            ("apps", "deployments", None),
            ("", "configmaps", None),
            ("networking.k8s.io", "networkpolicies", None),
        ];
        for (group, plural, expected) in cases {
            let facts = Registry::builtin().resource(group, "v1", plural).unwrap();
            assert_eq!(of(facts).as_deref(), expected, "{plural}");
        }
    }
}
