use std::process::Command;

fn main() {
    // `include_dir!` sees changed files but not added ones: look again when the directories change.
    println!("cargo::rerun-if-changed=roles");
    println!("cargo::rerun-if-changed=templates");
    // Tens of thousands of addresses to adjust, 24 bytes each, which the loader reads all: packed, they are some kB of the
    // daemon's resident memory. glibc does that since 2.36 (its NEWS: DT_RELR).
    println!("cargo::rerun-if-changed=build.rs");
    if glibc().is_some_and(|version| version >= (2, 36)) {
        println!("cargo::rustc-link-arg-bins=-Wl,-z,pack-relative-relocs");
    }
}

/// The C library of the machine that builds, where it is glibc and the one that the program is for.
fn glibc() -> Option<(u32, u32)> {
    if std::env::var("HOST").ok()? != std::env::var("TARGET").ok()? {
        return None;
    }
    let answer = Command::new("getconf").arg("GNU_LIBC_VERSION").output().ok()?;
    let version = String::from_utf8(answer.stdout).ok()?;
    let (major, minor) = version.trim().strip_prefix("glibc ")?.split_once('.')?;
    Some((major.parse().ok()?, minor.split('.').next()?.parse().ok()?))
}
