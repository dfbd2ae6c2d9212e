//! The JSON schemas that editors check a site's files with say the same as moorage does: good files are good to both, and
//! what one refuses the other refuses.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test ends at what it did not expect")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use jsonschema::Validator;
use moorage::site::{HostConfig, Site};
use moorage::spec::container::ULIMITS;
use serde_json::Value;

/// A sort of the site's files: its schema, and where a file of it called `x` goes.
#[derive(Clone, Copy)]
struct Sort {
    schema: &'static str,
    file: &'static str,
}

const PROJECT: Sort = Sort {
    schema: include_str!("../templates/site/schema/project.schema.json"),
    file: "dockeruser/projects/x.toml",
};
const BASE: Sort = Sort {
    schema: include_str!("../templates/site/schema/base.schema.json"),
    file: "containerauthor/bases/x.toml",
};
const IMAGE: Sort = Sort {
    schema: include_str!("../templates/site/schema/image.schema.json"),
    file: "containerauthor/images/x/image.toml",
};

impl Sort {
    fn json(self) -> Value {
        serde_json::from_str(self.schema).unwrap()
    }

    fn validator(self) -> Validator {
        let schema = self.json();
        jsonschema::meta::validate(&schema).expect("the schema is one");
        jsonschema::validator_for(&schema).unwrap()
    }

    /// What moorage says of the text, in a site that has what it names.
    fn told(self, text: &str) -> Option<String> {
        let directory = tempfile::tempdir().unwrap();
        for (name, text) in [
            (self.file, text),
            ("containerauthor/images/x/Dockerfile.j2", "FROM {{ base }}\n"),
            ("common/repos/x/x.list", "deb http://localhost/debian x main\n"),
            ("dockeruser/licences/x.lic", ""),
        ] {
            let path = directory.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        let site = Site::load(Some(directory.path()), HostConfig::default()).unwrap();
        match self.file.split('/').nth(1) {
            Some("projects") => site.check_project("x").0.first().map(|fault| fault.what.clone()),
            Some("bases") => site.base("x").err().map(|fault| fault.what),
            _ => site.image("x").err().map(|fault| fault.what),
        }
    }
}

fn json_of(text: &str) -> Value {
    serde_json::to_value(toml::from_str::<toml::Table>(text).unwrap()).unwrap()
}

fn files(directory: &Path, wanted: impl Fn(&Path) -> bool) -> Vec<PathBuf> {
    let all = walkdir::WalkDir::new(directory).into_iter().map(|entry| entry.unwrap().into_path());
    let found: Vec<PathBuf> = all.filter(|path| wanted(path)).collect();
    assert!(!found.is_empty(), "{}", directory.display());
    found
}

#[test]
fn every_built_in_file_is_right() {
    let is_toml = |path: &Path| path.extension().is_some_and(|extension| extension == "toml");
    for (sort, directory) in [
        (PROJECT, "roles/dockeruser/projects"),
        (PROJECT, "tests/fixtures/site/corp/dockeruser/projects"),
        (BASE, "roles/containerauthor/bases"),
        (IMAGE, "roles/containerauthor/images"),
        (IMAGE, "tests/fixtures/site/corp/containerauthor/images"),
    ] {
        let validator = sort.validator();
        for path in files(Path::new(directory), is_toml) {
            let value = json_of(&std::fs::read_to_string(&path).unwrap());
            let wrong: Vec<String> =
                validator.iter_errors(&value).map(|e| format!("{}: {e}", e.instance_path())).collect();
            assert!(wrong.is_empty(), "{}: {wrong:?}", path.display());
        }
    }
}

/// What `new-site` gives an editor finds the schemas, and each sort of file has one.
#[test]
fn the_editor_s_settings_name_the_schemas() {
    let settings: toml::Table = toml::from_str(include_str!("../templates/site/.taplo.toml")).unwrap();
    let mut named = BTreeSet::new();
    for rule in settings["rule"].as_array().unwrap() {
        let path = rule["schema"]["path"].as_str().unwrap().trim_start_matches("./");
        assert!(Path::new("templates/site").join(path).is_file(), "{path}");
        named.insert(path.to_owned());
    }
    assert_eq!(named.len(), 3);
}

/// The keys that moorage answers a wrong one with are those of the schema, at every place that has keys.
#[test]
fn both_know_the_same_keys() {
    let branch = "/properties/branch/items/properties";
    for (sort, text, at) in [
        (PROJECT, "qqq = 1\n", "/properties".to_owned()),
        (PROJECT, "[defaults]\nqqq = 1\n", "/properties/defaults/properties".to_owned()),
        (PROJECT, "[[branch]]\nqqq = 1\n", branch.to_owned()),
        (PROJECT, "[[branch]]\nsource = { qqq = 1 }\n", format!("{branch}/source/oneOf/0/properties")),
        (
            PROJECT,
            "[[branch]]\nsource = [{ qqq = 1 }]\n",
            format!("{branch}/source/oneOf/1/items/properties"),
        ),
        (PROJECT, "[[branch]]\nlicence = { qqq = 1 }\n", format!("{branch}/licence/oneOf/0/properties")),
        (PROJECT, "[[branch]]\nlimits = { qqq = 1 }\n", format!("{branch}/limits/properties")),
        (PROJECT, "[[branch]]\nopt = { qqq = 1 }\n", format!("{branch}/opt/oneOf/0/oneOf/1/properties")),
        (
            PROJECT,
            "[[branch]]\nulimits = { nofile = { qqq = 1 } }\n",
            format!("{branch}/ulimits/additionalProperties/oneOf/1/properties"),
        ),
        (
            PROJECT,
            "[[branch]]\npatches = { p = { qqq = 1 } }\n",
            format!("{branch}/patches/additionalProperties/oneOf/0/oneOf/1/properties"),
        ),
        (BASE, "qqq = 1\n", "/properties".to_owned()),
        (IMAGE, "qqq = 1\n", "/properties".to_owned()),
    ] {
        let told = sort.told(text).expect(text);
        let (_, keys) = told.split_once("there are: ").unwrap_or_else(|| panic!("{text}: {told}"));
        let keys: BTreeSet<&str> = keys.split(", ").collect();
        let schema = sort.json();
        let known = schema.pointer(&at).unwrap_or_else(|| panic!("{at}"));
        let mut known: BTreeSet<&str> = known.as_object().unwrap().keys().map(String::as_str).collect();
        // One type reads both tables; in [defaults] `match` is refused with words of its own.
        if at == "/properties/defaults/properties" {
            known.insert("match");
        }
        assert_eq!(keys, known, "{at}");
    }
    let enumerated = PROJECT.json();
    let limits = enumerated.pointer(&format!("{branch}/ulimits/propertyNames/enum")).unwrap();
    assert_eq!(*limits, serde_json::to_value(ULIMITS).unwrap());
}

/// Each line is a file, and right or wrong to both.
#[test]
fn both_refuse_the_same() {
    let digest = "ab".repeat(32);
    let projects = [
        (true, "image = \"demo\""),
        (false, "image = 5"),
        (false, "imge = \"demo\""),
        (false, "match = \"x\"\nimage = \"demo\""),
        (true, "image = \"demo\"\nopt = \"oci://r.corp/opt:1\""),
        (true, "image = \"demo\"\nopt = [\"file:///srv/x.tar\", { url = \"oci://r.corp/opt:1\" }]"),
        (true, &format!("image = \"demo\"\nopt = {{ url = \"https://h/x.tar\", sha256 = \"{digest}\" }}")),
        (false, "image = \"demo\"\nopt = 5"),
        (false, "image = \"demo\"\nopt = \"ftp://h/x.tar\""),
        (false, "image = \"demo\"\nopt = \"https://h/x.tar\""),
        (false, "image = \"demo\"\nopt = { url = \"https://h/x.tar\" }"),
        (false, "image = \"demo\"\nopt = { url = \"https://h/x.tar\", sha256 = \"12\" }"),
        (false, "image = \"demo\"\nopt = { sha256 = \"12\" }"),
        (false, "image = \"demo\"\npatches = { p3 = \"file://x\" }"),
        (true, "image = \"demo\"\nsource = { repo = \"/srv/x\", ref = \"main\", to = \"/opt/x\" }"),
        (false, "image = \"demo\"\nsource = { ref = \"main\" }"),
        (false, "image = \"demo\"\nsource = { repo = \"/srv/x\", to = \"/etc\" }"),
        (true, "image = \"demo\"\naddress = \"nat\""),
        (true, "image = \"demo\"\naddress = \"10.0.0.5/24@10.0.0.1\""),
        (false, "image = \"demo\"\naddress = \"wifi\""),
        (true, "image = \"demo\"\nenv = { A_B = \"x\" }"),
        (false, "image = \"demo\"\nenv = { \"A B\" = \"x\" }"),
        (false, "image = \"demo\"\nenv = { A = 1 }"),
        (true, "image = \"demo\"\nulimits = { nofile = 1024, core = { soft = 0, hard = 1 } }"),
        (false, "image = \"demo\"\nulimits = { nofiles = 1 }"),
        (false, "image = \"demo\"\nulimits = { nofile = -1 }"),
        (false, "image = \"demo\"\nulimits = { nofile = { soft = 1 } }"),
        (true, "image = \"demo\"\nshm = \"2 GiB\""),
        (true, "image = \"demo\"\nshm = 1000000"),
        (false, "image = \"demo\"\nshm = \"2XB\""),
        (false, "image = \"demo\"\nshm = -2"),
        (false, "image = \"demo\"\nshm = \"GB\""),
        (true, "image = \"demo\"\nlimits = { cpu_weight = 10000, memory = \"1GB\", pids = 1 }"),
        (false, "image = \"demo\"\nlimits = { cpu_weight = 0 }"),
        (false, "image = \"demo\"\nlimits = { cpu_weight = 10001 }"),
        (false, "image = \"demo\"\nlimits = { pids = 0 }"),
        (true, "image = \"demo\"\nmounts = [\"/a:/b\", \"/a:/c:ro\"]"),
        (false, "image = \"demo\"\nmounts = [\"data:/opt\"]"),
        (false, "image = \"demo\"\nmounts = \"/a:/b\""),
        (true, "image = \"demo\"\nlicence = { file = \"licences/x.lic\", to = \"/opt/x\", mode = 0o600 }"),
        (false, "image = \"demo\"\nlicence = { file = \"licences/x.lic\", to = \"opt/x\" }"),
        (false, "image = \"demo\"\nlicence = { file = \"licences/x.lic\", to = \"/opt/x\", mode = 0o1777 }"),
        (false, "image = \"demo\"\nlicence = { file = \"licences/x.lic\" }"),
        (true, "image = \"demo\"\ncapabilities = [\"NET_ADMIN\", \"CAP_SYS_PTRACE\"]"),
        (false, "image = \"demo\"\ncapabilities = [\"net admin\"]"),
        (true, "image = \"demo\"\nsetup = \"true\"\nready = \"true\""),
        (false, "image = \"demo\"\nsetup = { a = 1 }"),
    ];
    let projects = projects.map(|(right, text)| (PROJECT, right, format!("[defaults]\n{text}\n")));
    let others = [
        (PROJECT, false, "[default]\nimage = \"demo\"\n"),
        (PROJECT, false, "[defaults]\nimage = \"demo\"\n[[branch]]\nimage = \"demo\"\n"),
        (PROJECT, true, "[[branch]]\nmatch = \"9.*\"\nimage = \"demo\"\n"),
        (PROJECT, false, "[[branch]]\nmatch = \"\"\nimage = \"demo\"\n"),
        (
            BASE,
            true,
            "suite = \"x\"\nkeyring = \"/k.gpg\"\nepoch = 1\npackages = [\"a\"]\nchecks = [\"true\"]\n",
        ),
        (BASE, true, "release = \"9\"\nepoch = 1\n"),
        (BASE, false, "epoch = 1\n"),
        (BASE, false, "suite = \"x\"\nepoch = 1\n"),
        (BASE, false, "suite = \"x\"\nkeyring = \"/k.gpg\"\n"),
        (BASE, false, "suite = \"x\"\nrelease = \"9\"\nkeyring = \"/k.gpg\"\nepoch = 1\n"),
        (BASE, false, "release = \"9\"\nkeyring = \"/k.gpg\"\nepoch = 1\n"),
        (BASE, false, "release = 9\nepoch = 1\n"),
        (BASE, false, "release = \"9\"\nepoch = -1\n"),
        (BASE, false, "release = \"9\"\nepoch = 1\npackages = \"a\"\n"),
        (BASE, false, "release = \"9\"\nepoch = 1\nsuit = \"x\"\n"),
        (IMAGE, true, "base = \"debian-12\"\nvars = { a = \"1\" }\npackages = [\"a\"]\nsecrets = [\"t\"]\n"),
        (IMAGE, false, "packages = [\"a\"]\n"),
        (IMAGE, false, "base = \"debian-12\"\nvars = { a = 1 }\n"),
        (IMAGE, false, "base = \"debian-12\"\npackage = [\"a\"]\n"),
        (IMAGE, false, "base = [\"debian-12\"]\n"),
    ];
    let others = others.map(|(sort, right, text)| (sort, right, text.to_owned()));
    let mut wrong = Vec::new();
    for (sort, right, text) in projects.into_iter().chain(others) {
        let (schema, ours) = (sort.validator().is_valid(&json_of(&text)), sort.told(&text));
        if schema != right || ours.is_none() != right {
            wrong.push(format!("{text}should be right: {right}, schema: {schema}, moorage: {ours:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n---\n"));
}
