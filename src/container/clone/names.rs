//! What clones are called. Pure.

use crate::report::{Fault, Kind};
use crate::spec::{ContainerName, Owner};

/// How many numbers are tried beyond those that are asked for.
const FURTHER: u32 = 1000;

/// The names of `count` clones of `source`, for which `is_free` holds: `siem-9-2-1-ann`, `siem-9-2-2-ann`, …, the lowest
/// numbers that are free; with `wish`, `<wish>-1-ann`, …, or of a single one `<wish>-ann` and nothing else.
pub fn choose(
    source: &ContainerName,
    owner: &Owner,
    (count, wish): (u32, Option<&str>),
    mut is_free: impl FnMut(&ContainerName) -> anyhow::Result<bool>,
) -> anyhow::Result<Vec<ContainerName>> {
    let bad = |error: crate::spec::BadName| Fault::new(Kind::Usage, error.to_string());
    if let (Some(wish), 1) = (wish, count) {
        let name = ContainerName::join(&[wish], owner).map_err(bad)?;
        return match is_free(&name)? {
            true => Ok(vec![name]),
            false => Err(Fault::new(Kind::Differs, format!("the name {name} is taken"))
                .next("choose another --name")
                .into()),
        };
    }
    let front = wish.unwrap_or_else(|| front(source, owner));
    let mut names = Vec::new();
    for number in 1..=count + FURTHER {
        let name = ContainerName::join(&[front, &number.to_string()], owner).map_err(bad)?;
        if is_free(&name)? {
            names.push(name);
        }
        if names.len() == count as usize {
            return Ok(names);
        }
    }
    Err(Fault::new(Kind::Differs, format!("there are too many clones of {source}"))
        .next("choose another --name")
        .into())
}

/// A name without its owner's part.
pub fn front<'a>(name: &'a ContainerName, owner: &Owner) -> &'a str {
    let tail = format!("-{}", owner.label());
    name.as_str().strip_suffix(tail.as_str()).unwrap_or(name.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(count: u32, wish: Option<&str>, taken: &[&str]) -> Result<Vec<String>, Kind> {
        let (source, owner) = ("siem-9-2-ann".parse().unwrap(), "ann".parse().unwrap());
        let names = choose(&source, &owner, (count, wish), |name| Ok(!taken.contains(&name.as_str())));
        names
            .map(|names| names.iter().map(ToString::to_string).collect())
            .map_err(|error| Fault::of(&error).kind)
    }

    #[test]
    fn the_lowest_free_numbers_are_taken() {
        assert_eq!(chosen(2, None, &["siem-9-2-1-ann"]).unwrap(), ["siem-9-2-2-ann", "siem-9-2-3-ann"]);
        assert_eq!(chosen(2, Some("peer"), &[]).unwrap(), ["peer-1-ann", "peer-2-ann"]);
        assert_eq!(chosen(1, Some("peer"), &[]).unwrap(), ["peer-ann"]);
        assert_eq!(chosen(1, Some("peer"), &["peer-ann"]), Err(Kind::Differs));
        assert_eq!(chosen(1, Some("***"), &[]), Err(Kind::Usage));
    }
}
