//! Archives that try to leave their directory, or to bring in what a layer must not hold; and archives that are broken.

use moorage::report::Kind;
use tar::EntryType;

use crate::pack::{Pack, gzip, noise, xz, zstd};
use crate::world::{World, digest};

/// The archive is refused with these words, and nothing of it is left anywhere.
fn refused(tar: Vec<u8>, words: &str) {
    let world = World::new();
    let fault = world.fetch(&world.publish("hostile.tar", &tar)).unwrap_err();
    assert!(fault.to_string().contains(words), "{words:?} is not in: {fault}");
    world.assert_untouched();
    assert!(!world.home.join("planted").exists());
    assert!(!std::path::Path::new("/planted").exists());
}

#[test]
fn a_name_with_dots() {
    refused(Pack::new().file("../../../planted", b"x").tar(), "`..`");
    refused(Pack::new().file("a/../../planted", b"x").tar(), "`..`");
    refused(Pack::new().directory("..", 0o755).tar(), "`..`");
}

#[test]
fn an_absolute_name() {
    refused(Pack::new().file("/planted", b"x").tar(), "absolute");
    refused(Pack::new().directory("/", 0o755).tar(), "absolute");
}

#[test]
fn a_name_from_the_extended_header() {
    refused(Pack::new().pax(&[("path", b"../planted")]).file("innocent", b"x").tar(), "`..`");
}

#[test]
fn through_a_symlink_of_the_archive() {
    let link = || Pack::new().symlink("out", "/");
    refused(link().file("out/planted", b"x").tar(), "symbolic link");
    refused(link().directory("out/planted", 0o755).tar(), "symbolic link");
    refused(link().file("out/deep/er/planted", b"x").tar(), "symbolic link");
    refused(link().directory("out", 0o755).tar(), "replace");
    refused(link().symlink("out/planted", "x").tar(), "symbolic link");
    refused(link().hard_link("passwd", "out/etc/passwd").tar(), "not in the archive");
    refused(Pack::new().symlink("a", "b").symlink("b", "..").file("a/planted", b"x").tar(), "symbolic link");
}

#[test]
fn a_file_where_a_symlink_was_replaces_the_link() {
    let world = World::new();
    let target = world.home.join("target");
    std::fs::write(&target, "untouched").unwrap();
    let tar = Pack::new().symlink("a", target.to_str().unwrap()).file("a", b"new").tar();
    let tree = world.tree(&world.layer(tar));
    assert_eq!(std::fs::read(tree.join("a")).unwrap(), b"new");
    assert!(tree.join("a").symlink_metadata().unwrap().is_file());
    assert_eq!(std::fs::read(&target).unwrap(), b"untouched");
}

#[test]
fn a_hard_link_out_of_the_archive() {
    refused(Pack::new().hard_link("shadow", "/etc/shadow").tar(), "absolute");
    refused(Pack::new().hard_link("shadow", "../../etc/shadow").tar(), "`..`");
    refused(Pack::new().hard_link("shadow", "etc/shadow").tar(), "not in the archive");
    refused(Pack::new().directory("d", 0o755).hard_link("e", "d").tar(), "directory");
    refused(Pack::new().hard_link("e", ".").tar(), "whole tree");
}

#[test]
fn devices_and_fifos() {
    refused(Pack::new().special(EntryType::Char, "null", 1, 3).tar(), "character device");
    refused(Pack::new().special(EntryType::Char, "whiteout", 0, 0).tar(), "character device");
    refused(Pack::new().special(EntryType::Block, "disk", 8, 0).tar(), "block device");
    refused(Pack::new().special(EntryType::Fifo, "fifo", 0, 0).tar(), "FIFO");
    refused(Pack::new().special(EntryType::new(b'z'), "odd", 0, 0).tar(), "unknown type");
}

#[test]
fn attributes_that_steer_the_overlay() {
    let key = "SCHILY.xattr.trusted.overlay.redirect";
    refused(Pack::new().pax(&[(key, b"/etc")]).directory("d", 0o755).tar(), "trusted.overlay.redirect");
}

#[test]
fn a_directory_replaced_by_something_else() {
    let directory = || Pack::new().directory("d", 0o755);
    refused(directory().file("d", b"x").tar(), "replace a directory");
    refused(directory().symlink("d", "/").tar(), "replace a directory");
    refused(Pack::new().file("d/x", b"x").symlink("d", "/").tar(), "replace a directory");
    refused(Pack::new().file("d", b"x").directory("d", 0o755).tar(), "replace a file");
    refused(Pack::new().file("d", b"x").file("d/e", b"x").tar(), "is a file");
}

#[test]
fn owners_that_mean_nothing_to_chown() {
    refused(Pack::new().owned("f", u64::from(u32::MAX), 0, 0o644).tar(), "owner");
    refused(Pack::new().owned("f", 0, 1 << 33, 0o644).tar(), "group");
}

#[test]
fn a_sparse_file_larger_than_any_disk() {
    let mut header = tar::Header::new_gnu();
    header.set_path("bomb").unwrap();
    header.set_entry_type(EntryType::GNUSparse);
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    let gnu = header.as_gnu_mut().unwrap();
    gnu.set_real_size(1 << 60);
    gnu.sparse[0].set_offset(1 << 60);
    gnu.sparse[0].set_length(0);
    refused(Pack::new().entry(header, b"").tar(), "1 TiB");
    refused(Pack::new().pax(&[("GNU.sparse.major", b"1")]).file("s", b"x").tar(), "pax form");
}

#[test]
fn truncated_in_every_format() {
    let tar = Pack::new().file("noise", &noise(200_000)).file("last", b"x").tar();
    for (name, whole) in
        [("a.tar.gz", gzip(&tar)), ("a.tar.xz", xz(&tar)), ("a.tar.zst", zstd(&tar)), ("a.tar", tar)]
    {
        let world = World::new();
        for keep in [whole.len() / 2, whole.len() - 1500, 700] {
            let mut archive = world.publish(name, &whole[..keep]);
            // Its digest is right: only the format can tell.
            world.fetch(&archive).unwrap_err();
            archive.sha256 = None;
            world.fetch(&archive).unwrap_err();
            world.assert_untouched();
        }
        world.fetch(&world.publish(name, &whole)).unwrap();
    }
}

#[test]
fn cut_between_two_entries() {
    let tar = Pack::new().file("one", b"1").file("two", b"2").tar();
    refused(tar[..1024].to_vec(), "end mark");
    refused(zstd(&tar[..2048]), "end mark");
}

#[test]
fn something_behind_the_end() {
    let tar = Pack::new().file("one", b"1").tar();
    let with = |mut archive: Vec<u8>, more: &[u8]| {
        archive.extend_from_slice(more);
        archive
    };
    refused(with(tar.clone(), b"more"), "behind the end");
    refused(zstd(&with(tar.clone(), b"more")), "behind the end");
    refused(with(zstd(&tar), b"garbage"), "");
    refused(with(gzip(&tar), b"garbage"), "");
    refused(with(xz(&tar), b"garbage!"), "");
}

#[test]
fn unknown_formats() {
    refused(b"PK\x03\x04 a zip".to_vec(), "unknown format");
    refused(b"<html>404</html>".to_vec(), "web page");
    refused(Vec::new(), "empty");
}

#[test]
fn another_digest_than_promised() {
    let world = World::new();
    let bytes = gzip(&Pack::new().file("f", b"x").tar());
    let mut archive = world.publish("a.tar.gz", &bytes);
    archive.sha256 = Some(digest(b"something else"));
    let fault = world.fetch(&archive).unwrap_err();
    assert_eq!(fault.kind, Kind::Failed);
    let text = fault.to_string();
    assert!(
        text.contains(&digest(b"something else").hex()) && text.contains(&digest(&bytes).hex()),
        "{text}"
    );
    world.assert_untouched();
}

/// An archive that begins with `header`, whose content is `size` bytes of zeros, as its compressed form. Zeros of that size
/// are never made in full.
fn bomb(mut header: tar::Header, size: u64) -> Vec<u8> {
    use std::io::{Read as _, Write as _};
    header.set_size(size);
    header.set_cksum();
    let mut encoder = ::zstd::Encoder::new(Vec::new(), 1).unwrap();
    encoder.write_all(header.as_bytes()).unwrap();
    std::io::copy(&mut std::io::repeat(0).take(size), &mut encoder).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn a_description_without_end() {
    for kind in [EntryType::XHeader, EntryType::GNULongName, EntryType::GNULongLink, EntryType::XGlobalHeader]
    {
        let mut header = tar::Header::new_gnu();
        header.set_path("x").unwrap();
        header.set_entry_type(kind);
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        // As much as it says, and less than it says: nobody asks for the rest.
        refused(bomb(header.clone(), 64 << 20), "longer than 4 MiB");
        let mut lies = header;
        lies.set_size(1 << 40);
        lies.set_cksum();
        let mut tar = lies.as_bytes().to_vec();
        tar.resize(8 << 20, 0);
        refused(zstd(&tar), "longer than 4 MiB");
    }
}

#[test]
fn a_long_description_within_bounds_is_read() {
    let world = World::new();
    let value = vec![b'v'; 4000];
    let long = format!("{}/f", ["directory"; 90].join("/"));
    let comment = vec![b'c'; 1 << 20];
    let tar = Pack::new()
        .pax(&[("comment", &comment), ("path", long.as_bytes()), ("SCHILY.xattr.user.note", &value)])
        .file("short", b"x")
        .tar();
    let tree = world.tree(&world.layer(tar));
    assert_eq!(xattr::get(tree.join(&long), "user.note").unwrap().unwrap(), value);
}

#[test]
fn directories_that_take_all_memory() {
    let value = vec![0; 1 << 20];
    let mut pack = Pack::new();
    for index in 0..140 {
        pack = pack.pax(&[("SCHILY.xattr.user.x", &value)]).directory(&format!("d{index}"), 0o755);
    }
    refused(zstd(&pack.tar()), "128 MiB of memory");
}
