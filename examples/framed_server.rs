//! A tokio server cuts length-prefixed frames out of its receive buffers, without copying them.
//!
//! A worker keeps frames of all clients for a while. One client sends a length that is not allowed, and loses
//! its connection. Run it with `cargo run --release --features tokio --example framed_server`.

use bytes::BufMut;
use std::{collections::VecDeque, error::Error, io};
use tierpool::tokio::{FrameError, Framing, PooledReader};
use tierpool::{Pool, PooledBytes};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::task::JoinSet;

const CLIENTS: usize = 8;
const FRAMES_EACH: usize = 5_000;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let pool = Pool::default();
    let framing = Framing::length_field().bytes(2).build()?;
    let mut messages = Vec::new();
    for len in (0..FRAMES_EACH).map(|at| at * 7919 % 1500) {
        messages.put_u16(len as u16);
        messages.put_bytes(len as u8, len);
    }
    let too_long = 1501_u16.to_be_bytes().to_vec();
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let (to_worker, frames) = channel(64);
    let worker = tokio::spawn(work(frames));
    let (mut clients, mut servers) = (JoinSet::new(), JoinSet::new());
    for sent in [vec![messages; CLIENTS], vec![too_long]].concat() {
        let socket = TcpStream::connect(listener.local_addr()?).await?;
        clients.spawn(client(socket, sent));
        let frames = PooledReader::new(&pool, framing.clone(), listener.accept().await?.0)
            .buffer_bytes(16 << 10)
            .max_frame_bytes(1500) // nothing is reserved for a larger one
            .copy_below(64); // a tiny frame would hold 16 KiB
        servers.spawn(serve(frames, to_worker.clone()));
    }
    drop(to_worker);
    let ended = servers.join_all().await.into_iter();
    let refused: Vec<_> = ended.filter_map(Result::err).collect();
    assert!(matches!(refused[..], [FrameError::TooLarge { .. }]));
    let ended = clients.join_all().await.into_iter();
    ended.collect::<io::Result<()>>()?;
    assert_eq!(worker.await?, CLIENTS * FRAMES_EACH);
    let total = pool.stats().total;
    println!("{} buffers; {}", total.misses, refused[0]);
    assert_eq!(total.outstanding, 0); // every buffer is home
    Ok(())
}

/// Passes frames on. An error closes the connection.
async fn serve(
    mut frames: PooledReader<TcpStream>,
    to: Sender<PooledBytes>,
) -> Result<(), FrameError> {
    while let Some(frame) = frames.next_frame().await {
        to.send(frame?).await.expect("the worker takes all frames");
    }
    Ok(())
}

async fn work(mut frames: Receiver<PooledBytes>) -> usize {
    let (mut kept, mut count) = (VecDeque::new(), 0);
    while let Some(frame) = frames.recv().await {
        assert!(frame.iter().all(|&byte| byte == frame.len() as u8));
        kept.push_front(frame);
        kept.truncate(100);
        count += 1;
    }
    count
}

async fn client(mut socket: TcpStream, sent: Vec<u8>) -> io::Result<()> {
    socket.write_all(&sent).await?;
    socket.shutdown().await?;
    socket.read_to_end(&mut Vec::new()).await.map(drop) // the server's end
}
