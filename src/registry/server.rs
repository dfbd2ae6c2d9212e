//! The two servers on one storage: does one answer, start it, end it.

use std::net::{Ipv6Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result};
use rustix::process::{Pid, Signal, kill_process};

use super::certificate::SELF;
use super::place::{Place, Settings};
use crate::report::{Fault, Kind, Reporter};
use crate::service::{self, Background, UNITS, run};

/// How long a server that listens may take to answer.
const ANSWER: Duration = Duration::from_secs(5);

/// A server: pulls never stop while the other one is worked on, and whoever only pulls needs no login.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Server {
    /// For everybody; writes nothing.
    Reader,
    /// For publishers.
    Writer,
}

pub const SERVERS: [Server; 2] = [Server::Reader, Server::Writer];

impl Server {
    pub fn name(self) -> &'static str {
        match self {
            Server::Reader => "registry-reader",
            Server::Writer => "registry-writer",
        }
    }

    pub fn port(self, settings: &Settings) -> u16 {
        match self {
            Server::Reader => settings.port,
            Server::Writer => settings.push_port,
        }
    }

    pub fn configuration(self, place: &Place) -> PathBuf {
        place.root().join(self.name()).with_extension("yml")
    }

    pub fn unit(self) -> String {
        format!("moorage-{}.service", self.name())
    }

    pub fn unit_file(self) -> PathBuf {
        Path::new(UNITS).join(self.unit())
    }

    fn pid_file(self) -> PathBuf {
        Path::new("/run/moorage").join(self.name()).with_extension("pid")
    }

    /// Where its words are: a command that shows them.
    pub fn log(self) -> String {
        match service::systemd_runs() {
            true => format!("journalctl -u {}", self.unit()),
            false => format!("tail {}", self.log_file().display()),
        }
    }

    fn log_file(self) -> PathBuf {
        Path::new("/var/log/moorage").join(self.name()).with_extension("log")
    }

    /// Its process, where it runs in the background: the one in the file, if it is still that.
    fn process(self, place: &Place) -> Option<Pid> {
        let pid: i32 = std::fs::read_to_string(self.pid_file()).ok()?.trim().parse().ok()?;
        let words = std::fs::read(format!("/proc/{pid}/cmdline")).ok()?;
        let configuration = self.configuration(place);
        let ours = words.split(|b| *b == 0).any(|word| word == configuration.as_os_str().as_encoded_bytes());
        Pid::from_raw(pid).filter(|_| ours)
    }

    /// Whether it runs, whatever it does.
    pub async fn runs(self, place: &Place) -> bool {
        if !service::systemd_runs() {
            return self.process(place).is_some();
        }
        let unit = self.unit();
        let asked =
            tokio::process::Command::new("systemctl").args(["is-active", "--quiet", &unit]).status().await;
        asked.is_ok_and(|status| status.success())
    }

    /// Whether it answers here as it should, over TLS with a certificate of the registry's authority.
    pub async fn answers(self, place: &Place, settings: &Settings) -> bool {
        self.ask(place, settings).await.is_ok_and(|status| match self {
            Server::Reader => status == reqwest::StatusCode::OK,
            // It wants a login.
            Server::Writer => status == reqwest::StatusCode::UNAUTHORIZED,
        })
    }

    async fn ask(self, place: &Place, settings: &Settings) -> Result<reqwest::StatusCode> {
        Ok(self.request(place, settings).await?.status())
    }

    /// Whether the certificate that it shows is the one on the disk.
    async fn shows(self, place: &Place, settings: &Settings) -> Result<bool> {
        let text = place.text(&place.certificate())?.context("there is no certificate")?;
        let wanted = super::certificate::der(&text)?;
        let answer = self.request(place, settings).await?;
        let shown = answer.extensions().get::<reqwest::tls::TlsInfo>();
        Ok(shown.and_then(reqwest::tls::TlsInfo::peer_certificate) == Some(&wanted))
    }

    async fn request(self, place: &Place, settings: &Settings) -> Result<reqwest::Response> {
        // Another part of the process may have installed it already.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let authority = place.text(&place.authority())?.context("there is no authority")?;
        let port = self.port(settings);
        let client = reqwest::Client::builder()
            .tls_certs_only([reqwest::Certificate::from_pem(authority.as_bytes())?])
            .resolve(SELF, SocketAddr::from(([127, 0, 0, 1], port)))
            .no_proxy()
            .timeout(ANSWER)
            .tls_info(true)
            .build()?;
        Ok(client.get(format!("https://{SELF}:{port}/v2/")).send().await?)
    }

    /// Fails where another program listens on its port.
    pub fn check_port(self, settings: &Settings) -> Result<()> {
        let port = self.port(settings);
        let option = match self {
            Server::Reader => "--port",
            Server::Writer => "--push-port",
        };
        match TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)).or_else(|e| match e.kind() {
            // A host without IPv6.
            std::io::ErrorKind::AddrInUse | std::io::ErrorKind::PermissionDenied => Err(e),
            _ => TcpListener::bind(("0.0.0.0", port)),
        }) {
            Ok(_) => Ok(()),
            Err(e) => Err(Fault::new(Kind::Failed, format!("port {port} is not free for the registry"))
                .why(e.to_string())
                .next(format!(
                    "see who listens: ss -ltnp 'sport = :{port}' (the package's own service: systemctl disable --now \
                     docker-registry), or choose another with {option}"
                ))
                .into()),
        }
    }

    /// Starts it, at every boot where systemd runs, and waits until it answers.
    pub async fn start(self, place: &Place, settings: &Settings, reporter: &Reporter) -> Result<()> {
        let answers = async || self.answers(place, settings).await;
        if service::systemd_runs() {
            let unit = self.unit();
            run("registry", "systemctl", &["enable", &unit], reporter).await?;
            run("registry", "systemctl", &["start", &unit], reporter).await?;
            return match service::until(answers).await {
                true => Ok(()),
                false => Err(Fault::new(Kind::TimedOut, format!("{unit} does not answer"))
                    .next(format!("journalctl -u {unit}"))
                    .into()),
            };
        }
        let configuration = self.configuration(place);
        let configuration = configuration.to_str().context("the configuration's path")?;
        let own = std::env::current_exe().context("find this program")?;
        Background {
            program: "setpriv",
            // It reads files of root's, and has no other right of root's.
            arguments: &[
                "--bounding-set=-all,+net_bind_service",
                "--inh-caps=-all",
                "--no-new-privs",
                "--",
                own.to_str().context("this program's path")?,
                "registryserver",
                "keep-registry",
                configuration,
            ],
            log: &self.log_file(),
            pid_file: &self.pid_file(),
        }
        .start(answers)
        .await
    }

    /// Has it serve with the certificate that is on the disk now, and waits until it does. Nobody is refused meanwhile, and what
    /// is being sent is sent to the end.
    pub async fn renew(self, place: &Place, settings: &Settings, reporter: &Reporter) -> Result<()> {
        match service::systemd_runs() {
            true => run("registry", "systemctl", &["reload", &self.unit()], reporter).await?,
            false => {
                let pid = self.process(place).with_context(|| format!("{} does not run", self.name()))?;
                kill_process(pid, Signal::HUP).with_context(|| format!("tell {} of it", self.name()))?;
            }
        }
        match service::until(async || self.shows(place, settings).await.unwrap_or(false)).await {
            true => Ok(()),
            false => {
                Err(Fault::new(Kind::TimedOut, format!("{} goes on with its old certificate", self.name()))
                    .next(self.log())
                    .into())
            }
        }
    }

    /// Ends it for a moment: at a boot it starts all the same. What is being sent is sent to the end, within limits.
    pub async fn pause(self, place: &Place, reporter: &Reporter) -> Result<()> {
        match service::systemd_runs() {
            true => run("registry", "systemctl", &["stop", &self.unit()], reporter).await,
            false => self.stop(place, reporter).await,
        }
    }

    /// Ends it; what is being sent is sent to the end, within limits. One that does not run is no error.
    pub async fn stop(self, place: &Place, reporter: &Reporter) -> Result<()> {
        if service::systemd_runs() {
            if !self.unit_file().exists() {
                return Ok(());
            }
            return run("registry", "systemctl", &["disable", "--now", &self.unit()], reporter).await;
        }
        match self.process(place) {
            Some(pid) => service::end(pid).await,
            None => Ok(()),
        }
    }
}
