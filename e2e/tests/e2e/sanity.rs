//! The reference driver before the Go world's judge: csi-sanity, unmodified. One test for each run that
//! `cargo xtask sanity` makes.

use std::{collections::BTreeSet, path::Path, sync::atomic::AtomicBool};

use moorline_e2e::{
    require, require_node,
    sanity::{
        self,
        matrix::{self, Cell, Filter},
        suite,
    },
};

/// Where csi-sanity may have been put besides the path.
fn tools() -> &'static Path {
    Path::new(concat!(env!("CARGO_TARGET_TMPDIR"), "/../tools"))
}

fn cell(name: &str) -> Cell {
    let filter: Filter = name.parse().expect("a name of a run");
    let mut cells = matrix::all();
    cells.retain(|cell| filter.takes(*cell));
    assert_eq!(cells.len(), 1, "{name} names one run");
    cells[0]
}

fn passes(cell: Cell) {
    static NEVER: AtomicBool = AtomicBool::new(false);
    let options = sanity::Options {
        tool: suite::find(tools()).expect("it was there a moment ago"),
        logs: Path::new(env!("CARGO_TARGET_TMPDIR")).join("sanity"),
        tell: &|line| println!("{line}"),
        stop: &NEVER,
    };
    let outcome = sanity::run(cell, &options).unwrap();
    println!("csi-sanity {}", outcome.summary());
    for skip in &outcome.verdict.skips {
        println!("  not run: {}: {}", skip.spec, skip.reason.unwrap_or("?"));
    }
    assert!(
        outcome.is_good(),
        "{}\nlogs are in {}",
        outcome.summary(),
        options.logs.display()
    );
}

/// A test for each run, and the list of them.
macro_rules! runs {
    ($($test:ident: $name:literal,)*) => {
        $(
            #[test]
            fn $test() {
                require_node!();
                let cell = cell($name);
                require!(sanity::missing(cell).is_none(), sanity::missing(cell).unwrap_or_default());
                let tool = suite::find(tools());
                require!(tool.is_ok(), tool.err().map(|error| error.to_string()).unwrap_or_default());
                passes(cell);
            }
        )*

        const TESTED: &[&str] = &[$($name),*];
    };
}

runs! {
    dir_filesystem_together_node_local: "dir/filesystem/together/node-local",
    dir_filesystem_together_attachable: "dir/filesystem/together/attachable",
    dir_filesystem_split_node_local: "dir/filesystem/split/node-local",
    dir_filesystem_split_attachable: "dir/filesystem/split/attachable",
    dir_block_together_node_local: "dir/block/together/node-local",
    dir_block_together_attachable: "dir/block/together/attachable",
    dir_block_split_node_local: "dir/block/split/node-local",
    dir_block_split_attachable: "dir/block/split/attachable",
    loop_filesystem_together_node_local: "loop/filesystem/together/node-local",
    loop_filesystem_together_attachable: "loop/filesystem/together/attachable",
    loop_filesystem_split_node_local: "loop/filesystem/split/node-local",
    loop_filesystem_split_attachable: "loop/filesystem/split/attachable",
    loop_block_together_node_local: "loop/block/together/node-local",
    loop_block_together_attachable: "loop/block/together/attachable",
    loop_block_split_node_local: "loop/block/split/node-local",
    loop_block_split_attachable: "loop/block/split/attachable",
    btrfs_filesystem_together_node_local: "btrfs/filesystem/together/node-local",
    btrfs_filesystem_together_attachable: "btrfs/filesystem/together/attachable",
    btrfs_filesystem_split_node_local: "btrfs/filesystem/split/node-local",
    btrfs_filesystem_split_attachable: "btrfs/filesystem/split/attachable",
    btrfs_block_together_node_local: "btrfs/block/together/node-local",
    btrfs_block_together_attachable: "btrfs/block/together/attachable",
    btrfs_block_split_node_local: "btrfs/block/split/node-local",
    btrfs_block_split_attachable: "btrfs/block/split/attachable",
}

#[test]
fn each_run_has_its_test() {
    let tested: BTreeSet<String> = TESTED.iter().map(|name| (*name).to_owned()).collect();
    let all: BTreeSet<String> = matrix::all().iter().map(Cell::to_string).collect();
    assert_eq!(tested, all);
}
