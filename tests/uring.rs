//! Real io_uring runtimes read into guards, and write parts.
//!
//! Where the kernel refuses io_uring, the tests say so, and leave it out. The traits' contracts are in
//! tests/owned_buffers.rs. (compio's runtime needs a newer Rust than this crate, so it is not here.)

#![cfg(all(any(feature = "monoio", feature = "tokio-uring"), target_os = "linux"))]

mod common {
    pub mod accounts;
}

use common::accounts::assert_accounts_balance;
use std::os::fd::{FromRawFd, OwnedFd};
use tierpool::{Pool, PooledBytes};

const SENT: usize = 9000;

fn bytes() -> Vec<u8> {
    (0..SENT).map(|at| (at % 251) as u8).collect()
}

#[track_caller]
fn assert_all_home(pool: &Pool) {
    let total = pool.stats().total;
    assert_eq!((total.outstanding, total.discards.total()), (0, 0));
    assert_accounts_balance(pool);
}

/// Whether the kernel gives this process an io_uring. If not, says so.
fn io_uring_is_allowed() -> bool {
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

#[cfg(feature = "monoio")]
mod with_monoio {
    use super::*;
    use monoio::buf::IoBufMut;
    use monoio::io::{AsyncReadRent, AsyncWriteRentExt};
    use monoio::net::{TcpListener, TcpStream};
    use monoio::{IoUringDriver, LegacyDriver, RuntimeBuilder};

    /// Sends parts through a socket, and reads them into one guard.
    async fn send_and_read(pool: &Pool) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let whole = pool.copy_from_slice(&bytes()).freeze();
        let sent = monoio::spawn(async move {
            let mut stream = TcpStream::connect(address).await.unwrap();
            for range in [0..4000, 4000..SENT] {
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
            let read = read.unwrap();
            assert_eq!(buf.len(), len + read);
            if read == 0 {
                break;
            }
        }
        sent.await;
        assert_eq!(buf, bytes());
    }

    #[test]
    fn parts_and_guards_travel_by_epoll() {
        let pool = Pool::new();
        let mut runtime = RuntimeBuilder::<LegacyDriver>::new().build().unwrap();
        runtime.block_on(send_and_read(&pool));
        drop(runtime);
        assert_all_home(&pool);
    }

    #[test]
    fn parts_and_guards_travel_by_io_uring() {
        if !io_uring_is_allowed() {
            return;
        }
        let pool = Pool::new();
        let mut runtime = RuntimeBuilder::<IoUringDriver>::new().build().unwrap();
        runtime.block_on(send_and_read(&pool));
        drop(runtime);
        assert_all_home(&pool);
    }
}

#[cfg(feature = "tokio-uring")]
mod with_tokio_uring {
    use super::*;
    use tokio_uring::buf::BoundedBuf;
    use tokio_uring::net::{TcpListener, TcpStream};

    #[test]
    fn parts_and_guards_travel_by_io_uring() {
        if !io_uring_is_allowed() {
            return;
        }
        let pool = Pool::new();
        tokio_uring::start(async {
            let listener = TcpListener::bind("127.0.0.1:0".parse().unwrap()).unwrap();
            let address = listener.local_addr().unwrap();
            let whole = pool.copy_from_slice(&bytes()).freeze();
            let sent = tokio_uring::spawn(async move {
                let stream = TcpStream::connect(address).await.unwrap();
                for range in [0..4000, 4000..SENT] {
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
                let read = read.unwrap();
                assert_eq!(buf.len(), len + read);
                if read == 0 {
                    break;
                }
            }
            sent.await.unwrap();
            assert_eq!(buf, bytes());
        });
        assert_all_home(&pool);
    }
}
