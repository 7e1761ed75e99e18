//! The clients: requests at random, and the answer that each must get.

use std::fmt::Write as _;
use std::io;
use std::ops::Range;
use tierpool_lab::random::Random;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

/// A request. Half of them have no user, no query and no body.
pub struct Sent {
    pub path: String,
    pub user: Option<String>,
    fields: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Sent {
    pub fn new(random: &mut Random) -> Self {
        let is_bare = random.next_u64() % 2 == 0;
        let mut word = |prefix: &str| format!("{prefix}-{:x}", random.next_u64());
        let (path, user) = (word("/path"), (!is_bare).then(|| word("user")));
        let fields = (0..8).map(|_| (word("name"), word("value")));
        let fields = fields.filter(|_| !is_bare).collect();
        let body = match is_bare {
            true => Vec::new(),
            false => random.contents(1000.0, 1..=16 << 10),
        };
        Sent {
            path,
            user,
            fields,
            body,
        }
    }

    pub fn request(&self) -> Vec<u8> {
        let pairs = self
            .fields
            .iter()
            .map(|(name, value)| format!("{name}={value}"));
        let query = pairs.collect::<Vec<_>>().join("&");
        let mut head = format!("POST {}?{query} HTTP/1.1\r\nhost: here\r\n", self.path);
        if let Some(user) = &self.user {
            let _ = write!(head, "x-user: {user}\r\n");
        }
        let _ = write!(head, "content-length: {}\r\n\r\n", self.body.len());
        [head.as_bytes(), &self.body].concat()
    }

    /// What this request alone is answered.
    pub fn answer(&self) -> Vec<u8> {
        let mut text = format!("path {}\n", self.path);
        if let Some(user) = &self.user {
            let _ = writeln!(text, "user {user}");
        }
        for (name, value) in &self.fields {
            let _ = writeln!(text, "{name} is {value}");
        }
        [text.as_bytes(), &self.body].concat()
    }
}

/// Reads an answer. Returns where its body is.
pub async fn read_answer(stream: &mut TcpStream, answer: &mut Vec<u8>) -> io::Result<Range<usize>> {
    answer.clear();
    loop {
        if stream.read_buf(answer).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let Some(end) = answer.windows(4).position(|four| four == b"\r\n\r\n") else {
            continue;
        };
        let head = String::from_utf8_lossy(&answer[..end]);
        let mut lines = head.lines();
        if lines.next() != Some("HTTP/1.1 200 OK") {
            return Err(io::Error::other("a request was refused"));
        }
        let len = lines.find_map(|line| line.strip_prefix("content-length: "));
        let len: usize = len.unwrap_or("0").parse().map_err(io::Error::other)?;
        let body = end + 4..end + 4 + len;
        while answer.len() < body.end {
            if stream.read_buf(answer).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        return Ok(body);
    }
}
