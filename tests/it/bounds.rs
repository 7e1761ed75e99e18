//! How much a pool retains, whatever it is given.

use crate::{assert_accounts_balance, class, pool_of, total};
use bytes::BytesMut;
use std::sync::{Arc, Barrier};
use std::thread;
use tierpool::PooledBuf;

// Failed once: 32 adopted buffers of almost 1 GiB stayed in the 512-byte class.
#[test]
fn buffers_far_above_their_class_are_kept_within_a_bound_in_bytes() {
    const LARGE: usize = 1 << 20;
    let pool = pool_of(&[512, LARGE]);
    let adopted: Vec<PooledBuf> = (0..40)
        .map(|_| pool.adopt(BytesMut::with_capacity(LARGE - 1)))
        .collect();
    drop(adopted);
    assert_eq!(class(&pool, 512).retained_bytes, 0);
    assert_eq!(class(&pool, 512).discards.full, 40);

    let grown: Vec<PooledBuf> = (0..40)
        .map(|_| {
            let mut buf = pool.get(1);
            (*buf).reserve(100_000); // on the heap
            buf
        })
        .collect();
    drop(grown);
    let after = class(&pool, 512);
    assert!(after.retained_buffers > 0, "some fit");
    assert!(after.retained_bytes <= 512 * 1024, "{after:?}");
    assert_accounts_balance(&pool);
}

// Failed once: each ending thread took a place for a whole magazine in the
// depot with the one buffer that it had cached, and 128 of them filled it.
#[test]
fn short_threads_that_cache_a_buffer_each_do_not_fill_the_depot() {
    const THREADS: usize = if cfg!(miri) { 4 } else { 128 };
    const HELD: usize = if cfg!(miri) { 200 } else { 2000 };
    let pool = pool_of(&[512]);
    let held: Vec<PooledBuf> = (0..HELD).map(|_| pool.get(1)).collect();
    let all_have_one = Arc::new(Barrier::new(THREADS));
    let threads: Vec<_> = (0..THREADS)
        .map(|_| {
            let (pool, all_have_one) = (pool.clone(), Arc::clone(&all_have_one));
            thread::spawn(move || {
                let buf = pool.get(1);
                all_have_one.wait();
                drop(buf);
            })
        })
        .collect();
    for thread in threads {
        thread.join().unwrap(); // a scope would not wait for their destructors
    }
    drop(held);
    let after = total(&pool);
    assert_eq!(after.discards.total(), 0, "{after:?}");
    assert_eq!(after.retained_buffers as usize, HELD + THREADS);
}
