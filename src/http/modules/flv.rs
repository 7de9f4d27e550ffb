//! `flv`: Flash Video from a place within it. `?start=BYTES` is answered by a new header and the file from there on.

use crate::base::ascii::parse_u64;
use crate::conf::directive::Arity;
use crate::http::body::Body;
use crate::http::context::Context;
use crate::http::exchange::Exchange;
use crate::http::flow::{Answer, Flow};
use crate::http::settings::contexts::LOCATION;
use crate::http::settings::settings;

use super::core_variables::find_argument;
use super::static_files;

settings! {
    module flv;
    fields {
        /// Whether files are sent from the byte that the `start` argument names.
        enabled: bool = false, own;
            "flv" LOCATION, Arity::exactly(0), default "", once |_, _| Ok(true);
    }
}

/// Signature, version 1, audio and video, the header's length, and no tag before.
const HEADER: &[u8] = b"FLV\x01\x05\0\0\0\x09\0\0\0\0";

/// The content handler.
pub fn handle(exchange: &mut Exchange, context: &mut Context, answer: Option<Answer>) -> Flow {
    if !context.site.settings(exchange.location).flv.enabled {
        return Flow::Next;
    }
    let file = match static_files::found(exchange, context, answer) {
        Ok(file) => file,
        Err(flow) => return flow,
    };
    let (size, modified) = (file.size, file.modified_secs);
    exchange.respond_with_file(context, file);
    let start = find_argument(&exchange.args, b"start").and_then(parse_u64).unwrap_or(0);
    if start == 0 || start >= size {
        return Flow::Respond;
    }
    let rest = exchange.body.slice(start, size - start);
    exchange.respond_with_pieces(context, vec![rest, Body::Static(HEADER)], modified);
    Flow::Respond
}

#[cfg(test)]
mod tests {
    use crate::http::testing::World;

    #[test]
    fn a_start_within_the_file_gets_a_header_and_the_rest() {
        let mut world = World::new("server { root /srv; location /v/ { flv; } }")
            .file("/srv/v/a.flv", "0123456789")
            .file("/srv/a.flv", "0123456789");
        assert_eq!(world.get("/v/a.flv").text(), "0123456789");
        let reply = world.get("/v/a.flv?start=7");
        assert_eq!(reply.body, b"FLV\x01\x05\0\0\0\x09\0\0\0\x00789");
        assert_eq!(reply.field("Content-Length"), "16");
        for start in ["0", "10", "99", "x", ""] {
            assert_eq!(world.get(&format!("/v/a.flv?start={start}")).text(), "0123456789", "{start}");
        }
        assert_eq!(world.get("/a.flv?start=7").text(), "0123456789");
        assert_eq!(world.get("/v/none.flv").status, 404);
        assert_eq!(world.send("POST /v/a.flv HTTP/1.0\r\n\r\n").status, 405);
    }

    #[test]
    fn ranges_are_cut_from_what_is_sent() {
        let mut world =
            World::new("server { root /srv; location / { flv; } }").file("/srv/a.flv", "0123456789");
        let reply = world.get_with("/a.flv?start=7", "Range: bytes=12-14\r\n");
        assert_eq!((reply.status, &reply.body[..]), (206, &b"\x0078"[..]));
        let reply = world.get_with("/a.flv?start=7", "Range: bytes=0-1,14-15\r\n");
        assert!(reply.body.windows(4).any(|four| four == b"\r\n89"), "{:?}", reply.body);
    }
}
