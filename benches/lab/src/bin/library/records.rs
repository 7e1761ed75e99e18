//! Plays a library that writes records: fields, each with its length before it.

use bytes::BufMut;
use tierpool::{Pool, PooledBytes};

pub struct Records {
    pool: Pool,
}

impl Records {
    /// Uses the pool that the program's libraries share.
    pub fn new() -> Self {
        Records::with_pool(tierpool::global().clone())
    }

    /// For a program that keeps these records apart, such as secrets.
    pub fn with_pool(pool: Pool) -> Self {
        Records { pool }
    }

    pub fn write(&self, fields: &[&[u8]]) -> PooledBytes {
        let len = fields.iter().map(|field| 4 + field.len()).sum();
        let mut record = self.pool.get(len);
        for field in fields {
            record.put_u32(field.len() as u32);
            record.put_slice(field);
        }
        record.freeze()
    }
}

/// The fields of a record. `None` if it ends too early.
pub fn read(mut record: &[u8]) -> Option<Vec<&[u8]>> {
    let mut fields = Vec::new();
    while !record.is_empty() {
        let (len, rest) = record.split_first_chunk()?;
        let (field, rest) = rest.split_at_checked(u32::from_be_bytes(*len) as usize)?;
        fields.push(field);
        record = rest;
    }
    Some(fields)
}
