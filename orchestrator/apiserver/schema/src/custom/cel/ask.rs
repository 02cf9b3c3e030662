//! Questions about somebody's rights, put step by step: `authorizer.group('').resource('pods').namespace('a').check('get')`.

use std::fmt;
use std::sync::Arc;

use super::eval::{Evaluation, Outcome, fail};
use super::value::Val;

/// A question costs as much as upstream counts for it.
const CHECK_COST: u64 = 350_000;

/// Who answers.
pub trait Ask: fmt::Debug + Send + Sync {
    /// Whether it is allowed; the reason, if there is one to tell.
    fn ask(&self, question: &Question) -> Decision;
}

/// A whole question. What is empty was not stated.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Question {
    /// Namespace and name of the ServiceAccount that is meant; absent: whoever makes the request.
    pub account: Option<(String, String)>,
    /// Such as `get`.
    pub verb: String,
    /// A path outside of the resources; then the rest is empty.
    pub path: String,
    /// API group.
    pub group: String,
    /// Plural name.
    pub resource: String,
    /// Part of the resource.
    pub subresource: String,
    /// Where.
    pub namespace: String,
    /// Which one.
    pub name: String,
}

/// An answer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Decision {
    /// Whether it is allowed.
    pub is_allowed: bool,
    /// Why.
    pub reason: String,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Step {
    Root,
    Path,
    Group,
    Resource,
}

/// A question, as far as it is put.
#[derive(Clone, Debug)]
pub(crate) struct Access<'a> {
    ask: &'a dyn Ask,
    step: Step,
    question: Arc<Question>,
    /// About the request's own resource.
    request: Arc<Question>,
}

impl<'a> Access<'a> {
    /// Where questions begin; `request` is about what the request itself is about.
    pub(crate) fn new(ask: &'a dyn Ask, request: Question) -> Self {
        Access {
            ask,
            step: Step::Root,
            question: Arc::default(),
            request: Arc::new(request),
        }
    }

    pub(super) fn field(&self, name: &str) -> Option<Val<'a>> {
        let is_it = self.step == Step::Root && name == "requestResource";
        is_it.then(|| {
            let mut question = (*self.request).clone();
            question.account.clone_from(&self.question.account);
            Val::Access(Access {
                step: Step::Resource,
                question: Arc::new(question),
                ..self.clone()
            })
        })
    }

    pub(super) fn member(
        &self,
        eval: &mut Evaluation<'a>,
        function: &str,
        values: &[Val<'a>],
    ) -> Outcome<'a> {
        let texts: Option<Vec<String>> = values
            .iter()
            .map(|value| match value {
                Val::Text(text) => Some(text.to_string()),
                _ => None,
            })
            .collect();
        let Some(texts) = texts else {
            return fail("no such overload");
        };
        let mut question = (*self.question).clone();
        let step = match (self.step, function, texts.as_slice()) {
            (Step::Root, "serviceAccount", [namespace, name]) => {
                question.account = Some((namespace.clone(), name.clone()));
                Step::Root
            }
            (Step::Root, "path", [path]) => {
                question.path.clone_from(path);
                Step::Path
            }
            (Step::Root, "group", [group]) => {
                question.group.clone_from(group);
                Step::Group
            }
            (Step::Group, "resource", [resource]) => {
                question.resource.clone_from(resource);
                Step::Resource
            }
            (Step::Resource, "subresource", [subresource]) => {
                question.subresource.clone_from(subresource);
                Step::Resource
            }
            (Step::Resource, "namespace", [namespace]) => {
                question.namespace.clone_from(namespace);
                Step::Resource
            }
            (Step::Resource, "name", [name]) => {
                question.name.clone_from(name);
                Step::Resource
            }
            // Rights do not depend on selectors here.
            (Step::Resource, "fieldSelector" | "labelSelector", [_]) => Step::Resource,
            (Step::Path | Step::Resource, "check", [verb]) => {
                eval.pay(CHECK_COST)?;
                question.verb.clone_from(verb);
                return Ok(Val::Decision(Arc::new(self.ask.ask(&question))));
            }
            _ => return fail("no such overload"),
        };
        Ok(Val::Access(Access {
            step,
            question: Arc::new(question),
            ..self.clone()
        }))
    }
}

impl Decision {
    pub(super) fn member<'a>(&self, function: &str) -> Outcome<'a> {
        match function {
            "allowed" => Ok(Val::Bool(self.is_allowed)),
            "errored" => Ok(Val::Bool(false)),
            "error" => Ok(Val::text("")),
            "reason" => Ok(Val::text(self.reason.clone())),
            _ => fail("no such overload"),
        }
    }
}
