//! Flags that all drivers have, and what they mean.

use std::{ffi::OsString, net::SocketAddr, path::PathBuf, time::Duration};

use clap::{Args as _, Command, FromArgMatches as _, error::ErrorKind};

use crate::{DriverInfo, Endpoint, TlsFiles};

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

#[derive(Debug, clap::Args)]
struct ServeArgs {
    /// Where to listen: unix:///path, or tcp://ADDRESS:PORT. Other machines need TLS with --tls-client-ca
    #[arg(long, env = "CSI_ENDPOINT", value_name = "ENDPOINT")]
    endpoint: String,
    /// Certificate of this driver, PEM; read once at the start. TCP endpoints only
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// Key of the certificate, PEM
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    /// Authority that signs callers' certificates, PEM; without it callers show none
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_client_ca: Option<PathBuf>,
    /// Serves /metrics and /healthz over HTTP here, such as 127.0.0.1:9808; off without it
    #[arg(long, value_name = "ADDRESS:PORT")]
    metrics_address: Option<String>,
    /// Seconds that running operations may take after SIGTERM
    #[arg(long, value_name = "SECONDS", default_value_t = 25)]
    grace_period: u32,
    /// How log lines look
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    log_format: LogFormat,
    /// More log: -v decisions and refused calls, -vv every request without its secrets. RUST_LOG overrides
    #[arg(short, long, action = clap::ArgAction::Count)]
    verbose: u8,
}

/// What the flags mean.
#[derive(Debug)]
pub(super) struct Config {
    pub(super) endpoint: Endpoint,
    pub(super) tls: Option<TlsFiles>,
    pub(super) metrics_address: Option<SocketAddr>,
    pub(super) grace_period: Duration,
    pub(super) log_format: LogFormat,
    pub(super) log_filter: &'static str,
}

/// A command line that makes sense.
#[derive(Debug)]
pub(super) struct Parsed<A> {
    pub(super) config: Config,
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
    let mut command = A::augment_args(ServeArgs::augment_args(command));
    let matches = command.try_get_matches_from_mut(line)?;
    let own = A::from_arg_matches(&matches).map_err(|error| error.format(&mut command))?;
    let args = ServeArgs::from_arg_matches(&matches).map_err(|error| error.format(&mut command))?;
    match check(args) {
        Ok(config) => Ok(Parsed { config, own }),
        Err(faults) => Err(command.error(ErrorKind::ValueValidation, faults.join("\n"))),
    }
}

/// All faults at once.
fn check(args: ServeArgs) -> Result<Config, Vec<String>> {
    let mut faults = Vec::new();
    let endpoint = args.endpoint.parse::<Endpoint>();
    let endpoint = endpoint
        .map_err(|error| faults.push(format!("--endpoint: {error}")))
        .ok();
    let metrics_address = args.metrics_address.and_then(|text| {
        text.parse()
            .map_err(|_| faults.push(format!("--metrics-address: {text:?} is not ADDRESS:PORT")))
            .ok()
    });
    let tls = args.tls_cert.zip(args.tls_key).map(|(cert, key)| TlsFiles {
        cert,
        key,
        client_ca: args.tls_client_ca,
    });
    if let Some(endpoint) = &endpoint
        && let Err(error) = endpoint.check(tls.as_ref().map(|files| files.client_ca.is_some()))
    {
        faults.push(format!("--endpoint: {error}"));
    }
    match endpoint {
        Some(endpoint) if faults.is_empty() => Ok(Config {
            endpoint,
            tls,
            metrics_address,
            grace_period: Duration::from_secs(args.grace_period.into()),
            log_format: args.log_format,
            log_filter: match args.verbose {
                0 => "info",
                1 => "debug",
                _ => "trace,h2=info,hyper=info,tower=info",
            },
        }),
        _ => Err(faults),
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
        let parsed = parse_words(&["--endpoint", "unix:///run/csi.sock"])
            .unwrap()
            .config;
        assert_eq!(parsed.endpoint, Endpoint::Unix("/run/csi.sock".into()));
        assert_eq!((parsed.tls, parsed.metrics_address), (None, None));
        assert_eq!((parsed.log_format, parsed.log_filter), (LogFormat::Text, "info"));
        assert_eq!(parsed.grace_period, Duration::from_secs(25));

        let words = "--endpoint tcp://0.0.0.0:10000 --tls-cert c --tls-key k --tls-client-ca a -vv --log-format json \
                     --metrics-address [::1]:9 --grace-period 0";
        let parsed = parse_words(&words.split_whitespace().collect::<Vec<_>>())
            .unwrap()
            .config;
        assert_eq!(parsed.tls.unwrap().client_ca, Some("a".into()));
        assert_eq!(parsed.metrics_address, Some("[::1]:9".parse().unwrap()));
        assert_eq!(parsed.log_format, LogFormat::Json);
        assert!(parsed.log_filter.starts_with("trace"));
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
