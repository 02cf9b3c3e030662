//! `moorline controllers`: the volume controllers alone, for any API server, with kube-controller-manager's flags.

use std::path::Path;

use anyhow::{Context as _, bail};
use kube::Client;
use moorline_runtime::Informers;
use moorline_runtime::goflag::Values;
use moorline_volume_controllers::{Config, Controller};
use tokio_util::sync::CancellationToken;

use super::election::{ElectionConfig, lead};
use super::endpoint::Endpoint;
use super::{api, settings};

/// Names of the controllers that kube-controller-manager had before they all ended in `-controller`; it still takes them.
const ALIASES: &[(&str, Controller)] = &[
    ("persistentvolume-binder", Controller::Binder),
    ("attachdetach", Controller::AttachDetach),
    ("ephemeral-volume", Controller::Ephemeral),
    ("pvc-protection", Controller::PvcProtection),
    ("pv-protection", Controller::PvProtection),
];

/// A controller of upstream's that has nothing to do for CSI volumes, which the sidecars expand.
const EXPANDER: [&str; 2] = [
    "persistentvolume-expander-controller",
    "persistentvolume-expander",
];

/// Runs the controllers until `stop`.
///
/// # Errors
/// Settings that can't be used, a lost Lease, a bug in a controller.
pub(crate) async fn serve(values: Values, stop: CancellationToken) -> anyhow::Result<()> {
    let config = config(&values)?;
    let names: Vec<&str> = config
        .controllers
        .iter()
        .map(|controller| controller.as_str())
        .collect();
    tracing::info!(controllers = names.join(","), "Starting");
    let endpoint = Endpoint::new(Some("/metrics"));
    endpoint.always_healthy();
    endpoint.listen(values.text("http-endpoint")).await?;
    let kubeconfig = values.some_text("kubeconfig");
    let master = values.some_text("master");
    let api_config = api::config(kubeconfig.as_deref().map(Path::new), master.as_deref()).await?;
    let client = api::client(api_config.clone(), settings::throttle(&values))?;
    let lease_client = api::client(api_config, None)?;
    let election = election(&values)?;
    run_elected(client, (lease_client, election), config, endpoint, stop).await
}

/// Runs controllers while the Lease is held, and closes the endpoint at a good end.
pub(super) async fn run_elected(
    client: Client,
    election: (Client, Option<ElectionConfig>),
    config: Config,
    endpoint: Endpoint,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let informers_stop = CancellationToken::new();
    let informers = Informers::new(client, informers_stop.clone());
    let ended = lead(election, &endpoint, &stop, |stop| async {
        let running = moorline_volume_controllers::run(config, informers.clone(), stop);
        Box::pin(running).await.context("run the volume controllers")
    })
    .await;
    informers_stop.cancel();
    if ended.is_ok() {
        informers.shutdown().await;
        endpoint.close().await;
    }
    ended
}

fn election(values: &Values) -> anyhow::Result<Option<ElectionConfig>> {
    if !values.flag("leader-elect") {
        return Ok(None);
    }
    let lock = values.text("leader-elect-resource-lock");
    if lock != "leases" {
        bail!("--leader-elect-resource-lock: {lock:?} is none of the locks there are: leases");
    }
    let timings = settings::timings([
        values.duration("leader-elect-lease-duration"),
        values.duration("leader-elect-renew-deadline"),
        values.duration("leader-elect-retry-period"),
    ])?;
    Ok(Some(ElectionConfig {
        lock: values.text("leader-elect-resource-name").to_owned(),
        namespace: values.text("leader-elect-resource-namespace").to_owned(),
        timings,
        labels: Default::default(),
        releases: true,
    }))
}

fn config(values: &Values) -> anyhow::Result<Config> {
    let mut config = Config {
        controllers: selected(values.text("controllers"))?,
        ..Config::default()
    };
    let sync_period = values.duration("pvclaimbinder-sync-period");
    let ephemeral_workers = values.uint("concurrent-ephemeralvolume-syncs");
    if sync_period.is_zero() || ephemeral_workers == 0 {
        bail!("--pvclaimbinder-sync-period and --concurrent-ephemeralvolume-syncs must be above 0");
    }
    config.binder.resync_interval = sync_period;
    config.binder.is_provisioning_on = values.flag("enable-dynamic-provisioning");
    config.ephemeral.workers = ephemeral_workers;
    if values.flag("disable-force-detach-on-timeout") {
        config.attach_detach.force_detach_after = None;
    }
    Ok(config)
}

/// Which controllers a list such as `*,-attachdetach` selects. As upstream: a name counts above the star, the first word
/// on a name counts.
fn selected(list: &str) -> anyhow::Result<Vec<Controller>> {
    let words: Vec<&str> = list
        .split(',')
        .map(str::trim)
        .filter(|word| !word.is_empty())
        .collect();
    for word in &words {
        let name = word.strip_prefix('-').unwrap_or(word);
        if *word != "*" && named(name).is_none() && !EXPANDER.contains(&name) {
            let names: Vec<&str> = Controller::ALL
                .iter()
                .map(|controller| controller.as_str())
                .collect();
            bail!(
                "--controllers: {name:?} is none of the volume controllers: {}",
                names.join(", ")
            );
        }
    }
    let is_selected = |controller: &Controller| {
        let about = |word: &&&str| named(word.strip_prefix('-').unwrap_or(word)) == Some(*controller);
        match words.iter().find(about) {
            Some(word) => !word.starts_with('-'),
            // A program of its own upstream: a cluster that has it must not get a second one unasked.
            None => words.contains(&"*") && *controller != Controller::Snapshot,
        }
    };
    let controllers: Vec<Controller> = Controller::ALL.into_iter().filter(is_selected).collect();
    if controllers.is_empty() {
        bail!("--controllers={list} leaves nothing to run");
    }
    Ok(controllers)
}

fn named(name: &str) -> Option<Controller> {
    let alias = ALIASES.iter().find(|(alias, _)| *alias == name);
    alias.map(|(_, controller)| *controller).or_else(|| {
        Controller::ALL
            .into_iter()
            .find(|controller| controller.as_str() == name)
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use moorline_runtime::goflag;

    use super::super::tables;
    use super::*;

    #[test]
    fn selections() {
        let all: Vec<Controller> = Controller::ALL
            .into_iter()
            .filter(|controller| *controller != Controller::Snapshot)
            .collect();
        let without = |gone: Controller| {
            all.iter()
                .copied()
                .filter(|other| *other != gone)
                .collect::<Vec<_>>()
        };
        let cases = [
            ("*", Some(all.clone())),
            ("*,-attachdetach", Some(without(Controller::AttachDetach))),
            (
                "-persistentvolume-attach-detach-controller,*",
                Some(without(Controller::AttachDetach)),
            ),
            ("persistentvolume-binder", Some(vec![Controller::Binder])),
            ("snapshot-controller", Some(vec![Controller::Snapshot])),
            ("*,persistentvolume-expander", Some(all.clone())),
            (
                "pv-protection,-pv-protection",
                Some(vec![Controller::PvProtection]),
            ),
            ("-pv-protection,pv-protection", None),
            ("", None),
            ("*,deployment-controller", None),
        ];
        for (list, expected) in cases {
            assert_eq!(selected(list).ok(), expected, "{list:?}");
        }
    }

    #[test]
    fn flags_reach_the_controllers() {
        let read = |words: &[&str]| {
            goflag::parse(tables::controllers(), words.iter().map(|word| (*word).to_owned())).unwrap()
        };
        let values = read(&[
            "--pvclaimbinder-sync-period=30s",
            "--enable-dynamic-provisioning=false",
            "--concurrent-ephemeralvolume-syncs=7",
            "--disable-force-detach-on-timeout",
        ]);
        let found = config(&values).unwrap();
        assert_eq!(found.binder.resync_interval, Duration::from_secs(30));
        assert!(!found.binder.is_provisioning_on && found.ephemeral.workers == 7);
        assert_eq!(found.attach_detach.force_detach_after, None);
        let lease = election(&values).unwrap().unwrap();
        assert_eq!(
            (lease.namespace.as_str(), lease.lock.as_str()),
            ("kube-system", "moorline-controllers")
        );
        assert!(election(&read(&["--leader-elect=false"])).unwrap().is_none());
        assert!(election(&read(&["--leader-elect-resource-lock=endpoints"])).is_err());
        let values = read(&[]);
        assert_eq!(config(&values).unwrap().binder.resync_interval, binder_default());
    }

    fn binder_default() -> Duration {
        Config::default().binder.resync_interval
    }
}
