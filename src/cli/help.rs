//! `moorage --help`: the verbs by role.

use clap::Command;

/// Lists the verbs below their roles instead of all in one heap.
pub fn by_role(command: Command) -> Command {
    let line = |verb: &Command| {
        let about = verb.get_about().map(ToString::to_string).unwrap_or_default();
        format!("  {:<20} {about}\n", verb.get_name())
    };
    let mut verbs = String::new();
    let mut of_a_role = Vec::new();
    for role in command.get_subcommands().filter(|role| role.has_subcommands()) {
        let about = role.get_about().map(ToString::to_string).unwrap_or_default();
        verbs.push_str(&format!("{}: {about}\n", role.get_name()));
        for verb in role.get_subcommands() {
            if !verb.is_hide_set() {
                verbs.push_str(&line(verb));
            }
            of_a_role.push(verb.get_name().to_owned());
        }
        verbs.push('\n');
    }
    for verb in command.get_subcommands() {
        if !verb.has_subcommands() && !of_a_role.iter().any(|name| name == verb.get_name()) {
            verbs.push_str(&line(verb));
        }
    }
    // Braces are tags in clap's template.
    let verbs = verbs.replace(['{', '}'], "");
    command
        .override_usage("moorage [ROLE] VERB [ARGUMENTS]")
        .help_template(format!(
            "{{about-with-newline}}\n{{usage-heading}} {{usage}}\n\n{verbs}\nEverywhere:\n{{options}}{{after-help}}"
        ))
        .after_help("The role may be left out. `moorage VERB --help` says more.")
}
