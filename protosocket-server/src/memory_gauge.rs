use std::{
    fs, io,
    path::{Component, Path, PathBuf},
    sync::Mutex,
    time::{Duration, Instant},
};

/// Whether this program's control group is close to its memory limit.
///
/// For [`admit`](crate::ProtosocketServerConfig::admit): a server that takes no new connections
/// while memory is short keeps those that it has, instead of being killed with all of them.
///
/// ```no_run
/// use protosocket_server::{MemoryGauge, ProtosocketServerConfig};
///
/// let gauge = MemoryGauge::of_this_process()?;
/// let config = ProtosocketServerConfig::default().admit(move |_peer| !gauge.is_high());
/// # Ok::<(), std::io::Error>(())
/// ```
///
/// It knows version 2 of control groups, which is Linux. What it counts is `memory.current` without
/// the `inactive_file` of `memory.stat`: the kernel gives up cached files before it kills.
///
/// A gauge that could see nothing would never be high, so there is none where memory is not counted:
/// without control groups, under version 1, and on systems that have both versions and count memory
/// in the first.
#[derive(Debug)]
pub struct MemoryGauge {
    /// The group and those that it is in, each of which may have a limit.
    groups: Vec<PathBuf>,
    high_percent: u64,
    last: Mutex<Option<(Instant, bool)>>,
}

/// How long a reading is good for: memory does not fill up in less.
const EVERY: Duration = Duration::from_millis(250);

/// Where control groups are mounted.
const MOUNT: &str = "/sys/fs/cgroup";

impl MemoryGauge {
    /// The gauge of the control group that this process is in. High from 90 % of the limit on.
    ///
    /// Without a limit it is never high.
    ///
    /// # Errors
    /// Those of the system, and [`Unsupported`](io::ErrorKind::Unsupported) where no control groups
    /// of version 2 count memory.
    pub fn of_this_process() -> io::Result<Self> {
        let groups = fs::read_to_string("/proc/self/cgroup")?;
        let group = groups.lines().find_map(|line| line.strip_prefix("0::"));
        let group = group.ok_or_else(|| {
            io::Error::new(
                io::ErrorKind::Unsupported,
                "this process is in no control group of version 2",
            )
        })?;
        Self::of_group(MOUNT, group)
    }

    /// The gauge of the group `group` below `mount`, and of those that it is in. High from 90 % of
    /// the limit on. The name of a group begins at the mount, with a slash or without.
    ///
    /// # Errors
    /// - [`InvalidInput`](io::ErrorKind::InvalidInput): `group` leads out of `mount`.
    /// - [`Unsupported`](io::ErrorKind::Unsupported): no control groups of version 2 that count
    ///   memory are mounted there.
    pub fn of_group(mount: impl AsRef<Path>, group: impl AsRef<Path>) -> io::Result<Self> {
        let (mount, group) = (mount.as_ref(), group.as_ref());
        let mut folder = mount.to_owned();
        for part in group.components() {
            match part {
                Component::RootDir | Component::CurDir => {}
                Component::Normal(name) => folder.push(name),
                Component::ParentDir | Component::Prefix(_) => {
                    return Err(io::Error::new(
                        io::ErrorKind::InvalidInput,
                        format!("expected a control group below {mount:?}, got {group:?}"),
                    ));
                }
            }
        }
        let ancestors = folder.ancestors();
        let groups = ancestors.take_while(|folder| folder.starts_with(mount));
        let groups: Vec<PathBuf> = groups.map(Path::to_owned).collect();
        if !counts_memory(mount, &groups) {
            return Err(io::Error::new(
                io::ErrorKind::Unsupported,
                format!(
                    "expected control groups of version 2 that count memory in {mount:?}, there \
                     are none for {group:?}"
                ),
            ));
        }
        Ok(Self {
            groups,
            high_percent: 90,
            last: Mutex::default(),
        })
    }

    /// Be high from this part of the limit on, in percent.
    ///
    /// # Errors
    /// [`InvalidInput`](io::ErrorKind::InvalidInput): it is not within 1 and 100. At 0 a server would
    /// admit nobody, and above 100 everybody.
    pub fn high_at(mut self, percent: u8) -> io::Result<Self> {
        if !(1..=100).contains(&percent) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("expected 1 to 100 percent of the memory limit, got {percent}"),
            ));
        }
        self.high_percent = percent.into();
        Ok(self)
    }

    /// Whether memory is short. Files are read four times a second at most.
    pub fn is_high(&self) -> bool {
        self.is_high_at(Instant::now())
    }

    fn is_high_at(&self, now: Instant) -> bool {
        let mut last = self.last.lock().expect("no code that panics runs under it");
        if let Some((at, high)) = *last
            && now < at + EVERY
        {
            return high;
        }
        let high = self.groups.iter().any(|group| self.is_group_high(group));
        let was_high = last.replace((now, high)).is_some_and(|(_, high)| high);
        drop(last);
        if high != was_high {
            tracing::warn!(high, "the memory of the control group");
        }
        high
    }

    /// A group that cannot be read has no limit: the root has none, and others may be hidden.
    fn is_group_high(&self, group: &Path) -> bool {
        let read = |file: &str| fs::read_to_string(group.join(file)).ok();
        let number = |file: &str| read(file)?.trim().parse::<u64>().ok();
        // "max" is no number, and no limit.
        let (Some(limit), Some(current)) = (number("memory.max"), number("memory.current")) else {
            return false;
        };
        let cached = read("memory.stat").and_then(|stat| {
            let mut lines = stat.lines();
            lines.find_map(|line| line.strip_prefix("inactive_file ")?.parse().ok())
        });
        let used = current.saturating_sub(cached.unwrap_or(0));
        u128::from(used) * 100 >= u128::from(limit) * u128::from(self.high_percent)
    }
}

/// Whether memory is counted for any of `groups`. The root of all groups has no files of its own for
/// that, but says that it could give them to others.
fn counts_memory(mount: &Path, groups: &[PathBuf]) -> bool {
    let has_files = |group: &PathBuf| {
        group.join("memory.max").exists() && group.join("memory.current").exists()
    };
    let controllers = fs::read_to_string(mount.join("cgroup.controllers")).unwrap_or_default();
    groups.iter().any(has_files) || controllers.split_whitespace().any(|name| name == "memory")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A folder that looks like control groups, gone with the test.
    struct Groups(PathBuf);

    impl Groups {
        fn new(name: &str) -> Self {
            let folder = format!("protosocket-{name}-{}", std::process::id());
            let folder = std::env::temp_dir().join(folder);
            fs::create_dir_all(folder.join("outer/inner")).unwrap();
            Self(folder)
        }

        fn write(&self, file: &str, text: &str) {
            fs::write(self.0.join(file), text).unwrap();
        }
    }

    impl Drop for Groups {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn f25_a_group_is_high_close_to_its_limit() {
        let groups = Groups::new("high");
        groups.write("cgroup.controllers", "cpu memory pids\n");
        let is_high_in = |group| MemoryGauge::of_group(&groups.0, group).unwrap().is_high();
        let is_high = || is_high_in("outer/inner");
        assert!(!is_high(), "nothing is known");
        groups.write("outer/inner/memory.max", "1000\n");
        groups.write("outer/inner/memory.current", "899\n");
        assert!(!is_high());
        groups.write("outer/inner/memory.current", "900\n");
        assert!(is_high());
        groups.write(
            "outer/inner/memory.stat",
            "anon 3\ninactive_file 1\nactive_file 9\n",
        );
        assert!(!is_high(), "cached files can be given up");
        groups.write("outer/inner/memory.max", "max\n");
        assert!(!is_high());
        groups.write("outer/memory.max", "1000\n");
        groups.write("outer/memory.current", "999\n");
        assert!(is_high(), "the group around it counts as well");
        assert!(is_high_in("/outer/inner"), "as the kernel writes it");
        let outer = MemoryGauge::of_group(&groups.0, "outer").unwrap();
        assert!(!outer.high_at(100).unwrap().is_high());
    }

    #[test]
    fn f25_a_gauge_that_could_see_nothing_is_refused() {
        let groups = Groups::new("blind");
        let refused = |group| MemoryGauge::of_group(&groups.0, group).unwrap_err().kind();
        assert_eq!(refused("outer"), io::ErrorKind::Unsupported);
        // Both versions, and memory is counted in the other.
        groups.write("cgroup.controllers", "cpu pids\n");
        assert_eq!(refused("outer"), io::ErrorKind::Unsupported);
        groups.write("outer/memory.max", "max\n");
        groups.write("outer/memory.current", "1\n");
        assert!(MemoryGauge::of_group(&groups.0, "outer/inner").is_ok());
        assert_eq!(refused("/"), io::ErrorKind::Unsupported);
        groups.write("cgroup.controllers", "cpu memory\n");
        assert!(MemoryGauge::of_group(&groups.0, "/").is_ok());
        assert_eq!(refused("../outer"), io::ErrorKind::InvalidInput);
        assert_eq!(refused("outer/../.."), io::ErrorKind::InvalidInput);
    }

    #[test]
    fn f25_a_part_of_the_limit_that_makes_no_sense_is_refused() {
        let groups = Groups::new("parts");
        groups.write("cgroup.controllers", "memory\n");
        let high_at = |percent| MemoryGauge::of_group(&groups.0, "")?.high_at(percent);
        for percent in [0, 101, 200] {
            let error = high_at(percent).unwrap_err().to_string();
            assert!(error.ends_with(&format!("got {percent}")), "{error}");
        }
        assert!(high_at(1).is_ok() && high_at(100).is_ok());
    }

    #[test]
    fn f25_files_are_read_four_times_a_second_at_most() {
        let groups = Groups::new("often");
        groups.write("outer/memory.max", "1000\n");
        groups.write("outer/memory.current", "999\n");
        let gauge = MemoryGauge::of_group(&groups.0, "outer").unwrap();
        let begin = Instant::now();
        assert!(gauge.is_high_at(begin));
        groups.write("outer/memory.current", "1\n");
        assert!(gauge.is_high_at(begin + Duration::from_millis(249)));
        assert!(!gauge.is_high_at(begin + EVERY));
    }
}
