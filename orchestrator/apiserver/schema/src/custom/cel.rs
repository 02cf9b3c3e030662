//! The Common Expression Language, with Kubernetes' libraries and a limit of cost.
//!
//! An implementation of its own: the published crate (`cel` 0.15) has neither a limit of cost, which a server that
//! evaluates what its users wrote needs, nor Kubernetes' libraries, nor lists and strings typed by a schema.

mod ask;
mod ast;
mod check;
mod eval;
mod functions;
mod kubernetes;
mod lexer;
mod lists;
pub mod names;
mod parser;
pub(crate) mod program;
mod strings;
mod times;
mod value;

pub(super) use ast::Expr;
pub(super) use check::{Scope, check};
pub(super) use eval::{Evaluation, Failure};
pub(super) use lexer::SyntaxError;
pub(super) use parser::parse;
pub(super) use value::Val;

/// Upstream's way of pointing at an error in an expression.
pub(super) fn pointed(text: &str, error: &SyntaxError) -> String {
    let at = error.at.min(text.len());
    let head = text.get(..at).unwrap_or_default();
    let line = head.matches('\n').count();
    let column = head.rsplit('\n').next().unwrap_or_default().chars().count();
    let source = text.lines().nth(line).unwrap_or_default();
    let dots = ".".repeat(column);
    format!(
        "ERROR: <input>:{}:{}: {}\n | {source}\n | {dots}^",
        line + 1,
        column + 1,
        error.message
    )
}

#[cfg(test)]
mod tests;
