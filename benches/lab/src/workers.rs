//! Threads that verify messages, and keep the last ones for a while.

use crate::served;
use std::collections::VecDeque;
use std::ops::Deref;
use std::thread;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::{runtime, time};

const WORKERS: usize = 2;
/// Messages that each worker keeps.
const KEPT: usize = 8192;
/// Messages that a worker takes from its queue at once.
const BATCH: usize = 64;
/// A worker drops all messages if none has come for this long.
const QUIET: Duration = Duration::from_millis(100);

/// A message, and the checksum that came with it.
pub struct Received<T> {
    pub checksum: u64,
    pub message: T,
}

/// Starts the workers. Returns their queues.
pub fn start<T>(program: &'static str) -> [mpsc::Sender<Received<T>>; WORKERS]
where
    T: Deref<Target = [u8]> + Send + 'static,
{
    std::array::from_fn(|_| {
        let (to_worker, messages) = mpsc::channel(1024);
        thread::spawn(move || work(program, messages));
        to_worker
    })
}

/// A worker's thread.
fn work<T: Deref<Target = [u8]>>(program: &str, messages: mpsc::Receiver<Received<T>>) {
    let runtime = runtime::Builder::new_current_thread().enable_time().build();
    match runtime {
        Ok(runtime) => runtime.block_on(keep(program, messages)),
        Err(error) => served::fail(program, &error),
    }
}

/// Verifies messages and keeps the last ones. Drops all of them when the traffic has stopped.
async fn keep<T: Deref<Target = [u8]>>(program: &str, mut messages: mpsc::Receiver<Received<T>>) {
    let mut batch = Vec::with_capacity(BATCH);
    let mut kept = VecDeque::with_capacity(KEPT + BATCH);
    loop {
        let received = time::timeout(QUIET, messages.recv_many(&mut batch, BATCH));
        match received.await {
            Ok(0) => return, // the server has ended
            Ok(count) => {
                for Received {
                    checksum: sent,
                    message,
                } in batch.drain(..)
                {
                    if checksum(&message) != sent {
                        served::fail(program, &"a message with a wrong checksum");
                    }
                    kept.push_back(message);
                }
                kept.drain(..kept.len().saturating_sub(KEPT));
                served::checked(count as u64);
            }
            Err(_) => kept.clear(),
        }
    }
}

/// A sum of words of 8 bytes. It finds a message that was cut at a wrong place or overwritten.
pub fn checksum(bytes: &[u8]) -> u64 {
    let words = bytes.chunks_exact(8);
    let rest = words.remainder().iter().map(|&byte| u64::from(byte));
    let words = words.filter_map(|word| Some(u64::from_le_bytes(word.try_into().ok()?)));
    words
        .chain(rest)
        .fold(bytes.len() as u64, u64::wrapping_add)
}
