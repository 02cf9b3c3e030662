//! Signals to processes by number, and waiting for processes that aren't children.

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
