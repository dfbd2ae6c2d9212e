//! A specification, a record and a lease for the unit tests of this module.

use super::Record;
use crate::lan::LeaseView;
use crate::spec::ContainerSpec;

pub fn record() -> Record {
    let json = serde_json::json!({
        "schema": 1, "id": "0123456789ab", "spec": spec(), "people": [], "gid": 0, "mac": "02:00:00:00:00:01",
        "network_id": "", "machine_id": "", "host_key": { "private": "", "public": "" },
        "created": "2026-01-01T00:00:00Z", "engine_id": "", "setup": "done", "intent": null,
    });
    serde_json::from_value(json).expect("the sample is a record")
}

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

pub fn lease() -> LeaseView {
    let json = serde_json::json!({
        "network": "n", "parent": "eth0", "mac": "02:00:00:00:00:01", "hostname": "siem-9-2-ann", "pinned": true,
        "state": "bound", "address": "10.0.0.5", "prefix": 24, "gateway": "10.0.0.1", "dns": ["10.0.0.1"],
        "domain": "corp.example", "search": ["corp.example"], "server": "10.0.0.1", "expires": null,
        "attached": true, "last": null,
    });
    serde_json::from_value(json).expect("the sample is a lease")
}
