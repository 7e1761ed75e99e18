//! One thread receives datagrams of any size, and sends them to worker threads.
//!
//! Each datagram has room for the largest one. `recv_from` zeroes only the part that the last
//! datagram in this buffer used. `freeze_compact` moves a small datagram to a small buffer, so that
//! a worker does not keep 64 KiB for a few bytes.
//!
//! Run it with `cargo run --release --example udp_receiver`.

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

fn main() -> io::Result<()> {
    let (pool, begun) = (Pool::default(), Instant::now());
    let socket = UdpSocket::bind("127.0.0.1:0")?;
    socket.set_read_timeout(Some(Duration::from_secs(10)))?;
    let address = socket.local_addr()?;
    thread::scope(|scope| {
        scope.spawn(|| client(address).unwrap());
        let mut to_workers = Vec::new();
        for _ in 0..WORKERS {
            let (to_worker, datagrams) = mpsc::sync_channel(WINDOW);
            to_workers.push(to_worker);
            scope.spawn(|| work(&socket, datagrams).unwrap());
        }
        for to_worker in to_workers.iter().cycle().take(DATAGRAMS) {
            let mut buf = pool.get(DATAGRAM_BYTES_MAX);
            let (_, from) = buf.recv_from(&socket, DATAGRAM_BYTES_MAX)?;
            let datagram = (buf.freeze_compact(), from);
            to_worker.send(datagram).map_err(io::Error::other)?;
        }
        Ok::<(), io::Error>(()) // the channels close, so the workers end
    })?;
    let (stats, seconds) = (pool.stats(), begun.elapsed().as_secs_f64());
    let (made, peak) = (stats.total.misses, stats.peaks.footprint_bytes >> 10);
    let per_second = DATAGRAMS as f64 / seconds;
    println!("{per_second:.0} datagrams/s; {made} buffers, at most {peak} KiB");
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
    socket.set_read_timeout(Some(Duration::from_secs(10)))?;
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
