//! `empty_gif`: a transparent image of one pixel.

use crate::conf::directive::{Arity, Call, Complaint};
use crate::http::body::Body;
use crate::http::build::Scope;
use crate::http::context::Context;
use crate::http::exchange::Exchange;
use crate::http::flow::{Answer, Flow};
use crate::http::settings::contexts::LOCATION;
use crate::http::settings::settings;
use crate::message::{Method, Status};

settings! {
    module empty_gif;
    fields {
    }
    plain {
        /// Answers with a transparent image of one pixel.
        "empty_gif" LOCATION, Arity::exactly(0), default "", set_empty_gif;
    }
}

/// GIF89a, 1 x 1, one transparent colour.
#[rustfmt::skip]
static IMAGE: [u8; 43] = [
    b'G', b'I', b'F', b'8', b'9', b'a',
    // Logical screen: 1 x 1, a global table of two colours, background 1, square pixels.
    1, 0, 1, 0, 0x80, 1, 0,
    // Black and white.
    0, 0, 0, 0xff, 0xff, 0xff,
    // Graphic control: colour 1 is transparent, no delay.
    0x21, 0xf9, 4, 1, 0, 0, 1, 0,
    // Image: at 0, 0, 1 x 1, no table of its own.
    0x2c, 0, 0, 0, 0, 1, 0, 1, 0, 0,
    // LZW data of one pixel of colour 1; the end.
    2, 2, 0x4c, 1, 0, 0x3b,
];

/// Mon, 28 Sep 1970 06:00:00 GMT: a date that never changes, so that If-Modified-Since always gets its 304.
const MODIFIED: i64 = 23_349_600;

fn set_empty_gif(scope: &mut Scope, _: &Call) -> Result<(), Complaint> {
    scope.drafts.core.get_or_insert_default().handler = Some(Some(handle));
    Ok(())
}

/// The content handler.
pub fn handle(exchange: &mut Exchange, _: &mut Context, _: Option<Answer>) -> Flow {
    if !matches!(exchange.method(), Method::Get | Method::Head) {
        return Flow::Status(Status::METHOD_NOT_ALLOWED);
    }
    let response = &mut exchange.response;
    response.status = Status::OK;
    response.set_content_type(b"image/gif");
    response.set_content_length(IMAGE.len() as u64);
    let date = crate::base::clock::format_http_date(MODIFIED);
    response.last_modified = Some(MODIFIED);
    response.last_modified_text = Some(response.fields.store(&date));
    exchange.body = Body::Static(&IMAGE);
    Flow::Respond
}

#[cfg(test)]
mod tests {
    use crate::http::testing::World;

    #[test]
    fn the_image_is_complete_and_dated() {
        let mut world = World::new("server { location = /g { empty_gif; } }");
        let reply = world.get("/g");
        assert_eq!((reply.status, &*reply.field("Content-Type")), (200, "image/gif"));
        assert_eq!((reply.body.len(), &reply.body[..6]), (43, &b"GIF89a"[..]));
        assert_eq!(reply.body.last(), Some(&b';'));
        assert_eq!(reply.field("Last-Modified"), "Mon, 28 Sep 1970 06:00:00 GMT");
        let reply = world.get_with("/g", "If-Modified-Since: Mon, 28 Sep 1970 06:00:00 GMT\r\n");
        assert_eq!((reply.status, reply.body.len()), (304, 0));
        assert_eq!(world.send("POST /g HTTP/1.0\r\n\r\n").status, 405);
    }
}
