//! Certificates whose names have variables, for upstreams and towards clients. Reading them may block, and so may making
//! sense of an encrypted key.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;

use crate::conf::source::Files;
use crate::http::modules::ssl::{FileOrData, PairText};
use crate::http::upstream_call::CallTls;
use crate::proto::tls::ClientTlsConfig;
use crate::server::config_files::ConfigFiles;

/// A configuration with the certificate, and the state of the files that it was made of; `None` if they are in the state
/// that was known. The error is for the log.
pub type LoadedPair = Result<Option<(Arc<ClientTlsConfig>, u64)>, String>;

/// Reads the certificate and key of a call.
pub fn load(tls: &CallTls, known: Option<u64>) -> LoadedPair {
    let Some(pair) = &tls.pair else { return Ok(None) };
    let state = state_of(std::slice::from_ref(pair));
    if known == Some(state) {
        return Ok(None);
    }
    let certificate = read("certificate", &pair.certificate)?;
    let key = read("certificate key", &pair.key)?;
    let config = tls.tls.with_pair(&certificate, &key).map_err(|message| {
        format!("cannot load certificate \"{}\": {message}", name_of(&pair.certificate))
    })?;
    Ok(Some((Arc::new(config), state)))
}

/// What a message calls it.
pub fn name_of(from: &FileOrData) -> &str {
    match from {
        FileOrData::File(path) => path,
        FileOrData::Data(_) => "data:...",
    }
}

/// Reads one of the two, or says why not, for the log.
pub fn read(what: &str, from: &FileOrData) -> Result<Vec<u8>, String> {
    match from {
        FileOrData::Data(text) => Ok(text.clone()),
        FileOrData::File(path) => ConfigFiles
            .read_data(path)
            .map_err(|error| format!("cannot load {what} \"{path}\": {}", error.message(path))),
    }
}

/// Tells whether files changed: by time, place and size. It is looked at before they are read, so that a change meanwhile
/// is seen the next time.
pub fn state_of(pairs: &[PairText]) -> u64 {
    let mut hasher = DefaultHasher::new();
    for from in pairs.iter().flat_map(|pair| [&pair.certificate, &pair.key]) {
        if let FileOrData::File(path) = from
            && let Ok(facts) = std::fs::metadata(path)
        {
            (facts.mtime(), facts.mtime_nsec(), facts.ino(), facts.size()).hash(&mut hasher);
        }
    }
    hasher.finish()
}
