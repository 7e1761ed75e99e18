//! The threads that use an engine: their caches, and a thread's start and end.
//!
//! Owns the list of all threads' caches, and the handle to the calling thread's. Knows nothing
//! of depots.
//!
//! The list only grows: it has one entry for each thread that used the engine at the same time. A
//! thread that ends leaves its entry to the next one. So no thread waits for a lock here, and any
//! thread may walk through the list at any time.

use super::account::Account;
use super::cache::{Cache, Thread};
use super::item::{ClassIndex, ClassLimits, Item};
use super::local::{self, EngineId, ThreadExit, Token};
use super::origin::Origin;
use crate::sync::{AtomicBool, AtomicPtr, AtomicUsize, Hint, Ordering, StaticPtr};
use crate::system;
use std::iter;
use std::marker::PhantomData;
use std::ptr::{self, NonNull};
use std::sync::Weak;

/// All threads' caches, the latest first.
pub(super) struct Threads<T: Item> {
    /// The engine's id. Under it, threads remember where their caches in this list are.
    id: EngineId,
    /// The same, or an id that no thread remembers (without `quick`).
    quick: EngineId,
    first: AtomicPtr<ThreadCaches<T>>,
    /// Counts walks through the list, and threads that came and went. Each of them sees the work of
    /// the ones before it. So it never sees an older state of a cache than they did.
    visits: AtomicUsize,
    /// How many entries there are, and how many of them a thread has now.
    made: Hint,
    in_use: Hint,
}

/// Where a walk through the list has got to.
// Atomic only so that it may go from thread to thread.
pub(super) struct Cursor<T: Item>(StaticPtr<ThreadCaches<T>>);

impl<T: Item> Cursor<T> {
    /// A cursor at the end of any list.
    pub(super) fn at_end() -> Self {
        Cursor(StaticPtr::new(ptr::null_mut()))
    }
}

/// One thread's caches, one per class. Outlives the thread; another one inherits it.
pub(super) struct ThreadCaches<T: Item> {
    // Vectors: room can be reserved beforehand, and a vector that is moved does not touch its
    // elements.
    caches: Vec<Cache<T>>,
    /// One element. After the caches, which have its address, so that it ends last.
    thread: Vec<Thread<T::Notes>>,
    /// Does not change once the entry is in the list. So a model need not check it.
    next: StaticPtr<ThreadCaches<T>>,
}

impl<T: Item> ThreadCaches<T> {
    /// Caches for one thread, in use; `None` if the heap has no room for them.
    pub(super) fn new(
        limits: impl ExactSizeIterator<Item = ClassLimits>,
        weight: usize,
    ) -> Option<Box<Self>> {
        let (mut caches, mut thread) = (Vec::new(), Vec::new());
        caches.try_reserve_exact(limits.len()).ok()?;
        thread.try_reserve_exact(1).ok()?;
        thread.push(Thread {
            in_use: AtomicBool::new(true),
            account: Account::new(weight),
            notes: T::Notes::default(),
        });
        let address = NonNull::from(&thread[0]);
        caches.extend((0..).map(ClassIndex).zip(limits).map(|(class, limits)| {
            // SAFETY: it stays where it is, and is only read, until it is dropped with its
            // vector, after the caches.
            unsafe { Cache::new(class, limits, address) }
        }));
        let next = StaticPtr::new(ptr::null_mut());
        let made = ThreadCaches {
            caches,
            thread,
            next,
        };
        system::boxed(made).ok()
    }

    pub(super) fn caches(&self) -> &[Cache<T>] {
        &self.caches
    }

    pub(super) fn thread(&self) -> &Thread<T::Notes> {
        &self.thread[0]
    }
}

impl<T: Item> Threads<T> {
    /// An empty list. Unless `quick`, [`recall_quick`](Self::recall_quick) finds no caches.
    pub(super) fn new(quick: bool) -> Self {
        let id = EngineId::next();
        Threads {
            id,
            quick: if quick { id } else { EngineId::NOBODY },
            first: AtomicPtr::new(ptr::null_mut()),
            visits: AtomicUsize::new(0),
            made: Hint::new(0),
            in_use: Hint::new(0),
        }
    }

    /// All entries, the latest first.
    pub(super) fn iter(&self) -> impl Iterator<Item = &ThreadCaches<T>> {
        iter::successors(self.at(self.latest()), |thread| self.after(thread))
    }

    /// A cursor at the latest entry.
    pub(super) fn begin(&self) -> Cursor<T> {
        Cursor(StaticPtr::new(self.latest()))
    }

    /// The entries from a cursor of this list on.
    pub(super) fn from<'a>(
        &'a self,
        cursor: &Cursor<T>,
    ) -> impl Iterator<Item = &'a ThreadCaches<T>> + use<'a, T> {
        // Relaxed: the cursor is the caller's own.
        let first = self.at(cursor.0.load(Ordering::Relaxed));
        iter::successors(first, |thread| self.after(thread))
    }

    /// Moves a cursor of this list on. Returns the entry that it was at.
    pub(super) fn advance(&self, cursor: &mut Cursor<T>) -> Option<&ThreadCaches<T>> {
        self.visit();
        let thread = self.at(*cursor.0.get_mut())?;
        // Relaxed: see `after`.
        *cursor.0.get_mut() = thread.next.load(Ordering::Relaxed);
        Some(thread)
    }

    fn visit(&self) {
        // AcqRel: see `visits`.
        self.visits.fetch_add(1, Ordering::AcqRel);
    }

    fn latest(&self) -> *mut ThreadCaches<T> {
        self.visit();
        // Acquire: pairs with the Release in `add`.
        self.first.load(Ordering::Acquire)
    }

    fn after(&self, thread: &ThreadCaches<T>) -> Option<&ThreadCaches<T>> {
        // Relaxed: it was stored before `thread` was in the list.
        self.at(thread.next.load(Ordering::Relaxed))
    }

    /// The entry at an address that `add` has made, or that `latest` or an entry has given out.
    fn at(&self, address: *mut ThreadCaches<T>) -> Option<&ThreadCaches<T>> {
        // SAFETY: null, or made by `add`, which puts it into the list. It is only read, and stays
        // alive until the list is dropped, which `&self` excludes. No code outside of this file has
        // an address.
        unsafe { address.as_ref() }
    }

    /// The caches of a thread that has ended, if there are any. From now on they are in use.
    pub(super) fn inherit(&self) -> Option<&ThreadCaches<T>> {
        // Acquire: sees the last owner's work; pairs with the Release in `leave`. Relaxed: on
        // failure nothing is read.
        let inherits = |thread: &&ThreadCaches<T>| {
            let in_use = &thread.thread().in_use;
            !in_use.load(Ordering::Relaxed) // Relaxed: a look that saves the exchange
                && in_use
                    .compare_exchange(false, true, Ordering::Acquire, Ordering::Relaxed)
                    .is_ok()
        };
        let thread = self.iter().find(inherits);
        thread.inspect(|_| _ = self.in_use.add(1))
    }

    /// Adds the caches of a new thread.
    pub(super) fn add(&self, thread: Box<ThreadCaches<T>>) -> &ThreadCaches<T> {
        let added = Box::into_raw(thread);
        let thread = self.at(added).expect("a box is not null");
        // Relaxed: the address is only compared and stored here.
        let mut first = self.first.load(Ordering::Relaxed);
        loop {
            // Relaxed: the exchange publishes it.
            thread.next.store(first, Ordering::Relaxed);
            // Release: publishes the caches, and with the others' exchanges all earlier ones; pairs
            // with the Acquire in `latest`. Relaxed: as above.
            let exchange = self.first.compare_exchange_weak(
                first,
                added,
                Ordering::Release,
                Ordering::Relaxed,
            );
            match exchange {
                Ok(_) => break,
                Err(now) => first = now,
            }
        }
        self.made.add(1);
        self.in_use.add(1);
        thread
    }

    /// Leaves a thread's caches to the next one.
    pub(super) fn leave(&self, thread: &Thread<T::Notes>) {
        self.in_use.subtract(1);
        self.visit();
        // Release: pairs with the Acquire in `inherit`.
        thread.in_use.store(false, Ordering::Release);
    }

    /// Remembers that the calling thread has these caches, and `engine` to notify at its end.
    /// [`local::reserve`] has found room for that.
    pub(super) fn attach(&self, me: Token, thread: &ThreadCaches<T>, engine: Weak<dyn ThreadExit>) {
        for cache in &thread.caches {
            cache.own(me);
        }
        local::attach(me, self.id, engine, thread.caches.as_ptr().cast());
    }

    /// The calling thread's caches, if it used them lately.
    #[inline(always)]
    pub(super) fn recall(&self) -> Option<Local<'_, T>> {
        local::recall(self.id).map(|(me, caches)| self.local(me, caches))
    }

    /// As [`recall`](Self::recall), but finds none if the list was made without `quick`.
    #[inline(always)]
    pub(super) fn recall_quick(&self) -> Option<Local<'_, T>> {
        local::recall(self.quick).map(|(me, caches)| self.local(me, caches))
    }

    /// The calling thread's caches, if it has any and has not ended.
    #[inline]
    pub(super) fn find(&self) -> Option<Local<'_, T>> {
        match self.recall() {
            None => self.find_again(),
            local => local,
        }
    }

    #[cold]
    fn find_again(&self) -> Option<Local<'_, T>> {
        let _not_torn_down = Token::of_this_thread()?;
        let (me, caches) = local::find(self.id)?;
        local::remember(self.id, caches);
        Some(self.local(me, caches))
    }

    /// The calling thread's caches, at the address that [`attach`](Self::attach) remembered.
    #[inline(always)]
    pub(super) fn local(&self, me: Token, caches: *const ()) -> Local<'_, T> {
        Local {
            me,
            caches: caches.cast(),
            _threads: PhantomData,
        }
    }

    /// How many threads' caches there are.
    pub(super) fn made(&self) -> usize {
        self.made.get()
    }

    /// How many threads have caches now.
    pub(super) fn in_use(&self) -> usize {
        self.in_use.get()
    }
}

impl<T: Item> Drop for Threads<T> {
    fn drop(&mut self) {
        self.id.end();
        // Relaxed, here and below: `&mut self` proves that no other thread is here.
        let mut next = self.first.load(Ordering::Relaxed);
        while !next.is_null() {
            // SAFETY: `add` made it from a box, and the list has it once.
            let thread = unsafe { Box::from_raw(next) };
            next = thread.next.load(Ordering::Relaxed);
        }
    }
}

/// The calling thread's caches in an engine.
pub(super) struct Local<'a, T: Item> {
    pub(super) me: Token,
    /// The first of them.
    caches: *const Cache<T>,
    _threads: PhantomData<&'a Threads<T>>,
}

impl<'a, T: Item> Local<'a, T> {
    /// The thread's cache of a class, which must be one of the engine's.
    #[inline(always)]
    pub(super) fn cache(&self, class: ClassIndex) -> &'a Cache<T> {
        // SAFETY: at the address, there is one cache for each of the engine's classes. `attach`
        // gave it to `local` under the id of the list, which outlives `'a`, and with it the caches.
        unsafe { &*self.caches.add(class.get()) }
    }

    #[inline(always)]
    pub(super) fn origin(&self, class: ClassIndex) -> Origin<T> {
        Origin::new(self.cache(class), self.me)
    }

    /// The state that the thread has once, for all of its caches.
    pub(super) fn thread(&self) -> &'a Thread<T::Notes> {
        self.cache(ClassIndex(0)).thread()
    }

    /// Makes the next return to each of the thread's caches a sample, as the first one of a new
    /// interval.
    pub(super) fn restart_samples(&self, classes: usize) {
        for class in (0..classes).map(ClassIndex) {
            self.cache(class).rounds().restart_samples();
        }
    }
}
