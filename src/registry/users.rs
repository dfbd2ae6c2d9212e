//! Who may publish: lines of `htpasswd` (`name:bcrypt`), the only form that the server takes.

use std::fmt;
use std::str::FromStr;

use anyhow::{Context as _, Result};

use crate::report::{Fault, Kind};

/// 2 to this power are the rounds of bcrypt; the server computes them at each request of a publisher.
const COST: u32 = 10;
/// What of a password bcrypt looks at, in bytes: one more is for the zero at its end.
const LONGEST: usize = 71;

/// The name of somebody who may publish.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User(String);

impl User {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for User {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for User {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<User, &'static str> {
        let fits = |c: char| c.is_ascii_alphanumeric() || "._-@".contains(c);
        if !(1..=64).contains(&text.len())
            || !text.starts_with(|c: char| c.is_ascii_alphanumeric())
            || !text.chars().all(fits)
        {
            return Err("a name has at most 64 letters, digits and ._-@, a letter or digit first");
        }
        Ok(User(text.to_owned()))
    }
}

/// What the file keeps of a password.
pub fn hash(password: &str) -> Result<String> {
    let bad = |what: &str, next: &str| Fault::new(Kind::Usage, what).next(next);
    if password.is_empty() {
        return Err(bad("the password is empty", "pipe it in as one line, or type it on a terminal").into());
    }
    if password.len() > LONGEST {
        let next = format!("choose one of at most {LONGEST} bytes: bcrypt does not look at what follows");
        return Err(bad("the password is too long", &next).into());
    }
    if password.chars().any(char::is_control) {
        return Err(bad("the password has a control character in it", "choose one that can be typed").into());
    }
    bcrypt::non_truncating_hash(password, COST).context("hash the password")
}

/// The names, in the order of the file.
pub fn names(file: &str) -> Vec<&str> {
    file.lines().filter_map(|line| line.split_once(':')).map(|(name, _)| name).collect()
}

/// The file with this user, whose line is replaced where they have one.
pub fn with(file: &str, user: &User, hash: &str) -> String {
    without(file, user) + &format!("{user}:{hash}\n")
}

/// The file without this user.
pub fn without(file: &str, user: &User) -> String {
    let others = file.lines().filter(|line| line.split(':').next() != Some(user.as_str()));
    others.map(|line| format!("{line}\n")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_come_change_and_go() {
        let (ann, bob): (User, User) = ("ann".parse().unwrap(), "bob".parse().unwrap());
        let file = with(&with("", &ann, "1"), &bob, "2");
        assert_eq!(file, "ann:1\nbob:2\n");
        assert_eq!(with(&file, &ann, "3"), "bob:2\nann:3\n");
        assert_eq!(names(&file), ["ann", "bob"]);
        assert_eq!(without(&file, &ann), "bob:2\n");
        assert_eq!(without("annabel:1\n", &ann), "annabel:1\n");
        assert_eq!(without("", &ann), "");
    }

    #[test]
    fn a_password_is_kept_as_bcrypt() {
        let hash = hash("secret").unwrap();
        assert!(hash.starts_with("$2b$10$"), "{hash}");
        assert!(bcrypt::verify("secret", &hash).unwrap());
        for bad in ["", &"x".repeat(72), "a\u{1b}b"] {
            let fault = Fault::of(&super::hash(bad).unwrap_err());
            assert_eq!(fault.kind, Kind::Usage);
            assert!(fault.next.is_some() && (bad.is_empty() || !fault.to_string().contains(bad)));
        }
        super::hash(&"x".repeat(71)).unwrap();
    }

    #[test]
    fn names_that_are_none() {
        for bad in ["", "a:b", "-a", "a b", "ä", "a\nb", &"x".repeat(65)] {
            assert!(bad.parse::<User>().is_err(), "{bad}");
        }
        for good in ["ann", "ann.b@corp", "ci-7", &"x".repeat(64)] {
            good.parse::<User>().unwrap();
        }
    }
}
