//! `moorline diagnose KIND NAME`: where an object stands, what it waits for, since when, who has to act, and what to do.
//!
//! It reads what the deciders read ([`facts`]), asks them ([`walk`]), and tells ([`report`]); nothing is written. The
//! words are those of the deciders' own reasons, so they can't drift from what the parts do.

mod facts;
mod report;
mod target;
mod walk;

use std::{fmt::Debug, path::PathBuf, process::ExitCode, time::Duration};

use anyhow::{Context as _, anyhow, bail};
use jiff::Timestamp;
use k8s_openapi::{
    NamespaceResourceScope,
    api::{
        core::v1::{PersistentVolume, PersistentVolumeClaim, Pod},
        storage::v1::VolumeAttachment,
    },
};
use kube::{Api, Client, Resource};
use moorline_model::snapshot::VolumeSnapshot;
use moorline_runtime::goflag::parse_duration;
use serde::de::DeserializeOwned;
use tokio::time::{Instant, MissedTickBehavior, timeout_at};

use self::{
    facts::Facts,
    report::{Report, Verdict},
    target::{Kind, ObjectName},
};
use crate::{args::OutputFormat, dropin::api, telemetry};

/// How often `--watch` looks.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// How long one look may take where nothing else is asked for.
const LOOK_LIMIT: Duration = Duration::from_secs(30);
/// Wrong usage, as for all commands.
const EXIT_USAGE: u8 = 2;
/// No such object.
const EXIT_MISSING: u8 = 4;

/// Flags of `moorline diagnose`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Exit codes: 0 healthy, 1 the cluster can't be read, 2 wrong usage, 3 somebody has to act, \
                        4 no such object, 5 a part of the cluster is at work, 6 not everything could be read."
)]
pub struct Args {
    /// What to explain: pvc, pv, pod, volumeattachment or volumesnapshot, and its name; or KIND/NAME.
    #[arg(value_name = "KIND NAME", required = true, num_args = 1..)]
    object: Vec<String>,
    /// The object's namespace. Default: that of the kubeconfig's context.
    #[arg(long, short, value_name = "NAMESPACE")]
    namespace: Option<String>,
    /// Kubeconfig of the cluster. Default: $KUBECONFIG, ~/.kube/config, or the pod's service account.
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// The form of the answer; with --watch, json is one document a line.
    #[arg(long, short, value_enum, default_value = "text")]
    output: OutputFormat,
    /// Tell again whenever something has changed, until the object is healthy, or gone if it is being deleted.
    #[arg(long, short)]
    watch: bool,
    /// Give up after this time. Default: 30s; with --watch never.
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    timeout: Option<Duration>,
}

fn duration(text: &str) -> Result<Duration, String> {
    parse_duration(text).ok_or_else(|| String::from("no duration, such as 15s, 1m30s or 250ms"))
}

/// Explains one object.
pub(crate) async fn run(args: Args) -> anyhow::Result<ExitCode> {
    // Before the cluster is asked for its namespace: wrong words need no cluster to be wrong.
    if let Err(error) = ObjectName::parse(&args.object, "") {
        telemetry::say_error(&error);
        return Ok(ExitCode::from(EXIT_USAGE));
    }
    let config = api::config_of_user(args.kubeconfig.as_deref()).await?;
    let namespace = args
        .namespace
        .clone()
        .unwrap_or_else(|| config.default_namespace.clone());
    let target = ObjectName::parse(&args.object, &namespace)?;
    let client = api::client(config, None)?;
    if args.watch {
        Box::pin(watch(&client, &target, &namespace, &args)).await
    } else {
        let limit = args.timeout.unwrap_or(LOOK_LIMIT);
        let report = Box::pin(look(&client, &target, &namespace, Instant::now() + limit)).await?;
        match report {
            Some(report) => {
                tell(&report, args.output, false)?;
                Ok(ExitCode::from(report.verdict.exit_code()))
            }
            None => missing(&target),
        }
    }
}

fn missing(target: &ObjectName) -> anyhow::Result<ExitCode> {
    telemetry::say_error(&anyhow!("{target} doesn't exist"));
    Ok(ExitCode::from(EXIT_MISSING))
}

/// Looks again and again, and tells what has changed.
async fn watch(
    client: &Client,
    target: &ObjectName,
    namespace: &str,
    args: &Args,
) -> anyhow::Result<ExitCode> {
    let end = args.timeout.map(|timeout| Instant::now() + timeout);
    let mut ticks = tokio::time::interval(LOOK_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut told: Option<Report> = None;
    let mut trouble = String::new();
    loop {
        ticks.tick().await;
        let by = Instant::now() + LOOK_LIMIT;
        let by = end.map_or(by, |end| end.min(by));
        let found = Box::pin(look(client, target, namespace, by)).await;
        let is_over = end.is_some_and(|end| Instant::now() >= end);
        match found {
            Ok(Some(report)) => {
                if told.as_ref() != Some(&report) {
                    tell(&report, args.output, true)?;
                }
                let verdict = report.verdict;
                told = Some(report);
                trouble.clear();
                if verdict == Verdict::Healthy || is_over {
                    return Ok(ExitCode::from(verdict.exit_code()));
                }
            }
            Ok(None) if told.as_ref().is_some_and(|told| told.is_being_deleted) => {
                tell_gone(target, args.output)?;
                return Ok(ExitCode::SUCCESS);
            }
            Ok(None) => return missing(target),
            // Nothing was ever told: it is the kubeconfig or the flags rather than the weather.
            Err(error) if told.is_none() => return Err(error),
            Err(error) => {
                let text = format!("{error:#}");
                if text != trouble {
                    tracing::warn!(error = text, "The cluster can't be read; looking again");
                    trouble = text;
                }
                if let Some(told) = told.as_ref().filter(|_| is_over) {
                    return Ok(ExitCode::from(told.verdict.exit_code()));
                }
            }
        }
    }
}

/// One look; `None`: there is no such object.
async fn look(
    client: &Client,
    target: &ObjectName,
    namespace: &str,
    by: Instant,
) -> anyhow::Result<Option<Report>> {
    let reading = async {
        // Asked for by name first: one question tells whether there is a cluster, a kind and an object.
        if !exists(client, target).await? {
            return Ok(None);
        }
        let namespace = target.namespace.as_deref().unwrap_or(namespace);
        let facts = Box::pin(Facts::read(client, namespace, Timestamp::now())).await;
        match walk::diagnose(target, &facts) {
            Some(report) => Ok(Some(report)),
            // It may have gone in between, or may be read by name only.
            None if !exists(client, target).await? => Ok(None),
            None => bail!("{target} can't be explained: {}", unreadable(&facts)),
        }
    };
    timeout_at(by, reading)
        .await
        .context("the API server did not answer in time")?
}

fn unreadable(facts: &Facts) -> String {
    let lines = facts.unread_lines();
    if lines.is_empty() {
        "it changes too fast; look again".to_owned()
    } else {
        lines.join("; ")
    }
}

async fn exists(client: &Client, target: &ObjectName) -> anyhow::Result<bool> {
    let (client, name) = (client.clone(), target.name.as_str());
    let namespace = target.namespace.as_deref().unwrap_or_default();
    match target.kind {
        Kind::Pod => is_there(&namespaced::<Pod>(client, namespace), name).await,
        Kind::PersistentVolumeClaim => {
            is_there(&namespaced::<PersistentVolumeClaim>(client, namespace), name).await
        }
        Kind::PersistentVolume => is_there(&Api::<PersistentVolume>::all(client), name).await,
        Kind::VolumeAttachment => is_there(&Api::<VolumeAttachment>::all(client), name).await,
        Kind::VolumeSnapshot => is_there(&namespaced::<VolumeSnapshot>(client, namespace), name).await,
        Kind::VolumeSnapshotContent => Ok(false),
    }
}

fn namespaced<K>(client: Client, namespace: &str) -> Api<K>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
{
    Api::namespaced(client, namespace)
}

async fn is_there<K>(api: &Api<K>, name: &str) -> anyhow::Result<bool>
where
    K: Resource<DynamicType = ()> + DeserializeOwned + Clone + Debug,
{
    match api.get_opt(name).await {
        Ok(found) => Ok(found.is_some()),
        Err(error) => bail!("read {} {name}: {}", K::plural(&()), facts::say(&error)),
    }
}

#[expect(clippy::print_stdout, reason = "the command line's answer to its user")]
fn tell(report: &Report, output: OutputFormat, is_one_of_many: bool) -> anyhow::Result<()> {
    match output {
        OutputFormat::Text if is_one_of_many => println!("{}", report.text(Timestamp::now())),
        OutputFormat::Text => print!("{}", report.text(Timestamp::now())),
        OutputFormat::Json if is_one_of_many => println!("{}", serde_json::to_string(report)?),
        OutputFormat::Json => println!("{}", serde_json::to_string_pretty(report)?),
    }
    Ok(())
}

/// A deletion that was watched to its end.
#[expect(clippy::print_stdout, reason = "the command line's answer to its user")]
fn tell_gone(target: &ObjectName, output: OutputFormat) -> anyhow::Result<()> {
    match output {
        OutputFormat::Text => println!("{target} is gone."),
        OutputFormat::Json => {
            let gone = Report::new(target.clone(), "gone".to_owned(), Vec::new(), Vec::new());
            println!("{}", serde_json::to_string(&gone)?);
        }
    }
    Ok(())
}
