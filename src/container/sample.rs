//! A specification for the unit tests of this module.

use crate::spec::ContainerSpec;

pub fn spec() -> ContainerSpec {
    let json = serde_json::json!({
        "name": "siem-9-2-ann", "owner": "ann", "project": "siem", "branch": "9.2",
        "image": "moorage/siem:latest",
        "opt": [{ "url": "file:///srv/siem.tar.zst" }],
        "sources": [{ "repo": "ssh://git@git.corp/siem.git", "ref": "release/9.2", "to": "/opt/src/siem" }],
        "files": [{ "to": "/opt/siem/licence", "mode": 0o644, "content": "AQID" }],
        "env": { "SIEM_HOME": "/opt/siem" },
        "mounts": [{ "source": "/data/reference", "target": "/opt/reference", "read_only": true }],
        "setup": ["/opt/src/siem/tools/dev-setup"],
        "ready": "curl -fsk https://localhost/health",
        "network": "lan",
    });
    serde_json::from_value(json).expect("the sample is a specification")
}
