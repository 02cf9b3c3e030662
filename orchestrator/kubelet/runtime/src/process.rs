//! Signals to processes by number, and waiting for processes that aren't children.

use std::collections::BTreeSet;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open, pidfd_send_signal};

use crate::records::ProcessIdentity;

/// The process a number stands for at this moment.
pub(crate) fn pid(number: u32) -> Option<Pid> {
    i32::try_from(number).ok().and_then(Pid::from_raw)
}

/// Sends `SIGKILL`; a process that is gone is what was wanted.
pub(crate) fn kill_now(number: u32) {
    if let Some(pid) = pid(number) {
        kill_process(pid, Signal::KILL).ok(); // ESRCH: gone; EPERM can't be as root and wouldn't get better
    }
}

/// Rounds in which processes that are being made meanwhile are found.
const TREE_ROUNDS_MAX: usize = 8;

/// Kills a session's first process with all its descendants and all of its session. They are stopped first, so that
/// none makes another one unseen.
pub(crate) fn kill_tree(root: u32) {
    let mut found = BTreeSet::from([root]);
    for _ in 0..TREE_ROUNDS_MAX {
        let before = found.len();
        for number in &found {
            if let Some(pid) = pid(*number) {
                kill_process(pid, Signal::STOP).ok(); // ESRCH: gone
            }
        }
        extend_tree(&mut found, root, &all_processes());
        if found.len() == before {
            break;
        }
    }
    found.into_iter().for_each(kill_now);
}

/// Process, parent, session.
type Relation = (u32, u32, u32);

fn all_processes() -> Vec<Relation> {
    let numbers = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let numbers = numbers.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    numbers
        .filter_map(|number| {
            let stat = std::fs::read_to_string(format!("/proc/{number}/stat")).ok()?;
            relation(&stat)
        })
        .collect()
}

/// Reads `/proc/N/stat`; the program's name in it may hold any character.
fn relation(stat: &str) -> Option<Relation> {
    let number = stat.split(' ').next()?.parse().ok()?;
    let mut rest = stat.rsplit_once(") ")?.1.split(' ').skip(1);
    let parent = rest.next()?.parse().ok()?;
    Some((number, parent, rest.nth(1)?.parse().ok()?))
}

fn extend_tree(found: &mut BTreeSet<u32>, root: u32, all: &[Relation]) {
    loop {
        let before = found.len();
        for (number, parent, session) in all {
            if *session == root || found.contains(parent) {
                found.insert(*number);
            }
        }
        if found.len() == before {
            return;
        }
    }
}

/// Kills the very process `identity` names, not a later one with its number, and waits for its end.
/// `true` when it is gone.
pub(crate) fn kill_and_wait(identity: &ProcessIdentity, limit: Duration) -> bool {
    let Some(pid) = pid(identity.pid) else { return true };
    let Ok(handle) = pidfd_open(pid, PidfdFlags::empty()) else {
        return !identity.is_alive();
    };
    // The handle pins whatever process has the number now; only after that the comparison is safe.
    if !identity.is_alive() {
        return true;
    }
    pidfd_send_signal(&handle, Signal::KILL).ok(); // gone meanwhile: the wait below says so
    let timeout = Timespec {
        tv_sec: i64::try_from(limit.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: limit.subsec_nanos().into(),
    };
    let mut wait = [PollFd::new(&handle, PollFlags::IN)];
    matches!(poll(&mut wait, Some(&timeout)), Ok(ready) if ready > 0)
}

/// Sends a signal by number, real-time ones too.
pub(crate) fn signal(number: u32, signal: i32) {
    if let (Some(pid), Some(signal)) = (pid(number), signal_of(signal)) {
        kill_process(pid, signal).ok(); // ESRCH: gone, which is what a stop is for
    }
}

fn signal_of(number: i32) -> Option<Signal> {
    if let Some(named) = Signal::from_named_raw(number) {
        return Some(named);
    }
    if !(34..=64).contains(&number) {
        return None;
    }
    #[expect(
        unsafe_code,
        reason = "real-time signals have no names and no safe constructor"
    )]
    // SAFETY: these are the kernel's real-time signals that no C library keeps for itself, so handlers of libc that
    // rely on theirs not being raised are not affected; the signal goes to a container's process anyway.
    Some(unsafe { Signal::from_raw_unchecked(number) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn relations_of_processes() {
        let cases = [
            ("42 (sh) S 7 42 40 34816 42", Some((42, 7, 40))),
            ("42 (a) b) (c) R 7 42 40 0", Some((42, 7, 40))),
            ("42 (sh", None),
            ("", None),
        ];
        for (stat, expected) in cases {
            assert_eq!(relation(stat), expected, "{stat}");
        }
    }

    #[test]
    fn trees_of_processes() {
        let all = [
            (1, 0, 1),
            (10, 1, 10),
            (13, 12, 13),
            (12, 10, 10),
            (14, 1, 10),
            (20, 1, 20),
        ];
        let mut found = BTreeSet::from([10]);
        extend_tree(&mut found, 10, &all);
        assert_eq!(found.into_iter().collect::<Vec<_>>(), [10, 12, 13, 14]);
    }
}
