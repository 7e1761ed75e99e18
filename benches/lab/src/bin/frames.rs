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
//! Plain is `BytesMut` with `split_to` and `freeze`. Both modes run the same code; only the
//! [`Source`] of the buffers differs. The latency is that of one request: one to eight frames, and
//! their acknowledgements.

use bytes::{Buf, BufMut};
use std::io;
use std::ops::RangeInclusive;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;
use tierpool_lab::random::Random;
use tierpool_lab::served::{self, Buffer, Buffers, Load, Plain, Program, Source};
use tierpool_lab::workers::{self, Received, checksum};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

const BUFFER_BYTES: usize = 16 << 10;
/// The length of the contents and their checksum.
const HEAD_BYTES: usize = 4 + 8;
const FRAME_BYTES: RangeInclusive<usize> = 64..=16 << 10;
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

    async fn serve(buffers: Buffers, listener: TcpListener) -> io::Result<()> {
        match buffers {
            Buffers::Plain => accept(listener, Plain).await,
            Buffers::Pool(pool) => accept(listener, pool).await,
        }
    }

    async fn load(number: usize, stream: &mut TcpStream, load: Arc<Load>) -> io::Result<()> {
        let mut random = Random(number as u64);
        let (mut frames, mut ends) = (Vec::new(), vec![0]);
        for _ in 0..256 {
            let contents = random.contents(1024.0, FRAME_BYTES);
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

async fn accept(listener: TcpListener, source: impl Source) -> io::Result<()> {
    let workers = workers::start(Frames::NAME);
    for to_worker in workers.iter().cycle() {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let buf = source.get(BUFFER_BYTES);
        tokio::spawn(connection(stream, buf, to_worker.clone()));
    }
    Ok(())
}

async fn connection<B: Buffer>(
    mut stream: TcpStream,
    mut buf: B,
    to_worker: mpsc::Sender<Received<B::Part>>,
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
fn next_frame<B: Buffer>(buf: &mut B) -> Option<Received<B::Part>> {
    let mut head = buf.chunk();
    let mut needed = HEAD_BYTES;
    if head.len() >= HEAD_BYTES {
        needed += head.get_u32() as usize;
        if buf.remaining() >= needed {
            let checksum = head.get_u64();
            buf.advance(HEAD_BYTES);
            let message = buf.split_to(needed - HEAD_BYTES);
            return Some(Received { checksum, message });
        }
    }
    buf.reserve(needed - buf.remaining());
    None
}
