//! The pool that all crates of a program share. Owns the one static handle, and who made it.

use crate::builder::Builder;
use crate::error::ConfigError;
use crate::pool::Pool;
use std::error::Error;
use std::fmt;
use std::sync::OnceLock;

/// The shared pool, and how it was made.
struct Global {
    pool: Pool,
    was_set: bool,
}

static GLOBAL: OnceLock<Global> = OnceLock::new();

/// Returns the pool that all crates of the program share.
///
/// The first call makes it: with the options of [`set_global`] if that came before, otherwise with the
/// default options. It is the pool for a library whose users should not have to pass one. All such
/// libraries then share one budget, and each finds buffers that another one has dropped.
///
/// Its users see each other's counters, and compete for its budget. A crate that handles secrets should
/// build a separate pool, with [`zero_on_return`](Builder::zero_on_return).
///
/// # When it ends
///
/// Never. It is in a static, so no handle is the last one. Its idle memory goes back by
/// [trims](Pool::trim) and [`Pool::clear`], not at the end of the process. It works in the destructors of
/// thread-locals and in `atexit` handlers. Leak checkers find its memory reachable from a static.
///
/// # Cost
///
/// A load and a comparison. A hit in the thread's cache costs the same as through a handle.
///
/// # Panics
///
/// - If the first call finds no memory, the process ends, as with [`Pool::new`].
///
/// ```
/// let mut buf = tierpool::global().get(3000);
/// buf.extend_from_slice(b"hello");
/// drop(buf);
/// assert_eq!(tierpool::global().get(4000).capacity(), 4096); // the same buffer again
/// assert_eq!(tierpool::global().stats().total.local_hits, 1);
/// ```
#[inline]
pub fn global() -> &'static Pool {
    match GLOBAL.get() {
        Some(global) => &global.pool,
        None => first(),
    }
}

#[cold]
#[inline(never)]
fn first() -> &'static Pool {
    let by_default = || Global {
        pool: Pool::new(),
        was_set: false,
    };
    &GLOBAL.get_or_init(by_default).pool
}

/// Makes the [shared pool](global) with these options, and returns it.
///
/// Call it once, early in `main`: before threads start, and before any library uses the pool. Libraries
/// leave it to the program.
///
/// # Errors
///
/// The shared pool stays as it is, or is still to be made:
///
/// - [`SetGlobalError::AlreadySet`] if `set_global` has made it.
/// - [`SetGlobalError::AlreadyUsed`] if [`global`] has made it, with the default options.
/// - [`SetGlobalError::Config`] if [`Builder::build`] refuses the options.
///
/// ```
/// use tierpool::{Pool, SetGlobalError};
///
/// let pool = tierpool::set_global(Pool::builder().max_size(64 << 10))?;
/// assert_eq!(pool.classes(), tierpool::global().classes());
///
/// let again = tierpool::set_global(Pool::builder());
/// assert!(matches!(again, Err(SetGlobalError::AlreadySet)));
/// # Ok::<(), tierpool::SetGlobalError>(())
/// ```
pub fn set_global(builder: Builder) -> Result<&'static Pool, SetGlobalError> {
    let refuse = |global: &Global| match global.was_set {
        true => SetGlobalError::AlreadySet,
        false => SetGlobalError::AlreadyUsed,
    };
    if let Some(global) = GLOBAL.get() {
        return Err(refuse(global));
    }
    let mut made = Some(builder.build().map_err(SetGlobalError::Config)?);
    let global = GLOBAL.get_or_init(|| Global {
        pool: made.take().expect("called once"),
        was_set: true,
    });
    match made {
        None => Ok(&global.pool),
        // Another thread came first. What was made here is dropped.
        Some(_) => Err(refuse(global)),
    }
}

/// Tells why [`set_global`] did not make the shared pool.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SetGlobalError {
    /// An earlier call of [`set_global`] has made it.
    AlreadySet,
    /// A call of [`global`] has made it, with the default options.
    AlreadyUsed,
    /// [`Builder::build`] refused the options.
    ///
    /// [`source`](Error::source) returns its error.
    Config(ConfigError),
}

impl fmt::Display for SetGlobalError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::AlreadySet => {
                "the shared pool is set already: it is made once; call set_global in one place"
            }
            Self::AlreadyUsed => {
                "the shared pool is in use already, with the default options: it is made once; call \
                 set_global before anything calls global"
            }
            Self::Config(_) => "the options for the shared pool are refused",
        })
    }
}

impl Error for SetGlobalError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Config(error) => Some(error),
            _ => None,
        }
    }
}
