//! What must balance in a pool's counts.

use tierpool::Pool;

/// All that must hold while no thread is inside the pool.
pub fn assert_accounts_balance(pool: &Pool) {
    let stats = pool.stats();
    let total = stats.total;
    assert_eq!(
        total.gets + total.adopted,
        total.returns + total.discards.total() + total.detached + total.outstanding,
        "{total:?}"
    );
    let all = stats.classes.iter().map(|class| &class.counts);
    for counts in all.chain([&stats.unclassed, &total]) {
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
