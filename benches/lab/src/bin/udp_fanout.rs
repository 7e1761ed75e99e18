//! A UDP server: one task receives datagrams into shared buffers, and hands them to workers.
//!
//! ```text
//! cargo run --release -p tierpool-lab --bin udp_fanout              # plain against the pool
//! cargo run --release -p tierpool-lab --bin udp_fanout -- --help
//! ```
//!
//! The receiver cuts each datagram off its buffer without copying it, and answers it. A worker
//! verifies the datagram and keeps it for a while. A buffer is free when its last datagram is
//! dropped. The load asks for the port over TCP.

use bytes::Buf;
use std::io;
use std::net::Ipv4Addr;
use std::ops::RangeInclusive;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tierpool_lab::random::Random;
use tierpool_lab::served::{self, Buffer, Buffers, Load, Plain, Program, Source};
use tierpool_lab::workers::{self, Received, checksum};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::time;

const BUFFER_BYTES: usize = 64 << 10;
/// What a datagram on an Ethernet may hold.
const DATAGRAM_BYTES: usize = 1472;
const HEAD_BYTES: usize = 8;
const CONTENTS_BYTES: RangeInclusive<usize> = 64..=DATAGRAM_BYTES - HEAD_BYTES;
/// Datagrams that one client has in flight. Those of all clients fit into Linux's default for a
/// socket's own buffer, so none is lost.
const WINDOW: usize = 4;
const LOST: Duration = Duration::from_secs(10);

fn main() -> ExitCode {
    served::run::<UdpFanout>()
}

struct UdpFanout;

impl Program for UdpFanout {
    const NAME: &str = "udp_fanout";
    const UNIT: &str = "datagram";
    const ABOUT: &str = "\
A UDP server receives datagrams of at most 1,472 bytes into buffers of 64 KiB, and cuts them off
without copying them. Two worker threads verify them, and keep the last 8,192 each. Plain buffers
are `BytesMut` with `split_to` and `freeze`.";
    const CONNECTIONS: usize = 16;
    const CHECKS: bool = true;
    const HOLDS: u64 = 1; // the receiver's

    async fn serve(buffers: Buffers, listener: TcpListener) -> io::Result<()> {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let port = socket.local_addr()?.port();
        match buffers {
            Buffers::Plain => tokio::spawn(receive(socket, Plain)),
            Buffers::Pool(pool) => tokio::spawn(receive(socket, pool)),
        };
        loop {
            listener.accept().await?.0.write_u16(port).await?;
        }
    }

    async fn load(number: usize, stream: &mut TcpStream, load: Arc<Load>) -> io::Result<()> {
        let port = stream.read_u16().await?;
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        socket.connect((Ipv4Addr::LOCALHOST, port)).await?;
        let mut random = Random(number as u64);
        let mut datagram = || {
            let contents = random.contents(1024.0, CONTENTS_BYTES);
            let mut datagram = checksum(&contents).to_be_bytes().to_vec();
            datagram.extend(contents);
            datagram
        };
        let datagrams: Vec<Vec<u8>> = (0..256).map(|_| datagram()).collect();
        for datagrams in datagrams.chunks_exact(WINDOW).cycle() {
            if load.is_over() {
                break;
            }
            let begun = Instant::now();
            for datagram in datagrams {
                socket.send(datagram).await?;
            }
            for _ in datagrams {
                let answer = time::timeout(LOST, socket.recv(&mut [0; 8])).await;
                answer.map_err(|_| io::Error::other("a datagram was lost"))??;
                load.answered(1, begun.elapsed());
            }
        }
        Ok(())
    }
}

/// The task that receives.
async fn receive(socket: UdpSocket, source: impl Source) {
    let Err(error) = receive_all(socket, source).await;
    served::fail(UdpFanout::NAME, &error);
}

async fn receive_all(
    socket: UdpSocket,
    source: impl Source,
) -> io::Result<std::convert::Infallible> {
    let workers = workers::start(UdpFanout::NAME);
    let mut buf = source.get(BUFFER_BYTES);
    let mut number = 0;
    loop {
        buf.reserve(DATAGRAM_BYTES);
        let (len, from) = socket.recv_buf_from(&mut buf).await?;
        if len < HEAD_BYTES {
            return Err(io::Error::other("a datagram without a checksum"));
        }
        let checksum = buf.get_u64();
        let message = buf.split_to(len - HEAD_BYTES);
        let worker = &workers[number % workers.len()];
        let sent = worker.send(Received { checksum, message }).await;
        sent.map_err(io::Error::other)?;
        socket.send_to(&[0; 8], from).await?;
        number += 1;
    }
}
