//! Flags that all drivers have, and what they mean.

use std::{ffi::OsString, net::SocketAddr, path::PathBuf, time::Duration};

use clap::{Args as _, Command, FromArgMatches as _, error::ErrorKind};

use super::run::set_up_logging;
use crate::{DriverInfo, Endpoint, GRACE_PERIOD_DEFAULT, TlsFiles};

/// Nothing to say beyond what all drivers have.
#[derive(Clone, Copy, Debug, clap::Args)]
pub struct NoArgs {}

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object on a line.
    Json,
}

/// How a driver is served; `--endpoint` is not among these flags, because its default is each program's own.
#[derive(Clone, Debug, clap::Args)]
pub struct ServingArgs {
    /// Certificate of this driver, PEM; read once at the start. TCP endpoints only
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    pub tls_cert: Option<PathBuf>,
    /// Key of the certificate, PEM
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    pub tls_key: Option<PathBuf>,
    /// Authority that signs callers' certificates, PEM; without it callers show none
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    pub tls_client_ca: Option<PathBuf>,
    /// Serves /metrics and /healthz over HTTP here, such as 127.0.0.1:9808; off without it
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub metrics_address: Option<String>,
    /// Seconds that running operations may take after SIGTERM
    #[arg(long, value_name = "SECONDS", default_value_t = 25)]
    pub grace_period: u32,
    /// After calls one after the other, look out for the next one for so long before sleeping; 0 is off. Default: 50
    /// where one thread serves and the machine has more than one processor, else off
    #[arg(long, value_name = "MICROSECONDS")]
    pub busy_poll: Option<u32>,
}

/// How a driver is served, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Serving {
    /// Where calls come in.
    pub endpoint: Endpoint,
    /// How they are protected; TCP only.
    pub tls: Option<TlsFiles>,
    /// Where `/metrics` and `/healthz` are, if anywhere.
    pub metrics_address: Option<SocketAddr>,
    /// How long running operations may take once the driver is to stop.
    pub grace_period: Duration,
    /// How long the thread stays awake after a call; by the runtime and the machine if not given.
    pub busy_poll: Option<Duration>,
}

impl Serving {
    /// Served there as without any flags.
    pub fn new(endpoint: Endpoint) -> Self {
        Serving {
            endpoint,
            tls: None,
            metrics_address: None,
            grace_period: GRACE_PERIOD_DEFAULT,
            busy_poll: None,
        }
    }
}

impl ServingArgs {
    /// What the flags mean, together with the value of `--endpoint`.
    ///
    /// # Errors
    /// All faults at once, each beginning with its flag.
    pub fn checked(self, endpoint: &str) -> Result<Serving, Vec<String>> {
        let mut faults = Vec::new();
        let endpoint = endpoint.parse::<Endpoint>();
        let endpoint = endpoint
            .map_err(|error| faults.push(format!("--endpoint: {error}")))
            .ok();
        let metrics_address = self.metrics_address.and_then(|text| {
            text.parse()
                .map_err(|_| faults.push(format!("--metrics-address: {text:?} is not ADDRESS:PORT")))
                .ok()
        });
        let tls = self.tls_cert.zip(self.tls_key).map(|(cert, key)| TlsFiles {
            cert,
            key,
            client_ca: self.tls_client_ca,
        });
        if let Some(endpoint) = &endpoint
            && let Err(error) = endpoint.check(tls.as_ref().map(|files| files.client_ca.is_some()))
        {
            faults.push(format!("--endpoint: {error}"));
        }
        match endpoint {
            Some(endpoint) if faults.is_empty() => Ok(Serving {
                endpoint,
                tls,
                metrics_address,
                grace_period: Duration::from_secs(self.grace_period.into()),
                busy_poll: self.busy_poll.map(|span| Duration::from_micros(span.into())),
            }),
            _ => Err(faults),
        }
    }
}

/// What is logged and how, for programs with a command line of their own.
#[derive(Clone, Debug, clap::Args)]
pub struct LogArgs {
    /// How log lines look
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    log_format: LogFormat,
    /// More log: -v decisions and refused calls, -vv every request without its secrets. RUST_LOG overrides
    #[arg(short, long, action = clap::ArgAction::Count)]
    verbose: u8,
}

impl LogArgs {
    /// Sends log lines to standard error; a second call, or a subscriber of the program's own, changes nothing.
    pub fn set_up(&self) {
        set_up_logging(&self.logging());
    }

    fn logging(&self) -> Logging {
        Logging {
            format: self.log_format,
            filter: match self.verbose {
                0 => "info",
                1 => "debug",
                _ => "trace,h2=info,hyper=info,tower=info",
            },
        }
    }
}

#[derive(Debug, clap::Args)]
struct MainArgs {
    /// Where to listen: unix:///path, or tcp://ADDRESS:PORT. Other machines need TLS with --tls-client-ca
    #[arg(long, env = "CSI_ENDPOINT", value_name = "ENDPOINT")]
    endpoint: String,
    #[command(flatten)]
    serving: ServingArgs,
    #[command(flatten)]
    log: LogArgs,
}

/// What is logged, and how.
#[derive(Debug)]
pub(super) struct Logging {
    pub(super) format: LogFormat,
    pub(super) filter: &'static str,
}

/// A command line that makes sense.
#[derive(Debug)]
pub(super) struct Parsed<A> {
    pub(super) serving: Serving,
    pub(super) logging: Logging,
    pub(super) own: A,
}

/// Reads a command line; what is wrong with it, or help and version, is the error.
pub(super) fn parse<A: clap::Args>(
    info: &DriverInfo,
    line: impl IntoIterator<Item = OsString>,
) -> Result<Parsed<A>, clap::Error> {
    // clap keeps its words for the life of the process, and a process has one command line.
    let (name, version): (&str, &str) = (info.name.clone().leak(), info.vendor_version.clone().leak());
    let command = Command::new(name).version(version);
    let mut command = A::augment_args(MainArgs::augment_args(command));
    let matches = command.try_get_matches_from_mut(line)?;
    let own = A::from_arg_matches(&matches).map_err(|error| error.format(&mut command))?;
    let args = MainArgs::from_arg_matches(&matches).map_err(|error| error.format(&mut command))?;
    let logging = args.log.logging();
    match args.serving.checked(&args.endpoint) {
        Ok(serving) => Ok(Parsed {
            serving,
            logging,
            own,
        }),
        Err(faults) => Err(command.error(ErrorKind::ValueValidation, faults.join("\n"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse_words(words: &[&str]) -> Result<Parsed<NoArgs>, clap::Error> {
        let line = std::iter::once("driver").chain(words.iter().copied());
        parse(
            &DriverInfo::new("a.example.com", "1.2.3"),
            line.map(OsString::from),
        )
    }

    #[test]
    fn command_lines_that_make_sense() {
        let parsed = parse_words(&["--endpoint", "unix:///run/csi.sock"]).unwrap();
        assert_eq!(
            parsed.serving,
            Serving::new(Endpoint::Unix("/run/csi.sock".into()))
        );
        assert_eq!(parsed.logging.format, LogFormat::Text);
        assert_eq!(parsed.logging.filter, "info");

        let words = "--endpoint tcp://0.0.0.0:10000 --tls-cert c --tls-key k --tls-client-ca a -vv --log-format json \
                     --metrics-address [::1]:9 --grace-period 0 --busy-poll 20";
        let parsed = parse_words(&words.split_whitespace().collect::<Vec<_>>()).unwrap();
        let expected = Serving {
            tls: Some(TlsFiles {
                cert: "c".into(),
                key: "k".into(),
                client_ca: Some("a".into()),
            }),
            metrics_address: Some("[::1]:9".parse().unwrap()),
            grace_period: Duration::ZERO,
            busy_poll: Some(Duration::from_micros(20)),
            ..Serving::new("tcp://0.0.0.0:10000".parse().unwrap())
        };
        assert_eq!(parsed.serving, expected);
        assert_eq!(parsed.logging.format, LogFormat::Json);
        assert!(parsed.logging.filter.starts_with("trace"));
    }

    #[test]
    fn command_lines_that_do_not() {
        let cases: [(&str, &str, &[&str]); 8] = [
            ("no endpoint", "", &["--endpoint"]),
            (
                "two faults at once",
                "--endpoint x --metrics-address y",
                &["endpoint \"x\" is neither", "\"y\" is not ADDRESS:PORT"],
            ),
            (
                "half of TLS",
                "--endpoint tcp://127.0.0.1:1 --tls-cert c",
                &["--tls-key"],
            ),
            (
                "an authority alone",
                "--endpoint tcp://127.0.0.1:1 --tls-client-ca c",
                &["--tls-cert"],
            ),
            (
                "TLS over a file",
                "--endpoint /s --tls-cert c --tls-key k",
                &["TLS is for tcp:// endpoints"],
            ),
            (
                "open to the world",
                "--endpoint tcp://10.0.0.1:1",
                &["can be reached from other machines"],
            ),
            (
                "anybody may call",
                "--endpoint tcp://10.0.0.1:1 --tls-cert c --tls-key k",
                &["can be reached from other machines"],
            ),
            (
                "a strange format",
                "--endpoint /s --log-format xml",
                &["[possible values: text, json]"],
            ),
        ];
        for (name, words, expected) in cases {
            let error = parse_words(&words.split_whitespace().collect::<Vec<_>>())
                .expect_err(name)
                .to_string();
            for text in expected {
                assert!(error.contains(text), "{name}: {error}");
            }
        }
    }

    #[test]
    fn the_version_is_the_drivers() {
        let answer = parse_words(&["--version"]).unwrap_err();
        assert_eq!(answer.to_string(), "a.example.com 1.2.3\n");
        assert_eq!(answer.exit_code(), 0);
    }
}
