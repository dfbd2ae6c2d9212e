//! Cloning what is busy, interrupted, elsewhere, old or full; and clones whose project says when they are ready.

use std::process::Stdio;

use rustix::process::Signal;
use serde_json::Value;

use crate::support::{Outcome, Running, Scene, ann, bob, docker, root};

#[track_caller]
fn clone(name: &str, more: &[&str]) -> Value {
    try_clone(name, more).ok().json()
}

fn try_clone(name: &str, more: &[&str]) -> Outcome {
    ann().moorage(&[&["clone-container", name, "--format", "json", "--yes"], more].concat())
}

#[track_caller]
fn names(cloned: &Value) -> Vec<String> {
    let clones = cloned["clones"].as_array().unwrap().iter();
    clones.map(|clone| clone["name"].as_str().unwrap().to_owned()).collect()
}

/// An image of this name: the demo image and these lines of a Dockerfile.
fn image(scene: &Scene, name: &str, lines: &str) -> String {
    let tag = format!("moorage/{}-{name}", scene.project);
    let script = format!(
        "mkdir {name}-context; cd {name}-context; echo file >file; printf '%s\\n' 'FROM moorage/demo' '{}' >Dockerfile; \
         docker build -q -t {tag} .; cd ..; rm -r {name}-context",
        lines.replace('\n', "' '")
    );
    root().shell(&script).ok();
    tag
}

#[test]
fn what_is_cloned_while_it_is_written_to_is_a_state_that_it_had() {
    let scene = Scene::with_product("busy");
    let name = scene.make(&ann(), &[]).name();
    scene.inside(&ann(), &name, "sudo install -d -o ann /var/lib/busy").ok();
    // First in /opt, then in the root filesystem: at no moment is the second ahead, or more than one behind.
    let write = "n=0; while :; do n=$((n+1)); echo $n >/opt/home/ann/.new; mv /opt/home/ann/.new /opt/home/ann/first; \
         echo $n >/var/lib/busy/.new; mv /var/lib/busy/.new /var/lib/busy/second; [ $n != 50 ] || echo begun; done";
    let mut writer = ann().command("moorage");
    writer
        .args(["enter-container", &name, "--", "sh", "-euc", write])
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    let mut writer = writer.spawn().unwrap();
    let mut said = String::new();
    let out = writer.stdout.take().unwrap();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(out), &mut said).unwrap();
    assert_eq!(said, "begun\n");
    let cloned = clone(&name, &["--count", "2"]);
    let read = "cat /opt/home/ann/first /var/lib/busy/second";
    let mut seen = Vec::new();
    for one in names(&cloned) {
        let said = scene.inside(&ann(), &one, read).ok().stdout;
        let numbers: Vec<u64> = said.lines().map(|line| line.parse().unwrap()).collect();
        assert!(
            numbers[0] >= 50 && (numbers[0] == numbers[1] || numbers[0] == numbers[1] + 1),
            "{numbers:?}"
        );
        seen.push(numbers);
    }
    assert_eq!(seen[0], seen[1]);
    // The source has that very state: the writer ended with it.
    let said = scene.inside(&ann(), &name, read).ok().stdout;
    assert_eq!(said.lines().map(|line| line.parse::<u64>().unwrap()).collect::<Vec<_>>(), seen[0]);
    let _ = writer.kill();
    writer.wait().unwrap();
}

#[test]
fn ctrl_c_while_cloning_leaves_no_clone_and_the_source_as_it_was() {
    let scene = Scene::with_product("clonectrlc");
    let made = scene.make(&ann(), &[]);
    let name = made.name();
    scene.inside(&ann(), &name, "echo kept >/opt/home/ann/kept").ok();
    for step in ["address", "stop", "root", "clones"] {
        let mut running = Running::start(&ann(), &["clone-container", &name, "--count", "2", "--yes"]);
        let reached = running.reaches(step);
        running.signal(Signal::INT);
        let end = running.end();
        assert!(reached, "{step}: {}", end.whole());
        // A step that was over before the signal came is done.
        if end.code == 130 {
            end.helps();
            assert_eq!(scene.containers().len(), 1, "{step}: {:#?}", scene.containers());
        } else {
            end.ok();
            ann().moorage(&["remove-container", "--clones-of", &name, "--yes"]).ok();
        }
        ann().moorage(&["start-container", &name]).ok();
        scene.ssh(&ann(), &made, "cat kept; /opt/product/say").ok().says("kept").says(&scene.project);
    }
    assert_eq!(names(&clone(&name, &["--count", "2"])).len(), 2);
}

#[test]
fn clones_are_waited_for_until_their_project_says_they_are_ready() {
    let scene = Scene::new("cloneready");
    // It needs something that a service of the container makes a while after the boot, anew in each.
    scene.write("ready = \"test -e /run/product-is-up\"");
    ann().public_key();
    scene.knows(&ann());
    let unit = "printf '[Service]\\nExecStart=/bin/sh -c \"sleep 1; touch /run/product-is-up\"\\n[Install]\\nWantedBy=multi-user.target\\n' \
         | sudo tee /etc/systemd/system/product.service >/dev/null; sudo systemctl enable -q --now product";
    let name = format!("{}-main-ann", scene.project);
    // The first waits for what only we can bring about from outside.
    let mut making = Running::start(&ann(), &scene.words(&[]));
    assert!(making.reaches("ready"));
    scene.inside(&ann(), &name, unit).ok();
    making.end().ok();
    let cloned = clone(&name, &["--count", "2"]);
    assert_eq!(cloned["not_ready"], serde_json::json!([]));
    for one in names(&cloned) {
        scene.inside(&ann(), &one, "test -e /run/product-is-up").ok();
    }
}

#[test]
fn clones_are_where_their_source_is_and_a_chosen_address_is_not_shared() {
    let scene = Scene::with_product("cloneplaces");
    let make = |name: &str, address: &str| {
        let wish = format!("{}-{name}", scene.project);
        scene.make(&ann(), &["--name", &wish, "--address", address]).name()
    };
    let (nat, none) = (make("nat", "nat"), make("none", "none"));
    let fixed = make("fixed", "10.86.0.12/24@10.86.0.1");
    let said = ann().moorage(&["clone-container", &fixed, "--dry-run"]).ok();
    said.says("10.86.0.12").says("DHCP").says("alone");
    let address = |cloned: &Value| cloned["clones"][0]["address"].as_str().map(str::to_owned);
    let cloned = clone(&fixed, &[]);
    let own = address(&cloned).unwrap();
    assert!(own.starts_with("10.86.0.") && own != "10.86.0.12", "{own}");
    assert_eq!(scene.containers().iter().filter(|one| one["address"] == "10.86.0.12").count(), 1);
    let cloned = clone(&nat, &[]);
    assert_eq!(cloned["clones"][0]["network"], "nat");
    assert!(address(&cloned).unwrap().starts_with("172."), "{cloned:#}");
    let cloned = clone(&none, &[]);
    assert_eq!((address(&cloned), &cloned["clones"][0]["network"]), (None, &"none".into()));
    scene.inside(&ann(), &names(&cloned)[0], "ls /sys/class/net").ok().never_says("eth0");
}

#[test]
fn a_groups_container_with_mapped_directories_is_cloned_by_a_member() {
    let scene = Scene::with_product("clonegroup");
    let mount = "/opt/reference:/data/reference:ro";
    let source = scene.make(&ann(), &["--owner", "@support", "--mount", mount]).name();
    scene.inside(&ann(), &source, "sudo sh -c 'echo ours >/opt/ours'").ok();
    let words = ["clone-container", &source, "--count", "2", "--yes", "--format", "json"];
    let cloned = bob().moorage(&words).ok().json();
    for one in names(&cloned) {
        assert!(one.ends_with("-support"), "{one}");
        let said =
            scene.inside(&ann(), &one, "cat /opt/ours /data/reference/file; ! sudo touch /data/reference/x");
        assert_eq!(said.ok().stdout, "ours\nreference\n");
        scene.inside(&bob(), &one, "cat /opt/ours").ok().says("ours");
    }
    ann().moorage(&["remove-container", "--clones-of", &source, "--yes"]).ok();
    assert_eq!(scene.containers().len(), 1);
}

#[test]
fn a_container_made_anew_of_another_image_keeps_what_it_is() {
    let scene = Scene::with_product("anewimage");
    let made = scene.make(&ann(), &[]);
    let name = made.name();
    scene.inside(&ann(), &name, "echo kept >/opt/home/ann/kept; sudo sh -c 'echo lost >/etc/lost'").ok();
    let image = image(&scene, "two", "COPY file /etc/of-the-new-image") + ":latest";
    let anew = |more: &[&str]| {
        ann().moorage(&[&["recreate-container", name.as_str(), "--image", image.as_str()], more].concat())
    };
    anew(&["--dry-run"]).ok().says("/etc/lost").says(&image);
    scene.ssh(&ann(), &made, "test -e /etc/lost").ok();
    anew(&["--yes"]).ok();
    let said = scene.ssh(&ann(), &made, "cat kept /etc/of-the-new-image; test ! -e /etc/lost; hostname").ok();
    assert_eq!(said.stdout, format!("kept\nfile\n{name}\n"));
    assert_eq!(docker(&["exec", &name, "cat", "/sys/class/net/eth0/address"]), made.mac());
    let absent = format!("{image}-absent");
    ann().moorage(&["recreate-container", &name, "--image", &absent, "--yes"]).ends(4).helps();
    ann().moorage(&["recreate-container", &name, "--image", "registry.example/x:1", "--yes"]).ends(6).helps();
    scene.ssh(&ann(), &made, "cat kept").ok();
    scene.remove_all();
    docker(&["rmi", &image]);
}

#[test]
fn a_root_filesystem_of_many_layers_becomes_one() {
    let scene = Scene::new("deeproot");
    let layers: Vec<String> = (0..64).map(|number| format!("COPY file /layers/{number}")).collect();
    let image =
        image(&scene, "deep", &format!("ENV ODD=\"a b\"\nSTOPSIGNAL SIGRTMIN+4\n{}", layers.join("\n")));
    ann().public_key();
    scene.knows(&ann());
    let words = ["make-os-container", &image, "--name", &scene.project, "--site", scene.site(), "--yes"];
    ann().moorage(&words).ok();
    let name = format!("{}-ann", scene.project);
    let change = "sudo rm /layers/7; echo configured | sudo tee /etc/configured; sudo chown 1234:2345 /layers/8; sudo chmod 4751 /layers/8";
    scene.inside(&ann(), &name, change).ok();
    let cloned = clone(&name, &["--name", &format!("{}-two", scene.project)]);
    let two = names(&cloned).remove(0);
    let count = |name: &str| {
        let image = docker(&["inspect", "-f", "{{.Image}}", name]);
        docker(&["image", "inspect", "-f", "{{len .RootFS.Layers}}", &image])
    };
    assert_eq!(count(&two), "1");
    let seen = "cat /etc/configured; ls /layers | wc -l; stat -c '%u %g %a' /layers/8; echo $ODD; systemctl is-system-running --wait; \
         stat -c %a /usr/bin/sudo; test -s /etc/machine-id";
    let said = |name: &str| scene.inside(&ann(), name, seen).ok().stdout;
    assert!(said(&two).starts_with("configured\n63\n1234 2345 4751\na b\nrunning\n"), "{}", said(&two));
    assert_eq!(said(&two), said(&name));
    // And on from there.
    let third = names(&clone(&two, &["--name", &format!("{}-three", scene.project)])).remove(0);
    assert_eq!(count(&third), "2");
    for one in [&name, &two, &third] {
        assert_eq!(docker(&["inspect", "-f", "{{.Config.StopSignal}}", one]), "SIGRTMIN+4");
    }
    scene.remove_all();
    docker(&["rmi", &image]);
}

#[test]
fn docker_inside_a_container_is_answered_before_somebody_tries() {
    let scene = Scene::new("inner");
    let image = image(&scene, "docker", "COPY file /usr/sbin/dockerd");
    ann().public_key();
    scene.knows(&ann());
    let words = ["make-os-container", &image, "--name", &scene.project, "--site", scene.site(), "--yes"];
    ann().moorage(&words).ok().says("a Docker Engine").says("does not start inside");
    let name = format!("{}-ann", scene.project);
    // What it would do first.
    let mount = "cd /opt/home/ann; mkdir -p l u w m; sudo mount -t overlay -o lowerdir=l,upperdir=u,workdir=w overlay m";
    let said = scene.inside(&ann(), &name, mount);
    assert_ne!(said.code, 0, "{}", said.whole());
    scene.remove_all();
    docker(&["rmi", &image]);
}

/// These kill the daemon.
mod alone {
    use super::*;
    use crate::support::machine::{Daemons, daemon_with_failpoint, world};

    fn layers(name: &str) -> usize {
        let record = std::fs::read_to_string(format!("/var/lib/moorage/volumes/{name}.json")).unwrap();
        let record: Value = serde_json::from_str(&record).unwrap();
        let layers = record.pointer("/kind/overlay/layers").or_else(|| record.pointer("/kind/layers"));
        layers.and_then(Value::as_array).unwrap_or_else(|| panic!("no layers in {record:#}")).len()
    }

    #[test]
    fn a_high_stack_is_made_shorter_and_a_kill_in_the_middle_of_it_loses_nothing() {
        let scene = Scene::with_product("flatten");
        let made = scene.make(&ann(), &[]);
        let name = made.name();
        scene
            .inside(
                &ann(),
                &name,
                "cd /opt/home/ann; mkdir a; echo x >a/x; ln a/x a/y; sudo rm /opt/product/word",
            )
            .ok();
        ann().moorage(&["stop-container", &name]).ok();
        let home = format!("/opt/containers/{name}/opt/home/ann");
        let mut expected = String::new();
        let mut round = 0;
        while layers(&name) < 31 {
            ann()
                .shell(&format!("echo {round} >>{home}/rounds; mv {home}/a {home}/b; mv {home}/b {home}/a"))
                .ok();
            expected.push_str(&format!("{round}\n"));
            ann().moorage(&["snapshot-container", &name, "--name", &format!("s{round}")]).ok();
            round += 1;
        }
        let seen =
            "cat rounds a/x; stat -c %h a/y; test ! -e /opt/product/word; /opt/product/say 2>&1 || true";
        let _daemons = Daemons;
        for place in ["flatten-mounted", "flatten-copied", "freeze-begun"] {
            world("stop", "daemon");
            daemon_with_failpoint(place);
            let said = ann().moorage(&["snapshot-container", &name, "--name", "high"]);
            assert_eq!(said.code, 1, "{place} was never reached: {}", said.whole());
            said.says("daemon went away").helps();
            world("kill9", "daemon");
            world("start", "daemon");
            ann().moorage(&["start-container", &name]).ok();
            let said = scene.ssh(&ann(), &made, seen).ok();
            assert!(said.stdout.starts_with(&format!("{expected}x\n2\n")), "{place}: {}", said.whole());
            ann().moorage(&["stop-container", &name]).ok();
            let left = root().shell("ls /opt/containers/.store/partial").ok().stdout;
            assert_eq!(left, "", "{place}");
        }
        ann().moorage(&["snapshot-container", &name, "--name", "high"]).ok();
        assert!(layers(&name) <= 4, "{} layers", layers(&name));
        // What was taken before has its own stack, and a clone of now is what is here.
        ann().moorage(&["start-container", &name]).ok();
        let cloned = clone(&name, &[]);
        let said = scene.inside(&ann(), &names(&cloned)[0], &format!("cd; {seen}")).ok();
        assert!(said.stdout.starts_with(&format!("{expected}x\n2\n")), "{}", said.whole());
        ann().moorage(&["restore-container", &name, "s3", "--yes"]).ok();
        assert_eq!(scene.ssh(&ann(), &made, "cat rounds").ok().stdout, "0\n1\n2\n3\n");
        let all = ann().moorage(&["list-snapshots", "--format", "json"]).ok().json();
        for one in all["snapshots"].as_array().unwrap().iter().filter(|one| one["container"] == name.as_str())
        {
            let snapshot = one["snapshot"].as_str().unwrap();
            ann().moorage(&["remove-snapshot", &name, snapshot, "--yes"]).ok();
        }
    }

    #[test]
    fn a_store_that_is_full_while_it_is_cloned_says_so_and_loses_nothing() {
        let scene = Scene::with_product("clonefull");
        let _daemons = Daemons;
        world("stop", "daemon");
        let small = crate::support::small::Small::mounted("/opt/containers");
        world("start", "daemon");
        let made = scene.make(&ann(), &[]);
        let name = made.name();
        scene.inside(&ann(), &name, "echo kept >/opt/home/ann/kept").ok();
        let rest = "/opt/containers/rest";
        // Files leave room that only directories get.
        let fill = format!(
            "mkdir {rest}; cat /dev/zero >{rest}/bytes 2>/dev/null || true; sync; n=1; \
             while mkdir {rest}/$n 2>/dev/null; do n=$((n + 1)); done; sync"
        );
        root().shell(&fill).ok();
        // Full at once, and then a little later each time, until there is enough.
        let mut full = Vec::new();
        let cloned = loop {
            let tried = try_clone(&name, &["--count", "2"]);
            if tried.code == 0 {
                break tried.json();
            }
            // Enough for one of the two: that one stays.
            let code = if tried.code == 7 { 7 } else { 1 };
            if code == 7 {
                let one = names(&tried.json()).remove(0);
                ann().moorage(&["remove-container", &one, "--yes"]).ok();
            }
            full.push(tried.ends(code).says("space").helps().stderr);
            assert_eq!(scene.containers().len(), 1, "{:#?}", scene.containers());
            assert_eq!(docker(&["inspect", "-f", "{{.State.Running}}", &name]), "true");
            let partial = root().shell("ls /opt/containers/.store/partial").ok().stdout;
            assert_eq!(partial, "", "half made and left: {full:#?}");
            root().shell(&format!("cd {rest}; truncate -s -4K bytes; sync")).ok();
        };
        assert!(full.len() > 1, "it was never full in the middle: {full:#?}");
        assert_eq!(names(&cloned).len(), 2);
        root().shell(&format!("rm -r {rest}")).ok();
        scene.ssh(&ann(), &made, "cat kept").ok().says("kept");
        scene.remove_all();
        scene.nothing_left();
        world("stop", "daemon");
        drop(small);
    }
}
