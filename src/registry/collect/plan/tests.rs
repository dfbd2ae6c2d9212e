use proptest::prelude::*;

use super::super::inventory::{Blob, Tag};
use super::super::manifest::Manifest;
use super::*;

const NOW: i64 = 1_000_000;
const HOUR: i64 = 3600;

fn d(n: u8) -> Digest {
    Digest([n; 32])
}

/// A registry written down: `repository:tag = manifest needs blob, blob` a line, pushed so many hours ago.
#[derive(Debug, Default)]
struct Fixture(Inventory);

impl Fixture {
    fn blob(&mut self, n: u8, hours: i64) {
        self.0.blobs.entry(d(n)).or_insert(Blob { size: u64::from(n), when: NOW - hours * HOUR });
    }

    fn manifest(&mut self, repository: &str, n: u8, hours: i64, says: Manifest) {
        let when = NOW - hours * HOUR;
        self.blob(n, hours);
        for blob in &says.blobs {
            self.0.blobs.entry(*blob).or_insert(Blob { size: u64::from(blob.0[0]), when });
        }
        let home = self.0.repositories.entry(repository.into()).or_default();
        home.layers.extend(says.blobs.iter().map(|blob| (*blob, when)));
        home.manifests.insert(d(n), when);
        self.0.manifests.insert(d(n), says);
    }

    /// An image whose one layer is ten more than its manifest, and its tag.
    fn image(&mut self, repository: &str, tag: &str, n: u8, hours: i64) {
        let says = Manifest { blobs: vec![d(n + 10)], ..Manifest::default() };
        self.manifest(repository, n, hours, says);
        self.tag(repository, tag, n, hours);
    }

    fn tag(&mut self, repository: &str, tag: &str, n: u8, hours: i64) {
        let home = self.0.repositories.entry(repository.into()).or_default();
        let mut past: Vec<Digest> = Vec::new();
        if let Some(before) = home.tags.get(tag) {
            past = before.past.iter().copied().chain([before.digest]).filter(|past| *past != d(n)).collect();
        }
        home.tags.insert(tag.into(), Tag { digest: d(n), when: NOW - hours * HOUR, past });
    }

    fn plan(&self, keep: Keep, used: &Used) -> Plan {
        plan(&self.0, used, &Policy { keep, grace: HOUR }, NOW).unwrap()
    }
}

fn last(n: usize) -> Keep {
    Keep { last: Some(n), ..Keep::default() }
}

fn names(plan: &Plan) -> Vec<String> {
    plan.tags.iter().map(|tag| format!("{}:{}", tag.repository, tag.tag)).collect()
}

fn gone(plan: &Plan) -> Vec<u8> {
    plan.blobs.iter().map(|blob| blob.digest.0[0]).collect()
}

/// Three tags of one repository, an hour and more apart.
fn three() -> Fixture {
    let mut fixture = Fixture::default();
    for (n, hours) in [(1, 50), (2, 40), (3, 30)] {
        fixture.image("siem", &format!("9.{n}"), n, hours);
    }
    fixture
}

#[test]
fn without_a_rule_every_tag_stays() {
    let plan = three().plan(Keep::default(), &Used::default());
    assert!(plan.is_empty(), "{plan:?}");
    assert_eq!((plan.kept.tags, plan.kept.manifests, plan.kept.bytes), (3, 3, 1 + 2 + 3 + 11 + 12 + 13));
}

#[test]
fn a_tag_goes_first_and_its_blobs_when_no_pull_can_be_under_way() {
    let mut fixture = three();
    let first = fixture.plan(last(1), &Used::default());
    assert_eq!(names(&first), ["siem:9.1", "siem:9.2"]);
    assert_eq!((first.manifests.len(), gone(&first).len()), (0, 0));
    assert_eq!(first.later, Later { manifests: 2, bytes: 1 + 2 + 11 + 12 });
    // The tags are gone for two hours.
    fixture.0.repositories.get_mut("siem").unwrap().tags.retain(|tag, _| tag == "9.3");
    let dropped = |n: u8, hours: i64| (("siem".to_owned(), d(n)), NOW - hours * HOUR);
    let used = Used { dropped: [dropped(1, 2), dropped(2, 0)].into(), ..Used::default() };
    let second = fixture.plan(last(1), &used);
    assert_eq!((names(&second).len(), gone(&second)), (0, vec![1, 11]));
    assert_eq!(second.later.manifests, 1);
    // Who will not wait gets all.
    let at_once = plan(&three().0, &Used::default(), &Policy { keep: last(1), grace: 0 }, NOW).unwrap();
    assert_eq!((gone(&at_once), at_once.bytes), (vec![1, 2, 11, 12], 1 + 2 + 11 + 12));
}

#[test]
fn each_rule_keeps_and_together_they_keep_more() {
    let rules = |keep: Keep| names(&three().plan(keep, &Used::default()));
    assert_eq!(rules(Keep { seconds: Some(45 * HOUR), ..Keep::default() }), ["siem:9.1"]);
    assert_eq!(rules(Keep { tags: vec!["*.1".into()], ..Keep::default() }), ["siem:9.2", "siem:9.3"]);
    assert_eq!(rules(Keep { tags: vec!["s*:9.[12]".into()], ..Keep::default() }), ["siem:9.3"]);
    assert_eq!(rules(Keep { last: Some(1), tags: vec!["9.1".into()], ..Keep::default() }), ["siem:9.2"]);
    assert_eq!(rules(Keep { tags: vec!["other:*".into()], ..Keep::default() }).len(), 3);
    let bad = Policy { keep: Keep { tags: vec!["[".into()], ..Keep::default() }, grace: 0 };
    let fault = Fault::of(&plan(&Inventory::default(), &Used::default(), &bad, NOW).unwrap_err());
    assert_eq!(fault.kind, Kind::Usage);
}

#[test]
fn what_is_in_use_stays_with_its_tag() {
    let used = Used { digests: [d(1)].into(), names: ["siem:9.2".into()].into(), ..Used::default() };
    assert!(three().plan(last(1), &used).is_empty());
    let pinned = |pattern: &str| Used { patterns: vec![pattern.into()], ..Used::default() };
    assert_eq!(names(&three().plan(last(0), &pinned("siem:9.[23]"))), ["siem:9.1"]);
    assert!(three().plan(last(0), &pinned("siem:{9.1,9.2*,?.3}")).is_empty());
    assert_eq!(three().plan(last(0), &pinned("other:*")).tags.len(), 3);
    // An image's id is the digest of its configuration.
    let mut fixture = three();
    fixture.0.manifests.get_mut(&d(1)).unwrap().config = Some(d(11));
    fixture.0.repositories.get_mut("siem").unwrap().tags.remove("9.1");
    let used = Used { digests: [d(11)].into(), ..Used::default() };
    assert!(fixture.plan(Keep::default(), &used).manifests.is_empty());
}

#[test]
fn what_an_image_was_built_on_stays_without_its_tag() {
    let mut fixture = Fixture::default();
    fixture.image("debian-12", "old", 1, 90);
    fixture.image("debian-12", "new", 2, 80);
    let says = Manifest { blobs: vec![d(11), d(13)], bases: vec![d(1)], ..Manifest::default() };
    fixture.manifest("siem", 3, 70, says);
    fixture.tag("siem", "9.2", 3, 70);
    let plan = plan(&fixture.0, &Used::default(), &Policy { keep: last(1), grace: 0 }, NOW).unwrap();
    assert_eq!((names(&plan), gone(&plan)), (vec!["debian-12:old".to_owned()], vec![]));
    assert!(plan.manifests.is_empty());
}

#[test]
fn an_index_keeps_its_images_and_goes_with_them() {
    let mut fixture = Fixture::default();
    for n in [1, 2] {
        let says = Manifest { blobs: vec![d(n + 10)], ..Manifest::default() };
        fixture.manifest("siem", n, 90, says);
    }
    let index = Manifest { children: vec![d(1), d(2)], ..Manifest::default() };
    fixture.manifest("siem", 3, 90, index);
    fixture.tag("siem", "multi", 3, 90);
    assert!(fixture.plan(last(1), &Used::default()).is_empty());
    let signature = Manifest { subject: Some(d(3)), blobs: vec![d(40)], ..Manifest::default() };
    fixture.manifest("siem", 4, 90, signature);
    assert!(fixture.plan(last(1), &Used::default()).is_empty());
    fixture.0.repositories.get_mut("siem").unwrap().tags.clear();
    assert_eq!(gone(&fixture.plan(last(1), &Used::default())), [1, 2, 3, 4, 11, 12, 40]);
}

#[test]
fn a_tag_that_shares_its_digest_goes_alone() {
    let mut fixture = Fixture::default();
    fixture.image("siem", "9.2", 1, 90);
    fixture.tag("siem", "release", 1, 90);
    let keep = Keep { tags: vec!["release".into()], ..Keep::default() };
    let plan = plan(&fixture.0, &Used::default(), &Policy { keep, grace: 0 }, NOW).unwrap();
    assert_eq!((names(&plan), plan.manifests.len(), plan.blobs.len()), (vec!["siem:9.2".to_owned()], 0, 0));
}

#[test]
fn what_a_tag_named_before_goes_once_nobody_can_be_pulling_it() {
    let mut fixture = Fixture::default();
    fixture.image("siem", "latest", 1, 90);
    fixture.image("siem", "latest", 2, 0);
    let soon = fixture.plan(Keep::default(), &Used::default());
    assert_eq!((soon.manifests.len(), soon.later.manifests), (0, 1));
    fixture.tag("siem", "latest", 2, 3);
    let plan = fixture.plan(Keep::default(), &Used::default());
    assert_eq!(gone(&plan), [1, 11]);
}

#[test]
fn what_is_being_pushed_stays_and_what_nobody_went_on_with_goes() {
    let mut fixture = three();
    fixture.blob(50, 0);
    fixture.blob(51, 5);
    // The blob is old, and somebody has just been told that the repository has it.
    fixture.blob(52, 5);
    fixture.0.repositories.get_mut("siem").unwrap().layers.insert(d(52), NOW);
    let plan = fixture.plan(Keep::default(), &Used::default());
    assert_eq!((gone(&plan), plan.later.bytes), (vec![51], 50 + 52));
}

#[test]
fn a_manifest_whose_bytes_are_lost_goes_for_the_sweep_would_end_at_it() {
    let mut fixture = three();
    fixture.0.repositories.get_mut("siem").unwrap().manifests.insert(d(99), NOW - 90 * HOUR);
    let plan = fixture.plan(Keep::default(), &Used::default());
    assert_eq!(plan.manifests, [DroppedManifest { repository: "siem".into(), digest: d(99) }]);
}

#[test]
fn the_lists_of_what_hosts_use_stay() {
    let mut fixture = Fixture::default();
    fixture.image(in_use::REPOSITORY, "host-a", 1, 900);
    fixture.image(in_use::REPOSITORY, "host-b", 2, 800);
    assert!(fixture.plan(last(1), &Used::default()).is_empty());
}

#[test]
fn a_plan_is_stale_when_something_of_it_is_needed_again() {
    let keep = Keep { tags: vec!["9.3".into()], ..Keep::default() };
    let policy = Policy { keep, grace: 0 };
    let make = |fixture: &Fixture, used: &Used| plan(&fixture.0, used, &policy, NOW).unwrap();
    let old = make(&three(), &Used::default());
    assert_eq!(old.stale(&old), Vec::<String>::new());
    // Something new to go does not matter.
    let mut more = three();
    more.image("other", "1", 60, 10);
    assert_eq!(old.stale(&make(&more, &Used::default())), Vec::<String>::new());
    let used = Used { digests: [d(2)].into(), ..Used::default() };
    let stale = old.stale(&make(&three(), &used));
    assert!(stale[0].contains("siem:9.2") && stale.len() == 4, "{stale:?}");
    // The tag was given to another image.
    let mut moved = three();
    moved.image("siem", "9.1", 60, 0);
    assert!(old.stale(&make(&moved, &Used::default())).contains(&"siem:9.1".to_owned()));
}

/// Any registry: manifests 0..n with a blob each of a few, some an index, tags on some.
fn any_registry() -> impl Strategy<Value = Fixture> {
    let manifest =
        (0u8..3, proptest::collection::vec(100u8..106, 0..3), proptest::option::of(0u8..12), 0i64..6);
    (
        proptest::collection::vec(manifest, 1..12),
        proptest::collection::vec((0u8..3, 0u8..4, 0u8..12, 0i64..6), 0..12),
    )
        .prop_map(|(manifests, tags)| {
            let mut fixture = Fixture::default();
            for (n, (repository, blobs, other, hours)) in manifests.iter().enumerate() {
                let n = u8::try_from(n).unwrap();
                let mut says =
                    Manifest { blobs: blobs.iter().map(|b| d(*b)).collect(), ..Manifest::default() };
                match (*other, n % 3) {
                    (Some(other), 0) => says.children.push(d(other)),
                    (Some(other), 1) => says.bases.push(d(other)),
                    (Some(other), _) => says.subject = Some(d(other)),
                    (None, _) => {}
                }
                fixture.manifest(&format!("r{repository}"), n, *hours, says);
            }
            for (repository, tag, n, hours) in tags {
                let name = format!("r{repository}");
                let there =
                    fixture.0.repositories.get(&name).is_some_and(|home| home.manifests.contains_key(&d(n)));
                if there {
                    fixture.tag(&name, &format!("t{tag}"), n, hours);
                }
            }
            fixture
        })
}

/// The registry as it is when a plan was applied.
fn applied(there: &Inventory, plan: &Plan) -> Inventory {
    let mut after = there.clone();
    for tag in &plan.tags {
        after.repositories.get_mut(&tag.repository).unwrap().tags.remove(&tag.tag);
    }
    for gone in &plan.manifests {
        after.repositories.get_mut(&gone.repository).unwrap().manifests.remove(&gone.digest);
    }
    for blob in &plan.blobs {
        after.blobs.remove(&blob.digest);
    }
    after
}

proptest! {
    #[test]
    fn whatever_stays_is_whole(fixture in any_registry(), keep in 0usize..3, grace in 0i64..3, used in 0u8..12) {
        let used = Used { digests: [d(used)].into(), ..Used::default() };
        let policy = Policy { keep: last(keep), grace: grace * HOUR };
        let plan = plan(&fixture.0, &used, &policy, NOW).unwrap();
        let after = applied(&fixture.0, &plan);
        for (name, home) in &after.repositories {
            for tag in home.tags.values() {
                prop_assert!(home.manifests.contains_key(&tag.digest), "{name}: a tag without its manifest");
            }
            for digest in home.manifests.keys() {
                prop_assert!(after.blobs.contains_key(digest));
                for blob in &fixture.0.manifests[digest].blobs {
                    prop_assert!(after.blobs.contains_key(blob), "{name}@{digest} has lost {blob}");
                }
                for child in &fixture.0.manifests[digest].children {
                    let before = fixture.0.repositories[name].manifests.contains_key(child);
                    prop_assert!(!before || home.manifests.contains_key(child), "an index has lost its image");
                }
            }
        }
        for home in fixture.0.repositories.iter().filter(|(_, home)| home.manifests.contains_key(used.digests.first().unwrap())) {
            prop_assert!(after.repositories[home.0].manifests.contains_key(used.digests.first().unwrap()));
        }
    }

    #[test]
    fn nothing_is_left_that_could_go(fixture in any_registry(), keep in 0usize..3) {
        let policy = Policy { keep: last(keep), grace: 0 };
        let first = plan(&fixture.0, &Used::default(), &policy, NOW).unwrap();
        let again = plan(&applied(&fixture.0, &first), &Used::default(), &policy, NOW).unwrap();
        prop_assert!(again.is_empty(), "{again:?}");
        prop_assert_eq!(first.bytes + first.kept.bytes, fixture.0.blobs.values().map(|blob| blob.size).sum::<u64>());
    }

    #[test]
    fn more_that_is_in_use_never_takes_more_away(fixture in any_registry(), keep in 0usize..3, used in 0u8..12) {
        let policy = Policy { keep: last(keep), grace: 0 };
        let without = plan(&fixture.0, &Used::default(), &policy, NOW).unwrap();
        let used = Used { digests: [d(used)].into(), ..Used::default() };
        let with = plan(&fixture.0, &used, &policy, NOW).unwrap();
        prop_assert_eq!(with.stale(&without), Vec::<String>::new());
    }
}
