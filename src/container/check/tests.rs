use super::bounds::{MOST, MOST_ENV, NAME, TEXT};
use super::*;
use crate::container::sample::spec;

fn ulimit(name: &str, soft: u64, hard: u64) -> std::collections::BTreeMap<String, crate::spec::Ulimit> {
    [(name.to_owned(), crate::spec::Ulimit { soft, hard })].into()
}

fn refused(change: impl FnOnce(&mut ContainerSpec)) -> Kind {
    let mut spec = spec();
    change(&mut spec);
    check(&spec, &HostConfig::default()).expect_err("it must be refused").kind
}

#[test]
fn what_the_site_resolves_to_passes() {
    check(&spec(), &HostConfig::default()).unwrap();
}

#[test]
fn the_names_of_others_are_refused() {
    for other in ["siem-9-2-bob", "siem-9-2-bob-0a1b2c", "siem-9-2-joann", "ann"] {
        assert_eq!(refused(|s| s.name = other.parse().unwrap()), Kind::Usage, "{other}");
    }
}

#[test]
fn foreign_registries_and_capabilities_are_denied() {
    assert_eq!(refused(|s| s.image = "evil.example:5000/x:latest".into()), Kind::Denied);
    assert_eq!(refused(|s| s.image = "localhost/x:1".into()), Kind::Denied);
    assert_eq!(refused(|s| s.capabilities = vec!["SYS_ADMIN".into()]), Kind::Denied);
    assert_eq!(refused(|s| s.network = "host".into()), Kind::Denied);
}

#[test]
fn images_are_named_with_their_tag_or_digest() {
    let digest = "a".repeat(64);
    for junk in
        ["", "-x:1", "a b:1", "../x:1", "x\n:1", "x", "registry.corp:5000/x", "x:", "x/../y:1", "x/./y:1"]
    {
        assert_eq!(refused(|s| s.image = junk.into()), Kind::Usage, "{junk:?}");
    }
    for junk in
        ["x/../../networks/y:1", "x//y:1", "/x:1", "x:1?a=b", "x:1#", "%2e%2e/x:1", "x@sha256:1", "a/b:c/d:1"]
    {
        assert_eq!(refused(|s| s.image = junk.into()), Kind::Usage, "{junk:?}");
    }
    assert_eq!(refused(|s| s.image = format!("sha256:{digest}")), Kind::Usage);
    assert_eq!(refused(|s| s.image = digest.clone()), Kind::Usage);
    for good in [
        "moorage/demo:latest".to_owned(),
        "x:1".into(),
        format!("a/b@sha256:{digest}"),
        format!("a_b/c-d:1@sha256:{digest}"),
    ] {
        image(&good, &HostConfig::default()).unwrap();
    }
}

#[test]
fn the_registry_of_the_hosts_images_is_allowed() {
    for registry in ["registry.corp:5000", "registry.corp:5000/team/x"] {
        let config = HostConfig { registry: Some(registry.into()), ..HostConfig::default() };
        image("registry.corp:5000/siem:latest", &config).unwrap();
        assert_eq!(image("registry.corp/siem:latest", &config).unwrap_err().kind, Kind::Denied);
    }
}

#[test]
fn archives_without_a_digest_come_from_files_and_registries_only() {
    assert_eq!(refused(|s| s.opt[0].url = "http://h/x.tar.gz".into()), Kind::Usage);
    assert_eq!(refused(|s| s.opt[0].url = "oci://other.corp/opt/x:1".into()), Kind::Denied);
    assert_eq!(refused(|s| s.opt[0].url = "oci://other.corp/opt/x".into()), Kind::Usage);
}

#[test]
fn paths_inside_are_plain_and_sources_stay_in_opt() {
    for junk in
        ["relative", "/opt/../etc/x", "/opt//x", "/opt/./x", "/etc/x", "/opt", "/opt/home/ann", "/opt/a\nb"]
    {
        assert_eq!(refused(|s| s.sources[0].to = junk.into()), Kind::Usage, "{junk:?}");
    }
    assert_eq!(refused(|s| s.files[0].to = "/a/../b".into()), Kind::Usage);
    assert_eq!(refused(|s| s.files[0].mode = 0o4755), Kind::Usage);
    for junk in ["/", "/opt", "/proc/x", "/sys", "/dev/sda", "/run/x", "data"] {
        assert_eq!(refused(|s| s.mounts[0].target = junk.into()), Kind::Usage, "{junk:?}");
    }
    assert_eq!(
        refused(|s| {
            let mut inner = s.sources[0].clone();
            inner.to.push_str("/inner");
            s.sources.push(inner);
        }),
        Kind::Usage
    );
}

#[test]
fn text_that_would_mean_more_than_itself_is_refused() {
    assert_eq!(refused(|s| drop(s.env.insert("A".into(), "x\nLD_PRELOAD=y".into()))), Kind::Usage);
    assert_eq!(refused(|s| drop(s.env.insert("A=B".into(), "x".into()))), Kind::Usage);
    assert_eq!(refused(|s| drop(s.authorized_keys.insert("ann".into(), vec!["a\nb".into()]))), Kind::Usage);
    assert_eq!(refused(|s| s.setup.push("a\0b".into())), Kind::Usage);
}

#[test]
fn no_text_is_longer_than_it_can_mean_something() {
    let long = || "x".repeat(TEXT + 1);
    assert_eq!(refused(|s| s.project = "x".repeat(NAME + 1)), Kind::Usage);
    assert_eq!(refused(|s| s.branch = "x".repeat(NAME + 1)), Kind::Usage);
    assert_eq!(refused(|s| s.patches = vec!["x".repeat(NAME + 1)]), Kind::Usage);
    assert_eq!(refused(|s| s.patches = vec!["p".into(); MOST + 1]), Kind::Usage);
    assert_eq!(refused(|s| s.sources[0].reference = Some("x".repeat(NAME + 1))), Kind::Usage);
    assert_eq!(refused(|s| s.sources[0].repo = long()), Kind::Usage);
    assert_eq!(refused(|s| s.opt[0].url = format!("file:///{}", long())), Kind::Usage);
    assert_eq!(refused(|s| s.mounts[0].source = format!("/{}", long())), Kind::Usage);
    assert_eq!(refused(|s| s.setup.push(long())), Kind::Usage);
    assert_eq!(refused(|s| s.ready = Some(long())), Kind::Usage);
    assert_eq!(refused(|s| drop(s.env.insert("A".into(), long()))), Kind::Usage);
    assert_eq!(refused(|s| drop(s.env.insert(long(), "x".into()))), Kind::Usage);
    assert_eq!(
        refused(|s| s.env = (0..=MOST_ENV).map(|i| (format!("A{i}"), "x".into())).collect()),
        Kind::Usage
    );
    assert_eq!(refused(|s| drop(s.authorized_keys.insert("ann".into(), vec![long()]))), Kind::Usage);
    assert_eq!(
        refused(|s| s.authorized_keys = (0..=MOST).map(|i| (i.to_string(), vec![])).collect()),
        Kind::Usage
    );
    for line in ["9.2\n", "\u{1b}[2J"] {
        assert_eq!(refused(|s| s.branch = line.into()), Kind::Usage, "{line:?}");
        assert_eq!(refused(|s| s.project = line.into()), Kind::Usage, "{line:?}");
        assert_eq!(refused(|s| s.patches = vec![line.into()]), Kind::Usage, "{line:?}");
        assert_eq!(refused(|s| s.sources[0].repo = line.into()), Kind::Usage, "{line:?}");
        assert_eq!(refused(|s| s.sources[0].reference = Some(line.into())), Kind::Usage, "{line:?}");
    }
}

#[test]
fn limits_of_the_host_hold() {
    let mut config = HostConfig::default();
    config.limits.max.memory = Some(crate::spec::ByteSize(1 << 30));
    let mut spec = spec();
    spec.limits.memory = Some(crate::spec::ByteSize(2 << 30));
    assert_eq!(check(&spec, &config).unwrap_err().kind, Kind::Denied);
    let size = |bytes| Some(crate::spec::ByteSize(bytes));
    assert_eq!(refused(|s| s.limits.cpu_weight = Some(0)), Kind::Usage);
    assert_eq!(refused(|s| s.limits.cpu_weight = Some(10_001)), Kind::Usage);
    assert_eq!(refused(|s| s.limits.pids = Some(0)), Kind::Usage);
    for absurd in [0, (6 << 20) - 1, u64::MAX] {
        assert_eq!(refused(|s| s.limits.memory = size(absurd)), Kind::Usage, "{absurd}");
    }
    assert_eq!(refused(|s| s.shm = size(1 << 63)), Kind::Usage);
    assert_eq!(refused(|s| s.ulimits = ulimit("rtprio", 1, 1)), Kind::Usage);
    assert_eq!(refused(|s| s.ulimits = ulimit("nice", 1, 1)), Kind::Usage);
    assert_eq!(refused(|s| s.ulimits = ulimit("nofiles", 1, 1)), Kind::Usage);
    assert_eq!(refused(|s| s.ulimits = ulimit("nofile", 2, 1)), Kind::Usage);
}

#[test]
fn what_is_done_to_disks_has_its_most_too() {
    let mut config = HostConfig::default();
    config.limits.max.io.write_ops = Some(100);
    let asked = |count| {
        let mut spec = spec();
        spec.limits.io.write_ops = count;
        check(&spec, &config).map_err(|fault| fault.kind)
    };
    assert_eq!(asked(Some(100)), Ok(()));
    assert_eq!(asked(None), Ok(()));
    assert_eq!(asked(Some(101)), Err(Kind::Denied));
    assert_eq!(asked(Some(0)), Err(Kind::Denied));
}

#[test]
fn a_limit_is_asked_for_or_the_default_or_the_most() {
    let limits = |cpu_weight, pids, memory: Option<u64>| Limits {
        cpu_weight,
        pids,
        memory: memory.map(crate::spec::ByteSize),
        ..Limits::default()
    };
    let host = HostLimits { default: limits(Some(2), Some(2), None), max: limits(Some(3), None, Some(3)) };
    assert_eq!(effective(&limits(Some(1), None, None), &host), limits(Some(1), Some(2), Some(3)));
    assert_eq!(effective(&Limits::default(), &HostLimits::default()).memory, None);
}
