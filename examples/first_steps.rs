//! The first steps: take a buffer, write to it, let it grow, cut it into frames, read the numbers.
//!
//! Run it with `cargo run --example first_steps`.

use bytes::BufMut;
use std::fmt::Write;
use std::time::Duration;
use std::{error::Error, thread};
use tierpool::{ConfigError, GetError, Pool};

fn main() -> Result<(), Box<dyn Error>> {
    // `Pool::default()` is a good start. Each option has a default.
    let pool = Pool::builder()
        .max_size(1 << 20) // a larger request is served by the heap, and freed on drop
        .retain_bytes(32 << 20) // the pool never holds more idle memory than this
        .release_when_idle(Duration::from_secs(10)) // idle memory goes back to the system
        .build()?;

    // A buffer is empty, and has room for at least the bytes that were asked for.
    let mut buf = pool.get(3000);
    assert!(buf.is_empty() && buf.capacity() >= 3000);

    // It is a `BytesMut`. It has `BufMut`, `fmt::Write` and `io::Write` as well.
    buf.put_slice(b"answer: ");
    write!(buf, "{}", 6 * 7)?;
    assert_eq!(buf[..], b"answer: 42"[..]);

    // It grows. The larger buffer is from the pool, and the smaller one goes back to it.
    buf.put_bytes(b'.', 5000);
    assert_eq!(buf.len(), 5010);
    assert_eq!(pool.stats().total.growths, 1);

    // Dropping it brings it home. A request of such a size takes an idle buffer: a hit.
    drop(buf);
    let hits = pool.stats().total.hits();
    drop(pool.get(3000));
    assert_eq!(pool.stats().total.hits(), hits + 1);

    // Frames share the buffer that they were received in. Cutting copies nothing.
    let mut received = pool.get(16 << 10);
    received.put_slice(b"frame one, frame two");
    let first = received.split_to(9);
    let second = received.freeze();
    assert_eq!(first[..], b"frame one"[..]);
    assert_eq!(pool.stats().total.outstanding, 1); // one buffer for both

    // Any thread may drop them. The buffer is home when the last one is gone.
    thread::spawn(move || drop(first)).join().unwrap();
    assert_eq!(pool.stats().total.outstanding, 1);
    thread::spawn(move || drop(second)).join().unwrap();
    assert_eq!(pool.stats().total.outstanding, 0);

    // `get` panics if a size is impossible, and ends the process if there is no memory. `try_get`
    // returns an error instead.
    let refused = pool.try_get(usize::MAX).unwrap_err();
    assert!(matches!(refused, GetError::TooLarge { .. }));
    println!("refused: {refused}");

    // `build` returns an error if options contradict each other.
    let wrong = Pool::builder().min_size(4096).max_size(512).build();
    let wrong = wrong.map(|_| ()).unwrap_err();
    assert!(matches!(wrong, ConfigError::MaxBelowMin { .. }));
    println!("not built: {wrong}");

    println!("\n{}", pool.stats());
    Ok(())
}
