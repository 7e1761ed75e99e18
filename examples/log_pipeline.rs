//! Log records go from several threads, through one writer thread, to a file.
//!
//! A producer formats records into a pooled buffer with `write!`, and sends it when it is full. The
//! writer writes the buffer to the file, and drops it. That brings it home, and a producer takes it
//! again. Once the pipeline is warm, it allocates no buffer.
//!
//! Run it with `cargo run --release --example log_pipeline`.

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::{env, error::Error, fs, io, process, thread};
use tierpool::{Pool, PooledBuf};

const PRODUCERS: usize = 4;
const RECORDS_EACH: usize = 200_000;
const BATCH_BYTES: usize = 4 << 10;
/// A buffer with less room than this is full.
const RECORD_BYTES_MAX: usize = 256;

fn main() -> Result<(), Box<dyn Error>> {
    let pool = Pool::default();
    let path = env::temp_dir().join(format!("log_pipeline-{}", process::id()));
    let file = fs::File::create(&path)?;
    thread::scope(|scope| {
        // A bounded channel: producers wait if the file is slow, so memory stays small.
        let (to_writer, batches) = sync_channel(8);
        for producer in 0..PRODUCERS {
            let (pool, to_writer) = (&pool, to_writer.clone());
            scope.spawn(move || produce(producer, pool, &to_writer).unwrap());
        }
        drop(to_writer); // so that the channel closes after the last producer
        write_all(file, batches)
    })?;
    let log = fs::read(&path)?;
    fs::remove_file(&path)?;

    let total = pool.stats().total;
    let (gets, misses) = (total.gets, total.misses);
    println!(
        "{} bytes in {gets} batches, from {misses} buffers",
        log.len()
    );
    let records = log.iter().filter(|byte| **byte == b'\n').count();
    assert_eq!(records, PRODUCERS * RECORDS_EACH);
    // Each miss allocates a buffer. The channel and the threads' caches hold a few, and eight times
    // the records need no more.
    assert!(misses < 400, "{total:?}");
    assert_eq!(total.outstanding, 0);
    Ok(())
}

/// Formats records, and sends each buffer that is full.
fn produce(
    producer: usize,
    pool: &Pool,
    to_writer: &SyncSender<PooledBuf>,
) -> Result<(), Box<dyn Error>> {
    use std::fmt::Write; // not beside `io::Write`: a guard has both, and `write!` takes one
    let mut batch = pool.get(BATCH_BYTES);
    for record in 0..RECORDS_EACH {
        let status = 200 + record % 5;
        writeln!(
            batch,
            "INFO producer={producer} record={record} status={status}"
        )?;
        if batch.len() > BATCH_BYTES - RECORD_BYTES_MAX {
            // The next buffer replaces the full one, which moves to the writer.
            let full = std::mem::replace(&mut batch, pool.get(BATCH_BYTES));
            to_writer.send(full)?;
        }
    }
    Ok(to_writer.send(batch)?)
}

/// Writes each buffer to the file, and drops it on this thread.
fn write_all(mut file: impl io::Write, batches: Receiver<PooledBuf>) -> io::Result<()> {
    batches.iter().try_for_each(|batch| file.write_all(&batch))
}
