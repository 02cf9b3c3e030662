//! Functions of lists and sets.

use std::cmp::Ordering;

use super::eval::{Evaluation, Outcome, fail};
use super::functions::{binary, text_of};
use super::value::Val;
use crate::custom::cel::ast::Operator;

#[expect(clippy::too_many_lines, reason = "one flat match")]
pub(super) fn member<'a>(
    eval: &mut Evaluation<'a>,
    target: &Val<'a>,
    function: &str,
    values: &[Val<'a>],
) -> Outcome<'a> {
    let Some(items) = target.items() else {
        return fail("no such overload");
    };
    eval.pay(target.weight())?;
    let place = |found: Option<usize>| {
        Ok(Val::Int(
            found.and_then(|at| i64::try_from(at).ok()).unwrap_or(-1),
        ))
    };
    match (function, values) {
        ("isSorted", []) => {
            let orders = items.windows(2).map(|pair| pair[0].compare(&pair[1]));
            Ok(Val::Bool(orders.into_iter().all(|order| {
                matches!(order, Some(Ordering::Less | Ordering::Equal))
            })))
        }
        ("sum", []) => {
            let zero = match items.first() {
                Some(Val::Double(_)) => Val::Double(0.0),
                Some(Val::Uint(_)) => Val::Uint(0),
                Some(Val::Duration(_)) => Val::Duration(0),
                _ => Val::Int(0),
            };
            items
                .iter()
                .try_fold(zero, |sum, item| binary(eval, Operator::Add, &sum, item))
        }
        ("min", []) if items.is_empty() => fail("min called on empty list"),
        ("max", []) if items.is_empty() => fail("max called on empty list"),
        ("min", []) => extreme(&items, Ordering::Less),
        ("max", []) => extreme(&items, Ordering::Greater),
        ("indexOf", [wanted]) => place(items.iter().position(|item| item.equals(wanted))),
        ("lastIndexOf", [wanted]) => place(items.iter().rposition(|item| item.equals(wanted))),
        ("join", [] | [Val::Text(_)]) => {
            let separator = values.first().and_then(text_of).unwrap_or_default();
            let texts: Option<Vec<&str>> = items.iter().map(text_of).collect();
            let Some(texts) = texts else {
                return fail("no such overload");
            };
            eval.pay((separator.len() * texts.len()) as u64 / 10)?;
            Ok(Val::text(texts.join(separator)))
        }
        ("reverse", []) => Ok(Val::list(items.into_iter().rev().collect())),
        ("distinct", []) => {
            eval.pay((items.len() * items.len()) as u64)?;
            let mut found: Vec<Val<'a>> = Vec::new();
            for item in items {
                if !found.iter().any(|one| one.equals(&item)) {
                    found.push(item);
                }
            }
            Ok(Val::list(found))
        }
        ("slice", [Val::Int(from), Val::Int(to)]) => {
            let range = usize::try_from(*from).ok().zip(usize::try_from(*to).ok());
            match range.and_then(|(from, to)| items.get(from..to)) {
                Some(part) => Ok(Val::list(part.to_vec())),
                None => fail(format!(
                    "cannot slice({from}, {to}), list is length {}",
                    items.len()
                )),
            }
        }
        ("sort", []) => {
            let mut items = items;
            let is_mixed = items.windows(2).any(|pair| pair[0].compare(&pair[1]).is_none());
            if is_mixed {
                return fail("list elements must be comparable");
            }
            items.sort_by(|a, b| a.compare(b).unwrap_or(Ordering::Equal));
            Ok(Val::list(items))
        }
        ("flatten", []) => Ok(Val::list(
            items
                .into_iter()
                .flat_map(|item| item.items().unwrap_or_else(|| vec![item]))
                .collect(),
        )),
        ("first", []) => Ok(Val::Optional(items.into_iter().next().map(std::sync::Arc::new))),
        ("last", []) => Ok(Val::Optional(
            items.into_iter().next_back().map(std::sync::Arc::new),
        )),
        _ => fail(format!("undeclared reference to '{function}'")),
    }
}

/// The least or greatest of some values.
pub(super) fn extreme<'a>(items: &[Val<'a>], wanted: Ordering) -> Outcome<'a> {
    let Some((first, rest)) = items.split_first() else {
        return fail("no such overload");
    };
    let mut best = first;
    for item in rest {
        match item.compare(best) {
            Some(order) if order == wanted => best = item,
            Some(_) => {}
            None => return fail("no such overload"),
        }
    }
    Ok(best.clone())
}

/// `sets.contains`, `sets.equivalent` and `sets.intersects`.
pub(super) fn sets<'a>(eval: &mut Evaluation<'a>, function: &str, a: &Val<'a>, b: &Val<'a>) -> Outcome<'a> {
    let (Some(a), Some(b)) = (a.items(), b.items()) else {
        return fail("no such overload");
    };
    eval.pay((a.len() * b.len()) as u64)?;
    let has_all = |outer: &[Val<'a>], inner: &[Val<'a>]| {
        inner
            .iter()
            .all(|one| outer.iter().any(|other| other.equals(one)))
    };
    Ok(Val::Bool(match function {
        "contains" => has_all(&a, &b),
        "equivalent" => has_all(&a, &b) && has_all(&b, &a),
        "intersects" => a.iter().any(|one| b.iter().any(|other| other.equals(one))),
        _ => return fail(format!("undeclared reference to 'sets.{function}'")),
    }))
}
