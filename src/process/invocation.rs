//! What the command line asks for, independent of how it is spelled.

use crate::conf::log_target::LogTarget;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// The prefix of an installation, without `-p`.
pub const DEFAULT_PREFIX: &str = match option_env!("THALWEG_PREFIX") {
    Some(prefix) => prefix,
    None => "/usr/local/thalweg",
};

/// The configuration below the prefix, without `-c`.
pub const DEFAULT_CONFIGURATION: &str = "conf/nginx.conf";

/// The error log below the prefix, without `-e` and `error_log`.
pub const DEFAULT_ERROR_LOG: &str = "logs/error.log";

/// What `-s` sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    Stop,
    Quit,
    Reload,
    Reopen,
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Serve.
    Run,
    /// `-t`; with `dump`, `-T`.
    Test { dump: bool },
    /// `-s`.
    Signal(Order),
}

/// One call of the program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invocation {
    /// `-p`.
    pub prefix: Option<PathBuf>,
    /// `-c`.
    pub configuration: Option<PathBuf>,
    /// `-e`.
    pub error_log: Option<String>,
    /// `-g`.
    pub directives: String,
    /// Configuration text in place of a file.
    pub text: Option<Vec<u8>>,
    /// A line for standard output when the sockets are open.
    pub greeting: Option<String>,
    /// `-q`: a test says only what is wrong.
    pub quiet: bool,
    pub action: Action,
    /// The command line as it was, for an upgraded binary.
    pub arguments: Vec<OsString>,
}

/// The places that everything else is relative to. All are absolute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Paths {
    pub prefix: PathBuf,
    pub configuration: PathBuf,
    /// Where errors go as long as the configuration does not say.
    pub error_log: LogTarget,
}

impl Paths {
    /// As nginx does: the prefix from the current folder, everything else from the prefix.
    pub fn new(invocation: &Invocation, current_folder: &Path) -> Self {
        let prefix = current_folder.join(invocation.prefix.as_deref().unwrap_or(DEFAULT_PREFIX.as_ref()));
        let configuration =
            prefix.join(invocation.configuration.as_deref().unwrap_or(DEFAULT_CONFIGURATION.as_ref()));
        let error_log = match invocation.error_log.as_deref() {
            Some("stderr") => LogTarget::Stderr,
            Some(path) => LogTarget::File(path.into()),
            None => LogTarget::File(DEFAULT_ERROR_LOG.into()),
        };
        Self { prefix, configuration, error_log }
    }

    /// With the default configuration below `prefix`.
    #[cfg(test)]
    pub fn for_test(prefix: &Path) -> Self {
        Self {
            prefix: prefix.to_owned(),
            configuration: prefix.join(DEFAULT_CONFIGURATION),
            error_log: LogTarget::File(prefix.join("error.log").into_os_string().into_encoded_bytes()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_relative_to_the_prefix_and_the_prefix_to_the_current_folder() {
        let mut invocation = Invocation {
            prefix: Some("site".into()),
            configuration: None,
            error_log: None,
            directives: String::new(),
            text: None,
            greeting: None,
            quiet: false,
            action: Action::Run,
            arguments: Vec::new(),
        };
        let paths = Paths::new(&invocation, Path::new("/home/u"));
        assert_eq!(paths.prefix, Path::new("/home/u/site"));
        assert_eq!(paths.configuration, Path::new("/home/u/site/conf/nginx.conf"));
        invocation.configuration = Some("/etc/a.conf".into());
        invocation.error_log = Some("stderr".to_owned());
        let paths = Paths::new(&invocation, Path::new("/home/u"));
        assert_eq!(paths.configuration, Path::new("/etc/a.conf"));
        assert_eq!(paths.error_log, LogTarget::Stderr);
        invocation.prefix = None;
        assert_eq!(Paths::new(&invocation, Path::new("/")).prefix, Path::new(DEFAULT_PREFIX));
    }
}
