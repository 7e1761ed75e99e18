//! One thread receives datagrams of any size, and sends them to worker threads.
//!
//! At most 256 KiB are in flight: when the workers fall behind, the receiver waits for a buffer. So the
//! channels need no bound. Each datagram has room for the largest one. `freeze_compact` moves a small
//! one to a small buffer, so that a worker does not keep 64 KiB for a few bytes.
//!
//! Run it with `cargo run --release --features limit --example udp_receiver`.

use std::net::{SocketAddr, UdpSocket};
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};
use std::{io, thread};
use tierpool::{Pool, PooledBytes};

const DATAGRAM_BYTES_MAX: usize = 65_507;
const DATAGRAMS: usize = 20_000;
/// Datagrams that the client has in flight: few enough for the socket's own buffer.
const WINDOW: usize = 4;
const WORKERS: usize = 2;
const IN_FLIGHT_BYTES_MAX: usize = 256 << 10;
const PATIENCE: Duration = Duration::from_secs(10);

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let builder = Pool::builder().max_outstanding_bytes(IN_FLIGHT_BYTES_MAX);
    let (pool, begun) = (builder.build()?, Instant::now());
    let socket = UdpSocket::bind("127.0.0.1:0")?;
    socket.set_read_timeout(Some(PATIENCE))?;
    let address = socket.local_addr()?;
    thread::scope(|scope| {
        scope.spawn(|| client(address).unwrap());
        let mut to_workers = Vec::new();
        for _ in 0..WORKERS {
            let (to_worker, datagrams) = mpsc::channel();
            to_workers.push(to_worker);
            scope.spawn(|| work(&socket, datagrams).unwrap());
        }
        for to_worker in to_workers.iter().cycle().take(DATAGRAMS) {
            // Fails if the workers return no buffer in 10 s. The small copies may exceed the limit.
            let mut buf = pool.get_timeout(DATAGRAM_BYTES_MAX, PATIENCE)?;
            let (_, from) = buf.recv_from(&socket, DATAGRAM_BYTES_MAX)?;
            let datagram = (buf.freeze_compact(), from);
            to_worker.send(datagram).map_err(io::Error::other)?;
        }
        Ok::<(), io::Error>(()) // the channels close, so the workers end
    })?;
    let per_second = DATAGRAMS as f64 / begun.elapsed().as_secs_f64();
    let stats = pool.stats();
    let (made, waits) = (stats.total.misses, stats.waits);
    println!("{per_second:.0} datagrams/s; {made} buffers, {waits} waits");
    assert!(made < 1000, "{stats}"); // for 20,000 datagrams: buffers were used again
    assert_eq!(stats.total.outstanding, 0); // every buffer is home
    Ok(())
}

/// Answers each datagram with its first four bytes.
fn work(socket: &UdpSocket, datagrams: Receiver<(PooledBytes, SocketAddr)>) -> io::Result<()> {
    for (datagram, from) in datagrams {
        let (number, rest) = datagram.split_at(4);
        assert!(rest.iter().all(|byte| *byte == number[3]));
        socket.send_to(number, from)?;
    }
    Ok(())
}

/// Sends datagrams of 4 to 2,000 bytes, and waits for the answers.
fn client(server: SocketAddr) -> io::Result<()> {
    let socket = UdpSocket::bind("127.0.0.1:0")?;
    socket.set_read_timeout(Some(PATIENCE))?;
    for number in 0..DATAGRAMS + WINDOW {
        if number >= WINDOW {
            assert_eq!(socket.recv(&mut [0; 8])?, 4);
        }
        if number < DATAGRAMS {
            let mut datagram = (number as u32).to_be_bytes().to_vec();
            datagram.resize(4 + number * 7919 % 2000, number as u8);
            socket.send_to(&datagram, server)?;
        }
    }
    Ok(())
}
