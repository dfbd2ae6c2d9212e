//! Who may log in with which SSH key: `dockeruser/keys/<user>.pub`, and the person's own.

use std::collections::{BTreeMap, BTreeSet};

use ssh_key::authorized_keys::AuthorizedKeys;

use super::Site;
use crate::report::{Fault, Kind};

impl Site {
    /// The `authorized_keys` lines of `people`; `own` are further ones of `user`. A line of the site that is no key is
    /// an error; one of `own` that is none (a certificate, a comment) is left out. Who has no key is not in the map.
    pub(super) fn authorized_keys(
        &self,
        people: &BTreeSet<String>,
        user: &str,
        own: &[String],
    ) -> Result<BTreeMap<String, Vec<String>>, Fault> {
        let mut keys = BTreeMap::new();
        for person in people {
            let mut lines = self.site_keys(person)?;
            if person == user {
                lines.extend(
                    own.iter().map(|line| line.trim()).filter(|line| is_key(line)).map(str::to_owned),
                );
            }
            lines.sort();
            lines.dedup();
            if !lines.is_empty() {
                keys.insert(person.clone(), lines);
            }
        }
        Ok(keys)
    }

    pub(super) fn site_keys(&self, person: &str) -> Result<Vec<String>, Fault> {
        let Some(source) = self.files.text(&format!("dockeruser/keys/{person}.pub"))? else {
            return Ok(Vec::new());
        };
        let lines = source.text.lines().enumerate().map(|(at, line)| (at + 1, line.trim()));
        lines
            .filter(|(_, line)| !line.is_empty() && !line.starts_with('#'))
            .map(|(number, line)| match is_key(line) {
                true => Ok(line.to_owned()),
                false => {
                    Err(Fault::new(Kind::Usage, format!("{}:{number}: not an SSH public key", source.origin))
                        .next("take the line out, or make a key with ssh-keygen"))
                }
            })
            .collect()
    }
}

/// One line of sshd's AUTHORIZED_KEYS FILE FORMAT, options included.
fn is_key(line: &str) -> bool {
    let mut entries = AuthorizedKeys::new(line);
    matches!((entries.next(), entries.next()), (Some(Ok(_)), None))
}
