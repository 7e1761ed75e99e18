//! A tokio server cuts length-prefixed frames out of its receive buffers, without copying them.
//!
//! Workers keep the frames for a while. The connection reads on in the same buffer, which goes home
//! when its last frame is dropped. Run it with `cargo run --release --example framed_server`.

use bytes::{Buf, BufMut};
use std::{collections::VecDeque, io};
use tierpool::{Pool, PooledBuf, PooledBytes};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::task::JoinSet;

const CONNECTIONS: usize = 8;
const FRAMES_EACH: usize = 5_000;

#[tokio::main]
async fn main() -> io::Result<()> {
    let pool = Pool::default();
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let (mut tasks, mut workers) = (JoinSet::new(), JoinSet::new());
    for _ in 0..CONNECTIONS {
        tasks.spawn(client(TcpStream::connect(listener.local_addr()?).await?));
        let (to_worker, frames) = channel(64);
        let (socket, _) = listener.accept().await?;
        tasks.spawn(serve(socket, pool.clone(), to_worker));
        workers.spawn(work(frames));
    }
    let ended = tasks.join_all().await;
    ended.into_iter().collect::<io::Result<()>>()?;
    let frames: usize = workers.join_all().await.into_iter().sum();
    let total = pool.stats().total;
    println!("{frames} frames, from {} buffers", total.misses);
    assert_eq!(frames, CONNECTIONS * FRAMES_EACH);
    assert_eq!(total.outstanding, 0); // every buffer is home
    Ok(())
}

async fn serve(mut socket: TcpStream, pool: Pool, worker: Sender<PooledBytes>) -> io::Result<()> {
    let mut buf = pool.get(16 << 10);
    while socket.read_buf(&mut buf).await? > 0 {
        while let Some(frame) = next_frame(&mut buf) {
            worker.send(frame).await.map_err(io::Error::other)?;
        }
    }
    Ok(())
}

/// Cuts off the next frame. If it is not complete, makes room for the rest, and returns `None`.
fn next_frame(buf: &mut PooledBuf) -> Option<PooledBytes> {
    let head = buf.first_chunk().copied().unwrap_or_default(); // 0 if less than the head is here
    let len = 2 + usize::from(u16::from_be_bytes(head));
    if buf.len() < len {
        buf.reserve(len - buf.len());
        return None;
    }
    buf.advance(2);
    Some(buf.split_to(len - 2))
}

/// Verifies frames, and returns their number.
async fn work(mut frames: Receiver<PooledBytes>) -> usize {
    let (mut kept, mut count) = (VecDeque::new(), 0);
    while let Some(frame) = frames.recv().await {
        assert!(frame.iter().all(|&byte| byte == frame.len() as u8));
        kept.push_front(frame);
        kept.truncate(16); // a frame holds all of its buffer: keep few, or `freeze_compact` them
        count += 1;
    }
    count
}

async fn client(mut socket: TcpStream) -> io::Result<()> {
    let mut frames = Vec::new();
    for len in (0..FRAMES_EACH).map(|at| at * 7919 % 1500) {
        frames.put_u16(len as u16);
        frames.put_bytes(len as u8, len);
    }
    socket.write_all(&frames).await
}
