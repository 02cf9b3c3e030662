//! CEL rules of schemas: `x-kubernetes-validations`.

use std::sync::Arc;

use serde_json::Value;

use super::cel::{self, Evaluation, Expr, Failure, Scope, Val};
use super::structural::{JsonType, Schema};
use super::validation::old_item;
use crate::object::text;
use crate::place::Place;
use crate::validation::faults::Faults;

/// What all rules of one object may cost together, as upstream limits it.
const OBJECT_COST_MAX: u64 = 10_000_000;
/// Messages are cut off here.
const MESSAGE_BYTES_MAX: usize = 5 * 1024;

/// A compiled rule.
#[derive(Clone, Debug)]
pub struct Rule {
    source: String,
    expr: Arc<Expr>,
    message: String,
    message_expr: Option<Arc<Expr>>,
    reason: Reason,
    /// Such as `.spec.size`, below the rule's own place.
    field_path: String,
    /// It compares with the state before.
    is_transition: bool,
    optional_old: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Reason {
    Invalid,
    Forbidden,
    Required,
    Duplicate,
}

/// Why a rule can't be compiled.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RuleError {
    /// The field of the rule that is wrong, such as `rule`.
    pub field: &'static str,
    /// What is wrong with it.
    pub message: String,
}

impl Rule {
    /// Compiles an entry of `x-kubernetes-validations` that stands at a schema.
    ///
    /// # Errors
    /// [`RuleError`].
    pub fn compile(rule: &Value, schema: &Schema) -> Result<Rule, RuleError> {
        let wrong = |field, message: &str| {
            Err(RuleError {
                field,
                message: message.to_owned(),
            })
        };
        let source = text(rule, &["rule"]).trim().to_owned();
        if source.is_empty() {
            return wrong("rule", "rule is not specified");
        }
        let optional_old = rule["optionalOldSelf"] == Value::Bool(true);
        let expr = compile("rule", &source, schema, optional_old)?;
        let is_transition = expr.mentions("oldSelf");
        if optional_old && !is_transition {
            return wrong("optionalOldSelf", "may not be set if oldSelf is not used in rule");
        }
        let message = text(rule, &["message"]).trim().to_owned();
        let message_expr = text(rule, &["messageExpression"]).trim();
        if source.contains('\n') && message.is_empty() && message_expr.is_empty() {
            return wrong(
                "message",
                "message must be specified if rule contains line breaks",
            );
        }
        if message.contains('\n') {
            return wrong("message", "message must not contain line breaks");
        }
        let message_expr = match message_expr {
            "" => None,
            source => Some(Arc::new(compile(
                "messageExpression",
                source,
                schema,
                optional_old,
            )?)),
        };
        let reason = match text(rule, &["reason"]) {
            "" | "FieldValueInvalid" => Reason::Invalid,
            "FieldValueForbidden" => Reason::Forbidden,
            "FieldValueRequired" => Reason::Required,
            "FieldValueDuplicate" => Reason::Duplicate,
            _ => {
                let known = "supported values: \"FieldValueRequired\", \"FieldValueForbidden\", \"FieldValueInvalid\", \"FieldValueDuplicate\"";
                return wrong("reason", known);
            }
        };
        let field_path = text(rule, &["fieldPath"]).to_owned();
        check_field_path(&field_path, schema)?;
        Ok(Rule {
            source,
            expr: Arc::new(expr),
            message,
            message_expr,
            reason,
            field_path,
            is_transition,
            optional_old,
        })
    }
}

fn compile(
    field: &'static str,
    source: &str,
    schema: &Schema,
    optional_old: bool,
) -> Result<Expr, RuleError> {
    let refuse = |error: &cel::SyntaxError| RuleError {
        field,
        message: format!("compilation failed: {}", cel::pointed(source, error)),
    };
    let expr = cel::parse(source).map_err(|error| refuse(&error))?;
    let mut scope = Scope::of_rule(schema, optional_old);
    cel::check(&expr, &mut scope, field == "rule").map_err(|error| refuse(&error))?;
    Ok(expr)
}

/// A field path names a field below the rule's place.
fn check_field_path(path: &str, schema: &Schema) -> Result<(), RuleError> {
    if path.is_empty() {
        return Ok(());
    }
    let refuse = |why: &str| {
        Err(RuleError {
            field: "fieldPath",
            message: format!("fieldPath must be a valid path: {why}"),
        })
    };
    let Ok(parsed) = super::jsonpath::Path::parse(path) else {
        return refuse("expected a path of fields such as .spec.size");
    };
    let Some(fields) = parsed.fields() else {
        return refuse("only fields can be referenced");
    };
    let mut at = schema;
    for field in fields {
        match at.field(field) {
            Some(next) => at = next,
            None if at.preserve_unknown => return Ok(()),
            None => return refuse(&format!("does not refer to a valid field {field:?}")),
        }
    }
    Ok(())
}

/// What is left to spend on the rules of one object.
#[derive(Debug)]
pub struct Budget(u64);

impl Budget {
    /// For all rules of one object.
    #[must_use]
    pub fn of_object() -> Budget {
        Budget(OBJECT_COST_MAX)
    }
}

/// Checks all rules of an object; `old` is its state before, if it is updated.
pub(crate) fn check(
    schema: &Schema,
    new: &Value,
    old: Option<&Value>,
    budget: &mut Budget,
    faults: &mut Faults,
) {
    let is_update = old.is_some();
    let mut run = Run {
        budget,
        faults,
        is_update,
        is_over: false,
    };
    run.node(schema, new, old, &Place::ROOT);
}

struct Run<'r> {
    budget: &'r mut Budget,
    faults: &'r mut Faults,
    is_update: bool,
    /// The budget is spent: nothing more is checked.
    is_over: bool,
}

impl Run<'_> {
    fn node(&mut self, schema: &Schema, new: &Value, old: Option<&Value>, place: &Place<'_>) {
        if !schema.has_rules || new.is_null() {
            return;
        }
        for rule in &schema.rules {
            if self.is_over {
                return;
            }
            self.rule(rule, schema, new, old.filter(|old| !old.is_null()), place);
        }
        match new {
            Value::Array(list) => {
                let Some(items) = &schema.items else { return };
                for (index, item) in list.iter().enumerate() {
                    self.node(items, item, old_item(schema, item, old), &place.index(index));
                }
            }
            Value::Object(map) => {
                for (name, value) in map {
                    if let Some(field) = schema.field(name) {
                        self.node(
                            field,
                            value,
                            old.and_then(|old| old.get(name)),
                            &place.field(name),
                        );
                    }
                }
            }
            _ => {}
        }
    }

    fn rule(&mut self, rule: &Rule, schema: &Schema, new: &Value, old: Option<&Value>, place: &Place<'_>) {
        let before = match (rule.is_transition, old) {
            // What stands unchanged is not checked again.
            (false, Some(old)) if self.is_update && old == new => return,
            (false, _) => None,
            (true, None) if !rule.optional_old => return,
            (true, None) => Some(Val::Optional(None)),
            (true, Some(old)) if rule.optional_old => {
                Some(Val::Optional(Some(Arc::new(Val::of(old, Some(schema))))))
            }
            (true, Some(old)) => Some(Val::of(old, Some(schema))),
        };
        let mut variables = vec![("self".to_owned(), Val::of(new, Some(schema)))];
        variables.extend(before.map(|before| ("oldSelf".to_owned(), before)));
        match self.evaluate(&rule.expr, &variables) {
            Ok(Val::Bool(true)) => {}
            Ok(_) => {
                let message = self.message(rule, &variables);
                self.tell(rule, schema, place, &message);
            }
            Err(Failure::Error(error)) => {
                let message = format!("{error} evaluating rule: {}", default_message(rule));
                self.tell(
                    &Rule {
                        reason: Reason::Invalid,
                        ..rule.clone()
                    },
                    schema,
                    place,
                    &message,
                );
            }
            Err(Failure::OverBudget) => {
                self.is_over = self.budget.0 == 0;
                let message = if self.is_over {
                    "validation failed due to running out of cost budget, no further validation rules will be run".to_owned()
                } else {
                    self.is_over = true;
                    format!(
                        "no further validation rules will be run due to call cost exceeds limit for rule: {}",
                        rule.source
                    )
                };
                self.tell(
                    &Rule {
                        reason: Reason::Invalid,
                        ..rule.clone()
                    },
                    schema,
                    place,
                    &message,
                );
            }
        }
    }

    fn evaluate<'a>(&mut self, expr: &Expr, variables: &[(String, Val<'a>)]) -> Result<Val<'a>, Failure> {
        let mut evaluation = Evaluation::new(variables.to_vec(), self.budget.0);
        let outcome = evaluation.eval(expr);
        self.budget.0 = self.budget.0.saturating_sub(evaluation.spent());
        outcome
    }

    /// What a broken rule says: the text its expression gives, else its message, else the rule itself.
    fn message(&mut self, rule: &Rule, variables: &[(String, Val<'_>)]) -> String {
        let told = rule
            .message_expr
            .as_ref()
            .map(|expr| self.evaluate(expr, variables));
        match told {
            Some(Ok(Val::Text(text))) => {
                let text = text.trim();
                let is_usable = !text.is_empty() && text.len() <= MESSAGE_BYTES_MAX && !text.contains('\n');
                if is_usable {
                    text.to_owned()
                } else {
                    default_message(rule)
                }
            }
            _ => default_message(rule),
        }
    }

    fn tell(&mut self, rule: &Rule, schema: &Schema, place: &Place<'_>, message: &str) {
        let kind = schema.kind.map_or("", JsonType::name);
        let root = place.to_string();
        let field = match (root.as_str(), rule.field_path.trim_start_matches('.')) {
            ("", "") => "<nil>".to_owned(),
            ("", below) => below.to_owned(),
            (_, "") => root,
            (root, below) => format!("{root}.{below}"),
        };
        let (reason, message) = match rule.reason {
            Reason::Invalid => ("FieldValueInvalid", format!("Invalid value: {kind:?}: {message}")),
            Reason::Forbidden => ("FieldValueForbidden", format!("Forbidden: {message}")),
            Reason::Required => ("FieldValueRequired", format!("Required value: {message}")),
            Reason::Duplicate => ("FieldValueDuplicate", format!("Duplicate value: {kind:?}")),
        };
        self.faults.because(reason, field, message);
    }
}

fn default_message(rule: &Rule) -> String {
    if rule.message.is_empty() {
        format!("failed rule: {}", rule.source)
    } else {
        rule.message.clone()
    }
}

#[cfg(test)]
mod tests;
