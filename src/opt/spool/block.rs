//! Bytes on their way to disk past the page cache, which asks for memory and places in the file that are aligned (open(2),
//! `O_DIRECT`).

/// What disks ask for, bytes: the largest logical block.
const ALIGNMENT: usize = 4096;
/// What is written at a time, bytes. A killed daemon loses as much.
const SIZE: usize = 1 << 20;

/// A piece of a file, filled from its begin.
pub struct Block {
    /// With room to begin at an aligned place.
    memory: Box<[u8]>,
    begin: usize,
    filled: usize,
}

impl Block {
    pub fn new() -> Block {
        let memory = vec![0; SIZE + ALIGNMENT].into_boxed_slice();
        let begin = memory.as_ptr().align_offset(ALIGNMENT);
        Block { memory, begin, filled: 0 }
    }

    /// The last place in a file, up to `place`, at which a block may begin.
    pub fn aligned(place: u64) -> u64 {
        place - place % ALIGNMENT as u64
    }

    /// Takes as many of `bytes` as there is room for, and says how many.
    pub fn fill(&mut self, bytes: &[u8]) -> usize {
        let taken = bytes.len().min(SIZE - self.filled);
        let at = self.begin + self.filled;
        self.memory[at..at + taken].copy_from_slice(&bytes[..taken]);
        self.filled += taken;
        taken
    }

    pub fn bytes(&self) -> &[u8] {
        &self.memory[self.begin..self.begin + self.filled]
    }

    pub fn is_full(&self) -> bool {
        self.filled == SIZE
    }

    pub fn clear(&mut self) {
        self.filled = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_lies_where_a_disk_can_take_it() {
        let mut block = Block::new();
        assert_eq!(block.bytes().as_ptr().align_offset(ALIGNMENT), 0);
        assert_eq!(block.fill(&vec![1; SIZE - 1]), SIZE - 1);
        assert!(!block.is_full());
        assert_eq!(block.fill(&[2, 3]), 1);
        assert!(block.is_full());
        assert_eq!(block.bytes()[SIZE - 2..], [1, 2]);
        block.clear();
        assert!(block.bytes().is_empty());
        assert_eq!((Block::aligned(4095), Block::aligned(4096), Block::aligned(9000)), (0, 4096, 8192));
    }
}
