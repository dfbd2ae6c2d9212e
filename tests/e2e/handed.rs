//! What of a lease software in a container is told, at once and when the server says otherwise later.

mod alone {
    use std::io::{BufRead as _, BufReader};
    use std::process::{Child, Stdio};

    use crate::support::machine::{Daemons, world};
    use crate::support::{Following, Made, Scene, ann, root};

    /// The lab's server with other options than its own, until this ends.
    struct Altered(Child);

    impl Altered {
        fn begin(options: &[&str]) -> Altered {
            let pid = root().run("pidof", &["-s", "dnsmasq"]).ok().stdout.trim().to_owned();
            let words = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap();
            let file = words.split('\0').find_map(|word| word.strip_prefix("--conf-file=")).unwrap();
            let own = std::fs::read_to_string(file).unwrap();
            let kept =
                own.lines().filter(|line| !line.starts_with("log-facility") && !line.starts_with("pid-file"));
            let lines: Vec<&str> = kept.chain(options.iter().copied()).collect();
            let file = crate::support::world().join("tmp/altered.conf");
            std::fs::write(&file, lines.join("\n") + "\n").unwrap();
            root().shell(&format!("kill {pid}; tail --pid={pid} -f /dev/null")).ok();
            let mut command = root().command("ip");
            command.args([
                "netns",
                "exec",
                "moorage-lab",
                "dnsmasq",
                "--keep-in-foreground",
                "--log-facility=-",
            ]);
            command.arg(format!("--conf-file={}", file.display())).arg("--pid-file=");
            let mut server = command.stderr(Stdio::piped()).spawn().unwrap();
            let mut said = BufReader::new(server.stderr.take().unwrap()).lines().map_while(Result::ok);
            let mut begin = Vec::new();
            let started = said.by_ref().any(|line| {
                begin.push(line);
                begin.last().is_some_and(|line| line.contains("DHCP, IP range"))
            });
            std::thread::spawn(move || said.for_each(drop));
            let altered = Altered(server);
            assert!(started, "the altered server does not start: {begin:?}");
            altered
        }
    }

    impl Drop for Altered {
        fn drop(&mut self) {
            let _ = self.0.kill();
            let _ = self.0.wait();
            root().moorage(&["scripthacker", "start-lab", "--no-ping"]).ok();
        }
    }

    fn inside(made: &Made, script: &str) -> String {
        root().run("docker", &["exec", &made.name(), "sh", "-euc", script]).ok().stdout.trim().to_owned()
    }

    /// The daemon's log from now on.
    fn log() -> Following {
        let mut tail = root().command("tail");
        Following::command(tail.args(["-n", "0", "-F", "/var/log/moorage/daemon.log"]))
    }

    fn told(log: &mut Following, made: &Made) {
        let name = made.name();
        log.until("word of the new servers", |line| {
            line.contains(&name) && line.contains("its DNS servers are")
        });
    }

    /// A daemon asks at once whether the leases of what runs are still right.
    fn renewed() {
        world("stop", "daemon");
        world("start", "daemon");
    }

    const NTP: &str = "/etc/systemd/timesyncd.conf.d/moorage.conf";

    #[test]
    fn other_servers_reach_a_running_container_and_one_that_is_made_anew() {
        let scene = Scene::with_product("handed");
        let made = scene.make(&ann(), &[]);
        assert!(inside(&made, "cat /etc/resolv.conf").contains("nameserver 127.0.0.11"));
        inside(&made, &format!("getent ahostsv4 {}.lab; ! test -e {NTP}", made.name()));
        let shown = ann().moorage(&["show-container", &made.name()]).ok();
        shown.says("DNS servers").says("search list").never_says("NTP servers");

        let _daemons = Daemons;
        let altered = Altered::begin(&[
            "dhcp-option=option:dns-server,10.86.0.1,10.86.0.3",
            "dhcp-option=option:domain-search,lab,other.example",
            "dhcp-option=option:ntp-server,10.86.0.1,10.86.0.4",
        ]);
        let mut log = log();
        renewed();
        told(&mut log, &made);
        let expected = "search lab other.example\nnameserver 10.86.0.1\nnameserver 10.86.0.3";
        let resolv = |made: &Made| inside(made, "grep -v '^#' /etc/resolv.conf");
        assert_eq!(resolv(&made), expected);
        // It asks them itself now, and finds what it found before.
        inside(&made, &format!("getent ahostsv4 {}", made.name()));
        inside(&made, "getent ahostsv4 gateway.lab");
        log.until("word of the time servers", |line| line.contains(&made.name()) && line.contains(NTP));
        let times = "systemd-analyze cat-config systemd/timesyncd.conf | grep ^NTP=";
        assert_eq!(inside(&made, times), "NTP=10.86.0.1 10.86.0.4");
        let shown = ann().moorage(&["show-container", &made.name()]).ok();
        shown.says("10.86.0.1 10.86.0.3").says("NTP servers 10.86.0.1 10.86.0.4");
        let leases = ann().moorage(&["list-leases", "--format", "json"]).ok().json();
        let of_it = |lease: &&serde_json::Value| lease["mac"] == made.mac().as_str();
        let lease = leases["leases"].as_array().unwrap().iter().find(of_it).unwrap().clone();
        assert_eq!(lease["ntp"], serde_json::json!(["10.86.0.1", "10.86.0.4"]));

        // Each start the engine writes what the container was made with; it is mended whoever starts it.
        ann().moorage(&["restart-container", &made.name()]).ok();
        assert_eq!(resolv(&made), expected);
        let mut log = self::log();
        root().run("docker", &["restart", &made.name()]).ok();
        told(&mut log, &made);
        assert_eq!(resolv(&made), expected);

        // One that is made now has them from the start, and the engine's resolver asks them.
        let other = scene.make(&ann(), &["--name", &format!("{}-b", scene.project)]);
        assert!(inside(&other, "cat /etc/resolv.conf").contains("nameserver 127.0.0.11"));
        inside(&other, &format!("getent ahostsv4 {}.lab", made.name()));
        assert_eq!(inside(&other, times), "NTP=10.86.0.1 10.86.0.4");

        // What a person has written inside is theirs.
        inside(
            &made,
            "echo nameserver 192.0.2.1 >/etc/resolv.conf; echo '[Time]' >/etc/systemd/timesyncd.conf.d/moorage.conf",
        );
        let mut log = self::log();
        renewed();
        log.until("word of the foreign file", |line| {
            line.contains(&made.name()) && line.contains("was changed inside")
        });
        assert_eq!(inside(&made, "cat /etc/resolv.conf"), "nameserver 192.0.2.1");
        assert_eq!(inside(&made, &format!("cat {NTP}")), "[Time]");

        drop(altered);
        let mut log = self::log();
        root().run("docker", &["restart", &other.name()]).ok();
        // The server's old words are another change.
        log.until("word of the time servers", |line| line.contains(&other.name()) && line.contains(NTP));
        assert_eq!(inside(&other, times), "NTP=");
    }
}
