//! Linux storage primitives: mounts, loop devices, filesystems, sizes, usage.
