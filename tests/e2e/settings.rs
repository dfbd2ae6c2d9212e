//! What a project's file says arrives inside, all of it in one container.

use std::path::Path;

use crate::support::groups::Groups;
use crate::support::{Scene, ann, root};

#[test]
fn every_setting_arrives_inside() {
    let scene = Scene::new("settings");
    let (first, second) = (
        scene.repository_called("first", &[("README", 0o644, "the first\n")]),
        scene.repository_called("second", &[("bin/run", 0o755, "#!/bin/sh\necho the second\n")]),
    );
    let licences = Path::new(scene.site()).join("dockeruser/licences");
    std::fs::write(licences.join("a.lic"), "licence of {project}, kept byte by byte\0\n").unwrap();
    std::fs::write(licences.join("b.lic"), "another\n").unwrap();
    scene.raw(&format!(
        r#"
[defaults]
image = "demo"
env = {{ PRODUCT_HOME = "/opt/product", GREETING = "good day, {{owner}} of {{branch}}" }}
ulimits = {{ nofile = {{ soft = 5000, hard = 20000 }}, core = 0 }}
shm = "128MiB"
limits = {{ memory = "1GiB", pids = 4000, cpu_weight = 50, io = {{ write = "200MB", read_ops = 4000 }} }}
[[defaults.licence]]
file = "licences/a.lic"
to = "/opt/product/etc/licence"
mode = 0o600
[[defaults.licence]]
file = "licences/b.lic"
to = "/etc/product/licence"
[[defaults.source]]
repo = "{first}"
[[defaults.source]]
repo = "{second}"
ref = "main"
to = "/opt/second"
[[branch]]
match = "main"
env = {{ ONLY = "{{project}}" }}
"#
    ));
    let ann = ann();
    let made = scene.make(&ann, &[]);
    let name = made.name();
    // Logged in by ssh and entered, it is the same.
    let both = |script: &str, expected: &str| {
        assert_eq!(scene.ssh(&ann, &made, script).ok().stdout, expected, "by ssh: {script}");
        assert_eq!(scene.inside(&ann, &name, script).ok().stdout, expected, "entered: {script}");
    };
    both(
        "echo \"$PRODUCT_HOME|$GREETING|$ONLY\"",
        &format!("/opt/product|good day, ann of main|{}\n", scene.project),
    );
    both("ulimit -Sn; ulimit -Hn; ulimit -c", "5000\n20000\n0\n");
    both("df -B1 --output=size /dev/shm | tail -n 1 | tr -d ' '", "134217728\n");
    both(
        "sudo stat -c '%a %U %G' /opt/product/etc/licence /etc/product/licence",
        "600 root root\n644 root root\n",
    );
    let content =
        scene.inside(&ann, &name, "sudo cat /opt/product/etc/licence /etc/product/licence").ok().stdout;
    assert_eq!(content, "licence of {project}, kept byte by byte\0\nanother\n");
    both(
        "cat /opt/src/first/README; /opt/second/bin/run; stat -c %U /opt/src/first /opt/second",
        "the first\nthe second\nann\nann\n",
    );
    both("git -C /opt/second rev-parse --abbrev-ref HEAD", "main\n");

    let limits = Groups::of(&name);
    assert_eq!(limits.memory(), 1 << 30);
    assert_eq!(limits.pids(), 4000);
    assert_eq!(limits.cpu_weight(), 50);
    assert_eq!(limits.io(), [0, 200_000_000, 4000, 0]);
}

#[test]
fn what_a_project_does_not_say_is_the_hosts_default() {
    let scene = Scene::new("defaults");
    let made = scene.make(&ann(), &[]);
    let limits = Groups::of(&made.name());
    assert_eq!(limits.pids(), 8192);
    assert_eq!(limits.cpu_weight(), 100);
    scene.inside(&ann(), &made.name(), "df -B1 --output=size /dev/shm | tail -n 1").ok().says("67108864");
}

#[test]
fn licences_up_to_a_mebibyte_arrive_and_too_many_are_refused() {
    let scene = Scene::new("large");
    let licences = Path::new(scene.site()).join("dockeruser/licences");
    let large: Vec<u8> = (0..1 << 20).map(|byte: u32| (byte % 251) as u8).collect();
    std::fs::write(licences.join("large.lic"), &large).unwrap();
    let settings = |count: usize| {
        let licence = |n| {
            format!(
                "[[defaults.licence]]\nfile = \"licences/large.lic\"\nto = \"/opt/product/licence-{n}\"\n"
            )
        };
        let all: String = (0..count).map(licence).collect();
        scene.raw(&format!("[defaults]\nimage = \"demo\"\n{all}[[branch]]\nmatch = \"main\"\n"));
    };
    settings(7);
    scene.try_make(&ann(), &[]).ends(2).says("larger than 8 MiB").helps();
    settings(3);
    let made = scene.make(&ann(), &[]);
    let sum = "sha256sum </opt/product/licence-2";
    let (inside, here) = (
        scene.inside(&ann(), &made.name(), sum).ok().stdout,
        root().shell(&format!("sha256sum <{}", licences.join("large.lic").display())).ok().stdout,
    );
    assert_eq!(inside, here);
}
