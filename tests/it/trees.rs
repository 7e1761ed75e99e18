//! Parts of parts, on threads that run at once, compared with shared bytes in plain vectors.
//!
//! The model checks the counts of each operation (`tests/common/model`), where threads take turns.

use crate::{assert_accounts_balance, options, rounds, total};
use bytes::{Buf, BufMut, Bytes, BytesMut};
use proptest::prelude::*;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use tierpool::{Pool, PooledBuf, PooledBytes};

const THREADS: usize = 3;

enum Real {
    Guard(PooledBuf),
    Part(PooledBytes),
    Bytes(Bytes),
}

/// A holder of a buffer, and the bytes that it must show.
struct Node {
    real: Real,
    bytes: Vec<u8>,
}

impl Node {
    fn verify(&self) {
        let real: &[u8] = match &self.real {
            Real::Guard(buf) => buf,
            Real::Part(part) => part,
            Real::Bytes(bytes) => bytes,
        };
        assert!(real == self.bytes, "{real:?} is not {:?}", self.bytes);
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if !thread::panicking() {
            self.verify();
        }
    }
}

/// One step of one thread: the node, the operation, the number of bytes.
type Step = (usize, u8, usize);

struct Worker {
    pool: Pool,
    nodes: Vec<Node>,
    others: Vec<Sender<Node>>,
    mail: Receiver<Node>,
    stamp: u8,
}

impl Worker {
    fn step(&mut self, (place, what, count): Step) {
        self.nodes.extend(self.mail.try_iter().take(2));
        if self.nodes.is_empty() || what < 3 {
            let real = Real::Guard(self.pool.get(count));
            let bytes = Vec::new();
            self.nodes.push(Node { real, bytes });
        }
        let place = place % self.nodes.len();
        let stamp = self.stamp;
        self.stamp = stamp.wrapping_add(1);
        match what {
            3..=5 => {
                let node = self.nodes.swap_remove(place);
                let to = count % self.others.len();
                // That thread may have ended.
                drop(self.others[to].send(node));
                return;
            }
            6..=8 => return drop(self.nodes.swap_remove(place)),
            _ => {}
        }
        let node = &mut self.nodes[place];
        let len = node.bytes.len();
        let at = count % (len + 1);
        let new = match &mut node.real {
            Real::Guard(buf) => match what % 9 {
                0 | 1 => Some((
                    Real::Part(buf.split_to(at)),
                    node.bytes.drain(..at).collect(),
                )),
                2 => Some((Real::Part(buf.split_off(at)), node.bytes.split_off(at))),
                3 => {
                    buf.advance(at);
                    node.bytes.drain(..at);
                    None
                }
                4 => {
                    BytesMut::put_bytes(buf, stamp, at % 50);
                    node.bytes.resize(len + at % 50, stamp);
                    None
                }
                5 => {
                    let read = buf.fill_with(count, |room| {
                        assert!(room.iter().all(|&byte| byte == 0), "a room is zeroed");
                        room.fill(stamp);
                        Ok(count / 2)
                    });
                    node.bytes.resize(len + read.unwrap(), stamp);
                    None
                }
                _ => {
                    buf.put_bytes(stamp, count);
                    node.bytes.resize(len + count, stamp);
                    None
                }
            },
            Real::Part(part) => match what % 6 {
                0 => Some((Real::Part(part.clone()), node.bytes.clone())),
                1 => Some((Real::Part(part.slice(at..)), node.bytes[at..].to_vec())),
                2 => Some((
                    Real::Part(part.split_to(at)),
                    node.bytes.drain(..at).collect(),
                )),
                3 => Some((Real::Part(part.split_off(at)), node.bytes.split_off(at))),
                4 => Some((Real::Bytes(part.clone().into()), node.bytes.clone())),
                _ => {
                    part.truncate(at);
                    node.bytes.truncate(at);
                    None
                }
            },
            Real::Bytes(bytes) => Some((Real::Bytes(bytes.slice(at..)), node.bytes[at..].to_vec())),
        };
        if let Some((real, bytes)) = new {
            self.nodes.push(Node { real, bytes });
        }
        self.turn(place, what);
        self.nodes.iter().for_each(Node::verify);
    }

    /// Freezes a guard now and then, and turns a part without other holders into a guard.
    fn turn(&mut self, place: usize, what: u8) {
        if what % 4 > 0 {
            return;
        }
        let node = &mut self.nodes[place];
        let none = Real::Bytes(Bytes::new());
        node.real = match std::mem::replace(&mut node.real, none) {
            Real::Guard(buf) if what % 8 > 0 => Real::Part(buf.freeze_compact()),
            Real::Guard(buf) => Real::Part(buf.freeze()),
            Real::Part(part) => match part.try_into_mut() {
                Ok(buf) => Real::Guard(buf),
                Err(part) => Real::Part(part),
            },
            bytes => bytes,
        };
    }
}

fn any_steps() -> impl Strategy<Value = Vec<Step>> {
    let step = (0_usize..100, 0_u8..40, 0_usize..700);
    prop::collection::vec(step, 1..rounds(150, 15))
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: if crate::SLOW { 4 } else { 500 },
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn trees_of_parts_on_three_threads_show_their_bytes_and_come_home_once(
        zero in any::<bool>(),
        thread_cache_bytes in prop_oneof![Just(0), Just(2000), Just(usize::MAX)],
        steps in [any_steps(), any_steps(), any_steps()],
    ) {
        let pool = options(&[64, 200, 1024, 4096])
            .zero_on_return(zero)
            .thread_cache_bytes(thread_cache_bytes)
            .build()
            .unwrap();
        let (senders, receivers): (Vec<_>, Vec<_>) = (0..THREADS).map(|_| channel()).unzip();
        thread::scope(|scope| {
            let workers = steps.into_iter().zip(receivers).enumerate();
            let threads: Vec<_> = workers
                .map(|(at, (steps, mail))| {
                    let (pool, others) = (pool.clone(), senders.clone());
                    let (nodes, stamp) = (Vec::new(), at as u8 * 85);
                    scope.spawn(move || {
                        let mut worker = Worker { pool, nodes, others, mail, stamp };
                        steps.into_iter().for_each(|step| worker.step(step));
                    })
                })
                .collect();
            // Up to the destructors of their thread-locals.
            threads.into_iter().for_each(|thread| thread.join().unwrap());
        });
        drop(senders);
        let after = total(&pool);
        prop_assert_eq!((after.outstanding, after.outstanding_bytes), (0, 0));
        // No `BytesMut` was split.
        prop_assert_eq!(after.discards.shared, 0);
        assert_accounts_balance(&pool);
        crate::assert_idle_buffers_are_disjoint_and_whole(&pool);
    }
}
