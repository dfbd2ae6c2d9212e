//! Who may do what: the one place that decides. Pure.

use crate::container::Caller;
use crate::report::{Fault, Kind};
use crate::spec::Owner;

/// What somebody wants to do with a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    Make,
    Show,
    Enter,
    Operate,
    Remove,
}

impl Action {
    fn words(self) -> &'static str {
        match self {
            Action::Make => "make containers for",
            Action::Show => "look into containers of",
            Action::Enter => "enter containers of",
            Action::Operate => "start and stop containers of",
            Action::Remove => "remove containers of",
        }
    }
}

/// Admins may do everything, owners what they like with their own; a group's members are its owners. Listing needs
/// no permission and does not come here.
pub fn permit(caller: &Caller, action: Action, owner: &Owner) -> Result<(), Fault> {
    let own = match owner {
        Owner::Person(name) => *name == caller.account.name,
        Owner::Group(name) => caller.is_in(name),
    };
    match own || caller.admin {
        true => Ok(()),
        false => {
            let what = format!("{} may not {} {owner}", caller.account.name, action.words());
            let next = format!("ask {owner}, or an admin of this host");
            Err(Fault::new(Kind::Denied, what).next(next))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::container::Account;

    fn caller(name: &str, groups: &[&str], admin: bool) -> Caller {
        Caller {
            account: Account { name: name.into(), uid: 1000, gid: 1000, group: name.into() },
            groups: groups.iter().map(|g| (2000, (*g).to_owned())).collect(),
            admin,
        }
    }

    #[test]
    fn owners_members_and_admins_may_and_nobody_else() {
        let (ann, support): (Owner, Owner) = ("ann".parse().unwrap(), "@support".parse().unwrap());
        for action in [Action::Make, Action::Show, Action::Enter, Action::Operate, Action::Remove] {
            assert!(permit(&caller("ann", &[], false), action, &ann).is_ok());
            assert!(permit(&caller("root", &[], true), action, &ann).is_ok());
            assert!(permit(&caller("bob", &["support"], false), action, &support).is_ok());
            for (who, owner) in
                [(caller("bob", &["ann"], false), &ann), (caller("bob", &[], false), &support)]
            {
                assert_eq!(permit(&who, action, owner).unwrap_err().kind, Kind::Denied);
            }
        }
    }
}
