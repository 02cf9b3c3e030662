//! One controller running over a [`TestApi`], stopped and waited for at the end of the test.

use std::future::Future;

use moorline_runtime::Informers;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::api::TestApi;

pub(crate) struct Running {
    api: TestApi,
    informers: Informers,
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl Running {
    /// Starts what `run` returns, over informers and a stop token of its own.
    pub(crate) fn start<F>(api: &TestApi, run: impl FnOnce(Informers, CancellationToken) -> F) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let stop = CancellationToken::new();
        let informers = Informers::new(api.client(), CancellationToken::new());
        let tasks = TaskTracker::new();
        tasks.spawn(run(informers.clone(), stop.clone()));
        tasks.close();
        Self {
            api: api.clone(),
            informers,
            stop,
            tasks,
        }
    }

    pub(crate) async fn stop(self) -> TestApi {
        self.stop.cancel();
        self.tasks.wait().await;
        self.informers.shutdown().await;
        self.api
    }
}
