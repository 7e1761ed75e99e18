//! A service that stores values in a real `memcached`, and reads them back.
//!
//! ```text
//! cargo run --release -p tierpool-lab --features peers --bin memcached              # plain against the pool
//! cargo run --release -p tierpool-lab --features peers --bin memcached -- --help
//! ```
//!
//! Connections are pooled by `deadpool`, in both columns. Buffers are plain or pooled: those of
//! commands, and those of values, which are handed out frozen. Before the measurement, servers that are full,
//! slow, killed or confused must give the right error, and leave nothing outstanding.

mod client;
mod failures;
mod peer;

use bytes::{Buf, BufMut};
use client::Client;
use peer::{Limits, Server};
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::process::ExitCode;
use std::sync::{Arc, LazyLock, OnceLock};
use std::time::{Duration, Instant};
use tierpool_lab::random::Random;
use tierpool_lab::served::{self, Buffer, Buffers, Load, Plain, Program, Source, checked};
use tierpool_lab::{MIB, Result};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// To memcached, for all users of the service.
const CONNECTIONS: usize = 16;
const TIMEOUT: Duration = Duration::from_secs(60);

/// What values are cut from.
static CONTENTS: LazyLock<Vec<u8>> = LazyLock::new(|| Random(0).bytes(2 * MIB));
static SERVER: OnceLock<SocketAddr> = OnceLock::new();

fn main() -> ExitCode {
    let is_other = |arg: std::ffi::OsString| arg == "--serve" || arg == "--help" || arg == "-h";
    if std::env::args_os().any(is_other) {
        return served::run::<Memcached>();
    }
    match prepare() {
        Ok(_server) => served::run::<Memcached>(),
        Err(error) => {
            eprintln!("memcached: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Tries what may fail. Starts the server of the measurement.
fn prepare() -> Result<Server> {
    eprintln!("{}", failures::check()?);
    let server = Server::start(Limits {
        value_mib: 2,
        total_mib: 512,
    })?;
    let _ = SERVER.set(server.address);
    Ok(server)
}

struct Memcached;

impl Program for Memcached {
    const NAME: &str = "memcached";
    const UNIT: &str = "value";
    const ABOUT: &str = "\
A service stores values of 1 B to 1 MiB in memcached, reads them back, and compares them, for 32 users
over 16 pooled connections. Plain buffers are `BytesMut` with `freeze`.";
    const CONNECTIONS: usize = 32;
    const CHECKS: bool = true;

    async fn serve(buffers: Buffers, listener: TcpListener) -> io::Result<()> {
        match buffers {
            Buffers::Plain => accept(listener, Plain).await,
            Buffers::Pool(pool) => accept(listener, pool).await,
        }
    }

    async fn load(_: usize, stream: &mut TcpStream, load: Arc<Load>) -> io::Result<()> {
        let server = SERVER.get().ok_or(io::ErrorKind::NotConnected)?;
        stream.write_u16(server.port()).await?;
        while !load.is_over() {
            let begun = Instant::now();
            stream.write_all(b"?").await?;
            stream.read_exact(&mut [0]).await?;
            load.answered(1, begun.elapsed());
        }
        Ok(())
    }
}

async fn accept<S: Source>(listener: TcpListener, source: S) -> io::Result<()> {
    let client = Arc::new(OnceLock::new());
    for number in 0.. {
        let (mut user, _) = listener.accept().await?;
        user.set_nodelay(true)?;
        let (client, source) = (Arc::clone(&client), source.clone());
        tokio::spawn(async move {
            let served = async {
                let server = SocketAddr::from((Ipv4Addr::LOCALHOST, user.read_u16().await?));
                let new = || Client::new(server, CONNECTIONS, TIMEOUT, source.clone());
                serve_user(number, user, client.get_or_init(new), &source).await
            };
            if let Err(error) = served.await {
                served::fail(Memcached::NAME, &error);
            }
        });
    }
    Ok(())
}

/// Stores a value, and reads it back, for each byte that comes.
async fn serve_user<S: Source>(
    number: u64,
    mut user: TcpStream,
    client: &Client<S>,
    source: &S,
) -> Result<()> {
    let (key, mut random) = (format!("user-{number}"), Random(number));
    for round in 1_u64.. {
        if user.read(&mut [0]).await? == 0 {
            break;
        }
        let len = (MIB as f64).powf(random.unit()) as usize;
        let at = (random.next_u64() % MIB as u64) as usize;
        let mut value = source.get(len);
        value.put_slice(&CONTENTS[at..at + len]);
        let value = value.freeze();
        client.set(&key, &value).await?;
        let got = client.get(&key).await?;
        if got.is_none_or(|got| got.chunk() != value.chunk()) {
            return Err("a value has other bytes than were stored".into());
        }
        if round % 8 == 0 && !client.delete(&key).await? {
            return Err("a value was lost".into());
        }
        drop(value);
        checked(1);
        user.write_all(b"!").await?;
    }
    Ok(())
}
