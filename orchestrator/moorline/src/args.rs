//! The command line: flags and their defaults, as text and numbers. What they mean is checked where they are used.

use std::{ffi::OsString, net::SocketAddr, path::PathBuf};

use clap::{Parser, Subcommand, ValueEnum};

/// A storage-first Kubernetes in one process: real volumes for real pods.
#[derive(Debug, Parser)]
#[command(name = "moorline", version, propagate_version = true)]
pub struct Args {
    /// How log lines are written, to standard error.
    #[arg(long, global = true, value_enum, default_value = "text")]
    pub log_format: LogFormat,
    /// Log more: -v decisions and their reasons, -vv payloads. RUST_LOG overrides it.
    #[arg(long, short, global = true, action = clap::ArgAction::Count)]
    pub verbose: u8,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The form of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// Lines for people.
    Text,
    /// One JSON object a line.
    Json,
}

/// What `moorline` can do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Start a cluster and keep it running in the foreground.
    Up(Up),
    /// Show the life of a volume in a throw-away cluster: claim, pod, data, growth, deletion.
    Demo(Demo),
    /// Stop what a cluster left running in its state directory: containers, mounts, loop devices.
    Down(Down),
    /// Say why a claim, volume, pod, attachment or snapshot gets no further, who has to act, and what to do.
    Diagnose(crate::diagnose::Args),
    /// Container images in the store of a state directory.
    Image(Image),
    /// Run the reference CSI driver alone, under any Kubernetes; or begin a driver of your own.
    Driver(Box<crate::driver::Args>),
    /// Run all sidecars of one CSI driver in one process, for any Kubernetes.
    Sidecars(Box<crate::sidecars::Args>),
    /// Run one sidecar with upstream's flags, as a link of its name to this program does: sidecar csi-provisioner --help.
    Sidecar(Words),
    /// Run the volume controllers alone, for any Kubernetes, with kube-controller-manager's flags: controllers --help.
    #[command(disable_help_flag = true)]
    Controllers(Words),
}

/// What another program's flags are; they are read by its own table.
#[derive(Debug, clap::Args)]
pub struct Words {
    /// Handed on as they are.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "WORDS")]
    pub words: Vec<OsString>,
}

impl Command {
    /// The least severe level that is logged when nothing else is asked for.
    pub(crate) fn default_level(&self) -> &'static str {
        match self {
            Self::Up(_) | Self::Driver(_) | Self::Sidecars(_) | Self::Sidecar(_) | Self::Controllers(_) => {
                "info"
            }
            // These answer on standard output; only what a person must act on belongs beside that.
            Self::Demo(_) => "error",
            Self::Down(_) | Self::Image(_) | Self::Diagnose(_) => "warn",
        }
    }
}

/// How the reference driver keeps volumes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum DriverBackend {
    /// A directory for each volume. Fast; sizes are accounted, not enforced.
    Dir,
    /// A sparse file for each volume, as a filesystem or block device of exactly its size.
    Loop,
    /// A btrfs subvolume for each volume; the state directory must be on btrfs.
    Btrfs,
    /// No storage at all: every call succeeds at once. For benchmarks.
    #[value(hide = true)]
    Null,
}

/// Where a cluster keeps everything.
#[derive(Debug, Clone, clap::Args)]
pub struct StateDirArg {
    /// Directory of the cluster's state. Default: /var/lib/moorline for root, else $XDG_STATE_HOME/moorline or
    /// ~/.local/state/moorline.
    #[arg(long, value_name = "DIR", env = "MOORLINE_STATE_DIR", global = true)]
    pub state_dir: Option<PathBuf>,
}

/// Flags of `moorline up`.
#[derive(Debug, clap::Args)]
pub struct Up {
    /// Where everything is kept.
    #[command(flatten)]
    pub state: StateDirArg,
    /// Address of the Kubernetes API, over TLS. Port 0 takes a free one.
    #[arg(long, value_name = "ADDR:PORT", default_value = "127.0.0.1:6443")]
    pub listen: SocketAddr,
    /// Name of this node. Default: the host's name.
    #[arg(long, value_name = "NAME")]
    pub node_name: Option<String>,
    /// How the reference driver keeps volumes.
    #[arg(long, value_enum, value_name = "BACKEND", default_value = "dir")]
    pub driver_backend: DriverBackend,
    /// Run without the reference driver and its sidecars, for a driver of your own.
    #[arg(long)]
    pub no_driver: bool,
    /// Run without the node agent: API server, controllers and scheduler only. Needs no root.
    #[arg(long)]
    pub no_kubelet: bool,
    /// Run without the volume controllers, for `moorline controllers` or others in their place.
    #[arg(long)]
    pub no_controllers: bool,
    /// Don't install the snapshot kinds (VolumeSnapshot, VolumeGroupSnapshot and their kin) and snapshot classes of the
    /// reference driver. Snapshots are served all the same once somebody else has installed the kinds.
    #[arg(long)]
    pub no_snapshots: bool,
    /// Offer the image `moorline.local/host`: the machine's own root filesystem, read-only below. It shows the machine's
    /// files to pods.
    #[arg(long)]
    pub host_image: bool,
    /// How long older states of objects can be read, by lists in pages and watches that go on, in seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 300, value_parser = clap::value_parser!(u64).range(1..))]
    pub compaction_interval: u64,
    /// How long running work may take to finish after SIGTERM, in seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 20)]
    pub shutdown_grace_period: u64,
}

/// The form of the demo's answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum OutputFormat {
    /// A timeline for people.
    Text,
    /// One JSON document at the end.
    Json,
}

/// Flags of `moorline demo`.
#[derive(Debug, clap::Args)]
pub struct Demo {
    /// The form of the answer.
    #[arg(long, short, value_enum, default_value = "text")]
    pub output: OutputFormat,
    /// How the reference driver keeps volumes. `loop` gives real filesystems that really grow.
    #[arg(long, value_enum, value_name = "BACKEND", default_value = "loop")]
    pub driver_backend: DriverBackend,
    /// How long any one step may take, in seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    pub step_timeout: u64,
}

/// Flags of `moorline down`.
#[derive(Debug, clap::Args)]
pub struct Down {
    /// Where everything is kept.
    #[command(flatten)]
    pub state: StateDirArg,
    /// Delete the state directory too: objects, volumes, data, certificates.
    #[arg(long)]
    pub purge: bool,
}

/// `moorline image ...`.
#[derive(Debug, clap::Args)]
pub struct Image {
    /// Where everything is kept.
    #[command(flatten)]
    pub state: StateDirArg,
    /// What to do with images.
    #[command(subcommand)]
    pub command: ImageCommand,
}

/// What can be done with images.
#[derive(Debug, Subcommand)]
pub enum ImageCommand {
    /// Load a docker-archive or oci-archive (a tar file, plain or gzip).
    Load {
        /// The archive.
        file: PathBuf,
    },
    /// List images.
    Ls,
    /// Remove an image that no container uses.
    Rm {
        /// Its name.
        image: String,
    },
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Args::command().debug_assert();
    }

    #[test]
    fn flags_have_the_documented_defaults() {
        let Command::Up(up) = Args::parse_from(["moorline", "up"]).command else {
            panic!("not up")
        };
        assert_eq!(up.listen.to_string(), "127.0.0.1:6443");
        assert_eq!(up.driver_backend, DriverBackend::Dir);
        assert!(!up.no_driver && !up.host_image && !up.no_kubelet && !up.no_snapshots);
    }

    #[test]
    fn the_driver_takes_its_flags_or_a_command() {
        let parse = |words: &[&str]| Args::try_parse_from(["moorline", "driver"].iter().chain(words));
        let driver = |words: &[&str]| match parse(words).map(|args| args.command) {
            Ok(Command::Driver(args)) => *args,
            other => panic!("{words:?}: {:?}", other.map(|_| ())),
        };
        let serving = driver(&["--node-id=n1", "--endpoint=unix:///run/csi.sock", "--node"]);
        let flags = serving.serve().expect("flags of the driver");
        assert_eq!((flags.node_id.as_str(), flags.node), ("n1", true));
        assert!(driver(&["check", "--pool-dir=/pool"]).serve().is_none());
        let help = parse(&["--help"]).map(|_| ()).unwrap_err().to_string();
        assert!(
            help.contains("--pool-dir") && help.contains("  check  "),
            "{help}"
        );
        assert!(parse(&["--node"]).is_err(), "--node-id is missing");
        assert!(parse(&["--node-id=n1", "check"]).is_err(), "both");
    }
}
