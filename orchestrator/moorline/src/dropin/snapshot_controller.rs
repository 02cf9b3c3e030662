//! `snapshot-controller`: the controller of external-snapshotter, alone, for any API server.

use std::path::Path;
use std::time::Duration;

use anyhow::bail;
use moorline_model::snapshot::API_VERSION;
use moorline_runtime::goflag::Values;
use moorline_runtime::until_served;
use moorline_volume_controllers::{Config, Controller};
use tokio_util::sync::CancellationToken;

use super::controllers::run_elected;
use super::endpoint::Endpoint;
use super::tables::Program;
use super::{api, settings};

const KINDS: [&str; 3] = ["VolumeSnapshot", "VolumeSnapshotContent", "VolumeSnapshotClass"];
/// However short the flag makes it, the kinds are waited for this long.
const PATIENCE_MIN: Duration = Duration::from_secs(1);

/// Runs the controller until `stop`.
///
/// # Errors
/// Settings that can't be used, no snapshot kinds within the time for them, a lost Lease, a bug in the controller.
pub(super) async fn serve(values: Values, stop: CancellationToken) -> anyhow::Result<()> {
    let program = Program::SnapshotController;
    settings::check_gates(&values, program.gates(), &[settings::RELEASE, settings::GROUPS])?;
    let election = settings::election(&values, "snapshot-controller-leader".to_owned())?;
    let config = Config {
        controllers: vec![Controller::Snapshot],
        snapshot: settings::snapshot_controller(&values)?,
        ..Config::default()
    };
    let endpoint = Endpoint::new(Some(values.text("metrics-path")));
    endpoint.always_healthy();
    endpoint.listen(values.text("http-endpoint")).await?;
    let kubeconfig = values.some_text("kubeconfig");
    let api_config = api::config(kubeconfig.as_deref().map(Path::new), None).await?;
    let client = api::client(api_config.clone(), settings::throttle(&values))?;
    let lease_client = api::client(api_config, None)?;
    let patience = values.duration("retry-crd-interval-max").max(PATIENCE_MIN);
    let waiting = until_served(&client, API_VERSION, &KINDS, &stop);
    match tokio::time::timeout(patience, waiting).await {
        Ok(true) => {}
        Ok(false) => return Ok(()),
        Err(_) => bail!(
            "the API server has had no {} of {API_VERSION} for {patience:?}: install their definitions \
             (--retry-crd-interval-max says how long to wait)",
            KINDS.join(", ")
        ),
    }
    run_elected(client, (lease_client, election), config, endpoint, stop).await
}
