//! The command line of the driver and the checked configuration that is made of it.

use std::path::PathBuf;

use clap::{Args as ClapArgs, ValueEnum};
use moorline_driver_sdk::Endpoint;
use thiserror::Error;

use crate::DRIVER_NAME;

/// CSI allows 256 bytes; Kubernetes puts the id into a label value, which has 63.
const NODE_ID_BYTES_MAX: usize = 63;
const DRIVER_NAME_BYTES_MAX: usize = 63;

/// Flags of `moorline driver`.
#[derive(Clone, Debug, ClapArgs)]
pub struct Args {
    /// Where to listen: unix:///absolute/path or tcp://127.0.0.1:port (TCP on loopback addresses only)
    #[arg(
        long,
        value_name = "ADDRESS",
        env = "CSI_ENDPOINT",
        default_value = "unix:///run/csi/socket"
    )]
    pub endpoint: String,

    /// Name of this node: its CSI node id and the value of its topology segment
    #[arg(long, value_name = "NAME", env = "NODE_ID")]
    pub node_id: String,

    /// Directory that holds the volumes, their records and their data; made if missing
    #[arg(long, value_name = "DIR", default_value = "/var/lib/moorline/pool")]
    pub pool_dir: PathBuf,

    /// How new volumes are stored; existing ones keep the backend they were made with
    #[arg(long, value_enum, default_value_t = BackendKind::Dir)]
    pub backend: BackendKind,

    /// Name under which the driver is registered
    #[arg(long, value_name = "NAME", default_value = DRIVER_NAME)]
    pub driver_name: String,

    /// Sum of all volume sizes that may be reserved, such as 500Gi [default: size of the pool's filesystem]
    #[arg(long, value_name = "SIZE")]
    pub capacity: Option<String>,

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
}

/// How a volume is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum BackendKind {
    /// A directory per volume; capacity is accounted, not enforced
    Dir,
    /// A sparse file per volume, used as block device or with ext4 or xfs on it; capacity is enforced
    Loop,
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
    /// Where to listen.
    pub endpoint: Endpoint,
    /// The CSI node id and topology value.
    pub node_id: String,
    /// Where the volumes are.
    pub pool_dir: PathBuf,
    /// How new volumes are stored.
    pub backend: BackendKind,
    /// The name under which the driver is registered.
    pub driver_name: String,
    /// Sum of all sizes that may be reserved; `None`: as much as the pool's filesystem has.
    pub capacity_limit_bytes: Option<u64>,
    /// Which services to offer.
    pub services: Services,
    /// Below which directory staging and target paths must be.
    pub target_root: PathBuf,
    /// How many volumes the node takes; `None`: no limit.
    pub max_volumes: Option<u64>,
}

impl Config {
    /// A driver with both services and the defaults of [`Args`].
    pub fn new(
        endpoint: Endpoint,
        node_id: impl Into<String>,
        pool_dir: impl Into<PathBuf>,
        backend: BackendKind,
    ) -> Self {
        Config {
            endpoint,
            node_id: node_id.into(),
            pool_dir: pool_dir.into(),
            backend,
            driver_name: DRIVER_NAME.to_owned(),
            capacity_limit_bytes: None,
            services: Services::Both,
            target_root: PathBuf::from("/"),
            max_volumes: None,
        }
    }
}

/// All faults of a command line.
#[derive(Debug, Error)]
#[error("{}", faults.join("; "))]
pub struct ConfigError {
    faults: Vec<String>,
}

impl TryFrom<Args> for Config {
    type Error = ConfigError;

    fn try_from(args: Args) -> Result<Self, ConfigError> {
        let mut faults = Vec::new();
        let endpoint = args
            .endpoint
            .parse::<Endpoint>()
            .map_err(|error| faults.push(format!("--endpoint: {error}")));
        let capacity = args.capacity.as_deref().map(parse_size).transpose();
        let capacity = capacity.map_err(|error| faults.push(format!("--capacity: {error}")));
        check_name("--node-id", &args.node_id, NODE_ID_BYTES_MAX, &mut faults);
        check_name(
            "--driver-name",
            &args.driver_name,
            DRIVER_NAME_BYTES_MAX,
            &mut faults,
        );
        for (flag, path) in [
            ("--pool-dir", &args.pool_dir),
            ("--target-root", &args.target_root),
        ] {
            if !path.is_absolute() {
                faults.push(format!("{flag}: {} is not an absolute path", path.display()));
            }
        }
        let services = match (args.controller, args.node) {
            (true, false) => Services::Controller,
            (false, true) => Services::Node,
            (true, true) | (false, false) => Services::Both,
        };
        match (endpoint, capacity) {
            (Ok(endpoint), Ok(capacity_limit_bytes)) if faults.is_empty() => Ok(Config {
                endpoint,
                node_id: args.node_id,
                pool_dir: args.pool_dir,
                backend: args.backend,
                driver_name: args.driver_name,
                capacity_limit_bytes,
                services,
                target_root: args.target_root,
                max_volumes: (args.max_volumes_per_node > 0).then_some(args.max_volumes_per_node),
            }),
            _ => Err(ConfigError { faults }),
        }
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

const UNITS: [(&str, u64); 10] = [
    ("Ki", 1 << 10),
    ("Mi", 1 << 20),
    ("Gi", 1 << 30),
    ("Ti", 1 << 40),
    ("Pi", 1 << 50),
    ("k", 1_000),
    ("M", 1_000_000),
    ("G", 1_000_000_000),
    ("T", 1_000_000_000_000),
    ("", 1),
];

/// A whole number with an optional unit, as Kubernetes writes sizes.
fn parse_size(text: &str) -> Result<u64, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = &text[digits.len()..];
    let factor = UNITS
        .iter()
        .find(|(name, _)| *name == unit)
        .map(|(_, factor)| *factor);
    let bytes = digits
        .parse::<u64>()
        .ok()
        .zip(factor)
        .and_then(|(count, factor)| count.checked_mul(factor));
    bytes
        .filter(|bytes| i64::try_from(*bytes).is_ok())
        .ok_or_else(|| format!("{text:?} is not a size such as 500Gi"))
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
        ]);
        let expected = Config {
            capacity_limit_bytes: Some(5 << 30),
            services: Services::Node,
            max_volumes: Some(7),
            ..Config::new(
                Endpoint::Unix("/run/x.sock".into()),
                "n1",
                "/pool",
                BackendKind::Loop,
            )
        };
        assert_eq!(made.unwrap(), expected);
    }

    #[test]
    fn all_faults_are_reported_at_once() {
        let error = config(&["--endpoint=x", "--node-id=-", "--pool-dir=p", "--capacity=5X"])
            .unwrap_err()
            .to_string();
        for flag in ["--endpoint", "--node-id", "--pool-dir", "--capacity"] {
            assert!(error.contains(flag), "{flag} in {error}");
        }
    }

    #[test]
    fn sizes_have_units() {
        let cases = [
            ("0", Some(0)),
            ("17", Some(17)),
            ("3Ki", Some(3072)),
            ("2k", Some(2000)),
            ("1Ti", Some(1 << 40)),
            ("", None),
            ("Gi", None),
            ("1.5Gi", None),
            ("-1", None),
            ("9000000000Gi", None),
        ];
        for (text, expected) in cases {
            assert_eq!(parse_size(text).ok(), expected, "{text:?}");
        }
    }
}
