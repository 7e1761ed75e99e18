//! A server on `monoio`, an io_uring runtime, answers lines that it cuts out of its receive buffer.
//!
//! The runtime owns a guard while the kernel writes to it, and a part while the kernel reads it. So
//! nothing is copied. Where there is no io_uring, `monoio` polls.
//!
//! Run it with `cargo run --release --example io_uring --features monoio`, on Unix.

use monoio::buf::IoBufMut;
use monoio::io::{AsyncReadRent, AsyncReadRentExt, AsyncWriteRentExt};
use monoio::net::{TcpListener, TcpStream};
use monoio::{FusionDriver, RuntimeBuilder};
use std::io;
use tierpool::{Pool, PooledBytes};

const LINES: usize = 10_000;

/// Sends each line back, until the client ends the connection.
async fn serve(pool: &Pool, mut socket: TcpStream) -> io::Result<()> {
    let mut buf = pool.get(16 << 10);
    loop {
        buf.reserve(4096); // a read into a guard without room would seem to be the end
        let len = buf.len();
        // Only the room behind the contents: a whole guard would be read into from its beginning.
        let (read, room) = socket.read(buf.slice_mut(len..)).await;
        buf = room.into_inner();
        if read? == 0 {
            return Ok(());
        }
        while let Some(end) = buf.iter().position(|&byte| byte == b'\n') {
            let line: PooledBytes = buf.split_to(end + 1); // shares the buffer
            socket.write_all(line).await.0?;
        }
    }
}

/// Sends lines, and reads the answers.
async fn ask(pool: Pool, mut socket: TcpStream) -> io::Result<()> {
    for number in 0..LINES {
        let mut line = pool.get(512);
        line.extend_from_slice(format!("line {number}\n").as_bytes());
        let (written, line) = socket.write_all(line).await;
        written?;
        let answer = pool.get(512).slice_mut(..line.len());
        let (read, answer) = socket.read_exact(answer).await;
        read?;
        assert_eq!(answer.into_inner(), line);
    }
    Ok(())
}

fn main() -> io::Result<()> {
    let pool = Pool::new();
    let mut runtime = RuntimeBuilder::<FusionDriver>::new().build()?;
    runtime.block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let socket = TcpStream::connect(listener.local_addr()?).await?;
        let client = monoio::spawn(ask(pool.clone(), socket));
        serve(&pool, listener.accept().await?.0).await?;
        client.await
    })?;
    drop(runtime);

    let total = pool.stats().total;
    println!("{LINES} lines, from {} buffers", total.misses);
    assert!(total.misses < 10, "{total:?}"); // buffers were used again
    assert_eq!(total.outstanding, 0); // every buffer is home
    Ok(())
}
