//! Calls webhooks: those that change objects one after another, those that validate all at once.

use std::time::Duration;

use bytes::Bytes;
use futures::future::join_all;
use moorline_schema::cel::{self, Given, Question};
use serde_json::Value;

use super::client::Target;
use super::conditions::{self, Condition, Rights};
use super::matching::{Matcher, Operation};
use super::review;
use super::subject::Subject;
use super::targets::{self, Behind, Place};
use crate::api::Api;
use crate::http::Failure;
use crate::objects::{Call, admission, decode, forms, rules, tree};

const TIMEOUT_SECONDS: u64 = 10;

/// A webhook.
#[derive(Debug)]
pub(super) struct Hook {
    configuration: String,
    name: String,
    matcher: Matcher,
    conditions: Vec<Condition>,
    /// Whether a failure to call it refuses the request.
    is_fatal: bool,
    timeout: Duration,
    place: Result<Place, String>,
    version: Option<&'static str>,
    has_side_effects: bool,
    is_reinvoked: bool,
    mutates: bool,
}

/// All webhooks of these configurations, which are in the order of their names.
pub(super) fn compile(configurations: &[Value], mutates: bool) -> Vec<Hook> {
    let each = configurations.iter().flat_map(|configuration| {
        let name = tree::text(configuration, &["metadata", "name"]);
        let webhooks = tree::list(configuration, &["webhooks"]).iter();
        webhooks.map(move |webhook| hook(name, webhook, mutates))
    });
    each.collect()
}

fn hook(configuration: &str, webhook: &Value, mutates: bool) -> Hook {
    let seconds = tree::at(webhook, &["timeoutSeconds"]).and_then(Value::as_u64);
    let side_effects = tree::text(webhook, &["sideEffects"]);
    Hook {
        configuration: configuration.to_owned(),
        name: tree::text(webhook, &["name"]).to_owned(),
        matcher: Matcher::of_webhook(webhook),
        conditions: conditions::compile(webhook, cel::names::OF_WEBHOOK_CONDITION),
        is_fatal: tree::text(webhook, &["failurePolicy"]) != "Ignore",
        timeout: Duration::from_secs(seconds.unwrap_or(TIMEOUT_SECONDS)),
        place: targets::read(&webhook["clientConfig"]),
        version: review::version(webhook),
        has_side_effects: !matches!(side_effects, "None" | "NoneOnDryRun"),
        is_reinvoked: tree::text(webhook, &["reinvocationPolicy"]) == "IfNeeded",
        mutates,
    }
}

/// Why a webhook did not let a request pass.
enum Refused {
    /// It could not be asked, or its answer was none.
    Call(String),
    /// It said no, or the server did in its place.
    Final(Failure),
}

impl Hook {
    fn failed(&self, why: &str) -> Failure {
        Failure::internal(format!("failed calling webhook {:?}: {why}", self.name))
    }

    /// Whether the request is its business: the group and version in which it is.
    fn matches(&self, subject: &Subject<'_>) -> Result<Option<(String, String)>, Failure> {
        let found = subject.with_request(|request| {
            let found = self.matcher.find(request);
            found.map(|(group, version)| (group.to_owned(), version.to_owned()))
        });
        let Some((group, version)) = found else {
            return Ok(None);
        };
        if self.conditions.is_empty() {
            return Ok(Some((group, version)));
        }
        let request = subject.head(&group, &version);
        let in_version = |object: Option<&Value>| {
            object.map_or(Value::Null, |one| subject.in_version(one, &group, &version))
        };
        let (object, old) = (
            in_version(subject.new.as_deref()),
            in_version(subject.old.as_deref()),
        );
        let rights = Rights {
            api: subject.call.api,
            user: subject.call.user,
        };
        let question: Question = conditions::own_question(subject);
        let given = Given {
            values: vec![("object", &object), ("oldObject", &old), ("request", &request)],
            variables: &[],
            ask: Some((&rights, question)),
        };
        match conditions::hold(&self.conditions, &given) {
            Ok(true) => Ok(Some((group, version))),
            Ok(false) => Ok(None),
            Err(_) if !self.is_fatal => Ok(None),
            Err(why) => {
                let name = subject.call.name.unwrap_or_default();
                Err(Failure::forbidden(subject.call.resource.about(name), &why))
            }
        }
    }

    /// Asks the webhook about an object that is in the version in which it matched.
    async fn ask(
        &self,
        subject: &Subject<'_>,
        (group, version): (&str, &str),
        object: Option<&Value>,
    ) -> Result<review::Answer, Refused> {
        let call = subject.call;
        if call.query.dry_run().unwrap_or(false) && self.has_side_effects {
            let why = format!("admission webhook {:?} does not support dry run", self.name);
            return Err(Refused::Final(Failure::bad_request(why)));
        }
        let review_version = self.version.ok_or_else(|| {
            Refused::Call("webhook does not accept known AdmissionReview versions (v1, v1beta1)".to_owned())
        })?;
        let mut request = subject.head(group, version);
        request["object"] = object.cloned().unwrap_or_default();
        request["oldObject"] = match subject.old.as_deref() {
            Some(old) => subject.in_version(old, group, version),
            None => Value::Null,
        };
        let uid = uuid::Uuid::new_v4().to_string();
        let body = review::review(review_version, &uid, &request);
        let found = target(call.api, &self.place);
        let (target, path) = found.map_err(|why| Refused::Call(format!("failed to call webhook: {why}")))?;
        let path = format!("{path}?timeout={}s", self.timeout.as_secs());
        let body = Bytes::from(body.to_string());
        let answer = call
            .api
            .hooks
            .client
            .post(&target, &path, body, self.timeout)
            .await;
        let answer = answer.map_err(|error| Refused::Call(format!("failed to call webhook: {error}")))?;
        let answer = review::read(review_version, &uid, self.mutates, &answer);
        let answer =
            answer.map_err(|why| Refused::Call(format!("received invalid webhook response: {why}")))?;
        for warning in &answer.warnings {
            call.notes.warn(warning);
        }
        for (key, value) in &answer.annotations {
            // There is no audit log yet to note it in.
            tracing::debug!(webhook = self.name, key, value, "A webhook annotates a request.");
        }
        if answer.is_allowed {
            Ok(answer)
        } else {
            Err(Refused::Final(review::refusal(
                &self.name,
                answer.result.as_ref(),
            )))
        }
    }

    /// What becomes of the request if the webhook did not let it pass: nothing, or a failure.
    fn judge(&self, refused: Refused) -> Result<(), Failure> {
        match refused {
            Refused::Final(failure) => Err(failure),
            Refused::Call(why) if self.is_fatal => Err(self.failed(&why)),
            Refused::Call(why) => {
                tracing::warn!(
                    webhook = self.name,
                    configuration = self.configuration,
                    why,
                    "A webhook cannot be called; the request passes without it."
                );
                Ok(())
            }
        }
    }
}

/// Whom to call, and with which path.
pub(crate) fn target(api: &Api, place: &Result<Place, String>) -> Result<(Target, String), String> {
    match place {
        Err(why) => Err(why.clone()),
        Ok(Place::Url { target, path }) => Ok((target.clone(), path.clone())),
        Ok(Place::Service {
            namespace,
            name,
            port,
            path,
            authorities,
        }) => {
            let (host, to_port) = targets::resolve(namespace, name, *port, &behind(api, namespace, name))?;
            let server_name = format!("{name}.{namespace}.svc");
            let target = Target {
                authority: format!("{server_name}:{port}"),
                host,
                port: to_port,
                server_name,
                authorities: std::sync::Arc::clone(authorities),
            };
            Ok((target, path.clone()))
        }
    }
}

fn behind(api: &Api, namespace: &str, name: &str) -> Behind {
    let collection = |group: &str, plural: &str| {
        let facts = api.registry.resource(group, "v1", plural)?;
        api.caches.collection(facts)
    };
    let path = format!("{namespace}/{name}");
    let one = |plural: &str| Some(collection("", plural)?.get(&path)?.value());
    let all = |group: &str, plural: &str| {
        let entries =
            collection(group, plural).map(|all| all.snapshot(&format!("{namespace}/"), || 0).entries);
        entries.unwrap_or_default()
    };
    let slices = all("discovery.k8s.io", "endpointslices")
        .into_iter()
        .filter(|slice| {
            let labels = slice.facts.labels.as_ref();
            labels
                .and_then(|labels| labels.get("kubernetes.io/service-name"))
                .is_some_and(|owner| owner == name)
        });
    let slices: Vec<Value> = slices.map(|slice| slice.value()).collect();
    let endpoints = one("endpoints");
    // Pods are looked at only where nobody says what is behind the service.
    let needs_pods = slices.is_empty() && endpoints.is_none();
    let pods = if needs_pods { all("", "pods") } else { Vec::new() };
    Behind {
        service: one("services"),
        slices,
        endpoints,
        pods: pods.iter().map(|pod| pod.value()).collect(),
    }
}

/// Lets webhooks change an object, one after another. Those that want it are asked again once if the object was changed
/// after them.
pub(super) async fn mutate(
    hooks: &[Hook],
    call: &Call<'_>,
    operation: Operation,
    old: Option<&Value>,
    object: Option<&mut Value>,
) -> Result<bool, Failure> {
    let Some(object) = object else {
        let subject = Subject::new(call, operation, old, None);
        for hook in hooks {
            if let Some((group, version)) = hook.matches(&subject)? {
                let answer = hook.ask(&subject, (group.as_str(), version.as_str()), None).await;
                let answer = answer.map(|answer| answer.patch.is_some());
                match answer {
                    Ok(false) => {}
                    Ok(true) => return Err(no_object(&hook.name)),
                    Err(refused) => hook.judge(refused)?,
                }
            }
        }
        return Ok(false);
    };
    let before = object.clone();
    let mut asked = Vec::new();
    let mut again = Vec::new();
    for (index, hook) in hooks.iter().enumerate() {
        let Some(changed) = change(hook, call, operation, old, object).await? else {
            continue;
        };
        if changed {
            again.extend(
                asked
                    .iter()
                    .copied()
                    .filter(|earlier| !again.contains(earlier))
                    .collect::<Vec<usize>>(),
            );
        }
        if hook.is_reinvoked {
            asked.push(index);
        }
    }
    if *object != before && operation == Operation::Create && call.subresource.is_none() {
        // What the server completes may look otherwise now; webhooks see that, too.
        let completed = object.clone();
        admission::complete_again(call, object).await?;
        if *object != completed {
            again.clone_from(&asked);
        }
    }
    again.sort_unstable();
    for index in again {
        change(&hooks[index], call, operation, old, object).await?;
    }
    Ok(*object != before)
}

fn no_object(name: &str) -> Failure {
    let why = format!(
        "admission webhook {name:?} attempted to modify the object, which is not supported for this operation"
    );
    Failure::internal(why)
}

/// Asks one webhook, and changes the object as it says. Nothing if the request is not its business; true if it changed.
async fn change(
    hook: &Hook,
    call: &Call<'_>,
    operation: Operation,
    old: Option<&Value>,
    object: &mut Value,
) -> Result<Option<bool>, Failure> {
    let patched = {
        let subject = Subject::new(call, operation, old, Some(&*object));
        let Some((group, version)) = hook.matches(&subject)? else {
            return Ok(None);
        };
        let shown = subject
            .new
            .as_deref()
            .map(|new| subject.in_version(new, &group, &version));
        let answer = match hook
            .ask(&subject, (group.as_str(), version.as_str()), shown.as_ref())
            .await
        {
            Ok(answer) => answer,
            Err(refused) => {
                hook.judge(refused)?;
                return Ok(Some(false));
            }
        };
        let (Some(patch), Some(mut shown)) = (answer.patch, shown) else {
            return Ok(Some(false));
        };
        json_patch::patch(&mut shown, &patch).map_err(|error| Failure::internal(error.to_string()))?;
        let facts = call.resource.facts;
        subject.in_version(&shown, facts.group, facts.version)
    };
    let new = taken_over(call, object, patched)?;
    let changed = new != *object;
    *object = new;
    Ok(Some(changed))
}

/// What a webhook or policy made of an object, as the server goes on with it: of the right type, with its identity, completed.
pub(super) fn taken_over(call: &Call<'_>, before: &Value, mut patched: Value) -> Result<Value, Failure> {
    const KEPT: [&str; 6] = [
        "name",
        "namespace",
        "uid",
        "creationTimestamp",
        "resourceVersion",
        "generateName",
    ];
    if call.subresource.is_some_and(|sub| sub.name != "status") {
        return Ok(patched);
    }
    for field in KEPT {
        let value = tree::at(before, &["metadata", field]).cloned();
        tree::set(tree::map_mut(&mut patched, &["metadata"]), field, value);
    }
    let mut value = decode::patched(call, &patched)?.value;
    if call.resource.is_converted() {
        value = forms::to_stored(call.collection()?.resource, value);
    }
    rules::complete(call, &mut value)?;
    Ok(value)
}

/// Asks all webhooks that validate at once; the first refusal counts.
pub(super) async fn validate(hooks: &[Hook], subject: &Subject<'_>) -> Result<(), Failure> {
    let mut due = Vec::new();
    for hook in hooks {
        if let Some(matched) = hook.matches(subject)? {
            due.push((hook, matched));
        }
    }
    let asked = due.iter().map(|(hook, (group, version))| async move {
        let shown = subject
            .new
            .as_deref()
            .map(|new| subject.in_version(new, group, version));
        match hook
            .ask(subject, (group.as_str(), version.as_str()), shown.as_ref())
            .await
        {
            Ok(_) => Ok(()),
            Err(refused) => hook.judge(refused),
        }
    });
    join_all(asked).await.into_iter().collect()
}
