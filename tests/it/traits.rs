//! The traits of a guard and of a handle.

use crate::{pool_of, total};
use bytes::{Buf, BufMut, Bytes, BytesMut};
use std::borrow::{Borrow, BorrowMut};
use std::cmp::Ordering;
use std::collections::{BTreeMap, HashMap};
use std::fmt::Debug;
use std::hash::{BuildHasher, Hash, RandomState};
use std::mem;
use std::panic::{RefUnwindSafe, UnwindSafe};
use tierpool::{Builder, ConfigError, Counts, Pool, PooledBuf, PooledBytes, Stats};
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
        + Into<BytesMut>
        + Into<Vec<u8>>
        + Into<PooledBytes>
        + Extend<u8>
        + for<'a> Extend<&'a u8>
        + Extend<Bytes>
        + Clone
        + Ord
        + Hash
        + BorrowMut<[u8]>
        + IntoIterator<Item = u8>
        + std::fmt::LowerHex
        + std::fmt::UpperHex,
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

/// A guard with these contents.
fn guard_of(pool: &Pool, contents: &[u8]) -> PooledBuf {
    let mut buf = pool.get(contents.len());
    buf.extend_from_slice(contents);
    buf
}

/// Asserts that `left` equals `same`, is below `more`, and differs from it, in both directions.
fn assert_compares<L, R>(left: &L, same: &R, more: &R)
where
    L: PartialEq<R> + PartialOrd<R> + ?Sized,
    R: PartialEq<L> + PartialOrd<L> + ?Sized,
{
    assert_eq!([left.eq(same), same.eq(left)], [true; 2]);
    assert_eq!([left.ne(more), more.ne(left)], [true; 2]);
    assert_eq!([left.lt(more), more.gt(left)], [true; 2]);
    assert_eq!(left.partial_cmp(same), Some(Ordering::Equal));
    assert_eq!(same.partial_cmp(left), Some(Ordering::Equal));
}

#[test]
fn a_guard_and_a_part_compare_with_all_kinds_of_bytes_in_both_directions() {
    fn with_all<L>(left: &L, same: PooledBuf, more: PooledBuf)
    where
        L: PartialEq<[u8]> + PartialOrd<[u8]>,
        L: PartialEq<[u8; 3]> + PartialOrd<[u8; 3]>,
        L: PartialEq<str> + PartialOrd<str>,
        L: PartialEq<String> + PartialOrd<String>,
        L: PartialEq<Vec<u8>> + PartialOrd<Vec<u8>>,
        L: PartialEq<Bytes> + PartialOrd<Bytes>,
        L: PartialEq<BytesMut> + PartialOrd<BytesMut>,
        L: PartialEq<PooledBuf> + PartialOrd<PooledBuf>,
        L: PartialEq<PooledBytes> + PartialOrd<PooledBytes>,
        L: for<'a> PartialEq<&'a [u8]> + for<'a> PartialOrd<&'a [u8]>,
        L: for<'a> PartialEq<&'a [u8; 3]> + for<'a> PartialOrd<&'a [u8; 3]>,
        L: for<'a> PartialEq<&'a str> + for<'a> PartialOrd<&'a str>,
        [u8]: PartialEq<L> + PartialOrd<L>,
        [u8; 3]: PartialEq<L> + PartialOrd<L>,
        str: PartialEq<L> + PartialOrd<L>,
        String: PartialEq<L> + PartialOrd<L>,
        Vec<u8>: PartialEq<L> + PartialOrd<L>,
        Bytes: PartialEq<L> + PartialOrd<L>,
        BytesMut: PartialEq<L> + PartialOrd<L>,
        PooledBuf: PartialEq<L> + PartialOrd<L>,
        PooledBytes: PartialEq<L> + PartialOrd<L>,
        for<'a> &'a [u8]: PartialEq<L> + PartialOrd<L>,
        for<'a> &'a [u8; 3]: PartialEq<L> + PartialOrd<L>,
        for<'a> &'a str: PartialEq<L> + PartialOrd<L>,
    {
        assert_compares::<L, [u8]>(left, b"abc", b"abd");
        assert_compares::<L, [u8; 3]>(left, b"abc", b"abd");
        assert_compares::<L, str>(left, "abc", "abd");
        assert_compares(left, &String::from("abc"), &String::from("b"));
        assert_compares(left, &b"abc".to_vec(), &b"abcd".to_vec());
        assert_compares(left, &Bytes::from("abc"), &Bytes::from("abd"));
        assert_compares(left, &BytesMut::from("abc"), &BytesMut::from("abd"));
        assert_compares(left, &same, &more);
        assert_compares(left, &same.freeze(), &more.freeze());
        assert_compares::<L, &[u8]>(left, &&b"abc"[..], &&b"abd"[..]);
        assert_compares::<L, &[u8; 3]>(left, &b"abc", &b"abd");
        assert_compares(left, &"abc", &"abd");
    }
    let pool = Pool::default();
    let guard = |contents: &[u8]| guard_of(&pool, contents);
    with_all(&guard(b"abc"), guard(b"abc"), guard(b"abd"));
    with_all(&guard(b"abc").freeze(), guard(b"abc"), guard(b"abd"));
    assert_eq!(guard(b"abc"), &guard(b"abc"));
    assert_eq!(guard(b"abc"), &String::from("abc"));
}

#[test]
fn a_guard_is_ordered_by_its_contents_and_not_by_its_room() {
    let pool = pool_of(&[64, 512]);
    let mut roomy = pool.get(512);
    roomy.extend_from_slice(b"aa");
    roomy.advance(1);
    let tight = guard_of(&pool, b"a");
    assert_eq!(roomy, tight);
    assert_eq!(roomy.cmp(&tight), Ordering::Equal);
    assert!(guard_of(&pool, b"b") > roomy);
    assert_eq!(tight.cmp(&guard_of(&pool, b"")), Ordering::Greater);
}

#[test]
fn a_guard_hashes_as_its_contents_so_a_map_is_asked_by_slice() {
    let pool = Pool::default();
    let state = RandomState::new();
    assert_eq!(
        state.hash_one(guard_of(&pool, b"key")),
        state.hash_one(&b"key"[..])
    );
    let hashed = HashMap::from([(guard_of(&pool, b"key"), 1)]);
    assert_eq!(hashed.get(&b"key"[..]), Some(&1));
    let ordered = BTreeMap::from([(guard_of(&pool, b"key"), 1)]);
    assert_eq!(ordered.get(&b"key"[..]), Some(&1));
}

#[test]
fn a_guard_is_borrowed_as_its_contents() {
    let mut buf = guard_of(&Pool::default(), b"abc");
    let contents: &mut [u8] = buf.borrow_mut();
    contents[0] = b'A';
    let contents: &[u8] = buf.borrow();
    assert_eq!(contents, b"Abc");
}

#[test]
fn a_guard_is_iterated_by_reference_and_by_value() {
    let pool = Pool::default();
    let buf = guard_of(&pool, b"abc");
    let mut seen = Vec::new();
    for &byte in &buf {
        seen.push(byte);
    }
    let mut bytes = buf.into_iter();
    assert_eq!((bytes.next(), bytes.len()), (Some(b'a'), 2));
    assert_eq!(bytes.into_inner(), "bc");
    assert_eq!(seen, b"abc");
    assert_eq!(total(&pool).outstanding, 0);
}

#[test]
fn a_guard_prints_as_hexadecimal_digits() {
    let buf = guard_of(&Pool::default(), &[0, 0x0a, 0xff]);
    assert_eq!(format!("{buf:x} {buf:X}"), "000aff 000AFF");
}

#[test]
fn a_clone_is_another_buffer_of_the_same_pool() {
    let pool = pool_of(&[64, 512]);
    let mut buf = pool.get(512);
    buf.extend_from_slice(b"head body");
    buf.advance(5);
    let mut clone = buf.clone();
    assert_eq!((&clone[..], clone.capacity()), (&b"body"[..], 64));
    clone[0] = b'B';
    assert_eq!((&buf[..], &clone[..]), (&b"body"[..], &b"Body"[..]));
    assert_eq!((total(&pool).gets, total(&pool).outstanding), (2, 2));
    drop((buf, clone));
    assert_eq!((total(&pool).returns, total(&pool).outstanding), (2, 0));
}

#[test]
fn a_clone_does_not_share_with_the_parts_of_the_first() {
    let pool = pool_of(&[64]);
    let mut buf = guard_of(&pool, b"head body");
    let head = buf.split_to(5);
    let clone = buf.clone();
    drop(buf);
    assert_eq!((&head[..], &clone[..]), (&b"head "[..], &b"body"[..]));
    drop(head);
    assert_eq!(total(&pool).outstanding, 1);
    drop(clone);
    assert_eq!(total(&pool).outstanding, 0);
}

#[test]
fn a_guard_becomes_a_buffer_or_a_vector_that_no_pool_has() {
    let pool = pool_of(&[64]);
    let own: BytesMut = guard_of(&pool, b"own").into();
    let mut advanced = guard_of(&pool, b"head body");
    advanced.advance(5);
    let vector: Vec<u8> = advanced.into();
    assert_eq!((&own[..], &vector[..]), (&b"own"[..], &b"body"[..]));
    let mut shared = guard_of(&pool, b"head body");
    let head = shared.split_to(5);
    assert_eq!(Vec::from(shared), b"body");
    assert_eq!(head, "head ");
    assert_eq!((total(&pool).detached, total(&pool).outstanding), (3, 1));
}

#[test]
fn a_guard_is_extended_by_pieces() {
    let pool = pool_of(&[64, 512]);
    let mut buf = pool.get(1);
    buf.extend([Bytes::from("one "), Bytes::from(vec![b'2'; 100])]);
    assert_eq!((buf.len(), buf.capacity()), (104, 512));
    assert_eq!(&buf[..5], b"one 2");
}

#[test]
fn a_guard_is_taken_by_putting_an_empty_one_in_its_place() {
    let pool = pool_of(&[64]);
    let mut buf = guard_of(&pool, b"taken");
    let taken = mem::replace(&mut buf, pool.get(0));
    assert_eq!((&taken[..], &buf[..]), (&b"taken"[..], &b""[..]));
}

#[test]
fn a_copy_of_a_slice_is_a_get_with_contents() {
    let pool = pool_of(&[64, 512]);
    let buf = pool.copy_from_slice(&[7; 100]);
    assert_eq!((&buf[..], buf.capacity()), (&[7; 100][..], 512));
    assert!(pool.copy_from_slice(b"").is_empty());
    assert_eq!(total(&pool).gets, 2);
}

#[test]
fn a_new_pool_is_the_default_one() {
    assert_eq!(Pool::new().classes(), Pool::default().classes());
    assert_eq!(Pool::new().stats(), Pool::default().stats());
}
