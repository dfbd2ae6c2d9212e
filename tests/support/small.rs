//! A disk that is soon full.

use super::machine::world;
use super::root;

/// A filesystem over a directory, with all that is there and a little room.
#[derive(Debug)]
pub struct Small(&'static str);

impl Small {
    /// What somebody has mounted there, to be taken away again.
    pub fn over(directory: &'static str) -> Small {
        Small(directory)
    }

    pub fn mounted(directory: &'static str) -> Small {
        let image = super::world().join("storage/small.img");
        let script = format!(
            "size=$(($(du -sm {directory} | cut -f1) * 5 / 4 + 24)); \
             truncate -s ${{size}}M {image}; mkfs.ext4 -q -F {image}; mkdir -p {mount}; mount -o loop {image} {mount}; \
             cp -a {directory}/. {mount}; mount --move {mount} {directory}",
            image = image.display(),
            mount = image.with_extension("mount").display()
        );
        root().shell(&script).ok();
        Small(directory)
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        world("stop", "daemon");
        let image = super::world().join("storage/small.img");
        // A test that has failed already keeps its own words.
        let lazy = if std::thread::panicking() { "--lazy" } else { "" };
        let gone = root().shell(&format!("umount {lazy} {}; rm -f {}", self.0, image.display()));
        if !std::thread::panicking() {
            gone.ok();
        }
    }
}
