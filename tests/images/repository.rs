//! A signed apt repository on this machine: the essential packages of the mirror, and packages of our own.

use std::path::{Path, PathBuf};
use std::process::Command;

/// The suite, and the only component.
pub const SUITE: &str = "local";

pub struct Repository {
    directory: tempfile::TempDir,
}

/// Runs a script with the repository's own keys.
pub fn shell(directory: &Path, script: &str) {
    let output = Command::new("bash")
        .args(["-euo", "pipefail", "-c", script])
        .current_dir(directory)
        .env("GNUPGHOME", directory.join("keys"))
        .env("LC_ALL", "C.UTF-8")
        .output()
        .unwrap();
    assert!(output.status.success(), "{script}\n{}", String::from_utf8_lossy(&output.stderr));
}

impl Repository {
    /// With the packages that every Debian system has, from the mirror this machine installs from.
    pub fn new() -> Repository {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path();
        std::fs::set_permissions(root, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        shell(
            root,
            "mkdir -m 700 keys; mkdir -p pool; cd pool
             apt-get -qq update
             apt-get -s -o Dir::State::status=/dev/null -o APT::Install-Recommends=false install '?essential' apt |
                 sed -n 's/^Inst \\([^ ]*\\) (\\([^ ]*\\) .*/\\1=\\2/p' >../wanted
             [ -s ../wanted ]
             xargs apt-get -qq -o APT::Sandbox::User=root download <../wanted
             gpg --batch --quiet --passphrase '' --quick-generate-key local@localhost ed25519 sign never
             gpg --batch --quiet --export >../local.gpg",
        );
        Repository { directory }
    }

    pub fn path(&self) -> PathBuf {
        self.directory.path().to_owned()
    }

    /// Publishes version `version` of the package `hello`, which is one file that says it.
    pub fn publish(&self, version: &str) {
        shell(
            self.directory.path(),
            &format!(
                "rm -rf build; mkdir -p build/DEBIAN build/usr/share
                 printf 'Package: hello\\nVersion: {version}\\nArchitecture: all\\nMaintainer: us <us@localhost>\\nDescription: hello\\n' >build/DEBIAN/control
                 echo {version} >build/usr/share/hello
                 rm -f pool/hello_*; dpkg-deb --root-owner-group --build build pool/hello_{version}_all.deb >/dev/null"
            ),
        );
        self.sign("");
    }

    /// Writes the index and signs it; `release` are further lines of the Release file.
    pub fn sign(&self, release: &str) {
        shell(
            self.directory.path(),
            &format!(
                "index=dists/{SUITE}/main/binary-amd64; mkdir -p $index
                 for deb in pool/*.deb; do
                     dpkg-deb --field $deb
                     printf 'Filename: %s\\nSize: %s\\nSHA256: %s\\n\\n' $deb $(stat -c %s $deb) $(sha256sum <$deb | cut -d' ' -f1)
                 done >$index/Packages
                 cd dists/{SUITE}
                 {{
                     printf 'Suite: {SUITE}\\nCodename: {SUITE}\\nArchitectures: amd64\\nComponents: main\\n'
                     printf 'Date: %s\\n{release}' \"$(date -u '+%a, %d %b %Y %H:%M:%S UTC')\"
                     printf 'SHA256:\\n %s %s main/binary-amd64/Packages\\n' $(sha256sum <main/binary-amd64/Packages | cut -d' ' -f1) $(stat -c %s main/binary-amd64/Packages)
                 }} >Release
                 rm -f InRelease; gpg --batch --quiet --clearsign --output InRelease Release"
            ),
        );
    }

    /// Changes what was signed, under the signature.
    pub fn forge(&self) {
        shell(
            self.directory.path(),
            &format!(
                "sed -i 's/^Architectures: amd64$/Architectures: amd64 i386/' dists/{SUITE}/InRelease
                      grep -q 'amd64 i386' dists/{SUITE}/InRelease"
            ),
        );
    }
}
