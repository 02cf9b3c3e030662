//! What a command needs from the machine, asked before anything is touched.

use anyhow::bail;

/// True for root.
pub fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

/// Refuses with the reason, and with what works instead, unless the process is root.
pub fn require_root(what: &str, instead: &str) -> anyhow::Result<()> {
    if is_root() {
        return Ok(());
    }
    bail!(
        "{what} needs root: it mounts filesystems, sets up loop devices and starts containers, which Linux allows only to \
         root. Run it with sudo. {instead}"
    )
}
