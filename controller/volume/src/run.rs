//! Starts a selection of the controllers and waits for them.

use futures::FutureExt;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use moorline_runtime::Informers;
use thiserror::Error;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::{attach_detach, binder, ephemeral, pv_protection, pvc_protection, snapshot, vac_protection};

/// One of the controllers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Controller {
    /// [`binder`]
    Binder,
    /// [`attach_detach`]
    AttachDetach,
    /// [`ephemeral`]
    Ephemeral,
    /// [`pvc_protection`]
    PvcProtection,
    /// [`pv_protection`]
    PvProtection,
    /// [`vac_protection`]
    VacProtection,
    /// [`snapshot`]
    Snapshot,
}

impl Controller {
    /// All of them.
    pub const ALL: [Controller; 7] = [
        Controller::Binder,
        Controller::AttachDetach,
        Controller::Ephemeral,
        Controller::PvcProtection,
        Controller::PvProtection,
        Controller::VacProtection,
        Controller::Snapshot,
    ];

    /// Upstream's name (`--controllers` of kube-controller-manager; the snapshot controller is a program of its own).
    pub fn as_str(self) -> &'static str {
        match self {
            Controller::Binder => "persistentvolume-binder-controller",
            Controller::AttachDetach => "persistentvolume-attach-detach-controller",
            Controller::Ephemeral => "ephemeral-volume-controller",
            Controller::PvcProtection => "persistentvolumeclaim-protection-controller",
            Controller::PvProtection => "persistentvolume-protection-controller",
            Controller::VacProtection => "volumeattributesclass-protection-controller",
            Controller::Snapshot => "snapshot-controller",
        }
    }
}

/// Which controllers run, and how.
#[derive(Clone, Debug)]
pub struct Config {
    /// Those that run.
    pub controllers: Vec<Controller>,
    /// Settings of the binder.
    pub binder: binder::Config,
    /// Settings of attach/detach.
    pub attach_detach: attach_detach::Config,
    /// Settings of the ephemeral volume controller.
    pub ephemeral: ephemeral::Config,
    /// Settings of claim protection.
    pub pvc_protection: pvc_protection::Config,
    /// Settings of PV protection.
    pub pv_protection: pv_protection::Config,
    /// Settings of attributes class protection.
    pub vac_protection: vac_protection::Config,
    /// Settings of the snapshot controller.
    pub snapshot: snapshot::Config,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            controllers: Controller::ALL.to_vec(),
            binder: binder::Config::default(),
            attach_detach: attach_detach::Config::default(),
            ephemeral: ephemeral::Config::default(),
            pvc_protection: pvc_protection::Config::default(),
            pv_protection: pv_protection::Config::default(),
            vac_protection: vac_protection::Config::default(),
            snapshot: snapshot::Config::default(),
        }
    }
}

/// Why [`run`] ended other than by being stopped.
#[derive(Debug, Error)]
pub enum Error {
    /// A bug ended a controller; the others were stopped.
    #[error("{controller} panicked")]
    Panicked {
        /// Its name.
        controller: &'static str,
    },
}

/// Runs the selected controllers until `stop` is cancelled, then waits until their writes under way are done.
///
/// # Errors
/// A bug: a controller panicked. The others are stopped and waited for.
pub async fn run(config: Config, informers: Informers, stop: CancellationToken) -> Result<(), Error> {
    let stop = stop.child_token();
    let tasks = TaskTracker::new();
    let mut running: FuturesUnordered<_> = config
        .controllers
        .iter()
        .map(|controller| {
            let task = start(*controller, &config, &informers, &tasks, &stop);
            task.map(|ended| (controller.as_str(), ended))
        })
        .collect();
    tasks.close();
    let mut result = Ok(());
    while let Some((controller, ended)) = running.next().await {
        if ended.is_err() {
            stop.cancel();
            result = Err(Error::Panicked { controller });
        }
    }
    tasks.wait().await;
    result
}

fn start(
    controller: Controller,
    config: &Config,
    informers: &Informers,
    tasks: &TaskTracker,
    stop: &CancellationToken,
) -> JoinHandle<()> {
    let (informers, stop) = (informers.clone(), stop.clone());
    match controller {
        Controller::Binder => tasks.spawn(binder::run(config.binder.clone(), informers, stop)),
        Controller::AttachDetach => {
            tasks.spawn(attach_detach::run(config.attach_detach.clone(), informers, stop))
        }
        Controller::Ephemeral => tasks.spawn(ephemeral::run(config.ephemeral.clone(), informers, stop)),
        Controller::PvcProtection => tasks.spawn(pvc_protection::run(
            config.pvc_protection.clone(),
            informers,
            stop,
        )),
        Controller::VacProtection => tasks.spawn(vac_protection::run(
            config.vac_protection.clone(),
            informers,
            stop,
        )),
        Controller::Snapshot => tasks.spawn(snapshot::run(config.snapshot.clone(), informers, stop)),
        Controller::PvProtection => {
            tasks.spawn(pv_protection::run(config.pv_protection.clone(), informers, stop))
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::testing::api::TestApi;

    #[tokio::test]
    async fn all_controllers_run_together_and_stop() {
        let api = TestApi::new();
        let stop = CancellationToken::new();
        let informers = Informers::new(api.client(), CancellationToken::new());
        let tasks = TaskTracker::new();
        let running = tasks.spawn(run(Config::default(), informers.clone(), stop.clone()));
        let spec = json!({"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}});
        api.put(
            "persistentvolumeclaims",
            json!({"metadata": {"namespace": "ns", "name": "c"}, "spec": spec}),
        );
        let spec = json!({"accessModes": ["ReadWriteOnce"], "capacity": {"storage": "1Gi"}});
        api.put(
            "persistentvolumes",
            json!({"metadata": {"name": "pv1"}, "spec": spec}),
        );
        api.wait_until("bound and protected", |api| {
            let claim = api.get("persistentvolumeclaims", "ns/c").unwrap();
            let pv = api.get("persistentvolumes", "/pv1").unwrap();
            claim["status"]["phase"] == "Bound"
                && !claim["metadata"]["finalizers"].is_null()
                && !pv["metadata"]["finalizers"].is_null()
        })
        .await;
        stop.cancel();
        running.await.unwrap().unwrap();
        informers.shutdown().await;
    }

    #[test]
    fn names_of_controllers_are_unique() {
        let names: std::collections::BTreeSet<_> = Controller::ALL.iter().map(|c| c.as_str()).collect();
        assert_eq!(names.len(), Controller::ALL.len());
        assert_eq!(Config::default().controllers, Controller::ALL);
    }
}
