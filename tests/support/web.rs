//! A web server on the loopback interface that serves one file, well or badly.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// How it serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Manner {
    Well,
    /// Promises everything and hangs up at this byte of the file, however often it is asked for the rest.
    HangsUpAt(usize),
    /// Sends this many bytes, then nothing more for as long as the client stays; the rest to whoever asks for that.
    StallsAfter(usize),
    /// Answers 404.
    NotFound,
}

/// Ends with the test's process.
#[derive(Debug)]
pub struct Web {
    port: u16,
    asked: Arc<AtomicUsize>,
    begun: Arc<AtomicUsize>,
}

impl Web {
    pub fn serving(content: Vec<u8>, manner: Manner) -> Web {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let asked = Arc::new(AtomicUsize::new(0));
        let (counter, begun) = (Arc::clone(&asked), Arc::new(AtomicUsize::new(0)));
        let last = Arc::clone(&begun);
        std::thread::spawn(move || {
            let content = Arc::new(content);
            for stream in listener.incoming().flatten() {
                counter.fetch_add(1, Ordering::SeqCst);
                let (content, last) = (Arc::clone(&content), Arc::clone(&last));
                std::thread::spawn(move || answer(stream, &content, manner, &last));
            }
        });
        Web { port, asked, begun }
    }

    pub fn url(&self, name: &str) -> String {
        format!("http://127.0.0.1:{}/{name}", self.port)
    }

    /// The byte that the last request wanted first.
    pub fn begun(&self) -> usize {
        self.begun.load(Ordering::SeqCst)
    }

    /// How many requests came.
    pub fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

/// A client that goes away in the middle is no error here.
fn answer(mut stream: TcpStream, content: &[u8], manner: Manner, last: &AtomicUsize) -> Option<()> {
    let mut lines = BufReader::new(stream.try_clone().ok()?).lines();
    let request = lines.next()?.ok()?;
    let mut begin = 0;
    while let Some(Ok(line)) = lines.next() {
        if line.is_empty() {
            break;
        }
        if let Some(range) = line.to_ascii_lowercase().strip_prefix("range: bytes=") {
            begin = range.split('-').next()?.parse().unwrap_or(0).min(content.len());
        }
    }
    last.store(begin, Ordering::SeqCst);
    if manner == Manner::NotFound {
        return stream
            .write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            .ok();
    }
    let rest = &content[begin..];
    let status = match begin {
        0 => "200 OK".to_owned(),
        _ => format!(
            "206 Partial Content\r\nContent-Range: bytes {begin}-{}/{}",
            content.len() - 1,
            content.len()
        ),
    };
    write!(
        stream,
        "HTTP/1.1 {status}\r\nAccept-Ranges: bytes\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        rest.len()
    )
    .ok()?;
    if request.starts_with("HEAD") {
        return Some(());
    }
    match manner {
        Manner::HangsUpAt(end) => stream.write_all(&content[begin..end.max(begin)]).ok(),
        Manner::StallsAfter(bytes) if begin == 0 => {
            stream.write_all(&rest[..bytes.min(rest.len())]).ok()?;
            stream.flush().ok()?;
            // Ends when the client has gone.
            std::io::copy(&mut stream, &mut std::io::sink()).ok().map(drop)
        }
        _ => stream.write_all(rest).ok(),
    }
}
