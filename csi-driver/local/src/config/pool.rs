//! What the flags say about one pool. Pure.

use std::path::PathBuf;

use clap::ValueEnum as _;

use super::{BackendKind, PoolArgs, check_absolute, check_name, size::parse_size};
use crate::room::Overcommit;

/// The pool that classes get without asking for another.
pub(crate) const POOL_DEFAULT: &str = "default";
/// Names stand in parameters, logs and metrics.
const NAME_BYTES_MAX: usize = 63;

/// One pool: a directory that holds volumes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolConfig {
    /// Its name in the StorageClass parameter `pool`.
    pub name: String,
    /// Where it is; made if missing.
    pub directory: PathBuf,
    /// How new volumes are stored.
    pub backend: BackendKind,
    /// Sum of all sizes that may be reserved; `None`: as much as the pool's filesystem has.
    pub capacity_limit_bytes: Option<u64>,
    /// How many times its capacity the pool may promise to thin volumes.
    pub overcommit: Overcommit,
}

impl PoolConfig {
    /// A pool as large as its filesystem, without over-commitment.
    pub fn new(name: impl Into<String>, directory: impl Into<PathBuf>, backend: BackendKind) -> Self {
        PoolConfig {
            name: name.into(),
            directory: directory.into(),
            backend,
            capacity_limit_bytes: None,
            overcommit: Overcommit::NONE,
        }
    }
}

/// The default pool and those of `--pool`.
pub(super) fn all(args: &PoolArgs, faults: &mut Vec<String>) -> Vec<PoolConfig> {
    check_absolute("--pool-dir", &args.pool_dir, faults);
    let mut first = PoolConfig::new(POOL_DEFAULT, &args.pool_dir, args.backend);
    if let Some(text) = &args.capacity {
        match parse_size(text) {
            Ok(bytes) => first.capacity_limit_bytes = Some(bytes),
            Err(error) => faults.push(format!("--capacity: {error}")),
        }
    }
    match args.overcommit.parse() {
        Ok(ratio) => first.overcommit = ratio,
        Err(error) => faults.push(format!("--overcommit: {error}")),
    }
    let mut pools = vec![first];
    for text in &args.pools {
        match parse(text, faults) {
            Ok(pool) => {
                refuse_twins(&pools, &pool, faults);
                pools.push(pool);
            }
            Err(error) => faults.push(format!("--pool {text}: {error}")),
        }
    }
    pools
}

/// Two pools in one directory would each think the volumes theirs.
fn refuse_twins(pools: &[PoolConfig], pool: &PoolConfig, faults: &mut Vec<String>) {
    if pools.iter().any(|other| other.name == pool.name) {
        faults.push(format!("--pool: there are two pools {}", pool.name));
    }
    let is_nested = |other: &PoolConfig| {
        other.directory.starts_with(&pool.directory) || pool.directory.starts_with(&other.directory)
    };
    if let Some(other) = pools.iter().find(|other| is_nested(other)) {
        faults.push(format!(
            "--pool: the pools {} and {} share {}; each needs a directory of its own",
            other.name,
            pool.name,
            pool.directory.display()
        ));
    }
}

fn parse(text: &str, faults: &mut Vec<String>) -> Result<PoolConfig, String> {
    let (name, rest) = text
        .split_once('=')
        .ok_or("expected NAME=DIR[,backend=dir|loop|btrfs][,capacity=SIZE][,overcommit=RATIO]")?;
    let mut words = rest.split(',');
    let directory = PathBuf::from(words.next().unwrap_or_default());
    check_name("--pool", name, NAME_BYTES_MAX, faults);
    check_absolute("--pool", &directory, faults);
    let mut pool = PoolConfig::new(name, directory, BackendKind::Dir);
    for word in words {
        match word.split_once('=') {
            Some(("backend", value)) => pool.backend = BackendKind::from_str(value, false)?,
            Some(("capacity", value)) => pool.capacity_limit_bytes = Some(parse_size(value)?),
            Some(("overcommit", value)) => pool.overcommit = value.parse()?,
            _ => return Err(format!("{word:?} is none of backend=, capacity= and overcommit=")),
        }
    }
    Ok(pool)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pools_are_read_or_refused() {
        let full = PoolConfig {
            capacity_limit_bytes: Some(1 << 30),
            overcommit: "2".parse().unwrap(),
            ..PoolConfig::new("p", "/p", BackendKind::Loop)
        };
        type Case = (&'static str, Result<PoolConfig, &'static str>);
        let cases: [Case; 8] = [
            ("p=/p", Ok(PoolConfig::new("p", "/p", BackendKind::Dir))),
            ("p=/p,backend=loop,capacity=1Gi,overcommit=2", Ok(full)),
            ("p", Err("expected NAME=DIR")),
            ("p=/p,backend=zfs", Err("invalid variant")),
            ("p=/p,capacity=much", Err("is not a size")),
            ("p=/p,overcommit=0", Err("is not a ratio")),
            ("p=/p,color=red", Err("is none of")),
            ("p=/p,", Err("is none of")),
        ];
        for (text, expected) in cases {
            let mut faults = Vec::new();
            match (parse(text, &mut faults), expected) {
                (Ok(pool), Ok(expected)) => assert_eq!(pool, expected, "{text}"),
                (Err(error), Err(expected)) => assert!(error.contains(expected), "{text}: {error}"),
                (got, _) => panic!("{text}: {got:?}"),
            }
            assert_eq!(faults, [""; 0], "{text}");
        }
        for text in ["=/p", "p=p", "-=/p"] {
            let mut faults = Vec::new();
            parse(text, &mut faults).ok(); // What is wrong is in the faults.
            assert_eq!(faults.len(), 1, "{text}: {faults:?}");
        }
    }

    #[test]
    fn each_pool_has_its_own_name_and_place() {
        let pools = [PoolConfig::new("a", "/pools/a", BackendKind::Dir)];
        let cases = [
            ("apart", "b", "/pools/b", 0),
            ("same name", "a", "/pools/b", 1),
            ("same place", "b", "/pools/a", 1),
            ("inside", "b", "/pools/a/b", 1),
            ("around", "b", "/pools", 1),
            ("a longer name beside it", "b", "/pools/ab", 0),
        ];
        for (name, pool, directory, expected) in cases {
            let mut faults = Vec::new();
            refuse_twins(
                &pools,
                &PoolConfig::new(pool, directory, BackendKind::Dir),
                &mut faults,
            );
            assert_eq!(faults.len(), expected, "{name}: {faults:?}");
        }
    }
}
