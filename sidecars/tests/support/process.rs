//! One process, which may die; the world outlives it.

use std::future::Future;

use moorline_runtime::Informers;
use moorline_sidecars::SidecarError;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::World;

pub struct Process {
    informers: Informers,
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl Process {
    /// Starts what `run` returns, over informers and a stop token of its own.
    pub fn start<F>(world: &World, run: impl FnOnce(Informers, CancellationToken) -> F) -> Self
    where
        F: Future<Output = Result<(), SidecarError>> + Send + 'static,
    {
        let stop = CancellationToken::new();
        let informers = Informers::new(world.api.client(), stop.clone());
        let tasks = TaskTracker::new();
        let running = run(informers.clone(), stop.clone());
        let end = stop.clone();
        tasks.spawn(async move {
            // A dead process's tasks hang for ever: they are dropped.
            tokio::select! {
                () = end.cancelled() => {}
                ended = running => ended.expect("the sidecar runs"),
            }
        });
        tasks.close();
        Self {
            informers,
            stop,
            tasks,
        }
    }

    pub async fn end(self) {
        self.stop.cancel();
        self.tasks.wait().await;
        self.informers.shutdown().await;
    }
}
