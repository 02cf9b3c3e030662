//! The simulator: API server, volume controllers, scheduler, sidecars and a simulated CSI driver in one thread, with
//! virtual time, a network that loses things, and processes that are killed wherever they happen to be.
//!
//! The parts are the real ones, unchanged: they are given a `kube::Client` and a connection to a driver, and neither
//! knows that there is no socket behind it. [`host`] takes the place of clock and randomness, `process` gives each part
//! a runtime of its own that can be dropped, `net` decides who hears of what when, [`plan`] what users do and what goes
//! wrong, `check` whether it was right. Start reading at [`world::run`]; `docs/simulation.md` says how to use it.

mod api_wire;
mod backend;
mod check;
mod driver;
pub mod host;
mod kubelet;
mod logs;
mod net;
mod node;
mod pipe;
pub mod plan;
mod process;
pub mod runner;
mod trace;
mod users;
pub mod world;

pub use net::ProcId;
