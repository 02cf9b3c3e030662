//! Finds, before a rule is ever run, names, fields and functions that don't exist. Types are known as far as the schema
//! says them; what isn't known is left to the evaluation.

use super::ast::{Expr, Literal, Node, Operator};
use super::functions;
use super::lexer::SyntaxError;
use super::value::unescape;
use crate::custom::structural::{JsonType, Schema};

/// What is known of an expression's value.
#[derive(Clone, Copy, Debug)]
enum Known<'s> {
    /// Anything.
    Unknown,
    Bool,
    /// Something that is certainly no truth value.
    Other,
    Object(&'s Schema),
    /// A list or map, with the schema of its values.
    Values(&'s Schema, bool),
}

/// The names an expression may use.
#[derive(Debug)]
pub(crate) struct Scope<'s> {
    names: Vec<(String, Known<'s>)>,
    /// Whether objects of named types may be made.
    has_messages: bool,
}

impl<'s> Scope<'s> {
    /// `self` of a schema, and `oldSelf`, of the same or of an optional one.
    pub(crate) fn of_rule(schema: &'s Schema, optional_old: bool) -> Self {
        let own = known(schema);
        let old = if optional_old { Known::Unknown } else { own };
        Scope {
            names: vec![("self".to_owned(), own), ("oldSelf".to_owned(), old)],
            has_messages: false,
        }
    }

    /// Names of which nothing more is known.
    pub(crate) fn of_names(names: &[&str], has_messages: bool) -> Self {
        Scope {
            names: names
                .iter()
                .map(|name| ((*name).to_owned(), Known::Unknown))
                .collect(),
            has_messages,
        }
    }
}

/// Checks an expression whose value may be anything.
pub(crate) fn check_names(expr: &Expr, scope: &mut Scope<'_>) -> Result<(), SyntaxError> {
    visit(expr, scope).map(drop)
}

/// Checks an expression; `is_rule`: it has to be a truth value, else a text.
pub(crate) fn check(expr: &Expr, scope: &mut Scope<'_>, is_rule: bool) -> Result<(), SyntaxError> {
    let found = visit(expr, scope)?;
    let fits = match found {
        Known::Unknown => true,
        Known::Bool => is_rule,
        Known::Other => !is_rule,
        Known::Object(_) | Known::Values(..) => false,
    };
    if fits {
        return Ok(());
    }
    let expected = if is_rule { "bool" } else { "string" };
    Err(SyntaxError {
        at: expr.at,
        message: format!("must evaluate to {expected}"),
    })
}

fn known(schema: &Schema) -> Known<'_> {
    if schema.int_or_string || schema.nullable {
        return Known::Unknown;
    }
    match (schema.kind, schema.items.as_deref(), schema.additional.as_deref()) {
        (Some(JsonType::Boolean), ..) => Known::Bool,
        (Some(JsonType::String | JsonType::Integer | JsonType::Number), ..) => Known::Other,
        (Some(JsonType::Array), Some(items), _) => Known::Values(items, true),
        (Some(JsonType::Object), _, Some(values)) => Known::Values(values, false),
        (Some(JsonType::Object), ..) => Known::Object(schema),
        _ => Known::Unknown,
    }
}

/// The value of a field of an object; an error if the schema knows that there is none.
fn field<'s>(operand: Known<'s>, name: &str, at: usize) -> Result<Known<'s>, SyntaxError> {
    match operand {
        Known::Object(schema) => {
            if let Some(field) = schema.properties.get(unescape(name).as_ref()) {
                return Ok(known(field));
            }
            let is_own = schema.embedded && matches!(name, "apiVersion" | "kind" | "metadata");
            if is_own {
                return Ok(Known::Unknown);
            }
            Err(SyntaxError {
                at,
                message: format!("undefined field '{name}'"),
            })
        }
        Known::Values(values, false) => Ok(known(values)),
        Known::Values(_, true) | Known::Bool | Known::Other => Err(SyntaxError {
            at,
            message: format!("type does not support field selection of '{name}'"),
        }),
        Known::Unknown => Ok(Known::Unknown),
    }
}

#[expect(clippy::too_many_lines, reason = "one flat match")]
fn visit<'s>(expr: &Expr, scope: &mut Scope<'s>) -> Result<Known<'s>, SyntaxError> {
    Ok(match &expr.node {
        Node::Literal(Literal::Bool(_)) => Known::Bool,
        Node::Literal(_) => Known::Other,
        Node::Name(name) => {
            let found = scope.names.iter().rev().find(|(known, _)| known == name);
            match found {
                Some((_, known)) => *known,
                None if functions::type_named(name).is_some() => Known::Unknown,
                None => {
                    let message = format!("undeclared reference to '{name}' (in container '')");
                    return Err(SyntaxError { at: expr.at, message });
                }
            }
        }
        Node::Select {
            operand,
            field: name,
            optional,
        } => {
            if functions::constant(expr).is_some() {
                return Ok(Known::Unknown);
            }
            let operand = visit(operand, scope)?;
            let found = field(operand, name, expr.at)?;
            if *optional { Known::Unknown } else { found }
        }
        Node::Has { operand, field: name } => {
            let operand = visit(operand, scope)?;
            field(operand, name, expr.at)?;
            Known::Bool
        }
        Node::Index {
            operand,
            index,
            optional,
        } => {
            let operand = visit(operand, scope)?;
            visit(index, scope)?;
            match operand {
                Known::Values(values, _) if !optional => known(values),
                _ => Known::Unknown,
            }
        }
        Node::Call {
            target,
            function,
            arguments,
        } => call(expr.at, target.as_deref(), function, arguments, scope)?,
        Node::List(items) => {
            for (item, _) in items {
                visit(item, scope)?;
            }
            Known::Unknown
        }
        Node::Map(entries) => {
            for (key, value, _) in entries {
                visit(key, scope)?;
                visit(value, scope)?;
            }
            Known::Unknown
        }
        Node::Message { name, fields } => {
            let root = name.split('.').next().unwrap_or_default();
            let is_known = name == "JSONPatch" || root == "Object";
            if !scope.has_messages || !is_known {
                let message = format!("undeclared reference to '{name}' (in container '')");
                return Err(SyntaxError { at: expr.at, message });
            }
            for (_, value, _) in fields {
                visit(value, scope)?;
            }
            Known::Unknown
        }
        Node::Not(inner) => {
            visit(inner, scope)?;
            Known::Bool
        }
        Node::Negate(inner) => {
            visit(inner, scope)?;
            Known::Other
        }
        Node::Binary {
            operator,
            left,
            right,
        } => {
            visit(left, scope)?;
            visit(right, scope)?;
            match operator {
                Operator::Add
                | Operator::Subtract
                | Operator::Multiply
                | Operator::Divide
                | Operator::Remainder => Known::Unknown,
                _ => Known::Bool,
            }
        }
        Node::Conditional { condition, yes, no } => {
            visit(condition, scope)?;
            let yes = visit(yes, scope)?;
            visit(no, scope)?;
            yes
        }
    })
}

/// Calls that bind variables over the elements of their target.
const MACROS: [&str; 9] = [
    "all",
    "exists",
    "exists_one",
    "existsOne",
    "filter",
    "map",
    "transformList",
    "transformMap",
    "transformMapEntry",
];
/// All functions there are, with and without target.
const FUNCTIONS: [&str; 125] = [
    "abs",
    "allowed",
    "check",
    "error",
    "errored",
    "escapeKey",
    "fieldSelector",
    "group",
    "labelSelector",
    "name",
    "namespace",
    "path",
    "reason",
    "resource",
    "serviceAccount",
    "subresource",
    "add",
    "asApproximateFloat",
    "asInteger",
    "bool",
    "bytes",
    "ceil",
    "charAt",
    "cidr",
    "compareTo",
    "contains",
    "containsCIDR",
    "containsIP",
    "decode",
    "distinct",
    "double",
    "duration",
    "dyn",
    "encode",
    "endsWith",
    "equivalent",
    "family",
    "find",
    "findAll",
    "first",
    "flatten",
    "floor",
    "format",
    "getDate",
    "getDayOfMonth",
    "getDayOfWeek",
    "getDayOfYear",
    "getEscapedPath",
    "getFullYear",
    "getHost",
    "getHostname",
    "getHours",
    "getMilliseconds",
    "getMinutes",
    "getMonth",
    "getPort",
    "getQuery",
    "getScheme",
    "getSeconds",
    "greatest",
    "hasValue",
    "indexOf",
    "int",
    "intersects",
    "ip",
    "isCIDR",
    "isCanonical",
    "isGlobalUnicast",
    "isGreaterThan",
    "isIP",
    "isInteger",
    "isLessThan",
    "isLinkLocalMulticast",
    "isLinkLocalUnicast",
    "isLoopback",
    "isQuantity",
    "isSemver",
    "isSorted",
    "isURL",
    "isUnspecified",
    "join",
    "last",
    "lastIndexOf",
    "least",
    "lowerAscii",
    "major",
    "masked",
    "matches",
    "max",
    "min",
    "minor",
    "named",
    "none",
    "of",
    "ofNonZeroValue",
    "or",
    "orValue",
    "patch",
    "prefixLength",
    "quantity",
    "quote",
    "replace",
    "reverse",
    "round",
    "semver",
    "sign",
    "size",
    "slice",
    "sort",
    "split",
    "startsWith",
    "string",
    "sub",
    "substring",
    "sum",
    "timestamp",
    "trim",
    "trunc",
    "type",
    "uint",
    "upperAscii",
    "url",
    "validate",
    "value",
    "bind",
];

fn call<'s>(
    at: usize,
    target: Option<&Expr>,
    function: &str,
    arguments: &[Expr],
    scope: &mut Scope<'s>,
) -> Result<Known<'s>, SyntaxError> {
    let space = target.and_then(functions::namespace);
    let is_shadowed = space.is_some_and(|space| scope.names.iter().any(|(name, _)| name == space));
    if space == Some("cel") && function == "bind" && arguments.len() == 3 {
        let value = visit(&arguments[1], scope)?;
        let Node::Name(name) = &arguments[0].node else {
            return Err(SyntaxError {
                at,
                message: "cel.bind() variable names must be simple identifiers".to_owned(),
            });
        };
        return with(scope, vec![(name.clone(), value)], &arguments[2..]);
    }
    let target = match target {
        Some(target) if space.is_none() || is_shadowed => Some(visit(target, scope)?),
        _ => None,
    };
    if let (Some(target), Some(Node::Name(first))) = (target, arguments.first().map(|first| &first.node)) {
        if matches!(function, "optMap" | "optFlatMap") && arguments.len() == 2 {
            with(scope, vec![(first.clone(), Known::Unknown)], &arguments[1..])?;
            return Ok(Known::Unknown);
        }
        if MACROS.contains(&function) && (2..=4).contains(&arguments.len()) {
            return of_macro(target, function, first, arguments, scope);
        }
    }
    let is_format = space == Some("format");
    if !is_format && !FUNCTIONS.contains(&function) {
        let message = format!("undeclared reference to '{function}' (in container '')");
        return Err(SyntaxError { at, message });
    }
    for argument in arguments {
        visit(argument, scope)?;
    }
    let is_text = matches!(
        function,
        "string" | "format" | "join" | "size" | "int" | "lowerAscii" | "upperAscii" | "trim"
    );
    Ok(if is_text { Known::Other } else { Known::Unknown })
}

fn of_macro<'s>(
    target: Known<'s>,
    function: &str,
    first: &str,
    arguments: &[Expr],
    scope: &mut Scope<'s>,
) -> Result<Known<'s>, SyntaxError> {
    let second = match &arguments[1].node {
        Node::Name(second) if function != "map" && arguments.len() > 2 => Some(second),
        _ => None,
    };
    let values = match target {
        Known::Values(values, true) => known(values),
        // One variable over a map holds its keys.
        Known::Values(values, false) if second.is_some() => known(values),
        _ => Known::Unknown,
    };
    let names = match second {
        Some(second) => vec![(first.to_owned(), Known::Unknown), (second.clone(), values)],
        None => vec![(first.to_owned(), values)],
    };
    with(scope, names, &arguments[if second.is_some() { 2 } else { 1 }..])?;
    Ok(match function {
        "all" | "exists" | "exists_one" | "existsOne" => Known::Bool,
        "filter" => target,
        _ => Known::Unknown,
    })
}

fn with<'s>(
    scope: &mut Scope<'s>,
    names: Vec<(String, Known<'s>)>,
    inner: &[Expr],
) -> Result<Known<'s>, SyntaxError> {
    let before = scope.names.len();
    scope.names.extend(names);
    let mut last = Known::Unknown;
    for expr in inner {
        last = visit(expr, scope)?;
    }
    scope.names.truncate(before);
    Ok(last)
}
