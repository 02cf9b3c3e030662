//! What client-go believes, against a server that is killed, started again and compacted while connections are cut:
//! caches of every kind equal a list at the end, no acknowledged write is lost, there is never a second leader.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    path::Path,
    process::{Child, Command, Stdio},
    sync::mpsc,
    time::{Duration, Instant},
};

use moorline_e2e::{
    cluster::TestCluster,
    go_build::{GoProgram, build},
    machine, require, wait,
};

const LIMIT: Duration = Duration::from_secs(180);
/// So many times is the server killed under the writers.
const ROUNDS: usize = 4;
/// Older states are forgotten this often, in seconds, so that watchers come too late.
const COMPACTION: [&str; 2] = ["--compaction-interval", "1"];

/// The program built from `e2e/truth`, or ends the test as skipped.
macro_rules! truth {
    () => {
        match build("truth", Path::new(env!("CARGO_TARGET_TMPDIR"))).expect("e2e/truth builds") {
            GoProgram::Built(program) => program,
            GoProgram::Impossible(reason) => {
                require!(false, reason);
                return;
            }
        }
    };
}

/// The program as it runs, killed with this value.
struct Truth {
    child: Child,
    lines: mpsc::Receiver<String>,
}

impl Truth {
    fn start(program: &Path, cluster: &TestCluster, args: &[&str]) -> Self {
        let mut child = Command::new(program)
            .args(args)
            .arg("--kubeconfig")
            .arg(cluster.kubeconfig())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            // client-go tells of each cut connection.
            .stderr(Stdio::null())
            .spawn()
            .expect("start e2e/truth");
        let output = child.stdout.take().expect("piped");
        let (sender, lines) = mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                // Nobody may be listening any more; the pipe must be drained all the same.
                sender.send(line).ok();
            }
        });
        Self { child, lines }
    }

    /// The next line that begins so.
    fn says(&self, beginning: &str) -> String {
        let deadline = Instant::now() + LIMIT;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.lines.recv_timeout(left) {
                Ok(line) if line.starts_with(beginning) => return line,
                Ok(line) if line.starts_with("failed") => {
                    let rest: Vec<String> = self.lines.iter().collect();
                    panic!("{line}\n{}", rest.join("\n"));
                }
                Ok(_) => {}
                Err(error) => panic!("waited for {beginning:?}: {error}"),
            }
        }
    }
}

impl Drop for Truth {
    fn drop(&mut self) {
        // Gone already, unless the test failed before.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// A control plane alone.
fn start() -> TestCluster {
    TestCluster::start(&[&["--no-kubelet", "--no-driver"], &COMPACTION[..]].concat())
}

#[test]
fn caches_of_client_go_equal_a_list_after_cuts_compactions_and_kills() {
    let program = truth!();
    let mut cluster = start();
    let mut truth = Truth::start(&program, &cluster, &["informers"]);
    truth.says("synced");
    for _ in 0..ROUNDS {
        truth.says("writes");
        cluster.kill_9();
        cluster.up();
        truth.says("writes");
    }
    let mut input = truth.child.stdin.take().expect("piped");
    input.write_all(b"enough\n").expect("steer e2e/truth");
    println!("{}", truth.says("true"));
    drop(truth);
    if machine::is_root() {
        cluster.finish();
    }
}

/// A candidate, and when it began or ceased to lead, in nanoseconds.
struct Candidate {
    name: &'static str,
    process: Option<Truth>,
    turns: Vec<(bool, u128)>,
}

impl Candidate {
    fn start(program: &Path, cluster: &TestCluster, name: &'static str) -> Self {
        Self {
            name,
            process: Some(Truth::start(program, cluster, &["elect", "--id", name])),
            turns: Vec::new(),
        }
    }

    /// Whether it leads, as far as it has told.
    fn leads(&mut self) -> bool {
        let told = self.process.iter().flat_map(|process| process.lines.try_iter());
        let turns = told.map(|line| {
            // `leads a 123` or `follows a 123`
            let time = line.rsplit(' ').next().unwrap_or_default();
            (
                line.starts_with("leads"),
                time.parse().expect("a line ends with its time"),
            )
        });
        self.turns.extend(turns);
        self.turns.last().is_some_and(|(leads, _)| *leads)
    }

    /// Ends it as the kernel would.
    fn kill(&mut self) {
        self.leads();
        self.process = None;
        let now = std::time::UNIX_EPOCH.elapsed().expect("the clock is right");
        self.turns.push((false, now.as_nanos()));
    }

    /// From when to when it led.
    fn reigns(&self) -> Vec<(u128, u128)> {
        let mut reigns = Vec::new();
        let mut from = None;
        for &(leads, at) in &self.turns {
            match (leads, from) {
                (true, _) => from = Some(at),
                (false, Some(began)) => {
                    reigns.push((began, at));
                    from = None;
                }
                (false, None) => {}
            }
        }
        reigns.extend(from.map(|began| (began, u128::MAX)));
        reigns
    }
}

/// Waits until one of them leads.
fn leader(candidates: &mut [Candidate]) -> usize {
    wait::until("a leader", LIMIT, || {
        candidates.iter_mut().position(Candidate::leads).ok_or(())
    })
}

#[test]
fn there_is_one_leader_at_most_while_the_server_is_killed() {
    let program = truth!();
    let mut cluster = start();
    let mut candidates = ["a", "b"].map(|name| Candidate::start(&program, &cluster, name));
    leader(&mut candidates);
    // Back at once.
    cluster.kill_9();
    cluster.up();
    leader(&mut candidates);
    // Away for longer than a leader may go on without it.
    cluster.kill_9();
    wait::until("nobody to lead", LIMIT, || {
        match candidates
            .iter_mut()
            .find_map(|one| one.leads().then_some(one.name))
        {
            None => Ok(()),
            Some(name) => Err(name),
        }
    });
    cluster.up();
    // The leader dies without a word, the server too: the other one takes over once the lease has run out.
    let last = leader(&mut candidates);
    candidates[last].kill();
    cluster.kill_9();
    cluster.up();
    assert_ne!(leader(&mut candidates), last);
    let mut reigns: Vec<_> = candidates.iter().flat_map(Candidate::reigns).collect();
    reigns.sort_unstable();
    assert!(reigns.len() >= 3, "{reigns:?}");
    for pair in reigns.windows(2) {
        assert!(pair[0].1 <= pair[1].0, "two leaders at once: {pair:?}");
    }
    drop(candidates);
    if machine::is_root() {
        cluster.finish();
    }
}
