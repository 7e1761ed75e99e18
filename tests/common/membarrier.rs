//! The scenarios of `tests/membarrier.rs`, which check the promises of `docs/memory.md`.

use super::accounts::assert_accounts_balance;
use super::forget;
use super::live::{self, live_bytes};
use bytes::BufMut;
use crossbeam_queue::ArrayQueue;
use std::os::unix::process::ExitStatusExt;
use std::process::Command;
use std::sync::{Arc, mpsc};
use std::thread;
use tierpool::{Pool, PooledBuf};

/// Names the scenario that a child process runs.
const SCENARIO: &str = "TIERPOOL_MEMBARRIER_SCENARIO";

/// Whether each step costs microseconds. It does under valgrind, where `scripts/sanitize.sh` sets
/// `--cfg slow`.
const SLOW: bool = cfg!(slow);

/// A child's exit code if the scenario is not possible here.
const CANNOT: u8 = 77;

/// How a child is expected to end.
#[derive(Clone, Copy)]
enum End {
    Well,
    /// Killed by the filter.
    BySigsys,
}

const SCENARIOS: [(&str, End, fn()); 5] = [
    ("refused from the start with EPERM", End::Well, || {
        refused_from_the_start(libc::EPERM);
    }),
    ("refused from the start with ENOSYS", End::Well, || {
        refused_from_the_start(libc::ENOSYS);
    }),
    // Otherwise the two scenarios above would not show that the pool never makes the call.
    (
        "a call that kills, after the first pool",
        End::BySigsys,
        || {
            let pool = pool();
            fill_cache(&pool, 1);
            Filter::KILL.install();
            pool.trim();
        },
    ),
    ("refused later with EPERM", End::Well, || {
        refused_later(libc::EPERM);
    }),
    ("refused later with ENOSYS", End::Well, || {
        refused_later(libc::ENOSYS);
    }),
];

pub fn main() {
    if let Ok(name) = std::env::var(SCENARIO) {
        let scenario = SCENARIOS.iter().find(|scenario| scenario.0 == name);
        live::count_here();
        return scenario.expect("a scenario's name").2();
    }
    let mut cannot = false;
    for (name, end, _) in SCENARIOS {
        let mut child = Command::new(std::env::current_exe().unwrap());
        let status = child.env(SCENARIO, name).status().unwrap();
        if status.code() == Some(CANNOT.into()) {
            println!("{name}: CANNOT BE CHECKED HERE");
            cannot = true;
            continue;
        }
        match end {
            End::Well => assert!(status.success(), "{name}: {status}"),
            End::BySigsys => assert_eq!(status.signal(), Some(libc::SIGSYS), "{name}: {status}"),
        }
        println!("{name}: ok");
    }
    if cannot && std::env::var_os("TIERPOOL_SKIP_SECCOMP").is_none() {
        eprintln!(
            "membarrier could not be refused here, so what the pool does then is not checked. \
             To pass without these checks, set TIERPOOL_SKIP_SECCOMP=1."
        );
        std::process::exit(1);
    }
}

// ---- the filter ----

/// The result of the two `membarrier` calls that the pool makes, and of all other calls.
struct Filter {
    register: u32,
    others: u32,
}

impl Filter {
    const KILL: Filter = Filter {
        register: libc::SECCOMP_RET_KILL_PROCESS,
        others: libc::SECCOMP_RET_KILL_PROCESS,
    };

    const fn refuse(error: i32) -> u32 {
        libc::SECCOMP_RET_ERRNO | error as u32
    }

    /// Installs the filter for all threads of this process, for good. If that fails, ends the
    /// process with [`CANNOT`].
    fn install(self) {
        // Offsets in `struct seccomp_data`: the call's number, and the low half of its first
        // argument.
        const NUMBER: u32 = 0;
        const COMMAND: u32 = if cfg!(target_endian = "little") {
            16
        } else {
            20
        };
        let load = |from| op(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, from, 0, 0);
        let unless_equal = |to: u32, skip| {
            let code = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
            op(code, to, 0, skip)
        };
        let answer = |what| op(libc::BPF_RET | libc::BPF_K, what, 0, 0);
        let mut program = [
            load(NUMBER),
            unless_equal(libc::SYS_membarrier as u32, 4),
            load(COMMAND),
            unless_equal(libc::MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED as u32, 1),
            answer(self.register),
            answer(self.others),
            answer(libc::SECCOMP_RET_ALLOW),
        ];
        let program = libc::sock_fprog {
            len: program.len() as u16,
            filter: program.as_mut_ptr(),
        };
        // SAFETY: takes numbers only.
        let done = unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) } == 0
            // SAFETY: `program` and the filter that it points to live as long as the call, which
            // copies them.
            && unsafe {
                libc::syscall(
                    libc::SYS_seccomp,
                    libc::SECCOMP_SET_MODE_FILTER,
                    libc::SECCOMP_FILTER_FLAG_TSYNC,
                    &program,
                )
            } == 0;
        if !done {
            let error = std::io::Error::last_os_error();
            cannot(&format!("no seccomp filter can be installed: {error}"));
        }
    }
}

fn op(code: u32, k: u32, jt: u8, jf: u8) -> libc::sock_filter {
    libc::sock_filter {
        code: code as u16,
        jt,
        jf,
        k,
    }
}

fn membarrier(command: libc::c_int) -> Result<(), i32> {
    // SAFETY: takes numbers only.
    match unsafe { libc::syscall(libc::SYS_membarrier, command, 0, 0) } {
        0 => Ok(()),
        _ => Err(std::io::Error::last_os_error().raw_os_error().unwrap()),
    }
}

fn cannot(why: &str) -> ! {
    eprintln!("{why}");
    std::process::exit(CANNOT.into());
}

/// A thread whose allocations are counted, whichever thread frees them.
fn counted<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> thread::JoinHandle<T> {
    live::counted(thread::Builder::new(), work)
}

// ---- pools ----

const CAPACITY: usize = 4096;

/// The buffers in a magazine of this class; a full cache holds `CACHE`.
const MAGAZINE: usize = 32;
const CACHE: usize = 64;

fn pool() -> Pool {
    Pool::builder()
        .classes([256, CAPACITY])
        .trim_interval(None)
        .build()
        .unwrap()
}

fn fill_cache(pool: &Pool, buffers: usize) {
    let held: Vec<PooledBuf> = (0..buffers).map(|_| pool.get(CAPACITY)).collect();
    drop(held);
}

fn retained(pool: &Pool) -> u64 {
    pool.stats().total.retained_buffers
}

/// A thread that has filled its caches and then waits until it may end.
struct Resting {
    end: mpsc::Sender<()>,
    thread: thread::JoinHandle<()>,
}

impl Resting {
    fn after(work: impl FnOnce() + Send + 'static) -> Self {
        let (did, is_done) = mpsc::channel();
        let (end, may_end) = mpsc::channel();
        let thread = counted(move || {
            work();
            did.send(()).unwrap();
            may_end.recv().unwrap();
        });
        is_done.recv().unwrap();
        Resting { end, thread }
    }

    fn end(self) {
        self.end.send(()).unwrap();
        self.thread.join().unwrap();
    }
}

// ---- all operations at once ----

/// A guard whose contents show that no other thread wrote to it.
struct Stamped {
    buf: PooledBuf,
    stamp: u8,
}

impl Stamped {
    fn new(mut buf: PooledBuf, stamp: u8, len: usize) -> Self {
        assert!(buf.is_empty());
        buf.put_bytes(stamp, len);
        Stamped { buf, stamp }
    }

    fn verify(self) {
        let mine = self.buf.iter().all(|&byte| byte == self.stamp);
        assert!(mine, "two owners of one buffer");
    }
}

/// Threads get, drop elsewhere, trim, clear and end, while others begin. In every second round, the
/// last handle is dropped while they run.
///
/// If the last handle `leaks`, one guard of each pool is kept. Through it, a leak checker reaches
/// all leaked buffers.
fn everything_at_once(rounds: usize, leaks: bool) {
    const THREADS: usize = 4;
    const STEPS: usize = if SLOW { 40 } else { 1500 };
    for round in 0..rounds {
        let pool = pool();
        let kept = u64::from(leaks);
        if leaks {
            forget::forget(pool.get(1));
        }
        let mail = Arc::new(ArrayQueue::<Stamped>::new(64));
        let work = |pool: Pool, mail: Arc<ArrayQueue<Stamped>>, thread: usize| {
            let mut held = Vec::new();
            for step in 0..STEPS {
                let stamp = (thread * 50 + step % 50) as u8;
                let len = [10, 200, 300, 4000, 5000][(step * 7 + thread) % 5];
                let one = Stamped::new(pool.get(len), stamp, len);
                match step % 3 {
                    0 => held.push(one),
                    1 => drop(mail.push(one).map_err(Stamped::verify)),
                    _ => one.verify(),
                }
                if step % 5 == 0 {
                    mail.pop().into_iter().for_each(Stamped::verify);
                }
                if step % 90 == 89 {
                    held.drain(..).for_each(Stamped::verify);
                }
                match (step + 31 * thread) % 120 {
                    0 => drop(pool.trim()),
                    60 => drop(pool.clear()),
                    _ => {}
                }
            }
            drop(pool); // may be the last handle
            held.into_iter().for_each(Stamped::verify);
        };
        let threads: Vec<_> = (0..THREADS)
            .map(|thread| {
                let (pool, mail) = (pool.clone(), Arc::clone(&mail));
                counted(move || {
                    if thread == 0 {
                        // The next thread begins when this one ends.
                        let (pool, mail) = (pool.clone(), Arc::clone(&mail));
                        let end = thread + THREADS;
                        work(pool.clone(), Arc::clone(&mail), thread);
                        return Some(counted(move || work(pool, mail, end)));
                    }
                    work(pool, mail, thread);
                    None
                })
            })
            .collect();
        let handle = (round % 2 == 0).then_some(pool);
        for thread in threads {
            let next = thread.join().unwrap();
            next.into_iter().for_each(|next| next.join().unwrap());
        }
        while let Some(one) = mail.pop() {
            one.verify();
        }
        if let Some(pool) = handle {
            assert_accounts_balance(&pool);
            assert_eq!(pool.stats().total.outstanding, kept);
        }
    }
}

// ---- from the start ----

/// `membarrier` is forbidden from the start: everything works.
fn refused_from_the_start(error: i32) {
    // Registering is refused. A process that calls the barrier anyway is killed.
    let filter = Filter {
        register: Filter::refuse(error),
        others: libc::SECCOMP_RET_KILL_PROCESS,
    };
    filter.install();
    let register = libc::MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED;
    assert_eq!(membarrier(register), Err(error), "the filter works");

    let pool = pool();
    fill_cache(&pool, 3);
    let other = Resting::after({
        let pool = pool.clone();
        move || fill_cache(&pool, 20)
    });
    assert_eq!(retained(&pool), 23);
    // As on a system with `membarrier`: trims reach the caches of all threads.
    assert_eq!((pool.trim().buffers, pool.trim().buffers), (0, 23));
    assert_eq!(retained(&pool), 0);
    assert_accounts_balance(&pool);
    other.end();

    // The last handle reaches the cache of a blocked thread as well.
    let before = live_bytes();
    let other = Resting::after({
        let pool = pool.clone();
        move || {
            fill_cache(&pool, 20);
            drop(pool);
        }
    });
    fill_cache(&pool, 3);
    assert!(live_bytes() - before >= 20 * CAPACITY as i64);
    drop(pool);
    let left = live_bytes() - before;
    assert!(left < CAPACITY as i64, "{left} bytes are left");
    other.end();

    // On a new thread: a thread keeps a few words for pools that are gone.
    let all_at_once = || counted(|| everything_at_once(2, false)).join().unwrap();
    all_at_once(); // allocates the process-wide data
    let before = live_bytes();
    for round in 0..if SLOW { 1 } else { 6 } {
        all_at_once();
        assert_eq!(live_bytes(), before, "after round {round}");
    }
}

// ---- later ----

/// A sandbox forbids `membarrier` after the first pool was made: trims reach the depot only, and
/// the last handle's drop leaks the buffers in thread caches.
fn refused_later(error: i32) {
    let register = libc::MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED;
    if let Err(error) = membarrier(register) {
        let error = std::io::Error::from_raw_os_error(error);
        cannot(&format!("this kernel has no membarrier: {error}"));
    }
    // A pool from before the filter, with filled caches, after one trim.
    let old = pool();
    fill_cache(&old, 10);
    old.trim();
    let other = Resting::after({
        let pool = old.clone();
        move || {
            fill_cache(&pool, CACHE + MAGAZINE); // one more magazine, which is in the depot
            drop(pool);
        }
    });
    let filter = Filter {
        register: Filter::refuse(error),
        others: Filter::refuse(error),
    };
    filter.install();
    let expedited = libc::MEMBARRIER_CMD_PRIVATE_EXPEDITED;
    assert_eq!(membarrier(expedited), Err(error), "the filter works");

    // Trims and clears reach the depot only.
    let in_caches = (10 + CACHE) as u64;
    assert_eq!(retained(&old), in_caches + MAGAZINE as u64);
    let trimmed = (old.trim().buffers, old.trim().buffers);
    assert_eq!(
        (trimmed.0 + trimmed.1, retained(&old)),
        (MAGAZINE, in_caches)
    );
    assert_eq!((old.trim().buffers, old.clear().buffers), (0, 0));
    assert_eq!(retained(&old), in_caches);
    // The caches serve as before, and no thread has got another one's cache.
    let misses = old.stats().total.misses;
    let all: Vec<_> = (0..10)
        .map(|at| Stamped::new(old.get(CAPACITY), at, CAPACITY))
        .collect();
    all.into_iter().for_each(Stamped::verify);
    assert_eq!(old.stats().total.misses, misses);
    assert_accounts_balance(&old);
    // A thread that ends moves its cached buffers to the depot, where a trim frees them.
    other.end();
    assert_eq!((old.clear().buffers, retained(&old)), (CACHE, 10));
    assert_accounts_balance(&old);

    // A pool that is made now acts the same.
    let new = pool();
    fill_cache(&new, 5);
    assert_eq!((new.clear().buffers, retained(&new)), (0, 5));

    // The last handle leaks the buffers in the caches, and nothing else: no buffer in the depot,
    // and none of a guard.
    for (pool, in_cache) in [(old, 10), (new, 5)] {
        let held: Vec<_> = (0..in_cache).map(|_| pool.get(CAPACITY)).collect();
        let other = Resting::after({
            let pool = pool.clone();
            move || {
                fill_cache(&pool, CACHE + MAGAZINE);
                drop(pool);
            }
        });
        drop(held);
        let guard = Stamped::new(pool.get(CAPACITY), 7, CAPACITY);
        // From here a leak checker reaches the leaked buffers.
        forget::forget(pool.get(1));
        assert_eq!(retained(&pool), (CACHE + MAGAZINE + in_cache - 1) as u64);
        let before = live_bytes();
        drop(pool);
        let freed = before - live_bytes();
        // The guard keeps the pool alive, and the pool keeps one cell for the next buffer.
        let depot = (MAGAZINE * (CAPACITY + 64) - 64) as i64;
        assert!(
            (depot..depot + CAPACITY as i64).contains(&freed),
            "{freed} bytes freed of the {depot} in the depot"
        );
        // The cache's owner still has it. Then the owner ends, and does not touch its caches.
        let before = live_bytes();
        guard.verify();
        let freed = before - live_bytes();
        assert!(freed >= CAPACITY as i64, "{freed} bytes");
        let before = live_bytes();
        other.end();
        let freed = before - live_bytes();
        assert!(
            freed < CAPACITY as i64,
            "{freed} bytes: leaked, not freed late"
        );
    }

    everything_at_once(if SLOW { 2 } else { 8 }, true);
}
