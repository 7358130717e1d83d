//! CPU, memory and context switches of processes, from Linux's /proc: CPU is the scheduler's, in
//! nanoseconds.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::Serialize;

/// Processes that are watched together, as one server may be several.
#[derive(Clone, Debug, Default)]
pub(super) struct Watched {
    pub(super) pids: Vec<u32>,
}

/// Resources that processes have used so far, and that they hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct Usage {
    pub(super) cpu_ns: u64,
    /// Time in which it could have run and no core was free.
    pub(super) cpu_wait_ns: u64,
    pub(super) voluntary_switches: u64,
    pub(super) involuntary_switches: u64,
    pub(super) threads: u64,
    /// `None` if the kernel does not report it directly; counting tens of thousands, ten times a
    /// second, would be a load of its own.
    pub(super) descriptors: Option<u64>,
    pub(super) rss_bytes: u64,
}

/// What each thread has used up to now, by its id.
pub(super) type Threads = BTreeMap<u32, Cpu>;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Cpu {
    pub(super) used_ns: u64,
    /// Time in which it could have run and no core was free.
    pub(super) wait_ns: u64,
}

impl Watched {
    pub(super) fn is_empty(&self) -> bool {
        self.pids.is_empty()
    }

    /// `None` if a process is gone or belongs to another user.
    pub(super) fn usage(&self) -> Option<Usage> {
        if self.is_empty() {
            return None;
        }
        self.pids.iter().try_fold(
            Usage {
                descriptors: Some(0),
                ..Usage::default()
            },
            |sum, pid| Some(sum.plus(usage(*pid).ok()?)),
        )
    }

    pub(super) fn cpu_ns(&self) -> Option<u64> {
        self.usage().map(|usage| usage.cpu_ns)
    }

    pub(super) fn threads(&self) -> Threads {
        self.pids
            .iter()
            .filter_map(|pid| tasks(*pid).ok())
            .flatten()
            .filter_map(|task| Some((task_id(&task)?, cpu(&task)?)))
            .collect()
    }

    /// Cores that they may run on; 0 if unknown.
    pub(super) fn cores(&self) -> usize {
        let status = |pid: &u32| fs::read_to_string(proc_dir(*pid).join("status")).ok();
        let cores = |status: String| cores(value(&status, "Cpus_allowed_list").unwrap_or_default());
        self.pids
            .iter()
            .filter_map(status)
            .flat_map(cores)
            .collect::<BTreeSet<u32>>()
            .len()
    }

    /// Resident memory, counted page by page: that of `usage` is off by some pages per core.
    pub(super) fn exact_rss_bytes(&self) -> Option<u64> {
        if self.is_empty() {
            return None;
        }
        self.pids.iter().try_fold(0, |sum, pid| {
            let rollup = fs::read_to_string(proc_dir(*pid).join("smaps_rollup"))
                .ok()
                .and_then(|text| kib(&text, "Rss"));
            Some(sum + rollup.map_or_else(|| Some(usage(*pid).ok()?.rss_bytes), Some)?)
        })
    }
}

impl Usage {
    fn plus(self, other: Usage) -> Usage {
        Usage {
            cpu_ns: self.cpu_ns + other.cpu_ns,
            cpu_wait_ns: self.cpu_wait_ns + other.cpu_wait_ns,
            voluntary_switches: self.voluntary_switches + other.voluntary_switches,
            involuntary_switches: self.involuntary_switches + other.involuntary_switches,
            threads: self.threads + other.threads,
            descriptors: self
                .descriptors
                .zip(other.descriptors)
                .map(|(one, other)| one + other),
            rss_bytes: self.rss_bytes + other.rss_bytes,
        }
    }

    /// The resources used since `earlier`; held ones are as of now.
    pub(super) fn since(self, earlier: Usage) -> Usage {
        Usage {
            cpu_ns: self.cpu_ns.saturating_sub(earlier.cpu_ns),
            cpu_wait_ns: self.cpu_wait_ns.saturating_sub(earlier.cpu_wait_ns),
            voluntary_switches: self
                .voluntary_switches
                .saturating_sub(earlier.voluntary_switches),
            involuntary_switches: self
                .involuntary_switches
                .saturating_sub(earlier.involuntary_switches),
            ..self
        }
    }
}

fn proc_dir(pid: u32) -> PathBuf {
    Path::new("/proc").join(pid.to_string())
}

/// Fails if there is no such process, or no /proc.
pub(super) fn usage(pid: u32) -> io::Result<Usage> {
    let dir = proc_dir(pid);
    let status = fs::read_to_string(dir.join("status"))?;
    let mut usage = Usage {
        threads: figure(&status, "Threads").unwrap_or(0),
        rss_bytes: kib(&status, "VmRSS").unwrap_or(0),
        // From Linux 6.2 on, and only for processes of the same user (proc_pid_fd(5)); 0 before.
        descriptors: fs::metadata(dir.join("fd"))
            .ok()
            .map(|fd| fd.len())
            .filter(|count| *count > 0),
        ..Usage::default()
    };
    for task in tasks(pid)? {
        // A thread may end meanwhile.
        let (Some(cpu), Ok(status)) = (cpu(&task), fs::read_to_string(task.join("status"))) else {
            continue;
        };
        usage.cpu_ns += cpu.used_ns;
        usage.cpu_wait_ns += cpu.wait_ns;
        usage.voluntary_switches += figure(&status, "voluntary_ctxt_switches").unwrap_or(0);
        usage.involuntary_switches += figure(&status, "nonvoluntary_ctxt_switches").unwrap_or(0);
    }
    Ok(usage)
}

/// The directory of each of its threads: /proc/PID/schedstat is that of the first one alone.
fn tasks(pid: u32) -> io::Result<Vec<PathBuf>> {
    fs::read_dir(proc_dir(pid).join("task"))?
        .map(|task| Ok(task?.path()))
        .collect()
}

fn task_id(task: &Path) -> Option<u32> {
    task.file_name()?.to_str()?.parse().ok()
}

fn cpu(task: &Path) -> Option<Cpu> {
    let schedstat = fs::read_to_string(task.join("schedstat")).ok()?;
    let mut figures = schedstat
        .split_ascii_whitespace()
        .map(|figure| figure.parse().unwrap_or(0));
    Some(Cpu {
        used_ns: figures.next()?,
        wait_ns: figures.next()?,
    })
}

/// CPU of the busiest thread since `earlier`.
pub(super) fn busiest(now: &Threads, earlier: &Threads) -> Option<Cpu> {
    let since = |(id, now): (&u32, &Cpu)| {
        let before = earlier.get(id).copied().unwrap_or_default();
        Cpu {
            used_ns: now.used_ns.saturating_sub(before.used_ns),
            wait_ns: now.wait_ns.saturating_sub(before.wait_ns),
        }
    };
    now.iter().map(since).max_by_key(|cpu| cpu.used_ns)
}

/// The cores in a list as `0-3,8`.
fn cores(list: &str) -> Vec<u32> {
    let range = |range: &str| {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        Some(first.parse().ok()?..=last.parse().ok()?)
    };
    list.split(',').filter_map(range).flatten().collect()
}

/// The first word in a line `Name:  123 ...`.
fn value<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    line.split_ascii_whitespace().next()
}

fn figure(text: &str, name: &str) -> Option<u64> {
    value(text, name)?.parse().ok()
}

fn kib(text: &str, name: &str) -> Option<u64> {
    figure(text, name).map(|kib| kib * 1024)
}

/// The machine that the measurement ran on.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Machine {
    pub(super) kernel: String,
    pub(super) cpu: String,
    pub(super) cores: usize,
    pub(super) memory_bytes: u64,
}

impl Machine {
    pub(super) fn read() -> Self {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let cpu_info = read("/proc/cpuinfo");
        let model = cpu_info.lines().find_map(|line| {
            Some(
                line.strip_prefix("model name")?
                    .split_once(':')?
                    .1
                    .trim()
                    .to_string(),
            )
        });
        Machine {
            kernel: format!(
                "{} {}",
                read("/proc/sys/kernel/ostype").trim(),
                read("/proc/sys/kernel/osrelease").trim()
            )
            .trim()
            .to_string(),
            cpu: model.unwrap_or_else(|| std::env::consts::ARCH.to_string()),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            memory_bytes: kib(&read("/proc/meminfo"), "MemTotal").unwrap_or(0),
        }
    }
}

/// Ports that the kernel picks from for dials, per source address and destination: the first and
/// the last.
pub(super) fn ephemeral_ports() -> (u16, u16) {
    let range = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    let mut bounds = range
        .split_ascii_whitespace()
        .filter_map(|bound| bound.parse::<u16>().ok());
    match (bounds.next(), bounds.next()) {
        // With fewer it could not be shared among workers.
        (Some(first), Some(last)) if last.saturating_sub(first) >= 2048 => (first, last),
        // What IANA sets aside (RFC 6335).
        _ => (49_152, 65_535),
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn process_usage_is_read_from_proc() {
        let me = Watched {
            pids: vec![std::process::id()],
        };
        let before = me.usage().expect("we run");
        let busy = std::time::Instant::now();
        let used = loop {
            // On a busy machine this thread may wait for a processor first.
            std::hint::black_box((0..100_000).sum::<u64>());
            let used = me.usage().expect("we run").since(before);
            if used.cpu_ns > 1_000_000 || busy.elapsed().as_secs() > 20 {
                break used;
            }
        };
        assert!(used.cpu_ns > 1_000_000, "{used:?}");
        assert!(
            used.threads > 0
                && used.descriptors.is_none_or(|count| count > 2)
                && used.rss_bytes > 100_000,
            "{used:?}"
        );
        assert!(me.exact_rss_bytes().expect("we run") > 100_000);
        assert!(me.threads().values().any(|cpu| cpu.used_ns > 1_000_000));
        assert!(me.cores() >= std::thread::available_parallelism().map_or(1, usize::from));
    }

    #[test]
    fn busiest_thread_is_measured_between_samples() {
        let cpu = |used_ns, wait_ns| Cpu { used_ns, wait_ns };
        let earlier = Threads::from([(1, cpu(1000, 100)), (2, cpu(0, 0)), (3, cpu(7, 0))]);
        let now = Threads::from([(1, cpu(1050, 190)), (2, cpu(60, 5)), (4, cpu(10, 0))]);
        assert_eq!(busiest(&now, &earlier), Some(cpu(60, 5)));
        assert_eq!(busiest(&now, &now), Some(cpu(0, 0)));
        assert_eq!(busiest(&Threads::new(), &earlier), None);
    }

    #[test]
    fn cores_are_listed_one_by_one_or_in_ranges() {
        assert_eq!(cores("0-2,8,10-11"), [0, 1, 2, 8, 10, 11]);
        assert_eq!(cores("5"), [5]);
        assert_eq!(cores(""), [0; 0]);
    }

    #[test]
    fn missing_process_has_no_usage() {
        assert_eq!(Watched::default().usage(), None);
        // No pid is as large (proc_sys_kernel(5), pid_max).
        assert_eq!(
            Watched {
                pids: vec![u32::MAX]
            }
            .usage(),
            None
        );
    }

    #[test]
    fn proc_fields_are_matched_by_full_name() {
        let text = "nonvoluntary_ctxt_switches:\t3\nvoluntary_ctxt_switches:\t5\nVmRSS:\t  12 kB\n";
        assert_eq!(figure(text, "voluntary_ctxt_switches"), Some(5));
        assert_eq!(kib(text, "VmRSS"), Some(12 * 1024));
        assert_eq!(figure(text, "Vm"), None);
    }
}
