//! Placeholder: its module is being written.

use crate::http::context::Context;
use crate::http::exchange::Exchange;
use crate::http::flow::{Answer, Flow};
use crate::http::settings::settings;

settings! {
    module map;
    fields {
    }
}

/// Says nothing yet.
pub fn handle(_: &mut Exchange, _: &mut Context, _: Option<Answer>) -> Flow {
    Flow::Next
}

