//! `setup` on a host that is set up.

use std::os::unix::fs::MetadataExt as _;

use crate::support::{Scene, ann, machine, root};

/// All that setup could change: files with their times, the network, the daemons.
fn state() -> String {
    let mut state = String::new();
    for top in ["/etc/moorage", "/etc/docker", "/usr/local/bin"] {
        let mut paths = machine::files(top, "");
        paths.sort();
        for path in paths {
            let file = std::fs::symlink_metadata(&path).unwrap();
            state +=
                &format!("{path} {:o} {} {}.{}\n", file.mode(), file.ino(), file.mtime(), file.mtime_nsec());
        }
    }
    for file in ["/run/moorage/daemon.pid", "/run/docker.pid"] {
        state += &format!("{file} {}", std::fs::read_to_string(file).unwrap());
    }
    state
        + &root()
            .run("docker", &["network", "inspect", "lan", "--format", "{{.ID}} {{.Created}}"])
            .ok()
            .stdout
}

#[test]
fn a_second_time_there_is_nothing_to_do() {
    let before = state();
    assert!(
        before.contains("/etc/moorage/config.toml") && before.contains("/usr/local/bin/make-dev-container")
    );
    let parent = machine::parent();
    root().moorage(&["setup", "--yes", "--parent", &parent]).ok().says("nothing to do");
    // The interface is known by now.
    let json = root().moorage(&["setup", "--yes", "--format", "json"]).ok().json();
    assert_eq!(json["steps"], serde_json::json!([]));
    root().moorage(&["setup", "--dry-run"]).ok().says("nothing to do");
    assert_eq!(before, state());
}

#[test]
fn another_parent_is_refused_with_the_way_to_change_it() {
    let before = state();
    let said = root().moorage(&["setup", "--yes", "--parent", "lo"]).ends(5);
    said.says(&machine::parent()).says("docker network rm lan").says("/etc/moorage/config.toml").helps();
    assert_eq!(before, state());
}

#[test]
fn another_name_of_the_network_is_refused() {
    root().moorage(&["setup", "--yes", "--network", "other"]).ends(5).says("network = \"other\"").helps();
    root().run("docker", &["network", "inspect", "other"]).ends(1);
}

#[test]
fn only_root_sets_a_host_up() {
    ann().moorage(&["setup", "--yes"]).ends(6).says("sudo").helps();
}

/// What there is of a site for everybody on this host, for as long as this lives.
struct SiteForAll(String);

impl SiteForAll {
    const CONFIG: &str = "/etc/moorage/config.toml";
    const SITE: &str = "/etc/moorage/site";

    fn configured() -> SiteForAll {
        let before = std::fs::read_to_string(Self::CONFIG).unwrap();
        std::fs::write(Self::CONFIG, format!("site = \"{}\"\n{before}", Self::SITE)).unwrap();
        SiteForAll(before)
    }
}

impl Drop for SiteForAll {
    fn drop(&mut self) {
        std::fs::write(Self::CONFIG, &self.0).unwrap();
        let _ = std::fs::remove_dir_all(Self::SITE);
    }
}

mod alone {
    use super::*;

    #[test]
    fn a_sites_definitions_come_by_ssh_from_a_host_that_is_known() {
        let scene = Scene::new("sitehost");
        root().public_key();
        let host = scene.make(&root(), &[]);
        let inside = |script: &str| scene.inside(&root(), &host.name(), script).ok();
        let commit = "git -c user.name=t -c user.email=t@localhost commit --quiet --message change";
        inside(&format!(
            "git init --quiet /opt/site && cd /opt/site && mkdir -p dockeruser/projects && \
             printf '[defaults]\\nimage = \"demo\"\\n[[branch]]\\nmatch = \"main\"\\n' >dockeruser/projects/bysite.toml && \
             git add . && {commit}"
        ));
        let _site = SiteForAll::configured();
        let url = format!("ssh://root@{}/opt/site", host.address());
        let known = root().home.join(".ssh/known_hosts");
        let _ = std::fs::remove_file(&known);
        root().moorage(&["setup", "--yes", "--site-repo", &url]).ends(1).says("hostkey").helps();
        assert!(!std::path::Path::new(SiteForAll::SITE).exists());

        std::fs::write(&known, format!("{} {}\n", host.address(), host.host_key())).unwrap();
        root().moorage(&["setup", "--yes", "--site-repo", &url]).ok().says("clone the site's definitions");
        ann().moorage(&["list-projects"]).ok().says("bysite");
        inside(&format!(
            "cd /opt/site && sed -i s/main/9.2/ dockeruser/projects/bysite.toml && git add . && {commit}"
        ));
        root().moorage(&["setup", "--yes", "--site-repo", &url]).ok();
        ann().moorage(&["list-projects"]).ok().says("9.2");
        std::fs::remove_file(&known).unwrap();
    }
}
