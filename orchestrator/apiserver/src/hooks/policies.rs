//! Admission policies: expressions over requests, bound to where they hold, with parameters.

use std::sync::Arc;

use moorline_schema::cel::{self, Given, Outcome, Program, Question};
use moorline_schema::selector::LabelSelector;
use serde_json::{Value, json};

use super::conditions::{self, Condition, Rights};
use super::matching::Matcher;
use super::subject::Subject;
use crate::cache::Entry;
use crate::http::Failure;
use crate::objects::{Resource, tree};

/// What the expressions of one policy may cost together, as upstream limits it.
const COST_MAX: u64 = 10_000_000;
const MESSAGE_BYTES_MAX: usize = 5 * 1024;

/// A policy with its bindings.
#[derive(Debug)]
pub(super) struct Policy {
    pub(super) name: String,
    pub(super) matcher: Matcher,
    /// `apiVersion` and kind of its parameters.
    param_kind: Option<(String, String)>,
    conditions: Vec<Condition>,
    variables: Vec<(String, Program)>,
    validations: Vec<Validation>,
    pub(super) mutations: Vec<Mutation>,
    /// Whether it is evaluated again if the object was changed after it.
    pub(super) is_reinvoked: bool,
    /// Why it can't be evaluated.
    fault: Option<String>,
    pub(super) is_fatal: bool,
    pub(super) bindings: Vec<Binding>,
}

/// How a policy changes an object.
#[derive(Debug)]
pub(super) enum Mutation {
    /// The expression gives a configuration that is merged into it.
    Apply(Program),
    /// It gives operations of a JSON patch.
    Patch(Program),
}

#[derive(Debug)]
struct Validation {
    program: Program,
    message: String,
    message_program: Option<Program>,
    reason: String,
}

#[derive(Debug)]
pub(super) struct Binding {
    pub(super) name: String,
    pub(super) matcher: Matcher,
    /// `paramRef`.
    param: Option<Value>,
    denies: bool,
    warns: bool,
}

/// Compiles policies; those without a binding do nothing.
pub(super) fn compile(policies: &[Value], bindings: &[Value]) -> Vec<Policy> {
    let bound = |policy: &Value| -> Vec<Binding> {
        let name = tree::text(policy, &["metadata", "name"]);
        let own = bindings
            .iter()
            .filter(|binding| tree::text(binding, &["spec", "policyName"]) == name);
        own.map(binding).collect()
    };
    let compiled = policies.iter().map(|one| policy(one, bound(one)));
    compiled.filter(|policy| !policy.bindings.is_empty()).collect()
}

fn binding(binding: &Value) -> Binding {
    let actions = tree::list(binding, &["spec", "validationActions"]);
    Binding {
        name: tree::text(binding, &["metadata", "name"]).to_owned(),
        matcher: Matcher::of_policy(tree::at(binding, &["spec", "matchResources"]), true),
        param: tree::at(binding, &["spec", "paramRef"]).cloned(),
        denies: actions.contains(&json!("Deny")),
        warns: actions.contains(&json!("Warn")),
    }
}

fn policy(policy: &Value, bindings: Vec<Binding>) -> Policy {
    let spec = &policy["spec"];
    let mut fault = None;
    let changes = !tree::list(spec, &["mutations"]).is_empty();
    let mut compiled = |source: &str| match Program::compile(source, cel::names::OF_POLICY, changes) {
        Ok(program) => Some(program),
        Err(why) => {
            fault.get_or_insert(why);
            None
        }
    };
    let variables = tree::list(spec, &["variables"]).iter().filter_map(|variable| {
        let program = compiled(tree::text(variable, &["expression"]))?;
        Some((tree::text(variable, &["name"]).to_owned(), program))
    });
    let variables: Vec<(String, Program)> = variables.collect();
    let validations = tree::list(spec, &["validations"])
        .iter()
        .filter_map(|validation| {
            let message_source = tree::text(validation, &["messageExpression"]);
            Some(Validation {
                program: compiled(tree::text(validation, &["expression"]))?,
                message: tree::text(validation, &["message"]).trim().to_owned(),
                message_program: Some(message_source)
                    .filter(|source| !source.is_empty())
                    .and_then(&mut compiled),
                reason: tree::text(validation, &["reason"]).to_owned(),
            })
        });
    let validations = validations.collect();
    let mutations = tree::list(spec, &["mutations"]).iter().filter_map(|mutation| {
        let source = |field: &str| tree::text(mutation, &[field, "expression"]);
        match tree::text(mutation, &["patchType"]) {
            "JSONPatch" => compiled(source("jsonPatch")).map(Mutation::Patch),
            _ => compiled(source("applyConfiguration")).map(Mutation::Apply),
        }
    });
    let mutations = mutations.collect();
    let kind = tree::at(spec, &["paramKind"]);
    Policy {
        name: tree::text(policy, &["metadata", "name"]).to_owned(),
        matcher: Matcher::of_policy(tree::at(spec, &["matchConstraints"]), false),
        param_kind: kind.map(|kind| {
            let text = |field: &str| tree::text(kind, &[field]).to_owned();
            (text("apiVersion"), text("kind"))
        }),
        conditions: conditions::compile(spec, cel::names::OF_POLICY_CONDITION),
        variables,
        validations,
        mutations,
        is_reinvoked: tree::text(spec, &["reinvocationPolicy"]) == "IfNeeded",
        fault,
        is_fatal: tree::text(spec, &["failurePolicy"]) != "Ignore",
        bindings,
    }
}

/// Why a policy refuses a request.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Denied {
    message: String,
    reason: String,
}

impl Denied {
    /// Of a policy that could not be evaluated.
    fn by_fault(message: String) -> Denied {
        Denied {
            message,
            reason: String::new(),
        }
    }
}

/// Evaluates all policies whose business a request is. The first refusal counts.
pub(super) fn validate(policies: &[Policy], subject: &Subject<'_>) -> Result<(), Failure> {
    let mut first = None;
    for policy in policies {
        let found = subject.with_request(|request| {
            let found = policy.matcher.find(request);
            found.map(|(group, version)| (group.to_owned(), version.to_owned()))
        });
        let Some(matched) = found else { continue };
        for binding in &policy.bindings {
            if subject.with_request(|request| binding.matcher.find(request).is_none()) {
                continue;
            }
            let params = match params(policy, binding, subject) {
                Ok(params) => params,
                Err(why) if policy.is_fatal => {
                    let denied = Denied::by_fault(format!("failed to configure binding: {why}"));
                    first.get_or_insert((policy, binding, denied));
                    continue;
                }
                Err(_) => continue,
            };
            for param in params {
                for denied in policy.evaluate(subject, &matched, &param) {
                    if binding.warns {
                        subject.call.notes.warn(format!(
                            "Validation failed for ValidatingAdmissionPolicy '{}' with binding '{}': {}",
                            policy.name, binding.name, denied.message
                        ));
                    }
                    if binding.denies {
                        first.get_or_insert((policy, binding, denied));
                    }
                }
            }
        }
    }
    match first {
        None => Ok(()),
        Some((policy, binding, denied)) => Err(refusal(subject, policy, binding, &denied)),
    }
}

fn refusal(subject: &Subject<'_>, policy: &Policy, binding: &Binding, denied: &Denied) -> Failure {
    let message = format!(
        "ValidatingAdmissionPolicy '{}' with binding '{}' denied request: {}",
        policy.name, binding.name, denied.message
    );
    let name = subject.call.name.map(str::to_owned).or_else(|| {
        let object = subject.new.as_deref().or(subject.old.as_deref());
        object.map(|object| tree::text(object, &["metadata", "name"]).to_owned())
    });
    let about = subject.call.resource.about(name.as_deref().unwrap_or_default());
    Failure::forbidden(about, &message).by_policy(&denied.reason, message)
}

/// The objects that a policy is evaluated with; null where it needs none.
pub(super) fn params(
    policy: &Policy,
    binding: &Binding,
    subject: &Subject<'_>,
) -> Result<Vec<Value>, String> {
    let (Some((api_version, kind)), Some(reference)) = (&policy.param_kind, &binding.param) else {
        return Ok(vec![Value::Null]);
    };
    let api = subject.call.api;
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    let served = api.customs.served();
    let resource = match api.registry.resource_by_kind(group, version, kind) {
        Some(facts) => Resource::of(api, facts),
        None => {
            let custom = served.by_kind(group, version, kind).cloned();
            let custom =
                custom.ok_or_else(|| format!("paramKind kind `{api_version}, Kind={kind}` not known"))?;
            Resource::of(api, custom.facts)
        }
    };
    let collection = resource
        .collection
        .clone()
        .ok_or("nothing of the paramKind is stored")?;
    let stated = tree::text(reference, &["namespace"]);
    let namespace = match (resource.facts.namespaced, stated) {
        (false, "") => "",
        (false, _) => {
            return Err(
                "paramRef.namespace must not be provided for a cluster-scoped `paramKind`".to_owned(),
            );
        }
        (true, "") if subject.namespace_name().is_empty() => {
            return Err(
                "cannot use namespaced paramRef in policy binding that matches cluster-scoped resources"
                    .to_owned(),
            );
        }
        (true, "") => subject.namespace_name(),
        (true, stated) => stated,
    };
    let prefix = if namespace.is_empty() {
        String::new()
    } else {
        format!("{namespace}/")
    };
    let name = tree::text(reference, &["name"]);
    let entries: Vec<Arc<Entry>> = if name.is_empty() {
        let selector = tree::at(reference, &["selector"])
            .map(LabelSelector::from_object)
            .unwrap_or_default();
        let all = collection.snapshot(&prefix, || 0).entries.into_iter();
        all.filter(|entry| selector.matches(entry.facts.labels.as_ref()))
            .collect()
    } else {
        collection.get(&format!("{prefix}{name}")).into_iter().collect()
    };
    let found: Vec<Value> = entries
        .iter()
        .map(|entry| resource.served(&entry.value()).into_owned())
        .collect();
    if found.is_empty() && tree::text(reference, &["parameterNotFoundAction"]) == "Deny" {
        return Err("no params found for policy binding with `Deny` parameterNotFoundAction".to_owned());
    }
    Ok(found)
}

impl Policy {
    /// What of the policy a request breaks, with one parameter.
    fn evaluate(&self, subject: &Subject<'_>, matched: &(String, String), param: &Value) -> Vec<Denied> {
        let broken = |given: &Given<'_>| broken(&self.validations, given, self.is_fatal);
        match self.with(subject, matched, param, broken) {
            Ok(denied) => denied.unwrap_or_default(),
            Err(why) if self.is_fatal => vec![Denied::by_fault(why)],
            Err(_) => Vec::new(),
        }
    }

    /// Runs `act` with what its expressions are evaluated with; nothing if its conditions do not hold.
    pub(super) fn with<T>(
        &self,
        subject: &Subject<'_>,
        (group, version): &(String, String),
        param: &Value,
        act: impl FnOnce(&Given<'_>) -> T,
    ) -> Result<Option<T>, String> {
        if let Some(fault) = &self.fault {
            return Err(fault.clone());
        }
        let in_version = |object: Option<&Value>| {
            object.map_or(Value::Null, |one| subject.in_version(one, group, version))
        };
        let (object, old) = (
            in_version(subject.new.as_deref()),
            in_version(subject.old.as_deref()),
        );
        let (request, namespace) = (subject.head(group, version), subject.namespace_object());
        let rights = Rights {
            api: subject.call.api,
            user: subject.call.user,
        };
        let question: Question = conditions::own_question(subject);
        let given = Given {
            values: vec![
                ("object", &object),
                ("oldObject", &old),
                ("request", &request),
                ("params", param),
                ("namespaceObject", &namespace),
            ],
            variables: &self.variables,
            ask: Some((&rights, question)),
        };
        let holds = conditions::hold(&self.conditions, &given)?;
        Ok(holds.then(|| act(&given)))
    }
}

/// The validations that do not hold.
fn broken(validations: &[Validation], given: &Given<'_>, is_fatal: bool) -> Vec<Denied> {
    let mut budget = COST_MAX;
    let mut denied = Vec::new();
    for validation in validations {
        match cel::evaluate(&validation.program, given, &mut budget) {
            Ok(Outcome::Bool(true)) => {}
            Ok(_) => denied.push(Denied {
                message: validation.told(given, &mut budget),
                reason: validation.reason.clone(),
            }),
            Err(why) if is_fatal => {
                let source = validation.program.source();
                denied.push(Denied::by_fault(format!(
                    "expression '{source}' resulted in error: {why}"
                )));
            }
            Err(_) => {}
        }
    }
    denied
}

impl Validation {
    /// The text its expression gives, else its message, else the expression itself.
    fn told(&self, given: &Given<'_>, budget: &mut u64) -> String {
        let computed = self
            .message_program
            .as_ref()
            .map(|program| cel::evaluate(program, given, budget));
        if let Some(Ok(Outcome::Text(text))) = computed {
            let text = text.trim();
            if !text.is_empty() && text.len() <= MESSAGE_BYTES_MAX && !text.contains('\n') {
                return text.to_owned();
            }
        }
        match self.message.as_str() {
            "" => format!("failed expression: {}", self.program.source()),
            message => message.to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_broken_is_told() {
        let spec = json!({"metadata": {"name": "p"}, "spec": {
        "variables": [{"name": "count", "expression": "object.spec.replicas"}],
        "validations": [
            {"expression": "variables.count <= params.max", "messageExpression": "'at most ' + string(params.max)", "reason": "Forbidden"},
            {"expression": "variables.count != 7", "message": "seven"},
            {"expression": "variables.count > 0"},
            {"expression": "object.spec.none == 1"},
        ]}});
        let policy = policy(&spec, Vec::new());
        assert_eq!(policy.fault, None);
        let told = |replicas: i64, is_fatal: bool| -> Vec<String> {
            let (object, params) = (json!({"spec": {"replicas": replicas}}), json!({"max": 5}));
            let given = Given {
                values: vec![("object", &object), ("params", &params)],
                variables: &policy.variables,
                ask: None,
            };
            broken(&policy.validations, &given, is_fatal)
                .into_iter()
                .map(|denied| denied.message)
                .collect()
        };
        let cases: [(i64, &[&str]); 4] = [
            (3, &[]),
            (6, &["at most 5"]),
            (7, &["at most 5", "seven"]),
            (0, &["failed expression: variables.count > 0"]),
        ];
        for (replicas, expected) in cases {
            assert_eq!(told(replicas, false), expected, "{replicas}");
        }
        assert_eq!(
            told(3, true),
            ["expression 'object.spec.none == 1' resulted in error: no such key: none"]
        );
    }

    #[test]
    fn only_bound_policies_count() {
        let policy = |name: &str| json!({"metadata": {"name": name}, "spec": {"validations": [{"expression": "true"}]}});
        let binding = json!({"metadata": {"name": "b"}, "spec": {"policyName": "bound", "validationActions": ["Deny"]}});
        let compiled = compile(&[policy("bound"), policy("free")], &[binding]);
        assert_eq!(compiled.len(), 1);
        assert!(compiled[0].bindings[0].denies && !compiled[0].bindings[0].warns);
    }
}
