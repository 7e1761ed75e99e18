//! The memory that the process gives back to the system, once the pool has freed its buffers.
//!
//! The heap decides that. glibc's gives back the free memory at the end of its main arena. Free
//! memory below a block that is in use stays, until `malloc_trim` is called. The blocks that pin
//! the end are small ones that glibc keeps for the thread that freed them, and the blocks that were
//! allocated last (`docs/memory.md` has the table).
//!
//! Each case runs in its own process, without the test harness, whose thread would allocate between
//! the buffers. `TIERPOOL_RSS_TABLE=1` runs all cases and prints their results. Without it, a few
//! cases run in which the pool makes a promise. They take 700 MiB of memory, or a tenth where there
//! is less.

#[cfg(all(target_os = "linux", target_env = "gnu", not(miri)))]
fn main() {
    rss::main();
}

#[cfg(not(all(target_os = "linux", target_env = "gnu", not(miri))))]
fn main() {}

#[cfg(all(target_os = "linux", target_env = "gnu", not(miri)))]
mod rss {
    use std::process::Command;
    use std::sync::mpsc;
    use std::thread;
    use std::time::Duration;
    use tierpool::{Pool, PooledBuf};

    /// A tenth of this number where memory is short.
    const BUFFERS: usize = 10_000;
    const CAPACITY: usize = 64 * 1024;
    const PAGE: usize = 4096;

    /// The most bytes that may remain.
    const LEFT_MOST: i64 = 8 << 20;

    /// Names the case that a child process runs, and its number of buffers.
    const CASE: &str = "TIERPOOL_RSS_CASE";
    const CASE_BUFFERS: &str = "TIERPOOL_RSS_CASE_BUFFERS";
    const TABLE: &str = "TIERPOOL_RSS_TABLE";

    const OPTIONS: [&str; 5] = [
        "default",
        "malloc_trim",
        "1GiB",
        "1GiB,malloc_trim",
        RELEASE,
    ];
    const RELEASE: &str = "release_when_idle";
    const IDLE: Duration = Duration::from_millis(200);
    const ORDERS: [&str; 3] = ["forward", "reverse", "random"];
    const THREADS: [&str; 3] = ["one", "dropped elsewhere", "four"];
    const ARENAS: [&str; 2] = ["one arena", "arenas"];

    /// Whether the pool can promise that the memory returns. For the other cases it promises
    /// neither result.
    fn is_promised(options: &str, threads: &str, arenas: &str) -> bool {
        match options {
            "default" => arenas == "one arena" && threads == "one",
            _ => options.ends_with("malloc_trim") || options == RELEASE,
        }
    }

    /// Whether a promised case runs each time.
    fn is_typical(options: &str, order: &str) -> bool {
        options == "default" || (["malloc_trim", RELEASE].contains(&options) && order == "random")
    }

    /// How many buffers there is memory for.
    fn affordable() -> usize {
        let meminfo = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let available = meminfo
            .lines()
            .find_map(|line| line.strip_prefix("MemAvailable:"))
            .and_then(|rest| rest.trim().strip_suffix(" kB")?.parse().ok())
            .unwrap_or(0_usize);
        match available >= 2 << 20 {
            true => BUFFERS,
            false => BUFFERS / 10,
        }
    }

    fn resident() -> i64 {
        let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
        let pages: i64 = statm.split(' ').nth(1).unwrap().parse().unwrap();
        // SAFETY: takes and returns a number.
        let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
        pages * page as i64
    }

    /// Takes buffers and touches every page of them.
    fn take(pool: &Pool, buffers: usize) -> Vec<PooledBuf> {
        let mut held = Vec::with_capacity(buffers);
        for _ in 0..buffers {
            let mut buf = pool.get(CAPACITY);
            for page in buf.spare_capacity_mut().chunks_mut(PAGE) {
                page[0].write(1);
            }
            held.push(buf);
        }
        held
    }

    fn arrange(held: &mut [PooledBuf], order: &str) {
        match order {
            "forward" => {}
            "reverse" => held.reverse(),
            "random" => {
                let mut random = 0x9e37_79b9_7f4a_7c15_u64;
                for end in (2..=held.len()).rev() {
                    random ^= random << 13;
                    random ^= random >> 7;
                    random ^= random << 17;
                    held.swap(end - 1, (random % end as u64) as usize);
                }
            }
            _ => panic!("no order is named {order}"),
        }
    }

    /// Takes and drops all buffers. Returns how many bytes were resident between.
    fn burst(pool: &Pool, buffers: usize, order: &str, threads: &str) -> i64 {
        const OTHERS: usize = 4;
        if threads == "one" {
            let mut held = take(pool, buffers);
            arrange(&mut held, order);
            let most = resident();
            drop(held);
            return most;
        }
        // Started before the buffers are made: otherwise a thread's own data would lie above them.
        let take_there = threads == "four";
        let (to_main, from_others) = mpsc::channel();
        let others: Vec<_> = (0..OTHERS)
            .map(|_| {
                let (pool, to_main) = (pool.clone(), to_main.clone());
                let (to_other, from_main) = mpsc::channel::<Vec<PooledBuf>>();
                let other = thread::spawn(move || {
                    if take_there {
                        to_main.send(take(&pool, buffers / OTHERS)).unwrap();
                    }
                    drop(from_main.recv().unwrap());
                });
                (to_other, other)
            })
            .collect();
        let mut held = match take_there {
            true => from_others.iter().take(OTHERS).flatten().collect(),
            false => take(pool, buffers),
        };
        arrange(&mut held, order);
        let most = resident();
        for (to_other, other) in others {
            let rest = held.split_off(buffers / OTHERS * (held.len() / (buffers / OTHERS) - 1));
            to_other.send(rest).unwrap();
            other.join().unwrap();
        }
        most
    }

    /// Prints what one case leaves, in bytes.
    fn run(case: &str, buffers: usize) {
        let [options, order, threads]: [&str; 3] =
            case.split('/').collect::<Vec<_>>().try_into().unwrap();
        let mut builder = Pool::builder().trim_interval(None);
        for option in options.split(',') {
            builder = match option {
                "default" => builder,
                "malloc_trim" => builder.malloc_trim(true),
                RELEASE => builder.release_when_idle(IDLE),
                "1GiB" => builder.retain_bytes(1 << 30),
                _ => panic!("no option is named {option}"),
            };
        }
        let start = resident();
        let pool = builder.build().unwrap();
        let most = burst(&pool, buffers, order, threads) - start;
        assert!(
            most >= (buffers * CAPACITY) as i64,
            "all of it was resident"
        );
        let dropped = resident() - start;
        if options == RELEASE {
            // Time passes, and nothing else happens. A minute, for a slow machine.
            for _ in 0..60 * 5 {
                if pool.stats().total.retained_bytes == 0 && resident() - start <= LEFT_MOST {
                    break;
                }
                thread::sleep(IDLE);
            }
        } else {
            pool.trim();
        }
        let first = resident() - start;
        if options != RELEASE {
            pool.trim();
        }
        let second = resident() - start;
        assert_eq!(pool.stats().total.retained_bytes, 0);
        println!("resident: {most} {dropped} {first} {second}.");
    }

    pub fn main() {
        if std::env::args().any(|arg| arg == "--list") {
            return; // for tools that list the tests
        }
        let case = std::env::var(CASE).ok();
        let buffers = std::env::var(CASE_BUFFERS).ok();
        match case.zip(buffers.and_then(|number| number.parse().ok())) {
            // In the main arena, or in the arena of another thread.
            Some((case, buffers)) if std::env::var_os("MALLOC_ARENA_MAX").is_some() => {
                run(&case, buffers);
            }
            Some((case, buffers)) => thread::spawn(move || run(&case, buffers)).join().unwrap(),
            None => memory_returns_to_the_system_after_two_trims(),
        }
    }

    fn memory_returns_to_the_system_after_two_trims() {
        let buffers = affordable();
        let whole_table = std::env::var_os(TABLE).is_some();
        let mut broken = Vec::new();
        for arenas in ARENAS {
            for options in OPTIONS {
                for threads in THREADS {
                    for order in ORDERS {
                        let promised = is_promised(options, threads, arenas);
                        if !(whole_table || promised && is_typical(options, order)) {
                            continue;
                        }
                        let case = format!("{options}/{order}/{threads}");
                        let [most, dropped, first, second] = in_a_process(&case, buffers, arenas);
                        let mib = |bytes: i64| bytes as f64 / f64::from(1 << 20);
                        let line = format!(
                            "{arenas:<10} {case:<44} {:6.1} {:6.1} {:6.1} {:6.1} MiB{}",
                            mib(most),
                            mib(dropped),
                            mib(first),
                            mib(second),
                            if promised { "" } else { " (not promised)" },
                        );
                        println!("{line}");
                        if promised && second > LEFT_MOST {
                            broken.push(line);
                        }
                    }
                }
            }
        }
        assert!(broken.is_empty(), "{broken:#?}");
    }

    /// The resident bytes while all buffers were outstanding, after their drop, and after each
    /// trim.
    fn in_a_process(case: &str, buffers: usize, arenas: &str) -> [i64; 4] {
        let mut child = Command::new(std::env::current_exe().unwrap());
        child
            .env(CASE, case)
            .env(CASE_BUFFERS, buffers.to_string())
            .env_remove("MALLOC_ARENA_MAX");
        if arenas == "one arena" {
            child.env("MALLOC_ARENA_MAX", "1");
        }
        let output = child.output().unwrap();
        assert!(output.status.success(), "{output:?}");
        let text = String::from_utf8(output.stdout).unwrap();
        let (_, numbers) = text.split_once("resident: ").expect("the child's numbers");
        let (numbers, _) = numbers.split_once('.').unwrap();
        let numbers: Vec<i64> = numbers.split(' ').map(|n| n.parse().unwrap()).collect();
        numbers.try_into().unwrap()
    }
}
