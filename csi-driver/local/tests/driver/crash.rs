//! A driver process killed with SIGKILL while many clients make, mount and remove volumes: what was answered holds, what
//! was not is repeated to the same end, nothing is left.

use std::{
    collections::BTreeMap,
    os::unix::process::ExitStatusExt as _,
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use moorline_driver_local::BackendKind;
use moorline_proto::csi;
use tokio::task::JoinSet;

use crate::support::{DIR, Driver, EXT4, Scratch, Use, cannot_run, config, until_so};

const CLIENTS: usize = 6;

/// The example `driver`, which cargo builds beside the tests.
pub(crate) fn driver_program() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let program = test.ancestors().nth(2).unwrap().join("examples/driver");
    assert!(
        program.is_file(),
        "{} is missing: cargo build --examples",
        program.display()
    );
    program
}

struct Process(Child);

impl Process {
    fn start(scratch: &Scratch, backend: BackendKind) -> Self {
        let config = config(scratch.root(), backend);
        let name = if backend == BackendKind::Dir {
            "dir"
        } else {
            "loop"
        };
        let child = Command::new(driver_program())
            .arg(format!("--endpoint={}", config.serving.endpoint))
            .arg(format!("--node-id={}", config.node_id))
            .arg(format!("--pool-dir={}", config.pools[0].directory.display()))
            .arg(format!("--target-root={}", config.target_root.display()))
            .arg(format!("--backend={name}"))
            .args(
                config.pools[0]
                    .capacity_limit_bytes
                    .map(|bytes| format!("--capacity={bytes}")),
            )
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        Process(child.unwrap())
    }

    fn kill(mut self) {
        self.0.kill().unwrap();
        assert_eq!(self.0.wait().unwrap().signal(), Some(9));
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.0.kill().ok(); // Killed already, unless the test failed before.
        self.0.wait().ok(); // As above.
    }
}

/// How far a client got with a volume: the last step that was answered, and whether another one was begun.
#[derive(Clone, Copy, Debug, Default)]
struct Progress {
    answered: usize,
    begun: usize,
}

const CREATED: usize = 1;
const DELETED: usize = 6;

type Journal = Arc<Mutex<BTreeMap<String, Progress>>>;

async fn step(
    driver: &mut Driver,
    usage: Use,
    scratch: &Scratch,
    id: &str,
    step: usize,
) -> Result<(), tonic::Status> {
    let (staging, target) = (
        scratch.path(&format!("staging-{id}")),
        scratch.path(&format!("target-{id}")),
    );
    match step {
        CREATED => driver.create(usage.create(id)).await.map(drop),
        2 => driver.stage(usage.stage(id, &staging)).await,
        3 => driver.publish(usage.publish(id, &staging, &target)).await,
        4 => driver.unpublish(id, &target).await,
        5 => driver.unstage(id, &staging).await,
        _ => driver.delete(id).await,
    }
}

/// Takes volume after volume through its whole life until the driver is gone.
async fn client(
    number: usize,
    usage: Use,
    scratch: Arc<Scratch>,
    mut driver: Driver,
    journal: Journal,
    answers: Arc<AtomicUsize>,
) {
    for round in 0.. {
        let id = format!("pvc-{number}-{round}");
        for next in CREATED..=DELETED {
            journal.lock().unwrap().entry(id.clone()).or_default().begun = next;
            if step(&mut driver, usage, &scratch, &id, next).await.is_err() {
                return;
            }
            journal.lock().unwrap().entry(id.clone()).or_default().answered = next;
            answers.fetch_add(1, Ordering::SeqCst);
        }
    }
}

async fn listed(driver: &mut Driver) -> Vec<String> {
    let answer = driver
        .controller
        .list_volumes(csi::ListVolumesRequest::default())
        .await
        .unwrap()
        .into_inner();
    answer
        .entries
        .into_iter()
        .map(|entry| entry.volume.unwrap().volume_id)
        .collect()
}

async fn killed_after(usage: Use, count: usize) {
    let scratch = Arc::new(Scratch::new());
    let process = Process::start(&scratch, usage.backend);
    let (journal, answers) = (Journal::default(), Arc::new(AtomicUsize::new(0)));
    let mut clients = JoinSet::new();
    for number in 0..CLIENTS {
        let driver = Driver::connect(&config(scratch.root(), usage.backend)).await;
        let (scratch, journal, answers) = (Arc::clone(&scratch), Arc::clone(&journal), Arc::clone(&answers));
        clients.spawn(client(number, usage, scratch, driver, journal, answers));
    }
    until_so("the answers", || answers.load(Ordering::SeqCst) >= count).await;
    process.kill();
    clients.join_all().await;

    let mut driver = Driver::start(&scratch, usage.backend).await;
    let found = listed(&mut driver).await;
    let journal = std::mem::take(&mut *journal.lock().unwrap());
    for (id, progress) in &journal {
        let must_be = progress.answered >= CREATED && progress.begun < DELETED;
        let may_be = progress.answered < DELETED;
        assert!(
            found.contains(id) || !must_be,
            "{count}: {id} is lost at {progress:?}"
        );
        assert!(
            !found.contains(id) || may_be,
            "{count}: {id} is back at {progress:?}"
        );
    }
    assert!(
        found.iter().all(|id| journal.contains_key(id)),
        "{count}: {found:?}"
    );
    for (id, progress) in &journal {
        // The caller asks again for what it got no answer to, and then goes on to the end.
        for next in (progress.answered + 1).max(CREATED)..=DELETED {
            step(&mut driver, usage, &scratch, id, next)
                .await
                .unwrap_or_else(|error| panic!("{count}: step {next} of {id} at {progress:?}: {error}"));
        }
    }
    assert_eq!(listed(&mut driver).await, [""; 0]);
    driver.stop().await;
    assert_eq!(scratch.in_use(), (vec![], vec![]));
    assert_eq!(
        std::fs::read_dir(scratch.path("pool/volumes")).unwrap().count(),
        0,
        "{count}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_driver_of_directories_loses_nothing() {
    if cannot_run("a_killed_driver_of_directories_loses_nothing", &[]) {
        return;
    }
    for count in [0, 1, 2, 5, 11, 23, 47, 97, 200] {
        killed_after(DIR, count).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_driver_of_loop_devices_loses_nothing() {
    if cannot_run("a_killed_driver_of_loop_devices_loses_nothing", EXT4.tools()) {
        return;
    }
    for count in [0, 3, 7, 17, 41] {
        killed_after(EXT4, count).await;
    }
}
