//! What the end-to-end tests and the benchmarks share: a cluster run as a process of its own, driven through stock
//! clients, and the guards that leave the machine as it was.

pub mod bench;
pub mod cluster;
pub mod go_build;
pub mod kubectl;
pub mod kubectl_build;
pub mod machine;
pub mod process;
pub mod sanity;
pub mod scratch;
pub mod wait;

/// The path of the test around this call.
#[macro_export]
macro_rules! test_name {
    () => {{
        fn here() {}
        let path = std::any::type_name_of_val(&here);
        path.trim_end_matches("::here")
            .trim_end_matches("::{{closure}}")
            .to_owned()
    }};
}

/// Ends the calling test as *skipped*, with the reason, unless the condition holds.
///
/// A skipped test prints `skipped: <test>: <reason>`, which `cargo xtask test` collects and counts.
#[macro_export]
macro_rules! require {
    ($condition:expr, $reason:expr) => {
        if !$condition {
            println!("skipped: {}: {}", $crate::test_name!(), $reason);
            return;
        }
    };
}

/// Ends the calling test as *skipped* unless it runs as root with everything a node needs.
#[macro_export]
macro_rules! require_node {
    () => {
        $crate::require!(
            $crate::machine::is_root(),
            "needs root (mounts, loop devices, containers)"
        );
        $crate::require!(
            $crate::machine::has_tool("mkfs.ext4"),
            "mkfs.ext4 is missing (Debian: e2fsprogs)"
        );
        $crate::require!(
            $crate::machine::has_loop_devices(),
            "no loop devices on this machine"
        );
    };
}

/// Ends the calling test as *skipped* unless stock kubectl is there.
#[macro_export]
macro_rules! require_kubectl {
    () => {
        $crate::require!(
            $crate::kubectl::is_installed(),
            "kubectl 1.28 or later is missing"
        );
    };
}
