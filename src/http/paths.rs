//! From a URI to a path of the file system: `root` and `alias`.

use crate::base::level::Level;
use crate::message::Status;

use super::context::Context;
use super::exchange::Exchange;
use super::modules::core::Replaces;

/// Longest path that the system takes (PATH_MAX, with its NUL); a longer one is 414 here, as nginx's ENAMETOOLONG.
const LONGEST_PATH: usize = 4095;

impl Exchange {
    /// Puts the path of the present URI into [`Exchange::path`] and the length of its root into `root_length`.
    ///
    /// The path stays beneath the root whatever rewriting did: `..` segments that would climb out of it are 404
    /// (nginx would serve the file above; `compat strict` keeps that).
    pub fn map_uri_to_path(&mut self, context: &mut Context) -> Result<(), Status> {
        let uri = std::mem::take(&mut self.uri);
        let result = self.map_to_path(&uri, context);
        self.uri = uri;
        result
    }

    /// The same for another URI of the same location.
    pub fn map_to_path(&mut self, uri: &[u8], context: &mut Context) -> Result<(), Status> {
        let site = context.site;
        let rest = match &site.settings(self.location).core.root.replaces {
            Replaces::Nothing => uri,
            Replaces::Name(name) => uri.get(name.len()..).unwrap_or(b""),
            Replaces::All => {
                if self.uri_extends_alias {
                    uri
                } else {
                    b""
                }
            }
        };
        self.map_beneath_root(rest, context)
    }

    /// The same for what is to stand behind `root` or `alias` as it is.
    pub fn map_beneath_root(&mut self, rest: &[u8], context: &mut Context) -> Result<(), Status> {
        let site = context.site;
        let location = site.location(self.location);
        let core = &location.settings.core;
        let mut path = std::mem::take(&mut self.path);
        path.clear();
        self.render(&core.root.template, context, &mut path);
        if !core.root.is_alias() {
            strip_trailing_slash(&mut path, core.root.template.as_literal().is_none());
        } else if !self.uri_fits_location {
            self.path = path;
            self.log(
                context,
                Level::Alert,
                format_args!(
                    "\"alias\" cannot be used in location \"{}\" where URI was rewritten",
                    String::from_utf8_lossy(&location.name)
                ),
            );
            return Err(Status::INTERNAL_SERVER_ERROR);
        }
        if !core.root.is_absolute && !path.starts_with(b"/") {
            path.splice(0..0, core.root.prefix.iter().copied());
        }
        let root_length = path.len();
        path.extend_from_slice(rest);
        self.root_length = root_length as u32;
        let outside = !core.strict && climbs_out(rest);
        let too_long = path.len() > LONGEST_PATH;
        let has_nul = memchr::memchr(0, &path).is_some();
        self.path = path;
        if outside || has_nul {
            self.log(
                context,
                Level::Error,
                format_args!("\"{}\" would leave its root", String::from_utf8_lossy(&self.path.clone())),
            );
            return Err(Status::NOT_FOUND);
        }
        if too_long {
            return Err(Status::URI_TOO_LONG);
        }
        Ok(())
    }
}

/// A root of variables may end in a slash; a literal one was trimmed when it was read.
fn strip_trailing_slash(path: &mut Vec<u8>, needed: bool) {
    if needed && path.last() == Some(&b'/') {
        path.pop();
    }
}

/// Whether a path below some root climbs above it. The URI was normalised, but rewriting and an `alias` whose slash
/// does not match its location's can put `..` behind a slash again.
fn climbs_out(rest: &[u8]) -> bool {
    if memchr::memmem::find(rest, b"..").is_none() {
        return false;
    }
    let mut depth = 0i32;
    for segment in rest.split(|byte| *byte == b'/') {
        match segment {
            b".." => depth -= 1,
            b"" | b"." => {}
            _ => depth += 1,
        }
        if depth < 0 {
            return true;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::climbs_out;

    #[test]
    fn only_paths_that_leave_their_root_climb_out() {
        for inside in [&b"/a/b"[..], b"/a/../b", b"/..a", b"/a..", b"/a/b/../../c", b""] {
            assert!(!climbs_out(inside), "{}", String::from_utf8_lossy(inside));
        }
        for outside in [&b"../x"[..], b"/../x", b"/a/../../b", b".."] {
            assert!(climbs_out(outside), "{}", String::from_utf8_lossy(outside));
        }
    }
}
