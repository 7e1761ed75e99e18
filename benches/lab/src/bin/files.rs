//! An HTTP server (hyper) that streams a file of 1 MiB in chunks of 64 KiB.
//!
//! ```text
//! cargo run --release -p tierpool-lab --bin files              # plain buffers against the pool
//! cargo run --release -p tierpool-lab --bin files -- --help
//! ```
//!
//! Each chunk is read from the page cache into a buffer that is not zeroed.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use hyper::Response;
use hyper::body::{Body, Frame, SizeHint};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;
use std::pin::Pin;
use std::process::ExitCode;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;
use tierpool::{Pool, PooledBytes};
use tierpool_lab::served::{self, Load, Mode, Program};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

const FILE_BYTES: usize = 1 << 20;
const CHUNK_BYTES: usize = 64 << 10;

fn main() -> ExitCode {
    served::run::<Files>()
}

struct Files;

impl Program for Files {
    const NAME: &str = "files";
    const UNIT: &str = "response";
    const ABOUT: &str = "\
An HTTP server (hyper) streams a file of 1 MiB in chunks of 64 KiB, out of buffers that are
not zeroed. Plain buffers are `BytesMut` with `freeze`.";
    const CONNECTIONS: usize = 16;
    const CHECKS: bool = false; // the load counts the bytes

    async fn serve(mode: Mode, listener: TcpListener) -> io::Result<()> {
        match mode {
            Mode::Plain => accept(listener, Plain).await,
            Mode::Pool => accept(listener, Pool::default()).await,
        }
    }

    async fn load(_: usize, mut stream: TcpStream, load: Arc<Load>) -> io::Result<()> {
        let mut room = vec![0; 256 << 10];
        while !load.is_over() {
            let begun = Instant::now();
            stream
                .write_all(b"GET / HTTP/1.1\r\nhost: here\r\n\r\n")
                .await?;
            let (mut read, mut expected) = (0, usize::MAX);
            while read < expected {
                let len = stream.read(&mut room).await?;
                if len == 0 {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                if expected == usize::MAX {
                    let head = room[..len].windows(4).position(|end| end == b"\r\n\r\n");
                    expected = head.ok_or(io::ErrorKind::InvalidData)? + 4 + FILE_BYTES;
                }
                read += len;
            }
            load.answered(1, begun.elapsed());
        }
        Ok(())
    }
}

/// Where the buffers come from.
trait Source: Clone + Send + Sync + 'static {
    type Data: Buf + Send + 'static;

    /// Reads a chunk of a file, from the offset `at`.
    fn read(&self, file: &File, at: u64) -> io::Result<Self::Data>;
}

#[derive(Clone)]
struct Plain;

impl Source for Plain {
    type Data = Bytes;

    fn read(&self, file: &File, at: u64) -> io::Result<Bytes> {
        let mut buf = BytesMut::with_capacity(CHUNK_BYTES);
        let room = buf.spare_capacity_mut();
        let (start, len) = (room.as_mut_ptr().cast(), room.len().min(CHUNK_BYTES));
        // SAFETY: the room is the buffer's alone, and of at least this length.
        let read = unsafe { libc::pread(file.as_raw_fd(), start, len, at as libc::off_t) };
        let Ok(read) = usize::try_from(read) else {
            return Err(io::Error::last_os_error());
        };
        // SAFETY: the system has written these bytes.
        unsafe { buf.advance_mut(read) };
        Ok(buf.freeze())
    }
}

impl Source for Pool {
    type Data = PooledBytes;

    fn read(&self, file: &File, at: u64) -> io::Result<PooledBytes> {
        let mut buf = self.get(CHUNK_BYTES);
        buf.read_at(file, CHUNK_BYTES, at)?;
        Ok(buf.freeze())
    }
}

/// The file as the body of a response.
struct FileBody<S> {
    file: Arc<File>,
    at: u64,
    source: S,
}

impl<S: Source + Unpin> Body for FileBody<S> {
    type Data = S::Data;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<S::Data>>>> {
        if self.at == FILE_BYTES as u64 {
            return Poll::Ready(None);
        }
        let data = self.source.read(&self.file, self.at)?;
        if !data.has_remaining() {
            return Poll::Ready(Some(Err(io::ErrorKind::UnexpectedEof.into())));
        }
        self.at += data.remaining() as u64;
        Poll::Ready(Some(Ok(Frame::data(data))))
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(FILE_BYTES as u64 - self.at)
    }
}

async fn accept<S: Source + Unpin>(listener: TcpListener, source: S) -> io::Result<()> {
    let path = std::env::temp_dir().join(format!("files-{}", std::process::id()));
    fs::write(&path, vec![b'.'; FILE_BYTES])?;
    let file = File::open(&path);
    fs::remove_file(&path)?;
    let file = Arc::new(file?);
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let (file, source) = (Arc::clone(&file), source.clone());
        let service = service_fn(move |_request| {
            let (file, source) = (Arc::clone(&file), source.clone());
            let body = FileBody {
                file,
                at: 0,
                source,
            };
            async { Ok::<_, io::Error>(Response::new(body)) }
        });
        let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
        tokio::spawn(connection);
    }
}
