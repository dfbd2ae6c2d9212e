//! How a package manager is run, and whether it is here.

/// unshare(1) with mounts and processes of its own: when it ends, however it ends, nothing is left mounted or running.
pub(super) const APART: [&str; 7] =
    ["--mount", "--propagation", "private", "--pid", "--fork", "--kill-child", "--"];

/// Whether a program is in the PATH.
pub(super) fn is_installed(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|directory| directory.join(program).is_file())
}
