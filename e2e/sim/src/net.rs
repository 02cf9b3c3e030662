//! The network and the order of events: the only way from one simulated process to another.
//!
//! Whatever crosses from process to process waits here for its time and is handed over by the world's loop, one event
//! at a time. That makes the order a matter of the seed, and gives faults one place to happen.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use futures::channel::{mpsc, oneshot};
use http::Response;
use parking_lot::Mutex;

use crate::api_wire::{Answer, ApiRequest, WireBody};
use crate::host::split_mix;
use crate::pipe::SimStream;
use crate::plan::ApiFault;
use crate::trace::Trace;

/// One of the simulated processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ProcId {
    /// The API server; its store survives it.
    Api,
    /// All volume controllers.
    Controllers,
    /// All controller sidecars of the driver.
    Sidecars,
    /// The scheduler.
    Scheduler,
    /// The driver's controller service; its backend survives it.
    Driver,
    /// The first node's kubelet; the machine's mounts survive it.
    Node0,
    /// The second.
    Node1,
    /// The third.
    Node2,
    /// Those who make and delete objects. Never killed.
    Users,
    /// Another candidate for the controllers' lease, where there is an election.
    Controllers2,
    /// The same for the sidecars.
    Sidecars2,
}

impl ProcId {
    /// All of them.
    pub const ALL: [ProcId; 11] = [
        ProcId::Api,
        ProcId::Controllers,
        ProcId::Sidecars,
        ProcId::Scheduler,
        ProcId::Driver,
        ProcId::Node0,
        ProcId::Node1,
        ProcId::Node2,
        ProcId::Users,
        ProcId::Controllers2,
        ProcId::Sidecars2,
    ];

    /// The nodes, by number.
    pub const NODES: [ProcId; 3] = [ProcId::Node0, ProcId::Node1, ProcId::Node2];

    /// The one that it stands by for, or itself.
    pub(crate) fn first(self) -> ProcId {
        match self {
            ProcId::Controllers2 => ProcId::Controllers,
            ProcId::Sidecars2 => ProcId::Sidecars,
            other => other,
        }
    }

    pub(crate) fn index(self) -> usize {
        self as usize
    }
}

/// Which life of a process something is meant for. A process that died and came back does not get the mail of the dead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Address {
    pub(crate) process: ProcId,
    pub(crate) life: u32,
}

/// What can happen.
pub(crate) enum Event {
    /// A request arrives at the API server.
    Request(Box<ApiRequest>),
    /// Something arrives at a process.
    Deliver(Address, Box<dyn FnOnce() + Send>),
    /// The plan's next user step.
    Op(usize),
    /// The plan's next fault.
    Fault(usize),
    /// A process dies.
    Kill { process: ProcId, down_millis: u64 },
    /// A process starts.
    Start(ProcId),
    /// All processes may have been woken.
    WakeAll,
}

/// What the API server sends to those who watch.
pub(crate) enum WatchNews {
    /// A watch of this path and query begins.
    Open { stream: u64, line: String },
    /// It gets this.
    Data { stream: u64, data: Bytes },
    /// It ends.
    Closed { stream: u64 },
}

struct Stream {
    to: Address,
    sender: mpsc::UnboundedSender<Result<Bytes, io::Error>>,
    is_cut: Arc<AtomicBool>,
}

struct Inner {
    now: u64,
    sequence: u64,
    queue: BTreeMap<(u64, u64), Event>,
    random: u64,
    lives: Vec<u32>,
    acceptors: Vec<Option<mpsc::UnboundedSender<SimStream>>>,
    api_faults: Vec<(ProcId, ApiFault)>,
    slow_until: u64,
    late_watches: Vec<(ProcId, Option<&'static str>, u64)>,
    /// Until when nothing passes between a process and the API server.
    cut_off: Vec<(ProcId, u64)>,
    streams: Vec<Stream>,
    watch_news: Vec<WatchNews>,
    trace: Trace,
}

/// The network. Clones are the same network.
#[derive(Clone)]
pub(crate) struct Net {
    inner: Arc<Mutex<Inner>>,
}

impl fmt::Debug for Net {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Net").finish_non_exhaustive()
    }
}

const MILLI: u64 = 1_000_000;

impl Net {
    pub(crate) fn new(seed: u64, trace: Trace) -> Self {
        let count = ProcId::ALL.len();
        let inner = Inner {
            now: 0,
            sequence: 0,
            queue: BTreeMap::new(),
            random: seed ^ 0x5151_5151,
            lives: vec![0; count],
            acceptors: (0..count).map(|_| None).collect(),
            api_faults: Vec::new(),
            slow_until: 0,
            late_watches: Vec::new(),
            cut_off: Vec::new(),
            streams: Vec::new(),
            watch_news: Vec::new(),
            trace,
        };
        Self {
            inner: Arc::new(Mutex::new(inner)),
        }
    }

    pub(crate) fn now(&self) -> u64 {
        self.inner.lock().now
    }

    pub(crate) fn set_now(&self, now: u64) {
        self.inner.lock().now = now;
    }

    /// When the next event is due.
    pub(crate) fn next_at(&self) -> Option<u64> {
        self.inner.lock().queue.keys().next().map(|(at, _)| *at)
    }

    pub(crate) fn pop(&self) -> Option<Event> {
        let mut inner = self.inner.lock();
        inner.queue.pop_first().map(|(_, event)| event)
    }

    pub(crate) fn push_at(&self, at: u64, event: Event) {
        let mut inner = self.inner.lock();
        inner.sequence += 1;
        let key = (at, inner.sequence);
        inner.queue.insert(key, event);
    }

    /// Hands something to a process after the network's latency, not before `not_before`; answers when that will be.
    pub(crate) fn deliver(&self, to: Address, not_before: u64, act: impl FnOnce() + Send + 'static) -> u64 {
        let at = (self.now() + self.latency()).max(not_before);
        self.push_at(at, Event::Deliver(to, Box::new(act)));
        at
    }

    /// A random latency: mostly below three milliseconds, up to a second while the network is slow.
    pub(crate) fn latency(&self) -> u64 {
        let mut inner = self.inner.lock();
        let word = split_mix(&mut inner.random);
        let most = if inner.now < inner.slow_until {
            1000 * MILLI
        } else {
            3 * MILLI
        };
        50_000 + word % most
    }

    pub(crate) fn address(&self, process: ProcId) -> Address {
        Address {
            process,
            life: self.inner.lock().lives[process.index()],
        }
    }

    pub(crate) fn is_alive(&self, address: Address) -> bool {
        self.inner.lock().lives[address.process.index()] == address.life
    }

    /// The process is dead: what is under way to it gets lost.
    pub(crate) fn end_life(&self, process: ProcId) {
        let mut inner = self.inner.lock();
        inner.lives[process.index()] += 1;
        let acceptor = inner.acceptors[process.index()].take();
        let (gone, kept) = std::mem::take(&mut inner.streams)
            .into_iter()
            .partition(|stream| stream.to.process == process);
        inner.streams = kept;
        drop(inner);
        drop((acceptor, gone as Vec<Stream>));
    }

    pub(crate) fn trace(&self, line: impl FnOnce() -> String) {
        let mut inner = self.inner.lock();
        let now = inner.now;
        inner.trace.add(now, line());
    }

    pub(crate) fn end_trace(&self) -> Trace {
        std::mem::take(&mut self.inner.lock().trace)
    }

    pub(crate) fn trace_tail(&self) -> Vec<String> {
        self.inner.lock().trace.tail()
    }

    /// The API server has something for a watch.
    pub(crate) fn watch_news(&self, news: WatchNews) {
        self.inner.lock().watch_news.push(news);
    }

    /// What it had since this was last asked.
    pub(crate) fn take_watch_news(&self) -> Vec<WatchNews> {
        std::mem::take(&mut self.inner.lock().watch_news)
    }

    /// A number that nothing else has.
    pub(crate) fn number(&self) -> u64 {
        let mut inner = self.inner.lock();
        inner.sequence += 1;
        inner.sequence
    }

    pub(crate) fn add_api_fault(&self, process: ProcId, fault: ApiFault) {
        self.inner.lock().api_faults.push((process, fault));
    }

    /// The fault that is to happen to the next request of this process, if any.
    pub(crate) fn take_api_fault(
        &self,
        process: ProcId,
        is_fit: impl Fn(ApiFault) -> bool,
    ) -> Option<ApiFault> {
        let mut inner = self.inner.lock();
        let found = inner
            .api_faults
            .iter()
            .position(|(target, fault)| *target == process && is_fit(*fault))?;
        Some(inner.api_faults.remove(found).1)
    }

    pub(crate) fn slow_down(&self, millis: u64) {
        let mut inner = self.inner.lock();
        inner.slow_until = inner.now + millis * MILLI;
    }

    /// Watches of the process, all or of one kind, get nothing new for this long.
    pub(crate) fn hold_watches(&self, process: ProcId, kind: Option<&'static str>, millis: u64) {
        let mut inner = self.inner.lock();
        let until = inner.now + millis * MILLI;
        inner.late_watches.push((process, kind, until));
    }

    /// Until when a watch of this path hears nothing.
    pub(crate) fn watch_held_until(&self, process: ProcId, path: &str) -> u64 {
        let inner = self.inner.lock();
        let held = inner.late_watches.iter().filter(|(target, kind, _)| {
            *target == process && kind.is_none_or(|kind| path.rsplit('/').next() == Some(kind))
        });
        held.map(|(_, _, until)| *until).max().unwrap_or(0)
    }

    /// Nothing passes between the process and the API server for this long; then all of it does.
    pub(crate) fn cut_off(&self, process: ProcId, millis: u64) {
        let mut inner = self.inner.lock();
        let until = inner.now + millis * MILLI;
        inner.cut_off.push((process, until));
        inner.late_watches.push((process, None, until));
    }

    /// Until when the process is cut off.
    pub(crate) fn cut_off_until(&self, process: ProcId) -> u64 {
        let inner = self.inner.lock();
        let cut = inner.cut_off.iter().filter(|(target, _)| *target == process);
        cut.map(|(_, until)| *until).max().unwrap_or(0)
    }

    /// No fault that was not used up happens any more.
    pub(crate) fn calm(&self) {
        let mut inner = self.inner.lock();
        inner.api_faults.clear();
        inner.slow_until = 0;
        inner.late_watches.clear();
        inner.cut_off.clear();
    }

    /// Opens the body of an answer that goes on.
    pub(crate) fn open_stream(
        &self,
        to: Address,
        parts: http::response::Parts,
    ) -> (
        Answer,
        mpsc::UnboundedSender<Result<Bytes, io::Error>>,
        Arc<AtomicBool>,
    ) {
        let (sender, receiver) = mpsc::unbounded();
        let is_cut = Arc::new(AtomicBool::new(false));
        let mut inner = self.inner.lock();
        inner.streams.retain(|stream| !stream.sender.is_closed());
        inner.streams.push(Stream {
            to,
            sender: sender.clone(),
            is_cut: is_cut.clone(),
        });
        drop(inner);
        (
            Ok(Response::from_parts(parts, WireBody::streaming(receiver))),
            sender,
            is_cut,
        )
    }

    /// Breaks all watches of a process.
    pub(crate) fn cut_streams(&self, process: ProcId) {
        let mut inner = self.inner.lock();
        let (cut, kept) = std::mem::take(&mut inner.streams)
            .into_iter()
            .partition(|stream| stream.to.process == process);
        inner.streams = kept;
        drop(inner);
        for stream in cut as Vec<Stream> {
            stream.is_cut.store(true, Ordering::Relaxed);
            self.deliver(stream.to, 0, move || {
                let reset = io::Error::new(io::ErrorKind::ConnectionReset, "the watch was cut");
                stream.sender.unbounded_send(Err(reset)).ok(); // Nobody may be listening any more.
            });
        }
    }

    /// The process takes connections from now on.
    pub(crate) fn listen(&self, process: ProcId) -> mpsc::UnboundedReceiver<SimStream> {
        let (sender, receiver) = mpsc::unbounded();
        self.inner.lock().acceptors[process.index()] = Some(sender);
        receiver
    }

    /// Connects two processes with a stream of bytes.
    pub(crate) fn dial(&self, from: Address, to: ProcId) -> io::Result<SimStream> {
        let acceptor = self.inner.lock().acceptors[to.index()].clone();
        let acceptor = acceptor
            .ok_or_else(|| io::Error::new(io::ErrorKind::ConnectionRefused, "nobody listens there"))?;
        let to = self.address(to);
        let (ours, theirs) = SimStream::pair(self, from, to);
        self.deliver(to, 0, move || {
            acceptor.unbounded_send(theirs).ok(); // A process on its way out takes no connections.
        });
        Ok(ours)
    }

    /// Sends a request on its way to the API server.
    pub(crate) fn request(&self, request: ApiRequest) {
        let held_until = self.cut_off_until(request.reply.process());
        let at = (self.now() + self.latency()).max(held_until);
        self.push_at(at, Event::Request(Box::new(request)));
    }
}

/// The receiving end of an answer.
pub(crate) type AnswerSender = oneshot::Sender<Answer>;
