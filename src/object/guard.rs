//! A user's object, which goes home when its guard is dropped. Knows no levels.

use super::shared::Shared;
use super::{ObjectBox, ObjectOrigin};
use std::fmt;
use std::mem::ManuallyDrop;
use std::ops::{Deref, DerefMut};
use std::panic::{RefUnwindSafe, UnwindSafe};

/// An object of an [`ObjectPool`](crate::ObjectPool), which goes back to the pool when this is dropped.
///
/// It owns the object, and borrows nothing. It can be sent to another thread, and dropped there or
/// after the pool. It dereferences to the object.
///
/// ```
/// use tierpool::ObjectPool;
///
/// let pool = ObjectPool::builder(String::new).reset(String::clear).build()?;
/// let mut text = pool.get();
/// text.push_str("hello");
/// std::thread::spawn(move || drop(text)).join().unwrap(); // on any thread
/// assert_eq!(pool.get().as_str(), "");
/// assert_eq!(pool.stats().misses, 1);
/// # Ok::<(), tierpool::ConfigError>(())
/// ```
///
/// # Its drop
///
/// The dropping thread runs the pool's [`keep`](crate::ObjectPoolBuilder::keep) and
/// [`reset`](crate::ObjectPoolBuilder::reset). It drops the object if the pool does not keep it. A panic
/// in any of these ends there, after the program's panic hook has reported it. It is counted in
/// [`ObjectStats::panics`](crate::ObjectStats::panics). So the drop of a guard never panics, also not
/// while the thread unwinds. (A program with `panic = "abort"` ends.)
///
/// A guard that is passed to [`std::mem::forget`] never goes back. Its object stays outstanding, and
/// keeps the pool's own memory alive.
///
/// # Addresses, and `Pin`
///
/// The object lies alone in a heap cell. It does not move from the time when it was made until it
/// is dropped or [detached](Self::detach), except through `&mut`. The guard does not promise that to
/// others: `&mut` and `detach` may move it, so there is no access as [`Pin`](std::pin::Pin). For types that must
/// not move, make a pool of `Pin<Box<T>>`.
///
/// # Threads
///
/// It is `Send`, as its object is. It is `Sync` if its object is.
///
/// ```
/// use tierpool::Pooled;
///
/// fn is_send_and_sync<T: Send + Sync>() {}
/// is_send_and_sync::<Pooled<String>>();
/// ```
///
/// `Cell` is `Send` and not `Sync`, and so is its guard:
///
/// ```
/// use std::cell::Cell;
/// use tierpool::ObjectPool;
///
/// let guard = ObjectPool::new(|| Cell::new(1)).get();
/// std::thread::spawn(move || guard.set(2)).join().unwrap();
/// ```
///
/// ```compile_fail,E0277
/// use std::cell::Cell;
/// use tierpool::ObjectPool;
///
/// let guard = ObjectPool::new(|| Cell::new(1)).get();
/// std::thread::scope(|scope| scope.spawn(|| guard.set(2)).join().unwrap());
/// ```
#[must_use = "the object goes back at once unless you keep it"]
pub struct Pooled<T: Send + 'static> {
    /// Taken out by `drop` and `detach` only, after which no code uses the guard.
    slot: ManuallyDrop<ObjectBox<T>>,
    origin: ObjectOrigin<T>,
}

impl<T: Send + 'static> Pooled<T> {
    #[inline(always)]
    pub(super) fn new((slot, origin): (ObjectBox<T>, ObjectOrigin<T>)) -> Self {
        Pooled {
            slot: ManuallyDrop::new(slot),
            origin,
        }
    }

    /// Takes the object out of the pool for good.
    ///
    /// The pool's functions do not run.
    /// [`ObjectPool::adopt`](crate::ObjectPool::adopt) takes an object in.
    ///
    /// If the object has a method of this name, call that as `(*guard).detach()`.
    ///
    /// ```
    /// use tierpool::ObjectPool;
    ///
    /// let pool = ObjectPool::new(String::new);
    /// let text: String = pool.get().detach();
    /// assert_eq!((text.as_str(), pool.stats().outstanding), ("", 0));
    /// ```
    #[must_use = "the object is dropped at once unless you keep it"]
    pub fn detach(self) -> T {
        let mut guard = ManuallyDrop::new(self);
        // SAFETY: taken out once: the guard is not used again, and `ManuallyDrop` keeps it from
        // being dropped.
        let slot = unsafe { ManuallyDrop::take(&mut guard.slot) };
        Shared::detach(slot)
    }
}

impl<T: Send + 'static> Drop for Pooled<T> {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: dropped once, and nothing uses the guard after its drop.
        let slot = unsafe { ManuallyDrop::take(&mut self.slot) };
        Shared::release(slot, self.origin);
    }
}

impl<T: Send + 'static> Deref for Pooled<T> {
    type Target = T;

    #[inline(always)]
    fn deref(&self) -> &T {
        &self.slot.value
    }
}

impl<T: Send + 'static> DerefMut for Pooled<T> {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut T {
        &mut self.slot.value
    }
}

impl<T: Send + 'static> AsRef<T> for Pooled<T> {
    fn as_ref(&self) -> &T {
        self
    }
}

impl<T: Send + 'static> AsMut<T> for Pooled<T> {
    fn as_mut(&mut self) -> &mut T {
        self
    }
}

impl<T: Send + fmt::Debug + 'static> fmt::Debug for Pooled<T> {
    /// Prints the object.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        T::fmt(self, f)
    }
}

impl<T: Send + fmt::Display + 'static> fmt::Display for Pooled<T> {
    /// Prints the object.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        T::fmt(self, f)
    }
}

// As for a `Box<T>`: a panic can leave the object half-changed, but not the pool.
impl<T: Send + UnwindSafe + 'static> UnwindSafe for Pooled<T> {}
impl<T: Send + RefUnwindSafe + 'static> RefUnwindSafe for Pooled<T> {}
