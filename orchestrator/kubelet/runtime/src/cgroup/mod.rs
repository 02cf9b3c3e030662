//! Control groups of pods and containers: version 1, version 2 and both side by side, or none at all.
//!
//! The OCI library is kept away from cgroups (see `shim::helper`): it fails where one controller is missing or
//! read-only, and here such a machine must only lose the limits, not the containers.

pub(crate) mod limits;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use moorline_mount::mountinfo::MountEntry;
use serde::{Deserialize, Serialize};

use limits::{Setting, Version};

/// Controllers that are used where a version 1 hierarchy has them.
const CONTROLLERS_V1: [&str; 6] = ["cpu", "cpuacct", "memory", "pids", "devices", "freezer"];
/// Controllers switched on for children in version 2.
const CONTROLLERS_V2: [&str; 3] = ["cpu", "memory", "pids"];
/// Rounds of killing before giving up on a cgroup whose members keep forking.
const KILL_ROUNDS: u32 = 50;

/// Where the machine has its hierarchies.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Hierarchies {
    /// Mount points of version 1 with the controllers each one holds.
    v1: Vec<(Vec<String>, PathBuf)>,
    /// Mount point of version 2, used when it is the only one.
    v2: Option<PathBuf>,
}

/// A cgroup: one directory per hierarchy. Empty where the machine has none that can be written.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct CgroupPath {
    pub(crate) v1: Vec<(Vec<String>, PathBuf)>,
    pub(crate) v2: Option<PathBuf>,
}

impl Hierarchies {
    /// Finds the hierarchies in a mount table.
    pub(crate) fn among(mounts: &[MountEntry]) -> Self {
        let mut found = Self::default();
        for mount in mounts {
            match mount.fs_type.as_str() {
                "cgroup2" => {
                    found.v2.get_or_insert_with(|| mount.mount_point.clone());
                }
                "cgroup" => {
                    let controllers: Vec<String> = mount
                        .super_options
                        .split(',')
                        .filter(|option| CONTROLLERS_V1.contains(option))
                        .map(str::to_owned)
                        .collect();
                    if !controllers.is_empty() {
                        found.v1.push((controllers, mount.mount_point.clone()));
                    }
                }
                _ => {}
            }
        }
        if !found.v1.is_empty() {
            // Hybrid: the controllers are in version 1, the unified hierarchy only tracks processes.
            found.v2 = None;
        }
        found
    }

    /// Leaves out the hierarchies in which `root` can't be made; says which ones.
    pub(crate) fn writable(self, root: &Path) -> (Self, Vec<String>) {
        let mut warnings = Vec::new();
        let mut usable = |mount_point: &PathBuf| {
            let dir = mount_point.join(root);
            let made = fs::create_dir_all(&dir);
            if let Err(error) = &made {
                warnings.push(format!("make cgroup {}: {error}", dir.display()));
            }
            made.is_ok()
        };
        let v1 = self
            .v1
            .into_iter()
            .filter(|(_, mount_point)| usable(mount_point))
            .collect();
        let v2 = self.v2.filter(|mount_point| usable(mount_point));
        (Self { v1, v2 }, warnings)
    }

    /// The cgroup `relative`, not made yet.
    pub(crate) fn path(&self, relative: &Path) -> CgroupPath {
        CgroupPath {
            v1: self
                .v1
                .iter()
                .map(|(controllers, dir)| (controllers.clone(), dir.join(relative)))
                .collect(),
            v2: self.v2.as_ref().map(|dir| dir.join(relative)),
        }
    }

    /// Makes the cgroup `relative` everywhere; returns what version 2 didn't let us switch on.
    pub(crate) fn make(&self, relative: &Path) -> io::Result<Vec<String>> {
        self.path(relative).make()?;
        Ok(self
            .v2
            .as_ref()
            .map(|mount_point| enable_controllers(mount_point, relative))
            .unwrap_or_default())
    }

    /// Removes `relative` and the directories above it as far as they are empty.
    pub(crate) fn prune(&self, relative: &Path) {
        for mount_point in self.v1.iter().map(|(_, dir)| dir).chain(&self.v2) {
            for part in relative.ancestors().filter(|part| !part.as_os_str().is_empty()) {
                match fs::remove_dir(mount_point.join(part)) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => break, // others have theirs in it
                    Ok(()) | Err(_) => {}
                }
            }
        }
    }
}

/// Version 2 gives a child only the controllers that each directory above it switches on.
fn enable_controllers(mount_point: &Path, relative: &Path) -> Vec<String> {
    let mut warnings = Vec::new();
    let mut dir = mount_point.to_owned();
    for part in relative.components() {
        let file = dir.join("cgroup.subtree_control");
        for controller in CONTROLLERS_V2 {
            if let Err(error) = fs::write(&file, format!("+{controller}")) {
                warnings.push(format!("switch {controller} on in {}: {error}", file.display()));
            }
        }
        dir.push(part);
    }
    warnings
}

impl CgroupPath {
    /// There is no cgroup at all.
    pub(crate) fn is_empty(&self) -> bool {
        self.v1.is_empty() && self.v2.is_none()
    }

    /// The cgroup `name` inside this one, not made yet.
    pub(crate) fn child(&self, name: &str) -> Self {
        Self {
            v1: self
                .v1
                .iter()
                .map(|(controllers, dir)| (controllers.clone(), dir.join(name)))
                .collect(),
            v2: self.v2.as_ref().map(|dir| dir.join(name)),
        }
    }

    /// Where a container finds its own cgroup, by hierarchy: the place below `/sys/fs/cgroup` (empty in version 2)
    /// and the directory.
    pub(crate) fn places(&self) -> Vec<(String, PathBuf)> {
        let v1 = self
            .v1
            .iter()
            .map(|(controllers, dir)| (controllers.join(","), dir.clone()));
        v1.chain(self.v2.iter().map(|dir| (String::new(), dir.clone())))
            .collect()
    }

    /// The places alone.
    pub(crate) fn names(&self) -> Vec<String> {
        self.places().into_iter().map(|(name, _)| name).collect()
    }

    fn dirs(&self) -> impl Iterator<Item = &PathBuf> {
        self.v1.iter().map(|(_, dir)| dir).chain(&self.v2)
    }

    /// Device access can be restricted here.
    pub(crate) fn has_device_filter(&self) -> bool {
        self.find_v1("devices").is_some()
    }

    fn find_v1(&self, controller: &str) -> Option<&PathBuf> {
        self.v1
            .iter()
            .find(|(controllers, _)| controllers.iter().any(|known| known == controller))
            .map(|(_, dir)| dir)
    }

    /// Makes the directories where missing. Another pod's end may prune empty parents meanwhile.
    pub(crate) fn make(&self) -> io::Result<()> {
        self.dirs().try_for_each(|dir| {
            fs::create_dir_all(dir).or_else(|error| match error.kind() {
                io::ErrorKind::NotFound => fs::create_dir_all(dir),
                _ => Err(error),
            })
        })
    }

    /// Writes settings; what a hierarchy doesn't offer or refuses is returned as warnings.
    pub(crate) fn apply(&self, settings: &[Setting]) -> Vec<String> {
        let mut warnings = Vec::new();
        for setting in settings {
            let dir = match setting.version {
                Version::V1 => self.find_v1(setting.controller),
                Version::V2 => self.v2.as_ref(),
            };
            let Some(dir) = dir else { continue };
            let file = dir.join(setting.file);
            if let Err(error) = fs::write(&file, &setting.value) {
                warnings.push(format!("write {} to {}: {error}", setting.value, file.display()));
            }
        }
        warnings
    }

    /// Moves the calling process in.
    pub(crate) fn join(&self) -> io::Result<()> {
        self.dirs()
            .try_for_each(|dir| fs::write(dir.join("cgroup.procs"), "0"))
    }

    /// The members of this cgroup and of those below it, each once.
    pub(crate) fn processes(&self) -> Vec<u32> {
        let mut all = Vec::new();
        self.dirs().for_each(|dir| collect_processes(dir, &mut all));
        all.sort_unstable();
        all.dedup();
        all
    }

    /// How many processes the kernel killed here for want of memory.
    pub(crate) fn oom_kills(&self) -> u64 {
        let file = match (&self.v2, self.find_v1("memory")) {
            (Some(dir), _) => dir.join("memory.events"),
            (None, Some(dir)) => dir.join("memory.oom_control"),
            (None, None) => return 0,
        };
        fs::read_to_string(file).map_or(0, |text| oom_kill_count(&text))
    }

    /// Sends `SIGKILL` to all members, again and again until there are none. `true` when it is empty at the end.
    pub(crate) fn kill_all(&self, pause: impl Fn()) -> bool {
        for _ in 0..KILL_ROUNDS {
            let members = self.processes();
            if members.is_empty() {
                return true;
            }
            for pid in members {
                crate::process::kill_now(pid);
            }
            pause();
        }
        self.processes().is_empty()
    }

    /// Kills all members and removes this cgroup and all below it. A process that is on its way out, or was on its
    /// way in, makes the kernel refuse for a moment: tried again as often as [`CgroupPath::kill_all`] does. What is
    /// left at the end is returned.
    pub(crate) fn end(&self, pause: impl Fn()) -> Vec<String> {
        for _ in 0..KILL_ROUNDS {
            if self.kill_all(&pause) && self.remove().is_empty() {
                return Vec::new();
            }
            pause();
        }
        self.remove()
    }

    /// Removes this cgroup and all below it, once; returns what the kernel kept.
    pub(crate) fn remove(&self) -> Vec<String> {
        self.dirs()
            .filter_map(|dir| {
                remove_tree(dir)
                    .err()
                    .map(|error| format!("{}: {error}", dir.display()))
            })
            .collect()
    }
}

fn collect_processes(dir: &Path, found: &mut Vec<u32>) {
    let members = fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default();
    found.extend(members.lines().filter_map(|line| line.parse::<u32>().ok()));
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            collect_processes(&entry.path(), found);
        }
    }
}

/// Files of a cgroup can't be deleted, only its directories can, deepest first.
fn remove_tree(dir: &Path) -> io::Result<()> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    for entry in entries {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_tree(&entry.path())?;
        }
    }
    match fs::remove_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

/// Both `memory.events` and `memory.oom_control` are lines of name and number.
fn oom_kill_count(text: &str) -> u64 {
    text.lines()
        .filter_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok())
        .next()
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HYBRID: &str = "\
30 24 0:26 / /sys/fs/cgroup rw,relatime shared:9 - tmpfs tmpfs rw,mode=755
31 30 0:27 / /sys/fs/cgroup/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct
32 30 0:28 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
33 30 0:29 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,name=systemd
34 30 0:30 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
";

    fn v1(controllers: &[&str], dir: &str) -> (Vec<String>, PathBuf) {
        (
            controllers.iter().map(|name| (*name).to_owned()).collect(),
            PathBuf::from(dir),
        )
    }

    #[test]
    fn hierarchies_are_told_apart() {
        let cases = [
            (
                "hybrid uses version 1",
                HYBRID,
                Hierarchies {
                    v1: vec![
                        v1(&["cpu", "cpuacct"], "/sys/fs/cgroup/cpu,cpuacct"),
                        v1(&["memory"], "/sys/fs/cgroup/memory"),
                    ],
                    v2: None,
                },
            ),
            (
                "version 2 alone",
                "24 1 0:26 / /sys/fs/cgroup rw shared:9 - cgroup2 cgroup2 rw,nsdelegate\n",
                Hierarchies {
                    v1: vec![],
                    v2: Some("/sys/fs/cgroup".into()),
                },
            ),
            (
                "none",
                "24 1 8:1 / / rw - ext4 /dev/sda rw\n",
                Hierarchies::default(),
            ),
        ];
        for (name, mountinfo, expected) in cases {
            let mounts = moorline_mount::mountinfo::parse(mountinfo).unwrap();
            assert_eq!(Hierarchies::among(&mounts), expected, "{name}");
        }
    }

    #[test]
    fn child_lies_below_in_every_hierarchy() {
        let pod = CgroupPath {
            v1: vec![v1(&["cpu"], "/c/pod")],
            v2: Some("/u/pod".into()),
        };
        let child = CgroupPath {
            v1: vec![v1(&["cpu"], "/c/pod/a")],
            v2: Some("/u/pod/a".into()),
        };
        assert_eq!(pod.child("a"), child);
    }

    #[test]
    fn oom_kills_are_read_from_both_versions() {
        assert_eq!(oom_kill_count("oom_kill_disable 0\nunder_oom 0\noom_kill 2\n"), 2);
        assert_eq!(
            oom_kill_count("low 0\nhigh 0\nmax 9\noom 1\noom_kill 1\noom_group_kill 0\n"),
            1
        );
        assert_eq!(oom_kill_count(""), 0);
    }

    #[test]
    fn nothing_to_do_without_cgroups() {
        let none = CgroupPath::default();
        assert!(none.is_empty());
        none.make().unwrap();
        none.join().unwrap();
        assert!(none.kill_all(|| ()));
        assert!(none.end(|| ()).is_empty());
        assert_eq!(none.oom_kills(), 0);
    }
}
