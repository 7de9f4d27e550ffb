//! Bodies on their way: filters, and pages with what they include.

use crate::http::body::Body;
use crate::http::body_filters::{BodyFilter, Chain, FilterSpec, Progress, Signal};
use crate::http::context::Context;
use crate::http::exchange::Exchange;
use crate::http::modules::ssi::{self, Include, Part, Ssi};

use super::{World, append_body};

impl World {
    /// The body that is sent for a response.
    pub(super) fn body_of(&mut self, exchange: &mut Exchange) -> Vec<u8> {
        let mut body = Vec::new();
        match (&exchange.body, &exchange.upstream) {
            (Body::Upstream(_), Some(passed)) => body.extend_from_slice(&passed.spare),
            (other, _) => append_body(other, &mut body),
        }
        self.filtered(exchange, body)
    }

    fn filtered(&mut self, exchange: &mut Exchange, body: Vec<u8>) -> Vec<u8> {
        let filters = exchange.body_filters.clone();
        let Some(page) = exchange.weaving.take().and_then(|weaving| weaving.page) else {
            return through(&filters, body);
        };
        let place = filters.iter().position(|filter| matches!(filter, FilterSpec::Weave)).expect("a place");
        let (before, behind) = filters.split_at(place);
        let text = through(before, body);
        let text = self.follow(exchange, *page, &text);
        through(behind, text)
    }

    fn follow(&mut self, exchange: &mut Exchange, mut page: Ssi, mut text: &[u8]) -> Vec<u8> {
        let site = self.site.clone();
        let mut out = Vec::new();
        loop {
            let mut parts = Vec::new();
            let mut context = Context { site: &site, env: &mut self.env };
            let progress = page.take(exchange, &mut context, &mut text, true, &mut parts);
            let mut captured = None;
            for part in parts {
                match part {
                    Part::Bytes(bytes) => out.extend_from_slice(&bytes),
                    Part::Include(include) => {
                        let is_captured = include.set.is_some();
                        match self.include(exchange, include) {
                            body if is_captured => captured = body,
                            body => out.extend_from_slice(&body.unwrap_or_default()),
                        }
                    }
                }
            }
            match progress {
                ssi::Progress::Done => return out,
                ssi::Progress::Waiting => page.resume(captured),
                ssi::Progress::Full | ssi::Progress::Starved => {}
            }
        }
    }

    fn include(&mut self, parent: &mut Exchange, include: Include) -> Option<Vec<u8>> {
        parent.order = Some(Box::new(include.order));
        let mut exchange = self.serve_subrequest(parent)?;
        if exchange.response.status.0 >= 300 && include.set.is_some() {
            return None;
        }
        let body = self.body_of(&mut exchange);
        let site = self.site.clone();
        let mut context = Context { site: &site, env: &mut self.env };
        match body.is_empty() && ssi::begin_stub(&mut exchange, &mut context) {
            true => Some(self.body_of(&mut exchange)),
            false => Some(body),
        }
    }
}

fn through(filters: &[FilterSpec], body: Vec<u8>) -> Vec<u8> {
    if filters.is_empty() || body.is_empty() {
        return body;
    }
    let mut chain = Chain::new(filters, Some(body.len() as u64));
    let (mut input, mut filtered) = (&body[..], Vec::new());
    while chain.filter(&mut input, Signal::Last, &mut filtered, 1000).expect("a sound body") != Progress::Done
    {
    }
    filtered
}
