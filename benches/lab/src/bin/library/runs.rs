//! Plays a library that packs runs of equal bytes: a count from 1 to 255, then the byte.

use bytes::BufMut;
use tierpool::{Pool, PooledBytes};

pub struct Runs {
    pool: Pool,
}

impl Runs {
    /// Uses the pool that the program's libraries share.
    pub fn new() -> Self {
        Runs::with_pool(tierpool::global().clone())
    }

    /// For a program that keeps this data apart, such as secrets.
    pub fn with_pool(pool: Pool) -> Self {
        Runs { pool }
    }

    pub fn pack(&self, bytes: &[u8]) -> PooledBytes {
        let mut packed = self.pool.get(2 * bytes.len());
        let runs = bytes.chunk_by(|a, b| a == b);
        for run in runs.flat_map(|run| run.chunks(255)) {
            packed.put_slice(&[run.len() as u8, run[0]]);
        }
        packed.freeze()
    }

    pub fn unpack(&self, packed: &[u8]) -> PooledBytes {
        let runs = packed.chunks_exact(2);
        let len = runs.clone().map(|run| usize::from(run[0])).sum();
        let mut bytes = self.pool.get(len);
        for run in runs {
            bytes.put_bytes(run[1], run[0].into());
        }
        bytes.freeze()
    }
}
