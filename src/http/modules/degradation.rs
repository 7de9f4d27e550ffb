//! `degradation`, `degrade`: refused, with the reason.

use crate::conf::directive::{Arity, Call, Complaint};
use crate::http::build::Scope;
use crate::http::settings::contexts::{HTTP, HTTP_SERVER_LOCATION};
use crate::http::settings::settings;

settings! {
    module degradation;
    fields {
    }
    plain {
        /// Refused: the measure that nginx goes by (`sbrk`) says nothing about the memory in use here.
        "degradation" HTTP, Arity::exactly(1), default "", refuse;
        /// Refused, as `degradation` is.
        "degrade" HTTP_SERVER_LOCATION, Arity::exactly(1), default "off", refuse;
    }
}

fn refuse(_: &mut Scope, call: &Call) -> Result<(), Complaint> {
    let message = format!(
        "\"{}\" is refused: it goes by sbrk(), which says nothing about the memory in use here",
        call.name()
    );
    Err(Complaint::new(message).help("bound the load with `worker_connections`, `limit_conn` and `limit_req`"))
}

#[cfg(test)]
mod tests {
    use crate::http::testing::complaints;

    #[test]
    fn the_refusal_says_why() {
        for text in ["degradation sbrk=500m;", "server { degrade 204; }"] {
            let told = complaints(text);
            assert!(told[0].contains("is refused: it goes by sbrk()"), "{told:?}");
        }
    }
}
