//! How much memory goes back to the system after a load: with plain buffers and pools, under each
//! heap that this machine has.
//!
//! `cargo bench --bench memory_back` prints the table of `docs/memory.md`. It takes 4 minutes, and
//! 500 MiB of memory. Apart from glibc's, the heaps are Debian's packages `libmimalloc2.0` and
//! `libjemalloc2`, loaded by `LD_PRELOAD`. A heap that is not installed is left out.

#[cfg(all(target_os = "linux", target_env = "gnu"))]
fn main() {
    linux::main();
}

#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
fn main() {
    println!("needs Linux with glibc");
}

#[cfg(all(target_os = "linux", target_env = "gnu"))]
mod linux {
    use bytes::BytesMut;
    use std::ffi::{CStr, c_char, c_int, c_void};
    use std::process::Command;
    use std::sync::Barrier;
    use std::time::{Duration, Instant};
    use std::{env, fs, mem, ptr, thread};
    use tierpool::{Builder, Freed, Pool};

    const INTERVAL: Duration = Duration::from_secs(1);
    const THREADS: usize = 4;
    const CASE: &str = "TIERPOOL_MEMORY_BACK";
    /// 128 uploads of 1 MB; 10,000 buffers of 1 to 65 KB; the same, with one of 100 kept.
    const LOADS: [&str; 3] = ["uploads", "mixed", "all but 100"];
    const HEAPS: [(&str, &str); 3] = [
        ("glibc", ""),
        ("mimalloc", "libmimalloc.so.2"),
        ("jemalloc", "libjemalloc.so.2"),
    ];
    type Options = fn(Builder) -> Builder;
    /// In the modes with traffic, each thread takes and drops small buffers until the end.
    const MODES: [(&str, Options); 7] = [
        ("plain", |pool| pool),
        ("plain, traffic", |pool| pool),
        ("default", |pool| pool),
        ("default, traffic", |pool| pool.trim_interval(INTERVAL)),
        ("no malloc_trim", |pool| {
            pool.release_when_idle(INTERVAL).malloc_trim(false)
        }),
        ("release_when_idle", |pool| pool.release_when_idle(INTERVAL)),
        ("and a hook", |pool| {
            pool.release_when_idle(INTERVAL).on_trim(ask_the_heap)
        }),
    ];

    pub(super) fn main() {
        if let Ok(case) = env::var(CASE) {
            let (load, mode) = case.split_once('/').expect("a load and a mode");
            let options = MODES
                .iter()
                .find(|(name, _)| *name == mode)
                .expect("a mode");
            let pool = options.1(Pool::builder()).build().expect("valid options");
            return match mode.starts_with("plain") {
                true => run(load, mode, BytesMut::with_capacity, |buf| buf),
                false => run(load, mode, |size| pool.get(size), |buf| &mut **buf),
            };
        }
        // `cargo test --benches` runs one case, to check that it works.
        let all = env::args().any(|arg| arg == "--bench");
        println!("RSS in MiB: at the start, under load, when it is dropped, 2.5 intervals later");
        for (heap, library) in HEAPS {
            let machine = env::consts::ARCH;
            let path = format!("/usr/lib/{machine}-linux-gnu/{library}");
            if !fs::exists(&path).is_ok_and(|exists| exists) {
                println!("{heap}: not installed");
                continue;
            }
            for (load, (mode, _)) in LOADS.iter().flat_map(|load| MODES.map(|mode| (load, mode))) {
                let mut child = Command::new(env::current_exe().expect("its own path"));
                child.env(CASE, format!("{load}/{mode}"));
                if !library.is_empty() {
                    child.env("LD_PRELOAD", &path);
                }
                let output = child.output().expect("a process of its own");
                let text = String::from_utf8_lossy(&output.stdout);
                println!("{heap:<9} {load:<12} {mode:<18} {}", text.trim_end());
                if !all {
                    return;
                }
            }
        }
    }

    fn run<B>(
        load: &str,
        mode: &str,
        get: impl Fn(usize) -> B + Sync,
        bytes: impl Fn(&mut B) -> &mut BytesMut + Sync,
    ) {
        let take = |size| {
            let mut buf = get(size);
            bytes(&mut buf).resize(size, 1);
            buf
        };
        let step = Barrier::new(THREADS + 1);
        let on_a_thread = |mut random: u64| {
            let mut size = || {
                random ^= random << 13;
                random ^= random >> 7;
                random ^= random << 17;
                1000 + (random % 64_000) as usize
            };
            step.wait();
            let mut held: Vec<B> = match load {
                "uploads" => (0..128 / THREADS).map(|_| take(1_000_000)).collect(),
                _ => (0..10_000 / THREADS).map(|_| take(size())).collect(),
            };
            step.wait(); // all buffers are outstanding
            step.wait();
            let mut at = 0;
            held.retain(|_| {
                at += 1;
                load == "all but 100" && at % 100 == 0
            });
            step.wait();
            let begin = Instant::now();
            while mode.ends_with("traffic") && begin.elapsed() < INTERVAL * 3 {
                drop([take(1000), take(3000)]);
            }
            step.wait(); // blocked, with its caches filled
        };
        thread::scope(|scope| {
            for thread in 1..=THREADS as u64 {
                let on_a_thread = &on_a_thread;
                scope.spawn(move || on_a_thread(thread * 0x9e37_79b9_7f4a_7c15));
            }
            let mut rss = vec![resident()];
            step.wait();
            step.wait();
            rss.push(resident());
            step.wait();
            step.wait();
            rss.push(resident());
            thread::sleep(INTERVAL * 5 / 2);
            rss.push(resident());
            step.wait();
            println!(
                "{:6.1} {:6.1} {:6.1} {:6.1}",
                rss[0], rss[1], rss[2], rss[3]
            );
        });
    }

    fn resident() -> f64 {
        let statm = fs::read_to_string("/proc/self/statm").expect("the system has it");
        let pages = statm.split(' ').nth(1).expect("resident pages");
        // SAFETY: takes and returns a number.
        let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) } as f64;
        pages.parse::<f64>().expect("a number") * page / f64::from(1 << 20)
    }

    /// Asks each heap in the process for its free pages.
    fn ask_the_heap(_freed: Freed) {
        type Control =
            extern "C" fn(*const c_char, *mut c_void, *mut usize, *mut c_void, usize) -> c_int;
        let (null, all_arenas) = (ptr::null_mut(), c"arena.4096.purge".as_ptr());
        // SAFETY: the functions have the signatures of their libraries' manuals. The name is a C
        // string, and jemalloc allows null for values that are neither read nor written.
        unsafe {
            libc::malloc_trim(0);
            if let Some(collect) = symbol(c"mi_collect") {
                mem::transmute::<*mut c_void, extern "C" fn(bool)>(collect)(true);
            }
            if let Some(control) = symbol(c"mallctl") {
                let control = mem::transmute::<*mut c_void, Control>(control);
                control(all_arenas, null, ptr::null_mut(), null, 0);
            }
        }
    }

    fn symbol(name: &CStr) -> Option<*mut c_void> {
        // SAFETY: the name is a C string.
        let symbol = unsafe { libc::dlsym(libc::RTLD_DEFAULT, name.as_ptr()) };
        (!symbol.is_null()).then_some(symbol)
    }
}
