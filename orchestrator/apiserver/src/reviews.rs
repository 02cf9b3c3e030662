//! Questions to the server: who is this, may they? They are answered and not stored.

use bytes::Bytes;
use http::StatusCode;
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::auth::rbac::{Attributes, Rule};
use crate::auth::{User, token};
use crate::http::{Answer, Failure, body};
use crate::objects::{Call, decode, tree};
use crate::subresources;

/// Answers a question.
pub(crate) async fn answer(call: &Call<'_>, verb: &str, body: &Bytes) -> Result<Answer, Failure> {
    if verb != "create" || call.name.is_some() {
        return Err(Failure::method_not_allowed());
    }
    if call.resource.facts.plural == "bindings" {
        return subresources::bind(call, body).await;
    }
    let mut review = decode::object(call, body)?.value;
    let status = match call.resource.facts.plural {
        "tokenreviews" => token_review(call, &review),
        "selfsubjectreviews" => json!({ "userInfo": user_info(call.user) }),
        "selfsubjectaccessreviews" => access(call, call.user, &review),
        "subjectaccessreviews" | "localsubjectaccessreviews" => {
            let user = subject(&review)?;
            access(call, &user, &review)
        }
        "selfsubjectrulesreviews" => rules(call, &review),
        _ => return Err(Failure::method_not_allowed()),
    };
    review["status"] = status;
    let metadata = tree::map_mut(&mut review, &["metadata"]);
    metadata.insert("creationTimestamp".to_owned(), Value::Null);
    Ok(self::body::json(StatusCode::CREATED, &review))
}

fn user_info(user: &User) -> Value {
    let mut info = json!({ "username": user.name, "groups": user.groups });
    if !user.uid.is_empty() {
        info["uid"] = json!(user.uid);
    }
    if !user.extra.is_empty() {
        info["extra"] = json!(user.extra);
    }
    info
}

fn token_review(call: &Call<'_>, review: &Value) -> Value {
    let asked: Vec<&str> = tree::list(review, &["spec", "audiences"])
        .iter()
        .filter_map(Value::as_str)
        .collect();
    let audiences = if asked.is_empty() {
        vec![token::ISSUER]
    } else {
        asked
    };
    let token = tree::text(review, &["spec", "token"]);
    match token::authenticate(call.api, token, &audiences, Timestamp::now()) {
        Some((user, claims)) => {
            let common: Vec<&str> = audiences
                .into_iter()
                .filter(|audience| claims.aud.iter().any(|own| own == audience))
                .collect();
            json!({ "authenticated": true, "user": user_info(&user), "audiences": common })
        }
        None => json!({ "authenticated": false, "user": {}, "error": "the token is not valid here" }),
    }
}

fn subject(review: &Value) -> Result<User, Failure> {
    let name = tree::text(review, &["spec", "user"]);
    let groups = tree::list(review, &["spec", "groups"])
        .iter()
        .filter_map(Value::as_str)
        .map(str::to_owned);
    let groups: Vec<String> = groups.collect();
    if name.is_empty() && groups.is_empty() {
        return Err(Failure::bad_request(
            "at least one of user or group must be specified",
        ));
    }
    Ok(User {
        name: name.to_owned(),
        uid: String::new(),
        groups,
        extra: std::collections::BTreeMap::new(),
    })
}

fn access(call: &Call<'_>, user: &User, review: &Value) -> Value {
    let spec = &review["spec"];
    let of = |kind: &str, name: &str| tree::text(spec, &[kind, name]).to_owned();
    let (verb, group, resource, subresource) = (
        of("resourceAttributes", "verb"),
        of("resourceAttributes", "group"),
        of("resourceAttributes", "resource"),
        of("resourceAttributes", "subresource"),
    );
    let (namespace, name) = (
        of("resourceAttributes", "namespace"),
        of("resourceAttributes", "name"),
    );
    let (path_verb, path) = (
        of("nonResourceAttributes", "verb"),
        of("nonResourceAttributes", "path"),
    );
    let attributes = if path.is_empty() {
        Attributes {
            verb: &verb,
            group: &group,
            resource: &resource,
            subresource: &subresource,
            namespace: &namespace,
            name: &name,
            path: "",
        }
    } else {
        Attributes {
            verb: &path_verb,
            path: &path,
            ..Attributes::default()
        }
    };
    json!({ "allowed": call.api.authorizer.allows(user, &attributes) })
}

fn rules(call: &Call<'_>, review: &Value) -> Value {
    let namespace = tree::text(review, &["spec", "namespace"]);
    let mut rules: Vec<Rule> = call
        .api
        .authorizer
        .with_policy(|policy| policy.rules_for(call.user, namespace).cloned().collect());
    if call.user.is_master() {
        let all = || vec!["*".to_owned()];
        rules.push(Rule {
            verbs: all(),
            api_groups: all(),
            resources: all(),
            ..Rule::default()
        });
        rules.push(Rule {
            verbs: all(),
            non_resource_urls: all(),
            ..Rule::default()
        });
    }
    let (paths, resources): (Vec<Rule>, Vec<Rule>) = rules
        .into_iter()
        .partition(|rule| !rule.non_resource_urls.is_empty());
    json!({ "incomplete": false, "resourceRules": resources, "nonResourceRules": paths })
}
