//! Evaluates expressions. Every step costs, and what costs too much ends.

use std::sync::Arc;

use super::ast::{Expr, Literal, Node, Operator};
use super::functions;
use super::value::{Key, Val, unescape};

/// What a single rule may cost, as upstream limits it.
const RULE_COST_MAX: u64 = 1_000_000;

/// Why an evaluation gave no value.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Failure {
    /// The expression makes no sense for these values.
    Error(String),
    /// It cost too much.
    OverBudget,
}

pub(super) type Outcome<'a> = Result<Val<'a>, Failure>;

pub(super) fn fail<T>(message: impl Into<String>) -> Result<T, Failure> {
    Err(Failure::Error(message.into()))
}

/// The object whose fields are evaluated when they are asked for.
pub(super) const LAZY: &str = "variables";

/// A variable that is evaluated when it is asked for.
#[derive(Debug)]
struct Lazy<'a> {
    name: String,
    expr: &'a Expr,
    found: Option<Outcome<'a>>,
}

/// One evaluation: its variables and what it has left to spend.
#[derive(Debug)]
pub(crate) struct Evaluation<'a> {
    variables: Vec<(String, Val<'a>)>,
    /// Evaluated when they are first asked for, as fields of `variables`.
    lazy: Vec<Lazy<'a>>,
    left: u64,
    spent: u64,
}

impl<'a> Evaluation<'a> {
    /// With these variables, and no more to spend than `cost_max`.
    pub(crate) fn new(variables: Vec<(String, Val<'a>)>, cost_max: u64) -> Self {
        Evaluation {
            variables,
            lazy: Vec::new(),
            left: cost_max.min(RULE_COST_MAX),
            spent: 0,
        }
    }

    /// Adds a variable that is evaluated when it is asked for; it may use those that were added before.
    pub(crate) fn add_lazy(&mut self, name: &str, expr: &'a Expr) {
        self.lazy.push(Lazy {
            name: name.to_owned(),
            expr,
            found: None,
        });
    }

    /// The value of `variables.NAME`; nothing for other expressions.
    fn lazy_field(&mut self, operand: &Expr, field: &str) -> Option<Outcome<'a>> {
        let is_variables = matches!(&operand.node, Node::Name(name) if name == LAZY);
        let place = self
            .lazy
            .iter()
            .position(|lazy| is_variables && lazy.name == field)?;
        if let Some(found) = &self.lazy[place].found {
            return Some(found.clone());
        }
        let expr = self.lazy[place].expr;
        // One that needs itself, or a later one, finds nothing.
        let later = self.lazy.split_off(place);
        let outcome = self.eval(expr);
        self.lazy.extend(later);
        self.lazy[place].found = Some(outcome.clone());
        Some(outcome)
    }

    /// What was spent so far.
    pub(crate) fn spent(&self) -> u64 {
        self.spent
    }

    pub(super) fn pay(&mut self, cost: u64) -> Result<(), Failure> {
        self.spent += cost;
        self.left = self.left.checked_sub(cost).ok_or(Failure::OverBudget)?;
        Ok(())
    }

    #[expect(clippy::too_many_lines, reason = "one flat match")]
    pub(crate) fn eval(&mut self, expr: &Expr) -> Outcome<'a> {
        self.pay(1)?;
        match &expr.node {
            Node::Literal(literal) => Ok(of_literal(literal)),
            Node::Name(name) => self.name(name),
            Node::Select {
                operand,
                field,
                optional,
            } => {
                if let Some(known) = functions::constant(expr) {
                    return Ok(known);
                }
                if let Some(outcome) = self.lazy_field(operand, field) {
                    return outcome;
                }
                let operand = self.eval(operand)?;
                self.select(&operand, field, *optional)
            }
            Node::Has { operand, field } => {
                let operand = self.eval(operand)?;
                match &operand {
                    Val::Optional(None) => Ok(Val::Bool(false)),
                    Val::Optional(Some(inner)) => Ok(Val::Bool(inner.field(field).is_some())),
                    other if other.entries().is_none() => fail("no such overload"),
                    other => Ok(Val::Bool(other.field(field).is_some())),
                }
            }
            Node::Index {
                operand,
                index,
                optional,
            } => {
                let (operand, index) = (self.eval(operand)?, self.eval(index)?);
                self.index(&operand, &index, *optional)
            }
            Node::Call {
                target,
                function,
                arguments,
            } => self.call(target.as_deref(), function, arguments),
            Node::List(items) => self.list(items),
            Node::Map(entries) => self.map(entries),
            Node::Message { fields, .. } => self.message(fields),
            Node::Not(inner) => match self.eval(inner)? {
                Val::Bool(flag) => Ok(Val::Bool(!flag)),
                _ => fail("no such overload"),
            },
            Node::Negate(inner) => match self.eval(inner)? {
                Val::Int(number) => number
                    .checked_neg()
                    .map(Val::Int)
                    .map_or_else(|| fail("integer overflow"), Ok),
                Val::Double(number) => Ok(Val::Double(-number)),
                _ => fail("no such overload"),
            },
            Node::Binary {
                operator: Operator::And,
                left,
                right,
            } => self.junction(left, right, false),
            Node::Binary {
                operator: Operator::Or,
                left,
                right,
            } => self.junction(left, right, true),
            Node::Binary {
                operator,
                left,
                right,
            } => {
                let (left, right) = (self.eval(left)?, self.eval(right)?);
                functions::binary(self, *operator, &left, &right)
            }
            Node::Conditional { condition, yes, no } => match self.eval(condition)? {
                Val::Bool(true) => self.eval(yes),
                Val::Bool(false) => self.eval(no),
                _ => fail("no such overload"),
            },
        }
    }

    fn name(&self, name: &str) -> Outcome<'a> {
        let found = self.variables.iter().rev().find(|(known, _)| known == name);
        match found {
            Some((_, value)) => Ok(value.clone()),
            None => functions::type_named(name).map_or_else(
                || fail(format!("undeclared reference to '{name}'")),
                |name| Ok(Val::Type(name)),
            ),
        }
    }

    fn select(&mut self, operand: &Val<'a>, field: &str, optional: bool) -> Outcome<'a> {
        match operand {
            Val::Optional(None) => Ok(Val::Optional(None)),
            Val::Optional(Some(inner)) => Ok(Val::Optional(inner.field(field).map(Arc::new))),
            other => match (other.field(field), optional) {
                (Some(value), true) => Ok(Val::some(value)),
                (None, true) => Ok(Val::Optional(None)),
                (Some(value), false) => Ok(value),
                (None, false) => fail(format!("no such key: {field}")),
            },
        }
    }

    fn index(&mut self, operand: &Val<'a>, index: &Val<'a>, optional: bool) -> Outcome<'a> {
        let (inner, is_optional) = match operand {
            Val::Optional(None) => return Ok(Val::Optional(None)),
            Val::Optional(Some(inner)) => (&**inner, true),
            other => (other, optional),
        };
        let found = match (inner.items(), Key::of(index)) {
            (Some(items), Some(Key::Int(place))) => {
                self.pay(1)?;
                usize::try_from(place)
                    .ok()
                    .and_then(|place| items.into_iter().nth(place))
                    .ok_or_else(|| format!("index out of bounds: {place}"))
            }
            (None, Some(key)) => lookup(inner, &key).ok_or_else(|| match &key {
                Key::Text(name) => format!("no such key: {name}"),
                Key::Int(number) => format!("no such key: {number}"),
                Key::Bool(flag) => format!("no such key: {flag}"),
            }),
            _ => return fail("no such overload"),
        };
        match (found, is_optional) {
            (Ok(value), true) => Ok(Val::some(value)),
            (Err(_), true) => Ok(Val::Optional(None)),
            (Ok(value), false) => Ok(value),
            (Err(message), false) => fail(message),
        }
    }

    /// `&&` and `||`: one side can decide although the other one fails.
    fn junction(&mut self, left: &Expr, right: &Expr, decides: bool) -> Outcome<'a> {
        let first = self.eval(left);
        if matches!(first, Ok(Val::Bool(flag)) if flag == decides)
            || matches!(first, Err(Failure::OverBudget))
        {
            return first;
        }
        let second = self.eval(right);
        match (first, second) {
            (_, Err(Failure::OverBudget)) => Err(Failure::OverBudget),
            (_, Ok(Val::Bool(flag))) if flag == decides => Ok(Val::Bool(decides)),
            (Ok(Val::Bool(_)), Ok(Val::Bool(_))) => Ok(Val::Bool(!decides)),
            (Err(error), _) | (_, Err(error)) => Err(error),
            _ => fail("no such overload"),
        }
    }

    fn list(&mut self, items: &[(Expr, bool)]) -> Outcome<'a> {
        let mut list = Vec::with_capacity(items.len());
        for (item, optional) in items {
            match (self.eval(item)?, optional) {
                (Val::Optional(inner), true) => list.extend(inner.map(|inner| (*inner).clone())),
                (_, true) => return fail("no such overload"),
                (value, false) => list.push(value),
            }
        }
        Ok(Val::list(list))
    }

    fn map(&mut self, entries: &[(Expr, Expr, bool)]) -> Outcome<'a> {
        let mut map = std::collections::BTreeMap::new();
        for (key, value, optional) in entries {
            let Some(key) = Key::of(&self.eval(key)?) else {
                return fail("unsupported key type");
            };
            let value = match (self.eval(value)?, optional) {
                (Val::Optional(None), true) => continue,
                (Val::Optional(Some(inner)), true) => (*inner).clone(),
                (_, true) => return fail("no such overload"),
                (value, false) => value,
            };
            if map.insert(key, value).is_some() {
                return fail("map has duplicate keys");
            }
        }
        Ok(Val::Map(Arc::new(map)))
    }

    /// An object of a named type is a map of its fields.
    fn message(&mut self, fields: &[(String, Expr, bool)]) -> Outcome<'a> {
        let mut map = std::collections::BTreeMap::new();
        for (name, value, optional) in fields {
            let value = match (self.eval(value)?, optional) {
                (Val::Optional(None), true) => continue,
                (Val::Optional(Some(inner)), true) => (*inner).clone(),
                (_, true) => return fail("no such overload"),
                (value, false) => value,
            };
            map.insert(Key::Text(unescape(name).into_owned()), value);
        }
        Ok(Val::Map(Arc::new(map)))
    }

    fn call(&mut self, target: Option<&Expr>, function: &str, arguments: &[Expr]) -> Outcome<'a> {
        if let Some(target) = target {
            if let Some(space) = functions::namespace(target) {
                if (space, function) == ("cel", "bind") {
                    return self.bind(arguments);
                }
                let values = self.values(arguments)?;
                return functions::of_namespace(self, space, function, &values);
            }
            if let Some(outcome) = self.macro_call(target, function, arguments) {
                return outcome;
            }
            let target = self.eval(target)?;
            let values = self.values(arguments)?;
            return functions::member(self, &target, function, &values);
        }
        let values = self.values(arguments)?;
        functions::global(self, function, &values)
    }

    fn values(&mut self, arguments: &[Expr]) -> Result<Vec<Val<'a>>, Failure> {
        arguments.iter().map(|argument| self.eval(argument)).collect()
    }

    fn bind(&mut self, arguments: &[Expr]) -> Outcome<'a> {
        let [
            Expr {
                node: Node::Name(name),
                ..
            },
            value,
            inner,
        ] = arguments
        else {
            return fail("invalid cel.bind");
        };
        let value = self.eval(value)?;
        self.with(&[(name, value)], inner)
    }

    /// Evaluates with further variables.
    fn with(&mut self, variables: &[(&String, Val<'a>)], inner: &Expr) -> Outcome<'a> {
        let before = self.variables.len();
        self.variables.extend(
            variables
                .iter()
                .map(|(name, value)| ((*name).clone(), value.clone())),
        );
        let outcome = self.eval(inner);
        self.variables.truncate(before);
        outcome
    }

    /// Calls that bind variables; nothing for other calls.
    fn macro_call(&mut self, target: &Expr, function: &str, arguments: &[Expr]) -> Option<Outcome<'a>> {
        let Some(Expr {
            node: Node::Name(first),
            ..
        }) = arguments.first()
        else {
            return None;
        };
        if matches!((function, arguments.len()), ("optMap" | "optFlatMap", 2)) {
            return Some(self.opt_map(target, function, first, &arguments[1]));
        }
        let is_macro = matches!(
            (function, arguments.len()),
            ("all" | "exists" | "exists_one" | "existsOne" | "filter", 2)
                | ("map", 2 | 3)
                | (
                    "all"
                        | "exists"
                        | "exists_one"
                        | "existsOne"
                        | "transformList"
                        | "transformMap"
                        | "transformMapEntry",
                    3
                )
                | ("transformList" | "transformMap" | "transformMapEntry", 4)
        );
        if !is_macro {
            return None;
        }
        let second = match &arguments[1].node {
            Node::Name(second) if function != "map" && arguments.len() > 2 => Some(second),
            _ => None,
        };
        let rest = &arguments[if second.is_some() { 2 } else { 1 }..];
        Some(self.comprehension(target, function, (first, second), rest))
    }

    fn opt_map(&mut self, target: &Expr, function: &str, name: &String, inner: &Expr) -> Outcome<'a> {
        let Val::Optional(value) = self.eval(target)? else {
            return fail("no such overload");
        };
        let Some(value) = value else {
            return Ok(Val::Optional(None));
        };
        let found = self.with(&[(name, (*value).clone())], inner)?;
        Ok(if function == "optMap" {
            Val::some(found)
        } else {
            found
        })
    }

    fn comprehension(
        &mut self,
        target: &Expr,
        function: &str,
        (first, second): (&String, Option<&String>),
        rest: &[Expr],
    ) -> Outcome<'a> {
        let range = self.eval(target)?;
        let pairs: Vec<(Val<'a>, Val<'a>)> = match (range.items(), range.entries()) {
            (Some(items), _) => (0..).map(Val::Int).zip(items).collect(),
            (None, Some(entries)) => entries,
            (None, None) => return fail("no such overload"),
        };
        let is_list = range.items().is_some();
        self.pay(pairs.len() as u64)?;
        let (mut found, mut count) = (Vec::new(), 0u64);
        let mut map = std::collections::BTreeMap::new();
        let mut failed = None;
        for (key, value) in pairs {
            let variables = match second {
                Some(second) => vec![(first, key.clone()), (second, value.clone())],
                None => vec![(first, if is_list { value.clone() } else { key.clone() })],
            };
            let holds = match (function, rest) {
                ("map", [_]) => Ok(Val::Bool(true)),
                ("transformList" | "transformMap" | "transformMapEntry", [_]) => Ok(Val::Bool(true)),
                (_, [condition, ..]) => self.with(&variables, condition),
                _ => return fail("no such overload"),
            };
            let holds = match holds {
                Ok(Val::Bool(holds)) => holds,
                Err(Failure::OverBudget) => return Err(Failure::OverBudget),
                // A later element may decide all the same.
                Err(error) if matches!(function, "all" | "exists") => {
                    failed.get_or_insert(error);
                    continue;
                }
                Err(error) => return Err(error),
                Ok(_) => return fail("no such overload"),
            };
            match (function, holds) {
                ("all", false) => return Ok(Val::Bool(false)),
                ("exists", true) => return Ok(Val::Bool(true)),
                ("exists_one" | "existsOne", true) => count += 1,
                ("filter", true) => found.push(variables[0].1.clone()),
                ("map" | "transformList", true) => found.push(self.with(&variables, &rest[rest.len() - 1])?),
                ("transformMap", true) => {
                    let Some(key) = Key::of(&key) else {
                        return fail("unsupported key type");
                    };
                    let value = self.with(&variables, &rest[rest.len() - 1])?;
                    map.insert(key, value);
                }
                ("transformMapEntry", true) => {
                    let entry = self.with(&variables, &rest[rest.len() - 1])?;
                    for (key, value) in entry.entries().unwrap_or_default() {
                        let Some(key) = Key::of(&key) else {
                            return fail("unsupported key type");
                        };
                        if map.insert(key, value).is_some() {
                            return fail("map has duplicate keys");
                        }
                    }
                }
                _ => {}
            }
        }
        match (function, failed) {
            (_, Some(error)) => Err(error),
            ("all", None) => Ok(Val::Bool(true)),
            ("exists", None) => Ok(Val::Bool(false)),
            ("exists_one" | "existsOne", None) => Ok(Val::Bool(count == 1)),
            ("transformMap" | "transformMapEntry", None) => Ok(Val::Map(Arc::new(map))),
            _ => Ok(Val::list(found)),
        }
    }
}

/// An entry of a map by its key. Keys of objects are taken as they are.
pub(super) fn lookup<'a>(value: &Val<'a>, key: &Key) -> Option<Val<'a>> {
    match (value, key) {
        (Val::Map(map), key) => map.get(key).cloned(),
        (Val::Json(serde_json::Value::Object(map), schema), Key::Text(name)) => {
            let found = map.get(name)?;
            Some(Val::of(found, schema.and_then(|schema| schema.field(name))))
        }
        _ => None,
    }
}

fn of_literal<'a>(literal: &Literal) -> Val<'a> {
    match literal {
        Literal::Null => Val::Null,
        Literal::Bool(flag) => Val::Bool(*flag),
        Literal::Int(number) => Val::Int(*number),
        Literal::Uint(number) => Val::Uint(*number),
        Literal::Double(number) => Val::Double(*number),
        Literal::Text(text) => Val::text(text.clone()),
        Literal::Bytes(bytes) => Val::Bytes(bytes.as_slice().into()),
    }
}
