//! Which compression an archive has, by its first bytes, and its decoder.

use std::io::{self, Read};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    Gzip,
    Xz,
    Zstd,
    Tar,
}

/// How many bytes it takes to tell: a whole tar header.
pub const HEAD: usize = 512;

/// Bytes an xz archive may make us allocate; `xz -9` asks for 65 MiB.
const XZ_MEMORY: u64 = 256 << 20;

/// RFC 1952 2.3.1, the .xz file format 2.1.1.1, RFC 8878 3.1, and POSIX pax for plain tar (an empty archive is zeros).
pub fn detect(head: &[u8]) -> Option<Format> {
    match head {
        [0x1f, 0x8b, ..] => Some(Format::Gzip),
        [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Some(Format::Xz),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => Some(Format::Zstd),
        _ if head.get(257..262) == Some(b"ustar") => Some(Format::Tar),
        _ if head.len() == HEAD && head.iter().all(|b| *b == 0) => Some(Format::Tar),
        _ => None,
    }
}

/// A reader of the decoded bytes of `source`. Members and frames one behind another are one stream; anything else
/// behind the last is an error when it is reached.
pub fn decoder<'a>(source: impl Read + 'a) -> io::Result<Box<dyn Read + 'a>> {
    let mut head = Vec::with_capacity(HEAD);
    let mut source = source;
    source.by_ref().take(HEAD as u64).read_to_end(&mut head)?;
    let Some(format) = detect(&head) else {
        let what = match head.as_slice() {
            [] => "it is empty".to_owned(),
            [b'<', ..] => "it looks like a web page".to_owned(),
            _ => format!("it starts with {:02x?}", &head[..head.len().min(6)]),
        };
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("unknown format: {what}; an archive is tar.gz, tar.xz, tar.zst or plain tar"),
        ));
    };
    let whole = io::BufReader::with_capacity(256 * 1024, io::Cursor::new(head).chain(source));
    Ok(match format {
        Format::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(whole)),
        Format::Xz => {
            let stream =
                liblzma::stream::Stream::new_stream_decoder(XZ_MEMORY, liblzma::stream::CONCATENATED)?;
            Box::new(liblzma::bufread::XzDecoder::new_stream(whole, stream))
        }
        Format::Zstd => Box::new(zstd::stream::read::Decoder::with_buffer(whole)?),
        Format::Tar => Box::new(whole),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_are_known_by_their_first_bytes() {
        assert_eq!(detect(&[0x1f, 0x8b, 8, 0]), Some(Format::Gzip));
        assert_eq!(detect(b"\xfd7zXZ\0rest"), Some(Format::Xz));
        assert_eq!(detect(&[0x28, 0xb5, 0x2f, 0xfd, 4]), Some(Format::Zstd));
        let mut tar = [0; HEAD];
        assert_eq!(detect(&tar), Some(Format::Tar));
        tar[0] = b'x';
        assert_eq!(detect(&tar), None);
        tar[257..262].copy_from_slice(b"ustar");
        assert_eq!(detect(&tar), Some(Format::Tar));
        assert_eq!(detect(b"PK\x03\x04"), None);
        assert_eq!(detect(b""), None);
    }
}
