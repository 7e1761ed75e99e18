//! A client of memcached, by its text protocol.
//!
//! It has two pools of different kinds. A connection must not vanish unseen: a server counts it, and it may
//! hold half of an answer. So connections are in `deadpool`, which limits and checks them. Buffers
//! are all alike, so they are in the byte pool, which may drop any of them.

use bytes::{Buf, BufMut};
use deadpool::managed::{Manager, Metrics, Object, Pool, RecycleError, RecycleResult};
use std::error::Error as StdError;
use std::fmt::{self, Write as _};
use std::io;
use std::net::SocketAddr;
use std::time::Duration;
use tierpool_lab::MIB;
use tierpool_lab::served::{Buffer, Source};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Room for a command, whose key has at most 250 bytes.
const COMMAND_BYTES: usize = 512;
/// Room for the first line of an answer, and for the bytes that come with it.
const HEAD_BYTES: usize = 2048;
/// A longer value is refused, whatever the server says of its length.
const VALUE_BYTES_MAX: usize = 4 * MIB;
/// What comes after a value.
const END: &[u8] = b"\r\nEND\r\n";

pub type Result<T, E = Error> = std::result::Result<T, E>;

#[derive(Debug)]
pub enum Error {
    /// A key is empty, longer than 250 bytes, or has blanks.
    BadKey,
    /// There is no connection to the server.
    Connect(io::Error),
    /// A connection broke.
    Broken(io::Error),
    /// No answer came in time.
    TimedOut,
    /// The value is above the server's limit.
    TooLarge,
    /// The server has no room for the value.
    Full,
    /// The server refused the command for another reason.
    Refused(String),
    /// This is not the answer to the command.
    Unexpected(String),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BadKey => f.write_str("a key has 1 to 250 bytes and no blanks"),
            Self::Connect(_) => f.write_str("no connection to memcached"),
            Self::Broken(_) => f.write_str("the connection to memcached broke"),
            Self::TimedOut => f.write_str("memcached did not answer in time"),
            Self::TooLarge => f.write_str("the value is above memcached's limit"),
            Self::Full => f.write_str("memcached has no room for the value"),
            Self::Refused(line) => write!(f, "memcached refused the command: {line:?}"),
            Self::Unexpected(line) => write!(f, "memcached sent {line:?}"),
        }
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        match self {
            Self::Connect(error) | Self::Broken(error) => Some(error),
            _ => None,
        }
    }
}

/// Makes connections, and looks at each before it is used again.
struct Connections(SocketAddr);

impl Manager for Connections {
    type Type = TcpStream;
    type Error = Error;

    async fn create(&self) -> Result<TcpStream> {
        let stream = TcpStream::connect(self.0).await.map_err(Error::Connect)?;
        stream.set_nodelay(true).map_err(Error::Connect)?;
        Ok(stream)
    }

    /// Refuses a connection that the server has closed, or that has an answer to no command.
    async fn recycle(&self, stream: &mut TcpStream, _: &Metrics) -> RecycleResult<Error> {
        match stream.try_read(&mut [0]) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
            _ => Err(RecycleError::message("not at rest")),
        }
    }
}

/// A connection in use. Unless the whole answer was read, it is closed, also if the caller has
/// stopped waiting.
struct InUse(Option<Object<Connections>>);

impl InUse {
    fn stream(&mut self) -> &mut TcpStream {
        self.0.as_mut().expect("there until it is given back")
    }

    /// The whole answer was read, so another command may follow.
    fn give_back(mut self) {
        self.0 = None;
    }
}

impl Drop for InUse {
    fn drop(&mut self) {
        self.0.take().map(Object::take);
    }
}

pub struct Client<S> {
    connections: Pool<Connections>,
    source: S,
    timeout: Duration,
}

impl<S: Source> Client<S> {
    pub fn new(server: SocketAddr, connections: usize, timeout: Duration, source: S) -> Self {
        let connections = Pool::builder(Connections(server)).max_size(connections);
        Client {
            connections: connections.build().expect("has no timeouts of its own"),
            source,
            timeout,
        }
    }

    /// How many connections are open, at rest or in use.
    pub fn connections(&self) -> usize {
        self.connections.status().size
    }

    pub async fn set(&self, key: &str, value: &[u8]) -> Result<()> {
        let command = self.command(format_args!("set {key} 0 0 {}", value.len()), key)?;
        let command = Buf::chain(command.chunk(), value);
        let answer = self.answer(Buf::chain(command, &b"\r\n"[..]));
        self.in_time(answer).await.and_then(|line| match &*line {
            "STORED" => Ok(()),
            "SERVER_ERROR object too large for cache" => Err(Error::TooLarge),
            "SERVER_ERROR out of memory storing object" => Err(Error::Full),
            _ => Err(refused(line)),
        })
    }

    /// Whether there was such a value.
    pub async fn delete(&self, key: &str) -> Result<bool> {
        let command = self.command(format_args!("delete {key}"), key)?;
        let answer = self.answer(command.chunk());
        self.in_time(answer).await.and_then(|line| match &*line {
            "DELETED" => Ok(true),
            "NOT_FOUND" => Ok(false),
            _ => Err(refused(line)),
        })
    }

    /// The value is in a buffer of its size.
    pub async fn get(&self, key: &str) -> Result<Option<<S::Buffer as Buffer>::Part>> {
        let command = self.command(format_args!("get {key}"), key)?;
        self.in_time(self.value(key, command)).await
    }

    async fn in_time<T>(&self, answer: impl Future<Output = Result<T>>) -> Result<T> {
        timeout(self.timeout, answer)
            .await
            .unwrap_or(Err(Error::TimedOut))
    }

    async fn connection(&self) -> Result<InUse> {
        use deadpool::managed::PoolError;
        match self.connections.get().await {
            Ok(connection) => Ok(InUse(Some(connection))),
            Err(PoolError::Backend(error)) => Err(error),
            Err(error) => Err(Error::Connect(io::Error::other(error))),
        }
    }

    /// A command's line. A blank in a key would begin another command.
    fn command(&self, text: fmt::Arguments<'_>, key: &str) -> Result<S::Buffer> {
        if key.is_empty() || key.len() > 250 || !key.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(Error::BadKey);
        }
        let mut command = self.source.get(COMMAND_BYTES);
        write!(command, "{text}\r\n").map_err(|_| Error::BadKey)?;
        Ok(command)
    }

    /// Sends a command, and reads an answer of one line. A refusal closes the connection: the server
    /// may not have read the whole value.
    async fn answer(&self, mut command: impl Buf) -> Result<String> {
        let mut connection = self.connection().await?;
        let stream = connection.stream();
        stream
            .write_all_buf(&mut command)
            .await
            .map_err(Error::Broken)?;
        let mut head = self.source.get(HEAD_BYTES);
        let end = line(stream, &mut head).await?;
        let text = String::from_utf8_lossy(&head.chunk()[..end]).into_owned();
        let is_all = head.remaining() == end + 2;
        if is_all && matches!(&*text, "STORED" | "DELETED" | "NOT_FOUND") {
            connection.give_back();
        }
        Ok(text)
    }

    async fn value(
        &self,
        key: &str,
        mut command: S::Buffer,
    ) -> Result<Option<<S::Buffer as Buffer>::Part>> {
        let mut connection = self.connection().await?;
        let stream = connection.stream();
        stream
            .write_all_buf(&mut command)
            .await
            .map_err(Error::Broken)?;
        drop(command);
        let mut head = self.source.get(HEAD_BYTES);
        let end = line(stream, &mut head).await?;
        if head.chunk() == b"END\r\n" {
            connection.give_back();
            return Ok(None);
        }
        let len = announced(&head.chunk()[..end], key)?;
        head.advance(end + 2);
        let mut value = self.source.get(len);
        let came = len.min(head.remaining());
        value.put_slice(&head.chunk()[..came]);
        head.advance(came);
        fill(stream, &mut value, len).await?;
        fill(stream, &mut head, END.len()).await?;
        if head.chunk() != END {
            return Err(unexpected(head.chunk()));
        }
        connection.give_back();
        Ok(Some(value.freeze()))
    }
}

/// Reads until there is a line. Returns its length.
async fn line(stream: &mut TcpStream, head: &mut impl Buffer) -> Result<usize> {
    loop {
        if let Some(end) = head.chunk().windows(2).position(|two| two == b"\r\n") {
            return Ok(end);
        }
        match head.remaining() {
            HEAD_BYTES.. => return Err(unexpected(&head.chunk()[..80])),
            len => read(stream, head, HEAD_BYTES - len).await?,
        }
    }
}

/// Reads until the buffer has `len` bytes, if it has fewer.
async fn fill(stream: &mut TcpStream, buf: &mut impl Buffer, len: usize) -> Result<()> {
    while buf.remaining() < len {
        read(stream, buf, len - buf.remaining()).await?;
    }
    Ok(())
}

async fn read(stream: &mut TcpStream, buf: &mut impl Buffer, most: usize) -> Result<()> {
    match stream.read_buf(&mut buf.limit(most)).await {
        Ok(0) => Err(Error::Broken(io::ErrorKind::UnexpectedEof.into())),
        Ok(_) => Ok(()),
        Err(error) => Err(Error::Broken(error)),
    }
}

/// The length in `VALUE <key> <flags> <bytes>`.
fn announced(line: &[u8], key: &str) -> Result<usize> {
    let text = String::from_utf8_lossy(line);
    let words: Vec<&str> = text.split(' ').collect();
    match (&words[..], words.last().map(|word| word.parse())) {
        (["VALUE", of, _, _], Some(Ok(len))) if *of == key && len <= VALUE_BYTES_MAX => Ok(len),
        (["VALUE", ..], _) => Err(unexpected(line)),
        _ => Err(refused(text.into_owned())),
    }
}

fn refused(line: String) -> Error {
    match line.split(' ').next() {
        Some("ERROR" | "CLIENT_ERROR" | "SERVER_ERROR") => Error::Refused(line),
        _ => Error::Unexpected(line),
    }
}

fn unexpected(bytes: &[u8]) -> Error {
    Error::Unexpected(String::from_utf8_lossy(bytes).into_owned())
}
