use std::{
    fs, io,
    path::{Path, PathBuf},
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
    /// Those of the system, and [`Unsupported`](io::ErrorKind::Unsupported) without control groups
    /// of version 2.
    pub fn of_this_process() -> io::Result<Self> {
        let groups = fs::read_to_string("/proc/self/cgroup")?;
        let group = groups.lines().find_map(|line| line.strip_prefix("0::/"));
        let group = group.ok_or_else(|| {
            io::Error::new(
                io::ErrorKind::Unsupported,
                "this process is in no control group of version 2",
            )
        })?;
        Ok(Self::of_group(MOUNT, group))
    }

    /// The gauge of the group `group` below `mount`, and of those that it is in.
    pub fn of_group(mount: impl AsRef<Path>, group: impl AsRef<Path>) -> Self {
        let mount = mount.as_ref();
        let group = mount.join(group);
        let ancestors = group.ancestors();
        let groups = ancestors.take_while(|folder| folder.starts_with(mount));
        Self {
            groups: groups.map(Path::to_owned).collect(),
            high_percent: 90,
            last: Mutex::default(),
        }
    }

    /// Be high from this part of the limit on, in percent.
    #[must_use]
    pub fn high_at(mut self, percent: u8) -> Self {
        self.high_percent = percent.into();
        self
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
        let is_high = || MemoryGauge::of_group(&groups.0, "outer/inner").is_high();
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
        assert!(
            !MemoryGauge::of_group(&groups.0, "outer")
                .high_at(100)
                .is_high()
        );
    }

    #[test]
    fn f25_files_are_read_four_times_a_second_at_most() {
        let groups = Groups::new("often");
        let gauge = MemoryGauge::of_group(&groups.0, "outer");
        groups.write("outer/memory.max", "1000\n");
        groups.write("outer/memory.current", "999\n");
        let begin = Instant::now();
        assert!(gauge.is_high_at(begin));
        groups.write("outer/memory.current", "1\n");
        assert!(gauge.is_high_at(begin + Duration::from_millis(249)));
        assert!(!gauge.is_high_at(begin + EVERY));
    }
}
