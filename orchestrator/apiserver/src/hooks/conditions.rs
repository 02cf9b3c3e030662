//! Conditions on a request, written in CEL.

use moorline_schema::cel::{self, Ask, Decision, Given, Outcome, Program, Question};
use serde_json::Value;

use super::subject::Subject;
use crate::api::Api;
use crate::auth::User;
use crate::auth::rbac::Attributes;
use crate::objects::tree;

/// What all conditions of one webhook or policy may cost together, as upstream limits it.
const COST_MAX: u64 = 2_500_000;

/// Answers questions about rights.
#[derive(Debug)]
pub(crate) struct Rights<'r> {
    pub(crate) api: &'r Api,
    pub(crate) user: &'r User,
}

impl Ask for Rights<'_> {
    fn ask(&self, question: &Question) -> Decision {
        let account = question.account.as_ref().map(|(namespace, name)| {
            let groups = [
                "system:serviceaccounts".to_owned(),
                format!("system:serviceaccounts:{namespace}"),
            ];
            User::authenticated(&format!("system:serviceaccount:{namespace}:{name}"), groups)
        });
        let attributes = Attributes {
            verb: &question.verb,
            group: &question.group,
            resource: &question.resource,
            subresource: &question.subresource,
            namespace: &question.namespace,
            name: &question.name,
            path: &question.path,
        };
        Decision {
            is_allowed: self
                .api
                .authorizer
                .allows(account.as_ref().unwrap_or(self.user), &attributes),
            reason: String::new(),
        }
    }
}

/// The question about what the request itself is about.
pub(crate) fn own_question(subject: &Subject<'_>) -> Question {
    let place = subject.place();
    Question {
        group: place.group.to_owned(),
        resource: place.plural.to_owned(),
        subresource: place.subresource.to_owned(),
        namespace: subject.namespace_name().to_owned(),
        name: subject.call.name.unwrap_or_default().to_owned(),
        ..Question::default()
    }
}

/// A condition.
#[derive(Debug, Clone)]
pub(crate) struct Condition {
    name: String,
    /// Or why it can't be evaluated.
    program: Result<Program, String>,
}

/// Compiles the conditions of a webhook or policy.
pub(crate) fn compile(owner: &Value, names: &[&str]) -> Vec<Condition> {
    let conditions = tree::list(owner, &["matchConditions"]).iter();
    let compiled = conditions.map(|condition| Condition {
        name: tree::text(condition, &["name"]).to_owned(),
        program: Program::compile(tree::text(condition, &["expression"]), names, false),
    });
    compiled.collect()
}

/// Whether all conditions hold. One that does not decides, whatever became of the others.
pub(crate) fn hold(conditions: &[Condition], given: &Given<'_>) -> Result<bool, String> {
    let mut budget = COST_MAX;
    let mut faults = Vec::new();
    for condition in conditions {
        let outcome = match &condition.program {
            Ok(program) => cel::evaluate(program, given, &mut budget),
            Err(why) => Err(why.clone()),
        };
        match outcome {
            Ok(Outcome::Bool(true)) => {}
            Ok(Outcome::Bool(false)) => return Ok(false),
            Ok(_) => faults.push(format!(
                "matchCondition {:?} gives no truth value",
                condition.name
            )),
            Err(why) => faults.push(why),
        }
    }
    match faults.len() {
        0 => Ok(true),
        1 => Err(faults.concat()),
        _ => Err(format!("[{}]", faults.join(", "))),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn one_that_does_not_hold_decides() {
        let object = json!({"metadata": {"name": "a"}});
        let given = Given {
            values: vec![("object", &object)],
            ..Given::default()
        };
        let yes = "object.metadata.name == 'a'";
        let no = "object.metadata.name == 'b'";
        let fails = "object.spec.x == 1";
        let cases = [
            ("none", vec![], Ok(true)),
            ("all hold", vec![yes, yes], Ok(true)),
            ("one does not", vec![yes, no], Ok(false)),
            ("one fails", vec![yes, fails], Err("no such key: spec".to_owned())),
            ("one fails, one does not hold", vec![fails, no], Ok(false)),
        ];
        for (case, expressions, expected) in cases {
            let conditions: Vec<Value> = expressions
                .iter()
                .map(|one| json!({"name": "c", "expression": one}))
                .collect();
            let compiled = compile(&json!({"matchConditions": conditions}), &["object"]);
            assert_eq!(hold(&compiled, &given), expected, "{case}");
        }
    }
}
