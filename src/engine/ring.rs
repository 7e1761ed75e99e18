//! A queue of fixed length. Many threads share it, and none waits for another there.
//!
//! Owns the places, and knows which of them hold an item. Knows nothing of the items.
//!
//! This is Dmitry Vyukov's bounded queue
//! (<https://www.1024cores.net/home/lock-free-algorithms/queues/bounded-mpmc-queue>). Only the
//! stamps differ: they begin at 0 in every place, so zeroed memory is an empty ring.
//!
//! # The protocol
//!
//! Positions count from 0. `tail` is the position of the next push, `head` that of the next
//! pop. The low bits of a position are the index of a place, and the rest is the lap. Each
//! place has a stamp, which shows what may happen there next:
//!
//! | stamp | next at this place |
//! |---|---|
//! | `lap` | the push of this lap |
//! | `lap + 1` | the pop of this lap |
//! | `lap` plus the ring's length | the push of the next lap |
//!
//! A push loads `tail`, and then the stamp of that place. If the stamp is the one for a push,
//! it claims the position: it moves `tail` on, in one exchange. From then on the place belongs
//! to this push, until it has written the item and stores the next stamp. A pop does the same
//! with `head`. If another thread claims the position first, it tries the next position.
//!
//! A thread may be stopped after its claim and before it stores the stamp. Another thread that
//! comes to this place finds an older stamp, and does not wait. A push returns the item,
//! as if the ring were full. A pop returns `None`, as if the ring were empty.
//!
//! # When a position wraps
//!
//! Nothing happens. The length is a power of two, so the highest position has the highest
//! index, and position 0 with index 0 follows. Laps and stamps wrap with the positions.
//! Whether a stamp is older or newer than another is read off their wrapping difference.
//!
//! One case must not happen: a thread finds the right stamp, is stopped, and moves the end on when
//! the same position has come round again. The place could have any stamp by then. For that, the
//! thread would have to be stopped between these two steps for exactly as many pushes as there are
//! positions. Machines with 64-bit atomics have 2^64 positions, so it would take centuries. Most
//! 32-bit machines have such atomics. A machine without them has 2^32 positions.

use crate::sync::{AtomicPosition, Exclusive, MODELLED, Ordering, Position};
use crate::system;
use std::cell::UnsafeCell;
use std::mem::MaybeUninit;

/// The stamp of a free place is the lap plus this.
const FREE: Position = 0;
/// The stamp of a place that holds an item is the lap plus this.
const FULL: Position = 1;
/// The fewest places. With a single place, its stamp when full would be that of a free place in the
/// next lap.
const LEN_LEAST: usize = 2;

/// First in, first out.
pub(crate) struct Ring<T> {
    /// The position of the next pop.
    head: Apart<AtomicPosition>,
    /// The position of the next push.
    tail: Apart<AtomicPosition>,
    /// Their number is a power of two.
    places: Box<[Place<T>]>,
}

/// A value that other threads write than the threads that use its neighbours.
// 128: two cache lines, since processors fetch them in pairs.
#[repr(align(128))]
struct Apart<T>(T);

struct Place<T> {
    /// What may happen here next: see the protocol.
    stamp: AtomicPosition,
    /// Initialised while the stamp is that of a full place.
    item: UnsafeCell<MaybeUninit<T>>,
    alone: Exclusive,
}

// SAFETY: `item` is the one field that needs the argument. Only the thread that has claimed the
// position touches it, until it stores the next stamp. Items move to other threads that way,
// so `T` must be `Send`.
unsafe impl<T: Send> Sync for Ring<T> {}

impl<T> Ring<T> {
    /// An empty ring of `len` places; `None` if the heap refuses.
    ///
    /// Does not touch the places if the heap has fresh pages for them.
    ///
    /// # Panics
    ///
    /// - If `len` is not a power of two, or is 1.
    pub(crate) fn new(len: usize) -> Option<Self> {
        assert!(len.is_power_of_two() && len >= LEN_LEAST);
        Some(Ring {
            head: Apart(AtomicPosition::new(0)),
            tail: Apart(AtomicPosition::new(0)),
            places: Place::free(len)?,
        })
    }

    /// Stores an item. Hands it back if the ring is full, or if another thread is in the
    /// middle of a pop at the next place.
    #[inline]
    pub(crate) fn push(&self, item: T) -> Result<(), T> {
        let Some((place, stamp)) = self.claim(&self.tail.0, FREE) else {
            return Err(item);
        };
        place.alone.touch();
        // SAFETY: the claim gives this place to this thread alone, until the store below.
        let room = unsafe { &mut *place.item.get() };
        room.write(item);
        // Release: publishes the item; pairs with the Acquire in `claim`, of the pop here.
        place.stamp.store(stamp + (FULL - FREE), Ordering::Release);
        Ok(())
    }

    /// Takes the oldest item. `None` if the ring is empty, or if another thread is in the middle of
    /// a push at the next place.
    ///
    /// An empty ring takes two loads.
    #[inline]
    pub(crate) fn pop(&self) -> Option<T> {
        let (place, stamp) = self.claim(&self.head.0, FULL)?;
        place.alone.touch();
        // SAFETY: as in `push`. The stamp is that of a full place, so the item is initialised. The
        // next stamp is that of a free place, so no thread reads the item again.
        let item = unsafe { (*place.item.get()).assume_init_read() };
        let next_lap = stamp.wrapping_add(self.places.len() as Position - FULL);
        // Release: the item has gone before the next one is written; pairs with the Acquire
        // in `claim`, of the push here.
        place.stamp.store(next_lap, Ordering::Release);
        Some(item)
    }

    /// Claims the next place at one end, if its stamp is the lap plus `turn`. Returns the place and
    /// that stamp.
    #[inline]
    fn claim(&self, end: &AtomicPosition, turn: Position) -> Option<(&Place<T>, Position)> {
        let mask = self.places.len() - 1;
        // Relaxed, for each load of the end here: it only selects the place to look at. The stamp
        // there orders the item.
        let mut position = end.load(Ordering::Relaxed);
        loop {
            // The low bits are the index, so the cast loses none of them.
            let place = &self.places[position as usize & mask];
            let wanted = (position & !(mask as Position)) + turn;
            // Acquire: pairs with the Release of the push or pop before this one here.
            let stamp = place.stamp.load(Ordering::Acquire);
            if stamp == wanted {
                let next = position.wrapping_add(1);
                // Release: only for `len`; pairs with the Acquire there. Relaxed: as above.
                match end.compare_exchange_weak(
                    position,
                    next,
                    Ordering::Release,
                    Ordering::Relaxed,
                ) {
                    Ok(_) => return Some((place, stamp)),
                    Err(now) => position = now, // another thread was first
                }
            } else if stamp.wrapping_sub(wanted) > Position::MAX / 2 {
                return None; // still an earlier turn
            } else {
                // The place is past that turn. The thread that stored its stamp moved the end
                // on before, and after the Acquire above even a Relaxed load sees that.
                position = end.load(Ordering::Relaxed);
            }
        }
    }

    /// The number of positions that a push has claimed and no pop, at one moment during this call.
    /// A thread that counts an item here sees everything that its pusher did before.
    pub(crate) fn len(&self) -> usize {
        // Acquire, here and below: pairs with the Release in `claim`.
        let mut tail = self.tail.0.load(Ordering::Acquire);
        loop {
            let head = self.head.0.load(Ordering::Acquire);
            let now = self.tail.0.load(Ordering::Acquire);
            if now == tail {
                return now.wrapping_sub(head) as usize; // at most the number of places
            }
            tail = now; // others have pushed meanwhile
        }
    }
}

impl<T> Place<T> {
    /// `len` free places; `None` if the heap refuses.
    fn free(len: usize) -> Option<Box<[Self]>> {
        if MODELLED {
            // A checker's atomics are not made of zeros.
            let mut places = Vec::new();
            places.try_reserve_exact(len).ok()?;
            places.extend((0..len).map(|_| Place {
                stamp: AtomicPosition::new(FREE),
                item: UnsafeCell::new(MaybeUninit::uninit()),
                alone: Exclusive::new(),
            }));
            return Some(places.into_boxed_slice());
        }
        let zeroed = system::zeroed_slice::<Self>(len)?;
        const { assert!(FREE == 0, "zeroed memory must be a free place") };
        // SAFETY: all bytes are zero. So each stamp is that of a free place in lap 0. The item
        // may be any bytes, and `alone` has none without a checker.
        Some(unsafe { zeroed.assume_init() })
    }
}

impl<T> Drop for Ring<T> {
    /// Drops the items that are left.
    fn drop(&mut self) {
        while self.pop().is_some() {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::VecDeque;
    use std::sync::Arc;
    use std::thread;

    /// A ring as it is after pushes and pops at all positions below `start`.
    fn at<T>(start: Position, len: usize) -> Ring<T> {
        let ring = Ring::new(len).expect("the heap has room");
        ring.head.0.store(start, Ordering::Relaxed);
        ring.tail.0.store(start, Ordering::Relaxed);
        for (index, place) in (0..).zip(&ring.places) {
            let next = start.wrapping_sub(index).wrapping_add(len as Position - 1);
            let lap = next & !(len as Position - 1);
            place.stamp.store(lap, Ordering::Relaxed);
        }
        ring
    }

    /// The beginning; the middle; and where a position, and a lap, wrap.
    fn starts(len: usize) -> impl Iterator<Item = Position> {
        let len = len as Position;
        let wraps = (0..=2 * len).map(|before| Position::MAX - before);
        let half = Position::MAX / 2;
        [0, 1, len, 12_345, half, half + 1].into_iter().chain(wraps)
    }

    #[test]
    fn it_acts_as_a_queue_of_its_length_at_every_position() {
        for len in [2, 4, 8] {
            let new = Ring::new(len).expect("the heap has room");
            for ring in starts(len).map(|start| at(start, len)).chain([new]) {
                let mut queue = VecDeque::new();
                for step in 0..10 * len {
                    // Two laps each of mostly pushes and mostly pops.
                    let pushes = step / (2 * len) % 2 == 0;
                    if pushes != (step % 3 == 2) {
                        let pushed = ring.push(step);
                        let has_room = queue.len() < len;
                        assert_eq!(pushed, if has_room { Ok(()) } else { Err(step) });
                        queue.extend(has_room.then_some(step));
                    } else {
                        assert_eq!(ring.pop(), queue.pop_front());
                    }
                    assert_eq!(ring.len(), queue.len());
                }
            }
        }
    }

    #[test]
    fn full_and_empty_differ_at_every_position_of_a_lap() {
        for len in [2, 4, 16] {
            for start in starts(len) {
                let ring = at(start, len);
                for _ in 0..2 * len {
                    assert_eq!((ring.pop(), ring.len()), (None, 0));
                    for item in 0..len {
                        assert_eq!(ring.push(item), Ok(()));
                    }
                    assert_eq!((ring.push(99), ring.len()), (Err(99), len));
                    for item in 0..len {
                        assert_eq!(ring.pop(), Some(item));
                    }
                    // One place further round.
                    assert_eq!((ring.push(1), ring.pop()), (Ok(()), Some(1)));
                }
            }
        }
    }

    // A thread that the system has stopped in the middle of its push.
    #[test]
    fn a_pop_does_not_wait_for_a_push_that_has_only_claimed_its_place() {
        for start in starts(4) {
            let ring = at(start, 4);
            assert_eq!(ring.push(1), Ok(()));
            let (place, stamp) = ring.claim(&ring.tail.0, FREE).expect("it is free");
            assert_eq!(ring.push(3), Ok(()), "another place is free");
            assert_eq!(ring.pop(), Some(1));
            assert_eq!(ring.pop(), None, "the next item is not written yet");
            assert_eq!(ring.push(4), Ok(()));
            assert_eq!(ring.push(5), Ok(()));
            assert_eq!(ring.push(6), Err(6), "four places are claimed");
            assert_eq!((ring.pop(), ring.len()), (None, 4));
            // SAFETY: claimed above.
            unsafe { &mut *place.item.get() }.write(2);
            place.stamp.store(stamp + 1, Ordering::Release);
            for item in [2, 3, 4, 5] {
                assert_eq!(ring.pop(), Some(item));
            }
            assert_eq!(ring.pop(), None);
        }
    }

    #[test]
    fn a_push_does_not_wait_for_a_pop_that_has_only_claimed_its_place() {
        for start in starts(4) {
            let ring = at(start, 4);
            (0..4).for_each(|item| assert_eq!(ring.push(item), Ok(())));
            let (place, stamp) = ring.claim(&ring.head.0, FULL).expect("it is full");
            assert_eq!((ring.push(9), ring.len()), (Err(9), 3));
            assert_eq!(ring.pop(), Some(1), "another place is full");
            assert_eq!(ring.push(9), Err(9));
            // SAFETY: claimed above.
            assert_eq!(unsafe { (*place.item.get()).assume_init_read() }, 0);
            place.stamp.store(stamp.wrapping_add(3), Ordering::Release);
            assert_eq!((ring.push(4), ring.push(5)), (Ok(()), Ok(())));
            for item in 2..6 {
                assert_eq!(ring.pop(), Some(item));
            }
            assert_eq!(ring.pop(), None);
        }
    }

    #[test]
    fn a_dropped_ring_drops_each_of_its_items_once() {
        for start in starts(4) {
            let item = Arc::new(());
            let ring = at(start, 4);
            for held in 0..=4 {
                (0..held).for_each(|_| ring.push(Arc::clone(&item)).expect("room"));
                (0..held).for_each(|_| drop(ring.pop().expect("an item")));
            }
            (0..3).for_each(|_| ring.push(Arc::clone(&item)).expect("room"));
            assert_eq!(Arc::strong_count(&item), 4);
            drop(ring);
            assert_eq!(Arc::strong_count(&item), 1);
        }
    }

    #[test]
    fn a_ring_too_large_for_any_heap_is_none() {
        assert!(Ring::<[usize; 33]>::new(1 << (usize::BITS - 2)).is_none());
        assert!(Ring::<u8>::new(1 << (usize::BITS - 1)).is_none());
    }

    // Short, so that threads meet at its ends all the time.
    #[test]
    fn threads_get_each_item_once_and_in_the_order_of_its_pusher() {
        const PUSHERS: usize = 2;
        const POPPERS: usize = 2;
        let each = if crate::SLOW { 200 } else { 20_000 };
        for len in [2, 8] {
            let ring = &at(Position::MAX - each as Position, len);
            let popped: Vec<Vec<(usize, usize)>> = thread::scope(|scope| {
                for pusher in 0..PUSHERS {
                    scope.spawn(move || {
                        for number in 0..each {
                            while ring.push((pusher, number)).is_err() {
                                thread::yield_now();
                            }
                        }
                    });
                }
                let poppers = [(); POPPERS].map(|()| {
                    scope.spawn(|| {
                        let mut mine = Vec::new();
                        while mine.len() < PUSHERS * each / POPPERS {
                            match ring.pop() {
                                Some(item) => mine.push(item),
                                None => thread::yield_now(),
                            }
                        }
                        mine
                    })
                });
                poppers.map(|popper| popper.join().unwrap()).into()
            });
            for pusher in 0..PUSHERS {
                let from = |popped: &Vec<(usize, usize)>| -> Vec<usize> {
                    let mine = popped.iter().filter(|&&(from, _)| from == pusher);
                    mine.map(|&(_, number)| number).collect()
                };
                let mut all = Vec::new();
                for popped in &popped {
                    let numbers = from(popped);
                    assert!(numbers.is_sorted_by(|one, next| one < next));
                    all.extend(numbers);
                }
                all.sort_unstable();
                assert!(all.into_iter().eq(0..each));
            }
            assert_eq!((ring.pop(), ring.len()), (None, 0));
        }
    }
}
