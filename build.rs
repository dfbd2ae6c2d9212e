//! `include_dir!` sees changed files but not added ones: look again when the directories change.

fn main() {
    println!("cargo::rerun-if-changed=roles");
    println!("cargo::rerun-if-changed=templates");
}
