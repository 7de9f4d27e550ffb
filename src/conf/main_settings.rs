//! The settings of the main context: how the processes and threads are set up. Frozen; no value here is "unset".

use crate::base::cidr::Cidr;
use crate::base::level::Level;
use crate::conf::log_target::LogTarget;
use std::time::Duration;

/// One `error_log` of the main context.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ErrorLog {
    /// The path of a file is absolute.
    pub target: LogTarget,
    /// Lines of this level and more severe ones are written. nginx's default is `error`.
    pub level: Level,
}

/// `user`, before its names are looked up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserSetting {
    pub user: String,
    /// Without one it is the group of the user's own name, as in nginx.
    pub group: Option<String>,
    /// How messages name the place of the directive: ` in /etc/thalweg/nginx.conf:3`, or nothing.
    pub place: String,
}

/// `worker_processes`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WorkerCount {
    /// One for each processor that the process may run on.
    Auto,
    /// So many; 0 is taken as 1, and more than [`MAX_WORKERS`] as [`MAX_WORKERS`].
    Fixed(u32),
}

/// The most worker threads that are started, whatever the configuration says: each holds a socket per address.
pub const MAX_WORKERS: usize = 1024;

impl WorkerCount {
    /// The number of workers on a machine that offers `processors`; 1 to [`MAX_WORKERS`].
    pub fn resolve(self, processors: usize) -> usize {
        let wanted = match self {
            Self::Auto => processors,
            Self::Fixed(count) => count as usize,
        };
        wanted.clamp(1, MAX_WORKERS)
    }
}

/// A set of processors, by number. `worker_cpu_affinity` writes it as binary digits, processor 0 on the right.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CpuMask(pub Vec<usize>);

/// The most processors that a mask may speak of (the kernel's `CPU_SETSIZE`).
pub const MAX_PROCESSORS: usize = 1024;

impl CpuMask {
    /// Reads nginx's form: binary digits, spaces between them ignored. The error is nginx's message.
    pub fn parse(text: &str) -> Result<Self, String> {
        let digits: Vec<char> = text.chars().filter(|digit| *digit != ' ').collect();
        if digits.len() > MAX_PROCESSORS {
            return Err(format!("\"worker_cpu_affinity\" supports up to {MAX_PROCESSORS} CPUs only"));
        }
        let mut processors = Vec::new();
        for (number, digit) in digits.iter().rev().enumerate() {
            match digit {
                '0' => {}
                '1' => processors.push(number),
                other => return Err(format!("invalid character \"{other}\" in \"worker_cpu_affinity\"")),
            }
        }
        Ok(Self(processors))
    }
}

/// `worker_cpu_affinity`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum CpuAffinity {
    /// The scheduler decides.
    #[default]
    None,
    /// One processor for each worker in turn, of those that the mask allows (all, without one).
    Auto(Option<CpuMask>),
    /// A mask for each worker; the last one serves the remaining workers. Never empty.
    Masks(Vec<CpuMask>),
}

impl CpuAffinity {
    /// The processors that a worker is bound to, where `available` are those that the process may use; `None` leaves it
    /// unbound.
    pub fn of_worker(&self, worker: usize, available: &[usize]) -> Option<Vec<usize>> {
        let processors = match self {
            Self::None => return None,
            Self::Masks(masks) => masks.get(worker).or(masks.last())?.0.clone(),
            Self::Auto(mask) => {
                let allowed: Vec<usize> = match mask {
                    Some(mask) => {
                        mask.0.iter().copied().filter(|number| available.contains(number)).collect()
                    }
                    None => available.to_vec(),
                };
                vec![*allowed.get(worker.checked_rem(allowed.len())?)?]
            }
        };
        (!processors.is_empty()).then_some(processors)
    }
}

/// `env NAME` keeps a variable of the environment, `env NAME=VALUE` sets one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EnvSetting {
    pub name: String,
    pub value: Option<String>,
}

/// The environment that the server process and an upgraded binary get: of `inherited` what `settings` keep (and always
/// `TZ`), and what they set. nginx removes the rest, too.
pub fn effective_environment(
    settings: &[EnvSetting],
    inherited: &[(String, String)],
) -> Vec<(String, String)> {
    let mut kept: Vec<(String, String)> = Vec::new();
    let always = EnvSetting { name: "TZ".to_owned(), value: None };
    for setting in settings.iter().chain([&always]) {
        if kept.iter().any(|(name, _)| *name == setting.name) {
            continue;
        }
        let value = setting.value.clone().or_else(|| {
            inherited.iter().find(|(name, _)| *name == setting.name).map(|(_, value)| value.clone())
        });
        kept.extend(value.map(|value| (setting.name.clone(), value)));
    }
    kept
}

/// Everything that the main context says about processes, with nginx's defaults.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MainSettings {
    /// `daemon`: leave the terminal and go on in the background.
    pub daemon: bool,
    /// `master_process`: watch over the server process. Off, everything runs in one process.
    pub master_process: bool,
    /// `pid`: relative to the prefix.
    pub pid: String,
    pub worker_processes: WorkerCount,
    pub worker_cpu_affinity: CpuAffinity,
    /// `user`; has a meaning only when started as root. `None` is the built-in default, `nobody`.
    pub user: Option<UserSetting>,
    /// `worker_priority`: the niceness of the workers, -20 to 20.
    pub worker_priority: i32,
    /// `worker_rlimit_nofile`: descriptors of the server process. Without it the soft limit is raised to the hard one.
    pub worker_rlimit_nofile: Option<u64>,
    /// `worker_rlimit_core`: bytes of a core file.
    pub worker_rlimit_core: Option<u64>,
    /// `worker_shutdown_timeout`: how long a graceful end waits for its connections; `None` waits for ever.
    pub worker_shutdown_timeout: Option<Duration>,
    /// `working_directory`: where core files go.
    pub working_directory: Option<String>,
    pub env: Vec<EnvSetting>,
    /// `error_log` of the main context; empty means the file of the command line or `logs/error.log`, level `error`.
    pub error_logs: Vec<ErrorLog>,
    /// `worker_connections`: connections that one worker may hold.
    pub worker_connections: u32,
    /// `multi_accept`: one wake-up accepts all waiting connections rather than a few.
    pub multi_accept: bool,
    /// `debug_connection`: clients whose connections log at debug level; `None` stands for Unix sockets.
    pub debug_connections: Vec<Cidr>,
}

impl Default for MainSettings {
    fn default() -> Self {
        Self {
            daemon: true,
            master_process: true,
            pid: "logs/nginx.pid".to_owned(),
            worker_processes: WorkerCount::Fixed(1),
            worker_cpu_affinity: CpuAffinity::None,
            user: None,
            worker_priority: 0,
            worker_rlimit_nofile: None,
            worker_rlimit_core: None,
            worker_shutdown_timeout: None,
            working_directory: None,
            env: Vec::new(),
            error_logs: Vec::new(),
            worker_connections: 512,
            multi_accept: false,
            debug_connections: Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mask_names_processors_from_the_right() {
        assert_eq!(CpuMask::parse("0101").unwrap(), CpuMask(vec![0, 2]));
        assert_eq!(CpuMask::parse("1000 0000").unwrap(), CpuMask(vec![7]));
        let error = CpuMask::parse("012").unwrap_err();
        assert_eq!(error, "invalid character \"2\" in \"worker_cpu_affinity\"");
        assert!(CpuMask::parse(&"1".repeat(MAX_PROCESSORS + 1)).is_err());
    }

    #[test]
    fn the_last_mask_serves_the_remaining_workers() {
        let affinity = CpuAffinity::Masks(vec![CpuMask(vec![0]), CpuMask(vec![1, 2])]);
        assert_eq!(affinity.of_worker(0, &[0, 1, 2]), Some(vec![0]));
        assert_eq!(affinity.of_worker(5, &[0, 1, 2]), Some(vec![1, 2]));
        assert_eq!(CpuAffinity::Masks(vec![CpuMask(vec![])]).of_worker(0, &[0]), None);
    }

    #[test]
    fn automatic_affinity_goes_round_the_allowed_processors() {
        let all = CpuAffinity::Auto(None);
        let bound: Vec<_> = (0..3).map(|worker| all.of_worker(worker, &[2, 5])).collect();
        assert_eq!(bound, [Some(vec![2]), Some(vec![5]), Some(vec![2])]);
        let masked = CpuAffinity::Auto(Some(CpuMask(vec![1, 5])));
        assert_eq!(masked.of_worker(1, &[2, 5]), Some(vec![5]));
        assert_eq!(CpuAffinity::Auto(Some(CpuMask(vec![9]))).of_worker(0, &[0]), None);
    }

    #[test]
    fn worker_counts_stay_within_their_bounds() {
        assert_eq!(WorkerCount::Auto.resolve(4), 4);
        assert_eq!(WorkerCount::Fixed(0).resolve(4), 1);
        assert_eq!(WorkerCount::Fixed(u32::MAX).resolve(4), MAX_WORKERS);
    }

    #[test]
    fn the_environment_keeps_only_what_is_named_and_the_time_zone() {
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let inherited = [pair("TZ", "UTC"), pair("HOME", "/root"), pair("A", "1"), pair("B", "2")];
        let setting = |name: &str, value: Option<&str>| EnvSetting {
            name: name.to_owned(),
            value: value.map(str::to_owned),
        };
        let settings = [setting("A", None), setting("B", Some("3")), setting("MISSING", None)];
        let kept = effective_environment(&settings, &inherited);
        assert_eq!(kept, [pair("A", "1"), pair("B", "3"), pair("TZ", "UTC")]);
    }
}
