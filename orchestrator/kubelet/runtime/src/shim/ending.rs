//! The shim's end: everything killed, every exit recorded, those who asked told.

use crate::shim::connections::Asker;
use crate::shim::containers::Managed;
use crate::shim::execs::Session;
use crate::shim::protocol::Reply;
use crate::shim::server::Server;

/// How far the end has come.
#[derive(Debug)]
pub(crate) enum Shutdown {
    NotAsked,
    /// Everything is being killed; these want to hear when it is done.
    Going(Vec<Asker>),
    Done,
}

impl Server {
    pub(crate) fn begin_shutdown(&mut self, asker: Option<Asker>) {
        match &mut self.shutdown {
            Shutdown::NotAsked => self.shutdown = Shutdown::Going(asker.into_iter().collect()),
            Shutdown::Going(askers) => askers.extend(asker),
            Shutdown::Done => {
                if let Some(asker) = asker {
                    self.reply(asker, Reply::Done);
                }
            }
        }
        self.kill_everything();
    }

    /// Answered only when nothing runs any more.
    pub(crate) fn finish_shutdown(&mut self) {
        let Shutdown::Going(askers) = &mut self.shutdown else {
            return;
        };
        let askers = std::mem::take(askers);
        if self.is_busy() {
            self.shutdown = Shutdown::Going(askers);
            self.kill_everything();
            return;
        }
        self.shutdown = Shutdown::Done;
        for asker in askers {
            self.reply(asker, Reply::Done);
        }
    }

    /// Nothing new begins any more.
    pub(crate) fn is_ending(&self) -> bool {
        !matches!(self.shutdown, Shutdown::NotAsked)
    }

    fn is_busy(&self) -> bool {
        !self.jobs.is_empty()
            || self.sessions.values().any(|session| session.pid().is_some())
            || self
                .containers
                .values()
                .any(|container| container.pid().is_some())
    }

    fn kill_everything(&mut self) {
        let containers = self.containers.values().filter_map(Managed::pid);
        let sessions = self.sessions.values().filter_map(Session::pid);
        for pid in containers.chain(sessions).chain(self.jobs.keys().copied()) {
            crate::process::kill_now(pid);
        }
        self.kill_strays();
    }

    /// Kills children nobody accounts for: what is left when a helper was killed half-way. With a helper at work
    /// there are such children rightly.
    pub(crate) fn kill_strays(&self) {
        if !self.jobs.is_empty() {
            return;
        }
        let me = std::process::id();
        let children = std::fs::read_to_string(format!("/proc/self/task/{me}/children")).unwrap_or_default();
        let known = |pid: &u32| {
            self.containers
                .values()
                .any(|container| container.pid() == Some(*pid))
                || self.sessions.values().any(|session| session.pid() == Some(*pid))
        };
        for pid in children
            .split_whitespace()
            .filter_map(|pid| pid.parse().ok())
            .filter(|pid| !known(pid))
        {
            crate::process::kill_tree(pid);
        }
    }
}
