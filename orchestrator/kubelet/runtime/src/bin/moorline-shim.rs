//! The shim as an executable of its own: what tests run pods with, and what an installation may use to save memory.

fn main() {
    moorline_container_runtime::shim_main()
}
