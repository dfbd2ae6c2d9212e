//! Command links: `make-dev-container …` instead of `moorage make-dev-container …`.

use std::ffi::OsString;
use std::path::Path;

use super::COMMAND;

/// The verbs, and other names of verbs, that are commands of their own through a link to the binary: those that name
/// a container.
pub fn links() -> Vec<&'static str> {
    let verbs = COMMAND.get_subcommands().filter(|command| !command.has_subcommands());
    let names = verbs.flat_map(|verb| [verb.get_name()].into_iter().chain(verb.get_all_aliases()));
    names.filter(|name| name.ends_with("-container") || name.ends_with("-containers")).collect()
}

/// The link that the binary was called by, where it was one.
pub fn called(args: &[OsString]) -> Option<&'static str> {
    let name = Path::new(args.first()?).file_name()?.to_str()?;
    links().into_iter().find(|link| *link == name)
}

/// What to parse, and with which command: a link's name is its verb, and usage then says it without `moorage`.
pub fn expand(command: clap::Command, args: &[OsString]) -> (clap::Command, Vec<OsString>) {
    match called(args) {
        None => (command, args.to_vec()),
        Some(link) => {
            let verb = std::iter::once(OsString::from(link));
            (command.no_binary_name(true), verb.chain(args.iter().skip(1).cloned()).collect())
        }
    }
}
