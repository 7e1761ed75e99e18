//! A server of 1,000 connections that holds at most 8 MiB of messages, however slow its clients are.
//!
//! ```text
//! cargo run --release -p tierpool-lab --bin limits              # plain buffers against the pool
//! cargo run --release -p tierpool-lab --bin limits -- --help
//! ```
//!
//! Each client sends a message in two halves. Between the halves it lets the others send. The server
//! takes the buffer once it knows the length, and waits for it if 8 MiB are out. The message then stays
//! in the sockets. All messages together are four times as large as the limit.
//!
//! Plain has no limit. The run fails if more is out than the limit, or if a connection gets no answer.

use bytes::{Buf, BufMut};
use std::io;
use std::ops::RangeInclusive;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;
use tierpool::{Pool, PooledBuf};
use tierpool_lab::random::Random;
use tierpool_lab::served::{self, Buffers, Load, Plain, Program, Source, checked};
use tierpool_lab::workers::checksum;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::yield_now;

const LIMIT: usize = 8 << 20;
const MESSAGE_BYTES: RangeInclusive<usize> = 1 << 10..=64 << 10;
/// Messages that each client has ready.
const MESSAGES: usize = 3;

fn main() -> ExitCode {
    served::run::<Limits>()
}

struct Limits;

impl Program for Limits {
    const NAME: &str = "limits";
    const UNIT: &str = "message";
    const ABOUT: &str = "\
A TCP server reads messages of 1 to 64 KiB from 1,000 slow clients. The pool lets at most 8 MiB out, and
those who need more wait for their turn. Plain is `BytesMut::with_capacity`, without a limit.";
    const CONNECTIONS: usize = 1000;
    const CHECKS: bool = true;
    const LIMIT: Option<usize> = Some(LIMIT);

    async fn serve(buffers: Buffers, listener: TcpListener) -> io::Result<()> {
        loop {
            let (client, _) = listener.accept().await?;
            client.set_nodelay(true)?;
            let buffers = buffers.clone();
            tokio::spawn(async move {
                let served = match buffers {
                    Buffers::Plain => receive(client, Plain).await,
                    Buffers::Pool(pool) => receive(client, pool).await,
                };
                if let Err(error) = served {
                    served::fail(Limits::NAME, &error);
                }
            });
        }
    }

    async fn load(number: usize, stream: &mut TcpStream, load: Arc<Load>) -> io::Result<()> {
        let mut random = Random(number as u64);
        let messages: [Vec<u8>; MESSAGES] =
            std::array::from_fn(|_| random.contents(20_000.0, MESSAGE_BYTES));
        for message in messages.iter().cycle() {
            let begun = Instant::now();
            let (first, second) = message.split_at(message.len() / 2);
            stream.write_u32(message.len() as u32).await?;
            stream.write_all(first).await?;
            yield_now().await;
            stream.write_all(second).await?;
            if stream.read_u64().await? != checksum(message) {
                return Err(io::Error::other("the answer has a wrong checksum"));
            }
            load.answered(1, begun.elapsed());
            if load.is_over() {
                break;
            }
        }
        Ok(())
    }
}

/// Bytes that are out, counted by the program itself.
static OUT: AtomicUsize = AtomicUsize::new(0);

/// Bytes of the pool that are out until this is dropped.
struct Out(usize);

impl Out {
    fn of(capacity: usize) -> io::Result<Self> {
        let out = OUT.fetch_add(capacity, Ordering::Relaxed) + capacity;
        match out > LIMIT {
            true => Err(io::Error::other("more bytes are out than the limit")),
            false => Ok(Out(capacity)),
        }
    }
}

impl Drop for Out {
    fn drop(&mut self) {
        OUT.fetch_sub(self.0, Ordering::Relaxed);
    }
}

/// Where a buffer may have to be waited for.
trait Awaited: Source {
    /// What counts the buffer while it is out. It must be dropped before the buffer.
    type Out: Send;

    fn wait(
        &self,
        size: usize,
    ) -> impl Future<Output = io::Result<(Self::Buffer, Self::Out)>> + Send;
}

impl Awaited for Plain {
    type Out = ();

    async fn wait(&self, size: usize) -> io::Result<(Self::Buffer, ())> {
        Ok((self.get(size), ()))
    }
}

impl Awaited for Pool {
    type Out = Out;

    async fn wait(&self, size: usize) -> io::Result<(PooledBuf, Out)> {
        let buf = self.get_async(size).await?;
        let out = Out::of(buf.capacity())?;
        Ok((buf, out))
    }
}

/// Answers each message with its checksum.
async fn receive(mut client: TcpStream, source: impl Awaited) -> io::Result<()> {
    loop {
        let len = match client.read_u32().await {
            Ok(len) => len as usize,
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
            Err(error) => return Err(error),
        };
        if !MESSAGE_BYTES.contains(&len) {
            return Err(io::Error::other(
                "a message of a length that is not allowed",
            ));
        }
        let (mut message, out) = source.wait(len).await?;
        while message.remaining() < len {
            let missing = len - message.remaining();
            if client.read_buf(&mut (&mut message).limit(missing)).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        let sum = checksum(message.chunk());
        drop(out);
        drop(message);
        checked(1);
        client.write_u64(sum).await?;
    }
}
