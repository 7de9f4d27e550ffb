//! What a server process sets up for itself before it has threads: limits, folder, environment, and whom its threads
//! become.

use super::startup_log::StartupLog;
use crate::base::level::Level;
use crate::conf::main_settings::{MainSettings, UserSetting, effective_environment};
use crate::server::listeners::describe;
use crate::server::runtime::{Identity, ThreadSettings};
use crate::server::sys;
use rustix::process::{DumpableBehavior, Resource, Rlimit, getrlimit, set_dumpable_behavior, setrlimit};

/// Whom threads become without a `user` directive, as in nginx.
const DEFAULT_USER: &str = "nobody";

/// Looks the user of the workers up; `None` when the process was not started as root and can't become anybody.
/// The error is nginx's message.
pub fn identity(setting: Option<&UserSetting>) -> Result<Option<Identity>, String> {
    if !rustix::process::geteuid().is_root() {
        return Ok(None);
    }
    let place = setting.map_or("", |setting| setting.place.as_str());
    let name = setting.map_or(DEFAULT_USER, |setting| setting.user.as_str());
    let failed = |call: &str, name: &str, error: std::io::Error| {
        format!("{call}(\"{name}\") failed ({}){place}", describe(&error))
    };
    let user = sys::find_user(name)
        .map_err(|error| failed("getpwnam", name, error))?
        .ok_or_else(|| format!("getpwnam(\"{name}\") failed{place}"))?;
    let group = match setting {
        // The built-in user's own group: systems disagree about the name (nobody, nogroup).
        None => user.group,
        Some(setting) => {
            let group = setting.group.as_deref().unwrap_or(name);
            sys::find_group(group)
                .map_err(|error| failed("getgrnam", group, error))?
                .ok_or_else(|| format!("getgrnam(\"{group}\") failed{place}"))?
        }
    };
    let groups = sys::groups_of_user(name, group).map_err(|error| failed("getgrouplist", name, error))?;
    Ok(Some(Identity { name: name.to_owned(), user: user.user, group, groups }))
}

/// How the worker threads are set up. The error is a message.
pub fn thread_settings(main: &MainSettings) -> Result<ThreadSettings, String> {
    Ok(ThreadSettings {
        affinity: main.worker_cpu_affinity.clone(),
        priority: main.worker_priority,
        identity: identity(main.user.as_ref())?,
    })
}

/// Applies the limits of the process; called at the start and after each reload. Nothing here is a reason to stop.
pub fn apply_limits(main: &MainSettings, log: &StartupLog) {
    let mut wanted = getrlimit(Resource::Nofile);
    match main.worker_rlimit_nofile {
        Some(limit) => wanted = Rlimit { current: Some(limit), maximum: Some(limit) },
        // A server needs all it may have.
        None => wanted.current = wanted.maximum,
    }
    set_limit(Resource::Nofile, wanted, "RLIMIT_NOFILE", log);
    if let Some(limit) = main.worker_rlimit_core {
        let wanted = Rlimit { current: Some(limit), maximum: Some(limit) };
        set_limit(Resource::Core, wanted, "RLIMIT_CORE", log);
    }
}

fn set_limit(resource: Resource, wanted: Rlimit, name: &str, log: &StartupLog) {
    if wanted == getrlimit(resource) {
        return;
    }
    if let Err(error) = setrlimit(resource, wanted) {
        let value = wanted.current.map_or_else(|| "infinity".to_owned(), |limit| limit.to_string());
        log.write(Level::Alert, &format!("setrlimit({name}, {value}) failed ({})", describe(&error.into())));
    }
}

/// The variables that are left for the server process and an upgraded binary.
pub fn environment(main: &MainSettings) -> Vec<(String, String)> {
    let inherited: Vec<(String, String)> = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect();
    effective_environment(&main.env, &inherited)
}

/// Sets up what can't change later. To be called while there is one thread.
pub fn settle(main: &MainSettings, log: &StartupLog) -> Result<(), String> {
    apply_limits(main, log);
    if let Some(folder) = &main.working_directory {
        std::env::set_current_dir(folder)
            .map_err(|error| format!("chdir(\"{folder}\") failed ({})", describe(&error)))?;
    }
    sys::replace_environment(&environment(main))
        .map_err(|error| format!("clearing the environment failed ({})", describe(&error)))
}

/// Lets the kernel write core files although threads changed their user, if core files are wanted.
pub fn allow_core_files(main: &MainSettings) {
    if main.worker_rlimit_core.is_some_and(|limit| limit != 0) {
        let _ = set_dumpable_behavior(DumpableBehavior::Dumpable);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_users_and_groups_are_told_with_their_place() {
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let setting = |user: &str, group: Option<&str>| UserSetting {
            user: user.to_owned(),
            group: group.map(str::to_owned),
            place: " in /a.conf:3".to_owned(),
        };
        let error = identity(Some(&setting("nosuch", None))).unwrap_err();
        assert_eq!(error, "getpwnam(\"nosuch\") failed in /a.conf:3");
        let error = identity(Some(&setting("root", Some("nosuchg")))).unwrap_err();
        assert_eq!(error, "getgrnam(\"nosuchg\") failed in /a.conf:3");
        let root = identity(Some(&setting("root", None))).unwrap().unwrap();
        assert_eq!((root.user, root.group), (0, 0));
        assert_ne!(identity(None).unwrap().unwrap().user, 0);
    }
}
