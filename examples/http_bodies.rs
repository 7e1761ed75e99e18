//! A hyper server streams a file, and sends uploads back. All bodies lie in buffers of one pool.
//!
//! Run it with `cargo run --release --example http_bodies --features http-body,tokio`.

use http_body_util::{BodyExt, Either, Full};
use hyper::body::Incoming;
use hyper::{Method, Request, Response, StatusCode, client, server, service::service_fn};
use hyper_util::rt::TokioIo;
use std::{env, error::Error, fs, io, path::Path};
use tierpool::http::{CollectError, ReaderBody, collect};
use tierpool::{Pool, PooledBytes};
use tokio::fs::File;
use tokio::net::{TcpListener, TcpStream};

const UPLOAD_BYTES_MAX: usize = 256 << 20;

/// A file that is read while it is sent, or bytes that are there.
type Body = Either<ReaderBody<File>, Full<PooledBytes>>;

type Answer = io::Result<Response<Body>>;

async fn answer(pool: &Pool, path: &Path, request: Request<Incoming>) -> Answer {
    let mut response = Response::new(Either::Right(Full::default()));
    *response.status_mut() = match *request.method() {
        Method::GET => {
            let file = File::open(path).await?;
            let length = file.metadata().await?.len(); // the header `Content-Length`
            let body = ReaderBody::new(pool, file).chunk_bytes(64 << 10);
            *response.body_mut() = Either::Left(body.content_length(length));
            StatusCode::OK
        }
        Method::POST => match collect(pool, request.into_body(), UPLOAD_BYTES_MAX).await {
            Ok(upload) => {
                *response.body_mut() = Either::Right(Full::new(upload.buf.freeze()));
                StatusCode::OK
            }
            Err(CollectError::TooLarge { .. }) => StatusCode::PAYLOAD_TOO_LARGE,
            Err(CollectError::NoBuffer(_)) => StatusCode::SERVICE_UNAVAILABLE,
            Err(_) => StatusCode::BAD_REQUEST, // the client has gone
        },
        _ => StatusCode::METHOD_NOT_ALLOWED,
    };
    Ok(response)
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let (pool, path) = (Pool::new(), env::current_exe()?);
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let stream = TokioIo::new(TcpStream::connect(listener.local_addr()?).await?);
    let socket = TokioIo::new(listener.accept().await?.0);
    let (shared, served) = (pool.clone(), path.clone());
    let server = tokio::spawn(async move {
        let service = service_fn(|request| answer(&shared, &served, request));
        let server = server::conn::http1::Builder::new();
        server.serve_connection(socket, service).await
    });
    let (mut client, connection) = client::conn::http1::handshake(stream).await?;
    let connection = tokio::spawn(connection);
    let expected = fs::read(&path)?;
    for method in [Method::GET, Method::POST, Method::GET, Method::POST] {
        let body = ReaderBody::new(&pool, File::open(&path).await?); // of unknown length
        client.ready().await?;
        let request = Request::builder().method(method).body(body)?;
        let response = client.send_request(request).await?;
        assert_eq!(response.into_body().collect().await?.to_bytes(), expected);
    }
    drop(client); // so that the connection ends
    connection.await??;
    server.await??;

    let total = pool.stats().total;
    println!("{} gets, {} misses", total.gets, total.misses);
    assert!(total.misses < total.gets, "{total:?}"); // buffers were used again
    assert_eq!(total.outstanding, 0); // every buffer is home
    Ok(())
}
