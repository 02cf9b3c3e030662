//! Places at which a test can kill the process or let it fail: after every durable step. In builds without the feature
//! `failpoints` nothing of it is left but this table.
//!
//! A test names points in the environment of the driver's process, `FAILPOINTS=create::after_record=kill`, several of them
//! with `;` between. What happens there: `kill` ends the process by SIGKILL, `full` lets the step fail for want of room,
//! `fail` lets it fail for good. `kill@3` waits for the third time. `FAILPOINTS=@/path` reads the choice from a file, each
//! time anew; when the file says something else than before, times are counted from the start.
//!
//! The crate `fail` would do the same, but can't end a process, and stands on an old `rand`.

use crate::pool::PoolError;

/// All of them.
pub const POINTS: &[&str] = &[
    "create::after_directory",
    "create::after_data",
    "create::after_copy_of_record",
    "create::after_record",
    "create::after_journal",
    "create::after_rename",
    "create::after_sync",
    "snapshot::after_directory",
    "snapshot::after_data",
    "snapshot::after_copy_of_record",
    "snapshot::after_record",
    "snapshot::after_rename",
    "snapshot::after_sync",
    "clone::after_copy",
    "cut::after_freeze",
    "cut::after_cut",
    "cut::after_thaw",
    "group::after_directory",
    "group::after_data",
    "group::after_copy_of_record",
    "group::after_record",
    "group::after_intent",
    "group::after_member_cut",
    "group::after_thaw",
    "group::after_member_rename",
    "group::after_member_sync",
    "group::after_rename",
    "group::after_sync",
    "delete::after_rename",
    "delete::after_sync",
    "delete::after_removal",
    "delete_snapshot::after_rename",
    "delete_snapshot::after_sync",
    "delete_snapshot::after_removal",
    "delete_group::after_rename",
    "delete_group::after_sync",
    "delete_group::after_removal",
    "update::after_copy_of_record",
    "update::after_record",
    "expand::after_data",
    "modify::after_record",
    "modify::after_tuning",
    "lease::after_write",
    "lease::after_sync",
    "stage::after_directory",
    "stage::after_device",
    "stage::after_check",
    "stage::after_growth",
    "stage::after_mount",
    "publish::after_group",
    "publish::after_device",
    "publish::after_entry",
    "publish::after_mount",
    "unpublish::after_unmount",
    "unpublish::after_removal",
    "unstage::after_unmount",
    "unstage::after_detach",
];

/// Does what the test wants done at this point: mostly nothing.
#[cfg(not(feature = "failpoints"))]
#[inline(always)]
pub(crate) fn hit(_point: &'static str) -> Result<(), PoolError> {
    Ok(())
}

/// Does what the test wants done at this point: mostly nothing.
#[cfg(feature = "failpoints")]
pub(crate) fn hit(point: &'static str) -> Result<(), PoolError> {
    assert!(POINTS.contains(&point), "{point} is missing in the table");
    chosen::act(point).map_err(PoolError::io("pass the failpoint", point))
}

#[cfg(feature = "failpoints")]
mod chosen {
    use std::{collections::BTreeMap, env, fs, io};

    use parking_lot::Mutex;
    use rustix::{io::Errno, process};

    /// What was chosen last, and how often each point that it names was passed since.
    static PASSED: Mutex<(String, BTreeMap<&str, usize>)> = Mutex::new((String::new(), BTreeMap::new()));

    fn choice() -> String {
        let text = env::var("FAILPOINTS").unwrap_or_default();
        match text.strip_prefix('@') {
            Some(path) => fs::read_to_string(path).unwrap_or_default(),
            None => text,
        }
    }

    pub(super) fn act(point: &'static str) -> io::Result<()> {
        let all = choice();
        let action = all
            .split(';')
            .find_map(|choice| choice.strip_prefix(point)?.strip_prefix('='));
        let Some(action) = action else {
            return Ok(());
        };
        let (action, turn) = action.split_once('@').unwrap_or((action, "1"));
        let passed = {
            let mut passed = PASSED.lock();
            let (chosen, counts) = &mut *passed;
            if *chosen != all {
                *chosen = all.clone();
                counts.clear();
            }
            let count = counts.entry(point).or_default();
            *count += 1;
            *count
        };
        if turn.parse() != Ok(passed) {
            return Ok(());
        }
        match action {
            "kill" => Err(process::kill_process(process::getpid(), process::Signal::KILL)
                .map_or_else(io::Error::from, |()| Errno::INTR.into())),
            "full" => Err(Errno::NOSPC.into()),
            _ => Err(Errno::IO.into()),
        }
    }
}
