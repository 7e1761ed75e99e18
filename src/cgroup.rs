//! The memory limit of the process's control group, from the files in which Linux shows it.
//!
//! The only file of the library that opens files: for
//! [`Builder::retain_share`](crate::Builder::retain_share), and only when that is set. Decides nothing.

use std::path::Path;

/// At or above this, a limit of version 1 means none: Linux shows the largest multiple of a page.
const NO_LIMIT: u64 = 1 << 62;

/// The most bytes of memory that the process may use, by its control group and those that contain it.
///
/// `None` if there is no limit, if its files cannot be read, and on systems other than Linux.
pub(crate) fn memory_limit() -> Option<u64> {
    match cfg!(target_os = "linux") {
        true => limit_below(Path::new("/")),
        false => None,
    }
}

/// The same, of a system whose files are in the directory `root`.
fn limit_below(root: &Path) -> Option<u64> {
    limit(|path| {
        // SECURITY.md lists the files, and when they are read.
        #[allow(clippy::disallowed_methods)]
        std::fs::read_to_string(root.join(path)).ok()
    })
}

/// The least limit in the files that `read` reads, by their paths from the root.
fn limit(read: impl Fn(&str) -> Option<String>) -> Option<u64> {
    let groups = read("proc/self/cgroup")?;
    let limits = groups.lines().filter_map(|line| {
        // HIERARCHY:CONTROLLERS:PATH, and the path may contain colons.
        let mut parts = line.splitn(3, ':');
        let (hierarchy, controllers, path) = (parts.next()?, parts.next()?, parts.next()?);
        let (mount, file) = match (hierarchy, controllers) {
            ("0", "") => ("sys/fs/cgroup", "memory.max"),
            (_, controllers) if controllers.split(',').any(|name| name == "memory") => {
                ("sys/fs/cgroup/memory", "memory.limit_in_bytes")
            }
            _ => return None,
        };
        least_above(mount, path, file, &read)
    });
    limits.min()
}

/// The least limit of the group at `path` and the groups that contain it.
///
/// In a container, the path may be that on the host. Then only the last group exists here: the root, which
/// is the container's own.
fn least_above(
    mount: &str,
    path: &str,
    file: &str,
    read: impl Fn(&str) -> Option<String>,
) -> Option<u64> {
    let path = path.trim_matches('/');
    // A group outside of the process's namespace: its path would lead out of the mount.
    let leads_out = path.split('/').any(|name| name == "..");
    let mut group = if leads_out { "" } else { path };
    let mut least = None;
    loop {
        let found = match group {
            "" => read(&format!("{mount}/{file}")),
            group => read(&format!("{mount}/{group}/{file}")),
        };
        // "max" is no number, and no limit.
        let found = found.and_then(|text| text.trim().parse::<u64>().ok());
        if let Some(bytes) = found.filter(|&bytes| bytes < NO_LIMIT) {
            least = Some(least.map_or(bytes, |least: u64| least.min(bytes)));
        }
        if group.is_empty() {
            return least;
        }
        group = group.rsplit_once('/').map_or("", |(above, _)| above);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;
    use std::fs;

    /// The limit, where these are all files.
    fn limit_of(files: &[(&str, &str)]) -> Option<u64> {
        let files: HashMap<_, _> = files.iter().copied().collect();
        limit(|path| files.get(path).map(|text| text.to_string()))
    }

    #[test]
    fn the_groups_own_limit_counts() {
        let own = ("sys/fs/cgroup/a/b c:d.scope/memory.max", "1073741824\n");
        let files = [("proc/self/cgroup", "0::/a/b c:d.scope\n"), own];
        assert_eq!(limit_of(&files), Some(1 << 30));
    }

    #[test]
    fn the_least_limit_of_the_groups_above_counts() {
        let groups = [
            ("proc/self/cgroup", "0::/a/b/c\n"),
            ("sys/fs/cgroup/a/b/c/memory.max", "max\n"),
            ("sys/fs/cgroup/a/b/memory.max", "4096\n"),
            ("sys/fs/cgroup/a/memory.max", "8192\n"),
        ];
        assert_eq!(limit_of(&groups), Some(4096));
    }

    #[test]
    fn a_container_finds_its_limit_at_the_root() {
        for path in ["/", "/docker/4a", "/../../4a", ""] {
            let group = format!("0::{path}\n");
            let files = [
                ("proc/self/cgroup", group.as_str()),
                ("sys/fs/cgroup/memory.max", "4096\n"),
                ("sys/fs/cgroup/../../4a/memory.max", "1\n"),
            ];
            assert_eq!(limit_of(&files), Some(4096), "{path}");
        }
    }

    #[test]
    fn version_1_has_a_hierarchy_for_memory() {
        let groups = "12:cpu,cpuacct:/x\n4:hugetlb,memory:/y\n1:name=systemd:/z\n0::/z\n";
        let files = |limit| {
            [
                ("proc/self/cgroup", groups),
                ("sys/fs/cgroup/memory/y/memory.limit_in_bytes", limit),
                (
                    "sys/fs/cgroup/memory/memory.limit_in_bytes",
                    "9223372036854771712\n",
                ),
            ]
        };
        assert_eq!(limit_of(&files("536870912\n")), Some(512 << 20));
        assert_eq!(limit_of(&files("9223372036854771712\n")), None);
    }

    #[test]
    fn without_readable_files_there_is_no_limit() {
        assert_eq!(limit_of(&[]), None);
        let max = "sys/fs/cgroup/memory.max";
        for (group, limit) in [
            ("0::/\n", "max\n"),
            ("0::/\n", ""),
            ("0::/\n", "-1\n"),
            ("0::/\n", "99999999999999999999\n"),
            ("0:/\n", "4096\n"),
            ("\n", "4096\n"),
            ("3:cpu:/\n", "4096\n"),
        ] {
            assert_eq!(limit_of(&[("proc/self/cgroup", group), (max, limit)]), None);
        }
        assert_eq!(limit_of(&[("proc/self/cgroup", "0::/a\n")]), None);
    }

    #[test]
    #[cfg_attr(miri, ignore = "makes files")]
    fn files_are_read_below_a_root() {
        let root = std::env::temp_dir().join(format!("tierpool-cgroup-{}", std::process::id()));
        let group = root.join("sys/fs/cgroup/pod/app");
        fs::create_dir_all(&group).unwrap();
        fs::create_dir_all(root.join("proc/self")).unwrap();
        assert_eq!(limit_below(&root), None);
        fs::write(root.join("proc/self/cgroup"), "0::/pod/app\n").unwrap();
        assert_eq!(limit_below(&root), None);
        fs::write(group.join("memory.max"), "268435456\n").unwrap();
        assert_eq!(limit_below(&root), Some(256 << 20));
        fs::write(group.join("memory.max"), b"\xff\xfe").unwrap();
        assert_eq!(limit_below(&root), None);
        fs::remove_dir_all(&root).unwrap();
    }
}
