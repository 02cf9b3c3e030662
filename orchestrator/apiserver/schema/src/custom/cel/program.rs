//! Expressions outside of schemas: those of admission webhooks and policies. What their variables are is known by name alone.

use std::sync::Arc;

use serde_json::{Map, Value};

use super::ask::Access;
pub use super::ask::{Ask, Decision, Question};
use super::ast::Expr;
use super::check::{Scope, check_names};
use super::eval::{Evaluation, Failure};
use super::value::{Key, Val};
use super::{parse, pointed};

/// A compiled expression.
#[derive(Clone, Debug)]
pub struct Program {
    source: Arc<str>,
    expr: Arc<Expr>,
}

impl Program {
    /// Compiles an expression that uses these names and no others. `makes_objects`: it may make objects of named types.
    ///
    /// # Errors
    /// What is wrong with it, in upstream's way of pointing at it.
    pub fn compile(source: &str, names: &[&str], makes_objects: bool) -> Result<Program, String> {
        let trimmed = source.trim();
        let refuse = |error: &super::SyntaxError| format!("compilation failed: {}", pointed(trimmed, error));
        let expr = parse(trimmed).map_err(|error| refuse(&error))?;
        check_names(&expr, &mut Scope::of_names(names, makes_objects)).map_err(|error| refuse(&error))?;
        Ok(Program {
            source: trimmed.into(),
            expr: Arc::new(expr),
        })
    }

    /// The expression as it was written.
    #[must_use]
    pub fn source(&self) -> &str {
        &self.source
    }

    /// Whether a name stands anywhere in it.
    #[must_use]
    pub fn mentions(&self, name: &str) -> bool {
        self.expr.mentions(name)
    }
}

/// What expressions are evaluated with.
#[derive(Clone, Debug, Default)]
pub struct Given<'a> {
    /// Names and values; null for what is not there.
    pub values: Vec<(&'static str, &'a Value)>,
    /// Evaluated when they are asked for, as `variables.NAME`.
    pub variables: &'a [(String, Program)],
    /// Who answers questions about rights, and the one about the request's own resource.
    pub ask: Option<(&'a dyn Ask, Question)>,
}

/// The value of an expression.
#[derive(Clone, PartialEq, Debug)]
pub enum Outcome {
    /// True or false.
    Bool(bool),
    /// A text.
    Text(String),
    /// Null.
    Null,
    /// Something else, as JSON where it has that form.
    Other(Option<Value>),
}

/// Evaluates an expression and takes what it cost from the budget.
///
/// # Errors
/// Why it has no value.
pub fn evaluate(program: &Program, given: &Given<'_>, budget: &mut u64) -> Result<Outcome, String> {
    let mut values: Vec<(String, Val<'_>)> = Vec::with_capacity(given.values.len() + 1);
    for (name, value) in &given.values {
        values.push(((*name).to_owned(), Val::of(value, None)));
    }
    if let Some((ask, request)) = &given.ask {
        values.push((
            "authorizer".to_owned(),
            Val::Access(Access::new(*ask, request.clone())),
        ));
    }
    let mut evaluation = Evaluation::new(values, *budget);
    for (name, variable) in given.variables {
        evaluation.add_lazy(name, &variable.expr);
    }
    let outcome = evaluation.eval(&program.expr);
    *budget = budget.saturating_sub(evaluation.spent());
    match outcome {
        Ok(Val::Bool(flag)) => Ok(Outcome::Bool(flag)),
        Ok(Val::Text(text)) => Ok(Outcome::Text(text.into_owned())),
        Ok(Val::Null) => Ok(Outcome::Null),
        Ok(other) => Ok(Outcome::Other(to_json(&other))),
        Err(Failure::Error(why)) => Err(why),
        Err(Failure::OverBudget) if *budget == 0 => Err(
            "validation failed due to running out of cost budget, no further validation rules will be run"
                .to_owned(),
        ),
        Err(Failure::OverBudget) => Err("operation cancelled: actual cost limit exceeded".to_owned()),
    }
}

/// A value as JSON; nothing for what has no such form.
fn to_json(value: &Val<'_>) -> Option<Value> {
    Some(match value {
        Val::Null | Val::Optional(None) => Value::Null,
        Val::Bool(flag) => (*flag).into(),
        Val::Int(number) => (*number).into(),
        Val::Uint(number) => (*number).into(),
        Val::Double(number) => serde_json::Number::from_f64(*number)?.into(),
        Val::Text(text) => text.as_ref().into(),
        Val::Bytes(bytes) => {
            use base64::Engine;
            base64::prelude::BASE64_STANDARD.encode(bytes).into()
        }
        Val::Json(value, _) => (*value).clone(),
        Val::Optional(Some(inner)) => to_json(inner)?,
        Val::Time(time) => time.to_string().into(),
        Val::Quantity(quantity) => quantity.to_string().into(),
        Val::List(items) => items.iter().map(to_json).collect::<Option<Vec<Value>>>()?.into(),
        Val::Map(map) => {
            let entry = |(key, value): (&Key, &Val<'_>)| {
                let key = match key {
                    Key::Text(text) => text.clone(),
                    Key::Int(number) => number.to_string(),
                    Key::Bool(flag) => flag.to_string(),
                };
                Some((key, to_json(value)?))
            };
            map.iter()
                .map(entry)
                .collect::<Option<Map<String, Value>>>()?
                .into()
        }
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const NAMES: [&str; 5] = ["object", "oldObject", "request", "variables", "authorizer"];

    fn run(source: &str, variables: &[(String, Program)]) -> Result<Outcome, String> {
        let object =
            json!({"spec": {"replicas": 3, "names": ["a", "b"]}, "metadata": {"labels": {"a/b": "x"}}});
        let given = Given {
            values: vec![("object", &object), ("oldObject", &Value::Null)],
            variables,
            ask: Some((
                &Rights,
                Question {
                    resource: "pods".to_owned(),
                    ..Question::default()
                },
            )),
        };
        let program = Program::compile(source, &NAMES, true)?;
        evaluate(&program, &given, &mut 10_000_000)
    }

    #[derive(Debug)]
    struct Rights;

    impl Ask for Rights {
        fn ask(&self, question: &Question) -> Decision {
            let is_allowed = question.verb == "get" && question.resource != "secrets";
            Decision {
                is_allowed,
                reason: format!("{:?}", question.account),
            }
        }
    }

    #[test]
    fn expressions() {
        let cases = [
            ("object.spec.replicas == 3", Outcome::Bool(true)),
            ("oldObject == null", Outcome::Bool(true)),
            (
                "'n: ' + string(object.spec.replicas)",
                Outcome::Text("n: 3".to_owned()),
            ),
            (
                "authorizer.group('').resource('secrets').namespace('a').check('get').allowed()",
                Outcome::Bool(false),
            ),
            (
                "authorizer.requestResource.check('get').allowed()",
                Outcome::Bool(true),
            ),
            (
                "authorizer.serviceAccount('a', 'b').path('/x').check('get').reason()",
                Outcome::Text("Some((\"a\", \"b\"))".to_owned()),
            ),
            (
                "Object{spec: Object.spec{replicas: object.spec.replicas + 1, ?none: optional.none()}}",
                Outcome::Other(Some(json!({"spec": {"replicas": 4}}))),
            ),
            (
                "[JSONPatch{op: 'add', path: '/metadata/labels/' + jsonpatch.escapeKey('a/b'), value: 'y'}]",
                Outcome::Other(Some(
                    json!([{"op": "add", "path": "/metadata/labels/a~1b", "value": "y"}]),
                )),
            ),
        ];
        for (source, expected) in cases {
            assert_eq!(run(source, &[]), Ok(expected), "{source}");
        }
    }

    #[test]
    fn variables_are_evaluated_when_they_are_asked_for() {
        let program = |source: &str| Program::compile(source, &NAMES, false).unwrap();
        let variables = [
            ("count".to_owned(), program("size(object.spec.names)")),
            ("double".to_owned(), program("variables.count * 2")),
            ("broken".to_owned(), program("object.nothing")),
            ("self".to_owned(), program("variables.self")),
        ];
        assert_eq!(
            run(
                "variables.double == 4 && variables.double > variables.count",
                &variables
            ),
            Ok(Outcome::Bool(true))
        );
        assert_eq!(
            run("variables.broken == 1", &variables),
            Err("no such key: nothing".to_owned())
        );
        assert!(run("variables.self == 1", &variables).is_err());
    }

    #[test]
    fn what_does_not_compile() {
        for (source, expected) in [
            ("object.", "Syntax error"),
            ("params.x", "undeclared reference to 'params'"),
            ("Pod{a: 1}", "undeclared reference to 'Pod'"),
        ] {
            let error = Program::compile(source, &NAMES, true).unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
        assert!(Program::compile("Object{a: 1}", &NAMES, false).is_err());
    }
}
