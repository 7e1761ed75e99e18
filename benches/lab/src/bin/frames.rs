//! A server of length-prefixed frames, which workers keep for a while.
//!
//! ```text
//! cargo run --release -p tierpool-lab --bin frames -- plain|pool
//! ```
//!
//! A connection reads into a buffer, cuts off each frame without copying it, sends the frame to a
//! worker, and acknowledges it. The worker keeps the last frames. A unit is one frame. The latency
//! is that of one request: one to eight frames and their acknowledgements.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use std::io;
use std::ops::Deref;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;
use tierpool::{Pool, PooledBuf, PooledBytes};
use tierpool_lab::{Load, Mode, Program};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

const BUFFER_BYTES: usize = 16 << 10;
const FRAME_BYTES_LEAST: usize = 64;
const FRAME_BYTES_MOST: usize = 16 << 10;
const WORKERS: usize = 2;
/// Frames that each worker keeps.
const KEPT: usize = 256;
/// Frames of one request.
const REQUEST_FRAMES_MOST: usize = 8;

fn main() -> ExitCode {
    tierpool_lab::run::<Frames>()
}

struct Frames;

impl Program for Frames {
    const NAME: &str = "frames";
    const CONNECTIONS: usize = 64;

    async fn serve(mode: Mode, listener: TcpListener) -> io::Result<()> {
        match mode {
            Mode::Plain => accept(listener, || BytesMut::with_capacity(BUFFER_BYTES)).await,
            Mode::Pool => {
                let pool = Pool::default();
                accept(listener, move || pool.get(BUFFER_BYTES)).await
            }
        }
    }

    async fn load(number: usize, mut stream: TcpStream, load: Arc<Load>) -> io::Result<()> {
        let mut random = Random(number as u64 + 1);
        let (mut frames, mut ends) = (Vec::new(), vec![0]);
        for _ in 0..256 {
            let len = random.frame_bytes();
            frames.put_u32(len as u32);
            frames.put_bytes(7, len);
            ends.push(frames.len());
        }
        let mut first = 0;
        while !load.is_over() {
            let most = REQUEST_FRAMES_MOST.min(ends.len() - 1 - first);
            let count = 1 + random.next() as usize % most;
            let begun = Instant::now();
            stream
                .write_all(&frames[ends[first]..ends[first + count]])
                .await?;
            stream
                .read_exact(&mut [0; REQUEST_FRAMES_MOST][..count])
                .await?;
            load.answered(count as u64, begun.elapsed());
            first = (first + count) % (ends.len() - 1);
        }
        Ok(())
    }
}

/// A buffer that frames are cut from.
trait Framed: Buf + BufMut + Send + 'static {
    type Frame: Deref<Target = [u8]> + Send + Sync;

    fn reserve(&mut self, additional: usize);
    fn cut(&mut self, len: usize) -> Self::Frame;
}

impl Framed for BytesMut {
    type Frame = Bytes;

    fn reserve(&mut self, additional: usize) {
        self.reserve(additional);
    }

    fn cut(&mut self, len: usize) -> Bytes {
        self.split_to(len).freeze()
    }
}

impl Framed for PooledBuf {
    type Frame = PooledBytes;

    fn reserve(&mut self, additional: usize) {
        self.reserve(additional);
    }

    fn cut(&mut self, len: usize) -> PooledBytes {
        self.split_to(len)
    }
}

async fn accept<F: Framed>(listener: TcpListener, buffer: impl Fn() -> F) -> io::Result<()> {
    let workers: [_; WORKERS] = std::array::from_fn(|_| {
        let (to_worker, frames) = mpsc::channel(1024);
        tokio::spawn(work(frames));
        to_worker
    });
    for to_worker in workers.iter().cycle() {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        tokio::spawn(connection(stream, buffer(), to_worker.clone()));
    }
    Ok(())
}

async fn connection<F: Framed>(
    mut stream: TcpStream,
    mut buf: F,
    to_worker: mpsc::Sender<F::Frame>,
) -> io::Result<()> {
    while stream.read_buf(&mut buf).await? > 0 {
        let mut count = 0;
        while let Some(frame) = next_frame(&mut buf) {
            to_worker.send(frame).await.map_err(io::Error::other)?;
            count += 1;
        }
        stream.write_all(&[0; REQUEST_FRAMES_MOST][..count]).await?;
    }
    Ok(())
}

fn next_frame<F: Framed>(buf: &mut F) -> Option<F::Frame> {
    let head = buf.chunk().first_chunk().copied().unwrap_or_default();
    let len = 4 + u32::from_be_bytes(head) as usize;
    if buf.remaining() >= len {
        buf.advance(4);
        return Some(buf.cut(len - 4));
    }
    buf.reserve(len - buf.remaining());
    None
}

async fn work<T: Deref<Target = [u8]>>(mut frames: mpsc::Receiver<T>) {
    let (mut kept, mut at) = (Vec::with_capacity(KEPT), 0);
    while let Some(frame) = frames.recv().await {
        assert_eq!((frame.first(), frame.last()), (Some(&7), Some(&7)));
        if kept.len() < KEPT {
            kept.push(frame);
        } else {
            kept[at % KEPT] = frame;
        }
        at += 1;
    }
}

/// xorshift64: the same frames in each run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 >> 11
    }

    /// Above 0, at most 1.
    fn share(&mut self) -> f64 {
        (self.next() + 1) as f64 / (1_u64 << 53) as f64
    }

    /// Log-normal around 1 KiB: a third is below 660 bytes, a third above 1,580.
    fn frame_bytes(&mut self) -> usize {
        let turn = std::f64::consts::TAU * self.share();
        let normal = (-2.0 * self.share().ln()).sqrt() * turn.cos();
        let len = (1024.0 * normal.exp()) as usize;
        len.clamp(FRAME_BYTES_LEAST, FRAME_BYTES_MOST)
    }
}
