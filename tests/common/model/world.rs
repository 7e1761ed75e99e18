//! Pools and their buffers, real and modelled, on whichever thread acts.
//!
//! Owns the effect of each operation on guards, and the comparison of all visible state. Knows
//! nothing of how threads take turns.

use super::THREADS;
use super::guard::GuardModel;
use super::levels::Life;
use super::memory::{Memory, View};
use super::op::{OnPiece, Op, Options};
use super::pieces::{Cell, Frozen, Piece};
use super::pool::{Asked, OnePool, Seen, least_growth};
use bytes::{Buf, Bytes, BytesMut};
use std::collections::BTreeMap;
use std::mem;
use tierpool::{Counts, Pool, PooledBuf};

/// The most guards at once: bounds the memory of a run.
pub(super) const GUARDS_MAX: usize = 150;

/// With more idle buffers there is no prefill, for the same reason.
const IDLE_MAX: usize = 300;

/// The most pools that a run makes, including ended ones.
const POOLS_MAX: usize = 8;

/// The most guards that are forgotten.
const FORGOTTEN_MAX: usize = 2;

/// The reason why a guard needs room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Room {
    /// `reserve`.
    Asked,
    /// `try_reserve`.
    Tried,
    /// To append.
    Appended,
    /// For a few bytes that were written beside it.
    Probed,
}

pub(super) struct Guard {
    pub(super) real: PooledBuf,
    pub(super) model: GuardModel,
    pub(super) pool: usize,
}

impl Guard {
    /// Follows `BytesMut::reserve`.
    fn heap_grew(&mut self, memory: &mut Memory, additional: usize) {
        let view = &mut self.model.view;
        if memory.try_reclaim(view, additional) {
            return;
        }
        let contents = mem::take(&mut view.contents);
        let (alone, counted) = (memory.is_alone(view), memory.of(view).counted);
        memory.end(view);
        // An allocation without parts moves as it is. From a shared one, only the view is copied.
        let offset = if alone { view.offset } else { 0 };
        let grown = memory.seen(&self.real, offset, alone && counted);
        assert!(grown.capacity >= contents.len() + additional);
        self.model.view = View { contents, ..grown };
    }
}

enum PartKind {
    Mut(BytesMut),
    Frozen(Bytes),
}

struct Part {
    real: PartKind,
    view: View,
}

/// The whole state.
pub(super) struct World {
    /// In the order in which they were made, including ended ones: their guards may be outstanding.
    pub(super) pools: Vec<OnePool>,
    /// The pools that the operations name.
    places: [usize; 2],
    pub(super) guards: Vec<Guard>,
    parts: Vec<Part>,
    pub(super) pieces: Vec<Piece>,
    /// Buffers that parts hold, or have held since the guard took them.
    pub(super) cells: BTreeMap<usize, Cell>,
    pub(super) last_cell: usize,
    /// How many bytes the present guard has written behind its contents, once it had room.
    pub(super) behind: usize,
    pub(super) frozen: Vec<Frozen>,
    forgotten: Vec<Guard>,
    pub(super) memory: Memory,
    /// The next byte to write.
    next: u8,
    /// The acting thread.
    acting: usize,
    /// The present name of each thread.
    lives: [Life; THREADS],
    /// The latest of these names.
    last: Life,
    /// The pool whose caches each thread surely finds, if there is one. It may find those of other
    /// pools, since a thread remembers a few, by a number that cannot be seen.
    remembered: [Option<usize>; THREADS],
}

pub(super) fn round(at: usize, len: usize) -> Option<usize> {
    at.checked_rem(len)
}

impl World {
    pub(super) fn new(options: &[Options; 2]) -> Self {
        let mut world = World {
            pools: Vec::new(),
            places: [0, 1],
            guards: Vec::new(),
            parts: Vec::new(),
            pieces: Vec::new(),
            cells: BTreeMap::new(),
            last_cell: 0,
            behind: 0,
            frozen: Vec::new(),
            forgotten: Vec::new(),
            memory: Memory::default(),
            next: 0,
            acting: 0,
            lives: std::array::from_fn(Life),
            last: Life(THREADS - 1),
            remembered: [None; THREADS],
        };
        world.pools.push(OnePool::new(&options[0], None));
        let saved = world.saved(&options[1]);
        world.pools.push(OnePool::new(&options[1], saved));
        world
    }

    /// A pool's counts; all 0 if it has ended.
    pub(super) fn total(&self, pool: usize) -> Counts {
        let handle = self.pools[self.places[pool % 2]].handles.first();
        handle.map_or(Counts::default(), |handle| handle.stats().total)
    }

    /// Lets this thread run the next operations. `begins`: it is new.
    pub(super) fn act_on(&mut self, thread: usize, begins: bool) {
        self.acting = thread;
        if begins {
            self.last.0 += 1;
            self.lives[thread] = self.last;
            self.remembered[thread] = None;
        }
    }

    /// Notes that a thread has ended, with all its thread-locals.
    pub(super) fn thread_ended(&mut self, thread: usize) {
        let life = self.lives[thread];
        self.pools
            .iter_mut()
            .for_each(|pool| pool.thread_ends(life));
    }

    /// Runs one operation on the pools and on the model, on the thread that acts.
    pub(super) fn apply(&mut self, op: &Op) {
        self.act(op);
        for guard in &self.guards {
            self.memory.note_written(&guard.model.view);
        }
    }

    fn act(&mut self, op: &Op) {
        match *op {
            Op::Get { pool, size } => self.get(pool, size),
            Op::TryGet { pool, size } => {
                let take = |pool: &Pool| pool.try_get(size).expect("there is memory");
                self.get_by(pool, size, Asked::ForZeros, take);
            }
            Op::GetDefault { pool } => {
                let at = self.places[pool % 2];
                self.turn_to(at); // first: this may calibrate
                let size = self.pools[at].learned.default_size();
                self.get_by(pool, size, Asked::ByUser, Pool::get_default);
            }
            Op::GetZeroed { pool, size } => self.get_zeroed(pool, size),
            Op::GetMany { pool, size, count } => (0..count).for_each(|_| self.get(pool, size)),
            Op::Adopt {
                pool,
                capacity,
                len,
            } => {
                let mut buf = BytesMut::with_capacity(capacity);
                let bytes = self.bytes(len.min(capacity));
                buf.extend_from_slice(&bytes);
                let view = self.memory.seen(&buf, 0, false);
                self.adopt(self.places[pool % 2], buf, view);
            }
            Op::AdoptPart { pool, part } => {
                let Some(at) = round(part, self.parts.len()) else {
                    return;
                };
                let pool = self.places[pool % 2];
                if self.pools[pool].handles.is_empty() {
                    return;
                }
                let part = self.parts.swap_remove(at);
                match part.real {
                    PartKind::Mut(buf) => self.adopt(pool, buf, part.view),
                    PartKind::Frozen(_) => self.parts.push(part),
                }
            }
            Op::Write { guard, len } => {
                let bytes = self.bytes(len);
                let Some(at) = round(guard, self.guards.len()) else {
                    return;
                };
                let before = self.observe(at);
                self.guards[at].real.extend_from_slice(&bytes);
                self.guard_needed(at, len, Room::Appended, before);
                self.guards[at]
                    .model
                    .view
                    .contents
                    .extend_from_slice(&bytes);
            }
            Op::Resize { guard, len } => {
                let value = self.bytes(1)[0].max(1); // zeros have their own operation
                let Some(at) = round(guard, self.guards.len()) else {
                    return;
                };
                let before = self.observe(at);
                let is_cut = len < self.guards[at].real.len();
                let more = len.saturating_sub(self.guards[at].real.len());
                if is_cut {
                    self.guards[at].model.note_used(&self.memory);
                }
                self.guards[at].real.resize(len, value);
                self.guard_needed(at, more, Room::Appended, before);
                self.guards[at].model.view.contents.resize(len, value);
            }
            Op::Reserve { guard, additional } => {
                let Some(at) = round(guard, self.guards.len()) else {
                    return;
                };
                let before = self.observe(at);
                self.guards[at].real.reserve(additional);
                self.guard_needed(at, additional, Room::Asked, before);
            }
            Op::TryReserve { guard, additional } => {
                let Some(at) = round(guard, self.guards.len()) else {
                    return;
                };
                let before = self.observe(at);
                let reserved = self.guards[at].real.try_reserve(additional);
                reserved.expect("there is memory");
                self.guard_needed(at, additional, Room::Tried, before);
            }
            Op::Fill { guard, len } => {
                let bytes = self.bytes(len);
                let Some(at) = round(guard, self.guards.len()) else {
                    return;
                };
                self.fill(at, &bytes);
            }
            Op::ReserveInside { guard, additional } => {
                let Some(at) = round(guard, self.guards.len()) else {
                    return;
                };
                self.lend(at);
                let guard = &mut self.guards[at];
                BytesMut::reserve(&mut guard.real, additional);
                guard.heap_grew(&mut self.memory, additional);
            }
            Op::CutBack { guard, less, keep } => {
                let cut = |memory: &mut Memory, Guard { real, model, .. }: &mut Guard| {
                    let at = model.capacity.min(real.capacity()).saturating_sub(less);
                    let part = PartKind::Mut(BytesMut::split_off(real, at));
                    (part, memory.split_off(&mut model.view, at))
                };
                self.split(guard, keep, cut);
            }
            Op::WriteInside { guard, len } => {
                let bytes = self.bytes(len);
                let Some(at) = round(guard, self.guards.len()) else {
                    return;
                };
                self.lend(at);
                let guard = &mut self.guards[at];
                BytesMut::extend_from_slice(&mut guard.real, &bytes);
                let real = guard.real.to_vec();
                guard.heap_grew(&mut self.memory, len);
                guard.model.view.contents.extend_from_slice(&bytes);
                assert_eq!(real, guard.model.view.contents);
            }
            Op::Truncate { guard, len } => {
                let Some(at) = round(guard, self.guards.len()) else {
                    return;
                };
                self.guards[at].real.truncate(len);
                self.guards[at].model.note_used(&self.memory);
                self.guards[at].model.view.contents.truncate(len);
            }
            Op::Empty { guard } => {
                let Some(at) = round(guard, self.guards.len()) else {
                    return;
                };
                self.guards[at].real.clear();
                self.guards[at].model.note_used(&self.memory);
                self.guards[at].model.view.contents.clear();
            }
            Op::Advance { guard, count } => {
                let Some(at) = round(guard, self.guards.len()) else {
                    return;
                };
                let Guard { real, model, .. } = &mut self.guards[at];
                let count = count % (real.len() + 1);
                model.note_before_consuming(&self.memory);
                real.advance(count);
                model.view.contents.drain(..count);
                model.view.offset += count;
                model.view.capacity -= count;
            }
            Op::SplitTo { guard, at, keep } => {
                self.split(guard, keep, |memory, Guard { real, model, .. }| {
                    let at = at % (real.len() + 1);
                    let part = PartKind::Mut(BytesMut::split_to(real, at));
                    (part, memory.split_to(&mut model.view, at))
                });
            }
            Op::SplitOff { guard, at, keep } => {
                self.split(guard, keep, |memory, Guard { real, model, .. }| {
                    let at = at % (real.capacity() + 1);
                    let part = PartKind::Mut(BytesMut::split_off(real, at));
                    (part, memory.split_off(&mut model.view, at))
                });
            }
            Op::CopyInside { guard, at, keep } => {
                self.split(guard, keep, |memory, Guard { real, model, .. }| {
                    let at = at % (real.len() + 1);
                    let part = PartKind::Frozen((**real).copy_to_bytes(at));
                    (part, memory.split_to(&mut model.view, at))
                });
            }
            Op::CutTo { guard, at, keep } => self.cut_to(guard, at, keep),
            Op::CutOff { guard, at, keep } => self.cut_off(guard, at, keep),
            Op::CopyToBytes { guard, at, keep } => self.copy_to_bytes(guard, at, keep),
            Op::ShrinkToFit { guard } => self.shrink_to_fit(guard),
            Op::Freeze { guard } => self.freeze(guard),
            Op::FreezeCompact { guard } => self.freeze_compact(guard),
            Op::Piece { piece, what, at } => self.on_piece(piece, what, at),
            Op::ResizeZero { guard, len } => self.resize_zero(guard, len),
            Op::FillWith {
                guard,
                room,
                len,
                how,
            } => self.fill_with(guard, room, len, how),
            Op::Scribble { guard, len } => self.scribble(guard, len),
            Op::Swap { guard, other } => {
                let Some(at) = round(guard, self.guards.len()) else {
                    return;
                };
                let other = other % self.guards.len();
                if at == other {
                    return;
                }
                self.lend(at);
                self.lend(other);
                let (low, high) = self.guards.split_at_mut(at.max(other));
                let (one, two) = (&mut low[at.min(other)], &mut high[0]);
                mem::swap(&mut *one.real, &mut *two.real);
                mem::swap(&mut one.model.view, &mut two.model.view);
            }
            Op::Drop { guard } => {
                let Some(at) = round(guard, self.guards.len()) else {
                    return;
                };
                let guard = self.guards.swap_remove(at);
                self.drop_guard(guard);
            }
            Op::DropMany { count } => {
                for _ in 0..count {
                    let Some(guard) = self.guards.pop() else {
                        return;
                    };
                    self.drop_guard(guard);
                }
            }
            Op::Detach { guard } => {
                let Some(at) = round(guard, self.guards.len()) else {
                    return;
                };
                self.detach(at);
            }
            Op::Forget { guard } => {
                let Some(at) = round(guard, self.guards.len()) else {
                    return;
                };
                // For the pool, this is the same as `mem::forget`. At the end, the guard can be
                // taken back, and is no leak.
                if self.forgotten.len() < FORGOTTEN_MAX {
                    self.forgotten.push(self.guards.swap_remove(at));
                }
            }
            Op::Slice { frozen, from } => {
                let Some(at) = round(frozen, self.frozen.len()) else {
                    return;
                };
                let slices = &mut self.frozen[at].slices;
                let (bytes, contents) = &slices[from % slices.len()];
                let from = from % (contents.len() + 1);
                // Not for an empty slice: `Bytes` releases the buffer then.
                if from < contents.len() {
                    let slice = (bytes.slice(from..), contents[from..].to_vec());
                    slices.push(slice);
                }
            }
            Op::DropFrozen { frozen } => {
                let Some(at) = round(frozen, self.frozen.len()) else {
                    return;
                };
                let Frozen { slices, cell } = &mut self.frozen[at];
                let cell = *cell;
                match slices.len() {
                    1 => {
                        self.before_release(cell);
                        self.frozen.swap_remove(at);
                        self.release(cell);
                    }
                    _ => drop(slices.pop()),
                }
            }
            Op::DropPart { part } => {
                let Some(at) = round(part, self.parts.len()) else {
                    return;
                };
                let part = self.parts.swap_remove(at);
                self.memory.end(&part.view);
            }
            Op::Trim { pool } => self.free_idle(self.places[pool % 2], false),
            Op::Clear { pool } => self.free_idle(self.places[pool % 2], true),
            Op::Prefill { pool, size, count } => {
                let pool = &mut self.pools[self.places[pool % 2]];
                let idle = pool.idle().count();
                if let (Some(handle), true) = (pool.handles.last(), idle <= IDLE_MAX) {
                    let made = handle.prefill(size, count);
                    assert_eq!(made, pool.prefill(size, count));
                }
            }
            Op::ResetPeaks { pool } => self.pools[self.places[pool % 2]].reset_peaks(),
            Op::Calibrate { pool } => {
                let (at, me) = (self.places[pool % 2], self.me());
                let pool = &mut self.pools[at];
                if let Some(handle) = pool.handles.last() {
                    let now = handle.recalibrate();
                    assert_eq!(now, handle.targets());
                    pool.recalibrated(me);
                }
            }
            Op::NewHandle { pool } => {
                let handles = &mut self.pools[self.places[pool % 2]].handles;
                if let Some(handle) = handles.first() {
                    let handle = handle.clone();
                    handles.push(handle);
                }
            }
            Op::DropHandle { pool } => self.drop_handle(self.places[pool % 2]),
            Op::NewPool { pool, ref options } => {
                if self.pools.len() == POOLS_MAX {
                    return;
                }
                let saved = self.saved(options);
                let before = self.places[pool % 2];
                while !self.pools[before].handles.is_empty() {
                    self.drop_handle(before);
                }
                self.places[pool % 2] = self.pools.len();
                self.pools.push(OnePool::new(options, saved));
            }
            Op::On { .. } | Op::EndThread { .. } => unreachable!("the crew runs these"),
        }
    }

    /// Compares all visible state.
    ///
    /// # Panics
    ///
    /// - If pool and model differ.
    pub(super) fn check(&mut self) {
        for Guard { real, model, .. } in &self.guards {
            assert_eq!(real[..], model.view.contents);
            assert_eq!(real.capacity(), model.view.capacity);
            assert_eq!(real.as_ptr().addr(), self.memory.address(&model.view));
        }
        for Part { real, view } in &self.parts {
            match real {
                PartKind::Mut(real) => assert_eq!(real[..], view.contents),
                PartKind::Frozen(real) => assert_eq!(real[..], view.contents),
            }
        }
        for (real, contents) in self.frozen.iter().flat_map(|frozen| &frozen.slices) {
            assert_eq!(real[..], contents[..]);
        }
        for piece in &self.pieces {
            assert_eq!(piece.real[..], piece.contents);
        }
        self.check_memory();
        self.pools.iter_mut().for_each(OnePool::check);
    }

    /// Drops all remaining guards and parts, with a check after each; also the forgotten ones.
    pub(super) fn finish(&mut self) {
        for _ in 0..2 {
            while !self.guards.is_empty() {
                self.apply(&Op::Drop { guard: 0 });
                self.check();
            }
            self.guards.append(&mut self.forgotten);
        }
        while !self.frozen.is_empty() {
            self.apply(&Op::DropFrozen { frozen: 0 });
            self.check();
        }
        while !self.pieces.is_empty() {
            let (piece, what, at) = (0, OnPiece::Drop, 0);
            self.apply(&Op::Piece { piece, what, at });
            self.check();
        }
        assert!(self.cells.is_empty(), "each buffer has come home");
        self.parts.clear();
        for handle in self.pools.iter().filter_map(|pool| pool.handles.first()) {
            assert_eq!(handle.stats().total.outstanding, 0);
        }
    }

    // ---- the operations ----

    /// Bytes that differ from those written last.
    pub(super) fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len)
            .map(|_| {
                self.next = self.next.wrapping_add(1);
                self.next
            })
            .collect()
    }

    /// The acting thread.
    pub(super) fn me(&self) -> Life {
        self.lives[self.acting]
    }

    /// Must run before a pool's thread cache is used. The thread may have forgotten where its cache
    /// is, since it remembers some pools by their number only. Then it takes the slow path, and
    /// counts a request for a retired class. Where that makes a difference, this reminds the
    /// thread: it returns a buffer that is too small for any class, and that finds the thread's
    /// caches.
    pub(super) fn turn_to(&mut self, pool: usize) {
        let (me, of) = (self.me(), &self.pools[pool]);
        if self.remembered[self.acting] == Some(pool) {
            return;
        }
        let matters = of.caches_retired(me);
        self.remembered[self.acting] = None; // this may replace another pool
        if matters && of.has_caches(me) && !of.handles.is_empty() {
            self.settle(pool);
            let buf = BytesMut::new();
            let view = self.memory.seen(&buf, 0, false);
            self.adopt(pool, buf, view);
            let Guard { real, model, .. } = self.guards.pop().unwrap();
            drop(real);
            self.pools[pool].returned(&mut self.memory, me, model);
            self.remembered[self.acting] = Some(pool);
        }
    }

    /// Must run before a buffer returns. If the model cannot know whether the return continues a
    /// due trim, the trim is done first.
    pub(super) fn settle(&mut self, pool: usize) {
        if self.pools[pool].may_trim_unseen() {
            self.free_idle(pool, false);
        }
    }

    /// Must run after a pool's use: the thread may surely find its caches now.
    pub(super) fn turn_is_over(&mut self, pool: usize) {
        if mem::take(&mut self.pools[pool].is_remembered) {
            self.remembered[self.acting] = Some(pool);
        }
    }

    /// The profile that a new pool begins with, the real and the modelled one.
    fn saved(&self, options: &Options) -> Option<(tierpool::Profile, super::learned::Saved)> {
        let from = self.pools.get(self.places[options.profile_of? % 2])?;
        Some((from.handles.first()?.profile(), from.learned.saved()))
    }

    /// Notes that a buffer belongs to the user now.
    pub(super) fn detached(&mut self, own: BytesMut, view: View) {
        let real = PartKind::Mut(own);
        self.parts.push(Part { real, view });
    }

    fn drop_handle(&mut self, pool: usize) {
        let pool = &mut self.pools[pool];
        if pool.handles.pop().is_some() && pool.handles.is_empty() {
            pool.free_idle(&mut self.memory, true);
        }
    }

    /// Runs a trim, or a clear.
    pub(super) fn free_idle(&mut self, pool: usize, all: bool) {
        let of = &mut self.pools[pool];
        let Some(handle) = of.handles.last() else {
            return;
        };
        let unknown = of.trimmed; // not compared since the last trim
        let before = handle.stats();
        let freed = if all { handle.clear() } else { handle.trim() };
        let after = handle.stats();
        let classes = before.classes.iter().zip(&after.classes);
        for ((before, after), &fewest) in classes.zip(&of.fewest) {
            let trimmed = after.counts.trimmed - before.counts.trimmed;
            assert!(
                all || unknown || trimmed <= fewest,
                "{trimmed} freed, {fewest} unneeded"
            );
            assert!(!all || after.counts.retained_buffers == 0);
        }
        let expected = of.free_idle(&mut self.memory, all);
        assert_eq!((freed.buffers, freed.bytes), expected);
    }

    fn get(&mut self, pool: usize, size: usize) {
        self.get_by(pool, size, Asked::ByUser, |pool| pool.get(size));
    }

    /// Acquires a buffer of `size` bytes in one of the ways.
    fn get_by(
        &mut self,
        pool: usize,
        size: usize,
        asked: Asked,
        take: impl FnOnce(&Pool) -> PooledBuf,
    ) {
        if let Some(guard) = self.take(pool, size, asked, take) {
            assert!(guard.real.is_empty(), "a new guard is empty");
            self.guards.push(guard);
        }
    }

    /// Acquires a guard, unless the pool has ended or too many are outstanding.
    pub(super) fn take(
        &mut self,
        pool: usize,
        size: usize,
        asked: Asked,
        take: impl FnOnce(&Pool) -> PooledBuf,
    ) -> Option<Guard> {
        let pool = self.places[pool % 2];
        self.turn_to(pool);
        if self.pools[pool].handles.is_empty() || self.guards.len() >= GUARDS_MAX {
            return None;
        }
        let real = take(&self.pools[pool].handles[0]);
        let model = self.took(pool, &Seen::all(&real), size, asked);
        Some(Guard { real, model, pool })
    }

    /// Notes an acquired buffer, as it is now, and compares it with the expected one.
    pub(super) fn took(
        &mut self,
        pool: usize,
        seen: &Seen<'_>,
        request: usize,
        asked: Asked,
    ) -> GuardModel {
        let me = self.me();
        let model = self.pools[pool].took(&mut self.memory, me, seen, request, asked);
        self.turn_is_over(pool);
        model
    }

    fn adopt(&mut self, pool: usize, buf: BytesMut, view: View) {
        let of = &mut self.pools[pool];
        let Some(handle) = of.handles.last() else {
            self.memory.end(&view);
            return;
        };
        let real = handle.adopt(buf);
        let model = of.adopted(view);
        self.guards.push(Guard { real, model, pool });
    }

    fn split(
        &mut self,
        guard: usize,
        keep: bool,
        split: impl FnOnce(&mut Memory, &mut Guard) -> (PartKind, View),
    ) {
        let Some(at) = round(guard, self.guards.len()) else {
            return;
        };
        self.lend(at);
        let (real, view) = split(&mut self.memory, &mut self.guards[at]);
        if keep {
            self.parts.push(Part { real, view });
        } else {
            drop(real);
            self.memory.end(&view);
        }
    }

    pub(super) fn drop_guard(&mut self, guard: Guard) {
        self.turn_to(guard.pool);
        self.settle(guard.pool);
        drop(guard.real);
        self.dropped(guard.pool, guard.model);
    }

    pub(super) fn returned(&mut self, pool: usize, guard: GuardModel) {
        let me = self.me();
        self.pools[pool].returned(&mut self.memory, me, guard);
        self.turn_is_over(pool);
    }

    /// The spare room, before an operation that may grow.
    pub(super) fn observe(&mut self, at: usize) -> usize {
        self.turn_to(self.guards[at].pool);
        let real = &self.guards[at].real;
        real.capacity() - real.len()
    }

    /// Follows a guard that had room for `spare` bytes and needed `additional`.
    pub(super) fn guard_needed(&mut self, at: usize, additional: usize, room: Room, spare: usize) {
        let me = self.me();
        if spare >= additional {
            return;
        }
        self.guards[at].model.note_used(&self.memory);
        if self.is_shared(at) {
            return self.must_have_moved_on(at, additional, room);
        }
        let guard = &mut self.guards[at];
        if guard.model.use_room(&self.memory, additional) {
            return;
        }
        let request = self.growth(at, additional, room);
        let guard = &mut self.guards[at];
        let pool = &mut self.pools[guard.pool];
        let is_plain = guard.model.class == pool.unclassed() && !pool.options.zero_on_return;
        if request > pool.largest() && is_plain && room != Room::Tried {
            let more = request - guard.model.view.contents.len();
            guard.heap_grew(&mut self.memory, more);
            return pool.grown_on_heap(&mut guard.model);
        }
        let asked = match room {
            Room::Tried => Asked::ForZeros,
            Room::Asked => Asked::ByUser,
            _ if request > pool.largest() => Asked::ByUser,
            _ => Asked::ToGrow,
        };
        let contents = guard.model.view.contents.clone();
        // The new buffer is acquired before the old one is released. The real one has its contents
        // already. The model's contents come from the caller.
        let seen = Seen {
            behind: self.behind,
            ..Seen::all(&guard.real)
        };
        let mut grown = pool.took(&mut self.memory, me, &seen, request, asked);
        grown.view.contents = contents;
        let old = mem::replace(&mut guard.model, grown);
        if let Some(cell) = old.cell {
            self.cells.remove(&cell); // it had no other holder
        }
        pool.outgrown(&mut self.memory, me, old);
        let pool = guard.pool;
        self.turn_is_over(pool);
    }

    /// The request of a guard that needs `additional` bytes more than it has room for.
    pub(super) fn growth(&self, at: usize, additional: usize, room: Room) -> usize {
        let guard = &self.guards[at];
        let (view, pool) = (&guard.model.view, &self.pools[guard.pool]);
        let wanted = match (room, pool.handles.is_empty()) {
            (Room::Appended, false) => pool.learned.larger_than(view.capacity),
            // An ended pool still learns, and shows it nowhere.
            (Room::Appended, true) => guard.real.capacity(),
            _ => least_growth(view.capacity),
        };
        let needed = view.contents.len() + additional;
        guard.model.growth(pool.largest(), needed, wanted)
    }

    // ---- the comparisons ----

    fn check_memory(&self) {
        let out = self.guards.iter().map(|guard| &guard.model.view);
        let parts = self.parts.iter().map(|part| &part.view);
        let forgotten = self.forgotten.iter().map(|guard| &guard.model.view);
        let idle = self.pools.iter().flat_map(OnePool::idle);
        let idle = idle.filter_map(|idle| idle.view.as_ref());
        let taken = out.chain(parts).chain(forgotten);
        let mut ranges: Vec<(usize, usize)> = taken
            .chain(idle)
            .map(|view| (self.memory.address(view), view.capacity))
            .chain(self.ranges_of_cells())
            .filter(|&(_, capacity)| capacity > 0)
            .collect();
        ranges.sort_unstable();
        for pair in ranges.windows(2) {
            assert!(pair[0].0 + pair[0].1 <= pair[1].0, "two owners: {pair:x?}");
        }
    }
}
