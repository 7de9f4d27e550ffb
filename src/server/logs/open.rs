//! Opening the log files of a configuration: the main thread's part.
//!
//! Workers may have given their privileges up, so that the main thread opens files at the start, at a reload and for
//! USR1, and hands the descriptors over as an [`OpenLogs`]. The threads of a process share their descriptors: each
//! worker holds the same open file description, and all of them append.

use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::Arc;

use super::file::{LogFile, LogOwner, error_text};
use super::syslog::{PlainSyslog, SyslogAddress};
use crate::base::log::SinkId;
use crate::conf::log_list::{LogList, LogListEntry};
use crate::conf::log_target::{AccessLogOptions, LogTarget, SyslogServer, SyslogTarget};

/// The opened targets of one configuration; cheap to share among workers.
#[derive(Clone, Debug, Default)]
pub struct OpenLogs {
    pub(super) entries: Vec<OpenLog>,
}

#[derive(Clone, Debug)]
pub(super) struct OpenLog {
    pub(super) id: SinkId,
    target: LogTarget,
    pub(super) place: Place,
    pub(super) options: AccessLogOptions,
}

#[derive(Clone, Debug)]
pub(super) enum Place {
    File { file: Arc<LogFile>, name: String },
    Syslog { address: SyslogAddress, target: SyslogTarget },
}

/// Why a target could not be opened, in nginx's words: `open() "/x" failed (2: No such file or directory)`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogOpenError {
    pub text: String,
}

impl OpenLogs {
    /// Opens all targets of `list`. What `previous` has open already (the configuration before) is kept, neither
    /// opened nor resolved anew. All errors are reported; then nothing is in force. Resolves names of syslog servers:
    /// not for a loop.
    pub fn open(list: &LogList, previous: Option<&OpenLogs>) -> Result<OpenLogs, Vec<LogOpenError>> {
        let mut logs = OpenLogs::default();
        let mut errors = Vec::new();
        for entry in list.entries() {
            let known = logs.find(&entry.target).or_else(|| previous?.find(&entry.target));
            match known.map_or_else(|| open_place(entry), Ok) {
                Ok(place) => logs.entries.push(OpenLog {
                    id: entry.id,
                    target: entry.target.clone(),
                    place,
                    options: entry.options,
                }),
                Err(error) => errors.push(error),
            }
        }
        if errors.is_empty() { Ok(logs) } else { Err(errors) }
    }

    /// Opens all paths anew (USR1, after a rotation); a file that is made by this belongs to `owner`. Where that
    /// fails, the old descriptor stays and the error is returned beside the result.
    pub fn reopen(&self, owner: Option<LogOwner>) -> (OpenLogs, Vec<LogOpenError>) {
        let mut logs = OpenLogs::default();
        let mut errors = Vec::new();
        for entry in &self.entries {
            let mut entry = entry.clone();
            if let (LogTarget::File(path), Place::File { file, .. }) = (&entry.target, &mut entry.place) {
                match logs.find(&entry.target) {
                    Some(Place::File { file: same, .. }) => *file = same,
                    _ => match LogFile::open(path, owner) {
                        Ok(opened) => *file = Arc::new(opened),
                        Err(error) => errors.push(open_error(path, &error)),
                    },
                }
            }
            logs.entries.push(entry);
        }
        (logs, errors)
    }

    fn find(&self, target: &LogTarget) -> Option<Place> {
        self.entries.iter().find(|entry| entry.target == *target).map(|entry| entry.place.clone())
    }
}

fn open_place(entry: &LogListEntry) -> Result<Place, LogOpenError> {
    match &entry.target {
        LogTarget::File(path) => {
            let file = LogFile::open(path, None).map_err(|error| open_error(path, &error))?;
            let name = String::from_utf8_lossy(path).into_owned();
            Ok(Place::File { file: Arc::new(file), name })
        }
        LogTarget::Stderr => {
            let file = LogFile::stderr().map_err(|error| open_error(b"stderr", &error))?;
            Ok(Place::File { file: Arc::new(file), name: "stderr".into() })
        }
        LogTarget::Syslog(target) => Ok(Place::Syslog { address: locate(target)?, target: target.clone() }),
    }
}

/// Opens a syslog target for a thread that has no loop. Resolves its name.
pub fn open_syslog(target: &SyslogTarget) -> Result<PlainSyslog, LogOpenError> {
    Ok(PlainSyslog::new(locate(target)?, target.clone()))
}

fn locate(target: &SyslogTarget) -> Result<SyslogAddress, LogOpenError> {
    Ok(match &target.server {
        SyslogServer::Udp(address) => SyslogAddress::Udp(*address),
        SyslogServer::Unix(path) => SyslogAddress::Unix(path.clone()),
        SyslogServer::Name { host, port } => SyslogAddress::Udp(resolve(host, *port)?),
    })
}

/// The first address of a name, as nginx takes it.
fn resolve(host: &str, port: u16) -> Result<SocketAddr, LogOpenError> {
    let addresses = (host, port).to_socket_addrs();
    addresses
        .ok()
        .and_then(|mut addresses| addresses.next())
        .ok_or_else(|| LogOpenError { text: format!("host not found in syslog server \"{host}\"") })
}

fn open_error(path: &[u8], error: &std::io::Error) -> LogOpenError {
    let path = String::from_utf8_lossy(path);
    LogOpenError { text: format!("open() \"{path}\" failed {}", error_text(error)) }
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStrExt;
    use std::path::Path;

    use super::*;

    fn target(path: &Path) -> LogTarget {
        LogTarget::File(path.as_os_str().as_bytes().to_vec())
    }

    fn file(logs: &OpenLogs, id: SinkId) -> Arc<LogFile> {
        match &logs.entries.iter().find(|entry| entry.id == id).unwrap().place {
            Place::File { file, .. } => file.clone(),
            Place::Syslog { .. } => panic!("a file was expected"),
        }
    }

    #[test]
    fn a_reload_keeps_open_what_is_named_again() {
        let folder = tempfile::tempdir().unwrap();
        let mut list = LogList::default();
        let a = list.error_log(target(&folder.path().join("a")));
        let first = OpenLogs::open(&list, None).unwrap();
        let mut list = LogList::after(&list);
        let b = list.error_log(target(&folder.path().join("b")));
        assert_eq!(list.error_log(target(&folder.path().join("a"))), a);
        let second = OpenLogs::open(&list, Some(&first)).unwrap();
        assert!(Arc::ptr_eq(&file(&first, a), &file(&second, a)));
        assert!(folder.path().join("b").exists());
        assert!(!Arc::ptr_eq(&file(&second, a), &file(&second, b)));
    }

    #[test]
    fn every_target_that_cannot_be_opened_is_reported() {
        let mut list = LogList::default();
        list.error_log(LogTarget::File(b"/nonexistent-folder/a".to_vec()));
        list.error_log(LogTarget::File(b"/nonexistent-folder/b".to_vec()));
        let errors = OpenLogs::open(&list, None).unwrap_err();
        assert_eq!(errors.len(), 2);
        assert_eq!(errors[0].text, "open() \"/nonexistent-folder/a\" failed (2: No such file or directory)");
    }

    #[test]
    fn a_syslog_server_is_resolved_at_opening() {
        let mut list = LogList::default();
        list.error_log(LogTarget::parse_error_log(b"syslog:server=localhost:77").unwrap());
        let logs = OpenLogs::open(&list, None).unwrap();
        match &logs.entries[0].place {
            Place::Syslog { address: SyslogAddress::Udp(address), .. } => {
                assert!(address.ip().is_loopback());
                assert_eq!(address.port(), 77);
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_failed_reopening_keeps_the_old_descriptor() {
        let folder = tempfile::tempdir().unwrap();
        let inner = folder.path().join("inner");
        std::fs::create_dir(&inner).unwrap();
        let mut list = LogList::default();
        let a = list.error_log(target(&folder.path().join("a")));
        let b = list.error_log(target(&inner.join("b")));
        let logs = OpenLogs::open(&list, None).unwrap();
        std::fs::remove_dir_all(&inner).unwrap();
        let (reopened, errors) = logs.reopen(None);
        assert_eq!(errors.len(), 1);
        assert!(Arc::ptr_eq(&file(&logs, b), &file(&reopened, b)));
        assert!(!Arc::ptr_eq(&file(&logs, a), &file(&reopened, a)));
    }
}
