//! Whether the numbers of a pool add up, when nothing is in use.

use crate::Result;
use tierpool::{Counts, Pool};

/// Fails if a buffer is outstanding, or if a sum of [`tierpool::Stats`] is wrong.
pub fn settled(pool: &Pool) -> Result<()> {
    let stats = pool.stats();
    let Counts {
        gets,
        local_hits,
        depot_hits,
        misses,
        oversize,
        adopted,
        returns,
        discards,
        detached,
        prefilled,
        trimmed,
        retained_buffers,
        outstanding,
        ..
    } = stats.total;
    let sums = [
        gets == local_hits + depot_hits + misses + oversize,
        gets + adopted == returns + discards.total() + detached,
        returns + prefilled == local_hits + depot_hits + trimmed + retained_buffers,
    ];
    match outstanding {
        0 if sums == [true; 3] => Ok(()),
        0 => Err(format!("the pool's numbers do not add up: {sums:?}\n{stats}").into()),
        left => Err(format!("{left} buffers are outstanding").into()),
    }
}
