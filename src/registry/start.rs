//! Starting the registry: what is missing is made, what is there stays.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use jiff::Timestamp;
use serde::Serialize;

use super::certificate::{self, Pair};
use super::configuration::{PROGRAM, configuration, unit};
use super::name::Name;
use super::place::{Place, Settings, make_directory};
use super::server::{SERVERS, Server};
use crate::report::{Fault, Kind, Reporter};
use crate::service;

const PORT: u16 = 5000;
/// Where Docker, and moorage, look for the authority of a registry.
pub const CERTIFICATES: &str = "/etc/docker/certs.d";

/// What the person asked for; the rest is as it was.
#[derive(Debug, Clone, Default)]
pub struct Wanted {
    pub names: Vec<Name>,
    pub port: Option<u16>,
    pub push_port: Option<u16>,
    pub directory: Option<PathBuf>,
}

/// What was done, or would be.
#[derive(Debug, Clone, Serialize)]
pub struct Started {
    pub dry_run: bool,
    pub changed: bool,
    pub steps: Vec<String>,
    /// Where everybody pulls, by each name.
    pub pull: Vec<String>,
    /// Where publishers push.
    pub push: Vec<String>,
    /// The authority's certificate in PEM, for client hosts; absent before the first start.
    pub authority: Option<String>,
}

/// What is chosen from now on. Pure; `host` is this machine's name and `secret` a fresh one.
pub fn choose(
    place: &Place,
    wanted: &Wanted,
    recorded: Option<Settings>,
    host: &str,
    secret: String,
) -> Result<Settings> {
    let mut settings = match recorded {
        Some(settings) => settings,
        None => Settings {
            names: Vec::new(),
            port: PORT,
            push_port: wanted.port.unwrap_or(PORT).wrapping_add(1),
            directory: place.data(),
            secret,
        },
    };
    if !wanted.names.is_empty() {
        settings.names.clear();
        for name in &wanted.names {
            if !settings.names.contains(name) {
                settings.names.push(name.clone());
            }
        }
    }
    if settings.names.is_empty() {
        let own: Result<Name, _> = host.parse();
        settings.names.push(own.map_err(|e| {
            Fault::new(Kind::Usage, "by what name do other hosts reach this one?")
                .why(format!("its own name, {host:?}, cannot be used: {e}"))
                .next("moorage start-registry --name HOST")
        })?);
    }
    settings.port = wanted.port.unwrap_or(settings.port);
    settings.push_port = wanted.push_port.unwrap_or(settings.push_port);
    if settings.port == settings.push_port || settings.port == 0 || settings.push_port == 0 {
        let what = format!("{} and {} cannot be the two ports", settings.port, settings.push_port);
        let next = "choose two different ones: --port for pulling, --push-port for publishing";
        return Err(Fault::new(Kind::Usage, what).next(next).into());
    }
    if let Some(directory) = &wanted.directory {
        let text = directory.to_str().filter(|text| text.starts_with('/') && !text.contains('\n'));
        if text.is_none() {
            let what = format!("{directory:?} cannot be the registry's directory");
            return Err(Fault::new(Kind::Usage, what).next("give an absolute path").into());
        }
        settings.directory.clone_from(directory);
    }
    Ok(settings)
}

/// Refuses to leave images behind in another directory.
fn check_moved(recorded: Option<&Settings>, settings: &Settings) -> Result<()> {
    let Some(old) = recorded.map(|settings| &settings.directory) else { return Ok(()) };
    let new = &settings.directory;
    if old == new || !old.join("docker").exists() {
        return Ok(());
    }
    Err(Fault::new(Kind::Differs, format!("the registry's images are in {}", old.display()))
        .next(format!(
            "moorage stop-registry && mkdir -p {1} && mv {0}/docker {1}/, then run this again",
            old.display(),
            new.display()
        ))
        .into())
}

/// Refuses a directory in which the servers, who have no right of root's but root's files, could not write.
fn check_owner(directory: &Path) -> Result<()> {
    use std::os::unix::fs::MetadataExt as _;
    match std::fs::metadata(directory) {
        Ok(metadata) if metadata.is_dir() && metadata.uid() == rustix::process::geteuid().as_raw() => Ok(()),
        Ok(metadata) if metadata.is_dir() => {
            Err(Fault::new(Kind::Usage, format!("{} is not root's", directory.display()))
                .why("the servers run as root without the right to write to what others own")
                .next(format!("chown -R root: {}, then run this again", directory.display()))
                .into())
        }
        Ok(_) => Err(Fault::new(Kind::Usage, format!("{} is no directory", directory.display()))
            .next("choose another with --directory")
            .into()),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(e) => Err(e).with_context(|| format!("look at {}", directory.display())),
    }
}

/// Starts the registry, or completes what is missing of it.
///
/// # Errors
/// A [`Fault`]: [`Kind::Missing`] without the server's program, [`Kind::Usage`] for what cannot be chosen, [`Kind::Differs`]
/// where images would be left behind, [`Kind::Failed`] for a port that is taken.
pub async fn start(place: &Place, wanted: &Wanted, dry_run: bool, reporter: &Reporter) -> Result<Started> {
    program()?;
    let own = std::env::current_exe().context("find this program")?;
    let own = own.to_str().context("this program's path")?.to_owned();
    let _lock = match dry_run {
        true => None,
        false => {
            place.make()?;
            Some(place.lock().await?)
        }
    };
    let recorded = place.settings()?;
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let secret: [u8; 16] = rand::random();
    let secret = secret.iter().map(|byte| format!("{byte:02x}")).collect();
    let settings = choose(place, wanted, recorded.clone(), &host, secret)?;
    check_moved(recorded.as_ref(), &settings)?;
    check_owner(&settings.directory)?;
    let mut steps = Steps { dry_run, reporter, done: Vec::new(), marker: place.unfinished(), marked: false };
    // A start that was killed has written what a server may not have read.
    let unfinished = place.unfinished().exists();
    // A server that runs has its port already, unless it is to have another one.
    for server in SERVERS {
        let same = recorded.as_ref().is_some_and(|old| server.port(old) == server.port(&settings));
        if !same || !server.runs(place).await {
            server.check_port(&settings)?;
        }
    }
    let new_certificate = certificates(place, &settings, &mut steps)?;
    if place.text(&place.users())?.is_none() {
        // Without one the server makes one, with a user of its own.
        steps.write(&place.users(), "")?;
    }
    if !settings.directory.exists() {
        let make = || make_directory(&settings.directory);
        steps.act(format!("make {}", settings.directory.display()), make)?;
    }
    let mut changed = Vec::new();
    for server in SERVERS {
        let text = configuration(place, &settings, server)?;
        let mut new = steps.write_changed(place, &server.configuration(place), &text)?;
        if service::systemd_runs() {
            new |= steps.write_changed(place, &server.unit_file(), &unit(place, &settings, server, &own)?)?;
        }
        changed.push(match new || unfinished {
            true => Change::All,
            false if new_certificate => Change::Certificate,
            false => Change::None,
        });
    }
    if recorded.as_ref() != Some(&settings) {
        steps.write(&place.settings_file(), &serde_json::to_string_pretty(&settings)?)?;
    }
    if service::systemd_runs() && changed.contains(&Change::All) && !dry_run {
        service::run("registry", "systemctl", &["daemon-reload"], reporter).await?;
    }
    for (server, changed) in SERVERS.into_iter().zip(changed) {
        serve(place, &settings, server, changed, &mut steps).await?;
    }
    if !dry_run {
        crate::state::remove(&place.unfinished())?;
    }
    let at = |port| settings.names.iter().map(|name| name.at(port)).collect();
    Ok(Started {
        dry_run,
        changed: !steps.done.is_empty(),
        pull: at(settings.port),
        push: at(settings.push_port),
        authority: place.text(&place.authority())?,
        steps: steps.done,
    })
}

/// What of a server's files is another than it knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Change {
    None,
    /// That alone is taken up without an outage.
    Certificate,
    All,
}

async fn serve(
    place: &Place,
    settings: &Settings,
    server: Server,
    changed: Change,
    steps: &mut Steps<'_>,
) -> Result<()> {
    let runs = server.runs(place).await;
    if runs && changed == Change::Certificate {
        let text = format!("renew the certificate of the {}", server.name());
        if !steps.dry_run {
            server.renew(place, settings, steps.reporter).await.with_context(|| format!("cannot {text}"))?;
        }
        steps.note(text);
        return Ok(());
    }
    if runs && changed == Change::None && server.answers(place, settings).await {
        return Ok(());
    }
    let word = if runs { "restart" } else { "start" };
    let text = format!("{word} the {} on port {}", server.name(), server.port(settings));
    if !steps.dry_run {
        steps.reporter.begin("registry", text.as_str());
        if runs {
            server.stop(place, steps.reporter).await?;
        }
        server.start(place, settings, steps.reporter).await.with_context(|| format!("cannot {text}"))?;
    }
    steps.note(text);
    Ok(())
}

/// Makes the authority and the certificate where they are missing or do not serve any more. Says whether the servers have
/// to read a new one.
fn certificates(place: &Place, settings: &Settings, steps: &mut Steps<'_>) -> Result<bool> {
    let now = Timestamp::now();
    let pair = |certificate: &Path, key: &Path| -> Result<Option<Pair>> {
        let (certificate, key) = (place.text(certificate)?, place.text(key)?);
        Ok(certificate.zip(key).map(|(certificate, key)| Pair { certificate, key }))
    };
    // The key is written first. Another authority would be unknown to every client.
    if place.authority().exists() && !place.authority_key().exists() {
        let what = format!("{} is missing", place.authority_key().display());
        let remove = place.authority();
        return Err(Fault::new(Kind::Missing, what)
            .why("it signs the certificates of the servers")
            .next(format!(
                "put it back; or remove {}, run this again, and tell every client host of the new authority",
                remove.display()
            ))
            .into());
    }
    let authority = match pair(&place.authority(), &place.authority_key())? {
        Some(authority) => authority,
        None => {
            let first = settings.names.first().context("a registry has a name")?;
            let made = certificate::authority(first, now)?;
            steps.write(&place.authority_key(), &made.key)?;
            steps.write(&place.authority(), &made.certificate)?;
            made
        }
    };
    let there = pair(&place.certificate(), &place.key())?;
    if there.is_some_and(|pair| certificate::serves(&pair, &authority, &settings.names, now)) {
        return Ok(false);
    }
    let made = certificate::server(&authority, &settings.names, now)?;
    steps.write(&place.key(), &made.key)?;
    steps.write(&place.certificate(), &made.certificate)?;
    Ok(true)
}

/// Where the server's program is.
pub fn program() -> Result<String> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found =
        std::env::split_paths(&path).map(|directory| directory.join(PROGRAM)).find(|file| file.is_file());
    found.map(|file| file.display().to_string()).ok_or_else(|| {
        Fault::new(Kind::Missing, format!("{PROGRAM} is not installed"))
            .why("it is the server that the registry runs")
            .next(format!("apt-get install {PROGRAM}, then run this again"))
            .into()
    })
}

/// Has this host trust the registry: its authority where Docker looks for it. Returns the files that were written.
pub fn trust(place: &Place, started: &Started, certificates: &Path) -> Result<Vec<PathBuf>> {
    let Some(authority) = &started.authority else { return Ok(Vec::new()) };
    let mut written = Vec::new();
    for host in started.pull.iter().chain(&started.push) {
        let directory = certificates.join(host);
        let path = directory.join("ca.crt");
        if place.text(&path)?.as_ref() == Some(authority) {
            continue;
        }
        if !started.dry_run {
            use std::os::unix::fs::PermissionsExt as _;
            std::fs::create_dir_all(&directory).with_context(|| format!("make {}", directory.display()))?;
            crate::state::replace(&path, authority.as_bytes())?;
            // People's own programs read it too.
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644))?;
        }
        written.push(path);
    }
    Ok(written)
}

/// What is done, said as it happens; with `dry_run` only said.
struct Steps<'a> {
    dry_run: bool,
    reporter: &'a Reporter,
    done: Vec<String>,
    /// Is there from the first write until the servers run with it.
    marker: PathBuf,
    marked: bool,
}

impl Steps<'_> {
    fn act(&mut self, text: String, act: impl FnOnce() -> Result<()>) -> Result<()> {
        if !self.dry_run {
            act()?;
        }
        self.note(text);
        Ok(())
    }

    fn note(&mut self, text: String) {
        if !self.dry_run {
            self.reporter.end("registry", format!("{text}: done"));
        }
        self.done.push(text);
    }

    fn write(&mut self, path: &Path, text: &str) -> Result<()> {
        if !self.dry_run && !self.marked {
            crate::state::replace(&self.marker, b"")?;
            self.marked = true;
        }
        self.act(format!("write {}", path.display()), || crate::state::replace(path, text.as_bytes()))
    }

    fn write_changed(&mut self, place: &Place, path: &Path, text: &str) -> Result<bool> {
        if place.text(path)?.as_deref() == Some(text) {
            return Ok(false);
        }
        self.write(path, text)?;
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn choose(wanted: &Wanted, recorded: Option<Settings>) -> Result<Settings> {
        super::choose(&Place::at(Path::new("/place")), wanted, recorded, "Host.corp", "secret".into())
    }

    #[test]
    fn what_was_chosen_once_holds() {
        let first = choose(&Wanted::default(), None).unwrap();
        assert_eq!(first.names[0].as_str(), "host.corp");
        assert_eq!(
            (first.port, first.push_port, first.directory.to_str()),
            (5000, 5001, Some("/place/data"))
        );
        let name: Name = "registry.corp".parse().unwrap();
        let wanted = Wanted { names: vec![name.clone(), name.clone()], port: Some(443), ..Wanted::default() };
        let second = choose(&wanted, Some(first)).unwrap();
        assert_eq!((second.names.as_slice(), second.port, second.push_port), (&[name][..], 443, 5001));
        assert!(choose(&Wanted::default(), Some(second.clone())).unwrap() == second);
        assert_eq!(choose(&Wanted { port: Some(443), ..Wanted::default() }, None).unwrap().push_port, 444);
    }

    #[test]
    fn what_cannot_be_chosen_is_said() {
        for wanted in [
            Wanted { port: Some(5001), push_port: Some(5001), ..Wanted::default() },
            Wanted { port: Some(65535), ..Wanted::default() },
            Wanted { port: Some(0), ..Wanted::default() },
            Wanted { directory: Some("relative".into()), ..Wanted::default() },
        ] {
            let fault = Fault::of(&choose(&wanted, None).err().unwrap());
            assert_eq!(fault.kind, Kind::Usage, "{fault}");
            assert!(fault.next.is_some());
        }
        let place = Place::at(Path::new("/place"));
        let nameless =
            super::choose(&place, &Wanted::default(), None, "(none)", String::new()).err().unwrap();
        assert!(Fault::of(&nameless).next.unwrap().contains("--name"));
    }

    #[test]
    fn images_are_never_left_behind() {
        let root = tempfile::tempdir().unwrap();
        let place = Place::at(root.path());
        let at = |name: &str| Wanted { directory: Some(root.path().join(name)), ..Wanted::default() };
        let old = super::choose(&place, &at("old"), None, "host", String::new()).unwrap();
        let new = super::choose(&place, &at("new"), Some(old.clone()), "host", String::new()).unwrap();
        check_moved(Some(&old), &new).unwrap();
        std::fs::create_dir_all(root.path().join("old/docker")).unwrap();
        let fault = Fault::of(&check_moved(Some(&old), &new).unwrap_err());
        assert_eq!(fault.kind, Kind::Differs);
        assert!(fault.next.unwrap().contains("mv "));
        check_moved(Some(&old), &old).unwrap();
    }
}
