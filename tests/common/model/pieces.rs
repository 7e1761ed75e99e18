//! Parts that share a guard's buffer: `PooledBytes`, and `Bytes` that own one.
//!
//! Owns who holds each buffer. The last holder returns the buffer, exactly once.

use super::guard::GuardModel;
use super::memory::View;
use super::op::OnPiece;
use super::pool::{Asked, Seen};
use super::world::{GUARDS_MAX, Guard, Room, World, round};
use bytes::{Buf, Bytes, BytesMut};
use std::mem;
use tierpool::PooledBytes;

/// The most pieces at once: bounds the cost of comparisons.
const PIECES_MAX: usize = 200;

/// A buffer that parts hold, or have held.
pub(super) struct Cell {
    /// Includes the guard, while that is there.
    holders: usize,
    pool: usize,
    /// The buffer as the guard left it, once it has.
    left: Option<GuardModel>,
}

/// A part of a guard's contents.
pub(super) struct Piece {
    pub(super) real: PooledBytes,
    pub(super) contents: Vec<u8>,
    /// `None` if the part holds no buffer.
    cell: Option<usize>,
}

/// A part that a `Bytes` owns, and slices of the `Bytes`.
pub(super) struct Frozen {
    pub(super) slices: Vec<(Bytes, Vec<u8>)>,
    pub(super) cell: usize,
}

impl World {
    // ---- who holds a buffer ----

    /// The number of a buffer. A buffer without one gets a new one, with one holder.
    fn cell_of(&mut self, pool: usize, cell: Option<usize>) -> usize {
        cell.unwrap_or_else(|| {
            self.last_cell += 1;
            let cell = Cell {
                holders: 1,
                pool,
                left: None,
            };
            self.cells.insert(self.last_cell, cell);
            self.last_cell
        })
    }

    fn join(&mut self, cell: usize) {
        self.cells.get_mut(&cell).unwrap().holders += 1;
    }

    /// Must run before a real holder is dropped.
    pub(super) fn before_release(&mut self, cell: usize) {
        let Cell { holders, pool, .. } = self.cells[&cell];
        if holders == 1 {
            self.turn_to(pool);
            self.settle(pool);
        }
    }

    /// Notes that a part is gone.
    pub(super) fn release(&mut self, cell: usize) {
        let held = self.cells.get_mut(&cell).unwrap();
        held.holders -= 1;
        if held.holders == 0 {
            let Cell { pool, left, .. } = self.cells.remove(&cell).unwrap();
            let mut left = left.expect("a guard that has not left is a holder");
            left.left_by_all(&self.memory);
            self.returned(pool, left);
        }
    }

    /// Notes that a guard is gone, or has taken another buffer.
    pub(super) fn dropped(&mut self, pool: usize, mut model: GuardModel) {
        let shared = model.shared;
        if shared {
            model.leave(&self.memory);
        }
        if let Some(cell) = model.cell {
            let held = self.cells.get_mut(&cell).unwrap();
            held.holders -= 1;
            if held.holders > 0 {
                held.left = Some(model);
                return;
            }
            self.cells.remove(&cell);
        }
        if shared {
            model.left_by_all(&self.memory);
        }
        self.returned(pool, model);
    }

    /// Whether parts hold a guard's buffer. The guard notes the result, too.
    pub(super) fn is_shared(&mut self, at: usize) -> bool {
        let model = &mut self.guards[at].model;
        if model.shared {
            model.shared = self.cells[&model.cell.unwrap()].holders > 1;
        }
        model.shared
    }

    // ---- guards that share ----

    /// Notes that a guard has taken a fresh buffer, and left its own to the parts.
    pub(super) fn must_have_moved_on(&mut self, at: usize, additional: usize, room: Room) {
        let model = &self.guards[at].model;
        let (needed, capacity) = (model.view.contents.len() + additional, model.capacity);
        let request = match needed <= capacity - capacity / 3 {
            true => capacity,
            false => self.growth(at, additional, room),
        };
        let asked = match room {
            Room::Tried => Asked::ForZeros,
            Room::Asked => Asked::ByUser,
            _ => self.asks_as_before(at, request),
        };
        self.moved_on_to(at, request, asked);
    }

    fn asks_as_before(&self, at: usize, request: usize) -> Asked {
        let Guard { model, pool, .. } = &self.guards[at];
        let as_large = request == model.capacity;
        match as_large && model.asked || request > self.pools[*pool].largest() {
            true => Asked::ByUser,
            false => Asked::ToGrow,
        }
    }

    fn moved_on_to(&mut self, at: usize, request: usize, asked: Asked) {
        let (me, guard) = (self.me(), &mut self.guards[at]);
        let contents = guard.model.view.contents.clone();
        let pool = guard.pool;
        let seen = Seen {
            behind: self.behind,
            ..Seen::all(&guard.real)
        };
        let mut fresh = self.pools[pool].took(&mut self.memory, me, &seen, request, asked);
        fresh.view.contents = contents;
        let left = mem::replace(&mut guard.model, fresh);
        self.pools[pool].moved_on(&left);
        self.turn_is_over(pool);
        self.dropped(pool, left);
    }

    /// Notes that a guard's `BytesMut` is lent.
    pub(super) fn lend(&mut self, at: usize) {
        self.observe(at);
        let _lent: &mut BytesMut = &mut self.guards[at].real;
        self.must_have_left_parts(at);
        let memory = &self.memory;
        self.guards[at].model.lend(memory);
    }

    fn must_have_left_parts(&mut self, at: usize) {
        if self.is_shared(at) {
            let model = &self.guards[at].model;
            let request = model.view.contents.len().max(model.capacity);
            let asked = self.asks_as_before(at, request);
            self.moved_on_to(at, request, asked);
        }
    }

    pub(super) fn detach(&mut self, at: usize) {
        self.observe(at);
        // Checked before the contents are taken out: a shared guard moves to a fresh buffer first.
        let is_shared = self.is_shared(at);
        let Guard {
            real,
            mut model,
            pool,
        } = self.guards.swap_remove(at);
        let own = real.detach();
        if is_shared {
            let request = model.view.contents.len().max(model.capacity);
            let as_large = request == model.capacity;
            let asked = match as_large && model.asked || request > self.pools[pool].largest() {
                true => Asked::ByUser,
                false => Asked::ToGrow,
            };
            let mut fresh = self.took(pool, &Seen::all(&own), request, asked);
            fresh.view.contents = model.view.contents.clone();
            let left = mem::replace(&mut model, fresh);
            self.pools[pool].moved_on(&left);
            self.dropped(pool, left);
        }
        if let Some(cell) = model.cell {
            self.cells.remove(&cell);
        }
        self.pools[pool].detached(&model);
        self.detached(own, model.view);
    }

    // ---- cut off ----

    /// `split_to` on the model of a guard. Returns the bytes, and the number of their buffer.
    fn split_model(&mut self, at: usize, count: usize) -> (Vec<u8>, usize) {
        let memory = &self.memory;
        let Guard { model, pool, .. } = &mut self.guards[at];
        model.note_before_consuming(memory);
        model.shared = true;
        model.view.offset += count;
        model.view.capacity -= count;
        let contents: Vec<u8> = model.view.contents.drain(..count).collect();
        let pool = *pool;
        let known = self.guards[at].model.cell;
        let cell = self.cell_of(pool, known);
        self.guards[at].model.cell = Some(cell);
        self.join(cell);
        (contents, cell)
    }

    pub(super) fn cut_to(&mut self, guard: usize, count: usize, keep: bool) {
        let Some(at) = round(guard, self.guards.len()) else {
            return;
        };
        let real = &mut self.guards[at].real;
        let (len, count) = (real.len(), count % (real.len() + 1));
        let piece = match count == len {
            true => real.split(),
            false => real.split_to(count),
        };
        self.cut_from(at, piece, count, keep);
    }

    /// Notes that the first `count` bytes of a guard were cut off.
    fn cut_from(&mut self, at: usize, real: PooledBytes, count: usize, keep: bool) {
        if count == 0 {
            assert!(real.is_empty() && real.is_unique());
            return;
        }
        let (contents, cell) = self.split_model(at, count);
        self.got_piece(real, contents, cell, keep);
    }

    fn got_piece(&mut self, real: PooledBytes, contents: Vec<u8>, cell: usize, keep: bool) {
        assert_eq!(real[..], contents);
        if keep && self.pieces.len() < PIECES_MAX {
            let cell = Some(cell);
            self.pieces.push(Piece {
                real,
                contents,
                cell,
            });
        } else {
            self.before_release(cell);
            drop(real);
            self.release(cell);
        }
    }

    pub(super) fn copy_to_bytes(&mut self, guard: usize, count: usize, keep: bool) {
        let Some(at) = round(guard, self.guards.len()) else {
            return;
        };
        let real = &mut self.guards[at].real;
        let count = count % (real.len() + 1);
        let bytes = real.copy_to_bytes(count);
        if count == 0 {
            return assert!(bytes.is_empty());
        }
        let (contents, cell) = self.split_model(at, count);
        assert_eq!(bytes[..], contents);
        if keep {
            let slices = vec![(bytes, contents)];
            self.frozen.push(Frozen { slices, cell });
        } else {
            drop(bytes);
            self.release(cell);
        }
    }

    pub(super) fn cut_off(&mut self, guard: usize, from: usize, keep: bool) {
        let Some(at) = round(guard, self.guards.len()) else {
            return;
        };
        let Guard { real, model, pool } = &mut self.guards[at];
        let (len, pool) = (real.len(), *pool);
        let from = from % (len + 1);
        if from == len {
            let piece = real.split_off(from);
            assert!(piece.is_empty() && piece.is_unique());
        } else if from == 0 {
            let piece = real.split_off(0);
            self.cut_from(at, piece, len, keep);
        } else if len - from <= from {
            self.observe(at);
            let piece = self.guards[at].real.split_off(from);
            let tail = self.took(pool, &Seen::contents(&piece), len - from, Asked::ByUser);
            let model = &mut self.guards[at].model;
            let contents = model.view.contents[from..].to_vec();
            model.note_used(&self.memory);
            model.view.contents.truncate(from);
            self.froze(pool, tail, contents, piece, keep);
        } else if from <= model.capacity {
            self.observe(at);
            let piece = self.guards[at].real.split_off(from);
            let request = self.guards[at].model.capacity;
            let me = self.me();
            let guard = &mut self.guards[at];
            let seen = Seen::all(&guard.real);
            let asked = Asked::ByUser;
            let mut head = self.pools[pool].took(&mut self.memory, me, &seen, request, asked);
            head.view.contents = guard.model.view.contents[..from].to_vec();
            let mut rest = mem::replace(&mut guard.model, head);
            rest.note_before_consuming(&self.memory);
            rest.view.offset += from;
            rest.view.capacity -= from;
            let contents = rest.view.contents.split_off(from);
            self.turn_is_over(pool);
            self.froze(pool, rest, contents, piece, keep);
        } // Otherwise the head grows at once, unseen.
    }

    // ---- frozen ----

    /// Notes that a guard with these contents was frozen.
    fn froze(
        &mut self,
        pool: usize,
        mut model: GuardModel,
        contents: Vec<u8>,
        real: PooledBytes,
        keep: bool,
    ) {
        model.view.contents.clone_from(&contents);
        self.memory.note_written(&model.view);
        model.leave(&self.memory);
        let cell = self.cell_of(pool, model.cell);
        model.cell = Some(cell);
        self.cells.get_mut(&cell).unwrap().left = Some(model);
        self.got_piece(real, contents, cell, keep);
    }

    pub(super) fn freeze(&mut self, guard: usize) {
        let Some(at) = round(guard, self.guards.len()) else {
            return;
        };
        self.observe(at);
        self.settle(self.guards[at].pool);
        let Guard { real, model, pool } = self.guards.swap_remove(at);
        let (is_empty, piece) = (real.is_empty(), real.freeze());
        if is_empty {
            assert!(piece.is_unique());
            return self.dropped(pool, model);
        }
        let contents = model.view.contents.clone();
        self.froze(pool, model, contents, piece, true);
    }

    pub(super) fn freeze_compact(&mut self, guard: usize) {
        let Some(at) = round(guard, self.guards.len()) else {
            return;
        };
        let Guard { real, model, pool } = &self.guards[at];
        let (len, pool) = (real.len(), *pool);
        if len == 0 {
            return; // its intermediate states cannot be seen
        }
        let percent = usize::from(self.pools[pool].options.compact_below);
        let shrinks = len * 100 < model.whole_capacity() * percent && self.shrinks(at);
        self.before_exchange(at);
        let Guard { real, model, pool } = self.guards.swap_remove(at);
        let piece = real.freeze_compact();
        let contents = model.view.contents.clone();
        let model = match shrinks {
            true => {
                let smaller = self.took(pool, &Seen::contents(&piece), len, Asked::ByUser);
                self.dropped(pool, model);
                smaller
            }
            false => model,
        };
        self.froze(pool, model, contents, piece, true);
    }

    pub(super) fn shrink_to_fit(&mut self, guard: usize) {
        let Some(at) = round(guard, self.guards.len()) else {
            return;
        };
        let shrinks = self.shrinks(at);
        self.before_exchange(at);
        self.guards[at].real.shrink_to_fit();
        if shrinks {
            let (me, guard) = (self.me(), &mut self.guards[at]);
            let (pool, len) = (guard.pool, guard.real.len());
            let (seen, asked) = (Seen::all(&guard.real), Asked::ByUser);
            let mut smaller = self.pools[pool].took(&mut self.memory, me, &seen, len, asked);
            smaller.view.contents = guard.model.view.contents.clone();
            let old = mem::replace(&mut guard.model, smaller);
            self.turn_is_over(pool);
            self.dropped(pool, old);
        }
    }

    fn shrinks(&self, at: usize) -> bool {
        let Guard { real, model, pool } = &self.guards[at];
        self.pools[*pool].capacity_for(real.len()) < model.whole_capacity()
    }

    /// Must run before a buffer is taken and another one returns.
    fn before_exchange(&mut self, at: usize) {
        self.observe(at);
        let pool = self.guards[at].pool;
        if self.pools[pool].may_trim_unseen_after_a_miss() {
            self.free_idle(pool, false);
        }
    }

    // ---- pieces ----

    pub(super) fn on_piece(&mut self, piece: usize, what: OnPiece, at: usize) {
        let Some(place) = round(piece, self.pieces.len()) else {
            return;
        };
        let Piece {
            real,
            contents,
            cell,
        } = &mut self.pieces[place];
        let (len, cell) = (contents.len(), *cell);
        let at = at % (len + 1);
        if let Some(cell) = cell {
            let alone = self.cells[&cell].holders == 1;
            assert_eq!(real.is_unique(), alone, "whether others hold it");
        }
        let new = match what {
            OnPiece::Clone => (real.clone(), contents.clone(), cell),
            OnPiece::Slice => {
                let end = at + (len - at).div_ceil(2);
                let part = contents[at..end].to_vec();
                let cell = cell.filter(|_| !part.is_empty());
                (real.slice(at..end), part, cell)
            }
            OnPiece::SplitTo => {
                let part: Vec<u8> = contents.drain(..at).collect();
                let cut = real.split_to(at);
                if at == len {
                    // The whole part, with its hold.
                    let taken = self.pieces[place].cell.take();
                    return self.add_piece(cut, part, taken);
                }
                (cut, part, cell.filter(|_| at > 0))
            }
            OnPiece::SplitOff => {
                let part = contents.split_off(at);
                let cut = real.split_off(at);
                if at == 0 {
                    let taken = self.pieces[place].cell.take();
                    return self.add_piece(cut, part, taken);
                }
                (cut, part, cell.filter(|_| at < len))
            }
            OnPiece::Truncate => {
                real.truncate(at);
                return contents.truncate(at);
            }
            OnPiece::Advance => {
                real.advance(at);
                return drop(contents.drain(..at));
            }
            OnPiece::Clear => {
                if let Some(cell) = cell {
                    self.before_release(cell);
                }
                let Piece {
                    real,
                    contents,
                    cell,
                } = &mut self.pieces[place];
                real.clear();
                contents.clear();
                if let Some(cell) = cell.take() {
                    self.release(cell);
                }
                return;
            }
            OnPiece::Drop | OnPiece::IntoBytes => {
                if let Some(cell) = cell {
                    self.before_release(cell);
                }
                let Piece {
                    real,
                    contents,
                    cell,
                } = self.pieces.swap_remove(place);
                let keeps = what == OnPiece::IntoBytes && !contents.is_empty();
                match (keeps, cell) {
                    (true, Some(cell)) => {
                        let slices = vec![(Bytes::from(real), contents)];
                        return self.frozen.push(Frozen { slices, cell });
                    }
                    _ if what == OnPiece::IntoBytes => assert!(Bytes::from(real).is_empty()),
                    _ => drop(real),
                }
                if let Some(cell) = cell {
                    self.release(cell);
                }
                return;
            }
            OnPiece::IntoMut => return self.thaw(place),
        };
        let (real, contents, cell) = new;
        if let Some(cell) = cell {
            self.join(cell);
        }
        self.add_piece(real, contents, cell);
    }

    fn add_piece(&mut self, real: PooledBytes, contents: Vec<u8>, cell: Option<usize>) {
        assert_eq!(real[..], contents);
        self.pieces.push(Piece {
            real,
            contents,
            cell,
        });
        if self.pieces.len() > PIECES_MAX {
            let last = self.pieces.len() - 1;
            self.on_piece(last, OnPiece::Drop, 0);
        }
    }

    fn thaw(&mut self, place: usize) {
        if self.guards.len() >= GUARDS_MAX {
            return;
        }
        let Piece {
            real,
            contents,
            cell,
        } = self.pieces.swap_remove(place);
        let start = real.as_ptr().addr();
        let thawed = real.try_into_mut();
        let last = cell.filter(|cell| self.cells[cell].holders == 1);
        let memory = &self.memory;
        let shows = last.is_some_and(|cell| {
            let left = self.cells.get_mut(&cell).unwrap().left.as_mut();
            left.expect("alone").show(memory, start, &contents)
        });
        assert_eq!(
            thawed.is_ok(),
            shows,
            "a part that is alone is a guard again"
        );
        match thawed {
            Ok(real) => {
                let held = self.cells.get_mut(&cell.unwrap()).unwrap();
                let (model, pool) = (held.left.take().unwrap(), held.pool);
                self.guards.push(Guard { real, model, pool });
            }
            Err(real) => self.pieces.push(Piece {
                real,
                contents,
                cell,
            }),
        }
    }

    // ---- the comparisons ----

    /// The bytes of each buffer that parts hold, except those that a guard covers.
    pub(super) fn ranges_of_cells(&self) -> impl Iterator<Item = (usize, usize)> {
        self.cells.iter().map(|(&number, cell)| {
            let pieces = self
                .pieces
                .iter()
                .filter(|piece| piece.cell == Some(number));
            let pieces = pieces.map(|piece| &piece.real[..]);
            let frozen = self.frozen.iter().filter(|frozen| frozen.cell == number);
            let frozen = frozen.flat_map(|frozen| frozen.slices.iter().map(|(real, _)| &real[..]));
            let bytes = pieces.chain(frozen).filter(|bytes| !bytes.is_empty());
            let range = |bytes: &[u8]| (bytes.as_ptr().addr(), bytes.as_ptr().addr() + bytes.len());
            let of_view = |view: &View| {
                let start = self.memory.address(view);
                (start, start + view.capacity)
            };
            let left = cell.left.iter().map(|left| of_view(&left.view));
            let all = bytes.map(range).chain(left);
            let (start, end) = all.fold((usize::MAX, 0), |(start, end), range| {
                (range.0.min(start), range.1.max(end))
            });
            (start, end.saturating_sub(start))
        })
    }
}
