//! A TCP proxy with many connections. Most of them rest.
//!
//! ```text
//! cargo run --release -p tierpool-lab --bin proxy              # plain buffers against the pool
//! cargo run --release -p tierpool-lab --bin proxy -- --connections 8000
//! ```
//!
//! Each connection names its backend's port, and transfers a message both ways. Most connections
//! then rest, but stay open. The others go on, and compare each byte of the answers.
//!
//! Plain is `tokio::io::copy_bidirectional`. It keeps two buffers of 8 KiB for each connection.

use std::io;
use std::net::Ipv4Addr;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;
use tierpool_lab::random::Random;
use tierpool_lab::served::{self, Buffers, Load, Program};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// Connections that go on. The others rest.
const ACTIVE: usize = 32;
const MESSAGE_BYTES: usize = 32 << 10;

fn main() -> ExitCode {
    served::run::<Proxy>()
}

struct Proxy;

impl Program for Proxy {
    const NAME: &str = "proxy";
    const UNIT: &str = "message";
    const ABOUT: &str = "\
A TCP proxy has 1,024 connections to an echo server. Each transfers a message of 32 KiB both ways.
Then all but 32 rest, and stay open. Plain is `tokio::io::copy_bidirectional`.";
    const CONNECTIONS: usize = 1024;
    const CHECKS: bool = false; // the load compares the bytes
    const STAYS_OPEN: bool = true;

    async fn serve(buffers: Buffers, listener: TcpListener) -> io::Result<()> {
        loop {
            let (client, _) = listener.accept().await?;
            client.set_nodelay(true)?;
            let buffers = buffers.clone();
            tokio::spawn(async move {
                if let Err(error) = forward(client, buffers).await {
                    served::fail(Proxy::NAME, &error);
                }
            });
        }
    }

    async fn load(number: usize, stream: &mut TcpStream, load: Arc<Load>) -> io::Result<()> {
        let port = load.port.get_or_try_init(backend).await?;
        stream.write_u16(*port).await?;
        let message = Random(number as u64).bytes(MESSAGE_BYTES);
        let mut answer = vec![0; MESSAGE_BYTES];
        loop {
            let begun = Instant::now();
            let (mut reader, mut writer) = stream.split();
            tokio::try_join!(writer.write_all(&message), reader.read_exact(&mut answer))?;
            if answer != message {
                return Err(io::Error::other(
                    "the answer has other bytes than the message",
                ));
            }
            if number < ACTIVE {
                load.answered(1, begun.elapsed());
            }
            if number >= ACTIVE || load.is_over() {
                return Ok(());
            }
        }
    }
}

/// Starts a server that sends back each byte. Returns its port.
async fn backend() -> io::Result<u16> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let port = listener.local_addr()?.port();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                stream.set_nodelay(true)?;
                let (mut reader, mut writer) = stream.split();
                tokio::io::copy(&mut reader, &mut writer).await
            });
        }
    });
    Ok(port)
}

/// Forwards both ways, until both sides have closed.
async fn forward(mut client: TcpStream, buffers: Buffers) -> io::Result<()> {
    let port = client.read_u16().await?;
    let mut server = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?;
    server.set_nodelay(true)?;
    match buffers {
        Buffers::Plain => tokio::io::copy_bidirectional(&mut client, &mut server).await?,
        Buffers::Pool(pool) => {
            tierpool::tokio::copy_bidirectional(&pool, &mut client, &mut server).await?
        }
    };
    Ok(())
}
