//! Options, checked once, by [`Builder::build`].
//!
//! Owns the defaults. Holds no running state.

use crate::config::Config;
use crate::error::ConfigError;
use crate::pool::Pool;
use crate::size_class::{CLASSES_MAX, SizeClasses};

/// 512: below this, the 64 bytes that each buffer costs beside its capacity
/// outweigh what finer classes would save.
const MIN_SIZE_DEFAULT: usize = 512;
/// 1 MiB: above this the work on the bytes outweighs getting the buffer.
const MAX_SIZE_DEFAULT: usize = 1 << 20;

/// Options for a [`Pool`], from [`Pool::builder`].
///
/// ```
/// use tierpool::Pool;
///
/// let pool = Pool::builder().min_size(1024).max_size(15_000).build()?;
/// assert_eq!(pool.classes(), [1024, 2048, 4096, 8192, 15_000]);
/// # Ok::<(), tierpool::ConfigError>(())
/// ```
#[derive(Clone, Debug, Default)]
#[must_use = "a builder does nothing until `build`"]
pub struct Builder {
    min_size: Option<usize>,
    max_size: Option<usize>,
    classes: Option<Vec<usize>>,
    zero_on_return: bool,
}

impl Builder {
    /// Sets the capacity of the smallest size class, in bytes.
    ///
    /// Default: 512, or `max_size` if that is set and smaller.
    ///
    /// The classes are this, twice this, four times this and so on while below
    /// [`max_size`](Self::max_size), and then `max_size` itself.
    pub fn min_size(mut self, bytes: usize) -> Self {
        self.min_size = Some(bytes);
        self
    }

    /// Sets the capacity of the largest size class, in bytes.
    ///
    /// Default: 1 MiB, or `min_size` if that is set and larger.
    ///
    /// A request above it gets a plain allocation that is freed on drop, and a
    /// buffer that grew above it is freed on drop too.
    pub fn max_size(mut self, bytes: usize) -> Self {
        self.max_size = Some(bytes);
        self
    }

    /// Sets all size classes, by their capacities in bytes, ascending; at most 128.
    ///
    /// Instead of [`min_size`](Self::min_size) and
    /// [`max_size`](Self::max_size): setting both is an error.
    ///
    /// ```
    /// use tierpool::Pool;
    ///
    /// let pool = Pool::builder().classes([512, 2048, 65_536]).build()?;
    /// assert!(pool.get(600).capacity() >= 2048);
    /// # Ok::<(), tierpool::ConfigError>(())
    /// ```
    pub fn classes(mut self, capacities: impl IntoIterator<Item = usize>) -> Self {
        // One more than may be: enough to see that there are too many, even if
        // they never end.
        self.classes = Some(capacities.into_iter().take(CLASSES_MAX + 1).collect());
        self
    }

    /// Sets whether a buffer is wiped before it can be handed to anyone else. Default: `false`.
    ///
    /// The pool never shows what a buffer held before, wiped or not. This is
    /// for those who do not want a secret to stay in memory.
    ///
    /// Of a buffer that comes home whole, what was written through the guard's
    /// own methods and traits is wiped, and no more. Through [`DerefMut`](std::ops::DerefMut) and
    /// [`chunk_mut`](bytes::BufMut::chunk_mut) (which `read_buf` of an
    /// asynchronous reader uses) the pool cannot see what is written, so a
    /// buffer that was borrowed that way is wiped over its whole capacity, as
    /// is one that was adopted, has grown or is in part still in use.
    ///
    /// A buffer that the pool frees is wiped too. Not wiped: what is
    /// [detached](crate::PooledBuf::detach), what lies in a part that was
    /// split off and is still in use, and what `BytesMut` itself frees when it
    /// grows behind `DerefMut`.
    pub fn zero_on_return(mut self, zero: bool) -> Self {
        self.zero_on_return = zero;
        self
    }

    /// Checks the options and makes the pool.
    ///
    /// Allocates no buffer.
    ///
    /// # Errors
    ///
    /// A [`ConfigError`] that names the option and its values.
    pub fn build(self) -> Result<Pool, ConfigError> {
        Ok(Pool::from_config(self.check()?))
    }

    fn check(&self) -> Result<Config, ConfigError> {
        let classes = match &self.classes {
            Some(capacities) => {
                for (field, value) in [("min_size", self.min_size), ("max_size", self.max_size)] {
                    if let Some(value) = value {
                        return Err(ConfigError::Conflict { field, value });
                    }
                }
                SizeClasses::listed(capacities)?
            }
            // A limit that was not set gives way to one that was.
            None => {
                let min = self.min_size.unwrap_or_else(|| {
                    MIN_SIZE_DEFAULT.min(self.max_size.unwrap_or(MIN_SIZE_DEFAULT).max(1))
                });
                let max = self.max_size.unwrap_or(MAX_SIZE_DEFAULT.max(min));
                SizeClasses::doubling(min, max)?
            }
        };
        Ok(Config::new(classes, self.zero_on_return))
    }
}

impl Pool {
    /// Options for a pool that differs from the default.
    pub fn builder() -> Builder {
        Builder::default()
    }
}

impl Default for Pool {
    /// Size classes from 512 bytes to 1 MiB, each twice the one before.
    fn default() -> Self {
        let config = Builder::default().check();
        Pool::from_config(config.expect("the defaults are a valid configuration"))
    }
}
