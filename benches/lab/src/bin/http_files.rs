//! An HTTP server (hyper) that serves a file of 1 MiB in chunks of 64 KiB, and takes uploads.
//!
//! ```text
//! cargo run --release -p tierpool-lab --bin http_files              # plain against the pool
//! cargo run --release -p tierpool-lab --bin http_files -- --help
//! ```
//!
//! Each chunk is read from the page cache into a buffer that is not zeroed. An upload is collected
//! in one buffer, and then written to a file. `curl` compares downloads and uploads byte for byte,
//! and `wrk` is the load: three downloads, then an upload. Without them, the program's own client
//! does both.

use bytes::{Buf, BufMut};
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use std::fs::{self, File};
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::FileExt;
use std::pin::Pin;
use std::process::{Command, ExitCode};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};
use std::task::{Context, Poll};
use std::time::Instant;
use tierpool_lab::Result;
use tierpool_lab::random::Random;
use tierpool_lab::served::{self, Buffer, Buffers, Load, Plain, Program, Source, peers};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

const FILE_BYTES: usize = 1 << 20;
const CHUNK_BYTES: usize = 64 << 10;
const UPLOAD_BYTES_MAX: usize = 4 << 20;

static CONTENTS: LazyLock<Vec<u8>> = LazyLock::new(|| Random(0).bytes(FILE_BYTES));

fn main() -> ExitCode {
    served::run::<HttpFiles>()
}

struct HttpFiles;

impl Program for HttpFiles {
    const NAME: &str = "http_files";
    const UNIT: &str = "request";
    const ABOUT: &str = "\
An HTTP server (hyper) serves a file of 1 MiB in chunks of 64 KiB, out of buffers that are not
zeroed. One request in four is an upload of 1 MiB, which is collected in one buffer and written
to a file. Plain buffers are `BytesMut` with `freeze`.";
    const CONNECTIONS: usize = 64;
    const CHECKS: bool = false; // the clients compare the bytes

    async fn serve(buffers: Buffers, listener: TcpListener) -> io::Result<()> {
        match buffers {
            Buffers::Plain => accept(listener, Plain).await,
            Buffers::Pool(pool) => accept(listener, pool).await,
        }
    }

    async fn load(_: usize, stream: &mut TcpStream, load: Arc<Load>) -> io::Result<()> {
        let mut room = vec![0; 64 << 10];
        for number in 1.. {
            if load.is_over() {
                break;
            }
            let begun = Instant::now();
            if number % 4 == 0 {
                let head = format!(
                    "PUT /upload HTTP/1.1\r\nhost: here\r\ncontent-length: {FILE_BYTES}\r\n\r\n"
                );
                stream.write_all(head.as_bytes()).await?;
                stream.write_all(&CONTENTS).await?;
                answer(stream, &[], &mut room).await?;
            } else {
                let head = b"GET /file HTTP/1.1\r\nhost: here\r\n\r\n";
                stream.write_all(head).await?;
                answer(stream, &CONTENTS, &mut room).await?;
            }
            load.answered(1, begun.elapsed());
        }
        Ok(())
    }

    fn check(server: SocketAddr) -> Result<()> {
        if !peers::is_installed("curl") {
            return Ok(()); // the load compares, too
        }
        // One upload of unknown length, one of known length.
        let chunked = ["--upload-file", "-"];
        let sized = [
            "--request",
            "PUT",
            "--data-binary",
            "@-",
            "--header",
            "expect:",
        ];
        for (len, args) in [(300_001, &chunked[..]), (FILE_BYTES, &sized)] {
            let upload = Random(len as u64).bytes(len);
            peers::curl(args, server, "/check", &upload)?;
            let answers = ["/check", "/file"].map(|path| peers::curl(&[], server, path, &[]));
            let [check, file] = answers;
            if check? != upload || file? != *CONTENTS {
                return Err("curl has got other bytes than it should".into());
            }
        }
        Ok(())
    }

    fn outside(server: SocketAddr, connections: usize, seconds: u64) -> Option<Command> {
        let wrk = || peers::wrk("bin/http_files.lua", server, connections, seconds);
        peers::is_installed("wrk").then(wrk)
    }
}

/// Reads a response, and compares its body.
async fn answer(stream: &mut TcpStream, expected: &[u8], room: &mut [u8]) -> io::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await?);
    }
    let mut rest = expected;
    while !rest.is_empty() {
        let most = room.len().min(rest.len());
        let len = stream.read(&mut room[..most]).await?;
        if len == 0 || room[..len] != rest[..len] {
            return Err(io::Error::other("a wrong body"));
        }
        rest = &rest[len..];
    }
    match head.starts_with(b"HTTP/1.1 200 OK\r\n") {
        true => Ok(()),
        false => Err(io::Error::other("a request was refused")),
    }
}

// ---- the server

/// A file that is served, and may be replaced by an upload.
struct Stored {
    path: &'static str,
    file: File,
    bytes: AtomicU64,
}

impl Stored {
    /// On the disk, the file has no name.
    fn new(path: &'static str, contents: &[u8]) -> io::Result<Self> {
        let name = format!("http_files-{}", std::process::id());
        let name = std::env::temp_dir().join(name);
        let mut options = File::options();
        let file = options
            .read(true)
            .write(true)
            .create_new(true)
            .open(&name)?;
        fs::remove_file(&name)?;
        let stored = Stored {
            path,
            file,
            bytes: AtomicU64::new(0),
        };
        stored.replace(contents)?;
        Ok(stored)
    }

    fn replace(&self, contents: &[u8]) -> io::Result<()> {
        self.file.write_all_at(contents, 0)?;
        // Relaxed: a client that waits for the answer sees it.
        self.bytes.store(contents.len() as u64, Ordering::Relaxed);
        Ok(())
    }
}

/// A file as the body of a response.
struct FileBody<S> {
    stored: Arc<Stored>,
    at: u64,
    end: u64,
    source: S,
}

impl<S: Source> Body for FileBody<S> {
    type Data = <S::Buffer as Buffer>::Part;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Self::Data>>>> {
        if self.at == self.end {
            return Poll::Ready(None);
        }
        let most = CHUNK_BYTES.min((self.end - self.at) as usize);
        let mut buf = self.source.get(CHUNK_BYTES);
        if buf.read_at(&self.stored.file, most, self.at)? == 0 {
            return Poll::Ready(Some(Err(io::ErrorKind::UnexpectedEof.into())));
        }
        self.at += buf.remaining() as u64;
        Poll::Ready(Some(Ok(Frame::data(buf.freeze()))))
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.end - self.at)
    }
}

async fn accept<S: Source>(listener: TcpListener, source: S) -> io::Result<()> {
    let file = Stored::new("/file", &CONTENTS)?;
    let all = [
        file,
        Stored::new("/upload", &[])?,
        Stored::new("/check", &[])?,
    ];
    let all = all.map(Arc::new);
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let (all, source) = (all.clone(), source.clone());
        let service = service_fn(move |request| {
            let path = request.uri().path();
            let stored = all.iter().find(|stored| stored.path == path).cloned();
            respond(request, stored, source.clone())
        });
        let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
        tokio::spawn(connection);
    }
}

async fn respond<S: Source>(
    request: Request<Incoming>,
    stored: Option<Arc<Stored>>,
    source: S,
) -> io::Result<Response<FileBody<S>>> {
    let stored = stored.ok_or(io::ErrorKind::NotFound)?;
    let end = match *request.method() {
        Method::PUT => {
            let upload = collect(request.into_body(), &source).await?;
            stored.replace(upload.chunk())?;
            0
        }
        _ => stored.bytes.load(Ordering::Relaxed),
    };
    Ok(Response::new(FileBody {
        stored,
        at: 0,
        end,
        source,
    }))
}

/// Collects an upload in one buffer. Fails if it is too long.
async fn collect<S: Source>(mut body: Incoming, source: &S) -> io::Result<S::Buffer> {
    let announced = body.size_hint().lower() as usize;
    let mut buf = source.get(announced.clamp(CHUNK_BYTES, UPLOAD_BYTES_MAX));
    while let Some(frame) = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
        if let Ok(data) = frame.map_err(io::Error::other)?.into_data() {
            if buf.remaining() + data.len() > UPLOAD_BYTES_MAX {
                return Err(io::Error::other("the upload is too long"));
            }
            buf.reserve(data.len());
            buf.put(data);
        }
    }
    Ok(buf)
}
