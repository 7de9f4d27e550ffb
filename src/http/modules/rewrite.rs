//! Placeholder: its module is being written.

use crate::http::context::Context;
use crate::http::exchange::Exchange;
use crate::http::flow::{Answer, Flow};
use crate::http::settings::settings;

settings! {
    module rewrite;
    fields {
    }
}

/// Says nothing yet.
pub fn handle(_: &mut Exchange, _: &mut Context, _: Option<Answer>) -> Flow {
    Flow::Next
}
/// State.
#[derive(Default)]
pub struct Running;
impl Running { /// Begins.
pub fn begin(&mut self) {} }
/// Runs.
pub fn run(_: &mut Exchange, _: &mut Context, _: Option<Answer>) -> Flow {
    Flow::Next
}
