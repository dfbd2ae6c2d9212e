//! What keeps a host from a registry, as `doctor` tells it, each with a real server.

use std::process::{Child, Stdio};

use crate::support::served::{ADDRESS, PULL, PUSH, Place, STATE};
use crate::support::{Outcome, root};

fn look(host: &str) -> Outcome {
    root().moorage(&["doctor", "--registry", host])
}

/// A server of the test's own, ended with it.
struct Server(Child);

impl Server {
    /// On this port; `tls` is the rest of `http:`.
    fn new(place: &Place, port: u16, tls: &str) -> Server {
        let directory = place.directory.path().join(port.to_string());
        std::fs::create_dir(&directory).unwrap();
        let configuration = directory.join("config.yml");
        let text = format!(
            "version: 0.1\nstorage: {{filesystem: {{rootdirectory: {}}}}}\nhttp: {{addr: \"{ADDRESS}:{port}\"{tls}}}\n",
            directory.join("data").display()
        );
        std::fs::write(&configuration, text).unwrap();
        let mut command = root().command("docker-registry");
        command.arg("serve").arg(configuration).stdout(Stdio::null()).stderr(Stdio::null());
        let server = Server(command.spawn().unwrap());
        root().shell(&format!("until bash -c ': </dev/tcp/{ADDRESS}/{port}' 2>/dev/null; do :; done")).ok();
        server
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn what_is_wrong_on_the_way_to_a_registry_is_told_apart() {
    let place = Place::served();
    look(PULL).ok().says("answers");
    look(PUSH).ok().says("wants a login");

    look("198.51.100.7:5000").ends(1).says("there is no route to 198.51.100.7:5000").helps_in_the_report();
    look(&format!("{ADDRESS}:6449")).ends(1).says("nobody listens").helps_in_the_report();
    look("registry.invalid:5000").ends(1).says("is not known here").helps_in_the_report();

    let plain = Server::new(&place, 6446, "");
    look(&format!("{ADDRESS}:6446")).ends(1).says("plain HTTP").helps_in_the_report();
    drop(plain);

    // The same authority, and a certificate that ended long ago.
    let made = place.directory.path();
    root()
        .shell(&format!(
            "cd {}; openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj /CN=old -keyout old.key -out old.csr; \
             printf '%s\n' '[ca]' default_ca=d '[d]' new_certs_dir=. database=index serial=serial default_md=sha256 policy=p \
             x509_extensions=e '[p]' commonName=supplied '[e]' subjectAltName=IP:{ADDRESS} basicConstraints=CA:FALSE >ca.cnf; \
             : >index; echo 01 >serial; openssl ca -batch -notext -config ca.cnf -cert {STATE}/ca.crt -keyfile {STATE}/ca.key \
             -startdate 20200101000000Z -enddate 20200201000000Z -in old.csr -out old.crt",
            made.display()
        ))
        .ok();
    let tls = format!(", tls: {{certificate: {0}/old.crt, key: {0}/old.key}}", made.display());
    let old = Server::new(&place, 6447, &tls);
    root().shell(&format!("mkdir -p /etc/docker/certs.d/{ADDRESS}:6447; cp {STATE}/ca.crt /etc/docker/certs.d/{ADDRESS}:6447/")).ok();
    look(&format!("{ADDRESS}:6447")).ends(1).says("has expired").helps_in_the_report();
    drop(old);

    // Another name of the same machine.
    root().shell(&format!("mkdir -p /etc/docker/certs.d/127.0.0.1:6443; cp {STATE}/ca.crt /etc/docker/certs.d/127.0.0.1:6443/")).ok();
    look("127.0.0.1:6443").ends(1).says("is for another name").says(ADDRESS).helps_in_the_report();

    std::fs::remove_dir_all(format!("/etc/docker/certs.d/{PULL}")).unwrap();
    look(PULL).ends(1).says("an authority that is not trusted here").says(&format!("certs.d/{PULL}/ca.crt"));

    // Known, and no longer.
    place.add("ann", "right").ok();
    place.log_in("ann", "right").ok();
    let as_ann = || {
        let mut command = root().command("moorage");
        command.env("DOCKER_CONFIG", place.directory.path().join("ann"));
        Outcome::of(command.args(["doctor", "--registry", PUSH]))
    };
    as_ann().ok().says("knows ann");
    place.add("ann", "another").ok();
    as_ann().ends(1).says("refuses the login of ann").helps_in_the_report();
}

trait InTheReport {
    fn helps_in_the_report(self) -> Self;
}

impl InTheReport for Outcome {
    /// Findings are data: what to do is on stdout.
    #[track_caller]
    fn helps_in_the_report(self) -> Outcome {
        assert!(
            self.stdout.contains("\n  next: "),
            "a problem that does not say what to do:\n{}",
            self.whole()
        );
        self
    }
}
