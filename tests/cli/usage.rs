//! Help, usage errors, command links, what is said without a daemon.

use std::process::Stdio;

use crate::world::{MOORAGE, World};

/// Verbs of one level of help: the words at the beginning of indented lines.
async fn help(world: &World, args: &[&str]) -> String {
    let said = world.run(&[args, &["--help"]].concat()).await;
    assert_eq!(said.code, Some(0), "{said:?}");
    assert_eq!(said.err, "");
    said.out
}

#[tokio::test]
async fn the_reference() {
    let world = World::new();
    let whole = help(&world, &[]).await;
    let verbs: Vec<&str> = whole
        .lines()
        .skip_while(|line| !line.starts_with("dockeruser:"))
        .take_while(|line| *line != "Everywhere:")
        .filter_map(|line| line.strip_prefix("  ")?.split_whitespace().next())
        .collect();
    assert!(verbs.len() > 8, "{verbs:?}");
    let mut reference = format!("# moorage\n{whole}");
    for verb in verbs {
        let whole = help(&world, &[verb]).await;
        // What every verb has is there once.
        let (own, rest) = whole.split_once("Everywhere:").unwrap();
        let examples =
            rest.split_once("Examples:").map_or(String::new(), |(_, text)| format!("Examples:{text}"));
        reference += &format!("\n# {verb}\n{own}{examples}");
    }
    // clap writes lines of spaces between paragraphs.
    let trimmed: String = reference.lines().map(|line| line.trim_end().to_owned() + "\n").collect();
    insta::assert_snapshot!("reference", trimmed);
}

#[tokio::test]
async fn a_mistyped_verb_is_a_usage_error_with_the_nearest() {
    let said = World::new().run(&["start-contaner", "x"]).await;
    assert_eq!((said.code, said.out.as_str()), (Some(2), ""));
    assert!(said.err.contains("similar subcommand exists: 'start-container'"), "{}", said.err);
}

#[tokio::test]
async fn usage_errors_are_json_where_json_is_spoken() {
    let world = World::new();
    for args in [["show-container", "--format", "json"], ["--progress", "json", "show-container"]] {
        let said = world.run(&args).await;
        assert_eq!(said.code, Some(2));
        let fault = said.fault();
        assert_eq!((&fault["kind"], &fault["code"]), (&"usage".into(), &2.into()));
        assert!(fault["what"].as_str().unwrap().contains("required arguments"), "{fault}");
    }
    assert_eq!(world.run(&["list-containers", "--filter", "colour=red"]).await.code, Some(2));
    assert_eq!(world.run(&["show-container", ""]).await.code, Some(2));
    assert_eq!(world.run(&[]).await.code, Some(2));
}

#[tokio::test]
async fn without_a_daemon_it_says_what_to_start() {
    let world = World::new();
    let said = world.run(&["dockeruser", "list-containers"]).await;
    assert_eq!((said.code, said.out.as_str()), (Some(3), ""));
    assert!(said.err.starts_with("error: the daemon is not running\n  why: "), "{}", said.err);
    assert!(said.err.contains("\n  next: "), "{}", said.err);

    let fault = world.run(&["list-containers", "--format", "json"]).await.fault();
    let mut keys: Vec<&String> = fault.as_object().unwrap().keys().collect();
    keys.sort();
    assert_eq!(keys, ["code", "kind", "next", "remains", "what", "why"]);
    assert_eq!((&fault["code"], &fault["kind"]), (&3.into(), &"missing".into()));

    // A socket that nobody listens on any more is the same.
    drop(std::os::unix::net::UnixListener::bind(world.path("api.sock")).unwrap());
    assert_eq!(world.run(&["show-logs", "x"]).await.code, Some(3));
}

#[tokio::test]
async fn every_link_is_its_verb() {
    let world = World::new();
    let links = moorage::cli::links();
    for expected in ["list-containers", "stop-container", "stop-dev-container", "enter-container"] {
        assert!(links.contains(&expected), "{links:?}");
    }
    assert!(!links.contains(&"man") && !links.contains(&"show-logs") && !links.contains(&"dockeruser"));
    for link in links {
        let path = world.path(link);
        std::os::unix::fs::symlink(MOORAGE, &path).unwrap();
        let said = world.program(path.to_str().unwrap(), &["--help"]).output().await.unwrap();
        let out = String::from_utf8(said.stdout).unwrap();
        let verb = link.replace("-dev-container", "-container");
        let usage = out.lines().find(|line| line.starts_with("Usage: ")).unwrap();
        assert!(
            usage.starts_with(&format!("Usage: {link} ")) || usage.starts_with(&format!("Usage: {verb} "))
        );
    }
    let path = world.path("stop-dev-container");
    let said = world.program(path.to_str().unwrap(), &["x"]).output().await.unwrap();
    assert_eq!(said.status.code(), Some(3), "it is carried out, and no daemon is there");
}

#[tokio::test]
async fn a_reader_that_goes_away_is_no_error() {
    let world = World::new();
    for args in [&["--help"][..], &["completions", "bash"], &["man"]] {
        let mut child = world.program(MOORAGE, args).spawn().unwrap();
        drop(child.stdout.take());
        let said = child.wait_with_output().await.unwrap();
        assert_eq!(said.status.code(), Some(0), "{args:?}");
        assert_eq!(String::from_utf8_lossy(&said.stderr), "", "{args:?}");
    }
    // And with nobody to hear the error either.
    let mut command = world.program(MOORAGE, &["list-containers"]);
    let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
    drop((child.stdout.take(), child.stderr.take()));
    assert_eq!(child.wait().await.unwrap().code(), Some(3));
}

#[tokio::test]
async fn a_full_disk_is_an_error() {
    let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
    let said = World::new().program(MOORAGE, &["man"]).stdout(full).spawn().unwrap();
    let said = said.wait_with_output().await.unwrap();
    assert_eq!(said.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&said.stderr).contains("No space left"));
}

#[tokio::test]
async fn colours_only_where_they_are_wanted() {
    let world = World::new();
    let forced =
        world.program(MOORAGE, &["list-containers"]).env("CLICOLOR_FORCE", "1").output().await.unwrap();
    assert!(String::from_utf8_lossy(&forced.stderr).contains("\x1b["), "{forced:?}");
    let plain = world.run(&["list-containers"]).await;
    assert!(!plain.err.contains('\x1b'));
}

#[tokio::test]
async fn manual_pages_and_completions() {
    let world = World::new();
    let directory = world.path("man1");
    let said = world.run(&["man", "--directory", directory.to_str().unwrap()]).await;
    assert_eq!(said.code, Some(0), "{said:?}");
    assert!(directory.join("moorage.1").exists());
    assert!(directory.join("moorage-stop-container.1").exists());

    let script = world.run(&["completions", "bash"]).await.out;
    std::fs::write(world.path("completions.bash"), &script).unwrap();
    std::os::unix::fs::symlink(MOORAGE, world.path("moorage")).unwrap();
    // bash itself runs the function that the script registered, and the binary answers it.
    let ask = r#"
        PATH="$HOME:$PATH"
        source "$HOME/completions.bash"
        complete -p stop-dev-container
        COMP_WORDS=(moorage list-con) COMP_CWORD=1 COMP_TYPE=9
        _clap_complete_moorage moorage list-con moorage
        printf '%s\n' "${COMPREPLY[@]}"
    "#;
    let said = world.program("bash", &["--norc", "-c", ask]).output().await.unwrap();
    let out = String::from_utf8_lossy(&said.stdout);
    assert!(out.contains("stop-dev-container\n"), "{said:?}");
    assert!(out.trim_end().ends_with("list-containers"), "{said:?}");
}

#[tokio::test]
async fn doctor_finds_that_nobody_is_there() {
    let world = World::new();
    let said = world.run(&["doctor"]).await;
    assert_eq!((said.code, said.err.as_str()), (Some(1), ""));
    assert!(said.out.contains("problem  daemon  the daemon is not running"), "{}", said.out);
    assert!(said.out.contains("  next: ") && said.out.ends_with("1 problem, 0 warnings\n"), "{}", said.out);
    let json = world.run(&["doctor", "--format", "json"]).await;
    assert_eq!(json.code, Some(1));
    let json = json.json();
    assert_eq!((&json["schema"], &json["problems"]), (&1.into(), &1.into()));
    assert_eq!(json["findings"][0]["level"], "problem");
}
