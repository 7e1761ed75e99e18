//! Frames that share a buffer, and rooms, compared with `bytes` and `vec!`.
//!
//! ```text
//! cargo bench --bench parts
//! ```
//!
//! All cases run in turn, in 200 rounds. Prints the median of each, and its ratio to the first case
//! of its group.

use bytes::{Bytes, BytesMut};
use std::env;
use std::hint::black_box;
use std::time::Instant;
use tierpool::{Pool, PooledBytes};

/// Frames in one buffer.
const FRAMES: usize = 64;
const FRAME: usize = 1000;
const BUFFER: usize = 64 << 10;

/// A name, the number of operations in one call, and that call.
type Case<'a> = (&'a str, usize, Box<dyn FnMut() + 'a>);

fn main() {
    let rounds = match env::args().any(|arg| arg == "--bench") {
        true => 200,
        false => 1, // `cargo test --benches` only checks that it works
    };
    let (pool, reusing) = (
        Pool::default(),
        Pool::builder().reuse_initialised(true).build().unwrap(),
    );
    let contents = vec![7; FRAMES * FRAME];
    let plain = || {
        let mut buf = BytesMut::with_capacity(BUFFER);
        buf.extend_from_slice(&contents);
        buf
    };
    let pooled = || {
        let mut buf = pool.get(BUFFER);
        buf.extend_from_slice(&contents);
        buf
    };
    let (bytes, parts) = (plain().freeze(), pooled().freeze());
    let mut groups: [(&str, Vec<Case>); 3] = [
        (
            "a frame of 1000 bytes, cut from 64 KiB and dropped",
            vec![
                ("BytesMut::split_to().freeze()", FRAMES, {
                    let cut = |mut buf: BytesMut| -> Vec<Bytes> {
                        (0..FRAMES).map(|_| buf.split_to(FRAME).freeze()).collect()
                    };
                    Box::new(move || drop(black_box(cut(plain()))))
                }),
                ("PooledBuf::split_to", FRAMES, {
                    Box::new(|| {
                        let mut buf = pooled();
                        let cut = (0..FRAMES).map(|_| buf.split_to(FRAME));
                        drop(black_box(cut.collect::<Vec<PooledBytes>>()));
                    })
                }),
                ("Bytes::copy_from_slice", FRAMES, {
                    Box::new(|| {
                        let buf = pooled();
                        let cut = buf.chunks(FRAME).map(Bytes::copy_from_slice);
                        drop(black_box(cut.collect::<Vec<Bytes>>()));
                    })
                }),
            ],
        ),
        (
            "a clone, and its drop",
            vec![
                (
                    "Bytes",
                    1000,
                    Box::new(|| (0..1000).for_each(|_| drop(black_box(bytes.clone())))),
                ),
                (
                    "PooledBytes",
                    1000,
                    Box::new(|| (0..1000).for_each(|_| drop(black_box(parts.clone())))),
                ),
            ],
        ),
        (
            "64 KiB of room, filled to the end, and dropped",
            vec![
                ("BytesMut of zeros, set_len", 100, {
                    let mut buf = BytesMut::zeroed(BUFFER);
                    Box::new(move || {
                        for _ in 0..100 {
                            buf.clear();
                            black_box(buf.spare_capacity_mut());
                            // SAFETY: all bytes were made as zeros.
                            unsafe { buf.set_len(BUFFER) };
                            black_box(&buf);
                        }
                    })
                }),
                ("get, spare_capacity_mut", 100, {
                    Box::new(|| {
                        for _ in 0..100 {
                            let mut buf = pool.get(BUFFER);
                            black_box(buf.spare_capacity_mut());
                        }
                    })
                }),
                ("fill_with, reuse_initialised", 100, {
                    Box::new(|| fill(&reusing))
                }),
                ("fill_with", 100, Box::new(|| fill(&pool))),
                ("vec![0; n]", 100, {
                    Box::new(|| (0..100).for_each(|_| drop(black_box(vec![0_u8; BUFFER]))))
                }),
            ],
        ),
    ];
    for (group, cases) in &mut groups {
        println!("{group}:");
        let mut times = vec![Vec::new(); cases.len()];
        for _ in 0..rounds {
            for ((_, units, work), times) in cases.iter_mut().zip(&mut times) {
                let begin = Instant::now();
                work();
                times.push(begin.elapsed().as_nanos() as f64 / *units as f64);
            }
        }
        let medians = times.iter_mut().map(|times| {
            times.sort_by(f64::total_cmp);
            times[times.len() / 2]
        });
        let medians: Vec<f64> = medians.collect();
        for ((name, _, _), median) in cases.iter().zip(&medians) {
            let ratio = median / medians[0];
            println!("  {name:<34} {median:8.1} ns  {ratio:7.2}");
        }
    }
}

/// Announces 100 rooms as filled.
fn fill(pool: &Pool) {
    for _ in 0..100 {
        let mut buf = pool.get(BUFFER);
        buf.fill_with(BUFFER, |room| Ok(black_box(room).len()))
            .unwrap();
        black_box(&buf);
    }
}
