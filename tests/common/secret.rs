//! A secret, and all ways to write it to a buffer of the pool and to release the buffer.
//!
//! Owns the list. `tests/it` checks it through the pool's API, and `tests/wiped.rs` in the
//! allocator. Knows nothing of these checks.

use bytes::{Buf, BufMut, BytesMut};
use std::io::Write as _;
use tierpool::{Pool, PooledBuf};

/// The capacity of the empty buffer that each way receives.
pub const CAPACITY: usize = 512;

/// Unlike anything else in memory, even in part.
pub const SECRET: &[u8] = b"q7Zk!vN3x#Rw9@bTy5&Lm2^Hc8%Jf4*Pd6+Gs";

/// Writes a secret to an empty buffer of the pool, and releases the buffer.
pub type Way = fn(&Pool, PooledBuf);

/// All ways to write a secret and to release the buffer.
pub const WAYS: [(&str, Way); 36] = [
    ("extend_from_slice", |_, mut buf| {
        buf.extend_from_slice(SECRET)
    }),
    ("put_slice", |_, mut buf| buf.put_slice(SECRET)),
    ("put", |_, mut buf| buf.put(SECRET)),
    ("extend", |_, mut buf| buf.extend(SECRET)),
    ("io::Write", |_, mut buf| buf.write_all(SECRET).unwrap()),
    ("fmt::Write", |_, mut buf| {
        std::fmt::Write::write_str(&mut buf, std::str::from_utf8(SECRET).unwrap()).unwrap();
    }),
    ("to the last byte", |_, mut buf| {
        buf.put_bytes(1, CAPACITY - SECRET.len());
        buf.put_slice(SECRET);
    }),
    ("as_mut", |_, mut buf| {
        buf.put_bytes(0, SECRET.len());
        buf.as_mut().copy_from_slice(SECRET);
    }),
    ("chunk_mut and advance_mut", |_, mut buf| {
        buf.chunk_mut()[..SECRET.len()].copy_from_slice(SECRET);
        // SAFETY: the line before wrote these bytes.
        unsafe { buf.advance_mut(SECRET.len()) };
    }),
    // `tokio`'s `read_buf` writes to the chunk first and announces the bytes later. If the read
    // fails half-way, it never announces them.
    ("chunk_mut, and never announced", |_, mut buf| {
        buf.chunk_mut()[..SECRET.len()].copy_from_slice(SECRET);
    }),
    ("an index", |_, mut buf| {
        buf.put_bytes(0, SECRET.len() + 9);
        buf[9..].copy_from_slice(SECRET);
    }),
    ("an index, and cut off", |_, mut buf| {
        buf.put_bytes(0, SECRET.len() + 9);
        buf[9..].copy_from_slice(SECRET);
        buf.truncate(9);
    }),
    ("spare_capacity_mut and set_len", |_, mut buf| {
        for (to, &byte) in buf.spare_capacity_mut().iter_mut().zip(SECRET) {
            to.write(byte);
        }
        // SAFETY: the lines before wrote these bytes.
        unsafe { buf.set_len(SECRET.len()) };
    }),
    ("set_len to less", |_, mut buf| {
        buf.put_slice(SECRET);
        // SAFETY: a length of 0 needs no initialised bytes.
        unsafe { buf.set_len(0) };
    }),
    ("spare_capacity_mut, and never announced", |_, mut buf| {
        for (to, &byte) in buf.spare_capacity_mut()[90..].iter_mut().zip(SECRET) {
            to.write(byte);
        }
    }),
    ("through DerefMut", |_, mut buf| {
        BytesMut::extend_from_slice(&mut buf, SECRET)
    }),
    ("through DerefMut, and cleared there", |_, mut buf| {
        BytesMut::extend_from_slice(&mut buf, SECRET);
        BytesMut::clear(&mut buf);
    }),
    ("clear", |_, mut buf| {
        buf.put_slice(SECRET);
        buf.clear();
    }),
    ("truncate, then less", |_, mut buf| {
        buf.put_slice(SECRET);
        buf.truncate(3);
        buf.put_slice(b"xx");
    }),
    ("resize to less", |_, mut buf| {
        buf.put_slice(SECRET);
        buf.resize(1, 0);
    }),
    ("advance", |_, mut buf| {
        buf.put_slice(SECRET);
        buf.advance(SECRET.len() - 2);
    }),
    ("advance, then clear", |_, mut buf| {
        buf.put_bytes(1, 100);
        buf.put_slice(SECRET);
        buf.advance(90);
        buf.clear();
    }),
    (
        "advance, then moved to the front by growth",
        |_, mut buf| {
            buf.put_bytes(1, CAPACITY - SECRET.len());
            buf.put_slice(SECRET);
            buf.advance(CAPACITY - SECRET.len());
            // Copied to the front, for room. The old copy is still in the buffer.
            buf.put_bytes(2, 10);
            assert_eq!(buf.capacity(), CAPACITY);
        },
    ),
    (
        "advance, then moved to the front for a reader",
        |_, mut buf| {
            buf.put_bytes(1, CAPACITY - SECRET.len());
            buf.put_slice(SECRET);
            buf.advance(CAPACITY - SECRET.len());
            assert_eq!(buf.chunk_mut().len(), CAPACITY - SECRET.len());
        },
    ),
    ("copy_to_bytes, and dropped", |_, mut buf| {
        buf.put_slice(SECRET);
        drop(buf.copy_to_bytes(SECRET.len()));
    }),
    ("split, and joined again", |_, mut buf| {
        buf.put_slice(SECRET);
        let tail = BytesMut::split_off(&mut buf, 5);
        buf.unsplit(tail);
    }),
    ("frozen, and dropped on another thread", |pool, mut buf| {
        buf.put_slice(SECRET);
        let (frozen, cache) = (buf.freeze(), pool.clone());
        let slice = frozen.slice(5..);
        drop(frozen);
        std::thread::spawn(move || {
            drop(slice);
            drop(cache);
        })
        .join()
        .unwrap();
    }),
    ("split_to, and the part dropped last", |_, mut buf| {
        buf.put_slice(SECRET);
        let part = buf.split_to(9);
        drop(buf);
        drop(part);
    }),
    ("split_off", |_, mut buf| {
        buf.put_bytes(1, 60);
        buf.put_slice(SECRET);
        drop(buf.split_off(50));
    }),
    ("moved on while a part is in use", |_, mut buf| {
        buf.put_slice(SECRET);
        let part = buf.split_to(5);
        buf.put_bytes(0, CAPACITY);
        drop(buf);
        drop(part);
    }),
    ("frozen, and a guard again", |_, mut buf| {
        buf.put_slice(SECRET);
        let frozen = buf.freeze().slice(7..);
        frozen.try_into_mut().unwrap().put_u8(1);
    }),
    ("frozen compactly", |_, mut buf| {
        buf.put_slice(SECRET);
        drop(buf.freeze_compact());
    }),
    ("fill_with", |_, mut buf| {
        let fill = |room: &mut [u8]| {
            room[..SECRET.len()].copy_from_slice(SECRET);
            Ok(SECRET.len())
        };
        buf.fill_with(300, fill).unwrap();
    }),
    ("fill_with, and failed", |_, mut buf| {
        let fill = |room: &mut [u8]| {
            room[90..][..SECRET.len()].copy_from_slice(SECRET);
            Err(std::io::ErrorKind::WouldBlock.into())
        };
        buf.fill_with(300, fill).unwrap_err();
    }),
    ("grown out of", |_, mut buf| {
        buf.put_slice(SECRET);
        buf.reserve(CAPACITY);
        assert!(buf.capacity() > CAPACITY);
    }),
    ("unwinding", |_, mut buf| {
        let caught = std::panic::catch_unwind(move || {
            buf.put_slice(SECRET);
            std::panic::resume_unwind(Box::new("the user's panic"));
        });
        assert!(caught.is_err());
    }),
];
