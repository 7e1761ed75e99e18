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
use std::io::{self, Write};
use std::net::SocketAddr;
use std::os::unix::fs::FileExt;
use std::pin::Pin;
use std::process::{Command, ExitCode, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Instant;
use tierpool_lab::Result;
use tierpool_lab::random::Random;
use tierpool_lab::served::{self, Buffer, Buffers, Load, Plain, Program, Source};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

const FILE_BYTES: usize = 1 << 20;
const CHUNK_BYTES: usize = 64 << 10;
const UPLOAD_BYTES_MAX: usize = 4 << 20;

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
        let (file, upload) = (file_contents(), Random(1).bytes(FILE_BYTES));
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
                stream.write_all(&upload).await?;
                answer(stream, &[], &mut room).await?;
            } else {
                let head = b"GET /file HTTP/1.1\r\nhost: here\r\n\r\n";
                stream.write_all(head).await?;
                answer(stream, &file, &mut room).await?;
            }
            load.answered(1, begun.elapsed());
        }
        Ok(())
    }

    fn check(server: SocketAddr) -> Result<()> {
        if !has("curl") {
            return Ok(()); // the load compares, too
        }
        let curl = |args: &[&str], path: &str, input: &[u8]| -> Result<Vec<u8>> {
            let mut curl = Command::new("curl")
                .args(["--silent", "--show-error", "--fail", "--noproxy", "*"])
                .args(args)
                .arg(format!("http://{server}{path}"))
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()?;
            curl.stdin.take().ok_or("no stdin")?.write_all(input)?;
            let output = curl.wait_with_output()?;
            match output.status.success() {
                true => Ok(output.stdout),
                false => Err(format!("curl {path} failed: {}", output.status).into()),
            }
        };
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
        for (upload, args) in [(300_001, &chunked[..]), (FILE_BYTES, &sized)] {
            let upload = Random(upload as u64).bytes(upload);
            curl(args, "/upload", &upload)?;
            if curl(&[], "/upload", &[])? != upload || curl(&[], "/file", &[])? != file_contents() {
                return Err("curl has got other bytes than it should".into());
            }
        }
        Ok(())
    }

    fn outside(server: SocketAddr, connections: usize, seconds: u64) -> Option<Command> {
        has("wrk").then(|| {
            let mut wrk = Command::new("wrk");
            wrk.args(["--threads", "1", "--connections"])
                .args([connections.to_string(), format!("--duration={seconds}")])
                .args([
                    "--script",
                    concat!(env!("CARGO_MANIFEST_DIR"), "/src/wrk.lua"),
                ])
                .arg(format!("http://{server}"));
            wrk
        })
    }
}

/// Whether a client is installed. Says so aloud if it is not.
fn has(client: &'static str) -> bool {
    static CURL: OnceLock<bool> = OnceLock::new();
    static WRK: OnceLock<bool> = OnceLock::new();
    *if client == "curl" { &CURL } else { &WRK }.get_or_init(|| {
        let found = Command::new(client).arg("--version").output().is_ok();
        if !found {
            eprintln!("{client} is NOT INSTALLED: the program's own client does its work");
        }
        found
    })
}

fn file_contents() -> Vec<u8> {
    Random(0).bytes(FILE_BYTES)
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

struct Files {
    file: File,
    upload: File,
    /// The length of the last upload.
    upload_bytes: AtomicU64,
}

/// A part of a file, as the body of a response.
struct FileBody<S> {
    files: Arc<Files>,
    is_upload: bool,
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
        let file = if self.is_upload {
            &self.files.upload
        } else {
            &self.files.file
        };
        let mut buf = self.source.get(CHUNK_BYTES);
        if buf.read_at(file, most, self.at)? == 0 {
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
    let open = |name: &str, contents: &[u8]| {
        let path = std::env::temp_dir().join(format!("http_files-{}-{name}", std::process::id()));
        let mut file = File::options()
            .read(true)
            .write(true)
            .create_new(true)
            .open(&path)?;
        fs::remove_file(&path)?;
        file.write_all(contents)?;
        io::Result::Ok(file)
    };
    let files = Arc::new(Files {
        file: open("file", &file_contents())?,
        upload: open("upload", &[])?,
        upload_bytes: AtomicU64::new(0),
    });
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let (files, source) = (Arc::clone(&files), source.clone());
        let service =
            service_fn(move |request| respond(request, Arc::clone(&files), source.clone()));
        let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
        tokio::spawn(connection);
    }
}

async fn respond<S: Source>(
    request: Request<Incoming>,
    files: Arc<Files>,
    source: S,
) -> io::Result<Response<FileBody<S>>> {
    let is_upload = request.uri().path() == "/upload";
    let end = if request.method() == Method::PUT {
        let upload = collect(request.into_body(), &source).await?;
        files.upload.write_all_at(upload.chunk(), 0)?;
        // Relaxed, here and below: a client asks after the answer.
        files
            .upload_bytes
            .store(upload.remaining() as u64, Ordering::Relaxed);
        0
    } else if is_upload {
        files.upload_bytes.load(Ordering::Relaxed)
    } else {
        FILE_BYTES as u64
    };
    Ok(Response::new(FileBody {
        files,
        is_upload,
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
