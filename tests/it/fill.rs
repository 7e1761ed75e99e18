//! Rooms of initialised bytes: their values, the bytes that become contents, and their cost.

use crate::{assert_accounts_balance, memory, options, pool_of, total};
use bytes::{BufMut, BytesMut};
use std::io::{self, ErrorKind};
use std::net::UdpSocket;
use std::panic::{self, AssertUnwindSafe};
use tierpool::{Pool, PooledBuf};

const SIZE: usize = 4096;

fn pool() -> Pool {
    pool_of(&[512, SIZE, 4 * SIZE])
}

fn zeros(room: &[u8]) -> bool {
    room.iter().all(|&byte| byte == 0)
}

/// Whether the room that a buffer lends next is zero.
fn lends_zeros(buf: &mut PooledBuf, room: usize) -> bool {
    let mut all = false;
    buf.fill_with(room, |room| {
        all = zeros(room);
        Ok(0)
    })
    .unwrap();
    all
}

#[test]
fn the_bytes_that_the_closure_wrote_are_appended() {
    let pool = pool();
    let mut buf = pool.get(SIZE);
    buf.put_slice(b"head ");
    let written = buf.fill_with(100, |room| {
        assert_eq!(room.len(), 100);
        room[..4].copy_from_slice(b"body");
        Ok(4)
    });
    assert_eq!((written.unwrap(), &buf[..]), (4, &b"head body"[..]));
    assert_eq!(buf.fill_with(0, |room| Ok(room.len())).unwrap(), 0);
    // It grows through the pool.
    buf.fill_with(2 * SIZE, |room| Ok(room.len())).unwrap();
    assert_eq!((buf.len(), memory(&buf).len()), (9 + 2 * SIZE, 4 * SIZE));
    assert_eq!(buf[..9], *b"head body");
    drop(buf);
    assert_accounts_balance(&pool);
}

#[test]
fn nothing_is_appended_after_an_error_or_a_panic() {
    let pool = pool();
    let mut buf = pool.get(SIZE);
    buf.put_slice(b"head");
    let refused = buf.fill_with(100, |room| {
        room.fill(b'x');
        Err(io::Error::from(ErrorKind::TimedOut))
    });
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::TimedOut);
    assert_eq!(buf[..], *b"head");
    let panicked = panic::catch_unwind(AssertUnwindSafe(|| {
        buf.fill_with(100, |room| {
            room.fill(b'x');
            panic!("in the closure")
        })
    }));
    assert!(panicked.is_err());
    let panicked = panic::catch_unwind(AssertUnwindSafe(|| buf.fill_with(100, |_| Ok(101))));
    let message = panicked.unwrap_err();
    assert_eq!(
        message.downcast_ref::<String>().unwrap(),
        "the bytes written (101) are above the room that was to be filled (100): return how many bytes were written to it"
    );
    assert_eq!(buf[..], *b"head");
    assert!(lends_zeros(&mut buf, 1000));
}

// Whoever wrote to the memory before, and whether the bytes were announced or not.
#[test]
fn no_room_shows_earlier_bytes() {
    type Write = fn(&mut PooledBuf);
    let ways: [Write; 10] = [
        |buf| buf.put_bytes(b's', SIZE),
        |buf| {
            buf.put_bytes(b's', SIZE);
            buf.clear();
        },
        |buf| assert_eq!(buf.fill_with(SIZE, |room| Ok(room.len())).unwrap(), SIZE),
        // It writes more bytes than it announces.
        |buf| {
            buf.fill_with(SIZE, |room| {
                room.fill(b's');
                Ok(1)
            })
            .unwrap();
        },
        |buf| {
            for byte in buf.spare_capacity_mut() {
                byte.write(b's');
            }
        },
        |buf| {
            let chunk = buf.chunk_mut();
            (0..chunk.len()).for_each(|at| chunk.write_byte(at, b's'));
        },
        |buf| {
            BytesMut::resize(buf, SIZE, b's');
            buf.clear();
        },
        |buf| {
            **buf = BytesMut::from(&[b's'; SIZE][..]);
        },
        |buf| {
            buf.put_bytes(b's', 1000);
            drop(buf.split());
            buf.put_bytes(b's', SIZE - 1000);
        },
        |buf| {
            buf.resize(SIZE, 0);
            buf.as_mut().fill(b's');
        },
    ];
    for (first, one) in ways.iter().enumerate() {
        for (second, other) in ways.iter().enumerate() {
            for zeroed in [false, true] {
                let pool = pool_of(&[SIZE]);
                let get = || match zeroed {
                    true => {
                        let mut buf = pool.get_zeroed(SIZE);
                        assert!(zeros(&buf));
                        buf.clear();
                        buf
                    }
                    false => pool.get(SIZE),
                };
                let context = || format!("{first}, {second}, {zeroed}");
                one(&mut get());
                assert!(lends_zeros(&mut get(), SIZE), "{}", context());
                assert!(lends_zeros(&mut pool.get(SIZE), 100), "{}", context());
                let mut buf = get();
                other(&mut buf);
                // The same within one guard.
                buf.clear();
                assert!(lends_zeros(&mut buf, SIZE), "{}", context());
                drop(buf);
                let mut buf = pool.get(SIZE);
                buf.put_bytes(b't', 10);
                assert!(lends_zeros(&mut buf, SIZE - 10), "{}", context());
                buf.resize(SIZE, 0);
                assert!(zeros(&buf[10..]), "{}", context());
                drop(buf);
                assert!(zeros(&pool.get_zeroed(SIZE)), "{}", context());
            }
        }
    }
}

#[test]
fn a_full_guard_that_lent_its_probe_shows_no_byte_of_it() {
    let pool = pool_of(&[SIZE, 4 * SIZE]);
    for _ in 0..2 {
        let mut buf = pool.get(SIZE);
        buf.put_bytes(b's', SIZE);
        let chunk = buf.chunk_mut();
        (0..chunk.len()).for_each(|at| chunk.write_byte(at, 0xff));
        assert!(lends_zeros(&mut buf, 100));
        drop(buf);
        assert!(lends_zeros(&mut pool.get(SIZE), SIZE));
    }
}

#[test]
fn a_pool_that_reuses_shows_earlier_bytes_and_no_uninitialised_ones() {
    let pool = options(&[SIZE]).reuse_initialised(true).build().unwrap();
    let mut buf = pool.get(SIZE);
    assert!(lends_zeros(&mut buf, SIZE), "fresh from the heap");
    buf.fill_with(SIZE, |room| {
        room.fill(b's');
        Ok(5)
    })
    .unwrap();
    drop(buf);
    let mut buf = pool.get(SIZE);
    buf.fill_with(SIZE, |room| {
        assert!(room.iter().all(|&byte| byte == b's'));
        Ok(0)
    })
    .unwrap();
    // Memory that may have been left uninitialised is zeroed.
    buf.spare_capacity_mut()[7] = std::mem::MaybeUninit::uninit();
    assert!(lends_zeros(&mut buf, SIZE));
    // `resize` and `get_zeroed` give zeros in any case.
    buf.put_bytes(b's', SIZE);
    buf.clear();
    buf.resize(SIZE, 0);
    assert!(zeros(&buf));
    buf.as_mut().fill(b's');
    drop(buf);
    assert!(zeros(&pool.get_zeroed(SIZE)));
    // A different buffer in the guard.
    let mut buf = pool.get(SIZE);
    *buf = BytesMut::with_capacity(SIZE);
    assert!(lends_zeros(&mut buf, SIZE));
}

// The heap may give the same address again, for bytes that were never written.
#[test]
fn another_buffer_at_the_old_address_is_zeroed() {
    let pool = options(&[SIZE]).reuse_initialised(true).build().unwrap();
    for _ in 0..20 {
        let mut buf = pool.get(SIZE);
        buf.fill_with(SIZE, |room| {
            room.fill(b's');
            Ok(room.len())
        })
        .unwrap();
        drop(std::mem::take(&mut *buf));
        *buf = BytesMut::with_capacity(SIZE);
        drop(buf);
        let mut again = pool.get(SIZE);
        assert!(lends_zeros(&mut again, SIZE));
    }
}

#[test]
fn a_pool_that_wipes_lends_zeros_and_wipes_its_rooms() {
    for reuse in [false, true] {
        let builder = options(&[SIZE]).zero_on_return(true);
        let pool = builder.reuse_initialised(reuse).build().unwrap();
        for _ in 0..3 {
            let mut buf = pool.get(SIZE);
            assert!(lends_zeros(&mut buf, SIZE));
            buf.fill_with(SIZE, |room| {
                room.fill(b's');
                Ok(5)
            })
            .unwrap();
        }
    }
}

#[test]
fn a_source_is_read_to_its_end() {
    let pool = pool();
    let text: Vec<u8> = (0..10_000).map(|at| at as u8).collect();
    let mut source = &text[..];
    let mut buf = pool.get(SIZE);
    while buf.read_from(&mut source, 1000).unwrap() > 0 {}
    assert_eq!(buf[..], text);
}

#[test]
fn a_datagram_is_appended_with_its_sender() {
    let (here, there) = (
        UdpSocket::bind("127.0.0.1:0").unwrap(),
        UdpSocket::bind("127.0.0.1:0").unwrap(),
    );
    let pool = pool();
    for round in 0..20_u8 {
        let sent = vec![round; 100 * usize::from(round % 5)];
        there.send_to(&sent, here.local_addr().unwrap()).unwrap();
        let mut buf = pool.get(SIZE);
        let (len, from) = buf.recv_from(&here, 1500).unwrap();
        assert_eq!((len, from), (sent.len(), there.local_addr().unwrap()));
        assert_eq!(buf[..], sent);
        assert!(lends_zeros(&mut buf, SIZE - len));
    }
    // Also with the other kind of address, if the system has it.
    if let (Ok(here), Ok(there)) = (UdpSocket::bind("[::1]:0"), UdpSocket::bind("[::1]:0")) {
        there.send_to(b"ping", here.local_addr().unwrap()).unwrap();
        let mut buf = pool.get(SIZE);
        let (len, from) = buf.recv_from(&here, 3).unwrap();
        assert_eq!((len, from), (3, there.local_addr().unwrap()));
        assert_eq!(buf[..], *b"pin");
    }
    here.set_nonblocking(true).unwrap();
    let mut buf = pool.get(SIZE);
    let refused = buf.recv_from(&here, 1500).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::WouldBlock);
    assert!(buf.is_empty());
}

#[cfg(unix)]
#[test]
fn read_at_reads_from_an_offset_of_a_file() {
    let path = std::env::temp_dir().join(format!("tierpool-read-at-{}", std::process::id()));
    std::fs::write(&path, b"0123456789").unwrap();
    let file = std::fs::File::open(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    let pool = pool();
    let mut buf = pool.get(SIZE);
    assert_eq!(buf.read_at(&file, 4, 3).unwrap(), 4);
    assert_eq!(buf.read_at(&file, 100, 8).unwrap(), 2);
    assert_eq!(buf.read_at(&file, 100, 10).unwrap(), 0);
    assert_eq!(buf[..], *b"345689");
}

#[test]
fn get_zeroed_has_contents_of_the_requested_length() {
    let pool = pool();
    for size in [0, 1, 512, 513, 4 * SIZE, 4 * SIZE + 1] {
        for _ in 0..3 {
            let mut buf = pool.get_zeroed(size);
            assert_eq!((buf.len(), zeros(&buf)), (size, true));
            buf.as_mut().fill(b's');
        }
    }
    let after = total(&pool);
    assert_eq!((after.outstanding, after.gets), (0, 18));
    assert_accounts_balance(&pool);
}
