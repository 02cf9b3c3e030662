//! What an image says about the process it is meant to run, and how that merges with what the pod says.

use std::path::PathBuf;

use serde::{Deserialize, Deserializer, Serialize};

use crate::container::ContainerConfig;

/// The `config` object of an OCI image configuration, as far as it matters to a process.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct ImageConfig {
    #[serde(deserialize_with = "null_is_default")]
    pub(crate) entrypoint: Vec<String>,
    #[serde(deserialize_with = "null_is_default")]
    pub(crate) cmd: Vec<String>,
    #[serde(deserialize_with = "null_is_default")]
    pub(crate) env: Vec<String>,
    #[serde(deserialize_with = "null_is_default")]
    pub(crate) working_dir: String,
    #[serde(deserialize_with = "null_is_default")]
    pub(crate) user: String,
    #[serde(deserialize_with = "null_is_default")]
    pub(crate) stop_signal: String,
}

/// Docker writes `null` where it means "none".
fn null_is_default<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(
    value: D,
) -> Result<T, D::Error> {
    Ok(Option::deserialize(value)?.unwrap_or_default())
}

const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The command line: the pod's `command` replaces the entrypoint and with it the image's arguments; the pod's `args`
/// replace the image's arguments. `None` when nothing is left to run.
pub(crate) fn arguments(image: &ImageConfig, config: &ContainerConfig) -> Option<Vec<String>> {
    let (head, tail) = match (config.command.is_empty(), config.args.is_empty()) {
        (false, _) => (&config.command, &config.args),
        (true, false) => (&image.entrypoint, &config.args),
        (true, true) => (&image.entrypoint, &image.cmd),
    };
    let all: Vec<String> = head.iter().chain(tail).cloned().collect();
    (!all.is_empty()).then_some(all)
}

/// The environment: the image's, then the host name, then the pod's; a later value replaces an earlier one in its
/// place. `PATH` is always set, because the executable is looked up in it.
pub(crate) fn environment(image: &ImageConfig, config: &ContainerConfig, hostname: &str) -> Vec<String> {
    let mut merged: Vec<(String, String)> = Vec::new();
    let mut set = |name: &str, value: &str| match merged.iter_mut().find(|(known, _)| known == name) {
        Some(entry) => entry.1 = value.to_owned(),
        None => merged.push((name.to_owned(), value.to_owned())),
    };
    set("PATH", DEFAULT_PATH);
    for entry in &image.env {
        let (name, value) = entry.split_once('=').unwrap_or((entry, ""));
        set(name, value);
    }
    set("HOSTNAME", hostname);
    if config.tty {
        set("TERM", "xterm");
    }
    for (name, value) in &config.env {
        set(name, value);
    }
    merged
        .into_iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect()
}

/// The working directory: the pod's, else the image's, else the root.
pub(crate) fn working_dir(image: &ImageConfig, config: &ContainerConfig) -> PathBuf {
    match &config.working_dir {
        Some(dir) if !dir.as_os_str().is_empty() => dir.clone(),
        Some(_) | None if image.working_dir.is_empty() => PathBuf::from("/"),
        Some(_) | None => PathBuf::from(&image.working_dir),
    }
}

/// The signal that asks a container to end, by name (`SIGINT`, `INT`) or number; `SIGTERM` when the image names none
/// or one that doesn't exist.
pub(crate) fn stop_signal(image: &ImageConfig) -> i32 {
    const TERM: i32 = 15;
    const NAMES: [(&str, i32); 20] = [
        ("HUP", 1),
        ("INT", 2),
        ("QUIT", 3),
        ("ABRT", 6),
        ("KILL", 9),
        ("USR1", 10),
        ("SEGV", 11),
        ("USR2", 12),
        ("PIPE", 13),
        ("ALRM", 14),
        ("TERM", 15),
        ("CHLD", 17),
        ("CONT", 18),
        ("STOP", 19),
        ("TSTP", 20),
        ("TTIN", 21),
        ("TTOU", 22),
        ("WINCH", 28),
        ("IO", 29),
        ("PWR", 30),
    ];
    let given = image.stop_signal.trim().to_ascii_uppercase();
    if let Ok(number) = given.parse::<i32>() {
        return if (1..=64).contains(&number) { number } else { TERM };
    }
    let name = given.strip_prefix("SIG").unwrap_or(&given);
    if let Some(offset) = name
        .strip_prefix("RTMIN+")
        .and_then(|offset| offset.parse::<i32>().ok())
    {
        // 34 is what the C libraries leave as the first real-time signal.
        return if (0..=30).contains(&offset) {
            34 + offset
        } else {
            TERM
        };
    }
    NAMES
        .iter()
        .find(|(known, _)| *known == name)
        .map_or(TERM, |(_, number)| *number)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn command_and_arguments_follow_the_cri_table() {
        // (entrypoint, cmd, command, args) -> arguments
        let cases = [
            ("image alone", "/ep", "cmd", "", "", "/ep cmd"),
            ("args replace cmd", "/ep", "cmd", "", "x y", "/ep x y"),
            ("command drops both", "/ep", "cmd", "run", "", "run"),
            ("command with args", "/ep", "cmd", "run", "x", "run x"),
            ("cmd without entrypoint", "", "sh", "", "", "sh"),
            ("args without entrypoint", "", "sh", "", "ls", "ls"),
            ("nothing at all", "", "", "", "", ""),
        ];
        for (name, entrypoint, cmd, command, args, expected) in cases {
            let image = ImageConfig {
                entrypoint: words(entrypoint),
                cmd: words(cmd),
                ..ImageConfig::default()
            };
            let config = ContainerConfig {
                command: words(command),
                args: words(args),
                ..ContainerConfig::default()
            };
            assert_eq!(
                arguments(&image, &config).unwrap_or_default(),
                words(expected),
                "{name}"
            );
        }
    }

    #[test]
    fn later_variables_win_in_place() {
        let image = ImageConfig {
            env: words("A=1 PATH=/x EMPTY"),
            ..ImageConfig::default()
        };
        let config = ContainerConfig {
            env: vec![("A".into(), "2".into()), ("B".into(), "x=y".into())],
            ..ContainerConfig::default()
        };
        assert_eq!(
            environment(&image, &config, "pod"),
            words("PATH=/x A=2 EMPTY= HOSTNAME=pod B=x=y")
        );
    }

    #[test]
    fn path_and_terminal_are_set_when_missing() {
        let config = ContainerConfig {
            tty: true,
            ..ContainerConfig::default()
        };
        let env = environment(&ImageConfig::default(), &config, "h");
        assert_eq!(
            env,
            [
                format!("PATH={DEFAULT_PATH}"),
                "HOSTNAME=h".into(),
                "TERM=xterm".into()
            ]
        );
    }

    #[test]
    fn working_dir_prefers_the_pod() {
        let image = |dir: &str| ImageConfig {
            working_dir: dir.into(),
            ..ImageConfig::default()
        };
        let config = |dir: Option<&str>| ContainerConfig {
            working_dir: dir.map(PathBuf::from),
            ..Default::default()
        };
        assert_eq!(
            working_dir(&image("/img"), &config(Some("/pod"))),
            PathBuf::from("/pod")
        );
        assert_eq!(working_dir(&image("/img"), &config(None)), PathBuf::from("/img"));
        assert_eq!(working_dir(&image(""), &config(Some(""))), PathBuf::from("/"));
    }

    #[test]
    fn stop_signals_by_name_and_number() {
        let cases = [
            ("", 15),
            ("SIGINT", 2),
            ("quit", 3),
            ("9", 9),
            ("SIGRTMIN+3", 37),
            ("SIGRTMIN+99", 15),
            ("SIGNONSENSE", 15),
            ("0", 15),
            ("65", 15),
        ];
        for (given, number) in cases {
            let image = ImageConfig {
                stop_signal: given.into(),
                ..ImageConfig::default()
            };
            assert_eq!(stop_signal(&image), number, "{given}");
        }
    }

    #[test]
    fn nulls_of_docker_mean_none() {
        let parsed: ImageConfig =
            serde_json::from_str(r#"{"Entrypoint":null,"Cmd":["sh"],"Env":null,"User":null,"Labels":{}}"#)
                .unwrap();
        assert_eq!(
            parsed,
            ImageConfig {
                cmd: words("sh"),
                ..ImageConfig::default()
            }
        );
    }
}
