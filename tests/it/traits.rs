//! The traits of a guard and of a handle.

use crate::{pool_of, total};
use bytes::{Buf, BufMut, Bytes, BytesMut};
use std::fmt::Debug;
use std::panic::{RefUnwindSafe, UnwindSafe};
use tierpool::{Builder, ConfigError, Counts, Pool, PooledBuf, Stats};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const fn assert_send_sync_static<T: Send + Sync + 'static>() {}
const fn assert_unwind_safe<T: UnwindSafe + RefUnwindSafe>() {}
const fn assert_unpin_debug<T: Unpin + Debug>() {}
const fn assert_value<T: Clone + PartialEq + Debug>() {}
const fn assert_guard<T>()
where
    T: Buf
        + BufMut
        + std::io::Write
        + std::fmt::Write
        + AsRef<[u8]>
        + AsMut<[u8]>
        + std::ops::DerefMut<Target = BytesMut>
        + Into<Bytes>
        + Extend<u8>
        + for<'a> Extend<&'a u8>,
{
}

const _: () = {
    assert_send_sync_static::<Pool>();
    assert_send_sync_static::<PooledBuf>();
    assert_send_sync_static::<Builder>();
    assert_send_sync_static::<ConfigError>();
    assert_send_sync_static::<Stats>();
    assert_unwind_safe::<Pool>();
    assert_unwind_safe::<PooledBuf>();
    assert_unpin_debug::<Pool>();
    assert_unpin_debug::<PooledBuf>();
    assert_value::<Stats>();
    assert_value::<Counts>();
    assert_value::<ConfigError>();
    assert_guard::<PooledBuf>();
};

// Three words, since each get, drop and hand-over moves a guard.
const _: () = assert!(size_of::<PooledBuf>() <= 24);
const _: () = assert!(size_of::<Option<PooledBuf>>() <= 24);
const _: () = assert!(size_of::<Pool>() == size_of::<usize>());

#[test]
fn a_guard_prints_as_its_contents() {
    let pool = Pool::default();
    let mut buf = pool.get(10);
    buf.extend_from_slice(b"a\n");
    assert_eq!(format!("{buf:?}"), r#"b"a\n""#);
}

#[test]
fn a_pool_prints_its_classes_and_its_counts() {
    let pool = pool_of(&[512, 2048]);
    let _held = pool.get(1);
    let text = format!("{pool:?}");
    assert!(text.starts_with("Pool {"), "{text}");
    assert!(text.contains("[512, 2048]"), "{text}");
    assert!(text.contains("outstanding: 1"), "{text}");
}

#[test]
fn a_guard_works_as_a_trait_object_of_each_of_its_traits() {
    let pool = Pool::default();
    let mut buf = pool.get(10);
    {
        let writer: &mut dyn std::io::Write = &mut buf;
        writer.write_all(b"one ").unwrap();
        writer.flush().unwrap();
    }
    {
        let writer: &mut dyn std::fmt::Write = &mut buf;
        write!(writer, "{}", 2).unwrap();
    }
    {
        let reader: &mut dyn Buf = &mut buf;
        reader.advance(4);
        assert_eq!((reader.remaining(), reader.get_u8()), (1, b'2'));
    }
    assert!(!buf.has_remaining());
}

#[test]
fn a_guard_reads_and_writes_as_a_slice() {
    let pool = Pool::default();
    let mut buf = pool.get(10);
    buf.extend_from_slice(b"abc");
    buf.as_mut()[0] = b'A';
    assert_eq!(buf.as_ref() as &[u8], b"Abc");
    buf[1] = b'B';
    assert_eq!(&buf[..2], b"AB");
}

#[test]
fn a_handle_and_its_clone_are_the_same_pool() {
    let pool = pool_of(&[512]);
    let clone = pool.clone();
    drop(pool.get(1));
    drop(clone.get(1));
    assert_eq!(total(&pool).local_hits, 1);
    assert_eq!(pool.stats(), clone.stats());
    drop(pool);
    drop(clone.get(1));
    assert_eq!(total(&clone).local_hits, 2);
}

#[test]
fn tokio_reads_into_a_guard_and_writes_from_it() {
    if cfg!(miri) {
        return; // Miri has no epoll for the runtime
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    let pool = pool_of(&[64, 512, 4096]);
    let sent: Vec<u8> = (0..2000_usize).map(|at| at as u8).collect();
    let received = runtime.block_on(async {
        let (mut near, mut far) = tokio::io::duplex(100);
        let write = async {
            let mut buf = pool.get(2000);
            buf.extend_from_slice(&sent);
            near.write_all_buf(&mut buf).await.unwrap();
            assert!(buf.is_empty(), "written bytes are consumed");
            drop(near);
        };
        let read = async {
            let mut buf = pool.get(1);
            while far.read_buf(&mut buf).await.unwrap() > 0 {}
            buf
        };
        tokio::join!(write, read).1
    });
    assert_eq!(received[..], sent);
    assert_eq!(received.capacity(), 4096, "grown through the pool");
    drop(received);
    assert_eq!(total(&pool).outstanding, 0);
    assert_eq!(total(&pool).discards.total(), 0);
}

#[test]
fn a_guard_crosses_an_await_on_a_runtime_of_several_threads() {
    if cfg!(miri) {
        return; // Miri has no epoll for the runtime
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .build()
        .unwrap();
    let pool = pool_of(&[64, 512]);
    runtime.block_on(async {
        let tasks: Vec<_> = (0..50_u8)
            .map(|value| {
                let pool = pool.clone();
                tokio::spawn(async move {
                    let mut buf = pool.get(64);
                    buf.extend_from_slice(&[value; 30]);
                    tokio::task::yield_now().await;
                    buf.extend_from_slice(&[value; 30]);
                    tokio::task::yield_now().await;
                    assert_eq!(buf[..], [value; 60]);
                    buf.freeze()
                })
            })
            .collect();
        for (value, task) in tasks.into_iter().enumerate() {
            assert_eq!(task.await.unwrap()[..], [value as u8; 60]);
        }
    });
    drop(runtime);
    assert_eq!(total(&pool).outstanding, 0);
}

#[test]
fn a_guard_whose_length_is_set_shows_the_bytes_that_were_written() {
    let pool = pool_of(&[64]);
    let mut buf = pool.get(64);
    buf.put_slice(b"abc");
    for (at, byte) in buf.spare_capacity_mut().iter_mut().enumerate() {
        byte.write(at as u8);
    }
    // SAFETY: the lines before wrote all bytes.
    unsafe { buf.set_len(5) };
    assert_eq!(&buf[..], b"abc\x00\x01");
    assert_eq!(buf.spare_capacity_mut().len(), 59);
    // SAFETY: as above.
    unsafe { buf.set_len(64) };
    assert!(buf.spare_capacity_mut().is_empty());
    assert_eq!((buf[2], buf[63]), (b'c', 60));
    // SAFETY: a length of 0 needs no initialised bytes.
    unsafe { buf.set_len(0) };
    assert!(buf.is_empty());
}

#[test]
fn a_guard_is_indexed_as_a_slice() {
    let pool = pool_of(&[64]);
    let mut buf = pool.get(64);
    buf.put_slice(b"0123456789");
    assert_eq!((buf[0], buf[9]), (b'0', b'9'));
    assert_eq!((&buf[..2], &buf[8..]), (&b"01"[..], &b"89"[..]));
    assert_eq!((&buf[3..5], &buf[3..=5]), (&b"34"[..], &b"345"[..]));
    buf[0] = b'a';
    buf[1..3].copy_from_slice(b"bc");
    buf[..].rotate_left(1);
    buf[7..=8].fill(b'x');
    assert_eq!(&buf[..], b"bc34567xxa");
    buf.advance(8);
    assert_eq!(&buf[..], b"xa");
    for index in [2, 60, usize::MAX] {
        let out = std::panic::catch_unwind(|| buf[index]);
        assert!(out.is_err(), "behind the contents");
    }
}
