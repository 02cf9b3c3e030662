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
    task: tokio::task::AbortHandle,
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
        let task = tasks.spawn(run(informers.clone(), stop.clone())).abort_handle();
        tasks.close();
        Self {
            api: api.clone(),
            informers,
            stop,
            tasks,
            task,
        }
    }

    /// Leaves it as `kill -9` does. The server answers it no more: see [`TestApi::die_at`].
    pub(crate) fn kill(self) {
        self.task.abort();
    }

    pub(crate) async fn stop(self) -> TestApi {
        self.stop.cancel();
        self.tasks.wait().await;
        self.informers.shutdown().await;
        self.api
    }
}
