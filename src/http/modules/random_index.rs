//! `random_index`: a file of the folder, chosen at random, in place of an index file.

use crate::conf::directive::Arity;
use crate::http::build::arguments::flag;
use crate::http::context::Context;
use crate::http::exchange::Exchange;
use crate::http::file::{DirectoryEntry, FileKind};
use crate::http::flow::{Answer, Flow};
use crate::http::settings::contexts::LOCATION;
use crate::http::settings::settings;
use crate::message::{Method, Status};

use super::autoindex::{ask_for_directory, is_hidden, refuse_directory};

settings! {
    module random_index;
    fields {
        /// Whether a request of a folder gets one of its files.
        enabled: bool = false, inherit;
            "random_index" LOCATION, Arity::FLAG, default "off", once flag;
    }
}

/// Redirects a request of a folder to one of its regular files; hidden ones are never chosen.
pub fn handle(exchange: &mut Exchange, context: &mut Context, answer: Option<Answer>) -> Flow {
    if !context.site.settings(exchange.location).random_index.enabled
        || !exchange.uri.ends_with(b"/")
        || !matches!(exchange.method(), Method::Get | Method::Head | Method::Post)
    {
        return Flow::Next;
    }
    match answer {
        None => ask_for_directory(exchange, context),
        Some(Answer::Directory(Ok(listing))) => {
            let files = || listing.entries.iter().filter(|entry| is_candidate(entry));
            let count = files().count();
            if count == 0 {
                return Flow::Next;
            }
            let Some(chosen) = files().nth(context.env.random.usize(..count)) else { return Flow::Next };
            exchange.uri.extend_from_slice(&chosen.name);
            Flow::InternalRedirect
        }
        Some(Answer::Directory(Err(failure))) => refuse_directory(exchange, context, failure),
        Some(_) => Flow::Status(Status::INTERNAL_SERVER_ERROR),
    }
}

fn is_candidate(entry: &DirectoryEntry) -> bool {
    entry.kind == FileKind::File && !is_hidden(&entry.name)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use crate::http::testing::{World, complaints};

    const CONFIGURATION: &str = "server { root /srv; location / { random_index on; } }";

    #[test]
    fn every_file_is_chosen_at_times_and_nothing_else() {
        let mut world = World::new(CONFIGURATION)
            .file("/srv/a.txt", "a")
            .file("/srv/b.txt", "b")
            .file("/srv/.hidden", "hidden")
            .file("/srv/folder/c.txt", "c");
        let seen: BTreeSet<String> = (0..100).map(|_| world.get("/").text().to_owned()).collect();
        assert_eq!(seen.into_iter().collect::<Vec<_>>(), ["a", "b"]);
    }

    #[test]
    fn a_folder_without_files_goes_on_to_the_other_handlers() {
        let mut world = World::new(CONFIGURATION).directory("/srv/empty");
        assert_eq!(world.get("/empty/").status, 403);
        assert_eq!(world.get("/missing/").status, 404);
    }

    #[test]
    fn it_belongs_in_locations() {
        assert!(complaints("random_index on;")[0].contains("\"random_index\" directive is not allowed here"));
    }
}
