//! Who people are on this host: names, groups, members, by the name service.

use std::ffi::CString;

use anyhow::{Context as _, Result};
use nix::unistd::{Gid, Group, Uid, User, getgrouplist};
use serde::{Deserialize, Serialize};

use crate::opt::Person;
use crate::report::{Fault, Kind};
use crate::spec::{ContainerName, Owner};

/// A user inside a container: the same name, uid and gid as on the host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    pub name: String,
    pub uid: u32,
    pub gid: u32,
    /// The name of the primary group.
    pub group: String,
}

impl Account {
    pub fn is_root(&self) -> bool {
        self.uid == 0
    }

    /// The home inside: below `/opt`, so that it outlives the root filesystem.
    pub fn home(&self) -> String {
        match self.is_root() {
            true => "/root".to_owned(),
            false => format!("/opt/home/{}", self.name),
        }
    }

    fn of(user: User) -> Result<Account> {
        let group = Group::from_gid(user.gid).context("ask for a group")?;
        Ok(Account {
            uid: user.uid.as_raw(),
            gid: user.gid.as_raw(),
            group: group.map_or_else(|| user.name.clone(), |group| group.name),
            name: user.name,
        })
    }
}

/// Who asks, as the kernel says (SO_PEERCRED) and the name service completes.
#[derive(Debug, Clone)]
pub struct Caller {
    pub account: Account,
    pub groups: Vec<(u32, String)>,
    /// root, or named in the host's configuration.
    pub admin: bool,
}

impl Caller {
    /// Looks a uid up. Asks the name service: call it where blocking is allowed.
    pub fn of_uid(uid: u32, admins: &[Owner]) -> Result<Caller> {
        let user =
            User::from_uid(Uid::from_raw(uid)).context("ask for the person who calls")?.ok_or_else(|| {
                Fault::new(Kind::Denied, format!("uid {uid} has no name on this host"))
                    .next(format!("getent passwd {uid}"))
            })?;
        let name = CString::new(user.name.clone())?;
        let gids = getgrouplist(&name, user.gid).context("ask for the groups of the person who calls")?;
        let mut groups = Vec::new();
        for gid in gids {
            let group = Group::from_gid(gid).context("ask for a group")?;
            groups.push((gid.as_raw(), group.map_or_else(|| gid.to_string(), |group| group.name)));
        }
        let account = Account::of(user)?;
        let admin = account.is_root()
            || admins.iter().any(|admin| match admin {
                Owner::Person(name) => *name == account.name,
                Owner::Group(name) => groups.iter().any(|(_, group)| group == name),
            });
        Ok(Caller { account, groups, admin })
    }

    pub fn is_in(&self, group: &str) -> bool {
        self.groups.iter().any(|(_, name)| name == group)
    }

    /// What `typed` means to this person: their own by its short name, what has that whole name, or a group's by its
    /// short name. A short name stands for what belongs to that very owner only, whoever else has taken the whole name.
    pub fn find<T>(
        &self,
        typed: &str,
        get: impl Fn(&ContainerName) -> Result<Option<T>>,
        owner_of: impl Fn(&T) -> &Owner,
    ) -> Result<Option<T>> {
        let short = |owner: Owner| -> Result<Option<T>> {
            let found = ContainerName::short(typed, &owner).map(|name| get(&name)).transpose()?.flatten();
            Ok(found.filter(|found| *owner_of(found) == owner))
        };
        if let Some(own) = short(Owner::Person(self.account.name.clone()))? {
            return Ok(Some(own));
        }
        if let Ok(whole) = typed.parse()
            && let Some(found) = get(&whole)?
        {
            return Ok(Some(found));
        }
        for (_, group) in &self.groups {
            if let Some(found) = short(Owner::Group(group.clone()))? {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    /// The rights to use when something is opened on the caller's behalf.
    pub fn person(&self) -> Person {
        Person {
            uid: self.account.uid,
            gid: self.account.gid,
            groups: self.groups.iter().map(|(gid, _)| *gid).collect(),
        }
    }
}

/// The users a container of `owner` has inside, the maker first where it is a group's, and the group that may look
/// at its files on the host. Asks the name service: call it where blocking is allowed.
pub fn inside(owner: &Owner, caller: &Caller) -> Result<(Vec<Account>, u32)> {
    match owner {
        Owner::Person(name) if *name == caller.account.name => {
            Ok((vec![caller.account.clone()], caller.account.gid))
        }
        Owner::Person(name) => {
            let user = User::from_name(name).context("ask for a person")?;
            let account = Account::of(user.ok_or_else(|| unknown("person", name))?)?;
            let gid = account.gid;
            Ok((vec![account], gid))
        }
        Owner::Group(name) => {
            let group =
                Group::from_name(name).context("ask for a group")?.ok_or_else(|| unknown("group", name))?;
            let mut people = Vec::new();
            if caller.is_in(name) {
                people.push(caller.account.clone());
            }
            for member in group.mem {
                if people.iter().any(|known: &Account| known.name == member) {
                    continue;
                }
                if let Some(user) = User::from_name(&member).context("ask for a person")? {
                    people.push(Account::of(user)?);
                }
            }
            if people.is_empty() {
                let fault =
                    Fault::new(Kind::NotFound, format!("the group {name} has no members on this host"))
                        .next(format!("getent group {name}"));
                return Err(fault.into());
            }
            Ok((people, Gid::as_raw(group.gid)))
        }
    }
}

/// Refuses a name for a container of `owner` that is what a container of somebody else would be called: its address in
/// the LAN's DNS is what they would look for. Asks the name service: call it where blocking is allowed.
pub fn nobody_elses(name: &ContainerName, owner: &Owner) -> Result<()> {
    for label in name.reads_as(owner) {
        // A label has lost what is no part of one; who is called with a dot or an underscore there is taken for theirs too.
        for called in [label.to_owned(), label.replacen('-', ".", 1), label.replacen('-', "_", 1)] {
            let person = User::from_name(&called).context("ask for a person")?.is_some();
            if person || Group::from_name(&called).context("ask for a group")?.is_some() {
                let what = format!("the name {name} reads as one of {called}, and is to be {owner}'s");
                return Err(Fault::new(Kind::Denied, what).next("choose another --name").into());
            }
        }
    }
    Ok(())
}

fn unknown(what: &str, name: &str) -> Fault {
    Fault::new(Kind::NotFound, format!("there is no {what} {name} on this host"))
        .next("name another --owner; getent passwd and getent group show who there is")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_name_stands_for_ones_own_whoever_has_taken_the_whole_name() {
        let account = Account { name: "j-smith".into(), uid: 1000, gid: 1000, group: "j-smith".into() };
        let caller = Caller { account, groups: vec![(2000, "support".into())], admin: true };
        let smith = Owner::Person("smith".into());
        let all = [
            ("siem-9-2-j-smith", smith.clone()),
            ("demo-main-j-smith", Owner::Person("j-smith".into())),
            ("case-7-support", Owner::Group("support".into())),
            ("case-8-support", Owner::Person("support".into())),
        ];
        let find = |typed: &str| {
            let get = |name: &ContainerName| Ok(all.iter().find(|(known, _)| *known == name.as_str()));
            caller.find(typed, get, |(_, owner)| owner).unwrap().map(|(name, _)| *name)
        };
        assert_eq!(find("siem-9.2"), None);
        assert_eq!(find("siem-9-2-j-smith"), Some("siem-9-2-j-smith"));
        assert_eq!(find("demo-main"), Some("demo-main-j-smith"));
        assert_eq!(find("case-7"), Some("case-7-support"));
        assert_eq!(find("case-8"), None);
    }
}
