//! A signed rpm repository on this machine: small packages of our own, and the tools that stage 1 wants, which are Debian's
//! dnf and rpm with all they need, in one package.

use std::path::{Path, PathBuf};

use crate::repository::shell;

/// A package that is built: what `tree`, below the repository, has.
struct Package<'a> {
    name: &'a str,
    version: &'a str,
    /// Lines of the specification's head.
    more: &'a str,
    tree: &'a str,
    script: &'a str,
    files: &'a str,
}

pub struct RpmRepository {
    directory: tempfile::TempDir,
}

/// Nothing is stripped, compressed or read for dependencies: a package has what it says.
const SPEC: &str = "%define __os_install_post %{nil}
%define debug_package %{nil}
%define _build_id_links none
%define _binary_payload w1.gzdio
Release: 1
Summary: a test's
License: none
AutoReqProv: no
%description
A test's.
";

impl RpmRepository {
    /// With dnf and rpm of Debian 12, whose rpm keeps packages in SQLite, as EL 9's does.
    pub fn new() -> RpmRepository {
        RpmRepository::of("bookworm", "debian-12")
    }

    /// With dnf and rpm of Debian 11, whose rpm keeps packages in Berkeley DB, as EL 8's does.
    pub fn with_berkeley_db() -> RpmRepository {
        RpmRepository::of("bullseye", "debian-11")
    }

    fn of(suite: &str, base: &str) -> RpmRepository {
        let repository = RpmRepository { directory: tempfile::tempdir().unwrap() };
        let root = repository.directory.path();
        std::fs::set_permissions(root, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        let sources = format!("{}/roles/common/repos/{base}/debian.sources", env!("CARGO_MANIFEST_DIR"));
        // rpm of Debian 12 reads RSA keys without further ado.
        shell(
            root,
            &format!(
                "mkdir -m 700 keys; mkdir -p pool tools base/bin base/etc base/tmp base/usr/share
                 gpg --batch --quiet --passphrase '' --quick-generate-key local@localhost rsa3072 sign never
                 gpg --batch --quiet --export --armor >KEY-local
                 gpg --batch --quiet --passphrase '' --quick-generate-key other@localhost rsa3072 sign never
                 gpg --batch --quiet --export --armor other@localhost >KEY-other
                 gpg --batch --quiet --export --armor local@localhost >KEY-local
                 mmdebstrap --quiet --variant=minbase --include=dnf,rpm {suite} tools.tar {sources}
                 tar -C tools -xf tools.tar --exclude=./dev --exclude=./proc --exclude=./sys --exclude=./usr/share/doc \\
                     --exclude=./usr/share/locale --exclude=./usr/share/man --exclude=./var/cache --exclude=./var/lib/apt
                 rm tools.tar
                 printf '%%_dbpath /var/lib/rpm\\n' >tools/root/.rpmmacros
                 cp /bin/busybox base/bin/busybox
                 for name in sh cat test true grep sleep echo; do ln -s busybox base/bin/$name; done
                 printf 'root:x:0:0:root:/root:/bin/sh\\n' >base/etc/passwd
                 printf 'root:*:29999:0:99999:7:::\\n' >base/etc/shadow; chmod 640 base/etc/shadow",
            ),
        );
        let whole =
            Package { name: "dnf", version: "4.14", more: "", tree: "tools", script: "", files: "/*" };
        repository.build(&Package { more: "Provides: rpm coreutils /bin/sh", ..whole });
        repository.build(&Package {
            name: "basefiles",
            version: "1",
            more: "Provides: /bin/sh",
            tree: "base",
            ..whole
        });
        shell(root, "rm -rf tools");
        repository.publish("1.0");
        repository
    }

    pub fn path(&self) -> PathBuf {
        self.directory.path().to_owned()
    }

    /// The public key `KEY-local`, which packages and metadata are signed with, or `KEY-other`.
    pub fn key(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.path().join(name)).unwrap()
    }

    /// Publishes version `version` of the package `hello`: one file that says it, and one that its script makes.
    pub fn publish(&self, version: &str) {
        let place = self.path();
        shell(
            &place,
            &format!(
                "rm -rf hello pool/hello-*; mkdir -p hello/usr/share; echo {version} >hello/usr/share/hello"
            ),
        );
        let script = "%post -p /bin/sh\necho set up >/usr/share/hello-is\n";
        let more = "Requires: basefiles\nRequires(post): basefiles";
        self.build(&Package {
            name: "hello",
            version,
            more,
            tree: "hello",
            script,
            files: "/usr/share/hello",
        });
        self.index();
    }

    /// The package `odd`, which nobody has signed.
    pub fn publish_unsigned(&self) {
        let (more, files) = ("Requires: basefiles", "/usr/share/hello");
        self.rpmbuild(&Package { name: "odd", version: "1", more, tree: "hello", script: "", files });
        self.index();
    }

    fn build(&self, package: &Package<'_>) {
        self.rpmbuild(package);
        let Package { name, version, .. } = package;
        let sign = "rpmsign --define '__gpg /usr/bin/gpg' --define '_gpg_name local@localhost' --define \"_gpg_path $PWD/keys\" --addsign";
        shell(&self.path(), &format!("{sign} pool/{name}-{version}-1.*.rpm >/dev/null"));
    }

    fn rpmbuild(&self, package: &Package<'_>) {
        let Package { name, version, more, tree, script, files } = package;
        let place: &Path = &self.path();
        let spec = format!(
            "Name: {name}\nVersion: {version}\n{more}\n{SPEC}%install\ncp -a {tree}/. %{{buildroot}}/\n{script}%files\n{files}\n",
            tree = place.join(tree).display(),
        );
        std::fs::write(place.join("spec"), spec).unwrap();
        shell(
            place,
            "rpmbuild --quiet --define \"_topdir $PWD/top\" --define \"_rpmdir $PWD/pool\" --target $(uname -m) \\
                 --define '_build_name_fmt %%{NAME}-%%{VERSION}-%%{RELEASE}.%%{ARCH}.rpm' -bb spec
             rm -rf top",
        );
    }

    /// Writes the index and signs it.
    fn index(&self) {
        shell(
            &self.path(),
            "createrepo_c --quiet --no-database .
             rm -f repodata/repomd.xml.asc
             gpg --batch --quiet --local-user local@localhost --detach-sign --armor repodata/repomd.xml",
        );
    }
}
