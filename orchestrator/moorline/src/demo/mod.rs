//! `moorline demo`: one volume's whole life in a throw-away cluster, shown step by step, and nothing left afterwards.

mod facts;
mod leaks;
mod story;
mod timeline;

use std::{path::Path, process::ExitCode, time::Duration};

use anyhow::Context as _;
use kube::{Client, Config, config::KubeConfigOptions, config::Kubeconfig};
use serde::Serialize;
use tokio::time::Instant;

use self::{
    facts::Facts,
    story::{Growth, Story},
    timeline::{Step, Timeline, milliseconds},
};
use crate::{
    args,
    args::OutputFormat,
    cluster::{Cluster, ClusterConfig},
    down, privilege,
    signals::Signals,
    state_dir::StateDir,
};

/// How long the cluster may take to drain at the end.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(20);

/// The JSON answer.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Report<'a> {
    ok: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    steps: &'a [Step],
    left_behind: Vec<String>,
    total_ms: f64,
}

/// Runs the demo; exit code 0 if all of it happened and nothing was left, else 1 with the reason.
pub async fn run(args: args::Demo) -> anyhow::Result<ExitCode> {
    privilege::require_root(
        "moorline demo",
        "Without root, `moorline up --no-kubelet --no-driver` runs the API server, the controllers and the scheduler.",
    )?;
    let dir = tempfile::Builder::new()
        .prefix("moorline-demo-")
        .tempdir()
        .context("make a temporary directory")?;
    let state = StateDir::at(dir.path())?;
    let mut signals = Signals::new()?;
    let mut timeline = Timeline::new(args.output);
    let told = tokio::select! {
        told = tell(&args, &state, &mut timeline) => told,
        (signal, _) = signals.next() => Err(anyhow::anyhow!("interrupted by {signal}")),
    };
    // Whatever happened above, nothing stays: containers, mounts and loop devices first, files last.
    let cleaned = down::clean(&state).await;
    let left = match &told {
        Ok(()) => leaks::after_shutdown(&state),
        Err(_) => Ok(Vec::new()),
    };
    timeline.finish();
    let removed = dir.close().context("remove the temporary directory");
    let outcome = told.and(cleaned.map(|_| ())).and(removed);
    conclude(&args, &timeline, outcome, left?)
}

/// Starts the cluster, tells the story, and stops the cluster again, also when the story broke off.
async fn tell(args: &args::Demo, state: &StateDir, timeline: &mut Timeline) -> anyhow::Result<()> {
    timeline.chapter("A cluster in one process");
    timeline.waiting("cluster ready");
    let config = ClusterConfig {
        state: state.clone(),
        listen: ([127, 0, 0, 1], 0).into(),
        node_name: "demo".into(),
        driver: Some(args.driver_backend),
        kubelet: true,
        controllers: true,
        host_image: true,
        snapshots: false,
        compaction_interval: Duration::from_secs(300),
    };
    let cluster = Cluster::start(config).await?;
    let story = async {
        cluster.ready(Duration::from_secs(args.step_timeout)).await?;
        timeline.step(
            "cluster ready",
            "API server, controllers, scheduler, kubelet, driver, sidecars",
            Instant::now(),
        );
        let facts = Facts::watch(client(&cluster).await?).await?;
        let told = tell_story(args, &state.kubelet(), &facts, timeline).await;
        let told = match told {
            Ok(()) => leaks::while_running(state, timeline).await,
            Err(error) => Err(error),
        };
        facts.close().await;
        told
    }
    .await;
    let stopped = cluster.shutdown(SHUTDOWN_GRACE).await;
    story.and(stopped)
}

async fn tell_story(
    args: &args::Demo,
    kubelet_root: &Path,
    facts: &Facts,
    timeline: &mut Timeline,
) -> anyhow::Result<()> {
    let limit = Duration::from_secs(args.step_timeout);
    let growth = Growth::of(args.driver_backend);
    if let Some(remark) = growth.remark() {
        timeline.line(&format!("  note: {remark}"));
    }
    let mut story = Story {
        facts,
        timeline,
        limit,
        growth,
        kubelet_root,
    };
    story.first_pod().await?;
    story.second_pod().await?;
    story.growth().await?;
    story.deletion().await
}

/// A client that comes in through the front door, TLS and certificates included.
async fn client(cluster: &Cluster) -> anyhow::Result<Client> {
    let kubeconfig =
        Kubeconfig::from_yaml(&cluster.admin_kubeconfig()).context("read the kubeconfig just written")?;
    let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
        .await
        .context("use the kubeconfig just written")?;
    Client::try_from(config).context("connect with the kubeconfig just written")
}

#[expect(clippy::print_stdout, reason = "the command line's answer to its user")]
fn conclude(
    args: &args::Demo,
    timeline: &Timeline,
    outcome: anyhow::Result<()>,
    left: Vec<String>,
) -> anyhow::Result<ExitCode> {
    let ok = outcome.is_ok() && left.is_empty();
    let total = timeline.elapsed();
    match args.output {
        OutputFormat::Json => {
            let error = outcome.err().map(|error| format!("{error:#}"));
            let report = Report {
                ok,
                error,
                steps: timeline.steps(),
                left_behind: left,
                total_ms: milliseconds(total),
            };
            println!(
                "{}",
                serde_json::to_string_pretty(&report).context("write the report")?
            );
        }
        OutputFormat::Text => {
            outcome?;
            left.iter().for_each(|what| println!("  left behind: {what}"));
            let verdict = if left.is_empty() {
                "nothing left behind"
            } else {
                "NOT everything was cleaned up"
            };
            println!(
                "\n{} steps in {:.2} s, {verdict}",
                timeline.steps().len(),
                total.as_secs_f64()
            );
        }
    }
    Ok(if ok { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
