//! The short-lived process between the shim and a container: it makes the mounts in a namespace of its own, has the
//! OCI library set the container's first process up as a child of the shim, and ends.
//!
//! A process of its own, and not a fork of the shim, so that the shim stays small, keeps its own file descriptors and
//! namespaces, and can't be confused by what the library does to the process it runs in (current directory,
//! dumpable flag, signal mask). Its standard streams are already the container's; its result goes to a file.

use std::error::Error;
use std::fs;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use libcontainer::container::builder::ContainerBuilder;
use libcontainer::syscall::syscall::SyscallType;
use libcontainer::workload::{Executor, ExecutorError, ExecutorValidationError, default};
use moorline_mount::mount::{Propagation, mount, set_propagation, unmount_lazy};
use nix::sched::{CloneFlags, unshare};
use oci_spec::runtime::Spec;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{PidfdFlags, Signal, chdir, getppid, pidfd_open, set_parent_process_death_signal};
use serde::{Deserialize, Serialize};

use crate::layout::{ContainerDir, SandboxDir};
use crate::records::{self, ContainerRecord, ProcessIdentity, RootSource, SandboxRecord};
use crate::rootfs;
use crate::shim::prepare;
use crate::spec;

/// What became of the helper's work.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Outcome {
    /// The container's first process runs.
    Started {
        process: ProcessIdentity,
        warnings: Vec<String>,
    },
    /// The command runs, or has run: it may be over already.
    Executed { pid: u32 },
    /// It doesn't, and nothing of it is left.
    Failed { why: String, warnings: Vec<String> },
}

/// What the exec helper is to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ExecOrder {
    pub(crate) container: PathBuf,
    pub(crate) command: Vec<String>,
    /// The command gets a terminal of the container; its other side goes to the session's console socket.
    pub(crate) tty: bool,
}

/// Where a session's terminal goes, in its directory.
pub(crate) const CONSOLE: &str = "console.sock";

type Failure = Box<dyn Error>;

/// Everything about one container that both kinds of helper need.
struct Site {
    state: PathBuf,
    sandbox_dir: SandboxDir,
    sandbox: SandboxRecord,
    dir: ContainerDir,
    record: ContainerRecord,
}

impl Site {
    /// `path` is `<state>/sandboxes/<id>/containers/<id>`.
    fn load(path: &Path) -> Result<Self, Failure> {
        let dir = ContainerDir {
            path: path.to_owned(),
        };
        let above = |levels: usize| {
            path.ancestors()
                .nth(levels)
                .map(Path::to_owned)
                .ok_or("the container's directory is in no state directory")
        };
        let sandbox_dir = SandboxDir { path: above(2)? };
        let sandbox = records::read(&sandbox_dir.record())?.ok_or("the sandbox has no record")?;
        let record = records::read(&dir.record())?.ok_or("the container has no record")?;
        Ok(Self {
            state: above(4)?,
            sandbox_dir,
            sandbox,
            dir,
            record,
        })
    }
}

/// `moorline-shim start <container directory>`.
pub(crate) fn start(container: &Path) -> u8 {
    let mut warnings = Vec::new();
    let outcome = match start_container(container, &mut warnings) {
        Ok(process) => Outcome::Started { process, warnings },
        Err(error) => Outcome::Failed {
            why: chain(error.as_ref()),
            warnings,
        },
    };
    report(
        &ContainerDir {
            path: container.to_owned(),
        }
        .outcome(),
        &outcome,
    )
}

/// `moorline-shim exec <spool directory>`.
pub(crate) fn exec(spool: &Path) -> u8 {
    let outcome = match exec_command(spool) {
        Ok(pid) => Outcome::Executed { pid },
        Err(error) => Outcome::Failed {
            why: chain(error.as_ref()),
            warnings: Vec::new(),
        },
    };
    report(&spool.join("outcome.json"), &outcome)
}

fn report(path: &Path, outcome: &Outcome) -> u8 {
    match records::write_volatile(path, outcome) {
        Ok(()) => 0,
        Err(_) => 1, // the shim reports a helper that ended without an outcome
    }
}

/// An error and its causes on one line, none said twice.
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        if !text.contains(&next) {
            text = format!("{text}: {next}");
        }
        cause = error.source();
    }
    text
}

/// The helper ends with the shim, and gets a handle by which those it starts can see that the shim still lives.
fn tie_to_shim() -> Result<OwnedFd, Failure> {
    set_parent_process_death_signal(Some(Signal::KILL))?;
    let shim = getppid().ok_or("the shim is gone")?;
    let handle = pidfd_open(shim, PidfdFlags::empty())?;
    // Only now it is certain that the handle is the shim's, and not that of a process that took us over.
    if getppid() == Some(shim) {
        Ok(handle)
    } else {
        Err("the shim is gone".into())
    }
}

fn start_container(container: &Path, warnings: &mut Vec<String>) -> Result<ProcessIdentity, Failure> {
    let shim = tie_to_shim()?;
    let site = Site::load(container)?;
    join_cgroup(&site, warnings)?;
    unshare(CloneFlags::CLONE_NEWNS)?;
    let cgroup = site.sandbox.cgroup.child(&site.record.id.0);
    let mut binds = spec::binds::plan(
        &site.sandbox_dir,
        &site.sandbox,
        &site.dir,
        &site.record.config,
        &cgroup.places(),
    );
    prepare::look_at_sources(&mut binds)?;
    // Before anything is cut off or hidden, so that shared ones stay in the group of the machine's.
    let copies = prepare::copy_mounts(&binds)?;
    set_propagation("/", Propagation::Slave, true)?;
    hide_cgroups()?;
    chdir(site.state.join(rootfs::LAYERS))?;
    rootfs::assemble(&site.state, &site.dir, &site.record.root, warnings)?;
    let binds = prepare::stage(&site.dir, binds, copies)?;
    let spec = prepare::specification(&site.sandbox_dir, &site.sandbox, &site.dir, &site.record, binds)?;
    let config = site.dir.path.join("config.json");
    spec.save(&config)?;
    run(&site, shim)
}

/// Limits first, then the helper itself moves in, and with it all that it starts.
fn join_cgroup(site: &Site, warnings: &mut Vec<String>) -> Result<(), Failure> {
    let cgroup = site.sandbox.cgroup.child(&site.record.id.0);
    if cgroup.is_empty() {
        return Ok(());
    }
    cgroup.make()?;
    let config = &site.record.config;
    warnings.extend(cgroup.apply(&crate::cgroup::limits::settings(&config.resources)));
    if !config.security.privileged {
        let rules = prepare::device_rules(config)?;
        warnings.extend(cgroup.apply(&crate::cgroup::limits::device_settings(&rules)));
    }
    if let Err(error) = cgroup.join() {
        warnings.push(format!("join cgroup: {error}"));
    }
    Ok(())
}

/// The library insists on managing cgroups and fails where one controller is missing. In this namespace it finds an
/// empty directory of the old layout, which it takes for a machine without controllers. `cgroup` has done the work.
fn hide_cgroups() -> Result<(), Failure> {
    let root = Path::new("/sys/fs/cgroup");
    if !root.is_dir() {
        mount("tmpfs", "/sys", "tmpfs", &[])?;
        fs::create_dir_all(root)?;
    }
    while moorline_mount::mount::is_mount_point(root)? {
        unmount_lazy(root)?;
    }
    Ok(mount("tmpfs", root, "tmpfs", &["size=64k".to_owned()])?)
}

fn run(site: &Site, shim: OwnedFd) -> Result<ProcessIdentity, Failure> {
    let oci = site.dir.oci();
    fs::create_dir_all(&oci)?;
    let (mut told, tell) = io::pipe()?;
    let mut builder = ContainerBuilder::new(site.record.id.0.clone(), SyscallType::default())
        .with_executor(Payload {
            tell: Arc::new(tell.into()),
            shim: Arc::new(shim),
        })
        .with_root_path(&oci)?
        .validate_id()?;
    if site.record.config.tty {
        builder = builder.with_console_socket(Some(site.dir.path.join("console.sock")));
    }
    let mut container = builder
        .as_init(&site.dir.path)
        .with_systemd(false)
        .as_sibling(true)
        .build()?;
    let pid = container
        .pid()
        .and_then(|pid| u32::try_from(pid.as_raw()).ok())
        .ok_or("the library names no process")?;
    let process = ProcessIdentity::of(pid)?;
    adjust_oom_score(site, pid);
    container.start()?;
    // The other end closes when the program is executed; before that only a failure is written.
    let mut why = String::new();
    told.read_to_string(&mut why)?;
    if why.is_empty() {
        Ok(process)
    } else {
        Err(why.into())
    }
}

fn adjust_oom_score(site: &Site, pid: u32) {
    if let Some(score) = site.record.config.resources.oom_score_adj {
        let file = format!("/proc/{pid}/oom_score_adj");
        // Lowering it needs CAP_SYS_RESOURCE, which a container host may lack; then the next best value stands.
        if fs::write(&file, score.to_string()).is_err() {
            fs::write(&file, score.max(0).to_string()).ok(); // the score is a hint
        }
    }
}

fn exec_command(spool: &Path) -> Result<u32, Failure> {
    let shim = tie_to_shim()?;
    let order: ExecOrder = records::read(&spool.join("order.json"))?.ok_or("there is no order")?;
    let site = Site::load(&order.container)?;
    let cgroup = site.sandbox.cgroup.child(&site.record.id.0);
    if !cgroup.is_empty() {
        cgroup.join()?;
    }
    let mut process = Spec::load(site.dir.path.join("config.json"))?
        .process()
        .clone()
        .ok_or("the container's configuration has no process")?;
    process
        .set_args(Some(order.command))
        .set_terminal(Some(order.tty));
    if order.tty {
        name_terminal(&mut process);
    }
    let process_file = spool.join("process.json");
    fs::write(&process_file, serde_json::to_vec(&process)?)?;
    unshare(CloneFlags::CLONE_NEWNS)?;
    set_propagation("/", Propagation::Slave, true)?;
    hide_cgroups()?;
    let (mut told, tell) = io::pipe()?;
    let mut builder = ContainerBuilder::new(site.record.id.0.clone(), SyscallType::default())
        .with_executor(Payload {
            tell: Arc::new(tell.into()),
            shim: Arc::new(shim),
        })
        .with_root_path(site.dir.oci())?
        .validate_id()?;
    if order.tty {
        builder = builder.with_console_socket(Some(spool.join(CONSOLE)));
    }
    let built = builder
        .as_tenant()
        .with_process(Some(process_file))
        .as_sibling(true)
        .with_detach(true)
        .build();
    clear_sockets(&site.dir.oci().join(&site.record.id.0));
    let pid = built?;
    let mut why = String::new();
    told.read_to_string(&mut why)?;
    if why.is_empty() {
        Ok(u32::try_from(pid.as_raw())?)
    } else {
        Err(why.into())
    }
}

/// Programs draw on terminals whose kind they know.
fn name_terminal(process: &mut oci_spec::runtime::Process) {
    let mut env = process.env().clone().unwrap_or_default();
    if !env.iter().any(|variable| variable.starts_with("TERM=")) {
        env.push("TERM=xterm".to_owned());
    }
    process.set_env(Some(env));
}

/// The library leaves a name in the container's directory for each terminal it hands out.
fn clear_sockets(dir: &Path) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.file_name().to_string_lossy().starts_with("tenant-tty-") {
            fs::remove_file(entry.path()).ok(); // goes with the container at the latest
        }
    }
}

/// Executes the program as the library does, and adds what the library leaves out.
#[derive(Clone)]
struct Payload {
    /// Closed by a successful execve; gets the reason of a failed one.
    tell: Arc<OwnedFd>,
    /// The shim's process.
    shim: Arc<OwnedFd>,
}

impl Payload {
    /// A container without its shim would go on unseen, holding its volumes: the kernel kills this process with the
    /// shim from here on, unless the shim was faster.
    fn tie_to_shim(&self) -> Result<(), String> {
        set_parent_process_death_signal(Some(Signal::KILL))
            .map_err(|errno| format!("tie to the shim's life: {errno}"))?;
        let mut ended = [PollFd::new(&self.shim, PollFlags::IN)];
        match poll(&mut ended, Some(&Timespec::default())) {
            Ok(0) => Ok(()),
            Ok(_) => Err("the shim is gone".to_owned()),
            Err(errno) => Err(format!("look whether the shim lives: {errno}")),
        }
    }
}

impl Executor for Payload {
    fn exec(&self, spec: &Spec) -> Result<(), ExecutorError> {
        default_sigpipe().map_err(|errno| ExecutorError::Other(format!("reset SIGPIPE: {errno}")))?;
        let result = default::get_executor().exec(spec);
        if let Err(error) = &result {
            rustix::io::write(&self.tell, chain(error).as_bytes()).ok(); // nobody else to tell
        }
        result
    }

    /// Called in the new process when all is set up but the execution, after the last change of its user: such a
    /// change would untie it again.
    fn validate(&self, spec: &Spec) -> Result<(), ExecutorValidationError> {
        self.tie_to_shim()
            .map_err(ExecutorValidationError::ArgValidationError)?;
        default::get_executor().validate(spec)
    }
}

/// Rust ignores SIGPIPE, and what is ignored stays so across execve; programs expect to be ended by it.
#[expect(unsafe_code, reason = "sigaction has no safe wrapper")]
fn default_sigpipe() -> nix::Result<()> {
    // SAFETY: the default action installs no handler, so no code of ours can run in signal context.
    unsafe {
        nix::sys::signal::signal(
            nix::sys::signal::Signal::SIGPIPE,
            nix::sys::signal::SigHandler::SigDfl,
        )
    }
    .map(|_| ())
}

/// Paths of the machine a container made of its root must not see.
pub(crate) fn hidden(root: &RootSource) -> Vec<PathBuf> {
    match root {
        RootSource::Layers(_) => Vec::new(),
        RootSource::Host { hidden } => hidden.clone(),
    }
}
