//! The registry that `start-registry` makes, with the real server, and the real Docker Engine as its client over TLS.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};

use crate::support::events::until_directory;
use crate::support::served::{ADDRESS, PASSWORD, PULL, PUSH, Place, STATE};
use crate::support::{ann, root};

fn mode(path: &str) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn who_has_a_login_publishes_and_everybody_pulls() {
    let place = Place::served();
    let (published, pulled) = (format!("{PUSH}/team/ground:1"), format!("{PULL}/team/ground:1"));
    place.add("ann", "correct horse").ok().says("ann");
    place.image(&published);
    let id = |name: &str| root().run("docker", &["image", "inspect", "-f", "{{.Id}}", name]);
    let made = id(&published).ok().stdout;

    // Nobody, somebody with a wrong password, and the right one.
    assert_ne!(place.docker("nobody", &["push", &published]).says("no basic auth").code, 0);
    assert_ne!(place.log_in("ann", "wrong horse").says("Unauthorized").code, 0);
    place.log_in("ann", "correct horse").ok();
    place.docker("ann", &["push", &published]).ok();

    // What everybody reads from takes nothing, with a login or without.
    place.docker("ann", &["tag", &published, &format!("{PULL}/team/other:1")]).ok();
    assert_ne!(place.docker("ann", &["push", &format!("{PULL}/team/other:1")]).code, 0);

    root().run("docker", &["rmi", &published, &format!("{PULL}/team/other:1")]).ok();
    assert_ne!(id(&made).code, 0, "it is still here, and a pull would prove nothing");
    place.docker("nobody", &["pull", &pulled]).ok();
    assert_eq!(id(&pulled).ok().stdout, made);

    let shown = place.show();
    assert_eq!(shown["repositories"], serde_json::json!([{ "name": "team/ground", "tags": ["1"] }]));
    assert_eq!(shown["users"], serde_json::json!(["ann"]));
    assert_eq!(shown["pull"]["at"], serde_json::json!([PULL, "registry.test:6443"]));
    assert!(shown["bytes"].as_u64().unwrap() > 3_000_000, "{shown:#}");
    assert!(shown["certificate_end"].as_str().unwrap() > "2027", "{shown:#}");
    root().moorage(&["show-registry"]).ok().says("team/ground").says(PUSH).never_says("does not answer");
}

#[test]
fn a_registry_that_was_stopped_goes_on_with_everything() {
    let place = Place::served();
    place.add("ann", "secret").ok();
    let (published, pulled) = (format!("{PUSH}/ground:1"), format!("{PULL}/ground:1"));
    place.image(&published);
    place.log_in("ann", "secret").ok();
    place.docker("ann", &["push", &published]).ok();
    root().run("docker", &["rmi", &published]).ok();
    let before = place.processes();
    let first = place.start(&["--format", "json"]).ok().json();
    assert_eq!(first["changed"], false, "{first:#}");
    assert_eq!(place.processes(), before);

    root().moorage(&["stop-registry"]).ok().says("registry-reader").says("registry-writer");
    for pid in &before {
        assert!(!Path::new("/proc").join(pid.trim()).exists(), "{pid} is still there");
    }
    root().moorage(&["stop-registry"]).ok().says("does not run");
    assert_ne!(place.docker("nobody", &["pull", &pulled]).code, 0);
    let shown = place.show();
    assert_eq!((&shown["pull"]["answers"], &shown["push"]["answers"]), (&false.into(), &false.into()));
    assert_eq!(shown["repositories"][0]["name"], "ground");

    let again = place.start(&["--format", "json"]).ok().json();
    assert_eq!(again["changed"], true);
    assert_eq!((&again["authority"], &again["pull"]), (&first["authority"], &first["pull"]));
    place.docker("nobody", &["pull", &pulled]).ok();
    place.log_in("ann", "secret").ok();

    // One of them was killed: the start brings back that one, and leaves the other alone.
    let before = place.processes();
    root().run("kill", &["-9", before[1].trim()]).ok();
    place.start(&[]).ok();
    let after = place.processes();
    assert_eq!(after[0], before[0]);
    assert_ne!(after[1], before[1]);
    place.log_in("ann", "secret").ok();

    // A start was killed after it had written something: both have to read it.
    std::fs::write(format!("{STATE}/unfinished"), "").unwrap();
    place.start(&[]).ok().says("restart the registry-reader").says("restart the registry-writer");
    assert!(!Path::new(STATE).join("unfinished").exists());
    place.start(&[]).ok().never_says("start the registry");
}

#[test]
fn users_come_and_go_while_it_serves() {
    let place = Place::served();
    let before = place.processes();
    assert_ne!(place.log_in("bob", "one").code, 0);
    place.add("bob", "one").ok().says("right to publish");
    place.log_in("bob", "one").ok();
    place.add("bob", "two").ok().says("another password");
    assert_ne!(place.log_in("bob", "one").code, 0);
    place.log_in("bob", "two").ok();
    root().moorage(&["remove-user", "bob", "--dry-run"]).ok();
    place.log_in("bob", "two").ok();
    root().moorage(&["remove-user", "bob"]).ok();
    assert_ne!(place.log_in("bob", "two").says("Unauthorized").code, 0);
    root().moorage(&["remove-user", "bob"]).ends(4).helps();
    place.add("bob", "").ends(2).helps();
    place.add("b:b", "x").ends(2);
    assert_eq!(place.processes(), before, "a server was started anew");
    let kept = std::fs::read_to_string(format!("{STATE}/htpasswd")).unwrap();
    assert_eq!(kept, "");
}

#[test]
fn a_password_that_is_typed_is_not_shown() {
    let place = Place::served();
    // Types each line when it is asked for it, at a terminal; returns all that the terminal showed.
    let typed = |lines: [&str; 2]| {
        let mut command = root().command("script");
        command
            .args(["-qec", "moorage add-user ann", "/dev/null"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let (mut keys, mut screen) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let mut shown = String::new();
        for (question, line) in ["Password of ann: ", "Again: "].into_iter().zip(lines) {
            let mut byte = [0];
            while !shown.ends_with(question) {
                assert_eq!(screen.read(&mut byte).unwrap(), 1, "it ended before {question:?}: {shown}");
                shown.push(byte[0].into());
            }
            keys.write_all(format!("{line}\n").as_bytes()).unwrap();
        }
        screen.read_to_string(&mut shown).unwrap();
        (child.wait().unwrap().code(), shown)
    };
    let (code, shown) = typed(["correct horse", "wrong horse"]);
    assert_eq!(code, Some(2), "{shown}");
    assert_ne!(place.log_in("ann", "correct horse").code, 0);
    let (code, shown) = typed(["correct horse", "correct horse"]);
    assert_eq!(code, Some(0), "{shown}");
    assert!(!shown.contains("horse"), "{shown}");
    place.log_in("ann", "correct horse").ok();
}

#[test]
fn its_certificate_is_for_its_names_and_its_keys_are_roots() {
    let place = Place::served();
    for file in ["ca.key", "server.key", "htpasswd", "registry.json", "registry-writer.yml"] {
        assert_eq!(mode(&format!("{STATE}/{file}")), 0o600, "{file}");
    }
    assert_eq!(mode(STATE), 0o700);
    let trusted = format!("/etc/docker/certs.d/{PULL}/ca.crt");
    assert_eq!(mode(&trusted), 0o644);
    let ask = |host: &str, more: &[&str]| {
        let (url, at) = (format!("https://{host}:6443/v2/"), format!("{host}:6443:{ADDRESS}"));
        root().run("curl", &[&["-sS", "--cacert", &trusted, "--resolve", &at, &url], more].concat())
    };
    ask("registry.test", &[]).ok();
    ask("another.test", &[]).ends(60).says("another.test");
    root().run("curl", &["-sS", "--cacert", &trusted, &format!("https://{PULL}/v2/")]).ok();
    // The system's authorities do not know it, and older TLS is not spoken.
    root().run("curl", &["-sS", &format!("https://{PULL}/v2/")]).ends(60);
    ask("registry.test", &["--tls-max", "1.1"]).ends(35);
    let verify =
        format!("openssl verify -x509_strict -purpose sslserver -CAfile {trusted} {STATE}/server.crt");
    root().shell(&verify).ok();

    // Another name: another certificate of the same authority.
    let before = std::fs::read(&trusted).unwrap();
    let said = place.start(&["--name", ADDRESS, "--name", "another.test", "--format", "json"]).ok().json();
    assert_eq!(said["pull"][1], "another.test:6443");
    ask("another.test", &[]).ok();
    ask("registry.test", &[]).ends(60);
    assert_eq!(std::fs::read(format!("{STATE}/ca.crt")).unwrap(), before);

    // Without its key there would be another authority, which no client knows.
    std::fs::rename(format!("{STATE}/ca.key"), format!("{STATE}/away")).unwrap();
    place.start(&["--name", ADDRESS]).ends(3).says("ca.key").helps();
    std::fs::rename(format!("{STATE}/away"), format!("{STATE}/ca.key")).unwrap();
    assert_eq!(std::fs::read(format!("{STATE}/ca.crt")).unwrap(), before);

    // What is printed for client hosts does there what --trust does here.
    std::fs::remove_file(&trusted).unwrap();
    let printed = place.start(&[]).ok().stdout;
    let commands: String = printed
        .lines()
        .skip_while(|line| !line.starts_with("for "))
        .map(|line| format!("{line}\n"))
        .collect();
    root().shell(&commands).ok();
    assert_eq!(std::fs::read(&trusted).unwrap(), before);
}

#[test]
fn what_cannot_be_started_is_said_and_leaves_nothing() {
    let place = Place::new();
    root().moorage(&["show-registry"]).ends(4).helps();
    root().moorage(&["stop-registry"]).ends(4).helps();
    place.add("ann", "x").ends(4).helps();
    ann().moorage(&["start-registry"]).ends(6).helps();
    place.start(&["--name", "https://x"]).ends(2).says("scheme");
    place.start(&["--name", "fd00::1"]).ends(2).says("IPv6");
    place.start(&["--port", "6443", "--push-port", "6443"]).ends(2).helps();
    place.start(&["--directory", "here"]).ends(2).helps();
    let bare =
        |words: &str| root().shell(&format!("PATH=/usr/local/bin exec moorage start-registry {words}"));
    bare("").ends(3).says("apt-get install docker-registry");

    place.start(&["--name", ADDRESS, "--port", "6443", "--dry-run"]).ok().says("start the registry-writer");
    assert!(!Path::new(STATE).join("registry.json").exists());
    let taken = std::net::TcpListener::bind(("0.0.0.0", 6444)).unwrap();
    place.start(&["--name", ADDRESS, "--port", "6443"]).ends(1).says("6444").says("--push-port").helps();
    assert!(!Path::new(STATE).join("registry.json").exists());
    drop(taken);

    let theirs = ann().home.clone();
    place.start(&["--name", ADDRESS, "--directory", theirs.to_str().unwrap()]).ends(2).says("chown").helps();
    let elsewhere: PathBuf = place.directory.path().join("images");
    place.start(&["--name", ADDRESS, "--port", "6443", "--directory", elsewhere.to_str().unwrap()]).ok();
    std::fs::create_dir_all(elsewhere.join("docker")).unwrap();
    let other = place.directory.path().join("other");
    place.start(&["--directory", other.to_str().unwrap()]).ends(5).says("mv ").helps();
    assert!(!other.exists());
    assert_eq!(place.show()["directory"], elsewhere.to_str().unwrap());
}

/// A connection that is kept for further requests.
struct Kept(Child);

impl Kept {
    fn open(trusted: &str) -> Kept {
        let mut client = root().command("openssl");
        client.args(["s_client", "-quiet", "-verify_quiet", "-connect", PULL, "-CAfile", trusted]);
        client.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit());
        Kept(client.spawn().unwrap())
    }

    /// The first line of the answer.
    fn ask(&mut self) -> String {
        let (to, from) = (self.0.stdin.as_mut().unwrap(), self.0.stdout.as_mut().unwrap());
        to.write_all(b"GET /v2/ HTTP/1.1\r\nHost: registry.test\r\n\r\n").unwrap();
        let (mut answer, mut one) = (Vec::new(), [0]);
        while !answer.ends_with(b"\r\n\r\n{}") && from.read(&mut one).unwrap() > 0 {
            answer.extend(one);
        }
        String::from_utf8_lossy(&answer).lines().next().unwrap_or("it was hung up on").to_owned()
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What a process is known by, though its id be another's soon. None: it is gone.
fn process(pid: &str) -> Option<OwnedFd> {
    let pid = rustix::process::Pid::from_raw(pid.trim().parse().unwrap()).unwrap();
    rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).ok()
}

fn until_ended(process: &OwnedFd) {
    let mut ended = [rustix::event::PollFd::new(process, rustix::event::PollFlags::IN)];
    rustix::event::poll(&mut ended, None).unwrap();
}

/// What a server's own process is, below the one that keeps it.
fn server_of(keeper: &str) -> String {
    root().run("ps", &["--ppid", keeper.trim(), "-o", "pid="]).ok().stdout.trim().to_owned()
}

#[test]
fn a_certificate_is_renewed_and_a_server_dies_while_everybody_pulls() {
    let place = Place::published_to();
    // More than all buffers on the way hold.
    let mut noise = vec![0; 48 << 20];
    File::open("/dev/urandom").unwrap().read_exact(&mut noise).unwrap();
    let large = place.put_blob("large", &noise);
    let trusted = format!("/etc/docker/certs.d/{PULL}/ca.crt");
    let url = format!("https://{PULL}/v2/large/blobs/{large}");
    let mut slow = root().command("curl");
    slow.args(["-sS", "--cacert", &trusted, &url]).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut slow = slow.spawn().unwrap();
    let mut whole = vec![0; 1 << 20];
    slow.stdout.as_mut().unwrap().read_exact(&mut whole).unwrap();

    let over: &'static AtomicBool = Box::leak(Box::default());
    let (ca, api) = (trusted.clone(), format!("https://{PULL}/v2/"));
    let asking = std::thread::spawn(move || {
        let mut asked = 0;
        while !over.load(Ordering::Relaxed) {
            root().run("curl", &["-sS", "-f", "--cacert", &ca, &api]).ok();
            asked += 1;
        }
        asked
    });
    let (keepers, before) = (place.processes(), server_of(&place.processes()[0]));
    let former = process(&before).unwrap();
    let mut kept = Kept::open(&trusted);
    assert_eq!(kept.ask(), "HTTP/1.1 200 OK");
    place
        .start(&["--name", ADDRESS, "--name", "renewed.test"])
        .ok()
        .says("renew the certificate of the registry-reader");
    let at = format!("renewed.test:6443:{ADDRESS}");
    let renewed = ["-sS", "-f", "--cacert", &trusted, "--resolve", &at, "https://renewed.test:6443/v2/"];
    root().run("curl", &renewed).ok();
    assert_eq!(place.processes(), keepers);
    // The former one is still sending, and answers who had asked nothing when the other one came.
    assert!(server_of(&keepers[0]).lines().any(|pid| pid.trim() == before), "it was ended in the middle");
    assert_eq!(kept.ask(), "HTTP/1.1 200 OK");
    slow.stdout.as_mut().unwrap().read_to_end(&mut whole).unwrap();
    assert!(slow.wait().unwrap().success());
    assert!(whole == noise, "another {} bytes", whole.len());

    over.store(true, Ordering::Relaxed);
    assert!(asking.join().unwrap() > 3);
    // With the last connection it ends.
    drop(kept);
    until_ended(&former);

    // Both are killed. Nobody can save what they were answering; who comes once they are gone is only kept waiting.
    for keeper in &keepers {
        for pid in server_of(keeper).lines() {
            // The former writer ends by itself, maybe just now.
            let Some(server) = process(pid) else { continue };
            let _ = rustix::process::pidfd_send_signal(&server, rustix::process::Signal::KILL);
            until_ended(&server);
        }
    }
    root().run("curl", &renewed).ok();
    place.log_in("ann", PASSWORD).ok();
    assert_eq!(place.processes(), keepers);
}

#[test]
fn a_server_that_is_killed_during_a_push_harms_nothing() {
    let place = Place::published_to();
    let image = format!("{PUSH}/killed:1");
    place.image_of(&image, 60_000_000);
    let mut push = root().command("docker");
    let config = place.directory.path().join("ann");
    let mut push = push.env("DOCKER_CONFIG", config).args(["push", "-q", &image]).spawn().unwrap();
    let repositories = format!("{STATE}/data/docker/registry/v2");
    let uploads = Path::new(&repositories).join("repositories/killed/_uploads");
    std::fs::create_dir_all(&uploads).unwrap();
    until_directory(&uploads, || std::fs::read_dir(&uploads).unwrap().next().is_some());
    root().run("kill", &["-9", &server_of(&place.processes()[1])]).ok();
    // Docker goes on by itself, or has to be asked again.
    if !push.wait().unwrap().success() {
        place.docker("ann", &["push", "-q", &image]).ok();
    }
    root().run("docker", &["rmi", &image]).ok();
    place.blobs_are_whole();
    place.docker("nobody", &["pull", "-q", &format!("{PULL}/killed:1")]).ok();
}

#[test]
fn a_full_disk_is_said_harms_nothing_and_is_mended_by_a_collection() {
    let place = Place::new();
    let disk = place.directory.path().join("disk");
    std::fs::create_dir(&disk).unwrap();
    let disk = disk.to_str().unwrap();
    root().run("mount", &["-t", "tmpfs", "-o", "size=16m,mode=700", "registry-disk", disk]).ok();
    let _mounted = Mounted(disk.to_owned());
    place.start(&["--name", ADDRESS, "--port", "6443", "--trust", "--directory", disk]).ok();
    place.add("ann", PASSWORD).ok();
    place.log_in("ann", PASSWORD).ok();
    place.publish(&["old:1"]);
    place.publish(&["kept:1"]);
    root().shell(&format!("dd if=/dev/zero of={disk}/filler bs=4k 2>/dev/null || true")).ok();
    let begun = place.ask(&["-X", "POST", "-o", "/dev/null"], "new/blobs/uploads/");
    assert!(begun.stdout.starts_with('5'), "{}", begun.whole());
    let kept = format!("{PULL}/kept:1");
    place.docker("nobody", &["pull", "-q", &kept]).ok();
    root().run("docker", &["rmi", &kept]).ok();
    let plan =
        place.collect(&["--keep-tag", "kept:1", "--grace", "0s", "--yes", "--format", "json"]).ok().json();
    assert!(plan["bytes"].as_u64().unwrap() > 3_000_000, "{plan:#}");
    place.publish(&["new:1"]);
    place.docker("nobody", &["pull", "-q", &kept]).ok();
    root().moorage(&["stop-registry"]).ok();
}

/// A mount that ends with the test.
struct Mounted(String);

impl Drop for Mounted {
    fn drop(&mut self) {
        root().shell(&format!("[ ! -e {STATE}/registry.json ] || moorage stop-registry; umount {}", self.0));
    }
}
