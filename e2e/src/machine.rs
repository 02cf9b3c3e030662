//! What this machine has, and what it holds on to: mounts, loop devices, processes.

use std::{
    collections::BTreeSet,
    env,
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
};

/// True for root.
pub fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

/// True if a tool is on the path.
pub fn has_tool(name: &str) -> bool {
    env::split_paths(&path_with_sbin()).any(|dir| dir.join(name).is_file())
}

/// The path, with the places where tools for root are.
pub fn path_with_sbin() -> OsString {
    let path = env::var_os("PATH").unwrap_or_default();
    let sbin = ["/usr/sbin", "/sbin"].map(PathBuf::from);
    env::join_paths(env::split_paths(&path).chain(sbin)).unwrap_or(path)
}

/// The filesystem that may grow while it is mounted, on this machine and for this process.
pub fn filesystem_that_grows_mounted() -> Option<&'static str> {
    use moorline_mount::filesystem::{FsType, can_grow_mounted};
    if can_grow_mounted(FsType::Ext4) {
        return Some("ext4");
    }
    has_tool("mkfs.xfs").then_some("xfs")
}

/// True if loop devices can be made.
pub fn has_loop_devices() -> bool {
    Path::new("/dev/loop-control").exists()
}

/// Everything the machine holds below a directory.
pub fn held_below(root: &Path) -> BTreeSet<String> {
    let mut held = BTreeSet::new();
    let mounts = moorline_mount::mountinfo::read().unwrap_or_default();
    let mounts = mounts
        .into_iter()
        .filter(|entry| entry.mount_point.starts_with(root));
    held.extend(mounts.map(|entry| format!("mount {}", entry.mount_point.display())));
    let devices = moorline_mount::loop_device::list().unwrap_or_default();
    let devices = devices
        .into_iter()
        .filter(|device| device.backing_file.starts_with(root));
    held.extend(devices.map(|device| format!("loop device {}", device.device.display())));
    held.extend(
        processes_below(root)
            .into_iter()
            .map(|pid| format!("process {pid}")),
    );
    held
}

/// Processes with a path below `root` on their command line, this one left out.
pub fn processes_below(root: &Path) -> Vec<u32> {
    let root = root.to_string_lossy().into_owned();
    let entries = fs::read_dir("/proc")
        .map(|entries| entries.flatten().collect::<Vec<_>>())
        .unwrap_or_default();
    let pids = entries
        .iter()
        .filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.filter(|pid| *pid != std::process::id())
        .filter(|pid| {
            let command_line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            String::from_utf8_lossy(&command_line).contains(&root)
        })
        .collect()
}
