//! The loop that runs everything: one event at a time, then whoever it concerns, then the invariants.

mod parts;

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;
use futures::FutureExt;
use futures::channel::mpsc;
use moorline_store::{MemoryStore, Store};
use parking_lot::Mutex;

use crate::api_wire::{self, ApiRequest, ApiWire};
use crate::backend::Backend;
use crate::check::Checker;
use crate::driver::Driver;
use crate::host::Seat;
use crate::kubelet::Machine;
use crate::logs;
use crate::net::{Event, Net, ProcId};
use crate::plan::{CALM_MILLIS, Election, Fault, Op, Plan};
use crate::process::Process;
use crate::trace::Trace;
use crate::users::{NODES, Users};
use parts::{EXITS, api_server, controllers, machines, node, real_node, scheduler, sidecars};

const MILLI: u64 = 1_000_000;
/// How long after the last fault everything must have settled: three times the longest retry interval and more.
const SETTLE_MILLIS: u64 = 40 * 60_000;
/// Between two looks whether everything has settled.
const LOOK_MILLIS: u64 = 5_000;
/// It must look settled this often in a row: what is about to change is not settled.
const LOOKS: u32 = 4;
/// How long a process stays away that ended because it had to.
const RESTART_MILLIS: u64 = 1_000;
/// More steps than this are a part that spins.
const STEPS_MAX: u64 = 3_000_000;

/// How one simulation ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// What was wrong; empty: nothing.
    pub broken: Vec<String>,
    /// Hash of all that happened.
    pub hash: u64,
    /// How many lines that were.
    pub lines: u64,
    /// Events handed over.
    pub steps: u64,
    /// The virtual time of the end, in milliseconds.
    pub millis: u64,
    /// The last lines of the trace, if something was wrong.
    pub tail: Vec<String>,
}

/// How a simulation is run.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Where the API server's keys are; made there if they are not.
    pub pki: PathBuf,
    /// Print every line of the trace.
    pub verbose: bool,
    /// The deliberate bug to run with.
    pub mutant: Option<String>,
}

thread_local! {
    static PANICS: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

/// Runs a plan. Only the first run of a process can be replayed.
///
/// # Panics
/// When the machine lacks what a thread needs.
#[must_use]
pub fn run(plan: &Plan, options: &Options) -> Outcome {
    std::panic::set_hook(Box::new(|info| {
        let line = format!("panic: {info}");
        PANICS.try_with(|panics| panics.borrow_mut().push(line)).ok(); // The thread is ending.
    }));
    let (plan, options) = (plan.clone(), options.clone());
    let thread = std::thread::Builder::new().stack_size(64 << 20);
    let running = thread.spawn(move || {
        let seat = Seat::take(plan.seed);
        logs::listen(options.verbose);
        moorline_model::mutant::switch_on(options.mutant.as_deref());
        World::new(plan, &options, seat).run()
    });
    let running = running.expect("start a thread");
    running
        .join()
        .unwrap_or_else(|_| panic!("the simulator itself panicked"))
}

struct World {
    seat: Seat,
    plan: Plan,
    pki: PathBuf,
    machines: Vec<Machine>,
    net: Net,
    store: Arc<MemoryStore>,
    backend: Arc<Mutex<Backend>>,
    processes: Vec<Option<Process>>,
    server: Arc<Mutex<Option<kube::Client>>>,
    ops: mpsc::UnboundedSender<Op>,
    op_queue: Option<mpsc::UnboundedReceiver<Op>>,
    checker: Checker,
    broken: Vec<String>,
    steps: u64,
    calm_looks: u32,
    is_calm: bool,
    next_look: u64,
}

impl World {
    fn new(plan: Plan, options: &Options, seat: Seat) -> Self {
        let net = Net::new(plan.seed, Trace::new(options.verbose));
        let store = Arc::new(MemoryStore::new());
        let backend: Arc<Mutex<Backend>> = Arc::default();
        backend.lock().grows_on_nodes = plan.has_kubelets;
        let (ops, op_queue) = mpsc::unbounded();
        Self {
            seat,
            checker: Checker::new(&store, &backend, &net),
            plan,
            pki: options.pki.clone(),
            machines: machines(&options.pki),
            net,
            store,
            backend,
            processes: ProcId::ALL.iter().map(|_| None).collect(),
            server: Arc::default(),
            ops,
            op_queue: Some(op_queue),
            broken: Vec::new(),
            steps: 0,
            calm_looks: 0,
            is_calm: false,
            next_look: (CALM_MILLIS + LOOK_MILLIS) * MILLI,
        }
    }

    fn run(mut self) -> Outcome {
        for process in ProcId::ALL {
            self.net.push_at(self.net.latency(), Event::Start(process));
        }
        for (index, (at, _)) in self.plan.ops.iter().enumerate() {
            self.net.push_at(at * MILLI, Event::Op(index));
        }
        for (index, (at, _)) in self.plan.faults.iter().enumerate() {
            self.net.push_at(at * MILLI, Event::Fault(index));
        }
        while self.broken.is_empty() && self.advance() {}
        let millis = self.net.now() / MILLI;
        for process in self.processes.iter_mut().filter_map(Option::take) {
            process.kill();
        }
        let tail = if self.broken.is_empty() {
            Vec::new()
        } else {
            self.net.trace_tail()
        };
        for machine in &self.machines {
            std::fs::remove_dir_all(&machine.root).ok(); // Only a kubelet makes it.
        }
        let trace = self.net.end_trace();
        Outcome {
            broken: self.broken,
            hash: trace.hash(),
            lines: trace.lines(),
            steps: self.steps,
            millis,
            tail,
        }
    }

    /// Goes on to the next thing that happens. False when there is nothing more to see.
    fn advance(&mut self) -> bool {
        let timers = self
            .processes
            .iter()
            .flatten()
            .filter_map(|process| process.due)
            .min();
        let next = self
            .net
            .next_at()
            .into_iter()
            .chain(timers)
            .min()
            .unwrap_or(u64::MAX);
        let next = next.max(self.net.now());
        if next >= self.next_look {
            return self.look();
        }
        self.net.set_now(next);
        self.seat.set_now(next);
        let mut dirty: BTreeSet<ProcId> = BTreeSet::new();
        if self.net.next_at().is_some_and(|at| at <= next)
            && let Some(event) = self.net.pop()
        {
            dirty.extend(self.happen(event));
        }
        for process in ProcId::ALL {
            let slot = self.processes[process.index()].as_ref();
            let is_due = slot.and_then(|slot| slot.due).is_some_and(|due| due <= next);
            if is_due || dirty.contains(&process) {
                self.turn(process, next);
            }
        }
        self.steps += 1;
        if self.steps > STEPS_MAX {
            self.broken
                .push(format!("no end after {STEPS_MAX} steps: a part spins"));
        }
        self.check();
        true
    }

    fn turn(&mut self, id: ProcId, now: u64) {
        let Some(process) = self.processes[id.index()].as_mut() else {
            return;
        };
        process.turn(now);
        match process.ended() {
            None => {}
            // As it is told to; its node starts it again.
            Some(why) if why.starts_with(EXITS) => {
                self.net.trace(|| format!("{id:?} {why}"));
                self.kill(id, RESTART_MILLIS);
                self.net.push_at(now, Event::WakeAll);
            }
            Some(why) => self.broken.push(format!("{id:?} ended by itself: {why}")),
        }
    }

    fn check(&mut self) {
        self.broken.extend(PANICS.take());
        self.broken.extend(logs::take_leaks());
        self.broken.extend(self.checker.step());
    }

    /// Has everything settled? At the end of the time it must have.
    fn look(&mut self) -> bool {
        let now = self.next_look;
        self.net.set_now(now);
        self.seat.set_now(now);
        self.next_look += LOOK_MILLIS * MILLI;
        if !std::mem::replace(&mut self.is_calm, true) {
            self.net.calm();
            self.backend.lock().calm();
        }
        let open = self.checker.unsettled();
        self.calm_looks = if open.is_empty() { self.calm_looks + 1 } else { 0 };
        if self.calm_looks >= LOOKS {
            if !self.checker.saw_secret() {
                self.broken
                    .push("the planted secret was never seen: the set-up failed".to_owned());
            }
            return false;
        }
        if now > (CALM_MILLIS + SETTLE_MILLIS) * MILLI {
            let open = open.into_iter().map(|line| format!("not settled: {line}"));
            self.broken.extend(open);
            return false;
        }
        true
    }

    /// Lets an event happen; answers whom it concerns.
    fn happen(&mut self, event: Event) -> Vec<ProcId> {
        match event {
            Event::Request(request) => self.request(*request),
            Event::Deliver(to, act) => {
                if !self.net.is_alive(to) {
                    drop(act);
                    return Vec::new();
                }
                act();
                vec![to.process]
            }
            Event::Op(index) => {
                let op = self.plan.ops[index].1;
                self.net.trace(|| format!("USER {op:?}"));
                self.ops.unbounded_send(op).ok(); // The users never end.
                match op {
                    // Back only after the admin has taken the taint away.
                    Op::LoseNode { node, down_millis } => self.lose_power(node, down_millis + 90_000),
                    _ => vec![ProcId::Users],
                }
            }
            Event::Fault(index) => {
                let fault = self.plan.faults[index].1;
                self.net.trace(|| format!("FAULT {fault:?}"));
                self.fault(fault)
            }
            Event::Kill { process, down_millis } => self.kill(process, down_millis),
            Event::Start(process) => {
                self.start(process);
                vec![process]
            }
            Event::WakeAll => ProcId::ALL.to_vec(),
        }
    }

    fn request(&mut self, request: ApiRequest) -> Vec<ProcId> {
        self.net.trace(|| request.line());
        let server = self.server.lock().clone();
        let process = self.processes[ProcId::Api.index()].as_ref();
        let (Some(server), Some(process)) = (server, process) else {
            request
                .reply
                .fail(std::io::ErrorKind::ConnectionRefused, "the API server is away");
            return Vec::new();
        };
        match request.fault {
            Some(crate::plan::ApiFault::LoseRequest) => {
                request
                    .reply
                    .fail(std::io::ErrorKind::ConnectionReset, "the request was lost");
                Vec::new()
            }
            Some(crate::plan::ApiFault::Refuse { code }) => {
                request.reply.refuse(code);
                Vec::new()
            }
            _ => {
                process.spawn(api_wire::serve(server, request));
                vec![ProcId::Api]
            }
        }
    }

    fn fault(&mut self, fault: Fault) -> Vec<ProcId> {
        match fault {
            Fault::Kill { process, down_millis } => return self.kill(process, down_millis),
            Fault::PowerLoss { node, down_millis } => return self.lose_power(node, down_millis),
            Fault::Api { process, fault } => self.net.add_api_fault(process, fault),
            Fault::Rpc { rpc, fault } => self.backend.lock().add_fault(rpc, fault),
            Fault::CutWatches { process } => self.net.cut_streams(process),
            Fault::HoldWatches {
                process,
                kind,
                millis,
            } => self.net.hold_watches(process, kind, millis),
            Fault::SlowNetwork { millis } => self.net.slow_down(millis),
            Fault::CutOff { process, millis } => self.net.cut_off(process, millis),
            Fault::Compact => {
                let compacted = self.store.compact(self.store.current_revision()).now_or_never();
                if !matches!(compacted, Some(Ok(()))) {
                    self.broken
                        .push(format!("the store can't be compacted: {compacted:?}"));
                }
            }
        }
        Vec::new()
    }

    fn lose_power(&mut self, node: usize, down_millis: u64) -> Vec<ProcId> {
        self.backend.lock().node_dies(NODES[node]);
        self.machines[node].containers.lock().die();
        self.kill(ProcId::NODES[node], down_millis);
        ProcId::ALL.to_vec()
    }

    fn kill(&mut self, id: ProcId, down_millis: u64) -> Vec<ProcId> {
        let Some(process) = self.processes[id.index()].take() else {
            return Vec::new();
        };
        self.net.trace(|| format!("KILL {id:?}"));
        // First, so that nothing it sends on its way down counts as sent by the living.
        self.net.end_life(id);
        if id == ProcId::Api {
            *self.server.lock() = None;
            // Their connections break with it.
            ProcId::ALL
                .iter()
                .for_each(|client| self.net.cut_streams(*client));
        }
        process.kill();
        let at = self.net.now() + down_millis * MILLI;
        self.net.push_at(at, Event::Start(id));
        // Whoever waited for it may have been woken by its end.
        ProcId::ALL.to_vec()
    }

    fn start(&mut self, id: ProcId) {
        let election = self.plan.election;
        let is_standby = id.first() != id;
        if self.processes[id.index()].is_some() || (is_standby && election == Election::None) {
            return;
        }
        self.net.trace(|| format!("START {id:?}"));
        let net = self.net.clone();
        let started = match id {
            ProcId::Api => Process::start(api_server(
                self.store.clone(),
                self.pki.clone(),
                self.server.clone(),
            )),
            ProcId::Controllers | ProcId::Controllers2 => Process::start(controllers(net, id, election)),
            ProcId::Sidecars | ProcId::Sidecars2 => Process::start(sidecars(net, id, election)),
            ProcId::Scheduler => Process::start(scheduler(net)),
            ProcId::Driver => Process::start(Driver::new(&net, &self.backend).run()),
            ProcId::Node0 => self.start_node(net, id, 0),
            ProcId::Node1 => self.start_node(net, id, 1),
            ProcId::Node2 => self.start_node(net, id, 2),
            ProcId::Users => {
                let (backend, queue) = (self.backend.clone(), self.op_queue.take());
                Process::start(async move {
                    let client = ApiWire::client(&net, ProcId::Users);
                    let queue = queue.context("users start once")?;
                    Users { client, backend }.run(queue).await
                })
            }
        };
        match started {
            Ok(process) => self.processes[id.index()] = Some(process),
            Err(error) => self.broken.push(format!("start {id:?}: {error:#}")),
        }
    }

    fn start_node(&self, net: Net, id: ProcId, n: usize) -> anyhow::Result<Process> {
        if self.plan.has_kubelets {
            let driver = Driver::new(&net, &self.backend);
            Process::start(real_node(net, id, self.machines[n].clone(), driver))
        } else {
            Process::start(node(net, id, NODES[n], self.backend.clone()))
        }
    }
}

/// Makes the API server's keys, which all simulations share. They are random, but what they are doesn't matter.
///
/// # Errors
/// When the folder can't be written.
pub fn prepare(pki: &Path) -> anyhow::Result<()> {
    let plan = Plan {
        seed: 0,
        election: Election::None,
        has_kubelets: false,
        ops: Vec::new(),
        faults: Vec::new(),
    };
    let options = Options {
        pki: pki.to_owned(),
        ..Options::default()
    };
    let outcome = run(&plan, &options);
    anyhow::ensure!(
        outcome.broken.is_empty(),
        "the quietest simulation fails: {:?}",
        outcome.broken
    );
    Ok(())
}
