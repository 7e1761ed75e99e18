//! A server takes uploads in bursts, and rests in between. `release_when_idle` gives its memory back.
//!
//! Four threads read 128 uploads of 100 KB to 2 MB at once, and then wait. There is a process with
//! plain buffers, one with a default pool, and one whose pool has `release_when_idle`.
//!
//! Run it with `cargo run --release --example upload_sink`. The numbers need Linux.

use bytes::BytesMut;
use std::{env, fs, process::Command, sync::Barrier, thread, time::Duration};
use tierpool::{ConfigError, Pool};

const THREADS: usize = 4;
const IDLE: Duration = Duration::from_secs(2);

fn main() -> Result<(), ConfigError> {
    match env::args().nth(1).as_deref() {
        Some("plain") => serve(BytesMut::with_capacity, |buf, piece| buf.extend(piece)),
        Some("pool") => serve_from(&Pool::default()),
        Some(_) => {
            let pool = Pool::builder().release_when_idle(IDLE).build()?;
            serve_from(&pool);
            assert_eq!(pool.stats().total.retained_bytes, 0); // all memory went back
        }
        None => {
            println!("memory in MiB: at the start, loaded, dropped, and after 2 x {IDLE:?}");
            for mode in ["plain", "pool", "release_when_idle"] {
                let mut this = Command::new(env::current_exe().unwrap());
                let child = this.arg(mode).output().unwrap();
                println!("{mode:18}{}", String::from_utf8_lossy(&child.stdout));
                assert!(child.status.success(), "{child:?}");
            }
        }
    }
    Ok(())
}

fn serve_from(pool: &Pool) {
    serve(|size| pool.get(size), |buf, piece| buf.extend(piece));
}

/// Reads each upload piece by piece into a buffer that grows, as from a socket.
fn serve<B>(get: impl Fn(usize) -> B + Sync, append: impl Fn(&mut B, &[u8]) + Sync) {
    let step = &Barrier::new(THREADS + 1);
    let upload = &|number: usize| {
        let mut buf = get(64 << 10);
        (0..6 + number * 37 % 116).for_each(|_| append(&mut buf, &[7; 16 << 10]));
        buf
    };
    thread::scope(|scope| {
        for first in 0..THREADS {
            scope.spawn(move || {
                step.wait();
                let uploads: Vec<B> = (first..128).step_by(THREADS).map(upload).collect();
                step.wait();
                step.wait();
                drop(uploads);
                step.wait();
                step.wait(); // this thread rests, and does not call the pool
            });
        }
        show_resident();
        for _loaded_then_dropped in 0..2 {
            step.wait();
            step.wait();
            show_resident();
        }
        thread::sleep(IDLE * 2 + IDLE / 4);
        show_resident();
        step.wait();
    });
}

/// Prints how much of this process is in memory.
fn show_resident() {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|rest| rest.trim().strip_suffix(" kB")?.parse::<f64>().ok());
    print!("{:7.1}", kib.unwrap_or(f64::NAN) / 1024.0);
}
