//! `moorline driver new`: a project for a driver of one's own, which builds, passes the conformance checks and can be
//! deployed from the first minute.
//!
//! What is written is decided purely, from the name and from where the SDK is; then it is put into a directory that must
//! not be there yet, whole or not at all.

use std::{
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context as _, bail};
use thiserror::Error;

/// Each file's path in the project and its text, in which `@word@` stands for something that depends on the name.
const FILES: &[(&str, &str)] = &[
    (".gitignore", include_str!("template/gitignore.in")),
    ("Cargo.toml", include_str!("template/Cargo.toml.in")),
    ("Dockerfile", include_str!("template/Dockerfile.in")),
    ("README.md", include_str!("template/README.md.in")),
    ("src/lib.rs", include_str!("template/src/lib.rs.in")),
    ("src/main.rs", include_str!("template/src/main.rs.in")),
    (
        "tests/conformance.rs",
        include_str!("template/tests/conformance.rs.in"),
    ),
    (
        "deploy/csidriver.yaml",
        include_str!("template/deploy/csidriver.yaml.in"),
    ),
    ("deploy/node.yaml", include_str!("template/deploy/node.yaml.in")),
    ("deploy/rbac.yaml", include_str!("template/deploy/rbac.yaml.in")),
    (
        "deploy/storageclass.yaml",
        include_str!("template/deploy/storageclass.yaml.in"),
    ),
];

/// The longest crate name from which all other names follow within their own limits.
const NAME_BYTES_MAX: usize = 40;
/// CSI: a driver's name.
const DRIVER_NAME_BYTES_MAX: usize = 63;
/// Words that can't name a crate, or would name one that is in the way.
const RESERVED: &[&str] = &[
    "test", "core", "std", "alloc", "clap", "tokio", "tracing", "sha2", "tempfile", "crate", "self", "super",
    "fn", "mod", "impl", "trait", "struct", "enum", "type", "use", "pub", "ref", "mut", "match", "move",
    "loop", "for", "if", "in", "let", "as", "else", "while", "where", "async", "await", "dyn", "static",
    "const", "extern", "return", "unsafe", "true", "false", "abstract", "become", "box", "do", "final",
    "macro", "override", "priv", "typeof", "unsized", "virtual", "yield", "try", "gen", "break", "continue",
];

/// Flags of `moorline driver new`.
#[derive(Debug, clap::Args)]
pub(super) struct New {
    /// Name of the project and its program, such as acme-disk
    #[arg(value_name = "NAME")]
    name: String,
    /// Name under which Kubernetes knows the driver [default: NAME.csi.example.com]
    #[arg(long, value_name = "NAME")]
    driver_name: Option<String>,
    /// Directory of the project, which must not exist [default: NAME in the present directory]
    #[arg(long, value_name = "DIR")]
    path: Option<PathBuf>,
    /// Source tree of Moorline, for the project's dependencies [default: the one this program was built from, if it is there]
    #[arg(long, value_name = "DIR")]
    sdk: Option<PathBuf>,
}

/// What is wrong with a name.
#[derive(Debug, Error, PartialEq, Eq)]
pub(super) enum NameError {
    #[error(
        "{0:?} can't name a project: use 1 to {NAME_BYTES_MAX} lower-case letters, digits and single '-', beginning with a \
         letter and not ending with '-'"
    )]
    Form(String),
    #[error(
        "{0:?} can't name a project: the word is taken by Rust or by a library; add another one, such as {0}-driver"
    )]
    Reserved(String),
    #[error(
        "{0:?} can't name a driver: use 1 to {DRIVER_NAME_BYTES_MAX} lower-case letters, digits, '-' and '.', beginning and \
         ending with a letter or digit, such as disk.csi.example.com"
    )]
    Driver(String),
}

/// The names of a project, all in agreement.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Names {
    /// `acme-disk`
    package: String,
    /// `acme_disk`
    ident: String,
    /// `AcmeDisk`
    type_name: String,
    /// `acme-disk.csi.example.com`
    driver: String,
}

impl Names {
    pub(super) fn parse(package: &str, driver: Option<&str>) -> Result<Self, NameError> {
        let is_inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        let is_well_formed = package.len() <= NAME_BYTES_MAX
            && package.starts_with(|c: char| c.is_ascii_lowercase())
            && !package.ends_with('-')
            && !package.contains("--")
            && package.chars().all(is_inner);
        if !is_well_formed {
            return Err(NameError::Form(package.to_owned()));
        }
        if RESERVED.contains(&package) || package.starts_with("moorline-") {
            return Err(NameError::Reserved(package.to_owned()));
        }
        let driver = driver.map_or_else(|| format!("{package}.csi.example.com"), str::to_owned);
        let is_edge = |c: Option<char>| c.is_some_and(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
        if driver.len() > DRIVER_NAME_BYTES_MAX
            || !driver.chars().all(|c| is_inner(c) || c == '.')
            || driver.contains("..")
            || !is_edge(driver.chars().next())
            || !is_edge(driver.chars().last())
        {
            return Err(NameError::Driver(driver));
        }
        Ok(Names {
            package: package.to_owned(),
            ident: package.replace('-', "_"),
            type_name: package.split('-').map(capitalised).collect(),
            driver,
        })
    }
}

fn capitalised(word: &str) -> String {
    let mut letters = word.chars();
    let first = letters.next().map(|letter| letter.to_ascii_uppercase());
    first.into_iter().chain(letters).collect()
}

/// How a project finds one of our crates.
fn dependency(sdk: Option<&Path>, folder: &str) -> anyhow::Result<String> {
    let Some(sdk) = sdk else {
        return Ok(format!("{:?}", env!("CARGO_PKG_VERSION")));
    };
    let path = sdk.join(folder);
    let path = path
        .to_str()
        .with_context(|| format!("{} is not UTF-8, which Cargo.toml must be", path.display()))?;
    Ok(format!("{{ path = {path:?} }}"))
}

/// The text of all files of a project.
pub(super) fn files(names: &Names, sdk: Option<&Path>) -> anyhow::Result<Vec<(&'static str, String)>> {
    let words = [
        ("@crate@", names.package.clone()),
        ("@ident@", names.ident.clone()),
        ("@type@", names.type_name.clone()),
        ("@driver@", names.driver.clone()),
        ("@sdk@", dependency(sdk, "csi-driver/sdk")?),
        ("@mount@", dependency(sdk, "csi-driver/mount")?),
    ];
    let fill = |text: &str| {
        words
            .iter()
            .fold(text.to_owned(), |text, (word, value)| text.replace(word, value))
    };
    Ok(FILES.iter().map(|(path, text)| (*path, fill(text))).collect())
}

/// The source tree that holds the SDK, if there is one.
fn find_sdk(given: Option<PathBuf>) -> anyhow::Result<Option<PathBuf>> {
    let has_sdk = |tree: &Path| tree.join("csi-driver/sdk/Cargo.toml").is_file();
    match given {
        Some(tree) => {
            let tree = fs::canonicalize(&tree).with_context(|| format!("find --sdk {}", tree.display()))?;
            if !has_sdk(&tree) {
                bail!(
                    "--sdk {} is no source tree of Moorline: it has no csi-driver/sdk",
                    tree.display()
                );
            }
            Ok(Some(tree))
        }
        None => {
            let built_from = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2);
            Ok(built_from.filter(|tree| has_sdk(tree)).map(Path::to_owned))
        }
    }
}

/// Writes the project beside its place and then moves it there.
fn write(path: &Path, files: &[(&str, String)]) -> anyhow::Result<()> {
    if path.symlink_metadata().is_ok() {
        bail!("{} exists already; nothing was changed", path.display());
    }
    let parent = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let new = tempfile::Builder::new()
        .prefix(".moorline-new-")
        .tempdir_in(parent)
        .with_context(|| format!("make a directory in {}", parent.display()))?;
    for (name, text) in files {
        let file = new.path().join(name);
        if let Some(directory) = file.parent() {
            fs::create_dir_all(directory).with_context(|| format!("make {}", directory.display()))?;
        }
        fs::write(&file, text).with_context(|| format!("write {}", file.display()))?;
    }
    // Made private by tempfile; a project is as readable as its umask lets it be.
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(new.path(), mode).context("open the project's directory")?;
    rustix::fs::renameat_with(
        rustix::fs::CWD,
        new.path(),
        rustix::fs::CWD,
        path,
        rustix::fs::RenameFlags::NOREPLACE,
    )
    .with_context(|| format!("move the project to {}", path.display()))?;
    // What was renamed is no temporary directory any more.
    let _kept = new.keep();
    Ok(())
}

/// `moorline driver new`: writes the project and says what to do with it.
pub(super) fn run(args: New) -> anyhow::Result<ExitCode> {
    let names = Names::parse(&args.name, args.driver_name.as_deref())?;
    let sdk = find_sdk(args.sdk)?;
    let path = args.path.unwrap_or_else(|| PathBuf::from(&names.package));
    write(&path, &files(&names, sdk.as_deref())?)?;
    tell(&names, &path, sdk.is_some());
    Ok(ExitCode::SUCCESS)
}

#[expect(clippy::print_stdout, reason = "the command's answer to its user")]
fn tell(names: &Names, path: &Path, has_sdk: bool) {
    println!(
        "made {} with a CSI driver named {}; next:",
        path.display(),
        names.driver
    );
    println!("  cd {}", path.display());
    println!("  cargo test");
    if !has_sdk {
        println!("Its SDK is named by version; --sdk DIR would have named a source tree of Moorline.");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_agree_with_each_other_or_are_refused() {
        let good = [
            ("acme-disk", "acme_disk", "AcmeDisk"),
            ("x", "x", "X"),
            ("s3-v2", "s3_v2", "S3V2"),
        ];
        for (name, ident, type_name) in good {
            let names = Names::parse(name, None).expect(name);
            assert_eq!(
                (names.ident.as_str(), names.type_name.as_str()),
                (ident, type_name)
            );
            assert_eq!(names.driver, format!("{name}.csi.example.com"));
        }
        let long = "a".repeat(NAME_BYTES_MAX + 1);
        for name in [
            "", "-a", "a-", "a--b", "A", "1a", "a_b", "a/b", "..", "größe", &long,
        ] {
            assert_eq!(Names::parse(name, None), Err(NameError::Form(name.to_owned())));
        }
        for name in ["test", "async", "moorline-mount"] {
            assert_eq!(
                Names::parse(name, None),
                Err(NameError::Reserved(name.to_owned()))
            );
        }
        for driver in ["", "Disk", "a..b", "-a", "a.", "a b", &"a".repeat(64)] {
            let refused = Err(NameError::Driver(driver.to_owned()));
            assert_eq!(Names::parse("acme", Some(driver)), refused);
        }
        assert_eq!(
            Names::parse("acme", Some("disk.acme.io")).unwrap().driver,
            "disk.acme.io"
        );
    }

    #[test]
    fn no_word_is_left_open_and_manifests_are_yaml() {
        let names = Names::parse("acme-disk", None).unwrap();
        for sdk in [None, Some(Path::new("/src/moorline"))] {
            for (path, text) in files(&names, sdk).unwrap() {
                let is_word = |part: &str| !part.is_empty() && part.chars().all(|c| c.is_ascii_lowercase());
                let open = text.split('@').skip(1).step_by(2).find(|part| is_word(part));
                assert_eq!(open, None, "{path}");
                if path.ends_with(".yaml") {
                    let documents: Vec<serde_json::Value> = serde_saphyr::from_multiple(&text).expect(path);
                    assert!(
                        documents.iter().all(|document| document["kind"].is_string()),
                        "{path}"
                    );
                }
            }
        }
    }

    #[test]
    fn what_is_there_is_not_touched() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("acme");
        let names = Names::parse("acme", None).unwrap();
        write(&path, &files(&names, None).unwrap()).unwrap();
        assert!(path.join("src/lib.rs").is_file());
        fs::write(path.join("mine"), "x").unwrap();
        let error = write(&path, &files(&names, None).unwrap()).unwrap_err();
        assert!(error.to_string().contains("exists already"), "{error}");
        assert!(path.join("mine").is_file());
        // Nothing half-made stands beside it.
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }
}
