//! The Trust section of DESIGN.md, proved from inside a container and from other people's accounts.

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;

use crate::support::{Outcome, Person, Scene, ann, bob, carol, machine, root};

#[test]
fn a_setuid_file_made_inside_is_nothing_on_the_host() {
    let scene = Scene::with_product("setuid");
    let made = scene.make(&ann(), &[]);
    scene
        .inside(&ann(), &made.name(), "sudo sh -c 'cp /usr/bin/id /opt/rootid; chmod 4755 /opt/rootid'")
        .ok();
    let file = made.opt_directory().join("rootid");
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o7777, 0o4755);
    // The owner may run it, as themselves; another person does not even reach it.
    ann().run(file.to_str().unwrap(), &["-u"]).ok().says("40101");
    ann().run(file.to_str().unwrap(), &["-un"]).ok().never_says("root");
    let other = carol().shell(&format!("exec {}", file.display()));
    assert_ne!(other.code, 0, "{}", other.whole());
}

#[test]
fn a_device_made_inside_opens_nothing() {
    let scene = Scene::with_product("device");
    let made = scene.make(&ann(), &[]);
    let mknod = scene.inside(&ann(), &made.name(), "sudo mknod /opt/memory c 1 1");
    assert_ne!(mknod.code, 0, "CAP_MKNOD is there: {}", mknod.whole());
    // Were one there all the same (an archive, another kernel), the view would not open it.
    let options =
        root().run("findmnt", &["-no", "OPTIONS", "-T", made.opt_directory().to_str().unwrap()]).ok();
    assert!(options.stdout.contains("nosuid") && options.stdout.contains("nodev"), "{}", options.stdout);
}

#[test]
fn a_name_that_reads_as_anothers_is_refused() {
    let scene = Scene::with_product("reads");
    // There is a person called x-bob.
    let theirs = format!("{}-x", scene.project);
    scene.try_make(&bob(), &["--name", &theirs]).ends(6).says("reads as one of x-bob").helps();
    let clones = format!("{}-1-x", scene.project);
    let made = scene.make(&bob(), &[]);
    bob().moorage(&["clone-container", &made.name(), "--name", &clones]).ends(6).says("x-bob").helps();
    assert_eq!(scene.containers().len(), 1);
}

#[test]
fn the_store_and_the_merged_trees_are_reached_by_nobody() {
    let scene = Scene::with_product("store");
    let made = scene.make(&ann(), &[]);
    for person in [ann(), carol()] {
        for directory in ["/opt/containers/.store", "/var/lib/moorage/containers", "/var/lib/moorage/volumes"]
        {
            let ls = person.run("ls", &[directory]);
            assert_ne!(ls.code, 0, "{}", ls.whole());
        }
    }
    // In the person's own directory another person sees nothing, not even with the exact path.
    let word = made.opt_directory().join("product/word");
    assert_ne!(carol().run("cat", &[word.to_str().unwrap()]).code, 0);
    ann().run("cat", &[word.to_str().unwrap()]).ok().says(&scene.project);
}

#[test]
fn links_planted_inside_lead_root_nowhere() {
    let scene = Scene::with_product("planted");
    let made = scene.make(&ann(), &[]);
    let name = made.name();
    let victim = Path::new("/etc/moorage-victim");
    std::fs::write(victim, "untouched").unwrap();
    // Everything that moorage writes below /opt or /etc of the container, turned into a way out.
    scene
        .inside(
            &ann(),
            &name,
            "sudo sh -c 'rm -rf /opt/home/ann/.ssh /opt/src /opt/product; \
             ln -s /etc /opt/home/ann/.ssh; ln -s /etc /opt/src; ln -s /etc /opt/product; \
             for f in hostname hosts resolv.conf machine-id; do rm -f /etc/$f 2>/dev/null; ln -sf /etc/moorage-victim /etc/$f 2>/dev/null || :; done'",
        )
        .ok();
    let before = root().shell("ls -la --time-style=full-iso /etc /etc/ssh | sort").ok().stdout;
    ann().moorage(&["restart-container", &name]).helps_or_ok();
    scene.try_make(&ann(), &[]).helps_or_ok();
    let after = root().shell("ls -la --time-style=full-iso /etc /etc/ssh | sort").ok().stdout;
    assert_eq!(before, after, "something in the host's /etc has changed");
    root().moorage(&["remove-container", &name, "--yes"]).ok();
    assert_eq!(std::fs::read_to_string(victim).unwrap(), "untouched");
    assert!(Path::new("/etc/ssh").exists() && Path::new("/etc/passwd").exists());
    std::fs::remove_file(victim).unwrap();
}

#[test]
fn a_planted_git_configuration_runs_nothing_on_the_host() {
    let scene = Scene::new("gitconfig");
    let source = scene.repository(&[("README", 0o644, "source\n")]);
    scene.write(&format!("[[defaults.source]]\nrepo = \"{source}\"\nto = \"/opt/src/product\""));
    let made = scene.make(&ann(), &[]);
    let name = made.name();
    scene
        .inside(
            &ann(),
            &name,
            "cd /opt/src/product; for k in core.fsmonitor core.sshCommand core.pager diff.external core.hooksPath; do \
             git config $k 'touch /tmp/pwned-$(id -u); false'; done; \
             printf '#!/bin/sh\\ntouch /tmp/pwned-hook\\n' >.git/hooks/post-checkout; chmod 755 .git/hooks/post-checkout",
        )
        .ok();
    for words in [&["show-container", &name][..], &["list-containers"], &["restart-container", &name]] {
        ann().moorage(words).ok();
        root().moorage(words).ok();
    }
    scene.try_make(&ann(), &[]).ok();
    let pwned = root().shell("ls -d /tmp/pwned* 2>/dev/null || :").ok().stdout;
    assert_eq!(pwned, "", "git on the host ran what the container said");
}

#[test]
fn a_licence_is_read_as_the_person() {
    let scene = Scene::new("licence");
    let secret = Path::new("/run/world/secret-licence");
    std::fs::write(secret, "for root only").unwrap();
    std::fs::set_permissions(secret, std::fs::Permissions::from_mode(0o600)).unwrap();
    let licences = Path::new(scene.site()).join("dockeruser/licences");
    for (name, target) in [("link.lic", secret), ("shadow.lic", Path::new("/etc/shadow"))] {
        std::os::unix::fs::symlink(target, licences.join(name)).unwrap();
        scene.write(&format!("licence = {{ file = \"licences/{name}\", to = \"/opt/licence\" }}"));
        let said = scene.try_make(&ann(), &[]);
        assert_ne!(said.code, 0, "a file of root's was read: {}", said.whole());
        said.never_says("for root only").never_says("root:").helps();
        scene.nothing_left();
    }
    for path in ["../../../../run/world/secret-licence", "/run/world/secret-licence"] {
        scene.write(&format!("licence = {{ file = \"{path}\", to = \"/opt/licence\" }}"));
        let said = scene.try_make(&ann(), &[]);
        assert_ne!(said.code, 0, "{path}: {}", said.whole());
        said.never_says("for root only").helps();
    }
    std::fs::remove_file(secret).unwrap();
}

/// A request as a person could send it, past the command: the daemon believes nothing that it says.
fn request(person: &Person, method: &str, path: &str, body: &serde_json::Value) -> Outcome {
    let body = body.to_string();
    let url = format!("http://moorage{path}");
    person.run(
        "curl",
        &[
            "-sS",
            "-N",
            "--max-time",
            "60",
            "--unix-socket",
            "/run/moorage/api.sock",
            "-X",
            method,
            "-H",
            "Moorage-Api: 1",
            "-H",
            "Content-Type: application/json",
            "-w",
            "\nstatus %{http_code}\n",
            "-d",
            &body,
            &url,
        ],
    )
}

/// Answered with a fault of kind `denied`: over HTTP, or as the last event.
#[track_caller]
fn denied(answer: &Outcome) {
    assert!(answer.stdout.contains("\"denied\""), "not denied:\n{}", answer.whole());
}

#[test]
fn the_daemon_takes_every_request_as_hostile() {
    let scene = Scene::with_product("forged");
    let carol = carol();
    scene.knows(&carol);
    let honest = scene.make(&ann(), &[]);
    let shown = ann().moorage(&["show-container", &honest.name(), "--format", "json"]).ok().json();
    let mut spec = shown["spec"].clone();
    spec["name"] = format!("{}-forged-carol", scene.project).into();
    spec["owner"] = "carol".into();
    spec["authorized_keys"] = serde_json::json!({});
    let forge = |key: &str, value: serde_json::Value| {
        let mut forged = spec.clone();
        forged[key] = value;
        request(&carol, "POST", "/v1/containers", &serde_json::json!({ "spec": forged, "wait": false }))
    };
    denied(&forge("owner", "ann".into()));
    denied(&forge("owner", "@support".into()));
    denied(&forge("capabilities", serde_json::json!(["SYS_ADMIN"])));
    denied(&forge("mounts", serde_json::json!([{ "source": "/etc", "target": "/mnt", "read_only": false }])));
    denied(&forge("mounts", serde_json::json!([{ "source": "/", "target": "/mnt", "read_only": true }])));
    denied(&forge("opt", serde_json::json!([{ "url": "file:///etc/shadow" }])));
    denied(&forge("image", "elsewhere.example:5000/evil:latest".into()));
    let network = forge("network", "host".into());
    assert!(!network.stdout.contains("\"done\""), "{}", network.whole());
    for (key, value) in [
        ("files", serde_json::json!([{ "to": "../../etc/passwd", "mode": 420, "content": [120] }])),
        ("files", serde_json::json!([{ "to": "/opt/../../etc/x", "mode": 2541, "content": [120] }])),
        ("name", "../../etc".into()),
        ("sources", serde_json::json!([{ "repo": "x", "to": "../../etc" }])),
        ("unheard_of", true.into()),
    ] {
        let answer = forge(key, value);
        assert!(!answer.stdout.contains("\"done\""), "{key} was taken:\n{}", answer.whole());
    }
    // Another person's container cannot be touched past the command either.
    for verb in ["stop", "start", "restart", "remove"] {
        denied(&request(
            &carol,
            "POST",
            &format!("/v1/containers/{}/{verb}", honest.name()),
            &serde_json::json!({}),
        ));
    }
    scene.inside(&ann(), &honest.name(), "/opt/product/say").ok();
    assert_eq!(scene.containers().len(), 1, "something forged is there: {:?}", scene.containers());
}

#[test]
fn the_plugin_socket_is_roots_alone() {
    let socket = std::fs::metadata("/run/moorage/plugin.sock").unwrap();
    assert_eq!((socket.uid(), socket.permissions().mode() & 0o077), (0, 0));
    let call =
        carol().shell("curl -s --unix-socket /run/moorage/plugin.sock -X POST http://p/Plugin.Activate");
    assert_ne!(call.code, 0, "{}", call.whole());
}

#[test]
fn a_large_request_and_junk_are_refused_and_the_daemon_goes_on() {
    let carol = carol();
    let junk = "head -c 20000000 /dev/zero | curl -s --max-time 30 --unix-socket /run/moorage/api.sock -X POST -H 'Moorage-Api: 1' \
                -H 'Content-Type: application/json' --data-binary @- -o /dev/null -w '%{http_code}' http://m/v1/containers || :";
    let status = carol.shell(junk).stdout;
    assert!(!status.starts_with('2'), "{status}");
    carol.shell("printf 'no HTTP at all\\n\\n' | curl -s telnet://x --unix-socket /run/moorage/api.sock --max-time 5 || :").ok();
    bob().moorage(&["list-containers"]).ok();
}

/// What curl got from the daemon: the status and the body. `more` are arguments of curl.
fn asked(person: &Person, more: &[&str]) -> (String, serde_json::Value) {
    let socket =
        ["-sS", "--max-time", "60", "--unix-socket", "/run/moorage/api.sock", "-w", "\n%{http_code}"];
    let answer = Outcome::of(person.command("curl").args(socket).args(more)).ok();
    let (body, status) = answer.stdout.rsplit_once('\n').unwrap();
    (status.to_owned(), serde_json::from_str(body).unwrap_or_else(|_| body.into()))
}

#[test]
fn a_command_of_another_version_is_told_which_side_to_mend() {
    for header in ["Moorage-Api: 999", "Moorage-Api: 0", "Moorage-Api: one", "X-Nothing: 1"] {
        for path in ["/v1/containers", "/v1/leases", "/v1/containers/any"] {
            let (status, fault) = asked(&carol(), &["-H", header, &format!("http://moorage{path}")]);
            assert_eq!(status, "426", "{header} {path}: {fault}");
            assert_eq!(fault["kind"], "missing", "{fault}");
            assert!(fault["what"].as_str().unwrap().contains("different versions"), "{fault}");
            assert!(fault["why"][0].as_str().unwrap().contains("the daemon speaks 1"), "{fault}");
            assert!(fault["next"].as_str().unwrap().contains("restart the daemon"), "{fault}");
        }
    }
    // Anybody may ask for the version, or no two sides could find out.
    let (status, version) = asked(&carol(), &["http://moorage/v1/version"]);
    assert_eq!((status.as_str(), &version["api"]), ("200", &1.into()));
}

/// A request of `size` bytes that is no request but well-formed JSON.
fn sized(person: &Person, size: usize) -> (String, serde_json::Value) {
    let path = person.home.join(format!("body-{size}"));
    std::fs::write(&path, format!("\"{}\"", "x".repeat(size - 2))).unwrap();
    let body = format!("@{}", path.display());
    let headers = ["-H", "Moorage-Api: 1", "-H", "Content-Type: application/json", "-H", "Expect:"];
    let answer =
        asked(person, &[&headers[..], &["--data-binary", &body, "http://moorage/v1/containers"]].concat());
    std::fs::remove_file(path).unwrap();
    answer
}

#[test]
fn a_request_is_at_most_eight_mebibytes() {
    let (status, fault) = sized(&carol(), 8 << 20);
    assert_eq!((status.as_str(), &fault["kind"]), ("400", &"usage".into()), "{fault}");
    let (status, answer) = sized(&carol(), (8 << 20) + 1);
    assert_eq!((status.as_str(), &answer["kind"]), ("400", &"usage".into()), "{answer}");
    assert!(answer["what"].to_string().contains("larger than 8 MiB"), "{answer}");
    carol().moorage(&["list-containers"]).ok();
}

/// This takes all that one person may have.
mod alone {
    use std::io::{BufRead as _, BufReader};
    use std::process::Stdio;

    use super::*;

    /// Opens so many connections, says so, and closes them in good order when its input ends.
    const HOLD: &str = r#"
        use IO::Socket::UNIX;
        my @open = map { IO::Socket::UNIX->new(Peer => "/run/moorage/api.sock") or die "connect: $!" } 1 .. shift;
        $| = 1;
        print "open\n";
        <STDIN>;
        for (@open) { shutdown($_, 1); my $byte; sysread($_, $byte, 1) }
    "#;

    #[test]
    fn one_person_has_128_connections_and_disturbs_nobody_with_them() {
        let mut holding = carol()
            .command("perl")
            .args(["-e", HOLD, "128"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(holding.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "open\n");
        // Accepted in their order: this one comes after all of them.
        carol().moorage(&["list-containers"]).ends(6).says("128 connections").helps();
        for other in [ann(), bob(), root()] {
            other.moorage(&["list-containers"]).ok();
        }
        let scene = Scene::new("beside128");
        scene.make(&ann(), &[]);
        drop(holding.stdin.take());
        assert!(holding.wait().unwrap().success());
        carol().moorage(&["list-containers"]).ok();
    }
}

#[test]
fn a_container_sees_nothing_of_the_host() {
    let scene = Scene::with_product("inside");
    let made = scene.make(&ann(), &[]);
    let name = made.name();
    let before = machine::mounts("/mnt");
    // Root inside is not root outside: no disk, no kernel settings, no other control group.
    for forbidden in [
        "sudo mount -t tmpfs x /mnt",
        "sudo sh -c 'echo 1 >/proc/sys/kernel/sysrq'",
        "sudo sh -c 'echo h >/proc/sysrq-trigger'",
        // Not one control group of the host, in any hierarchy.
        "for d in /sys/fs/cgroup /sys/fs/cgroup/*; do sudo mkdir $d/escape && exit 0; done; exit 1",
        "sudo sh -c 'for f in $(find /sys/fs/cgroup -name pids.max -o -name memory.limit_in_bytes); do echo 999999 >$f && exit 0; done; exit 1'",
        "sudo sh -c 'for f in $(find /sys/fs/cgroup -name release_agent); do echo x >$f && exit 0; done; exit 1'",
        "sudo chroot /proc/1/root/proc/1/root true && sudo dmesg",
        "sudo ip link add link eth0 name x type macvlan && sudo mount --bind /proc /mnt",
        "test -e /var/run/docker.sock || test -e /run/moorage/plugin.sock",
    ] {
        let said = scene.inside(&ann(), &name, forbidden);
        assert_ne!(said.code, 0, "{forbidden} worked inside: {}", said.whole());
    }
    assert_eq!(machine::mounts("/mnt"), before);
    let interfaces = scene.inside(&ann(), &name, "ls /sys/class/net | sort | tr '\\n' ' '").ok().stdout;
    assert_eq!(interfaces.trim(), "eth0 lo");
}
