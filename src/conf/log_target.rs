//! Where log lines go: the words of `error_log`, `access_log` and `open_log_file_cache`, with nginx's rules and texts.
//!
//! Pure parsing: paths are left as they stand (the caller puts the prefix in front) and names of syslog servers are
//! not resolved here.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::base::level::Level;
use crate::conf::values::{parse_number, parse_size, parse_time_ms, parse_time_s};

/// The port of a syslog server that names none.
pub const SYSLOG_PORT: u16 = 514;
/// Longest `tag=` of a syslog target, in bytes (RFC 3164, 4.1.3).
pub const SYSLOG_TAG_MAX: usize = 32;
/// `buffer=` where `gzip` stands alone, in bytes.
pub const GZIP_BUFFER: u64 = 64 * 1024;
/// Compression level where `gzip` stands alone.
pub const GZIP_LEVEL: u8 = 1;

/// A place for log lines.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum LogTarget {
    /// A file, as written in the configuration.
    File(Vec<u8>),
    /// The standard error stream (`error_log stderr`, or an empty name).
    Stderr,
    Syslog(SyslogTarget),
}

/// `syslog:server=...`: one datagram a line.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SyslogTarget {
    pub server: SyslogServer,
    /// 0 (kern) to 23 (local7).
    pub facility: u8,
    /// Severity of access lines; error lines carry their own.
    pub severity: Level,
    /// Up to [`SYSLOG_TAG_MAX`] letters, digits and underscores.
    pub tag: Vec<u8>,
    /// Leave the host name out of each line.
    pub without_hostname: bool,
}

/// The address of a syslog server.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum SyslogServer {
    Udp(SocketAddr),
    /// A name to be resolved when the logs are opened.
    Name {
        host: String,
        port: u16,
    },
    /// Path of a datagram socket.
    Unix(Vec<u8>),
}

/// RFC 3164's facilities by nginx's names; a facility's code is its place.
const FACILITIES: [&str; 24] = [
    "kern", "user", "mail", "daemon", "auth", "intern", "lpr", "news", "uucp", "clock", "authpriv", "ftp",
    "ntp", "audit", "alert", "cron", "local0", "local1", "local2", "local3", "local4", "local5", "local6",
    "local7",
];
const LOCAL7: u8 = 23;

impl LogTarget {
    /// The first word of `error_log`. The error is nginx's text without its place.
    pub fn parse_error_log(word: &[u8]) -> Result<LogTarget, String> {
        if word == b"stderr" {
            return Ok(LogTarget::Stderr);
        }
        if word.starts_with(b"memory:") {
            return Err(format!(
                "\"{}\" is not supported: logs in memory are made for a debugger that knows nginx",
                text(word)
            ));
        }
        LogTarget::parse_access_log(word)
    }

    /// The first word of `access_log` (one without variables, and not `off`). `stderr` and `memory:` are plain file
    /// names here, as in nginx.
    pub fn parse_access_log(word: &[u8]) -> Result<LogTarget, String> {
        match word.strip_prefix(b"syslog:") {
            Some(parameters) => SyslogTarget::parse(parameters).map(LogTarget::Syslog),
            None if word.is_empty() => Ok(LogTarget::Stderr),
            None => Ok(LogTarget::File(word.to_vec())),
        }
    }

    /// The word of `error_log` that stands for this target, with an absolute path.
    pub fn word(&self) -> Vec<u8> {
        match self {
            LogTarget::File(path) => path.clone(),
            LogTarget::Stderr => b"stderr".to_vec(),
            LogTarget::Syslog(target) => [b"syslog:".as_slice(), &target.parameters()].concat(),
        }
    }

    /// True if lines go to a syslog server.
    pub fn is_syslog(&self) -> bool {
        matches!(self, LogTarget::Syslog(_))
    }
}

impl SyslogTarget {
    /// What [`SyslogTarget::parse`] reads.
    fn parameters(&self) -> Vec<u8> {
        let mut out = b"server=".to_vec();
        match &self.server {
            SyslogServer::Udp(address) => out.extend_from_slice(address.to_string().as_bytes()),
            SyslogServer::Name { host, port } => out.extend_from_slice(format!("{host}:{port}").as_bytes()),
            SyslogServer::Unix(path) => {
                out.extend_from_slice(b"unix:");
                out.extend_from_slice(path);
            }
        }
        let facility = FACILITIES.get(usize::from(self.facility)).copied().unwrap_or("local7");
        let severity = self.severity.name();
        out.extend_from_slice(format!(",facility={facility},severity={severity},tag=").as_bytes());
        out.extend_from_slice(&self.tag);
        if self.without_hostname {
            out.extend_from_slice(b",nohostname");
        }
        out
    }

    /// What stands behind `syslog:`, parameters with commas between them.
    pub fn parse(parameters: &[u8]) -> Result<SyslogTarget, String> {
        let (mut server, mut facility, mut severity, mut tag) = (None, None, None, None);
        let mut without_hostname = false;
        for parameter in parameters.split(|&byte| byte == b',') {
            if let Some(value) = parameter.strip_prefix(b"server=") {
                set_once(&mut server, "server", || parse_server(value))?;
            } else if let Some(value) = parameter.strip_prefix(b"facility=") {
                set_once(&mut facility, "facility", || parse_facility(value))?;
            } else if let Some(value) = parameter.strip_prefix(b"severity=") {
                set_once(&mut severity, "severity", || parse_severity(value))?;
            } else if let Some(value) = parameter.strip_prefix(b"tag=") {
                set_once(&mut tag, "tag", || parse_tag(value))?;
            } else if parameter == b"nohostname" {
                without_hostname = true;
            } else {
                return Err(format!("unknown syslog parameter \"{}\"", text(parameter)));
            }
        }
        Ok(SyslogTarget {
            server: server.ok_or("no syslog server specified")?,
            facility: facility.unwrap_or(LOCAL7),
            severity: severity.unwrap_or(Level::Info),
            tag: tag.unwrap_or_else(|| b"nginx".to_vec()),
            without_hostname,
        })
    }
}

fn set_once<T>(
    slot: &mut Option<T>,
    name: &str,
    parse: impl FnOnce() -> Result<T, String>,
) -> Result<(), String> {
    if slot.is_some() {
        return Err(format!("duplicate syslog \"{name}\""));
    }
    *slot = Some(parse()?);
    Ok(())
}

fn parse_facility(value: &[u8]) -> Result<u8, String> {
    FACILITIES
        .iter()
        .position(|name| name.as_bytes() == value)
        .map(|code| code as u8)
        .ok_or_else(|| format!("unknown syslog facility \"{}\"", text(value)))
}

fn parse_severity(value: &[u8]) -> Result<Level, String> {
    Level::ALL
        .into_iter()
        .find(|level| level.name().as_bytes() == value)
        .ok_or_else(|| format!("unknown syslog severity \"{}\"", text(value)))
}

fn parse_tag(value: &[u8]) -> Result<Vec<u8>, String> {
    if value.len() > SYSLOG_TAG_MAX {
        return Err(format!("syslog tag length exceeds {SYSLOG_TAG_MAX}"));
    }
    if !value.iter().all(|&byte| byte.is_ascii_alphanumeric() || byte == b'_') {
        return Err("syslog \"tag\" only allows alphanumeric characters and underscore".into());
    }
    Ok(value.to_vec())
}

fn parse_server(value: &[u8]) -> Result<SyslogServer, String> {
    let refuse = |reason: &str| format!("{reason} in syslog server \"{}\"", text(value));
    if let Some(path) = value.strip_prefix(b"unix:") {
        // sun_path holds 108 bytes, the last one a zero.
        return match path.len() {
            0 => Err(refuse("no path in the unix domain socket")),
            1..108 => Ok(SyslogServer::Unix(path.to_vec())),
            _ => Err(refuse("too long path in the unix domain socket")),
        };
    }
    let (host, port) = if value.starts_with(b"[") {
        let end = value.iter().position(|&byte| byte == b']').ok_or_else(|| refuse("invalid host"))?;
        match &value[end + 1..] {
            [] => (&value[1..end], None),
            [b':', port @ ..] => (&value[1..end], Some(port)),
            _ => return Err(refuse("invalid host")),
        }
    } else {
        match value.iter().position(|&byte| byte == b':') {
            Some(colon) => (&value[..colon], Some(&value[colon + 1..])),
            None => (value, None),
        }
    };
    let port = match port {
        None => SYSLOG_PORT,
        Some(port) => parse_number(port)
            .ok()
            .and_then(|port| u16::try_from(port).ok())
            .filter(|&port| port != 0)
            .ok_or_else(|| refuse("invalid port"))?,
    };
    if host.is_empty() {
        return Err(refuse("no host"));
    }
    let host = std::str::from_utf8(host).map_err(|_| refuse("invalid host"))?;
    if value.starts_with(b"[") {
        let address: Ipv6Addr = host.parse().map_err(|_| refuse("invalid IPv6 address"))?;
        return Ok(SyslogServer::Udp(SocketAddr::new(IpAddr::V6(address), port)));
    }
    if host.contains('/') {
        return Err(refuse("invalid host"));
    }
    match host.parse::<Ipv4Addr>() {
        Ok(address) => Ok(SyslogServer::Udp(SocketAddr::new(IpAddr::V4(address), port))),
        Err(_) => Ok(SyslogServer::Name { host: host.to_owned(), port }),
    }
}

/// The levels behind the target of `error_log`; none means `error`. A plain level stands alone, the `debug_*` masks
/// may be several.
pub fn parse_error_levels<'a>(words: impl IntoIterator<Item = &'a [u8]>) -> Result<Level, String> {
    let mut chosen: Option<(Level, bool)> = None;
    for word in words {
        let level = Level::parse(word).ok_or_else(|| format!("invalid log level \"{}\"", text(word)))?;
        let is_mask = word.starts_with(b"debug_");
        match chosen {
            Some(_) if !is_mask => return Err(format!("duplicate log level \"{}\"", text(word))),
            // A mask narrows "debug" down; behind a plain level it has nothing to narrow.
            Some((_, false)) => return Err(format!("invalid log level \"{}\"", text(word))),
            _ => chosen = Some((level, is_mask)),
        }
    }
    Ok(chosen.map_or(Level::Error, |(level, _)| level))
}

/// How lines of a file are gathered: `buffer=`, `flush=`, `gzip` of `access_log`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct AccessLogOptions {
    /// Bytes to gather before a write; `None`: lines are written at the end of each loop turn.
    pub buffer: Option<u64>,
    /// Longest time that a line waits in the buffer, in milliseconds; `None`: until the buffer is full.
    pub flush_ms: Option<u64>,
    /// Compression level, 1 to 9, each written buffer a gzip member of its own.
    pub gzip: Option<u8>,
}

/// The words of `access_log` behind the format.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AccessLogParameters<'a> {
    pub options: AccessLogOptions,
    /// The text behind `if=`, a template.
    pub condition: Option<&'a [u8]>,
}

/// What the target of an `access_log` is, as far as its parameters depend on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AccessLogKind {
    Path,
    PathWithVariables,
    Syslog,
}

impl<'a> AccessLogParameters<'a> {
    /// Reads the words behind the format of `access_log target format ...`. A parameter that stands twice counts by
    /// its last one, as in nginx.
    pub fn parse(
        target: &[u8],
        kind: AccessLogKind,
        words: impl IntoIterator<Item = &'a [u8]>,
    ) -> Result<AccessLogParameters<'a>, String> {
        let mut parameters = AccessLogParameters::default();
        let options = &mut parameters.options;
        for word in words {
            if let Some(value) = word.strip_prefix(b"buffer=") {
                options.buffer = Some(parse_nonzero(parse_size(value), "buffer size", value)?);
            } else if let Some(value) = word.strip_prefix(b"flush=") {
                options.flush_ms = Some(parse_nonzero(parse_time_ms(value), "flush time", value)?);
            } else if word == b"gzip" {
                options.gzip = Some(GZIP_LEVEL);
            } else if let Some(value) = word.strip_prefix(b"gzip=") {
                let level = parse_number(value).ok().filter(|level| (1..=9).contains(level));
                let level = level.ok_or_else(|| format!("invalid compression level \"{}\"", text(value)))?;
                options.gzip = Some(level as u8);
            } else if let Some(value) = word.strip_prefix(b"if=") {
                parameters.condition = Some(value);
            } else {
                return Err(format!("invalid parameter \"{}\"", text(word)));
            }
        }
        if options.gzip.is_some() && options.buffer.is_none() {
            options.buffer = Some(GZIP_BUFFER);
        }
        match (options.buffer, kind) {
            (None, _) if options.flush_ms.is_some() => {
                Err(format!("no buffer is defined for access_log \"{}\"", text(target)))
            }
            (Some(_), AccessLogKind::PathWithVariables) => {
                Err("buffered logs cannot have variables in name".into())
            }
            (Some(_), AccessLogKind::Syslog) => Err("logs to syslog cannot be buffered".into()),
            _ => Ok(parameters),
        }
    }
}

fn parse_nonzero<E>(parsed: Result<u64, E>, what: &str, value: &[u8]) -> Result<u64, String> {
    match parsed {
        Ok(number) if number > 0 => Ok(number),
        _ => Err(format!("invalid {what} \"{}\"", text(value))),
    }
}

/// `open_log_file_cache max=... inactive=... min_uses=... valid=...`: descriptors kept for paths with variables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpenLogFileCache {
    /// Most descriptors kept; the longest unused goes first.
    pub max: usize,
    /// A descriptor unused for so long is closed, in milliseconds.
    pub inactive_ms: u64,
    /// Uses within `inactive` before a descriptor is kept at all.
    pub min_uses: u64,
    /// After so long it is checked that the path still names the same file, in milliseconds.
    pub valid_ms: u64,
}

impl OpenLogFileCache {
    /// The words behind the directive's name; `None` is `off`.
    pub fn parse<'a>(words: impl IntoIterator<Item = &'a [u8]>) -> Result<Option<OpenLogFileCache>, String> {
        let (mut max, mut inactive, mut min_uses, mut valid) = (0, 10, 1, 60);
        let mut is_off = false;
        for word in words {
            let refuse = || format!("invalid \"open_log_file_cache\" parameter \"{}\"", text(word));
            if let Some(value) = word.strip_prefix(b"max=") {
                max = parse_number(value).map_err(|_| refuse())?;
            } else if let Some(value) = word.strip_prefix(b"inactive=") {
                inactive = parse_time_s(value).map_err(|_| refuse())?;
            } else if let Some(value) = word.strip_prefix(b"min_uses=") {
                min_uses = parse_number(value).map_err(|_| refuse())?;
            } else if let Some(value) = word.strip_prefix(b"valid=") {
                valid = parse_time_s(value).map_err(|_| refuse())?;
            } else if word == b"off" {
                is_off = true;
            } else {
                return Err(refuse());
            }
        }
        if is_off {
            return Ok(None);
        }
        if max == 0 {
            return Err("\"open_log_file_cache\" must have \"max\" parameter".into());
        }
        Ok(Some(OpenLogFileCache {
            max: usize::try_from(max).unwrap_or(usize::MAX),
            inactive_ms: inactive.saturating_mul(1000),
            min_uses,
            valid_ms: valid.saturating_mul(1000),
        }))
    }
}

fn text(bytes: &[u8]) -> std::borrow::Cow<'_, str> {
    String::from_utf8_lossy(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    // The cases below were answered by nginx 1.22 in `-t`.

    fn syslog(parameters: &str) -> Result<SyslogTarget, String> {
        SyslogTarget::parse(parameters.as_bytes())
    }

    fn words(line: &str) -> Vec<&[u8]> {
        line.split_whitespace().map(str::as_bytes).collect()
    }

    fn options(line: &str) -> Result<AccessLogOptions, String> {
        AccessLogParameters::parse(b"a.log", AccessLogKind::Path, words(line))
            .map(|parameters| parameters.options)
    }

    #[test]
    fn a_syslog_target_reads_every_parameter() {
        let target = syslog("server=[::1]:1514,facility=user,severity=warn,tag=web_1,nohostname").unwrap();
        assert_eq!(
            target,
            SyslogTarget {
                server: SyslogServer::Udp("[::1]:1514".parse().unwrap()),
                facility: 1,
                severity: Level::Warn,
                tag: b"web_1".to_vec(),
                without_hostname: true,
            }
        );
    }

    #[test]
    fn a_syslog_target_has_nginx_defaults() {
        let target = syslog("server=127.0.0.1").unwrap();
        assert_eq!(target.server, SyslogServer::Udp("127.0.0.1:514".parse().unwrap()));
        assert_eq!((target.facility, target.severity, &target.tag[..]), (23, Level::Info, &b"nginx"[..]));
        assert!(!target.without_hostname);
        assert_eq!(syslog("server=127.0.0.1,tag=").unwrap().tag, b"");
    }

    #[test]
    fn syslog_servers_are_addresses_names_and_sockets() {
        assert_eq!(
            syslog("server=unix:/dev/log:1").unwrap().server,
            SyslogServer::Unix(b"/dev/log:1".to_vec())
        );
        assert_eq!(
            syslog("server=logs.example:99").unwrap().server,
            SyslogServer::Name { host: "logs.example".into(), port: 99 }
        );
    }

    #[test]
    fn syslog_errors_have_nginx_texts() {
        for (parameters, error) in [
            ("", "unknown syslog parameter \"\""),
            ("server=127.0.0.1,", "unknown syslog parameter \"\""),
            ("server=127.0.0.1,bar=1", "unknown syslog parameter \"bar=1\""),
            ("nohostname=1,server=127.0.0.1", "unknown syslog parameter \"nohostname=1\""),
            ("facility=local7", "no syslog server specified"),
            ("server=127.0.0.1,facility=foo", "unknown syslog facility \"foo\""),
            ("server=127.0.0.1,severity=warning", "unknown syslog severity \"warning\""),
            ("server=127.0.0.1,severity=debug_http", "unknown syslog severity \"debug_http\""),
            ("server=127.0.0.1,tag=a-b", "syslog \"tag\" only allows alphanumeric characters and underscore"),
            ("server=1.1.1.1,tag=aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "syslog tag length exceeds 32"),
            ("server=127.0.0.1,server=127.0.0.2", "duplicate syslog \"server\""),
            ("server=127.0.0.1,tag=a,tag=b", "duplicate syslog \"tag\""),
            ("server=", "no host in syslog server \"\""),
            ("server=:514", "no host in syslog server \":514\""),
            ("server=[]:1", "no host in syslog server \"[]:1\""),
            ("server=127.0.0.1:0", "invalid port in syslog server \"127.0.0.1:0\""),
            ("server=127.0.0.1:99999", "invalid port in syslog server \"127.0.0.1:99999\""),
            ("server=127.0.0.1:", "invalid port in syslog server \"127.0.0.1:\""),
            ("server=::1", "invalid port in syslog server \"::1\""),
            ("server=[::1", "invalid host in syslog server \"[::1\""),
            ("server=[::1]x", "invalid host in syslog server \"[::1]x\""),
            ("server=[zz]:1", "invalid IPv6 address in syslog server \"[zz]:1\""),
            ("server=127.0.0.1/x", "invalid host in syslog server \"127.0.0.1/x\""),
            ("server=unix:", "no path in the unix domain socket in syslog server \"unix:\""),
        ] {
            assert_eq!(syslog(parameters), Err(error.to_owned()), "{parameters}");
        }
    }

    #[test]
    fn stderr_is_a_stream_for_error_log_and_a_file_for_access_log() {
        assert_eq!(LogTarget::parse_error_log(b"stderr"), Ok(LogTarget::Stderr));
        assert_eq!(LogTarget::parse_access_log(b"stderr"), Ok(LogTarget::File(b"stderr".to_vec())));
        assert_eq!(LogTarget::parse_access_log(b"syslog"), Ok(LogTarget::File(b"syslog".to_vec())));
        assert_eq!(LogTarget::parse_access_log(b""), Ok(LogTarget::Stderr));
        assert!(LogTarget::parse_error_log(b"syslog:server=127.0.0.1").unwrap().is_syslog());
    }

    #[test]
    fn a_log_in_memory_is_refused_with_a_reason() {
        assert!(LogTarget::parse_error_log(b"memory:32k").unwrap_err().contains("not supported"));
    }

    #[test]
    fn error_levels_stand_alone_and_masks_may_be_several() {
        let levels = |line| parse_error_levels(words(line));
        assert_eq!(levels(""), Ok(Level::Error));
        assert_eq!(levels("warn"), Ok(Level::Warn));
        assert_eq!(levels("debug_http debug_core debug_http"), Ok(Level::Debug));
        for (line, error) in [
            ("foo", "invalid log level \"foo\""),
            ("warn info", "duplicate log level \"info\""),
            ("info info", "duplicate log level \"info\""),
            ("debug_http info", "duplicate log level \"info\""),
            ("debug_http debug", "duplicate log level \"debug\""),
            ("info debug_http", "invalid log level \"debug_http\""),
            ("debug debug_http", "invalid log level \"debug_http\""),
        ] {
            assert_eq!(levels(line), Err(error.to_owned()), "{line}");
        }
    }

    #[test]
    fn access_log_options_follow_nginx_defaults() {
        let all = AccessLogOptions { buffer: Some(32768), flush_ms: Some(5000), gzip: Some(4) };
        assert_eq!(options("buffer=32k flush=5s gzip=4"), Ok(all));
        assert_eq!(options(""), Ok(AccessLogOptions::default()));
        let gzip = AccessLogOptions { buffer: Some(65536), flush_ms: None, gzip: Some(1) };
        assert_eq!(options("gzip"), Ok(gzip));
        assert_eq!(options("buffer=4k buffer=8k").unwrap().buffer, Some(8192));
        let parsed = AccessLogParameters::parse(b"a", AccessLogKind::Path, words("if=$x buffer=1m"));
        assert_eq!(parsed.unwrap().condition, Some(&b"$x"[..]));
    }

    #[test]
    fn access_log_errors_have_nginx_texts() {
        for (line, error) in [
            ("gzip=0", "invalid compression level \"0\""),
            ("gzip=10", "invalid compression level \"10\""),
            ("gzip=", "invalid compression level \"\""),
            ("gzip=1x", "invalid compression level \"1x\""),
            ("buffer=0", "invalid buffer size \"0\""),
            ("buffer=100g", "invalid buffer size \"100g\""),
            ("flush=0 buffer=4k", "invalid flush time \"0\""),
            ("flush=5s", "no buffer is defined for access_log \"a.log\""),
            ("foo", "invalid parameter \"foo\""),
        ] {
            assert_eq!(options(line), Err(error.to_owned()), "{line}");
        }
        let parse = |kind| AccessLogParameters::parse(b"a", kind, words("gzip")).unwrap_err();
        assert_eq!(parse(AccessLogKind::PathWithVariables), "buffered logs cannot have variables in name");
        assert_eq!(parse(AccessLogKind::Syslog), "logs to syslog cannot be buffered");
    }

    #[test]
    fn the_cache_of_log_files_follows_nginx() {
        let parse = |line| OpenLogFileCache::parse(words(line));
        let full = OpenLogFileCache { max: 10, inactive_ms: 20_000, min_uses: 2, valid_ms: 60_000 };
        assert_eq!(parse("max=10 inactive=20s min_uses=2 valid=1m"), Ok(Some(full)));
        let plain = OpenLogFileCache { max: 10, inactive_ms: 10_000, min_uses: 1, valid_ms: 60_000 };
        assert_eq!(parse("max=10"), Ok(Some(plain)));
        assert_eq!(parse("off"), Ok(None));
        assert_eq!(parse("max=10 off"), Ok(None));
        for (line, error) in [
            ("max=0", "\"open_log_file_cache\" must have \"max\" parameter"),
            ("inactive=10", "\"open_log_file_cache\" must have \"max\" parameter"),
            ("max=x", "invalid \"open_log_file_cache\" parameter \"max=x\""),
            ("max=10 valid=x", "invalid \"open_log_file_cache\" parameter \"valid=x\""),
            ("foo", "invalid \"open_log_file_cache\" parameter \"foo\""),
        ] {
            assert_eq!(parse(line), Err(error.to_owned()), "{line}");
        }
    }
}
