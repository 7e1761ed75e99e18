//! A log pipeline: threads format records into buffers, and one thread writes them to a file.
//!
//! ```text
//! cargo run --release -p tierpool-lab --bin log_pipeline              # plain against the pool
//! cargo run --release -p tierpool-lab --bin log_pipeline -- --help
//! ```
//!
//! Each buffer is taken on one thread and dropped on another: the pattern in which a heap is
//! weakest. A bounded channel joins the two. The writer takes what waits there, and writes it with
//! one vectored write. The load asks each producer for a burst of records, and waits for the answer
//! that they are in the file. The writer compares the first file and the last one with the records
//! that should be in it: before the measurement, and when nothing comes any more.

use bytes::{Buf, BufMut, BytesMut};
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, IoSlice, Read, Seek, Write as _};
use std::net::TcpStream as Connection;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant};
use tierpool_lab::random::Random;
use tierpool_lab::served::{self, Buffer, Buffers, Load, Plain, Program, Source};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

const BUFFER_BYTES: usize = 64 << 10;
const BURST_RECORDS: u64 = 512;
const MESSAGES: u64 = 256;
const MESSAGE_BYTES_MAX: usize = 8 << 10;
/// A buffer with less room than this is full.
const RECORD_BYTES_MAX: usize = MESSAGE_BYTES_MAX + 128;
/// Buffers between the producers and the writer.
const QUEUE: usize = 16;
/// Buffers of one write.
const BATCH: usize = 16;
/// The writer begins at the file's start again after this many bytes, as if it took a new file.
const FILE_BYTES: u64 = 32 << 20;
/// The writer reads the file again if nothing has come for this long.
const QUIET: Duration = Duration::from_millis(100);

fn main() -> ExitCode {
    served::run::<LogPipeline>()
}

struct LogPipeline;

impl Program for LogPipeline {
    const NAME: &str = "log_pipeline";
    const UNIT: &str = "record";
    const ABOUT: &str = "\
Four threads format log records of about 1 KiB into buffers of 64 KiB, in bursts of 512 records.
One thread writes the buffers to a file, and drops them. Plain buffers are `BytesMut`.";
    const CONNECTIONS: usize = 4;
    const CHECKS: bool = true;

    async fn serve(buffers: Buffers, listener: TcpListener) -> io::Result<()> {
        match buffers {
            Buffers::Plain => accept(listener, Plain).await,
            Buffers::Pool(pool) => accept(listener, pool).await,
        }
    }

    async fn load(_: usize, stream: &mut TcpStream, load: Arc<Load>) -> io::Result<()> {
        while !load.is_over() {
            let begun = Instant::now();
            stream.write_all(b"?").await?;
            stream.read_exact(&mut [0]).await?;
            load.answered(BURST_RECORDS, begun.elapsed());
        }
        Ok(())
    }
}

/// A buffer for the writer.
struct Batch<B> {
    buf: B,
    records: u64,
    /// Who waits for this to be in the file.
    asked: Option<Arc<Connection>>,
}

async fn accept<S: Source>(listener: TcpListener, source: S) -> io::Result<()> {
    let (to_writer, batches) = sync_channel(QUEUE);
    thread::spawn(|| fail(write_all(batches)));
    for producer in 0.. {
        let stream = listener.accept().await?.0.into_std()?;
        stream.set_nonblocking(false)?;
        let (source, to_writer) = (source.clone(), to_writer.clone());
        thread::spawn(move || fail(produce(producer, Arc::new(stream), &source, &to_writer)));
    }
    Ok(())
}

fn fail(outcome: io::Result<()>) {
    if let Err(error) = outcome {
        served::fail(LogPipeline::NAME, &error);
    }
}

/// A producer's thread: formats a burst for each byte that comes.
fn produce<S: Source>(
    producer: u64,
    stream: Arc<Connection>,
    source: &S,
    to_writer: &SyncSender<Batch<S::Buffer>>,
) -> io::Result<()> {
    let messages = messages();
    let mut number = 0;
    while (&*stream).read(&mut [0])? > 0 {
        let end = number + BURST_RECORDS;
        while number < end {
            let (mut buf, first) = (source.get(BUFFER_BYTES), number);
            while number < end && buf.remaining() <= BUFFER_BYTES - RECORD_BYTES_MAX {
                format(&mut buf, producer, number, &messages).map_err(io::Error::other)?;
                number += 1;
            }
            let batch = Batch {
                buf,
                records: number - first,
                asked: (number == end).then(|| Arc::clone(&stream)),
            };
            to_writer.send(batch).map_err(io::Error::other)?;
        }
    }
    Ok(())
}

fn format(
    out: &mut (impl std::fmt::Write + BufMut),
    producer: u64,
    number: u64,
    messages: &[Vec<u8>],
) -> std::fmt::Result {
    let (status, message) = (200 + number % 5, &messages[(number % MESSAGES) as usize]);
    let bytes = message.len();
    write!(
        out,
        "producer={producer} record={number} level=INFO status={status} bytes={bytes} message="
    )?;
    out.put_slice(message);
    out.put_u8(b'\n');
    Ok(())
}

/// Lines of letters.
fn messages() -> Vec<Vec<u8>> {
    let mut random = Random(0);
    let message = |_| {
        let mut message = random.contents(1024.0, 16..=MESSAGE_BYTES_MAX);
        message
            .iter_mut()
            .for_each(|byte| *byte = b'a' + *byte % 26);
        message
    };
    (0..MESSAGES).map(message).collect()
}

/// The writer's thread.
fn write_all<B: Buffer>(batches: Receiver<Batch<B>>) -> io::Result<()> {
    let path = std::env::temp_dir().join(format!("log_pipeline-{}", std::process::id()));
    let mut file = File::options()
        .read(true)
        .write(true)
        .create_new(true)
        .open(&path)?;
    fs::remove_file(&path)?;
    let mut waiting = Vec::with_capacity(BATCH);
    let (mut files, mut records, mut bytes) = (0, 0, 0);
    loop {
        match batches.recv_timeout(QUIET) {
            Ok(first) => waiting.push(first),
            Err(RecvTimeoutError::Timeout) => {
                compare(&file, bytes, records)?;
                continue;
            }
            Err(RecvTimeoutError::Disconnected) => return Ok(()),
        }
        waiting.extend(batches.try_iter().take(BATCH - 1));
        if bytes >= FILE_BYTES {
            if files == 0 {
                compare(&file, bytes, records)?; // before the measurement
            }
            file.rewind()?;
            (files, records, bytes) = (files + 1, 0, 0);
        }
        let mut slices = [IoSlice::new(&[]); BATCH];
        for (slice, batch) in slices.iter_mut().zip(&waiting) {
            *slice = IoSlice::new(batch.buf.chunk());
            bytes += slice.len() as u64;
        }
        let mut rest = &mut slices[..waiting.len()];
        while !rest.is_empty() {
            let written = file.write_vectored(rest)?;
            IoSlice::advance_slices(&mut rest, written);
        }
        for batch in waiting.drain(..) {
            records += batch.records;
            served::checked(batch.records);
            if let Some(stream) = batch.asked {
                (&*stream).write_all(b"!")?;
            }
        }
    }
}

/// Compares the file's first `len` bytes with the records that should be in it.
fn compare(file: &File, len: u64, records: u64) -> io::Result<()> {
    let mut file = file.try_clone()?;
    file.rewind()?;
    let mut lines = BufReader::new((&file).take(len));
    let (messages, mut line, mut expected) = (messages(), Vec::new(), BytesMut::new());
    let mut found = 0;
    while lines.read_until(b'\n', &mut line)? > 0 {
        let word = |name: &str| -> Option<u64> {
            let head = std::str::from_utf8(&line).ok()?;
            let mut words = head.split(' ');
            words.find_map(|word| word.strip_prefix(name))?.parse().ok()
        };
        if let (Some(producer), Some(number)) = (word("producer="), word("record=")) {
            format(&mut expected, producer, number, &messages).map_err(io::Error::other)?;
        }
        if expected != line {
            return Err(io::Error::other("the file has a wrong record"));
        }
        line.clear();
        expected.clear();
        found += 1;
    }
    file.seek(io::SeekFrom::Start(len))?; // the two share a position
    match found == records {
        true => Ok(()),
        false => Err(io::Error::other(format!(
            "{records} records were written, {found} found"
        ))),
    }
}
