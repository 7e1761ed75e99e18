//! The balance of a pool's counts.

use tierpool::Pool;

/// Asserts everything that holds while no thread is inside the pool.
pub fn assert_accounts_balance(pool: &Pool) {
    let stats = pool.stats();
    let total = stats.total;
    assert_eq!(
        total.gets + total.adopted,
        total.returns + total.discards.total() + total.detached + total.outstanding,
        "{total:?}"
    );
    let lines = || {
        let classes = stats.classes.iter().map(|class| &class.counts);
        classes.chain([&stats.unclassed])
    };
    let outstanding_bytes: u64 = lines().map(|counts| counts.outstanding_bytes).sum();
    assert_eq!(total.outstanding_bytes, outstanding_bytes, "{stats}");
    let retained_bytes: u64 = lines().map(|counts| counts.retained_bytes).sum();
    assert_eq!(total.retained_bytes, retained_bytes, "{stats}");
    let peaks = stats.peaks;
    assert!(total.footprint_bytes() <= peaks.footprint_bytes, "{stats}");
    for (peak, now) in [
        (peaks.outstanding_bytes, total.outstanding_bytes),
        (peaks.retained_bytes, total.retained_bytes),
    ] {
        assert!((now..=peaks.footprint_bytes).contains(&peak), "{peaks:?}");
    }
    for class in &stats.classes {
        let counts = &class.counts;
        // A guard that outgrew its buffer behind `DerefMut` may be counted in another class when it
        // ends. But no guard has less capacity than its class.
        let least = counts.outstanding * class.capacity as u64;
        assert!(counts.outstanding_bytes >= least, "{counts:?}");
        assert!(
            counts.outstanding > 0 || counts.outstanding_bytes == 0,
            "{counts:?}"
        );
    }
    for counts in lines().chain([&total]) {
        assert_eq!(
            counts.gets,
            counts.hits() + counts.misses + counts.oversize,
            "{counts:?}"
        );
        assert_eq!(
            counts.returns + counts.prefilled,
            counts.hits() + counts.trimmed + counts.retained_buffers,
            "{counts:?}"
        );
    }
}
