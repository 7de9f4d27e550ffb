//! Placeholder: its module is being written.

use crate::http::context::Context;
use crate::http::exchange::Exchange;
use crate::http::flow::{Answer, Flow};
use crate::http::settings::settings;

settings! {
    module headers;
    fields {
    }
}

/// Says nothing yet.
pub fn handle(_: &mut Exchange, _: &mut Context, _: Option<Answer>) -> Flow {
    Flow::Next
}
/// Variables.
pub static VARIABLES: &[crate::http::variables::VariableEntry] = &[];
/// Filter.
pub fn filter(_: &mut Exchange, _: &mut Context) -> Option<crate::message::Status> { None }
