//! MutatingAdmissionPolicies: expressions that say how an object is changed.

use moorline_schema::cel::{self, Given, Outcome};
use moorline_schema::managed_fields::Versions;
use moorline_schema::structured_merge;
use serde_json::Value;

use super::matching::Operation;
use super::policies::{self, Mutation, Policy};
use super::subject::Subject;
use super::webhooks::taken_over;
use crate::http::Failure;
use crate::objects::owners::ServedVersions;
use crate::objects::{Call, tree};

/// What one mutation may cost, as upstream limits it.
const COST_MAX: u64 = 10_000_000;

/// Changes an object as all policies say whose business it is, in the order of their names; true if it was changed.
/// `again`: only those that are evaluated again.
pub(super) fn mutate(
    policies: &[Policy],
    call: &Call<'_>,
    (operation, old): (Operation, Option<&Value>),
    object: &mut Value,
    again: bool,
) -> Result<bool, Failure> {
    let before = if policies.is_empty() {
        Value::Null
    } else {
        object.clone()
    };
    for policy in policies.iter().filter(|policy| !again || policy.is_reinvoked) {
        for binding in &policy.bindings {
            let found = {
                let subject = Subject::new(call, operation, old, Some(&*object));
                let matched = subject.with_request(|request| {
                    let found = policy
                        .matcher
                        .find(request)
                        .filter(|_| binding.matcher.find(request).is_some());
                    found.map(|(group, version)| (group.to_owned(), version.to_owned()))
                });
                matched.map(|matched| (matched, policies::params(policy, binding, &subject)))
            };
            let Some((matched, params)) = found else { continue };
            let failed = |why: String| {
                refusal(
                    call,
                    object_name(call, &before),
                    &policy.name,
                    &binding.name,
                    &why,
                )
            };
            let params = match params {
                Ok(params) => params,
                Err(_) if !policy.is_fatal => continue,
                Err(why) => return Err(failed(format!("failed to configure binding: {why}"))),
            };
            for param in params {
                match change(policy, call, (operation, old), object, (&matched, &param)) {
                    Err(Fault::Final(failure)) => return Err(failure),
                    Err(Fault::Policy(why)) if policy.is_fatal => return Err(failed(why)),
                    _ => {}
                }
            }
        }
    }
    Ok(!policies.is_empty() && *object != before)
}

fn object_name<'o>(call: &'o Call<'_>, object: &'o Value) -> &'o str {
    call.name
        .unwrap_or_else(|| tree::text(object, &["metadata", "name"]))
}

fn refusal(call: &Call<'_>, name: &str, policy: &str, binding: &str, why: &str) -> Failure {
    let message = format!("policy '{policy}' with binding '{binding}' denied request: {why}");
    Failure::forbidden(call.resource.about(name), &message).by_mutation(message)
}

/// Why an object was not changed.
enum Fault {
    /// The policy's own failure, which may count or not.
    Policy(String),
    /// What came of it is no object of its kind.
    Final(Failure),
}

/// Makes all changes of a policy, each on what the one before led to.
fn change(
    policy: &Policy,
    call: &Call<'_>,
    (operation, old): (Operation, Option<&Value>),
    object: &mut Value,
    (matched, param): (&(String, String), &Value),
) -> Result<(), Fault> {
    for mutation in &policy.mutations {
        let changed = {
            let subject = Subject::new(call, operation, old, Some(&*object));
            let (group, version) = matched;
            let shown = subject
                .new
                .as_deref()
                .map(|new| subject.in_version(new, group, version));
            let Some(shown) = shown else { return Ok(()) };
            let outcome = policy.with(&subject, matched, param, |given| {
                changed(mutation, given, call, &shown)
            });
            let Some(changed) = outcome.map_err(Fault::Policy)? else {
                return Ok(());
            };
            let facts = call.resource.facts;
            subject.in_version(&changed.map_err(Fault::Policy)?, facts.group, facts.version)
        };
        *object = taken_over(call, object, changed).map_err(Fault::Final)?;
    }
    Ok(())
}

/// What one mutation makes of an object.
fn changed(mutation: &Mutation, given: &Given<'_>, call: &Call<'_>, object: &Value) -> Result<Value, String> {
    let mut budget = COST_MAX;
    let evaluated = |program, budget: &mut u64| match cel::evaluate(program, given, budget)? {
        Outcome::Other(Some(value)) => Ok(value),
        _ => Err("the expression gives neither an object nor a list".to_owned()),
    };
    match mutation {
        Mutation::Patch(program) => {
            let operations = evaluated(program, &mut budget)?;
            let patch: json_patch::Patch =
                serde_json::from_value(operations).map_err(|error| format!("JSON Patch: {error}"))?;
            let mut patched = object.clone();
            match json_patch::patch(&mut patched, &patch) {
                Ok(()) => Ok(patched),
                // A test that fails means: leave it as it is.
                Err(error) if matches!(error.kind, json_patch::PatchErrorKind::TestFailed) => {
                    Ok(object.clone())
                }
                Err(error) => Err(format!("JSON Patch: {error}")),
            }
        }
        Mutation::Apply(program) => {
            let mut config = evaluated(program, &mut budget)?;
            if !config.is_object() {
                return Err("the expression gives no object".to_owned());
            }
            for field in ["apiVersion", "kind"] {
                tree::set(tree::map_mut(&mut config, &[]), field, object.get(field).cloned());
            }
            let api_version = tree::text(object, &["apiVersion"]);
            let versions = ServedVersions::of(call);
            let schema = versions
                .schema(api_version)
                .ok_or_else(|| format!("no schema is known for {api_version}"))?;
            structured_merge::check(schema, &config).map_err(|faults| {
                format!("error applying patch: failed to convert patch object to typed object: {faults}")
            })?;
            structured_merge::merge(schema, object, &config)
                .map_err(|faults| format!("error applying patch: failed to merge patch: {faults}"))
        }
    }
}
