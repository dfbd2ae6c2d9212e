//! The units that `setup` writes, read by systemd's own checker.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test ends at what it did not expect")]

use std::process::Command;

#[test]
fn systemd_takes_the_units() {
    let directory = tempfile::tempdir().unwrap();
    let templates = [
        ("moorage.service", include_str!("../templates/systemd/moorage.service")),
        ("moorage.socket", include_str!("../templates/systemd/moorage.socket")),
        ("moorage-plugin.socket", include_str!("../templates/systemd/moorage-plugin.socket")),
    ];
    let mut verify = Command::new("systemd-analyze");
    verify.args(["verify", "--man=no"]);
    for (name, template) in templates {
        // The program has to exist for the checker.
        let text = template
            .replace("{{ binary }}", env!("CARGO_BIN_EXE_moorage"))
            .replace("{{ state }}", "/var/lib")
            .replace("{{ storage | quoted }}", r#""/srv/my 50%% disk""#);
        assert!(!text.contains("{{"), "{name} has a value this test does not know:\n{text}");
        let path = directory.path().join(name);
        std::fs::write(&path, text).unwrap();
        verify.arg(path);
    }
    let output = verify.output().expect("systemd-analyze, from the package systemd");
    let said = String::from_utf8_lossy(&output.stderr);
    let ours: Vec<_> = said.lines().filter(|line| line.contains("moorage")).collect();
    assert!(output.status.success() && ours.is_empty(), "{said}");
}

#[test]
fn the_service_has_no_mount_namespace_of_its_own() {
    // systemd.exec(5): each of these gives the daemon mounts that dockerd does not see.
    let hiding = [
        "Private",
        "Protect",
        "ReadOnly",
        "ReadWrite",
        "Inaccessible",
        "BindPaths",
        "BindReadOnly",
        "TemporaryFileSystem",
        "RootDirectory",
        "RootImage",
        "MountFlags",
        "MountAPIVFS",
        "DynamicUser",
        "NoExecPaths",
        "ExecPaths",
    ];
    let service = include_str!("../templates/systemd/moorage.service");
    let bad: Vec<_> =
        service.lines().filter(|line| hiding.iter().any(|directive| line.starts_with(directive))).collect();
    assert!(bad.is_empty(), "{bad:?}");
}
