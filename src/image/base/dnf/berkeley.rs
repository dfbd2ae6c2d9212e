//! Files of Berkeley DB, which EL 8 keeps its packages in: each has a number that no other file has, and what no entry uses
//! of a page is whatever memory held. So the same packages would make other bytes each time.

use std::ops::Range;

use sha2::{Digest as _, Sha256};

/// Of a file's first page (db_page.h of Berkeley DB 5.3, DBMETA): magic, version, size of pages, whether they are encrypted
/// or have a checksum, the file's number. All of it is in the page's first 512 bytes.
const MAGIC: usize = 12;
const VERSION: usize = 16;
const PAGE_SIZE: usize = 20;
const ENCRYPTION: usize = 24;
const FLAGS: usize = 26;
const NUMBER: Range<usize> = 52..72;
const METADATA: usize = 512;
/// The types of a first page: of a hash and of a B-tree.
const FIRST: [u8; 2] = [8, 9];
/// B-tree and hash, and the version that Berkeley DB 5.3 gives both.
const MAGICS: [u32; 2] = [0x0005_3162, 0x0006_1561];
const KNOWN_VERSION: u32 = 9;

/// Of every other page (PAGE): the number of its entries, where its data begin or, of an overflow page, how many there are,
/// its type; behind these is each entry's place.
const COUNT: usize = 20;
const DATA: usize = 22;
const KIND: usize = 25;
const HEAD: usize = 26;

/// Gives a file of Berkeley DB the number that follows from its `name` (those of one directory have to differ, since its
/// cache knows them by it), and makes empty what no entry uses. Whether it was such a file; a page that is not understood
/// stays as it is.
pub(super) fn settle(file: &mut [u8], name: &str) -> bool {
    let Some(size) = page_size(file) else { return false };
    let number = Sha256::digest(name.as_bytes());
    for bytes in file.chunks_exact_mut(size) {
        let mut page = Page { bytes, kept: vec![0; size] };
        if page.keep_all().is_none() {
            continue;
        }
        let Page { mut kept, .. } = page;
        if FIRST.contains(&kept[KIND]) {
            kept[NUMBER].copy_from_slice(&number[..NUMBER.len()]);
        }
        bytes.copy_from_slice(&kept);
    }
    true
}

/// Of a file whose pages are laid out as this module knows.
fn page_size(file: &[u8]) -> Option<usize> {
    let is_known = MAGICS.contains(&word(file, MAGIC)?) && word(file, VERSION)? == KNOWN_VERSION;
    let is_plain = file.get(ENCRYPTION)? | file.get(FLAGS)? == 0;
    let size = word(file, PAGE_SIZE)? as usize;
    (is_known && is_plain && (512..=32_768).contains(&size) && size.is_power_of_two()).then_some(size)
}

/// A page, and what is kept of it: all else is zero.
struct Page<'a> {
    bytes: &'a [u8],
    kept: Vec<u8>,
}

impl Page<'_> {
    fn keep(&mut self, range: Range<usize>) -> Option<()> {
        let bytes = self.bytes.get(range.clone())?;
        self.kept[range].copy_from_slice(bytes);
        Some(())
    }

    /// Keeps what is read of the page; none where that is not known.
    fn keep_all(&mut self) -> Option<()> {
        let (count, data) = (half(self.bytes, COUNT)?, half(self.bytes, DATA)?);
        let kind = self.bytes[KIND];
        if FIRST.contains(&kind) {
            return self.keep(0..METADATA);
        }
        self.keep(0..HEAD)?;
        match kind {
            // Free.
            0 => Some(()),
            // Of a value that is too large for another page.
            7 => self.keep(HEAD..HEAD + data),
            // Unsorted and sorted hash, inner page and leaf of a B-tree, duplicates.
            2 | 3 | 5 | 12 | 13 => {
                self.keep(HEAD..HEAD + 2 * count)?;
                let mut end = self.bytes.len();
                for index in 0..count {
                    let at = half(self.bytes, HEAD + 2 * index)?;
                    match kind {
                        2 | 13 => self.keep_of_hash(at, end)?,
                        3 => self.keep_of_inner(at)?,
                        _ => self.keep_of_leaf(at)?,
                    }
                    end = at;
                }
                Some(())
            }
            _ => None,
        }
    }

    /// An entry ends where the one before begins: its type, then a value, or three bytes of nothing (HOFFPAGE, HOFFDUP) and
    /// the page where there is more.
    fn keep_of_hash(&mut self, at: usize, end: usize) -> Option<()> {
        match self.bytes.get(at)? {
            1 | 2 => self.keep(at..end),
            3 | 4 => self.keep(at..at + 1).and_then(|()| self.keep(at + 4..end)),
            _ => None,
        }
    }

    /// The length, the type and a value (BKEYDATA), or the type between nothings and the page where there is more (BOVERFLOW).
    fn keep_of_leaf(&mut self, at: usize) -> Option<()> {
        match self.kind(at)? {
            1 => self.keep(at..at + 3 + half(self.bytes, at)?),
            2 | 3 => self.keep(at + 2..at + 3).and_then(|()| self.keep(at + 4..at + 12)),
            _ => None,
        }
    }

    /// The length, the type, nothing, a page and a number (BINTERNAL); then a value, or what a leaf has for a larger one.
    fn keep_of_inner(&mut self, at: usize) -> Option<()> {
        self.keep(at..at + 3)?;
        self.keep(at + 4..at + 12)?;
        match self.kind(at)? {
            1 => self.keep(at + 12..at + 12 + half(self.bytes, at)?),
            3 => self.keep_of_leaf(at + 12),
            _ => None,
        }
    }

    /// The type of an entry, deleted or not.
    fn kind(&self, at: usize) -> Option<u8> {
        self.bytes.get(at + 2).map(|kind| kind & 0x7f)
    }
}

/// Little endian; a file of a machine with other numbers has no magic here.
fn half(bytes: &[u8], at: usize) -> Option<usize> {
    Some(usize::from(u16::from_le_bytes(bytes.get(at..at + 2)?.try_into().ok()?)))
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: usize = 512;

    fn put(page: &mut [u8], at: usize, bytes: &[u8]) {
        page[at..at + bytes.len()].copy_from_slice(bytes);
    }

    /// All of it is what memory held, but for these entries at their places and what the head says.
    fn page(kind: u8, data: u16, entries: &[(usize, &[u8])]) -> Vec<u8> {
        let mut page = vec![0x55; SIZE];
        put(&mut page, COUNT, &(entries.len() as u16).to_le_bytes());
        put(&mut page, DATA, &data.to_le_bytes());
        page[KIND] = kind;
        for (index, (at, entry)) in entries.iter().enumerate() {
            put(&mut page, HEAD + 2 * index, &(*at as u16).to_le_bytes());
            put(&mut page, *at, entry);
        }
        page
    }

    fn first(magic: u32) -> Vec<u8> {
        let mut page = page(9, 0, &[]);
        put(&mut page, MAGIC, &magic.to_le_bytes());
        put(&mut page, VERSION, &KNOWN_VERSION.to_le_bytes());
        put(&mut page, PAGE_SIZE, &(SIZE as u32).to_le_bytes());
        put(&mut page, ENCRYPTION, &[0]);
        put(&mut page, FLAGS, &[0]);
        page
    }

    /// What is left of a page behind a first one.
    fn settled(page: &[u8]) -> Vec<u8> {
        let mut file = [first(MAGICS[0]), page.to_vec()].concat();
        assert!(settle(&mut file, "Name"));
        file.split_off(SIZE)
    }

    /// The page with nothing but its head, the places of `count` entries, and what is from here to there.
    fn only(page: &[u8], count: usize, used: &[(usize, usize)]) -> Vec<u8> {
        let mut only = vec![0; SIZE];
        for (from, to) in used.iter().chain(&[(0, HEAD + 2 * count)]) {
            only[*from..*to].copy_from_slice(&page[*from..*to]);
        }
        only
    }

    #[test]
    fn the_number_of_a_file_follows_from_its_name() {
        for magic in MAGICS {
            let (mut one, mut two) = (first(magic), first(magic));
            assert!(settle(&mut one, "Name") && settle(&mut two, "Packages"));
            assert_eq!(one[NUMBER], Sha256::digest(b"Name")[..20]);
            assert!(one != two && one[NUMBER.end..] == two[NUMBER.end..]);
        }
    }

    #[test]
    fn what_no_entry_uses_is_empty() {
        // A value, and one that is on another page: three of its bytes mean nothing.
        let hash = page(13, 496, &[(508, b"\x01key"), (496, b"\x03???pagesize")]);
        assert_eq!(settled(&hash), only(&hash, 2, &[(508, 512), (496, 497), (500, 508)]));
        // A value of five bytes, deleted, with its place twice; and one that is on another page.
        let leaf =
            page(5, 400, &[(500, b"\x05\0\x81value"), (500, b"\x05\0\x81value"), (400, b"??\x03?pagesize")]);
        assert_eq!(settled(&leaf), only(&leaf, 3, &[(500, 508), (402, 403), (404, 412)]));
        let inner =
            page(3, 400, &[(480, b"\x02\0\x01?pagerecskk"), (400, b"\x0c\0\x03?pagerecs??\x03?pagesize")]);
        let used = [(480, 483), (484, 494), (400, 403), (404, 412), (414, 415), (416, 424)];
        assert_eq!(settled(&inner), only(&inner, 2, &used));
        let (overflow, free) = (page(7, 100, &[]), page(0, 7, &[]));
        assert_eq!(settled(&overflow), only(&overflow, 0, &[(HEAD, HEAD + 100)]));
        assert_eq!(settled(&free), only(&free, 0, &[]));
    }

    #[test]
    fn what_is_not_understood_stays() {
        let (long, outside) = (b"\xff\xff\x01".as_slice(), b"\x01".as_slice());
        let odd = [
            page(99, 0, &[]),
            page(7, 60_000, &[]),
            page(5, 0, &[(500, long)]),
            page(5, 0, &[(500, b"\0\0\x07")]),
            page(3, 0, &[(490, long)]),
            page(13, 0, &[(400, outside), (450, outside)]),
            page(13, 0, &[(509, b"\x03")]),
        ];
        for page in &odd {
            assert_eq!(settled(page), *page);
        }
        for place in [0xffff, 511] {
            let mut page = page(5, 0, &[(500, b"\0\0\x01")]);
            put(&mut page, HEAD, &u16::to_le_bytes(place));
            assert_eq!(settled(&page), page);
        }
        let mut other = first(MAGICS[0]);
        put(&mut other, VERSION, &[10]);
        let mut checked = first(MAGICS[1]);
        put(&mut checked, FLAGS, &[1]);
        for mut file in [Vec::new(), vec![0; 40], b"SQLite format 3".repeat(100), other, checked] {
            let before = file.clone();
            assert!(!settle(&mut file, "Name"));
            assert_eq!(file, before);
        }
    }
}
