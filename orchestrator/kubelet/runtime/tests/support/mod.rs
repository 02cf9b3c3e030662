//! A runtime on a temporary directory that leaves the machine as it found it, also when a test panics.

pub(crate) mod archives;

use std::fs;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::time::Duration;

use moorline_container_runtime::{
    ContainerConfig, ContainerId, ContainerRuntime, ContainerState, ContainerStatus, EmbeddedConfig,
    EmbeddedRuntime, ImageService, SandboxConfig, SandboxId,
};

/// Nothing here takes longer, on a machine that is busy with other tests too.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

/// `None` with a word on standard error where containers can't run.
pub(crate) fn can_run(test: &str) -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let mask = effective
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .unwrap_or(0);
    let can = mask & (1 << 21) != 0;
    if !can {
        eprintln!("skipped: {test}: needs root with CAP_SYS_ADMIN");
    }
    can
}

/// Memory limits can be set.
pub(crate) fn has_memory_controller() -> bool {
    let probe = Path::new("/sys/fs/cgroup/memory/moorline-test-probe");
    let writable = fs::create_dir(probe).is_ok();
    fs::remove_dir(probe).ok(); // it is there only if it was made
    let unified = fs::read_to_string("/sys/fs/cgroup/cgroup.controllers").unwrap_or_default();
    writable || unified.contains("memory")
}

/// A state directory with its runtime.
pub(crate) struct Bed {
    pub(crate) runtime: EmbeddedRuntime,
    pub(crate) dir: Place,
    /// The runtime has let go of the state directory and is on an empty one.
    is_elsewhere: bool,
    cgroup_root: PathBuf,
    mounts_before: Vec<String>,
}

/// A directory, removed at the end if it was made for the test.
pub(crate) struct Place {
    path: PathBuf,
    _temporary: Option<tempfile::TempDir>,
}

impl Place {
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Bed {
    pub(crate) async fn new() -> Self {
        let dir = tempfile::Builder::new()
            .prefix("moorline-runtime-test-")
            .tempdir()
            .unwrap();
        Self::of(Place {
            path: dir.path().to_owned(),
            _temporary: Some(dir),
        })
        .await
    }

    /// In the directory of another process's bed.
    pub(crate) async fn at(dir: &Path) -> Self {
        Self::of(Place {
            path: dir.to_owned(),
            _temporary: None,
        })
        .await
    }

    async fn of(dir: Place) -> Self {
        let cgroup_root = PathBuf::from("moorline-test").join(dir.path().file_name().unwrap());
        let mounts_before = mounts(dir.path());
        let runtime = open(&dir.path().join("state"), &cgroup_root).await;
        Self {
            runtime,
            dir,
            is_elsewhere: false,
            cgroup_root,
            mounts_before,
        }
    }

    /// Lets go of the state directory, as at the end of the kubelet.
    pub(crate) async fn release(&mut self) {
        self.runtime.close().await;
        // The lock goes with the old value.
        self.runtime = open(&self.dir.path().join("elsewhere"), &self.cgroup_root).await;
        self.is_elsewhere = true;
    }

    /// The same state directory, opened again as after a restart of the kubelet.
    pub(crate) async fn reopen(&mut self) {
        if !self.is_elsewhere {
            self.release().await;
        }
        self.runtime = open(&self.state(), &self.cgroup_root).await;
        self.is_elsewhere = false;
    }

    pub(crate) fn logs(&self) -> PathBuf {
        self.dir.path().join("logs")
    }

    pub(crate) fn state(&self) -> PathBuf {
        self.dir.path().join("state")
    }

    pub(crate) fn sandbox_config(&self, pod: &str) -> SandboxConfig {
        SandboxConfig {
            pod_uid: format!("{pod}-uid"),
            pod_name: pod.to_owned(),
            namespace: "default".to_owned(),
            log_directory: self.logs().join(pod),
            ..SandboxConfig::default()
        }
    }

    pub(crate) async fn sandbox(&self, pod: &str) -> SandboxId {
        self.runtime
            .run_pod_sandbox(self.sandbox_config(pod))
            .await
            .unwrap()
    }

    /// A container of the host image that runs a shell script.
    pub(crate) async fn script(&self, name: &str, script: &str) -> ContainerConfig {
        ContainerConfig {
            name: name.to_owned(),
            image: self.runtime.ensure_image("moorline.local/host").await.unwrap(),
            command: ["/bin/sh", "-c", script].map(str::to_owned).to_vec(),
            log_path: PathBuf::from(name).join("0.log"),
            ..ContainerConfig::default()
        }
    }

    /// Makes and starts a container.
    pub(crate) async fn run(&self, sandbox: &SandboxId, config: ContainerConfig) -> ContainerId {
        let id = self.runtime.create_container(sandbox, config).await.unwrap();
        self.runtime.start_container(&id).await.unwrap();
        id
    }

    /// Runs a script to its end and returns status and log text.
    pub(crate) async fn run_to_end(&self, pod: &str, config: ContainerConfig) -> (ContainerStatus, String) {
        let sandbox = self.sandbox(pod).await;
        let log = self.logs().join(pod).join(&config.log_path);
        let id = self.run(&sandbox, config).await;
        let status = self.exited(&id).await;
        (status, log_text(&log))
    }

    pub(crate) async fn status(&self, id: &ContainerId) -> ContainerStatus {
        self.runtime.container_status(id).await.unwrap()
    }

    pub(crate) async fn exited(&self, id: &ContainerId) -> ContainerStatus {
        eventually(
            || async { self.status(id).await.state == ContainerState::Exited },
            "the container exits",
        )
        .await;
        self.status(id).await
    }

    /// Waits until the log of a pod's container holds a text.
    pub(crate) async fn logged(&self, pod: &str, container: &str, text: &str) {
        let path = self.logs().join(pod).join(container).join("0.log");
        eventually(
            || async { log_text(&path).contains(text) },
            &format!("{text:?} in the log"),
        )
        .await;
    }

    /// Removes all sandboxes and checks that nothing is left of them.
    pub(crate) async fn assert_clean_end(self) {
        for sandbox in self.runtime.list_pod_sandboxes().await.unwrap() {
            self.runtime.remove_pod_sandbox(&sandbox.id).await.unwrap();
        }
        assert!(self.runtime.list_containers().await.unwrap().is_empty());
        assert_eq!(
            fs::read_dir(self.state().join("sandboxes")).unwrap().count(),
            0,
            "records are left"
        );
        assert_eq!(mounts(self.dir.path()), self.mounts_before, "mounts are left");
        assert!(
            self.cgroups().iter().all(|dir| no_directories(dir)),
            "cgroups are left"
        );
        assert!(
            self.processes().is_empty(),
            "processes are left: {:?}",
            self.processes()
        );
        self.runtime.close().await;
    }

    fn cgroups(&self) -> Vec<PathBuf> {
        let controllers = fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten();
        let mut dirs: Vec<PathBuf> = controllers
            .map(|entry| entry.path().join(&self.cgroup_root))
            .collect();
        dirs.push(Path::new("/sys/fs/cgroup").join(&self.cgroup_root));
        dirs.retain(|dir| dir.is_dir());
        dirs
    }

    /// Shims and helpers of this state directory.
    pub(crate) fn processes(&self) -> Vec<u32> {
        let state = self.state().display().to_string();
        let all = fs::read_dir("/proc").unwrap().flatten();
        all.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok())
            .filter(|pid| {
                let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
                line.starts_with(b"moorline-shim") && String::from_utf8_lossy(&line).contains(&state)
            })
            .collect()
    }
}

impl Drop for Bed {
    fn drop(&mut self) {
        for pid in self.processes() {
            kill(pid);
        }
        for _ in 0..2000 {
            if self.processes().is_empty() {
                break;
            }
            pause();
        }
        for path in shared_memory(&self.state()) {
            fs::remove_dir_all(path).ok(); // best effort of a cleaner
        }
        for dir in self.cgroups() {
            remove_cgroups(&dir);
            fs::remove_dir(dir.parent().unwrap()).ok(); // best effort of a cleaner
        }
    }
}

async fn open(dir: &Path, cgroup_root: &Path) -> EmbeddedRuntime {
    let mut config = EmbeddedConfig::new(dir);
    config.shim_executable = PathBuf::from(
        std::env::var("MOORLINE_TEST_SHIM")
            .unwrap_or_else(|_| env!("CARGO_BIN_EXE_moorline-shim").to_owned()),
    );
    config.host_image = true;
    config.host_image_hidden = vec![PathBuf::from("/usr/share")];
    config.cgroup_root = cgroup_root.to_owned();
    EmbeddedRuntime::open(config).await.unwrap()
}

/// What pods of a state directory have in the machine's shared memory.
fn shared_memory(state: &Path) -> Vec<PathBuf> {
    let sandboxes = fs::read_dir(state.join("sandboxes"))
        .into_iter()
        .flatten()
        .flatten();
    let records = sandboxes.filter_map(|entry| fs::read(entry.path().join("record.json")).ok());
    let records = records.filter_map(|bytes| serde_json::from_slice::<serde_json::Value>(&bytes).ok());
    records
        .filter_map(|record| Some(PathBuf::from(record["shm_dir"].as_str()?)))
        .collect()
}

/// The machine's mounts, but for those of tests that run at the same time.
fn mounts(dir: &Path) -> Vec<String> {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
    table
        .lines()
        .filter(|line| line.contains(&dir.display().to_string()))
        .map(str::to_owned)
        .collect()
}

fn no_directories(dir: &Path) -> bool {
    fs::read_dir(dir)
        .unwrap()
        .flatten()
        .all(|entry| !entry.file_type().unwrap().is_dir())
}

fn remove_cgroups(dir: &Path) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_cgroups(&entry.path());
        }
    }
    for pid in fs::read_to_string(dir.join("cgroup.procs"))
        .unwrap_or_default()
        .lines()
    {
        kill(pid.parse().unwrap());
    }
    for _ in 0..1000 {
        if fs::remove_dir(dir).is_ok() {
            return;
        }
        pause();
    }
}

pub(crate) fn kill(pid: u32) {
    if let Some(pid) = rustix::process::Pid::from_raw(i32::try_from(pid).unwrap()) {
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).ok(); // best effort of a cleaner
    }
}

fn pause() {
    let moment = rustix::event::Timespec {
        tv_sec: 0,
        tv_nsec: 5_000_000,
    };
    rustix::event::poll(&mut [], Some(&moment)).ok(); // best effort of a cleaner
}

/// The text of all log lines, without time and stream.
pub(crate) fn log_text(path: &Path) -> String {
    let log = fs::read_to_string(path).unwrap_or_default();
    let text = |line: &str| line.splitn(4, ' ').nth(3).unwrap_or_default().to_owned();
    log.lines().map(|line| text(line) + "\n").collect()
}

/// No process of this number, but for one that only waits to be reaped.
pub(crate) fn has_ended(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rfind(')').is_none_or(|end| stat[end..].starts_with(") Z"))
}

/// Waits for a condition.
pub(crate) async fn eventually<F: Future<Output = bool>>(mut holds: impl FnMut() -> F, what: &str) {
    let end = tokio::time::Instant::now() + DEADLINE;
    while !holds().await {
        assert!(tokio::time::Instant::now() < end, "waited in vain: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// A mount of the test, undone when dropped.
pub(crate) struct Mounted(PathBuf);

impl Mounted {
    /// The directory as a shared mount point of itself.
    pub(crate) fn shared(dir: &Path) -> Self {
        moorline_mount::mount::ensure_mount_point(dir, moorline_mount::mount::Propagation::Shared).unwrap();
        Self(dir.to_owned())
    }

    /// A file system in memory.
    pub(crate) fn tmpfs(dir: &Path) -> Self {
        moorline_mount::mount::mount("tmpfs", dir, "tmpfs", &["size=1m".to_owned()]).unwrap();
        Self(dir.to_owned())
    }

    /// Unmounts, and fails when it is busy.
    pub(crate) fn unmount(self) -> Result<(), moorline_mount::MountError> {
        moorline_mount::mount::unmount(&self.0)
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        moorline_mount::mount::unmount_lazy(&self.0).ok(); // best effort of a cleaner
    }
}

/// A loop device, detached when dropped.
pub(crate) struct LoopDevice {
    pub(crate) path: PathBuf,
}

impl LoopDevice {
    pub(crate) fn attach(file: &Path) -> Result<Self, moorline_mount::MountError> {
        let path = moorline_mount::loop_device::attach(file, Default::default())?
            .path()
            .to_owned();
        Ok(Self { path })
    }
}

impl Drop for LoopDevice {
    fn drop(&mut self) {
        moorline_mount::loop_device::detach(&self.path).ok(); // best effort of a cleaner
    }
}
