//! The frozen configuration that workers serve from.

use crate::conf::files::Files;
use crate::conf::listen::{ListenDirective, ListenTable};
use crate::conf::main_settings::{
    CpuAffinity, CpuMask, EnvSetting, ErrorLog, LogTarget, MainSettings, UserSetting, WorkerCount,
};
use crate::conf::values::{parse_flag, parse_number, parse_size, parse_time_ms};
use std::net::IpAddr;
use std::time::Duration;

/// Everything that a configuration says, ready to be served from. Immutable; a reload makes a new one.
#[derive(Debug, Default)]
pub struct Site {
    pub main: MainSettings,
    pub listens: ListenTable,
    /// The text of `return 200 TEXT`.
    pub answer: String,
}

/// Finds the addresses of a host name that a configuration mentions; empty when there are none.
pub type Resolve<'a> = &'a mut dyn FnMut(&str) -> Vec<IpAddr>;

/// What a site is built from.
pub struct SiteInput<'a> {
    /// The path of the main file.
    pub path: &'a str,
    /// The argument of `-g`.
    pub directives: &'a str,
    pub files: &'a mut dyn Files,
    /// `None` leaves names alone: they are only checked for their form.
    pub resolve: Option<Resolve<'a>>,
}

/// Why a site could not be built.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SiteErrors {
    /// One line each, in nginx's form without the level: `unknown directive "foo" in /path/file:12`.
    pub lines: Vec<String>,
    /// The same at length, for a terminal.
    pub rendered: String,
}

/// Builds a site from text.
pub fn build_site(input: SiteInput<'_>) -> Result<Site, SiteErrors> {
    let mut resolve = input.resolve;
    let text = input.files.read(input.path).map_err(|error| failure(error.message(input.path)))?;
    let text = String::from_utf8_lossy(&text).into_owned();
    let mut site = Site::default();
    let mut server = 0;
    for (source, place) in [(input.directives, None), (text.as_str(), Some(input.path))] {
        for (number, line) in source.lines().enumerate() {
            let place = match place {
                None => " in command line".to_owned(),
                Some(path) => format!(" in {path}:{}", number + 1),
            };
            for statement in line.split_inclusive(['{', '}', ';']) {
                let words: Vec<&str> =
                    statement.trim_end_matches(['{', '}', ';']).split_whitespace().collect();
                let Some((name, arguments)) = words.split_first() else { continue };
                if *name == "server" {
                    server += 1;
                }
                directive(&mut site, server, name, arguments, &place, &mut resolve)
                    .map_err(|message| failure(format!("{message}{place}")))?;
            }
        }
    }
    Ok(site)
}

fn failure(line: String) -> SiteErrors {
    SiteErrors { rendered: format!("thalweg: [emerg] {line}\n"), lines: vec![line] }
}

fn directive(
    site: &mut Site,
    server: usize,
    name: &str,
    arguments: &[&str],
    place: &str,
    resolve: &mut Option<Resolve<'_>>,
) -> Result<(), String> {
    let main = &mut site.main;
    let first = arguments.first().copied().unwrap_or_default();
    let invalid = || format!("\"{name}\" directive invalid value");
    match name {
        "daemon" => main.daemon = parse_flag(first.as_bytes()).map_err(|_| invalid())?,
        "master_process" => main.master_process = parse_flag(first.as_bytes()).map_err(|_| invalid())?,
        "pid" => main.pid = first.to_owned(),
        "worker_processes" if first == "auto" => main.worker_processes = WorkerCount::Auto,
        "worker_processes" => {
            let count = parse_number(first.as_bytes()).map_err(|_| invalid())?;
            main.worker_processes = WorkerCount::Fixed(u32::try_from(count).unwrap_or(u32::MAX));
        }
        "worker_cpu_affinity" if first == "auto" => {
            let mask = arguments.get(1).map(|mask| CpuMask::parse(mask)).transpose()?;
            main.worker_cpu_affinity = CpuAffinity::Auto(mask);
        }
        "worker_cpu_affinity" => {
            let masks = arguments.iter().map(|mask| CpuMask::parse(mask)).collect::<Result<_, _>>()?;
            main.worker_cpu_affinity = CpuAffinity::Masks(masks);
        }
        "user" => {
            main.user = Some(UserSetting {
                user: first.to_owned(),
                group: arguments.get(1).map(|group| (*group).to_owned()),
                place: place.to_owned(),
            });
        }
        "worker_priority" => main.worker_priority = first.parse().map_err(|_| invalid())?,
        "worker_rlimit_nofile" => {
            main.worker_rlimit_nofile = Some(parse_number(first.as_bytes()).map_err(|_| invalid())?);
        }
        "worker_rlimit_core" => {
            main.worker_rlimit_core = Some(parse_size(first.as_bytes()).map_err(|_| invalid())?);
        }
        "worker_shutdown_timeout" => {
            let time = parse_time_ms(first.as_bytes()).map_err(|_| invalid())?;
            main.worker_shutdown_timeout = Some(Duration::from_millis(time));
        }
        "working_directory" => main.working_directory = Some(first.to_owned()),
        "env" => {
            let (name, value) = match first.split_once('=') {
                Some((name, value)) => (name, Some(value.to_owned())),
                None => (first, None),
            };
            main.env.push(EnvSetting { name: name.to_owned(), value });
        }
        "error_log" => {
            let target = match first {
                "stderr" => LogTarget::Stderr,
                _ => LogTarget::File(first.to_owned()),
            };
            let level = arguments.get(1).copied().unwrap_or("error");
            let level = crate::base::level::Level::parse(level.as_bytes())
                .ok_or_else(|| format!("invalid log level \"{level}\""))?;
            main.error_logs.push(ErrorLog { target, level });
        }
        "listen" => {
            let directive = ListenDirective::parse(arguments)?;
            let found = match (directive.name(), resolve) {
                (None, _) => Vec::new(),
                (Some(_), None) => return Ok(()),
                (Some(name), Some(resolve)) => resolve(name),
            };
            for listen in directive.addresses(&found)? {
                site.listens.add(server, &listen)?;
            }
        }
        "return" => site.answer = arguments.get(1).copied().unwrap_or_default().to_owned(),
        "events" | "http" | "server" | "lock_file" | "location" | "access_log" | "worker_connections" => {}
        "#" => {}
        _ => return Err(format!("unknown directive \"{name}\"")),
    }
    Ok(())
}
