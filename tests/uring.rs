//! The owned-buffer traits of io_uring runtimes: their contracts in memory, and real runtimes.
//!
//! Where the kernel refuses io_uring, tests of real runtimes say so, and leave it out.

#![cfg(any(feature = "compio", feature = "monoio", feature = "tokio-uring"))]

mod common {
    pub mod accounts;
}

use common::accounts::assert_accounts_balance;
use tierpool::{Pool, PooledBuf, PooledBytes};

/// Frees nothing by time and learns nothing, so that counts are exact on any machine.
fn pool() -> Pool {
    let builder = Pool::builder().trim_interval(None).learn_sizes(false);
    builder.build().unwrap()
}

#[track_caller]
fn assert_all_home(pool: &Pool) {
    let total = pool.stats().total;
    assert_eq!((total.outstanding, total.discards.total()), (0, 0));
    assert_accounts_balance(pool);
}

// ---- the contract ----

/// What a runtime does with owned buffers, in place of the kernel.
trait Kernel {
    /// Reads from `source` into the guard, from the beginning of its contents. Announces the
    /// first `announced` bytes that it has written. Moves the guard in between.
    fn read(buf: PooledBuf, source: &[u8], announced: usize) -> PooledBuf;

    /// Reads from `source` into the room behind the contents, through the runtime's slice.
    fn append(buf: PooledBuf, source: &[u8]) -> PooledBuf;

    /// Sets the length to 0, through the runtime's trait if it can do so.
    fn emptied(buf: PooledBuf) -> PooledBuf;

    /// Where the kernel reads the contents of a guard, and how many bytes it may read and write.
    fn view(buf: &mut PooledBuf) -> (*const u8, usize, usize);

    /// The bytes that the kernel reads from a part.
    fn written(part: &PooledBytes) -> &[u8];
}

/// Writes bytes as the kernel does: to a bare address.
///
/// # Safety
///
/// `room` bytes may be written to at `to`.
unsafe fn write_at(to: *mut u8, room: usize, source: &[u8]) -> usize {
    let len = room.min(source.len());
    // SAFETY: as the caller promises; `source` is no part of a guard.
    unsafe { to.copy_from_nonoverlapping(source.as_ptr(), len) };
    len
}

fn bytes(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at % 251) as u8).collect()
}

fn reads_arrive_and_stay_when_the_guard_moves<K: Kernel>() {
    let pool = pool();
    for len in [0, 1, 300, 512] {
        let buf = K::read(pool.get(512), &bytes(len), len);
        assert_eq!(buf, bytes(len));
        assert_eq!(buf.capacity(), 512);
    }
    assert_eq!(pool.stats().total.misses, 1, "the buffer is used again");
    // More than there is room for.
    let buf = K::read(pool.get(512), &bytes(9000), 512);
    assert_eq!(buf, bytes(512));
    drop(buf);
    assert_all_home(&pool);
}

fn appends_keep_the_contents<K: Kernel>() {
    let pool = pool();
    let mut buf = pool.copy_from_slice(b"head ");
    buf = K::append(buf, b"and ");
    buf = K::append(buf, b"tail");
    assert_eq!(buf, "head and tail");
    buf = K::append(buf, &bytes(9000));
    assert_eq!((buf.len(), buf.capacity()), (512, 512));
    buf = K::append(buf, b"no room");
    assert_eq!((buf.len(), buf.capacity()), (512, 512));
    assert_eq!(&buf[13..], &bytes(512)[..512 - 13]);
    drop(buf);
    assert_all_home(&pool);
}

fn parts_that_are_out_are_not_written_to<K: Kernel>() {
    let pool = pool();
    let mut buf = pool.copy_from_slice(b"frame 1frame 2rest");
    let parts = [buf.split_to(7), buf.split_to(7)];
    let (start, init, total) = K::view(&mut buf);
    assert_eq!((start, init, total), (buf.as_ptr(), 4, 512 - 14));
    let mut buf = K::read(buf, &bytes(9000), 512 - 14);
    assert_eq!(buf, bytes(512 - 14));
    assert_eq!(parts, ["frame 1", "frame 2"]);
    assert_eq!(pool.stats().total.gets, 1, "all share one buffer");

    // More parts of what was read, and the whole room once the parts are gone.
    let third = buf.split_to(100);
    drop((parts, third));
    buf.clear();
    buf.reserve(512);
    assert_eq!(K::view(&mut buf).2, 512);
    let buf = K::read(buf, &[7; 512], 512);
    assert_eq!(buf, [7; 512]);
    drop(buf);
    assert_all_home(&pool);
}

fn contents_that_were_advanced_stay_before_the_address<K: Kernel>() {
    use bytes::Buf;
    let pool = pool();
    let mut buf = pool.copy_from_slice(b"skipped kept");
    buf.advance(8);
    let (start, init, total) = K::view(&mut buf);
    assert_eq!((start, init, total), (buf.as_ptr(), 4, 512 - 8));
    let buf = K::append(buf, b" more");
    assert_eq!(buf, "kept more");
    drop(buf);
    assert_all_home(&pool);
}

fn bytes_that_are_not_announced_are_not_shown<K: Kernel>() {
    for reuse in [false, true] {
        let builder = Pool::builder().trim_interval(None).learn_sizes(false);
        let pool = builder.reuse_initialised(reuse).build().unwrap();
        let buf = K::read(pool.get_zeroed(0), &[9; 512], 10);
        assert_eq!(buf, [9; 10]);
        let mut buf = K::append(buf, b"");
        buf.resize(512, 0);
        assert_eq!((&buf[..10], &buf[10..]), (&[9; 10][..], &[0; 502][..]));
        drop(buf);
        let mut again = pool.get(512);
        again
            .fill_with(512, |room| {
                assert!(reuse || room == [0; 512]);
                Ok(0)
            })
            .unwrap();
        drop(again);
        assert_all_home(&pool);
    }
}

fn bytes_that_were_read_and_cut_off_count_as_used<K: Kernel>() {
    let pool = Pool::builder().trim_interval(None).build().unwrap();
    assert_eq!(pool.targets().default_size, 4096);
    for _ in 0..1000 {
        let buf = K::read(pool.get(16 << 10), &bytes(9000), 9000);
        assert_eq!(K::emptied(buf), "");
    }
    assert_eq!(pool.recalibrate().default_size, 16 << 10);
    assert_all_home(&pool);
}

fn parts_are_read_as_they_are<K: Kernel>() {
    let pool = pool();
    let whole = pool.copy_from_slice(b"some bytes").freeze();
    let part = Box::new(whole.slice(5..)); // moved
    assert_eq!(K::written(&part), b"bytes");
    assert_eq!(K::written(&part).as_ptr(), part.as_ptr());
    assert_eq!(K::written(&PooledBytes::new()), b"");
    drop((whole, part));
    assert_all_home(&pool);
}

fn a_wiped_buffer_comes_home_from_a_read<K: Kernel>() {
    let builder = Pool::builder().trim_interval(None).zero_on_return(true);
    let pool = builder.build().unwrap();
    for announced in [0, 10, 512] {
        let buf = K::read(pool.get(512), &[9; 512], announced);
        let at = buf.as_ptr();
        drop(buf);
        let mut again = pool.get(512);
        assert_eq!(again.as_ptr(), at);
        // SAFETY: all of the buffer was written to by `read`, and wiped since.
        unsafe { again.set_len(512) };
        assert_eq!(again, [0; 512]);
    }
    assert_all_home(&pool);
}

/// All claims, for one runtime's traits.
macro_rules! contract {
    ($kernel:ty) => {
        contract!(
            $kernel,
            reads_arrive_and_stay_when_the_guard_moves,
            appends_keep_the_contents,
            parts_that_are_out_are_not_written_to,
            contents_that_were_advanced_stay_before_the_address,
            bytes_that_are_not_announced_are_not_shown,
            bytes_that_were_read_and_cut_off_count_as_used,
            parts_are_read_as_they_are,
            a_wiped_buffer_comes_home_from_a_read
        );
    };
    ($kernel:ty, $($claim:ident),*) => {
        $(
            #[test]
            fn $claim() {
                super::$claim::<$kernel>();
            }
        )*
    };
}

#[cfg(feature = "compio")]
mod compio {
    use super::*;
    use compio_buf::{IntoInner, IoBuf, IoBufMut, SetLen};
    use std::slice;
    use tierpool::GetError;

    struct Compio;

    /// As the runtime does after a read into any buffer.
    fn read<B: IoBufMut>(mut buf: B, source: &[u8], announced: usize) -> B {
        let room = buf.as_uninit();
        let (to, room) = (room.as_mut_ptr().cast::<u8>(), room.len());
        let mut buf = Box::new(buf); // moved
        // SAFETY: the trait says so.
        let len = unsafe { write_at(to, room, source) };
        // SAFETY: at least these were written.
        unsafe { buf.advance_to(len.min(announced)) };
        *buf
    }

    impl Kernel for Compio {
        fn read(buf: PooledBuf, source: &[u8], announced: usize) -> PooledBuf {
            read(buf, source, announced)
        }

        fn append(buf: PooledBuf, source: &[u8]) -> PooledBuf {
            read(buf.uninit(), source, usize::MAX).into_inner()
        }

        fn emptied(mut buf: PooledBuf) -> PooledBuf {
            // SAFETY: no byte is to be initialised.
            unsafe { SetLen::set_len(&mut buf, 0) };
            buf
        }

        fn view(buf: &mut PooledBuf) -> (*const u8, usize, usize) {
            // Not those of the reference, which has the traits if it is `'static`.
            let to = PooledBuf::buf_mut_ptr(buf).cast_const().cast();
            assert_eq!(PooledBuf::buf_ptr(buf), to);
            let (len, room) = (PooledBuf::buf_len(buf), PooledBuf::buf_capacity(buf));
            (PooledBuf::buf_ptr(buf), len, room)
        }

        fn written(part: &PooledBytes) -> &[u8] {
            // SAFETY: the trait says so.
            unsafe { slice::from_raw_parts(PooledBytes::buf_ptr(part), PooledBytes::buf_len(part)) }
        }
    }

    contract!(Compio);

    #[test]
    fn room_is_made_through_the_pool() {
        let pool = pool();
        let mut buf = pool.copy_from_slice(b"head");
        IoBufMut::reserve(&mut buf, 1000).unwrap();
        assert_eq!((&buf[..], buf.capacity()), (&b"head"[..], 1024));
        IoBufMut::extend_from_slice(&mut buf, &[7; 2000]).unwrap();
        assert_eq!((buf.len(), buf.capacity()), (2004, 2048));

        let refused = IoBufMut::reserve(&mut buf, usize::MAX).unwrap_err();
        let source = std::error::Error::source(&refused).unwrap();
        assert!(source.is::<GetError>(), "{refused:?}");
        assert_eq!(buf.len(), 2004);
        drop(buf);
        assert_all_home(&pool);
    }
}

#[cfg(all(feature = "monoio", unix))]
mod monoio {
    use super::*;
    use ::monoio::buf::{IoBuf, IoBufMut};
    use std::slice;

    struct Monoio;

    /// As the runtime does after a read into any buffer.
    fn read<B: IoBufMut>(mut buf: B, source: &[u8], announced: usize) -> B {
        let (to, room) = (buf.write_ptr(), buf.bytes_total());
        let mut buf = Box::new(buf); // moved
        // SAFETY: the trait says so.
        let len = unsafe { write_at(to, room, source) };
        // SAFETY: at least these were written.
        unsafe { buf.set_init(len.min(announced)) };
        *buf
    }

    impl Kernel for Monoio {
        fn read(buf: PooledBuf, source: &[u8], announced: usize) -> PooledBuf {
            read(buf, source, announced)
        }

        fn append(buf: PooledBuf, source: &[u8]) -> PooledBuf {
            let len = buf.len();
            read(buf.slice_mut(len..), source, usize::MAX).into_inner()
        }

        fn emptied(mut buf: PooledBuf) -> PooledBuf {
            // SAFETY: no byte is to be initialised.
            unsafe { buf.set_init(0) };
            buf
        }

        fn view(buf: &mut PooledBuf) -> (*const u8, usize, usize) {
            assert_eq!(buf.read_ptr(), buf.write_ptr().cast_const());
            (buf.read_ptr(), buf.bytes_init(), buf.bytes_total())
        }

        fn written(part: &PooledBytes) -> &[u8] {
            // SAFETY: the trait says so.
            unsafe { slice::from_raw_parts(part.read_ptr(), part.bytes_init()) }
        }
    }

    contract!(Monoio);

    #[test]
    fn a_short_read_into_long_contents_is_as_long_as_the_read() {
        let pool = pool();
        let buf = pool.copy_from_slice(b"older bytes");
        assert_eq!(read(buf, b"new", 3), "new");
        assert_all_home(&pool);
    }

    #[cfg(target_os = "linux")]
    mod real {
        use super::*;
        use ::monoio::io::{AsyncReadRent, AsyncWriteRentExt};
        use ::monoio::net::{TcpListener, TcpStream};
        use ::monoio::{IoUringDriver, LegacyDriver, RuntimeBuilder};

        /// Sends parts of a pool through a socket, and reads them into a guard.
        async fn echo(pool: &Pool) {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let address = listener.local_addr().unwrap();
            let whole = pool.copy_from_slice(&bytes(9000)).freeze();
            let sent = ::monoio::spawn(async move {
                let mut stream = TcpStream::connect(address).await.unwrap();
                for range in [0..4000, 4000..9000] {
                    let part = PooledBytes::slice(&whole, range);
                    stream.write_all(part).await.0.unwrap();
                }
            });
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut buf = pool.get(16 << 10);
            loop {
                let len = buf.len();
                let (read, slice) = stream.read(buf.slice_mut(len..)).await;
                buf = slice.into_inner();
                assert_eq!(buf.len(), len + read.as_ref().unwrap());
                if read.unwrap() == 0 {
                    break;
                }
            }
            sent.await;
            assert_eq!(buf, bytes(9000));
        }

        #[test]
        fn parts_and_guards_travel_by_epoll() {
            let pool = pool();
            let mut runtime = RuntimeBuilder::<LegacyDriver>::new().build().unwrap();
            runtime.block_on(echo(&pool));
            drop(runtime);
            assert_all_home(&pool);
        }

        #[test]
        fn parts_and_guards_travel_by_io_uring() {
            if !io_uring_is_allowed() {
                return;
            }
            let pool = pool();
            let mut runtime = RuntimeBuilder::<IoUringDriver>::new().build().unwrap();
            runtime.block_on(echo(&pool));
            drop(runtime);
            assert_all_home(&pool);
        }
    }
}

#[cfg(all(feature = "tokio-uring", target_os = "linux"))]
mod tokio_uring {
    use super::*;
    use ::tokio_uring::buf::{BoundedBuf, BoundedBufMut};
    use ::tokio_uring::net::{TcpListener, TcpStream};
    use std::slice;

    struct TokioUring;

    /// As the runtime does after a read into any buffer.
    fn read<B: BoundedBufMut>(mut buf: B, source: &[u8], announced: usize) -> B {
        let (to, room) = (buf.stable_mut_ptr(), buf.bytes_total());
        let mut buf = Box::new(buf); // moved
        // SAFETY: the trait says so.
        let len = unsafe { write_at(to, room, source) };
        // SAFETY: at least these were written.
        unsafe { buf.set_init(len.min(announced)) };
        *buf
    }

    impl Kernel for TokioUring {
        fn read(buf: PooledBuf, source: &[u8], announced: usize) -> PooledBuf {
            read(buf, source, announced)
        }

        fn append(buf: PooledBuf, source: &[u8]) -> PooledBuf {
            let len = buf.len();
            if len == buf.capacity() {
                return buf; // the runtime panics if a slice has no room
            }
            read(buf.slice(len..), source, usize::MAX).into_inner()
        }

        fn emptied(mut buf: PooledBuf) -> PooledBuf {
            buf.clear();
            buf
        }

        fn view(buf: &mut PooledBuf) -> (*const u8, usize, usize) {
            assert_eq!(buf.stable_ptr(), buf.stable_mut_ptr().cast_const());
            (buf.stable_ptr(), buf.bytes_init(), buf.bytes_total())
        }

        fn written(part: &PooledBytes) -> &[u8] {
            assert_eq!(part.bytes_total(), part.len());
            // SAFETY: the trait says so.
            unsafe { slice::from_raw_parts(part.stable_ptr(), part.bytes_init()) }
        }
    }

    contract!(TokioUring);

    #[test]
    fn parts_and_guards_travel_by_io_uring() {
        if !io_uring_is_allowed() {
            return;
        }
        let pool = pool();
        ::tokio_uring::start(async {
            let listener = TcpListener::bind("127.0.0.1:0".parse().unwrap()).unwrap();
            let address = listener.local_addr().unwrap();
            let whole = pool.copy_from_slice(&bytes(9000)).freeze();
            let sent = ::tokio_uring::spawn(async move {
                let stream = TcpStream::connect(address).await.unwrap();
                for range in [0..4000, 4000..9000] {
                    let part = PooledBytes::slice(&whole, range);
                    stream.write_all(part).await.0.unwrap();
                }
            });
            let (stream, _) = listener.accept().await.unwrap();
            let mut buf = pool.get(16 << 10);
            loop {
                let len = buf.len();
                let (read, slice) = stream.read(buf.slice(len..)).await;
                buf = slice.into_inner();
                assert_eq!(buf.len(), len + read.as_ref().unwrap());
                if read.unwrap() == 0 {
                    break;
                }
            }
            sent.await.unwrap();
            assert_eq!(buf, bytes(9000));
        });
        assert_all_home(&pool);
    }
}

/// Whether the kernel gives this process an io_uring. If not, says so.
#[cfg(all(any(feature = "monoio", feature = "tokio-uring"), target_os = "linux"))]
fn io_uring_is_allowed() -> bool {
    use std::os::fd::{FromRawFd, OwnedFd};
    let mut params = [0_u64; 16]; // 120 bytes of `io_uring_params`, and some more
    // SAFETY: the kernel reads and writes 120 bytes at the address.
    let ring = unsafe { libc::syscall(libc::SYS_io_uring_setup, 1, params.as_mut_ptr()) };
    if ring < 0 {
        let error = std::io::Error::last_os_error();
        eprintln!("io_uring_setup is refused ({error}): THIS TEST CHECKS NOTHING HERE");
        return false;
    }
    // SAFETY: the descriptor was opened above, and no one else has it.
    drop(unsafe { OwnedFd::from_raw_fd(ring as i32) });
    true
}
