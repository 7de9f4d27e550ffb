//! `types` and `default_type`: which media type a file name's extension has.

use std::sync::Arc;

use hashbrown::HashMap;

use crate::conf::directive::{Arity, Call, Complaint};
use crate::http::build::Scope;
use crate::http::build::arguments::{number_without_meaning};
use crate::http::settings::contexts::HTTP_SERVER_LOCATION;
use crate::http::settings::settings;
use crate::http::mime;

/// Media types by extension, in lower case.
pub type Types = Arc<HashMap<Box<[u8]>, Arc<[u8]>>>;

settings! {
    module types;
    fields {
        /// What `types` says; `None` where no configuration block says anything.
        types: Option<Types> = None, inherit;
            "types" HTTP_SERVER_LOCATION, Arity::exactly(0).block(), default "", with set_types;
        /// The type of everything else; `None` if the configuration does not say.
        default_type: Option<Arc<[u8]>> = None, inherit;
            "default_type" HTTP_SERVER_LOCATION, Arity::exactly(1), default "text/plain", once default_type;
    }
    plain {
        /// Without meaning here: tables size themselves.
        "types_hash_bucket_size" HTTP_SERVER_LOCATION, Arity::exactly(1), default "64", number_without_meaning;
        /// Without meaning here: tables size themselves.
        "types_hash_max_size" HTTP_SERVER_LOCATION, Arity::exactly(1), default "1024", number_without_meaning;
    }
}

fn default_type(_: &mut Scope, call: &Call) -> Result<Option<Arc<[u8]>>, Complaint> {
    Ok(Some(call.arg(0).as_bytes().into()))
}

fn set_types(scope: &mut Scope, call: &Call, slot: &mut Option<Option<Types>>) -> Result<(), Complaint> {
    let mut types = match slot.take().flatten() {
        Some(types) => Arc::try_unwrap(types).unwrap_or_else(|shared| (*shared).clone()),
        None => HashMap::new(),
    };
    for line in call.block() {
        let name: Arc<[u8]> = line.name().as_bytes().into();
        for extension in line.args() {
            let key: Box<[u8]> = extension.as_bytes().to_ascii_lowercase().into();
            if let Some(before) = types.insert(key, name.clone()) {
                let message = format!(
                    "duplicate extension \"{}\", content type: \"{}\", previous content type: \"{}\"",
                    extension.lossy(),
                    line.name().lossy(),
                    String::from_utf8_lossy(&before)
                );
                scope.builder.warn_at(extension, line.include, message);
            }
        }
    }
    *slot = Some(Some(Arc::new(types)));
    Ok(())
}

/// The fallback where neither `types`, nor `default_type`, nor the built-in table says anything.
const PLAIN: &[u8] = b"text/plain";

impl Settings {
    /// The media type of a file by its path's last extension.
    ///
    /// `types` decides. A name that it does not mention gets the built-in table's type, then `default_type`: so
    /// `.mjs` or `.wasm` work with a table that is older than they are. But a `types` block that is not a table for
    /// whole sites (an empty one, or one of a few types) means just what it says, and so does every block under
    /// `compat strict`: what it does not mention gets `default_type`.
    pub fn of_path(&self, path: &[u8], strict: bool) -> &[u8] {
        let mut lower = [0u8; 32];
        let key = extension(path).and_then(|extension| {
            let lower = lower.get_mut(..extension.len())?;
            lower.copy_from_slice(extension);
            lower.make_ascii_lowercase();
            Some(&*lower)
        });
        let Some(key) = key else { return self.default_type() };
        let built_in = match &self.types {
            Some(types) => {
                if let Some(found) = types.get(key) {
                    return found;
                }
                !strict && is_table_for_sites(types)
            }
            None => !strict,
        };
        let found = if built_in { mime::by_extension(key) } else { mime::nginx_default(key, &self.types) };
        found.unwrap_or_else(|| self.default_type())
    }

    /// The type of what has no type of its own.
    pub fn default_type(&self) -> &[u8] {
        self.default_type.as_deref().unwrap_or(PLAIN)
    }
}

/// Whether a `types` block is meant for whole sites rather than for a few files.
fn is_table_for_sites(types: &Types) -> bool {
    ["html", "css", "js"].iter().all(|extension| types.contains_key(extension.as_bytes()))
}

/// What follows the last dot of the last segment.
pub fn extension(path: &[u8]) -> Option<&[u8]> {
    let at = memchr::memrchr2(b'.', b'/', path)?;
    (path[at] == b'.' && at + 1 < path.len() && at > 0 && path[at - 1] != b'/').then(|| &path[at + 1..])
}

#[cfg(test)]
mod tests {
    use super::extension;

    #[test]
    fn the_extension_is_that_of_the_last_segment() {
        assert_eq!(extension(b"/a/b.tar.gz"), Some(&b"gz"[..]));
        assert_eq!(extension(b"/a.d/b"), None);
        assert_eq!(extension(b"/a/b."), None);
        assert_eq!(extension(b"/a/.htaccess"), None);
    }
}
