//! What the calls on the way of stage and publish cost, alone and with many mounts in the table: `costs [MOUNTS]`, as
//! root.

use std::time::Duration;

use moorline_mount::{
    MountError,
    beneath::TrustedDir,
    loop_device::{self, AttachOptions},
    mount::{self, BindOptions},
    mountinfo, usage,
};
use rustix::time::{ClockId, clock_gettime};

fn monotonic() -> Duration {
    let now = clock_gettime(ClockId::Monotonic);
    Duration::new(
        u64::try_from(now.tv_sec).unwrap_or(0),
        u32::try_from(now.tv_nsec).unwrap_or(0),
    )
}

#[expect(clippy::print_stdout, reason = "its output is what it is for")]
fn measure(
    name: &str,
    times: u32,
    mut call: impl FnMut() -> Result<(), MountError>,
) -> Result<(), MountError> {
    let begin = monotonic();
    for _ in 0..times {
        call()?;
    }
    let each = (monotonic() - begin) / times;
    println!("{name:<40} {:>10.1} us", each.as_secs_f64() * 1e6);
    Ok(())
}

fn measure_all(root: &std::path::Path) -> Result<(), MountError> {
    let trusted = TrustedDir::open(root)?;
    let path = root.join("target");
    let target = trusted.target(&path)?;
    target.ensure_directory(0o750)?;
    measure("TrustedDir::target", 2000, || trusted.target(&path).map(drop))?;
    measure("Target::look", 2000, || target.look().map(drop))?;
    measure("mount::is_mount_point", 2000, || {
        mount::is_mount_point(&path).map(drop)
    })?;
    measure("usage::filesystem", 2000, || usage::filesystem(root).map(drop))?;
    measure("mountinfo::read", 50, || mountinfo::read().map(drop))?;
    measure("bind, attach, unmount", 200, || {
        let tree = mount::clone_tree(root.join("source"), BindOptions::default())?;
        target.attach(tree)?;
        target.unmount_all().map(drop)
    })?;
    measure("loop attach, detach", 50, || {
        let device = loop_device::attach(root.join("image"), AttachOptions::default())?;
        loop_device::detach(device.path())
    })?;
    measure("usage::is_read_only_by_error", 50, || {
        usage::is_read_only_by_error(root.join("mounts")).map(drop)
    })
}

#[expect(clippy::print_stdout, reason = "its output is what it is for")]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mounts: u32 = std::env::args().nth(1).map_or(Ok(1000), |word| word.parse())?;
    let scratch = tempfile::tempdir()?;
    let root = scratch.path();
    for name in ["source", "mounts"] {
        std::fs::create_dir(root.join(name))?;
    }
    std::fs::File::create(root.join("image"))?.set_len(1 << 20)?;
    mount::mount("tmpfs", root.join("mounts"), "tmpfs", &[])?;
    let measured = (|| {
        println!("alone");
        measure_all(root)?;
        for number in 0..mounts {
            let path = root.join(format!("mounts/{number}"));
            std::fs::create_dir(&path).map_err(|source| MountError::Call {
                action: "make",
                path: path.clone(),
                source,
            })?;
            mount::bind(root.join("source"), &path, false)?;
        }
        println!("beside {mounts} mounts");
        measure_all(root)
    })();
    mount::unmount_tree(root)?;
    Ok(measured?)
}
