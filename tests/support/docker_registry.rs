//! The distribution registry as a process of one test: a port and a directory of its own, gone at the end.

use std::io::{BufRead as _, BufReader};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// The password of the user `ann`, and what `htpasswd -B` makes of it.
pub const PASSWORD: &str = "secret";
const HASH: &str = "$2b$04$IHiHgyY5jNV/QkoGT/wUzeBH46F5t937thDsuu.fOPJ9GIS7qwJG.";

/// A registry that listens.
#[derive(Debug)]
pub struct DockerRegistry {
    pub port: u16,
    child: Child,
    pub directory: tempfile::TempDir,
}

impl DockerRegistry {
    /// Plain HTTP, open to all.
    pub fn plain() -> DockerRegistry {
        DockerRegistry::start("", "")
    }

    /// Only `ann` gets in.
    pub fn with_login() -> DockerRegistry {
        DockerRegistry::start("auth: {htpasswd: {realm: test, path: PLACE/htpasswd}}\n", "")
    }

    /// With a certificate for `localhost` of its own authority, which is at [`DockerRegistry::authority`].
    pub fn with_tls() -> DockerRegistry {
        DockerRegistry::start("", ", tls: {certificate: PLACE/server.pem, key: PLACE/server.key}")
    }

    pub fn authority(&self) -> std::path::PathBuf {
        self.directory.path().join("authority.pem")
    }

    /// What Docker names it.
    pub fn host(&self) -> String {
        format!("localhost:{}", self.port)
    }

    fn start(more: &str, http: &str) -> DockerRegistry {
        let directory = tempfile::tempdir().unwrap();
        let place = directory.path();
        std::fs::write(place.join("htpasswd"), format!("ann:{HASH}\n")).unwrap();
        if !http.is_empty() {
            certificate(place);
        }
        let settings = "version: 0.1\nlog: {level: info, accesslog: {disabled: true}}\n\
             storage: {filesystem: {rootdirectory: PLACE/data}, delete: {enabled: true}}\n"
            .to_owned()
            + more
            + &format!("http: {{addr: \"localhost:0\"{http}}}\n");
        let settings = settings.replace("PLACE", place.to_str().unwrap());
        std::fs::write(place.join("config.yml"), settings).unwrap();
        let mut command = Command::new("docker-registry");
        command.arg("serve").arg(place.join("config.yml")).stdout(Stdio::null()).stderr(Stdio::piped());
        // It ends with the test, however that ends.
        // SAFETY: prctl(2) alone, which is safe between fork and exec.
        #[allow(unsafe_code)]
        unsafe {
            command.pre_exec(|| {
                let signal = Some(rustix::process::Signal::KILL);
                rustix::process::set_parent_process_death_signal(signal).map_err(std::io::Error::from)
            });
        }
        let mut child = command.spawn().expect("docker-registry starts");
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let mut said = Vec::new();
        let port = loop {
            let Some(Ok(line)) = lines.next() else { panic!("it does not listen: {said:?}") };
            let port = line.split("listening on ").nth(1).and_then(|rest| {
                let digits = rest.split("]:").last()?.rsplit(':').next()?;
                digits.chars().take_while(char::is_ascii_digit).collect::<String>().parse().ok()
            });
            match port {
                Some(port) => break port,
                None => said.push(line),
            }
        };
        // It must always be able to write.
        std::thread::spawn(move || lines.for_each(drop));
        DockerRegistry { port, child, directory }
    }
}

impl Drop for DockerRegistry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// An authority, and a certificate of its for `localhost`.
fn certificate(place: &Path) {
    const NEW: &str = "req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2";
    let authority = format!("{NEW} -x509 -subj /CN=authority -keyout authority.key -out authority.pem");
    let server = format!(
        "{NEW} -x509 -subj /CN=localhost -addext subjectAltName=DNS:localhost -addext basicConstraints=CA:FALSE \
         -CA authority.pem -CAkey authority.key -keyout server.key -out server.pem"
    );
    for words in [authority, server] {
        let made = Command::new("openssl").args(words.split_whitespace()).current_dir(place).output();
        let made = made.expect("openssl runs");
        assert!(made.status.success(), "{words}: {}", String::from_utf8_lossy(&made.stderr));
    }
}
