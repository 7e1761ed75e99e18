//! Where a server's objects come from: all that differs between the modes.

use std::ops::DerefMut;
use tierpool::{ObjectPool, Pooled};

/// Makes a new object for each user.
pub struct Fresh<T>(pub fn() -> T);

pub trait Objects<T>: Clone + Send + Sync + 'static {
    type Guard: DerefMut<Target = T> + Send + 'static;

    fn object(&self) -> Self::Guard;
}

impl<T> Clone for Fresh<T> {
    fn clone(&self) -> Self {
        Fresh(self.0)
    }
}

impl<T: Send + 'static> Objects<T> for Fresh<T> {
    type Guard = Box<T>;

    fn object(&self) -> Box<T> {
        Box::new(self.0())
    }
}

impl<T: Send + 'static> Objects<T> for ObjectPool<T> {
    type Guard = Pooled<T>;

    fn object(&self) -> Pooled<T> {
        self.get()
    }
}
