//! One simulated process: a tokio runtime of its own, so that killing it drops every one of its tasks where it stands.

use std::future::Future;

use futures::FutureExt;
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinHandle;

use crate::host;

/// A process while it lives.
pub(crate) struct Process {
    runtime: Runtime,
    main: JoinHandle<anyhow::Result<()>>,
    /// When its next timer is due.
    pub(crate) due: Option<u64>,
}

impl Process {
    /// Starts a process; it runs in its first turn.
    pub(crate) fn start(
        main: impl Future<Output = anyhow::Result<()>> + Send + 'static,
    ) -> anyhow::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let main = runtime.spawn(main);
        Ok(Self {
            runtime,
            main,
            due: None,
        })
    }

    /// Runs until every task of it waits.
    pub(crate) fn turn(&mut self, now: u64) {
        let wait = self.runtime.block_on(host::until_idle());
        self.due = wait.map(|wait| now + wait);
    }

    /// Adds a task.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        drop(self.runtime.spawn(task));
    }

    /// How it ended by itself, if it did.
    pub(crate) fn ended(&mut self) -> Option<String> {
        if !self.main.is_finished() {
            return None;
        }
        Some(match (&mut self.main).now_or_never() {
            Some(Ok(Ok(()))) => "it ended".to_owned(),
            Some(Ok(Err(error))) => format!("{error:#}"),
            Some(Err(error)) => error.to_string(),
            None => "its answer was taken already".to_owned(),
        })
    }

    /// Kills it: every task is dropped at the await it has reached.
    pub(crate) fn kill(self) {
        drop(self.main);
        self.runtime.shutdown_background();
    }
}
