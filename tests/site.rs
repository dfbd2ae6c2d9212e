//! Text of a site in, specification or error out. `tests/fixtures/site/corp` is a good site, every project of
//! `tests/fixtures/site/mistakes` is one mistake.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test ends at what it did not expect")]

use std::fmt::Write as _;
use std::path::Path;

use moorage::report::{Fault, Kind};
use moorage::site::{HostConfig, OsRequest, Request, Site};
use moorage::spec::MountSpec;

fn site(name: &str) -> Site {
    let directory = Path::new("tests/fixtures/site").join(name);
    Site::load(Some(&directory), HostConfig::default()).unwrap()
}

fn request(project: &str, branch: &str) -> Request {
    Request {
        project: project.into(),
        branch: branch.into(),
        patches: Vec::new(),
        owner: "ann".parse().unwrap(),
        name: None,
        mounts: Vec::new(),
        address: None,
        user: "ann".into(),
        members: Vec::new(),
        keys: Vec::new(),
    }
}

fn json(value: &impl serde::Serialize) -> String {
    serde_json::to_string_pretty(value).unwrap()
}

fn told(fault: &Fault) -> String {
    format!("{:?}: {fault}", fault.kind)
}

#[test]
fn a_branch_with_a_patch() {
    let mut request = request("siem", "9.2");
    request.patches = vec!["p3".into()];
    request.keys = vec![
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIDHhQ0sKKc6qVvcjM6W2wEXqMMDLgrUALnk9hWg5cfpk ann@laptop".into(),
        "# not a key".into(),
    ];
    insta::assert_snapshot!(json(&site("corp").resolve(&request).unwrap()));
}

#[test]
fn a_branch_by_its_glob_overrides_the_defaults_of_a_group() {
    let mut request = request("siem", "9.4");
    request.owner = "@support".parse().unwrap();
    request.members = vec!["bob".into(), "carl".into()];
    request.name = Some("golden".into());
    request.mounts =
        vec![MountSpec { source: "/data/case".into(), target: "/opt/case".into(), read_only: false }];
    insta::assert_snapshot!(json(&site("corp").resolve(&request).unwrap()));
}

#[test]
fn the_same_request_resolves_to_the_same_specification() {
    let one = site("corp").resolve(&request("siem", "9.2")).unwrap();
    let two = site("corp").resolve(&request("siem", "9.2")).unwrap();
    assert_eq!(json(&one), json(&two));
}

#[test]
fn the_built_in_demo() {
    let site = Site::load(None, HostConfig::default()).unwrap();
    insta::assert_snapshot!(json(&site.resolve(&request("demo", "main")).unwrap()));
    assert_eq!(
        site.bases().unwrap(),
        [
            "alma-8",
            "alma-9",
            "debian-11",
            "debian-12",
            "debian-13",
            "rhel-8",
            "rhel-9",
            "rocky-8",
            "rocky-9",
            "ubuntu-22.04",
            "ubuntu-24.04"
        ]
    );
    for base in site.bases().unwrap() {
        let repos = site.base(&base).unwrap().repos;
        let names_one = |name: &String| name.ends_with(".sources") || name.ends_with(".repo");
        assert!(repos.keys().any(names_one), "{base}");
    }
    assert!(!site.image("demo").unwrap().files.is_empty());
}

#[test]
fn a_vanilla_os() {
    let request = OsRequest {
        image: "debian-12".into(),
        owner: "ann".parse().unwrap(),
        name: None,
        mounts: Vec::new(),
        address: None,
        user: "ann".into(),
        members: Vec::new(),
        keys: Vec::new(),
    };
    let host = HostConfig { registry: Some("registry.corp:5000".into()), ..HostConfig::default() };
    let directory = Path::new("tests/fixtures/site/corp");
    let spec = Site::load(Some(directory), host).unwrap().os_spec(&request).unwrap();
    assert_eq!(spec.image, "registry.corp:5000/debian-12:latest");
    assert_eq!(spec.name.as_str(), "debian-12-ann");
    assert_eq!(spec.authorized_keys["ann"].len(), 1);
}

#[test]
fn a_tag_may_follow_from_what_was_typed_for_a_pattern() {
    let directory = tempfile::tempdir().unwrap();
    let projects = directory.path().join("dockeruser/projects");
    std::fs::create_dir_all(&projects).unwrap();
    let text = "[defaults]\nimage = \"demo\"\nopt = \"oci://registry.corp:5000/opt/x:{branch}\"\n[[branch]]\nmatch = \"9.*\"\n";
    std::fs::write(projects.join("p.toml"), text).unwrap();
    let site = Site::load(Some(directory.path()), HostConfig::default()).unwrap();
    assert_eq!(site.check_project("p").0, []);
    let listed = site.projects().unwrap();
    let of = |name: &str| listed.iter().find(|project| project.name == name).unwrap().clone();
    assert_eq!(of("p").branches[0].opt[0].url, "oci://registry.corp:5000/opt/x:{branch}");
    let spec = site.resolve(&request("p", "9.2")).unwrap();
    assert_eq!(spec.opt[0].url, "oci://registry.corp:5000/opt/x:9.2");
    // One that cannot be in a reference is told when it is typed.
    assert!(site.resolve(&request("p", "9.2+x")).is_err());
}

#[test]
fn projects_are_listed_with_their_branches() {
    insta::assert_snapshot!(json(&site("corp").projects().unwrap()));
}

#[test]
fn what_does_not_exist_is_told_with_what_does() {
    let site = site("corp");
    let mut patched = request("siem", "9.2");
    patched.patches = vec!["p4".into()];
    let mut twice = patched.clone();
    twice.patches = vec!["p3".into(), "p3".into()];
    let requests = [
        request("seim", "9.2"),
        request("siem", "8.0"),
        request("siem", "--force"),
        request("siem", "a/../b"),
        request("../siem", "9.2"),
        patched,
        twice,
    ];
    let mut all = String::new();
    for request in requests {
        writeln!(all, "{}", told(&site.resolve(&request).unwrap_err())).unwrap();
    }
    for fault in [
        site.base("debian-21").unwrap_err(),
        site.image("siem-el9").unwrap_err(),
        site.image_reference("debain-12").unwrap_err(),
        site.image_reference("a b").unwrap_err(),
    ] {
        writeln!(all, "{}", told(&fault)).unwrap();
    }
    insta::assert_snapshot!(all);
}

#[test]
fn every_mistake_in_a_file_says_where_and_what() {
    let site = site("mistakes");
    let names = site.files().stems("dockeruser/projects", ".toml").unwrap();
    let mut all = String::new();
    for name in names.iter().filter(|name| *name != "demo") {
        let mut request = request(name, "main");
        if name == "key-of-carl" {
            request.owner = "carl".parse().unwrap();
        }
        let fault = site.resolve(&request).expect_err(name);
        assert!(matches!(fault.kind, Kind::Usage | Kind::NotFound), "{name}: {fault:?}");
        writeln!(all, "{name}\n  {}", told(&fault)).unwrap();
    }
    insta::assert_snapshot!(all);
    let listed = site.projects().unwrap_err();
    assert_eq!(listed.kind, Kind::Usage);
}

#[test]
fn the_command_line_says_the_address_then_the_branch_then_the_project_then_the_host() {
    let directory = tempfile::tempdir().unwrap();
    let projects = directory.path().join("dockeruser/projects");
    std::fs::create_dir_all(&projects).unwrap();
    let text = "[defaults]\nimage = \"demo\"\naddress = \"nat\"\n\
                [[branch]]\nmatch = \"fixed\"\naddress = \"10.0.0.5/24@10.0.0.1\"\n[[branch]]\nmatch = \"*\"\n";
    std::fs::write(projects.join("p.toml"), text).unwrap();
    std::fs::write(projects.join("q.toml"), "[defaults]\nimage = \"demo\"\n").unwrap();
    let host = HostConfig { address: "none".parse().unwrap(), ..HostConfig::default() };
    let site = Site::load(Some(directory.path()), host).unwrap();
    let kind = |request: &Request| site.resolve(request).unwrap().address.to_string();
    assert_eq!(kind(&request("p", "fixed")), "10.0.0.5/24@10.0.0.1");
    assert_eq!(kind(&request("p", "main")), "nat");
    assert_eq!(kind(&request("q", "main")), "none");
    let asked = Request { address: Some("dhcp".parse().unwrap()), ..request("p", "fixed") };
    assert_eq!(kind(&asked), "dhcp");
}

/// Every key that a wrong one is answered with is in docs/site.md.
#[test]
fn the_documentation_knows_every_key() {
    let docs = std::fs::read_to_string("docs/site.md").unwrap();
    let directory = tempfile::tempdir().unwrap();
    let projects = directory.path().join("dockeruser/projects");
    std::fs::create_dir_all(&projects).unwrap();
    std::fs::write(projects.join("p.toml"), "[defaults]\nqqq = 1\n").unwrap();
    let config = directory.path().join("config.toml");
    std::fs::write(&config, "qqq = 1\n").unwrap();
    let site = Site::load(Some(directory.path()), HostConfig::default()).unwrap();
    for fault in [site.resolve(&request("p", "main")).unwrap_err(), HostConfig::load(&config).unwrap_err()] {
        let (_, keys) = fault.what.split_once("there are: ").unwrap();
        for key in keys.split(", ").filter(|key| *key != "limits") {
            assert!(docs.contains(&format!("`{key}`")), "docs/site.md does not tell of {key}");
        }
    }
}
