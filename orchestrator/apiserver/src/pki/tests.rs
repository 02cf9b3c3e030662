//! What is made, kept, renewed and refused.

use std::os::unix::fs::PermissionsExt;

use super::*;

fn now() -> Timestamp {
    "2026-03-01T12:00:00Z".parse().unwrap()
}

fn open(dir: &Path) -> Result<Pki, PkiError> {
    Pki::open(dir, "moorline", &Names::default(), now())
}

#[test]
fn second_start_keeps_everything() {
    let dir = tempfile::tempdir().unwrap();
    let first = open(dir.path()).unwrap();
    let second = open(dir.path()).unwrap();
    assert_eq!(first.ca_pem(), second.ca_pem());
    assert_eq!(first.server.certificate_pem, second.server.certificate_pem);
    assert_eq!(first.admin.key_pem, second.admin.key_pem);
    assert_eq!(first.service_account_key_pem(), second.service_account_key_pem());
}

#[test]
fn keys_are_for_their_owner_alone() {
    let dir = tempfile::tempdir().unwrap();
    open(dir.path()).unwrap();
    for entry in std::fs::read_dir(dir.path()).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|ending| ending == "key") {
            let mode = std::fs::metadata(&path).unwrap().permissions().mode() & 0o777;
            assert_eq!(mode, 0o600, "{}", path.display());
        }
    }
}

#[test]
fn only_what_is_missing_is_made_anew() {
    let dir = tempfile::tempdir().unwrap();
    let first = open(dir.path()).unwrap();
    std::fs::remove_file(dir.path().join("admin.key")).unwrap();
    let second = open(dir.path()).unwrap();
    assert_ne!(first.admin.key_pem, second.admin.key_pem);
    assert_eq!(first.ca_pem(), second.ca_pem());
    assert_eq!(first.server.key_pem, second.server.key_pem);
}

#[test]
fn a_certificate_near_its_end_or_without_a_name_is_renewed() {
    let dir = tempfile::tempdir().unwrap();
    let first = open(dir.path()).unwrap();
    let later = now() + jiff::SignedDuration::from_hours(24 * 340);
    let renewed = Pki::open(dir.path(), "moorline", &Names::default(), later).unwrap();
    assert_ne!(first.server.certificate_pem, renewed.server.certificate_pem);
    assert_eq!(first.ca_pem(), renewed.ca_pem());
    let names = Names {
        server_dns_names: vec!["box.example".to_owned()],
        ..Names::default()
    };
    let named = Pki::open(dir.path(), "moorline", &names, later).unwrap();
    assert_ne!(named.server.certificate_pem, renewed.server.certificate_pem);
    assert_eq!(named.admin.certificate_pem, renewed.admin.certificate_pem);
}

#[test]
fn damage_is_refused_and_names_the_file() {
    let cases: [(&str, &str, &str); 4] = [
        ("text in the CA", "ca.crt", "hello"),
        ("text in the server's key", "apiserver.key", "hello"),
        ("text in the token key", "sa.key", "hello"),
        ("empty certificate", "admin.crt", ""),
    ];
    for (case, file, content) in cases {
        let dir = tempfile::tempdir().unwrap();
        open(dir.path()).unwrap();
        std::fs::write(dir.path().join(file), content).unwrap();
        let error = open(dir.path()).expect_err(case);
        let stem = file.split('.').next().unwrap();
        assert!(error.to_string().contains(stem), "{case}: {error}");
        assert!(matches!(error, PkiError::Damaged { .. }), "{case}: {error:?}");
    }
}

#[test]
fn a_foreign_key_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    open(dir.path()).unwrap();
    std::fs::copy(dir.path().join("apiserver.key"), dir.path().join("admin.key")).unwrap();
    let error = open(dir.path()).unwrap_err();
    assert!(error.to_string().contains("does not belong"), "{error}");
}

#[test]
fn a_lost_authority_key_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    open(dir.path()).unwrap();
    std::fs::remove_file(dir.path().join("ca.key")).unwrap();
    assert!(matches!(open(dir.path()), Err(PkiError::Damaged { .. })));
}

#[test]
fn tls_accepts_the_material() {
    let dir = tempfile::tempdir().unwrap();
    let pki = open(dir.path()).unwrap();
    pki.server_tls().unwrap();
    pki.kubelet_client_tls().unwrap();
}
