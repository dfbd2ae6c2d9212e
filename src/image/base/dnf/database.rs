//! The time of day in rpm's database: each package's header says when it was installed, and the same packages would make
//! another image each time. So they would in another order, which is that of their installation.

use anyhow::{Result, ensure};

/// What each header of `rpmdb --exportdb` begins with (rpm's package format, header structure).
const MAGIC: [u8; 4] = [0x8e, 0xad, 0xe8, 0x01];
/// The magic, four reserved bytes, the number of entries, the size of the data.
const HEAD: usize = 16;
/// An entry: tag, type, offset into the data, count.
const ENTRY: usize = 16;
/// RPMTAG_INSTALLTIME and RPMTAG_INSTALLTID, whose type is INT32 (rpmtag.h).
const TIMES: [u32; 2] = [1008, 1128];
const INT32: u32 = 4;

/// Gives every header in the export the time `epoch`, and puts them in order, whatever dnf installed first. These tags are not
/// part of what a header's digest is over.
pub(super) fn settle(mut export: Vec<u8>, epoch: u32) -> Result<Vec<u8>> {
    let (mut at, mut places) = (0, Vec::new());
    while at < export.len() {
        let header = &mut export[at..];
        ensure!(header.len() >= HEAD && header[..4] == MAGIC, "byte {at} of rpm's database begins no header");
        let (entries, size) = (number(header, 8) as usize, number(header, 12) as usize);
        let data = HEAD + entries * ENTRY;
        ensure!(header.len() >= data + size, "the header at byte {at} of rpm's database is cut off");
        for entry in (0..entries).map(|index| HEAD + index * ENTRY) {
            let (tag, kind) = (number(header, entry), number(header, entry + 4));
            let (offset, count) = (number(header, entry + 8) as usize, number(header, entry + 12) as usize);
            if !TIMES.contains(&tag) || kind != INT32 {
                continue;
            }
            ensure!(
                offset + 4 * count <= size,
                "a time at byte {at} of rpm's database is outside of its header"
            );
            for value in (0..count).map(|index| data + offset + 4 * index) {
                header[value..value + 4].copy_from_slice(&epoch.to_be_bytes());
            }
        }
        places.push(at..at + data + size);
        at += data + size;
    }
    let mut headers: Vec<&[u8]> = places.into_iter().map(|place| &export[place]).collect();
    headers.sort_unstable();
    Ok(headers.concat())
}

/// Big endian, at `at`, which is inside.
fn number(bytes: &[u8], at: usize) -> u32 {
    bytes[at..at + 4].iter().fold(0, |sum, byte| sum << 8 | u32::from(*byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(entries: &[(u32, u32, u32, u32)], data: &[u8]) -> Vec<u8> {
        let mut bytes = [MAGIC, [0; 4]].concat();
        bytes.extend((entries.len() as u32).to_be_bytes());
        bytes.extend((data.len() as u32).to_be_bytes());
        for (tag, kind, offset, count) in entries {
            [tag, kind, offset, count].into_iter().for_each(|word| bytes.extend(word.to_be_bytes()));
        }
        bytes.extend(data);
        bytes
    }

    #[test]
    fn only_the_times_and_the_order_are_settled() {
        let (name, times) = ((1000, 6, 0, 1), (1008, INT32, 4, 1));
        let one = header(&[name, times, (1128, INT32, 8, 1)], b"one\0\x01\x02\x03\x04\x05\x06\x07\x08rest");
        let two = header(&[times], b"abcd\x01\x02\x03\x04");
        let settled = settle([one, two].concat(), 0x0a0b_0c0d).unwrap();
        let time = b"\x0a\x0b\x0c\x0d";
        let one = header(&[name, times, (1128, INT32, 8, 1)], &[b"one\0", &time[..], time, b"rest"].concat());
        let two = header(&[times], &[b"abcd", &time[..]].concat());
        assert_eq!(settled, [two.clone(), one.clone()].concat());
        assert_eq!(settle([two, one].concat(), 0x0a0b_0c0d).unwrap(), settled);
    }

    #[test]
    fn what_is_no_export_is_refused() {
        assert!(settle(vec![0; 40], 1).is_err());
        assert!(settle(header(&[(1008, INT32, 9, 1)], b"abcd"), 1).is_err());
        let mut cut = header(&[], b"abcd");
        cut.pop();
        assert!(settle(cut, 1).is_err());
        assert!(settle(Vec::new(), 1).unwrap().is_empty());
    }
}
