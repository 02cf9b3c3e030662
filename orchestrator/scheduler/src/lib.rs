//! The scheduler: gives each pod that has no node one, volumes first.
//!
//! [`decide::decide`] is the whole decision as a pure function from a [`snapshot::Snapshot`] to a node or to the
//! reasons against every node; the plugins below [`plugins`] are its parts, one module for each of upstream's. [`run`]
//! keeps the snapshot, writes what the volumes need (`PreBind`), waits for it, and binds.
//!
//! ```text
//!              add                pop               decide: a node        volumes bound
//! (unscheduled) ---> pending queue ---> decide ------------------> binding -------------> POST binding
//!                      ^                  | none fits                 | gave up, conflict
//!                      +--- backoff <-----+---------------------------+
//! ```
//!
//! A pod that no node fits gets the condition `PodScheduled: False` and the event `FailedScheduling`, and is looked at
//! again with backoff when something changes that could help it. Nothing is remembered that can't be read again: a
//! restart reads the claims' `selected-node` annotations and goes on from there.

#![forbid(unsafe_code)]

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

pub mod decide;
pub mod explain;
pub mod ledger;
pub mod plugins;
pub mod requests;
pub mod snapshot;
pub mod verdict;

mod bind;
mod shell;
mod status;
mod volume_waits;
mod waiting;

use std::time::Duration;

pub use shell::run;

/// What can be chosen about a scheduler.
#[derive(Debug, Clone)]
pub struct Config {
    /// The name that pods ask for in `spec.schedulerName`.
    pub scheduler_name: String,
    /// How long a pod may wait for its claims to be bound before it is scheduled anew.
    pub bind_timeout: Duration,
    /// How many pods may be on their way to a node at once. Each mostly waits for its volumes and costs a few KiB; one
    /// more would hold up all others, also those without volumes.
    pub binding_limit: usize,
    /// How many writes may be under way at once.
    pub write_limit: usize,
    /// How long to wait for the answer to a write.
    pub write_timeout: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            scheduler_name: "default-scheduler".into(),
            bind_timeout: Duration::from_secs(600),
            binding_limit: 8_192,
            write_limit: 64,
            write_timeout: Duration::from_secs(30),
        }
    }
}

/// Why the scheduler ended by itself.
#[derive(Debug, thiserror::Error)]
pub enum Error {}
