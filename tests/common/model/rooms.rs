//! Rooms that are lent for writing, and zeros that need not be written.
//!
//! Owns the bytes that are written to a room, and the bytes that must be in it before.

use super::op::Filled;
use super::pool::Asked;
use super::world::{Room, World, round};
use bytes::BufMut;
use std::fs::File;
use std::io;
use std::panic::{self, AssertUnwindSafe};

/// The most bytes that are written to a chunk or a room without being announced.
const UNANNOUNCED: usize = 7;

/// The most zeros that a guard gets, since all of them are compared.
const ZEROS_MAX: usize = 5000;

/// A file that always exists: this program's own.
fn file() -> Option<File> {
    // Miri has no files.
    match cfg!(unix) && !cfg!(miri) {
        true => File::open(std::env::current_exe().ok()?).ok(),
        false => None,
    }
}

impl World {
    pub(super) fn get_zeroed(&mut self, pool: usize, size: usize) {
        let size = size % ZEROS_MAX;
        let taken = self.take(pool, size, Asked::ForZeros, |pool| pool.get_zeroed(size));
        if let Some(guard) = taken {
            assert!(guard.real.len() == size && guard.real.iter().all(|&byte| byte == 0));
            self.guards.push(guard);
            self.appended_zeros(self.guards.len() - 1, size);
        }
    }

    pub(super) fn resize_zero(&mut self, guard: usize, len: usize) {
        let Some(at) = round(guard, self.guards.len()) else {
            return;
        };
        let before = self.observe(at);
        let guard = &mut self.guards[at];
        let more = len.checked_sub(guard.real.len());
        guard.real.resize(len, 0);
        match more {
            Some(more) => {
                self.guard_needed(at, more, Room::Appended, before);
                self.appended_zeros(at, more);
            }
            None => {
                guard.model.note_used(&self.memory);
                guard.model.view.contents.truncate(len);
            }
        }
    }

    fn appended_zeros(&mut self, at: usize, count: usize) {
        let memory = &self.memory;
        let model = &mut self.guards[at].model;
        let knows = model.knows_zeros(memory);
        if knows {
            model.lend_room(memory, count);
        }
        let len = model.view.contents.len();
        model.view.contents.resize(len + count, 0);
        if knows {
            model.note_appended(memory);
        }
    }

    /// Lends a room. Announces `len` of its bytes, if any.
    pub(super) fn fill_with(&mut self, guard: usize, room: usize, len: usize, how: Filled) {
        let room = room % ZEROS_MAX;
        let written = len.min(room);
        let scribbled = (written + UNANNOUNCED).min(room);
        let bytes = self.bytes(scribbled);
        let Some(at) = round(guard, self.guards.len()) else {
            return;
        };
        let before = self.observe(at);
        let options = &self.pools[self.guards[at].pool].options;
        let reuses = options.reuse_initialised && !options.zero_on_return;
        let file = (how == Filled::Read).then(file).flatten();
        let real = &mut self.guards[at].real;
        #[cfg(unix)]
        if let Some(file) = file {
            let written = real
                .read_at(&file, room, len as u64)
                .expect("it can be read");
            let contents = real[real.len() - written..].to_vec();
            self.guard_needed(at, room, Room::Appended, before);
            let memory = &self.memory;
            let model = &mut self.guards[at].model;
            model.lend_unseen();
            model.lend_room(memory, room);
            if !reuses {
                model.note_room_written(memory, room, written);
            }
            model.view.contents.extend_from_slice(&contents);
            return model.note_appended(memory);
        }
        #[cfg(not(unix))]
        drop(file);
        let filled = panic::catch_unwind(AssertUnwindSafe(|| {
            real.fill_with(room, |lent| {
                assert_eq!(lent.len(), room);
                let is_zero = lent.iter().all(|&byte| byte == 0);
                assert!(is_zero || reuses, "a room is zeroed");
                lent[..scribbled].copy_from_slice(&bytes);
                match how {
                    Filled::Failed => Err(io::ErrorKind::WouldBlock.into()),
                    // No hook is called: the fuzzer's would end the process.
                    Filled::Panicked => panic::resume_unwind(Box::new(Expected)),
                    Filled::Announced | Filled::Read => Ok(written),
                }
            })
        }));
        let appended = match filled {
            Ok(Ok(count)) => {
                assert_eq!(count, written);
                true
            }
            Ok(Err(error)) => {
                assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
                false
            }
            Err(panic) if panic.is::<Expected>() => false,
            Err(panic) => panic::resume_unwind(panic),
        };
        self.behind = scribbled;
        self.guard_needed(at, room, Room::Appended, before);
        self.behind = 0;
        let model = &mut self.guards[at].model;
        model.lend_unseen();
        model.lend_room(&self.memory, room);
        self.memory.note_written_behind(&model.view, scribbled);
        if appended {
            model.view.contents.extend_from_slice(&bytes[..written]);
            model.note_appended(&self.memory);
        }
    }

    /// Writes to the spare room, if there is any.
    pub(super) fn scribble(&mut self, guard: usize, len: usize) {
        let bytes = self.bytes(len);
        let Some(at) = round(guard, self.guards.len()) else {
            return;
        };
        let guard = &mut self.guards[at];
        let spare = guard.real.spare_capacity_mut();
        let len = len.min(spare.len());
        for (to, byte) in spare.iter_mut().zip(bytes) {
            to.write(byte);
        }
        guard.model.lend_spare();
        let view = &guard.model.view;
        self.memory.note_written_behind(view, len);
    }

    /// Writes to one chunk of a guard, as a reader does that announces fewer bytes than it wrote.
    pub(super) fn fill(&mut self, at: usize, bytes: &[u8]) {
        let spare = self.observe(at);
        let real = &mut self.guards[at].real;
        let chunk = real.chunk_mut();
        let room = chunk.len();
        let len = bytes.len().saturating_sub(UNANNOUNCED).min(room);
        let scribbled = bytes.len().min(room);
        chunk[..scribbled].copy_from_slice(&bytes[..scribbled]);
        // SAFETY: the line before wrote these bytes.
        unsafe { real.advance_mut(len) };

        let mut is_beside = false;
        if spare == 0 {
            self.guards[at].model.lend_unseen();
            self.guards[at].model.note_used(&self.memory);
            let is_shared = self.is_shared(at);
            let (model, memory) = (&mut self.guards[at].model, &self.memory);
            is_beside = is_shared || !(model.use_room(memory, 64) || model.use_room(memory, 1));
        }
        let model = &mut self.guards[at].model;
        if is_beside {
            assert_eq!(room, size_of::<usize>(), "beside the buffer");
            model.probed = true;
            if len > 0 {
                self.guard_needed(at, len, Room::Probed, 0);
                self.guards[at].model.lend_chunk();
            }
        } else {
            let spare = model.view.capacity - model.view.contents.len();
            assert_eq!(room, spare, "all of the room");
            model.lend_chunk();
            self.memory.note_written_behind(&model.view, scribbled);
        }
        let contents = &mut self.guards[at].model.view.contents;
        contents.extend_from_slice(&bytes[..len]);
    }
}

/// The payload of a panic while a room is filled.
struct Expected;
