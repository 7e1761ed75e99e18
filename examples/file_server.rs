//! A hyper server streams a file in chunks of 64 KiB, out of pooled buffers.
//!
//! `PooledBytes` is the body's data type. hyper writes each chunk to the socket and drops it: the
//! buffer goes home, and takes the next chunk. The client compares the file byte for byte.
//!
//! Run it with `cargo run --release --example file_server`.

use http_body_util::{BodyExt, Empty};
use hyper::body::{Body, Bytes, Frame};
use hyper::{Request, Response, client, server, service::service_fn};
use hyper_util::rt::TokioIo;
use std::task::{Context, Poll};
use std::{env, error::Error, fs, io, pin::Pin};
use tierpool::{Pool, PooledBytes};
use tokio::net::{TcpListener, TcpStream};

const CHUNK_BYTES: usize = 64 << 10;

struct FileBody {
    file: fs::File,
    pool: Pool,
}

impl Body for FileBody {
    type Data = PooledBytes;
    type Error = io::Error;

    // This reads on the runtime's thread, which is right for files in the page cache. For a slow
    // disk, read in `tokio::task::spawn_blocking`: the guard may go to another thread and back.
    fn poll_frame(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<FrameResult>> {
        let this = self.get_mut();
        let mut chunk = this.pool.get(CHUNK_BYTES);
        Poll::Ready(match chunk.read_from(&mut this.file, CHUNK_BYTES) {
            Ok(0) => None,
            Ok(_) => Some(Ok(Frame::data(chunk.freeze()))),
            Err(error) => Some(Err(error)),
        })
    }
}

type FrameResult = io::Result<Frame<PooledBytes>>;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let pool = Pool::default();
    let (path, body_pool) = (env::current_exe()?, pool.clone());
    let expected = fs::read(&path)?;
    let service = service_fn(move |_request| {
        let (opened, pool) = (fs::File::open(&path), body_pool.clone());
        async { opened.map(|file| Response::new(FileBody { file, pool })) }
    });

    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let stream = TokioIo::new(TcpStream::connect(listener.local_addr()?).await?);
    let socket = TokioIo::new(listener.accept().await?.0);
    let server = server::conn::http1::Builder::new().serve_connection(socket, service);
    let server = tokio::spawn(server);
    let (mut requests, connection) = client::conn::http1::handshake(stream).await?;
    let connection = tokio::spawn(connection);
    for _ in 0..5 {
        requests.ready().await?;
        let response = requests
            .send_request(Request::new(Empty::<Bytes>::new()))
            .await?;
        assert_eq!(response.into_body().collect().await?.to_bytes(), expected);
    }
    drop(requests); // so that the connection ends
    connection.await??;
    server.await??;

    let total = pool.stats().total;
    let chunks = total.gets - 5; // the last get of each response finds the end of the file
    println!("{chunks} chunks were sent from {} buffers", total.misses);
    assert!(total.misses < chunks, "{total:?}"); // buffers were used again
    assert_eq!(total.outstanding, 0); // every buffer is home
    Ok(())
}
