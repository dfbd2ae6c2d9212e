//! What goes into which part. Pure.

use serde::{Deserialize, Serialize};

/// Bytes of a block in a tar file: a header takes one, content is filled up to whole ones (tar(5)).
const BLOCK: u64 = 512;
/// What ends a tar file, in bytes.
const END: u64 = 2 * BLOCK;
/// A blob is never cut into pieces smaller than this, bytes, unless it is its rest.
const LEAST: u64 = 64 << 10;

/// A range of one of the things to be split.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Piece {
    pub item: usize,
    /// Bytes.
    pub offset: u64,
    pub length: u64,
}

/// What an entry of that many bytes takes in a tar file.
pub fn entry(bytes: u64) -> u64 {
    BLOCK + bytes.div_ceil(BLOCK) * BLOCK
}

/// Splits things of these sizes, in their order, into parts of at most `limit` bytes, of which `reserved` are taken in each.
/// What fits into one part is never cut. `None` where the limit is too small for anything.
pub fn split(sizes: &[u64], limit: u64, reserved: u64) -> Option<Vec<Vec<Piece>>> {
    let room = limit.checked_sub(reserved + END)?;
    let most = (room / BLOCK).checked_sub(1)? * BLOCK;
    if most < LEAST {
        return None;
    }
    let mut parts = vec![Vec::new()];
    let mut left = room;
    for (item, &size) in sizes.iter().enumerate() {
        let (mut offset, mut rest) = (0, size);
        loop {
            let fits = (left / BLOCK).saturating_sub(1) * BLOCK;
            let whole = rest <= fits;
            // A blob that a part of its own could hold goes there whole.
            if !whole && (rest <= most || fits < LEAST) {
                parts.push(Vec::new());
                left = room;
                continue;
            }
            let length = if whole { rest } else { fits };
            if let Some(part) = parts.last_mut() {
                part.push(Piece { item, offset, length });
            }
            left -= entry(length);
            (offset, rest) = (offset + length, rest - length);
            if rest == 0 {
                break;
            }
        }
    }
    Some(parts)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn what_fits_is_never_cut_and_what_does_not_is() {
        let parts = split(&[600 << 10, 600 << 10, 3 * MIB, 0, 5], MIB, 0).unwrap();
        let first: Vec<_> = parts.iter().take(2).map(|part| part[0]).collect();
        assert_eq!(first[0], Piece { item: 0, offset: 0, length: 600 << 10 });
        assert_eq!(first[1], Piece { item: 1, offset: 0, length: 600 << 10 });
        assert_eq!(parts[1][1].item, 2);
        assert_eq!(parts.last().unwrap().last(), Some(&Piece { item: 4, offset: 0, length: 5 }));
        assert_eq!(split(&[1], 1000, 0), None);
        assert_eq!(split(&[1], MIB, MIB), None);
        assert_eq!(split(&[], MIB, 0), Some(vec![vec![]]));
    }

    proptest::proptest! {
        #[test]
        fn every_byte_is_in_one_part_and_no_part_is_too_large(
            sizes in proptest::collection::vec(0u64..4_000_000, 0..20), limit in 200_000u64..3_000_000, reserved in 0u64..100_000
        ) {
            let parts = split(&sizes, limit, reserved).unwrap();
            let mut seen = vec![0; sizes.len()];
            for part in &parts {
                let bytes: u64 = part.iter().map(|piece| entry(piece.length)).sum();
                proptest::prop_assert!(reserved + bytes + END <= limit);
                for piece in part {
                    proptest::prop_assert_eq!(seen[piece.item], piece.offset);
                    seen[piece.item] += piece.length;
                    let fits = entry(sizes[piece.item]) + END + reserved <= limit;
                    proptest::prop_assert!(!fits || piece.length == sizes[piece.item]);
                }
            }
            proptest::prop_assert_eq!(seen, sizes);
        }
    }
}
