//! The command line of the driver and the checked configuration that is made of it.

mod pool;
mod size;

use std::path::{Path, PathBuf};

use clap::{Args as ClapArgs, ValueEnum};
use moorline_driver_sdk::{
    Endpoint,
    cli::{Serving, ServingArgs},
};
use thiserror::Error;

pub(crate) use self::pool::POOL_DEFAULT;
pub use self::pool::PoolConfig;
use crate::DRIVER_NAME;

/// CSI allows 256 bytes; Kubernetes puts the id into a label value, which has 63.
const NODE_ID_BYTES_MAX: usize = 63;
const DRIVER_NAME_BYTES_MAX: usize = 63;

/// Flags of `moorline driver`.
#[derive(Clone, Debug, ClapArgs)]
pub struct Args {
    /// Where to listen: unix:///absolute/path, or tcp://ADDRESS:PORT. Other machines need TLS with --tls-client-ca
    #[arg(
        long,
        value_name = "ADDRESS",
        env = "CSI_ENDPOINT",
        default_value = "unix:///run/csi/socket"
    )]
    pub endpoint: String,

    /// How the driver is served.
    #[command(flatten)]
    pub serving: ServingArgs,

    /// Name of this node: its CSI node id and the value of its topology segment
    #[arg(long, value_name = "NAME", env = "NODE_ID")]
    pub node_id: String,

    /// Where the volumes are.
    #[command(flatten)]
    pub pools: PoolArgs,

    /// Name under which the driver is registered
    #[arg(long, value_name = "NAME", default_value = DRIVER_NAME)]
    pub driver_name: String,

    /// Serve the controller service (without --controller and --node: both services)
    #[arg(long)]
    pub controller: bool,

    /// Serve the node service (without --controller and --node: both services)
    #[arg(long)]
    pub node: bool,

    /// Directory below which staging and target paths are accepted; paths beneath it may not contain symlinks
    #[arg(long, value_name = "DIR", default_value = "/")]
    pub target_root: PathBuf,

    /// Volumes that may be staged on this node at once, 0 for no limit; told to the scheduler
    #[arg(long, value_name = "COUNT", default_value_t = 0)]
    pub max_volumes_per_node: u64,

    /// Several nodes share the pool directories: volumes are attached to a node before they are used there
    #[arg(long)]
    pub attachable: bool,
}

/// Flags that say where volumes are.
#[derive(Clone, Debug, ClapArgs)]
pub struct PoolArgs {
    /// Directory that holds the volumes, their records and their data; made if missing
    #[arg(long, value_name = "DIR", default_value = "/var/lib/moorline/pool")]
    pub pool_dir: PathBuf,

    /// How new volumes are stored; existing ones keep the backend they were made with
    #[arg(long, value_enum, default_value_t = BackendKind::Dir)]
    pub backend: BackendKind,

    /// Sum of all volume sizes that may be reserved, such as 500Gi [default: size of the pool's filesystem]
    #[arg(long, value_name = "SIZE")]
    pub capacity: Option<String>,

    /// How many times its capacity the pool may promise to thin volumes, such as 1.5
    #[arg(long, value_name = "RATIO", default_value = "1")]
    pub overcommit: String,

    /// One more pool, chosen by the StorageClass parameter `pool`; --pool-dir and its flags describe the pool `default`:
    /// NAME=DIR,backend=dir|loop|btrfs,capacity=SIZE,overcommit=RATIO, all but NAME=DIR optional
    #[arg(long = "pool", value_name = "NAME=DIR,..")]
    pub pools: Vec<String>,
}

/// How a volume is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum BackendKind {
    /// A directory per volume; capacity is accounted, not enforced
    Dir,
    /// A sparse file per volume, used as block device or with ext4, xfs or btrfs on it; capacity is enforced
    Loop,
    /// A btrfs subvolume per volume, in a pool directory on btrfs; capacity is enforced by quota groups
    Btrfs,
}

/// Which services one process offers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Services {
    /// Controller and node.
    Both,
    /// The controller only.
    Controller,
    /// The node only.
    Node,
}

impl Services {
    /// Is the controller service among them?
    pub fn has_controller(self) -> bool {
        matches!(self, Services::Both | Services::Controller)
    }

    /// Is the node service among them?
    pub fn has_node(self) -> bool {
        matches!(self, Services::Both | Services::Node)
    }
}

/// The driver's configuration, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Where and how calls come in.
    pub serving: Serving,
    /// The CSI node id and topology value.
    pub node_id: String,
    /// Where the volumes are. The first pool is the one that classes get without asking for another.
    pub pools: Vec<PoolConfig>,
    /// The name under which the driver is registered.
    pub driver_name: String,
    /// Which services to offer.
    pub services: Services,
    /// Below which directory staging and target paths must be.
    pub target_root: PathBuf,
    /// How many volumes the node takes; `None`: no limit.
    pub max_volumes: Option<u64>,
    /// Do several nodes share the pools, so that a volume is attached to a node before it is used there?
    pub is_attachable: bool,
}

impl Config {
    /// A driver with both services, one pool and the defaults of [`Args`].
    pub fn new(
        endpoint: Endpoint,
        node_id: impl Into<String>,
        pool_dir: impl Into<PathBuf>,
        backend: BackendKind,
    ) -> Self {
        Config {
            serving: Serving::new(endpoint),
            node_id: node_id.into(),
            pools: vec![PoolConfig::new(POOL_DEFAULT, pool_dir, backend)],
            driver_name: DRIVER_NAME.to_owned(),
            services: Services::Both,
            target_root: PathBuf::from("/"),
            max_volumes: None,
            is_attachable: false,
        }
    }
}

/// All faults of a command line, one a line.
#[derive(Debug, Error)]
#[error("{}", faults.join("\n"))]
pub struct ConfigError {
    faults: Vec<String>,
}

impl TryFrom<Args> for Config {
    type Error = ConfigError;

    fn try_from(args: Args) -> Result<Self, ConfigError> {
        let mut faults = Vec::new();
        let serving = args
            .serving
            .checked(&args.endpoint)
            .map_err(|wrong| faults.extend(wrong));
        check_name("--node-id", &args.node_id, NODE_ID_BYTES_MAX, &mut faults);
        check_name(
            "--driver-name",
            &args.driver_name,
            DRIVER_NAME_BYTES_MAX,
            &mut faults,
        );
        check_absolute("--target-root", &args.target_root, &mut faults);
        let pools = pool::all(&args.pools, &mut faults);
        let services = match (args.controller, args.node) {
            (true, false) => Services::Controller,
            (false, true) => Services::Node,
            (true, true) | (false, false) => Services::Both,
        };
        match serving {
            Ok(serving) if faults.is_empty() => Ok(Config {
                serving,
                node_id: args.node_id,
                pools,
                driver_name: args.driver_name,
                services,
                target_root: args.target_root,
                max_volumes: (args.max_volumes_per_node > 0).then_some(args.max_volumes_per_node),
                is_attachable: args.attachable,
            }),
            _ => Err(ConfigError { faults }),
        }
    }
}

impl PoolArgs {
    /// The pools, the default one first.
    ///
    /// # Errors
    /// All that is wrong with the flags.
    pub fn checked(&self) -> Result<Vec<PoolConfig>, ConfigError> {
        let mut faults = Vec::new();
        let pools = pool::all(self, &mut faults);
        if faults.is_empty() {
            Ok(pools)
        } else {
            Err(ConfigError { faults })
        }
    }
}

fn check_absolute(flag: &str, path: &Path, faults: &mut Vec<String>) {
    if !path.is_absolute() {
        faults.push(format!("{flag}: {} is not an absolute path", path.display()));
    }
}

/// Letters, digits, `-`, `_`, `.`, beginning and ending with a letter or digit: what a label value may be.
fn check_name(flag: &str, name: &str, bytes_max: usize, faults: &mut Vec<String>) {
    let is_inner = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let is_edge = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    if name.len() > bytes_max
        || !name.chars().all(is_inner)
        || !is_edge(name.chars().next())
        || !is_edge(name.chars().last())
    {
        faults.push(format!(
            "{flag}: {name:?} must have 1 to {bytes_max} letters, digits, '-', '_' or '.', and begin and end with a letter or digit"
        ));
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Command {
        #[command(flatten)]
        args: Args,
    }

    fn config(flags: &[&str]) -> Result<Config, ConfigError> {
        let words = ["driver"].iter().chain(flags);
        Config::try_from(Command::try_parse_from(words).expect("flags parse").args)
    }

    #[test]
    fn flags_become_a_config() {
        let made = config(&[
            "--endpoint=unix:///run/x.sock",
            "--node-id=n1",
            "--pool-dir=/pool",
            "--backend=loop",
            "--capacity=5Gi",
            "--node",
            "--max-volumes-per-node=7",
            "--attachable",
            "--overcommit=1.5",
            "--metrics-address=127.0.0.1:9",
            "--grace-period=3",
            "--pool=fast=/fast,backend=btrfs",
        ]);
        let socket = Endpoint::Unix("/run/x.sock".into());
        let mut expected = Config {
            services: Services::Node,
            max_volumes: Some(7),
            is_attachable: true,
            ..Config::new(socket, "n1", "/pool", BackendKind::Loop)
        };
        expected.serving.metrics_address = Some("127.0.0.1:9".parse().unwrap());
        expected.serving.grace_period = std::time::Duration::from_secs(3);
        expected.pools[0].capacity_limit_bytes = Some(5 << 30);
        expected.pools[0].overcommit = "1.5".parse().unwrap();
        let fast = PoolConfig::new("fast", "/fast", BackendKind::Btrfs);
        expected.pools.push(fast);
        assert_eq!(made.unwrap(), expected);
    }

    #[test]
    fn all_faults_are_reported_at_once() {
        let flags = [
            "--endpoint=x",
            "--node-id=-",
            "--pool-dir=p",
            "--capacity=5X",
            "--overcommit=0",
            "--pool=a",
            "--metrics-address=m",
        ];
        let error = config(&flags).unwrap_err().to_string();
        for flag in [
            "--endpoint",
            "--node-id",
            "--pool-dir",
            "--capacity",
            "--overcommit",
            "--pool",
            "--metrics-address",
        ] {
            assert!(error.contains(flag), "{flag} in {error}");
        }
    }
}
