//! The main job: a TCP server of frames, with plain buffers and with the pool.
//!
//! ```text
//! cargo run --release -p tierpool-lab              # compares the two: half a minute
//! cargo run --release -p tierpool-lab -- --help
//! ```
//!
//! A connection reads into a buffer, and cuts off each frame without copying it: the frames share
//! the buffer. It sends each frame to a worker on another thread, and acknowledges it. The worker
//! verifies the frame and keeps it for a while. A buffer is free when its last frame is dropped.
//!
//! Plain is `BytesMut` with `split_to` and `freeze`. Both modes run the same code; only [`Framed`]
//! differs. The latency is that of one request: one to eight frames, and their acknowledgements.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use std::collections::VecDeque;
use std::ops::Deref;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};
use std::{io, thread};
use tierpool::{Pool, PooledBuf, PooledBytes};
use tierpool_lab::random::Random;
use tierpool_lab::served::{self, Load, Mode, Program};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::{runtime, time};

const BUFFER_BYTES: usize = 16 << 10;
/// The length of the contents and their checksum.
const HEAD_BYTES: usize = 4 + 8;
const FRAME_BYTES_LEAST: usize = 64;
const FRAME_BYTES_MOST: usize = 16 << 10;
const WORKERS: usize = 2;
/// Frames that each worker keeps.
const KEPT: usize = 8192;
/// Frames that a worker takes from its queue at once.
const BATCH: usize = 64;
/// A worker drops all frames if none has come for this long.
const QUIET: Duration = Duration::from_millis(100);
/// The pool's interval: memory that was not needed for one or two of them goes back.
const RELEASE: Duration = Duration::from_secs(1);
/// Frames of one request.
const REQUEST_FRAMES_MOST: usize = 8;

fn main() -> ExitCode {
    served::run::<Frames>()
}

struct Frames;

impl Program for Frames {
    const NAME: &str = "frames";
    const UNIT: &str = "frame";
    const ABOUT: &str = "\
A TCP server cuts frames of about 1 KiB out of its receive buffers, without copying them.
Two worker threads verify the frames, and keep the last 8,192 each. Then the traffic stops,
and the workers drop all frames. Plain buffers are `BytesMut` with `split_to` and `freeze`.
The pool gives idle memory back: `release_when_idle(1 s)`.";
    const CONNECTIONS: usize = 64;
    const CHECKS: bool = true;

    async fn serve(mode: Mode, listener: TcpListener) -> io::Result<()> {
        match mode {
            Mode::Plain => accept(listener, || BytesMut::with_capacity(BUFFER_BYTES)).await,
            Mode::Pool => {
                let pool = Pool::builder().release_when_idle(RELEASE).build();
                let pool = pool.map_err(io::Error::other)?;
                accept(listener, move || pool.get(BUFFER_BYTES)).await
            }
        }
    }

    async fn load(number: usize, mut stream: TcpStream, load: Arc<Load>) -> io::Result<()> {
        let mut random = Random(number as u64);
        let (mut frames, mut ends) = (Vec::new(), vec![0]);
        for _ in 0..256 {
            let contents = contents(&mut random);
            frames.put_u32(contents.len() as u32);
            frames.put_u64(checksum(&contents));
            frames.put_slice(&contents);
            ends.push(frames.len());
        }
        let mut first = 0;
        while !load.is_over() {
            let most = REQUEST_FRAMES_MOST.min(ends.len() - 1 - first);
            let count = 1 + random.next_u64() as usize % most;
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

/// A buffer that frames are cut from: all that differs between the modes.
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

/// A frame that waits for its worker, with the checksum from its head.
struct Received<T> {
    checksum: u64,
    frame: T,
}

async fn accept<F: Framed>(listener: TcpListener, buffer: impl Fn() -> F) -> io::Result<()> {
    let workers: [_; WORKERS] = std::array::from_fn(|_| {
        let (to_worker, frames) = mpsc::channel(1024);
        thread::spawn(|| work(frames));
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
    to_worker: mpsc::Sender<Received<F::Frame>>,
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

/// Cuts off the next frame. If it is not complete, makes room for the rest, and returns `None`.
fn next_frame<F: Framed>(buf: &mut F) -> Option<Received<F::Frame>> {
    let mut head = buf.chunk();
    let mut needed = HEAD_BYTES;
    if head.len() >= HEAD_BYTES {
        needed += head.get_u32() as usize;
        if buf.remaining() >= needed {
            let checksum = head.get_u64();
            buf.advance(HEAD_BYTES);
            let frame = buf.cut(needed - HEAD_BYTES);
            return Some(Received { checksum, frame });
        }
    }
    buf.reserve(needed - buf.remaining());
    None
}

/// A worker's thread.
fn work<T: Deref<Target = [u8]>>(frames: mpsc::Receiver<Received<T>>) {
    let runtime = runtime::Builder::new_current_thread().enable_time().build();
    match runtime {
        Ok(runtime) => runtime.block_on(keep(frames)),
        Err(error) => served::fail(Frames::NAME, &error),
    }
}

/// Verifies frames and keeps the last ones. Drops all of them when the traffic has stopped.
async fn keep<T: Deref<Target = [u8]>>(mut frames: mpsc::Receiver<Received<T>>) {
    let mut batch = Vec::with_capacity(BATCH);
    let mut kept = VecDeque::with_capacity(KEPT + BATCH);
    loop {
        let received = time::timeout(QUIET, frames.recv_many(&mut batch, BATCH));
        match received.await {
            Ok(0) => return, // the server has ended
            Ok(count) => {
                for Received {
                    checksum: sent,
                    frame,
                } in batch.drain(..)
                {
                    if checksum(&frame) != sent {
                        served::fail(Frames::NAME, &"a frame with a wrong checksum");
                    }
                    kept.push_back(frame);
                }
                kept.drain(..kept.len().saturating_sub(KEPT));
                served::checked(count as u64);
            }
            Err(_) => kept.clear(),
        }
    }
}

/// A sum of words of 8 bytes. It finds a frame that was cut at a wrong place or overwritten.
fn checksum(bytes: &[u8]) -> u64 {
    let words = bytes.chunks_exact(8);
    let rest = words.remainder().iter().map(|&byte| u64::from(byte));
    let words = words.filter_map(|word| Some(u64::from_le_bytes(word.try_into().ok()?)));
    words
        .chain(rest)
        .fold(bytes.len() as u64, u64::wrapping_add)
}

/// Random bytes. Their length is log-normal around 1 KiB: a third is below 660 bytes, a third
/// above 1,580.
fn contents(random: &mut Random) -> Vec<u8> {
    let len = (1024.0 * random.normal().exp()) as usize;
    let len = len.clamp(FRAME_BYTES_LEAST, FRAME_BYTES_MOST);
    let words = std::iter::repeat_with(|| random.next_u64().to_le_bytes());
    words.flatten().take(len).collect()
}
