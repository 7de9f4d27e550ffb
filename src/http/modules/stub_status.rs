//! `stub_status`: how many connections there are and what they do.

use crate::base::ascii::append_decimal;
use crate::conf::directive::{Arity, Call, Complaint};
use crate::http::body::Body;
use crate::http::build::Scope;
use crate::http::context::{ConnectionCounts, Context};
use crate::http::exchange::Exchange;
use crate::http::flow::{Answer, Flow};
use crate::http::settings::contexts::SERVER_LOCATION;
use crate::http::settings::settings;
use crate::http::variables::VariableEntry;
use crate::message::{Method, Status};

settings! {
    module stub_status;
    fields {
    }
    plain {
        /// Answers with the numbers of connections and requests.
        "stub_status" SERVER_LOCATION, Arity::between(0, 1), default "", set_stub_status;
    }
}

/// The module's variables.
pub static VARIABLES: &[VariableEntry] = &[
    VariableEntry::new("connections_active", |_, context, out| show(context, out, |counts| counts.active)),
    VariableEntry::new("connections_reading", |_, context, out| show(context, out, |counts| counts.reading)),
    // Ours: what limits against hostile clients have come to.
    VariableEntry::new("connections_refused", |_, context, out| show(context, out, |counts| counts.refused)),
    VariableEntry::new("connections_slow_bodies", |_, context, out| {
        show(context, out, |counts| counts.slow_bodies)
    }),
    VariableEntry::new("connections_slow_readers", |_, context, out| {
        show(context, out, |counts| counts.slow_readers)
    }),
    VariableEntry::new("connections_waiting", |_, context, out| show(context, out, ConnectionCounts::waiting)),
    VariableEntry::new("connections_writing", |_, context, out| show(context, out, |counts| counts.writing)),
];

fn show(context: &Context, out: &mut Vec<u8>, part: impl FnOnce(&ConnectionCounts) -> u64) -> bool {
    append_decimal(out, part(&context.env.system.connections()));
    true
}

fn set_stub_status(scope: &mut Scope, _: &Call) -> Result<(), Complaint> {
    scope.drafts.core.get_or_insert_default().handler = Some(Some(handle));
    Ok(())
}

/// The content handler.
pub fn handle(exchange: &mut Exchange, context: &mut Context, _: Option<Answer>) -> Flow {
    if !matches!(exchange.method(), Method::Get | Method::Head) {
        return Flow::Status(Status::METHOD_NOT_ALLOWED);
    }
    let counts = context.env.system.connections();
    let mut body = context.env.scratch();
    for (text, number) in [
        ("Active connections: ", counts.active),
        (" \nserver accepts handled requests\n ", counts.accepted),
        (" ", counts.accepted),
        (" ", counts.requests),
        (" \nReading: ", counts.reading),
        (" Writing: ", counts.writing),
        (" Waiting: ", counts.waiting()),
    ] {
        body.extend_from_slice(text.as_bytes());
        append_decimal(&mut body, number);
    }
    body.extend_from_slice(b" \n");
    let response = &mut exchange.response;
    response.status = Status::OK;
    response.set_content_type(b"text/plain");
    response.set_content_length(body.len() as u64);
    exchange.body = Body::Bytes(body);
    Flow::Respond
}

#[cfg(test)]
mod tests {
    use crate::http::testing::World;

    #[test]
    fn the_numbers_stand_where_scripts_look_for_them() {
        let mut world = World::new("server { location /s { stub_status; } }");
        let reply = world.get("/s");
        assert_eq!(reply.field("Content-Type"), "text/plain");
        assert_eq!(
            reply.text(),
            "Active connections: 0 \nserver accepts handled requests\n 0 0 0 \nReading: 0 Writing: 0 Waiting: 0 \n"
        );
        assert_eq!(world.send("POST /s HTTP/1.0\r\n\r\n").status, 405);
    }
}
